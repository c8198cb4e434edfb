"""What a message that a queue gave up, or would not take, is a sign of (architecture §7, Triage). Pure.

The four root causes are those of runbook 001, "DLQ and Replay Procedure", step 2. The root cause is a
proposal with its evidence beside it: a person may overrule it.

Ten receives are used up in forty minutes by a table that does not answer, so that a message is given up is no proof of
anything against it. What tells the two apart is how many of its receives came as far as a claim.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from functions.core.event import Event
from functions.core.failure import RootCause
from functions.core.ledger import Admission, Busy, Duplicate, LedgerItem, LedgerStatus, Mismatch, admit
from functions.core.ports import Hint
from functions.core.recovery import DEAD_HINT_LIMIT, PAYLOAD_MISMATCH, POISONED, Row, Status

UNREADABLE = "UNREADABLE_MESSAGE"
REFUSED_BY_QUEUE = "REFUSED_BY_QUEUE"
NEVER_CLAIMED = "NEVER_CLAIMED"
NEVER_SETTLED = "NEVER_SETTLED"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a queue says of a message it gave up. `sent_at_ms` is when it was first sent; 0 if that is not known.

    `receive_count` counts triage's own receives too, `work_receives` those of workers.
    """

    message_id: str
    queue: str
    receive_count: int
    sent_at_ms: int
    work_receives: int = 0


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


@dataclass(frozen=True, slots=True)
class Again:
    """Nothing is said against the row: it is woken again. `evidence` is for its history."""

    evidence: str


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

    Claimed again and again without an end is code that fails. Never claimed, or only seldom: something kept the workers
    from it, and whatever that was, they came back from it without an end of their own.
    """
    if any(isinstance(one, Mismatch) for one in admissions):
        evidence = f"another payload came under the same id; {_seen(delivery)}"
        return Finding(PAYLOAD_MISMATCH, evidence, RootCause.BAD_SOURCE_DATA, Status.FAILED)
    stuck = [item for item in items if item.status is LedgerStatus.PROCESSING]
    if stuck:
        claims = max(item.generation for item in stuck)
        if claims * 2 < delivery.work_receives:
            evidence = (
                f"claimed {claims} times in {delivery.work_receives} receives of workers and never settled: what they "
                f"need to claim it was out of reach most of the time; {_seen(delivery)}"
            )
            return Finding(NEVER_SETTLED, evidence, RootCause.TRANSIENT_INFRA)
        evidence = f"claimed {claims} times and never settled: its workers failed or died on it; {_seen(delivery)}"
        return Finding(NEVER_SETTLED, evidence, RootCause.CODE_DEFECT)
    return Finding(NEVER_CLAIMED, f"no worker ever claimed it; {_seen(delivery)}", RootCause.TRANSIENT_INFRA)


def judge_hint(row: Row, hint: Hint, delivery: Delivery, now_ms: int) -> Verdict | Again:
    """What a hint's message died of. A hint only wakes its row, so that its death is none of the row's: whoever claims
    it leaves a mark, and of workers that die with a claim three are enough (`WORKER_DIED`). It says something where
    hint after hint is given up, each sent after the one before had been, and nothing becomes of the row in between.
    """
    if not row.is_open:
        return Handled("ended")
    if row.lease_until_ms > now_ms:
        return TooEarly(row.lease_until_ms)
    if row.version != hint.version and row.updated_at_ms > delivery.sent_at_ms:
        return Handled("moved")
    if hint.version <= row.dead_hint_version:
        return Handled("counted")  # it was under way already: the same trouble
    count = row.dead_hints + 1
    evidence = f"{_counted(count)} led to nothing, this one at version {hint.version}; {_seen(delivery)}"
    if count < DEAD_HINT_LIMIT:
        return Again(evidence)
    return Finding(POISONED, evidence, RootCause.CODE_DEFECT)


def _counted(hints: int) -> str:
    return "a hint" if hints == 1 else f"{hints} hints in a row"


def _seen(delivery: Delivery) -> str:
    return f"received {delivery.receive_count} times, last in {delivery.queue}"
