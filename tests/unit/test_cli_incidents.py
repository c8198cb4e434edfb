"""`holdfast incident` and `holdfast page test`, through the operator API's own calls (001.8, 001.57)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from functions.core.alarms import Sev
from functions.core.incident import Contained, delivered, ticked
from functions.core.postmortem import PLACEHOLDER
from ops.cli import incidents, run
from ops.cli.console import ExitCode
from ops.stack import Stack
from tests.fakes import NOON_MS
from tests.incidents import RULES, after
from tests.operator_calls import OPERATOR, PERSON, VIEWER, client_of
from tests.unit.test_operator_incidents import Room


class Desk(Room):
    """A command line before a stage whose storage is in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__()
        self.claims = OPERATOR
        monkeypatch.setattr(incidents, "stack_of", lambda _: Stack("dev", "us-east-1", {}))
        monkeypatch.setattr(incidents, "connect", lambda _: client_of(self.answering, self.claims))
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[int, str, str]:
        code = run(arguments)
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def open(self, *arguments: str, severity: str = "sev2") -> str:
        said = ("incident", "open", "replies twice", "--severity", severity, "--reason", "a ticket", "--json")
        code, out, _ = self.run(*said, *arguments)
        assert code == ExitCode.OK
        return str(json.loads(out)["incident_id"])


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(monkeypatch, capsys)


def test_an_incident_is_opened_listed_and_shown(desk: Desk) -> None:
    assert desk.run("incident", "list")[2].strip() == "none is open"
    assert desk.run("incident", "list", "--all")[2].strip() == "there is none"
    incident_id = desk.open("--impact", "doubled replies", "--scope", "acme")
    code, out, _ = desk.run("incident", "list")
    assert (code, incident_id in out, "replies twice" in out, "SEV2" in out) == (ExitCode.OK, True, True, True)
    code, out, err = desk.run("incident", "show", incident_id)
    assert code == ExitCode.OK
    for said in ("doubled replies", "acme", f"by {PERSON}", "timeline", "incident opened"):
        assert said in out
    assert f"first: holdfast --stage dev incident show {incident_id}" in err
    (one,) = json.loads(desk.run("incident", "list", "--json")[1])
    assert one["severity"] == "SEV2"
    assert json.loads(desk.run("incident", "show", incident_id, "--json")[1])["incident"] == one


def test_what_of_a_timeline_cannot_be_read_is_said(desk: Desk) -> None:
    incident_id = desk.open()
    desk.tables.faults.fail("changes.since")
    assert "could not be read: deploys, sources and credentials" in desk.run("incident", "show", incident_id)[2]


def test_an_alarms_incident_says_what_it_is_about(desk: Desk) -> None:
    incident_id = desk.fires()
    _, out, err = desk.run("incident", "show", incident_id)
    assert ("fires: A provider is down" in out, "docs/runbooks/alarms.md#integration-down" in out) == (True, True)
    assert "it only looks" in err
    assert "integration-down" in desk.run("incident", "list")[1]


def test_what_the_machine_did_is_shown_with_what_it_said_before(desk: Desk) -> None:
    incident_id = desk.fires()
    incident = desk.incidents.incidents[incident_id]
    held = Contained("flow/support/mode", "hold", "support-failing", 0, 1_767_226_500_000, is_done=True, before="live")
    off = Contained("auto_reply", "off", "reply-storm", 0)
    desk.incidents.incidents[incident_id] = replace(incident, contained=(held, off))
    out = desk.run("incident", "show", incident_id)[1]
    assert "set to hold because of support-failing, until 2026-01-01T00:15:00Z; before: live" in " ".join(out.split())
    assert "NOT SET to off because of reply-storm" in out


