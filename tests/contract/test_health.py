"""Counts and records of integration health: the double and the table keep the same promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from functions.adapters.health import SHARDS, DynamoHealthCounts, DynamoHealthRecords, record_attributes, record_of
from functions.adapters.ledger import DynamoLedger
from functions.core import ports
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.gate import Health, IntegrationState
from functions.core.health import (
    CallOutcome,
    Counts,
    HealthChange,
    Record,
    Thresholds,
    evaluate,
    force,
    last_closed,
    pending_minutes,
    probed,
)
from functions.evaluator.health import HealthDuty
from functions.observability import logger, metrics
from tests import aws_tables
from tests.contract.storage import Flaky, Lost, at_once, client_error
from tests.fakes import NOON_MS, FakeClock, FakeHealthCounts, FakeHealthRecords, FakeIds, FakeLedger, FakeTables

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

MINUTE = NOON_MS // 60_000
DEAD = Counts(error=100)
FULL = Record(
    health=Health.HARD_DOWN,
    since_ms=NOON_MS,
    reason="collapsed: 0 of 9",
    version=1,
    minute=MINUTE,
    bad=1,
    good=2,
    collapsed=3,
    refused=4,
    silent=5,
    unbroken=14,
    unbroken_from=MINUTE - 200,
    window=((1, 2), (0, 30)),
    recent="0110",
    override=Health.DEGRADED,
    override_until_ms=NOON_MS + 5,
    override_by="anna \u202e",
    override_reason="their maintenance",
    probe_at_ms=NOON_MS + 6,
    probe_by="p",
    probe_ok=2,
    reopened=7,
    ramp_from_ms=NOON_MS + 8,
)


@dataclass
class World:
    counts: Callable[[], ports.HealthCounts]
    records: ports.HealthRecords
    ledger: ports.Ledger
    audited: Callable[[], list[str]]

    def record(self, name: str = "desk") -> Record:
        return self.records.read([name])[name]

    def put(self, record: Record, name: str = "desk") -> Record:
        """Store it whole, whatever was there."""
        seen = self.record(name).version
        after = replace(record, version=seen + 1)
        self.records.store(name, HealthChange(after, seen))
        return after


@contextmanager
def in_memory() -> Iterator[World]:
    tables = FakeTables()
    yield World(
        lambda: FakeHealthCounts(tables),
        FakeHealthRecords(tables),
        FakeLedger(tables),
        lambda: sorted(event.id for event in tables.events),
    )


def dynamo_world(client: DynamoDBClient) -> World:
    ids = FakeIds()
    return World(
        lambda: DynamoHealthCounts(client, aws_tables.CONTROL, ids),
        DynamoHealthRecords(client, ids, control_table=aws_tables.CONTROL, audit_table=aws_tables.AUDIT),
        DynamoLedger(client, ids, ledger_table=aws_tables.LEDGER, control_table=aws_tables.CONTROL),
        lambda: sorted(item["id"]["S"] for item in client.scan(TableName=aws_tables.AUDIT)["Items"]),
    )


@contextmanager
def in_dynamodb() -> Iterator[World]:
    with aws_tables.moto_tables() as client, aws_tables.one_request_at_a_time():
        yield dynamo_world(client)


@pytest.fixture(params=[in_memory, in_dynamodb], ids=["memory", "dynamodb"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Empty tables."""
    with request.param() as made:
        yield made


# --------------------------------------------------------------------------------------------------------------- counts


def test_what_several_workers_counted_in_a_minute_is_read_as_one(world: World) -> None:
    one = Counts(ok=3, error=2, unreachable=1, rate_limited=4, auth=2, ours=5, auth_tenants=frozenset({"aa", "bb"}))
    other = Counts(ok=1, auth=1, auth_tenants=frozenset({"bb", "cc"}))
    for _ in range(2 * SHARDS):  # of as many environments, whatever shard each of them has
        world.counts().add(MINUTE, {"desk": one, "llm": other}, NOON_MS)
    world.counts().add(MINUTE, {"desk": other}, NOON_MS)
    world.counts().add(MINUTE + 1, {"desk": other}, NOON_MS)
    found = world.counts().read("desk", [MINUTE - 1, MINUTE, MINUTE + 1])
    assert found == {
        MINUTE: Counts(25, 16, 8, 32, 17, 40, frozenset({"aa", "bb", "cc"})),
        MINUTE + 1: other,
    }
    assert world.counts().read("llm", [MINUTE])[MINUTE].ok == 8
    assert world.counts().read("desk", []) == {}


