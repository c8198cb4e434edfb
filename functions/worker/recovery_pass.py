"""One hint from the retries or the replays queue (architecture §7): its row, claimed, tried once more, and moved on.

The row is the truth and the sweeper its only scheduler, so a hint that leads nowhere is acknowledged: the row comes
back when it is due.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from functions.core import fallback
from functions.core.attempt import Effect, Superseded, settled_at
from functions.core.decision import Action, Repeat
from functions.core.failure import (
    Done,
    Failure,
    FailureClass,
    IllegalTransition,
    MalformedEnvelope,
    StorageUnavailable,
    VersionConflict,
)
from functions.core.fallback import Hop, Manual, Substitute
from functions.core.gate import Expire, Park, Send, Suppress, Verdict, WaitingFor
from functions.core.integration import KindRules
from functions.core.ports import Hint
from functions.core.quarantine import Quarantine, Rule, kept_aside
from functions.core.recovery import (
    POLL_SECONDS,
    TAKEOVER_LIMIT,
    Change,
    Row,
    Status,
    Subject,
    absent,
    after_attempt,
    by_hand,
    claim,
    defer,
    end,
    handed_over,
    history_of,
    hopped,
    may_claim,
    parked_first,
    poisoned,
    quarantine,
    release,
    succeeded,
    suppress,
    unknown_outcome,
    worker_died,
)
from functions.core.replay import replays_blocked
from functions.core.retry import RetryPolicy
from functions.core.rows import is_claim, row_beside, stand_in_row
from functions.core.switches import view
from functions.ended import count_ended
from functions.worker.attempts import Attempt, Attempts, Held, NotYet, Tried, Unknown, VerifiedAbsent, Whose
from functions.worker.doubles import counted_later, may_show_later
from functions.worker.first_pass import EventResult, FirstPass, Later, Parked, Settled
from functions.worker.hops import Hops
from functions.worker.leases import Lease
from functions.worker.ports import Budget, Ports

INTAKE_RULES = KindRules("intake.process", Repeat.IDEMPOTENT)
INTAKE_POLICY = RetryPolicy()
COMMIT_TRIES = 3
TOO_LATE = "it was to happen earlier or not at all"


@dataclass(frozen=True, slots=True)
class Handled:
    """Acknowledge the hint."""

    outcome: str


HintResult = Handled | Later


class RecoveryPass:
    """Handles hints of one invocation."""

    def __init__(
        self, ports: Ports, attempts: Attempts, budget: Budget, first_pass: FirstPass, time_scale: float
    ) -> None:
        self._ports = ports
        self._attempts = attempts
        self._budget = budget
        self._first_pass = first_pass
        self._scale = time_scale
        self._hops = Hops(ports, attempts)
        self.quarantine = Quarantine()  # the rules as the batch read them

    async def handle(self, hint: Hint) -> HintResult:
        """One attempt at the hint's row, if it still is what the hint saw.

        Raises `StorageUnavailable` where the row cannot be read, or its claim not stored.
        """
        row = await self._ports.io(self._ports.recovery.get, hint.recovery_id)
        if row is None or row.version != hint.version:
            self._ports.meter.count("hints_stale")
            return Handled("stale")
        now_ms = self._ports.clock.now_ms()
        if not row.is_open:
            return Handled("ended")
        if row.lease_until_ms > now_ms:
            return Handled("waiting")
        is_expired = row.subject is Subject.ACTION and now_ms >= row.expires_at_ms
        if is_expired and (row.waits_for or not _may_have_been_sent(row)):
            return await self._commit(row, end(row, "EXPIRED", TOO_LATE, now_ms), "expired")
        if row.waits_for:
            return Handled("waiting")
        if row.not_before_ms > now_ms:
            return Later(-(-(row.not_before_ms - now_ms) // 1000), "it is not due yet")
        if not may_claim(row, now_ms):
            return Handled("waiting")
        if row.lease_until_ms and row.takeovers + 1 >= TAKEOVER_LIMIT:
            return await self._commit(row, worker_died(row, now_ms), "worker_died")
        if row.lease_until_ms:
            self._ports.meter.count("takeovers", integration=row.integration_id)
            self._ports.log.warning(
                "a worker died or ran out of time with this recovery item: another goes on", extra=_about(row)
            )
        rule = self._rule_for(row, now_ms)
        if rule is not None:
            self._ports.meter.count("rows_quarantined", integration=row.integration_id)
            return await self._commit(row, quarantine(row, kept_aside(rule), now_ms), "quarantined")
        if row.subject is Subject.EVENT:
            return await self._event(row)
        if not self._is_known(row):
            detail = "the catalog has no such integration or kind any more: put it back, then replay"
            return await self._commit(row, poisoned(row, detail, now_ms), "poisoned")
        return await (self._last_look(row) if is_expired else self._action(row))

    def _rule_for(self, row: Row, now_ms: int) -> Rule | None:
        """The rule that keeps it aside: an event like a new one, and whatever has failed as the rule says. What a
        person has replayed goes on.
        """
        if row.status is Status.REPLAYED:
            return None
        about = row.source, row.event_name, row.event_version, row.tenant
        rule = self.quarantine.for_event(*about, now_ms) if row.subject is Subject.EVENT else None
        return rule or self.quarantine.for_failure(*about, row.failure_code, now_ms)

    # --------------------------------------------------------------------------------------------------------- actions

    def _is_known(self, row: Row) -> bool:
        """Whether the catalog has what the row is about, and its matrix the way that it is on."""
        integration = self._ports.integrations.get(row.integration_id)
        if integration is None:
            return False
        try:
            kind = self._current(row).kind
        except IllegalTransition:
            return False
        return kind in integration.kinds and row.hop_kind in ("", kind)

    def _current(self, row: Row) -> Action:
        """The action as it is on the row's present way. Raises `IllegalTransition` for a way that is no more."""
        return self._hops.action_at(_action_of(row), row.hop)

    async def _action(self, row: Row) -> HintResult:
        action = self._current(row)
        if not self._attempts.fits(action):
            return Later(1, "no time was left in this invocation")
        turned = await self._turned_aside(row)
        if turned is not None:
            return turned
        verdict = await self._attempts.gate(action, _whose(row), self._budget.lease_until_ms)
        if isinstance(verdict, Park):
            return await self._commit(row, self._parked(row, verdict, uncount=False), "parked")
        if row.waiting_for is WaitingFor.CREDENTIAL and not await self._has_new_credential(row, action):
            reason = "the credential is still the one that was refused"
            return await self._commit(
                row, self._parked(row, Park(WaitingFor.CREDENTIAL, reason), uncount=False), "parked"
            )
        lease = await self._leased(row, action, verify_only=row.verify_only)
        if isinstance(lease, Park):
            return await self._commit(row, self._parked(row, lease, uncount=False), "parked")
        claimed = await self._claim(row)
        if claimed is None:
            return Handled("moved")
        if not isinstance(verdict, Send) and not claimed.verify_only:
            return await self._not_sent(claimed, verdict)
        attempt = await self._attempts.make(
            action,
            replace(_whose(claimed), lease=lease),
            history_of(claimed),
            claimed.lease_until_ms,
            verify_only=claimed.verify_only,
        )
        return await self._conclude(claimed, action, attempt)

    async def _leased(self, row: Row, action: Action, *, verify_only: bool) -> Lease | Park:
        """What the attempt may call, or until when it waits for that. Asked before the claim: no attempt is spent."""
        whose, lease_until_ms = _whose(row), self._budget.lease_until_ms
        demand = await self._attempts.demand(action, whose, history_of(row), lease_until_ms, verify_only=verify_only)
        kept = {row.integration_id: row.slot_ms}
        lease = await self._attempts.leases.take(row.recovery_id, [demand], kept, is_paced=True)
        slot = lease.ready()
        if slot.at_ms <= self._ports.clock.now_ms():
            return lease
        reason = f"{row.integration_id} is at its rate"
        return Park(WaitingFor.LIMITER, reason, slot.at_ms, slot.at_ms if slot.is_owned else 0)

    async def _last_look(self, row: Row) -> HintResult:
        """It expired after it may have been sent: find out where the provider can be asked, and send nothing."""
        action = self._current(row)
        if not self._attempts.fits(action):
            return Later(1, "no time was left in this invocation")
        rules = self._ports.integrations[action.integration].kinds[action.kind]
        lease = await self._leased(row, action, verify_only=True) if rules.can_look_up else Lease()
        if isinstance(lease, Park):
            return await self._commit(row, self._parked(row, lease, uncount=False), "parked")
        claimed = await self._claim(row)
        if claimed is None:
            return Handled("moved")
        now_ms = self._ports.clock.now_ms()
        if not rules.can_look_up:
            return await self._commit(claimed, unknown_outcome(claimed, TOO_LATE, now_ms), "unknown")
        believed_ms = settled_at(rules, claimed.last_possible_send_ms, self._scale)
        if now_ms < believed_ms:
            return await self._conclude(claimed, action, NotYet(believed_ms))
        attempt = await self._attempts.make(
            action,
            replace(_whose(claimed), lease=lease),
            history_of(claimed),
            claimed.lease_until_ms,
            verify_only=True,
        )
        if isinstance(attempt, VerifiedAbsent):
            known = replace(claimed, effect=Effect.NONE)
            change = end(known, "EXPIRED", TOO_LATE, self._ports.clock.now_ms())
            return await self._commit(claimed, replace(change, before=claimed), "expired")
        return await self._conclude(claimed, action, attempt)

    async def _conclude(self, row: Row, action: Action, attempt: Attempt) -> HintResult:
        now_ms = self._ports.clock.now_ms()
        match attempt:
            case Held(verdict):
                return await self._not_sent(row, verdict)
            case NotYet(until_ms):
                reason = "a lookup cannot be believed yet"
                return await self._commit(
                    row, defer(row, WaitingFor.TIME, reason, until_ms, now_ms, uncount=True), "waiting"
                )
            case Unknown(detail):
                return await self._commit(row, unknown_outcome(row, detail, now_ms), "unknown")
            case VerifiedAbsent():
                return await self._ended(row, absent(row, now_ms), "absent")
            case Tried():
                return await self._tried(row, action, attempt)

    async def _tried(self, row: Row, action: Action, tried: Tried) -> HintResult:
        integration = self._ports.integrations[action.integration]
        seen = replace(row, effect=Effect.NONE) if tried.was_absent else row
        change = after_attempt(
            seen,
            integration.kinds[action.kind],
            integration.policy,
            tried.result,
            self._ports.clock.now_ms(),
            self._ports.rng,
            self._scale,
            was_sent=tried.was_sent,
            is_probe=tried.is_probe,
        )
        after = change.after
        if tried.credential_version and isinstance(tried.result, Failure):
            after = replace(after, credential_version=tried.credential_version)
        outcome = "succeeded" if isinstance(tried.result, Done | Superseded) else after.status.value
        change = replace(change, after=after, before=row)
        if not isinstance(tried.result, Done):
            return await self._ended(row, change, outcome)
        must_count = may_show_later(tried.result, history_of(row), was_sent=tried.was_sent)
        result = await self._commit(row, change, outcome, self._counted(row, action) if must_count else ())
        if tried.was_sent and result == Handled("moved") and action.repeat.is_once:
            await self._attempts.doubles.moved(row, action, tried.result.provider_id)
        return result

    def _counted(self, row: Row, action: Action) -> tuple[Change, ...]:
        """That it is counted later: an earlier send of it may show only then."""
        now_ms = self._ports.clock.now_ms()
        change = counted_later(self._ports.integrations, row, action, now_ms, self._scale)
        return () if change is None else (change,)

    # ------------------------------------------------------------------------------------------------------- other ways

    async def _turned_aside(self, row: Row) -> HintResult | None:
        """What must arrive goes another way while its integration is down, or is a person's; None: it stays.

        Anything else was decided when it was new: while its integration is degraded it has its attempts there.
        """
        taken = await self._hops.before_send(
            _action_of(row),
            row.hop,
            _whose(row),
            row.event_name,
            self._budget.lease_until_ms,
            is_new=False,
            is_unsettled=row.effect is Effect.UNKNOWN or row.verify_only or row.lease_until_ms > 0,
            code=row.failure_code,
        )
        now_ms, health = self._ports.clock.now_ms(), self._hops.health(row.integration_id).value
        match taken:
            case Hop() | Substitute():
                change = hopped(row, self._hops.way(_action_of(row), taken), health, now_ms)
                return await self._hop(row, change, taken)
            case Manual(matrix_row, task):
                self._hops.handed_over(row.integration_id, taken, _about(row))
                why = f"{row.integration_id} is {health}, and no other way is open"
                change = by_hand(row, matrix_row, task, why, now_ms)
                return await self._commit_last(row, change, task)
            case _:
                return None

    async def _ended(self, row: Row, change: Change, outcome: str) -> HintResult:
        """The transition after an attempt; where it would be the end and nothing has happened, the next way.

        A replay is one attempt, on the way that it is on.
        """
        failed = change.after
        is_end = failed.status in (Status.FAILED, Status.DLQ) and bool(failed.failure_class)
        if not is_end or row.status is Status.REPLAYED:
            return await self._commit(row, change, outcome)
        taken = await self._hops.after_failure(
            _action_of(row),
            row.hop,
            _whose(row),
            row.event_name,
            code=failed.failure_code,
            is_unsettled=failed.effect is Effect.UNKNOWN,
            may_have_been_sent=failed.last_possible_send_ms > 0 and not failed.tracks_effect,
        )
        match taken:
            case Hop() | Substitute():
                now_ms = self._ports.clock.now_ms()
                way = self._hops.way(_action_of(row), taken)
                return await self._hop(row, hopped(row, way, failed.failure_code, now_ms, failed=failed), taken)
            case Manual(matrix_row, task):
                self._hops.handed_over(row.integration_id, taken, _about(row))
                return await self._commit_last(row, handed_over(change, matrix_row, task), outcome)
            case _:
                return await self._commit(row, change, outcome)

    async def _hop(self, row: Row, change: Change, taken: Hop | Substitute) -> HintResult:
        """Store the hop, and only then take it, at once: whoever comes after a death here goes on from it."""
        self._hops.took(row.integration_id, taken, _about(row))
        result = await self._commit(row, change, "hopped", self._later(row, taken.hop))
        if result != Handled("hopped"):
            return result
        return await self._action(change.after)

    def _later(self, row: Row, hop: int) -> tuple[Change, ...]:
        """The row of what is to be done again once the integration that was left is well."""
        later = self._hops.later(_action_of(row), hop)
        if later is None:
            return ()
        now_ms = self._ports.clock.now_ms()
        blank = row_beside(row, later.bound(row.tenant, row.event_id, row.epoch_ms), now_ms)
        due_ms = now_ms + int(POLL_SECONDS * 1000 * self._scale)
        return (parked_first(blank, WaitingFor.HEALTH, "it is done once its integration is well", due_ms),)

    async def _commit_last(self, row: Row, change: Change, outcome: str) -> HintResult:
        """A person has it from here on, and what stands in for it is called for, as for a suppressed action."""
        stand_in = self._stand_in(row, self._ports.clock.now_ms())
        return await self._commit(row, replace(change, after=replace(change.after, stand_in=None)), outcome, stand_in)

    async def _not_sent(self, row: Row, verdict: Verdict) -> HintResult:
        """The gate's answer after the claim: the attempt was none."""
        now_ms = self._ports.clock.now_ms()
        match verdict:
            case Park():
                return await self._commit(row, self._parked(row, verdict, uncount=True), "parked")
            case Suppress(reason):
                self._ports.meter.count("actions_suppressed", integration=row.integration_id)
                change = suppress(row, reason, now_ms)
                change = replace(change, after=replace(change.after, stand_in=None))  # it has been called for, once
                return await self._commit(row, change, "suppressed", self._stand_in(row, now_ms))
            case Expire(reason):
                return await self._commit(row, end(row, "EXPIRED", reason, now_ms), "expired")
            case Send():
                raise AssertionError("a send that the gate allowed was not made")

    def _parked(self, row: Row, verdict: Park, *, uncount: bool) -> Change:
        now_ms = self._ports.clock.now_ms()
        poll_ms = now_ms + int(POLL_SECONDS * 1000 * self._scale)
        until_ms = poll_ms if verdict.until_ms is None else max(verdict.until_ms, now_ms)
        slot = {"slot_ms": verdict.slot_ms} if verdict.waiting_for is WaitingFor.LIMITER else {}
        return defer(row, verdict.waiting_for, verdict.reason, until_ms, now_ms, uncount=uncount, **slot)

    def _stand_in(self, row: Row, now_ms: int) -> tuple[Change, ...]:
        blank = stand_in_row(row, now_ms)
        if blank is None:
            return ()
        return (parked_first(blank, WaitingFor.NOTHING, "it stands in for a suppressed action", now_ms),)

    async def _has_new_credential(self, row: Row, action: Action) -> bool:
        try:
            version = await self._ports.io(self._ports.providers[action.integration].refresh_credential)
        except StorageUnavailable:
            self._ports.log.exception("the credential could not be read again: the item waits", extra=_about(row))
            return False
        return version != row.credential_version

    # ---------------------------------------------------------------------------------------------------------- events

    async def _event(self, row: Row) -> HintResult:
        self._attempts.leases.leave(row.recovery_id)  # it asks as an event, when it comes to that
        blocked = await self._replay_blocked(row)
        if blocked:
            parked = self._parked(row, Park(WaitingFor.SWITCH, blocked), uncount=False)
            return await self._commit(row, parked, "parked")
        if not self._budget.fits(self._event_seconds()):
            return Later(1, "no time was left in this invocation")
        claimed = await self._claim(row)
        if claimed is None:
            return Handled("moved")
        now_ms = self._ports.clock.now_ms
        try:
            event = await self._first_pass.read(row.envelope_ref)
            claim_ref = row.envelope_ref if is_claim(row.envelope_ref) else ""
            if claim_ref and (event.tenant, event.event_id, event.epoch_ms) != (row.tenant, row.event_id, row.epoch_ms):
                raise MalformedEnvelope("the claim check names an object that holds another event")
            admitted = self._first_pass.admitted(event, claim_ref)
            view = await self._ports.io(self._ports.ledger.read, [admitted.real_key], [])
            admitted = admitted.seen(view.items)
            if admitted.is_shadow:  # it was acknowledged to be processed, and shadow would only look at it
                parked = self._parked(claimed, Park(WaitingFor.SWITCH, "mode is shadow"), uncount=True)
                return await self._commit(claimed, parked, "parked")
            result: EventResult = await self._first_pass.process(admitted, is_released=True)
        except MalformedEnvelope as malformed:
            failure = Failure(FailureClass.DATA_ERROR, "MALFORMED_ENVELOPE", str(malformed), False, False)
            return await self._event_failed(claimed, failure)
        except StorageUnavailable as unavailable:
            failure = Failure(FailureClass.TRANSIENT, "STORAGE_UNAVAILABLE", str(unavailable), True, False)
            return await self._event_failed(claimed, failure)
        match result:
            case Settled():
                return await self._commit(claimed, succeeded(claimed, Done(), now_ms()), "succeeded")
            case Later(seconds, why):
                until_ms = now_ms() + seconds * 1000
                return await self._commit(
                    claimed, defer(claimed, WaitingFor.TIME, why, until_ms, now_ms(), uncount=True), "waiting"
                )
            case Parked(why):
                return await self._event_parked(claimed, why)

    async def _replay_blocked(self, row: Row) -> str:
        """Which switch keeps a replayed event waiting, or empty: no gate is asked about a whole event."""
        if row.status is not Status.REPLAYED:
            return ""
        snapshot = await self._attempts.switches()
        now_ms = self._ports.clock.now_ms()
        seen = view(snapshot, flow=row.flow, source=row.source, tenant=row.tenant, now_ms=now_ms)
        return replays_blocked(row.integration_id, seen)

    async def _event_parked(self, row: Row, why: str) -> HintResult:
        """It met its own row: on hold it waits on; anything else that stops it is for a person."""
        now_ms = self._ports.clock.now_ms()
        if why == "mode is hold":
            parked = self._parked(row, Park(WaitingFor.SWITCH, why), uncount=True)
            return await self._commit(row, parked, "parked")
        failure = Failure(FailureClass.DATA_ERROR, why, "the event still cannot be processed", False, False)
        change = after_attempt(
            row, INTAKE_RULES, INTAKE_POLICY, failure, now_ms, self._ports.rng, self._scale, was_sent=False
        )
        return await self._commit(row, change, change.after.status.value)

    async def _event_failed(self, row: Row, failure: Failure) -> HintResult:
        now_ms = self._ports.clock.now_ms()
        change = after_attempt(
            row, INTAKE_RULES, INTAKE_POLICY, failure, now_ms, self._ports.rng, self._scale, was_sent=False
        )
        return await self._commit(row, change, change.after.status.value)

    def _event_seconds(self) -> float:
        return max((one.deadline_seconds for one in self._ports.integrations.values()), default=0.0)

    # --------------------------------------------------------------------------------------------------------- storing

    async def _claim(self, row: Row) -> Row | None:
        change = claim(row, self._ports.clock.now_ms(), self._budget.lease_until_ms, self._ports.ids.new_id())
        try:
            await self._ports.io(self._ports.recovery.commit, [change])
        except VersionConflict:
            self._ports.meter.count("hints_stale")
            return None
        return change.after

    async def _commit(self, row: Row, change: Change, outcome: str, extra: tuple[Change, ...] = ()) -> HintResult:
        """Store the transition, and its children's release where it succeeded. A conflict: somebody else moved it."""
        is_success = outcome == "succeeded"
        for _ in range(COMMIT_TRIES):
            released = await self._released(change.after) if is_success else []
            stand_ins = [one for one in extra if await self._is_new(one)]
            try:
                await self._ports.io(self._ports.recovery.commit, [change, *stand_ins, *released])
            except VersionConflict:
                if not released and not stand_ins:
                    break
                continue
            is_critical = fallback.is_critical(self._ports.fallbacks, row.event_name)
            count_ended(self._ports.meter, change, is_critical=is_critical)
            self._log(change.after, outcome)
            return Handled(outcome)
        self._ports.meter.count("transitions_conflicted", integration=row.integration_id)
        self._ports.log.warning(
            "the recovery item moved on before its outcome could be stored: whoever moved it goes on from its lease",
            extra=_about(row) | {"outcome": outcome},
        )
        return Handled("moved")

    async def _is_new(self, change: Change) -> bool:
        return await self._ports.io(self._ports.recovery.get, change.after.recovery_id) is None

    async def _released(self, parent: Row) -> list[Change]:
        now_ms = self._ports.clock.now_ms()
        changes = []
        for child_id in parent.children:
            child = await self._ports.io(self._ports.recovery.get, child_id)
            if child is not None and child.is_open and parent.recovery_id in child.waits_for:
                changes.append(release(child, parent.recovery_id, now_ms))
        return changes

    def _log(self, row: Row, outcome: str) -> None:
        self._ports.meter.count("recovery_transitions", integration=row.integration_id, outcome=outcome)
        say: Callable[..., None] = self._ports.log.info if outcome == "succeeded" else self._ports.log.warning
        say(
            "a recovery item was tried and moved on",
            extra=_about(row)
            | {
                "status": row.status.value,
                "outcome": outcome,
                "attempt": row.attempt_count,
                "code": row.failure_code,
                "waiting_for": row.waiting_for.value,
            },
        )


