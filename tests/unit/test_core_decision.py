"""Classifications, actions, and how a decision is stored so that it can always be carried out (architecture §3, §6)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.core.decision import (
    COUNTED,
    DEFAULT_EXPIRES_SECONDS,
    Action,
    Classification,
    DecidedBy,
    Decision,
    MessageRef,
    Mode,
    Repeat,
    names,
    stricter,
)
from functions.core.failure import MalformedDecision
from tests.unit.builders import action, decision

TEXTS = st.text(max_size=12)
PARAMS = st.dictionaries(TEXTS, TEXTS | st.integers() | st.booleans() | st.none() | st.lists(TEXTS), max_size=3)
CLASSIFICATIONS = st.builds(
    Classification,
    label=TEXTS,
    confidence=st.floats(0, 1),
    decided_by=st.sampled_from(DecidedBy),
    version=TEXTS,
    reason_codes=st.lists(TEXTS, max_size=3).map(tuple),
)


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    """Any decision that may be built: actions require, and stand in for, what comes before them."""
    made: list[Action] = []
    for name in draw(st.lists(TEXTS.filter(bool), unique=True, max_size=4)):
        earlier = st.sampled_from([one.name for one in made]) if made else st.nothing()
        made.append(
            Action(
                name=name,
                kind=draw(TEXTS | st.just("helpdesk.tag")),
                integration=draw(TEXTS | st.just("helpdesk")),
                repeat=draw(st.sampled_from(Repeat)),
                target=draw(TEXTS | st.just("ticket-7")),
                params=draw(PARAMS),
                message=draw(
                    st.none()
                    | st.builds(
                        MessageRef,
                        id=TEXTS,
                        version=st.integers(0, 99),
                        params=st.dictionaries(TEXTS, TEXTS, max_size=2),
                    )
                ),
                requires=tuple(draw(st.lists(earlier, max_size=2))) if made else (),
                instead_of=draw(st.just("") | earlier) if made else "",
                customer_visible=draw(st.booleans()),
                recipient=draw(TEXTS),
                expires_seconds=draw(st.just(DEFAULT_EXPIRES_SECONDS) | st.integers(0, 10**6)),
                priority=draw(st.integers(0, 9)),
            )
        )
    return Decision(
        flow=draw(TEXTS),
        mode=draw(st.sampled_from(Mode)),
        classification=draw(CLASSIFICATIONS),
        actions=tuple(made),
        decided_at_ms=draw(st.integers(0, 2**53)),
        version=draw(st.integers(1, 9)),
    )


@given(decisions())
def test_a_stored_decision_is_read_back_as_it_was(made: Decision) -> None:
    assert Decision.from_json(made.to_json()) == made
    assert made.to_json() == Decision.from_json(made.to_json()).to_json()


@given(decisions())
def test_ids_follow_from_the_content_and_are_not_stored(made: Decision) -> None:
    bound = replace(made, actions=tuple(one.bound("acme", "shop:1", 0) for one in made.actions))
    assert bound.to_json() == made.to_json()
    for one in bound.actions:
        assert one.action_id not in made.to_json()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("vfmatcnkirtpqox"), inner, max_size=6),
)


@given(JSON)
def test_whatever_is_stored_is_a_decision_or_malformed(value: Any) -> None:
    try:
        found = Decision.from_json(json.dumps(value))
    except MalformedDecision:
        return
    assert isinstance(found, Decision)


PLAIN = json.loads(decision(action()).to_json())


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "not json",
        "[" * 100_000,
        "null",
        "[]",
        json.dumps({}),
        json.dumps(PLAIN | {"m": "sometimes"}),
        json.dumps(PLAIN | {"c": ["label", 0.5]}),
        json.dumps(PLAIN | {"c": ["label", "much", "llm", "1", []]}),
        json.dumps(PLAIN | {"c": ["label", 10**400, "llm", "1", []]}),
        json.dumps(PLAIN | {"at": float("inf")}),
        json.dumps(PLAIN | {"v": None}),
        json.dumps(PLAIN | {"a": [7]}),
        json.dumps(PLAIN | {"a": [{"n": "one"}]}),
        json.dumps(PLAIN | {"a": [PLAIN["a"][0] | {"m": ["only-an-id"]}]}),
        json.dumps(PLAIN | {"a": [PLAIN["a"][0] | {"p": "text"}]}),
        json.dumps(PLAIN | {"a": [PLAIN["a"][0] | {"x": float("inf")}]}),
        json.dumps(PLAIN | {"a": [PLAIN["a"][0], PLAIN["a"][0]]}),
        json.dumps(PLAIN | {"a": [PLAIN["a"][0] | {"q": ["nobody"]}]}),
    ],
)
def test_a_decision_that_cannot_be_read_says_so(broken: str) -> None:
    with pytest.raises(MalformedDecision, match="cannot be read"):
        Decision.from_json(broken)


def test_an_action_id_depends_on_everything_that_makes_it_another_effect_000_28() -> None:
    base = action(Repeat.LOOKUP, params={"tag": "vip"})
    others = [
        base.bound("globex", "shop:m-1", 0),
        base.bound("acme", "shop:m-2", 0),
        base.bound("acme", "shop:m-1", 5),
        replace(base, kind="helpdesk.note").bound("acme", "shop:m-1", 0),
        replace(base, target="ticket-8").bound("acme", "shop:m-1", 0),
        replace(base, params={"tag": "new"}).bound("acme", "shop:m-1", 0),
        replace(base, message=MessageRef("hello", 1)).bound("acme", "shop:m-1", 0),
        replace(base, message=MessageRef("hello", 2)).bound("acme", "shop:m-1", 0),
    ]
    assert len({base.action_id, *(other.action_id for other in others)}) == len(others) + 1


def test_an_action_id_does_not_depend_on_how_often_or_how_urgently_it_is_tried() -> None:
    base = action(params={"a": 1, "b": 2})
    same = replace(base, name="other", priority=1, expires_seconds=1, params={"b": 2, "a": 1}, requires=("x",))
    assert same.bound("acme", "shop:m-1", 0).action_id == base.action_id
    assert len(base.action_id) == 64


def test_what_a_message_is_filled_with_is_not_part_of_its_content_version() -> None:
    assert action(message=MessageRef("hello", 3, {"name": "x"})).content_version == "hello@3"


def test_two_actions_of_one_decision_with_the_same_effect_are_refused() -> None:
    twice = decision(replace(action(), name="one"), replace(action(), name="two"))
    with pytest.raises(ValueError, match="same effect"):
        twice.bound("acme", "shop:m-1", 0)


def test_a_bound_decision_has_the_ids_of_its_event() -> None:
    bound = decision(action(), action(Repeat.SETTING)).bound("acme", "shop:m-1", 0)
    assert [one.action_id for one in bound.actions] == [action().action_id, action(Repeat.SETTING).action_id]


@pytest.mark.parametrize(
    ("actions", "why"),
    [
        ((action(), action()), "two actions are named"),
        ((action(requires=("setting",)), action(Repeat.SETTING)), "requires 'setting'"),
        ((action(instead_of="setting"), action(Repeat.SETTING)), "stands in for 'setting'"),
        ((action(requires=("idempotent",)),), "requires 'idempotent'"),
    ],
)
def test_a_decision_whose_actions_do_not_fit_together_cannot_be_built(actions: tuple[Action, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decision(*actions)


def test_actions_are_found_by_name_and_by_what_they_stand_in_for() -> None:
    reply, tag = action(Repeat.LOOKUP), action(instead_of="lookup")
    made = decision(reply, tag)
    assert made.action("lookup") == reply
    assert made.stand_in("lookup") == tag
    assert made.stand_in("idempotent") is None
    assert names(made.actions) == ("lookup", "idempotent")
    with pytest.raises(KeyError):
        made.action("nothing")


def test_the_stricter_mode_allows_less_whichever_comes_first() -> None:
    order = [Mode.LIVE, Mode.ROUTE_ONLY, Mode.MANUAL, Mode.SHADOW, Mode.HOLD]
    assert [mode.strictness for mode in order] == [0, 1, 2, 3, 4]
    for i, one in enumerate(order):
        for j, other in enumerate(order):
            assert stricter(one, other) is order[max(i, j)]


def test_a_target_that_all_actions_share_and_an_integration_that_the_kind_names_are_stored_once() -> None:
    text = decision(action(), action(Repeat.SETTING)).to_json()
    assert text.count("ticket-7") == 1
    assert '"i"' not in text
    apart = decision(action(), action(Repeat.SETTING, target="ticket-8", integration="desk"))
    assert Decision.from_json(apart.to_json()).actions == tuple(replace(one, action_id="") for one in apart.actions)


def test_what_an_action_counts_is_an_id_and_nothing_else() -> None:
    params: list[dict[str, Any]] = [{}, {COUNTED: ""}, {COUNTED: 7}, {COUNTED: "a1"}]
    counting = Action("count", "desk.count", "desk", Repeat.IDEMPOTENT, "t1")
    assert [replace(counting, params=one).counted_id for one in params] == ["", "", "", "a1"]
