"""The one gate before every send (architecture §9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.core.decision import Action, Mode, Repeat
from functions.core.gate import (
    RULES,
    Asked,
    Expire,
    GateView,
    Health,
    IntegrationState,
    LookAgain,
    Park,
    Rule,
    Send,
    Standing,
    Suppress,
    WaitingFor,
    check,
)
from functions.core.limiter import Slot
from functions.core.switches import KNOWN_FOR_MS, USABLE_FOR_MS, Integrations, SwitchView, view
from tests.unit.builders import NOON_MS, SECOND, action

NOTHING = Integrations()
LIVE = SwitchView(
    mode=Mode.LIVE,
    auto_reply=True,
    use_llm=True,
    optional_calls=True,
    replay=True,
    disabled=NOTHING,
    replay_blocked=NOTHING,
    limits={},
    age_ms=0,
)
OPEN = GateView(
    now_ms=NOON_MS,
    decision_mode=Mode.LIVE,
    switches=LIVE,
    integration=IntegrationState("helpdesk"),
    standing=Standing.ALLOWED,
    expires_at_ms=NOON_MS + 900 * SECOND,
    call_ends_at_ms=NOON_MS + 8 * SECOND,
    lease_until_ms=NOON_MS + 60 * SECOND,
)
TAG = action(Repeat.IDEMPOTENT)
REPLY = action(Repeat.LOOKUP, customer_visible=True, recipient="w1")


def switched(seen: GateView = OPEN, **fields: object) -> GateView:
    """The view with other switches."""
    return replace(seen, switches=replace(seen.switches, **fields))  # type: ignore[arg-type]  # fields of SwitchView


@pytest.mark.parametrize("what", [TAG, REPLY])
def test_what_nothing_speaks_against_is_sent(what: Action) -> None:
    assert check(what, OPEN) == Send()


def test_what_is_past_its_expiry_is_never_sent_whatever_else_holds() -> None:
    late = replace(OPEN, now_ms=OPEN.expires_at_ms)
    assert isinstance(check(TAG, late), Expire)
    assert isinstance(check(REPLY, replace(late, standing=Standing.SUPPRESSED)), Expire)
    assert isinstance(check(TAG, replace(OPEN, now_ms=OPEN.expires_at_ms - 1, lease_until_ms=NOON_MS * 2)), Send)


@pytest.mark.parametrize("standing", [Standing.SUPPRESSED, Standing.NO_CONSENT])
def test_a_recipient_who_may_not_be_contacted_is_not_even_by_a_replay_with_unreadable_switches_003_20(
    standing: Standing,
) -> None:
    seen = switched(replace(OPEN, standing=standing, is_replay=True), age_ms=None, mode=Mode.HOLD)
    assert isinstance(check(REPLY, seen), Suppress)


def test_a_recipient_whose_standing_cannot_be_read_waits_003_20() -> None:
    held = check(REPLY, replace(OPEN, standing=Standing.UNKNOWN))
    assert isinstance(held, Park)
    assert held.until_ms == NOON_MS


def test_what_no_customer_sees_needs_no_standing() -> None:
    assert check(TAG, replace(OPEN, standing=Standing.SUPPRESSED)) == Send()


@pytest.mark.parametrize("age_ms", [None, USABLE_FOR_MS + 1, KNOWN_FOR_MS + 1])
def test_a_reply_waits_where_the_switches_cannot_be_known(age_ms: int | None) -> None:
    held = check(REPLY, switched(age_ms=age_ms, auto_reply=False))
    assert isinstance(held, Park)
    assert held.waiting_for is WaitingFor.SWITCH


def test_a_reply_is_sent_on_switches_six_seconds_old() -> None:
    assert check(REPLY, switched(age_ms=USABLE_FOR_MS)) == Send()


def test_the_kill_switch_suppresses_a_reply_and_leaves_the_rest_002_14() -> None:
    assert isinstance(check(REPLY, switched(auto_reply=False)), Suppress)
    assert check(TAG, switched(auto_reply=False)) == Send()


@pytest.mark.parametrize("mode", [Mode.ROUTE_ONLY, Mode.MANUAL, Mode.SHADOW])
def test_no_reply_leaves_unless_the_mode_is_live_002_23(mode: Mode) -> None:
    assert isinstance(check(REPLY, switched(mode=mode)), Suppress)


@pytest.mark.parametrize("mode", [Mode.ROUTE_ONLY, Mode.MANUAL])
def test_the_decisions_mode_counts_as_well_as_the_present_one(mode: Mode) -> None:
    assert isinstance(check(REPLY, replace(OPEN, decision_mode=mode)), Suppress)
    assert check(TAG, replace(OPEN, decision_mode=mode)) == Send()
    assert check(TAG, switched(mode=mode)) == Send()


@pytest.mark.parametrize("mode", [Mode.ROUTE_ONLY, Mode.MANUAL, Mode.SHADOW])
def test_no_mode_of_the_decision_makes_the_present_one_allow_a_reply_002_23(mode: Mode) -> None:
    """Not even `hold`, which is the strictest, and lets what it releases be asked about by the present mode alone."""
    held = replace(OPEN, decision_mode=Mode.HOLD)
    assert check(REPLY, held) == Send()
    assert check(REPLY, switched(held, mode=mode)) == Suppress(f"mode is {mode}")
    assert check(REPLY, switched(replace(OPEN, decision_mode=Mode.MANUAL), mode=mode)) == Suppress(
        f"mode is {'shadow' if mode is Mode.SHADOW else 'manual'}"
    )


@pytest.mark.parametrize("what", [TAG, REPLY])
def test_what_was_decided_in_shadow_mode_is_never_sent_002_30(what: Action) -> None:
    assert isinstance(check(what, replace(OPEN, decision_mode=Mode.SHADOW)), Suppress)


def test_hold_lets_everything_wait_without_an_end() -> None:
    for what in (TAG, REPLY):
        assert check(what, switched(mode=Mode.HOLD)) == Park(WaitingFor.SWITCH, "mode is hold")


def test_shadow_lets_what_was_decided_before_wait() -> None:
    assert check(TAG, switched(mode=Mode.SHADOW)) == Park(WaitingFor.SWITCH, "mode is shadow")


@pytest.mark.parametrize("disabled", [Integrations(every=True), Integrations(some=frozenset({"helpdesk"}))])
def test_actions_of_a_disabled_integration_are_parked(disabled: Integrations) -> None:
    held = check(TAG, switched(disabled=disabled))
    assert isinstance(held, Park)
    assert (held.waiting_for, held.until_ms) == (WaitingFor.SWITCH, None)
    assert check(TAG, switched(disabled=Integrations(some=frozenset({"sms"})))) == Send()


def test_a_limit_of_zero_parks_and_a_smaller_limit_does_not_002_21() -> None:
    held = check(TAG, switched(limits={"helpdesk": 0.0}))
    assert isinstance(held, Park)
    assert held.waiting_for is WaitingFor.LIMITER
    assert check(TAG, switched(limits={"helpdesk": 0.01, "sms": 0.0})) == Send()


def test_whose_slot_has_not_come_waits_for_it_and_does_not_ask_again_002_25() -> None:
    at_ms = NOON_MS + 7 * SECOND
    held = check(TAG, replace(OPEN, slot=Slot(at_ms)))
    assert held == Park(WaitingFor.LIMITER, "helpdesk is at its rate", at_ms, at_ms)
    assert check(TAG, replace(OPEN, slot=Slot(NOON_MS))) == Send()


def test_who_has_no_slot_is_told_when_to_ask_again_002_25() -> None:
    at_ms = NOON_MS + 7 * SECOND
    held = check(TAG, replace(OPEN, slot=Slot(at_ms, is_owned=False)))
    assert held == Park(WaitingFor.LIMITER, "helpdesk is at its rate", at_ms, 0)


def test_the_limiter_comes_last_so_that_what_will_not_be_sent_is_told_so() -> None:
    waiting = replace(OPEN, slot=Slot(NOON_MS + 1))
    assert isinstance(check(REPLY, switched(waiting, auto_reply=False)), Suppress)
    assert isinstance(check(REPLY, replace(waiting, expires_at_ms=NOON_MS)), Expire)


def test_a_replay_waits_while_replays_are_off_or_blocked_for_its_integration_004_20() -> None:
    for seen in (switched(replay=False), switched(replay_blocked=Integrations(some=frozenset({"helpdesk"})))):
        assert check(TAG, seen) == Send()
        held = check(TAG, replace(seen, is_replay=True))
        assert isinstance(held, Park)
        assert held.waiting_for is WaitingFor.SWITCH
    assert check(TAG, replace(OPEN, is_replay=True)) == Send()


def test_no_attempt_is_spent_on_an_integration_that_is_down_000_15() -> None:
    held = check(TAG, replace(OPEN, integration=IntegrationState("helpdesk", Health.HARD_DOWN)))
    assert isinstance(held, Park)
    assert held.waiting_for is WaitingFor.HEALTH
    assert check(TAG, replace(OPEN, integration=IntegrationState("helpdesk", Health.DEGRADED))) == Send()


def test_one_probe_may_call_what_is_down_if_nothing_else_stands_in_its_way_000_23() -> None:
    down = replace(OPEN, integration=IntegrationState("helpdesk", Health.HARD_DOWN), is_probe=True)
    assert check(TAG, down) == Send()
    off = replace(down, switches=switched(disabled=Integrations(every=True)).switches)
    paused = replace(down, integration=replace(down.integration, paused_until_ms=NOON_MS + 5))
    assert all(isinstance(check(TAG, seen), Park) for seen in (off, paused))
    assert isinstance(check(REPLY, replace(down, standing=Standing.SUPPRESSED)), Suppress)


def test_what_an_operator_holds_down_is_not_even_probed_and_opens_by_the_clock_000_32() -> None:
    state = IntegrationState("helpdesk", override=Health.HARD_DOWN, override_until_ms=NOON_MS + 5)
    forced = replace(OPEN, integration=state, is_probe=True)
    held = check(TAG, forced)
    assert isinstance(held, Park)
    assert (held.waiting_for, held.until_ms) == (WaitingFor.HEALTH, None)
    assert check(TAG, replace(forced, now_ms=NOON_MS + 5)) == Send()


def test_what_an_operator_opens_is_called_and_what_the_machine_says_holds_again_afterwards_000_32() -> None:
    state = IntegrationState(
        "helpdesk", Health.HARD_DOWN, override=Health.HEALTHY, override_until_ms=NOON_MS + 5, probe_at_ms=1
    )
    opened = replace(OPEN, integration=state)
    assert check(TAG, opened) == Send()
    assert not state.may_be_probed(NOON_MS)
    assert isinstance(check(TAG, replace(opened, now_ms=NOON_MS + 5)), Park)
    assert state.may_be_probed(NOON_MS + 5)


def test_a_providers_pause_holds_everyone_until_its_end_003_17() -> None:
    paused = replace(OPEN, integration=IntegrationState("helpdesk", paused_until_ms=NOON_MS + 5))
    held = check(TAG, paused)
    assert isinstance(held, Park)
    assert (held.waiting_for, held.until_ms) == (WaitingFor.PROVIDER_RESET, NOON_MS + 5)
    assert check(TAG, replace(paused, now_ms=NOON_MS + 5)) == Send()


def test_a_call_that_might_outlast_the_lease_is_not_begun() -> None:
    held = check(TAG, replace(OPEN, call_ends_at_ms=OPEN.lease_until_ms + 1))
    assert isinstance(held, Park)
    assert held.waiting_for is WaitingFor.TIME
    assert check(TAG, replace(OPEN, call_ends_at_ms=OPEN.lease_until_ms)) == Send()


@given(
    st.sampled_from(Mode),
    st.sampled_from(Mode),
    st.booleans(),
    st.none() | st.integers(0, 2 * KNOWN_FOR_MS),
    st.sampled_from(Standing),
    st.sampled_from(Health),
    st.booleans(),
    st.integers(-5, 5),
)
def test_a_reply_that_is_sent_met_every_condition(
    decided: Mode,
    present: Mode,
    auto_reply: bool,
    age_ms: int | None,
    standing: Standing,
    health: Health,
    is_replay: bool,
    left_ms: int,
) -> None:
    seen = replace(
        switched(mode=present, auto_reply=auto_reply, age_ms=age_ms),
        decision_mode=decided,
        standing=standing,
        integration=IntegrationState("helpdesk", health),
        is_replay=is_replay,
        expires_at_ms=NOON_MS + left_ms,
    )
    may_send = check(REPLY, seen) == Send()
    assert may_send is (
        decided in (Mode.LIVE, Mode.HOLD)
        and present is Mode.LIVE
        and auto_reply
        and age_ms is not None
        and age_ms <= USABLE_FOR_MS
        and standing is Standing.ALLOWED
        and health is not Health.HARD_DOWN
        and left_ms > 0
    )


def test_without_any_switch_ever_read_routing_goes_on_and_replies_wait() -> None:
    seen = replace(OPEN, switches=view(None, flow="support", source="shop", tenant="acme", now_ms=NOON_MS))
    assert check(TAG, seen) == Send()
    assert isinstance(check(REPLY, seen), Park)


@pytest.mark.parametrize("health", Health)
def test_what_the_matrix_holds_never_runs_while_its_integration_is_down_000_15(health: Health) -> None:
    seen = replace(OPEN, integration=IntegrationState("helpdesk", health), is_held_while_down=True)
    held = check(TAG, seen)
    assert isinstance(held, Park) is (health is Health.HARD_DOWN)
    if isinstance(held, Park):
        assert held.waiting_for is WaitingFor.HEALTH
        assert "does not run until it is back" in held.reason


# --------------------------------------------------------------------------------------------------- the table of rules

Move = Callable[[GateView], GateView]


def state(**fields: object) -> Move:
    return lambda seen: replace(seen, integration=replace(seen.integration, **fields))  # type: ignore[arg-type]  # of it


def also(**fields: object) -> Move:
    return lambda seen: replace(seen, **fields)  # type: ignore[arg-type]  # fields of GateView


def switch(**fields: object) -> Move:
    return lambda seen: switched(seen, **fields)


DESK_ONLY = Integrations(some=frozenset({"helpdesk"}))
IN_THE_WAY: dict[str, Move] = {
    "expired": also(expires_at_ms=NOON_MS),
    "decided in shadow": also(decision_mode=Mode.SHADOW),
    "opted out": also(standing=Standing.SUPPRESSED),
    "no consent": also(standing=Standing.NO_CONSENT),
    "standing unknown": also(standing=Standing.UNKNOWN),
    "switches unknown": switch(age_ms=USABLE_FOR_MS + 1),
    "auto_reply off": switch(auto_reply=False),
    "mode not live": switch(mode=Mode.MANUAL),
    "hold": switch(mode=Mode.HOLD),
    "disabled": switch(disabled=DESK_ONLY),
    "limit 0": switch(limits={"helpdesk": 0.0}),
    "replay off": switch(replay=False),
    "replay blocked": switch(replay_blocked=DESK_ONLY),
    "not while down": lambda seen: also(is_held_while_down=True)(state(health=Health.HARD_DOWN)(seen)),
    "held down": state(override=Health.HARD_DOWN, override_until_ms=NOON_MS + 1),
    "down": state(health=Health.HARD_DOWN),
    "paused": state(paused_until_ms=NOON_MS + 7),
    "lease too short": also(lease_until_ms=OPEN.call_ends_at_ms - 1),
    "at its rate": also(slot=Slot(NOON_MS + 9)),
}
"""What makes each rule hold of a replayed reply, in the order in which the rules are asked."""
ORDER = list(IN_THE_WAY)
REPLAYED = replace(OPEN, is_replay=True)
AGAIN = {
    LookAgain.AT_A_CHANGE: None,
    LookAgain.AT_ONCE: NOON_MS,
    LookAgain.AT_THE_PAUSES_END: NOON_MS + 7,
    LookAgain.AT_ITS_SLOT: NOON_MS + 9,
}


def rule(name: str) -> Rule:
    return next(one for one in RULES if one.name == name)


def test_the_rules_are_asked_in_this_order() -> None:
    assert [one.name for one in RULES] == ORDER


@pytest.mark.parametrize("name", ORDER)
def test_each_rule_by_itself_makes_of_an_action_what_the_table_says(name: str) -> None:
    outcome = rule(name).outcome
    verdict = check(REPLY, IN_THE_WAY[name](REPLAYED))
    assert type(verdict) is outcome.kind
    assert not isinstance(verdict, Send)
    assert verdict.reason
    if isinstance(verdict, Park):
        assert outcome.again is not None
        assert (verdict.waiting_for, verdict.until_ms) == (outcome.waiting_for, AGAIN[outcome.again])
        assert verdict.waiting_for is not WaitingFor.NOTHING
    else:
        assert (outcome.waiting_for, outcome.again) == (WaitingFor.NOTHING, None), "what does not wait comes to no end"


@pytest.mark.parametrize("name", ORDER)
def test_of_two_rules_that_hold_the_earlier_one_has_the_word(name: str) -> None:
    first = check(REPLY, IN_THE_WAY[name](REPLAYED))
    later = ORDER[ORDER.index(name) + 1 :]
    assert [other for other in later if check(REPLY, IN_THE_WAY[name](IN_THE_WAY[other](REPLAYED))) != first] == []


@pytest.mark.parametrize("name", ORDER)
def test_a_rule_asks_only_of_the_actions_that_it_is_for(name: str) -> None:
    in_the_way = IN_THE_WAY[name]
    is_sent = check(TAG, in_the_way(REPLAYED)) == Send(), check(REPLY, in_the_way(OPEN)) == Send()
    asked = rule(name).asked
    assert is_sent == (asked is Asked.CUSTOMER_VISIBLE, asked is Asked.REPLAYED)
