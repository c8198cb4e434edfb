"""Webhooks on their way to a stage: signed as the source's provider signs them, or forged; and what came back.

For the command line, the demo and the end-to-end tests. Whoever sends knows what ought to come of it, so a balance
can be drawn up without asking the receiver.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import httpx
from botocore.exceptions import ClientError

from ops.local.parameters import new_secret, webhook_url
from ops.senders import SampleEvent, sign, ticket_event
from ops.stack import Stack

STALE_SECONDS = 3600
LONGEST_WAIT_SECONDS = 3.0  # providers wait minutes; nobody who watches does
_TIMED = frozenset({"standard-webhooks", "svix", "stripe", "slack"})
"""Providers that sign a time, so that an old request can be told from a new one."""


class UnknownSource(Exception):
    """The stage has no source of that name, or its entry cannot be read."""


class Honesty(StrEnum):
    """What is wrong with a delivery, if anything."""

    HONEST = "honest"
    WRONG_SECRET = "wrong_secret"  # noqa: S105  # a kind of forgery
    TAMPERED = "tampered"
    UNSIGNED = "unsigned"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request of a provider. `sample` says what a reader of our own payloads ought to find in them."""

    source: str
    provider: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    message_id: str
    sample: SampleEvent | None = None
    honesty: Honesty = Honesty.HONEST
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the stage answered. `status` is 0 when there was no answer at all, and `trouble` says why."""

    delivery: Delivery
    status: int
    seconds: float
    document: Mapping[str, Any] = field(default_factory=dict)
    trouble: str = ""
    retry_after_seconds: float = 1.0
    tries: int = 1
    request_id: str = ""

    @property
    def is_to_be_sent_again(self) -> bool:
        """Whether a provider would deliver it again: no answer, too fast, or our trouble."""
        return self.status in (0, 429) or self.status >= 500

    @property
    def event_id(self) -> str:
        """The id of the accepted event, or empty."""
        return str(self.document.get("event_id", ""))

    @property
    def is_as_expected(self) -> bool:
        """Honest ones are accepted, all others refused as unauthorized."""
        return self.status == 401 if self.delivery.honesty is not Honesty.HONEST else 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class _Known:
    provider: str
    secret: str
    url: str


class Sender:
    """Signs as a stage's sources expect. Reads each source's secret once, with the caller's credentials."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._sources: dict[str, _Known] = {}

    def forget(self, source: str) -> None:
        """Read the source's entry anew next time: its secret was rotated."""
        self._sources.pop(source, None)

    def provider(self, source: str) -> str:
        """The provider of a source. Raises `UnknownSource`."""
        return self._known(source).provider

    def message(
        self, source: str, *, ticket: str, text: str, author: str, message_id: str, now: int | None = None
    ) -> Delivery:
        """A customer's message, as the source's provider tells of it. Raises `UnknownSource` or the signer's errors."""
        known, moment = self._known(source), int(time.time()) if now is None else now
        sample = ticket_event(known.provider, ticket, text, author, message_id, now=moment)
        delivery = self.raw(source, sample.body, message_id=message_id, event_name=sample.event_name, now=moment)
        return replace(delivery, sample=sample)

    def raw(
        self, source: str, body: bytes, *, message_id: str, event_name: str = "", now: int | None = None
    ) -> Delivery:
        """Any body, signed as the source's provider signs. Raises `UnknownSource`, or the sender's errors."""
        known, moment = self._known(source), int(time.time()) if now is None else now
        signed = sign(
            known.provider, known.secret, body, url=known.url, now=moment, message_id=message_id, event_name=event_name
        )
        url = webhook_url(self._stack, source)
        return Delivery(source, known.provider, url, signed.headers, signed.body, message_id)

    def forged(self, honest: Delivery, chance: random.Random) -> Delivery:
        """The same delivery as somebody without the secret would send it, in one of the ways that are open to them."""
        known = self._known(honest.source)
        name = honest.sample.event_name if honest.sample else ""

        def signed_anew(secret: str, now: int) -> Mapping[str, str]:
            return sign(
                known.provider,
                secret,
                honest.body,
                url=known.url,
                now=now,
                message_id=honest.message_id,
                event_name=name,
            ).headers

        now = int(time.time())
        is_keyed = known.provider not in ("richpanel", "generic-apikey", "generic-basic")  # a body is signed at all
        ways = [Honesty.WRONG_SECRET, Honesty.UNSIGNED]
        ways += [Honesty.TAMPERED] if is_keyed else []
        ways += [Honesty.STALE] if known.provider in _TIMED else []
        match chance.choice(ways):
            case Honesty.WRONG_SECRET:
                headers, body, way = signed_anew(new_secret(known.provider), now), honest.body, Honesty.WRONG_SECRET
            case Honesty.TAMPERED:
                headers, body, way = honest.headers, _tampered(honest.body), Honesty.TAMPERED
            case Honesty.STALE:
                headers, body, way = signed_anew(known.secret, now - STALE_SECONDS), honest.body, Honesty.STALE
            case _:
                kept = {"content-type", "user-agent"}
                headers = {header: value for header, value in honest.headers.items() if header in kept}
                body, way = honest.body, Honesty.UNSIGNED
        return replace(honest, headers=headers, body=body, honesty=way)

    def _known(self, source: str) -> _Known:
        if source not in self._sources:
            self._sources[source] = self._look_up(source)
        return self._sources[source]

    def _look_up(self, source: str) -> _Known:
        name = f"{self._stack.output('SourcesPath')}/{source}"
        try:
            value = self._stack.client("ssm").get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]
        except ClientError as exc:
            if exc.response.get("Error", {}).get("Code") in ("ParameterNotFound", "ValidationException"):
                raise UnknownSource(f"stage {self._stack.stage} has no source {source!r} ({name})") from exc
            raise
        try:
            entry = json.loads(value)
            url = entry.get("public_url") or webhook_url(self._stack, source)
            return _Known(str(entry["provider"]), str(entry["secrets"][0]["secret"]), str(url))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as exc:
            raise UnknownSource(f"the entry of source {source!r} ({name}) cannot be read") from exc


