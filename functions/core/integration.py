"""A downstream dependency as the catalog describes it: what it can do, how that may be repeated, how often we try."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from functions.core.decision import Repeat
from functions.core.retry import RetryPolicy

LONGEST_BURST_SECONDS = 3600  # the limiter gives slots for an hour ahead, and a burst is slots taken early
INTAKE = "intake"  # reserved: rows of whole events (poison, held, mismatched) belong to it


@dataclass(frozen=True, slots=True)
class KindRules:
    """How one kind of action may be repeated, and how that was established.

    `key_window_seconds`: how long the provider honours our key (`keyed`). `settle_seconds`: how long after a send a
    lookup may still miss it. `can_look_up`: whether the provider can be asked by our marker. `counted_by` is the kind
    of action that counts its effects, for a while after a send that a lookup had found absent; empty for none.
    `established` names the provider's page.
    """

    kind: str
    repeat: Repeat
    key_window_seconds: int = 0
    settle_seconds: int = 180
    can_look_up: bool = False
    counted_by: str = ""
    established: str = ""


@dataclass(frozen=True, slots=True)
class Rate:
    """How often an integration may be called: so many calls a second in the long run, so many at once."""

    per_second: float
    burst: int

    def __post_init__(self) -> None:
        if not self.per_second > 0 or self.burst < 1:
            raise ValueError("a rate allows something: per_second over 0, burst of at least 1")
        if self.burst > self.per_second * LONGEST_BURST_SECONDS:
            raise ValueError("a burst is no more than what the rate allows in an hour")


@dataclass(frozen=True, slots=True)
class Integration:
    """One integration of the catalog. `deadline_seconds` bounds one call of it, on the wall clock.

    `channel` is the way to people that it serves (`email`, `sms`); empty where it needs no contact of theirs. `hosts`
    are the only ones its base URL may name: a name, or `*.` and a suffix for every name below it, for a suffix below
    which the provider alone gives out names. Without a `rate` none is limited.
    """

    id: str
    kinds: Mapping[str, KindRules] = field(default_factory=dict)
    policy: RetryPolicy = RetryPolicy()
    deadline_seconds: float = 8.0
    definite_statuses: frozenset[int] = frozenset()
    channel: str = ""
    hosts: frozenset[str] = frozenset()
    rate: Rate | None = None
