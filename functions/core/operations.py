"""What operators do to single rows, each click once (architecture §7, runbook 004). Pure.

A call that replays carries an `Idempotency-Key`. The first one's answer is kept under the caller and the key for a day:
the same call again gets that answer, another call under the same key is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from functions.core.attempt import Effect
from functions.core.audit import AuditEvent, AuditType, Severity, audit_id
from functions.core.decision import Repeat
from functions.core.event import digest
from functions.core.failure import HoldfastError, RootCause
from functions.core.integration import KindRules
from functions.core.recovery import (
    Change,
    Row,
    Status,
    annotate,
    replay,
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
    return digest(path, json.dumps(body, separators=(",", ":"), sort_keys=True))


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
    a lookup, or by a key that the provider still knows. Raises `Refused`.
    """
    is_unknown = row.effect is Effect.UNKNOWN and row.status in (Status.FAILED, Status.DLQ)
    may_find_out = is_unknown and _finds_out(row, rules, now_ms)
    if is_unknown and not checked and not may_find_out:
        raise Refused(
            row,
            "effect_unknown",
            "it may have happened, and nothing can tell: look at the provider, and if nothing of it is there, say so "
            'with {"confirmation": {"checked": "what you looked at", "effect": "none"}}; if it is there, dismiss it as '
            "done by hand",
        )
    seen = replace(row, effect=Effect.NONE) if is_unknown and checked else row
    why = f"{reason}; checked: {checked}" if checked else reason
    refused = why_not_replayable(seen, now_ms, is_verified=may_find_out)
    if refused is not None:
        raise Refused(row, refused, _WHAT.get(refused.partition("_")[0], "only failed and dlq are replayed"))
    change = replay(
        seen,
        now_ms,
        actor=person.name,
        reason=why,
        request_id=person.request_id,
        job_id="",
        scale=scale,
        is_verified=may_find_out,
    )
    return traced(replace(change, before=row), person)


_WHAT = {
    "ended": "it has ended for good",
    "expired": "it was to happen earlier or not at all: if it is still wanted, do it by hand",
    "too": "its event is older than 30 days: its payload is not kept that long",
}


def _finds_out(row: Row, rules: KindRules | None, now_ms: int) -> bool:
    """Whether an attempt would learn what the last one did before it does it again, or could not do it twice."""
    if rules is None:
        return False
    if rules.can_look_up:
        return True
    window_ms = rules.key_window_seconds * 1000
    return rules.repeat is Repeat.KEYED and bool(row.first_sent_at_ms) and now_ms < row.first_sent_at_ms + window_ms


def noted(row: Row, person: Person, note: str, now_ms: int) -> Change:
    """A note on the row, for whoever reads it next. Raises `IllegalTransition` while a worker is at it."""
    change = annotate(row, f"note of {person.name}: {note}", now_ms)
    return _with_event(change, person, note, {})


def judged(row: Row, person: Person, root_cause: RootCause, reason: str, now_ms: int) -> Change:
    """Another root cause than was proposed. Raises `IllegalTransition` while a worker is at it."""
    change = annotate(row, f"{person.name} calls it {root_cause.value}: {reason}", now_ms, root_cause=root_cause.value)
    return _with_event(change, person, reason, {"root_cause": [row.root_cause, root_cause.value]})


def traced(change: Change, person: Person) -> Change:
    """The change with the operator's ids in its audit events."""
    audit = tuple(
        replace(event, request_id=person.request_id, traceparent=person.traceparent or event.traceparent)
        for event in change.audit
    )
    return replace(change, audit=audit)


def _with_event(change: Change, person: Person, reason: str, state: Mapping[str, list[str]]) -> Change:
    after = change.after
    said = {name: (before, now) for name, (before, now) in state.items()}
    event = AuditEvent(
        id=audit_id(after.recovery_id, after.version, AuditType.NOTED),
        at_ms=after.updated_at_ms,
        event_type=AuditType.NOTED,
        severity=Severity.WARNING,
        tenant=after.tenant,
        actor=person.name,
        affected_entity="recovery_item",
        affected_id=after.recovery_id,
        request_id=person.request_id,
        origin_request_id=after.origin_request_id,
        traceparent=person.traceparent,
        before_state=_json({name: before for name, (before, _) in said.items()}),
        after_state=_json({name: now for name, (_, now) in said.items()}),
        recovery_status=after.status.value,
        reason=reason,
    )
    return replace(change, audit=(event,))


def _json(state: Mapping[str, str]) -> str:
    return json.dumps(dict(state), separators=(",", ":"), sort_keys=True) if state else ""
