"""Blank rows: what an action or an event brings with it."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from functions.core.attempt import Effect, History
from functions.core.decision import Repeat
from functions.core.event import Event
from functions.core.gate import WaitingFor
from functions.core.integration import INTAKE
from functions.core.recovery import (
    Row,
    Status,
    Subject,
    action_recovery_id,
    claim,
    event_recovery_id,
    failed_first,
    parked_first,
)
from functions.core.retry import RetryPolicy
from functions.core.rows import action_row, event_row, name_of, stand_in_row, unreadable_row
from tests.unit.builders import DAY, HTTP_503, NOON_MS, RULES, SECOND, Chance, action, decision

EVENT = Event("acme", "shop", "p", "support", "m-1", "message.created", "1", NOON_MS, "q0", "00-t", "h1", "c", b"{}")
TAG = action(Repeat.IDEMPOTENT, instead_of="lookup", priority=2, expires_seconds=60)
REPLY = action(Repeat.LOOKUP, expires_seconds=900, priority=3)
MADE = decision(REPLY, TAG)
TAKEOVER = History(
    had_lease=True, may_have_been_sent=True, first_sent_at_ms=NOON_MS, last_possible_send_ms=NOON_MS + 65 * SECOND
)


def row_of(repeat: Repeat = Repeat.LOOKUP, history: History | None = None) -> Row:
    """The blank of one action."""
    what = REPLY if repeat is Repeat.LOOKUP else action(repeat)
    return action_row(EVENT, MADE, what, 0, "envelopes/1", NOON_MS + 5, history or History())


def test_an_actions_row_carries_what_every_later_send_needs_001_42() -> None:
    row = row_of()
    assert row.recovery_id == action_recovery_id(REPLY.action_id)
    assert (row.subject, row.status, row.integration_id) == (Subject.ACTION, Status.PENDING, "helpdesk")
    assert (row.event_name, row.event_version, row.source, row.tenant, row.flow) == (
        "message.created",
        "1",
        "shop",
        "acme",
        "support",
    )
    assert (row.request_id, row.origin_request_id, row.traceparent) == ("q0", "q0", "00-t")
    assert (row.action, row.stand_in, row.priority) == (REPLY, TAG, 3)
    assert row.expires_at_ms == NOON_MS + 900 * SECOND
    assert row.effect is Effect.NONE


@pytest.mark.parametrize("repeat", Repeat)
def test_a_takeover_of_the_first_pass_leaves_an_unknown_effect_where_a_second_would_do_harm(repeat: Repeat) -> None:
    row = row_of(repeat, TAKEOVER)
    harmless = repeat in (Repeat.IDEMPOTENT, Repeat.SETTING)
    assert row.effect is (Effect.NONE if harmless else Effect.UNKNOWN)
    assert row.last_possible_send_ms == TAKEOVER.last_possible_send_ms


def test_a_stand_in_starts_from_nothing_whatever_became_of_what_it_stands_in_for() -> None:
    policy = RetryPolicy(1, ())
    parent = failed_first(row_of(), RULES[Repeat.LOOKUP], policy, HTTP_503, NOON_MS, Chance(), 1.0).after
    assert parent.verify_only
    held = claim(parent, parent.due_at_ms, parent.due_at_ms + SECOND, "q1").after
    row = stand_in_row(held, NOON_MS + DAY)
    assert row is not None
    fresh = action_row(EVENT, MADE, TAG, 0, "envelopes/1", NOON_MS + DAY, History())
    differing = {name for name in (f.name for f in fields(Row)) if getattr(row, name) != getattr(fresh, name)}
    assert differing == {"request_id", "expires_at_ms"}
    assert row.expires_at_ms == NOON_MS + DAY + 60 * SECOND
    assert parked_first(row, WaitingFor.NOTHING, "stands in", NOON_MS + DAY).after.is_open


def test_an_action_nobody_stands_in_for_has_no_stand_in() -> None:
    assert stand_in_row(replace(row_of(), stand_in=None), NOON_MS) is None


def test_an_events_row_belongs_to_intake() -> None:
    row = event_row(EVENT, "envelopes/1", NOON_MS)
    assert (row.integration_id, row.subject, row.action) == (INTAKE, Subject.EVENT, None)
    assert row.recovery_id == event_recovery_id("acme", "shop:m-1", 0)
    assert event_row(EVENT, "", NOON_MS, "h2").recovery_id != row.recovery_id
    assert row.expires_at_ms == NOON_MS + 120 * DAY


def test_an_events_row_expires_with_its_envelope_which_is_as_old_as_the_event_if_that_was_checked_in() -> None:
    much_later = NOON_MS + 20 * DAY
    assert event_row(EVENT, "envelopes/acme/1", much_later).expires_at_ms == much_later + 120 * DAY
    assert event_row(EVENT, "claims/acme/1", much_later).expires_at_ms == NOON_MS + 120 * DAY


def test_a_message_that_is_no_envelope_has_the_same_row_each_time_it_comes() -> None:
    contents = (b"{", b"{", b"[", b"\xff", b"\xfe", b"")
    names = [name_of(content) for content in contents]
    assert len(set(names)) == len(set(contents))
    one, again = unreadable_row(names[0], "raw/1", NOON_MS, "q1"), unreadable_row(names[1], "raw/1", NOON_MS + 9, "q2")
    assert one.recovery_id == again.recovery_id != unreadable_row(names[2], "raw/2", NOON_MS, "q1").recovery_id
    assert (one.tenant, one.source, one.integration_id, one.envelope_ref) == ("unknown", "unknown", INTAKE, "raw/1")
