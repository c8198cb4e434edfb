"""How a stage stands now: its queues, its unfinished rows, and whether what came in is accounted for.

Everything here is a handful of cheap requests, whatever the stage's size. What cannot be known is None, never 0: the
emulator of the local stack has no metrics, and CloudWatch is minutes behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from functions.adapters.health import DynamoHealthRecords
from functions.adapters.recovery import OPEN
from functions.catalog.loader import load
from functions.core.clock import SystemIds
from functions.core.integration import INTAKE
from functions.observability import NAMESPACE
from ops import records
from ops.stack import Stack

WORKED = ("events", "retries", "replays")
HOURS = 3
_HOUR_SECONDS = 3600
_AGE_SECONDS = 300
_AGE_LOOKS_BACK_SECONDS = 900  # the queue's own metrics come minutes late, and an idle queue's not at all


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue. `messages` waiting, in flight and delayed together; `oldest_seconds` is None where not known."""

    name: str
    messages: int
    dead: int
    oldest_seconds: int | None


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one integration in one status. `oldest_due_ms` is 0 for statuses that are never due."""

    integration: str
    status: str
    count: int
    oldest_due_ms: int


@dataclass(frozen=True, slots=True)
class Balance:
    """The last whole hours of the door and the events queue; each figure None where it is not known.

    `passed` are messages whose first pass ended: done, a duplicate, or with a row for what is left. `triaged` were
    poison, and have a row. `waiting_more` is by how many messages queue and dead-letter queue have grown. Spilled ones
    wait in the bucket until they are drained, and count as `unexplained` as long.
    """

    from_ms: int
    until_ms: int
    accepted: int | None = None
    spilled: int | None = None
    passed: int | None = None
    triaged: int | None = None
    waiting_more: int | None = None

    @property
    def unexplained(self) -> int | None:
        """Accepted and found nowhere. The queue's figures are approximate: look again before you believe a few."""
        parts = (self.passed, self.triaged, self.waiting_more)
        if self.accepted is None or None in parts:
            return None
        return self.accepted - sum(part for part in parts if part is not None)


def queues(stack: Stack, oldest: Mapping[str, int]) -> list[Queue]:
    """The queues that are worked, with their dead-letter queues; and `ops`, whose messages are all dead letters. An age
    that `oldest` has not is known of an empty queue only.
    """
    depths = records.queue_depths(stack)
    worked = [
        Queue(
            name,
            depths[name.title()],
            depths[f"{name.title()}Dlq"],
            oldest.get(name, None if depths[name.title()] else 0),
        )
        for name in WORKED
    ]
    return [*worked, Queue("ops", 0, depths["OpsDlq"], None)]


def health_records(stack: Stack) -> DynamoHealthRecords:
    """What the stage's tables say of its integrations' health."""
    return DynamoHealthRecords(
        stack.client("dynamodb"),
        SystemIds(),
        control_table=stack.output("ControlTable"),
        audit_table=stack.output("AuditTable"),
    )


def rows(stack: Stack) -> list[Rows]:
    """All that is unfinished or dead, by integration and status; nothing where there is none."""
    found = []
    for integration in (*load().integrations, INTAKE):
        for status, count in records.backlog(stack, integration).items():
            due_ms = 0
            if status in {one.value for one in OPEN}:
                due_ms = int(_first_due(stack, integration, status))
            found.append(Rows(integration, status, count, due_ms))
    return found


def _first_due(stack: Stack, integration: str, status: str) -> int:
    first = records.rows(stack, [integration], [status], limit=1)
    return int(first[0].get("due_at_ms", 0)) if first else 0


