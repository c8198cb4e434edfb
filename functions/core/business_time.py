"""When people are at work, so that "one business day" is a moment (runbook 001, SEV-3). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

_FARTHEST = 400  # days that are looked through: a calendar without any workday in them is none


class NeverAtWork(ValueError):
    """The calendar has no working hours within a year."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """Working hours in one time zone. `workdays` are numbers, Monday is 0; `holidays` are days without any."""

    zone: ZoneInfo
    begins: time
    ends: time
    workdays: frozenset[int]
    holidays: frozenset[date] = frozenset()

    def one_day_after(self, at_ms: int) -> int:
        """The moment at which one working day has passed since then, counted in working hours only: on the next one at
        the same hour, or at its end for what came while nobody works. Epoch milliseconds. Raises `NeverAtWork`.

        Hours are counted by the wall clock: the day on which clocks change is as long as any other.
        """
        left = datetime.combine(date.min, self.ends) - datetime.combine(date.min, self.begins)
        since = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(self.zone).replace(tzinfo=None)
        for day in self._workdays_from(since.date()):
            begins = max(datetime.combine(day, self.begins), since)
            there = datetime.combine(day, self.ends) - begins
            if there >= left:
                at = (begins + left).replace(tzinfo=self.zone)
                return int(at.timestamp() * 1000)
            left -= max(there, timedelta(0))
        raise NeverAtWork(f"no working hours within {_FARTHEST} days")

    def _workdays_from(self, first: date) -> Iterator[date]:
        days = (first + timedelta(days=number) for number in range(_FARTHEST))
        return (day for day in days if day.weekday() in self.workdays and day not in self.holidays)
