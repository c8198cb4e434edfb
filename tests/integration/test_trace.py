"""What operators are told of events that real handlers and adapters have carried through: one that succeeded, one that
waits, one that died and one that was replayed; by ticket, request, recipient, event and item (architecture §10).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any, cast
from urllib.parse import quote

import pytest

from functions.adapters.audit import DynamoAudit
from functions.adapters.audit_log import DynamoAuditLog
from functions.adapters.event_index import DynamoEventIndex
from functions.adapters.ssm import SsmSwitches
from functions.core.audit import AuditEvent, AuditType, Severity
from functions.core.ports import DoorLine
from functions.core.recipient import recipient_of
from functions.core.recovery import Status
from functions.operator_api.calls import audit, events, trace
from functions.operator_api.ports import Ports
from tests import aws_tables
from tests.aws_tables import sdk_client
from tests.fakes import FakeDoor, FakeIds
from tests.integration.test_cost_of_a_life import Life
from tests.operator_calls import VIEWER, Answering, call

TICKET = "t1"
PERSON = recipient_of("acme", "a@example.com")


class Asking:
    """A stack with events in it, and the calls that tell of them, over the same tables."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.door = FakeDoor()
        client = life.stack.dynamodb
        absent: dict[str, Any] = {port.name: cast("Any", None) for port in fields(Ports)}
        ports = replace(
            Ports(**absent),
            clock=life.clock,
            ids=FakeIds(),
            switches=SsmSwitches(sdk_client("ssm"), "/s", life.clock),
            index=DynamoEventIndex(client, ledger_table=aws_tables.LEDGER, recovery_table=aws_tables.RECOVERY),
            audit_log=DynamoAuditLog(client, aws_tables.AUDIT),
            door=self.door,
        )
        routers = [subject.routes(ports) for subject in (events, trace, audit)]
        self.answering = Answering(routers, clock=life.clock)

    def get(self, path: str, **query: str) -> dict[str, Any]:
        answer = self.answering(call("GET", path, claims=VIEWER, query=query))
        assert answer["statusCode"] == 200, answer
        document: dict[str, Any] = answer["document"]
        return document

    def event(self, name: str) -> dict[str, Any]:
        event: dict[str, Any] = self.get(f"/platform/events/{quote(f'desk:{name}', safe='')}", tenant="acme")["event"]
        return event

    def traced(self, **query: str) -> dict[str, dict[str, Any]]:
        return {one["event_id"].partition(":")[2]: one for one in self.get("/platform/trace", **query)["events"]}

    def send(self, name: str, text: str = "I want a refund") -> None:
        event = self.life.stack.event(name, text)
        self.life.work(replace(event, request_id=f"req-{name}", received_at_ms=self.life.clock.now_ms()))
        self.life.clock.advance(1000)


@pytest.fixture(scope="module")
def four() -> Iterator[Asking]:
    """One of each. No test changes any of them."""
    with (
        pytest.MonkeyPatch.context() as patched,
        aws_tables.moto_tables() as dynamodb,
        aws_tables.one_request_at_a_time(),
    ):
        patched.setattr("functions.worker.leases.WINDOW_SECONDS", 30.0)  # this machine may be slow
        life = Life(dynamodb)
        with life.billing.attached():
            asking = Asking(life)
            life.stack.status = 503
            asking.send("replayed")
            life.settle_everything()
            life.stack.status = 200
            life.replay()
            life.stack.status = 422
            asking.send("dead")
            life.stack.status = 200
            asking.send("done", "Where is my order?")
            life.stack.status = 503
            asking.send("waiting")
            yield asking
        life.stack.close()


STATES = {"replayed": "settled", "dead": "ended", "done": "settled", "waiting": "waiting"}


@pytest.mark.parametrize("query", [{"ticket": TICKET}, {"recipient": PERSON}])
def test_a_ticket_and_a_recipient_find_all_four_the_latest_first(four: Asking, query: dict[str, str]) -> None:
    found = four.traced(**query)
    assert list(found) == ["waiting", "done", "dead", "replayed"]
    assert {name: one["state"] for name, one in found.items()} == STATES