def test_it_goes_its_way_and_closes_with_its_postmortem(desk: Desk, tmp_path: Path) -> None:
    one = desk.open()
    assert desk.run("incident", "ack", one, "--note", "looking")[0] == ExitCode.OK
    code, _, err = desk.run("incident", "ack", one)
    assert (code, "INT-409-INCIDENT-CONFLICT" in err) == (ExitCode.REFUSED, True)
    assert desk.run("incident", "severity", one, "sev1", "--reason", "all of them")[0] == ExitCode.OK
    assert desk.run("incident", "note", one, "DNS", "--next-update", "30m", "--impact", "late")[0] == ExitCode.OK
    assert desk.run("incident", "note", one)[0] == ExitCode.REFUSED
    code, out, _ = desk.run("incident", "mitigate", one, "rules route", "--json")
    assert json.loads(out)["state"] == "mitigated"
    assert "holdfast incident postmortem" in desk.run("incident", "resolve", one, "a bug")[2]
    draft = desk.run("incident", "postmortem", one)[1]
    assert draft.startswith("# Postmortem: replies twice\n")
    page = tmp_path / "pm.md"
    page.write_text(draft)
    code, _, err = desk.run("incident", "postmortem", one, "--file", str(page))
    assert (code, "is not written" in err) == (ExitCode.REFUSED, True)
    page.write_text(draft.replace(PLACEHOLDER, "a bug"))
    code, _, err = desk.run("incident", "postmortem", one, "--file", str(page))
    assert (code, f"holdfast incident resolve {one}" in err) == (ExitCode.OK, True)
    kept = json.loads(desk.run("incident", "postmortem", one, "--json")[1])
    assert (kept["is_draft"], kept["text"]) == (False, page.read_text())
    assert desk.run("incident", "postmortem", one)[1].rstrip() == page.read_text().rstrip()
    code, out, _ = desk.run("incident", "resolve", one, "a bug, fixed")
    assert (code, "resolved" in out, "written" in out) == (ExitCode.OK, True, True)
    assert {event.actor for event in desk.tables.events} == {PERSON}


def test_whoever_calls_it_a_sev0_is_told_that_nothing_is_switched_off_by_that_002_14(desk: Desk) -> None:
    stop = "switch set auto_reply off"
    one = desk.open()
    assert stop not in desk.run("incident", "severity", one, "SEV1", "--reason", "more of them")[2]
    code, _, err = desk.run("incident", "severity", one, "SEV0", "--reason", "it is all of them")
    assert (code, stop in err, one in err) == (ExitCode.OK, True, True)
    assert stop in desk.run("incident", "open", "doubled", "--severity", "sev0", "--reason", "r")[2]
    held = Contained("flow/support/mode", "hold", "support-failing", NOON_MS, is_done=True, before="live")
    for done, is_told in ((held, True), (Contained("auto_reply", "off", "x", NOON_MS, is_done=True), False)):
        desk.incidents.incidents[one] = replace(desk.incidents.incidents[one], severity=Sev.SEV1, contained=(done,))
        assert (stop in desk.run("incident", "severity", one, "SEV0", "--reason", "again")[2]) is is_told


def test_a_message_that_promises_a_word_says_the_command_that_keeps_it_001_41(desk: Desk) -> None:
    """It is the refusal's too: whoever types it gets the text, and not that a feature is missing."""
    one = desk.open(severity="SEV3")
    told = ("incident", "message", one, "--template", "employer_delay", "--feature", "support")
    _, _, err = desk.run(*told)
    command = f"incident message {one} --template employer_done --feature"
    assert f"holdfast --stage dev {command} support" in " ".join(err.split())
    _, _, err = desk.run("incident", "resolve", one, "over")
    assert f"{command} FEATURE" in " ".join(err.split())
    desk.clock.advance(1_000)
    assert desk.run("incident", "message", one, "--template", "employer_done", "--feature", "support")[0] == ExitCode.OK
    assert desk.run("incident", "resolve", one, "over")[0] == ExitCode.OK


def test_a_postmortem_from_before_it_happened_again_is_shown_as_what_it_is(desk: Desk, tmp_path: Path) -> None:
    one = desk.open()
    page = tmp_path / "pm.md"
    page.write_text(desk.run("incident", "postmortem", one)[1].replace(PLACEHOLDER, "a bug"))
    assert desk.run("incident", "postmortem", one, "--file", str(page))[0] == ExitCode.OK
    desk.incidents.incidents[one] = replace(desk.incidents.incidents[one], recurrences=1)
    assert "to be kept anew" in desk.run("incident", "show", one)[1]
    code, _, err = desk.run("incident", "resolve", one, "a bug")
    assert (code, f"holdfast incident postmortem {one}" in " ".join(err.split())) == (ExitCode.REFUSED, True)
    assert desk.run("incident", "postmortem", one, "--file", str(page))[0] == ExitCode.OK
    assert desk.run("incident", "resolve", one, "a bug")[0] == ExitCode.OK


