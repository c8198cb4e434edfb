"""Every change of a switch is found once, with before, after and who."""

from __future__ import annotations

import json
from dataclasses import replace

from functions.core.audit import AuditType, Severity
from functions.core.ports import AuditedSwitch, SwitchVersion
from functions.core.switch_history import changes_of, gone, is_news, missing
from tests.fakes import NOON_MS

FIRST = SwitchVersion("auto_reply", 1, "on", NOON_MS, "arn:deploy")
SECOND = SwitchVersion("auto_reply", 2, "off", NOON_MS + 1_000, "arn:anna", "wrong answers")
THIRD = SwitchVersion("auto_reply", 3, "on", NOON_MS + 2_000, "arn:ben")
MARK = AuditedSwitch(1, "on", NOON_MS)


def anonymous(one: SwitchVersion) -> SwitchVersion:
    """As the list of parameters gives it."""
    return replace(one, changed_by="")


def test_a_switch_seen_for_the_first_time_is_recorded_with_its_value_and_author() -> None:
    found = changes_of(None, anonymous(FIRST), [FIRST])
    (event,) = found.events
    assert (event.event_type, event.actor, event.reason) == (AuditType.SWITCH_CHANGED, "arn:deploy", "first seen")
    assert (event.before_state, json.loads(event.after_state)) == ("", {"value": "on", "version": 1})
    assert found.mark == MARK


def test_two_changes_within_a_minute_are_two_events_with_before_after_and_actor_each() -> None:
    found = changes_of(MARK, anonymous(THIRD), [FIRST, SECOND, THIRD])
    assert [
        (each.actor, json.loads(each.before_state)["value"], json.loads(each.after_state)["value"])
        for each in found.events
    ] == [
        ("arn:anna", "on", "off"),
        ("arn:ben", "off", "on"),
    ]
    assert [each.at_ms for each in found.events] == [NOON_MS + 1_000, NOON_MS + 2_000]
    assert found.mark == AuditedSwitch(3, "on", NOON_MS + 2_000)


def test_the_same_change_found_again_is_the_same_event() -> None:
    assert changes_of(MARK, anonymous(SECOND), [FIRST, SECOND]) == changes_of(MARK, anonymous(SECOND), [FIRST, SECOND])
    ids = {each.id for each in changes_of(None, anonymous(THIRD), [FIRST, SECOND, THIRD]).events}
    assert len(ids) == 3
    assert {each.id for each in changes_of(MARK, anonymous(THIRD), [FIRST, SECOND, THIRD]).events} < ids


def test_a_version_that_the_history_does_not_show_yet_is_recorded_without_an_author() -> None:
    (event,) = changes_of(MARK, anonymous(SECOND), [FIRST]).events
    assert (event.actor, json.loads(event.after_state)["value"]) == ("unknown", "off")


def test_a_version_newer_than_the_list_is_left_for_the_next_look() -> None:
    assert changes_of(MARK, anonymous(SECOND), [FIRST, SECOND, THIRD]).mark == AuditedSwitch(2, "off", NOON_MS + 1_000)


def test_versions_that_the_store_has_forgotten_are_said_to_be_missing() -> None:
    late = SwitchVersion("auto_reply", 150, "off", NOON_MS + 9_000, "arn:anna")
    (event,) = changes_of(MARK, anonymous(late), [late]).events
    assert event.reason == "148 earlier versions are not in the parameter's history any more"


def test_a_parameter_made_anew_under_an_old_number_is_a_change() -> None:
    anew = SwitchVersion("auto_reply", 1, "off", NOON_MS + 5_000, "arn:anna")
    assert is_news(MARK, anonymous(anew))
    (event,) = changes_of(MARK, anonymous(anew), [anew]).events
    assert event.reason == "deleted and made anew"
    assert json.loads(event.before_state)["value"] == "on"
    older = AuditedSwitch(7, "on", NOON_MS)
    assert changes_of(older, anonymous(anew), [anew]).mark == AuditedSwitch(1, "off", NOON_MS + 5_000)


def test_a_value_that_nobody_can_read_is_an_error() -> None:
    wrong = SwitchVersion("auto_reply", 2, "perhaps", NOON_MS + 1_000, "arn:anna")
    (event,) = changes_of(MARK, anonymous(wrong), [FIRST, wrong]).events
    assert event.severity is Severity.ERROR
    assert event.error.startswith("INVALID_VALUE")


def test_nothing_is_news_while_version_and_time_are_those_of_the_mark() -> None:
    assert not is_news(MARK, anonymous(FIRST))
    assert is_news(MARK, anonymous(SECOND))
    assert is_news(None, anonymous(FIRST))


def test_a_deleted_switch_is_recorded_at_the_second_look_under_the_time_of_the_first() -> None:
    assert missing({"auto_reply": MARK, "mode": MARK}, {"mode": FIRST}) == ["auto_reply"]
    first = gone("auto_reply", MARK, NOON_MS + 60_000)
    assert first.events == ()
    assert first.mark == replace(MARK, missing_since_ms=NOON_MS + 60_000)
    second = gone("auto_reply", first.mark, NOON_MS + 120_000)
    (event,) = second.events
    assert second.mark is None
    assert (event.at_ms, event.reason, event.severity) == (NOON_MS + 60_000, "deleted", Severity.ERROR)
    assert gone("auto_reply", first.mark, NOON_MS + 180_000) == second


def test_a_switch_that_was_missing_once_and_is_back_unchanged_is_no_change() -> None:
    back = replace(MARK, missing_since_ms=NOON_MS + 60_000)
    assert is_news(back, anonymous(FIRST))
    found = changes_of(back, anonymous(FIRST), [FIRST])
    assert found.events == ()
    assert found.mark == MARK


def test_the_reason_that_came_with_a_change_is_in_its_audit() -> None:
    """002.14: who turned the switch, and why."""
    mark = AuditedSwitch(FIRST.version, FIRST.value, FIRST.changed_at_ms)
    (event,) = changes_of(mark, SECOND, [FIRST, SECOND]).events
    assert (event.actor, event.reason) == ("arn:anna", "wrong answers")
