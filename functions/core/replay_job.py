"""A bulk replay as a durable job: what it can be, how large its next step is, and when it stops itself. Pure;
`ports.ReplayJobs` stores it (architecture §7).

    planning ──▶ planned ──approve──▶ approved ──▶ running ──▶ finished
       │            │                    ▲  │  pause  │
       ▼            ▼                resume └─▶ paused ◀┘   running ──trouble──▶ stopping ──▶ stopped
     failed     cancelled                        approved, running, paused ──cancel──▶ stopping ──▶ cancelled

The job's record moves with its version, and whoever works on it holds a lease. Which rows a batch takes is stored
before any of them is touched, and each row is replayed on condition of the version that the plan saw and of the job's
own: a job that is taken over, at whatever moment, replays no row twice, and one that was stopped replays none at all.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from functions.core.attempt import Effect
from functions.core.audit import MACHINE, AuditEvent, AuditType, Severity, audit_id
from functions.core.compact import compact
from functions.core.failure import HoldfastError
from functions.core.machine import ABSENT, Machine, steps
from functions.core.recovery import FINAL_CODES, SUPPRESSED, TAKEN_BACK, Row, Status
from functions.core.replay import Ground, Plan

ENTITY = "replay_job"
MOST_ITEMS = 20_000  # of one job
MOST_SEEN = 100_000  # rows that one plan tells of, those included that it leaves alone
MOST_FILTER_LENGTH = 32_768  # characters of its JSON: the job's item and its audit events hold it, of 400 KB each
PLANNING_MS = 3_600_000  # whoever asked has long given up
LEASE_MS = 90_000  # renewed by every step
PLAN_GOOD_FOR_MS = 30 * 60_000
SIZES = (5, 10, 25, 50, 100)  # the canary, and how batches grow after one without a failure
WINDOW_MS = 60_000  # a batch is no more than can be called in this time, so that it is soon known how it went
PATIENCE_MS = 600_000  # for the rows of a batch to come to an end, lookups that must wait included
SHORTEST_PATIENCE_MS = 60_000  # however much waits are shortened: queues and workers have their own time
HOLD_MS = 120_000  # that long no batch is begun because live traffic waits; then the job stops
SHORTEST_HOLD_MS = 30_000
LIVE_BACKLOG = 100  # messages that wait in the events queue
LIVE_LEAD_MS = 30_000  # how long whoever asks the limiter now waits
RECENT = 50  # outcomes that the ratios are taken of
RATIO_OF = 10  # outcomes at least
MOST_FAILED = 0.1
MOST_FAILED_OF_CANARY = 1
MOST_UNCLEAR = 1  # of the recent ones
MOST_IN_A_ROW = 4
MOST_KEPT = 50  # jobs on the board


class State(StrEnum):
    """Of a job."""

    PLANNING = "planning"
    PLANNED = "planned"
    APPROVED = "approved"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    FINISHED = "finished"
    FAILED = "failed"


JOB = Machine(
    "replay job",
    "A bulk replay: item `J#…` of the control table, written on condition of the version seen, with its audit event "
    "and the board of jobs in the same transaction. What it does to a row is that row's `replay` and `take_back`.",
    steps(
        (ABSENT, "ask", "planning", "Who, why, which filter; nothing is looked at before that"),
        ("planning", "plan", "planned", "What would become of each row that is meant, and the hash of those that go"),
        ("planning", "fail", "failed", "More than can be looked through, or not planned within an hour"),
        ("planning|planned", "cancel", "cancelled", "Nothing was replayed"),
        ("planned", "approve", "approved", "The plan is still right: the job takes its integrations, each for itself"),
        ("approved", "begin", "running", "The canary comes first"),
        ("approved|running", "pause", "paused", "No batch begins; the one that is under way comes to its end"),
        ("paused", "resume", "approved", "It goes on where it was"),
        ("running", "stop", "stopping", "By itself: failures, health, a switch, live traffic. The reason is kept"),
        ("approved|running|paused", "cancel", "stopping", "By a person"),
        ("stopping", "end", "stopped", "What was not sent is back where it came from; the integrations are free"),
        ("stopping", "end", "cancelled", "Likewise, after a person's cancel"),
        ("running", "finish", "finished", "Every row of the plan has an outcome"),
        ("planning|approved|running|stopping", "lease", "=", "Somebody works on it until then"),
        (
            "running",
            "checkpoint",
            "=",
            "Which rows the next batch takes, before any of them; what became of them, after",
        ),
    ),
)
WORKED_ON = frozenset({State.PLANNING, State.APPROVED, State.RUNNING, State.STOPPING})
HOLDING = frozenset({State.APPROVED, State.RUNNING, State.PAUSED, State.STOPPING})
OVER = frozenset({State.STOPPED, State.CANCELLED, State.FINISHED, State.FAILED})


class JobConflict(HoldfastError):
    """The job is in no state for that. `state` is the one that it is in."""

    def __init__(self, job: Job, what: str) -> None:
        super().__init__(f"the job is {job.state.value}: it cannot be {what}")
        self.state = job.state


class PlanStale(HoldfastError):
    """The plan is not what would be done now. The text says why."""


class IntegrationTaken(HoldfastError):
    """Another job has the integration."""

    def __init__(self, integration: str, job_id: str) -> None:
        super().__init__(f"the job {job_id} has {integration}: one at a time")
        self.integration = integration
        self.job_id = job_id


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of the plan, from `start` up to `end`; `rows` are their ids, so that what was begun comes to its end without
    the plan too. `is_sent`: each was replayed, or `skipped` for a reason.
    """

    number: int
    start: int
    end: int
    began_at_ms: int
    rows: tuple[str, ...]
    is_sent: bool = False
    last_hint_ms: int = 0
    skipped: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """One bulk replay. Times are epoch milliseconds, 0: never.

    `filter` is JSON. `total` is how many rows of the plan go, `cursor` how many of them have an outcome. What is done
    to rows is done under `run_request_id`, the approver's. `recent` are the last outcomes, a letter each, oldest first:
    `s` it succeeded, `f` it failed, `u` nobody can tell.
    """

    job_id: str
    state: State
    actor: str
    reason: str
    filter: str
    cap: int
    created_at_ms: int
    request_id: str
    version: int = 1
    traceparent: str = ""
    request_hash: str = ""
    incident_id: str = ""
    look_only: bool = False
    plan_hash: str = ""
    plan_reference: str = ""
    planned_at_ms: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    samples: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    integrations: tuple[str, ...] = ()
    total: int = 0
    estimate_ms: int = 0
    ground: Ground = field(default_factory=Ground)
    approved_by: str = ""
    approved_at_ms: int = 0
    run_request_id: str = ""
    cursor: int = 0
    size: int = SIZES[0]
    batch: Batch | None = None
    batches: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    recent: str = ""
    lease_owner: str = ""
    lease_until_ms: int = 0
    due_at_ms: int = 0
    held_since_ms: int = 0
    held_because: str = ""
    stop_reason: str = ""
    is_cancelled: bool = False
    ended_at_ms: int = 0

    def to_json(self) -> str:
        """Compact JSON, read back by `from_json`."""
        return compact(asdict(self))

    @staticmethod
    def from_json(text: str) -> Job:
        """Raises KeyError, TypeError or ValueError for what was not written here."""
        said: dict[str, Any] = json.loads(text)
        said |= {
            "state": State(said["state"]),
            "samples": {name: tuple((one[0], one[1]) for one in some) for name, some in said["samples"].items()},
            "integrations": tuple(said["integrations"]),
            "ground": Ground(**said["ground"]),
            "batch": None if said["batch"] is None else _batch(**said["batch"]),
        }
        return Job(**said)


