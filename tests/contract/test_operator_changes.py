"""`ports.OperatorChanges`, over the double and over DynamoDB (004.6, 004.13: one click, one replay)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from functions.adapters.operator_changes import DynamoOperatorChanges
from functions.adapters.recovery import DynamoRecovery
from functions.core import ports
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.operations import KEY_KEPT_MS, Answered, Person, noted
from functions.core.recovery import Change, Row, Status, release
from tests import aws_tables
from tests.contract.storage import Flaky, Lost, at_once
from tests.fakes import NOON_MS, FakeIds, FakeOperatorChanges, FakeRecovery, FakeTables
from tests.recovery_rows import row

ADA = Person("ada", "request-1", "00-t")
ANSWER = Answered("ada", "key-00001", "hash", '{"status":"replayed"}', NOON_MS)


@dataclass
class Room:
    changes: ports.OperatorChanges
    recovery: ports.Recovery
    audit_size: Callable[[], int]

    def put(self, *rows: Row) -> None:
        for one in rows:
            assert self.recovery.put_if_absent(Change(one, None))

    def note(self, one: Row, text: str = "hello") -> Change:
        return noted(one, ADA, text, NOON_MS + 1)


@contextmanager
def _in_memory() -> Iterator[Room]:
    tables = FakeTables()
    yield Room(FakeOperatorChanges(tables), FakeRecovery(tables), lambda: len(tables.audit))


def _over(client: Any, real: Any) -> Room:
    ids = FakeIds()
    return Room(
        DynamoOperatorChanges(
            client,
            ids,
            recovery_table=aws_tables.RECOVERY,
            audit_table=aws_tables.AUDIT,
            control_table=aws_tables.CONTROL,
            pause=lambda _: None,
        ),
        DynamoRecovery(real, ids, recovery_table=aws_tables.RECOVERY, audit_table=aws_tables.AUDIT),
        lambda: len(real.scan(TableName=aws_tables.AUDIT)["Items"]),
    )


@contextmanager
def _in_dynamodb() -> Iterator[Room]:
    with aws_tables.moto_tables() as client, aws_tables.one_request_at_a_time():
        yield _over(client, client)


@pytest.fixture(params=[_in_memory, _in_dynamodb], ids=["fake", "dynamodb"])
def room(request: pytest.FixtureRequest) -> Iterator[Room]:
    with request.param() as made:
        yield made


def test_row_audit_and_answer_are_written_together(room: Room) -> None:
    one = row()
    room.put(one)
    change = room.note(one)
    assert room.changes.commit(change, ANSWER) is None
    assert room.recovery.get(one.recovery_id) == change.after
    assert room.audit_size() == 1
    assert room.changes.answered("ada", ANSWER.key, NOON_MS + KEY_KEPT_MS - 1) == ANSWER
    assert room.changes.answered("ada", ANSWER.key, NOON_MS + KEY_KEPT_MS) is None
    assert room.changes.answered("bob", ANSWER.key, NOON_MS) is None


def test_under_a_key_that_was_answered_nothing_is_written_and_the_first_answer_is_given(room: Room) -> None:
    one = row()
    room.put(one)
    first = room.note(one)
    room.changes.commit(first, ANSWER)
    again = replace(ANSWER, answer="another", at_ms=NOON_MS + 5)
    assert room.changes.commit(room.note(first.after, "again"), again) == ANSWER
    assert room.recovery.get(one.recovery_id) == first.after
    assert room.audit_size() == 1


def test_a_key_is_free_again_after_its_day(room: Room) -> None:
    one = row()
    room.put(one)
    first = room.note(one)
    room.changes.commit(first, ANSWER)
    later = replace(ANSWER, answer="later", at_ms=NOON_MS + KEY_KEPT_MS)
    assert room.changes.commit(room.note(first.after, "again"), later) is None
    assert room.changes.answered("ada", ANSWER.key, later.at_ms) == later


def test_a_row_that_has_moved_on_is_left_alone_and_so_is_the_key(room: Room) -> None:
    one = row()
    room.put(one)
    room.changes.commit(room.note(one))
    with pytest.raises(VersionConflict):
        room.changes.commit(room.note(one, "late"), ANSWER)
    assert room.changes.answered("ada", ANSWER.key, NOON_MS) is None
    assert room.audit_size() == 1


def test_a_row_that_nobody_had_is_put_and_none_is_written_over(room: Room) -> None:
    new = Change(row(), None)
    assert room.changes.commit(new) is None
    with pytest.raises(VersionConflict):
        room.changes.commit(Change(replace(row(), version=2), None), ANSWER)
    assert room.recovery.get(new.after.recovery_id) == new.after
    assert room.changes.answered("ada", ANSWER.key, NOON_MS) is None


def test_of_many_clicks_at_once_one_is_carried_out_and_the_others_hear_its_answer(room: Room) -> None:
    one = row()
    room.put(one)
    change = room.note(one)
    results = at_once([lambda: room.changes.commit(change, ANSWER) for _ in range(8)])
    assert results.count(None) == 1
    assert all(result in (None, ANSWER) or isinstance(result, VersionConflict) for result in results)
    assert room.audit_size() == 1


def shown(room: Room, statuses: Sequence[Status], limit: int) -> list[str]:
    found: list[str] = []
    after = ""
    for _ in range(100):
        page = room.changes.page("helpdesk", statuses, after, limit)
        assert len(page.rows) <= limit
        found += [one.recovery_id for one in page.rows]
        after = page.after
        if not after:
            return found
    raise AssertionError("the list has no end")


@pytest.mark.parametrize("limit", [1, 2, 7, 50])
def test_pages_leave_no_row_out_and_show_none_twice_in_one_order(room: Room, limit: int) -> None:
    rows = [
        replace(
            row(),
            recovery_id=f"{number:024d}",
            status=(Status.DLQ, Status.FAILED, Status.RETRYING)[number % 3],
            due_at_ms=0 if number % 3 < 2 else NOON_MS + number // 6,
            updated_at_ms=NOON_MS + number // 4,
        )
        for number in range(40)
    ]
    room.put(*rows, replace(row(), recovery_id="f" * 24, integration_id="another"))
    statuses = [Status.RETRYING, Status.DLQ]
    found = shown(room, statuses, limit)
    wanted = sorted(
        (one for one in rows if one.status in statuses),
        key=lambda one: (one.status.value, one.due_at_ms or one.updated_at_ms, one.recovery_id),
    )
    assert found == [one.recovery_id for one in wanted]
    assert shown(room, [Status.SUCCEEDED], limit) == []


def test_what_is_released_is_written_with_the_change_or_not_at_all(room: Room) -> None:
    parent = row("parent")
    children = [row(name, status=Status.PENDING, waits_for=(parent.recovery_id,)) for name in ("one", "two")]
    room.put(parent, *children)
    released = [release(child, parent.recovery_id, NOON_MS) for child in children]
    moved = room.note(children[1], "moved")
    room.changes.commit(moved)
    with pytest.raises(VersionConflict):
        room.changes.commit(room.note(parent), ANSWER, released)
    assert room.recovery.get(children[0].recovery_id) == children[0]
    assert room.recovery.get(parent.recovery_id) == parent
    assert room.changes.answered("ada", ANSWER.key, NOON_MS) is None
    released[1] = release(moved.after, parent.recovery_id, NOON_MS)
    assert room.changes.commit(room.note(parent), ANSWER, released) is None
    assert [room.recovery.get(one.after.recovery_id) for one in released] == [one.after for one in released]
    assert room.changes.commit(room.note(parent), replace(ANSWER, answer="2"), released) == ANSWER


def test_more_than_one_transaction_holds_is_refused_before_anything_is_written(room: Room) -> None:
    parent = row("parent")
    children = [row(f"c{n}", waits_for=(parent.recovery_id,)) for n in range(98)]
    released = [release(child, parent.recovery_id, NOON_MS) for child in children]
    room.put(parent)
    with pytest.raises(ValueError, match="101"):
        room.changes.commit(room.note(parent), ANSWER, released)
    assert room.recovery.get(parent.recovery_id) == parent


def test_rows_are_counted_by_status_but_for_what_is_well_and_up_to_a_bound(room: Room) -> None:
    ended = {"due_at_ms": 0, "not_before_ms": 0}
    room.put(
        *(row(f"d{n}", status=Status.DLQ, **ended) for n in range(5)),
        row("f", status=Status.FAILED, **ended),
        row("w", status=Status.PENDING, due_at_ms=0, waits_for=("p",)),
        row("p", status=Status.PENDING),
        row("r", status=Status.RETRYING),
        row("s", status=Status.SUCCEEDED, **ended),
        row("u", status=Status.REPLAYED),
        row("v", status=Status.REPLAYED, result="succeeded", **ended),
        row("elsewhere", integration_id="sms"),
    )
    counted = {Status.DLQ: 5, Status.FAILED: 1, Status.PENDING: 2, Status.RETRYING: 1, Status.REPLAYED: 1}
    assert room.changes.count("helpdesk", 100) == counted
    assert room.changes.count("helpdesk", 3) == {**counted, Status.DLQ: 3}
    assert room.changes.count("nobody", 3) == {}


# --- what only the table can show ---


def test_without_the_audit_nothing_is_written() -> None:
    with aws_tables.moto_tables() as client:
        room = _over(client, client)
        one = row()
        room.put(one)
        client.delete_table(TableName=aws_tables.AUDIT)
        with pytest.raises(StorageUnavailable):
            room.changes.commit(room.note(one), ANSWER)
        assert room.recovery.get(one.recovery_id) == one
        assert room.changes.answered("ada", ANSWER.key, NOON_MS) is None


@pytest.mark.parametrize("answered", [None, ANSWER], ids=["without a key", "with one"])
def test_a_lost_answer_is_no_conflict_with_oneself(answered: Answered | None) -> None:
    with aws_tables.moto_tables() as client:
        flaky = Flaky(client)
        room = _over(flaky, client)
        one = row()
        room.put(one)
        flaky.planned["transact_write_items"] = [Lost()]
        change = room.note(one)
        assert room.changes.commit(change, answered) in (None, answered)
        assert room.recovery.get(one.recovery_id) == change.after
        assert room.audit_size() == 1


@pytest.mark.parametrize(
    "attributes", [{}, {"asked": {"S": "x"}}, {"asked": {"S": "x"}, "answer": {"S": "{}"}, "at": {"S": "1"}}]
)
def test_a_record_that_cannot_be_read_back_lets_no_second_replay_through(attributes: dict[str, Any]) -> None:
    with aws_tables.moto_tables() as client:
        client.put_item(TableName=aws_tables.CONTROL, Item={"pk": {"S": "I#ada#key-00001"}, **attributes})
        room = _over(client, client)
        with pytest.raises(StorageUnavailable):
            room.changes.answered("ada", "key-00001", NOON_MS)


def test_a_row_of_another_version_is_named_and_hides_no_other() -> None:
    with aws_tables.moto_tables() as client:
        room = _over(client, client)
        one = row()
        room.put(one)
        (stored,) = client.scan(TableName=aws_tables.RECOVERY)["Items"]
        client.put_item(
            TableName=aws_tables.RECOVERY,
            Item={**stored, "pk": {"S": "strange"}, "effect": {"S": "of a later version"}},
        )
        page = room.changes.page("helpdesk", [Status.RETRYING], "", 50)
        assert ([found.recovery_id for found in page.rows], page.unreadable) == ([one.recovery_id], ("strange",))


class Reading:
    """A client that counts the index entries that its queries read."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.read = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def query(self, **request: Any) -> Any:
        answer = self.client.query(**request)
        self.read += answer["ScannedCount"]
        return answer


def test_counting_reads_no_more_of_a_status_than_it_is_asked_to_count() -> None:
    with aws_tables.moto_tables() as client:
        reading = Reading(client)
        room = _over(reading, client)
        room.put(*(row(f"d{n}", status=Status.DLQ, due_at_ms=0, not_before_ms=0) for n in range(80)))
        assert room.changes.count("helpdesk", 20) == {Status.DLQ: 20}
        assert reading.read <= 20
