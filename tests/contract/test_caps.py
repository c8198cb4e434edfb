"""`ports.Caps`, over the double and over DynamoDB (002.17)."""

from __future__ import annotations

from typing import Any

import pytest

from functions.adapters.caps import KEPT_SECONDS, TRIES, DynamoCaps
from functions.core.cap import WINDOW_MS, Capped, Counted
from functions.core.failure import StorageUnavailable
from tests import aws_tables
from tests.contract.storage import Flaky, Lost, World, at_once, client_error
from tests.fakes import NOON_MS


def test_so_many_are_granted_and_no_more_until_an_hour_has_gone_by(world: World) -> None:
    for number in range(5):
        assert world.caps.count("c", f"a{number}", NOON_MS + number, 5) == Counted(NOON_MS + number, is_new=True)
    assert world.caps.count("c", "a5", NOON_MS + 10, 5) == Capped()
    assert world.caps.count("d", "a5", NOON_MS + 10, 5) == Counted(NOON_MS + 10, is_new=True)
    assert world.caps.count("c", "a5", NOON_MS + WINDOW_MS, 5) == Counted(NOON_MS + WINDOW_MS, is_new=True)
    assert world.caps.count("c", "a6", NOON_MS + WINDOW_MS, 5) == Capped()


def test_a_retry_of_the_same_action_counts_once_and_is_granted_at_the_cap(world: World) -> None:
    for name in ("a", "b"):
        world.caps.count("c", name, NOON_MS, 2)
    for later in (1, 2, 3):
        assert world.caps.count("c", "a", NOON_MS + later, 2) == Counted(NOON_MS + later, is_new=False)
    assert world.caps.count("c", "x", NOON_MS + 4, 2) == Capped()


def test_the_same_send_in_the_same_moment_counts_once_and_may_be_told_that_it_counted(world: World) -> None:
    for _ in range(2):
        assert world.caps.count("c", "a", NOON_MS, 2) == Counted(NOON_MS, is_new=True)
    assert world.caps.count("c", "b", NOON_MS, 2) == Counted(NOON_MS, is_new=True)
    assert world.caps.count("c", "b", NOON_MS, 2) == Counted(NOON_MS, is_new=False)
    assert world.caps.count("c", "x", NOON_MS, 2) == Capped()


def test_what_was_not_sent_counts_no_longer(world: World) -> None:
    world.caps.count("c", "a", NOON_MS, 1)
    world.caps.uncount("c", "b", NOON_MS)
    world.caps.uncount("c", "a", NOON_MS - 1)
    assert world.caps.count("c", "b", NOON_MS + 1, 1) == Capped()
    world.caps.uncount("c", "a", NOON_MS)
    assert world.caps.count("c", "b", NOON_MS + 1, 1) == Counted(NOON_MS + 1, is_new=True)
    world.caps.uncount("nobody", "a", NOON_MS)
    assert world.caps.count("nobody", "a", NOON_MS, 1) == Counted(NOON_MS, is_new=True)


@pytest.mark.parametrize("most", [1, 5])
def test_of_forty_at_once_exactly_as_many_as_the_cap_are_granted(world: World, most: int) -> None:
    asking = [lambda name=f"a{number}": world.caps.count("c", name, NOON_MS, most) for number in range(40)]
    results = at_once(asking)
    assert results.count(Counted(NOON_MS, is_new=True)) == most
    assert results.count(Capped()) == 40 - most


def test_of_forty_repeats_of_five_actions_none_takes_anothers_place(world: World) -> None:
    asking = [
        lambda name=f"a{number % 5}", now_ms=NOON_MS + number: world.caps.count("c", name, now_ms, 5)
        for number in range(40)
    ]
    results = at_once(asking)
    assert not [one for one in results if not isinstance(one, Counted | StorageUnavailable)]
    assert world.caps.count("c", "other", NOON_MS + 50, 5) == Capped()


# --- what only the table can show ---


def over(client: Any) -> tuple[DynamoCaps, Flaky]:
    flaky = Flaky(client)
    return DynamoCaps(flaky, aws_tables.CONTROL), flaky  # type: ignore[arg-type]  # it stands in for one


def test_a_first_send_costs_one_write_a_further_one_two_and_a_refused_one_one_and_nothing_is_read() -> None:
    with aws_tables.moto_tables() as client:
        caps, flaky = over(client)
        costs = []
        for number in range(4):
            before = len(flaky.calls)
            caps.count("c", f"a{number}", NOON_MS + number, 3)
            costs.append(len(flaky.calls) - before)
        assert costs == [1, 2, 2, 1]
        assert {name for name, _ in flaky.calls} == {"update_item"}


def test_the_item_names_nobody_and_goes_by_itself() -> None:
    with aws_tables.moto_tables() as client:
        over(client)[0].count("c" * 32, "a", NOON_MS, 5)
        (item,) = client.scan(TableName=aws_tables.CONTROL)["Items"]
        assert item["pk"] == {"S": "CAP#" + "c" * 32}
        assert int(item["ttl"]["N"]) == NOON_MS // 1000 + KEPT_SECONDS


def test_a_count_whose_answer_was_lost_counts_once_and_can_still_be_taken_back() -> None:
    with aws_tables.moto_tables() as client:
        caps, flaky = over(client)
        caps.count("c", "a", NOON_MS, 2)
        flaky.planned["update_item"] = [Lost()]
        with pytest.raises(StorageUnavailable):  # of the SDK's own two tries this was the last
            caps.count("d", "x", NOON_MS, 1)
        granted = caps.count("d", "x", NOON_MS, 1)
        assert granted == Counted(NOON_MS, is_new=True)
        caps.uncount("d", "x", NOON_MS)
        assert caps.count("d", "y", NOON_MS, 1) == Counted(NOON_MS, is_new=True)


def test_an_item_that_cannot_be_read_is_trouble_and_no_permission() -> None:
    with aws_tables.moto_tables() as client:
        for broken in ({"sends": {"S": "x"}}, {"sends": {"M": {"a": {"S": "1"}}}}, {}):
            item: dict[str, Any] = {"pk": {"S": "CAP#c"}, "version": {"N": "1"}, **broken}
            client.put_item(TableName=aws_tables.CONTROL, Item=item)
            with pytest.raises(StorageUnavailable):
                over(client)[0].count("c", "a", NOON_MS, 5)


def test_an_item_that_is_taken_again_and_again_is_given_up() -> None:
    with aws_tables.moto_tables() as client:
        caps, flaky = over(client)
        caps.count("c", "a", NOON_MS, 5)
        flaky.planned["update_item"] = [client_error("ConditionalCheckFailedException") for _ in range(TRIES)]
        with pytest.raises(StorageUnavailable, match="20 times"):
            caps.count("c", "b", NOON_MS, 5)
        flaky.planned["update_item"] = [client_error("ProvisionedThroughputExceededException")]
        with pytest.raises(StorageUnavailable):
            caps.uncount("c", "a", NOON_MS)
