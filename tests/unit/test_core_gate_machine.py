"""The gate under every order of switches, outages, pauses, opt-outs and waits: it sends only what nothing stands in the
way of, says truly what an action waits for, and comes to an end with whoever removes just that (002.14, 002.21, 003.17,
003.20, 004.20, 000.15).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from functions.core.decision import Action, Mode, Repeat
from functions.core.gate import (
    RULES,
    Expire,
    GateView,
    Health,
    IntegrationState,
    Park,
    Send,
    Standing,
    Suppress,
    WaitingFor,
    check,
)
from functions.core.limiter import AT_ONCE, Slot
from functions.core.switches import REQUIRED, Snapshot, view
from tests.unit.builders import HOUR, MINUTE, NOON_MS, SECOND, action

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

DESK = "helpdesk"
CALL_MS, LEASE_MS = 8 * SECOND, 65 * SECOND
LIVE = {
    "mode": "live",
    "auto_reply": "on",
    "classifier": "llm",
    "optional_calls": "on",
    "replay": "on",
    "disabled_integrations": "none",
    "replay_blocked_integrations": "none",
}
FROM_LIVE = [
    ("auto_reply", "off"),
    ("replay", "off"),
    ("disabled_integrations", DESK),
    ("disabled_integrations", "sms,all"),
    ("disabled_integrations", "sms"),
    ("replay_blocked_integrations", DESK),
    ("replay_blocked_integrations", "sms"),
    (f"limits/{DESK}", "0"),
    (f"limits/{DESK}", "0.5"),
    (f"tenant/acme/limits/{DESK}", "0"),
    ("flow/support/mode", "hold"),
    ("tenant/other/mode", "hold"),
]


@dataclass
class World:
    """Everything that can stand in an action's way, as those who put it there know it."""

    now_ms: int = NOON_MS
    switches: dict[str, str] = field(default_factory=lambda: dict(LIVE))
    read: Snapshot | None = None
    health: Health = Health.HEALTHY
    override: Health | None = None
    override_until_ms: int = 0
    paused_until_ms: int = 0
    standing: Standing = Standing.ALLOWED
    slot: Slot = AT_ONCE
    lease_left_ms: int = LEASE_MS  # whoever asks has claimed it for so long

    @property
    def holds_override(self) -> bool:
        return self.override is not None and self.now_ms < self.override_until_ms

    @property
    def is_down(self) -> bool:
        return (self.override if self.holds_override else self.health) is Health.HARD_DOWN

    def read_switches(self) -> None:
        self.read = Snapshot.complete(self.switches, self.now_ms)
        assert self.read is not None


