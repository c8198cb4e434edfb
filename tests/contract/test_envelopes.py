"""`ports.Envelopes`, over the double and over S3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from moto import mock_aws

from functions.adapters.s3 import S3Envelopes
from functions.core import ports
from functions.core.event import ClaimCheck, Event
from functions.core.failure import MalformedEnvelope, StorageUnavailable
from tests.aws_tables import sdk_client
from tests.contract.storage import Flaky, client_error
from tests.fakes import NOON_MS, FakeEnvelopes, Faults


@dataclass
class Bucket:
    """The port, the objects behind it, and a way to break it."""

    envelopes: ports.Envelopes
    keys: Callable[[], list[str]]
    content: Callable[[str], bytes]
    put: Callable[[str, bytes], object]
    break_down: Callable[[], None]


def in_memory() -> Bucket:
    faults = Faults()
    envelopes = FakeEnvelopes(faults)

    def break_down() -> None:
        for name in ("put", "put_raw", "get"):
            faults.fail(f"envelopes.{name}")

    def put(reference: str, content: bytes) -> None:
        envelopes.objects[reference] = content

    return Bucket(envelopes, lambda: sorted(envelopes.objects), envelopes.objects.__getitem__, put, break_down)


def in_s3() -> Bucket:
    client = sdk_client("s3")
    client.create_bucket(Bucket="held")
    flaky = Flaky(client)

    def keys() -> list[str]:
        return sorted(found["Key"] for found in client.list_objects_v2(Bucket="held").get("Contents", []))

    def break_down() -> None:
        flaky.planned["put_object"] = [client_error("SlowDown")] * 2
        flaky.planned["get_object"] = [client_error("AccessDenied")]

    def content(key: str) -> bytes:
        return client.get_object(Bucket="held", Key=key)["Body"].read()

    def put(key: str, content: bytes) -> None:
        client.put_object(Bucket="held", Key=key, Body=content)

    envelopes = S3Envelopes(flaky, "held")  # type: ignore[arg-type]  # it stands in for the client
    return Bucket(envelopes, keys, content, put, break_down)


@pytest.fixture(params=["memory", "s3"])
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    if request.param == "memory":
        yield in_memory()
        return
    with mock_aws():
        yield in_s3()


def event(body: bytes = b'{"a": "\xc3\xa9"}', **changes: object) -> Event:
    made = Event(
        tenant="acme",
        source="desk",
        provider="richpanel",
        flow="support",
        identity="1\ud800",
        event_name="ticket.created",
        event_version="1",
        received_at_ms=NOON_MS,
        request_id="req-1",
        traceparent="00-1-2-01",
        payload_hash="p",
        content_type="application/json",
        body=body,
        fields={"text": "/a"},
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # fields of an event


@pytest.mark.parametrize("body", [b"", b"{}", b"\x00\xff" * 10, b"long " * 100_000])
def test_an_event_comes_back_as_it_was_put(bucket: Bucket, body: bytes) -> None:
    reference = bucket.envelopes.put(event(body))
    assert bucket.envelopes.get(reference) == event(body)
    assert reference.startswith("envelopes/acme/")


def test_the_same_event_lands_at_the_same_reference_and_another_never_there(bucket: Bucket) -> None:
    """Another payload under the same id must not take the first one's place."""
    first = bucket.envelopes.put(event())
    assert bucket.envelopes.put(event()) == first
    others = {
        bucket.envelopes.put(event(b"other", payload_hash="q")),
        bucket.envelopes.put(event(tenant="else")),
        bucket.envelopes.put(event(received_at_ms=NOON_MS + 1)),
    }
    assert len(others | {first}) == 4
    assert bucket.envelopes.get(first) == event()
    assert len(bucket.keys()) == 4


@pytest.mark.parametrize("content", [b"", b"not an envelope", b'{"v": 9}', b"\xed\xa0\x80", b"\x00\xff\xfe"])
def test_a_message_that_is_no_envelope_is_kept_as_it_came_and_told_apart(bucket: Bucket, content: bytes) -> None:
    reference = bucket.envelopes.put_raw("abc", content)
    assert reference == "envelopes/raw/abc"
    assert bucket.keys() == [reference]
    assert bucket.content(reference) == content
    with pytest.raises(MalformedEnvelope):
        bucket.envelopes.get(reference)


def test_what_a_claim_check_names_is_read_like_any_envelope_and_only_by_the_event_it_was_checked_in_for(
    bucket: Bucket,
) -> None:
    large = event(b"long " * 100_000)
    check = ClaimCheck.of(large, large.to_message())
    bucket.put(check.reference, large.to_message().encode())
    assert check.redeemed(bucket.envelopes.get(check.reference)) == large
    bucket.put(check.reference, event(identity="2").to_message().encode())
    with pytest.raises(MalformedEnvelope, match="another event"):
        check.redeemed(bucket.envelopes.get(check.reference))


def test_an_object_that_no_ingress_can_have_written_is_not_taken_into_memory(bucket: Bucket) -> None:
    bucket.put("claims/acme/huge", b" " * (16 * 1024 * 1024 + 1))
    with pytest.raises(MalformedEnvelope):
        bucket.envelopes.get("claims/acme/huge")


def test_an_object_that_is_not_there_is_unavailable_storage(bucket: Bucket) -> None:
    with pytest.raises(StorageUnavailable):
        bucket.envelopes.get("envelopes/acme/none")


def test_a_bucket_that_is_down_is_unavailable_storage(bucket: Bucket) -> None:
    reference = bucket.envelopes.put(event())
    bucket.break_down()
    with pytest.raises(StorageUnavailable):
        bucket.envelopes.put(event(b"x"))
    with pytest.raises(StorageUnavailable):
        bucket.envelopes.put_raw("abc", b"x")
    with pytest.raises(StorageUnavailable):
        bucket.envelopes.get(reference)
    assert bucket.keys() == [reference]
