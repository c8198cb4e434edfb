"""The operators' switches: what each says, and set one (architecture §9)."""

from __future__ import annotations

import json
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Path
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import BaseModel, ConfigDict, Field

from functions.catalog.loader import load
from functions.core.audit import AuditEvent, AuditType, Severity, audit_id
from functions.core.failure import StorageUnavailable
from functions.core.ports import SwitchVersion
from functions.core.switches import UnfitSwitch, everyday, written
from functions.operator_api.caller import Caller
from functions.operator_api.handler import caller
from functions.operator_api.ports import Ports
from functions.operator_api.problems import Code, Refusal

TAG = "switches"
ENTITY = "switch"

Reason = Annotated[str, Field(min_length=1, max_length=500, pattern=r"\S", description="Why; it is in the audit.")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewValue(_Model):
    """What a switch is to say. Lists name `none`, `all`, or integrations with commas between."""

    value: Annotated[str, Field(min_length=1, max_length=1000)]
    reason: Reason


class ToldSwitch(_Model):
    """One switch. `everyday` is what it says while nothing is the matter; left out for what is no switch."""

    name: str
    value: str
    version: int
    changed_at_ms: int
    everyday: str | None = None


class ToldSwitches(_Model):
    """Every switch that is set, by name, narrowing ones included."""

    switches: list[ToldSwitch]


class Changed(_Model):
    """What was done. `before` is left out where the switch was not set."""

    name: str
    value: str
    version: int
    before: str | None = None


def routes(ports: Ports) -> APIGatewayHttpRouter:
    """The calls of this subject."""
    router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]  # Powertools leaves it untyped

    @router.get(
        "/platform/switches",
        summary="What every switch says",
        operation_id="listSwitches",
        tags=[TAG],
        responses={200: {"description": "The switches that are set, as the parameter store has them now."}},
    )
    def show() -> ToldSwitches:
        latest = ports.switch_history.latest()
        return ToldSwitches(switches=[_told(latest[name]) for name in sorted(latest)])

    @router.put(
        "/platform/switches/<name>",
        summary="Set a switch",
        description=(
            "The name may hold slashes, encoded or not: `limits/helpdesk`, `flow/support/auto_reply`. The audit says "
            "who asked for what before it is done; what became of it is in the audit within two minutes as well."
        ),
        operation_id="setSwitch",
        tags=[TAG],
        responses={
            200: {"description": "It is set. Customer-visible sends go by it within seconds, all else within 30."},
            503: {"description": "Storage or audit does not answer: the detail says whether anything was changed."},
        },
    )
    def put(name: Annotated[str, Path(min_length=1, max_length=300)], wanted: NewValue) -> Changed:
        who, switch = caller(router), name.replace("%2F", "/")
        try:
            value = written(switch, wanted.value, load().integrations)
        except UnfitSwitch as unfit:
            raise Refusal(Code.INVALID_PAYLOAD, str(unfit)) from unfit
        before = ports.switch_history.latest().get(switch)
        ports.audit.append([_asked(ports, who, switch, before, value, wanted.reason)])
        version = _set(ports, switch, before, value, f"{who.name}: {wanted.reason.strip()}")
        return Changed(name=switch, value=value, version=version, before=None if before is None else before.value)

    return router


def _set(ports: Ports, name: str, before: SwitchVersion | None, value: str, description: str) -> int:
    """The version that it has now. Raises `Refusal` where it was not, or may not have been, set."""
    try:
        return ports.switch_writer.put(name, value, description)
    except StorageUnavailable as trouble:
        expected = 1 if before is None else before.version + 1
        try:
            now = ports.switch_history.latest().get(name)
        except StorageUnavailable:
            detail = f"whether {name} was changed is not known: look at it before you set it again"
            raise Refusal(Code.UNAVAILABLE, detail, may_have_changed=True) from trouble
        if now is not None and (now.version, now.value) == (expected, value):
            return now.version  # it was the answer that got lost
        detail = (
            f"the parameter store does not answer: {name} was not changed, although the audit has that it was asked for"
        )
        raise Refusal(Code.UNAVAILABLE, detail, may_have_changed=False) from trouble


def _asked(ports: Ports, who: Caller, name: str, before: SwitchVersion | None, value: str, reason: str) -> AuditEvent:
    """What is in the audit before anything is done. What was done follows from the parameter's own history."""
    state = {} if before is None else {"value": before.value, "version": before.version}
    return AuditEvent(
        id=audit_id(f"{name}#{ports.ids.new_id()}", 0, AuditType.SWITCH_CHANGED),
        at_ms=ports.clock.now_ms(),
        event_type=AuditType.SWITCH_CHANGED,
        severity=Severity.WARNING,
        tenant="",
        actor=who.name,
        affected_entity=ENTITY,
        affected_id=name,
        request_id=who.request_id,
        traceparent=who.traceparent,
        before_state=json.dumps(state, separators=(",", ":"), sort_keys=True) if state else "",
        after_state=json.dumps({"value": value}, separators=(",", ":")),
        reason=reason.strip(),
    )


def _told(one: SwitchVersion) -> ToldSwitch:
    return ToldSwitch(
        name=one.name,
        value=one.value,
        version=one.version,
        changed_at_ms=one.changed_at_ms,
        everyday=everyday(one.name) or None,
    )
