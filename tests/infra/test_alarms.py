"""Every alarm as it is deployed: whom it tells, which page helps, and what it makes of recorded datapoints.

001.4, 001.49, 001.54, 002.1, 002.9, 002.10, 002.35, 003.22, 003.23, 003.25. Definitions are read from the templates,
never from the table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from functions.core.alarms import ALARMS, ON_CALL, Alarm, by_name
from ops.alarms.evaluation import Definition, Samples, State, definition_in, definitions_of, judge
from tests.template import Template

MINUTE = 60_000
PAGES = Path(__file__).parent.parent.parent / "docs" / "runbooks"
EVERY = pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm.name)


def named(template: Template) -> Callable[[Any], str]:
    """The text that stands for a value of the template: its own, or the short name of what it refers to."""
    short = {template.output(f"{each.title()}QueueUrl")["Ref"]: each for each in ("events", "retries")} | {
        template.output(f"{each.title()}DlqUrl")["Ref"]: f"{each}-dlq"
        for each in ("events", "retries", "replays", "ops", "pages")
    }
    short |= {
        template.output(each)["Ref"]: each
        for each in ("LedgerTable", "RecoveryTable", "AuditTable", "ControlTable", "RecipientsTable")
    }
    short |= {template.output("WorkerFunction")["Ref"]: "worker", template.output("ApiId")["Ref"]: "api"}
    for key, topic in template.of_type("AWS::SNS::Topic").items():
        sev, _, audience = (
            topic["Properties"]["TopicName"].removeprefix(f"holdfast-{template.config.name}-").partition("-")
        )
        short[key] = f"{sev.upper()}-{audience}" if audience else sev

    def name_of(value: Any) -> str:
        match value:
            case {"Ref": str(key)} | {"Fn::GetAtt": [str(key), _]}:
                return short[key]
        assert isinstance(value, str)
        return value

    return name_of


def speaking(template: Template) -> dict[str, dict[str, Any]]:
    """The alarms that tell somebody, by their short name: the properties of each."""
    prefix = f"holdfast-{template.config.name}-"
    found = {}
    for kind in ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm"):
        for resource in template.of_type(kind).values():
            properties = resource["Properties"]
            if "AlarmActions" in properties:
                found[properties["AlarmName"].removeprefix(prefix)] = properties
    return found


def deployed(template: Template, alarm: Alarm) -> list[Definition]:
    """What must fire together, as the template says it: of a composite, every alarm that its rule names."""
    properties = speaking(template)[alarm.name]
    if "AlarmRule" not in properties:
        return [definition_in(properties, named(template))]
    text = json.dumps(properties["AlarmRule"])
    assert " OR " not in text
    assert "NOT" not in text
    children = [key for key in template.of_type("AWS::CloudWatch::Alarm") if f'"{key}"' in text]
    assert text.count("ALARM(") == len(children) == 2
    resources = template.body["Resources"]
    return [definition_in(resources[key]["Properties"], named(template)) for key in children]


# ----------------------------------------------------------------------------------------------- whom it tells, and how


def test_every_row_of_the_table_is_an_alarm_that_tells_its_topics_when_it_begins_and_when_it_is_over(
    template: Template,
) -> None:
    found = speaking(template)
    assert set(found) == {alarm.name for alarm in ALARMS}
    name_of = named(template)
    for alarm in ALARMS:
        expected = [f"{sev}-{audience}" for sev, audience in alarm.topics]
        if alarm.group == ON_CALL:
            expected.append("oncall")  # past the pager, whom it is about
        properties = found[alarm.name]
        assert [name_of(topic) for topic in properties["AlarmActions"]] == expected, alarm.name
        assert [name_of(topic) for topic in properties["OKActions"]] == expected, alarm.name


def test_there_is_a_topic_for_each_severity_and_audience_that_an_alarm_speaks_to(template: Template) -> None:
    """003.23"""
    names = {topic["Properties"]["TopicName"] for topic in template.of_type("AWS::SNS::Topic").values()}
    used = {topic for alarm in ALARMS for topic in alarm.topics}
    oncall = f"holdfast-{template.config.name}-oncall"
    assert names == {f"holdfast-{template.config.name}-{sev.lower()}-{audience}" for sev, audience in used} | {oncall}
    told = template.output("AlarmTopicArns")["Fn::Join"]
    assert told[0] == " "
    people = template.output("OncallTopicArn")["Ref"]
    assert {arn["Ref"] for arn in told[1]} | {people} == set(template.of_type("AWS::SNS::Topic"))


def test_alarms_may_publish_to_a_topic_that_refuses_plain_http(template: Template) -> None:
    """A policy takes the place of the one that every topic has by itself: what it does not allow is refused."""
    policies = template.of_type("AWS::SNS::TopicPolicy").values()
    if template.config.emulated:
        assert not policies
        return
    allowed = set()
    for policy in policies:
        (topic,) = policy["Properties"]["Topics"]
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
            if statement["Effect"] == "Allow":
                assert statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
                assert statement["Action"] == "sns:Publish"
                assert statement["Resource"] == topic
                assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
                allowed.add(topic["Ref"])
    assert allowed == set(template.of_type("AWS::SNS::Topic"))


def test_every_alarm_says_how_grave_it_is_and_which_page_helps(template: Template) -> None:
    """001.54, 003.23: a link to what to do."""
    for name, properties in speaking(template).items():
        alarm = by_name(name)
        assert alarm is not None
        said = re.fullmatch(
            r"(.+)\. (SEV\d), ([a-z-]+)\. What to do: docs/runbooks/(\w+\.md)#([a-z0-9-]+)",
            properties["AlarmDescription"],
        )
        assert said
        assert said.group(1, 2, 3) == (alarm.says, alarm.sev, alarm.group)
        assert f"\n## {said[5]}\n" in (PAGES / said[4]).read_text(), name


def test_every_section_of_the_alarms_page_is_an_alarm() -> None:
    sections = re.findall(r"^## ([a-z0-9-]+)$", (PAGES / "alarms.md").read_text(), re.MULTILINE)
    assert sections == [alarm.name for alarm in ALARMS]


# --------------------------------------------------------------------------------------------------------- definitions


def test_what_is_deployed_is_what_the_table_says(template: Template) -> None:
    for alarm in ALARMS:
        if template.config.emulated:
            properties = speaking(template)[alarm.name]
            assert properties["MetricName"] == properties["AlarmName"]
            assert "Dimensions" not in properties
            assert (properties["Threshold"], properties["ComparisonOperator"]) == (0, "GreaterThanThreshold")
            continue
        assert _comparable(deployed(template, alarm)) == _comparable(definitions_of(alarm, template.config.name)), (
            alarm.name
        )


def _comparable(definitions: list[Definition] | tuple[Definition, ...]) -> list[tuple[object, ...]]:
    """A single metric has no id in a template."""
    found: list[tuple[object, ...]] = []
    for each in definitions:
        metrics = set(each.metrics.values())
        is_plain = each.expression in each.metrics and len(metrics) == 1
        expression = "m" if is_plain else each.expression
        ids = None if is_plain else dict(each.metrics)
        found.append(
            (
                metrics,
                ids,
                expression,
                each.comparison,
                each.threshold,
                each.periods,
                each.datapoints,
                each.missing,
                each.period_seconds,
            )
        )
    return sorted(found, key=lambda one: int(str(one[-1])))


@pytest.fixture
def prod(stage: Callable[[str], Template]) -> Template:
    return stage("prod")


def test_every_alarm_says_what_missing_data_means_and_keeps_cloudwatchs_limits(prod: Template) -> None:
    for resource in prod.of_type("AWS::CloudWatch::Alarm").values():
        properties = resource["Properties"]
        assert properties["TreatMissingData"] in ("notBreaching", "breaching")
        assert properties["DatapointsToAlarm"] <= properties["EvaluationPeriods"]
        definition = definition_in(properties, named(prod))
        assert len(definition.metrics) <= 10
        # A day for periods under an hour, a week from then on.
        longest = 86_400 if definition.period_seconds < 3_600 else 604_800
        assert definition.periods * definition.period_seconds <= longest
        assert len(properties["AlarmDescription"]) <= 1_024


# ------------------------------------------------------------------------------------------------- recorded datapoints


@dataclass(frozen=True, slots=True)
class Recording:
    """What each series counts in a minute while all is well, and while it is not. What is left out has no datapoint."""

    bad: Mapping[str, float]
    well: Mapping[str, float] = field(default_factory=dict)
    minutes: int = 15
    """By when the alarm must have fired."""


HELD = Recording({"visible": 0, "in_flight": 1}, {"visible": 0, "in_flight": 0}, 6)
RECORDINGS: dict[str, Recording] = {
    "reply-storm": Recording({"sent": 60, "accepted": 10}, {"sent": 8, "accepted": 10}, 7),
    "effects-doubled": Recording({"doubled": 1}, {}, 2),
    "replies-capped": Recording({"capped": 5}, {}, 11),
    "duplicate-storm": Recording({"repeats": 90, "decisions": 10}, {"repeats": 1, "decisions": 10}, 11),
    "ingress-failing": Recording({"failed": 20, "late": 10, "asked": 100}, {"failed": 0, "asked": 100}, 10),
    "ingress-failing-slowly": Recording({"failed": 3, "asked": 100}, {"failed": 0, "asked": 100}, 200),
    "webhook-not-stored": Recording({"failed": 1}, {"failed": 0}, 2),
    "ack-slow": Recording({"p99": 2_000, "answered": 2_000}, {"p99": 80, "answered": 80}, 8),
    "spill-not-drained": Recording({"left": 3}, {"left": 0}, 6),
    "source-silent": Recording({"silent": 1}, {"silent": 0}, 4),
    "source-malformed": Recording({"malformed": 2}, {}, 4),
    "signatures-refused": Recording({"refused": 20, "accepted": 10}, {"refused": 1, "accepted": 30}, 11),
    "synthetic-missing": Recording({}, {"settled": 1}, 16),
    "events-late": Recording({"age": 400, "received": 1_000}, {"age": 2, "received": 900}, 4),
    "events-backlog": Recording({"received": 2_000_000}, {"age": 2, "received": 900}, 4),
    "retries-late": Recording({"age": 1_000}, {"age": 20}, 4),
    "rows-overdue": Recording({"overdue": 1}, {}, 4),
    "items-failing": Recording({"failed": 5, "received": 20}, {"received": 20}, 11),
    "support-failing": Recording({"failed": 8, "events": 20}, {"events": 20}, 11),
    "worker-dying": Recording({"errors": 5, "batches": 20}, {"errors": 0, "batches": 20}, 11),
    "effects-missing": Recording({"decided": 30}, {"decided": 30, "done": 28, "kept": 2}, 11),
    "outcomes-unknown": Recording({"unknown": 1}, {}, 3),
    "queue-nearly-full": Recording({"in_flight": 90_000}, {"in_flight": 40}, 4),
    "queue-long": Recording({"visible": 20_000}, {"visible": 40}, 6),
    "payload-mismatch": Recording({"mismatches": 1}, {}, 2),
    "tables-throttled": Recording({"w3": 4}, {}, 4),
    "events-dlq-not-drained": HELD,
    "retries-dlq-not-drained": HELD,
    "replays-dlq-not-drained": HELD,
    "ops-dlq-not-empty": Recording({"visible": 1, "in_flight": 0}, {}, 2),
    "integration-down": Recording({"down": 1}, {"down": 0}, 2),
    "integration-degraded": Recording({"degraded": 1}, {"degraded": 0}, 4),
    "rate-limited": Recording({"refused": 1}, {}, 11),
    "classifier-out": Recording({"without": 10, "decisions": 10}, {"decisions": 10}, 11),
    "classifier-weak": Recording({"without": 4, "decisions": 10}, {"decisions": 10}, 11),
    "message-for-a-person": Recording({"left": 1}, {}, 2),
    "items-for-people": Recording({"by_sweeper": 1}, {}, 2),
    "replay-stopped": Recording({"stopped": 1}, {}, 2),
    "replay-interrupted": Recording({"interrupted": 1}, {}, 11),
    "switches-unknown": Recording({"stale": 3}, {}, 4),
    "switch-unreadable": Recording({"invalid": 1}, {}, 2),
    "sweeper-missing": Recording({}, {"beats": 1}, 6),
    "evaluator-missing": Recording({}, {"beats": 1}, 6),
    "sweeper-failing": Recording({"failed": 1}, {}, 4),
    "evaluator-failing": Recording({"failed": 1}, {}, 4),
    "work-cut-short": Recording({"sweeps": 1}, {}, 6),
    "limiter-unavailable": Recording({"unasked": 2}, {}, 4),
    "alarms-not-delivered": Recording({"topic3": 1}, {}, 2),
    "pager-missing": Recording({}, {"beats": 1}, 6),
    "pages-dlq-not-empty": Recording({"visible": 1, "in_flight": 0}, {}, 2),
    "pages-not-delivered": Recording({"failed": 1}, {}, 3),
    "containment-failed": Recording({"failed": 1}, {}, 2),
}


def a_while(alarm: Alarm) -> int:
    """More minutes than its longest window has."""
    return max(60, 2 * alarm.periods * alarm.period_seconds // 60, alarm.also_over_seconds // 60 + 30)


AT_ONCE = {"ops-dlq-not-empty", "alarms-not-delivered", "pages-dlq-not-empty", "items-for-people"}
"""Besides those on a single metric: what one datapoint is enough for."""


class Tape:
    """What one alarm's series count, minute after minute, and what the alarm is at the end of each."""

    def __init__(self, definitions: list[Definition]) -> None:
        self._definitions = definitions
        self._samples = Samples()
        self._minute = 0
        self.state = State.OK

    def count(self, values: Mapping[str, float], *, minutes: int = 1, late_minutes: int = 0) -> list[State]:
        """So many minutes that count these, each with its state as CloudWatch sees it at its end."""
        states = []
        for _ in range(minutes):
            for name, watched in self._definitions[0].metrics.items():
                if name in values:
                    self._add(watched.identity, values[name], watched.statistic, late_minutes)
            self._minute += 1
            self.state = judge(self._definitions, self._samples, self._minute * MINUTE, before=self.state)
            states.append(self.state)
        return states

    def _add(self, identity: Any, value: float, statistic: str, late_minutes: int) -> None:
        at_ms = self._minute * MINUTE + 1
        times = 30 if statistic in ("p99", "SampleCount") else 1
        for _ in range(times):
            self._samples.add(identity, at_ms, value, at_ms + late_minutes * MINUTE)


