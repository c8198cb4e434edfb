"""A sender's own trial: what it is told, that nothing comes of it, and which of our routes a request means."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import pytest

from functions.core.clock import Deadline
from functions.core.event import Event
from functions.core.failure import StorageUnavailable
from functions.core.ledger import ledger_key
from functions.ingress.probe import words_of
from functions.ingress.request import Route, request_of
from functions.ingress.seen import LedgerSeen
from functions.signatures.providers import PROVIDERS, scheme_of
from tests.ingress_fakes import NOW_MS, Gate, SettableClock, gateway_event

NOW = NOW_MS // 1000
COMMON: dict[str, Any] = {"tenant": "acme", "flow": "support"}
ONE = [{"secret": "s3"}]


@pytest.fixture
def gate() -> Gate:
    gate = Gate()
    for name in ("stripe", "github", "slack"):
        gate.parameters.put(name, provider=name, secrets=ONE, **COMMON)
    gate.parameters.put("desk", provider="richpanel", secrets=ONE, **COMMON)
    return gate


def mac(content: bytes, secret: str = "s3") -> str:
    return hmac.new(secret.encode(), content, "sha256").hexdigest()


def stripe(body: bytes, at: int = NOW, secret: str = "s3") -> dict[str, str]:
    return {"Stripe-Signature": f"t={at},v1={mac(b'%d.' % at + body, secret)}", "Content-Type": "application/json"}


def github(body: bytes) -> dict[str, str]:
    return {"X-Hub-Signature-256": f"sha256={mac(body)}", "X-GitHub-Delivery": "d-1", "X-GitHub-Event": "issues"}


BODY = b'{"id":"evt_1","type":"charge.failed","api_version":"2020-08-27"}'


def test_a_sender_hears_what_we_make_of_its_delivery_and_nothing_comes_of_it(gate: Gate) -> None:
    answer = gate.test("stripe", stripe(BODY, NOW - 7), BODY)
    assert (answer["statusCode"], answer["headers"]["content-type"]) == (200, "application/json")
    assert json.loads(answer["body"]) == {
        "source": "stripe",
        "provider": "stripe",
        "scheme": "HMAC SHA256 over {timestamp}.{body}, hex, in stripe-signature",
        "flow": "support",
        "held": False,
        "secret_number": 1,
        "timestamp_skew_seconds": -7,
        "body_bytes": len(BODY),
        "event_id": "stripe:evt_1",
        "event_name": "charge.failed",
        "event_version": "2020-08-27",
        "identity": "pointers",
        "repeat_window_seconds": 0,
        "duplicate": False,
        "stored_as": "inline",
        "request_id": "gateway-1=",
    }
    assert "acme" not in answer["body"]  # whose tenant it is, is not the sender's business
    assert gate.outbox.messages == []
    assert gate.outbox.bucket.objects == {}
    assert gate.last_line["message"] == "webhook tested"
    assert "webhooks_accepted" not in gate.last_line
    event = gate.send("stripe", stripe(BODY), BODY)
    assert json.loads(event["body"])["event_id"] == json.loads(answer["body"])["event_id"]


def test_what_tells_events_apart_is_named(gate: Gate) -> None:
    told = {
        source: json.loads(gate.test(source, headers, b'{"a":1}')["body"])
        for source, headers in {
            "github": github(b'{"a":1}'),
            "desk": {"X-Richpanel-Token": "s3"},
            "stripe": stripe(b'{"a":1}'),  # it has no id
        }.items()
    }
    assert {source: said["identity"] for source, said in told.items()} == {
        "github": "header",
        "desk": "window",
        "stripe": "window",
    }
    assert told["desk"]["repeat_window_seconds"] == 600
    assert "timestamp_skew_seconds" not in told["desk"]


def test_a_duplicate_is_called_one_and_what_cannot_be_known_unknown(gate: Gate) -> None:
    gate.seen.known.add("stripe:evt_1")
    assert json.loads(gate.test("stripe", stripe(BODY), BODY)["body"])["duplicate"] is True
    other = BODY.replace(b"evt_1", b"evt_2")
    assert json.loads(gate.test("stripe", stripe(other), other)["body"])["duplicate"] is False
    gate.seen.is_down = True
    answer = gate.test("stripe", stripe(BODY), BODY)
    assert (answer["statusCode"], json.loads(answer["body"])["duplicate"]) == (200, "unknown")
    assert gate.last_line["why"].startswith("the ledger could not be asked")


def test_nothing_but_a_test_asks_the_ledger(gate: Gate) -> None:
    gate.send("stripe", stripe(BODY), BODY)
    gate.send("stripe", stripe(BODY), b"{}")
    gate.ask("stripe")
    gate.test("stripe", {}, BODY)
    assert gate.seen.asked == []


def test_of_two_secrets_it_is_said_which_one_signed(gate: Gate) -> None:
    gate.parameters.put("stripe", provider="stripe", secrets=[{"secret": "old"}, {"secret": "new"}], **COMMON)
    for number, secret in enumerate(("old", "new"), start=1):
        answer = gate.test("stripe", stripe(BODY, secret=secret), BODY)
        assert json.loads(answer["body"])["secret_number"] == number


def test_a_held_source_and_a_large_body_are_told(gate: Gate) -> None:
    gate.parameters.put("stripe", provider="generic-apikey", secrets=ONE, state="held", **COMMON)
    noise = b"".join(hmac.digest(b"%d" % number, b"", "sha256") for number in range(40_000))
    said = json.loads(gate.test("stripe", {"X-Api-Key": "s3"}, noise)["body"])
    assert (said["held"], said["stored_as"], said["body_bytes"]) == (True, "claim_check", 1_280_000)
    assert gate.outbox.bucket.objects == {}


def test_a_handshake_is_called_one_and_is_not_answered_as_one(gate: Gate) -> None:
    body = b'{"type":"url_verification","challenge":"3eZbrw1a"}'
    headers = {"X-Slack-Request-Timestamp": str(NOW), "X-Slack-Signature": "v0=" + mac(b"v0:%d:" % NOW + body)}
    said = json.loads(gate.test("slack", headers, body)["body"])
    assert said["handshake"] == "url_verification"
    assert "event_id" not in said
    assert "3eZbrw1a" not in json.dumps(said)


def test_a_refusal_is_that_of_the_events_own_route(gate: Gate) -> None:
    gate.parameters.put("off", provider="stripe", secrets=ONE, state="disabled", **COMMON)
    gate.parameters.put("slow", provider="stripe", secrets=ONE, throttle={"rate": 0.001, "burst": 1}, **COMMON)
    gate.send("slow", stripe(BODY), BODY)
    for source, headers, body, status in [
        ("stripe", stripe(b"other"), BODY, 401),
        ("stripe", {}, BODY, 401),
        ("stripe", stripe(BODY, NOW - 301), BODY, 401),
        ("nobody", stripe(BODY), BODY, 401),
        ("off", stripe(BODY), BODY, 401),
        ("stripe", stripe(b"{"), b"{", 400),
        ("slow", stripe(BODY), BODY, 429),
        ("stripe", {"x": "y" * 17_000}, BODY, 431),
        ("stripe", stripe(BODY), b"x" * 4_000_001, 413),
    ]:
        event = gate.send(source, headers, body)
        refusal = json.loads(gate.lines[-1])["reason"]
        assert gate.test(source, headers, body) == event
        assert (event["statusCode"], json.loads(gate.lines[-1])["reason"]) == (status, refusal)


def test_the_address_of_a_test_is_signed_as_it_was_called(gate: Gate) -> None:
    for public_url, address in [
        ("", "https://hooks.example.com/webhooks/square/test"),
        ("https://example.net/in", "https://example.net/in/test"),
    ]:
        gate = Gate()
        more = {"public_url": public_url} if public_url else {}
        gate.parameters.put("square", provider="square", secrets=ONE, **COMMON, **more)
        code = hmac.digest(b"s3", address.encode() + BODY, "sha256")
        headers = {"X-Square-HmacSha256-Signature": base64.b64encode(code).decode()}
        assert gate.test("square", headers, BODY)["statusCode"] == 200
        assert gate.send("square", headers, BODY)["statusCode"] == 401


def test_every_providers_scheme_has_words() -> None:
    options = {"generic-hmac": {"header": "x-sig"}}
    words = {name: words_of(scheme_of(row, options.get(name, {}))) for name, row in PROVIDERS.items()}
    assert all(words.values())
    assert words["discord"] == "a public key's signature over {timestamp}{body}, hex, in x-signature-ed25519"
    assert words["generic-basic"] == "HTTP Basic in authorization"
    assert len(words["hubspot"].split("; or ")) == 3


# --------------------------------------------------------------------------------------------------------- the routes


@pytest.mark.parametrize(
    ("method", "path", "source", "route"),
    [
        ("POST", "/webhooks/test", "test", Route.EVENT),
        ("POST", "/webhooks/test/", "test", Route.EVENT),
        ("POST", "/webhooks/test/test", "test", Route.TEST),
        ("POST", "/webhooks/test/test/", "test", Route.TEST),
        ("POST", "/webhooks/shop", "shop", Route.EVENT),
        ("POST", "/webhooks/shop/test", "shop", Route.TEST),
        ("POST", "/dev/webhooks/shop/test", "shop", Route.TEST),
        ("POST", "/test/webhooks/shop", "shop", Route.EVENT),
        ("POST", "/webhooks/webhooks/test", "webhooks", Route.TEST),
        ("POST", "/webhooks/webhooks", "webhooks", Route.EVENT),
        ("POST", "/webhooks/%73hop/te%73t", "shop", Route.TEST),
        ("POST", "/webhooks/shop%2Ftest", "shop/test", Route.EVENT),
        ("POST", "/webhooks/shop/test%2F", "shop", Route.EVENT),
        ("POST", "/webhooks/shop/Test", "shop", Route.EVENT),
        ("POST", "", "shop", Route.EVENT),
        ("GET", "/webhooks/shop", "shop", Route.CHALLENGE),
        ("GET", "/webhooks/shop/test", "shop", Route.CHALLENGE),
        ("HEAD", "/webhooks/shop", "shop", Route.NONE),
        ("post", "/webhooks/shop", "shop", Route.NONE),
        ("", "/webhooks/shop", "shop", Route.NONE),
    ],
)
@pytest.mark.parametrize("key", ["$default", "", None, 7, "PUT /webhooks/{source}"])
def test_without_a_key_of_ours_method_and_path_say_which_route_it_is(
    method: str, path: str, source: str, route: Route, key: object
) -> None:
    event = {
        "routeKey": key,
        "rawPath": path,
        "pathParameters": {"source": source},
        "requestContext": {"http": {"method": method}},
    }
    request = request_of(event, "id")
    assert (request.route, request.source_id) == (route, source)


@pytest.mark.parametrize("route", [route for route in Route if route])
@pytest.mark.parametrize("path", ["/webhooks/shop/test", "/webhooks/test", "/webhooks/shop", "/x", ""])
def test_the_gateways_own_key_decides_whatever_the_path_looks_like(route: Route, path: str) -> None:
    event = gateway_event("shop", {}, b"", route=route) | {"rawPath": path}
    assert request_of(event, "id").route is route


def test_a_method_that_nobody_asked_for_finds_no_source(gate: Gate) -> None:
    event = gateway_event("stripe", stripe(BODY), BODY) | {"routeKey": "$default"}
    event["requestContext"]["http"]["method"] = "PUT"
    assert gate.handler(event, None)["statusCode"] == 401
    assert gate.last_line["why"] == "no such route"
    assert gate.parameters.asked == []


# --------------------------------------------------------------------------------------------------------- the ledger


class Table:
    def __init__(self, item: object = None) -> None:
        self.item = item
        self.asked: list[tuple[str, object, float]] = []
        self.connected = 0

    def connect(self) -> Table:
        self.connected += 1
        return self

    def get_item(self, table: str, key: Any, timeout_seconds: float) -> Any:
        self.asked.append((table, key, timeout_seconds))
        return self.item


def event(repeat_window_seconds: int = 0) -> Event:
    return Event(
        "acme", "shop", "stripe", "f", "e-1", "", "", NOW_MS, "r", "t", "h", "", b"{}", repeat_window_seconds
    )  # fmt: skip


def known(item: object, repeat_window_seconds: int = 0) -> bool:
    deadline = Deadline.after(1, SettableClock().seconds)
    return LedgerSeen("ledger", "recovery", Table(item).connect).is_known(event(repeat_window_seconds), deadline)


def item(status: str, epoch_ms: int) -> dict[str, object]:
    return {"status": {"S": status}, "epoch": {"N": str(epoch_ms)}}


def test_the_ledger_is_asked_once_by_the_events_own_key_and_reached_only_then() -> None:
    table = Table(item("settled", 0))
    seen, deadline = LedgerSeen("ledger", "recovery", table.connect), Deadline.after(1, SettableClock().seconds)
    assert table.connected == 0
    assert seen.is_known(event(), deadline)
    assert seen.is_known(event(), deadline)
    assert table.asked == [("ledger", {"pk": {"S": ledger_key(event())}}, 0.5)] * 2
    assert table.connected == 1


def test_an_event_without_an_id_is_known_for_its_window_and_while_it_is_worked_on() -> None:
    assert not known(None)
    assert known(item("processing", 0))
    assert known(item("settled", NOW_MS - 600_000), 600)
    assert not known(item("settled", NOW_MS - 600_001), 600)
    assert known(item("processing", NOW_MS - 600_001), 600)
    assert known(item("settled", 0))  # its id is good for ever


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"status": {"S": "x"}, "epoch": {"N": "1"}},
        {"status": "settled", "epoch": {"N": "1"}},
        {"status": {"S": "settled"}, "epoch": {"N": "y"}},
    ],
)
def test_an_item_that_nobody_can_read_is_no_answer(broken: object) -> None:
    with pytest.raises(StorageUnavailable):
        known(broken)
