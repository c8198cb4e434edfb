"""What an alarm switches off by itself, before anybody has read the page (architecture §9; 002.36, 003.25). Pure.

- A SEV0 turns `auto_reply` off, for good: only a person turns it on again.
- An alarm on the errors of one flow holds that flow for a while: its events are accepted and wait. It goes on by
  itself, because what made it fail may be over before anybody looks.
"""

from __future__ import annotations

from typing import Final

from functions.core.alarms import Sev
from functions.core.incident import Contained, Incident, Symptom

FLOW_ERRORS: Final = "flow-errors"
"""The group of alarms that watch what share of one flow's events fails. Each names its flow."""
HOLD_MS: Final = 30 * 60_000
AGAIN_MS: Final = 60 * 60_000  # what could not be set in that time is not set any more: it would surprise people


def containment_of(symptom: Symptom, now_ms: int, scale: float) -> Contained | None:
    """What is to be done because that alarm fires; None: nothing."""
    if symptom.sev is Sev.SEV0:
        return Contained("auto_reply", "off", symptom.name, now_ms)
    if symptom.group == FLOW_ERRORS and symptom.flow:
        # The shortest time for which a switch can be set at all, however much waits are shortened.
        until_ms = now_ms + max(int(HOLD_MS * scale), 60_000)
        return Contained(f"flow/{symptom.flow}/mode", "hold", symptom.name, now_ms, until_ms)
    return None


def to_contain(incident: Incident, now_ms: int, scale: float) -> tuple[Contained, ...]:
    """What is still to be done. An incident that is over needs none of it."""
    if incident.is_over:
        return ()
    return tuple(
        one for one in incident.contained if not one.is_done and now_ms - one.at_ms < max(60_000, int(AGAIN_MS * scale))
    )
