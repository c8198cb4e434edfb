"""Who may process an event (architecture §6)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.core.decision import Repeat
from functions.core.event import Event
from functions.core.ledger import (
    RETENTION_SECONDS,
    ActionMark,
    ActionStatus,
    Afresh,
    Busy,
    Claim,
    Duplicate,
    Fresh,
    LedgerItem,
    LedgerStatus,
    Mismatch,
    TakeOver,
    admit,
    decided,
    ledger_key,
)
from tests.unit.builders import DAY, NOON_MS, SECOND, action, decision

WINDOW_SECONDS = 600


def event(**fields: Any) -> Event:
    """A delivery at noon."""
    plain: dict[str, Any] = {
        "tenant": "acme",
        "source": "shop",
        "provider": "standard",
        "flow": "support",
        "identity": "m-1",
        "event_name": "message.created",
        "event_version": "1",
        "received_at_ms": NOON_MS,
        "request_id": "q0",
        "traceparent": "",
        "payload_hash": "h1",
        "content_type": "application/json",
        "body": b"{}",
    }
    return Event(**(plain | fields))


def item(status: LedgerStatus, **fields: Any) -> LedgerItem:
    """The item of that delivery."""
    plain: dict[str, Any] = {
        "key": "E#acme#shop:m-1",
        "status": status,
        "owner": "o1",
        "generation": 1,
        "lease_until_ms": NOON_MS + 65 * SECOND,
        "received_at_ms": NOON_MS,
        "epoch_ms": 0,
        "payload_hash": "h1",
        "decision": decision(action(Repeat.IDEMPOTENT)),
    }
    return LedgerItem(**(plain | fields))


def test_shadow_has_keys_of_its_own_002_30() -> None:
    assert ledger_key(event()) == "E#acme#shop:m-1"
    assert ledger_key(event(), is_shadow=True) == "S#acme#shop:m-1"


def test_an_event_nobody_has_seen_is_fresh() -> None:
    assert admit(None, event(), NOON_MS) == Fresh()


def test_an_event_in_work_is_left_alone_until_its_lease_has_ended_002_19() -> None:
    working = item(LedgerStatus.PROCESSING)
    assert admit(working, event(), working.lease_until_ms - 1) == Busy(working.lease_until_ms)
    assert admit(working, event(), working.lease_until_ms) == TakeOver(working)


def test_a_settled_event_is_a_duplicate_for_ever_002_11() -> None:
    settled = item(LedgerStatus.SETTLED)
    assert admit(settled, event(received_at_ms=NOON_MS + 30 * DAY), NOON_MS + 30 * DAY) == Duplicate(in_window=False)


@pytest.mark.parametrize("status", LedgerStatus)
def test_another_payload_under_the_same_id_is_for_a_person(status: LedgerStatus) -> None:
    assert admit(item(status), event(payload_hash="h2"), NOON_MS + DAY) == Mismatch()


def test_without_ids_the_same_message_is_a_duplicate_within_its_window_and_a_new_event_after_it() -> None:
    settled = item(LedgerStatus.SETTLED, epoch_ms=NOON_MS)
    again = event(repeat_window_seconds=WINDOW_SECONDS, received_at_ms=NOON_MS + WINDOW_SECONDS * 1000)
    assert admit(settled, again, NOON_MS) == Duplicate(in_window=True)
    later = replace(again, received_at_ms=again.received_at_ms + 1)
    assert admit(settled, later, NOON_MS) == Afresh(NOON_MS)


def test_the_redelivery_of_one_message_stays_a_duplicate_however_late_it_is_seen() -> None:
    settled = item(LedgerStatus.SETTLED, epoch_ms=NOON_MS)
    same = event(repeat_window_seconds=WINDOW_SECONDS)
    assert admit(settled, same, NOON_MS + 3 * DAY) == Duplicate(in_window=True)


def test_an_older_message_than_the_one_settled_is_no_new_event() -> None:
    settled = item(LedgerStatus.SETTLED, epoch_ms=NOON_MS + DAY)
    seen = admit(settled, event(repeat_window_seconds=WINDOW_SECONDS), NOON_MS + DAY)
    assert seen == Duplicate(in_window=True, is_overtaken=True)


@given(st.sampled_from(LedgerStatus), st.integers(-DAY, DAY), st.integers(0, 1200), st.integers(-DAY, DAY))
def test_a_settled_event_is_never_taken_over_and_one_in_work_never_acknowledged(
    status: LedgerStatus, lease_ms: int, window_seconds: int, received_ms: int
) -> None:
    found = item(status, lease_until_ms=NOON_MS + lease_ms, epoch_ms=NOON_MS if window_seconds else 0)
    seen = admit(found, event(repeat_window_seconds=window_seconds, received_at_ms=NOON_MS + received_ms), NOON_MS)
    if status is LedgerStatus.PROCESSING:
        assert seen == (Busy(found.lease_until_ms) if lease_ms > 0 else TakeOver(found))
    else:
        is_new = bool(window_seconds) and received_ms > window_seconds * 1000
        is_overtaken = bool(window_seconds) and received_ms < -window_seconds * 1000
        known = Duplicate(in_window=window_seconds > 0, is_overtaken=is_overtaken)
        assert seen == (Afresh(NOON_MS) if is_new else known)


def claim_of(what: Event) -> Claim:
    """The claim of an event with two actions."""
    return Claim(
        key=ledger_key(what),
        owner="o1",
        now_ms=NOON_MS + 999,
        lease_until_ms=NOON_MS + 65 * SECOND,
        received_at_ms=what.received_at_ms,
        epoch_ms=what.epoch_ms,
        payload_hash=what.payload_hash,
        decision=decision(action(Repeat.IDEMPOTENT), action(Repeat.SETTING)),
    )


def test_a_claim_stores_every_action_as_todo_and_keeps_the_item_longer_than_any_duplicate_can_take() -> None:
    claim = claim_of(event())
    assert claim.marks == {"idempotent": ActionMark(ActionStatus.TODO), "setting": ActionMark(ActionStatus.TODO)}
    assert claim.expires_at_s == NOON_MS // 1000 + RETENTION_SECONDS
    assert RETENTION_SECONDS == 35 * 86_400


def test_the_stored_decision_is_bound_to_the_items_epoch_so_that_a_repeat_after_the_window_has_other_keys() -> None:
    one, other = item(LedgerStatus.PROCESSING, epoch_ms=1), item(LedgerStatus.PROCESSING, epoch_ms=2)
    ids = {decided(found, event()).actions[0].action_id for found in (one, other)}
    assert len(ids) == 2
    assert decided(one, event()) == decided(replace(one, generation=9, owner="o2"), event())
