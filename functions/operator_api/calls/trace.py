"""Trace: what happened to a ticket, a recipient or a request, successes included (architecture §10)."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated, Any

from aws_lambda_powertools.event_handler.openapi.params import Query
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import Field

from functions.core.cursor import BadCursor
from functions.core.ledger import Handle
from functions.core.ports import DoorLine
from functions.core.trace import EventTrace
from functions.operator_api.bodies import Body
from functions.operator_api.calls.audit import REQUEST_ID, ToldAudit, told_audit
from functions.operator_api.ports import Ports
from functions.operator_api.problems import Code, Refusal
from functions.operator_api.tracing import Gathered, Tracing

TAG = "trace"
PSEUDONYM = re.compile(r"[0-9a-f]{32}\Z")
Limit = Annotated[int, Query(ge=1, le=200, description="How many at most.")]
Cursor = Annotated[str, Query(max_length=4000, description="The `cursor` of the page before; the same question.")]


class ToldReceived(Body):
    """How it came in."""

    at_ms: Annotated[int, Field(description="0: nothing that is stored says it any more.")]
    request_id: str
    event_name: str
    source: str


class ToldDecided(Body):
    """What it was taken for, by whom or what; `mode` is how far automation went at that moment."""

    at_ms: int
    by: str
    version: str
    label: str
    confidence: float
    reason_codes: list[str]
    flow: str
    mode: str


class ToldAction(Body):
    """One action, or the whole event where an item of the recovery queue has it, as it stands."""

    name: str
    kind: str
    integration: str
    target: Annotated[str, Field(description="An id, or the hash of what may be a number or an address.")]
    recipient: Annotated[str, Field(description="A pseudonym.")]
    state: Annotated[
        str,
        Field(
            description="`todo`, `under_way`, `waiting`, `done`, `superseded`, `suppressed`, `not_needed`, `dead` (it "
            "can be replayed), `ended` (given up), `unknown` (it may have happened), `missing` (its item has expired)."
        ),
    ]
    provider_id: str
    recovery_id: str
    status: str
    attempts: int
    waiting_for: str
    waits_for: list[str]
    next_at_ms: int
    until_ms: int
    effect: str
    failure_code: str
    failure_detail: str
    root_cause: str
    hops: list[str]
    replays: int
    last_replay_by: str
    ended_by: str
    job_id: str
    incident_id: str
    updated_at_ms: int


class ToldStep(Body):
    """Something that happened, or was done by somebody."""

    at_ms: int
    what: Annotated[str, Field(description="`received`, `decided`, `settled`, or the name of an audit event.")]
    about: str
    by: str
    detail: str
    request_id: str
    recovery_id: str


class ToldSwitchesNow(Body):
    """What is in force now for its flow, source and tenant."""

    is_known: Annotated[bool, Field(description="False where the switches could not be read.")]
    mode: str
    auto_reply: str
    classifier: str
    optional_calls: str
    replay: str
    disabled_integrations: list[str]
    replay_blocked_integrations: list[str]
    limits: dict[str, float]


class ToldEvent(Body):
    """The story of one event. Times are epoch milliseconds, 0 for none."""

    event_id: str
    tenant: str
    is_shadow: bool
    state: Annotated[str, Field(description="`accepted`, `processing`, `waiting`, `settled` or `ended`.")]
    summary: Annotated[str, Field(description="One sentence for people.")]
    received: ToldReceived
    decided: ToldDecided | None
    actions: list[ToldAction]
    whole: Annotated[list[ToldAction], Field(description="Items of the recovery queue that are the whole event.")]
    steps: Annotated[list[ToldStep], Field(description="In the order of time; switches that changed are among them.")]
    steps_left_out: Annotated[int, Field(description="Of the earliest steps.")]
    switches: ToldSwitchesNow
    unreadable: Annotated[list[str], Field(description="What is stored and could not be read back.")]


class ToldRequest(Body):
    """A request as the door's log has it: refused, or let in."""

    at_ms: int
    is_refused: bool
    status: int
    reason: str
    why: str
    source: Annotated[str, Field(description="Empty where it is none of ours.")]
    tenant: str
    event_id: str
    event_name: str
    stored_in: str


