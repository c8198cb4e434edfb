"""Double and table agree: any sequence of operations has the same answers and leaves the same state in both."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from functions.core.failure import Done, Fenced, VersionConflict
from functions.core.gate import WaitingFor
from functions.core.ledger import ActionMark, ActionStatus
from functions.core.recovery import Change, Row, Status, defer, end, hinted, may_claim, succeeded
from functions.core.recovery import claim as claim_row
from tests.contract.storage import LEASE_MS, World, claim, in_dynamodb, in_memory, parked, settlement
from tests.fakes import NOON_MS

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

KEYS = ["E#acme#desk:1", "E#acme#desk:2"]
OWNERS = ["one", "two", "three"]
ACTIONS = ["tag", "assign", "reply"]
EVENTS = ["desk:1", "desk:2"]

keys = st.sampled_from(KEYS)
owners = st.sampled_from(OWNERS)
actions = st.sampled_from(ACTIONS)
generations = st.integers(1, 4)
statuses = st.sampled_from(list(ActionStatus))
changes = st.lists(
    st.builds(
        lambda name, event_id, due: parked(name, NOON_MS + due, event_id=event_id),
        actions,
        st.sampled_from(EVENTS),
        st.integers(1, 100_000),
    ),
    max_size=4,
    unique_by=lambda change: change.after.recovery_id,
)


def put_row(change: Change, world: World) -> bool:
    return world.recovery.put_if_absent(change)


def row_of(recovery_id: str, world: World) -> Row | None:
    return world.recovery.get(recovery_id)


class Agreement(RuleBasedStateMachine):
    """Each rule does the same in both worlds and compares what came of it."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.now_ms = NOON_MS
        self.seen: dict[str, Row] = {}

    @initialize()
    def begin(self) -> None:
        self.memory: World = self.stack.enter_context(in_memory())
        self.dynamo: World = self.stack.enter_context(in_dynamodb())

    def teardown(self) -> None:
        """The tables are the same in the end."""
        with self.stack:
            self.both(lambda world: world.ledger.read(KEYS, ["helpdesk", "sms"]))
            self.both(lambda world: world.audit_ids())
            for recovery_id in self.seen:
                self.both(partial(row_of, recovery_id))

    def both(self, call: Callable[[World], Any]) -> Any:
        answers = []
        for world in (self.memory, self.dynamo):
            try:
                answers.append(call(world))
            except (Fenced, VersionConflict) as exc:
                answers.append(type(exc))
        assert answers[0] == answers[1]
        return answers[0]

    @rule(milliseconds=st.sampled_from([1, 1_000, LEASE_MS]))
    def wait(self, milliseconds: int) -> None:
        self.now_ms += milliseconds

    @rule(
        key=keys,
        owner=owners,
        label=st.sampled_from(["billing", "sales"]),
        payload=st.sampled_from(["p", "p", "p", "q"]),
        seen_epoch_ms=st.none() | st.just(0) | st.just(NOON_MS),
    )
    def claim(self, key: str, owner: str, label: str, payload: str, seen_epoch_ms: int | None) -> None:
        wanted = claim(
            owner,
            self.now_ms,
            key=key,
            label=label,
            payload_hash=payload,
            received_at_ms=self.now_ms,
            epoch_ms=0 if seen_epoch_ms is None else NOON_MS,
            seen_epoch_ms=seen_epoch_ms,
        )
        self.both(lambda world: world.ledger.claim(wanted))

    @rule(
        key=keys, data=st.data(), owner=owners, generation=generations, name=st.sampled_from(ACTIONS), status=statuses
    )
    def mark(self, key: str, data: st.DataObject, owner: str, generation: int, name: str, status: ActionStatus) -> None:
        owner, generation = self.holder(key, data, owner, generation)
        self.both(lambda world: world.ledger.mark(key, owner, generation, name, ActionMark(status)))

    @rule(key=keys, data=st.data(), owner=owners, generation=generations, slots=st.sampled_from([{}, {"helpdesk": 9}]))
    def release(self, key: str, data: st.DataObject, owner: str, generation: int, slots: dict[str, int]) -> None:
        owner, generation = self.holder(key, data, owner, generation)
        self.both(lambda world: world.ledger.release(key, owner, generation, slots=slots))

    @rule(key=keys, data=st.data(), owner=owners, generation=generations, rows=changes)
    def settle(self, key: str, data: st.DataObject, owner: str, generation: int, rows: list[Change]) -> None:
        owner, generation = self.holder(key, data, owner, generation)
        wanted = replace(settlement(owner, generation, key=key, changes=rows), now_ms=self.now_ms)
        self.both(lambda world: world.ledger.settle(wanted))
        self.look_at(rows)

    def holder(self, key: str, data: st.DataObject, owner: str, generation: int) -> tuple[str, int]:
        """Mostly who really holds it, or nearly every call would be fenced."""
        item = self.memory.item(key)
        if item is None or data.draw(st.integers(0, 3)) == 0:
            return owner, generation
        return item.owner, item.generation

    @rule(rows=changes)
    def put(self, rows: list[Change]) -> None:
        for change in rows:
            self.both(partial(put_row, change))
        self.look_at(rows)

    @rule(rows=changes)
    def put_together(self, rows: list[Change]) -> None:
        self.both(lambda world: world.recovery.commit(rows))
        self.look_at(rows)

    def look_at(self, rows: list[Change]) -> None:
        """Remember some versions; later rules may act on them when they are long out of date."""
        for change in rows:
            found = self.memory.recovery.get(change.after.recovery_id)
            if found is not None:
                self.seen.setdefault(found.recovery_id, found)

    @precondition(lambda self: bool(self.seen))
    @rule(data=st.data(), several=st.booleans(), twice=st.booleans(), stale=st.booleans())
    def move(self, data: st.DataObject, several: bool, twice: bool, stale: bool) -> None:
        ids = sorted(self.seen)
        chosen = data.draw(st.lists(st.sampled_from(ids), min_size=1, max_size=3 if several else 1, unique=True))
        moves = []
        for recovery_id in chosen:
            row = self.seen[recovery_id]
            if not stale:
                fresh = self.memory.recovery.get(recovery_id)
                assert fresh is not None
                row = fresh
            moves.append(data.draw(st.sampled_from(self.steps(row))))
        for _ in range(2 if twice else 1):
            self.both(lambda world: world.recovery.commit(moves))
        for recovery_id in chosen:
            found = self.memory.recovery.get(recovery_id)
            assert found is not None
            self.seen[recovery_id] = found

    def steps(self, row: Row) -> list[Change]:
        """Every transition that the row has now."""
        steps = [Change(replace(row, version=row.version + 1, incident_id="inc-1"), row)]
        if row.is_open:
            steps.append(hinted(row, self.now_ms, 1.0))
        if not row.is_final:
            steps.append(end(row, "DISMISSED", "not wanted", self.now_ms))
        if may_claim(row, self.now_ms):
            steps.append(claim_row(row, self.now_ms, self.now_ms + LEASE_MS, "req-2"))
        if row.is_open and row.lease_until_ms:
            steps.append(succeeded(row, Done("p-1"), self.now_ms))
            steps.append(defer(row, WaitingFor.SWITCH, "hold", self.now_ms + 5_000, self.now_ms, uncount=True))
        return steps

    @rule(until=st.integers(-1, 200_000), limit=st.integers(1, 8))
    def due(self, until: int, limit: int) -> None:
        self.both(lambda world: world.recovery.due("helpdesk", NOON_MS + until, limit))

    @rule(wanted=st.lists(st.sampled_from(list(Status)), max_size=2), limit=st.integers(1, 8))
    def find(self, wanted: list[Status], limit: int) -> None:
        self.both(lambda world: world.recovery.find("helpdesk", wanted, limit))

    @rule(until=st.integers(0, 5))
    def pause(self, until: int) -> None:
        self.both(lambda world: world.ledger.pause("helpdesk", NOON_MS + until, NOON_MS + 2 * until))

    @rule(cost=st.integers(1, 900), ahead=st.integers(-500, 2_000), seen=st.sampled_from([0, NOON_MS, NOON_MS + 10**6]))
    def take(self, cost: int, ahead: int, seen: int) -> None:
        until_ms = self.now_ms + ahead
        self.both(lambda world: world.ledger.take("helpdesk", cost, self.now_ms, until_ms, seen))


TestAgreement = Agreement.TestCase
TestAgreement.settings = settings(max_examples=12, stateful_step_count=25)
