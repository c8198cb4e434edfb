"""The recovery row, rule by rule (architecture §7; requirements.md; runbook 004)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from functions.core.attempt import Effect, Result, Superseded
from functions.core.audit import MACHINE, AuditType, Severity
from functions.core.decision import REPLY_EXPIRES_SECONDS, Repeat
from functions.core.failure import Done, Failure, FailureClass, IllegalTransition, RootCause, failure_of_status
from functions.core.gate import WaitingFor
from functions.core.recovery import (
    DETAIL_LENGTH,
    FINAL_CODES,
    HELD,
    HISTORY_LENGTH,
    OUTCOME_UNKNOWN,
    POISONED,
    POLL_SECONDS,
    REHINT_SECONDS,
    SUPPRESSED,
    WORKER_DIED,
    Change,
    Row,
    Status,
    absent,
    action_recovery_id,
    after_attempt,
    claim,
    dead_first,
    defer,
    end,
    event_recovery_id,
    expired_first,
    failed_first,
    held_first,
    hint_died,
    hinted,
    may_claim,
    parked_first,
    poisoned,
    put_off,
    release,
    replay,
    replay_expires_at,
    succeeded,
    suppress,
    suppressed_first,
    unknown_first,
    unknown_outcome,
    why_not_replayable,
    worker_died,
)
from functions.core.retry import RetryPolicy
from tests.unit.builders import (
    CONNECT_REFUSED,
    DAY,
    HOUR,
    HTTP_401,
    HTTP_422,
    HTTP_429,
    HTTP_503,
    MINUTE,
    NOON_MS,
    READ_TIMEOUT,
    ROLE_REFUSED,
    RULES,
    SECOND,
    Chance,
    action,
    blank,
    event_blank,
    parked,
    stated_429,
)

FIVE = RetryPolicy()
LEASE_MS = 65 * SECOND
HARMFUL = [Repeat.KEYED, Repeat.LOOKUP, Repeat.BLIND]
HARMLESS = [Repeat.IDEMPOTENT, Repeat.SETTING]


def first(repeat: Repeat, failure: Failure, policy: RetryPolicy = FIVE, **fields: Any) -> Change:
    """A first pass that failed at noon."""
    return failed_first(blank(repeat, **fields), RULES[repeat], policy, failure, NOON_MS, Chance(1), 1.0)


def claimed(row: Row | None = None, now_ms: int = NOON_MS, **fields: Any) -> Row:
    """A row under way."""
    return replace(claim(row or parked(), now_ms, now_ms + LEASE_MS, "q1").after, **fields)


def tried(
    row: Row, result: Result, now_ms: int = NOON_MS, *, policy: RetryPolicy = FIVE, was_sent: bool = True
) -> Change:
    """What an attempt at a claimed row leads to."""
    repeat = Repeat.IDEMPOTENT if row.action is None else row.action.repeat
    return after_attempt(row, RULES[repeat], policy, result, now_ms, Chance(1), 1.0, was_sent=was_sent)


def died(row: Row, status: Status = Status.DLQ, **fields: Any) -> Row:
    """A row that ended without success."""
    ended = tried(claimed(row), HTTP_422).after
    return replace(ended, status=status, **fields)


def replayed(row: Row, now_ms: int = NOON_MS) -> Row:
    """The row after an operator's click."""
    return replay(row, now_ms, actor="kim", reason="fixed", request_id="op-1", job_id="", scale=1.0).after


FIRST_FAILURE = (AuditType.FAILURE_DETECTED, AuditType.FAILURE_CONTAINED)  # of a row that had only waited so far


def types(change: Change) -> list[AuditType]:
    """The audit events' names."""
    return [event.event_type for event in change.audit]


# ------------------------------------------------------------------------------------------------------- first failures


def test_a_first_failure_is_detected_contained_and_scheduled_003_1() -> None:
    change = first(Repeat.IDEMPOTENT, CONNECT_REFUSED)
    row = change.after
    assert (row.status, row.version, row.attempt_count, row.waiting_for) == (
        Status.RETRYING,
        1,
        1,
        WaitingFor.BACKOFF,
    )
    assert row.due_at_ms == row.not_before_ms == NOON_MS + MINUTE
    assert types(change) == [AuditType.FAILURE_DETECTED, AuditType.FAILURE_CONTAINED, AuditType.RETRY_SCHEDULED]
    assert change.audit[1].containment_action == "retrying: waits for backoff"
    assert (row.failure_code, row.failure_class, row.root_cause) == (
        "CONNECTION_REFUSED",
        FailureClass.TRANSIENT.value,
        RootCause.TRANSIENT_INFRA.value,
    )
    assert [entry["to"] for entry in row.history] == ["retrying"]


def test_a_first_failure_that_cannot_be_retried_is_for_a_person_at_once() -> None:
    change = first(Repeat.IDEMPOTENT, HTTP_422)
    assert (change.after.status, change.after.failure_code, change.after.due_at_ms) == (Status.FAILED, "HTTP_422", 0)
    assert change.after.root_cause == RootCause.BAD_SOURCE_DATA.value
    assert types(change)[-1] is AuditType.REPROCESS_FAILED
    assert change.audit[1].containment_action == "failed: waits for a person"


def test_a_first_failure_under_a_policy_of_one_call_is_dead_at_once_004_9() -> None:
    change = first(Repeat.IDEMPOTENT, CONNECT_REFUSED, RetryPolicy(1, ()))
    assert change.after.status is Status.DLQ
    assert types(change)[-1] is AuditType.RETRY_EXHAUSTED
    assert change.audit[1].containment_action == "dlq: kept for replay"


@pytest.mark.parametrize("failure", [HTTP_503, READ_TIMEOUT])
def test_a_blind_first_send_that_may_have_happened_is_for_a_person_004_5(failure: Failure) -> None:
    row = first(Repeat.BLIND, failure).after
    assert (row.status, row.failure_code, row.effect) == (Status.FAILED, OUTCOME_UNKNOWN, Effect.UNKNOWN)
    assert failure.code in row.failure_detail


