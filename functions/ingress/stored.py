"""What ledger and recovery table say of an event, read from items as DynamoDB types them and without an SDK."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from functions.core.decision import Decision
from functions.core.failure import MalformedDecision, StorageUnavailable
from functions.core.ledger import ActionStatus, LedgerStatus
from functions.core.recovery import Status, action_recovery_id, event_recovery_id
from functions.core.whereabouts import Fate, fate_of


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """Of a ledger item, what is asked for; without one, `status` is None. `action_rows`: of what is not done, the id of
    its row and what it means if that is not there (any more).
    """

    status: LedgerStatus | None
    lease_until_ms: int
    event_row_id: str
    action_rows: tuple[tuple[str, Fate], ...] = ()

    @property
    def is_settled(self) -> bool:
        """Whether its first pass is over, so that rows have what is left."""
        return self.status is LedgerStatus.SETTLED


_WITHOUT_ROW = {ActionStatus.RECOVERY: Fate.ENDED, ActionStatus.SUPPRESSED: Fate.NOT_WANTED}


def item_of(tenant: str, event_id: str, stored: Mapping[str, Any] | None) -> StoredEvent:
    """The item. Raises `StorageUnavailable` where it cannot be read."""
    if stored is None:
        return StoredEvent(None, 0, event_recovery_id(tenant, event_id, 0))
    try:
        epoch_ms = int(stored["epoch"]["N"])
        marks = {name: ActionStatus(mark["M"]["s"]["S"]) for name, mark in stored["actions"]["M"].items()}
        decision = Decision.from_json(stored["decision"]["S"], stored.get("rc", {}).get("S", ""))
        bound = decision.bound(tenant, event_id, epoch_ms)
        return StoredEvent(
            LedgerStatus(stored["status"]["S"]),
            int(stored.get("lease_until", {}).get("N", "0")),
            event_recovery_id(tenant, event_id, epoch_ms),
            tuple(
                (action_recovery_id(action.action_id), _WITHOUT_ROW[marks[action.name]])
                for action in bound.actions
                if marks.get(action.name) in _WITHOUT_ROW
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError, MalformedDecision) as exc:
        raise StorageUnavailable("the ledger's item cannot be read") from exc


def fate_of_row(stored: Mapping[str, Any]) -> Fate:
    """A row's. Raises `StorageUnavailable` where it cannot be read."""
    try:
        result, code = (stored.get(name, {}).get("S", "") for name in ("result", "failure_code"))
        return fate_of(Status(stored["status"]["S"]), result, code)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise StorageUnavailable("the event's row cannot be read") from exc
