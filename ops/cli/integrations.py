"""`holdfast integrations`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from functions.core.outlook import MOST_COUNTED
from ops.cli.console import AsJson, emit, say, show_fields, show_table, stack_of, time_of
from ops.integrations import of_stage

PAGE = "docs/runbooks/recovery.md"
WAITING = ("pending", "retrying", "replayed")
DEAD = ("dlq", "failed")


def show(
    ctx: typer.Context,
    integration: Annotated[str, typer.Argument(help="One integration; without it, all.")] = "",
    as_json: AsJson = False,
) -> None:
    """How every integration is: its health, since when and why, what waits for it, and which switches hold it.

    Exit code 1 if there is no such integration.
    """
    stage = of_stage(stack_of(ctx))
    if integration:
        one = stage.one(integration)
        if as_json:
            emit(one)
            return
        show_fields(_fields(one))
        _say_what_is_not_known([one])
        say(f"what to do: {PAGE}, section 5")
        return
    found = stage.every()
    if as_json:
        emit(found)
        return
    show_table(
        "",
        ("integration", "health", "since", "why", "set until", "resumes at", "waits", "dead", "switches"),
        [
            (
                one["integration_id"],
                one["health"],
                time_of(one["since_ms"]),
                one["override"]["reason"] or one["reason"],
                time_of(one["override"]["until_ms"]),
                time_of(one["resumes_at_ms"]),
                _counted(one["backlog"], WAITING),
                _counted(one["backlog"], DEAD),
                ", ".join(f"{name}={value}" for name, value in sorted(one["switches"]["held_by"].items())),
            )
            for one in found
        ],
    )
    _say_what_is_not_known(found)
    say("one of them: holdfast integrations INTEGRATION; set its health: holdfast health set")


def _fields(one: Mapping[str, Any]) -> list[tuple[str, Any]]:
    override = one["override"]
    return [
        ("integration", f"{one['integration_id']} ({one['feature']}, {one['provider']})"),
        ("health", one["health"]),
        ("machine says", one["machine_says"]),
        ("since", time_of(one["since_ms"])),
        ("why", one["reason"]),
        ("set by", override["by"]),
        ("set until", time_of(override["until_ms"])),
        ("set because", override["reason"]),
        ("paused by it until", time_of(one["paused_until_ms"])),
        ("resumes at", time_of(one["resumes_at_ms"])),
        ("next probe at", time_of(one["next_probe_at_ms"])),
        ("probes", _probes(one)),
        ("what waits is let go at", f"{one['released']:.0%}" if 0 < one["released"] < 1 else ""),
        *(("instead of it", row) for row in one["fallbacks"]),
        *((f"rows {status}", _counted(one["backlog"], (status,))) for status in one["backlog"]),
        *((f"switch {name}", value) for name, value in sorted(one["switches"]["held_by"].items())),
        ("status page", one["status_page"]),
        ("support", one["support_contact"]),
    ]


def _probes(one: Mapping[str, Any]) -> str:
    return f"{one['probes_succeeded']} of {one['probes_needed']} succeeded" if one["probes_needed"] else ""


def _counted(backlog: Mapping[str, int], statuses: tuple[str, ...]) -> str:
    """How many there are; the stage stops counting somewhere."""
    counts = [backlog.get(status, 0) for status in statuses]
    return f"{sum(counts)}{' or more' if MOST_COUNTED in counts else ''}"


def _say_what_is_not_known(found: list[dict[str, Any]]) -> None:
    if not all(one["switches"]["is_known"] for one in found):
        say("the stage cannot read its switches: it keeps to the safe side of each (holdfast switch list)")
