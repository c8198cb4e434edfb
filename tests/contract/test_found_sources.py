"""`ports.FoundSources`: how the evaluator has found the sources, in the double and in DynamoDB (002.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from functions.adapters.found_sources import FOUND_KEY, DynamoFoundSources
from functions.core.failure import StorageUnavailable, UnreadableItem, VersionConflict
from functions.core.ports import FoundSources
from functions.core.subjects import MOST_KEPT, SourcesFound
from tests import aws_tables
from tests.control_fakes import FakeFoundSources
from tests.fakes import NOON_MS

FIRST = SourcesFound().moved({"shop": NOON_MS}, {"desk": NOON_MS - 1})


@pytest.fixture(params=["memory", "dynamodb"])
def found(request: pytest.FixtureRequest) -> Iterator[FoundSources]:
    if request.param == "memory":
        yield FakeFoundSources()
        return
    with aws_tables.moto_tables() as client:
        yield DynamoFoundSources(client, aws_tables.CONTROL)


def test_nothing_is_found_at_first(found: FoundSources) -> None:
    assert found.read() == SourcesFound()


def test_what_is_stored_is_read_back(found: FoundSources) -> None:
    found.store(FIRST)
    assert found.read() == FIRST
    second = FIRST.moved({}, {})
    found.store(second)
    assert found.read() == second


def test_of_two_runs_that_saw_the_same_the_second_to_find_something_else_is_refused(found: FoundSources) -> None:
    found.store(FIRST)
    with pytest.raises(VersionConflict):
        found.store(SourcesFound().moved({"other": 1}, {}))
    found.store(FIRST.moved({}, {}))
    with pytest.raises(VersionConflict):
        found.store(FIRST.moved({"other": 1}, {}))
    with pytest.raises(VersionConflict):
        found.store(SourcesFound({}, {}, 7))
    assert found.read() == FIRST.moved({}, {})


def test_meeting_its_own_earlier_success_is_success(found: FoundSources) -> None:
    """The answer was lost, and the write goes out again."""
    for each in (FIRST, FIRST.moved({}, {})):
        found.store(each)
        found.store(each)
        assert found.read() == each


def test_as_many_as_are_kept_fit(found: FoundSources) -> None:
    many = {f"{n:04}{'x' * 60}": NOON_MS + n for n in range(MOST_KEPT)}
    full = SourcesFound().moved(many, many)
    found.store(full)
    assert found.read() == full


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"found": {"S": "[]"}, "version": {"N": "1"}},
        {"found": {"S": '{"silent":{"shop":1e999},"unreadable":{}}'}, "version": {"N": "9"}},
    ],
)
def test_an_item_that_cannot_be_read_back_is_trouble_and_not_an_empty_one(item: dict[str, Any]) -> None:
    with aws_tables.moto_tables() as client:
        client.put_item(TableName=aws_tables.CONTROL, Item={"pk": {"S": FOUND_KEY}, **item})
        stored = DynamoFoundSources(client, aws_tables.CONTROL)
        with pytest.raises(UnreadableItem):
            stored.read()
        stored.store(FIRST, is_anew=True)
        assert stored.read() == FIRST


def test_what_is_kept_anew_takes_the_place_of_whatever_is_there(found: FoundSources) -> None:
    for _ in range(2):
        found.store(FIRST, is_anew=True)
        assert found.read() == FIRST
        found.store(FIRST.moved({}, {}))


def test_a_table_that_does_not_answer_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    with aws_tables.moto_tables() as client:
        stored = DynamoFoundSources(client, "nowhere")
        with pytest.raises(StorageUnavailable):
            stored.store(FIRST)
        with pytest.raises(StorageUnavailable):
            stored.read()

        def times_out(*_: Any, **__: Any) -> None:
            raise ReadTimeoutError(endpoint_url="dynamodb")

        monkeypatch.setattr(client, "_make_api_call", times_out)
        with pytest.raises(StorageUnavailable):
            DynamoFoundSources(client, aws_tables.CONTROL).store(FIRST)
