"""Tries dead items again because a person asks for it: bulk replay, invoked directly (architecture §7, Replay)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aws_lambda_powertools import Logger

from functions.core import replay as rules
from functions.core import sweep
from functions.core.clock import Clock, Ids
from functions.core.failure import IllegalTransition, MalformedDecision, StorageUnavailable, VersionConflict
from functions.core.integration import INTAKE
from functions.core.ports import Audit, Hint, Hints, Recovery, ReplayJob, ReplayJobs, Switches
from functions.core.recovery import Row, replay, why_not_replayable
from functions.core.switches import FRESH_FOR_MS, KNOWN_FOR_MS, Snapshot, SwitchView, view
from functions.observability import Metrics
from functions.replay.request import INVALID_PAYLOAD, InvalidRequest, ReplayRequest, read
from functions.replay.settings import ReplaySettings

REPLAY_OFF = "INT-409-RECOVERY-REPLAY-CONFLICT"
UNAVAILABLE = "INT-503-DEPENDENCY-UNAVAILABLE"
LOOKED_THROUGH = 2_000  # rows per integration and status; a filter that needs more than that is told so
LISTED_SKIPPED = 200  # items in the answer beside those replayed; the counts are always of all
HINT_BATCH = 10
BUDGET_MARGIN_MS = 5_000  # of the function's time, kept for the job's end and the answer

Handler = Callable[[object, object], dict[str, Any]]


def build(
    settings: ReplaySettings,
    *,
    integrations: Sequence[str],
    recovery: Recovery,
    audit: Audit,
    jobs: ReplayJobs,
    switches: Switches,
    replays: Hints,
    clock: Clock,
    ids: Ids,
    log: Logger,
    metrics: Metrics,
) -> Handler:
    """The handler of one invocation: `{"filter", "reason", "actor", "limit", "dry_run"}` in, the job's result out.

    The answer is `{"job_id", "dry_run", "matched", "replayed", "skipped": {reason: n}, "truncated", "not_found": [ids],
    "items": [...]}`, where `matched` is `replayed` and all `skipped` together and `truncated` says that there was more
    to look through; or `{"error": {"code", "message", ...}}`. It fails closed: without the job's record in the audit
    nothing is replayed. A dry run writes nothing.
    """
    searched = (INTAKE, *(name for name in integrations if name != INTAKE))
    job = _Replay(settings, searched, recovery, audit, jobs, switches, replays, clock, ids, log, metrics)

    def handle(payload: object, context: object) -> dict[str, Any]:
        try:
            return job.run(payload, context)
        except InvalidRequest as invalid:
            metrics.count("replays_refused", reason="invalid")
            return _error(INVALID_PAYLOAD, "the request is not valid", problems=invalid.problems)
        except StorageUnavailable:
            metrics.count("replays_refused", reason="storage")
            log.exception("a replay found its storage unavailable")
            return _error(UNAVAILABLE, "storage or audit is not available: nothing was replayed")
        finally:
            metrics.flush()

    return handle


@dataclass(slots=True)
class _Outcome:
    """The items of the answer, and their counts."""

    items: list[dict[str, Any]]
    tally: rules.Tally
    listed_skipped: int = 0

    def replayed(self, row: Row, result: str) -> dict[str, Any]:
        item = _item(row, result)
        self.items.append(item)
        self.tally.replayed += 1
        return item

    def skipped(self, row: Row, reason: str) -> None:
        self.tally.skip(reason)
        if self.listed_skipped < LISTED_SKIPPED:
            self.listed_skipped += 1
            self.items.append(_item(row, "skipped", reason))


@dataclass(frozen=True, slots=True)
class _Replay:
    settings: ReplaySettings
    integrations: Sequence[str]
    recovery: Recovery
    audit: Audit
    jobs: ReplayJobs
    switches: Switches
    replays: Hints
    clock: Clock
    ids: Ids
    log: Logger
    metrics: Metrics

    def run(self, payload: object, context: object) -> dict[str, Any]:
        request, wanted = read(payload)
        now_ms = self.clock.now_ms()
        deadline_ms = now_ms + _remaining_ms(context) - BUDGET_MARGIN_MS
        snapshot = self.switches.snapshot(FRESH_FOR_MS)
        general = view(snapshot, flow="", source="", tenant="", now_ms=now_ms)
        if general.age_ms is None or general.age_ms > KNOWN_FOR_MS:
            self.metrics.count("replays_refused", reason="switches")
            return _error(UNAVAILABLE, "the switches cannot be read: nothing was replayed")
        if not general.replay:
            self.metrics.count("replays_refused", reason="switched_off")
            return _error(REPLAY_OFF, "the switch `replay` is off")
        rows, truncated, absent = self._search(wanted, now_ms)
        judged = [(row, rules.why_skipped(row, wanted, _switches(snapshot, row, now_ms), now_ms)) for row in rows]
        plan = rules.plan(judged, request.limit)
        job_id = self.ids.new_id()
        outcome = _Outcome([], rules.Tally())
        if request.dry_run:
            for row in plan.replay:
                outcome.replayed(row, "would_replay")
        else:
            self._carry_out(request, wanted, plan, job_id, deadline_ms, context, outcome)
        for row, reason in plan.skip:
            outcome.skipped(row, reason)
        return {
            "job_id": job_id,
            "dry_run": request.dry_run,
            "matched": plan.matched,
            "replayed": outcome.tally.replayed,
            "skipped": dict(sorted(outcome.tally.skipped.items())),
            "truncated": truncated,
            "not_found": absent,
            "items": outcome.items,
        }

    # ---------------------------------------------------------------------------------------------------------- search

    def _search(self, wanted: rules.Filter, now_ms: int) -> tuple[list[Row], bool, list[str]]:
        """Rows that the filter means, whether there was more to look through, and ids that are not there."""
        if wanted.recovery_id:
            found = {recovery_id: self._get(recovery_id) for recovery_id in sorted(wanted.recovery_id)}
            meant = {key: row for key, row in found.items() if row is not None and rules.matches(wanted, row, now_ms)}
            return list(meant.values()), False, [key for key in found if key not in meant]
        rows: list[Row] = []
        truncated = False
        for integration in self.integrations:
            if wanted.integration and integration not in wanted.integration:
                continue
            for status in wanted.statuses:  # one by one, so that many of one status do not hide the other
                found_here = self.recovery.find(integration, [status], LOOKED_THROUGH)
                truncated = truncated or len(found_here) >= LOOKED_THROUGH
                rows += [row for row in found_here if rules.matches(wanted, row, now_ms)]
        return rows, truncated, []

    def _get(self, recovery_id: str) -> Row | None:
        try:
            return self.recovery.get(recovery_id)
        except MalformedDecision:
            self.log.exception("a recovery item cannot be read back", extra={"recovery_id": recovery_id})
            self.metrics.count("row_unreadable")
            return None

    # ------------------------------------------------------------------------------------------------------------- run

    def _carry_out(
        self,
        request: ReplayRequest,
        wanted: rules.Filter,
        plan: rules.Plan,
        job_id: str,
        deadline_ms: int,
        context: object,
        outcome: _Outcome,
    ) -> None:
        request_id = str(getattr(context, "aws_request_id", "") or job_id)
        job = ReplayJob(
            job_id=job_id,
            actor=request.actor,
            reason=request.reason,
            filter=wanted.to_json(),
            limit=request.limit,
            started_at_ms=self.clock.now_ms(),
            matched=plan.matched,
        )
        self.jobs.put(job)
        self.audit.append([rules.job_event(job, request_id)])
        self.log.warning("a replay began", extra={"job_id": job_id, "matched": plan.matched, "request_id": request_id})
        self._replay_all(plan.replay, job, request_id, deadline_ms, outcome)
        for reason, number in rules.named(plan.skip).items():
            self.metrics.count("replays_skipped", number, reason=reason)
        self._finish(job, plan, request_id, outcome)

    def _replay_all(
        self, rows: Sequence[Row], job: ReplayJob, request_id: str, deadline_ms: int, outcome: _Outcome
    ) -> None:
        waiting: list[tuple[Row, dict[str, Any]]] = []
        stopped = ""
        for row in rows:
            if not stopped and self.clock.now_ms() >= deadline_ms:
                stopped = "not_reached"
            if not stopped:
                try:
                    change = replay(
                        row,
                        self.clock.now_ms(),
                        actor=job.actor,
                        reason=job.reason,
                        request_id=request_id,
                        job_id=job.job_id,
                        scale=sweep.rehint_scale(self.settings.time_scale),
                    )
                    self.recovery.commit([change])
                except VersionConflict:
                    self._skip(outcome, row, "moved")
                except IllegalTransition:  # it has expired, or grown too old, since the plan was made
                    self._skip(outcome, row, why_not_replayable(row, self.clock.now_ms()) or "moved")
                except StorageUnavailable:
                    self.log.exception("a replay stopped", extra={"job_id": job.job_id, "recovery_id": row.recovery_id})
                    self._skip(outcome, row, "storage_unavailable")
                    stopped = "not_reached"
                else:
                    waiting.append((change.after, outcome.replayed(row, "replayed")))
                    self.metrics.count("rows_replayed", integration=row.integration_id)
            else:
                self._skip(outcome, row, stopped)
            if len(waiting) >= HINT_BATCH:
                self._send(waiting)
                waiting = []
        if waiting:
            self._send(waiting)

    def _skip(self, outcome: _Outcome, row: Row, reason: str) -> None:
        outcome.skipped(row, reason)
        self.metrics.count("replays_skipped", reason=reason)

    def _send(self, waiting: list[tuple[Row, dict[str, Any]]]) -> None:
        """What the queue does not take, the sweeper sends when the row is due: the replay stands."""
        now_ms = self.clock.now_ms()
        hints = [Hint(row.recovery_id, row.version, now_ms, row.tenant) for row, _ in waiting]
        refused = {hint.recovery_id for hint in self.replays.send(hints, now_ms)}
        for row, item in waiting:
            item["queued"] = row.recovery_id not in refused
        if refused:
            self.metrics.count("hints_not_accepted", len(refused))
            self.log.error(
                "hints at replayed items were not accepted: the sweeper will send them", extra={"count": len(refused)}
            )

    def _finish(self, job: ReplayJob, plan: rules.Plan, request_id: str, outcome: _Outcome) -> None:
        """The end of the record. What was replayed stands and is in the audit, so trouble here is only said."""
        skipped = dict(outcome.tally.skipped)
        for reason, number in rules.named(plan.skip).items():
            skipped[reason] = skipped.get(reason, 0) + number
        over = replace(
            job,
            finished_at_ms=self.clock.now_ms(),
            replayed=outcome.tally.replayed,
            skipped=dict(sorted(skipped.items())),
        )
        try:
            self.audit.append([rules.job_event(over, request_id)])
            self.jobs.put(over)
        except StorageUnavailable:
            self.metrics.count("replay_ends_not_recorded")
            self.log.exception("the end of a replay could not be recorded", extra={"job_id": job.job_id})
        self.log.warning(
            "a replay ended",
            extra={"job_id": job.job_id, "matched": over.matched, "count": over.replayed, "request_id": request_id},
        )


def _switches(snapshot: Snapshot | None, row: Row, now_ms: int) -> SwitchView:
    return view(snapshot, flow=row.flow, source=row.source, tenant=row.tenant, now_ms=now_ms)


def _remaining_ms(context: object) -> int:
    """What is left of the invocation; without a clock of Lambda's, a minute."""
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    return 60_000 if remaining is None else int(remaining())


def _item(row: Row, result: str, reason: str = "") -> dict[str, Any]:
    item: dict[str, Any] = {
        "recovery_id": row.recovery_id,
        "event_id": row.event_id,
        "integration": row.integration_id,
        "action": "" if row.action is None else row.action.name,
        "result": result,
    }
    if reason:
        item["reason"] = reason
    return item


def _error(code: str, message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, **more}}
