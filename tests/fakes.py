"""In-memory doubles of every storage port of `functions.core.ports`, with the semantics of the real adapters.

The contract tests run the same cases over these and over the adapters, so a fake that drifts fails there. For crash
tests every method asks `faults` before and after its work: an error raised after it means that the work was done and
only the answer was lost.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from functions.core.audit import AuditEvent
from functions.core.cap import Capped, Counted, Sends, counted, uncounted
from functions.core.clock import Clock
from functions.core.cursor import cursor_of, parts_of
from functions.core.decision import Decision
from functions.core.document import MAX_DOCUMENT_BYTES, document_key, parsed_key
from functions.core.event import SPILL, Event, digest
from functions.core.failure import Fenced, MalformedEnvelope, StorageRefused, StorageUnavailable, VersionConflict
from functions.core.gate import Health, IntegrationState
from functions.core.health import Counts, HealthChange, Record, has_taken
from functions.core.ledger import ActionMark, Claim, Claimed, Handle, LedgerItem, LedgerStatus, Refused
from functions.core.limiter import ASTRAY_FOR_MS, Full, Taken, take
from functions.core.operations import Answered
from functions.core.person import PersonChange
from functions.core.ports import BatchView, DoorLine, Hint, Page, Rejections, RowPage, Settlement, Sighting, Spilled
from functions.core.quarantine import Quarantine, QuarantineChange
from functions.core.recipient import Person
from functions.core.recovery import Change, Row, Status
from functions.core.switches import Snapshot

NOON_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z, where a fake clock starts
NEVER_MS = 9_999_999_999_999
LIVE_SWITCHES: Mapping[str, str] = {
    "mode": "live",
    "auto_reply": "on",
    "classifier": "llm",
    "optional_calls": "on",
    "replay": "on",
    "disabled_integrations": "none",
    "replay_blocked_integrations": "none",
}
MAX_TRANSACTION_ITEMS = 100
MAX_DELAY_SECONDS = 900
MAX_LISTED = 1_000
MAX_MESSAGE_BYTES = 1_048_576
MAX_SPILLED_BYTES = 16 * 1024 * 1024

# -------------------------------------------------------------------------------------------------- time, chance, ids


class FakeClock:
    """Stands still until it is told otherwise."""

    def __init__(self, now_ms: int = NOON_MS) -> None:
        self.now = now_ms

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return self.now

    def advance(self, milliseconds: int) -> None:
        """Let time pass."""
        self.now += milliseconds


class FakeRandom:
    """Draws the same share of every interval: 0 its low end, 1 its high end."""

    def __init__(self, share: float = 1.0) -> None:
        self.share = share

    def uniform(self, low: float, high: float) -> float:
        """That share of the way from `low` to `high`."""
        return low + (high - low) * self.share


class FakeIds:
    """Counts, in 32 hexadecimal digits. Share one among all that must not make the same id."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def new_id(self) -> str:
        """The next one."""
        with self._lock:
            self._last += 1
            return f"{self._last:032x}"


# -------------------------------------------------------------------------------------------------------------- faults


class Faults:
    """What goes wrong. `on_before` and `on_after` are called with each operation's name (`ledger.claim`) and may raise.

    `calls` holds the names of all operations that began, in order.
    """

    def __init__(
        self, on_before: Callable[[str], None] | None = None, on_after: Callable[[str], None] | None = None
    ) -> None:
        self.on_before = on_before
        self.on_after = on_after
        self.calls: list[str] = []
        self._planned: list[tuple[str, str, Exception]] = []
        self._lock = threading.Lock()

    def fail(self, op: str, error: Exception | None = None, *, times: int = 1, when: str = "before") -> None:
        """Plan it: the next `times` calls of `op` raise, `before` the work is done or `after` it."""
        wrong = StorageUnavailable(f"{op} was told to fail") if error is None else error
        self._planned.extend([(when, op, wrong)] * times)

    def before(self, op: str) -> None:
        """Asked before an operation does anything."""
        self.calls.append(op)
        self._raise_planned("before", op)
        if self.on_before is not None:
            self.on_before(op)

    def after(self, op: str) -> None:
        """Asked after an operation has done all of its work, before its answer is given."""
        self._raise_planned("after", op)
        if self.on_after is not None:
            self.on_after(op)

    def _raise_planned(self, when: str, op: str) -> None:
        if not self._planned:
            return
        with self._lock:
            for index, (planned_when, planned_op, error) in enumerate(self._planned):
                if (planned_when, planned_op) == (when, op):
                    del self._planned[index]
                    raise error

    def around(self, op: str) -> _Operation:
        """One operation."""
        return _Operation(self, op)


