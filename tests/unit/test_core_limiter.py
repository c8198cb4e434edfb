"""How often an integration is called, as pure arithmetic: whatever is asked for and whenever, no window of time holds
more than the rate and its burst (002.20, 002.25, 003.17).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.core.failure import IllegalTransition
from functions.core.gate import IntegrationState
from functions.core.integration import Rate
from functions.core.limiter import (
    FURTHEST_MS,
    GRACE_MS,
    HORIZON_MS,
    LIMITER,
    LONGEST_COST_MS,
    PACED_GRACE_MS,
    SHORTEST_GRACE_MS,
    VISIBLE_WAIT_MS,
    Full,
    Limit,
    Load,
    Taken,
    after_pause,
    holds,
    is_astray,
    load_of,
    paced,
    paused,
    put_right,
    resumes_at_ms,
    take,
    tat_after,
)
from tests.rates import most_over
from tests.unit.builders import NOON_MS, SECOND

SCHEDULES = 100_000
RATE = Rate(10, 5)
LIMIT = Limit.of(RATE)


@dataclass
class Fleet:
    """Whoever calls one integration, with its one number. `calls` are the moments at which something was called."""

    rate: Rate
    scale: float = 1.0
    now_ms: int = NOON_MS
    tat_ms: int = 0
    calls: list[int] = field(default_factory=list)

    def ask(self, calls: int, factor: float = 1.0) -> tuple[int, ...]:
        """Ask for so many; gives the slots, at which all of them are called."""
        limit = Limit.of(self.rate, factor, self.scale)
        self.tat_ms, answer = take(self.tat_ms, calls * limit.cost_ms, self.now_ms, self.now_ms + HORIZON_MS)
        if isinstance(answer, Full):
            return ()
        slots = limit.slots(answer.base_ms, calls)
        self.calls += [max(slot, self.now_ms) for slot in slots]
        return slots

    def most_over(self) -> Fraction:
        """By how many calls the fullest window exceeds burst and rate."""
        return most_over(self.calls, self.rate)


def schedule(seed: int) -> Fleet:
    """One random course of things: batches of all sizes, silences, factors that change."""
    draw = random.Random(seed)  # the same course for the same seed
    fleet = Fleet(Rate(draw.choice((0.5, 1.0, 1.25, 3.0, 7.0, 50.0, 400.0)), draw.randint(1, 12)))
    between_ms = draw.choice((1, 50, 400, 3_000))
    factor = 1.0
    for _ in range(draw.randint(2, 7)):
        fleet.now_ms += draw.randrange(2 * between_ms)
        if draw.random() < 0.2:
            factor = draw.choice((1.0, 0.5, 0.1))
        fleet.ask(draw.randint(1, 6), factor)
    return fleet


@pytest.mark.no_cover  # thrice as long when each line is counted, and others cover these lines
def test_no_window_holds_more_than_rate_and_burst_over_a_hundred_thousand_schedules(
    proved: Callable[[str], None],
) -> None:
    """002.20, 002.25: never above; and not far below either, or a limiter that refuses everything would pass."""
    calls, full_windows = 0, 0
    for seed in range(SCHEDULES):
        fleet = schedule(seed)
        over = fleet.most_over()
        assert over <= 0, f"seed {seed}: {over} calls over the rate"
        calls += len(fleet.calls)
        full_windows += over > -1
    assert full_windows > SCHEDULES / 10
    proved(
        f"limiter: {SCHEDULES} random schedules, {calls} calls, 0 windows above rate and burst; "
        f"in {full_windows} schedules some window is full to the last call"
    )


def test_windows_are_judged_right() -> None:
    """The judge itself, against counting in every window."""
    for seed in range(300):
        draw = random.Random(seed)
        fleet = Fleet(Rate(draw.choice((0.5, 1.0, 7.0)), draw.randint(1, 4)))
        fleet.calls = sorted(NOON_MS + draw.randrange(5_000) for _ in range(draw.randint(1, 12)))
        per_ms = Fraction(fleet.rate.per_second) / 1000
        counted = max(
            sum(start <= at_ms <= end for at_ms in fleet.calls) - fleet.rate.burst - (end - start) * per_ms
            for start in fleet.calls
            for end in fleet.calls
            if end >= start
        )
        assert fleet.most_over() == counted


def test_a_burst_goes_at_once_and_the_rest_at_the_rate() -> None:
    slots = Fleet(RATE).ask(8)
    assert [slot <= NOON_MS for slot in slots] == [True] * 5 + [False] * 3
    assert slots[5:] == (NOON_MS + 100, NOON_MS + 200, NOON_MS + 300)


def test_whoever_is_refused_owns_a_slot_and_those_who_come_later_are_behind_it() -> None:
    fleet = Fleet(RATE)
    first, second = fleet.ask(7), fleet.ask(2)
    assert second == (first[-1] + 100, first[-1] + 200)


def test_the_whole_rate_is_used_while_anybody_waits() -> None:
    fleet = Fleet(RATE)
    for _ in range(20):
        fleet.ask(10)
    assert (max(fleet.calls) - NOON_MS) == (200 - 5) * 100


def test_a_rate_whose_interval_is_no_whole_number_of_milliseconds_is_not_exceeded_and_hardly_missed() -> None:
    fleet = Fleet(Rate(30, 1))
    for _ in range(100):
        fleet.ask(10)
    assert fleet.most_over() <= 0
    assert max(fleet.calls) - NOON_MS <= 1000 / 30 * 1000 * 1.03


# -------------------------------------------------------------------------------------------------------------- factor


def test_half_the_factor_is_half_the_rate_and_half_the_burst_for_whoever_asks_next_002_21() -> None:
    fleet = Fleet(RATE)
    slots = fleet.ask(8, 0.5)
    assert sum(slot <= NOON_MS for slot in slots) == 3
    assert slots[-1] - slots[-2] == 200
    assert Limit.of(RATE, 0.5) == Limit(2 * LIMIT.cost_ms, LIMIT.credit_ms)


@pytest.mark.no_cover  # thrice as long when each line is counted, and others cover these lines
def test_no_change_of_the_factor_lets_a_burst_through_beyond_the_new_rates() -> None:
    """002.21: what is called after the change is within the new rate and burst by itself, and with all else within the
    full ones.
    """
    for seed in range(5_000):
        draw = random.Random(seed)
        fleet = Fleet(Rate(draw.choice((1.0, 4.0, 10.0)), draw.randint(1, 12)))
        for _ in range(draw.randint(1, 6)):
            factor = draw.choice((1.0, 0.5, 0.25, 0.1))
            new = Fleet(Rate(fleet.rate.per_second * factor, fleet.rate.burst), calls=[])
            for _ in range(draw.randint(1, 4)):
                new.calls += [max(slot, fleet.now_ms) for slot in fleet.ask(draw.randint(1, 5), factor)]
                fleet.now_ms += draw.randrange(3_000)
            smaller = 1 + (fleet.rate.burst - 1) * Fraction(factor)
            assert new.most_over() <= smaller - fleet.rate.burst, f"seed {seed}"
        assert fleet.most_over() <= 0, f"seed {seed}"


@pytest.mark.parametrize("factor", [0, -1, float("nan")])
def test_a_factor_that_lets_nothing_through_is_no_rate(factor: float) -> None:
    with pytest.raises(ValueError, match="parks"):
        Limit.of(RATE, factor)


@pytest.mark.parametrize("factor", [1e-9, 1e-40, 1e-306, 5e-324])
def test_a_factor_of_almost_nothing_is_a_call_a_day_and_no_number_that_nothing_can_store(factor: float) -> None:
    assert Limit.of(RATE, factor).cost_ms == LONGEST_COST_MS


def test_where_waits_are_shortened_a_minutes_calls_go_in_a_second() -> None:
    local = Limit.of(Rate(1, 20), scale=1 / 60)
    assert local == Limit(17, 19_983)
    assert Limit.of(Rate(1, 20), scale=0.5) == Limit(500, 39 * 500)


# ------------------------------------------------------------------------------------------------------ right now only


@given(st.integers(0, 2_000), st.integers(1, 9), st.sampled_from([1.0, 0.5, 0.1]))
def test_what_fits_now_is_exactly_what_may_be_called_now(owed_ms: int, calls: int, factor: float) -> None:
    limit = Limit.of(RATE, factor)
    slots = limit.slots(NOON_MS + owed_ms, calls)
    assert (calls <= limit.fitting(NOON_MS + owed_ms, NOON_MS)) == (slots[-1] <= NOON_MS)
    assert (NOON_MS + owed_ms <= limit.latest_for(calls, NOON_MS)) == (slots[-1] <= NOON_MS)


def test_a_number_of_the_past_fits_a_whole_burst_and_no_more() -> None:
    assert LIMIT.fitting(0, NOON_MS) == LIMIT.fitting(NOON_MS, NOON_MS) == 5
    assert LIMIT.fitting(NOON_MS + 401, NOON_MS) == 0


# -------------------------------------------------------------------------------------------------------------- states


def steps(tat_ms: int) -> Iterator[tuple[str, int, int]]:
    """What can happen to the number: event, where it is then, and when."""
    for cost_ms in (Limit.of(RATE).cost_ms, 40 * Limit.of(RATE).cost_ms, 3 * Limit.of(RATE, 0.00001).cost_ms):
        for until_ms in (NOON_MS + HORIZON_MS, LIMIT.latest_for(1, NOON_MS)):
            after_ms, answer = take(tat_ms, cost_ms, NOON_MS, until_ms)
            yield "taken" if isinstance(answer, Taken) else "refused", after_ms, NOON_MS
    for wait_ms in (-10 * SECOND, 1_000, HORIZON_MS):
        yield "paused", paused(tat_ms, after_pause(RATE, NOON_MS + wait_ms), NOON_MS), NOON_MS
    for rate, pause_ms in ((RATE, 0), (Rate(10, 1), 0), (RATE, NOON_MS + 2 * HORIZON_MS)):
        state = IntegrationState("desk", tat_ms=tat_ms, paused_until_ms=pause_ms)
        if is_astray(state, Limit.of(rate), NOON_MS):
            yield "put right", put_right(state, Limit.of(rate), NOON_MS), NOON_MS
    for wait_ms in (HORIZON_MS // 2, 3 * HORIZON_MS):
        yield "time passes", tat_ms, NOON_MS + wait_ms


def test_the_table_of_transitions_is_what_happens() -> None:
    """Every transition that can be met is in the table, and every line of the table can be met."""
    met: set[tuple[str, str, str]] = set()
    for owed_ms in (-1, 0, 1, 5_000, HORIZON_MS - 50, HORIZON_MS, HORIZON_MS + 1, HORIZON_MS + 60_000, 5 * HORIZON_MS):
        tat_ms = NOON_MS + owed_ms
        before = load_of(tat_ms, NOON_MS)
        for event, after_ms, now_ms in steps(tat_ms):
            after = load_of(after_ms, now_ms)
            if not (event == "time passes" and after is before):
                met.add((before.value, event, after.value))
    assert met == {(step.state, step.event, step.next) for step in LIMITER.steps}
    assert set(LIMITER.states) == {load.value for load in Load}
    assert load_of(0, NOON_MS) is Load.IDLE


@pytest.mark.parametrize(
    ("answer", "cost_ms"),
    [
        (Taken(NOON_MS + HORIZON_MS + 1), 5),  # beyond an hour, where nothing is reserved
        (Full(NOON_MS), 5),  # refused, and nothing is owed
        (Taken(NOON_MS + 9), -9),  # calls that give time back
    ],
)
def test_an_answer_that_the_table_does_not_have_is_not_gone_by(answer: Taken | Full, cost_ms: int) -> None:
    with pytest.raises(IllegalTransition, match="limiter has no way"):
        tat_after(answer, cost_ms, NOON_MS)


def test_beyond_an_hour_nothing_is_reserved() -> None:
    assert take(NOON_MS + 9, 1, NOON_MS, NOON_MS + 8) == (NOON_MS + 9, Full(NOON_MS + 9))
    assert take(NOON_MS + 8, 1, NOON_MS, NOON_MS + 8) == (NOON_MS + 9, Taken(NOON_MS + 8))


# -------------------------------------------------------------------------------------------------- wrong clocks


def astray(ahead_ms: int, *, factor: float = 1.0, **fields: Any) -> bool:
    state = IntegrationState("desk", tat_ms=NOON_MS + ahead_ms, **fields)
    return is_astray(state, Limit.of(RATE, factor), NOON_MS)


def test_what_no_reservation_and_no_pause_explains_is_not_believed() -> None:
    """002.25: a worker's clock that was hours ahead keeps nobody waiting for hours."""
    cost_ms, credit_ms, pause_ms = LIMIT.cost_ms, LIMIT.credit_ms, 5 * HORIZON_MS
    assert not astray(FURTHEST_MS + cost_ms)
    assert astray(FURTHEST_MS + cost_ms + 1)
    assert not astray(pause_ms + credit_ms + cost_ms, paused_until_ms=NOON_MS + pause_ms)
    assert astray(pause_ms + credit_ms + cost_ms + 1, paused_until_ms=NOON_MS + pause_ms)
    assert not astray(20 * HORIZON_MS, factor=0.000001)  # one call a day was asked for, and a day is its cost
    assert astray(20 * HORIZON_MS)
    assert not is_astray(IntegrationState("desk"), LIMIT, NOON_MS)


