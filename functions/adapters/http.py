"""HTTPS calls to providers: bounded in time and size, to one base URL, with every foreign error translated here and
once.

What decides the translation is whether the provider can have acted (architecture §7). Nothing can have happened
before the first byte of the request is written; from then on anything may have, until an answer says otherwise. A 2xx
whose body does not arrive whole is still a 2xx: the provider has acted.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import quote, urlencode, urlsplit

import httpx

from functions.adapters.snapshot import snapshot_of
from functions.adapters.ssm import UnusableSecret
from functions.core.clock import Clock
from functions.core.failure import (
    RATE_LIMIT_CODES,
    Failure,
    FailureClass,
    NetworkCause,
    StorageUnavailable,
    failure_of_network,
    failure_of_status,
)
from functions.core.retry import parse_rate_limit_reset, parse_retry_after

MAX_BODY_BYTES = 1024 * 1024
MAX_SEGMENT_LENGTH = 256
OWN_DEADLINE_MARGIN_MS = 50  # so that our verdict, which knows whether anything was sent, comes before the caller's
# Per phase of a call; the deadline in all is the caller's. A connect that takes longer will not come good in time.
PHASE_TIMEOUTS = httpx.Timeout(connect=2.0, read=7.0, write=4.0, pool=1.0)
# An idle connection is closed sooner than servers do it: one that is closed under a request costs an unknown outcome.
CONNECTIONS = httpx.Limits(max_connections=20, max_keepalive_connections=10, keepalive_expiry=4.0)
_BODY_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,4094}[\x21-\x7e])?\Z")
_FIRST_BYTE = "send_request_headers.started"

TransportFactory = Callable[[], httpx.AsyncBaseTransport]


class IntegrationSecret(Protocol):
    """Where an integration is and how we are known there. `version` changes when the parameter does."""

    @property
    def base_url(self) -> str:
        """`https://host[/path]`, without a query."""
        ...

    @property
    def credential(self) -> str:
        """The key or token. Never logged."""
        ...

    @property
    def extra(self) -> Mapping[str, Any]:
        """What else the parameter says."""
        ...

    @property
    def version(self) -> str:
        """The parameter's version."""
        ...


class IntegrationSecrets(Protocol):
    """The parameters of integrations. Both methods block, and raise `StorageUnavailable`."""

    def get(self, integration: str) -> IntegrationSecret:
        """The cached parameter."""
        ...

    def refresh(self, integration: str) -> IntegrationSecret:
        """The parameter, read past every cache."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider answered. `body` is None where it did not arrive whole, was too large or is encoded; then
    `trouble` says why.

    Header names are lower-case.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | None
    trouble: str = ""

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status <= 299

    @property
    def is_page(self) -> bool:
        """Whether this is a web page: a proxy, a login or a maintenance page, and not the API's own answer."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/html"

    def document(self) -> Any:
        """The body as JSON, or None when it is not JSON."""
        if not self.body:
            return None
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def body_code(self) -> str:
        """The error's code in the body, where there is one in a usual place; empty otherwise."""
        document = self.document()
        if not isinstance(document, dict):
            return ""
        error = document.get("error")
        errors = document.get("errors")
        first = errors[0] if isinstance(errors, list) and errors else None
        for place in (error, first, document):
            code = place.get("code") if isinstance(place, dict) else place
            if isinstance(code, str) and _BODY_CODE.match(code):
                return code
        return ""

    def failure(self, now_ms: int, definite_statuses: frozenset[int] = frozenset()) -> Failure | None:
        """The failure this answer is, or None for a success. A success that carries a rate limit's code is none."""
        code = self.body_code()
        is_rate_limit = self.status == 429 or code.upper() in RATE_LIMIT_CODES
        if self.is_success and not is_rate_limit:
            if self.is_page:
                detail = f"a web page came with {self.status} in the API's place"
                return self._seen(failure_of_network(NetworkCause.PROTOCOL, detail))
            return None
        return self._seen(
            failure_of_status(
                self.status,
                body_code=code,
                retry_after_ms=self._stated_wait_ms(now_ms, is_rate_limit=is_rate_limit),
                definite_statuses=definite_statuses,
            )
        )

    def _seen(self, failure: Failure) -> Failure:
        return replace(failure, answer=snapshot_of(self.status, self.headers, self.body, self.trouble))

    def _stated_wait_ms(self, now_ms: int, *, is_rate_limit: bool) -> int | None:
        stated = parse_retry_after(self.headers.get("retry-after", ""), now_ms)
        if stated is None and is_rate_limit:  # providers send the reset header with every answer
            reset = self.headers.get("x-ratelimit-reset", "") or self.headers.get("ratelimit-reset", "")
            stated = parse_rate_limit_reset(reset, now_ms)
        return stated


