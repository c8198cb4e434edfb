"""What senders are answered: the table of architecture §5, errors as RFC 9457 problems with a stable `code`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus

from functions.core.failure import HoldfastError


class Rejection(StrEnum):
    """Why a request was not accepted, as it is counted. The last three are our own trouble, not the sender's."""

    BAD_SIGNATURE = "bad_signature"
    STALE = "stale"
    UNKNOWN_SOURCE = "unknown_source"
    SOURCE_DISABLED = "source_disabled"
    NO_CHALLENGE = "no_challenge"
    THROTTLED = "throttled"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    SOURCE_UNAVAILABLE = "source_unavailable"
    NOT_STORED = "not_stored"
    DEFECT = "defect"


@dataclass(frozen=True, slots=True)
class Problem:
    """What a refusal says, whatever its cause."""

    status: int
    code: str
    detail: str


_UNAUTHORIZED = Problem(401, "INT-401-UNAUTHORIZED", "The request could not be verified.")
_UNAVAILABLE = Problem(503, "INT-503-DEPENDENCY-UNAVAILABLE", "The event was not stored. Send it again later.")

PROBLEMS = {
    # One answer for all of these: it must not tell a stranger which sources exist, nor how far a forgery got.
    Rejection.BAD_SIGNATURE: _UNAUTHORIZED,
    Rejection.STALE: _UNAUTHORIZED,
    Rejection.UNKNOWN_SOURCE: _UNAUTHORIZED,
    Rejection.SOURCE_DISABLED: _UNAUTHORIZED,
    Rejection.NO_CHALLENGE: _UNAUTHORIZED,
    Rejection.THROTTLED: Problem(429, "INT-429-TOO-MANY-REQUESTS", "Too many requests. Send it again later."),
    Rejection.TOO_LARGE: Problem(413, "INT-413-PAYLOAD-TOO-LARGE", "The event is larger than this endpoint takes."),
    Rejection.MALFORMED: Problem(400, "INT-400-INVALID-PAYLOAD", "The request cannot be read."),
    Rejection.SOURCE_UNAVAILABLE: _UNAVAILABLE,
    Rejection.NOT_STORED: _UNAVAILABLE,
    Rejection.DEFECT: Problem(500, "INT-500-INTERNAL", "The event was not stored. Send it again later."),
}
NOT_KNOWN = Problem(404, "INT-404-NOT-FOUND", "No such event has been taken up: it may still be in the queue.")
NOT_READ = Problem(503, "INT-503-DEPENDENCY-UNAVAILABLE", "What is known of it could not be read. Ask again later.")
HEADERS_TOO_LARGE = Problem(431, "INT-431-HEADERS-TOO-LARGE", "The headers are larger than this endpoint takes.")


class Refused(HoldfastError):
    """Ends a request without an event. `why` is for the log only."""

    def __init__(
        self,
        rejection: Rejection,
        *,
        why: str = "",
        retry_after_seconds: int | None = None,
        is_about_headers: bool = False,
    ) -> None:
        super().__init__(f"{rejection.value}: {why}" if why else rejection.value)
        self.rejection = rejection
        self.why = why
        self.retry_after_seconds = retry_after_seconds
        self.is_about_headers = is_about_headers


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    body: str
    content_type: str = "application/json"
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def to_gateway(self, request_id: str) -> dict[str, object]:
        """As the HTTP API wants it. Every answer carries its request id."""
        return {
            "statusCode": self.status,
            "headers": {"content-type": self.content_type, "x-request-id": request_id, **self.headers},
            "body": self.body,
            "isBase64Encoded": False,
        }


def answer_to_refusal(refused: Refused, request_id: str) -> Answer:
    """The problem document of a refusal; it says nothing that depends on why."""
    problem = HEADERS_TOO_LARGE if refused.is_about_headers else PROBLEMS[refused.rejection]
    return answer_with(problem, request_id, refused.retry_after_seconds)


def answer_with(problem: Problem, request_id: str, retry_after_seconds: int | None = None) -> Answer:
    """The problem as a document."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id,
    }
    headers = {}
    if retry_after_seconds is not None:
        headers["retry-after"] = str(retry_after_seconds)
    return Answer(problem.status, json.dumps(document), "application/problem+json", problem.code, headers)
