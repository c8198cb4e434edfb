"""A worker whose process is killed in the middle of a batch."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ops.expectation import CRASH, REFUND, TWICE, WHERE
from ops.simulator import Fault, FaultMode
from tests.e2e.conftest import World

SHORT_VISIBILITY_SECONDS = 16  # over the lease of a claim, so that the second delivery may take over
RECEIVES_ON_AWS = 10


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
    """The events queue shows what was not acknowledged again sooner than on AWS, where nobody waits for a test; and as
    often as there: who is in the hands of each worker that is killed is no poison.
    """
    sqs, url = world.stack.client("sqs"), world.stack.output("EventsQueueUrl")
    names: Any = ["VisibilityTimeout", "RedrivePolicy"]
    before = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    redrive = json.loads(before["RedrivePolicy"]) | {"maxReceiveCount": RECEIVES_ON_AWS}
    changed = {"VisibilityTimeout": str(SHORT_VISIBILITY_SECONDS), "RedrivePolicy": json.dumps(redrive)}
    sqs.set_queue_attributes(QueueUrl=url, Attributes=changed)
    try:
        yield
    finally:
        sqs.set_queue_attributes(QueueUrl=url, Attributes=before)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the worker's process in /proc")
def test_workers_killed_during_a_call_leave_one_effect_each_and_every_event_settled(world: World) -> None:
    """Three times: while a tag, an assignment and a reply are on their way."""
    conversations: list[str] = []
    with shorter_visibility(world):
        for operation in ("add_tags", "assign", "reply"):
            fault = Fault("helpdesk", FaultMode.LATENCY, operation=operation, seconds=1.5, times=6)
            [fault_id] = world.simulator.add_faults(fault)
            letters = world.letters(f"e2e-kill-{operation}", (WHERE, CRASH, TWICE, REFUND), 4)
            conversations += world.expect(letters)
            world.post([delivery for delivery, _ in letters])
            world.eventually(partial(_not_begun, world, fault_id, operation))
            killed = workers_of(world)
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            assert killed
        world.await_settled(conversations)
    assert world.problems_in(conversations) == []
    assert {effect.target for effect in world.simulator.effects("helpdesk")} >= set(conversations)


def _not_begun(world: World, fault_id: str, operation: str) -> str:
    """What is missing as long as no call has met the fault."""
    fired = sum(int(fault["fired"]) for fault in world.simulator.faults() if fault["id"] == fault_id)
    return "" if fired else f"no {operation} has begun"
