"""Events too large for a queue: what travels is a claim check, and the body is read by whom it is of use to.

The envelope that ingress stored is the only one there ever is: rows point at it, and a replay works from it.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

import pytest

from functions import observability
from functions.core.event import ClaimCheck, Event, read_message
from functions.core.failure import StorageUnavailable, failure_of_status
from functions.core.ledger import ledger_key
from functions.core.recovery import Row, Status, replay
from functions.triage.handler import build as build_triage
from functions.worker.first_pass import LARGE_AT_ONCE
from tests.fakes import NOON_MS, FakeIds, FakeLedger, FakeRecovery
from tests.worker_world import World

_P = ParamSpec("_P")
_R = TypeVar("_R")

BODY = b'{"text":"' + b"where is my parcel? " * 2_000 + b'"}'


class Large(World):
    """A world whose events are all too large for a queue."""

    def __init__(self, *names: str, switches: dict[str, str] | None = None) -> None:
        super().__init__(names or ("tag",), switches)
        self.is_large = True

    def event(self, identity: str = "1", **fields: Any) -> Event:
        return super().event(identity, **{"body": BODY, **fields})

    def reference(self, event: Event) -> str:
        """Where ingress stored its envelope."""
        return ClaimCheck.of(event, event.to_message()).reference

    def reads(self) -> int:
        """How often anybody read an envelope."""
        return self.faults.calls.count("envelopes.get")

    def only_row(self) -> Row:
        (found,) = self.tables.rows.values()
        return found

    def triage(self) -> None:
        """What the queue gave up goes to triage, all of it."""
        handle = build_triage(
            ledger=FakeLedger(self.tables),
            recovery=FakeRecovery(self.tables),
            envelopes=self.envelopes,
            clock=self.clock,
            ids=FakeIds(),
            log=observability.logger("claims-test", stream=io.StringIO()),
            metrics=observability.metrics("triage", "test", list[str]().append),
            max_receives=10,
        )
        records = [
            {
                "messageId": message.id,
                "body": message.body,
                "attributes": {"ApproximateReceiveCount": str(message.receive_count), "SentTimestamp": str(NOON_MS)},
                "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:events-dlq",
            }
            for message in self.dead
        ]
        assert handle({"Records": records}, None) == {"batchItemFailures": []}
        self.dead.clear()

    def replay(self, row: Row) -> None:
        """A person sends it on once more."""
        change = replay(row, self.clock.now, actor="anna", reason="fixed", request_id="r-9", job_id="j-1", scale=1.0)
        FakeRecovery(self.tables).commit([change])


def failing_get_of(reference: str, world: World) -> None:
    """The bucket answers for every other object."""
    content = world.envelopes.objects.pop(reference)
    world.envelopes.objects["elsewhere"] = content


# --------------------------------------------------------------------------------------------------------- first pass


def test_a_large_event_is_worked_from_its_whole_body_and_no_second_copy_of_it_is_made() -> None:
    world = Large()
    event = world.event()
    world.accept(event)
    world.run_until_quiet()
    world.check_settled(event)
    assert world.read == [BODY]
    assert set(world.envelopes.objects) == {world.reference(event)}
    assert "envelopes.put" not in world.faults.calls


def test_what_is_left_unfinished_of_it_points_at_what_ingress_stored() -> None:
    world = Large("tag", "reply")
    world.provider.answers.append(lambda action: failure_of_status(422))
    event = world.event()
    world.accept(event)
    world.deliver()
    assert {found.envelope_ref for found in world.tables.rows.values()} == {world.reference(event)}
    assert len(world.tables.rows) == 2
    assert set(world.envelopes.objects) == {world.reference(event)}


def _settled(world: Large, event: Event) -> None:
    world.accept(event)
    world.run_until_quiet()


def _as_it_was(_world: Large, event: Event) -> Event:
    return event


def _with_another_payload(_world: Large, event: Event) -> Event:
    return replace(event, payload_hash="other")


def _held(_world: Large, event: Event) -> Event:
    return replace(event, identity="2", held=True)


def _on_hold(world: Large, event: Event) -> Event:
    world.switches.values["mode"] = "hold"
    world.clock.advance(60_000)
    return replace(event, identity="2")


def _of_an_unknown_flow(_world: Large, event: Event) -> Event:
    return replace(event, identity="2", flow="nobody's")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_as_it_was, None),
        (_with_another_payload, "PAYLOAD_MISMATCH"),
        (_held, "HELD"),
        (_on_hold, ""),
        (_of_an_unknown_flow, "UNKNOWN_FLOW"),
    ],
)
def test_a_body_is_not_read_where_none_is_needed_and_a_row_points_at_it_all_the_same(
    change: Callable[[Large, Event], Event], code: str | None
) -> None:
    world = Large()
    event = world.event()
    _settled(world, event)
    reads = world.reads()
    second = change(world, event)
    world.accept(second)
    world.deliver()
    assert world.reads() == reads == 1
    assert not world.messages
    if code is None:
        assert world.tables.rows == {}
        assert world.quiet.counts["idempotency_duplicates_detected"] == 1
    else:
        assert (world.only_row().failure_code, world.only_row().envelope_ref) == (code, world.reference(second))
    assert "envelopes.put" not in world.faults.calls


def test_a_redelivery_is_acknowledged_when_the_body_is_long_gone() -> None:
    world = Large()
    event = world.event()
    _settled(world, event)
    world.accept(event)
    world.envelopes.objects.clear()
    assert world.deliver() == 1
    assert not world.messages


def test_a_takeover_goes_on_from_the_decision_and_needs_no_body() -> None:
    world = Large()
    event = world.event()
    world.accept(event)
    world.faults.fail("ledger.settle")
    world.deliver()
    world.envelopes.objects.clear()
    world.run_until_quiet()
    world.check_settled(event)
    assert world.reads() == 1


def test_a_body_that_cannot_be_read_keeps_its_own_message_and_no_other() -> None:
    world = Large()
    lost, fine, small = world.event("lost"), world.event("fine"), world.event("small", body=b"{}")
    world.accept(lost)
    world.accept(fine)
    world.is_large = False
    world.accept(small)
    failing_get_of(world.reference(lost), world)
    world.deliver()
    assert [read_message(message.body) for message in world.messages] == [ClaimCheck.of(lost, lost.to_message())]
    world.check_settled(fine)
    world.check_settled(small)
    world.envelopes.objects[world.reference(lost)] = world.envelopes.objects.pop("elsewhere")
    world.run_until_quiet()
    world.check_settled(lost)


def test_an_object_that_holds_another_event_is_a_malformed_message() -> None:
    world = Large()
    event = world.event()
    world.accept(event)
    world.envelopes.objects[world.reference(event)] = world.event("other").to_message().encode()
    world.deliver()
    assert len(world.messages) == 1
    assert ledger_key(event) not in world.tables.ledger
    assert world.read == []
    assert any("no envelope" in line for line in world.quiet.lines)
    assert "items_failed" not in world.quiet.counts


def test_few_large_bodies_are_read_at_once_however_many_a_batch_has() -> None:
    world, under_way, most = Large(), [0], [0]

    async def slowly(call: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        is_read = call == world.envelopes.get
        under_way[0] += is_read
        most[0] = max(most[0], under_way[0])
        for _ in range(5):
            await asyncio.sleep(0)
        under_way[0] -= is_read
        return call(*args, **kwargs)

    world.io = slowly
    events = [world.event(str(n)) for n in range(10)]
    for event in events:
        world.accept(event)
    world.run_until_quiet()
    for event in events:
        world.check_settled(event)
    assert most[0] == LARGE_AT_ONCE
    assert len(world.read) == 10


def test_what_cannot_be_read_in_the_time_that_is_left_is_not_begun() -> None:
    world = Large()
    event = world.event()
    world.accept(event)

    def slow(op: str) -> None:
        if op == "ledger.read":
            world.clock.advance(45_000)

    world.faults.on_before = slow
    world.deliver()
    assert world.reads() == 0
    assert len(world.messages) == 1
    world.faults.on_before = None
    world.run_until_quiet()
    world.check_settled(event)


# ------------------------------------------------------------------------------------------------- triage and recovery


def _given_up(world: Large) -> Event:
    """An event whose body could not be read as often as a queue shows a message."""
    event = world.event()
    world.accept(event)
    world.faults.fail("envelopes.get", StorageUnavailable("the bucket is down"), times=10)
    for _ in range(10):
        world.deliver()
        world.clock.advance(3_600_000)
    assert len(world.dead) == 1
    return event


def test_a_claim_check_that_died_is_a_row_judged_by_its_head_and_a_replay_works_from_what_it_names() -> None:
    world = Large()
    event = _given_up(world)
    reads = world.reads()
    world.triage()
    found = world.only_row()
    assert (found.status, found.failure_code, found.event_id) == (Status.DLQ, "NEVER_CLAIMED", event.event_id)
    assert found.envelope_ref == world.reference(event)
    assert world.reads() == reads
    assert set(world.envelopes.objects) == {world.reference(event)}
    world.replay(found)
    world.run_until_quiet()
    world.check_settled(event)
    assert world.read == [BODY]
    assert world.only_row().result == "succeeded"


def test_a_claim_check_that_died_after_its_event_was_settled_leaves_no_row() -> None:
    world = Large()
    event = _given_up(world)
    _settled(world, event)
    world.dead.extend(world.messages)
    world.triage()
    assert world.tables.rows == {}


def test_a_replay_that_finds_another_event_in_the_object_touches_nothing() -> None:
    world = Large()
    event = _given_up(world)
    world.triage()
    other = world.event("other")
    world.envelopes.objects[world.reference(event)] = other.to_message().encode()
    world.replay(world.only_row())
    world.run_until_quiet()
    found = world.only_row()
    assert (found.status, found.failure_code) == (Status.FAILED, "MALFORMED_ENVELOPE")
    assert world.tables.ledger == {}
    assert world.provider.effects == {}


def test_what_waited_on_hold_goes_on_from_the_claim_and_what_then_fails_points_at_it() -> None:
    world = Large("push", switches={**World().switches.values, "mode": "hold"})
    event = world.event()
    world.accept(event)
    world.deliver()
    assert world.reads() == 0
    world.switches.values["mode"] = "live"
    world.provider.answers.append(lambda action: failure_of_status(422))
    world.clock.advance(60_000)
    world.run_until_quiet()
    world.check_settled(event)
    assert {found.envelope_ref for found in world.tables.rows.values()} == {world.reference(event)}
    assert len(world.tables.rows) == 2
    assert set(world.envelopes.objects) == {world.reference(event)}


def test_a_large_event_that_was_spilled_is_settled_like_any_other() -> None:
    """002.10"""
    world = Large("tag", "reply")
    event = world.event()
    world.spill.put(f"{event.received_at_ms:013d}-1", world.check_in(event))
    world.run_until_quiet()
    world.check_settled(event)
    assert world.spill.objects == {}
    assert world.read == [BODY]
