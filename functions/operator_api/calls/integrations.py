"""Integrations: how each is, and an operator's word on it that ends by itself (architecture §8, §11)."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Path
from aws_lambda_powertools.event_handler.openapi.types import OpenAPIResponse
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import BaseModel, ConfigDict, Field

from functions.core.duration import PATTERN, duration_ms
from functions.core.failure import IllegalTransition, VersionConflict
from functions.core.fallback import in_force
from functions.core.gate import Health
from functions.core.health import HealthChange, Record, force, lift
from functions.core.limiter import resumes_at_ms
from functions.core.recovery import Status
from functions.core.switches import SwitchView, view
from functions.operator_api.caller import Caller
from functions.operator_api.handler import caller
from functions.operator_api.ports import Ports
from functions.operator_api.problems import Code, Refusal

TAG = "integrations"
TRIES = 3  # of a change that another came between
COUNTED = 200  # items of a status; more are told as that many
_ABSENT: OpenAPIResponse = {"description": "There is no such integration."}

IntegrationId = Annotated[str, Path(max_length=64)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ToldOverride(_Model):
    """What an operator has said of it. Empty: nobody has."""

    state: str
    until_ms: int
    by: str
    reason: str


class ToldSwitches(_Model):
    """The switches as they are for it. `is_known` False: they could not be read, and the rest is the safe side."""

    is_known: bool
    mode: str
    is_disabled: bool
    is_replay_blocked: bool
    limit: float


class ToldIntegration(_Model):
    """One integration. Times are epoch milliseconds; 0: none. What waits is counted up to 200 per status."""

    integration_id: str
    provider: str
    feature: str
    health: str
    machine_says: str
    since_ms: int
    reason: str
    override: ToldOverride
    resumes_at_ms: Annotated[int, Field(description="From when on a call may be made, as far as its rate goes.")]
    paused_until_ms: int
    fallbacks: Annotated[list[str], Field(description="Rows of the matrix that are in force because of it.")]
    backlog: dict[str, int]
    switches: ToldSwitches
    status_page: str
    support_contact: str


class ToldIntegrations(_Model):
    """All of them."""

    integrations: list[ToldIntegration]


class Override(_Model):
    """How it is from now on, whatever the machine says, and for how long. Without `state` the machine's word holds."""

    state: Health | None
    lasts: Annotated[
        str | None,
        Field(alias="for", pattern=PATTERN, description="90s, 30m, 4h, 2d; at most 7d. Needed with a state."),
    ] = None
    reason: Annotated[str, Field(min_length=1, max_length=300, pattern=r"\S", description="Why; it is in the audit.")]


def routes(ports: Ports) -> APIGatewayHttpRouter:
    """The calls of this subject."""
    router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]  # Powertools leaves it untyped
    subject = _Integrations(ports)

    @router.get(
        "/platform/integrations",
        summary="How every integration is",
        operation_id="listIntegrations",
        tags=[TAG],
        responses={200: {"description": "All of them."}},
    )
    def show() -> ToldIntegrations:
        return ToldIntegrations(integrations=subject.told(sorted(ports.profiles)))

    @router.get(
        "/platform/integrations/<integration_id>",
        summary="How one is",
        operation_id="getIntegration",
        tags=[TAG],
        responses={200: {"description": "The integration."}, 404: _ABSENT},
    )
    def look(integration_id: IntegrationId) -> ToldIntegration:
        subject.check(integration_id)
        return subject.told([integration_id])[0]

    @router.put(
        "/platform/integrations/<integration_id>/health",
        summary="Say how it is, for a while",
        operation_id="overrideHealth",
        tags=[TAG],
        responses={
            200: {"description": "The integration as it is now."},
            404: _ABSENT,
            409: {"description": "Nothing was said that could be taken back, or others changed it at the same time."},
        },
    )
    def override(integration_id: IntegrationId, wanted: Override) -> ToldIntegration:
        subject.check(integration_id)
        subject.override(caller(router), integration_id, wanted)
        return subject.told([integration_id])[0]

    return router


