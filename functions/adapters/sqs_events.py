"""The events queue, as the spill is drained into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from botocore.exceptions import ClientError

from functions.adapters.aws import border, code_of
from functions.adapters.message_attributes import attributes_of, is_receipt
from functions.core.event import Event
from functions.core.failure import StorageRefused, StorageUnavailable

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

# About the message, and so the same whenever it comes. Anything else may be about us, and may pass: a missing grant, a
# queue that is gone, throttling (API reference, SendMessage and Common Errors). Some arrive with their suffix.
_REFUSED: Final = frozenset({"InvalidMessageContents", "InvalidParameterValue"})


class SqsEvents:
    """`ports.EventsQueue`."""

    def __init__(self, client: SQSClient, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def send(self, event: Event, message: str) -> None:
        """See the port. The message is what ingress would have sent: attributes and group are the same.

        What SQS says it has is compared, as ingress does: the only other copy goes next, and the SDK does not look.
        """
        with border("send a spilled message"):
            try:
                answer = self._client.send_message(
                    QueueUrl=self._queue_url,
                    MessageBody=message,
                    MessageAttributes=attributes_of(event),
                    MessageGroupId=event.tenant,
                )
            except ClientError as exc:
                if code_of(exc).removesuffix("Exception") in _REFUSED:
                    raise StorageRefused(f"send a spilled message: {code_of(exc)}") from exc
                raise
        if not is_receipt(answer, message):
            raise StorageUnavailable("send a spilled message: the answer is not what SQS says of this message")
