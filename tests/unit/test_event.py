"""The envelope."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.core.event import (
    GZIP_LIGHTLY_OVER_BYTES,
    GZIP_OVER_BYTES,
    MAX_BODY_BYTES,
    ClaimCheck,
    Event,
    digest,
    read_message,
)
from functions.core.failure import MalformedEnvelope

NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
EVENTS = st.builds(
    Event,
    tenant=NAMES,
    source=NAMES,
    provider=st.text(),
    flow=st.text(),
    identity=st.text(min_size=1),
    event_name=st.text(),
    event_version=st.text(),
    received_at_ms=st.integers(min_value=0, max_value=2**53),
    request_id=st.text(),
    traceparent=st.text(),
    payload_hash=st.text(),
    content_type=st.text(),
    body=st.binary() | st.binary(min_size=1, max_size=4).map(lambda b: b * GZIP_OVER_BYTES),
    repeat_window_seconds=st.integers(min_value=0, max_value=10**6),
    held=st.booleans(),
    fields=st.dictionaries(st.text(), st.text()),
)
PLAIN = Event("acme", "shop", "p", "f", "id", "n", "v", 7, "r", "t", "h", "c", b"body")


@given(EVENTS)
def test_every_event_comes_back_from_its_envelope_as_it_was(event: Event) -> None:
    message = event.to_message()
    assert message.isascii()
    assert Event.from_message(message) == event
    assert message == event.to_message()


def test_an_event_is_named_after_its_source_and_its_epoch_is_there_only_within_a_window() -> None:
    assert PLAIN.event_id == "shop:id"
    assert PLAIN.epoch_ms == 0
    windowed = Event.from_message(json.dumps(json.loads(PLAIN.to_message()) | {"repeat_window_seconds": 600}))
    assert windowed.epoch_ms == 7


def test_a_long_body_is_zipped_unless_that_makes_it_longer() -> None:
    noise = b"".join(bytes.fromhex(digest(str(number))) for number in range(1024))
    for body, encoding in (
        (b"a" * (GZIP_OVER_BYTES + 1), "gzip+base64"),
        (b"ab" * GZIP_LIGHTLY_OVER_BYTES, "gzip+base64"),
        (noise, "base64"),
        (b"a", "base64"),
    ):
        event = Event("acme", "shop", "p", "f", "id", "n", "v", 7, "r", "t", "h", "c", body)
        assert json.loads(event.to_message())["encoding"] == encoding
        assert Event.from_message(event.to_message()).body == body


def zipped(body: bytes) -> str:
    return base64.b64encode(gzip.compress(body)).decode()


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"v": 2}, "version"),
        ({"tenant": "a b"}, "tenant"),
        ({"source": ""}, "source"),
        ({"identity": ""}, "identity"),
        ({"flow": None}, "flow"),
        ({"held": "no"}, "held"),
        ({"received_at_ms": True}, "received_at_ms"),
        ({"received_at_ms": -1}, "received_at_ms"),
        ({"fields": {"a": 1}}, "fields"),
        ({"fields": []}, "fields"),
        ({"encoding": "rot13"}, "encoding"),
        ({"body": "***"}, "base64"),
        ({"body": 7}, "body"),
        ({"encoding": "gzip+base64", "body": "AAAA"}, "gzip"),
        ({"encoding": "gzip+base64", "body": zipped(b"x" * (MAX_BODY_BYTES + 1))}, "over"),
        ({"encoding": "gzip+base64", "body": zipped(bytes(range(256)))[:200]}, "cut short"),
    ],
)
def test_an_envelope_with_a_fault_is_refused_and_the_fault_named(change: dict[str, Any], names: str) -> None:
    text = json.dumps(json.loads(PLAIN.to_message()) | change)
    with pytest.raises(MalformedEnvelope, match=names):
        Event.from_message(text)


@pytest.mark.parametrize("text", ["", "[]", "7", "{", "[" * 100_000])
def test_what_is_no_json_object_is_no_envelope(text: str) -> None:
    with pytest.raises(MalformedEnvelope):
        Event.from_message(text)


@given(EVENTS)
def test_an_event_is_redeemed_from_its_claim_check_as_it_was(event: Event) -> None:
    check = ClaimCheck.of(event, event.to_message())
    assert check.to_message().isascii()
    assert read_message(check.to_message()) == check
    assert check.redeemed(read_event(event.to_message())) == event
    assert read_message(event.to_message()) == event


def read_event(text: str) -> Event:
    event = read_message(text)
    assert isinstance(event, Event)
    return event


def test_a_claim_check_takes_no_other_event_than_its_own() -> None:
    check = ClaimCheck.of(PLAIN, PLAIN.to_message())
    assert check.head.body == b""
    for change in ({"identity": "other"}, {"payload_hash": "other"}, {"tenant": "evil"}, {"held": True}):
        with pytest.raises(MalformedEnvelope, match="another event"):
            check.redeemed(replace(PLAIN, **change))


def test_each_envelope_has_a_reference_of_its_own_under_its_tenant() -> None:
    later = replace(PLAIN, received_at_ms=8)
    references = {ClaimCheck.of(event, event.to_message()).reference for event in (PLAIN, later)}
    assert len(references) == 2
    assert all(reference.startswith("claims/acme/") for reference in references)


@pytest.mark.parametrize(
    "reference",
    [
        7,
        None,
        "",
        "claims/acme/",
        "claims/acme/../evil/" + "0" * 64,
        "claims/evil/" + "0" * 64,
        "envelopes/acme/" + "0" * 64,
        "acme/" + "0" * 64,
        "claims/acme/" + "0" * 64 + "\n",
        "claims/acme/" + "A" * 64,
    ],
)
def test_a_claim_check_leads_to_nothing_but_a_claim_of_its_tenant(reference: Any) -> None:
    raw = json.loads(ClaimCheck.of(PLAIN, PLAIN.to_message()).to_message()) | {"claim": reference}
    with pytest.raises(MalformedEnvelope, match="claim"):
        read_message(json.dumps(raw))


def test_a_claim_check_is_no_envelope() -> None:
    with pytest.raises(MalformedEnvelope, match="encoding"):
        Event.from_message(ClaimCheck.of(PLAIN, PLAIN.to_message()).to_message())


@given(
    st.lists(st.text(st.characters(codec=None)), max_size=3), st.lists(st.text(st.characters(codec=None)), max_size=3)
)
def test_two_lists_of_parts_share_a_digest_only_if_they_are_equal(one: list[str], other: list[str]) -> None:
    assert (digest(*one) == digest(*other)) == (one == other)


def test_half_a_surrogate_pair_is_digested_like_any_text() -> None:
    assert digest("\ud800") != digest("\ud801")
