"""Schedules to play: all with up to two faults, then random ones; and the smallest that still breaks something."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from tests.crash.invariants import broken_by
from tests.crash.loop import Runner
from tests.crash.schedule import Schedule, drawn, faults_at
from tests.crash.world import World, play, told

KINDS = ("idempotent", "setting", "keyed", "lookup", "blind")
"""One short life for each way in which an action may be repeated: every two faults in it, in every run."""
WIDER = ("parent and child", "reply", "llm", "mail", "mail, degraded", "capped")
"""Every two faults in these are for `make crash`; in every run it is each single fault and a share of the pairs."""
EXHAUSTED = (*KINDS, *WIDER)
LONG = ("limited", "mail, refused", "mail, down, must arrive")
"""Lives with so many steps that two faults in them are for `make crash-long`; one fault is for every run."""

DRAWN = (*EXHAUSTED, *EXHAUSTED, *EXHAUSTED, "everything", *LONG)
"""What random schedules are of: short lives thrice as often as those that take thrice as long."""

_SHRINKS = 400


@dataclass(frozen=True, slots=True)
class Violation:
    """A schedule that broke something, what it broke, and how it went."""

    schedule: Schedule
    broken: tuple[str, ...]
    trace: tuple[str, ...]

    def said(self) -> str:
        """For whoever has to mend it."""
        lines = ["BROKEN", *(f"  {one}" for one in self.broken), "by this run:"]
        lines += [f"  {line}" for line in self.trace]
        lines.append(f"again: python -m tests.crash --replay '{self.schedule.to_json()}'")
        return "\n".join(lines)


def judged(schedule: Schedule, runner: Runner) -> tuple[World, list[str]]:
    """One run and what it broke."""
    world = play(schedule, runner)
    return world, broken_by(world)


def violation(schedule: Schedule, runner: Runner) -> Violation | None:
    """What that schedule breaks, shrunk; None if nothing."""
    _, broken = judged(schedule, runner)
    if not broken:
        return None
    smallest = _shrunk(schedule, broken, runner)
    world, broken = judged(smallest, runner)
    return Violation(smallest, tuple(broken), tuple(map(told, world.trace)))


def _shrunk(schedule: Schedule, broken: list[str], runner: Runner) -> Schedule:
    left = _SHRINKS
    while True:
        for simpler in schedule.simpler():
            left -= 1
            if left < 0:
                return schedule
            if judged(simpler, runner)[1]:
                schedule = simpler
                break
        else:
            return schedule


def exhaustive(
    scenario: str, runner: Runner, share: int = 0, shares: int = 1, *, most: int = 2
) -> Iterator[Violation | None]:
    """Every schedule of one event with one fault or two, each at any boundary; None for one that broke nothing.

    The second is tried at every boundary after the first, in the run which that leads to; with `most` 1 there is none.
    There are two workers, so that one which thaws finds another at its work. `share` of `shares` is a part of them, by
    the place of the first.
    """
    alone = Schedule(scenario, workers=2)
    clean, broken = judged(alone, runner)
    yield violation(alone, runner) if broken else None
    for index, what in enumerate(clean.names):
        if index % shares != share:
            continue
        for fault in faults_at(what):
            first = replace(alone, faults=((index, fault),))
            world, broken = judged(first, runner)
            yield violation(first, runner) if broken else None
            for then in range(index + 1, len(world.names) if most > 1 else 0):
                for second in faults_at(world.names[then]):
                    both = replace(first, faults=((index, fault), (then, second)))
                    _, broken = judged(both, runner)
                    yield violation(both, runner) if broken else None


def random_ones(seeds: Iterable[int], runner: Runner) -> Iterator[Violation | None]:
    """The random schedules of these seeds."""
    for seed in seeds:
        yield violation(drawn(seed, DRAWN), runner)
