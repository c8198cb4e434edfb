"""Audit: what is on record of a request, or of anything that was changed (architecture §10)."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Query
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import Field

from functions.core.audit import AuditEvent
from functions.core.cursor import BadCursor
from functions.operator_api.bodies import Body
from functions.operator_api.ports import Ports
from functions.operator_api.problems import Code, Refusal
from functions.operator_api.tracing import Tracing

TAG = "audit"
_ENTITY = re.compile(r"[a-z_]{1,40}#[^\x00-\x1f\x7f]{1,400}\Z")
REQUEST_ID = re.compile(r"[A-Za-z0-9._=-]{1,64}\Z")


class ToldAudit(Body):
    """One line of the append-only record. States are short texts or JSON; what does not apply is empty."""

    id: str
    at_ms: int
    event_type: str
    severity: str
    tenant: str
    actor: str
    affected_entity: str
    affected_id: str
    request_id: str
    origin_request_id: str
    traceparent: str
    before_state: str
    after_state: str
    failure_type: str
    error: str
    containment_action: str
    recovery_status: str
    reason: str
    job_id: str


class ToldAudits(Body):
    """A page of the record, oldest first. `cursor` gives what follows; null at the end."""

    events: list[ToldAudit]
    unreadable: Annotated[int, Field(description="Events of this page that could not be read back.")]
    cursor: str | None


def routes(ports: Ports) -> APIGatewayHttpRouter:
    """The calls of this subject."""
    router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]  # Powertools leaves it untyped
    tracing = Tracing(ports)

    @router.get(
        "/platform/audit",
        summary="What is on record of a request or of one thing",
        description="Exactly one of `request_id` and `entity` is given. A request's record holds what came later of "
        "the recovery items that it began.",
        operation_id="listAudit",
        tags=[TAG],
        responses={200: {"description": "The record, oldest first."}},
    )
    def show(
        request_id: Annotated[
            str, Query(max_length=64, description="Of a delivery, or of anything that was done.")
        ] = "",
        entity: Annotated[
            str, Query(max_length=500, description="`{kind}#{id}`, such as `recovery_item#…` or `switch#mode`.")
        ] = "",
        limit: Annotated[int, Query(ge=1, le=200, description="How many at most.")] = 50,
        cursor: Annotated[str, Query(max_length=4000, description="The `cursor` of the page before.")] = "",
    ) -> ToldAudits:
        if bool(request_id) is bool(entity):
            raise Refusal(Code.INVALID_PAYLOAD, "say one of request_id and entity")
        if request_id and not REQUEST_ID.match(request_id):
            raise Refusal(Code.INVALID_PAYLOAD, "request_id is none")
        if entity and not _is_entity(entity):
            raise Refusal(Code.INVALID_PAYLOAD, "entity is none: it is a kind, # and an id")
        try:
            if request_id:
                page = tracing.audit_of(request_id, limit, cursor)
            else:
                page = ports.audit_log.of_entity(entity, limit, cursor)
        except BadCursor as bad:
            raise Refusal(Code.INVALID_PAYLOAD, f"cursor: {bad}") from bad
        return ToldAudits(
            events=[told_audit(event) for event in page.entries],
            unreadable=page.unreadable,
            cursor=page.further or None,
        )

    return router


def _is_entity(text: str) -> bool:
    return _ENTITY.match(text) is not None and not any("\ud800" <= letter <= "\udfff" for letter in text)


def told_audit(event: AuditEvent) -> ToldAudit:
    """One event, as it is told."""
    return ToldAudit.model_validate(asdict(event))
