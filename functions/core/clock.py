"""Time, randomness and ids, as ports. The only module that touches the global ones; everything else is given these."""

from __future__ import annotations

import random
import time
import uuid
from typing import Protocol


class Clock(Protocol):
    """Tells the time of day."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, UTC."""
        ...


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


class SystemRandom:
    """The operating system's randomness: unaffected by a process that was frozen and thawed."""

    def __init__(self) -> None:
        self._source = random.SystemRandom()

    def uniform(self, low: float, high: float) -> float:
        """A number from `low` to `high`, both included."""
        return self._source.uniform(low, high)


class SystemIds:
    """Random UUIDs, version 4, without dashes."""

    def new_id(self) -> str:
        """32 lower-case hexadecimal digits."""
        return uuid.uuid4().hex
