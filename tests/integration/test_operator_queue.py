"""Runbook 004 by its own lines: the recovery queue over the real adapters (004.1 to 004.23)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from functions.core.attempt import Effect
from functions.core.decision import Repeat
from functions.core.gate import Health
from functions.core.recovery import Change, Row, Status
from tests import aws_tables
from tests.contract.storage import Lost, client_error
from tests.fakes import NOON_MS
from tests.operator_calls import PERSON, VIEWER, claims_of
from tests.operator_world import OperatorWorld, operator_world
from tests.recovery_rows import action, row

QUEUE = "/platform/integrations/helpdesk/recovery/queue"
KEY = "click-0001"


@pytest.fixture
def world() -> Iterator[OperatorWorld]:
    with operator_world() as made:
        yield made


def dead(name: str = "tag", **fields: Any) -> Row:
    stated = {"status": Status.DLQ, "due_at_ms": 0, "not_before_ms": 0, "failure_code": "HTTP_503", **fields}
    return row(name, **stated)


def item(one: Row, then: str = "") -> str:
    return f"{QUEUE}/{one.recovery_id}{then}"


def replay(world: OperatorWorld, one: Row, *, key: str = KEY, **body: Any) -> dict[str, Any]:
    return world.ask("POST", item(one, "/replay"), {"reason": "it is back", **body}, key=key)


def test_004_11_the_list_takes_status_and_limit_and_pages_to_its_end(world: OperatorWorld) -> None:
    rows = [world.put(replace(dead(), recovery_id=f"{n:024d}", updated_at_ms=NOON_MS + n)) for n in range(5)]
    world.put(replace(row(), recovery_id="f" * 24))
    found: list[str] = []
    cursor = ""
    while True:
        query = {"status": "dlq", "limit": "2", **({"cursor": cursor} if cursor else {})}
        answer = world.ask("GET", QUEUE, query=query, claims=VIEWER)
        assert answer["statusCode"] == 200
        found += [one["recovery_id"] for one in answer["document"]["items"]]
        cursor = answer["document"]["cursor"]
        if not cursor:
            break
    assert found == [one.recovery_id for one in rows]


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "201"}, {"limit": "x"}, {"status": "lost"}, {"cursor": "?"}]
)
def test_004_11_what_is_no_list_is_400(world: OperatorWorld, query: dict[str, str]) -> None:
    answer = world.ask("GET", QUEUE, query=query)
    assert (answer["statusCode"], answer["document"]["code"]) == (400, "INT-400-INVALID-PAYLOAD")


def test_004_12_an_item_says_status_attempts_and_failure(world: OperatorWorld) -> None:
    one = world.put(dead(attempt_count=5, failure_detail="the helpdesk was down", root_cause="transient_infra"))
    told = world.ask("GET", item(one), claims=VIEWER)["document"]
    assert {name: told[name] for name in ("status", "attempt_count", "failure_code", "failure_detail")} == {
        "status": "dlq",
        "attempt_count": 5,
        "failure_code": "HTTP_503",
        "failure_detail": "the helpdesk was down",
    }
    assert (told["root_cause"], told["integration"]["health"], told["replay_refused"]) == (
        "transient_infra",
        "healthy",
        "",
    )


def test_004_2_what_is_not_there_is_404(world: OperatorWorld) -> None:
    one = world.put(dead())
    answer = world.ask("GET", f"{QUEUE}/{'0' * 24}")
    assert (answer["statusCode"], answer["document"]["code"]) == (404, "INT-404-RECOVERY-NOT-FOUND")
    answer = world.ask("GET", f"/platform/integrations/fax/recovery/queue/{one.recovery_id}")
    assert (answer["statusCode"], answer["document"]["code"]) == (404, "INT-404-NOT-FOUND")
    elsewhere = f"/platform/integrations/intake/recovery/queue/{one.recovery_id}"
    assert world.ask("GET", elsewhere)["document"]["code"] == "INT-404-RECOVERY-NOT-FOUND"


def test_004_3_to_look_view_is_enough_and_to_change_operate_is_needed(world: OperatorWorld) -> None:
    one = world.put(dead())
    for then in ("/replay", "/dismiss", "/cancel", "/note", "/root-cause"):
        answer = world.ask("POST", item(one, then), {"reason": "why"}, claims=VIEWER, key=KEY)
        assert (answer["statusCode"], answer["document"]["code"]) == (403, "INT-403-PERMISSION-DENIED")
    assert world.ask("GET", item(one), claims=claims_of(PERSON))["statusCode"] == 403
    assert world.ask("GET", item(one), claims=None)["statusCode"] == 401
    assert world.stored(one) == one


def test_004_14_a_replay_is_202_with_id_status_and_request_id_and_its_hint_is_queued(world: OperatorWorld) -> None:
    one = world.put(dead())
    answer = replay(world, one)
    assert answer["statusCode"] == 202
    told = answer["document"]
    assert (told["recovery_id"], told["status"]) == (one.recovery_id, "replayed")
    assert told["request_id"] == answer["headers"]["x-request-id"]
    assert told["integration"]["health"] == "healthy"
    now = world.stored(one)
    assert (now.status, now.replayed_from) == (Status.REPLAYED, "dlq")
    assert [(sent.hint.recovery_id, sent.hint.version) for sent in world.hints.sent] == [(one.recovery_id, now.version)]


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ({"reason": "why"}, ""),
        ({"reason": "why"}, "short"),
        ({"reason": "why"}, "with space in it"),
        ({"reason": ""}, KEY),
        ({"reason": "  "}, KEY),
        ({}, KEY),
        ({"reason": "why", "force": True}, KEY),
        ({"reason": "why", "confirmation": {"checked": "x", "effect": "done"}}, KEY),
        ({"reason": "x" * 501}, KEY),
    ],
)
def test_004_14_a_replay_without_key_or_reason_is_400_and_nothing_happens(
    world: OperatorWorld, body: dict[str, Any], key: str
) -> None:
    one = world.put(dead())
    answer = world.ask("POST", item(one, "/replay"), body, key=key)
    assert (answer["statusCode"], answer["document"]["code"]) == (400, "INT-400-INVALID-PAYLOAD")
    assert world.stored(one) == one
    assert not world.hints.sent


def test_004_14_the_same_click_again_gets_the_first_answer_and_another_under_its_key_is_422(
    world: OperatorWorld,
) -> None:
    one, other = world.put(dead("tag")), world.put(dead("other"))
    first = replay(world, one)
    again = replay(world, one)
    assert (again["statusCode"], again["document"]) == (202, first["document"])
    assert len(world.hints.sent) == 1
    assert len(world.audit()) == 1
    for answer in (replay(world, one, reason="another reason"), replay(world, other)):
        assert (answer["statusCode"], answer["document"]["code"]) == (422, "INT-422-IDEMPOTENCY-KEY-REUSED")
    assert world.stored(other) == other


def test_004_14_a_deliberate_second_replay_works_once_the_first_has_failed_again(world: OperatorWorld) -> None:
    one = world.put(dead())
    replay(world, one)
    under_way = world.stored(one)
    failed = replace(
        under_way, version=under_way.version + 1, status=Status.DLQ, result="failed", due_at_ms=0, not_before_ms=0
    )
    world.recovery.commit([Change(failed, under_way)])
    answer = replay(world, one, key="click-0002")
    assert answer["statusCode"] == 202
    assert world.stored(one).replay_no == 2


@pytest.mark.parametrize("status", [Status.PENDING, Status.RETRYING, Status.SUCCEEDED, Status.REPLAYED])
def test_004_15_in_any_other_state_a_replay_is_409_with_that_state(world: OperatorWorld, status: Status) -> None:
    one = world.put(row(status=status))
    answer = replay(world, one)
    assert (answer["statusCode"], answer["document"]["code"]) == (409, "INT-409-RECOVERY-REPLAY-CONFLICT")
    assert answer["document"]["current_status"] == status.value
    assert world.stored(one) == one


def test_004_15_what_may_have_happened_is_replayed_only_with_what_was_checked(world: OperatorWorld) -> None:
    push = action("push", kind="push", repeat=Repeat.BLIND)
    one = world.put(dead(status=Status.FAILED, action=push, effect=Effect.UNKNOWN, failure_code="OUTCOME_UNKNOWN"))
    answer = replay(world, one)
    assert (answer["statusCode"], answer["document"]["reason"]) == (409, "effect_unknown")
    assert "look at the provider" in answer["document"]["detail"]
    answer = replay(world, one, key="click-0002", confirmation={"checked": "nothing on T-push", "effect": "none"})
    assert answer["statusCode"] == 202
    assert "nothing on T-push" in world.audit()[-1]["reason"]


@pytest.mark.parametrize(
    ("switch", "value", "status"),
    [
        ("replay", "off", 409),
        ("replay_blocked_integrations", "helpdesk", 409),
        ("replay_blocked_integrations", "all", 409),
    ],
)
def test_004_20_a_switch_stops_replays_of_everything_or_of_one_integration(
    world: OperatorWorld, switch: str, value: str, status: int
) -> None:
    one = world.put(dead())
    world.switches.values[switch] = value
    answer = replay(world, one)
    assert answer["statusCode"] == status
    assert switch in answer["document"]["detail"]
    assert world.stored(one) == one


def test_004_20_while_switches_cannot_be_read_nothing_is_replayed(world: OperatorWorld) -> None:
    one = world.put(dead())
    world.switches.is_down = True
    assert replay(world, one)["document"]["code"] == "INT-503-DEPENDENCY-UNAVAILABLE"
    assert world.stored(one) == one


def test_004_16_and_18_every_change_is_in_the_audit_with_person_ids_and_before_and_after(world: OperatorWorld) -> None:
    one = world.put(dead())
    answer = replay(world, one)
    (event,) = world.audit()
    assert event["event_type"] == "platform.integration.recovery.replayed"
    assert (event["actor"], event["reason"]) == (PERSON, "it is back")
    assert event["request_id"] == answer["headers"]["x-request-id"]
    assert event["traceparent"] == answer["headers"]["traceparent"]
    assert '"status":"dlq"' in event["before_state"]
    assert '"status":"replayed"' in event["after_state"]


@pytest.mark.parametrize("operation", ["transact_write_items", "get_item"])
def test_004_19_without_storage_or_audit_the_answer_is_503_and_nothing_happened(
    world: OperatorWorld, operation: str
) -> None:
    one = world.put(dead())
    world.flaky.planned[operation] = [client_error("InternalServerError")] * 9
    answer = replay(world, one)
    assert (answer["statusCode"], answer["document"]["code"]) == (503, "INT-503-DEPENDENCY-UNAVAILABLE")
    assert world.stored(one) == one
    assert not world.audit()
    assert not world.hints.sent


def test_004_19_an_answer_that_was_lost_is_no_second_replay(world: OperatorWorld) -> None:
    one = world.put(dead())
    world.flaky.planned["transact_write_items"] = [Lost()]
    assert replay(world, one)["statusCode"] == 202
    assert replay(world, one)["statusCode"] == 202
    assert (world.stored(one).replay_no, len(world.audit())) == (1, 1)


@pytest.mark.parametrize(
    ("then", "body", "code", "effect"),
    [
        ("/dismiss", {"reason": "not wanted"}, "DISMISSED", Effect.NONE),
        ("/dismiss", {"reason": "tagged it", "done_by_hand": True}, "DONE_BY_HAND", Effect.DONE),
    ],
)
def test_an_item_is_ended_by_a_person_and_then_replayed_by_nobody(
    world: OperatorWorld, then: str, body: dict[str, Any], code: str, effect: Effect
) -> None:
    one = world.put(dead())
    answer = world.ask("POST", item(one, then), body)
    assert (answer["statusCode"], answer["document"]["failure_code"]) == (200, code)
    assert world.stored(one).effect is effect
    (event,) = world.audit()
    assert (event["event_type"], event["actor"]) == ("platform.integration.recovery.dismissed", PERSON)
    assert replay(world, one)["statusCode"] == 409
    assert world.ask("POST", item(one, then), body)["statusCode"] == 409


def test_what_must_not_be_sent_any_more_is_cancelled_while_it_waits_and_not_while_it_is_sent(
    world: OperatorWorld,
) -> None:
    waits = world.put(row("waits"))
    under_way = world.put(row("under_way", lease_until_ms=NOON_MS + 60_000))
    answer = world.ask("POST", item(waits, "/cancel"), {"reason": "the customer called"})
    assert (answer["document"]["status"], answer["document"]["failure_code"]) == ("failed", "CANCELLED")
    answer = world.ask("POST", item(under_way, "/cancel"), {"reason": "the customer called"})
    assert (answer["statusCode"], answer["document"]["current_status"]) == (409, "retrying")
    assert world.ask("POST", item(waits, "/cancel"), {"reason": "again"})["statusCode"] == 409


def test_a_person_may_overrule_the_root_cause_and_leave_a_note(world: OperatorWorld) -> None:
    one = world.put(dead(root_cause="transient_infra"))
    answer = world.ask("POST", item(one, "/root-cause"), {"root_cause": "code_defect", "reason": "our parser"})
    assert answer["document"]["root_cause"] == "code_defect"
    answer = world.ask("POST", item(one, "/note"), {"note": "deploy 42 mends it"})
    assert "deploy 42 mends it" in answer["document"]["history"][-1]["why"]
    assert [event["actor"] for event in world.audit()] == [PERSON, PERSON]
    assert world.ask("POST", item(one, "/root-cause"), {"root_cause": "gremlins", "reason": "x"})["statusCode"] == 400


def test_004_13_whoever_replays_sees_how_the_integration_is(world: OperatorWorld) -> None:
    world.client.put_item(
        TableName=aws_tables.CONTROL,
        Item={"pk": {"S": "I#helpdesk"}, "health": {"S": Health.HARD_DOWN.value}, "probe_at": {"N": "9999999999999"}},
    )
    one = world.put(dead())
    assert replay(world, one)["document"]["integration"]["health"] == "hard_down"
