"""The recovery row: everything after a failure. States, transitions and their audit events, as pure functions
(architecture §7).

    pending ── claimed ──▶ retrying ── ok ─────────────────────────────▶ succeeded
       ▲  park               │ ▲ │  attempts left: new due time, or deferred
       └─────────────────────┘ └─┤
                                 ├─ not retryable, unknown, expired, cancelled ──▶ failed ─┐ replay (operator)
                                 └─ exhausted ───────────────────────────────────▶ dlq ────┤
                                                             retryable failure ────▲       ▼
                                                                                   └── replayed (result: ended)

Every function takes a row and returns a `Change`: the row before, the row after with the next version, and the audit
events that must be written with it. Code that asks for a transition the machine does not have gets
`IllegalTransition`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from functions.core.attempt import Effect, History, Result, Superseded, effect_after, interpret, settled_at
from functions.core.audit import MACHINE, AuditEvent, AuditType, Severity, audit_id
from functions.core.clock import Random
from functions.core.compact import compact
from functions.core.decision import (
    REPLAYED_REPLY_EXPIRES_SECONDS,
    REPLY_EXPIRES_SECONDS,
    Action,
    Mode,
    Repeat,
)
from functions.core.event import digest
from functions.core.failure import (
    PROPOSED_ROOT_CAUSE,
    Done,
    Failure,
    FailureClass,
    IllegalTransition,
    RootCause,
)
from functions.core.gate import WaitingFor
from functions.core.integration import KindRules
from functions.core.machine import ABSENT, Machine, steps
from functions.core.quarantine import QUARANTINED
from functions.core.retry import RetryPolicy, is_exhausted, wait_ms

HISTORY_LENGTH = 20
SUCCEEDED_RETENTION_SECONDS = 35 * 86_400
DEAD_RETENTION_SECONDS = 90 * 86_400
TOO_OLD_TO_REPLAY_MS = 30 * 86_400 * 1000
REHINT_SECONDS = 180  # how long after a hint the sweeper looks at the row again
POLL_SECONDS = 60  # how often a row is looked at that waits for something without a stated end
DETAIL_LENGTH = 400
TAKEOVER_LIMIT = 3
DEAD_HINT_LIMIT = 3  # hints one after the other that a queue gave up, while nothing else became of the row


class Status(StrEnum):
    """Of a recovery row (runbook 004)."""

    PENDING = "pending"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DLQ = "dlq"
    REPLAYED = "replayed"


class Subject(StrEnum):
    """What a row is about."""

    ACTION = "action"
    EVENT = "event"


# Ends that a person or the clock made final: nothing replays these.
FINAL_CODES = frozenset({"CANCELLED", "EXPIRED", "DISMISSED", "DONE_BY_HAND"})
EXPIRED = "EXPIRED"
SUPPRESSED = "SUPPRESSED"
HELD = "HELD"
OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
PAYLOAD_MISMATCH = "PAYLOAD_MISMATCH"
WORKER_DIED = "WORKER_DIED"
POISONED = "POISONED"


@dataclass(frozen=True, slots=True)
class Row:
    """An unfinished action, or a dead or waiting event, and its history. Times are epoch milliseconds; 0 means never
    or none.

    `not_before_ms` is the earliest send, `due_at_ms` when the sweeper looks next (0: never by itself). `slot_ms` is the
    limiter's slot for it, good for one claim. `dead_hints` were given up by a queue since something last became of it,
    the last of them counted as version `dead_hint_version`.
    `action` is the one that was decided. At `hop` 1 and 2 another goes in its place (`functions.core.fallback`), of
    kind `hop_kind` and to be repeated as `hop_repeat`; `integration_id`, attempts and effect are those of the present
    way, `hops` says which were left and why. `response_snapshot` is what the provider answered to the last attempt that
    failed (`Failure.answer`); empty where no answer came.
    """

    recovery_id: str
    subject: Subject
    integration_id: str
    status: Status
    tenant: str
    source: str
    flow: str
    event_id: str
    epoch_ms: int
    event_name: str
    event_version: str
    received_at_ms: int
    origin_request_id: str
    traceparent: str
    envelope_ref: str
    created_at_ms: int
    updated_at_ms: int
    request_id: str
    version: int = 1
    action: Action | None = None
    stand_in: Action | None = None
    decision_mode: Mode = Mode.LIVE
    decided_at_ms: int = 0
    priority: int = 5
    attempt_count: int = 0
    first_attempt_at_ms: int = 0
    first_sent_at_ms: int = 0
    last_possible_send_ms: int = 0
    stored_errors: int = 0
    takeovers: int = 0
    verify_only: bool = False
    lease_until_ms: int = 0
    not_before_ms: int = 0
    due_at_ms: int = 0
    expires_at_ms: int = 0
    effect: Effect = Effect.NONE
    failure_class: str = ""
    failure_code: str = ""
    failure_detail: str = ""
    root_cause: str = ""
    waiting_for: WaitingFor = WaitingFor.NOTHING
    waits_for: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    credential_version: str = ""
    provider_id: str = ""
    replayed_from: str = ""
    replay_no: int = 0
    result: str = ""
    job_id: str = ""
    incident_id: str = ""
    response_snapshot: str = ""
    hop: int = 0
    hops: tuple[str, ...] = ()
    hop_kind: str = ""
    hop_repeat: str = ""
    slot_ms: int = 0
    dead_hints: int = 0
    dead_hint_version: int = 0
    history: tuple[dict[str, Any], ...] = field(default=())

    @property
    def repeat(self) -> Repeat | None:
        """How the action may be repeated on its present way; None for a whole event."""
        if self.hop_repeat:
            return Repeat(self.hop_repeat)
        return None if self.action is None else self.action.repeat

    @property
    def tracks_effect(self) -> bool:
        """Whether a second effect would do harm. A whole event has its ledger item to keep it from that."""
        return self.action is not None and self.repeat is not None and self.repeat.is_once

    @property
    def is_open(self) -> bool:
        """Whether the machine will still do something about it by itself."""
        if self.status is Status.REPLAYED:
            return not self.result
        return self.status in (Status.PENDING, Status.RETRYING)

    @property
    def kind(self) -> str:
        """The kind of its action on the way that it goes now; empty for a whole event."""
        return self.hop_kind or ("" if self.action is None else self.action.kind)

    @property
    def is_final(self) -> bool:
        """Whether it has ended for good, so that not even a replay may touch it."""
        if self.status is Status.SUCCEEDED or (self.status is Status.REPLAYED and self.result == "succeeded"):
            return True
        return self.status is Status.FAILED and self.failure_code in FINAL_CODES

    @property
    def expires_ttl_s(self) -> int:
        """When the item may be deleted, in epoch seconds; 0 while it has not ended."""
        if self.is_open:
            return 0
        is_success = self.status is Status.SUCCEEDED or self.result == "succeeded"
        kept = SUCCEEDED_RETENTION_SECONDS if is_success else DEAD_RETENTION_SECONDS
        return self.updated_at_ms // 1000 + kept


ENDED = "replayed, ended"  # a replay that did what was asked; the status stays `replayed`, the result tells

ROW = Machine(
    "recovery row",
    "An unfinished action, or an event that waits or is dead: the recovery table. Each step is one write on condition "
    "of the version seen, which it raises by one, with its audit event in the same transaction.",
    steps(
        (ABSENT, "parked_first", "pending", "The gate, a parent or a settle delay keeps it from its first attempt"),
        (ABSENT, "failed_first", "pending", "The credential was refused: no attempt is spent, it waits for another"),
        (ABSENT, "failed_first", "retrying", "The first attempt failed and attempts are left: due after its wait"),
        (
            ABSENT,
            "hopped_first",
            "pending",
            "Failed for good on its first way: it goes on by another, which this stores",
        ),
        (ABSENT, "by_hand_first", "failed", "It must arrive, and no way is open: a person does it"),
        (ABSENT, "failed_first", "failed", "Not worth a retry, or nobody can tell what it did"),
        (ABSENT, "failed_first", "dlq", "It was the only attempt"),
        (
            ABSENT,
            "suppressed_first|expired_first|held_first|quarantined_first",
            "failed",
            "`SUPPRESSED`, `EXPIRED`, `HELD`, `QUARANTINED`: untried",
        ),
        (ABSENT, "unknown_first", "failed", "`OUTCOME_UNKNOWN`: its owner died in a send that nothing can look up"),
        (ABSENT, "dead_first", "failed", "An event that only a person can judge"),
        (ABSENT, "dead_first", "dlq", "An event that cannot be processed, or whose message a queue gave up"),
        ("pending|retrying|replayed", "hinted", "=", "The sweeper sends a hint: due again if nothing comes of it"),
        (
            "pending|retrying|replayed",
            "hint_died",
            "=",
            "A queue gave its hint up: counted, and another is sent",
        ),
        ("pending|retrying|replayed", "put_off", "=", "The sweeper cannot use it now: due later"),
        ("pending|retrying", "claim", "retrying", "A lease, and one attempt more; an ended lease is a takeover"),
        ("replayed", "claim", "=", "A lease, and one attempt more"),
        ("pending|retrying|replayed", "defer", "=", "Put off, no attempt spent"),
        ("retrying", "defer", "pending", "Put off before it was ever tried: the claim is given back"),
        ("pending", "release", "=", "A required action is done: due when that was the last"),
        ("pending|retrying", "hopped", "pending", "It goes on by another way, with all its attempts; this is the hop"),
        ("replayed", "hopped", "=", "The same, under a replay"),
        ("pending|retrying|replayed", "by_hand", "failed", "It must arrive, and no way is open: a person does it"),
        ("retrying", "after_attempt", "retrying", "Failed, attempts left: due after its wait"),
        ("retrying", "after_attempt", "pending", "The credential was refused at the first attempt: it waits"),
        ("replayed", "after_attempt", "=", "A stated wait, a refused credential, or one last look"),
        ("retrying|replayed", "after_attempt", "failed", "Not worth a retry, or nobody can tell what it did"),
        ("retrying|replayed", "after_attempt", "dlq", "Attempts or time are used up"),
        ("retrying|replayed", "absent", "dlq", "The look after the last attempt found nothing: effect `none`"),
        ("retrying|replayed", "unknown_outcome", "failed", "`OUTCOME_UNKNOWN`: for a person"),
        ("retrying|replayed", "worker_died", "dlq", "`WORKER_DIED`: three claims in a row had no end"),
        ("pending|retrying|replayed", "poisoned", "dlq", "`POISONED`: a queue gave up one hint after the other"),
        ("pending|retrying", "quarantine", "failed", "`QUARANTINED`: a rule keeps it aside, until a person replays it"),
        ("retrying|replayed", "suppress", "failed", "`SUPPRESSED`: the claim was no attempt"),
        ("retrying", "succeeded", "succeeded", "Done or superseded; what waits for it is released with it"),
        ("replayed", "succeeded", ENDED, "Done or superseded, by a replay"),
        (
            "pending|retrying|replayed|failed|dlq",
            "end",
            "failed",
            "`CANCELLED`, `EXPIRED`, `DISMISSED`, `DONE_BY_HAND`",
        ),
        ("failed|dlq", "replay", "replayed", "A person asks for one attempt more, under the same key"),
        ("replayed", "take_back", "failed", "Its job ends before it is tried: back where it was"),
        ("replayed", "take_back", "dlq", "Its job ends before it is tried: back where it was"),
        (
            f"pending|retrying|succeeded|failed|dlq|replayed|{ENDED}",
            "annotate",
            "=",
            "A person leaves a note, or says what its root cause is",
        ),
    ),
)


def state_of(row: Row) -> str:
    """Where in the table a row is."""
    return ENDED if row.status is Status.REPLAYED and row.result else row.status.value


@dataclass(frozen=True, slots=True)
class Change:
    """One conditional write. `before` None: put if absent; else replace the row if it still has `before.version`."""

    after: Row
    before: Row | None
    audit: tuple[AuditEvent, ...] = ()


def action_recovery_id(action_id: str) -> str:
    """`sha256(action_id)[:24]`: any repeat meets the same row."""
    return digest(action_id)[:24]


def event_recovery_id(tenant: str, event_id: str, epoch_ms: int, variant: str = "") -> str:
    """Of a whole event. `variant` sets apart a second delivery that only claims to be the same event."""
    return digest(tenant, event_id, str(epoch_ms), variant)[:24]


# ---------------------------------------------------------------------------------------------------------------- audit


def audit_of(
    event_type: AuditType,
    severity: Severity,
    before: Row | None,
    after: Row,
    *,
    actor: str = MACHINE,
    containment: str = "",
    reason: str = "",
) -> AuditEvent:
    """The audit event of one transition, with its before and after state (runbook 004, line 64).

    A success names no error: what failed before stands in the events of then.
    """
    is_success = event_type is AuditType.REPROCESS_SUCCEEDED
    return AuditEvent(
        id=audit_id(after.recovery_id, after.version, event_type),
        at_ms=after.updated_at_ms,
        event_type=event_type,
        severity=severity,
        tenant=after.tenant,
        actor=actor,
        affected_entity="recovery_item",
        affected_id=after.recovery_id,
        request_id=after.request_id,
        origin_request_id=after.origin_request_id,
        traceparent=after.traceparent,
        before_state="" if before is None else _state(before),
        after_state=_state(after),
        failure_type="" if is_success else after.failure_class,
        error=f"{after.failure_code}: {after.failure_detail}" if after.failure_code and not is_success else "",
        containment_action=containment,
        recovery_status=after.status.value,
        reason=reason,
        job_id=after.job_id,
    )


def _state(row: Row) -> str:
    return compact(
        {
            "status": row.status.value,
            "attempt_count": row.attempt_count,
            "effect": row.effect.value,
            "failure_code": row.failure_code,
            "due_at_ms": row.due_at_ms,
            "waiting_for": row.waiting_for.value,
            "version": row.version,
            "result": row.result,
        },
    )


def _next(row: Row, now_ms: int, why: str, **fields: Any) -> Row:
    """The row one version on, with the step in its history. Something has become of it: dead hints before that say
    nothing any more.
    """
    to: Status = fields.get("status", row.status)
    entry: dict[str, Any] = {"at": now_ms, "from": row.status.value, "to": to.value, "why": why[:160]}
    step = {"version": row.version + 1, "updated_at_ms": now_ms, "dead_hints": 0}
    after = replace(row, **(step | fields), history=(*row.history, entry)[-HISTORY_LENGTH:])
    if (row.status, row.result) != (after.status, after.result):
        ROW.require(state_of(row), state_of(after), row.recovery_id)
    return after


# ------------------------------------------------------------------------------------------------------------ new rows


def _first(row: Row, status: Status, why: str, **fields: Any) -> Row:
    """The blank as it is first stored, with that step as its history."""
    ROW.require(ABSENT, status.value, row.recovery_id)
    entry = {"at": row.created_at_ms, "from": "", "to": status.value, "why": why[:160]}
    return replace(row, status=status, history=(entry,), **fields)


def failed_first(
    row: Row,
    rules: KindRules,
    policy: RetryPolicy,
    failure: Failure,
    now_ms: int,
    rng: Random,
    scale: float,
    *,
    was_sent: bool = True,
    is_probe: bool = False,
) -> Change:
    """The row of an action whose first attempt, in the event's first pass, failed. `row` is its blank, still `pending`.

    `was_sent` is False where only a read or lookup before the send failed, which happens after a takeover. `is_probe`:
    see `after_attempt`.
    """
    claimed = replace(row, attempt_count=1, first_attempt_at_ms=now_ms, status=Status.RETRYING)
    after, kind, severity = _after_failure(
        claimed, rules, policy, failure, now_ms, rng, scale, was_sent=was_sent, is_probe=is_probe
    )
    after = replace(after, version=1, history=after.history[-1:])
    contained = f"{after.status.value}: {_containment(after)}"
    audit = (
        audit_of(AuditType.FAILURE_DETECTED, Severity.WARNING, None, after),
        audit_of(AuditType.FAILURE_CONTAINED, Severity.WARNING, None, after, containment=contained),
        audit_of(kind, severity, None, after, containment=contained),
    )
    return Change(after, None, audit)


def parked_first(row: Row, waiting_for: WaitingFor, reason: str, due_at_ms: int) -> Change:
    """The row of an action that the gate, a parent or a settle delay keeps from its first attempt."""
    _must_be_seen_again(row, due_at_ms)
    after = _first(
        row,
        Status.PENDING,
        reason,
        waiting_for=waiting_for,
        not_before_ms=due_at_ms,
        due_at_ms=due_at_ms,
    )
    return Change(
        after,
        None,
        (audit_of(AuditType.ACTION_PARKED, Severity.WARNING, None, after, containment="parked", reason=reason),),
    )


def suppressed_first(row: Row, reason: str) -> Change:
    """The row of an action that the gate suppressed: final for the machine, replayable by a person while unexpired."""
    return _untried(row, SUPPRESSED, reason, AuditType.ACTION_SUPPRESSED, "suppressed")


def held_first(row: Row, reason: str) -> Change:
    """The row of an event whose source a person has put on hold: only a person resumes it, by a replay."""
    return _untried(row, HELD, reason, AuditType.ACTION_PARKED, "kept with its envelope")


def quarantined_first(row: Row, reason: str) -> Change:
    """The row of an event that a rule keeps aside: only a person sends it on, by a replay."""
    return _untried(row, QUARANTINED, reason, AuditType.ACTION_PARKED, "kept with its envelope")


def expired_first(row: Row, reason: str) -> Change:
    """The row of an action that was too late before its first attempt."""
    return _untried(row, "EXPIRED", reason, AuditType.DISMISSED, "not sent")


def _untried(row: Row, code: str, reason: str, event_type: AuditType, containment: str) -> Change:
    """The row of what was stopped before anything was tried, with the one audit event that says by what."""
    after = _first(row, Status.FAILED, reason, failure_code=code, failure_detail=reason)
    audit = audit_of(event_type, Severity.WARNING, None, after, containment=containment, reason=reason)
    return Change(after, None, (audit,))


def unknown_first(row: Row, detail: str) -> Change:
    """The row of an action whose owner died and left an outcome that nothing can tell: for a person."""
    after = _first(
        row,
        Status.FAILED,
        OUTCOME_UNKNOWN,
        effect=Effect.UNKNOWN,
        failure_class=FailureClass.UNKNOWN_OUTCOME.value,
        failure_code=OUTCOME_UNKNOWN,
        failure_detail=detail[:DETAIL_LENGTH],
        root_cause=PROPOSED_ROOT_CAUSE[FailureClass.UNKNOWN_OUTCOME].value,
    )
    return Change(
        after,
        None,
        (
            audit_of(AuditType.FAILURE_DETECTED, Severity.ERROR, None, after),
            audit_of(AuditType.FAILURE_CONTAINED, Severity.ERROR, None, after, containment="waits for a person"),
        ),
    )


def dead_first(row: Row, code: str, detail: str, root_cause: RootCause, status: Status) -> Change:
    """The row of a whole event that cannot be processed (`dlq`), or that only a person can judge (`failed`)."""
    if status not in (Status.FAILED, Status.DLQ):
        raise IllegalTransition(f"{row.recovery_id} is dead: it cannot be {status}")
    after = _first(
        row,
        status,
        code,
        failure_class=FailureClass.DATA_ERROR.value
        if root_cause is not RootCause.TRANSIENT_INFRA
        else FailureClass.TRANSIENT.value,
        failure_code=code,
        failure_detail=detail[:DETAIL_LENGTH],
        root_cause=root_cause.value,
    )
    return Change(
        after,
        None,
        (
            audit_of(AuditType.FAILURE_DETECTED, Severity.ERROR, None, after),
            audit_of(AuditType.FAILURE_CONTAINED, Severity.ERROR, None, after, containment="kept with its envelope"),
        ),
    )


# --------------------------------------------------------------------------------------------------------- transitions


def history_of(row: Row) -> History:
    """What earlier attempts may have left behind. The first lease has ended: a setting is read first in any case."""
    return History(
        had_lease=True,
        may_have_been_sent=row.effect is Effect.UNKNOWN,
        first_sent_at_ms=row.first_sent_at_ms,
        last_possible_send_ms=row.last_possible_send_ms,
        stored_errors=row.stored_errors,
    )


def may_claim(row: Row, now_ms: int) -> bool:
    """Open, without a live lease, without an unfinished parent, and not before its time."""
    return row.is_open and not row.waits_for and row.lease_until_ms <= now_ms and row.not_before_ms <= now_ms


def claim(row: Row, now_ms: int, lease_until_ms: int, request_id: str) -> Change:
    """Take the row for one attempt, which counts. An ended lease that nobody cleared is a takeover: what its owner did
    is unknown.
    """
    if not may_claim(row, now_ms):
        raise IllegalTransition(
            f"{row.recovery_id} cannot be claimed: {row.status}, lease {row.lease_until_ms}, "
            f"not before {row.not_before_ms}"
        )
    if lease_until_ms <= now_ms:
        raise IllegalTransition(f"{row.recovery_id} cannot be claimed until {lease_until_ms}: that is over")
    is_takeover = row.lease_until_ms > 0
    seen = _abandoned(row) if is_takeover else row
    after = _next(
        seen,
        now_ms,
        "taken over" if is_takeover else "claimed",
        status=row.status if row.status is Status.REPLAYED else Status.RETRYING,
        attempt_count=row.attempt_count if is_takeover and row.verify_only else row.attempt_count + 1,
        first_attempt_at_ms=row.first_attempt_at_ms or now_ms,
        lease_until_ms=lease_until_ms,
        due_at_ms=lease_until_ms,
        waiting_for=WaitingFor.NOTHING,
        slot_ms=0,  # whoever takes it over cannot know whether it was used
        # A replay is the operator's operation: what comes of it is found under the request id that was answered.
        request_id=row.request_id if row.status is Status.REPLAYED else request_id,
    )
    return Change(after, row)


def _abandoned(row: Row) -> Row:
    """What is known once a claim's owner has not come back: it may have sent, at any moment between its claim and the
    lease's end.
    """
    if row.verify_only:  # such a claim only asks
        return replace(row, takeovers=row.takeovers + 1)
    return replace(
        row,
        takeovers=row.takeovers + 1,
        first_sent_at_ms=row.first_sent_at_ms or row.updated_at_ms,
        last_possible_send_ms=max(row.last_possible_send_ms, row.lease_until_ms),
        effect=Effect.UNKNOWN if row.tracks_effect else row.effect,
    )


def _was_abandoned(row: Row, now_ms: int) -> bool:
    return 0 < row.lease_until_ms <= now_ms


def _must_be_seen_again(row: Row, at_ms: int) -> None:
    if at_ms <= 0 and not row.waits_for:
        raise IllegalTransition(f"{row.recovery_id} waits for no other item: it needs a time at which to look again")


def _must_not_be_leased(row: Row, now_ms: int) -> None:
    """Another version under a claim's owner would keep it from storing what it did."""
    if row.lease_until_ms > now_ms:
        raise IllegalTransition(f"{row.recovery_id} is under way until {row.lease_until_ms}")


