"""Fallback through the worker and the sweeper: what is stored, what is taken, who gets what, and how often.

000.3 to 000.10, 000.14 to 000.21, 001.49, 002.27, 002.28.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from functions.core.attempt import Effect
from functions.core.audit import AuditType
from functions.core.decision import Repeat
from functions.core.failure import (
    ClassifierUnavailable,
    Failure,
    FailureClass,
    NetworkCause,
    failure_of_network,
    failure_of_status,
)
from functions.core.fallback import MAX_HOPS
from functions.core.gate import Health, IntegrationState, WaitingFor
from functions.core.integration import KindRules, Rate
from functions.core.ledger import ActionMark, ActionStatus
from functions.core.person import OPTED_OUT_THERE
from functions.core.ports import Hint
from functions.core.recovery import Status, replay
from tests.channels_world import BY_HAND, EMAIL, ChannelsWorld, action, always, severities
from tests.rates import most_over
from tests.unit.builders import ROLE_REFUSED
from tests.worker_world import FLOW, Died

REFUSED = failure_of_network(NetworkCause.CONNECT_REFUSED)
RESET = failure_of_network(NetworkCause.RESET)
REJECTED = failure_of_status(422)
HTTP_503 = failure_of_status(503)
CRITICAL = "invite.created"


# -------------------------------------------------------------------------------------- while it is new: the first pass


def test_a_hop_is_stored_before_it_is_taken() -> None:
    world = ChannelsWorld()
    world.health(email=Health.DEGRADED)
    event = world.begin()
    stored: list[ActionMark] = []
    world.faults.on_before = lambda op: stored.append(world.mark(event)) if op == "sms.send" else None
    world.deliver()
    assert stored == [ActionMark(ActionStatus.TODO, hop=1)]
    assert world.mark(event) == ActionMark(ActionStatus.DONE, "id-tell", hop=1)
    assert (world.told(event), world.others["email"].asked) == ({"sms": 1}, 0)
    assert world.row(event) is None


def test_a_hop_taken_without_a_row_is_counted_and_in_the_audit_with_its_row_of_the_matrix() -> None:
    """000.5"""
    world = ChannelsWorld()
    world.health(email=Health.DEGRADED)
    world.begin()
    world.deliver()
    [told] = world.tables.events
    assert (told.event_type, told.severity.value) == (AuditType.FAILURE_CONTAINED, "warning")
    assert told.containment_action == "messages_fallback: sms.send takes over"
    assert world.quiet.counts["fallback_taken"] == 1


def test_a_takeover_goes_on_from_the_stored_hop_and_not_back() -> None:
    world = ChannelsWorld()
    world.health(email=Health.DEGRADED)
    event = world.begin()

    def die(op: str) -> None:
        if op == "ledger.mark" and not world.deaths:
            raise Died(op)

    world.faults.on_after = die
    world.deliver()
    assert world.deaths == 1
    assert world.mark(event) == ActionMark(ActionStatus.TODO, hop=1)
    world.health(email=Health.HEALTHY)
    world.run_until_quiet()
    assert (world.told(event), world.others["email"].asked) == ({"sms": 1}, 0)
    assert world.mark(event).hop == 1


def test_a_death_before_the_hop_is_stored_leaves_the_way_open() -> None:
    world = ChannelsWorld()
    world.health(email=Health.DEGRADED)
    event = world.begin()

    def die(op: str) -> None:
        if op == "ledger.mark" and not world.deaths:
            raise Died(op)

    world.faults.on_before = die
    world.deliver()
    assert world.mark(event).hop == 0
    world.run_until_quiet()
    world.check_told_once(event)


def test_a_takeover_that_may_meet_a_sent_email_does_not_turn_to_the_other_channel() -> None:
    """The owner died in its send; by then the channel is degraded. Only a lookup may say more."""
    world = ChannelsWorld()
    event = world.begin()

    def die(op: str) -> None:
        if op == "email.send" and not world.deaths:
            raise Died(op)

    world.faults.on_after = die
    world.deliver()
    world.health(email=Health.DEGRADED)
    world.run_until_quiet()
    assert (world.told(event), world.others["sms"].asked) == ({"email": 1}, 0)


def test_a_blind_hop_is_marked_as_tried_on_its_own_way() -> None:
    world = ChannelsWorld()
    blind = KindRules("sms.send", Repeat.BLIND)
    world.integrations["sms"] = replace(world.integrations["sms"], kinds={"sms.send": blind})
    world.fallbacks = replace(world.fallbacks, integrations=world.integrations)
    world.health(email=Health.DEGRADED)
    event = world.begin()

    def die(op: str) -> None:
        if op == "sms.send" and not world.deaths:
            raise Died(op)

    world.faults.on_after = die
    world.deliver()
    assert world.mark(event) == ActionMark(ActionStatus.TRYING, hop=1)
    world.run_until_quiet()
    row = world.row(event)
    assert row is not None
    assert (row.status, row.failure_code, row.effect) == (Status.FAILED, "OUTCOME_UNKNOWN", Effect.UNKNOWN)
    assert (row.integration_id, row.hop, row.hops) == ("sms", 1, ("email:taken_over",))
    assert (world.told(event), world.others["email"].asked) == ({"sms": 1}, 0)


def test_without_consent_a_degraded_channel_is_used_all_the_same() -> None:
    world = ChannelsWorld()
    world.consents_to("email")
    world.health(email=Health.DEGRADED)
    event = world.begin()
    world.deliver()
    assert world.told(event) == {"email": 1}


def test_what_a_switch_stops_is_not_sent_by_another_channel() -> None:
    world = ChannelsWorld(EMAIL, BY_HAND, event_name=CRITICAL)
    world.health(email=Health.HARD_DOWN)
    world.switches.values["auto_reply"] = "off"
    event = world.begin()
    world.run_until_quiet()
    assert (world.told(event), world.mark(event).status) == ({}, ActionStatus.SUPPRESSED)
    assert "fallback_taken" not in world.quiet.counts
    assert world.quiet.counts["people_needed"] == 1  # it must arrive all the same: a person does it


def test_a_channel_that_an_operator_has_disabled_is_no_way_out() -> None:
    world = ChannelsWorld()
    world.health(email=Health.DEGRADED)
    world.switches.values["disabled_integrations"] = "sms"
    event = world.begin()
    world.deliver()
    assert world.told(event) == {"email": 1}


# ------------------------------------------------------------------------------------------ after its attempts: the row


def test_three_definite_failures_and_then_the_other_channel_with_attempts_of_its_own() -> None:
    """000.7, 000.8"""
    world = ChannelsWorld()
    world.others["email"].answers.append(always(REFUSED))
    world.others["sms"].answers.append(always(REFUSED, 2))
    event = world.begin()
    world.run_until_quiet()
    row = world.row(event)
    assert row is not None
    assert (world.others["email"].asked, world.others["sms"].asked) == (3, 3)
    assert (row.status, row.integration_id, row.hop) == (Status.SUCCEEDED, "sms", 1)
    assert row.hops == ("email:CONNECTION_REFUSED",)
    assert (row.hop_kind, row.attempt_count) == ("sms.send", 3)
    assert row.recovery_id == world.tables.rows[row.recovery_id].recovery_id
    assert world.told(event) == {"sms": 1}
    [told] = [one for one in world.tables.events if "takes over" in one.containment_action]
    assert told.containment_action == "messages_fallback: sms.send takes over"
    assert "CONNECTION_REFUSED" in told.error


def test_an_email_that_our_role_may_not_send_goes_by_the_other_channel_after_its_attempts() -> None:
    world = ChannelsWorld()
    world.others["email"].answers.append(always(ROLE_REFUSED))
    event = world.begin()
    world.run_until_quiet()
    row = world.row(event)
    assert row is not None
    assert (row.hops, row.status) == (("email:ROLE_NOT_PERMITTED",), Status.SUCCEEDED)
    assert (world.others["email"].asked, world.told(event)) == (3, {"sms": 1})


@pytest.mark.parametrize("refusals", [2, 3])
def test_a_permission_that_is_given_in_time_costs_nothing_and_otherwise_a_person_has_the_item(refusals: int) -> None:
    """001.43: it waits for no credential, which would be silence until it expires."""
    world = ChannelsWorld()
    world.consents_to("email")
    world.others["email"].answers.append(always(ROLE_REFUSED, refusals))
    event = world.begin()
    world.run_until_quiet()
    row = world.row(event)
    assert row is not None
    assert world.others["email"].asked == 3
    if refusals == 2:
        assert (row.status, world.told(event)) == (Status.SUCCEEDED, {"email": 1})
    else:
        assert (row.status, row.failure_code, row.root_cause) == (Status.DLQ, "ROLE_NOT_PERMITTED", "code_defect")
        assert world.told(event) == {}


def test_a_rejected_address_goes_to_the_other_channel_without_more_attempts() -> None:
    world = ChannelsWorld()
    world.others["email"].answers.append(always(REJECTED))
    event = world.begin()
    world.run_until_quiet()
    row = world.row(event)
    assert row is not None
    assert (row.hops, row.status) == (("email:HTTP_422",), Status.SUCCEEDED)
    assert (world.others["email"].asked, world.told(event)) == (1, {"sms": 1})


@pytest.mark.parametrize("failure", [RESET, HTTP_503], ids=["timeout", "503"])
def test_an_unknown_outcome_is_looked_up_and_never_answered_by_another_channel(failure: Failure) -> None:
    """000.8: the message was sent, only its answer was lost."""
    world = ChannelsWorld()
    world.others["email"].answers.append(always(failure))
    event = world.begin()
    world.run_until_quiet()
    assert (world.told(event), world.others["sms"].asked) == ({"email": 1}, 0)


def test_an_unknown_outcome_may_go_on_once_it_is_verified_that_nothing_was_sent() -> None:
    world = ChannelsWorld()
    world.others["email"].answers.append(always(HTTP_503))
    world.others["email"].acts_on_failure = False
    event = world.begin()
    world.run_until_quiet()
    row = world.row(event)
    assert row is not None
    assert (row.status, row.hops, world.told(event)) == (Status.SUCCEEDED, ("email:HTTP_503",), {"sms": 1})
    calls = [op for op in world.faults.calls if op in ("email.send", "email.look_up", "sms.send")]
    assert calls == ["email.send", *["email.look_up", "email.send"] * 2, "email.look_up", "sms.send"]


def test_an_unknown_outcome_that_nothing_can_tell_is_for_a_person_and_for_no_other_channel() -> None:
    world = ChannelsWorld()
    blind = KindRules("email.send", Repeat.BLIND)
    world.integrations["email"] = replace(world.integrations["email"], kinds={"email.send": blind})
    world.fallbacks = replace(world.fallbacks, integrations=world.integrations)
    world.actions = (replace(EMAIL, repeat=Repeat.BLIND),)
    world.others["email"].answers.append(always(RESET))
    event = world.begin()
    world.run_until_quiet()
    row = world.row(event)
    assert row is not None
    assert (row.failure_code, row.hop, world.others["sms"].asked) == ("OUTCOME_UNKNOWN", 0, 0)


@pytest.mark.parametrize("event_name", ["message.created", CRITICAL])
@pytest.mark.parametrize(
    ("rules", "failures", "code"),
    [
        (KindRules("email.send", Repeat.BLIND), [REFUSED, RESET], "OUTCOME_UNKNOWN"),
        (KindRules("email.send", Repeat.KEYED, key_window_seconds=86_400), [RESET], "CONNECTION_RESET"),
        (
            KindRules("email.send", Repeat.KEYED, key_window_seconds=86_400),
            [RESET, REJECTED],
            "HTTP_422",
        ),
    ],
    ids=["blind at the second attempt", "keyed, no answer at all", "keyed, no answer and then rejected"],
)
def test_a_row_that_died_with_an_unknown_outcome_is_for_a_person_and_for_no_other_channel(
    rules: KindRules, failures: list[Failure], code: str, event_name: str
) -> None:
    """000.8"""
    world = ChannelsWorld(replace(EMAIL, repeat=rules.repeat), event_name=event_name)
    world.integrations["email"] = replace(world.integrations["email"], kinds={"email.send": rules})
    world.fallbacks = replace(world.fallbacks, integrations=world.integrations)
    world.others["email"].answers += [*(always(one, 1) for one in failures[:-1]), always(failures[-1])]
    event = world.begin()
    world.run_until_quiet()
    row = world.row(event)
    assert row is not None
    assert (row.status in (Status.FAILED, Status.DLQ), row.failure_code, row.effect) == (True, code, Effect.UNKNOWN)
    assert (row.hop, world.others["sms"].asked, len(world.told(event))) == (0, 0, 1)
    assert "fallback_taken" not in world.quiet.counts
    assert world.quiet.counts["people_needed"] == 1  # only a person can find out, whether or not it had to arrive


def test_without_consent_the_item_is_dead_and_stays_where_it_is() -> None:
    world = ChannelsWorld()
    world.consents_to("email")
    world.others["email"].answers.append(always(REFUSED))
    event = world.begin()
    world.run_until_quiet()
    row = world.row(event)
    assert row is not None
    assert (row.status, row.integration_id, row.hop) == (Status.DLQ, "email", 0)
    assert (world.told(event), world.others["sms"].asked) == ({}, 0)
    assert "critical" not in severities(world).values()


@pytest.mark.parametrize("event_name", ["message.created", CRITICAL])
def test_who_told_one_channel_to_stop_is_told_by_no_other_though_that_was_never_stored(event_name: str) -> None:
    """003.20: the table takes no write for as long as the attempts last."""
    world = ChannelsWorld(action("tell", "sms.send", expires_seconds=7 * 86_400), BY_HAND, event_name=event_name)
    stop = Failure(FailureClass.DATA_ERROR, OPTED_OUT_THERE, "they said stop", False, False)
    world.others["sms"].answers.append(always(stop))
    world.faults.fail("recipients.store", times=1_000)
    event = world.begin()
    world.run_until_quiet()
    assert (world.told(event), world.others["email"].asked, world.others["sms"].asked) == ({}, 0, 3)
    row = world.row(event)
    assert row is not None
    assert (row.status, row.hop) == (Status.DLQ, 0)
    assert bool(world.quiet.counts.get("people_needed")) is (event_name == CRITICAL)


def test_nor_where_their_channel_goes_down_before_that_could_be_stored() -> None:
    world = ChannelsWorld(action("tell", "sms.send", expires_seconds=7 * 86_400), event_name=CRITICAL)
    stop = Failure(FailureClass.DATA_ERROR, OPTED_OUT_THERE, "they said stop", False, False)
    world.others["sms"].answers.append(always(stop))
    world.faults.fail("recipients.store", times=1_000)
    event = world.begin()
    world.deliver()
    world.health(sms=Health.HARD_DOWN)
    world.run_until_quiet()
    row = world.row(event)
    assert row is not None
    assert (world.told(event), row.failure_code) == ({}, "MANUAL_OUTREACH")


def test_nobody_is_asked_twice_on_the_same_channel_after_both_have_failed() -> None:
    """Three and three calls, then the DLQ: no channel is gone back to."""
    world = ChannelsWorld()
    world.others["email"].answers.append(always(REFUSED))
    world.others["sms"].answers.append(always(REFUSED))
    event = world.begin()
    world.run_until_quiet()
    row = world.row(event)
    assert row is not None
    assert (row.status, row.integration_id, row.hop) == (Status.DLQ, "sms", 1)
    assert (world.others["email"].asked, world.others["sms"].asked) == (3, 3)
    assert row.hop <= MAX_HOPS


def test_a_replay_is_one_attempt_on_the_channel_where_it_died() -> None:
    world = ChannelsWorld()
    world.consents_to("email")
    world.others["email"].answers.append(always(REFUSED, 4))
    event = world.begin()
    world.run_until_quiet()
    world.consents_to("email", "sms")
    for wanted in (Status.DLQ, Status.REPLAYED):
        row = world.row(event)
        assert row is not None
        change = replay(row, world.clock.now, actor="ann", reason="x", request_id="q", job_id="", scale=1.0)
        world.tables.rows[row.recovery_id] = change.after
        world.run_until_quiet()
        row = world.row(event)
        assert row is not None
        assert row.status is wanted
    assert (world.told(event), world.others["sms"].asked) == ({"email": 1}, 0)


def test_a_way_that_left_the_matrix_makes_its_row_dead_and_sends_nothing() -> None:
    world = ChannelsWorld()
    world.others["email"].answers.append(always(REFUSED))
    world.others["sms"].answers.append(always(REFUSED))
    event = world.begin()
    world.deliver()
    while (row := world.row(event)) is None or row.hop == 0:
        world.clock.advance(60_000)
        world.sweep()
        world.deliver()
    asked = world.others["sms"].asked
    world.fallbacks = replace(world.fallbacks, rows={})
    world.run_until_quiet()
    row = world.row(event)
    assert row is not None
    assert (row.status, row.failure_code) == (Status.DLQ, "POISONED")
    assert world.others["sms"].asked == asked


# ------------------------------------------------------------------------------------------------- what must arrive


def test_what_must_arrive_goes_by_the_other_channel_at_once_while_its_own_is_down() -> None:
    """000.10"""
    world = ChannelsWorld(event_name=CRITICAL)
    world.health(email=Health.HARD_DOWN)
    event = world.begin()
    world.deliver()
    assert (world.told(event), world.mark(event).hop) == ({"sms": 1}, 1)
    assert world.row(event) is None


def test_what_must_arrive_and_waits_leaves_a_channel_that_has_gone_down() -> None:
    """000.10: its first attempt failed, and before the second one the channel was down."""
    world = ChannelsWorld(event_name=CRITICAL)
    world.others["email"].answers.append(always(REFUSED))
    event = world.begin()
    world.deliver()
    world.health(email=Health.HARD_DOWN)
    world.run_until_quiet(hours=1)
    row = world.row(event)
    assert row is not None
    assert (row.status, row.hops) == (Status.SUCCEEDED, ("email:hard_down",))
    assert (world.others["email"].asked, world.told(event)) == (1, {"sms": 1})


def test_what_may_have_been_sent_waits_though_it_must_arrive_and_its_channel_is_down() -> None:
    world = ChannelsWorld(event_name=CRITICAL)
    world.others["email"].answers.append(always(RESET, 1))
    event = world.begin()
    world.deliver()
    world.health(email=Health.HARD_DOWN)
    for _ in range(30):
        world.clock.advance(60_000)
        world.sweep()
        world.deliver()
    assert world.others["sms"].asked == 0
    world.health(email=Health.HEALTHY)
    world.run_until_quiet()
    assert world.told(event) == {"email": 1}


@pytest.mark.parametrize("left", ["an unclear answer", "a dead worker", "one last look"])
def test_a_hint_that_meets_a_channel_gone_down_finds_what_may_have_been_sent_waiting(left: str) -> None:
    """The hint was under way when the channel went down: what the sweeper made sure of does not hold any more."""
    world = ChannelsWorld(event_name=CRITICAL)
    world.others["email"].answers.append(always(REFUSED, 1))
    event = world.begin()
    world.deliver()
    row = world.row(event)
    assert row is not None
    now_ms = world.clock.now
    known_by: dict[str, dict[str, Any]] = {
        "an unclear answer": {"effect": Effect.UNKNOWN, "last_possible_send_ms": now_ms - 300_000},
        "a dead worker": {"lease_until_ms": now_ms - 1_000},
        "one last look": {"verify_only": True},
    }
    world.tables.rows[row.recovery_id] = replace(row, not_before_ms=now_ms, due_at_ms=now_ms, **known_by[left])
    world.retries.send([Hint(row.recovery_id, row.version)], now_ms)
    world.health(email=Health.HARD_DOWN)
    world.deliver()
    row = world.row(event)
    assert row is not None
    assert (row.waiting_for, row.hop, row.is_open) == (WaitingFor.HEALTH, 0, True)
    assert (row.effect is Effect.UNKNOWN) is (left != "one last look")
    assert (world.others["sms"].asked, world.quiet.counts.get("items_failed", 0)) == (0, 0)


@pytest.mark.parametrize("standing", ["no consent", "both down"])
def test_when_nothing_is_left_a_person_is_asked_and_told_so_loudly(standing: str) -> None:
    """001.49: the row is the list of whom to call, the task at the helpdesk stands in for the message."""
    world = ChannelsWorld(EMAIL, BY_HAND, event_name=CRITICAL)
    if standing == "no consent":
        world.consents_to("email")
    world.health(email=Health.HARD_DOWN)
    world.health(sms=Health.HARD_DOWN if standing == "both down" else Health.HEALTHY)
    event = world.begin()
    world.deliver()
    row = world.row(event)
    assert row is not None
    assert (row.status, row.failure_code, row.effect) == (Status.FAILED, "MANUAL_OUTREACH", Effect.NONE)
    assert severities(world)["messages_down_critical: manual_outreach"] == "critical"
    assert [one.params["tags"] for one in world.others["helpdesk"].sent] == [["call_them"]]
    assert world.quiet.counts["people_needed"] == 1
    world.health(email=Health.HEALTHY)
    world.run_until_quiet()
    assert world.told(event) == {}  # a person has it: the machine does not send it behind their back


def test_what_must_arrive_and_has_no_way_left_finds_out_whether_its_own_channel_is_back() -> None:
    """000.9, 000.10: else two channels that were down once would be left to people for good. One at a time is the
    probe; a person has the others meanwhile, and the probe if it fails.
    """
    world = ChannelsWorld(event_name=CRITICAL)
    for channel in ("email", "sms"):
        world.tables.integrations[channel] = IntegrationState(channel, Health.HARD_DOWN, since_ms=world.clock.now)
    world.others["email"].answers.append(always(REFUSED, 1))
    events = [world.event(str(number), event_name=CRITICAL) for number in range(6)]
    for event in events[:2]:
        world.accept(event)
    world.deliver()
    assert world.others["email"].asked == 1
    for event in events[2:]:
        world.run_until_quiet()
        world.clock.advance(5 * 60_000)
        world.accept(event)
        world.deliver()
    assert world.tables.integrations["email"].health is Health.DEGRADED
    assert [world.told(event) for event in events] == [{}, {}, *[{"email": 1}] * 4]
    assert [row.failure_code for row in world.tables.rows.values()] == ["MANUAL_OUTREACH"] * 2


def test_a_row_that_must_arrive_is_handed_over_when_the_last_channel_goes_down() -> None:
    """001.49"""
    world = ChannelsWorld(EMAIL, BY_HAND, event_name=CRITICAL)
    world.consents_to("email")
    world.others["email"].answers.append(always(REFUSED))
    event = world.begin()
    world.deliver()
    world.health(email=Health.HARD_DOWN)
    world.run_until_quiet(hours=1)
    row = world.row(event)
    assert row is not None
    assert (row.status, row.failure_code, row.stand_in) == (Status.FAILED, "MANUAL_OUTREACH", None)
    assert severities(world)["messages_down_critical: manual_outreach"] == "critical"
    assert [one.params["tags"] for one in world.others["helpdesk"].sent] == [["call_them"]]


def test_what_must_arrive_and_failed_for_good_is_dead_and_told_so_loudly() -> None:
    world = ChannelsWorld(EMAIL, BY_HAND, event_name=CRITICAL)
    world.others["email"].answers.append(always(REFUSED))
    world.others["sms"].answers.append(always(REFUSED))
    event = world.begin()
    world.run_until_quiet()
    row = world.row(event)
    assert row is not None
    assert (row.status, row.failure_code) == (Status.DLQ, "CONNECTION_REFUSED")
    [told] = [one for one in world.tables.events if one.severity.value == "critical"]
    assert (told.event_type, told.containment_action) == (
        AuditType.RETRY_EXHAUSTED,
        "messages_down_critical: manual_outreach",
    )
    assert [one.params["tags"] for one in world.others["helpdesk"].sent] == [["call_them"]]


def test_what_must_arrive_and_is_rejected_at_once_is_handed_over_in_the_first_pass() -> None:
    world = ChannelsWorld(EMAIL, BY_HAND, event_name=CRITICAL)
    world.consents_to("email")
    world.others["email"].answers.append(always(REJECTED))
    event = world.begin()
    world.deliver()
    row = world.row(event)
    assert row is not None
    assert (row.status, row.failure_code, world.mark(event).status) == (
        Status.FAILED,
        "HTTP_422",
        ActionStatus.SUPPRESSED,
    )
    assert {one.severity.value for one in world.tables.events if one.affected_id == row.recovery_id} == {"critical"}
    assert len(world.others["helpdesk"].sent) == 1


def test_a_slot_of_the_channel_that_was_left_is_none_of_the_other() -> None:
    """002.25: else all that waits for a fast channel would come to a slow one at the fast one's rate."""
    world = ChannelsWorld(event_name=CRITICAL)
    slow = Rate(0.1, 1)
    world.integrations["email"] = replace(world.integrations["email"], rate=Rate(1.0, 1))
    world.integrations["sms"] = replace(world.integrations["sms"], rate=slow)
    world.fallbacks = replace(world.fallbacks, integrations=world.integrations)
    world.automatic_per_hour = {FLOW: 1_000}
    sent_at_ms: list[int] = []
    world.faults.on_before = lambda op: sent_at_ms.append(world.clock.now) if op == "sms.send" else None
    for number in range(200):
        world.accept(world.event(str(number), event_name=CRITICAL))
    for second in range(20 * 60):
        while world.deliver():
            pass
        if second % 60 == 0:
            world.sweep()
        if second == 2 * 60:
            world.health(email=Health.HARD_DOWN)
        world.clock.advance(1_000)
    assert len(sent_at_ms) > 50
    assert float(most_over(sent_at_ms, slow)) <= 0.2  # visibility and delays are whole seconds


