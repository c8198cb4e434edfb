"""Keyword rules on text: the first that holds wins."""

from __future__ import annotations

from collections.abc import Sequence

from functions.core.catalog import KeywordRule


def first_match(rules: Sequence[KeywordRule], text: str, *, is_high_signal: bool) -> KeywordRule | None:
    """The first rule of that strength whose words are in the text, and none of whose unwanted words are.

    `text` is as `functions.core.text.plain` leaves it.
    """
    for rule in rules:
        if rule.is_high_signal is not is_high_signal or rule.wanted.search(text) is None:
            continue
        if rule.unwanted is None or rule.unwanted.search(text) is None:
            return rule
    return None
