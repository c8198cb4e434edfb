"""`holdfast switch`, through the operator API's own calls (001.26)."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any, cast

import pytest

from functions.core.failure import StorageUnavailable
from functions.operator_api.calls import switches as calls
from functions.operator_api.ports import Ports
from ops import stack as stacks
from ops.cli import run, switches
from ops.cli.console import ExitCode
from ops.stack import Stack
from tests.control_fakes import FakeSwitchHistory, FakeSwitchReturns, FakeSwitchWriter
from tests.fakes import LIVE_SWITCHES, NOON_MS, FakeAudit, FakeClock, FakeIds, FakeTables
from tests.operator_calls import OPERATOR, PERSON, VIEWER, Answering, client_of
from tests.stage_fakes import CloudWatch


class Desk:
    """A command line before a stage whose storage is in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.tables = FakeTables()
        self.clock = FakeClock()
        self.claims = OPERATOR
        self.history = FakeSwitchHistory(self.clock, self.tables.faults)
        for name, value in LIVE_SWITCHES.items():
            self.history.write(name, value, "deploy")
        absent: dict[str, Any] = {port.name: cast("Any", None) for port in fields(Ports)}
        ports = replace(
            Ports(**absent),
            clock=self.clock,
            ids=FakeIds(),
            audit=FakeAudit(self.tables),
            switch_history=self.history,
            switch_returns=FakeSwitchReturns(self.tables),
            switch_writer=FakeSwitchWriter(self.history),
        )
        answering = Answering([calls.routes(ports)], clock=self.clock)
        monkeypatch.setattr(switches, "stack_of", lambda _: Stack("dev", "us-east-1", {}))
        monkeypatch.setattr(switches, "connect", lambda _: client_of(answering, self.claims))
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[int, str, str]:
        code = run(["switch", *arguments])
        said = self._capsys.readouterr()
        return code, said.out, said.err


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(monkeypatch, capsys)


@pytest.mark.parametrize("way", [[], ["--direct"]])
@pytest.mark.parametrize(("reason", "is_taken"), [("ä" * 500, True), ("x" * 501, False), (" ", False)])
def test_there_is_one_limit_of_a_reason_that_of_the_call(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, reason: str, is_taken: bool, way: list[str]
) -> None:
    written: list[str] = []

    def write(*given: str) -> tuple[str, int]:
        written.append(given[-1])
        return "on", 2

    monkeypatch.setattr(switches, "write", write)
    code, _, err = desk.run("set", "auto_reply", "off", "--reason", reason, *way)
    assert (code == ExitCode.OK) is is_taken
    assert ("give a reason of at most 500 characters" in err) is not is_taken
    assert written == [reason] * (is_taken and bool(way))


def test_a_switch_is_set_and_the_audit_names_the_person(desk: Desk) -> None:
    code, out, _ = desk.run("set", "auto_reply", "off", "--reason", " wrong answers ", "--json")
    assert code == ExitCode.OK
    assert json.loads(out) == {"name": "auto_reply", "before": "on", "value": "off", "version": 2}
    assert [(event.actor, event.reason) for event in desk.tables.events] == [(PERSON, "wrong answers")]
    assert desk.run("get", "auto_reply")[1] == "off\n"


def test_a_switch_whose_name_has_slashes_is_set_and_read(desk: Desk) -> None:
    code, out, err = desk.run("set", "flow/support/auto_reply", "off", "--reason", "r")
    assert (code, out) == (ExitCode.OK, "")
    assert "flow/support/auto_reply: not set → off (version 1)" in err
    assert json.loads(desk.run("get", "flow/support/auto_reply", "--json")[1])["value"] == "off"
    _, out, _ = desk.run("list")
    assert "flow/support/auto_reply" in out
    assert set(json.loads(desk.run("list", "--json")[1])) == {*LIVE_SWITCHES, "flow/support/auto_reply"}


def test_a_switch_that_is_not_set_is_said_so(desk: Desk) -> None:
    code, _, err = desk.run("get", "flow/support/mode")
    assert code == ExitCode.REFUSED
    assert "is not set" in err