class _Operation:
    """What surrounds the work of one: its faults. A million simulated lives make it often, so it is no generator."""

    __slots__ = ("_faults", "_op")

    def __init__(self, faults: Faults, op: str) -> None:
        self._faults = faults
        self._op = op

    def __enter__(self) -> None:
        self._faults.before(self._op)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._faults.after(self._op)


# -------------------------------------------------------------------------------------------------------------- tables


@dataclass
class FakeTables:
    """The state that the fakes share, as a stack's tables do. One lock makes every operation atomic."""

    ledger: dict[str, LedgerItem] = field(default_factory=dict)
    handles: dict[str, dict[Handle, str]] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    audit: dict[tuple[str, str], AuditEvent] = field(default_factory=dict)
    integrations: dict[str, IntegrationState] = field(default_factory=dict)
    astray: dict[str, tuple[int, int]] = field(default_factory=dict)  # a `tat` that nothing explains, and since when
    health: dict[str, Record] = field(default_factory=dict)
    counts: dict[tuple[str, int], Counts] = field(default_factory=dict)
    people: dict[tuple[str, str], Person] = field(default_factory=dict)
    sends: dict[str, Sends] = field(default_factory=dict)
    quarantine: Quarantine = field(default_factory=Quarantine)
    answered: dict[tuple[str, str], Answered] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def events(self) -> list[AuditEvent]:
        """The audit table, oldest first."""
        return [event for _, event in sorted(self.audit.items(), key=lambda entry: (entry[0][1], entry[0][0]))]

    def set_health(self, integration: str, health: Health) -> None:
        """Write the control item's health. One that is down is not to be probed: a test of probes says when."""
        seen = self.integrations.get(integration, IntegrationState(integration))
        probe_at_ms = NEVER_MS if health is Health.HARD_DOWN else 0
        self.integrations[integration] = replace(seen, health=health, probe_at_ms=probe_at_ms)

    def put_audit(self, events: Sequence[AuditEvent]) -> None:
        """Write each under its entity, time and id; the same one again changes nothing."""
        for event in events:
            self.audit[_place(event)] = event

    def put_rows(self, changes: Sequence[Change]) -> None:
        """All of them with their audit events, or none: raises `VersionConflict`. Without a row before, it is a put."""
        for change in changes:
            found = self.rows.get(change.after.recovery_id)
            version = None if found is None else found.version
            seen = None if change.before is None else change.before.version
            if version != seen:
                raise VersionConflict(f"{change.after.recovery_id} is at version {version}, not {seen}")
        for change in changes:
            self.rows[change.after.recovery_id] = change.after
            self.put_audit(change.audit)


def _place(event: AuditEvent) -> tuple[str, str]:
    """The keys of the audit table."""
    return event.entity, f"{event.at_ms:013d}#{event.id}"