def test_an_api_of_the_release_before_is_understood(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has the command line of this one must not see it break in the middle of an incident."""
    one = desk.open()
    asked = desk.answering

    def before(event: dict[str, Any]) -> dict[str, Any]:
        answer = asked(event)
        document = json.loads(answer["body"])
        del document.get("incident", document)["is_postmortem_outdated"]
        return {**answer, "body": json.dumps(document)}

    monkeypatch.setattr(desk, "answering", before)
    assert desk.run("incident", "ack", one)[0] == ExitCode.OK
    code, out, _ = desk.run("incident", "show", one)
    assert (code, "missing" in out) == (ExitCode.OK, True)


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"x" * 60_001])
def test_a_file_that_is_no_postmortem_is_refused_before_anything_is_sent(
    desk: Desk, tmp_path: Path, content: bytes | None
) -> None:
    one = desk.open()
    page = tmp_path / "pm.md"
    if content is not None:
        page.write_bytes(content)
    assert desk.run("incident", "postmortem", one, "--file", str(page))[0] == ExitCode.REFUSED
    assert len(desk.tables.events) == 1


def test_a_message_is_printed_alone_and_what_it_promises_is_said(desk: Desk) -> None:
    one = desk.open(severity="SEV3")
    code, out, err = desk.run("incident", "message", one, "--template", "employer_delay", "--feature", "support")
    assert code == ExitCode.OK
    assert out.startswith("We are currently experiencing a delay in Support.")
    assert ("send it to the employers" in err, "--template employer_done" in err) == (True, True)
    code, out, err = desk.run("incident", "message", one, "--template", "internal_update")
    assert (len(out.splitlines()), "whoever is on call" in err) == (6, True)
    code, out, _ = desk.run("incident", "message", one, "--template", "internal_update", "--json")
    assert json.loads(out)["version"] == 1
    out = desk.run("incident", "show", one)[1]
    assert ("told employers" in out, "employer_delay at " in out, "told internal" in out) == (True, True, True)
    assert "employer_done" in desk.run("incident", "resolve", one, "over")[2]


def test_who_may_only_look_changes_nothing(desk: Desk) -> None:
    one = desk.open()
    desk.claims = VIEWER
    code, _, err = desk.run("incident", "ack", one)
    assert (code, "INT-403-PERMISSION-DENIED" in err) == (ExitCode.REFUSED, True)
    assert desk.run("incident", "show", one)[0] == ExitCode.OK


def arrives(desk: Desk, *took: str, failed: tuple[str, ...] = ()) -> None:
    """What the pager makes of the test's page, and of the time after it."""
    (incident,) = desk.incidents.incidents.values()
    board = desk.incidents.stored_board
    made, board = after(delivered(incident, {1: took}, {1: failed}, board, desk.clock.now, RULES), board)
    over = ticked(made, board, desk.clock.now + (0 if not failed else 3_600_000), RULES)
    assert over is not None
    desk.incidents.incidents[incident.incident_id], desk.incidents.stored_board = after(over, board)


@pytest.mark.parametrize(
    ("failed", "code", "said"),
    [((), ExitCode.OK, "delivered by desk, sns"), (("chat",), ExitCode.REFUSED, "not delivered; taken by desk, sns")],
)
def test_a_test_page_is_waited_for_001_57(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, failed: tuple[str, ...], code: int, said: str
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        arrives(desk, "sns", "desk", failed=failed)

    monkeypatch.setattr("ops.cli.incidents.time.sleep", sleep)
    found, _, err = desk.run("page", "test")
    assert (found, said in err, slept) == (code, True, [incidents.POLL_SECONDS])


def test_a_test_page_that_does_not_arrive_in_time_is_said_so(desk: Desk) -> None:
    code, out, _ = desk.run("page", "test", "--wait", "0", "--json")
    found: dict[str, Any] = json.loads(out)
    assert (code, found["state"]) == (ExitCode.REFUSED, "open")
    code, _, err = desk.run("page", "test", "--wait", "0")
    assert (code, "taken by no channel" in err) == (ExitCode.REFUSED, True)
