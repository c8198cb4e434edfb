"""The bucket's part for envelopes. Encryption, and their end after 120 days, are the bucket's own settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from functions.adapters.aws import border
from functions.core.event import Event, digest
from functions.core.failure import MalformedEnvelope

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class S3Envelopes:
    """`ports.Envelopes`. A reference is an object's key; what lies under one never changes: content names it."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def put(self, event: Event) -> str:
        """Store it under `envelopes/{tenant}/{digest of the envelope}`. Raises `StorageUnavailable`."""
        message = event.to_message()
        return self._put(f"envelopes/{event.tenant}/{digest(message)}", message)

    def put_raw(self, name: str, message: str) -> str:
        """Store a message that is no envelope, under `envelopes/raw/{name}`. Raises `StorageUnavailable`."""
        return self._put(f"envelopes/raw/{name}", message)

    def get(self, reference: str) -> Event:
        """Raises `MalformedEnvelope`, or `StorageUnavailable`, also where there is no such object (any more)."""
        with border("get an envelope"):
            content = self._client.get_object(Bucket=self._bucket, Key=reference)["Body"].read()
        try:
            message = content.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise MalformedEnvelope("the object is not UTF-8") from exc
        return Event.from_message(message)

    def _put(self, key: str, message: str) -> str:
        with border("put an envelope"):
            self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=message.encode("utf-8", "surrogatepass"),
                ContentType="application/json",
            )
        return key
