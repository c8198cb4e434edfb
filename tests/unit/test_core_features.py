"""What users are told of a feature (000.24, 000.25, 000.26)."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from functions.catalog.loader import load
from functions.core.features import FeatureState, status_of
from functions.core.gate import Health, IntegrationState
from tests.fakes import NOON_MS

FEATURES = load().features
HOUR_MS = 3_600_000


def states(**health: Health) -> dict[str, IntegrationState]:
    return {name: IntegrationState(name, one) for name, one in health.items()}


def test_while_all_is_well_every_feature_is_operational_and_nothing_is_announced() -> None:
    for status in status_of(FEATURES, {}, NOON_MS, {"billing": NOON_MS + HOUR_MS}):
        assert status.state is FeatureState.OPERATIONAL
        assert all(status.capabilities.values())
        assert set(status.to_data()) == {"name", "state", "message", "capabilities"}


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("health", [Health.DEGRADED, Health.HARD_DOWN])
def test_no_feature_is_operational_once_all_behind_it_is_unwell(feature: str, health: Health) -> None:
    unwell = states(**dict.fromkeys(FEATURES[feature].integrations, health))
    [status] = [one for one in status_of(FEATURES, unwell, NOON_MS) if one.id == feature]
    assert status.state is not FeatureState.OPERATIONAL
    assert status.message != FEATURES[feature].levels[Health.HEALTHY].message
    assert set(status.capabilities) == set(FEATURES[feature].capabilities)


def test_a_feature_with_two_ways_is_unavailable_only_when_neither_is_open() -> None:
    def of(**health: Health) -> FeatureState:
        return next(one.state for one in status_of(FEATURES, states(**health), NOON_MS) if one.id == "notifications")

    assert of(email=Health.HARD_DOWN) is FeatureState.DEGRADED
    assert of(email=Health.HARD_DOWN, sms=Health.DEGRADED) is FeatureState.DEGRADED
    assert of(email=Health.HARD_DOWN, sms=Health.HARD_DOWN) is FeatureState.UNAVAILABLE
    assert of(sms=Health.DEGRADED) is FeatureState.DEGRADED


def test_a_feature_that_needs_all_is_as_well_as_the_worst() -> None:
    both = {"x": replace(FEATURES["notifications"], id="x", needs_all=True)}
    [status] = status_of(both, states(email=Health.HARD_DOWN), NOON_MS)
    assert status.state is FeatureState.UNAVAILABLE


def test_the_next_update_is_the_incident_s_else_the_feature_s_window_else_left_out() -> None:
    """000.26."""
    down = states(payments=Health.HARD_DOWN, llm=Health.HARD_DOWN)

    def data(feature: str, **next_updates: int) -> dict[str, object]:
        found = status_of(FEATURES, down, NOON_MS, next_updates)
        return next(one.to_data() for one in found if one.id == feature)

    said = data("billing", billing=NOON_MS + HOUR_MS)
    assert said["next_update_ms"] == NOON_MS + HOUR_MS
    assert "next_update_within_minutes" not in said
    for over in (data("billing"), data("billing", billing=NOON_MS)):
        assert over["next_update_within_minutes"] == 120
        assert "next_update_ms" not in over
    assert not {"next_update_ms", "next_update_within_minutes"} & set(data("classification"))


def test_no_text_for_users_names_a_provider_an_integration_s_insides_or_is_long() -> None:
    """000.24, 000.25."""
    names = {"richpanel", "openai", "chatgpt", "stripe", "twilio", "signalhouse", "amazon", "aws", "ses", "sendgrid"}
    names |= {"llm", "api", "ocr", "webhook", "http", "provider", "timeout"}
    names |= {word for one in load().profiles.values() for word in re.findall(r"[a-z0-9]+", one.provider)}
    for feature in FEATURES.values():
        for level in feature.levels.values():
            assert not set(re.findall(r"[a-z0-9]+", level.message.lower())) & names, level.message
            assert not set(re.findall(r"[a-z0-9]+", feature.name.lower())) & names
            assert len(level.message) <= 140
            assert "will notify you" not in level.message


AWAITED = {"email", "sms", "payments", "ocr", "parser", "ai", "app"}


def test_every_integration_that_matrix_and_features_name_is_in_the_catalog_or_awaited() -> None:
    """A misspelt one would be obeyed and do nothing."""
    known = set(load().integrations) | AWAITED
    for feature in FEATURES.values():
        assert set(feature.integrations) <= known, feature.id
    for row in load().fallbacks.rows.values():
        named = {kind.partition(".")[0] for kind in [*row.kinds, *row.to, *row.to.values()]}
        assert named | ({row.integration} if row.integration else set()) <= known, row.id


def test_of_an_integration_that_nobody_knows_the_feature_is_unknown_and_so_is_what_it_can_do() -> None:
    def of(feature: str, unknown: set[str], **health: Health) -> tuple[FeatureState, set[bool | None]]:
        found = status_of(FEATURES, states(**health), NOON_MS, {feature: NOON_MS + HOUR_MS}, unknown)
        one = next(one for one in found if one.id == feature)
        assert (one.next_update_ms > 0) is (one.state not in (FeatureState.UNKNOWN, FeatureState.OPERATIONAL))
        return one.state, set(one.capabilities.values())

    assert of("billing", {"payments"}) == (FeatureState.UNKNOWN, {None})
    assert of("billing", {"llm"}) == (FeatureState.OPERATIONAL, {True})
    assert of("notifications", {"sms"}) == (FeatureState.UNKNOWN, {None})
    assert of("notifications", {"sms"}, email=Health.HARD_DOWN) == (FeatureState.UNKNOWN, {None}), "or unavailable"
    assert of("document_reading", {"parser"}, ocr=Health.DEGRADED) == (FeatureState.UNKNOWN, {None}), "or worse"
    assert of("document_reading", {"parser"}, ocr=Health.HARD_DOWN)[0] is FeatureState.UNAVAILABLE, "it is no worse"
