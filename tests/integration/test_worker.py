"""What the worker makes of a batch: the rules of architecture §6 and §9 that only the whole handler can show."""

from __future__ import annotations

from dataclasses import replace

import pytest

from functions.core.attempt import Effect
from functions.core.audit import AuditType
from functions.core.decision import Mode
from functions.core.failure import (
    Failure,
    FailureClass,
    NetworkCause,
    StorageUnavailable,
    failure_of_network,
    failure_of_status,
)
from functions.core.gate import Health, WaitingFor
from functions.core.integration import INTAKE
from functions.core.ledger import ActionStatus, LedgerStatus
from functions.core.recipient import Person
from functions.core.recovery import HELD, PAYLOAD_MISMATCH, SUPPRESSED, Row, Status, Subject, end, replay
from tests.fakes import FakeRecovery
from tests.worker_world import DESK, TENANT, World


def rows(world: World) -> list[Row]:
    return list(world.tables.rows.values())


def only_row(world: World) -> Row:
    found = rows(world)
    assert len(found) == 1
    return found[0]


def test_a_finished_event_leaves_no_row_no_audit_and_no_envelope() -> None:
    world = World(("tag", "assign"))
    world.accept(world.event())
    world.run_until_quiet()

    assert not rows(world)
    assert not world.tables.audit
    assert not world.envelopes.objects
    assert world.faults.calls.count("ledger.claim") == 1
    assert world.faults.calls.count("ledger.settle") == 1


def test_copies_in_one_batch_are_one_event_and_counted_as_duplicates() -> None:
    """002.11"""
    world = World(("push",))
    event = world.event()
    world.accept(event, copies=4)
    world.run_until_quiet()

    world.check_settled(event)
    assert world.provider.effects[world.decision_of(event).action("push").action_id] == 1
    assert world.quiet.counts["idempotency_duplicates_detected"] == 3


def test_a_redelivery_after_the_settlement_does_nothing_and_is_counted() -> None:
    """002.11"""
    world = World(("push",))
    event = world.event()
    world.accept(event)
    world.run_until_quiet()
    world.accept(event)
    world.run_until_quiet()

    assert world.provider.effects[world.decision_of(event).action("push").action_id] == 1
    assert world.quiet.counts["idempotency_duplicates_detected"] == 1


def test_another_payload_under_the_same_id_is_kept_for_a_person() -> None:
    world = World(("tag",))
    event = world.event()
    world.accept(event)
    world.run_until_quiet()
    world.accept(replace(event, payload_hash="other"))
    world.run_until_quiet()

    row = only_row(world)
    assert (row.subject, row.integration_id, row.status, row.failure_code) == (
        Subject.EVENT,
        INTAKE,
        Status.FAILED,
        PAYLOAD_MISMATCH,
    )
    assert world.envelopes.get(row.envelope_ref).payload_hash == "other"


def test_two_payloads_under_one_id_in_one_batch_are_not_taken_for_copies() -> None:
    world = World(("tag",))
    event = world.event()
    world.accept(event)
    world.accept(replace(event, payload_hash="other"))
    world.run_until_quiet()

    assert only_row(world).failure_code == PAYLOAD_MISMATCH


def test_an_equal_message_is_a_new_event_once_its_repeat_window_is_over() -> None:
    world = World(("push",))
    first = world.event(repeat_window_seconds=600)
    world.accept(first)
    world.run_until_quiet()
    world.clock.advance(300_000)
    world.accept(world.event(repeat_window_seconds=600))
    world.run_until_quiet()
    assert sum(world.provider.effects.values()) == 1

    world.clock.advance(301_000)
    world.accept(world.event(repeat_window_seconds=600))
    world.run_until_quiet()
    assert sum(world.provider.effects.values()) == 2


