"""A sender's question how far an event has come: who is answered, what they hear, and that they hear no more."""

from __future__ import annotations

import hmac
import json
from typing import Any

import pytest

from functions.ingress.request import Route, request_of
from tests.ingress_fakes import NOW_MS, Gate, gateway_event, problem_of

NOW = NOW_MS // 1000
COMMON: dict[str, Any] = {"tenant": "acme", "flow": "support", "secrets": [{"secret": "s3"}]}


@pytest.fixture
def gate() -> Gate:
    gate = Gate()
    for name in ("stripe", "github"):
        gate.parameters.put(name, provider=name, **COMMON)
    gate.parameters.put("desk", provider="richpanel", **COMMON)
    gate.parameters.put("adyen", provider="adyen", **{**COMMON, "secrets": [{"secret": "ab" * 32}]})
    for name in ("stripe", "github", "adyen", "desk"):
        gate.seen.states["acme", f"{name}:1"] = "settled"
    return gate


def mac(content: bytes, secret: str = "s3") -> str:
    return hmac.new(secret.encode(), content, "sha256").hexdigest()


def github(signed: str, secret: str = "s3") -> dict[str, str]:
    return {"X-Hub-Signature-256": f"sha256={mac(signed.encode(), secret)}"}


def stripe(signed: str, at: int = NOW) -> dict[str, str]:
    return {"Stripe-Signature": f"t={at},v1={mac(b'%d.' % at + signed.encode())}"}


@pytest.mark.parametrize(
    ("source", "headers"),
    [
        ("github", github("github:1")),
        ("stripe", stripe("stripe:1")),
        ("desk", {"X-Richpanel-Token": "s3"}),
    ],
)
def test_whoever_signs_the_events_id_as_it_signs_its_deliveries_hears_one_word(
    gate: Gate, source: str, headers: dict[str, str]
) -> None:
    answer = gate.question(source, f"{source}:1", headers)
    assert answer["statusCode"] == 200
    assert json.loads(answer["body"]) == {"event_id": f"{source}:1", "state": "settled"}
    assert gate.outbox.messages == []
    line = gate.last_line
    assert (line["route"], line["event_id"], line["message"]) == (
        Route.PROGRESS.value,
        f"{source}:1",
        "webhook answered",
    )


@pytest.mark.parametrize(
    ("source", "headers"),
    [
        ("github", {}),
        ("github", github("github:1", "another")),
        ("github", github("")),  # what was signed for nothing
        ("github", github("github:2")),  # or for another event
        ("stripe", stripe("stripe:1", NOW - 301)),
        ("desk", {"X-Richpanel-Token": "wrong"}),
        ("nobody", github("nobody:1")),
        ("adyen", {"content-type": "application/json"}),  # its signature stands in the body, and there is none
    ],
)
def test_strangers_learn_nothing_not_even_whether_there_is_such_an_event_or_source(
    gate: Gate, source: str, headers: dict[str, str]
) -> None:
    answers = [gate.question(source, event_id, headers) for event_id in (f"{source}:1", f"{source}:nothing")]
    assert {answer["statusCode"] for answer in answers} == {401}
    assert answers[0]["body"] == answers[1]["body"] == gate.question("nobody", "x", {})["body"]
    assert gate.seen.asked == []


def test_a_disabled_source_is_a_stranger(gate: Gate) -> None:
    gate.parameters.put("off", provider="github", state="disabled", **COMMON)
    assert gate.question("off", "off:1", github("off:1"))["statusCode"] == 401


@pytest.mark.parametrize("event_id", ["github:2", "stripe:1", "github", "githubx:1"])
def test_what_is_not_known_or_is_another_sources_is_not_found(gate: Gate, event_id: str) -> None:
    answer = gate.question("github", event_id, github(event_id))
    assert (answer["statusCode"], problem_of(answer)["code"]) == (404, "INT-404-NOT-FOUND")
    assert gate.seen.asked == (["github:2"] if event_id == "github:2" else [])
    assert "webhooks_rejected" not in gate.last_line  # it is no delivery that was refused


def test_a_table_that_does_not_answer_is_our_trouble_and_says_so(gate: Gate) -> None:
    gate.seen.is_down = True
    answer = gate.question("github", "github:1", github("github:1"))
    assert answer["statusCode"] == 503
    assert answer["headers"]["retry-after"] == "5"
    assert "not stored" not in problem_of(answer)["detail"]
    assert gate.last_line["level"] == "ERROR"


def test_questions_do_not_use_up_what_deliveries_may_take(gate: Gate) -> None:
    gate.parameters.put("few", provider="github", throttle={"rate": 0.001, "burst": 1}, **COMMON)
    gate.seen.states["acme", "few:1"] = "waiting"
    body = b'{"a":1}'
    assert gate.question("few", "few:1", github("few:1"))["statusCode"] == 200
    assert gate.question("few", "few:1", github("few:1"))["statusCode"] == 429
    delivery = {**github(body.decode()), "X-GitHub-Delivery": "1", "Content-Type": "application/json"}
    assert gate.send("few", delivery, body)["statusCode"] == 202


def test_an_id_is_read_as_it_is_meant_however_it_was_encoded() -> None:
    event = gateway_event("desk", {}, b"", route=Route.PROGRESS)
    for stated in ({"source": "desk", "event_id": "desk%3Aa%2Fb"}, {"source": "desk", "event_id": "desk:a/b"}):
        event["pathParameters"] = stated
        assert request_of(event, "n").event_id == "desk:a/b"
    event = {**event, "routeKey": "$default", "pathParameters": {"source": "desk"}}
    event["rawPath"] = "/webhooks/desk/events/desk%3A1"
    asked = request_of(event, "n")
    assert (asked.route, asked.event_id) == (Route.PROGRESS, "desk:1")
