"""What one event costs the worker in AWS requests, counted by hooks in the SDK: real handler, flow and adapters."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest

from functions.adapters.audit import DynamoAudit
from functions.adapters.caps import DynamoCaps
from functions.adapters.health import DynamoHealthCounts, DynamoHealthRecords
from functions.adapters.hosts import AllowedHosts
from functions.adapters.http import HttpCaller
from functions.adapters.ledger import DynamoLedger
from functions.adapters.llm import LlmClassifier
from functions.adapters.recipients import DynamoRecipients
from functions.adapters.recovery import DynamoRecovery
from functions.adapters.richpanel import RichpanelProvider
from functions.adapters.s3 import S3Envelopes
from functions.adapters.sqs_hints import SqsVisibility
from functions.adapters.ssm import IntegrationSettings, SsmSwitches
from functions.catalog.loader import load
from functions.core.clock import Clock, SystemClock, SystemIds, SystemRandom
from functions.core.event import Event
from functions.core.integration import Integration
from functions.flows.registry import flows_of
from functions.worker.handler import Handler, build
from functions.worker.ports import Ports
from functions.worker.settings import WorkerSettings
from ops import cost
from tests import aws_tables
from tests.aws_tables import sdk_client
from tests.fakes import LIVE_SWITCHES
from tests.worker_world import Quiet

READS = ("dynamodb.BatchGetItem", "dynamodb.GetItem")
WRITES = ("dynamodb.UpdateItem", "dynamodb.PutItem", "dynamodb.TransactWriteItems", "dynamodb.DeleteItem")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch's events ask the limiter together, however slowly this machine brings them there."""
    monkeypatch.setattr("functions.worker.leases.WINDOW_SECONDS", 30.0)


