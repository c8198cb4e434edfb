"""What the HTTP API hands over, read without trusting any of it (payload format 2.0)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote

from functions.core.event import MAX_BODY_BYTES
from functions.core.failure import HoldfastError

MAX_HEADERS = 100
MAX_HEADER_BYTES = 16 * 1024  # names, values and the address together; the gateway itself stops at 10 KB
REQUEST_ID = re.compile(r"[A-Za-z0-9_=-]{1,64}\Z")


class Route(StrEnum):
    """What is asked of us, by the gateway's own key for it."""

    EVENT = "POST /webhooks/{source}"
    CHALLENGE = "GET /webhooks/{source}"
    TEST = "POST /webhooks/{source}/test"
    PROGRESS = "GET /webhooks/{source}/events/{event_id}"
    NONE = ""


_ROUTES = {route.value: route for route in Route}


class TooLarge(HoldfastError):
    """The body is over our limit."""


class HeadersTooLarge(HoldfastError):
    """There are too many headers, or too much in them and the address."""


class BadEncoding(HoldfastError):
    """The gateway's base64 cannot be decoded."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request: header names in lower case, `host_url` without the query. `event_id` of a question about one."""

    route: Route
    source_id: str
    request_id: str
    method: str
    host_url: str
    query: str
    headers: Mapping[str, str]
    raw_body: str
    is_base64: bool
    event_id: str = ""

    def body(self) -> bytes:
        """The bytes that were sent. Raises `TooLarge`, `BadEncoding`."""
        if not self.is_base64:
            body = self.raw_body.encode("utf-8", "surrogatepass")
        else:
            if len(self.raw_body) > (MAX_BODY_BYTES + 2) // 3 * 4:
                raise TooLarge("the body is too large")
            try:
                body = base64.b64decode(self.raw_body, validate=True)
            except (binascii.Error, ValueError) as exc:
                raise BadEncoding("the body is not base64") from exc
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge("the body is too large")
        return body

    def check_headers(self) -> None:
        """Raises `HeadersTooLarge`."""
        size = len(self.host_url) + len(self.query)
        size += sum(len(name) + len(value) for name, value in self.headers.items())
        if len(self.headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
            raise HeadersTooLarge("the headers are too large")


def request_of(event: object, new_id: str) -> HttpRequest:
    """Read any event; what is missing or of another type is empty. `new_id` serves where the gateway gives no id."""
    context = _map(event, "requestContext")
    http = _map(context, "http")
    headers = {
        name.lower(): value
        for name, value in _map(event, "headers").items()
        if isinstance(name, str) and isinstance(value, str)
    }
    request_id = _text(context, "requestId")
    host = _text(context, "domainName") or headers.get("host", "")
    source_id, method, path = (
        _text(_map(event, "pathParameters"), "source"),
        _text(http, "method"),
        _text(event, "rawPath"),
    )
    route = _ROUTES.get(_text(event, "routeKey"), Route.NONE) or _route_of(method, path, source_id)
    return HttpRequest(
        route=route,
        source_id=source_id,
        request_id=request_id if REQUEST_ID.match(request_id) else new_id,
        method=method,
        host_url=f"{_protocol(headers)}://{host}{path}",
        query=_text(event, "rawQueryString"),
        headers=headers,
        raw_body=_text(event, "body"),
        is_base64=isinstance(event, Mapping) and event.get("isBase64Encoded") is True,
        event_id=_event_id(event, path) if route is Route.PROGRESS else "",
    )


def _event_id(event: object, path: str) -> str:
    """The gateway's reading of it, else the path's: what stands behind `/events/`."""
    stated = _text(_map(event, "pathParameters"), "event_id") or path.partition("/events/")[2]
    return unquote(stated)


def _route_of(method: str, path: str, source_id: str) -> Route:
    """The route where the gateway names none (a catch-all of a function URL). `source_id` is the gateway's reading.

    A path is a test's only by what stands behind the source's own segment: a source may be called `test`.
    """
    segments = [unquote(segment) for segment in path.rstrip("/").split("/")]
    if method == "GET":
        is_question = segments[-4:-1] == ["webhooks", source_id, "events"]
        return Route.PROGRESS if is_question else Route.CHALLENGE
    if method != "POST":
        return Route.NONE
    return Route.TEST if segments[-3:] == ["webhooks", source_id, "test"] else Route.EVENT


def _protocol(headers: Mapping[str, str]) -> str:
    return "http" if headers.get("x-forwarded-proto", "https").strip().lower() == "http" else "https"


def _map(value: object, name: str) -> Mapping[object, object]:
    inner = value.get(name) if isinstance(value, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}


def _text(value: object, name: str) -> str:
    inner = value.get(name) if isinstance(value, Mapping) else None
    return inner if isinstance(inner, str) else ""
