"""`holdfast events`."""

from __future__ import annotations

from typing import Annotated

import typer

from functions.core import synthetic
from ops import records
from ops.cli.console import AsJson, Limit, Refused, emit, say, show_fields, show_table, stack_of, time_of
from ops.local.parameters import TENANT as DEMO_TENANT
from ops.records import Item
from ops.stack import Stack


def show(
    ctx: typer.Context,
    event_id: Annotated[str, typer.Argument(help="One event, `source:identity`; without it the latest ones.")] = "",
    tenant: Annotated[str, typer.Option(help="Whose event it is; on a local stack the demo's, if not said.")] = "",
    source: Annotated[
        str, typer.Option(help="Only events of this source. Those that the stage sends itself: synthetic.")
    ] = "",
    status: Annotated[str, typer.Option(help="Only events in this status: processing, settled.")] = "",
    limit: Limit = 20,
    scan: Annotated[bool, typer.Option(help="List on AWS too: reads the whole ledger, which costs.")] = False,
    as_json: AsJson = False,
) -> None:
    """What became of events: the ledger's view. Exit code 1 if the event is not there."""
    stack = stack_of(ctx)
    if event_id:
        if not (tenant or stack.is_local):
            raise Refused("an event's id is unique within its tenant: say --tenant")
        _one(stack, tenant or DEMO_TENANT, event_id, as_json=as_json)
        return
    if not (stack.is_local or scan):
        raise Refused("listing reads the whole ledger, which costs on AWS: name an event, or say --scan")
    found = [
        item
        for item in records.events(stack, with_synthetic=source == synthetic.SOURCE)
        if (not source or str(item["event_id"]).startswith(f"{source}:"))
        and (not status or item["status"] == status)
        and (not tenant or item["tenant"] == tenant)
    ][:limit]
    if as_json:
        emit(found)
        return
    if not found:
        say("no such events; one that was just sent may not have been claimed yet")
        return
    show_table(
        "",
        ("received", "event", "status", "label", "decided by", "actions"),
        [
            (
                time_of(item.get("received_at")),
                item["event_id"],
                item["status"],
                *_classification(item),
                ", ".join(f"{name} {mark}" for name, mark in _marks(item)),
            )
            for item in found
        ],
    )


def _one(stack: Stack, tenant: str, event_id: str, *, as_json: bool) -> None:
    item = records.event(stack, tenant, event_id)
    rows = records.rows_of_event(stack, tenant, event_id, item)
    if item is None and not rows:
        raise Refused(f"there is no event {event_id!r} of tenant {tenant!r}")
    if as_json:
        emit({**(item or {"tenant": tenant, "event_id": event_id}), "rows": rows})
        return
    if item is not None:
        label, decided_by = _classification(item)
        show_fields(
            [
                ("event", event_id),
                ("tenant", tenant),
                ("status", item["status"]),
                ("received", time_of(item.get("received_at"))),
                ("label", label),
                ("decided by", decided_by),
                ("generation", item.get("generation")),
            ]
        )
        show_table("actions", ("name", "state"), _marks(item))
    if rows:
        columns = ("recovery id", "status", "attempts", "failure", "waits for")
        show_table(
            "recovery",
            columns,
            [
                (
                    row["pk"],
                    row["status"],
                    row.get("attempt_count", 0),
                    row.get("failure_code", ""),
                    row.get("waiting_for", ""),
                )
                for row in rows
            ],
        )


def _classification(item: Item) -> tuple[str, str]:
    said = (item.get("decision") or {}).get("c") or ["", "", "", "", []]
    return str(said[0]), str(said[2])


def _marks(item: Item) -> list[tuple[str, str]]:
    return [(name, str(mark.get("s", ""))) for name, mark in (item.get("actions") or {}).items()]
