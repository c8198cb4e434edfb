"""Integrations: how each is, and an operator's word on it that ends by itself (architecture §8, §11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Path
from aws_lambda_powertools.event_handler.openapi.types import OpenAPIResponse
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import Field

from functions.core.duration import PATTERN, duration_ms
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.fallback import in_force
from functions.core.gate import Health, IntegrationState
from functions.core.health import PROBES_NEEDED, REASON_LENGTH, HealthChange, Record, force, lift
from functions.core.limiter import resumes_at_ms
from functions.core.outlook import MOST_COUNTED, held_by, outlook
from functions.core.recovery import Status
from functions.core.switches import FRESH_FOR_MS, KNOWN_FOR_MS, SwitchView, view
from functions.operator_api.bodies import Body
from functions.operator_api.caller import Caller
from functions.operator_api.handler import caller
from functions.operator_api.ports import Ports
from functions.operator_api.problems import Code, Refusal

TAG = "integrations"
TRIES = 8  # of a change that another came between: the machine writes the same item each minute, and with each probe
_ABSENT: OpenAPIResponse = {"description": "There is no such integration."}

IntegrationId = Annotated[str, Path(max_length=64)]


class ToldOverride(Body):
    """What an operator has said of it. Empty: nobody has."""

    state: str
    until_ms: int
    by: str
    reason: str


class ToldSwitches(Body):
    """The switches as they are for it. `is_known` False: they could not be read, and the rest is the safe side."""

    is_known: bool
    mode: str
    is_disabled: bool
    is_replay_blocked: bool
    limit: float
    held_by: Annotated[
        dict[str, str], Field(description="Those that hold or slow it or some of what is for it, and their values.")
    ]


class ToldIntegration(Body):
    """One integration. Times are epoch milliseconds; 0: none. Its items are counted up to 1,000 per status."""

    integration_id: str
    provider: str
    feature: str
    health: str
    machine_says: str
    since_ms: int
    reason: str
    override: ToldOverride
    resumes_at_ms: Annotated[
        int, Field(description="When calls go on, where somebody said so: an operator, the provider, or its rate.")
    ]
    paused_until_ms: Annotated[int, Field(description="Until when the provider has asked for a pause.")]
    next_probe_at_ms: Annotated[int, Field(description="When a call finds out whether it is back.")]
    probes_succeeded: int
    probes_needed: int
    released: Annotated[float, Field(description="How much of what waited may go, after an outage: 0 to 1.")]
    fallbacks: Annotated[list[str], Field(description="Rows of the matrix that are in force because of it.")]
    backlog: dict[str, int]
    switches: ToldSwitches
    status_page: str
    support_contact: str
    version: Annotated[int, Field(description="Counts what was written of its health, by people and by the machine.")]


class ToldOverridden(ToldIntegration):
    """The integration as it is now, and what an operator's word has changed."""

    before: Annotated[str, Field(description="The health that held until now.")]
    is_changed: Annotated[
        bool, Field(description="False: nothing was said that could be taken back, so nothing was written.")
    ]


class ToldIntegrations(Body):
    """All of them."""

    integrations: list[ToldIntegration]


