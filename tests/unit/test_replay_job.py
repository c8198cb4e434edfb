"""A bulk replay as a job: what it can be, who may move it, how it grows, and when it stops itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from functions.core import replay_job as jobs
from functions.core.attempt import Effect
from functions.core.audit import AuditType, Severity
from functions.core.failure import IllegalTransition
from functions.core.gate import WaitingFor
from functions.core.machine import ABSENT
from functions.core.recovery import Row, Status
from functions.core.replay import Ground, Plan, PlanItem, Prediction
from functions.core.replay_job import (
    JOB,
    Batch,
    BatchRecord,
    Board,
    IntegrationTaken,
    Job,
    JobChange,
    JobConflict,
    Outcome,
    PlanStale,
    State,
)
from tests.fakes import NOON_MS
from tests.recovery_rows import dead, row

MINUTE_MS = 60_000
BOARD = Board()
PLAN = Plan(
    (
        PlanItem("a", 3, "helpdesk", Prediction.WOULD_SEND),
        PlanItem("b", 4, "email", Prediction.WOULD_CHECK, 2, "it may have happened"),
    ),
    (PlanItem("c", 1, "helpdesk", Prediction.UNKNOWN, 1, "nobody can tell"),),
)


def new(**fields: Any) -> Job:
    sound: dict[str, Any] = {
        "job_id": "j1",
        "state": State.PLANNING,
        "actor": "ada",
        "reason": "the helpdesk is back",
        "filter": '{"tenant":["acme"]}',
        "cap": 100,
        "created_at_ms": NOON_MS,
        "request_id": "req-plan",
    }
    return Job(**{**sound, **fields})


def in_state(state: State, **fields: Any) -> Job:
    """A job that has come that far."""
    about: dict[str, Any] = {"state": state}
    if state is not State.PLANNING:
        about |= {"plan_hash": PLAN.plan_hash, "planned_at_ms": NOON_MS, "total": 2, "counts": PLAN.counts}
        about |= {"integrations": PLAN.integrations, "samples": PLAN.samples, "plan_reference": "replays/j1/plan"}
    if state not in (State.PLANNING, State.PLANNED):
        about |= {"approved_by": "bob", "approved_at_ms": NOON_MS, "run_request_id": "req-run"}
    return new(**{**about, **fields})


def by_ada(change: Callable[..., JobChange], job: Job, board: Board = BOARD) -> JobChange:
    return change(job, board, NOON_MS, actor="ada", reason="because", request_id="req-2")


STEPS: dict[tuple[str, str, str], Callable[[], JobChange]] = {
    (ABSENT, "ask", "planning"): lambda: jobs.asked(new(), BOARD),
    ("planning", "plan", "planned"): lambda: jobs.planned(new(), PLAN, "ref", Ground(), 5, BOARD, NOON_MS),
    ("planning", "fail", "failed"): lambda: jobs.unplanned(new(), "too wide", BOARD, NOON_MS),
    ("planning", "cancel", "cancelled"): lambda: by_ada(jobs.cancelled, new()),
    ("planned", "cancel", "cancelled"): lambda: by_ada(jobs.cancelled, in_state(State.PLANNED)),
    ("planned", "approve", "approved"): lambda: jobs.approved(
        in_state(State.PLANNED), BOARD, NOON_MS, actor="bob", request_id="req-run"
    ),
    ("approved", "begin", "running"): lambda: jobs.begun(in_state(State.APPROVED), BOARD, NOON_MS),
    ("approved", "pause", "paused"): lambda: by_ada(jobs.paused, in_state(State.APPROVED)),
    ("running", "pause", "paused"): lambda: by_ada(jobs.paused, in_state(State.RUNNING)),
    ("paused", "resume", "approved"): lambda: by_ada(jobs.resumed, in_state(State.PAUSED)),
    ("running", "stop", "stopping"): lambda: jobs.stopping(in_state(State.RUNNING), "5 failed", BOARD, NOON_MS),
    ("approved", "cancel", "stopping"): lambda: by_ada(jobs.cancelled, in_state(State.APPROVED)),
    ("running", "cancel", "stopping"): lambda: by_ada(jobs.cancelled, in_state(State.RUNNING)),
    ("paused", "cancel", "stopping"): lambda: by_ada(jobs.cancelled, in_state(State.PAUSED)),
    ("stopping", "end", "stopped"): lambda: jobs.ended(in_state(State.STOPPING), BOARD, NOON_MS),
    ("stopping", "end", "cancelled"): lambda: jobs.ended(in_state(State.STOPPING, is_cancelled=True), BOARD, NOON_MS),
    ("running", "finish", "finished"): lambda: jobs.finished(in_state(State.RUNNING), BOARD, NOON_MS),
    ("planning", "lease", "planning"): lambda: jobs.leased(new(), "me", NOON_MS),
    ("approved", "lease", "approved"): lambda: jobs.leased(in_state(State.APPROVED), "me", NOON_MS),
    ("running", "lease", "running"): lambda: jobs.leased(in_state(State.RUNNING), "me", NOON_MS),
    ("stopping", "lease", "stopping"): lambda: jobs.leased(in_state(State.STOPPING), "me", NOON_MS),
    ("running", "checkpoint", "running"): lambda: jobs.opened(in_state(State.RUNNING), ["a"], "me", NOON_MS),
}


@pytest.mark.parametrize("step", JOB.steps, ids=lambda step: f"{step.state} {step.event} {step.next}")
def test_every_line_of_the_table_is_a_transition_that_the_code_makes(step: Any) -> None:
    change = STEPS[step.state, step.event, step.next]()
    before = ABSENT if change.before is None else change.before.state.value
    assert (before, change.after.state.value) == (step.state, step.next)
    if change.before is not None:
        assert change.after.version == change.before.version + 1


def test_the_table_knows_every_state_and_no_other() -> None:
    assert set(JOB.states) == {ABSENT, *(state.value for state in State)}
    assert {step.state for step in JOB.steps}.isdisjoint({state.value for state in jobs.OVER})


@pytest.mark.parametrize(
    ("change", "states"),
    [
        (jobs.paused, {State.APPROVED, State.RUNNING}),
        (jobs.resumed, {State.PAUSED}),
        (jobs.cancelled, {State.PLANNING, State.PLANNED, State.APPROVED, State.RUNNING, State.PAUSED}),
    ],
)
def test_whoever_asks_for_what_cannot_be_is_told_the_state(
    change: Callable[..., JobChange], states: set[State]
) -> None:
    for state in set(State) - states:
        with pytest.raises(JobConflict) as refused:
            by_ada(change, in_state(state))
        assert refused.value.state is state


def test_code_that_asks_for_a_way_that_the_table_does_not_have_raises() -> None:
    with pytest.raises(IllegalTransition):
        jobs.finished(in_state(State.STOPPED), BOARD, NOON_MS)
    with pytest.raises(IllegalTransition):
        jobs.asked(in_state(State.RUNNING), BOARD)


def test_each_step_names_who_why_and_what_was_meant_in_the_audit_001_47() -> None:
    change = STEPS["planned", "approve", "approved"]()
    (event,) = change.audit
    assert (event.event_type, event.actor, event.request_id, event.job_id) == (
        AuditType.REPLAY_JOB_CHANGED,
        "bob",
        "req-run",
        "j1",
    )
    after = json.loads(event.after_state)
    assert (after["status"], after["filter"], after["total"], after["approved_by"]) == (
        "approved",
        {"tenant": ["acme"]},
        2,
        "bob",
    )
    assert json.loads(event.before_state)["status"] == "planned"
    assert (change.after.run_request_id, change.after.approved_by) == ("req-run", "bob")


def test_a_job_that_stops_itself_is_an_error_and_one_that_people_end_is_none() -> None:
    stopped = STEPS["running", "stop", "stopping"]()
    assert (stopped.audit[0].severity, stopped.audit[0].reason) == (Severity.ERROR, "5 failed")
    assert json.loads(stopped.audit[0].after_state)["stop_reason"] == "5 failed"
    ended = jobs.ended(stopped.after, BOARD, NOON_MS)
    assert (ended.audit[0].reason, ended.audit[0].containment_action) == (
        "5 failed",
        "what was not sent is back where it came from",
    )
    assert by_ada(jobs.cancelled, in_state(State.RUNNING)).audit[0].severity is Severity.WARNING
    assert STEPS["stopping", "end", "cancelled"]().audit[0].severity is Severity.WARNING


def test_a_job_is_read_back_as_it_was() -> None:
    full = in_state(
        State.RUNNING,
        batch=Batch(2, 5, 7, NOON_MS, ("a", "b"), is_sent=True, last_hint_ms=NOON_MS, skipped={"a": "moved"}),
        ground=Ground({"helpdesk": "healthy"}, {"mode": "live"}),
        outcomes={"succeeded": 5},
        recent="sssss",
    )
    assert Job.from_json(full.to_json()) == full
    assert Job.from_json(new().to_json()) == new()


def test_a_job_whose_batch_does_not_say_which_rows_it_takes_is_not_taken_for_one_without_any() -> None:
    said = json.loads(in_state(State.RUNNING, batch=Batch(1, 0, 1, NOON_MS, ("a",))).to_json())
    del said["batch"]["rows"]
    with pytest.raises(TypeError):
        Job.from_json(json.dumps(said))


# --------------------------------------------------------------------------------------------------------------- board


def test_a_job_has_its_integrations_from_its_approval_to_its_end_and_nobody_else_has_them() -> None:
    approved = STEPS["planned", "approve", "approved"]()
    assert approved.board is not None
    board = approved.board[1]
    assert (dict(board.holders), board.working, board.recent, board.version) == (
        {"email": "j1", "helpdesk": "j1"},
        ("j1",),
        ("j1",),
        1,
    )
    other = replace(in_state(State.PLANNED), job_id="j2", integrations=("helpdesk",))
    with pytest.raises(IntegrationTaken) as taken:
        jobs.approved(other, board, NOON_MS, actor="bob", request_id="r")
    assert (taken.value.integration, taken.value.job_id) == ("helpdesk", "j1")
    elsewhere = replace(other, integrations=("sms",))
    beside = jobs.approved(elsewhere, board, NOON_MS, actor="bob", request_id="r").board
    assert beside is not None
    assert set(beside[1].holders) == {"email", "helpdesk", "sms"}
    free = beside[1].with_job(in_state(State.FINISHED))
    assert (dict(free.holders), free.working, free.recent) == ({"sms": "j2"}, ("j2",), ("j2", "j1"))


def test_a_paused_job_keeps_its_integrations_and_needs_nobody() -> None:
    board = BOARD.with_job(in_state(State.RUNNING)).with_job(in_state(State.PAUSED))
    assert set(board.holders) == {"email", "helpdesk"}
    assert board.working == ()


def test_a_board_that_a_step_does_not_change_is_not_written() -> None:
    approved = in_state(State.APPROVED)
    assert jobs.begun(approved, BOARD.with_job(approved), NOON_MS).board is None


def test_the_board_keeps_the_newest() -> None:
    board = BOARD
    for number in range(60):
        board = board.with_job(replace(in_state(State.FINISHED), job_id=f"j{number}"))
    assert (len(board.recent), board.recent[0], board.recent[-1]) == (50, "j59", "j10")


# ------------------------------------------------------------------------------------------------------------ approval


def test_a_plan_that_was_not_looked_at_is_empty_or_is_old_is_not_approved() -> None:
    job = in_state(State.PLANNED)
    jobs.check_approvable(job, PLAN.plan_hash, NOON_MS + 30 * MINUTE_MS)
    with pytest.raises(PlanStale, match="hash"):
        jobs.check_approvable(job, "0" * 64, NOON_MS)
    with pytest.raises(PlanStale, match="30 minutes"):
        jobs.check_approvable(job, PLAN.plan_hash, NOON_MS + 30 * MINUTE_MS + 1)
    with pytest.raises(JobConflict):
        jobs.check_approvable(in_state(State.FINISHED), PLAN.plan_hash, NOON_MS)
    with pytest.raises(JobConflict, match="nothing"):
        jobs.check_approvable(replace(job, total=0), PLAN.plan_hash, NOON_MS)


def test_somebody_works_on_a_job_and_nobody_else_until_the_lease_is_over() -> None:
    job = jobs.leased(in_state(State.RUNNING), "me", NOON_MS).after
    assert job.lease_until_ms == NOON_MS + jobs.LEASE_MS
    with pytest.raises(JobConflict):
        jobs.leased(job, "you", job.lease_until_ms - 1)
    assert jobs.leased(job, "me", NOON_MS + 5).after.lease_until_ms == NOON_MS + 5 + jobs.LEASE_MS
    assert jobs.leased(job, "you", job.lease_until_ms).after.lease_owner == "you"
    free = jobs.let_go(job, NOON_MS + 60_000).after
    assert (free.lease_owner, free.lease_until_ms, free.due_at_ms) == ("", 0, NOON_MS + 60_000)
    assert by_ada(jobs.paused, job).after.lease_until_ms == 0
    with pytest.raises(JobConflict):
        jobs.leased(in_state(State.PAUSED), "me", NOON_MS)


# ------------------------------------------------------------------------------------------------------------- batches


def test_batches_grow_after_clean_ones_only_up_to_a_hundred_000_27() -> None:
    job, sizes = in_state(State.RUNNING, total=1_000), []
    for said in ("sssss", "s" * 10, "sf", "s" * 25, "s" * 50, "s" * 100, ""):
        sizes.append(job.size)
        batch = jobs.opened(job, ["a"] * job.size, "me", NOON_MS).after.batch
        assert batch is not None
        job = jobs.closed(job, batch, {"succeeded": len(said)}, said, "me", NOON_MS).after
    assert sizes == [5, 10, 25, 25, 50, 100, 100]
    assert job.cursor == sum(sizes)
    assert len(job.recent) == jobs.RECENT
    assert job.outcomes["succeeded"] == 192


def test_a_batch_of_which_nothing_was_tried_proves_nothing_000_27() -> None:
    job = jobs.opened(in_state(State.RUNNING, total=1_000), ["a"] * 5, "me", NOON_MS).after
    assert job.batch is not None
    assert jobs.closed(job, job.batch, {"moved": 5}, "", "me", NOON_MS).after.size == jobs.SIZES[0]
    proven = replace(job, recent="sssss")
    assert jobs.closed(proven, job.batch, {"moved": 5}, "", "me", NOON_MS).after.size == jobs.SIZES[1]


def test_a_board_without_a_job_that_is_no_more_is_stored_as_if_that_had_never_been_on_it() -> None:
    board = Board({"helpdesk": "ghost", "email": "j2"}, ("ghost", "j2"), ("ghost", "j2"), 7)
    assert board.without([]) == board
    left = board.without(["ghost"])
    assert left == Board({"email": "j2"}, ("j2",), ("ghost", "j2"), 7)
    after = left.with_job(in_state(State.APPROVED, integrations=("helpdesk",)))
    assert (after.holders, after.version) == ({"email": "j2", "helpdesk": "j1"}, 8)


def test_a_batch_is_on_record_before_it_is_touched_and_so_is_what_was_skipped() -> None:
    job = jobs.opened(in_state(State.RUNNING, held_since_ms=5, held_because="x"), ["a", "b"], "me", NOON_MS).after
    assert job.batch == Batch(1, 0, 2, NOON_MS, ("a", "b"))
    assert (job.held_since_ms, job.held_because) == (0, "")
    assert job.batch is not None
    sent = jobs.sent(job, job.batch, {"a": "moved"}, NOON_MS + 9, "me", NOON_MS).after.batch
    assert sent == Batch(1, 0, 2, NOON_MS, ("a", "b"), is_sent=True, last_hint_ms=NOON_MS + 9, skipped={"a": "moved"})


OURS = in_state(State.RUNNING, job_id="job")


@pytest.mark.parametrize(
    ("subject", "outcome"),
    [
        (None, Outcome.MOVED),
        (dead(job_id="another"), Outcome.MOVED),
        (row(status=Status.REPLAYED, job_id="job"), Outcome.OPEN),
        (row(status=Status.REPLAYED, job_id="job", result="succeeded"), Outcome.SUCCEEDED),
        (dead(job_id="job", result="taken_back"), Outcome.TAKEN_BACK),
        (dead(job_id="job", result="failed", effect=Effect.UNKNOWN), Outcome.UNCLEAR),
        (dead(job_id="job", result="failed", failure_code="SUPPRESSED", status=Status.FAILED), Outcome.SUPPRESSED),
        (dead(job_id="job", result="failed", failure_code="EXPIRED", status=Status.FAILED), Outcome.ENDED),
        (dead(job_id="job", result="failed"), Outcome.FAILED),
    ],
)
def test_what_became_of_an_item_is_read_off_its_row(subject: Row | None, outcome: Outcome) -> None:
    assert jobs.outcome_of(subject, OURS) is outcome
    if outcome is Outcome.FAILED:
        assert jobs.outcome_of(subject, replace(OURS, look_only=True)) is Outcome.NOT_THERE


def test_outcomes_count_in_the_order_in_which_they_came_about() -> None:
    rows = [
        dead("b", job_id="job", result="failed", updated_at_ms=2),
        row("a", status=Status.REPLAYED, result="succeeded", job_id="job", updated_at_ms=1),
        dead("c", job_id="job", result="failed", failure_code="DISMISSED", status=Status.FAILED, updated_at_ms=3),
        dead("d", job_id="job", result="failed", effect=Effect.UNKNOWN, updated_at_ms=4),
    ]
    assert jobs.letters(rows, OURS) == "sfu"
    assert jobs.letters(rows, OURS, {rows[1].recovery_id: "f", rows[0].recovery_id: ""}) == "ffu"


def test_an_event_met_what_the_rows_that_it_has_left_say() -> None:
    waits = row("w", status=Status.PENDING, failure_class="", failure_code="")
    failed = row("f", failure_class="transient", failure_code="HTTP_503", effect=Effect.UNKNOWN)
    unclear = dead("u", failure_class="unknown_outcome", effect=Effect.UNKNOWN)
    assert [jobs.met_by(left) for left in ([], [waits], [waits, failed], [failed, unclear])] == ["", "", "f", "u"]


def test_the_record_of_an_item_says_where_it_came_from_and_what_it_came_to() -> None:
    after = row(
        status=Status.REPLAYED, result="succeeded", job_id="job", replayed_from="dlq", provider_id="p", attempt_count=6
    )
    assert jobs.record_of(after.recovery_id, after, OURS) == BatchRecord(
        after.recovery_id, "succeeded", "dlq", "replayed", "HTTP_503", 6, "p"
    )
    assert jobs.record_of("x", None, OURS) == BatchRecord("x", "moved")
    assert jobs.record_of("x", dead(), OURS, "unknown:nobody can tell") == BatchRecord(
        "x", "unknown", why="unknown:nobody can tell"
    )
    halfway = replace(OURS, batch=Batch(1, 0, 1, NOON_MS, ("x",)))
    assert jobs.record_of("x", dead(), halfway) == BatchRecord("x", "not_sent")
    sent = replace(halfway, batch=Batch(1, 0, 1, NOON_MS, ("x",), is_sent=True))
    assert jobs.record_of("x", dead(), sent) == BatchRecord("x", "moved")


# ------------------------------------------------------------------------------------------------------------ stopping


@pytest.mark.parametrize(
    ("recent", "why"),
    [
        ("", ""),
        ("f", ""),
        ("sfsss", ""),
        ("ff", "2 of the first 2 failed"),
        ("sfssf", "2 of the first 5 failed"),
        ("s" * 40 + "ffff", ""),
        ("s" * 40 + "fffff", "5 in a row failed"),
        ("s" * 60 + "fsfsfsfsf", ""),
        ("s" * 41 + "fsfsfsfsfsf", "6 of the last 50 failed"),
        ("ssssssfff", ""),
        ("sssssssfff"[::-1] + "", "3 of the last 10 failed"),
        ("s" * 20 + "u", ""),
        ("s" * 20 + "uu", "of 2 of the last 22 nobody can tell whether they happened"),
        ("u" + "s" * 50 + "u", ""),
    ],
)
def test_a_job_stops_when_too_many_fail(recent: str, why: str) -> None:
    assert jobs.failing(recent) == why


def test_live_traffic_that_waits_holds_a_job_back_and_in_the_end_stops_it() -> None:
    assert jobs.waiting_live(100, {"helpdesk": 30_000}, 1.0) == ""
    assert jobs.waiting_live(101, {}, 1.0) == "101 new events wait in their queue"
    assert jobs.waiting_live(0, {"email": 0, "helpdesk": 45_000}, 1.0) == "calls of helpdesk wait for 45 s"
    assert jobs.waiting_live(0, {"helpdesk": 999}, 0.001) == ""
    held = jobs.held(in_state(State.RUNNING), "so it is", "me", NOON_MS).after
    again = jobs.held(held, "so it is", "me", NOON_MS + 60_000).after
    assert again.held_since_ms == NOON_MS
    assert not jobs.is_held_too_long(again, NOON_MS + jobs.HOLD_MS, 1.0)
    assert jobs.is_held_too_long(again, NOON_MS + jobs.HOLD_MS + 1, 1.0)
    assert not jobs.is_held_too_long(again, NOON_MS + jobs.SHORTEST_HOLD_MS, 0.001)
    free = jobs.held(again, "", "me", NOON_MS + 70_000).after
    assert (free.held_since_ms, free.held_because) == (0, "")
    assert not jobs.is_held_too_long(free, NOON_MS + 10 * jobs.HOLD_MS, 1.0)


def test_a_batch_that_comes_to_no_end_is_told_with_what_its_items_wait_for() -> None:
    batch = Batch(1, 0, 1, NOON_MS, ("a",), is_sent=True, last_hint_ms=NOON_MS)
    assert not jobs.is_stuck(batch, NOON_MS + jobs.PATIENCE_MS, 1.0)
    assert jobs.is_stuck(batch, NOON_MS + jobs.PATIENCE_MS + 1, 1.0)
    assert not jobs.is_stuck(batch, NOON_MS + jobs.SHORTEST_PATIENCE_MS, 0.001)
    rows = [row(waiting_for=WaitingFor.CREDENTIAL), row("b"), row("c", waiting_for=WaitingFor.CREDENTIAL)]
    assert jobs.waiting_for(rows) == "3 of its items come to no end: 1 for a worker, 2 for credential waiting"
