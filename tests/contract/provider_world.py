"""The two worlds in which the provider adapters pass the same tests: httpx's mock transport in front of the simulated
providers, and the simulator behind real sockets. What the first one stands in for is only the wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl

import httpx

from functions.adapters.http import HttpCaller
from functions.core.clock import Clock, SystemClock
from functions.core.failure import StorageUnavailable
from functions.core.ports import Call
from ops.simulator import Effect, Fault, FaultMode, RequestRecord, RunningSimulator
from ops.simulator.http import Reply, Request
from ops.simulator.server import World, fault_reply

KEY = "key-1"
CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class SecretDouble:
    """An integration's parameter."""

    base_url: str
    credential: str = KEY
    extra: Mapping[str, Any] = field(default_factory=lambda: {"own_identities": ["api"], "model": "small-1"})
    version: str = "1"


class SecretsDouble:
    """A parameter store whose cache is out of date until it is refreshed."""

    def __init__(self, cached: SecretDouble, stored: SecretDouble | None = None) -> None:
        self.cached = cached
        self.stored = stored or cached
        self.error: StorageUnavailable | None = None
        self.refreshed = 0

    def get(self, integration: str) -> SecretDouble:
        if self.error is not None:
            raise self.error
        return self.cached

    def refresh(self, integration: str) -> SecretDouble:
        if self.error is not None:
            raise self.error
        self.refreshed += 1
        self.cached = self.stored
        return self.cached


class ProviderWorld(Protocol):
    """What a test may do to the providers, and see of them."""

    helpdesk_url: str
    llm_url: str
    payments_url: str
    ocr_url: str
    sms_url: str
    email_url: str

    def caller(self) -> HttpCaller: ...
    def add_faults(self, *faults: Fault) -> None: ...
    def effects(self) -> list[Effect]: ...
    def request_count(self) -> int: ...
    def fired(self) -> int: ...
    def ticket(self, ticket_id: str) -> dict[str, Any]: ...
    def person_changes(self, ticket_id: str, change: dict[str, Any]) -> None: ...
    def accept_keys(self, keys: list[str]) -> None: ...
    def subscription(self, subscription_id: str) -> dict[str, Any]: ...
    def person_subscribes(self, subscription_id: str, change: dict[str, Any]) -> None: ...
    def prune_keys(self) -> int: ...
    def texts(self, number: str) -> list[dict[str, Any]]: ...
    def change_texts(self, number: str, change: dict[str, Any]) -> None: ...


class OverSockets:
    """The simulator, as it runs on the local stack."""

    def __init__(self, simulator: RunningSimulator) -> None:
        self._control = simulator.control
        self.helpdesk_url = simulator.helpdesk_url
        self.llm_url = simulator.llm_url
        self.payments_url = simulator.payments_url
        self.ocr_url = simulator.ocr_url
        self.sms_url = simulator.sms_url
        self.email_url = simulator.email_url
        self._control.reset()

    def caller(self) -> HttpCaller:
        return HttpCaller(CLOCK)

    def add_faults(self, *faults: Fault) -> None:
        self._control.add_faults(*faults)

    def effects(self) -> list[Effect]:
        return self._control.effects()

    def fired(self) -> int:
        return sum(int(fault["fired"]) for fault in self._control.faults())

    def request_count(self) -> int:
        return sum(self._control.request_counts().values())

    def ticket(self, ticket_id: str) -> dict[str, Any]:
        return self._control.ticket(ticket_id)

    def person_changes(self, ticket_id: str, change: dict[str, Any]) -> None:
        self._control.person_changes(ticket_id, change)

    def accept_keys(self, keys: list[str]) -> None:
        self._control.accept_keys(helpdesk=keys, llm=keys, payments=keys, ocr=keys, sms=keys, email=keys)

    def subscription(self, subscription_id: str) -> dict[str, Any]:
        return self._control.subscription(subscription_id)

    def person_subscribes(self, subscription_id: str, change: dict[str, Any]) -> None:
        self._control.person_subscribes(subscription_id, change)

    def prune_keys(self) -> int:
        return self._control.prune_keys()

    def texts(self, number: str) -> list[dict[str, Any]]:
        return self._control.texts(number)

    def change_texts(self, number: str, change: dict[str, Any]) -> None:
        self._control.change_texts(number, change)


