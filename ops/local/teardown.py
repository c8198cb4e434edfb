"""The end of a local stack."""

from __future__ import annotations

import shutil
from pathlib import Path

from ops.local.processes import end, is_alive
from ops.local.state import LocalState


def tear_down(state_file: Path, *, spare: int = 0) -> list[str]:
    """End exactly the processes that the state names (but for the pid `spare`), and remove what the stack wrote.

    Gives the names of those that still ran. Raises `UnreadableState`, or `FileNotFoundError`.
    """
    state = LocalState.read(state_file)
    # The ticker first: it would report, and in a moment act on, the death of the others.
    ended = end(sorted((p for p in state.processes if p.pid != spare), key=lambda p: p.name != "ticker"))
    if state.scratch:
        shutil.rmtree(state.scratch, ignore_errors=True)
    state_file.unlink(missing_ok=True)
    return ended


def living(state: LocalState) -> list[str]:
    """Names of the stack's processes that run."""
    return [process.name for process in state.processes if is_alive(process)]