def _batch(rows: Sequence[str], **said: Any) -> Batch:
    return Batch(rows=tuple(rows), **said)


@dataclass(frozen=True, slots=True)
class Board:
    """Which jobs there are: who has which integration, which are worked on, and the newest. One control item."""

    holders: Mapping[str, str] = field(default_factory=dict)
    working: tuple[str, ...] = ()
    recent: tuple[str, ...] = ()
    version: int = 0

    def without(self, gone: Collection[str]) -> Board:
        """As it ought to be, seeing that these jobs are no more. It is stored on condition of the same version."""
        return replace(
            self,
            holders={name: job_id for name, job_id in self.holders.items() if job_id not in gone},
            working=tuple(job_id for job_id in self.working if job_id not in gone),
        )

    def with_job(self, job: Job) -> Board:
        """As it is to be once the job is as it is. Raises `IntegrationTaken`."""
        holders = {name: held_by for name, held_by in self.holders.items() if held_by != job.job_id}
        if job.state in HOLDING:
            for name in job.integrations:
                if name in holders:
                    raise IntegrationTaken(name, holders[name])
                holders[name] = job.job_id
        working = [one for one in self.working if one != job.job_id]
        if job.state in WORKED_ON:
            working.append(job.job_id)
        recent = self.recent if job.job_id in self.recent else (job.job_id, *self.recent)[:MOST_KEPT]
        same = (holders, set(working), recent) == (self.holders, set(self.working), self.recent)
        return self if same else Board(holders, tuple(working), recent, self.version + 1)


