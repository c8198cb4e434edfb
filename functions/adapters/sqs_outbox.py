"""The events queue, as ingress writes to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from functions.core.event import Event
from functions.core.failure import StorageUnavailable

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageAttributeValueTypeDef

# Two tries of at most 0.2 + 0.54 s: a sender is answered within 1.5 s whatever the queue does.
CONNECT_SECONDS: Final = 0.2
READ_SECONDS: Final = 0.54
TRIES: Final = 2


class SqsOutbox:
    """Stores an event with one SendMessage, and one more if that fails in a way that may pass."""

    def __init__(self, client: SQSClient, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    @staticmethod
    def connect(queue_url: str) -> SqsOutbox:
        """With a client of its own that tries once: the SDK's own backoff would outlast the sender."""
        config = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"total_max_attempts": 1, "mode": "standard"},
            tcp_keepalive=True,
        )
        return SqsOutbox(boto3.client("sqs", config=config), queue_url)

    def store(self, event: Event, message: str) -> None:
        """Return once the queue has it. Raises `StorageUnavailable`; the message may be there all the same."""
        attributes = _attributes(event)
        for attempt in range(1, TRIES + 1):
            try:
                self._client.send_message(
                    QueueUrl=self._queue_url,
                    MessageBody=message,
                    MessageAttributes=attributes,
                    MessageGroupId=event.tenant,
                )
            except (BotoCoreError, ClientError) as exc:
                if attempt == TRIES or not _may_pass(exc):
                    raise StorageUnavailable(f"SendMessage failed {attempt} time(s): {_named(exc)}") from exc
            else:
                return


def _attributes(event: Event) -> dict[str, MessageAttributeValueTypeDef]:
    """For people and filters; the envelope says it all too. What is absent is left out: empty ones are refused."""
    texts = {
        "event_name": event.event_name,
        "event_version": event.event_version,
        "source": event.source,
        "tenant": event.tenant,
        "request_id": event.request_id,
        "traceparent": event.traceparent,
    }
    attributes: dict[str, MessageAttributeValueTypeDef] = {
        name: {"DataType": "String", "StringValue": text} for name, text in texts.items() if text
    }
    attributes["received_at"] = {"DataType": "Number", "StringValue": str(event.received_at_ms)}
    return attributes


def _may_pass(exc: BotoCoreError | ClientError) -> bool:
    """Whether the same request can succeed a moment later: not when the service understood and refused it."""
    if not isinstance(exc, ClientError):
        return True
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    return status >= 500 or status == 429 or "Throttl" in _named(exc)


def _named(exc: BotoCoreError | ClientError) -> str:
    """The error's stable name: the text may quote the request."""
    if isinstance(exc, ClientError):
        return str(exc.response.get("Error", {}).get("Code", "ClientError"))
    return type(exc).__name__
