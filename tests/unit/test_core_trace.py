"""The story of an event: what each stored thing makes of it, in every state that there is (architecture §10)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from functions.core.audit import AuditEvent, AuditType, Severity
from functions.core.cursor import BadCursor, cursor_of, parts_of
from functions.core.decision import Action, Decision, Repeat
from functions.core.fallback import post_processing
from functions.core.ledger import (
    ActionMark,
    ActionStatus,
    Claim,
    Handle,
    LedgerItem,
    LedgerStatus,
    key_parts,
    ticket_key,
)
from functions.core.ports import DoorLine
from functions.core.recovery import Row, Status, action_recovery_id, event_recovery_id
from functions.core.switches import Snapshot, view
from functions.core.trace import (
    MAX_STEPS,
    ActionState,
    EventTrace,
    Evidence,
    audited_ids,
    order_of,
    recovery_ids,
    switch_names,
    trace_of,
    whose,
    with_item,
)
from functions.core.whereabouts import Fate, Whereabouts, fate_of, whereabouts
from tests.unit.builders import HOUR, MINUTE, NOON_MS, SECOND, action, blank, decision, event_blank

TAG = action(Repeat.IDEMPOTENT, name="tag")
REPLY = action(Repeat.LOOKUP, name="reply", recipient="f" * 32)
EVENT_ID = "shop:m-1"
NOW = NOON_MS + HOUR


def item(status: LedgerStatus = LedgerStatus.SETTLED, **marks: ActionMark | ActionStatus) -> LedgerItem:
    actions = {name: mark if isinstance(mark, ActionMark) else ActionMark(mark) for name, mark in marks.items()}
    return LedgerItem(
        key=f"E#acme#{EVENT_ID}",
        status=status,
        owner="one",
        generation=1,
        lease_until_ms=0,
        received_at_ms=NOON_MS - SECOND,
        epoch_ms=0,
        payload_hash="p",
        decision=decision(TAG, REPLY),
        actions=actions,
        request_id="q0",
        event_name="message.created",
        written_at_ms=NOON_MS + SECOND,
    )


def row_of(of: Action, **fields: Any) -> Row:
    return blank(of.repeat, **({"action": of, "recovery_id": action_recovery_id(of.action_id)} | fields))


def recorded(kind: AuditType, row: Row, at_ms: int = NOON_MS + MINUTE, **fields: Any) -> AuditEvent:
    plain: dict[str, Any] = {
        "id": f"{kind}{at_ms}",
        "at_ms": at_ms,
        "event_type": kind,
        "severity": Severity.WARNING,
        "tenant": "acme",
        "actor": "holdfast",
        "affected_entity": "recovery_item",
        "affected_id": row.recovery_id,
        "request_id": "q0",
    }
    return AuditEvent(**(plain | fields))


def switched(name: str, before: str, after: str, at_ms: int) -> AuditEvent:
    return AuditEvent(
        id=f"{name}{at_ms}",
        at_ms=at_ms,
        event_type=AuditType.SWITCH_CHANGED,
        severity=Severity.WARNING,
        tenant="",
        actor="ada",
        affected_entity="switch",
        affected_id=name,
        request_id="",
        before_state=before,
        after_state=after,
        reason="a drill",
    )


def told(*rows: Row, switches: Any = None, changes: Any = (), now_ms: int = NOW, **fields: Any) -> EventTrace:
    return trace_of(Evidence("acme", EVENT_ID, rows=rows, **fields), switches, list(changes), now_ms)


DONE = item(tag=ActionMark(ActionStatus.DONE, "t-1"), reply=ActionMark(ActionStatus.DONE, "m-1"))


# ------------------------------------------------------------------------------------------------------------ successes


def test_a_success_is_told_from_its_ledger_item_alone() -> None:
    trace = told(item=DONE)
    assert (trace.state, trace.summary) == (Whereabouts.SETTLED, "Settled: 2 done.")
    assert (trace.received.at_ms, trace.received.request_id) == (NOON_MS - SECOND, "q0")
    assert (trace.received.event_name, trace.received.source) == ("message.created", "shop")
    assert trace.decided is not None
    assert (trace.decided.by, trace.decided.version, trace.decided.label) == ("rules", "rules-1", "refund")
    assert (trace.decided.confidence, trace.decided.mode) == (0.9, "live")
    assert [(one.name, one.state, one.provider_id) for one in trace.actions] == [
        ("tag", ActionState.DONE, "t-1"),
        ("reply", ActionState.DONE, "m-1"),
    ]
    assert [step.what for step in trace.steps] == ["received", "decided", "settled"]
    assert trace.steps[2].detail == "tag done, reply done"


def test_what_called_for_nothing_is_settled_too() -> None:
    nothing = replace(item(), decision=decision(), actions={})
    trace = told(item=nothing)
    assert trace.summary == "Settled: it called for nothing."
    assert trace.steps[-1].detail == "nothing to do"


def test_shadow_says_that_nothing_was_sent() -> None:
    trace = told(item=DONE, is_shadow=True)
    assert trace.summary.startswith("Shadow")
    assert trace.is_shadow


@pytest.mark.parametrize(
    ("mark", "state", "where"),
    [
        (ActionStatus.SUPPRESSED, ActionState.SUPPRESSED, Whereabouts.SETTLED),
        (ActionStatus.SUPERSEDED, ActionState.SUPERSEDED, Whereabouts.SETTLED),
        (ActionStatus.NOT_NEEDED, ActionState.NOT_NEEDED, Whereabouts.SETTLED),
        (ActionStatus.RECOVERY, ActionState.MISSING, Whereabouts.ENDED),
    ],
)
def test_a_mark_without_a_row_says_what_it_can(mark: ActionStatus, state: ActionState, where: Whereabouts) -> None:
    trace = told(item=item(tag=ActionStatus.DONE, reply=mark))
    assert (trace.actions[1].state, trace.state) == (state, where)


def test_a_row_that_is_gone_is_named() -> None:
    trace = told(item=item(tag=ActionStatus.DONE, reply=ActionStatus.RECOVERY))
    assert trace.summary == "Not all was done: reply has no row any more."


def test_a_hop_that_was_taken_without_a_row_is_told() -> None:
    gone = item(tag=ActionStatus.DONE, reply=ActionMark(ActionStatus.DONE, "m-1", hop=1))
    assert told(item=gone).actions[1].hops == ("hop 1",)
    assert audited_ids("acme", EVENT_ID, gone, []) == [action_recovery_id(REPLY.action_id)]
    assert audited_ids("acme", EVENT_ID, None, [blank()]) == ["r1"]
    assert audited_ids("acme", EVENT_ID, replace(gone, actions={}), []) == []


# ------------------------------------------------------------------------------------------------------ on its way


def test_an_event_that_only_the_door_knows_waits_in_the_queue() -> None:
    door = DoorLine(
        NOON_MS, is_refused=False, source="shop", request_id="q9", event_name="message.created", stored_in="spill"
    )
    trace = told(door=door)
    assert trace.state is Whereabouts.ACCEPTED
    assert trace.summary == "Accepted and stored; no worker has taken it up yet."
    assert (trace.received.request_id, trace.received.event_name) == ("q9", "message.created")
    assert [(step.what, step.detail) for step in trace.steps] == [("received", "stored in spill")]
    assert trace.decided is None


def test_while_a_worker_has_it_its_actions_are_under_way() -> None:
    working = replace(item(LedgerStatus.PROCESSING, tag=ActionStatus.TRYING), lease_until_ms=NOW + 1)
    trace = told(item=working)
    assert (trace.state, trace.summary) == (Whereabouts.PROCESSING, "A worker has it right now.")
    assert [one.state for one in trace.actions] == [ActionState.UNDER_WAY, ActionState.UNDER_WAY]
    given_back = told(item=replace(item(LedgerStatus.PROCESSING), actions={}))
    assert given_back.state is Whereabouts.ACCEPTED
    assert "in the queue" in given_back.summary
    assert [one.state for one in given_back.actions] == [ActionState.TODO, ActionState.TODO]


def test_what_waits_says_for_what_and_until_when() -> None:
    waiting = row_of(
        TAG,
        status=Status.RETRYING,
        waiting_for="backoff",
        due_at_ms=NOW + MINUTE,
        attempt_count=2,
        failure_code="HTTP_503",
    )
    waiting = replace(waiting, waiting_for=type(blank().waiting_for)("backoff"))
    trace = told(waiting, item=item(tag=ActionStatus.RECOVERY, reply=ActionStatus.DONE))
    assert (trace.state, trace.summary) == (Whereabouts.WAITING, "Waiting: tag waits for backoff.")
    first = trace.actions[0]
    assert (first.state, first.waiting_for, first.next_at_ms) == (ActionState.WAITING, "backoff", NOW + MINUTE)
    assert (first.attempts, first.until_ms, first.recovery_id) == (2, waiting.expires_at_ms, waiting.recovery_id)
    tried = told(replace(waiting, lease_until_ms=NOW + 1), item=item(tag=ActionStatus.RECOVERY))
    assert tried.actions[0].state is ActionState.UNDER_WAY
    assert "tag is under way" in tried.summary
    at_once = replace(waiting, waiting_for=type(blank().waiting_for)(""))
    assert "tag waits for its turn" in told(at_once, item=item(tag=ActionStatus.RECOVERY)).summary


@pytest.mark.parametrize("code", ["HELD", "QUARANTINED"])
def test_what_only_a_person_lets_go_on_waits_for_a_person(code: str) -> None:
    trace = told(event_blank(status=Status.FAILED, failure_code=code))
    assert (trace.state, trace.summary) == (Whereabouts.WAITING, "Waiting: event waits for person.")
    assert trace.whole[0].waiting_for == "person"
    assert trace.actions == ()
    assert trace.received.request_id == "q0"


# ------------------------------------------------------------------------------------------------------------- ends


@pytest.mark.parametrize(
    ("fields", "state", "where", "says"),
    [
        ({"status": Status.DLQ, "failure_code": "HTTP_503"}, ActionState.DEAD, "ended", "is dead and can be replayed"),
        ({"status": Status.FAILED, "failure_code": "HTTP_422"}, ActionState.DEAD, "ended", "(HTTP_422)"),
        (
            {"status": Status.FAILED, "failure_code": "OUTCOME_UNKNOWN"},
            ActionState.UNKNOWN,
            "ended",
            "may have happened",
        ),
        ({"status": Status.FAILED, "failure_code": "EXPIRED"}, ActionState.ENDED, "ended", "was given up (EXPIRED)"),
        ({"status": Status.FAILED, "failure_code": "DONE_BY_HAND"}, ActionState.DONE, "settled", "2 done"),
        ({"status": Status.FAILED, "failure_code": "SUPPRESSED"}, ActionState.SUPPRESSED, "settled", "1 suppressed"),
        ({"status": Status.SUCCEEDED}, ActionState.DONE, "settled", "2 done"),
        (
            {"status": Status.SUCCEEDED, "failure_detail": "superseded: a person"},
            ActionState.SUPERSEDED,
            "settled",
            "1 superseded",
        ),
        ({"status": Status.REPLAYED}, ActionState.WAITING, "waiting", "tag waits"),
        ({"status": Status.REPLAYED, "result": "succeeded"}, ActionState.DONE, "settled", "2 done"),
    ],
)
def test_every_end_of_a_row_is_told(fields: dict[str, Any], state: ActionState, where: str, says: str) -> None:
    trace = told(row_of(TAG, **fields), item=item(tag=ActionStatus.RECOVERY, reply=ActionStatus.DONE))
    assert (trace.actions[0].state, trace.state.value) == (state, where)
    assert says in trace.summary


def test_who_replayed_and_who_ended_it_are_named_the_last_of_each() -> None:
    row = row_of(TAG, status=Status.FAILED, failure_code="DISMISSED", replay_no=2)
    audit = (
        recorded(AuditType.REPLAYED, row, NOON_MS + 3, actor="bob", reason="again"),
        recorded(AuditType.REPLAYED, row, NOON_MS + 2, actor="ada", reason="it is back"),
        recorded(AuditType.DISMISSED, row, NOON_MS + 4, actor="eve", reason="no use"),
        recorded(AuditType.REPLAYED, blank(), NOON_MS + 5, actor="somebody else"),
    )
    trace = told(row, item=item(tag=ActionStatus.RECOVERY), audit=audit)
    first = trace.actions[0]
    assert (first.replays, first.last_replay_by, first.ended_by, first.until_ms) == (2, "bob", "eve", 0)
    assert [(step.by, step.about) for step in trace.steps if step.what.endswith("replayed")] == [
        ("ada", "tag"),
        ("bob", "tag"),
        ("somebody else", "event"),
    ]


def test_what_came_later_of_a_substitute_stands_behind_the_decisions_own_actions() -> None:
    later = post_processing(TAG).bound("acme", EVENT_ID, 0)
    row = row_of(later, status=Status.SUCCEEDED)
    trace = told(row, item=DONE)
    assert [one.name for one in trace.actions] == ["tag", "reply", "tag_later"]
    assert row.recovery_id in recovery_ids("acme", EVENT_ID, DONE)
    assert event_recovery_id("acme", EVENT_ID, 0) in recovery_ids("acme", EVENT_ID, None)


def test_a_target_that_may_be_a_number_or_an_address_is_told_by_its_hash() -> None:
    sms = action(Repeat.BLIND, name="sms", target="+15005550006")
    mail = action(name="mail", target="ann@example.com")
    seen = replace(item(sms=ActionStatus.DONE, mail=ActionStatus.DONE), decision=decision(TAG, sms, mail))
    targets = [one.target for one in told(item=seen).actions]
    assert targets[0] == "ticket-7"
    assert all(target.startswith("sha256:") for target in targets[1:])
    assert "5005550006" not in json.dumps(targets)
    assert told(item=replace(seen, decision=decision(replace(sms, target="")))).actions[0].target == ""


# ------------------------------------------------------------------------------------------------------------ the steps


def test_switches_that_changed_meanwhile_are_among_the_steps_and_others_are_not() -> None:
    state = json.dumps({"value": "off", "version": 3})
    changes = [
        switched("auto_reply", "on", "off", NOON_MS - MINUTE),
        switched("auto_reply", "", state, NOON_MS),
        switched("mode", json.dumps({"value": ""}), "[1]", NOON_MS + 1),
        switched("mode", "live", "hold", NOON_MS + HOUR),
    ]
    steps = [step for step in told(item=DONE, changes=changes).steps if step.what == "platform.switch.changed"]
    assert [(step.about, step.by, step.detail) for step in steps] == [
        ("switch auto_reply", "ada", "nothing to off; a drill"),
        ("switch mode", "ada", "nothing to [1]; a drill"),
    ]
    open_one = told(row_of(TAG), item=item(tag=ActionStatus.RECOVERY), changes=changes)
    assert sum(step.what == "platform.switch.changed" for step in open_one.steps) == 3


def test_two_steps_of_one_row_in_the_same_millisecond_keep_their_order() -> None:
    row = row_of(TAG)
    late = recorded(AuditType.REPROCESS_SUCCEEDED, row, after_state='{"version": 9}')
    early = recorded(AuditType.REPLAYED, row, after_state='{"version": 8}')
    first = recorded(AuditType.FAILURE_DETECTED, row, after_state='{"version": "x"}')
    steps = [step.what for step in told(row, audit=(late, first, early)).steps if step.recovery_id]
    assert steps == [AuditType.FAILURE_DETECTED, AuditType.REPLAYED, AuditType.REPROCESS_SUCCEEDED]


def test_a_steps_detail_says_each_reason_once() -> None:
    row = row_of(TAG)
    event = recorded(AuditType.FAILURE_CONTAINED, row, reason="x", error="x", containment_action="parked")
    (step,) = [one for one in told(row, audit=(event,)).steps if one.recovery_id]
    assert (step.detail, step.recovery_id) == ("x; parked", row.recovery_id)


def test_a_very_long_story_is_cut_at_its_beginning_and_says_so() -> None:
    row = row_of(TAG)
    audit = tuple(recorded(AuditType.RETRY_SCHEDULED, row, NOON_MS + number) for number in range(MAX_STEPS + 5))
    trace = told(row, item=item(tag=ActionStatus.RECOVERY), audit=audit)
    assert len(trace.steps) == MAX_STEPS
    assert trace.steps_left_out == len(audit) + 3 - MAX_STEPS


def test_nothing_known_of_the_beginning_is_no_beginning() -> None:
    trace = told()
    assert (trace.received.at_ms, trace.steps) == (0, ())
    assert trace.state is Whereabouts.ACCEPTED
    # Forgotten by the ledger, but not by its row.
    done = told(event_blank(status=Status.REPLAYED, result="succeeded"))
    assert (done.state, done.summary) == (Whereabouts.SETTLED, "Settled.")


# --------------------------------------------------------------------------------------------------------- switches


def test_the_switches_in_force_are_told_for_its_own_scope() -> None:
    values = {
        "mode": "live",
        "auto_reply": "on",
        "classifier": "rules",
        "optional_calls": "on",
        "replay": "on",
        "disabled_integrations": "sms,email",
        "replay_blocked_integrations": "all",
        "source/shop/auto_reply": "off",
        "limits/helpdesk": "0.5",
    }
    seen = view(Snapshot(values, NOW), flow="support", source="shop", tenant="acme", now_ms=NOW)
    now = told(item=DONE, switches=seen).switches
    assert now.is_known
    assert (now.mode, now.auto_reply, now.classifier, now.replay) == ("live", "off", "rules", "on")
    assert (now.disabled_integrations, now.replay_blocked_integrations) == (("email", "sms"), ("all",))
    assert now.limits == {"helpdesk": 0.5}
    assert not told(item=DONE).switches.is_known
    unknown = view(None, flow="support", source="shop", tenant="acme", now_ms=NOW)
    assert not told(item=DONE, switches=unknown).switches.is_known
    assert switch_names(
        "support", "shop", "acme", ["helpdesk"], [*values, "source/other/mode", "limits/sms"]
    ) == sorted(values)


# ----------------------------------------------------------------------------------------------------- small parts


def test_what_could_not_be_read_is_named() -> None:
    key = f"E#acme#{EVENT_ID}"
    evidence = whose(key)
    assert (evidence.tenant, evidence.event_id, evidence.is_shadow) == ("acme", EVENT_ID, False)
    assert with_item(evidence, key, {key: None}).unreadable == (key,)
    assert with_item(evidence, key, {key: DONE}).item is DONE
    assert with_item(evidence, key, {}) == evidence
    assert told(unreadable=(key,)).unreadable == (key,)


def test_stories_are_told_latest_first() -> None:
    early, late = told(item=DONE), told(item=replace(DONE, received_at_ms=NOON_MS))
    assert sorted([early, late], key=order_of) == [late, early]


def test_a_ledger_key_tells_whose_event_it_is() -> None:
    assert key_parts("E#acme#shop:a#b") == ("acme", "shop:a#b", False)
    assert key_parts("S#acme#shop:1") == ("acme", "shop:1", True)


def test_a_claim_is_found_by_what_it_says_else_by_what_its_actions_say() -> None:
    def claim(made: Decision, **fields: Any) -> Claim:
        return Claim("k", "o", 0, 0, 0, 0, "p", made, **fields)

    assert claim(decision(TAG, REPLY)).handles == {
        Handle.TICKET: ticket_key("ticket-7"),
        Handle.RECIPIENT: "f" * 32,
    }
    said = claim(decision(), ticket="t", recipient="r", request_id="q")
    assert said.handles == {Handle.TICKET: ticket_key("t"), Handle.RECIPIENT: "r", Handle.REQUEST: "q"}
    assert claim(decision()).handles == {}
    assert ticket_key("") == ""
    assert len(ticket_key("+15005550006")) == 16


def test_a_decision_is_read_back_with_the_recipient_that_stands_beside_it() -> None:
    made = decision(TAG, REPLY, action(Repeat.LOOKUP, name="other", recipient="e" * 32, target="t-9"))
    text = made.to_json("f" * 32)
    assert "f" * 32 not in text
    read = Decision.from_json(text, "f" * 32)
    assert [one.recipient for one in read.actions] == ["", "f" * 32, "e" * 32]
    assert [one.recipient for one in Decision.from_json(made.to_json()).actions] == ["", "f" * 32, "e" * 32]


def test_a_cursor_is_read_back_and_nothing_else_is_one() -> None:
    assert parts_of(cursor_of([1, "ä#b"]), int, str) == [1, "ä#b"]
    for bad in ("", "é", "x" * 5000, "AAAA", cursor_of(["1"]), cursor_of([-1]), cursor_of([""]), cursor_of([True])):
        with pytest.raises(BadCursor):
            parts_of(bad, int)
    for text in ("", "\ud800", "x" * 1001):
        with pytest.raises(BadCursor):
            parts_of(cursor_of([text]), str)


@pytest.mark.parametrize(
    ("status", "lease_ms", "of_event", "of_actions", "where"),
    [
        (None, 0, [], [], None),
        (None, 0, [Fate.OPEN], [], Whereabouts.WAITING),
        (None, 0, [Fate.ENDED], [], Whereabouts.ENDED),
        (LedgerStatus.PROCESSING, NOW + 1, [Fate.ENDED], [], Whereabouts.PROCESSING),
        (LedgerStatus.PROCESSING, NOW, [], [], Whereabouts.ACCEPTED),
        (LedgerStatus.PROCESSING, NOW, [Fate.ENDED], [], Whereabouts.ENDED),
        (LedgerStatus.SETTLED, 0, [Fate.ENDED], [Fate.DONE, Fate.NOT_WANTED], Whereabouts.SETTLED),
        (LedgerStatus.SETTLED, 0, [], [Fate.ENDED, Fate.OPEN], Whereabouts.WAITING),
        (LedgerStatus.SETTLED, 0, [], [Fate.ENDED, Fate.DONE], Whereabouts.ENDED),
    ],
)
def test_where_an_event_is(
    status: LedgerStatus | None, lease_ms: int, of_event: list[Fate], of_actions: list[Fate], where: Whereabouts | None
) -> None:
    assert whereabouts(status, lease_ms, of_event, of_actions, NOW) is where


def test_a_replay_that_failed_has_ended() -> None:
    assert fate_of(Status.REPLAYED, "failed", "") is Fate.ENDED
    assert fate_of(Status.PENDING, "", "") is Fate.OPEN
