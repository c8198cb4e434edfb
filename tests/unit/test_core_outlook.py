"""How an integration is and what comes next, as people are told (000.5)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from functions.core.gate import Health
from functions.core.health import Record
from functions.core.outlook import held_by, outlook
from tests.fakes import LIVE_SWITCHES, NOON_MS


@pytest.mark.parametrize(
    ("record", "paused_until_ms", "expected"),
    [
        (Record(), 0, (0, 0, 0)),
        (Record(), NOON_MS + 5, (NOON_MS + 5, NOON_MS + 5, 0)),
        (Record(), NOON_MS - 5, (0, 0, 0)),
        (Record(Health.HARD_DOWN, probe_at_ms=NOON_MS - 5), 0, (0, 0, NOON_MS)),
        (Record(Health.HARD_DOWN, probe_at_ms=NOON_MS + 5), 0, (0, 0, NOON_MS + 5)),
        (
            Record(Health.HARD_DOWN, override=Health.HARD_DOWN, override_until_ms=NOON_MS + 9),
            NOON_MS + 5,
            (NOON_MS + 5, NOON_MS + 9, 0),
        ),
        (Record(Health.HARD_DOWN, override=Health.HEALTHY, override_until_ms=NOON_MS + 9), 0, (0, 0, 0)),
    ],
)
def test_when_it_resumes_is_said_where_somebody_stated_it(
    record: Record, paused_until_ms: int, expected: tuple[int, int, int]
) -> None:
    state = replace(record.state("desk"), paused_until_ms=paused_until_ms)
    seen = outlook(state, NOON_MS, 1.0)
    assert (seen.paused_until_ms, seen.resumes_at_ms, seen.next_probe_at_ms) == expected


def test_how_far_a_release_and_the_probes_have_come_is_said() -> None:
    released = Record(Health.DEGRADED, ramp_from_ms=NOON_MS - 300_000).state("desk")
    assert outlook(released, NOON_MS, 1.0).released == pytest.approx(0.55)
    down = Record(Health.HARD_DOWN, probe_ok=2).state("desk")
    assert (outlook(down, NOON_MS, 1.0).released, outlook(down, NOON_MS, 1.0).probes_succeeded) == (0.0, 2)
    forced = replace(down, override=Health.HARD_DOWN, override_until_ms=NOON_MS + 1)
    assert (outlook(forced, NOON_MS, 1.0).is_forced, outlook(forced, NOON_MS, 1.0).probes_succeeded) == (True, 0)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, {}),
        ({"disabled_integrations": "sms, helpdesk"}, {"disabled_integrations": "sms, helpdesk"}),
        ({"disabled_integrations": "all"}, {"disabled_integrations": "all"}),
        ({"disabled_integrations": "sms"}, {}),
        ({"limits/helpdesk": "0.5", "limits/sms": "0"}, {"limits/helpdesk": "0.5"}),
        ({"limits/helpdesk": "1"}, {}),
        ({"tenant/acme/limits/helpdesk": "0"}, {"tenant/acme/limits/helpdesk": "0"}),
        ({"flow/support/mode": "hold", "mode": "live"}, {"flow/support/mode": "hold"}),
        ({"replay": "off", "auto_reply": "off"}, {"replay": "off", "auto_reply": "off"}),
        ({"replay_blocked_integrations": "helpdesk"}, {"replay_blocked_integrations": "helpdesk"}),
        ({"classifier": "rules"}, {}),
    ],
)
def test_the_switches_that_hold_it_are_named(said: dict[str, str], expected: dict[str, str]) -> None:
    assert held_by({**LIVE_SWITCHES, **said}, "helpdesk") == expected
