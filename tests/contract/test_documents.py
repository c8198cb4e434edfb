"""`ports.Documents`, over the double and over S3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from moto import mock_aws

from functions.adapters.documents import S3Documents
from functions.core import ports
from functions.core.document import MAX_DOCUMENT_BYTES
from functions.core.failure import StorageRefused, StorageUnavailable
from tests.aws_tables import sdk_client
from tests.contract.storage import Flaky, client_error
from tests.fakes import FakeDocuments, Faults


@dataclass
class Bucket:
    """The port, the objects behind it, and a way to break it."""

    documents: ports.Documents
    content: Callable[[str], bytes]
    put: Callable[[str, bytes], object]
    break_down: Callable[[], None]


def in_memory() -> Bucket:
    faults = Faults()
    documents = FakeDocuments(faults)

    def break_down() -> None:
        faults.fail("documents.read")
        faults.fail("documents.store_parsed")

    return Bucket(documents, documents.objects.__getitem__, documents.objects.__setitem__, break_down)


def in_s3() -> Bucket:
    client = sdk_client("s3")
    client.create_bucket(Bucket="held")
    flaky = Flaky(client)

    def break_down() -> None:
        flaky.planned["get_object"] = [client_error("AccessDenied")]
        flaky.planned["put_object"] = [client_error("SlowDown")]

    def content(key: str) -> bytes:
        return client.get_object(Bucket="held", Key=key)["Body"].read()

    def put(key: str, content: bytes) -> None:
        client.put_object(Bucket="held", Key=key, Body=content)

    documents = S3Documents(flaky, "held")  # type: ignore[arg-type]  # it stands in for the client
    return Bucket(documents, content, put, break_down)


@pytest.fixture(params=["memory", "s3"])
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    if request.param == "memory":
        yield in_memory()
        return
    with mock_aws():
        yield in_s3()


def test_a_document_is_read_whole_from_its_tenants_folder(bucket: Bucket) -> None:
    bucket.put("documents/acme/cv.txt", b"\x00Ana")
    assert bucket.documents.read("acme", "cv.txt") == b"\x00Ana"
    assert bucket.documents.read("else", "cv.txt") is None
    assert bucket.documents.read("acme", "other.txt") is None


def test_what_was_read_replaces_what_an_earlier_reading_left(bucket: Bucket) -> None:
    for content in (b"{}", b'{"name":"Ana"}'):
        assert bucket.documents.store_parsed("acme", "cv.txt", content) == "parsed/acme/cv.txt.json"
        assert bucket.content("parsed/acme/cv.txt.json") == content


def test_a_document_that_is_too_large_is_refused_for_good(bucket: Bucket) -> None:
    bucket.put("documents/acme/large", b" " * MAX_DOCUMENT_BYTES)
    bucket.put("documents/acme/larger", b" " * (MAX_DOCUMENT_BYTES + 1))
    assert len(bucket.documents.read("acme", "large") or b"") == MAX_DOCUMENT_BYTES
    with pytest.raises(StorageRefused):
        bucket.documents.read("acme", "larger")


def test_a_bucket_in_trouble_is_never_a_missing_document(bucket: Bucket) -> None:
    bucket.put("documents/acme/cv.txt", b"Ana")
    bucket.break_down()
    with pytest.raises(StorageUnavailable):
        bucket.documents.read("acme", "cv.txt")
    with pytest.raises(StorageUnavailable):
        bucket.documents.store_parsed("acme", "cv.txt", b"{}")
    assert bucket.documents.read("acme", "cv.txt") == b"Ana"
