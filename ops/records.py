"""What a stage remembers, read from its tables for people: events, recovery rows, audit events.

Items are given as plain dictionaries under the names they are stored by, for eyes and for balances; what decides
anything reads them through `functions.adapters`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

from boto3.dynamodb.types import Binary, TypeDeserializer

from functions.adapters.recovery import OPEN, SHARDS, WORK_INDEX, row_of
from functions.core import synthetic
from functions.core.decision import Decision
from functions.core.recovery import Row, Status, action_recovery_id, event_recovery_id
from ops.stack import Stack

Item = dict[str, Any]

_read = TypeDeserializer().deserialize


def plain(stored: Mapping[str, Any]) -> Item:
    """A DynamoDB item with Python's own numbers, lists and dictionaries."""
    return {name: _plain(_read(value)) for name, value in stored.items()}


def _plain(value: Any) -> Any:
    match value:
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case dict():
            return {name: _plain(inner) for name, inner in value.items()}
        case list() | set() | frozenset() | tuple():
            return [_plain(inner) for inner in value]
        case Binary():
            return bytes(value).hex()  # type: ignore[call-overload]  # the stubs do not know that it is bytes-like
        case _:
            return value


def events(stack: Stack, *, with_synthetic: bool = False) -> list[Item]:
    """Every event of the ledger, latest first; without those that the stage sends itself, unless asked for. Reads the
    whole table: for a local stack.
    """
    found = (_event(item) for item in _scan(stack, stack.output("LedgerTable")))
    return sorted(
        (one for one in found if with_synthetic or not _is_synthetic(one)),
        key=lambda event: int(event.get("received_at", 0)),
        reverse=True,
    )


def _is_synthetic(item: Item) -> bool:
    return str(item["event_id"]).startswith(f"{synthetic.SOURCE}:")


def event(stack: Stack, tenant: str, event_id: str) -> Item | None:
    """One event of the ledger."""
    for prefix in ("E", "S"):
        answer = stack.client("dynamodb").get_item(
            TableName=stack.output("LedgerTable"),
            Key={"pk": {"S": f"{prefix}#{tenant}#{event_id}"}},
            ConsistentRead=True,
        )
        if "Item" in answer:
            return _event(plain(answer["Item"]))
    return None


def _event(item: Item) -> Item:
    """A ledger item with its key taken apart and its decision read."""
    prefix, _, rest = str(item["pk"]).partition("#")
    tenant, _, event_id = rest.partition("#")
    decision = item.get("decision")
    return {
        **item,
        "tenant": tenant,
        "event_id": event_id,
        "is_shadow": prefix == "S",
        "decision": json.loads(decision) if isinstance(decision, str) else decision,
    }


def row(stack: Stack, recovery_id: str) -> Item | None:
    """One recovery row."""
    stored = _stored_row(stack, recovery_id)
    return None if stored is None else plain(stored)


def row_as_decided_on(stack: Stack, recovery_id: str) -> Row | None:
    """One recovery row as core reads it. Raises `MalformedDecision` for one that cannot be read back."""
    stored = _stored_row(stack, recovery_id)
    return None if stored is None else row_of(stored)


def _stored_row(stack: Stack, recovery_id: str) -> Mapping[str, Any] | None:
    answer = stack.client("dynamodb").get_item(
        TableName=stack.output("RecoveryTable"), Key={"pk": {"S": recovery_id}}, ConsistentRead=True
    )
    found: Mapping[str, Any] | None = answer.get("Item")
    return found


def rows_of_event(stack: Stack, tenant: str, event_id: str, item: Item | None) -> list[Item]:
    """The recovery rows of an event: of its actions, whose ids follow from its decision, and of the event itself."""
    epoch = int(item.get("epoch", 0)) if item else 0
    wanted = [event_recovery_id(tenant, event_id, epoch)]
    if item is not None and item.get("decision"):
        decision = Decision.from_json(json.dumps(item["decision"])).bound(tenant, event_id, epoch)
        wanted += [action_recovery_id(action.action_id) for action in decision.actions]
    found = (row(stack, recovery_id) for recovery_id in wanted)
    return [one for one in found if one is not None]


def rows(stack: Stack, integrations: Iterable[str], statuses: Sequence[str] = (), limit: int = 0) -> list[Item]:
    """Recovery rows of the integrations, by the index: earliest due first, then those that have ended.

    `statuses` narrows to some; `limit` (0: none) bounds what is given, and what is read per shard and status.
    """
    wanted = [
        (integration, status, shard)
        for integration in integrations
        for status in (statuses or [status.value for status in Status])
        for shard in range(SHARDS)
    ]
    with ThreadPoolExecutor(max_workers=16) as pool:
        found = [item for part in pool.map(lambda key: _rows_of(stack, *key, limit=limit), wanted) for item in part]
    found.sort(key=lambda item: str(item.get("gsk", "")).partition("#")[2])
    return found[:limit] if limit else found


