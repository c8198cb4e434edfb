"""What users are told of a feature while an integration behind it is not well (architecture §8, runbook 000).

Pure. The texts are the catalog's, and name no provider; which integration it is stays between operators.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from functions.core.fallback import health_of
from functions.core.gate import Health, IntegrationState


class FeatureState(StrEnum):
    """Of a feature, as users see it."""

    OPERATIONAL = "operational"
    DEGRADED = "degraded"
    UNAVAILABLE = "unavailable"
    UNKNOWN = "unknown"
    """Nobody can say: what would tell does not answer, or has not been kept up."""


@dataclass(frozen=True, slots=True)
class Level:
    """What holds while the integrations behind a feature are like that. `capabilities` go over the feature's own."""

    state: FeatureState
    message: str
    capabilities: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature of the product. `needs_all`: the worst of its integrations counts, else the best.

    `capabilities` are what an app's UI asks about, as they are while all is well. `window_minutes` is within what time
    users hear more where nobody has said; 0 where that is not known. `unknown` is what they are told while nobody knows
    how it is.
    """

    id: str
    name: str
    integrations: tuple[str, ...]
    needs_all: bool
    levels: Mapping[Health, Level]
    capabilities: Mapping[str, bool] = field(default_factory=dict)
    window_minutes: int = 0
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class FeatureStatus:
    """What to show. At most one of `next_update_ms` (when users hear more) and `window_minutes` (within what time) is
    set; neither while all is well. A capability is None while nobody knows.
    """

    id: str
    name: str
    state: FeatureState
    message: str
    capabilities: Mapping[str, bool | None]
    next_update_ms: int = 0
    window_minutes: int = 0

    def to_data(self) -> dict[str, Any]:
        """As apps read it; what is not known is left out (000.26)."""
        data: dict[str, Any] = {
            "name": self.name,
            "state": self.state.value,
            "message": self.message,
            "capabilities": dict(self.capabilities),
        }
        if self.next_update_ms:
            data["next_update_ms"] = self.next_update_ms
        if self.window_minutes:
            data["next_update_within_minutes"] = self.window_minutes
        return data


_WORSE = (Health.HEALTHY, Health.DEGRADED, Health.HARD_DOWN)


def status_of(
    features: Mapping[str, Feature],
    states: Mapping[str, IntegrationState],
    now_ms: int,
    next_updates: Mapping[str, int] | None = None,
    unknown: Collection[str] = (),
) -> tuple[FeatureStatus, ...]:
    """The status of every feature. `states` are control items by integration; without one it is healthy.

    `next_updates` says by feature when an incident's next update is due; one that is over says nothing. Of the
    integrations that are `unknown` nobody can say how they are: what they could make better or worse is unknown too.
    """
    known = {} if next_updates is None else next_updates
    return tuple(_status(feature, states, now_ms, known.get(feature.id, 0), unknown) for feature in features.values())


def _status(
    feature: Feature,
    states: Mapping[str, IntegrationState],
    now_ms: int,
    next_update_ms: int,
    unknown: Collection[str],
) -> FeatureStatus:
    judged = [name for name in feature.integrations if name not in unknown]
    healths = sorted((health_of(states.get(name), now_ms) for name in judged), key=_WORSE.index)
    if len(judged) < len(feature.integrations) and not _is_down_anyway(feature, healths):
        nobody_knows = dict.fromkeys(feature.capabilities)
        return FeatureStatus(feature.id, feature.name, FeatureState.UNKNOWN, feature.unknown, nobody_knows)
    health = healths[-1] if feature.needs_all else healths[0]
    if not feature.needs_all and health is Health.HEALTHY and healths[-1] is not Health.HEALTHY:
        health = Health.DEGRADED  # one way is open, and another is not
    level = feature.levels[health]
    status = FeatureStatus(
        feature.id, feature.name, level.state, level.message, {**feature.capabilities, **level.capabilities}
    )
    if level.state is FeatureState.OPERATIONAL:
        return status
    if next_update_ms > now_ms:
        return replace(status, next_update_ms=next_update_ms)
    return replace(status, window_minutes=feature.window_minutes)


def _is_down_anyway(feature: Feature, known: list[Health]) -> bool:
    """Whether it is as bad as it can be, however those are of whom nobody knows."""
    return feature.needs_all and known[-1:] == [Health.HARD_DOWN]
