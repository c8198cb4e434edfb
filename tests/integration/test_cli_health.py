"""What operators see and say of integrations' health, from the terminal to the tables, through the operator API."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from functions.adapters.health import DynamoHealthRecords
from functions.core.failure import VersionConflict
from functions.core.gate import Health, WaitingFor
from functions.core.health import HealthChange, Record
from functions.core.outlook import MOST_COUNTED
from functions.core.recovery import Status
from functions.operator_api.caller import Permission
from ops import integrations as through_api
from ops.cli import health, integrations, run
from ops.cli.console import ExitCode
from ops.stack import Stack
from tests import aws_tables
from tests.contract.storage import client_error
from tests.fakes import NOON_MS
from tests.operator_calls import OPERATOR, PERSON, VIEWER, claims_of, client_of
from tests.operator_world import OperatorWorld, operator_world
from tests.recovery_rows import dead, row

HALF_AN_HOUR_MS = 1_800_000
FORCE = ("health", "set", "helpdesk", "hard_down", "--for", "30m", "--reason")


class Desk:
    """A terminal before a stage; who sits there has `claims`."""

    def __init__(self, world: OperatorWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.claims = OPERATOR
        for module in (health, integrations):
            monkeypatch.setattr(module, "stack_of", lambda _: Stack("dev", "us-east-1", {}))
        monkeypatch.setattr(through_api, "connect", lambda _: client_of(world.answering, self.claims))

    def put(self, record: Record, name: str = "helpdesk") -> None:
        self.world.ports.health.store(name, HealthChange(record, record.version - 1))

    def record(self, name: str = "helpdesk") -> Record:
        return self.world.ports.health.read([name])[name]

    def is_untouched(self) -> bool:
        return not self.world.audit() and not self.world.client.scan(TableName=aws_tables.CONTROL)["Items"]


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    with operator_world() as world:
        yield Desk(world, monkeypatch)


Told = Callable[[], Any]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """The JSON document of the last command."""
    return lambda: json.loads(capsys.readouterr().out)


# --------------------------------------------------------------------------------------------------------------- seeing


def test_an_integration_is_shown_with_its_health_its_backlog_and_whom_to_ask(
    desk: Desk, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    """000.5: the fallback state is visible to operators. 004.22: whom to ask for a remedy is, too."""
    waiting = [row(f"w{n}", status=Status.PENDING, waiting_for=WaitingFor.HEALTH, attempt_count=0) for n in range(30)]
    for each in (*waiting, dead("d"), row("elsewhere", integration_id="sms"), row("done", status=Status.SUCCEEDED)):
        desk.world.put(each)
    desk.put(Record(Health.HARD_DOWN, NOON_MS, "collapsed: 0 of 30", 1, probe_at_ms=NOON_MS + 9_000, probe_ok=1))
    desk.claims = VIEWER
    assert run(["integrations", "helpdesk", "--json"]) == ExitCode.OK
    document = told()
    assert (document["health"], document["machine_says"], document["since_ms"]) == ("hard_down", "hard_down", NOON_MS)
    assert (document["reason"], document["version"]) == ("collapsed: 0 of 30", 1)
    assert document["backlog"] == {"pending": 30, "dlq": 1}
    assert document["next_probe_at_ms"] == NOON_MS + 9_000
    assert (document["probes_succeeded"], document["probes_needed"]) == (1, 3)
    assert (document["resumes_at_ms"], document["override"]["state"]) == (0, "")
    assert document["feature"] == "support"
    assert document["fallbacks"]
    assert run(["integrations", "helpdesk"]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert document["support_contact"].startswith("https://")
    told_people = ("1 of 3 succeeded", "rows pending", "2026-01-01T00:00:09Z", document["support_contact"])
    for words in (*told_people, document["fallbacks"][0]):
        assert words in shown, words


def test_a_row_whose_replay_succeeded_waits_for_nothing(desk: Desk, told: Told) -> None:
    """It stays `replayed` for weeks, and is neither waiting nor dead; one that failed again is dead."""
    for each in (
        row("under-way", status=Status.REPLAYED),
        row("done", status=Status.REPLAYED, result="succeeded", due_at_ms=0),
        replace(dead("again"), result="failed"),
    ):
        desk.world.put(each)
    assert run(["integrations", "helpdesk", "--json"]) == ExitCode.OK
    assert told()["backlog"] == {"replayed": 1, "dlq": 1}


def test_without_a_name_every_integration_of_the_stage_is_listed(desk: Desk, told: Told) -> None:
    assert run(["integrations", "--json"]) == ExitCode.OK
    found = {one["integration_id"]: one["health"] for one in told()}
    assert set(found) == set(desk.world.ports.profiles)
    assert found["helpdesk"] == found["llm"] == "healthy"


def test_a_person_gets_words_and_times_and_nothing_that_steers_a_terminal(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.put(
        Record(
            override=Health.HARD_DOWN,
            override_until_ms=NOON_MS + HALF_AN_HOUR_MS,
            override_by="anna\x1b[2J",
            override_reason="their\x07 maintenance",
            reason="recovered: 30 of 30",
            version=1,
        )
    )
    assert run(["integrations", "helpdesk"]) == ExitCode.OK
    shown = capsys.readouterr()
    assert all(word in shown.out for word in ("hard_down", "2026-01-01T00:30:00Z", "anna", "maintenance"))
    assert "\x1b" not in shown.out
    assert "\x07" not in shown.out
    assert "section 5" in shown.err
    assert run(["integrations"]) == ExitCode.OK
    listed = capsys.readouterr()
    assert re.search(r"helpdesk +hard_down .*their.* maintenance +2026", listed.out), "the operator's word, and its why"
    assert "\x1b" not in listed.out


def test_what_is_not_counted_to_its_end_is_said_so(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    document = {
        **desk.world.ask("GET", "/platform/integrations/helpdesk")["document"],
        "backlog": {"dlq": MOST_COUNTED},
    }

    class Full:
        def call(self, *_: Any, **__: Any) -> Any:
            return document

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(through_api, "connect", lambda _: Full())
        assert run(["integrations", "helpdesk"]) == ExitCode.OK
    assert re.search(r"rows dlq +1000 or more", capsys.readouterr().out)


def test_switches_that_hold_it_are_named_and_so_is_that_they_cannot_be_read(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.world.switches.values |= {"disabled_integrations": "helpdesk", "tenant/acme/limits/helpdesk": "0.5"}
    for words in (["integrations", "helpdesk"], ["integrations"]):
        assert run(words) == ExitCode.OK
        shown = capsys.readouterr()
        assert "disabled_integrations" in shown.out
        assert "tenant/acme/limits/helpdesk" in shown.out
        assert "cannot read" not in shown.err
    desk.world.switches.is_down = True
    desk.world.clock.advance(3_600_000)
    for words in (["integrations", "helpdesk"], ["integrations"]):
        assert run(words) == ExitCode.OK
        assert "cannot read its switches" in capsys.readouterr().err


def test_how_far_a_release_has_come_is_shown(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.put(Record(Health.DEGRADED, ramp_from_ms=NOON_MS - 300_000, version=1))
    assert run(["integrations", "helpdesk"]) == ExitCode.OK
    assert re.search(r"let go at +55%", capsys.readouterr().out)


def test_tables_that_do_not_answer_are_said_so_without_a_traceback(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.world.client.delete_table(TableName=aws_tables.CONTROL)
    assert run(["integrations"]) == ExitCode.REFUSED
    assert "INT-503-DEPENDENCY-UNAVAILABLE" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["helpdeks", "intake", "I#helpdesk", "..", "../health", "helpdesk/health", "\u202e"])
def test_an_integration_that_is_not_there_is_refused(desk: Desk, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["integrations", name]) == ExitCode.REFUSED
    assert "INT-404-NOT-FOUND" in capsys.readouterr().err
    assert run(["health", "clear", name, "--reason", "x"]) == ExitCode.REFUSED
    assert desk.is_untouched()


def test_who_misspells_one_is_told_those_that_are(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["integrations", "helpdeks"]) == ExitCode.REFUSED
    assert "there are email, helpdesk" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------------- setting


def test_a_state_is_set_for_a_time_and_audited_with_before_after_and_actor(desk: Desk, told: Told) -> None:
    """000.32"""
    assert run([*FORCE, " their maintenance ", "--json"]) == ExitCode.OK
    document = told()
    assert (document["before"], document["health"], document["machine_says"]) == ("healthy", "hard_down", "healthy")
    assert document["is_changed"]
    assert document["override"] == {
        "state": "hard_down",
        "until_ms": NOON_MS + HALF_AN_HOUR_MS,
        "by": PERSON,
        "reason": "their maintenance",
    }
    record = desk.record()
    assert (record.override, record.override_by, record.override_reason) == (
        Health.HARD_DOWN,
        PERSON,
        "their maintenance",
    )
    (event,) = desk.world.audit()
    assert (event["actor"], event["reason"]) == (PERSON, "their maintenance")
    assert event["event_type"] == "platform.integration.health.changed"
    assert json.loads(event["before_state"])["health"] == "healthy"
    assert json.loads(event["after_state"])["override"] == "hard_down"
    state = desk.world.ports.ledger.read([], ["helpdesk"]).integrations["helpdesk"]
    assert state.health_at(NOON_MS + HALF_AN_HOUR_MS - 1) is Health.HARD_DOWN
    assert state.health_at(NOON_MS + HALF_AN_HOUR_MS) is Health.HEALTHY


def test_what_was_set_is_cleared_before_its_time_and_that_is_audited_too(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """000.32"""
    assert run([*FORCE, "drill"]) == ExitCode.OK
    said = capsys.readouterr().err
    assert "helpdesk: healthy → hard_down until 2026-01-01T00:30:00Z; the machine says healthy" in said
    assert "holdfast health clear helpdesk" in said
    desk.claims = claims_of("ben", Permission.OPERATE)
    assert run(["health", "clear", "helpdesk", "--reason", "over"]) == ExitCode.OK
    assert "helpdesk: hard_down → healthy; the machine says healthy" in capsys.readouterr().err
    assert desk.record().override is None
    assert sorted(event["actor"] for event in desk.world.audit()) == [PERSON, "ben"]


def test_to_clear_what_nobody_has_set_changes_nothing_and_says_so(
    desk: Desk, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["health", "clear", "helpdesk", "--reason", "over"]) == ExitCode.OK
    assert "nothing was set, so nothing was changed" in capsys.readouterr().err
    assert run(["health", "clear", "helpdesk", "--reason", "over", "--json"]) == ExitCode.OK
    document = told()
    assert (document["is_changed"], document["before"], document["health"]) == (False, "healthy", "healthy")
    assert desk.is_untouched()


def test_who_opens_what_is_down_is_told_that_what_waits_comes_little_by_little(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.put(Record(Health.HARD_DOWN, version=1))
    command = ["health", "set", "helpdesk", "healthy", "--for", "1h", "--reason", "they say so"]
    assert run(command) == ExitCode.OK
    said = capsys.readouterr().err
    assert "hard_down → healthy until" in said
    assert "little by little" in said
    assert desk.record().ramp_from_ms > 0


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["helpdesk", "down", "--for", "30m", "--reason", "x"], ExitCode.USAGE),
        (["helpdesk", "HARD_DOWN", "--for", "30m", "--reason", "x"], ExitCode.USAGE),
        (["helpdesk", "hard_down", "--reason", "x"], ExitCode.USAGE),
        (["helpdesk", "hard_down", "--for", "30m"], ExitCode.USAGE),
        *[
            (["helpdesk", "hard_down", "--for", duration, "--reason", "x"], ExitCode.REFUSED)
            for duration in (
                "",
                "0m",
                "-5m",
                "5",
                "m",
                "1.5h",
                "1e3m",
                "30 m",
                "30m ",
                "30M",
                "8d",
                "169h",
                "999999d",
                "9999999m",
                "\u0663m",
                "30m\n",
                "01m",
                "forever",
            )
        ],
        (["helpdesk", "hard_down", "--for", "30m", "--reason", "  "], ExitCode.REFUSED),
        (["helpdesk", "hard_down", "--for", "30m", "--reason", "x" * 201], ExitCode.REFUSED),
        (["helpdeks", "hard_down", "--for", "30m", "--reason", "x"], ExitCode.REFUSED),
        (["intake", "hard_down", "--for", "30m", "--reason", "x"], ExitCode.REFUSED),
        (["I#helpdesk", "hard_down", "--for", "30m", "--reason", "x"], ExitCode.REFUSED),
        (["", "hard_down", "--for", "30m", "--reason", "x"], ExitCode.REFUSED),
    ],
)
def test_what_cannot_be_understood_changes_nothing(desk: Desk, arguments: list[str], exit_code: ExitCode) -> None:
    """000.32"""
    assert run(["health", "set", *arguments]) == exit_code
    assert desk.is_untouched()


def test_who_may_only_look_changes_nothing_004_3(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.claims = VIEWER
    for words in ([*FORCE, "x"], ["health", "clear", "helpdesk", "--reason", "x"]):
        assert run(words) == ExitCode.REFUSED
        assert "INT-403-PERMISSION-DENIED" in capsys.readouterr().err
    assert desk.is_untouched()


def test_what_strangers_write_is_kept_as_it_is_and_shown_without_harm(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "\x1b]0;owned\x07 \u202e drop table; $(rm -rf) 😀"
    assert run(["health", "set", "helpdesk", "degraded", "--for", "90s", "--reason", reason]) == ExitCode.OK
    assert desk.record().override_reason == reason
    capsys.readouterr()
    run(["integrations", "helpdesk"])
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("words", [[*FORCE, "x"], ["health", "clear", "helpdesk", "--reason", "x"]])
def test_without_an_audit_there_is_no_change(desk: Desk, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """000.32: fail closed."""
    before = Record(override=Health.DEGRADED, override_until_ms=NOON_MS + 9, override_by="anna", version=1)
    desk.put(before)
    desk.world.flaky.planned["transact_write_items"] = [client_error("InternalServerError")] * 30
    assert run(words) == ExitCode.REFUSED
    said = capsys.readouterr().err
    assert "INT-503-DEPENDENCY-UNAVAILABLE" in said
    assert "holdfast integrations helpdesk" in said
    assert desk.record() == before
    assert not desk.world.audit()


@pytest.mark.parametrize(("times", "exit_code"), [(3, ExitCode.OK), (99, ExitCode.REFUSED)])
def test_the_machine_may_write_meanwhile(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, times: int, exit_code: ExitCode
) -> None:
    left = [times]
    store = DynamoHealthRecords.store

    def meddled(self: DynamoHealthRecords, integration: str, change: HealthChange) -> None:
        if left[0]:
            left[0] -= 1
            raise VersionConflict("the evaluator was quicker")
        store(self, integration, change)

    monkeypatch.setattr(DynamoHealthRecords, "store", meddled)
    assert run([*FORCE, "x"]) == exit_code
    assert (desk.record().override is Health.HARD_DOWN) is (exit_code == ExitCode.OK)
