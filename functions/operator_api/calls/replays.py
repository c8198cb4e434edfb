"""Bulk replays: plan one, look at it, let it run, and keep it in hand (architecture §7; runbook 001, "DLQ and Replay
Procedure").
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Annotated, Literal

from aws_lambda_powertools.event_handler.openapi.params import Header, Path, Query
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import Field, StringConstraints, field_validator

from functions.core.event import digest
from functions.core.failure import VersionConflict
from functions.core.replay import Filter, PlanItem, PlanLost, ground_lost, ground_of, moved
from functions.core.replay_job import (
    MOST_FILTER_LENGTH,
    MOST_ITEMS,
    MOST_KEPT,
    OVER,
    PLAN_GOOD_FOR_MS,
    BatchRecord,
    Board,
    IntegrationTaken,
    Job,
    JobChange,
    JobConflict,
    PlanStale,
    State,
    approved,
    asked,
    cancelled,
    check_approvable,
    paused,
    resumed,
)
from functions.core.switches import FRESH_FOR_MS, KNOWN_FOR_MS
from functions.job_board import move
from functions.operator_api.bodies import Body, Reason
from functions.operator_api.caller import Caller
from functions.operator_api.handler import caller
from functions.operator_api.ports import Ports
from functions.operator_api.problems import Code, Refusal

TAG = "replays"
TRIES = 5  # of a change that the job's own worker came between
MAX_VALUES = 100
MAX_AGE_SECONDS = 400 * 86_400
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$"
_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{8,79}$"
_CURSOR = re.compile(r"[0-9]{1,6}\Z", re.ASCII)

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
_Texts = Annotated[list[_Text], Field(min_length=1, max_length=MAX_VALUES)]
_Seconds = Annotated[int, Field(strict=True, ge=1, le=MAX_AGE_SECONDS)]
ReplayId = Annotated[str, Path(pattern=_ID)]


class Criteria(Body):
    """Which items are meant. Every criterion that is given must hold; within one, any of its values."""

    integration: _Texts | None = None
    status: Annotated[list[Literal["failed", "dlq"]], Field(min_length=1, max_length=2)] | None = None
    failure_code: _Texts | None = None
    root_cause: _Texts | None = None
    source: _Texts | None = None
    tenant: _Texts | None = None
    flow: _Texts | None = None
    event_name: _Texts | None = None
    incident: _Texts | None = None
    detail: Annotated[_Texts | None, Field(description="Texts that occur in the failure's detail.")] = None
    recovery_id: _Texts | None = None
    older_than_seconds: Annotated[_Seconds | None, Field(description="Since the event was received.")] = None
    newer_than_seconds: Annotated[_Seconds | None, Field(description="Since the event was received.")] = None

    def to_filter(self) -> Filter:
        """The filter that core works with."""
        named = {
            name: frozenset(value)
            for name, value in self.model_dump(exclude_none=True).items()
            if isinstance(value, list)
        }
        return Filter(
            **named,
            older_than_ms=None if self.older_than_seconds is None else self.older_than_seconds * 1000,
            newer_than_ms=None if self.newer_than_seconds is None else self.newer_than_seconds * 1000,
        )


class NewReplay(Body):
    """What is to be planned. Nothing is replayed by it."""

    filter: Criteria
    reason: Reason
    incident_id: Annotated[
        str | None, Field(pattern=_NAME, description="The job is named after it, and so are its items.")
    ] = None
    cap: Annotated[int, Field(strict=True, ge=1, le=MOST_ITEMS, description="At most so many items.")] = MOST_ITEMS
    look_only: Annotated[
        bool,
        Field(strict=True, description="Only find out, at the provider, what became of items that may have happened."),
    ] = False

    @field_validator("filter")
    @classmethod
    def means_something(cls, value: Criteria) -> Criteria:
        """An empty filter would mean everything there is, and one without end could not be kept."""
        wanted = value.to_filter()
        if wanted.is_empty:
            raise ValueError("an empty filter would mean every item there is")
        if len(wanted.to_json()) > MOST_FILTER_LENGTH:
            raise ValueError("the filter is too long to be kept with the job")
        return value


class Approval(Body):
    """Which plan is meant: the one that was looked at."""

    plan_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Why(Body):
    """Why a job is paused, goes on, or ends."""

    reason: Reason


class Sample(Body):
    """One of the items of a prediction."""

    recovery_id: str
    why: str


class ToldPlan(Body):
    """What would become of the items. `counts` are by prediction: `would_send` and `would_check` go (the latter may
    have happened, which is found out first), all others are left alone. Times are epoch milliseconds.
    """

    hash: str
    made_at_ms: int
    good_until_ms: int
    counts: dict[str, int]
    samples: dict[str, list[Sample]]
    items: int
    estimated_seconds: int


class ToldBatch(Body):
    """The items that are under way."""

    number: int
    items: int
    began_at_ms: int


class Progress(Body):
    """How far it is. `outcomes` are of the items that are done, by outcome or by the reason for which they were
    skipped. `held_because` says why no batch begins for now.
    """

    items: int
    done: int
    outcomes: dict[str, int]
    batches: int
    batch: ToldBatch | None = None
    next_size: int
    held_because: str | None = None
    held_since_ms: int | None = None


class ToldItem(Body):
    """One item of the plan. `outcome` is there once its batch is over."""

    recovery_id: str
    version: int
    integration: str
    prediction: str
    why: str
    outcome: str | None = None
    before: str | None = None
    after: str | None = None
    failure_code: str | None = None
    attempt_count: int | None = None


class ToldItems(Body):
    """A page of the plan's items: those that go, oldest event first, then the others."""

    items: list[ToldItem]
    next_cursor: str | None = None


