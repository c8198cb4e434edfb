"""One effect that came about twice, whatever was claimed and fenced: it is proven, counted for the alarm, and on record
(001.46, 002.36).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from functions.core.audit import AuditEvent, AuditType
from functions.core.decision import COUNTED, Action
from functions.core.failure import (
    Done,
    Failure,
    MalformedDecision,
    NetworkCause,
    StorageUnavailable,
    failure_of_network,
    failure_of_status,
)
from functions.core.ledger import ActionMark, ActionStatus, LedgerStatus
from functions.core.recovery import Row, Status, action_recovery_id
from functions.observability import FIELDS
from functions.worker.doubles import COUNTED_AFTER_SETTLES, Doubles
from functions.worker.recovery_pass import COMMIT_TRIES
from tests.worker_world import ACTIONS, DESK, KINDS, TENANT, Died, Provider, World, refuses, run

RESET = failure_of_network(NetworkCause.RESET)


class Twice(Provider):
    """Carries the first request for a reply out twice, and says nothing."""

    def _act(self, action: Action) -> None:
        super()._act(action)
        if action.name == "reply" and self.effects[action.action_id] == 1:
            super()._act(action)


def told(world: World) -> list[AuditEvent]:
    """What the audit says of effects that came about twice."""
    return [one for one in world.tables.audit.values() if one.event_type is AuditType.EFFECT_DOUBLED]


def counted(world: World) -> Row | None:
    """The row that counts the reply."""
    rows = [row for row in world.tables.rows.values() if row.action and row.action.name == "reply_counted"]
    return rows[0] if rows else None


def replies(world: World) -> int:
    """How often the reply was sent."""
    return [name for _, name in world.provider.sent].count("reply")


def reply_of(world: World, event_id: str) -> Action:
    item = world.tables.ledger[f"E#{TENANT}#{event_id}"]
    return item.decision.bound(TENANT, event_id, item.epoch_ms).action("reply")


def test_a_lookup_that_finds_two_is_counted_and_on_record_and_nothing_is_sent_again() -> None:
    """002.36: what the alarm watches, and what it is told by."""
    world = World(("tag", "reply"))
    world.provider = Twice(world.faults, world.clock)
    world.provider.answers.append(refuses("reply", RESET, 1))
    event = world.event()
    world.accept(event)
    world.run_until_quiet()

    assert replies(world) == 2  # by the one request
    assert world.quiet.counts["effects_doubled"] == 1
    (event_told,) = told(world)
    reply = reply_of(world, event.event_id)
    assert event_told.entity == f"recovery_item#{action_recovery_id(reply.action_id)}"
    assert (event_told.failure_type, event_told.error) == ("found_several", "2 are there")
    assert any("came about twice" in line for line in world.quiet.lines)
    assert counted(world) is None
    row = world.row_of(reply)
    assert row is not None
    assert row.status is Status.SUCCEEDED
    assert (event_told.tenant, event_told.request_id) == (TENANT, row.request_id)


@pytest.mark.parametrize("is_counted", [False, True])
def test_its_line_of_the_log_leads_to_the_ticket(*, is_counted: bool) -> None:
    """001.46: whoever is paged begins with it; by its recovery id `holdfast audit` and `holdfast trace` go on."""
    world, said = World(("tag", "reply")), list[Mapping[str, Any]]()
    world.quiet.error = lambda msg, *, extra=None: said.append({"message": msg, **(extra or {})})  # type: ignore[method-assign]
    if not is_counted:
        world.provider = Twice(world.faults, world.clock)
    world.provider.acts_on_failure = not is_counted
    world.provider.answers.append(refuses("reply", RESET, 1))
    event = world.event()
    world.accept(event)
    while not replies(world):
        world.deliver()
        world.sweep()
        world.clock.advance(10_000)
    reply = reply_of(world, event.event_id)
    world.provider.effects[reply.action_id] = 2
    world.run_until_quiet()

    (line,) = said
    assert "twice" in line["message"]
    assert line.keys() - {"message"} <= FIELDS  # else the log leaves it out
    assert line["recovery_id"] == action_recovery_id(reply.action_id)
    assert (line["tenant"], line["integration"], line["reason"]) == (TENANT, DESK, "found_several")
    assert line["kind"] == ("desk.count_replies" if is_counted else "desk.reply")


def test_that_it_cannot_be_put_on_record_holds_nothing_up_and_is_in_the_log() -> None:
    world = World(("tag", "reply"))
    world.provider = Twice(world.faults, world.clock)
    world.provider.answers.append(refuses("reply", RESET, 1))
    world.faults.fail("audit.append", StorageUnavailable("no"), times=1)
    event = world.event()
    world.accept(event)
    world.run_until_quiet()

    assert world.quiet.counts["effects_doubled"] == 1
    assert not told(world)
    assert any("and not in the audit" in line for line in world.quiet.lines)
    row = world.row_of(reply_of(world, event.event_id))
    assert row is not None
    assert row.status is Status.SUCCEEDED


def test_a_process_that_dies_once_it_is_stored_has_said_it_before() -> None:
    """Nobody looks at what is done: a count that is lost with the process would have been the only one."""
    world = World(("tag", "reply"))
    world.provider = Twice(world.faults, world.clock)
    world.provider.answers.append(refuses("reply", RESET, 1))
    event = world.event()
    world.accept(event)
    written: list[float] = []

    def die(op: str) -> None:
        row = world.row_of(reply_of(world, event.event_id))
        if op == "recovery.commit" and row is not None and row.status is Status.SUCCEEDED and not world.deaths:
            written.append(world.quiet.written.get("effects_doubled", 0))
            raise Died(op)

    world.deliver()
    world.faults.on_after = die
    world.run_until_quiet()

    assert world.deaths == 1
    assert written == [1]
    assert len(told(world)) == 1


@pytest.mark.parametrize("settle_seconds", [180, 1_200])
@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("dies", [False, True])
def test_what_was_sent_after_a_lookup_had_found_nothing_is_counted_a_while_later(
    *, is_late: bool, dies: bool, settle_seconds: int
) -> None:
    """The provider showed nothing of the first request for longer than the catalog believes."""
    world = World(("tag", "reply"))
    kinds = {**KINDS, "desk.reply": replace(KINDS["desk.reply"], settle_seconds=settle_seconds)}
    world.integrations = {DESK: replace(world.integrations[DESK], kinds=kinds)}
    world.provider.acts_on_failure = False
    if dies:  # the first pass sends both times: a takeover

        def die(op: str) -> None:
            if op == "provider.send.reply" and not world.deaths:
                raise Died(op)

        world.faults.on_before = die
    else:
        world.provider.answers.append(refuses("reply", RESET, 1))
    event = world.event()
    world.accept(event)
    while not world.provider.effects.get(reply_of_or_none(world, event.event_id)):
        world.deliver()
        world.sweep()
        world.clock.advance(10_000)
    waiting = counted(world)
    assert waiting is not None
    sent_ms = world.provider.sent[-1][0]
    assert waiting.due_at_ms == sent_ms + COUNTED_AFTER_SETTLES * settle_seconds * 1000
    assert waiting.expires_at_ms > waiting.due_at_ms
    assert waiting.action is not None
    assert not waiting.action.customer_visible
    if is_late:
        world.provider.effects[reply_of(world, event.event_id).action_id] += 1
    world.run_until_quiet()

    assert replies(world) == 1
    done = counted(world)
    assert done is not None
    assert done.status is Status.SUCCEEDED
    assert world.quiet.counts.get("effects_doubled", 0) == is_late
    assert [(one.affected_id, one.error) for one in told(world)] == [
        (action_recovery_id(reply_of(world, event.event_id).action_id), "2 are there")
    ] * is_late


def reply_of_or_none(world: World, event_id: str) -> str:
    is_there = f"E#{TENANT}#{event_id}" in world.tables.ledger
    return reply_of(world, event_id).action_id if is_there else ""


def test_what_is_sent_at_once_or_found_is_not_counted() -> None:
    world = World(("tag", "reply"))
    world.provider.answers.append(refuses("reply", RESET, 1))
    for number in range(2):  # one whose answer is lost, and one that is answered
        world.accept(world.event(str(number)))
    world.run_until_quiet()

    assert replies(world) == 2
    assert counted(world) is None
    assert "effects_doubled" not in world.quiet.counts


REFUSED = failure_of_status(503, definite_statuses=frozenset({503}))


def run_until_counted(world: World) -> Row:
    """Up to where the reply is there and what counts it waits."""
    for _ in range(500):
        waiting = counted(world)
        if waiting is not None:
            return waiting
        world.deliver()
        world.sweep()
        world.clock.advance(10_000)
    raise AssertionError(f"nothing counts the reply: {world.open_rows()}, {replies(world)} sent")


def test_what_went_out_after_a_refusal_that_followed_a_believed_lookup_is_counted_too() -> None:
    """Unanswered, then not found, then refused: nothing is asked again before the third, for which all is known."""
    world = World(("tag", "reply"))
    world.provider.acts_on_failure = False
    left: list[Failure] = [RESET, REFUSED]
    world.provider.answers.append(lambda action: left.pop(0) if action.name == "reply" and left else None)
    event = world.event()
    world.accept(event)
    run_until_counted(world)
    world.provider.effects[reply_of(world, event.event_id).action_id] += 1  # the first shows at last
    world.run_until_quiet()

    assert not left
    assert world.quiet.counts["effects_doubled"] == 1
    assert [one.error for one in told(world)] == ["2 are there"]


def test_of_two_unanswered_sends_the_one_that_is_found_is_counted_too() -> None:
    world = World(("tag", "reply"))
    world.provider.answers.append(refuses("reply", RESET, 2))
    event = world.event()
    world.accept(event)
    world.deliver()
    late = world.provider.effects.pop(reply_of(world, event.event_id).action_id)  # it does not show yet
    run_until_counted(world)
    world.provider.effects[reply_of(world, event.event_id).action_id] += late
    world.run_until_quiet()

    assert replies(world) == 2
    assert world.quiet.counts["effects_doubled"] == 1


def test_what_is_proven_is_told_once_and_turns_replies_off_once() -> None:
    """A quarter of an hour after it was told, somebody may have turned replies on again."""
    world = World(("tag", "reply"))
    world.provider.answers.append(refuses("reply", RESET, 2))
    event = world.event()
    world.accept(event)
    world.deliver()
    action_id = reply_of(world, event.event_id).action_id
    late = world.provider.effects.pop(action_id)
    while replies(world) < 2:
        world.sweep()
        world.deliver()
        world.clock.advance(10_000)
    world.provider.effects[action_id] += late  # the next lookup finds both
    world.run_until_quiet()

    assert world.quiet.counts["effects_doubled"] == 1
    assert len(told(world)) == 1
    assert counted(world) is None


@pytest.mark.parametrize("owners", [1, 2])
def test_of_two_owners_that_died_the_one_whose_send_is_found_is_counted_too(owners: int) -> None:
    """One that died alone was the only one to send."""
    world = World(("tag", "reply"))
    event = world.event()
    late = [0]

    def die(op: str) -> None:
        if op == "provider.send.reply" and world.deaths < owners:
            if owners == 2 and not world.deaths:
                late[0] = world.provider.effects.pop(reply_of(world, event.event_id).action_id)  # not shown yet
            raise Died(op)

    world.faults.on_after = die
    world.accept(event)
    while world.messages:
        world.deliver()
        world.clock.advance(10_000)
    assert (counted(world) is not None) is (owners == 2)
    world.provider.effects[reply_of(world, event.event_id).action_id] += late[0]
    world.run_until_quiet()

    assert replies(world) == owners
    assert world.quiet.counts.get("effects_doubled", 0) == owners - 1


def test_what_is_doubled_on_another_way_is_on_record_with_the_row_that_it_is_of() -> None:
    """The id under which another provider was asked is none that `holdfast queue show` knows."""
    world = World(("tag", "reply"))
    doubles = Doubles(world.ports())
    reply = replace(ACTIONS["reply"], action_id="id-on-hop-1")
    run(doubles.found(reply, Done("a", 2), "its-row", TENANT, "r", "t"))
    counting = replace(ACTIONS["reply"], params={COUNTED: "counted"}, action_id="id-of-the-count")
    run(doubles.found(counting, Done("a", 2), "the-row-of-the-count", TENANT, "r", "t"))
    assert [one.affected_id for one in told(world)] == ["its-row", action_recovery_id("counted")]


# --------------------------------------------------------------------------------------------------------- two workers


def settled_by_another(
    world: World, provider_id: str, *, epoch_ms: int = 0, as_row: bool = False, before: str = "ledger.settle"
) -> None:
    """Right before the first settlement somebody else has the event, and is done with it."""
    blank = a_row(world)

    def take(op: str) -> None:
        if op != before:
            return
        world.faults.on_before = None
        ((key, item),) = world.tables.ledger.items()
        status = ActionStatus.RECOVERY if as_row else ActionStatus.DONE
        mark = ActionMark(status, "" if as_row else provider_id)
        if as_row:
            world.tables.rows[blank.recovery_id] = replace(blank, status=Status.SUCCEEDED, provider_id=provider_id)
        world.tables.ledger[key] = replace(
            item,
            owner="another",
            generation=item.generation + 1,
            status=LedgerStatus.SETTLED,
            epoch_ms=item.epoch_ms + epoch_ms,
            actions={**item.actions, "reply": mark},
        )

    world.faults.on_before = take


def a_row(world: World) -> Row:
    """The row that the world's event would leave of its reply."""
    other = World(("tag", "reply"))
    other.clock = world.clock
    other.provider.answers.append(refuses("reply", RESET, 1))
    other.accept(other.event())
    other.deliver()
    (row,) = other.tables.rows.values()
    return row


