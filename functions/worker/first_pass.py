"""The first pass of an event (architecture §6): admit, decide, claim, act, settle.

What is unfinished at the end becomes rows in the write that settles the event, after its envelope is in S3. Whatever
stops the pass before that leaves a claim behind whose lease ends; the next delivery takes it over with the decision
that was stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from functions.core import fallback
from functions.core.attempt import Effect, History
from functions.core.audit import AuditEvent
from functions.core.decision import Action, Classification, Decision, Mode, Repeat
from functions.core.event import ClaimCheck, Event
from functions.core.failure import (
    ClassifierUnavailable,
    Done,
    Failure,
    Fenced,
    MalformedEnvelope,
    RootCause,
    StorageUnavailable,
)
from functions.core.fallback import Hop, Manual, Substitute, classifying
from functions.core.gate import Expire, Park, Suppress, WaitingFor
from functions.core.health import CallOutcome, outcome_of_classifier
from functions.core.ledger import (
    ACTION,
    LEASE_MARGIN_MS,
    ActionMark,
    ActionStatus,
    Afresh,
    Busy,
    Claim,
    Claimed,
    Duplicate,
    Fresh,
    LedgerItem,
    LedgerStatus,
    Mismatch,
    TakeOver,
    admit,
    decided,
    is_overtaken,
    is_past_window,
    ledger_key,
)
from functions.core.limiter import VISIBLE_WAIT_MS
from functions.core.ports import Settlement
from functions.core.quarantine import QUARANTINED, Quarantine, Rule, kept_aside
from functions.core.recovery import (
    PAYLOAD_MISMATCH,
    POLL_SECONDS,
    Change,
    Row,
    Status,
    action_recovery_id,
    by_hand_first,
    dead_first,
    expired_first,
    failed_first,
    handed_over,
    held_first,
    hop_event,
    hopped_first,
    parked_first,
    quarantined_first,
    suppressed_first,
    unknown_first,
)
from functions.core.rows import action_row, event_row
from functions.core.switches import LLM, Snapshot, SwitchView, view
from functions.core.synthetic import is_synthetic
from functions.ended import count_ended
from functions.flows.flow import Flow, Prepared, UnreadableEvent
from functions.worker.attempts import Attempt, Attempts, Held, NotYet, Tried, Unknown, Whose
from functions.worker.doubles import Sent, counted_later, may_show_later
from functions.worker.hops import Hops
from functions.worker.leases import Demand, Lease
from functions.worker.ports import Budget, Ports

LLM_DEADLINE_SECONDS = 2.5
LARGE_AT_ONCE = 2  # envelopes read at the same time: one may take five times its 4 MB body, and memory is 512 MB
ENVELOPE_SECONDS = 10.0  # until the bucket has failed twice
UNKNOWN_FLOW = "UNKNOWN_FLOW"
OVERTAKEN = "OVERTAKEN"


@dataclass(frozen=True, slots=True)
class Settled:
    """The event is done with here: acknowledge. `outcome` says how, for the log and the metric."""

    outcome: str


@dataclass(frozen=True, slots=True)
class Later:
    """Not now, and nothing was stored that would bring it back: keep the message, show it again then."""

    seconds: int
    why: str


class Account(StrEnum):
    """What a delivery is to the balance of its hour. What has a row of the whole event is found by that."""

    DONE = "done"
    LEFT = "left"  # settled, and rows have what is left of it
    AGAIN = "again"  # another delivery of the same event has it


@dataclass(frozen=True, slots=True)
class Parked:
    """It waits as a row of its own: acknowledge."""

    why: str


EventResult = Settled | Later | Parked


@dataclass(frozen=True, slots=True)
class Admitted:
    """An event that may be processed, with the mode in force for it.

    `claim` names the envelope in the bucket that ingress stored because it is large; empty for any other event.
    Without `is_whole` the event has no body yet: most of what can become of it needs none. `may_wait`: its message may
    wait in its queue for a slot of the limiter; else rows do. `is_released`: its own row sent it, no delivery.
    """

    event: Event
    key: str
    switches: SwitchView
    item: LedgerItem | None
    real_key: str
    claim: str = ""
    is_whole: bool = True
    may_wait: bool = False
    is_released: bool = False

    @property
    def is_shadow(self) -> bool:
        """Whether it is only looked at."""
        return self.key != self.real_key

    @property
    def waits_for_a_switch(self) -> bool:
        """Whether nothing is done while `mode` is hold. What reaches nobody goes on: it says that the way is open."""
        return self.switches.mode is Mode.HOLD and not is_synthetic(self.event.flow)

    def seen(self, items: Mapping[str, LedgerItem]) -> Admitted:
        """With its ledger item. What was claimed for real is never shadowed: somebody left it half done."""
        real = items.get(self.real_key)
        is_claimed = real is not None and (
            real.status is LedgerStatus.PROCESSING or not is_past_window(real.epoch_ms, self.event)
        )
        key = self.real_key if is_claimed else self.key
        return replace(self, key=key, item=items.get(key))


class FirstPass:
    """Processes events of one invocation. `process` may run for several events at once."""

    def __init__(
        self, ports: Ports, attempts: Attempts, budget: Budget, snapshot: Snapshot | None, time_scale: float
    ) -> None:
        self._ports = ports
        self._attempts = attempts
        self._budget = budget
        self._snapshot = snapshot
        self._scale = time_scale
        self._reading = asyncio.Semaphore(LARGE_AT_ONCE)
        self._hops = Hops(ports, attempts)
        self.quarantine = Quarantine()  # the rules as the batch read them

    def admitted(self, message: Event | ClaimCheck, claim: str = "") -> Admitted:
        """The event with its ledger key, which depends on the mode: shadow has keys of its own.

        A claim check stands for its event; `claim` is for an event that was read from what one names.
        """
        match message:
            case ClaimCheck(event, claim):
                is_whole = False
            case Event() as event:
                is_whole = True
        now_ms = self._ports.clock.now_ms()
        switches = view(self._snapshot, flow=event.flow, source=event.source, tenant=event.tenant, now_ms=now_ms)
        is_shadow = switches.mode is Mode.SHADOW
        key = ledger_key(event, is_shadow=is_shadow)
        return Admitted(event, key, switches, None, ledger_key(event), claim, is_whole)

    async def read(self, reference: str) -> Event:
        """The whole event. Few are read at once, however many ask. Raises like `ports.Envelopes.get`."""
        async with self._reading:
            return await self._ports.io(self._ports.envelopes.get, reference)

    async def process(self, admitted: Admitted, *, is_released: bool = False) -> EventResult:
        """Take one event as far as it goes. `is_released`: a person or the sweeper sent a parked event on.

        Raises `StorageUnavailable` where nothing could be stored, or a large event's envelope not be read, and
        `MalformedEnvelope` where that is another event's, so that the message comes back.
        """
        admitted = replace(admitted, is_released=is_released)
        flow = admitted.event.flow
        is_known = flow in self._ports.flows and not is_synthetic(flow)
        if is_known:
            self._ports.meter.count("flow_events", flow=flow)
        try:
            return await self._process(admitted, is_released=is_released)
        except (StorageUnavailable, Fenced, MalformedEnvelope):
            raise  # no fault of the flow
        except Exception:
            if is_known:
                self._ports.meter.count("flow_errors", flow=flow)
            raise

    async def _process(self, admitted: Admitted, *, is_released: bool) -> EventResult:
        event, now_ms = admitted.event, self._ports.clock.now_ms()
        match admit(admitted.item, event, now_ms):
            case Duplicate(is_overtaken=True):
                return await self._overtaken(admitted)
            case Duplicate(in_window):
                return self._duplicate(event, admitted.item, in_window=in_window)
            case Busy(until_ms):
                return Later(_seconds_until(until_ms, now_ms), "another worker has it")
            case Mismatch():
                return await self._mismatch(admitted)
            case Fresh():
                return await self._first(admitted, seen_epoch_ms=None, is_released=is_released)
            case Afresh(seen_epoch_ms):
                return await self._first(admitted, seen_epoch_ms=seen_epoch_ms, is_released=is_released)
            case TakeOver(item):
                if admitted.waits_for_a_switch:
                    return await self._hold(admitted, WaitingFor.SWITCH, "mode is hold")
                slot_ms = max(item.slots.values(), default=0)
                if admitted.may_wait and now_ms < slot_ms <= now_ms + VISIBLE_WAIT_MS:
                    return Later(_seconds_until(slot_ms, now_ms), "its slot has not come")
                # A claim that was released untouched ended at 0: nothing of it can have been sent.
                return await self._claim(admitted, item.decision, None, old_lease_ms=item.lease_until_ms or None)

    # -------------------------------------------------------------------------------------------------------- deciding

    async def _first(self, admitted: Admitted, *, seen_epoch_ms: int | None, is_released: bool) -> EventResult:
        event = admitted.event
        if event.held and not is_released:
            return await self._held_source(admitted)
        rule = None if is_released else self._rule_for(event)
        if rule is not None:
            return await self._kept_aside(admitted, rule)
        if admitted.waits_for_a_switch:
            return await self._hold(admitted, WaitingFor.SWITCH, "mode is hold")
        flow = self._ports.flows.get(event.flow)
        if flow is None:
            return await self._dead(
                admitted, UNKNOWN_FLOW, f"no flow is called {event.flow[:64]!r}", RootCause.SCHEMA_MISMATCH
            )
        if not admitted.is_whole and not self._budget.fits(ENVELOPE_SECONDS):
            return Later(1, "no time was left to read its envelope")
        try:
            prepared = await self._prepared(flow, admitted)
        except UnreadableEvent as unreadable:
            return await self._dead(admitted, unreadable.code, str(unreadable), unreadable.root_cause)
        health = self._hops.health(LLM)
        asking = classifying(self._ports.fallbacks, LLM, health)
        may_ask = prepared.needs_llm and admitted.switches.may_ask() and admitted.switches.mode is not Mode.MANUAL
        # While it is down one event at a time still asks: nothing else would ever find out that it is back.
        asks_llm = may_ask and (asking.asks or self._attempts.probes.is_free(LLM))
        if asks_llm and not self._budget.fits(LLM_DEADLINE_SECONDS):
            return Later(1, "no time was left to classify it")
        verdict = await self._classify(prepared, event, admitted.switches.limit(LLM)) if asks_llm else None
        if not asking.decides:  # whatever it said: while it is not well no decision replies (002.28)
            verdict = ClassifierUnavailable(health.name, f"the LLM is {health.value}")
            self._ports.meter.count("fallback_taken", integration=LLM, reason=asking.row)
        decision = flow.decide(event, prepared, verdict, admitted.switches.mode, self._ports.clock.now_ms())
        if not is_synthetic(event.flow):
            self._count_decision(flow, decision, verdict)
        return await self._claim(admitted, decision, seen_epoch_ms, old_lease_ms=None, prepared=prepared)

    async def _prepared(self, flow: Flow, admitted: Admitted) -> Prepared:
        """What the flow reads of it. A large body is let go of again: from here on what was read stands for it."""
        if admitted.is_whole:
            return flow.prepare(admitted.event)
        whole = await self.read(admitted.claim)
        return flow.prepare(ClaimCheck(admitted.event, admitted.claim).redeemed(whole))

    async def _classify(
        self, prepared: Prepared, event: Event, factor: float
    ) -> Classification | ClassifierUnavailable:
        """What the LLM says. While it is down, one event at a time finds out whether it still is; the others go on."""
        probes, probe = self._attempts.probes, None
        if probes.is_needed(LLM):
            probe = await probes.take(LLM)
            if probe is None:
                self._ports.meter.count("classifier_unavailable", reason="HARD_DOWN")
                return ClassifierUnavailable("HARD_DOWN", "the LLM is down")
        verdict = await self._asked(prepared, event, factor)
        outcome = CallOutcome.OK
        if isinstance(verdict, ClassifierUnavailable):
            outcome = outcome_of_classifier(verdict.code)
        self._attempts.tally.note(LLM, event.tenant, outcome)
        if probe is not None:
            probe.found = outcome
            await probes.record(probe)
        return verdict

    async def _asked(self, prepared: Prepared, event: Event, factor: float) -> Classification | ClassifierUnavailable:
        """What it says in time. At its rate it counts as one that cannot answer in time: nothing waits for it."""
        meter, clock = self._ports.meter, self._ports.clock
        if not await self._attempts.leases.may_call(LLM, factor):
            meter.count("classifier_unavailable", reason="LIMITED")
            return ClassifierUnavailable("LIMITED", "it is at its rate")
        started_ms = clock.now_ms()
        try:
            async with asyncio.timeout(LLM_DEADLINE_SECONDS):
                verdict = await self._ports.classifier.classify(
                    prepared.text, prepared.labels, started_ms + int(LLM_DEADLINE_SECONDS * 1000)
                )
        except TimeoutError:
            meter.count("classifier_unavailable", reason="DEADLINE")
            return ClassifierUnavailable("DEADLINE", f"no answer within {LLM_DEADLINE_SECONDS} s")
        except ClassifierUnavailable as unavailable:
            meter.count("classifier_unavailable", reason=unavailable.code)
            if unavailable.retry_after_ms is not None:
                await self._attempts.pause(LLM, unavailable.retry_after_ms)
            return unavailable
        except Exception:  # a defect of the adapter must not keep the event from being routed
            meter.count("classifier_unavailable", reason="ADAPTER_DEFECT")
            self._ports.log.exception(
                "the classifier raised: it counts as one that gave no answer",
                extra=_about(event) | {"integration": LLM},
            )
            return ClassifierUnavailable("ADAPTER_DEFECT", "the adapter raised")
        finally:
            meter.milliseconds("classifier_ms", max(0, clock.now_ms() - started_ms))
        return verdict

    def _count_decision(
        self, flow: Flow, decision: Decision, verdict: Classification | ClassifierUnavailable | None
    ) -> None:
        said = decision.classification
        self._ports.meter.count("decisions_made", flow=flow.name, outcome=said.decided_by.value)
        if decision.mode is not Mode.SHADOW:  # of what it decides nothing is done
            self._ports.meter.count("actions_decided", sum(not action.instead_of for action in decision.actions))
        if isinstance(verdict, ClassifierUnavailable):
            self._ports.meter.count("classifier_fallbacks", flow=flow.name, outcome=said.decided_by.value)

    # -------------------------------------------------------------------------------------------------------- claiming

    async def _claim(
        self,
        admitted: Admitted,
        decision: Decision,
        seen_epoch_ms: int | None,
        *,
        old_lease_ms: int | None,
        prepared: Prepared | None = None,
    ) -> EventResult:
        ports, event = self._ports, admitted.event
        decision.ids_for(
            event.tenant, event.event_id, event.epoch_ms
        )  # two equal effects are a defect: before the claim
        now_ms = ports.clock.now_ms()
        claim = Claim(
            key=admitted.key,
            owner=ports.ids.new_id(),
            now_ms=now_ms,
            lease_until_ms=self._budget.lease_until_ms,
            received_at_ms=event.received_at_ms,
            epoch_ms=event.epoch_ms,
            payload_hash=event.payload_hash,
            decision=decision,
            seen_epoch_ms=seen_epoch_ms,
            request_id=event.request_id,
            event_name=event.event_name,
            ticket=prepared.subject if prepared else "",
            recipient=prepared.recipient if prepared else "",
        )
        answer = await ports.io(ports.ledger.claim, claim)
        if not isinstance(answer, Claimed):
            return await self._refused(admitted, answer.item, now_ms)
        item = answer.item
        if seen_epoch_ms is None and item.generation > (1 if admitted.item is None else admitted.item.generation + 1):
            # Somebody else had it between the read and the claim, and lost it: assume the latest end of their lease.
            old_lease_ms = now_ms
        if old_lease_ms:
            ports.meter.count("takeovers", flow=event.flow)
            ports.log.warning(
                "a worker died or ran out of time with this event: another goes on from its decision",
                extra=_about(event) | {"generation": item.generation},
            )
        if admitted.is_shadow:
            return await self._settle_shadow(admitted, item)
        is_next = admitted.item is not None and item.generation == admitted.item.generation + 1
        slots = admitted.item.slots if admitted.item is not None and is_next else {}
        result = await self._act(admitted, item, old_lease_ms, slots)
        if isinstance(result, Settled) and (is_past_window(item.epoch_ms, event) or is_overtaken(item, event)):
            return Later(1, "another, equal event was finished first")
        return result

    async def _refused(self, admitted: Admitted, item: LedgerItem, now_ms: int) -> EventResult:
        match admit(item, admitted.event, now_ms):
            case Duplicate(is_overtaken=True):
                return await self._overtaken(admitted)
            case Duplicate(in_window):
                return self._duplicate(admitted.event, item, in_window=in_window)
            case Mismatch():
                return await self._mismatch(admitted)
            case Busy(until_ms):
                return Later(_seconds_until(until_ms, now_ms), "another worker has it")
            case _:
                return Later(1, "another worker was quicker")

    # ---------------------------------------------------------------------------------------------------------- acting

    async def _act(
        self, admitted: Admitted, item: LedgerItem, old_lease_ms: int | None, slots: Mapping[str, int]
    ) -> EventResult:
        event = admitted.event
        decision = decided(item, event)
        work = _Work(self._ports, self._attempts, self._hops, self._scale, event, item, decision, old_lease_ms)
        patience_ms = VISIBLE_WAIT_MS if admitted.may_wait else 0
        demands = await work.demands(patience_ms)
        if not self._attempts.leases.is_burst(demands):
            patience_ms = 0  # its calls cannot be made together: each waits for itself
            demands = await work.demands(patience_ms)
        work.lease = await self._attempts.leases.take(admitted.real_key, demands, slots)
        slot, now_ms = work.lease.ready(), self._ports.clock.now_ms()
        if now_ms < slot.at_ms <= now_ms + patience_ms:
            later = Later(_seconds_until(slot.at_ms, now_ms), "its calls have their turn then")
            return await self._give_back(item, old_lease_ms, work.lease, later)
        for action in decision.actions:
            if not work.is_started and not self._attempts.fits(action) and work.needs_call(action):
                later = Later(1, "no time was left to act on it")
                return await self._give_back(item, old_lease_ms, work.lease, later)
            try:
                await work.carry_out(action)
            except Fenced:
                await self._attempts.doubles.lost_lease(event, item, work.sent)
                raise
        return await self._settle(admitted, item, work)

    async def _give_back(self, item: LedgerItem, old_lease_ms: int | None, lease: Lease, later: Later) -> EventResult:
        """Claimed and untouched: whoever comes next need not wait for our lease, and has our slots.

        After a takeover the end of the lease before ours stays on record: until then its owner may have sent.
        """
        release, ended_ms = self._ports.ledger.release, old_lease_ms or 0
        try:
            await self._ports.io(release, item.key, item.owner, item.generation, ended_ms, lease.kept())
        except Fenced:
            return Later(1, "another worker took it over")
        return later

    async def _settle(self, admitted: Admitted, item: LedgerItem, work: _Work) -> EventResult:
        ports, event = self._ports, admitted.event
        changes = work.changes()
        if changes:
            reference = await self._envelope(admitted)
            changes = [replace(change, after=replace(change.after, envelope_ref=reference)) for change in changes]
        settlement = Settlement(
            key=item.key,
            owner=item.owner,
            generation=item.generation,
            now_ms=ports.clock.now_ms(),
            marks=work.marks,
            changes=tuple(changes),
            audit=tuple(work.audit),
        )
        try:
            await ports.io(ports.ledger.settle, settlement)
        except Fenced:
            ports.meter.count("settlements_fenced", flow=event.flow)
            ports.log.warning(
                "the lease was lost before the event could be settled: its new owner finishes it",
                extra=_about(event) | {"count": len(work.sent)},
            )
            await self._attempts.doubles.lost_lease(event, item, work.sent)
            return Later(1, "the lease was lost")
        for change in changes:
            self._log_row(event, change)
            self._count_ended(change)
        self.account(event, Account.LEFT if changes else Account.DONE)
        self._say_synthetic(event)
        return Settled("settled_with_rows" if changes else "settled")

    def _count_ended(self, change: Change) -> None:
        is_critical = fallback.is_critical(self._ports.fallbacks, change.after.event_name)
        count_ended(self._ports.meter, change, is_critical=is_critical)

    def _log_row(self, event: Event, change: Change) -> None:
        row = change.after
        self._ports.meter.count("rows_created", integration=row.integration_id, outcome=row.status.value)
        self._ports.log.warning(
            "an action of the event is unfinished and is a recovery item from here on",
            extra=_about(event)
            | {
                "recovery_id": row.recovery_id,
                "event_name": event.event_name,
                "integration": row.integration_id,
                "status": row.status.value,
                "code": row.failure_code,
                "waiting_for": row.waiting_for.value,
                "action": row.action.name if row.action else "",
            },
        )

    async def _settle_shadow(self, admitted: Admitted, item: LedgerItem) -> EventResult:
        """Shadow decides and logs; nothing is sent, and the real event stays unclaimed."""
        said = item.decision.classification
        marks = {action.name: ActionMark(ActionStatus.NOT_NEEDED) for action in item.decision.actions}
        self._ports.log.info(
            "shadow: decided, nothing sent",
            extra=_about(admitted.event)
            | {"label": said.label, "decided_by": said.decided_by.value, "count": len(item.decision.actions)},
        )
        settlement = Settlement(item.key, item.owner, item.generation, self._ports.clock.now_ms(), marks)
        try:
            await self._ports.io(self._ports.ledger.settle, settlement)
        except Fenced:
            return Later(1, "the lease was lost")
        self.account(admitted.event, Account.DONE)
        self._say_synthetic(admitted.event)
        return Settled("shadow")

    # ---------------------------------------------------------------------------------------------------- whole events

    def account(self, event: Event, account: Account) -> None:
        """Say what became of a delivery, for the balance of the hour in which it came in."""
        if is_synthetic(event.flow):
            return  # the door has not counted it either
        meter, name = self._ports.meter, fallback.named(self._ports.fallbacks, event.event_name)
        meter.count_at("events_accounted", event.received_at_ms, outcome=account.value)
        meter.count("events_named", event_name=name, outcome=account.value)
        if account is Account.DONE:
            took_ms = max(0, self._ports.clock.now_ms() - event.received_at_ms)
            self._ports.meter.milliseconds("settle_ms", took_ms)

    def _say_synthetic(self, event: Event) -> None:
        """That one of our own has come all the way, and how long it took."""
        if is_synthetic(event.flow):
            took_ms = max(0, self._ports.clock.now_ms() - event.received_at_ms)
            self._ports.meter.count("synthetic_settled")
            self._ports.meter.milliseconds("synthetic_settle_ms", took_ms)

    def _again(self, admitted: Admitted) -> None:
        """Its row was there before: another delivery brought it, and has it to its account."""
        if not admitted.is_released:
            self.account(admitted.event, Account.AGAIN)

    def _duplicate(self, event: Event, item: LedgerItem | None, *, in_window: bool) -> EventResult:
        if item is None or item.request_id != event.request_id:  # else a queue brought the same delivery once more
            self.account(event, Account.AGAIN)
        reason = "repeat_window" if in_window else "redelivery"
        if not is_synthetic(event.flow):
            self._ports.meter.count("idempotency_duplicates_detected", reason=reason)
        self._ports.log.info("the event was settled before: acknowledged", extra=_about(event) | {"reason": reason})
        return Settled("duplicate")

    async def _overtaken(self, admitted: Admitted) -> EventResult:
        """Done or not: doing it now might be the second time, letting it go might lose it. A person can see which."""
        return await self._dead(
            admitted,
            OVERTAKEN,
            "an equal event that came later, beyond the repeat window, was processed first: see whether this one was",
            RootCause.TRANSIENT_INFRA,
            status=Status.FAILED,
        )

    async def _held_source(self, admitted: Admitted) -> EventResult:
        """What a person held, only a person releases: by a replay."""
        row = event_row(admitted.event, await self._envelope(admitted), self._ports.clock.now_ms())
        change = held_first(row, "the source is held: replay the event when it may go on")
        if not await self._ports.io(self._ports.recovery.put_if_absent, change):
            self._again(admitted)
        return Parked("the source is held")

    def _rule_for(self, event: Event) -> Rule | None:
        now_ms = self._ports.clock.now_ms()
        return self.quarantine.for_event(event.source, event.event_name, event.event_version, event.tenant, now_ms)

    async def _kept_aside(self, admitted: Admitted, rule: Rule) -> EventResult:
        """What a rule keeps aside, only a person sends on: by a replay."""
        event = admitted.event
        row = event_row(event, await self._envelope(admitted), self._ports.clock.now_ms())
        if await self._ports.io(self._ports.recovery.put_if_absent, quarantined_first(row, kept_aside(rule))):
            self._ports.meter.count("events_quarantined", flow=event.flow)
            self._ports.log.warning(
                "a rule of quarantine keeps the event aside: it is a recovery item, and goes on when it is replayed",
                extra=_about(event) | {"recovery_id": row.recovery_id, "reason": rule.rule_id, "actor": rule.author},
            )
        else:
            self._again(admitted)
        return Parked(QUARANTINED)

    async def _hold(self, admitted: Admitted, waiting_for: WaitingFor, reason: str) -> EventResult:
        now_ms = self._ports.clock.now_ms()
        row = event_row(admitted.event, await self._envelope(admitted), now_ms)
        if not await self._ports.io(self._ports.recovery.put_if_absent, parked_first(row, waiting_for, reason, now_ms)):
            self._again(admitted)
        return Parked(reason)

    async def _mismatch(self, admitted: Admitted) -> EventResult:
        self._ports.meter.count("payload_mismatches")
        return await self._dead(
            admitted,
            PAYLOAD_MISMATCH,
            "an event with this id was accepted before with another payload",
            RootCause.BAD_SOURCE_DATA,
            status=Status.FAILED,
            variant=admitted.event.payload_hash,
        )

    async def _dead(
        self,
        admitted: Admitted,
        code: str,
        detail: str,
        root_cause: RootCause,
        *,
        status: Status = Status.DLQ,
        variant: str = "",
    ) -> EventResult:
        event = admitted.event
        row = event_row(event, await self._envelope(admitted), self._ports.clock.now_ms(), variant)
        change = dead_first(row, code, detail, root_cause, status)
        if await self._ports.io(self._ports.recovery.put_if_absent, change):
            self._count_ended(change)
            self._ports.meter.count("events_dead", reason=code)
            # What a sender has got wrong must not hold everybody's flow.
            is_of_a_flow = event.flow in self._ports.flows and not is_synthetic(event.flow)
            if is_of_a_flow and root_cause is not RootCause.BAD_SOURCE_DATA:
                self._ports.meter.count("flow_errors", flow=event.flow)
            self._ports.log.warning(
                "the event cannot be processed and is now a recovery item: fix the cause, then replay it",
                extra=_about(event)
                | {
                    "recovery_id": row.recovery_id,
                    "status": status.value,
                    "code": code,
                    "root_cause": root_cause.value,
                },
            )
        else:
            self._again(admitted)
        return Parked(code)

    async def _envelope(self, admitted: Admitted) -> str:
        """Where the whole event lies, for as long as anything of it is unfinished. A large one lies there already."""
        return admitted.claim or await self._ports.io(self._ports.envelopes.put, admitted.event)


class _Work:
    """The actions of one claimed event: marks, and rows of what is unfinished."""

    def __init__(
        self,
        ports: Ports,
        attempts: Attempts,
        hops: Hops,
        time_scale: float,
        event: Event,
        item: LedgerItem,
        decision: Decision,
        old_lease_ms: int | None,
    ) -> None:
        self._ports = ports
        self._attempts = attempts
        self._hops = hops
        self._scale = time_scale
        self._event = event
        self._item = item
        self._decision = decision
        self._old_lease_ms = old_lease_ms
        self._rows: dict[str, Change] = {}
        self.lease = Lease()
        self.marks: dict[str, ActionMark] = dict(item.actions)
        self.audit: list[AuditEvent] = []  # beside that of the rows
        self.sent: list[Sent] = []  # what came about in this pass, of what must not come about twice
        self.is_started = False

    def changes(self) -> list[Change]:
        """The rows to put, parents knowing their children."""
        children: dict[str, list[str]] = {}
        for change in self._rows.values():
            for parent in change.after.waits_for:
                children.setdefault(parent, []).append(change.after.recovery_id)
        return [
            replace(change, after=replace(change.after, children=tuple(children.get(change.after.recovery_id, ()))))
            for change in self._rows.values()
        ]

    async def demands(self, patience_ms: int) -> list[Demand]:
        """The calls that its actions would make, by integration: now, or as rows where they will wait for longer."""
        demands: dict[str, Demand] = {}
        for action in self._decision.actions:
            if not action.instead_of:
                current = self._hops.action_at(action, self._hop(action.name))
                is_row = self._attempts.leases.wait_ms(current.integration) > patience_ms
                history, until_ms = self._history(current, is_row=is_row), self._item_lease_ms()
                one = await self._attempts.demand(current, self._whose(action), history, until_ms)
                known = demands.get(one.integration)
                demands[one.integration] = replace(one, calls=one.calls + (known.calls if known else 0))
        return list(demands.values())

    def needs_call(self, action: Action) -> bool:
        """Whether anything of it would be sent now."""
        return not action.instead_of and not self._unfinished_parents(action)

    async def carry_out(self, action: Action) -> None:
        """One action, as far as it goes. Afterwards it has a mark, and a row unless it is finished."""
        if action.instead_of and self._status(action.instead_of) is not ActionStatus.SUPPRESSED:
            self._mark(action, ActionStatus.NOT_NEEDED)
            return
        current = self._hops.action_at(action, self._hop(action.name))
        history = self._history(current)
        blank = self._blank(action, current, history, "taken_over")
        if self._status(action.name) is ActionStatus.SUPPRESSED:
            self._was_handed_over(action, blank)
            return
        parents = self._unfinished_parents(action)
        if parents:
            blocked = replace(blank, waits_for=tuple(parents), slot_ms=self._set_aside(current))
            self._row(
                action, parked_first(blocked, WaitingFor.PARENT, "a required action is not done", blank.expires_at_ms)
            )
            return
        if not self._attempts.fits(current):
            self._row(
                action, parked_first(blank, WaitingFor.TIME, "no time was left in this invocation", blank.created_at_ms)
            )
            return
        self.is_started = True
        for is_last in (False, True):
            turned = await self._turned_aside(action, current, history, blank)
            if turned is None:
                return
            current, history, blank = turned
            attempt = await self._attempts.make(
                current,
                self._whose(action),
                history,
                self._item_lease_ms(),
                before_blind=lambda: self._mark_trying(action),
            )
            if is_last or not _is_down(attempt) or not self._hops.has_ways(action):
                break  # else it stayed to be the probe, and another has that now: it may leave
        if isinstance(attempt, Held) and isinstance(attempt.verdict, Park):
            blank = replace(blank, slot_ms=self._set_aside(current))
        if isinstance(attempt, Held) and isinstance(attempt.verdict, Suppress) and blank.stand_in is not None:
            # Before anything stands in for it: whoever takes over must not weigh it again.
            await self._store(action, ActionMark(ActionStatus.SUPPRESSED, hop=self._hop(action.name)))
        self._conclude(current, attempt, blank)
        self._note_sent(action, current, attempt, history, blank)
        await self._fall_back(action, blank)
        self._note_hop(action, blank)

    def _note_sent(self, action: Action, current: Action, attempt: Attempt, history: History, blank: Row) -> None:
        """What must not come about twice and did come about here; and that it is counted later, where an earlier send
        may show only then. An owner before this one that was the first was the only other one to send.
        """
        if not isinstance(attempt, Tried) or not isinstance(attempt.result, Done):
            return
        if attempt.was_sent and current.repeat.is_once:
            self.sent.append(Sent(action, attempt.result.provider_id))
        has_several = attempt.was_sent or self._item.generation > 2
        if has_several and may_show_later(attempt.result, history, was_sent=attempt.was_sent):
            now_ms = self._ports.clock.now_ms()
            later = counted_later(self._ports.integrations, blank, current, now_ms, self._scale)
            if later is not None and later.after.action is not None:
                self._rows[later.after.action.name] = later

    # ------------------------------------------------------------------------------------------------------- other ways

    def _hop(self, name: str) -> int:
        """The way the action goes, as it is stored: nobody goes back from it."""
        mark = self.marks.get(name)
        return 0 if mark is None else mark.hop

    def _blank(self, action: Action, current: Action, history: History, why: str) -> Row:
        """The action's blank row on its present way, under the id that it has on every way."""
        item, now_ms = self._item, self._ports.clock.now_ms()
        blank = action_row(self._event, self._decision, current, item.epoch_ms, "", now_ms, history)
        if current is action:
            return blank
        return replace(
            blank,
            recovery_id=action_recovery_id(action.action_id),
            action=action,
            hop=self._hop(action.name),
            hops=(f"{action.integration}:{why}",),
            hop_kind=current.kind,
            hop_repeat=current.repeat.value,
        )

    async def _turned_aside(
        self, action: Action, current: Action, history: History, blank: Row
    ) -> tuple[Action, History, Row] | None:
        """What is tried, where the integration of its way is not healthy: stored before it is taken. None: a person is
        asked.
        """
        taken = await self._hops.before_send(
            action,
            blank.hop,
            self._whose(action),
            self._event.event_name,
            self._item_lease_ms(),
            is_new=True,
            is_unsettled=history.may_have_been_sent,
        )
        match taken:
            case Hop() | Substitute():
                why = self._hops.health(current.integration).value
                await self._store(action, ActionMark(ActionStatus.TODO, hop=taken.hop))
                self.marks[action.name] = ActionMark(ActionStatus.TODO, hop=taken.hop)
                self._hops.took(current.integration, taken, _about(self._event) | {"action": action.name})
                current = self._hops.action_at(action, taken.hop)
                history = History(had_lease=history.had_lease)
                return current, history, self._blank(action, current, history, why)
            case Manual(matrix_row, task):
                self._hops.handed_over(current.integration, taken, _about(self._event) | {"action": action.name})
                why = (
                    f"{current.integration} is {self._hops.health(current.integration).value}, and no other way is open"
                )
                await self._hand_over(action, by_hand_first(blank, matrix_row, task, why))
                return None
            case _:
                return current, history, blank

    async def _fall_back(self, action: Action, blank: Row) -> None:
        """Where its first attempt was also its last, and had no effect: another way, which is stored as its row."""
        change = self._rows.get(action.name)
        if change is None or not _has_failed(change.after):
            return
        failed = change.after
        taken = await self._hops.after_failure(
            action,
            blank.hop,
            self._whose(action),
            self._event.event_name,
            code=failed.failure_code,
            is_unsettled=failed.effect is Effect.UNKNOWN,
            may_have_been_sent=failed.last_possible_send_ms > 0 and not failed.tracks_effect,
        )
        match taken:
            case Hop() | Substitute():
                way = self._hops.way(action, taken)
                self._hops.took(failed.integration_id, taken, _about(self._event) | {"action": action.name})
                now_ms = self._ports.clock.now_ms()
                self._row(action, hopped_first(blank, way, failed.failure_code, now_ms, failed=failed))
                self._add_later(action, taken.hop)
            case Manual(matrix_row, task):
                self._hops.handed_over(failed.integration_id, taken, _about(self._event) | {"action": action.name})
                await self._hand_over(action, handed_over(change, matrix_row, task))

    async def _hand_over(self, action: Action, change: Change) -> None:
        """A person has it. As for a suppressed action, what stands in for it comes next in this pass; that it is not
        sent any more is stored before that, for whoever takes over.
        """
        if change.after.stand_in is not None:
            await self._store(action, ActionMark(ActionStatus.SUPPRESSED, hop=self._hop(action.name)))
        self.marks[action.name] = ActionMark(ActionStatus.TODO, hop=self._hop(action.name))  # nothing else is stored
        self._row(action, replace(change, after=replace(change.after, stand_in=None)), ActionStatus.SUPPRESSED)

    def _was_handed_over(self, action: Action, blank: Row) -> None:
        """By an owner who died since: nothing of it was sent, and what stands in for it may be done."""
        left = self._hops.left_by_hand(action, self._event.event_name)
        known = replace(blank, stand_in=None)  # an owner before that one may have sent it
        why = "it was stopped by a worker that did not come to its end"
        if left is None:
            self._row(action, suppressed_first(known, why), ActionStatus.SUPPRESSED)
            return
        self._hops.handed_over(blank.integration_id, left, _about(self._event) | {"action": action.name})
        self._row(action, by_hand_first(known, left.row, left.task, why), ActionStatus.SUPPRESSED)

    def _note_hop(self, action: Action, blank: Row) -> None:
        """A stored hop is in the audit, and what it leaves for later is a row, whatever became of the action."""
        if blank.hop:
            self.audit.append(hop_event(blank, self._hops.way_at(action, blank.hop)))
            self._add_later(action, blank.hop)

    def _add_later(self, action: Action, hop: int) -> None:
        later = self._hops.later(action, hop)
        if later is None:
            return
        event, now_ms = self._event, self._ports.clock.now_ms()
        later = later.bound(event.tenant, event.event_id, self._item.epoch_ms)
        blank = action_row(event, self._decision, later, self._item.epoch_ms, "", now_ms, History())
        due_ms = now_ms + int(POLL_SECONDS * 1000 * self._scale)
        self._rows[later.name] = parked_first(
            blank, WaitingFor.HEALTH, "it is done once its integration is well", due_ms
        )

    def _set_aside(self, action: Action) -> int:
        """The slot that the action's row keeps, if it has one for all that the row will call."""
        calls = self._attempts.calls(action, self._history(action, is_row=True))
        return self.lease.set_aside(action.integration, calls, self._ports.clock.now_ms())

    def _conclude(self, action: Action, attempt: object, blank: Row) -> None:
        match attempt:
            case Tried(Failure() as failure, was_sent, was_absent, credential_version, is_probe):
                known = replace(blank, effect=Effect.NONE) if was_absent else blank
                self._failed(action, known, failure, credential_version, was_sent=was_sent, is_probe=is_probe)
            case Tried(Done(provider_id)):
                self._mark(action, ActionStatus.DONE, provider_id)
            case Tried():
                self._mark(action, ActionStatus.SUPERSEDED)
            case NotYet(until_ms):
                self._row(action, parked_first(blank, WaitingFor.TIME, "a lookup cannot be believed yet", until_ms))
            case Unknown(detail):
                self._row(action, unknown_first(blank, detail))
            case Held(Park(waiting_for, reason, until_ms)):
                due_ms = max(until_ms or 0, blank.created_at_ms, blank.slot_ms)
                self._row(action, parked_first(blank, waiting_for, reason, due_ms))
            case Held(Suppress(reason)):
                self._ports.meter.count("actions_suppressed", integration=action.integration)
                # What stands in for it comes next in this pass: a later suppression, after a replay, has none left.
                self._row(action, suppressed_first(replace(blank, stand_in=None), reason), ActionStatus.SUPPRESSED)
            case Held(Expire(reason)):
                self._row(action, expired_first(blank, reason))
            case _:  # VerifiedAbsent belongs to rows
                raise AssertionError(f"a first pass cannot end an attempt with {attempt!r}")

    def _failed(
        self,
        action: Action,
        blank: Row,
        failure: Failure,
        credential_version: str,
        *,
        was_sent: bool,
        is_probe: bool,
    ) -> None:
        integration = self._ports.integrations[action.integration]
        change = failed_first(
            blank,
            integration.kinds[action.kind],
            integration.policy,
            failure,
            self._ports.clock.now_ms(),
            self._ports.rng,
            self._scale,
            was_sent=was_sent,
            is_probe=is_probe,
        )
        self._row(action, replace(change, after=replace(change.after, credential_version=credential_version)))

    def _row(self, action: Action, change: Change, status: ActionStatus = ActionStatus.RECOVERY) -> None:
        self._rows[action.name] = change
        self._mark(action, status)

    def _mark(self, action: Action, status: ActionStatus, provider_id: str = "") -> None:
        before = self._status(action.name)
        if status is not before:
            ACTION.require(before.value, status.value, action.action_id)
        self.marks[action.name] = ActionMark(status, provider_id, self._hop(action.name))

    def _status(self, name: str) -> ActionStatus:
        mark = self.marks.get(name)
        return ActionStatus.TODO if mark is None else mark.status

    def _unfinished_parents(self, action: Action) -> list[str]:
        return [
            action_recovery_id(self._decision.action(name).action_id)
            for name in action.requires
            if self._status(name) not in (ActionStatus.DONE, ActionStatus.SUPERSEDED)
        ]

    def _history(self, action: Action, *, is_row: bool = False) -> History:
        """After a takeover everything may have been sent but what the old owner would have marked first. `is_row`: as
        whoever tries its row will see it.
        """
        if not self._old_lease_ms:  # nobody had it, or whoever did gave it back untouched
            return History(had_lease=is_row)
        was_marked = self._item.actions.get(action.name, ActionMark(ActionStatus.TODO)).status is ActionStatus.TRYING
        return History(
            had_lease=True,
            may_have_been_sent=was_marked if action.repeat is Repeat.BLIND else True,
            first_sent_at_ms=self._decision.decided_at_ms,
            last_possible_send_ms=self._old_lease_ms,
        )

    async def _mark_trying(self, action: Action) -> None:
        await self._store(action, ActionMark(ActionStatus.TRYING, hop=self._hop(action.name)))

    async def _store(self, action: Action, mark: ActionMark) -> None:
        """Mark it in the ledger now: whoever takes over must know. Raises `Fenced`."""
        item = self._item
        await self._ports.io(self._ports.ledger.mark, item.key, item.owner, item.generation, action.name, mark)

    def _whose(self, action: Action) -> Whose:
        event = self._event
        return Whose(
            tenant=event.tenant,
            source=event.source,
            flow=self._decision.flow,
            decision_mode=self._decision.mode,
            decided_at_ms=self._decision.decided_at_ms,
            expires_at_ms=event.received_at_ms + action.expires_seconds * 1000,
            request_id=event.request_id,
            traceparent=event.traceparent,
            recovery_id=action_recovery_id(action.action_id),
            lease=self.lease,
        )

    def _item_lease_ms(self) -> int:
        return self._item.lease_until_ms


def _is_down(attempt: object) -> bool:
    """Whether nothing was tried because the integration is down."""
    return (
        isinstance(attempt, Held)
        and isinstance(attempt.verdict, Park)
        and attempt.verdict.waiting_for is WaitingFor.HEALTH
    )


def _has_failed(row: Row) -> bool:
    """Whether an attempt killed it, and nothing else."""
    return row.status in (Status.FAILED, Status.DLQ) and bool(row.failure_class)


def lease_until(started_ms: int, timeout_seconds: int) -> int:
    """The lease of every claim of an invocation: it outlives the invocation by five seconds (architecture §6)."""
    return started_ms + timeout_seconds * 1000 + LEASE_MARGIN_MS


def _seconds_until(at_ms: int, now_ms: int) -> int:
    return max(1, -(-(at_ms - now_ms) // 1000))


def _about(event: Event) -> dict[str, object]:
    return {
        "tenant": event.tenant,
        "source": event.source,
        "event_id": event.event_id,
        "flow": event.flow,
        "request_id": event.request_id,
        "traceparent": event.traceparent,
    }
