"""The balance of a run: what senders were promised, against ledger, recovery rows, audit and the providers' own record.

Nothing here reads a stack: the arithmetic takes what was read, so a test can hand it a lost event or a doubled effect.

What must hold, whatever failed:

- every accepted event is settled, or is a row, and each of its actions is done, superseded, suppressed or a row;
- an effect is there once; one that the system takes for done is there at all;
- nobody has an effect that no event asked for;
- what has ended for people says so in a row and in the audit.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from functions.core.attempt import Effect as Known
from functions.core.decision import Action, Decision
from functions.core.ledger import ActionStatus, LedgerStatus
from functions.core.recovery import SUPPRESSED, Status, Subject, action_recovery_id
from ops.expectation import Expected, Outcome, Seen, balance, seen_in
from ops.simulator import Effect

Item = Mapping[str, Any]


class Fate(StrEnum):
    """What became of an accepted event."""

    DONE = "done"
    FOR_PEOPLE = "for people"
    WAITING = "waiting"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Promise:
    """An event that the door has acknowledged. `conversation` is where its effects belong, and nobody else's."""

    event_id: str
    conversation: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was read once all was quiet.

    `ledger` by event id; `audit` by entity; `expected` by conversation, also of what was sent and never acknowledged.
    `attempts` are the most that the policy of an integration allows.
    """

    promises: Sequence[Promise]
    ledger: Mapping[str, Item]
    rows: Sequence[Item]
    audit: Mapping[str, Sequence[Item]]
    effects: Sequence[Effect]
    expected: Mapping[str, Expected]
    attempts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken, and whose."""

    kind: str
    event_id: str
    conversation: str
    text: str


@dataclass(slots=True)
class Books:
    """The balance, drawn up."""

    fates: Counter[Fate] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    effects: int = 0
    violations: list[Violation] = field(default_factory=list)

    @property
    def is_even(self) -> bool:
        """Whether every promise was kept."""
        return not self.violations

    def of(self, *kinds: str) -> list[Violation]:
        """The violations of these kinds."""
        return [one for one in self.violations if one.kind in kinds]


LOST, DOUBLED, MISSING, UNASKED, WAITING, SILENT, OVERDONE = (
    "lost",
    "doubled",
    "missing",
    "unasked",
    "waiting",
    "silent",
    "overdone",
)
"""Kinds of violations. `silent`: a row without its audit; `overdone`: more attempts than the policy allows."""


def is_open(row: Item) -> bool:
    """Whether the machine will still do something about the row, or somebody whom it waits for may."""
    status = row["status"]
    return status in (Status.PENDING, Status.RETRYING) or (status == Status.REPLAYED and not row.get("result"))


def is_for_people(row: Item) -> bool:
    """Whether only a person can take it further. What the gate suppressed has been handed to people as it should."""
    return row["status"] in (Status.FAILED, Status.DLQ) and row.get("failure_code") != SUPPRESSED


def blocked(rows: Iterable[Item]) -> set[str]:
    """Ids of open rows that wait for one which has ended for people, or which is blocked itself."""
    by_id = {str(row["pk"]): row for row in rows}
    found: set[str] = set()
    more = True
    while more:
        more = False
        for recovery_id, row in by_id.items():
            if recovery_id in found or not is_open(row):
                continue
            parents = [(one, by_id.get(one)) for one in row.get("waits_for", ())]
            if any(one in found or (parent is not None and is_for_people(parent)) for one, parent in parents):
                found.add(recovery_id)
                more = True
    return found


def draw_up(seen: Evidence) -> Books:
    """The balance of the evidence."""
    books = Books(effects=sum(effect.changed for effect in seen.effects))
    rows_of: dict[str, list[Item]] = defaultdict(list)
    for row in seen.rows:
        rows_of[str(row["event_id"])].append(row)
        what = f"{row['status']} {row.get('result') or row.get('failure_code') or ''}" if not is_open(row) else "open"
        books.rows[f"{row['integration_id']}: {what.strip()}"] += 1
    held_up = blocked(seen.rows)
    by_target: dict[str, list[Effect]] = defaultdict(list)
    for effect in seen.effects:
        by_target[effect.target].append(effect)
    may_lack = set(seen.expected) - {promise.conversation for promise in seen.promises}
    for promise in seen.promises:
        event = _Event(promise, seen.ledger.get(promise.event_id), rows_of[promise.event_id], held_up)
        fate = event.fate()
        books.fates[fate] += 1
        books.violations += event.violations(fate, by_target[promise.conversation])
        if fate is not Fate.DONE:
            may_lack.add(promise.conversation)
    books.violations += _doubled(seen)
    books.violations += _unlike_expected(seen, may_lack)
    for row in seen.rows:
        books.violations += _unaccounted(row, seen)
    return books


