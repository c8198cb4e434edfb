"""Hostile requests for the door: genuine deliveries of every provider, and what can be done to them.

A genuine delivery knows what proves it, as plain texts. So whether a damaged copy may still be taken is judged without
any of the code that verifies: see `Genuine.is_proved_by`.
"""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from functions.ingress.request import Route
from ops import senders
from tests.ingress_fakes import NOW_MS, Gate, gateway_event
from tests.unit.test_senders_signatures import COVERS_NO_BODY, HEX_SECRET, SECRET, SENDERS, adyen, mailgun

HOST = "hooks.example.com"
NOW = NOW_MS // 1000
MARK = "PRIVATE-WORDS-OF-A-BODY"
QUERY_MARK = "PRIVATE-WORDS-OF-A-QUERY"
CHALLENGED = ("c-meta", "c-x", "c-okta")
CHALLENGE_SECRET = "a-secret-for-challenges"
OKTA_CHALLENGE = "Me_rShK8JHsTnbyYrWXCEoMGbM_zsZ6k0hLPZ_Pg"
VERIFY_TOKEN = "a-verify-token-of-ours"
UNSIGNED_BODIES = {"richpanel", "generic-apikey", "generic-basic", *COVERS_NO_BODY}
HANDSHAKES = {
    "zoom": b'{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZ"},"event_ts":1}',
    "discord": b'{"type":1}',
    "discord-events": b'{"type":0}',
    "twitch": b'{"challenge":"pogchamp","subscription":{"status":"webhook_callback_verification_pending"}}',
}
FORMS = {"twilio", "mandrill"}
NOT_OF_THE_PROOF = {
    "content-type",
    "user-agent",
    "box-signature-primary",
    "box-delivery-id",
    "i-twilio-idempotency-token",
}
# What stands beside the digest in a header and may go missing from it: codes that were never ours.
_FILLER = re.compile(r"0{16,}|old|AAAA+=*")
_PROVING = re.compile(r"signature|timestamp|token|authorization|x-api-key|hmac")
_TOKEN = re.compile(r"[A-Za-z0-9+/=_.:-]{8,}")


@dataclass(frozen=True)
class Genuine:
    """A delivery as its sender makes it. `proof`: texts that must stand in the headers of those names."""

    source: str
    provider: str
    headers: dict[str, str]
    body: bytes
    secret: str
    proof: dict[str, tuple[str, ...]]
    is_bound_to_url: bool
    is_bound_to_moment: bool
    signed_part: Callable[[bytes], object] | None = None

    @property
    def url(self) -> str:
        return f"https://{HOST}/webhooks/{self.source}"

    def event(self, route: Route = Route.EVENT) -> dict[str, Any]:
        return gateway_event(self.source, dict(self.headers), self.body, route=route)

    def is_proved_by(self, event: dict[str, Any], body: bytes, shift_ms: int) -> bool:
        """Whether a request that was taken bears this delivery's proof: its codes, its body, its address, in time."""
        headers = {name.lower(): value for name, value in _headers(event).items() if isinstance(value, str)}
        for name, texts in self.proof.items():
            given = headers.get(name, "").lower() if self.provider == "generic-hmac" else headers.get(name, "")
            if not all(text in given for text in texts):
                return False
        if self.is_bound_to_moment and abs(shift_ms) > 300_000:
            return False
        if self.is_bound_to_url and self._address(event, headers) not in (
            self.url,
            self.url.replace(HOST, HOST + ":443"),
        ):
            return False
        return self._is_same(body)

    def _is_same(self, body: bytes) -> bool:
        if self.provider in UNSIGNED_BODIES:
            return True
        if self.provider in FORMS:  # a form can be written in several ways
            return set(_pairs(body)) == set(_pairs(self.body))
        if self.signed_part:
            try:
                return self.signed_part(body) == self.signed_part(self.body)
            except (ValueError, LookupError, TypeError, AttributeError):  # no document of that kind
                return False
        return body == self.body

    @staticmethod
    def _address(event: dict[str, Any], headers: dict[str, str]) -> str:
        scheme = "http" if headers.get("x-forwarded-proto", "").strip().lower() == "http" else "https"
        context = event.get("requestContext")
        host = context.get("domainName") if isinstance(context, dict) else None
        query = event.get("rawQueryString")
        address = (
            f"{scheme}://{host if isinstance(host, str) and host else headers.get('host', '')}{event.get('rawPath')}"
        )
        return address + (f"?{query}" if isinstance(query, str) and query else "")


