"""How fast a job may call its integrations: at a share of their rates, whatever lowers these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from functions.core.gate import IntegrationState
from functions.core.health import rate_factor
from functions.core.integration import INTAKE, Integration, Rate
from functions.core.limiter import Limit
from functions.core.replay import SHARE, Limits
from functions.core.switches import view
from functions.replay.judging import Look


def limits_of(
    known: Mapping[str, Integration], integrations: Sequence[str], look: Look, scale: float, now_ms: int
) -> Limits:
    """By integration, what replays may take; None where it has no rate, or is switched off, which others see to.

    Whole events call what their flow decides upon: they go as if it were all for the slowest integration there is.
    """
    switches = view(look.snapshot, flow="", source="", tenant="", now_ms=now_ms)
    limits: dict[str, Limit | None] = {}
    for name in integrations:
        rate = slowest(known) if name == INTAKE else known[name].rate if name in known else None
        state = look.states.get(name) or IntegrationState(name)
        factor = SHARE * switches.limit(name) * rate_factor(state, now_ms)
        limits[name] = None if rate is None or factor <= 0 else Limit.of(rate, factor, scale)
    return limits


def slowest(known: Mapping[str, Integration]) -> Rate | None:
    """The rate of the integration that may be called least."""
    rates = [one.rate for one in known.values() if one.rate is not None]
    return min(rates, key=lambda rate: rate.per_second, default=None)
