"""Tests that share what takes long to make run in one process, and those that take long begin first."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling  # type: ignore[import-untyped]  # it has no types

from tests.spread import APART, TOGETHER, Spread, longest_first, unit_of

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", [*APART, *TOGETHER])
def test_what_is_treated_apart_is_there(name: str) -> None:
    """A file that was renamed would go back to one process, and be what all wait for in the end."""
    assert (ROOT / name).exists()
    assert (ROOT / name).is_dir() is name.endswith("/")


@pytest.mark.parametrize(
    ("one", "other", "are_together"),
    [
        ("tests/infra/test_stack.py::test_a[local]", "tests/infra/test_alarms.py::test_b[local-x]", True),
        ("tests/unit/test_clock.py::test_a", "tests/unit/test_clock.py::test_b[x::y]", True),
        ("tests/unit/test_clock.py::test_a", "tests/unit/test_cap.py::test_a", False),
        ("tests/crash/test_crash.py::test_a[1]", "tests/crash/test_crash.py::test_a[2]", False),
    ],
)
def test_files_stay_together_and_so_do_templates_but_not_what_takes_long(
    one: str, other: str, are_together: bool
) -> None:
    assert (unit_of(one) == unit_of(other)) is are_together


def test_what_takes_long_comes_first_and_then_the_files_with_most_tests_each_in_its_order() -> None:
    ids = ["tests/a.py::x", "tests/b.py::y", "tests/b.py::x", f"{APART[0]}::x", "tests/infra/a.py::x"]
    items: list[Any] = [SimpleNamespace(nodeid=nodeid) for nodeid in ids]
    assert [item.nodeid for item in longest_first(items)] == [ids[3], ids[1], ids[2], ids[0], ids[4]]


def test_the_scheduler_asks_for_units_as_it_is_thought_to() -> None:
    """Its method is private: were it called otherwise, every test would be alone again, and nobody would see it."""
    assert Spread._split_scope is not LoadScopeScheduling._split_scope
    assert "_split_scope" in LoadScopeScheduling.schedule.__code__.co_names
    assert "_split_scope" in LoadScopeScheduling.mark_test_complete.__code__.co_names
