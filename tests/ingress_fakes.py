"""In-memory stand-ins for the ports of ingress. `tests/contract` holds them to the real adapters' promises."""

from __future__ import annotations

import base64
import itertools
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from functions.core.clock import Deadline
from functions.core.event import Event, read_message
from functions.core.failure import StorageUnavailable
from functions.ingress.handler import Handler, build
from functions.ingress.outbox import DurableOutbox, Stored
from functions.ingress.request import Route
from functions.ingress.settings import IngressSettings
from functions.ingress.sources import SourceCache
from functions.signatures.providers import endpoint_of
from tests.documented import check_documented

NOW_MS = 1_760_000_000_000


@dataclass
class SettableClock:
    ms: int = NOW_MS

    def now_ms(self) -> int:
        return self.ms

    def seconds(self) -> float:
        return self.ms / 1000


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
    asked: list[tuple[str, float]] = field(default_factory=list)

    def read(self, source_id: str, timeout_seconds: float) -> str | None:
        self.asked.append((source_id, timeout_seconds))
        if self.is_down:
            raise StorageUnavailable("the fake parameter store is down")
        return self.entries.get(source_id)

    def put(self, source_id: str, **entry: Any) -> None:
        self.entries[source_id] = json.dumps(entry)


@dataclass
class FakeQueue:
    """The events queue. `trouble`: what its next tries run into, the last of it for ever."""

    messages: list[str] = field(default_factory=list)
    trouble: list[StorageUnavailable | None] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)

    def send(self, event: Event, message: str, timeout_seconds: float) -> None:
        self.timeouts.append(timeout_seconds)
        _run_into(self.trouble)
        self.messages.append(message)


@dataclass
class FakeObjects:
    """The bucket, by key."""

    objects: dict[str, bytes] = field(default_factory=dict)
    trouble: list[StorageUnavailable | None] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)

    def put(self, key: str, content: bytes, timeout_seconds: float) -> None:
        self.timeouts.append(timeout_seconds)
        _run_into(self.trouble)
        self.objects[key] = content


def _run_into(trouble: list[StorageUnavailable | None]) -> None:
    if not trouble:
        return
    met = trouble.pop(0) if len(trouble) > 1 else trouble[0]
    if met is not None:
        raise met


@dataclass
class FakeOutbox:
    """A durable outbox over a queue and a bucket that can be told to fail. `is_down`: both do."""

    queue: FakeQueue = field(default_factory=FakeQueue)
    bucket: FakeObjects = field(default_factory=FakeObjects)
    is_down: bool = False

    def __post_init__(self) -> None:
        self._durable = DurableOutbox(self.queue, self.bucket, CountingIds())

    def store(self, event: Event, deadline: Deadline) -> Stored:
        if self.is_down:
            raise StorageUnavailable("the fake queue and bucket are down")
        return self._durable.store(event, deadline)

    @property
    def messages(self) -> list[str]:
        return self.queue.messages

    @property
    def events(self) -> list[Event]:
        """What the queue holds, claim checks redeemed."""
        return [self._whole(message) for message in self.messages]

    def _whole(self, message: str) -> Event:
        read = read_message(message)
        if isinstance(read, Event):
            return read
        return read.redeemed(Event.from_message(self.bucket.objects[read.reference].decode()))


@dataclass
class FakeSeen:
    """What came before, by event id; remembers what it was asked."""

    known: set[str] = field(default_factory=set)
    is_down: bool = False
    asked: list[str] = field(default_factory=list)
    states: dict[tuple[str, str], str] = field(default_factory=dict)

    def is_known(self, event: Event, deadline: Deadline) -> bool:
        self.asked.append(event.event_id)
        if self.is_down:
            raise StorageUnavailable("the fake ledger is down")
        return event.event_id in self.known

    def whereabouts(self, tenant: str, event_id: str, now_ms: int, deadline: Deadline) -> str:
        self.asked.append(event_id)
        if self.is_down:
            raise StorageUnavailable("the fake ledger is down")
        return self.states.get((tenant, event_id), "")


@dataclass
class Gate:
    """Ingress with fakes around it. Whatever it answers is held to the public document."""

    clock: SettableClock = field(default_factory=SettableClock)
    parameters: FakeParameters = field(default_factory=FakeParameters)
    outbox: FakeOutbox = field(default_factory=FakeOutbox)
    seen: FakeSeen = field(default_factory=FakeSeen)
    lines: list[str] = field(default_factory=list)
    handler: Handler = field(init=False)

    def __post_init__(self) -> None:
        self.sources = SourceCache(self.parameters, endpoint_of, self.clock, MiddleRandom())
        settings = IngressSettings("test", "queue", "/holdfast/test/sources", "bucket", "ledger", "recovery")
        handler = build(
            settings,
            self.sources,
            self.outbox,
            self.seen,
            self.clock,
            CountingIds(),
            self.clock.seconds,
            self.lines.append,
        )

        def handle(event: dict[str, object], context: object) -> dict[str, object]:
            answer = handler(event, context)
            check_documented(event, answer)
            return answer

        self.handler = handle

    def send(self, source_id: str, headers: dict[str, str], body: bytes | str, **more: Any) -> dict[str, Any]:
        """Through the handler, as the HTTP API would call it."""
        return self.handler(gateway_event(source_id, headers, body, **more), None)

    def ask(self, source_id: str, query: str = "", headers: dict[str, str] | None = None) -> dict[str, Any]:
        """A GET, as a provider's challenge comes."""
        return self.send(source_id, headers or {}, b"", query=query, route=Route.CHALLENGE)

    def test(self, source_id: str, headers: dict[str, str], body: bytes | str, **more: Any) -> dict[str, Any]:
        """A sender's own trial."""
        return self.send(source_id, headers, body, route=Route.TEST, **more)

    def question(self, source_id: str, event_id: str, headers: dict[str, str], **more: Any) -> dict[str, Any]:
        """A sender's question how far an event has come."""
        event = gateway_event(source_id, headers, b"", route=Route.PROGRESS, **more)
        event["rawPath"] = f"/webhooks/{source_id}/events/{quote(event_id)}"
        event["pathParameters"] = {"source": source_id, "event_id": event_id}
        return self.handler(event, None)

    @property
    def last_line(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self.lines[-1])
        return line


def gateway_event(
    source_id: str,
    headers: dict[str, str],
    body: bytes | str,
    *,
    query: str = "",
    request_id: str = "gateway-1=",
    route: Route = Route.EVENT,
) -> dict[str, Any]:
    """Payload format 2.0, with the body in base64 where it is bytes."""
    method, _, path = route.value.partition(" ")
    path = path.replace("{source}", source_id)
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route.value,
        "rawPath": path,
        "rawQueryString": query,
        "headers": {name.lower(): value for name, value in headers.items()},
        "requestContext": {
            "requestId": request_id,
            "domainName": "hooks.example.com",
            "routeKey": route.value,
            "stage": "$default",
            "http": {"method": method, "path": path},
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
