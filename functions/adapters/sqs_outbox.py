"""The events queue, as ingress writes to it."""

from __future__ import annotations

from functions.adapters.aws_wire import Service, check
from functions.adapters.message_attributes import attributes_of, is_receipt
from functions.core.event import Event
from functions.core.failure import StorageUnavailable


class SqsQueue:
    """Sends messages with one SendMessage each."""

    def __init__(self, service: Service, queue_url: str) -> None:
        self._service = service
        self._queue_url = queue_url

    @staticmethod
    def connect(queue_url: str) -> SqsQueue:
        """As the environment says. Raises ValueError where it says nothing usable."""
        return SqsQueue(Service.connect("sqs"), queue_url)

    def send(self, event: Event, message: str, timeout_seconds: float) -> None:
        """Send `message`, which stands for `event`, in one try. Return once the queue has it, unharmed.

        Raises `StorageRefused` where a second try is of no use, else `StorageUnavailable`; it may be there even so.
        """
        request = {
            "QueueUrl": self._queue_url,
            "MessageBody": message,
            "MessageAttributes": attributes_of(event),
            "MessageGroupId": event.tenant,
        }
        answer, document = self._service.call_json("AmazonSQS.SendMessage", "1.0", request, timeout_seconds)
        check("SendMessage", answer)
        if not is_receipt(document, message):
            raise StorageUnavailable("SendMessage failed: the answer is not what SQS says of this message")