@dataclass(frozen=True, slots=True)
class JobChange:
    """One write of a job, on condition of the version of `before` (None: there is none yet). With `board`, also of the
    board: on condition of the version before.
    """

    before: Job | None
    after: Job
    board: tuple[Board, Board] | None = None
    audit: tuple[AuditEvent, ...] = ()


# --------------------------------------------------------------------------------------------------------- transitions


def _to(
    job: Job,
    state: State,
    board: Board,
    now_ms: int,
    *,
    actor: str = MACHINE,
    reason: str = "",
    request_id: str = "",
    **fields: Any,
) -> JobChange:
    """The job in another state, with its audit event, and the board as that makes it."""
    JOB.require(job.state.value, state.value, job.job_id)
    after = replace(job, version=job.version + 1, state=state, **fields)
    event = _event(job, after, now_ms, actor, reason, request_id)
    boards = board, board.with_job(after)
    return JobChange(job, after, None if boards[0] is boards[1] else boards, (event,))


def _event(before: Job | None, after: Job, now_ms: int, actor: str, reason: str, request_id: str) -> AuditEvent:
    is_trouble = after.state in (State.STOPPING, State.STOPPED) and not after.is_cancelled
    return AuditEvent(
        id=audit_id(after.job_id, after.version, AuditType.REPLAY_JOB_CHANGED),
        at_ms=now_ms,
        event_type=AuditType.REPLAY_JOB_CHANGED,
        severity=Severity.ERROR if is_trouble else Severity.WARNING,
        tenant="",
        actor=actor,
        affected_entity=ENTITY,
        affected_id=after.job_id,
        request_id=request_id or after.request_id,
        traceparent=after.traceparent,
        before_state="" if before is None else _said(before),
        after_state=_said(after),
        containment_action="what was not sent is back where it came from" if after.state is State.STOPPED else "",
        reason=reason or after.reason,
        job_id=after.job_id,
    )


def _said(job: Job) -> str:
    said: dict[str, Any] = {"status": job.state.value, "filter": json.loads(job.filter)}
    if job.plan_hash:
        said |= {"plan_hash": job.plan_hash, "counts": dict(job.counts), "total": job.total}
    if job.approved_by:
        said |= {"approved_by": job.approved_by, "done": job.cursor, "outcomes": dict(job.outcomes)}
    if job.stop_reason:
        said["stop_reason"] = job.stop_reason
    return compact(said)


def asked(job: Job, board: Board) -> JobChange:
    """Somebody wants a plan. `job` is the new one, `planning`."""
    JOB.require(ABSENT, job.state.value, job.job_id)
    event = _event(None, job, job.created_at_ms, job.actor, job.reason, job.request_id)
    return JobChange(None, job, (board, board.with_job(job)), (event,))


def leased(job: Job, owner: str, now_ms: int) -> JobChange:
    """Somebody works on it, or still does. Raises `JobConflict` where nobody may, or somebody else does."""
    is_free = job.lease_until_ms <= now_ms or job.lease_owner == owner
    if job.state not in WORKED_ON or not is_free:
        raise JobConflict(job, "worked on")
    return JobChange(job, _next(job, lease_owner=owner, lease_until_ms=now_ms + LEASE_MS))


def let_go(job: Job, due_at_ms: int) -> JobChange:
    """Nobody works on it until then."""
    return JobChange(job, _next(job, lease_owner="", lease_until_ms=0, due_at_ms=due_at_ms))


def _next(job: Job, **fields: Any) -> Job:
    return replace(job, version=job.version + 1, **fields)


_FREE: Mapping[str, Any] = {"lease_owner": "", "lease_until_ms": 0, "due_at_ms": 0}


