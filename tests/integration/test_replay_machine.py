"""Bulk replays under every order of plans, approvals, deaths, failing storage, switches, outages and people: nothing is
replayed before its job is approved and on record, no row twice by one job, no integration has two, nothing happens
twice, and in the end nothing is left under way (004.14, 004.19, 004.20, 001.46).
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from functions.core.audit import AuditEvent, AuditType
from functions.core.failure import NetworkCause, StorageUnavailable, failure_of_network
from functions.core.gate import Health
from functions.core.machine import ABSENT
from functions.core.recovery import Row, Status, end
from functions.core.replay_job import HOLDING, JOB, OVER, WORKED_ON, State
from tests.replay_world import MINUTE_MS, ReplayWorld
from tests.worker_world import DESK, Died

NAMES = [f"r{number:02d}" for number in range(16)]
EVERYTHING = {"integration": [DESK]}
SOME = st.sampled_from(
    [EVERYTHING, EVERYTHING, {"status": ["dlq"]}, {"failure_code": ["HTTP_503"], "tenant": ["acme"]}]
)
REFUSED = failure_of_network(NetworkCause.CONNECT_REFUSED, "nobody listens")
OPS = [
    "jobs.get",
    "jobs.board",
    "jobs.store",
    "jobs.apply",
    "plans.get",
    "plans.put",
    "plans.put_record",
    "recovery.several",
    "recovery.walk",
    "ledger.read",
    "backlog.waiting",
]


class Jobs(RuleBasedStateMachine):
    """A desk, its dead letters, several jobs at a time, and λ with little time, so that whatever waits is let go of."""

    def __init__(self) -> None:
        super().__init__()
        self.world = ReplayWorld()
        self.world.invocation_ms = 10_001
        self.rows: dict[str, Row] = {}
        self.trouble: tuple[str, str, int, type[BaseException]] | None = None
        self.is_down = False
        self.world.kill = self.maybe_wrong
        self.world.provider.answers.append(lambda _: REFUSED if self.is_down else None)

    @initialize(names=st.sets(st.sampled_from(NAMES), min_size=8))
    def some_are_dead(self, names: set[str]) -> None:
        for name in sorted(names):
            self.something_dies(name, "push")

    def maybe_wrong(self, op: str, when: str) -> None:
        """What was planned goes wrong, once, at its turn."""
        if self.trouble is None or self.trouble[:2] != (op, when):
            return
        left = self.trouble[2] - 1
        error = self.trouble[3]
        self.trouble = (op, when, left, error) if left else None
        if not left:
            raise error(f"{when} {op}")

    # --------------------------------------------------------------------------------------------------- what happens

    @rule(name=st.sampled_from(NAMES), kind=st.sampled_from(["push", "tag", "reply", "create"]))
    def something_dies(self, name: str, kind: str) -> None:
        if name not in self.rows:
            self.rows[name] = self.world.dead_action(kind, name)

    @rule(name=st.sampled_from(NAMES), kind=st.sampled_from(["push", "reply", "create"]), is_there=st.booleans())
    def something_dies_of_which_nobody_knows(self, name: str, kind: str, is_there: bool) -> None:
        if name not in self.rows:
            self.rows[name] = self.world.unclear_action(kind, name, is_there=is_there)

    @rule(wanted=SOME, cap=st.sampled_from([3, 20]), look_only=st.sampled_from([False, False, True]))
    def somebody_plans(self, wanted: dict[str, Any], cap: int, *, look_only: bool) -> None:
        body = {"filter": wanted, "reason": "it is back", "cap": cap, "look_only": look_only}
        assert self.world.ask("POST", "/platform/replays", body)["statusCode"] == 202
        self.world.work()

    @precondition(lambda self: self.jobs_in(State.PLANNED))
    @rule(data=st.data())
    def somebody_approves(self, data: st.DataObject) -> None:
        replay_id = data.draw(st.sampled_from(self.jobs_in(State.PLANNED)))
        plan_hash = self.world.job(replay_id).plan_hash
        answer = self.world.ask("POST", f"/platform/replays/{replay_id}/approve", {"plan_hash": plan_hash})
        assert answer["statusCode"] in (202, 409), answer
        self.world.work()

    @rule(wanted=SOME)
    def somebody_replays_in_a_hurry(self, wanted: dict[str, Any]) -> None:
        """Plan, approve, and let others work for a while."""
        answer = self.world.ask("POST", "/platform/replays", {"filter": wanted, "reason": "it is back"})
        self.world.work()
        replay_id = answer["document"]["replay_id"]
        plan_hash = self.world.job(replay_id).plan_hash
        if plan_hash:
            self.world.ask("POST", f"/platform/replays/{replay_id}/approve", {"plan_hash": plan_hash})
        self.world.work()
        self.world.go_on(2_000)

    @precondition(lambda self: self.jobs_in(*State))
    @rule(what=st.sampled_from(["pause", "resume", "resume", "cancel"]), data=st.data())
    def somebody_takes_it_in_hand(self, what: str, data: st.DataObject) -> None:
        replay_id = data.draw(st.sampled_from(self.jobs_in(*State)))
        answer = self.world.ask("POST", f"/platform/replays/{replay_id}/{what}", {"reason": "because"})
        assert answer["statusCode"] in (200, 409), answer

    @rule()
    def what_was_started_runs(self) -> None:
        self.world.work()

    @precondition(lambda self: self.jobs_in(*State))
    @rule(data=st.data())
    def somebody_starts_it_once_more(self, data: st.DataObject) -> None:
        self.world.invoke(data.draw(st.sampled_from(self.jobs_in(*State))))

    @rule(milliseconds=st.sampled_from([1, 2_000, MINUTE_MS, 2 * MINUTE_MS]))
    def the_others_go_on(self, milliseconds: int) -> None:
        self.world.go_on(milliseconds)
        self.world.work()

    @rule(
        op=st.sampled_from(OPS),
        when=st.sampled_from(["before", "after"]),
        turn=st.integers(1, 3),
        error=st.sampled_from([Died, StorageUnavailable]),
    )
    def something_will_go_wrong(self, op: str, when: str, turn: int, error: type[BaseException]) -> None:
        self.trouble = (op, when, turn, error)

    @rule(values=st.sampled_from([{"replay": "off"}, {"disabled_integrations": DESK}, {"auto_reply": "off"}]))
    def an_operator_throws_a_switch(self, values: dict[str, str]) -> None:
        self.world.switches.values.update(values)

    @rule()
    def every_switch_is_back(self) -> None:
        self.world.switches.values.update(replay="on", disabled_integrations="none", auto_reply="on")

    @rule(health=st.sampled_from([Health.HEALTHY, Health.HEALTHY, Health.DEGRADED, Health.HARD_DOWN]))
    def the_desk_is_judged(self, health: Health) -> None:
        self.world.tables.set_health(DESK, health)

    @rule(is_down=st.booleans())
    def the_desk_is_out_or_back(self, is_down: bool) -> None:
        self.is_down = is_down

    @rule(messages=st.sampled_from([0, 0, 500]))
    def live_events_wait(self, messages: int) -> None:
        self.world.backlog.messages = messages

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def a_person_dismisses_one(self, data: st.DataObject) -> None:
        row = self.world.now(self.rows[data.draw(st.sampled_from(sorted(self.rows)))])
        if not row.is_final and not row.is_open:
            change = end(row, "DISMISSED", "not wanted", self.world.clock.now, actor="bob", request_id="r")
            self.world.tables.rows[row.recovery_id] = change.after
            self.world.tables.put_audit(change.audit)

    # ----------------------------------------------------------------------------------------------- what always holds

    def jobs_in(self, *states: State) -> list[str]:
        return sorted(job_id for job_id, job in self.world.jobs.jobs.items() if job.state in states)

    def told(self, kind: AuditType) -> list[AuditEvent]:
        return [event for event in self.world.tables.events if event.event_type is kind]

    @invariant()
    def a_job_keeps_to_its_table_and_its_record_is_the_audits(self) -> None:
        steps: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for event in self.told(AuditType.REPLAY_JOB_CHANGED):
            before = json.loads(event.before_state)["status"] if event.before_state else ABSENT
            steps[event.affected_id].append((before, json.loads(event.after_state)["status"]))
        for job_id, job in self.world.jobs.jobs.items():
            left = Counter(steps[job_id])
            assert all(JOB.allows(*step) for step in left), left
            # As many ways in as out of each state, but for where it began and where it is.
            degrees = Counter({ABSENT: 1, job.state.value: -1})
            for (before, after), number in left.items():
                degrees[before] -= number
                degrees[after] += number
            assert not any(degrees.values()), (job_id, job.state, left)

    @invariant()
    def no_integration_has_two_jobs_and_the_board_knows_them_all(self) -> None:
        holding = [job for job in self.world.jobs.jobs.values() if job.state in HOLDING]
        held = [name for job in holding for name in job.integrations]
        assert len(held) == len(set(held))
        board = self.world.jobs.stored_board
        assert dict(board.holders) == {name: job.job_id for job in holding for name in job.integrations}
        assert set(board.working) == set(self.jobs_in(*WORKED_ON))

    @invariant()
    def nothing_is_replayed_that_no_approved_job_answers_for_and_nothing_twice_004_19(self) -> None:
        told = self.told(AuditType.REPLAYED)
        assert all(count == 1 for count in Counter((event.affected_id, event.job_id) for event in told).values())
        for event in told:
            job = self.world.job(event.job_id)
            assert event.actor == job.approved_by
            assert event.at_ms >= job.approved_at_ms
            going = {item.recovery_id for item in self.world.made(event.job_id).going}
            assert event.affected_id in going
        for row in self.rows.values():
            assert self.world.now(row).replay_no == sum(event.affected_id == row.recovery_id for event in told)

    @invariant()
    def nothing_happens_twice_001_46(self) -> None:
        assert all(self.world.effects_of(row) <= 1 for row in self.rows.values())

    def teardown(self) -> None:
        """Everything is well again: every job that was begun comes to its end, and what it took has an outcome."""
        world = self.world
        self.trouble, self.is_down, world.backlog.messages = None, False, 0
        world.invocation_ms = 900_000
        self.every_switch_is_back()
        world.tables.set_health(DESK, Health.HEALTHY)
        for replay_id in self.jobs_in(State.PAUSED):
            world.ask("POST", f"/platform/replays/{replay_id}/resume", {"reason": "all is well"})
        for replay_id in self.jobs_in(State.PLANNING):
            world.run_until_planned(replay_id)
        for replay_id in self.jobs_in(*HOLDING):
            assert world.run(replay_id).state in OVER
        world.run_until_quiet()
        assert not world.open_rows()
        self.nothing_happens_twice_001_46()
        self.nothing_is_replayed_that_no_approved_job_answers_for_and_nothing_twice_004_19()
        for job in world.jobs.jobs.values():
            if job.state is State.FINISHED:
                assert sum(job.outcomes.values()) == job.total
        for row in self.rows.values():
            now = world.now(row)
            if now.status is Status.REPLAYED:
                assert world.effects_of(row) == 1


TestJobs = Jobs.TestCase
TestJobs.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
