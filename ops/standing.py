"""How a stage stands now: its queues and its unfinished rows.

Everything here is a handful of cheap requests, whatever the stage's size. What cannot be known is None, never 0: the
emulator of the local stack has no metrics, and CloudWatch is minutes behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from functions.adapters.health import DynamoHealthRecords
from functions.adapters.recovery import OPEN
from functions.adapters.ssm import CUSTOMER_VISIBLE, OTHER
from functions.catalog.loader import load
from functions.core.clock import SystemIds
from functions.core.event import SPILL
from functions.core.integration import INTAKE
from functions.observability import NAMESPACE
from ops import records
from ops.cloudwatch import metrics, of_queue, query
from ops.function_logs import recent
from ops.stack import Stack

WORKED = ("events", "retries", "replays")
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


def ages(stack: Stack, now_ms: int) -> dict[str, int]:
    """The age of each queue's oldest message in seconds, as last told; those of which nothing is known left out."""
    if stack.is_local:
        return {}
    now = now_ms // 1000
    queries = [
        of_queue(name, stack, f"{name.title()}QueueUrl", "ApproximateAgeOfOldestMessage", _AGE_SECONDS, "Maximum")
        for name in WORKED
    ]
    told = metrics(stack, queries, now - _AGE_LOOKS_BACK_SECONDS, now)
    return {name: round(next(iter(values.values()))) for name, values in told.items() if values}


def in_queues(stack: Stack, found: Iterable[Queue]) -> int:
    """Deliveries that no worker has taken up yet, at least: in the events queue, poison, or in the spill (of which one
    page is counted).
    """
    of_events = sum(one.messages + one.dead for one in found if one.name == "events")
    spilled = stack.client("s3").list_objects_v2(Bucket=stack.output("Bucket"), Prefix=SPILL).get("KeyCount", 0)
    return of_events + int(spilled)


@dataclass(frozen=True, slots=True)
class Lag:
    """For how long workers went by what a switch had said before, after it was changed: the worst of `seen` times."""

    outcome: str
    seen: int
    worst_ms: int


def switch_lags(stack: Stack, now_ms: int) -> list[Lag]:
    """Of the last day; on a local stack of the last hour. One of which nothing was seen is left out."""
    values = _logged_lags(stack, now_ms) if stack.is_local else _counted_lags(stack, now_ms)
    return [Lag(outcome, seen, worst_ms) for outcome, (seen, worst_ms) in values.items() if seen]


def _counted_lags(stack: Stack, now_ms: int) -> dict[str, tuple[int, int]]:
    day = 86_400
    until = now_ms // 1000
    queries = [
        query(
            f"{statistic.lower()}_{outcome}",
            NAMESPACE,
            _LAG,
            {"service": "worker", "stage": stack.stage, "outcome": outcome},
            3_600,
            statistic,
        )
        for outcome in _ASKS
        for statistic in ("SampleCount", "Maximum")
    ]
    told = metrics(stack, queries, until - day, until)
    return {
        outcome: (
            round(sum(told[f"samplecount_{outcome}"].values())),
            round(max(told[f"maximum_{outcome}"].values(), default=0)),
        )
        for outcome in _ASKS
    }


def _logged_lags(stack: Stack, now_ms: int) -> dict[str, tuple[int, int]]:
    """The emulator makes no metrics of logs: of the lines themselves."""
    found: dict[str, list[float]] = {}
    for line in recent(stack, "WorkerFunction", _LAG, now_ms - 3_600_000):
        found.setdefault(str(line["outcome"]), []).extend(line[_LAG])
    return {outcome: (len(values), round(max(values))) for outcome, values in found.items()}


_LAG = "switch_lag_ms"
_ASKS = (CUSTOMER_VISIBLE, OTHER)