@pytest.mark.parametrize("name", list(STATES))
def test_a_request_finds_its_event_whatever_became_of_it(four: Asking, name: str) -> None:
    found = four.traced(request_id=f"req-{name}")
    assert {key: one["state"] for key, one in found.items()} == {name: STATES[name]}
    assert found[name] == four.event(name)


def test_a_success_is_told_whole_without_any_row(four: Asking) -> None:
    one = four.event("done")
    assert one["received"]["request_id"] == "req-done"
    assert one["received"]["event_name"] == "message.created"
    assert one["decided"]["by"] == "rules"
    assert one["decided"]["label"] == "order_status"
    assert {told["name"]: told["state"] for told in one["actions"]} == {
        "tag": "done",
        "assign": "done",
        "reply": "done",
        "reply_suppressed": "not_needed",
    }
    assert [told["recovery_id"] for told in one["actions"]] == ["", "", "", ""]
    assert one["actions"][2]["recipient"] == PERSON
    assert [step["what"] for step in one["steps"]] == ["received", "decided", "settled"]
    assert one["switches"]["is_known"]
    assert "a@example.com" not in json.dumps(one)


def test_what_waits_says_for_what_and_until_when(four: Asking) -> None:
    one = four.event("waiting")
    first = one["actions"][0]
    assert (first["state"], first["status"], first["attempts"]) == ("waiting", "retrying", 1)
    assert (first["waiting_for"], first["failure_code"]) == ("backoff", "HTTP_503")
    assert four.life.clock.now_ms() - 2_000 < first["next_at_ms"] < first["until_ms"]


def test_what_died_says_why_and_what_was_replayed_says_by_whom_and_how_it_ended(four: Asking) -> None:
    dead = four.event("dead")["actions"][0]
    assert (dead["state"], dead["failure_code"], dead["root_cause"]) == ("dead", "HTTP_422", "bad_source_data")
    again = four.event("replayed")
    first = again["actions"][0]
    assert (first["state"], first["status"], first["replays"]) == ("done", "replayed", 1)
    assert first["last_replay_by"] == "bob"
    steps = [(step["what"].rpartition(".")[2], step["by"]) for step in again["steps"] if step["about"] == "tag"]
    assert steps[0] == ("detected", "holdfast")
    assert ("retry_exhausted", "holdfast") in steps
    assert ("replayed", "bob") in steps
    assert steps[-1] == ("reprocess_succeeded", "holdfast")
    times = [step["at_ms"] for step in again["steps"]]
    assert times == sorted(times)


def test_the_request_of_a_replay_finds_what_it_touched_and_a_rows_record_holds_all_of_it(four: Asking) -> None:
    replayed = next(step for step in four.event("replayed")["steps"] if step["what"].endswith(".replayed"))
    assert list(four.traced(request_id=replayed["request_id"])) == ["replayed"]
    record = four.get("/platform/audit", request_id="req-replayed", limit="200")["events"]
    assert {one["origin_request_id"] for one in record} == {"req-replayed"}
    assert replayed["request_id"] in {one["request_id"] for one in record}  # a query finds both
    own = four.get("/platform/audit", entity=f"recovery_item#{replayed['recovery_id']}", limit="200")["events"]
    assert {one["affected_id"] for one in own} == {replayed["recovery_id"]}
    assert all(one in record for one in own)


def test_a_record_comes_page_by_page_in_a_stable_order(four: Asking) -> None:
    whole = four.get("/platform/audit", request_id="req-replayed", limit="200")["events"]
    found: list[dict[str, Any]] = []
    cursor = ""
    for _ in range(len(whole)):
        page = four.get(
            "/platform/audit", request_id="req-replayed", limit="3", **({"cursor": cursor} if cursor else {})
        )
        found += page["events"]
        cursor = page["cursor"] or ""
        if not cursor:
            break
    assert found == whole
    assert len(whole) > 6


def test_a_tickets_events_come_page_by_page(four: Asking) -> None:
    first = four.get("/platform/trace", ticket=TICKET, limit="3")
    rest = four.get("/platform/trace", ticket=TICKET, limit="3", cursor=first["cursor"])
    names = [one["event_id"] for one in (*first["events"], *rest["events"])]
    assert names == ["desk:waiting", "desk:done", "desk:dead", "desk:replayed"]
    assert rest["cursor"] is None


