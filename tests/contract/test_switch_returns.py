"""`ports.SwitchReturns`, over the double and over DynamoDB: no audit, no change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from functions.adapters.switch_returns import DynamoSwitchReturns
from functions.core import ports
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.switch_returns import Return, Returns, ReturnsChange, returned
from tests import aws_tables
from tests.control_fakes import FakeSwitchReturns
from tests.fakes import NOON_MS, FakeTables

PROMISE = Return("p1", "auto_reply", "off", 2, "on", NOON_MS, "ada", "why", "ada: why", "request-1")


@dataclass
class Room:
    returns: ports.SwitchReturns
    audited: Callable[[], int]


def _over(client: Any) -> DynamoSwitchReturns:
    return DynamoSwitchReturns(client, aws_tables.CONTROL, aws_tables.AUDIT, pause=lambda _: None)


@pytest.fixture(params=["memory", "dynamodb"])
def room(request: pytest.FixtureRequest) -> Iterator[Room]:
    if request.param == "memory":
        tables = FakeTables()
        yield Room(FakeSwitchReturns(tables), lambda: len(tables.audit))
        return
    with aws_tables.moto_tables() as client:
        yield Room(_over(client), lambda: client.scan(TableName=aws_tables.AUDIT)["Count"])


def change(room: Room, promise: Return = PROMISE) -> ReturnsChange:
    known = room.returns.read()
    after = Returns((*known.promises, promise), known.version + 1)
    return ReturnsChange(known, after, (returned(promise),))


def test_where_nobody_promised_anything_there_is_nothing(room: Room) -> None:
    assert room.returns.read() == Returns()


def test_what_is_stored_is_read_back_and_in_the_audit(room: Room) -> None:
    room.returns.store(change(room))
    room.returns.store(change(room, replace(PROMISE, return_id="p2", name="limits/sms")))
    found = room.returns.read()
    assert ([one.return_id for one in found.promises], found.version) == (["p1", "p2"], 2)
    assert found.promises[0] == PROMISE
    assert room.audited() == 2
    room.returns.store(found.without({"p1", "p2"}))
    assert room.returns.read() == Returns((), 3)


def test_meeting_its_own_success_is_success_and_another_s_is_a_conflict(room: Room) -> None:
    first = change(room)
    other = change(room, replace(PROMISE, return_id="p2", name="mode"))
    room.returns.store(first)
    room.returns.store(first)
    with pytest.raises(VersionConflict):
        room.returns.store(other)
    assert room.audited() == 1
    second = change(room, replace(PROMISE, return_id="p3"))
    room.returns.store(change(room, replace(PROMISE, return_id="p4")))
    with pytest.raises(VersionConflict):
        room.returns.store(second)


def test_an_item_that_cannot_be_read_back_is_trouble() -> None:
    with aws_tables.moto_tables() as client:
        item = {"pk": {"S": "SR"}, "promises": {"S": "[7]"}, "version": {"N": "1"}}
        client.put_item(TableName=aws_tables.CONTROL, Item=item)
        with pytest.raises(StorageUnavailable, match="SR"):
            _over(client).read()
        client.delete_table(TableName=aws_tables.CONTROL)
        with pytest.raises(StorageUnavailable):
            _over(client).read()
