"""What `fallbacks.toml` and `features.toml` may say. Everything is checked, and an unknown key is refused."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from functions.catalog.schema import Id, Line
from functions.core.fallback import MAX_HOPS, Does, Events, Start
from functions.core.features import FeatureState

Kind = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}\.[a-z][a-z0-9_]{0,31}$")]
EventName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:/-]{1,128}$")]
MessageVersion = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}@[1-9][0-9]{0,3}$")]
Percent = Annotated[int, Field(ge=0, le=50)]
_WAYS = (Does.SWITCH, Does.SUBSTITUTE)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class MatrixRowModel(_Model):
    """One row of the matrix."""

    says: Line
    does: Does = Field(strict=False)
    starts: list[Annotated[Start, Field(strict=False)]] = Field(min_length=1)
    kinds: list[Kind] = Field(default_factory=list)
    to: dict[Kind, Kind] = Field(default_factory=dict)
    hop: int = Field(default=0, ge=0, le=MAX_HOPS)
    params: dict[Id, Any] = Field(default_factory=dict)
    target_param: Id | None = None
    later: bool = False
    events: Events = Field(default=Events.ALL, strict=False)
    task: Id | None = None
    attempts: int = Field(default=0, ge=0, le=10)
    stays_percent: Percent = 0
    slow_p95_seconds: int = Field(default=0, ge=0, le=86_400)
    integration: Id | None = None
    asks: bool = False
    feature: Id | None = None

    @model_validator(mode="after")
    def _says_what_it_does(self) -> Self:
        is_way = self.does in _WAYS
        if is_way is not bool(self.to) or is_way is not (self.hop > 0):
            raise ValueError("`to` and `hop` go with switch and substitute, and only with them")
        if (self.does is Does.RETRY) is not (self.attempts > 0):
            raise ValueError("`attempts` goes with retry, and only with it")
        if self.does in (Does.RETRY, Does.QUEUE, Does.HOLD) and not self.kinds:
            raise ValueError(f"{self.does.value} needs kinds")
        if is_way and self.kinds:
            raise ValueError("a way is for the kinds that `to` names")
        if self.does is Does.SWITCH and (self.params or self.target_param or self.later):
            raise ValueError("a switched message is the same message")
        if self.does is Does.RULES and self.integration is None:
            raise ValueError("rules need the integration that they stand in for")
        if self.does is Does.TELL and (self.feature is None or self.integration is None):
            raise ValueError("tell needs a feature and the integration that is not healthy")
        if self.asks and self.does is not Does.RULES:
            raise ValueError("`asks` goes with rules")
        if self.task and (not is_way or self.events is not Events.CRITICAL):
            raise ValueError("`task` goes with a way for critical events")
        return self


class ChannelTextModel(_Model):
    """What a message reads like on one channel."""

    message: MessageVersion
    channel: Annotated[str, StringConstraints(pattern=r"^(email|sms)$")]
    is_: MessageVersion = Field(alias="is")


class FallbacksFile(_Model):
    """`fallbacks.toml`."""

    critical_events: list[EventName]
    messages: list[ChannelTextModel] = Field(default_factory=list)
    rows: dict[Id, MatrixRowModel] = Field(min_length=1)


class LevelModel(_Model):
    """What users are told at one level of health."""

    state: FeatureState = Field(strict=False)
    message: Line
    capabilities: dict[Id, bool] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_not_well(self) -> Self:
        if self.state is FeatureState.OPERATIONAL:
            raise ValueError("what is not healthy is degraded or unavailable to users")
        return self


class FeatureModel(_Model):
    """One feature."""

    name: Line
    integrations: list[Id] = Field(min_length=1)
    needs_all: bool
    operational: Line
    degraded: LevelModel
    hard_down: LevelModel
    capabilities: dict[Id, bool] = Field(default_factory=dict)
    window_minutes: int = Field(default=0, ge=0, le=7 * 24 * 60)

    @model_validator(mode="after")
    def _levels_know_the_capabilities(self) -> Self:
        for level in (self.degraded, self.hard_down):
            for capability in level.capabilities:
                if capability not in self.capabilities:
                    raise ValueError(f"{capability!r} is no capability of the feature")
        return self

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything of it that users read."""
        return (self.name, self.operational, self.degraded.message, self.hard_down.message)


class FeaturesFile(_Model):
    """`features.toml`. `unknown` is what users are told of a feature while nobody knows how it is."""

    unknown: Line
    features: dict[Id, FeatureModel] = Field(min_length=1)
