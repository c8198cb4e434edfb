"""The calls that tell what happened: what they refuse, what they answer when nothing is known or storage is silent."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any, cast

import pytest

from functions.core.audit import AuditEvent, AuditType, Severity
from functions.core.cursor import cursor_of
from functions.core.ports import DoorLine
from functions.core.recovery import event_recovery_id
from functions.operator_api.calls import audit, events, rejections, trace
from functions.operator_api.ports import Ports
from functions.operator_api.tracing import AUDIT_OF_REQUEST, AUDIT_OF_ROW
from tests.contract.storage import claim
from tests.fakes import (
    LIVE_SWITCHES,
    NOON_MS,
    FakeAudit,
    FakeAuditLog,
    FakeClock,
    FakeDoor,
    FakeEventIndex,
    FakeIds,
    FakeLedger,
    FakeSwitches,
    FakeTables,
)
from tests.operator_calls import VIEWER, Answering, call, claims_of
from tests.recovery_rows import event_row

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

PATHS = ("/platform/trace", "/platform/audit", "/platform/rejections", "/platform/events/desk%3A1")


class Room:
    def __init__(self) -> None:
        self.tables = FakeTables()
        self.clock = FakeClock()
        self.door = FakeDoor(self.tables.faults)
        absent: dict[str, Any] = {port.name: cast("Any", None) for port in fields(Ports)}
        ports = replace(
            Ports(**absent),
            clock=self.clock,
            ids=FakeIds(),
            switches=FakeSwitches(self.clock, LIVE_SWITCHES),
            index=FakeEventIndex(self.tables),
            audit_log=FakeAuditLog(self.tables),
            door=self.door,
        )
        subjects = (events, trace, audit, rejections)
        self.answering = Answering([subject.routes(ports) for subject in subjects], clock=self.clock)

    def get(self, path: str, claims: Any = VIEWER, **query: str) -> dict[str, Any]:
        return self.answering(call("GET", path, claims=claims, query=query))

    def code(self, path: str, **query: str) -> str:
        return str(self.get(path, **query)["document"].get("code", ""))

    def recorded(self, number: int, entity: str = "switch", **more: Any) -> AuditEvent:
        event = AuditEvent(
            id=f"a{number}",
            at_ms=NOON_MS + number,
            event_type=AuditType.SWITCH_CHANGED,
            severity=Severity.WARNING,
            tenant="",
            actor="ada",
            affected_entity=entity,
            affected_id="mode",
            request_id="req-12345",
            **more,
        )
        FakeAudit(self.tables).append([event])
        return event


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.mark.parametrize("path", PATHS)
def test_who_may_not_look_sees_nothing(room: Room, path: str) -> None:
    assert room.get(path, claims=claims_of("eve"))["document"]["code"] == "INT-403-PERMISSION-DENIED"
    assert room.tables.faults.calls == []


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"ticket": "t", "recipient": "f" * 32},
        {"ticket": "t", "request_id": "r"},
        {"recipient": "+15005550006"},
        {"recipient": "ann@example.com"},
        {"recipient": "F" * 32},
        {"recipient": "f" * 32 + "\n"},
        {"request_id": "a b"},
        {"request_id": "x" * 65},
        {"request_id": "r", "cursor": "AAAA"},
        {"ticket": "x" * 257},
        {"ticket": "t", "cursor": "garbage!"},
        {"ticket": "t", "cursor": cursor_of(["a"])},
        {"ticket": "t", "limit": "0"},
        {"ticket": "t", "limit": "201"},
        {"ticket": "t", "limit": "many"},
    ],
)
def test_what_is_no_question_about_one_thing_is_refused_and_never_repeated(room: Room, query: dict[str, str]) -> None:
    answer = room.get("/platform/trace", **query)
    assert (answer["statusCode"], answer["document"]["code"]) == (400, "INT-400-INVALID-PAYLOAD")
    for told in ("5550006", "ann@"):
        assert told not in answer["body"]
        assert told not in room.answering.log.getvalue()


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/platform/audit", {}),
        ("/platform/audit", {"entity": "switch#mode", "request_id": "r"}),
        ("/platform/audit", {"entity": "mode"}),
        ("/platform/audit", {"entity": "#"}),
        ("/platform/audit", {"entity": "switch#a\x00b"}),
        ("/platform/audit", {"entity": "switch#" + "\ud800"}),
        ("/platform/audit", {"request_id": "a/b"}),
        ("/platform/audit", {"request_id": "req-12345", "cursor": cursor_of([1])}),
        ("/platform/audit", {"entity": "switch#mode", "cursor": "?"}),
        ("/platform/rejections", {"since": "yesterday"}),
        ("/platform/rejections", {"since": "31d"}),
        ("/platform/rejections", {"source": '" "'}),
        ("/platform/rejections", {"reason": "No"}),
        ("/platform/rejections", {"request_id": "a b"}),
        ("/platform/events/desk%3A1", {"tenant": "a b"}),
    ],
)
def test_garbage_is_refused_wherever_it_is_put(room: Room, path: str, query: dict[str, str]) -> None:
    assert room.code(path, **query) == "INT-400-INVALID-PAYLOAD"


def test_nothing_known_is_an_empty_answer_and_an_event_that_is_none_is_not_found(room: Room) -> None:
    for query in ({"ticket": "t"}, {"recipient": "f" * 32}):
        assert room.get("/platform/trace", **query)["document"] == {
            "events": [],
            "audit": [],
            "door": None,
            "cursor": None,
            "is_complete": True,
        }
    room.door.reaches_to_ms = NOON_MS - 60_000
    nothing = room.get("/platform/trace", request_id="req-1")["document"]
    assert nothing["door"] == {"request": None, "since_ms": NOON_MS - 60_000, "is_complete": False}
    missing = room.get("/platform/events/desk%3A1", tenant="acme")
    assert missing["statusCode"] == 404
    assert missing["document"]["log_read_since_ms"] == NOON_MS - 60_000
    assert room.get("/platform/audit", entity="switch#mode")["document"]["events"] == []


@pytest.mark.parametrize(
    ("broken", "path", "query"),
    [
        ("index.find", "/platform/trace", {"ticket": "t"}),
        ("index.find", "/platform/trace", {"request_id": "r"}),
        ("index.items", "/platform/events/desk%3A1", {"tenant": "acme"}),
        ("index.rows", "/platform/events/desk%3A1", {"tenant": "acme"}),
        ("audit_log.of_entity", "/platform/events/desk%3A1", {}),
        ("audit_log.of_request", "/platform/audit", {"request_id": "r"}),
        ("audit_log.of_entity", "/platform/audit", {"entity": "switch#mode"}),
        ("door.sighting", "/platform/trace", {"request_id": "r"}),
        ("door.rejections", "/platform/rejections", {}),
    ],
)
def test_storage_that_does_not_answer_is_said_and_never_taken_for_nothing(
    room: Room, broken: str, path: str, query: dict[str, str]
) -> None:
    room.tables.faults.fail(broken)
    assert room.code(path, **query) == "INT-503-DEPENDENCY-UNAVAILABLE"


def test_switches_that_cannot_be_read_are_called_unknown_and_the_story_is_told_all_the_same(room: Room) -> None:
    FakeLedger(room.tables).claim(claim())
    known = room.get("/platform/trace", ticket="c-1")["document"]["events"][0]
    assert known["switches"]["is_known"]
    room = Room()
    room.answering = Answering([trace.routes(replace(_ports(room), switches=cast("Any", _NoSwitches())))])
    FakeLedger(room.tables).claim(claim())
    assert not room.get("/platform/trace", ticket="c-1")["document"]["events"][0]["switches"]["is_known"]


class _NoSwitches:
    def snapshot(self, max_age_ms: int) -> None:
        return None


def _ports(room: Room) -> Ports:
    absent: dict[str, Any] = {port.name: cast("Any", None) for port in fields(Ports)}
    return replace(
        Ports(**absent),
        clock=room.clock,
        index=FakeEventIndex(room.tables),
        audit_log=FakeAuditLog(room.tables),
        door=room.door,
    )


def test_a_requests_own_changes_are_told_where_it_brought_no_event(room: Room) -> None:
    room.recorded(1)
    document = room.get("/platform/trace", request_id="req-12345")["document"]
    assert (document["events"], document["door"]) == ([], None)
    assert [one["actor"] for one in document["audit"]] == ["ada"]


def test_the_record_of_one_thing_comes_page_by_page(room: Room) -> None:
    for number in range(5):
        room.recorded(number)
    first = room.get("/platform/audit", entity="switch#mode", limit="3")["document"]
    rest = room.get("/platform/audit", entity="switch#mode", limit="3", cursor=first["cursor"])["document"]
    assert [one["id"] for one in (*first["events"], *rest["events"])] == [f"a{number}" for number in range(5)]
    assert rest["cursor"] is None


def pages(room: Room, limit: int = 200, **query: str) -> list[list[str]]:
    """The ids of each page of a record, to its end."""
    found: list[list[str]] = []
    cursor: dict[str, str] = {}
    while True:
        document = room.get("/platform/audit", **query, **cursor, limit=str(limit))["document"]
        found.append([one["id"] for one in document["events"]])
        if document["cursor"] is None:
            return found
        cursor = {"cursor": document["cursor"]}


@pytest.mark.parametrize("limit", [7, 200])
def test_a_record_longer_than_is_read_together_goes_on_to_its_end(room: Room, limit: int) -> None:
    """A bulk replay's request has touched thousands of items: each event once, in the order of time."""
    for number in range(2 * AUDIT_OF_REQUEST + 5):
        room.recorded(number, entity=f"thing{number % 2}")
    found = [event_id for page in pages(room, limit, request_id="req-12345") for event_id in page]
    assert found == [f"a{number}" for number in range(2 * AUDIT_OF_REQUEST + 5)]


