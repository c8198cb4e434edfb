"""Who asks for calls in one batch, and together with whom (002.25): one write for an integration, however slow one of
the events is, and whatever becomes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from functions.core.failure import StorageUnavailable
from functions.core.gate import IntegrationState
from functions.core.integration import Integration, Rate
from functions.core.limiter import HORIZON_MS, Slot
from functions.worker import leases as module
from functions.worker.leases import ENVIRONMENTS, Demand, Lease, Leases
from functions.worker.ports import Ports
from tests.fakes import FakeClock, FakeLedger, FakeRandom, FakeTables
from tests.rates import most_over
from tests.worker_world import Died, Quiet, directly, run

RATE = Rate(10, 20)


class Stage:
    """One invocation's leases over tables in memory."""

    def __init__(self, rate: Rate | None = RATE) -> None:
        self.tables = FakeTables()
        self.clock = FakeClock()
        self.quiet = Quiet()
        self.states: dict[str, IntegrationState] = {}
        self.shares: dict[str, int] = {}
        given: dict[str, Any] = dict.fromkeys(Ports.__dataclass_fields__)
        given |= {
            "ledger": FakeLedger(self.tables),
            "clock": self.clock,
            "rng": FakeRandom(0.5),
            "io": directly,
            "log": self.quiet,
            "meter": self.quiet,
            "integrations": {name: Integration(name, rate=rate) for name in ("desk", "sms")}
            | {"free": Integration("free")},
        }
        self.given = given
        self.leases = Leases(Ports(**given), 1.0, self.states, self.shares)

    @property
    def takes(self) -> int:
        return self.tables.faults.calls.count("ledger.take")

    def tat(self, integration: str = "desk") -> int:
        return self.tables.integrations[integration].tat_ms - self.clock.now

    async def ask(self, key: str, calls: int = 2, *, after: float = 0.0, integration: str = "desk") -> Lease:
        """One event: it asks when its classification is there, and leaves when it is done."""
        await asyncio.sleep(after)
        try:
            return await self.leases.take(key, [Demand(integration, calls)])
        finally:
            self.leases.leave(key)


def together(stage: Stage, *asked: Awaitable[Any]) -> list[Any]:
    async def all_of_them() -> list[Any]:
        return list(await asyncio.gather(*asked, return_exceptions=True))

    return run(all_of_them())


def held(leases: Sequence[Lease], integration: str = "desk") -> list[int]:
    return [slot.at_ms for lease in leases for slot in lease.slots.get(integration, ())]


def test_all_that_ask_share_one_write_and_no_slot() -> None:
    stage = Stage()
    keys = [str(number) for number in range(10)]
    stage.leases.expect(keys)
    leases = together(stage, *(stage.ask(key, after=0.005 * int(key)) for key in keys))
    assert stage.takes == 1
    assert stage.tat() == 20 * 100
    assert len(set(held(leases))) == 20
    assert all(len(lease.slots["desk"]) == 2 for lease in leases)


def test_two_integrations_are_two_writes_and_one_without_a_rate_is_none() -> None:
    stage = Stage()
    stage.leases.expect(["a", "b", "c"])
    leases = together(stage, stage.ask("a"), stage.ask("b", integration="sms"), stage.ask("c", integration="free"))
    assert stage.takes == 2
    assert leases[2] == Lease()


def test_whoever_does_not_know_the_catalogs_integration_is_not_limited() -> None:
    stage = Stage()
    assert together(stage, stage.ask("a", integration="gone")) == [Lease()]


def test_one_slow_answer_holds_nobody_up_and_finds_its_calls_when_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW_SECONDS", 0.02)
    stage = Stage()
    keys = [str(number) for number in range(10)]
    stage.leases.expect(keys)
    done: list[str] = []

    async def event(key: str, after: float) -> Lease:
        lease = await stage.ask(key, after=after)
        done.append(key)
        return lease

    slow = {"3": 0.15, "7": 0.2}
    leases = together(stage, *(event(key, slow.get(key, 0.0)) for key in keys))
    assert done[-2:] == ["3", "7"]
    assert stage.takes == 1  # for those that were on their way too
    assert len(set(held(leases))) == 20


