"""The table of alarms keeps its own rules: 001.4, 002.35, 003.22, 003.23."""

from __future__ import annotations

import re

import pytest

from functions.core.alarms import ALARMS, API, HOLDFAST, PEOPLE, SNS, SQS, STAGE, Alarm, Audience, Sev, by_name, name_at

WORDS = {"IF", "SUM", "MAX", "TIME_SERIES"}
PERIODS = {60, 300, 900, 1_800, 3_600, 21_600}


def ids_of(expression: str) -> set[str]:
    return set(re.findall(r"[A-Za-z_][A-Za-z_0-9]*", expression)) - WORDS


@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm.name)
def test_a_row_says_all_that_an_alarm_needs(alarm: Alarm) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", alarm.name)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", alarm.group)
    assert alarm.says[0].isupper()
    assert not alarm.says.endswith(".")
    assert alarm.owner in {"ops", "incident_lead", "campaign_owner", "compliance", "ml"}
    assert 1 <= alarm.datapoints <= alarm.periods
    assert alarm.missing in {"notBreaching", "breaching", "ignore"}
    assert alarm.comparison in {"GreaterThanThreshold", "GreaterThanOrEqualToThreshold", "LessThanThreshold"}
    assert alarm.page == f"alarms.md#{alarm.name}"
    assert len(set(alarm.topics)) == len(alarm.topics)


@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm.name)
def test_an_expression_uses_each_of_its_series_and_nothing_else(alarm: Alarm) -> None:
    assert ids_of(alarm.expression) == set(alarm.series)
    for name in alarm.series:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)  # CloudWatch's rule for ids
    assert 1 <= len(alarm.series) <= 10  # CloudWatch's limit of metrics in an alarm


@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm.name)
def test_all_series_of_an_alarm_share_one_period_that_cloudwatch_evaluates(alarm: Alarm) -> None:
    assert {series.period_seconds for series in alarm.series.values()} == {alarm.period_seconds}
    assert alarm.period_seconds in PERIODS
    if alarm.also_over_seconds:
        assert alarm.also_over_seconds in PERIODS
        assert alarm.also_over_seconds > alarm.period_seconds


@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm.name)
def test_no_difference_and_no_sum_has_gaps_where_its_series_have(alarm: Alarm) -> None:
    """`a + b` is a gap where either is. Sums are lists, and what is taken away is 0 where it is not counted."""
    without_lists = re.sub(r"\[[^\]]*\]", "[]", alarm.expression)
    assert "+" not in without_lists
    for taken in re.findall(r" - (\S+)", without_lists):
        assert taken.startswith("SUM([")
    assert "FILL" not in alarm.expression


def test_a_ratio_has_a_minimum_count() -> None:
    """Two failures of three events at night wake nobody."""
    ratios = [alarm for alarm in ALARMS if re.search(r"/ (?!1000)", alarm.expression)]
    assert len(ratios) >= 8
    for alarm in ratios:
        assert re.search(r"^IF\(.* >= (5|10|20|50), ", alarm.expression), alarm.name


def test_what_is_counted_says_of_which_stage_it_is() -> None:
    for alarm in ALARMS:
        for series in alarm.series.values():
            assert (series.dimensions.get("stage") == STAGE) == (series.namespace == HOLDFAST)


def test_a_dead_letter_queue_is_watched_by_what_it_holds() -> None:
    """Not by what was sent there, which does not move, nor by what is visible alone: who takes and fails hides it."""
    queues = set()
    for alarm in ALARMS:
        for series in alarm.series.values():
            if "dlq" in series.dimensions.get("QueueName", ""):
                assert series.namespace == SQS
                held = {one.metric for one in alarm.series.values()}
                assert held == {"ApproximateNumberOfMessagesVisible", "ApproximateNumberOfMessagesNotVisible"}
                assert alarm.never_suppressed
                queues.add(series.dimensions["QueueName"])
    assert queues >= {"events-dlq", "retries-dlq", "replays-dlq", "ops-dlq"}


