"""The alarms of the local stage: what goes wrong fires the right one, SNS delivers, and it is over when it is over.

The bridge runs in this process, on the stack of the session.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from functions.core.alarms import ALARMS, by_name, name_at
from ops.local.bridge import Bridge, run
from tests.e2e.conftest import World

MINUTE_SECONDS = 2.0


@dataclass
class Alarms:
    """The emulator's alarms, and what their topics have delivered."""

    world: World
    inbox: str

    def state(self, name: str) -> str:
        client = self.world.stack.client("cloudwatch")
        (alarm,) = client.describe_alarms(AlarmNames=[name_at("local", name)])["MetricAlarms"]
        return str(alarm["StateValue"])

    def await_state(self, name: str, state: str) -> None:
        self.world.eventually(lambda: "" if self.state(name) == state else f"{name} is {self.state(name)}")

    def delivered(self, name: str, state: str) -> dict[str, Any]:
        """The message that told of it, waited for."""
        found: list[dict[str, Any]] = []

        def missing() -> str:
            sqs = self.world.stack.client("sqs")
            for message in sqs.receive_message(QueueUrl=self.inbox, MaxNumberOfMessages=10).get("Messages", []):
                sqs.delete_message(QueueUrl=self.inbox, ReceiptHandle=message["ReceiptHandle"])
                said = json.loads(json.loads(message["Body"])["Message"])
                if (said["AlarmName"], said["NewStateValue"]) == (name_at("local", name), state):
                    found.append(said)
            return "" if found else f"nothing was delivered of {name} being {state}"

        self.world.eventually(missing, seconds=30)
        return found[0]


@pytest.fixture
def alarms(world: World) -> Iterator[Alarms]:
    """The alarms, judged by a bridge for as long as the test runs."""
    stack, stop = world.stack, threading.Event()
    inbox = stack.client("sqs").create_queue(QueueName=f"alarms-{time.monotonic_ns()}")["QueueUrl"]
    arn = stack.client("sqs").get_queue_attributes(QueueUrl=inbox, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    subscriptions = [
        stack.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, ReturnSubscriptionArn=True)
        for topic in stack.output("AlarmTopicArns").split()
    ]
    bridge = Bridge(stack, minute_ms=int(MINUTE_SECONDS * 1000))
    thread = threading.Thread(target=run, args=(bridge, stop, MINUTE_SECONDS), daemon=True)
    thread.start()
    yield Alarms(world, inbox)
    stop.set()
    thread.join(timeout=60)
    for subscription in subscriptions:
        stack.client("sns").unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])
    stack.client("sqs").delete_queue(QueueUrl=inbox)


def test_every_alarm_of_the_table_is_deployed_and_gets_a_state(world: World, alarms: Alarms) -> None:
    for alarm in ALARMS:
        world.eventually(lambda name=alarm.name: "" if alarms.state(name) != "INSUFFICIENT_DATA" else name)  # type: ignore[misc]


def test_a_run_that_failed_for_good_is_told_of_until_somebody_has_read_it(world: World, alarms: Alarms) -> None:
    sqs, url = world.stack.client("sqs"), world.stack.output("OpsDlqUrl")
    sqs.send_message(QueueUrl=url, MessageBody="a run that failed")
    alarms.await_state("ops-dlq-not-empty", "ALARM")
    said, known = alarms.delivered("ops-dlq-not-empty", "ALARM"), by_name("ops-dlq-not-empty")
    assert known is not None
    assert f"docs/runbooks/{known.page}" in said["AlarmDescription"]
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    alarms.await_state("ops-dlq-not-empty", "OK")
    alarms.delivered("ops-dlq-not-empty", "OK")
