"""A worker or sweeper that dies between any two steps of a fallback: nobody is told by two channels, nothing is lost.

As in `test_worker_crashes`: the clean run tells how many steps there are, then every step is a place to die once,
before and after its work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from functions.core.failure import Failure, NetworkCause, failure_of_network, failure_of_status
from functions.core.gate import Health
from tests.channels_world import BY_HAND, EMAIL, ChannelsWorld, always
from tests.worker_world import crashes_at

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

REFUSED = failure_of_network(NetworkCause.CONNECT_REFUSED)
RESET = failure_of_network(NetworkCause.RESET)
HTTP_503 = failure_of_status(503)


def answering(email: Failure, times: int = 1_000_000, sms: Failure | None = None) -> Callable[[ChannelsWorld], None]:
    def setup(world: ChannelsWorld) -> None:
        world.others["email"].answers.append(always(email, times))
        if sms is not None:
            world.others["sms"].answers.append(always(sms, 2))

    return setup


def without_acting(world: ChannelsWorld) -> None:
    answering(HTTP_503)(world)
    world.others["email"].acts_on_failure = False


def degraded(world: ChannelsWorld) -> None:
    world.health(email=Health.DEGRADED)


def degraded_and_lost(world: ChannelsWorld) -> None:
    degraded(world)
    world.others["sms"].answers.append(always(RESET, 1))


def down(world: ChannelsWorld) -> None:
    world.event_name = "packet.ready"
    world.health(email=Health.HARD_DOWN)


def down_and_alone(world: ChannelsWorld) -> None:
    down(world)
    world.actions = (EMAIL, BY_HAND)
    world.consents_to("email")


def goes_down(world: ChannelsWorld) -> None:
    """After the first attempt."""
    world.event_name = "packet.ready"
    world.others["email"].answers.append(always(REFUSED))
    seen: list[str] = []

    def on_settle(op: str) -> None:
        if op == "ledger.settle" and not seen:
            seen.append(op)
            world.health(email=Health.HARD_DOWN)

    world.on_any_after = on_settle


SCENARIOS: dict[str, Callable[[ChannelsWorld], None]] = {
    "refused until the other channel": answering(REFUSED),
    "refused, and the other channel twice": answering(REFUSED, sms=REFUSED),
    "refused, and the other channel's answer lost": answering(REFUSED, sms=RESET),
    "answer lost": answering(RESET, 1),
    "503 without effect until it is verified": without_acting,
    "degraded": degraded,
    "degraded, other channel's answer lost": degraded_and_lost,
    "down, must arrive": down,
    "down, must arrive, nothing left": down_and_alone,
    "goes down, must arrive": goes_down,
}


def made(setup: Callable[[ChannelsWorld], None]) -> ChannelsWorld:
    world = ChannelsWorld()
    setup(world)
    return world


def run_out(world: ChannelsWorld) -> None:
    """To the end. What a death left unknown waits for its channel, which is well again then."""
    try:
        world.run_until_quiet(hours=0.15)
    except AssertionError:
        world.health(email=Health.HEALTHY)
        world.run_until_quiet()


def die_at(world: ChannelsWorld, position: int, *, after: bool) -> None:
    """Once, at that step; whatever the scenario does at a step is done before."""
    scenario = world.on_any_after
    world.faults.on_before, on_after, _ = crashes_at(position, after=after)

    def then(op: str) -> None:
        scenario(op)
        on_after(op)

    world.faults.on_after = then


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_death_at_any_step_tells_nobody_twice_and_loses_nothing(name: str, proved: Callable[[str], None]) -> None:
    """000.8, 000.10, 001.49"""
    setup = SCENARIOS[name]
    clean = made(setup)
    die_at(clean, 0, after=False)
    event = clean.begin()
    run_out(clean)
    clean.check_told_once(event)
    steps, deaths = len(clean.faults.calls), 0
    for position in range(1, steps + 1):
        for after in (False, True):
            world = made(setup)
            die_at(world, position, after=after)
            event = world.begin()
            try:
                run_out(world)
                world.check_told_once(event)
            except AssertionError as broken:
                raise AssertionError(
                    f"{name}: died {'after' if after else 'before'} step {position}: {broken}"
                ) from broken
            deaths += world.deaths
    proved(f"fallback, {name}: {deaths} deaths at {steps} steps, nobody told twice, nothing lost")
    assert deaths >= steps


@pytest.mark.parametrize("health", [Health.DEGRADED, Health.HARD_DOWN])
def test_a_death_at_any_step_while_the_health_changes_back_takes_no_hop_back(health: Health) -> None:
    """The channel is well again at each death: whoever takes over still goes on from the stored hop."""
    probe = ChannelsWorld(event_name="packet.ready")
    probe.health(email=health)
    probe.begin()
    probe.run_until_quiet()
    for position in range(1, len(probe.faults.calls) + 1):
        for after in (False, True):
            world = ChannelsWorld(event_name="packet.ready")
            world.health(email=health)
            world.faults.on_before, world.faults.on_after, _ = crashes_at(position, after=after)
            event = world.begin()
            world.deliver()
            key = f"E#{event.tenant}#{event.event_id}"
            stored = world.tables.ledger[key].actions["tell"].hop if key in world.tables.ledger else 0
            world.health(email=Health.HEALTHY)
            world.run_until_quiet()
            world.check_told_once(event)
            assert world.mark(event).hop >= stored
            assert not stored or world.others["email"].asked == 0


def test_the_person_s_other_channel_is_no_way_once_they_have_opted_out() -> None:
    world = ChannelsWorld()
    world.others["email"].answers.append(always(REFUSED))
    world.person = replace(world.person, opted_out=True)
    event = world.begin()
    world.run_until_quiet()
    assert world.told(event) == {}