@pytest.mark.parametrize("as_row", [False, True])
def test_two_workers_that_each_sent_it_are_proof(*, as_row: bool) -> None:
    world = World(("tag", "reply"))
    event = world.event()
    world.accept(event)
    settled_by_another(world, "id-another", as_row=as_row)
    world.deliver()

    assert world.quiet.counts["settlements_fenced"] == 1
    assert world.quiet.counts["effects_doubled"] == 1
    (one,) = told(world)
    assert (one.failure_type, one.error) == ("two_workers", "id-reply and id-another")
    assert one.affected_id == action_recovery_id(reply_of(world, event.event_id).action_id)


def test_two_workers_are_proof_too_where_the_first_hears_of_the_second_in_the_middle_of_its_pass() -> None:
    """After the reply comes what is marked before it is sent, and that mark is refused."""
    world = World(("tag", "reply", "push"))
    event = world.event()
    world.accept(event)
    settled_by_another(world, "id-another", before="ledger.mark")
    world.deliver()

    assert world.quiet.counts["effects_doubled"] == 1
    (one,) = told(world)
    assert (one.failure_type, one.error) == ("two_workers", "id-reply and id-another")
    assert "push" not in [name for _, name in world.provider.sent]
    assert world.messages  # it comes back, and finds the event settled


