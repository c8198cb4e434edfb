"""Which sources or providers an alarm is about, and since when: whoever is paged reads it in the page's title, and
needs no look to begin. Pure.

Of alarms that are about no one of several nothing is said here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from functions.core.compact import compact
from functions.core.gate import Health, IntegrationState
from functions.core.health import Counts, minute_ms

SILENT: Final = "source-silent"
UNREADABLE: Final = "source-malformed"
DOWN: Final = "integration-down"
DEGRADED: Final = "integration-degraded"
REFUSED: Final = "rate-limited"
OF_SOURCES: Final = frozenset({SILENT, UNREADABLE})
OF_PROVIDERS: Final = frozenset({DOWN, DEGRADED, REFUSED})
NAMING: Final = OF_SOURCES | OF_PROVIDERS
"""The alarms that are about some of several."""

REFUSED_MINUTES: Final = 20  # as far back as the alarm looks, and as long as a page takes
MOST_KEPT: Final = 1_000  # sources of a kind; an item of the table holds 400 KB

Subjects = Mapping[str, int]
"""By name, since when: epoch milliseconds."""


@dataclass(frozen=True, slots=True)
class SourcesFound:
    """How the evaluator has found the sources: those that are silent for too long, and those whose parameter cannot be
    read, each with since when. One control item; `version` 0: nothing was ever written.
    """

    silent: Subjects = field(default_factory=dict)
    unreadable: Subjects = field(default_factory=dict)
    version: int = 0

    def moved(self, silent: Subjects, unreadable: Subjects) -> SourcesFound:
        """As they are found now; itself if that is nothing new."""
        found = replace(self, silent=_oldest(silent), unreadable=_oldest(unreadable))
        return self if found == self else replace(found, version=self.version + 1)

    def to_json(self) -> str:
        """Compact JSON, read back by `from_json`."""
        return compact({"silent": self.silent, "unreadable": self.unreadable})

    @staticmethod
    def from_json(text: str, version: int) -> SourcesFound:
        """Raises KeyError, TypeError, ValueError or AttributeError for what was not written here."""
        said: dict[str, Any] = json.loads(text)
        try:
            silent, unreadable = (
                {str(name): int(at_ms) for name, at_ms in said[kind].items()} for kind in ("silent", "unreadable")
            )
        except OverflowError as exc:
            raise ValueError("a time that no calendar has") from exc
        return SourcesFound(silent, unreadable, version)


def _oldest(subjects: Subjects) -> dict[str, int]:
    return dict(in_order(subjects)[:MOST_KEPT])


def in_order(subjects: Subjects) -> Sequence[tuple[str, int]]:
    """The one of longest standing first."""
    return sorted(subjects.items(), key=lambda one: (one[1], one[0]))


def of_sources(found: SourcesFound) -> Mapping[str, Subjects]:
    """By alarm."""
    return {SILENT: found.silent, UNREADABLE: found.unreadable}


def of_health(states: Mapping[str, IntegrationState], now_ms: int) -> Mapping[str, Subjects]:
    """By alarm. Where a person has said how a provider is to be taken, no alarm is about that."""
    judged = {name: state for name, state in states.items() if not state.is_forced_at(now_ms)}
    return {
        alarm: {name: state.since_ms for name, state in judged.items() if state.health is health}
        for alarm, health in ((DOWN, Health.HARD_DOWN), (DEGRADED, Health.DEGRADED))
    }


def of_refusals(counted: Mapping[str, Mapping[int, Counts]], scale: float) -> Mapping[str, Subjects]:
    """By alarm. Since the first of the minutes in which a provider has said that it is called too often."""
    refused = {
        name: [minute for minute, counts in minutes.items() if counts.rate_limited] for name, minutes in counted.items()
    }
    return {REFUSED: {name: min(minutes) * minute_ms(scale) for name, minutes in refused.items() if minutes}}
