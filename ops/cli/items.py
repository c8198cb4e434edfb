"""What `holdfast queue` does to one item through the operator API: replay, dismiss, cancel, note, root-cause."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from functions.catalog.loader import load
from functions.core.failure import RootCause
from functions.core.integration import INTAKE
from functions.operator_api.problems import Code
from ops.cli.console import AsJson, ExitCode, Refused, emit, say, stack_of, time_of
from ops.operator_api import ApiRefused, Document, connect
from ops.recovery_queue import NoSuchItem, RecoveryQueue, has_succeeded, is_open, is_well
from ops.stack import StackUnreachable

PAGE = "docs/runbooks/recovery-and-replay.md"
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
    """End an item: it is not wanted, or a person has done it. Nothing replays it afterwards.

    What waited for it goes on if it was done by hand.
    """
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
    """Leave a note on an item; it is in its history and in the audit."""
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
    wait: Annotated[int, typer.Option(min=0, max=900, help="Watch for so many seconds what becomes of it.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Try one item once more. Exit code 1 if it is not in a state for that, or if it has not succeeded after --wait."""
    queue = queue_of(ctx)
    click = key or uuid.uuid4().hex
    again = f"the same click again, which is never carried out twice: --key {click}"
    try:
        item = queue.item(recovery_id)
        answer = queue.replay(item, reason, click, checked)
    except NoSuchItem as missing:
        raise Refused(str(missing)) from missing
    except ApiRefused as refused:
        raise Refused(_why(refused, recovery_id, again if refused.code == Code.UNAVAILABLE.value else "")) from refused
    except StackUnreachable as lost:
        raise StackUnreachable(f"{lost}; {again}") from lost
    if not as_json:
        say(f"{recovery_id} is on its way: one attempt, under the old key")
        if not is_well(answer):
            integration = answer["integration"]
            say(f"{integration['integration_id']} is {integration['health']}: it may wait for that")
    last = _watched(queue, item, wait, is_told=not as_json) if wait else item
    if as_json:
        emit({**answer, "idempotency_key": click, **({"item": last} if wait else {})})
    elif not wait or is_open(last):
        say(f"what becomes of it: holdfast queue {recovery_id}")
    if wait and not has_succeeded(last):
        if not as_json and not is_open(last):
            say(f"it has not succeeded: holdfast queue {recovery_id} says what can be done next ({PAGE}, section 2)")
        raise typer.Exit(ExitCode.REFUSED)


def _watched(queue: RecoveryQueue, item: Document, seconds: int, *, is_told: bool) -> Document:
    last = item
    for last in queue.watched(item, seconds):
        if is_told:
            say(f"{time_of(last['updated_at_ms'])}  {last['status']}: {_now(last)}")
    return last


def _now(item: Document) -> str:
    if has_succeeded(item):
        return "done" if item["effect"] == "done" else item["failure_detail"] or "done"
    if item["is_under_way"]:
        return "a worker is at it"
    if is_open(item):
        next_at = time_of(item["due_at_ms"])
        return f"waits for {item['waiting_for'] or 'its turn'}" + (f", next {next_at}" if next_at else "")
    return f"{item['failure_code']}: {item['failure_detail']}" if item["failure_code"] else "it has ended"


def queue_of(ctx: typer.Context, integration: str = "") -> RecoveryQueue:
    """The stage's queue, or one integration's part of it."""
    kinds = [name for name, one in load().integrations.items() if one.kinds]
    return RecoveryQueue(connect(stack_of(ctx)), [integration] if integration else [*kinds, INTAKE])


def _change(ctx: typer.Context, recovery_id: str, what: str, body: Mapping[str, Any], *, as_json: bool) -> None:
    queue = queue_of(ctx)
    try:
        item = queue.change(queue.item(recovery_id), what, body)
    except NoSuchItem as missing:
        raise Refused(str(missing)) from missing
    except ApiRefused as refused:
        raise Refused(_why(refused, recovery_id)) from refused
    if as_json:
        emit(item)
        return
    said = item["failure_code"] or item["status"]
    say(f"{recovery_id}: {item['status']} ({said}); {item['history'][-1]['why'] if item['history'] else ''}")
    if what == "dismiss" and item["waited_for_by"]:
        children = ", ".join(item["waited_for_by"])
        goes_on = f"what waited for it goes on: {children}"
        say(goes_on if body.get("done_by_hand") else f"what waits for it waits in vain until it expires: {children}")


def _why(refused: ApiRefused, recovery_id: str, more: str = "") -> str:
    """What the API says, in the command line's words where it speaks of its own."""
    if refused.more.get("reason") == "effect_unknown":
        return (
            f"it may have happened, and nothing can tell: `holdfast queue {recovery_id}` says where at the provider to "
            'look. Nothing is there: repeat with --checked "what you looked at". It is there: holdfast queue dismiss '
            f'{recovery_id} --done-by-hand --reason "..."'
        )
    status = refused.more.get("current_status")
    code = refused.more.get("failure_code")
    parts = [str(refused)]
    if status:
        parts.append(f"it is {status}" + (f" ({code})" if code else ""))
        parts.append(f"what can be done: holdfast queue {recovery_id}")
    return "; ".join([*parts, *([more] if more else [])])
