"""BatchGetItem over one table: consistent, a hundred keys a request, and what was left unprocessed asked for again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from functions.adapters import aws, items
from functions.core.failure import StorageUnavailable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

BATCH_SIZE: Final = 100
PAUSES_SECONDS: Final = (0.05, 0.1, 0.2, 0.4)  # before unprocessed keys are asked for again
AT_ONCE: Final = 8


def read_all(
    client: DynamoDBClient,
    table: str,
    keys: Sequence[str],
    pause: aws.Pause,
    what: str,
    attributes: Sequence[str] = (),
) -> list[Mapping[str, Any]]:
    """The items that are there, of all keys, in no order; only some `attributes` of them, if any are named. Keys may
    repeat. Raises `StorageUnavailable`.
    """
    chunks = items.chunks(list(dict.fromkeys(keys)), BATCH_SIZE)
    if len(chunks) <= 1:
        return [item for chunk in chunks for item in _read(client, table, chunk, pause, what, attributes)]
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        answers = list(pool.map(lambda chunk: _read(client, table, chunk, pause, what, attributes), chunks))
    return [item for answer in answers for item in answer]


def _read(
    client: DynamoDBClient, table: str, keys: Sequence[str], pause: aws.Pause, what: str, attributes: Sequence[str]
) -> list[Mapping[str, Any]]:
    asked: dict[str, Any] = {"Keys": [{"pk": {"S": key}} for key in keys], "ConsistentRead": True}
    if attributes:
        asked |= {
            "ProjectionExpression": ", ".join(f"#{name}" for name in attributes),
            "ExpressionAttributeNames": items.names(attributes),
        }
    requests: dict[str, Any] = {table: asked}
    found: list[Mapping[str, Any]] = []
    for attempt, seconds in enumerate((0.0, *PAUSES_SECONDS)):
        if attempt:
            pause(seconds)
        with aws.border(what):
            answer = client.batch_get_item(RequestItems=requests)
        found.extend(answer.get("Responses", {}).get(table, []))
        requests = dict(answer.get("UnprocessedKeys") or {})
        if not requests:
            return found
    raise StorageUnavailable(f"{what}: keys were left unprocessed again and again")
