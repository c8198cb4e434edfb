"""Processes that outlive the command which started them, and are ended by exactly what was recorded of them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Started by this very process: whoever starts a process must collect it, or it stays as a zombie."""


@dataclass(frozen=True, slots=True)
class Process:
    """A started process. `born` is the kernel's note of its start: the same pid with another birth is somebody else."""

    name: str
    pid: int
    born: str


def spawn(name: str, command: Sequence[str], *, env: Mapping[str, str], log: Path, cwd: Path) -> Process:
    """Start it in a session of its own, its output going to `log`. `env` is its whole environment."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            list(command),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children[child.pid] = child
    return Process(name, child.pid, birth(child.pid))


def birth(pid: int) -> str:
    """When the process of that pid started, in whatever unit the system has; empty if there is none."""
    try:
        # Field 22 of proc(5)'s stat; the second field is a name in parentheses that may itself hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return "" if Path("/proc/self/stat").exists() else _birth_by_ps(pid)
    except ProcessLookupError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]


def _birth_by_ps(pid: int) -> str:
    shown = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return "" if shown.startswith("Z") else shown.partition(" ")[2].strip()


def is_alive(process: Process) -> bool:
    """Whether that very process still runs."""
    child = _children.get(process.pid)
    if child is not None and child.poll() is not None:
        del _children[process.pid]
        return False
    return bool(process.born) and birth(process.pid) == process.born


def end(processes: Iterable[Process], *, grace_seconds: float = 3.0) -> list[str]:
    """End each with everything it started: asked first, then made to. Names those that were still running."""
    running = [process for process in processes if is_alive(process)]
    for process in running:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while time.monotonic() < deadline and any(is_alive(process) for process in running):
        time.sleep(0.05)
    for process in running:
        # Also after a quick end: what it started may still be there, and its session bears its pid.
        _signal(process, signal.SIGKILL)
    while time.monotonic() < deadline + 2 and any(is_alive(process) for process in running):
        time.sleep(0.02)
    for process in running:
        child = _children.pop(process.pid, None)
        if child is not None:
            child.wait()  # it was killed: this only collects it
    return [process.name for process in running]


def _signal(process: Process, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return  # nobody of that session is left, which is what was wanted
