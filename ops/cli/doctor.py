"""`holdfast doctor`: every part of a stage, how it is, and what to do."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import typer

from functions.core.clock import SystemClock
from ops import doctor
from ops.cli.console import AsJson, Refused, emit, say, show_table, stack_of
from ops.doctor import Verdict


def show(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Look at API, functions, queues, tables, switches, sources, credentials, providers, alarms and heartbeats.

    Changes nothing, and shows no secret. Exit code 1 if something is not ok; what cannot be looked at is unknown.
    """
    found = doctor.examine(stack_of(ctx), SystemClock().now_ms())
    number = Counter(one.verdict for one in found)
    if as_json:
        emit({"ok": not number[Verdict.BAD], "findings": [asdict(one) for one in found]})
    else:
        show_table(
            "",
            ("part", "what", "", "says", "what to do"),
            [(one.part, one.what, one.verdict.value, one.says, one.do) for one in found],
        )
    if number[Verdict.UNKNOWN] and not as_json:
        say(f"{number[Verdict.UNKNOWN]} are unknown: that is not the same as well")
    if number[Verdict.BAD]:
        raise Refused(f"{number[Verdict.BAD]} of {len(found)} are not ok")