def test_events_of_one_moment_are_neither_lost_nor_repeated_where_a_part_of_the_record_ends(room: Room) -> None:
    for number in range(AUDIT_OF_REQUEST + 3):
        event = room.recorded(0, entity=f"thing{number:04d}")
        moved = replace(event, id=f"i{AUDIT_OF_REQUEST + 3 - number:04d}")
        FakeAudit(room.tables).append([moved])
    stored = sorted(event.id for event in room.tables.audit.values())
    assert sorted(event_id for page in pages(room, 50, request_id="req-12345") for event_id in page) == stored


def test_what_a_delivery_began_is_among_its_own_wherever_it_belongs_in_time(room: Room) -> None:
    item = {"entity": "recovery_item", "origin_request_id": "req-12345"}
    for number in (1, 3):
        room.recorded(number, **item)
    later = room.recorded(2, **item)
    FakeAudit(room.tables).append([replace(later, id="later", request_id="req-2", at_ms=NOON_MS + 2)])
    FakeAudit(room.tables).append([replace(later, id="others", request_id="req-3", origin_request_id="req-9")])
    assert pages(room, 2, request_id="req-12345") == [["a1", "a2"], ["later", "a3"]]


def test_a_trace_says_that_more_is_on_record_than_it_tells(room: Room) -> None:
    for number in range(AUDIT_OF_REQUEST):
        room.recorded(number)
    assert room.get("/platform/trace", request_id="req-12345")["document"]["is_complete"] is True
    room.recorded(AUDIT_OF_REQUEST)
    document = room.get("/platform/trace", request_id="req-12345")["document"]
    assert (len(document["audit"]), document["is_complete"]) == (AUDIT_OF_REQUEST, False)


