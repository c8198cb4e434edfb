"""What happened before and during an incident, from the audit, the parameter store and the functions themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from functions.core.audit import AuditEvent
from functions.core.failure import StorageUnavailable
from functions.core.incident import ENTITY, Incident
from functions.core.page import CHANGES_MS
from functions.core.postmortem import Entry
from functions.operator_api.ports import Ports

OF_AN_INCIDENT = 200  # audit events from its beginning, and as many up to its end
OF_A_THING = 50  # of one switch, or one integration
MOST_SWITCHES = 15
MOST_JOBS = 50


@dataclass(frozen=True, slots=True)
class Timeline:
    """Oldest first. `unknown` names what could not be read."""

    entries: tuple[Entry, ...]
    unknown: tuple[str, ...] = ()


def timeline(ports: Ports, incident: Incident) -> Timeline:
    """From two hours before it was opened until it was over, or now. Raises `StorageUnavailable` where its own part of
    the audit does not answer; all else is left out then, and named.
    """
    since_ms = incident.opened_at_ms - CHANGES_MS
    until_ms = incident.resolved_at_ms or ports.clock.now_ms()
    own, unknown = _own(ports, incident.incident_id)
    entries = [_entry("incident", event) for event in own]
    parts: dict[str, Callable[[], Iterable[Entry]]] = {
        "switches": lambda: _switches(ports, since_ms, until_ms),
        "health": lambda: _health(ports, since_ms, until_ms),
        "deploys, sources and credentials": lambda: _changes(ports, since_ms, until_ms),
        "replays": lambda: _replays(ports, incident),
    }
    for name, find in parts.items():
        try:
            entries += find()
        except StorageUnavailable:
            unknown.append(name)
    return Timeline(tuple(sorted(entries, key=lambda one: (one.at_ms, one.kind))), tuple(unknown))


def _own(ports: Ports, incident_id: str) -> tuple[list[AuditEvent], list[str]]:
    """The audit of the incident itself: how it began and how it ended, if there is more than can be shown. A channel
    that takes nothing for a day is hundreds of events.
    """
    entity = f"{ENTITY}#{incident_id}"
    first = ports.audit_log.of_entity(entity, OF_AN_INCIDENT)
    found = {event.id: event for event in first.entries}
    unreadable, unknown = first.unreadable, list[str]()
    if first.further:
        last = ports.audit_log.of_entity(entity, OF_AN_INCIDENT, latest_first=True)
        if not found.keys() & {event.id for event in last.entries}:
            unknown.append("what happened in the middle of it")
        unreadable += last.unreadable
        found |= {event.id: event for event in last.entries}
    if unreadable:
        unknown.append("some of its own events")
    return list(found.values()), unknown


def _entry(kind: str, event: AuditEvent) -> Entry:
    name = event.event_type.value.removeprefix(f"platform.{kind}.").replace("_", " ")
    return Entry(event.at_ms, f"{kind} {name}", event.actor, event.reason or event.after_state)


def _switches(ports: Ports, since_ms: int, until_ms: int) -> Iterator[Entry]:
    moved = [one.name for one in ports.switch_history.latest().values() if one.changed_at_ms >= since_ms]
    for name in sorted(moved)[:MOST_SWITCHES]:
        for event in _between(ports, f"switch#{name}", since_ms, until_ms):
            states = " → ".join(state for state in (event.before_state, event.after_state) if state)
            yield Entry(event.at_ms, f"switch {name}", event.actor, f"{states} {event.reason}".strip())


def _health(ports: Ports, since_ms: int, until_ms: int) -> Iterator[Entry]:
    for name in ports.profiles:
        for event in _between(ports, f"integration#{name}", since_ms, until_ms):
            what = f"{event.after_state} {event.reason}".strip()
            yield Entry(event.at_ms, f"health of {name}", event.actor, what)


def _between(ports: Ports, entity: str, since_ms: int, until_ms: int) -> list[AuditEvent]:
    page = ports.audit_log.of_entity(entity, OF_A_THING, until_ms=until_ms, latest_first=True)
    return [event for event in page.entries if event.at_ms >= since_ms]


def _changes(ports: Ports, since_ms: int, until_ms: int) -> Iterator[Entry]:
    """Of these only the last change is known; that of a switch is in the audit."""
    for change in ports.changes.since(since_ms):
        if change.kind != "switch" and change.at_ms <= until_ms:
            yield Entry(change.at_ms, f"{change.kind} {change.name}", change.by, change.what or "changed")


def _replays(ports: Ports, incident: Incident) -> Iterator[Entry]:
    """Bulk replays that name the incident (001.47)."""
    for job in ports.jobs.several(ports.jobs.board().recent[:MOST_JOBS]).values():
        if job.incident_id == incident.incident_id:
            done = ", ".join(f"{number} {name}" for name, number in sorted(job.outcomes.items()))
            yield Entry(
                job.approved_at_ms or job.created_at_ms,
                f"replay {job.job_id}",
                job.approved_by or job.actor,
                f"{job.state.value}, {job.cursor} of {job.total} items{f': {done}' if done else ''}",
            )