def tape(prod: Template, alarm: Alarm) -> Tape:
    definitions = deployed(prod, alarm)
    recording = RECORDINGS[alarm.name]
    if "m" in definitions[0].metrics:  # a single metric has no id in a template
        (known,) = alarm.series
        definitions = [_renamed(each, known) for each in definitions]
    assert set(recording.bad) | set(recording.well) <= set(definitions[0].metrics)
    return Tape(definitions)


def _renamed(definition: Definition, name: str) -> Definition:
    return Definition(
        **{
            **{field: getattr(definition, field) for field in Definition.__slots__},
            "metrics": {name: definition.metrics["m"]},
            "expression": name,
        }
    )


def test_every_alarm_has_a_recording() -> None:
    assert set(RECORDINGS) == {alarm.name for alarm in ALARMS}


@EVERY
def test_an_alarm_is_quiet_while_all_is_well_fires_in_time_when_it_is_not_and_is_over_afterwards(
    prod: Template, alarm: Alarm
) -> None:
    recording, played = RECORDINGS[alarm.name], tape(prod, alarm)
    assert set(played.count(recording.well, minutes=a_while(alarm))) == {State.OK}
    states = played.count(recording.bad, minutes=recording.minutes)
    assert states[0] is State.OK or alarm.datapoints == 1
    assert states[-1] is State.ALARM
    assert played.count(recording.well, minutes=a_while(alarm))[-1] is State.OK


