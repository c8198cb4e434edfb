"""The caps on automatic sends: items `CAP#{conversation}` of the control table, gone some hours after the last send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from functions.adapters import aws, items
from functions.core.cap import WINDOW_MS, Capped, Counted, Sends, counted, uncounted
from functions.core.failure import StorageUnavailable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# Whoever is refused has met a write of somebody else, and of those there are no more than sends that are allowed, but
# for repeats of the same ones.
TRIES: Final = 20
KEPT_SECONDS: Final = 3 * WINDOW_MS // 1000


class DynamoCaps:
    """`ports.Caps`. One conditional write for a conversation's first send of late, one more for each further one: a
    refused write brings back what stands in its way, so that nothing is read.
    """

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    def count(self, conversation: str, action_id: str, now_ms: int, most: int) -> Counted | Capped:
        """See the port. Meeting its own earlier success is success: what it wrote is there."""
        seen = Sends()
        for _ in range(TRIES):
            answer = counted(seen, action_id, now_ms, most)
            if isinstance(answer, Capped):
                return answer
            after, granted = answer
            found = self._write(conversation, seen, after, now_ms)
            if found is None or found == after:
                return granted
            seen = found
        raise StorageUnavailable(f"count an automatic send: the conversation's item was taken {TRIES} times")

    def uncount(self, conversation: str, action_id: str, at_ms: int) -> None:
        """See the port."""
        seen = self._read(conversation)
        for _ in range(TRIES):
            after = uncounted(seen, action_id, at_ms)
            found = None if after is None else self._write(conversation, seen, after, at_ms)
            if found is None:
                return
            seen = found
        raise StorageUnavailable(f"uncount an automatic send: the conversation's item was taken {TRIES} times")

    def _read(self, conversation: str) -> Sends:
        """What is there, by a write that cannot succeed: whoever counts may write single items here, and read none."""
        return self._write(conversation, Sends(version=-1), Sends(), 0) or Sends()

    def _write(self, conversation: str, seen: Sends, after: Sends, now_ms: int) -> Sends | None:
        """None if it was written, else what is there instead."""
        condition, values = "attribute_not_exists(pk)", {}
        if seen.version:
            condition, values = "#version = :seen", {"seen": seen.version}
        with aws.border("count an automatic send"):
            try:
                self._client.update_item(
                    TableName=self._table,
                    Key={"pk": items.value(f"CAP#{conversation}")},
                    UpdateExpression="SET sends = :sends, #version = :next, #ttl = :ttl",
                    ConditionExpression=condition,
                    ExpressionAttributeNames=items.names(["version", "ttl"]),
                    ExpressionAttributeValues=items.values(
                        {
                            "sends": dict(after.times),
                            "next": after.version,
                            "ttl": now_ms // 1000 + KEPT_SECONDS,
                            **values,
                        }
                    ),
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except ClientError as exc:
                if not aws.is_refused(exc):
                    raise
                stored: Any = exc.response.get("Item") or {}
                return _sends(conversation, stored)
        return None


def _sends(conversation: str, stored: Mapping[str, Any]) -> Sends:
    if not stored:
        return Sends()
    try:
        times, version = items.plain(stored["sends"]), items.plain(stored["version"])
        if not all(isinstance(at_ms, int) for at_ms in times.values()) or not isinstance(version, int):
            raise TypeError("not numbers")
        return Sends(times, version)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise StorageUnavailable(f"the item CAP#{conversation} of the control table cannot be read") from exc