@dataclass(frozen=True, slots=True)
class _Event:
    promise: Promise
    item: Item | None
    rows: Sequence[Item]
    held_up: set[str]

    def fate(self) -> Fate:
        rows = self.rows
        if any(is_open(row) and row["pk"] not in self.held_up for row in rows):
            return Fate.WAITING
        if any(is_for_people(row) or row["pk"] in self.held_up for row in rows):
            return Fate.FOR_PEOPLE
        is_settled = self.item is not None and self.item["status"] == LedgerStatus.SETTLED
        return Fate.DONE if is_settled else Fate.LOST

    def violations(self, fate: Fate, effects: Sequence[Effect]) -> Iterator[Violation]:
        if fate is Fate.LOST:
            yield self._broken(LOST, f"acknowledged, and is {'nowhere' if self.item is None else 'never settled'}")
        if fate is Fate.WAITING:
            yield self._broken(WAITING, "something of it still waits, and nobody is at it")
        if self.item is None or self.item["status"] != LedgerStatus.SETTLED:
            return
        by_id = {str(row["pk"]): row for row in self.rows}
        keys = [_keys(effect) for effect in effects]
        for action in self._actions(self.item):
            mark = str(self.item["actions"].get(action.name, {}).get("s", "absent"))
            row = by_id.get(action_recovery_id(action.action_id))
            if mark in _NEEDS_ROW and row is None:
                yield self._broken(LOST, f"{action.name} is marked {mark} and has no row")
            elif mark not in _NEEDS_ROW | _FINISHED:
                yield self._broken(LOST, f"settled, and {action.name} is {mark}")
            is_done = mark == ActionStatus.DONE or (row is not None and row.get("effect") == Known.DONE)
            if is_done and not any(action.action_id[:24] in key for several in keys for key in several):
                yield self._broken(MISSING, f"{action.name} is taken for done, and no provider has done it")

    def _actions(self, item: Item) -> tuple[Action, ...]:
        decision = Decision.from_json(json.dumps(item["decision"]))
        return decision.bound(str(item["tenant"]), self.promise.event_id, int(item["epoch"])).actions

    def _broken(self, kind: str, text: str) -> Violation:
        return Violation(kind, self.promise.event_id, self.promise.conversation, text)


_NEEDS_ROW = frozenset({ActionStatus.RECOVERY.value, ActionStatus.SUPPRESSED.value})
_FINISHED = frozenset({ActionStatus.DONE.value, ActionStatus.SUPERSEDED.value, ActionStatus.NOT_NEEDED.value})


def _keys(effect: Effect) -> tuple[str, str]:
    """By what an effect can be told to be an action's: its marker or key, and the key of the call that made it."""
    return effect.key, effect.headers.get("idempotency-key", "")


def _doubled(seen: Evidence) -> Iterator[Violation]:
    """The same effect more than once. What changed nothing harms nobody: providers say so of repeats they know.

    Without a key an effect is told by the request id of its event, and by what it did to whom.
    """
    event_of = {promise.conversation: promise.event_id for promise in seen.promises}
    times = Counter(
        (
            effect.provider,
            effect.kind,
            effect.target,
            effect.key or effect.headers.get("x-request-id", ""),
            effect.params_sha256,
        )
        for effect in seen.effects
        if effect.changed
    )
    for (provider, kind, target, key, _), count in times.items():
        if count > 1:
            text = f"{provider} has {kind} under {key or 'no key'} {count} times"
            yield Violation(DOUBLED, event_of.get(target, ""), target, text)


def _unlike_expected(seen: Evidence, may_lack: set[str]) -> Iterator[Violation]:
    """What the senders' own words called for, against what there is. Where something has ended for people it may lack,
    but nothing may be there that none of the allowed outcomes has.
    """
    event_of = {promise.conversation: promise.event_id for promise in seen.promises}
    strict = {one: allowed for one, allowed in seen.expected.items() if one not in may_lack}
    found = balance(strict, (effect for effect in seen.effects if effect.target not in may_lack))
    told = [(MISSING, found.missing), (UNASKED, found.wrong), (DOUBLED, found.doubled), (UNASKED, found.unasked)]
    for kind, sentences in told:
        for sentence in sentences:
            conversation, _, text = sentence.partition(": ")
            yield Violation(kind, event_of.get(conversation, ""), conversation, text)
    seen_there = seen_in(effect for effect in seen.effects if effect.target in may_lack)
    for conversation, got in seen_there.items():
        if not any(_is_part_of(got, outcome) for outcome in seen.expected[conversation]):
            text = f"has {dict(got.tags)}, {got.teams}, {got.replies} replies: part of no outcome that was asked for"
            yield Violation(UNASKED, event_of.get(conversation, ""), conversation, text)


def _is_part_of(got: Seen, outcome: Outcome) -> bool:
    is_once = all(times == 1 for times in got.tags.values()) and len(got.teams) <= 1
    return (
        is_once
        and set(got.tags) <= outcome.tags
        and set(got.teams) <= {outcome.team}
        and got.replies <= outcome.replies
    )


def _unaccounted(row: Item, seen: Evidence) -> Iterator[Violation]:
    """A row of which the audit does not tell, or that was tried more often than its policy allows."""
    event_id, about = str(row["event_id"]), f"{row['integration_id']} row {row['pk']}"
    trail = seen.audit.get(f"recovery_item#{row['pk']}", ())
    if not trail:
        yield Violation(SILENT, event_id, "", f"{about} is {row['status']}, and the audit has nothing of it")
    elif not is_open(row):
        last = max(trail, key=lambda event: int(json.loads(event["after_state"])["version"]))
        if last["recovery_status"] != row["status"]:
            yield Violation(
                SILENT, event_id, "", f"{about} is {row['status']}, and the audit ends with {last['recovery_status']}"
            )
    most = seen.attempts.get(str(row["integration_id"]))
    # A claim whose owner died counts, although nobody knows whether it was an attempt; a replay is one more by wish.
    made = int(row.get("attempt_count", 0)) - int(row.get("replay_no", 0)) - int(row.get("takeovers", 0))
    if most is not None and row["subject"] == Subject.ACTION and made > most:
        yield Violation(OVERDONE, event_id, "", f"{about} was tried {made} times, and its policy allows {most}")
