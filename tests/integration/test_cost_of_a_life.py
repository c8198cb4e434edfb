"""What an event costs in AWS requests and write units, whatever becomes of it: real handlers, flow and adapters.

The figures are printed at the end of a run. What is held fast is what must not creep: the way of an event that meets no
trouble.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from functions import observability
from functions.adapters.ledger import DynamoLedger
from functions.adapters.recovery import DynamoRecovery
from functions.adapters.sqs_hints import SqsHints
from functions.adapters.ssm import SsmSwitches
from functions.catalog.loader import load
from functions.core.clock import SystemIds
from functions.core.integration import Integration, Rate
from functions.core.recovery import Row, Status
from functions.core.replay import Filter
from functions.core.replay_job import Job
from functions.sweeper.handler import build as build_sweeper
from tests import aws_tables
from tests.aws_tables import sdk_client
from tests.bulk_on_aws import Bulk
from tests.fakes import FakeClock, FakeSpill
from tests.integration.test_requests_per_event import Stack, patient
from tests.integration.test_sweeper import SETTINGS as SWEEPER
from tests.write_units import Billing

__all__ = ["patient"]  # a fixture that is used here too

BATCH = 10
HELPDESK = "helpdesk"
PATH = "/s"
BUCKET = "holdfast-replays"


class Life:
    """The worker's stack with a sweeper and a replay beside it, two queues between them, and a bill."""

    def __init__(self, dynamodb: Any, rate: Rate | None = None) -> None:
        self.clock = FakeClock()
        self.stack = Stack(dynamodb, self.clock, _at(rate))
        self.sqs = sdk_client("sqs")
        self.urls = {
            name: self.sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("events", "retries", "replays")
        }
        ids = SystemIds()
        self.recovery = DynamoRecovery(dynamodb, ids, recovery_table=aws_tables.RECOVERY, audit_table=aws_tables.AUDIT)
        ssm = sdk_client("ssm")
        self.billing = Billing(dynamodb, self.sqs, ssm, self.stack.s3)
        self.bill = self.billing.bill
        seen: dict[str, Any] = {
            "clock": self.clock,
            "log": observability.logger("life", stream=io.StringIO()),
            "metrics": observability.metrics("life", "test", lambda _line: None),
            "recovery": self.recovery,
            "switches": SsmSwitches(ssm, PATH, self.clock),
            "integrations": (HELPDESK,),
            "ids": ids,
        }
        replays = SqsHints(self.sqs, self.urls["replays"])
        self._sweep = build_sweeper(
            SWEEPER,
            ledger=DynamoLedger(dynamodb, ids, control_table=aws_tables.CONTROL),
            spill=FakeSpill(),
            envelopes=None,  # type: ignore[arg-type]  # nothing is spilled here
            events=None,  # type: ignore[arg-type]  # likewise
            retries=SqsHints(self.sqs, self.urls["retries"]),
            replays=replays,
            **seen,
        )
        s3 = self.stack.s3
        s3.create_bucket(Bucket=BUCKET)
        self.bulk = Bulk(
            dynamodb,
            self.sqs,
            s3,
            BUCKET,
            urls=self.urls,
            # Without a pace: the emulated queue delays by a clock of its own.
            **{**seen, "integrations": {name: replace(one, rate=None) for name, one in load().integrations.items()}},
        )
        self.bulk.meanwhile = self.take_every_replay

    def work(self, *events: Any) -> dict[str, Any]:
        """A batch of the events queue."""
        with self.billing.open():
            return self.stack.process(*events)

    def rows(self) -> list[Row]:
        return [row for status in Status for row in self.recovery.find(HELPDESK, [status], 100)]

    def retry(self) -> None:
        """When the next rows are due: a tick of the sweeper, and a batch of what it sent."""
        self.clock.now = max(self.clock.now, min(row.due_at_ms for row in self.rows() if row.is_open))
        with self.billing.open():
            tally = self._sweep({}, None)
        assert tally["rows_hinted"], tally
        self.take("retries")

    def tick(self) -> None:
        """A tick of the sweeper, whatever it finds."""
        with self.billing.open():
            self._sweep({}, None)

    def replay(self, status: Status = Status.DLQ) -> Job:
        """A person replays everything that is dead, and batches of what that sent."""
        with self.billing.open():
            job = self.bulk.planned(Filter(status=frozenset([status.value])))
            self.bulk.approve(job)
            outcome = self.bulk.invoke(job.job_id)
        assert outcome == "finished", self.bulk.now(job.job_id)
        return self.bulk.now(job.job_id)

    def take_every_replay(self) -> None:
        """Workers see to whatever waits."""
        while self.take("replays"):
            pass

    def take(self, queue: str) -> int:
        messages = self.sqs.receive_message(QueueUrl=self.urls[queue], MaxNumberOfMessages=10).get("Messages", [])
        if not messages:
            return 0
        records = [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "eventSourceARN": f"arn:aws:sqs:us-east-1:000000000000:{queue}",
                "attributes": {"ApproximateReceiveCount": "1"},
                "body": message["Body"],
            }
            for message in messages
        ]
        with self.billing.open():
            answer = self.stack.handler({"Records": records}, None)
        assert answer == {"batchItemFailures": []}
        for message in messages:
            self.sqs.delete_message(QueueUrl=self.urls[queue], ReceiptHandle=message["ReceiptHandle"])
        return len(messages)

    def settle_everything(self) -> None:
        while any(row.is_open for row in self.rows()):
            self.retry()

    def event(self, identity: str) -> Any:
        """One that a rule decides: two actions, no reply."""
        return self.stack.event(identity, "I want a refund")


