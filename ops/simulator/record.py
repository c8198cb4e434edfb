"""What happened in the simulated world, in order and bounded.

When a bound is reached the oldest entries go and the loss is counted: a reader that proves something by this record
must check `dropped`, and `SimulatorControl.effects()` refuses to answer when anything is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from ops.simulator.http import Request

MAX_EFFECTS = 100_000
MAX_REQUESTS = 20_000
_ID_HEADERS = ("x-request-id", "x-origin-request-id", "traceparent", "idempotency-key")


@dataclass(frozen=True, slots=True)
class Effect:
    """One side effect that a provider carried out.

    `key` is the idempotency key or the marker that came with it, or empty. `changed` is False where the provider did
    what it was told and
    nothing was different afterwards (a tag that was there). `detail` holds the few values a balance compares.
    """

    seq: int
    at: str
    provider: str
    kind: str
    target: str
    key: str
    changed: bool
    params_sha256: str
    headers: dict[str, str]
    detail: dict[str, str]


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request that reached a provider. `status` is 0 when no answer was sent, `fault` the fault's mode or empty."""

    seq: int
    at: str
    provider: str
    operation: str
    target: str
    method: str
    path: str
    status: int
    fault: str
    headers: dict[str, str]


def now_text() -> str:
    """The time of day, ISO 8601 in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _id_headers(request: Request) -> dict[str, str]:
    return {name: request.headers[name] for name in _ID_HEADERS if name in request.headers}


@dataclass(slots=True)
class Record:
    """Effects and requests since the last reset. The caller holds the world's lock."""

    effects: deque[Effect] = field(default_factory=lambda: deque(maxlen=MAX_EFFECTS))
    requests: deque[RequestRecord] = field(default_factory=lambda: deque(maxlen=MAX_REQUESTS))
    effect_count: int = 0
    request_count: int = 0
    by_outcome: Counter[tuple[str, str, int]] = field(default_factory=Counter)

    def effect(
        self,
        request: Request,
        *,
        provider: str,
        kind: str,
        target: str,
        key: str = "",
        changed: bool = True,
        params: Any = None,
        detail: Mapping[str, str] | None = None,
    ) -> None:
        """Note one side effect."""
        self.effect_count += 1
        digest = hashlib.sha256(json.dumps(params, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
        self.effects.append(
            Effect(
                seq=self.effect_count,
                at=now_text(),
                provider=provider,
                kind=kind,
                target=target,
                key=key,
                changed=changed,
                params_sha256=digest,
                headers=_id_headers(request),
                detail=dict(detail or {}),
            )
        )

    def request(self, request: Request, *, provider: str, operation: str, target: str, status: int, fault: str) -> None:
        """Note one request and what became of it."""
        self.request_count += 1
        self.by_outcome[(provider, operation, status)] += 1
        self.requests.append(
            RequestRecord(
                seq=self.request_count,
                at=now_text(),
                provider=provider,
                operation=operation,
                target=target,
                method=request.method,
                path=request.path[:200],
                status=status,
                fault=fault,
                headers=_id_headers(request),
            )
        )

    def effects_json(self) -> dict[str, Any]:
        """Every effect that is still held, in order."""
        return {
            "total": self.effect_count,
            "dropped": self.effect_count - len(self.effects),
            "effects": [asdict(effect) for effect in self.effects],
        }

    def requests_json(self) -> dict[str, Any]:
        """The requests that are still held, and counts of all."""
        counts = [
            {"provider": provider, "operation": operation, "status": status, "count": count}
            for (provider, operation, status), count in sorted(self.by_outcome.items())
        ]
        return {
            "total": self.request_count,
            "dropped": self.request_count - len(self.requests),
            "counts": counts,
            "requests": [asdict(request) for request in self.requests],
        }
