"""The senders of the demo send what the vendors' own verifiers accept, and payloads whose pointers lead somewhere."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
import standardwebhooks
import stripe
import svix
from hypothesis import given, settings
from hypothesis import strategies as st
from slack_sdk.signature import Clock, SignatureVerifier
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]  # the SDK ships no types

from functions.catalog.loader import load
from functions.core.decision import Mode
from functions.core.event import Event
from functions.core.identity import name_of
from functions.core.pointer import text_at
from functions.flows.registry import flows_of
from functions.signatures.providers import endpoint_of
from functions.signatures.scheme import Delivery
from ops.senders import (
    PROVIDERS,
    SAMPLE_POINTERS,
    Signed,
    UnknownProvider,
    Unsignable,
    make_secret,
    sign,
    source_entry,
    ticket_event,
)

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "signatures.json"
URL = "https://hooks.example.com/webhooks/demo"
NOW = 1_760_000_000
TEXT = "Where is my order? It's “late” — 10 days…"


def document(body: bytes, content_type: str) -> Any:
    return dict(parse_qsl(body.decode())) if "form" in content_type else json.loads(body)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_pointers_of_a_sample_lead_to_what_it_says_it_carries(provider: str) -> None:
    event = ticket_event(provider, "t-17", TEXT, "ana@example.com", "m-1", now=NOW)
    fields = SAMPLE_POINTERS[provider].fields
    body = document(event.body, event.content_type)
    assert text_at(body, fields["conversation"]) == event.conversation
    assert text_at(body, fields["text"]) == event.text == TEXT
    assert text_at(body, fields["author"]) == event.author
    if "subject" in fields:
        assert text_at(body, fields["subject"])


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_identity_of_a_sample_is_that_of_its_message_and_of_no_other(provider: str) -> None:
    secret = make_secret(provider, "demo")

    def identity(message_id: str) -> str:
        event = ticket_event(provider, "t-17", TEXT, "ana@example.com", message_id, now=NOW)
        signed = sign(
            provider, secret, event.body, url=URL, now=NOW, message_id=message_id, event_name=event.event_name
        )
        rule = SAMPLE_POINTERS[provider].identity
        if "header" in rule:
            return signed.headers[rule["header"]]
        return "/".join(text_at(document(event.body, event.content_type), pointer) for pointer in rule["pointers"])

    assert identity("m-1")
    assert identity("m-1") == identity("m-1")
    assert identity("m-1") != identity("m-2")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_same_message_makes_the_same_bytes_and_one_ticket_keeps_its_conversation(provider: str) -> None:
    one, same = (ticket_event(provider, "t-17", TEXT, "ana@example.com", "m-1", now=NOW) for _ in range(2))
    later = ticket_event(provider, "t-17", "Thanks", "ana@example.com", "m-2", now=NOW + 60)
    other = ticket_event(provider, "t-18", TEXT, "ana@example.com", "m-3", now=NOW)
    assert one == same
    assert one.conversation == later.conversation != other.conversation


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_source_entry_makes_an_endpoint_that_accepts_the_sender_and_refuses_a_forger(provider: str) -> None:
    old, new, wrong = (make_secret(provider, seed) for seed in ("old", "new", "wrong"))
    endpoint = endpoint_of("demo", json.dumps(source_entry(provider, [old, new], tenant="acme")))
    event = ticket_event(provider, "t-17", TEXT, "ana@example.com", "m-1", now=NOW)
    for secret, is_honest in ((old, True), (new, True), (wrong, False)):
        signed = sign(provider, secret, event.body, url=URL, now=NOW, message_id="m-1", event_name=event.event_name)
        delivery = Delivery(signed.headers, signed.body, url=URL)
        refused = endpoint.verifier.check(delivery, NOW * 1000)
        assert (refused is None) is is_honest
    name = name_of(
        endpoint.provider.event_name,
        endpoint.provider.event_detail,
        signed.headers,
        document(event.body, event.content_type),
    )
    assert name == event.event_name


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_support_flow_reads_the_conversation_and_the_text_of_a_sample(provider: str) -> None:
    sample = ticket_event(provider, "t-17", TEXT, "ana@example.com", "m-1", now=NOW)
    entry = source_entry(provider, [make_secret(provider, "x")], tenant="acme")
    event = Event(
        tenant="acme",
        source="demo",
        provider=provider,
        flow="support",
        identity="m-1",
        event_name=sample.event_name,
        event_version="",
        received_at_ms=NOW * 1000,
        request_id="r-1",
        traceparent="",
        payload_hash="h",
        content_type=sample.content_type,
        body=sample.body,
        fields=entry["fields"],
    )
    flow = flows_of(load())["support"]
    prepared = flow.prepare(event)
    assert prepared.subject == sample.conversation
    assert TEXT in prepared.text
    decision = flow.decide(event, prepared, None, Mode.LIVE, NOW * 1000)
    assert {action.target for action in decision.actions} == {sample.conversation}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_another_secret_makes_another_signature(provider: str) -> None:
    body = ticket_event(provider, "t-17", TEXT, "ana@example.com", "m-1", now=NOW).body
    honest, forged = (
        sign(provider, make_secret(provider, seed), body, url=URL, now=NOW, message_id="m-1").headers
        for seed in ("one", "two")
    )
    assert set(honest) == set(forged)
    assert honest != forged


def test_nobody_signs_for_a_provider_that_there_is_not() -> None:
    with pytest.raises(UnknownProvider):
        sign("carrier-pigeon", "s", b"{}", url=URL, now=NOW, message_id="m")
    with pytest.raises(UnknownProvider):
        ticket_event("carrier-pigeon", "t", "x", "a", "m", now=NOW)
    with pytest.raises(UnknownProvider):
        make_secret("carrier-pigeon", "s")


def test_what_an_sdk_cannot_sign_is_refused() -> None:
    with pytest.raises(Unsignable):
        sign("stripe", "whsec_x", b"\xff\xfe", url=URL, now=NOW, message_id="m")
    with pytest.raises(Unsignable):
        sign("generic-basic", "no-colon", b"{}", url=URL, now=NOW, message_id="m")


def _signed(provider: str, secret: str, body: bytes, now: int) -> Signed:
    return sign(provider, secret, body, url=URL, now=now, message_id="msg_1")


json_bodies = st.dictionaries(st.text(max_size=10), st.text(max_size=40) | st.integers(), max_size=4).map(
    lambda value: (
        json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass").decode("utf-8", "ignore").encode()
    )
)


@settings(deadline=None, max_examples=40)
@given(body=json_bodies)
def test_the_vendors_own_verifiers_accept_what_is_sent(body: bytes) -> None:
    now = int(datetime.now(UTC).timestamp())
    text = body.decode()
    secret = make_secret("standard-webhooks", "x")
    standardwebhooks.Webhook(secret).verify(text, _signed("standard-webhooks", secret, body, now).headers)
    svix.Webhook(secret).verify(text, _signed("svix", secret, body, now).headers)
    header = _signed("stripe", "whsec_demo", body, now).headers["stripe-signature"]
    stripe.WebhookSignature.verify_header(text, header, "whsec_demo", tolerance=300)
    slack = _signed("slack", "s3cret", body, now).headers

    class Fixed(Clock):
        def now(self) -> float:
            return float(now)

    assert SignatureVerifier("s3cret", Fixed()).is_valid_request(body, slack)


@settings(deadline=None, max_examples=40)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_twilios_validator_accepts_the_forms_that_are_sent(text: str) -> None:
    event = ticket_event("twilio", "t-17", text, "", "m-1", now=NOW)
    headers = _signed("twilio", "token", event.body, NOW).headers
    params = dict(parse_qsl(event.body.decode(), keep_blank_values=True))
    assert RequestValidator("token").validate(URL, params, headers["x-twilio-signature"])


def test_github_and_shopify_are_signed_by_their_documented_recipe() -> None:
    headers = _signed("github", "It's a Secret to Everybody", b"Hello, World!", NOW).headers
    expected = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"  # GitHub's documentation
    assert headers["x-hub-signature-256"] == expected
    digest = hmac.new(b"hush", b"{}", hashlib.sha256).digest()
    assert _signed("shopify", "hush", b"{}", NOW).headers["x-shopify-hmac-sha256"] == base64.b64encode(digest).decode()


SIGNATURE_HEADERS = {
    "standard-webhooks": "webhook-signature",
    "svix": "svix-signature",
    "stripe": "stripe-signature",
    "github": "x-hub-signature-256",
    "shopify": "x-shopify-hmac-sha256",
    "slack": "x-slack-signature",
}


@pytest.mark.skipif(not VECTORS.exists(), reason="the signature vectors are not on this machine")
def test_the_published_vectors_come_out_again() -> None:
    seen = 0
    for vector in json.loads(VECTORS.read_text()):
        name = SIGNATURE_HEADERS.get(vector["provider"])
        given_headers = {key.lower(): value for key, value in vector["headers"].items()}
        is_plain = vector["secret_type"] == "utf8" and isinstance(vector["body"], str)
        if name is None or vector["expect"] != "valid" or not is_plain or name not in given_headers:
            continue
        stamp = given_headers.get("stripe-signature", "t=,").partition("t=")[2].partition(",")[0]
        stamp = stamp or next((value for key, value in given_headers.items() if key.endswith("timestamp")), str(NOW))
        message_id = next((value for key, value in given_headers.items() if key in ("webhook-id", "svix-id")), "m")
        ours = sign(
            vector["provider"],
            vector["secret"],
            vector["body"].encode(),
            url=URL,
            now=int(stamp),
            message_id=message_id,
        ).headers[name]
        parts = ours.split(",")
        assert parts[-1] in given_headers[name], vector["id"]
        seen += 1
    assert seen >= 8
