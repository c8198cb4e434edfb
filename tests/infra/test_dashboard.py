"""The dashboard: in the order in which an event travels, and of nothing that nobody counts (001.18, 001.19)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from aws_cdk import App, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_logs as logs

from functions.core.alarms import ALARMS, HOLDFAST, STAGE, Alarm, Series, by_name
from functions.observability import FIELDS, OF_THE_STAGE
from infra.config import DEV
from infra.dashboard import STATIONS, Dashboard, Each, LogPanel, Panel, Station
from ops.alarms.counted import AT_THE_DOOR, places
from tests.template import Template
from tests.unit.test_alarm_metrics import emitted

PANELS = [panel for station in STATIONS for panel in station.panels]
LINES = [line for panel in PANELS if isinstance(panel, Panel) for line in panel.lines.values()]


def widgets(template: Template) -> Iterator[dict[str, Any]]:
    (board,) = template.of_type("AWS::CloudWatch::Dashboard").values()
    body = board["Properties"]["DashboardBody"]
    text = "".join(part if isinstance(part, str) else "REF" for part in body["Fn::Join"][1])
    yield from json.loads(text)["widgets"]


def test_there_is_one_dashboard_with_every_alarm_and_every_panel(template: Template) -> None:
    found = list(widgets(template))
    (status,) = [each for each in found if each["type"] == "alarm"]
    speaking = [
        each
        for kind in ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm")
        for each in template.of_type(kind).values()
        if "AlarmActions" in each["Properties"]
    ]
    assert len(status["properties"]["alarms"]) == len(speaking)
    titles = [each["properties"]["title"].partition(" | ")[0] for each in found if each["type"] in ("metric", "log")]
    brought = sorted((alarm for alarm in ALARMS if alarm.flow), key=lambda alarm: alarm.flow)
    assert titles == [panel.title for panel in PANELS] + [alarm.name for alarm in brought]
    stations = [each["properties"]["markdown"] for each in found if each["type"] == "text"]
    flows = sorted({alarm.flow for alarm in brought})
    assert stations[1:] == [f"## {station.title}" for station in STATIONS] + [f"## Flow {flow}" for flow in flows]


def test_every_panel_says_what_normal_looks_like(template: Template) -> None:
    for each in widgets(template):
        if each["type"] in ("metric", "log"):
            assert re.search(r" \| normal: \S", each["properties"]["title"])


def test_no_two_panels_overlap_and_each_stands_below_what_comes_before_it(template: Template) -> None:
    taken: set[tuple[int, int]] = set()
    for each in widgets(template):
        cells = {
            (x, y)
            for x in range(each["x"], each["x"] + each["width"])
            for y in range(each["y"], each["y"] + each["height"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.parametrize("line", [each for each in LINES if isinstance(each, Each)], ids=lambda each: each.metric)
def test_what_is_searched_for_is_counted_by_just_these_dimensions(line: Each) -> None:
    if line.service == "ingress":
        assert line.metric in ("webhooks_accepted", "webhooks_rejected")
        return
    found = [place.by for place in places(line.service, line.metric)]
    assert set(line.by) in found, (line.metric, found)
    written = [
        set(dimensions)
        for _, metric, dimensions in emitted(line.service, line.metric, set(line.by))
        if metric == line.metric
    ]
    assert {"service", "stage", *line.by} in written
    assert f"{HOLDFAST},service,stage,{','.join(line.by)}}}" in line.expression("dev")
    assert 'service="' in line.expression("dev")


@pytest.mark.parametrize("line", [each for each in LINES if isinstance(each, Series)], ids=lambda each: each.metric)
def test_what_is_drawn_is_counted(line: Series) -> None:
    if line.namespace != HOLDFAST:
        assert line.metric in {
            "5xx",
            "Count",
            "NumberOfNotificationsFailed",
            "ReadThrottleEvents",
            "WriteThrottleEvents",
            "Errors",
            "Invocations",
            "Throttles",
            "ApproximateAgeOfOldestMessage",
            "ApproximateNumberOfMessagesVisible",
            "ApproximateNumberOfMessagesNotVisible",
        }
        return
    if "service" not in line.dimensions:
        assert line.metric in AT_THE_DOOR or line.metric in OF_THE_STAGE
        return
    service = line.dimensions["service"]
    written = [
        dimensions
        for place in places(service, line.metric)
        for _, _, dimensions in emitted(service, line.metric, place.by)
    ]
    assert {"service": service, "stage": "test"} in written, line.metric
    assert dict(line.dimensions) == {"service": service, "stage": STAGE}


@pytest.mark.parametrize("panel", [each for each in PANELS if isinstance(each, LogPanel)], ids=lambda each: each.title)
def test_a_table_of_a_log_asks_for_fields_that_there_are(panel: LogPanel) -> None:
    """001.18: what is dead or unfinished by event name, which is no dimension: nothing bounds it."""
    text = " ".join(panel.query)
    asked = set(re.findall(r"ispresent\((\w+)\)", text)) | set(
        re.split(r",\s*", re.findall(r" by ([\w, ]+?)(?: sort|$)", text)[0])
    )
    assert asked <= FIELDS
    assert "event_name" in asked


def test_stations_stand_in_the_order_in_which_an_event_travels() -> None:
    titles = [station.title for station in STATIONS]
    assert [title[:3] for title in titles] == [f"{number}. " for number in range(1, len(titles) + 1)]
    way = (
        "webhooks_accepted",
        "event_age_ms",
        "items_received",
        "actions_failed",
        "recovery_transitions",
        "heartbeat",
    )
    found = [min(at for at, station in enumerate(STATIONS) if metric in _metrics_of(station)) for metric in way]
    assert found == sorted(found) == list(range(len(STATIONS)))


def _lines_of(station: Station) -> list[Series | Each]:
    return [line for panel in station.panels if isinstance(panel, Panel) for line in panel.lines.values()]


def _metrics_of(station: Station) -> set[str]:
    return {line.metric for line in _lines_of(station)}


@pytest.mark.parametrize("alarm", [one for one in ALARMS if not one.flow], ids=lambda alarm: alarm.name)
def test_whoever_is_paged_sees_on_the_dashboard_what_the_alarm_watches(alarm: Alarm) -> None:
    assert {series.metric for series in alarm.series.values()} <= {line.metric for line in LINES}


def test_5xx_are_told_apart_by_every_service_that_answers_requests() -> None:
    """001.19"""
    (panel,) = [panel for panel in PANELS if isinstance(panel, Panel) and panel.title == "5xx by service"]
    told = json.dumps([str(line) for line in panel.lines.values()])
    assert all(service in told for service in ("'api'", "'ingress'", "'operator_api'", "operator_calls"))


def test_every_dead_letter_queue_is_drawn_and_what_was_in_it_told_apart_by_event_name(template: Template) -> None:
    """001.18"""
    (panel,) = [panel for panel in PANELS if isinstance(panel, Panel) and panel.title == "Dead-letter queues"]
    deployed = [
        key for key, queue in template.of_type("AWS::SQS::Queue").items() if "RedrivePolicy" not in queue["Properties"]
    ]
    assert len(panel.lines) == len(deployed)
    tables = [panel for panel in PANELS if isinstance(panel, LogPanel)]
    assert {panel.function for panel in tables} == {"worker", "triage"}
    assert all("by event_name" in " ".join(panel.query) for panel in tables)


def test_a_flow_that_brings_alarms_has_a_station_of_its_own() -> None:
    app = App()
    stack = Stack(app, "Flows")
    known = by_name("items-failing")
    assert known is not None
    Dashboard(
        stack,
        config=DEV,
        metric=lambda series: cloudwatch.Metric(namespace=series.namespace, metric_name=series.metric),
        log_groups={name: logs.LogGroup(stack, name) for name in ("worker", "triage")},
        alarms=[],
        table=[replace(known, name="invites-failing", flow="hiring")],
    )
    body = json.dumps(app.synth().get_stack_by_name("Flows").template)
    assert "## Flow hiring" in body
    assert "invites-failing | normal: at most 0.05" in body
