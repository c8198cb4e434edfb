"""The one gate before every send (architecture §9): send, park, suppress, or let expire.

It is asked immediately before the first byte, on every path: first pass, retry, takeover, replay. It looks only at
what it is given; the shell that asks must have refreshed what has to be fresh.

Its rules are a table, `RULES`: `check` walks it, and `docs/states.md` is made from it.
"""

from __future__ import annotations

from collections.abc import Callable
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


# --------------------------------------------------------------------------------------------------------------- rules


class Asked(StrEnum):
    """Of which actions a rule asks."""

    EVERY = "every action"
    CUSTOMER_VISIBLE = "customer-visible"
    REPLAYED = "replayed"


class LookAgain(StrEnum):
    """When what was parked is looked at again."""

    AT_A_CHANGE = "when that changes"
    AT_ONCE = "at once"
    AT_THE_PAUSES_END = "at the pause's end"
    AT_ITS_SLOT = "at its slot"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of an action of which a rule holds: a verdict of that kind. The rest is of what is parked."""

    kind: type[Expire | Suppress | Park]
    verdict: Callable[[Action, GateView], Verdict]
    waiting_for: WaitingFor = WaitingFor.NOTHING
    again: LookAgain | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the gate: it asks of some actions whether it `holds`, and has the word if it does. `what` says to
    people when that is.
    """

    name: str
    asked: Asked
    what: str
    holds: Callable[[Action, GateView], bool]
    outcome: Outcome


def _never(verdict: Expire | Suppress) -> Outcome:
    return Outcome(type(verdict), lambda _action, _seen: verdict)


def _wait(waiting_for: WaitingFor, reason: Callable[[Action, GateView], str]) -> Outcome:
    """Without a time: whoever changes what stands in the way releases what waits."""

    def verdict(action: Action, seen: GateView) -> Park:
        return Park(waiting_for, reason(action, seen))

    return Outcome(Park, verdict, waiting_for, LookAgain.AT_A_CHANGE)


def _leave(waiting_for: WaitingFor, reason: str) -> Outcome:
    """To the recovery table, which comes back to it as soon as it can."""

    def verdict(_action: Action, seen: GateView) -> Park:
        return Park(waiting_for, reason, seen.now_ms)

    return Outcome(Park, verdict, waiting_for, LookAgain.AT_ONCE)


def _until_the_pause_is_over(action: Action, seen: GateView) -> Park:
    return Park(WaitingFor.PROVIDER_RESET, f"{action.integration} asked for a pause", seen.integration.paused_until_ms)


def _until_its_slot(action: Action, seen: GateView) -> Park:
    slot = seen.slot
    reason = f"{action.integration} is at its rate"
    return Park(WaitingFor.LIMITER, reason, slot.at_ms, slot.at_ms if slot.is_owned else 0)


def _by_mode(_action: Action, seen: GateView) -> Suppress:
    decided, present = seen.decision_mode, seen.switches.mode
    return Suppress(f"mode is {present if decided in _ANSWERED else stricter(decided, present)}")


# Names of this module are found faster than members of a class, and the gate is asked often.
_LIVE, _SHADOW, _HOLD = Mode.LIVE, Mode.SHADOW, Mode.HOLD
_ANSWERED = (_LIVE, _HOLD)  # modes in which what was decided may be sent to a customer, if the present one allows it
_DOWN = Health.HARD_DOWN


