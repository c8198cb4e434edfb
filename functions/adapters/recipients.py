"""The recipients table: whom we may contact."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from functions.adapters import items
from functions.adapters.aws import border
from functions.core.gate import Standing

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_LOG = logging.getLogger(__name__)


class DynamoRecipients:
    """`ports.Recipients`: `pk` = `{tenant}#{recipient}`, `suppressed` (false if absent), `consent` (true if absent)."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    def standing(self, tenant: str, recipient: str) -> Standing:
        """Read consistently. An unreadable entry is `UNKNOWN`, never permission. Raises `StorageUnavailable`."""
        with border("read a recipient"):
            found = self._client.get_item(
                TableName=self._table, Key={"pk": items.value(f"{tenant}#{recipient}")}, ConsistentRead=True
            ).get("Item")
        if found is None:
            return Standing.ALLOWED
        suppressed = found.get("suppressed", {"BOOL": False}).get("BOOL")
        consent = found.get("consent", {"BOOL": True}).get("BOOL")
        if suppressed is True:
            return Standing.SUPPRESSED
        if consent is False:
            return Standing.NO_CONSENT
        if suppressed is None or consent is None:
            _LOG.error(
                "a recipient's entry cannot be read: sends to them wait until it is mended",
                extra={"tenant": tenant, "recipient": recipient},
            )
            return Standing.UNKNOWN
        return Standing.ALLOWED
