"""The operator's switches: how parameters are read, narrowed, and what holds when they cannot be known (architecture
§9).

A snapshot is what one complete read of the parameters gave. Whoever uses one asks for a `view`: the values in force
for one flow, source and tenant, at a moment. A value that nobody can understand counts as unknown, never as
permission.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from functions.core.decision import Mode, stricter
from functions.core.event import NAME
from functions.core.failure import HoldfastError
from functions.core.integration import INTAKE, Integration

REQUIRED = (
    "mode",
    "auto_reply",
    "classifier",
    "optional_calls",
    "replay",
    "disabled_integrations",
    "replay_blocked_integrations",
)
LLM = "llm"  # the integration that classifies
KNOWN_FOR_MS = 10 * 60 * 1000  # everything but customer-visible sends may use a snapshot that old
FRESH_FOR_MS = 5_000  # a customer-visible send asks for a new read after that
_LIMITS = "limits/"
_VIEWS = 1_000  # tenants and sources that are remembered at once
USABLE_FOR_MS = 6_000  # and parks, if there was no new one, after that


@dataclass(frozen=True, slots=True)
class Integrations:
    """Which integrations a list switch names: none, all, or some."""

    every: bool = False
    some: frozenset[str] = frozenset()

    def __contains__(self, integration: str) -> bool:
        return self.every or integration in self.some


_NO_INTEGRATIONS = Integrations()


@dataclass(frozen=True, slots=True)
class SwitchView:
    """The switches in force for one flow, source and tenant at one moment.

    `age_ms` is how old the snapshot behind it is; None if there never was one.
    """

    mode: Mode
    auto_reply: bool
    use_llm: bool
    optional_calls: bool
    replay: bool
    disabled: Integrations
    replay_blocked: Integrations
    limits: Mapping[str, float]
    age_ms: int | None

    def may_ask(self, integration: str = LLM) -> bool:
        """Whether the LLM may be asked: by `classifier`, and by what stops any other integration."""
        return self.use_llm and integration not in self.disabled and self.limit(integration) > 0

    def limit(self, integration: str) -> float:
        """The factor, 0 to 1, on that integration's rate and concurrency."""
        return self.limits.get(integration, 1.0)


class _Sense:
    """What parameters of these values mean, whenever they were read."""

    __slots__ = ("_views", "by_scope")

    def __init__(self, values: Sequence[tuple[str, str]]) -> None:
        self.by_scope: dict[str, dict[str, str]] = {}
        self._views: dict[tuple[str, str, str], SwitchView] = {}
        for name, value in values:
            scope, switch = scope_of(name)
            self.by_scope.setdefault(scope, {})[switch] = value

    def said(self, flow: str, source: str, tenant: str) -> SwitchView:
        asked = (flow, source, tenant)
        found = self._views.get(asked)
        if found is None:
            scopes = ("", f"flow/{flow}", f"source/{source}", f"tenant/{tenant}")
            found = _said([self.by_scope[scope] for scope in scopes if scope in self.by_scope])
            if len(self._views) >= _VIEWS:
                self._views.clear()
            self._views[asked] = found
        return found


@lru_cache(maxsize=8)
def _sense_of(values: tuple[tuple[str, str], ...]) -> _Sense:
    """A warm process reads the same values every few seconds."""
    return _Sense(values)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All switch parameters, by their name below the switches' path, as one complete read gave them."""

    values: Mapping[str, str]
    read_at_ms: int
    _sense: _Sense = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_sense", _sense_of(tuple(self.values.items())))

    def said(self, flow: str, source: str, tenant: str) -> SwitchView:
        """What it says of that flow, source and tenant; worked out once for each, as every call asks."""
        return self._sense.said(flow, source, tenant)

    @staticmethod
    def complete(values: Mapping[str, str], read_at_ms: int) -> Snapshot | None:
        """A snapshot, or None if a parameter that must exist is missing: half a read is no read."""
        return Snapshot(dict(values), read_at_ms) if all(name in values for name in REQUIRED) else None


