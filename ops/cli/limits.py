"""`holdfast limits`: how often integrations are called, and from when on again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import typer

from functions.adapters.ledger import DynamoLedger
from functions.catalog.loader import load
from functions.core.clock import SystemIds
from functions.core.gate import IntegrationState, WaitingFor
from functions.core.integration import Integration
from functions.core.limiter import Limit, load_of, resumes_at_ms
from functions.core.switches import Snapshot, view
from infra.config import STAGES
from ops import records
from ops.cli import switches
from ops.cli.console import AsJson, emit, say, show_table, stack_of, time_of


@dataclass(frozen=True, slots=True)
class Standing:
    """One integration's limit. `waiting` are the rows that wait for the limiter; the events that wait in their queue
    for a slot of the next two minutes are not among them.
    """

    integration: str
    per_second: float | None
    burst: int | None
    factor: float
    load: str
    tat_ms: int
    paused_until_ms: int
    resumes_at_ms: int
    waiting: int


def standing(
    integration: Integration, state: IntegrationState, factor: float, waiting: int, now_ms: int, scale: float
) -> Standing:
    """What is known of one integration, put together."""
    rate, limit = integration.rate, None
    if rate is not None and factor > 0:
        limit = Limit.of(rate, factor, scale)
    return Standing(
        integration=integration.id,
        per_second=None if rate is None else round(rate.per_second * factor / scale, 3),
        burst=None if rate is None else limit.fitting(0, now_ms) if limit else 0,
        factor=factor,
        load=load_of(state.tat_ms, now_ms).value if rate else "",
        tat_ms=state.tat_ms,
        paused_until_ms=state.paused_until_ms if state.paused_until_ms > now_ms else 0,
        resumes_at_ms=resumes_at_ms(state, rate, now_ms, scale) if factor > 0 else 0,
        waiting=waiting,
    )


def resumes(one: Standing, now_ms: int) -> str:
    """When a call that is asked for now could be made, for people."""
    if not one.factor:
        return f"when limits/{one.integration} is over 0"
    return "now" if one.resumes_at_ms <= now_ms else f"at {time_of(one.resumes_at_ms)[11:16]} UTC"


def show(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Each integration's rate, what the switch leaves of it, when sending resumes, and how many items wait for it."""
    stack = stack_of(ctx)
    integrations: Mapping[str, Integration] = load().integrations
    ledger = DynamoLedger(stack.client("dynamodb"), SystemIds(), control_table=stack.output("ControlTable"))
    states = ledger.read([], list(integrations)).integrations
    now_ms = time.time_ns() // 1_000_000
    values = {name: str(item["value"]) for name, item in switches.read(stack).items()}
    in_force = view(Snapshot(values, now_ms), flow="", source="", tenant="", now_ms=now_ms)
    stage = STAGES.get(stack.stage)
    found = [
        standing(
            integration,
            states[name],
            in_force.limit(name),
            records.waiting(stack, name, WaitingFor.LIMITER.value) if integration.kinds else 0,
            now_ms,
            stage.time_scale if stage else 1.0,
        )
        for name, integration in integrations.items()
    ]
    if as_json:
        emit([_document(one) for one in found])
        return
    show_table(
        "",
        ("integration", "per second", "at once", "factor", "load", "taken until", "paused until", "resumes", "waiting"),
        [
            (
                one.integration,
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


def _document(one: Standing) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Standing.__dataclass_fields__}
