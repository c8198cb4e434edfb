"""Sources as operators declare them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.core.source import IdentityRule, MalformedSource, Secret, Source, SourceState, Throttle
from functions.signatures.providers import PROVIDERS, endpoint_of

PLAIN: dict[str, Any] = {
    "tenant": "acme",
    "provider": "stripe",
    "flow": "support",
    "secrets": [{"secret": "topsecret-1"}],
}
FULL: dict[str, Any] = {
    **PLAIN,
    "secrets": [{"secret": "topsecret-1", "created_at": "2026-01-01"}, {"secret": "topsecret-2"}],
    "state": "held",
    "identity": {"pointers": ["/id", "/n"]},
    "repeat_window_seconds": 60,
    "throttle": {"rate": 2.5, "burst": 10},
    "expected_gap_seconds": 3600,
    "fields": {"conversation": "/ticket/id"},
    "event_name": ["header:X-Topic", "/type"],
    "event_version": ["/version"],
    "content": "any",
    "public_url": "https://hooks.example.com/in",
}


def parse(entry: object) -> Source:
    return Source.parse("shop-1", json.dumps(entry))


def test_a_usual_source_is_four_members() -> None:
    source = parse(PLAIN)
    assert source.state is SourceState.ACTIVE
    assert source.identity is None
    assert source.repeat_window_seconds == 600
    assert dict(source.fields) == {}


def test_everything_that_can_be_declared_is_read() -> None:
    source = parse(FULL)
    assert source.secrets == (Secret("topsecret-1", "2026-01-01"), Secret("topsecret-2"))
    assert source.state is SourceState.HELD
    assert source.identity == (IdentityRule(pointers=("/id", "/n")),)
    assert source.throttle == Throttle(2.5, 10)
    assert source.expected_gap_seconds == 3600
    assert source.event_name == ("header:x-topic", "/type")
    assert source.public_url == "https://hooks.example.com/in"


def test_an_identity_may_be_a_header_in_any_case_or_expressly_none() -> None:
    source = parse({**PLAIN, "identity": {"header": "X-Id", "covered": False}})
    assert source.identity == (IdentityRule(header="x-id"),)
    assert source.claims_covered is False
    assert parse({**PLAIN, "identity": "window"}).identity == ()


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"tenant": "a b"}, "tenant"),
        ({"tenant": None}, "tenant"),
        ({"provider": "Stripe!"}, "provider"),
        ({"flow": 7}, "flow"),
        ({"secrets": []}, "secrets"),
        ({"secrets": "topsecret-1"}, "secrets"),
        ({"secrets": [{"secret": "x"}] * 9}, "secrets"),
        ({"secrets": [{"secret": ""}]}, "secret 1"),
        ({"secrets": [{"secret": "topsecret-1\n"}]}, "secret 1 begins or ends with white space"),
        ({"secrets": ["topsecret-1"]}, "secret 1"),
        ({"secrets": [{"secret": "\ud800"}]}, "secret 1"),
        ({"secrets": [{"secret": "x", "created_at": 1}]}, "created_at"),
        ({"state": "paused"}, "state"),
        ({"state": ["active"]}, "state"),
        ({"identity": "id"}, "identity"),
        ({"identity": {"header": "x", "pointers": ["/a"]}}, "identity"),
        ({"identity": {"header": "x y"}}, "identity.header"),
        ({"identity": {"header": "x", "covered": "yes"}}, "identity.covered"),
        ({"identity": {"pointers": []}}, "identity.pointers"),
        ({"identity": {"pointers": ["id"]}}, "identity.pointers"),
        ({"identity": {"pointers": [7]}}, "identity.pointers"),
        ({"repeat_window_seconds": 0}, "repeat_window_seconds"),
        ({"repeat_window_seconds": True}, "repeat_window_seconds"),
        ({"throttle": {"rate": 1}}, "throttle"),
        ({"throttle": {"rate": 0, "burst": 1}}, "throttle.rate"),
        ({"throttle": {"rate": float("nan"), "burst": 1}}, "throttle.rate"),
        ({"throttle": {"rate": float("inf"), "burst": 1}}, "throttle.rate"),
        ({"throttle": {"rate": 10**400, "burst": 1}}, "throttle.rate"),
        ({"throttle": {"rate": 1, "burst": 0}}, "throttle.burst"),
        ({"expected_gap_seconds": "1h"}, "expected_gap_seconds"),
        ({"fields": []}, "fields"),
        ({"fields": {"Text": "/a"}}, "fields"),
        ({"fields": {"text": "a"}}, "fields"),
        ({"scheme": {"header": 7}}, "scheme"),
        ({"event_name": []}, "event_name"),
        ({"event_name": ["type"]}, "event_name"),
        ({"event_version": ["header:"]}, "event_version"),
        ({"content": "xml"}, "content"),
        ({"public_url": "https://x.example/?q=1"}, "public_url"),
        ({"public_url": 7}, "public_url"),
        ({"tenent": "acme"}, "tenent"),
    ],
)
def test_a_mistake_is_named_and_no_secret_is_quoted(change: dict[str, object], names: str) -> None:
    with pytest.raises(MalformedSource, match=names.replace(".", r"\.")) as caught:
        parse({**PLAIN, **change})
    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "[" * 100_000, '{"tenant": NaN}'])
def test_an_entry_that_is_no_json_object_is_a_malformed_source(text: str) -> None:
    with pytest.raises(MalformedSource):
        Source.parse("shop-1", text)


@pytest.mark.parametrize("source_id", ["", "a/b", "x" * 65, "ä"])
def test_an_id_that_could_not_be_a_queue_attribute_is_refused(source_id: str) -> None:
    with pytest.raises(MalformedSource, match="id"):
        Source.parse(source_id, json.dumps(PLAIN))


def test_a_source_made_in_code_has_no_fields_and_no_options_unless_given() -> None:
    source = Source("s", "acme", "stripe", "support", (Secret("x"),))
    assert (dict(source.fields), dict(source.scheme)) == ({}, {})


def test_an_identity_rule_is_either_or() -> None:
    with pytest.raises(MalformedSource):
        IdentityRule()


def test_secrets_do_not_show_where_a_source_is_printed() -> None:
    assert "topsecret" not in repr(parse(FULL))
    assert "topsecret" not in repr(endpoint_of("shop-1", json.dumps(FULL)).verifier)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*FULL, "scheme", "other"]), json_values, max_size=4))
def test_any_entry_is_either_usable_or_refused_with_a_reason(change: dict[str, object]) -> None:
    reason = ""
    try:
        usable = endpoint_of("shop-1", json.dumps({**PLAIN, **change}))
    except MalformedSource as exc:
        usable, reason = None, str(exc)
    assert (usable is not None) == (not reason)
    assert "topsecret" not in reason


GENERIC: dict[str, Any] = {**PLAIN, "provider": "generic-hmac"}


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({**PLAIN, "provider": "nobody"}, "nobody is not known"),
        ({**PLAIN, "scheme": {"header": "x"}}, "takes no scheme options"),
        ({**PLAIN, "provider": "svix"}, "secret 1: it is not base64"),
        ({**PLAIN, "provider": "svix", "secrets": [{"secret": "whpk_AAAA"}]}, "Ed25519"),
        ({**PLAIN, "provider": "generic-basic"}, "user:password"),
        (GENERIC, "scheme.header"),
        ({**GENERIC, "scheme": {"header": "x-s", "algorithm": "md5"}}, "scheme.algorithm"),
        ({**GENERIC, "scheme": {"header": "x-s", "encoding": "base58"}}, "scheme.encoding"),
        ({**GENERIC, "scheme": {"header": "x s"}}, "scheme.header"),
        ({**GENERIC, "scheme": {"header": "x-s", "content": "{timestamp}"}}, "body"),
        ({**GENERIC, "scheme": {"header": "x-s", "content": "{form}{body}"}}, "form"),
        ({**GENERIC, "scheme": {"header": "x-s", "timestamp_header": "x-t", "content": "{body}"}}, "timestamp_header"),
        ({**GENERIC, "scheme": {"header": "x-s", "id_header": "x-i"}}, "id_header"),
        ({**GENERIC, "scheme": {"header": "x-s", "colour": "red"}}, "colour"),
        (
            {**PLAIN, "provider": "github", "identity": {"header": "x-github-delivery", "covered": True}},
            "does not sign",
        ),
    ],
)
def test_a_source_whose_scheme_cannot_work_or_protects_nothing_is_refused(entry: dict[str, Any], why: str) -> None:
    with pytest.raises(MalformedSource, match=why.replace(".", r"\.")) as caught:
        endpoint_of("shop-1", json.dumps(entry))
    assert "topsecret" not in str(caught.value)


P256 = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEjlM7b6C/e0YluzBmfAH7YH75+Lio"
    "D+9bMAYocDGHsqNz6x294DMYNm0Gn4Om9ZAAU8c2M8sEGyHFXhqGwfQAtA=="
)
# What is not any text with a colon in it.
SECRETS = (
    dict.fromkeys(("standard-webhooks", "svix", "openai"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    | dict.fromkeys(("discord", "discord-events"), "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8")
    | {"adyen": "00ff", "sendgrid": P256}
)


def test_every_provider_needs_no_more_than_the_four_members_unless_it_is_generic() -> None:
    for name in PROVIDERS:
        scheme = {"scheme": {"header": "x-signature"}} if name == "generic-hmac" else {}
        secret = SECRETS.get(name, "u:p")
        entry = {**PLAIN, "provider": name, "secrets": [{"secret": secret}], **scheme}
        assert endpoint_of("shop-1", json.dumps(entry)).provider.name == name
