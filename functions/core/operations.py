"""What operators do to single rows, each click once (architecture §7, runbook 004). Pure.

A call that replays carries an `Idempotency-Key`. The first one's answer is kept under the caller and the key for a day:
the same call again gets that answer, another call under the same key is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from functions.core.attempt import AskPerson, Effect, next_step
from functions.core.audit import AuditType, Severity
from functions.core.compact import compact
from functions.core.event import digest
from functions.core.failure import HoldfastError, RootCause
from functions.core.integration import KindRules
from functions.core.recovery import (
    TOO_OLD_TO_REPLAY_MS,
    Change,
    Row,
    Status,
    Subject,
    annotate,
    audit_of,
    end,
    history_of,
    release,
    replay,
    replay_expires_at,
    why_not_replayable,
)

KEY_KEPT_MS = 24 * 3_600_000
KEY_PATTERN = r"^[A-Za-z0-9._~-]{8,128}$"


@dataclass(frozen=True, slots=True)
class Answered:
    """What a call under a key was answered. `asked` is the hash of what it asked for, `answer` JSON."""

    principal: str
    key: str
    asked: str
    answer: str
    at_ms: int

    def is_kept(self, now_ms: int) -> bool:
        """Whether a repeat still gets it."""
        return now_ms < self.at_ms + KEY_KEPT_MS


@dataclass(frozen=True, slots=True)
class Person:
    """Who does it, under which ids."""

    name: str
    request_id: str
    traceparent: str = ""


class Refused(HoldfastError):
    """The row is not in a state in which this may be done. `reason` is a stable word, `what` says what to do."""

    def __init__(self, row: Row, reason: str, what: str) -> None:
        super().__init__(f"{row.recovery_id}: {what}")
        self.row = row
        self.reason = reason
        self.what = what


def asked(path: str, body: Mapping[str, Any]) -> str:
    """The hash of what a call asks for: the same for the same call, however its body is written."""
    return digest(path, _json(body))


def why_refused(row: Row, rules: KindRules | None, now_ms: int, scale: float) -> str | None:
    """Why a replay of this one row would be refused that comes without a confirmation; None: it would not be. `rules`
    are its kind's, None for a whole event or for a kind that the catalog has no more.
    """
    return why_not_replayable(row, now_ms, is_verified=_finds_out(row, rules, now_ms, scale))


def replayable_until(row: Row) -> int:
    """Until when a replay of the row is allowed, as far as its age goes."""
    if row.subject is Subject.EVENT:
        return row.received_at_ms + TOO_OLD_TO_REPLAY_MS
    return replay_expires_at(row)


def replayed_by(
    row: Row,
    rules: KindRules | None,
    person: Person,
    reason: str,
    now_ms: int,
    scale: float,
    *,
    checked: str = "",
) -> Change:
    """The row, sent on once more because a person asks for it. `checked` is what they looked at before they said that
    nothing of it has happened; without it, what may have happened is only sent on where its attempt finds out first: by
    a lookup, or by a key that the provider still knows. Where it can, it does so whatever a person says: they may err.
    Raises `Refused`.
    """
    is_unknown = row.effect is Effect.UNKNOWN and row.status in (Status.FAILED, Status.DLQ)
    is_taken_at_word = is_unknown and bool(checked) and not _finds_out(row, rules, now_ms, scale)
    seen = replace(row, effect=Effect.NONE) if is_taken_at_word else row
    refused = why_refused(seen, rules, now_ms, scale)
    if refused is not None:
        raise Refused(row, refused, _WHAT.get(refused.partition("_")[0], _ONLY))
    change = replay(
        seen,
        now_ms,
        actor=person.name,
        reason=f"{reason}; checked: {checked}" if checked else reason,
        request_id=person.request_id,
        job_id="",
        scale=scale,
        is_verified=True,
    )
    return traced(replace(change, before=row), person)


_ONLY = "only failed and dlq are replayed"
_WHAT = {
    "effect": "it may have happened, and nothing can tell: look at the provider, and if nothing of it is there, say so "
    'with {"confirmation": {"checked": "what you looked at", "effect": "none"}}; if it is there, dismiss it as done by '
    "hand",
    "ended": "it has ended for good",
    "expired": "it was to happen earlier or not at all: if it is still wanted, do it by hand",
    "too": "its event is older than 30 days: the ledger soon forgets what was done of it, and nothing would hold off a "
    "second time; if it is still wanted, do it by hand",
}


def _finds_out(row: Row, rules: KindRules | None, now_ms: int, scale: float) -> bool:
    """Whether an attempt would learn what the last one did before it does it again, or could not do it twice."""
    if rules is None:
        return False
    return not isinstance(next_step(rules, history_of(row), now_ms, scale), AskPerson)


def ended_by(row: Row, code: str, person: Person, reason: str, now_ms: int) -> Change:
    """The row, ended for good as that code. Raises `IllegalTransition`."""
    return traced(end(row, code, reason, now_ms, actor=person.name, request_id=person.request_id), person)


def released_by_hand(parent: Row, children: Iterable[Row], now_ms: int) -> tuple[Change, ...]:
    """What waited for a row that a person has done: due, like after a success of the machine's."""
    waiting = [child for child in children if child.is_open and parent.recovery_id in child.waits_for]
    return tuple(release(child, parent.recovery_id, now_ms) for child in waiting)


def noted(row: Row, person: Person, note: str, now_ms: int) -> Change:
    """A note on the row, for whoever reads it next. Raises `IllegalTransition` while a worker is at it."""
    change = annotate(row, f"note of {person.name}: {note}", now_ms)
    return _said(row, change, person, note, now_ms, {})


def judged(row: Row, person: Person, root_cause: RootCause, reason: str, now_ms: int) -> Change:
    """Another root cause than was proposed. Raises `IllegalTransition` while a worker is at it."""
    change = annotate(row, f"{person.name} calls it {root_cause.value}: {reason}", now_ms, root_cause=root_cause.value)
    return _said(row, change, person, reason, now_ms, {"root_cause": (row.root_cause, root_cause.value)})


def traced(change: Change, person: Person) -> Change:
    """The change with the operator's ids in its audit events."""
    audit = tuple(
        replace(event, request_id=person.request_id, traceparent=person.traceparent or event.traceparent)
        for event in change.audit
    )
    return replace(change, audit=audit)


def _said(
    row: Row, change: Change, person: Person, reason: str, now_ms: int, states: Mapping[str, tuple[str, str]]
) -> Change:
    event = audit_of(AuditType.NOTED, Severity.WARNING, row, change.after, actor=person.name, reason=reason)
    before = json.loads(event.before_state) | {name: was for name, (was, _) in states.items()}
    after = json.loads(event.after_state) | {name: now for name, (_, now) in states.items()}
    event = replace(event, at_ms=now_ms, before_state=_json(before), after_state=_json(after))
    return traced(replace(change, audit=(event,)), person)


def _json(state: Mapping[str, Any]) -> str:
    return compact(state)
