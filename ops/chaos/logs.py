"""What the functions have said of themselves, read once the run is over: their counts, and the defects they met."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ops.stack import Stack

# Counts of what no fault may lead to: an exception that nobody expected (functions/worker/handler.py and attempts.py,
# functions/sweeper/drain.py), which is then treated with care, and is a defect all the same.
_DEFECTS = ("items_failed", "spill_failed")
_DEFECT_REASON = "ADAPTER_DEFECT"


@dataclass(slots=True)
class Said:
    """`counts` are the functions' own metrics, `defects` the lines with an exception that nobody expected."""

    counts: Counter[str] = field(default_factory=Counter)
    defects: Counter[str] = field(default_factory=Counter)
    exceptions: list[str] = field(default_factory=list)


def said_by(stack: Stack, outputs: Iterable[str]) -> Said:
    """Everything these functions have logged, summed up. What a killed process had not written yet is lost."""
    said = Said()
    for output in outputs:
        for line in _lines(stack, output):
            _add(said, line)
    return said


def _add(said: Said, line: dict[str, Any]) -> None:
    for directive in line.get("_aws", {}).get("CloudWatchMetrics", ()):
        for metric in directive["Metrics"]:
            name, values = metric["Name"], line[metric["Name"]]
            total = sum(values) if isinstance(values, list) else values
            said.counts[name] += int(total)
            if name in _DEFECTS or line.get("reason") == _DEFECT_REASON:
                said.defects[f"{name} {line.get('reason', '')}".strip()] += int(total)
    message = str(line.get("message", ""))
    if "exception" in line and ("the adapter raised" in message or "could not be processed" in message):
        said.exceptions.append(f"{message}: {str(line['exception'])[-1500:]}")


def _lines(stack: Stack, output: str) -> Iterator[dict[str, Any]]:
    configuration = stack.client("lambda").get_function_configuration(FunctionName=stack.output(output))
    pages = stack.client("logs").get_paginator("filter_log_events")
    for page in pages.paginate(logGroupName=configuration["LoggingConfig"]["LogGroup"]):
        for event in page["events"]:
            for text in event["message"].splitlines():
                if text.startswith("{"):
                    try:
                        line = json.loads(text)
                    except ValueError:
                        continue  # a line that its process did not live to finish
                    yield line