def balance(stack: Stack, now_ms: int) -> Balance:
    """See `Balance`: of the last three whole hours, the newest of which may still grow for some minutes."""
    until = now_ms // 1000 // _HOUR_SECONDS * _HOUR_SECONDS
    since = until - HOURS * _HOUR_SECONDS
    unknown = Balance(since * 1000, until * 1000)
    if stack.is_local:
        return unknown
    at_door = {"stage": stack.stage}
    sums = {
        "accepted": _query("accepted", NAMESPACE, "webhooks_accepted", at_door, _HOUR_SECONDS, "Sum"),
        "spilled": _query("spilled", NAMESPACE, "webhooks_spilled", at_door, _HOUR_SECONDS, "Sum"),
        "passed": _of_queue("passed", stack, "EventsQueueUrl", "NumberOfMessagesDeleted", _HOUR_SECONDS, "Sum"),
        "triaged": _of_queue("triaged", stack, "EventsDlqUrl", "NumberOfMessagesDeleted", _HOUR_SECONDS, "Sum"),
    }
    told = _metrics(stack, list(sums.values()), since, until)
    grown = _depth(stack, until)
    was = _depth(stack, since)
    return Balance(
        unknown.from_ms,
        unknown.until_ms,
        **{name: _sum(told[name]) for name in sums},
        waiting_more=None if grown is None or was is None else grown - was,
    )


def _depth(stack: Stack, at: int) -> int | None:
    """Messages in the events queue and its dead-letter queue in the minutes before a moment, in epoch seconds."""
    queries = [
        _of_queue(f"d{number}", stack, queue, metric, _AGE_SECONDS, "Maximum")
        for number, (queue, metric) in enumerate(
            (queue, metric)
            for queue in ("EventsQueueUrl", "EventsDlqUrl")
            for metric in ("ApproximateNumberOfMessagesVisible", "ApproximateNumberOfMessagesNotVisible")
        )
    ]
    told = _metrics(stack, queries, at - _AGE_SECONDS, at)
    # Of a queue that nobody has used for hours there are no figures: it has been empty.
    return round(sum(values[0] for values in told.values() if values)) if any(told.values()) else None


def ages(stack: Stack, now_ms: int) -> dict[str, int]:
    """The age of each queue's oldest message in seconds, as last told; those of which nothing is known left out."""
    if stack.is_local:
        return {}
    now = now_ms // 1000
    queries = [
        _of_queue(name, stack, f"{name.title()}QueueUrl", "ApproximateAgeOfOldestMessage", _AGE_SECONDS, "Maximum")
        for name in WORKED
    ]
    told = _metrics(stack, queries, now - _AGE_LOOKS_BACK_SECONDS, now)
    return {name: round(values[0]) for name, values in told.items() if values}


def _of_queue(query_id: str, stack: Stack, output: str, metric: str, period: int, statistic: str) -> dict[str, Any]:
    queue = {"QueueName": stack.output(output).rsplit("/", 1)[-1]}
    return _query(query_id, "AWS/SQS", metric, queue, period, statistic)


def _query(
    query_id: str, namespace: str, metric: str, dimensions: Mapping[str, str], period: int, statistic: str
) -> dict[str, Any]:
    named = [{"Name": name, "Value": value} for name, value in dimensions.items()]
    return {
        "Id": query_id,
        "MetricStat": {
            "Metric": {"Namespace": namespace, "MetricName": metric, "Dimensions": named},
            "Period": period,
            "Stat": statistic,
        },
    }


def _metrics(stack: Stack, queries: Sequence[Mapping[str, Any]], since: int, until: int) -> dict[str, list[float]]:
    """The values of each query by its id, the newest first. Times are epoch seconds."""
    answer = stack.client("cloudwatch").get_metric_data(
        MetricDataQueries=list(queries),
        StartTime=datetime.fromtimestamp(since, UTC),
        EndTime=datetime.fromtimestamp(until, UTC),
        ScanBy="TimestampDescending",
    )
    found: dict[str, list[float]] = {str(query["Id"]): [] for query in queries}
    for result in answer["MetricDataResults"]:
        found[result["Id"]] += result["Values"]
    return found


def _sum(values: Sequence[float]) -> int:
    """What was counted. A count that nobody made for hours has no values, and is 0."""
    return round(sum(values))
