"""What the shells need from the outside world. `adapters` implement these for real, `tests/fakes.py` in memory; both
pass the same tests.

Storage ports are synchronous and raise `StorageUnavailable` when the other side did not do its part; the worker runs
them off its event loop. Provider ports are asynchronous, so that cancelling one closes its socket.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from functions.core.audit import AuditEvent
from functions.core.cap import Capped, Counted
from functions.core.decision import Action, Classification
from functions.core.event import Event
from functions.core.failure import Done, Failure
from functions.core.gate import IntegrationState
from functions.core.health import Counts, HealthChange, Record
from functions.core.incident import Board as IncidentBoard
from functions.core.incident import Incident, IncidentChange
from functions.core.ledger import ActionMark, Claim, Claimed, Handle, LedgerItem, Refused
from functions.core.limiter import Full, Taken
from functions.core.operations import Answered
from functions.core.page import Change as Changed
from functions.core.page import Depth, Letter
from functions.core.person import PersonChange
from functions.core.quarantine import Quarantine, QuarantineChange
from functions.core.recipient import Person
from functions.core.recovery import Change, Row, Status
from functions.core.replay import Plan
from functions.core.replay_job import Batch, BatchRecord, Board, Job, JobChange
from functions.core.silence import Entries
from functions.core.switches import Snapshot

if TYPE_CHECKING:
    from functions.core.subjects import SourcesFound
    from functions.core.switch_returns import Returns, ReturnsChange

# ------------------------------------------------------------------------------------------------------------- storage


@dataclass(frozen=True, slots=True)
class BatchView:
    """What one batched read found: ledger items by key, the control item of every integration asked for, and the rules
    by which events are kept aside, if they were asked for.
    """

    items: Mapping[str, LedgerItem] = field(default_factory=dict)
    integrations: Mapping[str, IntegrationState] = field(default_factory=dict)
    quarantine: Quarantine = field(default_factory=Quarantine)


@dataclass(frozen=True, slots=True)
class Settlement:
    """The fenced write that ends an event's first pass. With changes, or audit events beside theirs, it is one
    transaction.
    """

    key: str
    owner: str
    generation: int
    now_ms: int
    marks: Mapping[str, ActionMark]
    changes: Sequence[Change] = ()
    audit: Sequence[AuditEvent] = ()


class Ledger(Protocol):
    """The ledger table, with the control items that its readers need in the same request."""

    def read(self, keys: Sequence[str], integrations: Sequence[str], *, with_rules: bool = False) -> BatchView:
        """One batched, consistent read of everything, with the rules of quarantine too if asked for; unprocessed keys
        are asked for again. Keys may repeat. Rules that cannot be read back count as none, and are logged as an error.
        """
        ...

    def claim(self, claim: Claim) -> Claimed | Refused:
        """Become the owner, if nobody else is: absent, or `processing` with an ended lease, or settled at
        `seen_epoch_ms`.

        Keeps what an earlier claim stored (decision, marks, received_at, epoch) except after the repeat window; adds 1
        to the generation; takes the slots of a released event off. A claim that meets its own owner was answered
        before: `Claimed`.
        """
        ...

    def mark(self, key: str, owner: str, generation: int, name: str, mark: ActionMark) -> None:
        """Store one action's mark. Raises `Fenced` unless still the owner of that generation."""
        ...

    def release(
        self, key: str, owner: str, generation: int, ended_ms: int = 0, slots: Mapping[str, int] | None = None
    ) -> None:
        """Give up a claim under which nothing was tried, as if its lease had ended at `ended_ms`: 0, or the end of the
        lease that it took over, which whoever comes next must still reckon with. `slots` of the limiter, by
        integration, are kept for the next owner. Raises `Fenced` like `mark`.
        """
        ...

    def settle(self, settlement: Settlement) -> None:
        """Settle, fenced by owner and generation, and put the rows if absent with their audit events: all or nothing.

        A row that is already there stays as it is. Meeting its own earlier success is success. Raises `Fenced`.
        """
        ...

    def take(self, integration: str, cost_ms: int, now_ms: int, until_ms: int, seen_tat_ms: int = 0) -> Taken | Full:
        """Move the limiter's `tat` on by `cost_ms`, from now if it is over; `Full`, and nothing moved, if it is later
        than both `now_ms` and `until_ms`. `seen_tat_ms`, where it was when it was read, saves a request.

        An answer that was lost leaves `tat` moved: calls that nobody makes. Raises `StorageUnavailable`.
        """
        ...

    def put_right(self, integration: str, seen_tat_ms: int, to_ms: int, now_ms: int, seen_paused_until_ms: int) -> int:
        """Move a `tat` back that only a clock which was wrong can have set; where `tat` is then.

        Only if it is where it was seen, has stood still there for `ASTRAY_FOR_MS` since it was first asked for, and no
        pause is later than the one that was seen; else it is noted since when it stands still. Raises
        `StorageUnavailable`.
        """
        ...

    def pause(self, integration: str, until_ms: int, tat_ms: int = 0) -> None:
        """Hold the whole fleet's calls to an integration until then, and move the limiter's `tat` to `tat_ms`, or to
        the pause's end; an earlier pause or `tat` that is later stays.
        """
        ...


