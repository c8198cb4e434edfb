"""The limiter's one number, in memory and in DynamoDB: what it grants, to how many at once, and what lost answers cost
(002.20, 002.25, 003.17).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pytest
from botocore.exceptions import ReadTimeoutError

from functions.core.failure import StorageUnavailable
from functions.core.integration import Rate
from functions.core.limiter import ASTRAY_FOR_MS, HORIZON_MS, Full, Limit, Taken
from tests import aws_tables
from tests.contract.storage import Flaky, Lost, World, at_once, client_error, dynamo_world
from tests.fakes import NOON_MS

COST = 100
UNTIL = NOON_MS + HORIZON_MS


def tat(world: World, integration: str = "helpdesk") -> int:
    return world.ledger.read([], [integration]).integrations[integration].tat_ms


def take(world: World, cost_ms: int = COST, now_ms: int = NOON_MS, seen_tat_ms: int = 0) -> Taken | Full:
    return world.ledger.take("helpdesk", cost_ms, now_ms, now_ms + HORIZON_MS, seen_tat_ms)


def put_right(world: World, seen_tat_ms: int, to_ms: int, now_ms: int, seen_paused_until_ms: int = 0) -> int:
    return world.ledger.put_right("helpdesk", seen_tat_ms, to_ms, now_ms, seen_paused_until_ms)


def test_what_nobody_asked_for_begins_now(world: World) -> None:
    assert tat(world) == 0
    assert take(world, 3 * COST) == Taken(NOON_MS)
    assert tat(world) == NOON_MS + 3 * COST


def test_it_is_known_since_when_there_has_always_been_something_to_do(world: World) -> None:
    for now_ms, busy_from_ms in ((NOON_MS, NOON_MS), (NOON_MS + 1, NOON_MS), (NOON_MS + 2 * COST, NOON_MS + 2 * COST)):
        take(world, now_ms=now_ms)
        assert world.ledger.read([], ["helpdesk"]).integrations["helpdesk"].busy_from_ms == busy_from_ms


@pytest.mark.parametrize("seen_tat_ms", [0, NOON_MS - 5, NOON_MS + 3 * COST, NOON_MS + 10**9])
def test_whoever_comes_next_begins_where_the_last_one_ended_whatever_it_saw_before(
    world: World, seen_tat_ms: int
) -> None:
    take(world, 3 * COST)
    assert take(world, COST, seen_tat_ms=seen_tat_ms) == Taken(NOON_MS + 3 * COST)
    assert tat(world) == NOON_MS + 4 * COST


@pytest.mark.parametrize("seen_tat_ms", [0, NOON_MS + COST])
@pytest.mark.parametrize("later_ms", [0, 1])
def test_what_is_over_begins_anew(world: World, later_ms: int, seen_tat_ms: int) -> None:
    take(world)
    now_ms = NOON_MS + COST + later_ms
    assert take(world, now_ms=now_ms, seen_tat_ms=seen_tat_ms) == Taken(now_ms)


@pytest.mark.parametrize("seen_tat_ms", [0, UNTIL])
def test_beyond_what_may_be_reserved_nothing_moves(world: World, seen_tat_ms: int) -> None:
    take(world, HORIZON_MS)
    assert take(world, seen_tat_ms=seen_tat_ms) == Taken(UNTIL)
    assert take(world, seen_tat_ms=seen_tat_ms) == Full(UNTIL + COST)
    assert tat(world) == UNTIL + COST
    assert world.ledger.take("helpdesk", COST, NOON_MS, NOON_MS - 1, 0) == Full(UNTIL + COST)


def test_integrations_have_a_number_each_and_pauses_and_health_are_left_alone(world: World) -> None:
    world.ledger.pause("helpdesk", NOON_MS - 9)
    take(world)
    assert tat(world, "sms") == 0
    state = world.ledger.read([], ["helpdesk"]).integrations["helpdesk"]
    assert state.paused_until_ms == NOON_MS - 9


def test_a_pause_moves_the_number_behind_its_end_so_that_what_waits_is_spread_003_17(world: World) -> None:
    world.ledger.pause("helpdesk", NOON_MS + 5_000, NOON_MS + 5_400)
    assert take(world) == Taken(NOON_MS + 5_400)


def test_a_pause_that_ends_before_what_is_reserved_reserves_nothing_more(world: World) -> None:
    take(world, 9_000)
    world.ledger.pause("helpdesk", NOON_MS + 5_000, NOON_MS + 5_400)
    state = world.ledger.read([], ["helpdesk"]).integrations["helpdesk"]
    assert (state.paused_until_ms, state.tat_ms) == (NOON_MS + 5_000, NOON_MS + 9_000)


def test_a_shorter_pause_still_moves_a_number_that_is_behind_it(world: World) -> None:
    world.ledger.pause("helpdesk", NOON_MS + 9_000)
    world.ledger.pause("helpdesk", NOON_MS + 5_000, NOON_MS + 9_500)
    state = world.ledger.read([], ["helpdesk"]).integrations["helpdesk"]
    assert (state.paused_until_ms, state.tat_ms) == (NOON_MS + 9_000, NOON_MS + 9_500)


def test_a_number_astray_is_moved_back_once_and_only_from_where_it_was_seen(world: World) -> None:
    """002.25: of all that see it one moves it; who has taken calls since is not gone over."""
    astray_ms, right_ms = NOON_MS + 5 * HORIZON_MS, NOON_MS + 400
    take(world, COST, now_ms=astray_ms - COST)
    assert put_right(world, astray_ms - 1, right_ms, NOON_MS) == astray_ms  # somebody who saw another one
    assert put_right(world, astray_ms, right_ms, NOON_MS) == astray_ms  # noted
    assert put_right(world, astray_ms, right_ms, NOON_MS + ASTRAY_FOR_MS - 1) == astray_ms
    later_ms = NOON_MS + ASTRAY_FOR_MS
    answers = at_once([partial(put_right, world, astray_ms, right_ms, later_ms) for _ in range(8)])
    assert set(answers) == {right_ms}
    assert world.ledger.read([], ["helpdesk"]).integrations["helpdesk"].busy_from_ms == later_ms
    assert take(world) == Taken(right_ms)
    assert put_right(world, astray_ms, right_ms, later_ms) == right_ms + COST
    assert world.ledger.put_right("sms", astray_ms, right_ms, NOON_MS, 0) == tat(world, "sms") == 0


def test_a_number_that_moves_is_nobodys_to_put_right(world: World) -> None:
    """002.25: whoever thinks so has a clock that is hours behind, and the minute begins anew with each call."""
    seen_ms = NOON_MS
    for at_ms in range(NOON_MS, NOON_MS + 10 * ASTRAY_FOR_MS, ASTRAY_FOR_MS // 2):
        answer = take(world, now_ms=at_ms)
        assert isinstance(answer, Taken)
        seen_ms = tat(world)
        assert put_right(world, seen_ms, 400, at_ms - 5 * HORIZON_MS) == seen_ms == at_ms + COST


def test_since_when_it_stands_still_is_not_taken_from_a_clock_that_is_ahead(world: World) -> None:
    astray_ms = NOON_MS + 5 * HORIZON_MS
    take(world, COST, now_ms=astray_ms - COST)
    put_right(world, astray_ms, NOON_MS, NOON_MS + HORIZON_MS)
    assert put_right(world, astray_ms, NOON_MS, NOON_MS) == astray_ms
    assert put_right(world, astray_ms, NOON_MS, NOON_MS + ASTRAY_FOR_MS) == NOON_MS


@pytest.mark.parametrize(("seen_pause_ms", "is_moved"), [(0, False), (NOON_MS + 7_999, False), (NOON_MS + 8_000, True)])
def test_a_pause_that_was_not_seen_leaves_a_number_where_the_pause_has_put_it(
    world: World, seen_pause_ms: int, is_moved: bool
) -> None:
    """003.17: it is hours ahead because the provider said so."""
    world.ledger.pause("helpdesk", NOON_MS + 8_000, NOON_MS + 9_000)
    put_right(world, NOON_MS + 9_000, NOON_MS + 400, NOON_MS - ASTRAY_FOR_MS, NOON_MS + 8_000)
    found_ms = put_right(world, NOON_MS + 9_000, NOON_MS + 400, NOON_MS, seen_pause_ms)
    assert found_ms == tat(world) == (NOON_MS + 400 if is_moved else NOON_MS + 9_000)


def test_forty_callers_at_once_are_granted_what_one_could_have_had(world: World, proved: Callable[[str], None]) -> None:
    """002.25: racing writers neither share a slot nor lose one."""
    limit = Limit.of(Rate(10, 5))
    answers = at_once([partial(take, world, 2 * limit.cost_ms, seen_tat_ms=n % 2 * UNTIL) for n in range(40)])
    assert all(isinstance(answer, Taken) for answer in answers)
    slots = sorted(slot for answer in answers for slot in limit.slots(answer.base_ms, 2))
    assert slots == list(limit.slots(NOON_MS, 80))
    assert sum(slot <= NOON_MS for slot in slots) == 5
    assert tat(world) == NOON_MS + 80 * limit.cost_ms
    for second in range(10):
        window = [slot for slot in slots if second * 1_000 <= max(slot, NOON_MS) - NOON_MS < (second + 1) * 1_000]
        assert len(window) <= 5 + 10
    proved(
        f"limiter: 40 racing callers of 2 calls each at 10/s, burst 5, over {type(world.ledger).__name__}: "
        f"{sum(slot <= NOON_MS for slot in slots)} granted now, {len(set(slots))} slots for 80 calls"
    )


def test_forty_callers_that_will_not_wait_are_granted_one_burst(world: World) -> None:
    limit = Limit.of(Rate(10, 5))
    until_ms = limit.latest_for(1, NOON_MS)
    answers = at_once([partial(world.ledger.take, "llm", limit.cost_ms, NOON_MS, until_ms, 0) for _ in range(40)])
    assert Counter(type(answer) for answer in answers) == {Taken: 5, Full: 35}


# -------------------------------------------------------------------------------------------------------- lost answers


@dataclass
class Shaky:
    """The adapter over a client that can be told to fail."""

    flaky: Flaky
    world: World

    @property
    def writes(self) -> int:
        return len(self.flaky.requests("update_item"))


@pytest.fixture
def shaky() -> Iterator[Shaky]:
    with aws_tables.moto_tables() as client:
        flaky = Flaky(client)
        yield Shaky(flaky, dynamo_world(flaky))  # type: ignore[arg-type]  # it stands in for the client


@pytest.mark.parametrize(("seen_tat_ms", "taken_before"), [(0, 0), (NOON_MS + 500, 500)])
def test_a_take_costs_one_write_where_what_was_seen_is_still_so(
    shaky: Shaky, seen_tat_ms: int, taken_before: int
) -> None:
    if taken_before:
        take(shaky.world, taken_before)
    shaky.flaky.calls.clear()
    assert take(shaky.world, seen_tat_ms=seen_tat_ms) == Taken(NOON_MS + taken_before)
    assert shaky.writes == 1


def test_a_take_that_was_misled_costs_two_writes(shaky: Shaky) -> None:
    take(shaky.world)
    assert take(shaky.world) == Taken(NOON_MS + COST)
    assert shaky.writes == 3


def test_a_take_whose_answer_was_lost_costs_calls_that_nobody_makes_and_never_grants_one_twice(shaky: Shaky) -> None:
    shaky.flaky.planned["update_item"] = [Lost(ReadTimeoutError(endpoint_url="http://127.0.0.1"))]
    with pytest.raises(StorageUnavailable, match="ReadTimeoutError"):
        take(shaky.world)
    assert take(shaky.world, seen_tat_ms=tat(shaky.world)) == Taken(NOON_MS + COST)
    shaky.flaky.planned["update_item"] = [Lost(client_error("InternalServerError"))]
    with pytest.raises(StorageUnavailable):
        take(shaky.world, seen_tat_ms=tat(shaky.world))
    assert take(shaky.world, seen_tat_ms=tat(shaky.world)) == Taken(NOON_MS + 3 * COST)


def test_a_pause_costs_one_write_and_holds_though_its_answer_is_lost(shaky: Shaky) -> None:
    shaky.world.ledger.pause("helpdesk", NOON_MS + 5_000, NOON_MS + 5_400)
    assert shaky.writes == 1
    shaky.flaky.planned["update_item"] = [Lost(client_error("InternalServerError"))]
    with pytest.raises(StorageUnavailable):
        shaky.world.ledger.pause("helpdesk", NOON_MS + 9_000)
    shaky.world.ledger.pause("helpdesk", NOON_MS + 9_000)
    state = shaky.world.ledger.read([], ["helpdesk"]).integrations["helpdesk"]
    assert (state.paused_until_ms, state.tat_ms) == (NOON_MS + 9_000, NOON_MS + 9_000)


def test_an_item_that_moves_back_and_forth_is_trouble_and_no_endless_loop(shaky: Shaky) -> None:
    """Nothing of ours moves it back: somebody's hand does."""
    refused = client_error("ConditionalCheckFailedException")
    ahead = client_error("ConditionalCheckFailedException")
    ahead.response["Item"] = {"tat": {"N": str(NOON_MS + 1)}}  # type: ignore[typeddict-unknown-key]  # ALL_OLD
    shaky.flaky.planned["update_item"] = [ahead, refused, ahead]
    with pytest.raises(StorageUnavailable, match="back and forth"):
        take(shaky.world)
