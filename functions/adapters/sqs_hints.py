"""The retries and the replays queue as their senders use them, and the time until a queue shows a message again."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from functions.adapters.aws import code_of
from functions.adapters.items import chunks
from functions.core.ports import Hint

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

BATCH_SIZE: Final = 10
MAX_DELAY_SECONDS: Final = 900
MAX_VISIBILITY_SECONDS: Final = 43_200

_LOG = logging.getLogger(__name__)


class SqsHints:
    """`ports.Hints`, for one queue. The body is `{"recovery_id", "version"}`."""

    def __init__(self, client: SQSClient, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def send(self, hints: Sequence[Hint], now_ms: int) -> list[Hint]:
        """Send each with its delay, at most 900 s; returns those that were not accepted, as far as anybody knows.

        A request that fails is logged and ends the call: what follows would meet the same trouble. Never raises: a hint
        that is lost costs time only, since its row is due again by itself.
        """
        failed: list[Hint] = []
        batches = chunks(hints, BATCH_SIZE)
        for number, batch in enumerate(batches):
            try:
                answer = self._client.send_message_batch(
                    QueueUrl=self._queue_url,
                    Entries=[_entry(index, hint, now_ms) for index, hint in enumerate(batch)],
                )
            except (BotoCoreError, ClientError) as exc:
                left = [hint for later in batches[number:] for hint in later]
                _LOG.warning(
                    "hints were not sent: their rows are due again", extra={"reason": code_of(exc), "count": len(left)}
                )
                return failed + left
            for refused in answer.get("Failed", []):
                _LOG.warning(
                    "the queue refused a hint: its row is due again",
                    extra={"recovery_id": batch[int(refused["Id"])].recovery_id, "reason": refused["Code"]},
                )
                failed.append(batch[int(refused["Id"])])
        return failed


def _entry(index: int, hint: Hint, now_ms: int) -> SendMessageBatchRequestEntryTypeDef:
    entry: SendMessageBatchRequestEntryTypeDef = {
        "Id": str(index),
        "MessageBody": hint.to_message(),
        "DelaySeconds": delay_seconds(hint, now_ms),
    }
    if hint.tenant:
        entry["MessageGroupId"] = hint.tenant
    return entry


def delay_seconds(hint: Hint, now_ms: int) -> int:
    """Whole seconds until the hint's time, never before it, as far as a queue can wait."""
    return min(max(-((now_ms - hint.not_before_ms) // 1000), 0), MAX_DELAY_SECONDS)


class SqsVisibility:
    """`ports.Visibility`, for the queues whose URLs it is given by name (the last part of their ARN)."""

    def __init__(self, client: SQSClient, queue_urls: Mapping[str, str]) -> None:
        self._client = client
        self._queue_urls = dict(queue_urls)

    def delay(self, queue_arn: str, receipt_handle: str, seconds: int) -> None:
        """See the port. Best effort: what goes wrong is logged, and the queue's own timeout holds."""
        name = queue_arn.rpartition(":")[2]
        queue_url = self._queue_urls.get(name)
        if queue_url is None:
            _LOG.error("a message of a queue that is not ours keeps its visibility", extra={"queue": name})
            return
        try:
            self._client.change_message_visibility(
                QueueUrl=queue_url,
                ReceiptHandle=receipt_handle,
                VisibilityTimeout=min(max(seconds, 0), MAX_VISIBILITY_SECONDS),
            )
        except (BotoCoreError, ClientError) as exc:
            _LOG.warning(
                "a message comes back when its queue's own timeout ends: its visibility could not be set",
                extra={"queue": name, "reason": code_of(exc)},
            )