def _must_be_claimed(row: Row) -> None:
    if not row.is_open or row.lease_until_ms == 0:
        raise IllegalTransition(f"{row.recovery_id} is {row.status}, lease {row.lease_until_ms}: nobody has claimed it")


def hinted(row: Row, now_ms: int, scale: float) -> Change:
    """The sweeper is about to send a hint: look again only if nothing comes of it."""
    if not row.is_open:
        raise IllegalTransition(f"{row.recovery_id} is {row.status}: there is nothing to hint at")
    _must_not_be_leased(row, now_ms)
    later = max(row.due_at_ms, now_ms) + int(REHINT_SECONDS * 1000 * scale)
    return Change(replace(row, version=row.version + 1, due_at_ms=later), row)


def hint_died(row: Row, why: str, now_ms: int) -> Change:
    """A queue gave its hint up before any worker had claimed it, which is nothing that the row did: the sweeper wakes
    it again when it is due. How often that has happened in a row is counted.
    """
    if not row.is_open:
        raise IllegalTransition(f"{row.recovery_id} is {row.status}: its hints mean nothing any more")
    _must_not_be_leased(row, now_ms)
    after = _next(row, now_ms, why, dead_hints=row.dead_hints + 1, dead_hint_version=row.version + 1)
    # A claim that nobody cleared was made when it was last updated: see `annotate`.
    return Change(replace(after, updated_at_ms=row.updated_at_ms), row)


