"""Runbook 004 by its own lines: the recovery queue over the real adapters (004.1 to 004.23)."""

from __future__ import annotations

import base64
import functools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from functions.core.attempt import Effect
from functions.core.decision import Action, MessageRef, Repeat
from functions.core.gate import Health, WaitingFor
from functions.core.recovery import Change, Row, Status, claim
from functions.operator_api.caller import Permission
from functions.operator_api.calls import queue
from tests import aws_tables
from tests.contract.storage import Lost, at_once, client_error
from tests.fakes import NOON_MS
from tests.operator_calls import OPERATOR, PERSON, VIEWER, Answering, call, claims_of
from tests.operator_world import OperatorWorld, operator_world
from tests.recovery_rows import action, event_row, row

QUEUE = "/platform/integrations/helpdesk/recovery/queue"
KEY = "click-0001"
OPERATE = Permission.OPERATE
DAY_MS = 86_400_000


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
    """004.23: once the dependency is back, under a request id of its own."""
    one = world.put(dead())
    first = replay(world, one)
    under_way = world.stored(one)
    failed = replace(
        under_way, version=under_way.version + 1, status=Status.DLQ, result="failed", due_at_ms=0, not_before_ms=0
    )
    world.recovery.commit([Change(failed, under_way)])
    answer = replay(world, one, key="click-0002")
    assert answer["statusCode"] == 202
    assert world.stored(one).replay_no == 2
    assert world.stored(one).request_id == answer["document"]["request_id"] != first["document"]["request_id"]


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


# ------------------------------------------------------------------------------ whoever comes between, and lost answers


def other_desk(world: OperatorWorld) -> Answering:
    """Another instance of the function, over the same tables."""
    return Answering([queue.routes(world.ports)], clock=world.clock, ids=world.ids)


def click(desk: Answering, one: Row, key: str, reason: str = "it is back") -> dict[str, Any]:
    body = json.dumps({"reason": reason})
    return desk(call("POST", item(one, "/replay"), claims=OPERATOR, body=body, headers={"idempotency-key": key}))


@pytest.mark.parametrize("keys", [("click-0001",) * 6, tuple(f"click-{n:04}" for n in range(6))], ids=["one", "each"])
def test_004_14_of_clicks_at_once_exactly_one_replays(world: OperatorWorld, keys: tuple[str, ...]) -> None:
    one = world.put(dead())
    desks = [other_desk(world) for _ in keys]
    attempts = [functools.partial(click, desk, one, key) for desk, key in zip(desks, keys, strict=True)]
    answers = at_once(attempts)
    statuses = Counter(answer["statusCode"] for answer in answers)
    if len(set(keys)) == 1:
        assert statuses == {202: 6}, "one click that came six times has one answer"
        assert len({answer["body"] for answer in answers}) == 1
    else:
        assert statuses == {202: 1, 409: 5}
        refused = {answer["document"]["current_status"] for answer in answers if answer["statusCode"] == 409}
        assert refused == {"replayed"}
    assert (world.stored(one).replay_no, len(world.audit())) == (1, 1)


@pytest.mark.parametrize("look", ["the key", "the row"])
def test_004_14_a_click_that_is_carried_out_between_two_looks_of_its_repeat_gives_its_answer(
    world: OperatorWorld, look: str
) -> None:
    one = world.put(dead())
    desk, first = other_desk(world), list[dict[str, Any]]()

    def meanwhile() -> None:
        first.append(click(desk, one, KEY))

    if look == "the key":
        world.flaky.after["get_item"] = meanwhile
    else:
        world.flaky.after["get_item"] = lambda: world.flaky.after.update(get_item=meanwhile)
    repeat = replay(world, one)
    assert (repeat["statusCode"], repeat["body"]) == (202, first[0]["body"])
    assert (world.stored(one).replay_no, len(world.audit()), len(world.hints.sent)) == (1, 1, 1)


def test_004_14_another_call_between_two_looks_under_the_same_key_is_422(world: OperatorWorld) -> None:
    one = world.put(dead())
    world.flaky.after["get_item"] = functools.partial(click, other_desk(world), one, KEY, "another reason")
    answer = replay(world, one)
    assert (answer["statusCode"], answer["document"]["code"]) == (422, "INT-422-IDEMPOTENCY-KEY-REUSED")


