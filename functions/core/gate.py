"""The one gate before every send (architecture §9): send, park, suppress, or let expire.

It is asked immediately before the first byte, on every path: first pass, retry, takeover, replay. It looks only at
what it is given; the shell that asks must have refreshed what has to be fresh.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from functions.core.decision import Action, Mode, stricter
from functions.core.limiter import AT_ONCE, Slot
from functions.core.switches import USABLE_FOR_MS, SwitchView


class WaitingFor(StrEnum):
    """What an open row waits for."""

    NOTHING = ""
    BACKOFF = "backoff"
    LIMITER = "limiter"
    HEALTH = "health"
    SWITCH = "switch"
    PROVIDER_RESET = "provider_reset"
    CREDENTIAL = "credential"
    PARENT = "parent"
    TIME = "time"


class Health(StrEnum):
    """The state of an integration."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    HARD_DOWN = "hard_down"


class Standing(StrEnum):
    """Whether a person may be contacted."""

    ALLOWED = "allowed"
    SUPPRESSED = "suppressed"
    NO_CONSENT = "no_consent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Send:
    """Go ahead."""


@dataclass(frozen=True, slots=True)
class Park:
    """Not now. `until_ms` is when to look again, None where a change releases it.

    `slot_ms`: from then on it may be sent without asking the limiter again; 0 where nothing is reserved.
    """

    waiting_for: WaitingFor
    reason: str
    until_ms: int | None = None
    slot_ms: int = 0


@dataclass(frozen=True, slots=True)
class Suppress:
    """Never by itself: a person may replay it while it has not expired."""

    reason: str


@dataclass(frozen=True, slots=True)
class Expire:
    """Too late: what was asked for then may be wrong now."""

    reason: str


Verdict = Send | Park | Suppress | Expire


@dataclass(frozen=True, slots=True)
class IntegrationState:
    """What the control item of an integration says. An absent item is a healthy integration without a pause.

    `health` is the machine's word since `since_ms`. An operator's `override` lies over it until `override_until_ms`.
    While it is `hard_down` one call at a time, from `probe_at_ms` on, may find out whether the integration is back;
    `probe_ok` of them in a row have succeeded. What waited is released little by little from `ramp_from_ms` on.
    `tat_ms` is the limiter's number (`functions.core.limiter`), `busy_from_ms` when it was over the last time.
    """

    integration: str
    health: Health = Health.HEALTHY
    paused_until_ms: int = 0
    since_ms: int = 0
    reason: str = ""
    override: Health | None = None
    override_until_ms: int = 0
    probe_at_ms: int = 0
    probe_ok: int = 0
    ramp_from_ms: int = 0
    tat_ms: int = 0
    busy_from_ms: int = 0

    def is_forced_at(self, now_ms: int) -> bool:
        """Whether an operator's word holds then. It ends by the clock, whether or not anybody has tidied it up."""
        return self.override is not None and now_ms < self.override_until_ms

    def health_at(self, now_ms: int) -> Health:
        """The health that holds then."""
        return self.override if self.override is not None and now_ms < self.override_until_ms else self.health

    def may_be_probed(self, now_ms: int) -> bool:
        """Whether the machine wants to know if it is back, and nobody is finding out. What a person closed, only a
        person opens.
        """
        return self.health is Health.HARD_DOWN and not self.is_forced_at(now_ms) and self.probe_at_ms <= now_ms

    def released_at(self, now_ms: int) -> int:
        """Since when what waited may go again, after the last outage or override that held it; 0 if there was none."""
        was_closed = self.override is Health.HARD_DOWN and self.override_until_ms <= now_ms
        return max(self.ramp_from_ms, self.override_until_ms) if was_closed else self.ramp_from_ms


@dataclass(frozen=True, slots=True)
class GateView:
    """Everything the gate looks at. `call_ends_at_ms` is the latest moment the call can end; `lease_until_ms` ends our
    right to it. `is_probe`: the call is to find out whether the integration is back; it passes every other check.
    `is_held_while_down`: the fallback matrix keeps actions of that kind from running while their integration is down,
    whatever else would let them through.
    `slot` is the limiter's for this call.
    """

    now_ms: int
    decision_mode: Mode
    switches: SwitchView
    integration: IntegrationState
    standing: Standing
    expires_at_ms: int
    call_ends_at_ms: int
    lease_until_ms: int
    is_replay: bool = False
    is_probe: bool = False
    is_held_while_down: bool = False
    slot: Slot = AT_ONCE