def put_off(row: Row, due_at_ms: int) -> Change:
    """The sweeper saw it and cannot use it yet: look again then (0: never by itself). Nothing about it has changed."""
    if not row.is_open:
        raise IllegalTransition(f"{row.recovery_id} is {row.status}: nobody will look at it again")
    _must_be_seen_again(row, due_at_ms)
    return Change(replace(row, version=row.version + 1, due_at_ms=due_at_ms), row)


def defer(
    row: Row, waiting_for: WaitingFor, reason: str, until_ms: int, now_ms: int, *, uncount: bool, **fields: Any
) -> Change:
    """Put off without an attempt being spent. `uncount`: its claimant does it, whose claim had counted one already.

    Without a claim, an ended lease that nobody cleared keeps its meaning: what its owner did is unknown.
    """
    if not row.is_open:
        raise IllegalTransition(f"{row.recovery_id} is {row.status}: it cannot be put off")
    _must_be_seen_again(row, until_ms)
    if uncount:
        _must_be_claimed(row)
        known = row
    else:
        _must_not_be_leased(row, now_ms)
        known = _abandoned(row) if _was_abandoned(row, now_ms) else row
    attempts = row.attempt_count - 1 if uncount else _calls(row)
    status = row.status
    if status is not Status.REPLAYED:
        status = Status.RETRYING if attempts > 0 else Status.PENDING
    after = _next(
        known,
        now_ms,
        reason,
        status=status,
        attempt_count=attempts,
        lease_until_ms=0,
        not_before_ms=until_ms,
        due_at_ms=until_ms,
        waiting_for=waiting_for,
        **fields,
    )
    if waiting_for is row.waiting_for and not uncount:  # a poll that found nothing new is no event
        return Change(after, row)
    return Change(
        after,
        row,
        (audit_of(AuditType.ACTION_PARKED, Severity.WARNING, row, after, containment="parked", reason=reason),),
    )