@EVERY
def test_one_bad_minute_fires_nothing_but_what_a_single_occurrence_is_enough_for(prod: Template, alarm: Alarm) -> None:
    recording, played = RECORDINGS[alarm.name], tape(prod, alarm)
    played.count(recording.well, minutes=a_while(alarm))
    states = played.count(recording.bad) + played.count(recording.well, minutes=30)
    is_enough = (alarm.datapoints == 1 and alarm.expression in alarm.series) or alarm.name in AT_ONCE
    assert (State.ALARM in states) is is_enough


@EVERY
def test_an_hour_without_any_data_is_only_alarming_where_silence_is_the_symptom(prod: Template, alarm: Alarm) -> None:
    played = tape(prod, alarm)
    expected = State.ALARM if alarm.missing == "breaching" else State.OK
    assert played.count({}, minutes=60)[-1] is expected


@EVERY
def test_a_gap_while_all_is_well_fires_nothing(prod: Template, alarm: Alarm) -> None:
    """One minute's datapoints of every three are lost."""
    recording, played = RECORDINGS[alarm.name], tape(prod, alarm)
    played.count(recording.well, minutes=a_while(alarm))
    states = []
    for _ in range(20):
        states += played.count(recording.well, minutes=2) + played.count({})
    assert set(states) == {State.OK}


