"""Attempts, waits and the waits that providers ask for (requirements.md: attempts, backoff, 429)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.core.retry import (
    LONGEST_STATED_WAIT_MS,
    SHORTEST_STATED_WAIT_MS,
    RetryPolicy,
    is_exhausted,
    parse_rate_limit_reset,
    parse_retry_after,
    wait_ms,
)
from tests.unit.builders import CONNECT_REFUSED, DAY, HOUR, MINUTE, NOON_MS, Chance, retryable, stated_429

DEFAULT = RetryPolicy()
MESSAGES = RetryPolicy(max_attempts=3, waits_seconds=(300, 600))


@pytest.fixture(params=["UTC", "Pacific/Auckland"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def test_five_calls_wait_one_two_four_and_eight_minutes_004_7_004_8() -> None:
    longest = [wait_ms(DEFAULT, made, CONNECT_REFUSED, Chance(1), 1.0) for made in (1, 2, 3, 4)]
    shortest = [wait_ms(DEFAULT, made, CONNECT_REFUSED, Chance(0), 1.0) for made in (1, 2, 3, 4)]
    assert longest == [1 * MINUTE, 2 * MINUTE, 4 * MINUTE, 8 * MINUTE]
    assert shortest == [wait // 2 for wait in longest]


def test_three_calls_of_a_message_channel_wait_five_and_ten_minutes_000_7() -> None:
    assert [wait_ms(MESSAGES, made, CONNECT_REFUSED, Chance(1), 1.0) for made in (1, 2)] == [5 * MINUTE, 10 * MINUTE]


def test_waits_are_not_capped_at_a_minute_where_nobody_watches_003_13() -> None:
    assert wait_ms(DEFAULT, 4, CONNECT_REFUSED, Chance(0), 1.0) > MINUTE


@given(st.integers(0, 40), st.floats(0, 1), st.integers(SHORTEST_STATED_WAIT_MS, LONGEST_STATED_WAIT_MS))
def test_a_wait_is_never_below_what_the_provider_asked_for(made: int, share: float, stated: int) -> None:
    assert wait_ms(DEFAULT, made, stated_429(stated), Chance(share), 0.005) >= stated


@given(st.integers(-3, 40), st.floats(0, 1))
def test_a_wait_lies_between_half_and_all_of_its_step_whatever_the_attempt(made: int, share: float) -> None:
    """002.25"""
    step = DEFAULT.waits_seconds[min(max(made, 1), 4) - 1] * 1000
    assert step // 2 <= wait_ms(DEFAULT, made, CONNECT_REFUSED, Chance(share), 1.0) <= step


def test_the_scale_shortens_our_waits_and_never_the_providers() -> None:
    assert wait_ms(DEFAULT, 1, CONNECT_REFUSED, Chance(1), 0.01) == 600
    assert wait_ms(DEFAULT, 1, stated_429(30_000), Chance(1), 0.01) == 30_000


def test_a_policy_of_one_attempt_needs_no_waits_and_still_waits_a_moment() -> None:
    assert wait_ms(RetryPolicy(1, ()), 1, CONNECT_REFUSED, Chance(1), 1.0) == 1


@pytest.mark.parametrize(("attempts", "waits"), [(0, ()), (2, ()), (5, (1, 2, 3)), (-1, (1,))])
def test_a_policy_without_a_wait_between_every_two_calls_is_refused(attempts: int, waits: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="n - 1 waits"):
        RetryPolicy(attempts, waits)


def test_the_first_call_counts_so_the_fifth_is_the_last_004_7_004_9() -> None:
    assert not is_exhausted(DEFAULT, 4, NOON_MS, NOON_MS + HOUR)
    assert is_exhausted(DEFAULT, 5, NOON_MS, NOON_MS + HOUR)


def test_a_call_after_the_budget_of_24_hours_is_not_made() -> None:
    assert not is_exhausted(DEFAULT, 1, NOON_MS, NOON_MS + DAY)
    assert is_exhausted(DEFAULT, 1, NOON_MS, NOON_MS + DAY + 1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("120", 120_000),
        (" 2.5 ", 2_500),
        ("0", SHORTEST_STATED_WAIT_MS),
        ("0.001", SHORTEST_STATED_WAIT_MS),
        ("86400", LONGEST_STATED_WAIT_MS),
        ("9" * 60, LONGEST_STATED_WAIT_MS),
        ("-5", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("", None),
        ("soon", None),
        ("Thu, 99 Foo 2026 25:61:61 GMT", None),
        ("x" * 10_000, None),
        ("9" * 10_000, LONGEST_STATED_WAIT_MS),
        ("12.", 12_000),
        ("-0", None),
        ("+5", None),
        ("5s", None),
        ("0x10", None),
        ("1_000", None),
        ("1e3", None),
        ("NaN", None),
        ("-Infinity", None),
        ("\u0661\u0662", None),  # digits, in Arabic: int() and float() read them
        ("\uff11\uff12", None),  # and of full width
        ("1\x002", None),
        ("120, 120", None),  # two headers made one
        (str(NOON_MS // 1000 + 45), 45_000),
        (str(NOON_MS + 45_000), 45_000),
        (str(NOON_MS // 1000 - 45), SHORTEST_STATED_WAIT_MS),
        (str(NOON_MS * 10**6), LONGEST_STATED_WAIT_MS),  # nanoseconds since the epoch: far, whatever they count
        ("Thu, 01 Jan 1970 00:00:00 GMT", SHORTEST_STATED_WAIT_MS),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_STATED_WAIT_MS),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("Thu, 01 Jan 2026 00:01:00 +9999", None),
    ],
)
def test_retry_after_is_read_as_seconds_clamped_or_not_at_all(value: str, expected: int | None) -> None:
    """002.24"""
    assert parse_retry_after(value, NOON_MS) == expected


@pytest.mark.parametrize("shift_seconds", [90, -90])
def test_retry_after_is_read_as_a_date_in_every_form_of_rfc_9110(zone: str, shift_seconds: int) -> None:
    at = datetime.fromtimestamp(NOON_MS / 1000 + shift_seconds, UTC)
    expected = max(shift_seconds * 1000, SHORTEST_STATED_WAIT_MS)
    for value in (
        format_datetime(at, usegmt=True),
        at.strftime("%A, %d-%b-%y %H:%M:%S GMT"),
        at.strftime("%a %b %d %H:%M:%S %Y"),  # asctime names no zone: it is UTC, wherever we run
        at.strftime("%a, %d %b %Y %H:%M:%S -0000"),
    ):
        assert parse_retry_after(value, NOON_MS) == expected, value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("30", 30_000),
        (str(NOON_MS // 1000 + 45), 45_000),
        (str(NOON_MS + 45_000), 45_000),
        (str(NOON_MS // 1000 - 45), SHORTEST_STATED_WAIT_MS),
        (str(NOON_MS // 1000 + 10**6), LONGEST_STATED_WAIT_MS),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60_000),
        ("later", None),
        ("-1", None),
    ],
)
def test_a_reset_header_is_seconds_or_a_point_in_time_003_17(value: str, expected: int | None) -> None:
    assert parse_rate_limit_reset(value, NOON_MS) == expected


@given(st.text(max_size=80) | st.floats().map(str) | st.integers().map(str), st.integers(0, 2**53))
def test_whatever_a_header_says_the_wait_is_none_or_within_its_bounds(value: str, now_ms: int) -> None:
    for parse in (parse_retry_after, parse_rate_limit_reset):
        wait = parse(value, now_ms)
        assert wait is None or (SHORTEST_STATED_WAIT_MS <= wait <= LONGEST_STATED_WAIT_MS and math.isfinite(wait))


def test_a_503_with_retry_after_waits_at_least_that_long() -> None:
    assert wait_ms(DEFAULT, 1, retryable(retry_after_ms=90_000), Chance(0), 1.0) == 90_000
