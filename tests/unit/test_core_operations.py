"""What operators do to single rows (runbook 004; 004.6, 004.7, 004.13)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from functions.core.attempt import Effect
from functions.core.audit import AuditType
from functions.core.decision import Repeat
from functions.core.failure import IllegalTransition, RootCause
from functions.core.integration import KindRules
from functions.core.operations import (
    KEY_KEPT_MS,
    Answered,
    Person,
    Refused,
    asked,
    ended_by,
    judged,
    noted,
    released_by_hand,
    replayable_until,
    replayed_by,
    why_refused,
)
from functions.core.recovery import Row, Status
from tests.fakes import NOON_MS
from tests.recovery_rows import event_row, row

ADA = Person("ada", "request-9", "00-trace")
LOOKUP = KindRules("add_tag", Repeat.LOOKUP, settle_seconds=1, can_look_up=True)
KEYED = KindRules("add_tag", Repeat.KEYED, key_window_seconds=60)
BLIND = KindRules("add_tag", Repeat.BLIND)


def dead(**fields: Any) -> Row:
    return row(**{"status": Status.DLQ, "due_at_ms": 0, "failure_code": "HTTP_503", **fields})


def unknown(**fields: Any) -> Row:
    stated = {"status": Status.FAILED, "effect": Effect.UNKNOWN, "failure_code": "OUTCOME_UNKNOWN", **fields}
    return dead(**stated)


def test_a_dead_row_is_sent_on_by_its_person_under_the_ids_of_the_call() -> None:
    before = dead()
    change = replayed_by(before, LOOKUP, ADA, "it is back", NOON_MS, 1.0)
    assert (change.before, change.after.status, change.after.replayed_from) == (before, Status.REPLAYED, "dlq")
    (event,) = change.audit
    assert (event.event_type, event.actor, event.reason) == (AuditType.REPLAYED, "ada", "it is back")
    assert (event.request_id, event.traceparent) == ("request-9", "00-trace")


@pytest.mark.parametrize("status", [Status.PENDING, Status.RETRYING, Status.SUCCEEDED, Status.REPLAYED])
def test_only_failed_and_dlq_are_replayed(status: Status) -> None:
    with pytest.raises(Refused) as refused:
        replayed_by(row(status=status), LOOKUP, ADA, "why", NOON_MS, 1.0)
    assert refused.value.reason == f"status_{status.value}"
    assert "only failed and dlq" in refused.value.what


@pytest.mark.parametrize(
    ("fields", "reason", "says"),
    [
        ({"status": Status.FAILED, "failure_code": "DISMISSED"}, "ended_dismissed", "ended for good"),
        ({"expires_at_ms": NOON_MS}, "expired", "do it by hand"),
    ],
)
def test_what_is_over_is_not_replayed_and_says_what_is_left_to_do(
    fields: dict[str, object], reason: str, says: str
) -> None:
    with pytest.raises(Refused) as refused:
        replayed_by(dead(**fields), LOOKUP, ADA, "why", NOON_MS, 1.0)
    assert (refused.value.reason, says in refused.value.what) == (reason, True)


@pytest.mark.parametrize(
    "rules", [BLIND, None, KEYED], ids=["blind", "unknown kind", "its key is not known to be held"]
)
def test_what_may_have_happened_needs_somebody_who_has_looked(rules: KindRules | None) -> None:
    with pytest.raises(Refused) as refused:
        replayed_by(unknown(), rules, ADA, "why", NOON_MS, 1.0)
    assert refused.value.reason == "effect_unknown"
    assert '"effect": "none"' in refused.value.what

    change = replayed_by(unknown(), rules, ADA, "why", NOON_MS, 1.0, checked="no such tag on T-tag")
    assert (change.after.status, change.after.effect) == (Status.REPLAYED, Effect.NONE)
    assert change.before is not None
    assert change.before.effect is Effect.UNKNOWN
    assert change.audit[0].reason == "why; checked: no such tag on T-tag"


@pytest.mark.parametrize(
    ("rules", "first_sent_ms"), [(LOOKUP, 0), (KEYED, NOON_MS - 53_999)], ids=["lookup", "its key is held still"]
)
def test_what_finds_out_by_itself_needs_nobody_and_stays_in_doubt_until_then(
    rules: KindRules, first_sent_ms: int
) -> None:
    change = replayed_by(unknown(first_sent_at_ms=first_sent_ms), rules, ADA, "why", NOON_MS, 1.0)
    assert (change.after.status, change.after.effect) == (Status.REPLAYED, Effect.UNKNOWN)
    # A person who has looked may have overlooked it: the attempt finds out all the same.
    change = replayed_by(unknown(first_sent_at_ms=first_sent_ms), rules, ADA, "why", NOON_MS, 1.0, checked="nothing")
    assert (change.after.status, change.after.effect) == (Status.REPLAYED, Effect.UNKNOWN)
    assert change.audit[0].reason == "why; checked: nothing"


@pytest.mark.parametrize(
    "fields",
    [{"first_sent_at_ms": NOON_MS - 54_000}, {"first_sent_at_ms": NOON_MS - 1, "stored_errors": 2}],
    ids=["nine tenths of its window are over", "it has stored the same error twice"],
)
def test_a_key_that_the_worker_would_not_use_again_does_not_find_out(fields: dict[str, Any]) -> None:
    assert why_refused(unknown(**fields), KEYED, NOON_MS, 1.0) == "effect_unknown"
    with pytest.raises(Refused):
        replayed_by(unknown(**fields), KEYED, ADA, "why", NOON_MS, 1.0)


def test_until_when_a_replay_is_allowed_is_said_of_actions_and_events() -> None:
    assert replayable_until(dead(expires_at_ms=NOON_MS + 7)) == NOON_MS + 7
    event = event_row(received_at_ms=NOON_MS)
    assert replayable_until(event) == NOON_MS + 30 * 86_400_000
    assert why_refused(event, None, replayable_until(event), 1.0) is None
    assert why_refused(event, None, replayable_until(event) + 1, 1.0) == "too_old"
    with pytest.raises(Refused) as refused:
        replayed_by(event, None, ADA, "why", replayable_until(event) + 1, 1.0)
    assert "30 days" in refused.value.what


def test_what_waited_for_what_a_person_has_done_goes_on_and_nothing_else() -> None:
    parent = dead(children=("c1", "c2", "c3"))
    blocked = {"status": Status.PENDING, "waits_for": (parent.recovery_id,), "due_at_ms": 0}
    child = row("reply", recovery_id="c1", **blocked)
    others = [row("x", recovery_id="c2", waits_for=()), dead(recovery_id="c3", waits_for=(parent.recovery_id,))]
    (change,) = released_by_hand(parent, [child, *others], NOON_MS)
    assert (change.before, change.after.waits_for, change.after.due_at_ms) == (child, (), NOON_MS)


def test_an_end_is_its_persons_under_the_ids_of_the_call() -> None:
    change = ended_by(dead(), "DISMISSED", ADA, "not wanted", NOON_MS)
    assert (change.after.failure_code, change.after.request_id) == ("DISMISSED", "request-9")
    (event,) = change.audit
    assert (event.event_type, event.actor, event.request_id, event.traceparent) == (
        AuditType.DISMISSED,
        "ada",
        "request-9",
        "00-trace",
    )


def test_a_note_and_another_root_cause_are_in_history_and_audit_and_change_nothing_else() -> None:
    before = dead(root_cause="transient_infra")
    note = noted(before, ADA, "the customer was called", NOON_MS)
    assert (note.after.status, note.after.version) == (before.status, before.version + 1)
    assert "the customer was called" in note.after.history[-1]["why"]
    assert (note.audit[0].event_type, note.audit[0].actor) == (AuditType.NOTED, "ada")
    assert note.after.updated_at_ms == before.updated_at_ms
    assert note.audit[0].at_ms == NOON_MS
    assert [json.loads(state)["version"] for state in (note.audit[0].before_state, note.audit[0].after_state)] == [1, 2]

    change = judged(before, ADA, RootCause.CODE_DEFECT, "it was us", NOON_MS)
    assert change.after.root_cause == "code_defect"
    (event,) = change.audit
    assert json.loads(event.before_state)["root_cause"] == "transient_infra"
    assert json.loads(event.after_state)["root_cause"] == "code_defect"
    assert json.loads(event.after_state)["status"] == "dlq"
    assert (event.request_id, event.reason) == ("request-9", "it was us")


def test_nobody_comes_between_a_worker_and_its_outcome() -> None:
    leased = row(lease_until_ms=NOON_MS + 1)
    with pytest.raises(IllegalTransition):
        noted(leased, ADA, "hello", NOON_MS)
    assert noted(replace(leased, lease_until_ms=NOON_MS), ADA, "hello", NOON_MS).after.version == leased.version + 1


def test_the_same_call_is_known_however_it_is_written() -> None:
    assert asked("a/b", {"x": 1, "y": [2]}) == asked("a/b", {"y": [2], "x": 1})
    assert asked("a/b", {"x": 1}) != asked("a/c", {"x": 1})
    assert asked("a/b", {"x": 1}) != asked("a/b", {"x": 2})


def test_an_answer_is_kept_for_a_day() -> None:
    answered = Answered("ada", "k", "h", "{}", NOON_MS)
    assert answered.is_kept(NOON_MS + KEY_KEPT_MS - 1)
    assert not answered.is_kept(NOON_MS + KEY_KEPT_MS)
