"""`python -m tests.crash`: the exhaustive part, then random schedules; ends with 1 at the first broken promise.

--schedules N    how many random ones (default 1,000,000)
--seed S         the first seed; schedule n is drawn from S + n
--jobs J         processes (default: one per core)
--only NAME ...  exhaust these scenarios only
--long           exhaust two faults of the longest lives too, not only one
--no-exhaustive  random ones only
--replay JSON    play one schedule and print how it went
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from functools import partial

from tests.crash.explore import EXHAUSTED, LONG, Violation, exhaustive, judged, random_ones
from tests.crash.loop import Runner
from tests.crash.schedule import Schedule
from tests.crash.world import SCENARIOS, told

CHUNK = 2_000  # random schedules that one process plays before it says how it went
SHARES = 12  # parts of a scenario's exhaustive schedules

Told = tuple[str, int, str]  # what was played, how many schedules, and the first violation in words
_runner: Runner | None = None


def rarely_collecting() -> None:
    """What a run leaves is little, and looked for less often: in a process of its own, which plays nothing else."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(6_000)


def runner() -> Runner:
    """This process's loop, made once."""
    global _runner  # noqa: PLW0603  # one per process, which is what pools give no other place for
    _runner = Runner() if _runner is None else _runner
    return _runner


def _told(name: str, played: Iterator[Violation | None]) -> Told:
    number = 0
    for found in played:
        number += 1
        if found is not None:
            return name, number, found.said()
    return name, number, ""


def exhaust(part: tuple[str, int, int]) -> Told:
    """A share of one scenario's schedules of up to so many faults."""
    scenario, share, most = part
    return _told(
        f"every one of up to {most} fault(s), {scenario}", exhaustive(scenario, runner(), share, SHARES, most=most)
    )


def draw(first: int, count: int) -> Told:
    """Some random schedules."""
    return _told("random", random_ones(range(first, first + count), runner()))


def _drawn(first: int, part: tuple[int, int]) -> Told:
    return draw(first + part[0], part[1])


def main(arguments: list[str]) -> int:
    """See the module."""
    asked = _asked(arguments)
    if asked.replay:
        return _replay(asked.replay)
    began = time.monotonic()
    chunks = [(at, min(CHUNK, asked.schedules - at)) for at in range(0, asked.schedules, CHUNK)]
    scenarios = asked.only or (*EXHAUSTED, *LONG)
    faults = {name: 1 if name in LONG and not (asked.long or asked.only) else 2 for name in scenarios}
    parts = [(name, share, most) for name, most in faults.items() for share in range(SHARES)]
    parts = [] if asked.no_exhaustive else parts
    counted: dict[str, int] = {}
    with multiprocessing.get_context("fork").Pool(asked.jobs, rarely_collecting) as pool:
        for told in (pool.imap_unordered(exhaust, parts), pool.imap_unordered(partial(_drawn, asked.seed), chunks)):
            for name, number, broken in told:
                counted[name] = counted.get(name, 0) + number
                if broken:
                    pool.terminate()
                    print(f"after {sum(counted.values())} schedules:")
                    print(broken)
                    return 1
    for name, number in counted.items():
        print(f"{number:>9,} schedules: {name}")
    seconds = time.monotonic() - began
    print(f"{sum(counted.values()):>9,} schedules in {seconds:.0f} s from seed {asked.seed}: 0 promises broken")
    return 0


def _replay(text: str) -> int:
    world, broken = judged(Schedule.from_json(text), runner())
    for line in world.trace:
        print(told(line))
    for one in broken:
        print(f"BROKEN: {one}")
    return 1 if broken else 0


def _asked(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description="Break the promises, if you can.")
    parser.add_argument("--schedules", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", nargs="*", choices=tuple(SCENARIOS))
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--no-exhaustive", action="store_true")
    parser.add_argument("--replay", default="")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
