"""Foreign errors of a call are translated once; what is said of the other side follows from how far the call came."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.adapters.http import Answer, HttpCaller, failure_of_exception, is_base_url, is_header_value, url_below
from functions.core.clock import SystemClock
from functions.core.failure import Failure, FailureClass

CLOCK = SystemClock()
NOW = 1_760_000_000_000


def caused(error: Exception, *causes: BaseException) -> Exception:
    here: BaseException = error
    for cause in causes:
        here.__cause__ = cause
        here = cause
    return error


@pytest.mark.parametrize(
    ("error", "code", "may_have_happened"),
    [
        (httpx.PoolTimeout(""), "NO_CONNECTION_FREE", False),
        (httpx.ConnectTimeout(""), "CONNECT_TIMEOUT", False),
        (httpx.ConnectError(""), "CONNECTION_REFUSED", False),
        (caused(httpx.ConnectError(""), OSError(), socket.gaierror(-2, "no")), "DNS_LOOKUP_FAILED", False),
        (caused(httpx.ConnectError(""), ssl.SSLError(1, "no")), "TLS_HANDSHAKE_FAILED", False),
        (
            caused(httpx.ConnectError(""), OSError(), ExceptionGroup("all", [OSError(), socket.gaierror()])),
            "DNS_LOOKUP_FAILED",
            False,
        ),
        (httpx.LocalProtocolError(""), "REQUEST_NOT_BUILT", False),
        (httpx.UnsupportedProtocol(""), "REQUEST_NOT_BUILT", False),
        (httpx.InvalidURL(""), "REQUEST_NOT_BUILT", False),
        (httpx.ReadTimeout(""), "READ_TIMEOUT", True),
        (httpx.WriteTimeout(""), "READ_TIMEOUT", True),
        (httpx.ReadError(""), "CONNECTION_RESET", True),
        (httpx.WriteError(""), "CONNECTION_RESET", True),
        (httpx.RemoteProtocolError(""), "PROTOCOL_ERROR", True),
        (httpx.DecodingError(""), "PROTOCOL_ERROR", True),
    ],
)
def test_an_exception_says_whether_the_provider_can_have_acted(
    error: Exception, code: str, may_have_happened: bool
) -> None:
    failure = failure_of_exception(error)
    assert (failure.code, failure.may_have_happened) == (code, may_have_happened)
    assert failure.is_retryable is (code != "REQUEST_NOT_BUILT")


def test_a_chain_of_causes_that_is_a_ring_ends() -> None:
    one, other = httpx.ConnectError(""), OSError()
    one.__cause__, other.__cause__ = other, one
    assert failure_of_exception(one).code == "CONNECTION_REFUSED"


class Stalled(httpx.AsyncBaseTransport):
    """Goes as far as these events, and no further."""

    def __init__(self, *events: str) -> None:
        self._events = events

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        trace: Callable[[str, Any], Awaitable[None]] = request.extensions["trace"]
        for event in self._events:
            await trace(event, {})
        await asyncio.sleep(60)
        raise AssertionError("nobody waits that long")


@pytest.mark.parametrize(
    ("events", "code", "may_have_happened"),
    [
        (["connection.connect_tcp.started"], "CONNECT_TIMEOUT", False),
        (["connection.connect_tcp.complete", "connection.start_tls.started"], "CONNECT_TIMEOUT", False),
        (["connection.connect_tcp.complete", "http11.send_request_headers.started"], "DEADLINE_EXCEEDED", True),
        ([], "DEADLINE_EXCEEDED", True),
    ],
)
async def test_a_deadline_before_the_first_byte_is_definite_and_after_it_is_not(
    events: list[str], code: str, may_have_happened: bool
) -> None:
    caller = HttpCaller(CLOCK, lambda: Stalled(*events))
    outcome = await caller.exchange("PUT", "https://x.test/", headers={}, deadline_ms=CLOCK.now_ms() + 200)
    await caller.aclose()
    assert isinstance(outcome, Failure)
    assert (outcome.code, outcome.may_have_happened) == (code, may_have_happened)


def test_a_caller_that_outlives_its_event_loop_begins_a_new_pool() -> None:
    pools: list[httpx.MockTransport] = []

    def transport() -> httpx.MockTransport:
        pools.append(httpx.MockTransport(lambda _: httpx.Response(204)))
        return pools[-1]

    caller = HttpCaller(CLOCK, transport)

    async def twice() -> list[Answer | Failure]:
        deadline = CLOCK.now_ms() + 30_000
        return [await caller.exchange("GET", "https://x.test/", headers={}, deadline_ms=deadline) for _ in range(2)]

    for _ in range(2):
        assert [answer.status for answer in asyncio.run(twice()) if answer.status] == [204, 204]
    assert len(pools) == 2


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error": {"code": "RATE_LIMITED"}}', "RATE_LIMITED"),
        (b'{"error": "too_many_requests"}', "too_many_requests"),
        (b'{"errors": [{"code": "X_1"}]}', "X_1"),
        (b'{"code": "X"}', "X"),
        (b'{"error": {"code": 17}, "code": "X"}', "X"),
        (b'{"error": {"code": "a customer wrote this"}}', ""),
        (b'{"errors": []}', ""),
        (b'["code"]', ""),
        (b"<html>", ""),
        (b"[" * 200_000, ""),
        (None, ""),
    ],
)
def test_a_bodys_code_is_taken_from_the_usual_places_and_is_never_prose(body: bytes | None, code: str) -> None:
    assert Answer(400, {}, body).body_code() == code


@given(
    status=st.integers(100, 599),
    headers=st.dictionaries(
        st.sampled_from(["retry-after", "x-ratelimit-reset", "content-type"]), st.text(max_size=40)
    ),
    body=st.binary(max_size=200) | st.none(),
)
def test_whatever_is_answered_is_a_success_or_a_failure_with_a_bounded_wait(
    status: int, headers: dict[str, str], body: bytes | None
) -> None:
    failure = Answer(status, headers, body).failure(NOW)
    if failure is None:
        assert 200 <= status <= 299
        return
    assert failure.retry_after_ms is None or 1_000 <= failure.retry_after_ms <= 6 * 3600 * 1000
    assert (failure.failure_class is FailureClass.AUTH_ERROR) is (status in (401, 403)) or failure.code == "HTTP_429"


@given(segment=st.text(max_size=40))
def test_no_segment_leaves_its_place(segment: str) -> None:
    url = url_below("https://api.example.com/v1", "tickets", segment)
    if url is None:
        return
    read = httpx.URL(url)
    assert (read.scheme, read.host, read.query, read.fragment) == ("https", "api.example.com", b"", "")
    assert read.raw_path.count(b"/") == 3
    assert read.raw_path.startswith(b"/v1/tickets/")


@pytest.mark.parametrize(
    ("url", "is_usable"),
    [
        ("https://api.richpanel.com/v1", True),
        ("https://api.richpanel.com:8443", True),
        ("http://127.0.0.1:8080/richpanel/v1", True),
        ("http://localhost:1", True),
        ("http://[::1]:1", True),
        ("http://api.richpanel.com/v1", False),
        ("http://127.0.0.1.evil.example", False),
        ("https://key@api.richpanel.com", False),
        ("https://api.richpanel.com?x=1", False),
        ("https://api.richpanel.com#x", False),
        ("https://[::1", False),
        ("https://", False),
        ("file:///etc/passwd", False),
        ("", False),
    ],
)
def test_a_base_url_is_https_or_on_the_loopback_and_holds_nothing_else(url: str, is_usable: bool) -> None:
    assert is_base_url(url) is is_usable


@pytest.mark.parametrize("text", ["", " a", "a ", "a\nb", "a\x00", "ü", "a" * 5000])
def test_what_is_not_visible_ascii_is_no_header(text: str) -> None:
    assert not is_header_value(text)
    assert is_header_value("Bearer abc.DEF-123")
