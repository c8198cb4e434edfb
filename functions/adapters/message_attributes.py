"""What a message of the events queue bears beside its body, and how its sender knows that it has arrived; whoever that
is: ingress, or the sweeper from the spill.

Standard library only: it is in the way of a webhook.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from functions.core.event import Event

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageAttributeValueTypeDef

# All that SQS refuses a message for (API reference, SendMessage, says what it takes). The complement of what it takes
# says the same, but takes 10 ms longer to compile on a cold start.
_UNSENDABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def attributes_of(event: Event) -> dict[str, MessageAttributeValueTypeDef]:
    """For people and filters; the envelope says it all too. What is absent is left out: empty ones are refused.

    A character that SQS would refuse the message for becomes U+FFFD.
    """
    texts = {
        "event_name": event.event_name,
        "event_version": event.event_version,
        "source": event.source,
        "tenant": event.tenant,
        "request_id": event.request_id,
        "traceparent": event.traceparent,
    }
    attributes: dict[str, MessageAttributeValueTypeDef] = {
        name: {"DataType": "String", "StringValue": _UNSENDABLE.sub("\ufffd", text)}
        for name, text in texts.items()
        if text
    }
    attributes["received_at"] = {"DataType": "Number", "StringValue": str(event.received_at_ms)}
    return attributes


def is_receipt(answer: Mapping[str, object], message: str) -> bool:
    """Whether SQS says, in an answer of SendMessage, that it has this very message."""
    digest = hashlib.md5(message.encode(), usedforsecurity=False).hexdigest()
    return bool(answer.get("MessageId")) and answer.get("MD5OfMessageBody") == digest
