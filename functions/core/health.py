"""The health of an integration: what its calls say minute by minute, and what people and probes say (architecture §8).

    healthy ── under the threshold for 10 minutes, or again and again ──▶ degraded
       ▲ │                                                                 │ ▲
       │ │                    15 minutes of recovery                       │ │ 3 probes in a row succeed
       └─┼─────────────────────────────────────────────────────────────────┤ │
         └── nothing gets through, nothing can be reached, every ──────────┴─┴▶ hard_down
             tenant's credential is refused

Pure. Workers count their calls, the evaluator judges each minute that has closed, once and in order, and whoever ends a
probe records it. Every write is conditional on the record's version, so of several at once one counts and the others
look again. `TRANSITIONS` is the whole machine: a move that is not in it raises `IllegalTransition`.

A minute is `minute_ms(scale)` long, one second at the least: the stage that shortens all waits shortens this one too.
Timers count minutes, not clocks: a minute with too little data holds them, and more than five in a row drop what was
half built. Silence is never recovery. Where calls are so few that no timer ever fills, calls are counted instead: so
many in a row without an error, over as many minutes as the timer has, are recovery too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from functions.core.audit import MACHINE, AuditEvent, AuditType, Severity, audit_id
from functions.core.compact import compact
from functions.core.decision import Repeat
from functions.core.event import digest
from functions.core.failure import Failure, FailureClass, IllegalTransition, NetworkCause
from functions.core.gate import Health, IntegrationState
from functions.core.integration import Integration
from functions.core.machine import Machine, Step, steps

MINUTE_MS = 60_000
SHORTEST_MINUTE_MS = 1_000
SETTLE_MS = 5_000  # after a minute's end: as long as the write of its last counts may take
SHORTEST_SETTLE_MS = 500
CATCH_UP_MINUTES = 60  # evaluated one by one after a gap; their counts are kept for two hours

DEGRADE_MINUTES = 10
RECOVER_MINUTES = 15
RECOVER_CALLS = 15  # in a row, over more than those minutes, where a quiet integration never fills the timer
HOLD_MINUTES = 5
FORGET_MINUTES = 30  # of silence, after which earlier breaches and refused connections are history
WIDEST_WINDOW = 5
LOW_TRAFFIC_WINDOW = 10
LOW_TRAFFIC_CALLS = 5
FLAPPING_OF = 30
FLAPPING_BREACHES = 15
COLLAPSE_RATIO = 0.10
COLLAPSE_CALLS = 10
COLLAPSE_MINUTES = 3
REFUSED_CALLS = 10
LOCKED_OUT_TENANTS = 3

PROBES_NEEDED = 3
PROBE_SPACING_MS = 30_000
LONGEST_PROBE_SPACING_MS = 300_000
PROBE_GAP_MS = 5_000  # after a probe that succeeded
PROBE_LEASE_MS = 20_000  # at least: longer than a look and a send with their deadlines can take

RAMP_MS = 600_000
RAMP_START = 0.10
DEGRADED_RATE = 0.5

TENANT_BUCKETS = 256
REASON_LENGTH = 200
LONGEST_OVERRIDE_MS = 7 * 24 * 3_600_000
UNJUDGED_MS = 5 * MINUTE_MS  # after the last judged minute: from then on nobody knows how an integration is
SHORTEST_UNJUDGED_MS = 30_000

# ------------------------------------------------------------------------------------------------------------- counting


class CallOutcome(StrEnum):
    """What one call says about the integration. Only `ok`, `error` and `unreachable` enter a success ratio."""

    OK = "ok"
    ERROR = "error"
    UNREACHABLE = "unreachable"  # an error before any connection: name, connect, TLS
    RATE_LIMITED = "rate_limited"
    AUTH = "auth"
    OURS = "ours"  # answered, and refused for what we sent
    NOT_MADE = "not_made"  # nothing left this machine


_UNREACHABLE = frozenset(
    cause.value
    for cause in (NetworkCause.DNS, NetworkCause.CONNECT_REFUSED, NetworkCause.CONNECT_TIMEOUT, NetworkCause.TLS)
)
# Of failures that are ours before anything is sent: no time, no free connection, no readable parameter.
_NOT_MADE = frozenset({NetworkCause.NOT_STARTED.value, NetworkCause.POOL_TIMEOUT.value, "CREDENTIAL_UNREADABLE"})


def outcome_of(result: object) -> CallOutcome:
    """What a call's result says. Whatever is no `Failure` is an answer that could be used.

    A provider that says when to come back (429, or 503 with Retry-After) is not failing. A credential counts as refused
    only by the provider's own 401 or 403; where it refuses our own role, which is every tenant's, no call succeeds.
    """
    if not isinstance(result, Failure):
        return CallOutcome.OK
    if result.failure_class is FailureClass.RATE_LIMITED:
        return CallOutcome.RATE_LIMITED
    if result.code in _NOT_MADE:
        return CallOutcome.NOT_MADE
    if result.code in _UNREACHABLE:
        return CallOutcome.UNREACHABLE
    if result.status is None:
        is_ours = result.failure_class in (FailureClass.DATA_ERROR, FailureClass.AUTH_ERROR)
        return CallOutcome.NOT_MADE if is_ours else CallOutcome.ERROR
    if result.failure_class is FailureClass.AUTH_ERROR and not result.wants_credential:
        return CallOutcome.ERROR
    return _of_status(result.status, states_a_wait=result.retry_after_ms is not None)


def _of_status(status: int, *, states_a_wait: bool) -> CallOutcome:
    if status == 503 and states_a_wait:
        return CallOutcome.RATE_LIMITED
    if status in (401, 403):
        return CallOutcome.AUTH
    return CallOutcome.OURS if 400 <= status < 500 and status != 408 else CallOutcome.ERROR


# What the LLM's adapter says in its own words (`ClassifierUnavailable.code`); every other code is an error.
_OF_CLASSIFIER: Mapping[str, CallOutcome] = {
    "LLM_UNREACHABLE": CallOutcome.UNREACHABLE,
    "LLM_RATE_LIMITED": CallOutcome.RATE_LIMITED,
    "LLM_AUTH": CallOutcome.AUTH,
    "LLM_REFUSED_REQUEST": CallOutcome.OURS,
    "LLM_DECLINED": CallOutcome.OURS,
    "LLM_CUT_SHORT": CallOutcome.OURS,
    "LLM_NOT_CONFIGURED": CallOutcome.NOT_MADE,
    "LIMITED": CallOutcome.NOT_MADE,
}


def outcome_of_classifier(code: str) -> CallOutcome:
    """What a classification that did not come says about the LLM."""
    return _OF_CLASSIFIER.get(code, CallOutcome.ERROR)


def tenant_bucket(tenant: str) -> str:
    """Two hexadecimal digits, so that a minute's set of tenants is bounded whoever they are.

    Two tenants that share a bucket count as one: the rule that asks for three may be late by that, never early.
    """
    return digest("health", tenant)[:2]


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of an integration's calls in a span of time. `auth_tenants` are buckets of `tenant_bucket`."""

    ok: int = 0
    error: int = 0
    unreachable: int = 0  # of the errors
    rate_limited: int = 0
    auth: int = 0
    ours: int = 0
    auth_tenants: frozenset[str] = frozenset()

    @property
    def judged(self) -> int:
        """The calls that a success ratio is made of."""
        return self.ok + self.error

    @property
    def has_answered(self) -> bool:
        """Whether the other side said anything at all that shows it is there and works."""
        return self.ok + self.rate_limited + self.auth + self.ours > 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            ok=self.ok + other.ok,
            error=self.error + other.error,
            unreachable=self.unreachable + other.unreachable,
            rate_limited=self.rate_limited + other.rate_limited,
            auth=self.auth + other.auth,
            ours=self.ours + other.ours,
            auth_tenants=self.auth_tenants | other.auth_tenants,
        )


