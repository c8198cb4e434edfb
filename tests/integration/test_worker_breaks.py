"""Ways in which the three promises were once broken, each by a hostile order of things: nothing acknowledged is lost,
no effect twice, no failure silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from functions.core.attempt import Effect
from functions.core.decision import Action, Classification, Mode, Repeat
from functions.core.failure import (
    Done,
    Failure,
    MalformedDecision,
    NetworkCause,
    failure_of_network,
    failure_of_status,
)
from functions.core.gate import WaitingFor
from functions.core.ledger import Claim, LedgerStatus
from functions.core.ports import Absent, BatchView, Call, Hint
from functions.core.recovery import SUPPRESSED, Row, Status, replay
from functions.flows.flow import Finding, Prepared
from functions.worker.first_pass import OVERTAKEN
from tests import worker_world
from tests.fakes import LIVE_SWITCHES, FakeLedger, FakeRecovery
from tests.worker_world import ACTIONS, TENANT, TIMEOUT_SECONDS, VISIBILITY_MS, Died, Message, Provider, World, refuses

PREPARED = Prepared("t1", "hello", {}, needs_llm=True, finding=Finding(worker_world.SAID))
INDEX_LAG_MS = 150_000  # less than the kinds' settle delay of 180 s


class LaggingProvider(Provider):
    """Its lookup misses what is younger than its index."""

    async def look_up(self, action: Action, call: Call) -> Done | Absent | Failure:
        found = await super().look_up(action, call)
        sent_at = max((at for at, name in self.sent if name == action.name), default=0)
        return Absent() if self.clock.now - sent_at < INDEX_LAG_MS else found


def rows(world: World) -> dict[str, Row]:
    """The rows by their action's name, or `event`."""
    return {row.action.name if row.action else "event": row for row in world.tables.rows.values()}


def replayed(world: World, row: Row) -> None:
    again = replay(row, world.clock.now, actor="ops", reason="go on", request_id="r", job_id="j", scale=1.0)
    FakeRecovery(world.tables).commit([again])


def dies_once_after(world: World, op: str) -> None:
    """The first process that has done `op` dies of it."""

    def die(seen: str) -> None:
        if seen == op and not world.deaths:
            raise Died(op)

    world.faults.on_after = die


# ---------------------------------------------------------------------------------------------------- an effect twice


def test_a_takeover_without_time_left_hands_on_until_when_the_dead_worker_may_have_sent() -> None:
    """A reply must not be looked up, and sent again, before the provider's index can be believed."""
    world = World(("tag", "reply"))
    world.provider = LaggingProvider(world.faults, world.clock)
    event = world.event()
    world.accept(event)
    dies_once_after(world, "provider.send.reply")
    world.deliver()
    assert world.deaths == 1

    def slow_claim(op: str) -> None:
        if op == "ledger.claim":
            world.faults.on_after = None
            world.clock.advance(50_000)

    world.clock.advance((TIMEOUT_SECONDS + 5) * 1000)  # the lease is over, and the message is there again
    world.messages[0].visible_at_ms = world.clock.now
    world.faults.on_after = slow_claim
    world.run_until_quiet()

    assert world.faults.calls.count("ledger.release") == 1
    world.check_settled(event)
    assert [name for _, name in world.provider.sent].count("reply") == 1


def test_what_a_worker_gave_back_untouched_is_simply_sent_by_the_next() -> None:
    """Nobody can have sent it, so nothing is looked up or read first, and no settle delay is waited for."""
    world = World(("tag", "assign", "reply"))
    event = world.event()
    world.accept(event)

    def slow(op: str) -> None:
        if op == "ledger.claim" and not world.faults.calls.count("ledger.release"):
            world.clock.advance(50_000)  # of the 54 s of an invocation

    world.faults.on_after = slow
    world.deliver()
    assert world.faults.calls.count("ledger.release") == 1
    assert not world.provider.sent

    world.clock.advance(10_000)
    world.deliver()

    assert [name for _, name in world.provider.sent] == ["tag", "assign", "reply"]
    assert not [op for op in world.faults.calls if op.startswith(("provider.look_up", "provider.read_setting"))]
    world.check_settled(event)
    assert world.quiet.counts.get("takeovers", 0) == 0


def test_a_reply_is_not_sent_with_a_new_credential_after_the_kill_switch_was_thrown() -> None:
    """The gate is asked before every first byte: the second try after a refused credential is one."""
    world = World(("tag", "reply", "instead"))

    def refused(action: Action) -> Failure | None:
        if action.name != "reply" or world.provider.credential != "1":
            return None
        world.provider.credential = "2"
        world.switches.values["auto_reply"] = "off"
        world.clock.advance(6_000)
        return failure_of_status(401)

    world.provider.answers.append(refused)
    world.accept(world.event())
    world.run_until_quiet()

    assert [name for _, name in world.provider.sent] == ["tag", "instead"]
    assert rows(world)["reply"].failure_code == SUPPRESSED