def test_an_unfinished_action_leaves_its_envelope_its_row_and_its_audit_in_the_settling_write() -> None:
    """004.10, 004.16, 003.1: detected, contained, and scheduled."""
    world = World(("tag",))
    world.provider.answers.append(lambda _: failure_of_network(NetworkCause.CONNECT_REFUSED))
    event = world.event()
    world.accept(event)
    world.deliver()

    row = only_row(world)
    assert (row.status, row.attempt_count, row.waiting_for) == (Status.RETRYING, 1, WaitingFor.BACKOFF)
    assert world.envelopes.get(row.envelope_ref) == event
    assert {one.event_type for one in world.tables.events} == {
        AuditType.FAILURE_DETECTED,
        AuditType.FAILURE_CONTAINED,
        AuditType.RETRY_SCHEDULED,
    }
    assert all(one.after_state for one in world.tables.events)
    assert world.tables.ledger[f"E#{TENANT}#{event.event_id}"].status is LedgerStatus.SETTLED


def test_an_outage_that_outlasts_five_calls_ends_in_the_dlq_and_a_replay_does_it_once() -> None:
    """004.7, 004.9, 004.15, 000.28: five calls in all, then `dlq`; the replay keeps the key."""
    world = World(("tag", "create"))
    world.provider.answers.append(lambda _: failure_of_network(NetworkCause.CONNECT_REFUSED))
    event = world.event()
    world.accept(event)
    world.run_until_quiet()
    dead = rows(world)
    assert [(row.status, row.attempt_count, row.effect) for row in dead] == [(Status.DLQ, 5, Effect.NONE)] * 2

    world.provider.answers.clear()
    for row in dead:
        again = replay(row, world.clock.now, actor="ops", reason="it is back", request_id="r", job_id="j", scale=1.0)
        FakeRecovery(world.tables).commit([again])
    world.run_until_quiet()

    assert [(row.status, row.result) for row in rows(world)] == [(Status.REPLAYED, "succeeded")] * 2
    assert set(world.provider.effects.values()) == {1}


def test_what_the_provider_answered_is_kept_with_the_failure_that_it_was_004_10() -> None:
    """Of the last attempt that failed: one that came without an answer leaves none of an earlier one (004.21)."""
    world = World(("tag",))
    said = '{"status":503,"body":{"error":"maintenance"}}'
    answers: list[Failure] = [
        replace(failure_of_status(503), answer=said),
        failure_of_network(NetworkCause.CONNECT_REFUSED),
        replace(failure_of_status(422), answer='{"status":422}'),
    ]
    world.provider.answers.append(lambda _: answers.pop(0))
    world.accept(world.event())
    world.deliver()
    assert (only_row(world).failure_code, only_row(world).response_snapshot) == ("HTTP_503", said)
    world.clock.now = only_row(world).due_at_ms
    world.sweep()
    world.deliver()
    assert (only_row(world).failure_code, only_row(world).response_snapshot) == ("CONNECTION_REFUSED", "")
    world.run_until_quiet()
    assert (only_row(world).failure_code, only_row(world).response_snapshot) == ("HTTP_422", '{"status":422}')


def test_a_child_waits_for_its_parent_and_is_sent_after_it() -> None:
    world = World(("tag", "reply"))
    left = [2]

    def tag_fails_twice(action: object) -> Failure | None:
        if getattr(action, "name", "") == "tag" and left[0]:
            left[0] -= 1
            return failure_of_network(NetworkCause.CONNECT_REFUSED)
        return None

    world.provider.answers.append(tag_fails_twice)
    event = world.event()
    world.accept(event)
    world.run_until_quiet()

    world.check_settled(event)
    assert [name for _, name in world.provider.sent] == ["tag", "reply"]


def test_a_wait_that_the_provider_states_spends_no_attempt_and_holds_every_call_to_it() -> None:
    """003.17, 002.24: 429 with Retry-After."""
    world = World(("tag", "create"))
    told = [True]

    def once(_action: object) -> Failure | None:
        if told[0]:
            told[0] = False
            return failure_of_status(429, retry_after_ms=120_000)
        return None

    world.provider.answers.append(once)
    event = world.event()
    started = world.clock.now
    world.accept(event)
    world.run_until_quiet()

    world.check_settled(event)
    assert sorted(name for _, name in world.provider.sent) == ["create", "tag"]
    assert min(at for at, _ in world.provider.sent) >= started + 120_000
    assert all(row.attempt_count == 1 for row in rows(world))


