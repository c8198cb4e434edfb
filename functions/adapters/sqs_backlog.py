"""How many new events wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from functions.adapters.aws import border

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
