"""Replay jobs under every order of requests, deaths, failing storage, switches and other jobs: nothing is replayed
before the job's record and its audit event are there, everything that was meant is accounted for, and nothing is
replayed twice under one death (004.14, 004.19, 004.20).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from functions.core.attempt import Effect
from functions.core.audit import AuditType
from functions.core.decision import Repeat
from functions.core.failure import Done, Failure, StorageUnavailable
from functions.core.integration import KindRules
from functions.core.machine import ABSENT
from functions.core.ports import ReplayJob
from functions.core.recovery import Status, after_attempt, claim
from functions.core.replay import JOB
from functions.core.retry import RetryPolicy
from functions.core.switches import FRESH_FOR_MS
from tests.integration.test_replay import Stage
from tests.recovery_rows import dead
from tests.unit.builders import CONNECT_REFUSED, MINUTE, Chance

TAGS = KindRules("add_tag", Repeat.IDEMPOTENT)
OPS = ["recovery.find", "recovery.commit", "jobs.put", "audit.append", "replays.send"]
SEVEN = [f"r{number}" for number in range(7)]


class Died(BaseException):
    """The process is gone."""


def replayed(answer: dict[str, Any]) -> set[str]:
    """The rows that a job says it replayed."""
    return {item["recovery_id"] for item in answer.get("items", ()) if item["result"] == "replayed"}


class Jobs(RuleBasedStateMachine):
    """Rows that die and are replayed, by one job after the other, or by two at once."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage()
        self.known: dict[str, ReplayJob] = {}  # the record of each job, as it was last seen

    # ----------------------------------------------------------------------------------------------------- the world

    @initialize(names=st.sets(st.sampled_from(SEVEN), min_size=3))
    def some_have_failed(self, names: set[str]) -> None:
        for name in sorted(names):
            self.an_action_fails_for_good(name, Effect.NONE)

    @rule(name=st.sampled_from(SEVEN), effect=st.sampled_from([Effect.NONE, Effect.NONE, Effect.UNKNOWN]))
    def an_action_fails_for_good(self, name: str, effect: Effect) -> None:
        row = dead(name, effect=effect, integration_id="email" if name in SEVEN[:2] else "helpdesk")
        self.stage.tables.rows.setdefault(row.recovery_id, row)

    @rule(value=st.sampled_from(["on", "on", "off"]), blocked=st.sampled_from(["none", "none", "helpdesk", "all"]))
    def an_operator_sets_the_switches(self, value: str, blocked: str) -> None:
        self.stage.switches.values = {
            **self.stage.switches.values,
            "replay": value,
            "replay_blocked_integrations": blocked,
        }
        self.stage.clock.advance(FRESH_FOR_MS + 1)  # whoever asks next has read them

    @rule(milliseconds=st.sampled_from([1, MINUTE]))
    def time_passes(self, milliseconds: int) -> None:
        self.stage.clock.advance(milliseconds)

    @rule(is_down=st.booleans())
    def the_queue_takes_nothing(self, is_down: bool) -> None:
        self.stage.replays.refused = set(self.stage.tables.rows) if is_down else set()

    @rule()
    def the_sweeper_looks(self) -> None:
        self.stage.sweep()

    @precondition(lambda self: self.under_way())
    @rule(result=st.sampled_from([Done("p-1"), CONNECT_REFUSED]), data=st.data())
    def a_replayed_attempt_is_made(self, result: Done | Failure, data: st.DataObject) -> None:
        tables, now_ms = self.stage.tables, self.stage.clock.now_ms()
        recovery_id = data.draw(st.sampled_from(self.under_way()))
        tables.rows[recovery_id] = claimed = claim(tables.rows[recovery_id], now_ms, now_ms + MINUTE, "q").after
        change = after_attempt(claimed, TAGS, RetryPolicy(), result, now_ms, Chance(1.0), 1.0, was_sent=True)
        tables.rows[recovery_id] = change.after
        tables.put_audit(change.audit)
        assert change.after.status in (Status.DLQ, Status.REPLAYED)

    def under_way(self) -> list[str]:
        """Rows that were replayed, and whose attempt has not been made."""
        rows = self.stage.tables.rows.values()
        return sorted(row.recovery_id for row in rows if row.status is Status.REPLAYED and row.is_open)

    # ------------------------------------------------------------------------------------------------------- the jobs

    def ask(self, limit: int, wanted: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any] | None:
        """Its answer; None if the process died of it."""
        try:
            answer = self.stage.ask(wanted, limit=limit, dry_run=dry_run)
        except Died:
            return None
        finally:
            self.stage.tables.faults.on_before = self.stage.tables.faults.on_after = None
        self.judge(answer)
        return answer

    def judge(self, answer: dict[str, Any]) -> None:
        if "error" in answer:
            return
        assert answer["matched"] == answer["replayed"] + sum(answer["skipped"].values())
        results = Counter(item["result"] for item in answer["items"])
        assert results["replayed"] + results["would_replay"] == answer["replayed"]
        if answer["dry_run"]:
            assert answer["job_id"] not in self.stage.jobs.jobs
        else:
            told, by_answer = self.replays_of(answer["job_id"]), replayed(answer)
            assert by_answer <= told, "what it says it replayed is in the audit"
            unclear = answer["skipped"].get("storage_unavailable", 0)  # its answer was lost, and it may be done
            assert len(told - by_answer) <= unclear

    wanted = st.sampled_from([{"tenant": "acme"}, {"integration": "helpdesk"}, {"status": "dlq"}])

    @rule(limit=st.integers(1, 8), wanted=wanted)
    def somebody_replays(self, limit: int, wanted: dict[str, Any]) -> None:
        answer = self.ask(limit, wanted)
        assert answer is not None
        if "error" in answer:
            assert answer["error"]["code"] == "INT-409-RECOVERY-REPLAY-CONFLICT"
            assert self.stage.switches.values["replay"] == "off"
            return
        job = self.stage.jobs.jobs[answer["job_id"]]
        assert job.finished_at_ms
        assert (job.matched, job.replayed, job.skipped) == (answer["matched"], answer["replayed"], answer["skipped"])
        assert answer["replayed"] <= limit
        blocked = self.stage.switches.values["replay_blocked_integrations"]
        called = {item["integration"] for item in answer["items"] if item["result"] == "replayed"}
        assert not called or blocked not in ("all", *called)

    @rule(limit=st.integers(1, 8), wanted=wanted)
    def somebody_asks_what_would_be_replayed(self, limit: int, wanted: dict[str, Any]) -> None:
        tables = self.stage.tables
        before = dict(tables.rows), dict(tables.audit), dict(self.stage.jobs.jobs), len(self.stage.replays.sent)
        self.ask(limit, wanted, dry_run=True)
        assert before == (tables.rows, tables.audit, self.stage.jobs.jobs, len(self.stage.replays.sent))

    @rule(
        limit=st.integers(1, 8),
        wanted=wanted,
        op=st.sampled_from(OPS),
        turn=st.integers(1, 3),
        when=st.sampled_from(["before", "after"]),
        dies=st.booleans(),
    )
    def something_goes_wrong(
        self, limit: int, wanted: dict[str, Any], op: str, turn: int, when: str, dies: bool
    ) -> None:
        """At the n-th call of an operation the storage fails, or the process dies; before it has done it, or after."""
        self.at(op, turn, when, self.die if dies else self.fail)
        self.ask(limit, wanted)

    @rule(limit=st.integers(1, 8), wanted=wanted, turn=st.integers(1, 3))
    def another_job_comes_between(self, limit: int, wanted: dict[str, Any], turn: int) -> None:
        between: list[dict[str, Any]] = []
        self.at("recovery.commit", turn, "before", lambda: between.append(self.stage.ask({"tenant": "acme"})))
        answer = self.ask(limit, wanted)
        if answer is not None and between:
            self.judge(between[0])
            assert not replayed(answer) & replayed(between[0]), "what one has replayed the other leaves alone"

    def at(self, op: str, turn: int, when: str, do: Callable[[], None]) -> None:
        left = [turn]

        def count(called: str) -> None:
            left[0] -= called == op
            if called == op and left[0] == 0:
                do()

        setattr(self.stage.tables.faults, f"on_{when}", count)

    def die(self) -> None:
        raise Died

    def fail(self) -> None:
        raise StorageUnavailable("it did not answer")

    # ----------------------------------------------------------------------------------------------------- what holds

    def replays_of(self, job_id: str) -> set[str]:
        """The rows that the audit says this job replayed."""
        return {event.affected_id for event in self.row_events() if event.job_id == job_id}

    def row_events(self) -> list[Any]:
        events = self.stage.tables.events
        return [
            event
            for event in events
            if event.event_type is AuditType.REPLAYED and event.affected_entity == "recovery_item"
        ]

    @invariant()
    def a_job_keeps_to_its_table_and_its_record_is_the_audit_s(self) -> None:
        states: dict[str, list[str]] = {}  # in no order: a job may take no time at all
        for event in self.stage.tables.events:
            if event.affected_entity == "replay_job":
                states.setdefault(event.affected_id, []).append(json.loads(event.after_state)["status"])
        for job_id, told in states.items():
            assert sorted(told) in (["running"], ["finished", "running"]), "each once, and no end without a beginning"
            assert job_id in self.stage.jobs.jobs, "what is in the audit has a record"
        for job_id, job in self.stage.jobs.jobs.items():
            state = "finished" if job.finished_at_ms else "running"
            before = self.known.get(job_id)
            state_before = ABSENT if before is None else "finished" if before.finished_at_ms else "running"
            if before is None:
                assert state in ("running", JOB.next("running", "finish"))
            elif job != before:
                assert (state_before, state) == ("running", JOB.next("running", "finish"))
            if state == "finished":
                assert sorted(states[job_id]) == ["finished", "running"], "no record ends before the audit says so"
                assert job.matched == job.replayed + sum(job.skipped.values())
        self.known = dict(self.stage.jobs.jobs)

    @invariant()
    def nothing_is_replayed_that_no_job_in_the_audit_answers_for_004_19(self) -> None:
        begun = {event.affected_id for event in self.stage.tables.events if event.affected_entity == "replay_job"}
        for event in self.row_events():
            assert event.job_id in begun
            assert event.actor == "anna"
            assert event.reason == "it is back"

    @invariant()
    def each_replay_is_told_once_and_nothing_unclear_is_replayed_001_46(self) -> None:
        told = Counter(event.affected_id for event in self.row_events())
        for recovery_id, row in self.stage.tables.rows.items():
            assert told[recovery_id] == row.replay_no
            if row.effect is Effect.UNKNOWN:
                assert row.replay_no == 0

    def teardown(self) -> None:
        """Whatever died or failed, the sweeper hints at every replayed row that nobody has tried."""
        self.stage.replays.refused = set()
        self.an_operator_sets_the_switches("on", "none")
        for _ in range(4):
            self.stage.clock.advance(MINUTE)
            self.stage.sweep()
        latest = {sent.hint.recovery_id: sent.hint.version for sent in self.stage.replays.sent}
        for recovery_id in self.under_way():
            assert latest[recovery_id] == self.stage.tables.rows[recovery_id].version


TestJobs = Jobs.TestCase
TestJobs.settings = settings(max_examples=60, stateful_step_count=25)
