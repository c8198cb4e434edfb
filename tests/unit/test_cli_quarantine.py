"""`holdfast quarantine`, through the operator API's own calls (001.44)."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any, cast

import pytest

from functions.core.failure import StorageUnavailable
from functions.operator_api.calls import quarantine as calls
from functions.operator_api.ports import Ports
from ops.cli import quarantine, run
from ops.cli.console import ExitCode
from ops.stack import Stack
from tests.fakes import NOON_MS, FakeClock, FakeIds, FakeQuarantines, FakeTables
from tests.operator_calls import OPERATOR, PERSON, VIEWER, Answering, client_of

ADD = ["quarantine", "add", "--source", "shop", "--event-version", "3", "--for", "2h", "--reason", "no totals"]


class Desk:
    """A command line before a stage whose storage is in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.tables = FakeTables()
        self.clock = FakeClock()
        self.claims = OPERATOR
        absent: dict[str, Any] = {port.name: cast("Any", None) for port in fields(Ports)}
        ports = replace(Ports(**absent), clock=self.clock, ids=FakeIds(), quarantines=FakeQuarantines(self.tables))
        answering = Answering([calls.routes(ports)], clock=self.clock)
        monkeypatch.setattr(quarantine, "stack_of", lambda _: Stack("dev", "us-east-1", {}))
        monkeypatch.setattr(quarantine, "connect", lambda _: client_of(answering, self.claims))
        monkeypatch.setattr("ops.cli.quarantine.time.time_ns", lambda: self.clock.now_ms() * 1_000_000)
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def json(self, *arguments: str) -> Any:
        code, out, _ = self.run(*arguments, "--json")
        assert code == ExitCode.OK
        return json.loads(out)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(monkeypatch, capsys)


def test_a_rule_is_added_listed_and_removed_each_with_its_person_and_reason(desk: Desk) -> None:
    rule = desk.json(*ADD)
    assert (rule["source"], rule["event_version"], rule["author"]) == ("shop", "3", PERSON)
    assert rule["expires_at_ms"] == NOON_MS + 7_200_000
    assert desk.json("quarantine", "list") == [rule]
    desk.clock.advance(1_000)
    assert desk.json("quarantine", "remove", rule["id"], "--reason", "mended") == []
    assert [(event.actor, event.reason) for event in desk.tables.events] == [(PERSON, "no totals"), (PERSON, "mended")]


def test_people_read_what_is_kept_aside_until_when_by_whom_and_what_to_type_next(desk: Desk) -> None:
    code, out, err = desk.run(*ADD)
    assert (code, out) == (ExitCode.OK, "")
    assert "source=shop, event_version=3: kept aside until 2026-" in err
    (rule,) = desk.json("quarantine", "list")
    assert f"holdfast quarantine remove {rule['id']}" in err
    desk.clock.advance(1_800_000)
    code, out, _ = desk.run("quarantine", "list")
    assert all(word in out for word in (rule["id"], "source=shop, event_version=3", "1h 30m", PERSON, "no totals"))
    code, out, err = desk.run("quarantine", "remove", rule["id"], "--reason", "mended")
    assert (code, out) == (ExitCode.OK, "")
    assert "none left" in err
    assert "holdfast replay --failure-code QUARANTINED" in err
    code, out, err = desk.run("quarantine", "list")
    assert (code, out) == (ExitCode.OK, "")
    assert "no rule is in force" in err


def test_every_criterion_has_its_option(desk: Desk) -> None:
    stated = {"source": "s", "event_name": "n", "event_version": "1", "tenant": "t", "failure_code": "HTTP_500"}
    options = [word for name, value in stated.items() for word in ("--" + name.replace("_", "-"), value)]
    rule = desk.json("quarantine", "add", *options, "--for", "90s", "--reason", "r")
    assert {name: rule[name] for name in stated} == stated


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["add", "--for", "2h", "--reason", "r"], "say what is kept aside: --source, --event-name"),
        (["add", "--source", "shop", "--for", "soon", "--reason", "r"], "body/for"),
        (["add", "--source", "shop", "--for", "31d", "--reason", "r"], "within 30 days"),
        (["add", "--source", "shop", "--for", "2h", "--reason", " "], "body/reason"),
        (["remove", "f" * 32, "--reason", "r"], "INT-404-NOT-FOUND"),
        (["remove", "../audit", "--reason", "r"], "INT-400-INVALID-PAYLOAD"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:3]),
)
def test_what_is_refused_says_why_and_changes_nothing(desk: Desk, arguments: list[str], says: str) -> None:
    code, out, err = desk.run("quarantine", *arguments)
    assert (code, out) == (ExitCode.REFUSED, "")
    assert says in err
    assert not desk.tables.audit


@pytest.mark.parametrize("missing", ["--for", "--reason"])
def test_no_rule_without_an_end_or_a_reason(desk: Desk, missing: str) -> None:
    at = ADD.index(missing)
    assert desk.run(*ADD[:at], *ADD[at + 2 :])[0] == ExitCode.USAGE
    assert not desk.tables.audit


def test_who_may_only_look_reads_what_permission_is_needed(desk: Desk) -> None:
    desk.claims = VIEWER
    code, _, err = desk.run(*ADD)
    assert code == ExitCode.REFUSED
    assert "platform.member_admin.operate is needed" in err
    assert desk.json("quarantine", "list") == []


def test_while_storage_is_down_nothing_happened_and_it_is_said(desk: Desk) -> None:
    desk.tables.faults.fail("quarantine.store", StorageUnavailable("down"))
    code, _, err = desk.run(*ADD)
    assert code == ExitCode.REFUSED
    assert "INT-503-DEPENDENCY-UNAVAILABLE" in err
    assert desk.json("quarantine", "list") == []


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [(90_061_000, "1d 01h"), (3_900_000, "1h 05m"), (240_999, "4m"), (12_999, "12s"), (-5, "0s")],
)
def test_how_long_is_left(milliseconds: int, said: str) -> None:
    assert quarantine.left_of(milliseconds) == said