def test_a_reply_that_a_lookup_did_not_find_is_not_sent_after_the_kill_switch_was_thrown() -> None:
    world = World(("tag", "reply", "instead"))
    world.provider.acts_on_failure = False
    world.provider.answers.append(refuses("reply", failure_of_status(503), 1))

    def thrown_meanwhile(op: str) -> None:
        if op == "provider.look_up.reply":
            world.switches.values["auto_reply"] = "off"
            world.clock.advance(6_000)

    world.faults.on_after = thrown_meanwhile
    world.accept(world.event())
    world.run_until_quiet()

    assert world.faults.calls.count("provider.look_up.reply") == 1
    assert [name for _, name in world.provider.sent] == ["tag", "instead"]


def test_a_claim_reckons_with_an_owner_that_came_and_died_after_the_ledger_was_read() -> None:
    world = World(("tag", "reply"))
    world.provider = LaggingProvider(world.faults, world.clock)
    event = world.event()
    world.accept(event, copies=2)

    def another_dies(op: str) -> None:
        if op == "ledger.read":
            dies_once_after(world, "provider.send.reply")
            with ThreadPoolExecutor(1) as other:
                other.submit(world.deliver, 1).result()
            world.visibility.delays.clear()
            world.clock.advance((TIMEOUT_SECONDS + 5) * 1000)

    world.faults.on_after = another_dies
    world.deliver(1)
    assert world.deaths == 1
    for message in world.messages:
        message.visible_at_ms = world.clock.now
    world.run_until_quiet()

    world.check_settled(event)
    assert [name for _, name in world.provider.sent].count("reply") == 1


def test_a_reply_that_a_dying_worker_suppressed_is_not_released_by_the_switch() -> None:
    """002.14: its stand-in is out, people have the ticket, and the next worker finds the switch on again."""
    world = World(("tag", "reply", "instead"), {**LIVE_SWITCHES, "auto_reply": "off"})
    event = world.event()
    world.accept(event)
    dies_once_after(world, "provider.send.instead")
    world.deliver()
    assert world.deaths == 1

    world.switches.values["auto_reply"] = "on"
    world.run_until_quiet()

    assert [name for _, name in world.provider.sent].count("reply") == 0
    assert rows(world)["reply"].failure_code == SUPPRESSED
    assert rows(world)["reply"].stand_in is None
    world.check_settled(event)


def test_a_replayed_reply_that_is_suppressed_again_does_not_repeat_its_stand_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = Action("instead", "desk.push", "desk", Repeat.BLIND, "t1", {"what": "page"}, instead_of="reply")
    monkeypatch.setitem(ACTIONS, "instead", page)
    world = World(("tag", "reply", "instead"), {**World().switches.values, "auto_reply": "off"})
    event = world.event()
    world.accept(event)
    world.run_until_quiet()
    replayed(world, rows(world)["reply"])
    world.run_until_quiet()

    assert rows(world)["reply"].failure_code == SUPPRESSED
    assert [name for _, name in world.provider.sent] == ["tag", "instead"]


def test_a_snapshot_of_the_switches_from_after_the_present_is_no_fresh_one() -> None:
    """A clock that was set back must not make an old snapshot new."""
    world = World(("tag", "reply"))
    world.switches.snapshot(0)
    world.clock.advance(-60_000)
    world.switches.values["auto_reply"] = "off"
    world.accept(world.event())
    world.run_until_quiet()

    assert [name for _, name in world.provider.sent] == ["tag"]


# ------------------------------------------------------------------------------------------------- something forgotten


def test_an_event_that_waited_on_hold_is_not_used_up_by_shadow() -> None:
    """It was acknowledged to be processed: shadow only looks."""
    world = World(("tag",), {**World().switches.values, "mode": "hold"})
    event = world.event()
    world.accept(event)
    world.deliver()
    world.switches.values["mode"] = "live"
    world.clock.advance(60_000)
    world.sweep()  # its hint is under way
    world.switches.values["mode"] = "shadow"
    world.clock.advance(31_000)
    world.deliver()
    assert rows(world)["event"].is_open

    world.switches.values["mode"] = "live"
    world.clock.advance(60_000)
    world.run_until_quiet()
    world.check_settled(event)
    assert world.provider.effects


def test_shadow_does_not_forget_an_event_that_a_dead_worker_left_half_done() -> None:
    world = World(("tag", "assign"))
    event = world.event()
    world.accept(event)
    dies_once_after(world, "provider.send.tag")
    world.deliver()
    world.switches.values["mode"] = "shadow"
    for _ in range(15):
        world.clock.advance(60_000)
        world.deliver()
    assert world.tables.ledger[f"E#{TENANT}#{event.event_id}"].status is LedgerStatus.SETTLED
    assert {row.waiting_for for row in rows(world).values()} == {WaitingFor.SWITCH}

    world.switches.values["mode"] = "live"
    world.run_until_quiet()
    world.check_settled(event)