_ONE: Mapping[CallOutcome, Counts] = {
    CallOutcome.OK: Counts(ok=1),
    CallOutcome.ERROR: Counts(error=1),
    CallOutcome.UNREACHABLE: Counts(error=1, unreachable=1),
    CallOutcome.RATE_LIMITED: Counts(rate_limited=1),
    CallOutcome.AUTH: Counts(auth=1),
    CallOutcome.OURS: Counts(ours=1),
    CallOutcome.NOT_MADE: Counts(),
}


def counted(outcome: CallOutcome, tenant: str) -> Counts:
    """One call."""
    tenants = frozenset({tenant_bucket(tenant)}) if outcome is CallOutcome.AUTH else frozenset[str]()
    return replace(_ONE[outcome], auth_tenants=tenants)


def minute_ms(scale: float) -> int:
    """How long a minute is where all waits are multiplied by `scale`."""
    return max(SHORTEST_MINUTE_MS, int(MINUTE_MS * scale))


def minute_of(now_ms: int, scale: float) -> int:
    """The number of the minute that is under way."""
    return now_ms // minute_ms(scale)


def last_closed(now_ms: int, scale: float) -> int:
    """The last minute that is over, and whose counts have been written."""
    return minute_of(now_ms - max(SHORTEST_SETTLE_MS, int(SETTLE_MS * scale)), scale) - 1


