"""Doubles and tables agree: any sequence of operations has the same answers and leaves the same state in both.

Every operation of every port that has an adapter to DynamoDB is among them, and met its different answers: the test
that plays the machines also looks at what was asked.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from functions import adapters
from functions.core import ports
from functions.core.audit import AuditEvent, AuditType, Severity
from functions.core.cap import WINDOW_MS, Counted
from functions.core.failure import VersionConflict
from functions.core.gate import Health
from functions.core.health import (
    CallOutcome,
    Counts,
    HealthChange,
    Record,
    Thresholds,
    counted,
    evaluate,
    force,
    lift,
    probed,
)
from functions.core.incident import Findings, IncidentChange, noted, rang
from functions.core.ledger import ActionMark, ActionStatus, Claim
from functions.core.limiter import ASTRAY_FOR_MS
from functions.core.person import Known, Note, PersonChange
from functions.core.ports import AuditedSwitch
from functions.core.recipient import Person
from functions.core.recovery import Change, Row, Status
from functions.core.subjects import SourcesFound
from tests.contract.agreement import ASKED, PORTS, Agreement, Lossy, drawn, steps_of
from tests.contract.operator_plays import BulkReplays, Lookups, Operators, RulesAndPromises
from tests.contract.storage import LEASE_MS, World, claim, parked, settlement
from tests.fakes import NOON_MS
from tests.incidents import ADA, DOWN, RULES, STORM

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


def walked(status: Status, world: World) -> list[Row]:
    return sorted(world.recovery.walk("helpdesk", status), key=lambda row: row.recovery_id)


def claim_of(wanted: Claim, world: World) -> object:
    return world.ledger.claim(wanted)


def mark_of(key: str, owner: str, generation: int, world: World) -> None:
    world.ledger.mark(key, owner, generation, "tag", ActionMark(ActionStatus.TRYING))


def settle_of(wanted: ports.Settlement, world: World) -> None:
    world.ledger.settle(wanted)


class EventsAndRows(Lossy):
    """Ledger, recovery and audit."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Row] = {}

    def compare(self) -> None:
        self.both(lambda world: world.ledger.read([*KEYS, *KEYS], ["helpdesk", "sms", "helpdesk"]))
        for recovery_id in self.seen:
            self.both(partial(row_of, recovery_id))

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

    @rule(
        key=keys,
        data=st.data(),
        owner=owners,
        generation=generations,
        ended_ms=st.sampled_from([0, 0, NOON_MS + 1_500]),
        slots=st.sampled_from([None, {}, {"helpdesk": 9}]),
    )
    def release(
        self,
        key: str,
        data: st.DataObject,
        owner: str,
        generation: int,
        ended_ms: int,
        slots: dict[str, int] | None,
    ) -> None:
        owner, generation = self.holder(key, data, owner, generation)
        self.both(lambda world: world.ledger.release(key, owner, generation, ended_ms, slots))

    @rule(
        key=keys,
        data=st.data(),
        owner=owners,
        generation=generations,
        rows=changes,
        number=st.none() | st.integers(1, 3),
    )
    def settle(
        self, key: str, data: st.DataObject, owner: str, generation: int, rows: list[Change], number: int | None
    ) -> None:
        owner, generation = self.holder(key, data, owner, generation)
        told = () if number is None else (event(number),)
        wanted = replace(settlement(owner, generation, key=key, changes=rows), now_ms=self.now_ms, audit=told)
        self.both(lambda world: world.ledger.settle(wanted))
        self.look_at(rows)

    @rule(key=keys, rows=changes, first=owners, second=owners)
    def a_whole_life(self, key: str, rows: list[Change], first: str, second: str) -> None:
        """From claim to settlement, with somebody beside it who does not own it."""
        self.now_ms += LEASE_MS
        for owner in (first, second):
            self.both(partial(claim_of, claim(owner, self.now_ms, key=key, received_at_ms=self.now_ms)))
        item = self.memory.item(key)
        assert item is not None
        for owner in (second, first, item.owner):
            self.both(partial(mark_of, key, owner, item.generation))
        for owner in (second, first, item.owner):
            wanted = settlement(owner, item.generation, key=key, changes=rows)
            self.both(partial(settle_of, replace(wanted, now_ms=self.now_ms)))
        self.look_at(rows)

    @rule(
        key=keys,
        first=owners,
        second=owners,
        ended_ms=st.sampled_from([0, NOON_MS + 1_500]),
        slots=st.sampled_from([None, {}, {"helpdesk": 9}]),
    )
    def a_claim_is_given_up(
        self, key: str, first: str, second: str, ended_ms: int, slots: dict[str, int] | None
    ) -> None:
        """And taken by somebody else, or the same again, with the slots that were kept for it."""
        self.now_ms += LEASE_MS
        self.ask("ledger.claim", claim(first, self.now_ms, key=key, received_at_ms=self.now_ms))
        item = self.memory.item(key)
        assert item is not None
        self.ask("ledger.release", key, item.owner, item.generation, ended_ms, slots)
        self.ask("ledger.read", [key], [])
        self.ask("ledger.claim", claim(second, self.now_ms, key=key, received_at_ms=self.now_ms))

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
            moves.append(drawn(data, steps_of(row, self.now_ms)))
        for _ in range(2 if twice else 1):
            self.both(lambda world: world.recovery.commit(moves))
        for recovery_id in chosen:
            found = self.memory.recovery.get(recovery_id)
            assert found is not None
            self.seen[recovery_id] = found

    @rule(until=st.integers(-1, 200_000), limit=st.integers(1, 8))
    def due(self, until: int, limit: int) -> None:
        self.both(lambda world: world.recovery.due("helpdesk", NOON_MS + until, limit))

    @rule(wanted=st.lists(st.sampled_from(list(Status)), max_size=2), limit=st.integers(1, 8))
    def find(self, wanted: list[Status], limit: int) -> None:
        self.both(lambda world: world.recovery.find("helpdesk", wanted, limit))

    @rule(status=st.sampled_from(list(Status)))
    def walk(self, status: Status) -> None:
        self.both(partial(walked, status))

    @rule(data=st.data())
    def several_at_once(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from([*sorted(self.seen), "nobody"]), max_size=4, unique=True))
        self.both(lambda world: world.recovery.several(ids))
        self.both(lambda world: world.recovery.versions(ids))

    @rule(numbers=st.lists(st.integers(1, 4), max_size=3), reason=st.sampled_from(["why", "why not"]))
    def append(self, numbers: list[int], reason: str) -> None:
        """The same id again, whatever it says then, is written once."""
        self.both(lambda world: world.audit.append([event(number, reason) for number in numbers]))

    @rule(until=st.integers(0, 5))
    def pause(self, until: int) -> None:
        self.both(lambda world: world.ledger.pause("helpdesk", NOON_MS + until, NOON_MS + 2 * until))

    def whole_story(self) -> None:
        (first, second) = KEYS
        rows = [parked(name) for name in ACTIONS]
        self.a_whole_life(first, rows[:1], "one", "two")
        self.ask("ledger.claim", claim("one", self.now_ms, key=second))
        for owner in ("two", "one"):
            self.ask("ledger.release", second, owner, 1)
        self.ask("ledger.read", KEYS, ["helpdesk"])
        for _ in range(2):
            self.ask("recovery.put_if_absent", rows[1])
        self.ask("recovery.commit", rows[2:])
        assert self.ask("recovery.commit", [parked("tag", NOON_MS + 1)]) is VersionConflict
        ids = [change.after.recovery_id for change in rows]
        for recovery_id in ids:
            self.ask("recovery.get", recovery_id)
        self.ask("recovery.several", ids)
        self.ask("recovery.versions", ids)
        self.ask("recovery.due", "helpdesk", NOON_MS + 100_000, 2)
        self.ask("recovery.find", "helpdesk", list(Status), 2)
        self.both(partial(walked, Status.PENDING))
        self.ask("audit.append", [event(1)])


