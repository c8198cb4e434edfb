"""Operators' hands on the recovery queue where something gives way: switches thrown while a replay is on its way, a
canary that proves nothing, items that nobody can read, people who err, answers without end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from functions.adapters import items
from functions.core.failure import failure_of_status
from functions.core.gate import WaitingFor
from functions.core.integration import INTAKE
from functions.core.operations import Person, replayed_by
from functions.core.ports import Hint
from functions.core.recovery import Change, Status, replay
from functions.core.replay_job import SIZES, State
from tests import aws_tables
from tests.contract.storage import Lost
from tests.operator_world import OperatorWorld, operator_world
from tests.recovery_rows import row
from tests.replay_world import MINUTE_MS, ReplayWorld
from tests.worker_world import DESK, KINDS


def send_on(world: ReplayWorld, change: Change) -> None:
    """As the operator API does: the row is stored, and then hinted at."""
    after = change.after
    world.tables.rows[after.recovery_id] = after
    world.replays.send([Hint(after.recovery_id, after.version, world.clock.now)], world.clock.now)


@pytest.fixture
def world() -> Iterator[OperatorWorld]:
    with operator_world() as made:
        yield made


# ------------------------------------------------------------------------------------------------------------- switches


SWITCHES = [("replay", "off"), ("replay_blocked_integrations", INTAKE), ("replay_blocked_integrations", "all")]


@pytest.mark.parametrize(("switch", "value"), SWITCHES)
def test_a_whole_event_of_a_job_waits_while_a_switch_stops_replays_and_is_taken_back_002_34_004_20(
    switch: str, value: str
) -> None:
    world = ReplayWorld(("tag",))
    one = world.dead_event("1")
    everyday = world.switches.values[switch]
    replay_id = world.approved(world.plan({"integration": [INTAKE]}))
    world.invocation_ms = 10_500  # no more than sends
    assert world.invoke(replay_id) == "later"
    assert world.now(one).status is Status.REPLAYED
    world.switches.values[switch] = value  # its hint is in the queue, and nobody has taken it yet
    world.invocation_ms = 900_000
    world.go_on(MINUTE_MS)
    assert world.provider.sent == []
    assert world.run(replay_id).state is State.STOPPED
    assert world.provider.sent == []
    assert (world.now(one).status, world.now(one).result) == (one.status, "taken_back")

    world.switches.values[switch] = everyday
    world.clock.advance(10 * MINUTE_MS)
    assert world.run(world.approved(world.plan({"integration": [INTAKE]}))).state is State.FINISHED
    assert len(world.provider.sent) == 1


@pytest.mark.parametrize(("switch", "value"), SWITCHES)
def test_a_single_replay_of_a_whole_event_waits_for_the_switch_and_goes_on_with_it_002_34(
    switch: str, value: str
) -> None:
    world = ReplayWorld(("tag",))
    one = world.dead_event("1")
    everyday = world.switches.values[switch]
    change = replay(one, world.clock.now, actor="ada", reason="fixed", request_id="r" * 32, job_id="", scale=1.0)
    send_on(world, change)
    world.switches.values[switch] = value
    for _ in range(10):
        world.go_on(MINUTE_MS)
    assert world.provider.sent == []
    waiting = world.now(one)
    assert (waiting.status, waiting.result, waiting.waiting_for) == (Status.REPLAYED, "", WaitingFor.SWITCH)
    assert waiting.attempt_count == one.attempt_count

    world.switches.values[switch] = everyday
    for _ in range(10):
        world.go_on(MINUTE_MS)
    assert world.now(one).result == "succeeded"
    assert len(world.provider.sent) == 1


# --------------------------------------------------------------------------------------------------------------- canary


def test_items_that_are_skipped_prove_nothing_so_that_the_first_that_are_sent_are_five_000_27() -> None:
    world = ReplayWorld()
    rows = [world.dead_action("tag", f"{n:04d}", failure_code="HTTP_503") for n in range(60)]
    replay_id = world.approved(world.plan({"integration": [DESK]}))
    for one in sorted(rows, key=lambda each: (each.received_at_ms, each.recovery_id))[:30]:
        world.tables.rows[one.recovery_id] = replace(one, version=one.version + 1)  # somebody left a note
    world.provider.answers.append(lambda _: failure_of_status(400))
    assert world.run(replay_id).state is State.STOPPED
    assert len(world.provider.calls) <= SIZES[0]


# --------------------------------------------------------------------------------------------------- items of strangers


@pytest.mark.parametrize(
    "strange",
    [
        {"action": "[]"},
        {"action": "1"},
        {"action": "null"},
        {"action": "[" * 50_000},
        {"history": '["x"]'},
        {"history": '{"at":1}'},
        {"history": "[" * 50_000},
    ],
    ids=lambda strange: f"{next(iter(strange))} {next(iter(strange.values()))[:12]}",
)
def test_an_item_that_nobody_can_read_is_its_own_trouble_and_no_neighbours(
    world: OperatorWorld, strange: dict[str, str]
) -> None:
    good = world.put(row("tag", status=Status.RETRYING, due_at_ms=1_000))
    bad = world.put(row("other", status=Status.RETRYING, due_at_ms=1_000))
    ((name, text),) = strange.items()
    world.client.update_item(
        TableName=aws_tables.RECOVERY,
        Key=items.item({"pk": bad.recovery_id}),
        UpdateExpression="SET #name = :text",
        ExpressionAttributeNames={"#name": name},
        ExpressionAttributeValues={":text": {"S": text}},
    )
    assert [one.recovery_id for one in world.recovery.due("helpdesk", 2_000, 10)] == [good.recovery_id]
    queue = "/platform/integrations/helpdesk/recovery/queue"
    page = world.ask("GET", queue)["document"]
    assert ([one["recovery_id"] for one in page["items"]], page["unreadable"]) == (
        [good.recovery_id],
        [bad.recovery_id],
    )
    assert world.ask("GET", f"{queue}/{bad.recovery_id}")["statusCode"] == 409


def test_a_hint_at_an_id_without_end_is_none() -> None:
    assert Hint.from_message(json.dumps({"recovery_id": "a" * 24, "version": 1})) == Hint("a" * 24, 1)
    assert Hint.from_message(json.dumps({"recovery_id": "a" * 3_000, "version": 1})) is None


# --------------------------------------------------------------------------------------------------------------- people


def test_a_replay_whose_answer_was_lost_between_the_tables_and_us_is_hinted_at_all_the_same(
    world: OperatorWorld,
) -> None:
    one = world.put(row("tag", status=Status.DLQ, due_at_ms=0, not_before_ms=0, failure_code="HTTP_503"))
    world.flaky.planned["transact_write_items"] = [Lost()]
    path = f"/platform/integrations/helpdesk/recovery/queue/{one.recovery_id}/replay"
    assert world.ask("POST", path, {"reason": "the desk is back"}, key="click-0001")["statusCode"] == 202
    assert world.stored(one).status is Status.REPLAYED
    assert [sent.hint.version for sent in world.hints.sent] == [one.version + 1]


def test_a_person_who_errs_sends_nothing_twice_where_the_provider_can_be_asked_004_15() -> None:
    world = ReplayWorld(("reply",))
    one = world.unclear_action("reply", "1", is_there=True, status=Status.FAILED)
    assert world.effects_of(one) == 1

    change = replayed_by(
        one, KINDS["desk.reply"], Person("ada", "r" * 32), "again", world.clock.now, 1.0, checked="I saw none"
    )
    send_on(world, change)
    for _ in range(10):
        world.go_on(MINUTE_MS)
    assert world.now(one).result == "succeeded"
    assert world.effects_of(one) == 1


def test_what_people_write_about_a_job_is_in_the_audit_and_not_in_the_log() -> None:
    world = ReplayWorld()
    lines: list[dict[str, Any]] = []
    kept = world.quiet.warning
    world.quiet.warning = lambda msg, *, extra=None: (lines.append(dict(extra or {})), kept(msg))[1]  # type: ignore[method-assign,func-returns-value]
    world.dead_action("tag", "1", failure_code="HTTP_503")
    replay_id = world.approved(world.plan({"integration": [DESK]}))
    words = "call +49 170 1234567 first"
    assert world.ask("POST", f"/platform/replays/{replay_id}/cancel", {"reason": words})["statusCode"] == 200
    assert world.run(replay_id).state is State.CANCELLED
    assert any(line.get("job_id") == replay_id for line in lines)
    assert words not in json.dumps(lines)
    assert any(words in event.reason for event in world.tables.audit.values())


# --------------------------------------------------------------------------------------------------------- whole events


@pytest.mark.parametrize("status", [400, 503])
def test_a_job_of_whole_events_stops_itself_when_what_they_call_for_fails_001_46(status: int) -> None:
    world = ReplayWorld(("tag",))
    rows = [world.dead_event(f"{n:04d}") for n in range(40)]
    replay_id = world.approved(world.plan({"integration": [INTAKE]}))
    world.provider.answers.append(lambda _: failure_of_status(status))
    job = world.run(replay_id)
    assert job.state is State.STOPPED
    assert "failed" in job.stop_reason
    processed = [one for one in rows if world.now(one).result == "succeeded"]
    assert len(processed) <= SIZES[0]
    assert all(world.now(one).status is one.status for one in rows if one not in processed)


def test_a_job_of_whole_events_whose_actions_wait_or_are_done_goes_on_to_its_end() -> None:
    world = ReplayWorld(("tag",))
    rows = [world.dead_event(f"{n:04d}") for n in range(40)]
    assert world.run(world.approved(world.plan({"integration": [INTAKE]}))).state is State.FINISHED
    assert all(world.now(one).result == "succeeded" for one in rows)
    assert len(world.provider.sent) == 40


# ------------------------------------------------------------------------------------------- jobs of another version


def of_another_version(world: ReplayWorld, replay_id: str) -> None:
    """A version was rolled back, and its filter knows a criterion that this one does not."""
    job = world.job(replay_id)
    world.jobs.jobs[replay_id] = replace(job, filter=json.dumps({"colour": ["red"], "integration": [DESK]}))


def test_a_job_whose_filter_nobody_knows_is_told_is_not_planned_and_hides_no_other() -> None:
    world = ReplayWorld()
    world.dead_action("tag", "1")
    asked = world.ask("POST", "/platform/replays", {"filter": {"integration": [DESK]}, "reason": "back"})["document"]
    of_another_version(world, asked["replay_id"])
    other = world.plan({"status": ["dlq"]})
    assert world.show(asked["replay_id"])["state"] == "failed"
    assert "another version" in world.show(asked["replay_id"])["stop_reason"]
    assert world.show(asked["replay_id"])["filter"] == {"colour": ["red"], "integration": [DESK]}
    listed = world.ask("GET", "/platform/replays")["document"]["replays"]
    assert {one["replay_id"] for one in listed} == {asked["replay_id"], other["replay_id"]}


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_job_whose_filter_nobody_knows_comes_to_its_end_and_frees_its_integration(*, is_cancelled: bool) -> None:
    world = ReplayWorld()
    rows = [world.dead_action("tag", f"{n}", failure_code="HTTP_503") for n in range(20)]
    replay_id = world.approved(world.plan({"integration": [DESK]}))
    of_another_version(world, replay_id)
    if is_cancelled:
        cancelled = world.ask("POST", f"/platform/replays/{replay_id}/cancel", {"reason": "not this one"})
        assert cancelled["statusCode"] == 200
    assert world.run(replay_id, hours=1).state is (State.CANCELLED if is_cancelled else State.STOPPED)
    assert dict(world.jobs.stored_board.holders) == {}
    assert [world.now(one) for one in rows] == rows