class ToldReplay(Body):
    """One bulk replay. Times are epoch milliseconds."""

    replay_id: str
    state: str
    reason: str
    incident_id: str | None = None
    filter: dict[str, list[str] | int]
    cap: int
    look_only: bool
    created_by: str
    created_at_ms: int
    integrations: list[str]
    plan: ToldPlan | None = None
    approved_by: str | None = None
    approved_at_ms: int | None = None
    progress: Progress | None = None
    stop_reason: str | None = None
    ended_at_ms: int | None = None
    request_id: Annotated[str, Field(description="Under which the audit has what was done to the items.")]
    page: ToldItems | None = None


class ToldReplays(Body):
    """Bulk replays, the newest first. `holders`: by integration, the one that has it."""

    replays: list[ToldReplay]
    holders: dict[str, str]


_OLDER = f"The list keeps the newest {MOST_KEPT}, and those that are not over; an older one is found by its id."
_CHANGED = "Others changed the job at the same time: call again."
_STATE = "It is in no state for that (`state` says in which)."


def routes(ports: Ports) -> APIGatewayHttpRouter:
    """The calls of this subject."""
    router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]  # Powertools leaves it untyped

    @router.post(
        "/platform/replays",
        summary="Plan a bulk replay",
        operation_id="planReplay",
        tags=[TAG],
        status_code=202,
        responses={
            202: {"description": "It is being planned: read it until it is `planned`. Nothing is replayed."},
            409: {"description": _CHANGED},
            422: {"description": "The idempotency key was used for another request."},
        },
    )
    def plan(
        wanted: NewReplay,
        idempotency_key: Annotated[
            str | None,
            Header(alias="Idempotency-Key", min_length=8, max_length=200, description="The same key is the same plan."),
        ] = None,
    ) -> ToldReplay:
        job = _planning(ports, wanted, caller(router), idempotency_key or ports.ids.new_id())
        if job.state is State.PLANNING:
            ports.starter.start(job.job_id)
        return _told(job)

    @router.get(
        "/platform/replays",
        summary="Which bulk replays there are",
        operation_id="listReplays",
        tags=[TAG],
        responses={200: {"description": f"Of the newest {MOST_KEPT} and those that are not over, the newest first."}},
    )
    def show_all(
        limit: Annotated[int, Query(ge=1, le=200, description=_OLDER)] = 50,
        active: Annotated[bool, Query(description="Neither those that are over, nor plans not approved.")] = False,
    ) -> ToldReplays:
        board = ports.jobs.board()
        jobs = ports.jobs.several(list(dict.fromkeys([*board.recent, *board.working, *board.holders.values()])))
        wanted = [job for job in jobs.values() if not (active and job.state in (*OVER, State.PLANNED))]
        wanted.sort(key=lambda job: (job.created_at_ms, job.job_id), reverse=True)
        return ToldReplays(replays=[_told(job) for job in wanted[:limit]], holders=dict(board.holders))

    @router.get(
        "/platform/replays/<replay_id>",
        summary="Look at a bulk replay: its plan, and how far it is",
        operation_id="getReplay",
        tags=[TAG],
        responses={200: {"description": "The job; with `items`, a page of its items too."}},
    )
    def show(
        replay_id: ReplayId,
        items: Annotated[bool, Query(description="With a page of its items.")] = False,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        cursor: Annotated[
            str | None, Query(max_length=200, description="The `next_cursor` of the page before.")
        ] = None,
    ) -> ToldReplay:
        job = _job(ports, replay_id)
        if not items:
            return _told(job)
        return _told(job).model_copy(update={"page": _page(ports, job, limit, cursor)})

    @router.post(
        "/platform/replays/<replay_id>/approve",
        summary="Let a planned bulk replay run",
        operation_id="approveReplay",
        tags=[TAG],
        status_code=202,
        responses={
            202: {"description": "It begins with five items. Approving it again changes nothing."},
            409: {
                "description": "The plan is not what would be done now, the job is in no state for that, or another "
                "job has one of its integrations (`replay_id` says which)."
            },
        },
    )
    def approve(replay_id: ReplayId, approval: Approval) -> ToldReplay:
        job = _job(ports, replay_id)
        if job.approved_by and job.plan_hash == approval.plan_hash:
            return _told(job)  # the second click
        job = _approved(ports, job, approval.plan_hash, caller(router))
        ports.starter.start(replay_id)
        return _told(job)

    @router.post(
        "/platform/replays/<replay_id>/pause",
        summary="Begin no further batch",
        operation_id="pauseReplay",
        tags=[TAG],
        responses={
            200: {"description": "It is paused. What is under way comes to its end."},
            409: {"description": f"{_STATE} {_CHANGED}"},
        },
    )
    def pause(replay_id: ReplayId, why: Why) -> ToldReplay:
        who = caller(router)
        job = _changed(
            ports,
            replay_id,
            lambda job: job.state is State.PAUSED,
            lambda job, board, now_ms: paused(
                job, board, now_ms, actor=who.name, reason=why.reason, request_id=who.request_id
            ),
        )
        return _told(job)

    @router.post(
        "/platform/replays/<replay_id>/resume",
        summary="Let a paused bulk replay go on",
        operation_id="resumeReplay",
        tags=[TAG],
        responses={
            200: {"description": "It goes on where it was."},
            409: {"description": f"{_STATE} {_CHANGED}"},
        },
    )
    def resume(replay_id: ReplayId, why: Why) -> ToldReplay:
        who = caller(router)
        job = _changed(
            ports,
            replay_id,
            lambda job: job.state in (State.APPROVED, State.RUNNING),
            lambda job, board, now_ms: resumed(
                job, board, now_ms, actor=who.name, reason=why.reason, request_id=who.request_id
            ),
        )
        if job.state is State.APPROVED:
            ports.starter.start(replay_id)
        return _told(job)

    @router.post(
        "/platform/replays/<replay_id>/cancel",
        summary="End a bulk replay",
        operation_id="cancelReplay",
        tags=[TAG],
        responses={
            200: {"description": "Nothing more of it is sent. What was not sent goes back where it came from."},
            409: {"description": f"{_STATE} {_CHANGED}"},
        },
    )
    def cancel(replay_id: ReplayId, why: Why) -> ToldReplay:
        who = caller(router)
        job = _changed(
            ports,
            replay_id,
            lambda job: job.is_cancelled,
            lambda job, board, now_ms: cancelled(
                job, board, now_ms, actor=who.name, reason=why.reason, request_id=who.request_id
            ),
        )
        if job.state is State.STOPPING:
            ports.starter.start(replay_id)
        return _told(job)

    return router


