"""`holdfast status`: what users are told, from the control items (000.5, 000.24)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from functions.adapters.health import DynamoHealthRecords
from functions.adapters.recovery import row_item
from functions.catalog.loader import load
from functions.core.gate import Health
from functions.core.health import Record, force
from functions.core.recovery import Status
from functions.operator_api.calls import quarantine as calls
from functions.operator_api.calls import switches as switch_calls
from functions.operator_api.ports import Ports
from ops import stack as stacks
from ops import standing
from ops.cli import run, status
from ops.cli.console import ExitCode
from ops.stack import Stack
from ops.standing import Queue
from tests.aws_tables import AUDIT, CONTROL, RECOVERY, REGION, create_tables, sdk_client
from tests.control_fakes import FakeSwitchHistory, FakeSwitchReturns
from tests.fakes import LIVE_SWITCHES, NOON_MS, FakeClock, FakeIds, FakeQuarantines, FakeTables
from tests.operator_calls import OPERATOR, Answering, call, client_of
from tests.recovery_rows import row

QUEUES = ("events", "retries", "replays")
OUTPUTS = {
    "ControlTable": CONTROL,
    "RecoveryTable": RECOVERY,
    "AuditTable": AUDIT,
    "OpsDlqUrl": "https://sqs/ops-dlq",
    **{f"{name.title()}QueueUrl": f"https://sqs/{name}" for name in QUEUES},
    **{f"{name.title()}DlqUrl": f"https://sqs/{name}-dlq" for name in QUEUES},
}
HOUR_MS = 3_600_000
STACK = Stack("dev", REGION, OUTPUTS)


class Sqs:
    """Queues of which only the depths are asked for."""

    def __init__(self) -> None:
        self.depths: dict[str, int] = {}

    def get_queue_attributes(self, *, QueueUrl: str, AttributeNames: list[str]) -> dict[str, Any]:  # noqa: N803  # SQS's
        depth = self.depths.get(QueueUrl.rsplit("/", 1)[-1], 0)
        return {"Attributes": {name: str(depth if index == 0 else 0) for index, name in enumerate(AttributeNames)}}


class CloudWatch:
    """Metrics by their name, and of queues by the queue's too. `until` picks those that were true at that moment."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], list[float]] = {}
        self.is_refused = False

    def get_metric_data(self, **request: Any) -> dict[str, Any]:
        if self.is_refused:
            raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetMetricData")
        until = str(int(request["EndTime"].timestamp() * 1000))
        results = []
        for query in request["MetricDataQueries"]:
            metric = query["MetricStat"]["Metric"]
            key = (metric["MetricName"], *(one["Value"] for one in metric["Dimensions"]))
            results.append({"Id": query["Id"], "Values": self.values.get((*key, until), self.values.get(key, []))})
        return {"MetricDataResults": results}


class Stage:
    """A deployed stage with whatever a test puts into it."""

    def __init__(self, dynamodb: Any) -> None:
        self.dynamodb = dynamodb
        self.sqs, self.cloudwatch = Sqs(), CloudWatch()
        self.clock = FakeClock()
        self.tables = FakeTables()
        self.history = FakeSwitchHistory(self.clock, self.tables.faults)
        for name, value in {**LIVE_SWITCHES, "limits/sms": "1.0"}.items():
            self.history.write(name, value, "deploy")
        absent: dict[str, Any] = {port.name: cast("Any", None) for port in fields(Ports)}
        ports = replace(
            Ports(**absent),
            clock=self.clock,
            ids=FakeIds(),
            quarantines=FakeQuarantines(self.tables),
            switch_history=self.history,
            switch_returns=FakeSwitchReturns(self.tables),
        )
        self.answering = Answering([calls.routes(ports), switch_calls.routes(ports)], clock=self.clock)

    def client(self, service: str, *_: str) -> Any:
        return {"dynamodb": self.dynamodb, "sqs": self.sqs, "cloudwatch": self.cloudwatch}[service]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with mock_aws():
        client = sdk_client("dynamodb")
        create_tables(client)
        made = Stage(client)
        monkeypatch.setattr(stacks, "client", made.client)
        monkeypatch.setattr(status, "stack_of", lambda _: STACK)
        monkeypatch.setattr(status, "connect", lambda _: client_of(made.answering))
        monkeypatch.setattr(status, "SystemClock", lambda: made.clock)
        yield made


