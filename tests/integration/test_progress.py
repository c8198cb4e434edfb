"""What a sender is told of an event, from items as the worker's adapters write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from functions.core.clock import Deadline
from functions.core.failure import Done, RootCause, StorageUnavailable
from functions.core.ledger import ActionMark, ActionStatus, Claimed
from functions.core.ports import Settlement
from functions.core.recovery import (
    Change,
    Row,
    Status,
    action_recovery_id,
    dead_first,
    event_recovery_id,
    held_first,
    replay,
    succeeded,
    suppressed_first,
)
from functions.core.recovery import (
    claim as claim_row,
)
from functions.ingress.seen import LedgerSeen
from tests import aws_tables
from tests.contract.storage import KEY, LEASE_MS, World, blank, claim, dynamo_world, parked, settlement
from tests.fakes import NOON_MS

EVENT = "desk:1"


class Asked:
    """The tables, and a sender's question about one event."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.world: World = dynamo_world(client)
        self.now_ms = NOON_MS
        self.seen = LedgerSeen(aws_tables.LEDGER, aws_tables.RECOVERY, lambda: self)

    def get_item(self, table: str, key: Mapping[str, object], timeout_seconds: float) -> dict[str, Any] | None:
        assert timeout_seconds > 0
        item: dict[str, Any] | None = self.client.get_item(TableName=table, Key=key).get("Item")
        return item

    def state(self, event_id: str = EVENT) -> str:
        return self.seen.whereabouts("acme", event_id, self.now_ms, Deadline.after(1.0, lambda: 0.0))

    def settle(self, *changes: Change, **marks: ActionStatus) -> None:
        assert isinstance(self.world.ledger.claim(claim()), Claimed)
        every = {name: ActionMark(marks.get(name, ActionStatus.DONE)) for name in ("tag", "assign", "reply")}
        self.world.ledger.settle(Settlement(KEY, "one", 1, NOON_MS, every, changes))


@pytest.fixture
def asked() -> Iterator[Asked]:
    with aws_tables.moto_tables() as client:
        yield Asked(client)


def event_row() -> Row:
    return replace(
        blank(), recovery_id=event_recovery_id("acme", EVENT, 0), action=None, subject=type(blank().subject).EVENT
    )


def test_what_nobody_has_taken_up_is_not_known(asked: Asked) -> None:
    assert asked.state() == ""


def test_it_is_processing_while_somebody_has_it_and_in_the_queue_again_when_their_lease_is_over(asked: Asked) -> None:
    asked.world.ledger.claim(claim())
    assert asked.state() == "processing"
    asked.now_ms += LEASE_MS
    assert asked.state() == "accepted"


def test_it_is_settled_when_all_is_done(asked: Asked) -> None:
    asked.settle()
    assert asked.state() == "settled"


def test_what_is_parked_waits_and_then_is_settled(asked: Asked) -> None:
    change = parked("tag")
    asked.settle(change, tag=ActionStatus.RECOVERY)
    assert asked.state() == "waiting"
    row = change.after
    taken = claim_row(row, row.due_at_ms, row.due_at_ms + 1000, "r")
    asked.world.recovery.commit([taken])
    asked.world.recovery.commit([succeeded(taken.after, Done("p"), row.due_at_ms + 1)])
    assert asked.state() == "settled"


def test_what_is_dead_has_ended_until_somebody_replays_it(asked: Asked) -> None:
    dead = dead_first(blank("tag"), "HTTP_422", "no", RootCause.BAD_SOURCE_DATA, Status.FAILED)
    asked.settle(dead, tag=ActionStatus.RECOVERY)
    assert asked.state() == "ended"
    again = replay(dead.after, NOON_MS, actor="ada", reason="mended", request_id="r", job_id="", scale=1.0)
    asked.world.recovery.commit([again])
    assert asked.state() == "waiting"


def test_what_was_not_to_be_sent_is_settled(asked: Asked) -> None:
    asked.settle(suppressed_first(blank("reply"), "auto_reply is off"), reply=ActionStatus.SUPPRESSED)
    assert asked.state() == "settled"


def test_a_row_that_should_be_there_and_is_not_has_ended(asked: Asked) -> None:
    asked.settle(tag=ActionStatus.RECOVERY)
    assert asked.state() == "ended"


@pytest.mark.parametrize(
    ("change", "state"),
    [
        (lambda: held_first(event_row(), "the source is held"), "waiting"),
        (lambda: dead_first(event_row(), "UNREADABLE_EVENT", "no", RootCause.SCHEMA_MISMATCH, Status.DLQ), "ended"),
    ],
)
def test_an_event_that_was_never_claimed_is_known_by_its_row(
    asked: Asked, change: Callable[[], Change], state: str
) -> None:
    asked.world.recovery.put_if_absent(change())
    assert asked.state() == state


def test_a_poison_message_has_ended_although_its_item_is_left_in_work(asked: Asked) -> None:
    asked.world.ledger.claim(claim())
    asked.world.recovery.put_if_absent(dead_first(event_row(), "POISONED", "x", RootCause.CODE_DEFECT, Status.DLQ))
    assert asked.state() == "processing"
    asked.now_ms += LEASE_MS
    assert asked.state() == "ended"


@pytest.mark.parametrize("attribute", ["actions", "status", "epoch", "decision"])
def test_an_item_that_cannot_be_read_is_no_answer(asked: Asked, attribute: str) -> None:
    asked.world.ledger.claim(claim())
    asked.world.ledger.settle(settlement())
    asked.client.update_item(
        TableName=aws_tables.LEDGER,
        Key={"pk": {"S": KEY}},
        UpdateExpression="SET #name = :x",
        ExpressionAttributeNames={"#name": attribute},
        ExpressionAttributeValues={":x": {"S": "?"}},
    )
    with pytest.raises(StorageUnavailable):
        asked.state()


def test_a_row_that_cannot_be_read_is_no_answer(asked: Asked) -> None:
    asked.settle(tag=ActionStatus.RECOVERY)
    action = claim().decision.bound("acme", EVENT, 0).action("tag")
    asked.client.put_item(
        TableName=aws_tables.RECOVERY,
        Item={"pk": {"S": action_recovery_id(action.action_id)}, "status": {"S": "tomorrow's"}},
    )
    with pytest.raises(StorageUnavailable):
        asked.state()
