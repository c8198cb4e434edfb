"""Forty minutes without storage use up the ten receives of everything that is on a queue, and ten minutes later it is
dead: nothing of it is called a defect, what only wakes a row is let go, and what is an event can be sent on.

001.42, 001.43.
"""

from __future__ import annotations

import io

import pytest

from functions import observability
from functions.core.failure import StorageUnavailable, failure_of_status
from functions.core.recovery import DEAD_HINT_LIMIT, Row, Status, replay
from functions.triage.handler import build as build_triage
from tests.fakes import FakeIds, FakeLedger, FakeRecovery
from tests.worker_world import Died, World

MINUTE_MS = 60_000
OUTAGE_MINUTES = 55
MAX_RECEIVES = 10


class Stage(World):
    """A world whose tables can be out of reach, and which has a triage."""

    def __init__(self, *names: str) -> None:
        super().__init__(names)
        self.is_out = False
        self.sent_at_ms: dict[str, int] = {}
        self.lines: list[str] = []
        self.faults.on_before = self._before

    def _before(self, op: str) -> None:
        if self.is_out and op.startswith(("ledger.", "recovery.")):
            raise StorageUnavailable(f"{op}: the tables do not answer")

    def pass_a_minute(self) -> None:
        """The sweeper's tick, and whatever is to be seen in that minute; then what was received too often is dead."""
        self.sweep()
        for message in self.messages:
            self.sent_at_ms.setdefault(message.id, self.clock.now)
        for _ in range(6):
            self._give_up()
            self.deliver()
            self.clock.now += MINUTE_MS // 6

    def _give_up(self) -> None:
        """Also of what killed its worker, which gave no answer."""
        for message in [one for one in self.messages if one.receive_count >= MAX_RECEIVES]:
            if message.visible_at_ms <= self.clock.now:
                self.messages.remove(message)
                self.dead.append(message)

    def outage(self) -> None:
        """The tables are out of reach for a while."""
        self.is_out = True
        for _ in range(OUTAGE_MINUTES):
            self.pass_a_minute()
        self.is_out = False

    def triage(self) -> None:
        """What the queues gave up, each of it once."""
        handle = build_triage(
            ledger=FakeLedger(self.tables),
            recovery=FakeRecovery(self.tables),
            envelopes=self.envelopes,
            clock=self.clock,
            ids=FakeIds(),
            log=observability.logger("storage-outage-test", stream=io.StringIO()),
            metrics=observability.metrics("triage", "test", self.lines.append),
            max_receives=MAX_RECEIVES,
        )
        records = [
            {
                "messageId": message.id,
                "body": message.body,
                "attributes": {
                    "ApproximateReceiveCount": str(message.receive_count + 1),
                    "SentTimestamp": str(self.sent_at_ms.get(message.id, self.clock.now)),
                },
                "eventSourceARN": f"arn:aws:sqs:us-east-1:000000000000:{message.queue}-dlq",
            }
            for message in self.dead
        ]
        kept = {item["itemIdentifier"] for item in handle({"Records": records}, None)["batchItemFailures"]}
        self.dead = [message for message in self.dead if message.id in kept]

    def only_row(self) -> Row:
        (found,) = self.tables.rows.values()
        return found


def failing_once(stage: Stage) -> None:
    """The helpdesk answers 503 to the first call, so that the event leaves a row that is tried again."""
    left = [failure_of_status(503)]
    stage.provider.answers.append(lambda _action: left.pop() if left else None)


@pytest.mark.parametrize("name", ["tag", "assign", "create"])
def test_a_row_whose_hint_was_given_up_in_an_outage_is_woken_again_and_done_once(name: str) -> None:
    stage = Stage(name)
    failing_once(stage)
    event = stage.event()
    stage.accept(event)
    stage.deliver()
    while not stage.messages:  # until its wait is over and its hint is on the queue
        stage.clock.now += MINUTE_MS
        stage.sweep()
    stage.outage()
    assert [message.queue for message in stage.dead] == ["retries"]
    before = stage.only_row()
    stage.triage()
    assert stage.dead == []
    assert (stage.only_row().status, stage.only_row().dead_hints) == (before.status, 1)
    stage.run_until_quiet()
    assert (stage.only_row().status, stage.only_row().failure_code) == (Status.SUCCEEDED, "HTTP_503")
    assert stage.only_row().dead_hints == 0
    stage.check_settled(event)


def test_a_row_whose_hints_kill_every_worker_before_any_can_claim_it_is_poison_after_three_of_them() -> None:
    stage = Stage("tag")
    failing_once(stage)
    stage.accept(stage.event())
    stage.deliver()
    recovery_id = stage.only_row().recovery_id

    def dies_with_it(op: str) -> None:
        if op == "recovery.get":
            raise Died

    minutes = 0
    while stage.only_row().is_open:
        stage.faults.on_before = dies_with_it
        stage.pass_a_minute()
        stage.faults.on_before = None
        counted = stage.only_row().dead_hints
        stage.triage()
        assert stage.only_row().dead_hints - counted <= 1
        minutes += 1
        assert minutes < 24 * 60
    row = stage.only_row()
    assert (row.recovery_id, row.status, row.failure_code, row.root_cause) == (
        recovery_id,
        Status.DLQ,
        "POISONED",
        "code_defect",
    )
    assert f"{DEAD_HINT_LIMIT} hints in a row led to nothing" in row.failure_detail
    assert minutes > 2 * OUTAGE_MINUTES  # one outage, however many hints it takes with it, is never enough


@pytest.mark.parametrize("when", ["before its claim", "before it could settle"])
def test_an_event_given_up_in_an_outage_is_no_code_defect_and_a_replay_does_it_once(when: str) -> None:
    stage = Stage("tag", "create")
    event = stage.event()
    stage.accept(event)
    if when == "before it could settle":
        stage.faults.fail("ledger.settle")
        stage.deliver()
    stage.outage()
    assert [message.queue for message in stage.dead] == ["events"]
    stage.triage()
    assert stage.dead == []
    row = stage.only_row()
    code = "NEVER_CLAIMED" if when == "before its claim" else "NEVER_SETTLED"
    assert (row.status, row.failure_code, row.root_cause) == (Status.DLQ, code, "transient_infra")
    again = replay(row, stage.clock.now, actor="anna", reason="it is back", request_id="r", job_id="j", scale=1.0)
    FakeRecovery(stage.tables).commit([again])
    stage.run_until_quiet()
    assert stage.tables.rows[row.recovery_id].result == "succeeded"
    stage.check_settled(event)
    assert set(stage.provider.effects.values()) == {1}
