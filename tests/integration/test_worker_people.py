"""Whom the worker writes to, where and how often: asked before each send, on every path (000.8, 002.17, 003.20)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from functions.core.audit import MACHINE, AuditType
from functions.core.cap import WINDOW_MS, conversation_of
from functions.core.decision import Action
from functions.core.failure import (
    Done,
    Failure,
    FailureClass,
    NetworkCause,
    VersionConflict,
    failure_of_network,
    failure_of_status,
)
from functions.core.gate import WaitingFor
from functions.core.ledger import ActionStatus
from functions.core.person import OPTED_OUT_THERE, Known, Note
from functions.core.ports import Absent, Call, Hint
from functions.core.recipient import Person
from functions.core.recovery import SUPPRESSED, Row, Status, replay
from tests.worker_world import ACTIONS, DESK, TENANT, Provider, World

NUMBER, CORRECTED = "+491701234567", "+491707654321"
REACHABLE = Person(consent={"sms": True}, contacts={"sms": NUMBER}, contact_since_ms={"sms": 7})
PERSON = (TENANT, "r1")
REFUSED_THERE = Failure(FailureClass.DATA_ERROR, OPTED_OUT_THERE, "they said stop", False, False)


class Keeping(Provider):
    """Keeps with what each call was made."""

    def __init__(self, world: World) -> None:
        super().__init__(world.faults, world.clock)
        self.made: list[tuple[str, Call]] = []

    async def send(self, action: Action, call: Call) -> Done | Failure:
        self.made.append((action.name, call))
        return await super().send(action, call)

    async def look_up(self, action: Action, call: Call) -> Done | Absent | Failure:
        self.made.append((f"look up {action.name}", call))
        return await super().look_up(action, call)


def texting(*names: str, person: Person | None = REACHABLE) -> tuple[World, Keeping]:
    """A world whose desk reaches people by SMS."""
    world = World(names or ("tag", "reply", "instead"))
    world.integrations = {DESK: replace(world.integrations[DESK], channel="sms")}
    world.provider = provider = Keeping(world)
    if person is not None:
        world.tables.people[PERSON] = person
    return world, provider


def sent(world: World, name: str = "reply") -> int:
    return sum(one == name for _, one in world.provider.sent)


def reply_row(world: World) -> Row:
    (row,) = [row for row in world.tables.rows.values() if row.action and row.action.name == "reply"]
    return row


def replayed(world: World, row: Row) -> None:
    """A person replays it."""
    change = replay(
        row, world.clock.now, actor="anna", reason="it may go", request_id="req-9", job_id="job-1", scale=1.0
    )
    world.tables.rows[row.recovery_id] = change.after
    world.replays.send([Hint(row.recovery_id, change.after.version)], world.clock.now)


# ---------------------------------------------------------------------------------------------------- whom, and where


def test_a_send_goes_to_the_contact_of_that_channel_as_it_is_right_then() -> None:
    world, provider = texting("tag", "reply")
    provider.answers = [lambda action: failure_of_status(425) if action.name == "reply" else None]
    world.accept(world.event())
    world.deliver()
    world.tables.people[PERSON] = replace(REACHABLE, contacts={"sms": CORRECTED}, contact_since_ms={"sms": 8})
    provider.answers.clear()
    world.run_until_quiet()

    calls = [call for name, call in provider.made if name == "reply"]
    assert [(call.contact, call.contact_since_ms) for call in calls] == [(NUMBER, 7), (CORRECTED, 8)]
    assert {(call.tenant, call.decided_at_ms) for call in calls} == {(TENANT, calls[0].decided_at_ms)}
    assert sent(world) == 1


def test_what_no_customer_sees_is_given_no_contact() -> None:
    world, provider = texting("tag")
    world.accept(world.event())
    world.run_until_quiet()
    assert [(name, call.contact, call.tenant) for name, call in provider.made] == [("tag", "", TENANT)]


def test_no_contact_is_in_a_row_the_ledger_the_audit_or_a_log() -> None:
    world, provider = texting("tag", "reply", "instead")
    provider.answers = [lambda action: failure_of_status(400) if action.name == "reply" else None]
    world.accept(world.event())
    world.run_until_quiet()
    kept = [world.tables.rows, world.tables.ledger, world.tables.audit, world.tables.sends, world.quiet.lines]
    assert sent(world) == 0
    assert NUMBER not in repr(kept)
    assert NUMBER not in repr(provider.made)


@pytest.mark.parametrize(
    "person",
    [
        None,
        Person(consent={"sms": True}),
        Person(contacts={"sms": NUMBER}),
        replace(REACHABLE, consent={"sms": False}),
        replace(REACHABLE, opted_out=True),
        replace(REACHABLE, blocked=frozenset({"sms"})),
    ],
    ids=["unknown", "no contact", "no consent", "consent withdrawn", "opted out", "wrong number"],
)
def test_who_did_not_agree_gets_nothing_and_a_person_is_asked(person: Person | None) -> None:
    """000.8, 003.2, 003.3, 003.20: what may not be sent becomes a manual task."""
    world, _ = texting(person=person)
    event = world.event()
    world.accept(event)
    world.run_until_quiet()

    assert sent(world) == 0
    assert sent(world, "instead") == 1
    assert reply_row(world).failure_code == SUPPRESSED
    world.check_settled(event)


def test_an_opt_out_between_two_attempts_stops_the_second() -> None:
    world, provider = texting()
    provider.answers = [lambda action: failure_of_status(425) if action.name == "reply" else None]
    world.accept(world.event())
    world.deliver()
    world.tables.people[PERSON] = replace(REACHABLE, opted_out=True)
    provider.answers.clear()
    world.run_until_quiet()

    assert sent(world) == 0
    assert sent(world, "instead") == 1


def test_an_opt_out_stops_a_persons_replay() -> None:
    world, provider = texting("tag", "reply")
    provider.answers = [lambda action: failure_of_status(400) if action.name == "reply" else None]
    world.accept(world.event())
    world.run_until_quiet()
    world.tables.people[PERSON] = replace(REACHABLE, opted_out=True)
    provider.answers.clear()
    replayed(world, reply_row(world))
    world.run_until_quiet()

    assert sent(world) == 0
    assert reply_row(world).failure_code == SUPPRESSED


def test_whoever_cannot_be_read_waits() -> None:
    world, _ = texting("tag", "reply")
    world.tables.people[PERSON] = Person(is_readable=False)
    world.accept(world.event())
    world.deliver()
    assert (sent(world), reply_row(world).waiting_for) == (0, WaitingFor.SWITCH)
    world.tables.people[PERSON] = REACHABLE
    world.run_until_quiet()
    assert sent(world) == 1


def test_a_table_that_does_not_answer_lets_the_send_wait() -> None:
    world, _ = texting("tag", "reply")
    world.faults.fail("recipients.person")
    world.accept(world.event())
    world.run_until_quiet()
    assert sent(world) == 1
    assert any("could not be read" in line for line in world.quiet.lines)


# ------------------------------------------------------------------------------------------- a provider that knows more


def opting_out(world: World) -> list[str]:
    return [event.actor for event in world.tables.events if event.event_type is AuditType.RECIPIENT_CHANGED]


def test_a_provider_that_was_told_to_stop_has_told_us_for_every_channel() -> None:
    """003.20: automatic, immediate, and on record."""
    world, provider = texting()
    provider.answers = [lambda action: REFUSED_THERE if action.name == "reply" else None]
    world.accept(world.event())
    world.run_until_quiet()

    person = world.tables.people[PERSON]
    assert person.opted_out
    assert person.contacts == {"sms": NUMBER}
    assert opting_out(world) == [MACHINE]
    assert (reply_row(world).status, reply_row(world).failure_code) == (Status.FAILED, OPTED_OUT_THERE)

    provider.answers.clear()
    world.accept(world.event("2"))
    world.run_until_quiet()
    assert sent(world) == 0
    assert opting_out(world) == [MACHINE]


def test_a_stop_that_cannot_be_stored_is_asked_for_again_before_anything_else_is_tried() -> None:
    world, provider = texting("tag", "reply")
    provider.answers = [lambda action: REFUSED_THERE if action.name == "reply" else None]
    world.faults.fail("recipients.store")
    world.accept(world.event())
    world.deliver()
    assert not world.tables.people[PERSON].opted_out
    assert reply_row(world).status is Status.RETRYING
    world.run_until_quiet()
    assert world.tables.people[PERSON].opted_out
    assert reply_row(world).status is Status.FAILED


def test_a_stop_is_stored_though_somebody_changes_the_record_meanwhile() -> None:
    world, provider = texting("tag", "reply")
    provider.answers = [lambda action: REFUSED_THERE if action.name == "reply" else None]
    raced: list[str] = []

    def race(op: str) -> None:
        if op == "recipients.store" and not raced:
            raced.append(op)
            note = Note("n", world.clock.now, "anna", "r", "q")
            change = Known(*PERSON, world.tables.people[PERSON]).set_consent("email", is_given=True, note=note)
            assert change is not None
            world.tables.people[PERSON] = change.after

    world.faults.on_before = race
    world.accept(world.event())
    world.deliver()
    assert world.tables.people[PERSON].opted_out
    assert world.tables.people[PERSON].consent == {"sms": True, "email": True}


def test_a_record_that_never_stands_still_counts_as_not_stored() -> None:
    world, provider = texting("tag", "reply")
    provider.answers = [lambda action: REFUSED_THERE if action.name == "reply" else None]
    world.faults.fail("recipients.store", VersionConflict("moved"), times=3)
    world.accept(world.event())
    world.deliver()
    assert reply_row(world).status is Status.RETRYING


# ---------------------------------------------------------------------------------------------------------- how often


def converse(world: World, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        world.accept(world.event(str(number)))
        world.run_until_quiet()


def test_a_conversation_gets_five_automatic_messages_an_hour_and_then_a_person() -> None:
    """002.17"""
    world = World(("tag", "reply", "instead"))
    converse(world, 7)
    assert (sent(world), sent(world, "instead")) == (5, 2)
    assert {row.failure_code for row in world.tables.rows.values() if row.action and row.action.name == "reply"} == {
        SUPPRESSED
    }
    assert world.quiet.counts["automatic_capped"] == 2

    world.clock.advance(WINDOW_MS)
    converse(world, 1, first=7)
    assert sent(world) == 6


def test_the_cap_is_what_the_catalog_says_of_the_flow() -> None:
    world = World(("tag", "reply"))
    world.automatic_per_hour = {"all_kinds": 2}
    converse(world, 3)
    assert sent(world) == 2


def test_messages_no_customer_sees_are_not_counted() -> None:
    world = World(("tag", "push"))
    converse(world, 8)
    assert (sent(world, "tag"), sent(world, "push")) == (8, 8)
    assert world.tables.sends == {}


@pytest.mark.parametrize(
    "failure",
    [
        failure_of_status(503),
        failure_of_network(NetworkCause.READ_TIMEOUT),
        failure_of_status(429, retry_after_ms=2_000),
    ],
    ids=["503", "timeout", "429"],
)
def test_retries_of_one_message_count_as_one(failure: Failure) -> None:
    world = World(("tag", "reply"))
    tries = [failure, failure]
    world.provider.acts_on_failure = False
    world.provider.answers = [lambda action: tries.pop() if action.name == "reply" and tries else None]
    converse(world, 5)
    assert sent(world) == 5
    (conversation,) = world.tables.sends.values()
    assert len(conversation.times) == 5


@pytest.mark.parametrize("failure", [failure_of_status(400), failure_of_network(NetworkCause.DNS)], ids=["400", "dns"])
def test_what_was_surely_not_sent_takes_nobodys_place(failure: Failure) -> None:
    world = World(("tag", "reply"))
    world.provider.answers = [lambda action: failure if action.name == "reply" else None]
    converse(world, 6)
    assert all(not conversation.times for conversation in world.tables.sends.values())
    world.provider.answers.clear()
    converse(world, 5, first=6)
    assert sent(world) >= 5


def test_what_may_have_been_sent_counts() -> None:
    world = World(("tag", "reply"))
    world.provider.answers = [lambda action: failure_of_network(NetworkCause.RESET) if action.name == "reply" else None]
    world.accept(world.event())
    world.deliver()
    (conversation,) = world.tables.sends.values()
    assert len(conversation.times) == 1


def test_a_persons_replay_is_not_automatic() -> None:
    world = World(("tag", "reply", "instead"))
    converse(world, 6)
    assert sent(world) == 5
    row = reply_row(world)
    replayed(world, row)
    world.run_until_quiet()
    assert sent(world) == 6
    assert all(len(conversation.times) == 5 for conversation in world.tables.sends.values())


def test_a_message_that_cannot_be_counted_waits_and_counts_once() -> None:
    world = World(("tag", "reply"))
    world.faults.fail("caps.count")
    world.accept(world.event())
    world.deliver()
    assert (sent(world), reply_row(world).status) == (0, Status.PENDING)
    world.run_until_quiet()
    assert sent(world) == 1


def test_a_count_whose_answer_was_lost_counts_once() -> None:
    world = World(("tag", "reply"))
    world.faults.fail("caps.count", when="after")
    converse(world, 5)
    assert sent(world) == 5
    (conversation,) = world.tables.sends.values()
    assert len(conversation.times) == 5


def test_a_count_that_cannot_be_taken_back_costs_the_conversation_one_and_nothing_else() -> None:
    world = World(("tag", "reply"))
    failing = [failure_of_status(400)]
    world.provider.answers = [lambda action: failing.pop() if action.name == "reply" and failing else None]
    world.faults.fail("caps.uncount")
    converse(world, 6)
    assert sent(world) == 4
    assert any("stands" in line for line in world.quiet.lines)


def slow_count(world: World, then: Callable[[], None] = lambda: None, seconds: int = 4) -> None:
    def wait(op: str) -> None:
        if op == "caps.count":
            world.clock.advance(seconds * 1000)
            then()

    world.faults.on_after = wait


def test_a_switch_that_goes_off_while_a_message_is_counted_stops_it_and_nothing_stays_counted() -> None:
    """002.14: the gate's answer is asked for again when the count took long."""
    world = World(("tag", "reply", "instead"))
    slow_count(world, lambda: world.switches.values.update(auto_reply="off"), seconds=6)
    world.accept(world.event())
    world.deliver()
    assert (sent(world), sent(world, "instead")) == (0, 1)
    assert all(not conversation.times for conversation in world.tables.sends.values())


def test_a_slow_count_alone_stops_nothing() -> None:
    world = World(("tag", "reply"))
    slow_count(world)
    event = world.event()
    world.accept(event)
    world.deliver()
    item = world.tables.ledger[f"E#{event.tenant}#{event.event_id}"]
    assert item.actions["reply"].status is ActionStatus.DONE


def test_conversations_are_counted_apart_and_under_no_name() -> None:
    world = World(("tag", "reply"))
    converse(world, 1)
    target = str(ACTIONS["reply"].target)
    assert list(world.tables.sends) == [conversation_of(TENANT, target, "r1")]
    assert target not in next(iter(world.tables.sends))
