"""The recovery table with its index `work`, written together with the audit table (architecture §7).

An item holds every field of `Row` under the field's name (empty ones left out; actions and history as JSON), and beside
them `pk`, `ttl` once the row has ended, `write_id` (which call wrote it), and the index's keys: `gpk` =
`{integration_id}#{shard}`, `gsk` = `{status}#{due_at_ms}#{recovery_id}` while open, `{status}#w#…` while open without a
due time, `{status}#e{updated_at_ms}#…` once ended. Digits sort before letters: a query for what is due sees neither of
the latter.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from functions.adapters import aws, items
from functions.adapters.audit import audit_puts
from functions.adapters.batches import read_all
from functions.adapters.transactions import Transactions, Verdict, check_size
from functions.core.attempt import Effect
from functions.core.clock import Ids
from functions.core.compact import compact
from functions.core.decision import Action, Mode
from functions.core.failure import MalformedDecision, VersionConflict
from functions.core.gate import WaitingFor
from functions.core.recovery import Change, Row, Status, Subject

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SHARDS: Final = 8
WORK_INDEX: Final = "work"
OPEN: Final = (Status.PENDING, Status.RETRYING, Status.REPLAYED)
PARALLEL_QUERIES: Final = 8
LAST_MS: Final = 9_999_999_999_999  # thirteen digits, as the index's keys have them

_LOG = logging.getLogger(__name__)
_ENUMS: Mapping[str, type[Enum]] = {
    "subject": Subject,
    "status": Status,
    "decision_mode": Mode,
    "effect": Effect,
    "waiting_for": WaitingFor,
}
_ACTIONS = ("action", "stand_in")
_EMPTY: Mapping[str, Any] = {"str": "", "int": 0, "bool": False, "tuple[str, ...]": ()}


class DynamoRecovery:
    """`ports.Recovery`."""

    def __init__(
        self,
        client: DynamoDBClient,
        ids: Ids,
        *,
        recovery_table: str,
        audit_table: str,
        pause: aws.Pause = aws.pause,
        count: aws.Count = aws.uncounted,
    ) -> None:
        self._client = client
        self._ids = ids
        self._table = recovery_table
        self._audit_table = audit_table
        self._pause = pause
        self._transactions = Transactions(client, pause)
        self._count = count

    def get(self, recovery_id: str) -> Row | None:
        """The row, read consistently. Raises `MalformedDecision` if it cannot be read back, or `StorageUnavailable`."""
        with aws.border("read a row"):
            stored = self._client.get_item(
                TableName=self._table, Key={"pk": items.value(recovery_id)}, ConsistentRead=True
            ).get("Item")
        return None if stored is None else row_of(stored)

    # --------------------------------------------------------------------------------------------------------- writing

    def commit(self, changes: Sequence[Change]) -> None:
        """Apply every change with its audit events, all or nothing. See the port.

        Meeting its own earlier success is success where that does no harm: a lease is never given twice, not even to a
        caller that looks the same, so a claim whose answer was lost is a `VersionConflict` and its lease runs out.
        Raises `VersionConflict`, `StorageUnavailable`, and ValueError for what no transaction can hold.
        """
        check_size(changes)
        if not changes:
            return
        write_id = self._ids.new_id()
        verdicts = self._write(changes, write_id)
        if verdicts is None:
            return
        rows = list(zip(changes, verdicts, strict=False))
        if all(verdict.is_refused and _is_own(change, verdict.stored, write_id) for change, verdict in rows):
            return
        moved = [change.after.recovery_id for change, verdict in rows if verdict.is_refused]
        raise VersionConflict(f"moved on since it was read: {', '.join(moved)}")

    def put_if_absent(self, change: Change) -> bool:
        """Put a new row with its audit events; False, and nothing written, if the row exists.

        Raises `StorageUnavailable`.
        """
        check_size([change])
        write_id = self._ids.new_id()
        verdicts = self._write([replace(change, before=None)], write_id)
        if verdicts is None:
            return True
        return bool(verdicts[0].stored.get("write_id") == items.value(write_id))

    def _write(self, changes: Sequence[Change], write_id: str) -> list[Verdict] | None:
        """None, or a verdict on each change's row, at least one of them refused."""
        audit = [event for change in changes for event in change.audit]
        puts = [row_put(change, self._table, write_id, is_new=change.before is None) for change in changes]
        if len(puts) > 1 or audit:
            writes = [*puts, *audit_puts(audit, self._audit_table)]
            verdicts = self._transactions.write(writes, "write rows with their audit events")
            return None if verdicts is None else verdicts[: len(puts)]
        with aws.border("write a row"):
            try:
                self._client.put_item(**puts[0]["Put"])
            except ClientError as exc:
                if not aws.is_refused(exc):
                    raise
                stored: Any = exc.response.get("Item", {})
                return [Verdict(is_refused=True, stored=stored)]
        return None

    # --------------------------------------------------------------------------------------------------------- finding

    def due(self, integration_id: str, until_ms: int, limit: int) -> list[Row]:
        """Open rows that are due by then, earliest first. The index lags: an act on a row commits against its version.

        A row that cannot be read back is logged, counted (`row_unreadable`) and left out. Raises `StorageUnavailable`.
        """
        until = f"{min(max(until_ms, 0), LAST_MS):013d}"
        ranges = [(f"{status.value}#0", f"{status.value}#{until}#~") for status in OPEN]
        rows = self._query(integration_id, ranges, limit)
        return sorted(rows, key=lambda row: (row.due_at_ms, row.recovery_id))[:limit]

    def find(self, integration_id: str, statuses: Sequence[Status], limit: int) -> list[Row]:
        """Rows in these statuses, oldest first: by due time while open (without one: last), by last change once ended.

        Unreadable rows are treated as in `due`. Raises `StorageUnavailable`.
        """
        ranges: list[tuple[str, str]] = []
        for status in dict.fromkeys(statuses):
            if status is Status.REPLAYED:
                # Both under way, by due time, and ended, by last change: two orders, two ranges.
                ranges += [(f"{status.value}#0", f"{status.value}#9~"), (f"{status.value}#e", f"{status.value}#~")]
            else:
                ranges.append((f"{status.value}#0", f"{status.value}#~"))
        return sorted(self._query(integration_id, ranges, limit), key=_age)[:limit]

    def walk(self, integration_id: str, status: Status) -> Iterator[Row]:
        """See the port: shard by shard, a page of the index at a time. Unreadable rows are treated as in `due`.

        Raises `StorageUnavailable`.
        """
        for shard in range(SHARDS):
            for page in self._pages(f"{integration_id}#{shard}", f"{status.value}#0", f"{status.value}#~"):
                for stored in page:
                    yield from self._readable(stored)

    def _pages(self, gpk: str, low: str, high: str) -> Iterator[list[Mapping[str, Any]]]:
        further: dict[str, Any] = {}
        while True:
            with aws.border("query the work index"):
                answer = self._client.query(
                    TableName=self._table,
                    IndexName=WORK_INDEX,
                    KeyConditionExpression="gpk = :gpk AND gsk BETWEEN :low AND :high",
                    ExpressionAttributeValues=items.values({"gpk": gpk, "low": low, "high": high}),
                    **further,
                )
            yield list(answer["Items"])
            if not answer.get("LastEvaluatedKey"):
                return
            further = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def several(self, recovery_ids: Sequence[str]) -> Mapping[str, Row]:
        """See the port. One BatchGetItem for 100 rows. Unreadable rows are treated as in `due`."""
        keys = [items.sound(recovery_id) for recovery_id in recovery_ids]
        found = read_all(self._client, self._table, keys, self._pause, "read rows")
        return {row.recovery_id: row for stored in found for row in self._readable(stored)}

    def versions(self, recovery_ids: Sequence[str]) -> Mapping[str, int]:
        """See the port. One BatchGetItem for 100 rows, several at once."""
        keys = [items.sound(recovery_id) for recovery_id in recovery_ids]
        found = read_all(self._client, self._table, keys, self._pause, "read versions", ("pk", "version"))
        return {stored["pk"]["S"]: int(stored["version"]["N"]) for stored in found}

    def _query(self, integration_id: str, ranges: Sequence[tuple[str, str]], limit: int) -> list[Row]:
        """Up to `limit` rows from each range of each shard."""
        if limit <= 0 or not ranges:
            return []
        asked = [(f"{integration_id}#{shard}", low, high) for shard in range(SHARDS) for low, high in ranges]
        with ThreadPoolExecutor(max_workers=PARALLEL_QUERIES) as pool:
            answers = list(pool.map(lambda one: self._query_range(one[0], one[1], one[2], limit), asked))
        return [row for stored in (item for answer in answers for item in answer) for row in self._readable(stored)]

    def _query_range(self, gpk: str, low: str, high: str, limit: int) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        further: dict[str, Any] = {}
        with aws.border("query the work index"):
            while True:
                answer = self._client.query(
                    TableName=self._table,
                    IndexName=WORK_INDEX,
                    KeyConditionExpression="gpk = :gpk AND gsk BETWEEN :low AND :high",
                    ExpressionAttributeValues=items.values({"gpk": gpk, "low": low, "high": high}),
                    Limit=limit - len(found),
                    **further,
                )
                found.extend(answer["Items"])
                if len(found) >= limit or not answer.get("LastEvaluatedKey"):
                    return found
                further = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def _readable(self, stored: Mapping[str, Any]) -> list[Row]:
        try:
            return [row_of(stored)]
        except MalformedDecision as exc:
            _LOG.error(
                "a recovery item cannot be read and is left as it is: was it written by a newer version?",
                extra={"recovery_id": stored["pk"].get("S"), "reason": str(exc)},
            )
            self._count("row_unreadable")
            return []


