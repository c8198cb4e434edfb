"""Whether an event has been taken up already. Asked for a sender's test only: no event waits for the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from functions.core.clock import Deadline
from functions.core.event import Event
from functions.core.failure import StorageUnavailable

READ_SHARE: Final = 0.5  # of what is left of the request's time


class Seen(Protocol):
    """What is known of events that came before."""

    def is_known(self, event: Event, deadline: Deadline) -> bool:
        """Whether the event would be a duplicate now. Raises `StorageUnavailable` when that cannot be known."""
        ...


class Items(Protocol):
    """Tables, read item by item."""

    def get_item(self, table: str, key: Mapping[str, object], timeout_seconds: float) -> dict[str, Any] | None:
        """The item as DynamoDB types it; None where there is none. Raises `StorageUnavailable`."""
        ...


class LedgerSeen:
    """`Seen` by the ledger. `connect` is called with the first question, so that a start pays nothing for it."""

    def __init__(self, table: str, connect: Callable[[], Items]) -> None:
        self._table = table
        self._connect = connect
        self._items: Items | None = None

    def is_known(self, event: Event, deadline: Deadline) -> bool:
        """See `Seen`: one read. What the worker has not taken from the queue yet is not known."""
        from functions.core.ledger import LedgerStatus, is_past_window, ledger_key  # noqa: PLC0415  # no event waits for it

        if self._items is None:
            self._items = self._connect()
        key = {"pk": {"S": ledger_key(event)}}
        item = self._items.get_item(self._table, key, deadline.remaining_seconds() * READ_SHARE)
        if item is None:
            return False
        try:
            status, epoch_ms = LedgerStatus(item["status"]["S"]), int(item["epoch"]["N"])
        except (KeyError, TypeError, ValueError) as exc:
            raise StorageUnavailable("the ledger's item cannot be read") from exc
        return status is LedgerStatus.PROCESSING or not is_past_window(epoch_ms, event)
