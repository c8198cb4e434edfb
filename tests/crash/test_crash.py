"""Whatever dies, is lost, comes twice, comes late or is changed by people: nothing is lost, nothing happens twice,
nothing is silent (000.28, 002.19, 002.33, 003.1, 004.7, 004.16).

What `make crash` plays a million times over is played here some 20,000 times at random; and each life with every single
fault, the short ones, of every kind of action, with every two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from functions.core.failure import Failure, NetworkCause, failure_of_network
from tests.crash.__main__ import SHARES, draw, exhaust, main
from tests.crash.explore import KINDS, LONG, WIDER, Violation, exhaustive, judged, violation
from tests.crash.loop import Runner, Stuck
from tests.crash.schedule import Schedule, drawn
from tests.crash.world import SCENARIOS

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

CHUNKS, CHUNK = 10, 2_000


@pytest.fixture
def runner() -> Iterator[Runner]:
    with Runner() as runner:
        yield runner


@pytest.mark.parametrize("scenario", KINDS)
def test_no_promise_is_broken_by_any_two_faults(scenario: str, proved: Callable[[str], None]) -> None:
    number = 0
    for share in range(SHARES):
        _, played, broken = exhaust((scenario, share, 2))
        assert not broken, broken
        number += played
    proved(f"crash, every one or two faults at any boundary, {scenario}: {number:,} schedules, 0 broken")
    assert number > 1_000


@pytest.mark.parametrize("scenario", WIDER)
def test_no_promise_is_broken_by_a_share_of_all_two_faults(scenario: str, proved: Callable[[str], None]) -> None:
    """Another share for each life, so that what they have in common is met in different places."""
    _, played, broken = exhaust((scenario, WIDER.index(scenario) % SHARES, 2))
    assert not broken, broken
    proved(f"crash, a {SHARES}th of one or two faults at any boundary, {scenario}: {played:,} schedules, 0 broken")
    assert played > 100


@pytest.mark.parametrize("scenario", [*WIDER, *LONG])
def test_no_promise_is_broken_by_any_fault_in_a_long_life(
    scenario: str, runner: Runner, proved: Callable[[str], None]
) -> None:
    found = list(exhaustive(scenario, runner, most=1))
    broken = [one.said() for one in found if one is not None]
    assert not broken, broken[0]
    proved(f"crash, every fault at any boundary, {scenario}: {len(found):,} schedules, 0 broken")
    assert len(found) > 50


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_promise_is_broken_by_chance(chunk: int, proved: Callable[[str], None]) -> None:
    _, played, broken = draw(chunk * CHUNK, CHUNK)
    assert not broken, broken
    proved(f"crash, random, part {chunk}: {played:,} schedules, 0 broken")


def test_a_schedule_is_played_to_the_letter_again(runner: Runner) -> None:
    for seed in range(20):
        schedule = drawn(seed, tuple(SCENARIOS))
        again = Schedule.from_json(schedule.to_json())
        assert again == schedule
        first, _ = judged(schedule, runner)
        second, _ = judged(again, runner)
        assert first.trace == second.trace
        assert first.side.effects == second.side.effects


def test_what_breaks_a_promise_is_shrunk_to_what_it_takes(monkeypatch: pytest.MonkeyPatch, runner: Runner) -> None:
    """An adapter that takes a lost answer for "nothing happened"."""

    def definite(_cause: NetworkCause) -> Failure:
        return failure_of_network(NetworkCause.CONNECT_REFUSED)

    monkeypatch.setattr("tests.crash.providers.failure_of_network", definite)
    clean, _ = judged(Schedule("lookup"), runner)
    sends = clean.names.index("send.note")
    schedule = Schedule(
        "lookup",
        workers=3,
        faults=((sends, "dropped_answer"), (sends + 40, "lost_answer")),
        acts=((70_000, "deliver_again"),),
    )
    found = violation(schedule, runner)
    assert isinstance(found, Violation)
    assert [fault for _, fault in found.schedule.faults] == ["dropped_answer"]
    assert found.schedule.acts == ()
    assert "happened 2 times" in found.said()
    assert f"--replay '{found.schedule.to_json()}'" in found.said()


def test_the_command_says_what_it_played(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--schedules", "20", "--jobs", "1", "--no-exhaustive"]) == 0
    assert "20 schedules in" in capsys.readouterr().out
    assert main(["--replay", '{"scenario":"blind","faults":[[6,"die_after"]]}']) == 0
    assert "die_after" in capsys.readouterr().out


def test_the_loop_says_when_it_is_stuck(runner: Runner) -> None:
    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck):
        runner.run(waits_for_ever())
