"""Deadlines."""

from __future__ import annotations

from functions.core.clock import Deadline, system_monotonic


def test_a_deadline_runs_out_and_then_leaves_nothing() -> None:
    seconds = [100.0]
    deadline = Deadline.after(1.5, lambda: seconds[0])
    assert deadline.remaining_seconds() == 1.5
    seconds[0] = 101.25
    assert deadline.remaining_seconds() == 0.25
    seconds[0] = 900.0
    assert deadline.remaining_seconds() == 0.0


def test_the_machines_monotonic_clock_does_not_step_back() -> None:
    earlier = system_monotonic()
    assert system_monotonic() >= earlier
