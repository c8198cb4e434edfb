"""Which events a rule keeps aside, and which rules may be made (001.44: fix, or temporary filter)."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.core.audit import AuditType
from functions.core.duration import NoDuration, duration_ms
from functions.core.quarantine import (
    LONGEST_MS,
    MOST_RULES,
    InvalidRule,
    NoSuchRule,
    Quarantine,
    Rule,
    kept_aside,
)
from tests.fakes import NOON_MS

HOUR_MS = 3_600_000
RULE = Rule(
    "a" * 32,
    "ada",
    "version 3 has no total",
    NOON_MS,
    NOON_MS + HOUR_MS,
    source="shop",
    event_name="order.created",
    event_version="3",
)
EVENT = ("shop", "order.created", "3", "acme")


def with_rules(*rules: Rule) -> Quarantine:
    quarantine = Quarantine()
    for rule in rules:
        quarantine = quarantine.with_rule(rule, "request-1").after
    return quarantine


@pytest.mark.parametrize(
    ("event", "is_kept"),
    [
        (EVENT, True),
        (("shop", "order.created", "3", "other"), True),
        (("desk", "order.created", "3", "acme"), False),
        (("shop", "order.deleted", "3", "acme"), False),
        (("shop", "order.created", "4", "acme"), False),
        (("shop", "order.created", "", "acme"), False),
    ],
)
def test_an_event_is_kept_aside_when_all_that_the_rule_says_is_so(event: tuple[str, ...], is_kept: bool) -> None:
    source, name, version, tenant = event
    assert (with_rules(RULE).for_event(source, name, version, tenant, NOON_MS) is not None) is is_kept


def test_a_rule_ends_by_itself_at_its_time_and_not_before() -> None:
    quarantine = with_rules(RULE)
    assert quarantine.for_event(*EVENT, NOON_MS + HOUR_MS - 1) == RULE
    assert quarantine.for_event(*EVENT, NOON_MS + HOUR_MS) is None
    assert quarantine.in_force(NOON_MS + HOUR_MS) == ()


def test_the_oldest_rule_that_fits_is_the_one_that_is_named() -> None:
    wider = replace(RULE, rule_id="b" * 32, event_version="")
    assert with_rules(wider, RULE).for_event(*EVENT, NOON_MS) == wider


def test_a_rule_with_a_failure_code_is_about_what_failed_so_and_not_about_new_events() -> None:
    rule = replace(RULE, failure_code="HTTP_422", event_version="")
    quarantine = with_rules(rule)
    assert quarantine.for_event(*EVENT, NOON_MS) is None
    assert quarantine.for_failure(*EVENT, "HTTP_422", NOON_MS) == rule
    assert quarantine.for_failure(*EVENT, "HTTP_500", NOON_MS) is None
    assert quarantine.for_failure("desk", *EVENT[1:], "HTTP_422", NOON_MS) is None
    assert quarantine.for_failure(*EVENT, "HTTP_422", NOON_MS + HOUR_MS) is None
    assert with_rules(RULE).for_failure(*EVENT, "", NOON_MS) is None, "a row that never failed has no code"


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (replace(RULE, source="", event_name="", event_version=""), "without a criterion"),
        (replace(RULE, reason="  "), "needs a reason"),
        (replace(RULE, expires_at_ms=NOON_MS), "within 30 days"),
        (replace(RULE, expires_at_ms=NOON_MS + LONGEST_MS + 1), "within 30 days"),
    ],
)
def test_a_rule_that_would_do_harm_is_not_made(rule: Rule, says: str) -> None:
    with pytest.raises(InvalidRule, match=says):
        Quarantine().with_rule(rule, "request-1")


def test_there_are_only_so_many_rules_and_those_that_have_ended_make_room() -> None:
    ended = replace(RULE, expires_at_ms=NOON_MS + 1)
    full = Quarantine(tuple(replace(ended, rule_id=f"{n:032x}") for n in range(MOST_RULES)), 7)
    with pytest.raises(InvalidRule, match="no more are read"):
        full.with_rule(RULE, "request-1")
    later = replace(RULE, created_at_ms=NOON_MS + 1)
    after = full.with_rule(later, "request-1").after
    assert (after.rules, after.version) == ((later,), 8)


def test_a_rule_is_removed_with_a_word_for_the_audit_and_only_once() -> None:
    quarantine = with_rules(RULE, replace(RULE, rule_id="b" * 32))
    change = quarantine.without(
        RULE.rule_id, actor="bob", reason="fixed", now_ms=NOON_MS + 5, request_id="request-2", traceparent="00-t"
    )
    assert [rule.rule_id for rule in change.after.rules] == ["b" * 32]
    assert change.after.version == quarantine.version + 1
    event = change.audit
    assert (event.event_type, event.actor, event.reason) == (AuditType.QUARANTINE_CHANGED, "bob", "fixed")
    assert (event.request_id, event.traceparent, event.affected_id) == ("request-2", "00-t", RULE.rule_id)
    assert json.loads(event.before_state)["event_version"] == "3"
    assert event.after_state == ""
    with pytest.raises(NoSuchRule):
        change.after.without(RULE.rule_id, actor="bob", reason="fixed", now_ms=NOON_MS + 6, request_id="r")
    with pytest.raises(NoSuchRule):  # it has ended by itself
        quarantine.without(RULE.rule_id, actor="bob", reason="fixed", now_ms=NOON_MS + HOUR_MS, request_id="r")


def test_making_a_rule_says_who_what_and_why_in_the_audit() -> None:
    event = Quarantine().with_rule(RULE, "request-1", "00-t").audit
    assert (event.actor, event.reason, event.at_ms) == ("ada", RULE.reason, NOON_MS)
    assert event.before_state == ""
    assert json.loads(event.after_state)["source"] == "shop"
    assert "source=shop, event_name=order.created, event_version=3" in event.containment_action


def test_what_is_kept_aside_says_by_whom_and_what_to_do() -> None:
    said = kept_aside(RULE)
    assert RULE.rule_id in said
    assert "ada" in said
    assert "replay it" in said


_TEXT = st.text(max_size=12)


@given(st.lists(st.builds(Rule, _TEXT, _TEXT, _TEXT, st.integers(0), st.integers(0), _TEXT, _TEXT, _TEXT), max_size=4))
def test_rules_are_read_back_as_they_were_written(rules: list[Rule]) -> None:
    quarantine = Quarantine(tuple(rules), 3)
    whole = [
        rule for rule in rules if all((rule.rule_id, rule.author, rule.reason, rule.created_at_ms, rule.expires_at_ms))
    ]
    if len(whole) == len(rules):
        assert Quarantine.from_json(quarantine.to_json(), 3) == quarantine


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", "null", '[{"rule_id":1}]', '[{"rule_id":"a"}]', '[{"bomb":"a"}]', '[{"expires_at_ms":true}]'],
)
def test_what_was_not_written_here_is_not_read(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        Quarantine.from_json(text, 1)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1_800), ("4h", 14_400), ("2d", 172_800)])
def test_a_duration_is_read(text: str, seconds: int) -> None:
    assert duration_ms(text) == seconds * 1000


@pytest.mark.parametrize("text", ["", "0m", "1", "m", "1w", "-1h", "1.5h", " 1h", "1h\n", "9999999s", "٣h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(NoDuration, match="write 90s"):
        duration_ms(text)