def _age(row: Row) -> tuple[bool, int, str]:
    moment = row.due_at_ms if row.is_open else row.updated_at_ms
    return row.is_open and row.due_at_ms == 0, moment, row.recovery_id


def _is_own(change: Change, stored: Mapping[str, Any], write_id: str) -> bool:
    """Whether what stands in the way is what this change would have written."""
    if stored.get("write_id") == items.value(write_id):
        return True
    is_same = {name: content for name, content in stored.items() if name != "write_id"} == row_item(change.after)
    return is_same and change.after.lease_until_ms == 0


# -------------------------------------------------------------------------------------------------------- row and item


def shard_of(recovery_id: str) -> int:
    """The shard of the index a row is in, for good."""
    return zlib.crc32(recovery_id.encode("utf-8", "surrogatepass")) % SHARDS


def work_key(row: Row) -> tuple[str, str]:
    """`gpk` and `gsk`."""
    if not row.is_open:
        moment = f"e{row.updated_at_ms:013d}"
    elif row.due_at_ms:
        moment = f"{row.due_at_ms:013d}"
    else:
        moment = "w"
    return f"{row.integration_id}#{shard_of(row.recovery_id)}", f"{row.status.value}#{moment}#{row.recovery_id}"


def row_item(row: Row) -> items.Item:
    """A row as it is stored, but for `write_id`."""
    gpk, gsk = work_key(row)
    attributes: dict[str, Any] = {"pk": row.recovery_id, "gpk": gpk, "gsk": gsk}
    for field in fields(row):
        content = getattr(row, field.name)
        if not content:
            continue
        if field.name in _ACTIONS:
            content = _json({"id": content.action_id, **content.to_data()})
        elif field.name == "history":
            content = _json(content)
        elif isinstance(content, Enum):
            content = content.value
        attributes[field.name] = content
    if row.expires_ttl_s:
        attributes["ttl"] = row.expires_ttl_s
    return items.item(attributes)


