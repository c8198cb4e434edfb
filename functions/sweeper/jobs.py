"""The sweeper's part in bulk replays: a job that nobody works on is started again."""

from __future__ import annotations

from aws_lambda_powertools import Logger

from functions.core.clock import Clock
from functions.core.ports import ReplayJobs, ReplayStarter
from functions.core.replay_job import WORKED_ON
from functions.observability import Metrics


class JobDuty:
    """Looks at the board of jobs: one read while there is none."""

    def __init__(self, jobs: ReplayJobs, starter: ReplayStarter, clock: Clock, log: Logger, metrics: Metrics) -> None:
        self._jobs = jobs
        self._starter = starter
        self._clock = clock
        self._log = log
        self._metrics = metrics

    def run(self) -> int:
        """Start what is due and has no live lease: its worker waits for nothing but time, or is dead. How many there
        were. Raises `StorageUnavailable`.
        """
        working = self._jobs.board().working
        if not working:
            return 0
        now_ms = self._clock.now_ms()
        found = self._jobs.several(working)
        for job_id in sorted(set(working) - found.keys()):
            self._metrics.count("replay_jobs_not_started")
            self._log.error("a bulk replay that is to go on is not there, or cannot be read", extra={"job_id": job_id})
        idle = [
            job
            for job in found.values()
            if job.state in WORKED_ON and job.lease_until_ms <= now_ms and job.due_at_ms <= now_ms
        ]
        for job in idle:
            is_accepted = self._starter.start(job.job_id)
            self._metrics.count("replay_jobs_started" if is_accepted else "replay_jobs_not_started")
            self._log.info("a bulk replay goes on", extra={"job_id": job.job_id, "status": job.state.value})
        return len(idle)
