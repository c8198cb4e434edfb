"""Bulk replay over tables and queue: what is tried again, what is not, and that no crash loses or doubles anything."""

from __future__ import annotations

import io
import json
from collections import Counter
from typing import Any

import pytest

from functions import observability
from functions.core.attempt import Effect
from functions.core.audit import AuditType
from functions.core.failure import MalformedDecision, StorageUnavailable, VersionConflict
from functions.core.recovery import Row, Status
from functions.replay.handler import Handler, build
from functions.replay.settings import ReplaySettings
from functions.sweeper.handler import build as build_sweeper
from tests.control_fakes import FakeReplayJobs
from tests.fakes import (
    LIVE_SWITCHES,
    NOON_MS,
    FakeAudit,
    FakeClock,
    FakeEnvelopes,
    FakeEvents,
    FakeHints,
    FakeIds,
    FakeLedger,
    FakeRecovery,
    FakeSpill,
    FakeSwitches,
    FakeTables,
)
from tests.integration.test_sweeper import SETTINGS as SWEEPER
from tests.recovery_rows import dead, event_row, row

SETTINGS = ReplaySettings(
    stage="test",
    recovery_table="recovery",
    audit_table="audit",
    control_table="control",
    replays_queue_url="http://localhost/replays",
    switches_path="/holdfast/test/switches",
    time_scale=1.0,
)


class Context:
    """What Lambda hands in."""

    aws_request_id = "operation-1"

    def __init__(self, remaining_ms: int = 60_000) -> None:
        self.remaining_ms = remaining_ms

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining_ms


class Stage:
    def __init__(self, *rows: Row, **switches: str) -> None:
        self.tables = FakeTables()
        self.tables.rows.update({each.recovery_id: each for each in rows})
        self.clock = FakeClock()
        self.ids = FakeIds()
        self.jobs = FakeReplayJobs(self.tables.faults)
        self.replays = FakeHints(self.tables.faults, "replays")
        self.switches = FakeSwitches(self.clock, {**LIVE_SWITCHES, **switches})
        self.lines: list[str] = []
        self.handle: Handler = build(
            SETTINGS,
            integrations=("helpdesk", "email"),
            recovery=FakeRecovery(self.tables),
            audit=FakeAudit(self.tables),
            jobs=self.jobs,
            switches=self.switches,
            replays=self.replays,
            clock=self.clock,
            ids=self.ids,
            log=observability.logger("replay-test", stream=io.StringIO()),
            metrics=observability.metrics("replay", "test", self.lines.append),
        )

    def ask(self, wanted: dict[str, Any] | None = None, context: object = None, **fields: Any) -> dict[str, Any]:
        payload = {"filter": wanted or {"integration": "helpdesk"}, "reason": "it is back", "actor": "anna", **fields}
        return self.handle(payload, Context() if context is None else context)

    def now(self, subject: Row) -> Row:
        return self.tables.rows[subject.recovery_id]

    def sweep(self) -> None:
        build_sweeper(
            SWEEPER,
            integrations=("helpdesk", "email"),
            ledger=FakeLedger(self.tables),
            recovery=FakeRecovery(self.tables),
            switches=self.switches,
            spill=FakeSpill(),
            envelopes=FakeEnvelopes(),
            events=FakeEvents(),
            retries=FakeHints(self.tables.faults, "retries"),
            replays=self.replays,
            clock=self.clock,
            ids=self.ids,
            log=observability.logger("sweeper-test", stream=io.StringIO()),
            metrics=observability.metrics("sweeper", "test", self.lines.append),
        )({}, None)


