"""`ports.QueueDepths`: how much the worker's queues hold, in the double and in SQS (001.9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from functions.adapters.sqs_backlog import SqsQueueDepths
from functions.core.failure import StorageUnavailable
from functions.core.page import Depth
from functions.core.ports import QueueDepths
from tests import aws_tables
from tests.aws_tables import sdk_client
from tests.control_fakes import FakeQueueDepths


@dataclass
class Queues:
    depths: QueueDepths
    put: Callable[[str, int, int, int], None]
    """So many that wait, are delayed, and are taken."""


@pytest.fixture(params=["memory", "sqs"])
def queues(request: pytest.FixtureRequest) -> Iterator[Queues]:
    if request.param == "memory":
        fake = FakeQueueDepths()

        def say(queue: str, waiting: int, delayed: int, taken: int) -> None:
            fake.depths[queue] = Depth(waiting + delayed, taken)

        yield Queues(fake, say)
        return
    with aws_tables.moto_tables():
        sqs = sdk_client("sqs")
        urls = {name: sqs.create_queue(QueueName=f"x-{name}")["QueueUrl"] for name in ("events", "retries", "replays")}

        def put(queue: str, waiting: int, delayed: int, taken: int) -> None:
            for _ in range(taken):
                sqs.send_message(QueueUrl=urls[queue], MessageBody="x")
                assert sqs.receive_message(QueueUrl=urls[queue], VisibilityTimeout=600)["Messages"]
            for _ in range(waiting):
                sqs.send_message(QueueUrl=urls[queue], MessageBody="x")
            for _ in range(delayed):
                sqs.send_message(QueueUrl=urls[queue], MessageBody="x", DelaySeconds=600)

        yield Queues(SqsQueueDepths(sqs, urls), put)


def test_an_empty_queue_holds_nothing(queues: Queues) -> None:
    assert [queues.depths.read(name) for name in ("events", "retries", "replays")] == [Depth()] * 3


def test_what_waits_what_is_delayed_and_what_is_taken_is_counted_in_its_own_queue(queues: Queues) -> None:
    queues.put("events", 3, 0, 2)
    queues.put("retries", 1, 4, 0)
    assert queues.depths.read("events") == Depth(3, 2)
    assert queues.depths.read("retries") == Depth(5, 0)
    assert queues.depths.read("replays") == Depth()


def test_a_queue_that_nobody_knows_is_a_mistake_of_ours(queues: Queues) -> None:
    with pytest.raises(KeyError):
        queues.depths.read("pages")


def test_a_queue_that_is_not_there_is_trouble() -> None:
    with aws_tables.moto_tables():
        sqs = sdk_client("sqs")
        url = sqs.create_queue(QueueName="events")["QueueUrl"]
        with pytest.raises(StorageUnavailable):
            SqsQueueDepths(sqs, {"events": url + "-gone"}).read("events")
