"""Ingress over Parameter Store and a queue: what is left behind in them, and what it costs."""

from __future__ import annotations

import hmac
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from functions.adapters.sqs_outbox import SqsOutbox
from functions.adapters.ssm_sources import SsmSourceParameters
from functions.core.clock import SystemClock, SystemIds, SystemRandom
from functions.core.event import Event
from functions.ingress.handler import Handler, build
from functions.ingress.settings import IngressSettings
from functions.ingress.sources import SourceCache
from functions.signatures.providers import endpoint_of
from tests.ingress_fakes import gateway_event

PATH = "/holdfast/test/sources"


class Stack:
    def __init__(self) -> None:
        self.sqs = boto3.client("sqs")
        self.ssm = boto3.client("ssm")
        self.queue_url = self.sqs.create_queue(QueueName="events")["QueueUrl"]
        self.lines: list[str] = []
        self.requests: list[str] = []
        clock = SystemClock()
        parameters, outbox = SsmSourceParameters.connect(PATH), SqsOutbox.connect(self.queue_url)
        for client in (outbox._client, parameters._brief, parameters._patient):
            client.meta.events.register("before-send.*", self._count)
        self.handler: Handler = build(
            IngressSettings("test", self.queue_url, PATH, "bucket"),
            SourceCache(parameters, endpoint_of, clock, SystemRandom()),
            outbox,
            clock,
            SystemIds(),
            self.lines.append,
        )

    def _count(self, event_name: str, **_: object) -> None:
        self.requests.append(event_name.removeprefix("before-send."))

    def put(self, source_id: str, secret: str) -> None:
        entry = {"tenant": "acme", "provider": "github", "flow": "support", "secrets": [{"secret": secret}]}
        name = f"{PATH}/{source_id}"
        self.ssm.put_parameter(Name=name, Value=json.dumps(entry), Type="SecureString", Overwrite=True)

    def send(self, source_id: str, body: bytes, secret: str = "s3", delivery: str = "d") -> dict[str, Any]:
        headers = {
            "X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest(),
            "X-GitHub-Delivery": delivery,
            "X-GitHub-Event": "push",
        }
        return self.handler(gateway_event(source_id, headers, body), None)

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
    with mock_aws():
        yield Stack()


def test_an_accepted_event_costs_one_request_and_its_source_one_in_five_minutes(
    stack: Stack, proved: Callable[[str], None]
) -> None:
    """002.8: nothing but the queue stands between an event and its answer."""
    stack.put("hub", "s3")
    for number in range(20):
        assert stack.send("hub", b"{}", delivery=str(number))["statusCode"] == 202
    assert stack.requests == ["ssm.GetParameter"] + ["sqs.SendMessage"] * 20
    proved(
        f"ingress, per accepted event: 1 SendMessage; GetParameter {stack.requests.count('ssm.GetParameter')} per 20"
    )
    assert len({event.event_id for event in stack.stored()}) == 20


def test_forged_and_unknown_deliveries_leave_nothing_in_the_queue(stack: Stack) -> None:
    stack.put("hub", "s3")
    statuses = [stack.send("hub", b"{}", "wrong"), stack.send("other", b"{}"), stack.send("hub", b"{", "s3")]
    assert [answer["statusCode"] for answer in statuses] == [401, 401, 400]
    assert stack.stored() == []
    assert "sqs.SendMessage" not in stack.requests


def test_a_secret_rotated_in_the_parameter_store_holds_from_its_first_event(stack: Stack) -> None:
    stack.put("hub", "s3")
    assert stack.send("hub", b"{}")["statusCode"] == 202
    stack.put("hub", "s4")
    assert stack.send("hub", b"{}", "s4", "e")["statusCode"] == 202
    assert stack.send("hub", b"{}", "s3", "f")["statusCode"] == 401
    assert len(stack.stored()) == 2


def test_when_the_queue_is_gone_the_sender_is_told_to_come_back(stack: Stack) -> None:
    """002.10: what is not stored is never acknowledged."""
    stack.put("hub", "s3")
    stack.sqs.delete_queue(QueueUrl=stack.queue_url)
    answer = stack.send("hub", b"{}")
    assert answer["statusCode"] == 503
    assert json.loads(stack.lines[-1])["reason"] == "not_stored"


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
        "os.environ.update(IngressSettings('t', 'http://127.0.0.1/q', '/p', 'b').to_env())\n"
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