def test_a_dead_item_is_replayed_with_who_why_and_under_which_job_004_14_001_47() -> None:
    subject = dead()
    stage = Stage(subject)
    answer = stage.ask()
    after = stage.now(subject)
    assert (answer["matched"], answer["replayed"], answer["skipped"]) == (1, 1, {})
    assert answer["items"] == [
        {
            "recovery_id": subject.recovery_id,
            "event_id": "helpdesk-acme:m-1",
            "integration": "helpdesk",
            "action": "tag",
            "result": "replayed",
            "queued": True,
        }
    ]
    assert (after.status, after.replayed_from, after.job_id) == (Status.REPLAYED, "dlq", answer["job_id"])
    assert (after.request_id, after.origin_request_id) == ("operation-1", "req-1")
    assert after.action == subject.action
    assert [(sent.hint.recovery_id, sent.hint.version) for sent in stage.replays.sent] == [
        (after.recovery_id, after.version)
    ]
    (event,) = [each for each in stage.tables.events if each.affected_id == subject.recovery_id]
    assert (event.event_type, event.actor, event.reason, event.job_id) == (
        AuditType.REPLAYED,
        "anna",
        "it is back",
        answer["job_id"],
    )


def test_a_job_leaves_a_record_of_who_why_what_and_how_it_ended() -> None:
    stage = Stage(dead("a"), dead("b", effect=Effect.UNKNOWN))
    job_id = stage.ask(limit=10)["job_id"]
    job = stage.jobs.jobs[job_id]
    assert (job.actor, job.reason, json.loads(job.filter), job.limit) == (
        "anna",
        "it is back",
        {"integration": ["helpdesk"]},
        10,
    )
    assert (job.matched, job.replayed, job.skipped) == (2, 1, {"effect_unknown": 1})
    assert job.finished_at_ms == NOON_MS
    assert len([each for each in stage.tables.events if each.affected_entity == "replay_job"]) == 2


def test_a_dry_run_says_the_same_and_leaves_no_trace() -> None:
    """000.29, 001.46: what a bulk replay would touch can be seen before it runs."""
    rows = [dead("a"), dead("b", effect=Effect.UNKNOWN), dead("c", failure_code="SUPPRESSED", status=Status.FAILED)]
    stage = Stage(*rows)
    before = dict(stage.tables.rows)
    planned = stage.ask(dry_run=True)
    assert stage.tables.rows == before
    assert (stage.tables.events, stage.jobs.jobs, stage.replays.sent) == ([], {}, [])
    assert [item["result"] for item in planned["items"]] == ["would_replay", "skipped", "skipped"]
    done = stage.ask()
    assert {key: done[key] for key in ("matched", "replayed", "skipped")} == {
        key: planned[key] for key in ("matched", "replayed", "skipped")
    }


def test_what_may_have_happened_ended_for_good_or_is_under_way_is_never_touched() -> None:
    """000.29, 001.46: nothing whose second effect would do harm."""
    untouchable = [
        dead("unknown", effect=Effect.UNKNOWN),
        dead("expired", status=Status.FAILED, failure_code="EXPIRED"),
        dead("by-hand", status=Status.FAILED, failure_code="DONE_BY_HAND"),
        dead("suppressed", status=Status.FAILED, failure_code="SUPPRESSED"),
        row("retrying"),
        row("replayed", status=Status.REPLAYED),
    ]
    stage = Stage(*untouchable)
    answer = stage.ask()
    assert answer["replayed"] == 0
    assert answer["skipped"] == {"effect_unknown": 1, "ended_done_by_hand": 1, "ended_expired": 1, "suppressed": 1}
    assert [stage.now(each) for each in untouchable] == untouchable
    assert stage.replays.sent == []


def test_an_item_named_by_its_id_is_told_why_it_cannot_be_replayed() -> None:
    under_way = row("retrying")
    stage = Stage(under_way)
    answer = stage.ask({"recovery_ids": [under_way.recovery_id, "nobody"]})
    assert answer["items"][0]["reason"] == "status_retrying"
    assert answer["not_found"] == ["nobody"]


def test_a_dead_event_is_found_without_naming_an_integration() -> None:
    stage = Stage(event_row())
    assert stage.ask({"tenant": "acme"})["items"][0]["integration"] == "intake"
    assert stage.now(event_row()).status is Status.REPLAYED


