"""What strangers can make ingress spend: requests to AWS per refused request, and the order of its checks."""

from __future__ import annotations

import random
from collections.abc import Callable, Sized
from typing import Any

import pytest

from functions.ingress.request import Route
from functions.ingress.sources import FIRST_READS_AT_ONCE, FIRST_READS_PER_SECOND, REREADS_AT_ONCE, REREADS_PER_SECOND
from tests.ingress_fakes import Gate, gateway_event, problem_of

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

REQUESTS = 10_000
SECONDS = 10
COMMON: dict[str, Any] = {"tenant": "acme", "flow": "support", "secrets": [{"secret": "s3"}]}
FORGED = {"X-Hub-Signature-256": "sha256=" + "0" * 64, "X-Api-Key": "guess", "Authorization": "guess"}


@pytest.fixture
def gate() -> Gate:
    gate = Gate()
    gate.parameters.put("hub", provider="github", **COMMON)
    gate.parameters.put("key", provider="generic-apikey", **COMMON)
    gate.parameters.put("meta", provider="meta", verify_token="t", **COMMON)
    gate.parameters.put("x", provider="x", **COMMON)
    gate.parameters.put("off", provider="github", state="disabled", **COMMON)
    return gate


def calls(gate: Gate) -> int:
    """Every request to AWS that was made, of whatever kind."""
    spent: list[Sized] = [
        gate.parameters.asked,
        gate.outbox.queue.timeouts,
        gate.outbox.bucket.timeouts,
        gate.seen.asked,
    ]
    return sum(len(each) for each in spent)


CALLERS = ("same unknown id", "ever new ids", "forged for one source", "hostile in every way")


def request(kind: str, number: int, rng: random.Random) -> dict[str, Any]:
    if kind == "same unknown id":
        return gateway_event("nobody", FORGED, b"{}")
    if kind == "ever new ids":
        return gateway_event(f"junk-{number}", FORGED, b"{}")
    if kind == "forged for one source":
        return gateway_event("hub", FORGED, b"{}")
    source = rng.choice(["hub", "key", "meta", "x", "off", "nobody", f"junk-{number}", "no/such", "", "x" * 65])
    query = rng.choice(["", "hub.mode=subscribe&hub.challenge=1&hub.verify_token=guess", "crc_token={}", "a" * 20_000])
    headers = rng.choice([{}, FORGED, {"X-Api-Key": ""}, {f"x-{n}": "" for n in range(200)}])
    bodies: list[bytes | str] = [b"", b"{", b"[" * 9000, b"\xff", "\ud800"]
    return gateway_event(
        source, headers, rng.choice(bodies), query=query, route=rng.choice([route for route in Route if route])
    )


@pytest.mark.parametrize("kind", CALLERS)
def test_ten_thousand_refused_requests_cost_a_bounded_number_of_reads_and_nothing_else(
    gate: Gate, kind: str, proved: Callable[[str], None]
) -> None:
    """A thousand a second for ten seconds, on one environment of ingress."""
    rng = random.Random(kind)
    statuses: set[object] = set()
    for number in range(REQUESTS):
        gate.clock.ms += 1000 * SECONDS // REQUESTS
        statuses.add(gate.handler(request(kind, number, rng), None)["statusCode"])
    assert statuses <= {401, 413, 429, 431}
    first_reads = FIRST_READS_AT_ONCE + FIRST_READS_PER_SECOND * SECONDS
    rereads = REREADS_AT_ONCE + REREADS_PER_SECOND * SECONDS
    most = {
        "same unknown id": 1 + SECONDS // 10,
        "ever new ids": first_reads,
        "forged for one source": 1 + rereads,
        "hostile in every way": first_reads + 3 * rereads,  # hub, key and meta have something to guess
    }[kind]
    assert calls(gate) == len(gate.parameters.asked) <= most + 1
    proved(f"abuse, {kind}: {calls(gate)} requests to AWS for {REQUESTS} refused ones, none of them a write")


def test_what_is_over_a_limit_is_refused_before_anything_of_it_is_read(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("parsed")

    monkeypatch.setattr("functions.ingress.verification.Verification.judged", never)
    monkeypatch.setattr("functions.ingress.handler.read_document", never)
    routes = [route for route in Route if route]
    over = [gateway_event("hub", {"x": "y" * 17_000}, b"{}", route=route) for route in routes] + [
        gateway_event("hub", {}, b"x" * 4_000_001, route=route) for route in routes
    ]
    assert [gate.handler(each, None)["statusCode"] for each in over] == [431] * len(routes) + [413] * len(routes)
    event = gateway_event("hub", {}, b"") | {"body": "A" * 5_333_337, "isBase64Encoded": True}
    monkeypatch.setattr("functions.ingress.request.base64.b64decode", never)
    assert gate.handler(event, None)["statusCode"] == 413
    assert calls(gate) == 0


@pytest.mark.parametrize("route", [route for route in Route if route])
def test_a_source_over_its_throttle_hears_when_to_come_back_on_every_route(gate: Gate, route: Route) -> None:
    gate.parameters.put("slow", provider="okta", throttle={"rate": 0.25, "burst": 1}, **COMMON)
    headers = {"Authorization": "s3", "X-Okta-Verification-Challenge": "abc"}
    first, second = (gate.send("slow", headers, b"{}", route=route) for _ in range(2))
    assert first["statusCode"] == (404 if route is Route.PROGRESS else 200)  # it asks about no event
    assert problem_of(second)["status"] == 429
    assert second["headers"]["retry-after"] == "4"
    for forged in ({}, {"Authorization": "guess"}):
        assert gate.send("slow", forged, b"{}", route=route)["statusCode"] == 401
