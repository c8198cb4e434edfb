"""The limiter under every order of requests, pauses, factors and waits, by callers who know only what the ledger told
them: no window of time holds more calls than rate and burst, none falls into a provider's pause, and the number keeps
to its table (002.20, 002.21, 002.25, 003.17).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from functions.core.gate import IntegrationState
from functions.core.integration import Rate
from functions.core.limiter import (
    GRACE_MS,
    HORIZON_MS,
    LIMITER,
    Full,
    Limit,
    Load,
    Taken,
    after_pause,
    holds,
    load_of,
    paused,
    resumes_at_ms,
)
from tests.fakes import NOON_MS, FakeLedger, FakeTables
from tests.rates import most_over
from tests.unit.builders import HOUR, MINUTE, SECOND

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

DESK = "desk"
RATES = [Rate(10, 5), Rate(1, 20), Rate(3, 1), Rate(0.5, 3)]
LINES = {(step.state, step.event, step.next) for step in LIMITER.steps}


@dataclass(frozen=True, order=True)
class Waiting:
    """A call that waits for its slot, as its owner remembers it; `asked` counts how often a slot was asked for it."""

    slot_ms: int
    number: int
    asked: int = 1


class Calls(RuleBasedStateMachine):
    """One integration, its control item in the ledger, and whoever calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = FakeTables()
        self.ledger = FakeLedger(self.tables)
        self.now_ms = NOON_MS
        self.waiting: list[Waiting] = []
        self.calls: list[int] = []
        self.numbers = 0
        self.pauses: list[tuple[int, int]] = []  # from when, until when
        self.seen_tat_ms = 0

    @initialize(rate=st.sampled_from(RATES))
    def begin(self, rate: Rate) -> None:
        self.rate = rate
        self.limit = Limit.of(rate)

    @property
    def state(self) -> IntegrationState:
        return self.ledger.read([], [DESK]).integrations[DESK]

    @property
    def load(self) -> Load:
        return load_of(self.state.tat_ms, self.now_ms)

    def moved(self, before: Load, event: str) -> None:
        assert (before.value, event, self.load.value) in LINES

    # --------------------------------------------------------------------------------------------------------- asking

    def ask(self, calls: int, limit: Limit, until_ms: int, seen_tat_ms: int) -> tuple[int, ...] | None:
        """Slots for all of them, or None: refused."""
        before, at_first = self.load, self.state
        answer = self.ledger.take(DESK, calls * limit.cost_ms, self.now_ms, until_ms, seen_tat_ms)
        if isinstance(answer, Full):
            assert self.state == at_first, "what is refused moves nothing"
            assert answer.tat_ms == at_first.tat_ms
            self.moved(before, "refused")
            return None
        assert isinstance(answer, Taken)
        assert answer.base_ms == max(at_first.tat_ms, self.now_ms)
        self.moved(before, "taken")
        return limit.slots(answer.base_ms, calls)

    @rule(calls=st.integers(1, 12), factor=st.sampled_from([1.0, 1.0, 0.5, 0.1, 0.00001]), is_stale=st.booleans())
    def calls_are_asked_for(self, calls: int, factor: float, is_stale: bool) -> None:
        """A batch reserves its calls, by whatever it has read of the number."""
        seen_tat_ms = self.seen_tat_ms if is_stale else self.state.tat_ms
        slots = self.ask(calls, Limit.of(self.rate, factor), self.now_ms + HORIZON_MS, seen_tat_ms)
        if slots is None:
            assert self.load is Load.FULL
            return
        pause_ends_ms = self.state.paused_until_ms
        if pause_ends_ms > self.now_ms:
            assert slots[0] >= pause_ends_ms, "a slot that is given in a pause lies behind it"
        for slot_ms in slots:
            self.numbers += 1
            self.waiting.append(Waiting(slot_ms, self.numbers))
        self.due()

    @rule(most=st.integers(0, 6), factor=st.sampled_from([1.0, 0.5]), is_stale=st.booleans())
    def calls_are_made_now_or_not_at_all(self, most: int, factor: float, is_stale: bool) -> None:
        """As the LLM is asked: nothing is reserved for later, whatever was read of the number. 0: one more than fit."""
        limit = Limit.of(self.rate, factor)
        seen_tat_ms = self.seen_tat_ms if is_stale else self.state.tat_ms
        fitting = limit.fitting(self.state.tat_ms, self.now_ms)
        calls = min(most or fitting + 1, limit.fitting(seen_tat_ms, self.now_ms))
        if not calls:
            return
        slots = self.ask(calls, limit, limit.latest_for(calls, self.now_ms), seen_tat_ms)
        assert (slots is not None) is (calls <= fitting)
        if slots is not None:
            assert slots[-1] <= self.now_ms
            self.calls += [self.now_ms] * calls

    @rule()
    def somebody_reads_the_number(self) -> None:
        self.seen_tat_ms = self.state.tat_ms

    # ----------------------------------------------------------------------------------------------------------- time

    def due(self) -> None:
        """Whoever's slot has come calls, if it still holds."""
        for call in sorted(one for one in self.waiting if one.slot_ms <= self.now_ms):
            self.waiting.remove(call)
            if holds(call.slot_ms, self.state, self.limit, self.now_ms, 1.0, is_paced=False):
                self.calls.append(self.now_ms)

    @rule(milliseconds=st.sampled_from([1, 90, SECOND, 10 * SECOND, MINUTE, 20 * MINUTE, HOUR, 400 * HOUR]))
    def time_passes(self, milliseconds: int) -> None:
        """From slot to slot, so that every call is made at its own."""
        until_ms = self.now_ms + milliseconds
        while True:
            before, nearest = self.load, min(self.waiting, default=None)
            self.now_ms = until_ms if nearest is None else min(until_ms, max(self.now_ms, nearest.slot_ms))
            if self.load is not before:
                self.moved(before, "time passes")
            self.due()
            if self.now_ms == until_ms:
                return

    @precondition(lambda self: bool(self.waiting))
    @rule(lateness=st.sampled_from([GRACE_MS + 1, HOUR]))
    def somebody_comes_much_too_late(self, lateness: int) -> None:
        """Its slot has been made up for by others: it is void, and asked for again."""
        late = self.waiting.pop(0)
        now_ms = max(self.now_ms, late.slot_ms) + lateness
        assert not holds(late.slot_ms, self.state, self.limit, now_ms, 1.0, is_paced=False)

    # --------------------------------------------------------------------------------------------------------- pauses

    @precondition(lambda self: self.load is not Load.FULL or len(self.pauses) < 2)  # else most runs only wait
    @rule(wait_ms=st.sampled_from([SECOND, SECOND, 30 * SECOND, 10 * MINUTE, HOUR, 6 * HOUR]))
    def the_provider_asks_for_a_pause(self, wait_ms: int) -> None:
        before, load = self.state, self.load
        until_ms = self.now_ms + wait_ms
        tat_ms = after_pause(self.rate, until_ms)
        self.ledger.pause(DESK, until_ms, tat_ms)
        self.moved(load, "paused")
        assert self.state.tat_ms == paused(before.tat_ms, tat_ms, self.now_ms), "the ledger does what core reckons with"
        assert resumes_at_ms(self.state, self.rate, self.now_ms) >= self.state.paused_until_ms
        for call in self.waiting:
            if call.slot_ms < until_ms:
                assert not holds(call.slot_ms, self.state, self.limit, self.now_ms, 1.0, is_paced=False)
        self.pauses.append((self.now_ms, until_ms))

    @rule(ago_ms=st.sampled_from([1, MINUTE]))
    def a_pause_is_stored_when_it_is_over(self, ago_ms: int) -> None:
        before, load = self.state, self.load
        self.ledger.pause(DESK, self.now_ms - ago_ms, self.now_ms - ago_ms)
        self.moved(load, "paused")
        assert self.state.tat_ms == max(before.tat_ms, self.now_ms - ago_ms)

    # ----------------------------------------------------------------------------------------------------- what holds

    @invariant()
    def no_window_holds_more_than_rate_and_burst_002_25(self) -> None:
        if self.calls:
            assert most_over(self.calls, self.rate) <= 0

    @invariant()
    def nothing_is_called_in_a_pause_003_17(self) -> None:
        for from_ms, until_ms in self.pauses:
            assert not [at_ms for at_ms in self.calls if from_ms < at_ms < until_ms]

    @invariant()
    def after_a_pause_there_is_no_burst_003_17(self) -> None:
        """Until the credit is there again, calls follow one by one."""
        one_by_one = replace(self.rate, burst=1)
        for _, until_ms in self.pauses:
            after = [at_ms for at_ms in self.calls if until_ms <= at_ms <= until_ms + self.limit.credit_ms]
            if after:
                assert most_over(after, one_by_one) <= 0

    @invariant()
    def the_number_never_moves_back_and_nobody_waits_beyond_what_is_taken(self) -> None:
        state = self.state
        assert state.tat_ms >= self.seen_tat_ms
        assert all(call.slot_ms <= state.tat_ms for call in self.waiting)

    def teardown(self) -> None:
        """Left alone, it is idle again, and a whole burst may be made at once."""
        if not hasattr(self, "rate"):
            return
        self.now_ms = max(self.now_ms, self.state.tat_ms)
        assert self.load is Load.IDLE
        slots = self.ask(self.rate.burst, self.limit, self.now_ms + HORIZON_MS, 0)
        assert slots is not None
        assert slots[-1] <= self.now_ms


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=150, stateful_step_count=30)