def _rows_of(stack: Stack, integration: str, status: str, shard: int, *, limit: int) -> list[Item]:
    request: dict[str, Any] = {
        "TableName": stack.output("RecoveryTable"),
        "IndexName": WORK_INDEX,
        "KeyConditionExpression": "gpk = :shard AND begins_with(gsk, :status)",
        "ExpressionAttributeValues": {":shard": {"S": f"{integration}#{shard}"}, ":status": {"S": f"{status}#"}},
    }
    if limit:
        request["Limit"] = limit
        return [plain(item) for item in stack.client("dynamodb").query(**request)["Items"]]
    pages = stack.client("dynamodb").get_paginator("query").paginate(**request)
    return [plain(item) for page in pages for item in page["Items"]]


def backlog(stack: Stack, integration: str) -> dict[str, int]:
    """How many of the integration's rows are in each status, but for those that succeeded, at first or by a replay; 0
    left out.
    """
    wanted = [(status.value, shard) for status in Status if status is not Status.SUCCEEDED for shard in range(SHARDS)]
    with ThreadPoolExecutor(max_workers=16) as pool:
        counted = list(pool.map(lambda key: (key[0], _count_of(stack, integration, *key)), wanted))
    totals: dict[str, int] = {}
    for status, count in counted:
        totals[status] = totals.get(status, 0) + count
    return {status: count for status, count in totals.items() if count}


def _count_of(stack: Stack, integration: str, status: str, shard: int) -> int:
    pages = (
        stack.client("dynamodb")
        .get_paginator("query")
        .paginate(
            TableName=stack.output("RecoveryTable"),
            IndexName=WORK_INDEX,
            Select="COUNT",
            KeyConditionExpression="gpk = :shard AND begins_with(gsk, :status)",
            # A replay that succeeded leaves its row `replayed`: nothing of that waits.
            FilterExpression="attribute_not_exists(#result) OR #result <> :succeeded",
            ExpressionAttributeNames={"#result": "result"},
            ExpressionAttributeValues={
                ":shard": {"S": f"{integration}#{shard}"},
                ":status": {"S": f"{status}#"},
                ":succeeded": {"S": Status.SUCCEEDED.value},
            },
        )
    )
    return sum(page["Count"] for page in pages)


def waiting(stack: Stack, integration: str, waiting_for: str) -> int:
    """How many open rows of the integration wait for that. Reads all that are open."""
    found = 0
    for status in OPEN:
        for shard in range(SHARDS):
            pages = (
                stack.client("dynamodb")
                .get_paginator("query")
                .paginate(
                    TableName=stack.output("RecoveryTable"),
                    IndexName=WORK_INDEX,
                    KeyConditionExpression="gpk = :shard AND begins_with(gsk, :status)",
                    FilterExpression="waiting_for = :waiting_for",
                    ExpressionAttributeValues={
                        ":shard": {"S": f"{integration}#{shard}"},
                        ":status": {"S": f"{status.value}#"},
                        ":waiting_for": {"S": waiting_for},
                    },
                    Select="COUNT",
                )
            )
            found += sum(int(page["Count"]) for page in pages)
    return found


def all_rows(stack: Stack) -> list[Item]:
    """Every recovery row, consistently. Reads the whole table: for a local stack."""
    return list(_scan(stack, stack.output("RecoveryTable")))


def audit_of(stack: Stack, entity: str) -> list[Item]:
    """The audit events about one entity (`{kind}#{id}`), in order."""
    pages = (
        stack.client("dynamodb")
        .get_paginator("query")
        .paginate(
            TableName=stack.output("AuditTable"),
            KeyConditionExpression="pk = :entity",
            ExpressionAttributeValues={":entity": {"S": entity}},
            ConsistentRead=True,
        )
    )
    return [plain(item) for page in pages for item in page["Items"]]


def all_audit(stack: Stack) -> list[Item]:
    """Every audit event, oldest first. Reads the whole table: for a local stack."""
    return sorted(_scan(stack, stack.output("AuditTable")), key=lambda item: str(item["sk"]))


def queue_depths(stack: Stack) -> dict[str, int]:
    """Messages in each queue, waiting, in flight and delayed together, by name (`Events`, `EventsDlq`, ...)."""
    depths = {}
    for key, url in stack.outputs.items():
        if key.endswith(("QueueUrl", "DlqUrl")):
            counted = stack.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=_COUNTS)["Attributes"]
            depths[key.removesuffix("Url").removesuffix("Queue")] = sum(int(counted[name]) for name in _COUNTS)
    return depths


_COUNTS = [
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
]


def _scan(stack: Stack, table: str) -> Iterator[Item]:
    for page in stack.client("dynamodb").get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
        for item in page["Items"]:
            yield plain(item)
