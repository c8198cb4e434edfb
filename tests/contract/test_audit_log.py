"""`ports.AuditLog`, over the double and over DynamoDB (architecture §10)."""

from __future__ import annotations

import pytest

from functions.core.cursor import BadCursor, cursor_of
from functions.core.ports import Page
from tests import aws_tables
from tests.contract.storage import Stopping, World, dynamo_world, parked
from tests.contract.test_audit import event
from tests.fakes import NOON_MS

SWITCH = "switch#auto_reply"


def ids(page: Page) -> list[str]:  # type: ignore[type-arg]  # of audit events
    return [one.id for one in page.entries]


def test_what_is_appended_is_read_back_as_it_was(world: World) -> None:
    changes = [parked("tag")]
    world.recovery.commit(changes)
    wanted = changes[0].audit
    found = world.audit_log.of_entity(wanted[0].entity, 10)
    assert found == Page(tuple(sorted(wanted, key=lambda one: one.id)))
    world.audit.append([event("a1", "")])
    assert world.audit_log.of_entity(SWITCH, 10).entries == (event("a1", ""),)


def test_an_entitys_events_come_in_order_page_by_page_from_either_end(world: World) -> None:
    world.audit.append([event(f"a{number}", at_ms=NOON_MS + number) for number in range(7)])
    for latest_first in (False, True):
        found: list[str] = []
        after = ""
        for _ in range(10):
            page = world.audit_log.of_entity(SWITCH, 3, after, latest_first=latest_first)
            found += ids(page)
            after = page.further
            if not after:
                break
        wanted = [f"a{number}" for number in range(7)]
        assert found == (wanted[::-1] if latest_first else wanted)


def test_events_up_to_a_moment_hold_all_of_that_moment(world: World) -> None:
    world.audit.append([event(f"a{number}", at_ms=NOON_MS + number) for number in range(5)])
    assert ids(world.audit_log.of_entity(SWITCH, 2, until_ms=NOON_MS + 3, latest_first=True)) == ["a3", "a2"]
    assert ids(world.audit_log.of_entity(SWITCH, 9, until_ms=NOON_MS)) == ["a0"]
    assert ids(world.audit_log.of_entity(SWITCH, 9, until_ms=NOON_MS - 1)) == []


@pytest.mark.parametrize("latest_first", [False, True])
def test_the_last_page_says_that_it_is_the_last_though_more_was_recorded_later(
    world: World, latest_first: bool
) -> None:
    world.audit.append([event(f"a{number}", at_ms=NOON_MS + number) for number in range(5)])
    found = world.audit_log.of_entity(SWITCH, 3, until_ms=NOON_MS + 2, latest_first=latest_first)
    assert (len(found.entries), found.further) == (3, "")


def test_a_list_that_ends_earlier_is_taken_up_where_another_was_left(world: World) -> None:
    world.audit.append([event(f"a{number}", at_ms=NOON_MS + number) for number in range(5)])
    beyond = world.audit_log.of_entity(SWITCH, 4).further
    assert ids(world.audit_log.of_entity(SWITCH, 9, beyond, until_ms=NOON_MS + 1)) == []
    assert ids(world.audit_log.of_entity(SWITCH, 9, beyond, until_ms=NOON_MS + 1, latest_first=True)) == ["a1", "a0"]
    assert ids(world.audit_log.of_entity(SWITCH, 9, beyond, until_ms=NOON_MS + 4)) == ["a4"]


def test_a_page_that_is_full_at_the_end_of_the_list_is_the_last() -> None:
    """DynamoDB names the last item as the place to go on from, whether anything follows or not."""
    with aws_tables.moto_tables() as client:
        world = dynamo_world(Stopping(client))  # type: ignore[arg-type]  # it answers like a client
        world.audit.append([event(f"a{number}", "req-7", NOON_MS + number) for number in range(4)])
        for limit in (1, 2, 4):
            first = world.audit_log.of_entity(SWITCH, limit)
            assert (len(first.entries), bool(first.further)) == (limit, limit < 4)
            followed = world.audit_log.of_request("req-7", limit)
            assert (followed.entries, bool(followed.further)) == (first.entries, limit < 4)
        second = world.audit_log.of_entity(SWITCH, 2, world.audit_log.of_entity(SWITCH, 2).further)
        assert (ids(second), second.further) == (["a2", "a3"], "")
        beyond = world.audit_log.of_entity(SWITCH, 3).further
        assert world.audit_log.of_entity(SWITCH, 3, beyond, until_ms=NOON_MS) == Page()
        assert ids(world.audit_log.of_entity(SWITCH, 3, beyond, until_ms=NOON_MS, latest_first=True)) == ["a0"]


def test_a_request_is_followed_through_all_that_it_did(world: World) -> None:
    world.audit.append([event(f"a{number}", "req-7", NOON_MS + number) for number in range(5)])
    world.audit.append([event("b", "req-8")])
    found: list[str] = []
    after = ""
    for _ in range(10):
        page = world.audit_log.of_request("req-7", 2, after)
        found += ids(page)
        after = page.further
        if not after:
            break
    assert found == [f"a{number}" for number in range(5)]
    assert ids(world.audit_log.of_request("req-9", 5)) == []


@pytest.mark.parametrize("after", ["x", "AAAA", cursor_of([1]), cursor_of(["a", "b", "c"])])
def test_a_cursor_that_no_list_gave_is_refused(world: World, after: str) -> None:
    with pytest.raises(BadCursor):
        world.audit_log.of_entity(SWITCH, 3, after)
    with pytest.raises(BadCursor):
        world.audit_log.of_request("req-7", 3, after)


@pytest.mark.parametrize(
    ("attribute", "content"), [("event_type", {"S": "platform.of.tomorrow"}), ("at_ms", {"S": "x"})]
)
def test_an_event_of_a_newer_version_is_counted_and_hides_no_other(attribute: str, content: dict[str, str]) -> None:
    with aws_tables.moto_tables() as client:
        world = dynamo_world(client)
        world.audit.append([event("a1"), event("a2", at_ms=NOON_MS + 1)])
        client.update_item(
            TableName=aws_tables.AUDIT,
            Key={"pk": {"S": SWITCH}, "sk": {"S": f"{NOON_MS:013d}#a1"}},
            UpdateExpression="SET #name = :content",
            ExpressionAttributeNames={"#name": attribute},
            ExpressionAttributeValues={":content": content},
        )
        found = world.audit_log.of_entity(SWITCH, 10)
    assert ids(found) == ["a2"]
    assert found.unreadable == 1