def test_a_lookup_is_not_tried_again_before_its_first_send_has_settled() -> None:
    row = first(Repeat.LOOKUP, HTTP_503).after
    assert (row.effect, row.due_at_ms, row.last_possible_send_ms) == (Effect.UNKNOWN, NOON_MS + 180 * SECOND, NOON_MS)


def test_a_key_is_tried_again_after_the_plain_wait_even_where_it_could_be_looked_up() -> None:
    rules = replace(RULES[Repeat.KEYED], can_look_up=True)
    change = failed_first(blank(Repeat.KEYED), rules, FIVE, HTTP_503, NOON_MS, Chance(1), 1.0)
    assert (change.after.effect, change.after.due_at_ms) == (Effect.UNKNOWN, NOON_MS + MINUTE)
    assert change.after.first_sent_at_ms == NOON_MS


def test_a_lookup_that_failed_before_the_first_send_tells_nothing_new() -> None:
    old = blank(Repeat.LOOKUP, effect=Effect.UNKNOWN, last_possible_send_ms=NOON_MS - 5)
    change = failed_first(old, RULES[Repeat.LOOKUP], FIVE, HTTP_503, NOON_MS, Chance(1), 1.0, was_sent=False)
    assert (change.after.effect, change.after.last_possible_send_ms) == (Effect.UNKNOWN, NOON_MS - 5)


def test_a_first_rate_limit_with_a_stated_end_spends_no_attempt_003_17() -> None:
    change = first(Repeat.IDEMPOTENT, stated_429(90 * SECOND))
    row = change.after
    assert (row.status, row.attempt_count, row.waiting_for) == (Status.RETRYING, 0, WaitingFor.PROVIDER_RESET)
    assert row.due_at_ms == NOON_MS + 90 * SECOND


def test_a_first_refused_credential_pages_and_counts_as_not_tried() -> None:
    change = first(Repeat.IDEMPOTENT, HTTP_401)
    row = change.after
    assert (row.status, row.attempt_count, row.waiting_for) == (Status.PENDING, 0, WaitingFor.CREDENTIAL)
    assert row.due_at_ms == NOON_MS + POLL_SECONDS * SECOND
    assert change.audit[-1].severity is Severity.CRITICAL


# ------------------------------------------------------------------------------------------------------ other new rows


def test_a_parked_action_is_pending_and_due() -> None:
    change = parked_first(blank(), WaitingFor.HEALTH, "helpdesk is down", NOON_MS + 5)
    row = change.after
    assert (row.status, row.attempt_count, row.due_at_ms, row.not_before_ms) == (
        Status.PENDING,
        0,
        NOON_MS + 5,
        NOON_MS + 5,
    )
    assert types(change) == [AuditType.ACTION_PARKED]
    assert change.audit[0].reason == "helpdesk is down"


def test_a_row_that_nobody_would_look_at_again_cannot_be_built() -> None:
    with pytest.raises(IllegalTransition, match="needs a time"):
        parked_first(blank(), WaitingFor.SWITCH, "hold", 0)
    with pytest.raises(IllegalTransition, match="needs a time"):
        defer(parked(), WaitingFor.SWITCH, "hold", 0, NOON_MS, uncount=False)
    with pytest.raises(IllegalTransition, match="needs a time"):
        put_off(parked(), 0)
    assert parked_first(blank(waits_for=("p1",)), WaitingFor.PARENT, "blocked", 0).after.is_open


def test_a_suppressed_action_is_at_rest_and_no_switch_can_wake_it_002_14() -> None:
    change = suppressed_first(blank(Repeat.LOOKUP), "auto_reply is off")
    row = change.after
    assert (row.status, row.failure_code, row.due_at_ms, row.is_open) == (Status.FAILED, SUPPRESSED, 0, False)
    assert not may_claim(row, NOON_MS + DAY)
    assert why_not_replayable(row, NOON_MS) is None
    assert types(change) == [AuditType.ACTION_SUPPRESSED]


def test_an_action_that_came_too_late_has_ended_for_good() -> None:
    change = expired_first(blank(), "too late")
    assert (change.after.status, change.after.failure_code, change.after.is_final) == (Status.FAILED, "EXPIRED", True)
    assert why_not_replayable(change.after, NOON_MS) == "ended_expired"
    assert types(change) == [AuditType.DISMISSED]


def test_an_event_of_a_held_source_waits_for_a_persons_replay() -> None:
    change = held_first(event_blank(), "the source is held")
    assert (change.after.status, change.after.failure_code, change.after.is_open) == (Status.FAILED, HELD, False)
    assert why_not_replayable(change.after, NOON_MS) is None
    assert types(change) == [AuditType.ACTION_PARKED]


def test_an_outcome_nothing_can_tell_is_for_a_person_and_not_for_bulk_replay_004_1() -> None:
    change = unknown_first(blank(Repeat.BLIND), "x" * 999)
    row = change.after
    assert (row.status, row.failure_code, row.effect) == (Status.FAILED, OUTCOME_UNKNOWN, Effect.UNKNOWN)
    assert len(row.failure_detail) == DETAIL_LENGTH
    assert row.root_cause == RootCause.TRANSIENT_INFRA.value
    assert why_not_replayable(row, NOON_MS) == "effect_unknown"
    assert types(change) == [AuditType.FAILURE_DETECTED, AuditType.FAILURE_CONTAINED]


@pytest.mark.parametrize(
    ("cause", "failure_class"),
    [(RootCause.TRANSIENT_INFRA, FailureClass.TRANSIENT), (RootCause.SCHEMA_MISMATCH, FailureClass.DATA_ERROR)],
)
def test_a_dead_event_keeps_its_cause_and_evidence_001_43(cause: RootCause, failure_class: FailureClass) -> None:
    change = dead_first(event_blank(), "POISON", "evidence", cause, Status.DLQ)
    row = change.after
    assert (row.status, row.root_cause, row.failure_class, row.failure_detail) == (
        Status.DLQ,
        cause.value,
        failure_class.value,
        "evidence",
    )
    assert types(change) == [AuditType.FAILURE_DETECTED, AuditType.FAILURE_CONTAINED]
    assert change.audit[0].error == "POISON: evidence"


