"""Each minute: the health of every integration is judged (architecture §8), switches that were set for a time are set
back, every change of a switch, by whatever means it was made, goes into the audit (§9), and sources that are silent for
too long are told of (§10).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aws_lambda_powertools import Logger

from functions.core.clock import Clock
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.health import Thresholds
from functions.core.ports import (
    Audit,
    AuditedSwitch,
    AuditedSwitches,
    Door,
    Expectations,
    FoundSources,
    HealthCounts,
    HealthRecords,
    SwitchHistory,
    SwitchMarks,
    SwitchReturns,
    SwitchWriter,
)
from functions.core.switch_history import Found, changes_of, gone, is_news, missing
from functions.core.switches import is_everyday
from functions.evaluator.health import HealthDuty
from functions.evaluator.returns import ReturnDuty
from functions.evaluator.settings import EvaluatorSettings
from functions.evaluator.silence import SilenceDuty
from functions.observability import Metrics

BUDGET_MARGIN_MS = 3_000

Handler = Callable[[dict[str, Any], object], dict[str, int]]


def build(
    settings: EvaluatorSettings,
    *,
    history: SwitchHistory,
    marks: SwitchMarks,
    returns: SwitchReturns,
    writer: SwitchWriter,
    audit: Audit,
    records: HealthRecords,
    counts: HealthCounts,
    expectations: Expectations,
    door: Door,
    found: FoundSources,
    thresholds: Mapping[str, Thresholds],
    clock: Clock,
    log: Logger,
    metrics: Metrics,
) -> Handler:
    """The handler of one minute. Answers how many `health_changes` were made, switches `returned`, their `changes`
    audited, and how many sources are `silent`.
    `thresholds` are those of every integration of the catalog.

    Each duty is on its own: one that fails stops no other, and fails the invocation at its end. Health comes first:
    what is down must not be called on while the parameter store is slow.

    Of the switches the audit is written first and the mark after it: a crash in between finds the same changes again,
    and writes the same events. One switch that cannot be read keeps no other from the audit.
    """
    evaluator = _SwitchAudit(history, marks, audit, clock, log, metrics)

    health = HealthDuty(records, counts, thresholds, settings.time_scale, clock, log, metrics)

    silence = SilenceDuty(expectations, door, found, settings.time_scale, clock, log, metrics)

    back = ReturnDuty(returns, history, writer, audit, clock, log, metrics)

    def handle(_event: dict[str, Any], _context: object) -> dict[str, int]:
        deadline_ms = clock.now_ms() + settings.timeout_seconds * 1000 - BUDGET_MARGIN_MS
        duties: dict[str, Callable[[], int]] = {
            "health_changes": lambda: health.run(deadline_ms),
            # Before the audit, which so has it in the same minute.
            "returned": lambda: back.run(deadline_ms),
            "changes": lambda: evaluator.run(deadline_ms),
            "silent": lambda: silence.run(deadline_ms),
        }
        answer, failures = dict.fromkeys(duties, 0), list[Exception]()
        try:
            for name, duty in duties.items():
                try:
                    answer[name] = duty()
                except Exception as error:
                    failures.append(error)
                    if not isinstance(error, ExceptionGroup):  # what a group holds was counted one by one
                        metrics.count("duties_failed")
                    log.exception("a duty of the evaluator failed", extra={"duty": name})
            metrics.count("heartbeat")
        finally:
            metrics.flush()
        if failures:
            raise ExceptionGroup("duties of the evaluator failed", failures)
        return answer

    return handle


class _SwitchAudit:
    def __init__(
        self,
        history: SwitchHistory,
        marks: SwitchMarks,
        audit: Audit,
        clock: Clock,
        log: Logger,
        metrics: Metrics,
    ) -> None:
        self._history = history
        self._marks = marks
        self._audit = audit
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._known: AuditedSwitches | None = None  # what this environment stored last; a conflict makes it read again

    def run(self, deadline_ms: int) -> int:
        latest = self._history.latest()
        thrown = sum(not is_everyday(name, one.value) for name, one in latest.items())
        self._metrics.count("switches_thrown", thrown)
        known = self._marks.read() if self._known is None else self._known
        switches = dict(known.switches)
        changes, failures = 0, []
        news = [name for name in sorted(latest) if is_news(switches.get(name), latest[name])]
        lost = missing(switches, latest)
        for name in (*news, *lost):
            if self._clock.now_ms() >= deadline_ms:
                self._metrics.count("switch_audits_cut_short")
                break
            try:
                found = (
                    changes_of(switches.get(name), latest[name], self._history.versions(name))
                    if name in latest
                    else gone(name, switches[name], self._clock.now_ms())
                )
                if found.events:
                    self._audit.append(found.events)
            except StorageUnavailable as error:
                failures.append(error)
                self._metrics.count("duties_failed")
                self._log.exception(
                    "a switch's changes could not be audited", extra={"duty": "switches", "switch": name}
                )
                continue
            changes += len(found.events)
            self._say(found)
            if found.mark is None:
                del switches[name]
            else:
                switches[name] = found.mark
        self._remember(known, switches)
        if failures:
            raise ExceptionGroup("switches could not be audited", failures)
        return changes

    def _remember(self, known: AuditedSwitches, switches: Mapping[str, AuditedSwitch]) -> None:
        if switches == known.switches:
            self._known = known
            return
        self._known = None
        try:
            self._known = self._marks.store(known.revision, switches)
        except VersionConflict:
            self._log.info("another run has marked the switches: the next one goes on from there")

    def _say(self, found: Found) -> None:
        for event in found.events:
            self._metrics.count("switch_changes")
            if event.error:
                self._metrics.count("switch_values_invalid")
            say = self._log.error if event.error else self._log.warning
            say(
                "a switch was changed" if not event.error else "a switch has a value that nobody can read",
                extra={"switch": event.affected_id, "actor": event.actor},
            )