INTEGRATIONS = ["helpdesk", "sms"]
MINUTE = NOON_MS // 60_000
TENANTS = ["acme", "globex", "initech"]

integrations = st.sampled_from(INTEGRATIONS)
minutes = st.integers(MINUTE, MINUTE + 2)
one_call = st.builds(counted, st.sampled_from(CallOutcome), st.sampled_from(TENANTS))
counts = st.lists(one_call, max_size=4).map(lambda calls: sum(calls, Counts()))
around_now = st.integers(-2, 2).map(lambda far: NOON_MS + far * 1_000)
records = st.builds(
    Record,
    health=st.sampled_from([Health.HARD_DOWN, *Health]),
    since_ms=st.sampled_from([0, NOON_MS]),
    reason=st.sampled_from(["", "collapsed: 0 of 9", "„kaputt“ \U0001f600"]),
    minute=minutes,
    bad=st.integers(0, 2),
    good=st.integers(0, 2),
    collapsed=st.integers(0, 2),
    refused=st.integers(0, 2),
    silent=st.integers(0, 2),
    window=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=2).map(tuple),
    recent=st.sampled_from(["", "0110"]),
    probe_at_ms=around_now,
    probe_by=st.sampled_from(["", "p1"]),
    probe_ok=st.integers(0, 2),
    reopened=st.integers(0, 2),
    ramp_from_ms=st.sampled_from([0, NOON_MS]),
)