def after_attempt(
    row: Row,
    rules: KindRules,
    policy: RetryPolicy,
    result: Result,
    now_ms: int,
    rng: Random,
    scale: float,
    *,
    was_sent: bool,
    is_probe: bool = False,
) -> Change:
    """What one claimed attempt leads to. `was_sent` is False where only a read or lookup failed.

    `is_probe`: it was to find out whether an integration that is down is back, so that its failure, if it is worth a
    retry at all, spends no attempt: what it may have done stays on record.
    """
    _must_be_claimed(row)
    if isinstance(result, Done | Superseded):
        return succeeded(row, result, now_ms)
    after, kind, severity = _after_failure(
        row, rules, policy, result, now_ms, rng, scale, was_sent=was_sent, is_probe=is_probe
    )
    event = audit_of(kind, severity, row, after, containment=_containment(after))
    return Change(after, row, (*_first_failure(row, after), event))


def _first_failure(row: Row, after: Row) -> tuple[AuditEvent, ...]:
    """What a row that had only waited so far met now for the first time: detected, and contained."""
    if row.failure_class or not after.failure_class:
        return ()
    contained = f"{after.status.value}: {_containment(after)}"
    return (
        audit_of(AuditType.FAILURE_DETECTED, Severity.WARNING, row, after),
        audit_of(AuditType.FAILURE_CONTAINED, Severity.WARNING, row, after, containment=contained),
    )