def test_004_14_keys_are_each_callers_own_and_free_again_after_a_day(world: OperatorWorld) -> None:
    one, other = world.put(dead("tag", expires_at_ms=NOON_MS + DAY_MS * 9)), world.put(dead("other"))
    replay(world, one)
    bobs = world.ask("POST", item(other, "/replay"), {"reason": "mine"}, key=KEY, claims=claims_of("bob", OPERATE))
    assert bobs["statusCode"] == 202
    third = world.put(dead("third", expires_at_ms=NOON_MS + DAY_MS * 9))
    world.clock.advance(DAY_MS - 1)
    assert replay(world, third)["statusCode"] == 422
    world.clock.advance(1)
    assert replay(world, third)["statusCode"] == 202


def test_004_19_an_answer_that_never_comes_is_found_out_by_a_look(world: OperatorWorld) -> None:
    """Every answer of the transaction is lost: it is there, and whoever asked is told so."""
    one = world.put(dead())
    world.flaky.planned["transact_write_items"] = [Lost(EndpointConnectionError(endpoint_url="x"))]
    answer = replay(world, one)
    assert (answer["statusCode"], answer["document"]["status"]) == (202, "replayed")
    assert len(world.hints.sent) == 1
    assert replay(world, one)["body"] == answer["body"]
    assert (world.stored(one).replay_no, len(world.audit())) == (1, 1)


@pytest.mark.parametrize("then", ["/replay", "/dismiss", "/note"])
def test_004_19_what_nobody_can_confirm_is_503_and_says_to_look_and_is_never_done_twice(
    world: OperatorWorld, then: str
) -> None:
    one = world.put(dead())
    body = {"note": "hello"} if then == "/note" else {"reason": "it is back"}
    stop = [client_error("InternalServerError")] * 9
    world.flaky.planned["transact_write_items"] = [Lost(EndpointConnectionError(endpoint_url="x"))]
    world.flaky.after["transact_write_items"] = lambda: world.flaky.planned.update(get_item=list(stop))
    answer = world.ask("POST", item(one, then), body, key=KEY)
    assert (answer["statusCode"], answer["document"]["code"]) == (503, "INT-503-DEPENDENCY-UNAVAILABLE")
    assert "look at the item" in answer["document"]["detail"]
    world.flaky.planned.clear()
    if then == "/replay":
        assert replay(world, one)["statusCode"] == 202
    assert len(world.audit()) == 1


@pytest.mark.parametrize(("then", "body"), [("/dismiss", {"reason": "x"}), ("/note", {"note": "x"})])
def test_004_19_without_the_audit_no_change_is_made(world: OperatorWorld, then: str, body: dict[str, Any]) -> None:
    one = world.put(dead())
    world.client.delete_table(TableName=aws_tables.AUDIT)
    answer = world.ask("POST", item(one, then), body)
    assert (answer["statusCode"], answer["document"]["code"]) == (503, "INT-503-DEPENDENCY-UNAVAILABLE")
    assert world.stored(one) == one


@pytest.mark.parametrize(("then", "body"), [("/dismiss", {"reason": "x"}), ("/note", {"note": "x"})])
def test_004_19_a_change_that_is_made_is_answered_although_the_tables_stop_answering(
    world: OperatorWorld, then: str, body: dict[str, Any]
) -> None:
    one = world.put(dead())
    stop = [client_error("InternalServerError")] * 9
    world.flaky.after["transact_write_items"] = lambda: world.flaky.planned.update(
        get_item=list(stop), batch_get_item=list(stop)
    )
    assert world.ask("POST", item(one, then), body)["statusCode"] == 200


def test_a_worker_that_takes_the_item_between_look_and_change_wins(world: OperatorWorld) -> None:
    waits = world.put(row("waits"))
    taken = claim(waits, NOON_MS, NOON_MS + 60_000, "worker")
    world.flaky.after["get_item"] = lambda: world.recovery.commit([taken])
    answer = world.ask("POST", item(waits, "/cancel"), {"reason": "the customer called"})
    assert (answer["statusCode"], answer["document"]["current_status"]) == (409, "retrying")
    assert "moved on" in answer["document"]["detail"]
    assert world.stored(waits) == taken.after
    answer = world.ask("POST", item(waits, "/cancel"), {"reason": "the customer called"})
    assert (answer["document"]["reason"], "for 60 seconds" in answer["document"]["detail"]) == ("under_way", True)


