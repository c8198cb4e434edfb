"""Ends processes of the emulator's functions without a word, as a machine that dies does. Needs /proc.

Only processes that are at work die: those that hold a connection on which they have asked AWS for something. One that
still starts has taken nothing on, so its death would prove nothing; and the emulator answers it by ending every other
process of the function, those that start included, until on a busy machine none of them gets to work any more.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

EVERY_SECONDS = (3.0, 6.0)  # between two deaths
OUT_OF_A_HUNDRED: Mapping[str, int] = {
    "WorkerFunction": 80,
    "SweeperFunction": 8,
    "IngressFunction": 5,
    "TriageFunction": 4,
    "EvaluatorFunction": 3,
}
"""Whose turn it is, by the function's output. Functions that have no process at work at that moment are spared."""
_ESTABLISHED = "01"


def can_kill() -> bool:
    """Whether processes can be found here."""
    return Path("/proc/self/stat").exists()


def processes_of(emulator: int, function: str) -> list[int]:
    """Process ids of the emulator's children that run this function (its deployed name)."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        if parent == emulator and function.encode() in command:
            found.append(int(entry.name))
    return found


def ports_of(pid: int) -> set[int]:
    """The process's own ends of its open IPv4 connections; none if the process has ended."""
    sockets = set()
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it was closed while we looked
                sockets.add(str(entry.readlink()))
        lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return set()  # it ended while we looked; one that has ended and was not yet collected shows nothing to anyone
    found = set()
    for line in lines:
        _, local, _, state, _, _, _, _, _, inode, *_ = line.split()
        if state == _ESTABLISHED and f"socket:[{inode}]" in sockets:
            found.add(int(local.rpartition(":")[2], 16))
    return found


@dataclass(slots=True)
class Killer:
    """Kills one process at a time until told to stop. `killed` counts them by the function's output.

    `at_work` tells the ports on which somebody has asked AWS for something; `unasked` counts the turns in which it
    could not tell.
    """

    emulator: int
    functions: Mapping[str, str]
    at_work: Callable[[], Collection[int]]
    chance: random.Random
    killed: Counter[str] = field(default_factory=Counter)
    unasked: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """One death after another."""
        outputs = list(OUT_OF_A_HUNDRED)
        while not self._over.wait(self.chance.uniform(*EVERY_SECONDS)):
            (output,) = self.chance.choices(outputs, weights=list(OUT_OF_A_HUNDRED.values()))
            try:
                ports = set(self.at_work())
            except (OSError, HTTPException):
                self.unasked += 1  # nobody dies in this turn; a run without deaths is found out by its count
                continue
            working = [pid for pid in processes_of(self.emulator, self.functions[output]) if ports & ports_of(pid)]
            if working:
                self._kill(self.chance.choice(working), output)

    def _kill(self, pid: int, output: str) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # it ended by itself meanwhile
        self.killed[output] += 1

    def stop(self) -> None:
        """No more deaths from here on."""
        self._over.set()


@contextlib.contextmanager
def killing(killer: Killer) -> Iterator[Killer]:
    """Deaths for as long as the block lasts."""
    thread = threading.Thread(target=killer.run, name="killer", daemon=True)
    thread.start()
    try:
        yield killer
    finally:
        killer.stop()
        thread.join()
