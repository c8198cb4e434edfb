"""Logs and metrics of every function but ingress: one vocabulary of fields, ids only, and counts of what happened.

Ingress writes the same fields under the same namespace by itself: nothing outside the standard library is in its path.
A field that the vocabulary does not have is left out of the line and named in `unlisted_fields`, so that no body,
secret, number or address reaches a log by way of a new keyword (architecture §10). The text of a foreign exception is
left out for the same reason: its type and where it came from are there.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from threading import Lock
from types import TracebackType
from typing import Any, TextIO

from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.metrics.provider.cloudwatch_emf.cloudwatch import AmazonCloudWatchEMFProvider

from functions.core.failure import HoldfastError

NAMESPACE = "Holdfast"

FIELDS = frozenset(
    {
        # whose and which
        "tenant",
        "source",
        "provider",
        "flow",
        "event_id",
        "event_name",
        "event_version",
        "action_id",
        "action",
        "kind",
        "integration",
        "recovery_id",
        "job_id",
        "incident_id",
        "switch",
        "actor",
        # how it is followed from place to place
        "request_id",
        "origin_request_id",
        "traceparent",
        "message_id",
        "receive_count",
        "queue",
        # what became of it: stable codes, never free text
        "status",
        "outcome",
        "code",
        "reason",
        "failure_class",
        "effect",
        "root_cause",
        "waiting_for",
        "label",
        "decided_by",
        "health",
        "mode",
        # how much, how often, how long
        "count",
        "matched",
        "attempt",
        "version",
        "generation",
        "duration_ms",
        "age_ms",
        "duty",
    }
)

DIMENSIONS = frozenset({"integration", "provider", "event_name", "flow", "outcome", "reason"})
"""By what a metric may be told apart. All of them are bounded; a tenant is not."""

TOTALS = frozenset(
    {
        "actions_already_done",
        "actions_success",
        "actions_suppressed",
        "auto_reply_released",
        "auto_reply_sent",
        "automatic_capped",
        "classifier_fallbacks",
        "decisions_made",
        "duties_failed",
        "effects_doubled",
        "ended_for_people",
        "idempotency_duplicates_detected",
        "integrations_not_reached",
        "limiter_unavailable",
        "outcomes_unknown_overdue",
        "rate_limited",
        "rows_created",
        "rows_overdue",
        "sweeps_cut_short",
    }
)
"""What an alarm watches as a whole, although it is told apart by something: no alarm of CloudWatch adds dimensions up.
Each is counted once more, by service and stage alone.
"""

OF_THE_STAGE = frozenset({"people_needed"})
"""Metrics that are one for all functions, told apart by the stage alone: one alarm watches whichever counts."""

_OF_THE_LINE = frozenset(
    {
        "level",
        "location",
        "message",
        "timestamp",
        "service",
        "exception",
        "exception_name",
        "exceptions_within",
        "xray_trace_id",
        "cold_start",
        "function_name",
        "function_memory_size",
        "function_arn",
        "function_request_id",
        "sampling_rate",
    }
)

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class VocabularyFormatter(LambdaPowertoolsFormatter):
    """One JSON object per line with fields of the vocabulary only."""

    def serialize(self, log: dict[str, Any]) -> str:  # type: ignore[override]  # theirs is a TypedDict of the same
        """Leave out what the vocabulary does not have, and say that it was left out."""
        known = {name: value for name, value in log.items() if name in _OF_THE_LINE or name in FIELDS}
        unlisted = sorted(log.keys() - known.keys())
        if unlisted:
            known["unlisted_fields"] = unlisted
        return str(self.json_serializer(known))

    def format(self, record: logging.LogRecord) -> str:
        """The line. A group says in `exceptions_within` what it holds: its own name tells nobody what went wrong."""
        raised = record.exc_info[1] if record.exc_info else None
        if isinstance(raised, BaseExceptionGroup):
            record.exceptions_within = sorted({type(one).__name__ for one in _single(raised)})
        return super().format(record)

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802  # the name is logging's
        """Where it came from, and what it was; its own words only if they are ours. A group tells so of each that it
        holds.
        """
        kind, raised, where = ei
        if kind is None or raised is None:
            return ""
        frames = "".join(traceback.format_tb(where))
        text = f"{frames}{kind.__name__}" + (f": {raised}" if isinstance(raised, HoldfastError) else "")
        held = _single(raised) if isinstance(raised, BaseExceptionGroup) else ()
        told = [self.formatException((type(one), one, one.__traceback__)) for one in held]
        return "\nwithin it:\n".join([text, *told])


def _single(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The exceptions of the group and of the groups in it."""
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _single(one)
        else:
            yield one