def test_counts_of_an_hour_are_read_at_once(world: World) -> None:
    for minute in range(60):
        world.counts().add(MINUTE + minute, {"desk": Counts(ok=minute + 1)}, NOON_MS)
    found = world.counts().read("desk", [MINUTE + minute for minute in range(60)])
    assert [found[MINUTE + minute].ok for minute in range(60)] == list(range(1, 61))


def test_a_minute_in_which_nothing_was_counted_is_left_out(world: World) -> None:
    world.counts().add(MINUTE, {"desk": Counts(), "llm": Counts(ok=1)}, NOON_MS)
    assert world.counts().read("desk", [MINUTE]) == {}
    assert world.counts().read("llm", [MINUTE]) == {MINUTE: Counts(ok=1)}


# -------------------------------------------------------------------------------------------------------------- records


def test_what_was_never_written_is_healthy_at_version_0(world: World) -> None:
    assert world.records.read(["desk", "llm"]) == {"desk": Record(), "llm": Record()}
    assert world.records.read([]) == {}


def test_a_record_is_read_back_as_it_was_stored_and_replaced_whole(world: World) -> None:
    world.records.store("desk", HealthChange(FULL, 0))
    assert world.record() == FULL
    bare = Record(version=2)
    world.records.store("desk", HealthChange(bare, 1))
    assert world.record() == bare


def test_those_who_send_see_the_state_and_what_else_lies_in_the_item_stays(world: World) -> None:
    world.ledger.pause("desk", NOON_MS + 77)
    world.records.store("desk", HealthChange(FULL, 0))
    world.ledger.pause("desk", NOON_MS + 99)
    state = world.ledger.read([], ["desk"]).integrations["desk"]
    assert state == replace(FULL.state("desk"), paused_until_ms=NOON_MS + 99, tat_ms=NOON_MS + 99)
    world.put(Record())
    state = world.ledger.read([], ["desk"]).integrations["desk"]
    assert state == IntegrationState("desk", paused_until_ms=NOON_MS + 99, tat_ms=NOON_MS + 99)


@pytest.mark.parametrize("seen", [0, 2])
def test_a_record_that_has_moved_on_is_not_replaced_and_nothing_is_audited(world: World, seen: int) -> None:
    world.put(FULL)
    change = force(
        "desk", replace(FULL, version=seen), Health.HEALTHY, NOON_MS + 9, actor="a", reason="r", now_ms=NOON_MS
    )
    with pytest.raises(VersionConflict):
        world.records.store("desk", change)
    with pytest.raises(VersionConflict):
        world.records.store("desk", replace(change, audit=()))
    assert world.record() == FULL
    assert world.audited() == []


def test_a_change_and_its_audit_are_one_write(world: World) -> None:
    """000.5, 000.32"""
    change = force("desk", Record(), Health.HARD_DOWN, NOON_MS + 9, actor="anna", reason="drill", now_ms=NOON_MS)
    world.records.store("desk", change)
    assert world.audited() == [change.audit[0].id]
    assert world.record().override_by == "anna"


def test_of_two_evaluators_at_once_one_makes_the_transition() -> None:
    """000.22: over the real adapter, with threads, a hundred times; and over the double."""
    for make in (in_memory, in_dynamodb):
        with make() as world:
            for round_ in range(25):
                world.put(Record(minute=MINUTE - 1, collapsed=2, window=((0, 100), (0, 100))))
                before = world.audited()
                seen = world.record()
                change = evaluate("desk", seen, [(MINUTE, DEAD)], Thresholds(), NOON_MS + 60_000, 1.0)
                assert change is not None
                results = at_once([lambda change=change: world.records.store("desk", change)] * 4)  # type: ignore[misc]  # bound per round
                assert sorted(type(result).__name__ for result in results) == ["NoneType", *["VersionConflict"] * 3]
                assert world.record() == change.after
                assert len(world.audited()) == len(before) + 1, round_