def scope_of(name: str) -> tuple[str, str]:
    """What a parameter's switch is for (`flow/support`; empty for everything), and the switch (`limits/helpdesk`)."""
    parts = name.split("/", 2)
    is_scoped = len(parts) > 2 and parts[0] in ("flow", "source", "tenant") and bool(parts[1])
    return (f"{parts[0]}/{parts[1]}", parts[2]) if is_scoped else ("", name)


def view(snapshot: Snapshot | None, *, flow: str, source: str, tenant: str, now_ms: int) -> SwitchView:
    """What is in force. The stricter of the general parameter and those under `flow/`, `source/` and `tenant/` applies.

    With no snapshot, or one older than ten minutes, every switch takes its value for "cannot be known"; lists and
    limits keep their last known one.
    """
    # A clock that was set back since the read says nothing of the snapshot's age: it counts as that far off.
    age_ms = None if snapshot is None else abs(now_ms - snapshot.read_at_ms)
    is_known = age_ms is not None and age_ms <= KNOWN_FOR_MS
    said = _NOTHING_SAID if snapshot is None else snapshot.said(flow, source, tenant)
    return SwitchView(
        mode=said.mode if is_known else Mode.ROUTE_ONLY,
        auto_reply=is_known and said.auto_reply,
        use_llm=is_known and said.use_llm,
        optional_calls=is_known and said.optional_calls,
        replay=is_known and said.replay,
        disabled=said.disabled,
        replay_blocked=said.replay_blocked,
        limits=said.limits,
        age_ms=age_ms,
    )


def _said(parts: Sequence[Mapping[str, str]]) -> SwitchView:
    """What the parameters of these scopes say together, as of when they were read."""

    def stated(name: str) -> list[str]:
        return [part[name] for part in parts if name in part]

    def is_on(name: str, on: str) -> bool:
        values_stated = stated(name)
        return bool(values_stated) and all(value.strip() == on for value in values_stated)

    return SwitchView(
        mode=_mode(stated("mode")),
        auto_reply=is_on("auto_reply", "on"),
        use_llm=is_on("classifier", "llm"),
        optional_calls=is_on("optional_calls", "on"),
        replay=is_on("replay", "on"),
        disabled=_lists(stated("disabled_integrations")),
        replay_blocked=_lists(stated("replay_blocked_integrations")),
        limits=_limits(parts),
        age_ms=0,
    )


def problem(name: str, value: str) -> str | None:
    """Why a value may not be written to the switch of that name (with or without a scope), or None if it may."""
    parts = scope_of(name)[1].split("/")
    if len(parts) == 2 and parts[0] == "limits" and parts[1]:
        return None if _factor(value) is not None else f"a limit is a number from 0 to 1; not {value!r}"
    base = "/".join(parts)
    if base in ("disabled_integrations", "replay_blocked_integrations"):
        return None if value.strip() else "write none, all, or integrations with commas between"
    allowed = _ALLOWED.get(base)
    if allowed is None:
        return (
            f"there is no switch {name!r}; there are {', '.join(REQUIRED)} and limits/INTEGRATION, "
            "each alone or under flow/NAME/, source/NAME/ or tenant/NAME/"
        )
    return None if value in allowed else f"{base} takes {', '.join(allowed)}; not {value!r}"


class UnfitSwitch(HoldfastError):
    """A switch that may not be set so. The text says why."""


def written(name: str, value: str, integrations: Mapping[str, Integration]) -> str:
    """The value as the parameter of that name takes it: what is understood, and names what is in the catalog; misspelt
    it would be obeyed and do nothing. Raises `UnfitSwitch`.
    """
    wrong = problem(name, value)
    if wrong is None and not all(NAME.match(part) for part in name.split("/")):
        # Each part is a name as tenants and sources have them.
        wrong = f"{name!r} cannot be a switch's name"
    if wrong is not None:
        raise UnfitSwitch(wrong)
    switch = scope_of(name)[1]
    if switch.startswith(_LIMITS):
        _require([switch.removeprefix(_LIMITS)], integrations)
    if switch in LISTS:
        value = _listed(switch, value, integrations)
    if re.fullmatch(pattern_of(name), value) is None:
        raise UnfitSwitch(f"{switch} is written otherwise: {pattern_of(name)}; not {value!r}")
    return value