def test_of_an_item_with_a_long_record_the_latest_is_told(room: Room) -> None:
    one = replace(event_row(), recovery_id=event_recovery_id("acme", "desk:1", 0), event_id="desk:1")
    room.tables.rows[one.recovery_id] = one
    event = replace(room.recorded(0), affected_entity="recovery_item", affected_id=one.recovery_id, request_id="req-1")
    for number in range(AUDIT_OF_ROW + 1):
        FakeAudit(room.tables).append([replace(event, id=f"b{number}", at_ms=NOON_MS + number)])
    document = room.get("/platform/trace", request_id="req-1")["document"]
    assert document["is_complete"] is False
    assert room.get("/platform/events/desk%3A1", tenant="acme")["document"]["is_complete"] is False
    (told,) = document["events"]
    assert max(step["at_ms"] for step in told["steps"]) == NOON_MS + AUDIT_OF_ROW
    whole = [event_id for page in pages(room, request_id="req-1") for event_id in page]
    assert sorted(whole) == sorted(f"b{number}" for number in range(AUDIT_OF_ROW + 1))


def test_all_of_the_record_of_what_a_delivery_began_is_told_however_long_it_is(room: Room) -> None:
    own = replace(room.recorded(0, entity="recovery_item"), request_id="req-1", origin_request_id="req-1")
    FakeAudit(room.tables).append([replace(own, id="own")])
    for number in range(AUDIT_OF_ROW + 1):
        later = replace(own, id=f"b{number}", at_ms=NOON_MS + 1 + number, request_id=f"req-{number + 2}")
        FakeAudit(room.tables).append([later])
    found = [event_id for page in pages(room, request_id="req-1") for event_id in page]
    assert found == ["own", *(f"b{number}" for number in range(AUDIT_OF_ROW + 1))]


