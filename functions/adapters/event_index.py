"""`ports.EventIndex` over the ledger's indexes and, by id, the ledger and the recovery table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from functions.adapters import aws, items
from functions.adapters.ledger import BATCH_SIZE, HANDLES, PAUSES_SECONDS, ledger_item
from functions.adapters.pages import read_page
from functions.adapters.recovery import row_of
from functions.core.cursor import cursor_of, parts_of
from functions.core.failure import MalformedDecision, StorageUnavailable
from functions.core.ledger import Handle, LedgerItem
from functions.core.ports import Page
from functions.core.recovery import Row

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

INDEXES: Final[Mapping[Handle, str]] = {
    Handle.REQUEST: "by_request",
    Handle.TICKET: "by_ticket",
    Handle.RECIPIENT: "by_recipient",
}

_LOG = logging.getLogger(__name__)
_Made = TypeVar("_Made")


class DynamoEventIndex:
    """See the port."""

    def __init__(
        self, client: DynamoDBClient, *, ledger_table: str, recovery_table: str, pause: aws.Pause = aws.pause
    ) -> None:
        self._client = client
        self._ledger_table = ledger_table
        self._recovery_table = recovery_table
        self._pause = pause

    def find(self, handle: Handle, key: str, limit: int, after: str = "") -> Page[str]:
        """One Query of an index, which holds keys only. Raises `BadCursor`, `StorageUnavailable`."""
        attribute, sound = HANDLES[handle], items.value(key)
        request: dict[str, Any] = {
            "TableName": self._ledger_table,
            "IndexName": INDEXES[handle],
            "KeyConditionExpression": "#key = :key",
            "ExpressionAttributeNames": {"#key": attribute},
            "ExpressionAttributeValues": {":key": sound},
            "ScanIndexForward": False,
        }
        if after:
            at_ms, pk = parts_of(after, int, str)
            start = {attribute: sound, "received_at": items.value(at_ms), "pk": items.value(pk)}
            request["ExclusiveStartKey"] = start
        with aws.border("look up events"):
            found, is_more = read_page(self._client, request, limit)
        last = cursor_of([int(found[-1]["received_at"]["N"]), found[-1]["pk"]["S"]]) if is_more else ""
        return Page(tuple(item["pk"]["S"] for item in found), last)

    def items(self, keys: Sequence[str]) -> Mapping[str, LedgerItem | None]:
        """BatchGetItem, consistent, 100 at a time. Raises `StorageUnavailable`."""
        return self._read(self._ledger_table, keys, ledger_item)

    def rows(self, recovery_ids: Sequence[str]) -> Mapping[str, Row | None]:
        """Likewise."""
        return self._read(self._recovery_table, recovery_ids, lambda _, stored: row_of(stored))

    def _read(
        self, table: str, keys: Sequence[str], make: Callable[[str, Mapping[str, Any]], _Made]
    ) -> dict[str, _Made | None]:
        by_pk = {items.sound(key): key for key in keys}
        found: dict[str, _Made | None] = {}
        for chunk in items.chunks(list(by_pk), BATCH_SIZE):
            for stored in self._batch(table, chunk):
                key = by_pk[stored["pk"]["S"]]
                try:
                    found[key] = make(key, stored)
                except MalformedDecision as exc:
                    _LOG.error("what was asked for cannot be read back", extra={"reason": str(exc)})
                    found[key] = None
        return found

    def _batch(self, table: str, pks: Sequence[str]) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        requests: dict[str, Any] = {table: {"Keys": [{"pk": {"S": pk}} for pk in pks], "ConsistentRead": True}}
        for attempt, seconds in enumerate((0.0, *PAUSES_SECONDS)):
            if attempt:
                self._pause(seconds)
            with aws.border("read what was found"):
                answer = self._client.batch_get_item(RequestItems=requests)
            found.extend(answer.get("Responses", {}).get(table, []))
            requests = dict(answer.get("UnprocessedKeys") or {})
            if not requests:
                return found
        raise StorageUnavailable("read what was found: keys were left unprocessed again and again")
