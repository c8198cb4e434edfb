"""Which promise is about what a switch says, and when it is kept."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from functions.core.ports import SwitchVersion
from functions.core.switch_history import REASON_LENGTH
from functions.core.switch_returns import MOST, InvalidReturn, Return, Returns, Verdict, returned, said, verdict
from tests.fakes import NOON_MS

HOUR_MS = 3_600_000
PROMISE = Return("p1", "auto_reply", "off", 2, "on", NOON_MS + HOUR_MS, "ada", "why", "ada: why", "request-1")
BEFORE = SwitchVersion("auto_reply", 1, "on", NOON_MS)
NOW = SwitchVersion("auto_reply", 2, "off", NOON_MS, "role", "ada: why")
ASKED = returned(PROMISE)


@pytest.mark.parametrize(
    ("latest", "kept", "expected"),
    [
        (NOW, [BEFORE, NOW], Verdict.KEEP),
        (None, [], Verdict.DROP),
        (replace(NOW, version=3), [NOW], Verdict.DROP),
        (replace(NOW, value="on"), [NOW], Verdict.DROP),
        (replace(NOW, name="replay"), [NOW], Verdict.DROP),
        (BEFORE, [BEFORE], Verdict.DROP),
        (NOW, [BEFORE], Verdict.WAIT),
        (NOW, [replace(NOW, reason="bert: by hand")], Verdict.DROP),
    ],
)
def test_what_becomes_of_a_promise(latest: SwitchVersion | None, kept: list[SwitchVersion], expected: Verdict) -> None:
    assert verdict(PROMISE, latest, kept) is expected


def test_a_long_description_is_known_by_what_the_history_keeps_of_it() -> None:
    long = replace(PROMISE, description="a" * 1000)
    assert verdict(long, NOW, [replace(NOW, reason="a" * REASON_LENGTH)]) is Verdict.KEEP


def test_the_promise_about_what_a_switch_says_is_found_and_survives_another_that_may_fail() -> None:
    made = Returns().with_promise(PROMISE, BEFORE, NOON_MS, ASKED)
    assert (made.before, made.audit, made.after.version) == (Returns(), (ASKED,), 1)
    assert (made.after.of(NOW), made.after.of(BEFORE), made.after.of(None)) == (PROMISE, None, None)
    longer = replace(PROMISE, return_id="p2", version=3, until_ms=NOON_MS + 2 * HOUR_MS)
    both = made.after.with_promise(longer, NOW, NOON_MS, ASKED).after
    assert both.promises == (PROMISE, longer)
    stale = both.with_promise(replace(longer, return_id="p3"), NOW, NOON_MS, ASKED).after
    assert [one.return_id for one in stale.promises] == ["p1", "p3"], "of those that never came to be none stays"
    other = replace(PROMISE, return_id="p4", name="mode", value="hold", back_to="live")
    assert len(stale.with_promise(other, None, NOON_MS, ASKED).after.promises) == 3


def test_a_promise_is_moved_and_dropped() -> None:
    other = replace(PROMISE, return_id="p2", name="replay")
    known = Returns((PROMISE, other), 4)
    assert known.moved(PROMISE, 9).after == Returns((other, replace(PROMISE, version=9)), 5)
    assert known.without({"p1"}).after == Returns((other,), 5)


@pytest.mark.parametrize(
    ("promise", "says"),
    [
        (replace(PROMISE, until_ms=NOON_MS + 59_999), "1m to 30d"),
        (replace(PROMISE, until_ms=NOON_MS + 30 * 24 * HOUR_MS + 1), "1m to 30d"),
        (replace(PROMISE, back_to="off"), "nothing would come back"),
    ],
)
def test_a_promise_that_cannot_be_is_refused(promise: Return, says: str) -> None:
    with pytest.raises(InvalidReturn, match=says):
        Returns().with_promise(promise, BEFORE, NOON_MS, ASKED)


def test_there_are_no_more_promises_than_are_read() -> None:
    full = Returns(tuple(replace(PROMISE, return_id=f"p{n}", name=f"tenant/t{n}/mode") for n in range(MOST)), 1)
    with pytest.raises(InvalidReturn, match=str(MOST)):
        full.with_promise(PROMISE, BEFORE, NOON_MS, ASKED)


def test_the_audit_s_line_of_a_kept_promise_is_the_same_however_often_it_is_written() -> None:
    event = returned(PROMISE)
    assert event == returned(PROMISE)
    assert (event.actor, event.at_ms, event.reason) == ("holdfast", PROMISE.until_ms, said(PROMISE))
    assert json.loads(event.before_state) == {"value": "off", "version": 2}
    assert json.loads(event.after_state) == {"value": "on"}


def test_promises_are_read_back_as_they_were_written() -> None:
    known = Returns((PROMISE, replace(PROMISE, return_id="p2")), 7)
    assert Returns.from_json(known.to_json(), 7) == known


@pytest.mark.parametrize("text", ["7", "[7]", "[{}]", "nonsense", json.dumps([{"return_id": 1}])])
def test_what_was_not_written_here_is_not_read(text: str) -> None:
    with pytest.raises((TypeError, ValueError)):
        Returns.from_json(text, 1)