class Sending(RuleBasedStateMachine):
    """One action, from its decision on, and the world around it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(
        customer_visible=st.booleans(),
        is_replay=st.booleans(),
        is_held_while_down=st.booleans(),
        is_probe=st.booleans(),
        decided=st.sampled_from([Mode.LIVE, Mode.LIVE, *Mode]),
        lifetime_ms=st.sampled_from([15 * MINUTE, 24 * 7 * HOUR]),
        is_read=st.booleans(),
    )
    def begin(
        self,
        customer_visible: bool,
        is_replay: bool,
        is_held_while_down: bool,
        is_probe: bool,
        decided: Mode,
        lifetime_ms: int,
        is_read: bool,
    ) -> None:
        self.action: Action = action(Repeat.LOOKUP, customer_visible=customer_visible, recipient="w1")
        self.is_replay, self.is_held_while_down, self.is_probe = is_replay, is_held_while_down, is_probe
        self.decided = decided
        self.expires_at_ms = NOON_MS + lifetime_ms
        if is_read:
            self.world.read_switches()

    # ------------------------------------------------------------------------------------------------------ the world

    @rule(milliseconds=st.sampled_from([1, SECOND, 6 * SECOND, 7 * SECOND, MINUTE, 11 * MINUTE]))
    def time_passes(self, milliseconds: int) -> None:
        self.world.now_ms += milliseconds

    @rule(milliseconds=st.integers(-1, 1), is_read=st.booleans())
    def its_expiry_is_near(self, milliseconds: int, is_read: bool) -> None:
        self.world.now_ms = max(self.world.now_ms, self.expires_at_ms + milliseconds)
        if is_read:
            self.world.read_switches()

    @rule()
    def all_is_well(self) -> None:
        """Else so much would stand in the way that one thing less would make no difference."""
        self.world = World(self.world.now_ms)
        self.world.read_switches()

    @rule(mode=st.sampled_from(Mode))
    def an_operator_sets_the_mode(self, mode: Mode) -> None:
        self.world.switches["mode"] = mode.value
        self.world.read_switches()

    @rule(change=st.sampled_from(FROM_LIVE), is_read=st.sampled_from([True, True, False]))
    def an_operator_changes_a_switch(self, change: tuple[str, str], is_read: bool) -> None:
        self.world.switches[change[0]] = change[1]
        if is_read:
            self.world.read_switches()

    @rule(name=st.sampled_from([name for name, _ in FROM_LIVE]))
    def an_operator_puts_a_switch_back(self, name: str) -> None:
        self.world.switches.pop(name, None)
        self.world.switches |= {required: LIVE[required] for required in REQUIRED if required == name}
        self.world.read_switches()

    @rule()
    def the_switches_are_read(self) -> None:
        self.world.read_switches()

    @rule(health=st.sampled_from(Health))
    def the_integration_is_judged(self, health: Health) -> None:
        self.world.health = health

    @rule(health=st.sampled_from(Health), minutes=st.sampled_from([1, 60]))
    def an_operator_forces_a_health(self, health: Health, minutes: int) -> None:
        self.world.override, self.world.override_until_ms = health, self.world.now_ms + minutes * MINUTE

    @rule(wait_ms=st.sampled_from([SECOND, 10 * MINUTE]))
    def the_provider_asks_for_a_pause(self, wait_ms: int) -> None:
        self.world.paused_until_ms = max(self.world.paused_until_ms, self.world.now_ms + wait_ms)

    @rule(standing=st.sampled_from([Standing.ALLOWED, *Standing]))
    def the_recipient_decides(self, standing: Standing) -> None:
        self.world.standing = standing

    @rule(wait_ms=st.sampled_from([-MINUTE, 0, 1, MINUTE]), is_owned=st.booleans())
    def the_limiter_gives_a_slot(self, wait_ms: int, is_owned: bool) -> None:
        self.world.slot = Slot(self.world.now_ms + wait_ms, is_owned)

    @rule(left_ms=st.sampled_from([LEASE_MS, CALL_MS, CALL_MS - 1]))
    def its_lease_is_as_long_as_this(self, left_ms: int) -> None:
        self.world.lease_left_ms = left_ms

    # --------------------------------------------------------------------------------------------------------- asking

    def seen(self) -> GateView:
        world = self.world
        return GateView(
            now_ms=world.now_ms,
            decision_mode=self.decided,
            switches=view(world.read, flow="support", source="shop", tenant="acme", now_ms=world.now_ms),
            integration=IntegrationState(
                DESK,
                world.health,
                world.paused_until_ms,
                override=world.override,
                override_until_ms=world.override_until_ms,
            ),
            standing=world.standing,
            expires_at_ms=self.expires_at_ms,
            call_ends_at_ms=world.now_ms + CALL_MS,
            lease_until_ms=world.now_ms + world.lease_left_ms,
            is_replay=self.is_replay,
            is_probe=self.is_probe,
            is_held_while_down=self.is_held_while_down,
            slot=world.slot,
        )

    def ask(self) -> Send | Park | Suppress | Expire:
        return check(self.action, self.seen())

    def stands_in_the_way(self) -> bool:
        """Whether anything does, by what has been read of the switches: told from the world, not from the rules."""
        world = self.world
        read = {} if world.read is None else world.read.values
        is_known = world.read is not None and world.now_ms - world.read.read_at_ms <= 10 * MINUTE
        modes = {read.get("mode"), read.get("flow/support/mode")} if is_known else {"route_only"}
        limits = [read.get(f"{scope}limits/{DESK}", "1") for scope in ("", "tenant/acme/")]
        reasons = [
            world.now_ms >= self.expires_at_ms,
            self.decided is Mode.SHADOW,
            bool(modes & {"hold", "shadow"}),
            read.get("disabled_integrations") in (DESK, "sms,all"),
            "0" in limits,
            world.is_down and self.is_held_while_down,
            world.is_down and not self.is_probe,
            world.is_down and world.holds_override,
            world.now_ms < world.paused_until_ms,
            world.lease_left_ms < CALL_MS,
            world.now_ms < world.slot.at_ms,
        ]
        if self.is_replay:
            reasons += [not is_known, read.get("replay") == "off", read.get("replay_blocked_integrations") == DESK]
        if self.action.customer_visible:
            reasons += [
                world.standing is not Standing.ALLOWED,
                world.read is None or world.now_ms - world.read.read_at_ms > 6 * SECOND,
                read.get("auto_reply") == "off",
                bool(modes & {"route_only", "manual"}),
                self.decided in (Mode.ROUTE_ONLY, Mode.MANUAL),
            ]
        return any(reasons)

    @invariant()
    def it_is_sent_if_and_only_if_nothing_stands_in_the_way(self) -> None:
        if hasattr(self, "action"):
            verdict = self.ask()
            assert (verdict == Send()) is not self.stands_in_the_way()
            assert verdict == self.ask(), "asked again in the same moment, it says the same"

    @invariant()
    def what_has_expired_stays_so(self) -> None:
        if hasattr(self, "action"):
            assert isinstance(self.ask(), Expire) is (self.world.now_ms >= self.expires_at_ms)

    @precondition(lambda self: isinstance(self.ask(), Park))
    @rule()
    def what_it_waits_for_comes(self) -> None:
        """Each time just that, and nothing else: no more often than there are rules, then it is sent or never sent."""
        told: list[Park] = []
        while isinstance(verdict := self.ask(), Park):
            assert verdict.reason not in [one.reason for one in told], "what was removed is not in the way again"
            told.append(verdict)
            assert len(told) <= len(RULES)
            self.remove(verdict)
        assert (verdict == Send()) is not self.stands_in_the_way()

    def remove(self, held: Park) -> None:
        world = self.world
        if held.slot_ms:
            assert held.waiting_for is WaitingFor.LIMITER
            assert held.slot_ms == held.until_ms
        if held.until_ms is not None and held.until_ms > world.now_ms:
            assert held.waiting_for in (WaitingFor.LIMITER, WaitingFor.PROVIDER_RESET), "these two have an end"
            world.now_ms = held.until_ms
            if world.read is not None:
                world.read_switches()
            return
        match held.waiting_for:
            case WaitingFor.SWITCH if held.until_ms is not None:  # nobody changed anything: it is read again
                world.standing = Standing.ALLOWED if world.standing is Standing.UNKNOWN else world.standing
                world.read_switches()
            case WaitingFor.SWITCH:
                changed = {"mode", "disabled_integrations", "replay", "replay_blocked_integrations"}
                world.switches |= {name: LIVE[name] for name in changed}
                world.switches.pop("flow/support/mode", None)
                world.read_switches()
            case WaitingFor.LIMITER:
                world.switches = {name: value for name, value in world.switches.items() if "limits/" not in name}
                world.read_switches()
            case WaitingFor.HEALTH:
                world.health, world.override = Health.DEGRADED, None
            case WaitingFor.TIME:
                world.lease_left_ms = LEASE_MS
            case other:
                raise AssertionError(f"nobody knows how to bring about {other}")

    @precondition(lambda self: isinstance(self.ask(), Suppress))
    @rule()
    def no_wait_helps_what_is_suppressed(self) -> None:
        """It is in nobody's hands but of those who suppressed it."""
        seen = self.seen()
        ready = replace(
            seen,
            integration=IntegrationState(DESK),
            slot=AT_ONCE,
            lease_until_ms=seen.now_ms + LEASE_MS,
            is_replay=False,
        )
        assert check(self.action, ready) == self.ask()


TestSending = Sending.TestCase
TestSending.settings = settings(max_examples=300, stateful_step_count=25)