@pytest.mark.parametrize("status", [Status.PENDING, Status.RETRYING, Status.SUCCEEDED, Status.REPLAYED])
def test_a_dead_event_can_only_be_dead(status: Status) -> None:
    with pytest.raises(IllegalTransition, match="is dead"):
        dead_first(event_blank(), "POISON", "", RootCause.CODE_DEFECT, status)


def test_any_repeat_meets_the_same_row() -> None:
    assert action_recovery_id("a") == action_recovery_id("a") != action_recovery_id("b")
    ids = {event_recovery_id("t", "e", 0), event_recovery_id("t", "e", 1), event_recovery_id("t", "e", 0, "h2")}
    assert len(ids) == 3
    assert all(len(one) == 24 for one in ids)


# ---------------------------------------------------------------------------------------------------------------- claim


def test_a_claim_counts_the_attempt_and_looks_again_at_the_leases_end() -> None:
    row = claim(parked(), NOON_MS, NOON_MS + LEASE_MS, "q1").after
    assert (row.status, row.attempt_count, row.version, row.request_id) == (Status.RETRYING, 1, 2, "q1")
    assert row.lease_until_ms == row.due_at_ms == NOON_MS + LEASE_MS
    assert (row.first_attempt_at_ms, row.waiting_for, row.effect) == (NOON_MS, WaitingFor.NOTHING, Effect.NONE)


@pytest.mark.parametrize(
    "row",
    [
        replace(parked(), not_before_ms=NOON_MS + 1),
        replace(parked(), waits_for=("p1",)),
        replace(parked(), lease_until_ms=NOON_MS + 1),
        died(parked()),
        tried(claimed(), Done()).after,
        tried(claimed(replayed(died(parked()))), Done()).after,
    ],
)
def test_what_is_early_blocked_leased_or_ended_cannot_be_claimed(row: Row) -> None:
    assert not may_claim(row, NOON_MS)
    with pytest.raises(IllegalTransition, match="cannot be claimed"):
        claim(row, NOON_MS, NOON_MS + LEASE_MS, "q1")


def test_a_claim_without_a_lease_ahead_of_it_is_refused() -> None:
    with pytest.raises(IllegalTransition, match="that is over"):
        claim(parked(), NOON_MS, NOON_MS, "q1")


@pytest.mark.parametrize("repeat", HARMFUL)
def test_a_takeover_does_not_know_whether_its_predecessor_sent(repeat: Repeat) -> None:
    left = claimed(parked(repeat))
    later = left.lease_until_ms
    row = claim(left, later, later + LEASE_MS, "q2").after
    assert (row.effect, row.takeovers, row.attempt_count) == (Effect.UNKNOWN, 1, 2)
    assert row.first_sent_at_ms == NOON_MS
    assert row.last_possible_send_ms == left.lease_until_ms  # the old lease's end counts as sent
    assert row.history[-1]["why"] == "taken over"


@pytest.mark.parametrize("row", [parked(Repeat.IDEMPOTENT), parked(Repeat.SETTING), event_blank()])
def test_a_takeover_of_what_does_no_harm_twice_leaves_no_unknown_effect(row: Row) -> None:
    left = claimed(row)
    taken = claim(left, left.lease_until_ms, left.lease_until_ms + LEASE_MS, "q2").after
    assert (taken.effect, taken.takeovers) == (Effect.NONE, 1)


def test_the_claim_of_a_replay_keeps_the_operators_request_id_004_17() -> None:
    row = claimed(replayed(died(parked())))
    assert (row.status, row.request_id) == (Status.REPLAYED, "op-1")
    done = tried(row, Done())
    assert done.audit[0].request_id == "op-1"
    assert done.audit[0].origin_request_id == "q0"


# ------------------------------------------------------------------------------------------------------------- outcomes


