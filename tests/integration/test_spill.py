"""What ingress stored while the queue was down is sent on, once as far as anybody can tell, whatever fails (002.10).

Threads are real unless a case needs one order of steps.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest

from functions import observability
from functions.adapters.ledger import DynamoLedger
from functions.adapters.recovery import DynamoRecovery
from functions.adapters.s3 import S3Envelopes
from functions.adapters.spill import S3Spill
from functions.adapters.sqs_events import SqsEvents
from functions.core import sweep
from functions.core.audit import AuditType
from functions.core.event import ClaimCheck, Event, read_message
from functions.core.failure import StorageUnavailable
from functions.core.ports import Hint
from functions.core.recovery import Row, Status, Subject
from functions.sweeper.drain import AtOnce, in_threads
from functions.sweeper.handler import Handler, build
from tests import aws_tables
from tests.aws_tables import sdk_client
from tests.contract.storage import Flaky, client_error
from tests.fakes import (
    NOON_MS,
    FakeClock,
    FakeEnvelopes,
    FakeEvents,
    FakeHints,
    FakeIds,
    FakeLedger,
    FakeRecovery,
    FakeSpill,
    FakeSwitches,
    FakeTables,
)
from tests.integration.test_sweeper import SETTINGS
from tests.recovery_rows import event, row
from tests.worker_world import Died, World, crashes_at, one_by_one

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

TICK_MS = 60_000
_NUMBERS = itertools.count()  # loggers of one name share the first one's stream


def name_of(its_event: Event, suffix: str = "") -> str:
    """As ingress calls the object of an event, below the prefix."""
    return f"{its_event.received_at_ms:013d}-{suffix or its_event.identity}"


def events(number: int) -> list[Event]:
    return [event(f"m-{n:04d}", received_at_ms=NOON_MS + n) for n in range(number)]


def large(identity: str = "large") -> tuple[ClaimCheck, str]:
    """The claim check of a large event, and the envelope it names."""
    whole = event(identity, body=b"x" * 4_000_000)
    envelope = whole.to_message()
    return ClaimCheck.of(whole, envelope), envelope


class Stage:
    """A sweeper, a spill, and what they share with everybody else."""

    def __init__(self, at_once: AtOnce = in_threads) -> None:
        self.tables = FakeTables()
        self.faults = self.tables.faults
        self.clock = FakeClock()
        self.spill = FakeSpill(self.faults)
        self.events = FakeEvents(self.faults)
        self.envelopes = FakeEnvelopes(self.faults)
        self.retries = FakeHints(self.faults, "retries")
        self.lines: list[str] = []
        self.log = io.StringIO()
        self.handle: Handler = self.sweeper(at_once)

    def sweeper(self, at_once: AtOnce = in_threads) -> Handler:
        """A process of its own: it remembers nothing of the others."""
        return build(
            SETTINGS,
            integrations=("helpdesk",),
            ledger=FakeLedger(self.tables),
            recovery=FakeRecovery(self.tables),
            switches=FakeSwitches(self.clock),
            spill=self.spill,
            envelopes=self.envelopes,
            events=self.events,
            retries=self.retries,
            replays=FakeHints(self.faults, "replays"),
            clock=self.clock,
            ids=FakeIds(),
            log=observability.logger(f"spill-test-{next(_NUMBERS)}", stream=self.log),
            metrics=observability.metrics("sweeper", "test", self.lines.append),
            at_once=at_once,
        )

    def put(self, *spilled: Event) -> None:
        for each in spilled:
            self.spill.put(name_of(each), each.to_message())

    def tick(self) -> dict[str, int]:
        return self.handle({}, None)

    def sent(self) -> list[str]:
        """The identities of the events in the queue, in the order in which they came."""
        found = [read_message(message) for message in self.events.sent]
        return [(each.head if isinstance(each, ClaimCheck) else each).identity for each in found]

    def rows(self) -> list[Row]:
        return list(self.tables.rows.values())

    def gauges(self) -> tuple[float, float]:
        """How much the last tick left, and how old that is."""
        (written,) = [found for line in self.lines[-4:] if "spill_left" in (found := json.loads(line))]
        self.lines.clear()
        return written["spill_left"][0], written["spill_oldest_age_ms"][0]


# ---------------------------------------------------------------------------------------------------------- every day


def test_five_hundred_spilled_messages_and_poison_among_them_are_in_the_queue_once_or_rows_and_the_spill_is_empty(
    proved: Callable[[str], None],
) -> None:
    stage, spilled = Stage(), events(500)
    stage.put(*spilled)
    for n in range(10):
        stage.spill.put(f"{NOON_MS + 50 * n:013d}-poison{n}", f"poison {n}")
    counts = stage.tick()
    assert sorted(stage.sent()) == [each.identity for each in spilled]
    assert len(stage.rows()) == 10
    assert stage.spill.objects == {}
    assert (counts["spill_seen"], counts["spill_sent"], counts["spill_unreadable"]) == (510, 500, 10)
    assert stage.gauges() == (0, 0)
    assert stage.tick() == {}
    assert len(stage.events.sent) == 500
    proved("spill: 500 messages in the queue once, 10 of poison as rows, nothing left")


def test_the_oldest_chunk_is_in_the_queue_before_anything_younger() -> None:
    stage, spilled = Stage(), events(3 * sweep.DRAIN_CHUNK)
    stage.put(*reversed(spilled))
    stage.tick()
    for start in range(0, len(spilled), sweep.DRAIN_CHUNK):
        chunk = slice(start, start + sweep.DRAIN_CHUNK)
        assert sorted(stage.sent()[chunk]) == [each.identity for each in spilled[chunk]]


def test_a_message_travels_as_it_was_spilled_and_a_claim_check_without_its_envelope() -> None:
    stage = Stage()
    check, _ = large()
    spilled = [event().to_message(), check.to_message(), event("m-2").to_message().replace(":", " : ")]
    for n, message in enumerate(spilled):
        stage.spill.put(f"{NOON_MS + n:013d}-{n}", message)
    stage.tick()
    assert sorted(stage.events.sent) == sorted(spilled)
    assert stage.envelopes.objects == {}


def test_more_than_one_list_of_names_is_drained_in_one_tick() -> None:
    stage = Stage(one_by_one)
    stage.put(*events(2 * sweep.DRAIN_PAGE + 1))
    assert stage.tick()["spill_sent"] == 2 * sweep.DRAIN_PAGE + 1
    assert stage.spill.objects == {}


def test_an_empty_spill_costs_one_list_and_says_that_it_is_empty() -> None:
    stage = Stage()
    assert stage.tick() == {}
    assert [call for call in stage.faults.calls if call.startswith("spill")] == ["spill.oldest"]
    assert stage.gauges() == (0, 0)


def test_what_is_left_is_said_with_the_age_of_the_oldest() -> None:
    stage = Stage()
    stage.put(*events(3))
    stage.spill.put("not a name of ours", b"")
    stage.spill.unreadable |= set(stage.spill.objects)
    stage.clock.advance(90_000)
    stage.tick()
    assert stage.gauges() == (4, 90_000)


# ------------------------------------------------------------------------------------------------------------- poison

_HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "binary": bytes(range(256)),
    "10 MB": b"[" * 10_000_000,
    "10 MB of text": b'"' + b"a" * 10_000_000 + b'"',
    "a hint": Hint("r-1", 3).to_message().encode(),
    "another version": event().to_message().replace('"v":1', '"v":2').encode(),
    "not UTF-8": event().to_message().replace("acme", "acm\xe9").encode("latin-1"),
    "half a surrogate pair": b"\xed\xa0\x80",
    "a claim of somebody else": large()[0].to_message().replace("claims/acme/", "claims/other/").encode(),
    "no object": b"null",
}


@pytest.mark.parametrize("hostile", _HOSTILE)
def test_what_is_no_message_is_a_row_with_its_audit_and_its_content_before_it_leaves(hostile: str) -> None:
    stage, content = Stage(one_by_one), _HOSTILE[hostile]
    stage.spill.put(f"{NOON_MS:013d}-bad", content)
    stage.put(event(received_at_ms=NOON_MS + 1))
    steps: list[str] = []
    stage.faults.on_after = steps.append
    stage.tick()
    (found,) = stage.rows()
    assert (found.status, found.failure_code, found.integration_id) == (Status.DLQ, "UNREADABLE_MESSAGE", "intake")
    assert found.subject is Subject.EVENT
    assert f"spill/{NOON_MS:013d}-bad" in found.failure_detail
    assert stage.envelopes.objects == {found.envelope_ref: content}
    assert {each.event_type for each in stage.tables.events} == {
        AuditType.FAILURE_DETECTED,
        AuditType.FAILURE_CONTAINED,
    }
    assert steps.index("envelopes.put_raw") < steps.index("recovery.put_if_absent") < steps.index("spill.remove")
    assert stage.sent() == ["m-1"]
    assert stage.spill.objects == {}
    told = stage.log.getvalue()
    assert found.recovery_id in told
    assert not any(text in told + found.failure_detail for text in ("aaaaaaaa", "parcel", "\xe9"))


def test_text_that_is_not_ascii_is_no_reason_to_keep_a_message_back() -> None:
    stage = Stage()
    text = json.dumps(json.loads(event(event_name="naïve ☃").to_message()), ensure_ascii=False)
    stage.spill.put(f"{NOON_MS:013d}-1", text)
    stage.tick()
    assert stage.events.sent == [text]


def test_an_event_that_the_queue_will_never_take_is_a_row_that_can_be_replayed() -> None:
    stage = Stage()
    refused = event("refused")
    stage.put(refused, event("m-2"))
    stage.events.refused.add("refused")
    assert stage.tick() == {"spill_seen": 2, "spill_sent": 1, "spill_refused": 1}
    (found,) = stage.rows()
    assert (found.status, found.failure_code, found.event_id) == (Status.DLQ, "REFUSED_BY_QUEUE", refused.event_id)
    assert stage.envelopes.get(found.envelope_ref) == refused
    assert stage.spill.objects == {}


def test_a_claim_check_that_the_queue_will_never_take_is_a_row_that_points_at_what_it_names() -> None:
    stage = Stage()
    check, _ = large("refused")
    stage.spill.put(f"{NOON_MS:013d}-1", check.to_message())
    stage.events.refused.add("refused")
    stage.tick()
    (found,) = stage.rows()
    assert (found.failure_code, found.envelope_ref) == ("REFUSED_BY_QUEUE", check.reference)
    assert stage.envelopes.objects == {}


@pytest.mark.parametrize("op", ["envelopes.put_raw", "recovery.put_if_absent"])
def test_poison_stays_until_its_row_is_written_and_is_one_row_however_often_that_was_tried(op: str) -> None:
    stage = Stage(one_by_one)
    stage.spill.put(f"{NOON_MS:013d}-bad", b"bad")
    stage.faults.fail(op)
    stage.faults.fail(op, when="after")
    for _ in range(2):
        assert stage.tick()["spill_not_recorded"] == 1
        assert len(stage.spill.objects) == 1
    assert stage.tick()["spill_unreadable"] == 1
    assert len(stage.rows()) == 1
    assert stage.spill.objects == {}


# ------------------------------------------------------------------------------------------------------------ trouble


def test_while_the_queue_is_down_a_tick_tries_the_oldest_and_the_newest_and_rows_get_their_turn() -> None:
    stage = Stage()
    stage.put(*events(500))
    due = row()
    stage.tables.rows[due.recovery_id] = due
    stage.faults.fail("events.send", times=10_000)
    counts = stage.tick()
    assert counts["spill_not_accepted"] == sweep.DRAIN_CHUNK + 500 % sweep.DRAIN_CHUNK
    assert counts["rows_hinted"] == 1
    assert len(stage.spill.objects) == 500
    assert stage.gauges() == (500, 0)
    assert stage.log.getvalue().count('"outcome":"spill_not_accepted"') == 2


def test_after_an_outage_of_many_ticks_the_oldest_still_goes_first() -> None:
    stage, spilled = Stage(one_by_one), events(6 * sweep.DRAIN_CHUNK)
    stage.put(*spilled)
    stage.faults.fail("events.send", times=5 * 2 * sweep.DRAIN_CHUNK)
    for _ in range(5):
        stage.tick()
        stage.clock.advance(TICK_MS)
    stage.tick()
    assert stage.sent() == [each.identity for each in spilled]


def test_a_queue_that_goes_down_midway_and_comes_back_has_every_message_at_last() -> None:
    stage, spilled = Stage(), events(300)
    stage.put(*spilled)
    left = [100]

    def down(op: str) -> None:
        if op == "events.send":
            left[0] -= 1
            if left[0] < 0:
                raise StorageUnavailable("the queue is down")

    stage.faults.on_before = down
    stage.tick()
    assert len(stage.events.sent) == 100
    assert len(stage.spill.objects) == 200
    stage.faults.on_before = None
    stage.clock.advance(TICK_MS)
    stage.tick()
    assert sorted(stage.sent()) == [each.identity for each in spilled]
    assert stage.spill.objects == {}


def test_an_object_that_cannot_be_fetched_is_counted_and_passed_over() -> None:
    stage, spilled = Stage(), events(100)
    stage.put(*spilled)
    stuck = f"spill/{name_of(spilled[7])}"
    stage.spill.unreadable.add(stuck)
    counts = stage.tick()
    assert (counts["spill_sent"], counts["spill_not_fetched"]) == (99, 1)
    assert list(stage.spill.objects) == [stuck]
    assert "spill_not_fetched" in stage.log.getvalue()


@pytest.mark.parametrize("chunks", [1, 2, 5])
def test_objects_at_the_head_that_nobody_can_fetch_do_not_keep_the_others_waiting_for_ever(chunks: int) -> None:
    stage, spilled = Stage(), events(chunks * sweep.DRAIN_CHUNK + 10)
    stage.put(*spilled)
    bad = list(stage.spill.objects)[: chunks * sweep.DRAIN_CHUNK]
    stage.spill.unreadable |= set(bad)
    for _ in range(chunks + 1):
        stage.tick()
        stage.clock.advance(TICK_MS)
    assert len(stage.events.sent) == 10
    stage.spill.unreadable.clear()
    stage.tick()
    assert sorted(stage.sent()) == [each.identity for each in spilled]
    assert stage.spill.objects == {}


def test_what_was_set_back_goes_last_until_it_has_been_moved_by_somebody_else() -> None:
    stage, spilled = Stage(one_by_one), events(6)
    bad = {f"spill/{name_of(each)}" for each in spilled[:2]}
    stage.put(*spilled[:3])
    stage.spill.unreadable |= bad
    stage.tick()  # the third moves, so the trouble is that of the two
    stage.spill.unreadable.clear()
    stage.put(spilled[3])
    stage.events.sent.clear()
    stage.tick()
    assert stage.sent() == ["m-0003", "m-0000", "m-0001"]
    stage.put(*spilled[:2], spilled[4])
    stage.spill.unreadable |= bad
    stage.tick()
    stage.spill.unreadable.clear()
    stage.sweeper(one_by_one)({}, None)
    stage.put(spilled[5])
    stage.tick()  # the two are nowhere to be seen
    stage.events.sent.clear()
    stage.put(*spilled)
    stage.tick()
    assert stage.sent() == [each.identity for each in spilled]


def test_a_message_that_was_sent_and_cannot_be_removed_is_sent_again_rather_than_lost() -> None:
    stage = Stage()
    stage.put(event())
    stage.faults.fail("spill.remove")
    assert stage.tick()["spill_not_removed"] == 1
    assert stage.tick()["spill_sent"] == 1
    assert stage.sent() == ["m-1", "m-1"]
    assert stage.spill.objects == {}


def test_a_defect_met_by_one_message_keeps_that_one_and_no_other() -> None:
    stage, spilled = Stage(one_by_one), events(5)
    stage.put(*spilled)
    stage.faults.fail("events.send", ValueError("secret text of a defect"))
    assert stage.tick() == {"spill_seen": 5, "spill_sent": 4, "spill_failed": 1}
    assert list(stage.spill.objects) == [f"spill/{name_of(spilled[0])}"]
    assert "secret text" not in stage.log.getvalue()
    assert "ValueError" in stage.log.getvalue()


def test_a_spill_that_cannot_be_listed_fails_the_tick_after_the_rows_had_their_turn() -> None:
    stage, due = Stage(), row()
    stage.tables.rows[due.recovery_id] = due
    stage.put(event())
    stage.faults.fail("spill.oldest")
    with pytest.raises(ExceptionGroup):
        stage.tick()
    assert len(stage.retries.sent) == 1
    assert any("duties_failed" in line and '"reason":"drain"' in line for line in stage.lines)
    assert stage.tick()["spill_sent"] == 1


@pytest.mark.parametrize("op", ["recovery.due", "ledger.read"])
def test_rows_that_cannot_be_read_do_not_keep_the_spill_waiting(op: str) -> None:
    stage = Stage()
    stage.put(event())
    stage.faults.fail(op, times=10)
    with pytest.raises((ExceptionGroup, StorageUnavailable)):
        stage.tick()
    assert stage.sent() == ["m-1"]
    assert stage.spill.objects == {}


def test_the_spill_has_half_of_a_tick_and_the_rows_have_the_rest() -> None:
    stage, spilled, due = Stage(one_by_one), events(200), row()
    stage.put(*spilled)
    stage.tables.rows[due.recovery_id] = due

    def slow(op: str) -> None:
        if op == "events.send":
            stage.clock.advance(500)

    stage.faults.on_before = slow
    counts = stage.tick()
    assert counts["rows_hinted"] == 1
    spent_ms = stage.clock.now_ms() - NOON_MS
    deadline_ms = (SETTINGS.timeout_seconds - 3) * 1000
    assert deadline_ms / 2 <= spent_ms <= deadline_ms / 2 + 500
    assert counts["spill_sent"] == len(stage.events.sent) == spent_ms / 500
    for _ in range(5):
        stage.tick()
    assert sorted(stage.sent()) == [each.identity for each in spilled]


# ------------------------------------------------------------------------------------------------- overlaps and deaths


def test_two_ticks_at_once_lose_nothing_and_neither_calls_it_an_error() -> None:
    """Each message is in the queue at least once; what is there twice the ledger makes one of."""
    stage, spilled = Stage(), events(400)
    stage.put(*spilled)
    gate = threading.Barrier(2)
    answers: list[dict[str, int]] = []

    def run() -> None:
        handle = stage.sweeper()
        gate.wait()
        answers.append(handle({}, None))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(stage.sent()) == {each.identity for each in spilled}
    assert stage.spill.objects == {}
    assert {name for answer in answers for name in answer} <= {"spill_seen", "spill_sent", "spill_gone"}


def test_an_object_that_another_tick_took_meanwhile_is_gone_and_no_error() -> None:
    stage = Stage(one_by_one)
    stage.put(*events(3))
    other = stage.sweeper(one_by_one)

    def overtaken(op: str) -> None:
        if op == "spill.read":
            stage.faults.on_before = None
            other({}, None)

    stage.faults.on_before = overtaken
    assert stage.tick() == {"spill_seen": 3, "spill_gone": 3}
    assert len(stage.events.sent) == 3


def _spilled_world() -> tuple[World, list[Event]]:
    """An event in the queue and in the spill, one in the spill only, and poison."""
    world = World(("tag", "reply"))
    both, only = world.event("both"), world.event("only", received_at_ms=NOON_MS + 1)
    world.accept(both)
    for its_event in (both, only):
        world.spill.put(name_of(its_event), its_event.to_message())
    world.spill.put(f"{NOON_MS + 2:013d}-bad", b"bad")
    return world, [both, only]


def test_a_death_at_any_step_of_the_drain_leaves_one_effect_of_each_event_and_one_row_of_poison(
    proved: Callable[[str], None],
) -> None:
    world, spilled = _spilled_world()
    world.run_until_quiet()
    steps = len(world.faults.calls)
    deaths = 0
    for position in range(1, steps + 1):
        for after in (False, True):
            world, spilled = _spilled_world()
            world.faults.on_before, world.faults.on_after, _ = crashes_at(position, after=after)
            world.run_until_quiet()
            for its_event in spilled:
                world.check_settled(its_event)
            assert world.spill.objects == {}
            poison = [found for found in world.tables.rows.values() if found.failure_code == "UNREADABLE_MESSAGE"]
            assert len(poison) == 1
            assert len([each for each in world.tables.events if each.affected_id == poison[0].recovery_id]) == 2
            deaths += world.deaths
    assert deaths > steps
    proved(f"spill: {deaths} deaths at {steps} steps, one effect each, nothing lost")


def test_a_death_in_one_thread_leaves_what_was_not_removed_for_the_next_tick() -> None:
    stage, spilled = Stage(), events(50)
    stage.put(*spilled)
    count = [0]

    def die(op: str) -> None:
        count[0] += op == "spill.remove"
        if count[0] >= 20 and op == "spill.remove":
            raise Died

    stage.faults.on_before = die
    with pytest.raises(Died):
        stage.tick()
    stage.faults.on_before = None
    stage.sweeper()({}, None)
    assert set(stage.sent()) == {each.identity for each in spilled}
    assert stage.spill.objects == {}


# ------------------------------------------------------------------------------------------------------------- on AWS


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def _counting(seen: list[int]) -> AtOnce:
    """Threads, and how many objects each chunk had."""

    def at_once(work: Callable[[_Item], _Result], items: Sequence[_Item], /) -> list[_Result]:
        seen.append(len(items))
        return in_threads(work, items)

    return at_once


def test_the_same_over_the_real_adapters_with_a_refused_message_and_one_that_cannot_be_fetched() -> None:
    with aws_tables.moto_tables() as dynamodb, aws_tables.one_request_at_a_time():
        s3 = sdk_client("s3")
        sqs = sdk_client("sqs")
        s3.create_bucket(Bucket="bucket")
        url = sqs.create_queue(QueueName="events")["QueueUrl"]
        spilled = events(60)
        for each in spilled:
            s3.put_object(Bucket="bucket", Key=f"spill/{name_of(each)}", Body=each.to_message().encode())
        too_long = event("too-long", body=hashlib.shake_256().digest(1_000_000), received_at_ms=NOON_MS + 100)
        s3.put_object(Bucket="bucket", Key=f"spill/{name_of(too_long)}", Body=too_long.to_message().encode())
        flaky: Any = Flaky(s3)
        flaky.planned["get_object"] = [client_error("InternalError")]
        clock, tables, chunks = FakeClock(), FakeTables(), list[int]()
        ids = FakeIds()
        tick = build(
            SETTINGS,
            integrations=("helpdesk",),
            ledger=DynamoLedger(dynamodb, ids, control_table=aws_tables.CONTROL),
            recovery=DynamoRecovery(dynamodb, ids, recovery_table=aws_tables.RECOVERY, audit_table=aws_tables.AUDIT),
            switches=FakeSwitches(clock),
            spill=S3Spill(flaky, "bucket"),
            envelopes=S3Envelopes(flaky, "bucket"),
            events=SqsEvents(sqs, url),
            retries=FakeHints(tables.faults, "retries"),
            replays=FakeHints(tables.faults, "replays"),
            clock=clock,
            ids=ids,
            log=observability.logger("spill-aws-test", stream=io.StringIO()),
            metrics=observability.metrics("sweeper", "test", list[str]().append),
            at_once=_counting(chunks),
        )
        counts = tick({}, None)
        assert counts == {"spill_seen": 61, "spill_sent": 59, "spill_refused": 1, "spill_not_fetched": 1}
        assert chunks == [32, 29]
        assert tick({}, None) == {"spill_seen": 1, "spill_sent": 1}
        assert "Contents" not in s3.list_objects_v2(Bucket="bucket", Prefix="spill/")
        (stored,) = dynamodb.scan(TableName=aws_tables.RECOVERY)["Items"]
        assert stored["failure_code"]["S"] == "REFUSED_BY_QUEUE"
        assert S3Envelopes(s3, "bucket").get(stored["envelope_ref"]["S"]) == too_long
        received: list[str] = []
        while found := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            received += [each["Body"] for each in found]
        assert sorted(received) == sorted(each.to_message() for each in spilled)