def _at(rate: Rate | None) -> dict[str, Integration] | None:
    """All integrations at another rate than the catalog's, if one is given."""
    every = load().integrations
    return None if rate is None else {name: replace(one, rate=one.rate and rate) for name, one in every.items()}


@contextmanager
def lived(rate: Rate | None = None) -> Iterator[Life]:
    with aws_tables.moto_tables() as dynamodb, aws_tables.one_request_at_a_time():
        life = Life(dynamodb, rate)
        life.stack.process(life.event("warm"))  # switches and secrets are read once an environment
        with life.billing.attached():
            yield life
        life.stack.close()


@pytest.fixture
def life(patient: None) -> Iterator[Life]:
    with lived() as life:
        yield life


@pytest.fixture
def unhurried(patient: None) -> Iterator[Life]:
    """Nothing waits for its turn, as a replay does not that keeps to its share of the rate."""
    with lived(Rate(1000.0, 1000)) as life:
        yield life


def test_the_happy_path_is_a_claim_and_a_settlement_and_its_share_of_the_batch(
    life: Life, proved: Callable[[str], None]
) -> None:
    life.work(*(life.event(str(number)) for number in range(BATCH)))
    proved(f"cost, happy path, per event of a batch of {BATCH}: {life.bill.said(BATCH)}")
    counts, limits = 2, 2  # once a batch: what became of the calls, and their turns; of the helpdesk and of the LLM
    assert life.bill.requests["dynamodb.UpdateItem"] == 2 * BATCH + counts + limits
    assert life.bill.requests["dynamodb.BatchGetItem"] == 1
    assert set(life.bill.requests) == {"dynamodb.UpdateItem", "dynamodb.BatchGetItem"}
    # A unit for the claim, one for the settlement, and one for each index that people find it by: request, ticket,
    # recipient. These are written with the claim, by no request of ours, and never again.
    assert life.bill.write_units == (2 + 3) * BATCH + counts + limits
    assert not life.rows()


def test_a_duplicate_costs_its_share_of_one_read_and_writes_nothing(life: Life, proved: Callable[[str], None]) -> None:
    events = [life.event(str(number)) for number in range(BATCH)]
    life.stack.process(*events)
    life.work(*events)
    proved(f"cost, duplicate, per event of a batch of {BATCH}: {life.bill.said(BATCH)}")
    assert life.bill.write_units == 0
    assert dict(life.bill.requests) == {"dynamodb.BatchGetItem": 1}