def test_what_waited_for_what_a_person_has_done_goes_on_in_the_same_transaction(world: OperatorWorld) -> None:
    parent = dead("tag")
    child = row("reply", status=Status.PENDING, attempt_count=0, waits_for=(parent.recovery_id,), due_at_ms=0)
    other = row("other", status=Status.PENDING, attempt_count=0, waits_for=("f" * 24,), due_at_ms=0)
    parent = replace(parent, children=(child.recovery_id, other.recovery_id, "0" * 24))
    for one in (parent, child, other):
        world.put(one)
    moved = replace(child, version=child.version + 1, priority=1)
    looks = iter(range(9))

    def meanwhile() -> None:  # the child moves on once, after it was read
        if next(looks) == 1:
            world.recovery.commit([Change(moved, child)])
        else:
            world.flaky.after["get_item"] = meanwhile

    world.flaky.after["get_item"] = meanwhile
    answer = world.ask("POST", item(parent, "/dismiss"), {"reason": "tagged it", "done_by_hand": True})
    assert answer["statusCode"] == 200
    assert answer["document"]["waited_for_by"] == [child.recovery_id, other.recovery_id, "0" * 24]
    now = world.stored(child)
    assert (now.waits_for, now.due_at_ms, now.priority) == ((), NOON_MS, 1)
    assert world.stored(other) == other


def test_what_waits_for_what_is_dismissed_goes_on_waiting(world: OperatorWorld) -> None:
    """Its condition will never hold; it ends by itself when it expires, which is on record then."""
    parent = dead("tag")
    child = row("reply", status=Status.PENDING, waits_for=(parent.recovery_id,), due_at_ms=NOON_MS + 1)
    parent = world.put(replace(parent, children=(child.recovery_id,)))
    world.put(child)
    world.ask("POST", item(parent, "/dismiss"), {"reason": "not wanted"})
    assert world.stored(child) == child


# --------------------------------------------------------------------------------------------------- what an item tells


def test_004_12_an_item_tells_what_it_waits_for_until_when_and_where_to_look(world: OperatorWorld) -> None:
    """004.21: the evidence is with the item."""
    reply = action("reply", kind="helpdesk.reply", repeat=Repeat.LOOKUP, target="T-9")
    one = world.put(
        row(
            "reply",
            action=reply,
            waiting_for=WaitingFor.BACKOFF,
            due_at_ms=NOON_MS + 60_000,
            not_before_ms=NOON_MS + 60_000,
            hops=("email:HTTP_422",),
            first_sent_at_ms=NOON_MS - 5,
            last_possible_send_ms=NOON_MS - 4,
            history=({"at": 1, "from": "", "to": "retrying", "why": "HTTP_503"},),
            incident_id="inc-1",
            traceparent="00-t",
            response_snapshot='{"status":503}',
        )
    )
    told = world.ask("GET", item(one), claims=VIEWER)["document"]
    expected = {
        "status": "retrying",
        "waiting_for": "backoff",
        "due_at_ms": NOON_MS + 60_000,
        "not_before_ms": NOON_MS + 60_000,
        "target": "T-9",
        "provider_key": reply.action_id,
        "response_snapshot": '{"status":503}',
        "first_sent_at_ms": NOON_MS - 5,
        "last_possible_send_ms": NOON_MS - 4,
        "lease_until_ms": 0,
        "hops": ["email:HTTP_422"],
        "incident_id": "inc-1",
        "traceparent": "00-t",
        "replay_refused": "status_retrying",
        "replayable_until_ms": one.expires_at_ms,
        "history": [{"at_ms": 1, "before": "", "after": "retrying", "why": "HTTP_503"}],
    }
    assert {name: told[name] for name in expected} == expected


def test_004_12_an_item_says_whether_a_replay_would_be_taken(world: OperatorWorld) -> None:
    one = world.put(dead())
    told = functools.partial(lambda: world.ask("GET", item(one))["document"]["replay_refused"])
    assert told() == ""
    for switch, value, reason in (
        ("replay_blocked_integrations", "helpdesk", "replay_blocked"),
        ("replay", "off", "replay_off"),
    ):
        world.switches.values[switch] = value
        world.clock.advance(60_000)
        assert told() == reason
        assert replay(world, one)["document"]["reason"] == reason
    world.switches.is_down = True
    world.clock.advance(3_600_000)
    assert told() == "switches_unknown"


@pytest.mark.parametrize(("kind", "refused"), [("reply", ""), ("push", "effect_unknown"), ("gone", "effect_unknown")])
def test_004_15_what_an_attempt_finds_out_by_itself_needs_nobodys_word(
    world: OperatorWorld, kind: str, refused: str
) -> None:
    its = action(kind, kind=kind, repeat=Repeat.LOOKUP)
    one = world.put(dead(status=Status.FAILED, action=its, effect=Effect.UNKNOWN, failure_code="OUTCOME_UNKNOWN"))
    assert world.ask("GET", item(one))["document"]["replay_refused"] == refused
    assert replay(world, one)["statusCode"] == (409 if refused else 202)


