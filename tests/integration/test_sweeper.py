"""Ticks of the sweeper over tables and queues: what is hinted, what is left, and that no crash loses anything."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from functions import observability
from functions.core import sweep
from functions.core.attempt import Effect
from functions.core.audit import AuditType
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.fallback import Matrix
from functions.core.gate import Health, IntegrationState, WaitingFor
from functions.core.integration import Rate
from functions.core.ports import Hint
from functions.core.recovery import Change, Row, Status, claim
from functions.sweeper import handler
from functions.sweeper.handler import HINT_BATCH, UNWRITTEN_LIMIT, Handler, build
from functions.sweeper.settings import SweeperSettings
from tests.fakes import (
    LIVE_SWITCHES,
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
from tests.fallback_matrix import MATRIX
from tests.recovery_rows import event_row, row

SETTINGS = SweeperSettings(
    stage="test",
    recovery_table="recovery",
    audit_table="audit",
    control_table="control",
    bucket="bucket",
    events_queue_url="http://localhost/events",
    retries_queue_url="http://localhost/retries",
    replays_queue_url="http://localhost/replays",
    switches_path="/holdfast/test/switches",
    timeout_seconds=50,
    time_scale=1.0,
)


class Stage:
    """Everything one sweeper sees."""

    def __init__(
        self,
        *rows: Row,
        scale: float = 1.0,
        rates: Mapping[str, Rate] | None = None,
        fallbacks: Matrix | None = None,
        **switches: str,
    ) -> None:
        self.rates = rates
        self.fallbacks = fallbacks
        self.tables = FakeTables()
        self.clock = FakeClock()
        self.recovery = FakeRecovery(self.tables)
        self.spill = FakeSpill(self.tables.faults)
        self.envelopes = FakeEnvelopes(self.tables.faults)
        self.events = FakeEvents(self.tables.faults)
        self.retries = FakeHints(self.tables.faults, "retries")
        self.replays = FakeHints(self.tables.faults, "replays")
        self.switches = FakeSwitches(self.clock, {**LIVE_SWITCHES, **switches})
        self.lines: list[str] = []
        self.log = io.StringIO()
        self.put(*rows)
        self.tick_once: Handler = self.sweeper(scale)

    def sweeper(self, scale: float) -> Handler:
        return build(
            replace(SETTINGS, time_scale=scale),
            integrations=("helpdesk", "email"),
            ledger=FakeLedger(self.tables),
            recovery=self.recovery,
            switches=self.switches,
            spill=self.spill,
            envelopes=self.envelopes,
            events=self.events,
            retries=self.retries,
            replays=self.replays,
            clock=self.clock,
            ids=FakeIds(),
            log=observability.logger("sweeper-test", stream=self.log),
            metrics=observability.metrics("sweeper", "test", self.lines.append),
            rates=self.rates,
            fallbacks=self.fallbacks,
        )

    def put(self, *rows: Row) -> None:
        self.tables.rows.update({each.recovery_id: each for each in rows})

    def tick(self) -> dict[str, int]:
        return self.tick_once({}, None)

    def now(self, subject: Row) -> Row:
        return self.tables.rows[subject.recovery_id]

    def hints(self, queue: FakeHints) -> list[str]:
        return [sent.hint.recovery_id for sent in queue.sent]


def test_a_due_row_gets_a_hint_at_its_new_version_and_is_looked_at_again_if_nothing_comes_of_it() -> None:
    due = row()
    stage = Stage(due)
    assert stage.tick() == {"rows_committed": 1, "rows_hinted": 1}
    (sent,) = stage.retries.sent
    assert sent.hint == Hint(due.recovery_id, due.version + 1, NOON_MS, "acme")
    assert stage.now(due).version == sent.hint.version
    assert stage.now(due).due_at_ms == NOON_MS + 180_000
    assert stage.tick() == {}


def test_the_sweeper_says_that_it_came_to_its_end_and_of_whose_effect_nobody_can_tell() -> None:
    """002.9: silence is the alarm."""
    stage = Stage(row(effect=Effect.UNKNOWN, last_possible_send_ms=NOON_MS - 900_001), row("other"))
    stage.tick()
    written = [json.loads(line) for line in stage.lines]
    (whole,) = [line for line in written if "heartbeat" in line]
    assert "integration" not in whole
    assert whole["heartbeat"] == whole["outcomes_unknown_overdue"] == [1.0]


def test_a_wait_that_ends_before_the_next_tick_travels_as_the_hints_delay() -> None:
    stage = Stage(row(not_before_ms=NOON_MS + 42_000, due_at_ms=NOON_MS + 42_000))
    stage.tick()
    assert [sent.delay_seconds for sent in stage.retries.sent] == [42]


def test_a_row_that_is_due_later_is_not_touched() -> None:
    later = row(not_before_ms=NOON_MS + 60_001, due_at_ms=NOON_MS + 60_001)
    stage = Stage(later)
    assert stage.tick() == {}
    assert stage.now(later) == later


def test_a_replayed_row_is_hinted_on_the_replays_queue_and_an_events_row_too() -> None:
    replayed, dead_event = row(status=Status.REPLAYED), event_row(status=Status.REPLAYED, due_at_ms=NOON_MS)
    stage = Stage(replayed, dead_event)
    stage.tick()
    assert sorted(stage.hints(stage.replays)) == sorted([replayed.recovery_id, dead_event.recovery_id])
    assert stage.retries.sent == []


@pytest.mark.parametrize(
    "switches",
    [{"mode": "hold"}, {"disabled_integrations": "all"}, {"limits/helpdesk": "0"}],
    ids=str,
)
def test_rows_of_what_may_not_send_stay_as_they_are_and_are_woken_once_it_may(switches: dict[str, Any]) -> None:
    due = row()
    stage = Stage(due, **switches)
    stage.tick()
    assert stage.now(due) == due
    stage.switches.values.update(LIVE_SWITCHES)
    stage.switches.values.pop("limits/helpdesk", None)
    stage.clock.advance(60_000)
    stage.tick()
    assert stage.hints(stage.retries) == [due.recovery_id]


def test_while_an_integration_is_down_no_row_of_it_is_woken_and_other_integrations_go_on() -> None:
    waiting, other = row("waiting"), row("other", integration_id="email")
    stage = Stage(waiting, other)
    stage.tables.set_health("helpdesk", Health.HARD_DOWN)
    stage.tick()
    assert stage.hints(stage.retries) == [other.recovery_id]
    assert stage.now(waiting) == waiting


def test_a_row_past_its_expiry_ends_with_its_audit_event_and_no_hint() -> None:
    late = row(expires_at_ms=NOON_MS)
    stage = Stage(late)
    stage.tick()
    assert (stage.now(late).status, stage.now(late).failure_code) == (Status.FAILED, "EXPIRED")
    assert [each.event_type for each in stage.tables.events] == [AuditType.DISMISSED]
    assert stage.retries.sent == []


LATER_MS = NOON_MS + 3_600_000
DOWN = {"health": Health.HARD_DOWN, "probe_at_ms": LATER_MS}
# What holds `helpdesk`: by switches, and by what its control item says.
HOLDS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "switched off": ({"disabled_integrations": "helpdesk"}, {}),
    "all are switched off": ({"disabled_integrations": "all"}, {}),
    "mode hold": ({"mode": "hold"}, {}),
    "mode shadow": ({"mode": "shadow"}, {}),
    "limit 0": ({"limits/helpdesk": "0"}, {}),
    "paused by its provider": ({}, {"paused_until_ms": LATER_MS}),
    "down, and a probe is under way": ({}, DOWN),
    "down and switched off": ({"disabled_integrations": "helpdesk"}, DOWN | {"probe_at_ms": 0}),
    "held down by a person": ({}, {"override": Health.HARD_DOWN, "override_until_ms": LATER_MS}),
}


def held_by(stage: Stage, holds: tuple[dict[str, str], dict[str, Any]]) -> Stage:
    switches, state = holds
    stage.switches.values.update(switches)
    stage.tables.integrations["helpdesk"] = IntegrationState("helpdesk", **state)
    return stage


@pytest.mark.parametrize("holds", HOLDS.values(), ids=HOLDS)
def test_what_may_not_send_keeps_no_row_from_ending_when_it_is_too_late(
    holds: tuple[dict[str, str], dict[str, Any]],
) -> None:
    """A reply that nobody may send any more is shown as ended in that minute, and not when somebody opens again."""
    late, early = row("late", expires_at_ms=NOON_MS), row("early", expires_at_ms=NOON_MS + 30_001)
    other, unsure = row("other"), row("unsure", expires_at_ms=NOON_MS, effect=Effect.UNKNOWN)
    stage = held_by(Stage(late, early, other, unsure), holds)
    counts = stage.tick()
    assert counts == {"integrations_parked": counts["integrations_parked"], "rows_expired": 1}
    assert (stage.now(late).status, stage.now(late).failure_code) == (Status.FAILED, "EXPIRED")
    assert [each.event_type for each in stage.tables.events] == [AuditType.DISMISSED]
    assert [stage.now(each) for each in (early, other, unsure)] == [early, other, unsure]  # a worker looks first
    stage.clock.advance(30_001)
    assert stage.tick()["rows_expired"] == 1
    assert stage.now(early).failure_code == "EXPIRED"
    assert stage.now(other) == other
    assert (stage.retries.sent, stage.replays.sent) == ([], [])


@pytest.mark.parametrize("parked", ["switched off", "down, and a probe is under way"])
def test_rows_that_wait_hide_none_that_is_too_late(monkeypatch: pytest.MonkeyPatch, parked: str) -> None:
    """More waits than a tick reads: what has been looked at makes room, and is woken all the same once it may be."""
    monkeypatch.setattr(handler, "_PARKED_READ", 4)
    monkeypatch.setattr(sweep, "PER_INTEGRATION", 100)
    others = [row(f"o{n}", due_at_ms=NOON_MS - 1_000 + n) for n in range(6)]
    child = row(
        "child", status=Status.PENDING, waits_for=("p",), due_at_ms=NOON_MS - 994, expires_at_ms=NOON_MS + 10**7
    )
    late = row("late", due_at_ms=NOON_MS, expires_at_ms=NOON_MS)
    stage = held_by(Stage(*others, child, late), HOLDS[parked])
    assert stage.tick() == {"integrations_parked": 1, "rows_put_off": 4}
    assert stage.tick() == {"integrations_parked": 1, "rows_put_off": 3, "rows_expired": 1}
    assert stage.now(late).failure_code == "EXPIRED"
    assert stage.now(child).due_at_ms == child.expires_at_ms
    assert all(stage.now(one).is_open for one in others)
    stage.switches.values.update(LIVE_SWITCHES)
    stage.tables.integrations.clear()
    stage.clock.advance(60_000)
    stage.tick()
    assert sorted(stage.hints(stage.retries)) == sorted(one.recovery_id for one in others)


def test_ending_what_is_too_late_has_the_time_that_those_who_may_send_leave_of_a_tick() -> None:
    late = [row(f"l{n}", expires_at_ms=NOON_MS) for n in range(9)]
    other = row("other", integration_id="email")
    stage = Stage(*late, other, disabled_integrations="helpdesk")
    commit = stage.recovery.commit

    def slow(changes: Sequence[Change]) -> None:
        stage.clock.advance(20_000)
        commit(changes)

    stage.recovery.commit = slow  # type: ignore[method-assign]  # a table that takes its time
    counts = stage.tick()
    assert stage.hints(stage.retries) == [other.recovery_id]
    assert (counts["rows_expired"], counts["rows_hinted"]) == (2, 1)
    assert stage.tick()["rows_expired"] == 3


def test_one_integrations_expiry_that_fails_keeps_no_others_from_theirs() -> None:
    late = row("late", integration_id="email", expires_at_ms=NOON_MS)
    stage = Stage(late, disabled_integrations="all")
    due = stage.recovery.due

    def failing(integration_id: str, until_ms: int, limit: int) -> list[Row]:
        if integration_id == "helpdesk":
            raise StorageUnavailable("throttled")
        return due(integration_id, until_ms, limit)

    stage.recovery.due = failing  # type: ignore[method-assign]  # the index does not answer for one
    with pytest.raises(ExceptionGroup):
        stage.tick()
    assert stage.now(late).failure_code == "EXPIRED"


def test_a_row_that_waits_for_another_costs_one_write_and_ends_when_it_expires() -> None:
    child = row(status=Status.PENDING, waits_for=("parent",), expires_at_ms=NOON_MS + 90_000)
    stage = Stage(child)
    assert stage.tick() == {"rows_put_off": 1}
    for _ in range(2):
        stage.clock.advance(30_000)
        assert "rows_put_off" not in stage.tick()
    stage.clock.advance(30_000)
    assert stage.tick()["rows_expired"] == 1
    assert stage.now(child).failure_code == "EXPIRED"


def test_replays_wait_while_the_switch_is_off_and_go_on_by_themselves_afterwards() -> None:
    replayed, ordinary = row("replayed", status=Status.REPLAYED), row("ordinary")
    stage = Stage(replayed, ordinary, replay="off")
    stage.tick()
    assert stage.hints(stage.retries) == [ordinary.recovery_id]
    assert stage.replays.sent == []
    stage.switches.values["replay"] = "on"
    stage.clock.advance(60_000)
    stage.tick()
    assert stage.hints(stage.replays) == [replayed.recovery_id]


def test_a_hint_that_the_queue_does_not_accept_is_sent_again_when_the_row_is_due_again() -> None:
    due = row()
    stage = Stage(due)
    stage.retries.refused.add(due.recovery_id)
    assert stage.tick()["hints_not_accepted"] == 1
    stage.retries.refused.clear()
    stage.clock.advance(180_000)
    assert stage.tick()["rows_hinted"] == 1
    assert [sent.hint.version for sent in stage.retries.sent] == [stage.now(due).version]


def test_a_row_that_somebody_else_moves_in_between_is_skipped_and_counted() -> None:
    due = row()
    stage = Stage(due)

    class Racing(FakeRecovery):
        def commit(self, changes: Sequence[Change]) -> None:
            stage.put(claim(due, NOON_MS, NOON_MS + 65_000, "req-2").after)
            super().commit(changes)

    stage.recovery.__class__ = Racing
    assert stage.tick() == {"rows_moved": 1}
    assert stage.retries.sent == []
    assert stage.now(due).lease_until_ms == NOON_MS + 65_000


def test_one_integrations_trouble_does_not_stop_the_others_and_the_tick_still_fails() -> None:
    here, there = row("here"), row("there", integration_id="email")
    stage = Stage(here, there)
    stage.tables.faults.on_before = _failing_due_of_first_two(stage)
    with pytest.raises(ExceptionGroup) as failed:
        stage.tick()
    assert len(failed.value.exceptions) == 2
    assert len(stage.retries.sent) <= 1
    assert sum("duties_failed" in line and "integration" in line for line in stage.lines) == 2
    stage.tables.faults.on_before = None
    stage.clock.advance(60_000)
    stage.tick()
    assert sorted(stage.hints(stage.retries)) == sorted([here.recovery_id, there.recovery_id])


def _failing_due_of_first_two(stage: Stage) -> Any:
    seen: list[str] = []

    def fail(op: str) -> None:
        if op == "recovery.due":
            seen.append(op)
            if len(seen) <= 2:
                raise StorageUnavailable("the table did not answer")

    return fail


def test_a_row_that_cannot_be_written_does_not_keep_its_neighbours_from_being_woken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = [row(f"r{n}") for n in range(30)]
    stage = Stage(*rows)
    seen: list[str] = []

    def every_fifth(op: str) -> None:
        seen.extend([op] * (op == "recovery.commit"))
        if op == "recovery.commit" and len(seen) % 5 == 0:
            raise StorageUnavailable("throttled")

    stage.tables.faults.on_before = every_fifth
    assert stage.tick() == {"rows_committed": 24, "rows_hinted": 24, "rows_unwritten": 6}
    assert sum("could not be written" in message for message in caplog.messages) == 6
    stage.tables.faults.on_before = None
    stage.clock.advance(60_000)
    assert stage.tick() == {"rows_committed": 6, "rows_hinted": 6}
    assert sorted(stage.hints(stage.retries)) == sorted(each.recovery_id for each in rows)


def gauge(stage: Stage, name: str) -> dict[tuple[str, str], float]:
    """What the last tick counted under that name, by integration and reason."""
    found = {(line["integration"], line.get("reason", "")): line[name][0] for line in written(stage) if name in line}
    stage.lines.clear()
    return found


def written(stage: Stage) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stage.lines]


def test_what_rows_wait_for_is_said_each_minute_and_costs_no_request() -> None:
    """A credential that nobody stores is seen, and so is what it holds up; what waits for nothing is not."""
    refused = {"status": Status.PENDING, "waiting_for": WaitingFor.CREDENTIAL}
    stage = Stage(
        *(row(f"c{n}", **refused) for n in range(3)),
        *(row(f"b{n}", waiting_for=WaitingFor.BACKOFF) for n in range(2)),
        row("ready"),
        row("elsewhere", integration_id="email", **refused),
        row("later", due_at_ms=NOON_MS + 3_600_000, not_before_ms=NOON_MS + 3_600_000, **refused),
    )
    calls = stage.tables.faults.calls
    stage.tick()
    assert calls.count("recovery.due") == 3  # one for each integration, as ever
    assert gauge(stage, "rows_waiting") == {
        ("helpdesk", "credential"): 3,
        ("helpdesk", "backoff"): 2,
        ("email", "credential"): 1,
    }
    for each in list(stage.tables.rows.values()):
        if each.integration_id == "helpdesk":
            del stage.tables.rows[each.recovery_id]
    stage.clock.advance(180_000)
    stage.tick()
    assert gauge(stage, "rows_waiting") == {("email", "credential"): 1}


def test_how_old_the_oldest_item_that_is_due_is_is_said_by_integration() -> None:
    stage = Stage(
        row("old", created_at_ms=NOON_MS - 90_000),
        row("young", created_at_ms=NOON_MS - 1_000),
        row(
            "not due", created_at_ms=NOON_MS - 900_000, due_at_ms=NOON_MS + 3_600_000, not_before_ms=NOON_MS + 3_600_000
        ),
        row("elsewhere", integration_id="email", created_at_ms=NOON_MS + 5_000),  # by a clock that is ahead
    )
    stage.tick()
    told = {line["integration"]: line["rows_oldest_age_ms"] for line in written(stage) if "rows_oldest_age_ms" in line}
    assert told == {"helpdesk": [90_000], "email": [0]}


def test_a_row_that_is_read_twice_in_a_tick_waits_once() -> None:
    """While its integration is down one is looked for to be the probe, and what must arrive is looked for to leave."""
    stage = Stage(row("c", integration_id="email", waiting_for=WaitingFor.CREDENTIAL), fallbacks=MATRIX)
    stage.tables.integrations["email"] = IntegrationState("email", Health.HARD_DOWN, probe_at_ms=NOON_MS)
    stage.tick()
    assert stage.tables.faults.calls.count("recovery.due") == 4
    assert gauge(stage, "rows_waiting") == {("email", "credential"): 1}


def test_a_table_that_takes_no_writes_ends_the_turn_and_fails_the_tick() -> None:
    stage = Stage(*(row(f"r{n}") for n in range(30)))
    stage.tables.faults.fail("recovery.commit", times=100)
    with pytest.raises(ExceptionGroup):
        stage.tick()
    assert stage.tables.faults.calls.count("recovery.commit") == HINT_BATCH > UNWRITTEN_LIMIT
    assert gauge(stage, "rows_unwritten") == {("helpdesk", ""): HINT_BATCH}
    assert stage.retries.sent == []


def test_a_flood_of_one_tenant_is_capped_and_the_rest_of_it_follows() -> None:
    flood = [row(f"r{n}") for n in range(sweep.PER_INTEGRATION + 20)]
    stage = Stage(*flood)
    assert stage.tick()["rows_over_cap"] == 20
    assert len(stage.retries.sent) == sweep.PER_INTEGRATION
    stage.clock.advance(60_000)
    stage.tick()
    assert sorted(stage.hints(stage.retries)) == sorted(each.recovery_id for each in flood)


def test_a_tick_ends_before_its_time_is_up_and_the_next_one_goes_on() -> None:
    rows = [row(f"r{n}") for n in range(30)]
    stage = Stage(*rows)

    def slow(op: str) -> None:
        if op == "recovery.commit":
            stage.clock.advance(3_000)

    stage.tables.faults.on_before = slow
    assert stage.tick()["sweeps_cut_short"] == 1
    assert 0 < len(stage.retries.sent) < 30
    stage.tables.faults.on_before = None
    stage.clock.advance(60_000)
    stage.tick()
    assert {*stage.hints(stage.retries)} == {each.recovery_id for each in rows}


def test_shortened_waits_leave_a_hint_the_time_that_a_queue_needs() -> None:
    due = row()
    stage = Stage(due, scale=1 / 60)
    stage.tick()
    for _ in range(9):
        stage.clock.advance(1_000)
        stage.tick()
    assert len(stage.retries.sent) == 1
    stage.clock.advance(1_000)
    stage.tick()
    assert len(stage.retries.sent) == 2


class _Died(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", range(1, 12))
def test_a_sweeper_that_dies_at_any_step_loses_no_row_and_ends_none_twice(step: int, when: str) -> None:
    due = [row(f"r{n}") for n in range(12)]
    late, replayed = row("late", expires_at_ms=NOON_MS), row("replayed", status=Status.REPLAYED)
    stage = Stage(*due, late, replayed)
    left = [step]

    def die(_op: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise _Died

    setattr(stage.tables.faults, f"on_{when}", die)
    with pytest.raises(_Died):
        stage.tick()
    setattr(stage.tables.faults, f"on_{when}", None)
    for _ in range(4):
        stage.clock.advance(60_000)
        stage.tick()
    latest = {
        sent.hint.recovery_id: sent.hint.version for queue in (stage.retries, stage.replays) for sent in queue.sent
    }
    for each in (*due, replayed):
        assert latest[each.recovery_id] == stage.now(each).version
    assert stage.now(late).failure_code == "EXPIRED"
    assert len([each for each in stage.tables.events if each.affected_id == late.recovery_id]) == 1


def test_conflicts_are_never_raised_to_the_caller() -> None:
    stage = Stage(row())
    stage.tables.faults.fail("recovery.commit", VersionConflict("moved"))
    assert stage.tick() == {"rows_moved": 1}


# ---------------------------------------------------------------------------------------------------------------- rate


def waiting(number: int, **fields: Any) -> Row:
    """One of many rows that wait for the limiter, a second after the other."""
    slot_ms = NOON_MS + number * 1_000
    return row(
        f"w{number}",
        status=Status.PENDING,
        waiting_for=WaitingFor.LIMITER,
        slot_ms=slot_ms,
        not_before_ms=slot_ms,
        due_at_ms=slot_ms,
        **fields,
    )


@pytest.mark.parametrize("due_at_once", [False, True])
def test_twenty_thousand_rows_that_wait_for_one_limit_delay_nobody_elses_retry(
    proved: Callable[[str], None], due_at_once: bool
) -> None:
    """002.25: nor each other's slots; all of them late, as after an outage, or each at its time."""
    many = [waiting(n % 3_600) for n in range(3_600)]
    many += [
        replace(waiting(0), recovery_id=f"{n:024x}", not_before_ms=1, due_at_ms=1, slot_ms=0) for n in range(16_400)
    ]
    if due_at_once:
        many = [replace(each, due_at_ms=NOON_MS - 3_600_000 + n) for n, each in enumerate(many)]
    retry = replace(row("mine"), integration_id="email", received_at_ms=NOON_MS)
    stage = Stage(*many, retry, rates={"helpdesk": Rate(1.0, 20)})
    before = len(stage.hints(stage.retries))
    stage.tick()
    hinted = stage.hints(stage.retries)
    assert retry.recovery_id in hinted
    assert len(hinted) - before <= sweep.PER_INTEGRATION + 1
    proved(
        f"limiter: 20,000 waiting rows, {'late' if due_at_once else 'each at its time'}: a retry elsewhere goes at once"
    )


def test_hints_at_late_slots_are_spread_over_the_minute() -> None:
    """002.25"""
    stage = Stage(*(waiting(-n) for n in range(30)), rates={"helpdesk": Rate(1.0, 1)})
    assert stage.tick()["rows_hinted"] == 30
    assert sorted(sent.delay_seconds for sent in stage.retries.sent) == list(range(30))
