"""The worker's counts, in which alarms and people see what it does."""

from __future__ import annotations

import pytest

from functions.core.audit import AuditType
from functions.core.decision import Classification
from functions.core.failure import (
    ClassifierUnavailable,
    Failure,
    FailureClass,
    NetworkCause,
    RootCause,
    failure_of_network,
    failure_of_status,
)
from functions.core.fallback import Matrix
from functions.core.ledger import ActionStatus
from functions.core.quarantine import Quarantine, Rule
from functions.flows.flow import Finding, Prepared, UnreadableEvent
from tests import worker_world
from tests.worker_world import TENANT, World

_REJECTED = Failure(FailureClass.DATA_ERROR, "HTTP_422", "no such ticket", is_retryable=False, may_have_happened=False)


def test_every_automatic_reply_is_counted_apart_so_that_a_storm_shows() -> None:
    """002.12"""
    world = World(("tag", "reply"))
    for number in range(3):
        world.accept(world.event(f"m-{number}"))
    world.run_until_quiet()
    assert world.quiet.counts["auto_reply_sent"] == 3


def test_a_reply_that_was_not_sent_is_not_counted_as_one() -> None:
    """002.12"""
    world = World(("tag", "reply", "instead"), {**World().switches.values, "auto_reply": "off"})
    world.accept(world.event())
    world.run_until_quiet()
    assert "auto_reply_sent" not in world.quiet.counts
    assert world.quiet.counts["actions_suppressed"] == 1


def test_decisions_and_what_came_of_them_are_counted_so_that_a_gap_shows() -> None:
    """002.32: one decision per event, one success per effect, whatever it took."""
    world = World(("tag", "assign", "push"))
    world.provider.answers.append(
        lambda action: failure_of_network(NetworkCause.CONNECT_REFUSED) if action.name == "tag" else None
    )
    world.accept(world.event())
    world.deliver()
    world.provider.answers.clear()
    world.run_until_quiet()
    assert world.quiet.counts["decisions_made"] == 1
    assert world.quiet.counts["actions_success"] == 3
    assert world.quiet.counts["actions_failed"] == 1


def test_replies_that_had_waited_are_counted_apart_so_that_they_are_no_storm() -> None:
    """002.12"""
    world = World(("tag", "reply"))
    world.provider.answers.append(
        lambda action: failure_of_status(429, retry_after_ms=120_000) if action.name == "reply" else None
    )
    world.accept(world.event("m-1"))
    world.deliver()
    world.provider.answers.clear()
    world.run_until_quiet()
    world.accept(world.event("m-2"))
    world.run_until_quiet()
    assert world.quiet.counts["auto_reply_sent"] == 2
    assert world.quiet.counts["auto_reply_released"] == 1


def test_what_was_found_to_be_so_already_is_an_effect_too() -> None:
    """002.32: else a decision that somebody had carried out before would look like one that was lost."""
    world = World(("tag", "assign", "reply"))
    world.provider.answers.append(lambda action: failure_of_status(503) if action.name != "tag" else None)
    world.accept(world.event())
    world.run_until_quiet()
    counts = world.quiet.counts
    assert counts["actions_decided"] == 3
    assert counts["actions_success"] == 1
    assert counts["actions_already_done"] == 2  # the answer was lost, the effect had happened


def test_shadow_decides_nothing_that_would_be_missed() -> None:
    world = World(("tag",), {**World().switches.values, "mode": "shadow"})
    world.accept(world.event())
    world.run_until_quiet()
    assert world.quiet.counts["decisions_made"] == 1
    assert "actions_decided" not in world.quiet.counts


def test_the_age_of_the_oldest_event_is_told_however_often_it_was_received() -> None:
    """002.35: SQS leaves what was received three times out of its own age."""
    world = World(("tag",))
    world.accept(world.event("m-1", received_at_ms=world.clock.now - 400_000))
    world.accept(world.event("m-2"))
    world.run_until_quiet()
    assert max(world.quiet.times["event_age_ms"]) == 400_000


def test_a_decision_that_came_to_nothing_is_a_gap_in_the_counts() -> None:
    """002.32"""
    world = World(("tag",))
    world.provider.answers.append(lambda _: _REJECTED)
    world.accept(world.event())
    world.run_until_quiet()
    assert world.quiet.counts["decisions_made"] == 1
    assert "actions_success" not in world.quiet.counts


def test_every_429_is_counted_and_so_is_what_became_of_the_action() -> None:
    """002.20: the rate of 429, of retries, and of messages that came back."""
    world = World(("tag",))
    world.provider.answers.append(lambda _: failure_of_status(429, retry_after_ms=120_000))
    world.accept(world.event())
    world.deliver()
    assert world.quiet.counts["rate_limited"] == 1
    assert world.quiet.counts["rows_created"] == 1
    world.provider.answers.clear()
    world.run_until_quiet()
    assert world.quiet.counts["rate_limited"] == 1
    assert world.quiet.counts["recovery_transitions"] == 1
    assert world.quiet.counts["items_received"] == 2


