"""Bulk replays, from the plan to the last row, with the real worker and sweeper: what goes, what does not, when a job
stops itself, and that whatever it dies of each row is replayed once.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from functions.core.audit import AuditType
from functions.core.catalog import VersionRule
from functions.core.decision import MessageRef
from functions.core.failure import Failure, MalformedDecision, StorageUnavailable, failure_of_status
from functions.core.gate import Health
from functions.core.integration import INTAKE, Integration, Rate
from functions.core.ledger import ActionStatus
from functions.core.recipient import Person
from functions.core.recovery import Row, Status
from functions.core.replay import Prediction
from functions.core.replay_job import State
from tests.fakes import LIVE_SWITCHES
from tests.operator_calls import VIEWER
from tests.replay_world import HOUR_MS, MINUTE_MS, ReplayWorld
from tests.worker_world import ACTIONS, DESK, KINDS, TENANT, Died

ALL = {"integration": [DESK, INTAKE]}
THOUSANDS = 5_000


def ids(rows: list[Row]) -> set[str]:
    return {row.recovery_id for row in rows}


def predicted(world: ReplayWorld, replay_id: str) -> dict[Prediction, set[str]]:
    """The stored plan, by prediction."""
    made = world.made(replay_id)
    found: dict[Prediction, set[str]] = {}
    for item in (*made.going, *made.others):
        found.setdefault(item.prediction, set()).add(item.recovery_id)
    return found


class Dead:
    """So many dead items, half of which have happened: some the ledger knows of, of some only the provider could tell.

    Every fourth is a dead event that its sender delivered again, and that was settled then; the others are actions:
    never sent; sent, with the answer lost, and there; sent, with the answer lost, and not there, or there.
    """

    def __init__(self, world: ReplayWorld, number: int) -> None:
        self.settled: list[Row] = []
        self.untouched: list[Row] = []
        self.there: list[Row] = []
        self.lost: list[Row] = []
        kinds = ("reply", "create")
        for place in range(number):
            name, identity = kinds[place // 4 % 2], f"{place:05d}"
            match place % 4:
                case 0:
                    row = world.dead_event(identity)
                    world.settle(world.its_event(identity), ACTIONS["tag"], ActionStatus.DONE)
                    self.settled.append(row)
                case 1:
                    self.untouched.append(world.dead_action("push", identity))
                case 2:
                    self.there.append(world.unclear_action(name, identity, is_there=True))
                case _:
                    self.lost.append(world.unclear_action(name, identity, is_there=False))

    @property
    def rest(self) -> list[Row]:
        """What has not happened yet."""
        return [*self.untouched, *self.lost]

    def check(self, world: ReplayWorld) -> None:
        """Each has happened, once; what had happened was not sent again; nothing is left open."""
        for row in (*self.rest, *self.there):
            now = world.now(row)
            assert (now.status, now.result, world.effects_of(row)) == (Status.REPLAYED, "succeeded", 1), now
            assert now.replay_no == 1
        assert [world.now(row) for row in self.settled] == self.settled
        sent = Counter(name for _, name in world.provider.sent)
        keyed = [row for row in self.there if row.action is not None and row.action.name == "create"]
        assert sum(sent.values()) == len(self.rest) + len(keyed)  # the provider knows their keys, and did nothing


@pytest.mark.parametrize("deaths", [0, 12])
def test_what_the_ledger_knows_is_not_replayed_what_the_provider_knows_is_asked_and_the_rest_is_sent_000_29_001_46(
    deaths: int, proved: Callable[[str], None]
) -> None:
    world = ReplayWorld()
    dead = Dead(world, THOUSANDS)
    planned = world.plan(ALL)
    found = predicted(world, planned["replay_id"])
    assert found == {
        Prediction.ALREADY_DONE: ids(dead.settled),
        Prediction.WOULD_SEND: ids(dead.untouched),
        Prediction.WOULD_CHECK: ids(dead.there) | ids(dead.lost),
    }
    rng = random.Random(deaths)
    kill_after(world, lambda: rng.randrange(1, 100), deaths)
    began, own = len(world.faults.calls), world.operations
    job = world.run(world.approved(planned))
    assert (job.state, world.lambda_deaths) == (State.FINISHED, deaths), job
    dead.check(world)
    requests = Counter(op.partition(".")[0] for op in world.faults.calls[began:])
    asked = sum(requests.values()) - requests["provider"]
    proved(
        f"bulk replay of {THOUSANDS}, λ died {deaths} times: {planned['plan']['counts']}, {job.batches} batches, "
        f"{dict(job.outcomes)}; {asked / job.total:.2f} AWS requests per replayed item, of which the job's own "
        f"{(world.operations - own) / job.total:.2f} (without what Lambda asks of the queue)"
    )


# --------------------------------------------------------------------------------------------------------------- deaths


def kill_after(world: ReplayWorld, operations: Callable[[], int], deaths: int) -> None:
    """Replay λ dies again and again, each time after so many operations of its own, before or after the last one."""
    left = [operations()]

    def kill(op: str, when: str) -> None:
        if world.lambda_deaths >= deaths:
            return
        left[0] -= 1
        if left[0] <= 0:
            left[0] = operations()
            raise Died(f"{when} {op}")

    world.kill = kill


@pytest.mark.parametrize("seed", range(6))
def test_a_job_whose_lambda_dies_at_random_points_replays_each_item_once_in_the_end(
    seed: int, proved: Callable[[str], None]
) -> None:
    rng = random.Random(seed)
    world = ReplayWorld()
    dead = Dead(world, 400)
    kill_after(world, lambda: rng.randrange(1, 90), deaths=15)
    planned = world.ask("POST", "/platform/replays", {"filter": ALL, "reason": "the desk is back"})["document"]
    job = world.run_until_planned(planned["replay_id"])
    job = world.run(world.approved(world.show(job.job_id)))
    assert (job.state, world.lambda_deaths) == (State.FINISHED, 15), job
    dead.check(world)
    proved(f"bulk replay of 400 whose λ died {world.lambda_deaths} times: each once, {dict(job.outcomes)}")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", range(1, 50))
def test_a_job_whose_lambda_dies_at_any_step_replays_each_item_once_in_the_end(step: int, when: str) -> None:
    world = ReplayWorld()
    rows = [world.dead_action("tag", f"{n}") for n in range(12)]
    world.kill = None
    planned = world.plan(ALL)
    left = [step]

    def kill(_op: str, at: str) -> None:
        left[0] -= at == when
        if at == when and left[0] == 0:
            raise Died

    world.kill = kill
    job = world.run(world.approved(planned))
    assert job.state is State.FINISHED
    assert {(world.now(row).status, world.now(row).replay_no) for row in rows} == {(Status.REPLAYED, 1)}
    assert Counter(name for _, name in world.provider.sent) == {"tag": 12}
    told = Counter(each.affected_id for each in world.tables.events if each.event_type is AuditType.REPLAYED)
    assert told == {row.recovery_id: 1 for row in rows}
    recorded = world.plans.records(job.job_id, 0, 12)
    assert {(one.recovery_id, one.outcome, one.before) for one in recorded} == {
        (row.recovery_id, "succeeded", "dlq") for row in rows
    }


def test_a_lambda_that_thaws_after_its_job_was_cancelled_replays_nothing_more() -> None:
    world = ReplayWorld()
    rows = [world.dead_action("tag", f"{n:02d}") for n in range(30)]
    planned = world.plan(ALL)
    replay_id = world.approved(planned)
    seen = [0]

    def freeze(op: str, when: str) -> None:
        """Before the second transaction of a batch: meanwhile somebody cancels, and another λ ends the job."""
        seen[0] += (op, when) == ("jobs.apply", "before")
        if seen[0] != 3:
            return
        seen[0] += 1
        world.kill = None
        assert world.ask("POST", f"/platform/replays/{replay_id}/cancel", {"reason": "stop"})["statusCode"] == 200
        world.is_in_lambda = False
        world.run(replay_id)
        world.is_in_lambda = True

    world.kill = freeze
    world.work()
    assert world.job(replay_id).state is State.CANCELLED
    done = [row for row in rows if world.now(row).status is Status.REPLAYED]
    back = [row for row in rows if world.now(row).status is Status.DLQ]
    assert len(done) + len(back) == 30
    assert len(world.provider.sent) == len(done)
    assert not world.open_rows()


# ------------------------------------------------------------------------------------------------------------- stopping


def failing_after(world: ReplayWorld, sends: int, failure: Failure) -> None:
    """The desk does so many more, and then fails."""
    left = [sends]

    def answer(_action: object) -> Failure | None:
        left[0] -= 1
        return failure if left[0] < 0 else None

    world.provider.answers.append(answer)


def test_a_provider_that_fails_again_in_the_middle_stops_the_job_within_one_batch_and_the_rest_is_back() -> None:
    """Acceptance: the unsent are where they came from, and the audit says why."""
    world = ReplayWorld()
    world.limit(Integration(DESK, KINDS, deadline_seconds=5.0, rate=Rate(10.0, 20)))
    rows = [world.dead_action("tag", f"{n:03d}", status=Status.FAILED if n % 2 else Status.DLQ) for n in range(300)]
    failing_after(world, 60, failure_of_status(503))
    planned = world.plan(ALL)
    job = world.run(world.approved(planned))

    assert job.state is State.STOPPED
    assert "in a row failed" in job.stop_reason
    after = [world.now(row) for row in rows]
    sent = [row for row in after if row.status is Status.REPLAYED]
    failed = [row for row in after if row.result == "failed"]
    untouched = [row for row, before in zip(after, rows, strict=True) if row == before]
    back = [row for row in after if row.result == "taken_back"]
    assert len(sent) == 60
    assert 0 < len(failed) <= 20  # of the batch in which it began
    assert len(sent) + len(failed) + len(untouched) + len(back) == 300
    assert {row.status for row in failed} == {Status.DLQ}
    assert all(row.status.value == row.replayed_from for row in back)
    assert not world.open_rows()
    stops = [each for each in world.tables.events if each.event_type is AuditType.REPLAY_JOB_CHANGED]
    assert job.stop_reason in {each.reason for each in stops}
    assert {each.reason for each in world.tables.events if each.event_type is AuditType.REPLAY_TAKEN_BACK} <= {
        job.stop_reason
    }
    assert world.jobs.stored_board.holders == {}


def test_a_canary_that_fails_is_all_that_is_sent() -> None:
    world = ReplayWorld()
    rows = [world.dead_action("tag", f"{n:03d}") for n in range(200)]
    failing_after(world, 0, failure_of_status(503))
    job = world.run(world.approved(world.plan(ALL)))
    assert job.state is State.STOPPED
    assert len([row for row in rows if world.now(row) != row]) <= 5


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda world: world.tables.set_health(DESK, Health.HARD_DOWN), "the health of desk went from healthy to"),
        (lambda world: world.tables.set_health(DESK, Health.DEGRADED), "the health of desk went from healthy to"),
        (lambda world: world.switches.values.update(replay="off"), "the switch replay went from on to off"),
        (lambda world: world.switches.values.update(auto_reply="off"), "the switch auto_reply went from on to off"),
        (lambda world: world.switches.values.update({"tenant/acme/replay": "off"}), "the switch tenant/acme/replay"),
        (lambda world: world.switches.values.update(disabled_integrations="desk"), "the switch disabled_integrations"),
        (lambda world: world.switches.values.update(replay_blocked_integrations="all"), "replay_blocked_integrations"),
        (lambda world: world.switches.values.update({"limits/desk": "0"}), "the switch limits/desk went"),
    ],
)
def test_health_that_gets_worse_or_a_switch_that_is_thrown_stops_the_job_004_20(
    change: Callable[[ReplayWorld], None], why: str
) -> None:
    world = ReplayWorld()
    world.limit(Integration(DESK, KINDS, deadline_seconds=5.0, rate=Rate(2.0, 20)))
    rows = [world.dead_action("tag", f"{n:03d}") for n in range(100)]
    replay_id = world.approved(world.plan(ALL))

    def meanwhile() -> None:
        if world.job(replay_id).cursor >= 5:
            world.meanwhile = None
            change(world)

    world.meanwhile = meanwhile
    job = world.run(replay_id)
    assert job.state is State.STOPPED
    assert why in job.stop_reason
    done = [row for row in rows if world.now(row).status is Status.REPLAYED]
    assert 5 <= len(done) < 60
    assert all(world.now(row).status is Status.DLQ for row in rows if row not in done)
    assert not world.open_rows()


def test_while_live_traffic_waits_no_batch_begins_and_a_job_that_waits_too_long_stops() -> None:
    world = ReplayWorld()
    for n in range(60):
        world.dead_action("tag", f"{n:03d}")
    planned = world.plan(ALL)
    world.backlog.messages = 101
    replay_id = world.approved(planned)
    looks = [0]

    def meanwhile() -> None:
        looks[0] += 1
        if looks[0] == 5:
            assert world.show(replay_id)["progress"]["held_because"] == "101 new events wait in their queue"
            assert world.provider.sent == []
            world.backlog.messages = 0
        elif looks[0] == 8:
            world.backlog.messages = 5_000

    world.meanwhile = meanwhile
    job = world.run(replay_id)
    assert job.state is State.STOPPED
    assert job.stop_reason == "5000 new events wait in their queue"
    assert 0 < len(world.provider.sent) < 60


def test_calls_keep_to_a_quarter_of_the_rate_and_live_ones_find_their_slots_free() -> None:
    world = ReplayWorld()
    world.limit(Integration(DESK, KINDS, deadline_seconds=5.0, rate=Rate(1.0, 20)))
    for n in range(120):
        world.dead_action("tag", f"{n:03d}")
    leads: list[int] = []

    def meanwhile() -> None:
        state = world.tables.integrations.get(DESK)
        leads.append(0 if state is None else state.tat_ms - world.clock.now)

    world.meanwhile = meanwhile
    began_ms = world.clock.now
    job = world.run(world.approved(world.plan(ALL)))
    assert job.state is State.FINISHED
    minutes = Counter((at_ms - began_ms) // MINUTE_MS for at_ms in world.provider.calls)
    assert max(minutes.values()) <= 15 + 1
    assert max(leads) < 20_000  # within the burst: whoever asks now may call at once


# ---------------------------------------------------------------------------------------------------------- by hand


def test_a_job_is_paused_goes_on_and_is_cancelled_by_people_and_the_audit_names_them() -> None:
    world = ReplayWorld()
    world.limit(Integration(DESK, KINDS, deadline_seconds=5.0, rate=Rate(2.0, 20)))
    rows = [world.dead_action("tag", f"{n:03d}") for n in range(100)]
    replay_id = world.approved(world.plan(ALL, incident_id="INC-42"))
    assert replay_id.startswith("INC-42-")
    steps = iter(["pause", "pause"])

    def meanwhile() -> None:
        if world.job(replay_id).cursor >= 5 and world.job(replay_id).state is State.RUNNING:
            for step in steps:  # the second click changes nothing
                answer = world.ask("POST", f"/platform/replays/{replay_id}/{step}", {"reason": "wait a moment"})
                assert (answer["statusCode"], answer["document"]["state"]) == (200, "paused")

    world.meanwhile = meanwhile
    assert world.run(replay_id).state is State.PAUSED
    world.go_on(10 * MINUTE_MS)
    sent = len(world.provider.sent)
    world.go_on(60 * MINUTE_MS)
    assert len(world.provider.sent) == sent < 60
    assert not world.open_rows()

    assert world.ask("POST", f"/platform/replays/{replay_id}/resume", {"reason": "go on"})["statusCode"] == 200
    world.meanwhile = lambda: None if len(world.provider.sent) < sent + 10 else cancel(world, replay_id)
    job = world.run(replay_id)
    assert (job.state, job.stop_reason) == (State.CANCELLED, "enough")
    done = [row for row in rows if world.now(row).status is Status.REPLAYED]
    assert len(done) == len(world.provider.sent) < 100
    assert all(world.now(row).status is Status.DLQ for row in rows if row not in done)
    assert {world.now(row).incident_id for row in done} == {"INC-42"}
    told = [each for each in world.tables.events if each.affected_id == replay_id]
    assert [(each.actor, each.reason) for each in told if each.actor == "ada"] == [
        ("ada", "the desk is back"),
        ("ada", "the desk is back"),
        ("ada", "wait a moment"),
        ("ada", "go on"),
        ("ada", "enough"),
    ]
    again = world.ask("POST", f"/platform/replays/{replay_id}/pause", {"reason": "too late"})
    assert (again["statusCode"], again["document"]["code"]) == (409, "INT-409-RECOVERY-REPLAY-CONFLICT")
    assert again["document"]["state"] == "cancelled"


def cancel(world: ReplayWorld, replay_id: str) -> None:
    world.meanwhile = None
    answer = world.ask("POST", f"/platform/replays/{replay_id}/cancel", {"reason": "enough"})
    assert answer["statusCode"] == 200


def test_of_one_integration_one_job_runs_at_a_time_and_the_next_when_it_is_over() -> None:
    world = ReplayWorld()
    for n in range(3):
        world.dead_action("tag", f"{n}")
    first, second = world.plan({"integration": [DESK]}), world.plan({"tenant": [TENANT]})
    replay_id = world.approved(first)
    refused = world.approve(second)
    assert (refused["statusCode"], refused["document"]["code"]) == (409, "INT-409-IN-PROGRESS")
    assert refused["document"]["replay_id"] == replay_id
    assert world.ask("GET", "/platform/replays", query={"active": "true"})["document"]["holders"] == {DESK: replay_id}
    assert world.run(replay_id).state is State.FINISHED
    stale = world.approve(second)  # its items have been replayed
    assert (stale["statusCode"], stale["document"]["code"]) == (409, "INT-409-PLAN-STALE")
    third = world.plan({"tenant": [TENANT]})
    assert third["plan"]["items"] == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda world, row: world.tables.rows.update({row.recovery_id: replace(row, version=row.version + 1)}),
        lambda world, row: world.tables.rows.pop(row.recovery_id),
        lambda world, _: world.tables.set_health(DESK, Health.HARD_DOWN),
        lambda world, _: world.switches.values.update(auto_reply="off"),
        lambda world, _: world.clock.advance(31 * MINUTE_MS),
    ],
)
def test_a_plan_that_is_not_what_would_be_done_now_is_refused(
    change: Callable[[ReplayWorld, Row], None],
) -> None:
    world = ReplayWorld()
    rows = [world.dead_action("tag", f"{n}") for n in range(3)]
    planned = world.plan(ALL)
    change(world, rows[1])
    world.clock.advance(6_000)  # what was read of the switches is old then
    before = dict(world.tables.rows)
    refused = world.approve(planned)
    assert (refused["statusCode"], refused["document"]["code"]) == (409, "INT-409-PLAN-STALE"), refused
    assert world.tables.rows == before
    assert world.job(planned["replay_id"]).state is State.PLANNED


def test_another_hash_than_that_of_the_plan_is_refused() -> None:
    world = ReplayWorld()
    world.dead_action("tag", "1")
    planned = world.plan(ALL)
    answer = world.ask("POST", f"/platform/replays/{planned['replay_id']}/approve", {"plan_hash": "0" * 64})
    assert answer["document"]["code"] == "INT-409-PLAN-STALE"


def test_what_changes_between_approval_and_its_batch_is_left_alone_with_its_reason() -> None:
    world = ReplayWorld()
    world.limit(Integration(DESK, KINDS, deadline_seconds=5.0, rate=Rate(1.0, 20)))
    rows = [world.dead_action("tag", f"{n:02d}") for n in range(8)]
    late = world.dead_action("tag", "99", expires_at_ms=world.clock.now + 30_000)
    replay_id = world.approved(world.plan(ALL))
    touched = max(rows, key=lambda row: (row.received_at_ms, row.recovery_id))
    world.tables.rows[touched.recovery_id] = replace(touched, version=touched.version + 1)
    world.go_on(45_000)
    job = world.run(replay_id)
    assert job.state is State.FINISHED
    assert dict(job.outcomes) == {"expired": 1, "moved": 1, "succeeded": 7}
    page = world.show(replay_id, items="true", limit="3")["page"]
    assert page["next_cursor"] == "3"
    everything = [*page["items"], *world.show(replay_id, items="true", cursor="3")["page"]["items"]]
    assert {item["recovery_id"]: item["outcome"] for item in everything}[late.recovery_id] == "expired"
    assert world.now(late) == late


def test_looking_only_tells_what_has_happened_and_sends_nothing() -> None:
    """After it a plan is right to the item also about what only the provider knows."""
    world = ReplayWorld()
    there = [world.unclear_action("reply", f"a{n}", is_there=True) for n in range(20)]
    lost = [world.unclear_action("reply", f"b{n}", is_there=False) for n in range(20)]
    none = [world.dead_action("tag", f"c{n}") for n in range(5)]
    planned = world.plan(ALL, look_only=True)
    assert planned["plan"]["counts"] == {"would_check": 40, "would_send": 5}
    assert planned["plan"]["items"] == 40
    job = world.run(world.approved(planned))
    assert job.state is State.FINISHED
    assert dict(job.outcomes) == {"not_there": 20, "succeeded": 20}
    assert world.provider.sent == []
    found = predicted(world, world.plan(ALL)["replay_id"])
    assert found == {Prediction.WOULD_SEND: ids(lost) | ids(none)}
    assert all(world.now(row).result == "succeeded" for row in there)


# -------------------------------------------------------------------------------------------------------------- storage


@pytest.mark.parametrize("seed", range(6))
def test_while_storage_fails_nothing_is_sent_that_is_not_recorded_and_it_goes_on_afterwards_004_19(seed: int) -> None:
    rng = random.Random(seed)
    world = ReplayWorld()
    rows = [world.dead_action("push", f"{n:03d}") for n in range(60)]
    planned = world.plan(ALL)
    replay_id = world.approved(planned)
    trouble = [0]

    def fail(op: str, when: str) -> None:
        if trouble[0] < 25 and not op.startswith("replays.") and rng.random() < 0.2:
            trouble[0] += 1
            raise StorageUnavailable(f"{op}, {when} it was done")

    world.kill = fail
    job = world.run(replay_id)
    assert (job.state, trouble[0]) == (State.FINISHED, 25), job
    told = Counter(each.affected_id for each in world.tables.events if each.event_type is AuditType.REPLAYED)
    assert told == {row.recovery_id: 1 for row in rows}
    assert [world.effects_of(row) for row in rows] == [1] * 60  # a push that was sent twice would count twice


@pytest.mark.parametrize(
    "op", ["jobs.get", "jobs.board", "jobs.store", "plans.get", "recovery.versions", "health.read"]
)
def test_without_storage_or_audit_nothing_is_replayed_004_19(op: str) -> None:
    world = ReplayWorld()
    row = world.dead_action("tag", "1")
    planned = world.plan(ALL)
    world.faults.fail(op)
    answer = world.approve(planned)
    assert (answer["statusCode"], answer["document"]["code"]) == (503, "INT-503-DEPENDENCY-UNAVAILABLE")
    assert world.job(planned["replay_id"]).state is State.PLANNED
    assert world.now(row) == row


def test_switches_that_cannot_be_read_hold_the_job_and_stop_it_in_the_end() -> None:
    world = ReplayWorld()
    world.dead_action("tag", "1")
    replay_id = world.approved(world.plan(ALL))
    world.switches.is_down = True
    world.clock.advance(11 * MINUTE_MS)
    job = world.run(replay_id)
    assert (job.state, job.stop_reason) == (State.STOPPED, "the switches cannot be read")
    assert world.provider.sent == []


def test_hints_that_the_queue_does_not_take_are_sent_by_the_sweeper() -> None:
    world = ReplayWorld()
    rows = [world.dead_action("tag", f"{n}") for n in range(5)]
    world.replays.refused.update(row.recovery_id for row in rows)
    replay_id = world.approved(world.plan(ALL))
    world.meanwhile = world.replays.refused.clear
    assert world.run(replay_id).state is State.FINISHED
    assert {world.now(row).result for row in rows} == {"succeeded"}


def test_items_that_come_to_no_end_stop_the_job_and_are_taken_back() -> None:
    world = ReplayWorld()
    rows = [world.dead_action("tag", f"{n}") for n in range(8)]
    world.replays.refused.update(row.recovery_id for row in rows)
    job = world.run(world.approved(world.plan(ALL)))
    assert job.state is State.STOPPED
    assert "come to no end" in job.stop_reason
    assert all(world.now(row).status is Status.DLQ for row in rows)
    assert dict(job.outcomes) == {"taken_back": 5}


# -------------------------------------------------------------------------------------------------- runbooks 000 to 004


def test_a_dead_item_is_replayed_with_who_why_and_under_which_job_004_14_001_47() -> None:
    world = ReplayWorld()
    row = world.dead_action("tag", "1")
    planned = world.plan(ALL, reason="it is back", incident_id="INC-7")
    job = world.run(world.approved(planned))
    after = world.now(row)
    assert (after.status, after.replayed_from, after.job_id) == (Status.REPLAYED, "dlq", job.job_id)
    assert (after.request_id, after.origin_request_id) == (job.run_request_id, row.origin_request_id)
    assert after.action == row.action
    (event,) = [each for each in world.tables.events if each.event_type is AuditType.REPLAYED]
    assert (event.actor, event.reason, event.job_id, event.request_id) == (
        "ada",
        "it is back",
        job.job_id,
        job.run_request_id,
    )
    assert world.show(job.job_id)["request_id"] == job.run_request_id


def test_a_dry_run_says_the_same_and_leaves_no_trace() -> None:
    """000.29, 001.46: what a bulk replay would touch can be seen before it runs."""
    world = ReplayWorld()
    world.dead_action("tag", "1")
    world.unclear_action("push", "2", is_there=True)
    world.dead_action("tag", "3", status=Status.FAILED, failure_code="SUPPRESSED")
    before = dict(world.tables.rows)
    planned = world.plan(ALL)
    assert planned["plan"]["counts"] == {"suppressed": 1, "unknown": 1, "would_send": 1}
    assert world.tables.rows == before
    assert world.replays.sent == []
    assert {each.affected_id for each in world.tables.events} == {planned["replay_id"]}
    assert dict(world.run(world.approved(planned)).outcomes) == {"succeeded": 1}


def test_what_may_have_happened_ended_for_good_or_is_under_way_is_never_touched() -> None:
    """000.29, 001.46: nothing whose second effect would do harm."""
    world = ReplayWorld()
    untouchable = [
        world.unclear_action("push", "unknown", is_there=True),
        world.dead_action("tag", "expired", status=Status.FAILED, failure_code="EXPIRED"),
        world.dead_action("tag", "by-hand", status=Status.FAILED, failure_code="DONE_BY_HAND"),
        world.dead_action("tag", "suppressed", status=Status.FAILED, failure_code="SUPPRESSED"),
        world.dead_event("held", status=Status.FAILED, failure_code="HELD"),
        world.dead_action("tag", "waits", status=Status.RETRYING, due_at_ms=world.clock.now + HOUR_MS),
    ]
    named = world.plan({"recovery_id": [*sorted(ids(untouchable)), "nobody"]})
    assert named["plan"]["items"] == 1  # the held event, whose id is named
    assert named["plan"]["counts"] == {
        "ended": 1,
        "expired": 1,
        "not_found": 1,
        "suppressed": 1,
        "under_way": 1,
        "unknown": 1,
        "would_send": 1,
    }
    planned = world.plan(ALL)
    assert planned["plan"]["counts"] == {"ended": 1, "expired": 1, "kept_aside": 1, "suppressed": 1, "unknown": 1}
    refused = world.approve(planned)
    assert (refused["statusCode"], refused["document"]["code"]) == (409, "INT-409-RECOVERY-REPLAY-CONFLICT")
    assert [world.now(row) for row in untouchable] == untouchable


def test_the_limit_holds_and_every_matching_item_is_accounted_for_000_27_001_45() -> None:
    world = ReplayWorld()
    rows = [world.dead_action("tag", f"{n:02d}") for n in range(30)]
    for n in range(5):
        world.unclear_action("push", f"u{n}", is_there=False)
    planned = world.plan(ALL, cap=12)
    assert planned["plan"]["counts"] == {"over_cap": 18, "unknown": 5, "would_send": 12}
    job = world.run(world.approved(planned))
    assert dict(job.outcomes) == {"succeeded": 12}
    assert len([row for row in rows if world.now(row) != row]) == 12


def test_while_the_switch_is_off_no_replay_runs_002_34() -> None:
    world = ReplayWorld(switches={**LIVE_SWITCHES, "replay": "off"})
    row = world.dead_action("tag", "1")
    planned = world.plan(ALL)
    assert planned["plan"]["counts"] == {"switch_blocks": 1}
    assert world.approve(planned)["statusCode"] == 409
    assert world.now(row) == row


def test_a_blocked_integration_is_left_alone_and_the_others_go_004_20() -> None:
    world = ReplayWorld(switches={**LIVE_SWITCHES, "replay_blocked_integrations": DESK})
    blocked, other = world.dead_action("tag", "1"), world.dead_event("2")
    planned = world.plan({"tenant": [TENANT]})
    assert planned["plan"]["counts"] == {"switch_blocks": 1, "would_send": 1}
    assert world.run(world.approved(planned)).state is State.FINISHED
    assert world.now(blocked) == blocked
    assert world.now(other).result == "succeeded"


def test_a_recipient_who_opted_out_is_seen_in_the_plan() -> None:
    world = ReplayWorld()
    world.dead_action("reply", "1")
    world.tables.people[TENANT, "r1"] = Person(opted_out=True)
    assert world.plan(ALL)["plan"]["counts"] == {"suppressed": 1}


def test_an_event_of_a_version_that_is_not_known_any_more_is_left_alone_with_the_reason() -> None:
    world = ReplayWorld()
    world.versions = (VersionRule(frozenset({"2"}), events=("message.*",)),)
    row = world.dead_event("1")
    planned = world.plan(ALL)
    assert planned["plan"]["counts"] == {"schema_unknown": 1}
    (sample,) = planned["plan"]["samples"]["schema_unknown"]
    assert sample == {"recovery_id": row.recovery_id, "why": "version '1' of message.created is not known"}


def test_an_action_whose_text_is_not_in_the_catalog_any_more_is_left_alone_with_the_reason() -> None:
    world = ReplayWorld()
    old = replace(ACTIONS["reply"], message=MessageRef("hello", 0))
    row = world.dead_action("reply", "1")
    world.tables.rows[row.recovery_id] = replace(row, action=old.bound(row.tenant, row.event_id, row.epoch_ms))
    planned = world.plan(ALL)
    assert planned["plan"]["counts"] == {"schema_unknown": 1}
    (sample,) = planned["plan"]["samples"]["schema_unknown"]
    assert sample["why"] == "the catalog has no message hello of version 0"


def test_a_ledger_item_that_cannot_be_read_back_is_one_items_trouble() -> None:
    world = ReplayWorld()
    for n in range(3):
        world.dead_action("tag", f"{n}")
    reads = [0]

    def unreadable(op: str, when: str) -> None:
        """The second read is that of all of them, the third that of the first alone."""
        reads[0] += (op, when) == ("ledger.read", "before")
        if (op, when) == ("ledger.read", "before") and reads[0] in (2, 3):
            raise MalformedDecision("made up")

    world.kill = unreadable
    assert world.plan(ALL)["plan"]["counts"] == {"schema_unknown": 1, "would_send": 2}


def slow_ledger(world: ReplayWorld, milliseconds: int) -> None:
    """From now on each read of the ledger takes so long."""

    def slow(op: str, when: str) -> None:
        if (op, when) == ("ledger.read", "after"):
            world.clock.advance(milliseconds)

    world.kill = slow


def test_more_than_can_be_looked_through_is_told_and_nothing_is_planned() -> None:
    world = ReplayWorld()
    for n in range(250):
        world.dead_action("tag", f"{n:03d}")
    slow_ledger(world, 400_000)
    job = world.plan(ALL)
    assert (job["state"], job.get("plan")) == ("failed", None)
    assert "narrow the filter" in job["stop_reason"]


def test_a_plan_that_takes_long_keeps_its_lease() -> None:
    world = ReplayWorld()
    for n in range(250):
        world.dead_action("tag", f"{n:03d}")
    slow_ledger(world, 50_000)
    assert world.plan(ALL)["plan"]["items"] == 250


def test_without_the_switches_nothing_is_planned_and_the_job_waits() -> None:
    world = ReplayWorld()
    world.dead_action("tag", "1")
    world.switches.is_down = True
    planned = world.ask("POST", "/platform/replays", {"filter": ALL, "reason": "x"})["document"]
    world.work()
    assert world.show(planned["replay_id"])["state"] == "planning"
    world.switches.is_down = False
    assert world.run_until_planned(planned["replay_id"]).state is State.PLANNED


def test_whoever_is_late_finds_the_job_at_work_over_or_nowhere() -> None:
    world = ReplayWorld()
    world.dead_action("tag", "1")
    replay_id = world.approved(world.plan(ALL))
    seen: list[str] = []
    world.meanwhile = lambda: seen.append(world.invoke(replay_id))
    assert world.run(replay_id).state is State.FINISHED
    assert set(seen) == {"busy"}
    world.meanwhile = None
    assert (world.invoke(replay_id), world.invoke("nobody")) == ("finished", "unknown")


def test_an_invocation_that_ends_leaves_the_rest_to_the_next() -> None:
    world = ReplayWorld()
    world.invocation_ms = 12_500
    for n in range(60):
        world.dead_action("tag", f"{n:02d}")
    replay_id = world.approved(world.plan(ALL))
    assert world.invoke(world.starter.started.pop(0)) == "later"
    assert world.job(replay_id).lease_until_ms == 0
    assert world.run(replay_id).state is State.FINISHED


# ----------------------------------------------------------------------------------------------------------- the calls


def test_the_same_click_is_the_same_plan_and_another_request_under_its_key_is_refused() -> None:
    world = ReplayWorld()
    world.dead_action("tag", "1")
    wanted, key = {"filter": ALL, "reason": "it is back"}, {"idempotency-key": "click-0001"}
    first = world.ask("POST", "/platform/replays", wanted, headers=key)
    world.work()
    again = world.ask("POST", "/platform/replays", wanted, headers=key)
    assert (first["statusCode"], again["statusCode"]) == (202, 202)
    assert first["document"]["replay_id"] == again["document"]["replay_id"]
    assert again["document"]["state"] == "planned"
    other = world.ask("POST", "/platform/replays", {**wanted, "reason": "another"}, headers=key)
    assert (other["statusCode"], other["document"]["code"]) == (422, "INT-422-IDEMPOTENCY-KEY-REUSED")
    assert len(world.jobs.jobs) == 1


def test_approving_twice_is_approving_once() -> None:
    world = ReplayWorld()
    world.dead_action("tag", "1")
    planned = world.plan(ALL)
    world.approved(planned)
    version = world.job(planned["replay_id"]).version
    assert world.approve(planned)["statusCode"] == 202
    assert world.job(planned["replay_id"]).version == version
    world.run(planned["replay_id"])
    assert world.approve(planned)["document"]["state"] == "finished"


@pytest.mark.parametrize(
    "body",
    [
        {"filter": {}, "reason": "x"},
        {"filter": {"integration": []}, "reason": "x"},
        {"filter": {"integration": [" "]}, "reason": "x"},
        {"filter": {"colour": ["red"]}, "reason": "x"},
        {"filter": {"status": ["succeeded"]}, "reason": "x"},
        {"filter": {"older_than_seconds": "60"}, "reason": "x"},
        {"filter": {"tenant": ["acme"]}, "reason": "  "},
        {"filter": {"tenant": ["acme"]}},
        {"filter": {"tenant": ["acme"]}, "reason": "x", "cap": 0},
        {"filter": {"tenant": ["acme"]}, "reason": "x", "cap": 20_001},
        {"filter": {"tenant": ["acme"]}, "reason": "x", "incident_id": "INC 7"},
        {"filter": {"tenant": ["acme"]}, "reason": "x", "force": True},
    ],
)
def test_what_is_not_understood_is_refused_and_nothing_is_planned(body: dict[str, object]) -> None:
    world = ReplayWorld()
    answer = world.ask("POST", "/platform/replays", body)
    assert (answer["statusCode"], answer["document"]["code"]) == (400, "INT-400-INVALID-PAYLOAD")
    assert world.jobs.jobs == {}


def test_jobs_are_listed_the_newest_first_and_what_is_not_there_is_said() -> None:
    world = ReplayWorld()
    world.dead_action("tag", "1")
    first = world.plan(ALL)
    world.clock.advance(1_000)
    second = world.plan(ALL)
    listed = world.ask("GET", "/platform/replays", query={"limit": "1"})["document"]
    assert [job["replay_id"] for job in listed["replays"]] == [second["replay_id"]]
    assert world.ask("GET", "/platform/replays", query={"active": "true"})["document"]["replays"] == []
    world.approved(first)
    active = world.ask("GET", "/platform/replays", query={"active": "true"})["document"]["replays"]
    assert [job["state"] for job in active] == ["approved"]
    for method, path in (("GET", ""), ("POST", "/approve"), ("POST", "/cancel")):
        body = None if method == "GET" else {"plan_hash": "0" * 64} if path == "/approve" else {"reason": "x"}
        answer = world.ask(method, f"/platform/replays/nobody-12345{path}", body)
        assert (answer["statusCode"], answer["document"]["code"]) == (404, "INT-404-NOT-FOUND")


def test_a_page_that_is_asked_for_with_a_cursor_of_nobody_is_refused() -> None:
    world = ReplayWorld()
    world.dead_action("tag", "1")
    planned = world.plan(ALL)
    query = {"items": "true", "cursor": "../secrets"}
    answer = world.ask("GET", f"/platform/replays/{planned['replay_id']}", query=query)
    assert (answer["statusCode"], answer["document"]["code"]) == (400, "INT-400-INVALID-PAYLOAD")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("", {"filter": ALL, "reason": "x"}),
        ("/replay-0123456789abcdef/approve", {"plan_hash": "0" * 64}),
        ("/replay-0123456789abcdef/cancel", {"reason": "x"}),
    ],
)
def test_who_may_only_look_changes_nothing_004_13(path: str, body: dict[str, object]) -> None:
    world = ReplayWorld()
    answer = world.ask("POST", f"/platform/replays{path}", body, claims=VIEWER)
    assert (answer["statusCode"], answer["document"]["code"]) == (403, "INT-403-PERMISSION-DENIED")
    assert world.ask("GET", "/platform/replays", claims=VIEWER)["statusCode"] == 200
    assert world.jobs.jobs == {}


def test_jobs_that_are_moved_at_the_same_time_do_not_lose_each_other() -> None:
    """The board is one item: whoever comes second looks at it again."""
    world = ReplayWorld()
    world.dead_action("tag", "1")
    planned = world.plan(ALL)
    others = [0]

    def another(op: str) -> None:
        if op == "jobs.store" and others[0] < 2:
            others[0] += 1
            board = world.jobs.stored_board
            world.jobs.stored_board = replace(board, version=board.version + 1)

    world.faults.on_before = another
    replay_id = world.approved(planned)
    assert (world.job(replay_id).state, others[0]) == (State.APPROVED, 2)


def test_an_approval_that_somebody_else_comes_before_is_refused() -> None:
    world = ReplayWorld()
    world.dead_action("tag", "1")
    planned = world.plan(ALL)
    job = world.job(planned["replay_id"])

    def another(op: str) -> None:
        if op == "jobs.store":
            world.faults.on_before = None
            world.jobs.jobs[job.job_id] = replace(job, version=job.version + 1)

    world.faults.on_before = another
    refused = world.approve(planned)
    assert (refused["statusCode"], refused["document"]["code"]) == (409, "INT-409-IN-PROGRESS")