class Recovery(Protocol):
    """The recovery table and the audit table, which are only ever written together."""

    def get(self, recovery_id: str) -> Row | None:
        """The row, read consistently."""
        ...

    def commit(self, changes: Sequence[Change]) -> None:
        """Apply every change with its audit events in one transaction (a single bare change: one conditional write).

        Raises `VersionConflict` if any row has moved on, and for a put if the row exists. Meeting its own earlier
        success is success.
        """
        ...

    def put_if_absent(self, change: Change) -> bool:
        """Put a new row with its audit events; False, and nothing written, if the row exists."""
        ...

    def due(self, integration_id: str, until_ms: int, limit: int) -> list[Row]:
        """Open rows of the integration that are due by then, over all shards and open statuses, earliest first, at
        most about `limit`.
        """
        ...

    def find(self, integration_id: str, statuses: Sequence[Status], limit: int) -> list[Row]:
        """Rows of the integration in these statuses, over all shards, oldest first."""
        ...

    def walk(self, integration_id: str, status: Status) -> Iterator[Row]:
        """Every row of the integration in that status, in no order, read as it is asked for. The index lags."""
        ...

    def several(self, recovery_ids: Sequence[str]) -> Mapping[str, Row]:
        """Those of the rows that are there, read consistently."""
        ...

    def versions(self, recovery_ids: Sequence[str]) -> Mapping[str, int]:
        """The versions of those that are there, read consistently."""
        ...


class Audit(Protocol):
    """Append-only."""

    def append(self, events: Sequence[AuditEvent]) -> None:
        """Write events that no row goes with. The same id is written once."""
        ...


class HealthCounts(Protocol):
    """What became of calls, by integration and minute. Kept for two hours.

    A worker that is killed takes its last counts with it, and a write whose answer is lost may be counted twice: a
    ratio over many calls bears both.
    """

    def add(self, minute: int, counts: Mapping[str, Counts], now_ms: int) -> None:
        """Add to what that minute has, one write per integration. Every one is tried; raises `StorageUnavailable` if
        any failed.
        """
        ...

    def read(self, integration: str, minutes: Sequence[int]) -> Mapping[int, Counts]:
        """What was counted in each of these minutes, all writers together; a minute without any is left out. Read
        consistently.
        """
        ...


class HealthRecords(Protocol):
    """The health of the integrations, on their control items."""

    def read(self, integrations: Sequence[str]) -> Mapping[str, Record]:
        """Each one's record, read consistently; one that was never written is healthy, at version 0."""
        ...

    def store(self, integration: str, change: HealthChange) -> None:
        """Write the record and its audit events in one transaction. Meeting its own earlier success is success.

        Raises `VersionConflict` if the record has moved on, or `StorageUnavailable`.
        """
        ...

    def take_probe(self, integration: str, taken_by: str, now_ms: int, until_ms: int) -> bool:
        """Become the only one who finds out, until then, whether an integration that is down is back; False if it is
        not down, or held down by an operator, or another has the probe. Adds 1 to the version. Meeting its own earlier
        success is success.
        """
        ...


class Recipients(Protocol):
    """Whom we may contact, and how: consent, contacts and suppressions (`core.recipient`, `core.person`). Asking is not
    optional.
    """

    def person(self, tenant: str, recipient: str) -> Person:
        """Read consistently; nobody stored is a person of whom nothing is known. One whose record cannot be understood
        says so. Raises `StorageUnavailable`.
        """
        ...

    def store(self, change: PersonChange) -> None:
        """Write the change and its audit event in one transaction: no audit, no change. Meeting its own earlier success
        is success.

        Raises `VersionConflict` if the record has moved on, or `StorageUnavailable`.
        """
        ...