# -------------------------------------------------------------------------------------------------------------- machine


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When the success ratio of one integration is too low, when it is well again, and how many calls say so."""

    success: float = 0.90
    recovery: float = 0.95
    minimum_calls: int = 20


class HealthEvent(StrEnum):
    """What moves the machine."""

    FAILING = "failing"
    FLAPPING = "flapping"
    COLLAPSED = "collapsed"
    UNREACHABLE = "unreachable"
    LOCKED_OUT = "locked_out"
    RECOVERED = "recovered"
    PROBED = "probed"


@dataclass(frozen=True, slots=True)
class Edge:
    """One row of the machine: in `state`, `event` leads to `next`, audited with `severity`. `what` is for people."""

    state: Health
    event: HealthEvent
    next: Health
    severity: Severity
    what: str


_FAILING = "success ratio under the integration's threshold in 10 judged minutes in a row"
_FLAPPING = "15 of the last 30 judged minutes were under the threshold"
_COLLAPSED = "under 10 % of at least 10 calls succeeded, 3 minutes in a row"
_UNREACHABLE_FOR = "10 connections in a row did not come about, and nothing was answered in between"
_LOCKED_OUT = "credentials of 3 tenants were refused within one minute"
_RECOVERED = (
    "success ratio at the recovery threshold or over it in 15 judged minutes in a row; or 15 calls in a row succeeded, "
    "the last at least 15 minutes after the first"
)
_PROBED = (
    "3 probes in a row succeeded, or 3 calls in a row that an operator let through: what waits is released little by "
    "little"
)

TRANSITIONS: tuple[Edge, ...] = (
    Edge(Health.HEALTHY, HealthEvent.FAILING, Health.DEGRADED, Severity.WARNING, _FAILING),
    Edge(Health.HEALTHY, HealthEvent.FLAPPING, Health.DEGRADED, Severity.WARNING, _FLAPPING),
    Edge(Health.HEALTHY, HealthEvent.COLLAPSED, Health.HARD_DOWN, Severity.CRITICAL, _COLLAPSED),
    Edge(Health.HEALTHY, HealthEvent.UNREACHABLE, Health.HARD_DOWN, Severity.CRITICAL, _UNREACHABLE_FOR),
    Edge(Health.HEALTHY, HealthEvent.LOCKED_OUT, Health.HARD_DOWN, Severity.CRITICAL, _LOCKED_OUT),
    Edge(Health.DEGRADED, HealthEvent.RECOVERED, Health.HEALTHY, Severity.WARNING, _RECOVERED),
    Edge(Health.DEGRADED, HealthEvent.COLLAPSED, Health.HARD_DOWN, Severity.CRITICAL, _COLLAPSED),
    Edge(Health.DEGRADED, HealthEvent.UNREACHABLE, Health.HARD_DOWN, Severity.CRITICAL, _UNREACHABLE_FOR),
    Edge(Health.DEGRADED, HealthEvent.LOCKED_OUT, Health.HARD_DOWN, Severity.CRITICAL, _LOCKED_OUT),
    Edge(Health.HARD_DOWN, HealthEvent.PROBED, Health.DEGRADED, Severity.WARNING, _PROBED),
)
"""Every move of the machine. An operator's override lies over the state and is no move of it (`force`, `lift`)."""