def planned(
    job: Job, made: Plan, reference: str, ground: Ground, estimate_ms: int, board: Board, now_ms: int
) -> JobChange:
    """The plan is there, under that reference."""
    return _to(
        job,
        State.PLANNED,
        board,
        now_ms,
        plan_hash=made.plan_hash,
        plan_reference=reference,
        planned_at_ms=now_ms,
        counts=made.counts,
        samples=made.samples,
        integrations=made.integrations,
        total=len(made.going),
        estimate_ms=estimate_ms,
        ground=ground,
        **_FREE,
    )


def unplanned(job: Job, why: str, board: Board, now_ms: int) -> JobChange:
    """No plan can be made."""
    return _to(job, State.FAILED, board, now_ms, reason=why, stop_reason=why, ended_at_ms=now_ms, **_FREE)


def check_approvable(job: Job, plan_hash: str, now_ms: int) -> None:
    """Raise `JobConflict` or `PlanStale` for what needs no look at anything else."""
    if job.state is not State.PLANNED:
        raise JobConflict(job, "approved")
    if plan_hash != job.plan_hash:
        raise PlanStale("that is not the hash of this job's plan: look at the plan before you approve it")
    if now_ms - job.planned_at_ms > PLAN_GOOD_FOR_MS:
        raise PlanStale(f"the plan is over {PLAN_GOOD_FOR_MS // 60_000} minutes old: plan again")
    if not job.total:
        raise JobConflict(job, "approved: nothing would be replayed")


def approved(job: Job, board: Board, now_ms: int, *, actor: str, request_id: str, traceparent: str = "") -> JobChange:
    """A person has looked at the plan and wants it done. Raises `IntegrationTaken`."""
    return _to(
        job,
        State.APPROVED,
        board,
        now_ms,
        actor=actor,
        request_id=request_id,
        approved_by=actor,
        approved_at_ms=now_ms,
        run_request_id=request_id,  # from here on it is the approver's operation: its rows are found under it
        traceparent=traceparent or job.traceparent,
    )


def begun(job: Job, board: Board, now_ms: int) -> JobChange:
    """The first batch, or the next after a pause, may begin."""
    return _to(job, State.RUNNING, board, now_ms)


def paused(job: Job, board: Board, now_ms: int, *, actor: str, reason: str, request_id: str) -> JobChange:
    """Raises `JobConflict` where there is nothing to pause."""
    if job.state not in (State.APPROVED, State.RUNNING):
        raise JobConflict(job, "paused")
    return _to(job, State.PAUSED, board, now_ms, actor=actor, reason=reason, request_id=request_id, **_FREE)


def resumed(job: Job, board: Board, now_ms: int, *, actor: str, reason: str, request_id: str) -> JobChange:
    """Raises `JobConflict` where nothing is paused."""
    if job.state is not State.PAUSED:
        raise JobConflict(job, "resumed")
    return _to(
        job,
        State.APPROVED,
        board,
        now_ms,
        actor=actor,
        reason=reason,
        request_id=request_id,
        held_since_ms=0,
        held_because="",
        **_FREE,
    )


def cancelled(job: Job, board: Board, now_ms: int, *, actor: str, reason: str, request_id: str) -> JobChange:
    """Raises `JobConflict` where it is over, or ending already."""
    if job.state in OVER or job.state is State.STOPPING:
        raise JobConflict(job, "cancelled")
    said: dict[str, Any] = {"actor": actor, "reason": reason, "request_id": request_id, "stop_reason": reason}
    if job.state in (State.PLANNING, State.PLANNED):
        return _to(job, State.CANCELLED, board, now_ms, is_cancelled=True, ended_at_ms=now_ms, **said, **_FREE)
    return _to(job, State.STOPPING, board, now_ms, is_cancelled=True, **said, **_FREE)


def stopping(job: Job, why: str, board: Board, now_ms: int) -> JobChange:
    """It stops itself."""
    return _to(job, State.STOPPING, board, now_ms, reason=why, stop_reason=why)


def ended(job: Job, board: Board, now_ms: int) -> JobChange:
    """What was not sent is back."""
    state = State.CANCELLED if job.is_cancelled else State.STOPPED
    return _to(job, state, board, now_ms, reason=job.stop_reason, ended_at_ms=now_ms, **_FREE)


