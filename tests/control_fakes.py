"""In-memory doubles of the ports of evaluator and replay. The contract tests hold them to what the real adapters do."""

from __future__ import annotations

import re
from collections.abc import Mapping

from functions.adapters.ssm_writer import DESCRIPTION_LENGTH
from functions.core.clock import Clock
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.ports import AuditedSwitch, AuditedSwitches, ReplayJob, SwitchVersion
from functions.core.switch_history import REASON_LENGTH
from functions.core.switch_returns import Returns, ReturnsChange
from functions.core.switches import pattern_of
from tests.fakes import FakeTables, Faults


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
    """`ports.ReplayJobs`."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = Faults() if faults is None else faults
        self.jobs: dict[str, ReplayJob] = {}

    def put(self, job: ReplayJob) -> None:
        """See the port."""
        with self.faults.around("jobs.put"):
            self.jobs[job.job_id] = job

    def get(self, job_id: str) -> ReplayJob | None:
        """See the port."""
        with self.faults.around("jobs.get"):
            return self.jobs.get(job_id)
