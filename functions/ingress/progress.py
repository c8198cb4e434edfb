"""`GET /webhooks/{source}/events/{event_id}`: how far an event has come, for its sender. Loaded by the first of them.

A GET has no body to sign. Whoever asks signs the event's id as if it were the body, by the scheme of the source's
deliveries, so that what is signed for one event says nothing about another; a scheme that signs members of a JSON body
has no such signature, and its sender cannot ask. One word is answered: what was decided, and what became of each
action, is not the sender's to know.
"""

from __future__ import annotations

import json

from functions.core.clock import Deadline
from functions.core.failure import StorageUnavailable
from functions.ingress.answers import NOT_KNOWN, NOT_READ, Answer, answer_with
from functions.ingress.seen import Seen
from functions.ingress.trail import Trail
from functions.ingress.verification import RETRY_AFTER_SECONDS
from functions.signatures.providers import Endpoint


def answer_about(
    endpoint: Endpoint, event_id: str, now_ms: int, trail: Trail, seen: Seen, deadline: Deadline
) -> Answer:
    """To a sender who has proved that they are the source's."""
    source = endpoint.source
    if not event_id.startswith(f"{source.id}:"):
        return answer_with(NOT_KNOWN, trail.request_id)
    trail.event_id = event_id
    try:
        found = seen.whereabouts(source.tenant, event_id, now_ms, deadline)
    except StorageUnavailable as exc:
        trail.why = str(exc)
        return answer_with(NOT_READ, trail.request_id, RETRY_AFTER_SECONDS)
    if not found:
        return answer_with(NOT_KNOWN, trail.request_id)
    return Answer(200, json.dumps({"event_id": event_id, "state": found}))
