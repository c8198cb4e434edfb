"""The alarms of the local stage: what goes wrong fires the right one, and it is over when it is over.
`test_scenes.py` sees that whoever is on call is told.

The bridge runs in this process, on the stack of the session.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from functions.core.alarms import ALARMS, name_at
from ops.local.bridge import Bridge, run
from tests.e2e.conftest import World

MINUTE_SECONDS = 2.0


@dataclass
class Alarms:
    """The emulator's alarms."""

    world: World

    def state(self, name: str) -> str:
        client = self.world.stack.client("cloudwatch")
        (alarm,) = client.describe_alarms(AlarmNames=[name_at("local", name)])["MetricAlarms"]
        return str(alarm["StateValue"])

    def await_state(self, name: str, state: str) -> None:
        self.world.eventually(lambda: "" if self.state(name) == state else f"{name} is {self.state(name)}")


@pytest.fixture
def alarms(world: World) -> Iterator[Alarms]:
    """The alarms, judged by a bridge for as long as the test runs."""
    stack, stop = world.stack, threading.Event()
    bridge = Bridge(stack, minute_ms=int(MINUTE_SECONDS * 1000))
    thread = threading.Thread(target=run, args=(bridge, stop, MINUTE_SECONDS), daemon=True)
    thread.start()
    yield Alarms(world)
    stop.set()
    thread.join(timeout=60)


def test_every_alarm_of_the_table_is_deployed_and_gets_a_state(world: World, alarms: Alarms) -> None:
    for alarm in ALARMS:
        world.eventually(lambda name=alarm.name: "" if alarms.state(name) != "INSUFFICIENT_DATA" else name)  # type: ignore[misc]


def test_a_run_that_failed_for_good_is_told_of_until_somebody_has_read_it(world: World, alarms: Alarms) -> None:
    sqs, url = world.stack.client("sqs"), world.stack.output("OpsDlqUrl")
    sqs.send_message(QueueUrl=url, MessageBody="a run that failed")
    alarms.await_state("ops-dlq-not-empty", "ALARM")
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    alarms.await_state("ops-dlq-not-empty", "OK")
