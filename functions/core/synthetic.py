"""The synthetic event: one of our own that goes the whole way of an event every few minutes and reaches nobody
(architecture §10). Pure.

It comes in at the public address, signed like any other (Standard Webhooks), through a source of its own, and calls for
nothing. That it was settled is counted; that it is not any more is an alarm. What people count and compare leaves it
out: it is no customer's, and at night it would be most of what there is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from functions.core.failure import HoldfastError
from functions.core.source import MalformedSource, Source

FLOW: Final = "synthetic"
"""No source but its own names it."""
SOURCE: Final = "synthetic"
PROVIDER: Final = "standard-webhooks"
EVENT_NAME: Final = "synthetic.sent"
_PREFIX: Final = "whsec_"


class UnusableSyntheticSource(HoldfastError):
    """The source's entry is not one that a synthetic event can come through. The text quotes no secret."""


@dataclass(frozen=True, slots=True)
class SyntheticDelivery:
    """One request, as a sender makes it. `url` is empty where the entry names no address of its own."""

    url: str
    headers: Mapping[str, str]
    body: bytes


def is_synthetic(flow: str) -> bool:
    """Whether an event of that flow is one of ours that reaches nobody."""
    return flow == FLOW


def delivery(entry: str, new_id: str, now_ms: int) -> SyntheticDelivery:
    """The next one, signed with the newest secret of the source's entry. `new_id`: 32 hexadecimal digits, of no other.

    Raises `UnusableSyntheticSource`.
    """
    try:
        source = Source.parse(SOURCE, entry)
    except MalformedSource as malformed:
        raise UnusableSyntheticSource(str(malformed)) from malformed
    if source.provider != PROVIDER or source.flow != FLOW:
        raise UnusableSyntheticSource(f"its provider is not {PROVIDER}, or its flow not {FLOW}")
    message_id, moment = f"synthetic_{new_id}", str(now_ms // 1000)
    body = json.dumps({"type": EVENT_NAME, "sent_at_ms": now_ms}, separators=(",", ":")).encode()
    signed = b".".join((message_id.encode(), moment.encode(), body))
    signature = base64.b64encode(hmac.new(_key(source), signed, hashlib.sha256).digest()).decode()
    return SyntheticDelivery(
        source.public_url,
        {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": moment,
            "webhook-signature": f"v1,{signature}",
            "traceparent": f"00-{new_id}-{new_id[:16]}-01",
        },
        body,
    )


def _key(source: Source) -> bytes:
    try:
        return base64.b64decode(source.secrets[0].value.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise UnusableSyntheticSource("its newest secret is none of Standard Webhooks") from exc
