"""How an action of each kind may be repeated (the table of architecture §6)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.core.attempt import (
    AskPerson,
    Effect,
    History,
    LookUp,
    ReadFirst,
    SendNow,
    WaitUntil,
    effect_after,
    interpret,
    next_step,
    settled_at,
)
from functions.core.decision import Repeat
from functions.core.failure import Failure, FailureClass, failure_of_status
from functions.core.integration import INTAKE, Integration
from tests.unit.builders import CONNECT_REFUSED, HTTP_422, HTTP_503, NOON_MS, READ_TIMEOUT, RULES, SECOND

UNSURE = History(
    had_lease=True, may_have_been_sent=True, first_sent_at_ms=NOON_MS, last_possible_send_ms=NOON_MS + 30 * SECOND
)
KEYED = RULES[Repeat.KEYED]
KEYED_WITH_LOOKUP = replace(KEYED, can_look_up=True)
WINDOW_MS = KEYED.key_window_seconds * 1000
HARMFUL = (Repeat.KEYED, Repeat.LOOKUP, Repeat.BLIND)


@pytest.mark.parametrize("repeat", Repeat)
def test_what_nobody_has_tried_is_sent(repeat: Repeat) -> None:
    assert next_step(RULES[repeat], History(), NOON_MS, 1.0) == SendNow()


def test_an_idempotent_action_is_done_again_after_anything() -> None:
    assert next_step(RULES[Repeat.IDEMPOTENT], UNSURE, NOON_MS, 1.0) == SendNow()


def test_a_setting_is_read_first_after_the_first_lease() -> None:
    assert next_step(RULES[Repeat.SETTING], History(had_lease=True), NOON_MS, 1.0) == ReadFirst()


def test_a_key_is_used_again_within_ninety_percent_of_its_window_and_not_later_002_19() -> None:
    limit_ms = NOON_MS + WINDOW_MS * 9 // 10
    assert next_step(KEYED, UNSURE, limit_ms - 1, 1.0) == SendNow()
    assert isinstance(next_step(KEYED, UNSURE, limit_ms, 1.0), AskPerson)
    assert next_step(KEYED_WITH_LOOKUP, UNSURE, limit_ms, 1.0) == LookUp()


def test_a_key_that_gave_the_same_stored_error_twice_is_not_used_a_third_time() -> None:
    once, twice = replace(UNSURE, stored_errors=1), replace(UNSURE, stored_errors=2)
    assert next_step(KEYED, once, NOON_MS, 1.0) == SendNow()
    assert isinstance(next_step(KEYED, twice, NOON_MS, 1.0), AskPerson)


def test_an_unknown_first_send_counts_as_outside_the_window() -> None:
    assert isinstance(next_step(KEYED, History(may_have_been_sent=True), NOON_MS, 1.0), AskPerson)


def test_a_lookup_is_believed_only_after_the_settle_delay() -> None:
    rules = RULES[Repeat.LOOKUP]
    settled_ms = UNSURE.last_possible_send_ms + 180 * SECOND
    assert next_step(rules, UNSURE, settled_ms - 1, 1.0) == WaitUntil(settled_ms)
    assert next_step(rules, UNSURE, settled_ms, 1.0) == LookUp(only=False)


def test_the_scale_shortens_the_settle_delay() -> None:
    assert settled_at(RULES[Repeat.LOOKUP], NOON_MS, 0.01) == NOON_MS + 1_800


def test_a_blind_action_that_may_have_been_sent_is_for_a_person() -> None:
    assert isinstance(next_step(RULES[Repeat.BLIND], UNSURE, NOON_MS + 10 * WINDOW_MS, 1.0), AskPerson)


def test_a_provider_that_cannot_be_asked_after_all_is_for_a_person() -> None:
    assert isinstance(next_step(replace(RULES[Repeat.LOOKUP], can_look_up=False), UNSURE, NOON_MS, 1.0), AskPerson)


@given(
    st.sampled_from(sorted(HARMFUL)),
    st.booleans(),
    st.integers(0, 10 * WINDOW_MS),
    st.integers(0, 3),
    st.integers(0, WINDOW_MS),
)
def test_what_may_have_been_sent_is_only_sent_again_under_a_key_that_still_holds(
    repeat: Repeat, can_look_up: bool, passed_ms: int, stored_errors: int, last_ms: int
) -> None:
    history = History(
        had_lease=True,
        may_have_been_sent=True,
        first_sent_at_ms=NOON_MS,
        last_possible_send_ms=NOON_MS + last_ms,
        stored_errors=stored_errors,
    )
    step = next_step(replace(RULES[repeat], can_look_up=can_look_up), history, NOON_MS + passed_ms, 1.0)
    if isinstance(step, SendNow):
        assert repeat is Repeat.KEYED
        assert passed_ms < WINDOW_MS * 0.9
        assert stored_errors < 2
    if isinstance(step, LookUp):
        assert can_look_up
        assert passed_ms >= last_ms + 180_000


@pytest.mark.parametrize("repeat", [Repeat.IDEMPOTENT, Repeat.KEYED])
def test_kinds_that_may_be_repeated_take_a_failure_as_it_is_004_5(repeat: Repeat) -> None:
    assert interpret(RULES[repeat], HTTP_503) == HTTP_503


@pytest.mark.parametrize("repeat", [Repeat.LOOKUP, Repeat.SETTING])
def test_a_5xx_of_a_lookup_or_a_setting_is_unknown_and_tried_again(repeat: Repeat) -> None:
    seen = interpret(RULES[repeat], HTTP_503)
    assert (seen.failure_class, seen.is_retryable, seen.code) == (FailureClass.UNKNOWN_OUTCOME, True, "HTTP_503")


@pytest.mark.parametrize("failure", [HTTP_503, READ_TIMEOUT, failure_of_status(408), failure_of_status(409)])
def test_a_blind_action_that_may_have_happened_is_unknown_and_not_tried_again(failure: Failure) -> None:
    seen = interpret(RULES[Repeat.BLIND], failure)
    assert (seen.failure_class, seen.code, seen.is_retryable) == (
        FailureClass.UNKNOWN_OUTCOME,
        "OUTCOME_UNKNOWN",
        False,
    )


@pytest.mark.parametrize("repeat", Repeat)
def test_a_definite_failure_is_the_same_for_every_kind(repeat: Repeat) -> None:
    assert interpret(RULES[repeat], CONNECT_REFUSED) == CONNECT_REFUSED


@pytest.mark.parametrize("repeat", HARMFUL)
def test_an_effect_is_unknown_from_the_first_send_that_may_have_happened_and_stays_so(repeat: Repeat) -> None:
    rules = RULES[repeat]
    assert effect_after(rules, Effect.NONE, HTTP_503, was_sent=True) is Effect.UNKNOWN
    assert effect_after(rules, Effect.NONE, HTTP_503, was_sent=False) is Effect.NONE
    assert effect_after(rules, Effect.NONE, HTTP_422, was_sent=True) is Effect.NONE
    assert effect_after(rules, Effect.UNKNOWN, HTTP_422, was_sent=True) is Effect.UNKNOWN


@pytest.mark.parametrize("repeat", [Repeat.IDEMPOTENT, Repeat.SETTING])
def test_kinds_whose_repeat_does_no_harm_have_no_unknown_effect(repeat: Repeat) -> None:
    assert effect_after(RULES[repeat], Effect.UNKNOWN, HTTP_503, was_sent=True) is Effect.NONE


def test_an_integration_that_says_nothing_has_the_default_policy_004_7() -> None:
    plain = Integration("helpdesk")
    assert (plain.policy.max_attempts, plain.deadline_seconds, plain.id != INTAKE) == (5, 8.0, True)
