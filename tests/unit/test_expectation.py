"""The balance that the demo and the end-to-end tests rest on finds every kind of disagreement."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ops.expectation import (
    BANK,
    CRASH,
    DEFAULT_TEAM,
    NEEDS_PERSON,
    PROCESSED,
    QUOTE,
    TOPICS,
    WHERE,
    Outcome,
    Topic,
    balance,
    expected,
)
from ops.simulator import Effect


def effects_of(outcome: Outcome, conversation: str = "T1") -> list[Effect]:
    """What the helpdesk records when that outcome takes place."""
    found = [_effect("add_tag", conversation, tag=tag) for tag in sorted(outcome.tags)]
    found.append(_effect("assign", conversation, team=outcome.team))
    return found + [replace(_effect("reply", conversation), key=f"hf-{n}-marker") for n in range(outcome.replies)]


def _effect(kind: str, target: str, **detail: str) -> Effect:
    return Effect(1, "", "helpdesk", kind, target, "", changed=True, params_sha256="", headers={}, detail=detail)


@pytest.mark.parametrize("topic", TOPICS)
def test_every_expected_effect_once_is_even(topic: Topic) -> None:
    wanted = expected(topic)
    found = balance({"T1": wanted}, effects_of(wanted[0]))
    assert found.is_even
    assert found.otherwise == 0


def test_each_missing_effect_is_missed() -> None:
    wanted = expected(WHERE)
    every = effects_of(wanted[0])
    for left_out in range(len(every)):
        found = balance({"T1": wanted}, every[:left_out] + every[left_out + 1 :])
        assert len(found.missing) == 1, every[left_out]


def test_each_effect_that_is_there_twice_is_found() -> None:
    wanted = expected(WHERE)
    every = effects_of(wanted[0])
    for twice in every:
        assert balance({"T1": wanted}, [*every, twice]).doubled, twice


def test_an_effect_that_changed_nothing_is_no_double() -> None:
    wanted = expected(WHERE)
    every = effects_of(wanted[0])
    assert balance({"T1": wanted}, [*every, replace(every[0], changed=False)]).is_even


def test_a_wrong_team_a_wrong_tag_and_an_unasked_reply_are_wrong() -> None:
    wanted = expected(BANK)
    right = effects_of(wanted[0])
    assert balance(
        {"T1": wanted}, [one for one in right if one.kind != "assign"] + [_effect("assign", "T1", team="x")]
    ).wrong
    assert balance({"T1": wanted}, [*right, _effect("add_tag", "T1", tag="x")]).wrong
    assert balance({"T1": wanted}, [*right, replace(_effect("reply", "T1"), key="hf-1-marker")]).wrong


def test_an_effect_where_nobody_asked_for_any_is_unasked() -> None:
    assert balance({}, [_effect("assign", "stranger", team="x")]).unasked
    assert not balance({}, [_effect("assign", "stranger", team="x")]).is_even


def test_while_the_llm_is_down_nothing_replies_and_rules_or_the_default_team_decide() -> None:
    assert expected(CRASH, is_llm_up=False) == (Outcome(frozenset({PROCESSED, "technical"}), "technical", 0),)
    assert expected(QUOTE, is_llm_up=False) == (Outcome(frozenset({PROCESSED, NEEDS_PERSON}), DEFAULT_TEAM, 0),)


def test_what_a_late_llm_leads_to_is_allowed_only_where_it_was_said_to_be() -> None:
    late = effects_of(expected(QUOTE, is_llm_up=False)[0])
    assert not balance({"T1": expected(QUOTE)}, late).is_even
    found = balance({"T1": expected(QUOTE, may_be_late=True)}, late)
    assert found.is_even
    assert found.otherwise == 1


def test_a_reply_that_may_be_held_back_is_either_sent_or_handed_to_a_person_but_not_both() -> None:
    allowed = expected(WHERE, may_be_held_back=True)
    sent, handed = (effects_of(outcome) for outcome in allowed)
    assert balance({"T1": allowed}, sent).is_even
    assert balance({"T1": allowed}, handed).is_even
    assert not balance({"T1": allowed}, [*sent, _effect("add_tag", "T1", tag=NEEDS_PERSON)]).is_even