def test_two_evaluators_of_the_same_minutes_transition_once_and_leave_one_record(world: World) -> None:
    """000.22: whole duties, side by side, over an outage."""
    clock = FakeClock((MINUTE + 1) * 60_000 + 5_000)
    lines: list[str] = []

    def duty() -> HealthDuty:
        return HealthDuty(
            world.records,
            world.counts(),
            {"desk": Thresholds()},
            1.0,
            clock,
            logger("evaluator-race"),
            metrics("evaluator", "test", lines.append),
        )

    moved = []
    for minute in range(6):
        world.counts().add(MINUTE + minute, {"desk": DEAD}, clock.now)
        found = at_once([lambda: duty().run(clock.now + 50_000)] * 4)
        assert not [result for result in found if isinstance(result, Exception)]
        moved.append(sum(found))
        assert world.record().minute == MINUTE + minute
        clock.advance(60_000)
    assert moved == [0, 0, 1, 0, 0, 0]
    assert world.record().health is Health.HARD_DOWN
    assert len(world.audited()) == 1


# --------------------------------------------------------------------------------------------------------------- probes


def test_of_forty_callers_one_has_the_probe(world: World) -> None:
    """000.23: one prober in the whole fleet."""
    world.put(replace(FULL, override=None, override_until_ms=0, probe_at_ms=NOON_MS, probe_by=""))
    until_ms = NOON_MS + 30_000
    takers = [f"caller-{n}" for n in range(40)]
    taken = at_once([lambda who=who: world.records.take_probe("desk", who, NOON_MS, until_ms) for who in takers])  # type: ignore[misc]  # bound per caller
    assert sorted(taken) == [False] * 39 + [True]
    record = world.record()
    assert (record.probe_by, record.probe_at_ms) == (takers[taken.index(True)], until_ms)
    assert not world.records.take_probe("desk", "late", until_ms - 1, until_ms + 30_000)
    assert world.records.take_probe("desk", "next", until_ms, until_ms + 30_000)
    assert probed("desk", world.record(), record.probe_by, CallOutcome.OK, until_ms, 1.0) is None


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (Record(Health.HARD_DOWN), True),
        (Record(Health.HARD_DOWN, probe_at_ms=NOON_MS + 1), False),
        (Record(Health.DEGRADED), False),
        (Record(), False),
        (Record(Health.HARD_DOWN, override=Health.HARD_DOWN, override_until_ms=NOON_MS + 1), False),
        (Record(Health.HARD_DOWN, override=Health.HARD_DOWN, override_until_ms=NOON_MS), True),
    ],
)
def test_only_what_is_down_by_the_machines_own_word_is_probed(world: World, record: Record, expected: bool) -> None:
    """000.32"""
    before = world.put(record)
    assert world.records.take_probe("desk", "me", NOON_MS, NOON_MS + 30_000) is expected
    assert world.record().version == before.version + expected
    assert not world.records.take_probe("nobody", "me", NOON_MS, NOON_MS + 30_000)


def test_whoever_saw_the_record_before_the_probe_was_taken_cannot_replace_it(world: World) -> None:
    before = world.put(Record(Health.HARD_DOWN))
    world.records.take_probe("desk", "me", NOON_MS, NOON_MS + 30_000)
    with pytest.raises(VersionConflict):
        world.records.store("desk", HealthChange(replace(before, version=2), before.version))
    assert world.record().probe_by == "me"


# -------------------------------------------------------------------------------------------- trouble, in DynamoDB only


def shaky() -> Any:
    return aws_tables.moto_tables()


def test_an_answer_that_is_lost_is_found_out_about_by_the_sdks_second_try() -> None:
    """The same request again meets what it wrote itself: that is success, and only for that very call."""
    with shaky() as client:
        flaky = Flaky(client)
        world = dynamo_world(flaky)  # type: ignore[arg-type]  # it stands in for one
        audited = force("desk", Record(), Health.DEGRADED, NOON_MS + 9, actor="a", reason="r", now_ms=NOON_MS)
        flaky.planned["transact_write_items"] = [Lost(client_error("ThrottlingException"))]
        world.records.store("desk", audited)
        assert world.record() == audited.after
        with pytest.raises(VersionConflict):
            world.records.store("desk", audited)
        repeated: Any = flaky  # the SDK's own repeat
        repeated.update_item = lambda **request: [client.update_item(**request) for _ in range(2)]
        bare = HealthChange(replace(audited.after, version=2), 1)
        world.records.store("desk", bare)
        assert world.record() == bare.after
        with pytest.raises(VersionConflict):
            world.records.store("desk", bare)