class Override(Body):
    """How it is from now on, whatever the machine says, and for how long. Without `state` the machine's word holds."""

    state: Health | None
    lasts: Annotated[
        str | None,
        Field(alias="for", pattern=PATTERN, description="90s, 30m, 4h, 2d; at most 7d. Needed with a state."),
    ] = None
    reason: Annotated[
        str, Field(min_length=1, max_length=REASON_LENGTH, pattern=r"\S", description="Why; it is in the audit.")
    ]


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
            409: {"description": "Others changed it at the same time: call again."},
        },
    )
    def override(integration_id: IntegrationId, wanted: Override) -> ToldOverridden:
        subject.check(integration_id)
        return subject.override(caller(router), integration_id, wanted)

    return router


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is known of one integration at a moment."""

    record: Record
    state: IntegrationState
    backlog: Mapping[Status, int]

    def changed(self, record: Record) -> _Seen:
        """The same with another word on its health."""
        said = record.state(self.state.integration)
        state = replace(
            said,
            paused_until_ms=self.state.paused_until_ms,
            tat_ms=self.state.tat_ms,
            busy_from_ms=self.state.busy_from_ms,
        )
        return replace(self, record=record, state=state)


class _Integrations:
    """What the calls do."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    def check(self, integration_id: str) -> None:
        """Raises `Refusal` if there is no such integration."""
        if integration_id not in self._ports.profiles:
            known = ", ".join(sorted(self._ports.profiles))
            raise Refusal(Code.NOT_FOUND, f"there is no integration {integration_id!r}; there are {known}")

    def told(self, names: Sequence[str]) -> list[ToldIntegration]:
        """Each as it is now."""
        return [self._told(name, seen) for name, seen in self._seen(names).items()]

    def _seen(self, names: Sequence[str]) -> dict[str, _Seen]:
        ports = self._ports
        records = ports.health.read(names)
        states = ports.ledger.read([], names).integrations
        return {
            name: _Seen(records[name], states[name], ports.operator_changes.count(name, MOST_COUNTED)) for name in names
        }

    def _told(self, name: str, seen: _Seen) -> ToldIntegration:
        """Reads nothing that could fail: it is told after changes, too."""
        ports, now_ms = self._ports, self._ports.clock.now_ms()
        snapshot = ports.switches.snapshot(FRESH_FOR_MS)
        switches = view(snapshot, flow="", source="", tenant="", now_ms=now_ms)
        profile, integration = ports.profiles[name], ports.integrations.get(name)
        comes = outlook(seen.state, now_ms, ports.time_scale)
        at_its_rate_ms = resumes_at_ms(seen.state, integration.rate if integration else None, now_ms, ports.time_scale)
        return ToldIntegration(
            integration_id=name,
            provider=profile.provider,
            feature=profile.feature,
            health=comes.health.value,
            machine_says=seen.record.health.value,
            since_ms=seen.record.since_ms,
            reason=seen.record.reason,
            override=_override(seen.record, is_forced=comes.is_forced),
            resumes_at_ms=max(comes.resumes_at_ms, at_its_rate_ms if at_its_rate_ms > now_ms else 0),
            paused_until_ms=comes.paused_until_ms,
            next_probe_at_ms=comes.next_probe_at_ms,
            probes_succeeded=comes.probes_succeeded,
            probes_needed=PROBES_NEEDED if comes.next_probe_at_ms else 0,
            released=comes.released,
            fallbacks=[f"{row.id}: {row.says}" for _, row in in_force(ports.fallbacks, {name: comes.health})],
            backlog={status.value: number for status, number in seen.backlog.items()},
            switches=_switches(switches, name, {} if snapshot is None else snapshot.values),
            status_page=profile.status_url,
            support_contact=profile.support_contact,
            version=seen.record.version,
        )

    def override(self, who: Caller, name: str, wanted: Override) -> ToldOverridden:
        """Store it with its audit event; gives the integration as it is then. All that is told is read before: a change
        that is made is answered. To take back what nobody has said is done already. Raises `Refusal`.
        """
        seen = self._seen([name])[name]
        for _ in range(TRIES):
            if wanted.state is None and seen.record.override is None:
                return self._told_overridden(name, seen, seen)
            change = _traced(_change(who, name, seen.record, wanted, self._ports.clock.now_ms()), who)
            try:
                self._ports.health.store(name, change)
            except VersionConflict:
                seen = replace(seen, record=self._ports.health.read([name])[name])
                continue
            except StorageUnavailable as unavailable:
                raise Refusal(
                    Code.UNAVAILABLE,
                    "storage or audit did not confirm the change: look at the integration before you call again",
                ) from unavailable
            return self._told_overridden(name, seen, seen.changed(change.after))
        raise Refusal(Code.IN_PROGRESS, "others are changing it at this moment: nothing was changed; call again")

    def _told_overridden(self, name: str, before: _Seen, after: _Seen) -> ToldOverridden:
        told = self._told(name, after)
        was = before.record.state(name).health_at(self._ports.clock.now_ms())
        return ToldOverridden(**told.model_dump(), before=was.value, is_changed=after is not before)


def _change(who: Caller, name: str, record: Record, wanted: Override, now_ms: int) -> HealthChange:
    try:
        if wanted.state is None:
            return lift(name, record, now_ms, actor=who.name, reason=wanted.reason)
        if wanted.lasts is None:
            raise Refusal(Code.INVALID_PAYLOAD, "say for how long: nobody remembers to take it back")
        until_ms = now_ms + duration_ms(wanted.lasts)
        return force(name, record, wanted.state, until_ms, actor=who.name, reason=wanted.reason, now_ms=now_ms)
    except ValueError as invalid:
        raise Refusal(Code.INVALID_PAYLOAD, str(invalid)) from invalid


def _traced(change: HealthChange, who: Caller) -> HealthChange:
    audit = tuple(replace(one, request_id=who.request_id, traceparent=who.traceparent) for one in change.audit)
    return replace(change, audit=audit)


def _override(record: Record, *, is_forced: bool) -> ToldOverride:
    if not is_forced or record.override is None:
        return ToldOverride(state="", until_ms=0, by="", reason="")
    return ToldOverride(
        state=record.override.value,
        until_ms=record.override_until_ms,
        by=record.override_by,
        reason=record.override_reason,
    )


def _switches(seen: SwitchView, name: str, values: Mapping[str, str]) -> ToldSwitches:
    return ToldSwitches(
        is_known=seen.age_ms is not None and seen.age_ms <= KNOWN_FOR_MS,
        mode=seen.mode.value,
        is_disabled=name in seen.disabled,
        is_replay_blocked=name in seen.replay_blocked,
        limit=seen.limit(name),
        held_by=held_by(values, name),
    )