def finished(job: Job, board: Board, now_ms: int) -> JobChange:
    """Every row of the plan has an outcome."""
    return _to(job, State.FINISHED, board, now_ms, ended_at_ms=now_ms, **_FREE)


# ------------------------------------------------------------------------------------------------------------- batches


class Outcome(StrEnum):
    """What became of a row that the job took, or why it did not. The reasons for which rows are skipped beside these
    are predictions.
    """

    OPEN = "open"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNCLEAR = "unclear"
    NOT_THERE = "not_there"
    SUPPRESSED = "suppressed"
    ENDED = "ended"
    TAKEN_BACK = "taken_back"
    NOT_SENT = "not_sent"
    MOVED = "moved"
    LEFT = "left_to_the_machine"


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """What became of one row of a batch, for good: the row itself may go other ways afterwards. `before` is the status
    that it was replayed from, `outcome` an `Outcome` or the prediction for which it was skipped.
    """

    recovery_id: str
    outcome: str
    before: str = ""
    after: str = ""
    failure_code: str = ""
    attempt_count: int = 0
    provider_id: str = ""
    why: str = ""


def record_of(recovery_id: str, row: Row | None, job: Job, skipped: str = "") -> BatchRecord:
    """For the record. `skipped` is why the job did not take it, if so; of a batch that was not sent to its end, nobody
    knows more than that a row was not taken.
    """
    if skipped or row is None or not is_own(row, job):
        is_sent = job.batch is None or job.batch.is_sent
        other = Outcome.MOVED.value if is_sent else Outcome.NOT_SENT.value
        return BatchRecord(recovery_id, skipped.partition(":")[0] or other, why=skipped)
    return BatchRecord(
        recovery_id,
        outcome_of(row, job).value,
        before=row.replayed_from,
        after=row.status.value,
        failure_code=row.failure_code,
        attempt_count=row.attempt_count,
        provider_id=row.provider_id,
    )


_LETTERS = {Outcome.SUCCEEDED: "s", Outcome.NOT_THERE: "s", Outcome.FAILED: "f", Outcome.UNCLEAR: "u"}


def is_own(row: Row, job: Job) -> bool:
    """Whether the last replay of the row is the job's."""
    return row.job_id == job.job_id


def outcome_of(row: Row | None, job: Job) -> Outcome:
    """What became of a row that the job has replayed. `not_there`: it only asked, and there is no such effect."""
    if row is None or not is_own(row, job):
        return Outcome.MOVED
    if row.status is Status.REPLAYED:
        return Outcome.SUCCEEDED if row.result else Outcome.OPEN
    if row.result == TAKEN_BACK:
        return Outcome.TAKEN_BACK
    if row.effect is Effect.UNKNOWN:
        return Outcome.UNCLEAR
    if row.failure_code == SUPPRESSED:
        return Outcome.SUPPRESSED
    if row.failure_code in FINAL_CODES:
        return Outcome.ENDED
    return Outcome.NOT_THERE if job.look_only else Outcome.FAILED


def letters(ended_rows: Iterable[Row], job: Job, met: Mapping[str, str] | None = None) -> str:
    """The outcomes that count for the ratios, in the order in which they came about. `met`: by id, the letter of what a
    whole event's actions met, which is not in its own row.
    """
    known = met or {}
    ordered = sorted(ended_rows, key=lambda row: (row.updated_at_ms, row.recovery_id))
    return "".join(known.get(row.recovery_id) or _LETTERS.get(outcome_of(row, job), "") for row in ordered)


def met_by(rows: Iterable[Row]) -> str:
    """The letter of an event that was processed, by the rows that it has left: empty where nothing of it failed."""
    failed = [row for row in rows if row.failure_class]
    if any(row.effect is Effect.UNKNOWN and not row.is_open for row in failed):  # what is open finds out by itself
        return _LETTERS[Outcome.UNCLEAR]
    return _LETTERS[Outcome.FAILED] if failed else ""


def opened(job: Job, rows: Sequence[str], owner: str, now_ms: int) -> JobChange:
    """The checkpoint before any of the batch's rows is touched."""
    batch = Batch(job.batches + 1, job.cursor, job.cursor + len(rows), now_ms, tuple(rows))
    after = _next(
        job,
        batch=batch,
        batches=batch.number,
        held_since_ms=0,
        held_because="",
        lease_owner=owner,
        lease_until_ms=now_ms + LEASE_MS,
    )
    return JobChange(job, after)


