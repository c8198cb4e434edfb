"""A process whose calls block, run in step with the loop: while it waits at one of its calls, others get their turn.

Sweeper, triage and replay are such processes. Each has a stack of its own (a greenlet), and never runs while anything
else does: either it goes on, until its next call or its end, or the loop does. So a run is the same each time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import greenlet


class Aside:
    """One of them. Nothing of it runs before the first `step`."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._stack = greenlet.greenlet(work)
        self._loop: greenlet.greenlet | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has come to its end."""
        return bool(self._stack.dead)

    def step(self) -> None:
        """Let it go on until its next `pause`, or its end. Raises what it ended with."""
        self._loop = greenlet.getcurrent()
        self._stack.switch()

    def pause(self) -> None:
        """Others get their turn. Called from within it. Raises what it was given up with."""
        assert self._loop is not None, "only what was begun can pause"
        self._loop.switch()

    def give_up(self, died: BaseException) -> None:
        """The run is over before it is: it ends with that."""
        while not self.is_over:
            self._loop = greenlet.getcurrent()
            with suppress(type(died)):
                self._stack.throw(died)

    def is_current(self) -> bool:
        """Whether it is the one that runs."""
        return greenlet.getcurrent() is self._stack