class Caps(Protocol):
    """How many automatic sends each conversation had in the last hour (`core.cap`)."""

    def count(self, conversation: str, action_id: str, now_ms: int, most: int) -> Counted | Capped:
        """Count this send, if no more than `most` different ones fall into the hour that ends now. However many ask at
        once, no more than that are granted. Raises `StorageUnavailable`.

        Asked again in the same moment, because the answer was lost, it may say that the send counted before, which lets
        the count stand.
        """
        ...

    def uncount(self, conversation: str, action_id: str, at_ms: int) -> None:
        """Let the send that was granted at that moment, and not made, count no longer. Raises `StorageUnavailable`."""
        ...


class Switches(Protocol):
    """The operator's switches."""

    def snapshot(self, max_age_ms: int) -> Snapshot | None:
        """The last complete read, refreshed first if it is older than `max_age_ms`. A refresh that fails leaves the
        last one.
        """
        ...


class Envelopes(Protocol):
    """Capped envelopes of events with anything unfinished, encrypted, for 120 days."""

    def put(self, event: Event) -> str:
        """Store it; the same event lands at the same reference. Raises `StorageUnavailable`."""
        ...

    def put_raw(self, name: str, content: bytes) -> str:
        """Store a message that is no envelope, as it came. Raises `StorageUnavailable`."""
        ...

    def get(self, reference: str) -> Event:
        """The whole event, by its envelope's reference or by that of a claim check. Raises `MalformedEnvelope`, or
        `StorageUnavailable`.
        """
        ...


class Documents(Protocol):
    """Files that people gave, by tenant and name (`core.document`), and what was read from them; both for 120 days.

    Neither method is asked for a name that is none.
    """

    def read(self, tenant: str, name: str) -> bytes | None:
        """The file, or None if there is none (any more). Raises `StorageRefused` where it is too large, or
        `StorageUnavailable`.
        """
        ...

    def store_parsed(self, tenant: str, name: str, content: bytes) -> str:
        """Store what was read, in place of what an earlier reading left; gives the reference. Raises
        `StorageUnavailable`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Spilled:
    """An object of the spill, as a list of them says."""

    key: str
    size_bytes: int


class Spill(Protocol):
    """The messages that ingress stored in the bucket when the events queue did not take them."""

    def oldest(self, after: str, limit: int) -> list[Spilled]:
        """The first ones by name, and so by time, whose name comes after that one; at most `limit`, at most 1,000.
        Raises `StorageUnavailable`.
        """
        ...

    def read(self, key: str) -> bytes | None:
        """What is in it, or None if it is gone: another tick may have sent it on. Raises `StorageUnavailable`, also
        where it is too large to be read.
        """
        ...

    def remove(self, key: str) -> None:
        """Let it go. One that is gone already is no error. Raises `StorageUnavailable`."""
        ...


class EventsQueue(Protocol):
    """The events queue, as the spill is drained into it."""

    def send(self, event: Event, message: str) -> None:
        """Send `message`, which stands for `event`. Raises `StorageRefused` where the queue will never take it, else
        `StorageUnavailable`: it may be there all the same.
        """
        ...


class SourceEntries(Protocol):
    """The sources' entries, secrets included, for whoever sends through one."""

    def read(self, source: str) -> str | None:
        """The entry's text; None if there is no such source. Raises `StorageUnavailable`."""
        ...