@EVERY
def test_data_that_comes_two_minutes_late_delays_an_alarm_and_fires_none(prod: Template, alarm: Alarm) -> None:
    recording, played = RECORDINGS[alarm.name], tape(prod, alarm)
    played.count(recording.well, minutes=5)
    assert set(played.count(recording.well, minutes=a_while(alarm), late_minutes=2)) == {State.OK}
    assert State.ALARM in played.count(recording.bad, minutes=recording.minutes + 4, late_minutes=2)


# -------------------------------------------------------------------------------------------------- what each must see


def alarm_named(name: str) -> Alarm:
    found = by_name(name)
    assert found is not None
    return found


def played(prod: Template, name: str) -> Tape:
    return tape(prod, alarm_named(name))


def test_a_reply_storm_is_seen_without_any_inbound_at_all_002_12(prod: Template) -> None:
    assert played(prod, "reply-storm").count({"sent": 30}, minutes=6)[-1] is State.ALARM


@pytest.mark.parametrize("minutes", range(1, 5))
@pytest.mark.parametrize("before", [{}, {"sent": 1, "accepted": 1}])
def test_a_rush_whose_last_replies_leave_after_its_last_webhook_is_no_storm_002_12(
    prod: Template, minutes: int, before: dict[str, float]
) -> None:
    """Replies would be off for good, and people called at night: a window may begin right after the last webhook."""
    storm = played(prod, "reply-storm")
    states = storm.count(before, minutes=30) + storm.count({"accepted": 200, "sent": 40})
    states += storm.count({"sent": 160 / minutes}, minutes=minutes) + storm.count(before, minutes=40)
    assert set(states) == {State.OK}


