"""Minute by minute, every change of a switch reaches the audit once."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from functions import observability
from functions.core.audit import AuditEvent
from functions.core.failure import StorageUnavailable
from functions.evaluator.handler import Handler, build
from functions.evaluator.settings import EvaluatorSettings
from tests.control_fakes import FakeSwitchHistory, FakeSwitchMarks
from tests.fakes import FakeAudit, FakeClock, FakeTables

SETTINGS = EvaluatorSettings(
    stage="test",
    audit_table="audit",
    control_table="control",
    switches_path="/holdfast/test/switches",
    timeout_seconds=50,
)


class Stage:
    def __init__(self) -> None:
        self.tables = FakeTables()
        self.clock = FakeClock()
        self.history = FakeSwitchHistory(self.clock, self.tables.faults)
        self.marks = FakeSwitchMarks(self.tables.faults)
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
            audit=FakeAudit(self.tables),
            clock=self.clock,
            log=observability.logger("evaluator-test", stream=io.StringIO()),
            metrics=observability.metrics("evaluator", "test", self.lines.append),
        )

    def minute(self) -> int:
        self.clock.advance(60_000)
        return self.handle({}, None)["changes"]

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


def test_a_quiet_minute_costs_one_listing() -> None:
    stage = Stage()
    stage.minute()
    stage.tables.faults.calls.clear()
    stage.minute()
    assert stage.tables.faults.calls == ["history.latest"]


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
