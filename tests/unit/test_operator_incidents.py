"""The calls about incidents: who may, what is refused, what is kept, and what the audit says (001.*)."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any, cast

import pytest

from functions.catalog.loader import load
from functions.core.alarms import Sev
from functions.core.audit import AuditEvent, AuditType, Severity
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.incident import MOST_RECENT, PageKind
from functions.core.page import Change
from functions.core.ports import Page
from functions.core.postmortem import PLACEHOLDER
from functions.core.replay_job import Job, asked
from functions.core.replay_job import State as JobState
from functions.incident_board import TRIES
from functions.operator_api.calls import incidents
from functions.operator_api.ports import Ports
from functions.operator_api.timeline import OF_AN_INCIDENT
from tests.control_fakes import FakeReplayJobs, FakeSwitchHistory
from tests.fakes import NOON_MS, FakeAudit, FakeAuditLog, FakeClock, FakeIds, FakeTables
from tests.incident_fakes import FakeIncidents, FakeRecentChanges
from tests.incidents import DOWN, HOUR_MS, MINUTE_MS, WEAK, fired, quiet
from tests.operator_calls import OPERATOR, PERSON, VIEWER, Answering, call

PATH = "/platform/incidents"
SEEN = {"title": "customers say they got it twice", "severity": "SEV2", "reason": "two tickets since noon"}


class Room:
    def __init__(self) -> None:
        self.tables = FakeTables()
        self.clock = FakeClock()
        self.incidents = FakeIncidents(self.tables)
        self.history = FakeSwitchHistory(self.clock, self.tables.faults)
        self.changes = FakeRecentChanges(self.tables.faults)
        self.jobs = FakeReplayJobs(self.tables)
        absent: dict[str, Any] = {port.name: cast("Any", None) for port in fields(Ports)}
        self.ports = replace(
            Ports(**absent),
            clock=self.clock,
            ids=FakeIds(),
            incidents=self.incidents,
            audit_log=FakeAuditLog(self.tables),
            switch_history=self.history,
            changes=self.changes,
            jobs=self.jobs,
            profiles=load().profiles,
            time_scale=1.0,
        )
        self.answering = Answering([incidents.routes(self.ports)], clock=self.clock)

    def ask(self, method: str, path: str, body: Any = None, claims: Any = OPERATOR, **query: str) -> dict[str, Any]:
        sent = None if body is None else json.dumps(body)
        return self.answering(call(method, path, claims=claims, body=sent, query=query or None))

    def opened(self, **said: str) -> dict[str, Any]:
        answer = self.ask("POST", PATH, SEEN | said)
        assert answer["statusCode"] == 201
        return cast("dict[str, Any]", answer["document"])

    def post(self, incident_id: str, what: str, body: Any) -> dict[str, Any]:
        return self.ask("POST", f"{PATH}/{incident_id}/{what}", body)

    def fires(self) -> str:
        incident, board = fired(DOWN, self.clock.now)
        self.incidents.incidents[incident.incident_id] = incident
        self.incidents.stored_board = board
        return incident.incident_id


@pytest.fixture
def room() -> Room:
    return Room()


def test_an_incident_is_opened_by_hand_its_clocks_run_and_the_audit_names_the_person_001_8(room: Room) -> None:
    told = room.opened(impact="doubled replies", scope="tenant acme")
    assert told["state"] == "open"
    assert (told["opened_by"], told["lead"], told["communications"]) == (PERSON, "incident_lead", "communications")
    assert told["acknowledge_due_ms"] == NOON_MS + HOUR_MS
    assert (told["impact"], told["scope"]) == ("doubled replies", "tenant acme")
    assert told["pages"][0]["kind"] == PageKind.OPENED.value
    (event,) = room.tables.events
    assert (event.event_type, event.actor) == (AuditType.INCIDENT_OPENED, PERSON)
    assert event.reason.endswith("two tickets since noon")


@pytest.mark.parametrize(
    "body",
    [
        SEEN | {"severity": "SEV4"},
        SEEN | {"title": ""},
        SEEN | {"title": "a\nb"},
        SEEN | {"reason": "  "},
        SEEN | {"more": 1},
        {},
    ],
)
def test_what_makes_no_incident_is_refused(room: Room, body: Any) -> None:
    assert room.ask("POST", PATH, body)["statusCode"] == 400
    assert room.incidents.incidents == {}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", PATH),
        *(("POST", f"{PATH}/SEV1-1-a/{what}") for what in ("ack", "severity", "note", "mitigate", "resolve")),
        ("POST", f"{PATH}/SEV1-1-a/message"),
        ("POST", f"{PATH}/SEV1-1-a/postmortem"),
        ("POST", "/platform/pages/test"),
    ],
)
def test_who_may_only_look_changes_nothing(room: Room, method: str, path: str) -> None:
    assert room.ask(method, path, SEEN, VIEWER)["statusCode"] == 403
    assert room.tables.events == []


def test_incidents_are_listed_the_newest_first_and_those_that_are_over_when_asked_for(room: Room) -> None:
    first = room.opened(severity="SEV3")
    room.clock.advance(1_000)
    second = room.opened()
    room.post(first["incident_id"], "resolve", {"resolution": "none of ours"})

    def ids(**query: str) -> list[str]:
        answer = room.ask("GET", PATH, None, VIEWER, **query)["document"]
        return [one["incident_id"] for one in answer["incidents"]]

    assert ids() == [second["incident_id"]]
    assert ids(state="all") == [second["incident_id"], first["incident_id"]]
    assert ids(state="all", limit="1") == [second["incident_id"]]
    assert room.ask("GET", PATH, None, VIEWER, state="odd")["statusCode"] == 400


def test_one_that_is_still_open_is_listed_however_many_came_after_it(room: Room) -> None:
    incident_id = room.fires()
    board = room.incidents.stored_board
    room.incidents.stored_board = replace(board, recent=tuple(f"INC-{n}" for n in range(MOST_RECENT)))
    told = room.ask("GET", PATH)["document"]["incidents"]
    assert [one["incident_id"] for one in told] == [incident_id]


def test_an_incident_is_shown_with_what_happened_around_it_001_47(room: Room) -> None:
    FakeAudit(room.tables).append(
        [
            AuditEvent(
                id=name,
                at_ms=at_ms,
                event_type=kind,
                severity=Severity.WARNING,
                tenant="",
                actor="ada",
                affected_entity=entity,
                affected_id=affected,
                request_id="",
                before_state="a",
                after_state="b",
            )
            for name, at_ms, kind, entity, affected in (
                ("s1", NOON_MS - HOUR_MS, AuditType.SWITCH_CHANGED, "switch", "mode"),
                ("s0", NOON_MS - 5 * HOUR_MS, AuditType.SWITCH_CHANGED, "switch", "mode"),
                ("h1", NOON_MS - MINUTE_MS, AuditType.HEALTH_CHANGED, "integration", "helpdesk"),
            )
        ]
    )
    room.history.write("mode", "hold", "ada")
    room.changes.changes = [
        Change(NOON_MS - HOUR_MS, "deploy", "worker", by="ci"),
        Change(NOON_MS - HOUR_MS, "switch", "mode"),
        Change(NOON_MS + HOUR_MS, "source", "later"),
    ]
    told = room.opened()
    incident_id = told["incident_id"]
    job = Job("INC-1-a", JobState.PLANNING, "ada", "r", "{}", 5, NOON_MS, "req", incident_id=incident_id)
    room.jobs.store(asked(job, room.jobs.board()))
    room.jobs.store(asked(replace(job, job_id="other", incident_id=""), room.jobs.board()))
    full = room.ask("GET", f"{PATH}/{incident_id}", None, VIEWER)["document"]
    assert [entry["kind"] for entry in full["timeline"]] == [
        "deploy worker",
        "switch mode",
        "health of helpdesk",
        "incident opened",
        "replay INC-1-a",
    ]
    assert (full["unknown"], full["first"]["command"]) == ([], f"holdfast incident show {incident_id}")
    assert full["timeline"][1]["what"] == "a → b"


@pytest.mark.parametrize(("number", "unknown"), [(300, []), (900, ["what happened in the middle of it"])])
def test_a_long_incident_is_shown_from_its_beginning_to_its_end(room: Room, number: int, unknown: list[str]) -> None:
    """A channel that takes nothing for a day is hundreds of events: what was done about it comes after them."""
    incident_id = room.opened()["incident_id"]
    paged = AuditEvent(
        id="",
        at_ms=0,
        event_type=AuditType.INCIDENT_PAGED,
        severity=Severity.WARNING,
        tenant="",
        actor="holdfast",
        affected_entity="incident",
        affected_id=incident_id,
        request_id="",
    )
    FakeAudit(room.tables).append([replace(paged, id=f"p{n}", at_ms=NOON_MS + 1 + n) for n in range(number)])
    room.clock.advance(HOUR_MS)
    room.post(incident_id, "note", {"note": "the webhook is gone"})
    full = room.ask("GET", f"{PATH}/{incident_id}", None, VIEWER)["document"]
    kinds = [entry["kind"] for entry in full["timeline"]]
    assert (kinds[0], kinds[-1], full["unknown"]) == ("incident opened", "incident noted", unknown)
    assert len(kinds) == (number + 2 if not unknown else 2 * OF_AN_INCIDENT)


def test_what_of_its_own_events_cannot_be_read_is_named(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    incident_id = room.opened()["incident_id"]
    monkeypatch.setattr(FakeAuditLog, "of_entity", lambda *_, **__: Page((), "", 1))
    full = room.ask("GET", f"{PATH}/{incident_id}", None, VIEWER)["document"]
    assert full["unknown"] == ["some of its own events"]


def test_what_of_a_timeline_cannot_be_read_is_named(room: Room) -> None:
    incident_id = room.opened()["incident_id"]
    for operation in ("history.latest", "changes.since", "jobs.board"):
        room.tables.faults.fail(operation)
    full = room.ask("GET", f"{PATH}/{incident_id}", None, VIEWER)["document"]
    assert full["unknown"] == ["switches", "deploys, sources and credentials", "replays"]


def test_an_incident_that_is_not_there_is_said_so(room: Room) -> None:
    for method, path, body in (
        ("GET", f"{PATH}/SEV1-1-a", None),
        ("POST", f"{PATH}/SEV1-1-a/ack", {}),
        ("POST", f"{PATH}/SEV1-1-a/postmortem", {}),
    ):
        answer = room.ask(method, path, body)
        assert (answer["statusCode"], answer["document"]["code"]) == (404, "INT-404-NOT-FOUND")


def test_an_incident_goes_its_way_by_hand_001_9_001_10_001_11(room: Room) -> None:
    incident_id = room.opened()["incident_id"]
    assert room.post(incident_id, "ack", {"note": "looking"})["document"]["acknowledged_by"] == PERSON
    again = room.post(incident_id, "ack", {})
    assert (again["statusCode"], again["document"]["code"]) == (409, "INT-409-INCIDENT-CONFLICT")
    graver = room.post(incident_id, "severity", {"severity": "SEV1", "reason": "all of them"})["document"]
    # Nobody has taken the page that opened it yet: that one says it.
    assert (graver["severity"], [page["kind"] for page in graver["pages"]]) == ("SEV1", ["opened", "acknowledged"])
    said = {"note": "DNS", "impact": "late", "next_update_in": "45m", "lead": "ops", "communications": "compliance"}
    noted = room.post(incident_id, "note", said)["document"]
    assert (noted["next_update_ms"], noted["lead"]) == (NOON_MS + 45 * MINUTE_MS, "ops")
    mitigated = room.post(incident_id, "mitigate", {"mitigation": "rules route"})["document"]
    assert (mitigated["state"], mitigated["mitigate_due_ms"]) == ("mitigated", None)
    refused = room.post(incident_id, "resolve", {"resolution": "a bug"})
    assert refused["statusCode"] == 409
    assert "holdfast incident postmortem" in refused["document"]["detail"]
    draft = room.post(incident_id, "postmortem", {})["document"]
    assert (draft["is_draft"], draft["incident"]["has_postmortem"]) == (True, False)
    unwritten = room.post(incident_id, "postmortem", {"text": draft["text"]})
    assert (unwritten["statusCode"], "'Root cause' is not written" in unwritten["document"]["detail"]) == (400, True)
    written = room.post(incident_id, "postmortem", {"text": draft["text"].replace(PLACEHOLDER, "a bug")})["document"]
    assert (written["is_draft"], written["incident"]["has_postmortem"]) == (False, True)
    over = room.post(incident_id, "resolve", {"resolution": "a bug, fixed"})["document"]
    assert (over["state"], over["resolved_by"], over["resolution"]) == ("resolved", PERSON, "a bug, fixed")
    kinds = [event.event_type.value.rpartition(".")[2] for event in room.tables.events]
    assert sorted(kinds) == sorted(
        ["opened", "acknowledged", "severity_changed", "noted", "mitigated", "reviewed", "resolved"]
    )
    assert {event.actor for event in room.tables.events} == {PERSON}


def test_a_postmortem_that_was_kept_before_it_happened_again_is_said_to_be_outdated_001_13(room: Room) -> None:
    incident_id = room.opened()["incident_id"]
    draft = room.post(incident_id, "postmortem", {})["document"]["text"]
    written = {"text": draft.replace(PLACEHOLDER, "a bug")}
    kept = room.post(incident_id, "postmortem", written)["document"]["incident"]
    assert (kept["has_postmortem"], kept["is_postmortem_outdated"]) == (True, False)
    room.incidents.incidents[incident_id] = replace(room.incidents.incidents[incident_id], recurrences=1)
    told = room.ask("GET", f"/platform/incidents/{incident_id}")["document"]["incident"]
    assert (told["has_postmortem"], told["is_postmortem_outdated"]) == (False, True)
    refused = room.post(incident_id, "resolve", {"resolution": "x"})
    assert (refused["statusCode"], refused["document"]["code"]) == (409, "INT-409-INCIDENT-CONFLICT")
    assert f"holdfast incident postmortem {incident_id}" in refused["document"]["detail"]
    printed = room.post(incident_id, "postmortem", {})["document"]
    assert (printed["is_draft"], printed["text"]) == (False, written["text"])
    room.post(incident_id, "postmortem", written)
    assert room.post(incident_id, "resolve", {"resolution": "x"})["statusCode"] == 200


@pytest.mark.parametrize(
    "body",
    [{}, {"note": " "}, {"next_update_in": "soon"}, {"next_update_in": "8d"}, {"lead": "nobody"}, {"lead": "A b"}],
)
def test_a_note_that_says_nothing_or_nonsense_is_refused(room: Room, body: Any) -> None:
    incident_id = room.opened()["incident_id"]
    assert room.post(incident_id, "note", body)["statusCode"] == 400
    assert len(room.tables.events) == 1


def test_an_incident_whose_alarm_fires_is_not_closed(room: Room) -> None:
    incident_id = room.fires()
    refused = room.post(incident_id, "resolve", {"resolution": "x"})
    assert (refused["statusCode"], "still fires" in refused["document"]["detail"]) == (409, True)


def test_a_message_is_made_out_with_users_words_and_what_it_promises_is_owed_001_41(room: Room) -> None:
    incident_id = room.opened(severity="SEV3")["incident_id"]
    made = room.post(incident_id, "message", {"template": "employer_delay", "feature": "support"})["document"]
    assert "delay in Support" in made["text"]
    assert "within 1 hour" in made["text"]
    assert (made["audience"], made["promised"], made["incident"]["owed"]) == (
        "employers",
        "employer_done",
        ["employer_done"],
    )
    longer = room.post(incident_id, "message", {"template": "candidate_issue", "feature": "support", "window": "3h"})
    assert "within 3 hours" in longer["document"]["text"]
    refused = room.post(incident_id, "resolve", {"resolution": "over"})
    assert (refused["statusCode"], "employer_done" in refused["document"]["detail"]) == (409, True)
    room.clock.advance(1)
    room.post(incident_id, "message", {"template": "employer_done", "feature": "support"})
    assert room.post(incident_id, "resolve", {"resolution": "over"})["statusCode"] == 200


def test_the_longest_update_goes_out_to_its_last_line(room: Room) -> None:
    incident_id = room.opened(title="t" * 200)["incident_id"]
    room.post(incident_id, "note", {"impact": "i" * 500, "mitigation": "m" * 500, "next_update_in": "2h"})
    text = room.post(incident_id, "message", {"template": "internal_update"})["document"]["text"]
    page = room.incidents.incidents[incident_id].pages[-1]
    assert page.text == text
    assert page.text.splitlines()[-1].startswith("Owner: ")


def test_an_update_for_our_own_people_goes_out_as_a_page_001_51(room: Room) -> None:
    incident_id = room.opened()["incident_id"]
    made = room.post(incident_id, "message", {"template": "internal_update"})["document"]
    assert f"Incident ID: {incident_id}" in made["text"]
    assert made["incident"]["pages"][-1]["kind"] == "update"
    assert room.incidents.incidents[incident_id].pages[-1].text == made["text"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"template": "nothing"}, "there is no approved text"),
        ({"template": "employer_delay"}, "needs feature"),
        ({"template": "employer_delay", "feature": "nothing"}, "there is no feature"),
        ({"template": "employer_delay", "feature": "support", "window": "9d"}, "7d at most"),
    ],
)
def test_a_message_that_cannot_be_made_out_is_refused(room: Room, body: Any, said: str) -> None:
    incident_id = room.opened()["incident_id"]
    answer = room.post(incident_id, "message", body)
    assert answer["statusCode"] == 400
    assert said in answer["document"]["detail"]
    assert len(room.tables.events) == 1


def test_a_test_page_is_an_incident_of_its_own_that_calls_everybody_001_57(room: Room) -> None:
    answer = room.ask("POST", "/platform/pages/test", {"reason": "weekly"})
    assert answer["statusCode"] == 201
    (page,) = answer["document"]["pages"]
    assert (page["kind"], page["to"]) == ("test", ["primary", "secondary"])
    assert room.incidents.incidents[answer["document"]["incident_id"]].is_test


@pytest.mark.parametrize("what", [("POST", PATH, SEEN), ("POST", "/platform/pages/test", {"reason": "x"})])
def test_who_is_overtaken_tries_again_and_says_so_in_the_end(room: Room, what: tuple[str, str, Any]) -> None:
    room.tables.faults.fail("incidents.store", VersionConflict("others"), times=TRIES - 1)
    assert room.ask(*what)["statusCode"] == 201
    room.tables.faults.fail("incidents.store", VersionConflict("others"), times=TRIES)
    answer = room.ask(*what)
    assert (answer["statusCode"], answer["document"]["code"]) == (409, "INT-409-IN-PROGRESS")


def test_who_is_always_overtaken_changes_nothing(room: Room) -> None:
    incident_id = room.opened()["incident_id"]
    room.tables.faults.fail("incidents.store", VersionConflict("others"), times=TRIES)
    answer = room.post(incident_id, "ack", {})
    assert (answer["statusCode"], answer["document"]["code"]) == (409, "INT-409-IN-PROGRESS")
    assert room.incidents.incidents[incident_id].acknowledged_by == ""


def test_storage_that_does_not_answer_changes_nothing(room: Room) -> None:
    incident_id = room.opened()["incident_id"]
    room.tables.faults.fail("incidents.store", StorageUnavailable("x"))
    assert room.post(incident_id, "ack", {})["statusCode"] == 503
    assert room.incidents.incidents[incident_id].acknowledged_by == ""


def test_a_ticket_that_is_quiet_is_told_as_it_is(room: Room) -> None:
    incident, board = fired(WEAK, NOON_MS)
    incident, board = quiet(WEAK, NOON_MS + 1, incident, board)
    room.incidents.incidents[incident.incident_id], room.incidents.stored_board = incident, board
    (told,) = room.ask("GET", PATH, None, VIEWER)["document"]["incidents"]
    (alarm,) = told["alarms"]
    assert (alarm["name"], alarm["is_firing"], alarm["count"], alarm["severity"]) == (
        WEAK.name,
        False,
        1,
        Sev.SEV3.value,
    )