class FakeLedger:
    """`ports.Ledger`."""

    def __init__(self, tables: FakeTables) -> None:
        self.tables = tables
        self.faults = tables.faults

    def read(self, keys: Sequence[str], integrations: Sequence[str], *, with_rules: bool = False) -> BatchView:
        """See the port."""
        with self.faults.around("ledger.read"), self.tables.lock:
            items = {key: self.tables.ledger[key] for key in keys if key in self.tables.ledger}
            states = {name: self.tables.integrations.get(name) or IntegrationState(name) for name in integrations}
            quarantine = self.tables.quarantine if with_rules else Quarantine()
        return BatchView(items, states, quarantine)

    def claim(self, claim: Claim) -> Claimed | Refused:
        """See the port."""
        with self.faults.around("ledger.claim"), self.tables.lock:
            return self._claim(claim)

    def _claim(self, claim: Claim) -> Claimed | Refused:
        found = self.tables.ledger.get(claim.key)
        fresh = LedgerItem(
            key=claim.key,
            status=LedgerStatus.PROCESSING,
            owner=claim.owner,
            generation=1 if found is None else found.generation + 1,
            lease_until_ms=claim.lease_until_ms,
            received_at_ms=claim.received_at_ms,
            epoch_ms=claim.epoch_ms,
            payload_hash=claim.payload_hash,
            decision=_stored(claim.decision.to_json()),
            actions=claim.marks,
            request_id=claim.request_id,
            event_name=claim.event_name,
            written_at_ms=claim.now_ms // 1000 * 1000,
        )
        handles = claim.handles
        if found is not None:
            is_ours = found.status is LedgerStatus.PROCESSING and found.owner == claim.owner
            if not _may_be_claimed(found, claim):
                return Claimed(found) if is_ours else Refused(found)
            if claim.seen_epoch_ms is None:
                fresh = replace(
                    fresh,
                    received_at_ms=found.received_at_ms,
                    epoch_ms=found.epoch_ms,
                    decision=found.decision,
                    actions=found.actions,
                    request_id=found.request_id or claim.request_id,
                    event_name=found.event_name or claim.event_name,
                )
                handles |= self.tables.handles.get(claim.key, {})
        self.tables.ledger[claim.key] = fresh
        self.tables.handles[claim.key] = handles
        return Claimed(fresh)

    def mark(self, key: str, owner: str, generation: int, name: str, mark: ActionMark) -> None:
        """See the port."""
        with self.faults.around("ledger.mark"), self.tables.lock:
            item = self._own(key, owner, generation)
            self.tables.ledger[key] = replace(item, actions={**item.actions, name: mark})

    def release(
        self, key: str, owner: str, generation: int, ended_ms: int = 0, slots: Mapping[str, int] | None = None
    ) -> None:
        """See the port."""
        with self.faults.around("ledger.release"), self.tables.lock:
            item = self._own(key, owner, generation)
            kept = dict(slots) if slots else item.slots
            self.tables.ledger[key] = replace(item, lease_until_ms=ended_ms, slots=kept)

    def settle(self, settlement: Settlement) -> None:
        """See the port."""
        with self.faults.around("ledger.settle"), self.tables.lock:
            check_transaction(settlement.changes, others=1 + len(settlement.audit))
            item = self.tables.ledger.get(settlement.key)
            if item is not None and item.status is LedgerStatus.SETTLED and _is_of(item, settlement):
                return
            item = self._own(settlement.key, settlement.owner, settlement.generation)
            self.tables.ledger[settlement.key] = replace(
                item,
                status=LedgerStatus.SETTLED,
                lease_until_ms=0,
                actions=dict(settlement.marks),
                written_at_ms=settlement.now_ms // 1000 * 1000,
            )
            self.tables.put_audit(settlement.audit)
            for change in settlement.changes:
                if change.after.recovery_id not in self.tables.rows:
                    self.tables.rows[change.after.recovery_id] = change.after
                    self.tables.put_audit(change.audit)

    def take(self, integration: str, cost_ms: int, now_ms: int, until_ms: int, seen_tat_ms: int = 0) -> Taken | Full:
        """See the port."""
        with self.faults.around("ledger.take"), self.tables.lock:
            seen = self.tables.integrations.get(integration, IntegrationState(integration))
            tat_ms, answer = take(seen.tat_ms, cost_ms, now_ms, until_ms)
            if isinstance(answer, Taken):
                busy_from_ms = now_ms if seen.tat_ms <= now_ms else seen.busy_from_ms
                self.tables.integrations[integration] = replace(seen, tat_ms=tat_ms, busy_from_ms=busy_from_ms)
        return answer

    def put_right(self, integration: str, seen_tat_ms: int, to_ms: int, now_ms: int, seen_paused_until_ms: int) -> int:
        """See the port."""
        with self.faults.around("ledger.put_right"), self.tables.lock:
            seen = self.tables.integrations.get(integration, IntegrationState(integration))
            if not seen.tat_ms or seen.tat_ms != seen_tat_ms or seen.paused_until_ms > seen_paused_until_ms:
                return seen.tat_ms
            noted_ms, from_ms = self.tables.astray.get(integration, (0, 0))
            if noted_ms != seen_tat_ms or from_ms > now_ms:
                self.tables.astray[integration] = seen_tat_ms, now_ms
            elif from_ms <= now_ms - ASTRAY_FOR_MS:
                del self.tables.astray[integration]
                self.tables.integrations[integration] = replace(seen, tat_ms=to_ms, busy_from_ms=now_ms)
                return to_ms
            return seen_tat_ms

    def pause(self, integration: str, until_ms: int, tat_ms: int = 0) -> None:
        """See the port."""
        with self.faults.around("ledger.pause"), self.tables.lock:
            seen = self.tables.integrations.get(integration, IntegrationState(integration))
            self.tables.integrations[integration] = replace(
                seen,
                paused_until_ms=max(seen.paused_until_ms, until_ms),
                tat_ms=max(seen.tat_ms, until_ms, tat_ms),
            )

    def _own(self, key: str, owner: str, generation: int) -> LedgerItem:
        item = self.tables.ledger.get(key)
        if (
            item is None
            or item.status is not LedgerStatus.PROCESSING
            or (item.owner, item.generation) != (owner, generation)
        ):
            raise Fenced(f"{key} is not held by {owner} in generation {generation}")
        return item


@functools.lru_cache(maxsize=4096)
def _stored(text: str) -> Decision:
    """What is read back of a decision: its JSON, without action ids."""
    return Decision.from_json(text)


def _may_be_claimed(found: LedgerItem, claim: Claim) -> bool:
    if found.payload_hash != claim.payload_hash:
        return False
    if claim.seen_epoch_ms is not None:
        return found.status is LedgerStatus.SETTLED and found.epoch_ms == claim.seen_epoch_ms
    return found.status is LedgerStatus.PROCESSING and found.lease_until_ms <= claim.now_ms