def asks_the_llm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flow of these tests, of every event."""
    needs_llm = Prepared("t1", "hello", {}, needs_llm=True, finding=Finding(worker_world.SAID))
    monkeypatch.setattr(worker_world.EveryKind, "prepare", lambda _self, _event: needs_llm)


def test_an_llm_that_gives_no_answer_is_counted_as_well_as_the_decision_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """002.26"""
    asks_the_llm(monkeypatch)
    world = World(("tag",))
    world.accept(world.event())
    world.run_until_quiet()
    assert world.quiet.counts["classifier_unavailable"] == 1
    assert world.quiet.counts["classifier_fallbacks"] == 1


def test_an_event_that_was_carried_out_in_part_shows_which_part_and_the_audit_why() -> None:
    """002.31: the ledger has every action's mark, the audit the one that failed."""
    world = World(("tag", "push"))
    world.provider.answers.append(lambda action: _REJECTED if action.name == "push" else None)
    event = world.event()
    world.accept(event)
    world.run_until_quiet()
    marks = world.tables.ledger[f"E#{TENANT}#{event.event_id}"].actions
    assert {name: mark.status for name, mark in marks.items()} == {
        "tag": ActionStatus.DONE,
        "push": ActionStatus.RECOVERY,
    }
    [row] = world.tables.rows.values()
    assert {(one.affected_id, one.event_type) for one in world.tables.events} == {
        (row.recovery_id, AuditType.FAILURE_DETECTED),
        (row.recovery_id, AuditType.FAILURE_CONTAINED),
        (row.recovery_id, AuditType.REPROCESS_FAILED),
    }
    assert all("HTTP_422" in one.error and one.recovery_status == "failed" for one in world.tables.events)


# -------------------------------------------------------------------------------------- the balance of an hour's events


def accounted(world: World) -> dict[tuple[int, str], int]:
    """What was counted, by the moment of receipt and by outcome."""
    return {(at_ms, outcome): count for (name, at_ms, outcome), count in world.quiet.counts_at.items() if name == _BOOK}


_BOOK = "events_accounted"


def test_each_delivery_is_accounted_for_once_under_the_moment_at_which_it_came() -> None:
    world = World(("tag",))
    first = world.event("m-1")
    world.accept(first, copies=2)  # the queue brings it twice
    world.run_until_quiet()
    came_ms = world.clock.now
    again = world.event("m-1", request_id="f" * 32)  # the sender brings it twice
    world.accept(again)
    world.clock.advance(3_600_000)
    world.run_until_quiet()
    assert accounted(world) == {(first.received_at_ms, "done"): 1, (came_ms, "again"): 1}


def test_deliveries_are_counted_by_name_where_they_must_arrive_and_as_others_where_senders_choose() -> None:
    """However many names there are, there is one metric for each that the catalog lists, and one more."""
    world = World(("tag",))
    world.fallbacks = Matrix(critical_events=frozenset({"invite.created"}))
    for number, name in enumerate(("invite.created", "message.created", "x" * 200)):
        world.accept(world.event(str(number), event_name=name), copies=2)
    world.run_until_quiet()
    assert world.quiet.named == {("invite.created", "done"): 1, ("other", "done"): 2}


def test_two_deliveries_in_one_batch_are_one_event_and_one_that_came_again() -> None:
    world = World(("tag",))
    for request_id in ("e" * 32, "f" * 32):
        world.accept(world.event("m-1", request_id=request_id))
    world.deliver()
    assert {outcome: count for (_, outcome), count in accounted(world).items()} == {"done": 1, "again": 1}


def test_what_is_left_of_an_event_is_counted_once_however_often_its_rows_are_tried() -> None:
    world = World(("tag", "push"))
    world.provider.answers.append(lambda _: failure_of_network(NetworkCause.CONNECT_REFUSED))
    world.accept(world.event())
    world.deliver()
    world.provider.answers.clear()
    world.run_until_quiet()
    assert {outcome: count for (_, outcome), count in accounted(world).items()} == {"left": 1}


def test_an_event_that_is_an_item_itself_is_counted_when_it_is_settled_under_the_moment_it_came() -> None:
    """While it is an item its row tells; the same event delivered again has that row already."""
    world = World(("tag",), {**World().switches.values, "mode": "hold"})
    came_ms = world.clock.now
    world.accept(world.event("m-1"))
    world.deliver()
    assert accounted(world) == {}
    world.accept(world.event("m-1", request_id="f" * 32))
    world.deliver()
    assert accounted(world) == {(came_ms, "again"): 1}
    world.clock.advance(60_000)
    world.sweep()
    world.deliver()  # it is held still: its own row brought it, and no delivery
    assert accounted(world) == {(came_ms, "again"): 1}
    world.switches.values["mode"] = "live"
    world.run_until_quiet()
    assert accounted(world) == {(came_ms, "again"): 1, (came_ms, "done"): 1}