def sent(job: Job, batch: Batch, skipped: Mapping[str, str], last_hint_ms: int, owner: str, now_ms: int) -> JobChange:
    """Each of the batch's rows was replayed, or skipped for a reason."""
    after = _next(
        job,
        batch=replace(batch, is_sent=True, skipped=dict(skipped), last_hint_ms=last_hint_ms),
        lease_owner=owner,
        lease_until_ms=now_ms + LEASE_MS,
    )
    return JobChange(job, after)


def closed(job: Job, batch: Batch, outcomes: Mapping[str, int], said: str, owner: str, now_ms: int) -> JobChange:
    """The checkpoint after a batch: what became of its rows, and how large the next one is."""
    # What was skipped, suppressed or taken back says nothing of the provider: the first that count are the canary.
    is_clean = set(said) <= {"s"} and bool(job.recent + said)
    bigger = next((size for size in SIZES if size > job.size), SIZES[-1])
    after = _next(
        job,
        batch=None,
        cursor=batch.end,
        size=bigger if is_clean else job.size,
        outcomes=_added(job.outcomes, outcomes),
        recent=(job.recent + said)[-RECENT:],
        lease_owner=owner,
        lease_until_ms=now_ms + LEASE_MS,
    )
    return JobChange(job, after)


def _added(so_far: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    return {name: so_far.get(name, 0) + more.get(name, 0) for name in sorted({*so_far, *more})}


def held(job: Job, why: str, owner: str, now_ms: int) -> JobChange:
    """No batch begins for now; an empty `why`: nothing holds it back any more."""
    after = _next(
        job,
        held_since_ms=(job.held_since_ms or now_ms) if why else 0,
        held_because=why,
        lease_owner=owner,
        lease_until_ms=now_ms + LEASE_MS,
    )
    return JobChange(job, after)


# ------------------------------------------------------------------------------------------------------------ stopping


def failing(recent: str) -> str:
    """Why outcomes like these stop a job, or empty. They are those of its rows so far, the last `RECENT` at most."""
    in_a_row = len(recent) - len(recent.rstrip("fu"))
    if in_a_row > MOST_IN_A_ROW:
        return f"{in_a_row} in a row failed"
    last = recent[-RECENT:]
    unclear = sum(letter == "u" for letter in last)
    if unclear > MOST_UNCLEAR:
        return f"of {unclear} of the last {len(last)} nobody can tell whether they happened"
    failed = sum(letter != "s" for letter in last)
    if len(last) <= SIZES[0] and failed > MOST_FAILED_OF_CANARY:
        return f"{failed} of the first {len(last)} failed"
    if len(last) >= RATIO_OF and failed > MOST_FAILED * len(last):
        return f"{failed} of the last {len(last)} failed"
    return ""


def waiting_live(backlog: int, leads_ms: Mapping[str, int], scale: float) -> str:
    """Why no batch may begin because live traffic waits, or empty. `leads_ms`: for each integration, how long a call
    that is asked for now waits.
    """
    if backlog > LIVE_BACKLOG:
        return f"{backlog} new events wait in their queue"
    for name, lead_ms in sorted(leads_ms.items()):
        if lead_ms > max(LIVE_LEAD_MS * scale, 1_000):
            return f"calls of {name} wait for {lead_ms // 1000} s"
    return ""


def is_held_too_long(job: Job, now_ms: int, scale: float) -> bool:
    """Whether it has waited for live traffic, or for the switches, long enough."""
    return job.held_since_ms > 0 and now_ms - job.held_since_ms > max(SHORTEST_HOLD_MS, HOLD_MS * scale)


def is_stuck(batch: Batch, now_ms: int, scale: float) -> bool:
    """Whether the rows of a batch should have come to an end by now."""
    return now_ms - batch.last_hint_ms > max(SHORTEST_PATIENCE_MS, PATIENCE_MS * scale)


def waiting_for(rows: Sequence[Row]) -> str:
    """What rows that do not come to an end wait for, for people."""
    counted: dict[str, int] = {}
    for row in rows:
        name = row.waiting_for.value or "a worker"
        counted[name] = counted.get(name, 0) + 1
    said = ", ".join(f"{number} for {name}" for name, number in sorted(counted.items()))
    return f"{len(rows)} of its items come to no end: {said} waiting"