@functools.cache
def _trust() -> ssl.SSLContext:
    """Read once, before the first deadline runs: loading the authorities takes long on a small share of a CPU."""
    return httpx.create_ssl_context(trust_env=False)


class HttpCaller:
    """Makes calls and keeps connections. One per integration; for use from one event loop at a time.

    A connection belongs to the loop that opened it. On a new loop a new pool is begun; `aclose` ends the present one.
    """

    def __init__(self, clock: Clock, transport: TransportFactory | None = None) -> None:
        self._clock = clock
        self._transport = transport
        self._trust = _trust()
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # httpx logs the URL of every call, and a person's number may be in it. Ours to say is what the outcome was.
        logging.getLogger("httpx").setLevel(logging.WARNING)

    async def aclose(self) -> None:
        """Close every connection."""
        client, self._client, self._loop = self._client, None, None
        if client is not None:
            await client.aclose()

    async def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        payload: Any = None,
        form: Mapping[str, str] | None = None,
        deadline_ms: int,
    ) -> Answer | Failure:
        """One request and its answer, whatever its status. Cancelling closes the socket.

        `payload` goes out as JSON, `form` as `application/x-www-form-urlencoded` in its own order; at most one of them.
        """
        left_ms = deadline_ms - OWN_DEADLINE_MARGIN_MS - self._clock.now_ms()
        if left_ms <= 0:
            return failure_of_network(NetworkCause.NOT_STARTED, "no time was left to start the call")
        content, content_type = _encoded(payload, form)
        sent = {"accept": "application/json", "accept-encoding": "identity", **headers}
        if content is not None:
            sent["content-type"] = content_type
        progress = _Progress()
        try:
            async with asyncio.timeout(left_ms / 1000):
                request = self._here().stream(
                    method, url, content=content, headers=sent, extensions={"trace": progress.trace}
                )
                async with request as response:
                    progress.answer = _head_of(response)
                    progress.answer = await _read(response, progress.answer)
        except TimeoutError:
            return progress.answer or failure_of_network(progress.cause_of_deadline())
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            return progress.answer or failure_of_exception(exc)
        return progress.answer

    def _here(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._loop = loop
            self._client = httpx.AsyncClient(
                transport=None if self._transport is None else self._transport(),
                verify=self._trust,
                timeout=PHASE_TIMEOUTS,
                limits=CONNECTIONS,
                follow_redirects=False,
                trust_env=False,
                headers={"user-agent": "holdfast"},
            )
        return self._client


def _encoded(payload: Any, form: Mapping[str, str] | None) -> tuple[bytes | None, str]:
    if form is not None:
        return urlencode(form).encode("ascii"), "application/x-www-form-urlencoded"
    if payload is not None:
        return json.dumps(payload, separators=(",", ":")).encode(), "application/json"
    return None, ""


class _Progress:
    """How far a call has come."""

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self._has_begun = False
        self._has_sent = False

    async def trace(self, event: str, _info: Mapping[str, Any]) -> None:
        self._has_begun = True
        self._has_sent = self._has_sent or event.endswith(_FIRST_BYTE)

    def cause_of_deadline(self) -> NetworkCause:
        """A deadline that came while connecting is as definite as a connect timeout. Untraced calls count as sent."""
        if self._has_begun and not self._has_sent:
            return NetworkCause.CONNECT_TIMEOUT
        return NetworkCause.DEADLINE


def _head_of(response: httpx.Response) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, None, "the body did not arrive whole")


async def _read(response: httpx.Response, head: Answer) -> Answer:
    """The answer with its body, or with the reason why there is none."""
    encoding = head.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        return Answer(head.status, head.headers, None, "the body is encoded, which we do not accept")
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > MAX_BODY_BYTES:
            return Answer(head.status, head.headers, None, f"the body is over {MAX_BODY_BYTES} bytes")
        parts.append(part)
    return Answer(head.status, head.headers, b"".join(parts))


