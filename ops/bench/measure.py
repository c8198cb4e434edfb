"""Runs the subjects in fresh processes, in pairs whose order alternates, and keeps what each of them told."""

from __future__ import annotations

import contextlib
import json
import os
import py_compile
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops.bench.endpoint import Endpoint
from ops.bench.subjects import DISTINCT_EVENTS, NAMES, OURS, PEER, Subject, gateway_events

ANSWER_SECONDS = 120  # for anything a process is told to do
START_SECONDS = 0.1  # until the first moment of a schedule
# No site module, no environment of this checkout: an interpreter as bare as Lambda's, for both and for the bare one.
PYTHON = (sys.executable, "-I", "-S")
_BARE = "import resource; used = resource.getrusage(resource.RUSAGE_SELF); print(used.ru_utime + used.ru_stime)"


class SubjectFailed(Exception):
    """A subject did not answer as it should. The text holds the end of what it wrote to standard error."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much is measured. Every subject answers `rounds` × `arrivals` events on a schedule, one each interval."""

    pairs: int = 15
    warm_up_requests: int = 50
    warm_requests: int = 500
    rounds: int = 3
    arrivals: int = 400
    interval_seconds: float = 0.025


@dataclass(frozen=True, slots=True)
class Run:
    """One process: its first answer, then warm ones. Seconds are CPU time; requests are those AWS got."""

    cold_cpu_seconds: float
    warm_cpu_seconds: float
    peak_bytes: int
    modules: int
    loads_boto3: bool
    first_aws_requests: int
    warm_aws_requests: float


@dataclass(frozen=True, slots=True)
class Taken:
    """Everything that was measured: `runs` and `bare` have one entry per pair, `ack_seconds` one list per round."""

    runs: dict[str, list[Run]] = field(default_factory=lambda: {name: [] for name in NAMES})
    bare_cpu_seconds: list[float] = field(default_factory=list)
    ack_seconds: dict[str, list[list[float]]] = field(default_factory=lambda: {name: [] for name in NAMES})


class Process:
    """A running subject that has answered its first event; `first` is what it told of that."""

    def __init__(self, process: subprocess.Popen[str], told: int, errors: Path) -> None:
        self._process = process
        self._told = os.fdopen(told, encoding="utf-8")
        self._errors = errors

    def order(self, line: str) -> None:
        """Give it one line on its standard input."""
        assert self._process.stdin is not None  # noqa: S101  # a pipe, as asked for
        with contextlib.suppress(BrokenPipeError):  # it has ended, which `hear` tells with the reason
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """What it tells next. Raises `SubjectFailed`."""
        ready, _, _ = select.select([self._told], [], [], ANSWER_SECONDS)
        line = self._told.readline() if ready else ""
        if not line:
            said = self._errors.read_text(errors="replace").strip()
            raise SubjectFailed(f"{self._errors.stem} told nothing: {said[-2000:]}")
        told: dict[str, Any] = json.loads(line)
        if told.get("refused"):
            raise SubjectFailed(f"{self._errors.stem} refused {told['refused']} events that it should take")
        return told

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """Tell it to do something and wait for what it tells. Raises `SubjectFailed`."""
        self.order(json.dumps(order))
        return self.hear()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None  # noqa: S101  # as above
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._told.close()


