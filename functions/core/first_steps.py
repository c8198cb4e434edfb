"""What whoever is paged types first, and how it is taken back: ten minutes, no context (architecture §10). Pure.

By group of alarms, and by alarm where that says more. `{incident}` is the incident's id. A step that only looks has
nothing to take back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from functions.core.alarms import Sev


@dataclass(frozen=True, slots=True)
class FirstStep:
    """One command. `undo` is empty where it changes nothing."""

    command: str
    undo: str = ""

    def of(self, incident_id: str) -> FirstStep:
        """As it is typed for that incident."""
        return FirstStep(self.command.replace("{incident}", incident_id), self.undo.replace("{incident}", incident_id))


_REPLIES_OFF: Final = FirstStep(
    'holdfast switch set auto_reply off --reason "{incident}"',
    'holdfast switch set auto_reply on --reason "{incident} is over"',
)

BY_GROUP: Final[Mapping[str, FirstStep]] = {
    "replies": _REPLIES_OFF,
    "intake": FirstStep("holdfast rejections"),
    "sources": FirstStep("holdfast source list"),
    "pipeline": FirstStep("holdfast queue"),
    "flow-errors": FirstStep("holdfast queue --status dlq"),
    "triage": FirstStep("holdfast queue --integration intake"),
    "duties": FirstStep("holdfast env"),
    "heartbeats": FirstStep("holdfast env"),
    "providers": FirstStep("holdfast integrations"),
    "people": FirstStep("holdfast queue --status failed"),
    "replay": FirstStep("holdfast replay list"),
    "switches": FirstStep("holdfast switch list"),
    "on-call": FirstStep("holdfast page test"),
}
BY_ALARM: Final[Mapping[str, FirstStep]] = {
    "duplicate-storm": FirstStep("holdfast events"),
    "rate-limited": FirstStep("holdfast limits"),
    "limiter-unavailable": FirstStep("holdfast limits"),
    "queue-long": FirstStep("holdfast limits"),
    "signatures-refused": FirstStep("holdfast rejections"),
}
ELSE: Final = FirstStep("holdfast incident show {incident}")


def first_step(group: str, alarms: tuple[str, ...], severity: Sev, incident_id: str) -> FirstStep:
    """For an incident of that group with these alarms. What a person calls a SEV0 is stopped before it is looked at."""
    if severity is Sev.SEV0 and not alarms:
        return _REPLIES_OFF.of(incident_id)
    by_alarm = [BY_ALARM[name] for name in alarms if name in BY_ALARM]
    found = by_alarm[0] if len(by_alarm) == len(alarms) == 1 else BY_GROUP.get(group, ELSE)
    return found.of(incident_id)
