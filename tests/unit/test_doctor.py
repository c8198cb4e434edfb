"""`holdfast doctor`: what is broken is named with what to do, what cannot be looked at is unknown, and no secret shows.

002.4, 002.9.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from functions.adapters.health import DynamoHealthRecords
from functions.catalog.loader import load
from functions.core.alarms import ALARMS, name_at
from functions.core.clock import SystemIds
from functions.core.gate import Health
from functions.core.health import HealthChange, Record, last_closed
from functions.core.synthetic import SOURCE
from ops import doctor
from ops import stack as stacks
from ops.cli import doctor as command
from ops.cli import run
from ops.cli.console import ExitCode
from ops.doctor import Finding, Outside, Verdict, examine
from ops.stack import Stack
from tests.aws_tables import AUDIT, CONTROL, LEDGER, RECIPIENTS, RECOVERY, REGION, create_tables, sdk_client
from tests.fakes import LIVE_SWITCHES, NOON_MS
from tests.stage_fakes import CloudWatch, Sqs
from tests.synthetic_fakes import ENTRY
from tests.unit.test_runbooks import trouble_with

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

PAGES = Path(__file__).resolve().parents[2] / "docs" / "runbooks"
FUNCTIONS = ("Ingress", "Worker", "Triage", "Sweeper", "Evaluator", "Replay", "OperatorApi", "Pager", "Synthetic")
QUEUES = ("Events", "Retries", "Replays", "Pages")
BUCKET = "holdfast-doctor"
OUTPUTS = {
    "ApiUrl": "https://hooks.example",
    "LedgerTable": LEDGER,
    "RecoveryTable": RECOVERY,
    "AuditTable": AUDIT,
    "ControlTable": CONTROL,
    "RecipientsTable": RECIPIENTS,
    "Bucket": BUCKET,
    "SwitchesPath": "/holdfast/dev/switches",
    "SourcesPath": "/holdfast/dev/sources",
    "IntegrationsPath": "/holdfast/dev/integrations",
    "OpsDlqUrl": "https://sqs/opsdlq",
    **{f"{name}QueueUrl": f"https://sqs/{name.lower()}" for name in QUEUES},
    **{f"{name}DlqUrl": f"https://sqs/{name.lower()}dlq" for name in QUEUES},
    **{f"{name}Function": f"holdfast-dev-{name.lower()}" for name in FUNCTIONS},
}
STACK = Stack("dev", REGION, OUTPUTS)
SECRET = "hush-this-is-nobodys-business"
REFUSED = ClientError({"Error": {"Code": "AccessDeniedException", "Message": SECRET}}, "Whatever")


@dataclass
class Functions:
    """Lambda, of which the doctor asks three things."""

    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    reserved: dict[str, int] = field(default_factory=dict)
    mappings: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def get_function_configuration(self, *, FunctionName: str) -> dict[str, Any]:  # noqa: N803  # Lambda's
        return {"State": "Active", "LastUpdateStatus": "Successful"} | self.states.get(FunctionName, {})

    def get_function_concurrency(self, *, FunctionName: str) -> dict[str, Any]:  # noqa: N803  # Lambda's
        found = self.reserved.get(FunctionName)
        return {} if found is None else {"ReservedConcurrentExecutions": found}

    def list_event_source_mappings(self, *, FunctionName: str) -> dict[str, Any]:  # noqa: N803  # Lambda's
        usual = [{"UUID": "u-1", "State": "Enabled", "EventSourceArn": "arn:aws:sqs:x:1:holdfast-dev-events"}]
        return {"EventSourceMappings": self.mappings.get(FunctionName, usual)}


class Watching(CloudWatch):
    """Metrics, and the states of alarms."""

    def __init__(self) -> None:
        super().__init__()
        self.states = {alarm.name: "OK" for alarm in ALARMS}
        self.silent: set[str] = set()

    def get_paginator(self, operation: str) -> Any:
        return self if operation == "get_metric_data" else self._Alarms(self)

    class _Alarms:
        def __init__(self, watching: Watching) -> None:
            self._of = watching

        def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
            assert request["AlarmNamePrefix"] == "holdfast-dev-"
            if self._of.is_refused:
                raise REFUSED
            for name, state in self._of.states.items():
                told = {
                    "AlarmName": name_at("dev", name),
                    "StateValue": state,
                    "ActionsEnabled": name not in self._of.silent,
                }
                yield {"CompositeAlarms" if name.startswith("ingress") else "MetricAlarms": [told]}


class Stage:
    """A stage in which all is well, until a test breaks something."""

    def __init__(self) -> None:
        self.sqs, self.cloudwatch, self.functions = Sqs(), Watching(), Functions()
        self.dynamodb: Any = sdk_client("dynamodb")
        self.ssm: Any = sdk_client("ssm")
        self.s3: Any = sdk_client("s3")
        self.refused: set[str] = set()
        self.pages: dict[str, tuple[int, Any]] = {
            "https://hooks.example/health": (200, {"checks": {"storage": "ok", "switches": "ok", "watch": "ok"}}),
            "https://hooks.example/webhooks/nobody": (401, {}),
        }
        self.unreachable: set[str] = set()
        create_tables(self.dynamodb)
        self.s3.create_bucket(Bucket=BUCKET)
        for name, value in LIVE_SWITCHES.items():
            self.switch(name, value)
        self.source(SOURCE, **ENTRY)
        self.source("shop", tenant="acme", provider="github", flow="support", secrets=[{"secret": SECRET}])
        for name, one in load().integrations.items():
            if one.hosts:
                host = min(one.hosts).replace("*.", "eu.")
                self.credential(name, {"base_url": f"https://{host}", "api_key": SECRET})
        health = DynamoHealthRecords(self.dynamodb, SystemIds(), control_table=CONTROL, audit_table=AUDIT)
        for name in load().profiles:
            health.store(name, HealthChange(Record(minute=last_closed(NOON_MS, 1.0), version=1), 0))
        for service in ("evaluator", "sweeper", "pager"):
            self.cloudwatch.values[("heartbeat", service, "dev")] = [(NOON_MS - 60_000, 1.0)]
        self.cloudwatch.values[("synthetic_settled", "worker", "dev")] = [(NOON_MS - 120_000, 1.0)]

    def client(self, service: str, *_: str) -> Any:
        if service in self.refused:
            raise REFUSED
        return {
            "sqs": self.sqs,
            "cloudwatch": self.cloudwatch,
            "lambda": self.functions,
            "dynamodb": self.dynamodb,
            "ssm": self.ssm,
            "s3": self.s3,
        }[service]

    def switch(self, name: str, value: str) -> None:
        self._put(f"/holdfast/dev/switches/{name}", value, "String")

    def source(self, source: str, **entry: Any) -> None:
        self._put(f"/holdfast/dev/sources/{source}", json.dumps(entry), "SecureString")

    def credential(self, integration: str, said: Any) -> None:
        text = said if isinstance(said, str) else json.dumps(said)
        self._put(f"/holdfast/dev/integrations/{integration}", text, "SecureString")

    def _put(self, name: str, value: str, kind: str) -> None:
        self.ssm.put_parameter(Name=name, Value=value, Type=kind, Overwrite=True)

    def outside(self) -> Outside:
        return Outside(
            lambda url: self.pages.get(url, (0, None)),
            lambda host, port, is_tls: port == 443 and is_tls and host not in self.unreachable,
        )

    def examined(self) -> list[Finding]:
        return examine(STACK, NOON_MS, self.outside())

    def bad(self) -> dict[tuple[str, str], str]:
        """What is not ok, with what to do."""
        return {(one.part, one.what): one.do for one in self.examined() if one.verdict is Verdict.BAD}


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with mock_aws():
        made = Stage()
        monkeypatch.setattr(stacks, "client", made.client)
        monkeypatch.setattr(command, "stack_of", lambda _: STACK)
        monkeypatch.setattr(command, "SystemClock", _Noon)
        monkeypatch.setattr(doctor, "_get", made.outside().get)
        monkeypatch.setattr(doctor, "_can_connect", made.outside().can_connect)
        yield made


class _Noon:
    def now_ms(self) -> int:
        return NOON_MS


def test_where_all_is_well_every_part_was_looked_at_and_is_ok(stage: Stage) -> None:
    found = stage.examined()
    assert [one for one in found if one.verdict is not Verdict.OK] == []
    assert list(dict.fromkeys(one.part for one in found)) == [
        "api",
        "functions",
        "queues",
        "tables",
        "switches",
        "sources",
        "credentials",
        "providers",
        "alarms",
        "heartbeats",
    ]
    assert all(not one.do for one in found)


def broken(stage: Stage) -> None:
    """Something of every part."""
    stage.pages["https://hooks.example/health"] = (503, {"checks": {"storage": "ok", "watch": "failing", "x": "odd"}})
    stage.pages["https://hooks.example/webhooks/nobody"] = (502, None)
    stage.functions.states["holdfast-dev-replay"] = {"State": "Failed"}
    stage.functions.states["holdfast-dev-pager"] = {"LastUpdateStatus": "Failed"}
    stage.functions.reserved["holdfast-dev-worker"] = 0
    stage.functions.mappings["holdfast-dev-worker"] = [
        {"UUID": "u-7", "State": "Disabled", "EventSourceArn": "a:events"}
    ]
    stage.functions.mappings["holdfast-dev-triage"] = []
    stage.sqs.depths |= {"eventsdlq": 2, "opsdlq": 1, "pagesdlq": 1, "events": 40}
    stage.cloudwatch.values[("ApproximateAgeOfOldestMessage", "events")] = [(NOON_MS - 300_000, 900.0)]
    stage.s3.put_object(Bucket=BUCKET, Key="spill/1-a", Body=b"{}")
    stage.switch("auto_reply", "off")
    stage.switch("flow/support/mode", "hold")
    stage.switch("mode", "lvie")
    stage.ssm.delete_parameter(Name="/holdfast/dev/switches/replay")
    stage.ssm.delete_parameter(Name=f"/holdfast/dev/sources/{SOURCE}")
    stage.source(
        "shop", tenant="acme", provider="github", flow="support", secrets=[{"secret": SECRET}], surprise=SECRET
    )
    stage.source("held", tenant="acme", provider="github", flow="support", secrets=[{"secret": SECRET}], state="held")
    stage.source("lost", tenant="acme", provider="github", flow="nowhere", secrets=[{"secret": SECRET}])
    old = {"secret": SECRET, "created_at": "2020-01-01"}
    stage.source("old", tenant="acme", provider="github", flow="support", secrets=[old])
    stage.credential("helpdesk", f"{{{SECRET}")
    stage.credential("sms", {"base_url": f"https://{SECRET}.example", "api_key": SECRET})
    stage.ssm.delete_parameter(Name="/holdfast/dev/integrations/payments")
    stage.cloudwatch.states |= {"rows-overdue": "ALARM", "ingress-failing": "ALARM"}
    del stage.cloudwatch.states["queue-long"]
    stage.cloudwatch.silent.add("events-late")
    stage.cloudwatch.values[("heartbeat", "sweeper", "dev")] = [(NOON_MS - 600_000, 1.0)]
    del stage.cloudwatch.values[("synthetic_settled", "worker", "dev")]


EXPECTED = {
    ("api", "/health: watch"): "docs/runbooks/alarms.md#evaluator-missing",
    ("api", "/webhooks"): "docs/runbooks/alarms.md#ingress-failing",
    ("functions", "holdfast-dev-replay"): "make deploy STAGE=dev",
    ("functions", "holdfast-dev-pager"): "make deploy STAGE=dev",
    ("functions", "holdfast-dev-worker"): "aws lambda delete-function-concurrency --function-name holdfast-dev-worker",
    ("functions", "holdfast-dev-worker from events"): "aws lambda update-event-source-mapping --uuid u-7 --enabled",
    ("functions", "holdfast-dev-triage"): "make deploy STAGE=dev",
    ("queues", "events"): "docs/runbooks/alarms.md#events-late",
    ("queues", "events-dlq"): "docs/runbooks/alarms.md#events-dlq-not-drained",
    ("queues", "ops-dlq"): "docs/runbooks/alarms.md#ops-dlq-not-empty",
    ("queues", "pages-dlq"): "docs/runbooks/alarms.md#pages-dlq-not-empty",
    ("queues", "spill"): "docs/runbooks/alarms.md#spill-not-drained",
    ("switches", "auto_reply"): 'holdfast switch set auto_reply on --reason "back to every day"',
    ("switches", "flow/support/mode"): 'holdfast switch set flow/support/mode live --reason "back to every day"',
    ("switches", "mode"): "docs/runbooks/alarms.md#switch-unreadable",
    ("switches", "replay"): 'holdfast switch set replay on --reason "back to every day"',
    ("sources", "shop"): "docs/runbooks/alarms.md#source-malformed",
    ("sources", "held"): 'holdfast source enable held --reason "..."',
    ("sources", "lost"): "holdfast source show lost",
    ("sources", "old"): 'holdfast source rotate old --generate --reason "old"',
    ("sources", SOURCE): (
        f"holdfast source add {SOURCE} --provider standard-webhooks --tenant holdfast --flow synthetic --generate "
        '--reason "its own way"'
    ),
    ("credentials", "helpdesk"): "docs/runbooks/recovery.md, section 5: /holdfast/dev/integrations/helpdesk",
    ("credentials", "sms"): "docs/runbooks/recovery.md, section 5: /holdfast/dev/integrations/sms",
    ("credentials", "payments"): "docs/runbooks/recovery.md, section 5: /holdfast/dev/integrations/payments",
    ("alarms", "rows-overdue"): "docs/runbooks/alarms.md#rows-overdue",
    ("alarms", "ingress-failing"): "docs/runbooks/alarms.md#ingress-failing",
    ("alarms", "queue-long"): "make deploy STAGE=dev",
    ("alarms", "events-late"): ("aws cloudwatch enable-alarm-actions --alarm-names holdfast-dev-events-late"),
    ("heartbeats", "sweeper"): "docs/runbooks/alarms.md#sweeper-missing",
    ("heartbeats", "synthetic event"): "docs/runbooks/alarms.md#synthetic-missing",
}


def test_what_is_broken_is_named_with_what_to_do(stage: Stage) -> None:
    broken(stage)
    assert stage.bad() == EXPECTED


def test_an_integration_that_is_down_or_that_nobody_judges_or_reaches_is_said(stage: Stage) -> None:
    health = DynamoHealthRecords(stage.dynamodb, SystemIds(), control_table=CONTROL, audit_table=AUDIT)
    minute = last_closed(NOON_MS, 1.0)
    health.store("helpdesk", HealthChange(Record(health=Health.HARD_DOWN, minute=minute, version=2), 1))
    health.store("llm", HealthChange(Record(minute=minute - 30, version=2), 1))
    address = json.loads(
        stage.ssm.get_parameter(Name="/holdfast/dev/integrations/email", WithDecryption=True)["Parameter"]["Value"]
    )["base_url"]
    stage.unreachable.add(address.removeprefix("https://"))
    found = {one.what: one for one in stage.examined() if one.part == "providers"}
    assert (found["helpdesk"].verdict, found["helpdesk"].do) == (Verdict.BAD, "holdfast integrations helpdesk")
    assert found["llm"].verdict is Verdict.UNKNOWN
    assert found["email: its address"].verdict is Verdict.UNKNOWN, "this machine's way is not the stage's"
    assert found["sms: its address"].verdict is Verdict.OK


def test_no_finding_holds_anything_that_is_secret(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    broken(stage)
    stage.refused.add("dynamodb")
    assert run(["doctor", "--json"]) == ExitCode.REFUSED
    assert run(["doctor"]) == ExitCode.REFUSED
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err


def test_everything_that_is_to_be_done_is_a_command_that_there_is_or_a_section_that_there_is() -> None:
    text = (PAGES / "alarms.md").read_text()
    for do in EXPECTED.values():
        if do.startswith("holdfast "):
            assert trouble_with(do.replace("...", "X")) == "", do
        elif do.startswith("docs/runbooks/alarms.md#"):
            assert f"\n## {do.partition('#')[2]}\n" in text, do
        elif do.startswith("docs/runbooks/recovery.md, section 5"):
            assert "\n## 5. " in (PAGES / "recovery.md").read_text()
        else:
            assert re.match(r"aws [a-z]+ [a-z-]+ --|make deploy STAGE=dev\Z", do), do


@pytest.mark.parametrize("service", ["lambda", "sqs", "dynamodb", "ssm", "cloudwatch", "s3"])
def test_a_part_that_cannot_be_looked_at_is_unknown_and_hides_no_other(stage: Stage, service: str) -> None:
    stage.refused.add(service)
    stage.cloudwatch.is_refused = service == "cloudwatch"
    found = stage.examined()
    unknown = [one for one in found if one.verdict is Verdict.UNKNOWN]
    assert unknown
    assert {one.says for one in unknown} == {"AWS says AccessDeniedException"}
    assert not [one for one in found if one.verdict is Verdict.BAD]
    assert "api" in {one.part for one in found if one.verdict is Verdict.OK}


def test_a_door_that_does_not_answer_is_not_ok(stage: Stage) -> None:
    stage.pages.clear()
    found = {(one.part, one.what): one for one in stage.examined()}
    assert found["api", "/health"].verdict is Verdict.BAD
    assert found["api", "/webhooks"].says == "does not answer"


def test_a_stack_of_an_older_kind_is_unknown_where_it_lacks_something(stage: Stage) -> None:
    lacking = replace(STACK, outputs={name: text for name, text in OUTPUTS.items() if name != "SwitchesPath"})
    found = [one for one in examine(lacking, NOON_MS, stage.outside()) if one.part == "switches"]
    assert [one.verdict for one in found] == [Verdict.UNKNOWN]
    assert "SwitchesPath" in found[0].says


def test_the_command_shows_each_line_and_ends_with_1_if_something_is_not_ok(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor"]) == ExitCode.OK
    assert "holdfast-dev-worker" in capsys.readouterr().out
    assert run(["doctor", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["ok"] is True
    stage.switch("auto_reply", "off")
    assert run(["doctor"]) == ExitCode.REFUSED
    said = capsys.readouterr()
    assert "not ok" in said.out
    assert "1 of " in said.err
    assert run(["doctor", "--json"]) == ExitCode.REFUSED
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert [one["what"] for one in document["findings"] if one["verdict"] == "not ok"] == ["auto_reply"]


def test_what_is_only_unknown_is_no_reason_to_end_with_1(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.cloudwatch.states = dict.fromkeys(stage.cloudwatch.states, "INSUFFICIENT_DATA")
    assert run(["doctor"]) == ExitCode.OK
    assert "1 are unknown" in capsys.readouterr().err
