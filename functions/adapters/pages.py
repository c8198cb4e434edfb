"""Query for a page of a list, and whether the list goes on behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


def read_page(client: DynamoDBClient, request: Mapping[str, Any], limit: int) -> tuple[list[Mapping[str, Any]], bool]:
    """The first `limit` items of what is asked for, and whether there are more.

    One more than the page is read: DynamoDB says where it stopped at `Limit` even where that was the end, and stops
    before it where a request has read a megabyte. Errors are the caller's to translate.
    """
    found: list[Mapping[str, Any]] = []
    further: Mapping[str, Any] = {}
    while True:
        answer = client.query(**{**request, **further, "Limit": limit + 1 - len(found)})
        found.extend(answer["Items"])
        if len(found) > limit or not answer.get("LastEvaluatedKey"):
            return found[:limit], len(found) > limit
        further = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
