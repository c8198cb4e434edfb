"""`holdfast limits` over a stage in moto: what an operator sees of rates, pauses and what waits (003.17, 003.18)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from functions.core.gate import Health, IntegrationState, WaitingFor
from functions.core.integration import Integration, Rate
from functions.core.recovery import parked_first
from functions.core.switches import Snapshot, view
from ops.cli import limits, run
from ops.cli.console import ExitCode
from ops.stack import Stack, client
from tests import aws_tables
from tests.aws_tables import sdk_client
from tests.contract.storage import World, blank, dynamo_world
from tests.fakes import LIVE_SWITCHES, NOON_MS

OUTPUTS = {"ControlTable": aws_tables.CONTROL, "RecoveryTable": aws_tables.RECOVERY, "SwitchesPath": "/s"}
FAR_MS = 4_102_444_800_000  # 2100-01-01T00:00:00Z: the command has the machine's clock


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with aws_tables.moto_tables() as dynamodb:
        client.cache_clear()
        ssm = sdk_client("ssm")
        for name, value in {**LIVE_SWITCHES, "limits/llm": "0.5"}.items():
            ssm.put_parameter(Name=f"/s/{name}", Value=value, Type="String")
        monkeypatch.setattr(limits, "stack_of", lambda _: Stack("dev", aws_tables.REGION, OUTPUTS))
        yield dynamo_world(dynamodb)
        client.cache_clear()


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    assert run(["limits", "--json"]) == ExitCode.OK
    return {one["integration"]: one for one in json.loads(capsys.readouterr().out)}


def test_rates_and_what_the_switch_leaves_of_them_are_shown(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    helpdesk, llm = (shown(capsys)[name] for name in ("helpdesk", "llm"))
    assert (helpdesk["per_second"], helpdesk["burst"], helpdesk["factor"], helpdesk["load"]) == (1.0, 20, 1.0, "idle")
    assert (llm["per_second"], llm["burst"], llm["factor"]) == (4.0, 10, 0.5)


def test_what_waits_is_counted_and_sending_resumes_at_a_time_that_is_said_003_18(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.ledger.pause("helpdesk", FAR_MS, FAR_MS + 19_000)
    for number in range(3):
        row = replace(blank(event_id=f"desk:{number}"), slot_ms=FAR_MS)
        world.recovery.put_if_absent(parked_first(row, WaitingFor.LIMITER, "helpdesk is at its rate", FAR_MS))
    world.recovery.put_if_absent(parked_first(blank(event_id="desk:x"), WaitingFor.HEALTH, "down", FAR_MS))
    one = shown(capsys)["helpdesk"]
    assert (one["waiting"], one["paused_until_ms"], one["resumes_at_ms"]) == (3, FAR_MS, FAR_MS)
    assert run(["limits"]) == ExitCode.OK
    told = capsys.readouterr()
    assert re.search(r"helpdesk .*full.*at 2100-01-01 00:00 UTC +3", told.out)
    assert re.search(r"llm .*idle.*now +0", told.out)
    assert "holdfast switch set limits/" in told.err


DESK = Integration("desk", rate=Rate(2, 4))


def said(
    state: IntegrationState, switches: Mapping[str, str] | None = None, integration: Integration = DESK
) -> tuple[limits.Standing, str]:
    """What is known of an integration under these switches, and when sending resumes, in words."""
    values = {**LIVE_SWITCHES, **(switches or {})}
    in_force = view(Snapshot(values, NOON_MS), flow="", source="", tenant="", now_ms=NOON_MS)
    one = limits.standing(integration, state, in_force, 7, NOON_MS, 1.0)
    return one, limits.resumes(one, NOON_MS)


def test_an_integration_without_a_rate_and_a_parked_one_say_so() -> None:
    free, when = said(IntegrationState("free"), integration=Integration("free"))
    assert (free.per_second, free.burst, free.load, when) == (None, None, "", "now")
    parked, when = said(IntegrationState("desk"), {"limits/desk": "0"})
    assert (parked.per_second, parked.burst, parked.resumes_at_ms) == (0.0, 0, 0)
    assert when == "when limits/desk is over 0"


@pytest.mark.parametrize(
    ("state", "switches", "when"),
    [
        (IntegrationState("desk", Health.HARD_DOWN), {}, "when it is back: holdfast integrations desk"),
        (IntegrationState("desk"), {"disabled_integrations": "sms,desk"}, "when disabled_integrations lets it"),
        (IntegrationState("desk"), {"mode": "hold"}, "when mode is live again"),
        (IntegrationState("desk", paused_until_ms=NOON_MS + 60_000), {}, "at 00:01 UTC"),
        (IntegrationState("desk", paused_until_ms=NOON_MS + 60_000), {"mode": "hold"}, "when mode is live again"),
    ],
)
def test_sending_does_not_resume_now_while_something_else_than_the_rate_keeps_it_back(
    state: IntegrationState, switches: dict[str, str], when: str
) -> None:
    """003.18: whoever asks when sending resumes is not told "now" of an integration that nobody calls."""
    assert said(state, switches)[1] == when


def test_what_an_operator_holds_down_resumes_at_its_end_with_the_day_where_that_is_another() -> None:
    held = IntegrationState("desk", override=Health.HARD_DOWN, override_until_ms=NOON_MS + 24 * 3_600_000)
    one, when = said(held)
    assert (one.health, one.held_by, one.resumes_at_ms) == ("hard_down", "hard_down", NOON_MS + 24 * 3_600_000)
    assert when == "at 2026-01-02 00:00 UTC"
    over = replace(held, override=Health.HEALTHY, health=Health.HARD_DOWN)
    assert said(over)[1] == "now"


def test_a_degraded_integration_is_shown_at_half_its_rate() -> None:
    one, _ = said(IntegrationState("desk", Health.DEGRADED))
    assert (one.per_second, one.factor, one.health) == (1.0, 1.0, "degraded")


def test_a_table_that_does_not_answer_is_said_so_without_a_traceback(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    sdk_client("dynamodb").delete_table(TableName=aws_tables.CONTROL)
    assert run(["limits"]) == ExitCode.UNREACHABLE
    told = capsys.readouterr()
    assert told.out == ""
    assert "ResourceNotFoundException" in told.err