def test_five_calls_and_no_more_004_7_004_9() -> None:
    row, now_ms = first(Repeat.IDEMPOTENT, CONNECT_REFUSED).after, NOON_MS
    waits = []
    for _ in range(4):
        waits.append((row.due_at_ms - now_ms) // MINUTE)
        now_ms = row.due_at_ms
        change = tried(claimed(row, now_ms), CONNECT_REFUSED, now_ms)
        row = change.after
    assert waits == [1, 2, 4, 8]
    assert (row.status, row.attempt_count, row.due_at_ms) == (Status.DLQ, 5, 0)
    assert types(change) == [AuditType.RETRY_EXHAUSTED]
    assert change.audit[0].severity is Severity.ERROR
    assert row.expires_ttl_s == now_ms // 1000 + 90 * 86_400
    assert claimed().expires_ttl_s == 0  # nothing is deleted that has not ended


def test_a_success_ends_the_row_and_says_what_it_was_004_16() -> None:
    change = tried(claimed(parked(Repeat.LOOKUP)), Done("msg-9"), NOON_MS + 3)
    row = change.after
    assert (row.status, row.effect, row.provider_id, row.lease_until_ms) == (
        Status.SUCCEEDED,
        Effect.DONE,
        "msg-9",
        0,
    )
    assert row.is_final
    assert row.expires_ttl_s == (NOON_MS + 3) // 1000 + 35 * 86_400
    assert types(change) == [AuditType.REPROCESS_SUCCEEDED]


def test_what_a_person_set_since_ends_the_row_without_an_effect_of_ours() -> None:
    change = tried(claimed(parked(Repeat.SETTING)), Superseded("set to tier 2"), was_sent=False)
    assert (change.after.status, change.after.effect) == (Status.SUCCEEDED, Effect.NONE)
    assert change.audit[0].reason == "superseded: set to tier 2"


def test_every_transition_carries_its_state_before_and_after_004_18() -> None:
    row = claimed(parked())
    change = tried(row, CONNECT_REFUSED)
    before, after = json.loads(change.audit[0].before_state), json.loads(change.audit[0].after_state)
    assert (before["status"], before["version"], before["failure_code"]) == ("retrying", 2, "")
    assert (after["version"], after["failure_code"], after["waiting_for"]) == (3, "CONNECTION_REFUSED", "backoff")
    assert set(before) >= {"status", "attempt_count", "effect", "failure_code", "due_at_ms", "result"}
    assert change.audit[0].actor == MACHINE
    assert change.audit[0].traceparent == row.traceparent


@pytest.mark.parametrize("repeat", [Repeat.LOOKUP, Repeat.SETTING, Repeat.KEYED, Repeat.IDEMPOTENT])
def test_a_5xx_is_retried_by_the_rules_of_the_kind_004_5(repeat: Repeat) -> None:
    change = tried(claimed(parked(repeat)), HTTP_503)
    row = change.after
    assert row.status is Status.RETRYING
    assert row.effect is (Effect.UNKNOWN if repeat in HARMFUL else Effect.NONE)
    delay = 180 * SECOND if repeat is Repeat.LOOKUP else MINUTE
    assert row.due_at_ms == NOON_MS + delay
    assert types(change) == [*FIRST_FAILURE, AuditType.RETRY_SCHEDULED]


def test_a_blind_5xx_is_for_a_person_004_5() -> None:
    change = tried(claimed(parked(Repeat.BLIND)), HTTP_503)
    assert (change.after.status, change.after.failure_code) == (Status.FAILED, OUTCOME_UNKNOWN)
    assert types(change) == [*FIRST_FAILURE, AuditType.REPROCESS_FAILED]


def test_a_failed_lookup_leaves_what_is_known_as_it_was() -> None:
    row = replace(
        claimed(parked(Repeat.LOOKUP)), effect=Effect.UNKNOWN, last_possible_send_ms=NOON_MS - HOUR, stored_errors=1
    )
    after = tried(row, HTTP_503, was_sent=False).after
    assert (after.effect, after.last_possible_send_ms, after.stored_errors) == (Effect.UNKNOWN, NOON_MS - HOUR, 1)
    assert after.failure_class == FailureClass.TRANSIENT.value


def test_the_same_stored_error_is_counted_and_another_begins_anew() -> None:
    row = tried(claimed(parked(Repeat.KEYED)), HTTP_503).after
    assert row.stored_errors == 1
    again = tried(claimed(row, row.due_at_ms), HTTP_503, row.due_at_ms).after
    assert again.stored_errors == 2
    other = tried(claimed(row, row.due_at_ms), failure_of_status(502), row.due_at_ms).after
    assert other.stored_errors == 1
    silent = tried(claimed(row, row.due_at_ms), READ_TIMEOUT, row.due_at_ms).after
    assert silent.stored_errors == 0
    assert again.first_sent_at_ms == row.first_sent_at_ms == NOON_MS


def test_a_stated_rate_limit_spends_no_attempt_until_the_budget_is_spent_003_17() -> None:
    row = first(Repeat.IDEMPOTENT, stated_429(5 * HOUR)).after
    for _ in range(3):
        row = tried(claimed(row, row.due_at_ms), stated_429(5 * HOUR), row.due_at_ms).after
        assert (row.status, row.attempt_count, row.waiting_for) == (Status.RETRYING, 0, WaitingFor.PROVIDER_RESET)
    row = tried(claimed(row, row.due_at_ms), stated_429(5 * HOUR), row.due_at_ms).after
    assert row.status is Status.DLQ  # the next call would be 25 hours after the first


def test_a_rate_limit_that_does_not_say_how_long_is_an_attempt() -> None:
    row = tried(claimed(), HTTP_429).after
    assert (row.attempt_count, row.waiting_for) == (1, WaitingFor.BACKOFF)


def test_a_refused_credential_waits_without_spending_an_attempt_and_pages() -> None:
    tried_before = first(Repeat.IDEMPOTENT, CONNECT_REFUSED).after
    change = tried(claimed(tried_before, tried_before.due_at_ms), HTTP_401, tried_before.due_at_ms)
    row = change.after
    assert (row.status, row.attempt_count, row.waiting_for) == (Status.RETRYING, 1, WaitingFor.CREDENTIAL)
    assert change.audit[0].severity is Severity.CRITICAL
    assert tried(claimed(), HTTP_401).after.status is Status.PENDING


def test_our_own_role_that_is_refused_is_tried_again_and_is_then_a_persons_with_whose_permission_is_missing() -> None:
    """001.43: no credential that anybody could store would change it, so it must not wait for one."""
    row, now_ms = tried(claimed(), ROLE_REFUSED).after, NOON_MS
    while row.is_open:
        assert (row.waiting_for, row.attempt_count) == (WaitingFor.BACKOFF, len(row.history) // 2)
        now_ms = row.due_at_ms
        row = tried(claimed(row, now_ms), ROLE_REFUSED, now_ms).after
    assert (row.status, row.attempt_count, row.effect) == (Status.DLQ, RetryPolicy().max_attempts, Effect.NONE)
    assert (row.failure_class, row.failure_code) == ("auth_error", "ROLE_NOT_PERMITTED")
    assert (row.root_cause, row.failure_detail) == ("code_defect", "our role may not")


def probe(row: Row, result: Result, now_ms: int = NOON_MS) -> Change:
    """What the one call to an integration that is down leads to."""
    repeat = Repeat.IDEMPOTENT if row.action is None else row.action.repeat
    return after_attempt(row, RULES[repeat], FIVE, result, now_ms, Chance(1), 1.0, was_sent=True, is_probe=True)


@pytest.mark.parametrize("repeat", [Repeat.IDEMPOTENT, Repeat.KEYED, Repeat.SETTING])
def test_a_probe_that_fails_spends_no_attempt_however_often_000_15(repeat: Repeat) -> None:
    row = parked(repeat)
    now_ms = NOON_MS
    for number in range(12):
        change = probe(claimed(row, now_ms), HTTP_503, now_ms)
        row = change.after
        assert (row.status, row.waiting_for, row.attempt_count) == (Status.PENDING, WaitingFor.HEALTH, 0)
        assert row.due_at_ms == row.not_before_ms == now_ms + POLL_SECONDS * SECOND
        assert types(change) == [*(() if number else FIRST_FAILURE), AuditType.ACTION_PARKED]
        now_ms = row.due_at_ms
    assert row.failure_code == "HTTP_503"


def test_what_a_probe_may_have_done_stays_on_record_and_is_looked_for_before_it_is_sent_again() -> None:
    change = probe(claimed(parked(Repeat.LOOKUP)), HTTP_503)
    assert (change.after.effect, change.after.last_possible_send_ms) == (Effect.UNKNOWN, NOON_MS)
    assert change.after.due_at_ms == NOON_MS + 180 * SECOND
    assert change.after.attempt_count == 0


def test_a_probe_at_a_row_with_attempts_behind_it_leaves_them_as_they_were() -> None:
    row = parked(attempt_count=4, status=Status.RETRYING)
    after = probe(claimed(row), CONNECT_REFUSED).after
    assert (after.status, after.attempt_count, after.waiting_for) == (Status.RETRYING, 4, WaitingFor.HEALTH)


def test_a_probe_that_the_provider_refuses_or_defers_is_what_it_would_be_otherwise() -> None:
    assert probe(claimed(), HTTP_422).after.status is Status.FAILED
    assert probe(claimed(), HTTP_401).after.waiting_for is WaitingFor.CREDENTIAL
    assert probe(claimed(), stated_429(5_000)).after.waiting_for is WaitingFor.PROVIDER_RESET
    assert probe(claimed(), HTTP_429).after.waiting_for is WaitingFor.HEALTH
    assert probe(claimed(), Done("1")).after.status is Status.SUCCEEDED


def test_a_first_pass_that_was_a_probe_leaves_a_row_that_counts_as_not_tried() -> None:
    change = failed_first(
        blank(Repeat.KEYED), RULES[Repeat.KEYED], FIVE, READ_TIMEOUT, NOON_MS, Chance(1), 1.0, is_probe=True
    )
    row = change.after
    assert (row.status, row.attempt_count, row.effect) == (Status.PENDING, 0, Effect.UNKNOWN)
    assert row.waiting_for is WaitingFor.HEALTH
    assert types(change)[-1] is AuditType.ACTION_PARKED


def test_a_retryable_failure_after_the_budget_is_the_end_although_attempts_are_left() -> None:
    row = first(Repeat.IDEMPOTENT, CONNECT_REFUSED).after
    late = NOON_MS + DAY
    assert tried(claimed(row, late), CONNECT_REFUSED, late).after.status is Status.DLQ


@pytest.mark.parametrize(
    "transition",
    [
        lambda row: tried(row, Done()),
        lambda row: tried(row, CONNECT_REFUSED),
        lambda row: succeeded(row, Done(), NOON_MS),
        lambda row: suppress(row, "off", NOON_MS),
        lambda row: unknown_outcome(row, "", NOON_MS),
        lambda row: absent(row, NOON_MS),
        lambda row: defer(row, WaitingFor.TIME, "", NOON_MS, NOON_MS, uncount=True),
    ],
)
@pytest.mark.parametrize("row", [parked(), died(parked()), tried(claimed(), Done()).after])
def test_what_only_a_claimant_may_do_is_refused_without_a_claim(transition: Callable[[Row], Change], row: Row) -> None:
    with pytest.raises(IllegalTransition):
        transition(row)


# ------------------------------------------------------------------------------------------------- the last look


def exhausted(now_ms: int = NOON_MS) -> Row:
    """A lookup whose fifth call may have happened."""
    row = replace(claimed(parked(Repeat.LOOKUP), now_ms), attempt_count=5)
    return tried(row, HTTP_503, now_ms).after


def test_after_the_last_call_one_more_look_tells_whether_it_happened() -> None:
    row = exhausted()
    assert (row.status, row.verify_only, row.attempt_count, row.waiting_for) == (
        Status.RETRYING,
        True,
        5,
        WaitingFor.TIME,
    )
    assert row.due_at_ms >= NOON_MS + 180 * SECOND


def test_a_last_look_that_finds_it_is_a_success_of_the_fifth_call_004_7() -> None:
    row = tried(claimed(exhausted(), NOON_MS + HOUR), Done("m"), NOON_MS + HOUR, was_sent=False).after
    assert (row.status, row.attempt_count, row.verify_only) == (Status.SUCCEEDED, 5, False)


def test_a_last_look_that_finds_nothing_leaves_a_dead_row_that_may_be_replayed_004_9() -> None:
    change = absent(claimed(exhausted(), NOON_MS + HOUR), NOON_MS + HOUR)
    row = change.after
    assert (row.status, row.attempt_count, row.effect, row.verify_only) == (Status.DLQ, 5, Effect.NONE, False)
    assert types(change) == [AuditType.RETRY_EXHAUSTED]
    assert why_not_replayable(row, NOON_MS + HOUR) is None


def test_a_last_look_that_fails_is_made_again_until_the_budget_is_spent() -> None:
    row, now_ms, looks = exhausted(), NOON_MS, 0
    while row.is_open:
        assert (row.attempt_count, row.verify_only) == (5, True)
        now_ms, looks = row.due_at_ms, looks + 1
        row = tried(claimed(row, now_ms), HTTP_503, now_ms, was_sent=False).after
    assert (row.status, row.effect, row.attempt_count) == (Status.DLQ, Effect.UNKNOWN, 5)
    assert looks > 100
    assert now_ms <= NOON_MS + DAY
    assert why_not_replayable(row, now_ms) == "effect_unknown"


def test_a_key_that_can_be_looked_up_gets_its_last_look_only_once_it_can_be_believed() -> None:
    rules = replace(RULES[Repeat.KEYED], can_look_up=True)
    row = replace(claimed(parked(Repeat.KEYED)), attempt_count=5)
    last = after_attempt(
        row, rules, RetryPolicy(5, (1, 1, 1, 1)), HTTP_503, NOON_MS, Chance(1), 1.0, was_sent=True
    ).after
    assert (last.verify_only, last.due_at_ms) == (True, NOON_MS + 180 * SECOND)


def test_a_worker_that_died_while_looking_spent_nothing_and_sent_nothing() -> None:
    row = exhausted()
    looking = claimed(row, row.due_at_ms)
    later = looking.lease_until_ms
    taken = claim(looking, later, later + LEASE_MS, "q3").after
    assert taken.last_possible_send_ms == row.last_possible_send_ms
    assert absent(taken, later).after.attempt_count == 5
    put_back = defer(looking, WaitingFor.HEALTH, "down", later + 1, later, uncount=False).after
    assert (put_back.attempt_count, put_back.verify_only) == (5, True)


def test_what_was_not_the_last_look_cannot_end_as_absent() -> None:
    with pytest.raises(IllegalTransition, match="attempts left"):
        absent(claimed(parked(Repeat.LOOKUP)), NOON_MS)


# --------------------------------------------------------------------------------------------------- waiting and hints


def test_a_deferred_claim_gives_its_attempt_back() -> None:
    never_tried = defer(claimed(), WaitingFor.HEALTH, "down", NOON_MS + MINUTE, NOON_MS, uncount=True)
    row = never_tried.after
    assert (row.status, row.attempt_count, row.lease_until_ms) == (Status.PENDING, 0, 0)
    assert row.due_at_ms == row.not_before_ms == NOON_MS + MINUTE
    assert types(never_tried) == [AuditType.ACTION_PARKED]
    tried_once = first(Repeat.IDEMPOTENT, CONNECT_REFUSED).after
    again = defer(
        claimed(tried_once, tried_once.due_at_ms),
        WaitingFor.HEALTH,
        "down",
        tried_once.due_at_ms,
        NOON_MS,
        uncount=True,
    ).after
    assert (again.status, again.attempt_count) == (Status.RETRYING, 1)


def test_a_deferred_replay_stays_one_004_15() -> None:
    row = defer(
        claimed(replayed(died(parked()))), WaitingFor.SWITCH, "replay is off", NOON_MS + 9, NOON_MS, uncount=True
    ).after
    assert (row.status, row.result, row.is_open) == (Status.REPLAYED, "", True)


@pytest.mark.parametrize("repeat", HARMFUL)
def test_parking_a_row_whose_worker_died_does_not_forget_that_it_may_have_sent(repeat: Repeat) -> None:
    left = claimed(parked(repeat))
    row = defer(left, WaitingFor.HEALTH, "down", NOON_MS + HOUR, left.lease_until_ms, uncount=False).after
    assert (row.effect, row.status, row.attempt_count) == (Effect.UNKNOWN, Status.RETRYING, 1)
    assert row.last_possible_send_ms == left.lease_until_ms


def test_nobody_puts_off_or_hints_at_a_row_under_a_live_lease() -> None:
    row = claimed()
    with pytest.raises(IllegalTransition, match="under way"):
        defer(row, WaitingFor.HEALTH, "down", NOON_MS + 5, NOON_MS, uncount=False)
    with pytest.raises(IllegalTransition, match="under way"):
        hinted(row, NOON_MS, 1.0)


def test_a_hint_has_the_rows_next_version_and_leaves_it_due_if_nothing_comes_of_it() -> None:
    row = parked()
    soon = hinted(row, NOON_MS - 5, 1.0).after
    assert (soon.version, soon.due_at_ms, soon.status) == (2, row.due_at_ms + REHINT_SECONDS * SECOND, Status.PENDING)
    assert hinted(row, NOON_MS + MINUTE, 0.5).after.due_at_ms == NOON_MS + MINUTE + 90 * SECOND
    assert may_claim(soon, row.not_before_ms)
    assert put_off(row, NOON_MS + 7).after.due_at_ms == NOON_MS + 7


@pytest.mark.parametrize("repeat", Repeat)
def test_a_dead_hint_is_counted_and_changes_nothing_else_until_something_becomes_of_the_row(repeat: Repeat) -> None:
    row = hinted(parked(repeat), NOON_MS, 1.0).after
    once = hint_died(row, "a hint led to nothing", NOON_MS + HOUR).after
    assert (once.dead_hints, once.dead_hint_version, once.version) == (1, row.version + 1, row.version + 1)
    assert (once.updated_at_ms, once.due_at_ms, once.status) == (row.updated_at_ms, row.due_at_ms, row.status)
    assert once.history[-1]["why"] == "a hint led to nothing"
    again = hint_died(hinted(once, NOON_MS + HOUR, 1.0).after, "another", NOON_MS + 2 * HOUR).after
    assert again.dead_hints == 2
    assert hint_died(again, "a third", NOON_MS).audit == ()
    now_ms = NOON_MS + 3 * HOUR
    for moved in (claimed(again, now_ms), defer(again, WaitingFor.SWITCH, "x", now_ms, now_ms, uncount=False).after):
        assert moved.dead_hints == 0
        assert moved.dead_hint_version == again.dead_hint_version  # what was sent before that still says nothing new


def test_a_dead_hint_does_not_hide_when_a_dead_workers_claim_was_made() -> None:
    left = claimed(parked(Repeat.KEYED))
    counted = hint_died(left, "a hint led to nothing", left.lease_until_ms + HOUR).after
    taken = claimed(counted, left.lease_until_ms + 2 * HOUR)
    assert (taken.first_sent_at_ms, taken.effect) == (left.updated_at_ms, Effect.UNKNOWN)


@pytest.mark.parametrize("row", [claimed(), died(parked())], ids=["under way", "ended"])
def test_only_an_open_row_that_nobody_works_at_has_dead_hints(row: Row) -> None:
    with pytest.raises(IllegalTransition):
        hint_died(row, "a hint led to nothing", NOON_MS)


@pytest.mark.parametrize("change", [lambda row: hinted(row, NOON_MS, 1.0), lambda row: put_off(row, NOON_MS)])
def test_an_ended_row_is_not_hinted_at_nor_put_off(change: Callable[[Row], Change]) -> None:
    with pytest.raises(IllegalTransition):
        change(died(parked()))
    with pytest.raises(IllegalTransition):
        defer(died(parked()), WaitingFor.TIME, "", NOON_MS, NOON_MS, uncount=False)


def test_the_last_parent_sets_its_child_due() -> None:
    child = parked_first(blank(waits_for=("p1", "p2")), WaitingFor.PARENT, "blocked", NOON_MS + DAY).after
    one_left = release(child, "p1", NOON_MS).after
    assert (one_left.waits_for, one_left.due_at_ms, one_left.waiting_for) == (
        ("p2",),
        NOON_MS + DAY,
        WaitingFor.PARENT,
    )
    assert not may_claim(one_left, NOON_MS + DAY)
    free = release(one_left, "p2", NOON_MS + 3).after
    assert (free.waits_for, free.due_at_ms, free.waiting_for) == ((), NOON_MS + 3, WaitingFor.NOTHING)
    assert may_claim(free, NOON_MS + 3)


def test_a_child_with_a_slot_is_due_at_its_slot_and_one_that_is_over_holds_nothing_up() -> None:
    child = parked_first(
        blank(waits_for=("p1",), slot_ms=NOON_MS + 9), WaitingFor.PARENT, "blocked", NOON_MS + DAY
    ).after
    early = release(child, "p1", NOON_MS).after
    assert (early.not_before_ms, early.due_at_ms, early.waiting_for) == (NOON_MS + 9, NOON_MS + 9, WaitingFor.LIMITER)
    late = release(child, "p1", NOON_MS + 10).after
    assert (late.not_before_ms, late.due_at_ms, late.waiting_for) == (NOON_MS + 10, NOON_MS + 10, WaitingFor.NOTHING)


def test_a_slot_is_good_for_one_claim_and_for_no_replay() -> None:
    row = replace(parked(), slot_ms=NOON_MS)
    assert claim(row, NOON_MS, NOON_MS + 60_000, "q1").after.slot_ms == 0
    assert replayed(replace(died(parked()), slot_ms=NOON_MS)).slot_ms == 0


def test_a_child_that_has_ended_or_does_not_wait_is_not_released() -> None:
    child = parked_first(blank(waits_for=("p1",)), WaitingFor.PARENT, "blocked", NOON_MS + DAY).after
    with pytest.raises(IllegalTransition, match="does not wait"):
        release(child, "p9", NOON_MS)
    with pytest.raises(IllegalTransition, match="does not wait"):
        release(replace(end(child, "CANCELLED", "opt-out", NOON_MS).after, waits_for=("p1",)), "p1", NOON_MS)


# -------------------------------------------------------------------------------------------------------------- ends


@pytest.mark.parametrize("code", sorted(FINAL_CODES))
@pytest.mark.parametrize("row", [parked(), died(parked()), replayed(died(parked()))])
def test_a_row_ends_for_good_with_an_audit_event_and_its_actor(code: str, row: Row) -> None:
    change = end(row, code, "because", NOON_MS + 2, actor="kim", request_id="op-2")
    after = change.after
    assert (after.status, after.failure_code, after.is_final, after.is_open) == (Status.FAILED, code, True, False)
    assert after.effect is (Effect.DONE if code == "DONE_BY_HAND" else Effect.NONE)
    assert types(change) == [AuditType.DISMISSED]
    assert (change.audit[0].actor, change.audit[0].reason, change.audit[0].request_id) == ("kim", "because", "op-2")
    assert after.expires_ttl_s == (NOON_MS + 2) // 1000 + 90 * 86_400  # failed rows are kept for 90 days
    with pytest.raises(IllegalTransition):
        end(after, code, "again", NOON_MS)
    assert why_not_replayable(after, NOON_MS) == f"ended_{code.lower()}"


def test_only_the_four_ends_are_ends() -> None:
    with pytest.raises(IllegalTransition, match="cannot end as LATER"):
        end(parked(), "LATER", "", NOON_MS)


def test_a_person_does_not_end_what_is_being_sent() -> None:
    with pytest.raises(IllegalTransition, match="under way"):
        end(claimed(), "DISMISSED", "no", NOON_MS, actor="kim")
    assert end(claimed(), "EXPIRED", "too late", NOON_MS).after.effect is Effect.NONE  # its claimant, before the send


def test_what_expires_after_its_worker_died_may_have_been_sent() -> None:
    left = claimed(parked(Repeat.LOOKUP))
    assert end(left, "EXPIRED", "too late", left.lease_until_ms).after.effect is Effect.UNKNOWN


def test_a_later_suppression_is_at_rest_and_audited() -> None:
    change = suppress(claimed(parked(Repeat.LOOKUP)), "auto_reply is off", NOON_MS)
    assert (change.after.status, change.after.failure_code, change.after.due_at_ms) == (Status.FAILED, SUPPRESSED, 0)
    assert types(change) == [AuditType.ACTION_SUPPRESSED]


@pytest.mark.parametrize("repeat", Repeat)
def test_a_row_that_keeps_killing_workers_dies_with_what_is_known_of_its_effect(repeat: Repeat) -> None:
    left = replace(claimed(parked(repeat)), takeovers=2)
    change = worker_died(left, left.lease_until_ms)
    row = change.after
    assert (row.status, row.failure_code, row.root_cause) == (Status.DLQ, WORKER_DIED, RootCause.CODE_DEFECT.value)
    assert row.failure_detail == "3 workers died on it"
    assert row.effect is (Effect.UNKNOWN if repeat in HARMFUL else Effect.NONE)
    assert types(change) == [*FIRST_FAILURE, AuditType.RETRY_EXHAUSTED]


def test_nobody_died_on_a_row_without_an_ended_lease() -> None:
    for row in (parked(), claimed(), died(parked())):
        with pytest.raises(IllegalTransition, match="nobody died"):
            worker_died(row, NOON_MS)


@pytest.mark.parametrize("repeat", Repeat)
def test_a_row_whose_message_was_given_up_is_dead_with_what_is_known_of_its_effect(repeat: Repeat) -> None:
    assert poisoned(parked(repeat), "10 receives", NOON_MS).after.effect is Effect.NONE
    left = claimed(parked(repeat))
    change = poisoned(left, "10 receives", left.lease_until_ms)
    row = change.after
    assert (row.status, row.failure_code, row.failure_detail) == (Status.DLQ, POISONED, "10 receives")
    assert row.failure_class == FailureClass.DATA_ERROR.value
    assert row.effect is (Effect.UNKNOWN if repeat in HARMFUL else Effect.NONE)
    assert types(change) == [*FIRST_FAILURE, AuditType.RETRY_EXHAUSTED]
    for alive in (claimed(), died(parked())):
        with pytest.raises(IllegalTransition, match="not poison"):
            poisoned(alive, "", NOON_MS)


def test_a_replay_that_dies_is_a_failed_reprocess_004_16() -> None:
    left = claimed(replayed(died(parked())))
    for change in (worker_died(left, left.lease_until_ms), poisoned(left, "", left.lease_until_ms)):
        assert types(change) == [AuditType.REPROCESS_FAILED]
        assert change.after.result == "failed"


# ------------------------------------------------------------------------------------------------------------- replay


@pytest.mark.parametrize("status", [Status.FAILED, Status.DLQ])
def test_a_replay_starts_one_attempt_of_the_same_row_004_15(status: Status) -> None:
    dead = died(parked(Repeat.KEYED), status, attempt_count=5, takeovers=2)
    change = replay(dead, NOON_MS + DAY, actor="kim", reason="fixed", request_id="op-1", job_id="j1", scale=1.0)
    row = change.after
    assert (row.status, row.replayed_from, row.replay_no, row.result) == (Status.REPLAYED, status.value, 1, "")
    assert (row.request_id, row.job_id, row.origin_request_id) == ("op-1", "j1", "q0")
    assert row.action == dead.action  # and with it the provider's key
    assert (row.not_before_ms, row.due_at_ms) == (NOON_MS + DAY, NOON_MS + DAY + REHINT_SECONDS * SECOND)
    assert types(change) == [AuditType.REPLAYED]
    assert (change.audit[0].actor, change.audit[0].reason, change.audit[0].job_id) == ("kim", "fixed", "j1")


def test_a_replay_that_succeeds_stays_replayed_with_its_result_004_15() -> None:
    change = tried(claimed(replayed(died(parked()))), Done())
    assert (change.after.status, change.after.result, change.after.is_final) == (Status.REPLAYED, "succeeded", True)
    assert types(change) == [AuditType.REPROCESS_SUCCEEDED]
    assert change.after.expires_ttl_s == NOON_MS // 1000 + 35 * 86_400
    assert why_not_replayable(change.after, NOON_MS) == "status_replayed"


@pytest.mark.parametrize(("failure", "status"), [(CONNECT_REFUSED, Status.DLQ), (HTTP_422, Status.FAILED)])
def test_a_replay_that_fails_goes_back_to_the_dead_after_one_attempt_004_15(failure: Failure, status: Status) -> None:
    change = tried(claimed(replayed(died(parked(), attempt_count=1))), failure)
    assert (change.after.status, change.after.result, change.after.due_at_ms) == (status, "failed", 0)
    assert types(change) == [AuditType.REPROCESS_FAILED]
    again = replayed(change.after)
    assert (again.replay_no, again.result) == (2, "")


def test_a_replay_days_later_has_a_time_budget_of_its_own_for_stated_rate_limits() -> None:
    later = NOON_MS + 3 * DAY
    row = tried(claimed(replayed(died(parked()), later), later), stated_429(MINUTE), later).after
    assert (row.status, row.is_open, row.waiting_for) == (Status.REPLAYED, True, WaitingFor.PROVIDER_RESET)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (parked(), "status_pending"),
        (claimed(), "status_retrying"),
        (tried(claimed(), Done()).after, "status_succeeded"),
        (replayed(died(parked())), "status_replayed"),
        (end(parked(), "CANCELLED", "opt-out", NOON_MS).after, "ended_cancelled"),
        (died(parked(Repeat.KEYED), effect=Effect.UNKNOWN), "effect_unknown"),
        (died(parked(), expires_at_ms=NOON_MS), "expired"),
        (
            dead_first(
                event_blank(received_at_ms=NOON_MS - 30 * DAY - 1), "X", "", RootCause.CODE_DEFECT, Status.DLQ
            ).after,
            "too_old",
        ),
    ],
)
def test_what_may_not_be_replayed_says_why_004_15(row: Row, why: str) -> None:
    assert why_not_replayable(row, NOON_MS) == why
    with pytest.raises(IllegalTransition, match=why):
        replayed(row)


