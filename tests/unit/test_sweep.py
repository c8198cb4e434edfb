"""Which rows are woken, when, and in what order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.core import sweep
from functions.core.attempt import Effect
from functions.core.decision import Repeat
from functions.core.gate import Health, IntegrationState
from functions.core.integration import INTAKE, Rate
from functions.core.limiter import Limit
from functions.core.ports import Hint
from functions.core.recovery import REHINT_SECONDS, Row, Status
from functions.core.switches import Snapshot, SwitchView, view
from tests.fakes import LIVE_SWITCHES, NOON_MS
from tests.recovery_rows import action, dead, row

HEALTHY = IntegrationState("helpdesk")


def switches(**values: str) -> SwitchView:
    snapshot = Snapshot.complete(
        {**LIVE_SWITCHES, **{name.replace("__", "/"): text for name, text in values.items()}}, NOON_MS
    )
    return view(snapshot, flow="support", source="helpdesk-acme", tenant="acme", now_ms=NOON_MS)


def look(subject: Row, *, now_ms: int = NOON_MS, state: IntegrationState = HEALTHY, **values: Any) -> sweep.Look:
    return sweep.look(subject, state, switches(**values), now_ms, 1.0)


# ------------------------------------------------------------------------------------------------------- integrations


@pytest.mark.parametrize(
    ("state", "values", "why"),
    [
        (HEALTHY, {}, None),
        (HEALTHY, {"mode": "hold"}, "mode_hold"),
        (HEALTHY, {"mode": "shadow"}, "mode_shadow"),
        (HEALTHY, {"mode": "route_only"}, None),
        (HEALTHY, {"disabled_integrations": "email,helpdesk"}, "disabled"),
        (HEALTHY, {"disabled_integrations": "email"}, None),
        (HEALTHY, {"limits__helpdesk": "0"}, "limit_0"),
        (HEALTHY, {"limits__helpdesk": "0.1"}, None),
        (IntegrationState("helpdesk", Health.HARD_DOWN), {}, "hard_down"),
        (IntegrationState("helpdesk", Health.DEGRADED), {}, None),
        (IntegrationState("helpdesk", override=Health.HARD_DOWN, override_until_ms=NOON_MS + 1), {}, "hard_down"),
        (IntegrationState("helpdesk", override=Health.HARD_DOWN, override_until_ms=NOON_MS), {}, None),
        (
            IntegrationState("helpdesk", Health.HARD_DOWN, override=Health.HEALTHY, override_until_ms=NOON_MS + 1),
            {},
            None,
        ),
        (IntegrationState("helpdesk", paused_until_ms=NOON_MS + 60_001), {}, "paused"),
        (IntegrationState("helpdesk", paused_until_ms=NOON_MS + 60_000), {}, None),
        (IntegrationState(INTAKE), {"disabled_integrations": "all"}, None),
        (IntegrationState(INTAKE), {"mode": "hold"}, "mode_hold"),
    ],
)
def test_an_integration_that_may_not_send_is_parked(
    state: IntegrationState, values: dict[str, str], why: str | None
) -> None:
    assert sweep.why_parked(state, switches(**values), NOON_MS, 60_000) == why


def down(**fields: Any) -> IntegrationState:
    return IntegrationState("helpdesk", Health.HARD_DOWN, **fields)


@pytest.mark.parametrize(
    ("state", "values", "expected"),
    [
        (down(), {}, NOON_MS),
        (down(probe_at_ms=NOON_MS + 60_000), {}, NOON_MS + 60_000),
        (down(probe_at_ms=NOON_MS + 60_001), {}, None),
        (down(), {"disabled_integrations": "helpdesk"}, None),
        (down(), {"limits__helpdesk": "0"}, None),
        (down(), {"mode": "hold"}, None),
        (down(paused_until_ms=NOON_MS + 60_001), {}, None),
        (down(override=Health.HARD_DOWN, override_until_ms=NOON_MS + 600_000), {}, None),
        (HEALTHY, {}, None),
    ],
)
def test_what_is_down_is_probed_by_a_row_when_that_is_due_and_nothing_else_holds_it(
    state: IntegrationState, values: dict[str, str], expected: int | None
) -> None:
    """000.23"""
    assert sweep.probe_from(state, switches(**values), NOON_MS, 60_000) == expected


def test_one_row_is_a_probe_and_once_one_has_succeeded_as_many_as_are_still_needed() -> None:
    rows = [row(f"r{n}", received_at_ms=n) for n in range(5)]
    assert named(sweep.probe_rows(down(), rows)) == ["r0"]
    assert named(sweep.probe_rows(down(probe_ok=1), rows)) == ["r0", "r1"]
    assert named(sweep.probe_rows(down(probe_ok=2), rows)) == ["r0"]
    assert sweep.probe_rows(down(), []) == []
    assert sweep.probe_gap_ms(1.0) == 10_000
    assert sweep.probe_gap_ms(1 / 60) == 1_000


def test_a_row_whose_unknown_outcome_would_be_a_persons_is_a_probe_only_if_there_is_no_other() -> None:
    bell = row(action=action("bell", repeat=Repeat.BLIND), priority=1)
    assert named(sweep.probe_rows(down(), [bell, row("tag")])) == ["tag"]
    assert named(sweep.probe_rows(down(), [bell])) == ["bell"]
    stored = row("stored", stored_errors=1, priority=1)
    assert named(sweep.probe_rows(down(probe_ok=1), [stored, bell, row("tag")])) == ["tag", "stored"]


def test_after_an_outage_a_tick_wakes_ten_rows_at_first_and_as_many_as_ever_ten_minutes_later() -> None:
    released = IntegrationState("helpdesk", Health.DEGRADED, ramp_from_ms=NOON_MS)
    caps = [sweep.release_cap(released, NOON_MS + minute * 60_000, 1.0) for minute in range(12)]
    assert caps == [10, 19, 28, 37, 46, 55, 64, 73, 82, 91, 100, 100]
    assert sweep.release_cap(HEALTHY, NOON_MS, 1.0) == sweep.PER_INTEGRATION
    assert sweep.release_cap(released, NOON_MS + 5_000, 1 / 60) == 55


# --------------------------------------------------------------------------------------------------------------- rows


def test_a_row_that_is_due_is_woken_at_once() -> None:
    assert look(row()) == sweep.Wake(NOON_MS)


def test_a_row_whose_wait_ends_before_the_next_tick_is_woken_at_its_exact_time() -> None:
    soon = row(not_before_ms=NOON_MS + 30_000, due_at_ms=NOON_MS + 30_000)
    assert look(soon) == sweep.Wake(NOON_MS + 30_000)


def test_a_pause_that_ends_before_the_next_tick_is_waited_for() -> None:
    assert look(row(), state=IntegrationState("helpdesk", paused_until_ms=NOON_MS + 20_000)) == sweep.Wake(
        NOON_MS + 20_000
    )


def test_a_row_with_a_live_lease_is_left_alone_so_that_its_owner_can_store_the_outcome() -> None:
    assert look(row(lease_until_ms=NOON_MS + 1, due_at_ms=NOON_MS + 1)) == sweep.Leave()
    assert look(row(lease_until_ms=NOON_MS + 1, due_at_ms=NOON_MS)) == sweep.Leave()
    assert look(row(lease_until_ms=NOON_MS + 1, expires_at_ms=NOON_MS)) == sweep.Leave()


def test_a_row_whose_owner_died_is_woken_when_the_lease_has_ended() -> None:
    assert look(row(lease_until_ms=NOON_MS, due_at_ms=NOON_MS)) == sweep.Wake(NOON_MS)


def test_a_hint_under_way_is_not_made_worthless_by_another_one() -> None:
    hinted = row(not_before_ms=NOON_MS - 1, due_at_ms=NOON_MS + 59_000)
    assert look(hinted) == sweep.Leave()
    assert look(hinted, now_ms=NOON_MS + 59_000) == sweep.Wake(NOON_MS + 59_000)


def test_a_row_past_its_expiry_ends() -> None:
    assert look(row(expires_at_ms=NOON_MS)) == sweep.LetExpire()
    assert look(row(expires_at_ms=NOON_MS + 1)) == sweep.Wake(NOON_MS)


@pytest.mark.parametrize("fields", [{"effect": Effect.UNKNOWN}, {"lease_until_ms": NOON_MS - 1}])
def test_a_row_that_may_have_been_sent_does_not_expire_before_a_worker_has_looked(fields: dict[str, Any]) -> None:
    assert look(row(expires_at_ms=NOON_MS - 1, **fields)) == sweep.Wake(NOON_MS)


def test_a_row_without_an_expiry_never_expires() -> None:
    assert look(row(expires_at_ms=0)) == sweep.Wake(NOON_MS)


def test_a_row_that_waits_for_another_and_may_have_been_sent_is_woken_to_be_ended_once_it_has_expired() -> None:
    waiting = row(status=Status.PENDING, waits_for=("parent",), effect=Effect.UNKNOWN, expires_at_ms=NOON_MS)
    assert look(replace(waiting, due_at_ms=NOON_MS)) == sweep.Wake(NOON_MS)


def test_a_row_that_waits_for_another_is_only_looked_at_when_it_expires() -> None:
    waiting = row(status=Status.PENDING, waits_for=("parent",), expires_at_ms=NOON_MS + 5_000)
    assert look(waiting) == sweep.PutOff(NOON_MS + 5_000)
    put_off = replace(waiting, due_at_ms=NOON_MS + 5_000)
    assert look(put_off) == sweep.Leave()
    assert look(put_off, now_ms=NOON_MS + 5_000) == sweep.LetExpire()


@pytest.mark.parametrize("values", [{"replay": "off"}, {"replay_blocked_integrations": "helpdesk"}])
def test_a_replay_that_may_not_run_waits_and_an_ordinary_row_does_not(values: dict[str, Any]) -> None:
    assert look(row(status=Status.REPLAYED), **values) == sweep.PutOff(NOON_MS + 60_000)
    assert look(row(), **values) == sweep.Wake(NOON_MS)
    assert look(row(status=Status.REPLAYED)) == sweep.Wake(NOON_MS)


def test_an_ended_row_that_the_index_still_shows_is_left() -> None:
    assert look(dead()) == sweep.Leave()


# -------------------------------------------------------------------------------------------------------------- times


@pytest.mark.parametrize(("scale", "expected"), [(1.0, 60_000), (1 / 60, 2_000), (0.5, 30_000)])
def test_the_horizon_shrinks_with_the_waits_but_not_below_two_seconds(scale: float, expected: int) -> None:
    assert sweep.horizon_ms(scale) == expected


@given(st.floats(min_value=1e-6, max_value=1.0))
def test_a_hinted_row_is_out_of_sight_for_longer_than_a_tick_looks_ahead(scale: float) -> None:
    assert sweep.rehint_scale(scale) * REHINT_SECONDS * 1000 > sweep.horizon_ms(scale)


def test_an_effect_of_which_nobody_can_tell_for_a_quarter_of_an_hour_is_told() -> None:
    unknown = row(effect=Effect.UNKNOWN, last_possible_send_ms=NOON_MS)
    assert not sweep.is_unknown_for_long(unknown, NOON_MS + 900_000, 1.0)
    assert sweep.is_unknown_for_long(unknown, NOON_MS + 900_001, 1.0)
    assert sweep.is_unknown_for_long(unknown, NOON_MS + 15_001, 1 / 60)
    assert not sweep.is_unknown_for_long(row(last_possible_send_ms=NOON_MS), NOON_MS + 900_001, 1.0)


def test_a_row_that_hint_after_hint_led_nowhere_with_is_overdue() -> None:
    assert not sweep.is_overdue(row(), NOON_MS + 1_800_000, 1.0)
    assert sweep.is_overdue(row(), NOON_MS + 1_800_001, 1.0)
    assert not sweep.is_overdue(row(updated_at_ms=NOON_MS + 1), NOON_MS + 1_800_001, 1.0)


# -------------------------------------------------------------------------------------------------------------- order


def named(rows: list[Row]) -> list[str]:
    return [each.action.name for each in rows if each.action is not None]


def test_the_more_urgent_goes_first_however_old_the_other_is() -> None:
    urgent, old = row("urgent", priority=1, received_at_ms=NOON_MS), row("old", priority=5, received_at_ms=1)
    assert named(sweep.order_fairly([old, urgent], 2)) == ["urgent", "old"]


def test_tenants_take_turns_so_that_a_flood_of_one_does_not_keep_the_other_waiting() -> None:
    flood = [row(f"a{n}", tenant="a", received_at_ms=n) for n in range(5)]
    calm = [row(f"b{n}", tenant="b", received_at_ms=100 + n) for n in range(2)]
    assert named(sweep.order_fairly([*flood, *calm], 4)) == ["a0", "b0", "a1", "b1"]


def test_of_one_tenant_the_oldest_event_goes_first() -> None:
    assert named(sweep.order_fairly([row("new", received_at_ms=2), row("old", received_at_ms=1)], 2)) == ["old", "new"]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.integers(0, 5)), max_size=30),
    st.integers(0, 40),
)
def test_nothing_is_chosen_twice_and_nothing_less_urgent_before_something_more_urgent(
    drawn: list[tuple[int, str, int]], cap: int
) -> None:
    rows = [row(f"r{n}", priority=p, tenant=t, received_at_ms=at) for n, (p, t, at) in enumerate(drawn)]
    chosen = sweep.order_fairly(rows, cap)
    assert len(chosen) == min(cap, len(rows))
    assert len({each.recovery_id for each in chosen}) == len(chosen)
    priorities = [each.priority for each in chosen]
    assert priorities == sorted(each.priority for each in rows)[: len(chosen)]


def test_each_tick_begins_with_another_integration() -> None:
    assert [sweep.in_turn(["a", "b", "c"], tick)[0] for tick in range(4)] == ["a", "b", "c", "a"]
    assert sorted(sweep.in_turn(["a", "b", "c"], 1)) == ["a", "b", "c"]
    assert sweep.in_turn([], 3) == []


# ---------------------------------------------------------------------------------------------------------------- rate


ONE_A_SECOND = Limit.of(Rate(1.0, 1))


def holding(slot_s: float, name: str, **fields: Any) -> tuple[Row, int]:
    """A row whose slot is so many seconds after noon, and when it would be woken."""
    slot_ms = NOON_MS + int(slot_s * 1000)
    return row(name, slot_ms=slot_ms, not_before_ms=slot_ms, due_at_ms=slot_ms, **fields), max(slot_ms, NOON_MS)


def times(woken: sweep.Woken) -> list[float]:
    return [(at_ms - NOON_MS) / 1000 for _, at_ms in woken]


def test_rows_that_hold_slots_are_woken_at_them() -> None:
    rows = [holding(30, "b"), holding(10, "a"), holding(59, "last")]
    in_turn, asking = sweep.at_the_rate(rows, HEALTHY, ONE_A_SECOND, NOON_MS, 1.0)
    assert (times(in_turn), asking) == ([10, 30, 59], [])


def test_rows_whose_slots_went_by_between_two_ticks_come_one_after_the_other() -> None:
    """002.25: and so do those behind them, the last ones at the next tick."""
    rows = [holding(-50 + n, f"late{n}") for n in range(40)] + [holding(n, f"due{n}") for n in range(60)]
    in_turn, asking = sweep.at_the_rate(rows, HEALTHY, ONE_A_SECOND, NOON_MS, 1.0)
    assert times(in_turn) == list(range(60))
    assert asking == []


def test_rows_that_will_ask_are_not_spread_for_the_limiter_does_that() -> None:
    rows = [holding(-1_000, "void"), (row("none"), NOON_MS), holding(-1, "fine")]
    in_turn, asking = sweep.at_the_rate(rows, HEALTHY, ONE_A_SECOND, NOON_MS, 1.0)
    assert named([each for each, _ in in_turn]) == ["fine"]
    assert named([each for each, _ in asking]) == ["void", "none"]


def test_the_first_row_is_woken_however_slow_the_rate_is() -> None:
    rows = [holding(40, "a"), holding(59, "b")]
    in_turn, _ = sweep.at_the_rate(rows, HEALTHY, Limit.of(Rate(0.001, 1)), NOON_MS, 1.0)
    assert times(in_turn) == [40]


@pytest.mark.parametrize(
    ("per_second", "woken", "most"), [(None, 0, 100), (1, 0, 100), (2.5, 0, 150), (50, 0, 250), (50, 400, 100)]
)
def test_a_tick_wakes_as_many_rows_as_have_slots_until_the_next(
    per_second: float | None, woken: int, most: int
) -> None:
    limit = None if per_second is None else Limit.of(Rate(per_second, 1))
    assert sweep.most_woken(limit, woken, 1.0) == most


# --------------------------------------------------------------------------------------------------------------- spill


@pytest.mark.parametrize(
    ("key", "at_ms"),
    [
        ("spill/1767225600000-0123abcd", NOON_MS),
        ("spill/0000000000000-a", 0),
        ("spill/1767225600000", None),
        ("spill/17672256000000-a", None),
        ("spill/-1", None),
        ("spill/", None),
        ("spill/\u0661767225600000-a", None),
        ("spill/\u00b2767225600000-a", None),
    ],
)
def test_an_objects_name_says_when_its_event_was_received_or_nothing(key: str, at_ms: int | None) -> None:
    assert sweep.spilled_at(key) == at_ms


def test_rows_have_at_least_half_of_a_tick_whatever_is_in_the_spill() -> None:
    assert sweep.drain_until(NOON_MS, NOON_MS + 47_000) == NOON_MS + 23_500


def test_what_is_down_keeps_a_row_alone_only_where_no_switch_does() -> None:
    waiting = row(action=action())
    horizon = sweep.horizon_ms(1.0)
    assert sweep.is_kept_by_health_alone(waiting, down(), switches(), NOON_MS, horizon)
    disabled = switches(disabled_integrations="helpdesk")
    assert not sweep.is_kept_by_health_alone(waiting, down(), disabled, NOON_MS, horizon)
    assert not sweep.is_kept_by_health_alone(replace(waiting, action=None), down(), switches(), NOON_MS, horizon)


def test_the_llm_may_be_asked_while_nothing_stops_it() -> None:
    assert switches().may_ask()
    assert not switches(classifier="rules").may_ask()
    assert not switches(disabled_integrations="llm").may_ask()
    assert not switches(**{"limits/llm": "0"}).may_ask()


def test_a_hint_is_read_back_from_its_message() -> None:
    hint = Hint("r" * 24, 7)
    assert Hint.from_message(hint.to_message()) == hint
    assert Hint.from_message("{}") is None
