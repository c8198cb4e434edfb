"""What operators see and say of integrations' health, over the tables as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from functions.adapters.health import DynamoHealthRecords
from functions.adapters.ledger import DynamoLedger
from functions.adapters.recovery import DynamoRecovery
from functions.core.failure import VersionConflict
from functions.core.gate import Health, IntegrationState, WaitingFor
from functions.core.health import HealthChange, Record
from functions.core.recovery import Change, Status
from ops import stack as stacks
from ops.cli import health, integrations, run
from ops.cli.console import ExitCode
from ops.cli.integrations import holding, of_health
from ops.stack import Stack
from tests import aws_tables
from tests.aws_tables import sdk_client
from tests.fakes import LIVE_SWITCHES, NOON_MS, FakeIds
from tests.recovery_rows import dead, row

OUTPUTS = {
    "ControlTable": aws_tables.CONTROL,
    "AuditTable": aws_tables.AUDIT,
    "RecoveryTable": aws_tables.RECOVERY,
    "SwitchesPath": "/s",
}
FOREVER_MS = 4_102_444_800_000  # the command line asks the machine's own clock


class Tables:
    """The stage, in moto."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.ids = FakeIds()
        self.records = DynamoHealthRecords(
            client, self.ids, control_table=aws_tables.CONTROL, audit_table=aws_tables.AUDIT
        )

    def put(self, record: Record, name: str = "helpdesk") -> None:
        self.records.store(name, HealthChange(record, record.version - 1))

    def record(self, name: str = "helpdesk") -> Record:
        return self.records.read([name])[name]

    def audit(self) -> list[dict[str, Any]]:
        return [
            {name: next(iter(value.values())) for name, value in item.items()}
            for item in self.client.scan(TableName=aws_tables.AUDIT)["Items"]
        ]

    def is_untouched(self) -> bool:
        return all(not self.client.scan(TableName=table)["Items"] for table in (aws_tables.CONTROL, aws_tables.AUDIT))


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tables]:
    with aws_tables.moto_tables() as client, aws_tables.one_request_at_a_time():
        ssm = sdk_client("ssm")
        for name, value in LIVE_SWITCHES.items():
            ssm.put_parameter(Name=f"/s/{name}", Value=value, Type="String")
        clients = {"dynamodb": client, "ssm": ssm}
        monkeypatch.setattr(stacks, "client", lambda service, *_: clients[service])
        stack = Stack("local", aws_tables.REGION, OUTPUTS, endpoint="http://127.0.0.1:9")
        for module in (health, integrations):
            monkeypatch.setattr(module, "stack_of", lambda _: stack)
        yield Tables(client)


Told = Callable[[], Any]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """The JSON document of the last command."""
    return lambda: json.loads(capsys.readouterr().out)


# --------------------------------------------------------------------------------------------------------------- seeing


def test_an_integration_is_shown_with_its_health_its_backlog_and_whom_to_ask(tables: Tables, told: Told) -> None:
    """000.5: the fallback state is visible to operators."""
    recovery = DynamoRecovery(
        tables.client, tables.ids, recovery_table=aws_tables.RECOVERY, audit_table=aws_tables.AUDIT
    )
    waiting = [row(f"w{n}", status=Status.PENDING, waiting_for=WaitingFor.HEALTH, attempt_count=0) for n in range(30)]
    for each in (*waiting, dead("d"), row("elsewhere", integration_id="sms"), row("done", status=Status.SUCCEEDED)):
        recovery.put_if_absent(Change(each, None))
    tables.put(Record(Health.HARD_DOWN, NOON_MS, "collapsed: 0 of 30", 1, probe_at_ms=FOREVER_MS, probe_ok=1))
    assert run(["integrations", "helpdesk", "--json"]) == ExitCode.OK
    document = told()
    assert (document["health"], document["machine_says"], document["since_ms"]) == ("hard_down", "hard_down", NOON_MS)
    assert document["reason"] == "collapsed: 0 of 30"
    assert document["backlog"] == {"pending": 30, "dlq": 1}
    assert (document["next_probe_at_ms"], document["probes"]) == (FOREVER_MS, "1 of 3 succeeded")
    assert (document["resumes_at_ms"], document["override"]) == (0, {})
    assert document["feature"] == "support"
    assert {"status_url", "support_contact"} <= set(document)


def test_a_row_whose_replay_succeeded_waits_for_nothing(tables: Tables, told: Told) -> None:
    """It stays `replayed` for weeks, and is neither waiting nor dead; one that failed again is dead."""
    recovery = DynamoRecovery(
        tables.client, tables.ids, recovery_table=aws_tables.RECOVERY, audit_table=aws_tables.AUDIT
    )
    for each in (
        row("under-way", status=Status.REPLAYED),
        row("done", status=Status.REPLAYED, result="succeeded", due_at_ms=0),
        replace(dead("again"), result="failed"),
    ):
        recovery.put_if_absent(Change(each, None))
    assert run(["integrations", "helpdesk", "--json"]) == ExitCode.OK
    assert told()["backlog"] == {"replayed": 1, "dlq": 1}