class FrontDoor(Protocol):
    """Our own public address, as senders reach it."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """The status that one request is answered; 0 if nobody answered in time. Not repeated. Raises nothing."""
        ...


@dataclass(frozen=True, slots=True)
class SwitchVersion:
    """One version of one switch's parameter. `changed_by` is who wrote it, as the parameter store says, `reason` what
    its writer gave as description; empty if there is none.
    """

    name: str
    version: int
    value: str
    changed_at_ms: int
    changed_by: str = ""
    reason: str = ""


class SwitchHistory(Protocol):
    """What the parameter store remembers of the switches."""

    def latest(self) -> Mapping[str, SwitchVersion]:
        """Every switch by name, as it is now, without who changed it. Raises `StorageUnavailable`: half a list is
        none.
        """
        ...

    def versions(self, name: str) -> list[SwitchVersion]:
        """What is kept of a switch's versions, oldest first; empty if there is no such switch. Raises
        `StorageUnavailable`.
        """
        ...


class SwitchWriter(Protocol):
    """Sets a switch."""

    def put(self, name: str, value: str, description: str) -> int:
        """Make that value the switch's next version, whatever it was before or is meanwhile; gives its number. The
        store keeps refusing what nobody could read. Raises `StorageUnavailable`: it may have happened all the same.
        """
        ...


class SwitchReturns(Protocol):
    """Which switches say something else again after a time: one control item."""

    def read(self) -> Returns:
        """Read consistently. Raises `StorageUnavailable`, also for what cannot be read back."""
        ...

    def store(self, change: ReturnsChange) -> None:
        """Write the change and its audit events in one transaction: no audit, no change. Meeting its own earlier
        success is success. Raises `VersionConflict`, or `StorageUnavailable`.
        """
        ...


@dataclass(frozen=True, slots=True)
class AuditedSwitch:
    """The last version of a switch that is in the audit. `missing_since_ms` is when it was first not found; 0 while it
    is there.
    """

    version: int
    value: str
    changed_at_ms: int
    missing_since_ms: int = 0


@dataclass(frozen=True, slots=True)
class AuditedSwitches:
    """What of the switches is in the audit, by name. `revision` is 0 for the first of all."""

    revision: int = 0
    switches: Mapping[str, AuditedSwitch] = field(default_factory=dict)


class SwitchMarks(Protocol):
    """Up to where the switches' history is in the audit: one control item."""

    def read(self) -> AuditedSwitches:
        """Read consistently. Raises `StorageUnavailable`."""
        ...

    def store(self, seen_revision: int, switches: Mapping[str, AuditedSwitch]) -> AuditedSwitches:
        """Replace what has that revision still, and return it with the next one. Raises `VersionConflict`, or
        `StorageUnavailable`.
        """
        ...


class ReplayJobs(Protocol):
    """Bulk replays: control items, one for each and one board of them all."""

    def get(self, job_id: str) -> Job | None:
        """Read consistently. Raises `StorageUnavailable`, also where it cannot be read back."""
        ...

    def several(self, job_ids: Sequence[str]) -> Mapping[str, Job]:
        """Those of them that are there, read consistently. One that cannot be read back is logged and left out: it
        keeps nobody from the others. Raises `StorageUnavailable`.
        """
        ...

    def board(self) -> Board:
        """Which jobs there are, read consistently; an empty one at version 0 before the first. Raises like `get`."""
        ...

    def store(self, change: JobChange) -> None:
        """Write job, board and audit events in one transaction. Meeting its own earlier success is success.

        Raises `VersionConflict` if the job or the board has moved on, or `StorageUnavailable`.
        """
        ...

    def apply(self, job: Job, changes: Sequence[Change]) -> None:
        """What the job does to rows, with their audit events: all or nothing, and only while the job is at that
        version. Meeting its own earlier success is success.

        Raises `Fenced` if the job has moved on, `VersionConflict` if a row has, or `StorageUnavailable`.
        """
        ...


class Incidents(Protocol):
    """Incidents: control items, one for each and one board of them all."""

    def get(self, incident_id: str) -> Incident | None:
        """Read consistently. Raises `StorageUnavailable`, also where it cannot be read back."""
        ...

    def several(self, incident_ids: Sequence[str]) -> Mapping[str, Incident]:
        """Those of them that are there, read consistently. One that cannot be read back is logged and left out: it
        keeps nobody from the others. Raises `StorageUnavailable`.
        """
        ...

    def board(self) -> IncidentBoard:
        """Which there are, read consistently; an empty one at version 0 before the first. Raises like `get`."""
        ...

    def store(self, change: IncidentChange) -> None:
        """Write incident, board and audit events in one transaction: no audit, no change. Meeting its own earlier
        success is success.

        Raises `VersionConflict` if the incident or the board has moved on, or `StorageUnavailable`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a letter: the channels that have taken it now, and those that have not, with the reason's code."""

    took: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)


