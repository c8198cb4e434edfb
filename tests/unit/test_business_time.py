"""When one business day has passed (001.7)."""

from __future__ import annotations

from datetime import date, datetime, time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.core.business_time import Calendar, NeverAtWork

BERLIN = Calendar(
    ZoneInfo("Europe/Berlin"),
    time(9),
    time(17),
    frozenset(range(5)),
    frozenset({date(2026, 12, 25), date(2026, 12, 28)}),
)


def berlin(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=BERLIN.zone).timestamp() * 1000)


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("2026-11-24T10:30", "2026-11-25T10:30"),  # on the next day at the same hour
        ("2026-11-27T16:00", "2026-11-30T16:00"),  # over a weekend
        ("2026-11-28T03:00", "2026-11-30T17:00"),  # nobody works: the whole next working day
        ("2026-11-24T06:00", "2026-11-24T17:00"),  # before work begins
        ("2026-11-24T17:00", "2026-11-25T17:00"),
        ("2026-11-24T22:15", "2026-11-25T17:00"),
        ("2026-12-24T12:00", "2026-12-29T12:00"),  # holidays and a weekend between
        ("2026-10-23T12:00", "2026-10-26T12:00"),  # the clocks change on that Sunday
    ],
)
def test_one_working_day_later(since: str, until: str) -> None:
    assert BERLIN.one_day_after(berlin(since)) == berlin(until)


@given(st.integers(berlin("2026-01-01"), berlin("2027-12-31")))
def test_it_is_always_later_within_working_hours_and_never_far_away(at_ms: int) -> None:
    due_ms = BERLIN.one_day_after(at_ms)
    due = datetime.fromtimestamp(due_ms / 1000, BERLIN.zone)
    assert at_ms < due_ms < at_ms + 8 * 86_400_000
    assert (due.weekday() in BERLIN.workdays, due.date() in BERLIN.holidays) == (True, False)
    assert BERLIN.begins <= due.time() <= BERLIN.ends


def test_a_calendar_without_workdays_is_none() -> None:
    with pytest.raises(NeverAtWork):
        Calendar(BERLIN.zone, time(9), time(17), frozenset()).one_day_after(0)
