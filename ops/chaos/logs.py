"""What the functions have said of themselves, read once the run is over: their counts, and the exceptions they met."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from functions.core.failure import HoldfastError
from ops.function_logs import logged_by
from ops.stack import Stack

_NOT_OURS = frozenset({"ModuleNotFoundError"})
"""The emulator takes a process's code away before it ends the process, which then cannot load what it had not yet."""
_TEXT_LENGTH = 1500


@dataclass(slots=True)
class Said:
    """`counts` are the functions' own metrics, `exceptions` those that were logged, by name.

    A failure that somebody reckoned with has a name of ours; a group of failures is judged by those that it holds. Any
    other is a defect: `defects` has what was logged of it.
    """

    counts: Counter[str] = field(default_factory=Counter)
    exceptions: Counter[str] = field(default_factory=Counter)
    defects: list[str] = field(default_factory=list)


def said_by(stack: Stack, outputs: Iterable[str]) -> Said:
    """Everything these functions have logged, summed up. What a killed process had not written yet is lost."""
    said = Said()
    for output in outputs:
        for line in logged_by(stack, output):
            add(said, line)
    return said


def add(said: Said, line: dict[str, Any]) -> None:
    """Take one line of a log into account: of metrics (EMF), or of words."""
    for directive in line.get("_aws", {}).get("CloudWatchMetrics", ()):
        for metric in directive["Metrics"]:
            values = line[metric["Name"]]
            said.counts[metric["Name"]] += int(sum(values) if isinstance(values, list) else values)
    name = line.get("exception_name")
    if name is None:
        return
    said.exceptions[name] += 1
    if not set(line.get("exceptions_within", [name])) <= _names_of(HoldfastError) | _NOT_OURS:
        said.defects.append(f"{line.get('message')}: {str(line.get('exception'))[-_TEXT_LENGTH:]}")


def _names_of(kind: type[Exception]) -> set[str]:
    return {kind.__name__}.union(*(_names_of(narrower) for narrower in kind.__subclasses__()))
