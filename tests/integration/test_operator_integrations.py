"""Integrations through the operator API: how each is, and a person's word on it (000.22, architecture §11)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from functions.core.gate import Health
from tests import aws_tables
from tests.contract.storage import client_error
from tests.fakes import NOON_MS
from tests.operator_calls import PERSON, VIEWER
from tests.operator_world import OperatorWorld, operator_world
from tests.recovery_rows import row

LIST = "/platform/integrations"
ONE = f"{LIST}/helpdesk"


@pytest.fixture
def world() -> Iterator[OperatorWorld]:
    with operator_world() as made:
        yield made


def force(world: OperatorWorld, **body: Any) -> dict[str, Any]:
    return world.ask("PUT", f"{ONE}/health", {"state": "hard_down", "for": "30m", "reason": "maintenance", **body})


def test_every_integration_of_the_catalog_says_how_it_is_and_what_waits_for_it(world: OperatorWorld) -> None:
    world.put(row())
    told = world.ask("GET", LIST, claims=VIEWER)["document"]["integrations"]
    assert {one["integration_id"] for one in told} == set(world.ports.profiles)
    one = next(one for one in told if one["integration_id"] == "helpdesk")
    assert (one["health"], one["machine_says"], one["override"]["state"]) == ("healthy", "healthy", "")
    assert one["backlog"] == {"retrying": 1}
    assert one["switches"] == {
        "is_known": True,
        "mode": "live",
        "is_disabled": False,
        "is_replay_blocked": False,
        "limit": 1.0,
    }
    assert world.ask("GET", ONE)["document"] == one
    assert world.ask("GET", f"{LIST}/fax")["statusCode"] == 404


def test_a_persons_word_holds_for_its_time_and_can_be_taken_back(world: OperatorWorld) -> None:
    told = force(world)
    assert (told["statusCode"], told["document"]["health"]) == (200, "hard_down")
    assert told["document"]["override"] == {
        "state": "hard_down",
        "until_ms": NOON_MS + 1_800_000,
        "by": PERSON,
        "reason": "maintenance",
    }
    assert told["document"]["machine_says"] == "healthy"
    (event,) = world.audit()
    assert (event["event_type"], event["actor"]) == ("platform.integration.health.changed", PERSON)
    assert event["request_id"] == told["headers"]["x-request-id"]
    lifted = world.ask("PUT", f"{ONE}/health", {"state": None, "reason": "done early"})
    assert lifted["document"]["health"] == "healthy"
    again = world.ask("PUT", f"{ONE}/health", {"state": None, "reason": "done early"})
    assert again["statusCode"] == 409


@pytest.mark.parametrize(
    "body",
    [
        {"for": None},
        {"for": "8d"},
        {"for": "soon"},
        {"state": "unwell"},
        {"reason": ""},
        {"reason": " "},
        {"by": "bob"},
    ],
    ids=repr,
)
def test_a_word_that_cannot_be_is_refused_and_nothing_is_changed(world: OperatorWorld, body: dict[str, Any]) -> None:
    answer = force(world, **body)
    assert (answer["statusCode"], answer["document"]["code"]) == (400, "INT-400-INVALID-PAYLOAD")
    assert not world.audit()


def test_without_the_audit_nobodys_word_holds(world: OperatorWorld) -> None:
    world.flaky.planned["transact_write_items"] = [client_error("InternalServerError")] * 9
    answer = force(world)
    assert (answer["statusCode"], answer["document"]["code"]) == (503, "INT-503-DEPENDENCY-UNAVAILABLE")
    assert world.ask("GET", ONE)["document"]["health"] == "healthy"


def test_while_it_is_down_the_fallbacks_that_are_in_force_are_named(world: OperatorWorld) -> None:
    world.client.put_item(
        TableName=aws_tables.CONTROL,
        Item={"pk": {"S": "I#email"}, "health": {"S": Health.HARD_DOWN.value}, "probe_at": {"N": "9999999999999"}},
    )
    told = world.ask("GET", f"{LIST}/email")["document"]
    assert told["health"] == "hard_down"
    assert told["fallbacks"]
