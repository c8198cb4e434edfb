"""How many automatic messages one conversation may get (architecture §6, register 002.17).

Of any sixty minutes, wherever they begin, no more than so many: a fixed clock hour would let twice as many through
around its turn. So the times of the last hour's sends are kept, at most as many as are allowed.

One action counts once, however often it is tried: its time is that of its latest attempt, since at most one of them is
seen. A person's replay is not automatic, and is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from functions.core.event import digest

WINDOW_MS = 3_600_000
# Five: a customer who writes once every twelve minutes for an hour is still answered each time. More than that is a
# conversation that the rules or the LLM do not understand, or two machines answering each other; either is a person's.
DEFAULT_PER_HOUR = 5


@dataclass(frozen=True, slots=True)
class Sends:
    """A conversation's automatic sends of late: when, by action id. `version` is 0 for one without any."""

    times: Mapping[str, int] = field(default_factory=dict)
    version: int = 0


@dataclass(frozen=True, slots=True)
class Counted:
    """It may be sent, and counts as sent at `at_ms`. `is_new`: it did not count before, so that it need not count if it
    is not sent after all.
    """

    at_ms: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class Capped:
    """The conversation has had its share: a person goes on."""


def counted(seen: Sends, action_id: str, now_ms: int, most: int) -> tuple[Sends, Counted] | Capped:
    """The conversation with this send in it, if it may be made now.

    What lies ahead of `now_ms`, by a clock that runs ahead of ours, counts as just sent. Where all that is there is
    what this very call would leave of nothing, it has been made before, and its answer was lost.
    """
    if seen == Sends({action_id: now_ms}, 1):
        return seen, Counted(now_ms, is_new=True)
    recent = {name: at_ms for name, at_ms in seen.times.items() if at_ms > now_ms - WINDOW_MS}
    is_new = action_id not in recent
    if is_new and len(recent) >= most:
        return Capped()
    return Sends({**recent, action_id: now_ms}, seen.version + 1), Counted(now_ms, is_new)


def uncounted(seen: Sends, action_id: str, at_ms: int) -> Sends | None:
    """The conversation without that send, which was not made; None if it is not there, or counts for another attempt
    by now.
    """
    if seen.times.get(action_id) != at_ms:
        return None
    return Sends({name: time for name, time in seen.times.items() if name != action_id}, seen.version + 1)


def conversation_of(tenant: str, target: str, recipient: str) -> str:
    """What a conversation's sends are kept under: the thread, or whom it is with where there is none. Says neither."""
    return digest("conversation", tenant, target or recipient)[:32]