def test_a_reply_stopped_by_the_kill_switch_stays_stopped_and_the_triage_tag_goes_out_instead() -> None:
    """002.14, 002.28, 002.34: suppressed, never released by a switch."""
    world = World(("tag", "reply", "instead"), {**World().switches.values, "auto_reply": "off"})
    event = world.event()
    world.accept(event)
    world.run_until_quiet()
    world.switches.values["auto_reply"] = "on"
    world.clock.advance(60_000)
    world.run_until_quiet()

    row = only_row(world)
    assert (row.status, row.failure_code) == (Status.FAILED, SUPPRESSED)
    assert [name for _, name in world.provider.sent] == ["tag", "instead"]
    assert world.tables.ledger[f"E#{TENANT}#{event.event_id}"].actions["reply"].status is ActionStatus.SUPPRESSED


def test_the_switch_also_stops_a_reply_that_waits_for_a_retry() -> None:
    world = World(("tag", "reply", "instead"))
    world.provider.answers.append(
        lambda action: failure_of_network(NetworkCause.CONNECT_REFUSED) if action.name == "reply" else None
    )
    event = world.event()
    world.accept(event)
    world.deliver()
    world.switches.values["auto_reply"] = "off"
    world.provider.answers.clear()
    world.run_until_quiet()

    assert [name for _, name in world.provider.sent] == ["tag", "instead"]
    assert {row.failure_code for row in rows(world) if row.action and row.action.name == "reply"} == {SUPPRESSED}


@pytest.mark.parametrize("mode", [Mode.ROUTE_ONLY, Mode.MANUAL])
def test_no_mode_but_live_sends_a_customer_anything(mode: Mode) -> None:
    """002.23"""
    world = World(("tag", "reply", "instead"), {**World().switches.values, "mode": mode.value})
    world.accept(world.event())
    world.run_until_quiet()

    assert [name for _, name in world.provider.sent] == ["tag", "instead"]


def test_a_recipient_who_opted_out_is_never_written_to() -> None:
    """003.20"""
    world = World(("tag", "reply"))
    world.tables.people[TENANT, "r1"] = Person(opted_out=True)
    world.accept(world.event())
    world.run_until_quiet()

    assert [name for _, name in world.provider.sent] == ["tag"]


def test_a_reply_waits_while_the_switches_cannot_be_read_and_expires_rather_than_come_late() -> None:
    world = World(("tag", "reply"))
    world.switches.is_down = True
    world.accept(world.event())
    for _ in range(20):
        world.deliver()
        world.sweep()
        world.clock.advance(60_000)
    world.switches.is_down = False
    world.clock.advance(8 * 86_400_000)
    world.run_until_quiet()

    assert [name for _, name in world.provider.sent] == ["tag"]
    assert only_row(world).failure_code == "EXPIRED"


def test_a_disabled_integration_gets_nothing_and_everything_once_it_is_back() -> None:
    world = World(("tag", "assign", "create"), {**World().switches.values, "disabled_integrations": DESK})
    event = world.event()
    world.accept(event)
    world.deliver()
    assert not world.provider.sent
    assert {row.status for row in rows(world)} == {Status.PENDING}

    world.switches.values["disabled_integrations"] = "none"
    world.clock.advance(60_000)
    world.run_until_quiet()
    world.check_settled(event)
    assert all(row.attempt_count == 1 for row in rows(world))


def test_no_attempt_is_spent_on_an_integration_that_is_down() -> None:
    """000.9"""
    world = World(("tag",))
    world.tables.set_health(DESK, Health.HARD_DOWN)
    world.accept(world.event())
    for _ in range(30):
        world.deliver()
        world.sweep()
        world.clock.advance(60_000)
    assert (only_row(world).status, only_row(world).attempt_count) == (Status.PENDING, 0)

    world.tables.set_health(DESK, Health.HEALTHY)
    world.run_until_quiet()
    assert only_row(world).status is Status.SUCCEEDED


