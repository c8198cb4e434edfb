"""The bucket's part for documents, and how providers read one. Encryption and the end of both after 120 days are the
bucket's own settings.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from functions.adapters.aws import border, code_of
from functions.core.decision import Action
from functions.core.document import MAX_DOCUMENT_BYTES, document_key, is_document, parsed_key
from functions.core.failure import Failure, FailureClass, StorageRefused, StorageUnavailable
from functions.core.ports import Call, Documents

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class S3Documents:
    """`ports.Documents`."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def read(self, tenant: str, name: str) -> bytes | None:
        """See the port. A missing object is told from a broken grant, because we may list the bucket."""
        with border("read a document"):
            try:
                found = self._client.get_object(Bucket=self._bucket, Key=document_key(tenant, name))
            except ClientError as exc:
                if code_of(exc) == "NoSuchKey":
                    return None
                raise
            if found["ContentLength"] > MAX_DOCUMENT_BYTES:
                found["Body"].close()
                raise StorageRefused(f"the document has {found['ContentLength']} bytes")
            return found["Body"].read()

    def store_parsed(self, tenant: str, name: str, content: bytes) -> str:
        """See the port."""
        key = parsed_key(tenant, name)
        with border("store what was read from a document"):
            self._client.put_object(Bucket=self._bucket, Key=key, Body=content, ContentType="application/json")
        return key


async def document_of(documents: Documents, action: Action, call: Call) -> bytes | Failure:
    """The action's document, off the event loop."""
    if not is_document(call.tenant, action.target):
        return unusable("TARGET_INVALID", "the target is no name of a document")
    try:
        content = await asyncio.to_thread(documents.read, call.tenant, action.target)
    except StorageRefused:
        return unusable("DOCUMENT_TOO_LARGE", f"the document is over {MAX_DOCUMENT_BYTES} bytes")
    except StorageUnavailable as exc:
        return storage_failed(exc)
    if not content:
        return unusable("DOCUMENT_MISSING", "there is no such document, or nothing in it")
    return content


def unusable(code: str, detail: str) -> Failure:
    """The document, or the action, is not one that can be read: for a person."""
    return Failure(FailureClass.DATA_ERROR, code, detail, is_retryable=False, may_have_happened=False)


def storage_failed(exc: StorageUnavailable) -> Failure:
    """The bucket did not do its part: nothing was sent to anybody."""
    return Failure(
        FailureClass.TRANSIENT,
        "DOCUMENT_UNREADABLE",
        f"the bucket did not do its part ({type(exc).__name__})",
        is_retryable=True,
        may_have_happened=False,
    )