def test_a_probe_whose_answer_was_lost_is_known_by_its_taker() -> None:
    with shaky() as client:
        world = dynamo_world(client)
        world.put(Record(Health.HARD_DOWN))
        assert world.records.take_probe("desk", "me", NOON_MS, NOON_MS + 30_000)
        assert world.records.take_probe("desk", "me", NOON_MS, NOON_MS + 30_000)
        assert not world.records.take_probe("desk", "you", NOON_MS, NOON_MS + 30_000)


@pytest.mark.parametrize("operation", ["update_item", "batch_get_item", "transact_write_items"])
def test_a_table_that_does_not_answer_is_trouble_and_never_a_no(operation: str) -> None:
    with shaky() as client:
        flaky = Flaky(client)
        world = dynamo_world(flaky)  # type: ignore[arg-type]  # it stands in for one
        audited = force("desk", Record(), Health.DEGRADED, NOON_MS + 9, actor="a", reason="r", now_ms=NOON_MS)
        ways: dict[str, list[Callable[[], object]]] = {
            "update_item": [
                lambda: world.counts().add(MINUTE, {"desk": DEAD}, NOON_MS),
                lambda: world.records.store("desk", replace(audited, audit=())),
                lambda: world.records.take_probe("desk", "me", NOON_MS, NOON_MS + 1),
            ],
            "batch_get_item": [
                lambda: world.counts().read("desk", [MINUTE]),
                lambda: world.records.read(["desk"]),
            ],
            "transact_write_items": [lambda: world.records.store("desk", audited)],
        }
        for call in ways[operation]:
            flaky.planned[operation] = [client_error("AccessDeniedException")]
            with pytest.raises(StorageUnavailable):
                call()
        assert client.scan(TableName=aws_tables.CONTROL)["Items"] == []


def test_one_integrations_counts_that_fail_keep_no_others_out() -> None:
    with shaky() as client:
        flaky = Flaky(client)
        world = dynamo_world(flaky)  # type: ignore[arg-type]  # it stands in for one
        counts = world.counts()
        flaky.planned["update_item"] = [client_error("InternalServerError")]
        with pytest.raises(StorageUnavailable):
            counts.add(MINUTE, {"desk": DEAD, "llm": DEAD}, NOON_MS)
        assert counts.read("desk", [MINUTE]) == {}
        assert counts.read("llm", [MINUTE]) == {MINUTE: DEAD}


def test_unprocessed_keys_are_asked_for_again_and_given_up_aloud() -> None:
    with shaky() as client:
        waited: list[float] = []

        class Half:
            """Leaves everything but the first key unprocessed, `times` times."""

            def __init__(self, times: int) -> None:
                self.times = times

            def batch_get_item(self, **request: Any) -> Any:
                keys = request["RequestItems"][aws_tables.CONTROL]["Keys"]
                if self.times <= 0:
                    return client.batch_get_item(**request)
                self.times -= 1
                done = {**request["RequestItems"][aws_tables.CONTROL], "Keys": keys[:1]}
                answer = dict(client.batch_get_item(RequestItems={aws_tables.CONTROL: done}))
                left = {**done, "Keys": keys[1:]}
                return {**answer, "UnprocessedKeys": {aws_tables.CONTROL: left} if keys[1:] else {}}

        DynamoHealthCounts(client, aws_tables.CONTROL, FakeIds()).add(MINUTE, {"desk": DEAD}, NOON_MS)
        patient: Any = Half(2)
        counts = DynamoHealthCounts(patient, aws_tables.CONTROL, FakeIds(), pause=waited.append)
        assert counts.read("desk", [MINUTE]) == {MINUTE: DEAD}
        assert len(waited) == 2
        hopeless: Any = Half(99)
        with pytest.raises(StorageUnavailable, match="unprocessed"):
            DynamoHealthCounts(hopeless, aws_tables.CONTROL, FakeIds(), pause=waited.append).read(
                "desk", list(range(MINUTE, MINUTE + 9))
            )


