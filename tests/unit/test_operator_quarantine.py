"""The calls about quarantine: who may, what is refused, what is stored, what the audit says (001.44)."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any, cast

import pytest

from functions.core.failure import StorageUnavailable, VersionConflict
from functions.operator_api.calls import quarantine
from functions.operator_api.ports import Ports
from tests.fakes import NOON_MS, FakeClock, FakeIds, FakeQuarantines, FakeTables
from tests.operator_calls import OPERATOR, PERSON, VIEWER, Answering, call

PATH = "/platform/quarantine"
RULE: dict[str, Any] = {"source": "shop", "event_version": "3", "for": "2h", "reason": "no totals in version 3"}


class Room:
    def __init__(self) -> None:
        self.tables = FakeTables()
        self.clock = FakeClock()
        absent: dict[str, Any] = {port.name: cast("Any", None) for port in fields(Ports)}
        ports = replace(Ports(**absent), clock=self.clock, ids=FakeIds(), quarantines=FakeQuarantines(self.tables))
        self.answering = Answering([quarantine.routes(ports)], clock=self.clock)

    def add(self, body: Any = None, claims: Any = OPERATOR) -> dict[str, Any]:
        sent = RULE if body is None else body
        return self.answering(call("POST", PATH, claims=claims, body=json.dumps(sent)))

    def show(self) -> list[dict[str, Any]]:
        answer = self.answering(call("GET", PATH, claims=VIEWER))
        assert answer["statusCode"] == 200
        return list(answer["document"]["rules"])

    def remove(self, rule_id: str, query: dict[str, str] | None = None) -> dict[str, Any]:
        asked = {"reason": "mended"} if query is None else query
        return self.answering(call("DELETE", f"{PATH}/{rule_id}", claims=OPERATOR, query=asked))


@pytest.fixture
def room() -> Room:
    return Room()


def test_a_rule_is_made_shown_and_removed_and_each_change_is_in_the_audit_with_its_person(room: Room) -> None:
    made = room.add()
    assert made["statusCode"] == 201
    rule = made["document"]
    assert (rule["author"], rule["expires_at_ms"]) == (PERSON, NOON_MS + 7_200_000)
    assert room.show() == [rule]
    room.clock.advance(1_000)
    removed = room.remove(rule["id"])
    assert (removed["statusCode"], removed["document"]) == (200, {"rules": []})
    assert [(event.actor, event.reason) for event in room.tables.events] == [
        (PERSON, RULE["reason"]),
        (PERSON, "mended"),
    ]
    assert room.tables.events[0].request_id == made["headers"]["x-request-id"]


def test_who_may_only_look_makes_and_removes_nothing(room: Room) -> None:
    assert room.add(claims=VIEWER)["document"]["code"] == "INT-403-PERMISSION-DENIED"
    assert room.show() == []


@pytest.mark.parametrize(
    "change",
    [
        {"source": None, "event_version": None},
        {"source": ""},
        {"source": "a\nb"},
        {"source": "x" * 201},
        {"source": 7},
        {"for": "forever"},
        {"for": "31d"},
        {"for": "0m"},
        {"for": 60},
        {"for": None},
        {"reason": " "},
        {"reason": ""},
        {"reason": "x" * 501},
        {"failure_code": "lower"},
        {"author": "somebody else"},
        {"extra": 1},
    ],
    ids=repr,
)
def test_a_rule_that_cannot_be_is_refused_and_nothing_is_changed(room: Room, change: dict[str, Any]) -> None:
    answer = room.add({name: value for name, value in {**RULE, **change}.items() if value is not None})
    assert (answer["statusCode"], answer["document"]["code"]) == (400, "INT-400-INVALID-PAYLOAD")
    assert room.show() == []
    assert not room.tables.audit


def test_what_is_not_in_force_cannot_be_removed(room: Room) -> None:
    assert room.remove("f" * 32)["statusCode"] == 404
    assert room.remove("nonsense")["statusCode"] == 400
    rule = room.add()["document"]
    assert room.remove(rule["id"], {})["statusCode"] == 400, "a reason is needed"
    room.clock.advance(7_200_000)
    assert room.remove(rule["id"])["document"]["code"] == "INT-404-NOT-FOUND"


def test_while_storage_or_audit_does_not_answer_nothing_is_changed(room: Room) -> None:
    room.tables.faults.fail("quarantine.store", StorageUnavailable("down"))
    answer = room.add()
    assert (answer["statusCode"], answer["document"]["code"]) == (503, "INT-503-DEPENDENCY-UNAVAILABLE")
    assert room.show() == []


def test_who_meets_another_change_tries_again_and_in_the_end_says_so(room: Room) -> None:
    room.tables.faults.fail("quarantine.store", VersionConflict("moved"), times=2)
    assert room.add()["statusCode"] == 201
    room.tables.faults.fail("quarantine.store", VersionConflict("moved"), times=3)
    answer = room.add()
    assert (answer["statusCode"], answer["document"]["code"]) == (409, "INT-409-IN-PROGRESS")
    assert len(room.show()) == 1
