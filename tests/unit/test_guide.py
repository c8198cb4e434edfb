"""The page for a sender's developers says what the code goes by, for every provider, and no secret."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from functions.core.event import MAX_BODY_BYTES
from functions.ingress.answers import Refused, Rejection, answer_to_refusal
from functions.signatures.providers import PROVIDERS, endpoint_of, scheme_of
from functions.signatures.scheme import TOLERANCE_SECONDS, Headers, KeyedDigest, SharedSecret
from functions.signatures.special import PublicKeySignature
from ops.guide import SENT_BY_HAND, page
from ops.sources import new_secret

URL = "https://hooks.example.com/webhooks/shop"
_P256 = ec.derive_private_key(1, ec.SECP256R1()).public_key()
_ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
PUBLIC_KEYS = {
    "sendgrid": base64.b64encode(_P256.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode(),
    "discord": _ED25519.public_bytes_raw().hex(),
    "discord-events": _ED25519.public_bytes_raw().hex(),
}
OPTIONS = {"generic-hmac": {"header": "x-signature"}}


def page_of(provider: str, **more: Any) -> str:
    options = OPTIONS.get(provider, {})
    secret = PUBLIC_KEYS.get(provider) or new_secret(provider, options)
    entry = {"tenant": "acme", "provider": provider, "flow": "support", "secrets": [{"secret": secret}], **more}
    if options:
        entry.setdefault("scheme", options)
    text = page(endpoint_of("shop", json.dumps(entry)), more.get("public_url", URL))
    assert secret not in text
    return text


def parts_of(value: object) -> Iterator[object]:
    """The value and all that it is made of."""
    yield value
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from parts_of(getattr(value, field.name))
    elif isinstance(value, tuple):
        for inner in value:
            yield from parts_of(inner)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_page_names_every_header_of_its_scheme_and_the_tolerance(provider: str) -> None:
    text = page_of(provider)
    scheme = scheme_of(PROVIDERS[provider], OPTIONS.get(provider, {}))
    names = set()
    for part in parts_of(scheme):
        if isinstance(part, Headers):
            names |= {name for name in (part.signature, part.timestamp, part.id) if name}
        if isinstance(part, SharedSecret):
            names.add(part.header)
        if isinstance(part, KeyedDigest):
            assert f"`{part.content}`" in text
            assert part.algorithm.upper().replace("SHA", "SHA-") in text
    assert [name for name in names if f"`{name}`" not in text] == []
    has_moment = any(isinstance(part, Headers) and part.timestamp for part in parts_of(scheme)) and not any(
        isinstance(part, PublicKeySignature) and part.moment is None for part in parts_of(scheme)
    )
    has_moment |= any(isinstance(part, KeyedDigest) and part.timestamp_key for part in parts_of(scheme))
    assert (f"{TOLERANCE_SECONDS} seconds away" in text) == has_moment or provider == "mailgun"  # its moment is inside


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_page_tells_every_answer_and_shows_an_example_only_to_who_writes_the_sender(provider: str) -> None:
    text = page_of(provider)
    for rejection in Rejection:
        answer = answer_to_refusal(Refused(rejection), "")
        assert f"| {answer.status} | `{answer.code}` |" in text
    assert f"| {PROVIDERS[provider].acceptance.status} | |" in text
    assert "INT-431-" in text
    assert ("asked by a GET" in text) == (PROVIDERS[provider].challenge is not None)
    assert f"{MAX_BODY_BYTES:,} bytes" in text
    assert ("```python" in text) == (provider in SENT_BY_HAND)
    assert ("```sh" in text) == (provider in SENT_BY_HAND)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_page_tells_by_what_the_same_event_is_known(provider: str) -> None:
    text = page_of(provider)
    for rule in PROVIDERS[provider].identity:
        assert all(f"`{word}`" in text for word in (*rule.pointers, *filter(None, [rule.header])))
    assert "within 600 seconds" in text


def test_a_page_goes_by_the_sources_own_entry() -> None:
    text = page_of(
        "generic-hmac",
        scheme={
            "header": "x-own",
            "prefix": "v9=",
            "encoding": "base64",
            "algorithm": "sha512",
            "timestamp_header": "x-when",
            "timestamp_format": "ms",
            "content": "{timestamp};{body}",
        },
        identity={"header": "x-unsigned-id"},
        repeat_window_seconds=77,
        throttle={"rate": 2.5, "burst": 7},
        content="form",
        public_url="https://proxy.example.com/in",
    )
    for words in (
        "`POST https://proxy.example.com/in`",
        "`POST https://proxy.example.com/in/test`",
        "Header `x-own`: `v9=` and the digest",
        "SHA-512 HMAC of the signed content, written in base64",
        "`x-when`: the moment of signing, milliseconds",
        "`{timestamp};{body}`",
        "`x-unsigned-id`, together with the body (the signature does not cover this header)",
        "within 77 seconds",
        "Over 2.5 events a second, or 7 at once",
        "`application/x-www-form-urlencoded`",
    ):
        assert words in text, words


def test_a_source_without_any_identity_is_told_of_its_window_and_nobody_of_an_order() -> None:
    text = page_of("generic-apikey", repeat_window_seconds=90)
    assert "Nothing in a delivery identifies its event." in text
    assert "within 90 seconds" in text
    assert "no promise about order" in text


def test_what_an_entry_holds_cannot_break_out_of_the_code_it_stands_in() -> None:
    hostile = "``` `x` | </script> ${HOME} {body}"
    text = page_of("generic-hmac", scheme={"header": "x-signature", "content": hostile})
    assert f"```` {hostile} ````" in text or f"````{hostile}````" in text
    longest = max(len(line) for line in text.splitlines() if set(line) == {"`"} or line.startswith("````"))
    assert longest >= 4  # the fence of the examples is longer than any run of ticks inside
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {4}