def test_the_limit_holds_and_every_matching_item_is_accounted_for_000_27_001_45() -> None:
    stage = Stage(*[dead(f"r{n}") for n in range(30)], *[dead(f"u{n}", effect=Effect.UNKNOWN) for n in range(5)])
    answer = stage.ask(limit=12)
    assert answer["replayed"] == 12
    assert answer["matched"] == answer["replayed"] + sum(answer["skipped"].values()) == 35
    assert len(stage.replays.sent) == 12


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"filter": {}, "reason": "r", "actor": "a"}, "filter"),
        ({"filter": {"tenant": "acme"}, "reason": " ", "actor": "a"}, "reason"),
        ({"filter": {"tenant": "acme"}, "reason": "r", "actor": "a", "limit": 101}, "limit"),
        ({"filter": {"size": 1}, "reason": "r", "actor": "a"}, "filter.size"),
    ],
)
def test_an_unsound_request_is_refused_with_a_stable_code_and_nothing_happens(
    payload: dict[str, Any], field: str
) -> None:
    stage = Stage(dead())
    error = stage.handle(payload, None)["error"]
    assert error["code"] == "INT-400-INVALID-PAYLOAD"
    assert [problem["field"] for problem in error["problems"]] == [field]
    assert stage.tables.events == []


def test_while_the_switch_is_off_no_replay_runs_002_34() -> None:
    subject = dead()
    stage = Stage(subject, replay="off")
    assert stage.ask()["error"]["code"] == "INT-409-RECOVERY-REPLAY-CONFLICT"
    assert stage.now(subject) == subject


def test_a_blocked_integration_is_left_alone_and_the_others_go_004_20() -> None:
    blocked, other = dead("blocked"), dead("other", integration_id="email")
    stage = Stage(blocked, other, replay_blocked_integrations="helpdesk")
    answer = stage.ask({"tenant": "acme"})
    assert answer["skipped"] == {"replay_blocked": 1}
    assert stage.now(blocked) == blocked
    assert stage.now(other).status is Status.REPLAYED


def test_without_the_switches_nothing_is_replayed() -> None:
    subject = dead()
    stage = Stage(subject)
    stage.switches.is_down = True
    assert stage.ask()["error"]["code"] == "INT-503-DEPENDENCY-UNAVAILABLE"
    assert stage.now(subject) == subject


@pytest.mark.parametrize("op", ["recovery.find", "jobs.put", "audit.append"])
def test_without_storage_or_audit_nothing_is_replayed_004_19(op: str) -> None:
    subject = dead()
    stage = Stage(subject)
    stage.tables.faults.fail(op)
    assert stage.ask()["error"]["code"] == "INT-503-DEPENDENCY-UNAVAILABLE"
    assert stage.now(subject) == subject
    assert stage.replays.sent == []


def test_storage_that_fails_in_the_middle_stops_the_job_and_the_rest_is_told() -> None:
    stage = Stage(*[dead(f"r{n}") for n in range(5)])
    commits = [0]

    def third(op: str) -> None:
        commits[0] += op == "recovery.commit"
        if op == "recovery.commit" and commits[0] == 3:
            raise StorageUnavailable("the table did not answer")

    stage.tables.faults.on_before = third
    answer = stage.ask()
    assert answer["replayed"] == 2
    assert answer["skipped"] == {"not_reached": 2, "storage_unavailable": 1}
    assert len(stage.replays.sent) == 2


def test_an_item_that_expires_while_the_job_runs_is_told_and_stops_no_other() -> None:
    soon, late = dead("1" * 24, expires_at_ms=NOON_MS + 1_000), dead("2" * 24)
    stage = Stage(soon, late)

    def a_slow_audit(op: str) -> None:
        if op == "audit.append":
            stage.clock.advance(2_000)

    stage.tables.faults.on_before = a_slow_audit
    answer = stage.ask()

    assert (answer["replayed"], answer["skipped"]) == (1, {"expired": 1})
    assert (stage.now(soon), stage.now(late).status) == (soon, Status.REPLAYED)
    assert stage.jobs.jobs[answer["job_id"]].finished_at_ms