class _Integrations:
    """What the calls do."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    def check(self, integration_id: str) -> None:
        """Raises `Refusal` if there is no such integration."""
        if integration_id not in self._ports.profiles:
            known = ", ".join(sorted(self._ports.profiles))
            raise Refusal(Code.NOT_FOUND, f"there is no integration {integration_id!r}; there are {known}")

    def told(self, names: list[str]) -> list[ToldIntegration]:
        """Each as it is now."""
        ports, now_ms = self._ports, self._ports.clock.now_ms()
        records = ports.health.read(names)
        states = ports.ledger.read([], names).integrations
        snapshot = ports.switches.snapshot(5_000)
        switches = view(snapshot, flow="", source="", tenant="", now_ms=now_ms)
        told = []
        for name in names:
            profile, record, state = ports.profiles[name], records[name], states[name]
            health = state.health_at(now_ms)
            integration = ports.integrations.get(name)
            resumes_ms = resumes_at_ms(state, integration.rate if integration else None, now_ms, ports.time_scale)
            told.append(
                ToldIntegration(
                    integration_id=name,
                    provider=profile.provider,
                    feature=profile.feature,
                    health=health.value,
                    machine_says=record.health.value,
                    since_ms=record.since_ms,
                    reason=record.reason,
                    override=_override(record, now_ms, is_forced=state.is_forced_at(now_ms)),
                    resumes_at_ms=resumes_ms if resumes_ms > now_ms else 0,
                    paused_until_ms=state.paused_until_ms if state.paused_until_ms > now_ms else 0,
                    fallbacks=[f"{row.id}: {row.says}" for _, row in in_force(ports.fallbacks, {name: health})],
                    backlog=self._backlog(name),
                    switches=_switches(switches, name, is_known=snapshot is not None),
                    status_page=profile.status_url,
                    support_contact=profile.support_contact,
                )
            )
        return told

    def _backlog(self, name: str) -> dict[str, int]:
        open_or_dead = (Status.PENDING, Status.RETRYING, Status.FAILED, Status.DLQ)
        counted = {one.value: len(self._ports.recovery.find(name, [one], COUNTED)) for one in open_or_dead}
        return {status: number for status, number in counted.items() if number}

    def override(self, who: Caller, name: str, wanted: Override) -> None:
        """Store it with its audit event. Raises `Refusal`."""
        now_ms = self._ports.clock.now_ms()
        for _ in range(TRIES):
            record = self._ports.health.read([name])[name]
            change = _traced(_change(who, name, record, wanted, now_ms), who)
            try:
                self._ports.health.store(name, change)
            except VersionConflict:
                continue
            return
        raise Refusal(Code.IN_PROGRESS, "others are changing it at this moment: nothing was changed; call again")


def _change(who: Caller, name: str, record: Record, wanted: Override, now_ms: int) -> HealthChange:
    try:
        if wanted.state is None:
            return lift(name, record, now_ms, actor=who.name, reason=wanted.reason)
        if wanted.lasts is None:
            raise Refusal(Code.INVALID_PAYLOAD, "say for how long: nobody remembers to take it back")
        until_ms = now_ms + duration_ms(wanted.lasts)
        return force(name, record, wanted.state, until_ms, actor=who.name, reason=wanted.reason, now_ms=now_ms)
    except IllegalTransition as illegal:
        raise Refusal(Code.REPLAY_CONFLICT, str(illegal)) from illegal
    except ValueError as invalid:
        raise Refusal(Code.INVALID_PAYLOAD, str(invalid)) from invalid


def _traced(change: HealthChange, who: Caller) -> HealthChange:
    audit = tuple(replace(one, request_id=who.request_id, traceparent=who.traceparent) for one in change.audit)
    return replace(change, audit=audit)


def _override(record: Record, now_ms: int, *, is_forced: bool) -> ToldOverride:
    if not is_forced or record.override is None or record.override_until_ms <= now_ms:
        return ToldOverride(state="", until_ms=0, by="", reason="")
    return ToldOverride(
        state=record.override.value,
        until_ms=record.override_until_ms,
        by=record.override_by,
        reason=record.override_reason,
    )


def _switches(seen: SwitchView, name: str, *, is_known: bool) -> ToldSwitches:
    return ToldSwitches(
        is_known=is_known,
        mode=seen.mode.value,
        is_disabled=name in seen.disabled,
        is_replay_blocked=name in seen.replay_blocked,
        limit=seen.limit(name),
    )
