"""AWS Signature Version 4, as far as requests with a body in memory need it.

Source: "Create a signed AWS API request", IAM User Guide; for S3 "Authenticating Requests: Using the Authorization
Header", S3 API Reference.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from functions.core.failure import StorageUnavailable

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_SENDABLE = re.compile(r"[!-~]*")  # in a header, without breaking out of it

Query = Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request is signed with. `token` is empty for keys that last."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)

    @staticmethod
    def from_env(environ: Mapping[str, str] | None = None) -> Credentials:
        """As Lambda sets them. Raises `StorageUnavailable` where they are absent or could not travel in a header."""
        source = os.environ if environ is None else environ
        credentials = Credentials(
            source.get("AWS_ACCESS_KEY_ID", ""),
            source.get("AWS_SECRET_ACCESS_KEY", ""),
            source.get("AWS_SESSION_TOKEN", ""),
        )
        if not credentials.access_key or not credentials.secret_key:
            raise StorageUnavailable("the environment holds no AWS credentials")
        if not _SENDABLE.fullmatch(credentials.access_key + credentials.token):
            raise StorageUnavailable("the AWS credentials in the environment are unusable")
        return credentials


class Signer:
    """Signs requests to one service in one region."""

    def __init__(self, service: str, region: str) -> None:
        self._service = service
        self._region = region
        self._key_of: tuple[str, str] = ("", "")
        self._key = b""

    def signed(
        self,
        credentials: Credentials,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        now_ms: int,
        query: Query = (),
    ) -> dict[str, str]:
        """The headers to send: those given, which name the host, and the signature's. All of them are signed.

        `path` and, by way of `query_of`, `query` are as they stand in the request line; names of headers are in lower
        case. For services other than S3 the path has no empty segment and none of dots.
        """
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_ms // 1000))
        date = moment[:8]
        payload_hash = hashlib.sha256(body).hexdigest()
        signed = {**headers, "x-amz-date": moment}
        if credentials.token:
            signed["x-amz-security-token"] = credentials.token
        if self._service == "s3":
            signed["x-amz-content-sha256"] = payload_hash
        names = sorted(signed)
        canonical = [
            method,
            path if self._service == "s3" else quote(path, safe="/~"),  # S3 alone does not encode it once more
            query_of(query),
            *(f"{name}:{' '.join(signed[name].split())}" for name in names),
            "",
            ";".join(names),
            payload_hash,
        ]
        scope = f"{date}/{self._region}/{self._service}/aws4_request"
        canonical_hash = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
        to_sign = f"{_ALGORITHM}\n{moment}\n{scope}\n{canonical_hash}"
        signature = _hmac(self._key_on(date, credentials.secret_key), to_sign).hex()
        signed["authorization"] = (
            f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={';'.join(names)}, Signature={signature}"
        )
        return signed

    def _key_on(self, date: str, secret_key: str) -> bytes:
        """The key of that day, kept until the day or the secret changes."""
        if self._key_of != (date, secret_key):
            key = f"AWS4{secret_key}".encode()
            for part in (date, self._region, self._service, "aws4_request"):
                key = _hmac(key, part)
            self._key, self._key_of = key, (date, secret_key)
        return self._key


def query_of(pairs: Query) -> str:
    """The pairs as a query that can be sent and signed."""
    encoded = sorted((quote(name, safe=""), quote(value, safe="")) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