def test_shadow_is_told_beside_the_real_event_and_without_its_rows(room: Room) -> None:
    for key in ("E#acme#desk:1", "S#acme#desk:1"):
        FakeLedger(room.tables).claim(claim(key=key))
    document = room.get("/platform/events/desk%3A1", tenant="acme")["document"]
    assert not document["event"]["is_shadow"]
    assert [one["is_shadow"] for one in document["others"]] == [True]


def test_rejections_name_a_source_only_where_it_is_one_of_ours(room: Room) -> None:
    line = DoorLine(NOON_MS - 1, is_refused=True, source="shop", provider="github", status=401, reason="stale")
    room.door.lines += [line, replace(line, source="drop-table", provider="none", reason="unknown_source")]
    document = room.get("/platform/rejections")["document"]
    assert {(one["reason"], one["source"]) for one in document["rejections"]} == {
        ("stale", "shop"),
        ("unknown_source", ""),
    }
    assert document["counts"] == {"stale": 1, "unknown_source": 1}
    assert (document["since_ms"], document["is_complete"]) == (NOON_MS - 3_600_000, True)
    assert room.get("/platform/rejections", source="shop")["document"]["counts"] == {"stale": 1}


def long_records(room: Room, events: int, steps: int) -> None:
    """Events of one ticket, each with a record that an outage and people have made long."""
    for number in range(events):
        FakeLedger(room.tables).claim(claim(key=f"E#acme#desk:{number}", received_at_ms=NOON_MS - number))
        one = event_row(event_id=f"desk:{number}", recovery_id=event_recovery_id("acme", f"desk:{number}", 0))
        room.tables.rows[one.recovery_id] = one
        record = AuditEvent(
            id="",
            at_ms=NOON_MS,
            event_type=AuditType.NOTED,
            severity=Severity.WARNING,
            tenant="acme",
            actor="ada",
            affected_entity="recovery_item",
            affected_id=one.recovery_id,
            request_id="req-2",
            reason='"as they said"' * 30,
        )
        for step in range(steps):
            room.tables.put_audit([replace(record, id=f"{step:04d}")])


def test_however_long_the_records_are_an_answer_is_one_that_lambda_can_give(room: Room) -> None:
    long_records(room, 60, 150)
    answer = room.get("/platform/trace", ticket="c-1", limit="200")
    assert answer["statusCode"] == 200
    assert len(json.dumps(answer["body"])) < 6_000_000
    stories = answer["document"]["events"]
    assert len(stories) == 60
    assert all(len(one["steps"]) + one["steps_left_out"] >= 150 for one in stories)
    assert all(one["steps"][-1]["detail"] for one in stories)  # the latest are those that are told


def test_an_answer_longer_than_lambda_takes_is_refused_in_words(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    long_records(room, 20, 20)
    monkeypatch.setattr("functions.operator_api.handler._MAX_ANSWER_BYTES", 60_000)
    refused = room.get("/platform/trace", ticket="c-1")
    assert (refused["statusCode"], refused["document"]["code"]) == (400, "INT-400-INVALID-PAYLOAD")
    assert "limit" in refused["document"]["detail"]
    assert room.get("/platform/trace", ticket="c-1", limit="1")["statusCode"] == 200
