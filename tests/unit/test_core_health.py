"""The health machine, minute by minute on a made-up clock (resilience of integrations: architecture §8)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import pytest

from functions.core import health as machine
from functions.core.audit import AuditEvent, AuditType, Severity
from functions.core.decision import Repeat
from functions.core.failure import (
    Done,
    Failure,
    FailureClass,
    IllegalTransition,
    NetworkCause,
    failure_of_network,
    failure_of_status,
)
from functions.core.gate import Health, IntegrationState
from functions.core.health import (
    SHORTEST_UNJUDGED_MS,
    UNJUDGED_MS,
    CallOutcome,
    Counts,
    Edge,
    HealthEvent,
    Record,
    Thresholds,
    evaluate,
    has_taken,
    is_kept_up,
    last_closed,
    minute_ms,
    minute_of,
    outcome_of,
    outcome_of_classifier,
    pending_minutes,
    probed,
    release_share,
)
from functions.core.integration import Integration, KindRules
from functions.core.ports import Absent, SettingState
from tests.fakes import NOON_MS
from tests.unit.builders import ROLE_REFUSED

M0 = 29_453_760  # the minute that m0 of a scenario is
MIN_MS = 60_000
RULES = Thresholds()


def calls(ok: int = 0, error: int = 0) -> Counts:
    return Counts(ok=ok, error=error)


def refused(number: int) -> Counts:
    return Counts(error=number, unreachable=number)


def locked_out(*tenants: str) -> Counts:
    return Counts(auth=len(tenants), auth_tenants=frozenset(machine.tenant_bucket(tenant) for tenant in tenants))


WELL, BAD, DEAD, SILENT = calls(100), calls(50, 50), calls(0, 100), Counts()
NEARLY = calls(99, 1)  # over the recovery threshold, with an error


@dataclass
class Story:
    """One integration's minutes. `moves` are the minutes, from m0 on, at whose end its state changed, and to what."""

    rules: Thresholds = RULES
    scale: float = 1.0
    record: Record = field(default_factory=Record)
    moves: list[tuple[int, Health]] = field(default_factory=list)
    audit: list[AuditEvent] = field(default_factory=list)
    at: int = -1

    def minutes(self, *counts: Counts, times: int = 1) -> Story:
        for each in counts * times:
            self.minute(each)
        return self

    def minute(self, counts: Counts) -> None:
        self.at += 1
        now_ms = (M0 + self.at + 1) * minute_ms(self.scale) + 5_000
        change = evaluate("desk", self.record, [(M0 + self.at, counts)], self.rules, now_ms, self.scale)
        assert change is not None
        assert change.seen_version == self.record.version
        assert change.after.version == self.record.version + 1
        self.record = change.after
        self.moves.extend((self.at, edge.next) for edge in change.edges)
        self.audit.extend(change.audit)

    def until(self, last: int, counts: Counts) -> Story:
        """Up to and with that minute."""
        return self.minutes(counts, times=last - self.at)


# -------------------------------------------------------------------------------------- the scenarios of the design


def test_an_outage_from_m30_to_m59_is_degraded_at_m39_and_healthy_at_m74() -> None:
    """000.22, 000.23: ten minutes in, fifteen minutes out, to the minute."""
    story = Story().until(29, WELL).until(59, BAD).until(120, WELL)
    assert story.moves == [(39, Health.DEGRADED), (74, Health.HEALTHY)]
    assert [event.at_ms for event in story.audit] == [(M0 + 40) * MIN_MS, (M0 + 75) * MIN_MS]


def test_nine_bad_minutes_are_nothing_and_the_tenth_is_degraded() -> None:
    """000.22"""
    assert Story().minutes(BAD, times=9).until(60, WELL).moves == []
    assert Story().minutes(BAD, times=10).moves == [(9, Health.DEGRADED)]


def test_fourteen_good_minutes_do_not_end_it_and_a_minute_between_the_thresholds_begins_anew() -> None:
    """000.23: recovery is sustained, or it is none."""
    between = calls(92, 8)
    story = Story().minutes(BAD, times=10).minutes(WELL, times=14).minutes(between).minutes(WELL, times=14)
    assert story.moves == [(9, Health.DEGRADED)]
    assert story.minutes(WELL).moves[1:] == [(39, Health.HEALTHY)]


@pytest.mark.parametrize("start", [Health.HEALTHY, Health.DEGRADED])
def test_a_ratio_between_the_thresholds_never_moves_anything(start: Health) -> None:
    """000.23: 0.92 for ever neither degrades nor recovers."""
    assert Story(record=Record(start)).minutes(calls(92, 8), times=500).moves == []


def test_five_minutes_on_and_five_off_is_degraded_and_stays_it() -> None:
    """000.22: what never fails for ten minutes in a row is failing all the same."""
    story = Story().minutes(*(BAD,) * 5, *(WELL,) * 5, times=20)
    assert story.moves == [(24, Health.DEGRADED)]


def test_two_calls_a_minute_that_all_fail_are_noticed_as_fast_as_many() -> None:
    """000.22: in a quiet integration ten minutes with five calls are enough to judge by."""
    story = Story().minutes(calls(2), times=60)
    quiet = story.minutes(calls(0, 2), times=30)
    assert [move for move in quiet.moves if move[1] is Health.DEGRADED] == []
    assert quiet.moves[0] == (66, Health.HARD_DOWN)  # the third minute in which five minutes hold ten failures
    slow = Story().minutes(calls(0, 1), times=40)
    assert slow.moves == [(4 + 9, Health.DEGRADED)]  # the fifth minute is the first with five calls


