"""One accepted delivery, and the envelope it travels in.

The envelope is a JSON object in the body of an SQS message, and the same object in S3 for as long as anything of the
event is unfinished. The raw body is always base64, gzipped first when it is over 16 KB, so that a replay sees the
bytes that were signed.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from functions.core.failure import MalformedEnvelope

ENVELOPE_VERSION = 1
GZIP_OVER_BYTES = 16 * 1024
MAX_BODY_BYTES = 4_000_000  # decoded; architecture §5
MAX_INLINE_BYTES = 1_000_000  # of the encoded message; SQS takes 1 MiB with its attributes
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")  # tenant and source ids


@dataclass(frozen=True, slots=True)
class Event:
    """One accepted delivery of a source.

    `identity` is what a redelivery repeats and another event does not. Where the sender gives none, it is a hash of
    event name and body and `repeat_window_seconds` says for how long an equal one is the same event; otherwise that is
    0: the same for ever. `fields` are JSON pointers that tell the flow where the source keeps what it reads
    (conversation, text, author). `payload_hash` is the SHA-256 of the body's stable part. `held` events are accepted
    and parked.
    """

    tenant: str
    source: str
    provider: str
    flow: str
    identity: str
    event_name: str
    event_version: str
    received_at_ms: int
    request_id: str
    traceparent: str
    payload_hash: str
    content_type: str
    body: bytes
    repeat_window_seconds: int = 0
    held: bool = False
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def event_id(self) -> str:
        """`{source}:{identity}`, unique within the tenant."""
        return f"{self.source}:{self.identity}"

    @property
    def epoch_ms(self) -> int:
        """What tells two equal messages apart once the repeat window is over; 0 where identity does that alone."""
        return self.received_at_ms if self.repeat_window_seconds else 0

    def to_message(self) -> str:
        """The envelope as JSON text. ASCII, compact, the same for the same event."""
        packed = self.body
        encoding = "base64"
        if len(self.body) > GZIP_OVER_BYTES:
            smaller = gzip.compress(self.body, compresslevel=6, mtime=0)
            if len(smaller) < len(self.body):
                packed, encoding = smaller, "gzip+base64"
        envelope = {
            "v": ENVELOPE_VERSION,
            "tenant": self.tenant,
            "source": self.source,
            "provider": self.provider,
            "flow": self.flow,
            "identity": self.identity,
            "event_name": self.event_name,
            "event_version": self.event_version,
            "received_at_ms": self.received_at_ms,
            "request_id": self.request_id,
            "traceparent": self.traceparent,
            "payload_hash": self.payload_hash,
            "content_type": self.content_type,
            "repeat_window_seconds": self.repeat_window_seconds,
            "held": self.held,
            "fields": dict(self.fields),
            "encoding": encoding,
            "body": base64.b64encode(packed).decode("ascii"),
        }
        return json.dumps(envelope, separators=(",", ":"), sort_keys=True)

    @staticmethod
    def from_message(text: str) -> Event:
        """Read an envelope back. Raises `MalformedEnvelope` naming what is wrong, never quoting the body."""
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise MalformedEnvelope("the message is not JSON") from exc
        if not isinstance(raw, dict):
            raise MalformedEnvelope("the message is not a JSON object")
        version = raw.get("v")
        if version != ENVELOPE_VERSION:
            raise MalformedEnvelope(f"envelope version {str(version)[:20]} is not {ENVELOPE_VERSION}")
        texts = {name: _text(raw, name) for name in _TEXT_FIELDS}
        for name in ("tenant", "source"):
            if not NAME.match(texts[name]):
                raise MalformedEnvelope(f"{name} is not 1 to 64 letters, digits, '-' or '_'")
        if not texts["identity"]:
            raise MalformedEnvelope("identity is empty")
        fields = raw.get("fields", {})
        if not isinstance(fields, dict) or not all(
            isinstance(k, str) and isinstance(v, str) for k, v in fields.items()
        ):
            raise MalformedEnvelope("fields is not a map of texts")
        held = raw.get("held", False)
        if not isinstance(held, bool):
            raise MalformedEnvelope("held is not true or false")
        return Event(
            **texts,
            received_at_ms=_whole_number(raw, "received_at_ms"),
            repeat_window_seconds=_whole_number(raw, "repeat_window_seconds"),
            held=held,
            fields=dict(fields),
            body=_unpack(raw),
        )


_TEXT_FIELDS = (
    "tenant",
    "source",
    "provider",
    "flow",
    "identity",
    "event_name",
    "event_version",
    "request_id",
    "traceparent",
    "payload_hash",
    "content_type",
)


def _text(raw: Mapping[str, object], name: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str):
        raise MalformedEnvelope(f"{name} is missing or not a text")
    return value


def _whole_number(raw: Mapping[str, object], name: str) -> int:
    value = raw.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise MalformedEnvelope(f"{name} is missing or not a whole number")
    return value


def _unpack(raw: Mapping[str, object]) -> bytes:
    encoding = raw.get("encoding")
    if encoding not in ("base64", "gzip+base64"):
        raise MalformedEnvelope("encoding is neither base64 nor gzip+base64")
    try:
        packed = base64.b64decode(_text(raw, "body"), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise MalformedEnvelope("the body is not base64") from exc
    if encoding == "base64":
        return packed
    unzip = zlib.decompressobj(wbits=31)
    try:
        body = unzip.decompress(packed, MAX_BODY_BYTES + 1)
    except zlib.error as exc:
        raise MalformedEnvelope("the body is not gzip") from exc
    if len(body) > MAX_BODY_BYTES:
        raise MalformedEnvelope(f"the body is over {MAX_BODY_BYTES} bytes")
    if not unzip.eof:
        raise MalformedEnvelope("the body is cut short")
    return body


def digest(*parts: str) -> str:
    """SHA-256 over the parts, each with its length, so that no two lists of parts meet. 64 hexadecimal digits."""
    state = hashlib.sha256()
    for part in parts:
        # JSON can smuggle in half a surrogate pair, and ids come from strangers.
        raw = part.encode("utf-8", "surrogatepass")
        state.update(str(len(raw)).encode() + b":" + raw)
    return state.hexdigest()
