"""What a verified delivery is, as an event."""

from __future__ import annotations

import hashlib
import re

from functions.core.event import Event
from functions.core.identity import identity_of, name_of, payload_hash_of
from functions.core.pointer import text_at
from functions.core.source import SourceState
from functions.ingress.answers import Refused, Rejection
from functions.ingress.document import Unreadable, document_of
from functions.signatures.providers import Endpoint, Handshake
from functions.signatures.scheme import Delivery, media_type

_CONTENT_TYPE = re.compile(r"[ -~]{0,255}\Z")


def read_document(endpoint: Endpoint, delivery: Delivery) -> object:
    """The body as its source declares it. Raises `Refused`."""
    try:
        return document_of(delivery, endpoint.content, endpoint.provider.payload_field)
    except Unreadable as exc:
        raise Refused(Rejection.MALFORMED, why=str(exc)) from exc


def handshake_in(endpoint: Endpoint, document: object) -> Handshake | None:
    """The provider's handshake, if the document is one: a delivery that only asks whether we are there."""
    shake = endpoint.provider.handshake
    return shake if shake and text_at(document, shake.pointer) == shake.value else None


def event_of(
    endpoint: Endpoint, delivery: Delivery, document: object, received_at_ms: int, request_id: str, traceparent: str
) -> Event:
    """The event, with the identity and the names that the source or its provider's row declares."""
    source, provider = endpoint.source, endpoint.provider
    selectors = provider.event_name if source.event_name is None else source.event_name
    event_name = name_of(selectors, provider.event_detail, delivery.headers, document)
    versions = provider.event_version if source.event_version is None else source.event_version
    payload_hash = payload_hash_of(delivery.body, document, provider.unstable)
    identity = identity_of(
        endpoint.identity,
        delivery.headers,
        document,
        event_name=event_name,
        payload_hash=payload_hash,
        content_hash=hashlib.sha256(delivery.body).hexdigest(),
        is_signed_header=endpoint.verifier.covers_header,
    )
    return Event(
        tenant=source.tenant,
        source=source.id,
        provider=source.provider,
        flow=source.flow,
        identity=identity.value,
        event_name=event_name,
        event_version=name_of(versions, "", delivery.headers, document),
        received_at_ms=received_at_ms,
        request_id=request_id,
        traceparent=traceparent,
        payload_hash=payload_hash,
        content_type=_content_type(delivery),
        body=delivery.body,
        repeat_window_seconds=0 if identity.is_lasting else source.repeat_window_seconds,
        held=source.state is SourceState.HELD,
        fields=source.fields,
    )


def _content_type(delivery: Delivery) -> str:
    """The header; without its parameters where they cannot travel, so that the flow reads the body as we have."""
    whole = delivery.headers.get("content-type", "")
    return next((text for text in (whole, media_type(whole)) if _CONTENT_TYPE.match(text)), "")