class Limits(Agreement):
    """The control items of integrations: limiter, pauses, health and its counts."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Record] = dict.fromkeys(INTEGRATIONS, Record())

    def compare(self) -> None:
        self.both(lambda world: world.ledger.read([], INTEGRATIONS))
        self.both(lambda world: world.records.read(INTEGRATIONS))
        for integration in INTEGRATIONS:
            self.both(partial(counts_of, integration))

    @rule(integration=integrations, until=around_now, tat=st.sampled_from([0, NOON_MS, NOON_MS + 5_000]))
    def pause(self, integration: str, until: int, tat: int) -> None:
        self.both(lambda world: world.ledger.pause(integration, until, tat))

    @rule(
        integration=integrations,
        cost=st.integers(1, 900),
        ahead=st.integers(-500, 2_000),
        seen=st.sampled_from([0, NOON_MS, NOON_MS + 10**6]),
    )
    def take(self, integration: str, cost: int, ahead: int, seen: int) -> None:
        """By whatever was read of the number, and with a bound that may be over already."""
        self.both(lambda world: world.ledger.take(integration, cost, self.now_ms, self.now_ms + ahead, seen))

    @rule(
        integration=integrations,
        seen=st.sampled_from([None, 0, NOON_MS + 5_000]),
        to=around_now,
        paused=st.one_of(st.none(), around_now),
        later=st.sampled_from([0, ASTRAY_FOR_MS - 1, ASTRAY_FOR_MS, -ASTRAY_FOR_MS]),
    )
    def put_right(self, integration: str, seen: int | None, to: int, paused: int | None, later: int) -> None:
        """By what is so now (None), or by what was read some time ago."""
        state = self.memory.ledger.read([], [integration]).integrations[integration]
        seen_tat_ms = state.tat_ms if seen is None else seen
        seen_pause_ms = state.paused_until_ms if paused is None else paused
        self.ask("ledger.put_right", integration, seen_tat_ms, to, self.now_ms + later, seen_pause_ms)

    @rule()
    def integrations_are_read(self) -> None:
        self.both(lambda world: world.ledger.read([], [*INTEGRATIONS, *INTEGRATIONS]))

    @rule(minute=minutes, several=st.dictionaries(integrations, counts, max_size=2))
    def calls_are_counted(self, minute: int, several: dict[str, Counts]) -> None:
        self.both(lambda world: world.counts.add(minute, several, self.now_ms))

    @rule(integration=integrations, wanted=st.lists(st.integers(MINUTE - 1, MINUTE + 3), max_size=4))
    def counts_are_read(self, integration: str, wanted: list[int]) -> None:
        self.both(lambda world: world.counts.read(integration, wanted))

    @rule(wanted=st.lists(integrations, max_size=3))
    def records_are_read(self, wanted: list[str]) -> None:
        """What is remembered of them may be out of date when it is acted on."""
        self.seen |= self.both(lambda world: world.records.read(wanted))

    @rule(integration=integrations, after=records, is_stale=st.sampled_from([False, False, True]))
    def a_record_is_stored(self, integration: str, after: Record, is_stale: bool) -> None:
        before = self.record(integration, is_stale)
        self.store(integration, HealthChange(replace(after, version=before.version + 1), before.version))

    @rule(integration=integrations, data=st.data(), is_stale=st.sampled_from([False, False, True]), twice=st.booleans())
    def health_moves(self, integration: str, data: st.DataObject, is_stale: bool, twice: bool) -> None:
        change = drawn(data, self.moves(integration, self.record(integration, is_stale)))
        for _ in range(2 if twice else 1):
            self.store(integration, change)

    def record(self, integration: str, is_stale: bool) -> Record:
        return self.seen[integration] if is_stale else self.memory.records.read([integration])[integration]

    def store(self, integration: str, change: HealthChange) -> None:
        self.both(lambda world: world.records.store(integration, change))

    def moves(self, integration: str, record: Record) -> list[HealthChange]:
        """Every move of the machine that is open to the record now."""
        name, now_ms = integration, self.now_ms
        moves = [
            force(name, record, health, now_ms + 1_500, actor="anna", reason="drill", now_ms=now_ms)
            for health in Health
        ]
        if record.override is not None:
            moves.append(lift(name, record, now_ms, actor="anna", reason="over"))
        later = [
            probed(name, record, record.probe_by, CallOutcome.OK, now_ms, 1.0),
            probed(name, record, record.probe_by, CallOutcome.ERROR, now_ms, 1.0),
            evaluate(name, record, [(record.minute + 1, Counts(error=30))], Thresholds(), now_ms, 1.0),
        ]
        return moves + [move for move in later if move is not None]

    @rule(integration=integrations, name=st.sampled_from(["p1", "p2"]), lease=st.sampled_from([1_000, 2_000]))
    def a_probe_is_taken(self, integration: str, name: str, lease: int) -> None:
        self.both(lambda world: world.records.take_probe(integration, name, self.now_ms, self.now_ms + lease))

    @rule(
        integration=integrations,
        after=records,
        wait=st.sampled_from([-1, 0, 1_000]),
        name=st.sampled_from(["p1", "p3"]),
    )
    def it_goes_down_and_is_probed(self, integration: str, after: Record, wait: int, name: str) -> None:
        """By one, who asks twice, and by another, who may come when the lease is over."""
        seen = self.record(integration, is_stale=False).version
        down = replace(after, health=Health.HARD_DOWN, probe_at_ms=self.now_ms, version=seen + 1)
        self.store(integration, HealthChange(down, seen))
        self.a_probe_is_taken(integration, "p1", 1_000)
        self.a_probe_is_taken(integration, "p1", 1_000)
        self.now_ms += 1_000 + wait
        self.a_probe_is_taken(integration, name, 1_000)

    def whole_story(self) -> None:
        self.integrations_are_read()
        self.pause("helpdesk", NOON_MS, 0)
        for ahead in (1_000, 0):
            self.take("sms", 900, ahead, 0)
        self.put_right("sms", None, NOON_MS, None, 0)
        self.calls_are_counted(MINUTE, {"sms": Counts(ok=1)})
        self.counts_are_read("sms", [MINUTE])
        self.records_are_read(["sms"])
        for _ in range(2):
            self.store("sms", HealthChange(Record(version=1), 0))
        self.it_goes_down_and_is_probed("sms", Record(), 0, "p3")
        self.a_probe_is_taken("helpdesk", "p1", 1_000)


def counts_of(integration: str, world: World) -> Mapping[int, Counts]:
    return world.counts.read(integration, range(MINUTE - 1, MINUTE + 4))


class MarksAndCaps(Agreement):
    """The control items that no integration has: marks of the switches, caps, how the sources were found."""

    def __init__(self) -> None:
        super().__init__()
        self.granted: list[tuple[str, str, int]] = []

    def compare(self) -> None:
        self.both(lambda world: world.marks.read())
        self.both(lambda world: world.sources.read())
        for conversation in ("c1", "c2"):
            for most in (1, 2, 3):
                self.both(partial(count_of, conversation, self.now_ms, most))

    @rule(
        conversation=st.sampled_from(["c1", "c2"]),
        name=st.sampled_from(["a1", "a2", "a3", "a4"]),
        most=st.integers(1, 3),
        far=st.sampled_from([0, 0, -1_000, 1, WINDOW_MS]),
    )
    def count(self, conversation: str, name: str, most: int, far: int) -> None:
        """By clocks that do not agree; the same send in the same moment too."""
        at_ms = self.now_ms + far
        answer = self.both(lambda world: world.caps.count(conversation, name, at_ms, most))
        if isinstance(answer, Counted):
            self.granted.append((conversation, name, answer.at_ms))

    @precondition(lambda self: bool(self.granted))
    @rule(data=st.data(), far=st.sampled_from([0, 0, 1]))
    def uncount(self, data: st.DataObject, far: int) -> None:
        conversation, name, at_ms = data.draw(st.sampled_from(self.granted))
        self.both(lambda world: world.caps.uncount(conversation, name, at_ms + far))

    @rule(
        seen=st.integers(0, 3),
        switches=st.dictionaries(
            st.sampled_from(["mode", "flow/support/mode"]),
            st.builds(
                AuditedSwitch,
                st.integers(1, 3),
                st.sampled_from(["live", ""]),
                around_now,
                st.sampled_from([0, NOON_MS]),
            ),
        ),
    )
    def marks_are_stored(self, seen: int, switches: dict[str, AuditedSwitch]) -> None:
        self.both(lambda world: world.marks.store(seen, switches))

    @rule(
        silent=st.dictionaries(st.sampled_from(["shop", "desk"]), around_now, max_size=2),
        version=st.integers(1, 4),
        is_anew=st.booleans(),
    )
    def sources_are_stored(self, silent: dict[str, int], version: int, *, is_anew: bool) -> None:
        found = SourcesFound(silent=silent, version=version)
        self.both(lambda world: world.sources.store(found, is_anew=is_anew))

    @rule(silent=st.dictionaries(st.sampled_from(["shop", "desk"]), around_now, max_size=2))
    def sources_are_read_and_stored(self, silent: dict[str, int]) -> None:
        found = self.both(lambda world: world.sources.read())
        moved = found.moved(silent, {})
        if moved is not found:  # what is no news is not stored
            self.both(lambda world: world.sources.store(moved))

    @rule(is_fresh=st.booleans())
    def marks_are_read_and_stored(self, is_fresh: bool) -> None:
        found = self.both(lambda world: world.marks.read())
        if is_fresh:
            self.both(lambda world: world.marks.store(found.revision, {}))

    def whole_story(self) -> None:
        for name in ("a1", "a2"):
            self.count("c1", name, 1, 0)
        self.ask("caps.uncount", *self.granted[0])
        self.ask("marks.read")
        for _ in range(2):
            self.marks_are_stored(0, {})
        self.sources_are_read_and_stored({"shop": NOON_MS})
        self.sources_are_stored({}, 4, is_anew=False)  # another version is there
        self.sources_are_stored({}, 3, is_anew=True)


def count_of(conversation: str, now_ms: int, most: int, world: World) -> object:
    return world.caps.count(conversation, f"last-{most}", now_ms, most)


CHANNELS = ["", "sms", "email"]
CONTACTS = ["+491701234567", "ann@example.com"]


class People(Lossy):
    """Recipients of two tenants."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[tuple[str, str], Person] = {}

    def compare(self) -> None:
        for tenant in ("acme", "globex"):
            for name in ("w1", "w2"):
                self.both(partial(person_of, tenant, name))

    @rule(tenant=st.sampled_from(["acme", "globex"]), name=st.sampled_from(["w1", "w2"]))
    def somebody_reads(self, tenant: str, name: str) -> None:
        self.seen[tenant, name] = self.both(partial(person_of, tenant, name))

    @rule(
        tenant=st.sampled_from(["acme", "acme", "globex"]),
        name=st.sampled_from(["w1", "w1", "w2"]),
        how=st.sampled_from(["out", "in", "consent", "contact", "block", "restore"]),
        channel=st.sampled_from(CHANNELS),
        contact=st.sampled_from(["", *CONTACTS]),
        is_given=st.booleans(),
        is_stale=st.sampled_from([False, False, True]),
        times=st.sampled_from([1, 1, 2]),
    )
    def a_person_changes(
        self,
        tenant: str,
        name: str,
        how: str,
        channel: str,
        contact: str,
        is_given: bool,
        is_stale: bool,
        times: int,
    ) -> None:
        """By what was read just now, or long ago; once, or again because the answer was lost."""
        fresh = self.memory.recipients.person(tenant, name)
        known = Known(tenant, name, self.seen.get((tenant, name), fresh) if is_stale else fresh)
        self.numbers += 1
        note = Note(f"note-{self.numbers}", self.now_ms, "anna", "they asked", f"req-{self.numbers}")
        change: PersonChange | None = {
            "out": lambda: known.opt_out(note),
            "in": lambda: known.opt_in(note),
            "consent": lambda: known.set_consent(channel, is_given=is_given, note=note),
            "contact": lambda: known.set_contact(channel, contact, note) if channel else None,
            "block": lambda: known.block_contact(channel, contact, note) if channel and contact else None,
            "restore": lambda: known.restore_contact(channel, contact, note),
        }[how]()
        if change is not None:
            for _ in range(times):
                self.both(partial(store_person, change))

    @rule(tenant=st.sampled_from(["acme", "globex"]))
    def of_two_who_read_the_same_one_is_too_late(self, tenant: str) -> None:
        known = Known(tenant, "w1", self.memory.recipients.person(tenant, "w1"))
        self.numbers += 2
        notes = [Note(f"note-{self.numbers - n}", self.now_ms, "anna", "they asked", "req") for n in range(2)]
        number = f"+4917012345{self.numbers}"
        for change in (known.set_contact("sms", number, notes[0]), known.set_contact("email", number, notes[1])):
            if change is not None:
                self.both(partial(store_person, change))

    def whole_story(self) -> None:
        self.somebody_reads("acme", "w1")
        self.of_two_who_read_the_same_one_is_too_late("acme")


