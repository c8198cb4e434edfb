"""What anybody may ask, without a token: how the features are, and whether the stage is up (architecture §8, §11).

Nothing here names a provider, an integration or a tenant. However often strangers ask, the tables and the parameter
store are read once in a quarter of a minute, and less often while they do not answer. What cannot be known reads as
unknown, never as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated, Final

from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import BaseModel, ConfigDict, Field

from functions.core.failure import StorageUnavailable
from functions.core.features import FeatureState, FeatureStatus, status_of
from functions.core.health import Record, is_kept_up
from functions.core.switches import KNOWN_FOR_MS
from functions.operator_api.ports import Ports
from functions.operator_api.problems import Code, Refusal

TAG = "public"
FRESH_MS: Final = 15_000  # for as long one read serves whoever asks, in the stage's time
REST_MS: Final = 5_000  # after one that failed
KEPT_MS: Final = 120_000  # for as long the last one that succeeded is believed
PROVIDERS: Final = "providers"
"""The group of alarms whose incident is about integrations, and so about the features in front of them."""

_WORST_FIRST: Final = (
    FeatureState.UNAVAILABLE,
    FeatureState.UNKNOWN,
    FeatureState.DEGRADED,
    FeatureState.OPERATIONAL,
)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ToldFeature(_Model):
    """One feature, as users may be told of it. What is not known is null."""

    name: str
    state: FeatureState
    message: Annotated[str, Field(description="To be shown to users as it is.")]
    capabilities: Annotated[
        dict[str, bool | None],
        Field(
            description="What an app's pages may offer. null: nobody knows; offer it only if its failing does no harm."
        ),
    ]
    next_update_ms: Annotated[int | None, Field(description="When users hear more; epoch milliseconds.")] = None
    next_update_within_minutes: int | None = None


class ToldStatus(_Model):
    """Every feature by its id, and the worst of their states."""

    state: FeatureState
    as_of_ms: Annotated[int, Field(description="When this was so; epoch milliseconds.")]
    features: dict[str, ToldFeature]


class Check(StrEnum):
    """Of one part of the stage."""

    OK = "ok"
    FAILING = "failing"
    UNKNOWN = "unknown"


class ToldChecks(_Model):
    """Each part: `storage`, the tables answer; `switches`, the operators' switches can be read; `watch`, the health of
    what we depend on is judged each minute.
    """

    storage: Check
    switches: Check
    watch: Check


class ToldUp(_Model):
    """The stage is up: every check is `ok`."""

    status: Check
    checks: ToldChecks


def routes(ports: Ports) -> APIGatewayHttpRouter:
    """The calls of this subject."""
    router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]  # Powertools leaves it untyped
    standing = _Standing(ports)

    @router.get(
        "/status",
        summary="How the features are",
        description="For users and for the pages of apps. No token is needed, and the answer may be kept.",
        operation_id="getStatus",
        tags=[TAG],
        responses={200: {"description": "Every feature. One of which nobody knows how it is says `unknown`."}},
    )
    def status() -> ToldStatus:
        return standing.status()

    @router.get(
        "/health",
        summary="Whether the stage is up",
        description="For load balancers and uptime checks. No token is needed. 200 means that every check is `ok`.",
        operation_id="getHealth",
        tags=[TAG],
        responses={
            200: {"description": "It is up."},
            503: {"description": "It is not, or not known to be: `checks` says which part."},
        },
    )
    def health() -> ToldUp:
        return standing.up()

    return router


@dataclass(frozen=True, slots=True)
class _Look:
    """What one read found. Without `records` the tables did not answer, or did not for too long."""

    at_ms: int
    records: Mapping[str, Record] | None = None
    next_updates: Mapping[str, int] = field(default_factory=dict)
    are_switches_known: bool = False
    is_fresh: bool = False


class _Standing:
    """What the calls answer from: one read, shared by all who ask within its time."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._last: _Look | None = None
        self._looked_at_ms = 0

    # -------------------------------------------------------------------------------------------------------- answering

    def status(self) -> ToldStatus:
        """Every feature whose integrations the catalog has: of the others this stage does nothing yet."""
        look, ports = self._look(), self._ports
        offered = {
            name: feature
            for name, feature in ports.features.items()
            if all(integration in ports.profiles for integration in feature.integrations)
        }
        records = {} if look.records is None else look.records
        unknown = {name for name in ports.profiles if not self._is_kept_up(records.get(name))}
        found = status_of(
            offered,
            {name: record.state(name) for name, record in records.items()},
            ports.clock.now_ms(),
            look.next_updates,
            unknown,
        )
        return ToldStatus(
            state=min((one.state for one in found), key=_WORST_FIRST.index, default=FeatureState.UNKNOWN),
            as_of_ms=look.at_ms,
            features={one.id: _told(one) for one in found},
        )

    def up(self) -> ToldUp:
        """Raises `Refusal` unless every check is ok."""
        look = self._look()
        watch = Check.UNKNOWN
        if look.records is not None:
            is_judged = all(self._is_kept_up(look.records.get(name)) for name in self._ports.profiles)
            watch = Check.OK if is_judged else Check.FAILING
        checks = ToldChecks(
            storage=Check.OK if look.is_fresh else Check.FAILING,
            switches=Check.OK if look.are_switches_known else Check.FAILING,
            watch=watch,
        )
        bad = [name for name, check in checks.model_dump().items() if check is not Check.OK]
        if bad:
            said = {name: check.value for name, check in checks.model_dump().items()}
            raise Refusal(Code.UNAVAILABLE, f"not everything is up: {', '.join(bad)}", checks=said)
        return ToldUp(status=Check.OK, checks=checks)

    def _is_kept_up(self, record: Record | None) -> bool:
        return record is not None and is_kept_up(record, self._ports.clock.now_ms(), self._ports.time_scale)

    # ---------------------------------------------------------------------------------------------------------- reading

    def _look(self) -> _Look:
        now_ms, last = self._ports.clock.now_ms(), self._last
        fresh_ms = FRESH_MS * self._ports.time_scale
        if last is not None and 0 <= now_ms - self._looked_at_ms < (fresh_ms if last.is_fresh else REST_MS):
            return last
        self._looked_at_ms, self._last = now_ms, self._read(now_ms, last)
        return self._last

    def _read(self, now_ms: int, last: _Look | None) -> _Look:
        known = self._are_switches_known(now_ms)
        try:
            records = self._ports.health.read(sorted(self._ports.profiles))
        except StorageUnavailable:
            if last is not None and last.records is not None and 0 <= now_ms - last.at_ms <= KEPT_MS:
                return replace(last, are_switches_known=known, is_fresh=False)
            return _Look(now_ms, are_switches_known=known)
        return _Look(now_ms, records, self._next_updates(), known, is_fresh=True)

    def _are_switches_known(self, now_ms: int) -> bool:
        snapshot = self._ports.switches.snapshot(FRESH_MS)
        return snapshot is not None and abs(now_ms - snapshot.read_at_ms) <= KNOWN_FOR_MS

    def _next_updates(self) -> Mapping[str, int]:
        """When people hear more, by feature, where an incident about integrations says so (000.26). What cannot be read
        is not said.
        """
        try:
            incident_id = self._ports.incidents.board().open.get(PROVIDERS)
            incident = None if incident_id is None else self._ports.incidents.get(incident_id)
        except StorageUnavailable:
            return {}
        if incident is None or incident.is_over or incident.is_test:
            return {}
        return dict.fromkeys(self._ports.features, incident.next_update_ms)


def _told(status: FeatureStatus) -> ToldFeature:
    return ToldFeature(
        name=status.name,
        state=status.state,
        message=status.message,
        capabilities=dict(status.capabilities),
        next_update_ms=status.next_update_ms or None,
        next_update_within_minutes=status.window_minutes or None,
    )