class _Broken(httpx.AsyncByteStream):
    """A body of which half arrives."""

    def __init__(self, body: bytes, error: httpx.HTTPError) -> None:
        self._body, self._error = body, error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body[: len(self._body) // 2]
        raise self._error


class OverMock:
    """The same providers without sockets."""

    def __init__(self) -> None:
        self._world = World()
        self.helpdesk_url = "https://helpdesk.test/richpanel/v1"
        self.llm_url = "https://llm.test/v1"
        self.payments_url = "https://payments.test/stripe/v1"
        self.ocr_url = "https://ocr.test/mindee/v2"
        self.sms_url = "https://sms.test/twilio"
        self.email_url = "https://email.test/ses"

    def caller(self, clock: Clock = CLOCK) -> HttpCaller:
        return HttpCaller(clock, lambda: httpx.MockTransport(self._handle))

    def add_faults(self, *faults: Fault) -> None:
        self._world.faults.add(list(faults))

    def effects(self) -> list[Effect]:
        return list(self._world.record.effects)

    def fired(self) -> int:
        return sum(int(fault["fired"]) for fault in self._world.faults.to_json())

    def request_count(self) -> int:
        return self._world.record.request_count

    def ticket(self, ticket_id: str) -> dict[str, Any]:
        return self._world.helpdesk.ticket(ticket_id).to_json()

    def person_changes(self, ticket_id: str, change: dict[str, Any]) -> None:
        self._world.helpdesk.person(ticket_id, change)

    def accept_keys(self, keys: list[str]) -> None:
        self._world.helpdesk.accepted_keys = self._world.llm.accepted_keys = frozenset(keys)
        self._world.payments.accepted_keys = self._world.ocr.accepted_keys = frozenset(keys)
        self._world.sms.accepted_keys = self._world.email.accepted_keys = frozenset(keys)

    def subscription(self, subscription_id: str) -> dict[str, Any]:
        return self._world.payments.subscription(subscription_id).to_json()

    def person_subscribes(self, subscription_id: str, change: dict[str, Any]) -> None:
        self._world.payments.person(subscription_id, change)

    def prune_keys(self) -> int:
        return self._world.payments.prune(0)

    def calls(self) -> list[RequestRecord]:
        return list(self._world.record.requests)

    def mark_subscription(self, subscription_id: str, metadata: dict[str, str]) -> None:
        self._world.payments.subscription(subscription_id).metadata.update(metadata)

    def use_key(self, key: str) -> None:
        """As a call with other parameters would have."""
        headers = {"authorization": f"Bearer {KEY}", "stripe-version": "any", "idempotency-key": key}
        request = Request("POST", "/stripe/v1/refunds", {}, headers, b"payment_intent=pi_missing")
        call, _, _ = self._world.understand(request)
        call.perform()

    def texts(self, number: str) -> list[dict[str, Any]]:
        return [dict(message) for message in self._world.sms.messages(number)]

    def change_texts(self, number: str, change: dict[str, Any]) -> None:
        self._world.sms.change(number, change)

    async def _handle(self, outgoing: httpx.Request) -> httpx.Response:
        path, _, query = outgoing.url.raw_path.decode().partition("?")
        request = Request(outgoing.method, path, dict(parse_qsl(query)), dict(outgoing.headers), outgoing.content)
        call, fault, record = self._world.understand(request)
        record.request(
            request, provider=call.provider, operation=call.operation, target=call.target, status=0, fault=""
        )
        match fault.mode if fault else None:
            case FaultMode.STATUS if fault:
                call.abandon()
                return _response(fault_reply(fault))
            case FaultMode.STORE_STATUS if fault:
                stored = fault_reply(fault)
                (call.settle_as or (lambda _: call.abandon()))(stored)
                return _response(stored)
            case FaultMode.RESET:
                call.abandon()
                raise httpx.ReadError("connection reset by peer")
            case FaultMode.HANG:
                call.abandon()
                await asyncio.sleep(60)
            case FaultMode.LATENCY if fault:
                try:
                    await asyncio.sleep(fault.seconds)
                except asyncio.CancelledError:  # who has left does not stop what a provider has begun
                    call.perform()
                    raise
        reply = call.perform()
        if fault is not None and fault.mode is FaultMode.TWICE:
            call.perform()
        match fault.mode if fault else None:
            case FaultMode.STATUS_AFTER_EFFECT if fault:
                return _response(fault_reply(fault))
            case FaultMode.DROP_RESPONSE | FaultMode.TWICE:
                raise httpx.ReadError("connection reset by peer")
            case FaultMode.MALFORMED:
                return _response(Reply(reply.status, b'{"ticket": {"id": '))
            case FaultMode.WRONG_CONTENT_TYPE:
                return _response(Reply(reply.status, b"<!doctype html>", content_type="text/html; charset=utf-8"))
            case FaultMode.TRUNCATE:
                cut = httpx.RemoteProtocolError("peer closed connection without sending complete message body")
                return httpx.Response(reply.status, stream=_Broken(reply.body, cut))
            case FaultMode.SLOW_BODY:
                return httpx.Response(reply.status, stream=_Broken(reply.body, httpx.ReadTimeout("")))
        return _response(reply)


def _response(reply: Reply) -> httpx.Response:
    return httpx.Response(
        reply.status, headers={"content-type": reply.content_type, **reply.headers}, content=reply.body
    )


def about(seconds: float = 30.0) -> Call:
    """A call's circumstances, with this much time left."""
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    return Call("request-1", traceparent, CLOCK.now_ms() + int(seconds * 1000))
