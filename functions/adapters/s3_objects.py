"""The bucket, as ingress writes to it."""

from __future__ import annotations

import os
from urllib.parse import quote

from functions.adapters.aws_wire import Endpoint, Service, check, region_of
from functions.adapters.sigv4 import Signer
from functions.core.failure import StorageUnavailable


class S3Objects:
    """Stores objects with one PutObject each. `prefix` is what the path says of the bucket, where the host does not."""

    def __init__(self, service: Service, prefix: str = "") -> None:
        self._service = service
        self._prefix = prefix

    @staticmethod
    def connect(bucket: str) -> S3Objects:
        """By the bucket's own host on AWS. By path where an override or the certificates' wildcard needs it."""
        region = region_of(os.environ)
        endpoint, signer = Endpoint.of("s3", region, os.environ), Signer("s3", region)
        if endpoint.is_override or "." in bucket:
            return S3Objects(Service(endpoint, signer), f"/{bucket}")
        return S3Objects(Service(endpoint.below(bucket), signer))

    def put(self, key: str, content: bytes, timeout_seconds: float) -> None:
        """Store an object in one try; the signature covers its content, so that it arrives as it is or not at all.

        Raises `StorageRefused` where a second try is of no use, else `StorageUnavailable`; it may be there even so.
        """
        path = f"{self._prefix}/{quote(key, safe='/')}"
        headers = {"content-type": "application/json"}
        answer = self._service.call("PutObject", "PUT", path, headers, content, timeout_seconds)
        check("PutObject", answer)
        if not answer.headers.get("etag"):
            raise StorageUnavailable("PutObject failed: the answer is not what S3 says")