class OnCallChannels(Protocol):
    """The ways by which whoever is on call is told: the topic, and what is configured beside it."""

    def send(self, letter: Letter, already: Sequence[str] = ()) -> Sent:
        """Hand it to every channel that should have it, but for those. One channel's trouble is not another's; never
        raises.
        """
        ...

    def acknowledged(self, calls: Sequence[str]) -> Mapping[str, str]:
        """Which of the calls (`incident.call_of`) somebody has acknowledged where they were paged, and who. Never
        raises: what cannot be asked now is asked in a minute.
        """
        ...


class RecentChanges(Protocol):
    """What was changed by deploys and in the parameter store."""

    def since(self, since_ms: int) -> Sequence[Changed]:
        """Deploys, switches, sources and credentials changed since then, the newest first. Raises
        `StorageUnavailable`.
        """
        ...


class ReplayPlans(Protocol):
    """The plans of bulk replays and what became of their batches: objects, encrypted, for 120 days."""

    def put(self, job_id: str, made: Plan) -> str:
        """Store it; gives its reference. The same plan lands at the same place. Raises `StorageUnavailable`."""
        ...

    def get(self, reference: str, plan_hash: str) -> Plan:
        """The plan of that hash. Raises `StorageUnavailable`; `PlanLost` where it is not there, cannot be read back, or
        is another.
        """
        ...

    def put_record(self, job_id: str, batch: Batch, record: Sequence[BatchRecord]) -> None:
        """Store what became of the rows of a batch, in place of an earlier record. Raises `StorageUnavailable`."""
        ...

    def records(self, job_id: str, start: int, end: int) -> Sequence[BatchRecord]:
        """Of the batches that the rows from `start` up to `end` of the plan lie in; those that are not over are left
        out. Raises `StorageUnavailable`, also where one cannot be read back.
        """
        ...


class ReplayStarter(Protocol):
    """Gets replay λ to work on a job, without waiting for it."""

    def start(self, job_id: str) -> bool:
        """Whether it was accepted. Where it was not, the sweeper starts the job when it is due. Never raises."""
        ...


class LiveBacklog(Protocol):
    """How far new events are behind."""

    def waiting(self) -> int:
        """About how many messages wait in the events queue. Raises `StorageUnavailable`."""
        ...


class QueueDepths(Protocol):
    """How much the worker's queues hold."""

    def read(self, queue: str) -> Depth:
        """About how many messages are in the queue of that name; what is sent with a delay waits too. Raises
        `StorageUnavailable`, and KeyError for a queue that it does not know.
        """
        ...


@dataclass(frozen=True, slots=True)
class RowPage:
    """Some rows of a list. `after` is where the next page begins; empty if there is none. `unreadable` are ids."""

    rows: tuple[Row, ...]
    after: str = ""
    unreadable: tuple[str, ...] = ()


class OperatorChanges(Protocol):
    """Rows as operators list and change them, and what their calls were answered."""

    def answered(self, principal: str, key: str, now_ms: int) -> Answered | None:
        """What the call under that key was answered, within the last day. Raises `StorageUnavailable`."""
        ...

    def commit(
        self, change: Change, answered: Answered | None = None, released: Sequence[Change] = ()
    ) -> Answered | None:
        """Change the row with its audit events, and rows that waited for it, and keep what the call is answered: all or
        nothing.

        Gives what a call under the same key was answered before; then nothing is written. Raises `VersionConflict`
        where a row has moved on, or `StorageUnavailable`: then it may have been written all the same.
        """
        ...

    def page(self, integration_id: str, statuses: Sequence[Status], after: str, limit: int) -> RowPage:
        """Rows of one integration in these statuses, status by status, oldest first: by due time while open, by last
        change once ended. None is left out or shown twice while rows stay as they are. Raises `StorageUnavailable`.
        """
        ...

    def count(self, integration_id: str, most: int) -> Mapping[Status, int]:
        """How many rows of one integration are in each status, at most `most` of one; those that nobody need look at
        (`succeeded`, and replays that succeeded) and zeros are left out. Raises `StorageUnavailable`.
        """
        ...


class Quarantines(Protocol):
    """The rules by which events are kept aside: one control item."""

    def read(self) -> Quarantine:
        """Read consistently. Raises `StorageUnavailable`, also where they cannot be read back."""
        ...

    def store(self, change: QuarantineChange) -> None:
        """Write the rules and their audit event, both or neither. A change that was written before is no error. Raises
        `VersionConflict`, or `StorageUnavailable`.
        """
        ...


