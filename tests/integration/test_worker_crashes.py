"""A worker or sweeper that dies between any two steps of the first pass and of recovery (002.33, 002.19, 004.8, 004.9).

The clean run tells how many steps a scenario has; then every step is a place to die once, before and after its work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from functions.core.decision import Action, Repeat
from functions.core.failure import Failure, NetworkCause, failure_of_network, failure_of_status
from functions.core.integration import Rate
from functions.core.recovery import OUTCOME_UNKNOWN, Status
from tests.fakes import FakeLedger
from tests.worker_world import ACTIONS, DESK, Died, World, crashes_at

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

Answer = Callable[[Action], Failure | None]


def healthy(_world: World) -> None:
    """Nothing goes wrong but the death."""


def first(answer: Answer, times: int = 1) -> Callable[[World], None]:
    """Every action's first `times` sends are answered like that."""

    def setup(world: World) -> None:
        left: dict[str, int] = {}

        def once(action: Action) -> Failure | None:
            left[action.name] = left.get(action.name, 0) + 1
            return answer(action) if left[action.name] <= times else None

        world.provider.answers.append(once)

    return setup


def refused(_action: Action) -> Failure | None:
    return failure_of_network(NetworkCause.CONNECT_REFUSED)


def lost_answer(_action: Action) -> Failure | None:
    return failure_of_network(NetworkCause.RESET)


def unavailable(_action: Action) -> Failure | None:
    return failure_of_status(503)


def throttled(_action: Action) -> Failure | None:
    return failure_of_status(429, retry_after_ms=90_000)


def stopped_by_switch(world: World) -> None:
    world.switches.values["auto_reply"] = "off"


def too_large_for_a_queue(world: World) -> None:
    world.is_large = True


def too_large_and_unavailable(world: World) -> None:
    world.is_large = True
    first(unavailable, 2)(world)


def limited(setup: Callable[[World], None], per_second: float, burst: int) -> Callable[[World], None]:
    """Likewise, with a helpdesk that takes so few calls that the event waits: in its queue, or as rows."""

    def limited_too(world: World) -> None:
        setup(world)
        world.integrations[DESK] = replace(world.integrations[DESK], rate=Rate(per_second, burst))
        FakeLedger(world.tables).take(DESK, int(1000 * burst / per_second), world.clock.now, world.clock.now)

    return limited_too


SCENARIOS: dict[str, Callable[[World], None]] = {
    "healthy": healthy,
    "connection refused once": first(refused),
    "answer lost once": first(lost_answer),
    "503 twice": first(unavailable, 2),
    "429 with Retry-After": first(throttled),
    "auto_reply off": stopped_by_switch,
    "claim check": too_large_for_a_queue,
    "claim check and 503 twice": too_large_and_unavailable,
    "a slot in its queue": limited(healthy, 0.1, 9),
    "slots of rows": limited(healthy, 0.01, 9),
    "slots of rows and 503 once": limited(first(unavailable), 0.01, 9),
}


def clean_steps(setup: Callable[[World], None]) -> int:
    world = World()
    setup(world)
    event = world.event()
    world.accept(event)
    world.run_until_quiet()
    world.check_settled(event)
    return len(world.faults.calls)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_death_at_any_step_leaves_one_effect_and_nothing_stuck(name: str, proved: Callable[[str], None]) -> None:
    setup = SCENARIOS[name]
    steps = clean_steps(setup)
    assert steps > 10
    deaths = 0
    for position in range(1, steps + 1):
        for after in (False, True):
            world = World()
            setup(world)
            world.faults.on_before, world.faults.on_after, _ = crashes_at(position, after=after)
            event = world.event()
            world.accept(event, copies=2)
            try:
                world.run_until_quiet()
                world.check_settled(event)
            except AssertionError as broken:
                raise AssertionError(
                    f"{name}: died {'after' if after else 'before'} step {position}: {broken}"
                ) from broken
            deaths += world.deaths
    proved(f"crashes, {name}: {deaths} deaths at {steps} steps, one effect each, nothing lost, nothing stuck")
    assert deaths >= steps  # nearly every step was a death: the sweeper's ticks without work are fewer with two copies


@pytest.mark.parametrize(
    "name", [name for name, action in ACTIONS.items() if action.repeat in (Repeat.KEYED, Repeat.LOOKUP, Repeat.SETTING)]
)
def test_an_action_that_is_not_blind_ends_done_whatever_dies(name: str) -> None:
    names = (name,) if not ACTIONS[name].requires else ("tag", name)
    probe = World(names)
    event = probe.event()
    probe.accept(event)
    probe.run_until_quiet()
    for position in range(1, len(probe.faults.calls) + 1):
        for after in (False, True):
            world = World(names)
            world.faults.on_before, world.faults.on_after, _ = crashes_at(position, after=after)
            world.accept(event)
            world.run_until_quiet()
            world.check_settled(event)
            action = world.decision_of(event).action(name)
            row = world.row_of(action)
            assert world.provider.effects[action.action_id] == 1
            assert row is None or row.status is Status.SUCCEEDED


def test_a_blind_send_that_may_have_happened_waits_for_a_person() -> None:
    world = World(("push",))
    event = world.event()
    world.accept(event)

    def die(op: str) -> None:
        if op == "provider.send.push" and not world.deaths:
            raise Died(op)

    world.faults.on_after = die
    world.run_until_quiet()

    row = world.row_of(world.decision_of(event).action("push"))
    assert row is not None
    assert (row.status, row.failure_code) == (Status.FAILED, OUTCOME_UNKNOWN)
    assert world.provider.effects[world.decision_of(event).action("push").action_id] == 1