def _is_of(item: LedgerItem, settlement: Settlement) -> bool:
    return (item.owner, item.generation) == (settlement.owner, settlement.generation)


def check_transaction(changes: Sequence[Change], others: int = 0) -> None:
    """Raise ValueError for what no transaction can hold: the same item twice, or more than 100 items."""
    ids = [change.after.recovery_id for change in changes]
    if len(set(ids)) != len(ids):
        raise ValueError("one transaction cannot write the same row twice")
    size = others + len(ids) + sum(len(change.audit) for change in changes)
    if size > MAX_TRANSACTION_ITEMS:
        raise ValueError(f"{size} items do not fit one transaction of at most {MAX_TRANSACTION_ITEMS}")


class FakeRecovery:
    """`ports.Recovery`. While `index` is set, queries show those rows: an index may lag behind its table."""

    def __init__(self, tables: FakeTables) -> None:
        self.tables = tables
        self.faults = tables.faults
        self.index: Mapping[str, Row] | None = None

    def get(self, recovery_id: str) -> Row | None:
        """See the port."""
        with self.faults.around("recovery.get"), self.tables.lock:
            return self.tables.rows.get(recovery_id)

    def commit(self, changes: Sequence[Change]) -> None:
        """See the port."""
        with self.faults.around("recovery.commit"), self.tables.lock:
            check_transaction(changes)
            if changes and all(self._is_there(change) for change in changes):
                return
            self.tables.put_rows(changes)

    def _is_there(self, change: Change) -> bool:
        """Whether an earlier call of the same caller did it. A lease is never given twice, not even to an equal one."""
        return change.after.lease_until_ms == 0 and self.tables.rows.get(change.after.recovery_id) == change.after

    def put_if_absent(self, change: Change) -> bool:
        """See the port."""
        with self.faults.around("recovery.put_if_absent"), self.tables.lock:
            check_transaction([change])
            is_absent = change.after.recovery_id not in self.tables.rows
            if is_absent:
                self.tables.rows[change.after.recovery_id] = change.after
                self.tables.put_audit(change.audit)
        return is_absent

    def due(self, integration_id: str, until_ms: int, limit: int) -> list[Row]:
        """See the port."""
        with self.faults.around("recovery.due"), self.tables.lock:
            rows = [
                row
                for row in self._indexed()
                if row.integration_id == integration_id and row.is_open and 0 < row.due_at_ms <= until_ms
            ]
        return sorted(rows, key=lambda row: (row.due_at_ms, row.recovery_id))[:limit]

    def find(self, integration_id: str, statuses: Sequence[Status], limit: int) -> list[Row]:
        """See the port. Oldest: by due time while open (without one: last), by last change once ended."""
        with self.faults.around("recovery.find"), self.tables.lock:
            rows = [row for row in self._indexed() if row.integration_id == integration_id and row.status in statuses]
        return sorted(rows, key=_age)[:limit]

    def walk(self, integration_id: str, status: Status) -> Iterator[Row]:
        """See the port."""
        with self.faults.around("recovery.walk"), self.tables.lock:
            rows = [row for row in self._indexed() if row.integration_id == integration_id and row.status is status]
        yield from rows

    def several(self, recovery_ids: Sequence[str]) -> Mapping[str, Row]:
        """See the port."""
        with self.faults.around("recovery.several"), self.tables.lock:
            return {one: self.tables.rows[one] for one in recovery_ids if one in self.tables.rows}

    def versions(self, recovery_ids: Sequence[str]) -> Mapping[str, int]:
        """See the port."""
        with self.faults.around("recovery.versions"), self.tables.lock:
            return {one: self.tables.rows[one].version for one in recovery_ids if one in self.tables.rows}

    def _indexed(self) -> Iterable[Row]:
        return (self.tables.rows if self.index is None else self.index).values()


def _age(row: Row) -> tuple[bool, int, str]:
    moment = row.due_at_ms if row.is_open else row.updated_at_ms
    return row.is_open and row.due_at_ms == 0, moment, row.recovery_id


class FakeAudit:
    """`ports.Audit`."""

    def __init__(self, tables: FakeTables) -> None:
        self.tables = tables
        self.faults = tables.faults

    def append(self, events: Sequence[AuditEvent]) -> None:
        """See the port."""
        with self.faults.around("audit.append"), self.tables.lock:
            for event in events:
                self.tables.audit.setdefault(_place(event), event)


class FakeHealthCounts:
    """`ports.HealthCounts`. Nothing expires: tests are over before two hours are."""

    def __init__(self, tables: FakeTables) -> None:
        self.tables = tables
        self.faults = tables.faults

    def add(self, minute: int, counts: Mapping[str, Counts], now_ms: int) -> None:
        """See the port."""
        with self.faults.around("counts.add"), self.tables.lock:
            for integration, counted in counts.items():
                if counted == Counts():
                    continue
                key = integration, minute
                self.tables.counts[key] = self.tables.counts.get(key, Counts()) + counted

    def read(self, integration: str, minutes: Sequence[int]) -> Mapping[int, Counts]:
        """See the port."""
        with self.faults.around("counts.read"), self.tables.lock:
            found = {minute: self.tables.counts.get((integration, minute)) for minute in minutes}
        return {minute: counts for minute, counts in found.items() if counts is not None}


