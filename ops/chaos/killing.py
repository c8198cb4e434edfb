"""Ends processes of the emulator's functions without a word, as a machine that dies does. Needs /proc."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

EVERY_SECONDS = (3.0, 6.0)  # between two deaths
OUT_OF_A_HUNDRED: Mapping[str, int] = {
    "WorkerFunction": 80,
    "SweeperFunction": 8,
    "IngressFunction": 5,
    "TriageFunction": 4,
    "EvaluatorFunction": 3,
}
"""Whose turn it is, by the function's output. Functions that have no process at that moment are spared."""


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


@dataclass(slots=True)
class Killer:
    """Kills one process at a time until told to stop. `killed` counts them by the function's output."""

    emulator: int
    functions: Mapping[str, str]
    chance: random.Random
    killed: Counter[str] = field(default_factory=Counter)
    _over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """One death after another."""
        outputs = list(OUT_OF_A_HUNDRED)
        while not self._over.wait(self.chance.uniform(*EVERY_SECONDS)):
            (output,) = self.chance.choices(outputs, weights=list(OUT_OF_A_HUNDRED.values()))
            running = processes_of(self.emulator, self.functions[output])
            if running:
                self._kill(self.chance.choice(running), output)

    def _kill(self, pid: int, output: str) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # it ended by itself meanwhile
        self.killed[output] += 1

    def stop(self) -> None:
        """No more deaths from here on."""
        self._over.set()


@contextmanager
def killing(killer: Killer) -> Iterator[Killer]:
    """Deaths for as long as the block lasts."""
    thread = threading.Thread(target=killer.run, name="killer", daemon=True)
    thread.start()
    try:
        yield killer
    finally:
        killer.stop()
        thread.join()