RATIOS = (
    "reply-storm",
    "duplicate-storm",
    "signatures-refused",
    "items-failing",
    "support-failing",
    "classifier-out",
    "classifier-weak",
)


@pytest.mark.parametrize("name", RATIOS)
def test_what_no_longer_fails_counts_nothing_of_it_and_its_alarm_is_over_with_its_windows(
    prod: Template, name: str
) -> None:
    """Gaps are no reason to look at older periods: a share of nothing is 0."""
    alarm, recording, ratio = alarm_named(name), RECORDINGS[name], played(prod, name)
    ratio.count(recording.well, minutes=a_while(alarm))
    assert ratio.count(recording.bad, minutes=recording.minutes)[-1] is State.ALARM
    failing, *rest = alarm.series
    well = {each: value for each, value in recording.well.items() if each != failing}
    assert rest
    windows = (alarm.periods - alarm.datapoints + 1) * alarm.period_seconds // 60
    assert ratio.count(well, minutes=windows + 1)[-1] is State.OK


def test_a_reply_storm_that_was_stopped_is_over_after_a_quarter_of_an_hour(prod: Template) -> None:
    """Nothing is sent any more, so nothing is counted: that is its end, and no gap."""
    storm = played(prod, "reply-storm")
    assert storm.count({"sent": 30}, minutes=6)[-1] is State.ALARM
    assert storm.count({}, minutes=16)[-1] is State.OK


