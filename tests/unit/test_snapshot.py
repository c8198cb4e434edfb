"""What is kept of a provider's refusal: enough to ask its support, and nothing that is somebody's (004.10)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.adapters.http import Answer
from functions.adapters.snapshot import MAX_LENGTH, snapshot_of

SECRETS = ("+15005550006", "ann@example.com", "sk_live_4eC39HqLyjWDarjtT1zdp7dc", "Ann Smith", "where is my parcel 77?")


def told(body: bytes | None, headers: dict[str, str] | None = None, trouble: str = "") -> Any:
    return json.loads(snapshot_of(422, headers or {}, body, trouble))


def test_status_request_id_and_codes_are_kept_and_texts_are_not() -> None:
    body = {
        "error": {"code": "card_declined", "type": "card_error", "message": "Your card 4242 was declined", "param": ""},
        "code": 21211,
        "is_final": True,
        "more_info": None,
        "to": "+15005550006",
        "amount": 1250,
        "contacts": ["ann@example.com"] * 5,
    }
    headers = {"content-type": "application/json", "request-id": "req_1aB", "set-cookie": "s=1", "x-request-id": "\x00"}
    assert told(json.dumps(body).encode(), headers) == {
        "status": 422,
        "headers": {"content-type": "application/json", "request-id": "req_1aB"},
        "body": {
            "error": {
                "code": "card_declined",
                "type": "card_error",
                "message": "text, 27 characters",
                "param": "text, 0 characters",
            },
            "code": 21211,
            "is_final": True,
            "more_info": None,
            "to": "text, 12 characters",
            "amount": "number",
            "contacts": ["text, 15 characters"] * 3 + ["2 more"],
        },
    }


@pytest.mark.parametrize(
    ("body", "trouble", "shape"),
    [
        (b"<html>no</html>", "", "15 bytes"),
        (b"", "", "0 bytes"),
        (None, "the body did not arrive whole", "the body did not arrive whole"),
        (b"[" * 100_000, "", "100000 bytes"),
        (b'{"a":{"b":{"c":{"d":{"e":1}}}}}', "", {"a": {"b": {"c": {"d": "object, 1 members"}}}}),
        (b'{"a":{"b":{"c":{"d":[1]}}}}', "", {"a": {"b": {"c": {"d": "list, 1 items"}}}}),
        (b'{"ann@example.com":"x","code":1234567}', "", {"code": "number", "+": "1 more"}),
        (b'{"code":-1,"status":1.5}', "", {"code": "number", "status": "number"}),
        (b'"HTTP_503"', "", "text, 8 characters"),
        (b'{"errors":[{"code":"a"},{"code":"b"}]}', "", {"errors": [{"code": "a"}, {"code": "b"}]}),
    ],
)
def test_whatever_came_is_told_by_its_shape(body: bytes | None, trouble: str, shape: Any) -> None:
    assert told(body, trouble=trouble)["body"] == shape


def test_a_long_answer_is_told_by_its_length_alone() -> None:
    body = {f"member{chr(97 + n)}" * 5: {"code": "a" * 80, "type": "b" * 80} for n in range(12)}
    raw = json.dumps(body).encode()
    assert told(raw) == {"status": 422, "body": f"{len(raw)} bytes"}


VALUES = st.recursive(
    st.sampled_from(SECRETS) | st.integers() | st.none() | st.booleans() | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from((*SECRETS, "code", "error", "type", "status", "message", "to")), inner)
    ),
)


@given(document=VALUES, header=st.sampled_from(SECRETS))
def test_nothing_of_what_was_sent_is_kept_wherever_the_provider_repeats_it(document: Any, header: str) -> None:
    kept = snapshot_of(400, {"set-cookie": header, "server": header}, json.dumps(document).encode())
    assert len(kept) <= MAX_LENGTH
    assert json.loads(kept)["status"] == 400
    assert not any(secret in kept for secret in SECRETS)


def test_a_refusal_has_its_answer_and_a_success_none() -> None:
    refused = Answer(503, {"x-request-id": "r-1"}, b'{"error":"maintenance"}').failure(0)
    assert refused is not None
    assert json.loads(refused.answer) == {
        "status": 503,
        "headers": {"x-request-id": "r-1"},
        "body": {"error": "maintenance"},
    }
    page = Answer(200, {"content-type": "text/html"}, b"<html>").failure(0)
    assert page is not None
    assert json.loads(page.answer)["body"] == "6 bytes"
    assert Answer(200, {}, b"{}").failure(0) is None
