"""The ledger's first pass: who may process an event, and what settling it means. Pure; `ports.Ledger` stores it.

absent ──claim──▶ processing ──settle──▶ settled
                    │    ▲                  │ (only a source without ids, after its repeat window)
                    └────┘ takeover         └──claim──▶ processing, next epoch
                    after the lease
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from functions.core.decision import Decision
from functions.core.event import Event, digest
from functions.core.machine import ABSENT, Machine, steps

RETENTION_SECONDS = 35 * 86_400
LEASE_MARGIN_MS = 5_000  # beyond the function's timeout


class LedgerStatus(StrEnum):
    """Of an event."""

    PROCESSING = "processing"
    SETTLED = "settled"


class ActionStatus(StrEnum):
    """Of an action, in its event's ledger item. `recovery`: a row has it from here on. `not_needed`: a stand-in nobody
    called for.
    """

    TODO = "todo"
    TRYING = "trying"
    DONE = "done"
    SUPPRESSED = "suppressed"
    SUPERSEDED = "superseded"
    RECOVERY = "recovery"
    NOT_NEEDED = "not_needed"


EVENT = Machine(
    "event",
    "An accepted event: its ledger item, one conditional write a step. What keeps an event from being claimed at all "
    "(a held source, mode `hold`, an unreadable body) becomes a row of `intake`, and the item is not touched.",
    steps(
        (ABSENT, "claim", "processing", "Owner, lease, decision, every action `todo`, generation 1"),
        (
            "processing",
            "claim, lease ended",
            "=",
            "A takeover: new owner and lease, generation + 1, decision as it was",
        ),
        ("processing", "claim, lease live", "=", "Refused: come back at the lease's end"),
        ("processing|settled", "claim, other payload", "=", "Refused: a row `PAYLOAD_MISMATCH` for a person"),
        ("processing", "mark", "=", "One action's mark, by owner and generation"),
        ("processing", "release", "=", "Untouched: the lease ends at once, by owner and generation"),
        ("processing", "settle", "settled", "Every mark, and a row per unfinished action, by owner and generation"),
        ("settled", "claim", "=", "Refused: a duplicate, acknowledged and counted"),
        (
            "settled",
            "claim, window over",
            "processing",
            "Only without ids: a new epoch, decided afresh, generation + 1",
        ),
    ),
)

ACTION = Machine(
    "action",
    "An action of a claimed event, as its ledger item marks it. Once that is settled, the action's row says more.",
    steps(
        (ABSENT, "claim", "todo", "With the decision"),
        ("todo", "mark", "trying", "A `blind` action is about to be sent: a takeover must know"),
        ("todo|trying", "act", "done", "The provider did it, or had done it"),
        ("todo", "act", "superseded", "Its target was set by somebody else since the decision"),
        ("todo|trying", "gate", "suppressed", "Final for the machine; its row waits for a person, its stand-in runs"),
        ("todo", "stand in", "not_needed", "What it stands in for was not suppressed, or the mode is shadow"),
        ("todo|trying", "act", "recovery", "Failed, parked, blocked or unclear: a row has it from here on"),
    ),
)


@dataclass(frozen=True, slots=True)
class ActionMark:
    """What the ledger says of one action. `hop` is the way it goes (`functions.core.fallback`): 0 as it was decided."""

    status: ActionStatus
    provider_id: str = ""
    hop: int = 0


@dataclass(frozen=True, slots=True)
class LedgerItem:
    """One event's item. `actions` is keyed by the action's name within its decision.

    `slots`: by integration, from when on its calls may be made without asking the limiter again; of a released event
    only, which a claim takes with it.

    The last three are for people who trace it, and decide nothing: under which request and name it came, and when it
    was last claimed or settled, to the second. What an item does not say is empty.
    """

    key: str
    status: LedgerStatus
    owner: str
    generation: int
    lease_until_ms: int
    received_at_ms: int
    epoch_ms: int
    payload_hash: str
    decision: Decision
    actions: Mapping[str, ActionMark] = field(default_factory=dict)
    slots: Mapping[str, int] = field(default_factory=dict)
    request_id: str = ""
    event_name: str = ""
    written_at_ms: int = 0


class Handle(StrEnum):
    """What people have in their hands when they ask what happened. The ledger finds events by each."""

    TICKET = "ticket"
    RECIPIENT = "recipient"
    REQUEST = "request_id"


def ticket_key(ticket: str) -> str:
    """What the ledger finds a ticket's events by: 96 bits of its SHA-256 in base64, so that it says nothing of a target
    that is somebody's number or address.
    """
    return base64.urlsafe_b64encode(bytes.fromhex(digest("ticket", ticket))[:12]).decode() if ticket else ""


def key_parts(key: str) -> tuple[str, str, bool]:
    """Tenant, event id and whether it is shadow's, of a `ledger_key`."""
    kind, _, rest = key.partition("#")
    tenant, _, event_id = rest.partition("#")
    return tenant, event_id, kind == "S"


