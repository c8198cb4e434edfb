"""`holdfast queue`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from functions.catalog.loader import load
from functions.core.recovery import Status
from ops import records
from ops.cli.console import AsJson, Limit, Refused, emit, show_fields, show_table, stack_of, time_of
from ops.stack import Stack

INTAKE = "intake"


def show(
    ctx: typer.Context,
    recovery_id: Annotated[str, typer.Argument(help="One row; without it, a list.")] = "",
    integration: Annotated[str, typer.Option(help="Only rows of this integration.")] = "",
    status: Annotated[list[Status] | None, typer.Option(help="Only rows in this status; may be repeated.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """The recovery queue: what is unfinished, dead or was replayed, and why. Exit code 1 if the row is not there."""
    stack = stack_of(ctx)
    if recovery_id:
        _one(stack, recovery_id, as_json=as_json)
        return
    known = (*load().integrations, INTAKE)
    if integration and integration not in known:
        raise Refused(f"there is no integration {integration!r}; there are {', '.join(known)}")
    found = records.rows(
        stack, [integration] if integration else known, [one.value for one in status or []], limit=limit
    )
    if as_json:
        emit(found)
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


def _one(stack: Stack, recovery_id: str, *, as_json: bool) -> None:
    row = records.row(stack, recovery_id)
    if row is None:
        raise Refused(f"there is no row {recovery_id!r}")
    audit = records.audit_of(stack, f"recovery_item#{recovery_id}")
    if as_json:
        emit({**row, "audit": audit})
        return
    times = ("received_at_ms", "created_at_ms", "updated_at_ms", "due_at_ms", "not_before_ms", "expires_at_ms")
    hidden = {"pk", "gpk", "gsk", "history", "write_id", "action", "stand_in"}
    show_fields(
        [("recovery id", recovery_id), ("what", _what(row))]
        + [
            (name, time_of(value) if name in times else value)
            for name, value in sorted(row.items())
            if name not in hidden
        ]
    )
    show_table(
        "audit",
        ("time", "event", "actor", "to", "why"),
        [
            (
                time_of(event["at_ms"]),
                event["event_type"],
                event["actor"],
                event.get("recovery_status", ""),
                event.get("reason") or event.get("error", ""),
            )
            for event in audit
        ],
    )


def _what(row: records.Item) -> str:
    """The action's kind, or that it is a whole event."""
    action = row.get("action")
    if not action:
        return "event"
    return str((json.loads(action) if isinstance(action, str) else action).get("k", ""))
