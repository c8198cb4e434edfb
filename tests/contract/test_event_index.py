"""`ports.EventIndex`, over the double and over DynamoDB (architecture §10): events by what people have in hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from functions.core.cursor import BadCursor, cursor_of
from functions.core.event import digest
from functions.core.failure import StorageUnavailable
from functions.core.ledger import RETENTION_SECONDS, ActionMark, ActionStatus, Claim, Claimed, Handle, ticket_key
from functions.core.ports import Settlement
from tests import aws_tables
from tests.contract.storage import KEY, LEASE_MS, Flaky, Stopping, World, claim, dynamo_world, parked, settlement
from tests.fakes import NOON_MS

PERSON = "f" * 32


def told(number: int, ticket: str = "c-1", recipient: str = PERSON, **fields: object) -> Claim:
    """One of several events, received a second after the one before."""
    blank = claim(key=f"E#acme#desk:{number}", received_at_ms=NOON_MS + number * 1000)
    return replace(
        blank,
        owner=digest(str(number))[:32],
        request_id=f"req-{number}",
        event_name="ticket.created",
        ticket=ticket,
        recipient=recipient,
        **fields,  # type: ignore[arg-type]  # a test says which
    )


def keys_of(world: World, handle: Handle, key: str) -> list[str]:
    return list(world.index.find(handle, key, 100).entries)


def test_an_event_is_found_by_its_request_its_ticket_and_its_recipient(world: World) -> None:
    world.ledger.claim(told(1))
    world.ledger.claim(told(2, ticket="c-2", recipient="e" * 32))
    assert keys_of(world, Handle.REQUEST, "req-1") == ["E#acme#desk:1"]
    assert keys_of(world, Handle.TICKET, ticket_key("c-1")) == ["E#acme#desk:1"]
    assert keys_of(world, Handle.RECIPIENT, PERSON) == ["E#acme#desk:1"]
    assert keys_of(world, Handle.TICKET, ticket_key("c-3")) == []
    item = world.index.items(["E#acme#desk:1"])["E#acme#desk:1"]
    assert item is not None
    assert (item.request_id, item.event_name) == ("req-1", "ticket.created")


def test_an_event_that_says_neither_goes_by_its_actions(world: World) -> None:
    world.ledger.claim(claim())
    assert keys_of(world, Handle.TICKET, ticket_key("c-1")) == [KEY]
    assert keys_of(world, Handle.RECIPIENT, "p-1") == [KEY]


def test_what_is_found_stays_found_through_settlement_and_takeover(world: World) -> None:
    first = world.ledger.claim(told(1))
    assert isinstance(first, Claimed)
    again = replace(claim("two", NOON_MS + LEASE_MS, key="E#acme#desk:1"), request_id="another", recipient="e" * 32)
    second = world.ledger.claim(again)
    assert isinstance(second, Claimed)
    assert (second.item.request_id, second.item.event_name) == ("req-1", "ticket.created")
    assert second.item.decision == first.item.decision
    world.ledger.settle(replace(settlement("two", 2, key="E#acme#desk:1")))
    assert keys_of(world, Handle.REQUEST, "req-1") == ["E#acme#desk:1"]
    assert keys_of(world, Handle.REQUEST, "another") == []
    assert keys_of(world, Handle.RECIPIENT, PERSON) == ["E#acme#desk:1"]
    item = world.index.items(["E#acme#desk:1"])["E#acme#desk:1"]
    assert item is not None
    assert item.written_at_ms == NOON_MS + 60_000


def test_a_new_event_under_an_old_key_is_found_by_its_own_handles_alone(world: World) -> None:
    """A message without ids that comes again after its window replaces the item."""
    world.ledger.claim(told(1, epoch_ms=NOON_MS))
    marks = {name: ActionMark(ActionStatus.DONE) for name in ("tag", "assign", "reply")}
    world.ledger.settle(Settlement("E#acme#desk:1", told(1).owner, 1, NOON_MS, marks))
    afresh = claim("two", NOON_MS + 900_000, key="E#acme#desk:1", seen_epoch_ms=NOON_MS, epoch_ms=NOON_MS + 900_000)
    assert isinstance(world.ledger.claim(replace(afresh, request_id="req-9")), Claimed)
    assert keys_of(world, Handle.REQUEST, "req-1") == []
    assert keys_of(world, Handle.REQUEST, "req-9") == ["E#acme#desk:1"]
    assert keys_of(world, Handle.RECIPIENT, PERSON) == []
    item = world.index.items(["E#acme#desk:1"])["E#acme#desk:1"]
    assert item is not None
    assert item.event_name == ""


def test_a_tickets_events_come_latest_first_page_by_page(world: World) -> None:
    for number in range(7):
        world.ledger.claim(told(number))
    found: list[str] = []
    after = ""
    for _ in range(10):
        page = world.index.find(Handle.TICKET, ticket_key("c-1"), 3, after)
        assert len(page.entries) <= 3
        found += page.entries
        after = page.further
        if not after:
            break
    assert found == [f"E#acme#desk:{number}" for number in reversed(range(7))]


def test_a_page_that_is_full_at_the_end_of_the_list_is_the_last() -> None:
    """DynamoDB names the last item as the place to go on from, whether anything follows or not."""
    with aws_tables.moto_tables() as client:
        world = dynamo_world(Stopping(client))  # type: ignore[arg-type]  # it answers like a client
        for number in range(4):
            world.ledger.claim(told(number))
        first = world.index.find(Handle.TICKET, ticket_key("c-1"), 2)
        second = world.index.find(Handle.TICKET, ticket_key("c-1"), 2, first.further)
        assert first.entries + second.entries == tuple(f"E#acme#desk:{number}" for number in (3, 2, 1, 0))
        assert (bool(first.further), second.further) == (True, "")
        assert world.index.find(Handle.TICKET, ticket_key("c-1"), 4).further == ""


@pytest.mark.parametrize("after", ["x", "!!", cursor_of(["a", "b"]), cursor_of([1]), cursor_of([1, ""]), "ab" * 3000])
def test_a_cursor_that_this_list_never_gave_is_refused(world: World, after: str) -> None:
    with pytest.raises(BadCursor):
        world.index.find(Handle.TICKET, ticket_key("c-1"), 3, after)


def test_a_cursor_of_another_key_reaches_nothing_of_that_key(world: World) -> None:
    for number in range(4):
        world.ledger.claim(told(number, ticket="c-1" if number % 2 else "c-2"))
    after = world.index.find(Handle.TICKET, ticket_key("c-1"), 1).further
    assert set(world.index.find(Handle.TICKET, ticket_key("c-2"), 9, after).entries) <= {
        "E#acme#desk:0",
        "E#acme#desk:2",
    }


def test_rows_are_read_by_id_and_what_is_not_there_is_left_out(world: World) -> None:
    changes = [parked(name) for name in ("tag", "assign", "reply")]
    world.recovery.commit(changes)
    wanted = [change.after.recovery_id for change in changes]
    found = world.index.rows([*wanted, "0" * 24, wanted[0]])
    assert found == {change.after.recovery_id: change.after for change in changes}
    assert world.index.rows([]) == {}
    assert world.index.items([]) == {}


def test_what_cannot_be_read_back_is_said_and_hides_nothing_else() -> None:
    with aws_tables.moto_tables() as client:
        world = dynamo_world(client)
        world.ledger.claim(told(1))
        client.put_item(TableName=aws_tables.LEDGER, Item={"pk": {"S": "E#acme#desk:2"}, "decision": {"S": "{"}})
        found = world.index.items(["E#acme#desk:1", "E#acme#desk:2"])
    assert found["E#acme#desk:2"] is None
    assert found["E#acme#desk:1"] is not None


def test_keys_that_stay_unprocessed_are_asked_for_again_and_then_it_is_said() -> None:
    with aws_tables.moto_tables() as client:
        waited: list[float] = []
        flaky = Flaky(client)
        world = dynamo_world(flaky, waited)  # type: ignore[arg-type]  # it answers like a client

        def unprocessed(**request: object) -> dict[str, object]:
            return {"Responses": {}, "UnprocessedKeys": request["RequestItems"]}

        flaky.batch_get_item = unprocessed  # type: ignore[attr-defined]  # in place of the client's
        with pytest.raises(StorageUnavailable):
            world.index.items(["E#acme#desk:1"])
    assert len(waited) == 4


def test_a_ticket_that_is_somebodys_number_is_not_written_down_for_the_index() -> None:
    """Ids and hashes only: where a flow calls a number or an address its ticket, its key says nothing of it."""
    with aws_tables.moto_tables() as client:
        dynamo_world(client).ledger.claim(told(1, ticket="+15005550006"))
        [item] = client.scan(TableName=aws_tables.LEDGER)["Items"]
    assert item["tk"]["S"] == ticket_key("+15005550006")
    assert "5005550006" not in str(item)
    assert int(item["ttl"]["N"]) == NOON_MS // 1000 + RETENTION_SECONDS