def ledger_key(event: Event, *, is_shadow: bool = False) -> str:
    """`E#{tenant}#{event_id}`; in shadow mode `S#…`, so that shadow never claims a real event."""
    return f"{'S' if is_shadow else 'E'}#{event.tenant}#{event.event_id}"


@dataclass(frozen=True, slots=True)
class Fresh:
    """Nobody has it: decide and claim."""


@dataclass(frozen=True, slots=True)
class Afresh:
    """It was settled, and its repeat window is over: decide and claim, if it is still at `seen_epoch_ms`."""

    seen_epoch_ms: int


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Its owner's lease ended: claim, and go on with the stored decision. What the owner did is unknown."""

    item: LedgerItem


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody works on it: come back when the lease has ended."""

    until_ms: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    """It is settled. `in_window`: only by its repeat window, which is counted apart.

    `is_overtaken`: what was settled is an equal event beyond the window after this one, so that nothing says any more
    whether this one was done before it.
    """

    in_window: bool
    is_overtaken: bool = False


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The same id with another payload: for a person."""


Admission = Fresh | Afresh | TakeOver | Busy | Duplicate | Mismatch


def admit(item: LedgerItem | None, event: Event, now_ms: int) -> Admission:
    """What to do with an event, by what its ledger item says."""
    if item is None:
        return Fresh()
    if item.payload_hash != event.payload_hash:
        return Mismatch()
    if item.status is LedgerStatus.PROCESSING:
        return Busy(item.lease_until_ms) if item.lease_until_ms > now_ms else TakeOver(item)
    if is_past_window(item.epoch_ms, event):
        return Afresh(item.epoch_ms)
    return Duplicate(in_window=event.repeat_window_seconds > 0, is_overtaken=is_overtaken(item, event))


def is_past_window(epoch_ms: int, event: Event) -> bool:
    """Whether the event is a new one that only looks like that of this epoch (a customer may say "thanks" twice)."""
    window_ms = event.repeat_window_seconds * 1000
    return window_ms > 0 and epoch_ms < event.received_at_ms - window_ms


def is_overtaken(item: LedgerItem, event: Event) -> bool:
    """Whether the item is of a new event that only looks like this one, and came first: queues keep no order."""
    window_ms = event.repeat_window_seconds * 1000
    return window_ms > 0 and item.epoch_ms > event.received_at_ms + window_ms


@dataclass(frozen=True, slots=True)
class Claim:
    """The conditional write that makes one caller the event's owner and stores the decision.

    `seen_epoch_ms` is set for a claim after the repeat window: it replaces the decision instead of keeping the first
    one. `request_id`, `event_name`, `ticket` (the conversation it is about) and `recipient` (the pseudonym of whoever
    wrote it, or is written to) are what people find it by later.
    """

    key: str
    owner: str
    now_ms: int
    lease_until_ms: int
    received_at_ms: int
    epoch_ms: int
    payload_hash: str
    decision: Decision
    seen_epoch_ms: int | None = None
    request_id: str = ""
    event_name: str = ""
    ticket: str = ""
    recipient: str = ""

    @property
    def handles(self) -> dict[Handle, str]:
        """The keys it is found by; where nothing was said, what its actions say. Without those there are none for."""
        actions = self.decision.actions
        found = {
            Handle.TICKET: ticket_key(self.ticket or next((one.target for one in actions if one.target), "")),
            Handle.RECIPIENT: self.recipient or next((one.recipient for one in actions if one.recipient), ""),
            Handle.REQUEST: self.request_id,
        }
        return {handle: key for handle, key in found.items() if key}

    @property
    def expires_at_s(self) -> int:
        """When the item may be deleted, in epoch seconds."""
        return self.now_ms // 1000 + RETENTION_SECONDS

    @property
    def marks(self) -> dict[str, ActionMark]:
        """Every action as `todo`."""
        return {action.name: ActionMark(ActionStatus.TODO) for action in self.decision.actions}


@dataclass(frozen=True, slots=True)
class Claimed:
    """The claim was granted: this is the item now, with the decision that counts."""

    item: LedgerItem


@dataclass(frozen=True, slots=True)
class Refused:
    """The claim was refused: this is the item that stood in the way."""

    item: LedgerItem


def decided(item: LedgerItem, event: Event) -> Decision:
    """The item's decision with the action ids it has for the event."""
    return item.decision.bound(event.tenant, event.event_id, item.epoch_ms)
