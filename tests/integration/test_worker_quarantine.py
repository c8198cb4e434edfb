"""A rule of quarantine parks the events it means, and a person's replay sends them on (001.44)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from functions.core.audit import AuditType
from functions.core.failure import failure_of_status
from functions.core.integration import INTAKE
from functions.core.quarantine import QUARANTINED, Quarantine, Rule
from functions.core.recovery import Row, Status, Subject, replay
from tests.fakes import NOON_MS, FakeRecovery
from tests.worker_world import DESK, SOURCE, TENANT, Died, World

HOUR_MS = 3_600_000
RULE = Rule("a" * 32, "ada", "its payloads are wrong", NOON_MS - 1, NOON_MS + 24 * HOUR_MS, source=SOURCE)


def quarantined_world(rule: Rule = RULE, actions: tuple[str, ...] = ("tag",)) -> World:
    world = World(actions)
    world.tables.quarantine = Quarantine((rule,), 1)
    return world


def only_row(world: World) -> Row:
    (row,) = world.tables.rows.values()
    return row


def replay_all(world: World) -> None:
    for row in list(world.tables.rows.values()):
        change = replay(row, world.clock.now, actor="ada", reason="mended", request_id="r", job_id="", scale=1.0)
        FakeRecovery(world.tables).commit([change])
    world.run_until_quiet()


def test_an_event_that_a_rule_means_is_kept_with_its_envelope_and_nothing_is_decided_or_sent() -> None:
    """001.44"""
    world = quarantined_world()
    world.accept(world.event(), copies=2)
    world.run_until_quiet()
    row = only_row(world)
    assert (row.subject, row.integration_id) == (Subject.EVENT, INTAKE)
    assert (row.status, row.failure_code) == (Status.FAILED, QUARANTINED)
    assert RULE.rule_id in row.failure_detail
    assert row.envelope_ref in world.envelopes.objects
    assert not world.tables.ledger
    assert not world.provider.sent
    assert [event.event_type for event in world.tables.events] == [AuditType.ACTION_PARKED]


@pytest.mark.parametrize(
    "rule",
    [
        replace(RULE, source="another"),
        replace(RULE, expires_at_ms=NOON_MS),
        replace(RULE, event_version="9"),
        replace(RULE, tenant="another"),
        replace(RULE, failure_code="HTTP_422"),
    ],
    ids=["source", "ended", "version", "tenant", "failures only"],
)
def test_an_event_that_it_does_not_mean_goes_its_way(rule: Rule) -> None:
    world = quarantined_world(rule)
    event = world.event()
    world.accept(event)
    world.run_until_quiet()
    world.check_settled(event)
    assert not world.tables.rows


def test_a_replay_sends_on_what_was_kept_even_while_the_rule_holds() -> None:
    world = quarantined_world()
    event = world.event()
    world.accept(event)
    world.run_until_quiet()
    replay_all(world)
    world.check_settled(event)
    assert (only_row(world).status, only_row(world).result) == (Status.REPLAYED, "succeeded")


def test_what_another_worker_has_begun_is_finished_whatever_the_rule_says() -> None:
    """A half-done event is no new one: to keep it aside would leave its customer with half of it."""
    world = World(("tag", "assign"))

    def dies(op: str) -> None:
        if op == "ledger.settle":
            raise Died(op)

    world.faults.on_before = dies
    event = world.event()
    world.accept(event)
    world.deliver()
    assert world.deaths == 1
    world.faults.on_before = None
    world.tables.quarantine = Quarantine((RULE,), 1)
    world.run_until_quiet()
    world.check_settled(event)
    assert not world.tables.rows


def test_a_rule_that_names_a_failure_ends_the_retries_of_what_failed_so() -> None:
    world = World(("tag", "assign"))
    world.provider.answers.append(lambda action: failure_of_status(503) if action.name == "tag" else None)
    event = world.event()
    world.accept(event)
    while world.deliver():
        pass
    failed = only_row(world)
    assert (failed.status, failed.integration_id) == (Status.RETRYING, DESK)
    rule = replace(RULE, source="", failure_code=failed.failure_code)
    world.tables.quarantine = Quarantine((rule,), 1)
    world.run_until_quiet()
    row = only_row(world)
    assert (row.status, row.failure_code, row.attempt_count) == (Status.FAILED, QUARANTINED, 1)
    assert world.tables.events[-1].event_type is AuditType.ACTION_PARKED

    world.provider.answers.clear()
    replay_all(world)
    assert (only_row(world).status, only_row(world).result) == (Status.REPLAYED, "succeeded")


def test_an_event_that_waited_for_the_end_of_hold_meets_the_rule_when_it_goes_on() -> None:
    world = World(("tag",), {**World().switches.values, "mode": "hold"})
    world.accept(world.event())
    while world.deliver():
        pass
    assert only_row(world).status is Status.PENDING
    world.tables.quarantine = Quarantine((replace(RULE, tenant=TENANT),), 1)
    world.switches.values["mode"] = "live"
    world.clock.advance(60_000)
    world.run_until_quiet()
    row = only_row(world)
    assert (row.status, row.failure_code) == (Status.FAILED, QUARANTINED)
    assert not world.provider.sent
