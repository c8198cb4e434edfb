"""Each machine of core keeps to its table, and each line of a table can be walked (docs/states.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from functions.core.attempt import Effect, Superseded
from functions.core.decision import Repeat
from functions.core.failure import Done, IllegalTransition, RootCause
from functions.core.gate import WaitingFor
from functions.core.ledger import ACTION, EVENT, ActionStatus, LedgerStatus
from functions.core.machine import ABSENT, Machine, steps
from functions.core.recovery import (
    ENDED,
    ROW,
    Change,
    NextWay,
    Row,
    Status,
    absent,
    after_attempt,
    annotate,
    by_hand,
    by_hand_first,
    claim,
    dead_first,
    defer,
    end,
    expired_first,
    failed_first,
    held_first,
    hint_died,
    hinted,
    hopped,
    hopped_first,
    parked_first,
    poisoned,
    put_off,
    quarantine,
    quarantined_first,
    release,
    replay,
    state_of,
    succeeded,
    suppress,
    suppressed_first,
    take_back,
    unknown_first,
    unknown_outcome,
    worker_died,
)
from functions.core.retry import RetryPolicy
from ops.states import MACHINES, PATH, text
from tests.unit.builders import (
    CONNECT_REFUSED,
    HTTP_401,
    HTTP_422,
    MINUTE,
    NOON_MS,
    RULES,
    SECOND,
    Chance,
    blank,
    stated_429,
)

RNG = Chance(1.0)
SMS = NextWay("messages_fallback", 1, "sms.send", "sms", Repeat.LOOKUP)
ONE, TWO = RetryPolicy(1, ()), RetryPolicy(2, (60,))


def test_the_page_of_states_is_made_from_the_tables() -> None:
    assert PATH.read_text(encoding="utf-8") == text(), "run: python -m ops.states"


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_no_table_says_two_things_of_one_event_but_the_rows_by_what_came_of_it(machine: Machine) -> None:
    lines = [(step.state, step.event, step.next) for step in machine.steps]
    assert len(set(lines)) == len(lines)
    starts = {step.state for step in machine.steps} - {step.next for step in machine.steps if step.state != step.next}
    is_always_there = ABSENT not in machine.states  # health: nobody makes an integration
    assert starts == (set() if is_always_there else {ABSENT}), "everything but the beginning can be reached"


def test_a_table_is_asked_by_state_and_event() -> None:
    machine = Machine(
        "lamp", "", steps((ABSENT, "make", "off", ""), ("off|on", "press", "=", ""), ("off", "turn", "on", ""))
    )
    assert machine.states == (ABSENT, "off", "on")
    assert machine.next("off", "turn") == "on"
    assert machine.next("on", "press") == "on"
    with pytest.raises(IllegalTransition, match="lamp: 'turn' cannot happen in 'on'"):
        machine.next("on", "turn")
    with pytest.raises(IllegalTransition, match="7: lamp has no way from 'on' to 'off'"):
        machine.require("on", "off", "7")


# ------------------------------------------------------------------------------------------------------ recovery rows


def first(**fields: Any) -> Row:
    """A blank of an action that can be looked up."""
    return replace(blank(Repeat.LOOKUP), **fields)


def pending() -> Row:
    return parked_first(first(), WaitingFor.HEALTH, "down", NOON_MS).after


def claimed(row: Row) -> Row:
    return claim(row, NOON_MS, NOON_MS + MINUTE, "req").after


def waiting() -> Row:
    return failed(claimed(pending()), CONNECT_REFUSED, RetryPolicy()).after


def failed(row: Row, failure: Any, policy: RetryPolicy = TWO) -> Change:
    return after_attempt(row, RULES[Repeat.LOOKUP], policy, failure, NOON_MS, RNG, 1.0, was_sent=True)


def rejected() -> Row:
    return failed_at_first(HTTP_422).after


def failed_at_first(failure: Any, policy: RetryPolicy = TWO) -> Change:
    return failed_first(first(), RULES[Repeat.LOOKUP], policy, failure, NOON_MS, RNG, 1.0)


def dead(status: Status) -> Row:
    return replace(first(), status=status, effect=replace(first()).effect, expires_at_ms=NOON_MS + MINUTE)


def replayed() -> Row:
    return replay(dead(Status.DLQ), NOON_MS, actor="ada", reason="why", request_id="r", job_id="j", scale=1.0).after


def abandoned(row: Row) -> Row:
    return replace(claimed(row), lease_until_ms=NOON_MS)


WALKS: dict[tuple[str, str, str], Callable[[], Change]] = {
    (ABSENT, "parked_first", "pending"): lambda: parked_first(first(), WaitingFor.HEALTH, "down", NOON_MS),
    (ABSENT, "failed_first", "pending"): lambda: failed_at_first(HTTP_401),
    (ABSENT, "failed_first", "retrying"): lambda: failed_at_first(CONNECT_REFUSED),
    (ABSENT, "hopped_first", "pending"): lambda: hopped_first(first(), SMS, "HTTP_422", NOON_MS, failed=rejected()),
    (ABSENT, "by_hand_first", "failed"): lambda: by_hand_first(first(), "a_row", "call them", "nothing is left"),
    (ABSENT, "failed_first", "failed"): lambda: failed_at_first(HTTP_422),
    (ABSENT, "failed_first", "dlq"): lambda: failed_at_first(CONNECT_REFUSED, ONE),
    (ABSENT, "suppressed_first|expired_first|held_first|quarantined_first", "failed"): lambda: suppressed_first(
        first(), "off"
    ),
    (ABSENT, "unknown_first", "failed"): lambda: unknown_first(first(), "died"),
    (ABSENT, "dead_first", "failed"): lambda: dead_first(first(), "X", "x", RootCause.CODE_DEFECT, Status.FAILED),
    (ABSENT, "dead_first", "dlq"): lambda: dead_first(first(), "X", "x", RootCause.CODE_DEFECT, Status.DLQ),
    ("pending", "hinted", "pending"): lambda: hinted(pending(), NOON_MS, 1.0),
    ("retrying", "hinted", "retrying"): lambda: hinted(waiting(), NOON_MS, 1.0),
    ("replayed", "hinted", "replayed"): lambda: hinted(replayed(), NOON_MS, 1.0),
    ("pending", "hint_died", "pending"): lambda: hint_died(pending(), "x", NOON_MS),
    ("retrying", "hint_died", "retrying"): lambda: hint_died(waiting(), "x", NOON_MS),
    ("replayed", "hint_died", "replayed"): lambda: hint_died(replayed(), "x", NOON_MS),
    ("pending", "put_off", "pending"): lambda: put_off(pending(), NOON_MS + 1),
    ("retrying", "put_off", "retrying"): lambda: put_off(waiting(), NOON_MS + 1),
    ("replayed", "put_off", "replayed"): lambda: put_off(replayed(), NOON_MS + 1),
    ("pending", "claim", "retrying"): lambda: claim(pending(), NOON_MS, NOON_MS + 1, "r"),
    ("retrying", "claim", "retrying"): lambda: claim(waiting(), NOON_MS + MINUTE, NOON_MS + 2 * MINUTE, "r"),
    ("replayed", "claim", "replayed"): lambda: claim(replayed(), NOON_MS, NOON_MS + 1, "r"),
    ("pending", "defer", "pending"): lambda: defer(pending(), WaitingFor.SWITCH, "x", NOON_MS, NOON_MS, uncount=False),
    ("retrying", "defer", "retrying"): lambda: defer(
        waiting(), WaitingFor.SWITCH, "x", NOON_MS, NOON_MS, uncount=False
    ),
    ("replayed", "defer", "replayed"): lambda: defer(
        replayed(), WaitingFor.SWITCH, "x", NOON_MS, NOON_MS, uncount=False
    ),
    ("retrying", "defer", "pending"): lambda: defer(
        claimed(pending()), WaitingFor.SWITCH, "x", NOON_MS, NOON_MS, uncount=True
    ),
    ("pending", "release", "pending"): lambda: release(replace(pending(), waits_for=("p",)), "p", NOON_MS),
    ("pending", "hopped", "pending"): lambda: hopped(pending(), SMS, "down", NOON_MS),
    ("retrying", "hopped", "pending"): lambda: hopped(waiting(), SMS, "down", NOON_MS),
    ("replayed", "hopped", "replayed"): lambda: hopped(replayed(), SMS, "down", NOON_MS),
    ("pending", "by_hand", "failed"): lambda: by_hand(pending(), "a_row", "call them", "nothing is left", NOON_MS),
    ("retrying", "by_hand", "failed"): lambda: by_hand(waiting(), "a_row", "call them", "nothing is left", NOON_MS),
    ("replayed", "by_hand", "failed"): lambda: by_hand(replayed(), "a_row", "call them", "nothing is left", NOON_MS),
    ("retrying", "after_attempt", "retrying"): lambda: failed(claimed(pending()), CONNECT_REFUSED),
    ("retrying", "after_attempt", "pending"): lambda: failed(claimed(pending()), HTTP_401),
    ("replayed", "after_attempt", "replayed"): lambda: failed(claimed(replayed()), stated_429(SECOND)),
    ("retrying", "after_attempt", "failed"): lambda: failed(claimed(pending()), HTTP_422),
    ("replayed", "after_attempt", "failed"): lambda: failed(claimed(replayed()), HTTP_422),
    ("retrying", "after_attempt", "dlq"): lambda: failed(claimed(pending()), CONNECT_REFUSED, ONE),
    ("replayed", "after_attempt", "dlq"): lambda: failed(claimed(replayed()), CONNECT_REFUSED),
    ("retrying", "absent", "dlq"): lambda: absent(replace(claimed(pending()), verify_only=True), NOON_MS),
    ("replayed", "absent", "dlq"): lambda: absent(replace(claimed(replayed()), verify_only=True), NOON_MS),
    ("retrying", "unknown_outcome", "failed"): lambda: unknown_outcome(claimed(pending()), "x", NOON_MS),
    ("replayed", "unknown_outcome", "failed"): lambda: unknown_outcome(claimed(replayed()), "x", NOON_MS),
    ("retrying", "worker_died", "dlq"): lambda: worker_died(abandoned(pending()), NOON_MS),
    ("replayed", "worker_died", "dlq"): lambda: worker_died(abandoned(replayed()), NOON_MS),
    ("pending", "poisoned", "dlq"): lambda: poisoned(pending(), "x", NOON_MS),
    ("retrying", "poisoned", "dlq"): lambda: poisoned(waiting(), "x", NOON_MS),
    ("replayed", "poisoned", "dlq"): lambda: poisoned(replayed(), "x", NOON_MS),
    ("pending", "quarantine", "failed"): lambda: quarantine(pending(), "a rule", NOON_MS),
    ("retrying", "quarantine", "failed"): lambda: quarantine(waiting(), "a rule", NOON_MS),
    ("retrying", "suppress", "failed"): lambda: suppress(claimed(pending()), "off", NOON_MS),
    ("replayed", "suppress", "failed"): lambda: suppress(claimed(replayed()), "off", NOON_MS),
    ("retrying", "succeeded", "succeeded"): lambda: succeeded(claimed(pending()), Done(), NOON_MS),
    ("replayed", "succeeded", ENDED): lambda: succeeded(claimed(replayed()), Superseded(), NOON_MS),
    ("pending", "end", "failed"): lambda: end(pending(), "EXPIRED", "late", NOON_MS),
    ("retrying", "end", "failed"): lambda: end(waiting(), "DISMISSED", "no", NOON_MS),
    ("replayed", "end", "failed"): lambda: end(replayed(), "CANCELLED", "no", NOON_MS),
    ("failed", "end", "failed"): lambda: end(dead(Status.FAILED), "DONE_BY_HAND", "did it", NOON_MS),
    ("dlq", "end", "failed"): lambda: end(dead(Status.DLQ), "DISMISSED", "no", NOON_MS),
    ("replayed", "take_back", "failed"): lambda: take_back(
        replace(replayed(), replayed_from="failed"), NOON_MS, actor="ada", reason="enough"
    ),
    ("replayed", "take_back", "dlq"): lambda: take_back(replayed(), NOON_MS, actor="ada", reason="enough"),
    ("failed", "replay", "replayed"): lambda: replay(
        dead(Status.FAILED), NOON_MS, actor="a", reason="w", request_id="r", job_id="j", scale=1.0
    ),
    ("dlq", "replay", "replayed"): lambda: replay(
        dead(Status.DLQ), NOON_MS, actor="a", reason="w", request_id="r", job_id="j", scale=1.0
    ),
    ("pending", "annotate", "pending"): lambda: annotate(pending(), "a note", NOON_MS),
    ("retrying", "annotate", "retrying"): lambda: annotate(waiting(), "a note", NOON_MS),
    ("succeeded", "annotate", "succeeded"): lambda: annotate(
        succeeded(claimed(pending()), Done(), NOON_MS).after, "a note", NOON_MS
    ),
    ("failed", "annotate", "failed"): lambda: annotate(dead(Status.FAILED), "a note", NOON_MS),
    ("dlq", "annotate", "dlq"): lambda: annotate(dead(Status.DLQ), "a note", NOON_MS),
    ("replayed", "annotate", "replayed"): lambda: annotate(replayed(), "a note", NOON_MS),
    (ENDED, "annotate", ENDED): lambda: annotate(
        succeeded(claimed(replayed()), Superseded(), NOON_MS).after, "a note", NOON_MS
    ),
}


def test_every_line_of_the_rows_table_is_walked_here() -> None:
    assert set(WALKS) == {(step.state, step.event, step.next) for step in ROW.steps}


@pytest.mark.parametrize("line", WALKS, ids=lambda line: f"{line[0]}-{line[1].partition('|')[0]}-{line[2]}")
def test_a_row_can_walk_this_line_of_its_table_004_1(line: tuple[str, str, str]) -> None:
    change = WALKS[line]()
    assert (ABSENT if change.before is None else state_of(change.before)) == line[0]
    assert state_of(change.after) == line[2]


@pytest.mark.parametrize("begin", [expired_first, held_first, quarantined_first])
def test_what_was_stopped_untried_begins_as_failed(begin: Callable[[Row, str], Change]) -> None:
    assert begin(first(), "x").after.status is Status.FAILED


def test_no_rule_keeps_aside_what_a_person_has_sent_on_or_a_worker_is_at() -> None:
    """001.44: a replay is a person's word against the rule; and a live lease may be sending at this moment."""
    for row in (replayed(), dead(Status.DLQ), claimed(pending())):
        with pytest.raises(IllegalTransition):
            quarantine(row, "a rule", NOON_MS)


