"""The control item of the evaluator: the double and the table keep the same promises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from functions.adapters.control import SWITCHES_KEY, DynamoSwitchMarks
from functions.core import ports
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.ports import AuditedSwitch, AuditedSwitches
from tests import aws_tables
from tests.control_fakes import FakeSwitchMarks
from tests.fakes import NOON_MS

MARK = AuditedSwitch(3, "off", NOON_MS)


@dataclass
class Control:
    marks: ports.SwitchMarks


@pytest.fixture(params=["memory", "dynamodb"])
def control(request: pytest.FixtureRequest) -> Iterator[Control]:
    """An empty control table."""
    if request.param == "memory":
        yield Control(FakeSwitchMarks())
        return
    with aws_tables.moto_tables() as client:
        yield Control(DynamoSwitchMarks(client, aws_tables.CONTROL))


def test_nothing_is_marked_at_first(control: Control) -> None:
    assert control.marks.read() == AuditedSwitches(0, {})


def test_marks_are_read_back_as_they_were_stored(control: Control) -> None:
    switches = {"auto_reply": MARK, "flow/support/auto_reply": replace(MARK, missing_since_ms=NOON_MS + 5)}
    stored = control.marks.store(0, switches)
    assert stored == AuditedSwitches(1, switches)
    assert control.marks.read() == stored
    assert control.marks.store(1, {}) == control.marks.read() == AuditedSwitches(2, {})


def test_of_two_runs_that_saw_the_same_marks_one_may_replace_them(control: Control) -> None:
    control.marks.store(0, {"mode": MARK})
    with pytest.raises(VersionConflict):
        control.marks.store(0, {})
    control.marks.store(1, {"replay": MARK})
    with pytest.raises(VersionConflict):
        control.marks.store(1, {})
    assert control.marks.read() == AuditedSwitches(2, {"replay": MARK})


def test_marks_that_are_not_there_have_no_revision_but_the_first(control: Control) -> None:
    with pytest.raises(VersionConflict):
        control.marks.store(3, {"mode": MARK})
    assert control.marks.read() == AuditedSwitches()


def test_an_item_that_cannot_be_read_is_trouble_and_not_an_empty_one() -> None:
    with aws_tables.moto_tables() as client:
        client.put_item(TableName=aws_tables.CONTROL, Item={"pk": {"S": SWITCHES_KEY}, "switches": {"S": "[]"}})
        with pytest.raises(StorageUnavailable):
            DynamoSwitchMarks(client, aws_tables.CONTROL).read()


def test_a_table_that_is_not_there_is_trouble() -> None:
    with aws_tables.moto_tables() as client, pytest.raises(StorageUnavailable):
        DynamoSwitchMarks(client, "nowhere").store(0, {})
