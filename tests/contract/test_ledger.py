"""`ports.Ledger`, over the double and over DynamoDB (architecture §6)."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest

from functions.core.failure import Fenced
from functions.core.gate import Health, IntegrationState
from functions.core.ledger import ActionMark, ActionStatus, Claimed, LedgerStatus, Refused
from functions.core.recovery import hinted
from tests.contract.storage import KEY, LEASE_MS, World, at_once, blank, claim, decision, parked, settlement
from tests.fakes import NOON_MS

LATER = NOON_MS + LEASE_MS


def granted(world: World, owner: str = "one", now_ms: int = NOON_MS) -> Claimed:
    result = world.ledger.claim(claim(owner, now_ms))
    assert isinstance(result, Claimed)
    return result


# ------------------------------------------------------------------------------------------------------------ claiming


def test_the_first_claim_stores_the_decision_and_every_action_as_todo(world: World) -> None:
    item = granted(world).item
    assert item == world.item()
    assert (item.status, item.owner, item.generation) == (LedgerStatus.PROCESSING, "one", 1)
    assert (item.lease_until_ms, item.received_at_ms, item.payload_hash) == (LATER, NOON_MS - 100, "p")
    assert item.decision == decision()
    assert item.actions == {name: ActionMark(ActionStatus.TODO) for name in ("tag", "assign", "reply")}


def test_of_many_claims_at_once_one_wins_and_the_others_see_it(world: World) -> None:
    """002.19: concurrent deliveries of one event, and one conditional write."""
    results = at_once([functools.partial(world.ledger.claim, claim(f"worker-{n}")) for n in range(12)])
    winners = [result for result in results if isinstance(result, Claimed)]
    losers = [result for result in results if isinstance(result, Refused)]
    assert (len(winners), len(losers)) == (1, 11)
    assert {loser.item.owner for loser in losers} == {winners[0].item.owner} == {world.stored().owner}
    assert world.stored().generation == 1


def test_a_live_lease_refuses_and_shows_who_holds_it(world: World) -> None:
    held = granted(world).item
    assert world.ledger.claim(claim("two", LATER - 1, label="sales")) == Refused(held)
    assert world.item() == held


def test_an_ended_lease_is_taken_over_with_the_stored_decision_marks_and_times(world: World) -> None:
    granted(world)
    trying = ActionMark(ActionStatus.TRYING, "p-1")
    world.ledger.mark(KEY, "one", 1, "reply", trying)
    taken = world.ledger.claim(claim("two", LATER, label="sales", received_at_ms=NOON_MS + 1, epoch_ms=7))
    assert isinstance(taken, Claimed)
    assert (taken.item.owner, taken.item.generation, taken.item.lease_until_ms) == ("two", 2, LATER + LEASE_MS)
    assert (taken.item.decision, taken.item.received_at_ms, taken.item.epoch_ms) == (decision(), NOON_MS - 100, 0)
    assert taken.item.actions["reply"] == trying
    assert taken.item == world.item()


def test_of_many_takeovers_at_once_one_wins(world: World) -> None:
    granted(world)
    results = at_once([functools.partial(world.ledger.claim, claim(f"worker-{n}", LATER)) for n in range(8)])
    assert sum(isinstance(result, Claimed) for result in results) == 1
    assert world.stored().generation == 2


def test_a_claim_that_meets_its_own_owner_was_answered_before(world: World) -> None:
    first = granted(world)
    assert world.ledger.claim(claim("one")) == first
    assert world.stored().generation == 1


def test_another_payload_under_the_same_key_is_refused_even_after_the_lease(world: World) -> None:
    held = granted(world).item
    assert world.ledger.claim(claim("two", LATER + 1, payload_hash="other")) == Refused(held)
    assert world.item() == held


@pytest.mark.parametrize("payload_hash", ["", "0" * 63, "0" * 64, "Z" * 64, "ab" * 32, "AB" * 32, "ab" * 32 + "\n"])
def test_a_payload_hash_is_known_again_whatever_it_looks_like(world: World, payload_hash: str) -> None:
    first = world.ledger.claim(claim(payload_hash=payload_hash))
    assert isinstance(first, Claimed)
    assert first.item.payload_hash == world.stored().payload_hash == payload_hash
    assert isinstance(world.ledger.claim(claim("two", LATER, payload_hash=f"{payload_hash}x")), Refused)
    assert isinstance(world.ledger.claim(claim("two", LATER, payload_hash=payload_hash)), Claimed)


@pytest.mark.parametrize("owner", ["one", "two"])
def test_a_settled_event_is_refused_to_everybody(world: World, owner: str) -> None:
    granted(world)
    world.ledger.settle(settlement())
    result = world.ledger.claim(claim(owner, LATER + 1))
    assert isinstance(result, Refused)
    assert result.item.status is LedgerStatus.SETTLED


# ----------------------------------------------------------------------------------------------- after a repeat window


def settled_at_epoch(world: World, epoch_ms: int) -> None:
    result = world.ledger.claim(claim("one", epoch_ms=epoch_ms))
    assert isinstance(result, Claimed)
    world.ledger.settle(settlement())


def test_after_its_window_a_settled_event_is_claimed_afresh_with_a_new_decision(world: World) -> None:
    settled_at_epoch(world, NOON_MS)
    wanted = claim("two", LATER, label="sales", received_at_ms=LATER, epoch_ms=LATER, seen_epoch_ms=NOON_MS)
    result = world.ledger.claim(wanted)
    assert isinstance(result, Claimed)
    item = result.item
    assert (item.status, item.generation, item.decision) == (LedgerStatus.PROCESSING, 2, decision("sales"))
    assert (item.received_at_ms, item.epoch_ms) == (LATER, LATER)
    assert set(item.actions.values()) == {ActionMark(ActionStatus.TODO)}
    assert item == world.item()


def test_of_two_claims_after_the_window_one_wins(world: World) -> None:
    settled_at_epoch(world, NOON_MS)
    afresh = [claim(owner, LATER, epoch_ms=LATER, seen_epoch_ms=NOON_MS) for owner in ("two", "three")]
    results = at_once([functools.partial(world.ledger.claim, one) for one in afresh])
    assert sum(isinstance(result, Claimed) for result in results) == 1
    assert world.stored().generation == 2


@pytest.mark.parametrize("seen_epoch_ms", [NOON_MS - 1, NOON_MS + 1])
def test_a_claim_after_the_window_is_refused_at_another_epoch(world: World, seen_epoch_ms: int) -> None:
    settled_at_epoch(world, NOON_MS)
    before = world.stored()
    assert world.ledger.claim(claim("two", LATER, seen_epoch_ms=seen_epoch_ms)) == Refused(before)
    assert world.item() == before


def test_a_claim_after_the_window_leaves_what_a_dead_worker_has_decided(world: World) -> None:
    result = world.ledger.claim(claim("one", epoch_ms=NOON_MS))
    assert isinstance(result, Claimed)
    late = claim("two", LATER + 1, label="sales", epoch_ms=LATER, seen_epoch_ms=NOON_MS)
    assert world.ledger.claim(late) == Refused(result.item)
    assert world.stored().decision == decision()


def test_a_claim_after_the_window_finds_nothing_and_is_granted(world: World) -> None:
    assert isinstance(world.ledger.claim(claim("two", epoch_ms=NOON_MS, seen_epoch_ms=1)), Claimed)


# ---------------------------------------------------------------------------------------------------- while it is held


def test_a_mark_changes_its_action_and_no_other(world: World) -> None:
    granted(world)
    world.ledger.mark(KEY, "one", 1, "tag", ActionMark(ActionStatus.DONE, "p-9"))
    todo = ActionMark(ActionStatus.TODO)
    marks = {"tag": ActionMark(ActionStatus.DONE, "p-9"), "assign": todo, "reply": todo}
    assert world.stored().actions == marks


@pytest.mark.parametrize("provider_id", ["", "p-9"])
def test_a_stored_hop_is_what_a_takeover_goes_on_from(world: World, provider_id: str) -> None:
    granted(world)
    hop = ActionMark(ActionStatus.TRYING, provider_id, hop=1)
    world.ledger.mark(KEY, "one", 1, "tag", hop)
    taken = world.ledger.claim(claim("two", LATER))
    assert isinstance(taken, Claimed)
    assert taken.item.actions["tag"] == hop
    world.ledger.settle(replace(settlement("two", 2), marks={**taken.item.actions, "reply": replace(hop, hop=2)}))
    assert {mark.hop for mark in world.stored().actions.values()} == {0, 1, 2}


@pytest.mark.parametrize(("owner", "generation"), [("two", 1), ("one", 2), ("two", 2)])
def test_whoever_does_not_hold_the_event_can_neither_mark_release_nor_settle(
    world: World, owner: str, generation: int
) -> None:
    held = granted(world).item
    with pytest.raises(Fenced):
        world.ledger.mark(KEY, owner, generation, "tag", ActionMark(ActionStatus.DONE))
    with pytest.raises(Fenced):
        world.ledger.release(KEY, owner, generation)
    with pytest.raises(Fenced):
        world.ledger.settle(settlement(owner, generation))
    with pytest.raises(Fenced):
        world.ledger.settle(settlement(owner, generation, changes=[parked()]))
    assert world.item() == held
    assert world.recovery.get(blank().recovery_id) is None
    assert world.audit_ids() == []


def test_nobody_holds_an_event_that_is_not_there(world: World) -> None:
    with pytest.raises(Fenced):
        world.ledger.mark(KEY, "one", 1, "tag", ActionMark(ActionStatus.DONE))
    with pytest.raises(Fenced):
        world.ledger.release(KEY, "one", 1)
    with pytest.raises(Fenced):
        world.ledger.settle(settlement())
    with pytest.raises(Fenced):
        world.ledger.settle(settlement(changes=[parked()]))
    assert world.item() is None
    assert world.recovery.get(blank().recovery_id) is None


def test_a_settled_event_takes_no_mark_and_no_release(world: World) -> None:
    granted(world)
    world.ledger.settle(settlement())
    before = world.item()
    with pytest.raises(Fenced):
        world.ledger.mark(KEY, "one", 1, "tag", ActionMark(ActionStatus.TODO))
    with pytest.raises(Fenced):
        world.ledger.release(KEY, "one", 1)
    assert world.item() == before


def test_a_released_event_can_be_claimed_at_once(world: World) -> None:
    granted(world)
    world.ledger.release(KEY, "one", 1)
    assert world.stored().lease_until_ms == 0
    assert granted(world, "two", NOON_MS + 1).item.generation == 2


def test_slots_of_a_released_event_are_there_for_the_next_owner_who_takes_them_off(world: World) -> None:
    """002.25: a slot is used by one owner: whoever takes that one over does not know whether it was."""
    granted(world)
    world.ledger.release(KEY, "one", 1, slots={"helpdesk": LATER, "sms": LATER + 1})
    assert world.stored().slots == {"helpdesk": LATER, "sms": LATER + 1}
    assert granted(world, "two", NOON_MS + 1).item.slots == {}
    assert world.stored().slots == {}
    world.ledger.release(KEY, "two", 2)
    assert world.stored().slots == {}


def test_a_released_takeover_keeps_the_end_of_the_lease_that_it_took_over(world: World) -> None:
    granted(world)
    granted(world, "two", LATER)
    world.ledger.release(KEY, "two", 2, LATER)
    assert world.stored().lease_until_ms == LATER
    assert granted(world, "three", LATER + 1).item.generation == 3


# ------------------------------------------------------------------------------------------------------------ settling


def test_a_settlement_without_rows_ends_the_lease_and_keeps_the_marks(world: World) -> None:
    granted(world)
    wanted = settlement()
    world.ledger.settle(wanted)
    item = world.stored()
    assert (item.status, item.lease_until_ms, item.actions) == (LedgerStatus.SETTLED, 0, wanted.marks)
    assert (item.owner, item.generation, item.decision) == ("one", 1, decision())


def test_a_settlement_with_rows_puts_each_with_its_audit_events(world: World) -> None:
    granted(world)
    changes = [parked("tag"), parked("reply")]
    world.ledger.settle(settlement(changes=changes, status=ActionStatus.RECOVERY))
    assert world.stored().status is LedgerStatus.SETTLED
    for change in changes:
        assert world.recovery.get(change.after.recovery_id) == change.after
    assert world.audit_ids() == sorted(event.id for change in changes for event in change.audit)


@pytest.mark.parametrize("with_rows", [False, True])
def test_a_settlement_brings_audit_events_of_its_own_in_the_same_write(world: World, with_rows: bool) -> None:
    granted(world)
    changes = [parked("tag")] if with_rows else []
    own = parked("reply").audit
    world.ledger.settle(replace(settlement(changes=changes), audit=own))
    assert world.stored().status is LedgerStatus.SETTLED
    assert world.audit_ids() == sorted(event.id for event in [*own, *(one for c in changes for one in c.audit)])
    with pytest.raises(Fenced):
        world.ledger.settle(replace(settlement("two", 9), audit=parked("assign").audit))
    assert len(world.audit_ids()) == len(own) * (2 if with_rows else 1)


def test_a_row_that_is_there_already_stays_as_it_is_while_the_rest_is_settled(world: World) -> None:
    known, new = parked("tag", NOON_MS + 1), parked("reply")
    assert world.recovery.put_if_absent(known)
    granted(world)
    world.ledger.settle(settlement(changes=[parked("tag", NOON_MS + 999), new]))
    assert world.stored().status is LedgerStatus.SETTLED
    assert world.recovery.get(known.after.recovery_id) == known.after
    assert world.recovery.get(new.after.recovery_id) == new.after
    assert world.audit_ids() == sorted(event.id for change in (known, new) for event in change.audit)


def test_an_event_whose_rows_are_all_there_already_is_settled(world: World) -> None:
    changes = [parked("tag"), parked("assign"), parked("reply")]
    for change in changes:
        assert world.recovery.put_if_absent(change)
    granted(world)
    world.ledger.settle(settlement(changes=changes))
    assert world.stored().status is LedgerStatus.SETTLED


@pytest.mark.parametrize("names", [(), ("tag",), ("tag", "reply")])
def test_a_settlement_that_meets_its_own_success_changes_nothing(world: World, names: tuple[str, ...]) -> None:
    granted(world)
    changes = [parked(name) for name in names]
    world.ledger.settle(settlement(changes=changes))
    moved = [hinted(change.after, NOON_MS + 1, 1.0) for change in changes]
    if moved:
        world.recovery.commit(moved)
    before, audit = world.item(), world.audit_ids()
    world.ledger.settle(replace(settlement(changes=changes), now_ms=NOON_MS + 61_000))
    assert (world.item(), world.audit_ids()) == (before, audit)
    for change in moved:
        assert world.recovery.get(change.after.recovery_id) == change.after


def test_a_worker_that_was_taken_over_settles_nothing_and_leaves_no_row(world: World) -> None:
    """002.19, the zombie: its lease ended, somebody else goes on, then it wakes."""
    granted(world)
    taken = granted(world, "two", LATER).item
    with pytest.raises(Fenced):
        world.ledger.settle(settlement("one", 1, changes=[parked()]))
    with pytest.raises(Fenced):
        world.ledger.settle(settlement("one", 1))
    with pytest.raises(Fenced):
        world.ledger.mark(KEY, "one", 1, "tag", ActionMark(ActionStatus.DONE))
    assert world.item() == taken
    assert world.recovery.get(blank().recovery_id) is None
    world.ledger.settle(settlement("two", 2))
    with pytest.raises(Fenced):
        world.ledger.settle(settlement("one", 1))


def test_a_settlement_that_fits_no_transaction_is_refused_before_anything_is_written(world: World) -> None:
    held = granted(world).item
    many = [parked(event_id=f"desk:{n}") for n in range(50)]
    with pytest.raises(ValueError, match="101 items"):
        world.ledger.settle(settlement(changes=many))
    with pytest.raises(ValueError, match="same row twice"):
        world.ledger.settle(settlement(changes=[parked(), parked()]))
    assert world.item() == held
    world.ledger.settle(settlement(changes=many[:49]))
    assert len(world.audit_ids()) == 49


# ------------------------------------------------------------------------------------------------- reading and pausing


def test_one_read_shows_events_by_key_and_a_state_for_every_integration(world: World) -> None:
    held = granted(world).item
    world.set_health("sms", Health.HARD_DOWN)
    world.ledger.pause("helpdesk", NOON_MS + 5)
    view = world.ledger.read([KEY, "E#acme#none", KEY], ["helpdesk", "sms", "email", "sms"])
    assert view.items == {KEY: held}
    assert view.integrations == {
        "helpdesk": IntegrationState("helpdesk", Health.HEALTHY, NOON_MS + 5, tat_ms=NOON_MS + 5),
        "sms": IntegrationState("sms", Health.HARD_DOWN),
        "email": IntegrationState("email"),
    }


def test_nothing_asked_is_nothing_read(world: World) -> None:
    view = world.ledger.read([], [])
    assert (view.items, view.integrations) == ({}, {})


def test_more_keys_than_one_request_holds_are_all_read(world: World) -> None:
    keys = [f"E#acme#desk:{n}" for n in range(230)]
    known = {keys[0], keys[99], keys[100], keys[229]}
    for key in known:
        world.ledger.claim(claim(key=key))
    view = world.ledger.read(keys, ["helpdesk"])
    assert set(view.items) == known
    assert view.integrations == {"helpdesk": IntegrationState("helpdesk")}


def test_a_longer_pause_stays_and_health_is_left_alone(world: World) -> None:
    world.set_health("helpdesk", Health.DEGRADED)
    for until_ms in (NOON_MS + 10, NOON_MS + 5):
        world.ledger.pause("helpdesk", until_ms)
    state = world.ledger.read([], ["helpdesk"]).integrations["helpdesk"]
    assert state == IntegrationState("helpdesk", Health.DEGRADED, NOON_MS + 10, tat_ms=NOON_MS + 10)
    world.ledger.pause("helpdesk", NOON_MS + 20)
    assert world.ledger.read([], ["helpdesk"]).integrations["helpdesk"].paused_until_ms == NOON_MS + 20


def test_an_id_with_half_a_surrogate_pair_is_an_id_like_any_other(world: World) -> None:
    key = "E#acme#desk:\ud800x"
    assert isinstance(world.ledger.claim(claim(key=key)), Claimed)
    assert isinstance(world.ledger.claim(claim("two", key=key)), Refused)
    assert set(world.ledger.read([key], []).items) == {key}
    world.ledger.settle(settlement(key=key))
    assert world.stored(key).status is LedgerStatus.SETTLED