def _listed(switch: str, value: str, integrations: Mapping[str, Integration]) -> str:
    words = [word.strip() for word in value.split(",") if word.strip()]
    if words in (["none"], ["all"]):
        return words[0]
    if not words or {"none", "all"} & set(words):
        raise UnfitSwitch("none and all stand alone; else name integrations, with commas between")
    # Whole events may be kept from replays; nothing is sent for them, so there is nothing of them to disable.
    is_replay = switch == "replay_blocked_integrations"
    _require(words, integrations, and_also=[INTAKE] if is_replay else [])
    for one in words:
        if is_replay and one in integrations and not integrations[one].kinds:
            raise UnfitSwitch(f"no action goes to {one!r}: nothing of it is ever replayed")
    return ",".join(words)


def _require(named: Iterable[str], integrations: Mapping[str, Integration], and_also: Sequence[str] = ()) -> None:
    known = (*integrations, *and_also)
    for name in named:
        if name not in known:
            raise UnfitSwitch(f"there is no integration {name!r}; there are {', '.join(known)}")


def everyday(name: str) -> str:
    """What a switch says while nothing is the matter; empty for what is no switch. Under a scope it is as if there were
    none.
    """
    switch = scope_of(name)[1]
    return "1" if switch.startswith(_LIMITS) else _EVERYDAY.get(switch, "")


def is_everyday(name: str, value: str) -> bool:
    """Whether it says what it says while nothing is the matter. A factor may be written in more than one way."""
    return everyday(name) in (value, _PLAIN.get(value, value))


_PLAIN = {"1.0": "1"}


def pattern_of(name: str) -> str:
    """By which the parameter store itself refuses a value that nobody could read. Raises KeyError for no switch."""
    switch = scope_of(name)[1]
    return _FACTOR if switch.startswith(_LIMITS) else _PATTERNS[switch]


LISTS = ("disabled_integrations", "replay_blocked_integrations")
_FACTOR = r"^(0|1|0\.[0-9]{1,4}|1\.0)$"
_ON_OFF = "^(on|off)$"
_LIST = "^(none|all|[a-z0-9_-]{1,64}(,[a-z0-9_-]{1,64})*)$"
_PATTERNS: Mapping[str, str] = {
    "mode": "^(live|route_only|shadow|manual|hold)$",
    "auto_reply": _ON_OFF,
    "classifier": "^(llm|rules)$",
    "optional_calls": _ON_OFF,
    "replay": _ON_OFF,
    **dict.fromkeys(LISTS, _LIST),
}
_EVERYDAY: Mapping[str, str] = {
    "mode": Mode.LIVE.value,
    "auto_reply": "on",
    "classifier": "llm",
    "optional_calls": "on",
    "replay": "on",
    **dict.fromkeys(LISTS, "none"),
}
_ALLOWED: Mapping[str, tuple[str, ...]] = {
    "mode": tuple(mode.value for mode in Mode),
    "auto_reply": ("on", "off"),
    "classifier": ("llm", "rules"),
    "optional_calls": ("on", "off"),
    "replay": ("on", "off"),
}


def _mode(stated: Sequence[str]) -> Mode:
    result = Mode.LIVE if stated else Mode.ROUTE_ONLY
    for value in stated:
        try:
            mode = Mode(value.strip())
        except ValueError:
            mode = Mode.ROUTE_ONLY
        result = stricter(result, mode)
    return result


def _lists(stated: Iterable[str]) -> Integrations:
    words = {word.strip() for value in stated for word in value.split(",")} - {"", "none"}
    return Integrations("all" in words, frozenset(words - {"all"})) if words else _NO_INTEGRATIONS


def _limits(parts: Iterable[Mapping[str, str]]) -> dict[str, float]:
    limits: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            if name.startswith(_LIMITS):
                factor = _factor(value)
                integration = name[len(_LIMITS) :]
                limits[integration] = min(limits.get(integration, 1.0), 1.0 if factor is None else factor)
    return limits


def _factor(value: str) -> float | None:
    try:
        factor = float(value)
    except ValueError:
        return None
    return factor if math.isfinite(factor) and 0 <= factor <= 1 else None


_NOTHING_SAID = _said([])
