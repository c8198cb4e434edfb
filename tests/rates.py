"""A judge of rates: by how much the calls that were made exceed what a rate and its burst allow."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from functions.core.integration import Rate


def most_over(calls: Iterable[int], rate: Rate) -> Fraction:
    """By how many calls the fullest window of time is over burst and rate; 0 or less: none is. `calls` are moments in
    milliseconds.

    Every window counts that begins and ends with a call, both included: it holds as many calls as their places say.
    """
    per_ms = Fraction(rate.per_second) / 1000
    up, down = per_ms.numerator, per_ms.denominator
    worst, lowest = -(10**18), 10**18
    for place, at_ms in enumerate(sorted(calls)):
        debt = place * down - at_ms * up
        lowest = min(lowest, debt)
        worst = max(worst, debt - lowest)
    return Fraction(worst, down) + 1 - rate.burst