def test_without_a_name_every_integration_of_the_catalog_is_listed(tables: Tables, told: Told) -> None:
    assert run(["integrations", "--json"]) == ExitCode.OK
    found = {one["integration"]: one["health"] for one in told()}
    assert found["helpdesk"] == found["llm"] == "healthy"


def test_a_person_gets_words_and_times_and_nothing_that_steers_a_terminal(
    tables: Tables, capsys: pytest.CaptureFixture[str]
) -> None:
    tables.put(
        Record(
            override=Health.HARD_DOWN,
            override_until_ms=FOREVER_MS,
            override_by="anna\x1b[2J",
            override_reason="their\x07 maintenance",
            reason="recovered: 30 of 30",
            version=1,
        )
    )
    assert run(["integrations", "helpdesk"]) == ExitCode.OK
    shown = capsys.readouterr()
    assert all(word in shown.out for word in ("hard_down", "2100-01-01T00:00:00Z", "anna", "maintenance"))
    assert "\x1b" not in shown.out
    assert "\x07" not in shown.out
    assert "section 5" in shown.err
    assert run(["integrations"]) == ExitCode.OK
    listed = capsys.readouterr()
    assert re.search(r"helpdesk +hard_down .*their.* maintenance +2100", listed.out), "the operator's word, and its why"
    assert "\x1b" not in listed.out


def test_tables_that_do_not_answer_are_said_so_without_a_traceback(
    tables: Tables, capsys: pytest.CaptureFixture[str]
) -> None:
    tables.client.delete_table(TableName=aws_tables.CONTROL)
    assert run(["integrations"]) == ExitCode.UNREACHABLE
    assert "ResourceNotFoundException" in capsys.readouterr().err


def test_an_integration_that_is_not_there_is_refused_with_those_that_are(
    tables: Tables, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["integrations", "helpdeks"]) == ExitCode.REFUSED
    assert "helpdesk" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("record", "paused_until_ms", "expected"),
    [
        (Record(), 0, (0, 0)),
        (Record(), NOON_MS + 5, (NOON_MS + 5, 0)),
        (Record(), NOON_MS - 5, (0, 0)),
        (Record(Health.HARD_DOWN, probe_at_ms=NOON_MS - 5), 0, (0, NOON_MS)),
        (
            Record(Health.HARD_DOWN, override=Health.HARD_DOWN, override_until_ms=NOON_MS + 9),
            NOON_MS + 5,
            (NOON_MS + 9, 0),
        ),
        (Record(Health.HARD_DOWN, override=Health.HEALTHY, override_until_ms=NOON_MS + 9), 0, (0, 0)),
    ],
)
def test_when_it_resumes_is_said_where_somebody_stated_it(
    record: Record, paused_until_ms: int, expected: tuple[int, int]
) -> None:
    state = record.state("desk")
    shown = of_health(
        record,
        IntegrationState("desk", state.health, paused_until_ms, **_rest(state)),
        NOON_MS,
        1.0,
    )
    assert (shown["resumes_at_ms"], shown["next_probe_at_ms"]) == expected


def _rest(state: IntegrationState) -> dict[str, Any]:
    return {
        "override": state.override,
        "override_until_ms": state.override_until_ms,
        "probe_at_ms": state.probe_at_ms,
    }


def test_how_far_a_release_has_come_is_shown() -> None:
    record = Record(Health.DEGRADED, ramp_from_ms=NOON_MS - 300_000)
    assert of_health(record, record.state("desk"), NOON_MS, 1.0)["released"] == "55%"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, {}),
        ({"disabled_integrations": "sms, helpdesk"}, {"disabled_integrations": "sms, helpdesk"}),
        ({"disabled_integrations": "all"}, {"disabled_integrations": "all"}),
        ({"disabled_integrations": "sms"}, {}),
        ({"limits/helpdesk": "0.5", "limits/sms": "0"}, {"limits/helpdesk": "0.5"}),
        ({"limits/helpdesk": "1"}, {}),
        ({"tenant/acme/limits/helpdesk": "0"}, {"tenant/acme/limits/helpdesk": "0"}),
        ({"flow/support/mode": "hold", "mode": "live"}, {"flow/support/mode": "hold"}),
        ({"replay": "off", "auto_reply": "off"}, {"replay": "off", "auto_reply": "off"}),
        ({"replay_blocked_integrations": "helpdesk"}, {"replay_blocked_integrations": "helpdesk"}),
        ({"classifier": "rules"}, {}),
    ],
)
def test_the_switches_that_hold_it_are_named(said: dict[str, str], expected: dict[str, str]) -> None:
    assert holding({**LIVE_SWITCHES, **said}, "helpdesk") == expected


# -------------------------------------------------------------------------------------------------------------- setting


