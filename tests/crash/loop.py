"""An event loop whose time is its own: it waits for nothing, and where nothing can run it jumps to the next timer.

Everything of asyncio works on it (tasks, timeouts, `gather`), deterministically: the same coroutines in the same order
give the same run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

_R = TypeVar("_R")


class Stuck(Exception):
    """Somebody waits for what will never come."""


class VirtualLoop(asyncio.BaseEventLoop):
    """`time()` is in seconds and begins at 0. There are no sockets here."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = self  # asked for events by the base class, once a turn

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def rewind(self) -> None:
        """Back to 0, for the next run. Timers of the last one are forgotten."""
        self._scheduled.clear()  # type: ignore[attr-defined]  # the base class keeps its timers here
        self._ready.clear()  # type: ignore[attr-defined]  # and here what can run
        self._now = 0.0

    def pass_alone(self, seconds: float) -> bool:
        """Let time pass without a turn of the loop, if nobody else could run meanwhile: the same, and cheaper."""
        if self._ready or (self._scheduled and self._scheduled[0]._when <= self._now + seconds):  # type: ignore[attr-defined]  # the base class keeps them
            return False
        self._now += seconds
        return True

    def select(self, timeout: float | None) -> tuple[()]:
        """Nothing comes from outside: the time until the next timer passes at once."""
        if timeout is None:
            raise Stuck("nothing can run, and no timer is set")
        if timeout > 0:
            self._now += timeout
        return ()

    def _process_events(self, event_list: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody calls from another thread."""


class Runner:
    """Runs coroutines on one virtual loop, one after the other."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()

    def run(self, work: Coroutine[Any, Any, _R]) -> _R:
        """From time 0 to its end. What it left behind is cancelled, so that the next run begins clean."""
        self.loop.rewind()
        try:
            return self.loop.run_until_complete(work)
        finally:
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            if left:
                self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.close()