HEALTH = Machine(
    "integration health",
    "How an integration is, by what its calls said: attributes of its control item, one write a judged minute or a "
    "probe, on condition of the version seen, each move with its audit event in the same transaction. An operator's "
    "word lies over the state, for a time, and is no move of it.",
    tuple(Step(edge.state.value, edge.event.value, edge.next.value, edge.what) for edge in TRANSITIONS)
    + steps(
        (
            "healthy|degraded|hard_down",
            "minute",
            "=",
            "Timers, held where there is too little data; missed minutes too",
        ),
        ("hard_down", "probe taken", "=", "By one caller in the fleet, until its lease ends"),
        ("hard_down", "probe succeeded", "=", "One more in a row; the third is `probed`"),
        ("hard_down", "probe failed", "=", "The row begins anew, and the next one waits longer: 30 s to 5 min"),
        (
            "healthy|degraded|hard_down",
            "forced",
            "=",
            "Until a time within 7 days another state holds; actor and reason",
        ),
        ("healthy|degraded|hard_down", "lifted", "=", "By its time or by a person: what the machine says holds again"),
    ),
)

_EDGES: Mapping[tuple[Health, HealthEvent], Edge] = {(edge.state, edge.event): edge for edge in TRANSITIONS}


@dataclass(frozen=True, slots=True)
class Record:
    """All that is stored of one integration's health, at one version. Absent: healthy, and never looked at.

    `bad`, `good` and `collapsed` count judged minutes in a row, `silent` minutes without judgement in a row, `refused`
    connections in a row. `window` holds (ok, error) of the last minutes and `recent` a 1 for each of the last judged
    minutes that breached the threshold, both oldest first. `reopened` counts probes that failed, and returns to
    `hard_down`, since it was last healthy. While it is degraded, or is down and an operator lets calls through,
    `unbroken` calls in a row have succeeded since the minute `unbroken_from`.
    """

    health: Health = Health.HEALTHY
    since_ms: int = 0
    reason: str = ""
    version: int = 0
    minute: int = 0
    bad: int = 0
    good: int = 0
    collapsed: int = 0
    refused: int = 0
    silent: int = 0
    unbroken: int = 0
    unbroken_from: int = 0
    window: tuple[tuple[int, int], ...] = ()
    recent: str = ""
    override: Health | None = None
    override_until_ms: int = 0
    override_by: str = ""
    override_reason: str = ""
    probe_at_ms: int = 0
    probe_by: str = ""
    probe_ok: int = 0
    reopened: int = 0
    ramp_from_ms: int = 0

    def state(self, integration: str) -> IntegrationState:
        """What of it those who send look at."""
        return IntegrationState(
            integration,
            self.health,
            since_ms=self.since_ms,
            reason=self.reason,
            override=self.override,
            override_until_ms=self.override_until_ms,
            probe_at_ms=self.probe_at_ms,
            probe_ok=self.probe_ok,
            ramp_from_ms=self.ramp_from_ms,
        )


def is_kept_up(record: Record, now_ms: int, scale: float) -> bool:
    """Whether what the record says is of now: a person's word on it, or a minute that was judged a moment ago."""
    if record.override is not None and now_ms < record.override_until_ms:
        return True
    judged_until_ms = (record.minute + 1) * minute_ms(scale)
    return record.minute > 0 and now_ms - judged_until_ms <= max(int(UNJUDGED_MS * scale), SHORTEST_UNJUDGED_MS)


@dataclass(frozen=True, slots=True)
class HealthChange:
    """One versioned write: the record as it is to be, if it still has the version that was seen, with what is audited.

    `edges` are the machine's moves on the way, oldest first.
    """

    after: Record
    seen_version: int
    audit: tuple[AuditEvent, ...] = ()
    edges: tuple[Edge, ...] = field(default=())


def pending_minutes(record: Record, closed: int) -> list[int]:
    """The closed minutes that were not judged yet, oldest first and bounded. One only for a record that is new.

    A record from further ahead than `HOLD_MINUTES` was written by a clock that was wrong: the last closed minute is
    judged anew.
    """
    if record.minute == 0 or record.minute > closed + HOLD_MINUTES:
        return [closed]
    return list(range(max(record.minute + 1, closed - CATCH_UP_MINUTES + 1), closed + 1))


