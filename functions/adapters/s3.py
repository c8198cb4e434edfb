"""The bucket's part for envelopes. Encryption, and their end after 120 days, are the bucket's own settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from functions.adapters.aws import border
from functions.core.event import Event, digest
from functions.core.failure import MalformedEnvelope

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MAX_ENVELOPE_BYTES: Final = 16 * 1024 * 1024  # the largest body in base64 is a third of it


class S3Envelopes:
    """`ports.Envelopes`. A reference is an object's key; what lies under one never changes: content names it."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def put(self, event: Event) -> str:
        """Store it under `envelopes/{tenant}/{digest of the envelope}`. Raises `StorageUnavailable`."""
        message = event.to_message()
        return self._put(f"envelopes/{event.tenant}/{digest(message)}", message.encode("ascii"))

    def put_raw(self, name: str, content: bytes) -> str:
        """Store a message that is no envelope, under `envelopes/raw/{name}`. Raises `StorageUnavailable`."""
        return self._put(f"envelopes/raw/{name}", content)

    def get(self, reference: str) -> Event:
        """Raises `MalformedEnvelope`, or `StorageUnavailable`, also where there is no such object (any more)."""
        with border("get an envelope"):
            found = self._client.get_object(Bucket=self._bucket, Key=reference)
            if found["ContentLength"] > MAX_ENVELOPE_BYTES:
                found["Body"].close()
                raise MalformedEnvelope(f"the object has {found['ContentLength']} bytes")
            content = found["Body"].read()
        try:
            message = content.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise MalformedEnvelope("the object is not UTF-8") from exc
        return Event.from_message(message)

    def _put(self, key: str, content: bytes) -> str:
        with border("put an envelope"):
            self._client.put_object(Bucket=self._bucket, Key=key, Body=content, ContentType="application/json")
        return key
