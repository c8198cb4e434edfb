"""Finds out how things are, for the page. Nothing that cannot be found out keeps the page from going out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from aws_lambda_powertools import Logger

from functions.core.clock import Clock
from functions.core.fallback import health_of
from functions.core.gate import Health
from functions.core.health import Record, minute_of
from functions.core.page import CHANGES_MS, Change, Depth, Situation
from functions.core.ports import (
    FoundSources,
    HealthCounts,
    HealthRecords,
    QueueDepths,
    RecentChanges,
    Recovery,
    SwitchHistory,
)
from functions.core.recovery import Status
from functions.core.subjects import REFUSED_MINUTES, Subjects, of_health, of_refusals, of_sources
from functions.core.switches import is_everyday
from functions.observability import Metrics

BUDGET_MS = 8_000  # for all of it: somebody waits for the page
MINUTE_MS = 60_000
CACHED_MS = 15_000  # several pages of one minute are of the same situation
MOST_ROWS = 200  # of an integration and a status
QUEUES = ("events", "retries", "replays")
_UNFINISHED = (Status.PENDING, Status.RETRYING, Status.FAILED, Status.DLQ)
_T = TypeVar("_T")


class Situations:
    """Asks the tables, the parameter store and Lambda."""

    def __init__(
        self,
        integrations: Sequence[str],
        recovery: Recovery,
        queues: QueueDepths,
        health: HealthRecords,
        counts: HealthCounts,
        sources: FoundSources,
        switches: SwitchHistory,
        changes: RecentChanges,
        time_scale: float,
        clock: Clock,
        log: Logger,
        metrics: Metrics,
    ) -> None:
        self._integrations = integrations
        self._recovery = recovery
        self._queues = queues
        self._health = health
        self._counts = counts
        self._sources = sources
        self._switches = switches
        self._changes = changes
        self._scale = time_scale
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._known: tuple[int, int, Situation] | None = None

    def since(self, began_ms: int) -> Situation:
        """As it is now, with what changed in the two hours before that minute and since. Never raises."""
        now_ms = self._clock.now_ms()
        began_ms -= began_ms % MINUTE_MS  # what fires in a storm began in one minute, and is one situation
        if self._known is not None and self._known[0] == began_ms and 0 <= now_ms - self._known[1] < CACHED_MS:
            return self._known[2]
        unknown: list[str] = []
        deadline_ms = now_ms + BUDGET_MS
        since_ms = began_ms - CHANGES_MS
        switches = self._try("switches", deadline_ms, unknown, self._thrown) or {}
        records = self._try("health", deadline_ms, unknown, lambda: self._health.read(self._integrations)) or {}
        health, moved = self._unwell(records, since_ms)
        sources = self._try("sources", deadline_ms, unknown, lambda: of_sources(self._sources.read())) or {}
        changes = self._try("changes", deadline_ms, unknown, lambda: self._changes.since(since_ms)) or []
        items, tenants, is_at_least = self._affected(deadline_ms, unknown)
        queues = self._depths(deadline_ms, unknown)
        refusals = self._try("who says that we call too often", deadline_ms, unknown, self._refusals) or {}
        found = Situation(
            items=items,
            tenants=tenants,
            is_at_least=is_at_least,
            queues=queues,
            changes=[*changes, *moved],
            switches=switches,
            health=health,
            subjects={**sources, **self._failing(records), **refusals},
            unknown=tuple(unknown),
        )
        self._known = (began_ms, now_ms, found)
        return found

    def _try(self, what: str, deadline_ms: int, unknown: list[str], find: Callable[[], _T]) -> _T | None:
        """What it finds; None, and named in `unknown`, where it cannot."""
        if self._clock.now_ms() >= deadline_ms:
            unknown.append(what)
            return None
        try:
            return find()
        except Exception:  # noqa: BLE001  # whatever it is: somebody is to be called, and reads what could not be found
            self._metrics.count("situations_incomplete")
            self._log.exception("a page says less than it should", extra={"reason": what})
            unknown.append(what)
            return None

    def _thrown(self) -> dict[str, str]:
        return {name: one.value for name, one in self._switches.latest().items() if not is_everyday(name, one.value)}

    def _depths(self, deadline_ms: int, unknown: list[str]) -> Mapping[str, Depth]:
        found = {
            name: self._try(f"queue {name}", deadline_ms, unknown, partial(self._queues.read, name)) for name in QUEUES
        }
        return {name: depth for name, depth in found.items() if depth is not None}

    def _failing(self, records: Mapping[str, Record]) -> Mapping[str, Subjects]:
        """Nothing where no record could be read."""
        states = {name: record.state(name) for name, record in records.items()}
        return of_health(states, self._clock.now_ms()) if states else {}

    def _refusals(self) -> Mapping[str, Subjects]:
        last = minute_of(self._clock.now_ms(), self._scale)
        minutes = range(last - REFUSED_MINUTES, last + 1)
        return of_refusals({name: self._counts.read(name, minutes) for name in self._integrations}, self._scale)

    def _unwell(self, records: Mapping[str, Record], since_ms: int) -> tuple[dict[str, tuple[str, int]], list[Change]]:
        now_ms = self._clock.now_ms()
        unwell, moved = {}, []
        for name, record in records.items():
            health = health_of(record.state(name), now_ms)
            if health is not Health.HEALTHY:
                unwell[name] = (health.value, record.since_ms)
            if record.since_ms >= since_ms:
                moved.append(Change(record.since_ms, "health", name, record.health.value))
        return unwell, moved

    def _affected(self, deadline_ms: int, unknown: list[str]) -> tuple[int, int, bool]:
        items, tenants, is_at_least = 0, set[str](), False
        known = len(unknown)
        for integration in self._integrations:
            find = partial(self._recovery.find, integration, _UNFINISHED, MOST_ROWS)
            rows = self._try(f"items of {integration}", deadline_ms, unknown, find) or []
            is_at_least = is_at_least or len(rows) >= MOST_ROWS
            left = [row for row in rows if not row.is_final]
            items += len(left)
            tenants |= {row.tenant for row in left}
        return items, len(tenants), is_at_least or len(unknown) > known