LONGEST_ID = 64  # of a row; a table refuses to look for a name without end


@dataclass(frozen=True, slots=True)
class Hint:
    """A queue message that points at a row. Another version in the table means that it is out of date.

    `not_before_ms` is for the sender, who turns it into a delay.
    """

    recovery_id: str
    version: int
    not_before_ms: int = 0
    tenant: str = ""

    def to_message(self) -> str:
        """What travels: id and version, as JSON."""
        return json.dumps({"recovery_id": self.recovery_id, "version": self.version}, separators=(",", ":"))

    @staticmethod
    def from_message(text: str) -> Hint | None:
        """The hint that a message is, or None if it is none."""
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(raw, dict):
            return None
        recovery_id, version = raw.get("recovery_id"), raw.get("version")
        if not isinstance(recovery_id, str) or not 0 < len(recovery_id) <= LONGEST_ID:
            return None
        if not isinstance(version, int) or isinstance(version, bool):
            return None
        return Hint(recovery_id, version)


class Hints(Protocol):
    """The retries queue or the replays queue."""

    def send(self, hints: Sequence[Hint], now_ms: int) -> list[Hint]:
        """Send each with its delay; returns those that were not accepted."""
        ...


class Visibility(Protocol):
    """When a queue shows a message again that is not finished."""

    def delay(self, queue_arn: str, receipt_handle: str, seconds: int) -> None:
        """0 to 43,200 seconds from now. Best effort: a failure leaves the queue's own timeout."""
        ...


# ----------------------------------------------------------------------------------------------------------- providers


@dataclass(frozen=True, slots=True)
class Absent:
    """The provider was asked and has no such effect."""


@dataclass(frozen=True, slots=True)
class SettingState:
    """What a target is set to now. `changed_at_ms` and `changed_by_us` tell of the last change, where known."""

    value: str
    changed_at_ms: int | None = None
    changed_by_us: bool | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """What goes with an action to its provider, for correlation. `deadline_ms` is wall clock, enforced by the caller
    too.

    `contact` is the recipient's address on the integration's channel, where it has one: it stands in no decision, row,
    log or ledger item, and is read right before each send. `contact_since_ms` is since when it is theirs.
    `decided_at_ms`: nothing of the action can be older.
    """

    request_id: str
    traceparent: str
    deadline_ms: int
    tenant: str = ""
    contact: str = field(default="", repr=False)
    contact_since_ms: int = 0
    decided_at_ms: int = 0


class Provider(Protocol):
    """One integration's effects. No method raises for the provider's trouble: that is a `Failure`."""

    async def send(self, action: Action, call: Call) -> Done | Failure:
        """Do it, with `action.action_id` as key or marker."""
        ...

    async def look_up(self, action: Action, call: Call) -> Done | Absent | Failure:
        """Is the effect of this action there? By our marker."""
        ...

    async def read_setting(self, action: Action, call: Call) -> SettingState | Failure:
        """What is the action's target set to?"""
        ...

    def wanted(self, action: Action) -> str:
        """The value, as `SettingState.value` would show it, that the action sets."""
        ...

    def refresh_credential(self) -> str:
        """Re-read base URL and credential past every cache; returns the parameter's version. Raises
        `StorageUnavailable`.
        """
        ...


class Providers(Protocol):
    """The integrations by id."""

    def __getitem__(self, integration: str) -> Provider:
        """Raises KeyError for an integration without an adapter."""
        ...


class Classifier(Protocol):
    """The LLM."""

    async def classify(self, text: str, labels: Mapping[str, str], deadline_ms: int) -> Classification:
        """Label the text with one of `labels` (name to description). Raises `ClassifierUnavailable`, never anything
        else.
        """
        ...


# ------------------------------------------------------------------------------------------- for people who ask, by eye

_Entry = TypeVar("_Entry")


@dataclass(frozen=True, slots=True)
class Page(Generic[_Entry]):
    """A part of a list. `further` continues it; empty at its end.

    `unreadable` entries belong here too and could not be read back: they are counted, and never hidden by silence.
    """

    entries: tuple[_Entry, ...] = ()
    further: str = ""
    unreadable: int = 0


