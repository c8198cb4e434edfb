"""`holdfast quarantine list | add | remove`: events that are kept aside instead of being processed, for a time."""

from __future__ import annotations

import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

from functions.core.quarantine import CRITERIA
from ops.cli.console import AsJson, Refused, emit, say, show_table, stack_of, time_of
from ops.operator_api import connect

app = typer.Typer(help="Keep events aside by rules that end by themselves.", no_args_is_help=True)

PATH = "/platform/quarantine"
Reason = Annotated[str, typer.Option(help="Why; it is kept in the audit.")]


@app.command("list")
def show(ctx: typer.Context, as_json: AsJson = False) -> None:
    """The rules in force, the oldest first: it is the first that fits which keeps an event aside."""
    rules = read(ctx)
    if as_json:
        emit(rules)
        return
    if not rules:
        say("no rule is in force: events go on")
        return
    show_rules(rules)


@app.command("add")
def add(
    ctx: typer.Context,
    *,
    source: Annotated[str, typer.Option(help="Events of this source.")] = "",
    event_name: Annotated[str, typer.Option(help="Events of this name.")] = "",
    event_version: Annotated[str, typer.Option(help="Events of this version.")] = "",
    tenant: Annotated[str, typer.Option(help="Events of this tenant.")] = "",
    failure_code: Annotated[
        str, typer.Option(help="Not new events, but what has failed with this code and would be tried again.")
    ] = "",
    lasts: Annotated[str, typer.Option("--for", help="For how long: 90s, 30m, 4h, 2d; at most 30d.")],
    reason: Reason,
    as_json: AsJson = False,
) -> None:
    """Keep aside what all given criteria are so of; at least one is given. Only a replay sends it on."""
    stated = {
        "source": source,
        "event_name": event_name,
        "event_version": event_version,
        "tenant": tenant,
        "failure_code": failure_code,
    }
    given = {name: value for name, value in stated.items() if value}
    if not given:
        raise Refused(f"say what is kept aside: {', '.join('--' + name.replace('_', '-') for name in CRITERIA)}")
    rule = connect(stack_of(ctx)).call("POST", PATH, body={**given, "for": lasts, "reason": reason})
    if as_json:
        emit(rule)
        return
    say(f"{criteria_of(rule)}: kept aside until {time_of(rule['expires_at_ms'])} by the rule {rule['id']}")
    say(f'let them go on: holdfast quarantine remove {rule["id"]} --reason "..."')


@app.command("remove")
def remove(
    ctx: typer.Context,
    rule_id: Annotated[str, typer.Argument(help="As `holdfast quarantine list` shows it.")],
    reason: Reason,
    as_json: AsJson = False,
) -> None:
    """End a rule before its time. What it kept aside stays until it is replayed. Exit code 1 if it is not in force."""
    left = connect(stack_of(ctx)).call("DELETE", f"{PATH}/{quote(rule_id, safe='')}", query={"reason": reason})
    if as_json:
        emit(left["rules"])
        return
    say(f"the rule {rule_id} keeps nothing aside any more; {len(left['rules']) or 'none'} left")
    say('what it kept aside waits for a replay: holdfast replay --failure-code QUARANTINED --reason "..."')


def read(ctx: typer.Context) -> list[dict[str, Any]]:
    """The rules in force, as the API tells them."""
    return list(connect(stack_of(ctx)).call("GET", PATH)["rules"])


def show_rules(rules: list[dict[str, Any]]) -> None:
    """A table of rules."""
    now_ms = time.time_ns() // 1_000_000
    show_table(
        "",
        ("rule", "keeps aside", "until", "left", "by", "why"),
        [
            (
                rule["id"],
                criteria_of(rule),
                time_of(rule["expires_at_ms"]),
                left_of(rule["expires_at_ms"] - now_ms),
                rule["author"],
                rule["reason"],
            )
            for rule in rules
        ],
    )


def criteria_of(rule: dict[str, Any]) -> str:
    """What a rule keeps aside: `source=shop, event_version=3`."""
    return ", ".join(f"{name}={rule[name]}" for name in CRITERIA if rule.get(name))


def left_of(milliseconds: int) -> str:
    """How long that is, roughly, for people: `1h 05m`, `4m`, `12s`."""
    seconds = max(0, milliseconds // 1000)
    if seconds >= 86_400:
        return f"{seconds // 86_400}d {seconds % 86_400 // 3600:02}h"
    if seconds >= 3600:
        return f"{seconds // 3600}h {seconds % 3600 // 60:02}m"
    return f"{seconds // 60}m" if seconds >= 60 else f"{seconds}s"
