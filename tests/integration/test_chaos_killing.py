"""Who dies in the chaos run: processes of a function that are at work, and nobody else."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from ops.chaos import killing as deaths
from ops.chaos.killing import Killer, can_kill, killing, ports_of, processes_of

pytestmark = pytest.mark.skipif(not can_kill(), reason="processes are found in /proc")

FUNCTION = "holdfast-chaos-test-worker"
CONNECTED = "import socket, sys, time; held = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); time.sleep(60)"
PATIENCE_SECONDS = 10.0


@contextlib.contextmanager
def child(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that bears the function's name and holds a connection."""
    process = subprocess.Popen([sys.executable, "-c", CONNECTED, str(port), FUNCTION])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_SECONDS)
        yield server


def come(server: socket.socket) -> tuple[socket.socket, int]:
    """The next connection, and the port at its far end."""
    connection, (_, port, *_) = server.accept()
    return connection, port


def killer(at_work: set[int], **functions: str) -> Killer:
    return Killer(os.getpid(), functions, lambda: at_work, random.Random(1))


def test_a_process_is_known_by_its_parent_and_its_functions_name_and_by_the_connections_it_holds(
    listener: socket.socket,
) -> None:
    with child(listener.getsockname()[1]) as process:
        connection, port = come(listener)
        with connection:
            assert processes_of(os.getpid(), FUNCTION) == [process.pid]
            assert processes_of(os.getpid(), "another") == []
            assert processes_of(1, FUNCTION) == []
            assert ports_of(process.pid) == {port}
            assert port not in ports_of(os.getpid())
    assert ports_of(process.pid) == set()


def test_only_what_is_at_work_dies(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deaths, "EVERY_SECONDS", (0.01, 0.02))
    monkeypatch.setattr(deaths, "OUT_OF_A_HUNDRED", {"WorkerFunction": 100})
    at_work: set[int] = set()
    with child(listener.getsockname()[1]) as starting, contextlib.ExitStack() as connections:
        connections.enter_context(come(listener)[0])
        with child(listener.getsockname()[1]) as working:
            connection, port = come(listener)
            connections.enter_context(connection)
            with killing(killer(at_work, WorkerFunction=FUNCTION)) as over:
                time.sleep(0.2)
                assert working.poll() is None
                at_work.add(port)
                assert working.wait(PATIENCE_SECONDS) == -9
                time.sleep(0.2)
            assert starting.poll() is None
            assert over.killed == Counter(WorkerFunction=1)


def test_a_killer_that_cannot_ask_who_is_at_work_goes_on_later(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deaths, "EVERY_SECONDS", (0.01, 0.02))
    monkeypatch.setattr(deaths, "OUT_OF_A_HUNDRED", {"WorkerFunction": 100})
    asked = 0
    with child(listener.getsockname()[1]) as working:
        connection, port = come(listener)

        def at_work() -> Any:
            nonlocal asked
            asked += 1
            if asked < 3:
                raise TimeoutError("the proxy is busy")
            return {port}

        with connection, killing(Killer(os.getpid(), {"WorkerFunction": FUNCTION}, at_work, random.Random(1))) as over:
            assert working.wait(PATIENCE_SECONDS) == -9
        assert over.unasked == 2