def failure_of_exception(exc: Exception) -> Failure:
    """What an exception of httpx says about the call that met it."""
    match exc:
        case httpx.PoolTimeout():
            return failure_of_network(NetworkCause.POOL_TIMEOUT)
        case httpx.ConnectTimeout():
            return failure_of_network(NetworkCause.CONNECT_TIMEOUT)
        case httpx.ConnectError():
            return failure_of_network(_cause_of_connect_error(exc))
        case httpx.UnsupportedProtocol() | httpx.InvalidURL() | httpx.LocalProtocolError():
            return Failure(
                FailureClass.DATA_ERROR,
                "REQUEST_NOT_BUILT",
                f"no request could be made of this ({type(exc).__name__})",
                is_retryable=False,
                may_have_happened=False,
            )
        case httpx.TimeoutException():
            return failure_of_network(NetworkCause.READ_TIMEOUT)
        case httpx.NetworkError():
            return failure_of_network(NetworkCause.RESET)
        case _:
            return failure_of_network(NetworkCause.PROTOCOL, f"the answer broke the protocol ({type(exc).__name__})")


def _cause_of_connect_error(exc: BaseException) -> NetworkCause:
    for cause in _chain(exc):
        if isinstance(cause, socket.gaierror):
            return NetworkCause.DNS
        if isinstance(cause, ssl.SSLError):
            return NetworkCause.TLS
    return NetworkCause.CONNECT_REFUSED


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    for _ in range(16):  # a chain may be a ring
        if exc is None:
            return
        yield exc
        if isinstance(exc, BaseExceptionGroup):
            for member in exc.exceptions:
                yield from _chain(member)
        exc = exc.__cause__ or exc.__context__


async def secret_of(
    secrets: IntegrationSecrets, integration: str, clock: Clock, deadline_ms: int, *, past_cache_of: str = ""
) -> IntegrationSecret | Failure:
    """The integration's parameter, checked, off the event loop. What is wrong with it is quoted nowhere.

    `past_cache_of` is a version that was refused: if the cache still holds it, the parameter is read again.
    """
    left_seconds = max(0, deadline_ms - OWN_DEADLINE_MARGIN_MS - clock.now_ms()) / 1000
    try:
        async with asyncio.timeout(left_seconds):
            secret = await asyncio.to_thread(secrets.get, integration)
            if past_cache_of and secret.version == past_cache_of:
                secret = await asyncio.to_thread(secrets.refresh, integration)
    except UnusableSecret as exc:
        return malformed_credential(str(exc))
    except (StorageUnavailable, TimeoutError) as exc:
        return Failure(
            FailureClass.TRANSIENT,
            "CREDENTIAL_UNREADABLE",
            f"the integration's parameter could not be read ({type(exc).__name__})",
            is_retryable=True,
            may_have_happened=False,
        )
    if not is_base_url(secret.base_url) or not is_header_value(secret.credential):
        return malformed_credential("it holds no usable base URL and credential")
    return secret


def malformed_credential(detail: str) -> Failure:
    """What an unusable parameter means. Nothing was sent, nor will be until the parameter changes: it stands like a
    credential that was refused.
    """
    return Failure(
        FailureClass.AUTH_ERROR,
        "CREDENTIAL_MALFORMED",
        f"the integration's parameter is not usable: {detail}",
        is_retryable=False,
        may_have_happened=False,
    )


def is_base_url(text: str) -> bool:
    """Whether calls can be made below this URL: https, or http on the loopback; a host; no credential, query or
    fragment, not even an empty one, which would take in whatever path is put behind it.
    """
    if not text.isprintable() or any(mark in text for mark in " ?#\\"):
        return False
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    if parts.username or parts.password or not parts.hostname or port == 0:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1"))


def is_header_value(text: str) -> bool:
    """Whether the text can be sent in a header: visible ASCII."""
    return bool(_HEADER_VALUE.match(text))


def url_below(base_url: str, *segments: str) -> str | None:
    """The URL of these path segments below the base, each quoted whole; None when one cannot be a segment.

    Ids come from senders: none may leave its segment, and so neither path nor host.
    """
    if any(not text or len(text) > MAX_SEGMENT_LENGTH or text in (".", "..") or _is_unsafe(text) for text in segments):
        return None
    return "/".join([base_url.rstrip("/"), *(quote(text, safe="") for text in segments)])


def _is_unsafe(text: str) -> bool:
    return not text.isprintable() or any("\ud800" <= letter <= "\udfff" for letter in text)


def correlation(request_id: str, traceparent: str, key: str = "") -> dict[str, str]:
    """The headers by which a call can be found again; what cannot be a header is left out."""
    wanted = {"x-request-id": request_id, "traceparent": traceparent, "idempotency-key": key}
    return {name: value for name, value in wanted.items() if is_header_value(value)}
