"""How an integration is and what comes next, as people are told (architecture §8, §11). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from functions.core.gate import Health, IntegrationState
from functions.core.health import release_share
from functions.core.switches import scope_of

MOST_COUNTED = 1_000
"""Items of an integration in one status that are counted; more are told as that many."""

_LISTS = ("disabled_integrations", "replay_blocked_integrations")


@dataclass(frozen=True, slots=True)
class Outlook:
    """What holds now, and what comes next. Times are epoch milliseconds, 0 where there is none.

    `resumes_at_ms` is known where somebody stated it: an operator or the provider. While the machine itself waits for
    probes, `next_probe_at_ms` says when it asks again. `released` is how much of what waited may go, 0 to 1.
    """

    health: Health
    is_forced: bool
    paused_until_ms: int
    resumes_at_ms: int
    next_probe_at_ms: int
    probes_succeeded: int
    released: float


def outlook(state: IntegrationState, now_ms: int, scale: float) -> Outlook:
    """Of the integration whose state that is."""
    is_forced = state.is_forced_at(now_ms)
    health = state.health_at(now_ms)
    is_down = health is Health.HARD_DOWN
    paused_until_ms = state.paused_until_ms if state.paused_until_ms > now_ms else 0
    is_probed = is_down and not is_forced
    return Outlook(
        health=health,
        is_forced=is_forced,
        paused_until_ms=paused_until_ms,
        resumes_at_ms=max(paused_until_ms, state.override_until_ms if is_down and is_forced else 0),
        next_probe_at_ms=max(state.probe_at_ms, now_ms) if is_probed else 0,
        probes_succeeded=state.probe_ok if is_probed else 0,
        released=0.0 if is_down else release_share(state, now_ms, scale),
    )


def held_by(values: Mapping[str, str], integration: str) -> dict[str, str]:
    """The switches that hold or slow the integration, narrower ones by their whole name. `values` are all of them."""
    return {name: value for name, value in values.items() if _holds(scope_of(name)[1], value, integration)}


def _holds(switch: str, value: str, integration: str) -> bool:
    if switch in _LISTS:
        return bool({"all", integration} & {word.strip() for word in value.split(",")})
    if switch == f"limits/{integration}":
        return value not in ("1", "1.0")
    if switch == "mode":
        return value != "live"
    return switch in ("auto_reply", "replay") and value != "on"
