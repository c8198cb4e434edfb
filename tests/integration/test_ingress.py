"""Ingress over Parameter Store and a queue: what is left behind in them, and what it costs."""

from __future__ import annotations

import hmac
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import boto3
import pytest

from functions.adapters.dynamodb_items import DynamoItems
from functions.adapters.s3_objects import S3Objects
from functions.adapters.sqs_outbox import SqsQueue
from functions.adapters.ssm_sources import SsmSourceParameters
from functions.core.clock import SystemClock, SystemIds, SystemRandom, system_monotonic
from functions.core.event import Event
from functions.ingress.handler import Handler, build
from functions.ingress.outbox import DurableOutbox
from functions.ingress.request import Route
from functions.ingress.seen import LedgerSeen
from functions.ingress.settings import IngressSettings
from functions.ingress.sources import SourceCache
from functions.signatures.providers import endpoint_of
from tests.aws_tables import sdk_client
from tests.ingress_fakes import gateway_event
from tests.moto_server import MotoServer, moto_server

PATH = "/holdfast/test/sources"
PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Patient:
    """The adapters, given all the time they want: moto on a busy machine is slower than any AWS."""

    parameters: SsmSourceParameters
    queue: SqsQueue
    bucket: S3Objects
    tables: DynamoItems

    def read(self, source_id: str, timeout_seconds: float) -> str | None:
        assert timeout_seconds > 0
        return self.parameters.read(source_id, PATIENCE_SECONDS)

    def send(self, event: Event, message: str, timeout_seconds: float) -> None:
        self.queue.send(event, message, PATIENCE_SECONDS)

    def put(self, key: str, content: bytes, timeout_seconds: float) -> None:
        self.bucket.put(key, content, PATIENCE_SECONDS)

    def get_item(self, table: str, key: Mapping[str, object], timeout_seconds: float) -> dict[str, Any] | None:
        return self.tables.get_item(table, key, PATIENCE_SECONDS)


class Stack:
    """Ingress as `main` composes it, over moto behind a socket."""

    def __init__(self, server: MotoServer) -> None:
        self.sqs = sdk_client("sqs")
        self.ssm = sdk_client("ssm")
        self.dynamodb = sdk_client("dynamodb")
        sdk_client("s3").create_bucket(Bucket="bucket")
        self.queue_url = self.sqs.create_queue(QueueName="events")["QueueUrl"]
        self.dynamodb.create_table(
            TableName="ledger",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        )
        server.requests.clear()
        self.requests = server.requests
        self.lines: list[str] = []
        clock, ids = SystemClock(), SystemIds()
        patient = Patient(
            SsmSourceParameters(server.service("ssm"), PATH),
            SqsQueue(server.service("sqs"), self.queue_url),
            S3Objects(server.service("s3"), "/bucket"),
            DynamoItems(server.service("dynamodb")),
        )
        self.handler: Handler = build(
            IngressSettings("test", self.queue_url, PATH, "bucket", "ledger", "recovery"),
            SourceCache(patient, endpoint_of, clock, SystemRandom()),
            DurableOutbox(patient, patient, ids),
            LedgerSeen("ledger", "recovery", lambda: patient),
            clock,
            ids,
            system_monotonic,
            self.lines.append,
        )

    def put(self, source_id: str, secret: str) -> None:
        entry = {"tenant": "acme", "provider": "github", "flow": "support", "secrets": [{"secret": secret}]}
        name = f"{PATH}/{source_id}"
        self.ssm.put_parameter(Name=name, Value=json.dumps(entry), Type="SecureString", Overwrite=True)

    def send(
        self, source_id: str, body: bytes, secret: str = "s3", delivery: str = "d", route: Route = Route.EVENT
    ) -> dict[str, Any]:
        headers = {
            "X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest(),
            "X-GitHub-Delivery": delivery,
            "X-GitHub-Event": "push",
        }
        return self.handler(gateway_event(source_id, headers, body, route=route), None)

    def stored(self) -> list[Event]:
        events: list[Event] = []
        while True:
            messages = self.sqs.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=10).get("Messages", [])
            if not messages:
                return events
            for message in messages:
                events.append(Event.from_message(message["Body"]))
                self.sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])


@pytest.fixture
def stack() -> Iterator[Stack]:
    with moto_server() as server:
        yield Stack(server)


