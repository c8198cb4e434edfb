"""Bulk replays whose ground gives way: plans that are gone or forged, jobs that are no more, filters without end,
storage that fails at each step, people and other jobs in between. Nothing is sent that is not on record, and no
integration stays taken.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from functions.core.audit import AuditType
from functions.core.failure import Failure, StorageUnavailable, failure_of_status
from functions.core.integration import INTAKE, Integration, Rate
from functions.core.recovery import Row, Status
from functions.core.replay import Plan, PlanItem, Prediction
from functions.core.replay_job import MOST_ITEMS, OVER, State
from functions.operator_api.calls import replays
from functions.replay import planning
from tests.fakes import FakeIds, FakeRecovery
from tests.operator_calls import OPERATOR, Answering, call
from tests.replay_world import HOUR_MS, MINUTE_MS, ReplayWorld
from tests.worker_world import DESK, KINDS, Died

ALL = {"integration": [DESK, INTAKE]}


def slow_desk(world: ReplayWorld, per_second: float = 2.0) -> None:
    world.limit(Integration(DESK, KINDS, deadline_seconds=5.0, rate=Rate(per_second, 20)))


def dead(world: ReplayWorld, number: int, name: str = "tag") -> list[Row]:
    """Every second one is `failed`, the others are `dlq`."""
    return [
        world.dead_action(name, f"{n:04d}", status=Status.FAILED if n % 2 else Status.DLQ, failure_code="HTTP_503")
        for n in range(number)
    ]


def check_that_the_rest_is_back(world: ReplayWorld, rows: list[Row]) -> int:
    """What was not sent is where it came from, nothing is open, and nobody is kept out; how many were sent."""
    now = [world.now(row) for row in rows]
    sent = [row for row in now if row.status is Status.REPLAYED]
    assert all(row.result == "succeeded" for row in sent), sent
    left = [(before, row) for before, row in zip(rows, now, strict=True) if row.status is not Status.REPLAYED]
    assert all(before.status is row.status for before, row in left)
    assert len(world.provider.sent) == len(sent)
    assert not world.open_rows()
    assert dict(world.jobs.stored_board.holders) == {}
    assert world.jobs.stored_board.working == ()
    return len(sent)


# ---------------------------------------------------------------------------------------------------------------- plans


def forged(world: ReplayWorld, replay_id: str, change: Callable[[Plan], Plan] | None) -> None:
    """Somebody deletes the stored plan, or puts another in its place."""
    reference = world.job(replay_id).plan_reference
    if change is None:
        del world.plans.objects[reference]
    else:
        world.plans.objects[reference] = change(Plan.from_json(world.plans.objects[reference])).to_json()


FORGERIES: list[Callable[[Plan], Plan] | None] = [
    None,
    lambda made: replace(made, going=made.going[:-1]),
    lambda made: replace(made, going=(*made.going, PlanItem("somebody-elses", 1, DESK, Prediction.WOULD_SEND))),
    lambda made: replace(made, going=tuple(replace(item, calls=0) for item in made.going)),
]


@pytest.mark.parametrize("change", FORGERIES)
def test_a_plan_that_is_gone_or_forged_is_not_approved(change: Callable[[Plan], Plan] | None) -> None:
    world = ReplayWorld()
    dead(world, 3)
    planned = world.plan(ALL)
    forged(world, planned["replay_id"], change)
    refused = world.approve(planned)
    assert (refused["statusCode"], refused["document"]["code"]) == (409, "INT-409-PLAN-STALE"), refused
    assert world.job(planned["replay_id"]).state is State.PLANNED
    answer = world.ask("GET", f"/platform/replays/{planned['replay_id']}", query={"items": "true"})
    assert (answer["statusCode"], answer["document"]["code"]) == (404, "INT-404-NOT-FOUND")


@pytest.mark.parametrize("change", FORGERIES)
@pytest.mark.parametrize("is_in_batch", [False, True])
def test_a_job_whose_plan_is_lost_stops_itself_and_frees_its_integration(
    change: Callable[[Plan], Plan] | None, *, is_in_batch: bool
) -> None:
    world = ReplayWorld()
    slow_desk(world)
    world.invocation_ms = 12_500  # each invocation reads the plan anew
    rows = dead(world, 60)
    replay_id = world.approved(world.plan(ALL))

    def meanwhile() -> None:
        if world.job(replay_id).cursor >= 5 and (world.job(replay_id).batch is not None) is is_in_batch:
            world.meanwhile = None
            forged(world, replay_id, change)

    world.meanwhile = meanwhile
    if not is_in_batch:
        forged(world, replay_id, change)
    job = world.run(replay_id)
    assert job.state is State.STOPPED
    assert "the plan" in job.stop_reason
    sent = check_that_the_rest_is_back(world, rows)
    assert (5 <= sent < 60) if is_in_batch else sent == 0
    assert world.quiet.counts["replay_jobs_stopped"] >= 1


def test_a_job_whose_plan_is_gone_can_be_cancelled_in_the_middle_of_a_batch() -> None:
    world = ReplayWorld()
    slow_desk(world)
    rows = dead(world, 60)
    replay_id = world.approved(world.plan(ALL))

    def meanwhile() -> None:
        if world.job(replay_id).cursor >= 5 and world.job(replay_id).batch is not None:
            world.meanwhile = None
            forged(world, replay_id, None)
            assert world.ask("POST", f"/platform/replays/{replay_id}/cancel", {"reason": "stop"})["statusCode"] == 200

    world.meanwhile = meanwhile
    assert world.run(replay_id).state is State.CANCELLED
    assert 5 <= check_that_the_rest_is_back(world, rows) < 60


# ----------------------------------------------------------------------------------------------------------------- jobs


def test_a_job_whose_record_is_gone_keeps_nobody_out() -> None:
    """A record lives for 400 days, or somebody deletes it: the board goes on naming the job until somebody needs it."""
    world = ReplayWorld()
    dead(world, 3)
    first, other = world.plan(ALL), world.plan({"tenant": ["acme"]})
    ghost = world.approved(first)
    del world.jobs.jobs[ghost]
    world.sweep()
    assert world.quiet.counts["replay_jobs_not_started"] == 1
    replay_id = world.approved(other)
    assert dict(world.jobs.stored_board.holders) == {DESK: replay_id}
    assert world.run(replay_id).state is State.FINISHED
    assert ghost not in world.jobs.stored_board.working


def test_a_job_that_is_there_keeps_its_integration_however_long_it_is_paused() -> None:
    world = ReplayWorld()
    dead(world, 3)
    planned, second = world.plan(ALL), world.plan({"tenant": ["acme"]})
    first = world.approved(planned)
    assert world.ask("POST", f"/platform/replays/{first}/pause", {"reason": "wait"})["statusCode"] == 200
    world.clock.advance(20 * MINUTE_MS)
    refused = world.approve(second)
    assert (refused["statusCode"], refused["document"]["replay_id"]) == (409, first)


def test_a_job_that_cannot_be_planned_for_an_hour_is_given_up_001_45() -> None:
    world = ReplayWorld()
    dead(world, 1)
    world.switches.is_down = True
    asked = world.ask("POST", "/platform/replays", {"filter": ALL, "reason": "x"})["document"]
    while world.job(asked["replay_id"]).state is State.PLANNING:
        world.work()
        world.go_on(MINUTE_MS)
        assert world.clock.now - world.job(asked["replay_id"]).created_at_ms < 2 * HOUR_MS
    told = world.show(asked["replay_id"])
    assert (told["state"], told["stop_reason"]) == ("failed", planning.TOO_LONG)
    assert world.jobs.stored_board.working == ()


def test_the_alarm_hears_of_a_job_that_stops_itself_whatever_lambda_dies_of() -> None:
    """The count is written when λ flushes it: one that dies before that is succeeded by one that says it again."""
    for place in range(1, 40):
        world = ReplayWorld()
        dead(world, 20)
        world.provider.answers.append(lambda _: failure_of_status(503))
        replay_id = world.approved(world.plan(ALL))
        told: list[float] = []
        left = [place]

        def flush(world: ReplayWorld = world, told: list[float] = told) -> None:
            told.append(world.quiet.counts.pop("replay_jobs_stopped", 0))

        def kill(_op: str, when: str, world: ReplayWorld = world, left: list[int] = left) -> None:
            left[0] -= when == "after"
            if when == "after" and left[0] == 0:
                world.quiet.counts.pop("replay_jobs_stopped", 0)  # it dies with what it counted
                raise Died

        world.quiet.flush = flush  # type: ignore[method-assign]  # what is counted and not flushed is lost
        world.kill = kill
        assert world.run(replay_id).state is State.STOPPED
        if world.lambda_deaths == 0:
            return
        assert sum(told) >= 1, place
    raise AssertionError("it never got through")


# --------------------------------------------------------------------------------------------------------------- limits


def test_a_job_takes_twenty_thousand_items_and_says_what_it_leaves() -> None:
    world = ReplayWorld()
    rows = dead(world, MOST_ITEMS + 50)
    planned = world.plan(ALL)
    assert planned["plan"]["counts"] == {"over_cap": 50, "would_send": MOST_ITEMS}
    going = {item.recovery_id for item in world.made(planned["replay_id"]).going}
    assert len(going) == MOST_ITEMS
    assert going < {row.recovery_id for row in rows}
    approved = world.approve(planned)
    assert approved["statusCode"] == 202
    assert approved["document"]["progress"]["items"] == MOST_ITEMS


def test_more_than_a_plan_can_tell_of_is_told_and_nothing_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MOST_SEEN", 150)
    world = ReplayWorld()
    dead(world, 320)
    job = world.plan(ALL)
    assert (job["state"], job["stop_reason"]) == ("failed", planning.TOO_WIDE)


HOSTILE: list[dict[str, Any]] = [
    {"detail": [chr(0x1F600 + n % 64) * 190 + f"{n:010d}" for n in range(100)]},
    {name: [f"{'é' * 190}{n:010d}" for n in range(100)] for name in ("detail", "tenant", "source", "flow", "incident")},
    {"recovery_id": ["x"] * 101},
    {"detail": ["x" * 201]},
    {"detail": ["\ud800"]},
    {"tenant": [{"$ne": ""}]},
    {"older_than_seconds": 10**12},
    {"older_than_seconds": True},
    {"newer_than_seconds": -1},
    {"integration": "desk"},
    {"__class__": ["x"]},
]


@pytest.mark.parametrize("wanted", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_filter_is_refused_and_nothing_is_kept_of_it(wanted: dict[str, Any]) -> None:
    world = ReplayWorld()
    answer = world.ask("POST", "/platform/replays", {"filter": wanted, "reason": "x"})
    assert (answer["statusCode"], answer["document"]["code"]) == (400, "INT-400-INVALID-PAYLOAD"), answer
    assert world.jobs.jobs == {}


STRANGE: list[dict[str, Any]] = [
    {"detail": [".*", "(a+)+$", "%", "' OR 1=1 --", "\u0000", "İ"]},
    {"recovery_id": ["../../etc/passwd", "E#acme#x", "\u0000", "desk#0", "é" * 200]},
    {"integration": ["nowhere", "intake#0"]},
    {"older_than_seconds": 3_000, "newer_than_seconds": 1},
    {"recovery_id": ["x" * 200 for _ in range(100)]},
]


@pytest.mark.parametrize("wanted", STRANGE, ids=range(len(STRANGE)))
def test_a_strange_filter_means_what_it_says_and_no_more(wanted: dict[str, Any]) -> None:
    world = ReplayWorld()
    row = world.dead_action("tag", "1", failure_detail="aaaa 503")
    planned = world.plan(wanted)
    assert planned["state"] == "planned"
    assert planned["plan"]["items"] == 0
    assert set(planned["plan"]["counts"]) <= {"not_found"}
    assert world.now(row) == row


# ------------------------------------------------------------------------------------------------------------- provider


def failing_after(world: ReplayWorld, sends: int, failure: Failure) -> None:
    """The desk does so many more, and then fails."""
    left = [sends]

    def answer(_action: object) -> Failure | None:
        left[0] -= 1
        return failure if left[0] < 0 else None

    world.provider.answers.append(answer)


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (failure_of_status(503), "in a row failed"),
        (failure_of_status(400), "in a row failed"),
        (failure_of_status(401), "come to no end: "),
        (failure_of_status(429, retry_after_ms=HOUR_MS), "come to no end: "),
    ],
    ids=["503", "400", "401", "429"],
)
def test_however_the_provider_fails_again_the_job_stops_within_one_batch(
    failure: Failure, why: str, proved: Callable[[str], None]
) -> None:
    """Acceptance: the unsent are where they came from, and the audit says why."""
    world = ReplayWorld()
    slow_desk(world, 10.0)
    world.provider.acts_on_failure = False
    rows = dead(world, 300)
    failing_after(world, 60, failure)
    job = world.run(world.approved(world.plan(ALL)))

    assert job.state is State.STOPPED
    assert why in job.stop_reason
    after = [world.now(row) for row in rows]
    done = [row for row in after if row.status is Status.REPLAYED]
    tried = [row for row in after if row.result == "failed"]
    back = [row for row in after if row.result == "taken_back"]
    untouched = [row for row, before in zip(after, rows, strict=True) if row == before]
    assert len(done) == len(world.provider.sent) == 60
    assert len(done) + len(tried) + len(back) + len(untouched) == 300
    assert all(row.status.value == row.replayed_from for row in back)
    assert not world.open_rows()
    # Batches of 5, 10, 25 and then 50: the 61st is in the fourth, and none is begun after it.
    assert job.batches == 4
    assert len(done) + len(tried) + len(back) == 90
    told = [each for each in world.tables.events if each.event_type is AuditType.REPLAY_JOB_CHANGED]
    assert [each.reason for each in told if json.loads(each.after_state)["status"] == "stopped"] == [job.stop_reason]
    taken = [each for each in world.tables.events if each.event_type is AuditType.REPLAY_TAKEN_BACK]
    assert Counter(each.affected_id for each in taken) == {row.recovery_id: 1 for row in back}
    assert {each.reason for each in taken} <= {job.stop_reason}
    assert dict(world.jobs.stored_board.holders) == {}
    proved(
        f"bulk replay of 300 whose desk answers {failure.code} from the 61st on: stopped in its batch of 50 after "
        f"{len(tried)} had failed ({job.stop_reason}), {len(back)} taken back, {len(untouched)} never touched"
    )


# -------------------------------------------------------------------------------------------------------------- storage

OPERATIONS = (
    "jobs.get",
    "jobs.board",
    "jobs.store",
    "jobs.apply",
    "plans.get",
    "plans.put_record",
    "recovery.several",
    "ledger.read",
    "backlog.waiting",
)


class Watched:
    """Checks at each call of the provider that what it is asked for is on record: replayed by that job, and audited."""

    def __init__(self, world: ReplayWorld, replay_id: str) -> None:
        self.world, self.replay_id = world, replay_id
        self.sent: Counter[str] = Counter()
        world.provider.answers.append(self)

    def __call__(self, action: Any) -> None:
        row = self.world.row_of(action)
        assert row is not None
        self.sent[row.recovery_id] += 1
        assert (row.status, row.job_id, row.replay_no) == (Status.REPLAYED, self.replay_id, 1)
        told = [
            each
            for each in self.world.tables.events
            if each.event_type is AuditType.REPLAYED and each.affected_id == row.recovery_id
        ]
        assert len(told) == 1
        assert (told[0].job_id, told[0].actor) == (self.replay_id, self.world.job(self.replay_id).approved_by)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("op", OPERATIONS)
def test_an_operation_that_fails_once_and_for_long_lets_nothing_out_that_is_not_on_record_004_19(
    op: str, when: str, proved: Callable[[str], None]
) -> None:
    """Each in turn: every call of it fails for ten minutes, before it took effect or after it; then it works again."""
    failed = sent_meanwhile = 0
    for turn in (1, 2, 3, 5, 8):
        world = ReplayWorld()
        slow_desk(world, 10.0)
        rows = dead(world, 40, "push")
        replay_id = world.approved(world.plan(ALL))
        watched = Watched(world, replay_id)
        seen, until_ms, met = [0], [0], [0]

        def fail(
            called: str,
            at: str,
            world: ReplayWorld = world,
            turn: int = turn,
            seen: list[int] = seen,
            until_ms: list[int] = until_ms,
            met: list[int] = met,
        ) -> None:
            if (called, at) != (op, when):
                return
            seen[0] += 1
            if seen[0] == turn:
                until_ms[0] = world.clock.now + 10 * MINUTE_MS
            if world.clock.now < until_ms[0]:
                met[0] += 1
                raise StorageUnavailable(f"{op}: made up, {when} it was done")

        world.kill = fail
        end_ms = world.clock.now + 48 * HOUR_MS
        while world.job(replay_id).state not in OVER and world.clock.now < end_ms:
            world.work()
            world.go_on(MINUTE_MS)
        failed += met[0]
        sent_meanwhile += sum(watched.sent.values())
        job = world.job(replay_id)
        assert job.state is State.FINISHED, (turn, job)
        assert watched.sent == {row.recovery_id: 1 for row in rows}, turn
        assert [world.effects_of(row) for row in rows] == [1] * len(rows)
        assert dict(job.outcomes) == {"succeeded": len(rows)}
    assert failed >= 5
    proved(
        f"bulk replay with {op} failing {when} it is done: {failed} failures in five runs, {sent_meanwhile} of "
        f"{5 * 40} items sent, each once and none before it was on record"
    )


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("op", ["jobs.store", "jobs.board", "plans.get", "recovery.versions"])
@pytest.mark.parametrize("step", ["plan", "approve", "pause", "cancel"])
def test_a_call_whose_storage_fails_is_503_and_may_be_made_again(step: str, op: str, when: str) -> None:
    """Also where it was done and only the answer was lost: the second call says what is so."""
    world = ReplayWorld()
    rows = dead(world, 3)
    wanted = {"filter": ALL, "reason": "it is back"}
    key = {"idempotency-key": "click-0001"}
    replay_id = "" if step == "plan" else world.plan(ALL)["replay_id"]
    if step in ("pause", "cancel"):
        world.approved(world.show(replay_id))
    body = {"plan_hash": world.show(replay_id)["plan"]["hash"]} if step == "approve" else {"reason": "x"}
    calls: dict[str, Callable[[], dict[str, Any]]] = {
        "plan": lambda: world.ask("POST", "/platform/replays", wanted, headers=key)
    }
    again = calls.get(step, lambda: world.ask("POST", f"/platform/replays/{replay_id}/{step}", body))
    failing = [True]

    def fail(called: str) -> None:
        if failing[0] and called == op:
            failing[0] = False
            raise StorageUnavailable("made up")

    if when == "before":
        world.faults.on_before = fail
    else:
        world.faults.on_after = fail
    first = again()
    if not failing[0]:
        assert (first["statusCode"], first["document"]["code"]) == (503, "INT-503-DEPENDENCY-UNAVAILABLE")
    failing[0] = False
    second = again()
    assert second["statusCode"] in (200, 202), second
    assert [world.now(row) for row in rows] == rows  # none of these calls does anything to a row
    told = [each for each in world.tables.events if each.event_type is AuditType.REPLAY_JOB_CHANGED]
    ids = [each.id for each in told]
    assert len(ids) == len(set(ids))
    states = [json.loads(each.after_state)["status"] for each in told]
    assert all(states.count(state) == 1 for state in states)


# ---------------------------------------------------------------------------------------------------------------- races


def test_items_that_people_move_meanwhile_are_left_as_they_left_them() -> None:
    world = ReplayWorld()
    slow_desk(world)
    dead(world, 40)
    replay_id = world.approved(world.plan(ALL))
    recovery = FakeRecovery(world.tables)
    theirs: list[Row] = []

    def meanwhile() -> None:
        """Whatever is next, somebody touches first."""
        job = world.job(replay_id)
        if len(theirs) < 10 and job.batch is None:
            item = world.made(replay_id).going[-1 - len(theirs)]
            row = world.tables.rows[item.recovery_id]
            changed = replace(row, version=row.version + 1, root_cause="unknown")
            assert recovery.get(row.recovery_id) == row
            world.tables.rows[row.recovery_id] = changed
            theirs.append(changed)

    world.kill = lambda op, when: meanwhile() if (op, when) == ("backlog.waiting", "before") else None
    job = world.run(replay_id)
    assert job.state is State.FINISHED
    assert theirs
    assert dict(job.outcomes) == {"moved": len(theirs), "succeeded": 40 - len(theirs)}
    assert [world.now(row) for row in theirs] == theirs
    assert len(world.provider.sent) == 40 - len(theirs)


@pytest.mark.parametrize("jump_ms", [-3 * HOUR_MS, -5 * MINUTE_MS, 5 * MINUTE_MS, 3 * HOUR_MS])
def test_a_clock_that_jumps_sends_nothing_twice_and_leaves_nothing_open(jump_ms: int) -> None:
    world = ReplayWorld()
    slow_desk(world)
    rows = dead(world, 40, "push")
    replay_id = world.approved(world.plan(ALL))

    def meanwhile() -> None:
        if world.job(replay_id).cursor >= 5:
            world.meanwhile = None
            world.clock.advance(jump_ms)

    world.meanwhile = meanwhile
    job = world.run(replay_id)
    assert job.state in (State.FINISHED, State.STOPPED)
    world.run_until_quiet()
    assert not world.open_rows()
    assert max(world.effects_of(row) for row in rows) == 1
    assert sum(world.effects_of(row) for row in rows) == len(world.provider.sent)
    assert dict(world.jobs.stored_board.holders) == {}


@pytest.mark.parametrize("what", ["pause", "cancel"])
@pytest.mark.parametrize("step", range(1, 46, 2))
def test_a_person_may_step_in_at_any_moment(what: str, step: int) -> None:
    """Between any two operations of λ: nothing is lost or sent twice, and what was not sent is back in the end."""
    world = ReplayWorld()
    rows = dead(world, 12)
    replay_id = world.approved(world.plan(ALL))
    left = [step]

    def step_in(_op: str, when: str) -> None:
        left[0] -= when == "before"
        if when == "before" and left[0] == 0:
            world.kill = None
            world.is_in_lambda = False
            answer = world.ask("POST", f"/platform/replays/{replay_id}/{what}", {"reason": "wait"})
            assert answer["statusCode"] in (200, 409), answer
            world.is_in_lambda = True

    world.kill = step_in
    job = world.run(replay_id)
    if job.state is State.PAUSED:
        world.go_on(30 * MINUTE_MS)
        assert not world.open_rows()
        assert world.ask("POST", f"/platform/replays/{replay_id}/resume", {"reason": "go on"})["statusCode"] == 200
        job = world.run(replay_id)
    assert job.state in (State.FINISHED, State.CANCELLED)
    sent = check_that_the_rest_is_back(world, rows)
    if job.state is State.FINISHED:
        assert sent == 12
    told = Counter(each.affected_id for each in world.tables.events if each.event_type is AuditType.REPLAYED)
    assert all(count == 1 for count in told.values())


def test_two_who_approve_plans_of_one_integration_at_once_do_not_both_get_it() -> None:
    """Whoever comes second finds the board moved, looks again, and is told who has it."""
    world = ReplayWorld()
    dead(world, 3)
    first, second = world.plan(ALL), world.plan({"tenant": ["acme"]})
    answers: list[dict[str, Any]] = []
    another = Answering([replays.routes(world.api_ports())], clock=world.clock, ids=FakeIds())
    path, body = f"/platform/replays/{second['replay_id']}/approve", {"plan_hash": second["plan"]["hash"]}

    def other(op: str) -> None:
        if op == "jobs.store":
            world.faults.on_before = None
            answers.append(another(call("POST", path, body=json.dumps(body), claims=OPERATOR)))

    world.faults.on_before = other
    refused = world.approve(first)
    assert answers[0]["statusCode"] == 202
    assert (refused["statusCode"], refused["document"]["code"]) == (409, "INT-409-IN-PROGRESS")
    assert refused["document"]["replay_id"] == second["replay_id"]
    assert dict(world.jobs.stored_board.holders) == {DESK: second["replay_id"]}


# ----------------------------------------------------------------------------------------------------------------- live


class Busy(ReplayWorld):
    """New events come at a steady pace, twice for each call that a replay may make; time passes in small steps."""

    STEP_MS = 250
    EVERY_MS = 2_000

    def __init__(self) -> None:
        super().__init__(names=("push",))
        slow_desk(self, 1.0)
        self.accepted_at_ms: list[int] = []

    def go_on(self, milliseconds: int) -> None:
        for _ in range(0, milliseconds, self.STEP_MS):
            if self.clock.now >= (self.accepted_at_ms[-1] if self.accepted_at_ms else 0) + self.EVERY_MS:
                self.accept(self.event(f"live-{len(self.accepted_at_ms)}"))
                self.accepted_at_ms.append(self.clock.now)
            super().go_on(min(self.STEP_MS, milliseconds))

    def waited_ms(self) -> list[int]:
        """From the door to the desk, event by event."""
        pushed = [at_ms for at_ms, name in self.provider.sent if name == "push"]
        return [there - here for there, here in zip(pushed, self.accepted_at_ms, strict=False)]


def test_live_events_wait_no_longer_beside_a_bulk_replay_than_without_one(proved: Callable[[str], None]) -> None:
    alone = Busy()
    alone.go_on(10 * MINUTE_MS)
    beside = Busy()
    dead(beside, 150)
    replay_id = beside.approved(beside.plan(ALL))
    began_ms, first = beside.clock.now, len(beside.accepted_at_ms)
    job = beside.run(replay_id)
    took_s = (beside.clock.now - began_ms) // 1000
    assert job.state is State.FINISHED
    replayed_s = len([name for _, name in beside.provider.sent if name == "tag"]) / took_s
    assert 0.15 < replayed_s <= 0.25 + 0.01  # it ran all along, at its quarter of one call a second
    waited, usual = sorted(beside.waited_ms()[first:]), sorted(alone.waited_ms())
    assert len(waited) >= 200
    assert len(usual) >= 200
    for share in (0.5, 0.9, 1.0):
        longest, usually = waited[int(share * len(waited)) - 1], usual[int(share * len(usual)) - 1]
        assert longest <= 1.2 * usually, share
    proved(
        f"{len(waited)} live events beside a bulk replay of 150 ({took_s} s, injected clock) waited {waited[-1]} ms at "
        f"most from door to desk; without it {usual[-1]} ms"
    )
