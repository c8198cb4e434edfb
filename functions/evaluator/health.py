"""Each minute: what the calls of every integration say about its health (architecture §8)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from aws_lambda_powertools import Logger

from functions.core.clock import Clock
from functions.core.failure import VersionConflict
from functions.core.gate import Health
from functions.core.health import (
    Counts,
    HealthChange,
    Record,
    Thresholds,
    evaluate,
    last_closed,
    pending_minutes,
)
from functions.core.ports import HealthCounts, HealthRecords
from functions.observability import Metrics

TRIES = 3  # at one integration: an operator, a probe or another evaluator may be quicker each time


class HealthDuty:
    """Judges every minute that has closed since the last one that was, of each integration, in order."""

    def __init__(
        self,
        records: HealthRecords,
        counts: HealthCounts,
        thresholds: Mapping[str, Thresholds],
        time_scale: float,
        clock: Clock,
        log: Logger,
        metrics: Metrics,
    ) -> None:
        self._records = records
        self._counts = counts
        self._thresholds = thresholds
        self._scale = time_scale
        self._clock = clock
        self._log = log
        self._metrics = metrics

    def run(self, deadline_ms: int) -> int:
        """How many states changed. One integration's trouble stops no other; it is raised at the end, as a group."""
        records = self._records.read(list(self._thresholds))
        moves, levels, failures = 0, Counter[Health](), list[Exception]()
        for name in self._thresholds:
            if self._clock.now_ms() >= deadline_ms:
                self._metrics.count("health_cut_short")
                break
            record = records[name]
            try:
                record, found = self._one(name, record)
                moves += found
            except Exception as error:  # noqa: BLE001  # logged and counted here, raised at the end
                failures.append(error)
                self._metrics.count("duties_failed", integration=name)
                self._log.exception(
                    "the health of an integration could not be judged", extra={"duty": "health", "integration": name}
                )
            levels[self._tell(name, record)] += 1
        self._metrics.count("integrations_down", levels[Health.HARD_DOWN])
        self._metrics.count("integrations_degraded", levels[Health.DEGRADED])
        if failures:
            raise ExceptionGroup("the health of integrations could not be judged", failures)
        return moves

    def _one(self, name: str, record: Record) -> tuple[Record, int]:
        """The record as it is now, and how often its state moved."""
        for _ in range(TRIES):
            now_ms = self._clock.now_ms()
            minutes = pending_minutes(record, last_closed(now_ms, self._scale))
            counted = self._counts.read(name, minutes) if minutes else {}
            judged = [(minute, counted.get(minute, Counts())) for minute in minutes]
            change = evaluate(name, record, judged, self._thresholds[name], now_ms, self._scale)
            if change is None:
                return record, 0
            try:
                self._records.store(name, change)
            except VersionConflict:
                record = self._records.read([name])[name]
                continue
            self._say(name, change)
            return change.after, len(change.edges)
        self._log.info(
            "an integration's health was changed meanwhile, each time: the next minute goes on",
            extra={"integration": name},
        )
        return record, 0

    def _say(self, name: str, change: HealthChange) -> None:
        for edge in change.edges:
            self._metrics.count("health_changes", integration=name, outcome=edge.next.value, reason=edge.event.value)
            say: Callable[..., None] = self._log.error if edge.next is Health.HARD_DOWN else self._log.warning
            say(
                "the health of an integration has changed",
                extra={"integration": name, "health": edge.next.value, "reason": edge.event.value},
            )

    def _tell(self, name: str, record: Record) -> Health:
        """The gauge of one integration: 0 healthy, 1 degraded, 2 down. Gives what the machine says of it; healthy where
        a person has said what it is to be.
        """
        now_ms = self._clock.now_ms()
        state = record.state(name)
        self._metrics.count("health_level", list(Health).index(state.health_at(now_ms)), integration=name)
        return Health.HEALTHY if state.is_forced_at(now_ms) else record.health