def test_near_total_failure_of_three_minutes_is_hard_down_at_the_third() -> None:
    """003.8, 003.25"""
    assert Story().minutes(WELL, DEAD, DEAD).minutes(calls(9, 91)).moves == [(3, Health.HARD_DOWN)]
    assert Story().minutes(WELL, DEAD, DEAD).minutes(calls(10, 90)).until(8, DEAD).moves == [(6, Health.HARD_DOWN)]


def test_ten_connections_in_a_row_that_do_not_come_about_are_hard_down_in_that_minute() -> None:
    """003.8: ECONNREFUSED, ten in a row, whatever the minute's ratio is."""
    assert Story().minutes(WELL, refused(9)).minutes(refused(1)).moves == [(2, Health.HARD_DOWN)]
    assert Story().minutes(refused(6)).minutes(Counts(ok=1, error=9, unreachable=9)).minutes(refused(9)).moves == []
    assert Story().minutes(refused(10)).moves == [(0, Health.HARD_DOWN)]


@pytest.mark.parametrize("answer", [Counts(ok=1), Counts(ours=1), Counts(rate_limited=1), Counts(auth=1)])
def test_whatever_is_answered_ends_the_row_of_refused_connections(answer: Counts) -> None:
    assert Story().minutes(refused(9), answer, refused(1)).moves == []


def test_half_an_hour_of_silence_ends_the_row_of_refused_connections() -> None:
    assert Story().minutes(refused(9)).minutes(SILENT, times=28).minutes(refused(1)).moves == [(29, Health.HARD_DOWN)]
    assert Story().minutes(refused(9)).minutes(SILENT, times=29).minutes(refused(1)).moves == []


def test_one_tenants_refused_credential_takes_nothing_down_and_three_do_at_once() -> None:
    """000.5: one credential's 401 is that tenant's trouble."""
    assert Story().minutes(locked_out(*("acme",) * 500), times=60).moves == []
    assert Story().minutes(locked_out("acme", "bolt"), times=60).moves == []
    assert Story().minutes(WELL + locked_out("acme", "bolt", "coil")).moves == [(0, Health.HARD_DOWN)]
    assert Story().minutes(locked_out("acme"), locked_out("bolt"), locked_out("coil")).moves == []


def test_silence_neither_degrades_nor_declares_recovery() -> None:
    assert Story().minutes(SILENT, times=300).moves == []
    story = Story().minutes(BAD, times=10).minutes(SILENT, times=300)
    assert story.moves == [(9, Health.DEGRADED)]
    almost = Story().minutes(BAD, times=10).minutes(WELL, times=14).minutes(SILENT, times=40)
    assert almost.moves == [(9, Health.DEGRADED)]


def test_five_silent_minutes_hold_a_timer_and_the_sixth_drops_it() -> None:
    held = Story().minutes(BAD, times=9).minutes(SILENT, times=5).minutes(BAD)
    assert held.moves == [(14, Health.DEGRADED)]
    dropped = Story().minutes(BAD, times=5).minutes(SILENT, times=6).minutes(BAD, times=9)
    assert dropped.moves == []
    assert dropped.minutes(BAD).moves == [(20, Health.DEGRADED)]
    good = Story().minutes(BAD, times=10).minutes(WELL, times=14).minutes(SILENT, times=5).minutes(WELL)
    assert good.moves[1:] == [(29, Health.HEALTHY)]
    begun_anew = Story().minutes(BAD, times=10).minutes(NEARLY, times=14).minutes(SILENT, times=6)
    assert begun_anew.minutes(NEARLY, times=14).moves[1:] == []
    assert begun_anew.minutes(NEARLY).moves[1:] == [(44, Health.HEALTHY)]


def test_a_burst_of_failures_in_one_minute_is_one_minute_however_wide_the_window_is() -> None:
    """000.22: three minutes and ten minutes mean minutes, not calls."""
    assert Story().minutes(calls(0, 100)).minutes(SILENT, times=60).moves == []
    assert Story().minutes(calls(0, 8)).minutes(calls(1), times=60).moves == []


def test_a_quiet_integrations_two_failures_in_one_minute_do_not_fill_a_timer() -> None:
    story = Story().minutes(calls(1), times=20).minutes(calls(0, 2)).minutes(calls(1), times=60)
    assert story.moves == []
    assert story.record.bad == 0


def test_too_few_calls_say_nothing() -> None:
    assert Story().minutes(calls(0, 1), SILENT, SILENT, SILENT, times=30).moves == []


def test_breaches_from_before_a_long_silence_are_history() -> None:
    story = Story().minutes(*(BAD,) * 5, *(WELL,) * 5, times=2).minutes(BAD, times=4)
    assert story.record.recent.count("1") == 14
    assert story.minutes(SILENT, times=29).minutes(BAD).moves == [(53, Health.DEGRADED)]
    other = Story().minutes(*(BAD,) * 5, *(WELL,) * 5, times=2).minutes(BAD, times=4)
    assert other.minutes(SILENT, times=30).minutes(BAD).moves == []


def test_429_and_stated_pauses_and_our_own_mistakes_never_degrade() -> None:
    """000.22: a provider that says when to come back is not failing."""
    assert Story().minutes(Counts(rate_limited=500, ours=500), times=120).moves == []


def test_a_threshold_and_a_minimum_are_those_of_the_integration() -> None:
    picky = Thresholds(success=0.95, recovery=0.99, minimum_calls=100)
    assert Story(picky).minutes(calls(94, 6), times=10).moves == [(9, Health.DEGRADED)]
    assert Story(picky).minutes(calls(95, 5), times=60).moves == []
    hundred = Story(picky).minutes(calls(50), calls(0, 6), calls(60), calls(100))  # three minutes make a hundred
    assert (hundred.record.bad, hundred.record.recent) == (0, "0110")


