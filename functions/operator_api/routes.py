"""All calls of the operator API, by subject. What is not listed here does not exist."""

from __future__ import annotations

from collections.abc import Callable

from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter

from functions.operator_api.calls import (
    audit,
    events,
    incidents,
    integrations,
    public,
    quarantine,
    queue,
    rejections,
    replays,
    switches,
    trace,
)
from functions.operator_api.ports import Ports

SUBJECTS: tuple[Callable[[Ports], APIGatewayHttpRouter], ...] = (
    integrations.routes,
    queue.routes,
    replays.routes,
    events.routes,
    trace.routes,
    audit.routes,
    rejections.routes,
    quarantine.routes,
    switches.routes,
    incidents.routes,
    public.routes,
)
"""`routes` of each module under `calls`, in the order of the documentation."""


def routers(ports: Ports) -> list[APIGatewayHttpRouter]:
    """One router per subject. The ports are used when a call is answered, not before."""
    return [routes(ports) for routes in SUBJECTS]
