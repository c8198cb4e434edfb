"""Settings, time, chance, ids and the words of the audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.core.audit import AuditEvent, AuditType, Severity, audit_id
from functions.core.clock import SystemClock, SystemIds, SystemRandom
from functions.env import EnvSettings, InvalidSetting, MissingSetting
from functions.worker.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class Settings(EnvSettings):
    """One field of each kind."""

    queue_url: str
    timeout_seconds: int
    time_scale: float


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(TEXTS, st.integers(), st.floats(allow_nan=False))
def test_settings_come_back_from_their_variables_as_they_were(url: str, seconds: int, scale: float) -> None:
    settings = Settings(url, seconds, scale)
    assert Settings.from_env(settings.to_env()) == settings


def test_variables_have_the_upper_cased_names_of_the_fields() -> None:
    assert set(Settings("u", 1, 1.0).to_env()) == {"QUEUE_URL", "TIMEOUT_SECONDS", "TIME_SCALE"}


def test_settings_are_read_from_the_process_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in Settings("https://queue", 7, 0.5).to_env().items():
        monkeypatch.setenv(name, value)
    assert Settings.from_env() == Settings("https://queue", 7, 0.5)


@pytest.mark.parametrize("name", ["QUEUE_URL", "TIMEOUT_SECONDS"])
@pytest.mark.parametrize("change", [lambda env, name: env.pop(name), lambda env, name: env.update({name: ""})])
def test_a_missing_or_empty_variable_is_named(name: str, change: Callable[[dict[str, str], str], None]) -> None:
    env = Settings("u", 1, 1.0).to_env()
    change(env, name)
    with pytest.raises(MissingSetting, match=f"Settings needs the environment variable {name}"):
        Settings.from_env(env)


@pytest.mark.parametrize(("name", "value"), [("TIMEOUT_SECONDS", "1.5"), ("TIME_SCALE", "quick")])
def test_a_variable_that_its_field_cannot_hold_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidSetting, match=name):
        Settings.from_env(Settings("u", 1, 1.0).to_env() | {name: value})


def test_the_workers_settings_hold_only_what_variables_can() -> None:
    assert {str(field.type) for field in fields(WorkerSettings)} <= {"str", "int", "float"}


def test_the_system_clock_tells_milliseconds_and_does_not_run_backwards_here() -> None:
    first, second = SystemClock().now_ms(), SystemClock().now_ms()
    assert 1_700_000_000_000 < first <= second < 10_000_000_000_000


def test_system_chance_stays_within_its_bounds_and_varies() -> None:
    drawn = {SystemRandom().uniform(0.5, 1.0) for _ in range(50)}
    assert all(0.5 <= number <= 1.0 for number in drawn)
    assert len(drawn) > 1


def test_system_ids_are_32_hexadecimal_digits_and_never_the_same() -> None:
    made = {SystemIds().new_id() for _ in range(100)}
    assert len(made) == 100
    assert all(len(one) == 32 and int(one, 16) >= 0 and one == one.lower() for one in made)


def test_the_five_recovery_events_of_the_runbook_have_its_names_004_16() -> None:
    names = {one.value for one in AuditType}
    for name in ("retry_scheduled", "reprocess_failed", "retry_exhausted", "reprocess_succeeded", "replayed"):
        assert f"platform.integration.recovery.{name}" in names


def test_severities_are_the_three_of_the_runbook_003_24() -> None:
    assert [one.value for one in Severity] == ["warning", "error", "critical"]


def test_a_repeated_write_of_one_transition_is_the_same_audit_event() -> None:
    first = audit_id("r1", 3, AuditType.REPLAYED)
    assert first == audit_id("r1", 3, AuditType.REPLAYED)
    assert len({first, audit_id("r2", 3, AuditType.REPLAYED), audit_id("r1", 4, AuditType.REPLAYED)}) == 3
    assert first != audit_id("r1", 3, AuditType.DISMISSED)


def test_an_audit_event_is_filed_under_what_it_is_about() -> None:
    event = AuditEvent("i", 1, AuditType.REPLAYED, Severity.WARNING, "acme", "kim", "recovery_item", "r1", "q1")
    assert event.entity == "recovery_item#r1"
