"""Counts what ended for people, in whichever function it did (architecture §10): called once the write that ended it is
made. Whoever dies in between loses a count; the row is there, and `holdfast queue` shows it.
"""

from __future__ import annotations

from typing import Protocol

from functions.core.ends import Attention, attention
from functions.core.recovery import Change


class Meter(Protocol):
    """Counts."""

    def count(self, name: str, value: float = 1, **dimensions: str) -> None:
        """Add to a count."""
        ...


def count_ended(meter: Meter, change: Change, *, is_critical: bool) -> None:
    """Count the change if it is an end that people must see, and for the alarm if they must act."""
    asked = attention(change, is_critical=is_critical)
    if asked is Attention.NONE:
        return
    row = change.after
    meter.count("ended_for_people", integration=row.integration_id, reason=row.failure_code)
    if asked is Attention.ACT:
        meter.count("people_needed")
