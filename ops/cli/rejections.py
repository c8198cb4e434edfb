"""`holdfast rejections`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer

from functions.core.clock import SystemClock, SystemIds
from functions.ingress.answers import Rejection
from functions.ingress.request import REQUEST_ID
from ops.cli.console import AsJson, Limit, Refused, emit, say, show_table, stack_of, time_of, who
from ops.door_log import DoorLine, DoorLog, Rejections, rejections
from ops.sources import SourceTrouble, StoredSources, check_name, seconds_of
from ops.stack import Stack

PAGE: Final = "docs/runbooks/senders.md"
ADVICE: Final[Mapping[str, str]] = {
    Rejection.BAD_SIGNATURE: "another secret, other bytes or another scheme than ours: run `holdfast verify --explain` "
    "on the sender's request",
    Rejection.STALE: "signed over 300 s ago or ahead: a wrong clock, a queue in between, or an old request repeated",
    Rejection.UNKNOWN_SOURCE: "nobody of ours, or a misspelt address: `holdfast source list`",
    Rejection.SOURCE_DISABLED: "on purpose: `holdfast source show NAME` says who and why; `holdfast source enable` "
    "ends it",
    "no_challenge": "a GET that asks nothing its provider asks: a monitor or a stranger, or another provider's entry",
    Rejection.THROTTLED: "over the source's throttle (`holdfast source show NAME`), or too many ids that no source "
    "has; senders come back",
    Rejection.TOO_LARGE: "no retry helps: the sender has to send less, or a reference",
    Rejection.MALFORMED: "authentic, but not the content that the source declares: `holdfast source show --json`",
    Rejection.SOURCE_UNAVAILABLE: "our trouble: an entry that `holdfast source show NAME` calls unusable, or the store",
    Rejection.NOT_STORED: "our trouble: neither queue nor bucket took it, and `why` says how each failed; senders come "
    "back",
    Rejection.DEFECT: "our trouble, a bug: `why` says where; roll the last deploy back",
}
"""One line a reason: what it means and where to look."""


def show(
    ctx: typer.Context,
    source: Annotated[str, typer.Option(help="Only requests to this source of ours.")] = "",
    reason: Annotated[Rejection | None, typer.Option(help="Only requests refused for this reason.")] = None,
    request_id: Annotated[str, typer.Option(help="Only this one: the x-request-id that the sender was answered.")] = "",
    since: Annotated[str, typer.Option(help="How far back: 90s, 10m, 1h, 7d.")] = "1h",
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """What the door refused, newest first, with a count by reason. Reads the log of ingress, within bounds.

    A sender hears only 401, and not why: here it stands. A source that is none of ours is not named.
    """
    try:
        seconds = seconds_of(since, "--since")
        if source:
            check_name(source)
        if request_id and not REQUEST_ID.match(request_id):
            raise SourceTrouble("a request id is what x-request-id said: 1 to 64 letters, digits, '_', '=' or '-'")
    except SourceTrouble as exc:
        raise Refused(str(exc)) from exc
    stack, now_ms = stack_of(ctx), SystemClock().now_ms()
    wanted = reason.value if reason else ""
    found = rejections(
        DoorLog.of(stack),
        now_ms - seconds * 1000,
        now_ms,
        source=source,
        reason=wanted,
        limit=limit,
        request_id=request_id,
    )
    ours = _ours(stack, found)
    if as_json:
        emit(
            {
                "since_ms": found.since_ms,
                "complete": found.is_complete,
                "counts": found.counts,
                "rejections": [_as_json(line, ours) for line in found.newest],
            }
        )
        return
    if found.newest:
        columns = ("time", "reason", "source", "provider", "status", "why", "request id")
        show_table("", columns, [_line(line, ours) for line in found.newest])
        show_table(
            f"by reason, since {time_of(found.since_ms)}",
            ("count", "reason", "what to do"),
            [(str(count), name, ADVICE.get(name, "")) for name, count in found.counts.items()],
        )
        say(f"what to do, in full: {PAGE}")
    elif request_id:
        say("ingress refused no such request: it was accepted, is older, or the gateway refused it in its own words")
    else:
        say("nothing was refused")
    if not found.is_complete:
        say(f"the log is long: it was read whole back to {time_of(found.since_ms)} only; name a source or a reason")


def _ours(stack: Stack, found: Rejections) -> set[str]:
    """Ids that may be shown. Asked for only if there is one that ingress had not looked up when it refused."""
    looked_up = {line.source for line in found.newest if line.is_looked_up}
    if all(not line.source or line.source in looked_up for line in found.newest):
        return looked_up
    return looked_up | StoredSources(stack, SystemClock(), SystemIds(), lambda: who(stack)).names()


def _shown(line: DoorLine, ours: set[str]) -> str:
    return line.source if line.source in ours else ""


def _why(line: DoorLine) -> str:
    parts = [line.why] if line.why else []
    parts += [f"missing: {', '.join(line.headers_missing)}"] if line.headers_missing else []
    parts += [f"unreadable: {', '.join(line.header_malformed)}"] if line.header_malformed else []
    return "; ".join(parts)


def _line(line: DoorLine, ours: set[str]) -> tuple[str, ...]:
    provider = line.provider if line.is_looked_up else ""
    return (
        time_of(line.at_ms),
        line.reason,
        _shown(line, ours),
        provider,
        str(line.status or ""),
        _why(line),
        line.request_id,
    )


_UNTOLD: Final = frozenset({"is_refused", "event_id", "tenant", "event_name", "stored_in"})
"""Of a line, what says nothing of a refused request."""


def _as_json(line: DoorLine, ours: set[str]) -> dict[str, Any]:
    document = {key: value for key, value in asdict(line).items() if key not in _UNTOLD}
    return {**document, "source": _shown(line, ours)}
