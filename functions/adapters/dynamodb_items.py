"""Single items of a table, read without an SDK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from functions.adapters.aws_wire import Service, check
from functions.core.failure import StorageUnavailable

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024  # an item has 400 KB at most, and JSON may spell each byte in six


class DynamoItems:
    """Reads items as DynamoDB types them: `{"name": {"S": "text"}}`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @staticmethod
    def connect() -> DynamoItems:
        """As the environment says. Raises ValueError where it says nothing usable."""
        return DynamoItems(Service.connect("dynamodb", max_answer_bytes=MAX_ANSWER_BYTES))

    def get_item(self, table: str, key: Mapping[str, object], timeout_seconds: float) -> dict[str, Any] | None:
        """The item as last written, or None where there is none. `key` is typed like an item.

        One try. Raises `StorageUnavailable`, of which `StorageRefused` is one.
        """
        request = {"TableName": table, "Key": key, "ConsistentRead": True}
        answer, document = self._service.call_json("DynamoDB_20120810.GetItem", "1.0", request, timeout_seconds)
        check("GetItem", answer)
        item = document.get("Item")
        if item is None:
            return None
        if not isinstance(item, dict):
            raise StorageUnavailable("GetItem failed: the answer is not what DynamoDB says")
        return item