def test_switches_that_changed_while_an_event_was_open_are_part_of_its_story(four: Asking) -> None:
    now_ms = four.life.clock.now_ms()
    change = AuditEvent(
        id="s1",
        at_ms=now_ms - 500,
        event_type=AuditType.SWITCH_CHANGED,
        severity=Severity.WARNING,
        tenant="",
        actor="arn:ann",
        affected_entity="switch",
        affected_id="disabled_integrations",
        request_id="",
        before_state='{"value":"none"}',
        after_state='{"value":"helpdesk"}',
        reason="a storm",
    )
    DynamoAudit(four.life.stack.dynamodb, aws_tables.AUDIT).append([change])
    (step,) = [one for one in four.event("waiting")["steps"] if one["what"] == "platform.switch.changed"]
    assert (step["by"], step["detail"]) == ("arn:ann", "none to helpdesk; a storm")
    assert not [one for one in four.event("done")["steps"] if one["what"] == "platform.switch.changed"]


def test_an_event_is_found_without_its_tenant_by_the_record_of_its_source(four: Asking) -> None:
    answer = four.answering(call("GET", "/platform/events/desk%3Adone", claims=VIEWER))
    assert (answer["statusCode"], answer["document"]["code"]) == (404, "INT-404-NOT-FOUND")
    change = AuditEvent(
        id="c1",
        at_ms=1,
        event_type=AuditType.SOURCE_CHANGED,
        severity=Severity.WARNING,
        tenant="acme",
        actor="ann",
        affected_entity="source",
        affected_id="desk",
        request_id="x",
    )
    DynamoAudit(four.life.stack.dynamodb, aws_tables.AUDIT).append([change])
    assert four.get("/platform/events/desk%3Adone")["event"]["state"] == "settled"


def test_what_no_table_knows_yet_is_known_at_the_door(four: Asking) -> None:
    line = DoorLine(
        four.life.clock.now_ms(),
        is_refused=False,
        source="desk",
        provider="richpanel",
        request_id="req-fresh",
        event_id="desk:fresh",
        status=202,
        tenant="acme",
        event_name="message.created",
        stored_in="queue",
    )
    four.door.lines += [line, replace(line, request_id="req-again", event_id="desk:done")]
    for found in (four.traced(request_id="req-fresh"), {"fresh": four.event("fresh")}):
        assert found["fresh"]["state"] == "accepted"
        assert found["fresh"]["received"]["event_name"] == "message.created"
    again = four.get("/platform/trace", request_id="req-again")  # a second delivery of what is done
    assert [one["state"] for one in again["events"]] == ["settled"]
    assert again["door"]["request"]["event_id"] == "desk:done"
    refused = replace(line, is_refused=True, request_id="req-no", event_id="", status=401, reason="stale")
    four.door.lines.append(refused)
    answer = four.get("/platform/trace", request_id="req-no")
    assert (answer["events"], answer["door"]["request"]["reason"]) == ([], "stale")


def test_the_four_were_what_they_are_called(four: Asking) -> None:
    """The stage of these tests is what it says: rows in four different ends."""
    ends = {(row.event_id.partition(":")[2], row.status, row.result) for row in four.life.rows()}
    assert ends >= {
        ("replayed", Status.REPLAYED, "succeeded"),
        ("dead", Status.FAILED, ""),
        ("waiting", Status.RETRYING, ""),
    }
    assert not [row for row in four.life.rows() if row.event_id == "desk:done"]


def test_a_trace_of_a_ticket_costs_a_handful_of_requests(four: Asking, proved: Callable[[str], None]) -> None:
    four.life.bill.clear()
    with four.life.billing.open() as bill:
        four.traced(ticket=TICKET)
    proved(f"trace of a ticket with four events, seven items in the recovery queue: {bill.said()}")
    assert bill.write_units == 0
    assert bill.requests["dynamodb.BatchGetItem"] == 2