class Stack:
    """The worker over moto, with a helpdesk that says yes, or what it is told."""

    def __init__(
        self, dynamodb: Any, clock: Clock | None = None, integrations: Mapping[str, Integration] | None = None
    ) -> None:
        self.requests: Counter[str] = Counter()
        self.limiter_writes = 0  # of those, to the control table
        self.is_counting = False
        self.health_writes = 0
        self.cap_writes = 0  # of those, that count a conversation's automatic messages
        self.status = 200
        self.headers: dict[str, str] = {}
        self.clock = SystemClock() if clock is None else clock
        ssm, s3, sqs = (
            sdk_client("ssm"),
            sdk_client("s3"),
            sdk_client("sqs"),
        )
        s3.create_bucket(Bucket="bucket")
        for name, value in LIVE_SWITCHES.items():
            ssm.put_parameter(Name=f"/s/{name}", Value=value, Type="String")
        for name in ("helpdesk", "llm"):
            secret = {"base_url": "http://127.0.0.1:9", "api_key": "k"}
            ssm.put_parameter(Name=f"/i/{name}", Value=json.dumps(secret), Type="SecureString")
        self.s3, self.dynamodb = s3, dynamodb
        self.clients = (dynamodb, ssm, s3, sqs)
        catalog = load()
        ids = SystemIds()
        hosts = AllowedHosts.of(catalog.integrations, is_loopback_allowed=True)
        secrets = IntegrationSettings(ssm, "/i", self.clock, hosts)
        tables: dict[str, Any] = {"recovery_table": aws_tables.RECOVERY, "audit_table": aws_tables.AUDIT}

        def caller() -> HttpCaller:
            return HttpCaller(self.clock, lambda: httpx.MockTransport(self._answer))

        self.quiet = Quiet()
        loop = asyncio.new_event_loop()
        self.loop = loop
        self.handler: Handler = build(
            WorkerSettings(
                stage="test",
                ledger_table=aws_tables.LEDGER,
                control_table=aws_tables.CONTROL,
                recipients_table=aws_tables.RECIPIENTS,
                bucket="bucket",
                events_queue_url="q/events",
                retries_queue_url="q/retries",
                replays_queue_url="q/replays",
                switches_path="/s",
                integrations_path="/i",
                timeout_seconds=60,
                time_scale=1.0,
                **tables,
            ),
            Ports(
                ledger=DynamoLedger(
                    dynamodb, ids, ledger_table=aws_tables.LEDGER, control_table=aws_tables.CONTROL, **tables
                ),
                recovery=DynamoRecovery(dynamodb, ids, **tables),
                counts=DynamoHealthCounts(dynamodb, aws_tables.CONTROL, ids),
                health=DynamoHealthRecords(
                    dynamodb, ids, control_table=aws_tables.CONTROL, audit_table=aws_tables.AUDIT
                ),
                recipients=DynamoRecipients(dynamodb, aws_tables.RECIPIENTS, aws_tables.AUDIT),
                caps=DynamoCaps(dynamodb, aws_tables.CONTROL),
                audit=DynamoAudit(dynamodb, aws_tables.AUDIT),
                switches=SsmSwitches(ssm, "/s", self.clock),
                envelopes=S3Envelopes(s3, "bucket"),
                providers={"helpdesk": RichpanelProvider(caller(), secrets, self.clock, catalog.text_of)},
                classifier=LlmClassifier(
                    caller(), secrets, self.clock, prompt="p", prompt_version="1", default_model="m"
                ),
                visibility=SqsVisibility(sqs, {}),
                clock=self.clock,
                ids=ids,
                rng=SystemRandom(),
                io=asyncio.to_thread,
                log=self.quiet,
                meter=self.quiet,
                integrations=catalog.integrations if integrations is None else integrations,
                flows=flows_of(catalog),
                automatic_per_hour={"support": 1_000},  # all events here are of one conversation
            ),
            run=loop.run_until_complete,
        )
        for client in self.clients:
            client.meta.events.register("before-send.*", self._count)
        dynamodb.meta.events.register("provide-client-params.dynamodb.UpdateItem", self._count_limiter)

    def close(self) -> None:
        for client in self.clients:
            client.meta.events.unregister("before-send.*", self._count)
        self.dynamodb.meta.events.unregister("provide-client-params.dynamodb.UpdateItem", self._count_limiter)
        self.loop.close()

    def _count(self, event_name: str, request: Any, **_: object) -> None:
        name = event_name.removeprefix("before-send.")
        self.requests[name] += self.is_counting
        # Of health, whatever its events cost: one a batch and integration, told apart by what they write to.
        self.health_writes += (
            self.is_counting and name == "dynamodb.UpdateItem" and b'"H#' in bytes(request.body or b"")
        )

    def _count_limiter(self, params: dict[str, Any], **_: object) -> None:
        is_state = params["TableName"] == aws_tables.CONTROL and params["Key"]["pk"]["S"].startswith("I#")
        self.limiter_writes += self.is_counting and is_state
        is_cap = params["TableName"] == aws_tables.CONTROL and params["Key"]["pk"]["S"].startswith("CAP#")
        self.cap_writes += self.is_counting and is_cap

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/chat/completions"):
            said = json.dumps({"label": "refund", "confidence": 0.9, "reason_codes": []})
            choice = {"message": {"content": said}, "finish_reason": "stop"}
            return httpx.Response(200, json={"choices": [choice]})
        return httpx.Response(self.status, headers=self.headers, json={"ticket": {"id": "t1"}})

    def event(self, identity: str, text: str) -> Event:
        body = json.dumps({"ticket_id": "t1", "message": {"text": text}, "customer": {"email": "a@example.com"}})
        return Event(
            tenant="acme",
            source="desk",
            provider="richpanel",
            flow="support",
            identity=identity,
            event_name="message.created",
            event_version="1",
            received_at_ms=self.clock.now_ms(),
            request_id="r",
            traceparent="t",
            payload_hash="h",
            content_type="application/json",
            body=body.encode(),
        )

    def process(self, *events: Event) -> dict[str, Any]:
        records = [
            {
                "messageId": f"m{number}",
                "receiptHandle": f"m{number}",
                "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:events",
                "attributes": {"ApproximateReceiveCount": "1"},
                "body": event.to_message(),
            }
            for number, event in enumerate(events)
        ]
        self.requests.clear()
        self.health_writes = 0
        self.limiter_writes = 0
        self.cap_writes = 0
        self.is_counting = True
        try:
            return self.handler({"Records": records}, None)
        finally:
            self.is_counting = False

    def total(self, operations: tuple[str, ...]) -> int:
        return sum(self.requests[name] for name in operations)

    @property
    def own_writes(self) -> int:
        """The writes of the events themselves. A batch shares those of the limiter and of the counts of calls."""
        return self.total(WRITES) - self.health_writes - self.limiter_writes

    def item(self, event: Event) -> dict[str, Any]:
        key = {"pk": {"S": f"E#acme#{event.event_id}"}}
        item: dict[str, Any] = self.dynamodb.get_item(TableName=aws_tables.LEDGER, Key=key)["Item"]
        return item


@pytest.fixture
def stack(patient: None) -> Iterator[Stack]:
    with aws_tables.moto_tables() as dynamodb, aws_tables.one_request_at_a_time():
        stack = Stack(dynamodb)
        yield stack
        stack.close()


