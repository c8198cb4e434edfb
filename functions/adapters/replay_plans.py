"""The bucket's part for bulk replays: `plan-{hash}.json.gz`, and `batch-{start}-{end}.json` for each batch, under
`replays/{job_id}/`. Encryption, and their end after 120 days, are the bucket's own settings.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING, Final

from functions.adapters.aws import border
from functions.core.failure import StorageUnavailable
from functions.core.replay import Plan
from functions.core.replay_job import SIZES, Batch, BatchRecord

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREFIX: Final = "replays/"
MAX_PLAN_BYTES: Final = 64 * 1024 * 1024  # of the largest plan some ten


class S3ReplayPlans:
    """`ports.ReplayPlans`."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def put(self, job_id: str, made: Plan) -> str:
        """See the port. Its name holds its hash: two planners of one job do not write over each other."""
        reference = f"{PREFIX}{job_id}/plan-{made.plan_hash[:24]}.json.gz"
        with border("put the plan of a bulk replay"):
            self._client.put_object(
                Bucket=self._bucket,
                Key=reference,
                Body=gzip.compress(made.to_json().encode(), mtime=0),
                ContentType="application/gzip",
            )
        return reference

    def get(self, reference: str) -> Plan:
        """See the port."""
        try:
            unzip = zlib.decompressobj(wbits=31)
            text = unzip.decompress(self._content(reference), MAX_PLAN_BYTES)
            return Plan.from_json(text.decode())
        except (KeyError, TypeError, ValueError, zlib.error) as exc:
            raise StorageUnavailable(f"the plan {reference} cannot be read back: {exc!r}") from exc

    def put_record(self, job_id: str, batch: Batch, record: Sequence[BatchRecord]) -> None:
        """See the port."""
        content = json.dumps([astuple(one) for one in record], separators=(",", ":"))
        with border("put the record of a batch"):
            self._client.put_object(
                Bucket=self._bucket,
                Key=f"{_batches(job_id)}{batch.start:06d}-{batch.end:06d}.json",
                Body=content.encode(),
                ContentType="application/json",
            )

    def records(self, job_id: str, start: int, end: int) -> Sequence[BatchRecord]:
        """See the port. The names say which rows a record is of; no batch is larger than the largest size."""
        prefix = _batches(job_id)
        with border("list the records of a bulk replay"):
            listed = self._client.list_objects_v2(
                Bucket=self._bucket, Prefix=prefix, StartAfter=f"{prefix}{max(0, start - SIZES[-1]):06d}"
            ).get("Contents", [])
        found: list[BatchRecord] = []
        for key in (one["Key"] for one in listed):
            first, _, last = key.removeprefix(prefix).removesuffix(".json").partition("-")
            if int(first) >= end:
                break
            if int(last) > start:
                found += self._record(key)
        return found

    def _record(self, key: str) -> list[BatchRecord]:
        try:
            return [BatchRecord(*one) for one in json.loads(self._content(key))]
        except (TypeError, ValueError) as exc:
            raise StorageUnavailable(f"the record {key} cannot be read back: {exc!r}") from exc

    def _content(self, key: str) -> bytes:
        with border(f"get {key.rpartition('/')[2]} of a bulk replay"):
            return self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()


def _batches(job_id: str) -> str:
    return f"{PREFIX}{job_id}/batch-"