def test_who_comes_while_the_others_are_asking_waits_for_what_they_ask_for_it() -> None:
    """Else it would ask a second time for calls that are under way."""
    stage = Stage()

    async def slowly(call: Callable[..., Any], /, *given: Any) -> Any:
        await asyncio.sleep(0.1)
        return call(*given)

    stage.given["io"] = slowly
    stage.leases = Leases(Ports(**stage.given), 1.0, stage.states, stage.shares)
    stage.leases.expect(["a", "b"])
    leases = together(stage, stage.ask("a"), stage.ask("b", after=module.WINDOW_SECONDS + 0.05))
    assert stage.takes == 1
    assert stage.tat() == 4 * 100
    assert len(set(held(leases))) == 4


def test_a_slow_one_that_wants_more_than_the_others_asks_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW_SECONDS", 0.02)
    stage = Stage()
    stage.leases.expect(["a", "b"])
    leases = together(stage, stage.ask("a", 1), stage.ask("b", 3, after=0.1))
    assert stage.takes == 2
    assert len(set(held(leases))) == 4


def test_those_that_leave_are_not_waited_for() -> None:
    stage = Stage()
    stage.leases.expect(["a", "gone", "b"])

    async def goes() -> None:
        stage.leases.leave("gone")

    leases = together(stage, stage.ask("a"), goes(), stage.ask("b"))
    assert stage.takes == 1
    assert stage.tat() == 4 * 100
    assert len(held(leases[::2])) == 4


def test_whoever_asks_for_nothing_is_not_waited_for_either() -> None:
    stage = Stage()
    stage.leases.expect(["a", "b"])
    together(stage, stage.ask("b", 0), stage.ask("a"))
    assert stage.tat() == 2 * 100


def test_a_worker_that_dies_while_it_asks_leaves_nobody_waiting_for_ever() -> None:
    stage = Stage()
    stage.tables.faults.on_after = _die
    stage.leases.expect(["a", "b"])
    assert [type(answer) for answer in together(stage, stage.ask("a"), stage.ask("b"))] == [Died, Died]


def _die(op: str) -> None:
    raise Died(op)


def test_a_call_nobody_reckoned_with_is_asked_for_by_itself() -> None:
    stage = Stage()
    lease = Lease()
    run(stage.leases.another(lease, Demand("desk", 1)))
    run(stage.leases.another(Lease(), Demand("free", 1)))
    assert (stage.takes, len(held([lease]))) == (1, 1)
    lease.use("desk")
    lease.use("desk")
    assert lease.next("desk") is None


def test_what_was_kept_is_not_asked_for_again_while_it_holds() -> None:
    stage = Stage()
    demand = Demand("desk", 2)
    kept = {"desk": stage.clock.now - 1_000}
    lease = run(stage.leases.take("a", [demand], kept))
    assert (stage.takes, held([lease])) == (0, [kept["desk"]] * 2)
    stage.clock.advance(10 * 60 * 1000)
    run(stage.leases.take("a", [demand], kept))
    assert stage.takes == 1


def test_all_that_will_not_wait_share_one_write_and_what_they_do_not_get_is_not_taken() -> None:
    stage = Stage(Rate(1, 3))

    async def all_of_them() -> list[bool]:
        return await asyncio.gather(*(stage.leases.may_call("desk", 1.0) for _ in range(5)))

    assert run(all_of_them()) == [True] * 3 + [False] * 2
    assert stage.takes == 1
    assert stage.tat() == 3 * 1_000
    assert run(all_of_them()) == [False] * 5
    assert stage.takes == 1  # what was seen last says enough
    assert run(stage.leases.may_call("free", 1.0))


def test_what_others_have_taken_since_is_seen_and_asked_for_once_more() -> None:
    stage = Stage(Rate(1, 3))
    FakeLedger(stage.tables).take("desk", 2_000, stage.clock.now, stage.clock.now)

    async def all_of_them() -> list[bool]:
        return await asyncio.gather(*(stage.leases.may_call("desk", 1.0) for _ in range(3)))

    assert run(all_of_them()) == [True, False, False]
    assert stage.takes == 1 + 2
    assert stage.tat() == 3 * 1_000


