"""What the functions of a stack have logged, to its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from ops.stack import Stack

_MOST_IN_A_PAGE = 10_000  # of FilterLogEvents, also the emulator's, which gives no token for the rest


class UnreadableLog(Exception):
    """What a function has logged cannot be read to its end."""


def logged_by(stack: Stack, output: str) -> Iterator[dict[str, Any]]:
    """Every line of JSON of the function that the stack's output names. Raises `UnreadableLog`."""
    for text in texts_of(stack, output):
        if text.startswith("{"):
            try:
                line = json.loads(text)
            except ValueError:
                continue  # a line that its process did not live to finish
            if isinstance(line, dict):
                yield line


def texts_of(stack: Stack, output: str) -> Iterator[str]:
    """Every line, stream by stream: of a whole group the emulator tells the first ones, and nobody that there are more.
    Raises `UnreadableLog`.
    """
    configuration = stack.client("lambda").get_function_configuration(FunctionName=stack.output(output))
    group, logs = configuration["LoggingConfig"]["LogGroup"], stack.client("logs")
    for streams in logs.get_paginator("describe_log_streams").paginate(logGroupName=group):
        for stream in streams["logStreams"]:
            yield from _of_stream(logs, group, stream["logStreamName"])


def _of_stream(logs: Any, group: str, stream: str) -> Iterator[str]:
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group, logStreamNames=[stream])
    for page in pages:
        if len(page["events"]) >= _MOST_IN_A_PAGE and "nextToken" not in page:
            raise UnreadableLog(f"{group}, {stream} has more lines than are told")
        for event in page["events"]:
            yield from event["message"].splitlines()


def recent(stack: Stack, output: str, phrase: str, since_ms: int) -> Iterator[dict[str, Any]]:
    """The lines of JSON since then that hold the phrase, of one page at most: for what is looked for in minutes."""
    configuration = stack.client("lambda").get_function_configuration(FunctionName=stack.output(output))
    logs, group = stack.client("logs"), configuration["LoggingConfig"]["LogGroup"]
    try:
        events = logs.filter_log_events(logGroupName=group, startTime=since_ms, filterPattern=f'"{phrase}"')["events"]
    except ClientError as exc:
        if exc.response.get("Error", {}).get("Code") == "ResourceNotFoundException":
            return  # nothing has been logged yet
        raise
    for text in (text for event in events for text in event["message"].splitlines()):
        if phrase in text and text.startswith("{"):
            try:
                line = json.loads(text)
            except ValueError:
                continue  # a line that its process did not live to finish
            if isinstance(line, dict):
                yield line