def test_an_unreadable_ledger_item_keeps_no_neighbour_in_the_batch_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(("tag",))
    good, bad = world.event("good"), world.event("bad")
    honest = FakeLedger.read

    def read(self: FakeLedger, keys: Sequence[str], integrations: Sequence[str], **asked: bool) -> BatchView:
        if any(key.endswith(bad.event_id) for key in keys):
            raise MalformedDecision(bad.event_id)
        return honest(self, keys, integrations, **asked)

    monkeypatch.setattr(FakeLedger, "read", read)
    world.accept(bad)
    world.accept(good)
    world.deliver()

    assert world.tables.ledger[f"E#{TENANT}#{good.event_id}"].status is LedgerStatus.SETTLED
    assert [message.body for message in world.messages] == [bad.to_message()]


def test_a_reply_that_may_have_been_sent_and_waits_for_a_dead_parent_ends_when_it_expires() -> None:
    world = World(("tag", "reply"))
    event = world.event()
    world.accept(event)
    dies_once_after(world, "provider.send.reply")
    world.deliver()
    world.provider.answers.append(refuses("tag", failure_of_status(422)))
    world.run_until_quiet()
    assert rows(world)["reply"].effect is Effect.UNKNOWN
    world.clock.advance(8 * 86_400_000)
    world.sweep()
    while world.deliver():
        pass
    world.clock.advance(60_000)
    world.sweep()
    while world.deliver():
        pass

    assert not rows(world)["reply"].is_open
    assert world.provider.effects[world.decision_of(event).action("reply").action_id] == 1


def test_the_older_of_two_equal_messages_is_done_first_when_both_come_in_one_batch() -> None:
    """Beyond the repeat window they are two events, in whatever order a queue gives them."""
    world = World(("push",))
    older = world.event(repeat_window_seconds=600)
    world.clock.advance(700_000)
    newer = world.event(repeat_window_seconds=600)
    world.accept(newer)
    world.accept(older)
    world.run_until_quiet()

    assert sum(world.provider.effects.values()) == 2


def test_an_equal_message_that_a_newer_one_overtook_is_kept_for_a_person_and_not_sent_twice() -> None:
    """The ledger remembers the newer one only: it cannot tell whether the older one was done before it."""
    world = World(("push",))
    older = world.event(repeat_window_seconds=600)
    world.clock.advance(700_000)
    world.accept(world.event(repeat_window_seconds=600))
    world.run_until_quiet()
    world.accept(older)
    world.run_until_quiet()

    assert sum(world.provider.effects.values()) == 1
    assert (rows(world)["event"].status, rows(world)["event"].failure_code) == (Status.FAILED, OVERTAKEN)
    assert world.envelopes.get(rows(world)["event"].envelope_ref) == older


def test_an_older_message_that_finishes_a_newer_one_s_work_is_not_taken_for_it() -> None:
    world = World(("tag", "push"))
    older = world.event(repeat_window_seconds=600)
    world.clock.advance(700_000)
    world.accept(world.event(repeat_window_seconds=600))
    dies_once_after(world, "provider.send.tag")
    world.deliver()
    world.clock.advance((TIMEOUT_SECONDS + 5) * 1000)
    world.accept(older)
    world.run_until_quiet()

    assert rows(world)["event"].failure_code == OVERTAKEN
    assert sorted(name for _, name in world.provider.sent) == ["push", "tag", "tag"]


# ------------------------------------------------------------------------------------------------------ left to itself


def test_a_classifier_that_raises_counts_as_one_that_gave_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of one adapter must not keep events from being routed."""
    asked: list[str] = []

    async def broken(self: object, text: str, labels: Mapping[str, str], deadline_ms: int) -> Classification:
        asked.append(text)
        raise RuntimeError("a defect")

    monkeypatch.setattr(worker_world.NoClassifier, "classify", broken)
    monkeypatch.setattr(worker_world.EveryKind, "prepare", lambda self, event: PREPARED)
    world = World(("tag",))
    event = world.event()
    world.accept(event)
    world.deliver()

    assert asked
    world.check_settled(event)


def test_the_handler_returns_only_when_every_event_s_work_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A send that thawed in a later invocation would be outside its lease."""
    world = World(("tag",))
    slow, broken = world.event("slow"), world.event("broken")
    ended: list[str] = []
    honest = Provider.send

    async def send(self: Provider, action: Action, call: Call) -> Done | Failure:
        try:
            await asyncio.sleep(0.01)
            return await honest(self, action, call)
        finally:
            ended.append("slow")

    def fails(op: str) -> None:
        if op == "visibility.delay":
            raise RuntimeError("a defect outside of every guard")

    claim = Claim(
        key=f"E#{TENANT}#{broken.event_id}",
        owner="another worker",
        now_ms=world.clock.now,
        lease_until_ms=world.clock.now + 30_000,
        received_at_ms=broken.received_at_ms,
        epoch_ms=broken.epoch_ms,
        payload_hash=broken.payload_hash,
        decision=worker_world.EveryKind(("tag",)).decide(broken, PREPARED, None, Mode.LIVE, world.clock.now),
    )
    FakeLedger(world.tables).claim(claim)
    world.accept(broken)
    world.accept(slow)
    monkeypatch.setattr(Provider, "send", send)
    world.faults.on_before = fails
    with pytest.raises(RuntimeError):
        world.deliver()

    assert ended == ["slow"]
    assert world.tables.ledger[f"E#{TENANT}#{slow.event_id}"].status is LedgerStatus.SETTLED