def test_a_standing_that_cannot_be_read_hands_nothing_over() -> None:
    world = ChannelsWorld(event_name=CRITICAL)
    world.health(email=Health.HARD_DOWN)
    world.unreadable = True
    event = world.begin()
    world.deliver()
    row = world.row(event)
    assert row is not None
    assert (row.status, row.waiting_for) == (Status.PENDING, WaitingFor.SWITCH)
    world.unreadable = False
    world.run_until_quiet(hours=1)
    assert world.told(event) == {"sms": 1}


def test_what_need_not_arrive_waits_for_its_channel_without_an_attempt() -> None:
    """000.9"""
    world = ChannelsWorld()
    world.health(email=Health.HARD_DOWN)
    event = world.begin()
    for _ in range(10):
        world.deliver()
        world.clock.advance(60_000)
        world.sweep()
    row = world.row(event)
    assert row is not None
    assert (row.status, row.attempt_count, world.others["sms"].asked) == (Status.PENDING, 0, 0)
    world.health(email=Health.HEALTHY)
    world.run_until_quiet()
    assert world.told(event) == {"email": 1}


# ---------------------------------------------------------------------------------------------------------- substitutes


def test_a_document_that_ocr_cannot_read_goes_to_the_parser_and_then_to_a_person() -> None:
    """000.16, 000.17"""
    world = ChannelsWorld(action("read", "ocr.parse", params={"document": "d1", "conversation": "c7"}))
    world.others["ocr"].answers.append(always(REFUSED))
    world.others["parser"].answers.append(always(REJECTED))
    event = world.begin()
    world.run_until_quiet()
    row = world.row(event, "read")
    assert row is not None
    assert (row.status, row.hop, row.integration_id) == (Status.SUCCEEDED, 2, "helpdesk")
    assert row.hops == ("ocr:CONNECTION_REFUSED", "parser:HTTP_422")
    [task] = world.others["helpdesk"].sent
    assert (task.target, task.params["tags"]) == ("c7", ["needs_field_confirmation"])
    assert (world.others["ocr"].asked, world.others["parser"].asked) == (5, 1)


