"""What operators do to rows: row, audit event and the record of the call's key in one transaction (architecture §7).

The record is an item of the control table: `pk` = `I#{principal}#{key}`, `asked` (hash of the call), `answer` (JSON),
`at` (milliseconds), `ttl`. A key holds no `#`, so the last one divides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from functions.adapters import items
from functions.adapters.audit import audit_puts
from functions.adapters.aws import Pause, border, pause
from functions.adapters.recovery import SHARDS, WORK_INDEX, row_of, row_put
from functions.adapters.transactions import Transactions, check_size
from functions.core.clock import Ids
from functions.core.failure import MalformedDecision, StorageUnavailable, VersionConflict
from functions.core.operations import KEY_KEPT_MS, Answered
from functions.core.ports import RowPage
from functions.core.recovery import Change, Row, Status

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_HIGHEST: Final = "~"  # after every letter and digit of an index key


class DynamoOperatorChanges:
    """`ports.OperatorChanges`."""

    def __init__(
        self,
        client: DynamoDBClient,
        ids: Ids,
        *,
        recovery_table: str,
        audit_table: str,
        control_table: str,
        pause: Pause = pause,
    ) -> None:
        self._client = client
        self._ids = ids
        self._recovery_table = recovery_table
        self._audit_table = audit_table
        self._control_table = control_table
        self._transactions = Transactions(client, pause)

    def answered(self, principal: str, key: str, now_ms: int) -> Answered | None:
        """See the port."""
        with border("read what a key was answered"):
            found = self._client.get_item(
                TableName=self._control_table, Key=_pk(principal, key), ConsistentRead=True
            ).get("Item")
        record = None if found is None else _answered(principal, key, found)
        return record if record is not None and record.is_kept(now_ms) else None

    def commit(
        self, change: Change, answered: Answered | None = None, released: Sequence[Change] = ()
    ) -> Answered | None:
        """See the port. One TransactWriteItems."""
        changes = [change, *released]
        check_size(changes, others=1)
        write_id = self._ids.new_id()
        writes = [row_put(one, self._recovery_table, write_id, is_new=False) for one in changes]
        if answered is not None:
            writes.append(self._key_put(answered))
        audit = audit_puts([event for one in changes for event in one.audit], self._audit_table)
        verdicts = self._transactions.write([*writes, *audit], "change a row as an operator asks, with its audit event")
        if verdicts is None:
            return None
        if answered is not None and verdicts[len(changes)].is_refused:
            return _answered(answered.principal, answered.key, verdicts[len(changes)].stored)
        if verdicts[0].stored.get("write_id") == items.value(write_id):
            return None
        raise VersionConflict(f"{change.after.recovery_id} has moved on since it was read")

    def _key_put(self, answered: Answered) -> dict[str, Any]:
        item = {
            "asked": answered.asked,
            "answer": answered.answer,
            "at": answered.at_ms,
            "ttl": (answered.at_ms + KEY_KEPT_MS) // 1000,
        }
        return {
            "Put": {
                "TableName": self._control_table,
                "Item": {**_pk(answered.principal, answered.key), **items.item(item)},
                # What has ended may be there for days before DynamoDB takes it away.
                "ConditionExpression": "attribute_not_exists(pk) OR #at <= :ended",
                "ExpressionAttributeNames": items.names(["at"]),
                "ExpressionAttributeValues": items.values({"ended": answered.at_ms - KEY_KEPT_MS}),
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }

    def page(self, integration_id: str, statuses: Sequence[Status], after: str, limit: int) -> RowPage:
        """See the port. Status by status until the page is full: one query per shard of the index, merged by its keys,
        which no two rows share.
        """
        found: list[tuple[str, Mapping[str, Any]]] = []
        for low, high in _ranges(statuses, after):
            missing = limit + 1 - len(found)  # one more tells whether there is another page
            asked = [(f"{integration_id}#{shard}", low, high, missing) for shard in range(SHARDS)]
            with ThreadPoolExecutor(max_workers=SHARDS) as pool:
                parts = pool.map(lambda one: self._shard(*one), asked)
                found += sorted(chain.from_iterable(parts), key=lambda one: one[0])[:missing]
            if len(found) > limit:
                break
        shown = found[:limit]
        rows: list[Row] = []
        unreadable: list[str] = []
        for _, stored in shown:
            try:
                rows.append(row_of(stored))
            except MalformedDecision:
                unreadable.append(str(stored["pk"].get("S", "")))
        return RowPage(tuple(rows), shown[-1][0] if len(found) > limit else "", tuple(unreadable))

    def _shard(self, gpk: str, low: str, high: str, limit: int) -> list[tuple[str, Mapping[str, Any]]]:
        found: list[tuple[str, Mapping[str, Any]]] = []
        further: dict[str, Any] = {}
        with border("list rows"):
            while len(found) < limit:
                answer = self._client.query(
                    **self._in_range(gpk, low, high),
                    Limit=limit - len(found) + 1,  # the first may be the one that the page before ended with
                    **further,
                )
                found += [(str(one["gsk"]["S"]), one) for one in answer["Items"] if one["gsk"]["S"] != low]
                if not answer.get("LastEvaluatedKey"):
                    break
                further = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
        return found[:limit]

    def count(self, integration_id: str, most: int) -> Mapping[Status, int]:
        """See the port. Counting reads what it counts: at most `most` of each range of the index, whatever there is."""
        counts: dict[Status, int] = {}
        with ThreadPoolExecutor(max_workers=len(_COUNTED)) as pool:
            numbers = pool.map(lambda one: self._count(integration_id, one[1], one[2], most), _COUNTED)
            for (status, *_), number in zip(_COUNTED, numbers, strict=True):
                counts[status] = min(counts.get(status, 0) + number, most)
        return {status: number for status, number in counts.items() if number}

    def _count(self, integration_id: str, low: str, high: str, most: int) -> int:
        """Shard by shard, until it is enough."""
        found = 0
        with border("count rows"):
            for shard in range(SHARDS):
                further: dict[str, Any] = {}
                while found < most:
                    answer = self._client.query(
                        **self._in_range(f"{integration_id}#{shard}", low, high),
                        Select="COUNT",
                        Limit=most - found,
                        **further,
                    )
                    found += answer["Count"]
                    if not answer.get("LastEvaluatedKey"):
                        break
                    further = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
        return found

    def _in_range(self, gpk: str, low: str, high: str) -> dict[str, Any]:
        return {
            "TableName": self._recovery_table,
            "IndexName": WORK_INDEX,
            "KeyConditionExpression": "gpk = :gpk AND gsk BETWEEN :low AND :high",
            "ExpressionAttributeValues": items.values({"gpk": gpk, "low": low, "high": high}),
        }


# Of the index's keys. A replay that succeeded keeps its status; its key goes on with `e`, where an open row's goes on
# with digits or `w`.
_COUNTED: Final = (
    *((one, f"{one.value}#", f"{one.value}#{_HIGHEST}") for one in (Status.PENDING, Status.RETRYING)),
    (Status.REPLAYED, "replayed#0", "replayed#9~"),
    (Status.REPLAYED, "replayed#w", "replayed#~"),
    *((one, f"{one.value}#", f"{one.value}#{_HIGHEST}") for one in (Status.FAILED, Status.DLQ)),
)


def _ranges(statuses: Sequence[Status], after: str) -> list[tuple[str, str]]:
    """Of the index's keys, in their order, each beginning after `after`."""
    ranges = []
    for status in sorted({status.value for status in statuses}):
        low, high = f"{status}#", f"{status}#{_HIGHEST}"
        if after <= high:
            ranges.append((max(low, after), high))
    return ranges


def _pk(principal: str, key: str) -> items.Item:
    return items.item({"pk": f"I#{principal}#{key}"})


def _answered(principal: str, key: str, stored: Mapping[str, Any]) -> Answered:
    try:
        return Answered(principal, key, str(stored["asked"]["S"]), str(stored["answer"]["S"]), int(stored["at"]["N"]))
    except (KeyError, TypeError, ValueError) as exc:
        raise StorageUnavailable(f"what the key was answered cannot be read back: {exc!r}") from exc
