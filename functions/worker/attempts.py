"""One attempt at one action, on whichever path: the gate, the step its kind allows, the call, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from functions.core.attempt import (
    AskPerson,
    History,
    LookUp,
    ReadFirst,
    Result,
    SendNow,
    Superseded,
    WaitUntil,
    next_step,
)
from functions.core.decision import Action, Mode, Repeat
from functions.core.failure import (
    ADAPTER_DEFECT,
    Done,
    Failure,
    FailureClass,
    NetworkCause,
    StorageUnavailable,
    failure_of_network,
)
from functions.core.fallback import is_held_while_down, may_probe
from functions.core.gate import (
    Expire,
    GateView,
    Health,
    IntegrationState,
    Park,
    Send,
    Standing,
    Suppress,
    Verdict,
    WaitingFor,
    check,
)
from functions.core.health import CallOutcome, may_be_probe, outcome_of, rate_factor
from functions.core.integration import Integration, KindRules
from functions.core.limiter import AT_ONCE, Slot, after_pause, paused
from functions.core.person import OPTED_OUT_THERE
from functions.core.ports import Absent, Call, Provider, SettingState
from functions.core.recipient import Person, standing_on
from functions.core.switches import FRESH_FOR_MS, Snapshot, view
from functions.worker.automatic import Automatic, Count
from functions.worker.doubles import Doubles
from functions.worker.leases import Demand, Lease, Leases
from functions.worker.opt_outs import OptOuts
from functions.worker.ports import Budget, Ports
from functions.worker.probes import Probe, Probes
from functions.worker.tally import Tally

_R = TypeVar("_R")

SWITCHES_MAX_AGE_MS = 30_000  # for everything that no customer sees


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose action it is and what was in force when it was decided. `lease`: what it may call of limited integrations;
    what is missing is asked for when it is needed. `recovery_id`: of the action, which may have no row.
    """

    tenant: str
    source: str
    flow: str
    decision_mode: Mode
    decided_at_ms: int
    expires_at_ms: int
    request_id: str
    traceparent: str
    recovery_id: str = ""
    is_replay: bool = False
    is_row: bool = False
    lease: Lease = field(default_factory=Lease, compare=False)


@dataclass(frozen=True, slots=True)
class Tried:
    """A call was made. `was_sent`: it was the effect's own call, not a read or a lookup before it.

    `was_absent`: a lookup had found nothing, so that it is known what earlier attempts did: nothing. `is_probe`: it was
    to find out whether the integration is back, and its failure spends no attempt.
    """

    result: Result
    was_sent: bool
    was_absent: bool = False
    credential_version: str = ""
    is_probe: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """The gate said no."""

    verdict: Park | Suppress | Expire


