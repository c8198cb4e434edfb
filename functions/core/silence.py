"""Whether a source has been silent for longer than it ever should be (runbook 002, "receives drop to zero"). Pure.

Of one source, because the others go on and would hide it; and only of those whose entry says how long they may be
silent (`expected_gap_seconds`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Expectation:
    """One source that should not be silent for longer than `gap_seconds`. `since_ms`: when its entry was last written:
    what it did before was said of another entry.
    """

    source: str
    gap_seconds: int
    since_ms: int


@dataclass(frozen=True, slots=True)
class Entries:
    """What the sources' entries say: of whom something is expected, by name, and which cannot be read, each with when
    it was last written.
    """

    expected: Sequence[Expectation] = ()
    unreadable: Mapping[str, int] = field(default_factory=dict)


def silent_since(expected: Expectation, seen_ms: int) -> int:
    """From when on its silence counts; `seen_ms` is its last accepted event, 0 for none."""
    return max(seen_ms, expected.since_ms)


def quiet_since(expected: Expectation, known_ms: int, now_ms: int, scale: float) -> int:
    """Since when at the latest nothing has come of one that is silent: its last event that is known, or what was said
    of this silence before; where `known_ms` is 0, for its gap.
    """
    return known_ms or now_ms - int(expected.gap_seconds * 1000 * scale)


def is_silent(expected: Expectation, seen_ms: int, now_ms: int, scale: float) -> bool:
    """Whether it is silent for longer than it ever should be. `scale` multiplies the gap."""
    return now_ms - silent_since(expected, seen_ms) > expected.gap_seconds * 1000 * scale
