"""Incidents in the control table: the double and the adapter keep the same promises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from functions.adapters.incidents import BOARD_KEY, DynamoIncidents
from functions.core import ports
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.incident import (
    MOST_PAGES,
    PAGE_LENGTH,
    POSTMORTEM_LENGTH,
    TEXT_LENGTH,
    Board,
    Findings,
    Incident,
    Told,
    acknowledged,
    noted,
    reviewed,
    taken,
    told,
)
from tests import aws_tables
from tests.contract.storage import Flaky, Lost, client_error
from tests.fakes import NOON_MS, FakeIds, FakeTables
from tests.incident_fakes import FakeIncidents
from tests.incidents import ADA, DOWN, RULES, after, rung


@dataclass
class Stores:
    incidents: ports.Incidents
    audited: Any


@contextmanager
def in_memory() -> Iterator[Stores]:
    tables = FakeTables()
    yield Stores(FakeIncidents(tables), lambda: sorted(event.id for event in tables.events))


@contextmanager
def in_dynamodb() -> Iterator[Stores]:
    with aws_tables.moto_tables() as client:
        yield over(client)


def over(client: Any) -> Stores:
    def audited() -> list[str]:
        return sorted(item["id"]["S"] for item in client.scan(TableName=aws_tables.AUDIT)["Items"])

    return Stores(
        DynamoIncidents(
            client,
            FakeIds(),
            control_table=aws_tables.CONTROL,
            audit_table=aws_tables.AUDIT,
            pause=lambda _: None,
        ),
        audited,
    )


@pytest.fixture(params=[in_memory, in_dynamodb], ids=["memory", "dynamodb"])
def stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    """Empty tables."""
    with request.param() as found:
        yield found


def opened(stores: Stores) -> Incident:
    change = rung(DOWN, board=stores.incidents.board())
    stores.incidents.store(change)
    assert change.after is not None
    return change.after


def test_an_incident_its_board_and_its_audit_event_are_written_together_and_read_back(stores: Stores) -> None:
    assert (stores.incidents.get("nobody"), stores.incidents.board()) == (None, Board())
    incident = opened(stores)
    assert stores.incidents.get(incident.incident_id) == incident
    board = stores.incidents.board()
    assert (board.open, board.seen) == ({"providers": incident.incident_id}, {DOWN.name: (NOON_MS, 0)})
    assert stores.incidents.several([incident.incident_id, "nobody"]) == {incident.incident_id: incident}
    assert stores.incidents.several([]) == {}
    assert len(stores.audited()) == 1


def test_what_is_heard_of_an_alarm_without_an_incident_is_kept(stores: Stores) -> None:
    stores.incidents.store(rung(DOWN, is_firing=False))
    assert stores.incidents.board() == Board(seen={DOWN.name: (0, NOON_MS)}, version=1)
    assert stores.audited() == []


def test_of_two_who_saw_the_same_incident_one_moves_it(stores: Stores) -> None:
    incident = opened(stores)
    first = acknowledged(incident, stores.incidents.board(), NOON_MS, ADA)
    stores.incidents.store(first)
    with pytest.raises(VersionConflict):
        stores.incidents.store(taken(incident, NOON_MS, RULES))
    assert stores.incidents.get(incident.incident_id) == first.after
    assert len(stores.audited()) == 2


def test_two_who_hear_of_the_same_alarm_open_one_incident(stores: Stores) -> None:
    board = stores.incidents.board()
    stores.incidents.store(rung(DOWN, board=board))
    other = rung(DOWN, board=board, new_id="cd" * 16)
    assert other.after is not None
    with pytest.raises(VersionConflict):
        stores.incidents.store(other)
    assert stores.incidents.get(other.after.incident_id) is None
    assert len(stores.audited()) == 1


def test_an_incident_that_is_gone_is_not_written(stores: Stores) -> None:
    made = rung(DOWN).after
    assert made is not None
    with pytest.raises(VersionConflict):
        stores.incidents.store(noted(made, Findings("x"), Board(), NOON_MS, ADA))
    assert stores.audited() == []


@pytest.mark.parametrize("times", [1, 2])
def test_a_write_whose_answer_was_lost_was_made(times: int) -> None:
    with aws_tables.moto_tables() as client:
        flaky = Flaky(client)
        stores = over(flaky)
        flaky.planned["transact_write_items"] = [Lost() for _ in range(times)]
        incident = opened(stores)
        assert stores.incidents.get(incident.incident_id) == incident
        assert stores.incidents.board().active == (incident.incident_id,)


@pytest.mark.parametrize("operation", ["get_item", "transact_write_items", "batch_get_item"])
def test_a_table_that_does_not_answer_is_trouble(operation: str) -> None:
    with aws_tables.moto_tables() as client:
        flaky = Flaky(client)
        stores = over(flaky)
        incident = opened(stores)
        flaky.planned[operation] = [client_error("AccessDeniedException")]
        calls: dict[str, Any] = {
            "get_item": lambda: stores.incidents.get(incident.incident_id),
            "transact_write_items": lambda: stores.incidents.store(taken(incident, NOON_MS, RULES)),
            "batch_get_item": lambda: stores.incidents.several([incident.incident_id]),
        }
        with pytest.raises(StorageUnavailable):
            calls[operation]()


def test_what_cannot_be_read_back_is_trouble_and_not_an_empty_item() -> None:
    with aws_tables.moto_tables() as client:
        incidents = over(client).incidents
        client.put_item(TableName=aws_tables.CONTROL, Item={"pk": {"S": "N#odd"}, "incident": {"S": "{}"}})
        client.put_item(TableName=aws_tables.CONTROL, Item={"pk": {"S": BOARD_KEY}})
        for read in (lambda: incidents.get("odd"), incidents.board):
            with pytest.raises(StorageUnavailable):
                read()


@pytest.mark.parametrize("odd", [{"incident": {"S": "{}"}}, {"incident": {"NULL": True}}, {}])
def test_one_that_cannot_be_read_back_keeps_nobody_from_the_others(odd: dict[str, Any]) -> None:
    with aws_tables.moto_tables() as client:
        stores = over(client)
        incident = opened(stores)
        client.put_item(TableName=aws_tables.CONTROL, Item={"pk": {"S": "N#odd"}, **odd})
        assert stores.incidents.several(["odd", incident.incident_id]) == {incident.incident_id: incident}


def test_the_longest_incident_fits_an_item_in_every_script() -> None:
    """Else nothing of it could be written any more: no page, no acknowledgement, no end."""
    letter = "\U0001f4df"
    with aws_tables.moto_tables() as client:
        stores = over(client)
        incident = opened(stores)
        for _ in range(MOST_PAGES):
            update = Told(NOON_MS, "a" * 200, "internal_update", 1, "internal")
            text = letter * PAGE_LENGTH
            incident, _ = after(
                told(incident, update, text, stores.incidents.board(), NOON_MS, ADA, RULES, is_internal=True), Board()
            )
        words = letter * (TEXT_LENGTH // 2)
        findings = Findings(words, words, words, words)
        incident, _ = after(noted(incident, findings, stores.incidents.board(), NOON_MS, ADA), Board())
        incident = replace(incident, told=incident.told * 4)
        change = reviewed(incident, letter * POSTMORTEM_LENGTH, stores.incidents.board(), NOON_MS, ADA)
        stored = opened_version(stores)
        stores.incidents.store(replace(change, before=stored))
        assert stores.incidents.get(incident.incident_id) == change.after


def opened_version(stores: Stores) -> Incident:
    found = stores.incidents.get(stores.incidents.board().active[0])
    assert found is not None
    return found


def test_the_table_says_at_a_glance_what_it_is_and_forgets_it_after_a_year() -> None:
    with aws_tables.moto_tables() as client:
        stores = over(client)
        incident = opened(stores)
        item = client.get_item(TableName=aws_tables.CONTROL, Key={"pk": {"S": f"N#{incident.incident_id}"}})["Item"]
        assert (item["state"]["S"], item["version"]["N"]) == ("open", "1")
        assert int(item["ttl"]["N"]) > NOON_MS // 1000 + 365 * 86_400
