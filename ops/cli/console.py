"""How the command line speaks: results on standard output, all else on standard error, exit codes with a meaning.

What comes from strangers (ids, error texts) is stripped of control characters before a terminal sees it.
"""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from functions.catalog.loader import load
from infra.config import STAGES
from ops.stack import Stack, Wanted, find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class ExitCode(IntEnum):
    """What a shell script can rely on."""

    OK = 0
    REFUSED = 1
    """A check failed, or what was asked for was refused or not found."""
    USAGE = 2
    """The command was not understood."""
    UNREACHABLE = 3
    """There is no such stack, or it does not answer."""


class Refused(Exception):
    """Ends a command with `ExitCode.REFUSED`, saying why."""


AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Limit = Annotated[int, typer.Option(min=1, max=200, help="How many to show.")]


def stack_of(ctx: typer.Context) -> Stack:
    """The stack that the global options and the environment name. Raises `StackNotFound` or `StackUnreachable`."""
    wanted = ctx.find_object(Wanted)
    return find(wanted)


def who(stack: Stack) -> str:
    """The caller: on AWS as AWS knows it, locally by login name."""
    if not stack.is_local:
        return str(stack.client("sts").get_caller_identity()["Arn"])
    try:
        return f"local/{getpass.getuser()}"
    except (OSError, KeyError):  # a container may run under a user without a name
        return "local/operator"


def time_scale_of(stack: Stack) -> float:
    """By what the stage multiplies its own waits; 1 for a stage that nobody has described."""
    stage = STAGES.get(stack.stage)
    return 1.0 if stage is None else stage.time_scale


def check_integrations(named: Iterable[str], and_also: Sequence[str] = ()) -> None:
    """Raise `Refused` for one that is not in the catalog: misspelt, it would be obeyed and do nothing."""
    known = (*load().integrations, *and_also)
    for name in named:
        if name not in known:
            raise Refused(f"there is no integration {name!r}; there are {', '.join(known)}")


def clean(value: Any) -> str:
    """A value as one line without control characters, which could steer a terminal."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def time_of(milliseconds: Any) -> str:
    """Epoch milliseconds as UTC text; nothing for none."""
    if not milliseconds:
        return ""
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def emit(document: Any) -> None:
    """A JSON document on standard output."""
    typer.echo(json.dumps(document, indent=2, sort_keys=True, default=str, ensure_ascii=True))


def emit_line(document: Any) -> None:
    """One line of NDJSON on standard output."""
    typer.echo(json.dumps(document, sort_keys=True, default=str, ensure_ascii=True))


def say(text: str) -> None:
    """A remark, on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(clean(text)))


def show_table(title: str, columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """A table on standard output, as wide as it needs when nobody looks at a terminal."""
    is_terminal = sys.stdout.isatty()
    table = Table(
        title=title or None,
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
        show_header=any(columns),
    )
    for column in columns:
        table.add_column(column, overflow="fold" if is_terminal else "ignore", no_wrap=not is_terminal)
    for line in lines:
        table.add_row(*(Text(clean(cell), style=_STYLES.get(str(cell), "")) for cell in line))
    Console(highlight=False, width=None if is_terminal else 500).print(table)


def show_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Names and values, one line each, on standard output."""
    show_table("", ("", ""), [(name, value) for name, value in fields if value not in ("", None, [], {})])


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on standard error for long work, while a terminal is there to see it; gives what to call per step."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)


_STYLES = {
    "healthy": "green",
    "degraded": "yellow",
    "hard_down": "red",
    "settled": "green",
    "done": "green",
    "succeeded": "green",
    "replayed": "cyan",
    "pending": "yellow",
    "retrying": "yellow",
    "processing": "yellow",
    "failed": "red",
    "dlq": "red",
    "operational": "green",
    "unavailable": "red",
    "accepted": "yellow",
    "waiting": "yellow",
    "under way": "yellow",
    "dead": "red",
    "ended": "red",
    "unknown": "red",
    "missing": "red",
    "suppressed": "cyan",
    "ok": "green",
    "not ok": "red",
    "cannot be seen": "yellow",
}
