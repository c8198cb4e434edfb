"""An event loop whose time is its own: it waits for nothing, and where nothing can run it jumps to the next timer.

Everything of asyncio works on it (tasks, timeouts, `gather`), deterministically: the same coroutines in the same order
give the same run.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Self, TypeVar

_R = TypeVar("_R")


class Stuck(Exception):
    """Somebody waits for what will never come."""


class Turn:
    """What runs once: `asyncio.Handle` and `asyncio.TimerHandle` in one, with what tasks and timeouts ask of them."""

    __slots__ = ("_args", "_callback", "_cancelled", "_context", "_when")

    def __init__(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> None:
        self._when = when
        self._callback = callback
        self._args = args
        self._context = copy_context() if context is None else context
        self._cancelled = False

    def cancel(self) -> None:
        """It does not run. It is dropped when its time comes."""
        self._cancelled = True

    def cancelled(self) -> bool:
        """Whether it will not run."""
        return self._cancelled

    def when(self) -> float:
        """The virtual second it is for."""
        return self._when


class VirtualLoop(asyncio.BaseEventLoop):
    """`time()` is in seconds and begins at 0. There are no sockets here, no threads and no signals.

    The base class keeps what can run in `_ready` and asks `_run_once` for a turn. Turns and timers of our own know that
    nothing comes from outside; a million runs have a hundred of each. Of timers for the same moment the first set is
    the first to run.
    """

    _ready: Any

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self.now_ms = 0
        """Virtual milliseconds, to the nearest."""
        self._timers: list[tuple[float, int, Turn]] = []
        self._set = 0

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def rewind(self) -> None:
        """Back to 0, for the next run. Timers of the last one are forgotten."""
        self._timers.clear()
        self._ready.clear()
        self._now, self.now_ms = 0.0, 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing can run, now or later."""
        return not self._ready and all(turn._cancelled for _, _, turn in self._timers)

    def call_soon(  # type: ignore[override]  # a turn is all that anybody here asks of a handle
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Turn:
        """As the base class, without a look at threads and closed loops."""
        turn = Turn(self._now, callback, args, context)
        self._ready.append(turn)
        return turn

    def call_at(  # type: ignore[override]  # as above
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Turn:
        """As the base class. Timers are compared by their tuple's first two entries."""
        turn = Turn(when, callback, args, context)
        self._set += 1
        heapq.heappush(self._timers, (when, self._set, turn))
        return turn

    def call_later(  # type: ignore[override]  # as above
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Turn:
        """As the base class."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def pass_alone(self, seconds: float) -> bool:
        """Let time pass without a turn of the loop, if nobody else could run meanwhile: the same, and cheaper."""
        over = self._now + seconds
        if self._ready or (self._timers and self._timers[0][0] <= over):
            return False
        self._now, self.now_ms = over, round(over * 1000)
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
        ready, timers = self._ready, self._timers
        while timers and (timers[0][2]._cancelled or timers[0][0] <= self._now):
            self._due(ready, heapq.heappop(timers)[2])
        if not ready and not self._stopping:  # type: ignore[attr-defined]  # set by `stop`
            if not timers:
                raise Stuck("nothing can run, and no timer is set")
            self._now, _, turn = heapq.heappop(timers)
            self.now_ms = round(self._now * 1000)
            self._due(ready, turn)
        for _ in range(len(ready)):
            turn = ready.popleft()
            if not turn._cancelled:  # as `Handle._run` does it; a million runs call it a hundred million times
                turn._context.run(turn._callback, *turn._args)

    def _due(self, ready: Any, turn: Turn) -> None:
        if not turn._cancelled:
            ready.append(turn)

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
