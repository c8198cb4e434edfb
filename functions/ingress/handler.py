"""Ingress: verify, store, answer (architecture §5).

A 2xx means that the event is stored. A 4xx is never about trouble of ours. Nothing here knows what an event is about.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from functions.core.clock import Clock, Deadline, Ids, Monotonic
from functions.core.event import Event
from functions.core.failure import StorageUnavailable
from functions.core.identity import identity_of, name_of, payload_hash_of
from functions.core.pointer import text_at
from functions.core.source import SourceState
from functions.ingress.answers import Answer, Refused, Rejection, answer_to_refusal
from functions.ingress.bucket import TokenBucket
from functions.ingress.document import Unreadable, document_of
from functions.ingress.log import Write, log_line, print_line
from functions.ingress.outbox import Outbox, Place, Stored
from functions.ingress.request import BadEncoding, HeadersTooLarge, HttpRequest, TooLarge, request_of
from functions.ingress.settings import IngressSettings
from functions.ingress.sources import Lookup, LookupsExhausted, Sources
from functions.ingress.trace import traceparent_of
from functions.signatures.providers import Endpoint
from functions.signatures.scheme import Delivery, Reason, media_type

ANSWER_SECONDS: Final = 1.4  # for everything that waits for somebody; a sender is answered within 1.5 s
RETRY_AFTER_SECONDS: Final = 5  # on 503: the queue and the parameter store come back within seconds, or not soon
MAX_CHALLENGE_LENGTH: Final = 1024
_CONTENT_TYPE = re.compile(r"[ -~]{0,255}\Z")

Handler = Callable[[dict[str, object], object], dict[str, object]]


@dataclass(slots=True)
class _Trail:
    """What the log line of one request will say."""

    request_id: str
    traceparent: str = ""
    source_id: str = ""
    provider: str = "none"
    tenant: str = ""
    flow: str = ""
    event_id: str = ""
    event_name: str = ""
    is_held: bool = False
    is_stale_source: bool = False
    stored: Stored | None = None
    source_malformed: str = ""
    why: str = ""
    body_bytes: int | None = None
    metrics: list[str] = field(default_factory=list)


def build(
    settings: IngressSettings,
    sources: Sources,
    outbox: Outbox,
    clock: Clock,
    ids: Ids,
    monotonic: Monotonic,
    write: Write = print_line,
) -> Handler:
    """The handler of `POST /webhooks/{source}`. Writes exactly one line per request."""
    ingress = _Ingress(settings, sources, outbox, clock, ids)

    def handle(event: dict[str, object], context: object) -> dict[str, object]:  # noqa: ARG001  # Lambda passes it
        started_ms, deadline = clock.now_ms(), Deadline.after(ANSWER_SECONDS, monotonic)
        request = request_of(event, ids.new_id())
        trail = _Trail(request.request_id)
        rejection: Rejection | None = None
        try:
            answer = ingress.accept(request, trail, deadline)
        except Refused as refused:
            rejection, trail.why = refused.rejection, refused.why
            answer = answer_to_refusal(refused, request.request_id)
        except Exception as exc:  # noqa: BLE001  # a defect of ours: the sender hears "again", the log where it happened
            rejection, trail.why = Rejection.DEFECT, _place_of(exc)
            answer = answer_to_refusal(Refused(rejection, retry_after_seconds=RETRY_AFTER_SECONDS), request.request_id)
        write(_line(settings.stage, trail, answer, rejection, clock.now_ms(), started_ms))
        return answer.to_gateway(request.request_id)

    return handle


@dataclass(frozen=True, slots=True)
class _Ingress:
    settings: IngressSettings
    sources: Sources
    outbox: Outbox
    clock: Clock
    ids: Ids
    throttles: dict[str, TokenBucket] = field(default_factory=dict)

    def accept(self, request: HttpRequest, trail: _Trail, deadline: Deadline) -> Answer:
        """Raises `Refused` for whatever does not end in a 2xx."""
        trail.traceparent = traceparent_of(request.headers.get("traceparent", ""), self.ids.new_id())
        body = _body_of(request)
        trail.body_bytes = len(body)
        received_at_ms = self.clock.now_ms()
        endpoint, delivery = self._verified(request, body, received_at_ms, trail, deadline)
        self._throttle(endpoint, received_at_ms)
        provider = endpoint.provider
        try:
            document = document_of(delivery, endpoint.content, provider.payload_field)
        except Unreadable as exc:
            raise Refused(Rejection.MALFORMED, why=str(exc)) from exc
        shake = provider.handshake
        if shake and text_at(document, shake.pointer) == shake.value:
            trail.event_name = shake.value
            text = text_at(document, shake.echo)[:MAX_CHALLENGE_LENGTH]
            if shake.reply is None:
                return Answer(shake.status, json.dumps({"challenge": text}))
            return Answer(shake.status, shake.reply(text, endpoint.signing_secret(delivery, received_at_ms)))
        event = _event_of(endpoint, delivery, document, received_at_ms, trail)
        trail.event_id, trail.event_name = event.event_id, event.event_name
        self._store(event, trail, deadline)
        acceptance = provider.acceptance
        said = acceptance.body
        if said is None:
            said = json.dumps({"event_id": event.event_id, "request_id": event.request_id})
        return Answer(acceptance.status, said, acceptance.content_type, headers={"x-event-id": event.event_id})

    def _verified(
        self, request: HttpRequest, body: bytes, now_ms: int, trail: _Trail, deadline: Deadline
    ) -> tuple[Endpoint, Delivery]:
        source_id = request.source_id
        lookup = self._looked_up(self.sources.find, source_id, trail, deadline)
        endpoint = _usable(lookup, trail)
        delivery = _delivery_of(endpoint, request, body)
        reason = endpoint.verifier.check(delivery, now_ms)
        if reason in (Reason.MISMATCH, Reason.EMPTY_SECRET):
            # Perhaps the secret has been rotated, or mended, since our copy was made.
            lookup = self._looked_up(self.sources.reread, source_id, trail, deadline)
            endpoint = _usable(lookup, trail)
            delivery = _delivery_of(endpoint, request, body)
            reason = endpoint.verifier.check(delivery, now_ms)
            if reason is not None and lookup.malformed:
                raise Refused(
                    Rejection.SOURCE_UNAVAILABLE,
                    why="the signature fits no known secret, and the source's entry is malformed",
                    retry_after_seconds=RETRY_AFTER_SECONDS,
                )
        if reason is None:
            return endpoint, delivery
        if reason is Reason.EMPTY_SECRET:
            # Nobody has proved anything, but no sender can: a secret that says nothing is the operator's mistake.
            trail.source_malformed = "a secret of the source decodes to nothing"
            raise Refused(
                Rejection.SOURCE_UNAVAILABLE, why=trail.source_malformed, retry_after_seconds=RETRY_AFTER_SECONDS
            )
        raise Refused(Rejection.STALE if reason is Reason.TIMESTAMP else Rejection.BAD_SIGNATURE, why=reason.value)

    def _looked_up(
        self, ask: Callable[[str, Deadline], Lookup], source_id: str, trail: _Trail, deadline: Deadline
    ) -> Lookup:
        try:
            return ask(source_id, deadline)
        except StorageUnavailable as exc:
            trail.source_id = source_id
            raise Refused(Rejection.SOURCE_UNAVAILABLE, why=str(exc), retry_after_seconds=RETRY_AFTER_SECONDS) from exc
        except LookupsExhausted as exc:
            raise Refused(Rejection.THROTTLED, why=str(exc), retry_after_seconds=_seconds(exc.retry_after_ms)) from exc

    def _throttle(self, endpoint: Endpoint, now_ms: int) -> None:
        """After the signature, so that nobody else can spend a sender's share."""
        throttle = endpoint.source.throttle
        if throttle is None:
            return
        bucket = self.throttles.get(endpoint.source.id)
        if bucket is None or (bucket.rate, bucket.burst) != (throttle.rate, throttle.burst):
            bucket = self.throttles[endpoint.source.id] = TokenBucket(throttle.rate, throttle.burst)
        wait_ms = bucket.take(now_ms)
        if wait_ms:
            raise Refused(
                Rejection.THROTTLED, why="over the source's own throttle", retry_after_seconds=_seconds(wait_ms)
            )

    def _store(self, event: Event, trail: _Trail, deadline: Deadline) -> None:
        try:
            trail.stored = self.outbox.store(event, deadline)
        except StorageUnavailable as exc:
            raise Refused(Rejection.NOT_STORED, why=str(exc), retry_after_seconds=RETRY_AFTER_SECONDS) from exc


