"""A budget that refills with time."""

from __future__ import annotations

_LONGEST_WAIT_MS = 86_400_000.0  # a rate next to nothing gives a number of milliseconds that is none


class TokenBucket:
    """`burst` at once, `rate` a second in the long run. Starts full. Each environment of a function has its own."""

    __slots__ = ("_at_ms", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: int) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = float(burst)
        self._at_ms: int | None = None

    def take(self, now_ms: int) -> int:
        """0 when one was there and is taken; else the milliseconds until one is. A clock that steps back gives none."""
        elapsed_ms = max(0, now_ms - self._at_ms) if self._at_ms is not None else 0
        self._at_ms = now_ms
        self._tokens = min(float(self.burst), self._tokens + elapsed_ms * self.rate / 1000)
        if self._tokens >= 1:
            self._tokens -= 1
            return 0
        return max(1, int(min(_LONGEST_WAIT_MS, (1 - self._tokens) * 1000 / self.rate)))