def test_on_hold_every_event_waits_as_a_row_and_is_processed_when_hold_ends() -> None:
    world = World(("tag",), {**World().switches.values, "mode": "hold"})
    event = world.event()
    world.accept(event, copies=2)
    while world.deliver():
        pass
    assert not world.messages
    assert (only_row(world).subject, only_row(world).status) == (Subject.EVENT, Status.PENDING)
    assert not world.tables.ledger

    world.switches.values["mode"] = "live"
    world.clock.advance(60_000)
    world.run_until_quiet()
    world.check_settled(event)
    assert only_row(world).status is Status.SUCCEEDED


def test_an_event_of_a_held_source_waits_for_a_person_and_a_replay_processes_it() -> None:
    world = World(("tag",))
    event = world.event(held=True)
    world.accept(event)
    world.run_until_quiet()
    row = only_row(world)
    assert (row.status, row.failure_code) == (Status.FAILED, HELD)

    again = replay(row, world.clock.now, actor="ops", reason="go on", request_id="r", job_id="j", scale=1.0)
    FakeRecovery(world.tables).commit([again])
    world.run_until_quiet()
    world.check_settled(event)
    assert (only_row(world).status, only_row(world).result) == (Status.REPLAYED, "succeeded")


def test_shadow_sends_nothing_and_leaves_the_real_event_unclaimed() -> None:
    """002.30, 002.34"""
    world = World(("tag", "reply"), {**World().switches.values, "mode": "shadow"})
    event = world.event()
    world.accept(event)
    world.run_until_quiet()

    assert not world.provider.sent
    assert list(world.tables.ledger) == [f"S#{TENANT}#{event.event_id}"]


def test_an_unknown_flow_ends_as_a_row_that_can_be_replayed() -> None:
    world = World(("tag",))
    event = world.event(flow="not_yet_deployed")
    world.accept(event)
    world.run_until_quiet()

    assert (only_row(world).status, only_row(world).failure_code) == (Status.DLQ, "UNKNOWN_FLOW")
    assert world.envelopes.get(only_row(world).envelope_ref) == event


def test_a_message_that_is_no_envelope_goes_to_the_queue_s_dlq_and_harms_no_neighbour() -> None:
    """002.34"""
    world = World(("tag",))
    event = world.event()
    world._put("events", "{not json", 0)
    world._put("retries", '{"recovery_id": 1}', 0)
    world.accept(event)
    world.run_until_quiet()

    world.check_settled(event)
    assert sorted(message.queue for message in world.dead) == ["events", "retries"]


def test_a_setting_that_a_person_changed_meanwhile_is_left_alone() -> None:
    """A late redo must not overwrite a person."""
    world = World(("assign",))
    world.provider.answers.append(lambda _: failure_of_network(NetworkCause.CONNECT_REFUSED))
    event = world.event()
    world.accept(event)
    world.deliver()
    world.provider.answers.clear()
    world.clock.advance(5_000)
    world.provider.settings["t1"] = ("a person's choice", world.clock.now)
    world.run_until_quiet()

    assert world.provider.settings["t1"][0] == "a person's choice"
    assert only_row(world).status is Status.SUCCEEDED
    assert only_row(world).failure_detail.startswith("superseded")


def test_a_refused_credential_waits_without_calling_until_the_parameter_changes() -> None:
    world = World(("tag",))
    world.provider.answers.append(lambda _: failure_of_status(401) if world.provider.credential == "1" else None)
    world.accept(world.event())
    for _ in range(10):
        world.deliver()
        world.sweep()
        world.clock.advance(60_000)
    row = only_row(world)
    assert (row.status, row.attempt_count, row.waiting_for) == (Status.PENDING, 0, WaitingFor.CREDENTIAL)
    assert world.faults.calls.count("provider.send.tag") == 2

    world.provider.credential = "2"
    world.run_until_quiet()
    assert only_row(world).status is Status.SUCCEEDED


