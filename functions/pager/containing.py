"""Sets a switch because an alarm fires, before anybody has read the page (002.14, 003.25)."""

from __future__ import annotations

from dataclasses import replace

from aws_lambda_powertools import Logger

from functions.core.audit import MACHINE, AuditEvent, AuditType, Severity, audit_id
from functions.core.clock import Clock, Ids
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.incident import Contained
from functions.core.ports import SwitchHistory, SwitchReturns, SwitchVersion, SwitchWriter
from functions.core.switch_history import REASON_LENGTH
from functions.core.switch_returns import InvalidReturn, Return
from functions.core.switches import everyday
from functions.observability import Metrics

TRIES = 3
SHORTEST_MS = 61_000  # that a switch can be set for; a second more than `switch_returns` asks, which reckons later


class Containment:
    """Throws switches. A switch that says it already stays as it is, whoever has set it, unless it would say something
    else again by itself: what is set for good is set anew then, and what was promised of it is void.
    """

    def __init__(
        self,
        history: SwitchHistory,
        writer: SwitchWriter,
        returns: SwitchReturns,
        clock: Clock,
        ids: Ids,
        log: Logger,
        metrics: Metrics,
    ) -> None:
        self._history = history
        self._writer = writer
        self._returns = returns
        self._clock = clock
        self._ids = ids
        self._log = log
        self._metrics = metrics

    def set(self, wanted: Contained) -> Contained:
        """Do it, and say what became of it; never raises: people are paged whatever happens here.

        The switch comes before the audit: what it stops does harm each second. The parameter's history, which the
        evaluator audits each minute, has the reason. One that is set for a time is promised first, with its audit
        event: without its return nobody may be held up.
        """
        try:
            done = self._set(wanted)
        except (StorageUnavailable, VersionConflict, InvalidReturn):
            self._metrics.count("containments_failed")
            self._log.exception("a switch could not be set by itself", extra={"switch": wanted.switch})
            return wanted
        self._metrics.count("containments")
        self._log.warning(
            "a switch was set by itself", extra={"switch": wanted.switch, "reason": wanted.because, "actor": MACHINE}
        )
        return done

    def _set(self, wanted: Contained) -> Contained:
        before = self._before(wanted)
        says = everyday(wanted.switch) if before is None else before.value
        description = f"{MACHINE}: the alarm {wanted.because} fires"
        if before is not None and before.value == wanted.value and not self._comes_back(wanted, before):
            return self._as_it_is(wanted, before, description)
        promise = self._promise(wanted, before, says, description) if wanted.until_ms else None
        version = self._writer.put(wanted.switch, wanted.value, description)
        if promise is not None and version != promise.version:
            self._move(promise, version)
        return replace(wanted, is_done=True, before=says)

    def _before(self, wanted: Contained) -> SwitchVersion | None:
        """What it says now. Where that cannot be read, what is set for good is set nevertheless."""
        try:
            return self._history.latest().get(wanted.switch)
        except StorageUnavailable:
            if wanted.until_ms:
                raise
            self._log.warning("what a switch says could not be read: it is set", extra={"switch": wanted.switch})
            return None

    def _comes_back(self, wanted: Contained, before: SwitchVersion) -> bool:
        """Whether what is wanted for good holds for a time only; also where that cannot be read."""
        if wanted.until_ms:
            return False
        try:
            return self._returns.read().of(before) is not None
        except StorageUnavailable:
            self._log.warning("whether a switch comes back could not be read: it is set", extra={"switch": before.name})
            return True

    def _as_it_is(self, wanted: Contained, before: SwitchVersion, description: str) -> Contained:
        """It says so already. Where that was done for the same alarm, by a pager that has died before it could tell of
        it, that is told now: what it said before, and until when.
        """
        done = replace(wanted, is_done=True, before=before.value, until_ms=0)
        try:
            kept = [one for one in self._history.versions(wanted.switch) if one.version <= before.version]
            if not kept or (kept[-1].version, kept[-1].reason) != (before.version, description[:REASON_LENGTH]):
                return done
            promise = self._returns.read().of(before) if wanted.until_ms else None
        except StorageUnavailable:
            self._log.warning("who has set a switch could not be read", extra={"switch": wanted.switch})
            return done
        says = kept[-2].value if len(kept) > 1 else everyday(wanted.switch)
        return replace(done, before=says, until_ms=0 if promise is None else promise.until_ms)

    def _move(self, promise: Return, version: int) -> None:
        """Another pager has set it in the same moment: the promise is about the version that there is now."""
        for tried in range(1, TRIES + 1):
            try:
                self._returns.store(self._returns.read().moved(promise, version))
            except (StorageUnavailable, VersionConflict):
                if tried == TRIES:
                    self._metrics.count("containments_failed")
                    self._log.exception(
                        "a switch was set by itself and will not come back by itself", extra={"switch": promise.name}
                    )
                continue
            return

    def _promise(self, wanted: Contained, before: SwitchVersion | None, says: str, description: str) -> Return:
        now_ms = self._clock.now_ms()
        until_ms = max(wanted.until_ms, now_ms + SHORTEST_MS)
        version = 1 if before is None else before.version + 1
        asked = AuditEvent(
            id=audit_id(f"{wanted.switch}#{self._ids.new_id()}", version, AuditType.SWITCH_CHANGED),
            at_ms=now_ms,
            event_type=AuditType.SWITCH_CHANGED,
            severity=Severity.WARNING,
            tenant="",
            actor=MACHINE,
            affected_entity="switch",
            affected_id=wanted.switch,
            request_id="",
            reason=f"the alarm {wanted.because} fires",
            containment_action=f"{wanted.switch} {wanted.value}",
        )
        for tried in range(1, TRIES + 1):
            returns = self._returns.read()
            earlier = returns.of(before)
            promise = Return(
                return_id=asked.id,
                name=wanted.switch,
                value=wanted.value,
                version=version,
                back_to=says if earlier is None else earlier.back_to,
                until_ms=until_ms,
                actor=MACHINE,
                reason=asked.reason,
                description=description,
                request_id="",
            )
            try:
                self._returns.store(returns.with_promise(promise, before, now_ms, asked))
            except VersionConflict:
                if tried == TRIES:
                    raise
                continue
            return promise
        raise AssertionError("the last try returns or raises")