@pytest.mark.parametrize(
    ("provider_id", "epoch_ms"),
    [
        ("id-reply", 0),  # the other found ours
        ("", 0),  # nobody can tell
        ("id-another", 1),  # an equal event beyond the repeat window: another effect
    ],
)
def test_what_may_be_one_and_the_same_effect_is_no_proof(provider_id: str, epoch_ms: int) -> None:
    world = World(("tag", "reply"))
    world.accept(world.event())
    settled_by_another(world, provider_id, epoch_ms=epoch_ms)
    world.deliver()

    assert world.quiet.counts["settlements_fenced"] == 1
    assert "effects_doubled" not in world.quiet.counts
    assert not told(world)


def test_a_lost_lease_after_nothing_was_sent_that_counts_reads_nothing_more() -> None:
    """A tag that is there twice is there once."""
    world = World(("tag",))
    world.accept(world.event())

    def take(op: str) -> None:
        if op == "ledger.settle":
            world.faults.on_before = None
            ((key, item),) = world.tables.ledger.items()
            world.tables.ledger[key] = replace(item, owner="another", generation=item.generation + 1)

    world.faults.on_before = take
    world.deliver()

    assert world.quiet.counts["settlements_fenced"] == 1
    assert world.faults.calls[world.faults.calls.index("ledger.settle") :].count("ledger.read") == 0