def test_a_rejected_request_is_not_tried_again() -> None:
    world = World(("tag",))
    world.provider.answers.append(lambda _: failure_of_status(422))
    world.accept(world.event())
    world.run_until_quiet()

    row = only_row(world)
    assert (row.status, row.attempt_count, row.failure_class) == (Status.FAILED, 1, FailureClass.DATA_ERROR.value)


def test_replies_that_exhausted_their_attempts_are_looked_up_once_more_so_that_a_replay_is_safe() -> None:
    world = World(("tag", "reply"))

    def reply_never_answers(action: object) -> Failure | None:
        if getattr(action, "name", "") == "reply":
            return failure_of_status(503)
        return None

    world.provider.answers.append(reply_never_answers)
    world.provider.acts_on_failure = False
    event = world.event()
    world.accept(event)
    world.run_until_quiet()

    row = only_row(world)
    assert (row.status, row.attempt_count, row.effect) == (Status.DLQ, 5, Effect.NONE)
    assert world.faults.calls.count("provider.send.reply") == 5
    assert world.faults.calls.count("provider.look_up.reply") == 5


def test_what_has_ended_for_good_is_not_touched_by_a_late_hint() -> None:
    world = World(("tag",))
    world.provider.answers.append(lambda _: failure_of_network(NetworkCause.CONNECT_REFUSED))
    world.accept(world.event())
    world.deliver()
    world.clock.advance(60_000)
    world.sweep()
    row = only_row(world)
    FakeRecovery(world.tables).commit([end(row, "DISMISSED", "not wanted", world.clock.now, actor="ops")])
    world.provider.answers.clear()
    world.run_until_quiet()

    assert only_row(world).failure_code == "DISMISSED"
    assert not world.provider.sent


def test_a_batch_whose_ledger_cannot_be_read_comes_back_whole() -> None:
    world = World(("tag",))
    world.faults.fail("ledger.read", StorageUnavailable("down"), times=2)
    event = world.event()
    world.accept(event)
    world.run_until_quiet()

    world.check_settled(event)
    assert not rows(world)


def test_an_adapter_that_raises_harms_no_other_event_and_counts_as_unknown() -> None:
    world = World(("create",))
    raised = [0]

    def raise_once(_action: object) -> Failure | None:
        raised[0] += 1
        if raised[0] == 1:
            raise RuntimeError("a defect")
        return None

    world.provider.answers.append(raise_once)
    one, two = world.event("1"), world.event("2")
    world.accept(one)
    world.accept(two)
    world.run_until_quiet()

    world.check_settled(one)
    world.check_settled(two)
    assert only_row(world).status is Status.SUCCEEDED


def expire_after_an_unclear_send(world: World) -> None:
    """A reply answered 503, whose item is looked at again only when it is too late."""
    world.provider.answers.append(lambda action: failure_of_status(503) if action.name == "reply" else None)
    world.accept(world.event())
    world.deliver()
    world.clock.advance(8 * 86_400_000)


def test_a_reply_that_expired_after_it_may_have_been_sent_is_looked_up_and_found() -> None:
    world = World(("tag", "reply"))
    expire_after_an_unclear_send(world)
    world.run_until_quiet()

    assert only_row(world).status is Status.SUCCEEDED
    assert [name for _, name in world.provider.sent] == ["tag", "reply"]


def test_a_reply_that_expired_unsent_is_known_to_be_unsent_and_not_sent_any_more() -> None:
    world = World(("tag", "reply"))
    world.provider.acts_on_failure = False
    expire_after_an_unclear_send(world)
    world.run_until_quiet()

    row = only_row(world)
    assert (row.status, row.failure_code, row.effect) == (Status.FAILED, "EXPIRED", Effect.NONE)
    assert [name for _, name in world.provider.sent] == ["tag"]


