"""Health through the real worker, sweeper and evaluator over doubles: what is counted, who probes, what an outage
costs.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from functions.core import sweep
from functions.core.audit import AuditType
from functions.core.decision import Action
from functions.core.event import Event
from functions.core.failure import (
    Done,
    Failure,
    NetworkCause,
    StorageUnavailable,
    failure_of_network,
    failure_of_status,
)
from functions.core.gate import Health, IntegrationState, WaitingFor
from functions.core.health import CallOutcome, Counts, Record, force, minute_of, tenant_bucket
from functions.core.integration import Integration
from functions.core.ports import Absent, Call, SettingState
from functions.core.recovery import SUPPRESSED, Row, Status
from functions.core.switches import LLM
from functions.worker.probes import Probes
from tests.channels_world import ChannelsWorld, action
from tests.fakes import NEVER_MS, NOON_MS, FakeHealthRecords, FakeRecovery, Faults
from tests.recovery_rows import action as row_action
from tests.recovery_rows import row as plain_row
from tests.worker_world import DESK, FLOW, KINDS, TENANT, Provider, World, run

MINUTE_MS = 60_000


def counts(world: World, integration: str = DESK) -> Counts:
    """Everything that was counted of it."""
    return sum((each for (name, _), each in world.tables.counts.items() if name == integration), Counts())


def answering(failure: Failure | None, names: tuple[str, ...] = ()) -> Callable[[Action], Failure | None]:
    return lambda action: failure if not names or action.name in names else None


def down(world: World, integration: str = DESK, *, probe_at_ms: int = 0, paused_until_ms: int = 0) -> None:
    """The integration is down since noon, and a probe is due."""
    world.tables.integrations[integration] = IntegrationState(
        integration, Health.HARD_DOWN, paused_until_ms, since_ms=NOON_MS, probe_at_ms=probe_at_ms
    )


class Desk(Provider):
    """A provider of which nothing answers during an outage, looks and reads included. `called` counts all."""

    outage: Failure | None = None
    called = 0

    async def send(self, action: Action, call: Call) -> Done | Failure:
        self.called += 1
        self.answers[:] = [answering(self.outage)]
        return await super().send(action, call)

    async def look_up(self, action: Action, call: Call) -> Done | Absent | Failure:
        self.called += 1
        return self.outage or await super().look_up(action, call)

    async def read_setting(self, action: Action, call: Call) -> SettingState | Failure:
        self.called += 1
        return self.outage or await super().read_setting(action, call)


def with_desk(world: World) -> Desk:
    """Its helpdesk, to be taken down."""
    desk = Desk(world.faults, world.clock)
    world.provider = desk
    return desk


def state(world: World, integration: str = DESK) -> IntegrationState:
    return world.tables.integrations.get(integration, IntegrationState(integration))


# ------------------------------------------------------------------------------------------------------------- counting


def test_a_batch_counts_all_of_its_calls_in_one_write_before_it_returns() -> None:
    """003.8"""
    world = World(("tag", "assign"))
    for number in range(10):
        world.accept(world.event(f"m-{number}"))
    world.provider.answers.append(answering(failure_of_status(503), ("assign",)))
    world.deliver()
    assert world.faults.calls.count("counts.add") == 1
    assert counts(world) == Counts(ok=10, error=10)
    assert set(world.tables.counts) == {(DESK, minute_of(world.clock.now, 1.0))}


def test_retries_looks_and_reads_are_counted_too() -> None:
    world = World(("tag", "reply"))
    world.provider.answers.append(answering(failure_of_network(NetworkCause.READ_TIMEOUT), ("reply",)))
    world.provider.acts_on_failure = False
    world.accept(world.event())
    world.deliver()
    assert counts(world) == Counts(ok=1, error=1)
    world.provider.answers.clear()
    world.run_until_quiet()
    assert counts(world) == Counts(ok=4, error=1)  # a look that found nothing, the send, and the look that counts


def test_a_duplicate_and_an_event_that_calls_nothing_count_nothing() -> None:
    world = World(("tag",))
    event = world.event()
    world.accept(event)
    world.deliver()
    before = dict(world.tables.counts)
    world.accept(event)
    world.deliver()
    assert world.tables.counts == before
    assert world.faults.calls.count("counts.add") == 1


def test_a_classification_is_counted_as_a_call_of_the_llm() -> None:
    world = World(("tag",))
    world.needs_llm = True
    world.accept(world.event())
    world.deliver()
    assert counts(world, LLM) == Counts(error=1)
    assert counts(world) == Counts(ok=1)


def test_a_credential_that_was_rotated_counts_as_no_refusal_and_one_that_is_dead_does_once() -> None:
    """000.5: a rotation meets every environment with the old key, and is no outage."""
    world = World(("tag",))
    world.provider.answers.append(
        lambda _: failure_of_status(401) if world.faults.calls.count("provider.send.tag") == 1 else None
    )
    world.accept(world.event())
    world.deliver()
    assert counts(world) == Counts(ok=1)

    dead = World(("tag",))
    dead.provider.answers.append(answering(failure_of_status(401)))
    dead.accept(dead.event())
    dead.deliver()
    assert counts(dead) == Counts(auth=1, auth_tenants=frozenset({tenant_bucket(TENANT)}))

    unreadable = World(("tag",))
    unreadable.provider.answers.append(answering(failure_of_status(403)))

    def no_store() -> str:
        raise StorageUnavailable("SSM")

    unreadable.provider.refresh_credential = no_store  # type: ignore[method-assign]  # for this case only
    unreadable.accept(unreadable.event())
    unreadable.deliver()
    assert counts(unreadable).auth == 1


def test_a_refused_look_counts_once_too() -> None:
    world = World(("tag", "reply"))
    world.provider.answers.append(answering(failure_of_status(503), ("reply",)))
    world.accept(world.event())
    world.deliver()
    world.provider.answers.clear()
    world.provider.refused_credential = world.provider.credential
    world.clock.advance(300_000)
    world.sweep()
    world.deliver()
    assert counts(world) == Counts(ok=1, error=1, auth=1, auth_tenants=frozenset({tenant_bucket(TENANT)}))


def test_events_of_one_tenant_with_a_dead_credential_never_take_the_integration_down() -> None:
    """000.5: through everything, for an hour."""
    world = World(("tag",))
    world.provider.answers.append(answering(failure_of_status(401)))
    for minute in range(60):
        for number in range(4):
            world.accept(world.event(f"{minute}-{number}"))
        while world.deliver():
            pass
        world.sweep()
        world.clock.advance(MINUTE_MS)
        world.judge()
    assert state(world).health is Health.HEALTHY
    for number in range(9):
        tenant = f"tenant-{number % 3}"
        world.accept(world.event(f"other-{number}", tenant=tenant))
    while world.deliver():
        pass
    world.clock.advance(MINUTE_MS + 10_000)
    world.judge()
    assert state(world).health is Health.HARD_DOWN
    assert state(world).reason.startswith("locked_out")


def test_counts_that_cannot_be_stored_hold_up_no_event_and_are_missed_aloud() -> None:
    world = World(("tag",))
    world.faults.fail("counts.add")
    event = world.event()
    world.accept(event)
    world.run_until_quiet()
    world.check_settled(event)
    assert world.tables.counts == {}
    assert world.quiet.counts["health_counts_lost"] == 1
    assert any("health misses it" in line for line in world.quiet.lines)


# --------------------------------------------------------------------------------------------------------------- probes


def test_of_forty_workers_at_once_one_calls_and_the_others_park() -> None:
    """000.23"""
    world = World(("tag",))
    down(world)
    calling, release = threading.Event(), threading.Event()

    class Slow(Provider):
        async def send(self, action: Action, call: Call) -> Done | Failure:
            calling.set()
            release.wait(20)
            return await super().send(action, call)

    world.provider = Slow(Faults(), world.clock)
    records = [
        {
            "messageId": f"m{n}",
            "receiptHandle": f"m{n}",
            "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:events",
            "attributes": {"ApproximateReceiveCount": "1"},
            "body": world.event(f"e-{n}").to_message(),
        }
        for n in range(40)
    ]
    workers = [world.worker() for _ in records]
    threads = [
        threading.Thread(target=worker, args=({"Records": [record]}, None))
        for worker, record in zip(workers, records, strict=True)
    ]
    for thread in threads:
        thread.start()
    assert calling.wait(20)
    for _ in range(2_000):
        if sum(thread.is_alive() for thread in threads) <= 1:
            break
        threading.Event().wait(0.01)
    release.set()
    for thread in threads:
        thread.join()
    assert len(world.provider.sent) == 1
    rows = list(world.tables.rows.values())
    assert len(rows) == 39
    assert {(row.status, row.waiting_for, row.attempt_count) for row in rows} == {
        (Status.PENDING, WaitingFor.HEALTH, 0)
    }
    assert state(world).probe_ok == 1


def test_of_one_batch_that_meets_a_free_probe_one_asks_for_it() -> None:
    world = World(("tag",))
    down(world)
    for number in range(10):
        world.accept(world.event(f"m-{number}"))
    world.deliver()
    assert world.faults.calls.count("health.take_probe") == 1
    assert len(world.provider.sent) == 1
    assert len(world.tables.rows) == 9


@pytest.mark.parametrize(
    "failure",
    [
        failure_of_status(503),
        failure_of_network(NetworkCause.CONNECT_REFUSED),
        failure_of_network(NetworkCause.DEADLINE),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["tag", "assign", "reply"])
def test_a_probe_that_fails_spends_no_attempt_on_whichever_path(name: str, failure: Failure) -> None:
    """000.15, 000.23: for two hours, and the effect is there once when it ends."""
    world = World(("tag",) if name == "tag" else ("tag", name))
    desk = with_desk(world)
    world.accept(world.event())
    if name == "tag":
        desk.outage, spent = failure, 0
    else:  # the outage begins after its first action, and before the machine knows of it

        def begin(op: str) -> None:
            if op == "provider.send.tag":
                desk.answers[:] = [answering(failure)]
                desk.outage = failure

        spent, world.faults.on_after = 1, begin
        world.deliver()
        world.faults.on_after = None
    down(world)
    for _ in range(120):
        while world.deliver():
            pass
        world.sweep()
        world.clock.advance(MINUTE_MS)
    (row,) = world.tables.rows.values()
    assert (row.attempt_count, row.waiting_for, row.is_open) == (spent, WaitingFor.HEALTH, True)
    assert 20 <= world.quiet.counts["probes"] <= 40
    assert state(world).health is Health.HARD_DOWN

    desk.outage = None
    for _ in range(30):
        while world.deliver():
            pass
        world.sweep()
        world.clock.advance(MINUTE_MS)
    (row,) = world.tables.rows.values()
    assert row.status is Status.SUCCEEDED
    assert set(world.provider.effects.values()) == {1}


def test_a_probe_passes_every_other_check_and_is_not_taken_for_what_would_not_be_sent() -> None:
    """000.23: a switch, an opt-out, an expiry stand above it."""
    for setting in ({"disabled_integrations": DESK}, {f"limits/{DESK}": "0"}, {"mode": "hold"}):
        world = World(("tag",), {**World().switches.values, **setting})
        down(world)
        world.accept(world.event())
        world.deliver()
        world.sweep()
        world.deliver()
        assert not world.provider.sent
        assert "health.take_probe" not in world.faults.calls
    paused = World(("tag",))
    down(paused, paused_until_ms=paused.clock.now + 30_000)
    paused.accept(paused.event())
    paused.deliver()
    assert "health.take_probe" not in paused.faults.calls


def test_a_kill_switch_that_is_thrown_while_the_probe_is_taken_holds_for_the_probe() -> None:
    """002.14: what was asked before that write is asked again after it."""
    world = World(("tag", "reply"))
    world.provider.answers.append(answering(failure_of_network(NetworkCause.CONNECT_REFUSED), ("reply",)))
    world.accept(world.event())
    world.deliver()
    world.provider.answers.clear()
    down(world)

    def throw(op: str) -> None:
        if op == "health.take_probe":
            world.switches.values["auto_reply"] = "off"
            world.clock.advance(5_500)

    world.faults.on_before = throw
    world.clock.advance(2 * MINUTE_MS)
    world.sweep()
    world.deliver()
    (row,) = world.tables.rows.values()
    assert (row.status, row.failure_code) == (Status.FAILED, SUPPRESSED)
    assert "reply" not in [name for _, name in world.provider.sent]
    assert (state(world).probe_ok, state(world).probe_at_ms) == (0, world.clock.now)  # free again at once


def test_a_blind_action_is_no_probe_where_another_kind_can_be_one() -> None:
    """It is the last hope where none has come: else it would wait for ever, and the integration stay closed."""
    world = World(("push",))
    down(world, probe_at_ms=NOON_MS)
    world.accept(world.event())
    world.deliver()
    assert not world.provider.sent
    assert "health.take_probe" not in world.faults.calls
    world.run_until_quiet()
    assert len(world.provider.sent) == 1
    only = World(("push",))
    only.integrations = {DESK: Integration(DESK, {"desk.push": KINDS["desk.push"]}, deadline_seconds=5.0)}
    down(only)
    only.accept(only.event())
    only.deliver()
    assert len(only.provider.sent) == 1


def test_what_an_operator_holds_down_is_called_by_nobody_until_the_clock_says_so() -> None:
    """000.32: and what waited is released little by little."""
    world = World(("tag",))
    records = FakeHealthRecords(world.tables)
    until_ms = world.clock.now + 30 * MINUTE_MS
    change = force(
        DESK, Record(), Health.HARD_DOWN, until_ms, actor="anna", reason="maintenance", now_ms=world.clock.now
    )
    records.store(DESK, change)
    for number in range(40):
        world.accept(world.event(f"m-{number}"))
    hinted = []
    for _ in range(45):
        while world.deliver():
            pass
        before = world.quiet.counts.get("rows_hinted", 0)
        world.sweep()
        hinted.append(int(world.quiet.counts.get("rows_hinted", 0) - before))
        world.clock.advance(MINUTE_MS)
        world.judge()
    assert sum(hinted[:30]) == 0
    assert hinted[30:34] == [10, 19, 11, 0]
    assert len(world.provider.effects) == 40
    assert "health.take_probe" not in world.faults.calls
    assert state(world).override is None


def test_what_an_operator_opens_early_is_called_and_believed_once_calls_go_through() -> None:
    """000.32"""
    world = World(("tag",))
    down(world, probe_at_ms=NEVER_MS)
    records = FakeHealthRecords(world.tables)
    seen = records.read([DESK])[DESK]
    records.store(
        DESK,
        force(DESK, seen, Health.HEALTHY, world.clock.now + 600_000, actor="a", reason="back", now_ms=world.clock.now),
    )
    for number in range(5):
        world.accept(world.event(f"m-{number}"))
    world.deliver()
    assert len(world.provider.effects) == 5
    world.clock.advance(MINUTE_MS + 10_000)
    assert world.judge() == 1
    assert state(world).health is Health.DEGRADED


def test_a_probe_that_cannot_be_taken_or_recorded_leaves_its_action_to_wait_or_to_be_done() -> None:
    world = World(("tag",))
    down(world)
    world.faults.fail("health.take_probe")
    world.accept(world.event("1"))
    world.deliver()
    assert not world.provider.sent
    (row,) = world.tables.rows.values()
    assert row.waiting_for is WaitingFor.HEALTH

    for op in ("health.read", "health.store"):
        other = World(("tag",))
        down(other)
        other.faults.fail(op)
        event = other.event("2")
        other.accept(event)
        other.deliver()
        other.check_settled(event)
        assert state(other).probe_at_ms == other.clock.now + 30_000  # its lease runs out, and another finds out
        assert state(other).probe_ok == 0


@pytest.mark.parametrize("times", [1, 3])
def test_what_a_probe_found_is_recorded_although_another_was_quicker_to_write(times: int) -> None:
    world = World(("tag",))
    down(world)
    left = [times]

    def meddle(op: str) -> None:
        if op == "health.store" and left[0]:
            left[0] -= 1
            record = world.tables.health[DESK]
            world.tables.health[DESK] = replace(record, version=record.version + 1)

    world.faults.on_before = meddle
    world.accept(world.event())
    world.deliver()
    assert state(world).probe_ok == (1 if times == 1 else 0)
    assert len(world.provider.sent) == 1


def test_a_worker_that_dies_with_the_probe_leaves_it_to_another_when_its_lease_ends() -> None:
    world = World(("tag",))
    down(world)
    probes = Probes(world.ports(), 1.0, dict(world.tables.integrations))
    probe = run(probes.take(DESK))
    assert probe is not None
    event = world.event()
    world.accept(event)
    world.deliver()
    assert not world.provider.sent
    world.clock.advance(60_000)
    world.sweep()
    world.deliver()
    assert len(world.provider.sent) == 1
    probe.found = CallOutcome.ERROR
    run(probes.record(probe))  # it was not dead, only slow: what it found is not asked for any more
    assert state(world).probe_ok == 1


def test_the_llm_is_not_asked_while_it_is_down_but_for_one_event_at_a_time() -> None:
    """000.5: rules decide meanwhile, and the first answer counts."""
    world = World(("tag",))
    world.needs_llm = True
    world.integrations[LLM] = Integration(LLM)
    down(world, LLM)
    for number in range(10):
        world.accept(world.event(f"m-{number}"))
    world.deliver()
    assert world.classifier.asked == 1
    assert len(world.provider.effects) == 10
    assert world.quiet.counts["classifier_unavailable"] == 10
    assert counts(world, LLM) == Counts(error=1)
    assert state(world, LLM).probe_at_ms == world.clock.now + 30_000
    world.accept(world.event("later"))
    world.deliver()
    assert world.classifier.asked == 1


# -------------------------------------------------------------------------------------------------------------- outages


class Outage:
    """A helpdesk, five seconds by five seconds, with ticks of sweeper and evaluator as EventBridge has them."""

    def __init__(self, names: tuple[str, ...], failure: Failure) -> None:
        self.world = World(names)
        self.desk = with_desk(self.world)
        self.failure = failure
        self.events: list[Event] = []
        self.woken: list[tuple[int, int, int]] = []  # when, how many, and how many were allowed

    def run(self, minutes: float, *, every_seconds: int = 0, is_out: bool = False) -> None:
        world = self.world
        self.desk.outage = self.failure if is_out else None
        for _ in range(int(minutes * 12)):
            second = (world.clock.now - NOON_MS) // 1_000
            if every_seconds and second % every_seconds == 0:
                event = world.event(f"e-{len(self.events)}")
                self.events.append(event)
                world.accept(event)
            while world.deliver():
                pass
            if second % 60 == 15:
                self._sweep()
            if second % 60 == 10:
                world.judge()
            world.clock.advance(5_000)

    @property
    def changes(self) -> list[tuple[float, str]]:
        """Minutes since the beginning, and what the state became."""
        events = [event for event in self.world.tables.events if event.event_type is AuditType.HEALTH_CHANGED]
        return [((event.at_ms - NOON_MS) / MINUTE_MS, json.loads(event.after_state)["health"]) for event in events]

    def _sweep(self) -> None:
        world = self.world
        seen = state(world)
        allowed = sweep.release_cap(seen, world.clock.now, 1.0)
        before = world.quiet.counts.get("rows_hinted", 0)
        world.sweep()
        hinted = int(world.quiet.counts.get("rows_hinted", 0) - before)
        self.woken.append((world.clock.now, hinted, allowed))


@pytest.mark.parametrize(
    "failure",
    [
        failure_of_status(503),
        failure_of_network(NetworkCause.CONNECT_REFUSED),
        failure_of_network(NetworkCause.DEADLINE),
    ],
    ids=lambda failure: failure.code,
)
def test_a_helpdesk_outage_of_five_minutes_needs_no_person_and_loses_and_doubles_nothing(
    failure: Failure, proved: Callable[[str], None]
) -> None:
    """000.9, 000.15, 000.22, 003.8, 003.25: 50 events meet the outage; each effect is there once afterwards."""
    # A key under which the provider has stored a 5xx twice is a person's by its own rule, outage or not.
    names = ("tag", "reply") if failure.status else ("tag", "reply", "create")
    outage = Outage(names, failure)
    outage.world.automatic_per_hour = {FLOW: 1_000}  # they are all of one conversation
    outage.run(3, every_seconds=20)
    outage.run(5, every_seconds=5, is_out=True)
    met = len(outage.events)
    outage.run(25, every_seconds=60)
    world = outage.world
    world.run_until_quiet()
    assert met - 9 == 60
    for event in outage.events:
        world.check_settled(event)
    statuses = {row.status for row in world.tables.rows.values()}
    assert statuses == {Status.SUCCEEDED}
    assert set(world.provider.effects.values()) == {1}
    assert len(world.provider.effects) == len(names) * len(outage.events)
    assert [health for _, health in outage.changes] == ["hard_down", "degraded", "healthy"]
    released_ms = max(event.at_ms for event in world.tables.events if "probed" in event.reason)
    ramped = [(hinted, allowed) for at_ms, hinted, allowed in outage.woken if at_ms >= released_ms]
    assert all(hinted <= allowed for hinted, allowed in ramped)
    assert max(row.attempt_count for row in world.tables.rows.values()) < 5
    waited = max(row.updated_at_ms - row.received_at_ms for row in world.tables.rows.values()) / MINUTE_MS
    proved(
        f"outage of 5 min ({failure.code}): {met - 9} events during it, {len(world.tables.rows)} rows, 0 dlq, 0 for a "
        f"person, {len(world.provider.effects)} effects once; "
        + ", ".join(f"{health} at minute {at:.1f}" for at, health in outage.changes)
        + f"; woken per tick after it: {[hinted for hinted, _ in ramped if hinted]}; longest wait {waited:.1f} min"
    )


def test_an_outage_of_three_hours_ends_the_same_way() -> None:
    """000.9: no attempt is spent on it, however long it takes."""
    outage = Outage(("tag", "create"), failure_of_network(NetworkCause.CONNECT_REFUSED))
    outage.run(2, every_seconds=10)
    outage.run(180, every_seconds=30, is_out=True)
    outage.run(40)
    outage.world.run_until_quiet()
    assert {row.status for row in outage.world.tables.rows.values()} == {Status.SUCCEEDED}
    assert set(outage.world.provider.effects.values()) == {1}
    assert len(outage.world.provider.effects) == 2 * len(outage.events)
    assert max(row.attempt_count for row in outage.world.tables.rows.values()) < 5


def test_twenty_thousand_rows_of_what_is_down_delay_another_integrations_retry_by_no_sweep(
    proved: Callable[[str], None],
) -> None:
    """000.9: no more of them are read than a tick bears, after everybody else's, but for the few among which a probe is
    chosen.
    """
    world = World(("tag",))
    other = plain_row("other", integration_id=DESK, action=row_action("other", integration=DESK, kind="desk.add_tags"))
    world.tables.rows[other.recovery_id] = other
    for number in range(20_000):
        waiting = replace(
            other,
            recovery_id=f"{number:024d}",
            integration_id="sms",
            waiting_for=WaitingFor.HEALTH,
            status=Status.PENDING,
            attempt_count=0,
        )
        world.tables.rows[waiting.recovery_id] = waiting
    down(world, "sms", probe_at_ms=NEVER_MS)
    read: list[tuple[str, int]] = []

    class Watched(FakeRecovery):
        def due(self, integration_id: str, until_ms: int, limit: int) -> list[Row]:
            found = super().due(integration_id, until_ms, limit)
            read.append((integration_id, len(found)))
            return found

    tick = world.sweeper(integrations=["sms", DESK], recovery=Watched(world.tables))
    tick({}, None)
    assert [sent.hint.recovery_id for sent in world.retries.sent] == [other.recovery_id]
    assert [name for name, _ in read][-2:] == [DESK, "sms"]
    assert [count for name, count in read if name == "sms"] == [300]

    down(world, "sms")
    world.clock.advance(MINUTE_MS)
    read.clear()
    counts = tick({}, None)
    assert [count for name, count in read if name == "sms"] == [sweep.PROBE_READ, 300]
    assert (counts["probes_woken"], counts["rows_hinted"], counts["rows_put_off"]) == (1, 1, 300)
    proved(
        f"20,000 rows of an integration that is down: 300 looked through a tick, after everybody else's, and "
        f"{sweep.PROBE_READ} where a probe is due; 1 woken"
    )


def test_a_probe_is_never_hidden_behind_what_has_expired_while_it_waited() -> None:
    """000.9: those end on the way."""
    world = World(("tag",))
    base = plain_row("r", integration_id=DESK, action=row_action("r", integration=DESK, kind="desk.add_tags"))
    for number in range(120):
        expired = replace(base, recovery_id=f"{number:024d}", expires_at_ms=NOON_MS, due_at_ms=NOON_MS - 1)
        world.tables.rows[expired.recovery_id] = expired
    world.tables.rows[base.recovery_id] = replace(base, due_at_ms=NOON_MS)
    down(world)
    for _ in range(4):
        world.sweep()
        world.clock.advance(MINUTE_MS)
    ended = [row for row in world.tables.rows.values() if row.failure_code == "EXPIRED"]
    assert len(ended) == 120
    assert any(base.recovery_id in message.body for message in world.messages)


def found_out(world: World, integration: str = DESK) -> bool:
    """Whether within an hour, without a new event, it is found out that the integration is back."""
    for second in range(3_600):
        while world.deliver():
            pass
        if second % 60 == 0:
            world.sweep()
        world.clock.advance(1_000)
    return world.tables.integrations[integration].health is Health.DEGRADED


@pytest.mark.parametrize("held_by", ["credential", "a switch of its tenant"])
def test_a_row_that_something_else_holds_keeps_no_other_from_being_the_probe(held_by: str) -> None:
    """000.9: the oldest row would be woken each time, and each time not be tried."""
    world = World(("tag",))
    if held_by == "credential":
        world.provider.answers.append(lambda _action: failure_of_status(403))
    else:
        world.switches.values["tenant/globex/disabled_integrations"] = DESK
    world.accept(world.event("held", tenant="globex"))
    world.deliver()
    world.provider.answers.clear()
    down(world, probe_at_ms=world.clock.now + MINUTE_MS)
    for number in range(3):
        world.clock.advance(1_000)
        world.accept(world.event(str(number)))
    assert found_out(world)
    assert len(world.provider.effects) == 3


def test_a_row_held_by_a_switch_that_is_lifted_is_a_probe_too() -> None:
    world = World(("tag",))
    world.switches.values["tenant/acme/disabled_integrations"] = DESK
    for number in range(3):
        world.accept(world.event(str(number)))
    world.deliver()
    down(world, probe_at_ms=world.clock.now + MINUTE_MS)
    del world.switches.values["tenant/acme/disabled_integrations"]
    assert found_out(world)


def test_what_never_is_a_probe_makes_room_for_what_may_be_one() -> None:
    """000.9, 000.15: however many cancellations wait for payments to come back."""
    world = ChannelsWorld(action("end", "payments.cancel_subscription", expires_seconds=7 * 86_400))
    down(world, "payments", probe_at_ms=world.clock.now + 5 * MINUTE_MS)
    for number in range(2 * sweep.PROBE_READ + 5):
        world.accept(world.event(str(number)))
    while world.deliver():
        pass
    world.actions = (action("pay", "payments.create_checkout_session", expires_seconds=7 * 86_400),)
    for number in range(3):
        world.clock.advance(1_000)
        world.accept(world.event(f"pay {number}"))
    assert found_out(world, "payments")


def test_every_change_of_health_is_in_the_audit_with_what_was_and_what_is() -> None:
    """000.5"""
    outage = Outage(("tag",), failure_of_network(NetworkCause.CONNECT_REFUSED))
    outage.run(4, every_seconds=5, is_out=True)
    outage.run(30, every_seconds=20)
    events = [event for event in outage.world.tables.events if event.event_type is AuditType.HEALTH_CHANGED]
    assert [event.reason.partition(":")[0] for event in events] == ["unreachable", "probed", "recovered"]
    assert all(event.before_state != event.after_state for event in events)