def _may_have_been_sent(row: Row) -> bool:
    """Whether an effect that may be there once only may be there: by what is known, or by a claim nobody cleared."""
    return row.tracks_effect and (row.effect is Effect.UNKNOWN or row.lease_until_ms > 0)


def _action_of(row: Row) -> Action:
    if row.action is None:
        raise AssertionError(f"{row.recovery_id} is about an action and has none")
    return row.action.bound(row.tenant, row.event_id, row.epoch_ms)


def _whose(row: Row) -> Whose:
    return Whose(
        tenant=row.tenant,
        source=row.source,
        flow=row.flow,
        decision_mode=row.decision_mode,
        decided_at_ms=row.decided_at_ms,
        expires_at_ms=row.expires_at_ms,
        request_id=row.request_id,
        traceparent=row.traceparent,
        recovery_id=row.recovery_id,
        is_replay=row.status is Status.REPLAYED,
        is_row=True,
    )


def _about(row: Row) -> dict[str, object]:
    return {
        "recovery_id": row.recovery_id,
        "tenant": row.tenant,
        "source": row.source,
        "event_id": row.event_id,
        "integration": row.integration_id,
        "action": row.action.name if row.action else "",
        "request_id": row.request_id,
        "origin_request_id": row.origin_request_id,
        "traceparent": row.traceparent,
    }
