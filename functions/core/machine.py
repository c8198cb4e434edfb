"""State machines as tables: what a thing can be, what can happen to it, and what that makes of it.

Each machine of core is a `Machine` in the module that moves it, and that module asks it before a transition is built:
code that asks for one the table does not have gets `IllegalTransition`. `docs/states.md` is made from the same tables.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from functions.core.failure import IllegalTransition

ABSENT = "(none)"  # the state of what is not stored yet


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a table: in that state this happens, and it is the next state then. `what` says what is written."""

    state: str
    event: str
    next: str
    what: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A table with its name. `about` says whose states these are, and where they are stored."""

    name: str
    about: str
    steps: tuple[Step, ...]
    _ways: frozenset[tuple[str, str]] = field(init=False, repr=False, compare=False)
    _lines: frozenset[tuple[str, str, str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ways", frozenset((step.state, step.next) for step in self.steps))
        object.__setattr__(self, "_lines", frozenset((step.state, step.event, step.next) for step in self.steps))

    @property
    def states(self) -> tuple[str, ...]:
        """Every state, in the order in which the table meets them."""
        return tuple(dict.fromkeys(state for step in self.steps for state in (step.state, step.next)))

    def allows(self, before: str, after: str) -> bool:
        """Whether any line leads from one to the other."""
        return (before, after) in self._ways

    def require(self, before: str, after: str, whose: str) -> None:
        """Raise `IllegalTransition` unless a line leads from one to the other."""
        if not self.allows(before, after):
            raise IllegalTransition(f"{whose}: {self.name} has no way from {before!r} to {after!r}")

    def require_line(self, before: str, event: str, after: str, whose: str) -> None:
        """Raise `IllegalTransition` unless that event leads from one to the other, by one line or another."""
        if (before, event, after) not in self._lines:
            raise IllegalTransition(f"{whose}: {self.name} has no way from {before!r} by {event!r} to {after!r}")

    def next(self, state: str, event: str) -> str:
        """The state after that event. Raises `IllegalTransition` where the table has no such line."""
        for step in self.steps:
            if (step.state, step.event) == (state, event):
                return step.next
        raise IllegalTransition(f"{self.name}: {event!r} cannot happen in {state!r}")


def steps(*lines: tuple[str, str, str, str]) -> tuple[Step, ...]:
    """The lines of a table: states that share a line are joined with `|`; `=` stays in the state it was in."""
    return tuple(
        Step(state, event, state if after == "=" else after, what)
        for states, event, after, what in lines
        for state in states.split("|")
    )
