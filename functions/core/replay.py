"""Bulk replay: which rows a filter means, and which of them may be tried again (architecture §7). Pure.

Only `failed` and `dlq` are tried again (runbook 004); what has ended for good, and what may have happened, is skipped
and counted, so that every row that the filter means is accounted for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from functions.core.audit import AuditEvent, AuditType, Severity
from functions.core.event import digest
from functions.core.machine import ABSENT, Machine, steps
from functions.core.ports import ReplayJob
from functions.core.recovery import SUPPRESSED, Row, Status, why_not_replayable
from functions.core.switches import SwitchView

REPLAYABLE = (Status.FAILED, Status.DLQ)

JOB = Machine(
    "replay job",
    "One call of replay λ: its record among the control items, and an audit event for its beginning and its end. What "
    "it does to a row is that row's `replay`.",
    steps(
        (ABSENT, "start", "running", "Who, why, which filter, how many were meant; nothing is replayed before that"),
        ("running", "finish", "finished", "What became of each row that was meant"),
    ),
)
MAX_LIMIT = 100
DEFAULT_LIMIT = 50


@dataclass(frozen=True, slots=True)
class Filter:
    """What is meant: every criterion that is given must hold; within one, any of its values. Ages are the event's."""

    integration: frozenset[str] = frozenset()
    status: frozenset[str] = frozenset()
    failure_code: frozenset[str] = frozenset()
    root_cause: frozenset[str] = frozenset()
    source: frozenset[str] = frozenset()
    tenant: frozenset[str] = frozenset()
    flow: frozenset[str] = frozenset()
    event_name: frozenset[str] = frozenset()
    recovery_id: frozenset[str] = frozenset()
    older_than_ms: int | None = None
    newer_than_ms: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it means everything there is, which nobody may ask for."""
        return self == Filter()

    @property
    def statuses(self) -> tuple[Status, ...]:
        """In which statuses to look."""
        return tuple(status for status in REPLAYABLE if not self.status or status.value in self.status)

    def to_json(self) -> str:
        """What was asked for, for the record."""
        said: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None and value != frozenset():
                said[one.name] = sorted(value) if isinstance(value, frozenset) else value
        return json.dumps(said, separators=(",", ":"), sort_keys=True)


def matches(wanted: Filter, row: Row, now_ms: int) -> bool:
    """Whether the filter means the row. One named by its id is meant in any status, so that it can be told why not."""
    age_ms = now_ms - row.received_at_ms
    stated = (
        (wanted.integration, row.integration_id),
        (wanted.status, row.status.value),
        (wanted.failure_code, row.failure_code),
        (wanted.root_cause, row.root_cause),
        (wanted.source, row.source),
        (wanted.tenant, row.tenant),
        (wanted.flow, row.flow),
        (wanted.event_name, row.event_name),
        (wanted.recovery_id, row.recovery_id),
    )
    return (
        (row.status in REPLAYABLE or bool(wanted.recovery_id))
        and all(not allowed or value in allowed for allowed, value in stated)
        and (wanted.older_than_ms is None or age_ms > wanted.older_than_ms)
        and (wanted.newer_than_ms is None or age_ms < wanted.newer_than_ms)
    )


def why_skipped(row: Row, wanted: Filter, switches: SwitchView, now_ms: int) -> str | None:
    """Why a row that the filter means is left alone, or None. `switches` are those for its flow, source and tenant."""
    refused = why_not_replayable(row, now_ms)
    if refused is not None:
        return refused
    if row.failure_code == SUPPRESSED and SUPPRESSED not in wanted.failure_code:
        return "suppressed"
    if not switches.replay:
        return "replay_off"
    if row.integration_id in switches.replay_blocked:
        return "replay_blocked"
    return None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a replay would do: rows to try again, oldest event first, and rows to leave alone, each with its reason."""

    replay: tuple[Row, ...]
    skip: tuple[tuple[Row, str], ...]

    @property
    def matched(self) -> int:
        """How many rows the filter means."""
        return len(self.replay) + len(self.skip)


def plan(judged: Iterable[tuple[Row, str | None]], limit: int) -> Plan:
    """Sort matching rows into those to replay and those to skip.

    The limit counts rows to replay, not rows that cannot be; what is over it is skipped too, as `over_limit`.
    """
    replayed: list[Row] = []
    skipped: list[tuple[Row, str]] = []
    for row, reason in sorted(judged, key=lambda one: (one[0].received_at_ms, one[0].recovery_id)):
        if reason is not None:
            skipped.append((row, reason))
        elif len(replayed) >= limit:
            skipped.append((row, "over_limit"))
        else:
            replayed.append(row)
    return Plan(tuple(replayed), tuple(skipped))


@dataclass(slots=True)
class Tally:
    """What became of each row that the filter meant."""

    replayed: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    def skip(self, reason: str) -> None:
        """One more for that reason."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


def job_event(job: ReplayJob, request_id: str) -> AuditEvent:
    """The audit event of a job's beginning, or of its end once it has one."""
    is_over = job.finished_at_ms > 0
    before, after = ("running", "finished") if is_over else (ABSENT, "running")
    JOB.require(before, after, job.job_id)
    state = {"filter": json.loads(job.filter), "limit": job.limit, "matched": job.matched}
    if is_over:
        state |= {"replayed": job.replayed, "skipped": dict(job.skipped)}
    return AuditEvent(
        id=digest("replay_job", job.job_id, "finished" if is_over else "started")[:24],
        at_ms=job.finished_at_ms or job.started_at_ms,
        event_type=AuditType.REPLAYED,
        severity=Severity.WARNING,
        tenant="",
        actor=job.actor,
        affected_entity="replay_job",
        affected_id=job.job_id,
        request_id=request_id,
        before_state=json.dumps({"status": before}, separators=(",", ":")) if is_over else "",
        after_state=json.dumps({"status": after, **state}, separators=(",", ":"), sort_keys=True),
        recovery_status=Status.REPLAYED.value,
        reason=job.reason,
        job_id=job.job_id,
    )


def named(reasons: Sequence[tuple[Row, str]]) -> dict[str, int]:
    """How many rows for each reason."""
    tally = Tally()
    for _, reason in reasons:
        tally.skip(reason)
    return tally.skipped
