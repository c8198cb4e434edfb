"""Keyword rules: whole words in any spelling, the first rule that holds, and the rules that ship."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.catalog.loader import load
from functions.core.catalog import KeywordRule
from functions.core.text import plain
from functions.flows.keywords import first_match

RULES = load().rules


def matched(text: str, *, is_high_signal: bool) -> str:
    rule = first_match(RULES, plain(text), is_high_signal=is_high_signal)
    return rule.label if rule else ""


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("It CAUGHT   fire!", "safety"),
        ("I’ll talk to my lawyer", "legal"),
        ("I filed a chargeback.", "chargeback"),
        ("GDPR: delete my data", "privacy"),
        ("where’s my order?", "order_status"),
        ("Where is my order? My lawyer asks", "legal"),
        ("Where is my order? It arrived damaged", ""),
        ("please chargebacks", ""),
        ("unlawful lawsuits", ""),
        ("", ""),
    ],
)
def test_high_signal_words_are_found_whole_and_what_must_not_be_missed_first(text: str, label: str) -> None:
    assert matched(text, is_high_signal=True) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("I want my MONEY back", "refund"),
        ("cancel my subscription", "cancellation"),
        ("It doesn't fit", "returns"),
        ("When will my parcel arrive?", "order_status"),
        ("I was charged twice", "billing"),
        ("I can't log in", "technical"),
        ("any promo code?", "sales"),
        ("refundable?", ""),
        ("my lawyer", ""),
    ],
)
def test_weaker_words_are_asked_for_apart(text: str, label: str) -> None:
    assert matched(text, is_high_signal=False) == label


def test_a_rule_does_not_hold_with_an_unwanted_word() -> None:
    rule = KeywordRule("a", True, re.compile("yes"), re.compile("no"), "team", "a")
    later = KeywordRule("b", True, re.compile("yes"), None, "team", "b")
    assert first_match([rule, later], "yes", is_high_signal=True) is rule
    assert first_match([rule, later], "yes and no", is_high_signal=True) is later


def test_only_high_signal_rules_reply() -> None:
    assert all(rule.is_high_signal for rule in RULES if rule.reply)


@given(st.text(max_size=200))
def test_any_text_can_be_searched(text: str) -> None:
    for is_high_signal in (True, False):
        rule = first_match(RULES, plain(text), is_high_signal=is_high_signal)
        assert rule is None or rule.is_high_signal is is_high_signal
