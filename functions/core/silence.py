"""Whether a source has been silent for longer than it ever should be (runbook 002, "receives drop to zero"). Pure.

Of one source, because the others go on and would hide it; and only of those whose entry says how long they may be
silent (`expected_gap_seconds`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Expectation:
    """One source that should not be silent for longer than `gap_seconds`. `since_ms`: when its entry was last written:
    what it did before was said of another entry.
    """

    source: str
    gap_seconds: int
    since_ms: int


def silent_since(expected: Expectation, seen_ms: int) -> int:
    """From when on its silence counts; `seen_ms` is its last accepted event, 0 for none."""
    return max(seen_ms, expected.since_ms)


def is_silent(expected: Expectation, seen_ms: int, now_ms: int, scale: float) -> bool:
    """Whether it is silent for longer than it ever should be. `scale` multiplies the gap."""
    return now_ms - silent_since(expected, seen_ms) > expected.gap_seconds * 1000 * scale
