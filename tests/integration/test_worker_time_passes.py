"""Time that passes where code seems to stand still: between the gate's word and the first byte, and between a dead
worker's claim and its last send.

A mark in the ledger, a read, a lookup, a count: each is a request, and a worker may be frozen in any of them for longer
than its lease. So the gate is asked again after each (002.14, 002.19, 002.33). And whoever goes on from a dead worker
reckons with a send at the very end of its lease, because a lookup is believed only a settle delay after that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from functions.core.decision import Action
from functions.core.failure import Done, Failure, NetworkCause, failure_of_network, failure_of_status
from functions.core.gate import WaitingFor
from functions.core.ports import Absent, Call, Hint, SettingState
from functions.core.recovery import OUTCOME_UNKNOWN, Row, Status, replay
from functions.worker.handler import build as build_worker
from tests.crash.world import WORKER
from tests.fakes import LIVE_SWITCHES, NOON_MS, FakeRecovery
from tests.worker_world import ACTIONS, DESK, VISIBILITY_MS, Died, Message, Provider, World

INDEX_LAG_MS = 170_000  # a little less than the kinds' settle delay of 180 s
LATE_MS = 40_000  # into its invocation a worker may still send
REFUSED = failure_of_network(NetworkCause.CONNECT_REFUSED)
REJECTED = failure_of_status(422)
LOST = failure_of_network(NetworkCause.RESET)


class Queue(list[Message]):
    """Deleting what somebody else has deleted since changes nothing, as in SQS."""

    def remove(self, message: Message) -> None:
        if message in self:
            super().remove(message)


class SlowProvider(Provider):
    """Its answer holds for the moment at which it was asked, and may be long on its way."""

    async def look_up(self, action: Action, call: Call) -> Done | Absent | Failure:
        found = await super().look_up(action, call)
        self.faults.after(f"answer.look_up.{action.name}")
        return found

    async def read_setting(self, action: Action, call: Call) -> SettingState | Failure:
        state = await super().read_setting(action, call)
        self.faults.after(f"answer.read_setting.{action.name}")
        return state


class LaggingProvider(Provider):
    """Its lookup misses what is younger than its index."""

    async def look_up(self, action: Action, call: Call) -> Done | Absent | Failure:
        found = await super().look_up(action, call)
        sent_at = max((at for at, name in self.sent if name == action.name), default=0)
        return Absent() if self.clock.now - sent_at < INDEX_LAG_MS else found


def only_row(world: World, name: str) -> Row:
    return next(row for row in world.tables.rows.values() if row.action is not None and row.action.name == name)


def at_first(world: World, op: str, then: Callable[[], None]) -> list[str]:
    """Once, when `op` has been done and before its caller knows. What is given is empty until then."""
    seen: list[str] = []

    def on_after(done: str) -> None:
        if done == op and not seen:
            seen.append(done)
            then()

    world.faults.on_after = on_after
    return seen


def dies_in_its_next_send(world: World, name: str) -> None:
    """The provider has done it, and nobody is told."""

    def die() -> None:
        raise Died(name)

    at_first(world, f"provider.send.{name}", die)


def answers_once(world: World, name: str, failure: Failure) -> None:
    """The first send of that action does nothing and is answered like that."""
    left = [1]

    def answer(action: Action) -> Failure | None:
        if action.name != name or not left[0]:
            return None
        left[0] -= 1
        return failure

    world.provider.acts_on_failure = False
    world.provider.answers.append(answer)


# ------------------------------------------------------------------------------------- from the gate to the first byte

READS = {"reply": "answer.look_up.reply", "assign": "answer.read_setting.assign"}


def slow_world(name: str) -> World:
    world = World(("tag", name))
    world.provider = SlowProvider(world.faults, world.clock)
    return world


@pytest.mark.parametrize("name", ["push", "assign", "reply"])
def test_what_is_disabled_during_the_request_before_a_send_is_not_called_any_more(name: str) -> None:
    """002.14: the mark of a blind action, the read of a setting, a lookup: each may take long."""
    world = slow_world(name)
    world.accept(world.event())
    if name != "push":
        answers_once(world, name, LOST)
        world.deliver()
        world.clock.advance(300_000)
        world.sweep()
        world.clock.advance(60_000)

    def disabled_meanwhile() -> None:
        world.switches.values["disabled_integrations"] = "desk"
        world.clock.advance(31_000)  # longer than the switches count as fresh for what no customer sees

    seen = at_first(world, READS.get(name, "ledger.mark"), disabled_meanwhile)
    world.deliver()

    assert seen
    assert name not in [sent for _, sent in world.provider.sent]
    assert only_row(world, name).waiting_for is WaitingFor.SWITCH
    assert only_row(world, name).is_open

    world.switches.values["disabled_integrations"] = "none"
    world.run_until_quiet()
    assert [sent for _, sent in world.provider.sent].count(name) == 1


def _frozen(world: World, op: str, meanwhile: Callable[[], None] = lambda: None) -> list[list[tuple[int, str]]]:
    """Whoever has done `op` is frozen for longer than its lease, and everybody else comes to an end. Gives what was
    sent by then.
    """
    sent: list[list[tuple[int, str]]] = []

    def freeze() -> None:
        world.clock.advance(VISIBILITY_MS + 1_000)
        with ThreadPoolExecutor(1) as others:
            others.submit(world.run_until_quiet).result()
        meanwhile()
        world.visibility.delays.clear()
        sent.append(list(world.provider.sent))

    world.messages = Queue()
    at_first(world, op, freeze)
    return sent


def test_whoever_thaws_after_a_blind_mark_does_not_send_what_a_person_has_by_now() -> None:
    world = World(("tag", "push"))
    event = world.event()
    sent = _frozen(world, "ledger.mark")
    world.accept(event)
    world.deliver()

    assert [world.provider.sent] == sent
    assert only_row(world, "push").status is Status.FAILED
    assert "push" not in [name for _, name in world.provider.sent]
    world.run_until_quiet()
    world.check_settled(event)


def test_whoever_thaws_after_it_counted_a_reply_does_not_send_it_a_second_time() -> None:
    world = World(("tag", "reply"))
    event = world.event()
    sent = _frozen(world, "caps.count")
    world.accept(event)
    world.deliver()

    assert [world.provider.sent] == sent
    assert [name for _, name in world.provider.sent].count("reply") == 1
    world.run_until_quiet()
    world.check_settled(event)


def test_whoever_thaws_after_a_lookup_found_nothing_does_not_send_it_a_second_time() -> None:
    world = slow_world("reply")
    event = world.event()
    answers_once(world, "reply", LOST)
    world.accept(event)
    world.deliver()
    sent = _frozen(world, READS["reply"])
    world.run_until_quiet()

    assert [world.provider.sent] == sent
    assert [name for _, name in world.provider.sent].count("reply") == 1
    world.check_settled(event)


def test_whoever_thaws_after_reading_a_setting_does_not_overwrite_what_a_person_set_since() -> None:
    world = slow_world("assign")
    event = world.event()
    answers_once(world, "assign", LOST)
    world.accept(event)
    world.deliver()

    def a_person_sets_it() -> None:
        world.provider.settings["t1"] = ("a person's", world.clock.now)

    sent = _frozen(world, READS["assign"], a_person_sets_it)
    world.run_until_quiet()

    assert [world.provider.sent] == sent
    assert world.provider.settings["t1"][0] == "a person's"


def test_a_replay_whose_hint_is_under_way_waits_when_replays_are_switched_off() -> None:
    """004.20: what the replay was allowed by, a moment ago, does not count any more."""
    world = World(("tag",))
    world.provider.answers.append(lambda action: REJECTED if not world.clock.now - NOON_MS else None)
    world.accept(world.event())
    world.deliver()
    world.clock.advance(1_000)
    dead = only_row(world, "tag")
    asked = replay(dead, world.clock.now, actor="ops", reason="mended", request_id="r", job_id="j", scale=1.0)
    FakeRecovery(world.tables).commit([asked])
    world.replays.send([Hint(dead.recovery_id, asked.after.version)], world.clock.now)
    world.switches.values["replay"] = "off"
    world.clock.advance(31_000)
    world.deliver()

    assert not world.provider.sent
    assert only_row(world, "tag").waiting_for is WaitingFor.SWITCH
    assert only_row(world, "tag").status is Status.REPLAYED

    world.switches.values["replay"] = "on"
    world.run_until_quiet()
    assert [name for _, name in world.provider.sent] == ["tag"]


# ------------------------------------------------------------------------- from a dead worker's claim to its last send


def test_a_takeover_of_an_event_reckons_with_a_send_at_the_end_of_the_dead_workers_lease() -> None:
    """Sent 40 s after the claim, and in the index 170 s after that: a lookup 180 s after the claim would miss it."""
    world = World(("tag", "reply"))
    world.provider = LaggingProvider(world.faults, world.clock)
    event = world.event()
    world.accept(event)

    def on_after(op: str) -> None:
        if op == "provider.send.tag" and not world.deaths:
            world.clock.advance(LATE_MS)
        if op == "provider.send.reply" and not world.deaths:
            raise Died(op)

    world.faults.on_after = on_after
    world.deliver()
    assert world.deaths == 1
    world.clock.advance(26_000)  # the lease has just ended, and its message is there again
    world.messages[0].visible_at_ms = world.clock.now
    world.run_until_quiet()

    world.check_settled(event)
    assert [name for _, name in world.provider.sent].count("reply") == 1
    assert only_row(world, "reply").status is Status.SUCCEEDED


def test_a_takeover_of_a_row_reckons_with_a_send_at_the_end_of_the_dead_workers_lease() -> None:
    world = World(("tag", "reply"))
    world.provider = LaggingProvider(world.faults, world.clock)
    event = world.event()
    answers_once(world, "reply", REFUSED)
    world.accept(event)
    world.deliver()
    assert only_row(world, "reply").status is Status.RETRYING

    def on_after(op: str) -> None:
        if op == "caps.count" and not world.deaths:
            world.clock.advance(LATE_MS)
        if op == "provider.send.reply" and not world.deaths:
            raise Died(op)

    world.faults.on_after = on_after
    world.run_until_quiet()

    assert world.deaths == 1
    world.check_settled(event)
    assert [name for _, name in world.provider.sent].count("reply") == 1
    assert only_row(world, "reply").status is Status.SUCCEEDED


# ------------------------------------------------------------------------------------------------ whose message it is


def _frozen_before_it_settles(world: World, new_owner: Callable[[], None]) -> None:
    """The first who has done its work is frozen for longer than its lease, and the event has a new owner, who dies."""
    seen: list[str] = []

    def freeze(op: str) -> None:
        if op != "ledger.settle" or seen:
            return
        seen.append(op)
        world.clock.advance(VISIBILITY_MS + 1_000)
        new_owner()
        with ThreadPoolExecutor(1) as other:
            other.submit(world.deliver).result()
        world.visibility.delays.clear()

    world.messages = Queue()
    world.accept(world.event())
    world.faults.on_before = freeze
    world.deliver()
    assert (len(seen), world.deaths) == (1, 1)


def test_whoever_thaws_after_its_lease_leaves_the_message_to_its_new_owner() -> None:
    """002.33: the new owner dies too, and the message that the first would have acknowledged is all that is left."""
    world = World(("tag",))
    event = world.event()
    _frozen_before_it_settles(world, lambda: dies_in_its_next_send(world, "tag"))
    world.run_until_quiet()

    world.check_settled(event)


def test_whoever_thaws_after_its_lease_does_not_settle_over_what_its_new_owner_did() -> None:
    """To the first it was disabled, and should wait as a row; the new owner sent it, and died."""
    world = World(("tag", "push"), {**LIVE_SWITCHES, "disabled_integrations": "desk"})
    event = world.event()

    def enabled_again() -> None:
        world.switches.values["disabled_integrations"] = "none"
        dies_in_its_next_send(world, "push")

    _frozen_before_it_settles(world, enabled_again)
    world.run_until_quiet()

    assert [name for _, name in world.provider.sent].count("push") == 1
    assert only_row(world, "push").failure_code == OUTCOME_UNKNOWN
    world.check_settled(event)


def test_a_call_that_is_late_is_over_when_its_handler_returns() -> None:
    """In a warm process the next invocation would let it go on: an effect that nobody waits for any more."""
    world = World(("tag",))
    world.integrations[DESK] = replace(world.integrations[DESK], deadline_seconds=0.05)
    honest = world.provider.send

    async def late(action: Action, call: Call) -> Done | Failure:
        await asyncio.sleep(0.2)
        return await honest(action, call)

    world.provider.send = late  # type: ignore[method-assign]  # for this test only
    loop = asyncio.new_event_loop()  # one for all invocations of a process, as in Lambda
    try:
        handler = build_worker(WORKER, world.ports(), run=loop.run_until_complete)
        record = {
            "messageId": "m1",
            "receiptHandle": "m1",
            "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:events",
            "attributes": {"ApproximateReceiveCount": "1"},
            "body": world.event().to_message(),
        }
        assert handler({"Records": [record]}, None) == {"batchItemFailures": []}
        assert not asyncio.all_tasks(loop)
        loop.run_until_complete(asyncio.sleep(0.4))  # the next invocation
    finally:
        loop.close()

    assert not world.provider.sent
    assert only_row(world, "tag").failure_code == "DEADLINE_EXCEEDED"


# -------------------------------------------------------------------------------------------- what waits for one parent


def test_everything_that_waited_for_one_action_is_sent_once_that_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """002.33: a child that nobody releases would be open for ever, without a time at which anybody looks."""
    second = replace(ACTIONS["create"], name="second", params={"what": "another"}, requires=("tag",))
    monkeypatch.setitem(ACTIONS, "first", replace(ACTIONS["create"], name="first", requires=("tag",)))
    monkeypatch.setitem(ACTIONS, "second", second)
    world = World(("tag", "first", "second"))
    answers_once(world, "tag", REFUSED)
    event = world.event()
    world.accept(event)
    world.run_until_quiet()

    assert sorted(name for _, name in world.provider.sent) == ["first", "second", "tag"]
    assert {row.status for row in world.tables.rows.values()} == {Status.SUCCEEDED}
    world.check_settled(event)