def test_a_window_is_widened_until_it_holds_enough_calls_and_to_five_minutes_at_the_most() -> None:
    story = Story().minutes(calls(0, 20), calls(10), calls(10))
    assert story.record.recent == "110"  # 0 of 20; 10 of 30; 20 of 20
    far = Story().minutes(calls(0, 20), calls(4), calls(4), calls(4), calls(4), calls(4), calls(4))
    # Five minutes without the first hold 20 calls; where they hold less, ten minutes are looked at, and those that went
    # well by themselves do not count against it.
    assert far.record.recent == "1111100"


def test_degraded_goes_down_further_by_the_same_rules() -> None:
    for event in (refused(10), locked_out("a", "b", "c")):
        assert Story(record=Record(Health.DEGRADED)).minutes(event).moves == [(0, Health.HARD_DOWN)]
    assert Story(record=Record(Health.DEGRADED)).minutes(DEAD, times=3).moves == [(2, Health.HARD_DOWN)]


def test_while_it_is_down_no_count_moves_it() -> None:
    """000.23: the way out is a probe."""
    story = Story().minutes(DEAD, times=3).minutes(WELL, times=100).minutes(DEAD, times=10)
    assert story.moves == [(2, Health.HARD_DOWN)]


def test_minutes_shrink_with_the_stages_waits_but_not_below_a_second() -> None:
    assert [minute_ms(scale) for scale in (1.0, 0.5, 1 / 60, 1 / 600)] == [60_000, 30_000, 1_000, 1_000]
    story = Story(scale=1 / 60).minutes(WELL, times=5).minutes(BAD, times=10)
    assert story.moves == [(14, Health.DEGRADED)]
    assert story.record.since_ms == (M0 + 15) * 1_000


# ----------------------------------------------------------------------------------------- recovery where calls are few


def released() -> Story:
    """Degraded at m2's end by three probes that succeeded, with nothing to judge by."""
    down = replace(Story().minutes(DEAD, times=3).record, probe_by="me", probe_ok=2)
    opened = probed("desk", down, "me", CallOutcome.OK, (M0 + 3) * MIN_MS, 1.0)
    assert opened is not None
    assert (opened.after.health, opened.after.window) == (Health.DEGRADED, ())
    return Story(record=opened.after, at=2)


def every(minutes: int, counts: Counts | None = None) -> tuple[Counts, ...]:
    """So many minutes, and calls in the last of them."""
    return (*(SILENT,) * (minutes - 1), calls(1) if counts is None else counts)


@pytest.mark.parametrize("gap", [3, 10, 20, 60])
def test_a_quiet_integration_is_well_again_with_the_fifteenth_call_in_a_row_that_succeeds(gap: int) -> None:
    """000.23: one call in ten or twenty minutes fills no timer, and must not leave it degraded for ever."""
    story = released().minutes(*every(gap), times=14).minutes(*every(gap)[:-1])
    assert (story.moves, story.record.good) == ([], 0)
    story.minute(calls(1))
    assert story.moves == [(2 + 15 * gap, Health.HEALTHY)]
    assert story.record.reason == f"recovered: 15 calls in a row succeeded, over {14 * gap} minutes"
    assert (story.record.unbroken, story.record.unbroken_from) == (0, 0)
    assert [event.at_ms for event in story.audit] == [(M0 + 3 + 15 * gap) * MIN_MS]
    assert story.minutes(*every(gap), times=20).moves == [(2 + 15 * gap, Health.HEALTHY)]


def test_a_burst_of_successes_is_recovery_only_when_one_more_comes_fifteen_minutes_later() -> None:
    """000.23: fifteen minutes are fifteen minutes, however many calls are in the first of them."""
    assert released().minutes(calls(40), *every(14)).moves == []
    assert released().minutes(calls(40), *every(14), calls(1)).moves == [(18, Health.HEALTHY)]
    story = released().minutes(calls(40), *every(15))
    assert story.moves == [(18, Health.HEALTHY)]
    assert story.record.reason == "recovered: 41 calls in a row succeeded, over 15 minutes"
    assert released().minutes(calls(13), *every(15)).moves == []
    assert released().minutes(calls(14), *every(15)).moves == [(18, Health.HEALTHY)]


def test_where_the_timer_is_full_first_the_reason_says_that_it_was_the_timer() -> None:
    story = Story(record=Record(Health.DEGRADED)).minutes(WELL, times=15)
    assert story.record.reason == "recovered: 100 of 100 calls succeeded in the last minute; well for 15 minutes"


@pytest.mark.parametrize("end", [calls(0, 1), calls(30, 1), locked_out("acme"), calls(1) + locked_out("acme")])
def test_one_error_or_refused_credential_begins_the_row_of_successes_anew(end: Counts) -> None:
    """000.23"""
    story = released().minutes(*every(10), times=14).minutes(*every(10, end))
    assert (story.record.unbroken, story.record.unbroken_from) == (0, 0)
    assert story.minutes(*every(10), times=14).moves == []
    assert story.minutes(*every(10)).moves == [(2 + 300, Health.HEALTHY)]


def test_what_fails_every_fifteenth_time_is_never_well_by_the_calls_in_a_row() -> None:
    """000.23: flapping at low traffic."""
    assert released().minutes(*every(10) * 14, *every(10, calls(0, 1)), times=50).moves == []


@pytest.mark.parametrize("neutral", [Counts(rate_limited=3), Counts(ours=3)])
def test_what_says_neither_yes_nor_no_neither_adds_to_the_row_nor_ends_it(neutral: Counts) -> None:
    story = released().minutes(*every(10), times=14).minutes(*every(10, neutral))
    assert (story.moves, story.record.unbroken) == ([], 14)
    assert story.minutes(*every(10)).moves == [(2 + 160, Health.HEALTHY)]


def test_silence_after_a_row_of_successes_is_no_recovery_however_long_it_is() -> None:
    story = released().minutes(calls(40)).minutes(SILENT, times=3_000)
    assert story.moves == []
    assert story.minutes(Counts(ours=1), Counts(rate_limited=1)).moves == []


