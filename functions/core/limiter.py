"""How often an integration may be called: GCRA with slots (architecture §8). Pure; `ports.Ledger` stores its number.

The number is `tat`, in epoch milliseconds: where the calls that were asked for so far would end if they followed each
other at the rate. Each call moves it on by its `cost`, the time between two calls. A call may be made up to `credit`
before its turn, which is what allows a burst. Whoever asks for n calls moves `tat` on in one write, whether they may be
made now or not: those that may not have a **slot** each, a time of their own from which on they may be made without
another question. So one write grants and reserves, and whoever waits neither polls nor comes in a herd.

A factor makes calls dearer and leaves the credit as it is: with half the rate, half the burst fits into it, and no
change of a factor can bring a burst beyond the new rate's. Slots are given for an hour ahead at most,
at a factor for that part of an hour: what was reserved at a factor near 0 does not long outlast it.

Calls made at their slots are never above `burst + rate x window` in any window of time. A slot that is used late adds
at most its lateness to the window, which is why lateness is bounded (`holds`).

`tat` is as right as the clock of whoever moved it. One that is hours ahead would keep everybody waiting for as long:
what nothing that was reserved can explain is not believed (`is_astray`), and is put right once it has stood still for
a minute. To a clock that is hours behind, the others' number looks the same, but it moves; or nobody has anything to
do, and then it does not matter where it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from functions.core.integration import Rate
from functions.core.machine import Machine, steps

if TYPE_CHECKING:
    from functions.core.gate import IntegrationState

HORIZON_MS = 3600 * 1000  # how far ahead slots are given
FURTHEST_MS = 2 * HORIZON_MS  # where `tat` can be: an hour that is taken, and an hour's calls of one asking behind it
ASTRAY_FOR_MS = 60 * 1000  # how long a `tat` that nothing explains has to stand still before it is put right
LONGEST_COST_MS = 24 * 3600 * 1000  # a factor that asks for less is almost 0, which parks; no number stands for it
GRACE_MS = 60 * 1000  # how late a slot may be used; less than a lease, so that none is used by two owners
PACED_GRACE_MS = 180 * 1000  # likewise of a row, which the sweeper wakes: it comes once a minute
SHORTEST_GRACE_MS = 10 * 1000  # a queue needs some seconds to deliver, however much the waits are shortened
VISIBLE_WAIT_MS = 120 * 1000  # an event whose slot is that near waits in its queue, without a row
PATIENT_RECEIVES = 2  # received more often, an event waits as a row: waiting must never bring it into the DLQ


class Load(StrEnum):
    """What `tat` says of an integration. `idle`: nothing is owed; `busy`: slots are given; `full`: an hour is taken."""

    IDLE = "idle"
    BUSY = "busy"
    FULL = "full"


LIMITER = Machine(
    "limiter",
    "How much of an integration's rate is taken: by `tat` on its control item (0: nobody ever asked), as seen at one "
    "moment. One write asks for the calls of a batch, and moves `tat` on or is refused. `tat` moves back only "
    "from where nothing but a wrong clock can have put it.",
    steps(
        ("idle", "taken", "busy", "`tat` = now + n x cost; those within the credit go now, the others own slots"),
        ("idle", "taken", "full", "Likewise; n x cost is over an hour, which only a factor near 0 can bring"),
        ("busy", "taken", "=", "`tat` + n x cost; those within the credit go now, the others own slots"),
        ("busy", "taken", "full", "Likewise; the last of them may lie more than an hour ahead"),
        ("busy", "refused", "=", "Nothing is reserved: they were to be made now or not at all, and do not fit"),
        ("full", "refused", "=", "Nothing is reserved: ask again when less than an hour is taken"),
        ("idle", "paused", "=", "Stored so late that the pause is over, and nothing has to wait for it"),
        (
            "idle",
            "paused",
            "busy",
            "`tat` = end of the pause + credit: what waits follows at the rate, with no burst",
        ),
        ("idle", "paused", "full", "Likewise; it is about an hour long, or longer"),
        ("busy", "paused", "=", "`tat` = end of the pause + credit, unless it is later; slots before the end are void"),
        ("busy", "paused", "full", "Likewise; it is about an hour long, or longer"),
        ("full", "paused", "=", "`tat` = end of the pause + credit, unless it is later; slots before the end are void"),
        ("full", "put right", "=", "It is hours beyond a pause that is longer than an hour: as after that pause"),
        ("full", "put right", "busy", "It is hours beyond all that was reserved: `tat` = now + credit, with no burst"),
        ("full", "put right", "idle", "Likewise, at a rate that has no burst"),
        ("busy", "time passes", "idle", "`tat` is over: the whole credit is there again"),
        ("full", "time passes", "busy", "Less than an hour is taken: slots are given again"),
        ("full", "time passes", "idle", "Likewise, and nobody looked in between"),
    ),
)


def load_of(tat_ms: int, now_ms: int) -> Load:
    """The state that `tat` stands for (0: nobody ever asked)."""
    if tat_ms <= now_ms:
        return Load.IDLE
    return Load.BUSY if tat_ms <= now_ms + HORIZON_MS else Load.FULL


@dataclass(frozen=True, slots=True)
class Slot:
    """From when on a call may be made. `is_owned`: it is reserved; else that is when to ask again."""

    at_ms: int = 0
    is_owned: bool = True


AT_ONCE = Slot()


@dataclass(frozen=True, slots=True)
class Taken:
    """The calls are reserved, beginning where `tat` was."""

    base_ms: int


@dataclass(frozen=True, slots=True)
class Full:
    """Nothing was reserved, because of where `tat` is."""

    tat_ms: int


@dataclass(frozen=True, slots=True)
class Limit:
    """A rate as the limiter reckons with it. `cost_ms` is the time from one call to the next, `credit_ms` how far ahead
    of its turn a call may be made. Both are whole, so that no sum of them has to be rounded: never above the rate, and
    at some hundred calls a second a little below.
    """

    cost_ms: int
    credit_ms: int

    @staticmethod
    def of(rate: Rate, factor: float = 1.0, scale: float = 1.0) -> Limit:
        """The limit at a factor over 0. Where waits are shortened, what is allowed in a minute is allowed in less."""
        if not factor > 0:
            raise ValueError("at a factor of 0 nothing is called: the gate parks it")
        interval_ms = 1000 * scale / rate.per_second
        credit_ms = max(0.0, rate.burst / scale - 1) * interval_ms
        return Limit(max(1, math.ceil(min(interval_ms / factor, LONGEST_COST_MS))), int(credit_ms))

    def slots(self, base_ms: int, calls: int) -> tuple[int, ...]:
        """When each of the calls that were taken from there on may be made, earliest first."""
        return tuple(base_ms - self.credit_ms + call * self.cost_ms for call in range(calls))

    def fitting(self, tat_ms: int, now_ms: int) -> int:
        """How many calls may be made right now."""
        left_ms = self.credit_ms - max(tat_ms - now_ms, 0)
        return left_ms // self.cost_ms + 1 if left_ms >= 0 else 0

    def latest_for(self, calls: int, now_ms: int) -> int:
        """Where `tat` may be at most so that all of the calls may be made right now."""
        return now_ms + self.credit_ms - (calls - 1) * self.cost_ms


def take(tat_ms: int, cost_ms: int, now_ms: int, until_ms: int) -> tuple[int, Taken | Full]:
    """What asking for calls does to `tat`: where it is afterwards, and the answer. `until_ms` bounds where it may be
    before.
    """
    answer: Taken | Full
    if tat_ms <= now_ms:
        answer = Taken(now_ms)
    elif tat_ms <= until_ms:
        answer = Taken(tat_ms)
    else:
        answer = Full(tat_ms)
    return tat_after(answer, cost_ms, now_ms), answer


def tat_after(answer: Taken | Full, cost_ms: int, now_ms: int) -> int:
    """Where `tat` is after calls were asked for at `now_ms`, and this was the answer. Raises `IllegalTransition` for
    one that cannot be.
    """
    if isinstance(answer, Taken):
        before_ms, event, after_ms = answer.base_ms, "taken", answer.base_ms + cost_ms
    else:
        before_ms, event, after_ms = answer.tat_ms, "refused", answer.tat_ms
    LIMITER.require_line(load_of(before_ms, now_ms), event, load_of(after_ms, now_ms), "calls asked for")
    return after_ms


def is_astray(state: IntegrationState, limit: Limit, now_ms: int) -> bool:
    """Whether `tat` is further ahead than whatever was reserved, or a pause, can have brought it: then a clock that was
    hours ahead did.
    """
    after_pause_ms = state.paused_until_ms + limit.credit_ms
    return state.tat_ms > max(now_ms + FURTHEST_MS, after_pause_ms) + limit.cost_ms


def put_right(state: IntegrationState, limit: Limit, now_ms: int) -> int:
    """Where a `tat` that is astray belongs: as after a pause that ends now, so that a burst which that clock has made
    is not made again.
    """
    after_ms = max(now_ms, state.paused_until_ms) + limit.credit_ms
    LIMITER.require_line(load_of(state.tat_ms, now_ms), "put right", load_of(after_ms, now_ms), "a number astray")
    return after_ms


def after_pause(rate: Rate | None, until_ms: int, scale: float = 1.0) -> int:
    """Where a provider's pause puts `tat`, unless it is later: it has just said that it was too much, so that what
    waits follows the pause's end at the rate, without a burst.
    """
    return until_ms if rate is None else until_ms + Limit.of(rate, scale=scale).credit_ms


def paused(tat_ms: int, to_ms: int, now_ms: int) -> int:
    """Where `tat` is after a pause that puts it there, as somebody sees it at that moment: it never moves back."""
    after_ms = max(tat_ms, to_ms)
    LIMITER.require_line(load_of(tat_ms, now_ms), "paused", load_of(after_ms, now_ms), "a pause")
    return after_ms


def holds(slot_ms: int, state: IntegrationState, limit: Limit, now_ms: int, scale: float, *, is_paced: bool) -> bool:
    """Whether a slot that was given earlier may still be used, or waited for, without another question.

    Not if the provider has asked for a pause since. Not if it comes late: after an outage all that waited would come at
    once. What is woken at the rate anyway (`is_paced`) comes in no herd, and may be later. It keeps its slot however
    late it is while so many wait that they are all woken like that, provided that there was never nothing to do since:
    its own calls have not been made up for by others then, and put behind all the others it would come late again.
    """
    if slot_ms < state.paused_until_ms:
        return False
    grace_ms = PACED_GRACE_MS if is_paced else GRACE_MS
    if now_ms - slot_ms <= max(SHORTEST_GRACE_MS, grace_ms * scale):
        return True
    return is_paced and slot_ms >= state.busy_from_ms and state.tat_ms - limit.credit_ms > now_ms + VISIBLE_WAIT_MS


def resumes_at_ms(state: IntegrationState, rate: Rate | None, now_ms: int, scale: float = 1.0) -> int:
    """From when on a call that is asked for now could be made: `now_ms`, if that is at once (runbook 003: "sending
    resumes at").
    """
    held_ms = max(now_ms, state.paused_until_ms)
    if rate is None:
        return held_ms
    limit = Limit.of(rate, scale=scale)
    tat_ms = put_right(state, limit, now_ms) if is_astray(state, limit, now_ms) else state.tat_ms
    return max(held_ms, limit.slots(max(tat_ms, now_ms), 1)[0])


def paced(times: list[int], limit: Limit) -> list[int]:
    """The times, in order, none sooner after the one before it than the rate allows."""
    result: list[int] = []
    for at_ms in times:
        soonest_ms = result[-1] + limit.cost_ms if result else at_ms
        result.append(max(at_ms, soonest_ms))
    return result