def test_an_event_that_died_counts_as_its_row_and_one_that_came_again_as_that() -> None:
    world = World(("tag",))
    for request_id in ("e" * 32, "f" * 32):
        world.accept(world.event("m-1", flow="gone", request_id=request_id))
        world.deliver()
    assert {outcome: count for (_, outcome), count in accounted(world).items()} == {"again": 1}


@pytest.mark.parametrize("is_held", [True, False])
def test_what_people_keep_aside_counts_as_its_row(is_held: bool) -> None:
    world = World(("tag",))
    if not is_held:
        world.tables.quarantine = Quarantine(
            (Rule("q" * 32, "ada", "why", 0, world.clock.now + 60_000, source="desk"),)
        )
    for request_id in ("e" * 32, "f" * 32):
        world.accept(world.event("m-1", held=is_held, request_id=request_id))
        world.deliver()
    assert {outcome: count for (_, outcome), count in accounted(world).items()} == {"again": 1}


def test_a_credential_that_nobody_stores_is_seen_each_minute_until_somebody_does() -> None:
    """The worker looks at its rows each minute, and so does the sweeper's gauge."""
    world = World(("create",))
    world.provider.answers.append(lambda _action: failure_of_status(401) if world.provider.credential == "1" else None)
    world.accept(world.event())
    world.deliver()
    for minute in range(1, 11):
        world.clock.advance(60_000)
        world.sweep()
        world.deliver()
        assert world.quiet.counts["rows_waiting"] == minute
    world.provider.credential = "2"
    world.run_until_quiet()
    counted = world.quiet.counts["rows_waiting"]
    for _ in range(3):
        world.clock.advance(60_000)
        world.sweep()
    assert world.quiet.counts["rows_waiting"] == counted


def test_what_share_of_a_flows_events_meets_a_defect_is_counted_by_flow_003_25(monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds a flow by itself: defects and forms that we do not know, and nothing that a sender got wrong."""
    world = World(("tag",))
    world.accept(world.event("m-1"))
    world.run_until_quiet()
    assert (world.quiet.counts["flow_events"], world.quiet.counts.get("flow_errors", 0)) == (1, 0)

    def defect(_self: object, _event: object) -> Prepared:
        raise RuntimeError("a defect")

    monkeypatch.setattr(worker_world.EveryKind, "prepare", defect)
    world.accept(world.event("m-2"))
    world.deliver()
    assert (world.quiet.counts["flow_events"], world.quiet.counts["flow_errors"]) == (2, 1)


@pytest.mark.parametrize(("cause", "errors"), [(RootCause.SCHEMA_MISMATCH, 1), (RootCause.BAD_SOURCE_DATA, 0)])
def test_a_sender_that_sends_nonsense_holds_nobodys_flow_003_25(
    monkeypatch: pytest.MonkeyPatch, cause: RootCause, errors: int
) -> None:
    def unreadable(_self: object, _event: object) -> Prepared:
        raise UnreadableEvent(cause, "no such field")

    monkeypatch.setattr(worker_world.EveryKind, "prepare", unreadable)
    world = World(("tag",))
    world.accept(world.event())
    world.run_until_quiet()
    assert world.quiet.counts["events_dead"] == 1
    assert world.quiet.counts.get("flow_errors", 0) == errors


def test_how_long_events_take_from_the_door_to_done_is_told_of_those_that_are_done_at_once() -> None:
    """002.35. What is left waits as an item, whose age is told there."""
    world = World(("tag",))
    world.accept(world.event("m-1", received_at_ms=world.clock.now - 1_700))
    world.run_until_quiet()
    assert world.quiet.times["settle_ms"] == [1_700]
    world.provider.answers.append(lambda _: failure_of_status(429, retry_after_ms=120_000))
    world.accept(world.event("m-2"))
    world.deliver()
    assert world.quiet.times["settle_ms"] == [1_700]


def test_how_long_the_llm_was_waited_for_is_told_whether_it_answered_or_not_002_26(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asks_the_llm(monkeypatch)
    world = World(("tag",))

    async def slow(_self: object, *_: object) -> Classification:
        world.clock.advance(900)
        raise ClassifierUnavailable("LLM_SERVER_ERROR", "500")

    monkeypatch.setattr(worker_world.NoClassifier, "classify", slow)
    world.accept(world.event())
    world.run_until_quiet()
    assert world.quiet.times["classifier_ms"] == [900]
