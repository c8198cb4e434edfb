"""The control table's item that belongs to the evaluator: up to where the switches are audited."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from functions.adapters import aws, items
from functions.core.compact import compact
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.ports import AuditedSwitch, AuditedSwitches

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SWITCHES_KEY: Final = "SW"


class DynamoSwitchMarks:
    """`ports.SwitchMarks`: item `SW` with a revision and the marks by switch. Switches number dozens, not thousands."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    def read(self) -> AuditedSwitches:
        """See the port."""
        stored = _get(self._client, self._table, SWITCHES_KEY)
        if stored is None:
            return AuditedSwitches()
        try:
            marks = {name: AuditedSwitch(**mark) for name, mark in json.loads(stored["switches"]).items()}
            return AuditedSwitches(int(stored["revision"]), marks)
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise StorageUnavailable(f"the item {SWITCHES_KEY} of the control table cannot be read: {exc!r}") from exc

    def store(self, seen_revision: int, switches: Mapping[str, AuditedSwitch]) -> AuditedSwitches:
        """See the port."""
        after = AuditedSwitches(seen_revision + 1, dict(switches))
        condition, seen = "attribute_not_exists(pk)", {}
        if seen_revision:
            condition, seen = "#revision = :seen", {"seen": seen_revision}
        item = {
            "pk": SWITCHES_KEY,
            "revision": after.revision,
            "switches": compact({name: asdict(mark) for name, mark in switches.items()}),
        }
        with aws.border("mark the switches as audited"):
            try:
                self._client.put_item(
                    TableName=self._table, Item=items.item(item), ConditionExpression=condition, **_named(seen)
                )
            except ClientError as exc:
                if aws.is_refused(exc):
                    raise VersionConflict(f"the switches' marks are not at revision {seen_revision} any more") from exc
                raise
        return after


def _named(seen: Mapping[str, int]) -> dict[str, Any]:
    """What a condition on the revision needs; nothing, where none has to be there."""
    if not seen:
        return {}
    return {
        "ExpressionAttributeNames": items.names(["revision"]),
        "ExpressionAttributeValues": items.values(dict(seen)),
    }


def _get(client: DynamoDBClient, table: str, key: str) -> Mapping[str, Any] | None:
    with aws.border(f"read {key} of the control table"):
        stored = client.get_item(TableName=table, Key=items.item({"pk": key}), ConsistentRead=True).get("Item")
    return None if stored is None else items.plain({"M": stored})