def succeeded(row: Row, result: Done | Superseded, now_ms: int) -> Change:
    """The effect is there, or nobody wants it any more. The caller releases children, in the same transaction."""
    _must_be_claimed(row)
    is_replay = row.status is Status.REPLAYED
    is_done = isinstance(result, Done)
    after = _next(
        row,
        now_ms,
        "succeeded" if is_done else "superseded",
        status=Status.REPLAYED if is_replay else Status.SUCCEEDED,
        result="succeeded" if is_replay else "",
        attempt_count=_calls(row),
        effect=Effect.DONE if is_done else row.effect,
        provider_id=result.provider_id if isinstance(result, Done) else row.provider_id,
        failure_detail=row.failure_detail
        if isinstance(result, Done)
        else f"superseded: {result.detail}"[:DETAIL_LENGTH],
        lease_until_ms=0,
        not_before_ms=0,
        due_at_ms=0,
        waiting_for=WaitingFor.NOTHING,
        verify_only=False,
    )
    reason = "" if is_done else after.failure_detail
    return Change(after, row, (audit_of(AuditType.REPROCESS_SUCCEEDED, Severity.WARNING, row, after, reason=reason),))


def absent(row: Row, now_ms: int) -> Change:
    """A last lookup, after the last attempt, found nothing: the row is dead, and known to be without effect."""
    _must_be_claimed(row)
    if not row.verify_only:
        raise IllegalTransition(f"{row.recovery_id} has attempts left: what is absent is sent again")
    after = _dead(
        replace(row, effect=Effect.NONE), Status.DLQ, now_ms, "looked up after the last attempt: nothing there"
    )
    return Change(after, row, (audit_of(_exhausted(row), Severity.ERROR, row, after, containment="kept for replay"),))


def unknown_outcome(row: Row, detail: str, now_ms: int) -> Change:
    """Nothing can tell whether it happened: for a person."""
    _must_be_claimed(row)
    after = _dead(
        replace(
            row,
            effect=Effect.UNKNOWN,
            failure_class=FailureClass.UNKNOWN_OUTCOME.value,
            failure_code=OUTCOME_UNKNOWN,
            failure_detail=detail[:DETAIL_LENGTH],
            root_cause=PROPOSED_ROOT_CAUSE[FailureClass.UNKNOWN_OUTCOME].value,
        ),
        Status.FAILED,
        now_ms,
        OUTCOME_UNKNOWN,
    )
    event = audit_of(AuditType.REPROCESS_FAILED, Severity.ERROR, row, after, containment="waits for a person")
    return Change(after, row, (*_first_failure(row, after), event))


def worker_died(row: Row, now_ms: int) -> Change:
    """Every attempt ended with its worker: stop before it takes another one down."""
    if not row.is_open or not _was_abandoned(row, now_ms):
        raise IllegalTransition(f"{row.recovery_id} is {row.status}, lease {row.lease_until_ms}: nobody died on it")
    known = _abandoned(row)
    after = _dead(
        replace(
            known,
            failure_class=FailureClass.UNKNOWN_OUTCOME.value,
            failure_code=WORKER_DIED,
            failure_detail=f"{known.takeovers} workers died on it",
            root_cause=RootCause.CODE_DEFECT.value,
        ),
        Status.DLQ,
        now_ms,
        WORKER_DIED,
    )
    event = audit_of(_to_dlq(row), Severity.ERROR, row, after, containment="kept for replay")
    return Change(after, row, (*_first_failure(row, after), event))


def _to_dlq(row: Row) -> AuditType:
    return AuditType.REPROCESS_FAILED if row.status is Status.REPLAYED else AuditType.RETRY_EXHAUSTED


def poisoned(row: Row, detail: str, now_ms: int) -> Change:
    """No worker can do anything with it: a queue gave up its hints one after the other, or the catalog has no such
    thing. A claim that nobody cleared may have sent.
    """
    if not row.is_open or row.lease_until_ms > now_ms:
        raise IllegalTransition(f"{row.recovery_id} is {row.status}, lease {row.lease_until_ms}: it is not poison")
    known = _abandoned(row) if _was_abandoned(row, now_ms) else row
    after = _dead(
        replace(
            known,
            failure_class=row.failure_class or FailureClass.DATA_ERROR.value,
            failure_code=POISONED,
            failure_detail=detail[:DETAIL_LENGTH],
            root_cause=RootCause.CODE_DEFECT.value,
        ),
        Status.DLQ,
        now_ms,
        POISONED,
    )
    event = audit_of(_to_dlq(row), Severity.ERROR, row, after, containment="kept for replay")
    return Change(after, row, (*_first_failure(row, after), event))


