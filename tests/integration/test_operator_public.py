"""What anybody may ask: `GET /status` and `GET /health` (000.18, 000.24, 000.25, 000.26, 002.4, 002.9)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from functions.core.gate import Health
from functions.core.health import UNJUDGED_MS
from functions.core.incident import IncidentChange
from functions.operator_api.caller import PUBLIC
from functions.operator_api.calls.public import FRESH_MS, KEPT_MS, REST_MS
from tests.fakes import NOON_MS
from tests.incidents import DOWN, HOUR_MS, MINUTE_MS, RULES, fired
from tests.operator_calls import call
from tests.operator_world import OperatorWorld, operator_world

TIMEOUT = ReadTimeoutError(endpoint_url="https://dynamodb.eu-central-1.amazonaws.com")


@pytest.fixture
def world() -> Iterator[OperatorWorld]:
    with operator_world() as made:
        yield made


def ask(world: OperatorWorld, path: str) -> dict[str, Any]:
    """As a stranger asks: without a token."""
    return world.ask("GET", path, claims=None)


def features(world: OperatorWorld) -> dict[str, Any]:
    answer = ask(world, "/status")
    assert answer["statusCode"] == 200
    found: dict[str, Any] = answer["document"]["features"]
    return found


def down(world: OperatorWorld) -> None:
    """The tables do not answer any more."""
    world.flaky.planned |= {name: [TIMEOUT] * 1_000 for name in ("batch_get_item", "get_item", "query")}


def reads(world: OperatorWorld) -> int:
    return sum(name in ("batch_get_item", "get_item", "query", "scan") for name, _ in world.flaky.calls)


# -------------------------------------------------------------------------------------------------------------- status


def test_while_all_is_well_every_feature_that_the_stage_has_is_operational(world: OperatorWorld) -> None:
    world.judge()
    answer = ask(world, "/status")
    assert answer["document"]["state"] == "operational"
    assert answer["document"]["as_of_ms"] == NOON_MS
    offered = {name for name, one in world.ports.features.items() if set(one.integrations) <= set(world.ports.profiles)}
    found = answer["document"]["features"]
    assert offered
    assert set(found) == offered
    assert "analysis" not in found, "no integration of the catalog does that"
    assert {one["state"] for one in found.values()} == {"operational"}
    assert all(all(one["capabilities"].values()) for one in found.values())


def test_a_feature_whose_integration_is_down_says_so_in_the_catalogs_words_with_what_apps_may_not_offer(
    world: OperatorWorld,
) -> None:
    """000.18, 000.24, 000.26."""
    world.judge(ocr=Health.HARD_DOWN, payments=Health.DEGRADED)
    found = features(world)
    assert found["document_reading"] == {
        "name": "Reading of documents",
        "state": "unavailable",
        "message": world.ports.features["document_reading"].levels[Health.HARD_DOWN].message,
        "capabilities": {"auto_parse": False, "manual_profile": True},
        "next_update_ms": None,
        "next_update_within_minutes": 120,
    }
    assert found["billing"]["capabilities"] == {"access": True, "checkout": False, "plan_changes": True}
    assert found["support"]["state"] == "operational"
    assert ask(world, "/status")["document"]["state"] == "unavailable"


def test_when_people_hear_more_is_the_incidents_word_while_there_is_one_about_integrations_000_26(
    world: OperatorWorld,
) -> None:
    world.judge(payments=Health.HARD_DOWN)
    incident, board = fired(DOWN, NOON_MS)
    incident = replace(incident, next_update_ms=NOON_MS + HOUR_MS)
    world.ports.incidents.store(IncidentChange(None, incident, (type(board)(), board)))
    found = features(world)
    assert (found["billing"]["next_update_ms"], found["billing"]["next_update_within_minutes"]) == (
        NOON_MS + HOUR_MS,
        None,
    )
    assert found["support"]["next_update_ms"] is None, "of what is well nothing is announced"
    world.clock.advance(HOUR_MS)
    world.judge(payments=Health.HARD_DOWN)
    assert features(world)["billing"]["next_update_within_minutes"] == 120, "it is over"
    assert RULES.scale == 1.0


def test_an_incident_that_cannot_be_read_leaves_the_window_of_the_feature(world: OperatorWorld) -> None:
    world.judge(payments=Health.HARD_DOWN)
    world.flaky.planned["get_item"] = [TIMEOUT] * 10
    assert features(world)["billing"]["next_update_within_minutes"] == 120


def test_no_answer_names_a_provider_an_integration_or_a_tenant_000_25(world: OperatorWorld) -> None:
    world.judge(**dict.fromkeys(world.ports.profiles, Health.HARD_DOWN))
    said = (ask(world, "/status")["body"] + ask(world, "/health")["body"]).lower()
    for profile in world.ports.profiles.values():
        assert profile.provider.lower() not in said
    for name in ("helpdesk", "llm", "ocr", "parser", "sms", "acme", "tenant"):
        assert f'"{name}"' not in said


def test_what_nobody_has_judged_for_minutes_reads_as_unknown_and_not_as_well(world: OperatorWorld) -> None:
    """An evaluator that has died must not leave a green page behind."""
    world.judge()
    world.clock.advance(UNJUDGED_MS + 2 * MINUTE_MS)
    found = features(world)
    assert {one["state"] for one in found.values()} == {"unknown"}
    assert {one["message"] for one in found.values()} == {"We cannot say at the moment how this is."}
    assert all(value is None for one in found.values() for value in one["capabilities"].values())
    assert ask(world, "/status")["document"]["state"] == "unknown"


def test_a_stage_of_which_nothing_was_ever_judged_is_unknown(world: OperatorWorld) -> None:
    assert {one["state"] for one in features(world).values()} == {"unknown"}


def test_what_a_person_has_said_of_an_integration_is_known_although_nothing_is_judged(world: OperatorWorld) -> None:
    body = {"state": "hard_down", "for": "30m", "reason": "maintenance"}
    assert world.ask("PUT", "/platform/integrations/payments/health", body)["statusCode"] == 200
    assert features(world)["billing"]["state"] == "unavailable"
    world.clock.advance(31 * MINUTE_MS)
    assert features(world)["billing"]["state"] == "unknown"


def test_where_the_tables_do_not_answer_all_is_unknown(world: OperatorWorld) -> None:
    down(world)
    assert {one["state"] for one in features(world).values()} == {"unknown"}


def test_what_was_read_last_serves_for_two_minutes_of_an_outage_and_then_is_unknown(world: OperatorWorld) -> None:
    world.judge(payments=Health.HARD_DOWN)
    assert features(world)["billing"]["state"] == "unavailable"
    down(world)
    world.clock.advance(KEPT_MS)
    answer = ask(world, "/status")
    assert answer["document"]["as_of_ms"] == NOON_MS, "it says of when it is"
    assert answer["document"]["features"]["support"]["state"] == "operational"
    world.clock.advance(REST_MS)
    assert {one["state"] for one in features(world).values()} == {"unknown"}


def test_strangers_cost_one_read_in_a_quarter_of_a_minute_however_many_ask(world: OperatorWorld) -> None:
    world.judge(payments=Health.HARD_DOWN)
    features(world)
    before = reads(world)
    for _ in range(200):
        ask(world, "/status")
        ask(world, "/health")
    assert reads(world) == before
    world.clock.advance(FRESH_MS)
    features(world)
    after = reads(world)
    assert before < after <= before + 3
    down(world)
    world.clock.advance(FRESH_MS)
    features(world)
    failed = reads(world)
    for _ in range(200):
        ask(world, "/status")
    assert reads(world) == failed, "nor are they asked each time while they do not answer"
    world.clock.advance(REST_MS)
    features(world)
    assert reads(world) > failed


def test_a_clock_that_was_set_back_does_not_keep_an_old_answer_for_ever(world: OperatorWorld) -> None:
    world.clock.advance(24 * HOUR_MS)
    world.judge()
    features(world)
    world.clock.advance(-24 * HOUR_MS)
    before = reads(world)
    features(world)
    assert reads(world) > before


# -------------------------------------------------------------------------------------------------------------- health


def test_a_stage_that_works_is_up_and_says_of_what_it_knows_it(world: OperatorWorld) -> None:
    """002.4, 002.9."""
    world.judge()
    answer = ask(world, "/health")
    assert answer["statusCode"] == 200
    assert answer["document"] == {"status": "ok", "checks": {"storage": "ok", "switches": "ok", "watch": "ok"}}


def test_without_tables_switches_or_somebody_who_judges_it_is_not_up(world: OperatorWorld) -> None:
    def checks() -> dict[str, str]:
        answer = ask(world, "/health")
        assert answer["statusCode"] == 503
        assert answer["document"]["code"] == "INT-503-DEPENDENCY-UNAVAILABLE"
        found: dict[str, str] = answer["document"]["checks"]
        return found

    assert checks() == {"storage": "ok", "switches": "ok", "watch": "failing"}
    world.judge()
    world.switches.is_down = True
    world.clock.advance(11 * MINUTE_MS)
    world.judge()
    assert checks() == {"storage": "ok", "switches": "failing", "watch": "ok"}
    world.switches.is_down = False
    world.clock.advance(FRESH_MS)
    down(world)
    assert checks() == {"storage": "failing", "switches": "ok", "watch": "ok"}
    world.clock.advance(KEPT_MS + REST_MS)
    assert checks() == {"storage": "failing", "switches": "ok", "watch": "unknown"}


# ------------------------------------------------------------------------------------------------- who asks, and how


@pytest.mark.parametrize("path", sorted(PUBLIC))
def test_an_answer_may_be_kept_for_seconds_and_read_by_pages_of_other_origins(world: OperatorWorld, path: str) -> None:
    world.judge()
    headers = ask(world, path)["headers"]
    assert headers["cache-control"] == f"public, max-age={PUBLIC[path]}"
    assert headers["access-control-allow-origin"] == "*"


def test_what_is_no_good_answer_is_kept_by_nobody_and_what_needs_a_token_never_is(world: OperatorWorld) -> None:
    assert ask(world, "/health")["headers"]["cache-control"] == "no-store"
    assert ask(world, "/platform/integrations")["headers"]["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in ask(world, "/platform/integrations")["headers"]


@pytest.mark.parametrize("path", sorted(PUBLIC))
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
def test_nothing_but_asking_is_public(world: OperatorWorld, path: str, method: str) -> None:
    assert world.ask(method, path, claims=None)["statusCode"] in (401, 404)


@pytest.mark.parametrize(
    "path", ["/status/", "/status/..", "/Status", "/status%2f", "/status%00", "//status", "/status/billing", "/healthz"]
)
def test_what_only_looks_like_it_needs_a_token(world: OperatorWorld, path: str) -> None:
    assert world.ask("GET", path, claims=None)["statusCode"] == 401


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(sorted(PUBLIC)),
    body=st.none() | st.text(max_size=200),
    headers=st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=200), max_size=5),
    query=st.dictionaries(st.text(max_size=20), st.text(max_size=200), max_size=5),
    is_base64=st.booleans(),
    claims=st.none() | st.dictionaries(st.text(max_size=10), st.text(max_size=30), max_size=3),
)
def test_whatever_strangers_send_with_it_changes_nothing(
    world: OperatorWorld,
    path: str,
    body: str | None,
    headers: dict[str, str],
    query: dict[str, str],
    is_base64: bool,
    claims: dict[str, str] | None,
) -> None:
    world.judge()
    event = call("GET", path, claims=claims, body=body, headers=headers, query=query, is_base64=is_base64)
    answer = world.answering.handle(event, None)
    assert answer["statusCode"] in (200, 400), "a body that is none is refused as everywhere"
    if answer["statusCode"] == 200:
        said = json.loads(answer["body"])
        assert said.get("state") == "operational" or said["status"] == "ok"