# -------------------------------------------------------------------------------------------------------------- changes


def _new(wanted: NewReplay, who: Caller, now_ms: int, key: str) -> Job:
    """The job that is asked for, by the name that the key gives it: the same click meets the same job."""
    name = wanted.incident_id or "replay"
    return Job(
        job_id=f"{name}-{digest('replay_job', who.name, key)[:16]}",
        state=State.PLANNING,
        actor=who.name,
        reason=wanted.reason.strip(),
        filter=wanted.filter.to_filter().to_json(),
        cap=wanted.cap,
        created_at_ms=now_ms,
        request_id=who.request_id,
        traceparent=who.traceparent,
        request_hash=digest(wanted.model_dump_json()),
        incident_id=wanted.incident_id or "",
        look_only=wanted.look_only,
    )


def _planning(ports: Ports, wanted: NewReplay, who: Caller, key: str) -> Job:
    """The job of that key: a new one, or the one that it was used for before."""
    job = _new(wanted, who, ports.clock.now_ms(), key)
    known = ports.jobs.get(job.job_id)
    if known is None:
        try:
            return move(ports.jobs, None, lambda board: asked(job, board))
        except VersionConflict as conflict:  # the same key, twice at once; or the board would not hold still
            known = ports.jobs.get(job.job_id)
            if known is None:
                raise Refusal(Code.IN_PROGRESS, "others are changing the jobs: nothing was changed") from conflict
    if known.request_hash != job.request_hash:
        raise Refusal(Code.KEY_REUSED, "that idempotency key was used for another request", replay_id=known.job_id)
    return known