def check(action: Action, seen: GateView) -> Verdict:
    """May this action be sent now?"""
    if seen.now_ms >= seen.expires_at_ms:
        return Expire("it was to happen earlier or not at all")
    if seen.decision_mode is Mode.SHADOW:
        return Suppress("it was decided in shadow mode")
    if action.customer_visible:
        held_back = _customer_visible(seen)
        if held_back is not None:
            return held_back
    held_back = _switched_off(action, seen) or _held_while_down(action, seen) or _integration(action, seen)
    if held_back is not None:
        return held_back
    if seen.call_ends_at_ms > seen.lease_until_ms:
        return Park(WaitingFor.TIME, "the call might outlast the lease", seen.now_ms)
    return _limited(action, seen) or Send()


def _customer_visible(seen: GateView) -> Verdict | None:
    """Suppression is final, so it needs a snapshot to be trusted; without one the send parks (6 s + 8 s < 15 s)."""
    if seen.standing is Standing.SUPPRESSED:
        return Suppress("the recipient asked not to be contacted")
    if seen.standing is Standing.NO_CONSENT:
        return Suppress("the recipient has not consented")
    if seen.standing is Standing.UNKNOWN:
        return Park(WaitingFor.SWITCH, "the recipient's standing could not be read", seen.now_ms)
    if seen.switches.age_ms is None or seen.switches.age_ms > USABLE_FOR_MS:
        return Park(WaitingFor.SWITCH, "the switches could not be read", seen.now_ms)
    if not seen.switches.auto_reply:
        return Suppress("auto_reply is off")
    mode = stricter(seen.decision_mode, seen.switches.mode)
    if mode not in (Mode.LIVE, Mode.HOLD):  # hold lets everything wait, so that what it releases is asked about again
        return Suppress(f"mode is {mode}")
    return None


def _switched_off(action: Action, seen: GateView) -> Park | None:
    if seen.switches.mode in (Mode.HOLD, Mode.SHADOW):
        return Park(WaitingFor.SWITCH, f"mode is {seen.switches.mode}")
    if action.integration in seen.switches.disabled:
        return Park(WaitingFor.SWITCH, f"{action.integration} is disabled")
    if seen.switches.limit(action.integration) == 0:
        return Park(WaitingFor.LIMITER, f"limits/{action.integration} is 0")
    if seen.is_replay and not seen.switches.replay:
        return Park(WaitingFor.SWITCH, "replay is off")
    if seen.is_replay and action.integration in seen.switches.replay_blocked:
        return Park(WaitingFor.SWITCH, f"replay is blocked for {action.integration}")
    return None


def _held_while_down(action: Action, seen: GateView) -> Park | None:
    """Before anything that lets single calls through to an integration that is down: these are never among them."""
    if seen.is_held_while_down and seen.integration.health_at(seen.now_ms) is Health.HARD_DOWN:
        return Park(WaitingFor.HEALTH, f"{action.integration} is down: {action.kind} does not run until it is back")
    return None


def _integration(action: Action, seen: GateView) -> Park | None:
    state = seen.integration
    if state.health_at(seen.now_ms) is Health.HARD_DOWN:
        if state.is_forced_at(seen.now_ms):  # without a time: whoever lifts it earlier releases what waits
            return Park(WaitingFor.HEALTH, f"{action.integration} is held down by an operator")
        if not seen.is_probe:
            return Park(WaitingFor.HEALTH, f"{action.integration} is down")
    if seen.integration.paused_until_ms > seen.now_ms:
        return Park(
            WaitingFor.PROVIDER_RESET, f"{action.integration} asked for a pause", seen.integration.paused_until_ms
        )
    return None


def _limited(action: Action, seen: GateView) -> Park | None:
    """Last, so that nothing is reserved for what would not be sent anyway."""
    slot = seen.slot
    if slot.at_ms <= seen.now_ms:
        return None
    reason = f"{action.integration} is at its rate"
    return Park(WaitingFor.LIMITER, reason, slot.at_ms, slot.at_ms if slot.is_owned else 0)
