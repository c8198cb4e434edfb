"""Builds the fallback matrix and the features from their files, and holds them against the rest of the catalog."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from functions.catalog.fallback_schema import FallbacksFile, FeaturesFile, MatrixRowModel
from functions.core.catalog import IntegrationProfile, Message
from functions.core.fallback import Does, Matrix, MatrixRow, integration_of
from functions.core.features import Feature, FeatureState, Level
from functions.core.gate import Health
from functions.core.integration import Integration

FALLBACKS: Final = "fallbacks.toml"
FEATURES: Final = "features.toml"
Require = Callable[[bool, str, str, str], None]
"""Refuses the catalog unless the first holds: file, key and problem follow."""


def matrix_of(
    file: FallbacksFile,
    integrations: Mapping[str, Integration],
    messages: Mapping[tuple[str, int], Message],
    features: Mapping[str, Feature],
    require: Require,
) -> Matrix:
    """The matrix. An integration that the catalog does not have is let pass; one that it has must have the kinds."""
    ways: dict[tuple[str, int], tuple[object, ...]] = {}
    for name, row in file.rows.items():
        where = f"rows.{name}"
        for kind in [*row.kinds, *row.to, *row.to.values()]:
            integration = integrations.get(integration_of(kind))
            known = integration is None or kind in integration.kinds
            require(known, FALLBACKS, where, f"{kind!r} is no kind of the catalog")
        for kind, other in row.to.items():
            _check_way(row, kind, other, where, integrations, require)
            way = (other, row.does, tuple(row.params.items()), row.target_param, row.later)
            is_same = ways.setdefault((kind, row.hop), way) == way
            require(is_same, FALLBACKS, where, f"hop {row.hop} of {kind!r} is another way in another row")
        if row.does is Does.RETRY:
            for kind in row.kinds:
                integration = integrations.get(integration_of(kind))
                agrees = integration is None or integration.policy.max_attempts == row.attempts
                require(
                    agrees, FALLBACKS, where, f"the policy of {integration_of(kind)} has not {row.attempts} attempts"
                )
        if row.feature is not None:
            require(row.feature in features, FALLBACKS, where, f"{row.feature!r} is no feature")
    return Matrix(
        rows=MappingProxyType({name: _row(name, row) for name, row in file.rows.items()}),
        critical_events=frozenset(file.critical_events),
        messages=MappingProxyType(_texts(file, messages, require)),
        integrations=integrations,
    )


def _check_way(
    row: MatrixRowModel,
    kind: str,
    other: str,
    where: str,
    integrations: Mapping[str, Integration],
    require: Require,
) -> None:
    here, there = integration_of(kind), integration_of(other)
    require(here != there, FALLBACKS, where, f"{other!r} leads back to {here}")
    if row.does is not Does.SWITCH:
        return
    for name in (here, there):
        has_channel = name not in integrations or bool(integrations[name].channel)
        require(has_channel, FALLBACKS, where, f"{name} serves no channel")


def _row(name: str, row: MatrixRowModel) -> MatrixRow:
    return MatrixRow(
        id=name,
        says=row.says,
        does=row.does,
        starts=frozenset(row.starts),
        kinds=frozenset(row.kinds),
        to=MappingProxyType(dict(row.to)),
        hop=row.hop,
        params=MappingProxyType(dict(row.params)),
        target_param=row.target_param or "",
        is_later=row.later,
        events=row.events,
        task=row.task or "",
        attempts=row.attempts,
        stays_percent=row.stays_percent,
        slow_p95_seconds=row.slow_p95_seconds,
        integration=row.integration or "",
        asks=row.asks,
        feature=row.feature or "",
    )


def _texts(
    file: FallbacksFile, messages: Mapping[tuple[str, int], Message], require: Require
) -> dict[tuple[str, int, str], tuple[str, int]]:
    texts: dict[tuple[str, int, str], tuple[str, int]] = {}
    for number, row in enumerate(file.messages):
        where = f"messages.{number}"
        for wanted in (row.message, row.is_):
            require(_version(wanted) in messages, FALLBACKS, where, f"{wanted!r} is no message of the catalog")
        own, other = _version(row.message), _version(row.is_)
        needs = messages[other].params - messages[own].params
        require(not needs, FALLBACKS, where, f"{row.is_!r} needs {sorted(needs)}, which {row.message!r} does not have")
        is_new = (*own, row.channel) not in texts
        require(is_new, FALLBACKS, where, f"{row.message!r} has two texts on {row.channel}")
        texts[*own, row.channel] = other
    return texts


def _version(text: str) -> tuple[str, int]:
    name, _, version = text.partition("@")
    return name, int(version)


def features_of(
    file: FeaturesFile, profiles: Mapping[str, IntegrationProfile], require: Require
) -> Mapping[str, Feature]:
    """The features. No text of theirs names a provider of the catalog (000.25)."""
    for integration, profile in profiles.items():
        model = file.features.get(profile.feature)
        is_listed = model is not None and integration in model.integrations
        require(is_listed, FEATURES, f"features.{profile.feature}", f"does not list the integration {integration!r}")
    names = {word for profile in profiles.values() for word in _words(profile.provider)}
    for name, model in file.features.items():
        for text in (*model.texts, file.unknown):
            named = sorted(names & _words(text))
            require(not named, FEATURES, f"features.{name}", f"a text for users names {', '.join(named)}")
    return MappingProxyType(
        {
            name: Feature(
                id=name,
                name=model.name,
                integrations=tuple(model.integrations),
                needs_all=model.needs_all,
                levels=MappingProxyType(
                    {
                        Health.HEALTHY: Level(FeatureState.OPERATIONAL, model.operational),
                        Health.DEGRADED: Level(
                            model.degraded.state, model.degraded.message, model.degraded.capabilities
                        ),
                        Health.HARD_DOWN: Level(
                            model.hard_down.state, model.hard_down.message, model.hard_down.capabilities
                        ),
                    }
                ),
                capabilities=MappingProxyType(dict(model.capabilities)),
                window_minutes=model.window_minutes,
                unknown=file.unknown,
            )
            for name, model in file.features.items()
        }
    )


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", text.lower()))