def person_of(tenant: str, name: str, world: World) -> Person:
    return world.recipients.person(tenant, name)


def store_person(change: PersonChange, world: World) -> None:
    world.recipients.store(change)


class IncidentsAndBoard(Agreement):
    """Incidents of two groups, and their board."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[IncidentChange] = []
        self.numbers = 0

    def compare(self) -> None:
        board = self.both(lambda world: world.incidents.board())
        self.both(lambda world: world.incidents.several([*board.recent, "nobody"]))
        for incident_id in (*board.recent, "nobody"):
            self.both(partial(incident_of, incident_id))

    def store(self, change: IncidentChange) -> None:
        self.made.append(change)
        self.both(partial(store_incident, change))

    @rule(symptom=st.sampled_from([DOWN, STORM]), is_firing=st.booleans(), is_known=st.booleans())
    def an_alarm_changes(self, symptom: Any, is_firing: bool, is_known: bool) -> None:
        """Somebody who knows of the open incident, or does not, stores what comes of it."""
        self.numbers += 1
        board = self.memory.incidents.board()
        found = board.open.get(symptom.group, "") if is_known else ""
        change = rang(
            symptom,
            is_firing=is_firing,
            at_ms=self.now_ms,
            incident=self.memory.incidents.get(found) if found else None,
            board=board,
            now_ms=self.now_ms,
            new_id=f"{self.numbers:032x}",
            rules=RULES,
        )
        if change is not None:
            self.store(change)

    @precondition(lambda self: any(change.after is not None for change in self.made))
    @rule(data=st.data(), is_stale=st.booleans())
    def somebody_notes(self, data: st.DataObject, is_stale: bool) -> None:
        seen = data.draw(st.sampled_from([change.after for change in self.made if change.after is not None]))
        incident = seen if is_stale else self.memory.incidents.get(seen.incident_id)
        if incident is not None:
            self.store(noted(incident, Findings("found"), self.memory.incidents.board(), self.now_ms, ADA))

    @precondition(lambda self: bool(self.made))
    @rule(data=st.data())
    def an_old_change_is_stored_again(self, data: st.DataObject) -> None:
        self.store(data.draw(st.sampled_from(self.made)))

    def whole_story(self) -> None:
        for symptom in (DOWN, STORM):
            self.an_alarm_changes(symptom, is_firing=True, is_known=True)
        self.an_alarm_changes(DOWN, is_firing=False, is_known=True)
        for change in self.made[:2]:
            self.store(change)
        self.compare()


def incident_of(incident_id: str, world: World) -> object:
    return world.incidents.get(incident_id)


def store_incident(change: IncidentChange, world: World) -> None:
    world.incidents.store(change)


def event(number: int, reason: str = "why") -> AuditEvent:
    """An event that no row goes with."""
    return AuditEvent(
        id=f"audit-{number}",
        at_ms=NOON_MS,
        event_type=AuditType.SWITCH_CHANGED,
        severity=Severity.WARNING,
        tenant="",
        actor="anna",
        affected_entity="switch",
        affected_id=f"replay-{number}",
        request_id="operation-1",
        reason=reason,
    )


# Of each operation, what it must have answered at least, or its machine's whole story leaves something out.
ANSWERS = {
    "ledger.read": {"BatchView"},
    "ledger.claim": {"Claimed", "Refused"},
    "ledger.mark": {"NoneType", "Fenced"},
    "ledger.release": {"NoneType", "Fenced"},
    "ledger.settle": {"NoneType", "Fenced"},
    "ledger.take": {"Taken", "Full"},
    "ledger.put_right": {"int"},
    "ledger.pause": {"NoneType"},
    "recovery.get": {"Row"},
    "recovery.commit": {"NoneType", "VersionConflict"},
    "recovery.put_if_absent": {"True", "False"},
    "recovery.due": {"list"},
    "recovery.find": {"list"},
    "recovery.walk": {"generator"},
    "recovery.several": {"dict"},
    "recovery.versions": {"dict"},
    "audit.append": {"NoneType"},
    "counts.add": {"NoneType"},
    "counts.read": {"dict"},
    "records.read": {"dict"},
    "records.store": {"NoneType", "VersionConflict"},
    "records.take_probe": {"True", "False"},
    "recipients.person": {"Person"},
    "recipients.store": {"NoneType", "VersionConflict"},
    "caps.count": {"Counted", "Capped"},
    "caps.uncount": {"NoneType"},
    "marks.read": {"AuditedSwitches"},
    "marks.store": {"AuditedSwitches", "VersionConflict"},
    "sources.read": {"SourcesFound"},
    "sources.store": {"NoneType", "VersionConflict"},
    "index.find": {"Page", "BadCursor"},
    "index.items": {"dict"},
    "index.rows": {"dict"},
    "audit_log.of_entity": {"Page", "BadCursor"},
    "audit_log.of_request": {"Page", "BadCursor"},
    "operators.answered": {"Answered", "NoneType"},
    "operators.commit": {"NoneType", "Answered", "VersionConflict"},
    "operators.page": {"RowPage"},
    "operators.count": {"dict"},
    "jobs.get": {"Job", "NoneType"},
    "jobs.several": {"dict"},
    "jobs.board": {"Board"},
    "jobs.store": {"NoneType", "VersionConflict"},
    "jobs.apply": {"NoneType", "Fenced", "VersionConflict"},
    "quarantines.read": {"Quarantine"},
    "quarantines.store": {"NoneType", "VersionConflict"},
    "returns.read": {"Returns"},
    "returns.store": {"NoneType", "VersionConflict"},
    "incidents.get": {"Incident", "NoneType"},
    "incidents.several": {"dict"},
    "incidents.board": {"Board"},
    "incidents.store": {"NoneType", "VersionConflict"},
}


def operations_of(*names: str) -> set[str]:
    """Those of some ports."""
    return {operation for operation in ANSWERS if operation.partition(".")[0] in names}


PLAYS: list[tuple[type[Agreement], int]] = [
    (EventsAndRows, 20),
    (Limits, 30),
    (MarksAndCaps, 30),
    (People, 16),
    (Lookups, 12),
    (Operators, 16),
    (BulkReplays, 20),
    (RulesAndPromises, 16),
    (IncidentsAndBoard, 16),
]
"""Each with how many stories it plays by chance."""
# To find the shortest of those that fail takes many minutes over moto, and twenty-five steps can be read.
STORIES: dict[str, Any] = {"stateful_step_count": 25, "phases": [Phase.generate]}


@pytest.mark.parametrize(("machine", "examples"), PLAYS, ids=[machine.__name__ for machine, _ in PLAYS])
def test_double_and_table_agree(machine: type[Agreement], examples: int) -> None:
    """What is drawn depends on the modules that are loaded (Hypothesis takes constants from them), and so on what ran
    before: what must have been played is played for certain, and then chance adds to it.
    """
    ASKED.clear()
    play_whole_story(machine())
    owned = OPERATIONS[machine]
    assert {operation: ANSWERS[operation] - ASKED[operation] for operation in owned} == {key: set() for key in owned}
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, **STORIES))


def play_whole_story(machine: Agreement) -> None:
    machine.begin()
    try:
        machine.whole_story()
    finally:
        machine.teardown()


OF_LIMITS = ("ledger.take", "ledger.put_right", "ledger.pause")
OPERATIONS: dict[type[Agreement], set[str]] = {
    EventsAndRows: operations_of("ledger", "recovery", "audit") - set(OF_LIMITS),
    Limits: operations_of("counts", "records") | {"ledger.read", *OF_LIMITS},
    MarksAndCaps: operations_of("caps", "marks", "sources"),
    People: operations_of("recipients"),
    Lookups: operations_of("index", "audit_log"),
    Operators: operations_of("operators"),
    BulkReplays: operations_of("jobs"),
    RulesAndPromises: operations_of("quarantines", "returns"),
    IncidentsAndBoard: operations_of("incidents"),
}
"""Which machine answers for which operations."""


def test_every_operation_of_every_port_over_the_tables_is_among_them() -> None:
    """A port, or an operation of one, that is added without a rule here is refused."""
    over_tables = set()
    for module in pkgutil.iter_modules(adapters.__path__):
        names = vars(importlib.import_module(f"functions.adapters.{module.name}"))
        over_tables |= {name.removeprefix("Dynamo") for name in names if name.startswith("Dynamo")}
    named = {name: getattr(ports, kind) for name, kind in PORTS.items()}
    assert set(PORTS.values()) == {name for name in over_tables if hasattr(ports, name)}
    operations = {
        f"{name}.{operation}"
        for name, kind in named.items()
        for operation, what in vars(kind).items()
        if inspect.isfunction(what) and not operation.startswith("_")
    }
    assert operations == set(ANSWERS)
    assert operations == {operation for owned in OPERATIONS.values() for operation in owned}
