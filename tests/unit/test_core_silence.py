"""One source that is silent for longer than it ever should be (002.2)."""

from __future__ import annotations

import pytest

from functions.core.silence import Expectation, is_silent, quiet_since, silent_since

HOUR = Expectation("shop", 3_600, since_ms=1_000_000)


@pytest.mark.parametrize(
    ("seen_ms", "now_ms", "expected"),
    [
        (2_000_000, 5_600_000, False),
        (2_000_000, 5_600_001, True),
        (0, 4_600_000, False),  # its entry was written an hour ago at most: what was before was said of another
        (0, 4_600_001, True),
        (500_000, 4_600_000, False),
    ],
)
def test_a_source_is_silent_when_neither_it_nor_its_entry_has_moved_for_its_gap(
    seen_ms: int, now_ms: int, expected: bool
) -> None:
    assert is_silent(HOUR, seen_ms, now_ms, 1.0) is expected


def test_on_a_shorter_clock_the_gap_is_shorter() -> None:
    assert is_silent(HOUR, 2_000_000, 2_060_001, 1 / 60)
    assert not is_silent(HOUR, 2_000_000, 2_060_000, 1 / 60)


def test_silence_counts_from_the_later_of_the_two() -> None:
    assert (silent_since(HOUR, 0), silent_since(HOUR, 2_000_000)) == (1_000_000, 2_000_000)


def test_nothing_has_come_since_its_last_event_or_for_its_gap_at_least() -> None:
    assert quiet_since(HOUR, 2_000_000, 9_000_000, 1.0) == 2_000_000
    assert quiet_since(HOUR, 0, 9_000_000, 1.0) == 9_000_000 - 3_600_000
    assert quiet_since(HOUR, 0, 9_000_000, 1 / 60) == 9_000_000 - 60_000