def test_an_accepted_event_costs_one_request_and_its_source_one_in_five_minutes(
    stack: Stack, proved: Callable[[str], None]
) -> None:
    """002.8: nothing but the queue stands between an event and its answer."""
    stack.put("hub", "s3")
    for number in range(20):
        assert stack.send("hub", b"{}", delivery=str(number))["statusCode"] == 202
    assert stack.requests == ["GetParameter"] + ["SendMessage"] * 20
    proved(f"ingress, per accepted event: 1 SendMessage; GetParameter {stack.requests.count('GetParameter')} per 20")
    assert len({event.event_id for event in stack.stored()}) == 20


def test_forged_and_unknown_deliveries_leave_nothing_in_the_queue(stack: Stack) -> None:
    stack.put("hub", "s3")
    statuses = [stack.send("hub", b"{}", "wrong"), stack.send("other", b"{}"), stack.send("hub", b"{", "s3")]
    assert [answer["statusCode"] for answer in statuses] == [401, 401, 400]
    assert stack.stored() == []
    assert "SendMessage" not in stack.requests


def test_a_secret_rotated_in_the_parameter_store_holds_from_its_first_event(stack: Stack) -> None:
    stack.put("hub", "s3")
    assert stack.send("hub", b"{}")["statusCode"] == 202
    stack.put("hub", "s4")
    assert stack.send("hub", b"{}", "s4", "e")["statusCode"] == 202
    assert stack.send("hub", b"{}", "s3", "f")["statusCode"] == 401
    assert len(stack.stored()) == 2


def test_when_the_queue_is_gone_the_sender_is_told_to_come_back(stack: Stack) -> None:
    """002.10: what is not stored is never acknowledged. While there is the spill, it is stored."""
    stack.put("hub", "s3")
    stack.sqs.delete_queue(QueueUrl=stack.queue_url)
    assert stack.send("hub", b"{}")["statusCode"] == 202
    bucket = boto3.resource("s3").Bucket("bucket")
    assert [found.key.partition("/")[0] for found in bucket.objects.all()] == ["spill"]
    bucket.objects.all().delete()
    bucket.delete()
    answer = stack.send("hub", b"{}")
    assert answer["statusCode"] == 503
    assert json.loads(stack.lines[-1])["reason"] == "not_stored"


def test_a_test_asks_the_ledger_once_and_leaves_nothing_behind(stack: Stack) -> None:
    stack.put("hub", "s3")
    assert json.loads(stack.send("hub", b"{}", route=Route.TEST)["body"])["duplicate"] is False
    event_id = json.loads(stack.send("hub", b"{}", route=Route.TEST)["body"])["event_id"]
    item = {"pk": {"S": f"E#acme#{event_id}"}, "status": {"S": "settled"}, "epoch": {"N": "0"}}
    stack.dynamodb.put_item(TableName="ledger", Item=item)
    assert json.loads(stack.send("hub", b"{}", route=Route.TEST)["body"])["duplicate"] is True
    stack.dynamodb.delete_table(TableName="ledger")
    assert json.loads(stack.send("hub", b"{}", route=Route.TEST)["body"])["duplicate"] == "unknown"
    assert stack.requests == ["GetParameter"] + ["GetItem"] * 4
    assert stack.stored() == []


@pytest.mark.parametrize(
    "secret", ["", "{}", '{"tenant": "acme"}', '{"tenant":"a","provider":"github","flow":"f","secrets":[{"secret":1}]}']
)
def test_an_entry_nobody_can_use_is_our_trouble_and_is_reported(stack: Stack, secret: str) -> None:
    stack.ssm.put_parameter(Name=f"{PATH}/hub", Value=secret or "-", Type="String")
    assert stack.send("hub", b"{}")["statusCode"] == 503
    assert json.loads(stack.lines[-1])["source_malformed"] == 1


def test_ingress_starts_without_the_libraries_that_would_slow_it_down() -> None:
    """002.8: what the composed function has imported, in a process of its own."""
    script = (
        "import os, sys\n"
        "from functions.ingress.settings import IngressSettings\n"
        "os.environ.update(IngressSettings('t', 'http://127.0.0.1/q', '/p', 'b', 'l', 'r').to_env())\n"
        "import functions.ingress.main as main\n"
        "assert callable(main.handler)\n"
        "print(*sorted(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "functions" in loaded
    assert not loaded & {"pydantic", "pydantic_core", "aws_lambda_powertools", "httpx", "cryptography", "yaml", "typer"}
    ours = {name for name in done.stdout.split() if name.startswith("functions.")}
    assert not {name for name in ours if name.startswith(("functions.flows", "functions.catalog", "functions.worker"))}
    # What only a challenge or a test asks for waits until one comes.
    late = {"ingress.challenge", "ingress.probe", "core.ledger", "core.decision", "adapters.dynamodb_items"}
    assert not ours & {f"functions.{name}" for name in late}
