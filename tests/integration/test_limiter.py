"""The limiter around the real worker and sweeper: what waits waits once, nothing comes as a herd, nothing is lost
(002.20, 002.21, 002.24, 002.25, 003.17).

Time is virtual: messages are delivered when they are visible, at most a second late, and the sweeper comes once a
minute, as in a stack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from functions.core.attempt import Effect
from functions.core.decision import Classification
from functions.core.failure import (
    ClassifierUnavailable,
    NetworkCause,
    StorageUnavailable,
    failure_of_network,
    failure_of_status,
)
from functions.core.gate import WaitingFor
from functions.core.integration import Integration, Rate
from functions.core.limiter import GRACE_MS, HORIZON_MS, PATIENT_RECEIVES, VISIBLE_WAIT_MS
from functions.core.recovery import Row, Status
from tests.fakes import LIVE_SWITCHES
from tests.rates import most_over
from tests.worker_world import DESK, Died, NoClassifier, World

LATE_MS = 1_000  # visibility and delays are whole seconds, and the virtual time goes by seconds
AT_ITS_RATE = f"{DESK} is at its rate"


def limited(
    per_second: float, burst: int, names: tuple[str, ...] = ("tag",), switches: Mapping[str, str] | None = None
) -> World:
    """A world whose helpdesk takes so many calls."""
    world = World(names, {**LIVE_SWITCHES, **(switches or {})})
    world.integrations[DESK] = replace(world.integrations[DESK], rate=Rate(per_second, burst))
    return world


def rate_of(world: World) -> Rate:
    rate = world.integrations[DESK].rate
    assert rate is not None
    return rate


def run(world: World, seconds: int, *, until_done: bool = True) -> None:
    """Let that much time pass, or less if nothing is left to do."""
    for second in range(seconds):
        while world.deliver():
            pass
        if second % 60 == 0:
            world.sweep()
            while world.deliver():
                pass
            if until_done and not world.messages and not any(row.is_open for row in rows(world)):
                return
        world.clock.advance(1_000)
    assert not until_done, f"not done after {seconds} s: {len(world.messages)} messages, {len(world.open_rows())} rows"


def stays_within_the_rate(world: World, late_ms: int = LATE_MS) -> bool:
    rate = rate_of(world)
    return float(most_over(world.provider.calls, rate)) <= rate.per_second * late_ms / 1000


def deferrals(world: World) -> int:
    """How often a message was put off for its slot: given back to its queue, settled with rows that wait, and once more
    for each time that one of its rows had to wait again.
    """
    waits = {row.recovery_id: len([step for step in row.history if step["why"] == AT_ITS_RATE]) for row in rows(world)}
    again = sum(max(count - 1, 0) for count in waits.values())
    with_rows = {row.event_id for row in rows(world) if waits[row.recovery_id]}
    return world.faults.calls.count("ledger.release") + len(with_rows) + again


def rows(world: World) -> list[Row]:
    return list(world.tables.rows.values())


def takes(world: World) -> int:
    return world.faults.calls.count("ledger.take")


def only_row(world: World) -> Row:
    (row,) = world.tables.rows.values()
    return row


# -------------------------------------------------------------------------------------------------- a full waiting room


@pytest.mark.parametrize(
    ("number", "per_second", "names"),
    [(3_000, 1.5, ("tag",)), (3_000, 10, ("tag",)), (900, 3, ("tag", "create"))],
    ids=["slow", "faster than rows are woken", "two calls each"],
)
def test_thousands_of_waiting_messages_are_put_off_about_once_each(
    number: int, per_second: float, names: tuple[str, ...], proved: Callable[[str], None]
) -> None:
    """002.25: whoever is refused owns a slot and does not ask again; none comes near the DLQ."""
    world = limited(per_second, 20, names)
    events = [world.event(str(place)) for place in range(number)]
    for event in events:
        world.accept(event)
    run(world, 3 * 3_600)

    assert world.dead == []
    assert len(world.provider.effects) == len(names) * len(events)
    assert set(world.provider.effects.values()) == {1}
    assert stays_within_the_rate(world)
    per_message = deferrals(world) / len(events)
    assert per_message <= 1.1
    took_s = (max(world.provider.calls) - min(world.provider.calls)) / 1000
    proved(
        f"limiter: {number} messages of {len(names)} call(s) at {per_second}/s: {per_message:.2f} deferrals each, "
        f"{takes(world) / len(events):.2f} limiter writes each, done after {took_s:.0f} s, never above the rate"
    )


def test_a_setting_is_read_first_by_its_row_and_has_a_slot_for_that_too() -> None:
    world = limited(1.0, 5, ("assign",))
    for number in range(600):
        world.accept(world.event(str(number)))
    run(world, 3 * 3_600)
    assert world.faults.calls.count("provider.read_setting.assign") > 400
    assert stays_within_the_rate(world)
    assert deferrals(world) <= 1.1 * 600


def test_an_event_waits_in_its_queue_while_its_slot_is_near_and_as_a_row_beyond() -> None:
    """002.25: nothing of it is tried, no attempt is spent, and what it may call is stored with it."""
    world = limited(1.0, 1)
    for number in range(150):
        world.accept(world.event(str(number)))
    while world.deliver():
        pass
    assert len(world.messages) == VISIBLE_WAIT_MS // 1000
    waiting = rows(world)
    assert len(waiting) == 150 - 1 - len(world.messages)
    for row in waiting:
        assert (row.status, row.waiting_for, row.attempt_count) == (Status.PENDING, WaitingFor.LIMITER, 0)
        assert row.slot_ms == row.not_before_ms == row.due_at_ms > world.clock.now + VISIBLE_WAIT_MS
    assert len({row.slot_ms for row in waiting}) == len(waiting)
    asked = takes(world)
    run(world, 600)
    assert takes(world) == asked
    assert len(world.provider.effects) == 150
    assert stays_within_the_rate(world)


# -------------------------------------------------------------------------------------------------- slots that are kept


def test_a_message_that_comes_before_its_slot_costs_nothing_and_waits_on() -> None:
    world = limited(0.1, 1)
    for number in range(2):
        world.accept(world.event(str(number)))
    while world.deliver():
        pass
    (waiting,) = world.messages
    slot_ms = waiting.visible_at_ms
    world.clock.advance(2_000)
    waiting.visible_at_ms = world.clock.now  # another copy of it, say
    world.faults.calls.clear()
    world.deliver()
    assert world.faults.calls == ["ledger.read", "visibility.delay"]
    assert waiting.visible_at_ms == slot_ms
    run(world, 70)
    assert world.provider.calls[1] == slot_ms


def test_the_messages_of_an_outage_come_back_without_a_herd_and_ask_anew() -> None:
    """002.25: nobody works for ten minutes; all slots are over by then."""
    world = limited(1.0, 1)
    for number in range(100):
        world.accept(world.event(str(number)))
    while world.deliver():
        pass
    world.clock.advance(10 * 60 * 1000 + GRACE_MS)
    run(world, 600)
    assert len(world.provider.effects) == 100
    assert stays_within_the_rate(world)
    assert deferrals(world) <= 2 * 100
    assert world.dead == []


def test_the_rows_of_an_outage_come_back_at_the_rate() -> None:
    """002.25: likewise for what waits as rows, while new events keep coming."""
    world = limited(1.0, 1)
    for number in range(600):
        world.accept(world.event(str(number)))
    while world.deliver():
        pass
    world.clock.advance(20 * 60 * 1000)
    for number in range(20):
        world.accept(world.event(f"new-{number}"))
    run(world, 3_000)
    assert len(world.provider.effects) == 620
    assert stays_within_the_rate(world)


def test_rows_that_come_late_while_others_are_served_keep_their_slots_and_do_not_starve() -> None:
    """002.25: an hour is taken, nobody woke rows for ten minutes; those who ask anew would be put behind everybody, and
    the next ones would be late by then too.
    """
    world = limited(1.0, 1)
    for number in range(2_000):
        world.accept(world.event(str(number)))
    while world.deliver():
        pass
    run(world, 60, until_done=False)
    world.clock.advance(10 * 60 * 1000)
    before = len(world.provider.effects)
    run(world, 600, until_done=False)
    assert len(world.provider.effects) - before > 0.9 * 600
    assert stays_within_the_rate(world, late_ms=5_000)


def test_a_message_that_was_received_too_often_waits_as_a_row_so_that_no_deferral_brings_it_into_the_dlq() -> None:
    world = limited(0.1, 1)
    for number in range(2):
        world.accept(world.event(str(number)))
    world.messages[1].receive_count = PATIENT_RECEIVES
    while world.deliver():
        pass
    assert world.messages == []
    (row,) = rows(world)
    assert (row.waiting_for, row.slot_ms) == (WaitingFor.LIMITER, world.clock.now + 10_000)


def test_a_worker_that_dies_after_it_has_taken_calls_loses_calls_and_nothing_else() -> None:
    world = limited(1.0, 5)

    def die(op: str) -> None:
        if op == "ledger.take" and world.deaths == 0:
            raise Died(op)

    world.faults.on_after = die
    for number in range(8):
        world.accept(world.event(str(number)))
    run(world, 1_200)
    assert world.deaths == 1
    assert len(world.provider.effects) == 8
    assert stays_within_the_rate(world)


def test_a_slot_is_not_used_again_by_whoever_takes_over_from_its_owner() -> None:
    world = limited(0.01, 1)
    for number in range(2):
        world.accept(world.event(str(number)))
    world.deliver()
    world.clock.advance(100_000)

    def die(op: str) -> None:
        if op.startswith("provider.send") and world.deaths == 0:
            raise Died(op)

    world.faults.on_after = die
    run(world, 1_200)
    assert world.deaths == 1
    assert len(world.provider.effects) == 2
    assert stays_within_the_rate(world)


# ----------------------------------------------------------------------------------------------------------------- rows


def test_a_retry_asks_for_its_calls_and_waits_for_its_slot_without_an_attempt_spent() -> None:
    """002.24, 002.25"""
    world = limited(0.1, 2)
    world.provider.answers = [lambda _: failure_of_status(503) if len(world.provider.calls) <= 2 else None]
    for number in range(2):
        world.accept(world.event(str(number)))
    run(world, 70, until_done=False)
    waiting = [row for row in rows(world) if row.waiting_for is WaitingFor.LIMITER]
    run(world, 600)
    assert len(waiting) == 0 or all(row.attempt_count == 1 for row in waiting)
    assert {row.attempt_count for row in rows(world)} == {2}
    assert {row.status for row in rows(world)} == {Status.SUCCEEDED}
    assert stays_within_the_rate(world)


def test_the_rows_of_a_batch_ask_together() -> None:
    world = limited(10, 10)
    world.provider.answers = [lambda _: failure_of_status(503) if len(world.provider.calls) <= 10 else None]
    for number in range(10):
        world.accept(world.event(str(number)))
    run(world, 120, until_done=False)
    assert {row.status for row in rows(world)} == {Status.SUCCEEDED}
    assert takes(world) <= 1 + 2  # their hints are spread over a second, which SQS rounds
    assert stays_within_the_rate(world)


def test_what_an_event_has_no_slot_for_any_more_becomes_rows_and_what_it_has_is_sent() -> None:
    """Its first call is free, the second is minutes away: no reason to hold the first up."""
    world = limited(0.005, 1, ("tag", "create"))
    event = world.event()
    world.accept(event)
    world.deliver()
    assert world.messages == []
    assert [name for _, name in world.provider.sent] == ["tag"]
    (row,) = rows(world)
    assert row.action is not None
    assert (row.action.name, row.slot_ms) == ("create", world.clock.now + 200_000)
    run(world, 400)
    world.check_settled(event)
    assert stays_within_the_rate(world)


def test_a_reply_whose_tag_waits_has_a_slot_behind_the_tags() -> None:
    """Nor are two calls made at once where a burst is one."""
    world = limited(0.01, 1, ("tag", "reply"))
    for number in range(2):
        world.accept(world.event(str(number)))
    run(world, 1_000)
    began_ms = world.provider.calls[0]
    assert [((at_ms - began_ms) // 1000, name) for at_ms, name in world.provider.sent] == [
        (0, "tag"),
        (100, "reply"),
        (200, "tag"),
        (300, "reply"),
    ]
    assert takes(world) == 1


def test_an_event_whose_calls_are_no_more_than_a_burst_waits_for_the_last_of_them() -> None:
    world = limited(0.1, 3, ("tag", "reply"))
    for number in range(4):
        world.accept(world.event(str(number)))
    run(world, 300)
    assert rows(world) == []
    assert stays_within_the_rate(world)


def test_a_last_look_at_what_has_expired_has_its_turn_too_and_gets_it() -> None:
    """Replies that may have been sent, and are too late now: each is looked up once, at the rate."""
    world = limited(0.2, 1, ("tag", "reply"))
    world.provider.answers = [lambda action: failure_of_network(NetworkCause.RESET) if action.name == "reply" else None]
    for number in range(4):
        world.accept(world.event(str(number)))
    run(world, 120, until_done=False)
    replies = [row for row in rows(world) if row.action is not None and row.action.name == "reply"]
    world.clock.advance(600_000)
    for row in replies:  # as if nobody had come by for a week
        at_ms = world.clock.now
        world.tables.rows[row.recovery_id] = replace(row, expires_at_ms=at_ms, due_at_ms=at_ms, not_before_ms=at_ms)
    looked = world.faults.calls.count("provider.look_up.reply")
    run(world, 3_600)
    assert len([row for row in replies if row.is_open and row.effect is Effect.UNKNOWN]) == 4
    assert world.faults.calls.count("provider.look_up.reply") - looked == 4
    assert stays_within_the_rate(world)


# ------------------------------------------------------------------------------------------------------ pauses, factors


def test_a_429_voids_the_slots_before_its_end_and_what_waits_follows_at_the_rate_003_17() -> None:
    """002.20, 003.17: one refusal holds the fleet; nothing is sent before its end, and no herd after it."""
    world = limited(1.0, 5)
    world.provider.answers = [
        lambda _: failure_of_status(429, retry_after_ms=30_000) if len(world.provider.calls) == 7 else None
    ]
    for number in range(40):
        world.accept(world.event(str(number)))
    run(world, 600)
    refused_ms = world.provider.calls[6]
    after = [at_ms for at_ms in world.provider.calls if at_ms > refused_ms]
    assert min(after) >= refused_ms + 30_000
    at_its_end = [at_ms for at_ms in after if at_ms < refused_ms + 30_000 + 25_000]
    assert float(most_over(at_its_end, Rate(1.0, 1))) <= LATE_MS / 1000
    assert stays_within_the_rate(world)
    assert len(world.provider.effects) == 40
    assert world.dead == []


def test_half_the_factor_halves_the_rate_at_once_002_21() -> None:
    full, half = limited(1.0, 5), limited(1.0, 5, switches={"limits/desk": "0.5"})
    for world in (full, half):
        for number in range(65):
            world.accept(world.event(str(number)))
        run(world, 60, until_done=False)
    assert len(full.provider.calls) == 5 + 59
    assert len(half.provider.calls) == 3 + 29
    assert float(most_over(half.provider.calls, Rate(0.5, 3))) <= 0.5 * LATE_MS / 1000


def test_a_factor_for_one_tenant_makes_its_calls_dearer_and_leaves_the_others_theirs_002_21() -> None:
    world = limited(1.0, 1, switches={"tenant/acme/limits/desk": "0.25"})
    for number in range(3):
        world.accept(world.event(str(number)))
    world.accept(world.event("other", tenant="globex"))
    run(world, 60, until_done=False)
    assert [at_ms - world.provider.calls[0] for at_ms in world.provider.calls] == [0, 4_000, 8_000, 12_000]


def test_what_was_reserved_at_a_factor_near_0_does_not_outlast_it_for_hours_002_21() -> None:
    """Sixty messages came in the minute for which it held: a minute's work at the full rate, and not four hours'. One
    call was made at that factor, and the next is its cost later.
    """
    world = limited(1.0, 1, switches={"limits/desk": "0.005"})
    for number in range(60):
        world.accept(world.event(str(number)))
    run(world, 60, until_done=False)
    world.switches.values["limits/desk"] = "1"
    run(world, 200 + 60 + 360 + 60)  # its cost; a minute's work, drawn apart over six; the sweeper's next minute
    assert len(world.provider.effects) == 60
    assert stays_within_the_rate(world)


def test_a_factor_of_0_parks_as_before_and_asks_the_limiter_nothing() -> None:
    world = limited(1.0, 5, switches={"limits/desk": "0"})
    world.accept(world.event())
    world.deliver()
    (row,) = rows(world)
    assert (row.waiting_for, row.slot_ms) == (WaitingFor.LIMITER, 0)
    assert takes(world) == 0


@pytest.mark.parametrize("switches", [{"disabled_integrations": "desk"}, {"mode": "shadow"}])
def test_nothing_is_taken_for_what_would_not_be_sent(switches: dict[str, str]) -> None:
    world = limited(1.0, 5, switches=switches)
    world.accept(world.event())
    world.deliver()
    assert takes(world) == 0


def test_a_suppressed_reply_leaves_its_call_to_what_stands_in_for_it() -> None:
    world = limited(0.001, 2, ("tag", "reply", "instead"), switches={"auto_reply": "off"})
    event = world.event()
    world.accept(event)
    world.deliver()
    assert [name for _, name in world.provider.sent] == ["tag", "instead"]
    assert takes(world) == 1


# -------------------------------------------------------------------------------------------------------------- trouble


def test_without_the_control_table_an_environment_goes_by_its_own_share(proved: Callable[[str], None]) -> None:
    """002.25: some calls go on; the others come back, and nothing is lost or sent twice."""
    world = limited(10, 20)
    world.faults.fail("ledger.take", StorageUnavailable("throttled"), times=3)
    for number in range(30):
        world.accept(world.event(str(number)))
    while world.deliver():
        pass
    granted = len(world.provider.calls)
    assert 0 < granted < 10
    run(world, 120)
    assert len(world.provider.effects) == 30
    assert stays_within_the_rate(world)
    assert world.quiet.counts["limiter_unavailable"] == 3
    assert world.dead == []


def test_an_hour_ahead_is_the_end_and_those_beyond_it_ask_again_without_a_slot() -> None:
    world = limited(0.001, 1)
    for number in range(6):
        world.accept(world.event(str(number)))
    while world.deliver(most=1):
        pass
    without = [row for row in rows(world) if not row.slot_ms]
    assert len(without) == 2
    assert all(row.not_before_ms > world.clock.now for row in without)
    run(world, 3 * 3_600)
    assert len(world.provider.effects) == 6
    assert stays_within_the_rate(world)


def test_a_worker_whose_clock_was_hours_ahead_delays_what_comes_after_it_by_minutes() -> None:
    """002.25: five hours ahead, and everybody else would wait for four of them."""
    world = limited(2, 4)
    world.clock.advance(5 * HORIZON_MS)
    world.accept(world.event("early"))
    world.deliver()
    world.clock.advance(-5 * HORIZON_MS)
    for number in range(60):
        world.accept(world.event(str(number)))
    run(world, 5 * 60)
    assert len(world.provider.effects) == 61
    assert world.quiet.counts["limits_put_right"] == 1
    assert stays_within_the_rate(world)
    assert world.dead == []


# ------------------------------------------------------------------------------------------------------------------ llm


def with_llm(rate: Rate, switches: Mapping[str, str] | None = None) -> World:
    world = limited(100, 100, switches=switches)
    world.integrations["llm"] = Integration("llm", rate=rate)
    world.needs_llm = True
    return world


def test_the_llm_is_asked_as_often_as_its_rate_allows_and_nobody_waits_for_it() -> None:
    """002.25: who may not ask is decided on by rules, at once; what was not asked for leaves nothing reserved."""
    world = with_llm(Rate(1.0, 4))
    for number in range(10):
        world.accept(world.event(str(number)))
    world.deliver()
    assert world.classifier.asked == 4
    assert world.messages == []
    assert takes(world) == 1 + 1
    world.clock.advance(1_000)
    world.accept(world.event("later"))
    world.deliver()
    assert world.classifier.asked == 5


def test_half_the_factor_asks_the_llm_half_as_often() -> None:
    world = with_llm(Rate(1.0, 5), {"limits/llm": "0.5"})
    for number in range(10):
        world.accept(world.event(str(number)))
    world.deliver()
    assert world.classifier.asked == 3


def test_without_the_control_table_the_llm_is_asked_within_the_environments_share() -> None:
    world = with_llm(Rate(1.0, 4))
    world.faults.fail("ledger.take", StorageUnavailable("throttled"))
    for number in range(10):
        world.accept(world.event(str(number)))
    world.deliver()
    assert world.classifier.asked == 1
    assert len(world.provider.effects) == 10


def test_a_wait_that_the_llm_asks_for_holds_the_whole_fleet_and_the_rules_decide_meanwhile_002_24() -> None:
    class Busy(NoClassifier):
        async def classify(self, text: str, labels: Mapping[str, str], deadline_ms: int) -> Classification:
            self.asked += 1
            raise ClassifierUnavailable("LLM_RATE_LIMITED", "HTTP_429", 20_000)

    world = with_llm(Rate(1.0, 1))
    world.classifier = Busy()
    for number in range(30):
        world.accept(world.event(str(number)))
        world.deliver()
        world.clock.advance(1_000)
    assert world.classifier.asked == 2
    assert world.tables.integrations["llm"].paused_until_ms > world.clock.now
    assert len(world.provider.effects) == 30
