"""Whose an end is: each way to end is judged, and a code that nobody has thought of is people's.

000.10, 001.49, 003.1: no failure is silent.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.core.attempt import Effect
from functions.core.decision import COUNTED, REPLY_EXPIRES_SECONDS, Repeat
from functions.core.ends import Attention, attention
from functions.core.failure import RootCause
from functions.core.machine import ABSENT
from functions.core.person import OPTED_OUT_THERE
from functions.core.recovery import (
    ENDED,
    FINAL_CODES,
    ROW,
    Change,
    Row,
    Status,
    dead_first,
    end,
    expired_first,
    held_first,
    quarantine,
    quarantined_first,
    suppressed_first,
)
from tests.unit.builders import MINUTE, NOON_MS, action, blank, event_blank, parked
from tests.unit.test_core_machines import WALKS, abandoned, claimed, first, pending

NONE, LOOK, ACT = Attention.NONE, Attention.LOOK, Attention.ACT
ENDS = ("succeeded", "failed", "dlq", ENDED)

# Of a message to a customer: what its end asks for, and what it asks for if it must arrive.
EXPECTED: dict[tuple[str, str, str], tuple[Attention, Attention]] = {
    (ABSENT, "by_hand_first", "failed"): (LOOK, ACT),
    (ABSENT, "failed_first", "failed"): (LOOK, ACT),
    (ABSENT, "failed_first", "dlq"): (LOOK, ACT),
    (ABSENT, "suppressed_first|expired_first|held_first|quarantined_first", "failed"): (NONE, ACT),  # the first of them
    (ABSENT, "unknown_first", "failed"): (ACT, ACT),
    (ABSENT, "dead_first", "failed"): (ACT, ACT),
    (ABSENT, "dead_first", "dlq"): (ACT, ACT),
    ("pending", "by_hand", "failed"): (LOOK, ACT),
    ("retrying", "by_hand", "failed"): (LOOK, ACT),
    ("replayed", "by_hand", "failed"): (LOOK, ACT),
    ("retrying", "after_attempt", "failed"): (LOOK, ACT),
    ("replayed", "after_attempt", "failed"): (LOOK, ACT),
    ("retrying", "after_attempt", "dlq"): (LOOK, ACT),
    ("replayed", "after_attempt", "dlq"): (LOOK, ACT),
    ("retrying", "absent", "dlq"): (LOOK, ACT),
    ("replayed", "absent", "dlq"): (LOOK, ACT),
    ("retrying", "unknown_outcome", "failed"): (ACT, ACT),
    ("replayed", "unknown_outcome", "failed"): (ACT, ACT),
    ("retrying", "worker_died", "dlq"): (ACT, ACT),
    ("replayed", "worker_died", "dlq"): (ACT, ACT),
    ("pending", "poisoned", "dlq"): (ACT, ACT),
    ("retrying", "poisoned", "dlq"): (ACT, ACT),
    ("replayed", "poisoned", "dlq"): (ACT, ACT),
    ("pending", "quarantine", "failed"): (NONE, NONE),
    ("retrying", "quarantine", "failed"): (NONE, NONE),
    ("retrying", "suppress", "failed"): (NONE, ACT),
    ("replayed", "suppress", "failed"): (NONE, ACT),
    ("retrying", "succeeded", "succeeded"): (NONE, NONE),
    ("replayed", "succeeded", ENDED): (NONE, NONE),
    ("pending", "end", "failed"): (LOOK, ACT),  # EXPIRED; the others are people's own
    ("retrying", "end", "failed"): (NONE, NONE),
    ("replayed", "end", "failed"): (NONE, NONE),
    ("failed", "end", "failed"): (NONE, NONE),
    ("dlq", "end", "failed"): (NONE, NONE),
    ("replayed", "take_back", "failed"): (NONE, NONE),
    ("replayed", "take_back", "dlq"): (NONE, NONE),
    ("succeeded", "annotate", "succeeded"): (NONE, NONE),
    ("failed", "annotate", "failed"): (NONE, NONE),
    ("dlq", "annotate", "dlq"): (NONE, NONE),
    (ENDED, "annotate", ENDED): (NONE, NONE),
}


def to_a_customer(change: Change) -> Change:
    """The change of a message to a customer, instead of one of what moves money."""
    its_action = change.after.action
    assert its_action is not None
    return replace(change, after=replace(change.after, action=replace(its_action, customer_visible=True)))


def of(row: Row, *, is_critical: bool = False) -> Attention:
    """Of an end that came to be just now."""
    return attention(Change(row, None), is_critical=is_critical)


def ended(code: str, **fields: object) -> Row:
    """A message to a customer that is dead with that code, and had no effect."""
    change = to_a_customer(Change(replace(first(), status=Status.DLQ, failure_code=code), None))
    return replace(change.after, **fields)  # type: ignore[arg-type]  # fields of a row


def test_each_way_to_end_is_judged_here() -> None:
    """A transition that is added to the table and ends rows has to say whose that end is."""
    assert set(EXPECTED) == {(step.state, step.event, step.next) for step in ROW.steps if step.next in ENDS}


@pytest.mark.parametrize("line", WALKS, ids=lambda line: f"{line[0]}-{line[1].partition('|')[0]}-{line[2]}")
def test_each_way_to_end_is_peoples_or_says_why_not(line: tuple[str, str, str]) -> None:
    change = to_a_customer(WALKS[line]())
    usual, critical = EXPECTED.get(line, (NONE, NONE))  # what stays open is nobody's yet
    assert attention(change, is_critical=False) is usual
    assert attention(change, is_critical=True) is critical


@given(st.text(max_size=30), st.booleans())
def test_a_code_that_nobody_has_thought_of_is_peoples(code: str, is_critical: bool) -> None:
    known = {"CANCELLED", "DISMISSED", "DONE_BY_HAND", "HELD", "QUARANTINED", "SUPPRESSED", OPTED_OUT_THERE}
    found = of(ended(code), is_critical=is_critical)
    if code in known:
        assert (found is NONE) or is_critical
    else:
        assert found is (ACT if is_critical else LOOK)


@given(st.sampled_from(["HTTP_404", "EXPIRED", "HTTP_503", "SUPPRESSED"]))
def test_a_count_that_could_not_be_made_calls_nobody(code: str) -> None:
    """It is about a message that went out, whether or not that had to arrive: a ticket may be gone since."""
    row = ended(code)
    assert row.action is not None
    counting = replace(
        row, action=replace(row.action, customer_visible=False, params={COUNTED: "a"}), effect=Effect.NONE
    )
    counting = replace(counting, action=replace(counting.action or row.action, repeat=Repeat.IDEMPOTENT), hop_repeat="")
    assert of(counting, is_critical=True) is of(counting, is_critical=False) is not ACT


def test_of_the_ends_that_nothing_replays_only_the_clocks_is_peoples() -> None:
    assert {code for code in FINAL_CODES if of(ended(code), is_critical=True) is not NONE} == {"EXPIRED"}


def test_a_reply_that_came_too_late_asks_nobody_unless_it_must_arrive() -> None:
    reply = blank(Repeat.LOOKUP, action=action(Repeat.LOOKUP, expires_seconds=REPLY_EXPIRES_SECONDS))
    late = expired_first(reply, "too late")
    assert attention(late, is_critical=False) is NONE
    assert attention(late, is_critical=True) is ACT


@pytest.mark.parametrize("begin", [held_first, quarantined_first])
def test_what_a_person_has_asked_to_be_kept_asks_nobody(begin: object) -> None:
    for is_critical in (False, True):
        assert attention(begin(event_blank(), "a person's word"), is_critical=is_critical) is NONE  # type: ignore[operator]  # one of two


def test_what_may_have_happened_is_peoples_whatever_ended_it() -> None:
    """000.8: a switch, a rule or the clock do not make it known. Only who ends it by hand knows."""
    left = abandoned(pending())
    assert attention(quarantine(left, "a rule", NOON_MS), is_critical=False) is ACT
    for code in ("SUPPRESSED", "EXPIRED", "HTTP_503", OPTED_OUT_THERE):
        assert of(ended(code, effect=Effect.UNKNOWN)) is ACT
    assert of(ended("CANCELLED", effect=Effect.UNKNOWN)) is NONE


def test_a_whole_event_cannot_wait() -> None:
    for cause in RootCause:
        dead = dead_first(event_blank(), "UNREADABLE_EVENT", "x", cause, Status.FAILED)
        assert attention(dead, is_critical=False) is ACT
    expired = end(replace(event_blank(), due_at_ms=NOON_MS), "EXPIRED", "its envelope is gone", NOON_MS)
    assert attention(expired, is_critical=False) is ACT


@pytest.mark.parametrize("repeat", Repeat)
def test_what_moves_money_cannot_wait_and_what_only_we_see_can(repeat: Repeat) -> None:
    dead = replace(parked(repeat), status=Status.DLQ, failure_code="HTTP_422", root_cause="bad_source_data")
    expected = LOOK if repeat in (Repeat.IDEMPOTENT, Repeat.SETTING) else ACT
    assert of(dead) is expected
    assert of(replace(dead, root_cause="code_defect")) is ACT  # it goes on with the next one


def test_a_suppressed_message_that_must_arrive_is_a_persons_to_give() -> None:
    """001.49: also who opted out is told, by a person."""
    stopped = to_a_customer(suppressed_first(first(), "the recipient asked not to be contacted"))
    assert (attention(stopped, is_critical=False), attention(stopped, is_critical=True)) == (NONE, ACT)


def test_an_end_is_counted_once() -> None:
    """What a person does with an item that has ended is their own affair, and what was replayed may end again."""
    dead = replace(first(), status=Status.DLQ, failure_code="HTTP_503")
    assert attention(end(dead, "DISMISSED", "no", NOON_MS + MINUTE, actor="ada"), is_critical=True) is NONE
    assert attention(Change(dead, dead), is_critical=True) is NONE
    assert attention(Change(dead, claimed(pending())), is_critical=True) is ACT


def test_of_an_event_that_the_stage_sends_itself_nothing_is_lost_however_it_ends() -> None:
    """Its absence has an alarm of its own."""
    dead = dead_first(event_blank(), "UNREADABLE_EVENT", "?", RootCause.CODE_DEFECT, Status.DLQ)
    ours = replace(dead, after=replace(dead.after, flow="synthetic"))
    assert [attention(ours, is_critical=critical) for critical in (False, True)] == [NONE, NONE]
    assert attention(dead, is_critical=False) is ACT