def test_what_a_dead_worker_may_have_sent_stays_in_doubt_when_a_rule_keeps_it_aside() -> None:
    abandoned = claimed(pending())
    after = quarantine(abandoned, "a rule", abandoned.lease_until_ms + 1).after
    assert (after.status, after.failure_code) == (Status.FAILED, "QUARANTINED")
    assert after.effect is Effect.UNKNOWN


def test_no_row_leaves_an_end_but_by_a_replay_or_a_dismissal_004_15() -> None:
    moving = [step for step in ROW.steps if step.event != "annotate"]
    assert not [step for step in moving if step.state in ("succeeded", ENDED)]
    leaving = {step.event for step in moving if step.state in ("failed", "dlq")}
    assert leaving == {"replay", "end"}
    assert all(step.state == step.next for step in ROW.steps if step not in moving)


# ------------------------------------------------------------------------------------------------- ledger and replays


def test_the_tables_of_the_ledger_know_every_status_and_no_other() -> None:
    assert set(EVENT.states) == {ABSENT, *(status.value for status in LedgerStatus)}
    assert set(ACTION.states) == {ABSENT, *(status.value for status in ActionStatus)}
    assert set(ROW.states) == {ABSENT, ENDED, *(status.value for status in Status)}


def test_an_action_that_was_decided_upon_is_not_decided_upon_again() -> None:
    ends = {"done", "superseded", "suppressed", "not_needed", "recovery"}
    assert not [step for step in ACTION.steps if step.state in ends]
