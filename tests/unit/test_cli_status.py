"""`holdfast status`: what users are told, from the control items (000.5, 000.24)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import partial
from typing import Any, cast

import pytest
from moto import mock_aws

from functions.adapters import recovery
from functions.adapters.health import DynamoHealthRecords
from functions.adapters.recovery import row_item, shard_of
from functions.catalog.loader import load
from functions.core.gate import Health
from functions.core.health import Record, force
from functions.core.recovery import Row, Status
from functions.core.replay_job import Job, State, asked
from functions.job_board import move
from functions.operator_api.calls import incidents as incident_calls
from functions.operator_api.calls import quarantine as calls
from functions.operator_api.calls import replays as replay_calls
from functions.operator_api.calls import switches as switch_calls
from functions.operator_api.ports import Ports
from ops import balance, records, standing
from ops import stack as stacks
from ops.cli import run, status
from ops.cli.console import ExitCode
from ops.stack import Stack
from ops.standing import Queue
from tests.aws_tables import AUDIT, CONTROL, LEDGER, RECOVERY, REGION, create_tables, sdk_client
from tests.control_fakes import FakeReplayJobs, FakeSwitchHistory, FakeSwitchReturns
from tests.fakes import LIVE_SWITCHES, NOON_MS, FakeClock, FakeIds, FakeQuarantines, FakeTables
from tests.incident_fakes import FakeIncidents
from tests.incidents import DOWN, rung
from tests.operator_calls import OPERATOR, Answering, call, client_of
from tests.recovery_rows import event_row, row
from tests.stage_fakes import Bucket, CloudWatch, Log, Sqs

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

QUEUES = ("events", "retries", "replays")
OUTPUTS = {
    "ControlTable": CONTROL,
    "RecoveryTable": RECOVERY,
    "AuditTable": AUDIT,
    "LedgerTable": LEDGER,
    "Bucket": "bucket",
    "IngressFunction": "ingress",
    "OpsDlqUrl": "https://sqs/ops-dlq",
    **{f"{name.title()}QueueUrl": f"https://sqs/{name}" for name in QUEUES},
    **{f"{name.title()}DlqUrl": f"https://sqs/{name}-dlq" for name in QUEUES},
}
HOUR_MS = 3_600_000
STACK = Stack("dev", REGION, OUTPUTS)


class Stage:
    """A deployed stage with whatever a test puts into it."""

    def __init__(self, dynamodb: Any) -> None:
        self.dynamodb = dynamodb
        self.sqs, self.cloudwatch, self.bucket, self.log = Sqs(), CloudWatch(), Bucket(), Log()
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
            jobs=FakeReplayJobs(self.tables),
            incidents=FakeIncidents(self.tables),
        )
        self.incidents = ports.incidents
        self.jobs = ports.jobs
        subjects = [each.routes(ports) for each in (calls, switch_calls, replay_calls, incident_calls)]
        self.answering = Answering(subjects, clock=self.clock)

    def client(self, service: str, *_: str) -> Any:
        known = {"dynamodb": self.dynamodb, "sqs": self.sqs, "cloudwatch": self.cloudwatch, "s3": self.bucket}
        return {**known, "logs": self.log, "lambda": self.log}[service]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with mock_aws():
        client = sdk_client("dynamodb")
        create_tables(client)
        made = Stage(client)
        monkeypatch.setattr(stacks, "client", made.client)
        for module in (recovery, balance, records):  # whoever writes rows, and whoever reads them of every shard
            monkeypatch.setattr(module, "SHARDS", 2)
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
    oldest = [(NOON_MS - 60_000, 95.0), (NOON_MS - 360_000, 30.0), (NOON_MS - HOUR_MS, 9_000.0)]
    stage.cloudwatch.values = {("ApproximateAgeOfOldestMessage", "events"): oldest}
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


def test_a_replay_that_is_under_way_is_on_the_screen_and_one_that_is_over_is_not(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = {"INC-7-20260101-ab": State.RUNNING, "INC-6-20260101-cd": State.FINISHED}
    for job_id, state in jobs.items():
        job = Job(job_id, State.PLANNING, "ada", "it is back", "{}", 500, NOON_MS, "r-1")
        move(stage.jobs, None, partial(asked, job))
        was = stage.jobs.get(job_id)
        assert was is not None
        held = replace(was, state=state, approved_by="bob", total=40, cursor=5, outcomes={"succeeded": 5})
        stage.jobs.jobs[job_id] = replace(held, held_because="live traffic waits")  # type: ignore[attr-defined]  # the fake's
    (found,) = told(capsys)["replays"]
    assert (found["replay_id"], found["progress"]["done"], found["progress"]["items"]) == ("INC-7-20260101-ab", 5, 40)
    assert run(["status"]) == ExitCode.OK
    text = capsys.readouterr().out
    assert all(words in text for words in ("INC-7-20260101-ab", "5 succeeded", "bob", "live traffic waits"))
    assert "INC-6" not in text


# ---------------------------------------------------------------------------------------------------------- the balance

FIRST_MS = NOON_MS // HOUR_MS * HOUR_MS - 3 * HOUR_MS
NOT_COUNTED = {"again": 0, "done": 0, "waiting": 0, "ended": 0, "spilled": 0}


def put_counts(stage: Stage, hour_ms: int = FIRST_MS, **counts: float) -> None:
    """What functions have counted under that hour."""
    names = {
        "accepted": ("webhooks_accepted", "dev"),
        "spilled": ("webhooks_spilled", "dev"),
        **{outcome: ("events_accounted", "worker", "dev", outcome) for outcome in ("done", "left", "again")},
    }
    for name, value in counts.items():
        stage.cloudwatch.values.setdefault(names[name], []).append((hour_ms, value))


def put_row(stage: Stage, made: Row) -> None:
    stage.dynamodb.put_item(TableName=RECOVERY, Item=row_item(made))


def of_event(name: str, number: int, **fields: Any) -> Row:
    """The row of the action `number` of an event."""
    made = row(f"{name}-{number}", event_id=f"shop:{name}", received_at_ms=FIRST_MS + 5, updated_at_ms=FIRST_MS + 9)
    return replace(made, **fields)


def hours(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = told(capsys)["balance"]["hours"]
    return found


def test_each_hour_is_split_into_done_waiting_and_ended_by_counts_and_by_rows(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two rows of an event are one event; one that is open makes it wait, whatever else of it is dead."""
    put_counts(stage, accepted=103, spilled=4, again=2, done=90, left=6)
    put_counts(stage, FIRST_MS + HOUR_MS, accepted=7, done=7)
    put_row(stage, of_event("waits", 1))
    put_row(stage, of_event("waits", 2, status=Status.DLQ))
    put_row(stage, of_event("parent", 1, status=Status.PENDING, due_at_ms=0, waits_for=("x",)))
    put_row(stage, of_event("again", 1, status=Status.REPLAYED))
    put_row(stage, of_event("died", 1, status=Status.DLQ))
    put_row(stage, of_event("died", 2, status=Status.FAILED, failure_code="HTTP_422"))
    put_row(stage, of_event("stopped", 1, status=Status.FAILED, failure_code="SUPPRESSED"))
    put_row(stage, of_event("replayed", 1, status=Status.REPLAYED, result="succeeded"))
    whole: dict[str, Any] = {"received_at_ms": FIRST_MS + 5, "updated_at_ms": FIRST_MS + 9, "status": Status.FAILED}
    put_row(stage, replace(event_row("held"), failure_code="HELD", **whole))
    put_row(stage, replace(event_row("poison"), failure_code="UNREADABLE_EVENT", **whole))
    long_ago = {"received_at_ms": FIRST_MS - 5, "updated_at_ms": FIRST_MS + 9}
    put_row(stage, of_event("earlier", 1, status=Status.DLQ, **long_ago))
    put_row(stage, of_event("earlier", 2, **long_ago))
    first, second, *rest = hours(capsys)
    assert first == {
        "from_ms": FIRST_MS,
        "until_ms": FIRST_MS + HOUR_MS,
        "accepted": 103,
        "spilled": 4,
        "again": 2,
        "done": 90 + 2,  # of the six that were settled with rows, three wait and one has ended
        "waiting": 3 + 1,
        "ended": 1 + 1,
        "unaccounted": 3,
    }
    assert second | {"from_ms": 0, "until_ms": 0} == {
        **NOT_COUNTED,
        "from_ms": 0,
        "until_ms": 0,
        "accepted": 7,
        "done": 7,
        "unaccounted": 0,
    }
    assert [(hour["from_ms"], hour["accepted"]) for hour in rest] == [
        (FIRST_MS + 2 * HOUR_MS, 0),
        (FIRST_MS + 3 * HOUR_MS, 0),
    ]


