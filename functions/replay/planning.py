"""Makes a job's plan: looks through the rows that its filter means, and says what would become of each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from functions.core.failure import StorageUnavailable
from functions.core.recovery import Row
from functions.core.replay import (
    Filter,
    Limits,
    PlanItem,
    Prediction,
    UnknownFilter,
    ground_of,
    matches,
    plan,
    takes_ms,
)
from functions.core.replay_job import LEASE_MS, MOST_SEEN, PLANNING_MS, Job, leased, planned, unplanned
from functions.job_board import move
from functions.replay.judging import Judge, Look, swept
from functions.replay.pace import limits_of
from functions.replay.ports import Ports

CHUNK: Final = 100  # rows judged together: as many ledger items as are read in one request
TOO_WIDE: Final = "there is more than can be looked through in one go: narrow the filter"
TOO_LONG: Final = "it could not be planned within an hour"


class Planner:
    """Plans jobs."""

    def __init__(self, ports: Ports, scale: float) -> None:
        self._ports = ports
        self._scale = scale

    def plan(self, job: Job, until_ms: int) -> Job:
        """The job, planned; or failed, where there is too much, or nobody could plan it for an hour. Nothing of any row
        is changed.

        Raises `VersionConflict` if the job has moved on, and `StorageUnavailable`.
        """
        ports = self._ports
        try:
            wanted = Filter.from_json(job.filter)
        except UnknownFilter as unknown:
            return self._give_up(job, str(unknown))
        if ports.clock.now_ms() - job.created_at_ms > PLANNING_MS:
            return self._give_up(job, TOO_LONG)
        judge = Judge(ports, wanted, self._scale, look_only=job.look_only)
        judged: list[tuple[int, PlanItem]] = []
        seen: set[str] = set()
        look = self._look(judge)
        rows = self._rows(wanted)
        while chunk := list(islice(rows, CHUNK)):
            now_ms = ports.clock.now_ms()
            if now_ms >= until_ms or len(judged) > MOST_SEEN:
                return self._give_up(job, TOO_WIDE)
            if job.lease_until_ms - now_ms < LEASE_MS // 2:
                change = leased(job, job.lease_owner, now_ms)
                ports.jobs.store(change)
                job, look = change.after, self._look(judge)
            meant = [row for row in chunk if row.recovery_id not in seen and matches(wanted, row, now_ms)]
            seen.update(row.recovery_id for row in meant)
            judged += [
                (
                    row.received_at_ms,
                    PlanItem(row.recovery_id, row.version, row.integration_id, one.prediction, one.calls, one.why),
                )
                for row, one in zip(meant, judge.judge(meant, look), strict=True)
            ]
        judged += [
            (0, PlanItem(absent, 0, "", Prediction.NOT_FOUND, 0, "there is no such item that the filter means"))
            for absent in sorted(wanted.recovery_id - seen)
        ]
        return self._store(job, judged, look)

    def _look(self, judge: Judge) -> Look:
        look = judge.look()
        if look is None:
            raise StorageUnavailable("the switches cannot be read: nothing is planned")
        return look

    def _give_up(self, job: Job, why: str) -> Job:
        self._ports.log.warning("a bulk replay could not be planned", extra={"job_id": job.job_id, "reason": why})
        now_ms = self._ports.clock.now_ms()
        return move(self._ports.jobs, job, lambda board: unplanned(job, why, board, now_ms))

    def _store(self, job: Job, judged: list[tuple[int, PlanItem]], look: Look) -> Job:
        ports = self._ports
        made = plan(judged, job.cap, look_only=job.look_only)
        reference = ports.plans.put(job.job_id, made)
        now_ms = ports.clock.now_ms()
        ground = ground_of(look.snapshot.values, look.states, made.integrations, now_ms)
        limits: Limits = limits_of(ports.integrations, made.integrations, look, self._scale, now_ms)
        estimate_ms = takes_ms(made.going, limits)
        after = move(
            ports.jobs,
            job,
            lambda board: planned(job, made, reference, ground, estimate_ms, board, ports.clock.now_ms()),
        )
        about = {"job_id": job.job_id, "matched": len(judged), "count": after.total, "actor": job.actor}
        ports.log.info("a bulk replay is planned", extra=about)
        return after

    def _rows(self, wanted: Filter) -> Iterator[Row]:
        if wanted.recovery_id:
            yield from self._ports.recovery.several(sorted(wanted.recovery_id)).values()
            return
        for integration in swept(self._ports):
            if wanted.integration and integration not in wanted.integration:
                continue
            for status in wanted.statuses:
                yield from self._ports.recovery.walk(integration, status)
