"""Incidents in the control table: items `N#{incident_id}` (the incident as JSON, with `version`, `state` and
`write_id`), kept for 400 days, and one item `NB`, the board of them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from functions.adapters import aws, items
from functions.adapters.audit import audit_puts
from functions.adapters.control_items import ControlItems
from functions.adapters.transactions import Transactions, Verdict
from functions.core.clock import Ids
from functions.core.failure import VersionConflict
from functions.core.incident import Board, Incident, IncidentChange

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

BOARD_KEY: Final = "NB"
PREFIX: Final = "N#"
RETENTION_SECONDS: Final = 400 * 86_400


class DynamoIncidents:
    """`ports.Incidents`."""

    def __init__(
        self, client: DynamoDBClient, ids: Ids, *, control_table: str, audit_table: str, pause: aws.Pause = aws.pause
    ) -> None:
        self._items = ControlItems(client, control_table, "incident", pause)
        self._ids = ids
        self._table = control_table
        self._audit_table = audit_table
        self._transactions = Transactions(client, pause)

    def get(self, incident_id: str) -> Incident | None:
        """See the port."""
        return self._items.one(_key(incident_id), _incident)

    def several(self, incident_ids: Sequence[str]) -> Mapping[str, Incident]:
        """See the port. One BatchGetItem for 100 incidents."""
        found = self._items.several([_key(incident_id) for incident_id in incident_ids], _incident)
        return {key.removeprefix(PREFIX): incident for key, incident in found.items()}

    def board(self) -> Board:
        """See the port."""
        return self._items.one(BOARD_KEY, _board) or Board()

    # --------------------------------------------------------------------------------------------------------- writing

    def store(self, change: IncidentChange) -> None:
        """See the port."""
        write_id = self._ids.new_id()
        puts = []
        if change.after is not None:
            incident = change.after
            item = {
                "pk": _key(incident.incident_id),
                "incident": incident.to_json(),
                "version": incident.version,
                "state": incident.state.value,
                "ttl": incident.opened_at_ms // 1000 + RETENTION_SECONDS,
            }
            puts.append(self._put(item, write_id, None if change.before is None else change.before.version))
        if change.board is not None:
            before, after = change.board
            board = {
                "pk": BOARD_KEY,
                "open": dict(after.open),
                "active": list(after.active),
                "recent": list(after.recent),
                "seen": {alarm: list(moments) for alarm, moments in after.seen.items()},
                "version": after.version,
            }
            puts.append(self._put(board, write_id, before.version or None))
        verdicts = self._transactions.write([*puts, *audit_puts(change.audit, self._audit_table)], "write an incident")
        if verdicts is None or _all_own(verdicts[: len(puts)], write_id):
            return
        raise VersionConflict("the incident, or the board of incidents, has moved on since it was read")

    def _put(self, item: Mapping[str, Any], write_id: str, seen: int | None) -> dict[str, Any]:
        put: dict[str, Any] = {
            "TableName": self._table,
            "Item": items.item({**item, "write_id": write_id}),
            "ConditionExpression": "attribute_not_exists(pk)",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if seen is not None:
            put |= {
                "ConditionExpression": "#version = :seen",
                "ExpressionAttributeNames": items.names(["version"]),
                "ExpressionAttributeValues": items.values({"seen": seen}),
            }
        return {"Put": put}


def _all_own(verdicts: Sequence[Verdict], write_id: str) -> bool:
    return all(one.is_refused and one.stored.get("write_id") == items.value(write_id) for one in verdicts)


def _incident(stored: Mapping[str, Any]) -> Incident:
    return Incident.from_json(stored["incident"])


def _board(stored: Mapping[str, Any]) -> Board:
    return Board(
        dict(stored["open"]),
        tuple(stored["active"]),
        tuple(stored["recent"]),
        {alarm: (int(moments[0]), int(moments[1])) for alarm, moments in stored["seen"].items()},
        int(stored["version"]),
    )


def _key(incident_id: str) -> str:
    return f"{PREFIX}{incident_id}"
