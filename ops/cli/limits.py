"""`holdfast limits`: how often integrations are called, and from when on again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import typer

from functions.adapters.ledger import DynamoLedger
from functions.catalog.loader import load
from functions.core import sweep
from functions.core.clock import SystemIds
from functions.core.gate import IntegrationState, WaitingFor
from functions.core.health import rate_factor
from functions.core.integration import Integration
from functions.core.limiter import Limit, load_of, resumes_at_ms
from functions.core.switches import Snapshot, SwitchView, view
from ops import records
from ops.cli import switches
from ops.cli.console import AsJson, emit, say, show_table, stack_of, time_of, time_scale_of

PAGE = "docs/runbooks/recovery.md"


@dataclass(frozen=True, slots=True)
class Standing:
    """One integration's limit. `waiting` are the rows that wait for the limiter; the events that wait in their queue
    for a slot of the next two minutes are not among them.

    `factor` is the switch's; `per_second` and `burst` also reckon with the half that a degraded integration gets.
    `held_by` says what keeps all calls of it back, whatever the rate (`sweep.why_parked`); then `resumes_at_ms` is
    known only where an operator's override states its end, else 0.
    """

    integration: str
    per_second: float | None
    burst: int | None
    factor: float
    health: str
    held_by: str
    load: str
    tat_ms: int
    paused_until_ms: int
    resumes_at_ms: int
    waiting: int


def standing(
    integration: Integration, state: IntegrationState, switches: SwitchView, waiting: int, now_ms: int, scale: float
) -> Standing:
    """What is known of one integration, put together."""
    factor, health = switches.limit(integration.id), state.health_at(now_ms)
    rate, limit, left = integration.rate, None, factor * rate_factor(state, now_ms)
    if rate is not None and left > 0:
        limit = Limit.of(rate, left, scale)
    held_by = sweep.why_parked(replace(state, paused_until_ms=0), switches, now_ms, 0) or ""
    if not held_by:
        resumes_ms = resumes_at_ms(state, rate, now_ms, scale)
    else:
        resumes_ms = state.override_until_ms if held_by == "hard_down" and state.is_forced_at(now_ms) else 0
    return Standing(
        integration=integration.id,
        per_second=None if rate is None else round(rate.per_second * left / scale, 3),
        burst=None if rate is None else limit.fitting(0, now_ms) if limit else 0,
        factor=factor,
        health=health.value,
        held_by=held_by,
        load=load_of(state.tat_ms, now_ms).value if rate else "",
        tat_ms=state.tat_ms,
        paused_until_ms=state.paused_until_ms if state.paused_until_ms > now_ms else 0,
        resumes_at_ms=resumes_ms,
        waiting=waiting,
    )


def resumes(one: Standing, now_ms: int) -> str:
    """When a call that is asked for now could be made, for people: with its day where that is not today."""
    if one.resumes_at_ms > now_ms:
        moment = time_of(one.resumes_at_ms)
        day = "" if moment[:10] == time_of(now_ms)[:10] else f"{moment[:10]} "
        return f"at {day}{moment[11:16]} UTC"
    return _HELD.get(one.held_by, "when {held_by} is over" if one.held_by else "now").format(
        integration=one.integration, held_by=one.held_by
    )


_HELD = {
    "mode_hold": "when mode is live again",
    "mode_shadow": "when mode is live again",
    "disabled": "when disabled_integrations lets it",
    "hard_down": "when it is back: holdfast integrations {integration}",
    "limit_0": "when limits/{integration} is over 0",
}


def show(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Each integration's rate, what the switch leaves of it, when sending resumes, and how many items wait for it."""
    stack = stack_of(ctx)
    integrations: Mapping[str, Integration] = load().integrations
    ledger = DynamoLedger(stack.client("dynamodb"), SystemIds(), control_table=stack.output("ControlTable"))
    states = ledger.read([], list(integrations)).integrations
    now_ms = time.time_ns() // 1_000_000
    values = {name: str(item["value"]) for name, item in switches.read(stack).items()}
    in_force = view(Snapshot(values, now_ms), flow="", source="", tenant="", now_ms=now_ms)
    found = [
        standing(
            integration,
            states[name],
            in_force,
            records.waiting(stack, name, WaitingFor.LIMITER.value) if integration.kinds else 0,
            now_ms,
            time_scale_of(stack),
        )
        for name, integration in integrations.items()
    ]
    if as_json:
        emit([_document(one) for one in found])
        return
    show_table(
        "",
        (
            "integration",
            "health",
            "per second",
            "at once",
            "factor",
            "load",
            "taken until",
            "paused until",
            "resumes",
            "waiting",
        ),
        [
            (
                one.integration,
                one.health,
                "no limit" if one.per_second is None else one.per_second,
                "" if one.burst is None else one.burst,
                one.factor,
                one.load,
                time_of(one.tat_ms) if one.tat_ms > now_ms else "",
                time_of(one.paused_until_ms),
                resumes(one, now_ms),
                one.waiting,
            )
            for one in found
        ],
    )
    say('slow one down: holdfast switch set limits/INTEGRATION 0.5 --reason "..."; 0 parks it')
    say(f"what to do: {PAGE}, section 5")


def _document(one: Standing) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Standing.__dataclass_fields__}