def _approved(ports: Ports, job: Job, plan_hash: str, who: Caller) -> Job:
    """The job, approved; or refused, and nothing has changed."""
    now_ms = ports.clock.now_ms()
    try:
        check_approvable(job, plan_hash, now_ms)
        _check_ground(ports, job, now_ms)
        _check_items(ports, job)
        return move(
            ports.jobs,
            job,
            lambda board: approved(
                job, board, now_ms, actor=who.name, request_id=who.request_id, traceparent=who.traceparent
            ),
        )
    except PlanLost as lost:
        raise Refusal(Code.PLAN_STALE, f"{lost}: plan again", replay_id=job.job_id) from lost
    except PlanStale as stale:
        raise Refusal(Code.PLAN_STALE, str(stale), replay_id=job.job_id) from stale
    except IntegrationTaken as taken:
        raise Refusal(Code.IN_PROGRESS, str(taken), replay_id=taken.job_id) from taken
    except JobConflict as conflict:
        raise _conflict(conflict) from conflict
    except VersionConflict as conflict:
        raise Refusal(Code.IN_PROGRESS, "somebody else changed the job at this moment: look again") from conflict


def _check_items(ports: Ports, job: Job) -> None:
    """Raise `PlanStale` if any item is not what the plan was made on."""
    going = ports.plans.get(job.plan_reference, job.plan_hash).going
    gone = moved(going, ports.recovery.versions([item.recovery_id for item in going]))
    if gone:
        raise PlanStale(f"{len(gone)} of {job.total} items have changed since ({', '.join(gone[:3])}): plan again")


def _job(ports: Ports, replay_id: str) -> Job:
    job = ports.jobs.get(replay_id)
    if job is None:
        raise Refusal(Code.NOT_FOUND, f"there is no bulk replay {replay_id}")
    return job


def _changed(
    ports: Ports,
    replay_id: str,
    is_so: Callable[[Job], bool],
    change: Callable[[Job, Board, int], JobChange],
) -> Job:
    """The job after the change, or as it is if it is so already. Its own worker writes it too: then once more."""
    for _ in range(TRIES):
        job = _job(ports, replay_id)
        if is_so(job):
            return job
        try:
            return move(ports.jobs, job, lambda board, seen=job: change(seen, board, ports.clock.now_ms()))  # type: ignore[misc]  # mypy infers no default's type
        except JobConflict as conflict:
            raise _conflict(conflict) from conflict
        except VersionConflict:
            continue
    raise Refusal(Code.IN_PROGRESS, "the job is changing all the time: nothing was changed; call again")


def _conflict(conflict: JobConflict) -> Refusal:
    return Refusal(Code.REPLAY_CONFLICT, str(conflict), state=conflict.state.value)


