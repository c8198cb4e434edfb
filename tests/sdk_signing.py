"""What the SDK's own signer makes of a request, to hold ours against."""

from __future__ import annotations

from collections.abc import Mapping

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials


def sdk_signature(
    service: str,
    region: str,
    secret_key: str,
    *,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
) -> str:
    """The signature over these headers, of which `x-amz-date` says when."""
    signer = (S3SigV4Auth if service == "s3" else SigV4Auth)(Credentials("unused", secret_key), service, region)
    request = AWSRequest(method, url, headers=dict(headers), data=body)
    request.context["timestamp"] = headers["x-amz-date"]
    signature: str = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    return signature
