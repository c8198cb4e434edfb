"""A bulk replay over the real adapters whose AWS calls fail, before they took effect or after it: DynamoDB's
transaction that was carried out and never answered, SQS's batch that was taken and never acknowledged, S3's object that
was stored all the same. Each item is replayed once, and nothing is sent that is not on record.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from functions.core.audit import AuditType
from functions.core.recovery import Row, Status
from functions.core.replay import Filter
from functions.core.replay_job import LEASE_MS, State
from tests import aws_tables
from tests.integration.test_cost_of_a_life import BATCH, Life, patient, unhurried
from tests.worker_world import Died

__all__ = ["patient", "unhurried"]  # fixtures that are used here too

EVENTS = 20
PER_EVENT = 2
SHARE = 0.2
TICK_MS = 300_000  # a sweeper that comes by seldom: its queries take their time here


class Trouble:
    """What becomes of λ's calls while it is on: a fifth of them fail at random, half of those after they took effect;
    or λ dies there.
    """

    def __init__(self, seed: int, *, is_deadly: bool) -> None:
        self.rng = random.Random(seed)
        self.is_deadly = is_deadly
        self.is_on = False
        self.met: Counter[str] = Counter()

    def around(self, call: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
        def maybe(operation: str, request: Any) -> Any:
            if not self.is_on or self.rng.random() >= SHARE:
                return call(operation, request)
            error = Died(operation) if self.is_deadly else ReadTimeoutError(endpoint_url="https://aws.example")
            is_after = self.rng.random() < 0.5
            self.met[f"{operation} {'after' if is_after else 'before'}"] += 1
            if is_after:
                call(operation, request)
            raise error

        return maybe

    @contextmanager
    def met_by(self, *clients: Any) -> Iterator[None]:
        """Put in front of the clients' calls."""
        originals = [(client, client._make_api_call) for client in clients]
        for client, original in originals:
            client._make_api_call = self.around(original)
        try:
            yield
        finally:
            for client, original in originals:
                client._make_api_call = original


def dead(life: Life) -> list[Row]:
    """Actions that failed at their first attempt, for good."""
    life.stack.status = 400
    for start in range(0, EVENTS, BATCH):
        life.clock.advance(1_000)
        life.work(*(life.event(str(start + number)) for number in range(BATCH)))
    life.stack.status = 200
    rows = life.rows()
    assert {row.status for row in rows} == {Status.FAILED}
    assert len(rows) == EVENTS * PER_EVENT
    return rows


def replayed_events(life: Life) -> list[dict[str, Any]]:
    return [
        item
        for page in life.stack.dynamodb.get_paginator("scan").paginate(TableName=aws_tables.AUDIT)
        for item in page["Items"]
        if item["event_type"]["S"] == AuditType.REPLAYED.value
    ]


@pytest.mark.parametrize(("seed", "is_deadly"), [(1, False), (2, True)], ids=["answers_lost", "killed"])
def test_whatever_aws_does_to_its_calls_each_item_is_replayed_once_and_on_record_001_46_004_19(
    unhurried: Life, seed: int, proved: Callable[[str], None], *, is_deadly: bool
) -> None:
    life = unhurried
    rows = dead(life)
    bulk = life.bulk
    trouble = Trouble(seed, is_deadly=is_deadly)
    deaths = invocations = 0
    swept_at_ms = [life.clock.now]

    def meanwhile() -> None:
        """Workers see to what waits; nothing of theirs fails. The sweeper makes up for hints that were lost."""
        trouble.is_on = False
        life.take_every_replay()
        if life.clock.now - swept_at_ms[0] >= TICK_MS:
            swept_at_ms[0] = life.clock.now
            life.tick()
            life.take_every_replay()
        trouble.is_on = True

    bulk.meanwhile = meanwhile
    with trouble.met_by(life.stack.dynamodb, life.sqs, life.stack.s3):
        job = bulk.planned(Filter(status=frozenset(["failed"])))
        job = bulk.approve(job)
        while job.state not in (State.FINISHED, State.STOPPED) and invocations < 400:
            invocations += 1
            trouble.is_on = True
            try:
                bulk.invoke(job.job_id)
            except Died:
                deaths += 1
            trouble.is_on = False
            life.clock.advance(LEASE_MS)
            meanwhile()
            trouble.is_on = False
            job = bulk.now(job.job_id)

    assert (job.state, dict(job.outcomes)) == (State.FINISHED, {"succeeded": len(rows)}), job
    assert sum(trouble.met.values()) >= 10
    assert deaths == (sum(trouble.met.values()) if is_deadly else 0)
    now = life.rows()
    assert {(row.status, row.result, row.replay_no, row.attempt_count) for row in now} == {
        (Status.REPLAYED, "succeeded", 1, 2)
    }
    told = Counter(item["affected_id"]["S"] for item in replayed_events(life))
    assert told == {row.recovery_id: 1 for row in rows}
    recorded = bulk.plans.records(job.job_id, 0, len(rows))
    assert Counter(one.recovery_id for one in recorded) == {row.recovery_id: 1 for row in rows}
    said = ", ".join(f"{number} {name}" for name, number in sorted(trouble.met.items()))
    what = f"λ killed {deaths} times at its AWS calls" if is_deadly else f"{trouble.met.total()} AWS calls failed"
    proved(f"bulk replay of {len(rows)} over real adapters, {what}: each replayed once, on record ({said})")
