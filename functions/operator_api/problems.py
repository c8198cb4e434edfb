"""What refused calls are answered: RFC 9457 problems with the stable codes of runbook 004 and architecture §11."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from functions.core.failure import HoldfastError

CONTENT_TYPE = "application/problem+json"


class Code(StrEnum):
    """Stable: scripts and runbooks branch on them. The number is the HTTP status."""

    INVALID_PAYLOAD = "INT-400-INVALID-PAYLOAD"
    UNAUTHORIZED = "INT-401-UNAUTHORIZED"
    PERMISSION_DENIED = "INT-403-PERMISSION-DENIED"
    NOT_FOUND = "INT-404-NOT-FOUND"
    RECOVERY_NOT_FOUND = "INT-404-RECOVERY-NOT-FOUND"
    REPLAY_CONFLICT = "INT-409-RECOVERY-REPLAY-CONFLICT"
    IN_PROGRESS = "INT-409-IN-PROGRESS"
    INCIDENT_CONFLICT = "INT-409-INCIDENT-CONFLICT"
    PLAN_STALE = "INT-409-PLAN-STALE"
    KEY_REUSED = "INT-422-IDEMPOTENCY-KEY-REUSED"
    TOO_MANY_REQUESTS = "INT-429-TOO-MANY-REQUESTS"
    DEFECT = "INT-500-INTERNAL"
    UNAVAILABLE = "INT-503-DEPENDENCY-UNAVAILABLE"

    @property
    def status(self) -> int:
        """The HTTP status that goes with it."""
        return int(self.value.split("-")[1])


class Refusal(HoldfastError):
    """Ends a request with a problem. `detail` is for the person who called; `more` are further members of the body."""

    def __init__(self, code: Code, detail: str, **more: Any) -> None:
        super().__init__(f"{code.value}: {detail}")
        self.code = code
        self.detail = detail
        self.more = more


def body_of(code: Code, detail: str, request_id: str, **more: Any) -> dict[str, Any]:
    """The problem document."""
    return {
        "type": "about:blank",
        "title": _TITLES[code.status],
        "status": code.status,
        "code": code.value,
        "detail": detail,
        "request_id": request_id,
        **more,
    }


_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