def logger(service: str, *, stream: TextIO | None = None) -> Logger:
    """The function's logger: JSON lines at INFO, with `extra={...}` taken from `FIELDS`.

    `service` is the function's name; a second logger of the same name shares the first one's stream.
    """
    formatter = VocabularyFormatter(utc=True, use_rfc3339=True, serialize_stacktrace=False)
    return Logger(
        service=service,
        level=logging.INFO,
        logger_formatter=formatter,
        stream=sys.stdout if stream is None else stream,
    )


_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class _Key:
    """What metrics of one line have in common. `at_ms` is the hour that they belong to, in epoch milliseconds; 0 is
    now.
    """

    dimensions: tuple[tuple[str, str], ...]
    is_of_the_stage: bool
    at_ms: int


class Metrics:
    """Counts of one invocation, written by `flush` as embedded metric format: one line per combination of dimensions.

    Safe to use from several threads. Nothing counted, nothing written.
    """

    def __init__(self, service: str, stage: str, write: Callable[[str], object]) -> None:
        self._service = service
        self._stage = stage
        self._write = write
        self._lock = Lock()
        self._points: dict[_Key, list[tuple[str, MetricUnit, float]]] = {}

    def count(self, name: str, value: float = 1, **dimensions: str) -> None:
        """Add to a count. Raises ValueError for a dimension that `DIMENSIONS` does not have."""
        self._add(name, MetricUnit.Count, value, dimensions)

    def count_at(self, name: str, at_ms: int, **dimensions: str) -> None:
        """Add one to the count of the hour of that moment, which may be long over: for what belongs to the time at
        which something came in, whenever it is done. CloudWatch takes it up to two weeks later. Raises like `count`.
        """
        self._add(name, MetricUnit.Count, 1, dimensions, at_ms // _HOUR_MS * _HOUR_MS)

    def milliseconds(self, name: str, value: float, **dimensions: str) -> None:
        """Record how long something took. Raises ValueError like `count`."""
        self._add(name, MetricUnit.Milliseconds, value, dimensions)

    def flush(self) -> None:
        """Write what was counted since the last time."""
        with self._lock:
            points, self._points = self._points, {}
        for key, recorded in points.items():
            self._write(self._line(key, recorded))

    def _add(self, name: str, unit: MetricUnit, value: float, dimensions: dict[str, str], at_ms: int = 0) -> None:
        strange = dimensions.keys() - DIMENSIONS
        if strange:
            raise ValueError(f"{name} cannot be told apart by {', '.join(sorted(strange))}")
        key = _Key(
            tuple(sorted((dimension, text) for dimension, text in dimensions.items() if text)),
            name in OF_THE_STAGE,
            at_ms,
        )
        with self._lock:
            self._record(key, name, unit, value)
            if key.dimensions and name in TOTALS:
                self._record(replace(key, dimensions=()), name, unit, value)

    def _record(self, key: _Key, name: str, unit: MetricUnit, value: float) -> None:
        recorded = self._points.setdefault(key, [])
        for index, (known, known_unit, so_far) in enumerate(recorded):
            if known == name and unit is MetricUnit.Count:
                recorded[index] = (known, known_unit, so_far + value)
                return
        recorded.append((name, unit, value))

    def _line(self, key: _Key, recorded: list[tuple[str, MetricUnit, float]]) -> str:
        emf = AmazonCloudWatchEMFProvider(namespace=NAMESPACE, service=self._service)
        emf.add_dimension("stage", self._stage)
        for dimension, text in key.dimensions:
            emf.add_dimension(dimension, text)
        for name, unit, value in recorded:
            emf.add_metric(name, unit, value)
        line: dict[str, Any] = dict(emf.serialize_metric_set())
        if key.is_of_the_stage:  # which function it was stays on the line, and tells no metrics apart
            for said in line["_aws"]["CloudWatchMetrics"]:
                said["Dimensions"] = [[name for name in names if name != "service"] for names in said["Dimensions"]]
        if key.at_ms:
            line["_aws"]["Timestamp"] = key.at_ms
        return json.dumps(line, separators=(",", ":"))


def metrics(service: str, stage: str, write: Callable[[str], object] | None = None) -> Metrics:
    """The function's counts, told apart by stage: several may share an account.

    `write` takes one line; by default it goes to standard output, where Lambda reads it.
    """
    return Metrics(service, stage, _print_line if write is None else write)


def _print_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
