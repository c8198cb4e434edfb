"""The limiter's calls for the events or rows of one invocation, asked for together (architecture §8).

Each event, or row, says what it is about to call and waits for its slots. Whoever is first waits until all the others
of the batch have said theirs, or are done with, but not longer than `WINDOW_SECONDS`: one slow answer of the LLM does
not hold up the rest. Then one write per integration takes the calls of them all. For those that are still on their way
it takes what they will most likely want; what they leave of that is lost, which is less than another write each.

Where the control table does not answer, each environment goes by its own share of the rate: calls go on, slowly, and
all environments together stay below the rate.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from functions.core.failure import StorageUnavailable
from functions.core.gate import IntegrationState
from functions.core.integration import Integration, Rate
from functions.core.limiter import (
    ASTRAY_FOR_MS,
    AT_ONCE,
    HORIZON_MS,
    Full,
    Limit,
    Slot,
    Taken,
    holds,
    is_astray,
    put_right,
    resumes_at_ms,
    take,
    tat_after,
)
from functions.worker.ports import Ports

WINDOW_SECONDS: Final = 0.1
ENVIRONMENTS: Final = 16  # at least as many as may run at once; tests/infra/test_stack.py compares
ASK_AGAIN_MS: Final = 30_000  # where only a share of the rate is known to be free


@dataclass(frozen=True, slots=True)
class Demand:
    """Calls of one integration. `factor`, over 0, is that of its switch for whoever makes them."""

    integration: str
    calls: int
    factor: float = 1.0


@dataclass(slots=True)
class Lease:
    """What one event or row may call: a slot for each call of a limited integration, earliest first."""

    slots: dict[str, deque[Slot]] = field(default_factory=dict)

    def add(self, integration: str, slots: Iterable[Slot]) -> None:
        """Hold these too."""
        self.slots.setdefault(integration, deque()).extend(slots)

    def use(self, integration: str) -> None:
        """A call is made: its slot is gone."""
        held = self.slots.get(integration)
        if held:
            held.popleft()

    def set_aside(self, integration: str, calls: int, now_ms: int) -> int:
        """Take the slots of so many calls out, for a row to keep; gives the last one's time, 0 if they are worth
        nothing: too few, or such as would be late by the time anything becomes of the row.
        """
        held = self.slots.get(integration, deque())
        taken = [held.popleft() for _ in range(min(calls, len(held)))]
        is_whole = bool(taken) and len(taken) == calls and taken[-1].is_owned
        return taken[-1].at_ms if is_whole and taken[-1].at_ms > now_ms else 0

    def next(self, integration: str) -> Slot | None:
        """The one that the next call takes; None if there is none."""
        held = self.slots.get(integration)
        return held[0] if held else None

    def ready(self) -> Slot:
        """From when on all of it may be used; owned if every part of it is."""
        held = [slot for several in self.slots.values() for slot in several]
        return Slot(max((slot.at_ms for slot in held), default=0), all(slot.is_owned for slot in held))

    def kept(self) -> dict[str, int]:
        """For each integration, from when on all of its calls may be made: what to store for the next owner."""
        latest = {name: held[-1] for name, held in self.slots.items() if held}
        return {name: slot.at_ms for name, slot in latest.items() if slot.is_owned and slot.at_ms}


@dataclass(slots=True)
class _Round:
    """Those that ask together. `everybody` is set when nobody is left to wait for."""

    everybody: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[tuple[Sequence[Demand], Lease]] = field(default_factory=list)
    answered: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(slots=True)
class _Moment:
    """Those that ask in the same moment for what may be called right now: how many, and how many may."""

    calls: int = 0
    granted: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Leases:
    """One invocation's. `states` are the control items of the batch; `shares` outlives the invocation."""

    def __init__(
        self, ports: Ports, time_scale: float, states: MutableMapping[str, IntegrationState], shares: dict[str, int]
    ) -> None:
        self._ports = ports
        self._scale = time_scale
        self._states = states
        self._shares = shares
        self._awaited: set[str] = set()
        self._round: _Round | None = None
        self._asking: asyncio.Future[None] | None = None  # the round that is asking now, if one is
        self._spare: dict[tuple[str, int], deque[Slot]] = {}
        self._moments: dict[tuple[str, float], _Moment] = {}

    def limit(self, integration: str, factor: float = 1.0) -> Limit | None:
        """The integration's limit at that factor; None if it has none."""
        rate = self._rate(integration)
        return None if rate is None else Limit.of(rate, factor, self._scale)

    def is_burst(self, demands: Sequence[Demand]) -> bool:
        """Whether calls that wait together may be made together, when they have all their slots: no more than a burst
        for any integration.
        """
        limits = [(demand.calls, self.limit(demand.integration, demand.factor)) for demand in demands if demand.calls]
        return all(limit is None or calls <= limit.fitting(0, 0) for calls, limit in limits)

    def wait_ms(self, integration: str) -> int:
        """How long whoever asks now will most likely wait, by what was seen last."""
        now_ms = self._ports.clock.now_ms()
        return resumes_at_ms(self._state(integration), self._rate(integration), now_ms, self._scale) - now_ms

    def expect(self, keys: Iterable[str]) -> None:
        """These will ask soon, or leave."""
        self._awaited.update(keys)

    def leave(self, key: str) -> None:
        """That one will not ask any more. Once is enough, more does no harm."""
        self._awaited.discard(key)
        if self._round is not None and not self._awaited:
            self._round.everybody.set()

    async def take(
        self, key: str, demands: Sequence[Demand], kept: Mapping[str, int] | None = None, *, is_paced: bool = False
    ) -> Lease:
        """A slot for each call of a limited integration, asked for together with the others'. Never raises for want of
        the control table.

        What is `kept` from an earlier pass, by integration, is not asked for again while it holds; `is_paced` as there.
        """
        lease = Lease()
        wanted = [
            demand
            for demand in demands
            if demand.calls
            and self._rate(demand.integration) is not None
            and not self._from_kept(demand, lease, kept or {}, is_paced=is_paced)
        ]
        while wanted and self._asking is not None:  # for this one too: it was still awaited when that began
            self.leave(key)
            await asyncio.shield(self._asking)
        wanted = [demand for demand in wanted if not self._from_spare(demand, lease)]
        if not wanted:
            self.leave(key)
            return lease
        current = self._round
        if current is None:
            self._round = current = _Round()
            current.asked.append((wanted, lease))
            self.leave(key)
            await self._lead(current)
        else:
            current.asked.append((wanted, lease))
            self.leave(key)
            await asyncio.shield(current.answered)
        return lease

    async def another(self, lease: Lease, demand: Demand) -> None:
        """One more call that nobody reckoned with (a second try with a new credential, say): asked for by itself."""
        if self._rate(demand.integration) is not None and not self._from_spare(demand, lease):
            await self._fill([([demand], lease)])

    async def may_call(self, integration: str, factor: float) -> bool:
        """Whether one call may be made right now, by somebody who will not wait: nothing is reserved for later.

        All that ask in the same turn of the event loop share one request.
        """
        limit = self.limit(integration, factor)
        if limit is None:
            return True
        moment = self._moments.get((integration, factor))
        if moment is not None:
            place = moment.calls
            moment.calls += 1
            return place < await asyncio.shield(moment.granted)
        self._moments[integration, factor] = moment = _Moment(calls=1)
        try:
            await asyncio.sleep(0)  # whoever is ready to ask does so before this goes on
            del self._moments[integration, factor]
            granted = await self._taken_now(integration, limit, moment.calls)
        except BaseException as exc:
            _fail(moment.granted, exc)
            raise
        moment.granted.set_result(granted)
        return granted > 0

    # --------------------------------------------------------------------------------------------------------- rounds

    async def _lead(self, current: _Round) -> None:
        """Wait for the others, ask for all, and tell them, whatever comes of it."""
        try:
            try:
                async with asyncio.timeout(WINDOW_SECONDS):
                    await current.everybody.wait()
            except TimeoutError:
                pass  # they ask in a round of their own, or find their calls among the spare ones
            self._round, self._asking = None, current.answered
            await self._fill(current.asked, absent=len(self._awaited))
        except BaseException as exc:
            self._round = self._asking = None
            _fail(current.answered, exc)
            raise
        self._asking = None
        current.answered.set_result(None)

    async def _fill(self, asked: Sequence[tuple[Sequence[Demand], Lease]], absent: int = 0) -> None:
        """Slots for everybody, with one request for each integration and factor, all at once."""
        parts: dict[tuple[str, float], list[tuple[int, Lease]]] = {}
        for demands, lease in asked:
            for demand in demands:
                parts.setdefault((demand.integration, demand.factor), []).append((demand.calls, lease))
        outcomes = await asyncio.gather(
            *(self._part(name, factor, part, absent, len(asked)) for (name, factor), part in parts.items()),
            return_exceptions=True,  # all have ended before any of them is told: nothing goes on by itself
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _part(
        self, integration: str, factor: float, part: Sequence[tuple[int, Lease]], absent: int, present: int
    ) -> None:
        limit = self.limit(integration, factor)
        if limit is None:
            raise AssertionError(f"{integration} has no rate, and calls of it were asked for")
        wanted = sum(calls for calls, _ in part)
        slots = deque(await self._slots(integration, limit, wanted + -(-wanted * absent // present)))
        waiting = 0
        now_ms = self._ports.clock.now_ms()
        for calls, lease in part:
            given = [slots.popleft() for _ in range(calls)]
            lease.add(integration, given)
            waiting += sum(slot.at_ms > now_ms for slot in given)
        self._spare.setdefault((integration, limit.cost_ms), deque()).extend(slots)
        if waiting:
            self._ports.meter.count("calls_limited", waiting, integration=integration)

    def _from_kept(self, demand: Demand, lease: Lease, kept: Mapping[str, int], *, is_paced: bool) -> bool:
        limit, slot_ms = self.limit(demand.integration, demand.factor), kept.get(demand.integration, 0)
        state, now_ms = self._state(demand.integration), self._ports.clock.now_ms()
        if not slot_ms or limit is None or not holds(slot_ms, state, limit, now_ms, self._scale, is_paced=is_paced):
            return False
        lease.add(demand.integration, [Slot(slot_ms)] * demand.calls)
        return True

    def _from_spare(self, demand: Demand, lease: Lease) -> bool:
        limit = self.limit(demand.integration, demand.factor)
        spare = self._spare.get((demand.integration, limit.cost_ms)) if limit else None
        if spare is None or len(spare) < demand.calls:
            return False
        lease.add(demand.integration, [spare.popleft() for _ in range(demand.calls)])
        return True

    # ---------------------------------------------------------------------------------------------------------- asking

    async def _slots(self, integration: str, limit: Limit, calls: int) -> list[Slot]:
        """Slots are given for an hour ahead at the full rate, and for as much less as a factor leaves of it: what was
        reserved at a factor near 0 must not keep everybody waiting when the operator has lifted it.
        """
        now_ms = self._ports.clock.now_ms()
        full = self.limit(integration) or limit
        horizon_ms = HORIZON_MS * full.cost_ms // limit.cost_ms
        taken = min(calls, max(1, horizon_ms // limit.cost_ms))
        try:
            answer = await self._take(integration, limit, taken, now_ms, now_ms + horizon_ms)
        except StorageUnavailable:
            granted = self._share(integration, limit, calls, now_ms)
            return [AT_ONCE] * granted + [Slot(now_ms + ASK_AGAIN_MS, is_owned=False)] * (calls - granted)
        match answer:
            case Taken(base_ms):
                own = [Slot(at_ms) for at_ms in limit.slots(base_ms, taken)]
                tat_ms = base_ms + taken * limit.cost_ms
            case Full(tat_ms):
                own = []
        # All who are refused see the same number: drawn apart, they do not come back as one.
        again_ms = max(tat_ms - horizon_ms, now_ms) + int(self._ports.rng.uniform(0, HORIZON_MS / 10))
        if is_astray(self._state(integration), limit, now_ms):  # nothing is known by it but that it will be put right
            again_ms = now_ms + int(self._ports.rng.uniform(ASTRAY_FOR_MS, 2 * ASTRAY_FOR_MS))
        return own + [Slot(again_ms, is_owned=False)] * (calls - len(own))

    async def _taken_now(self, integration: str, limit: Limit, calls: int) -> int:
        """How many of so many calls may be made right now. `tat` only grows: what was read bounds it from below."""
        await self._put_right(integration, limit)
        state = self._state(integration)
        tat_ms = state.tat_ms
        for _ in range(2):
            now_ms = self._ports.clock.now_ms()
            calls = 0 if state.paused_until_ms > now_ms else min(calls, limit.fitting(tat_ms, now_ms))
            if not calls:
                return 0
            try:
                answer = await self._take(integration, limit, calls, now_ms, limit.latest_for(calls, now_ms))
            except StorageUnavailable:
                return self._share(integration, limit, calls, now_ms)
            if isinstance(answer, Taken):
                return calls
            tat_ms = answer.tat_ms
        return 0

    async def _take(self, integration: str, limit: Limit, calls: int, now_ms: int, until_ms: int) -> Taken | Full:
        """So many calls at that limit. Raises `StorageUnavailable`, which was logged and counted."""
        cost_ms = calls * limit.cost_ms
        answer = await self._asked(integration, cost_ms, now_ms, until_ms)
        if isinstance(answer, Full) and await self._put_right(integration, limit):
            answer = await self._asked(integration, cost_ms, now_ms, until_ms)
        return answer

    async def _put_right(self, integration: str, limit: Limit) -> bool:
        """Whether `tat` was hours beyond all that could be reserved, and is not any more: who waits for it asks again.

        Never raises: where the control table does not do its part, asking it says so.
        """
        state, now_ms = self._state(integration), self._ports.clock.now_ms()
        if not is_astray(state, limit, now_ms):
            return False
        self._ports.meter.count("limits_astray", integration=integration)
        to_ms, ledger = put_right(state, limit, now_ms), self._ports.ledger
        try:
            tat_ms = await self._ports.io(
                ledger.put_right, integration, state.tat_ms, to_ms, now_ms, state.paused_until_ms
            )
        except StorageUnavailable:
            self._ports.log.exception("the limiter's number could not be put right", extra={"integration": integration})
            return False
        self._states[integration] = replace(self._state(integration), tat_ms=tat_ms, busy_from_ms=now_ms)
        if tat_ms == to_ms:
            self._ports.meter.count("limits_put_right", integration=integration)
            self._ports.log.warning(
                "the limiter's number was hours beyond all that could be reserved, and was put right: the clock of a "
                "worker was wrong",
                extra={"integration": integration, "duration_ms": state.tat_ms - now_ms},
            )
        return tat_ms < state.tat_ms

    async def _asked(self, integration: str, cost_ms: int, now_ms: int, until_ms: int) -> Taken | Full:
        state = self._state(integration)
        ledger = self._ports.ledger
        try:
            answer = await self._ports.io(ledger.take, integration, cost_ms, now_ms, until_ms, state.tat_ms)
        except StorageUnavailable:
            self._ports.meter.count("limiter_unavailable", integration=integration)
            self._ports.log.exception(
                "the limiter could not be asked: this environment goes by its own share of the rate",
                extra={"integration": integration},
            )
            raise
        tat_ms = tat_after(answer, cost_ms, now_ms)
        seen = self._state(integration)
        busy_from_ms = now_ms if answer == Taken(now_ms) else seen.busy_from_ms
        self._states[integration] = replace(seen, tat_ms=max(seen.tat_ms, tat_ms), busy_from_ms=busy_from_ms)
        return answer

    def _share(self, integration: str, limit: Limit, calls: int, now_ms: int) -> int:
        """How many of the calls this environment makes by itself, of its part of the rate."""
        own = Limit(limit.cost_ms * ENVIRONMENTS, limit.credit_ms)
        # No further ahead than what was granted can have brought it, whatever the clock was then.
        tat_ms = min(self._shares.get(integration, 0), now_ms + own.credit_ms + own.cost_ms)
        self._shares[integration] = tat_ms
        granted = min(calls, own.fitting(tat_ms, now_ms))
        if granted:
            self._shares[integration], _ = take(tat_ms, granted * own.cost_ms, now_ms, own.latest_for(granted, now_ms))
        return granted

    def _state(self, integration: str) -> IntegrationState:
        return self._states.get(integration) or IntegrationState(integration)

    def _rate(self, integration: str) -> Rate | None:
        known: Mapping[str, Integration] = self._ports.integrations
        return known[integration].rate if integration in known else None


def _fail(shared: asyncio.Future[Any], exc: BaseException) -> None:
    """Let all that wait for it meet the same failure; that nobody does is none."""
    shared.set_exception(exc)
    shared.exception()
