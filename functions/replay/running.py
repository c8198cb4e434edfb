"""Carries a job out, batch by batch. Whatever it dies of, and wherever, another goes on from what is stored.

The checkpoint comes first: which rows a batch takes is in the job's record before any of them is touched. Each row is
then replayed in a transaction with its audit event and a check of the job's version, and only what is committed is
hinted at. So a row is replayed once or not at all, and nothing of a job that has been paused, stopped or taken over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from functions.core import sweep
from functions.core.failure import IllegalTransition, VersionConflict
from functions.core.gate import IntegrationState
from functions.core.limiter import resumes_at_ms
from functions.core.ports import Hint
from functions.core.recovery import Change, Row, Subject, may_take_back, replay, take_back
from functions.core.replay import (
    Filter,
    Plan,
    PlanItem,
    PlanLost,
    Predicted,
    Prediction,
    UnknownFilter,
    goes,
    ground_lost,
    ground_of,
    paced,
    unfinished,
)
from functions.core.replay_job import (
    LEASE_MS,
    WINDOW_MS,
    WORKED_ON,
    Batch,
    Board,
    Job,
    JobChange,
    JobConflict,
    Outcome,
    State,
    begun,
    closed,
    ended,
    failing,
    finished,
    held,
    is_held_too_long,
    is_own,
    is_stuck,
    leased,
    let_go,
    letters,
    met_by,
    opened,
    outcome_of,
    record_of,
    sent,
    stopping,
    waiting_for,
    waiting_live,
)
from functions.job_board import move
from functions.replay.judging import Judge, Look, items_of, key_of
from functions.replay.pace import limits_of
from functions.replay.planning import Planner
from functions.replay.ports import Ports

TOGETHER: Final = 10  # rows of one transaction: as many hints as one request takes
POLL_MS: Final = 2_000
SHORTEST_POLL_MS: Final = 250
LONGEST_POLL_MS: Final = 15_000
UNREADABLE: Final = "the switches cannot be read"
_FOR_EVER_MS: Final = 1 << 60


@dataclass(slots=True)
class _Batch:
    """What this invocation knows of the batch that is under way."""

    number: int = 0
    ended: dict[str, Row] = field(default_factory=dict)
    met: dict[str, str] = field(default_factory=dict)  # of whole events that were processed: what their actions met
    polls: int = 0


class Runner:
    """Works on one job for as long as an invocation has."""

    def __init__(self, ports: Ports, scale: float, owner: str, until_ms: int) -> None:
        self._ports = ports
        self._scale = scale
        self._owner = owner
        self._until_ms = until_ms
        self._plan: tuple[str, Plan] = ("", Plan((), ()))
        self._known = _Batch()

    def run(self, job_id: str) -> str:
        """Until the job ends or waits for a person, somebody else has it, or the time is up; says which.

        Raises `VersionConflict` (or `Fenced`) when somebody moves the job meanwhile, and `StorageUnavailable`.
        """
        job = self._ports.jobs.get(job_id)
        if job is None:
            return "unknown"
        try:
            job = self._store(leased(job, self._owner, self._now()))
        except JobConflict as conflict:
            return "busy" if conflict.state in WORKED_ON else conflict.state.value
        if job.state is State.PLANNING:
            return Planner(self._ports, self._scale).plan(job, self._until_ms).state.value
        if job.state is State.STOPPING and not job.is_cancelled:
            self._tell_stopped(job)
        while True:
            job, wait_ms = self._step(job)
            if wait_ms is None:
                return job.state.value
            if self._now() + wait_ms >= self._until_ms:
                self._store(let_go(job, self._now() + wait_ms))
                return "later"
            if wait_ms:
                self._ports.wait(wait_ms / 1000)
            if job.lease_until_ms - self._now() < LEASE_MS // 2:
                job = self._store(leased(job, self._owner, self._now()))

    # ------------------------------------------------------------------------------------------------------------ steps

    def _step(self, job: Job) -> tuple[Job, int | None]:
        """What is to be done now, and how long until the next look; None: it is over."""
        if job.state is State.APPROVED:
            job = self._move(job, lambda board: begun(job, board, self._now()))
        if job.state is State.STOPPING:
            return self._give_back(job)
        try:
            self._going(job)
            judge = self._judge_of(job)
        except (PlanLost, UnknownFilter) as gone:  # what is sent must be what was approved
            return self._stop(job, str(gone))
        look = judge.look()
        if look is None:  # fail closed: what cannot be known may be off
            return self._hold(job, UNREADABLE)
        ground = ground_of(look.snapshot.values, look.states, job.integrations, self._now())
        lost = ground_lost(job.ground, ground)
        if lost:
            return self._stop(job, lost)
        if job.batch is None:
            if job.cursor >= job.total:
                job = self._move(job, lambda board: finished(job, board, self._now()))
                self._say("a bulk replay is finished", job)
                return job, None
            why = waiting_live(self._ports.backlog.waiting(), self._leads(job, look), self._scale)
            if why:
                return self._hold(job, why)
            job = self._open(job, look)
        elif job.held_because:
            job = self._store(held(job, "", self._owner, self._now()))
        batch = _of(job)
        if not batch.is_sent:
            job = self._send(job, batch, judge, look)
        return self._watch(job, _of(job))

    def _judge_of(self, job: Job) -> Judge:
        """Whoever sends asks about the recipient right before it, so that nobody else has to now. Raises
        `UnknownFilter`.
        """
        wanted = Filter.from_json(job.filter)
        return Judge(self._ports, wanted, self._scale, look_only=job.look_only, asks_about_people=False)

    def _hold(self, job: Job, why: str) -> tuple[Job, int | None]:
        if is_held_too_long(job, self._now(), self._scale):
            return self._stop(job, why)
        if job.held_because != why:
            job = self._store(held(job, why, self._owner, self._now()))
            self._say("a bulk replay holds back", job)
        return job, self._poll_ms(LONGEST_POLL_MS // 3)

    def _stop(self, job: Job, why: str) -> tuple[Job, int | None]:
        job = self._move(job, lambda board: stopping(job, why, board, self._now()))
        self._tell_stopped(job)
        return job, 0

    def _tell_stopped(self, job: Job) -> None:
        """For the alarm, at once: whoever dies before this is out is succeeded by somebody who says it."""
        self._ports.metrics.count("replay_jobs_stopped")
        self._ports.metrics.flush()
        self._ports.log.error(
            "a bulk replay stops itself: what was not sent goes back",
            extra={"job_id": job.job_id, "reason": job.stop_reason, "count": job.cursor, "matched": job.total},
        )

    def _open(self, job: Job, look: Look) -> Job:
        ahead = self._going(job)[job.cursor : job.cursor + job.size]
        limits = limits_of(self._ports.integrations, job.integrations, look, self._scale, self._now())
        window_ms = int(WINDOW_MS * self._scale)
        chosen = paced(ahead, limits, window_ms)
        rows = [item.recovery_id for item, _ in chosen]
        return self._store(opened(job, rows, self._owner, self._now()))

    def _leads(self, job: Job, look: Look) -> Mapping[str, int]:
        now_ms = self._now()
        leads: dict[str, int] = {}
        for name in job.integrations:
            state = look.states.get(name) or IntegrationState(name)
            rate = self._ports.integrations[name].rate if name in self._ports.integrations else None
            leads[name] = resumes_at_ms(state, rate, now_ms, self._scale) - now_ms
        return leads

    # ---------------------------------------------------------------------------------------------------------- sending

    def _send(self, job: Job, batch: Batch, judge: Judge, look: Look) -> Job:
        """Replay the batch's rows, each once: what an earlier invocation has replayed is only hinted at again."""
        items = self._going(job)[batch.start : batch.end]
        rows = self._ports.recovery.several([item.recovery_id for item in items])
        skipped: dict[str, str] = {}
        fresh: list[tuple[PlanItem, Row]] = []
        again: list[Row] = []
        for item in items:
            row = rows.get(item.recovery_id)
            if row is not None and row.version == item.version and not is_own(row, job):
                fresh.append((item, row))
            elif row is not None and is_own(row, job):
                if row.version == item.version + 1 and row.is_open:
                    again.append(row)  # perhaps it was replayed and not hinted at
            else:
                skipped[item.recovery_id] = Outcome.MOVED.value
        going: list[tuple[PlanItem, Row, Predicted]] = []
        for (item, row), predicted in zip(fresh, judge.judge([row for _, row in fresh], look), strict=True):
            if goes(predicted.prediction, look_only=job.look_only):
                going.append((item, row, predicted))
            else:
                skipped[item.recovery_id] = f"{predicted.prediction}:{predicted.why}"
        limits = limits_of(self._ports.integrations, job.integrations, look, self._scale, self._now())
        after_ms = {
            item.recovery_id: wait_ms for item, wait_ms in paced([item for item, _, _ in going], limits, _FOR_EVER_MS)
        }
        now_ms = self._now()
        self._hint([(row, max(row.not_before_ms, now_ms)) for row in again])
        began_ms = last_ms = max([now_ms, *(row.not_before_ms for row in again)])
        for start in range(0, len(going), TOGETHER):
            changes = []
            for item, row, predicted in going[start : start + TOGETHER]:
                change = self._replayed(job, row, predicted, began_ms + after_ms[item.recovery_id])
                if change is None:
                    skipped[item.recovery_id] = Prediction.EXPIRED.value
                else:
                    changes.append(change)
            taken = self._apply(job, changes)
            for change in changes:
                if change not in taken:
                    skipped[change.after.recovery_id] = Outcome.MOVED.value
            self._hint([(change.after, change.after.not_before_ms) for change in taken])
            last_ms = max([last_ms, *(change.after.not_before_ms for change in taken)])
            for change in taken:
                self._ports.metrics.count("rows_replayed", integration=change.after.integration_id)
        for reason in skipped.values():
            self._ports.metrics.count("replays_skipped", reason=reason.partition(":")[0])
        return self._store(sent(job, batch, skipped, last_ms, self._owner, self._now()))

    def _replayed(self, job: Job, row: Row, predicted: Predicted, at_ms: int) -> Change | None:
        try:
            return replay(
                row,
                self._now(),
                actor=job.approved_by,
                reason=job.reason,
                request_id=job.run_request_id,
                job_id=job.job_id,
                scale=sweep.rehint_scale(self._scale),
                is_verified=predicted.prediction is Prediction.WOULD_CHECK,
                not_before_ms=at_ms,
                look_only=job.look_only,
                incident_id=job.incident_id,
            )
        except IllegalTransition:  # its time ended while its neighbours were judged
            return None

    def _apply(self, job: Job, changes: Sequence[Change]) -> list[Change]:
        """Those that could be written: all together, or one by one where a row has moved. Raises `Fenced`."""
        if not changes:
            return []
        try:
            self._ports.jobs.apply(job, changes)
        except VersionConflict:
            if len(changes) == 1:
                return []
            return [change for one in changes for change in self._apply(job, [one])]
        return list(changes)

    def _hint(self, rows: Sequence[tuple[Row, int]]) -> None:
        """What the queue does not take, the sweeper sends when the row is due: the replay stands."""
        if not rows:
            return
        hints = [Hint(row.recovery_id, row.version, at_ms, row.tenant) for row, at_ms in rows]
        refused = self._ports.replays.send(hints, self._now())
        if refused:
            self._ports.metrics.count("hints_not_accepted", len(refused))
            self._ports.log.error(
                "hints at replayed items were not accepted: the sweeper will send them", extra={"count": len(refused)}
            )

    # --------------------------------------------------------------------------------------------------------- watching

    def _watch(self, job: Job, batch: Batch) -> tuple[Job, int | None]:
        """How the batch goes. It is over once each of its rows has an outcome, or enough of them have failed."""
        open_rows = self._look_at(job, batch)
        ended_rows = list(self._known.ended.values())
        self._ask_what_events_met(job, ended_rows)
        said = letters(ended_rows, job, self._known.met)
        why = failing(job.recent + said)
        if why:
            return self._stop(job, why)
        if not open_rows:
            return self._close(job, batch, said, {}), 0
        if is_stuck(batch, self._now(), self._scale):
            return self._stop(job, waiting_for(open_rows))
        self._known.polls += 1
        return job, self._next_poll_ms(batch)

    def _look_at(self, job: Job, batch: Batch) -> list[Row]:
        """Read what has no outcome yet; gives the rows that still have none."""
        if self._known.number != batch.number:
            self._known = _Batch(batch.number)
        asked = [
            recovery_id
            for recovery_id in batch.rows
            if recovery_id not in batch.skipped and recovery_id not in self._known.ended
        ]
        found = self._ports.recovery.several(asked)
        self._known.ended |= {
            recovery_id: row for recovery_id, row in found.items() if outcome_of(row, job) is not Outcome.OPEN
        }
        return [row for row in found.values() if outcome_of(row, job) is Outcome.OPEN]

    def _ask_what_events_met(self, job: Job, ended_rows: Sequence[Row]) -> None:
        """A whole event is over once it was processed. What it called for may have failed all the same: then that is
        rows of its own, and a job that goes on would make more of them.
        """
        fresh = [
            row
            for row in ended_rows
            if row.subject is Subject.EVENT
            and row.recovery_id not in self._known.met
            and outcome_of(row, job) is Outcome.SUCCEEDED
        ]
        if not fresh:
            return
        found, _ = items_of(self._ports, fresh)
        left = {row.recovery_id: unfinished(row, found.get(key_of(row))) for row in fresh}
        rows = self._ports.recovery.several([one for some in left.values() for one in some])
        for recovery_id, some in left.items():
            self._known.met[recovery_id] = met_by(rows[one] for one in some if one in rows)

    def _close(self, job: Job, batch: Batch, said: str, left: Mapping[str, Row]) -> Job:
        """Keep what became of each row, for good, then the checkpoint. With those in `left` the machine goes on."""
        known = self._known.ended
        record = [
            record_of(
                recovery_id,
                known.get(recovery_id),
                job,
                Outcome.LEFT.value if recovery_id in left else batch.skipped.get(recovery_id, ""),
            )
            for recovery_id in batch.rows
        ]
        self._ports.plans.put_record(job.job_id, batch, record)
        counted: dict[str, int] = {}
        for one in record:
            counted[one.outcome] = counted.get(one.outcome, 0) + 1
        job = self._store(closed(job, batch, counted, said, self._owner, self._now()))
        self._say("a batch of a bulk replay has come to its end", job)
        return job

    # --------------------------------------------------------------------------------------------------------- stopping

    def _give_back(self, job: Job) -> tuple[Job, int | None]:
        """What was not sent goes back where it came from; what is being sent now is waited for."""
        batch = job.batch
        if batch is None:
            job = self._move(job, lambda board: ended(job, board, self._now()))
            self._say("a bulk replay has ended before its time", job)
            return job, None
        open_rows = self._look_at(job, batch)
        back = [row for row in open_rows if may_take_back(row, job.job_id)]
        for start in range(0, len(back), TOGETHER):
            self._apply(
                job,
                [
                    take_back(row, self._now(), actor=job.approved_by, reason=job.stop_reason)
                    for row in back[start : start + TOGETHER]
                ],
            )
        if back:
            open_rows = self._look_at(job, batch)
        is_waited_for = any(row.lease_until_ms > self._now() or may_take_back(row, job.job_id) for row in open_rows)
        if is_waited_for:
            return job, self._poll_ms(POLL_MS)
        left = {row.recovery_id: row for row in open_rows}
        return self._close(job, batch, letters(self._known.ended.values(), job, self._known.met), left), 0

    # ----------------------------------------------------------------------------------------------------------- around

    def _going(self, job: Job) -> Sequence[PlanItem]:
        if self._plan[0] != job.plan_reference:
            self._plan = (job.plan_reference, self._ports.plans.get(job.plan_reference, job.plan_hash))
        return self._plan[1].going

    def _store(self, change: JobChange) -> Job:
        self._ports.jobs.store(change)
        return change.after

    def _move(self, job: Job, change: Callable[[Board], JobChange]) -> Job:
        return move(self._ports.jobs, job, change)

    def _now(self) -> int:
        return self._ports.clock.now_ms()

    def _poll_ms(self, milliseconds: int) -> int:
        return max(SHORTEST_POLL_MS, int(milliseconds * self._scale))

    def _next_poll_ms(self, batch: Batch) -> int:
        """Often at first, and while its hints go out a few times, so that few requests go into watching."""
        spread_ms = max(0, batch.last_hint_ms - self._now())
        backed_off = POLL_MS * 3**self._known.polls // 2**self._known.polls
        return self._poll_ms(min(LONGEST_POLL_MS, max(backed_off, spread_ms // 4)))

    def _say(self, text: str, job: Job) -> None:
        self._ports.log.warning(
            text,
            extra={
                "job_id": job.job_id,
                "status": job.state.value,
                "count": job.cursor,
                "matched": job.total,
                # A person's own words are in the audit: they may name anybody.
                "reason": job.held_because if job.is_cancelled else job.stop_reason or job.held_because,
                "request_id": job.run_request_id,
            },
        )


def _of(job: Job) -> Batch:
    if job.batch is None:
        raise AssertionError(f"{job.job_id} has no batch under way")
    return job.batch