def test_replies_that_waited_for_a_provider_are_no_storm(prod: Template) -> None:
    storm = played(prod, "reply-storm")
    storm.count({"sent": 10, "accepted": 10}, minutes=30)
    storm.count({"accepted": 10}, minutes=15)
    assert State.ALARM not in storm.count({"sent": 60, "released": 50, "accepted": 10}, minutes=15)


def test_replies_to_what_waited_in_the_queue_for_a_quarter_of_an_hour_are_no_storm(prod: Template) -> None:
    storm = played(prod, "reply-storm")
    storm.count({"sent": 10, "accepted": 10}, minutes=30)
    storm.count({"accepted": 10}, minutes=15)
    assert State.ALARM not in storm.count({"sent": 150, "accepted": 10}) + storm.count(
        {"sent": 10, "accepted": 10}, minutes=30
    )


def test_a_busy_door_is_failing_only_if_it_also_has_been_for_an_hour_002_1(prod: Template) -> None:
    """A page needs both windows: five minutes for its end, an hour for its weight."""
    door = played(prod, "ingress-failing")
    door.count({"failed": 0, "asked": 1_000}, minutes=120)
    assert State.ALARM not in door.count({"failed": 30, "asked": 1_000}, minutes=20)
    assert State.ALARM in door.count({"failed": 30, "asked": 1_000}, minutes=20)


def test_answers_that_come_too_late_are_as_bad_as_errors(prod: Template) -> None:
    door = played(prod, "ingress-failing")
    door.count({"failed": 0, "asked": 100}, minutes=120)
    assert State.ALARM in door.count({"late": 30, "asked": 100}, minutes=10)


def test_a_few_failures_at_night_are_a_ticket_and_no_page(prod: Template) -> None:
    for name, expected in (("ingress-failing", State.OK), ("webhook-not-stored", State.ALARM)):
        door = played(prod, name)
        door.count({"failed": 0, "asked": 1} if name == "ingress-failing" else {"failed": 0}, minutes=60)
        assert door.count({"failed": 1, **({"asked": 1} if name == "ingress-failing" else {})})[-1] is expected


def test_a_poison_message_that_triage_takes_and_fails_on_is_seen_although_it_is_never_visible(prod: Template) -> None:
    """001.54, 002.9: waiting plus in flight."""
    assert played(prod, "events-dlq-not-drained").count({"in_flight": 1}, minutes=5)[-1] is State.ALARM


def test_poison_that_looks_young_to_sqs_is_seen_by_the_age_of_what_workers_receive(prod: Template) -> None:
    """SQS leaves what was received three times out of its age."""
    late = played(prod, "events-late")
    assert State.ALARM in late.count({"age": 1, "received": 700_000}, minutes=4)


def test_an_outage_of_a_provider_is_no_missing_effect(prod: Template) -> None:
    """002.32: what waits as a recovery item is accounted for."""
    missing = played(prod, "effects-missing")
    assert State.ALARM not in missing.count({"decided": 30, "kept": 30}, minutes=30)
    assert State.ALARM in missing.count({"decided": 30, "kept": 3}, minutes=30)


def test_a_table_that_is_no_longer_throttled_clears_its_alarm_without_any_data(prod: Template) -> None:
    """CloudWatch ignores missing data of DynamoDB's own metrics and would keep the alarm: its expression has none."""
    throttled = played(prod, "tables-throttled")
    throttled.count({"r1": 3}, minutes=5)
    assert throttled.state is State.ALARM
    assert throttled.count({}, minutes=5)[-1] is State.OK
    (definition,) = deployed(prod, alarm_named("tables-throttled"))
    assert "TIME_SERIES(0)" in definition.expression


def test_a_429_now_and_then_is_nothing_and_one_after_another_a_ticket(prod: Template) -> None:
    """002.20, 003.23"""
    limited = played(prod, "rate-limited")
    assert State.ALARM not in limited.count({"refused": 1}) + limited.count({}, minutes=30)
    for _ in range(3):
        limited.count({"refused": 1})
        limited.count({}, minutes=4)
    assert limited.state is State.ALARM