def test_while_ocr_is_down_new_documents_go_to_the_parser() -> None:
    """000.16"""
    world = ChannelsWorld(action("read", "ocr.parse", params={"document": "d1"}))
    world.health(ocr=Health.HARD_DOWN)
    event = world.begin()
    world.deliver()
    assert (world.others["ocr"].asked, world.others["parser"].sent[0].params) == (0, {"document": "d1"})
    assert world.mark(event, "read") == ActionMark(ActionStatus.DONE, "id-read", hop=1)


def test_though_every_new_document_leaves_ocr_while_it_is_down_its_return_is_found_out() -> None:
    """000.9, 000.16: one at a time stays to be the probe; of a batch that all might be, the others leave at once."""
    world = ChannelsWorld(action("read", "ocr.parse", params={"document": "d1"}))
    world.tables.integrations["ocr"] = IntegrationState("ocr", Health.HARD_DOWN, since_ms=world.clock.now)
    first = [world.event(str(number)) for number in range(10)]
    for event in first:
        world.accept(event)
    world.deliver()
    assert (world.others["ocr"].asked, world.others["parser"].asked) == (1, 9)
    for number in range(10, 13):
        world.clock.advance(30_000)
        world.accept(world.event(str(number)))
        world.deliver()
    assert world.tables.integrations["ocr"].health is Health.DEGRADED
    assert world.tables.rows == {}


