"""The bucket's spill, as the sweeper drains it (architecture §5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from botocore.exceptions import ClientError

from functions.adapters.aws import border, code_of
from functions.core.event import SPILL
from functions.core.failure import StorageUnavailable
from functions.core.ports import Spilled

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MAX_SPILLED_BYTES: Final = 16 * 1024 * 1024  # ingress spills what a queue could hold, a sixteenth of it


class S3Spill:
    """`ports.Spill`. Names begin with the time, and S3 lists by name."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def oldest(self, after: str, limit: int) -> list[Spilled]:
        """See the port."""
        with border("list the spill"):
            page = self._client.list_objects_v2(Bucket=self._bucket, Prefix=SPILL, StartAfter=after, MaxKeys=limit)
        return [Spilled(found["Key"], found["Size"]) for found in page.get("Contents", [])]

    def read(self, key: str) -> bytes | None:
        """See the port. S3 says that an object is gone only to who may list the bucket."""
        with border("get a spilled message"):
            try:
                found = self._client.get_object(Bucket=self._bucket, Key=key)
            except ClientError as exc:
                if code_of(exc) == "NoSuchKey":
                    return None
                raise
            if found["ContentLength"] > MAX_SPILLED_BYTES:
                found["Body"].close()
                raise StorageUnavailable(f"get a spilled message: it has {found['ContentLength']} bytes")
            return found["Body"].read()

    def remove(self, key: str) -> None:
        """See the port. The bucket keeps versions, so a marker stays in its place until the lifecycle takes it."""
        with border("remove a spilled message"):
            self._client.delete_object(Bucket=self._bucket, Key=key)