def _tampered(body: bytes) -> bytes:
    """The same body with one byte of it changed, still readable."""
    at = len(body) // 2
    while not chr(body[at]).isalnum():
        at -= 1
    return body[:at] + (b"x" if body[at : at + 1] != b"x" else b"y") + body[at + 1 :]


def post(client: httpx.Client, delivery: Delivery) -> Answer:
    """Send one. Never raises for what the network or the stage does."""
    began = time.monotonic()
    try:
        response = client.post(delivery.url, content=delivery.body, headers=dict(delivery.headers))
    except httpx.HTTPError as exc:
        return Answer(delivery, 0, time.monotonic() - began, trouble=f"{type(exc).__name__}: {exc}")
    seconds = time.monotonic() - began
    try:
        document = response.json()
    except ValueError:
        document = {}
    stated = response.headers.get("retry-after", "")
    return Answer(
        delivery,
        response.status_code,
        seconds,
        document if isinstance(document, dict) else {},
        retry_after_seconds=float(stated) if stated.isdecimal() else 1.0,
        request_id=response.headers.get("x-request-id", ""),
    )


def post_all(
    deliveries: Iterable[Delivery],
    *,
    concurrency: int = 8,
    tries: int = 1,
    on_answer: Callable[[Answer], None] | None = None,
) -> list[Answer]:
    """Send all, several at a time; the last answer to each, in the order of the deliveries.

    With more than one of `tries`, what could not be accepted is delivered again, as providers do. `on_answer` hears of
    each answer as it comes.
    """
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    with httpx.Client(timeout=30, limits=limits) as client, ThreadPoolExecutor(max_workers=concurrency) as pool:

        def one(delivery: Delivery) -> Answer:
            for made in range(1, tries + 1):
                answer = replace(post(client, delivery), tries=made)
                if on_answer is not None:
                    on_answer(answer)
                if not answer.is_to_be_sent_again or made == tries:
                    break
                time.sleep(min(answer.retry_after_seconds, LONGEST_WAIT_SECONDS))
            return answer

        return list(pool.map(one, deliveries))
