"""Which changes of a switch are not in the audit yet, by whatever means they were made (architecture §9). Pure.

The parameter store numbers the versions of a parameter and remembers who wrote each; a mark says up to which one they
are in the audit. An event's id and time follow from the version alone: whoever finds it again writes the same event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from functions.core.audit import AuditEvent, AuditType, Severity
from functions.core.compact import compact
from functions.core.event import digest
from functions.core.ports import AuditedSwitch, SwitchVersion
from functions.core.switches import problem

UNKNOWN_ACTOR = "unknown"
REASON_LENGTH = 300  # of a description, which may be longer than an audit line should be


@dataclass(frozen=True, slots=True)
class Found:
    """The changes of one switch as audit events, oldest first, and its mark once they are written; None: forget it."""

    events: tuple[AuditEvent, ...]
    mark: AuditedSwitch | None


def is_news(mark: AuditedSwitch | None, latest: SwitchVersion) -> bool:
    """Whether the switch has a version that is not in the audit. A parameter made anew counts from 1 again."""
    return (
        mark is None
        or mark.missing_since_ms > 0
        or (mark.version, mark.changed_at_ms) != (latest.version, latest.changed_at_ms)
    )


def changes_of(mark: AuditedSwitch | None, latest: SwitchVersion, kept: Sequence[SwitchVersion]) -> Found:
    """One event per version since the mark. `kept` is the parameter's history, of which the beginning may be lost."""
    was_made_anew = mark is not None and (
        latest.version < mark.version or (latest.version == mark.version and latest.changed_at_ms != mark.changed_at_ms)
    )
    since = 0 if mark is None or was_made_anew else mark.version
    by_version = {one.version: one for one in kept if since < one.version <= latest.version}
    if latest.version > since:
        by_version.setdefault(latest.version, latest)  # the history may be behind the parameter
    events: list[AuditEvent] = []
    before = "" if mark is None else mark.value
    seen = since
    for version, one in sorted(by_version.items()):
        lost = version - seen - 1
        reason = _reason(is_first=mark is None and not events, was_made_anew=was_made_anew and not events, lost=lost)
        events.append(_event(one, before, reason))
        before, seen = one.value, version
    return Found(tuple(events), AuditedSwitch(latest.version, latest.value, latest.changed_at_ms))


def gone(name: str, mark: AuditedSwitch, now_ms: int) -> Found:
    """A switch that was there and is not found. Believed at the second look, under the time of the first."""
    if mark.missing_since_ms == 0:
        return Found((), replace(mark, missing_since_ms=now_ms))
    deleted = SwitchVersion(name, mark.version, "", mark.missing_since_ms)
    return Found((_event(deleted, mark.value, "deleted", severity=Severity.ERROR),), None)


def missing(marks: Mapping[str, AuditedSwitch], latest: Mapping[str, SwitchVersion]) -> list[str]:
    """The switches that have a mark and no parameter."""
    return sorted(marks.keys() - latest.keys())


def _reason(*, is_first: bool, was_made_anew: bool, lost: int) -> str:
    words = []
    if is_first:
        words.append("first seen")
    if was_made_anew:
        words.append("deleted and made anew")
    if lost > 0:
        words.append(f"{lost} earlier versions are not in the parameter's history any more")
    return "; ".join(words)


def _event(one: SwitchVersion, before: str, reason: str, severity: Severity = Severity.WARNING) -> AuditEvent:
    trouble = None if reason == "deleted" else problem(one.name, one.value)
    return AuditEvent(
        id=digest("switch", one.name, str(one.version), str(one.changed_at_ms), reason if reason == "deleted" else "")[
            :24
        ],
        at_ms=one.changed_at_ms,
        event_type=AuditType.SWITCH_CHANGED,
        severity=severity if trouble is None else Severity.ERROR,
        tenant="",
        actor=one.changed_by or UNKNOWN_ACTOR,
        affected_entity="switch",
        affected_id=one.name,
        request_id="",
        before_state=_state(before),
        after_state=_state(one.value, one.version),
        error="" if trouble is None else f"INVALID_VALUE: {trouble}",
        reason="; ".join(part for part in (reason, one.reason) if part),
    )


def _state(value: str, version: int | None = None) -> str:
    if not value and version is None:
        return ""
    state: dict[str, str | int] = {"value": value}
    if version is not None:
        state["version"] = version
    return compact(state)