class EventIndex(Protocol):
    """The ledger and its rows, by what people have in their hands. The index may lag behind a claim by moments."""

    def find(self, handle: Handle, key: str, limit: int, after: str = "") -> Page[str]:
        """Ledger keys of the events that have that key, the last received first. A ticket goes by its `ticket_key`.
        Raises `BadCursor` for an `after` that is no `further` of such a list, or `StorageUnavailable`.
        """
        ...

    def items(self, keys: Sequence[str]) -> Mapping[str, LedgerItem | None]:
        """Those that are there, read consistently; None for one that cannot be read back. Raises
        `StorageUnavailable`.
        """
        ...

    def rows(self, recovery_ids: Sequence[str]) -> Mapping[str, Row | None]:
        """Rows, likewise."""
        ...


class AuditLog(Protocol):
    """The audit table, for reading."""

    def of_entity(
        self, entity: str, limit: int, after: str = "", *, until_ms: int | None = None, latest_first: bool = False
    ) -> Page[AuditEvent]:
        """What is recorded of one entity (`{kind}#{id}`), oldest first unless it is said otherwise, and up to a moment.
        Raises `BadCursor`, or `StorageUnavailable`.
        """
        ...

    def of_request(self, request_id: str, limit: int, after: str = "") -> Page[AuditEvent]:
        """What one request has done, oldest first; the index may lag by moments. Raises like `of_entity`."""
        ...


@dataclass(frozen=True, slots=True)
class DoorLine:
    """One request that the door accepted or refused. What its log line does not say is empty.

    `source` is in the sender's own words while `provider` is `none`: nobody had looked it up yet. `secret_number`
    counts from 1 the source's secrets, of which the first is the newest.
    """

    at_ms: int
    is_refused: bool
    source: str = ""
    provider: str = ""
    request_id: str = ""
    event_id: str = ""
    status: int = 0
    reason: str = ""
    why: str = ""
    headers_missing: tuple[str, ...] = ()
    header_malformed: tuple[str, ...] = ()
    secret_number: int = 0
    tenant: str = ""
    event_name: str = ""
    stored_in: str = ""

    @property
    def is_looked_up(self) -> bool:
        """Whether ingress knew the source when it wrote the line: then the id is one of ours."""
        return bool(self.source) and self.provider not in ("", NO_PROVIDER)


NO_PROVIDER: Final = "none"  # what ingress logs for a source that it has not found


@dataclass(frozen=True, slots=True)
class Rejections:
    """Refused requests, newest first, at most as many as were asked for; `counts` by reason are of all that were read.

    `since_ms` is how far back every line has been read; `is_complete`: that is the whole window.
    """

    newest: tuple[DoorLine, ...]
    counts: Mapping[str, int]
    since_ms: int
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Sighting:
    """The newest line of the door's log that was asked for; None: none since then. `since_ms` as in `Rejections`."""

    line: DoorLine | None
    since_ms: int
    is_complete: bool


class Door(Protocol):
    """What ingress has logged of its requests: it writes no table. Every reading is bounded, and says how far back it
    came. Raise `StorageUnavailable`.
    """

    def rejections(
        self, since_ms: int, now_ms: int, *, source: str = "", reason: str = "", request_id: str = "", limit: int = 50
    ) -> Rejections:
        """What was refused since then, narrowed by what is not empty."""
        ...

    def sighting(self, since_ms: int, now_ms: int, *, request_id: str = "", event_id: str = "") -> Sighting:
        """The newest request under that id, or that brought that event; one of the two is said."""
        ...

    def accepted(self, source: str, since_ms: int, now_ms: int) -> Sighting:
        """The newest delivery of that source that was accepted."""
        ...


class Expectations(Protocol):
    """How long sources may be silent."""

    def read(self) -> Entries:
        """Of every active source whose entry says so, and which entries cannot be read. Raises `StorageUnavailable`."""
        ...


class FoundSources(Protocol):
    """How the evaluator has found the sources, for whoever is paged."""

    def read(self) -> SourcesFound:
        """As they were found last, read consistently. Raises `StorageUnavailable`; `UnreadableItem` for what cannot be
        read back.
        """
        ...

    def store(self, found: SourcesFound, *, is_anew: bool = False) -> None:
        """Keep it in place of the version before. Meeting its own earlier success is success. `is_anew`: in place of
        whatever is there, because nobody can read it.

        Raises `VersionConflict` where another was stored meanwhile, or `StorageUnavailable`.
        """
        ...
