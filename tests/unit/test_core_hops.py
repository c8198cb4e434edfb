"""What a hop makes of a recovery row, and what it must never be made of (architecture §7, §8)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from functions.core.attempt import Effect
from functions.core.audit import AuditType, Severity
from functions.core.decision import Repeat
from functions.core.failure import IllegalTransition
from functions.core.gate import WaitingFor
from functions.core.recovery import (
    NextWay,
    Row,
    Status,
    after_attempt,
    by_hand,
    by_hand_first,
    claim,
    failed_first,
    handed_over,
    hop_event,
    hopped,
    hopped_first,
)
from functions.core.retry import RetryPolicy
from functions.core.rows import stand_in_row
from tests.unit.builders import HTTP_422, MINUTE, NOON_MS, RULES, Chance, action, blank, event_blank, parked

SMS = NextWay("messages_fallback", 1, "sms.send", "sms", Repeat.BLIND)
ONCE = RetryPolicy(1, ())
LEASE_MS = NOON_MS + MINUTE


def claimed(repeat: Repeat = Repeat.LOOKUP, **fields: Any) -> Row:
    return replace(claim(parked(repeat), NOON_MS, LEASE_MS, "q1").after, **fields)


def failed(row: Row) -> Row:
    return after_attempt(row, RULES[Repeat.LOOKUP], ONCE, HTTP_422, NOON_MS + 1, Chance(), 1.0, was_sent=True).after


def test_a_hop_begins_anew_on_the_other_way_and_keeps_the_row_its_action_and_its_history() -> None:
    row = claimed(first_sent_at_ms=1, last_possible_send_ms=2, stored_errors=1, takeovers=1, credential_version="7")
    after = hopped(row, SMS, "HTTP_422", NOON_MS + 5, failed=failed(row)).after
    assert (after.recovery_id, after.action, after.stand_in) == (row.recovery_id, row.action, row.stand_in)
    assert (after.version, after.status, after.integration_id) == (row.version + 1, Status.PENDING, "sms")
    assert (after.hop, after.hop_kind, after.hop_repeat) == (1, "sms.send", "blind")
    assert after.hops == (f"{row.integration_id}:HTTP_422",)
    fresh = (after.attempt_count, after.first_attempt_at_ms, after.first_sent_at_ms, after.last_possible_send_ms)
    assert fresh == (0, 0, 0, 0)
    assert (after.stored_errors, after.takeovers, after.lease_until_ms, after.credential_version) == (0, 0, 0, "")
    assert (after.due_at_ms, after.not_before_ms, after.waiting_for) == (NOON_MS + 5, 0, WaitingFor.NOTHING)
    assert after.failure_code == "HTTP_422"
    assert after.history[-1]["why"] == "HTTP_422"


def test_a_hop_is_one_conditional_write_with_its_audit_event() -> None:
    row = claimed()
    change = hopped(row, SMS, "HTTP_422", NOON_MS + 5, failed=failed(row))
    detected, event = change.audit  # the row had only waited so far
    assert detected.event_type is AuditType.FAILURE_DETECTED
    assert change.before == row
    assert (event.event_type, event.severity) == (AuditType.FAILURE_CONTAINED, Severity.WARNING)
    assert event.containment_action == "messages_fallback: sms.send takes over"
    assert event.error.startswith("HTTP_422")


def test_the_kind_s_rule_of_repetition_is_that_of_the_present_way() -> None:
    """An abandoned claim on a way that forgives nothing leaves an unknown effect, whatever was decided forgives."""
    row = parked(Repeat.IDEMPOTENT)
    assert not row.tracks_effect
    sms = hopped(row, SMS, "x", NOON_MS).after
    assert (sms.repeat, sms.tracks_effect) == (Repeat.BLIND, True)
    again = claim(claim(sms, NOON_MS, LEASE_MS, "q2").after, LEASE_MS, LEASE_MS + MINUTE, "q3").after
    assert again.effect is Effect.UNKNOWN
    assert event_blank().repeat is None
    assert not event_blank().tracks_effect


def test_a_row_under_replay_stays_one() -> None:
    row = replace(parked(Repeat.LOOKUP), status=Status.REPLAYED)
    assert hopped(row, SMS, "hard_down", NOON_MS).after.status is Status.REPLAYED


@pytest.mark.parametrize(
    "fields",
    [
        {"effect": Effect.UNKNOWN},
        {"status": Status.DLQ},
        {"hop": 1, "integration_id": "other"},
        {"hop": 2, "integration_id": "other"},
        {"integration_id": "sms"},
        {"lease_until_ms": NOON_MS - 1},
    ],
    ids=["unknown", "ended", "the same hop", "back", "the same integration", "abandoned"],
)
def test_no_hop_is_made_from_what_may_have_happened_has_ended_or_would_go_back(fields: dict[str, Any]) -> None:
    with pytest.raises(IllegalTransition, match="cannot go on by hop 1 on sms"):
        hopped(replace(parked(Repeat.LOOKUP), **fields), SMS, "x", NOON_MS)


def test_no_hop_is_made_because_of_health_from_what_its_owner_may_be_sending() -> None:
    with pytest.raises(IllegalTransition, match="under way"):
        hopped(claimed(), SMS, "hard_down", NOON_MS)
    assert hopped(claimed(), SMS, "HTTP_422", NOON_MS, failed=failed(claimed())).after.hop == 1


def test_no_hop_is_made_from_a_failure_that_leaves_the_effect_unknown() -> None:
    """The mistake that would tell somebody twice: after a timeout."""
    row = claimed()
    with pytest.raises(IllegalTransition):
        hopped(row, SMS, "x", NOON_MS, failed=replace(failed(row), effect=Effect.UNKNOWN))
    with pytest.raises(IllegalTransition):
        hopped_first(blank(Repeat.LOOKUP), SMS, "x", NOON_MS, failed=replace(failed(row), effect=Effect.UNKNOWN))


def test_a_first_pass_that_failed_for_good_leaves_a_row_on_the_other_way_due_at_once() -> None:
    row = blank(Repeat.LOOKUP)
    dead = failed_first(row, RULES[Repeat.LOOKUP], ONCE, HTTP_422, NOON_MS, Chance(), 1.0).after
    change = hopped_first(row, SMS, "HTTP_422", NOON_MS + 3, failed=dead)
    assert change.before is None
    assert (change.after.version, change.after.status, change.after.due_at_ms) == (1, Status.PENDING, NOON_MS + 3)
    assert (change.after.integration_id, change.after.hops) == ("sms", ("helpdesk:HTTP_422",))
    assert [event.event_type for event in change.audit] == [AuditType.FAILURE_DETECTED, AuditType.FAILURE_CONTAINED]


def test_what_a_person_has_to_do_is_dead_known_to_be_without_effect_and_critical() -> None:
    change = by_hand(parked(Repeat.LOOKUP), "down", "manual_outreach", "nothing is left", NOON_MS)
    assert (change.after.status, change.after.failure_code) == (Status.FAILED, "MANUAL_OUTREACH")
    assert (change.after.effect, change.after.due_at_ms, change.after.is_final) == (Effect.NONE, 0, False)
    [event] = change.audit
    assert (event.severity, event.containment_action) == (Severity.CRITICAL, "down: manual_outreach")
    first = by_hand_first(blank(Repeat.LOOKUP), "down", "manual_outreach", "nothing is left")
    assert (first.after.status, first.before) == (Status.FAILED, None)
    assert {event.severity for event in first.audit} == {Severity.CRITICAL}


@pytest.mark.parametrize(
    "fields",
    [{"effect": Effect.UNKNOWN}, {"lease_until_ms": NOON_MS - 1}, {"lease_until_ms": LEASE_MS}, {"status": Status.DLQ}],
)
def test_nothing_is_handed_over_that_may_have_happened_or_is_under_way(fields: dict[str, Any]) -> None:
    with pytest.raises(IllegalTransition):
        by_hand(replace(parked(Repeat.LOOKUP), **fields), "down", "manual_outreach", "x", NOON_MS)


def test_the_death_of_what_must_arrive_is_critical() -> None:
    row = claimed()
    change = after_attempt(row, RULES[Repeat.LOOKUP], ONCE, HTTP_422, NOON_MS, Chance(), 1.0, was_sent=True)
    told = handed_over(change, "down", "manual_outreach")
    assert (told.after, told.before) == (change.after, change.before)
    assert {(event.severity, event.containment_action) for event in told.audit} == {
        (Severity.CRITICAL, "down: manual_outreach")
    }


def test_hops_of_a_first_pass_have_audit_events_that_no_row_of_theirs_has() -> None:
    row = replace(blank(Repeat.LOOKUP), hop=1, integration_id="sms")
    one, other = hop_event(row, SMS), hop_event(row, replace(SMS, hop=2))
    assert one.id != other.id
    assert one.id not in {event.id for event in by_hand_first(row, "x", "y", "z").audit}
    assert one == hop_event(row, SMS)


def test_what_stands_in_for_an_action_begins_on_its_own_way() -> None:
    parent = replace(claimed(), stand_in=action(Repeat.IDEMPOTENT), hop=1, hops=("email:x",), hop_kind="sms.send")
    row = stand_in_row(replace(parent, hop_repeat="blind"), NOON_MS)
    assert row is not None
    assert (row.hop, row.hops, row.hop_kind, row.repeat) == (0, (), "", Repeat.IDEMPOTENT)
