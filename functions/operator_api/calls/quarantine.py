"""Quarantine: which events are kept aside, by whom and until when; make a rule, or remove one (runbook 001)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Path, Query
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import Field

from functions.core.duration import PATTERN, duration_ms
from functions.core.failure import VersionConflict
from functions.core.quarantine import InvalidRule, NoSuchRule, QuarantineChange, Rule
from functions.operator_api.bodies import Body, Reason
from functions.operator_api.handler import caller
from functions.operator_api.ports import Ports
from functions.operator_api.problems import Code, Refusal

TAG = "quarantine"
TRIES = 3  # of a change that another came between
_ID = r"^[0-9a-f]{32}$"
_WORD = r"^[^\x00-\x1f\x7f]{1,200}$"

Word = Annotated[str, Field(pattern=_WORD)]


class NewRule(Body):
    """What is to be kept aside. Of the criteria at least one is given; all that are given must be so of an event.

    With `failure_code` what has failed so and would be tried again is kept aside; without it new events are.
    """

    source: Word | None = None
    event_name: Word | None = None
    event_version: Word | None = None
    tenant: Word | None = None
    failure_code: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{1,63}$")] | None = None
    lasts: Annotated[str, Field(alias="for", pattern=PATTERN, description="90s, 30m, 4h, 2d; at most 30d.")]
    reason: Reason


class ToldRule(Body):
    """One rule. Times are epoch milliseconds. A criterion that says nothing is left out."""

    id: str
    author: str
    reason: str
    created_at_ms: int
    expires_at_ms: int
    source: str | None = None
    event_name: str | None = None
    event_version: str | None = None
    tenant: str | None = None
    failure_code: str | None = None


class ToldRules(Body):
    """The rules in force, the oldest first: it is the first that fits which keeps an event aside."""

    rules: list[ToldRule]


def routes(ports: Ports) -> APIGatewayHttpRouter:
    """The calls of this subject."""
    router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]  # Powertools leaves it untyped

    @router.get(
        "/platform/quarantine",
        summary="Which events are kept aside",
        operation_id="listQuarantine",
        tags=[TAG],
        responses={200: {"description": "The rules in force."}},
    )
    def show() -> ToldRules:
        rules = ports.quarantines.read().in_force(ports.clock.now_ms())
        return ToldRules(rules=[_told(rule) for rule in rules])

    @router.post(
        "/platform/quarantine",
        summary="Keep events aside for a while",
        operation_id="addQuarantine",
        tags=[TAG],
        status_code=201,
        responses={
            201: {"description": "The rule, which holds for every event that is read from now on."},
            409: {"description": "Others changed the rules at the same time: call again."},
        },
    )
    def add(rule: NewRule) -> ToldRule:
        who, now_ms = caller(router), ports.clock.now_ms()
        made = Rule(
            rule_id=ports.ids.new_id(),
            author=who.name,
            reason=rule.reason,
            created_at_ms=now_ms,
            expires_at_ms=now_ms + duration_ms(rule.lasts),
            source=rule.source or "",
            event_name=rule.event_name or "",
            event_version=rule.event_version or "",
            tenant=rule.tenant or "",
            failure_code=rule.failure_code or "",
        )

        def change() -> QuarantineChange:
            return ports.quarantines.read().with_rule(made, who.request_id, who.traceparent)

        try:
            _store(ports, change)
        except InvalidRule as invalid:
            raise Refusal(Code.INVALID_PAYLOAD, str(invalid)) from invalid
        return _told(made)

    @router.delete(
        "/platform/quarantine/<quarantine_id>",
        summary="Let events go on",
        operation_id="removeQuarantine",
        tags=[TAG],
        responses={
            200: {"description": "The rules that are left. What was kept aside stays until it is replayed."},
            409: {"description": "Others changed the rules at the same time: call again."},
        },
    )
    def remove(
        quarantine_id: Annotated[str, Path(pattern=_ID)],
        reason: Annotated[str, Query(min_length=1, max_length=500, pattern=r"\S", description="Why; for the audit.")],
    ) -> ToldRules:
        who = caller(router)

        def change() -> QuarantineChange:
            return ports.quarantines.read().without(
                quarantine_id,
                actor=who.name,
                reason=reason,
                now_ms=ports.clock.now_ms(),
                request_id=who.request_id,
                traceparent=who.traceparent,
            )

        try:
            left = _store(ports, change).after.rules
        except NoSuchRule as absent:
            raise Refusal(Code.NOT_FOUND, str(absent)) from absent
        return ToldRules(rules=[_told(rule) for rule in left])

    return router


def _store(ports: Ports, change: Callable[[], QuarantineChange]) -> QuarantineChange:
    """Read, change and write, again where somebody else came between. Raises `Refusal` where they always do."""
    for _ in range(TRIES):
        made = change()
        try:
            ports.quarantines.store(made)
        except VersionConflict:
            continue
        return made
    raise Refusal(Code.IN_PROGRESS, "others are changing the rules at this moment: nothing was changed; call again")


def _told(rule: Rule) -> ToldRule:
    return ToldRule(
        id=rule.rule_id,
        author=rule.author,
        reason=rule.reason,
        created_at_ms=rule.created_at_ms,
        expires_at_ms=rule.expires_at_ms,
        source=rule.source or None,
        event_name=rule.event_name or None,
        event_version=rule.event_version or None,
        tenant=rule.tenant or None,
        failure_code=rule.failure_code or None,
    )
