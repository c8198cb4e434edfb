"""The doubles' own promises beyond the ports': faults before and after an operation."""

from __future__ import annotations

import pytest

from functions.core.failure import StorageUnavailable
from tests.fakes import NOON_MS, FakeAudit, FakeClock, FakeIds, FakeLedger, FakeRandom, FakeTables, Faults


class Crashed(BaseException):
    """The process is gone."""


def test_an_operation_that_fails_before_its_work_has_done_nothing() -> None:
    ledger = FakeLedger(FakeTables())
    ledger.faults.fail("ledger.pause", times=2)
    for _ in range(2):
        with pytest.raises(StorageUnavailable):
            ledger.pause("helpdesk", 9)
    assert ledger.tables.integrations == {}
    ledger.pause("helpdesk", 9)
    assert ledger.tables.integrations["helpdesk"].paused_until_ms == 9


def test_an_operation_whose_answer_is_lost_has_done_its_work() -> None:
    ledger = FakeLedger(FakeTables())
    ledger.faults.fail("ledger.pause", when="after")
    with pytest.raises(StorageUnavailable):
        ledger.pause("helpdesk", 9)
    assert ledger.tables.integrations["helpdesk"].paused_until_ms == 9


def test_hooks_see_every_operation_and_may_end_the_process_on_either_side_of_it() -> None:
    seen: list[str] = []

    def die_after(op: str) -> None:
        seen.append(f"after {op}")
        raise Crashed

    tables = FakeTables(faults=Faults(lambda op: seen.append(f"before {op}"), die_after))
    with pytest.raises(Crashed):
        FakeAudit(tables).append([])
    assert seen == ["before audit.append", "after audit.append"]
    assert tables.faults.calls == ["audit.append"]


def test_time_chance_and_ids_are_what_they_are_told_to_be() -> None:
    clock, ids = FakeClock(), FakeIds()
    clock.advance(5)
    assert clock.now_ms() == NOON_MS + 5
    assert [FakeRandom(share).uniform(2, 4) for share in (0.0, 0.5, 1.0)] == [2, 3, 4]
    made = [ids.new_id() for _ in range(3)]
    assert len(set(made)) == 3
    assert all(len(one) == 32 for one in made)
