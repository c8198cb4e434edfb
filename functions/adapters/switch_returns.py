"""Switches that are set for a time: the control table's item `SR`, with `promises` (compact JSON) and `version`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from functions.adapters import items
from functions.adapters.audit import audit_puts
from functions.adapters.aws import Pause, border, pause
from functions.adapters.transactions import Transactions
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.switch_returns import Returns, ReturnsChange

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

RETURNS_KEY: Final = "SR"


class DynamoSwitchReturns:
    """`ports.SwitchReturns`."""

    def __init__(self, client: DynamoDBClient, table: str, audit_table: str, *, pause: Pause = pause) -> None:
        self._client = client
        self._table = table
        self._audit_table = audit_table
        self._transactions = Transactions(client, pause)

    def read(self) -> Returns:
        """See the port."""
        with border("read which switches return"):
            found = self._client.get_item(
                TableName=self._table, Key=items.item({"pk": RETURNS_KEY}), ConsistentRead=True
            ).get("Item")
        if found is None:
            return Returns()
        try:
            return Returns.from_json(str(found["promises"]["S"]), int(found["version"]["N"]))
        except (KeyError, TypeError, ValueError) as exc:
            raise StorageUnavailable(f"the item {RETURNS_KEY} of the control table cannot be read: {exc}") from exc

    def store(self, change: ReturnsChange) -> None:
        """See the port."""
        before, after = change.before, change.after
        stored = {"promises": after.to_json(), "version": after.version}
        put = {
            "TableName": self._table,
            "Item": items.item({"pk": RETURNS_KEY, **stored}),
            "ConditionExpression": "#version = :seen" if before.version else "attribute_not_exists(pk)",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if before.version:
            put |= {
                "ExpressionAttributeNames": items.names(["version"]),
                "ExpressionAttributeValues": items.values({"seen": before.version}),
            }
        writes = [{"Put": put}, *audit_puts(change.audit, self._audit_table)]
        verdicts = self._transactions.write(writes, "change which switches return, with their audit events")
        # A promise's id is made for one request: what is stored word for word was written by this one.
        if verdicts is None or all(verdicts[0].stored.get(name) == items.value(one) for name, one in stored.items()):
            return
        raise VersionConflict("the promises have changed since they were read")