def test_a_replay_whose_outcome_is_unclear_is_looked_up_so_that_another_replay_is_safe() -> None:
    """004.15"""
    world = World(("tag", "reply"))
    world.provider.answers.append(
        lambda action: failure_of_network(NetworkCause.CONNECT_REFUSED) if action.name == "reply" else None
    )
    world.accept(world.event())
    world.run_until_quiet()
    world.provider.answers[:] = [lambda action: failure_of_status(503) if action.name == "reply" else None]
    world.provider.acts_on_failure = False
    dead = only_row(world)
    again = replay(dead, world.clock.now, actor="ops", reason="try", request_id="r", job_id="j", scale=1.0)
    FakeRecovery(world.tables).commit([again])
    world.run_until_quiet()

    row = only_row(world)
    assert (row.status, row.result, row.effect) == (Status.DLQ, "failed", Effect.NONE)
    assert world.faults.calls.count("provider.send.reply") == 6
    assert world.faults.calls.count("provider.look_up.reply") == 1


def test_a_row_whose_kind_left_the_catalog_is_dead_at_once_and_not_tried_for_ever() -> None:
    world = World(("tag",))
    world.provider.answers.append(lambda _: failure_of_network(NetworkCause.CONNECT_REFUSED))
    world.accept(world.event())
    world.deliver()
    world.integrations.clear()
    world.run_until_quiet()

    row = only_row(world)
    assert (row.status, row.failure_code) == (Status.DLQ, "POISONED")


def test_a_credential_refused_at_a_lookup_waits_for_a_new_one_too() -> None:
    world = World(("tag", "reply"))
    world.provider.answers.append(lambda action: failure_of_status(503) if action.name == "reply" else None)
    world.accept(world.event())
    world.deliver()
    world.provider.refused_credential = "1"
    for _ in range(10):
        world.deliver()
        world.sweep()
        world.clock.advance(60_000)
    assert only_row(world).waiting_for is WaitingFor.CREDENTIAL
    assert world.faults.calls.count("provider.look_up.reply") == 2

    world.provider.credential = "2"
    world.run_until_quiet()
    assert only_row(world).status is Status.SUCCEEDED
    assert [name for _, name in world.provider.sent] == ["tag", "reply"]


@pytest.mark.parametrize(
    ("switch", "value"),
    [
        ("classifier", "rules"),
        ("disabled_integrations", "llm"),
        ("disabled_integrations", "all"),
        ("limits/llm", "0"),
        ("mode", "manual"),
    ],
)
def test_an_llm_that_is_switched_off_is_not_asked(switch: str, value: str) -> None:
    """002.27: each switch that says so, and the general ones that name it."""
    world = World(("tag",), {**World().switches.values, switch: value})
    world.needs_llm = True
    world.accept(world.event())
    world.deliver()

    assert world.classifier.asked == 0
    assert len(world.tables.ledger) == 1


def test_an_llm_that_is_on_is_asked_once_and_its_silence_stops_nothing() -> None:
    """002.27"""
    world = World(("tag",))
    world.needs_llm = True
    event = world.event()
    world.accept(event)
    world.run_until_quiet()

    assert world.classifier.asked == 1
    world.check_settled(event)


def test_the_audit_of_a_success_names_no_error_and_a_stop_counts_no_attempt() -> None:
    """004.16, 004.18"""
    world = World(("tag", "reply", "instead"), {**World().switches.values, "auto_reply": "off"})
    world.accept(world.event())
    world.run_until_quiet()
    stopped = next(row for row in rows(world) if row.failure_code == SUPPRESSED)
    again = replay(stopped, world.clock.now, actor="ops", reason="ask", request_id="r", job_id="j", scale=1.0)
    FakeRecovery(world.tables).commit([again])
    world.run_until_quiet()
    stopped = next(row for row in rows(world) if row.failure_code == SUPPRESSED)
    assert (stopped.status, stopped.attempt_count) == (Status.FAILED, 0)

    world.switches.values["auto_reply"] = "on"
    world.clock.advance(10_000)
    again = replay(stopped, world.clock.now, actor="ops", reason="now", request_id="r", job_id="j", scale=1.0)
    FakeRecovery(world.tables).commit([again])
    world.run_until_quiet()
    done = [one for one in world.tables.events if one.event_type is AuditType.REPROCESS_SUCCEEDED]
    assert [(one.error, one.failure_type) for one in done] == [("", "")]
