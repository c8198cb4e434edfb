"""How the fallback matrix is followed: what may go another way, where to, and under which key (architecture §8)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.core.attempt import Effect
from functions.core.decision import MessageRef, Repeat
from functions.core.event import digest
from functions.core.failure import IllegalTransition
from functions.core.fallback import (
    MAX_HOPS,
    OTHER_EVENTS,
    Hop,
    Manual,
    Matrix,
    Occasion,
    Queue,
    Refuse,
    Stay,
    Substitute,
    action_at,
    after_failure,
    before_send,
    channels_ahead,
    has_ways,
    health_of,
    integration_of,
    kind_at,
    lets_leave,
    may_leave,
    named,
    row_at,
    ways_ahead,
)
from functions.core.gate import Health, IntegrationState, Standing
from tests.fakes import NOON_MS
from tests.fallback_matrix import INTEGRATIONS, MATRIX, action, degraded, down, occasion

KINDS = sorted({kind for row in MATRIX.rows.values() for kind in [*row.kinds, *row.to]})
LEAD_AWAY = (Hop, Substitute)


def test_an_integration_that_nobody_wrote_anything_of_is_healthy() -> None:
    assert health_of(None, NOON_MS) is Health.HEALTHY
    assert health_of(IntegrationState("email", Health.DEGRADED), NOON_MS) is Health.DEGRADED


def test_without_a_matrix_everything_stays_as_it_is() -> None:
    seen = occasion("email.send", is_critical=True, health=down("email"))
    assert before_send(Matrix(), seen) == Stay()
    assert after_failure(Matrix(), seen) == Stay()
    assert not has_ways(Matrix(), "email.send")
    assert not lets_leave(Matrix(), "email")


# ------------------------------------------------------------------------------------------------------------ certainty


@pytest.mark.parametrize("kind", ["email.send", "sms.send"])
@pytest.mark.parametrize("is_critical", [False, True])
def test_what_may_have_happened_goes_no_other_way_whatever_the_health(kind: str, is_critical: bool) -> None:
    """000.8: else somebody gets the same message twice. It waits for a lookup, or a person."""
    unsettled = occasion(kind, is_critical=is_critical, is_unsettled=True)
    assert after_failure(MATRIX, unsettled) == Stay()
    here = integration_of(kind)
    assert before_send(MATRIX, replace(unsettled, health=degraded(here))) == Stay()
    waits = before_send(MATRIX, replace(unsettled, health=down(here)))
    assert waits == (Stay() if is_critical else Queue("messages_down_other"))


def test_a_message_goes_no_other_way_where_an_attempt_may_have_acted_though_its_kind_forgives_a_repeat() -> None:
    forgiving = replace(INTEGRATIONS["email"].kinds["email.send"], repeat=Repeat.IDEMPOTENT)
    email = replace(INTEGRATIONS["email"], kinds={"email.send": forgiving})
    matrix = replace(MATRIX, integrations={**INTEGRATIONS, "email": email})
    assert after_failure(matrix, occasion("email.send")) == Hop("messages_fallback", 1, "sms.send")
    assert after_failure(matrix, occasion("email.send", may_have_been_sent=True)) == Stay()


def test_a_setting_that_may_have_acted_is_not_replaced() -> None:
    setting = replace(INTEGRATIONS["ocr"].kinds["ocr.parse"], repeat=Repeat.SETTING)
    ocr = replace(INTEGRATIONS["ocr"], kinds={"ocr.parse": setting})
    matrix = replace(MATRIX, integrations={**INTEGRATIONS, "ocr": ocr})
    assert after_failure(matrix, occasion("ocr.parse", may_have_been_sent=True)) == Stay()


# ----------------------------------------------------------------------------------------------------------- standing


def test_a_standing_that_cannot_be_read_hands_nothing_over_to_a_person_while_a_channel_may_be_open() -> None:
    unread = {"sms": Standing.UNKNOWN}
    seen = occasion("email.send", is_critical=True, health=down("email"), standing=unread)
    assert before_send(MATRIX, seen) == Stay()
    assert before_send(MATRIX, replace(seen, standing={})) == Manual("messages_down_critical", "manual_outreach")


def test_after_the_last_attempt_an_unread_standing_is_for_the_gate_of_the_other_channel() -> None:
    """The gate asks again before anything is sent, and waits; here the item would be dead."""
    failed = occasion("email.send", standing={"sms": Standing.UNKNOWN})
    assert after_failure(MATRIX, failed) == Hop("messages_fallback", 1, "sms.send")
    assert before_send(MATRIX, replace(failed, health=degraded("email"))) == Stay()


def test_an_item_that_failed_waits_on_a_channel_that_is_down_unless_it_must_arrive() -> None:
    failed = occasion("email.send", health=down("sms"))
    assert after_failure(MATRIX, failed) == Hop("messages_fallback", 1, "sms.send")
    assert after_failure(MATRIX, replace(failed, is_critical=True)) == Manual(
        "messages_down_critical", "manual_outreach"
    )


def test_nothing_that_must_arrive_stays_on_a_degraded_channel_to_show_whether_it_recovers() -> None:
    for number in range(50):
        seen = replace(
            occasion("email.send", is_critical=True, health=degraded("email")),
            action=action("email.send", target=f"t{number}"),
        )
        assert before_send(MATRIX, seen) == Hop("messages_fallback", 1, "sms.send")


# ---------------------------------------------------------------------------------------------------------- ways, hops


def test_a_channel_that_the_catalog_does_not_have_yet_is_no_way() -> None:
    alone = replace(MATRIX, integrations={"email": INTEGRATIONS["email"]})
    assert ways_ahead(alone, action("email.send"), 0) == []
    assert channels_ahead(alone, action("email.send"), 0) == ()
    assert channels_ahead(MATRIX, action("email.send"), 0) == ("sms",)
    assert channels_ahead(MATRIX, action("ocr.parse"), 0) == ()


def test_no_way_leads_back_to_what_has_been_tried() -> None:
    """Hop 2 of an analysis is at the same app as hop 1."""
    assert [row.id for row in ways_ahead(MATRIX, action("ai.summary"), 0)] == ["ai_fallback", "ai_down"]
    assert ways_ahead(MATRIX, action("ai.summary"), 1) == []
    home = replace(MATRIX.rows["ocr_fallback"], to={"ocr.parse": "ocr.parse"}, target_param="")
    assert ways_ahead(replace(MATRIX, rows={"home": home}), action("ocr.parse"), 0) == []


def test_a_hop_that_is_no_more_is_said_so() -> None:
    with pytest.raises(IllegalTransition, match=r"no hop 2 for email\.send"):
        action_at(action("email.send"), 2, MATRIX)
    with pytest.raises(IllegalTransition, match=r"no kind sms\.send"):
        action_at(action("email.send"), 1, replace(MATRIX, integrations={}))


def test_the_hop_s_key_is_its_own_and_the_same_for_everybody() -> None:
    """The provider of another channel knows nothing of the first one's key."""
    email = action("email.send")
    assert action_at(email, 0, MATRIX) == email
    sms = action_at(email, 1, MATRIX)
    assert sms.action_id == digest(email.action_id, "1") != email.action_id
    assert sms == action_at(email, 1, MATRIX)
    assert (sms.name, sms.kind, sms.integration, sms.recipient) == ("it", "sms.send", "sms", "r1")
    assert (sms.message, sms.customer_visible, sms.expires_seconds) == (email.message, True, email.expires_seconds)