def _check_ground(ports: Ports, job: Job, now_ms: int) -> None:
    """Raise `PlanStale` if health or switches are not what the plan was made on; refuse where they are not known."""
    snapshot = ports.switches.snapshot(FRESH_FOR_MS)
    if snapshot is None or abs(now_ms - snapshot.read_at_ms) > KNOWN_FOR_MS:
        raise Refusal(Code.UNAVAILABLE, "the switches cannot be read: nothing was changed; call again")
    records = ports.health.read(job.integrations)
    states = {name: record.state(name) for name, record in records.items()}
    lost = ground_lost(job.ground, ground_of(snapshot.values, states, job.integrations, now_ms))
    if lost:
        raise PlanStale(f"{lost} since the plan was made: plan again")


# ----------------------------------------------------------------------------------------------------------------- told


def _told(job: Job) -> ToldReplay:
    return ToldReplay(
        replay_id=job.job_id,
        state=job.state.value,
        reason=job.reason,
        incident_id=job.incident_id or None,
        filter=_criteria(job),
        cap=job.cap,
        look_only=job.look_only,
        created_by=job.actor,
        created_at_ms=job.created_at_ms,
        integrations=list(job.integrations),
        plan=_told_plan(job) if job.plan_hash else None,
        approved_by=job.approved_by or None,
        approved_at_ms=job.approved_at_ms or None,
        progress=_progress(job) if job.approved_by else None,
        stop_reason=job.stop_reason or None,
        ended_at_ms=job.ended_at_ms or None,
        request_id=job.run_request_id or job.request_id,
    )


def _criteria(job: Job) -> dict[str, list[str] | int]:
    """As it is stored: what another version wrote is told, too."""
    told: dict[str, list[str] | int] = {}
    for name, value in json.loads(job.filter).items():
        if isinstance(value, int):
            told[name.replace("_ms", "_seconds")] = value // 1000
        else:
            told[name] = [str(one) for one in value]
    return told


def _told_plan(job: Job) -> ToldPlan:
    return ToldPlan(
        hash=job.plan_hash,
        made_at_ms=job.planned_at_ms,
        good_until_ms=job.planned_at_ms + PLAN_GOOD_FOR_MS,
        counts=dict(job.counts),
        samples={
            name: [Sample(recovery_id=recovery_id, why=why) for recovery_id, why in some]
            for name, some in job.samples.items()
        },
        items=job.total,
        estimated_seconds=-(-job.estimate_ms // 1000),
    )


def _progress(job: Job) -> Progress:
    batch = job.batch
    return Progress(
        items=job.total,
        done=job.cursor,
        outcomes=dict(job.outcomes),
        batches=job.batches,
        batch=None
        if batch is None
        else ToldBatch(number=batch.number, items=batch.end - batch.start, began_at_ms=batch.began_at_ms),
        next_size=job.size,
        held_because=job.held_because or None,
        held_since_ms=job.held_since_ms or None,
    )


def _page(ports: Ports, job: Job, limit: int, cursor: str | None) -> ToldItems:
    if cursor is not None and not _CURSOR.match(cursor):
        raise Refusal(Code.INVALID_PAYLOAD, "that cursor is none of ours")
    start = int(cursor or 0)
    if not job.plan_reference:
        return ToldItems(items=[])
    try:
        made = ports.plans.get(job.plan_reference, job.plan_hash)
    except PlanLost as lost:
        raise Refusal(Code.NOT_FOUND, f"the items cannot be told: {lost}", replay_id=job.job_id) from lost
    every = (*made.going, *made.others)
    end = min(start + limit, job.cursor)
    record = ports.plans.records(job.job_id, start, end) if start < end else []
    known = {one.recovery_id: one for one in record}
    chosen = every[start : start + limit]
    return ToldItems(
        items=[_told_item(item, known.get(item.recovery_id)) for item in chosen],
        next_cursor=str(start + limit) if start + limit < len(every) else None,
    )


def _told_item(item: PlanItem, record: BatchRecord | None) -> ToldItem:
    told = ToldItem(
        recovery_id=item.recovery_id,
        version=item.version,
        integration=item.integration,
        prediction=item.prediction.value,
        why=item.why,
    )
    if record is None:
        return told
    return told.model_copy(
        update={
            "outcome": record.outcome,
            "why": record.why or item.why,
            "before": record.before or None,
            "after": record.after or None,
            "failure_code": record.failure_code or None,
            "attempt_count": record.attempt_count or None,
        }
    )