def quarantine(row: Row, reason: str, now_ms: int) -> Change:
    """A rule keeps it aside before its next attempt: only a person sends it on, by a replay. What a person has replayed
    already is not kept. Its last failure stands in its history.
    """
    if row.status not in (Status.PENDING, Status.RETRYING):
        raise IllegalTransition(f"{row.recovery_id} is {row.status}: no rule keeps it aside")
    _must_not_be_leased(row, now_ms)
    known = _abandoned(row) if _was_abandoned(row, now_ms) else row
    marked = replace(known, failure_code=QUARANTINED, failure_detail=reason[:DETAIL_LENGTH])
    after = _dead(marked, Status.FAILED, now_ms, reason)
    event = audit_of(AuditType.ACTION_PARKED, Severity.WARNING, row, after, containment="kept aside", reason=reason)
    return Change(after, row, (event,))


def suppress(row: Row, reason: str, now_ms: int) -> Change:
    """The gate suppressed it after a claim, which was no attempt then."""
    _must_be_claimed(row)
    held = replace(
        row,
        attempt_count=row.attempt_count - 1,
        failure_class="",
        failure_code=SUPPRESSED,
        failure_detail=reason[:DETAIL_LENGTH],
    )
    after = _dead(held, Status.FAILED, now_ms, reason)
    return Change(
        after,
        row,
        (audit_of(AuditType.ACTION_SUPPRESSED, Severity.WARNING, row, after, containment="suppressed", reason=reason),),
    )


def end(row: Row, code: str, reason: str, now_ms: int, *, actor: str = MACHINE, request_id: str = "") -> Change:
    """End it for good: `CANCELLED`, `EXPIRED`, `DISMISSED` or `DONE_BY_HAND`."""
    if code not in FINAL_CODES or row.is_final:
        raise IllegalTransition(f"{row.recovery_id} is {row.status} {row.failure_code}: it cannot end as {code}")
    if actor != MACHINE:
        _must_not_be_leased(row, now_ms)
    known = _abandoned(row) if _was_abandoned(row, now_ms) else row
    marked = replace(
        known, failure_code=code, failure_detail=reason[:DETAIL_LENGTH], request_id=request_id or row.request_id
    )
    if code == "DONE_BY_HAND":
        marked = replace(marked, effect=Effect.DONE)
    after = _dead(marked, Status.FAILED, now_ms, reason)
    return Change(
        after, row, (audit_of(AuditType.DISMISSED, Severity.WARNING, row, after, actor=actor, reason=reason),)
    )


def release(child: Row, parent_id: str, now_ms: int) -> Change:
    """A parent succeeded: the child waits for one less, and is due when that was the last."""
    if not child.is_open or parent_id not in child.waits_for:
        raise IllegalTransition(f"{child.recovery_id} is {child.status} and does not wait for {parent_id}")
    left = tuple(waited for waited in child.waits_for if waited != parent_id)
    at_ms = max(now_ms, child.slot_ms)
    waiting_for = WaitingFor.LIMITER if at_ms > now_ms else WaitingFor.NOTHING
    due = {} if left else {"not_before_ms": at_ms, "due_at_ms": at_ms, "waiting_for": waiting_for}
    return Change(_next(child, now_ms, "a required action is done", waits_for=left, **due), child)


def annotate(row: Row, why: str, now_ms: int, **fields: Any) -> Change:
    """What a person says of it, in its history; it stays what it was, and as old as it was. Raises `IllegalTransition`
    while a worker is at it, whose outcome another version would keep out.
    """
    _must_not_be_leased(row, now_ms)
    after = _next(row, now_ms, why, dead_hints=row.dead_hints, **fields)
    # A claim that nobody cleared was made when it was last updated: a key's window is counted from there.
    return Change(replace(after, updated_at_ms=row.updated_at_ms), row)


def why_not_replayable(row: Row, now_ms: int, *, is_verified: bool = False) -> str | None:
    """Why a replay of the row is refused, or None if it is allowed (runbook 004: only `failed` and `dlq`).

    `is_verified`: its attempt will find out whether it has happened before it does it again.
    """
    if row.status not in (Status.FAILED, Status.DLQ):
        return f"status_{row.status.value}"
    if row.is_final:
        return f"ended_{row.failure_code.lower()}"
    if row.effect is Effect.UNKNOWN and not is_verified:
        return "effect_unknown"
    if row.subject is Subject.EVENT and now_ms - row.received_at_ms > TOO_OLD_TO_REPLAY_MS:
        return "too_old"
    if row.subject is Subject.ACTION and now_ms >= replay_expires_at(row):
        return "expired"
    return None


def replay_expires_at(row: Row) -> int:
    """Until when a replayed action may be sent: a reply has longer when a person asks for it."""
    if row.action is not None and row.action.expires_seconds == REPLY_EXPIRES_SECONDS:
        return row.received_at_ms + REPLAYED_REPLY_EXPIRES_SECONDS * 1000
    return row.expires_at_ms


def replay(
    row: Row,
    now_ms: int,
    *,
    actor: str,
    reason: str,
    request_id: str,
    job_id: str,
    scale: float,
    is_verified: bool = False,
    not_before_ms: int = 0,
    look_only: bool = False,
    incident_id: str = "",
) -> Change:
    """One more attempt with the same key, because a person asked for it. The row is due by itself if the message is
    lost. `is_verified`: see `why_not_replayable`. `look_only`: it finds out what has happened, and sends nothing.
    """
    refused = why_not_replayable(row, now_ms, is_verified=is_verified)
    if refused is not None:
        raise IllegalTransition(f"{row.recovery_id} cannot be replayed: {refused}")
    after = _next(
        row,
        now_ms,
        f"replayed by {actor}: {reason}",
        status=Status.REPLAYED,
        replayed_from=row.status.value,
        replay_no=row.replay_no + 1,
        result="",
        job_id=job_id,
        request_id=request_id,
        first_attempt_at_ms=0,  # its claim starts a time budget of its own
        lease_until_ms=0,
        takeovers=0,
        verify_only=look_only,
        not_before_ms=max(now_ms, not_before_ms),
        due_at_ms=max(now_ms, not_before_ms) + int(REHINT_SECONDS * 1000 * scale),
        expires_at_ms=max(row.expires_at_ms, replay_expires_at(row)),
        waiting_for=WaitingFor.NOTHING,
        slot_ms=0,  # no sweeper paces it
        incident_id=incident_id or row.incident_id,
    )
    return Change(after, row, (audit_of(AuditType.REPLAYED, Severity.WARNING, row, after, actor=actor, reason=reason),))