def test_a_retry_costs_a_row_a_tick_and_two_transitions_of_it(life: Life, proved: Callable[[str], None]) -> None:
    life.stack.status = 503
    life.work(life.event("1"))
    life.stack.status = 200
    life.settle_everything()
    proved(f"cost, retried once (two actions), with its ticks of the sweeper: {life.bill.said()}")
    assert {row.status for row in life.rows()} == {Status.SUCCEEDED}


def test_what_is_deferred_costs_no_attempt(life: Life, proved: Callable[[str], None]) -> None:
    life.stack.status, life.stack.headers = 429, {"retry-after": "30"}
    life.work(life.event("1"))
    life.stack.status, life.stack.headers = 200, {}
    life.settle_everything()
    proved(f"cost, deferred by a 429 (two actions), with its ticks of the sweeper: {life.bill.said()}")
    assert {(row.status, row.attempt_count) for row in life.rows()} == {(Status.SUCCEEDED, 1)}


def test_what_died_and_was_replayed_costs_five_attempts_and_a_job(life: Life, proved: Callable[[str], None]) -> None:
    life.stack.status = 503
    life.work(life.event("1"))
    life.settle_everything()
    assert {row.status for row in life.rows()} == {Status.DLQ}
    life.stack.status = 200
    life.bill.clear()
    job = life.replay()
    proved(f"cost, a bulk replay of {job.total} dead actions, its plan included: {life.bill.said(job.total)} per item")
    assert {(row.status, row.result) for row in life.rows()} == {(Status.REPLAYED, "succeeded")}


def test_a_bulk_replay_of_sixty_asks_little_of_aws_beside_what_its_items_do(
    unhurried: Life, proved: Callable[[str], None]
) -> None:
    life = unhurried
    life.stack.status = 400  # for good: one attempt each
    for start in range(0, 30, BATCH):
        life.clock.advance(1_000)
        life.work(*(life.event(str(start + number)) for number in range(BATCH)))
    life.stack.status = 200
    life.bill.clear()
    job = life.replay(Status.FAILED)
    said = life.bill.said(job.total)
    everything = life.bill.requests.total() / job.total
    assert {(row.status, row.result) for row in life.rows()} == {(Status.REPLAYED, "succeeded")}
    assert (job.total, dict(job.outcomes)) == (60, {"succeeded": 60})
    assert life.bill.requests["sqs.SendMessageBatch"] <= 60 / 10 + job.batches
    proved(
        f"cost, a bulk replay of {job.total} dead actions in {job.batches} batches, its plan and its items' attempts "
        f"included: {everything:.2f} AWS requests an item: {said}"
    )


def test_the_bill_counts_as_dynamodb_does(life: Life) -> None:
    client = life.stack.dynamodb
    with life.billing.open() as bill:
        client.put_item(TableName=aws_tables.CONTROL, Item={"pk": {"S": "x"}, "v": {"S": "y" * 2000}})
        assert bill.write_units == 2
        client.transact_write_items(
            TransactItems=[{"Put": {"TableName": aws_tables.CONTROL, "Item": {"pk": {"S": "x"}}}}]
        )
        assert bill.write_units == 2 + 2 * 2  # it is paid by what it replaces, where that is larger
        row = {"pk": {"S": "r"}, "gpk": {"S": "a"}, "gsk": {"S": "1"}}
        client.put_item(TableName=aws_tables.RECOVERY, Item=row)
        client.put_item(TableName=aws_tables.RECOVERY, Item=row | {"gsk": {"S": "2"}})
        assert bill.write_units == 6 + 2 + 3
        with pytest.raises(client.exceptions.ConditionalCheckFailedException):
            client.put_item(
                TableName=aws_tables.CONTROL, Item={"pk": {"S": "x"}}, ConditionExpression="attribute_not_exists(pk)"
            )
        assert bill.write_units == 12
    assert json.loads(json.dumps(dict(bill.requests)))["dynamodb.PutItem"] == 4