def test_minutes_that_nobody_looked_at_end_the_row_of_successes() -> None:
    """What was in them cannot be known, so that what came before them says nothing any more."""
    story = released().minutes(*every(10), times=14)
    late, edges = evaluated(story.record, story.at + 100, [calls(1)])
    assert (edges, late.unbroken, late.unbroken_from) == ([], 1, M0 + story.at + 100)
    seen, edges = evaluated(story.record, story.at + 1, [SILENT] * 59 + [calls(1)])  # late, and looked at all the same
    assert [edge.event for edge in edges] == [HealthEvent.RECOVERED]
    assert seen.health is Health.HEALTHY


def test_a_minute_that_is_judged_twice_adds_nothing_to_what_was_seen_of_it() -> None:
    """A clock that was ahead has judged minutes that had not closed."""
    ahead, _ = evaluated(released().record, 3, [calls(10), *(SILENT,) * 19])
    closed = M0 + 12
    assert pending_minutes(ahead, closed) == [closed]
    back, edges = evaluated(ahead, 12, [calls(10)])
    assert (edges, back.unbroken, back.unbroken_from) == ([], 10, closed)


def test_successes_are_counted_in_a_row_only_while_it_is_degraded() -> None:
    assert Story().minutes(WELL, times=30).record.unbroken == 0
    begun = Story().minutes(BAD, times=10)
    assert (begun.record.health, begun.record.unbroken) == (Health.DEGRADED, 0)
    again = released().minutes(*every(10), times=5).minutes(*(DEAD,) * 3)
    assert (again.record.health, again.record.unbroken, again.record.unbroken_from) == (Health.HARD_DOWN, 0, 0)


# ----------------------------------------------------------------------------------------------- gaps, clocks, restarts


def evaluated(record: Record, first: int, counts: Iterable[Counts], now_ms: int = 0) -> tuple[Record, list[Edge]]:
    judged = [(M0 + first + place, each) for place, each in enumerate(counts)]
    change = evaluate("desk", record, judged, RULES, now_ms or (judged[-1][0] + 1) * MIN_MS, 1.0)
    assert change is not None
    return change.after, list(change.edges)


def test_minutes_that_an_evaluator_missed_are_judged_in_order_with_the_same_result() -> None:
    whole = Story().until(29, WELL).until(59, BAD)
    late, edges = evaluated(Story().until(29, WELL).record, 30, [BAD] * 30)
    assert [edge.next for edge in edges] == [Health.DEGRADED]
    assert replace(late, version=0) == replace(whole.record, version=0)
    assert late.since_ms == (M0 + 40) * MIN_MS


def test_what_is_stored_is_all_there_is_so_that_a_restart_in_the_middle_loses_nothing() -> None:
    story = Story().until(29, WELL).until(35, BAD)
    for at in range(36, 60):  # each minute another evaluator
        after, edges = evaluated(story.record, at, [BAD])
        story.record = after
        if edges:
            assert (at, edges[0].next) == (39, Health.DEGRADED)
    assert story.record.health is Health.DEGRADED


def test_only_what_has_closed_and_was_written_is_judged() -> None:
    assert last_closed(100 * MIN_MS + 4_999, 1.0) == 98
    assert last_closed(100 * MIN_MS + 5_000, 1.0) == 99
    assert minute_of(100 * MIN_MS + 59_999, 1.0) == 100
    assert minute_of(100 * 1_000, 1 / 60) == 100
    assert [last_closed(100 * 1_000 + ms, 1 / 60) for ms in (499, 500)] == [98, 99]


@pytest.mark.parametrize(
    ("seen", "closed", "expected"),
    [
        (0, 500, [500]),  # never looked at: what was before it is nobody's business
        (499, 500, [500]),
        (500, 500, []),
        (497, 500, [498, 499, 500]),
        (503, 500, []),  # two machines' clocks differ by a little
        (505, 500, []),
        (506, 500, [500]),  # a clock that was far ahead wrote it
        (100, 500, list(range(441, 501))),
    ],
)
def test_missed_minutes_are_made_up_for_within_bounds(seen: int, closed: int, expected: list[int]) -> None:
    assert pending_minutes(Record(minute=seen), closed) == expected


def test_minutes_that_are_past_judging_are_silence() -> None:
    story = Story().minutes(BAD, times=9)
    few, _ = evaluated(story.record, 12, [BAD])
    assert few.health is Health.DEGRADED  # three were missed: the timer was held
    many, _ = evaluated(story.record, 300, [BAD])
    assert (many.health, many.bad) == (Health.HEALTHY, 1)
    assert many.window[-2:] == ((0, 0), (50, 50))


def test_a_clock_that_jumps_ahead_and_back_moves_nothing_by_itself() -> None:
    story = Story().minutes(BAD, times=5)
    ahead, edges = evaluated(story.record, 5, [SILENT] * 60)
    assert (edges, ahead.health, ahead.bad) == ([], Health.HEALTHY, 0)
    closed = M0 + 6
    assert pending_minutes(ahead, closed) == [closed]
    back, edges = evaluated(ahead, 6, [BAD])
    assert (edges, back.minute, back.bad) == ([], closed, 1)


def test_a_minute_without_news_still_moves_the_mark_and_no_minute_is_no_write() -> None:
    story = Story().minutes(WELL)
    assert story.record.minute == M0
    assert evaluate("desk", story.record, [], RULES, (M0 + 1) * MIN_MS, 1.0) is None


