"""What a dead message is found to be a sign of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from functions.core.decision import Classification, DecidedBy, Decision, Mode
from functions.core.failure import RootCause
from functions.core.ledger import LedgerItem, LedgerStatus, ledger_key
from functions.core.ports import Hint
from functions.core.recovery import DEAD_HINT_LIMIT, Status
from functions.core.triage import (
    Again,
    Delivery,
    Finding,
    Handled,
    TooEarly,
    judge_event,
    judge_hint,
    judge_refused,
    judge_spilled_unreadable,
    judge_unreadable,
)
from tests.fakes import NOON_MS
from tests.recovery_rows import dead, event, row

DELIVERY = Delivery("message-1", "events-dlq", 11, NOON_MS - 5_000, work_receives=10)
EVENT = event()


def item(**fields: Any) -> LedgerItem:
    sound: dict[str, Any] = {
        "key": ledger_key(EVENT),
        "status": LedgerStatus.SETTLED,
        "owner": "o-1",
        "generation": 1,
        "lease_until_ms": 0,
        "received_at_ms": EVENT.received_at_ms,
        "epoch_ms": EVENT.epoch_ms,
        "payload_hash": EVENT.payload_hash,
        "decision": Decision("support", Mode.LIVE, Classification("x", 1.0, DecidedBy.RULES, "1"), (), NOON_MS),
    }
    return LedgerItem(**{**sound, **fields})


def judged(*items: LedgerItem | None, now_ms: int = NOON_MS) -> object:
    return judge_event(EVENT, items or (None, None), DELIVERY, now_ms)


def test_an_event_that_is_settled_needs_no_row_001_43() -> None:
    assert judged(item(), None) == Handled("settled")


def test_an_event_that_was_settled_in_shadow_mode_needs_no_row_either() -> None:
    assert judged(None, item()) == Handled("settled")


def test_what_shadow_settled_says_nothing_of_an_event_that_was_claimed_for_real() -> None:
    stuck = item(status=LedgerStatus.PROCESSING, generation=9, lease_until_ms=NOON_MS - 1)
    found = judged(stuck, item())
    assert isinstance(found, Finding)
    assert found.root_cause is RootCause.CODE_DEFECT


def test_an_event_that_a_worker_is_at_is_left_for_later() -> None:
    held = item(status=LedgerStatus.PROCESSING, lease_until_ms=NOON_MS + 9_000)
    assert judged(held, None) == TooEarly(NOON_MS + 9_000)


def test_an_event_that_no_worker_ever_claimed_points_at_the_infrastructure_001_43() -> None:
    finding = judged(None, None)
    assert isinstance(finding, Finding)
    assert (finding.root_cause, finding.status) == (RootCause.TRANSIENT_INFRA, Status.DLQ)
    assert "received 11 times" in finding.evidence


def test_an_event_claimed_again_and_again_without_an_end_points_at_the_code_001_43() -> None:
    finding = judged(item(status=LedgerStatus.PROCESSING, generation=7, lease_until_ms=NOON_MS - 1), None)
    assert isinstance(finding, Finding)
    assert finding.root_cause is RootCause.CODE_DEFECT
    assert "claimed 7 times" in finding.evidence


@pytest.mark.parametrize(
    ("claims", "cause"),
    [(1, RootCause.TRANSIENT_INFRA), (4, RootCause.TRANSIENT_INFRA), (5, RootCause.CODE_DEFECT)],
)
def test_receives_that_came_to_no_claim_point_at_what_a_claim_needs_and_not_at_the_code_001_43(
    claims: int, cause: RootCause
) -> None:
    """Its first worker lost the table before it could settle, and the others could not even read it."""
    finding = judged(item(status=LedgerStatus.PROCESSING, generation=claims, lease_until_ms=NOON_MS - 1), None)
    assert isinstance(finding, Finding)
    assert (finding.code, finding.status, finding.root_cause) == ("NEVER_SETTLED", Status.DLQ, cause)
    assert f"claimed {claims} times" in finding.evidence


def test_how_often_triage_itself_has_looked_at_a_message_says_nothing_of_it() -> None:
    stuck = item(status=LedgerStatus.PROCESSING, generation=8, lease_until_ms=NOON_MS - 1)
    finding = judge_event(EVENT, [stuck, None], replace(DELIVERY, receive_count=300), NOON_MS)
    assert isinstance(finding, Finding)
    assert finding.root_cause is RootCause.CODE_DEFECT


def test_another_payload_under_a_known_id_is_for_a_person_as_it_is_in_the_worker() -> None:
    finding = judged(item(payload_hash="b" * 64), None)
    assert isinstance(finding, Finding)
    assert (finding.code, finding.status) == ("PAYLOAD_MISMATCH", Status.FAILED)
    assert finding.root_cause is RootCause.BAD_SOURCE_DATA


def test_an_equal_message_after_the_repeat_window_is_an_event_of_its_own() -> None:
    again = event(repeat_window_seconds=600)
    old = item(epoch_ms=again.received_at_ms - 600_001)
    finding = judge_event(again, [old, None], DELIVERY, NOON_MS)
    assert isinstance(finding, Finding)
    assert finding.root_cause is RootCause.TRANSIENT_INFRA


def test_a_message_of_another_form_points_at_the_schema_001_43() -> None:
    finding = judge_unreadable(DELIVERY, "envelope version 7 is not 1")
    assert finding.root_cause is RootCause.SCHEMA_MISMATCH
    assert "envelope version 7" in finding.evidence


def test_what_cannot_leave_the_spill_for_the_queue_says_where_it_lay_and_why_001_43() -> None:
    unreadable = judge_spilled_unreadable("spill/1-a", "the message is not JSON")
    refused = judge_refused("spill/1-b", "InvalidMessageContents")
    assert (unreadable.code, unreadable.root_cause) == ("UNREADABLE_MESSAGE", RootCause.SCHEMA_MISMATCH)
    assert (refused.code, refused.root_cause) == ("REFUSED_BY_QUEUE", RootCause.BAD_SOURCE_DATA)
    assert unreadable.status is refused.status is Status.DLQ
    assert "the message is not JSON" in unreadable.evidence
    assert "spill/1-a" in unreadable.evidence
    assert "InvalidMessageContents" in refused.evidence
    assert "spill/1-b" in refused.evidence


# -------------------------------------------------------------------------------------------------------------- hints


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('{"recovery_id":"r1","version":3}', Hint("r1", 3)),
        ('{"recovery_id":"r1","version":3,"more":1}', Hint("r1", 3)),
        ('{"recovery_id":"","version":3}', None),
        ('{"recovery_id":"r1","version":true}', None),
        ('{"recovery_id":"r1"}', None),
        ('{"recovery_id":7,"version":3}', None),
        ("[1]", None),
        ("not json", None),
        ("[" * 100_000, None),
    ],
)
def test_a_hint_is_told_by_its_content(message: str, expected: Hint | None) -> None:
    assert Hint.from_message(message) == expected


def test_a_hint_that_a_queue_gave_up_says_nothing_against_its_row_001_43() -> None:
    """Forty minutes without a table use up its receives."""
    found = judge_hint(row(version=4), Hint("r", 4), DELIVERY, NOON_MS)
    assert found == Again("a hint led to nothing, this one at version 4; received 11 times, last in events-dlq")


def test_nor_do_the_hints_that_were_under_way_when_the_first_of_them_was_given_up() -> None:
    counted = row(version=9, dead_hints=1, dead_hint_version=9)
    for version in (4, 5, 9):
        assert judge_hint(counted, Hint("r", version), DELIVERY, NOON_MS) == Handled("counted")


@pytest.mark.parametrize("dead_hints", range(DEAD_HINT_LIMIT))
def test_hint_after_hint_that_came_to_nothing_is_poison_at_the_third(dead_hints: int) -> None:
    again = row(version=12, dead_hints=dead_hints, dead_hint_version=9 if dead_hints else 0)
    found = judge_hint(again, Hint("r", 10), DELIVERY, NOON_MS)
    if dead_hints + 1 < DEAD_HINT_LIMIT:
        assert isinstance(found, Again)
    else:
        assert isinstance(found, Finding)
        assert (found.code, found.root_cause) == ("POISONED", RootCause.CODE_DEFECT)
        assert "3 hints in a row led to nothing" in found.evidence


def test_a_hint_whose_row_was_worked_on_since_is_needless() -> None:
    moved = row(version=9, updated_at_ms=NOON_MS - 4_999)
    assert judge_hint(moved, Hint("r", 4), DELIVERY, NOON_MS) == Handled("moved")


def test_a_hint_at_an_ended_row_is_needless() -> None:
    assert judge_hint(dead(), Hint("r", 1), DELIVERY, NOON_MS) == Handled("ended")


def test_a_hint_whose_row_is_under_way_is_left_for_later() -> None:
    assert judge_hint(row(lease_until_ms=NOON_MS + 1), Hint("r", 1), DELIVERY, NOON_MS) == TooEarly(NOON_MS + 1)