def evaluate(
    integration: str,
    record: Record,
    minutes: Sequence[tuple[int, Counts]],
    thresholds: Thresholds,
    now_ms: int,
    scale: float,
) -> HealthChange | None:
    """The record after these minutes, in order, with an audit event for each move. None if nothing is to be stored.

    An override whose time is over ends here too, in the record; who sends has obeyed its end by the clock.
    """
    after, audit, edges = record, list[AuditEvent](), list[Edge]()
    if after.override is not None and after.override_until_ms <= now_ms:
        lifted = lift(integration, after, after.override_until_ms, actor=MACHINE, reason="its time was over")
        after = replace(lifted.after, version=record.version)
        audit.extend(lifted.audit)
    for minute, counts in minutes:
        before = after
        after, edge = _after_minute(after, minute, counts, thresholds, scale)
        if edge is not None:
            edges.append(edge)
            audit.append(_audit_of(integration, before, after, edge.severity, after.since_ms, reason=after.reason))
    if after == record:
        return None
    return HealthChange(replace(after, version=record.version + 1), record.version, tuple(audit), tuple(edges))


def _after_minute(
    record: Record, minute: int, counts: Counts, thresholds: Thresholds, scale: float
) -> tuple[Record, Edge | None]:
    """One closed minute. A gap before it is silence."""
    missed = minute - record.minute - 1 if 0 < record.minute < minute else 0
    seen = _after_gap(record, missed) if missed else record
    ends_ms = (minute + 1) * minute_ms(scale)
    if seen.health is Health.HARD_DOWN:
        return _while_down(replace(_unbroken(seen, minute, counts), minute=minute), counts, ends_ms, scale)
    seen = replace(_unbroken(_timed(seen, counts, thresholds), minute, counts), minute=minute)
    event, reason = _judged(seen, counts)
    if event is None:
        return seen, None
    return _moved(seen, event, reason, ends_ms, scale)


def _after_gap(record: Record, minutes: int) -> Record:
    """Minutes that nobody judged in time, and that are past judging."""
    window = (*record.window, *((0, 0),) * min(minutes, LOW_TRAFFIC_WINDOW))[-LOW_TRAFFIC_WINDOW:]
    return replace(_held(record, minutes), window=window)


def _while_down(record: Record, counts: Counts, ends_ms: int, scale: float) -> tuple[Record, Edge | None]:
    """Nothing is sent, so nothing is judged: probes are the way out. But an operator may have let calls through, and as
    many of them in a row, however far apart, say as much as probes do.
    """
    if counts.ok and record.unbroken >= PROBES_NEEDED:
        reason = f"{record.unbroken} calls in a row that were let through succeeded"
        return _moved(record, HealthEvent.PROBED, reason, ends_ms, scale)
    return record, None


def _held(record: Record, minutes: int) -> Record:
    """So many minutes without judgement: timers are held for five, then what was half built is dropped."""
    silent = min(record.silent + minutes, FORGET_MINUTES)
    after = replace(record, silent=silent)
    if silent > HOLD_MINUTES:
        after = replace(after, bad=0, good=0, collapsed=0)
    return replace(after, recent="", refused=0) if silent >= FORGET_MINUTES else after


def _timed(record: Record, counts: Counts, thresholds: Thresholds) -> Record:
    """The timers after one minute."""
    window = (*record.window, (counts.ok, counts.error))[-LOW_TRAFFIC_WINDOW:]
    ratio, is_wide = _ratio(window, thresholds.minimum_calls)
    if counts.judged == 0 or ratio is None:
        after = _held(record, 1)
    else:
        is_breach = ratio < thresholds.success
        # Where a window is as wide as a timer, one bad minute would fill the timer: there a minute must err by itself.
        counts_as_bad = is_breach and not (is_wide and counts.error == 0)
        after = replace(
            record,
            silent=0,
            bad=record.bad + 1 if counts_as_bad else record.bad if is_breach else 0,
            good=record.good + 1 if ratio >= thresholds.recovery else 0,
            collapsed=_collapsed(record, counts, window),
            recent=(record.recent + ("1" if counts_as_bad else "0"))[-FLAPPING_OF:],
        )
    return replace(after, window=window, refused=0 if counts.has_answered else after.refused + counts.unreachable)


