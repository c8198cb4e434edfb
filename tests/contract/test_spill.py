"""`ports.Spill` and `ports.EventsQueue`, over the doubles and over S3 and SQS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from botocore.stub import Stubber
from moto import mock_aws

from functions.adapters.spill import S3Spill
from functions.adapters.sqs_events import SqsEvents
from functions.core import ports
from functions.core.failure import StorageRefused, StorageUnavailable
from functions.core.ports import Spilled
from tests.aws_tables import sdk_client
from tests.contract.storage import Flaky, client_error
from tests.fakes import FakeEvents, FakeSpill, Faults
from tests.recovery_rows import event

MEBIBYTE = 1024 * 1024
MD5_OF_BRACES = "99914b932bd37a50b983c5e7c90ae93b"  # of {}, by md5sum


@dataclass
class Spilling:
    """The ports, a way to fill the bucket, what the queue holds, and a way to break each operation once."""

    spill: ports.Spill
    events: ports.EventsQueue
    put: Callable[[str, bytes], object]
    received: Callable[[], list[str]]
    break_down: Callable[[], None]


def in_memory() -> Spilling:
    faults = Faults()
    spill, events = FakeSpill(faults), FakeEvents(faults)

    def break_down() -> None:
        for op in ("spill.oldest", "spill.read", "spill.remove", "events.send"):
            faults.fail(op)

    def put(key: str, content: bytes) -> None:
        if key.startswith("spill/"):  # the double is that prefix and nothing else
            spill.objects[key] = content

    return Spilling(spill, events, put, lambda: list(events.sent), break_down)


def in_aws() -> Spilling:
    s3, sqs = sdk_client("s3"), sdk_client("sqs")
    s3.create_bucket(Bucket="held")
    s3.put_bucket_versioning(Bucket="held", VersioningConfiguration={"Status": "Enabled"})
    url = sqs.create_queue(QueueName="events")["QueueUrl"]
    flaky_s3: Any = Flaky(s3)
    flaky_sqs: Any = Flaky(sqs)

    def received() -> list[str]:
        found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        return [each["Body"] for each in found]

    def break_down() -> None:
        flaky_s3.planned |= {name: [client_error("SlowDown")] for name in ("list_objects_v2", "get_object")}
        flaky_s3.planned["delete_object"] = [client_error("AccessDenied")]
        flaky_sqs.planned["send_message"] = [client_error("AccessDenied")]

    def put(key: str, content: bytes) -> None:
        s3.put_object(Bucket="held", Key=key, Body=content)

    return Spilling(S3Spill(flaky_s3, "held"), SqsEvents(flaky_sqs, url), put, received, break_down)


@pytest.fixture(params=["memory", "aws"])
def spilling(request: pytest.FixtureRequest) -> Iterator[Spilling]:
    if request.param == "memory":
        yield in_memory()
        return
    with mock_aws():
        yield in_aws()


def test_what_is_spilled_is_listed_by_name_and_so_by_time_a_page_after_the_other(spilling: Spilling) -> None:
    for name in ("0000000000003-b", "0000000000003-a", "0000000000001-z", "0000000000020-c", "é ü+%"):
        spilling.put(f"spill/{name}", name.encode())
    for elsewhere in ("spilled", "claims/acme/1", "envelopes/acme/1"):
        spilling.put(elsewhere, b"x")
    first = spilling.spill.oldest("", 3)
    assert first == [
        Spilled("spill/0000000000001-z", 15),
        Spilled("spill/0000000000003-a", 15),
        Spilled("spill/0000000000003-b", 15),
    ]
    second = spilling.spill.oldest(first[-1].key, 3)
    assert [each.key for each in second] == ["spill/0000000000020-c", "spill/é ü+%"]
    assert spilling.spill.read(second[-1].key) == "é ü+%".encode()
    assert spilling.spill.oldest(second[-1].key, 3) == []


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00\xff\xfe" * 100])
def test_an_object_is_read_as_it_is_and_gone_once_it_is_removed(spilling: Spilling, content: bytes) -> None:
    spilling.put("spill/1", content)
    assert spilling.spill.read("spill/1") == content
    spilling.spill.remove("spill/1")
    assert spilling.spill.oldest("", 10) == []
    assert spilling.spill.read("spill/1") is None
    spilling.spill.remove("spill/1")


def test_an_object_that_is_larger_than_memory_bears_is_not_read(spilling: Spilling) -> None:
    spilling.put("spill/1", b" " * (16 * MEBIBYTE + 1))
    with pytest.raises(StorageUnavailable):
        spilling.spill.read("spill/1")


@pytest.mark.parametrize(
    "changes",
    [{}, {"event_name": "", "traceparent": ""}, {"event_name": "\x00\ud800 \uffff"}, {"event_version": "é" * 100}],
    ids=["plain", "without a name", "a name that no queue takes", "not ASCII"],
)
def test_a_message_goes_into_the_queue_as_it_is_whatever_its_event_is_called(
    spilling: Spilling, changes: dict[str, str]
) -> None:
    named = replace(event(), **changes)  # type: ignore[arg-type]  # all of these are texts
    spilling.events.send(named, named.to_message())
    assert spilling.received() == [named.to_message()]


def test_a_message_that_is_too_long_for_a_queue_is_refused_and_not_only_late(spilling: Spilling) -> None:
    with pytest.raises(StorageRefused):
        spilling.events.send(event(), "x" * (MEBIBYTE + 1))
    assert spilling.received() == []


def test_trouble_of_bucket_or_queue_is_unavailable_storage_and_no_verdict_on_the_object(spilling: Spilling) -> None:
    spilling.put("spill/1", b"{}")
    spilling.break_down()
    attempts: list[Callable[[], object]] = [
        lambda: spilling.spill.oldest("", 10),
        lambda: spilling.spill.read("spill/1"),
        lambda: spilling.spill.remove("spill/1"),
        lambda: spilling.events.send(event(), event().to_message()),
    ]
    for attempt in attempts:
        with pytest.raises(StorageUnavailable) as met:
            attempt()
        assert not isinstance(met.value, StorageRefused)
    assert spilling.spill.read("spill/1") == b"{}"


@pytest.mark.parametrize(
    ("code", "is_refused"),
    [
        ("InvalidMessageContents", True),
        ("InvalidParameterValue", True),
        ("InvalidParameterValueException", True),
        ("AccessDenied", False),
        ("AWS.SimpleQueueService.NonExistentQueue", False),
        ("RequestThrottled", False),
        ("ExpiredToken", False),
        ("KmsAccessDenied", False),
        ("InternalError", False),
    ],
)
def test_only_what_sqs_says_of_the_message_itself_is_a_refusal(code: str, is_refused: bool) -> None:
    with mock_aws():
        flaky: Any = Flaky(sdk_client("sqs"))
        flaky.planned["send_message"] = [client_error(code)]
        with pytest.raises(StorageUnavailable, match=code) as met:
            SqsEvents(flaky, "http://localhost/events").send(event(), "{}")
        assert isinstance(met.value, StorageRefused) is is_refused


@pytest.mark.parametrize(
    "answer",
    [{}, {"MessageId": "1"}, {"MD5OfMessageBody": MD5_OF_BRACES}, {"MessageId": "1", "MD5OfMessageBody": "0"}],
    ids=["nothing", "no digest", "no id", "another message"],
)
def test_an_answer_that_does_not_say_that_the_queue_has_this_message_is_none(answer: dict[str, str]) -> None:
    """The object is removed next: what only looks like an acceptance must not make it the last of the event."""
    with mock_aws():
        sqs = sdk_client("sqs")
        with Stubber(sqs) as stubbed:
            stubbed.add_response("send_message", answer)
            with pytest.raises(StorageUnavailable) as met:
                SqsEvents(sqs, "http://localhost/events").send(event(), "{}")
        assert not isinstance(met.value, StorageRefused)


def test_what_is_drained_bears_what_ingress_would_have_sent_with_it() -> None:
    """People filter by these; a fair queue shares by the group. What SQS would refuse a message for is replaced."""
    with mock_aws():
        sqs = sdk_client("sqs")
        flaky: Any = Flaky(sqs)
        url = sqs.create_queue(QueueName="events")["QueueUrl"]
        odd = replace(event(), event_name="a\x00b", event_version="")
        SqsEvents(flaky, url).send(odd, odd.to_message())
        (request,) = flaky.requests("send_message")
        assert request["MessageGroupId"] == odd.tenant
        attributes = {name: found["StringValue"] for name, found in request["MessageAttributes"].items()}
        assert attributes == {
            "event_name": "a\ufffdb",
            "source": odd.source,
            "tenant": odd.tenant,
            "request_id": odd.request_id,
            "traceparent": odd.traceparent,
            "received_at": str(odd.received_at_ms),
        }
