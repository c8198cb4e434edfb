"""`holdfast health set | clear`: an operator's word on the health of an integration, for a time."""

from __future__ import annotations

from typing import Annotated

import typer

from functions.core.gate import Health
from functions.operator_api.problems import Code
from ops.cli.console import AsJson, Refused, emit, say, stack_of, time_of
from ops.integrations import of_stage
from ops.operator_api import ApiRefused, Document

app = typer.Typer(help="Say what an integration's health is, for a time; or take that back.", no_args_is_help=True)

Integration = Annotated[str, typer.Argument(help="As in `holdfast integrations`.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept in the audit.")]


@app.command("set")
def force_state(
    ctx: typer.Context,
    integration: Integration,
    state: Annotated[Health, typer.Argument(help="What it is to be, whatever the machine says.")],
    duration: Annotated[str, typer.Option("--for", help="For how long: 90s, 30m, 4h, 2d; at most 7d.")],
    reason: Reason,
    as_json: AsJson = False,
) -> None:
    """Force a state until a time. It ends by itself, and what the machine says holds again.

    hard_down: nothing is sent, not even a probe, and what waits spends no attempt. healthy and degraded: it is called,
    although the machine holds it down. Without an audit there is no change.
    """
    stage = of_stage(stack_of(ctx))
    try:
        told = stage.force(integration, state, duration, reason.strip())
    except ApiRefused as refused:
        raise _in_our_words(refused, integration) from refused
    _tell(told, as_json=as_json)


@app.command("clear")
def lift_state(ctx: typer.Context, integration: Integration, reason: Reason, as_json: AsJson = False) -> None:
    """End what was set before its time: what the machine says holds again. Nothing is changed if nothing was set."""
    stage = of_stage(stack_of(ctx))
    try:
        told = stage.lift(integration, reason.strip())
    except ApiRefused as refused:
        raise _in_our_words(refused, integration) from refused
    _tell(told, as_json=as_json)


def _in_our_words(refused: ApiRefused, integration: str) -> Refused:
    if refused.code == Code.UNAVAILABLE.value:
        return Refused(f"{refused}: holdfast integrations {integration}")
    return Refused(str(refused))


def _tell(told: Document, *, as_json: bool) -> None:
    if as_json:
        emit(told)
        return
    name, before, health, override = (told[part] for part in ("integration_id", "before", "health", "override"))
    if not told["is_changed"]:
        say(f"{name}: nothing was set, so nothing was changed; it is {health}, as the machine says")
        return
    until = f" until {time_of(override['until_ms'])}" if override["until_ms"] else ""
    say(f"{name}: {before} → {health}{until}; the machine says {told['machine_says']}")
    if before == Health.HARD_DOWN.value != health:
        say("what waited is let go little by little, all of it after ten minutes")
    if override["state"]:
        say(f'it ends by itself then; earlier: holdfast health clear {name} --reason "..."')