def test_a_dead_event_may_be_replayed_for_thirty_days() -> None:
    row = dead_first(event_blank(received_at_ms=NOON_MS - 30 * DAY), "X", "", RootCause.CODE_DEFECT, Status.DLQ).after
    assert why_not_replayable(row, NOON_MS) is None


def test_a_reply_may_be_replayed_for_thirty_minutes_where_it_expires_after_fifteen() -> None:
    reply = action(Repeat.LOOKUP, customer_visible=True, expires_seconds=REPLY_EXPIRES_SECONDS)
    received_ms = NOON_MS - 20 * MINUTE
    row = suppressed_first(
        blank(Repeat.LOOKUP, action=reply, received_at_ms=received_ms, expires_at_ms=received_ms + 15 * MINUTE), "off"
    ).after
    assert replay_expires_at(row) == received_ms + 30 * MINUTE
    assert why_not_replayable(row, NOON_MS) is None
    assert replayed(row).expires_at_ms == received_ms + 30 * MINUTE
    assert why_not_replayable(row, received_ms + 30 * MINUTE) == "expired"
    assert replay_expires_at(blank()) == blank().expires_at_ms


# ---------------------------------------------------------------------------------------------------------------- rest


def test_a_rows_history_keeps_its_last_twenty_steps() -> None:
    row = parked()
    for step in range(30):
        row = defer(row, WaitingFor.HEALTH, f"step {step}", NOON_MS + step + 1, NOON_MS + step, uncount=False).after
    assert len(row.history) == HISTORY_LENGTH
    assert row.history[-1]["why"] == "step 29"
