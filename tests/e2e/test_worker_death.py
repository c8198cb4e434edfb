"""A worker whose process is killed in the middle of a batch."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops.expectation import CRASH, REFUND, TWICE, WHERE
from ops.simulator import Fault, FaultMode
from tests.e2e.conftest import World

SHORT_VISIBILITY_SECONDS = 16  # over the lease of a claim, so that the second delivery may take over


def workers_of(world: World) -> list[int]:
    """Process ids of the emulator's worker processes, which are its children."""
    emulator = world.running.process("emulator").pid
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        if parent == emulator and world.stack.output("WorkerFunction").encode() in command:
            found.append(int(entry.name))
    return found


@contextmanager
def shorter_visibility(world: World) -> Iterator[None]:
    """The events queue shows what was not acknowledged again sooner than on AWS, where nobody waits for a test."""
    sqs, url = world.stack.client("sqs"), world.stack.output("EventsQueueUrl")
    before = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": str(SHORT_VISIBILITY_SECONDS)})
    try:
        yield
    finally:
        sqs.set_queue_attributes(QueueUrl=url, Attributes=before)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the worker's process in /proc")
@pytest.mark.parametrize("operation", ["add_tags", "assign", "reply"])
def test_a_worker_killed_during_a_call_leaves_one_effect_each_and_a_settled_event(world: World, operation: str) -> None:
    letters = world.letters(f"e2e-kill-{operation}", (WHERE, CRASH, TWICE, REFUND), 4)
    conversations = world.expect(letters)
    mine = set(conversations)
    world.simulator.add_faults(Fault("helpdesk", FaultMode.LATENCY, operation=operation, seconds=1.5, times=6))
    with shorter_visibility(world):
        world.post([delivery for delivery, _ in letters])

        def no_call() -> str:
            fired = sum(int(fault["fired"]) for fault in world.simulator.faults())
            return "" if fired else f"no {operation} has begun"

        world.eventually(no_call)
        killed = workers_of(world)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        assert killed
        world.await_settled(conversations)
    assert world.problems_in(conversations) == []
    assert {effect.target for effect in world.simulator.effects("helpdesk")} >= mine
