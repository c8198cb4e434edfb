"""When to try again: policies as data, waits as pure functions of attempts, failure and chance.

Waits and attempts are those of requirements.md ("attempts", "backoff", "429"): five calls with 1, 2, 4 and 8 minutes
between them, three with 5 and 10 minutes; each wait drawn from 50 to 100 % of itself and never below what the provider
asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from functions.core.clock import Random
from functions.core.failure import Failure

SHORTEST_STATED_WAIT_MS = 1_000
LONGEST_STATED_WAIT_MS = 6 * 3600 * 1000
_EPOCH_SECONDS_FROM = 1_000_000_000  # a number above this is a point in time, not one of seconds: that were 31 years
_EPOCH_MILLISECONDS_FROM = 1_000_000_000_000
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?\Z")  # float() would read other scripts' digits, underscores, "nan", "1e9"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often one integration is called for one action, the first call included, and how long to wait in between."""

    max_attempts: int = 5
    waits_seconds: tuple[int, ...] = (60, 120, 240, 480)
    budget_seconds: int = 24 * 3600

    def __post_init__(self) -> None:
        if self.max_attempts < 1 or len(self.waits_seconds) < self.max_attempts - 1:
            raise ValueError("a policy of n attempts needs n - 1 waits")


def wait_ms(policy: RetryPolicy, attempts_made: int, failure: Failure, rng: Random, scale: float) -> int:
    """How long to wait after `attempts_made` calls (at least 1). `scale` shortens our waits, never the provider's."""
    index = min(max(attempts_made, 1), len(policy.waits_seconds)) - 1
    own = policy.waits_seconds[index] * 1000 * scale if policy.waits_seconds else 0.0
    drawn = int(rng.uniform(0.5, 1.0) * own)
    stated = failure.retry_after_ms
    return max(drawn, 1) if stated is None else max(drawn, stated)


def is_exhausted(policy: RetryPolicy, attempts_made: int, first_attempt_at_ms: int, next_at_ms: int) -> bool:
    """Whether a further call would exceed the policy's attempts or its time budget."""
    return attempts_made >= policy.max_attempts or next_at_ms - first_attempt_at_ms > policy.budget_seconds * 1000


def parse_retry_after(value: str, now_ms: int) -> int | None:
    """The wait a `Retry-After` header asks for, in ms, clamped to 1 s … 6 h; None if it says nothing usable.

    Seconds or an HTTP date (RFC 9110 §10.2.3), and what else is met: fractions, times since the epoch.
    """
    return parse_rate_limit_reset(value, now_ms)


def parse_rate_limit_reset(value: str, now_ms: int) -> int | None:
    """The wait an `x-ratelimit-reset` header asks for: seconds from now, seconds or milliseconds since the epoch, or a
    date.
    """
    text = value.strip()[:64]
    number = _number(text)
    if number is None:
        at_ms = _date_ms(text)
        return None if at_ms is None else _clamped(at_ms - now_ms)
    if number >= _EPOCH_MILLISECONDS_FROM:
        return _clamped(number - now_ms)
    if number >= _EPOCH_SECONDS_FROM:
        return _clamped(number * 1000 - now_ms)
    return _clamped(number * 1000)


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.match(text) else None


def _date_ms(text: str) -> float | None:
    try:
        at = parsedate_to_datetime(text)
        # HTTP dates are UTC; those written without a zone must not be read in the zone of the machine.
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None


def _clamped(wait: float) -> int:
    return int(min(max(wait, SHORTEST_STATED_WAIT_MS), LONGEST_STATED_WAIT_MS))