# ------------------------------------------------------------------------------------------------------------- counting


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (Done("1"), CallOutcome.OK),
        (Absent(), CallOutcome.OK),
        (SettingState("x"), CallOutcome.OK),
        *[(failure_of_status(status), CallOutcome.ERROR) for status in (500, 502, 503, 504, 599, 408, 302)],
        *[(failure_of_status(status), CallOutcome.OURS) for status in (400, 404, 409, 410, 422, 425)],
        *[(failure_of_status(status), CallOutcome.AUTH) for status in (401, 403)],
        (failure_of_status(429), CallOutcome.RATE_LIMITED),
        (failure_of_status(200, body_code="RATE_LIMIT_EXCEEDED"), CallOutcome.RATE_LIMITED),
        (failure_of_status(503, retry_after_ms=1_000), CallOutcome.RATE_LIMITED),
        (failure_of_status(500, retry_after_ms=1_000), CallOutcome.ERROR),
        (failure_of_network(NetworkCause.DNS), CallOutcome.UNREACHABLE),
        (failure_of_network(NetworkCause.CONNECT_REFUSED), CallOutcome.UNREACHABLE),
        (failure_of_network(NetworkCause.CONNECT_TIMEOUT), CallOutcome.UNREACHABLE),
        (failure_of_network(NetworkCause.TLS), CallOutcome.UNREACHABLE),
        (failure_of_network(NetworkCause.READ_TIMEOUT), CallOutcome.ERROR),
        (failure_of_network(NetworkCause.DEADLINE), CallOutcome.ERROR),
        (failure_of_network(NetworkCause.RESET), CallOutcome.ERROR),
        (failure_of_network(NetworkCause.PROTOCOL), CallOutcome.ERROR),
        (failure_of_network(NetworkCause.POOL_TIMEOUT), CallOutcome.NOT_MADE),
        (failure_of_network(NetworkCause.NOT_STARTED), CallOutcome.NOT_MADE),
        (Failure(FailureClass.TRANSIENT, "CREDENTIAL_UNREADABLE", "", True, False), CallOutcome.NOT_MADE),
        (Failure(FailureClass.AUTH_ERROR, "CREDENTIAL_MALFORMED", "", False, False), CallOutcome.NOT_MADE),
        (ROLE_REFUSED, CallOutcome.ERROR),
        (Failure(FailureClass.DATA_ERROR, "PARAMS_INVALID", "", False, False), CallOutcome.NOT_MADE),
        (Failure(FailureClass.TRANSIENT, "ADAPTER_DEFECT", "", True, True), CallOutcome.ERROR),
    ],
    ids=str,
)
def test_what_counts_against_an_integration(result: object, expected: CallOutcome) -> None:
    """003.8: timeouts, no connection, TLS, 5xx and answers that make no sense; nothing that is our own fault."""
    assert outcome_of(result) is expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("LLM_DEADLINE", CallOutcome.ERROR),
        ("DEADLINE", CallOutcome.ERROR),
        ("LLM_SERVER_ERROR", CallOutcome.ERROR),
        ("LLM_BAD_ANSWER", CallOutcome.ERROR),
        ("ADAPTER_DEFECT", CallOutcome.ERROR),
        ("LLM_UNREACHABLE", CallOutcome.UNREACHABLE),
        ("LLM_RATE_LIMITED", CallOutcome.RATE_LIMITED),
        ("LLM_AUTH", CallOutcome.AUTH),
        ("LLM_REFUSED_REQUEST", CallOutcome.OURS),
        ("LLM_DECLINED", CallOutcome.OURS),
        ("LLM_CUT_SHORT", CallOutcome.OURS),
        ("LLM_NOT_CONFIGURED", CallOutcome.NOT_MADE),
    ],
)
def test_what_counts_against_the_llm(code: str, expected: CallOutcome) -> None:
    assert outcome_of_classifier(code) is expected


def test_counts_add_up_and_tenants_are_bounded() -> None:
    each = {outcome: machine.counted(outcome, "acme") for outcome in CallOutcome}
    total = sum(each.values(), Counts())
    assert (total.ok, total.error, total.unreachable, total.rate_limited, total.auth, total.ours) == (1, 2, 1, 1, 1, 1)
    assert total.judged == 3
    assert each[CallOutcome.NOT_MADE] == Counts()
    everybody = sum((machine.counted(CallOutcome.AUTH, f"tenant-{n}") for n in range(5_000)), Counts())
    assert len(everybody.auth_tenants) <= machine.TENANT_BUCKETS
    assert "acme" not in str(total.auth_tenants)


# --------------------------------------------------------------------------------------------------------------- probes

DOWN = Record(Health.HARD_DOWN, since_ms=1_000, probe_at_ms=31_000, probe_by="me", version=7, minute=M0 - 1)


def found(record: Record, outcome: CallOutcome | None, now_ms: int = 40_000) -> Record:
    change = probed("desk", record, "me", outcome, now_ms, 1.0)
    assert change is not None
    assert (change.seen_version, change.after.version) == (record.version, record.version + 1)
    assert change.after.probe_by == ""
    return change.after


def test_three_probes_in_a_row_open_it_and_what_waits_is_let_go_little_by_little() -> None:
    """000.23: out of hard_down only to degraded."""
    once = found(DOWN, CallOutcome.OK)
    assert (once.health, once.probe_ok, once.probe_at_ms) == (Health.HARD_DOWN, 1, 45_000)
    twice = found(replace(once, probe_by="me"), CallOutcome.OK, 50_000)
    assert (twice.health, twice.probe_ok) == (Health.HARD_DOWN, 2)
    change = probed("desk", replace(twice, probe_by="me"), "me", CallOutcome.OK, 60_000, 1.0)
    assert change is not None
    assert (change.after.health, change.after.since_ms, change.after.ramp_from_ms) == (Health.DEGRADED, 60_000, 60_000)
    assert (change.after.probe_ok, change.after.probe_at_ms) == (0, 0)
    assert [edge.event for edge in change.edges] == [HealthEvent.PROBED]
    (event,) = change.audit
    assert (event.event_type, event.severity, event.entity) == (
        AuditType.HEALTH_CHANGED,
        Severity.WARNING,
        "integration#desk",
    )


