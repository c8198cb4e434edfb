"""What `holdfast queue` does to one item through the operator API: dismiss, cancel, note, root-cause; and `replay-one`.

The item's integration is looked up first: the API's paths begin with it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer

from functions.core.failure import RootCause
from ops import records
from ops.cli.console import AsJson, Refused, emit, say, stack_of
from ops.operator_api import connect
from ops.stack import Stack

Id = Annotated[str, typer.Argument(help="As `holdfast queue` shows it.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept in the audit.")]


def dismiss(
    ctx: typer.Context,
    recovery_id: Id,
    reason: Reason,
    *,
    done_by_hand: Annotated[bool, typer.Option("--done-by-hand", help="A person has done what it was about.")] = False,
    as_json: AsJson = False,
) -> None:
    """End an item: it is not wanted, or a person has done it. Nothing replays it afterwards."""
    _change(ctx, recovery_id, "dismiss", {"reason": reason, "done_by_hand": done_by_hand}, as_json=as_json)


def cancel(ctx: typer.Context, recovery_id: Id, reason: Reason, *, as_json: AsJson = False) -> None:
    """End an item that still waits: it must not be sent any more. Exit code 1 if it is being sent at this moment."""
    _change(ctx, recovery_id, "cancel", {"reason": reason}, as_json=as_json)


def note(
    ctx: typer.Context,
    recovery_id: Id,
    text: Annotated[str, typer.Argument(help="What whoever reads it next should know.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Leave a note on an item; it is in its history."""
    _change(ctx, recovery_id, "note", {"note": text}, as_json=as_json)


def root_cause(
    ctx: typer.Context,
    recovery_id: Id,
    cause: Annotated[RootCause, typer.Argument(help="What it is.")],
    reason: Reason,
    *,
    as_json: AsJson = False,
) -> None:
    """Say what an item's root cause is, where another was proposed."""
    _change(ctx, recovery_id, "root-cause", {"root_cause": cause.value, "reason": reason}, as_json=as_json)


def replay_one(
    ctx: typer.Context,
    recovery_id: Id,
    reason: Reason,
    *,
    checked: Annotated[
        str, typer.Option(help="What you looked at before you say that nothing of it has happened yet.")
    ] = "",
    key: Annotated[str, typer.Option(help="Of an earlier try whose answer was lost; else each call is a click.")] = "",
    as_json: AsJson = False,
) -> None:
    """Try one item once more. Exit code 1 if it is not in a state for that; the message says in which it is."""
    body: dict[str, Any] = {"reason": reason}
    if checked:
        body["confirmation"] = {"checked": checked, "effect": "none"}
    click = key or uuid.uuid4().hex
    stack = stack_of(ctx)
    path = f"{_path(stack, recovery_id)}/replay"
    answer = connect(stack).call("POST", path, body=body, idempotency_key=click)
    if as_json:
        emit({**answer, "idempotency_key": click})
        return
    say(f"{recovery_id} is on its way: one attempt, under the old key")
    if answer["integration"]["health"] != "healthy":
        say(f"{answer['integration']['integration_id']} is {answer['integration']['health']}: it may wait for that")
    say(f"what becomes of it: holdfast queue {recovery_id}")


def _change(ctx: typer.Context, recovery_id: str, what: str, body: Mapping[str, Any], *, as_json: bool) -> None:
    stack = stack_of(ctx)
    item = connect(stack).call("POST", f"{_path(stack, recovery_id)}/{what}", body=body)
    if as_json:
        emit(item)
        return
    said = item["failure_code"] or item["status"]
    say(f"{recovery_id}: {item['status']} ({said}); {item['history'][-1]['why'] if item['history'] else ''}")


def _path(stack: Stack, recovery_id: str) -> str:
    row = records.row(stack, recovery_id)
    if row is None:
        raise Refused(f"there is no row {recovery_id!r}")
    integration = quote(str(row["integration_id"]), safe="")
    return f"/platform/integrations/{integration}/recovery/queue/{quote(recovery_id, safe='')}"
