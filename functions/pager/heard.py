"""What a message of the queue `pages` says: an alarm of CloudWatch that has changed its state, as SNS hands it on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from functions.core.alarms import Audience, Sev, by_name
from functions.core.failure import HoldfastError
from functions.core.incident import Symptom
from functions.core.page import one_line

FIRING = "ALARM"
QUIET = "OK"
NAME_LENGTH = 255


class UnreadableAlarm(HoldfastError):
    """A message that says of no alarm how it is. It ends in the dead-letter queue, before people."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One change of an alarm's state. `state` may be neither firing nor quiet: nobody knows."""

    symptom: Symptom
    state: str
    at_ms: int


def read(body: str) -> Heard:
    """Read a message, whether SNS has wrapped it or not. Raises `UnreadableAlarm`."""
    said = _object(body)
    if said.get("Type") == "Notification" and isinstance(said.get("Message"), str):
        said = _object(said["Message"])
    name, state, moment = said.get("AlarmName"), said.get("NewStateValue"), said.get("StateChangeTime")
    if not isinstance(name, str) or not name or not isinstance(state, str) or not isinstance(moment, str):
        raise UnreadableAlarm("it has no AlarmName, NewStateValue or StateChangeTime")
    try:
        at = datetime.fromisoformat(moment)
        at_ms = round(at.timestamp() * 1000)
    except (ValueError, OverflowError) as exc:
        raise UnreadableAlarm("its StateChangeTime is no moment") from exc
    if at.tzinfo is None or at_ms <= 0:
        raise UnreadableAlarm("its StateChangeTime is no moment of any time zone")
    about = str(said.get("AlarmDescription") or "")
    return Heard(symptom_of(one_line(name[:NAME_LENGTH]), one_line(about)), state, at_ms)


def symptom_of(name: str, description: str) -> Symptom:
    """What the table says of the alarm. One that somebody has made beside it is an incident of its own, and pages:
    whoever lets it speak to our topics wants somebody to know.
    """
    alarm = by_name(name)
    if alarm is None:
        says = description[:200] or f"An alarm that no table of ours has: {name}"
        return Symptom(name, says, Sev.SEV2, Audience.OPS, "ops", "", name)
    return Symptom(
        alarm.name,
        alarm.says,
        alarm.sev,
        alarm.audience,
        alarm.owner,
        alarm.page,
        alarm.group,
        is_page=alarm.is_page,
        flow=alarm.flow,
        is_moment=alarm.is_moment,
    )


def _object(text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise UnreadableAlarm("it is not JSON") from exc
    if not isinstance(said, dict):
        raise UnreadableAlarm("it is no object")
    return said