TAKEN_BACK = "taken_back"


def may_take_back(row: Row, job_id: str) -> bool:
    """Whether a job may take its replay of the row back: nobody has claimed it, and it has sent nothing that could have
    come about. A claim that nobody cleared may have sent.
    """
    is_its_own = row.status is Status.REPLAYED and row.is_open and row.job_id == job_id
    may_have_sent = row.effect is Effect.UNKNOWN and row.first_attempt_at_ms > 0
    return is_its_own and row.lease_until_ms == 0 and not may_have_sent


def take_back(row: Row, now_ms: int, *, actor: str, reason: str) -> Change:
    """The row's job ends before it was tried: it is again where it was. Hints that are under way are out of date."""
    if not may_take_back(row, row.job_id):
        raise IllegalTransition(f"{row.recovery_id} is {row.status}, lease {row.lease_until_ms}: it is not taken back")
    after = _next(
        row,
        now_ms,
        f"taken back: {reason}",
        status=Status(row.replayed_from),
        result=TAKEN_BACK,
        not_before_ms=0,
        due_at_ms=0,
        waiting_for=WaitingFor.NOTHING,
        verify_only=False,
        slot_ms=0,
    )
    event = audit_of(AuditType.REPLAY_TAKEN_BACK, Severity.WARNING, row, after, actor=actor, reason=reason)
    return Change(after, row, (event,))


# ------------------------------------------------------------------------------------------------------------- failing


def _after_failure(
    row: Row,
    rules: KindRules,
    policy: RetryPolicy,
    failure: Failure,
    now_ms: int,
    rng: Random,
    scale: float,
    *,
    was_sent: bool,
    is_probe: bool,
) -> tuple[Row, AuditType, Severity]:
    """The claimed row after a failed attempt, and the audit event of the transition."""
    seen = interpret(rules, failure) if was_sent else failure
    effect = effect_after(rules, row.effect, failure, was_sent=was_sent)
    sent = was_sent and failure.may_have_happened
    marked = replace(
        row,
        effect=effect,
        failure_class=seen.failure_class.value,
        failure_code=seen.code,
        failure_detail=seen.detail[:DETAIL_LENGTH],
        response_snapshot=failure.answer,
        first_sent_at_ms=(row.first_sent_at_ms or now_ms) if sent else row.first_sent_at_ms,
        last_possible_send_ms=now_ms if sent else row.last_possible_send_ms,
        stored_errors=_stored_errors(row, seen) if was_sent else row.stored_errors,
        root_cause=seen.root_cause.value,
    )
    if seen.wants_credential:
        due_ms = now_ms + int(POLL_SECONDS * 1000 * scale)
        after = _waiting(marked, WaitingFor.CREDENTIAL, due_ms, now_ms, seen.code, uncount=True)
        return after, AuditType.ACTION_PARKED, Severity.CRITICAL
    if not seen.is_retryable:
        return _dead(marked, Status.FAILED, now_ms, seen.code), AuditType.REPROCESS_FAILED, Severity.ERROR
    stated = seen.retry_after_ms if seen.failure_class is FailureClass.RATE_LIMITED else None
    wait = wait_ms(policy, row.attempt_count, seen, rng, scale)
    due_ms = now_ms + wait
    must_verify = effect is Effect.UNKNOWN and rules.can_look_up
    believed_ms = settled_at(rules, marked.last_possible_send_ms, scale) if must_verify else 0
    if rules.repeat is Repeat.LOOKUP:
        due_ms = max(due_ms, believed_ms)
    started_ms = row.first_attempt_at_ms or now_ms
    if stated is not None and due_ms - started_ms <= policy.budget_seconds * 1000:
        after = _waiting(marked, WaitingFor.PROVIDER_RESET, due_ms, now_ms, seen.code, uncount=True)
        return after, AuditType.RETRY_SCHEDULED, Severity.WARNING
    if is_probe:
        due_ms = max(now_ms + int(POLL_SECONDS * 1000 * scale), believed_ms)
        after = _waiting(marked, WaitingFor.HEALTH, due_ms, now_ms, seen.code, uncount=True)
        return after, AuditType.ACTION_PARKED, Severity.WARNING
    is_replay = row.status is Status.REPLAYED  # which is one attempt
    if not is_replay and not is_exhausted(policy, row.attempt_count, started_ms, due_ms):
        after = _waiting(marked, WaitingFor.BACKOFF, due_ms, now_ms, seen.code, uncount=row.verify_only)
        return after, AuditType.RETRY_SCHEDULED, Severity.WARNING
    verify_ms = max(due_ms, believed_ms)
    if must_verify and verify_ms - started_ms <= policy.budget_seconds * 1000:
        after = _waiting(
            replace(marked, verify_only=True), WaitingFor.TIME, verify_ms, now_ms, seen.code, uncount=row.verify_only
        )
        return after, AuditType.RETRY_SCHEDULED, Severity.WARNING
    return _dead(marked, Status.DLQ, now_ms, seen.code), _exhausted(row), Severity.ERROR


def _exhausted(row: Row) -> AuditType:
    """What the audit calls the end of the last attempt: a replay's is not the retries'."""
    return AuditType.REPROCESS_FAILED if row.status is Status.REPLAYED else AuditType.RETRY_EXHAUSTED


def _stored_errors(row: Row, seen: Failure) -> int:
    if seen.status is None or seen.status < 500:
        return 0
    return row.stored_errors + 1 if row.failure_code == seen.code else 1


def _waiting(row: Row, waiting_for: WaitingFor, due_ms: int, now_ms: int, why: str, *, uncount: bool) -> Row:
    attempts = row.attempt_count - 1 if uncount else row.attempt_count
    status = row.status
    if status is not Status.REPLAYED:
        is_untried = waiting_for in (WaitingFor.CREDENTIAL, WaitingFor.HEALTH) and attempts <= 0
        status = Status.PENDING if is_untried else Status.RETRYING
    return _next(
        row,
        now_ms,
        why,
        status=status,
        attempt_count=attempts,
        lease_until_ms=0,
        not_before_ms=due_ms,
        due_at_ms=due_ms,
        waiting_for=waiting_for,
    )


def _calls(row: Row) -> int:
    """The attempts that count. A claim that only looks whether the last one worked is none."""
    return row.attempt_count - 1 if row.verify_only and row.lease_until_ms > 0 else row.attempt_count


