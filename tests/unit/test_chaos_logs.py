"""What the functions have logged is read to its end, or the run says that it was not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest

from ops import function_logs
from ops.chaos.logs import said_by
from ops.function_logs import UnreadableLog
from ops.stack import Stack

MOST = 5


class Emulator:
    """A stack whose log service tells the first `MOST` lines of what is asked for, and nobody that there are more."""

    def __init__(self, streams: dict[str, list[str]]) -> None:
        self.streams = streams

    def output(self, key: str) -> str:
        return key

    def client(self, _service: str) -> Emulator:
        return self

    def get_function_configuration(self, FunctionName: str) -> dict[str, Any]:  # noqa: N803  # the name is boto3's
        return {"LoggingConfig": {"LogGroup": f"/{FunctionName}"}}

    def get_paginator(self, operation: str) -> Any:
        return _Paginator(self.streams, operation)


class _Paginator:
    def __init__(self, streams: dict[str, list[str]], operation: str) -> None:
        self.streams, self.operation = streams, operation

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        if self.operation == "describe_log_streams":
            for name in self.streams:
                yield {"logStreams": [{"logStreamName": name}]}
            return
        wanted = request.get("logStreamNames", list(self.streams))
        lines = [line for name in wanted for line in self.streams[name]]
        yield {"events": [{"message": line} for line in lines[:MOST]]}


def raised(name: str) -> str:
    return json.dumps({"message": "a duty failed", "exception_name": name})


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_logs, "_MOST_IN_A_PAGE", MOST)


def test_a_defect_behind_more_lines_than_are_told_of_a_group_is_found() -> None:
    streams = {"first": ["START", *[raised("StorageUnavailable")] * 3], "second": [raised("KeyError"), '{"cut o']}
    said = said_by(cast("Stack", Emulator(streams)), ["WorkerFunction"])
    assert said.exceptions == {"StorageUnavailable": 3, "KeyError": 1}
    assert len(said.defects) == 1


def test_a_stream_that_is_not_told_to_its_end_is_no_proof() -> None:
    streams = {"only": [*["END"] * MOST, raised("KeyError")]}
    with pytest.raises(UnreadableLog):
        said_by(cast("Stack", Emulator(streams)), ["WorkerFunction"])
