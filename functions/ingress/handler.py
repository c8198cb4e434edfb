"""Ingress: verify, store, answer (architecture §5).

A 2xx to an event means that it is stored. A 4xx is never about trouble of ours. Nothing here knows what an event is
about. The other routes, a provider's challenge, a sender's test and a sender's question, store nothing and are loaded
when asked for.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from functions.core.clock import Clock, Deadline, Ids, Monotonic
from functions.core.event import Event
from functions.core.failure import StorageUnavailable
from functions.core.pointer import text_at
from functions.ingress.answers import Answer, Refused, Rejection, answer_to_refusal
from functions.ingress.log import Write, print_line
from functions.ingress.outbox import Outbox
from functions.ingress.reading import event_of, handshake_in, read_document
from functions.ingress.request import BadEncoding, HeadersTooLarge, HttpRequest, Route, TooLarge, request_of
from functions.ingress.seen import Seen
from functions.ingress.settings import IngressSettings
from functions.ingress.sources import Sources
from functions.ingress.trace import traceparent_of
from functions.ingress.trail import Trail
from functions.ingress.verification import RETRY_AFTER_SECONDS, Verification
from functions.signatures.providers import Endpoint, Handshake
from functions.signatures.scheme import Delivery

ANSWER_SECONDS: Final = 1.4  # for everything that waits for somebody; a sender is answered within 1.5 s
MAX_CHALLENGE_LENGTH: Final = 1024

Handler = Callable[[dict[str, object], object], dict[str, object]]


def build(
    settings: IngressSettings,
    sources: Sources,
    outbox: Outbox,
    seen: Seen,
    clock: Clock,
    ids: Ids,
    monotonic: Monotonic,
    write: Write = print_line,
) -> Handler:
    """The handler of every route of `Route`. Writes exactly one line per request."""
    ingress = _Ingress(Verification(sources), outbox, seen, clock, ids)

    def handle(event: dict[str, object], context: object) -> dict[str, object]:  # noqa: ARG001  # Lambda passes it
        # While a body of a million values is read, the collector would walk all of them again and again, for most of a
        # second; and nothing of a request outlives it. What goes in circles is collected between requests.
        is_collecting = gc.isenabled()
        gc.disable()
        try:
            return answered(event)
        finally:
            if is_collecting:
                gc.enable()

    def answered(event: dict[str, object]) -> dict[str, object]:
        started_ms, deadline = clock.now_ms(), Deadline.after(ANSWER_SECONDS, monotonic)
        request = request_of(event, ids.new_id())
        trail = Trail(request.request_id, request.route)
        rejection: Rejection | None = None
        try:
            answer = ingress.answer(request, trail, deadline)
        except Refused as refused:
            rejection, trail.why = refused.rejection, refused.why
            answer = answer_to_refusal(refused, request.request_id)
        except Exception as exc:  # noqa: BLE001  # a defect of ours: the sender hears "again", the log where it happened
            rejection, trail.why = Rejection.DEFECT, _place_of(exc)
            answer = answer_to_refusal(Refused(rejection, retry_after_seconds=RETRY_AFTER_SECONDS), request.request_id)
        write(trail.line(settings.stage, answer, rejection, clock.now_ms(), started_ms))
        return answer.to_gateway(request.request_id)

    return handle


@dataclass(frozen=True, slots=True)
class _Ingress:
    verification: Verification
    outbox: Outbox
    seen: Seen
    clock: Clock
    ids: Ids

    def answer(self, request: HttpRequest, trail: Trail, deadline: Deadline) -> Answer:
        """Raises `Refused` for whatever does not end in a 2xx."""
        trail.traceparent = traceparent_of(request.headers.get("traceparent", ""), self.ids.new_id())
        body = _body_of(request)
        trail.body_bytes = len(body)
        now_ms = self.clock.now_ms()
        if request.route is Route.EVENT:
            return self._event(request, body, now_ms, trail, deadline)
        if request.route is Route.CHALLENGE:
            return self._challenge(request, body, now_ms, trail, deadline)
        if request.route is Route.TEST:
            return self._test(request, body, now_ms, trail, deadline)
        if request.route is Route.PROGRESS:
            return self._progress(request, now_ms, trail, deadline)
        raise Refused(Rejection.UNKNOWN_SOURCE, why="no such route")

    def _event(self, request: HttpRequest, body: bytes, now_ms: int, trail: Trail, deadline: Deadline) -> Answer:
        endpoint, delivery = self.verification.delivery(request, body, now_ms, trail, deadline)
        self.verification.throttle(endpoint, request.route, now_ms)
        document = read_document(endpoint, delivery)
        shake = handshake_in(endpoint, document)
        if shake is not None:
            trail.handshake = shake.value
            return _answer_to_handshake(shake, document, lambda: endpoint.signing_secret(delivery, now_ms))
        event = event_of(endpoint, delivery, document, now_ms, trail.request_id, trail.traceparent)
        trail.event_id, trail.event_name = event.event_id, event.event_name
        self._store(event, trail, deadline)
        acceptance = endpoint.provider.acceptance
        said = acceptance.body
        if said is None:
            said = json.dumps({"event_id": event.event_id, "request_id": event.request_id})
        return Answer(acceptance.status, said, acceptance.content_type, headers={"x-event-id": event.event_id})

    def _challenge(self, request: HttpRequest, body: bytes, now_ms: int, trail: Trail, deadline: Deadline) -> Answer:
        from functions.ingress.challenge import answer_to_challenge  # noqa: PLC0415  # no event waits for it

        def judge(endpoint: Endpoint, delivery: Delivery) -> Answer:
            return answer_to_challenge(endpoint, delivery, request.query, now_ms, trail)

        endpoint, answer = self.verification.judged(request, body, judge, trail, deadline)
        self.verification.throttle(endpoint, request.route, now_ms)
        return answer

    def _test(self, request: HttpRequest, body: bytes, now_ms: int, trail: Trail, deadline: Deadline) -> Answer:
        from functions.ingress.probe import answer_to_test  # noqa: PLC0415  # no event waits for it

        endpoint, delivery = self.verification.delivery(request, body, now_ms, trail, deadline)
        self.verification.throttle(endpoint, request.route, now_ms)
        return answer_to_test(endpoint, delivery, now_ms, trail, self.seen, deadline)

    def _progress(self, request: HttpRequest, now_ms: int, trail: Trail, deadline: Deadline) -> Answer:
        from functions.ingress.progress import answer_about  # noqa: PLC0415  # no event waits for it

        signed = request.event_id.encode("utf-8", "surrogatepass")
        endpoint, _ = self.verification.delivery(request, signed, now_ms, trail, deadline)
        self.verification.throttle(endpoint, request.route, now_ms)
        return answer_about(endpoint, request.event_id, now_ms, trail, self.seen, deadline)

    def _store(self, event: Event, trail: Trail, deadline: Deadline) -> None:
        try:
            trail.stored = self.outbox.store(event, deadline)
        except StorageUnavailable as exc:
            raise Refused(Rejection.NOT_STORED, why=str(exc), retry_after_seconds=RETRY_AFTER_SECONDS) from exc


def _answer_to_handshake(shake: Handshake, document: object, secret: Callable[[], str]) -> Answer:
    text = text_at(document, shake.echo)[:MAX_CHALLENGE_LENGTH]
    said = shake.reply(text, secret()) if shake.reply else json.dumps({"challenge": text})
    return Answer(shake.status, said, shake.content_type)


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


def _place_of(exc: Exception) -> str:
    """The kind of an unexpected exception and where it was raised: its text may quote what must not be logged."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}" if trace is not None else "?"
    return f"{type(exc).__name__} in {where}"
