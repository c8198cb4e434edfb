"""The sweeper's rules (architecture §7): which integrations may send, which of their rows are woken, in what order, and
how much of a tick the spill may have.

Pure: who sends the hints is another's business.
A row is woken by a hint on a queue. A hint carries the row's version, so whatever changes the version takes the force
out of the hints that are still under way: a row with a live lease is therefore never touched, and a row with a hint
under way not before its due time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from functions.core.attempt import Effect
from functions.core.decision import Mode
from functions.core.event import SPILL
from functions.core.gate import Health, IntegrationState
from functions.core.integration import INTAKE
from functions.core.recovery import POLL_SECONDS, REHINT_SECONDS, Row, Status
from functions.core.switches import SwitchView

_DIGITS = 13  # of the milliseconds that a spilled object's name begins with

HORIZON_SECONDS = 60  # how far ahead a tick looks: until the next one
SHORTEST_HORIZON_SECONDS = 2
SHORTEST_REHINT_SECONDS = 10  # a queue needs that long to deliver, however much the waits are shortened
OVERDUE_AFTER_REHINTS = 10  # woken that often without a trace: no worker gets anywhere with it
PER_TICK = 500
PER_INTEGRATION = 100  # what two slow workers get through before the first of them would be woken again
READ_AHEAD = 3 * PER_INTEGRATION  # rows read to choose from, so that priority and tenants' turns mean something
DRAIN_SHARE = 0.5  # of a tick's time, for the spill at most: due rows come after it and have the rest
DRAIN_PAGE = 1_000  # as many names as S3 lists at once
DRAIN_CHUNK = 32  # objects sent on before looking how it goes, the oldest first


def drain_until(started_ms: int, deadline_ms: int) -> int:
    """The end of the spill's part of a tick."""
    return started_ms + int((deadline_ms - started_ms) * DRAIN_SHARE)


def spilled_at(key: str) -> int | None:
    """When the event of an object of the spill was received, in milliseconds; None for a name that does not say."""
    digits, dash, _ = key.removeprefix(SPILL).partition("-")
    return int(digits) if dash and len(digits) == _DIGITS and digits.isascii() and digits.isdecimal() else None


def horizon_ms(scale: float) -> int:
    """How far ahead a tick looks. Always less than a hinted row is left alone for."""
    return int(max(SHORTEST_HORIZON_SECONDS, HORIZON_SECONDS * scale) * 1000)


def rehint_scale(scale: float) -> float:
    """The scale of the wait after a hint, which shortened waits must not bring below what a queue needs."""
    return max(scale, SHORTEST_REHINT_SECONDS / REHINT_SECONDS)


def why_parked(state: IntegrationState, switches: SwitchView, now_ms: int, horizon: int) -> str | None:
    """Why nothing of the integration is woken in this tick, or None if it may send. Parked rows cost nothing.

    The reserved integration `intake` is ours: only the mode holds it.
    """
    if switches.mode in (Mode.HOLD, Mode.SHADOW):
        return f"mode_{switches.mode.value}"
    if state.integration == INTAKE:
        return None
    if state.integration in switches.disabled:
        return "disabled"
    if state.health is Health.HARD_DOWN:
        return "hard_down"
    if switches.limit(state.integration) == 0:
        return "limit_0"
    return "paused" if state.paused_until_ms > now_ms + horizon else None


@dataclass(frozen=True, slots=True)
class Wake:
    """Send a hint that shows at that time."""

    not_before_ms: int


@dataclass(frozen=True, slots=True)
class LetExpire:
    """End it: what was asked for then may be wrong now, and nothing of it can be under way."""


@dataclass(frozen=True, slots=True)
class PutOff:
    """It cannot be used now; look again then (0: never by itself)."""

    until_ms: int


@dataclass(frozen=True, slots=True)
class Leave:
    """Someone has it, or it is early."""


Look = Wake | LetExpire | PutOff | Leave


def look(row: Row, state: IntegrationState, switches: SwitchView, now_ms: int, scale: float) -> Look:
    """What one row, due by the horizon, needs. `switches` are those in force for its flow, source and tenant."""
    if not row.is_open or row.lease_until_ms > now_ms:
        return Leave()
    if _is_expired(row, now_ms):
        return LetExpire()
    if row.waits_for and 0 < row.expires_at_ms <= now_ms:
        return Wake(now_ms)  # it may have been sent: a worker ends it
    if row.waits_for:
        return Leave() if row.due_at_ms == row.expires_at_ms else PutOff(row.expires_at_ms)
    if row.due_at_ms > now_ms and row.not_before_ms <= now_ms:
        return Leave()  # a hint is under way
    if row.status is Status.REPLAYED and (not switches.replay or row.integration_id in switches.replay_blocked):
        return PutOff(now_ms + int(POLL_SECONDS * 1000 * scale))
    return Wake(max(now_ms, row.not_before_ms, state.paused_until_ms))


def _is_expired(row: Row, now_ms: int) -> bool:
    """Too late, with nothing that may have been sent: else a worker looks first."""
    may_have_been_sent = row.lease_until_ms > 0 or row.effect is Effect.UNKNOWN
    return 0 < row.expires_at_ms <= now_ms and not may_have_been_sent


def is_overdue(row: Row, now_ms: int, scale: float) -> bool:
    """Whether hint after hint has led to nothing: for an alarm, because nothing else would show it."""
    waited_ms = now_ms - max(row.not_before_ms, row.updated_at_ms, row.lease_until_ms)
    return waited_ms > OVERDUE_AFTER_REHINTS * REHINT_SECONDS * 1000 * rehint_scale(scale)


def order_fairly(rows: Iterable[Row], cap: int) -> list[Row]:
    """At most `cap` rows, the most urgent priority first.

    Within one priority tenants take turns, each with its oldest event first.
    """
    by_priority: dict[int, dict[str, deque[Row]]] = {}
    for row in sorted(rows, key=lambda row: (row.received_at_ms, row.recovery_id)):
        by_priority.setdefault(row.priority, {}).setdefault(row.tenant, deque()).append(row)
    chosen: list[Row] = []
    for priority in sorted(by_priority):
        turns = deque(by_priority[priority].values())  # the tenant with the oldest event begins
        while turns and len(chosen) < cap:
            queue = turns.popleft()
            chosen.append(queue.popleft())
            if queue:
                turns.append(queue)
    return chosen


def in_turn(integrations: Sequence[str], tick: int) -> list[str]:
    """The integrations, beginning with another one each tick: the cap of a tick does not always meet the same."""
    if not integrations:
        return []
    start = tick % len(integrations)
    return [*integrations[start:], *integrations[:start]]
