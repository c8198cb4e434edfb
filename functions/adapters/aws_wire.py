"""How ingress talks to AWS: signed requests in the services' own formats, without an SDK.

An event waits for this on a cold start, and loading an SDK takes longer than everything else together
(docs/decisions.md). One try each: whoever calls knows how much time is left, and decides.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from functions.adapters.sigv4 import Credentials, Signer
from functions.adapters.wire import MAX_BODY_BYTES, Answer, Connection, NoAnswer
from functions.core.clock import Clock, Monotonic, SystemClock, system_monotonic
from functions.core.failure import StorageRefused, StorageUnavailable

# Refusals that may pass: throttling as the SDKs know it ("Retry behavior", AWS SDKs and Tools Reference Guide), SQS's
# KmsThrottled, and a clock that is not set yet when an environment has just been thawed.
MAY_PASS: Final = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "KmsThrottled",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
        "RequestTimeout",
        "RequestTimeoutException",
        "InvalidSignatureException",
        "RequestExpired",
        "RequestTimeTooSkewed",
    }
)

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,99}")
_HOST = re.compile(r"[0-9a-z._:-]+")
_XML_CODE = re.compile(rb"<Code>([^<]{1,100})</Code>")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a service is reached. `is_override`: somewhere else than on AWS, as a variable says."""

    host: str
    port: int
    is_tls: bool
    is_override: bool = False

    @staticmethod
    def of(service: str, region: str, environ: Mapping[str, str]) -> Endpoint:
        """AWS_ENDPOINT_URL_<SERVICE>, else AWS_ENDPOINT_URL, else the region's own. Raises ValueError."""
        name = f"AWS_ENDPOINT_URL_{service.upper()}"
        url = environ.get(name) or environ.get("AWS_ENDPOINT_URL")
        if not url:
            suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
            return Endpoint(f"{service}.{region}.{suffix}", 443, is_tls=True)
        parts = urlsplit(url)
        host = parts.hostname or ""
        is_plain = parts.path in ("", "/") and not (parts.query or parts.fragment or "@" in parts.netloc)
        if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host) or not is_plain:
            raise ValueError(f"{name} or AWS_ENDPOINT_URL is not an http or https URL of a host and nothing more")
        is_tls = parts.scheme == "https"
        return Endpoint(host, parts.port or (443 if is_tls else 80), is_tls, is_override=True)

    @property
    def host_header(self) -> str:
        """The host as a request names it: with the port unless it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"

    def below(self, name: str) -> Endpoint:
        """The same endpoint with a name put before its host's."""
        return Endpoint(f"{name}.{self.host}", self.port, self.is_tls, self.is_override)


def region_of(environ: Mapping[str, str]) -> str:
    """The region that Lambda, or the command line's settings, name. Raises ValueError."""
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    if not region:
        raise ValueError("neither AWS_REGION nor AWS_DEFAULT_REGION is set")
    return region


class Service:
    """One AWS service over one connection. Not for several threads, like its connection."""

    def __init__(
        self,
        endpoint: Endpoint,
        signer: Signer,
        *,
        clock: Clock | None = None,
        monotonic: Monotonic = system_monotonic,
        max_answer_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._endpoint = endpoint
        self._signer = signer
        self._clock = clock or SystemClock()
        self._connection = Connection(
            endpoint.host,
            endpoint.port,
            is_tls=endpoint.is_tls,
            monotonic=monotonic,
            max_body_bytes=max_answer_bytes,
        )

    @staticmethod
    def connect(service: str, *, max_answer_bytes: int = MAX_BODY_BYTES) -> Service:
        """As the environment says. Opens nothing yet. Raises ValueError where the environment says nothing usable."""
        region = region_of(os.environ)
        endpoint = Endpoint.of(service, region, os.environ)
        return Service(endpoint, Signer(service, region), max_answer_bytes=max_answer_bytes)

    def close(self) -> None:
        """Close the connection if one is open; the next call opens another."""
        self._connection.close()

    def call(
        self, what: str, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout_seconds: float
    ) -> Answer:
        """Sign and send; gives any answer at all. `what` names the operation. Raises `StorageUnavailable`."""
        named = {"host": self._endpoint.host_header, **headers}
        signed = self._signer.signed(Credentials.from_env(), method, path, named, body, self._clock.now_ms())
        try:
            return self._connection.call(method, path, signed | _trace(os.environ), body, timeout_seconds)
        except NoAnswer as exc:
            raise StorageUnavailable(f"{what} failed: {exc}") from exc

    def call_json(
        self, target: str, version: str, request: Mapping[str, object], timeout_seconds: float
    ) -> tuple[Answer, dict[str, Any]]:
        """An operation in AWS's JSON protocol of that version. Raises `StorageUnavailable`, also for a 200 that is
        no JSON object; other answers are for `check`, with an empty object where theirs cannot be read.
        """
        what = target.rpartition(".")[2]
        headers = {"content-type": f"application/x-amz-json-{version}", "x-amz-target": target}
        answer = self.call(what, "POST", "/", headers, json.dumps(request).encode("ascii"), timeout_seconds)
        document = _object_of(answer.body)
        if document is None and answer.status == 200:
            raise StorageUnavailable(f"{what} failed: the answer is no JSON object")
        return answer, document or {}


def check(what: str, answer: Answer) -> None:
    """Return if the answer is a 200. Raises `StorageRefused` where the same request is of no use, else
    `StorageUnavailable`; the text is the service's code for it, since a message may quote the request.
    """
    if answer.status == 200:
        return
    codes = codes_of(answer)
    text = f"{what} failed: {codes[0] if codes else f'HTTP {answer.status}'}"
    if 400 <= answer.status < 500 and answer.status not in (408, 429) and MAY_PASS.isdisjoint(codes):
        raise StorageRefused(text)
    raise StorageUnavailable(text)


def codes_of(answer: Answer) -> list[str]:
    """The error's stable names, the most telling first: a service may give several, for its older protocols.

    In JSON `__type` or `code`, perhaps with a namespace before `#` and a URL after `:`; in the header
    x-amzn-errortype likewise, and in x-amzn-query-error before `;`; in S3's XML `Code`.
    """
    document = _object_of(answer.body) or {}
    xml = _XML_CODE.search(answer.body)
    given = [
        document.get("__type"),
        document.get("code"),
        answer.headers.get("x-amzn-errortype"),
        answer.headers.get("x-amzn-query-error", "").partition(";")[0],
        xml[1].decode("latin-1") if xml else None,
    ]
    named = [text.rpartition("#")[2].partition(":")[0].strip() for text in given if isinstance(text, str)]
    return [name for name in named if _CODE.fullmatch(name)]


def _object_of(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _trace(environ: Mapping[str, str]) -> dict[str, str]:
    """Lambda's trace, passed on as the SDKs do, for X-Ray. Not signed: what lies between may change it."""
    trace = environ.get("_X_AMZN_TRACE_ID", "")
    return {"x-amzn-trace-id": trace} if re.fullmatch(r"[!-~]{1,1000}", trace) else {}
