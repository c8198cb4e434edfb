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

from botocore.exceptions import ClientError

from functions.adapters.aws import border, code_of
from functions.core.failure import StorageUnavailable
from functions.core.replay import Plan, PlanLost
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

    def get(self, reference: str, plan_hash: str) -> Plan:
        """See the port."""
        with border("get the plan of a bulk replay"):
            try:
                content = self._client.get_object(Bucket=self._bucket, Key=reference)["Body"].read()
            except ClientError as exc:
                if code_of(exc) == "NoSuchKey":
                    raise PlanLost("the plan is not there any more") from exc
                raise
        try:
            text = zlib.decompressobj(wbits=31).decompress(content, MAX_PLAN_BYTES).decode()
        except (zlib.error, UnicodeDecodeError) as exc:
            raise PlanLost(f"the plan cannot be read back: {type(exc).__name__}") from exc
        return Plan.proven(text, plan_hash)

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
        with border("get the record of a batch"):
            content = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        try:
            return [BatchRecord(*one) for one in json.loads(content)]
        except (TypeError, ValueError) as exc:
            raise StorageUnavailable(f"the record {key} cannot be read back: {exc!r}") from exc


def _batches(job_id: str) -> str:
    return f"{PREFIX}{job_id}/batch-"
