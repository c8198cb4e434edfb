"""The worker's counts, in which alarms and people see what it does."""

from __future__ import annotations

from functions.core.failure import Failure, FailureClass, NetworkCause, failure_of_network
from tests.worker_world import World

_REJECTED = Failure(FailureClass.DATA_ERROR, "HTTP_422", "no such ticket", is_retryable=False, may_have_happened=False)


def test_every_automatic_reply_is_counted_apart_so_that_a_storm_shows() -> None:
    """002.12"""
    world = World(("tag", "reply"))
    for number in range(3):
        world.accept(world.event(f"m-{number}"))
    world.run_until_quiet()
    assert world.quiet.counts["auto_reply_sent"] == 3


def test_a_reply_that_was_not_sent_is_not_counted_as_one() -> None:
    """002.12"""
    world = World(("tag", "reply", "instead"), {**World().switches.values, "auto_reply": "off"})
    world.accept(world.event())
    world.run_until_quiet()
    assert "auto_reply_sent" not in world.quiet.counts
    assert world.quiet.counts["actions_suppressed"] == 1


def test_decisions_and_what_came_of_them_are_counted_so_that_a_gap_shows() -> None:
    """002.32: one decision per event, one success per effect, whatever it took."""
    world = World(("tag", "assign", "push"))
    world.provider.answers.append(
        lambda action: failure_of_network(NetworkCause.CONNECT_REFUSED) if action.name == "tag" else None
    )
    world.accept(world.event())
    world.deliver()
    world.provider.answers.clear()
    world.run_until_quiet()
    assert world.quiet.counts["decisions_made"] == 1
    assert world.quiet.counts["actions_success"] == 3
    assert world.quiet.counts["actions_failed"] == 1


def test_a_decision_that_came_to_nothing_is_a_gap_in_the_counts() -> None:
    """002.32"""
    world = World(("tag",))
    world.provider.answers.append(lambda _: _REJECTED)
    world.accept(world.event())
    world.run_until_quiet()
    assert world.quiet.counts["decisions_made"] == 1
    assert "actions_success" not in world.quiet.counts
