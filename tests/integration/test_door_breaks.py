"""Attempts to break in at the door: what may differ between two deliveries without the signature noticing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest

from functions.adapters.http import is_base_url
from functions.core.source import MalformedSource
from functions.flows.reading import document_of
from functions.ingress.bucket import TokenBucket
from functions.signatures.providers import endpoint_of
from functions.signatures.special import adyen_claim
from tests.ingress_fakes import NOW_MS, Gate, problem_of

FORM = "application/x-www-form-urlencoded"
BODY = b'{"id":"e-1","conversation_id":"c","text":"see https://shop.example/?order=7"}'


@pytest.fixture
def gate() -> Gate:
    gate = Gate()
    common: dict[str, Any] = {"tenant": "acme", "flow": "support", "secrets": [{"secret": "s3"}]}
    by_id = {"pointers": ["/id"]}
    gate.parameters.put("any", provider="generic-hmac", scheme={"header": "x-sig"}, identity=by_id, **common)
    gate.parameters.put(
        "either", provider="generic-hmac", scheme={"header": "x-sig"}, identity=by_id, content="json_or_form", **common
    )
    return gate


def signed(body: bytes, content_type: str) -> dict[str, str]:
    return {"X-Sig": hmac.new(b"s3", body, "sha256").hexdigest(), "Content-Type": content_type}


@pytest.mark.parametrize("source", ["any", "either"])
@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/octet-stream", FORM, f"{FORM}; x=\u00e9", f"{FORM}\u00a0;", FORM + ";" + "x" * 300],
)
def test_a_signed_body_sent_again_under_another_content_type_is_no_other_event(
    gate: Gate, source: str, content_type: str
) -> None:
    """The signature covers the body alone: whoever holds a copy of a delivery may write any Content-Type on it."""
    assert gate.send(source, signed(BODY, "application/json"), BODY)["statusCode"] == 202
    gate.send(source, signed(BODY, content_type), BODY)
    assert {event.event_id for event in gate.outbox.events} == {f"{source}:e-1"}


@pytest.mark.parametrize("content_type", [f"{FORM}; x=\u00e9", f"{FORM}\u00a0;", FORM + ";" + "x" * 300])
def test_what_was_taken_as_a_form_at_the_door_is_read_as_a_form_behind_it(gate: Gate, content_type: str) -> None:
    body = b"id=e-2&text=hello"
    assert gate.send("any", signed(body, content_type), body)["statusCode"] == 202
    (event,) = gate.outbox.events
    assert event.event_id == "any:e-2"
    assert document_of(event) == {"id": "e-2", "text": "hello"}


def test_of_a_form_field_that_comes_twice_door_and_flow_read_the_same(gate: Gate) -> None:
    """Else one value would tell events apart while another one is acted on."""
    body = b"id=first&id=second&text=a&text=b"
    assert gate.send("any", signed(body, FORM), body)["statusCode"] == 202
    (event,) = gate.outbox.events
    assert event.event_id == "any:first"
    assert document_of(event) == {"id": "first", "text": "a"}


def test_a_body_that_is_no_json_and_claims_nothing_is_still_taken_as_it_is(gate: Gate) -> None:
    for body in (b"\x00\xff", b"plain words", b"[" * 200 + b"]" * 200, b'{"id":'):
        assert gate.send("any", signed(body, "text/plain"), body)["statusCode"] == 202
    assert all(event.identity.startswith("~w") for event in gate.outbox.events)


@pytest.mark.parametrize("secrets", [["whsec_"], ["MDEyMzQ1Njc4OWFiY2RlZg==", "whsec_"]])
def test_a_secret_that_decodes_to_nothing_is_our_trouble_and_refuses_no_honest_event(
    gate: Gate, secrets: list[str]
) -> None:
    """A 4xx is never about trouble of ours: no honest sender can mend an operator's typing error."""
    gate.parameters.put(
        "std",
        tenant="acme",
        flow="support",
        provider="standard-webhooks",
        secrets=[{"secret": secret} for secret in secrets],
    )
    now = str(NOW_MS // 1000)
    code = base64.b64encode(hmac.digest(b"0123456789abcdef", b"m-1." + now.encode() + b".{}", hashlib.sha256))
    headers = {"Webhook-Id": "m-1", "Webhook-Timestamp": now, "Webhook-Signature": "v1," + code.decode()}
    answer = gate.send("std", headers, b"{}")
    assert answer["statusCode"] == 503
    assert problem_of(answer)["code"] == "INT-503-DEPENDENCY-UNAVAILABLE"
    assert json.loads(gate.lines[-1])["reason"] == "source_unavailable"
    assert gate.outbox.events == []


@pytest.mark.parametrize(
    "text",
    [
        "https://desk.example?",
        "https://desk.example#",
        "https://desk.example/v1?#",
        "https://desk.example\n",
        "https://desk example",
        "https://desk.example\\",
        "https://desk.\u00e9xample\x00",
    ],
)
def test_a_base_url_that_would_swallow_the_path_behind_it_is_none(text: str) -> None:
    """Behind a '?' the path would be a query: the call would reach another place, and a 2xx from there be believed."""
    assert not is_base_url(text)


def test_a_rate_next_to_nothing_makes_a_long_wait_and_no_error() -> None:
    bucket = TokenBucket(1e-308, 1)
    assert bucket.take(0) == 0
    assert 0 < bucket.take(1) <= 86_400_000


SECRET = "MDEyMzQ1Njc4OWFiY2RlZg=="


def svix_signed(ids: str, body: bytes, family: str) -> dict[str, str]:
    moment = str(NOW_MS // 1000)
    key = base64.b64decode(SECRET)
    code = base64.b64encode(hmac.digest(key, f"{ids}.{moment}.".encode() + body, "sha256")).decode()
    return {f"{family}-Id": ids, f"{family}-Timestamp": moment, f"{family}-Signature": f"v1,{code}"}


@pytest.mark.parametrize(("family", "other"), [("Svix", "Webhook"), ("Webhook", "Svix")])
def test_an_id_of_another_header_family_makes_no_other_event_of_a_copy(gate: Gate, family: str, other: str) -> None:
    gate.parameters.put("std", provider="svix", tenant="acme", flow="support", secrets=[{"secret": SECRET}])
    headers = {"Content-Type": "application/json", **svix_signed("msg_1", b"{}", family)}
    assert gate.send("std", headers, b"{}")["statusCode"] == 202
    assert gate.send("std", {**headers, f"{other}-Id": "evil"}, b"{}")["statusCode"] == 401
    assert gate.send("std", {**headers, f"{other}-Id": "msg_1"}, b"{}")["statusCode"] == 202


def test_a_border_between_id_and_body_cannot_be_moved(gate: Gate) -> None:
    options = {"header": "x-sig", "id_header": "x-id", "content": "{id}.{body}"}
    gate.parameters.put(
        "own",
        provider="generic-hmac",
        tenant="acme",
        flow="support",
        secrets=[{"secret": "s3"}],
        scheme=options,
        identity={"header": "x-id"},
    )
    code = hmac.new(b"s3", b"ev1.a.b", "sha256").hexdigest()
    assert gate.send("own", {"X-Sig": code, "X-Id": "ev1"}, b"a.b")["statusCode"] == 202
    assert gate.send("own", {"X-Sig": code, "X-Id": "ev1.a"}, b"b")["statusCode"] == 401


@pytest.mark.parametrize(
    "options",
    [
        {"content": "{id}{body}", "id_header": "x-id"},
        {"content": "{body}{id}", "id_header": "x-id"},
        {"content": "{id}.{id}.{body}", "id_header": "x-id"},
        {"prefix": "v"},
        {"prefix": "\ud800="},
        {"content": "\ud800{body}"},
    ],
)
def test_a_template_that_could_be_read_in_two_ways_is_refused_when_it_is_loaded(options: dict[str, str]) -> None:
    entry = {"tenant": "acme", "provider": "generic-hmac", "flow": "support", "secrets": [{"secret": "s3"}]}
    with pytest.raises(MalformedSource, match="scheme"):
        endpoint_of("own", json.dumps({**entry, "scheme": {"header": "x-sig", **options}}))


@pytest.mark.parametrize(
    ("provider", "secret"),
    [
        ("github", "s3\n"),
        ("generic-apikey", " s3"),
        ("generic-basic", ":"),
        ("generic-basic", "user:"),
        ("generic-basic", ":password"),
    ],
)
def test_a_secret_that_no_sender_can_mean_is_refused_when_it_is_loaded(provider: str, secret: str) -> None:
    entry = {"tenant": "acme", "provider": provider, "flow": "support", "secrets": [{"secret": secret}]}
    with pytest.raises(MalformedSource):
        endpoint_of("own", json.dumps(entry))


def test_the_parts_that_adyen_signs_can_be_parted_in_one_way_only() -> None:
    def claim(psp: str, original: str, account: str, reference: str) -> object:
        item = {
            "pspReference": psp,
            "originalReference": original,
            "merchantAccountCode": account,
            "merchantReference": reference,
            "amount": {"value": 1, "currency": "EUR"},
            "eventCode": "CAPTURE",
            "success": "true",
            "additionalData": {"hmacSignature": "x"},
        }
        return adyen_claim({"notificationItems": [{"NotificationRequestItem": item}]})

    assert claim("PSP1", "", "M", "order:12") is not None
    assert claim("PSP1:", "M", "order", "12") is None
