"""What people are told of an incident: released, approved texts with a few words filled in (runbook 001, "Communication
Templates"; runbook 000, "User Messaging Rules"). Pure.

Texts for people outside name no provider and promise nothing that nobody keeps: one that says "will notify you" names
the text that does it, and the incident does not close before that one is made out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from functions.core.failure import HoldfastError
from functions.core.incident import Incident
from functions.core.page import when

INTERNAL = "internal"
_PARAM = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_HOUR = 60
_DAY = 24 * _HOUR


class NoSuchText(HoldfastError):
    """There is no such text, or none that may go out. The message says which there are, or what is missing."""


@dataclass(frozen=True, slots=True)
class Template:
    """One version of a text. `text_without_window` is for when nobody knows how long it takes; empty: the same.
    `promises` is the id of the text that it announces. `approved_by` is a role; empty: nobody has approved it.
    """

    id: str
    version: int
    audience: str
    text: str
    text_without_window: str = ""
    promises: str = ""
    approved_by: str = ""

    @property
    def params(self) -> frozenset[str]:
        """The names in braces."""
        return frozenset(_PARAM.findall(self.text + self.text_without_window))

    @property
    def is_internal(self) -> bool:
        """Whether it is for our own people."""
        return self.audience == INTERNAL

    def render(self, values: Mapping[str, str]) -> str:
        """The text as it goes out. A `window` that is empty is not known. Raises `NoSuchText` for what is missing."""
        text = self.text if values.get("window") or not self.text_without_window else self.text_without_window
        missing = sorted(name for name in _PARAM.findall(text) if not values.get(name))
        if missing:
            raise NoSuchText(f"{self.id} needs {', '.join(missing)}")
        return _PARAM.sub(lambda found: values[found[1]], text)


def newest(templates: Mapping[tuple[str, int], Template], template_id: str) -> Template:
    """The newest approved version of that text. Raises `NoSuchText`."""
    approved = [one for one in templates.values() if one.approved_by]
    known = [one for one in approved if one.id == template_id]
    if not known:
        names = ", ".join(sorted({one.id for one in approved}))
        raise NoSuchText(f"there is no approved text {template_id!r}; there are {names}")
    return max(known, key=lambda one: one.version)


def values_of(incident: Incident) -> Mapping[str, str]:
    """What an incident itself fills in, for our own people."""
    return {
        "incident_id": incident.incident_id,
        "severity": incident.severity.value,
        "state": incident.state.value,
        "title": incident.title,
        "impact": incident.impact or "not known yet",
        "mitigation": incident.mitigation or "none yet",
        "next_update": when(incident.next_update_ms) if incident.next_update_ms else "none is planned",
        "owner": incident.lead or "nobody",
    }


def window_of(minutes: int) -> str:
    """How long it takes, as people say it; empty for 0, which is not known."""
    if minutes <= 0:
        return ""
    number, unit = (minutes, "minute")
    if minutes >= _DAY:
        number, unit = -(-minutes // _DAY), "day"
    elif minutes >= _HOUR:
        number, unit = -(-minutes // _HOUR), "hour"
    return f"within {number} {unit}{'' if number == 1 else 's'}"
