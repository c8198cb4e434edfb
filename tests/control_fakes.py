"""In-memory doubles of the ports of evaluator and replay. The contract tests hold them to what the real adapters do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from functions.adapters.ssm_writer import DESCRIPTION_LENGTH
from functions.core.clock import Clock
from functions.core.failure import Fenced, StorageUnavailable, VersionConflict
from functions.core.page import Depth
from functions.core.ports import AuditedSwitch, AuditedSwitches, SwitchVersion
from functions.core.recovery import Change
from functions.core.replay import Plan, PlanLost
from functions.core.replay_job import Batch, BatchRecord, Board, Job, JobChange
from functions.core.silence import Entries, Expectation
from functions.core.subjects import SourcesFound
from functions.core.switch_history import REASON_LENGTH
from functions.core.switch_returns import Returns, ReturnsChange
from functions.core.switches import pattern_of
from tests.fakes import FakeTables, Faults, check_transaction


class FakeSwitchHistory:
    """`ports.SwitchHistory`. Tests `write` and `delete`; names in `unreadable` have no history to give."""

    def __init__(self, clock: Clock, faults: Faults | None = None) -> None:
        self.faults = Faults() if faults is None else faults
        self.unreadable: set[str] = set()
        self._clock = clock
        self._versions: dict[str, list[SwitchVersion]] = {}

    def write(self, name: str, value: str, by: str, description: str = "") -> int:
        """PutParameter; gives the version."""
        kept = self._versions.setdefault(name, [])
        version = kept[-1].version + 1 if kept else 1
        kept.append(SwitchVersion(name, version, value, self._clock.now_ms(), by, description[:REASON_LENGTH]))
        del kept[:-100]
        return version

    def delete(self, name: str) -> None:
        """DeleteParameter."""
        del self._versions[name]

    def latest(self) -> Mapping[str, SwitchVersion]:
        """See the port."""
        with self.faults.around("history.latest"):
            return {
                name: SwitchVersion(name, kept[-1].version, kept[-1].value, kept[-1].changed_at_ms)
                for name, kept in self._versions.items()
            }

    def versions(self, name: str) -> list[SwitchVersion]:
        """See the port."""
        with self.faults.around("history.versions"):
            if name in self.unreadable:
                raise StorageUnavailable(f"the history of {name} cannot be read")
            return list(self._versions.get(name, []))


class FakeSwitchWriter:
    """`ports.SwitchWriter`, into the versions that `FakeSwitchHistory` remembers."""

    BY = "the function's role"

    def __init__(self, history: FakeSwitchHistory) -> None:
        self.faults = history.faults
        self._history = history

    def put(self, name: str, value: str, description: str) -> int:
        """See the port."""
        with self.faults.around("switch.put"):
            if re.search(pattern_of(name), value) is None:
                raise StorageUnavailable(f"{value!r} does not match the pattern of {name}")
            return self._history.write(name, value, self.BY, description[:DESCRIPTION_LENGTH])


class FakeSwitchReturns:
    """`ports.SwitchReturns`, with its audit in `tables`."""

    def __init__(self, tables: FakeTables) -> None:
        self.tables = tables
        self.faults = tables.faults
        self.stored = Returns()

    def read(self) -> Returns:
        """See the port."""
        with self.faults.around("returns.read"):
            return self.stored

    def store(self, change: ReturnsChange) -> None:
        """See the port."""
        with self.faults.around("returns.store"), self.tables.lock:
            if self.stored == change.after:
                return
            if self.stored.version != change.before.version:
                raise VersionConflict("the promises have changed since they were read")
            self.stored = change.after
            self.tables.put_audit(change.audit)


class FakeSwitchMarks:
    """`ports.SwitchMarks`."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = Faults() if faults is None else faults
        self.stored = AuditedSwitches()

    def read(self) -> AuditedSwitches:
        """See the port."""
        with self.faults.around("marks.read"):
            return self.stored

    def store(self, seen_revision: int, switches: Mapping[str, AuditedSwitch]) -> AuditedSwitches:
        """See the port."""
        with self.faults.around("marks.store"):
            if self.stored.revision != seen_revision:
                raise VersionConflict(f"the marks are at revision {self.stored.revision}, not {seen_revision}")
            self.stored = AuditedSwitches(seen_revision + 1, dict(switches))
        return self.stored


