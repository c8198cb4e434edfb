"""How many new events wait, and how much each queue of the worker holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from functions.adapters.aws import border
from functions.core.page import Depth

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


class SqsBacklog:
    """`ports.LiveBacklog`: of the events queue, what is visible and nobody has taken."""

    def __init__(self, client: SQSClient, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def waiting(self) -> int:
        """See the port."""
        with border("look at the events queue"):
            answer = self._client.get_queue_attributes(
                QueueUrl=self._queue_url, AttributeNames=["ApproximateNumberOfMessages"]
            )
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])


class SqsQueueDepths:
    """`ports.QueueDepths`. `urls` are the queues by name."""

    def __init__(self, client: SQSClient, urls: Mapping[str, str]) -> None:
        self._client = client
        self._urls = urls

    def read(self, queue: str) -> Depth:
        """See the port. One GetQueueAttributes."""
        url = self._urls[queue]
        with border(f"look at the queue {queue}"):
            said = self._client.get_queue_attributes(
                QueueUrl=url,
                AttributeNames=[
                    "ApproximateNumberOfMessages",
                    "ApproximateNumberOfMessagesDelayed",
                    "ApproximateNumberOfMessagesNotVisible",
                ],
            )["Attributes"]
        return Depth(
            int(said["ApproximateNumberOfMessages"]) + int(said["ApproximateNumberOfMessagesDelayed"]),
            int(said["ApproximateNumberOfMessagesNotVisible"]),
        )
