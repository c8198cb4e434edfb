"""`holdfast health set | clear`: an operator's word on the health of an integration, for a time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Annotated

import typer

from functions.core.failure import IllegalTransition, StorageUnavailable, VersionConflict
from functions.core.gate import Health
from functions.core.health import REASON_LENGTH, HealthChange, Record, force, lift
from ops.cli.console import AsJson, Refused, check_integrations, emit, say, stack_of, time_of
from ops.cli.integrations import health_records
from ops.cli.replaying import who
from ops.stack import Stack

app = typer.Typer(help="Say what an integration's health is, for a time; or take that back.", no_args_is_help=True)

TRIES = 8  # the machine writes the same item each minute, and with each probe
_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhd])", re.ASCII)
_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
Integration = Annotated[str, typer.Argument(help="As in `holdfast integrations`.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept in the audit.")]
Actor = Annotated[str, typer.Option(help="Who asks; without it, as these credentials say.")]


@app.command("set")
def force_state(
    ctx: typer.Context,
    integration: Integration,
    state: Annotated[Health, typer.Argument(help="What it is to be, whatever the machine says.")],
    duration: Annotated[str, typer.Option("--for", help="For how long: 90s, 30m, 4h, 2d; at most 7d.")],
    reason: Reason,
    actor: Actor = "",
    as_json: AsJson = False,
) -> None:
    """Force a state until a time. It ends by itself, and what the machine says holds again.

    hard_down: nothing is sent, not even a probe, and what waits spends no attempt. healthy and degraded: it is called,
    although the machine holds it down. Without an audit there is no change.
    """
    stack = stack_of(ctx)
    check_integrations([integration])
    lasts_ms, why, by = _lasts_ms(duration), _reason(reason), _actor(stack, actor)
    before, change = write(stack, integration, state, lasts_ms, reason=why, actor=by)
    _tell(integration, before, change, as_json=as_json)


@app.command("clear")
def lift_state(
    ctx: typer.Context, integration: Integration, reason: Reason, actor: Actor = "", as_json: AsJson = False
) -> None:
    """End what was set before its time: what the machine says holds again. Exit code 1 if nothing was set."""
    stack = stack_of(ctx)
    check_integrations([integration])
    why, by = _reason(reason), _actor(stack, actor)
    before, change = take_back(stack, integration, reason=why, actor=by)
    _tell(integration, before, change, as_json=as_json)


def write(
    stack: Stack, integration: str, state: Health, lasts_ms: int, *, reason: str, actor: str
) -> tuple[Record, HealthChange]:
    """Force the state for so long; gives the record before, and the change. Raises `Refused`."""
    return _store(
        stack,
        integration,
        lambda record, now_ms: force(
            integration, record, state, now_ms + lasts_ms, actor=actor, reason=reason, now_ms=now_ms
        ),
    )


def take_back(stack: Stack, integration: str, *, reason: str, actor: str) -> tuple[Record, HealthChange]:
    """End what was forced; gives the record before, and the change. Raises `Refused`, also where nothing was."""
    return _store(
        stack, integration, lambda record, now_ms: lift(integration, record, now_ms, actor=actor, reason=reason)
    )


def _store(
    stack: Stack, integration: str, change_of: Callable[[Record, int], HealthChange]
) -> tuple[Record, HealthChange]:
    """The record before, and the change that was made to it. Raises `Refused` where none was."""
    held = health_records(stack)
    try:
        for _ in range(TRIES):
            before = held.read([integration])[integration]
            change = change_of(before, time.time_ns() // 1_000_000)
            try:
                held.store(integration, change)
            except VersionConflict:
                continue
            return before, change
    except (ValueError, IllegalTransition) as exc:
        raise Refused(str(exc)) from exc
    except StorageUnavailable as exc:
        raise Refused(
            f"the tables did not do their part ({exc}): `holdfast integrations {integration}` shows whether it was "
            "changed; without its audit it was not"
        ) from exc
    raise Refused(f"the health of {integration} was changed by others each time: try again")


def _tell(integration: str, before: Record, change: HealthChange, *, as_json: bool) -> None:
    event = change.audit[0]
    was, now = before.state(integration), change.after.state(integration)
    document = {
        "integration": integration,
        "before": was.health_at(event.at_ms).value,
        "health": now.health_at(event.at_ms).value,
        "machine_says": change.after.health.value,
        "until_ms": change.after.override_until_ms,
        "actor": event.actor,
        "reason": event.reason,
        "version": change.after.version,
    }
    if as_json:
        emit(document)
        return
    until = f" until {time_of(change.after.override_until_ms)}" if change.after.override_until_ms else ""
    machine = document["machine_says"]
    say(f"{integration}: {document['before']} → {document['health']}{until}; the machine says {machine}")
    if was.health_at(event.at_ms) is Health.HARD_DOWN and now.health_at(event.at_ms) is not Health.HARD_DOWN:
        say("what waited is let go little by little, all of it after ten minutes")
    if change.after.override is not None:
        say(f'it ends by itself then; earlier: holdfast health clear {integration} --reason "..."')


def _lasts_ms(duration: str) -> int:
    found = _DURATION.fullmatch(duration)
    if found is None:
        raise Refused(f"{duration!r} is no time: say 90s, 30m, 4h or 2d")
    return int(found[1]) * _MS[found[2]]


def _reason(reason: str) -> str:
    if not reason.strip() or len(reason) > REASON_LENGTH:
        raise Refused(f"give a reason of at most {REASON_LENGTH} characters")
    return reason.strip()


def _actor(stack: Stack, actor: str) -> str:
    if actor and (not actor.strip() or len(actor) > REASON_LENGTH):
        raise Refused(f"an actor has at most {REASON_LENGTH} characters")
    return actor.strip() or who(stack)