def _body_of(request: HttpRequest) -> bytes:
    try:
        request.check_headers()
        return request.body()
    except HeadersTooLarge as exc:
        raise Refused(Rejection.TOO_LARGE, why=str(exc), is_about_headers=True) from exc
    except TooLarge as exc:
        raise Refused(Rejection.TOO_LARGE, why=str(exc)) from exc
    except BadEncoding as exc:
        raise Refused(Rejection.MALFORMED, why=str(exc)) from exc


def _usable(lookup: Lookup, trail: _Trail) -> Endpoint:
    """The source's endpoint. From here on its id is one of ours, so that it may be logged and counted."""
    endpoint = lookup.endpoint
    if lookup.malformed:
        trail.source_malformed = lookup.malformed
    trail.is_stale_source |= lookup.is_stale
    if endpoint is None:
        if lookup.malformed:
            raise Refused(
                Rejection.SOURCE_UNAVAILABLE,
                why="the source's entry is malformed",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        raise Refused(Rejection.UNKNOWN_SOURCE)
    source = endpoint.source
    trail.source_id, trail.provider, trail.tenant, trail.flow = source.id, source.provider, source.tenant, source.flow
    if source.state is SourceState.DISABLED:
        raise Refused(Rejection.SOURCE_DISABLED)
    trail.is_held = source.state is SourceState.HELD
    return endpoint


def _delivery_of(endpoint: Endpoint, request: HttpRequest, body: bytes) -> Delivery:
    url = endpoint.source.public_url or request.host_url
    if request.query:
        url = f"{url}?{request.query}"
    return Delivery(request.headers, body, request.method, url)


def _event_of(endpoint: Endpoint, delivery: Delivery, document: object, received_at_ms: int, trail: _Trail) -> Event:
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
        request_id=trail.request_id,
        traceparent=trail.traceparent,
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


def _seconds(milliseconds: int) -> int:
    return max(1, -(-milliseconds // 1000))


def _place_of(exc: Exception) -> str:
    """The kind of an unexpected exception and where it was raised: its text may quote what must not be logged."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}" if trace is not None else "?"
    return f"{type(exc).__name__} in {where}"


def _line(stage: str, trail: _Trail, answer: Answer, rejection: Rejection | None, now_ms: int, started_ms: int) -> str:
    metrics: list[tuple[str, list[list[str]]]] = []
    if rejection is not None:
        metrics.append(("webhooks_rejected", [["stage", "reason"], ["stage", "provider", "reason"]]))
    elif trail.event_id:
        metrics.append(("webhooks_accepted", [["stage"], ["stage", "provider"]]))
    stored = trail.stored
    is_spilled = stored is not None and stored.place is Place.SPILL
    if is_spilled:
        metrics.append(("webhooks_spilled", [["stage"]]))
    if trail.source_malformed:
        metrics.append(("source_malformed", [["stage"]]))
    is_ours = answer.status >= 500 or is_spilled
    level = "ERROR" if is_ours or trail.source_malformed else "WARNING" if rejection is not None else "INFO"
    message = "webhook accepted" if trail.event_id and rejection is None else "webhook answered"
    if rejection is not None:
        message = "webhook refused"
    return log_line(
        level,
        message,
        now_ms,
        {
            "service": "ingress",
            "stage": stage,
            "request_id": trail.request_id,
            "traceparent": trail.traceparent,
            "source": trail.source_id,
            "provider": trail.provider,
            "tenant": trail.tenant,
            "flow": trail.flow,
            "event_id": trail.event_id,
            "event_name": trail.event_name,
            "status": answer.status,
            "code": answer.code,
            "reason": rejection.value if rejection is not None else "",
            "why": trail.why,
            "held": trail.is_held or None,
            "stored_in": stored.place.value if stored is not None else "",
            "claim_check": (stored is not None and stored.is_claimed) or None,
            "queue_trouble": stored.queue_trouble if stored is not None else "",
            "source_stale": trail.is_stale_source or None,
            "source_error": trail.source_malformed,
            "body_bytes": trail.body_bytes,
            "duration_ms": now_ms - started_ms,
        },
        metrics,
    )
