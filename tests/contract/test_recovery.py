"""`ports.Recovery`, over the double and over DynamoDB (architecture §7)."""

from __future__ import annotations

import functools
from dataclasses import fields, replace

import pytest

from functions.adapters.recovery import shard_of
from functions.core.failure import Done, RootCause, VersionConflict
from functions.core.gate import WaitingFor
from functions.core.recovery import (
    Change,
    Row,
    Status,
    claim,
    dead_first,
    defer,
    end,
    hinted,
    parked_first,
    replay,
    succeeded,
    suppressed_first,
)
from tests.contract.storage import World, at_once, blank, full_row, parked
from tests.fakes import NOON_MS

SOON = NOON_MS + 60_000


def put(world: World, change: Change) -> Row:
    assert world.recovery.put_if_absent(change)
    return change.after


def blocked(name: str) -> Change:
    """A row that waits for another and has no time of its own."""
    row = replace(blank(name), waits_for=("f" * 24,))
    return parked_first(row, WaitingFor.PARENT, "waits for its parent", 0)


def dead(event_id: str = "desk:1", updated_at_ms: int = NOON_MS) -> Change:
    """A row that nothing but a person moves."""
    row = replace(blank(event_id=event_id), updated_at_ms=updated_at_ms)
    return dead_first(row, "HTTP_500", "x", RootCause.TRANSIENT_INFRA, Status.DLQ)


def claimed(row: Row, now_ms: int = SOON) -> Change:
    return claim(row, now_ms, now_ms + 65_000, "req-2")


def succeed(world: World, row: Row, now_ms: int = SOON) -> Row:
    """Claim the row and end it well."""
    taken = claimed(row, now_ms)
    done = succeeded(taken.after, Done("p-1"), now_ms + 1)
    world.recovery.commit([taken])
    world.recovery.commit([done])
    return done.after


def replayed(world: World, row: Row, now_ms: int = SOON) -> Row:
    """A person asked for one more attempt."""
    change = replay(row, now_ms, actor="ann", reason="fixed", request_id="r", job_id="j", scale=1.0)
    world.recovery.commit([change])
    return change.after


# ------------------------------------------------------------------------------------------------------------- writing


def test_a_row_comes_back_with_every_field_it_was_put_with(world: World) -> None:
    row = full_row()
    empty = [field.name for field in fields(row) if not getattr(row, field.name) and field.name != "epoch_ms"]
    assert empty == []
    assert put(world, Change(row, None)) == world.recovery.get(row.recovery_id)


def test_a_row_of_a_whole_event_has_no_action(world: World) -> None:
    row = replace(blank(), action=None)
    assert put(world, Change(row, None)) == world.recovery.get(row.recovery_id)


def test_a_row_that_nobody_put_is_not_there(world: World) -> None:
    assert world.recovery.get("0" * 24) is None


@pytest.mark.parametrize("has_audit", [True, False])
def test_a_row_is_put_once_and_the_second_leaves_nothing(world: World, has_audit: bool) -> None:
    first = parked()
    second = replace(suppressed_first(blank(), "no"), audit=suppressed_first(blank(), "no").audit if has_audit else ())
    put(world, first)
    assert not world.recovery.put_if_absent(second)
    assert world.recovery.get(first.after.recovery_id) == first.after
    assert world.audit_ids() == [event.id for event in first.audit]


def test_of_many_puts_at_once_one_wins(world: World) -> None:
    changes = [Change(replace(blank(), request_id=f"req-{n}"), None) for n in range(8)]
    results = at_once([functools.partial(world.recovery.put_if_absent, change) for change in changes])
    assert sorted(results) == [False] * 7 + [True]
    winner = changes[results.index(True)]
    assert world.recovery.get(winner.after.recovery_id) == winner.after


def test_a_commit_moves_the_row_on_with_its_audit_event(world: World) -> None:
    row = put(world, parked())
    change = end(row, "DISMISSED", "not wanted", SOON, actor="ann")
    world.recovery.commit([change])
    assert world.recovery.get(row.recovery_id) == change.after
    assert {event.id for event in change.audit} < set(world.audit_ids())


def test_a_commit_without_audit_moves_the_row_on(world: World) -> None:
    row = put(world, parked())
    change = claimed(row)
    world.recovery.commit([change])
    assert world.recovery.get(row.recovery_id) == change.after


@pytest.mark.parametrize("is_audited", [True, False])
def test_a_commit_against_an_old_version_changes_nothing(world: World, is_audited: bool) -> None:
    row = put(world, parked())
    moved = hinted(row, NOON_MS, 1.0)
    world.recovery.commit([moved])
    audit = world.audit_ids()
    late = end(row, "DISMISSED", "late", SOON) if is_audited else claimed(row)
    with pytest.raises(VersionConflict):
        world.recovery.commit([late])
    assert world.recovery.get(row.recovery_id) == moved.after
    assert world.audit_ids() == audit


