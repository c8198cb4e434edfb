"""The rules of quarantine: the control table's item `Q`, with `rules` (compact JSON), `version`, and `write_id` (of the
audit event of the last change, and the request that made it).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from functions.adapters import items
from functions.adapters.audit import audit_puts
from functions.adapters.aws import Pause, border, pause
from functions.adapters.transactions import Transactions
from functions.core.event import digest
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.quarantine import Quarantine, QuarantineChange

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

QUARANTINE_KEY: Final = "Q"

_LOG = logging.getLogger(__name__)


class DynamoQuarantines:
    """`ports.Quarantines`."""

    def __init__(self, client: DynamoDBClient, table: str, audit_table: str, *, pause: Pause = pause) -> None:
        self._client = client
        self._table = table
        self._audit_table = audit_table
        self._transactions = Transactions(client, pause)

    def read(self) -> Quarantine:
        """See the port."""
        with border("read the rules of quarantine"):
            found = self._client.get_item(
                TableName=self._table, Key=items.item({"pk": QUARANTINE_KEY}), ConsistentRead=True
            ).get("Item")
        if found is None:
            return Quarantine()
        try:
            return _rules(found)
        except (KeyError, TypeError, ValueError) as exc:
            raise StorageUnavailable(f"the item {QUARANTINE_KEY} of the control table cannot be read: {exc}") from exc

    def store(self, change: QuarantineChange) -> None:
        """See the port."""
        before, after = change.before, change.after
        # Two people who remove the same rule have the same audit id: the second has changed nothing, and is told so.
        write_id = digest(change.audit.id, change.audit.request_id, str(change.audit.at_ms))[:32]
        put = {
            "TableName": self._table,
            "Item": items.item(
                {"pk": QUARANTINE_KEY, "rules": after.to_json(), "version": after.version, "write_id": write_id}
            ),
            "ConditionExpression": "#version = :seen" if before.version else "attribute_not_exists(pk)",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if before.version:
            put |= {
                "ExpressionAttributeNames": items.names(["version"]),
                "ExpressionAttributeValues": items.values({"seen": before.version}),
            }
        writes = [{"Put": put}, *audit_puts([change.audit], self._audit_table)]
        verdicts = self._transactions.write(writes, "change the rules of quarantine with their audit event")
        if verdicts is None or verdicts[0].stored.get("write_id") == items.value(write_id):
            return
        raise VersionConflict("the rules of quarantine have changed since they were read")


def rules_or_none(stored: Mapping[str, Any]) -> Quarantine:
    """The rules as a batch read them. Where nobody can understand them events go on, and it is said as an error."""
    try:
        return _rules(stored)
    except (KeyError, TypeError, ValueError):
        _LOG.error("the rules of quarantine cannot be read: no event is kept aside until their control item is mended")
        return Quarantine()


def _rules(stored: Mapping[str, Any]) -> Quarantine:
    return Quarantine.from_json(str(stored["rules"]["S"]), int(stored["version"]["N"]))
