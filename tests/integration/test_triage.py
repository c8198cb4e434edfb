"""Dead-letter messages become recovery rows before they are let go, however triage itself may fail."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from functions import observability
from functions.core.audit import AuditType
from functions.core.decision import Repeat
from functions.core.event import Event
from functions.core.ledger import LedgerItem, LedgerStatus, ledger_key
from functions.core.recovery import DEAD_HINT_LIMIT, Row, Status, Subject, hinted, why_not_replayable
from functions.triage.handler import build
from tests.fakes import NOON_MS, FakeClock, FakeEnvelopes, FakeIds, FakeLedger, FakeRecovery, FakeTables
from tests.recovery_rows import action, dead, event, event_row, row
from tests.unit.test_triage_rules import item

ARN = "arn:aws:sqs:us-east-1:000000000000:"


def message(body: str, name: str = "message-1", queue: str = "events-dlq", **attributes: str) -> dict[str, Any]:
    return {
        "messageId": name,
        "receiptHandle": f"handle of {name}",
        "body": body,
        "attributes": {"ApproximateReceiveCount": "11", "SentTimestamp": str(NOON_MS - 5_000)},
        "messageAttributes": {key: {"stringValue": value, "dataType": "String"} for key, value in attributes.items()},
        "eventSourceARN": ARN + queue,
    }


def hint(subject: Row, version: int | None = None, name: str = "message-1") -> dict[str, Any]:
    body = {"recovery_id": subject.recovery_id, "version": subject.version if version is None else version}
    return message(json.dumps(body), name, "retries-dlq")


class Stage:
    def __init__(self) -> None:
        self.tables = FakeTables()
        self.clock = FakeClock()
        self.envelopes = FakeEnvelopes(self.tables.faults)
        self.lines: list[str] = []
        self.handle = build(
            ledger=FakeLedger(self.tables),
            recovery=FakeRecovery(self.tables),
            envelopes=self.envelopes,
            clock=self.clock,
            ids=FakeIds(),
            log=observability.logger("triage-test", stream=io.StringIO()),
            metrics=observability.metrics("triage", "test", self.lines.append),
            max_receives=10,
        )

    def put(self, *rows: Row) -> None:
        self.tables.rows.update({each.recovery_id: each for each in rows})

    def settle(self, its_event: Event, **fields: Any) -> LedgerItem:
        stored = item(key=ledger_key(its_event), **fields)
        self.tables.ledger[stored.key] = stored
        return stored

    def kept(self, *messages: dict[str, Any]) -> list[str]:
        answer = self.handle({"Records": list(messages)}, None)
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    def only_row(self) -> Row:
        (found,) = self.tables.rows.values()
        return found


def test_a_dead_event_becomes_a_row_with_its_envelope_root_cause_and_audit_events_001_42_001_43() -> None:
    stage = Stage()
    assert stage.kept(message(event().to_message())) == []
    found = stage.only_row()
    assert found.recovery_id == event_row().recovery_id
    assert (found.status, found.integration_id, found.subject) == (Status.DLQ, "intake", Subject.EVENT)
    assert (found.event_name, found.event_version, found.failure_code) == ("ticket.created", "1", "NEVER_CLAIMED")
    assert found.root_cause == "transient_infra"
    assert stage.envelopes.get(found.envelope_ref) == event()
    assert {each.event_type for each in stage.tables.events} == {
        AuditType.FAILURE_DETECTED,
        AuditType.FAILURE_CONTAINED,
    }
    assert [json.loads(line)["reason"] for line in stage.lines if '"triaged"' in line] == ["transient_infra"]


def test_a_settled_event_leaves_no_row_and_is_let_go() -> None:
    stage = Stage()
    stage.settle(event())
    assert stage.kept(message(event().to_message())) == []
    assert stage.tables.rows == {}
    assert stage.envelopes.objects == {}
    assert any("triage_needless" in line for line in stage.lines)


def test_an_event_stuck_with_dead_workers_is_a_code_defect() -> None:
    stage = Stage()
    stage.settle(event(), status=LedgerStatus.PROCESSING, generation=5, lease_until_ms=NOON_MS - 1)
    assert stage.kept(message(event().to_message())) == []
    assert stage.only_row().root_cause == "code_defect"
    assert "claimed 5 times" in stage.only_row().failure_detail


def test_an_event_whose_storage_was_gone_most_of_the_time_is_not_called_a_code_defect_and_can_be_replayed() -> None:
    """001.43: claimed once, and nine receives that could not even read the ledger; triage has been slow, too."""
    stage = Stage()
    stage.settle(event(), status=LedgerStatus.PROCESSING, generation=1, lease_until_ms=NOON_MS - 1)
    late = message(event().to_message())
    late["attributes"]["ApproximateReceiveCount"] = "40"
    assert stage.kept(late) == []
    found = stage.only_row()
    assert (found.failure_code, found.failure_class, found.root_cause) == (
        "NEVER_SETTLED",
        "transient",
        "transient_infra",
    )
    assert "claimed 1 times in 10 receives of workers" in found.failure_detail
    assert why_not_replayable(found, NOON_MS) is None


def test_an_event_that_a_worker_is_at_stays_in_the_queue() -> None:
    stage = Stage()
    stage.settle(event(), status=LedgerStatus.PROCESSING, lease_until_ms=NOON_MS + 1)
    assert stage.kept(message(event().to_message())) == ["message-1"]
    assert stage.tables.rows == {}


@pytest.mark.parametrize("body", ["not an envelope", '{"v":7}', "{}", '{"recovery_id":"r"}', ""])
def test_a_message_nobody_can_read_is_kept_as_it_came_with_a_row_that_says_so(body: str) -> None:
    stage = Stage()
    assert stage.kept(message(body, tenant="acme", source="not a plain id")) == []
    found = stage.only_row()
    assert (found.status, found.root_cause, found.failure_code) == (Status.DLQ, "schema_mismatch", "UNREADABLE_MESSAGE")
    assert stage.envelopes.objects[found.envelope_ref] == body.encode()
    assert "tenant acme" in found.failure_detail
    assert "not a plain id" not in found.failure_detail
    assert (found.tenant, found.source) == ("unknown", "unknown")


def test_the_same_dead_message_twice_is_one_row() -> None:
    stage = Stage()
    assert stage.kept(message(event().to_message()), message(event().to_message(), "message-2")) == []
    before = stage.only_row()
    stage.clock.advance(60_000)
    assert stage.kept(message(event().to_message(), "message-3")) == []
    assert stage.only_row() == before
    assert len(stage.tables.events) == 2


def test_the_row_of_a_hint_that_led_nowhere_waits_for_the_sweeper_and_its_dead_hint_is_counted() -> None:
    """A hint is only a wake-up: forty minutes without a table use up its receives, and the row is sound."""
    stage = Stage()
    waiting = row()
    stage.put(waiting)
    assert stage.kept(hint(waiting), hint(waiting, name="message-2")) == []  # the queue may deliver it twice
    found = stage.only_row()
    assert (found.status, found.is_open, found.due_at_ms) == (waiting.status, True, waiting.due_at_ms)
    assert (found.dead_hints, found.version) == (1, waiting.version + 1)
    assert stage.tables.events == []
    assert [json.loads(line)["hints_given_up"] for line in stage.lines if "hints_given_up" in line] == [[1.0]]


def test_a_row_whose_hints_are_given_up_one_after_the_other_is_dead_and_kept_for_replay_001_43() -> None:
    stage = Stage()
    stage.put(row())
    for _ in range(DEAD_HINT_LIMIT):
        assert stage.only_row().is_open
        stage.put(hinted(stage.only_row(), NOON_MS, 1.0).after)
        assert stage.kept(hint(stage.only_row())) == []
    found = stage.only_row()
    assert (found.status, found.failure_code, found.root_cause) == (Status.DLQ, "POISONED", "code_defect")
    assert found.due_at_ms == 0
    assert why_not_replayable(found, NOON_MS) is None
    assert [each.event_type for each in stage.tables.events] == [AuditType.RETRY_EXHAUSTED]


def test_hints_that_were_under_way_together_count_once() -> None:
    """The sweeper wakes a row every three minutes, and a hint takes an hour to be given up."""
    stage = Stage()
    stage.put(row())
    hints = []
    for number in range(12):
        stage.put(hinted(stage.only_row(), NOON_MS, 1.0).after)
        hints.append(hint(stage.only_row(), name=f"message-{number}"))
    assert stage.kept(*hints) == []
    assert (stage.only_row().dead_hints, stage.only_row().is_open) == (1, True)


def test_a_dead_claim_of_a_reply_leaves_it_unknown_whether_it_was_sent() -> None:
    stage = Stage()
    reply = row(
        "reply",
        action=action("reply", kind="reply", repeat=Repeat.LOOKUP),
        lease_until_ms=NOON_MS - 1,
        dead_hints=DEAD_HINT_LIMIT - 1,
    )
    stage.put(reply)
    assert stage.kept(hint(reply)) == []
    assert stage.only_row().effect.value == "unknown"


@pytest.mark.parametrize("subject", [dead(), row(version=9, updated_at_ms=NOON_MS - 1)])
def test_a_hint_that_nobody_needs_any_more_is_let_go_and_the_row_stays_as_it_is(subject: Row) -> None:
    stage = Stage()
    stage.put(subject)
    assert stage.kept(hint(subject, version=1 if subject.version == 9 else None)) == []
    assert stage.only_row() == subject


def test_a_hint_whose_row_is_under_way_stays_in_the_queue() -> None:
    stage = Stage()
    under_way = row(lease_until_ms=NOON_MS + 1)
    stage.put(under_way)
    assert stage.kept(hint(under_way)) == ["message-1"]
    assert stage.only_row() == under_way


def test_a_hint_at_a_row_that_is_gone_is_let_go() -> None:
    stage = Stage()
    assert stage.kept(hint(row())) == []
    assert stage.tables.rows == {}
    assert any('"no_row"' in line for line in stage.lines)


def test_one_message_that_cannot_be_triaged_stays_and_its_neighbours_go() -> None:
    stage = Stage()
    stage.tables.faults.fail("envelopes.put")
    first, second = message(event("m-1").to_message(), "m-1"), message(event("m-2").to_message(), "m-2")
    assert stage.kept(first, second) == ["m-1"]
    assert {each.event_id for each in stage.tables.rows.values()} == {"helpdesk-acme:m-2"}
    assert stage.kept(first) == []
    assert len(stage.tables.rows) == 2


def test_a_row_that_moves_in_between_keeps_the_message_for_another_look() -> None:
    stage = Stage()
    poison = row()
    stage.put(poison)

    def claimed_meanwhile(op: str) -> None:
        if op == "recovery.commit":
            stage.put(row(version=2, lease_until_ms=NOON_MS + 5_000))

    stage.tables.faults.on_before = claimed_meanwhile
    assert stage.kept(hint(poison)) == ["message-1"]
    assert stage.only_row().lease_until_ms == NOON_MS + 5_000


class _Died(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", range(1, 8))
def test_triage_that_dies_at_any_step_leaves_every_message_with_one_row(step: int, when: str) -> None:
    stage = Stage()
    poison = row(dead_hints=DEAD_HINT_LIMIT - 1)
    stage.put(poison)
    messages = [message(event("m-1").to_message(), "m-1"), message("junk", "m-2"), hint(poison, name="m-3")]
    left = [step]

    def die(_op: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise _Died

    setattr(stage.tables.faults, f"on_{when}", die)
    with pytest.raises(_Died):
        stage.kept(*messages)
    setattr(stage.tables.faults, f"on_{when}", None)
    assert stage.kept(*messages) == []
    rows = stage.tables.rows.values()
    assert sorted(each.failure_code for each in rows) == ["NEVER_CLAIMED", "POISONED", "UNREADABLE_MESSAGE"]
    assert len(stage.tables.events) == 5
    assert all(each.envelope_ref in stage.envelopes.objects for each in rows if each.subject is Subject.EVENT)