def test_a_document_that_was_a_probe_in_vain_goes_to_the_parser_when_it_is_seen_again() -> None:
    world = ChannelsWorld(action("read", "ocr.parse", params={"document": "d1"}))
    world.tables.integrations["ocr"] = IntegrationState("ocr", Health.HARD_DOWN, since_ms=world.clock.now)
    world.others["ocr"].answers.append(always(HTTP_503))
    event = world.begin()
    world.run_until_quiet()
    row = world.row(event, "read")
    assert row is not None
    assert (row.status, row.integration_id, world.others["ocr"].asked) == (Status.SUCCEEDED, "parser", 1)
    assert row.created_at_ms + 6 * 60_000 > row.updated_at_ms


def test_while_the_analysis_is_down_the_packet_is_published_and_the_analysis_done_later() -> None:
    """000.20, 000.21"""
    world = ChannelsWorld(action("summary", "ai.summary", params={"packet": "p1"}))
    world.health(ai=Health.HARD_DOWN)
    event = world.begin()
    world.deliver()
    [packet] = world.others["app"].sent
    assert packet.params == {"packet": "p1", "variant": "transcript_first", "mark": "analysis_delayed"}
    [later] = world.tables.rows.values()
    assert (later.status, later.waiting_for, later.integration_id) == (Status.PENDING, WaitingFor.HEALTH, "ai")
    for _ in range(10):
        world.clock.advance(60_000)
        world.sweep()
        world.deliver()
    assert world.others["ai"].asked == 0
    world.health(ai=Health.HEALTHY)
    world.run_until_quiet()
    [summary] = world.others["ai"].sent
    assert summary.params == {"packet": "p1", "post_processing": True}
    assert world.mark(event, "summary").hop == 2
    assert len(world.others["app"].sent) == 1