def test_while_the_provider_has_asked_for_a_pause_nobody_calls_who_will_not_wait() -> None:
    stage = Stage()
    stage.states["desk"] = IntegrationState("desk", paused_until_ms=stage.clock.now + 1)
    assert not run(stage.leases.may_call("desk", 1.0))
    stage.clock.advance(1)
    assert run(stage.leases.may_call("desk", 1.0))


def test_a_worker_that_dies_while_it_asks_for_now_leaves_nobody_waiting_for_ever() -> None:
    stage = Stage()
    stage.tables.faults.on_before = _die
    asked = together(stage, stage.leases.may_call("desk", 1.0), stage.leases.may_call("desk", 1.0))
    assert [type(answer) for answer in asked] == [Died, Died]


def test_beyond_an_hour_whoever_is_refused_asks_again_at_a_time_of_its_own() -> None:
    stage = Stage(Rate(1, 1))
    FakeLedger(stage.tables).take("desk", HORIZON_MS + 5_000, stage.clock.now, stage.clock.now)
    lease = run(stage.leases.take("a", [Demand("desk", 1)]))
    slot = lease.next("desk")
    assert slot is not None
    assert not slot.is_owned
    assert slot.at_ms == stage.clock.now + 5_000 + HORIZON_MS // 20
    assert lease.kept() == {}
    assert lease.set_aside("desk", 1, stage.clock.now) == 0


def test_without_the_table_all_environments_together_stay_below_the_rate(proved: Callable[[str], None]) -> None:
    """002.25: the shares of as many environments as may run, over ten minutes."""
    calls = []
    for _ in range(ENVIRONMENTS):
        stage = Stage(RATE)
        stage.tables.faults.fail("ledger.take", StorageUnavailable("down"), times=10_000)
        for _ in range(600):
            lease = run(stage.leases.take("a", [Demand("desk", 2)]))
            calls += [stage.clock.now for at_ms in held([lease]) if at_ms <= stage.clock.now]
            stage.clock.advance(1_000)
    assert 0.8 * 600 * RATE.per_second < len(calls) <= 600 * RATE.per_second + ENVIRONMENTS + RATE.burst
    proved(
        f"limiter: without its table {ENVIRONMENTS} environments make {len(calls) / 600:.1f} calls/s of a rate of "
        f"{RATE.per_second}/s"
    )


def test_what_a_row_keeps_is_whole_and_still_to_come_or_nothing() -> None:
    stage = Stage(Rate(1, 1))
    lease = run(stage.leases.take("a", [Demand("desk", 4)]))
    now_ms = stage.clock.now
    assert lease.ready().at_ms == now_ms + 3_000
    assert lease.kept() == {"desk": now_ms + 3_000}
    assert lease.set_aside("desk", 1, now_ms) == 0  # it could be used now, and would be late
    assert lease.set_aside("desk", 2, now_ms) == now_ms + 2_000
    assert lease.set_aside("desk", 2, now_ms) == 0  # one is no two
    assert lease.set_aside("sms", 1, now_ms) == 0


# -------------------------------------------------------------------------------------------------------- wrong clocks


class Environment:
    """One of several over the same tables, with a clock of its own, `ahead_ms` of the right one."""

    def __init__(self, stage: Stage, ahead_ms: int = 0) -> None:
        self.stage = stage
        self.ahead_ms = ahead_ms
        self.shares: dict[str, int] = {}
        self.made: list[int] = []  # when its calls are made, by the right clock

    def batch(self, calls: int = 1) -> list[Slot]:
        """One invocation: it reads the control items, and asks."""
        clock = FakeClock(self.stage.clock.now + self.ahead_ms)
        states = dict(self.stage.tables.integrations)
        leases = Leases(Ports(**self.stage.given | {"clock": clock}), 1.0, states, self.shares)
        slots = run(leases.take("a", [Demand("desk", calls)])).slots["desk"]
        self.made += [max(slot.at_ms, clock.now) - self.ahead_ms for slot in slots if slot.is_owned]
        return list(slots)

    def now_or_not(self, calls: int = 1) -> int:
        """One invocation whose calls are made at once or not at all."""
        clock = FakeClock(self.stage.clock.now + self.ahead_ms)
        states = dict(self.stage.tables.integrations)
        leases = Leases(Ports(**self.stage.given | {"clock": clock}), 1.0, states, self.shares)
        return sum([run(leases.may_call("desk", 1.0)) for _ in range(calls)])


