"""What makes two deliveries the same event."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.core.identity import Identity, identity_of, name_of, payload_hash_of, selected
from functions.core.source import IdentityRule

HEADER = (IdentityRule(header="x-id"),)
HASH = "ab" * 32


def identity(
    rules: tuple[IdentityRule, ...],
    headers: dict[str, str] | None = None,
    document: object = None,
    *,
    name: str = "n",
    payload_hash: str = HASH,
    content_hash: str = HASH,
    is_signed: bool = True,
) -> Identity:
    return identity_of(
        rules,
        headers or {},
        document,
        event_name=name,
        payload_hash=payload_hash,
        content_hash=content_hash,
        is_signed_header=lambda _: is_signed,
    )


def test_a_signed_id_is_the_identity_as_it_is() -> None:
    assert identity(HEADER, {"x-id": "msg_1"}) == Identity("msg_1", is_lasting=True)


def test_an_id_that_is_not_signed_does_not_hide_another_body() -> None:
    one = identity(HEADER, {"x-id": "msg_1"}, is_signed=False, content_hash="a" * 64)
    other = identity(HEADER, {"x-id": "msg_1"}, is_signed=False, content_hash="b" * 64)
    again = identity(HEADER, {"x-id": "msg_1"}, is_signed=False, content_hash="a" * 64)
    assert one != other
    assert one == again
    assert one.value.startswith("msg_1~c")


@pytest.mark.parametrize("long_id", ["x" * 129, "a b", "ä", "~w" + "0" * 64, "a~c0", "+15551234567", "\ud800"])
def test_a_long_or_odd_id_is_hashed(long_id: str) -> None:
    value = identity(HEADER, {"x-id": long_id}).value
    assert value.startswith("~h")
    assert len(value) == 66


def test_several_pointers_are_one_identity_and_do_not_run_into_each_other() -> None:
    rules = (IdentityRule(pointers=("/a", "/b")),)
    assert identity(rules, document={"a": "x", "b": "yz"}) != identity(rules, document={"a": "xy", "b": "z"})
    assert identity(rules, document={"a": "x", "b": 7}).is_lasting


def test_a_rule_that_finds_nothing_gives_way_to_the_next_and_at_last_to_the_window() -> None:
    rules = (IdentityRule(pointers=("/a", "/b")), *HEADER)
    assert identity(rules, {"x-id": "h"}, {"a": "x"}).value == "h"
    last = identity(rules, {"x-id": "  "}, {"a": "x"})
    assert last.value.startswith("~w")
    assert not last.is_lasting


def test_without_an_id_name_and_payload_are_the_identity() -> None:
    assert identity(()) == identity(())
    assert identity((), name="m") != identity(())
    assert identity((), payload_hash="cd" * 32) != identity(())


@given(st.text(min_size=1), st.text(min_size=1))
def test_two_ids_never_share_an_identity_and_every_identity_fits_a_key(one: str, other: str) -> None:
    values = [
        identity(HEADER, {"x-id": text}, is_signed=signed).value for text in (one, other) for signed in (True, False)
    ]
    expected = 4 if one.strip() != other.strip() else 2
    if one.strip() and other.strip():
        assert len(set(values)) == expected
    assert all(len(value) <= 164 and value.isascii() for value in values)


def test_a_name_is_what_the_first_selector_finds_with_its_detail() -> None:
    headers, document = {"x-event": "pull_request"}, {"action": "opened", "type": "t"}
    assert name_of(("header:x-event", "/type"), "/action", headers, document) == "pull_request.opened"
    assert name_of(("header:x-none", "/type"), "", headers, document) == "t"
    assert name_of(("/none",), "/action", headers, document) == ""
    assert selected(("/none", "header:x-event"), headers, document) == "pull_request"


@given(st.text())
def test_a_name_is_bounded_and_safe_for_a_queue_attribute(text: str) -> None:
    name = name_of(("/t",), "/t", {}, {"t": text})
    assert len(name) <= 128
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:/-")


def test_unstable_members_do_not_change_the_payload_hash() -> None:
    def hash_of(document: Any, body: bytes = b"{}") -> str:
        return payload_hash_of(body, document, ("/pending_webhooks",))

    assert hash_of({"id": 1, "pending_webhooks": 1}) == hash_of({"pending_webhooks": 2, "id": 1})
    assert hash_of({"id": 1}) != hash_of({"id": 2})
    assert hash_of([1], b"[1]") == hashlib.sha256(b"[1]").hexdigest()
    assert payload_hash_of(b"x", {"id": 1}, ()) == hashlib.sha256(b"x").hexdigest()


def test_where_an_id_alone_does_not_tell_events_apart_the_stable_part_of_the_body_does() -> None:
    document = [{"id": "1"}]
    by_pointer = (IdentityRule(pointers=("/0/id",), with_body=True),)
    by_header = (IdentityRule(header="x-id", with_body=True),)
    for rules, headers in ((by_pointer, {}), (by_header, {"x-id": "1"})):
        first = identity(rules, headers, document)
        assert first == Identity(f"1~b{HASH[:32]}", is_lasting=True)
        assert identity(rules, headers, document, content_hash="cd" * 32) == first
        assert identity(rules, headers, document, payload_hash="cd" * 32) != first
    unsigned = identity(by_header, {"x-id": "1"}, is_signed=False).value
    assert unsigned == f"1~c{HASH[:32]}~b{HASH[:32]}"
    assert identity(by_pointer, {}, [{}]).is_lasting is False


def test_unstable_members_of_every_element_do_not_change_the_payload_hash() -> None:
    first = payload_hash_of(b"1", [{"id": 1, "attempt": 0}, {"attempt": 0}], ("/*/attempt",))
    assert payload_hash_of(b"2", [{"id": 1, "attempt": 1}, {"attempt": 2}], ("/*/attempt",)) == first
    assert payload_hash_of(b"2", [{"id": 2, "attempt": 1}, {"attempt": 2}], ("/*/attempt",)) != first
    assert payload_hash_of(b"[1]", [1], ("/attempt",)) == hashlib.sha256(b"[1]").hexdigest()