def unread(world: World) -> list[Mapping[str, Any]]:
    """What the log says of what could not be compared: it sends people to the provider, so it says about what."""
    said = list[Mapping[str, Any]]()

    def exception(msg: str, *, extra: Mapping[str, Any] | None = None) -> None:
        if "see at the provider" in msg:
            said.append(extra or {})
            assert said[-1].keys() <= FIELDS

    world.quiet.exception = exception  # type: ignore[method-assign]
    return said


@pytest.mark.parametrize("trouble", [StorageUnavailable("no"), MalformedDecision("no")])
def test_that_it_cannot_be_compared_is_said(trouble: Exception) -> None:
    world = World(("tag", "reply"))
    event = world.event()
    world.accept(event)
    settled_by_another(world, "id-another")
    before = world.faults.on_before
    assert before is not None

    def then_fail(op: str) -> None:
        before(op)
        if op == "ledger.settle":
            world.faults.fail("ledger.read", trouble, times=1)

    world.faults.on_before = then_fail
    said = unread(world)
    world.deliver()

    assert "items_failed" not in world.quiet.counts
    assert "effects_doubled" not in world.quiet.counts
    assert [(line["tenant"], line["event_id"]) for line in said] == [(TENANT, event.event_id)]


@pytest.mark.parametrize(
    ("provider_id", "status", "is_proof"),
    [
        ("id-another", Status.SUCCEEDED, True),
        ("id-reply", Status.SUCCEEDED, False),
        ("", Status.SUCCEEDED, False),
        ("id-another", Status.RETRYING, False),  # whoever has it looks it up
    ],
)
def test_a_row_that_another_has_done_meanwhile_is_proof(provider_id: str, status: Status, *, is_proof: bool) -> None:
    world = World(("tag", "reply"))
    world.provider.acts_on_failure = False
    world.provider.answers.append(refuses("reply", RESET, 1))
    event = world.event()
    world.accept(event)
    world.deliver()
    (row,) = world.tables.rows.values()

    def done_by_another(op: str) -> None:
        if op != "provider.send.reply":
            return
        world.faults.on_after = None
        now = world.tables.rows[row.recovery_id]
        world.tables.rows[row.recovery_id] = replace(
            now, status=status, provider_id=provider_id, version=now.version + 1, due_at_ms=0, lease_until_ms=0
        )

    world.faults.on_after = done_by_another
    while not replies(world):
        world.sweep()
        world.deliver()
        world.clock.advance(10_000)

    assert world.quiet.counts["transitions_conflicted"] == 1
    assert world.quiet.counts.get("effects_doubled", 0) == is_proof
    assert [one.error for one in told(world)] == ["id-reply and id-another"] * is_proof