class FakeHealthRecords:
    """`ports.HealthRecords`. What readers of control items see of a record lies in `tables.integrations`, where
    `tables.set_health` writes too; the rest in `tables.health`.
    """

    def __init__(self, tables: FakeTables) -> None:
        self.tables = tables
        self.faults = tables.faults

    def read(self, integrations: Sequence[str]) -> Mapping[str, Record]:
        """See the port."""
        with self.faults.around("health.read"), self.tables.lock:
            return {name: self._record(name) for name in integrations}

    def store(self, integration: str, change: HealthChange) -> None:
        """See the port."""
        with self.faults.around("health.store"), self.tables.lock:
            seen = self._record(integration).version
            if seen != change.seen_version:
                raise VersionConflict(f"the health of {integration} is at {seen}, not {change.seen_version}")
            self._put(integration, change.after)
            self.tables.put_audit(change.audit)

    def take_probe(self, integration: str, taken_by: str, now_ms: int, until_ms: int) -> bool:
        """See the port."""
        with self.faults.around("health.take_probe"), self.tables.lock:
            record = self._record(integration)
            if not record.state(integration).may_be_probed(now_ms):
                return has_taken(record, taken_by, now_ms, until_ms)
            taken = replace(record, probe_at_ms=until_ms, probe_by=taken_by, version=record.version + 1)
            self._put(integration, taken)
            return True

    def _record(self, integration: str) -> Record:
        record = self.tables.health.get(integration, Record())
        state = self.tables.integrations.get(integration)
        return record if state is None else replace(record, **{name: getattr(state, name) for name in _READ_BY_ALL})

    def _put(self, integration: str, record: Record) -> None:
        self.tables.health[integration] = record
        state = self.tables.integrations.get(integration, IntegrationState(integration))
        shown = {name: getattr(record, name) for name in _READ_BY_ALL}
        self.tables.integrations[integration] = replace(state, **shown)


_READ_BY_ALL = (
    "health",
    "since_ms",
    "reason",
    "override",
    "override_until_ms",
    "probe_at_ms",
    "probe_ok",
    "ramp_from_ms",
)


class FakeRecipients:
    """`ports.Recipients`. Tests may write `tables.people[tenant, recipient]`."""

    def __init__(self, tables: FakeTables) -> None:
        self.tables = tables
        self.faults = tables.faults

    def person(self, tenant: str, recipient: str) -> Person:
        """See the port."""
        with self.faults.around("recipients.person"), self.tables.lock:
            return self.tables.people.get((tenant, recipient), Person())

    def store(self, change: PersonChange) -> None:
        """See the port."""
        with self.faults.around("recipients.store"), self.tables.lock:
            key = change.tenant, change.recipient
            found = self.tables.people.get(key, Person())
            is_written = any(event.id == change.audit.id for event in self.tables.audit.values())
            if found == change.after and is_written:
                return
            if found.version != change.before.version:
                raise VersionConflict(f"the record of {change.recipient} has moved on since it was read")
            self.tables.people[key] = change.after
            self.tables.put_audit([change.audit])


class FakeCaps:
    """`ports.Caps`. Tests may look at `tables.sends`."""

    def __init__(self, tables: FakeTables) -> None:
        self.tables = tables
        self.faults = tables.faults

    def count(self, conversation: str, action_id: str, now_ms: int, most: int) -> Counted | Capped:
        """See the port."""
        with self.faults.around("caps.count"), self.tables.lock:
            answer = counted(self.tables.sends.get(conversation, Sends()), action_id, now_ms, most)
            if isinstance(answer, Capped):
                return answer
            self.tables.sends[conversation], granted = answer
        return granted

    def uncount(self, conversation: str, action_id: str, at_ms: int) -> None:
        """See the port."""
        with self.faults.around("caps.uncount"), self.tables.lock:
            after = uncounted(self.tables.sends.get(conversation, Sends()), action_id, at_ms)
            if after is not None:
                self.tables.sends[conversation] = after


