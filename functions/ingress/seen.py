"""Whether an event has been taken up already, and how far it has come. Asked for a sender's test and question only: no
event waits for the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from functions.core.clock import Deadline
from functions.core.event import Event
from functions.core.failure import StorageUnavailable

if TYPE_CHECKING:
    from functions.core.whereabouts import Fate

READ_SHARE: Final = 0.5  # of what is left of the request's time


class Seen(Protocol):
    """What is known of events that came before."""

    def is_known(self, event: Event, deadline: Deadline) -> bool:
        """Whether the event would be a duplicate now. Raises `StorageUnavailable` when that cannot be known."""
        ...

    def whereabouts(self, tenant: str, event_id: str, now_ms: int, deadline: Deadline) -> str:
        """How far it has come (`core.whereabouts`); empty where nothing is stored of it: it never came, is still in the
        queue, or is forgotten. Raises `StorageUnavailable`.
        """
        ...


class Items(Protocol):
    """Tables, read item by item."""

    def get_item(self, table: str, key: Mapping[str, object], timeout_seconds: float) -> dict[str, Any] | None:
        """The item as DynamoDB types it; None where there is none. Raises `StorageUnavailable`."""
        ...


class LedgerSeen:
    """`Seen` by the ledger and the recovery table. `connect` is called with the first question, so that a start pays
    nothing for it.
    """

    def __init__(self, table: str, recovery_table: str, connect: Callable[[], Items]) -> None:
        self._table = table
        self._recovery_table = recovery_table
        self._connect = connect
        self._items: Items | None = None

    def is_known(self, event: Event, deadline: Deadline) -> bool:
        """See `Seen`: one read. What the worker has not taken from the queue yet is not known."""
        from functions.core.ledger import LedgerStatus, is_past_window, ledger_key  # noqa: PLC0415  # no event waits for it

        item = self._read(self._table, ledger_key(event), deadline)
        if item is None:
            return False
        try:
            status, epoch_ms = LedgerStatus(item["status"]["S"]), int(item["epoch"]["N"])
        except (KeyError, TypeError, ValueError) as exc:
            raise StorageUnavailable("the ledger's item cannot be read") from exc
        return status is LedgerStatus.PROCESSING or not is_past_window(epoch_ms, event)

    def whereabouts(self, tenant: str, event_id: str, now_ms: int, deadline: Deadline) -> str:
        """See `Seen`: one read, and one for each row that has something of the event."""
        from functions.core.whereabouts import whereabouts  # noqa: PLC0415  # no event waits for it
        from functions.ingress.stored import item_of  # noqa: PLC0415  # as above

        # Keys of DynamoDB hold no half of a surrogate pair: `functions.adapters.items.sound` spells them so.
        key = f"E#{tenant}#{event_id}".encode("utf-8", "backslashreplace").decode()
        item = item_of(tenant, event_id, self._read(self._table, key, deadline))
        is_settled = item.is_settled
        of_event = [] if is_settled else self._fates([(item.event_row_id, None)], deadline)
        of_actions = self._fates(item.action_rows, deadline) if is_settled else []
        found = whereabouts(item.status, item.lease_until_ms, of_event, of_actions, now_ms)
        return "" if found is None else found.value

    def _fates(self, rows: Sequence[tuple[str, Fate | None]], deadline: Deadline) -> list[Fate]:
        from functions.ingress.stored import fate_of_row  # noqa: PLC0415  # as above

        found: list[Fate] = []
        for recovery_id, without in rows:
            row = self._read(self._recovery_table, recovery_id, deadline)
            fate = without if row is None else fate_of_row(row)
            if fate is not None:
                found.append(fate)
        return found

    def _read(self, table: str, key: str, deadline: Deadline) -> dict[str, Any] | None:
        if self._items is None:
            self._items = self._connect()
        return self._items.get_item(table, {"pk": {"S": key}}, deadline.remaining_seconds() * READ_SHARE)