@pytest.fixture
def dynamodb(stage: Stage) -> Any:
    return stage.dynamodb


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run(["status", "--json"]) == ExitCode.OK
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def is_down(dynamodb: Any, integration: str, health: str = "hard_down") -> None:
    dynamodb.put_item(TableName=CONTROL, Item={"pk": {"S": f"I#{integration}"}, "health": {"S": health}})


def test_all_features_and_no_fallback_while_all_is_well(dynamodb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--json"]) == ExitCode.OK
    document = json.loads(capsys.readouterr().out)
    assert set(document["features"]) == set(load().features)
    assert {one["state"] for one in document["features"].values()} == {"operational"}
    assert (set(document["integrations"].values()), document["fallbacks"]) == ({"healthy"}, [])
    assert run(["status"]) == ExitCode.OK
    assert "no fallback is in force" in capsys.readouterr().err


def test_what_is_down_shows_as_users_see_it_and_as_operators_need_it(
    dynamodb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    is_down(dynamodb, "payments")
    is_down(dynamodb, "llm", "degraded")
    assert run(["status", "--json"]) == ExitCode.OK
    document = json.loads(capsys.readouterr().out)
    assert document["features"]["billing"]["capabilities"]["plan_changes"] is False
    assert document["features"]["billing"]["next_update_within_minutes"] == 120
    assert {one["row"] for one in document["fallbacks"]} == {
        "payments_down_plans",
        "payments_down_subscriptions",
        "classification_degraded",
    }
    assert run(["status"]) == ExitCode.OK
    text = capsys.readouterr().out
    assert all(word in text for word in ("plan_changes", "payments_down_plans", "hard_down", "within 120 min"))


def test_a_stage_that_does_not_answer_is_said_so(dynamodb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    dynamodb.delete_table(TableName=CONTROL)
    assert run(["status"]) == ExitCode.UNREACHABLE
    assert capsys.readouterr().out == ""


def test_queues_tell_their_depth_their_age_and_their_dead_letters(stage: Stage) -> None:
    stage.sqs.depths = {"events": 40, "retries": 2, "retries-dlq": 3, "ops-dlq": 1}
    stage.cloudwatch.values = {("ApproximateAgeOfOldestMessage", "events"): [95.0, 30.0]}
    found = {one.name: one for one in standing.queues(STACK, standing.ages(STACK, NOON_MS))}
    assert found == {
        "events": Queue("events", 40, 0, 95),
        "retries": Queue("retries", 2, 3, None),
        "replays": Queue("replays", 0, 0, 0),
        "ops": Queue("ops", 0, 1, None),
    }


def test_unfinished_and_dead_rows_are_counted_with_the_oldest_that_is_due(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, (state, due_ms) in enumerate(
        [(Status.RETRYING, NOON_MS + 60_000), (Status.RETRYING, NOON_MS + 5_000), (Status.DLQ, 0)]
    ):
        stored = row_item(row(f"r{number}", status=state, due_at_ms=due_ms))
        stage.dynamodb.put_item(TableName=RECOVERY, Item=stored)
    found = {(one["status"], one["count"], one["oldest_due_ms"]) for one in told(capsys)["rows"]}
    assert found == {("retrying", 2, NOON_MS + 5_000), ("dlq", 1, 0)}


def test_what_operators_have_set_is_told_with_who_and_why_and_until_when(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    records = DynamoHealthRecords(stage.dynamodb, FakeIds(), control_table=CONTROL, audit_table=AUDIT)
    until_ms = NOON_MS + HOUR_MS
    change = force("sms", Record(), Health.HARD_DOWN, until_ms, actor="ada", reason="they said so", now_ms=NOON_MS)
    records.store("sms", change)
    stage.history.write("auto_reply", "off", "ada")
    stage.history.write("tenant/acme/mode", "hold", "ada")
    stage.history.write("flow/support/mode", "live", "ada")
    rule = {"source": "shop", "for": "2h", "reason": "no totals"}
    assert (
        stage.answering(call("POST", "/platform/quarantine", claims=OPERATOR, body=json.dumps(rule)))["statusCode"]
        == 201
    )
    document = told(capsys)
    assert document["overrides"] == [
        {
            "integration": "sms",
            "state": "hard_down",
            "machine_says": "healthy",
            "until_ms": until_ms,
            "by": "ada",
            "reason": "they said so",
        }
    ]
    assert [(one["name"], one["value"], one["everyday"]) for one in document["switches"]] == [
        ("auto_reply", "off", "on"),
        ("tenant/acme/mode", "hold", "live"),
    ]
    assert [(one["source"], one["reason"]) for one in document["quarantine"]] == [("shop", "no totals")]
    assert run(["status"]) == ExitCode.OK
    text = capsys.readouterr().out
    assert all(word in text for word in ("they said so", "auto_reply", "tenant/acme/mode", "source=shop", "no totals"))
    stage.clock.advance(HOUR_MS)
    assert told(capsys)["overrides"] == []


def put_balance(stage: Stage, until_ms: int) -> None:
    stage.cloudwatch.values = {
        ("webhooks_accepted", "dev"): [100.0, 50.0, 10.0],
        ("webhooks_spilled", "dev"): [4.0],
        ("NumberOfMessagesDeleted", "events"): [90.0, 40.0],
        ("NumberOfMessagesDeleted", "events-dlq"): [2.0],
        ("ApproximateNumberOfMessagesVisible", "events", str(until_ms)): [20.0],
        ("ApproximateNumberOfMessagesNotVisible", "events", str(until_ms)): [5.0],
        ("ApproximateNumberOfMessagesVisible", "events", str(until_ms - 3 * HOUR_MS)): [1.0],
    }


def test_what_came_in_is_accounted_for_and_what_is_not_is_said(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """Accepted = passed + triaged + what waits more than before + unexplained."""
    until_ms = NOON_MS // HOUR_MS * HOUR_MS
    put_balance(stage, until_ms)
    assert told(capsys)["balance"] == {
        "from_ms": until_ms - 3 * HOUR_MS,
        "until_ms": until_ms,
        "accepted": 160,
        "spilled": 4,
        "passed": 130,
        "triaged": 2,
        "waiting_more": 24,
        "unexplained": 4,
    }
    assert run(["status"]) == ExitCode.OK
    assert "unexplained" in capsys.readouterr().out


def test_a_figure_that_nobody_has_is_not_known_and_never_0(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    put_balance(stage, NOON_MS // HOUR_MS * HOUR_MS)
    stage.cloudwatch.values = {key: values for key, values in stage.cloudwatch.values.items() if len(key) == 2}
    found = told(capsys)["balance"]
    assert (found["accepted"], found["waiting_more"], found["unexplained"]) == (160, None, None)
    local = standing.balance(replace(STACK, endpoint="http://127.0.0.1:9"), NOON_MS)
    assert (local.accepted, local.passed, local.unexplained) == (None, None, None)
    assert standing.ages(replace(STACK, endpoint="http://127.0.0.1:9"), NOON_MS) == {}


def test_one_part_that_cannot_be_read_says_so_and_the_others_are_shown(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.cloudwatch.is_refused = True
    stage.sqs.depths = {"events": 7}
    stage.tables.faults.fail("history.latest", times=20)
    document = told(capsys)
    assert "AccessDenied" in document["balance"]["not_known"]
    assert "INT-503" in document["switches"]["not_known"]
    assert document["queues"][0] == {"name": "events", "messages": 7, "dead": 0, "oldest_seconds": None}
    assert document["quarantine"] == []
    assert run(["status"]) == ExitCode.OK
    err = capsys.readouterr().err
    assert "the balance: not known" in err
    assert "switches that do not say what they say every day: not known" in err