def row_of(stored: Mapping[str, Any]) -> Row:
    """A row as it was read. An action keeps the id it was stored with: the provider knows it by that.

    Raises `MalformedDecision` if anything of it cannot be understood.
    """
    try:
        seen = {name: items.plain(content) for name, content in stored.items()}
        return Row(**{field.name: _field(field.name, str(field.type), seen) for field in fields(Row)})
    except (KeyError, ValueError, TypeError, RecursionError) as exc:
        raise MalformedDecision(f"row {stored.get('pk')} cannot be read: {exc!r}") from exc


def _field(name: str, kind: str, seen: Mapping[str, Any]) -> Any:
    if name in _ENUMS:
        return _ENUMS[name](seen.get(name, ""))
    if name in _ACTIONS:
        return _action(seen[name]) if name in seen else None
    if name == "history":
        return _history(seen[name]) if name in seen else ()
    content = seen.get(name, _EMPTY[kind])
    if kind.startswith("tuple"):
        return tuple(content)
    if type(content).__name__ != kind:
        raise ValueError(f"{name} is not of type {kind}")
    return content


def _history(text: str) -> tuple[dict[str, Any], ...]:
    entries = json.loads(text)
    if not isinstance(entries, list) or any(not isinstance(entry, dict) for entry in entries):
        raise ValueError("its history is no list of steps")
    return tuple(entries)


def _action(text: str) -> Action:
    data = json.loads(text)
    return replace(Action.from_data(data), action_id=str(data["id"]))


def _json(content: Any) -> str:
    return compact(content)


def row_put(change: Change, table: str, write_id: str, *, is_new: bool) -> dict[str, Any]:
    """A change's part of a transaction: the whole row, if there is none (`is_new`) or it has the version seen."""
    put: dict[str, Any] = {
        "TableName": table,
        "Item": row_item(change.after) | {"write_id": items.value(write_id)},
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    if is_new or change.before is None:
        put["ConditionExpression"] = "attribute_not_exists(pk)"
    else:
        put["ConditionExpression"] = "#version = :seen"
        put["ExpressionAttributeNames"] = items.names(["version"])
        put["ExpressionAttributeValues"] = items.values({"seen": change.before.version})
    return {"Put": put}
