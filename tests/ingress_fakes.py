"""In-memory stand-ins for the ports of ingress. `tests/contract` holds them to the real adapters' promises."""

from __future__ import annotations

import base64
import itertools
import json
from dataclasses import dataclass, field
from typing import Any

from functions.core.event import Event
from functions.core.failure import StorageUnavailable
from functions.ingress.handler import Handler, build
from functions.ingress.settings import IngressSettings
from functions.ingress.sources import SourceCache
from functions.signatures.providers import endpoint_of

NOW_MS = 1_760_000_000_000


@dataclass
class SettableClock:
    ms: int = NOW_MS

    def now_ms(self) -> int:
        return self.ms


@dataclass
class MiddleRandom:
    """Always the middle, so that a jittered time is the nominal one."""

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2


@dataclass
class CountingIds:
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def new_id(self) -> str:
        return f"{next(self.numbers):016x}" * 2


@dataclass
class FakeParameters:
    """A parameter store that can be told to fail; remembers what it was asked."""

    entries: dict[str, str] = field(default_factory=dict)
    is_down: bool = False
    asked: list[tuple[str, bool]] = field(default_factory=list)

    def read(self, source_id: str, *, briefly: bool) -> str | None:
        self.asked.append((source_id, briefly))
        if self.is_down:
            raise StorageUnavailable("the fake parameter store is down")
        return self.entries.get(source_id)

    def put(self, source_id: str, **entry: Any) -> None:
        self.entries[source_id] = json.dumps(entry)


@dataclass
class FakeOutbox:
    """A queue that can be told to fail."""

    messages: list[str] = field(default_factory=list)
    is_down: bool = False

    def store(self, event: Event, message: str) -> None:
        if self.is_down:
            raise StorageUnavailable("the fake queue is down")
        self.messages.append(message)

    @property
    def events(self) -> list[Event]:
        return [Event.from_message(message) for message in self.messages]


@dataclass
class Gate:
    """Ingress with fakes around it."""

    clock: SettableClock = field(default_factory=SettableClock)
    parameters: FakeParameters = field(default_factory=FakeParameters)
    outbox: FakeOutbox = field(default_factory=FakeOutbox)
    lines: list[str] = field(default_factory=list)
    handler: Handler = field(init=False)

    def __post_init__(self) -> None:
        self.sources = SourceCache(self.parameters, endpoint_of, self.clock, MiddleRandom())
        settings = IngressSettings("test", "queue", "/holdfast/test/sources", "bucket")
        self.handler = build(settings, self.sources, self.outbox, self.clock, CountingIds(), self.lines.append)

    def send(self, source_id: str, headers: dict[str, str], body: bytes | str, **more: Any) -> dict[str, Any]:
        """Through the handler, as the HTTP API would call it."""
        return self.handler(gateway_event(source_id, headers, body, **more), None)

    @property
    def last_line(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self.lines[-1])
        return line


def gateway_event(
    source_id: str, headers: dict[str, str], body: bytes | str, *, query: str = "", request_id: str = "gateway-1="
) -> dict[str, Any]:
    """Payload format 2.0, with the body in base64 where it is bytes."""
    event: dict[str, Any] = {
        "version": "2.0",
        "rawPath": f"/webhooks/{source_id}",
        "rawQueryString": query,
        "headers": {name.lower(): value for name, value in headers.items()},
        "requestContext": {
            "requestId": request_id,
            "domainName": "hooks.example.com",
            "http": {"method": "POST", "path": f"/webhooks/{source_id}"},
        },
        "pathParameters": {"source": source_id},
        "isBase64Encoded": isinstance(body, bytes),
    }
    if body:
        event["body"] = base64.b64encode(body).decode() if isinstance(body, bytes) else body
    return event


def problem_of(answer: dict[str, Any]) -> dict[str, Any]:
    """The problem document of an answer."""
    assert answer["headers"]["content-type"] == "application/problem+json"
    document: dict[str, Any] = json.loads(answer["body"])
    return document