def test_counts_leave_the_table_after_two_hours_and_cost_one_write_per_integration() -> None:
    with shaky() as client:
        flaky = Flaky(client)
        world = dynamo_world(flaky)  # type: ignore[arg-type]  # it stands in for one
        world.counts().add(MINUTE, {"desk": Counts(ok=30, error=2, auth=1, auth_tenants=frozenset({"a1"}))}, NOON_MS)
        world.counts().add(MINUTE, {"desk": Counts()}, NOON_MS)
        assert len(flaky.requests("update_item")) == 1
        (item,) = client.scan(TableName=aws_tables.CONTROL)["Items"]
        assert item["ttl"]["N"] == str(NOON_MS // 1000 + 7_200)
        assert item["pk"]["S"].startswith(f"H#desk#{MINUTE}#")


def test_environments_spread_over_the_shards() -> None:
    with shaky() as client:
        ids = FakeIds()
        for _ in range(40):
            DynamoHealthCounts(client, aws_tables.CONTROL, ids).add(MINUTE, {"desk": DEAD}, NOON_MS)
        assert len(client.scan(TableName=aws_tables.CONTROL)["Items"]) == SHARDS


@pytest.mark.parametrize(
    "broken",
    [
        {"health_timers": {"S": "{"}},
        {"health_timers": {"S": "[]"}},
        {"health_timers": {"S": '{"window": [[1]]}'}},
        {"health_timers": {"S": '{"bad": "x"}'}},
        {"health_timers": {"N": "5"}},
        {"probe_at": {"S": "soon"}},
        {"health_since": {"N": "1.5"}},
    ],
    ids=str,
)
def test_a_record_that_somebody_spoiled_is_begun_anew_and_stops_no_batch(broken: dict[str, Any]) -> None:
    with shaky() as client:
        item = {"pk": {"S": "I#desk"}, "health": {"S": "degraded"}, **broken}
        client.put_item(TableName=aws_tables.CONTROL, Item=item)
        world = dynamo_world(client)
        assert world.record() == Record(Health.DEGRADED)
        assert world.ledger.read([], ["desk"]).integrations["desk"] == IntegrationState("desk", Health.DEGRADED)


def test_a_records_timers_may_be_older_or_newer_than_the_code_that_reads_them() -> None:
    """Functions of two releases share a record for a while: none begins the other's timers anew."""
    old = (
        '{"minute": 7, "bad": 2, "good": 3, "collapsed": 0, "refused": 0, "silent": 1, "recent": "01", '
        '"window": [[1, 0]]}'
    )
    expected = Record(minute=7, bad=2, good=3, silent=1, recent="01", window=((1, 0),))
    assert record_of("desk", {"health_timers": {"S": old}}) == expected
    newer = old.replace("{", '{"what_a_later_release_counts": 5, ', 1)
    assert record_of("desk", {"health_timers": {"S": newer}}) == expected
    record = replace(expected, unbroken=14, unbroken_from=6)
    stored = {"health_timers": {"S": record_attributes(record)["health_timers"]}}
    assert record_of("desk", stored) == record


@pytest.mark.parametrize("attribute", ["health", "override"])
def test_a_health_that_nobody_can_read_counts_as_down_and_is_said(
    attribute: str, caplog: pytest.LogCaptureFixture
) -> None:
    record = record_of("desk", {attribute: {"S": "ill"}, "override_until": {"N": "9"}})
    assert record.state("desk").health_at(5) is Health.HARD_DOWN
    assert "counts as down" in caplog.text


def test_the_record_of_a_bad_week_stays_small() -> None:
    """Every worker reads it with every batch."""
    worst = replace(
        FULL,
        reason="x" * 200,
        override_by="a" * 200,
        override_reason="b" * 200,
        window=((99_999, 99_999),) * 10,
        recent="01" * 15,
    )
    size = sum(len(name) + len(str(content).encode()) for name, content in record_attributes(worst).items())
    assert size < 1_500


def test_what_an_evaluator_has_to_read_after_an_hours_gap_is_bounded() -> None:
    minutes = pending_minutes(Record(minute=MINUTE - 600), last_closed(NOON_MS, 1.0))
    assert len(minutes) * SHARDS <= 240
