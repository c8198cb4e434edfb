"""The audit table: `pk` = entity, `sk` = time and id, and the request's id for the index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from enum import Enum
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from functions.adapters import items
from functions.adapters.aws import border, is_refused
from functions.core.audit import AuditEvent

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class DynamoAudit:
    """`ports.Audit`."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    def append(self, events: Sequence[AuditEvent]) -> None:
        """Write events that no row goes with. The same id is written once. Raises `StorageUnavailable`."""
        for event in events:
            with border("append to the audit table"):
                try:
                    self._client.put_item(
                        TableName=self._table,
                        Item=audit_item(event),
                        ConditionExpression="attribute_not_exists(pk)",
                    )
                except ClientError as exc:
                    if not is_refused(exc):
                        raise


def audit_item(event: AuditEvent) -> items.Item:
    """An event as it is stored: empty fields are left out, so that the index holds only events of requests."""
    attributes: dict[str, Any] = {"pk": event.entity, "sk": f"{event.at_ms:013d}#{event.id}"}
    for field in fields(event):
        content = getattr(event, field.name)
        if content != "":
            attributes[field.name] = content.value if isinstance(content, Enum) else content
    return items.item(attributes)


def audit_puts(events: Sequence[AuditEvent], table: str) -> list[dict[str, Any]]:
    """The events' part of a transaction. Unconditional: the same transition again is the same item."""
    unique = {(event.entity, event.at_ms, event.id): event for event in events}
    return [{"Put": {"TableName": table, "Item": audit_item(event)}} for event in unique.values()]