class FakeReplayJobs:
    """`ports.ReplayJobs`, over the same tables as the rows that jobs write to."""

    def __init__(self, tables: FakeTables) -> None:
        self.tables = tables
        self.faults = tables.faults
        self.jobs: dict[str, Job] = {}
        self.stored_board = Board()

    def get(self, job_id: str) -> Job | None:
        """See the port."""
        with self.faults.around("jobs.get"), self.tables.lock:
            return self.jobs.get(job_id)

    def several(self, job_ids: Sequence[str]) -> Mapping[str, Job]:
        """See the port."""
        with self.faults.around("jobs.several"), self.tables.lock:
            return {job_id: self.jobs[job_id] for job_id in job_ids if job_id in self.jobs}

    def board(self) -> Board:
        """See the port."""
        with self.faults.around("jobs.board"), self.tables.lock:
            return self.stored_board

    def store(self, change: JobChange) -> None:
        """See the port."""
        with self.faults.around("jobs.store"), self.tables.lock:
            found = self.jobs.get(change.after.job_id)
            if _version(found) != _version(change.before):
                raise VersionConflict(f"the job {change.after.job_id} has moved on since it was read")
            if change.board is not None and self.stored_board.version != change.board[0].version:
                raise VersionConflict("the board of jobs has moved on since it was read")
            self.jobs[change.after.job_id] = Job.from_json(change.after.to_json())  # as it is read back
            if change.board is not None:
                self.stored_board = change.board[1]
            self.tables.put_audit(change.audit)

    def apply(self, job: Job, changes: Sequence[Change]) -> None:
        """See the port."""
        with self.faults.around("jobs.apply"), self.tables.lock:
            check_transaction(changes, others=1)
            rows = self.tables.rows
            if changes and all(rows.get(change.after.recovery_id) == change.after for change in changes):
                return
            found = self.jobs.get(job.job_id)
            if found is None or found.version != job.version:
                raise Fenced(f"the job {job.job_id} is not at version {job.version} any more")
            self.tables.put_rows(changes)


def _version(job: Job | None) -> int:
    return 0 if job is None else job.version


class FakeReplayPlans:
    """`ports.ReplayPlans`. `objects` is the bucket: content by key."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = Faults() if faults is None else faults
        self.objects: dict[str, str] = {}
        self.written: dict[tuple[str, int, int], Sequence[BatchRecord]] = {}

    def put(self, job_id: str, made: Plan) -> str:
        """See the port."""
        with self.faults.around("plans.put"):
            reference = f"replays/{job_id}/plan-{made.plan_hash[:24]}.json.gz"
            self.objects[reference] = made.to_json()
        return reference

    def get(self, reference: str, plan_hash: str) -> Plan:
        """See the port."""
        with self.faults.around("plans.get"):
            if reference not in self.objects:
                raise PlanLost("the plan is not there any more")
            return Plan.proven(self.objects[reference], plan_hash)

    def put_record(self, job_id: str, batch: Batch, record: Sequence[BatchRecord]) -> None:
        """See the port."""
        with self.faults.around("plans.put_record"):
            self.written[job_id, batch.start, batch.end] = list(record)

    def records(self, job_id: str, start: int, end: int) -> Sequence[BatchRecord]:
        """See the port."""
        with self.faults.around("plans.records"):
            return [
                one
                for (its_job, first, last), record in sorted(self.written.items())
                if its_job == job_id and first < end and last > start
                for one in record
            ]


class FakeReplayStarter:
    """`ports.ReplayStarter`. `started` are the jobs, in order; while `is_down` none is accepted."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.is_down = False

    def start(self, job_id: str) -> bool:
        """See the port."""
        if not self.is_down:
            self.started.append(job_id)
        return not self.is_down


class FakeBacklog:
    """`ports.LiveBacklog`."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = Faults() if faults is None else faults
        self.messages = 0

    def waiting(self) -> int:
        """See the port."""
        with self.faults.around("backlog.waiting"):
            return self.messages


class FakeQueueDepths:
    """`ports.QueueDepths`. Tests fill `depths`; a queue that is not there is one that it does not know."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = Faults() if faults is None else faults
        self.depths = {"events": Depth(), "retries": Depth(), "replays": Depth()}

    def read(self, queue: str) -> Depth:
        """See the port."""
        with self.faults.around("depths.read"):
            return self.depths[queue]


class FakeExpectations:
    """`ports.Expectations`. Tests fill `expected` and `unreadable`."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = Faults() if faults is None else faults
        self.expected: list[Expectation] = []
        self.unreadable: dict[str, int] = {}

    def read(self) -> Entries:
        """See the port."""
        with self.faults.around("expectations.read"):
            return Entries(tuple(self.expected), dict(self.unreadable))


class FakeFoundSources:
    """`ports.FoundSources`."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = Faults() if faults is None else faults
        self.stored = SourcesFound()

    def read(self) -> SourcesFound:
        """See the port."""
        with self.faults.around("found_sources.read"):
            return self.stored

    def store(self, found: SourcesFound, *, is_anew: bool = False) -> None:
        """See the port."""
        with self.faults.around("found_sources.store"):
            if not is_anew and self.stored != found and self.stored.version != found.version - 1:
                raise VersionConflict(f"what was found is at {self.stored.version}, not {found.version - 1}")
            self.stored = found