def test_what_cannot_be_told_or_done_changes_nothing_and_says_why(desk: Desk) -> None:
    desk.tables.faults.fail("audit.append", StorageUnavailable("down"))
    code, out, err = desk.run("set", "auto_reply", "off", "--reason", "r")
    assert (code, out) == (ExitCode.REFUSED, "")
    assert "nothing was changed" in err
    desk.claims = VIEWER
    code, _, err = desk.run("set", "auto_reply", "off", "--reason", "r")
    assert code == ExitCode.REFUSED
    assert "operate is needed" in err
    assert desk.run("get", "auto_reply")[1] == "on\n"


def test_a_reason_has_one_limit_before_the_api_and_at_it(desk: Desk) -> None:
    """Not one for the command and a shorter one for the call, of which a validator's sentence would tell."""
    for reason in (" ", "x" * 501):
        code, _, err = desk.run("set", "auto_reply", "off", "--reason", reason)
        assert (code, err.strip()) == (ExitCode.REFUSED, "give a reason of at most 500 characters")
    assert desk.run("set", "auto_reply", "off", "--reason", f" {'ä' * 500} ")[0] == ExitCode.OK


def test_past_the_api_nothing_is_asked_of_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[tuple[str, ...]] = []

    def write(_stack: Stack, *what: str) -> tuple[str | None, int]:
        kept.append(what)
        return "on", 7

    def never(_: Stack) -> None:
        raise AssertionError("the API was asked")

    monkeypatch.setattr(switches, "write", write)
    monkeypatch.setattr(switches, "connect", never)
    code, out, _ = desk.run("set", "auto_reply", "off", "--reason", "the API is down", "--direct", "--json")
    assert (code, json.loads(out)["version"]) == (ExitCode.OK, 7)
    assert kept == [("auto_reply", "off", "the API is down")]


def test_a_switch_is_set_for_a_time(desk: Desk) -> None:
    code, _, err = desk.run("set", "auto_reply", "off", "--for", "30m", "--reason", "r")
    assert code == ExitCode.OK
    assert "on → off (version 2), until 2026-" in err
    assert err.rstrip().endswith("then on")
    found = json.loads(desk.run("set", "auto_reply", "off", "--for", "1h", "--reason", "r", "--json")[1])
    assert (found["back_to"], found["until_ms"]) == ("on", desk.clock.now_ms() + 3_600_000)
    assert desk.run("set", "auto_reply", "on", "--for", "1h", "--reason", "r", "--direct")[0] == ExitCode.REFUSED


# ----------------------------------------------------------------------------------------------------------------- lag


@pytest.fixture
def cloudwatch(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> CloudWatch:
    made = CloudWatch()
    monkeypatch.setattr(stacks, "client", lambda *_: made)
    monkeypatch.setattr(switches, "SystemClock", lambda: desk.clock)
    return made


def test_how_long_a_change_took_to_be_obeyed_is_told_of_the_last_day(desk: Desk, cloudwatch: CloudWatch) -> None:
    hours = [NOON_MS - hour * 3_600_000 for hour in (1, 5, 30)]
    cloudwatch.values[("switch_lag_ms", "worker", "dev", "customer_visible")] = list(
        zip(hours, (3_100.0, 4_870.0, 60_000.0), strict=True)
    )
    code, out, _ = desk.run("list", "--lag", "--json")
    assert code == ExitCode.OK
    (told,) = json.loads(out)
    assert told["outcome"] == "customer_visible"
    assert told["worst_ms"] == 4_870
    code, out, _ = desk.run("list", "--lag")
    assert "messages to customers" in out
    assert "4.9 s" in out
    assert "everything else" not in out, "of which nothing was seen"


def test_where_nothing_was_changed_nothing_is_made_up(desk: Desk, cloudwatch: CloudWatch) -> None:
    code, out, err = desk.run("list", "--lag")
    assert (code, out) == (ExitCode.OK, "")
    assert "no worker has seen a change" in err
