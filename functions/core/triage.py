"""What a message that a queue gave up, or would not take, is a sign of (architecture §7, Triage). Pure.

The four root causes are those of runbook 001, "DLQ and Replay Procedure", step 2. The root cause is a
proposal with its evidence beside it: a person may overrule it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from functions.core.event import Event
from functions.core.failure import RootCause
from functions.core.ledger import Admission, Busy, Duplicate, LedgerItem, LedgerStatus, Mismatch, admit
from functions.core.ports import Hint
from functions.core.recovery import PAYLOAD_MISMATCH, Row, Status

UNREADABLE = "UNREADABLE_MESSAGE"
REFUSED_BY_QUEUE = "REFUSED_BY_QUEUE"
NEVER_CLAIMED = "NEVER_CLAIMED"
NEVER_SETTLED = "NEVER_SETTLED"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a queue says of a message it gave up. `sent_at_ms` is when it was first sent; 0 if that is not known."""

    message_id: str
    queue: str
    receive_count: int
    sent_at_ms: int


@dataclass(frozen=True, slots=True)
class Finding:
    """What to record of a dead message: a stable code, the evidence in words, the proposed root cause, the status."""

    code: str
    evidence: str
    root_cause: RootCause
    status: Status = Status.DLQ


@dataclass(frozen=True, slots=True)
class Handled:
    """Nothing to record: it has been processed, or a row has it."""

    outcome: str


@dataclass(frozen=True, slots=True)
class TooEarly:
    """Somebody is at it at this moment: look again later."""

    until_ms: int


Verdict = Finding | Handled | TooEarly


def judge_unreadable(delivery: Delivery, problem: str) -> Finding:
    """A message that is neither an envelope nor a hint of this version."""
    return Finding(UNREADABLE, f"{problem}; {_seen(delivery)}", RootCause.SCHEMA_MISMATCH)


def judge_spilled_unreadable(key: str, problem: str) -> Finding:
    """An object of the spill that is no message of this version."""
    return Finding(UNREADABLE, f"{problem}; it was in the spill as {key}", RootCause.SCHEMA_MISMATCH)


def judge_refused(key: str, problem: str) -> Finding:
    """An event that the events queue will never take, so that no worker can be told of it by way of the queue."""
    evidence = f"the events queue does not take it: {problem}; it was in the spill as {key}"
    return Finding(REFUSED_BY_QUEUE, evidence, RootCause.BAD_SOURCE_DATA)


def judge_event(event: Event, items: Iterable[LedgerItem | None], delivery: Delivery, now_ms: int) -> Verdict:
    """What an event's message died of. `items` are its ledger items: the real one, and that of shadow mode.

    Where there is a real one, what shadow made of a copy says nothing: it only looked.
    """
    real, *others = items
    items = [*others, None] if real is None else [real]
    admissions = [admit(item, event, now_ms) for item in items]
    if any(isinstance(one, Duplicate) and not one.is_overtaken for one in admissions):
        return Handled("settled")
    busy = [one.until_ms for one in admissions if isinstance(one, Busy)]
    if busy:
        return TooEarly(max(busy))
    return propose_root_cause(admissions, [item for item in items if item is not None], delivery)


def propose_root_cause(admissions: Iterable[Admission], items: Iterable[LedgerItem], delivery: Delivery) -> Finding:
    """Nobody has settled the event and nobody is at it: what that suggests.

    Claimed again and again without an end is code that fails; never claimed: something kept every worker from it.
    """
    if any(isinstance(one, Mismatch) for one in admissions):
        evidence = f"another payload came under the same id; {_seen(delivery)}"
        return Finding(PAYLOAD_MISMATCH, evidence, RootCause.BAD_SOURCE_DATA, Status.FAILED)
    stuck = [item for item in items if item.status is LedgerStatus.PROCESSING]
    if stuck:
        claims = max(item.generation for item in stuck)
        evidence = f"claimed {claims} times and never settled: its workers failed or died on it; {_seen(delivery)}"
        return Finding(NEVER_SETTLED, evidence, RootCause.CODE_DEFECT)
    return Finding(NEVER_CLAIMED, f"no worker ever claimed it; {_seen(delivery)}", RootCause.TRANSIENT_INFRA)


def judge_hint(row: Row, hint: Hint, delivery: Delivery, now_ms: int) -> Verdict:
    """What a hint's message died of. A row that has moved on since has no need of it."""
    if not row.is_open:
        return Handled("ended")
    if row.lease_until_ms > now_ms:
        return TooEarly(row.lease_until_ms)
    if row.version != hint.version and row.updated_at_ms > delivery.sent_at_ms:
        return Handled("moved")
    evidence = f"a hint at version {hint.version} led to nothing, and the item is at {row.version}; {_seen(delivery)}"
    return Finding("POISONED", evidence, RootCause.CODE_DEFECT)


def _seen(delivery: Delivery) -> str:
    return f"received {delivery.receive_count} times, last in {delivery.queue}"