def test_a_message_has_the_text_of_its_channel_in_the_version_that_was_decided() -> None:
    matrix = replace(MATRIX, messages={("billing", 1, "sms"): ("billing_short", 3)})
    email = action("email.send", message=MessageRef("billing", 1, {"name": "Ann"}))
    assert action_at(email, 1, matrix).message == MessageRef("billing_short", 3, {"name": "Ann"})
    assert action_at(replace(email, message=MessageRef("billing", 2)), 1, matrix).message == MessageRef("billing", 2)
    assert action_at(replace(email, message=None), 1, matrix).message is None


def test_what_takes_another_action_s_place_reaches_no_customer() -> None:
    there = action_at(action("ocr.parse", customer_visible=True, recipient="r1"), 1, MATRIX)
    assert (there.customer_visible, there.recipient, there.message) == (False, "", None)


def test_a_row_of_the_matrix_is_found_by_kind_and_hop() -> None:
    assert row_at(MATRIX, action("ocr.parse"), 2).id == "ocr_fallback"
    assert kind_at(MATRIX, action("ocr.parse"), 0) == "ocr.parse"


@given(
    kind=st.sampled_from(KINDS),
    hop=st.integers(0, MAX_HOPS),
    is_critical=st.booleans(),
    is_new=st.booleans(),
    is_unsettled=st.booleans(),
    may_have_been_sent=st.booleans(),
    health=st.fixed_dictionaries({name: st.sampled_from(Health) for name in INTEGRATIONS}),
    standing=st.fixed_dictionaries({name: st.sampled_from(Standing) for name in ("email", "sms")}),
    conversation=st.sampled_from(["", "c7"]),
)
def test_a_way_leads_forward_to_what_has_not_been_tried_and_to_people_who_may_be_reached(
    kind: str,
    hop: int,
    is_critical: bool,
    is_new: bool,
    is_unsettled: bool,
    may_have_been_sent: bool,
    health: dict[str, Health],
    standing: dict[str, Standing],
    conversation: str,
) -> None:
    what = action(kind, params={"conversation": conversation})
    try:
        here = kind_at(MATRIX, what, hop)
    except IllegalTransition:
        return
    seen = Occasion(what, hop, is_critical, health, standing, is_new, is_unsettled, may_have_been_sent)
    for decide in (before_send, after_failure):
        taken = decide(MATRIX, seen)
        if isinstance(taken, Hop | Substitute):
            there = action_at(what, taken.hop, MATRIX)
            assert hop < taken.hop <= MAX_HOPS
            assert there.integration not in (integration_of(here), what.integration)
            assert not is_unsettled
            assert there.kind == taken.kind
        if isinstance(taken, Hop):
            assert not may_have_been_sent
            assert standing[there.integration] in (Standing.ALLOWED, Standing.UNKNOWN)
        if isinstance(taken, Manual):
            assert is_critical
            assert not is_unsettled
    before = before_send(MATRIX, seen)
    if health[integration_of(here)] is Health.HEALTHY:
        assert before == Stay()
    if isinstance(before, Refuse | Queue):
        assert health[integration_of(here)] is Health.HARD_DOWN
    if isinstance(before, Hop):
        assert standing[integration_of(before.kind)] is Standing.ALLOWED
        assert health[integration_of(before.kind)] is not Health.HARD_DOWN
    if isinstance(before, LEAD_AWAY) and not is_new:
        assert health[integration_of(here)] is Health.HARD_DOWN


def test_only_what_must_arrive_leaves_the_queue_of_an_integration_that_is_down() -> None:
    assert lets_leave(MATRIX, "email")
    assert lets_leave(MATRIX, "sms")
    assert not lets_leave(MATRIX, "payments")
    assert not lets_leave(MATRIX, "ocr")
    assert may_leave(MATRIX, "sms.send", "invite.created", Effect.NONE)
    assert not may_leave(MATRIX, "ocr.parse", "invite.created", Effect.NONE)
    assert not may_leave(MATRIX, "sms.send", "message.created", Effect.NONE)


def test_metrics_name_what_must_arrive_and_call_all_else_by_one_name() -> None:
    critical = next(iter(MATRIX.critical_events))
    assert [named(MATRIX, name) for name in (critical, "message.created", "", "x" * 500)] == [
        critical,
        OTHER_EVENTS,
        OTHER_EVENTS,
        OTHER_EVENTS,
    ]
