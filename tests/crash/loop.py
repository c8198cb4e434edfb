"""An event loop whose time is its own: it waits for nothing, and where nothing can run it jumps to the next timer.

Everything of asyncio works on it (tasks, timeouts, `gather`), deterministically: the same coroutines in the same order
give the same run.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

_R = TypeVar("_R")


class Stuck(Exception):
    """Somebody waits for what will never come."""


class VirtualLoop(asyncio.BaseEventLoop):
    """`time()` is in seconds and begins at 0. There are no sockets here, no threads and no signals.

    The base class keeps what can run in `_ready` and timers in the heap `_scheduled`, and asks `_run_once` for a turn.
    A turn of our own knows that nothing comes from outside; a million runs have a hundred turns each.
    """

    _now: float = 0.0
    _ready: Any
    _scheduled: list[Any]

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def rewind(self) -> None:
        """Back to 0, for the next run. Timers of the last one are forgotten."""
        self._scheduled.clear()
        self._ready.clear()
        self._now = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether nothing can run, now or later."""
        return not self._ready and all(timer._cancelled for timer in self._scheduled)

    def pass_alone(self, seconds: float) -> bool:
        """Let time pass without a turn of the loop, if nobody else could run meanwhile: the same, and cheaper."""
        if self._ready or (self._scheduled and self._scheduled[0]._when <= self._now + seconds):
            return False
        self._now += seconds
        return True

    async def pause(self, seconds: float) -> None:
        """As `asyncio.sleep`, with half of its steps."""
        over = self.create_future()
        timer = self.call_at(self._now + seconds, _end, over)
        try:
            await over
        except asyncio.CancelledError:
            timer.cancel()
            raise

    def _run_once(self) -> None:
        """One turn: what can run runs; where nothing can, the time until the next timer passes at once."""
        ready, timers = self._ready, self._scheduled
        while timers and (timers[0]._cancelled or timers[0]._when <= self._now):
            self._due(ready, heapq.heappop(timers))
        if not ready and not self._stopping:  # type: ignore[attr-defined]  # set by `stop`
            if not timers:
                raise Stuck("nothing can run, and no timer is set")
            self._now = timers[0]._when
            self._due(ready, heapq.heappop(timers))
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:  # as `Handle._run` does it; a million runs call it a hundred million times
                handle._context.run(handle._callback, *handle._args)

    def _due(self, ready: Any, timer: Any) -> None:
        timer._scheduled = False
        if not timer._cancelled:
            ready.append(timer)

    def _timer_handle_cancelled(self, handle: object) -> None:
        """It is dropped when its time comes."""

    def _process_events(self, event_list: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody calls from another thread."""


def _end(waiting: asyncio.Future[None]) -> None:
    if not waiting.cancelled():
        waiting.set_result(None)


class Runner:
    """Runs coroutines on one virtual loop, one after the other. `left_behind` are the tasks that the last one did not
    see to their end.
    """

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.left_behind = 0

    def run(self, work: Coroutine[Any, Any, _R]) -> _R:
        """From time 0 to its end. What it left behind is cancelled, so that the next run begins clean."""
        self.loop.rewind()
        try:
            return self.loop.run_until_complete(work)
        finally:
            left = () if self.loop.is_idle else asyncio.all_tasks(self.loop)
            self.left_behind = len(left)
            for task in left:
                task.cancel()
            if left:
                self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.close()