def test_what_is_put_right_lets_what_waits_go_at_the_rate_and_makes_no_burst_twice() -> None:
    state = IntegrationState("desk", tat_ms=NOON_MS + 5 * HORIZON_MS)
    fleet = Fleet(RATE, tat_ms=put_right(state, LIMIT, NOON_MS))
    assert fleet.ask(3) == (NOON_MS, NOON_MS + 100, NOON_MS + 200)
    in_a_pause = replace(state, paused_until_ms=NOON_MS + 30 * SECOND)
    fleet = Fleet(RATE, tat_ms=put_right(in_a_pause, LIMIT, NOON_MS))
    assert fleet.ask(2) == (NOON_MS + 30 * SECOND, NOON_MS + 30 * SECOND + 100)
    assert resumes_at_ms(state, RATE, NOON_MS) == NOON_MS
    assert resumes_at_ms(in_a_pause, RATE, NOON_MS) == NOON_MS + 30 * SECOND


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_asked_for_by_clocks_that_are_right_is_believed(seed: int) -> None:
    """002.25: an hour that is taken, a factor near 0, factors that change, pauses of six hours."""
    draw = random.Random(seed)
    factors = draw.choice(((1.0,), (0.0001,), (1.0, 0.5, 0.01)))
    rate = Rate(draw.choice((0.5, 3.0, 400.0) if len(factors) > 1 else (0.001, 0.5, 400.0)), draw.choice((1, 3)))
    full, state, now_ms = Limit.of(rate), IntegrationState("desk"), NOON_MS
    for _ in range(500):
        now_ms += draw.choice((0, 1, 900, 60_000, HORIZON_MS // 3))
        limit = Limit.of(rate, draw.choice(factors))
        if draw.random() < 0.05:
            until_ms = now_ms + draw.choice((SECOND, 6 * HORIZON_MS))
            tat_ms = paused(state.tat_ms, after_pause(rate, until_ms), now_ms)
            state = replace(state, tat_ms=tat_ms, paused_until_ms=max(state.paused_until_ms, until_ms))
        horizon_ms = HORIZON_MS * full.cost_ms // limit.cost_ms
        calls = min(draw.choice((1, 7, 10**9)), max(1, horizon_ms // limit.cost_ms))
        tat_ms, _ = take(state.tat_ms, calls * limit.cost_ms, now_ms, now_ms + horizon_ms)
        state = replace(state, tat_ms=tat_ms)
        assert not is_astray(state, limit, now_ms)


# -------------------------------------------------------------------------------------------------------------- pauses


def test_after_a_pause_what_waits_follows_at_the_rate_without_a_burst_003_17() -> None:
    until_ms = NOON_MS + 30 * SECOND
    fleet = Fleet(RATE, tat_ms=after_pause(RATE, until_ms))
    assert fleet.ask(3) == (until_ms, until_ms + 100, until_ms + 200)
    assert after_pause(None, until_ms) == until_ms


def test_sending_resumes_at_the_first_slot_or_at_the_end_of_the_pause_003_18() -> None:
    def resumes(**fields: Any) -> int:
        return resumes_at_ms(IntegrationState("desk", **fields), RATE, NOON_MS) - NOON_MS

    assert resumes() == 0
    assert resumes(tat_ms=NOON_MS + 400) == 0
    assert resumes(tat_ms=NOON_MS + 401) == 1
    assert resumes(tat_ms=NOON_MS + 90_400) == 90_000
    assert resumes(paused_until_ms=NOON_MS + 5_000) == 5_000
    assert resumes(paused_until_ms=NOON_MS + 5_000, tat_ms=NOON_MS + 9_400) == 9_000
    assert resumes_at_ms(IntegrationState("desk", paused_until_ms=NOON_MS + 7), None, NOON_MS) == NOON_MS + 7


# --------------------------------------------------------------------------------------------------- slots given before


def kept(slot_ms: int, *, is_paced: bool = False, scale: float = 1.0, **fields: Any) -> bool:
    return holds(slot_ms, IntegrationState("desk", **fields), LIMIT, NOON_MS, scale, is_paced=is_paced)


def test_a_slot_holds_for_a_minute_so_that_an_outage_ends_without_a_herd() -> None:
    assert kept(NOON_MS + 5)
    assert kept(NOON_MS)
    assert kept(NOON_MS - GRACE_MS)
    assert not kept(NOON_MS - GRACE_MS - 1)
    assert kept(NOON_MS - SHORTEST_GRACE_MS, scale=0.01)
    assert not kept(NOON_MS - SHORTEST_GRACE_MS - 1, scale=0.01)


def test_a_slot_from_before_the_providers_pause_is_void_even_when_the_pause_is_over() -> None:
    assert not kept(NOON_MS - 2, paused_until_ms=NOON_MS - 1)
    assert kept(NOON_MS - 1, paused_until_ms=NOON_MS - 1)


def test_what_is_woken_at_the_rate_keeps_its_slot_while_many_wait_behind_it_and_nobody_made_up_for_it() -> None:
    assert kept(NOON_MS - PACED_GRACE_MS, is_paced=True)
    late_ms, long_ms = NOON_MS - PACED_GRACE_MS - 1, NOON_MS + LIMIT.credit_ms + VISIBLE_WAIT_MS + 1
    assert kept(late_ms, is_paced=True, tat_ms=long_ms, busy_from_ms=late_ms)
    assert not kept(late_ms, is_paced=True, tat_ms=long_ms, busy_from_ms=late_ms + 1)
    assert not kept(late_ms, is_paced=True, tat_ms=long_ms - 1, busy_from_ms=late_ms)
    assert not kept(late_ms, tat_ms=long_ms, busy_from_ms=late_ms)


def test_slots_that_are_used_late_add_no_more_than_their_lateness() -> None:
    """Whoever is at most `late` behind its slot: burst and rate hold for every window made longer by that."""
    late_ms = 2_000
    for seed in range(3_000):
        draw = random.Random(seed)
        fleet = schedule(seed)
        fleet.calls = [at_ms + draw.randrange(late_ms + 1) for at_ms in fleet.calls]
        assert fleet.most_over() <= Fraction(fleet.rate.per_second) * late_ms / 1000


def test_what_is_woken_together_is_spread_at_the_rate_and_never_earlier_than_it_may() -> None:
    assert paced([5, 5, 5, 400, 1_000], LIMIT) == [5, 105, 205, 400, 1_000]
    assert paced([], LIMIT) == []


@pytest.mark.parametrize(("per_second", "burst"), [(1.0, 3_601), (0.0001, 1)])
def test_a_burst_that_takes_more_than_an_hour_to_come_back_is_no_rate(per_second: float, burst: int) -> None:
    """It would be ahead of slots that the limiter refuses to give."""
    with pytest.raises(ValueError, match="in an hour"):
        Rate(per_second, burst)
    assert Limit.of(Rate(1.0, 3_600), scale=0.001).credit_ms <= HORIZON_MS