def test_an_event_of_a_version_that_is_not_known_any_more_is_refused_with_the_reason(world: OperatorWorld) -> None:
    old = world.put(event_row(received_at_ms=NOON_MS, source="retired-shop"))
    path = f"/platform/integrations/intake/recovery/queue/{old.recovery_id}"
    answer = world.ask("POST", f"{path}/replay", {"reason": "it is back"}, key=KEY)
    told = answer["document"]
    assert (answer["statusCode"], told["code"]) == (409, "INT-409-RECOVERY-REPLAY-CONFLICT")
    assert (told["current_status"], told["reason"]) == ("dlq", "schema_unknown")
    assert told["detail"] == "version '1' of ticket.created is not known: nothing could be made of it"
    assert (world.stored(old), world.hints.sent) == (old, [])
    assert world.ask("GET", path)["document"]["replay_refused"] == "schema_unknown"


@pytest.mark.parametrize(
    ("gone", "detail"),
    [
        (action(kind="gone"), "the catalog has no gone on helpdesk"),
        (action(message=MessageRef("gone", 7)), "the catalog has no message gone of version 7"),
    ],
)
def test_an_action_that_the_catalog_has_no_more_is_refused_with_the_reason(
    world: OperatorWorld, gone: Action, detail: str
) -> None:
    one = world.put(dead(action=gone))
    told = replay(world, one)["document"]
    assert (told["reason"], told["detail"]) == ("schema_unknown", f"{detail}: nothing could be made of it")
    assert world.stored(one) == one


def test_an_item_of_a_whole_event_is_seen_and_replayed_under_intake(world: OperatorWorld) -> None:
    one = world.put(event_row(received_at_ms=NOON_MS))
    path = f"/platform/integrations/intake/recovery/queue/{one.recovery_id}"
    told = world.ask("GET", path)["document"]
    assert (told["kind"], told["target"], told["provider_key"], told["action_id"]) == ("", "", "", "")
    assert world.ask("POST", f"{path}/note", {"note": "seen"})["statusCode"] == 200
    assert world.ask("POST", f"{path}/replay", {"reason": "mended"}, key=KEY)["statusCode"] == 202


def test_an_item_that_another_version_wrote_is_409_and_is_named_in_the_list(world: OperatorWorld) -> None:
    one = world.put(dead())
    world.client.update_item(
        TableName=aws_tables.RECOVERY,
        Key={"pk": {"S": one.recovery_id}},
        UpdateExpression="SET effect = :later",
        ExpressionAttributeValues={":later": {"S": "of a later version"}},
    )
    assert world.ask("GET", item(one))["statusCode"] == 409
    assert replay(world, one)["statusCode"] == 409
    assert world.ask("POST", item(one, "/note"), {"note": "x"})["statusCode"] == 409
    listed = world.ask("GET", QUEUE)["document"]
    assert (listed["items"], listed["unreadable"]) == ([], [one.recovery_id])


def test_004_11_several_statuses_are_listed_in_one_order_and_a_page_asks_no_more_than_it_needs(
    world: OperatorWorld,
) -> None:
    rows = [world.put(replace(dead(), recovery_id=f"{n:024d}", updated_at_ms=NOON_MS + n)) for n in range(4)]
    waits = world.put(row("waits"))
    both = world.ask("GET", QUEUE, query={"status": "retrying,dlq"})["document"]
    assert [one["recovery_id"] for one in both["items"]] == [one.recovery_id for one in (*rows, waits)]
    world.flaky.calls.clear()
    page = world.ask("GET", QUEUE, query={"limit": "2"})["document"]
    assert [one["recovery_id"] for one in page["items"]] == [one.recovery_id for one in rows[:2]]
    assert len(world.flaky.requests("query")) == 8, "one per shard: the first status has enough"


def test_004_11_a_cursor_of_nowhere_is_400_or_an_empty_page(world: OperatorWorld) -> None:
    world.put(dead())
    for text in ("lost#1", "", "dlq", "#", "\x00", "e\u00e9#"):
        cursor = base64.urlsafe_b64encode(text.encode()).decode()
        if cursor and text != "dlq":
            answer = world.ask("GET", QUEUE, query={"cursor": cursor})
            assert (answer["statusCode"], answer["document"]["code"]) == (400, "INT-400-INVALID-PAYLOAD")
    for text in ("succeeded#~~", "dlq#\u00ff", "retrying#\x7f"):
        cursor = base64.urlsafe_b64encode(text.encode()).decode()
        answer = world.ask("GET", QUEUE, query={"cursor": cursor})
        assert (answer["statusCode"], answer["document"]["items"]) == (200, [])