def _unbroken(record: Record, minute: int, counts: Counts) -> Record:
    """The row of successes after one minute. An error or a refused credential ends it, and so does a minute that nobody
    has looked at: what was in it cannot be known. Silence neither adds to it nor ends it.
    """
    is_let_through = record.health is Health.HARD_DOWN and record.override not in (None, Health.HARD_DOWN)
    is_asked = record.health is Health.DEGRADED or is_let_through
    if not is_asked or counts.error or counts.auth:
        return replace(record, unbroken=0, unbroken_from=0)
    is_next = minute == record.minute + 1
    before, first = (record.unbroken, record.unbroken_from) if is_next else (0, 0)
    return replace(record, unbroken=before + counts.ok, unbroken_from=(first or minute) if counts.ok else first)


def _ratio(window: Sequence[tuple[int, int]], minimum: int) -> tuple[float | None, bool]:
    """The success ratio of the last 1 to 5 minutes, widened until they hold `minimum` calls; of 10 minutes where that
    is too much to ask of a quiet integration, which the second value says.
    """
    ratio = _widened(window, minimum)
    if ratio is not None:
        return ratio, False
    ok, error = (sum(part) for part in zip(*window, strict=True))
    return (ok / (ok + error), True) if ok + error >= LOW_TRAFFIC_CALLS else (None, True)


def _widened(window: Sequence[tuple[int, int]], minimum: int) -> float | None:
    ok = error = 0
    for minute_ok, minute_error in list(reversed(window))[:WIDEST_WINDOW]:
        ok, error = ok + minute_ok, error + minute_error
        if ok + error >= minimum:
            return ok / (ok + error)
    return None


def _collapsed(record: Record, counts: Counts, window: Sequence[tuple[int, int]]) -> int:
    """Minutes of near-total failure in a row. One that only succeeds ends the row, whatever came before it."""
    ratio = _widened(window, COLLAPSE_CALLS)
    if counts.error == 0:
        return 0
    if ratio is None:
        return record.collapsed
    return record.collapsed + 1 if ratio < COLLAPSE_RATIO else 0


def _judged(record: Record, counts: Counts) -> tuple[HealthEvent | None, str]:
    """What this minute leads to, the worst first, with the figures that say why."""
    of_calls = f"{counts.ok} of {counts.judged} calls succeeded in the last minute"
    if len(counts.auth_tenants) >= LOCKED_OUT_TENANTS:
        return HealthEvent.LOCKED_OUT, f"{counts.auth} calls were refused by 401 or 403, for 3 tenants or more"
    if record.refused >= REFUSED_CALLS:
        return HealthEvent.UNREACHABLE, f"{record.refused} connections in a row did not come about"
    if record.collapsed >= COLLAPSE_MINUTES:
        return HealthEvent.COLLAPSED, f"{of_calls}, the third in which nearly none did"
    if record.health is Health.DEGRADED:
        return _recovered(record, counts, of_calls)
    if record.bad >= DEGRADE_MINUTES:
        return HealthEvent.FAILING, f"{of_calls}; under the threshold for {record.bad} minutes"
    breaches = record.recent.count("1")
    if breaches >= FLAPPING_BREACHES:
        return HealthEvent.FLAPPING, f"{breaches} of the last {len(record.recent)} minutes were under the threshold"
    return None, ""


def _recovered(record: Record, counts: Counts, of_calls: str) -> tuple[HealthEvent | None, str]:
    """Whether what is degraded is well again after a minute, and by which of the two rules."""
    if record.good >= RECOVER_MINUTES and counts.judged > 0:
        return HealthEvent.RECOVERED, f"{of_calls}; well for {record.good} minutes"
    # From the beginning of a minute to the beginning of another: never sooner than the timer, nor on silence.
    minutes = record.minute - record.unbroken_from
    if counts.ok > 0 and record.unbroken >= RECOVER_CALLS and minutes >= RECOVER_MINUTES:
        return HealthEvent.RECOVERED, f"{record.unbroken} calls in a row succeeded, over {minutes} minutes"
    return None, ""


