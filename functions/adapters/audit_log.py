"""`ports.AuditLog`: the audit table, read page by page."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from functions.adapters import aws, items
from functions.adapters.pages import read_page
from functions.core.audit import AuditEvent, AuditType, Severity
from functions.core.cursor import cursor_of, parts_of
from functions.core.failure import HoldfastError
from functions.core.ports import Page

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

BY_REQUEST_INDEX: Final = "by_request"
_ENUMS: Final[Mapping[str, type[AuditType | Severity]]] = {"event_type": AuditType, "severity": Severity}
_LOG = logging.getLogger(__name__)


class MalformedAudit(HoldfastError):
    """An audit event cannot be read back."""


class DynamoAuditLog:
    """See the port."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    def of_entity(
        self, entity: str, limit: int, after: str = "", *, until_ms: int | None = None, latest_first: bool = False
    ) -> Page[AuditEvent]:
        """One consistent Query. Raises `BadCursor`, `StorageUnavailable`."""
        pk = items.value(entity)
        condition, given = "pk = :pk", {":pk": pk}
        # A moment's own events have `#` and an id behind it, and come before this.
        until = None if until_ms is None else f"{until_ms:013d}~"
        if until is not None:
            condition, given[":until"] = f"{condition} AND sk <= :until", items.value(until)
        request: dict[str, Any] = {"ConsistentRead": True, "ScanIndexForward": not latest_first}
        if after:
            sk = str(parts_of(after, str)[0])
            if until is None or sk <= until:
                request["ExclusiveStartKey"] = {"pk": pk, "sk": items.value(sk)}
            elif not latest_first:
                return Page()  # DynamoDB refuses a start beyond the range
        stored, is_more = self._query(condition, given, limit, request)
        return _page(stored, cursor_of([stored[-1]["sk"]["S"]]) if is_more else "")

    def of_request(self, request_id: str, limit: int, after: str = "") -> Page[AuditEvent]:
        """One Query of the index. Raises `BadCursor`, `StorageUnavailable`."""
        sound = items.value(request_id)
        request: dict[str, Any] = {"IndexName": BY_REQUEST_INDEX}
        if after:
            sk, pk = parts_of(after, str, str)
            request["ExclusiveStartKey"] = {"request_id": sound, "sk": items.value(sk), "pk": items.value(pk)}
        stored, is_more = self._query("request_id = :request", {":request": sound}, limit, request)
        return _page(stored, cursor_of([stored[-1]["sk"]["S"], stored[-1]["pk"]["S"]]) if is_more else "")

    def _query(
        self, condition: str, given: Mapping[str, Any], limit: int, request: Mapping[str, Any]
    ) -> tuple[list[Mapping[str, Any]], bool]:
        asked = {
            "TableName": self._table,
            "KeyConditionExpression": condition,
            "ExpressionAttributeValues": given,
            **request,
        }
        with aws.border("read the audit table"):
            return read_page(self._client, asked, limit)


def _page(events: Sequence[Mapping[str, Any]], further: str) -> Page[AuditEvent]:
    found: list[AuditEvent] = []
    unreadable = 0
    for stored in events:
        try:
            found.append(audit_event(stored))
        except MalformedAudit as exc:
            unreadable += 1
            _LOG.error(
                "an audit event cannot be read back: was it written by a newer version?",
                extra={"affected_id": stored["pk"].get("S"), "reason": str(exc)},
            )
    return Page(tuple(found), further, unreadable)


def audit_event(stored: Mapping[str, Any]) -> AuditEvent:
    """An event as `functions.adapters.audit` stores it. Raises `MalformedAudit`."""
    try:
        seen = {name: items.plain(content) for name, content in stored.items()}
        given = {field.name: seen[field.name] for field in fields(AuditEvent) if field.name in seen}
        for name, kind in _ENUMS.items():
            given[name] = kind(given[name])
        # What is empty is not stored, and is empty in what has no default as well.
        event = AuditEvent(**{"tenant": "", "actor": "", "request_id": "", **given})
    except (KeyError, ValueError, TypeError) as exc:
        raise MalformedAudit(f"{exc!r}") from exc
    if not isinstance(event.at_ms, int) or any(not isinstance(event_text, str) for event_text in _texts(event)):
        raise MalformedAudit("something of it is not what it should be")
    return event


def _texts(event: AuditEvent) -> list[object]:
    return [getattr(event, field.name) for field in fields(event) if field.name != "at_ms"]
