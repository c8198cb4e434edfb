"""The calls about switches: who may, what is refused, what is set, what the audit says, and in which order (001.26)."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any, cast

import pytest

from functions.core.failure import StorageUnavailable, VersionConflict
from functions.operator_api.calls import switches
from functions.operator_api.ports import Ports
from tests.control_fakes import FakeSwitchHistory, FakeSwitchReturns, FakeSwitchWriter
from tests.fakes import LIVE_SWITCHES, NOON_MS, FakeAudit, FakeClock, FakeIds, FakeTables
from tests.operator_calls import OPERATOR, PERSON, VIEWER, Answering, call

PATH = "/platform/switches"
OFF: dict[str, Any] = {"value": "off", "reason": "wrong answers about returns"}


class Room:
    def __init__(self) -> None:
        self.tables = FakeTables()
        self.clock = FakeClock()
        self.history = FakeSwitchHistory(self.clock, self.tables.faults)
        for name, value in LIVE_SWITCHES.items():
            self.history.write(name, value, "deploy")
        self.clock.advance(60_000)
        self.returns = FakeSwitchReturns(self.tables)
        absent: dict[str, Any] = {port.name: cast("Any", None) for port in fields(Ports)}
        ports = replace(
            Ports(**absent),
            clock=self.clock,
            ids=FakeIds(),
            audit=FakeAudit(self.tables),
            switch_history=self.history,
            switch_returns=self.returns,
            switch_writer=FakeSwitchWriter(self.history),
        )
        self.answering = Answering([switches.routes(ports)], clock=self.clock)

    def put(self, name: str = "auto_reply", body: Any = None, claims: Any = OPERATOR) -> dict[str, Any]:
        sent = OFF if body is None else body
        return self.answering(call("PUT", f"{PATH}/{name}", claims=claims, body=json.dumps(sent)))

    def show(self) -> dict[str, dict[str, Any]]:
        answer = self.answering(call("GET", PATH, claims=VIEWER))
        assert answer["statusCode"] == 200
        return {one["name"]: one for one in answer["document"]["switches"]}

    def value(self, name: str = "auto_reply") -> str:
        return self.history.latest()[name].value


@pytest.fixture
def room() -> Room:
    return Room()


def test_every_switch_is_shown_with_its_version_and_what_it_says_every_day(room: Room) -> None:
    room.history.write("flow/support/mode", "hold", "somebody")
    room.history.write("something", "else", "somebody")
    told = room.show()
    assert list(told) == sorted([*LIVE_SWITCHES, "flow/support/mode", "something"])
    assert told["auto_reply"] == {
        "name": "auto_reply",
        "value": "on",
        "version": 1,
        "changed_at_ms": NOON_MS,
        "everyday": "on",
        "until_ms": None,
        "back_to": None,
    }
    assert (told["flow/support/mode"]["value"], told["flow/support/mode"]["everyday"]) == ("hold", "live")
    assert not told["something"].get("everyday")


def test_a_switch_is_set_and_the_audit_names_the_person_before_it_is(room: Room) -> None:
    answer = room.put()
    assert (answer["statusCode"], answer["document"]) == (
        200,
        {"name": "auto_reply", "value": "off", "version": 2, "before": "on", "until_ms": None, "back_to": None},
    )
    assert room.show()["auto_reply"]["value"] == "off"
    (event,) = room.tables.events
    assert (event.event_type, event.actor, event.reason) == ("platform.switch.changed", PERSON, OFF["reason"])
    assert (event.entity, event.request_id) == ("switch#auto_reply", answer["headers"]["x-request-id"])
    assert json.loads(event.before_state) == {"value": "on", "version": 1}
    assert json.loads(event.after_state) == {"value": "off"}
    operations = room.tables.faults.calls
    assert operations.index("audit.append") < operations.index("switch.put")


def test_the_parameter_itself_says_whose_change_it_is_so_that_the_evaluator_s_line_does_too(room: Room) -> None:
    room.put()
    assert room.history.versions("auto_reply")[-1].reason == f"{PERSON}: {OFF['reason']}"


@pytest.mark.parametrize(
    "path", ["limits/helpdesk", "limits%2Fhelpdesk", "limits%2fhelpdesk", "%6cimits/helpdesk"], ids=str
)
def test_a_name_with_a_slash_may_come_encoded_or_not(room: Room, path: str) -> None:
    answer = room.put(path, {"value": "0.5", "reason": "half of it"})
    assert (answer["statusCode"], answer["document"]["name"]) == (200, "limits/helpdesk")
    assert room.value("limits/helpdesk") == "0.5"
    assert answer["document"].get("before") is None
    assert room.tables.events[0].before_state == ""


def test_a_switch_of_one_flow_is_made_where_there_was_none(room: Room) -> None:
    assert room.put("flow/support/auto_reply")["document"]["version"] == 1
    assert room.value("flow/support/auto_reply") == "off"


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("auto_reply", {"value": "maybe"}),
        ("auto_reply", {"value": ""}),
        ("auto_reply", {"value": 1}),
        ("auto_reply", {"value": None}),
        ("auto_reply", {"reason": " "}),
        ("auto_reply", {"reason": None}),
        ("auto_reply", {"reason": "x" * 501}),
        ("auto_reply", {"actor": "somebody else"}),
        ("nothing", {}),
        ("limits/nobody", {"value": "0"}),
        ("limits/helpdesk", {"value": "2"}),
        ("disabled_integrations", {"value": "helpdeks"}),
        ("flow/../mode", {"value": "live"}),
        ("flow%2F..%2Fmode", {"value": "live"}),
        ("tenant/a%252Fb/mode", {"value": "live"}),
        ("auto_reply/", {}),
        ("/auto_reply", {}),
        ("x" * 301, {}),
    ],
    ids=repr,
)
def test_what_cannot_be_is_refused_and_nothing_is_set(room: Room, name: str, body: dict[str, Any]) -> None:
    sent = {key: value for key, value in {**OFF, **body}.items() if value is not None}
    answer = room.put(name, sent)
    assert (answer["statusCode"], answer["document"]["code"]) == (400, "INT-400-INVALID-PAYLOAD")
    assert {one["value"] for one in room.show().values()} == set(LIVE_SWITCHES.values())
    assert not room.tables.audit


def test_a_list_is_written_as_its_parameter_takes_it(room: Room) -> None:
    answer = room.put("disabled_integrations", {"value": " helpdesk, sms ", "reason": "r"})
    assert answer["document"]["value"] == room.value("disabled_integrations") == "helpdesk,sms"


def test_who_may_only_look_sets_nothing(room: Room) -> None:
    assert room.put(claims=VIEWER)["document"]["code"] == "INT-403-PERMISSION-DENIED"
    assert room.value() == "on"


def test_without_an_audit_there_is_no_change(room: Room) -> None:
    room.tables.faults.fail("audit.append", StorageUnavailable("down"))
    answer = room.put()
    assert (answer["statusCode"], answer["document"]["code"]) == (503, "INT-503-DEPENDENCY-UNAVAILABLE")
    assert room.value() == "on"
    assert "switch.put" not in room.tables.faults.calls


@pytest.mark.parametrize("name", ["auto_reply", "flow/support/auto_reply"])
def test_a_change_whose_answer_was_lost_is_found_and_told(room: Room, name: str) -> None:
    room.tables.faults.fail("switch.put", StorageUnavailable("lost"), when="after")
    answer = room.put(name)
    assert (answer["statusCode"], answer["document"]["value"]) == (200, "off")


def test_a_change_that_was_not_made_is_not_told_as_made(room: Room) -> None:
    room.tables.faults.fail("switch.put")
    answer = room.put()
    assert (answer["statusCode"], answer["document"]["may_have_changed"]) == (503, False)
    assert "was not changed" in answer["document"]["detail"]


def test_who_cannot_be_told_whether_it_was_changed_reads_that(room: Room) -> None:
    room.tables.faults.on_before = lambda operation: (
        room.tables.faults.fail("history.latest") if (operation == "switch.put") else None
    )
    room.tables.faults.fail("switch.put", when="after")
    answer = room.put()
    assert (answer["statusCode"], answer["document"]["may_have_changed"]) == (503, True)


def test_while_the_parameter_store_is_down_nothing_is_shown_and_nothing_is_said_to_be_asked_for(room: Room) -> None:
    room.tables.faults.fail("history.latest", times=2)
    assert room.answering(call("GET", PATH, claims=VIEWER))["statusCode"] == 503
    assert room.put()["statusCode"] == 503
    assert not room.tables.audit


# ------------------------------------------------------------------------------------------------------- for a time

FOR = {**OFF, "for": "30m"}


def test_a_switch_is_set_for_a_time_and_shown_with_its_end(room: Room) -> None:
    until_ms = room.clock.now_ms() + 1_800_000
    answer = room.put(body=FOR)
    assert answer["statusCode"] == 200
    assert (answer["document"]["until_ms"], answer["document"]["back_to"]) == (until_ms, "on")
    told = room.show()["auto_reply"]
    assert (told["value"], told["until_ms"], told["back_to"]) == ("off", until_ms, "on")
    assert room.show()["mode"].get("until_ms") is None
    (event,) = room.tables.events
    assert json.loads(event.after_state) == {"value": "off", "for": "30m"}
    (promise,) = room.returns.stored.promises
    assert (promise.version, promise.actor, promise.description) == (2, PERSON, f"{PERSON}: {OFF['reason']}")
    operations = room.tables.faults.calls
    assert operations.index("returns.store") < operations.index("switch.put")


def test_a_time_on_top_of_a_time_returns_to_what_was_before_both(room: Room) -> None:
    room.put(body=FOR)
    answer = room.put(body={**FOR, "for": "2h"})
    assert answer["document"]["back_to"] == "on"
    room.put(body={**OFF, "reason": "for good"})
    assert room.show()["auto_reply"].get("until_ms") is None, "what is set without a time stays"


def test_a_switch_that_was_not_set_returns_to_what_permits_everything(room: Room) -> None:
    assert room.put("flow/support/auto_reply", FOR)["document"]["back_to"] == "on"
    assert room.put("limits/helpdesk", {**FOR, "value": "0.5"})["document"]["back_to"] == "1"


@pytest.mark.parametrize("change", [{"for": "59s"}, {"for": "31d"}, {"for": "soon"}, {"for": 5}, {"value": "on"}])
def test_a_time_that_cannot_be_or_would_change_nothing_is_refused(room: Room, change: dict[str, Any]) -> None:
    answer = room.put(body={**FOR, **change})
    assert (answer["statusCode"], answer["document"]["code"]) == (400, "INT-400-INVALID-PAYLOAD")
    assert (room.value(), room.returns.stored.promises) == ("on", ())
    assert not room.tables.audit


def test_without_a_promise_and_its_audit_nothing_is_set(room: Room) -> None:
    room.tables.faults.fail("returns.store", StorageUnavailable("down"))
    assert room.put(body=FOR)["statusCode"] == 503
    room.tables.faults.fail("returns.store", VersionConflict("moved"), times=3)
    assert room.put(body=FOR)["document"]["code"] == "INT-409-IN-PROGRESS"
    assert "switch.put" not in room.tables.faults.calls
    room.tables.faults.fail("returns.store", VersionConflict("moved"), times=2)
    assert room.put(body=FOR)["statusCode"] == 200


def set_by_another_before_it_is_put(room: Room) -> None:
    meant = [True]

    def between(operation: str) -> None:
        if operation == "switch.put" and meant:
            meant.pop()
            room.history.write("auto_reply", "on", "bert")

    room.tables.faults.on_before = between


def test_who_is_crossed_by_another_has_the_promise_moved_to_the_version_that_it_got(room: Room) -> None:
    set_by_another_before_it_is_put(room)
    assert room.put(body=FOR)["document"]["version"] == 3
    (promise,) = room.returns.stored.promises
    assert promise.version == 3
    assert room.show()["auto_reply"]["back_to"] == "on"


@pytest.mark.parametrize("trouble", [StorageUnavailable("down"), VersionConflict("moved")], ids=str)
def test_a_promise_that_cannot_be_moved_is_told_as_one_that_will_not_be_kept(room: Room, trouble: Exception) -> None:
    set_by_another_before_it_is_put(room)
    between = room.tables.faults.on_before

    def also_down(operation: str) -> None:
        assert between is not None
        between(operation)
        if operation == "switch.put":
            room.tables.faults.fail("returns.store", trouble, times=3)

    room.tables.faults.on_before = also_down
    answer = room.put(body=FOR)
    assert (answer["statusCode"], answer["document"]["may_have_changed"]) == (503, True)
    assert "will not return by itself" in answer["document"]["detail"]