HOURS_MS = 5 * HORIZON_MS


def test_one_workers_clock_that_was_hours_ahead_keeps_nobody_waiting_for_hours() -> None:
    """002.25: its number is seen to stand still for a minute, and then everybody goes on at the rate, with no burst."""
    stage = Stage()
    Environment(stage, HOURS_MS).batch(4)
    assert stage.tat() == HOURS_MS + 4 * 100
    others = [Environment(stage), Environment(stage)]
    for each in others:
        (slot,) = each.batch()
        waits_ms = slot.at_ms - stage.clock.now
        assert (slot.is_owned, 60_000 <= waits_ms <= 120_000) == (False, True)
    stage.clock.advance(59_999)
    assert not others[0].batch()[0].is_owned
    assert "limits_put_right" not in stage.quiet.counts
    stage.clock.advance(1)
    slots = [slot for each in others for slot in each.batch(3)]
    assert [slot.at_ms - stage.clock.now for slot in slots] == [0, 100, 200, 300, 400, 500]
    assert stage.quiet.counts["limits_put_right"] == 1
    assert stage.tables.integrations["desk"].busy_from_ms == stage.clock.now


def test_what_is_made_now_or_not_at_all_goes_on_too() -> None:
    """002.25: the LLM is not left unasked for hours."""
    stage = Stage()
    Environment(stage, HOURS_MS).batch()
    other = Environment(stage)
    assert other.now_or_not() == 0
    stage.clock.advance(60_000)
    assert other.now_or_not() == 1
    assert other.now_or_not() == 0  # no burst
    stage.clock.advance(100)
    assert other.now_or_not() == 1


def test_a_clock_that_is_hours_behind_puts_nothing_right_while_the_others_are_at_work() -> None:
    """002.25: to it the others' number is hours ahead, but it moves. The rate holds, and only its own calls wait."""
    stage = Stage(Rate(10, 5))
    late, right = Environment(stage, -HOURS_MS), Environment(stage)
    for _ in range(600):
        right.batch(9)
        late.batch(3)
        stage.clock.advance(1_000)
    assert "limits_put_right" not in stage.quiet.counts
    assert late.made == []
    assert most_over(right.made, Rate(10, 5)) <= 0


def test_a_number_that_cannot_be_put_right_is_asked_about_again() -> None:
    stage = Stage()
    Environment(stage, HOURS_MS).batch()
    other = Environment(stage)
    other.batch()
    stage.clock.advance(60_000)
    stage.tables.faults.fail("ledger.put_right", StorageUnavailable("throttled"))
    assert not other.batch()[0].is_owned
    assert other.batch()[0].at_ms == stage.clock.now


def test_a_pause_that_came_meanwhile_is_not_gone_over() -> None:
    """003.17: the provider has said when to come back, and that is hours from now."""
    stage = Stage()
    Environment(stage, HOURS_MS).batch()
    other = Environment(stage)
    other.batch()
    stage.clock.advance(60_000)
    before, faults = stage.tables.integrations["desk"], stage.tables.faults

    def pauses(op: str) -> None:
        if op == "ledger.put_right":
            stage.tables.integrations["desk"] = replace(before, paused_until_ms=stage.clock.now + HOURS_MS)

    faults.on_before = pauses
    assert not other.batch()[0].is_owned
    assert stage.tables.integrations["desk"].tat_ms == before.tat_ms
    assert "limits_put_right" not in stage.quiet.counts


def test_an_environments_own_share_is_never_further_ahead_than_what_it_has_granted() -> None:
    """002.25: a clock that was ahead while the control table was away leaves the share usable once it is right."""
    stage = Stage(Rate(10, 20))
    environment = Environment(stage, HOURS_MS)
    stage.tables.faults.fail("ledger.take", StorageUnavailable("throttled"), times=2)
    environment.batch()
    environment.ahead_ms = 0
    assert environment.batch()[0].at_ms > stage.clock.now  # its burst counts as made
    stage.clock.advance(2 * 16 * 100)
    stage.tables.faults.fail("ledger.take", StorageUnavailable("throttled"))
    assert environment.batch()[0].at_ms == 0
