"""Events: the story of one, by its id."""

from __future__ import annotations

from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Path, Query
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import Field

from functions.core.event import NAME
from functions.operator_api.bodies import Body
from functions.operator_api.calls.trace import ToldEvent, told_event
from functions.operator_api.ports import Ports
from functions.operator_api.problems import Code, Refusal
from functions.operator_api.tracing import Tracing

TAG = "trace"
_TENANT = rf"^$|^{NAME.pattern.removesuffix(chr(92) + 'Z')}$"


class ToldFound(Body):
    """The event. `others` go by the same id: its shadow, or another tenant's that its source belonged to."""

    event: ToldEvent
    others: Annotated[list[ToldEvent], Field(description="Most often none.")]
    is_complete: Annotated[
        bool,
        Field(description="False: an item's record is longer than what was read; `GET /platform/audit` has all of it."),
    ]


def routes(ports: Ports) -> APIGatewayHttpRouter:
    """The calls of this subject."""
    router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]  # Powertools leaves it untyped
    tracing = Tracing(ports)

    @router.get(
        "/platform/events/<event_id>",
        summary="What happened to an event",
        operation_id="getEvent",
        tags=[TAG],
        responses={
            200: {"description": "Its story."},
            404: {"description": "No table knows it, nor does the door's log, as far back as that was read."},
        },
    )
    def show(
        event_id: Annotated[str, Path(min_length=1, max_length=400, description="`{source}:{identity}`.")],
        tenant: Annotated[
            str, Query(max_length=64, pattern=_TENANT, description="Whose it is; without it, whose its source is.")
        ] = "",
    ) -> ToldFound:
        found = tracing.by_event(event_id.replace("%2F", "/"), tenant)
        if not found.events:
            since_ms = found.door.since_ms if found.door is not None else 0
            raise Refusal(
                Code.NOT_FOUND,
                "no event of this id is known, and none was let in as far back as the door's log was read",
                log_read_since_ms=since_ms,
            )
        ordered = sorted(found.events, key=lambda one: one.is_shadow)
        return ToldFound(
            event=told_event(ordered[0]),
            others=[told_event(one) for one in ordered[1:]],
            is_complete=found.is_complete,
        )

    return router
