"""No alarm watches a metric that nobody emits: the table of alarms against what functions write, line by line.

Every place that counts a watched metric is found in the code, and what it would write goes through the very class that
writes it: namespace, name and one of the dimension sets must be those that the alarm watches. 001.54, 002.35.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

import pytest

from functions import observability
from functions.core.alarms import ALARMS, HOLDFAST, STAGE
from functions.ingress.answers import Answer, Rejection
from functions.ingress.outbox import Place as StoredIn
from functions.ingress.outbox import Stored
from functions.ingress.request import Route
from functions.ingress.trail import Trail
from ops.alarms.counted import AT_THE_DOOR as COUNTED_AT_THE_DOOR
from ops.alarms.counted import SERVICES, Place, metrics_of, places

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

WATCHED = sorted(
    {
        (series.metric, tuple(sorted(series.dimensions.items())))
        for alarm in ALARMS
        for series in alarm.series.values()
        if series.namespace == HOLDFAST
    }
)
BY_SERVICE = [(metric, dict(dimensions)) for metric, dimensions in WATCHED if "service" in dict(dimensions)]
BY_STAGE = [(metric, dict(dimensions)) for metric, dimensions in WATCHED if "service" not in dict(dimensions)]
AT_THE_DOOR = [(metric, dimensions) for metric, dimensions in BY_STAGE if metric not in observability.OF_THE_STAGE]


def emitted(
    service: str, metric: str, dimensions: AbstractSet[str], watched: Mapping[str, str] | None = None
) -> list[tuple[str, str, dict[str, str]]]:
    """Namespace, metric and dimensions of everything that one such count makes CloudWatch keep. Where a certain value
    is watched, it is that one which is counted.
    """
    lines: list[str] = []
    counts = observability.metrics(service, "test", lines.append)
    counts.count(metric, 1, **{name: (watched or {}).get(name, "some") for name in dimensions})
    counts.flush()
    return list(kept(lines))


def kept(lines: list[str]) -> Iterator[tuple[str, str, dict[str, str]]]:
    for line in map(json.loads, lines):
        for directive in line["_aws"]["CloudWatchMetrics"]:
            for names in directive["Dimensions"]:
                for metric in directive["Metrics"]:
                    assert metric["Name"] in line
                    yield directive["Namespace"], metric["Name"], {name: line[name] for name in names}


@pytest.mark.parametrize(("metric", "dimensions"), BY_SERVICE, ids=lambda value: str(value) if value else "")
def test_every_place_that_counts_what_an_alarm_watches_writes_it_as_the_alarm_watches_it(
    metric: str, dimensions: dict[str, str]
) -> None:
    found = list(places(dimensions["service"], metric))
    assert found, f"nobody counts {metric}"
    watched = {name: "test" if value == STAGE else value for name, value in dimensions.items()}
    for place in found:
        written = emitted(dimensions["service"], metric, place.by, watched)
        assert (HOLDFAST, metric, watched) in written, f"{place.file} counts {metric} by {sorted(place.by)} alone"


def test_what_every_function_counts_as_one_is_watched_as_one() -> None:
    found = {service: list(places(service, "people_needed")) for service in SERVICES}
    assert {service for service, each in found.items() if each} >= {"worker", "sweeper", "triage"}
    for service, each in found.items():
        for place in each:
            assert emitted(service, place.metric, place.by) == [(HOLDFAST, "people_needed", {"stage": "test"})]
    assert ("people_needed", {"stage": STAGE}) in BY_STAGE


@pytest.mark.parametrize(("metric", "dimensions"), AT_THE_DOOR, ids=lambda value: str(value) if value else "")
def test_what_an_alarm_watches_at_the_door_stands_in_the_doors_line(metric: str, dimensions: dict[str, str]) -> None:
    accepted = Trail("r-1", Route.EVENT, provider="github", stored=Stored(StoredIn.QUEUE), source_malformed="no tenant")
    lines = [
        accepted.line("test", Answer(202, ""), None, 2_000, 0),
        Trail("r-2", Route.EVENT, provider="github").line("test", Answer(401, ""), Rejection.BAD_SIGNATURE, 9, 0),
    ]
    watched = {name: "test" if value == STAGE else value for name, value in dimensions.items()}
    assert (HOLDFAST, metric, watched) in list(kept(lines))


def test_a_metric_that_nobody_emits_would_be_noticed() -> None:
    assert not list(places("worker", "nobody_counts_this"))
    assert list(places("worker", "switches_stale")) == [Place("adapters/ssm.py", "switches_stale", frozenset())]
    assert not list(places("worker", "heartbeat"))


def test_what_ingress_is_said_to_count_is_what_its_line_counts() -> None:
    stored = Trail("r", Route.EVENT, provider="github", stored=Stored(StoredIn.SPILL), source_malformed="no tenant")
    lines = [
        stored.line("test", Answer(202, ""), None, 2_000, 0),
        Trail("r", Route.EVENT, provider="github").line("test", Answer(401, ""), Rejection.BAD_SIGNATURE, 9, 0),
        Trail("r", Route.EVENT, flow="synthetic", stored=Stored(StoredIn.QUEUE)).line(
            "test", Answer(202, ""), None, 9, 0
        ),
    ]
    found = {(metric, tuple(sorted(dimensions))) for _, metric, dimensions in kept(lines)}
    assert found == {(metric, names) for metric, sets in COUNTED_AT_THE_DOOR.items() for names in sets}


def test_the_code_of_every_function_is_read_for_what_it_counts() -> None:
    found = {service: metrics_of(service) for service in SERVICES}
    assert all(found.values())
    assert len(found["worker"]) > 40
    assert ("rows_hinted", frozenset({"service", "stage", "integration"})) in found["sweeper"]
    assert ("spill_sent", frozenset({"service", "stage"})) in found["sweeper"]
    assert ("replay_jobs_not_started", frozenset({"service", "stage"})) in found["sweeper"]
    assert ("decisions_made", frozenset({"service", "stage", "flow", "outcome"})) in found["worker"]


def test_a_count_that_is_told_apart_and_has_no_total_would_be_noticed() -> None:
    written = emitted("worker", "takeovers", {"flow"})
    assert (HOLDFAST, "takeovers", {"service": "worker", "stage": "test"}) not in written


def test_only_what_an_alarm_watches_is_counted_twice() -> None:
    """A total costs as much as any other metric."""
    watched = {
        series.metric
        for alarm in ALARMS
        for series in alarm.series.values()
        if series.namespace == HOLDFAST and set(series.dimensions) == {"service", "stage"}
    }
    assert watched >= observability.TOTALS


def test_the_answer_to_a_sender_is_timed_and_late_after_what_is_promised() -> None:
    """002.35: latency."""
    trail = Trail("r-1", Route.EVENT, provider="github", stored=Stored(StoredIn.QUEUE))
    in_time, late = (json.loads(trail.line("test", Answer(202, ""), None, took_ms, 0)) for took_ms in (1_500, 1_501))
    assert (in_time["ack_ms"], late["ack_ms"]) == (1_500, 1_501)
    assert "webhooks_late" not in in_time
    assert late["webhooks_late"] == 1
    units = {
        metric["Name"]: metric["Unit"]
        for directive in late["_aws"]["CloudWatchMetrics"]
        for metric in directive["Metrics"]
    }
    assert units == {"webhooks_accepted": "Count", "ack_ms": "Milliseconds", "webhooks_late": "Count"}


def test_a_senders_own_test_and_question_are_no_answer_to_an_event() -> None:
    for route in (Route.TEST, Route.PROGRESS, Route.CHALLENGE):
        assert "ack_ms" not in json.loads(Trail("r-1", route).line("test", Answer(200, ""), None, 5_000, 0))