def test_a_commit_against_a_row_that_is_not_there_changes_nothing(world: World) -> None:
    with pytest.raises(VersionConflict):
        world.recovery.commit([claimed(parked().after)])
    assert world.recovery.get(blank().recovery_id) is None


def test_a_commit_of_a_new_row_is_refused_where_one_exists(world: World) -> None:
    row = put(world, parked())
    with pytest.raises(VersionConflict):
        world.recovery.commit([parked(due_at_ms=NOON_MS + 1)])
    assert world.recovery.get(row.recovery_id) == row


def test_of_several_changes_one_conflict_stops_all(world: World) -> None:
    """A parent's success releases its children in the same transaction, or nothing happens."""
    parent, child = put(world, parked("tag")), put(world, parked("reply"))
    world.recovery.commit([hinted(child, NOON_MS, 1.0)])
    new = parked("assign")
    before = world.recovery.get(child.recovery_id), world.audit_ids()
    with pytest.raises(VersionConflict):
        world.recovery.commit([end(parent, "DISMISSED", "x", SOON), hinted(child, NOON_MS, 1.0), new])
    assert world.recovery.get(parent.recovery_id) == parent
    assert world.recovery.get(new.after.recovery_id) is None
    assert (world.recovery.get(child.recovery_id), world.audit_ids()) == before


def test_several_changes_are_written_together(world: World) -> None:
    rows = [put(world, parked(name)) for name in ("tag", "reply")]
    changes = [end(row, "DISMISSED", "x", SOON) for row in rows] + [parked("assign")]
    world.recovery.commit(changes)
    for change in changes:
        assert world.recovery.get(change.after.recovery_id) == change.after
    assert len(world.audit_ids()) == 2 + 3


def test_a_commit_that_meets_its_own_success_is_success(world: World) -> None:
    row = put(world, parked())
    taken = claimed(row)
    world.recovery.commit([taken])
    done = succeeded(taken.after, Done("p-1"), SOON + 1)
    world.recovery.commit([done])
    audit = world.audit_ids()
    world.recovery.commit([done])
    assert world.recovery.get(row.recovery_id) == done.after
    assert world.audit_ids() == audit


def test_a_commit_of_a_new_row_that_meets_its_own_success_is_success(world: World) -> None:
    change = parked()
    world.recovery.commit([change])
    world.recovery.commit([change])
    assert world.recovery.get(change.after.recovery_id) == change.after


def test_a_lease_is_given_once_even_to_two_who_look_the_same(world: World) -> None:
    row = put(world, parked())
    results = at_once([functools.partial(world.recovery.commit, [claimed(row)]) for _ in range(8)])
    assert results.count(None) == 1
    assert sum(isinstance(result, VersionConflict) for result in results) == 7
    stored = world.recovery.get(row.recovery_id)
    assert stored is not None
    assert (stored.version, stored.attempt_count) == (row.version + 1, 1)


def test_of_two_different_ends_at_once_one_counts(world: World) -> None:
    row = put(world, parked())
    ends = [end(row, "DISMISSED", f"person {n}", SOON, actor=f"person-{n}") for n in range(6)]
    results = at_once([functools.partial(world.recovery.commit, [one]) for one in ends])
    assert results.count(None) == 1
    assert world.recovery.get(row.recovery_id) == ends[results.index(None)].after


def test_what_fits_no_transaction_is_refused_before_anything_is_written(world: World) -> None:
    with pytest.raises(ValueError, match="same row twice"):
        world.recovery.commit([parked(), parked()])
    with pytest.raises(ValueError, match="102 items"):
        world.recovery.commit([parked(event_id=f"desk:{n}") for n in range(51)])
    assert world.audit_ids() == []
    world.recovery.commit([])


# ----------------------------------------------------------------------------------------------------------------- due


def rows_due(world: World, until_ms: int, limit: int = 100, integration: str = "helpdesk") -> list[str]:
    return [row.recovery_id for row in world.recovery.due(integration, until_ms, limit)]


def test_due_rows_come_earliest_first_over_all_shards_and_up_to_the_moment(world: World) -> None:
    rows = [put(world, parked(due_at_ms=NOON_MS + (n * 7) % 16, event_id=f"desk:{n}")) for n in range(16)]
    ordered = sorted(rows, key=lambda row: (row.due_at_ms, row.recovery_id))
    assert world.recovery.due("helpdesk", NOON_MS + 16, 100) == ordered
    assert rows_due(world, NOON_MS + 9) == [row.recovery_id for row in ordered[:10]]
    assert rows_due(world, NOON_MS - 1) == []
    assert rows_due(world, NOON_MS + 16, 3) == [row.recovery_id for row in ordered[:3]]
    assert rows_due(world, NOON_MS + 16, 0) == []
    assert rows_due(world, NOON_MS + 16, integration="sms") == []