def _pairs(body: bytes) -> list[tuple[str, str]]:
    return parse_qsl(body.decode("latin-1"), keep_blank_values=True, encoding="latin-1")


def _signed_by_mailgun(body: bytes) -> object:
    signature = json.loads(body)["signature"]
    return str(signature["timestamp"]) + str(signature["token"]), signature["signature"].lower()


def _signed_by_adyen(body: bytes) -> object:
    (item,) = (each["NotificationRequestItem"] for each in json.loads(body)["notificationItems"])
    names = ("pspReference", "originalReference", "merchantAccountCode", "merchantReference", "eventCode", "success")
    return [item[name] for name in names], item["amount"], item["additionalData"]["hmacSignature"]


def _marked(body: str) -> str:
    """With words in it that must not get into the log."""
    return body.replace("{", f'{{"zz":"{MARK}",', 1) if body.startswith(("{", "[")) else f"{body}&zz={MARK}"


def _proof(headers: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """What of the headers is a code or a moment, without the version in front of it."""
    found = {}
    for name, value in headers.items():
        if name not in NOT_OF_THE_PROOF and _PROVING.search(name):
            texts = (text for text in _TOKEN.findall(value) if not _FILLER.fullmatch(text.partition("=")[2] or text))
            found[name] = tuple(text[3:] if text[:3] in ("v0=", "v1=") else text for text in texts)
    return found


class Door:
    """Ingress with a source for every provider whose deliveries can be made here, all of them read already."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.deliveries = [*self._by_recipe(), *self._by_sdk(), *self._signed_inside()]
        self.by_source: dict[str, list[Genuine]] = {}
        for genuine in self.deliveries:
            self.by_source.setdefault(genuine.source, []).append(genuine)
        for source in CHALLENGED:
            more = {"verify_token": VERIFY_TOKEN} if source == "c-meta" else {}
            self._put(source, source.removeprefix("c-"), CHALLENGE_SECRET, **more)
        for number, source in enumerate([*self.by_source, *CHALLENGED]):
            self.gate.clock.ms = NOW_MS - 60_000 + 200 * number  # no faster than first reads are granted
            self.gate.ask(source)
        self.gate.clock.ms = NOW_MS

    def _by_recipe(self) -> Iterator[Genuine]:
        for number, (which, sender) in enumerate(SENDERS.items()):
            source = f"s{number}-{re.sub('[^a-z0-9]', '-', which)}"
            more: dict[str, Any] = {"scheme": sender.options} if sender.options else {}
            self._put(source, sender.provider, sender.secret, **more)
            for body in filter(None, (_marked(sender.body).encode(), HANDSHAKES.get(which, b""))):
                signed = sender.sign(body, f"https://{HOST}/webhooks/{source}")
                headers = {"content-type": "application/json"} | signed
                bound, timed = sender.is_bound_to_url, sender.stale_after_ms > 0
                yield Genuine(source, sender.provider, headers, body, sender.secret, _proof(headers), bound, timed)

    def _by_sdk(self) -> Iterator[Genuine]:
        for provider in senders.PROVIDERS:
            source, secret = f"v-{provider}", senders.make_secret(provider, "door")
            body = senders.ticket_event(provider, "t-1", MARK, "author", "m-1", now=NOW).body
            url = f"https://{HOST}/webhooks/{source}"
            headers = senders.sign(provider, secret, body, url=url, now=NOW, message_id="m-1").headers
            self.gate.parameters.put(source, **senders.source_entry(provider, [secret], tenant="acme"))
            bound, timed = provider == "twilio", provider in ("standard-webhooks", "svix", "stripe", "slack")
            yield Genuine(source, provider, headers, body, secret, _proof(headers), bound, timed)

    def _signed_inside(self) -> Iterator[Genuine]:
        headers = {"content-type": "application/json"}
        for provider, secret, document, part in (
            ("mailgun", SECRET, mailgun(), _signed_by_mailgun),
            ("adyen", HEX_SECRET, adyen(), _signed_by_adyen),
        ):
            source, body = f"in-{provider}", _marked(json.dumps(document)).encode()
            self._put(source, provider, secret)
            yield Genuine(source, provider, headers, body, secret, {}, False, provider == "mailgun", part)

    def _put(self, source: str, provider: str, secret: str, **more: Any) -> None:
        secrets = [{"secret": secret}]
        self.gate.parameters.put(source, tenant="acme", flow="f", provider=provider, secrets=secrets, **more)


# ------------------------------------------------------------------------------------------------------------ damage

Damage = Callable[[dict[str, Any], random.Random, list[Genuine]], None]
TEXTS = [
    "",
    " ",
    "\x00",
    "\ud800",
    "é",
    "\u2028",
    "a" * 9000,
    "0",
    "-1",
    "9" * 400,
    "NaN",
    "true",
    "null",
    "{}",
    "[]",
    '"',
    "\r\nx: y",
    "../..",
    "%00",
    "%ff",
    "sha256=",
    "v1=",
    "v1,",
    "t=1,v1=0",
    f"t={NOW},v1=" + "0" * 64,
    "Basic Og==",
    "Bearer x",
    "=,=,=",
    ",,,",
    "٣",
    str(NOW),
    str(NOW_MS),
    "application/json",
    "application/x-www-form-urlencoded; charset=\ud800",
    "multipart/form-data",
]
VALUES: list[Any] = [None, 0, -1, 1.5, True, False, [], ["x"], {}, {"a": {"b": None}}, float("nan"), *TEXTS]
BODIES: list[bytes] = [
    b"",
    b"{",
    b"null",
    b"[" * 5000,
    b'{"a":' * 300 + b"1" + b"}" * 300,
    b'{"n":' + b"9" * 6000 + b"}",
    b"\xff\xfe",
    b"\x00" * 50,
    b"a=b&c",
    b"a=" + b"%" * 500,
    b"&" * 3000,
    b'{"type":"url_verification","challenge":"x"}',
    b'{"type":1}',
    b'{"id":"\\ud800"}',
    b"\xef\xbb\xbf{}",
    b'{"notificationItems":[{},{}]}',
    b'{"signature":{"timestamp":1,"token":[],"signature":{}}}',
    b"true",
    b"123",
]
QUERIES = [
    "",
    "a=1",
    "bodySHA256=0",
    "bodySHA256=%ff&bodySHA256=1",
    "&" * 300,
    "%",
    "a" * 9000,
    f"q={QUERY_MARK}",
    f"hub.mode=subscribe&hub.challenge=7&hub.verify_token={VERIFY_TOKEN}",
    "hub.mode=subscribe&hub.challenge=7&hub.verify_token=x",
    f"hub.mode=subscribe&hub.challenge=7&hub.verify_token={VERIFY_TOKEN}&hub.verify_token=x",
    "crc_token=abcDEF012",
    "crc_token={}",
    "crc_token=a&crc_token=b",
    "challenge=x",
    "\ud800=\ud800",
]
PATHS = [
    "",
    "/",
    "/webhooks/test",
    "/webhooks//test",
    "/webhooks/%2e%2e/test",
    "/x" * 3000,
    "\ud800",
    "/webhooks/a/test/test",
]
KEYS = [*(route.value for route in Route), "$default", "ANY /webhooks/{source}", "POST /webhooks/{source}/"]
METHODS = ["GET", "POST", "HEAD", "PUT", "OPTIONS", "get", "", "\x00", "TRACE"]


def _headers(event: dict[str, Any]) -> dict[str, Any]:
    headers = event.get("headers")
    return headers if isinstance(headers, dict) else {}


def _context(event: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    context = event.get("requestContext")
    if not isinstance(context, dict):
        context = event["requestContext"] = {}
    if not isinstance(context.get("http"), dict) and rng.random() < 0.5:
        context["http"] = {}
    return context


def _scarred(text: str, rng: random.Random) -> str:
    """The text with one wound."""
    at = rng.randrange(len(text)) if text else 0
    wound = rng.randrange(8)
    if wound == 0:
        return text[:at]
    if wound == 1:
        return text[at:]
    if wound == 2:
        return text[:at] + rng.choice(TEXTS)[:50] + text[at:]
    if wound == 3:
        return text.swapcase()
    if wound == 4:
        return f" {text}\t"
    if wound == 5:
        return f"{text},{text}"
    if wound == 6:
        return text[:at] + chr(ord(text[at]) ^ 1 << rng.randrange(7)) + text[at + 1 :] if text else text
    return text + rng.choice([",v1=" + "0" * 64, " ", "=", "A", "\x00", ";h1=0", " v1,AAAA"])


def a_header(event: dict[str, Any], rng: random.Random, others: list[Genuine]) -> None:
    headers = _headers(event)
    name = rng.choice(sorted(headers, key=str)) if headers else "x"
    value = headers.get(name)
    headers[name] = _scarred(value, rng) if isinstance(value, str) and rng.random() < 0.7 else rng.choice(VALUES)


def no_header(event: dict[str, Any], rng: random.Random, others: list[Genuine]) -> None:
    headers = _headers(event)
    if headers:
        del headers[rng.choice(sorted(headers, key=str))]


def more_headers(event: dict[str, Any], rng: random.Random, others: list[Genuine]) -> None:
    headers = _headers(event)
    if rng.random() < 0.1:
        headers |= {f"x-{number}": "" for number in range(120)}
    other = rng.choice(others)
    headers |= {name: value for name, value in other.headers.items() if name not in headers or rng.random() < 0.2}
    headers[rng.choice(["x-forwarded-proto", "host", "traceparent", "\ud800", "", "Content-Type"])] = rng.choice(TEXTS)


def content_type(event: dict[str, Any], rng: random.Random, others: list[Genuine]) -> None:
    _headers(event)["content-type"] = rng.choice(TEXTS)


def the_body(event: dict[str, Any], rng: random.Random, others: list[Genuine]) -> None:
    text = event.get("body")
    kind = rng.randrange(6)
    if kind == 0:
        event["body"] = rng.choice(VALUES)
    elif kind == 1:
        event["isBase64Encoded"] = rng.choice([True, False, "true", 1, None])
    elif kind == 2:
        event |= {"body": base64.b64encode(rng.choice(BODIES)).decode(), "isBase64Encoded": True}
    elif kind == 3:
        event |= {"body": rng.choice(BODIES).decode("latin-1"), "isBase64Encoded": False}
    elif kind == 4:
        event |= {"body": base64.b64encode(rng.choice(others).body).decode(), "isBase64Encoded": True}
    elif isinstance(text, str) and event.get("isBase64Encoded") is True:
        try:
            raw = bytearray(base64.b64decode(text))
        except ValueError:
            return
        if raw:
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        event["body"] = base64.b64encode(bytes(raw) + rng.choice([b"", b"", b" ", b"&a=b", b"\n"])).decode()


def the_address(event: dict[str, Any], rng: random.Random, others: list[Genuine]) -> None:
    kind = rng.randrange(6)
    if kind == 0:
        event["rawPath"] = rng.choice([*PATHS, *VALUES])
    elif kind == 1:
        event["rawQueryString"] = rng.choice([*QUERIES, *VALUES])
    elif kind == 2:
        event["pathParameters"] = rng.choice(
            [{"source": rng.choice(others).source}, {"source": rng.choice(VALUES)}, None, "x", {}]
        )
    elif kind == 3:
        event["routeKey"] = rng.choice([*KEYS, *VALUES])
    elif kind == 4:
        http = _context(event, rng).get("http")
        if isinstance(http, dict):
            http["method"] = rng.choice([*METHODS, *VALUES])
    else:
        _context(event, rng)["domainName"] = rng.choice(["[", "x:y", HOST + ":443", HOST.upper(), *VALUES])


def the_context(event: dict[str, Any], rng: random.Random, others: list[Genuine]) -> None:
    kind = rng.randrange(4)
    if kind == 0:
        event["requestContext"] = rng.choice(VALUES)
    elif kind == 1:
        _context(event, rng)["requestId"] = rng.choice([*VALUES, "ok-1="])
    elif kind == 2:
        _context(event, rng)["http"] = rng.choice(VALUES)
    else:
        event["version"] = rng.choice(["1.0", "2.0", None, 2])


def a_member(event: dict[str, Any], rng: random.Random, others: list[Genuine]) -> None:
    name = rng.choice(sorted(event))
    if rng.random() < 0.5:
        del event[name]
    else:
        event[name] = rng.choice(VALUES)


DAMAGES: tuple[Damage, ...] = (
    a_header,
    no_header,
    more_headers,
    content_type,
    the_body,
    the_address,
    the_context,
    a_member,
)


def hostile(genuine: Genuine, damages: tuple[Damage, ...], rng: random.Random, others: list[Genuine]) -> dict[str, Any]:
    """A copy of the delivery with up to four of these done to it, on any route; or a challenge, likewise."""
    if rng.random() < 0.1:
        headers = {"authorization": CHALLENGE_SECRET, "x-okta-verification-challenge": OKTA_CHALLENGE}
        query = rng.choice(QUERIES)
        event = gateway_event(rng.choice(CHALLENGED), headers, b"", query=query, route=Route.CHALLENGE)
    else:
        event = genuine.event(rng.choice((Route.EVENT, Route.EVENT, Route.TEST, Route.CHALLENGE)))
    for _ in range(rng.randint(1, 4)):
        rng.choice(damages)(event, rng, others)
    return event
