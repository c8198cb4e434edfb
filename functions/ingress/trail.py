"""What is said of one request: one line in the log, which is also its metrics.

Of a refusal it says why, and which headers were at fault by name, so that an operator can help a sender. Never a
secret, a body, a signature, the value of a header or of the query; the source's id only once it is known to be ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from functions.core.synthetic import is_synthetic
from functions.ingress.answers import Answer, Rejection
from functions.ingress.log import log_line
from functions.ingress.outbox import Place, Stored
from functions.ingress.request import Route

PROMISED_MS: Final = 1_500
"""Within which every sender is to be answered."""


@dataclass(slots=True)
class Trail:
    """Filled while the request is served. Empty, None and False are left out of the line."""

    request_id: str
    route: Route
    traceparent: str = ""
    source_id: str = ""
    provider: str = "none"
    tenant: str = ""
    flow: str = ""
    event_id: str = ""
    event_name: str = ""
    handshake: str = ""
    is_held: bool = False
    source_stale: str = ""
    stored: Stored | None = None
    source_malformed: str = ""
    why: str = ""
    headers_missing: tuple[str, ...] = field(default=())
    header_malformed: tuple[str, ...] = field(default=())
    secret_number: int | None = None
    secret_age_days: int | None = None
    skew_seconds: int | None = None
    body_bytes: int | None = None

    def line(self, stage: str, answer: Answer, rejection: Rejection | None, now_ms: int, started_ms: int) -> str:
        """The line, once the answer is known."""
        stored = self.stored
        is_spilled = stored is not None and stored.place is Place.SPILL
        is_ours = answer.status >= 500 or is_spilled
        is_odd = rejection is not None or bool(self.source_stale)
        level = "ERROR" if is_ours or self.source_malformed else "WARNING" if is_odd else "INFO"
        return log_line(
            level,
            self._message(rejection),
            now_ms,
            {
                "service": "ingress",
                "stage": stage,
                "request_id": self.request_id,
                "route": self.route.value,
                "traceparent": self.traceparent,
                "source": self.source_id,
                "provider": self.provider,
                "tenant": self.tenant,
                "flow": self.flow,
                "event_id": self.event_id,
                "event_name": self.event_name,
                "handshake": self.handshake,
                "status": answer.status,
                "code": answer.code,
                "reason": rejection.value if rejection is not None else "",
                "why": self.why,
                "headers_missing": list(self.headers_missing) or None,
                "header_malformed": list(self.header_malformed) or None,
                "secret_number": self.secret_number,
                "secret_age_days": self.secret_age_days,
                "timestamp_skew_seconds": self.skew_seconds,
                "held": self.is_held or None,
                "stored_in": stored.place.value if stored is not None else "",
                "claim_check": (stored is not None and stored.is_claimed) or None,
                "queue_trouble": stored.queue_trouble if stored is not None else "",
                "source_stale": self.source_stale,
                "source_error": self.source_malformed,
                "body_bytes": self.body_bytes,
                "duration_ms": now_ms - started_ms,
            },
            self._metrics(rejection, now_ms - started_ms, is_spilled=is_spilled),
            {"ack_ms": now_ms - started_ms},
        )

    def _message(self, rejection: Rejection | None) -> str:
        if rejection is not None:
            return "webhook refused"
        if self.route is Route.TEST:
            return "webhook tested"
        return "webhook accepted" if self.stored is not None else "webhook answered"

    def _metrics(
        self, rejection: Rejection | None, took_ms: int, *, is_spilled: bool
    ) -> list[tuple[str, list[list[str]]]]:
        metrics: list[tuple[str, list[list[str]]]] = []
        if rejection is not None:
            metrics.append(("webhooks_rejected", [["stage", "reason"], ["stage", "provider", "reason"]]))
        elif self.stored is not None and is_synthetic(self.flow):
            metrics.append(("synthetic_accepted", [["stage"]]))
        elif self.stored is not None:
            metrics.append(("webhooks_accepted", [["stage"], ["stage", "provider"]]))
        if is_spilled:
            metrics.append(("webhooks_spilled", [["stage"]]))
        if self.source_malformed:
            metrics.append(("source_malformed", [["stage"]]))
        if self.route is Route.EVENT:
            metrics.append(("ack_ms", [["stage"]]))
            if took_ms > PROMISED_MS:
                metrics.append(("webhooks_late", [["stage"]]))
        return metrics
