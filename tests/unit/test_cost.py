"""What watching costs, from a template and the code; what events cost, from counted requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ops import cost


def template(*resources: dict[str, Any]) -> dict[str, Any]:
    return {"Resources": {str(number): each for number, each in enumerate(resources)}}


PLAIN = {"Type": "AWS::CloudWatch::Alarm", "Properties": {"MetricName": "m"}}
MATH = {
    "Type": "AWS::CloudWatch::Alarm",
    "Properties": {"Metrics": [{"Expression": "a + b"}, {"MetricStat": {}}, {"MetricStat": {}}]},
}
COMPOSITE = {"Type": "AWS::CloudWatch::CompositeAlarm", "Properties": {}}
BOARD = {"Type": "AWS::CloudWatch::Dashboard", "Properties": {}}


def test_an_alarm_costs_what_it_watches_and_a_composite_five_times_that_of_one_metric() -> None:
    parts = {part.what: part.dollars for part in cost.monitoring(template(PLAIN, MATH, COMPOSITE, BOARD))}
    assert parts["alarms"] == pytest.approx(0.30)
    assert parts["composite alarms"] == pytest.approx(0.50)
    assert parts["dashboards"] == pytest.approx(3.00)


def test_a_metric_that_is_told_apart_by_integration_costs_as_often_as_there_are_any() -> None:
    ten, twenty = cost.custom_metrics(10), cost.custom_metrics(20)
    assert ten["worker", "limiter_unavailable"] == 11  # each, and all together
    assert twenty["worker", "limiter_unavailable"] == 21
    assert ten["worker", "calls_limited"] == 10
    assert ten["sweeper", "heartbeat"] == twenty["sweeper", "heartbeat"] == 1
    assert ten["ingress", "webhooks_rejected"] == 11 + 5 * 11
    assert cost.total(cost.monitoring(template(), 20)) > cost.total(cost.monitoring(template(), 10))


def test_watching_stays_within_what_a_month_may_cost() -> None:
    """Per-tenant metrics would be 300 times as many: each is told apart by something bounded."""
    assert sum(cost.custom_metrics().values()) < 1_200


def test_the_bill_of_a_million_events_adds_up() -> None:
    parts = cost.per_million()
    assert cost.total(parts) == pytest.approx(sum(part.number * part.price for part in parts))
    assert 3 < cost.total(parts) < 15


def test_it_is_told_to_people_and_to_machines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cost, "template_of", lambda stage: template(PLAIN, BOARD))
    assert cost.main(["--stage", "prod"]) == 0
    assert "Monitoring of prod, a month, 10 integrations" in capsys.readouterr().out
    assert cost.main(["--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["monitoring_per_month"]["parts"]["alarms"] == 0.1
    assert said["per_million_events"]["total"] == round(cost.total(cost.per_million()), 2)