def test_an_event_with_two_actions_costs_two_writes_and_its_share_of_one_read(
    stack: Stack, proved: Callable[[str], None]
) -> None:
    events = [stack.event(str(number), "I want a refund") for number in range(10)]
    answer = stack.process(*events)

    assert answer == {"batchItemFailures": []}
    assert all(stack.item(event)["status"]["S"] == "settled" for event in events)
    assert all(len(stack.item(event)["actions"]["M"]) == 2 for event in events)
    assert stack.requests["dynamodb.BatchGetItem"] == 1
    assert stack.total(READS) == 1
    assert stack.own_writes == 2 * len(events)
    assert stack.health_writes == 2  # helpdesk and LLM
    assert stack.health_writes / 2 / len(events) <= 0.1  # per event and integration that it called
    assert stack.requests["s3.PutObject"] == 0
    assert stack.requests["ssm.GetParameter"] <= 2  # one a secret, however many actions ask for it at once
    proved(
        f"worker, per event with two actions: {stack.own_writes / len(events):.1f} DynamoDB writes, and "
        f"{stack.health_writes / 2 / len(events):.1f} per event and integration for the counts of its calls, "
        f"1 batched read per {len(events)} events; ingress: 1 SendMessage (tests/integration/test_ingress.py); "
        f"per environment: {stack.requests['ssm.GetParametersByPath']} page(s) of switches and "
        f"{stack.requests['ssm.GetParameter']} secrets"
    )


def test_what_is_said_of_the_cost_of_an_event_goes_by_these_requests(stack: Stack) -> None:
    """`make cost` multiplies them by prices."""
    events = [stack.event(str(number), "I want a refund") for number in range(cost.BATCH)]
    stack.process(*events)
    shared = (stack.health_writes + stack.limiter_writes) / len(events)
    assert stack.own_writes / len(events) == cost.LEDGER_WRITES
    assert shared <= cost.SHARED_WRITES
    assert stack.total(READS) / len(events) == cost.READ_REQUESTS
    indexed = {name for name in stack.item(events[0]) if name in ("rq", "tk", "rc")}
    assert len(indexed) <= cost.INDEX_ENTRIES
    assert stack.requests["sqs.SendMessage"] == 0  # ingress's alone: tests/integration/test_ingress.py


@pytest.mark.parametrize(("text", "actions"), [("I want a refund", 2), ("Where is my order?", 3)])
def test_the_limiter_costs_a_batch_of_ten_a_write_for_each_integration_it_calls(
    stack: Stack, proved: Callable[[str], None], text: str, actions: int
) -> None:
    """002.25: two calls an event, or three, of the helpdesk, and one of the LLM where the rules leave it open."""
    events = [stack.event(str(number), text) for number in range(10)]
    answer = stack.process(*events)

    returned = len(answer["batchItemFailures"])
    assert (returned > 0) == (actions * len(events) > 20)  # beyond a burst they wait in their queue
    assert stack.limiter_writes / len(events) <= 0.2
    assert stack.own_writes - stack.cap_writes == 2 * len(events)  # claim and settle, or claim and release
    proved(
        f"limiter: {stack.limiter_writes / len(events):.1f} writes an event at batch 10 with {actions} calls each "
        f"({len(events) - returned} sent, {returned} put off); the events' own stay at "
        f"{(stack.own_writes - stack.cap_writes) / 10:.1f}"
    )


def test_a_duplicate_costs_its_share_of_one_read(stack: Stack) -> None:
    event = stack.event("1", "I want a refund")
    stack.process(event)
    stack.process(event)

    assert stack.total(READS) == 1
    assert stack.total(WRITES) == 0


def test_an_automatic_reply_adds_the_check_of_its_recipient_and_its_count(stack: Stack) -> None:
    event = stack.event("1", "Where is my order?")
    stack.process(event)

    assert {name: one["M"]["s"]["S"] for name, one in stack.item(event)["actions"]["M"].items()}["reply"] == "done"
    assert stack.total(READS) == 2
    assert stack.own_writes == 3

    stack.process(stack.event("2", "Where is my order?"))  # the conversation has an item: it is met before it is known
    assert stack.total(READS) == 2
    assert stack.own_writes == 4


def test_a_failed_action_costs_one_transaction_and_one_envelope_instead_of_the_settling_write(stack: Stack) -> None:
    stack.status = 503
    stack.process(stack.event("1", "I want a refund"))

    assert stack.own_writes == 2  # the claim, and
    assert stack.requests["dynamodb.TransactWriteItems"] == 1
    assert stack.requests["s3.PutObject"] == 1


def test_a_stored_item_of_a_full_decision_is_under_one_kilobyte(stack: Stack, proved: Callable[[str], None]) -> None:
    event = stack.event("9" * 40, "Where is my order?")
    stack.process(event)

    size = sum(len(name) + _size(value) for name, value in stack.item(event).items())
    proved(f"ledger item of a decision with {len(stack.item(event)['actions']['M'])} actions: {size} bytes")
    assert size < 1024


def _size(value: dict[str, Any]) -> int:
    """As DynamoDB counts: texts by their bytes, numbers by about half their digits, maps by their parts."""
    ((kind, content),) = value.items()
    if kind == "M":
        return 3 + sum(1 + len(name) + _size(one) for name, one in content.items())
    return len(str(content).encode()) if kind == "S" else len(str(content)) // 2 + 2