def test_a_state_is_set_for_a_time_and_audited_with_before_after_and_actor(tables: Tables, told: Told) -> None:
    """000.32"""
    command = ["health", "set", "helpdesk", "hard_down", "--for", "30m", "--reason", " their maintenance "]
    assert run([*command, "--actor", "anna", "--json"]) == ExitCode.OK
    document = told()
    assert (document["before"], document["health"], document["machine_says"]) == ("healthy", "hard_down", "healthy")
    record = tables.record()
    assert (record.override, record.override_by, record.override_reason) == (
        Health.HARD_DOWN,
        "anna",
        "their maintenance",
    )
    assert record.override_until_ms == document["until_ms"]
    (event,) = tables.audit()
    assert (event["actor"], event["reason"]) == ("anna", "their maintenance")
    assert event["event_type"] == "platform.integration.health.changed"
    assert json.loads(event["before_state"])["health"] == "healthy"
    assert json.loads(event["after_state"])["override"] == "hard_down"
    ledger = DynamoLedger(tables.client, tables.ids, control_table=aws_tables.CONTROL)
    state = ledger.read([], ["helpdesk"]).integrations["helpdesk"]
    assert state.health_at(document["until_ms"] - 1) is Health.HARD_DOWN
    assert state.health_at(document["until_ms"]) is Health.HEALTHY


def test_what_was_set_is_cleared_before_its_time_and_that_is_audited_too(tables: Tables, told: Told) -> None:
    """000.32"""
    run(["health", "set", "helpdesk", "hard_down", "--for", "2h", "--reason", "drill", "--actor", "anna"])
    assert run(["health", "clear", "helpdesk", "--reason", "over", "--actor", "ben"]) == ExitCode.OK
    assert tables.record().override is None
    assert sorted(event["actor"] for event in tables.audit()) == ["anna", "ben"]


def test_there_must_be_something_to_clear(tables: Tables, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["health", "clear", "helpdesk", "--reason", "over", "--actor", "ben"]) == ExitCode.REFUSED
    assert "no override" in capsys.readouterr().err
    assert tables.is_untouched()


def test_who_opens_what_is_down_is_told_that_what_waits_comes_little_by_little(
    tables: Tables, capsys: pytest.CaptureFixture[str]
) -> None:
    tables.put(Record(Health.HARD_DOWN, version=1))
    command = ["health", "set", "helpdesk", "healthy", "--for", "1h", "--reason", "they say so", "--actor", "anna"]
    assert run(command) == ExitCode.OK
    said = capsys.readouterr().err
    assert "hard_down → healthy until" in said
    assert "little by little" in said
    assert tables.record().ramp_from_ms > 0


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
        (["helpdesk", "hard_down", "--for", "30m", "--reason", "x", "--actor", "  "], ExitCode.REFUSED),
        (["helpdesk", "hard_down", "--for", "30m", "--reason", "x", "--actor", "y" * 201], ExitCode.REFUSED),
        (["helpdeks", "hard_down", "--for", "30m", "--reason", "x"], ExitCode.REFUSED),
        (["intake", "hard_down", "--for", "30m", "--reason", "x"], ExitCode.REFUSED),
        (["I#helpdesk", "hard_down", "--for", "30m", "--reason", "x"], ExitCode.REFUSED),
        (["", "hard_down", "--for", "30m", "--reason", "x"], ExitCode.REFUSED),
    ],
)
def test_what_cannot_be_understood_changes_nothing(tables: Tables, arguments: list[str], exit_code: ExitCode) -> None:
    """000.32"""
    assert run(["health", "set", *arguments]) == exit_code
    assert tables.is_untouched()


def test_what_strangers_write_is_kept_as_it_is_and_shown_without_harm(
    tables: Tables, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "\x1b]0;owned\x07 \u202e drop table; $(rm -rf) 😀"
    assert run(["health", "set", "helpdesk", "degraded", "--for", "90s", "--reason", reason]) == ExitCode.OK
    assert tables.record().override_reason == reason
    capsys.readouterr()
    run(["integrations", "helpdesk"])
    assert "\x1b" not in capsys.readouterr().out


def test_without_an_audit_there_is_no_change(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """000.32: fail closed."""
    monkeypatch.setattr(
        health,
        "health_records",
        lambda _: DynamoHealthRecords(
            tables.client, FakeIds(), control_table=aws_tables.CONTROL, audit_table="gone", pause=lambda _: None
        ),
    )
    assert run(["health", "set", "helpdesk", "hard_down", "--for", "30m", "--reason", "x"]) == ExitCode.REFUSED
    assert "did not do their part" in capsys.readouterr().err
    assert tables.is_untouched()


@pytest.mark.parametrize(("times", "exit_code"), [(3, ExitCode.OK), (99, ExitCode.REFUSED)])
def test_the_machine_may_write_meanwhile(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, times: int, exit_code: ExitCode
) -> None:
    left = [times]
    store = DynamoHealthRecords.store

    def meddled(self: DynamoHealthRecords, integration: str, change: HealthChange) -> None:
        if left[0]:
            left[0] -= 1
            raise VersionConflict("the evaluator was quicker")
        store(self, integration, change)

    monkeypatch.setattr(DynamoHealthRecords, "store", meddled)
    assert run(["health", "set", "helpdesk", "hard_down", "--for", "30m", "--reason", "x"]) == exit_code
    assert (tables.record().override is Health.HARD_DOWN) is (exit_code == ExitCode.OK)
