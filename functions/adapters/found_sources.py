"""How the evaluator has found the sources: the control table's item `FS`, with `found` (compact JSON) and `version`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from functions.adapters import aws, items
from functions.adapters.control_items import ControlItems
from functions.core.failure import VersionConflict
from functions.core.subjects import SourcesFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_dynamodb import DynamoDBClient

FOUND_KEY: Final = "FS"


class DynamoFoundSources:
    """`ports.FoundSources`."""

    def __init__(self, client: DynamoDBClient, table: str, *, pause: aws.Pause = aws.pause) -> None:
        self._client = client
        self._table = table
        self._items = ControlItems(client, table, "sources as they were found", pause)

    def read(self) -> SourcesFound:
        """See the port. One GetItem."""
        return self._items.one(FOUND_KEY, _found) or SourcesFound()

    def store(self, found: SourcesFound, *, is_anew: bool = False) -> None:
        """See the port. One PutItem."""
        stored = {"found": found.to_json(), "version": found.version}
        seen = found.version - 1
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk)"}
        if seen:
            condition = {
                "ConditionExpression": "#version = :seen",
                "ExpressionAttributeNames": items.names(["version"]),
                "ExpressionAttributeValues": items.values({"seen": seen}),
            }
        if is_anew:
            condition = {}
        with aws.border("keep how the sources were found"):
            try:
                self._client.put_item(
                    TableName=self._table,
                    Item=items.item({"pk": FOUND_KEY, **stored}),
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    **condition,
                )
            except ClientError as exc:
                if not aws.is_refused(exc):
                    raise
                there: Any = exc.response.get("Item", {})
                # Another that has found the very same at the same version has done our work.
                if all(there.get(name) == items.value(one) for name, one in stored.items()):
                    return
                raise VersionConflict("what was found of the sources has changed since it was read") from exc


def _found(stored: Mapping[str, Any]) -> SourcesFound:
    return SourcesFound.from_json(str(stored["found"]), int(stored["version"]))