class FakeOperatorChanges:
    """`ports.OperatorChanges`. Tests may look at `tables.answered`."""

    def __init__(self, tables: FakeTables) -> None:
        self.tables = tables
        self.faults = tables.faults

    def answered(self, principal: str, key: str, now_ms: int) -> Answered | None:
        """See the port."""
        with self.faults.around("operators.answered"), self.tables.lock:
            found = self.tables.answered.get((principal, key))
            return found if found is not None and found.is_kept(now_ms) else None

    def commit(
        self, change: Change, answered: Answered | None = None, released: Sequence[Change] = ()
    ) -> Answered | None:
        """See the port."""
        with self.faults.around("operators.commit"), self.tables.lock:
            changes = [change, *released]
            check_transaction(changes, others=1)
            if answered is not None:
                known = self.tables.answered.get((answered.principal, answered.key))
                if known is not None and known.is_kept(answered.at_ms):
                    return known
            self.tables.put_rows(changes)
            if answered is not None:
                self.tables.answered[answered.principal, answered.key] = answered
        return None

    def page(self, integration_id: str, statuses: Sequence[Status], after: str, limit: int) -> RowPage:
        """See the port."""
        with self.faults.around("operators.page"), self.tables.lock:
            rows = [row for row in self.tables.rows.values() if row.integration_id == integration_id]
        ordered = sorted(
            ((_list_key(row), row) for row in rows if row.status in statuses and _list_key(row) > after),
            key=lambda one: one[0],
        )
        shown = ordered[:limit]
        return RowPage(tuple(row for _, row in shown), shown[-1][0] if len(ordered) > limit else "")

    def count(self, integration_id: str, most: int) -> Mapping[Status, int]:
        """See the port."""
        with self.faults.around("operators.count"), self.tables.lock:
            rows = [row for row in self.tables.rows.values() if row.integration_id == integration_id]
        counts: dict[Status, int] = {}
        for row in rows:
            if row.status is not Status.SUCCEEDED and row.result != "succeeded":
                counts[row.status] = min(counts.get(row.status, 0) + 1, most)
        return counts


def _list_key(row: Row) -> str:
    open_until = f"{row.due_at_ms:013d}" if row.due_at_ms else "w"
    moment = open_until if row.is_open else f"e{row.updated_at_ms:013d}"
    return f"{row.status.value}#{moment}#{row.recovery_id}"


class FakeQuarantines:
    """`ports.Quarantines`. Tests may write `tables.quarantine`."""

    def __init__(self, tables: FakeTables) -> None:
        self.tables = tables
        self.faults = tables.faults

    def read(self) -> Quarantine:
        """See the port."""
        with self.faults.around("quarantine.read"), self.tables.lock:
            return self.tables.quarantine

    def store(self, change: QuarantineChange) -> None:
        """See the port."""
        with self.faults.around("quarantine.store"), self.tables.lock:
            is_written = self.tables.audit.get(_place(change.audit)) == change.audit
            if self.tables.quarantine == change.after and is_written:
                return
            if self.tables.quarantine.version != change.before.version:
                raise VersionConflict("the rules of quarantine have changed since they were read")
            self.tables.quarantine = change.after
            self.tables.put_audit([change.audit])


# -------------------------------------------------------------------------------------- parameters, bucket, and queues


class FakeSwitches:
    """`ports.Switches`. Tests write `values`; while `is_down`, or a fault says so, no refresh succeeds."""

    def __init__(self, clock: Clock, values: Mapping[str, str] | None = None, faults: Faults | None = None) -> None:
        self.values: dict[str, str] = dict(LIVE_SWITCHES if values is None else values)
        self.is_down = False
        self.stale = 0  # refreshes that failed
        self.faults = Faults() if faults is None else faults
        self._clock = clock
        self._last: Snapshot | None = None
        self._lock = threading.Lock()

    def snapshot(self, max_age_ms: int) -> Snapshot | None:
        """See the port."""
        with self._lock:
            now_ms = self._clock.now_ms()
            if self._last is not None and abs(now_ms - self._last.read_at_ms) <= max_age_ms:
                return self._last
            fresh: Snapshot | None = None
            try:
                with self.faults.around("switches.snapshot"):
                    fresh = None if self.is_down else Snapshot.complete(self.values, now_ms)
            except StorageUnavailable:
                fresh = None
            if fresh is None:
                self.stale += 1
            else:
                self._last = fresh
            return self._last