def test_a_queue_that_takes_nothing_leaves_the_replay_to_the_sweeper() -> None:
    subject = dead()
    stage = Stage(subject)
    stage.replays.refused.add(subject.recovery_id)
    assert stage.ask()["items"][0]["queued"] is False
    stage.replays.refused.clear()
    stage.clock.advance(180_000)
    stage.sweep()
    assert [sent.hint.version for sent in stage.replays.sent] == [stage.now(subject).version]


def test_an_end_that_cannot_be_recorded_does_not_undo_what_was_replayed() -> None:
    subject = dead()
    stage = Stage(subject)
    appended = [0]

    def second(op: str) -> None:
        appended[0] += op == "audit.append"
        if op == "audit.append" and appended[0] == 2:
            raise StorageUnavailable("the audit did not answer")

    stage.tables.faults.on_before = second
    assert stage.ask()["replayed"] == 1
    assert stage.now(subject).status is Status.REPLAYED
    assert any("replay_ends_not_recorded" in line for line in stage.lines)


def test_a_job_ends_before_its_time_is_up() -> None:
    stage = Stage(*[dead(f"r{n}") for n in range(10)])

    def slow(op: str) -> None:
        if op == "recovery.commit":
            stage.clock.advance(2_000)

    stage.tables.faults.on_before = slow
    answer = stage.ask(context=Context(remaining_ms=11_000))
    assert answer["replayed"] == 3
    assert answer["skipped"] == {"not_reached": 7}


def test_of_two_jobs_over_the_same_item_one_replays_it() -> None:
    subject = dead()
    stage = Stage(subject)

    def other_job(op: str) -> None:
        if op == "recovery.commit":
            stage.tables.faults.on_before = None
            assert stage.ask()["replayed"] == 1

    stage.tables.faults.on_before = other_job
    answer = stage.ask()
    assert answer["skipped"] == {"moved": 1}
    assert stage.now(subject).replay_no == 1
    assert len(stage.replays.sent) == 1


def test_an_item_that_cannot_be_read_back_is_not_found_and_the_others_go_on() -> None:
    subject = dead()
    stage = Stage(subject)
    stage.tables.faults.fail("recovery.get", MalformedDecision("its action cannot be read"))
    answer = stage.ask({"recovery_ids": ["0", subject.recovery_id]})
    assert (answer["not_found"], answer["replayed"]) == (["0"], 1)


def test_a_conflict_is_an_answer_and_no_error() -> None:
    stage = Stage(dead())
    stage.tables.faults.fail("recovery.commit", VersionConflict("moved"))
    assert stage.ask()["skipped"] == {"moved": 1}


class _Died(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", range(1, 21))
def test_a_replay_that_dies_at_any_step_replays_each_item_once_in_the_end(step: int, when: str) -> None:
    rows = [dead(f"r{n}") for n in range(12)]
    stage = Stage(*rows)
    left = [step]

    def die(_op: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise _Died

    setattr(stage.tables.faults, f"on_{when}", die)
    with pytest.raises(_Died):
        stage.ask(limit=100)
    setattr(stage.tables.faults, f"on_{when}", None)
    stage.ask(limit=100)
    for _ in range(4):
        stage.clock.advance(60_000)
        stage.sweep()
    latest = {sent.hint.recovery_id: sent.hint.version for sent in stage.replays.sent}
    assert {each.recovery_id: stage.now(each).version for each in rows} == latest
    assert {stage.now(each).replay_no for each in rows} == {1}
    told = Counter(each.affected_id for each in stage.tables.events if each.affected_entity == "recovery_item")
    assert set(told.values()) == {1}
