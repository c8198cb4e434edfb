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
from dataclasses import dataclass, replace

from functions.core.attempt import Effect
from functions.core.decision import Mode, Repeat
from functions.core.event import SPILL
from functions.core.gate import Health, IntegrationState, WaitingFor
from functions.core.health import PROBE_GAP_MS, PROBES_NEEDED, release_share
from functions.core.integration import INTAKE
from functions.core.limiter import Limit, holds, paced
from functions.core.recovery import POLL_SECONDS, REHINT_SECONDS, Row, Status
from functions.core.switches import SwitchView

_DIGITS = 13  # of the milliseconds that a spilled object's name begins with

HORIZON_SECONDS = 60  # how far ahead a tick looks: until the next one
SHORTEST_HORIZON_SECONDS = 2
SHORTEST_REHINT_SECONDS = 10  # a queue needs that long to deliver, however much the waits are shortened
OVERDUE_AFTER_REHINTS = 10  # woken that often without a trace: no worker gets anywhere with it
PER_TICK = 500
PER_INTEGRATION = 100  # what two slow workers get through before the first of them would be woken again
PROBE_READ = 50  # rows read to find one that may be a probe; those that are too late end on the way
PER_LIMITED = PER_TICK // 2  # of an integration whose rows have slots of the limiter: they are not woken for nothing
READ_AHEAD = 3  # times as many rows are read to choose from, so that priority and tenants' turns mean something
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
    """Why nothing of the integration is woken in this tick, or None if it may send. A parked row costs a read, and a
    write when it is too late, or where so many wait that it hides others.

    The reserved integration `intake` is ours: only the mode holds it.
    """
    if switches.mode in (Mode.HOLD, Mode.SHADOW):
        return f"mode_{switches.mode.value}"
    if state.integration == INTAKE:
        return None
    if state.integration in switches.disabled:
        return "disabled"
    if state.health_at(now_ms) is Health.HARD_DOWN:
        return "hard_down"
    if switches.limit(state.integration) == 0:
        return "limit_0"
    return "paused" if state.paused_until_ms > now_ms + horizon else None


_OF_ITS_OWN = frozenset({WaitingFor.CREDENTIAL, WaitingFor.SWITCH})  # what may hold one row and not its neighbours


def probe_from(state: IntegrationState, switches: SwitchView, now_ms: int, horizon: int) -> int | None:
    """From when on a row of an integration that is down may be woken to find out whether it is back, within this tick;
    None if it must not be, because somebody is finding out, or because something else holds it too.
    """
    if not state.may_be_probed(now_ms + horizon):
        return None
    back = replace(state, health=Health.DEGRADED)
    return None if why_parked(back, switches, now_ms, horizon) else max(now_ms, state.probe_at_ms)


def probe_rows(state: IntegrationState, rows: Iterable[Row]) -> list[Row]:
    """One row, or as many as are still missing once a probe has succeeded: the fairest first. Those last that something
    of their own held when they were last seen, by turns; before them those whose unknown outcome would be for a person,
    and before them those that a stored error of the provider's answers for ever.
    """
    ordered = order_fairly(rows, PROBE_READ)
    ordered.sort(key=_probe_rank)
    return ordered[: PROBES_NEEDED - state.probe_ok if state.probe_ok else 1]


def _probe_rank(row: Row) -> tuple[bool, bool, bool, int]:
    is_held = row.waiting_for in _OF_ITS_OWN
    is_blind = row.action is not None and row.action.repeat is Repeat.BLIND
    return is_held, is_blind, row.stored_errors > 0, row.updated_at_ms if is_held else 0


def is_kept_by_health_alone(row: Row, state: IntegrationState, switches: SwitchView, now_ms: int, horizon: int) -> bool:
    """Whether an action's row would be woken but for its integration's health, by the switches for its own flow, source
    and tenant.
    """
    back = replace(state, health=Health.DEGRADED)
    return row.action is not None and why_parked(back, switches, now_ms, horizon) is None


def probe_gap_ms(scale: float) -> int:
    """How far apart rows that are to be probes are shown: the one before is over by then, if it went well."""
    return max(1_000, int(2 * PROBE_GAP_MS * scale))


def release_cap(state: IntegrationState, now_ms: int, scale: float, most: int = PER_INTEGRATION) -> int:
    """How many rows of the integration a tick may wake, of `most` otherwise: fewer for a while after an outage, so that
    what waited does not become the next one.
    """
    return max(1, int(most * release_share(state, now_ms, scale)))


def most_woken(limit: Limit | None, woken: int, scale: float) -> int:
    """How many of an integration's rows a tick wakes at most, after `woken` of others: of a limited one as many as have
    slots until the next tick, if that is more.
    """
    most = (
        PER_INTEGRATION if limit is None else max(PER_INTEGRATION, min(PER_LIMITED, horizon_ms(scale) // limit.cost_ms))
    )
    return min(most, PER_TICK - woken)


Woken = Sequence[tuple[Row, int]]
"""Rows, each with when it is to be woken."""


def at_the_rate(woken: Woken, state: IntegrationState, limit: Limit, now_ms: int, scale: float) -> tuple[Woken, Woken]:
    """Those of a limited integration that hold slots, and those that will ask for one.

    Who holds one is woken one after the other, as many as that is until the next tick: a slot may have come and gone
    between two ticks, or in an outage, and what is late must not come as a herd.
    """
    holding = [pair for pair in woken if _holds_slot(pair[0], state, limit, now_ms, scale)]
    holding.sort(key=lambda pair: (pair[1], pair[0].slot_ms))
    names = {row.recovery_id for row, _ in holding}
    times = paced([at_ms for _, at_ms in holding], limit)
    last_ms = now_ms + horizon_ms(scale) - limit.cost_ms  # the next tick begins with its own
    fitting = [at_ms for at_ms in times if at_ms <= last_ms] or times[:1]
    in_turn = [(row, at_ms) for (row, _), at_ms in zip(holding, fitting, strict=False)]
    return in_turn, [pair for pair in woken if pair[0].recovery_id not in names]


def _holds_slot(row: Row, state: IntegrationState, limit: Limit, now_ms: int, scale: float) -> bool:
    return row.slot_ms > 0 and holds(row.slot_ms, state, limit, now_ms, scale, is_paced=True)


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
