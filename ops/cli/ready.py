"""`holdfast ready`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import typer

from functions.core.clock import SystemClock
from ops.cli.console import AsJson, ExitCode, emit, say, show_table, stack_of
from ops.operator_api import connect
from ops.ready import NOT_YET, Verdict, judge
from ops.ready_asked import ask
from ops.replays import Replays

MOST_JOBS = 200  # every one that the list has


def show(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Is this stage ready for being on call? The checklists of runbooks 000 and 001, and what to do about each item.

    Changes nothing. Exit code 1 if something is missing, 3 if nothing is but something cannot be seen.
    """
    stack = stack_of(ctx)
    items = judge(ask(stack, SystemClock(), lambda: list(Replays(connect(stack)).every(limit=MOST_JOBS)["replays"])))
    counts = Counter(item.verdict for item in items)
    if as_json:
        emit(
            {
                "stage": stack.stage,
                "ready": counts[Verdict.OK] == len(items),
                "items": [asdict(item) for item in items],
            }
        )
    else:
        show_table("", ("", "item", "wants", "found"), [(i.verdict.value, i.id, i.wants, i.found) for i in items])
        left = [item for item in items if item.do]
        if left:
            show_table("\nwhat to do", ("item", ""), [(item.id, item.do) for item in left])
        said = ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict)
        say(f"stage {stack.stage}: {said}")
        say(NOT_YET)
    if counts[Verdict.MISSING]:
        raise typer.Exit(ExitCode.REFUSED)
    if counts[Verdict.UNSEEN]:
        raise typer.Exit(ExitCode.UNREACHABLE)
