"""The operators' switches: what each says, and set one (architecture §9)."""

from __future__ import annotations

from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Path
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import Field

from functions.catalog.loader import load
from functions.core.audit import AuditEvent, AuditType, Severity, audit_id
from functions.core.compact import compact
from functions.core.duration import PATTERN, duration_ms
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.ports import SwitchVersion
from functions.core.switch_returns import InvalidReturn, Return
from functions.core.switches import UnfitSwitch, everyday, written
from functions.operator_api.bodies import Body, Reason
from functions.operator_api.caller import Caller
from functions.operator_api.handler import caller
from functions.operator_api.ports import Ports
from functions.operator_api.problems import Code, Refusal

TAG = "switches"
ENTITY = "switch"
TRIES = 3  # of a promise that another came between


class NewValue(Body):
    """What a switch is to say. Lists name `none`, `all`, or integrations with commas between."""

    value: Annotated[str, Field(min_length=1, max_length=1000)]
    reason: Reason
    lasts: Annotated[
        str | None,
        Field(
            alias="for",
            pattern=PATTERN,
            description="90s, 30m, 4h, 2d; at least 1m, at most 30d: then it says again what it says now.",
        ),
    ] = None


class ToldSwitch(Body):
    """One switch. `everyday` is what it says while nothing is the matter; null for what is no switch. One
    that is set for a time says `back_to` again from `until_ms` on.
    """

    name: str
    value: str
    version: int
    changed_at_ms: int
    everyday: str | None = None
    until_ms: int | None = None
    back_to: str | None = None


class ToldSwitches(Body):
    """Every switch that is set, by name, narrowing ones included."""

    switches: list[ToldSwitch]


class Changed(Body):
    """What was done. `before` is null where the switch was not set."""

    name: str
    value: str
    version: int
    before: str | None = None
    until_ms: int | None = None
    back_to: str | None = None


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
        returns = ports.switch_returns.read()
        return ToldSwitches(switches=[_told(latest[name], returns.of(latest[name])) for name in sorted(latest)])

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
            409: {"description": "Others set switches for a time in the same moment: call again."},
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
        asked = _asked(ports, who, switch, before, value, wanted)
        description = f"{who.name}: {asked.reason}"
        promise = None
        if wanted.lasts is None:
            ports.audit.append([asked])
        else:
            promise = _promise(ports, asked, before, value, duration_ms(wanted.lasts), description)
        version = _set(ports, switch, before, value, description)
        if promise is not None and version != promise.version:
            _move(ports, promise, version)
        return Changed(
            name=switch,
            value=value,
            version=version,
            before=None if before is None else before.value,
            until_ms=None if promise is None else promise.until_ms,
            back_to=None if promise is None else promise.back_to,
        )

    return router


def _promise(
    ports: Ports, asked: AuditEvent, before: SwitchVersion | None, value: str, lasts_ms: int, description: str
) -> Return:
    """Promise that it returns, and have it in the audit that it was asked for, in one. Raises `Refusal`."""
    for _ in range(TRIES):
        returns = ports.switch_returns.read()
        earlier = returns.of(before)
        if earlier is not None:
            back_to = earlier.back_to  # what it says now was to end as well
        else:
            back_to = everyday(asked.affected_id) if before is None else before.value
        promise = Return(
            return_id=asked.id,
            name=asked.affected_id,
            value=value,
            version=_next(before),
            back_to=back_to,
            until_ms=asked.at_ms + lasts_ms,
            actor=asked.actor,
            reason=asked.reason,
            description=description,
            request_id=asked.request_id,
        )
        try:
            ports.switch_returns.store(returns.with_promise(promise, before, asked.at_ms, asked))
        except InvalidReturn as invalid:
            raise Refusal(Code.INVALID_PAYLOAD, str(invalid)) from invalid
        except VersionConflict:
            continue
        return promise
    raise Refusal(Code.IN_PROGRESS, "others set switches for a time at this moment: nothing was changed; call again")


def _move(ports: Ports, promise: Return, version: int) -> None:
    """Somebody else has set it in between, and so it got another version. Raises `Refusal`."""
    try:
        for _ in range(TRIES):
            try:
                ports.switch_returns.store(ports.switch_returns.read().moved(promise, version))
            except VersionConflict:
                continue
            return
    except StorageUnavailable as trouble:
        raise _stays(promise) from trouble
    raise _stays(promise)


def _stays(promise: Return) -> Refusal:
    detail = f"{promise.name} says {promise.value} now, and will not return by itself: set it again"
    return Refusal(Code.UNAVAILABLE, detail, may_have_changed=True)


def _next(before: SwitchVersion | None) -> int:
    return 1 if before is None else before.version + 1


def _set(ports: Ports, name: str, before: SwitchVersion | None, value: str, description: str) -> int:
    """The version that it has now. Raises `Refusal` where it was not, or may not have been, set."""
    try:
        return ports.switch_writer.put(name, value, description)
    except StorageUnavailable as trouble:
        try:
            now = ports.switch_history.latest().get(name)
        except StorageUnavailable:
            detail = f"whether {name} was changed is not known: look at it before you set it again"
            raise Refusal(Code.UNAVAILABLE, detail, may_have_changed=True) from trouble
        if now is not None and (now.version, now.value) == (_next(before), value):
            return now.version  # it was the answer that got lost
        detail = (
            f"the parameter store does not answer: {name} was not changed, although the audit has that it was asked for"
        )
        raise Refusal(Code.UNAVAILABLE, detail, may_have_changed=False) from trouble


def _asked(
    ports: Ports, who: Caller, name: str, before: SwitchVersion | None, value: str, wanted: NewValue
) -> AuditEvent:
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
        before_state=compact(state) if state else "",
        after_state=compact(
            {"value": value, **({} if wanted.lasts is None else {"for": wanted.lasts})},
        ),
        reason=wanted.reason.strip(),
    )


def _told(one: SwitchVersion, promise: Return | None) -> ToldSwitch:
    return ToldSwitch(
        name=one.name,
        value=one.value,
        version=one.version,
        changed_at_ms=one.changed_at_ms,
        everyday=everyday(one.name) or None,
        until_ms=None if promise is None else promise.until_ms,
        back_to=None if promise is None else promise.back_to,
    )