@dataclass(frozen=True, slots=True)
class NotYet:
    """A lookup cannot be believed before then."""

    until_ms: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nothing can tell whether it happened."""

    detail: str


@dataclass(frozen=True, slots=True)
class VerifiedAbsent:
    """The lookup after the last attempt found nothing."""


Attempt = Tried | Held | NotYet | Unknown | VerifiedAbsent


class Attempts:
    """Makes attempts for one invocation. Remembers the control items of the batch, and pauses learned since.

    `tally` is what became of its calls, `probes` those that it may make of integrations that are down.
    """

    def __init__(
        self,
        ports: Ports,
        time_scale: float,
        budget: Budget,
        states: MutableMapping[str, IntegrationState],
        leases: Leases,
    ) -> None:
        self._ports = ports
        self._scale = time_scale
        self._budget = budget
        self._states = states
        self.tally = Tally(ports, time_scale)
        self.probes = Probes(ports, time_scale, states)
        self._probing: dict[str, Probe] = {}  # by action id
        self.leases = leases
        self.doubles = Doubles(ports)
        self._automatic = Automatic(ports)
        self._opt_outs = OptOuts(ports)
        self._people: dict[str, Person] = {}  # by action id, as the gate saw them last

    def fits(self, action: Action) -> bool:
        """Whether an attempt, with a read or lookup before the send, can still end in this invocation."""
        calls = 1 if action.repeat in (Repeat.IDEMPOTENT, Repeat.KEYED, Repeat.BLIND) else 2
        return self._budget.fits(calls * self._integration(action).deadline_seconds)

    @property
    def states(self) -> Mapping[str, IntegrationState]:
        """The control items as this invocation knows them, by integration."""
        return self._states

    def calls(self, action: Action, history: History, *, verify_only: bool = False) -> int:
        """How many calls an attempt makes, reads and lookups before the send included: a provider counts those too."""
        now_ms = self._ports.clock.now_ms()
        match LookUp(only=True) if verify_only else next_step(self._rules(action), history, now_ms, self._scale):
            case WaitUntil() | AskPerson():
                return 0
            case LookUp(only=False) | ReadFirst():
                return 2
            case _:
                return 1

    async def demand(
        self, action: Action, whose: Whose, history: History, lease_until_ms: int, *, verify_only: bool = False
    ) -> Demand:
        """The calls to ask the limiter for: none where the gate will most likely hold the action back; one for a
        suppressed action, which what stands in for it will need; none of an integration without a limit.
        """
        if self._integration(action).rate is None:
            return Demand(action.integration, 0)
        seen = self._seen(action, whose, lease_until_ms, await self.switches(), Standing.ALLOWED, AT_ONCE)
        likely = check(action, replace(seen, switches=replace(seen.switches, age_ms=0)))
        calls = self.calls(action, history, verify_only=verify_only)
        if isinstance(likely, Park) or (isinstance(likely, Expire) and not verify_only):  # a look may come too late
            calls = 0
        elif isinstance(likely, Suppress):
            calls = 1
        return Demand(action.integration, calls, self._factor(seen, action.integration))

    async def gate(self, action: Action, whose: Whose, lease_until_ms: int, *, is_limited: bool = False) -> Verdict:
        """Ask the one gate, with everything read that has to be fresh; `is_limited`: with the slot of the next call."""
        lease, name = whose.lease, action.integration
        slot = lease.next(name) if is_limited else None
        verdict = await self._verdict(action, whose, lease_until_ms, slot or AT_ONCE)
        if isinstance(verdict, Send) and is_limited and slot is None and self._integration(action).rate is not None:
            seen = self._seen(action, whose, lease_until_ms, await self.switches(), Standing.ALLOWED, AT_ONCE)
            factor = self._factor(seen, name)
            if factor > 0:  # else it was switched off in between, and parks
                await self.leases.another(lease, Demand(name, 1, factor))
            verdict = await self._verdict(action, whose, lease_until_ms, lease.next(name) or AT_ONCE)
        return verdict

    def _factor(self, seen: GateView, integration: str) -> float:
        """Of the integration's rate: what the operator's switch leaves of it, and what its health does."""
        return seen.switches.limit(integration) * rate_factor(seen.integration, seen.now_ms)

    async def _verdict(self, action: Action, whose: Whose, lease_until_ms: int, slot: Slot) -> Verdict:
        ports = self._ports
        is_held = is_held_while_down(ports.fallbacks, action.kind)
        if is_held:
            await self._read_again(action, whose)
        standing = Standing.ALLOWED
        if action.customer_visible:
            snapshot = await ports.io(ports.switches.snapshot, FRESH_FOR_MS)
            person = await self._person(action, whose)
            self._people[action.action_id] = person
            standing = standing_on(person, self._integration(action).channel)
        else:
            snapshot = await self.switches()
        return check(action, self._seen(action, whose, lease_until_ms, snapshot, standing, slot))

    def _seen(
        self,
        action: Action,
        whose: Whose,
        lease_until_ms: int,
        snapshot: Snapshot | None,
        standing: Standing,
        slot: Slot,
    ) -> GateView:
        now_ms = self._ports.clock.now_ms()
        return GateView(
            now_ms=now_ms,
            decision_mode=whose.decision_mode,
            switches=view(snapshot, flow=whose.flow, source=whose.source, tenant=whose.tenant, now_ms=now_ms),
            integration=self._states.get(action.integration) or IntegrationState(action.integration),
            standing=standing,
            expires_at_ms=whose.expires_at_ms,
            call_ends_at_ms=now_ms + int(self._integration(action).deadline_seconds * 1000),
            lease_until_ms=lease_until_ms,
            is_replay=whose.is_replay,
            slot=slot,
            is_probe=self._may_probe(action),
            is_held_while_down=is_held_while_down(self._ports.fallbacks, action.kind),
        )

    def _may_probe(self, action: Action) -> bool:
        """Whether it is the one that finds out whether its integration is back, or could be."""
        if action.action_id in self._probing:
            return True
        if not self.probes.is_free(action.integration):
            return False
        state, now_ms = self._states[action.integration], self._ports.clock.now_ms()
        is_able = may_be_probe(self._integration(action), action.repeat, state, now_ms, self._scale)
        return is_able and may_probe(self._ports.fallbacks, action.kind)

    async def _read_again(self, action: Action, whose: Whose) -> None:
        """The integration's control item as it is now: what the batch read may be a minute old, and by then it may be
        down.
        """
        integration = action.integration
        try:
            view = await self._ports.io(self._ports.ledger.read, [], [integration])
        except StorageUnavailable:
            self._ports.log.exception(
                "the health of an integration could not be read again: it counts as down for this action",
                extra=_about(action, whose),
            )
            known = self._states.get(integration, IntegrationState(integration))
            self._states[integration] = replace(known, health=Health.HARD_DOWN)
        else:
            self._states[integration] = view.integrations[integration]

    async def switches(self) -> Snapshot | None:
        """The switches, as fresh as anything but a customer-visible send needs them."""
        return await self._ports.io(self._ports.switches.snapshot, SWITCHES_MAX_AGE_MS)

    async def make(
        self,
        action: Action,
        whose: Whose,
        history: History,
        lease_until_ms: int,
        *,
        before_blind: Callable[[], Awaitable[None]] | None = None,
        verify_only: bool = False,
    ) -> Attempt:
        """Do what the action's kind and history allow, once, through the gate.

        `before_blind` is awaited before a `blind` send, so that a takeover knows of it.
        """
        rules = self._rules(action)
        needs_call = self.calls(action, history, verify_only=verify_only) > 0
        held = await self._held(action, whose, lease_until_ms, is_limited=needs_call)
        if held is not None and not (verify_only and not isinstance(held.verdict, Park)):
            return held  # a look that sends nothing may come too late, and reaches nobody
        step = LookUp(only=True) if verify_only else next_step(rules, history, self._ports.clock.now_ms(), self._scale)
        match step:
            case WaitUntil(at_ms):
                return NotYet(at_ms)
            case AskPerson(detail):
                return Unknown(detail)
        if self.probes.is_needed(action.integration):
            return await self._probe(action, whose, step, lease_until_ms, before_blind)
        return await self._carry_out(action, whose, step, lease_until_ms, before_blind)

    async def _probe(
        self,
        action: Action,
        whose: Whose,
        step: SendNow | LookUp | ReadFirst,
        lease_until_ms: int,
        before_blind: Callable[[], Awaitable[None]] | None,
    ) -> Attempt:
        """The attempt as the fleet's one probe of an integration that is down, or none if another has that."""
        probe = await self.probes.take(action.integration)
        if probe is None:
            return Held(
                Park(WaitingFor.HEALTH, f"{action.integration} is down, and another call asks whether it still is")
            )
        self._probing[action.action_id] = probe
        try:
            attempt = await self._carry_out(action, whose, step, lease_until_ms, before_blind)
        except Exception:
            del self._probing[action.action_id]
            await self.probes.record(probe)
            raise
        del self._probing[action.action_id]
        await self.probes.record(probe)
        return replace(attempt, is_probe=True) if isinstance(attempt, Tried) else attempt

    async def _carry_out(
        self,
        action: Action,
        whose: Whose,
        step: SendNow | LookUp | ReadFirst,
        lease_until_ms: int,
        before_blind: Callable[[], Awaitable[None]] | None,
    ) -> Attempt:
        """The calls of one attempt."""
        provider = self._ports.providers[action.integration]
        was_absent = False
        match step:
            case LookUp(only):
                looked, version = await self._ask(action, whose, provider, provider.look_up)
                if not isinstance(looked, Absent):
                    await self._note_found(action, looked, whose)
                    return Tried(looked, was_sent=False, credential_version=version)
                if only:
                    return VerifiedAbsent()
                was_absent = True
            case ReadFirst():
                state, version = await self._ask(action, whose, provider, provider.read_setting)
                settled = _settled(state, provider.wanted(action), whose)
                if settled is not None:
                    await self._note_found(action, settled, whose)
                    return Tried(settled, was_sent=False, credential_version=version)
            case SendNow():
                pass
        count = await self._automatic.count(action, whose.tenant, whose.flow, is_replay=whose.is_replay)
        if not isinstance(count, Count):
            return Held(count)
        has_waited = not isinstance(step, SendNow) or count.was_slow or action.action_id in self._probing
        sent = await self._last_steps(
            action, whose, provider, lease_until_ms, before_blind, was_absent=was_absent, has_waited=has_waited
        )
        sent = await self._heeded(action, whose, sent)
        if _has_no_effect(sent):
            await self._automatic.take_back(count)
        return sent

    async def _last_steps(
        self,
        action: Action,
        whose: Whose,
        provider: Provider,
        lease_until_ms: int,
        before_blind: Callable[[], Awaitable[None]] | None,
        *,
        was_absent: bool,
        has_waited: bool,
    ) -> Tried | Held:
        """The send, through the gate once more if anything took time since it was asked."""
        is_blind = self._rules(action).repeat is Repeat.BLIND
        if is_blind and before_blind is not None:
            await before_blind()
        if has_waited or is_blind:
            held = await self._held(action, whose, lease_until_ms)
            if held is not None:
                return held
        return await self._send(action, whose, provider, lease_until_ms, was_absent=was_absent)

    async def _heeded(self, action: Action, whose: Whose, sent: Tried | Held) -> Tried | Held:
        """A recipient who told the provider to stop has told us. Until that is stored the failure is none for good:
        after one that is, another channel might be tried.
        """
        if not isinstance(sent, Tried) or not isinstance(sent.result, Failure) or sent.result.code != OPTED_OUT_THERE:
            return sent
        if await self._opt_outs.store(action, whose.tenant, whose.request_id, whose.traceparent):
            return sent
        return replace(sent, result=replace(sent.result, is_retryable=True))

    async def _held(self, action: Action, whose: Whose, lease_until_ms: int, *, is_limited: bool = True) -> Held | None:
        verdict = await self.gate(action, whose, lease_until_ms, is_limited=is_limited)
        return None if isinstance(verdict, Send) else Held(verdict)

    async def _send(
        self, action: Action, whose: Whose, provider: Provider, lease_until_ms: int, *, was_absent: bool
    ) -> Tried | Held:
        result = await self._call(action, whose, provider.send)
        if isinstance(result, Failure) and result.wants_credential:
            return await self._send_with_new_credential(
                action, whose, provider, result, lease_until_ms, was_absent=was_absent
            )
        await self._note(action, result, whose)
        return Tried(result, was_sent=True, was_absent=was_absent)

    async def _send_with_new_credential(
        self,
        action: Action,
        whose: Whose,
        provider: Provider,
        refused: Failure,
        lease_until_ms: int,
        *,
        was_absent: bool,
    ) -> Tried | Held:
        """A refused credential may have been rotated: read it past the cache and try once more (architecture §7).

        That is another send, a whole call later: the gate is asked again. The refused one had no effect.
        """
        version = await self._refreshed(action, whose, provider)
        if not version:
            self._count_refused(action, whose)
            return Tried(refused, was_sent=True, was_absent=was_absent)
        held = await self._held(action, whose, lease_until_ms)
        if held is not None:
            return held
        result = await self._call(action, whose, provider.send, is_last=True)
        await self._note(action, result, whose)
        return Tried(result, was_sent=True, was_absent=was_absent, credential_version=version)

    async def _ask(
        self,
        action: Action,
        whose: Whose,
        provider: Provider,
        ask: Callable[[Action, Call], Awaitable[_R]],
    ) -> tuple[_R | Failure, str]:
        """A read or lookup; once more with the credential read again if it was refused, whose version comes with it."""
        answer = await self._call(action, whose, ask)
        version = ""
        if isinstance(answer, Failure) and answer.wants_credential:
            version = await self._refreshed(action, whose, provider)
            if version:
                answer = await self._call(action, whose, ask, is_last=True)
            else:
                self._count_refused(action, whose)
        if isinstance(answer, Failure):
            await self._note(action, answer, whose)
        return answer, version

    async def _refreshed(self, action: Action, whose: Whose, provider: Provider) -> str:
        """The version of the credential, read past the cache; empty if it could not be read."""
        try:
            return await self._ports.io(provider.refresh_credential)
        except StorageUnavailable:
            self._ports.log.exception(
                "the credential was refused and could not be read again: the action waits for another",
                extra=_about(action, whose),
            )
            return ""

    async def _call(
        self,
        action: Action,
        whose: Whose,
        call: Callable[[Action, Call], Awaitable[_R]],
        *,
        is_last: bool = False,
    ) -> _R | Failure:
        """One provider call, counted. A refused credential counts once no newer one is left to try (`is_last`): one
        that was just rotated is refused in every environment that still has the old one.
        """
        result = await self._called(action, whose, call)
        outcome = outcome_of(result)
        probe = self._probing.get(action.action_id)
        if probe is not None:
            probe.found = outcome
        if outcome is not CallOutcome.AUTH or is_last:
            self.tally.note(action.integration, whose.tenant, outcome)
        return result

    def _count_refused(self, action: Action, whose: Whose) -> None:
        """The credential was refused, and there is no other."""
        self.tally.note(action.integration, whose.tenant, CallOutcome.AUTH)

    async def _called(
        self, action: Action, whose: Whose, call: Callable[[Action, Call], Awaitable[_R]]
    ) -> _R | Failure:
        """One provider call under a wall-clock deadline. Cancelling it closes its socket: nothing is left behind."""
        seconds = min(self._integration(action).deadline_seconds, self._budget.left_ms() / 1000)
        if seconds <= 0:
            return failure_of_network(NetworkCause.NOT_STARTED, "no time was left to start the call")
        whose.lease.use(action.integration)
        person = self._people.get(action.action_id, Person())
        channel = self._integration(action).channel
        about = Call(
            whose.request_id,
            whose.traceparent,
            self._ports.clock.now_ms() + int(seconds * 1000),
            tenant=whose.tenant,
            contact=person.contacts.get(channel, ""),
            contact_since_ms=person.contact_since_ms.get(channel, 0),
            decided_at_ms=whose.decided_at_ms,
        )
        try:
            async with asyncio.timeout(seconds):
                return await call(action, about)
        except TimeoutError:
            return failure_of_network(NetworkCause.DEADLINE, f"no complete answer within {seconds:.1f} s")
        except Exception:  # a defect of one adapter must not take the batch's other events with it
            self._ports.log.exception(
                "the adapter raised: the outcome counts as unknown",
                extra=_about(action, whose),
            )
            return Failure(
                FailureClass.TRANSIENT,
                ADAPTER_DEFECT,
                "the adapter raised",
                is_retryable=True,
                may_have_happened=True,
            )

    async def _note_found(self, action: Action, found: Result, whose: Whose) -> None:
        """Without a send, what was decided is so: it counts as an effect, else effects would seem to be missing."""
        if isinstance(found, Done):
            self._ports.meter.count("actions_already_done", integration=action.integration)
            await self._count_found(action, found, whose)

    async def _count_found(self, action: Action, done: Done, whose: Whose) -> None:
        await self.doubles.found(action, done, whose.recovery_id, whose.tenant, whose.request_id, whose.traceparent)

    async def _note(self, action: Action, result: Done | Failure, whose: Whose) -> None:
        """Count the call, and let a provider's pause hold the whole fleet."""
        ports = self._ports
        if isinstance(result, Done):
            ports.meter.count("actions_success", integration=action.integration)
            if action.customer_visible:
                ports.meter.count("auto_reply_sent", integration=action.integration)
                if whose.is_row:
                    ports.meter.count("auto_reply_released", integration=action.integration)
            await self._count_found(action, result, whose)
            return
        ports.meter.count("actions_failed", integration=action.integration, reason=result.code)
        if result.failure_class is not FailureClass.RATE_LIMITED:
            return
        ports.meter.count("rate_limited", integration=action.integration)
        if result.retry_after_ms is not None:
            await self.pause(action.integration, result.retry_after_ms)

    async def pause(self, integration: str, wait_ms: int) -> None:
        """Hold the whole fleet's calls to an integration for so long, and let them follow at the rate then."""
        ports = self._ports
        now_ms = ports.clock.now_ms()
        until_ms = now_ms + wait_ms
        known = ports.integrations.get(integration)
        tat_ms = after_pause(known.rate if known else None, until_ms, self._scale)
        seen = self._states.get(integration, IntegrationState(integration))
        self._states[integration] = replace(
            seen, paused_until_ms=max(seen.paused_until_ms, until_ms), tat_ms=paused(seen.tat_ms, tat_ms, now_ms)
        )
        try:
            await ports.io(ports.ledger.pause, integration, until_ms, tat_ms)
        except StorageUnavailable:
            ports.log.exception(
                "the provider's pause holds this batch only: it could not be stored",
                extra={"integration": integration, "duration_ms": wait_ms},
            )

    async def _person(self, action: Action, whose: Whose) -> Person:
        try:
            return await self._ports.io(self._ports.recipients.person, whose.tenant, action.recipient)
        except StorageUnavailable:
            self._ports.log.exception(
                "the recipient's standing could not be read: the send waits",
                extra=_about(action, whose) | {"reason": "recipient_unknown"},
            )
            return Person(is_readable=False)

    def _integration(self, action: Action) -> Integration:
        return self._ports.integrations[action.integration]

    def _rules(self, action: Action) -> KindRules:
        return self._ports.integrations[action.integration].kinds[action.kind]


def _about(action: Action, whose: Whose) -> dict[str, object]:
    return {
        "tenant": whose.tenant,
        "source": whose.source,
        "flow": whose.flow,
        "integration": action.integration,
        "action": action.name,
        "kind": action.kind,
        "action_id": action.action_id,
        "request_id": whose.request_id,
        "traceparent": whose.traceparent,
    }


def _has_no_effect(sent: Tried | Held) -> bool:
    """Whether it is sure that this send did nothing."""
    return isinstance(sent, Held) or (isinstance(sent.result, Failure) and not sent.result.may_have_happened)


def _settled(state: SettingState | Failure, wanted: str, whose: Whose) -> Result | None:
    """What reading the target says of setting it: done, out of date, a failure; None if it is still to be set."""
    if isinstance(state, Failure):
        return state
    if state.value == wanted:
        return Done()
    if state.changed_at_ms is not None and state.changed_at_ms > whose.decided_at_ms:
        return Superseded(f"set to another value {state.changed_at_ms - whose.decided_at_ms} ms after the decision")
    return None