def test_the_event_that_the_stage_sends_itself_is_in_no_balance(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """On AWS neither the door nor the worker counts it: a row of it must not either."""
    put_counts(stage, accepted=1, done=1)
    ours: dict[str, Any] = {"event_id": "synthetic:1", "received_at_ms": FIRST_MS + 5, "updated_at_ms": FIRST_MS + 9}
    put_row(stage, replace(event_row("ours"), status=Status.DLQ, **ours))
    first, *_ = hours(capsys)
    assert (first["accepted"], first["done"], first["ended"], first["unaccounted"]) == (1, 1, 0, 0)
    put_line(stage, "synthetic:1", source="synthetic")
    put_line(stage, "shop:1", source="shop")
    put_event(stage, "shop:1")
    first_here, *_ = balance.balance(LOCAL, NOON_MS)
    assert (first_here.accepted, first_here.done, first_here.ended, first_here.unaccounted) == (1, 1, 0, 0)


def test_what_is_missing_is_what_no_queue_and_no_spill_holds(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    put_counts(stage, accepted=10, done=1)
    put_counts(stage, FIRST_MS + HOUR_MS, accepted=1, done=3)  # counted twice: that hides nothing of another hour
    stage.sqs.depths = {"events": 4, "events-dlq": 1, "retries": 7}
    stage.bucket.spilled = 2
    found = told(capsys)["balance"]
    assert (found["in_queues"], found["missing"]) == (7, 2)
    assert [hour["unaccounted"] for hour in found["hours"]] == [9, -2, 0, 0]
    assert run(["status"]) == ExitCode.OK
    assert "2 deliveries are unaccounted for" in capsys.readouterr().err
    stage.bucket.spilled = 4
    assert run(["status"]) == ExitCode.OK
    assert "nothing is missing" in capsys.readouterr().err


def test_a_split_that_nobody_has_is_not_known_and_never_0(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More rows are open than are read."""
    monkeypatch.setattr(balance, "MOST_ROWS", 2)
    put_counts(stage, accepted=10, done=1)
    same_shard = (
        made for made in (of_event("waits", number) for number in range(10_000)) if shard_of(made.recovery_id) == 0
    )
    for _ in range(2):
        put_row(stage, next(same_shard))
    assert hours(capsys)[0]["waiting"] == 1
    put_row(stage, next(same_shard))
    found = told(capsys)["balance"]
    first = found["hours"][0]
    assert (first["accepted"], first["waiting"], first["done"], first["unaccounted"]) == (10, None, None, None)
    assert found["missing"] is None
    assert run(["status"]) == ExitCode.OK
    told_people = capsys.readouterr()
    assert "not known" in told_people.out
    assert "does not add up" in told_people.err


LOCAL = replace(STACK, endpoint="http://127.0.0.1:9")


def put_line(stage: Stage, event_id: str, at_ms: int = FIRST_MS + 5, **fields: Any) -> None:
    line = {"service": "ingress", "message": "webhook accepted", "timestamp": at_ms, "tenant": "acme"}
    stage.log.lines.append({**line, "event_id": event_id, "stored_in": "queue", **fields})


def put_event(stage: Stage, event_id: str, status: str = "settled") -> None:
    item = {"pk": {"S": f"E#acme#{event_id}"}, "status": {"S": status}, "received_at": {"N": str(FIRST_MS)}}
    stage.dynamodb.put_item(TableName=LEDGER, Item=item)


def test_on_the_local_stack_each_delivery_is_looked_up(stage: Stage) -> None:
    for name in ("done", "stopped", "waits", "died", "held", "nowhere", "in_hand"):
        put_line(stage, f"shop:{name}")
    put_line(stage, "shop:done", FIRST_MS + HOUR_MS + 1, stored_in="spill")
    put_line(stage, "shop:before", FIRST_MS - 1)
    for name in ("done", "stopped", "waits", "died"):
        put_event(stage, f"shop:{name}")
    put_event(stage, "shop:in_hand", "processing")
    put_row(stage, of_event("stopped", 1, status=Status.FAILED, failure_code="SUPPRESSED"))
    put_row(stage, of_event("waits", 1))
    put_row(stage, of_event("died", 1, status=Status.DLQ))
    put_row(stage, replace(event_row("held"), event_id="shop:held", status=Status.FAILED, failure_code="HELD"))
    first, second, *_ = balance.balance(LOCAL, NOON_MS)
    assert (first.accepted, first.again, first.done, first.waiting, first.ended, first.unaccounted) == (
        7,
        0,
        2,
        2,
        1,
        2,
    )
    assert (second.accepted, second.again, second.spilled, second.unaccounted) == (1, 1, 1, 0)
    stage.log.is_endless = True
    assert {one.accepted for one in balance.balance(LOCAL, NOON_MS)} == {None}
    assert standing.ages(LOCAL, NOON_MS) == {}


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


def test_incidents_that_are_not_over_are_among_what_stands(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever was paged for one sees whether it is the only one, and in whose hands each is."""
    assert told(capsys)["incidents"] == []
    stage.incidents.store(rung(DOWN))
    (one,) = told(capsys)["incidents"]
    assert run(["status"]) == ExitCode.OK
    shown = capsys.readouterr().out
    for said in ("incidents that are not over", one["incident_id"], "SEV2", "A provider is down"):
        assert said in shown