class FakeEnvelopes:
    """`ports.Envelopes`. `objects` is the bucket: content by reference."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.objects: dict[str, bytes] = {}
        self.faults = Faults() if faults is None else faults

    def put(self, event: Event) -> str:
        """See the port."""
        with self.faults.around("envelopes.put"):
            message = event.to_message()
            reference = f"envelopes/{event.tenant}/{digest(message)}"
            self.objects[reference] = message.encode("ascii")
        return reference

    def put_raw(self, name: str, content: bytes) -> str:
        """See the port."""
        with self.faults.around("envelopes.put_raw"):
            reference = f"envelopes/raw/{name}"
            self.objects[reference] = content
        return reference

    def get(self, reference: str) -> Event:
        """See the port."""
        with self.faults.around("envelopes.get"):
            content = self.objects.get(reference)
            if content is None:
                raise StorageUnavailable(f"there is no object {reference}")
            try:
                message = content.decode("utf-8")
            except UnicodeDecodeError as exc:
                raise MalformedEnvelope("the object is not UTF-8") from exc
            return Event.from_message(message)


class FakeDocuments:
    """`ports.Documents`. `objects` is the bucket: content by key."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.objects: dict[str, bytes] = {}
        self.faults = Faults() if faults is None else faults

    def read(self, tenant: str, name: str) -> bytes | None:
        """See the port."""
        with self.faults.around("documents.read"):
            content = self.objects.get(document_key(tenant, name))
            if content is not None and len(content) > MAX_DOCUMENT_BYTES:
                raise StorageRefused(f"the document has {len(content)} bytes")
            return content

    def store_parsed(self, tenant: str, name: str, content: bytes) -> str:
        """See the port."""
        with self.faults.around("documents.store_parsed"):
            key = parsed_key(tenant, name)
            self.objects[key] = content
        return key


class FakeSpill:
    """`ports.Spill`. `objects` is what lies there, by name; what is in `unreadable` cannot be fetched."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.objects: dict[str, bytes] = {}
        self.unreadable: set[str] = set()
        self.faults = Faults() if faults is None else faults
        self._lock = threading.Lock()

    def put(self, name: str, content: bytes | str) -> str:
        """Spill it, and give its whole name."""
        key = f"{SPILL}{name}"
        self.objects[key] = content if isinstance(content, bytes) else content.encode("utf-8")
        return key

    def oldest(self, after: str, limit: int) -> list[Spilled]:
        """See the port."""
        with self.faults.around("spill.oldest"), self._lock:
            keys = sorted(key for key in self.objects if key > after)[: min(limit, MAX_LISTED)]
            return [Spilled(key, len(self.objects[key])) for key in keys]

    def read(self, key: str) -> bytes | None:
        """See the port."""
        with self.faults.around("spill.read"), self._lock:
            content = self.objects.get(key)
            if key in self.unreadable or (content is not None and len(content) > MAX_SPILLED_BYTES):
                raise StorageUnavailable(f"{key} cannot be fetched")
            return content

    def remove(self, key: str) -> None:
        """See the port."""
        with self.faults.around("spill.remove"), self._lock:
            self.objects.pop(key, None)


class FakeEvents:
    """`ports.EventsQueue`. `sent` is the queue; a message that holds one of `refused` is never taken."""

    def __init__(self, faults: Faults | None = None, accept: Callable[[str], None] | None = None) -> None:
        self.sent: list[str] = []
        self.refused: set[str] = set()
        self.faults = Faults() if faults is None else faults
        self._accept = self.sent.append if accept is None else accept

    def send(self, event: Event, message: str) -> None:
        """See the port."""
        with self.faults.around("events.send"):
            is_too_long = len(message.encode("utf-8")) > MAX_MESSAGE_BYTES
            if is_too_long or any(text in message for text in self.refused):
                raise StorageRefused(f"the queue takes nothing like {event.event_id}")
            self._accept(message)


@dataclass(frozen=True, slots=True)
class SentHint:
    """A hint as its queue holds it."""

    hint: Hint
    delay_seconds: int


class FakeHints:
    """`ports.Hints`. `sent` is the queue; hints at rows in `refused` are not accepted."""

    def __init__(self, faults: Faults | None = None, name: str = "hints") -> None:
        self.sent: list[SentHint] = []
        self.refused: set[str] = set()
        self.faults = Faults() if faults is None else faults
        self._op = f"{name}.send"

    def send(self, hints: Sequence[Hint], now_ms: int) -> list[Hint]:
        """See the port. A `StorageUnavailable` of the fault hook means that nothing was accepted."""
        try:
            with self.faults.around(self._op):
                failed = [hint for hint in hints if hint.recovery_id in self.refused]
                for hint in hints:
                    if hint not in failed:
                        wait = math.ceil((hint.not_before_ms - now_ms) / 1000)
                        self.sent.append(SentHint(hint, min(max(wait, 0), MAX_DELAY_SECONDS)))
        except StorageUnavailable:
            return list(hints)
        return failed


class FakeVisibility:
    """`ports.Visibility`. `delays` holds what was asked for, in order: queue ARN, receipt handle, seconds."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.delays: list[tuple[str, str, int]] = []
        self.faults = Faults() if faults is None else faults

    def delay(self, queue_arn: str, receipt_handle: str, seconds: int) -> None:
        """See the port."""
        try:
            with self.faults.around("visibility.delay"):
                self.delays.append((queue_arn, receipt_handle, min(max(seconds, 0), 43_200)))
        except StorageUnavailable:
            return


# ---------------------------------------------------------------------------------------------------- for people's eyes


