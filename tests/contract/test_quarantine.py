"""`ports.Quarantines`, and the rules in the worker's batched read, over the double and over DynamoDB (001.44)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from functions.adapters.ledger import DynamoLedger
from functions.adapters.quarantine import DynamoQuarantines
from functions.core import ports
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.quarantine import Quarantine, QuarantineChange, Rule
from tests import aws_tables
from tests.contract.storage import Flaky, Lost, at_once
from tests.fakes import NOON_MS, FakeIds, FakeLedger, FakeQuarantines, FakeTables

RULE = Rule("a" * 32, "ada", "version 3", NOON_MS, NOON_MS + 60_000, source="shop", event_version="3")


@dataclass
class Room:
    quarantines: ports.Quarantines
    ledger: ports.Ledger

    def add(self, number: int = 1) -> QuarantineChange:
        rule = replace(RULE, rule_id=f"{number:032x}")
        return self.quarantines.read().with_rule(rule, f"request-{number}")


@contextmanager
def _in_memory() -> Iterator[Room]:
    tables = FakeTables()
    yield Room(FakeQuarantines(tables), FakeLedger(tables))


def _over(client: Any) -> Room:
    return Room(
        DynamoQuarantines(client, aws_tables.CONTROL, aws_tables.AUDIT, pause=lambda _: None),
        DynamoLedger(client, FakeIds(), ledger_table=aws_tables.LEDGER, control_table=aws_tables.CONTROL),
    )


@contextmanager
def _in_dynamodb() -> Iterator[Room]:
    with aws_tables.moto_tables() as client, aws_tables.one_request_at_a_time():
        yield _over(client)


@pytest.fixture(params=[_in_memory, _in_dynamodb], ids=["fake", "dynamodb"])
def room(request: pytest.FixtureRequest) -> Iterator[Room]:
    with request.param() as made:
        yield made


def test_where_nobody_made_a_rule_there_is_none(room: Room) -> None:
    assert room.quarantines.read() == Quarantine()
    assert room.ledger.read([], [], with_rules=True).quarantine == Quarantine()


def test_rules_are_read_back_as_they_were_made_alone_and_with_a_batch(room: Room) -> None:
    room.quarantines.store(room.add(1))
    room.quarantines.store(room.add(2))
    read = room.quarantines.read()
    assert [rule.rule_id for rule in read.rules] == [f"{1:032x}", f"{2:032x}"]
    assert read.version == 2
    assert room.ledger.read(["E#acme#none"], ["helpdesk"], with_rules=True).quarantine == read
    assert room.ledger.read([], ["helpdesk"]).quarantine == Quarantine(), "only who asks for them reads them"


def test_of_two_who_saw_the_same_rules_one_changes_them(room: Room) -> None:
    first, second = room.add(1), room.add(2)
    room.quarantines.store(first)
    with pytest.raises(VersionConflict):
        room.quarantines.store(second)
    assert room.quarantines.read() == first.after


def test_the_same_change_again_is_the_same_change(room: Room) -> None:
    change = room.add()
    room.quarantines.store(change)
    room.quarantines.store(change)
    assert room.quarantines.read() == change.after


def test_of_two_who_remove_the_same_rule_the_second_is_told(room: Room) -> None:
    """Who is told that it is done stands in the audit: the rule was gone already, and not by them."""
    room.quarantines.store(room.add())
    seen = room.quarantines.read()
    rule_id = seen.rules[0].rule_id
    first, second = (
        seen.without(rule_id, actor=name, reason="mended", now_ms=NOON_MS, request_id=f"of-{name}")
        for name in ("ada", "bob")
    )
    room.quarantines.store(first)
    with pytest.raises(VersionConflict):
        room.quarantines.store(second)
    room.quarantines.store(first)
    assert room.quarantines.read() == first.after


def test_of_many_at_once_one_changes_the_rules(room: Room) -> None:
    changes = [room.add(number) for number in range(8)]
    results = at_once([lambda one=one: room.quarantines.store(one) for one in changes])  # type: ignore[misc]  # bound now
    assert results.count(None) == 1
    assert sum(isinstance(result, VersionConflict) for result in results) == 7


# --- what only the table can show ---


def test_rules_and_audit_are_written_together_or_not_at_all() -> None:
    with aws_tables.moto_tables() as client:
        room = _over(client)
        change = room.add()
        client.delete_table(TableName=aws_tables.AUDIT)
        with pytest.raises(StorageUnavailable):
            room.quarantines.store(change)
        assert room.quarantines.read() == Quarantine()


def test_a_lost_answer_is_no_conflict_with_oneself() -> None:
    with aws_tables.moto_tables() as client:
        flaky = Flaky(client)
        flaky.planned["transact_write_items"] = [Lost()]
        room = _over(flaky)
        change = room.add()
        room.quarantines.store(change)
        assert room.quarantines.read() == change.after
        assert len(client.scan(TableName=aws_tables.AUDIT)["Items"]) == 1


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"rules": {"S": "[]"}},
        {"rules": {"S": "{"}, "version": {"N": "1"}},
        {"rules": {"S": '[{"rule_id":1}]'}, "version": {"N": "1"}},
        {"rules": {"L": []}, "version": {"N": "1"}},
        {"rules": {"S": "[]"}, "version": {"S": "x"}},
    ],
)
def test_rules_that_nobody_can_understand_stop_no_event_and_are_an_error_in_the_log(
    attributes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with aws_tables.moto_tables() as client:
        client.put_item(TableName=aws_tables.CONTROL, Item={"pk": {"S": "Q"}, **attributes})
        room = _over(client)
        with caplog.at_level(logging.ERROR):
            view = room.ledger.read([], ["helpdesk"], with_rules=True)
        assert view.quarantine == Quarantine()
        assert "rules of quarantine cannot be read" in caplog.text
        with pytest.raises(StorageUnavailable):  # who would change them must not write over what they cannot read
            room.quarantines.read()