class ToldDoor(Body):
    """What was read of the door's log, which tells of what no table knows."""

    request: ToldRequest | None
    since_ms: Annotated[int, Field(description="Since when every line was read.")]
    is_complete: Annotated[bool, Field(description="False: the log is long, and was not read back as far as meant.")]


class ToldTrace(Body):
    """All that is known. Of a ticket and a recipient, `cursor` gives what came in before; null at the end."""

    events: Annotated[list[ToldEvent], Field(description="The last received first.")]
    audit: Annotated[list[ToldAudit], Field(description="What a request has done besides.")]
    door: Annotated[ToldDoor | None, Field(description="Where no table knew of it.")]
    cursor: str | None
    is_complete: Annotated[
        bool,
        Field(
            description="False: more is on record of it than was read for this answer. `GET /platform/audit` pages "
            "through all of it, and `GET /platform/replays/{replay_id}` through the items of a bulk replay."
        ),
    ]


def routes(ports: Ports) -> APIGatewayHttpRouter:
    """The calls of this subject."""
    router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]  # Powertools leaves it untyped
    tracing = Tracing(ports)

    @router.get(
        "/platform/trace",
        summary="What happened to a ticket, a request or a recipient",
        description="Exactly one of `ticket`, `request_id` and `recipient` is given.",
        operation_id="trace",
        tags=[TAG],
        responses={200: {"description": "What is known; empty lists where nothing is."}},
    )
    def show(
        ticket: Annotated[str, Query(max_length=256, description="The conversation, as the helpdesk calls it.")] = "",
        request_id: Annotated[
            str, Query(max_length=64, description="Of a delivery, or of anything that was done.")
        ] = "",
        recipient: Annotated[str, Query(max_length=32, description="A pseudonym: 32 hexadecimal digits.")] = "",
        limit: Limit = 50,
        cursor: Cursor = "",
    ) -> ToldTrace:
        given = [name for name, value in _named(ticket, request_id, recipient) if value]
        if len(given) != 1:
            raise Refusal(Code.INVALID_PAYLOAD, "say one of ticket, request_id and recipient")
        if request_id and cursor:
            raise Refusal(Code.INVALID_PAYLOAD, "what one request did has no pages")
        for name, value, pattern in (("request_id", request_id, REQUEST_ID), ("recipient", recipient, PSEUDONYM)):
            if value and not pattern.match(value):
                raise Refusal(Code.INVALID_PAYLOAD, f"{name} is none")  # what it is may be a number or an address
        try:
            if request_id:
                return told_trace(tracing.by_request(request_id))
            handle = Handle.TICKET if ticket else Handle.RECIPIENT
            return told_trace(tracing.by_handle(handle, ticket or recipient, limit, cursor))
        except BadCursor as bad:
            raise Refusal(Code.INVALID_PAYLOAD, f"cursor: {bad}") from bad

    return router


def _named(ticket: str, request_id: str, recipient: str) -> list[tuple[str, str]]:
    return [("ticket", ticket), ("request_id", request_id), ("recipient", recipient)]


def told_trace(gathered: Gathered) -> ToldTrace:
    """The answer."""
    seen = gathered.door
    return ToldTrace(
        events=[told_event(one) for one in gathered.events],
        audit=[told_audit(one) for one in gathered.audit],
        door=None
        if seen is None
        else ToldDoor(
            request=None if seen.line is None else _told_request(seen.line),
            since_ms=seen.since_ms,
            is_complete=seen.is_complete,
        ),
        cursor=gathered.further or None,
        is_complete=gathered.is_complete,
    )


def told_event(trace: EventTrace) -> ToldEvent:
    """One story."""
    said: dict[str, Any] = asdict(trace)
    return ToldEvent.model_validate(said)


def _told_request(line: DoorLine) -> ToldRequest:
    return ToldRequest(
        at_ms=line.at_ms,
        is_refused=line.is_refused,
        status=line.status,
        reason=line.reason,
        why=line.why,
        source=line.source if line.is_looked_up else "",
        tenant=line.tenant,
        event_id=line.event_id,
        event_name=line.event_name,
        stored_in=line.stored_in,
    )
