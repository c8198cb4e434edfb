"""Triage, replay, sweeper and evaluator over real adapters: a dead message becomes a row, is replayed, is hinted."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from functions import observability
from functions.adapters.audit import DynamoAudit
from functions.adapters.control import DynamoSwitchMarks
from functions.adapters.found_sources import DynamoFoundSources
from functions.adapters.health import DynamoHealthCounts, DynamoHealthRecords
from functions.adapters.ledger import DynamoLedger
from functions.adapters.recovery import DynamoRecovery
from functions.adapters.s3 import S3Envelopes
from functions.adapters.spill import S3Spill
from functions.adapters.sqs_events import SqsEvents
from functions.adapters.sqs_hints import SqsHints
from functions.adapters.ssm import SsmSwitches
from functions.adapters.ssm_expectations import SsmExpectations
from functions.adapters.ssm_history import SsmSwitchHistory
from functions.adapters.ssm_writer import SsmSwitchWriter
from functions.adapters.switch_returns import DynamoSwitchReturns
from functions.core.gate import Health
from functions.core.health import Counts, Thresholds, minute_of
from functions.core.integration import Integration
from functions.core.recovery import Change, Status
from functions.core.replay import Filter
from functions.evaluator.handler import build as build_evaluator
from functions.sweeper.handler import build as build_sweeper
from functions.triage.handler import build as build_triage
from tests import aws_tables
from tests.aws_tables import sdk_client
from tests.bulk_on_aws import Bulk
from tests.fakes import LIVE_SWITCHES, NOON_MS, FakeClock, FakeDoor, FakeIds
from tests.integration.test_evaluator import SETTINGS as EVALUATOR
from tests.integration.test_sweeper import SETTINGS as SWEEPER
from tests.integration.test_triage import message
from tests.recovery_rows import event, event_row, row

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_ssm import SSMClient

BUCKET = "holdfast-test"


@dataclass
class Account:
    """One account with everything in it, and its clients."""

    dynamodb: DynamoDBClient
    sqs: SQSClient
    ssm: SSMClient
    events_url: str
    retries_url: str
    replays_url: str
    clock: FakeClock

    def __post_init__(self) -> None:
        self.ids = FakeIds()
        self.recovery = DynamoRecovery(
            self.dynamodb, self.ids, recovery_table=aws_tables.RECOVERY, audit_table=aws_tables.AUDIT
        )
        self.ledger = DynamoLedger(
            self.dynamodb, self.ids, ledger_table=aws_tables.LEDGER, control_table=aws_tables.CONTROL
        )
        self.counts = DynamoHealthCounts(self.dynamodb, aws_tables.CONTROL, self.ids)
        self.s3 = sdk_client("s3")
        self.envelopes = S3Envelopes(self.s3, BUCKET)
        self.switches = SsmSwitches(self.ssm, SWEEPER.switches_path, self.clock)
        lines: list[str] = []
        self.seen: dict[str, Any] = {
            "clock": self.clock,
            "log": observability.logger("aws-test", stream=io.StringIO()),
            "metrics": observability.metrics("aws-test", "test", lines.append),
        }

    def triage(self, *messages: dict[str, Any]) -> dict[str, Any]:
        handle = build_triage(
            ledger=self.ledger,
            recovery=self.recovery,
            envelopes=self.envelopes,
            ids=self.ids,
            max_receives=10,
            **self.seen,
        )
        return handle({"Records": list(messages)}, None)

    def bulk(self) -> Bulk:
        return Bulk(
            self.dynamodb,
            self.sqs,
            self.s3,
            BUCKET,
            urls={"events": self.events_url, "replays": self.replays_url},
            ids=self.ids,
            recovery=self.recovery,
            switches=self.switches,
            integrations={"helpdesk": Integration("helpdesk")},
            **self.seen,
        )

    def sweep(self) -> dict[str, int]:
        return build_sweeper(
            SWEEPER,
            integrations=("helpdesk",),
            ledger=self.ledger,
            recovery=self.recovery,
            switches=self.switches,
            spill=S3Spill(self.s3, BUCKET),
            envelopes=self.envelopes,
            events=SqsEvents(self.sqs, self.events_url),
            retries=SqsHints(self.sqs, self.retries_url),
            replays=SqsHints(self.sqs, self.replays_url),
            ids=self.ids,
            **self.seen,
        )({}, None)

    def evaluate(self) -> dict[str, int]:
        return build_evaluator(
            EVALUATOR,
            history=SsmSwitchHistory(self.ssm, EVALUATOR.switches_path),
            marks=DynamoSwitchMarks(self.dynamodb, aws_tables.CONTROL),
            returns=DynamoSwitchReturns(self.dynamodb, aws_tables.CONTROL, aws_tables.AUDIT),
            writer=SsmSwitchWriter(self.ssm, EVALUATOR.switches_path),
            audit=DynamoAudit(self.dynamodb, aws_tables.AUDIT),
            records=DynamoHealthRecords(
                self.dynamodb, self.ids, control_table=aws_tables.CONTROL, audit_table=aws_tables.AUDIT
            ),
            counts=self.counts,
            expectations=SsmExpectations(self.ssm, "/holdfast/test/sources"),
            door=FakeDoor(),  # of no source is anything expected
            found=DynamoFoundSources(self.dynamodb, aws_tables.CONTROL),
            thresholds={"helpdesk": Thresholds()},
            **self.seen,
        )({}, None)

    def hints(self, url: str) -> list[dict[str, Any]]:
        received = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        return [json.loads(each["Body"]) for each in received]

    def audited(self, kind: str) -> list[dict[str, Any]]:
        items = self.dynamodb.scan(TableName=aws_tables.AUDIT)["Items"]
        return [item for item in items if item["event_type"]["S"] == kind]


@pytest.fixture
def account() -> Iterator[Account]:
    """Empty tables, queues and bucket, and switches as they are every day."""
    with aws_tables.moto_tables() as dynamodb, aws_tables.one_request_at_a_time():
        sqs = sdk_client("sqs")
        ssm = sdk_client("ssm")
        sdk_client("s3").create_bucket(Bucket=BUCKET)
        for name, value in LIVE_SWITCHES.items():
            ssm.put_parameter(Name=f"{SWEEPER.switches_path}/{name}", Value=value, Type="String")
        urls = [sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("events", "retries", "replays")]
        yield Account(dynamodb, sqs, ssm, urls[0], urls[1], urls[2], FakeClock())


def test_a_poison_event_is_kept_replayed_and_hinted_again_if_its_message_is_lost(account: Account) -> None:
    assert account.triage(message(event().to_message())) == {"batchItemFailures": []}
    recovery_id = event_row().recovery_id
    kept = account.recovery.get(recovery_id)
    assert kept is not None
    assert (kept.status, kept.root_cause) == (Status.DLQ, "transient_infra")
    assert account.envelopes.get(kept.envelope_ref) == event()
    assert account.sweep() == {}

    bulk = account.bulk()
    job = bulk.approve(bulk.planned(Filter(source=frozenset(["helpdesk-acme"]))))
    assert (job.total, job.integrations) == (1, ("intake",))
    assert bulk.invoke(job.job_id, remaining_ms=10_001) == "later"  # it has no time to watch
    replayed = account.recovery.get(recovery_id)
    assert replayed is not None
    assert account.hints(account.replays_url) == [{"recovery_id": recovery_id, "version": replayed.version}]
    assert len(account.audited("platform.integration.recovery.replayed")) == 1
    assert len(account.audited("platform.replay_job.changed")) == 4  # planning, planned, approved, running

    account.clock.advance(180_000)
    assert account.sweep()["rows_hinted"] == 1
    assert account.hints(account.replays_url) == [{"recovery_id": recovery_id, "version": replayed.version + 1}]
    assert account.hints(account.retries_url) == []


def test_a_due_row_is_hinted_an_expired_one_ends_and_a_later_one_waits(account: Account) -> None:
    due, late = row("due"), row("late", expires_at_ms=NOON_MS)
    later = row("later", not_before_ms=NOON_MS + 300_000, due_at_ms=NOON_MS + 300_000)
    for each in (due, late, later):
        assert account.recovery.put_if_absent(Change(each, None))
    assert account.sweep() == {"rows_committed": 1, "rows_expired": 1, "rows_hinted": 1}
    assert account.hints(account.retries_url) == [{"recovery_id": due.recovery_id, "version": 2}]
    ended = account.recovery.get(late.recovery_id)
    assert ended is not None
    assert ended.failure_code == "EXPIRED"
    assert account.recovery.get(later.recovery_id) == later
    assert len(account.audited("platform.integration.recovery.dismissed")) == 1


def test_switching_off_and_on_is_audited_whoever_did_it(account: Account) -> None:
    assert account.evaluate()["changes"] == len(LIVE_SWITCHES)
    for value in ("off", "on"):
        account.ssm.put_parameter(
            Name=f"{SWEEPER.switches_path}/auto_reply", Value=value, Type="String", Overwrite=True
        )
    assert account.evaluate()["changes"] == 2
    assert account.evaluate()["changes"] == 0
    changes = [each for each in account.audited("platform.switch.changed") if each["affected_id"]["S"] == "auto_reply"]
    changes.sort(key=lambda each: json.loads(each["after_state"]["S"])["version"])
    assert [json.loads(each["after_state"]["S"])["value"] for each in changes] == ["on", "off", "on"]
    assert all(each["actor"]["S"] for each in changes)


def test_what_nobody_reaches_is_closed_probed_and_left_alone_by_the_sweeper(account: Account) -> None:
    """000.23, 003.8: counts, record, audit and gate over the tables as they are."""
    waiting = row("waiting", not_before_ms=NOON_MS, due_at_ms=NOON_MS)
    account.recovery.put_if_absent(Change(waiting, None))
    account.clock.advance(10_000)
    minute = minute_of(account.clock.now, 1.0)
    account.counts.add(minute, {"helpdesk": Counts(error=10, unreachable=10)}, account.clock.now)
    account.clock.advance(60_000)
    assert account.evaluate()["health_changes"] == 1
    state = account.ledger.read([], ["helpdesk"]).integrations["helpdesk"]
    assert (state.health, state.since_ms) == (Health.HARD_DOWN, (minute + 1) * 60_000)
    assert state.reason.startswith("unreachable")
    (audited,) = account.audited("platform.integration.health.changed")
    assert (audited["severity"]["S"], audited["affected_id"]["S"]) == ("critical", "helpdesk")

    account.clock.advance(30_000)
    assert account.sweep()["probes_woken"] == 1
    assert [hint["recovery_id"] for hint in account.hints(account.retries_url)] == [waiting.recovery_id]
    assert "probes_woken" not in account.sweep()  # its hint is under way
