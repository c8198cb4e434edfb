"""Why it happened, and what follows: the draft of a postmortem, and whether one is written (runbook 001, "Postmortem
Template"). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from functions.core.incident import POSTMORTEM_LENGTH, Incident
from functions.core.page import when

PLACEHOLDER = "_(to be written)_"
FIELDS = (
    "Incident ID",
    "Timeline (UTC)",
    "Root cause",
    "Customer impact",
    "Detection gap",
    "What worked",
    "What failed",
    "Corrective actions",
    "Preventive actions",
    "Owner and due dates",
)
"""The ten of runbook 001, each a heading of second order."""
PAGES = "Runbook pages to review"
MOST_ENTRIES = 120
MOST_OF_AN_ENTRY = 300  # characters of what was said; the audit has it all
MOST_OF_THE_TIMELINE = POSTMORTEM_LENGTH // 2  # the rest is for what is to be written: else nobody could bring it back
_HEADING = re.compile(r"^##\s+(.+?)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the timeline."""

    at_ms: int
    kind: str
    who: str
    what: str


def draft(incident: Incident, timeline: Sequence[Entry]) -> str:
    """Everything that is known, in Markdown; the rest is a person's to write."""
    lines = [f"# Postmortem: {incident.title}", ""]
    for name in FIELDS:
        lines += [f"## {name}", "", *_known(name, incident, timeline), ""]
    lines += [f"## {PAGES}", "", *_pages(incident), ""]
    return "\n".join(lines)


def missing(text: str, incident_id: str) -> tuple[str, ...]:
    """What a postmortem lacks, a sentence each; empty: it is one."""
    if len(text) > POSTMORTEM_LENGTH:
        return (f"it is longer than {POSTMORTEM_LENGTH} characters",)
    found = _sections(text)
    problems = [f"'{name}' is not there" for name in FIELDS if name not in found]
    problems += [
        f"'{name}' is not written"
        for name in FIELDS
        if name in found and (not found[name] or PLACEHOLDER in found[name])
    ]
    if incident_id not in found.get(FIELDS[0], ""):
        problems.append(f"it is not that of {incident_id}")
    return tuple(problems)


def _sections(text: str) -> dict[str, str]:
    parts = _HEADING.split(text)
    return {name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def _known(name: str, incident: Incident, timeline: Sequence[Entry]) -> Iterable[str]:
    match name:
        case "Incident ID":
            yield f"{incident.incident_id}, {incident.severity.value}, {incident.state.value}"
            if incident.alarms:
                yield f"Alarms: {', '.join(incident.alarms)}"
        case "Timeline (UTC)":
            yield from _lines(timeline)
        case "Customer impact" if incident.impact or incident.scope:
            yield "; ".join(part for part in (incident.impact, incident.scope) if part)
        case "Detection gap":
            first_ms = min((one.fired_at_ms for one in incident.alarms.values() if one.fired_at_ms), default=0)
            if first_ms:
                yield f"The first alarm fired at {when(first_ms)}; it was opened at {when(incident.opened_at_ms)}."
            else:
                yield f"No alarm told of it: {incident.opened_by} opened it at {when(incident.opened_at_ms)}."
            yield PLACEHOLDER
        case "What worked":
            for one in incident.contained:
                yield f"- {one.switch} {'was' if one.is_done else 'should have been'} set to {one.value} by itself"
            if incident.mitigation:
                yield f"- {incident.mitigation}"
            yield PLACEHOLDER
        case "Owner and due dates":
            yield f"{incident.lead}: {PLACEHOLDER}"
        case _:
            yield PLACEHOLDER


def _lines(timeline: Sequence[Entry]) -> Iterable[str]:
    entries = sorted(timeline, key=lambda one: (one.at_ms, one.kind))
    told = length = 0
    for one in entries[:MOST_ENTRIES]:
        what = " ".join(one.what.split())
        what = what if len(what) <= MOST_OF_AN_ENTRY else f"{what[: MOST_OF_AN_ENTRY - 1]}…"
        line = f"- {when(one.at_ms)} {one.kind}{f', {one.who}' if one.who else ''}: {what}"
        length += len(line) + 1
        if length > MOST_OF_THE_TIMELINE:
            break
        told += 1
        yield line
    if told < len(entries):
        yield f"- and {len(entries) - told} more: the audit has them"


def _pages(incident: Incident) -> Iterable[str]:
    if incident.runbook:
        yield f"- docs/runbooks/{incident.runbook}"
    yield from sorted(
        f"- docs/runbooks/alarms.md#{name}" for name in incident.alarms if not incident.runbook.endswith(f"#{name}")
    )
    if not incident.runbook and not incident.alarms:
        yield "- docs/runbooks/recovery.md"