def test_an_analysis_that_failed_for_good_is_replaced_and_tried_again_as_post_processing() -> None:
    """000.19, 000.20"""
    world = ChannelsWorld(action("summary", "ai.summary", params={"packet": "p1"}))
    world.others["ai"].answers.append(always(REFUSED, 5))
    event = world.begin()
    world.run_until_quiet()
    assert [one.params for one in world.others["app"].sent] == [{"packet": "p1", "variant": "transcript_first"}]
    assert [one.name for one in world.others["ai"].sent] == ["summary_later"]
    row = world.row(event, "summary")
    assert row is not None
    assert (row.hops, row.status) == (("ai:CONNECTION_REFUSED",), Status.SUCCEEDED)


def test_post_processing_that_fails_too_is_dead_and_publishes_nothing_again() -> None:
    world = ChannelsWorld(action("summary", "ai.summary", params={"packet": "p1"}))
    world.others["ai"].answers.append(always(REJECTED))
    world.begin()
    world.run_until_quiet()
    assert len(world.others["app"].sent) == 1
    assert sorted(row.status.value for row in world.tables.rows.values()) == ["failed", "succeeded"]


# ------------------------------------------------------------------------------------------------------------- payments

DESTRUCTIVE = ["payments.cancel_subscription", "payments.change_plan"]


