"""The local stack: the real synthesized app on an AWS emulator, with simulated providers, on this machine's loopback.

    with LocalStack.start(Path(directory)) as running:
        httpx.post(webhook_url(running.stack, "github"), ...)

Every stack has ports, processes, secrets and temporary files of its own, so any number may run side by side. IAM is
enforced on the functions' roles as on AWS.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from ops.local import parameters
from ops.local.deployment import DeploymentFailed, assembly, deploy, mend
from ops.local.parameters import webhook_url
from ops.local.processes import Process, birth, is_alive, spawn
from ops.local.state import LocalState, UnreadableState
from ops.local.teardown import living, tear_down
from ops.simulator import SimulatorControl
from ops.stack import ROOT, Stack

__all__ = ["AlreadyUp", "LocalStack", "LocalStackFailed", "UnreadableState", "webhook_url"]

STATE_NAME = "stack.json"
_START_SECONDS = 30.0
_LOG_TAIL_BYTES = 3000


class LocalStackFailed(Exception):
    """The stack did not come up. The text says which part failed and holds the end of its log."""


class AlreadyUp(Exception):
    """A stack of this directory runs already, or somebody is just starting one."""


def _say_nothing(_: str) -> None:
    return


class LocalStack:
    """A local stack that is up. Made by `start`; `stop` ends it, and so does leaving the `with` block."""

    def __init__(self, directory: Path, state: LocalState) -> None:
        self._state_file = directory / STATE_NAME
        self.state = state
        self.stack: Stack = state.stack(self._state_file)
        self.simulator = SimulatorControl(state.simulator_url)

    @classmethod
    def start(
        cls,
        directory: Path,
        *,
        owned: bool = True,
        watched: bool = False,
        announce: Callable[[str], None] = _say_nothing,
        root: Path = ROOT,
    ) -> Self:
        """Start everything and wait until it works. `directory` keeps state and logs, one stack each.

        An `owned` stack ends when this process is gone, however it went. Of one that is `watched` the alarms are judged
        (`ops.local.bridge`). Raises `AlreadyUp`, or `LocalStackFailed` after ending what had been started.
        """
        directory.mkdir(parents=True, exist_ok=True)
        with _only_one(directory):
            state_file = directory / STATE_NAME
            _clear_away(state_file, announce)
            state = LocalState(logs=str(directory / "logs"), scratch=tempfile.mkdtemp(prefix="holdfast-local-"))
            try:
                _bring_up(state, state_file, owned=owned, watched=watched, announce=announce, root=root)
            except BaseException as exc:
                tails = _log_tails(state)
                state.status = "failed"
                state.write(state_file)
                tear_down(state_file)
                if isinstance(exc, OSError | DeploymentFailed | BotoCoreError | ClientError | _PartFailed):
                    raise LocalStackFailed(f"{exc}\n{tails}".strip()) from exc
                raise
            return cls(directory, state)

    @classmethod
    def running(cls, directory: Path) -> Self | None:
        """The stack of this directory if it is up and all its processes run."""
        state_file = directory / STATE_NAME
        if not state_file.exists():
            return None
        state = LocalState.read(state_file)
        is_whole = state.status == "up" and all(is_alive(process) for process in state.processes)
        return cls(directory, state) if is_whole else None

    def stop(self) -> list[str]:
        """End it and remove what it wrote, but for the logs. Gives the names of the processes that were ended."""
        return tear_down(self._state_file) if self._state_file.exists() else []

    def process(self, name: str) -> Process:
        """One of `emulator`, `simulator`, `ticker`, `bridge`. Raises KeyError."""
        return {process.name: process for process in self.state.processes}[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _PartFailed(Exception):
    """A process of the stack ended, or did not answer in time."""


@contextlib.contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise AlreadyUp("somebody else is starting this stack right now") from exc
        yield


def _clear_away(state_file: Path, announce: Callable[[str], None]) -> None:
    """Make room where an earlier stack crashed. Raises `AlreadyUp` where one runs."""
    if not state_file.exists():
        return
    try:
        state = LocalState.read(state_file)
    except UnreadableState:
        announce("an unreadable state file was put aside")
        state_file.replace(state_file.with_suffix(".unreadable"))
        return
    if state.status == "up" and all(is_alive(process) for process in state.processes):
        raise AlreadyUp(f"the local stack is up at {state.endpoint}")
    left = living(state)
    announce("clearing away a stack that is no longer whole" + (f" (still running: {', '.join(left)})" if left else ""))
    tear_down(state_file)


def _bring_up(
    state: LocalState,
    state_file: Path,
    *,
    owned: bool,
    watched: bool,
    announce: Callable[[str], None],
    root: Path,
) -> None:
    logs = Path(state.logs)
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(mode=0o700)
    state.write(state_file)

    def start(name: str, command: list[str], env: dict[str, str]) -> Process:
        process = spawn(name, command, env=env, log=logs / f"{name}.log", cwd=Path(state.scratch))
        state.processes.append(process)
        state.write(state_file)
        return process

    announce("starting the emulator and the simulated providers")
    port = _free_port()
    state.endpoint = f"http://127.0.0.1:{port}"
    emulator = start("emulator", [sys.executable, "-m", "ministack"], _emulator_environment(state, port))
    clean = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"}
    simulator = start("simulator", [sys.executable, "-m", "ops.simulator", "--port", "0"], clean)

    announce("synthesizing the app (kept while nothing changes)")
    made = assembly(root)
    state.simulator_url = _simulator_url(simulator, logs / "simulator.log")
    _await_emulator(emulator, port)

    announce("deploying it")
    state.outputs = deploy(made, state.endpoint, root)
    stack = state.stack(state_file)
    mend(made, stack)
    announce("storing demo sources, their secrets and the providers' addresses")
    state.sources = parameters.store(stack)
    state.api_url = stack.api_url
    state.write(state_file)
    announce("waiting for the first answer")
    _await_answer(port, f"{stack.api_url}/webhooks/nobody")
    owner = ["--owner", str(os.getpid()), "--owner-born", birth(os.getpid())] if owned else []
    start("ticker", [sys.executable, "-m", "ops.local.ticker", str(state_file.resolve()), *owner], clean)
    if watched:
        start("bridge", [sys.executable, "-m", "ops.local.bridge", str(state_file.resolve())], clean)
    state.status = "up"
    state.write(state_file)


def _emulator_environment(state: LocalState, port: int) -> dict[str, str]:
    """All that the emulator is told, and so all that functions inherit from it: nothing of the caller's environment."""
    home, temporary = Path(state.scratch, "home"), Path(state.scratch, "tmp")
    home.mkdir()
    temporary.mkdir()
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.defpath]),
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "LANG": "C.UTF-8",
        "AUTH": "true",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        "LOG_LEVEL": "WARNING",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _await_emulator(process: Process, port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if not is_alive(process):
            raise _PartFailed("the emulator ended while starting")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/_ministack/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.05)  # not listening yet
        finally:
            connection.close()
    raise _PartFailed(f"the emulator did not answer within {_START_SECONDS:.0f} s")