def unreadable_after(world: World, commits: int) -> Callable[[str], None]:
    """No row can be read once it was tried so often to store one."""
    left = [commits]

    def count(op: str) -> None:
        left[0] -= op == "recovery.commit"
        if not left[0]:
            world.faults.on_before = None
            world.faults.fail("recovery.get", StorageUnavailable("no"), times=1)

    return count


def test_that_a_moved_row_cannot_be_compared_is_said() -> None:
    world = World(("tag", "reply"))
    world.provider.acts_on_failure = False
    world.provider.answers.append(refuses("reply", RESET, 1))
    world.accept(world.event())
    world.deliver()
    (row,) = world.tables.rows.values()

    def moved(op: str) -> None:
        if op == "provider.send.reply":
            world.faults.on_after = None
            now = world.tables.rows[row.recovery_id]
            world.tables.rows[row.recovery_id] = replace(now, version=now.version + 1)
            world.faults.on_before = unreadable_after(world, COMMIT_TRIES)

    world.faults.on_after = moved
    said = unread(world)
    while not replies(world):
        world.sweep()
        world.deliver()
        world.clock.advance(10_000)

    assert "effects_doubled" not in world.quiet.counts
    assert [(line["tenant"], line["recovery_id"], line["integration"]) for line in said] == [
        (TENANT, row.recovery_id, DESK)
    ]
