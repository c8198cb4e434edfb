"""Which dead items a bulk replay means, and what it says of each before it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from functions.core import replay as rules
from functions.core.attempt import Effect
from functions.core.decision import Classification, DecidedBy, Decision, Mode, Repeat
from functions.core.failure import IllegalTransition
from functions.core.gate import Health, IntegrationState, Standing, WaitingFor
from functions.core.integration import INTAKE, Integration, KindRules
from functions.core.ledger import ActionMark, ActionStatus, LedgerItem, LedgerStatus
from functions.core.limiter import Limit
from functions.core.recovery import (
    Row,
    Status,
    claim,
    defer,
    may_take_back,
    replay,
    take_back,
    why_not_replayable,
)
from functions.core.replay import (
    Filter,
    Ground,
    Plan,
    PlanItem,
    PlanLost,
    Prediction,
    Seen,
    ground_lost,
    ground_of,
    predict,
)
from functions.core.switches import Snapshot, SwitchView, view
from tests.fakes import LIVE_SWITCHES, NOON_MS
from tests.recovery_rows import HOUR_MS, action, dead, event_row, row

DAY_MS = 24 * HOUR_MS
KNOWN = Integration(
    "helpdesk",
    {
        "add_tag": KindRules("add_tag", Repeat.IDEMPOTENT),
        "assign": KindRules("assign", Repeat.SETTING),
        "create": KindRules("create", Repeat.KEYED, key_window_seconds=86_400),
        "reply": KindRules("reply", Repeat.LOOKUP, settle_seconds=180, can_look_up=True),
        "push": KindRules("push", Repeat.BLIND),
    },
)


def switches(**values: str) -> SwitchView:
    snapshot = Snapshot.complete({**LIVE_SWITCHES, **values}, NOON_MS)
    return view(snapshot, flow="support", source="helpdesk-acme", tenant="acme", now_ms=NOON_MS)


def only(**criteria: Any) -> Filter:
    values: dict[str, Any] = {name: one if isinstance(one, int) else frozenset(one) for name, one in criteria.items()}
    return Filter(**values)


def seen(**fields: Any) -> Seen:
    values = {name: fields.pop(name) for name in list(fields) if name in LIVE_SWITCHES or "/" in name}
    sound: dict[str, Any] = {
        "now_ms": NOON_MS,
        "switches": switches(**values),
        "state": IntegrationState("helpdesk"),
        "known": KNOWN,
    }
    return Seen(**{**sound, **fields})


def of_kind(kind: str, **fields: Any) -> Row:
    return dead(kind, action=action(kind, kind=kind, repeat=KNOWN.kinds[kind].repeat), **fields)


def unclear(kind: str, sent_ms: int = NOON_MS - HOUR_MS, **fields: Any) -> Row:
    return of_kind(kind, effect=Effect.UNKNOWN, first_sent_at_ms=sent_ms, last_possible_send_ms=sent_ms, **fields)


def ledger(status: LedgerStatus = LedgerStatus.SETTLED, epoch_ms: int = 0, **marks: ActionStatus) -> LedgerItem:
    said = Classification("all", 1.0, DecidedBy.RULES, "1")
    decision = Decision("support", Mode.LIVE, said, (), NOON_MS)
    actions = {name: ActionMark(mark) for name, mark in marks.items()}
    return LedgerItem("E#acme#x", status, "o", 1, 0, NOON_MS, epoch_ms, "p", decision, actions)


# --------------------------------------------------------------------------------------------------------------- filter


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
        ({"incident": ["INC-7"]}, True),
        ({"incident": ["INC-8"]}, False),
        ({"detail": ["Bad GATEWAY"]}, True),
        ({"detail": ["nothing", "gateway"]}, True),
        ({"detail": ["teapot"]}, False),
        ({"older_than_ms": HOUR_MS - 1}, True),
        ({"older_than_ms": HOUR_MS}, False),
        ({"newer_than_ms": HOUR_MS + 1}, True),
        ({"newer_than_ms": HOUR_MS}, False),
        ({"integration": ["helpdesk"], "tenant": ["other"]}, False),
    ],
)
def test_every_criterion_must_hold_001_42(criteria: dict[str, Any], is_meant: bool) -> None:
    subject = dead(incident_id="INC-7", failure_detail="502: Bad Gateway")
    assert rules.matches(only(**criteria), subject, NOON_MS) is is_meant


def test_a_row_under_way_is_meant_only_if_it_is_named() -> None:
    assert not rules.matches(only(integration=["helpdesk"]), row(), NOON_MS)
    assert rules.matches(only(recovery_id=[row().recovery_id]), row(), NOON_MS)
    assert not rules.matches(only(recovery_id=["another"]), row(), NOON_MS)


def test_a_filter_says_in_the_record_what_was_asked_for_and_is_read_back() -> None:
    wanted = only(integration=["b", "a"], older_than_ms=5)
    assert json.loads(wanted.to_json()) == {"integration": ["a", "b"], "older_than_ms": 5}
    assert Filter.from_json(wanted.to_json()) == wanted
    assert only(status=["dlq"]).statuses == (Status.DLQ,)
    assert only().statuses == (Status.FAILED, Status.DLQ)
    assert only().is_empty
    assert not wanted.is_empty


# ---------------------------------------------------------------------------------------------------------- prediction


@pytest.mark.parametrize(
    ("subject", "about", "prediction"),
    [
        (dead(), {}, Prediction.WOULD_SEND),
        (dead(status=Status.FAILED), {}, Prediction.WOULD_SEND),
        (of_kind("assign"), {}, Prediction.WOULD_SEND),
        # done, ended, or in somebody's hands
        (dead(status=Status.FAILED, failure_code="DONE_BY_HAND", effect=Effect.DONE), {}, Prediction.ALREADY_DONE),
        (row(status=Status.SUCCEEDED), {}, Prediction.ALREADY_DONE),
        (row(status=Status.REPLAYED, result="succeeded"), {}, Prediction.ALREADY_DONE),
        (dead(), {"item": ledger(tag=ActionStatus.DONE)}, Prediction.ALREADY_DONE),
        (dead(), {"item": ledger(tag=ActionStatus.SUPERSEDED)}, Prediction.ALREADY_DONE),
        (dead(), {"item": ledger(tag=ActionStatus.RECOVERY)}, Prediction.WOULD_SEND),
        (dead(), {"item": ledger(another=ActionStatus.DONE)}, Prediction.WOULD_SEND),
        (dead(), {"item": ledger(epoch_ms=5, tag=ActionStatus.DONE)}, Prediction.WOULD_SEND),
        (row(), {}, Prediction.UNDER_WAY),
        (row(status=Status.REPLAYED), {}, Prediction.UNDER_WAY),
        (dead(status=Status.FAILED, failure_code="EXPIRED"), {}, Prediction.EXPIRED),
        (dead(status=Status.FAILED, failure_code="DISMISSED"), {}, Prediction.ENDED),
        # whole events
        (event_row(), {"known": None}, Prediction.WOULD_SEND),
        (event_row(), {"item": ledger()}, Prediction.ALREADY_DONE),
        (event_row(), {"item": ledger(LedgerStatus.PROCESSING)}, Prediction.WOULD_SEND),
        (event_row(epoch_ms=7), {"item": ledger()}, Prediction.WOULD_SEND),
        (event_row(failure_code="PAYLOAD_MISMATCH"), {"item": ledger()}, Prediction.OTHER_PAYLOAD),
        (event_row(failure_code="PAYLOAD_MISMATCH"), {}, Prediction.WOULD_SEND),
        (event_row(failure_code="HELD", status=Status.FAILED), {}, Prediction.KEPT_ASIDE),
        (event_row(failure_code="HELD"), {"asked_for": frozenset(["HELD"])}, Prediction.WOULD_SEND),
        (dead(failure_code="QUARANTINED"), {}, Prediction.KEPT_ASIDE),
        (dead(failure_code="QUARANTINED"), {"asked_for": frozenset(["QUARANTINED"])}, Prediction.WOULD_SEND),
        (event_row(received_at_ms=NOON_MS - 31 * DAY_MS), {}, Prediction.TOO_OLD),
        (event_row(), {"unknown": "gone"}, Prediction.SCHEMA_UNKNOWN),
        (event_row(), {"replay": "off"}, Prediction.SWITCH_BLOCKS),
        (event_row(), {"replay_blocked_integrations": INTAKE}, Prediction.SWITCH_BLOCKS),
        (event_row(), {"mode": "hold"}, Prediction.SWITCH_BLOCKS),
        (event_row(), {"mode": "route_only"}, Prediction.WOULD_SEND),
        # actions
        (dead(expires_at_ms=NOON_MS), {}, Prediction.EXPIRED),
        (dead(), {"known": None}, Prediction.SCHEMA_UNKNOWN),
        (dead(action=action(kind="gone")), {}, Prediction.SCHEMA_UNKNOWN),
        (dead(), {"unknown": "gone"}, Prediction.SCHEMA_UNKNOWN),
        (dead(status=Status.FAILED, failure_code="SUPPRESSED"), {}, Prediction.SUPPRESSED),
        (
            dead(status=Status.FAILED, failure_code="SUPPRESSED"),
            {"asked_for": frozenset(["SUPPRESSED"])},
            Prediction.WOULD_SEND,
        ),
        (dead(), {"tenant/acme/replay": "off"}, Prediction.SWITCH_BLOCKS),
        (dead(), {"replay_blocked_integrations": "helpdesk"}, Prediction.SWITCH_BLOCKS),
        (dead(), {"replay_blocked_integrations": "email"}, Prediction.WOULD_SEND),
        (dead(), {"disabled_integrations": "all"}, Prediction.SWITCH_BLOCKS),
        (dead(), {"limits/helpdesk": "0"}, Prediction.SWITCH_BLOCKS),
        (dead(), {"mode": "hold"}, Prediction.SWITCH_BLOCKS),
        (dead(), {"state": IntegrationState("helpdesk", Health.HARD_DOWN)}, Prediction.HEALTH_BLOCKS),
        (dead(), {"state": IntegrationState("helpdesk", Health.DEGRADED)}, Prediction.WOULD_SEND),
        (dead(), {"state": IntegrationState("helpdesk", paused_until_ms=NOON_MS + 5)}, Prediction.WOULD_SEND),
        (dead(decision_mode=Mode.SHADOW), {}, Prediction.SUPPRESSED),
        # what may have happened
        (unclear("push"), {}, Prediction.UNKNOWN),
        (unclear("push", failure_code="OUTCOME_UNKNOWN", status=Status.FAILED), {}, Prediction.UNKNOWN),
        (unclear("reply", failure_code="OUTCOME_UNKNOWN", status=Status.FAILED), {}, Prediction.UNKNOWN),
        (unclear("reply"), {}, Prediction.WOULD_CHECK),
        (unclear("reply", sent_ms=NOON_MS - 5), {}, Prediction.WOULD_CHECK),
        (unclear("create"), {}, Prediction.WOULD_CHECK),
        (unclear("create", sent_ms=NOON_MS - DAY_MS), {}, Prediction.UNKNOWN),
        (unclear("create", stored_errors=2), {}, Prediction.UNKNOWN),
        (unclear("reply"), {"look_only": True}, Prediction.WOULD_CHECK),
        (unclear("reply", sent_ms=NOON_MS - 5), {"look_only": True}, Prediction.UNKNOWN),
        (unclear("create"), {"look_only": True}, Prediction.UNKNOWN),
    ],
)
def test_what_would_become_of_an_item_is_said_of_each_000_29_001_46_004_15_004_20(
    subject: Row, about: dict[str, Any], prediction: Prediction
) -> None:
    told = predict(subject, seen(**about))
    assert told.prediction is prediction, told
    assert told.why or prediction is Prediction.WOULD_SEND


@pytest.mark.parametrize(
    ("about", "prediction"),
    [
        ({}, Prediction.WOULD_SEND),
        ({"auto_reply": "off"}, Prediction.SUPPRESSED),
        ({"mode": "route_only"}, Prediction.SUPPRESSED),
        ({"standing": Standing.SUPPRESSED}, Prediction.SUPPRESSED),
        ({"standing": Standing.NO_CONSENT}, Prediction.SUPPRESSED),
        ({"standing": Standing.UNKNOWN}, Prediction.SWITCH_BLOCKS),
    ],
)
def test_what_a_customer_would_see_is_asked_about_as_before_each_send(
    about: dict[str, Any], prediction: Prediction
) -> None:
    reply = action("reply", kind="reply", repeat=Repeat.LOOKUP, customer_visible=True, recipient="r1")
    assert predict(dead("reply", action=reply), seen(**about)).prediction is prediction


def test_a_reply_may_be_replayed_by_a_person_for_half_an_hour() -> None:
    reply = action("reply", kind="reply", repeat=Repeat.LOOKUP, customer_visible=True, expires_seconds=15 * 60)
    late = dead("reply", action=reply, received_at_ms=NOON_MS - 29 * 60_000, expires_at_ms=NOON_MS - 14 * 60_000)
    assert predict(late, seen()).prediction is Prediction.WOULD_SEND
    assert predict(late, seen(now_ms=NOON_MS + 60_000)).prediction is Prediction.EXPIRED


@pytest.mark.parametrize(
    ("subject", "about", "calls"),
    [
        (dead(), {}, 1),
        (of_kind("assign"), {}, 2),
        (unclear("reply"), {}, 2),
        (unclear("reply"), {"look_only": True}, 1),
        (unclear("create"), {}, 1),
        (event_row(), {}, 3),
    ],
)
def test_a_plan_reckons_with_every_call_that_its_provider_will_count(
    subject: Row, about: dict[str, Any], calls: int
) -> None:
    assert predict(subject, seen(**about)).calls == calls


def test_an_action_on_another_way_is_judged_by_that_way() -> None:
    sms = Integration("sms", {"sms.send": KindRules("sms.send", Repeat.BLIND)})
    hopped = dead(integration_id="sms", hop=1, hop_kind="sms.send", hop_repeat="blind")
    told = predict(hopped, seen(known=sms, disabled_integrations="sms"))
    assert (told.prediction, told.why) == (Prediction.SWITCH_BLOCKS, "sms is disabled")


# ---------------------------------------------------------------------------------------------------------------- plan


def item(name: str, prediction: Prediction = Prediction.WOULD_SEND, **fields: Any) -> PlanItem:
    return PlanItem(
        **{"recovery_id": name, "version": 1, "integration": "helpdesk", "prediction": prediction, **fields}
    )


def test_the_limit_counts_what_can_be_replayed_and_takes_the_oldest_events_first_001_38() -> None:
    judged = [
        (NOON_MS - 1, item("b")),
        (NOON_MS - 2, item("c", Prediction.WOULD_CHECK)),
        (NOON_MS - 3, item("d", Prediction.UNKNOWN)),
        (NOON_MS, item("a")),
    ]
    made = rules.plan(judged, 2, look_only=False)
    assert [one.recovery_id for one in made.going] == ["c", "b"]
    assert [(one.recovery_id, one.prediction) for one in made.others] == [
        ("d", Prediction.UNKNOWN),
        ("a", Prediction.OVER_CAP),
    ]
    assert made.counts == {"over_cap": 1, "unknown": 1, "would_check": 1, "would_send": 1}
    assert made.samples["unknown"] == (("d", ""),)
    assert made.integrations == ("helpdesk",)


def test_a_job_that_only_looks_takes_only_what_may_have_happened() -> None:
    judged = [(1, item("a")), (2, item("b", Prediction.WOULD_CHECK))]
    made = rules.plan(judged, 9, look_only=True)
    assert ([one.recovery_id for one in made.going], [one.recovery_id for one in made.others]) == (["b"], ["a"])


def test_a_few_of_each_prediction_are_shown() -> None:
    made = rules.plan([(n, item(f"{n}")) for n in range(9)], 99, look_only=False)
    assert len(made.samples["would_send"]) == rules.SAMPLES


def test_the_hash_stands_for_the_items_their_versions_and_what_was_said_of_them() -> None:
    hashes = {
        Plan(going, others).plan_hash
        for going, others in (
            ((item("a"), item("b")), ()),
            ((item("b"), item("a")), ()),
            ((item("a"),), (item("b"),)),
            ((item("a", version=2), item("b")), ()),
            ((item("a", Prediction.WOULD_CHECK), item("b")), ()),
            ((item("a", calls=2), item("b")), ()),
            ((replace(item("a"), integration="email"), item("b")), ()),
        )
    }
    assert len(hashes) == 7
    assert Plan((item("a"),), (item("b"),)).plan_hash == Plan((item("a"),), ()).plan_hash


def test_a_plan_is_read_back_as_it_was() -> None:
    made = Plan((item("a", calls=2),), (item("b", Prediction.NOT_FOUND, why="nowhere", version=0),))
    assert Plan.from_json(made.to_json()) == made
    assert Plan.proven(made.to_json(), made.plan_hash) == made


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"going":1,"others":[]}',
        '{"going":[["a",1,"helpdesk","would_fly",1,""]],"others":[]}',
        Plan((), ()).to_json(),
        Plan((item("a"), item("b")), ()).to_json(),
        Plan((replace(item("a"), version=2),), ()).to_json(),
    ],
)
def test_nobody_goes_by_a_plan_that_is_not_the_one_that_was_looked_at(text: str) -> None:
    with pytest.raises(PlanLost):
        Plan.proven(text, Plan((item("a"),), ()).plan_hash)


def test_an_item_that_is_not_what_it_was_is_told() -> None:
    assert rules.moved([item("a"), item("b"), item("c")], {"a": 1, "b": 2}) == ["b", "c"]


# ---------------------------------------------------------------------------------------------------------------- pace


def test_items_go_at_the_pace_of_their_integration_and_no_more_than_fit_the_window() -> None:
    slow = Limit(4_000, 0)
    items = [item("a"), item("b", calls=2), item("c", integration="email"), item("d"), item("e")]
    chosen = rules.paced(items, {"helpdesk": slow, "email": None}, 15_999)
    assert [(one.recovery_id, wait_ms) for one, wait_ms in chosen] == [("a", 0), ("b", 4_000), ("c", 0)]
    assert len(rules.paced(items, {"helpdesk": slow}, 16_000)) == 4
    assert len(rules.paced(items, {"helpdesk": slow}, 0)) == 1
    assert rules.takes_ms(items, {"helpdesk": slow}) == 20_000
    assert rules.takes_ms([], {}) == 0
    assert rules.paced([], {}, 1) == []


# -------------------------------------------------------------------------------------------------------------- ground


def ground(health: Health = Health.HEALTHY, named: Mapping[str, str] | None = None, **values: str) -> Ground:
    states = {"helpdesk": IntegrationState("helpdesk", health)}
    return ground_of(
        {**LIVE_SWITCHES, "limits/helpdesk": "1", **(named or {}), **values}, states, ("helpdesk", "intake"), NOON_MS
    )


@pytest.mark.parametrize(
    ("then", "now", "why"),
    [
        (ground(), ground(), ""),
        (ground(), ground(Health.DEGRADED), "the health of helpdesk went from healthy to degraded"),
        (ground(Health.DEGRADED), ground(), ""),
        (ground(Health.DEGRADED), ground(Health.HARD_DOWN), "the health of helpdesk went from degraded to hard_down"),
        (ground(), ground(mode="hold"), "the switch mode went from live to hold"),
        (ground(), ground(auto_reply=" on "), ""),
        (ground(), ground(disabled_integrations="email,sms"), ""),
        (
            ground(),
            ground(disabled_integrations="email,helpdesk"),
            "the switch disabled_integrations went from none to",
        ),
        (ground(), ground(disabled_integrations="all"), "the switch disabled_integrations went from none to helpdesk"),
        (ground(), ground(named={"limits/helpdesk": "0.5"}), ""),
        (ground(), ground(named={"limits/helpdesk": "0"}), "the switch limits/helpdesk went from over 0 to 0"),
        (ground(), ground(named={"limits/email": "0"}), ""),
        (
            ground(),
            ground(named={"flow/support/replay": "off"}),
            "the switch flow/support/replay went from none to off",
        ),
        (ground(), ground(classifier="rules"), ""),
    ],
)
def test_a_job_stands_on_the_health_and_the_switches_that_matter_to_it(then: Ground, now: Ground, why: str) -> None:
    assert ground_lost(then, now).startswith(why)
    assert bool(ground_lost(then, now)) is bool(why)


# ----------------------------------------------------------------------------------------------------------------- rows


def replayed(subject: Row | None = None, **fields: Any) -> Row:
    sound: dict[str, Any] = {"actor": "ada", "reason": "back", "request_id": "r", "job_id": "j", "scale": 1.0}
    return replay(dead() if subject is None else subject, NOON_MS, **{**sound, **fields}).after


def test_what_may_have_happened_is_replayed_only_where_the_attempt_finds_out_first() -> None:
    subject = unclear("reply")
    assert why_not_replayable(subject, NOON_MS) == "effect_unknown"
    assert why_not_replayable(subject, NOON_MS, is_verified=True) is None
    with pytest.raises(IllegalTransition):
        replayed(subject)
    after = replayed(subject, is_verified=True, look_only=True, incident_id="INC-7", not_before_ms=NOON_MS + 9)
    assert (after.status, after.effect, after.verify_only) == (Status.REPLAYED, Effect.UNKNOWN, True)
    assert (after.incident_id, after.not_before_ms, after.due_at_ms) == ("INC-7", NOON_MS + 9, NOON_MS + 9 + 180_000)


def test_a_row_that_nobody_has_tried_is_back_where_it_was_and_its_hint_is_out_of_date() -> None:
    before = dead(status=Status.FAILED, failure_code="HTTP_404")
    under_way = replayed(before, not_before_ms=NOON_MS + 60_000)
    change = take_back(under_way, NOON_MS + 1, actor="ada", reason="5 in a row failed")
    after = change.after
    assert (after.status, after.result, after.version) == (Status.FAILED, "taken_back", under_way.version + 1)
    assert not after.is_open
    assert (after.due_at_ms, after.not_before_ms, after.failure_code) == (0, 0, "HTTP_404")
    assert (change.audit[0].reason, change.audit[0].job_id) == ("5 in a row failed", "j")
    assert why_not_replayable(after, NOON_MS) is None


@pytest.mark.parametrize(
    ("subject", "may"),
    [
        (replayed(), True),
        (replayed(unclear("reply"), is_verified=True), True),
        (replace(replayed(), job_id="another"), False),
        (dead(), False),
        (replace(replayed(), result="succeeded"), False),
        (claim(replayed(), NOON_MS, NOON_MS + 9, "r").after, False),
        (
            defer(
                claim(replayed(), NOON_MS, NOON_MS + 9, "r").after,
                WaitingFor.LIMITER,
                "full",
                NOON_MS + 5,
                NOON_MS,
                uncount=True,
            ).after,
            True,
        ),
        (replace(replayed(unclear("reply"), is_verified=True), first_attempt_at_ms=NOON_MS), False),
    ],
)
def test_only_what_has_surely_not_been_sent_is_taken_back(subject: Row, may: bool) -> None:
    assert may_take_back(subject, "j") is may
    if not may and subject.job_id == "j":
        with pytest.raises(IllegalTransition):
            take_back(subject, NOON_MS, actor="ada", reason="x")


def test_a_processed_event_has_left_what_its_ledger_item_says_is_in_the_recovery_queue() -> None:
    one, known = event_row(), ledger(tag=ActionStatus.RECOVERY, note=ActionStatus.DONE)
    its = replace(known, decision=replace(known.decision, actions=(action("tag"), action("note"))))
    assert rules.unfinished(one, its) == [row("tag").recovery_id]
    assert rules.unfinished(one, None) == []
    assert rules.unfinished(one, replace(its, epoch_ms=1)) == []


@pytest.mark.parametrize("text", ["", "[]", "1", '{"colour":["red"]}'])
def test_a_filter_that_was_not_written_here_is_said_to_be_none(text: str) -> None:
    with pytest.raises(rules.UnknownFilter):
        Filter.from_json(text)
