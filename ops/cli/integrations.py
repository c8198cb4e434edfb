"""`holdfast integrations`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from functions.adapters.health import DynamoHealthRecords
from functions.adapters.ledger import DynamoLedger
from functions.catalog.loader import load
from functions.core.catalog import IntegrationProfile
from functions.core.clock import SystemIds
from functions.core.gate import Health, IntegrationState
from functions.core.health import PROBES_NEEDED, Record, release_share
from ops import records
from ops.cli import switches
from ops.cli.console import (
    AsJson,
    check_integrations,
    emit,
    say,
    show_fields,
    show_table,
    stack_of,
    time_of,
    time_scale_of,
)
from ops.stack import Stack

PAGE = "docs/runbooks/recovery.md"


def show(
    ctx: typer.Context,
    integration: Annotated[str, typer.Argument(help="One integration; without it, all.")] = "",
    as_json: AsJson = False,
) -> None:
    """How every integration is: its health, since when and why, what waits for it, and which switches hold it.

    Exit code 1 if there is no such integration.
    """
    stack = stack_of(ctx)
    check_integrations([integration] if integration else [])
    found = [document(stack, name, profile) for name, profile in load().profiles.items() if integration in ("", name)]
    if as_json:
        emit(found[0] if integration else found)
        return
    if integration:
        show_fields(_fields(found[0]))
        say(f"what to do: {PAGE}, section 5")
        return
    show_table(
        "",
        ("integration", "health", "since", "why", "set until", "resumes at", "waits", "dead", "switches"),
        [
            (
                one["integration"],
                one["health"],
                time_of(one["since_ms"]),
                one["override"].get("reason", "") or one["reason"],
                time_of(one["override"].get("until_ms")),
                time_of(one["resumes_at_ms"]),
                sum(one["backlog"].get(status, 0) for status in ("pending", "retrying", "replayed")),
                one["backlog"].get("dlq", 0) + one["backlog"].get("failed", 0),
                ", ".join(f"{name}={value}" for name, value in sorted(one["switches"].items())),
            )
            for one in found
        ],
    )
    say("one of them: holdfast integrations INTEGRATION; set its health: holdfast health set")


def document(stack: Stack, name: str, profile: IntegrationProfile) -> dict[str, Any]:
    """All that is known of one integration now."""
    now_ms = time.time_ns() // 1_000_000
    record = health_records(stack).read([name])[name]
    control = DynamoLedger(stack.client("dynamodb"), SystemIds(), control_table=stack.output("ControlTable"))
    state = control.read([], [name]).integrations[name]
    said = {switch: str(item["value"]) for switch, item in switches.read(stack).items()}
    return {
        "integration": name,
        "feature": profile.feature,
        "provider": profile.provider,
        **of_health(record, state, now_ms, time_scale_of(stack)),
        "backlog": records.backlog(stack, name),
        "switches": holding(said, name),
        "status_url": profile.status_url,
        "support_contact": profile.support_contact,
    }


def health_records(stack: Stack) -> DynamoHealthRecords:
    """The stage's records of health."""
    return DynamoHealthRecords(
        stack.client("dynamodb"),
        SystemIds(),
        control_table=stack.output("ControlTable"),
        audit_table=stack.output("AuditTable"),
    )


def of_health(record: Record, state: IntegrationState, now_ms: int, scale: float) -> dict[str, Any]:
    """What holds now, what the machine says, and what comes next. Times are epoch milliseconds, 0 where there is none.

    `resumes_at_ms` is known where somebody stated it: an operator or the provider. While the machine itself waits for
    probes, `next_probe_at_ms` says when it asks again.
    """
    is_forced = state.is_forced_at(now_ms)
    health = state.health_at(now_ms)
    override = (
        {
            "state": record.override.value,
            "until_ms": record.override_until_ms,
            "by": record.override_by,
            "reason": record.override_reason,
        }
        if is_forced and record.override is not None
        else {}
    )
    stated = [state.paused_until_ms] if state.paused_until_ms > now_ms else []
    if is_forced and health is Health.HARD_DOWN:
        stated.append(state.override_until_ms)
    is_probed = health is Health.HARD_DOWN and not is_forced
    return {
        "health": health.value,
        "machine_says": record.health.value,
        "since_ms": record.since_ms,
        "reason": record.reason,
        "override": override,
        "paused_until_ms": state.paused_until_ms if state.paused_until_ms > now_ms else 0,
        "resumes_at_ms": max(stated, default=0),
        "next_probe_at_ms": max(state.probe_at_ms, now_ms) if is_probed else 0,
        "probes": f"{state.probe_ok} of {PROBES_NEEDED} succeeded" if is_probed else "",
        "released": f"{release_share(state, now_ms, scale):.0%}" if health is not Health.HARD_DOWN else "",
        "version": record.version,
    }


def holding(said: Mapping[str, str], integration: str) -> dict[str, str]:
    """The switches that hold or slow the integration, narrower ones by their whole name."""
    found = {}
    for name, value in said.items():
        parts = name.split("/")
        base = "/".join(parts[2:] if parts[0] in ("flow", "source", "tenant") and len(parts) > 2 else parts)
        words = {word.strip() for word in value.split(",")}
        is_listed = base in ("disabled_integrations", "replay_blocked_integrations") and bool(
            {"all", integration} & words
        )
        is_slowed = base == f"limits/{integration}" and value not in ("1", "1.0")
        is_off = (base == "mode" and value != "live") or (base in ("auto_reply", "replay") and value != "on")
        if is_listed or is_slowed or is_off:
            found[name] = value
    return found


def _fields(one: Mapping[str, Any]) -> list[tuple[str, Any]]:
    override = one["override"]
    return [
        ("integration", f"{one['integration']} ({one['feature']}, {one['provider']})"),
        ("health", one["health"]),
        ("machine says", one["machine_says"]),
        ("since", time_of(one["since_ms"])),
        ("why", one["reason"]),
        ("set by", override.get("by", "")),
        ("set until", time_of(override.get("until_ms"))),
        ("set because", override.get("reason", "")),
        ("paused by it until", time_of(one["paused_until_ms"])),
        ("resumes at", time_of(one["resumes_at_ms"])),
        ("next probe at", time_of(one["next_probe_at_ms"])),
        ("probes", one["probes"]),
        ("what waits is let go at", "" if one["released"] == "100%" else one["released"]),
        *((f"rows {status}", count) for status, count in one["backlog"].items()),
        *((f"switch {name}", value) for name, value in sorted(one["switches"].items())),
        ("status page", one["status_url"]),
        ("support", one["support_contact"]),
    ]
