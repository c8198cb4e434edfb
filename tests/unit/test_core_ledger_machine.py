"""An event under every order of deliveries, deaths, marks, releases and settlements, by workers who do not know of each
other: it keeps to its table, has one owner at a time, and one decision for good (002.19, 002.33).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from functions.core.decision import Repeat
from functions.core.event import Event
from functions.core.failure import Fenced
from functions.core.ledger import (
    ACTION,
    EVENT,
    ActionMark,
    ActionStatus,
    Afresh,
    Busy,
    Claim,
    Claimed,
    Duplicate,
    LedgerItem,
    LedgerStatus,
    Mismatch,
    admit,
    ledger_key,
)
from functions.core.machine import ABSENT
from functions.core.ports import Settlement
from tests.fakes import NOON_MS, FakeLedger, FakeTables
from tests.unit.builders import SECOND, action, decision
from tests.unit.test_core_ledger import WINDOW_SECONDS, event

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

LEASE_MS = 65 * SECOND
DECISION = decision(action(Repeat.IDEMPOTENT), action(Repeat.BLIND))
NAMES = tuple(one.name for one in DECISION.actions)


@dataclass(frozen=True)
class Worker:
    """What a worker remembers of its claim. It may be long dead to everybody else."""

    owner: str
    generation: int
    event: Event


class EventMachine(RuleBasedStateMachine):
    """One key of the ledger, with and without a repeat window."""

    workers = Bundle("workers")

    def __init__(self) -> None:
        super().__init__()
        self.tables = FakeTables()
        self.ledger = FakeLedger(self.tables)
        self.now_ms = NOON_MS
        self.claims = 0
        self.settled_by: dict[int, str] = {}  # epoch to owner
        self.before: LedgerItem | None = None

    @initialize(window=st.sampled_from([0, WINDOW_SECONDS]))
    def begin(self, window: int) -> None:
        self.event = event(repeat_window_seconds=window)
        self.key = ledger_key(self.event)

    @property
    def item(self) -> LedgerItem | None:
        return self.tables.ledger.get(self.key)

    def moved(self, happened: str, before: LedgerItem | None) -> None:
        """The table has a line for what has just been seen."""
        states = [ABSENT if one is None else one.status.value for one in (before, self.item)]
        assert EVENT.next(states[0], happened) == states[1]

    @rule(milliseconds=st.sampled_from([1, 1_000, LEASE_MS, WINDOW_SECONDS * 1_000 + 1]))
    def wait(self, milliseconds: int) -> None:
        self.now_ms += milliseconds

    @rule(target=workers, is_new=st.booleans(), is_other=st.integers(0, 9))
    def deliver(self, is_new: bool, is_other: int) -> object:
        """A delivery of the event, or of an equal one received now; one in ten has another payload."""
        got = replace(self.event, received_at_ms=self.now_ms) if is_new else self.event
        got = got if is_other else replace(got, payload_hash="other")
        before = self.item
        admission = admit(before, got, self.now_ms)
        self.claims += 1
        claim = Claim(
            key=self.key,
            owner=f"w{self.claims}",
            now_ms=self.now_ms,
            lease_until_ms=self.now_ms + LEASE_MS,
            received_at_ms=got.received_at_ms,
            epoch_ms=got.epoch_ms,
            payload_hash=got.payload_hash,
            decision=replace(DECISION, decided_at_ms=self.now_ms),
            seen_epoch_ms=admission.seen_epoch_ms if isinstance(admission, Afresh) else None,
        )
        answer = self.ledger.claim(claim)
        match admission:
            case Busy():
                happened = "claim, lease live"
            case Mismatch():
                happened = "claim, other payload"
            case Duplicate():
                happened = "claim"
            case Afresh():
                happened = "claim, window over"
            case _:
                happened = "claim" if before is None else "claim, lease ended"
        self.moved(happened, before)
        if not isinstance(answer, Claimed):
            assert self.item == before, "a refused claim changes nothing"
            return multiple()
        item = answer.item
        assert not isinstance(admission, Busy | Mismatch | Duplicate)
        if before is not None:
            assert item.generation == before.generation + 1
        if before is not None and not isinstance(admission, Afresh):
            assert item.decision == before.decision, "decided once"
            assert item.actions == before.actions, "what the last owner marked stays"
        return Worker(item.owner, item.generation, got)

    def holds(self, worker: Worker) -> bool:
        item = self.item
        assert item is not None
        is_held = (item.owner, item.generation) == (worker.owner, worker.generation)
        return is_held and item.status is LedgerStatus.PROCESSING

    def act(self, worker: Worker, happened: str, write: object) -> None:
        """A write under a claim: only its owner of that generation can make it, whatever the clock says."""
        before, may = self.item, self.holds(worker)
        try:
            write()  # type: ignore[operator]  # each rule gives a call
        except Fenced:
            assert not may
            assert self.item == before
        else:
            is_repeat = before is not None and before.status is LedgerStatus.SETTLED and self.item == before
            assert may or is_repeat
            if may:
                self.moved(happened, before)

    @rule(worker=workers, name=st.sampled_from(NAMES))
    def mark(self, worker: Worker, name: str) -> None:
        mark = ActionMark(ActionStatus.TRYING)
        self.act(worker, "mark", lambda: self.ledger.mark(self.key, worker.owner, worker.generation, name, mark))

    @rule(worker=workers)
    def release(self, worker: Worker) -> None:
        self.act(worker, "release", lambda: self.ledger.release(self.key, worker.owner, worker.generation))

    @rule(worker=workers, ends=st.sampled_from([ActionStatus.DONE, ActionStatus.RECOVERY]))
    def settle(self, worker: Worker, ends: ActionStatus) -> None:
        before = self.item
        assert before is not None
        marks = {name: ActionMark(ends) for name in before.actions}
        is_held = self.holds(worker)
        if is_held:
            for name, mark in before.actions.items():
                ACTION.require(mark.status.value, ends.value, name)
        settlement = Settlement(self.key, worker.owner, worker.generation, self.now_ms, marks)
        self.act(worker, "settle", lambda: self.ledger.settle(settlement))
        if is_held:
            assert before.epoch_ms not in self.settled_by, "an event is settled once"
            self.settled_by[before.epoch_ms] = worker.owner

    @invariant()
    def nothing_settled_comes_undone(self) -> None:
        before, after = self.before, self.item
        if before is not None and after is not None and before.status is LedgerStatus.SETTLED:
            assert after == before or after.epoch_ms != before.epoch_ms
        self.before = after


TestEventMachine = EventMachine.TestCase
TestEventMachine.settings = settings(max_examples=150, stateful_step_count=30)
