"""One accepted delivery, and the envelope it travels in.

The envelope is a JSON object in the body of an SQS message, and the same object in S3 for as long as anything of the
event is unfinished. The raw body is always base64, gzipped first when it is over 16 KB, so that a replay sees the
bytes that were signed. An envelope too large for a queue waits in S3, and a claim check travels in its place: the same
object without the body, and with the name of what lies in S3.
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
from dataclasses import dataclass, field, replace

from functions.core.compact import compact
from functions.core.failure import MalformedEnvelope

ENVELOPE_VERSION = 1
GZIP_OVER_BYTES = 16 * 1024
GZIP_LIGHTLY_OVER_BYTES = 256 * 1024  # a sender waits meanwhile, and a small Lambda zips some 20 MB a second at best
MAX_BODY_BYTES = 4_000_000  # decoded; architecture §5
MAX_INLINE_BYTES = 1_000_000  # of the encoded message; SQS takes 1 MiB with its attributes
CLAIMS = "claims/"  # of the bucket: where whole envelopes wait, one folder per tenant
SPILL = "spill/"  # of the bucket: where messages wait that the events queue did not take, the oldest first by name
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
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
            level = 1 if len(self.body) > GZIP_LIGHTLY_OVER_BYTES else 6
            smaller = gzip.compress(self.body, compresslevel=level, mtime=0)
            if len(smaller) < len(self.body):
                packed, encoding = smaller, "gzip+base64"
        body = base64.b64encode(packed).decode("ascii")
        return compact({**_head_of(self), "encoding": encoding, "body": body})

    @staticmethod
    def from_message(text: str) -> Event:
        """Read a whole envelope. Raises `MalformedEnvelope`, whatever the text is."""
        raw = _object(text)
        return _event(raw, _unpack(raw))


@dataclass(frozen=True, slots=True)
class ClaimCheck:
    """What travels in place of an envelope that is too large for a queue.

    `head` is the event with an empty body. `reference` names the object with the whole envelope; it lies under the
    event's own tenant.
    """

    head: Event
    reference: str

    @staticmethod
    def of(event: Event, envelope: str) -> ClaimCheck:
        """The claim check of an event whose envelope is this text. Another envelope has another reference."""
        return ClaimCheck(replace(event, body=b""), f"{CLAIMS}{event.tenant}/{digest(envelope)}")

    def to_message(self) -> str:
        """As JSON text, like an envelope."""
        return compact({**_head_of(self.head), "claim": self.reference})

    def redeemed(self, event: Event) -> Event:
        """The event, if it is the one that was checked in. Raises `MalformedEnvelope`."""
        if replace(event, body=b"") != self.head:
            raise MalformedEnvelope("the claim check names an object that holds another event")
        return event


def read_message(text: str) -> Event | ClaimCheck:
    """Read what travels in a queue: an envelope, or a claim check. Raises `MalformedEnvelope`, whatever the text is."""
    raw = _object(text)
    if "claim" not in raw:
        return _event(raw, _unpack(raw))
    head, reference = _event(raw, b""), _text(raw, "claim")
    tenant, _, name = reference.removeprefix(CLAIMS).partition("/")
    # The name is built into a request to S3: nobody else's object, and nothing but a claim.
    if not reference.startswith(CLAIMS) or tenant != head.tenant or not _DIGEST.match(name):
        raise MalformedEnvelope("claim is no name of an object of the tenant")
    return ClaimCheck(head, reference)


def _object(text: str) -> Mapping[str, object]:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise MalformedEnvelope("the message is not JSON") from exc
    if not isinstance(raw, dict):
        raise MalformedEnvelope("the message is not a JSON object")
    return raw


def _event(raw: Mapping[str, object], body: bytes) -> Event:
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
    if not isinstance(fields, dict) or not all(isinstance(k, str) and isinstance(v, str) for k, v in fields.items()):
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
        body=body,
    )


def _head_of(event: Event) -> dict[str, object]:
    """All but the body, as it is written."""
    return {
        "v": ENVELOPE_VERSION,
        "tenant": event.tenant,
        "source": event.source,
        "provider": event.provider,
        "flow": event.flow,
        "identity": event.identity,
        "event_name": event.event_name,
        "event_version": event.event_version,
        "received_at_ms": event.received_at_ms,
        "request_id": event.request_id,
        "traceparent": event.traceparent,
        "payload_hash": event.payload_hash,
        "content_type": event.content_type,
        "repeat_window_seconds": event.repeat_window_seconds,
        "held": event.held,
        "fields": dict(event.fields),
    }


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
    # JSON can smuggle in half a surrogate pair, and ids come from strangers.
    raw = [part.encode("utf-8", "surrogatepass") for part in parts]
    return hashlib.sha256(b"".join([b"%d:%b" % (len(one), one) for one in raw])).hexdigest()
