"""Every row of the fallback matrix has a test named after it: runbook 000's, those of classification, the helpdesk's.

The matrix is the shipped one. A row without a test here, or a test here without its row, is refused at the end.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from functions.catalog.loader import load
from functions.core.attempt import Effect
from functions.core.decision import DecidedBy, Mode, Repeat
from functions.core.failure import ClassifierUnavailable
from functions.core.fallback import (
    POST_PROCESSING,
    Asking,
    Hop,
    Manual,
    Queue,
    Refuse,
    Stay,
    Substitute,
    action_at,
    after_failure,
    before_send,
    classifying,
    in_force,
    is_held_while_down,
    is_slow,
    may_leave,
    may_probe,
    post_processing,
)
from functions.core.features import status_of
from functions.core.gate import Health, IntegrationState, Standing
from functions.flows.registry import flows_of
from tests import recovery_rows
from tests.fakes import NOON_MS
from tests.fallback_matrix import INTEGRATIONS, MATRIX, action, degraded, down, occasion

BOTH = [("email.send", "sms.send"), ("sms.send", "email.send")]
NOBODY = {"email": Standing.NO_CONSENT, "sms": Standing.NO_CONSENT}


def told(feature: str, integration: str, health: Health) -> tuple[str, str, dict[str, bool | None]]:
    """State, text and capabilities of a feature while its integration is like that."""
    states = {integration: IntegrationState(integration, health)}
    [status] = [one for one in status_of(load().features, states, NOON_MS) if one.id == feature]
    return status.state.value, status.message, dict(status.capabilities)


# --------------------------------------------------------------------------------------------------------- email, SMS


@pytest.mark.parametrize(("kind", "other"), BOTH)
def test_messages_primary_has_three_attempts_on_each_channel_before_anything_takes_over(kind: str, other: str) -> None:
    """000.7: an attempt that leaves others asks nobody; the channel that takes over has three of its own."""
    row = MATRIX.rows["messages_primary"]
    assert row.attempts == INTEGRATIONS[kind.partition(".")[0]].policy.max_attempts == 3
    assert before_send(MATRIX, occasion(kind)) == Stay()
    assert before_send(MATRIX, occasion(kind, health=degraded("email", "sms"), is_new=False)) == Stay()
    assert INTEGRATIONS[other.partition(".")[0]].policy.max_attempts == 3


@pytest.mark.parametrize(("kind", "other"), BOTH)
def test_messages_fallback_switches_the_channel_if_consent_and_contact_exist(kind: str, other: str) -> None:
    """000.8: after the attempts of one item, and for new items while the channel is degraded."""
    here, there = kind.partition(".")[0], other.partition(".")[0]
    failed = occasion(kind, is_new=False)
    assert after_failure(MATRIX, failed) == Hop("messages_fallback", 1, other)
    assert after_failure(MATRIX, replace(failed, standing=NOBODY)) == Stay()
    assert after_failure(MATRIX, replace(failed, standing={there: Standing.SUPPRESSED})) == Stay()
    kept = [_taken_while_degraded(kind, f"t{number}", here) for number in range(400)]
    assert set(kept) == {Hop("messages_fallback", 1, other), Stay()}
    assert 0.1 < kept.count(Stay()) / len(kept) < 0.3  # those show whether the channel recovers
    unreached = occasion(kind, health=degraded(here), standing=NOBODY)
    assert before_send(MATRIX, unreached) == Stay()
    assert before_send(MATRIX, occasion(kind, health=degraded(here, there))) == Stay()


def _taken_while_degraded(kind: str, target: str, integration: str) -> object:
    seen = occasion(kind, health=degraded(integration))
    mine = replace(seen, action=action(kind, target=target))
    assert before_send(MATRIX, mine) == before_send(MATRIX, mine)
    return before_send(MATRIX, mine)


@pytest.mark.parametrize(("kind", "other"), BOTH)
def test_messages_down_other_queues_what_is_not_critical(kind: str, other: str) -> None:
    """000.9: it waits for its own channel, however well the other one is."""
    assert before_send(MATRIX, occasion(kind, health=down(kind.partition(".")[0]))) == Queue("messages_down_other")
    assert not may_leave(MATRIX, kind, "digest.weekly", Effect.NONE)


@pytest.mark.parametrize(("kind", "other"), BOTH)
def test_messages_down_critical_goes_by_the_other_channel_at_once_and_to_a_person_when_none_is_left(
    kind: str, other: str
) -> None:
    """000.10, 001.49."""
    here, there = kind.partition(".")[0], other.partition(".")[0]
    assert MATRIX.critical_events == {"invite.created", "packet.ready"}
    seen = occasion(kind, is_critical=True, health=down(here), is_new=False)
    hop, by_hand = Hop("messages_down_critical", 1, other), Manual("messages_down_critical", "manual_outreach")
    assert before_send(MATRIX, seen) == hop
    assert before_send(MATRIX, replace(seen, health={**down(here), **degraded(there)})) == hop
    assert before_send(MATRIX, replace(seen, standing=NOBODY)) == by_hand
    assert before_send(MATRIX, replace(seen, health=down(here, there))) == by_hand
    assert before_send(MATRIX, replace(seen, hop=1, health=down(there))) == by_hand
    assert after_failure(MATRIX, replace(seen, hop=1, health={})) == by_hand
    assert may_leave(MATRIX, kind, "packet.ready", Effect.NONE)
    assert not may_leave(MATRIX, kind, "packet.ready", Effect.UNKNOWN)


# ----------------------------------------------------------------------------------------------------------- payments


def test_payments_primary_retries_the_creation_of_the_checkout_session() -> None:
    """000.11: five calls under one key, and nothing in its place."""
    row = MATRIX.rows["payments_primary"]
    assert row.attempts == INTEGRATIONS["payments"].policy.max_attempts == 5
    assert after_failure(MATRIX, occasion("payments.create_checkout_session")) == Stay()
    assert before_send(MATRIX, occasion("payments.create_checkout_session", health=down("payments"))) == Stay()
    assert may_probe(MATRIX, "payments.create_checkout_session")


def test_payments_fallback_says_that_billing_is_unavailable_and_keeps_access() -> None:
    """000.12, 000.13."""
    state, message, capabilities = told("billing", "payments", Health.DEGRADED)
    assert state == "degraded"
    assert "billing is temporarily unavailable" in message.lower()
    assert capabilities == {"access": True, "checkout": False, "plan_changes": True}


@pytest.mark.parametrize("kind", ["payments.change_plan"])
def test_payments_down_plans_pauses_upgrades_and_downgrades(kind: str) -> None:
    """000.14."""
    assert before_send(MATRIX, occasion(kind, health=down("payments"))) == Refuse("payments_down_plans")
    assert not may_probe(MATRIX, kind)
    assert told("billing", "payments", Health.HARD_DOWN)[2] == {
        "access": True,
        "checkout": False,
        "plan_changes": False,
    }


@pytest.mark.parametrize("kind", ["payments.cancel_subscription", "payments.change_plan"])
def test_payments_down_subscriptions_leaves_active_subscriptions_as_they_are(kind: str) -> None:
    """000.15: nothing is cancelled or downgraded while payments is down, whatever the event; not even as a probe."""
    assert kind in MATRIX.rows["payments_down_subscriptions"].kinds
    for is_critical in (False, True):
        for is_unsettled in (False, True):
            seen = occasion(kind, is_critical=is_critical, is_unsettled=is_unsettled, health=down("payments"))
            assert isinstance(before_send(MATRIX, seen), Refuse)
    assert is_held_while_down(MATRIX, kind)
    assert not may_probe(MATRIX, kind)
    assert before_send(MATRIX, occasion(kind, health=degraded("payments"))) == Stay()


# ---------------------------------------------------------------------------------------------------------------- OCR


def test_ocr_primary_goes_on_with_the_deterministic_parser_alone() -> None:
    """000.16: after a failure for good, also one that says nothing of what it did: nobody gets a parse twice."""
    parser = Substitute("ocr_primary", 1, "parser.parse")
    assert after_failure(MATRIX, occasion("ocr.parse")) == parser
    assert after_failure(MATRIX, occasion("ocr.parse", may_have_been_sent=True)) == parser
    assert before_send(MATRIX, occasion("ocr.parse", health=down("ocr"))) == parser
    instead = action_at(action("ocr.parse", params={"document": "d1"}), 1, MATRIX)
    assert (instead.kind, instead.integration, instead.params) == ("parser.parse", "parser", {"document": "d1"})


def test_ocr_fallback_asks_a_person_to_confirm_the_fields() -> None:
    """000.17: a task at the helpdesk, on the conversation that the action names; without one the item is dead."""
    asked = occasion("ocr.parse", params={"conversation": "c7"}, hop=1)
    tags = {"tags": ["needs_field_confirmation"]}
    by_hand = Substitute("ocr_fallback", 2, "helpdesk.add_tags", tags)
    assert after_failure(MATRIX, asked) == by_hand
    assert before_send(MATRIX, replace(asked, hop=0, health=down("ocr", "parser"))) == by_hand
    assert after_failure(MATRIX, replace(asked, action=action("ocr.parse"))) == Stay()
    task = action_at(asked.action, 2, MATRIX)
    assert (task.kind, task.target, task.params["tags"]) == ("helpdesk.add_tags", "c7", ["needs_field_confirmation"])
    assert after_failure(MATRIX, replace(asked, hop=2)) == Stay()


def test_ocr_down_offers_no_automatic_parsing_and_shows_the_manual_workflow() -> None:
    """000.18."""
    state, message, capabilities = told("document_reading", "ocr", Health.HARD_DOWN)
    assert (state, capabilities) == ("unavailable", {"auto_parse": False, "manual_profile": True})
    assert "by hand" in message
    assert told("document_reading", "ocr", Health.DEGRADED)[2]["auto_parse"]


# ----------------------------------------------------------------------------------------------------------------- AI

AI = ["ai.summary", "ai.authenticity"]


@pytest.mark.parametrize("kind", AI)
def test_ai_primary_retries_the_jobs(kind: str) -> None:
    """000.19: five attempts; an answer that takes over five minutes counts as degraded."""
    assert MATRIX.rows["ai_primary"].attempts == INTEGRATIONS["ai"].policy.max_attempts == 5
    assert before_send(MATRIX, occasion(kind, is_new=False, health=degraded("ai"))) == Stay()
    assert (is_slow(MATRIX, kind, 300), is_slow(MATRIX, kind, 301)) == (False, True)


@pytest.mark.parametrize("kind", AI)
def test_ai_fallback_publishes_the_packet_with_its_transcript_first_and_does_the_analysis_later(kind: str) -> None:
    """000.20."""
    taken = after_failure(MATRIX, occasion(kind))
    assert taken == Substitute("ai_fallback", 1, "app.publish_packet", {"variant": "transcript_first"}, is_later=True)
    packet = action_at(action(kind, params={"packet": "p1"}), 1, MATRIX)
    assert packet.params == {"packet": "p1", "variant": "transcript_first"}
    assert (packet.kind, packet.repeat) == ("app.publish_packet", Repeat.SETTING)
    assert after_failure(MATRIX, occasion(kind, hop=1)) == Stay()  # the app has been tried


@pytest.mark.parametrize("kind", AI)
def test_ai_down_marks_the_packet_analysis_delayed_and_queues_the_post_processing(kind: str) -> None:
    """000.21."""
    taken = before_send(MATRIX, occasion(kind, health=down("ai")))
    params = {"variant": "transcript_first", "mark": "analysis_delayed"}
    assert taken == Substitute("ai_down", 2, "app.publish_packet", params, is_later=True)
    assert "analysis delayed" in told("analysis", "ai", Health.HARD_DOWN)[1].lower()
    later = post_processing(action(kind)).bound("acme", "app:e-1", 0)
    assert later.kind == kind
    assert later.action_id != action(kind).action_id
    assert later.params == {POST_PROCESSING: True}
    again = replace(occasion(kind), action=later, health=down("ai"))
    assert before_send(MATRIX, again) == Stay()  # what stood in for it is there: it waits for its turn
    assert after_failure(MATRIX, again) == Stay()


# ----------------------------------------------------------------------------------------------------- classification


def decided(text: str, code: str) -> tuple[DecidedBy, list[str]]:
    """Who decided about a message while the LLM has no answer, and what was called for."""
    flow = flows_of(load())["support"]
    event = recovery_rows.event(
        body=f'{{"ticket_id":"T1","message":"{text}","author":{{"id":"ann@example.com"}}}}'.encode()
    )
    decision = flow.decide(event, flow.prepare(event), ClassifierUnavailable(code), Mode.LIVE, NOON_MS)
    tags = next(one.params["tags"] for one in decision.actions if one.name == "tag")
    return decision.classification.decided_by, [*(one.name for one in decision.actions), *tags]


def test_classification_late_goes_by_rules_or_to_the_default_team_and_never_replies() -> None:
    """002.27, 002.28."""
    assert "failed" in MATRIX.rows["classification_late"].starts
    by_rules, called_for = decided("I want my money back", "DEADLINE")
    assert (by_rules, "reply" in called_for) == (DecidedBy.RULES, False)
    by_default, called_for = decided("Guten Tag", "DEADLINE")
    assert (by_default, "reply" in called_for) == (DecidedBy.DEFAULT, False)
    assert "needs_manual_triage" in called_for


def test_classification_degraded_is_asked_so_that_its_recovery_shows_but_does_not_decide() -> None:
    """002.28."""
    assert classifying(MATRIX, "llm", Health.DEGRADED) == Asking(
        asks=True, decides=False, row="classification_degraded"
    )
    assert classifying(MATRIX, "llm", Health.HEALTHY) == Asking(asks=True, decides=True)


def test_classification_down_is_not_asked_and_high_signal_rules_do_not_reply_either() -> None:
    """002.27, 002.28: they may while the LLM is well."""
    assert classifying(MATRIX, "llm", Health.HARD_DOWN) == Asking(asks=False, decides=False, row="classification_down")
    assert classifying(MATRIX, "another", Health.HARD_DOWN) == Asking(asks=True, decides=True)
    who, called_for = decided("where is my order", Health.HARD_DOWN.name)
    assert (who, "reply" in called_for) == (DecidedBy.RULES, False)


# ----------------------------------------------------------------------------------------------------------- helpdesk


@pytest.mark.parametrize("kind", sorted(INTEGRATIONS["helpdesk"].kinds))
def test_support_down_lets_tags_teams_and_replies_wait(kind: str) -> None:
    """000.4."""
    assert before_send(MATRIX, occasion(kind, health=down("helpdesk"))) == Queue("support_down")
    assert before_send(MATRIX, occasion(kind, health=down("helpdesk"), is_critical=True)) == Queue("support_down")


# --------------------------------------------------------------------------------------------------------- completeness

RUNBOOK_000 = {
    "messages_primary",
    "messages_fallback",
    "messages_down_other",
    "messages_down_critical",
    "payments_primary",
    "payments_fallback",
    "payments_down_plans",
    "payments_down_subscriptions",
    "ocr_primary",
    "ocr_fallback",
    "ocr_down",
    "ai_primary",
    "ai_fallback",
    "ai_down",
}
OTHERS = {"classification_late", "classification_degraded", "classification_down", "support_down"}


def test_every_row_of_the_runbook_is_in_the_shipped_matrix() -> None:
    """000.1."""
    assert set(load().fallbacks.rows) == RUNBOOK_000 | OTHERS


def test_every_row_has_a_test_named_after_it() -> None:
    tests = [name for name in globals() if name.startswith("test_")]
    for row in MATRIX.rows:
        assert any(name.startswith(f"test_{row}_") for name in tests), row


def test_operators_see_which_rows_are_in_force_and_for_which_integration() -> None:
    """000.5."""
    rows = {
        (name, row.id) for name, row in in_force(MATRIX, {**down("payments"), **degraded("sms"), "ocr": Health.HEALTHY})
    }
    assert rows == {
        ("payments", "payments_down_plans"),
        ("payments", "payments_down_subscriptions"),
        ("sms", "messages_fallback"),
    }
    assert {name for name, _ in in_force(MATRIX, degraded("llm"))} == {"llm"}
