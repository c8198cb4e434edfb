"""`holdfast logs`."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import Annotated, Any

import typer

from functions.core.clock import SystemClock
from ops.cli.console import AsJson, Limit, Refused, emit, say, show_table, stack_of, time_of
from ops.recent_log import Line, RecentLog
from ops.sources import SourceTrouble, seconds_of

_ABOUT = re.compile(r"[A-Za-z0-9#:._/=-]{1,200}\Z")
_SHOWN_WHOLE = ("exception", "stack_trace")
_LAST_LINES = 6  # of a traceback


def show(
    ctx: typer.Context,
    function: Annotated[str, typer.Argument(help="ingress, worker, triage, sweeper, evaluator, replay, pager, ...")],
    since: Annotated[str, typer.Option(help="How far back: 90s, 10m, 1h, 7d.")] = "15m",
    about: Annotated[str, typer.Option(help="Only lines that hold this: an id of any kind.")] = "",
    every: Annotated[bool, typer.Option("--all", help="What went well, too.")] = False,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """What a function has logged that is not as it should be, newest first. Reads its log, within bounds."""
    try:
        seconds = seconds_of(since, "--since")
    except SourceTrouble as exc:
        raise Refused(str(exc)) from exc
    if about and not _ABOUT.match(about):
        raise Refused("--about is an id: letters, digits and # : . _ / = - only")
    now_ms = SystemClock().now_ms()
    log = RecentLog.of(stack_of(ctx), function)
    found = log.newest(now_ms - seconds * 1000, now_ms, limit=limit, phrase=about, everything=every or bool(about))
    if as_json:
        emit(
            {
                "since_ms": found.since_ms,
                "complete": found.is_complete,
                "lines": [asdict(line) for line in found.lines],
            }
        )
        return
    if found.lines:
        show_table("", ("time", "level", "says", ""), [_shown(line) for line in found.lines])
        for line in found.lines[:1]:
            _say_whole(line)
    else:
        say(f"nothing of {about}" if about else "nothing" if every else "nothing is wrong, as far as it says")
    if not found.is_complete:
        say(f"the log is long: it was read whole back to {time_of(found.since_ms)} only; say --about")


def _shown(line: Line) -> tuple[str, ...]:
    about = {name: value for name, value in line.fields.items() if name not in _SHOWN_WHOLE}
    told = " ".join(f"{name}={value if isinstance(value, str) else _compact(value)}" for name, value in about.items())
    return time_of(line.at_ms), line.level, line.message, told


def _say_whole(line: Line) -> None:
    """The end of its traceback, if it has one: the place that raised, and what."""
    for name in _SHOWN_WHOLE:
        said: Any = line.fields.get(name)
        lines = said if isinstance(said, list) else str(said).splitlines() if said else []
        for one in lines[-_LAST_LINES:]:
            say(f"  {one}")


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
