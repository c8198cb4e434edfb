"""The events queue and the bucket that ingress writes to: the fakes and AWS keep the same promises."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from functions.adapters.s3_objects import S3Objects
from functions.adapters.sqs_outbox import SqsQueue
from functions.core.event import MAX_INLINE_BYTES, Event
from functions.core.failure import StorageRefused, StorageUnavailable
from functions.ingress.outbox import Objects, Queue
from tests.aws_tables import sdk_client
from tests.contract.answers import error, service_that_says, success
from tests.ingress_fakes import FakeObjects, FakeQueue
from tests.moto_server import moto_server

EVENT = Event(
    "acme", "shop", "stripe", "support", "evt_1", "charge.failed", "", 7, "r-1", "00-ab", "h", "c", b"\x00\xff"
)
KEY = "spill/0000000000007-a b+c%2F/ü&=~.json"


@dataclass
class QueueWorld:
    queue: Queue
    stored: Callable[[], list[str]]
    break_it: Callable[[], None]


@pytest.fixture(params=["fake", "sqs"])
def queues(request: pytest.FixtureRequest) -> Iterator[QueueWorld]:
    if request.param == "fake":
        fake = FakeQueue()
        yield QueueWorld(fake, lambda: fake.messages, lambda: fake.trouble.append(StorageRefused("no such queue")))
        return
    with moto_server() as server:
        client = sdk_client("sqs")
        url = client.create_queue(QueueName="events")["QueueUrl"]

        def stored() -> list[str]:
            answer = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0)
            return [message["Body"] for message in answer.get("Messages", [])]

        def break_it() -> None:
            client.delete_queue(QueueUrl=url)

        yield QueueWorld(SqsQueue(server.service("sqs"), url), stored, break_it)


def test_a_stored_event_comes_out_as_it_went_in(queues: QueueWorld) -> None:
    queues.queue.send(EVENT, EVENT.to_message(), 5)
    (message,) = queues.stored()
    assert Event.from_message(message) == EVENT


def test_a_queue_that_is_not_there_refuses(queues: QueueWorld) -> None:
    queues.break_it()
    with pytest.raises(StorageRefused):
        queues.queue.send(EVENT, EVENT.to_message(), 5)


def test_a_message_is_grouped_by_tenant_and_carries_its_metadata_without_the_absent() -> None:
    with moto_server() as server:
        client = sdk_client("sqs")
        url = client.create_queue(QueueName="events")["QueueUrl"]
        SqsQueue(server.service("sqs"), url).send(EVENT, EVENT.to_message(), 5)
        answer = client.receive_message(
            QueueUrl=url, MessageSystemAttributeNames=["All"], MessageAttributeNames=["All"]
        )
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


def test_the_largest_envelope_that_ingress_lets_through_fits_a_message_with_its_attributes() -> None:
    longest = replace(EVENT, event_name="n" * 128, event_version="v" * 128, request_id="r" * 64, traceparent="t" * 55)
    with moto_server() as server:
        client = sdk_client("sqs")
        url = client.create_queue(QueueName="events", Attributes={"MaximumMessageSize": str(1024 * 1024)})["QueueUrl"]
        SqsQueue(server.service("sqs"), url).send(longest, "x" * MAX_INLINE_BYTES, 30)
        (message,) = client.receive_message(QueueUrl=url, MessageAttributeNames=["All"])["Messages"]
    attributes = message["MessageAttributes"]
    size = sum(len(name) + len(value["DataType"]) + len(value["StringValue"]) for name, value in attributes.items())
    assert MAX_INLINE_BYTES + size < 1024 * 1024


def test_an_event_whose_name_no_attribute_may_hold_is_stored_all_the_same() -> None:
    odd = replace(EVENT, event_name="a\x00b\ud800c")
    with moto_server() as server:
        client = sdk_client("sqs")
        url = client.create_queue(QueueName="events")["QueueUrl"]
        SqsQueue(server.service("sqs"), url).send(odd, odd.to_message(), 5)
        (message,) = client.receive_message(QueueUrl=url, MessageAttributeNames=["All"])["Messages"]
    assert Event.from_message(message["Body"]) == odd
    assert message["MessageAttributes"]["event_name"]["StringValue"] == "a\ufffdb\ufffdc"


MESSAGE = '{"ä": 1}'
GOOD = {"MessageId": "m-1", "MD5OfMessageBody": hashlib.md5(MESSAGE.encode()).hexdigest()}  # noqa: S324  # as SQS does


def test_the_answer_of_the_queue_is_held_to_the_message() -> None:
    SqsQueue(service_that_says(success(GOOD)), "url").send(EVENT, MESSAGE, 5)


@pytest.mark.parametrize(
    "document",
    [{}, [], "ok", None, GOOD | {"MessageId": ""}, GOOD | {"MD5OfMessageBody": "0" * 32}, {"MessageId": "m-1"}],
    ids=json.dumps,
)
def test_an_answer_that_the_queue_would_not_give_of_this_message_is_no_promise(document: object) -> None:
    with pytest.raises(StorageUnavailable) as caught:
        SqsQueue(service_that_says(success(document)), "url").send(EVENT, MESSAGE, 5)
    assert not isinstance(caught.value, StorageRefused)


@pytest.mark.parametrize(
    ("answer", "is_refused"),
    [
        (error(400, "com.amazonaws.sqs#InvalidMessageContents"), True),
        (error(400, "com.amazonaws.sqs#RequestThrottled"), False),
        (error(403, "AccessDenied"), True),
        (error(503, "ServiceUnavailable"), False),
    ],
    ids=lambda value: value.body.decode() if hasattr(value, "body") else str(value),
)
def test_a_refusal_and_trouble_that_may_pass_are_told_apart(answer: object, is_refused: bool) -> None:
    with pytest.raises(StorageUnavailable) as caught:
        SqsQueue(service_that_says(answer), "url").send(EVENT, MESSAGE, 5)
    assert isinstance(caught.value, StorageRefused) is is_refused


# -------------------------------------------------------------------------------------------------------------- bucket


@dataclass
class BucketWorld:
    bucket: Objects
    stored: Callable[[], dict[str, bytes]]
    break_it: Callable[[], None]


@pytest.fixture(params=["fake", "s3"])
def buckets(request: pytest.FixtureRequest) -> Iterator[BucketWorld]:
    if request.param == "fake":
        fake = FakeObjects()
        yield BucketWorld(fake, lambda: fake.objects, lambda: fake.trouble.append(StorageRefused("no such bucket")))
        return
    with moto_server() as server:
        client = sdk_client("s3")
        client.create_bucket(Bucket="holdfast")

        def stored() -> dict[str, bytes]:
            keys = [found["Key"] for found in client.list_objects_v2(Bucket="holdfast").get("Contents", [])]
            return {key: client.get_object(Bucket="holdfast", Key=key)["Body"].read() for key in keys}

        def break_it() -> None:
            client.delete_bucket(Bucket="holdfast")

        yield BucketWorld(S3Objects(server.service("s3"), "/holdfast"), stored, break_it)


def test_an_object_is_stored_under_its_key_as_it_is(buckets: BucketWorld) -> None:
    buckets.bucket.put(KEY, b"\x00{}\xff", 5)
    buckets.bucket.put("empty", b"", 5)
    assert buckets.stored() == {KEY: b"\x00{}\xff", "empty": b""}


def test_an_object_put_twice_is_one(buckets: BucketWorld) -> None:
    buckets.bucket.put(KEY, b"{}", 5)
    buckets.bucket.put(KEY, b"{}", 5)
    assert buckets.stored() == {KEY: b"{}"}


def test_a_bucket_that_is_not_there_refuses(buckets: BucketWorld) -> None:
    buckets.break_it()
    with pytest.raises(StorageRefused):
        buckets.bucket.put(KEY, b"{}", 5)


def test_an_object_says_that_it_is_json() -> None:
    with moto_server() as server:
        client = sdk_client("s3")
        client.create_bucket(Bucket="holdfast")
        S3Objects(server.service("s3"), "/holdfast").put("a", b"{}", 5)
        assert client.head_object(Bucket="holdfast", Key="a")["ContentType"] == "application/json"


def test_a_bucket_that_answers_without_an_etag_has_promised_nothing() -> None:
    with pytest.raises(StorageUnavailable) as caught:
        S3Objects(service_that_says(success({}))).put("a", b"{}", 5)
    assert not isinstance(caught.value, StorageRefused)
    S3Objects(service_that_says(success({}, etag='"e"'))).put("a", b"{}", 5)