def test_only_silence_that_is_the_symptom_breaches_by_missing_data() -> None:
    watchers = {alarm.name for alarm in ALARMS if alarm.missing == "breaching"}
    assert watchers >= {"sweeper-missing", "evaluator-missing"}
    assert all(name.endswith("-missing") for name in watchers)
    assert all(alarm.missing == "notBreaching" for alarm in ALARMS if not alarm.name.endswith("-missing"))


def test_names_are_one_of_a_kind_and_a_known_alarm_is_found_by_either_of_its_names() -> None:
    assert len({alarm.name for alarm in ALARMS}) == len(ALARMS)
    for alarm in ALARMS:
        assert by_name(alarm.name) is alarm
        assert by_name(name_at("prod", alarm.name)) is alarm
    assert name_at("prod", "reply-storm") == "holdfast-prod-reply-storm"


@pytest.mark.parametrize("name", ["", "holdfast-prod-", "holdfast-prod-nothing", "prod-reply-storm", "else-prod-x"])
def test_what_is_no_alarm_is_not_found(name: str) -> None:
    assert by_name(name) is None


def test_severities_follow_one_scale() -> None:
    """001.4, 002.36, 002.37: SEV0 for what customers get wrong or twice, SEV1 for a core flow or its watchers."""
    grave = {alarm.name: alarm.sev for alarm in ALARMS if alarm.sev in (Sev.SEV0, Sev.SEV1)}
    assert grave == {
        "reply-storm": Sev.SEV0,
        "effects-doubled": Sev.SEV0,
        "replies-capped": Sev.SEV1,
        "ingress-failing": Sev.SEV1,
        "synthetic-missing": Sev.SEV1,
        "events-backlog": Sev.SEV1,
        "sweeper-missing": Sev.SEV1,
        "evaluator-missing": Sev.SEV1,
        "pager-missing": Sev.SEV1,
        "alarms-not-delivered": Sev.SEV1,
        "pages-dlq-not-empty": Sev.SEV1,
        "pages-not-delivered": Sev.SEV1,
        "containment-failed": Sev.SEV1,
    }
    for alarm in ALARMS:
        assert alarm.is_page == (alarm.sev is not Sev.SEV3), alarm.name


def test_an_outage_is_told_to_the_campaigns_owner_too_and_a_rate_limit_to_them_first() -> None:
    """003.22, 003.23"""
    down, limited = by_name("integration-down"), by_name("rate-limited")
    assert down is not None
    assert limited is not None
    assert down.topics == ((Sev.SEV2, Audience.OPS), (Sev.SEV2, Audience.CAMPAIGN))
    assert (limited.audience, limited.is_page) == (Audience.CAMPAIGN, False)


def test_every_topic_that_pages_go_to_is_watched_for_what_it_could_not_deliver() -> None:
    """001.57"""
    alarm = by_name("alarms-not-delivered")
    assert alarm is not None
    watched = {series.dimensions["TopicName"] for series in alarm.series.values() if series.namespace == SNS}
    paged = {f"{sev}-{audience}" for each in ALARMS if each.is_page for sev, audience in each.topics}
    assert watched == paged | {PEOPLE}, "and what people subscribe themselves"


def test_an_alarm_on_what_has_happened_once_says_nothing_by_being_quiet() -> None:
    """Of pages: a counter of single occurrences, which one is enough for, is 0 a minute later."""
    levels = {"integration-down", "pages-dlq-not-empty"}  # gauges: they are as long as it is so
    ratios = {"ingress-failing", "ingress-failing-slowly"}
    once = {alarm.name for alarm in ALARMS if alarm.is_page and alarm.periods == 1}
    assert {alarm.name for alarm in ALARMS if alarm.is_moment} == once - levels - ratios


def test_the_door_is_watched_by_what_senders_see_over_two_windows() -> None:
    """002.1: an hour and five minutes at 14.4 times the budget, six hours and half an hour at 6 times."""
    fast, slow = by_name("ingress-failing"), by_name("ingress-failing-slowly")
    assert fast is not None
    assert slow is not None
    assert (fast.period_seconds, fast.also_over_seconds, fast.threshold) == (300, 3_600, 0.0144)
    assert (slow.period_seconds, slow.also_over_seconds, slow.threshold) == (1_800, 21_600, 0.006)
    assert {series.metric for series in fast.series.values() if series.namespace == API} == {"5xx", "Count"}
