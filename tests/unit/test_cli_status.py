"""`holdfast status`: what users are told, from the control items (000.5, 000.24)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from functions.catalog.loader import load
from ops import stack as stacks
from ops.cli import run, status
from ops.cli.console import ExitCode
from ops.stack import Stack
from tests.aws_tables import CONTROL, REGION, create_tables


@pytest.fixture
def dynamodb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with mock_aws():
        client = boto3.client("dynamodb", region_name=REGION)
        create_tables(client)
        monkeypatch.setattr(stacks, "client", lambda *_: client)
        monkeypatch.setattr(status, "stack_of", lambda _: Stack("dev", REGION, {"ControlTable": CONTROL}))
        yield client


def is_down(dynamodb: Any, integration: str, health: str = "hard_down") -> None:
    dynamodb.put_item(TableName=CONTROL, Item={"pk": {"S": f"I#{integration}"}, "health": {"S": health}})


def test_all_features_and_no_fallback_while_all_is_well(dynamodb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--json"]) == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert set(told["features"]) == set(load().features)
    assert {one["state"] for one in told["features"].values()} == {"operational"}
    assert (set(told["integrations"].values()), told["fallbacks"]) == ({"healthy"}, [])
    assert run(["status"]) == ExitCode.OK
    assert "no fallback is in force" in capsys.readouterr().err


def test_what_is_down_shows_as_users_see_it_and_as_operators_need_it(
    dynamodb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    is_down(dynamodb, "payments")
    is_down(dynamodb, "llm", "degraded")
    assert run(["status", "--json"]) == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert told["features"]["billing"]["capabilities"]["plan_changes"] is False
    assert told["features"]["billing"]["next_update_within_minutes"] == 120
    assert {one["row"] for one in told["fallbacks"]} == {
        "payments_down_plans",
        "payments_down_subscriptions",
        "classification_degraded",
    }
    assert run(["status"]) == ExitCode.OK
    text = capsys.readouterr().out
    assert all(word in text for word in ("plan_changes", "payments_down_plans", "hard_down", "within 120 min"))


def test_a_stage_that_does_not_answer_is_said_so(dynamodb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    dynamodb.delete_table(TableName=CONTROL)
    assert run(["status"]) == ExitCode.UNREACHABLE
    assert capsys.readouterr().out == ""
