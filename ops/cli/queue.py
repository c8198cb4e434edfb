"""`holdfast queue`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from functions.adapters import richpanel, ses, stripe, twilio
from functions.core.integration import INTAKE
from functions.core.recovery import Status
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
    time_of,
)
from ops.cli.items import PAGE
from ops.recovery_queue import NoSuchItem, RecoveryQueue, has_succeeded, is_open, is_well


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
    if recovery_id:
        _one(items.queue_of(ctx), recovery_id, as_json=as_json)
        return
    check_integrations([integration] if integration else [], and_also=[INTAKE])
    found = items.queue_of(ctx, integration).listed([one.value for one in status or ()], limit)
    if as_json:
        emit(found)
        return
    rows = found["items"]
    if not rows and not found["unreadable"]:
        say("nothing is there")
        return
    show_table(
        "",
        ("recovery id", "status", "integration", "what", "attempts", "failure", "waits for", "due", "event"),
        [
            (
                row["recovery_id"],
                row["status"],
                row["integration_id"],
                row["kind"] or "event",
                row["attempt_count"],
                row["failure_code"],
                "a worker is at it" if row["is_under_way"] else row["waiting_for"],
                time_of(row["due_at_ms"]),
                row["event_id"],
            )
            for row in rows
        ],
    )
    if not found["is_complete"]:
        say(f"{len(rows)} are shown, and there are more: --limit, --status, --integration")
    for unreadable in found["unreadable"]:
        say(f"{unreadable} was written by another version and cannot be read by this stage's: see {PAGE}")
    say(f"one of them, with its audit: holdfast queue RECOVERY_ID; what to do: {PAGE}")


app.command("list")(show)
app.command("dismiss")(items.dismiss)
app.command("cancel")(items.cancel)
app.command("note")(items.note)
app.command("root-cause")(items.root_cause)


def _one(queue: RecoveryQueue, recovery_id: str, *, as_json: bool) -> None:
    try:
        item = queue.item(recovery_id)
    except NoSuchItem as missing:
        raise Refused(str(missing)) from missing
    audit = queue.audit(recovery_id)
    if as_json:
        emit({**item, "audit": audit})
        return
    health = item["integration"]
    show_fields(
        [
            ("recovery id", recovery_id),
            ("what", item["kind"] or "event"),
            ("status", item["status"]),
            ("integration", f"{item['integration_id']}, {health['health']}" + _since(health)),
            *at_the_provider(item),
        ]
        + [
            (name.removesuffix("_ms").replace("_", " "), time_of(value) if name.endswith("_ms") else value)
            for name, value in item.items()
            if name not in _SHOWN and (value or name == "attempt_count")
        ]
    )
    show_table(
        "audit",
        ("time", "event", "actor", "to", "why", "contained"),
        [
            (
                time_of(event["at_ms"]),
                event["event_type"].removeprefix("platform.integration."),
                event["actor"],
                event["recovery_status"],
                event["reason"] or event["error"],
                event["containment_action"],
            )
            for event in audit
        ],
    )
    say(f"{what_next(item)} ({PAGE})")


_SHOWN = frozenset(
    {
        "recovery_id",
        "kind",
        "status",
        "integration",
        "integration_id",
        "target",
        "provider_key",
        "action_id",
        "subject",
        "history",
        "is_under_way",
        "replay_refused",
    }
)


def _since(health: Mapping[str, Any]) -> str:
    since = time_of(health["since_ms"])
    return (f" since {since}" if since else "") + (f": {health['reason']}" if health["reason"] else "")


def at_the_provider(item: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where at the provider its effect would be, on the way that it goes now, and by what it is told from others."""
    if not item["provider_key"]:
        return []
    return [
        ("target", item["target"]),
        ("action id", item["provider_key"]),
        ("known there by", _mark_of(item["kind"], item["provider_key"])),
    ]


def _mark_of(kind: str, key: str) -> str:
    match kind:
        case richpanel.REPLY:
            return f"a comment that ends with {richpanel.marker_of(key)}"
        case twilio.SEND:
            return f"a text that ends with {twilio.reference_of(key)}"
        case ses.SEND:
            return f"the tag action_id={key}"
        case stripe.CREATE_CHECKOUT_SESSION | stripe.REFUND:
            return f"metadata {stripe.MARKER}={key}"
        case stripe.CANCEL_SUBSCRIPTION | stripe.CHANGE_PLAN:
            return f"metadata {stripe.subscription_marker(kind)}={key}"
        case _:
            return ""


def what_next(item: Mapping[str, Any]) -> str:
    """What the item's reader can do about it."""
    recovery_id, refused = item["recovery_id"], item["replay_refused"]
    by_hand = f'holdfast queue dismiss {recovery_id} --done-by-hand --reason "..."'
    replay = f'holdfast replay one {recovery_id} --reason "..."'
    if item["is_under_way"]:
        return f"a worker is at it, until {time_of(item['lease_until_ms'])} at the latest"
    if is_open(item):
        at = time_of(item["due_at_ms"]) or f"the success of {', '.join(item['waits_for']) or 'what it waits for'}"
        stop = f'holdfast queue cancel {recovery_id} --reason "..."'
        return f"the machine goes on by itself, next at {at}; to stop it: {stop}"
    if has_succeeded(item) or refused.startswith("ended_"):
        return "it has ended for good: nothing is left to do"
    match refused:
        case "":
            doubt = (
                "it may have happened, and an attempt finds out before it sends; "
                if item["effect"] == "unknown"
                else ""
            )
            wait = "" if is_well(item) else f" (now it would wait: {item['integration_id']} is not well)"
            return f"{doubt}when its cause is gone{wait}: {replay}"
        case "effect_unknown":
            return (
                "it may have happened, and nothing can tell: look at the provider. Nothing is there: "
                f'{replay} --checked "what you looked at". It is there: {by_hand}'
            )
        case "schema_unknown":
            return (
                "what is deployed can make nothing of it any more: put back what it needs (its version, kind, text or "
                f"flow), and then: {replay}. If it is still wanted sooner, do it by hand, and then: {by_hand}"
            )
        case "replay_off" | "replay_blocked" | "switches_unknown":
            return f"{_SWITCHES[refused]}; when it is right again: {replay}"
        case _:
            return f"no replay would take it ({refused}): if it is still wanted, do it by hand, and then: {by_hand}"


_SWITCHES = {
    "replay_off": "the switch `replay` is off",
    "replay_blocked": "the switch `replay_blocked_integrations` names its integration",
    "switches_unknown": "the switches cannot be read, so nothing is replayed",
}
