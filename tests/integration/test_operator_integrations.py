"""Integrations through the operator API: how each is, and a person's word on it (000.22, architecture §11)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from functions.adapters.health import DynamoHealthRecords
from functions.core.failure import VersionConflict
from functions.core.gate import Health
from functions.core.health import HealthChange
from functions.core.recovery import Status
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
        "held_by": {},
    }
    assert world.ask("GET", ONE)["document"] == one
    assert world.ask("GET", f"{LIST}/fax")["statusCode"] == 404


def test_what_waits_and_what_is_dead_is_counted_by_status_and_what_is_well_is_not(world: OperatorWorld) -> None:
    dead = {"due_at_ms": 0, "not_before_ms": 0}
    world.put(row("one"))
    world.put(row("two", status=Status.PENDING, waits_for=("p",), due_at_ms=0))
    world.put(row("three", status=Status.DLQ, **dead))
    world.put(row("four", status=Status.FAILED, **dead))
    world.put(row("five", status=Status.SUCCEEDED, **dead))
    world.put(row("six", status=Status.REPLAYED))
    world.put(row("seven", status=Status.REPLAYED, result="succeeded", **dead))
    assert world.ask("GET", ONE)["document"]["backlog"] == {
        "pending": 1,
        "retrying": 1,
        "failed": 1,
        "dlq": 1,
        "replayed": 1,
    }


def test_which_switches_hold_it_and_when_it_goes_on_is_said(world: OperatorWorld) -> None:
    """000.5; 003.16: "sending resumes at"."""
    world.switches.values |= {"disabled_integrations": "helpdesk", "tenant/acme/limits/helpdesk": "0.5"}
    told = force(world)["document"]
    assert told["resumes_at_ms"] == NOON_MS + 1_800_000
    assert (told["next_probe_at_ms"], told["released"]) == (0, 0.0)
    assert told["switches"]["is_disabled"]
    assert told["switches"]["held_by"] == {"disabled_integrations": "helpdesk", "tenant/acme/limits/helpdesk": "0.5"}
    world.client.put_item(
        TableName=aws_tables.CONTROL,
        Item={
            "pk": {"S": "I#helpdesk"},
            "health": {"S": Health.HARD_DOWN.value},
            "probe_at": {"N": str(NOON_MS + 5)},
            "probe_ok": {"N": "1"},
        },
    )
    told = world.ask("GET", ONE)["document"]
    assert told["resumes_at_ms"] == 0, "the machine waits for probes, and nobody knows"
    assert (told["next_probe_at_ms"], told["probes_succeeded"], told["probes_needed"]) == (NOON_MS + 5, 1, 3)


def test_a_word_is_taken_although_the_machine_writes_at_the_same_time(
    world: OperatorWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = world.ports.health
    assert isinstance(health, DynamoHealthRecords)
    store, moved = health.store, [1, 1]

    def contended(name: str, change: HealthChange) -> None:
        if moved:
            moved.pop()
            raise VersionConflict("the machine was first")
        store(name, change)

    monkeypatch.setattr(health, "store", contended)
    assert force(world)["document"]["override"]["state"] == "hard_down"
    moved += [1] * 9
    answer = force(world)
    assert (answer["statusCode"], answer["document"]["code"]) == (409, "INT-409-IN-PROGRESS")


def test_a_word_that_is_stored_is_answered_although_the_tables_stop_answering(world: OperatorWorld) -> None:
    force(world)
    stop = [client_error("InternalServerError")] * 9
    world.flaky.after["transact_write_items"] = lambda: world.flaky.planned.update(
        get_item=list(stop), batch_get_item=list(stop), query=list(stop)
    )
    answer = force(world, reason="longer", **{"for": "2h"})
    assert (answer["statusCode"], answer["document"]["override"]["reason"]) == (200, "longer")


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
    assert (lifted["document"]["before"], lifted["document"]["is_changed"]) == ("hard_down", True)
    assert len(world.audit()) == 2


def test_to_take_back_what_nobody_has_said_is_done_already_and_leaves_no_trace(world: OperatorWorld) -> None:
    """A PUT that asks for what is so: no conflict, and nothing to audit."""
    for _ in range(2):
        answer = world.ask("PUT", f"{ONE}/health", {"state": None, "reason": "done early"})
        told = answer["document"]
        assert (answer["statusCode"], told["is_changed"], told["before"], told["health"]) == (
            200,
            False,
            "healthy",
            "healthy",
        )
    assert not world.audit()
    assert world.ports.health.read(["helpdesk"])["helpdesk"].version == 0


def test_what_another_takes_back_at_the_same_moment_is_taken_back_once(world: OperatorWorld) -> None:
    force(world)
    lift = {"state": None, "reason": "done early"}
    first: list[Any] = []
    world.flaky.after["batch_get_item"] = lambda: first.append(world.ask("PUT", f"{ONE}/health", lift))
    second = world.ask("PUT", f"{ONE}/health", lift)
    assert [first[0]["document"]["is_changed"], second["document"]["is_changed"]] == [True, False]
    assert (first[0]["statusCode"], second["statusCode"]) == (200, 200)
    assert len(world.audit()) == 2


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