@pytest.mark.parametrize("kind", DESTRUCTIVE)
@pytest.mark.parametrize("way", ["first pass", "row", "replay", "went down meanwhile", "cannot be read"])
def test_no_way_cancels_or_downgrades_while_payments_is_down(kind: str, way: str) -> None:
    """000.14, 000.15: whatever path the action takes, and however old what the batch has read."""
    world = ChannelsWorld(action("end", kind))
    payments = world.others["payments"]
    if way == "first pass":
        world.health(payments=Health.HARD_DOWN)
    elif way == "went down meanwhile":
        world.faults.on_after = lambda op: world.health(payments=Health.HARD_DOWN) if op == "ledger.claim" else None
    elif way == "cannot be read":
        world.faults.on_after = lambda op: world.faults.fail("ledger.read") if op == "ledger.claim" else None
    else:
        payments.answers.append(always(REFUSED, 1 if way == "row" else 5))
    event = world.begin()
    if way == "replay":
        world.run_until_quiet()
        row = world.row(event, "end")
        assert row is not None
        change = replay(row, world.clock.now, actor="ann", reason="x", request_id="q", job_id="", scale=1.0)
        world.tables.rows[row.recovery_id] = change.after
    else:
        world.deliver()
    if way == "cannot be read":
        assert payments.asked == 0
        world.run_until_quiet()
        assert len(payments.sent) == 1
        return
    asked = payments.asked
    world.health(payments=Health.HARD_DOWN)
    for _ in range(30):
        world.clock.advance(60_000)
        world.sweep()
        world.deliver()
    assert (payments.asked, payments.sent) == (asked, [])
    world.health(payments=Health.HEALTHY)
    world.run_until_quiet()
    assert len(payments.sent) == 1


# ------------------------------------------------------------------------------------------------------- classification


@pytest.mark.parametrize(("health", "is_asked"), [(Health.DEGRADED, 1), (Health.HARD_DOWN, 0)])
@pytest.mark.parametrize("needs_llm", [True, False])
def test_an_llm_that_is_not_well_decides_nothing_and_what_decides_instead_does_not_reply(
    health: Health, is_asked: int, needs_llm: bool
) -> None:
    """002.27, 002.28: the flow is told so also where it did not need the LLM, so that no rule replies either."""
    world = ChannelsWorld()
    world.needs_llm = needs_llm
    world.health(llm=health)
    world.begin()
    world.deliver()
    [verdict] = world.verdicts
    assert isinstance(verdict, ClassifierUnavailable)
    assert verdict.code == health.name
    assert world.classifier.asked == (is_asked if needs_llm else 0)


def test_an_llm_that_is_well_is_obeyed() -> None:
    world = ChannelsWorld()
    world.begin()
    world.deliver()
    assert world.verdicts == [None]
