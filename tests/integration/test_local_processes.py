"""Processes of the local stack, on real ones: only what was recorded is ended, with everything it started."""

from __future__ import annotations

import os
import stat
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ops.local.processes import Process, birth, end, is_alive, spawn
from ops.local.state import LocalState, UnreadableState
from ops.local.teardown import tear_down

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)",
]
PARENT = [
    sys.executable,
    "-c",
    """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
""",
]


def started(tmp_path: Path, command: list[str], name: str = "part") -> Process:
    return spawn(name, command, env={"PATH": os.defpath}, log=tmp_path / f"{name}.log", cwd=tmp_path)


def first_line(path: Path) -> str:
    deadline = time.monotonic() + 30
    while "\n" not in path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return path.read_text().splitlines()[0]


def test_a_process_is_ended_with_what_it_started(tmp_path: Path) -> None:
    process = started(tmp_path, PARENT)
    child = int(first_line(tmp_path / "part.log"))
    assert end([process]) == ["part"]
    assert not is_alive(process)
    # It was killed with its session; the kernel takes its moment, and nobody here may collect it.
    deadline = time.monotonic() + 30
    while birth(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_that_ignores_the_request_is_made_to_end(tmp_path: Path) -> None:
    process = started(tmp_path, STUBBORN)
    first_line(tmp_path / "part.log")
    end([process], grace_seconds=0.2)
    assert not is_alive(process)


def test_another_process_under_the_same_pid_is_left_alone(tmp_path: Path) -> None:
    process = started(tmp_path, SLEEPER)
    somebody_else = replace(process, born="long ago")
    assert not is_alive(somebody_else)
    assert end([somebody_else]) == []
    assert is_alive(process)
    end([process])


def test_the_state_comes_back_as_it_was_written_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "stack.json"
    state = LocalState(endpoint="http://127.0.0.1:1", outputs={"A": "b"}, processes=[Process("emulator", 1, "2")])
    state.write(path)
    assert LocalState.read(path) == state
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["stack.json"]


@pytest.mark.parametrize("content", ["", "null", "[]", "{}", '{"format": 2}', '{"format": 1, "processes": [{}]}'])
def test_a_state_that_nobody_wrote_is_unreadable_and_ends_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "stack.json"
    path.write_text(content)
    with pytest.raises(UnreadableState):
        tear_down(path)
    assert path.exists()


def test_tearing_down_ends_what_the_state_names_and_removes_what_it_wrote(tmp_path: Path) -> None:
    process = started(tmp_path, SLEEPER)
    bystander = started(tmp_path, SLEEPER, "bystander")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    path = tmp_path / "stack.json"
    LocalState(scratch=str(scratch), processes=[process]).write(path)
    assert tear_down(path) == ["part"]
    assert not is_alive(process)
    assert is_alive(bystander)
    assert not scratch.exists()
    assert not path.exists()
    end([bystander])
