"""The only scheduler (architecture §7): each tick empties the spill, and hints at due rows go out, integration by
integration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aws_lambda_powertools import Logger

from functions.core import fallback, sweep
from functions.core.clock import Clock, Ids
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.gate import IntegrationState
from functions.core.health import rate_factor
from functions.core.integration import INTAKE, Rate
from functions.core.limiter import Limit
from functions.core.ports import Envelopes, EventsQueue, Hint, Hints, Ledger, Recovery, Spill, Switches
from functions.core.recovery import POLL_SECONDS, Change, Row, Status, end, hinted, put_off
from functions.core.switches import FRESH_FOR_MS, Snapshot, SwitchView, view
from functions.dead_letters import DeadLetters
from functions.ended import count_ended
from functions.observability import Metrics
from functions.sweeper.drain import AtOnce, Drain, in_threads
from functions.sweeper.jobs import JobDuty
from functions.sweeper.settings import SweeperSettings

BUDGET_MARGIN_MS = 3_000  # kept free at the end, for the answer and what is under way
_PARKED_READ = sweep.READ_AHEAD * sweep.PER_INTEGRATION
HINT_BATCH = 10  # committed at once, then sent together: a crash leaves few rows to wait for their next turn
UNWRITTEN_LIMIT = 3  # rows in a row that could not be written: then it is the table, and not the row

Handler = Callable[[dict[str, Any], object], dict[str, int]]


@dataclass(slots=True)
class _Tally:
    """What one tick did, by outcome."""

    counts: dict[str, int] = field(default_factory=dict)
    unwritten: list[Exception] = field(default_factory=list)  # of rows, since the last one that could be written

    def add(self, outcome: str, number: int = 1) -> None:
        if not number:
            return
        self.counts[outcome] = self.counts.get(outcome, 0) + number

    @property
    def woken(self) -> int:
        """How many hints were tried, which is what the cap of a tick bounds."""
        return self.counts.get("rows_hinted", 0) + self.counts.get("hints_not_accepted", 0)


def build(
    settings: SweeperSettings,
    *,
    integrations: Sequence[str],
    ledger: Ledger,
    recovery: Recovery,
    switches: Switches,
    spill: Spill,
    envelopes: Envelopes,
    events: EventsQueue,
    retries: Hints,
    replays: Hints,
    clock: Clock,
    ids: Ids,
    log: Logger,
    metrics: Metrics,
    at_once: AtOnce = in_threads,
    fallbacks: fallback.Matrix | None = None,
    rates: Mapping[str, Rate] | None = None,
    jobs: JobDuty | None = None,
) -> Handler:
    """The handler of one tick. `integrations` are those of the catalog; `intake` is added; `rates` are those of the
    limited ones.

    The spill comes first and has a share of the time, so that neither it nor the rows can take it all. Answers how many
    messages of it were sent, how many rows were hinted, expired, put off, and so on. Raises an ExceptionGroup of what
    went wrong, after everything else was done: no duty waits for another, and the failure is seen.
    """
    drain = Drain(spill, events, DeadLetters(recovery, envelopes, clock, metrics), clock, ids, log, metrics, at_once)
    swept = (INTAKE, *(name for name in integrations if name != INTAKE))

    def handle(_event: dict[str, Any], _context: object) -> dict[str, int]:
        started_ms = clock.now_ms()
        deadline_ms = started_ms + settings.timeout_seconds * 1000 - BUDGET_MARGIN_MS
        tally, failures = _Tally(), list[Exception]()
        try:
            try:
                tally.counts.update(drain.run(sweep.drain_until(started_ms, deadline_ms)))
            except Exception as error:
                failures.append(error)
                metrics.count("duties_failed", reason="drain")
                log.exception("a duty of the sweeper failed", extra={"duty": "drain"})
            try:
                tally.add("jobs_started", 0 if jobs is None else jobs.run())
            except Exception as error:
                failures.append(error)
                metrics.count("duties_failed", reason="jobs")
                log.exception("a duty of the sweeper failed", extra={"duty": "jobs"})
            snapshot = switches.snapshot(FRESH_FOR_MS)
            states = ledger.read([], swept).integrations
            reached, parked = list[_Duty](), list[_Duty]()
            for integration in sweep.in_turn(swept, started_ms // (sweep.HORIZON_SECONDS * 1000)):
                duty = _Duty(
                    state=states.get(integration, IntegrationState(integration)),
                    snapshot=snapshot,
                    deadline_ms=deadline_ms,
                    scale=settings.time_scale,
                    recovery=recovery,
                    queues={True: replays, False: retries},
                    clock=clock,
                    log=log,
                    metrics=metrics,
                    tally=tally,
                    at_once=at_once,
                    fallbacks=fallback.Matrix() if fallbacks is None else fallbacks,
                    rate=(rates or {}).get(integration),
                )
                reached.append(duty)
                try:
                    if duty.run():
                        parked.append(duty)
                except Exception as error:
                    failures.append(error)
                    metrics.count("duties_failed", integration=integration)
                    log.exception("a duty of the sweeper failed", extra={"duty": "wake", "integration": integration})
            for duty in parked:  # with the time that is left: what waits delays nobody who may send
                try:
                    duty.let_expire()
                except Exception as error:
                    failures.append(error)
                    metrics.count("duties_failed", integration=duty.state.integration)
                    about = {"duty": "expire", "integration": duty.state.integration}
                    log.exception("a duty of the sweeper failed", extra=about)
            for duty in reached:
                duty.measure()
            metrics.count("heartbeat")
        finally:
            metrics.flush()
        log.info("swept", extra={"count": tally.counts, "duration_ms": clock.now_ms() - started_ms})
        if failures:
            raise ExceptionGroup("duties of the sweeper failed", failures)
        return dict(tally.counts)

    return handle


@dataclass(frozen=True, slots=True)
class _Duty:
    """One integration's part of a tick."""

    state: IntegrationState
    snapshot: Snapshot | None
    deadline_ms: int
    scale: float
    recovery: Recovery
    queues: dict[bool, Hints]
    clock: Clock
    log: Logger
    metrics: Metrics
    tally: _Tally
    at_once: AtOnce
    fallbacks: fallback.Matrix
    rate: Rate | None
    waiting: dict[str, str] = field(default_factory=dict)  # what the rows that were read wait for, by id
    since_ms: list[int] = field(default_factory=list)  # since when those that were read are there

    def run(self) -> bool:
        """Wake what may be woken. Gives whether nothing may, and what waits has yet to be looked through."""
        now_ms = self.clock.now_ms()
        name, horizon = self.state.integration, sweep.horizon_ms(self.scale)
        if self.tally.woken >= sweep.PER_TICK or now_ms >= self.deadline_ms:
            self._count("integrations_not_reached")
            return False
        general = view(self.snapshot, flow="", source="", tenant="", now_ms=now_ms)
        parked = sweep.why_parked(self.state, general, now_ms, horizon)
        if parked is not None:
            self._count("integrations_parked")
            self.log.info("parked", extra={"integration": name, "reason": parked})
            probe_ms = sweep.probe_from(self.state, general, now_ms, horizon)
            if probe_ms is not None:
                self._probe(now_ms + horizon, probe_ms)
            if parked == "hard_down" and fallback.lets_leave(self.fallbacks, name):
                self._while_parked(now_ms, now_ms + horizon, lets_leave=True)
                return False
            return True
        limit = (
            None
            if self.rate is None
            else Limit.of(self.rate, general.limit(name) * rate_factor(self.state, now_ms), self.scale)
        )
        most = sweep.most_woken(limit, self.tally.woken, self.scale)
        cap = sweep.release_cap(self.state, now_ms, self.scale, most)
        over = "rows_over_ramp" if cap < most else "rows_over_cap"
        woken: sweep.Woken = self._looked(self._due(now_ms + horizon, sweep.READ_AHEAD * most))
        if limit is not None:
            holding, asking = sweep.at_the_rate(woken, self.state, limit, now_ms, self.scale)
            self._wake(holding, cap, over)
            woken, cap = asking, max(0, cap - len(holding))
        self._wake(woken, cap, over)
        return False

    def let_expire(self) -> None:
        """End what is too late of an integration that nothing may be sent to, if there is time."""
        now_ms = self.clock.now_ms()
        if now_ms < self.deadline_ms:
            self._while_parked(now_ms, now_ms, lets_leave=False)

    def measure(self) -> None:
        """Say how many of the rows that were read wait, what for, and how old the oldest is: gauges, of what this tick
        has seen of them.
        """
        for waiting_for, number in Counter(self.waiting.values()).items():
            self.metrics.count("rows_waiting", number, integration=self.state.integration, reason=waiting_for)
        if self.since_ms:
            oldest_ms = max(0, self.clock.now_ms() - min(self.since_ms))
            self.metrics.milliseconds("rows_oldest_age_ms", oldest_ms, integration=self.state.integration)

    def _due(self, until_ms: int, limit: int) -> list[Row]:
        """What is due by then. What waits is remembered for the gauge; of whose effect nobody can tell for long is
        counted, whatever becomes of it here.
        """
        rows, now_ms = self.recovery.due(self.state.integration, until_ms, limit), self.clock.now_ms()
        waiting = {row.recovery_id: row.waiting_for.value for row in rows if row.is_open}
        self.waiting.update({recovery_id: waits for recovery_id, waits in waiting.items() if waits})
        self.since_ms.extend(row.created_at_ms for row in rows)
        unknown = sum(sweep.is_unknown_for_long(row, now_ms, self.scale) for row in rows)
        if unknown:
            self.metrics.count("outcomes_unknown_overdue", unknown, integration=self.state.integration)
        return rows

    def _looked(self, rows: list[Row]) -> list[tuple[Row, int]]:
        """Those that are to be woken, each with when; what the others need is done here."""
        now_ms = self.clock.now_ms()
        woken: list[tuple[Row, int]] = []
        for row in rows:
            match sweep.look(row, self.state, self._switches(row, now_ms), now_ms, self.scale):
                case sweep.Wake(not_before_ms):
                    woken.append((row, not_before_ms))
                    if sweep.is_overdue(row, now_ms, self.scale):
                        self._count("rows_overdue")
                case sweep.LetExpire():
                    self._expire(row, now_ms)
                case sweep.PutOff(until_ms):
                    self._commit(put_off(row, until_ms), "rows_put_off")
                case sweep.Leave():
                    self.tally.add("rows_left")
            if self.clock.now_ms() >= self.deadline_ms:
                break
        return woken

    def _probe(self, until_ms: int, probe_ms: int) -> None:
        """The integration is down, and it is time to find out whether it still is: by a row that waits anyway."""
        rows, now_ms = self._due(until_ms, sweep.PROBE_READ), self.clock.now_ms()
        woken = self._looked(rows)
        able = [row for row, _ in woken if self._may_probe(row, now_ms)]
        if woken and not any(fallback.may_probe(self.fallbacks, row.kind) for row, _ in woken):
            self._count("probes_lacking")
            self.log.warning(
                "an integration is down, and nothing that waits for it may find out whether it is back: the next call "
                "of another kind does, or an operator says so",
                extra={"integration": self.state.integration, "count": len(woken)},
            )
        if not able and len(rows) >= sweep.PROBE_READ:  # they make room for what is due after them
            for row, _ in woken:
                self._put_off(row, now_ms)
        chosen = sweep.probe_rows(self.state, able)
        times = {row.recovery_id: not_before_ms for row, not_before_ms in woken}
        gap_ms = sweep.probe_gap_ms(self.scale)
        spaced = [(row, max(times[row.recovery_id], probe_ms + place * gap_ms)) for place, row in enumerate(chosen)]
        self._wake(spaced, len(spaced))
        self._count("probes_woken", len(spaced))

    def _may_probe(self, row: Row, now_ms: int) -> bool:
        switches, horizon = self._switches(row, now_ms), sweep.horizon_ms(self.scale)
        is_able = fallback.may_probe(self.fallbacks, row.kind)
        return is_able and sweep.is_kept_by_health_alone(row, self.state, switches, now_ms, horizon)

    def _put_off(self, row: Row, now_ms: int) -> None:
        """It is looked at again in a while, and until then others are."""
        later_ms = now_ms + int(POLL_SECONDS * 1000 * self.scale)
        self._commit(put_off(row, max(later_ms, row.due_at_ms)), "rows_put_off")

    def _expire(self, row: Row, now_ms: int) -> None:
        self._commit(end(row, "EXPIRED", "nothing could be sent before it was too late", now_ms), "rows_expired")

    def _while_parked(self, now_ms: int, until_ms: int, *, lets_leave: bool) -> None:
        """Nothing may be sent, whoever says so, but time goes on: what is too late ends. While the integration is down
        (`lets_leave`), what must arrive goes another way, or to a person, without waiting for it.

        The others wait. Where there are more of them than a tick reads, they make room for what is due after them.
        """
        leaving: list[tuple[Row, int]] = []
        rows = self._due(until_ms, _PARKED_READ)
        is_crowded = len(rows) >= _PARKED_READ
        for row in rows:
            kind = "" if row.action is None else row.action.kind
            match sweep.look(row, self.state, self._switches(row, now_ms), now_ms, self.scale):
                case sweep.LetExpire():
                    self._expire(row, now_ms)
                case sweep.Wake() if lets_leave and fallback.may_leave(
                    self.fallbacks, kind, row.event_name, row.effect
                ):
                    leaving.append((row, max(now_ms, row.not_before_ms)))
                case sweep.Wake() if is_crowded:
                    self._put_off(row, now_ms)
                case sweep.PutOff(later_ms) if is_crowded:
                    self._commit(put_off(row, later_ms), "rows_put_off")
            if self.clock.now_ms() >= self.deadline_ms:
                break
        self._wake(leaving, min(sweep.PER_INTEGRATION, sweep.PER_TICK - self.tally.woken))

    def _switches(self, row: Row, now_ms: int) -> SwitchView:
        return view(self.snapshot, flow=row.flow, source=row.source, tenant=row.tenant, now_ms=now_ms)

    def _wake(self, woken: sweep.Woken, cap: int, over: str = "rows_over_cap") -> None:
        """Commit, then send: a hint that is lost in between is made up for when the row is due again."""
        times = {row.recovery_id: not_before_ms for row, not_before_ms in woken}
        chosen = sweep.order_fairly((row for row, _ in woken), cap)
        if len(woken) > len(chosen):
            self._count(over, len(woken) - len(chosen))
        for batch in _batches(chosen):
            if self.clock.now_ms() >= self.deadline_ms:
                self._count("sweeps_cut_short")
                return
            scale = sweep.rehint_scale(self.scale)
            changes = [hinted(row, self.clock.now_ms(), scale) for row in batch]
            troubles = self.at_once(self._tried, changes)
            hints: dict[bool, list[Hint]] = {True: [], False: []}
            for change, trouble in zip(changes, troubles, strict=True):
                if self._is_written(change, trouble, "rows_committed"):
                    after = change.after
                    hints[after.status is Status.REPLAYED].append(
                        Hint(after.recovery_id, after.version, times[after.recovery_id], after.tenant)
                    )
            for is_replay, sending in hints.items():
                if sending:
                    self._send(self.queues[is_replay], sending)
            self._require_table()

    def _send(self, queue: Hints, hints: list[Hint]) -> None:
        refused = queue.send(hints, self.clock.now_ms())
        self._count("rows_hinted", len(hints) - len(refused))
        if refused:
            self._count("hints_not_accepted", len(refused))
            self.log.error(
                "a queue did not accept hints; their rows will be due again",
                extra={"integration": self.state.integration, "count": len(refused)},
            )

    def _commit(self, change: Change, outcome: str) -> None:
        """Write it, and count what became of that. Written or not, the row is due again."""
        self._is_written(change, self._tried(change), outcome)
        self._require_table()

    def _tried(self, change: Change) -> VersionConflict | StorageUnavailable | None:
        """What was in the way of writing it. Runs in a thread of its own."""
        try:
            self.recovery.commit([change])
        except (VersionConflict, StorageUnavailable) as trouble:
            return trouble
        return None

    def _is_written(self, change: Change, trouble: Exception | None, outcome: str) -> bool:
        if isinstance(trouble, VersionConflict):
            self._count("rows_moved")
            return False
        if trouble is not None:
            self.tally.unwritten.append(trouble)
            self._count("rows_unwritten")
            self.log.warning(
                "a row could not be written, and is due again",
                extra={
                    "integration": self.state.integration,
                    "recovery_id": change.after.recovery_id,
                    "reason": str(trouble),
                },
            )
            return False
        self.tally.unwritten.clear()
        self._count(outcome)
        count_ended(self.metrics, change, is_critical=fallback.is_critical(self.fallbacks, change.after.event_name))
        return True

    def _require_table(self) -> None:
        """Raise the last trouble where it was that of several rows in a row: then it is the table's, and no row's."""
        if len(self.tally.unwritten) > UNWRITTEN_LIMIT:
            raise self.tally.unwritten[-1]

    def _count(self, name: str, number: int = 1) -> None:
        if number:
            self.tally.add(name, number)
            self.metrics.count(name, number, integration=self.state.integration)


def _batches(rows: list[Row]) -> Iterator[list[Row]]:
    for start in range(0, len(rows), HINT_BATCH):
        yield rows[start : start + HINT_BATCH]
