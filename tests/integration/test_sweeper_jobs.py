"""The sweeper sees to bulk replays that nobody works on."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from functions import observability
from functions.core.failure import StorageUnavailable
from functions.core.recovery import Status
from functions.core.replay_job import LEASE_MS, Board, Job, State, leased
from functions.sweeper.jobs import JobDuty
from tests.control_fakes import FakeReplayJobs, FakeReplayStarter
from tests.fakes import NOON_MS, FakeClock, FakeTables
from tests.replay_world import ReplayWorld

JOB = Job("j1", State.RUNNING, "ada", "it is back", "{}", 10, NOON_MS, "req-1", integrations=("helpdesk",))


class Stage:
    def __init__(self, *jobs: Job) -> None:
        self.tables, self.clock, self.starter = FakeTables(), FakeClock(), FakeReplayStarter()
        self.jobs = FakeReplayJobs(self.tables)
        for job in jobs:
            self.jobs.jobs[job.job_id] = job
        self.jobs.stored_board = Board(working=tuple(job.job_id for job in jobs), version=1)
        self.lines: list[str] = []
        metrics = observability.metrics("sweeper", "test", self.lines.append)
        self.duty = JobDuty(
            self.jobs, self.starter, self.clock, observability.logger("jobs", stream=io.StringIO()), metrics
        )


def test_a_job_that_is_due_and_has_no_live_lease_is_started() -> None:
    stage = Stage(JOB, replace(JOB, job_id="j2", due_at_ms=NOON_MS + 1))
    assert stage.duty.run() == 1
    assert stage.starter.started == ["j1"]


def test_a_job_whose_lambda_died_is_started_once_its_lease_is_over_and_not_before() -> None:
    stage = Stage(leased(JOB, "dead", NOON_MS).after)
    assert stage.duty.run() == 0
    stage.clock.advance(LEASE_MS)
    assert stage.duty.run() == 1
    assert stage.starter.started == ["j1"]


def test_a_job_that_waits_for_a_person_is_left_alone() -> None:
    stage = Stage(replace(JOB, state=State.PAUSED))
    assert stage.duty.run() == 0


def test_where_no_job_is_one_read_is_all() -> None:
    stage = Stage()
    assert stage.duty.run() == 0
    assert stage.tables.faults.calls == ["jobs.board"]


def test_a_start_that_is_not_accepted_is_tried_again_at_the_next_tick() -> None:
    stage = Stage(JOB)
    stage.starter.is_down = True
    assert stage.duty.run() == 1
    stage.starter.is_down = False
    assert stage.duty.run() == 1
    assert stage.starter.started == ["j1"]


def test_jobs_that_cannot_be_read_do_not_keep_rows_from_being_woken() -> None:
    world = ReplayWorld()
    world.faults.fail("jobs.board")
    row = world.dead_action("tag", "1")
    world.tables.rows[row.recovery_id] = replace(
        row, status=Status.RETRYING, due_at_ms=world.clock.now, not_before_ms=world.clock.now
    )
    with pytest.raises(ExceptionGroup) as failed:
        world.sweeper()({}, None)
    assert isinstance(failed.value.exceptions[0], StorageUnavailable)
    assert len(world.retries.sent) == 1