def _moved(record: Record, event: HealthEvent, reason: str, at_ms: int, scale: float) -> tuple[Record, Edge]:
    """The record one move on. Raises `IllegalTransition` for one that `TRANSITIONS` does not have."""
    HEALTH.next(record.health.value, event.value)
    edge = _EDGES[record.health, event]
    after = replace(
        record,
        health=edge.next,
        since_ms=at_ms,
        reason=f"{event.value}: {reason}"[:REASON_LENGTH],
        bad=0,
        good=0,
        collapsed=0,
        refused=0,
        silent=0,
        unbroken=0,
        unbroken_from=0,
        recent="",
        probe_by="",
        probe_ok=0,
        probe_at_ms=0,
    )
    if edge.next is Health.HEALTHY:
        return replace(after, reopened=0), edge
    if edge.next is Health.DEGRADED:
        is_release = edge.state is Health.HARD_DOWN
        return (replace(after, ramp_from_ms=at_ms, window=()) if is_release else after), edge
    reopened = after.reopened + 1 if after.reopened else 0
    return replace(after, reopened=reopened, ramp_from_ms=0, probe_at_ms=at_ms + probe_spacing(reopened, scale)), edge


# --------------------------------------------------------------------------------------------------------------- probes


def probe_spacing(reopened: int, scale: float) -> int:
    """How long after a probe that failed the next one may be made, in milliseconds."""
    return int(min(PROBE_SPACING_MS * max(1, reopened), LONGEST_PROBE_SPACING_MS) * scale)


def probe_lease(scale: float) -> int:
    """How long whoever takes the probe has it alone, in milliseconds. Calls take as long on every stage."""
    return max(PROBE_LEASE_MS, int(PROBE_SPACING_MS * scale))


def has_taken(record: Record, taken_by: str, now_ms: int, until_ms: int) -> bool:
    """Whether a take of the probe that was refused only met itself: it had succeeded, and the answer was lost."""
    is_theirs = (record.probe_by, record.probe_at_ms) == (taken_by, until_ms)
    return is_theirs and record.health is Health.HARD_DOWN and not record.state("").is_forced_at(now_ms)


def may_be_probe(integration: Integration, repeat: Repeat, state: IntegrationState, now_ms: int, scale: float) -> bool:
    """Whether an action of that kind may find out whether the integration is back.

    A `blind` one whose outcome stays unknown would be a person's, so it may only where there is no other kind, or where
    none has come for so long that nothing but it may ever come.
    """
    is_last_hope = now_ms - state.probe_at_ms >= int(LONGEST_PROBE_SPACING_MS * scale)
    has_others = any(rules.repeat is not Repeat.BLIND for rules in integration.kinds.values())
    return repeat is not Repeat.BLIND or not has_others or is_last_hope


def probed(
    integration: str, record: Record, taken_by: str, outcome: CallOutcome | None, now_ms: int, scale: float
) -> HealthChange | None:
    """What the probe that `taken_by` holds has found; None if it is not theirs any more, or the machine has moved on.

    None as outcome: no call was made, and another may try at once. An answer that says neither yes nor no (a pause that
    it asks for, a refusal of what we sent) leaves the row of successes as it is.
    """
    if record.health is not Health.HARD_DOWN or record.probe_by != taken_by:
        return None
    free = replace(record, probe_by="", version=record.version + 1)
    if outcome in (None, CallOutcome.NOT_MADE):
        return HealthChange(replace(free, probe_at_ms=now_ms), record.version)
    if outcome in (CallOutcome.RATE_LIMITED, CallOutcome.OURS):
        at_ms = now_ms + probe_spacing(record.reopened, scale)
        return HealthChange(replace(free, probe_at_ms=at_ms), record.version)
    if outcome is not CallOutcome.OK:
        reopened = record.reopened + 1
        at_ms = now_ms + probe_spacing(reopened, scale)
        return HealthChange(replace(free, probe_ok=0, reopened=reopened, probe_at_ms=at_ms), record.version)
    succeeded = record.probe_ok + 1
    if succeeded < PROBES_NEEDED:
        at_ms = now_ms + int(PROBE_GAP_MS * scale)
        return HealthChange(replace(free, probe_ok=succeeded, probe_at_ms=at_ms), record.version)
    after, edge = _moved(free, HealthEvent.PROBED, f"{succeeded} probes in a row succeeded", now_ms, scale)
    audit = _audit_of(integration, record, after, edge.severity, now_ms, reason=after.reason)
    return HealthChange(after, record.version, (audit,), (edge,))


