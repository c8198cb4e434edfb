"""Incidents in the control table: items `N#{incident_id}` (the incident as JSON, with `version`, `state` and
`write_id`), kept for 400 days, and one item `NB`, the board of them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from functions.adapters import aws, items
from functions.adapters.audit import audit_puts
from functions.adapters.batches import read_all
from functions.adapters.transactions import Transactions, Verdict
from functions.core.clock import Ids
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.incident import Board, Incident, IncidentChange

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_T = TypeVar("_T")

BOARD_KEY: Final = "NB"
RETENTION_SECONDS: Final = 400 * 86_400


class DynamoIncidents:
    """`ports.Incidents`."""

    def __init__(
        self, client: DynamoDBClient, ids: Ids, *, control_table: str, audit_table: str, pause: aws.Pause = aws.pause
    ) -> None:
        self._client = client
        self._ids = ids
        self._table = control_table
        self._audit_table = audit_table
        self._pause = pause
        self._transactions = Transactions(client, pause)

    def get(self, incident_id: str) -> Incident | None:
        """See the port."""
        stored = self._item(_key(incident_id))
        return None if stored is None else _read_back(incident_id, lambda: Incident.from_json(stored["incident"]))

    def several(self, incident_ids: Sequence[str]) -> Mapping[str, Incident]:
        """See the port. One BatchGetItem for 100 incidents."""
        keys = {items.sound(_key(incident_id)): incident_id for incident_id in incident_ids}
        found = read_all(self._client, self._table, list(keys), self._pause, "read incidents")
        stored = {keys[item["pk"]["S"]]: items.plain({"M": item}) for item in found}
        return {name: _read_back(name, partial(_incident, one)) for name, one in stored.items()}

    def board(self) -> Board:
        """See the port."""
        stored = self._item(BOARD_KEY)
        if stored is None:
            return Board()
        return _read_back(
            "the board",
            lambda: Board(
                dict(stored["open"]),
                tuple(stored["active"]),
                tuple(stored["recent"]),
                {alarm: (int(moments[0]), int(moments[1])) for alarm, moments in stored["seen"].items()},
                int(stored["version"]),
            ),
        )

    def _item(self, key: str) -> Mapping[str, Any] | None:
        with aws.border(f"read {key} of the control table"):
            stored = self._client.get_item(TableName=self._table, Key=items.item({"pk": key}), ConsistentRead=True).get(
                "Item"
            )
        return None if stored is None else items.plain({"M": stored})

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


def _read_back(whose: str, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as exc:
        raise StorageUnavailable(f"the record of the incident {whose} cannot be read back: {exc!r}") from exc


def _key(incident_id: str) -> str:
    return f"N#{incident_id}"
