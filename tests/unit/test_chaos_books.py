"""The balance of the chaos run can fail: each way in which a promise may be broken is found, and named."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from functions.core.decision import Action, Classification, DecidedBy, Decision, Mode, Repeat
from functions.core.recovery import action_recovery_id, event_recovery_id
from ops.chaos.books import Books, Evidence, Fate, Promise, blocked, draw_up
from ops.expectation import PROCESSED, WHERE, expected
from ops.simulator import Effect

TENANT, EVENT, CONVERSATION = "demo", "github:1", "ticket-1"
SAID = Classification("order_status", 1.0, DecidedBy.RULES, "1", ())


def action(name: str, verb: str, repeat: Repeat, **more: Any) -> Action:
    return Action(name, f"helpdesk.{verb}", "helpdesk", repeat, CONVERSATION, **more)


DECISION = Decision(
    "support",
    Mode.LIVE,
    SAID,
    (
        action("tag", "add_tags", Repeat.IDEMPOTENT, params={"tags": [PROCESSED, WHERE.label]}),
        action("assign", "assign_team", Repeat.SETTING, params={"team": WHERE.team}),
        action("reply", "reply", Repeat.LOOKUP, requires=("tag",)),
    ),
    1,
).bound(TENANT, EVENT, 5)
TAG, ASSIGN, REPLY = DECISION.actions


def effect(seq: int, kind: str, of: Action, *, marker: str = "", changed: bool = True, **detail: str) -> Effect:
    headers = {"idempotency-key": of.action_id, "x-request-id": "r1"}
    key = marker or of.action_id
    return Effect(seq, "", "helpdesk", kind, CONVERSATION, key, changed, json.dumps(detail), headers, detail)


EFFECTS = [
    effect(1, "add_tag", TAG, tag=PROCESSED),
    effect(2, "add_tag", TAG, tag=WHERE.label),
    effect(3, "assign", ASSIGN, team=WHERE.team),
    effect(4, "reply", REPLY, marker=f"[hf:{REPLY.action_id[:24]}]"),
]


def ledger(status: str = "settled", **marks: str) -> dict[str, Any]:
    actions = {one.name: {"s": marks.get(one.name, "done")} for one in DECISION.actions}
    return {
        "tenant": TENANT,
        "event_id": EVENT,
        "epoch": 5,
        "status": status,
        "decision": json.loads(DECISION.to_json()),
        "actions": actions,
    }


def row(of: Action, status: str, **more: Any) -> dict[str, Any]:
    return {
        "pk": action_recovery_id(of.action_id),
        "subject": "action",
        "integration_id": "helpdesk",
        "event_id": EVENT,
        "status": status,
        "attempt_count": 1,
        **more,
    }


def trail(of: dict[str, Any], status: str | None = None, version: int = 2) -> dict[str, list[dict[str, Any]]]:
    event = {"after_state": json.dumps({"version": version}), "recovery_status": status or of["status"]}
    first = {"after_state": json.dumps({"version": 1}), "recovery_status": "retrying"}
    return {f"recovery_item#{of['pk']}": [event, first]}


EVEN = Evidence(
    promises=[Promise(EVENT, CONVERSATION)],
    ledger={EVENT: ledger()},
    rows=[],
    audit={},
    effects=EFFECTS,
    expected={CONVERSATION: expected(WHERE)},
    attempts={"helpdesk": 5},
)


def with_row(of: Action, status: str, effects: list[Effect], **more: Any) -> Evidence:
    """One action is unfinished in the ledger and has this row."""
    one = row(of, status, **more)
    marked = ledger(**{of.name: "recovery"})
    return replace(EVEN, ledger={EVENT: marked}, rows=[one], audit=trail(one), effects=effects)


def kinds(books: Books) -> list[str]:
    return sorted({violation.kind for violation in books.violations})


def test_books_are_even_where_each_effect_is_there_once() -> None:
    books = draw_up(EVEN)
    assert books.is_even
    assert books.fates == {Fate.DONE: 1}
    assert books.effects == 4


def test_an_effect_that_is_there_twice_is_doubled() -> None:
    again = replace(EFFECTS[3], seq=9)
    books = draw_up(replace(EVEN, effects=[*EFFECTS, again]))
    assert kinds(books) == ["doubled"]
    assert {violation.event_id for violation in books.violations} == {EVENT}


def test_a_repeat_that_changed_nothing_is_none() -> None:
    assert draw_up(replace(EVEN, effects=[*EFFECTS, replace(EFFECTS[0], seq=9, changed=False)])).is_even


def test_an_effect_of_an_integration_without_keys_is_told_by_its_event() -> None:
    sent = Effect(9, "", "sms", "send", "+1555", "", True, "p", {"x-request-id": "r1"}, {})
    seen = replace(EVEN, effects=[*EFFECTS, sent])
    assert kinds(draw_up(replace(seen, effects=[*seen.effects, replace(sent, headers={"x-request-id": "r2"})]))) == []
    assert kinds(draw_up(replace(seen, effects=[*seen.effects, sent]))) == ["doubled"]


@pytest.mark.parametrize("status", ["nowhere", "processing"])
def test_an_event_that_is_nowhere_or_never_settled_is_lost(status: str) -> None:
    known = {} if status == "nowhere" else {EVENT: ledger("processing")}
    books = draw_up(replace(EVEN, ledger=known))
    assert books.fates == {Fate.LOST: 1}
    assert "lost" in kinds(books)


def test_an_action_that_was_left_behind_is_lost() -> None:
    for mark in ("todo", "trying", "recovery", "suppressed"):
        books = draw_up(replace(EVEN, ledger={EVENT: ledger(reply=mark)}))
        assert "lost" in kinds(books)


def test_an_effect_that_is_taken_for_done_and_is_not_there_is_missing() -> None:
    books = draw_up(replace(EVEN, effects=EFFECTS[:3]))
    assert kinds(books) == ["missing"]
    assert "reply is taken for done" in books.violations[0].text


def test_a_row_that_says_done_is_taken_at_its_word_too() -> None:
    seen = with_row(REPLY, "succeeded", EFFECTS[:3], effect="done")
    assert "missing" in kinds(draw_up(seen))
    assert draw_up(replace(seen, effects=EFFECTS)).is_even


def test_an_effect_that_nobody_asked_for_is_found_wherever_it_is() -> None:
    elsewhere = replace(EFFECTS[0], target="somebody-else")
    assert kinds(draw_up(replace(EVEN, effects=[*EFFECTS, elsewhere]))) == ["unasked"]
    wrong_team = replace(EFFECTS[2], detail={"team": "sales"})
    assert "unasked" in kinds(draw_up(replace(EVEN, effects=[*EFFECTS[:2], wrong_team, EFFECTS[3]])))


def test_what_has_ended_for_people_may_lack_its_effect_and_no_more_than_that() -> None:
    dead = with_row(REPLY, "dlq", EFFECTS[:3], failure_code="HTTP_503")
    books = draw_up(dead)
    assert books.is_even
    assert books.fates == {Fate.FOR_PEOPLE: 1}
    assert draw_up(replace(dead, effects=EFFECTS)).is_even  # the last attempt may have worked all the same
    stranger = effect(9, "add_tag", TAG, tag="chargeback")
    assert kinds(draw_up(replace(dead, effects=[*EFFECTS[:3], stranger]))) == ["unasked"]
    assert "doubled" in kinds(draw_up(replace(dead, effects=[*EFFECTS, replace(EFFECTS[3], seq=9)])))


def test_an_event_that_is_a_row_as_a_whole_is_not_lost() -> None:
    whole = {
        "pk": event_recovery_id(TENANT, EVENT, 5),
        "subject": "event",
        "integration_id": "intake",
        "event_id": EVENT,
        "status": "dlq",
        "failure_code": "NEVER_CLAIMED",
    }
    books = draw_up(replace(EVEN, ledger={}, rows=[whole], audit=trail(whole), effects=[]))
    assert books.is_even
    assert books.fates == {Fate.FOR_PEOPLE: 1}


def test_what_the_gate_suppressed_is_done() -> None:
    seen = with_row(REPLY, "failed", EFFECTS[:3], failure_code="SUPPRESSED")
    held_back = expected(replace(WHERE, replies=False))
    assert draw_up(replace(seen, expected={CONVERSATION: held_back})).fates == {Fate.DONE: 1}


def test_a_row_that_the_machine_still_has_to_work_is_waiting_once_all_is_quiet() -> None:
    books = draw_up(with_row(REPLY, "retrying", EFFECTS[:3]))
    assert kinds(books) == ["waiting"]
    assert books.fates == {Fate.WAITING: 1}
    under_way = with_row(REPLY, "replayed", EFFECTS[:3])
    assert draw_up(under_way).fates == {Fate.WAITING: 1}


def test_a_child_waits_with_its_dead_parent_for_people() -> None:
    parent, child = row(TAG, "dlq"), row(REPLY, "pending", waits_for=[row(TAG, "dlq")["pk"]])
    assert blocked([parent, child]) == {child["pk"]}
    assert blocked([{**parent, "status": "succeeded"}, child]) == set()
    marked = {EVENT: ledger(tag="recovery", reply="recovery")}
    seen = replace(EVEN, ledger=marked, rows=[parent, child], audit=trail(parent) | trail(child), effects=EFFECTS[2:3])
    books = draw_up(seen)
    assert books.is_even
    assert books.fates == {Fate.FOR_PEOPLE: 1}


def test_a_row_without_its_audit_is_silent() -> None:
    seen = with_row(REPLY, "dlq", EFFECTS[:3])
    assert kinds(draw_up(replace(seen, audit={}))) == ["silent"]
    assert kinds(draw_up(replace(seen, audit=trail(dict(seen.rows[0]), "retrying", version=3)))) == ["silent"]


def test_a_row_that_was_tried_more_often_than_its_policy_allows_is_overdone() -> None:
    assert draw_up(with_row(REPLY, "dlq", EFFECTS[:3], attempt_count=6, replay_no=1)).is_even
    assert draw_up(with_row(REPLY, "dlq", EFFECTS[:3], attempt_count=6, takeovers=1)).is_even
    assert kinds(draw_up(with_row(REPLY, "dlq", EFFECTS[:3], attempt_count=6))) == ["overdone"]


def test_what_was_sent_and_never_acknowledged_may_be_there_and_need_not() -> None:
    unheard = replace(EVEN, promises=[])
    assert draw_up(unheard).is_even
    assert draw_up(replace(unheard, effects=[], ledger={})).is_even
    assert "doubled" in kinds(draw_up(replace(unheard, effects=[*EFFECTS, replace(EFFECTS[3], seq=9)])))
