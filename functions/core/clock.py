"""Time, randomness and ids, as ports. The only module that touches the global ones; everything else is given these."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Monotonic = Callable[[], float]
"""Seconds since some moment; whatever becomes of the time of day, it never steps back."""


class Clock(Protocol):
    """Tells the time of day."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, UTC."""
        ...


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment that some work must not outlast, on a monotonic clock."""

    at_seconds: float
    monotonic: Monotonic

    @staticmethod
    def after(seconds: float, monotonic: Monotonic) -> Deadline:
        """The moment that many seconds from now."""
        return Deadline(monotonic() + seconds, monotonic)

    def remaining_seconds(self) -> float:
        """What is left until then; 0 when it has passed."""
        return max(0.0, self.at_seconds - self.monotonic())


class Random(Protocol):
    """Draws numbers."""

    def uniform(self, low: float, high: float) -> float:
        """A number from `low` to `high`, both included."""
        ...


class Ids(Protocol):
    """Makes ids that nobody has used before."""

    def new_id(self) -> str:
        """32 lower-case hexadecimal digits."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, UTC."""
        return time.time_ns() // 1_000_000


def system_monotonic() -> float:
    """The machine's monotonic clock, as a `Monotonic`."""
    return time.monotonic()


class SystemRandom:
    """The operating system's randomness: unaffected by a process that was frozen and thawed."""

    def uniform(self, low: float, high: float) -> float:
        """A number from `low` to `high`, both included."""
        share = int.from_bytes(os.urandom(7), "big") / (2**56 - 1)
        return low + (high - low) * share


class SystemIds:
    """128 bits of the operating system's randomness."""

    def new_id(self) -> str:
        """32 lower-case hexadecimal digits."""
        return os.urandom(16).hex()