def _dead(row: Row, status: Status, now_ms: int, why: str) -> Row:
    is_replay = row.status is Status.REPLAYED
    return _next(
        row,
        now_ms,
        why,
        status=status,
        result="failed" if is_replay else row.result,
        attempt_count=_calls(row),
        lease_until_ms=0,
        not_before_ms=0,
        due_at_ms=0,
        waiting_for=WaitingFor.NOTHING,
        waits_for=(),
        verify_only=False,
    )


def _containment(row: Row) -> str:
    if row.is_open:
        return f"waits for {row.waiting_for.value or 'its time'}"
    return "kept for replay" if row.status is Status.DLQ else "waits for a person"


# ------------------------------------------------------------------------------------------------------------ fallback


@dataclass(frozen=True, slots=True)
class NextWay:
    """The way that an action goes on by: its hop, what it is there, and the row of the matrix that says so."""

    row: str
    hop: int
    kind: str
    integration: str
    repeat: Repeat


def hopped(row: Row, way: NextWay, why: str, now_ms: int, *, failed: Row | None = None) -> Change:
    """The action goes on by another way, due at once, with all its attempts: one write, which is the hop.

    `failed` is the dead row that the last attempt would have led to; without it the present way is left because of its
    integration's health, by whoever holds no claim of it. Only what is known to have had no effect may go: anything
    else would happen twice.
    """
    if failed is None:
        _must_not_be_leased(row, now_ms)  # its owner may be sending it
    _must_be_able_to_hop(row if failed is None else failed, row, way, now_ms)
    seen = row if failed is None else _with_failure(row, failed)
    status = Status.REPLAYED if row.status is Status.REPLAYED else Status.PENDING
    after = _next(seen, now_ms, why, status=status, due_at_ms=now_ms, **_on(way, row, why))
    hop = _hop_event(row, after, way)
    detected = [event for event in _first_failure(row, after) if event.event_type is AuditType.FAILURE_DETECTED]
    return Change(after, row, (*detected, hop))


def hopped_first(row: Row, way: NextWay, why: str, now_ms: int, *, failed: Row) -> Change:
    """The row of an action whose first way failed for good in the event's first pass. `row` is its blank."""
    _must_be_able_to_hop(failed, row, way, now_ms)
    after = _first(_with_failure(row, failed), Status.PENDING, why, due_at_ms=now_ms, **_on(way, row, why))
    detected = audit_of(AuditType.FAILURE_DETECTED, Severity.WARNING, None, after)
    return Change(after, None, (detected, _hop_event(None, after, way)))


def by_hand(row: Row, matrix_row: str, task: str, why: str, now_ms: int) -> Change:
    """Nothing is left that could be tried: a person does it, and somebody is told at once. It has had no effect."""
    if not row.is_open or row.effect is Effect.UNKNOWN or _was_abandoned(row, now_ms):
        raise IllegalTransition(f"{row.recovery_id} is {row.status}, effect {row.effect}: it is not for a person yet")
    _must_not_be_leased(row, now_ms)
    after = _dead(_for_a_person(row, task, why), Status.FAILED, now_ms, why)
    event = _person_event(AuditType.REPROCESS_FAILED, row, after, matrix_row, task)
    return Change(after, row, (*_first_failure(row, after), event))


def by_hand_first(row: Row, matrix_row: str, task: str, why: str) -> Change:
    """The row of an action that nothing could be tried for in the event's first pass: see `by_hand`."""
    after = _first(_for_a_person(row, task, why), Status.FAILED, why)
    detected = audit_of(AuditType.FAILURE_DETECTED, Severity.CRITICAL, None, after)
    return Change(after, None, (detected, _person_event(AuditType.FAILURE_CONTAINED, None, after, matrix_row, task)))


def handed_over(change: Change, matrix_row: str, task: str) -> Change:
    """The change that killed a row, where what it was about must arrive all the same: a person does it."""
    audit = tuple(
        replace(event, severity=Severity.CRITICAL, containment_action=f"{matrix_row}: {task}") for event in change.audit
    )
    return replace(change, audit=audit)


def hop_event(row: Row, way: NextWay) -> AuditEvent:
    """That an action's first pass took a hop, which its ledger item stored: there may never be a row of it."""
    event = _hop_event(None, row, way)
    return replace(event, id=audit_id(f"{row.recovery_id}#{way.hop}", 0, event.event_type))


def _must_be_able_to_hop(known: Row, row: Row, way: NextWay, now_ms: int) -> None:
    """`known` is what the last attempt leaves known. A lease that is over without an outcome may have sent."""
    is_forward = way.hop > row.hop and way.integration != row.integration_id
    is_unclear = known.effect is Effect.UNKNOWN or (_was_abandoned(row, now_ms) and row.tracks_effect)
    if not row.is_open or not is_forward or is_unclear:
        raise IllegalTransition(
            f"{row.recovery_id} is {row.status}, hop {row.hop} on {row.integration_id}, effect {known.effect}: it "
            f"cannot go on by hop {way.hop} on {way.integration}"
        )


def _with_failure(row: Row, failed: Row) -> Row:
    return replace(
        row,
        failure_class=failed.failure_class,
        failure_code=failed.failure_code,
        failure_detail=failed.failure_detail,
        root_cause=failed.root_cause,
    )


def _on(way: NextWay, row: Row, why: str) -> dict[str, Any]:
    """What is different on another way: everything that was known of the one before, and of its attempts, is over."""
    return {
        "integration_id": way.integration,
        "hop": way.hop,
        "hops": (*row.hops, f"{row.integration_id}:{why}"),
        "hop_kind": way.kind,
        "hop_repeat": way.repeat.value,
        "attempt_count": 0,
        "first_attempt_at_ms": 0,
        "first_sent_at_ms": 0,
        "last_possible_send_ms": 0,
        "stored_errors": 0,
        "takeovers": 0,
        "verify_only": False,
        "lease_until_ms": 0,
        "not_before_ms": 0,
        "effect": Effect.NONE,
        "waiting_for": WaitingFor.NOTHING,
        "credential_version": "",
        "slot_ms": 0,
    }


def _hop_event(before: Row | None, after: Row, way: NextWay) -> AuditEvent:
    containment = f"{way.row}: {way.kind} takes over"
    return audit_of(AuditType.FAILURE_CONTAINED, Severity.WARNING, before, after, containment=containment)


def _for_a_person(row: Row, task: str, why: str) -> Row:
    return replace(row, failure_class="", failure_code=task.upper(), failure_detail=why[:DETAIL_LENGTH])


def _person_event(kind: AuditType, before: Row | None, after: Row, matrix_row: str, task: str) -> AuditEvent:
    return audit_of(kind, Severity.CRITICAL, before, after, containment=f"{matrix_row}: {task}")