class FakeEventIndex:
    """`ports.EventIndex`, never behind."""

    def __init__(self, tables: FakeTables) -> None:
        self.tables = tables
        self.faults = tables.faults

    def find(self, handle: Handle, key: str, limit: int, after: str = "") -> Page[str]:
        """See the port."""
        seen = parts_of(after, int, str) if after else None
        with self.faults.around("index.find"), self.tables.lock:
            entries = [
                (self.tables.ledger[pk].received_at_ms, pk)
                for pk, handles in self.tables.handles.items()
                if handles.get(handle) == key
            ]
        entries.sort(reverse=True)
        left = [entry for entry in entries if seen is None or entry < (int(seen[0]), str(seen[1]))]
        further = cursor_of(left[limit - 1]) if len(left) > limit else ""
        return Page(tuple(pk for _, pk in left[:limit]), further)

    def items(self, keys: Sequence[str]) -> Mapping[str, LedgerItem | None]:
        """See the port."""
        with self.faults.around("index.items"), self.tables.lock:
            return {key: self.tables.ledger[key] for key in keys if key in self.tables.ledger}

    def rows(self, recovery_ids: Sequence[str]) -> Mapping[str, Row | None]:
        """See the port."""
        with self.faults.around("index.rows"), self.tables.lock:
            return {one: self.tables.rows[one] for one in recovery_ids if one in self.tables.rows}


class FakeAuditLog:
    """`ports.AuditLog`, never behind."""

    def __init__(self, tables: FakeTables) -> None:
        self.tables = tables
        self.faults = tables.faults

    def of_entity(
        self, entity: str, limit: int, after: str = "", *, until_ms: int | None = None, latest_first: bool = False
    ) -> Page[AuditEvent]:
        """See the port."""
        (seen,) = parts_of(after, str) if after else ("",)
        with self.faults.around("audit_log.of_entity"), self.tables.lock:
            found = [(sk, event) for (pk, sk), event in self.tables.audit.items() if pk == entity]
        entries = sorted(found, key=lambda entry: entry[0])
        if latest_first:
            entries.reverse()
        left = [
            (sk, event)
            for sk, event in entries
            if (until_ms is None or event.at_ms <= until_ms)
            and (not seen or (sk < str(seen) if latest_first else sk > str(seen)))
        ]
        further = cursor_of([left[limit - 1][0]]) if len(left) > limit else ""
        return Page(tuple(event for _, event in left[:limit]), further)

    def of_request(self, request_id: str, limit: int, after: str = "") -> Page[AuditEvent]:
        """See the port."""
        seen = tuple(parts_of(after, str, str)) if after else None
        with self.faults.around("audit_log.of_request"), self.tables.lock:
            entries = sorted(
                (sk, pk) for (pk, sk), event in self.tables.audit.items() if event.request_id == request_id
            )
            left = [entry for entry in entries if seen is None or entry > seen]
            events = tuple(self.tables.audit[pk, sk] for sk, pk in left[:limit])
        return Page(events, cursor_of(left[limit - 1]) if len(left) > limit else "")


class FakeDoor:
    """`ports.Door`. Tests fill `lines`; what was before `reaches_to_ms` cannot be read."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.lines: list[DoorLine] = []
        self.reaches_to_ms = 0

    def rejections(
        self, since_ms: int, now_ms: int, *, source: str = "", reason: str = "", request_id: str = "", limit: int = 50
    ) -> Rejections:
        """See the port."""
        with self.faults.around("door.rejections"):
            wanted = {"source": source, "reason": reason, "request_id": request_id}
            found = [
                line
                for line in self._since(since_ms, now_ms)
                if line.is_refused and all(getattr(line, name) == text for name, text in wanted.items() if text)
            ]
        counts: dict[str, int] = {}
        for line in found:
            counts[line.reason] = counts.get(line.reason, 0) + 1
        is_complete = since_ms >= self.reaches_to_ms
        return Rejections(tuple(found[:limit]), counts, max(since_ms, self.reaches_to_ms), is_complete)

    def sighting(self, since_ms: int, now_ms: int, *, request_id: str = "", event_id: str = "") -> Sighting:
        """See the port."""
        with self.faults.around("door.sighting"):
            wanted = {"event_id": event_id, "request_id": request_id}
            found = [
                line
                for line in self._since(since_ms, now_ms)
                if all(getattr(line, name) == text for name, text in wanted.items() if text)
            ]
        if found:
            return Sighting(found[0], since_ms, is_complete=True)
        return Sighting(None, max(since_ms, self.reaches_to_ms), since_ms >= self.reaches_to_ms)

    def _since(self, since_ms: int, now_ms: int) -> list[DoorLine]:
        since_ms = max(since_ms, self.reaches_to_ms)
        lines = [line for line in self.lines if since_ms <= line.at_ms <= now_ms]
        return sorted(lines, key=lambda line: line.at_ms, reverse=True)
