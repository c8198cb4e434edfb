"""The standing balance: of what was accepted in each hour, how much is done, waits, or has ended for people.

On AWS it costs a handful of requests and reads no table as a whole. What the door accepted and what the worker has
settled are counts, each kept under the hour in which the delivery came in; what waits or has ended is read from the
rows that are open, and from those that have ended since. So `waiting` and `ended` are exact. Counts are not: they
come minutes late, and a function that dies between its work and its report takes some with it. Where they and the rows
do not add up, `unaccounted` says by how many; a balance that is exact for every single delivery would take a write
more for each event.

The local stack has no counts. There the log of ingress, the ledger and the rows are read as a whole, and delivery by
delivery: every figure is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from functions.adapters.recovery import OPEN, SHARDS, WORK_INDEX
from functions.catalog.loader import load
from functions.core import synthetic
from functions.core.integration import INTAKE
from functions.core.ledger import LedgerStatus
from functions.core.recovery import Status, Subject
from functions.core.whereabouts import Fate, fate_of
from functions.observability import NAMESPACE
from ops import records
from ops.cloudwatch import metrics, query
from ops.door_log import ACCEPTED, DoorLog
from ops.stack import Stack

HOURS = 3  # whole ones; the hour that has begun comes on top
HOUR_MS = 3_600_000
MOST_ROWS = 2_000  # of one shard in one status: with more waiting than that nobody needs the split
_DEAD = (Status.FAILED, Status.DLQ)

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Hour:
    """The deliveries accepted in one hour; a figure is None where it is not known.

    `again` brought an event that another delivery had brought. Of the others, `done` need nothing more, `waiting` go on
    by themselves or when somebody lets them, `ended` have something that only a person can still do. `unaccounted` are
    found in none of these (yet): they are in a queue, in the spill, in a worker's hands, or not counted yet.

    Accepted is what was answered so. A delivery that was stored although its sender heard 503, because the answer of
    the queue was lost, is done without having been accepted: on AWS that makes `unaccounted` smaller.
    """

    from_ms: int
    until_ms: int
    accepted: int | None = None
    spilled: int | None = None
    again: int | None = None
    done: int | None = None
    waiting: int | None = None
    ended: int | None = None

    @property
    def unaccounted(self) -> int | None:
        """What is left of the accepted. Below 0: more was worked than was answered with a 2xx, or counted twice."""
        parts = (self.again, self.done, self.waiting, self.ended)
        if self.accepted is None or None in parts:
            return None
        return self.accepted - sum(part for part in parts if part is not None)


@dataclass(slots=True)
class _Fates:
    """Of one hour's events, by what their rows say."""

    by_action: dict[tuple[str, str, int], Fate] = field(default_factory=dict)
    whole: list[Fate] = field(default_factory=list)

    def take(self, row: Item) -> None:
        fate = fate_of(Status(row["status"]), str(row.get("result", "")), str(row.get("failure_code", "")))
        if fate not in (Fate.OPEN, Fate.ENDED):
            return
        if row["subject"] == Subject.EVENT:
            self.whole.append(fate)
            return
        key = (str(row["tenant"]), str(row["event_id"]), int(row.get("epoch_ms", 0)))
        if self.by_action.get(key) is not Fate.OPEN:
            self.by_action[key] = fate

    def count(self, fate: Fate) -> int:
        """Events of that fate."""
        return self.unsettled(fate) + sum(one is fate for one in self.by_action.values())

    def unsettled(self, fate: Fate) -> int:
        """Those of them that were not settled: the row is the whole event."""
        return sum(one is fate for one in self.whole)


def balance(stack: Stack, now_ms: int) -> list[Hour]:
    """The last whole hours and the one that has begun, oldest first."""
    first = now_ms // HOUR_MS * HOUR_MS - HOURS * HOUR_MS
    hours = [(first + number * HOUR_MS, min(now_ms, first + (number + 1) * HOUR_MS)) for number in range(HOURS + 1)]
    return _counted(stack, hours, now_ms) if stack.is_local else _by_metrics(stack, hours)


# ------------------------------------------------------------------------------------------------------------- on AWS


