"""Minute by minute, every change of a switch reaches the audit once, and every integration's health is judged."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest

from functions import observability
from functions.core.audit import AuditEvent, AuditType
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.gate import Health
from functions.core.health import Counts, Thresholds, force, minute_of
from functions.core.switch_returns import Return, Returns, ReturnsChange
from functions.evaluator.handler import Handler, build
from functions.evaluator.settings import EvaluatorSettings
from tests.control_fakes import (
    FakeExpectations,
    FakeFoundSources,
    FakeSwitchHistory,
    FakeSwitchMarks,
    FakeSwitchReturns,
    FakeSwitchWriter,
)
from tests.fakes import NOON_MS, FakeAudit, FakeClock, FakeDoor, FakeHealthCounts, FakeHealthRecords, FakeTables

SETTINGS = EvaluatorSettings(
    stage="test",
    audit_table="audit",
    control_table="control",
    switches_path="/holdfast/test/switches",
    sources_path="/holdfast/test/sources",
    door_log_group="door",
    timeout_seconds=50,
    time_scale=1.0,
)
WELL, BAD, DEAD = Counts(ok=100), Counts(ok=50, error=50), Counts(error=100)


class Stage:
    def __init__(self) -> None:
        self.tables = FakeTables()
        self.clock = FakeClock(NOON_MS + 10_000)  # what is judged at a tick is the minute before
        self.history = FakeSwitchHistory(self.clock, self.tables.faults)
        self.marks = FakeSwitchMarks(self.tables.faults)
        self.returns = FakeSwitchReturns(self.tables)
        self.expectations = FakeExpectations(self.tables.faults)
        self.door = FakeDoor(self.tables.faults)
        self.found = FakeFoundSources(self.tables.faults)
        self.lines: list[str] = []
        for name, value in (("mode", "live"), ("auto_reply", "on"), ("replay", "on")):
            self.history.write(name, value, "arn:deploy")
        self.handle = self.evaluator()

    def evaluator(self) -> Handler:
        """A new environment, which remembers nothing."""
        return build(
            SETTINGS,
            history=self.history,
            marks=self.marks,
            returns=self.returns,
            writer=FakeSwitchWriter(self.history),
            audit=FakeAudit(self.tables),
            records=FakeHealthRecords(self.tables),
            counts=FakeHealthCounts(self.tables),
            expectations=self.expectations,
            door=self.door,
            found=self.found,
            thresholds={"desk": Thresholds(), "llm": Thresholds()},
            clock=self.clock,
            log=observability.logger("evaluator-test", stream=io.StringIO()),
            metrics=observability.metrics("evaluator", "test", self.lines.append),
        )

    def minute(self) -> int:
        self.clock.advance(60_000)
        return self.handle({}, None)["changes"]

    def calls(self, counts: Counts, integration: str = "desk") -> int:
        """A minute with these calls, and the tick that judges it; how many states changed."""
        FakeHealthCounts(self.tables).add(minute_of(self.clock.now, 1.0), {integration: counts}, self.clock.now)
        self.clock.advance(60_000)
        return self.handle({}, None)["health_changes"]

    def health(self, integration: str = "desk") -> Health:
        return FakeHealthRecords(self.tables).read([integration])[integration].health

    def flip(self, name: str, value: str, by: str = "arn:anna") -> None:
        self.clock.advance(1_000)
        self.history.write(name, value, by)

    def of(self, name: str) -> list[AuditEvent]:
        return [each for each in self.tables.events if each.affected_id == name]

    def told(self, name: str) -> list[tuple[str, str]]:
        return [(each.actor, json.loads(each.after_state)["value"]) for each in self.of(name)]


def test_the_first_minute_records_every_switch_and_the_next_nothing() -> None:
    stage = Stage()
    assert stage.minute() == 3
    assert stage.minute() == 0
    assert stage.told("mode") == [("arn:deploy", "live")]


def test_a_quiet_minute_costs_one_listing_the_promises_and_a_read_and_a_write_per_integration() -> None:
    stage = Stage()
    stage.minute()
    stage.tables.faults.calls.clear()
    stage.minute()
    per_integration = ["counts.read", "health.store"]
    assert stage.tables.faults.calls == ["health.read", *per_integration * 2, "returns.read", "history.latest"]


def test_an_environment_that_starts_later_goes_on_from_the_mark() -> None:
    stage = Stage()
    stage.minute()
    stage.flip("auto_reply", "off")
    stage.handle = stage.evaluator()
    assert stage.minute() == 1
    assert stage.told("auto_reply") == [("arn:deploy", "on"), ("arn:anna", "off")]


def test_off_and_on_within_one_minute_are_both_recorded_with_who_did_it() -> None:
    stage = Stage()
    stage.minute()
    stage.flip("auto_reply", "off", "arn:anna")
    stage.flip("auto_reply", "on", "arn:ben")
    assert stage.minute() == 2
    assert stage.told("auto_reply")[1:] == [("arn:anna", "off"), ("arn:ben", "on")]


def test_a_narrower_switch_that_appears_and_goes_away_is_recorded_both_times() -> None:
    stage = Stage()
    stage.minute()
    stage.flip("flow/support/auto_reply", "off")
    stage.minute()
    stage.history.delete("flow/support/auto_reply")
    assert stage.minute() == 0
    assert stage.minute() == 1
    assert stage.minute() == 0
    assert [each.reason for each in stage.of("flow/support/auto_reply")] == ["first seen", "deleted"]


def test_one_switch_without_a_history_does_not_keep_the_others_out_and_the_minute_fails() -> None:
    stage = Stage()
    stage.minute()
    stage.flip("auto_reply", "off")
    stage.flip("mode", "manual")
    stage.history.unreadable.add("auto_reply")
    with pytest.raises(ExceptionGroup):
        stage.minute()
    assert len(stage.of("mode")) == 2
    assert len(stage.of("auto_reply")) == 1
    stage.history.unreadable.clear()
    assert stage.minute() == 1
    assert len(stage.of("mode")) == 2


def test_two_evaluators_at_once_write_each_change_once() -> None:
    stage = Stage()
    other = stage.evaluator()
    stage.minute()
    other({}, None)
    stage.flip("replay", "off")
    stage.minute()
    other({}, None)
    stage.minute()
    assert len(stage.of("replay")) == 2


def test_a_mark_that_another_run_moved_is_read_again() -> None:
    stage = Stage()
    stage.minute()
    other = stage.evaluator()
    stage.flip("replay", "off")
    other({}, None)
    assert stage.minute() == 1  # found again, under the same id
    assert len(stage.of("replay")) == 2
    stage.flip("replay", "on")
    assert stage.minute() == 1
    assert len(stage.of("replay")) == 3


def test_a_value_that_nobody_can_read_is_counted() -> None:
    stage = Stage()
    stage.flip("mode", "halt")
    stage.minute()
    assert any("switch_values_invalid" in line for line in stage.lines)


def test_how_many_switches_are_thrown_is_told_each_minute() -> None:
    stage = Stage()
    told = []
    for name, value in (("limits/sms", "1.0"), ("auto_reply", "off"), ("mode", "hold"), ("auto_reply", "on")):
        stage.flip(name, value)
        stage.minute()
        told += [line["switches_thrown"] for line in map(json.loads, stage.lines) if "switches_thrown" in line]
        stage.lines.clear()
    assert told == [[0], [1], [2], [1]]


def test_a_minute_that_runs_out_of_time_is_gone_on_with_in_the_next() -> None:
    stage = Stage()

    def slow(op: str) -> None:
        if op == "history.versions":
            stage.clock.advance(30_000)

    stage.tables.faults.on_before = slow
    assert stage.minute() == 2
    stage.tables.faults.on_before = None
    assert stage.minute() == 1
    assert sum(len(stage.of(name)) for name in ("mode", "auto_reply", "replay")) == 3


class _Died(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("error", [_Died(), StorageUnavailable("no answer")])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", range(1, 9))
def test_an_evaluator_that_stops_at_any_step_loses_no_change_and_writes_none_twice(
    step: int, when: str, error: BaseException
) -> None:
    stage = Stage()
    stage.flip("mode", "manual")
    left = [step]

    def stop(_op: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise error

    setattr(stage.tables.faults, f"on_{when}", stop)
    with pytest.raises((_Died, StorageUnavailable, ExceptionGroup)):
        stage.minute()
    setattr(stage.tables.faults, f"on_{when}", None)
    stage.handle = stage.evaluator()
    stage.minute()
    stage.minute()
    assert stage.told("mode") == [("arn:deploy", "live"), ("arn:anna", "manual")]
    assert len(stage.tables.events) == 4


def test_the_record_of_a_change_names_no_tenant_and_no_request() -> None:
    stage = Stage()
    stage.minute()
    event: Any = stage.of("mode")[0]
    assert (event.tenant, event.request_id, event.entity) == ("", "", "switch#mode")


# --------------------------------------------------------------------------------------------------------------- health


def test_an_outage_is_seen_through_the_evaluator_to_the_minute() -> None:
    """000.22, 000.23"""
    stage = Stage()
    moves = [(at, stage.health()) for at in range(80) if stage.calls(BAD if 30 <= at < 60 else WELL)]
    assert moves == [(39, Health.DEGRADED), (74, Health.HEALTHY)]
    events = [event for event in stage.tables.events if event.event_type is AuditType.HEALTH_CHANGED]
    assert [json.loads(event.after_state)["health"] for event in events] == ["degraded", "healthy"]
    assert stage.health("llm") is Health.HEALTHY


def test_an_evaluator_that_was_away_makes_up_for_the_minutes_it_missed() -> None:
    """000.22: with the moments at which it would have happened."""
    stage = Stage()
    stage.calls(WELL)
    first = minute_of(stage.clock.now, 1.0)
    for at in range(12):
        FakeHealthCounts(stage.tables).add(first + at, {"desk": BAD}, stage.clock.now)
    stage.clock.advance(12 * 60_000)
    assert stage.handle({}, None)["health_changes"] == 1
    (event,) = [event for event in stage.tables.events if event.affected_id == "desk"]
    assert event.at_ms == (first + 10) * 60_000


def test_a_tick_right_after_a_minutes_end_waits_for_its_last_counts() -> None:
    stage = Stage()
    stage.clock.now = NOON_MS + 4_999
    stage.handle({}, None)
    first = FakeHealthRecords(stage.tables).read(["desk"])["desk"].minute
    stage.clock.advance(1)
    stage.handle({}, None)
    assert FakeHealthRecords(stage.tables).read(["desk"])["desk"].minute == first + 1


def test_each_duty_is_on_its_own_and_what_failed_is_seen_at_the_end() -> None:
    stage = Stage()
    stage.minute()
    stage.flip("mode", "manual")
    stage.tables.faults.fail("health.read")
    with pytest.raises(ExceptionGroup):
        stage.minute()
    assert stage.told("mode")[-1] == ("arn:anna", "manual")
    stage.tables.faults.fail("history.latest")
    with pytest.raises(ExceptionGroup):
        stage.calls(DEAD)
    assert stage.tables.counts
    assert FakeHealthRecords(stage.tables).read(["desk"])["desk"].collapsed == 1


@pytest.mark.parametrize("operation", ["health.read", "returns.read", "history.latest", "expectations.read"])
def test_a_duty_that_cannot_begin_is_counted_and_so_is_told_of(operation: str) -> None:
    """The alarm `evaluator-failing` watches that count: nothing else tells that health or silence goes unwatched."""
    stage = Stage()
    stage.minute()
    stage.lines.clear()
    stage.clock.advance(300_000)
    stage.tables.faults.fail(operation)
    with pytest.raises(ExceptionGroup):
        stage.minute()
    assert sum(line.get("duties_failed", [0])[0] for line in map(json.loads, stage.lines)) == 1


def test_one_integrations_trouble_keeps_no_other_from_being_judged() -> None:
    stage = Stage()
    stage.minute()
    stage.tables.faults.fail("counts.read")
    with pytest.raises(ExceptionGroup):
        stage.calls(Counts(error=10, unreachable=10), "llm")
    assert stage.health("llm") is Health.HARD_DOWN
    assert any("duties_failed" in line for line in stage.lines)


@pytest.mark.parametrize("lost", [True, False])
def test_a_record_that_was_changed_meanwhile_is_read_and_judged_again(lost: bool) -> None:
    stage = Stage()
    stage.minute()
    records = FakeHealthRecords(stage.tables)

    def operator(op: str) -> None:
        if op == "health.store":
            stage.tables.faults.on_before = None
            seen = records.read(["desk"])["desk"]
            until_ms = stage.clock.now + 600_000
            records.store(
                "desk", force("desk", seen, Health.HEALTHY, until_ms, actor="a", reason="r", now_ms=stage.clock.now)
            )
            if lost:
                raise VersionConflict("meanwhile")

    stage.tables.faults.on_before = operator
    assert stage.calls(Counts(error=10, unreachable=10)) == 1
    record = records.read(["desk"])["desk"]
    assert (record.health, record.override) == (Health.HARD_DOWN, Health.HEALTHY)


def test_a_record_that_somebody_changes_again_and_again_is_left_to_the_next_minute() -> None:
    stage = Stage()
    stage.minute()
    stage.tables.faults.fail("health.store", VersionConflict("again"), times=3)
    assert stage.calls(Counts(error=10, unreachable=10)) == 0
    assert stage.calls(WELL) == 1  # the minute that was missed is judged with the next
    assert stage.health() is Health.HARD_DOWN


def test_an_override_ends_by_itself_and_the_audit_has_both_ends() -> None:
    """000.32"""
    stage = Stage()
    stage.minute()
    records = FakeHealthRecords(stage.tables)
    change = force(
        "desk",
        records.read(["desk"])["desk"],
        Health.HARD_DOWN,
        stage.clock.now + 90_000,
        actor="anna",
        reason="their maintenance",
        now_ms=stage.clock.now,
    )
    records.store("desk", change)
    stage.minute()
    assert records.read(["desk"])["desk"].override is Health.HARD_DOWN
    stage.minute()
    assert records.read(["desk"])["desk"].override is None
    events = [event for event in stage.tables.events if event.affected_id == "desk"]
    assert [(event.actor, event.reason) for event in events] == [
        ("anna", "their maintenance"),
        ("holdfast", "its time was over"),
    ]


def test_the_evaluator_says_that_it_came_to_its_end_also_where_a_duty_failed() -> None:
    """002.9: silence is the alarm."""
    stage = Stage()

    def beats() -> int:
        found = sum("heartbeat" in line for line in stage.lines)
        stage.lines.clear()
        return found

    stage.minute()
    assert beats() == 1

    def no_history(operation: str) -> None:
        if operation.startswith("history"):
            raise StorageUnavailable("the parameter store does not answer")

    stage.tables.faults.on_before = no_history
    with pytest.raises(ExceptionGroup):
        stage.minute()
    assert beats() == 1


def test_degraded_integrations_are_a_number_and_those_that_a_person_spoke_of_are_not_in_it() -> None:
    stage = Stage()

    def degraded() -> float:
        found = [json.loads(line) for line in stage.lines if "integrations_degraded" in line]
        stage.lines.clear()
        return float(found[-1]["integrations_degraded"][0])

    for _ in range(12):
        stage.calls(BAD)
    assert stage.health() is Health.DEGRADED
    assert degraded() == 1
    records = FakeHealthRecords(stage.tables)
    now_ms, seen = stage.clock.now, records.read(["desk"])["desk"]
    forced = force("desk", seen, Health.HEALTHY, now_ms + 600_000, actor="ada", reason="ours", now_ms=now_ms)
    records.store("desk", forced)
    stage.calls(BAD)
    assert degraded() == 0


def test_an_integration_that_is_down_is_a_number_that_an_alarm_can_watch() -> None:
    """003.25"""
    stage = Stage()

    def down() -> list[float]:
        lines = [json.loads(line) for line in stage.lines]
        stage.lines.clear()
        return [line["integrations_down"][0] for line in lines if "integrations_down" in line]

    stage.minute()
    assert down() == [0]
    stage.calls(Counts(error=10, unreachable=10))
    assert down() == [1]
    records = FakeHealthRecords(stage.tables)
    seen = records.read(["desk"])["desk"]
    records.store(
        "desk",
        force("desk", seen, Health.HARD_DOWN, stage.clock.now + 600_000, actor="a", reason="r", now_ms=stage.clock.now),
    )
    stage.minute()
    assert down() == [0]  # a person has it in hand


def test_what_the_gauges_say_of_each_integration() -> None:
    """000.5"""
    stage = Stage()
    stage.calls(Counts(error=10, unreachable=10))
    levels = {
        line["integration"]: line["health_level"][0] for line in map(json.loads, stage.lines) if "health_level" in line
    }
    assert levels == {"desk": 2, "llm": 0}
    changes = [json.loads(line) for line in stage.lines if "health_changes" in line]
    assert [(line["integration"], line["outcome"], line["reason"]) for line in changes] == [
        ("desk", "hard_down", "unreachable")
    ]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", range(1, 7))
def test_an_evaluator_that_dies_at_any_step_judges_each_minute_once(step: int, when: str) -> None:
    stage = Stage()
    for _ in range(2):
        stage.calls(DEAD)
    FakeHealthCounts(stage.tables).add(minute_of(stage.clock.now, 1.0), {"desk": DEAD}, stage.clock.now)
    stage.clock.advance(60_000)
    left = [step]

    def die(_op: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise _Died

    setattr(stage.tables.faults, f"on_{when}", die)
    with pytest.raises(_Died):
        stage.handle({}, None)
    setattr(stage.tables.faults, f"on_{when}", None)
    stage.handle = stage.evaluator()
    stage.handle({}, None)
    stage.calls(WELL)
    events = [event for event in stage.tables.events if event.affected_id == "desk"]
    assert [json.loads(event.after_state)["health"] for event in events] == ["hard_down"]


# ------------------------------------------------------------------------------------ switches that are set for a time

WHY = "ada: wrong answers"


def set_for_a_minute(stage: Stage, name: str = "auto_reply", **fields: Any) -> Return:
    """As the operator API does it: the promise, then the switch."""
    before = stage.history.latest()[name]
    promise = replace(
        Return(
            return_id=f"promise-{name}-{before.version}",
            name=name,
            value="off",
            version=before.version + 1,
            back_to=before.value,
            until_ms=stage.clock.now_ms() + 60_000,
            actor="ada",
            reason="wrong answers",
            description=WHY,
            request_id="request-1",
        ),
        **fields,
    )
    known = stage.returns.read()
    stage.returns.store(ReturnsChange(known, Returns((*known.promises, promise), known.version + 1)))
    stage.history.write(name, promise.value, "the API's role", WHY)
    return promise


def back(stage: Stage) -> int:
    stage.clock.advance(60_000)
    return stage.handle({}, None)["returned"]


def values(stage: Stage, name: str = "auto_reply") -> list[str]:
    return [one.value for one in stage.history.versions(name)]


def test_a_switch_that_was_set_for_a_time_is_set_back_once_and_the_audit_says_why() -> None:
    stage = Stage()
    stage.minute()
    promise = set_for_a_minute(stage)
    assert stage.handle({}, None)["returned"] == 0
    assert values(stage) == ["on", "off"]
    assert back(stage) == 1
    assert values(stage) == ["on", "off", "on"]
    assert stage.returns.stored.promises == ()
    (event,) = [event for event in stage.tables.events if event.actor == "holdfast"]
    assert (event.event_type, event.entity) == (AuditType.SWITCH_CHANGED, "switch#auto_reply")
    assert (event.origin_request_id, json.loads(event.after_state)) == (promise.request_id, {"value": "on"})
    assert "ada said: wrong answers" in event.reason
    assert stage.history.versions("auto_reply")[-1].reason.startswith("holdfast: ")
    assert back(stage) == 0


def test_what_a_person_has_set_since_stays() -> None:
    stage = Stage()
    set_for_a_minute(stage)
    stage.history.write("auto_reply", "off", "bert", "bert: for good")
    assert back(stage) == 0
    assert (values(stage), stage.returns.stored.promises) == (["on", "off", "off"], ())


def test_a_promise_whose_switch_never_moved_is_not_kept_to_who_set_it_so_by_hand() -> None:
    stage = Stage()
    set_for_a_minute(stage, description="somebody else: why")
    assert back(stage) == 0
    assert (values(stage), stage.returns.stored.promises) == (["on", "off"], ())


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("operation", ["audit.append", "switch.put", "returns.store"])
def test_whoever_dies_on_the_way_sets_it_back_once(operation: str, when: str) -> None:
    stage = Stage()
    stage.minute()
    set_for_a_minute(stage)
    stage.clock.advance(60_000)
    stage.tables.faults.fail(operation, StorageUnavailable("died"), when=when)
    with pytest.raises(ExceptionGroup):
        stage.handle({}, None)
    stage.handle = stage.evaluator()
    back(stage)
    assert values(stage) == ["on", "off", "on"]
    assert stage.returns.stored.promises == ()
    assert len([event for event in stage.tables.events if event.actor == "holdfast"]) == 1


def test_a_promise_that_another_came_between_is_dropped_a_minute_later() -> None:
    stage = Stage()
    set_for_a_minute(stage)
    stage.tables.faults.fail("returns.store", VersionConflict("moved"))
    assert back(stage) == 1
    assert len(stage.returns.stored.promises) == 1
    assert back(stage) == 0
    assert values(stage) == ["on", "off", "on"]
    assert not stage.returns.stored.promises


def test_one_switch_whose_history_cannot_be_read_keeps_no_other_from_its_return() -> None:
    stage = Stage()
    set_for_a_minute(stage)
    set_for_a_minute(stage, "replay")
    stage.history.unreadable.add("auto_reply")
    stage.clock.advance(60_000)
    with pytest.raises(ExceptionGroup):
        stage.handle({}, None)
    assert (values(stage, "replay"), [one.name for one in stage.returns.stored.promises]) == (
        ["on", "off", "on"],
        ["auto_reply"],
    )
    stage.history.unreadable.clear()
    assert back(stage) == 1


def test_what_somebody_sets_in_the_very_moment_of_the_return_holds() -> None:
    stage = Stage()
    set_for_a_minute(stage)
    meant = [True]

    def between(operation: str) -> None:
        if operation == "switch.put" and meant:
            meant.pop()
            stage.history.write("auto_reply", "off", "bert", "bert: for good")

    stage.tables.faults.on_before = between
    assert back(stage) == 1
    assert values(stage) == ["on", "off", "off", "on", "off"]
    assert "put back: bert: for good" in stage.history.versions("auto_reply")[-1].reason
