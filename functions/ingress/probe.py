"""`POST /webhooks/{source}/test`: a sender's own trial, verified like a delivery and without any effect.

It says what we would make of the delivery. Nothing is stored, whatever it holds. Loaded by the first of them.
"""

from __future__ import annotations

import json

from functions.core.clock import Deadline
from functions.core.event import MAX_INLINE_BYTES, Event
from functions.core.failure import StorageUnavailable
from functions.core.identity import identity_of
from functions.core.source import SourceState
from functions.ingress.answers import Answer
from functions.ingress.reading import event_of, handshake_in, read_document
from functions.ingress.seen import Seen
from functions.ingress.trail import Trail
from functions.signatures.providers import Endpoint, scheme_of
from functions.signatures.scheme import Basic, Delivery, KeyedDigest, Scheme, SharedSecret
from functions.signatures.special import AnyOf, BodyDigest, CoveredHeaders, FirstCase, PublicKeySignature, Unsolicited


def answer_to_test(
    endpoint: Endpoint, delivery: Delivery, now_ms: int, trail: Trail, seen: Seen, deadline: Deadline
) -> Answer:
    """What is made of a verified delivery. Raises `Refused` for one that the event's route would refuse."""
    source = endpoint.source
    signed_at_ms = endpoint.verifier.findings(delivery).signed_at_ms
    said: dict[str, object] = {
        "source": source.id,
        "provider": source.provider,
        "scheme": words_of(scheme_of(endpoint.provider, source.scheme)),
        "flow": source.flow,
        "held": source.state is SourceState.HELD,
        "secret_number": trail.secret_number,
        "body_bytes": len(delivery.body),
        "request_id": trail.request_id,
    }
    if signed_at_ms is not None:
        said["timestamp_skew_seconds"] = (signed_at_ms - now_ms) // 1000
    document = read_document(endpoint, delivery)
    handshake = handshake_in(endpoint, document)
    if handshake is not None:
        trail.handshake = handshake.value
        said["handshake"] = handshake.value
    else:
        event = event_of(endpoint, delivery, document, now_ms, trail.request_id, trail.traceparent)
        trail.event_id, trail.event_name = event.event_id, event.event_name
        said |= {
            "event_id": event.event_id,
            "event_name": event.event_name,
            "event_version": event.event_version,
            "identity": _identity_kind(endpoint, delivery, document),
            "repeat_window_seconds": event.repeat_window_seconds,
            "duplicate": _duplicate(event, seen, deadline, trail),
            "stored_as": "claim_check" if len(event.to_message()) > MAX_INLINE_BYTES else "inline",
        }
    return Answer(200, json.dumps(said))


def _duplicate(event: Event, seen: Seen, deadline: Deadline, trail: Trail) -> bool | str:
    try:
        return seen.is_known(event, deadline)
    except StorageUnavailable as exc:
        trail.why = f"the ledger could not be asked: {exc}"
        return "unknown"


def _identity_kind(endpoint: Endpoint, delivery: Delivery, document: object) -> str:
    """By what the event is told from others: the rule that is the first to find its parts."""
    for rule in endpoint.identity:
        found = identity_of(
            (rule,),
            delivery.headers,
            document,
            event_name="",
            payload_hash="",
            content_hash="",
            is_signed_header=endpoint.verifier.covers_header,
        )
        if found.is_lasting:
            return "header" if rule.header else "pointers"
    return "window"


def words_of(scheme: Scheme) -> str:
    """A scheme, for people."""
    match scheme:
        case KeyedDigest():
            kind = f"{'plain' if scheme.is_plain_hash else 'HMAC'} {scheme.algorithm.upper()}"
            named = " or ".join(names.signature for names in scheme.headers)
            public = ", or Ed25519 by a public key" if scheme.public_key else ""
            return f"{kind} over {scheme.content}, {scheme.encoding.value}, in {named}{public}"
        case SharedSecret():
            return f"the secret itself in {scheme.header}"
        case Basic():
            return "HTTP Basic in authorization"
        case PublicKeySignature():
            return (
                f"a public key's signature over {{timestamp}}{{body}}, {scheme.encoding}, in {scheme.headers.signature}"
            )
        case BodyDigest():
            return f"HMAC SHA256 over members of the body, {scheme.encoding.value}, in the body"
        case CoveredHeaders():
            return "HMAC SHA256 over {timestamp}, the headers it names and {body}, hex, in x-hook0-signature"
        case AnyOf():
            return "; or ".join(words_of(each) for each in scheme.schemes)
        case FirstCase():
            return "; or ".join(words_of(case.scheme) for case in scheme.cases)
        case Unsolicited():
            return words_of(scheme.scheme)
    raise TypeError(f"a scheme without words: {type(scheme).__name__}")
