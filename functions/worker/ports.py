"""What the worker is given: its ports, its catalog, and how it calls storage without holding up its event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ParamSpec, Protocol, TypeVar

from functions.core.clock import Clock, Ids, Random
from functions.core.fallback import Matrix
from functions.core.integration import Integration
from functions.core.ports import (
    Audit,
    Caps,
    Classifier,
    Envelopes,
    HealthCounts,
    HealthRecords,
    Ledger,
    Providers,
    Recipients,
    Recovery,
    Switches,
    Visibility,
)
from functions.flows.flow import Flow

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Offload(Protocol):
    """Runs a storage call where it does not hold up the event loop: `asyncio.to_thread`, or directly in tests."""

    def __call__(self, call: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> Awaitable[_R]:
        """The call's result."""
        ...


class Log(Protocol):
    """The lines a tired person reads. `extra` takes fields of the vocabulary only."""

    def info(self, msg: str, *, extra: Mapping[str, Any] | None = None) -> None:
        """Something went as it should."""
        ...

    def warning(self, msg: str, *, extra: Mapping[str, Any] | None = None) -> None:
        """Something was contained."""
        ...

    def error(self, msg: str, *, extra: Mapping[str, Any] | None = None) -> None:
        """Something happened that must not."""
        ...

    def exception(self, msg: str, *, extra: Mapping[str, Any] | None = None) -> None:
        """Something failed, with where it came from."""
        ...


class Meter(Protocol):
    """Counts."""

    def count(self, name: str, value: float = 1, **dimensions: str) -> None:
        """Add to a count."""
        ...

    def milliseconds(self, name: str, value: float, **dimensions: str) -> None:
        """Record how long something took."""
        ...

    def count_at(self, name: str, at_ms: int, **dimensions: str) -> None:
        """Add one to the count of the hour of that moment."""
        ...

    def flush(self) -> None:
        """Write down what was counted so far. Else that is done when the invocation ends."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything outside the worker."""

    ledger: Ledger
    recovery: Recovery
    counts: HealthCounts
    health: HealthRecords
    recipients: Recipients
    caps: Caps
    audit: Audit
    switches: Switches
    envelopes: Envelopes
    providers: Providers
    classifier: Classifier
    visibility: Visibility
    clock: Clock
    ids: Ids
    rng: Random
    io: Offload
    log: Log
    meter: Meter
    integrations: Mapping[str, Integration]
    flows: Mapping[str, Flow]
    fallbacks: Matrix = field(default_factory=Matrix)
    automatic_per_hour: Mapping[str, int] = field(default_factory=dict)  # by flow; without one, the default


@dataclass(frozen=True, slots=True)
class Budget:
    """The time of one invocation. Nothing starts that cannot end by `ends_at_ms`."""

    clock: Clock
    ends_at_ms: int
    lease_until_ms: int

    def left_ms(self) -> int:
        """Milliseconds left, never negative."""
        return max(0, self.ends_at_ms - self.clock.now_ms())

    def fits(self, seconds: float) -> bool:
        """Whether something that takes so long at most may still start."""
        return self.left_ms() >= seconds * 1000
