"""`ports.Audit`, over the double and over DynamoDB (architecture §10)."""

from __future__ import annotations

from dataclasses import replace

from functions.adapters.audit import DynamoAudit
from functions.core.audit import AuditEvent, AuditType, Severity
from tests import aws_tables
from tests.contract.storage import World
from tests.fakes import NOON_MS


def event(name: str = "a1", request_id: str = "req-1", at_ms: int = NOON_MS) -> AuditEvent:
    return AuditEvent(
        id=name,
        at_ms=at_ms,
        event_type=AuditType.SWITCH_CHANGED,
        severity=Severity.WARNING,
        tenant="acme",
        actor="arn:ann",
        affected_entity="switch",
        affected_id="auto_reply",
        request_id=request_id,
        before_state="on",
        after_state="off",
    )


def test_an_event_that_is_appended_twice_is_there_once(world: World) -> None:
    world.audit.append([event("a1"), event("a2")])
    world.audit.append([event("a2"), event("a3")])
    assert world.audit_ids() == ["a1", "a2", "a3"]


def test_nothing_appended_is_nothing_written(world: World) -> None:
    world.audit.append([])
    assert world.audit_ids() == []


def test_what_was_recorded_first_stays() -> None:
    """Append only: the same id with another content does not overwrite."""
    with aws_tables.moto_tables() as client:
        audit = DynamoAudit(client, aws_tables.AUDIT)
        audit.append([event()])
        audit.append([replace(event(), after_state="forged")])
        [item] = client.scan(TableName=aws_tables.AUDIT)["Items"]
        assert item["after_state"] == {"S": "off"}


def test_events_are_found_by_entity_in_order_and_by_request_where_there_is_one() -> None:
    with aws_tables.moto_tables() as client:
        events = [event("a2", "", NOON_MS + 9), event("a1", "req-1", NOON_MS + 5), event("a0", "req-1", NOON_MS)]
        DynamoAudit(client, aws_tables.AUDIT).append(events)
        by_entity = client.query(
            TableName=aws_tables.AUDIT,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": "switch#auto_reply"}},
        )["Items"]
        assert [item["id"]["S"] for item in by_entity] == ["a0", "a1", "a2"]
        assert "request_id" not in by_entity[2]
        by_request = client.query(
            TableName=aws_tables.AUDIT,
            IndexName="by_request",
            KeyConditionExpression="request_id = :request",
            ExpressionAttributeValues={":request": {"S": "req-1"}},
        )["Items"]
        assert [item["id"]["S"] for item in by_request] == ["a0", "a1"]
        assert by_request[0]["actor"] == {"S": "arn:ann"}
        assert by_request[0]["event_type"] == {"S": "platform.switch.changed"}
