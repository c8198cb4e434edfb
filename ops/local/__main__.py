"""`python -m ops.local up | down | status`: the stack that `make up` starts and `make down` ends."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console

from ops.local import AlreadyUp, LocalStack, LocalStackFailed
from ops.local.state import LocalState, UnreadableState
from ops.local.teardown import living, tear_down
from ops.stack import ROOT, STATE_FILE

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)

_NEXT = """
[bold]What to type next[/bold] (the command is .venv/bin/holdfast; `. .venv/bin/activate` puts it on your PATH)

  holdfast env                                        what runs where
  holdfast send github                                a webhook, signed as GitHub signs it
  holdfast send stripe --count 50 --duplicates 0.1    a burst, with repeats
  holdfast events                                     what became of them
  holdfast queue                                      what is unfinished, and why
  holdfast switch set auto_reply off --reason drill   no automatic reply from now on
  holdfast replay --integration helpdesk --reason "back again"
  make down                                           end it
"""


def up() -> int:
    """Start the stack and say what to type next. 0 also if it is up already."""
    began = time.monotonic()
    try:
        running = LocalStack.start(
            STATE_FILE.parent, owned=False, watched=True, announce=lambda text: _out.print(f"  [dim]·[/dim] {text}")
        )
    except AlreadyUp as exc:
        _out.print(f"{exc}: nothing to do (`make down` ends it)")
        return 0
    except LocalStackFailed as exc:
        _err.print("[red]The local stack did not come up.[/red]")
        _err.print(str(exc), markup=False)
        return 1
    _out.print(f"[green]The local stack is up[/green] after {time.monotonic() - began:.0f} s, on this machine only.\n")
    for name, value in (
        ("webhooks", f"{running.state.api_url}/webhooks/SOURCE"),
        ("sources", ", ".join(running.state.sources)),
        ("AWS endpoint", running.state.endpoint),
        ("simulator", running.state.simulator_url),
        ("logs", _shown(Path(running.state.logs))),
    ):
        _out.print(f"  {name:<13} {value}", markup=False)
    _out.print(_NEXT)
    return 0


def down() -> int:
    """End the stack. 0 also if there was none."""
    if not STATE_FILE.exists():
        _out.print("no local stack is running")
        return 0
    try:
        ended = tear_down(STATE_FILE)
    except UnreadableState as exc:
        _err.print(f"{exc}: nothing was ended; remove the file once you have looked", markup=False)
        return 1
    _out.print(f"ended: {', '.join(ended)}" if ended else "it had already ended; what it left behind is removed")
    return 0


def status() -> int:
    """Say which parts run. 0 if the stack is up, else 3."""
    if not STATE_FILE.exists():
        _out.print("down")
        return 3
    try:
        state = LocalState.read(STATE_FILE)
    except UnreadableState as exc:
        _err.print(str(exc), markup=False)
        return 1
    alive = living(state)
    for process in state.processes:
        _out.print(f"{process.name:<10} {process.pid:>7}  {'running' if process.name in alive else 'ended'}")
    is_up = state.status == "up" and len(alive) == len(state.processes)
    _out.print("up" if is_up else f"not whole ({state.status}): `make up` clears it away and starts anew")
    return 0 if is_up else 3


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m ops.local", description="The local stack.")
    parser.add_argument("command", choices=("up", "down", "status"))
    return {"up": up, "down": down, "status": status}[parser.parse_args(argv).command]()


if __name__ == "__main__":
    sys.exit(main())
