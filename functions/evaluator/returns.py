"""Each minute: switches that were set for a time say again what they said before."""

from __future__ import annotations

from aws_lambda_powertools import Logger

from functions.core.audit import MACHINE
from functions.core.clock import Clock
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.ports import Audit, SwitchHistory, SwitchReturns, SwitchVersion, SwitchWriter
from functions.core.switch_returns import Return, Verdict, returned, said, verdict
from functions.observability import Metrics


class ReturnDuty:
    """Keeps the promises that are due: the audit first, then the switch, then the promise goes. A crash in between
    finds the same promise again, or a switch that has moved on, and does neither twice.
    """

    def __init__(
        self,
        returns: SwitchReturns,
        history: SwitchHistory,
        writer: SwitchWriter,
        audit: Audit,
        clock: Clock,
        log: Logger,
        metrics: Metrics,
    ) -> None:
        self._returns = returns
        self._history = history
        self._writer = writer
        self._audit = audit
        self._clock = clock
        self._log = log
        self._metrics = metrics

    def run(self, deadline_ms: int) -> int:
        """How many were kept. One switch's trouble stops no other; it is raised at the end, as a group."""
        known = self._returns.read()
        due = [one for one in known.promises if one.until_ms <= self._clock.now_ms()]
        if not due:
            return 0
        latest = self._history.latest()
        kept, done, failures = 0, set[str](), list[StorageUnavailable]()
        for promise in due:
            if self._clock.now_ms() >= deadline_ms:
                self._metrics.count("switch_returns_cut_short")
                break
            try:
                found = self._one(promise, latest.get(promise.name))
            except StorageUnavailable as error:
                failures.append(error)
                self._metrics.count("duties_failed")
                self._log.exception("a switch could not be set back", extra={"duty": "returns", "switch": promise.name})
                continue
            kept += found is Verdict.KEEP
            if found is not Verdict.WAIT:
                done.add(promise.return_id)
        if done:
            try:
                self._returns.store(known.without(done))
            except VersionConflict:
                self._log.info("another promise was made meanwhile: the next minute drops those that are kept")
        if failures:
            raise ExceptionGroup("switches could not be set back", failures)
        return kept

    def _one(self, promise: Return, latest: SwitchVersion | None) -> Verdict:
        found = verdict(promise, latest, self._history.versions(promise.name) if promise.is_about(latest) else ())
        about = {"switch": promise.name, "actor": promise.actor}
        if found is Verdict.DROP:
            self._log.info("a switch that was set for a time has been set since: it stays so", extra=about)
        if found is not Verdict.KEEP:
            return found
        self._audit.append([returned(promise)])
        version = self._writer.put(promise.name, promise.back_to, f"{MACHINE}: {said(promise)}")
        self._metrics.count("switches_returned")
        self._log.warning("a switch was set back: its time is over", extra=about)
        if version != promise.version + 1:
            self._put_back(promise, version)
        return found

    def _put_back(self, promise: Return, version: int) -> None:
        """Somebody has set it in the very moment, and what they said is what holds."""
        theirs = next((one for one in self._history.versions(promise.name) if one.version == version - 1), None)
        if theirs is None:
            raise StorageUnavailable(f"what {promise.name} was set to in the same moment cannot be read")
        self._writer.put(promise.name, theirs.value, f"{MACHINE}: put back: {theirs.reason}")
        self._metrics.count("switch_returns_crossed")
        self._log.error(
            "a switch was set in the moment in which it was set back: what was set holds",
            extra={"switch": promise.name},
        )
