"""Items of the control table that are read back into something of ours: one, or several at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from functions.adapters import aws, items
from functions.adapters.batches import read_all
from functions.core.failure import StorageUnavailable, UnreadableItem

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)


class ControlItems:
    """`kind` is what the items are, in words, for whoever reads that one of them cannot be read."""

    def __init__(self, client: DynamoDBClient, table: str, kind: str, pause: aws.Pause) -> None:
        self._client = client
        self._table = table
        self._kind = kind
        self._pause = pause

    def one(self, key: str, made_of: Callable[[Mapping[str, Any]], _T]) -> _T | None:
        """What `made_of` makes of the item, read consistently; None: there is none. Raises `StorageUnavailable`; for an
        item that cannot be read back, `UnreadableItem`.
        """
        with aws.border(f"read {key} of the control table"):
            stored = self._client.get_item(TableName=self._table, Key=items.item({"pk": key}), ConsistentRead=True).get(
                "Item"
            )
        return None if stored is None else self._read_back(key, stored, made_of)

    def several(self, keys: Sequence[str], made_of: Callable[[Mapping[str, Any]], _T]) -> Mapping[str, _T]:
        """Those that are there, by key, read consistently: a request for 100. One that cannot be read back is logged
        and left out. Raises `StorageUnavailable`.
        """
        asked = {items.sound(key): key for key in keys}
        found: dict[str, _T] = {}
        for stored in read_all(self._client, self._table, list(asked), self._pause, f"read {self._kind}s"):
            key = asked[stored["pk"]["S"]]
            try:
                found[key] = self._read_back(key, stored, made_of)
            except StorageUnavailable:
                _LOG.exception("a control item cannot be read back and is left out", extra={"kind": self._kind})
        return found

    def _read_back(self, key: str, stored: Mapping[str, Any], made_of: Callable[[Mapping[str, Any]], _T]) -> _T:
        try:
            return made_of(items.plain({"M": stored}))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as exc:
            raise UnreadableItem(f"the {self._kind} {key} cannot be read back: {exc!r}") from exc