class Stage:
    """Where processes are started: a scratch folder with the compiled child and the events they answer."""

    def __init__(self, subjects: dict[str, Subject], endpoint: Endpoint, scratch: Path) -> None:
        self.subjects = subjects
        self.endpoint = endpoint
        self.scratch = scratch
        self._child = scratch / "child.pyc"
        py_compile.compile(str(Path(__file__).with_name("child.py")), cfile=str(self._child), doraise=True)
        first, *further = gateway_events(DISTINCT_EVENTS + 1)
        self._first = json.dumps(first)
        self._events = scratch / "events.ndjson"
        self._events.write_text("".join(json.dumps(event) + "\n" for event in further))

    @contextlib.contextmanager
    def started(
        self, name: str, *, profile: str = "", options: Sequence[str] = ()
    ) -> Iterator[tuple[Process, dict[str, Any]]]:
        """A fresh process of that subject and what it told of its first answer. Raises `SubjectFailed`.

        `profile`: a path to write profiles to, with endings. `options` are the interpreter's.
        """
        subject = self.subjects[name]
        told, tell = os.pipe()
        plan = {
            "path": [str(folder) for folder in subject.path],
            "module": subject.module,
            "function": subject.function,
            "tell": tell,
            "events": str(self._events),
            "profile": profile,
        }
        errors = self.errors_of(name)
        with errors.open("w") as stderr:
            child = subprocess.Popen(
                [*PYTHON, *options, str(self._child), json.dumps(plan)],
                cwd=subject.path[0],
                env=dict(subject.environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,  # what a handler logs is part of its work, and of nobody's interest here
                stderr=stderr,
                text=True,
                pass_fds=(tell,),
            )
        os.close(tell)
        process = Process(child, told, errors)
        try:
            process.order(self._first)
            first = process.hear()
            if first["answer"]["statusCode"] != 202:
                raise SubjectFailed(f"{name} answered the first event {first['answer']}")
            yield process, first
        finally:
            process.close()

    def errors_of(self, name: str) -> Path:
        """The file that holds what the subject's last process wrote to standard error."""
        return self.scratch / f"{name}.stderr"

    def run(self, name: str, load: Load) -> Run:
        """One process: first answer, warm-up, warm answers. Raises `SubjectFailed`."""
        before = self._aws_requests(name)
        with self.started(name) as (process, first):
            after_first = self._aws_requests(name)
            process.ask({"do": "answer", "requests": load.warm_up_requests})
            warmed_up = self._aws_requests(name)
            warm = process.ask({"do": "answer", "requests": load.warm_requests})
            warmed = self._aws_requests(name)
        return Run(
            cold_cpu_seconds=first["cpu_seconds"],
            warm_cpu_seconds=warm["cpu_seconds"] / load.warm_requests,
            peak_bytes=warm["peak_bytes"],
            modules=first["modules"],
            loads_boto3=first["loads_boto3"],
            first_aws_requests=after_first - before,
            warm_aws_requests=(warmed - warmed_up) / load.warm_requests,
        )

    def round(self, load: Load) -> dict[str, list[float]]:
        """Seconds from each scheduled moment to its answer, of both subjects at the same time.

        Each has its own process and one caller, as a Lambda environment has; the moments of the two alternate.
        """
        with contextlib.ExitStack() as stack:
            processes = {name: stack.enter_context(self.started(name))[0] for name in NAMES}
            for process in processes.values():
                process.ask({"do": "answer", "requests": load.warm_up_requests})
            start = time.monotonic() + START_SECONDS
            for number, process in enumerate(processes.values()):
                order = {
                    "do": "arrivals",
                    "start": start + number * load.interval_seconds / len(processes),
                    "interval": load.interval_seconds,
                    "requests": load.arrivals,
                }
                process.order(json.dumps(order))
            return {name: process.hear()["seconds"] for name, process in processes.items()}

    def _aws_requests(self, name: str) -> int:
        return sum(self.endpoint.counts(name).values())


def bare_cpu_seconds() -> float:
    """CPU time of an interpreter that starts, and does nothing but tell it."""
    run = subprocess.run([*PYTHON, "-c", _BARE], capture_output=True, text=True, check=True, env={})
    return float(run.stdout)


def measure(stage: Stage, load: Load) -> Taken:
    """The whole measurement, after one pair that does not count. Raises `SubjectFailed`."""
    taken = Taken()
    warm_up = Load(warm_up_requests=1, warm_requests=1)
    for name in NAMES:
        stage.run(name, warm_up)  # the first process of each reads its files from the disk
    for pair in range(load.pairs):
        taken.bare_cpu_seconds.append(bare_cpu_seconds())
        for name in (OURS, PEER) if pair % 2 == 0 else (PEER, OURS):
            taken.runs[name].append(stage.run(name, load))
    for _ in range(load.rounds):
        for name, seconds in stage.round(load).items():
            taken.ack_seconds[name].append(seconds)
    return taken


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        yield Path(folder)
