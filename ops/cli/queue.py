"""`holdfast queue`."""

from __future__ import annotations

import json
import time
from dataclasses import fields
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from functions.adapters import richpanel, ses, stripe, twilio
from functions.catalog.loader import load
from functions.core.attempt import Effect
from functions.core.decision import Action
from functions.core.failure import IllegalTransition, MalformedDecision
from functions.core.fallback import action_at
from functions.core.integration import INTAKE
from functions.core.recovery import SUPPRESSED, Row, Status, why_not_replayable
from ops import records
from ops.cli import items
from ops.cli.console import (
    AsJson,
    Limit,
    Refused,
    check_integrations,
    emit,
    say,
    show_fields,
    show_table,
    stack_of,
    time_of,
)
from ops.stack import Stack

PAGE = "docs/runbooks/recovery.md"


class _OrItem(TyperGroup):
    """`holdfast queue` lists, `holdfast queue RECOVERY_ID` shows one, and the other words do something to one."""

    default_command = "show"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Without a command of the group's it is `show` that is meant."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = [self.default_command, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_OrItem, help="The recovery queue: a list, one item (`holdfast queue RECOVERY_ID`), or what is done to one."
)


@app.command("show")
def show(
    ctx: typer.Context,
    recovery_id: Annotated[str, typer.Argument(help="One row; without it, a list.")] = "",
    integration: Annotated[str, typer.Option(help="Only rows of this integration.")] = "",
    status: Annotated[list[Status] | None, typer.Option(help="Only rows in this status; may be repeated.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """What is unfinished, dead or was replayed, and why. Exit code 1 if the row is not there.

    What succeeded is left out unless it is asked for: --status succeeded.
    """
    stack = stack_of(ctx)
    if recovery_id:
        _one(stack, recovery_id, as_json=as_json)
        return
    known = (*load().integrations, INTAKE)
    check_integrations([integration] if integration else [], and_also=[INTAKE])
    statuses = status or [one for one in Status if one is not Status.SUCCEEDED]
    found = records.rows(stack, [integration] if integration else known, [one.value for one in statuses], limit=limit)
    if as_json:
        emit(found)
        return
    if not found:
        say("nothing is there")
        return
    show_table(
        "",
        ("recovery id", "status", "integration", "what", "attempts", "failure", "waits for", "due", "event"),
        [
            (
                row["pk"],
                row["status"],
                row["integration_id"],
                _what(row),
                row.get("attempt_count", 0),
                row.get("failure_code", ""),
                row.get("waiting_for", ""),
                time_of(row.get("due_at_ms")),
                row["event_id"],
            )
            for row in found
        ],
    )
    if len(found) == limit:
        say(f"{limit} are shown, and there may be more: --limit, --status, --integration")
    say(f"one of them, with its audit: holdfast queue RECOVERY_ID; what to do: {PAGE}")


app.command("list")(show)
app.command("dismiss")(items.dismiss)
app.command("cancel")(items.cancel)
app.command("note")(items.note)
app.command("root-cause")(items.root_cause)
app.command("replay")(items.replay_one)


def _one(stack: Stack, recovery_id: str, *, as_json: bool) -> None:
    row = records.row(stack, recovery_id)
    if row is None:
        raise Refused(f"there is no row {recovery_id!r}")
    audit = records.audit_of(stack, f"recovery_item#{recovery_id}")
    if as_json:
        emit({**row, "audit": audit})
        return
    try:
        read, untold = records.row_as_decided_on(stack, recovery_id), ""
    except MalformedDecision as exc:
        read, untold = None, f"{exc}: it was written by another version; see {PAGE}"
    hidden = {"pk", "gpk", "gsk", "history", "write_id", "action", "stand_in"}
    show_fields(
        [("recovery id", recovery_id), ("what", _what(row)), *([] if read is None else at_the_provider(read))]
        + [
            (name, time_of(value) if name in _TIMES else value)
            for name, value in sorted(row.items())
            if name not in hidden
        ]
    )
    show_table(
        "audit",
        ("time", "event", "actor", "to", "why", "contained"),
        [
            (
                time_of(event["at_ms"]),
                event["event_type"],
                event["actor"],
                event.get("recovery_status", ""),
                event.get("reason") or event.get("error", ""),
                event.get("containment_action", ""),
            )
            for event in audit
        ],
    )
    if untold:
        say(untold)
    if read is not None:
        say(f"{what_next(read, time.time_ns() // 1_000_000)} ({PAGE})")


_TIMES = frozenset(field.name for field in fields(Row) if field.name.endswith("_ms") and field.name != "epoch_ms")


def at_the_provider(row: Row) -> list[tuple[str, str]]:
    """Where at the provider its effect would be, on the way that it goes now, and by what it is told from others."""
    if row.action is None:
        return []
    try:
        action = action_at(row.action, row.hop, load().fallbacks)
    except IllegalTransition:  # the catalog has that way no more; the row says so when it is tried
        action = row.action
    return [("target", action.target), ("action id", action.action_id), ("known there by", _mark_of(action))]


def _mark_of(action: Action) -> str:
    match action.kind:
        case richpanel.REPLY:
            return f"a comment that ends with {richpanel.marker_of(action.action_id)}"
        case twilio.SEND:
            return f"a text that ends with {twilio.reference_of(action.action_id)}"
        case ses.SEND:
            return f"the tag action_id={action.action_id}"
        case stripe.CREATE_CHECKOUT_SESSION | stripe.REFUND:
            return f"metadata {stripe.MARKER}={action.action_id}"
        case stripe.CANCEL_SUBSCRIPTION | stripe.CHANGE_PLAN:
            return f"metadata {stripe.subscription_marker(action.kind)}={action.action_id}"
        case _:
            return ""


def what_next(row: Row, now_ms: int) -> str:
    """What the row's reader can do about it."""
    if row.is_open:
        return f"the machine goes on by itself, next at {time_of(row.due_at_ms) or 'the success of what it waits for'}"
    if row.is_final:
        return "it has ended for good: nothing is left to do"
    if row.effect is Effect.UNKNOWN:
        return "it may have happened, so no replay touches it: look at the provider whether it did, and do it by hand"
    refused = why_not_replayable(row, now_ms)
    if refused is not None:
        return f"no replay would take it ({refused}): if it is still wanted, do it by hand"
    asked_for = f" --failure-code {SUPPRESSED}" if row.failure_code == SUPPRESSED else ""
    return f'when its cause is gone: holdfast replay --id {row.recovery_id}{asked_for} --reason "..."'


def _what(row: records.Item) -> str:
    """The action's kind, or that it is a whole event."""
    action = row.get("action")
    if not action:
        return "event"
    return str((json.loads(action) if isinstance(action, str) else action).get("k", ""))