# ------------------------------------------------------------------------------------------------------------ operators


def force(
    integration: str, record: Record, health: Health, until_ms: int, *, actor: str, reason: str, now_ms: int
) -> HealthChange:
    """An operator says what the state is, until then. The machine goes on beneath it, and what it says holds again
    afterwards.

    Raises `ValueError` for a time that is over or further away than seven days, and without a reason or an actor.
    """
    if not now_ms < until_ms <= now_ms + LONGEST_OVERRIDE_MS:
        raise ValueError("an override ends, within seven days at the latest")
    if not reason.strip() or not actor.strip():
        raise ValueError("an override has an actor and a reason")
    was_down = record.state(integration).health_at(now_ms) is Health.HARD_DOWN
    is_release = was_down and health is not Health.HARD_DOWN
    after = replace(
        record,
        override=health,
        override_until_ms=until_ms,
        override_by=actor[:REASON_LENGTH],
        override_reason=reason[:REASON_LENGTH],
        ramp_from_ms=now_ms if is_release else record.ramp_from_ms,
        version=record.version + 1,
    )
    severity = Severity.CRITICAL if health is Health.HARD_DOWN else Severity.WARNING
    audit = _audit_of(integration, record, after, severity, now_ms, actor=actor, reason=reason)
    return HealthChange(after, record.version, (audit,))


def lift(integration: str, record: Record, now_ms: int, *, actor: str, reason: str) -> HealthChange:
    """The override ends, and what the machine says holds. Raises `IllegalTransition` where there is none."""
    if record.override is None:
        raise IllegalTransition(f"{integration} has no override that could end")
    is_release = record.override is Health.HARD_DOWN and record.health is not Health.HARD_DOWN
    after = replace(
        record,
        override=None,
        override_until_ms=0,
        override_by="",
        override_reason="",
        ramp_from_ms=now_ms if is_release else record.ramp_from_ms,
        version=record.version + 1,
    )
    audit = _audit_of(integration, record, after, Severity.WARNING, now_ms, actor=actor, reason=reason)
    return HealthChange(after, record.version, (audit,))


# -------------------------------------------------------------------------------------------------------------- release


def release_share(state: IntegrationState, now_ms: int, scale: float) -> float:
    """How much of the usual number of waiting rows a tick may wake: 10 % to 100 % in ten minutes after an outage."""
    from_ms = state.released_at(now_ms)
    if from_ms == 0:
        return 1.0
    gone = max(0, now_ms - from_ms) / (RAMP_MS * scale)
    return min(1.0, RAMP_START + (1.0 - RAMP_START) * gone)


def rate_factor(state: IntegrationState, now_ms: int) -> float:
    """The factor on an integration's rate that its health asks for: half of it while it is degraded."""
    return DEGRADED_RATE if state.health_at(now_ms) is Health.DEGRADED else 1.0


# ---------------------------------------------------------------------------------------------------------------- audit


def _audit_of(
    integration: str,
    before: Record,
    after: Record,
    severity: Severity,
    at_ms: int,
    *,
    actor: str = MACHINE,
    reason: str = "",
) -> AuditEvent:
    """The event of one change. Its id follows from the version it was made from, so that a repeat is the same event."""
    kind = f"{integration}#{before.health.value}#{after.health.value}#{after.override or ''}#{after.minute}"
    is_down = after.state(integration).health_at(at_ms) is Health.HARD_DOWN
    return AuditEvent(
        id=audit_id(kind, before.version, AuditType.HEALTH_CHANGED),
        at_ms=at_ms,
        event_type=AuditType.HEALTH_CHANGED,
        severity=severity,
        tenant="",
        actor=actor,
        affected_entity="integration",
        affected_id=integration,
        request_id="",
        before_state=_said(before),
        after_state=_said(after),
        containment_action="its actions wait, and one call at a time finds out whether it is back" if is_down else "",
        reason=reason,
    )


def _said(record: Record) -> str:
    state: dict[str, str | int] = {"health": record.health.value, "since_ms": record.since_ms}
    if record.override is not None:
        state |= {"override": record.override.value, "override_until_ms": record.override_until_ms}
    return compact(state)
