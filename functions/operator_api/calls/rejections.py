"""Rejections: what the door refused, and why. A sender hears only that it was."""

from __future__ import annotations

import re
from typing import Annotated, Final

from aws_lambda_powertools.event_handler.openapi.params import Query
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import Field

from functions.core.duration import PATTERN, duration_ms
from functions.core.event import NAME
from functions.core.ports import DoorLine
from functions.operator_api.bodies import Body
from functions.operator_api.ports import Ports
from functions.operator_api.problems import Code, Refusal

TAG = "rejections"
MAX_MS: Final = 30 * 86_400_000
_REASON = re.compile(r"[a-z_]{1,40}\Z")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_=-]{1,64}\Z")


class ToldRejection(Body):
    """One request that was refused. Header names only, never what they said."""

    at_ms: int
    reason: str
    status: int
    why: str
    source: Annotated[str, Field(description="Empty where it is none of ours.")]
    provider: str
    request_id: str
    headers_missing: list[str]
    header_malformed: list[str]


class ToldRejections(Body):
    """The newest first. `counts`, by reason, are of all that were read."""

    rejections: list[ToldRejection]
    counts: dict[str, int]
    since_ms: Annotated[int, Field(description="Since when every line of the log was read.")]
    is_complete: Annotated[bool, Field(description="False: the log is long, and was not read back as far as asked.")]


def routes(ports: Ports) -> APIGatewayHttpRouter:
    """The calls of this subject."""
    router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]  # Powertools leaves it untyped

    @router.get(
        "/platform/rejections",
        summary="What the door refused",
        description="Read from the log of ingress, within bounds: `is_complete` and `since_ms` say how far.",
        operation_id="listRejections",
        tags=[TAG],
        responses={200: {"description": "Refused requests, newest first."}},
    )
    def show(
        since: Annotated[
            str, Query(pattern=PATTERN, description="How far back: 90s, 10m, 1h, 7d; at most 30d.")
        ] = "1h",
        source: Annotated[str, Query(max_length=64, description="Only requests to this source of ours.")] = "",
        reason: Annotated[str, Query(max_length=40, description="Only requests refused for this reason.")] = "",
        request_id: Annotated[str, Query(max_length=64, description="Only this one.")] = "",
        limit: Annotated[int, Query(ge=1, le=200, description="How many at most.")] = 50,
    ) -> ToldRejections:
        for name, value, pattern in (
            ("source", source, NAME),
            ("reason", reason, _REASON),
            ("request_id", request_id, _REQUEST_ID),
        ):
            if value and not pattern.match(value):
                raise Refusal(Code.INVALID_PAYLOAD, f"{name} is none")
        lasts_ms = duration_ms(since)
        if lasts_ms > MAX_MS:
            raise Refusal(Code.INVALID_PAYLOAD, "since: the log is kept for 30 days")
        now_ms = ports.clock.now_ms()
        found = ports.door.rejections(
            now_ms - lasts_ms, now_ms, source=source, reason=reason, request_id=request_id, limit=limit
        )
        return ToldRejections(
            rejections=[_told(line) for line in found.newest],
            counts=dict(found.counts),
            since_ms=found.since_ms,
            is_complete=found.is_complete,
        )

    return router


def _told(line: DoorLine) -> ToldRejection:
    return ToldRejection(
        at_ms=line.at_ms,
        reason=line.reason,
        status=line.status,
        why=line.why,
        source=line.source if line.is_looked_up else "",
        provider=line.provider if line.is_looked_up else "",
        request_id=line.request_id,
        headers_missing=list(line.headers_missing),
        header_malformed=list(line.header_malformed),
    )
