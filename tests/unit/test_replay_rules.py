"""Which dead items a replay may try again, and what it says of the others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from functions.core import replay as rules
from functions.core.attempt import Effect
from functions.core.audit import AuditType
from functions.core.ports import ReplayJob
from functions.core.recovery import Row, Status
from functions.core.replay import Filter
from functions.core.switches import Snapshot, SwitchView, view
from functions.replay.request import InvalidRequest, read
from tests.fakes import LIVE_SWITCHES, NOON_MS
from tests.recovery_rows import HOUR_MS, action, dead, event_row, row

SOUND = {"filter": {"integration": "helpdesk"}, "reason": "helpdesk is back", "actor": "anna"}


def switches(**values: str) -> SwitchView:
    snapshot = Snapshot.complete({**LIVE_SWITCHES, **values}, NOON_MS)
    return view(snapshot, flow="support", source="helpdesk-acme", tenant="acme", now_ms=NOON_MS)


def only(**criteria: Any) -> Filter:
    values: dict[str, Any] = {name: one if isinstance(one, int) else frozenset(one) for name, one in criteria.items()}
    return Filter(**values)


@pytest.mark.parametrize(
    ("criteria", "is_meant"),
    [
        ({"integration": ["helpdesk"]}, True),
        ({"integration": ["email", "helpdesk"]}, True),
        ({"integration": ["email"]}, False),
        ({"status": ["dlq"]}, True),
        ({"status": ["failed"]}, False),
        ({"failure_code": ["HTTP_503"]}, True),
        ({"failure_code": ["HTTP_500"]}, False),
        ({"root_cause": ["transient_infra"]}, True),
        ({"root_cause": ["code_defect"]}, False),
        ({"source": ["helpdesk-acme"]}, True),
        ({"tenant": ["other"]}, False),
        ({"flow": ["support"]}, True),
        ({"event_name": ["ticket.created"]}, True),
        ({"event_name": ["ticket.updated"]}, False),
        ({"older_than_ms": HOUR_MS - 1}, True),
        ({"older_than_ms": HOUR_MS}, False),
        ({"newer_than_ms": HOUR_MS + 1}, True),
        ({"newer_than_ms": HOUR_MS}, False),
        ({"integration": ["helpdesk"], "tenant": ["other"]}, False),
    ],
)
def test_every_criterion_must_hold_001_42(criteria: dict[str, Any], is_meant: bool) -> None:
    assert rules.matches(only(**criteria), dead(), NOON_MS) is is_meant


def test_a_row_under_way_is_meant_only_if_it_is_named() -> None:
    assert not rules.matches(only(integration=["helpdesk"]), row(), NOON_MS)
    assert rules.matches(only(recovery_id=[row().recovery_id]), row(), NOON_MS)
    assert not rules.matches(only(recovery_id=["another"]), row(), NOON_MS)


@pytest.mark.parametrize(
    ("subject", "wanted", "values", "why"),
    [
        (dead(), {}, {}, None),
        (dead(status=Status.FAILED), {}, {}, None),
        (row(), {}, {}, "status_retrying"),
        (dead(effect=Effect.UNKNOWN), {}, {}, "effect_unknown"),
        (dead(status=Status.FAILED, failure_code="EXPIRED"), {}, {}, "ended_expired"),
        (dead(status=Status.FAILED, failure_code="DONE_BY_HAND"), {}, {}, "ended_done_by_hand"),
        (dead(status=Status.FAILED, failure_code="SUPPRESSED"), {}, {}, "suppressed"),
        (dead(status=Status.FAILED, failure_code="SUPPRESSED"), {"failure_code": ["SUPPRESSED"]}, {}, None),
        (dead(expires_at_ms=NOON_MS), {}, {}, "expired"),
        (event_row(received_at_ms=NOON_MS - 31 * 24 * HOUR_MS), {}, {}, "too_old"),
        (dead(), {}, {"tenant/acme/replay": "off"}, "replay_off"),
        (dead(), {}, {"replay_blocked_integrations": "helpdesk"}, "replay_blocked"),
        (dead(), {}, {"replay_blocked_integrations": "email"}, None),
    ],
)
def test_what_may_not_be_tried_again_is_skipped_with_its_reason_004_15_004_20(
    subject: Row, wanted: dict[str, Any], values: dict[str, str], why: str | None
) -> None:
    assert rules.why_skipped(subject, only(**wanted), switches(**values), NOON_MS) == why


def test_a_reply_may_be_replayed_by_a_person_for_half_an_hour() -> None:
    reply = action("reply", kind="reply", customer_visible=True, expires_seconds=15 * 60)
    late = dead("reply", action=reply, received_at_ms=NOON_MS - 29 * 60_000, expires_at_ms=NOON_MS - 14 * 60_000)
    assert rules.why_skipped(late, only(), switches(), NOON_MS) is None
    assert rules.why_skipped(late, only(), switches(), NOON_MS + 60_000) == "expired"


def test_the_limit_counts_what_can_be_replayed_and_takes_the_oldest_events_first_001_38() -> None:
    rows = [dead(f"r{n}", received_at_ms=NOON_MS - n) for n in range(4)]
    plan = rules.plan([(rows[0], None), (rows[1], None), (rows[2], None), (rows[3], "effect_unknown")], 2)
    assert plan.replay == (rows[2], rows[1])
    assert [(each.recovery_id, why) for each, why in plan.skip] == [
        (rows[3].recovery_id, "effect_unknown"),
        (rows[0].recovery_id, "over_limit"),
    ]
    assert plan.matched == 4
    assert rules.named(plan.skip) == {"effect_unknown": 1, "over_limit": 1}


def test_a_filter_says_in_the_record_what_was_asked_for() -> None:
    assert json.loads(only(integration=["b", "a"], older_than_ms=5).to_json()) == {
        "integration": ["a", "b"],
        "older_than_ms": 5,
    }
    assert only(status=["dlq"]).statuses == (Status.DLQ,)
    assert only().statuses == (Status.FAILED, Status.DLQ)


def test_a_jobs_beginning_and_end_are_two_events_that_bear_its_id_001_47() -> None:
    begun = ReplayJob("j1", "anna", "back", '{"tenant":["acme"]}', 5, NOON_MS, matched=3)
    ended = ReplayJob("j1", "anna", "back", '{"tenant":["acme"]}', 5, NOON_MS, NOON_MS + 9, 3, 2, {"moved": 1})
    first, last = rules.job_event(begun, "req"), rules.job_event(ended, "req")
    assert first.id != last.id
    assert {first.job_id, last.job_id} == {"j1"}
    assert (first.event_type, first.actor, first.reason, first.at_ms) == (AuditType.REPLAYED, "anna", "back", NOON_MS)
    assert json.loads(last.after_state)["skipped"] == {"moved": 1}
    assert "replayed" not in json.loads(first.after_state)


# ------------------------------------------------------------------------------------------------------------ requests


def test_a_sound_request_is_read_with_its_defaults() -> None:
    request, wanted = read(SOUND)
    assert (request.limit, request.dry_run) == (50, False)
    assert wanted == only(integration=["helpdesk"])


def test_one_id_and_several_are_the_same_criterion() -> None:
    _, wanted = read({**SOUND, "filter": {"recovery_id": "a", "recovery_ids": ["b"]}})
    assert wanted.recovery_id == frozenset({"a", "b"})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"filter": {}}, "filter"),
        ({"filter": {"integration": []}}, "filter.integration"),
        ({"filter": {"integration": " "}}, "filter.integration.0"),
        ({"filter": {"colour": "red"}}, "filter.colour"),
        ({"filter": {"status": "succeeded"}}, "filter.status.0"),
        ({"filter": {"older_than_seconds": "60"}}, "filter.older_than_seconds"),
        ({"filter": {"older_than_seconds": 0}}, "filter.older_than_seconds"),
        ({"filter": None}, "filter"),
        ({"reason": "  "}, "reason"),
        ({"reason": None}, "reason"),
        ({"actor": ""}, "actor"),
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": "50"}, "limit"),
        ({"dry_run": "no"}, "dry_run"),
        ({"force": True}, "force"),
    ],
)
def test_anything_else_is_refused_and_the_place_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read({**SOUND, **change})
    assert [problem["field"] for problem in refused.value.problems] == [field]


@pytest.mark.parametrize("payload", [None, [], "all", 7, {}])
def test_what_is_no_request_at_all_is_refused(payload: object) -> None:
    with pytest.raises(InvalidRequest):
        read(payload)


def test_a_refusal_does_not_repeat_what_it_was_given() -> None:
    with pytest.raises(InvalidRequest) as refused:
        read({**SOUND, "limit": "anna@example.com"})
    assert "anna" not in str(refused.value.problems)