RULES: tuple[Rule, ...] = (
    Rule(
        "expired",
        Asked.EVERY,
        "it is past its expiry",
        lambda _, seen: seen.now_ms >= seen.expires_at_ms,
        _never(Expire("it was to happen earlier or not at all")),
    ),
    Rule(
        "decided in shadow",
        Asked.EVERY,
        "it was decided in mode `shadow`",
        lambda _, seen: seen.decision_mode is _SHADOW,
        _never(Suppress("it was decided in shadow mode")),
    ),
    Rule(
        "opted out",
        Asked.CUSTOMER_VISIBLE,
        "the recipient opted out, or their contact is known to be wrong",
        lambda _, seen: seen.standing is Standing.SUPPRESSED,
        _never(Suppress("the recipient asked not to be contacted")),
    ),
    Rule(
        "no consent",
        Asked.CUSTOMER_VISIBLE,
        "the recipient has not consented",
        lambda _, seen: seen.standing is Standing.NO_CONSENT,
        _never(Suppress("the recipient has not consented")),
    ),
    Rule(
        "standing unknown",
        Asked.CUSTOMER_VISIBLE,
        "the recipient's record cannot be read",
        lambda _, seen: seen.standing is Standing.UNKNOWN,
        _leave(WaitingFor.SWITCH, "the recipient's standing could not be read"),
    ),
    # Suppression is final, so it needs a snapshot to be trusted; without one the send parks (6 s + 8 s < 15 s).
    Rule(
        "switches unknown",
        Asked.CUSTOMER_VISIBLE,
        "the switches were never read, or over 6 s ago",
        lambda _, seen: (age_ms := seen.switches.age_ms) is None or age_ms > USABLE_FOR_MS,
        _leave(WaitingFor.SWITCH, "the switches could not be read"),
    ),
    Rule(
        "auto_reply off",
        Asked.CUSTOMER_VISIBLE,
        "`auto_reply` is `off`",
        lambda _, seen: not seen.switches.auto_reply,
        _never(Suppress("auto_reply is off")),
    ),
    Rule(  # hold lets everything wait, so that what it releases is asked about again
        "mode not live",
        Asked.CUSTOMER_VISIBLE,
        "`mode` is neither `live` nor `hold`; or it is `live`, and the decision's was neither",
        lambda _, seen: (
            (mode := seen.switches.mode) is not _HOLD and (mode is not _LIVE or seen.decision_mode not in _ANSWERED)
        ),
        Outcome(Suppress, _by_mode),
    ),
    Rule(
        "hold",
        Asked.EVERY,
        "`mode` is `hold` or `shadow`",
        lambda _, seen: (mode := seen.switches.mode) is _HOLD or mode is _SHADOW,
        _wait(WaitingFor.SWITCH, lambda _, seen: f"mode is {seen.switches.mode}"),
    ),
    Rule(
        "disabled",
        Asked.EVERY,
        "its integration is among `disabled_integrations`",
        lambda action, seen: (off := seen.switches.disabled).every or action.integration in off.some,
        _wait(WaitingFor.SWITCH, lambda action, _: f"{action.integration} is disabled"),
    ),
    Rule(
        "limit 0",
        Asked.EVERY,
        "`limits/{integration}` is 0",
        lambda action, seen: seen.switches.limits.get(action.integration) == 0,
        _wait(WaitingFor.LIMITER, lambda action, _: f"limits/{action.integration} is 0"),
    ),
    Rule(
        "replay off",
        Asked.REPLAYED,
        "`replay` is `off`",
        lambda _, seen: not seen.switches.replay,
        _wait(WaitingFor.SWITCH, lambda _action, _seen: "replay is off"),
    ),
    Rule(
        "replay blocked",
        Asked.REPLAYED,
        "its integration is among `replay_blocked_integrations`",
        lambda action, seen: (off := seen.switches.replay_blocked).every or action.integration in off.some,
        _wait(WaitingFor.SWITCH, lambda action, _: f"replay is blocked for {action.integration}"),
    ),
    Rule(  # before anything that lets single calls through to an integration that is down: it is never among them
        "not while down",
        Asked.EVERY,
        "its integration is down, and by the fallback matrix its kind does not run then",
        lambda _, seen: seen.is_held_while_down and seen.integration.health_at(seen.now_ms) is _DOWN,
        _wait(
            WaitingFor.HEALTH,
            lambda action, _: f"{action.integration} is down: {action.kind} does not run until it is back",
        ),
    ),
    Rule(
        "held down",
        Asked.EVERY,
        "an operator holds its integration down",
        lambda _, seen: (state := seen.integration).override is _DOWN and state.is_forced_at(seen.now_ms),
        _wait(WaitingFor.HEALTH, lambda action, _: f"{action.integration} is held down by an operator"),
    ),
    Rule(
        "down",
        Asked.EVERY,
        "its integration is down, and this call is not the one that finds out whether it is back",
        lambda _, seen: not seen.is_probe and seen.integration.health_at(seen.now_ms) is _DOWN,
        _wait(WaitingFor.HEALTH, lambda action, _: f"{action.integration} is down"),
    ),
    Rule(
        "paused",
        Asked.EVERY,
        "the pause that its provider asked for is not over",
        lambda _, seen: seen.integration.paused_until_ms > seen.now_ms,
        Outcome(Park, _until_the_pause_is_over, WaitingFor.PROVIDER_RESET, LookAgain.AT_THE_PAUSES_END),
    ),
    Rule(
        "lease too short",
        Asked.EVERY,
        "the call might end after the lease under which it is made",
        lambda _, seen: seen.call_ends_at_ms > seen.lease_until_ms,
        _leave(WaitingFor.TIME, "the call might outlast the lease"),
    ),
    Rule(  # last, so that nothing is reserved for what would not be sent anyway
        "at its rate",
        Asked.EVERY,
        "the limiter's slot for the call is yet to come",
        lambda _, seen: seen.slot.at_ms > seen.now_ms,
        Outcome(Park, _until_its_slot, WaitingFor.LIMITER, LookAgain.AT_ITS_SLOT),
    ),
)
"""In the order in which they are asked. The first that holds has the word; where none does, the action is sent."""

_Walk = tuple[tuple[Callable[[Action, GateView], bool], Callable[[Action, GateView], Verdict]], ...]


def _walk(*, customer_visible: bool, is_replay: bool) -> _Walk:
    """The rules that ask of such actions."""
    asked = {Asked.EVERY: True, Asked.CUSTOMER_VISIBLE: customer_visible, Asked.REPLAYED: is_replay}
    return tuple((rule.holds, rule.outcome.verdict) for rule in RULES if asked[rule.asked])


# By whether they are customer-visible, and by whether they are replayed.
_WALKS = tuple(
    tuple(_walk(customer_visible=customer_visible, is_replay=is_replay) for is_replay in (False, True))
    for customer_visible in (False, True)
)
_SEND = Send()


def check(action: Action, seen: GateView) -> Verdict:
    """May this action be sent now?"""
    for holds, verdict in _WALKS[action.customer_visible][seen.is_replay]:
        if holds(action, seen):
            return verdict(action, seen)
    return _SEND
