"""Where ingress stores events: the fake and the queue keep the same promises."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import boto3
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from moto import mock_aws

from functions.adapters.sqs_outbox import CONNECT_SECONDS, READ_SECONDS, TRIES, SqsOutbox
from functions.core.event import MAX_INLINE_BYTES, Event
from functions.core.failure import StorageUnavailable
from functions.ingress.handler import Outbox
from tests.ingress_fakes import FakeOutbox

EVENT = Event(
    "acme", "shop", "stripe", "support", "evt_1", "charge.failed", "", 7, "r-1", "00-ab", "h", "c", b"\x00\xff"
)


@dataclass
class World:
    outbox: Outbox
    stored: Callable[[], list[str]]
    break_it: Callable[[], None]


@pytest.fixture(params=["fake", "sqs"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "fake":
        fake = FakeOutbox()
        yield World(fake, lambda: fake.messages, lambda: setattr(fake, "is_down", True))
        return
    with mock_aws():
        client = boto3.client("sqs")
        url = client.create_queue(QueueName="events")["QueueUrl"]

        def stored() -> list[str]:
            answer = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0)
            return [message["Body"] for message in answer.get("Messages", [])]

        def break_it() -> None:
            client.delete_queue(QueueUrl=url)

        yield World(SqsOutbox.connect(url), stored, break_it)


def test_a_stored_event_comes_out_as_it_went_in(world: World) -> None:
    world.outbox.store(EVENT, EVENT.to_message())
    (message,) = world.stored()
    assert Event.from_message(message) == EVENT


def test_what_cannot_be_stored_is_said_to_be_so(world: World) -> None:
    world.break_it()
    with pytest.raises(StorageUnavailable):
        world.outbox.store(EVENT, EVENT.to_message())


@mock_aws
def test_a_message_is_grouped_by_tenant_and_carries_its_metadata_without_the_absent() -> None:
    client = boto3.client("sqs")
    url = client.create_queue(QueueName="events")["QueueUrl"]
    SqsOutbox.connect(url).store(EVENT, EVENT.to_message())
    answer = client.receive_message(QueueUrl=url, MessageSystemAttributeNames=["All"], MessageAttributeNames=["All"])
    (message,) = answer["Messages"]
    assert message["Attributes"]["MessageGroupId"] == "acme"
    attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert attributes == {
        "event_name": "charge.failed",
        "source": "shop",
        "tenant": "acme",
        "request_id": "r-1",
        "traceparent": "00-ab",
        "received_at": "7",
    }


@mock_aws
def test_the_largest_envelope_that_ingress_lets_through_fits_a_message_with_its_attributes() -> None:
    client = boto3.client("sqs")
    url = client.create_queue(QueueName="events", Attributes={"MaximumMessageSize": str(1024 * 1024)})["QueueUrl"]
    longest = replace(EVENT, event_name="n" * 128, event_version="v" * 128, request_id="r" * 64, traceparent="t" * 55)
    SqsOutbox.connect(url).store(longest, "x" * MAX_INLINE_BYTES)
    attributes = client.receive_message(QueueUrl=url, MessageAttributeNames=["All"])["Messages"][0]["MessageAttributes"]
    size = sum(len(name) + len(value["DataType"]) + len(value["StringValue"]) for name, value in attributes.items())
    assert MAX_INLINE_BYTES + size < 1024 * 1024


class Client:
    """An SQS client that fails as told, then works."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls = 0

    def send_message(self, **_: object) -> dict[str, str]:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return {"MessageId": "m"}


def refused(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "SendMessage")  # type: ignore[typeddict-item]  # only what is read


TIMEOUT = ReadTimeoutError(endpoint_url="http://q")


@pytest.mark.parametrize(
    "failure", [TIMEOUT, refused("InternalError", 500), refused("RequestThrottled", 400), refused("Slow", 429)]
)
def test_a_failure_that_may_pass_is_tried_once_more(failure: Exception) -> None:
    client = Client(failure)
    SqsOutbox(client, "url").store(EVENT, "{}")  # type: ignore[arg-type]  # as much of a client as is used
    assert client.calls == 2


@pytest.mark.parametrize(
    ("failures", "calls"),
    [((TIMEOUT, TIMEOUT), 2), ((refused("AccessDenied", 403),), 1), ((refused("InvalidMessageContents", 400),), 1)],
)
def test_one_more_failure_or_a_refusal_ends_it(failures: tuple[Exception, ...], calls: int) -> None:
    client = Client(*failures)
    with pytest.raises(StorageUnavailable):
        SqsOutbox(client, "url").store(EVENT, "{}")  # type: ignore[arg-type]  # as much of a client as is used
    assert client.calls == calls


def test_storing_takes_at_most_a_second_and_a_half() -> None:
    assert TRIES * (CONNECT_SECONDS + READ_SECONDS) <= 1.5
    with mock_aws():
        config = SqsOutbox.connect("http://127.0.0.1/q")._client.meta.config
    assert (config.connect_timeout, config.read_timeout) == (CONNECT_SECONDS, READ_SECONDS)  # type: ignore[attr-defined]  # botocore sets options at run time
    assert config.retries["total_max_attempts"] == 1  # type: ignore[attr-defined]  # as above


def test_the_fake_keeps_envelopes_that_can_be_read() -> None:
    fake = FakeOutbox()
    fake.store(EVENT, EVENT.to_message())
    assert json.loads(fake.messages[0])["tenant"] == "acme"
    assert fake.events == [EVENT]
