"""What computes beside the local stack: it yields, ends as its command ends, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUN = [sys.executable, "-m", "tests.in_the_gaps"]
SAYS_PRIORITY = "import os; print(os.getpriority(os.PRIO_PROCESS, 0), os.getsid(0) == os.getpid())"
WAITS = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(60)"


def test_the_command_has_the_lowest_priority_in_a_session_of_its_own() -> None:
    said = subprocess.run([*RUN, sys.executable, "-c", SAYS_PRIORITY], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["19", "True"]


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel groups no tasks by session")
def test_so_has_its_session() -> None:
    ours, command = Path("/proc/self/autogroup").read_text(encoding="ascii"), [*RUN, "cat", "/proc/self/autogroup"]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout.split()[-2:] == ["nice", "19"]
    assert Path("/proc/self/autogroup").read_text(encoding="ascii") == ours


@pytest.mark.parametrize("code", [0, 1, 5])
def test_it_ends_as_its_command_ends(code: int) -> None:
    assert subprocess.run([*RUN, sys.executable, "-c", f"raise SystemExit({code})"], check=False).returncode == code


def test_a_signal_ends_the_command_too() -> None:
    with subprocess.Popen([*RUN, sys.executable, "-c", WAITS], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        command = int(running.stdout.readline())
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 128 + signal.SIGTERM
    for _ in range(100):
        try:
            os.kill(command, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the command goes on")