def _await_answer(port: int, url: str) -> None:
    """Wait until a webhook without a source is refused: then the API, ingress and the parameter store work together."""
    deadline = time.monotonic() + _START_SECONDS
    status = 0
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_START_SECONDS)
        try:
            connection.request("POST", urlsplit(url).path, b"{}", {"Content-Type": "application/json"})
            status = connection.getresponse().status
        except OSError:
            status = 0
        finally:
            connection.close()
        if status == HTTPStatus.UNAUTHORIZED:
            return
        time.sleep(0.5)
    raise _PartFailed(f"ingress answers {status or 'nothing'} where it should refuse an unknown source")


def _simulator_url(process: Process, log: Path) -> str:
    """The address that the simulator prints once it listens."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        first, newline, _ = log.read_text().partition("\n")
        if newline:
            try:
                url: str = json.loads(first)["base_url"]
            except (ValueError, KeyError, TypeError) as exc:
                raise _PartFailed("the provider simulator did not say where it listens") from exc
            return url
        if not is_alive(process):
            break
        time.sleep(0.05)
    raise _PartFailed("the provider simulator ended, or did not start in time")


def _log_tails(state: LocalState) -> str:
    """The end of each part's log, for whoever has to find out why it failed."""
    parts = []
    for log in sorted(Path(state.logs).glob("*.log")):
        tail = log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
        if tail:
            parts.append(f"--- end of {log.name}\n{tail}")
    return "\n".join(parts)
