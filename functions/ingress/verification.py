"""Who may come in: the source that a request names, and whether the request was made with one of its secrets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from functions.core.clock import Deadline
from functions.core.failure import StorageUnavailable
from functions.core.source import SourceState
from functions.ingress.answers import Refused, Rejection
from functions.ingress.bucket import TokenBucket
from functions.ingress.request import HttpRequest, Route
from functions.ingress.sources import Lookup, LookupsExhausted, Sources
from functions.ingress.trail import Trail
from functions.signatures.providers import Endpoint, created_at_ms
from functions.signatures.scheme import Delivery, Reason

RETRY_AFTER_SECONDS: Final = 5  # on 503: the queue and the parameter store come back within seconds, or not soon
_DAY_MS: Final = 86_400_000
_Made = TypeVar("_Made")


class Unproven(Exception):
    """A request does not fit the source as we know it: perhaps its secret is new. `rejection` if it is not."""

    def __init__(self, rejection: Rejection, why: str) -> None:
        super().__init__(why)
        self.rejection = rejection
        self.why = why


@dataclass(frozen=True, slots=True)
class Verification:
    """Finds sources, judges requests by them, and holds senders to their throttles."""

    sources: Sources
    _throttles: dict[tuple[str, Route], TokenBucket] = field(default_factory=dict)

    def delivery(
        self, request: HttpRequest, body: bytes, now_ms: int, trail: Trail, deadline: Deadline
    ) -> tuple[Endpoint, Delivery]:
        """The delivery that the request is, and its source. Raises `Refused`."""

        def judge(endpoint: Endpoint, delivery: Delivery) -> Delivery:
            check(endpoint, delivery, now_ms, trail)
            return delivery

        endpoint, delivery = self.judged(request, body, judge, trail, deadline)
        number = trail.secret_number = endpoint.secret_number(delivery, now_ms)
        created_ms = created_at_ms(endpoint.source.secrets[number - 1])
        if created_ms is not None and created_ms <= now_ms:
            trail.secret_age_days = (now_ms - created_ms) // _DAY_MS
        return endpoint, delivery

    def judged(
        self,
        request: HttpRequest,
        body: bytes,
        judge: Callable[[Endpoint, Delivery], _Made],
        trail: Trail,
        deadline: Deadline,
    ) -> tuple[Endpoint, _Made]:
        """The request's source, and what the judge makes of the request by it. Raises `Refused`.

        The judge raises `Unproven` where a secret may have been rotated, or mended, since our copy was made: then the
        source is read once more. It raises `Refused` where that would make no difference.
        """
        lookup = self._looked_up(self.sources.find, request.source_id, trail, deadline)
        endpoint = _usable(lookup, trail)
        try:
            return endpoint, judge(endpoint, _delivery_of(endpoint, request, body))
        except Unproven:
            lookup = self._looked_up(self.sources.reread, request.source_id, trail, deadline)
        endpoint = _usable(lookup, trail)
        try:
            return endpoint, judge(endpoint, _delivery_of(endpoint, request, body))
        except Unproven as exc:
            if lookup.malformed:
                raise Refused(
                    Rejection.SOURCE_UNAVAILABLE,
                    why="it fits no known secret, and the source's entry is malformed",
                    retry_after_seconds=RETRY_AFTER_SECONDS,
                ) from exc
            raise Refused(exc.rejection, why=exc.why) from exc

    def throttle(self, endpoint: Endpoint, route: Route, now_ms: int) -> None:
        """Raises `Refused` when the source is over its own throttle. After the signature: nobody else spends its share.

        What a source may ask of a challenge is counted apart, since of some providers anybody may ask it; and so are
        questions about events, which must not use up what deliveries may take.
        """
        throttle = endpoint.source.throttle
        if throttle is None:
            return
        key = (endpoint.source.id, route if route in (Route.CHALLENGE, Route.PROGRESS) else Route.EVENT)
        bucket = self._throttles.get(key)
        if bucket is None or (bucket.rate, bucket.burst) != (throttle.rate, throttle.burst):
            bucket = self._throttles[key] = TokenBucket(throttle.rate, throttle.burst)
        wait_ms = bucket.take(now_ms)
        if wait_ms:
            raise Refused(
                Rejection.THROTTLED, why="over the source's own throttle", retry_after_seconds=_seconds(wait_ms)
            )

    def _looked_up(
        self, ask: Callable[[str, Deadline], Lookup], source_id: str, trail: Trail, deadline: Deadline
    ) -> Lookup:
        try:
            return ask(source_id, deadline)
        except StorageUnavailable as exc:
            trail.source_id = source_id
            raise Refused(Rejection.SOURCE_UNAVAILABLE, why=str(exc), retry_after_seconds=RETRY_AFTER_SECONDS) from exc
        except LookupsExhausted as exc:
            raise Refused(Rejection.THROTTLED, why=str(exc), retry_after_seconds=_seconds(exc.retry_after_ms)) from exc


def check(endpoint: Endpoint, delivery: Delivery, now_ms: int, trail: Trail) -> None:
    """Whether one of the source's secrets made the delivery. Raises `Unproven`, `Refused`; names headers at fault."""
    reason = endpoint.verifier.check(delivery, now_ms)
    if reason is None:
        return
    if reason is Reason.MISMATCH:
        raise Unproven(Rejection.BAD_SIGNATURE, reason.value)
    findings = endpoint.verifier.findings(delivery)
    trail.headers_missing, trail.header_malformed = findings.missing, findings.malformed
    if findings.signed_at_ms is not None:
        trail.skew_seconds = (findings.signed_at_ms - now_ms) // 1000
    raise Refused(Rejection.STALE if reason is Reason.TIMESTAMP else Rejection.BAD_SIGNATURE, why=reason.value)


def _usable(lookup: Lookup, trail: Trail) -> Endpoint:
    """The source's endpoint. From here on its id is one of ours, so that it may be logged and counted."""
    endpoint = lookup.endpoint
    if lookup.malformed:
        trail.source_malformed = lookup.malformed
    trail.source_stale = lookup.stale or trail.source_stale
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
    """What the sender signed, at the address it was given; a test's is `/test` behind that, a question's the rest of
    its path.
    """
    url = endpoint.source.public_url
    if not url:
        url = request.host_url
    elif request.route is Route.TEST:
        url = f"{url.rstrip('/')}/test"
    elif request.route is Route.PROGRESS:
        url = f"{url.rstrip('/')}/events/{request.host_url.partition('/events/')[2]}"
    if request.query:
        url = f"{url}?{request.query}"
    return Delivery(request.headers, body, request.method, url)


def _seconds(milliseconds: int) -> int:
    return max(1, -(-milliseconds // 1000))