def test_rows_without_a_due_time_and_rows_that_ended_are_never_due(world: World) -> None:
    put(world, blocked("tag"))
    put(world, suppressed_first(blank("reply"), "auto_reply is off"))
    put(world, dead("desk:3"))
    succeed(world, put(world, parked(event_id="desk:2")))
    assert rows_due(world, NOON_MS * 9) == []


def test_a_replayed_row_is_due_while_under_way_and_not_once_it_has_ended(world: World) -> None:
    again = replayed(world, put(world, dead()))
    assert world.recovery.due("helpdesk", again.due_at_ms, 9) == [again]
    assert succeed(world, again).status is Status.REPLAYED
    assert rows_due(world, NOON_MS * 9) == []


def test_a_row_that_was_hinted_at_is_due_again_later(world: World) -> None:
    """A hint that is lost costs time only."""
    row = put(world, parked(due_at_ms=NOON_MS))
    moved = hinted(row, NOON_MS, 1.0)
    world.recovery.commit([moved])
    assert rows_due(world, NOON_MS) == []
    assert rows_due(world, moved.after.due_at_ms) == [row.recovery_id]


def test_a_claimed_row_is_due_when_its_lease_ends(world: World) -> None:
    row = put(world, parked())
    taken = claimed(row)
    world.recovery.commit([taken])
    assert rows_due(world, taken.after.lease_until_ms - 1) == []
    assert world.recovery.due("helpdesk", taken.after.lease_until_ms, 9) == [taken.after]


# ---------------------------------------------------------------------------------------------------------------- find


def test_rows_are_found_by_status_oldest_first(world: World) -> None:
    ended = [put(world, dead(f"desk:{n}", NOON_MS + n)) for n in (13, 11, 12)]
    waiting = put(world, blocked("tag"))
    due = put(world, parked("assign", NOON_MS + 5))
    in_order = sorted(ended, key=lambda row: row.updated_at_ms)
    assert world.recovery.find("helpdesk", [Status.DLQ], 10) == in_order
    assert world.recovery.find("helpdesk", [Status.DLQ], 2) == in_order[:2]
    assert world.recovery.find("helpdesk", [Status.PENDING], 10) == [due, waiting]
    assert world.recovery.find("helpdesk", [Status.PENDING, Status.DLQ], 10) == [
        *sorted([*ended, due], key=_moment),
        waiting,
    ]
    assert world.recovery.find("helpdesk", [Status.FAILED, Status.SUCCEEDED], 10) == []
    assert world.recovery.find("helpdesk", [], 10) == []
    assert world.recovery.find("sms", list(Status), 10) == []


def _moment(row: Row) -> int:
    return row.due_at_ms if row.is_open else row.updated_at_ms


def test_replayed_rows_are_found_by_due_time_and_by_their_end_alike(world: World) -> None:
    rows = [replayed(world, put(world, dead(f"desk:{n}")), SOON + n) for n in range(6)]
    rows = [succeed(world, row, SOON + 500_000 - n) if n % 2 else row for n, row in enumerate(rows)]
    in_order = sorted(rows, key=_moment)
    assert world.recovery.find("helpdesk", [Status.REPLAYED], 10) == in_order
    assert world.recovery.find("helpdesk", [Status.REPLAYED, Status.REPLAYED], 4) == in_order[:4]


def test_an_ended_replay_is_not_hidden_by_one_under_way_beside_it(world: World) -> None:
    """Two rows of one shard: the older is found first although the index keeps ended rows behind open ones."""
    first, *others = [dead(f"desk:{n}") for n in range(30)]
    shard = shard_of(first.after.recovery_id)
    other = next(one for one in others if shard_of(one.after.recovery_id) == shard)
    ended = succeed(world, replayed(world, put(world, first)))
    under_way = replayed(world, put(world, other))
    assert ended.updated_at_ms < under_way.due_at_ms
    assert world.recovery.find("helpdesk", [Status.REPLAYED], 1) == [ended]
    assert world.recovery.find("helpdesk", [Status.REPLAYED], 2) == [ended, under_way]


def test_a_row_is_found_where_it_is_now_and_nowhere_else(world: World) -> None:
    row = put(world, parked())
    world.recovery.commit([defer(row, WaitingFor.SWITCH, "hold", SOON + 9, SOON, uncount=False)])
    world.recovery.commit([end(_get(world, row), "DISMISSED", "x", SOON)])
    assert world.recovery.find("helpdesk", [Status.PENDING, Status.RETRYING], 9) == []
    assert world.recovery.find("helpdesk", [Status.FAILED], 9) == [_get(world, row)]


def _get(world: World, row: Row) -> Row:
    found = world.recovery.get(row.recovery_id)
    assert found is not None
    return found
