"""Moves a bulk replay on together with the board of them all, which others move too."""

from __future__ import annotations

from collections.abc import Callable

from functions.core.failure import VersionConflict
from functions.core.ports import ReplayJobs
from functions.core.replay_job import HOLDING, Board, IntegrationTaken, Job, JobChange

TRIES = 5


def move(jobs: ReplayJobs, job: Job | None, change: Callable[[Board], JobChange]) -> Job:
    """Store what `change` makes of the board as it is, again while only the board has moved; gives the job after it.

    An integration whose holder is no more is free: no job that is over, or whose record is gone, keeps others out.
    Raises `VersionConflict` if the job has moved on, `StorageUnavailable`, and what `change` raises.
    """
    gone: set[str] = set()
    for tried in range(1, TRIES + 1):
        try:
            made = change(jobs.board().without(gone))
        except IntegrationTaken as taken:
            holder = jobs.get(taken.job_id)
            if tried == TRIES or (holder is not None and holder.state in HOLDING):
                raise
            gone.add(taken.job_id)
            continue
        try:
            jobs.store(made)
        except VersionConflict:
            now = jobs.get(made.after.job_id)
            is_same = now is None if job is None else now is not None and now.version == job.version
            if not is_same or tried == TRIES:
                raise
            continue
        return made.after
    raise AssertionError("the last try returns or raises")