def test_a_429_met_by_a_lookup_holds_the_whole_fleet() -> None:
    """002.24"""
    world = World(("tag", "reply"))
    event = world.event()
    world.accept(event)
    world.provider.answers.append(refuses("reply", failure_of_status(503), 1))
    honest = world.provider.look_up

    async def throttled(action: Action, call: Call) -> Done | Absent | Failure:
        world.provider.look_up = honest  # type: ignore[method-assign]
        return failure_of_status(429, retry_after_ms=600_000)

    world.provider.look_up = throttled  # type: ignore[method-assign]
    for _ in range(6):
        world.deliver()
        world.sweep()
        world.clock.advance(60_000)

    assert world.tables.integrations["desk"].paused_until_ms > world.clock.now


# -------------------------------------------------------------------------------------------------- a worker that thaws


class Queue(list[Message]):
    """Deleting what somebody else has deleted since changes nothing, as in SQS."""

    def remove(self, message: Message) -> None:
        if message in self:
            super().remove(message)


def refused_once(world: World) -> None:
    for name in world.names:
        world.provider.answers.append(refuses(name, failure_of_network(NetworkCause.CONNECT_REFUSED), 1))


def unanswered_once(world: World) -> None:
    for name in world.names:
        world.provider.answers.append(refuses(name, failure_of_network(NetworkCause.RESET), 1))


@pytest.mark.parametrize(
    "setup", [lambda world: None, refused_once, unanswered_once], ids=["healthy", "refused", "reset"]
)
def test_whoever_thaws_after_its_lease_sends_nothing_and_undoes_nothing(setup: Callable[[World], None]) -> None:
    """Frozen before any of its requests, for longer than its lease, while others finish its work."""
    probe = World()
    setup(probe)
    probe.accept(probe.event())
    probe.run_until_quiet()
    thaws = 0
    for position, op in enumerate(probe.faults.calls, start=1):
        if op.startswith("provider.send"):
            continue  # it is on the wire: its deadline, and not a fence, bounds it
        world = World()
        setup(world)
        world.messages = Queue()
        event = world.event()
        world.accept(event)
        sent = _frozen_at(world, position)
        try:
            for _ in range(3):
                while world.deliver():
                    pass
                if sent:
                    assert world.provider.sent == sent[0]
                    thaws += 1
                    break
                world.run_until_quiet()
            world.run_until_quiet()
            world.check_settled(event)
        except AssertionError as broken:
            raise AssertionError(f"thawed at step {position}, {op}: {broken}") from broken
    assert thaws >= 8


def _frozen_at(world: World, position: int) -> list[list[tuple[int, str]]]:
    """Whoever comes to that step waits there until everybody else has finished. Gives what was sent by then."""
    count, sent = [0], []

    def others_finish() -> None:
        world.run_until_quiet()
        sent.append(list(world.provider.sent))

    def freeze(_op: str) -> None:
        count[0] += 1
        if count[0] != position:
            return
        world.faults.on_before = None
        world.clock.advance(VISIBILITY_MS + 1_000)
        with ThreadPoolExecutor(1) as others:
            others.submit(others_finish).result()
        world.visibility.delays.clear()

    world.faults.on_before = freeze
    return sent


def test_a_hint_at_another_version_of_an_item_is_let_go_and_counted_though_the_item_is_due() -> None:
    world = World(("tag",))
    world.provider.answers.append(refuses("tag", failure_of_network(NetworkCause.CONNECT_REFUSED), 1))
    world.accept(world.event())
    world.deliver()
    world.clock.advance(3_600_000)
    seen = rows(world)["tag"]
    for version in (seen.version - 1, seen.version + 1):
        world.retries.send([Hint(seen.recovery_id, version, world.clock.now, TENANT)], world.clock.now)
        world.deliver()

    assert rows(world)["tag"] == seen
    assert not world.messages
    assert world.quiet.counts["hints_stale"] == 2