@pytest.mark.parametrize("outcome", [CallOutcome.ERROR, CallOutcome.UNREACHABLE, CallOutcome.AUTH])
def test_a_probe_that_fails_begins_the_row_anew_and_the_next_one_waits_longer_each_time(outcome: CallOutcome) -> None:
    record, waits = replace(DOWN, probe_ok=2), []
    for _ in range(12):
        record = replace(found(record, outcome), probe_by="me")
        assert record.probe_ok == 0
        waits.append((record.probe_at_ms - 40_000) // 1_000)
    assert waits == [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]


@pytest.mark.parametrize("outcome", [CallOutcome.RATE_LIMITED, CallOutcome.OURS])
def test_an_answer_that_says_neither_yes_nor_no_leaves_the_row_as_it_is(outcome: CallOutcome) -> None:
    after = found(replace(DOWN, probe_ok=2), outcome)
    assert (after.probe_ok, after.probe_at_ms, after.reopened) == (2, 70_000, 0)


@pytest.mark.parametrize("outcome", [None, CallOutcome.NOT_MADE])
def test_a_probe_without_a_call_is_free_again_at_once(outcome: CallOutcome | None) -> None:
    after = found(replace(DOWN, probe_ok=2), outcome)
    assert (after.probe_ok, after.probe_at_ms, after.reopened) == (2, 40_000, 0)


def test_a_probe_that_is_not_theirs_any_more_changes_nothing() -> None:
    assert probed("desk", DOWN, "another", CallOutcome.OK, 40_000, 1.0) is None
    assert probed("desk", replace(DOWN, health=Health.DEGRADED), "me", CallOutcome.ERROR, 40_000, 1.0) is None


def test_the_first_probe_comes_half_a_minute_after_it_went_down_and_later_if_it_keeps_going_down() -> None:
    story = Story().minutes(DEAD, times=3)
    down = story.record
    assert down.probe_at_ms == down.since_ms + 30_000
    assert (down.probe_ok, down.probe_by, down.ramp_from_ms) == (0, "", 0)
    flappy = replace(down, health=Health.DEGRADED, reopened=3, ramp_from_ms=5)
    again = Story(record=flappy, at=2).minutes(DEAD, times=3).record
    assert (again.health, again.reopened, again.ramp_from_ms) == (Health.HARD_DOWN, 4, 0)
    assert again.probe_at_ms == again.since_ms + 120_000
    healthy = Story(record=flappy, at=2).minutes(WELL, times=15).record
    assert (healthy.health, healthy.reopened) == (Health.HEALTHY, 0)


def test_a_take_of_the_probe_that_met_itself_is_known_by_its_name_and_its_lease() -> None:
    taken = Record(health=Health.HARD_DOWN, probe_by="p", probe_at_ms=1_009)
    assert has_taken(taken, "p", 1_000, 1_009)
    assert not has_taken(taken, "q", 1_000, 1_009)
    assert not has_taken(taken, "p", 1_000, 1_008)
    assert not has_taken(replace(taken, health=Health.DEGRADED), "p", 1_000, 1_009)
    held = replace(taken, override=Health.HARD_DOWN, override_until_ms=1_001)
    assert not has_taken(held, "p", 1_000, 1_009)
    assert has_taken(held, "p", 1_001, 1_009)


def test_a_probe_is_one_callers_for_longer_than_its_calls_can_take() -> None:
    assert machine.probe_lease(1.0) == 30_000
    assert machine.probe_lease(1 / 60) == 20_000 > 2 * 8_000


def test_whose_unknown_outcome_would_be_a_persons_probes_only_where_there_is_no_other_kind() -> None:
    mixed = Integration(
        "desk", {"a": KindRules("a", Repeat.BLIND), "b": KindRules("b", Repeat.LOOKUP, can_look_up=True)}
    )
    blind = Integration("bell", {"a": KindRules("a", Repeat.BLIND)})
    free = IntegrationState("desk", Health.HARD_DOWN, probe_at_ms=NOW)
    assert not machine.may_be_probe(mixed, Repeat.BLIND, free, NOW, 1.0)
    assert machine.may_be_probe(mixed, Repeat.LOOKUP, free, NOW, 1.0)
    assert machine.may_be_probe(blind, Repeat.BLIND, free, NOW, 1.0)
    forsaken = NOW + machine.LONGEST_PROBE_SPACING_MS  # no other kind has come: it would wait for ever
    assert machine.may_be_probe(mixed, Repeat.BLIND, free, forsaken, 1.0)
    assert not machine.may_be_probe(mixed, Repeat.BLIND, free, forsaken - 1, 1.0)


# ------------------------------------------------------------------------------------------------------------ operators

NOW = 1_000_000


def forced(record: Record, health: Health, *, minutes: int = 30, now_ms: int = NOW) -> Record:
    change = machine.force(
        "desk", record, health, now_ms + minutes * MIN_MS, actor="anna", reason="their maintenance", now_ms=now_ms
    )
    assert change.after.version == record.version + 1
    (event,) = change.audit
    assert (event.actor, event.reason, event.at_ms) == ("anna", "their maintenance", now_ms)
    assert event.before_state != event.after_state
    return change.after


def test_an_operators_word_holds_until_its_time_and_then_the_machines() -> None:
    """000.32"""
    record = forced(Record(Health.DEGRADED), Health.HEALTHY)
    state = record.state("desk")
    assert state.health_at(NOW) is state.health_at(NOW + 30 * MIN_MS - 1) is Health.HEALTHY
    assert state.health_at(NOW + 30 * MIN_MS) is Health.DEGRADED
    assert record.health is Health.DEGRADED


def test_an_override_ends_by_itself_in_the_record_and_the_audit_says_when() -> None:
    """000.32"""
    record = replace(forced(Record(), Health.HARD_DOWN), minute=M0)
    end_ms = record.override_until_ms
    assert evaluate("desk", record, [], RULES, end_ms - 1, 1.0) is None
    change = evaluate("desk", record, [], RULES, end_ms + 50_000, 1.0)
    assert change is not None
    assert (change.after.override, change.after.override_by, change.after.ramp_from_ms) == (None, "", end_ms)
    assert [(event.at_ms, event.actor, event.reason) for event in change.audit] == [
        (end_ms, "holdfast", "its time was over")
    ]
    assert change.after.version == record.version + 1
    assert evaluate("desk", change.after, [], RULES, end_ms + 50_000, 1.0) is None


def test_the_machine_goes_on_beneath_an_override() -> None:
    """000.32"""
    story = Story(record=forced(Record(), Health.HEALTHY, minutes=200, now_ms=M0 * MIN_MS)).minutes(BAD, times=12)
    assert story.moves == [(9, Health.DEGRADED)]
    assert story.record.state("desk").health_at((M0 + 12) * MIN_MS) is Health.HEALTHY


def test_what_was_held_down_by_a_person_is_not_probed_and_opens_by_its_time_or_by_a_person() -> None:
    """000.32: what a person paused, only a person resumes."""
    state = forced(replace(DOWN, probe_at_ms=0), Health.HARD_DOWN).state("desk")
    assert not state.may_be_probed(NOW)
    assert state.may_be_probed(NOW + 30 * MIN_MS)
    lifted = machine.lift("desk", forced(Record(), Health.HARD_DOWN), NOW + 5, actor="ben", reason="they are back")
    assert (lifted.after.override, lifted.after.ramp_from_ms) == (None, NOW + 5)
    assert lifted.audit[0].actor == "ben"
    still_down = machine.lift("desk", forced(DOWN, Health.HARD_DOWN), NOW + 5, actor="ben", reason="our mistake")
    assert still_down.after.ramp_from_ms == 0


def test_what_a_person_opens_early_is_released_little_by_little_and_calls_that_go_through_count() -> None:
    """000.32, 000.23: an early end is an operator's right; the machine believes it once three calls have succeeded."""
    opened = forced(replace(DOWN, probe_by=""), Health.HEALTHY, now_ms=M0 * MIN_MS)
    assert opened.ramp_from_ms == M0 * MIN_MS
    story = Story(record=opened).minutes(SILENT, calls(2), calls(9, 1), calls(5) + locked_out("acme"), calls(3))
    assert story.moves == [(4, Health.DEGRADED)]
    assert story.record.reason == "probed: 3 calls in a row that were let through succeeded"
    closed = Story(record=forced(DOWN, Health.HARD_DOWN, now_ms=M0 * MIN_MS)).minutes(calls(50), times=5)
    assert closed.moves == []


def test_calls_that_a_person_lets_through_count_however_far_apart_they_are() -> None:
    """000.15, 000.32: where only what may never probe waits, a person's word is the way out, and it stays one."""
    opened = forced(replace(DOWN, probe_by=""), Health.HEALTHY, minutes=600, now_ms=M0 * MIN_MS)
    assert Story(record=opened).minutes(*every(20), times=3).moves == [(59, Health.DEGRADED)]
    assert Story(record=opened).minutes(*every(20), times=2).minutes(SILENT, times=500).moves == []
    broken = Story(record=opened).minutes(*every(20), times=2).minutes(calls(0, 1)).minutes(*every(20), times=2)
    assert (broken.moves, broken.record.unbroken) == ([], 2)
    again = replace(broken.record, override=None, override_until_ms=0)  # it ended before the third
    assert Story(record=again, at=broken.at).minutes(calls(9), SILENT).moves == []


@pytest.mark.parametrize(
    ("until_ms", "actor", "reason"),
    [
        (NOW, "anna", "why"),
        (NOW - 1, "anna", "why"),
        (NOW + 7 * 24 * 3_600_000 + 1, "anna", "why"),
        (NOW + 1, "anna", "  "),
        (NOW + 1, "", "why"),
    ],
)
def test_an_override_without_an_end_a_reason_or_somebody_who_asks_is_refused(
    until_ms: int, actor: str, reason: str
) -> None:
    with pytest.raises(ValueError, match="override"):
        machine.force("desk", Record(), Health.DEGRADED, until_ms, actor=actor, reason=reason, now_ms=NOW)


def test_there_must_be_an_override_for_one_to_end() -> None:
    with pytest.raises(IllegalTransition, match="no override"):
        machine.lift("desk", Record(), NOW, actor="anna", reason="?")


def test_the_audit_of_an_override_says_what_was_and_what_is() -> None:
    """000.5"""
    change = machine.force(
        "desk", Record(Health.DEGRADED), Health.HARD_DOWN, NOW + 60_000, actor="anna", reason="x", now_ms=NOW
    )
    (event,) = change.audit
    assert json.loads(event.before_state) == {"health": "degraded", "since_ms": 0}
    assert json.loads(event.after_state)["override"] == "hard_down"
    assert event.severity is Severity.CRITICAL
    assert event.containment_action


# -------------------------------------------------------------------------------------------------------------- release


def test_ten_percent_are_released_at_first_and_all_after_ten_minutes() -> None:
    state = IntegrationState("desk", Health.DEGRADED, ramp_from_ms=NOW)
    shares = [release_share(state, NOW + minute * MIN_MS, 1.0) for minute in (0, 5, 10, 99)]
    assert shares == pytest.approx([0.1, 0.55, 1.0, 1.0])
    assert release_share(state, NOW - 5, 1.0) == pytest.approx(0.1)
    assert release_share(state, NOW + 5_000, 1 / 60) == pytest.approx(0.55)
    assert release_share(IntegrationState("desk"), NOW, 1.0) == 1.0


def test_what_an_operator_held_down_is_released_little_by_little_when_its_time_is_over() -> None:
    state = IntegrationState("desk", override=Health.HARD_DOWN, override_until_ms=NOW)
    assert state.released_at(NOW - 1) == 0
    assert state.released_at(NOW) == NOW
    assert release_share(state, NOW, 1.0) == pytest.approx(0.1)
    assert IntegrationState("desk", override=Health.DEGRADED, override_until_ms=NOW).released_at(NOW) == 0


def test_a_degraded_integration_is_called_at_half_its_rate() -> None:
    assert machine.rate_factor(IntegrationState("desk", Health.DEGRADED), NOW) == 0.5
    assert machine.rate_factor(IntegrationState("desk"), NOW) == 1.0
    forced_state = IntegrationState("desk", override=Health.DEGRADED, override_until_ms=NOW + 1)
    assert [machine.rate_factor(forced_state, now_ms) for now_ms in (NOW, NOW + 1)] == [0.5, 1.0]


# ---------------------------------------------------------------------------------------------------------------- table


def test_every_move_that_the_table_has_can_be_made_and_no_other() -> None:
    stories: dict[tuple[Health, HealthEvent], Callable[[], Story]] = {
        (Health.HEALTHY, HealthEvent.FAILING): lambda: Story().minutes(BAD, times=10),
        (Health.HEALTHY, HealthEvent.FLAPPING): lambda: Story().minutes(*(BAD,) * 5, *(WELL,) * 5, times=3),
        (Health.HEALTHY, HealthEvent.COLLAPSED): lambda: Story().minutes(DEAD, times=3),
        (Health.HEALTHY, HealthEvent.UNREACHABLE): lambda: Story().minutes(refused(10)),
        (Health.HEALTHY, HealthEvent.LOCKED_OUT): lambda: Story().minutes(locked_out("a", "b", "c")),
        (Health.DEGRADED, HealthEvent.RECOVERED): lambda: Story(record=Record(Health.DEGRADED)).minutes(WELL, times=15),
        (Health.DEGRADED, HealthEvent.COLLAPSED): lambda: Story(record=Record(Health.DEGRADED)).minutes(DEAD, times=3),
        (Health.DEGRADED, HealthEvent.UNREACHABLE): lambda: Story(record=Record(Health.DEGRADED)).minutes(refused(10)),
        (Health.DEGRADED, HealthEvent.LOCKED_OUT): lambda: Story(record=Record(Health.DEGRADED)).minutes(
            locked_out("a", "b", "c")
        ),
        (Health.HARD_DOWN, HealthEvent.PROBED): lambda: Story(
            record=forced(DOWN, Health.DEGRADED, now_ms=M0 * MIN_MS)
        ).minutes(calls(3)),
    }
    assert {(edge.state, edge.event) for edge in machine.TRANSITIONS} == set(stories)
    for edge in machine.TRANSITIONS:
        story = stories[edge.state, edge.event]()
        assert [move[1] for move in story.moves][:1] == [edge.next]
        assert story.record.reason.startswith(edge.event.value)
        assert story.audit[0].severity is edge.severity
        assert edge.what
    legal = {(edge.state, edge.event) for edge in machine.TRANSITIONS}
    for state in Health:
        for event in HealthEvent:
            if (state, event) not in legal:
                with pytest.raises(IllegalTransition, match="cannot happen"):
                    machine._moved(Record(state), event, "x", NOW, 1.0)


def test_the_table_of_the_page_is_the_table_of_the_code_with_what_moves_nothing() -> None:
    moves = {(step.state, step.event, step.next) for step in machine.HEALTH.steps if step.state != step.next}
    assert moves == {(edge.state.value, edge.event.value, edge.next.value) for edge in machine.TRANSITIONS}
    assert set(machine.HEALTH.states) == {health.value for health in Health}


def test_two_moves_within_one_write_are_two_events_of_the_audit() -> None:
    record = Story().minutes(BAD, times=9).record
    change = evaluate(
        "desk", record, [(M0 + 9, BAD), *((M0 + 10 + n, DEAD) for n in range(3))], RULES, (M0 + 13) * MIN_MS, 1.0
    )
    assert change is not None
    assert [edge.next for edge in change.edges] == [Health.DEGRADED, Health.HARD_DOWN]
    assert len({event.id for event in change.audit}) == 2
    assert change.after.version == record.version + 1


def test_what_a_record_says_is_of_now_while_minutes_are_judged_or_a_person_has_spoken() -> None:
    judged = Record(minute=last_closed(NOON_MS, 1.0))
    assert is_kept_up(judged, NOON_MS, 1.0)
    assert is_kept_up(judged, NOON_MS + UNJUDGED_MS - MIN_MS, 1.0)
    assert not is_kept_up(judged, NOON_MS + UNJUDGED_MS + MIN_MS, 1.0)
    assert not is_kept_up(Record(), NOON_MS, 1.0), "it was never looked at"
    said = replace(Record(), override=Health.DEGRADED, override_until_ms=NOON_MS + 1)
    assert is_kept_up(said, NOON_MS, 1.0)
    assert not is_kept_up(said, NOON_MS + 1, 1.0)
    shorter = Record(minute=last_closed(NOON_MS, 1 / 60))
    assert is_kept_up(shorter, NOON_MS + SHORTEST_UNJUDGED_MS - 2_000, 1 / 60), "a machine that is slow is not dead"
    assert not is_kept_up(shorter, NOON_MS + SHORTEST_UNJUDGED_MS + 2_000, 1 / 60)