def _by_metrics(stack: Stack, hours: Sequence[tuple[int, int]]) -> list[Hour]:
    worker = {"service": "worker", "stage": stack.stage}
    queries = [
        query("accepted", NAMESPACE, "webhooks_accepted", {"stage": stack.stage}, HOUR_MS // 1000, "Sum"),
        query("spilled", NAMESPACE, "webhooks_spilled", {"stage": stack.stage}, HOUR_MS // 1000, "Sum"),
        *(
            query(outcome, NAMESPACE, "events_accounted", {**worker, "outcome": outcome}, HOUR_MS // 1000, "Sum")
            for outcome in ("done", "left", "again")
        ),
    ]
    since_ms, until_ms = hours[0][0], hours[-1][0] + HOUR_MS
    told = metrics(stack, queries, since_ms // 1000, until_ms // 1000)
    fates = _fates_since(stack, since_ms)
    found = []
    for from_ms, to_ms in hours:
        # What nobody counted in an hour has no value there, and is 0.
        counted = {name: round(values.get(from_ms // 1000, 0)) for name, values in told.items()}
        figures: dict[str, int | None] = {name: counted[name] for name in ("accepted", "spilled", "again")}
        if fates is not None:
            seen = fates.get(from_ms, _Fates())
            settled_with_rows = sum(fate in (Fate.OPEN, Fate.ENDED) for fate in seen.by_action.values())
            figures["waiting"] = seen.count(Fate.OPEN)
            figures["ended"] = seen.count(Fate.ENDED)
            figures["done"] = counted["done"] + counted["left"] - settled_with_rows
        found.append(Hour(from_ms, to_ms, **figures))
    return found


def _fates_since(stack: Stack, since_ms: int) -> dict[int, _Fates] | None:
    """What the rows say of events received since then, by the hour of receipt; None where more rows are open than are
    read.
    """
    ranges = [(f"{status.value}#0", f"{status.value}#9~") for status in OPEN]  # due some time
    ranges += [(f"{status.value}#w", f"{status.value}#w~") for status in OPEN]  # due when something else is done
    ranges += [(f"{status.value}#e{since_ms:013d}", f"{status.value}#e~") for status in _DEAD]
    wanted = [
        (integration, shard, low, high)
        for integration in (*load().integrations, INTAKE)
        for shard in range(SHARDS)
        for low, high in ranges
    ]
    with ThreadPoolExecutor(max_workers=16) as pool:
        parts = list(pool.map(lambda key: _rows_between(stack, *key), wanted))
    if any(part is None for part in parts):
        return None
    fates: dict[int, _Fates] = {}
    for row in (row for part in parts if part is not None for row in part):
        received_ms = int(row.get("received_at_ms", 0))
        is_ours = str(row.get("event_id", "")).startswith(f"{synthetic.SOURCE}:")  # which nobody counts
        if received_ms >= since_ms and not is_ours:
            fates.setdefault(received_ms // HOUR_MS * HOUR_MS, _Fates()).take(row)
    return fates


_NAMES = ("received_at_ms", "tenant", "event_id", "epoch_ms", "subject", "status", "result", "failure_code")


def _rows_between(stack: Stack, integration: str, shard: int, low: str, high: str) -> list[Item] | None:
    """The rows of a part of the index; None if they are more than are read."""
    pages = (
        stack.client("dynamodb")
        .get_paginator("query")
        .paginate(
            TableName=stack.output("RecoveryTable"),
            IndexName=WORK_INDEX,
            KeyConditionExpression="gpk = :shard AND gsk BETWEEN :low AND :high",
            ExpressionAttributeValues={
                ":shard": {"S": f"{integration}#{shard}"},
                ":low": {"S": low},
                ":high": {"S": high},
            },
            ProjectionExpression=", ".join(f"#{name}" for name in _NAMES),
            ExpressionAttributeNames={f"#{name}": name for name in _NAMES},
            PaginationConfig={"MaxItems": MOST_ROWS + 1},
        )
    )
    rows: list[Item] = [records.plain(item) for page in pages for item in page["Items"]]
    return rows if len(rows) <= MOST_ROWS else None


# ------------------------------------------------------------------------------------------------------------- locally


def _counted(stack: Stack, hours: Sequence[tuple[int, int]], now_ms: int) -> list[Hour]:
    """Delivery by delivery. Of several that brought one event the first counts, the others came again."""
    walk = DoorLog.of(stack).newest_first(hours[0][0], now_ms, ACCEPTED)
    lines = [line for line in walk if hours[0][0] <= line.at_ms <= now_ms and line.source != synthetic.SOURCE]
    if not walk.is_complete:
        return [Hour(from_ms, until_ms) for from_ms, until_ms in hours]
    settled = {_whose(one) for one in records.events(stack) if one["status"] == LedgerStatus.SETTLED}
    fates: dict[tuple[str, str], _Fates] = {}
    for row in records.all_rows(stack):
        fates.setdefault(_whose(row), _Fates()).take(row)
    seen: set[tuple[str, str]] = set()
    figures = {
        from_ms: dict.fromkeys(("accepted", "spilled", "again", "done", "waiting", "ended"), 0) for from_ms, _ in hours
    }
    for line in sorted(lines, key=lambda one: one.at_ms):
        key, of_hour = (line.tenant, line.event_id), figures[line.at_ms // HOUR_MS * HOUR_MS]
        of_hour["accepted"] += 1
        of_hour["spilled"] += line.stored_in == "spill"
        what = "again" if key in seen else _what_became(key in settled or key in fates, fates.get(key, _Fates()))
        seen.add(key)
        if what:
            of_hour[what] += 1
    return [Hour(from_ms, until_ms, **figures[from_ms]) for from_ms, until_ms in hours]


def _whose(item: Item) -> tuple[str, str]:
    return str(item["tenant"]), str(item["event_id"])


def _what_became(is_known: bool, seen: _Fates) -> str:
    if seen.count(Fate.OPEN):
        return "waiting"
    if seen.count(Fate.ENDED):
        return "ended"
    return "done" if is_known else ""
