"""The world of worker and sweeper with bulk replays: the operator API that asks, and replay λ, which can be killed.

λ waits by letting the world go on: time passes, messages are delivered, and the sweeper ticks each minute.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, cast

from functions.core.attempt import Effect
from functions.core.catalog import VersionRule
from functions.core.decision import Action, Decision, Mode
from functions.core.event import Event
from functions.core.integration import INTAKE, Integration
from functions.core.ledger import ActionMark, ActionStatus, LedgerItem, LedgerStatus
from functions.core.recovery import Row, Status, Subject, action_recovery_id, event_recovery_id
from functions.core.replay import Plan
from functions.core.replay_job import OVER, Job, State
from functions.core.schema import Known
from functions.operator_api.calls import replays
from functions.operator_api.ports import Ports as ApiPorts
from functions.replay.handler import build as build_replay
from functions.replay.ports import Ports as ReplayPorts
from functions.replay.settings import ReplaySettings
from functions.sweeper.jobs import JobDuty
from tests.control_fakes import FakeBacklog, FakeReplayJobs, FakeReplayPlans, FakeReplayStarter
from tests.fakes import (
    FakeAudit,
    FakeHealthCounts,
    FakeHealthRecords,
    FakeLedger,
    FakeRecipients,
    FakeRecovery,
)
from tests.operator_calls import OPERATOR, Answering, call
from tests.worker_world import ACTIONS, DESK, FLOW, SAID, SOURCE, TENANT, Died, World

REPLAY = ReplaySettings(
    stage="test",
    ledger_table="ledger",
    recovery_table="recovery",
    audit_table="audit",
    control_table="control",
    recipients_table="recipients",
    bucket="bucket",
    events_queue_url="q/events",
    replays_queue_url="q/replays",
    switches_path="/s",
    time_scale=1.0,
)
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


class Context:
    """What Lambda hands in."""

    def __init__(self, remaining_ms: int) -> None:
        self.remaining_ms = remaining_ms

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining_ms


class ReplayWorld(World):
    """One stack in memory with bulk replays. `kill` is asked at each operation of replay λ, and may raise `Died`."""

    def __init__(self, names: tuple[str, ...] = ("push",), switches: Mapping[str, str] | None = None) -> None:
        super().__init__(names, switches)
        self.jobs = FakeReplayJobs(self.tables)
        self.plans = FakeReplayPlans(self.faults)
        self.starter = FakeReplayStarter()
        self.backlog = FakeBacklog(self.faults)
        self.versions: tuple[VersionRule, ...] = ()
        self.invocation_ms = 900_000
        self.kill: Callable[[str, str], None] | None = None
        self.meanwhile: Callable[[], None] | None = None  # what else happens while λ waits
        self.lambda_deaths = 0
        self.is_in_lambda = False
        self.operations = 0  # of replay λ
        self.swept_at_ms = 0
        self.api = Answering([replays.routes(self.api_ports())], clock=self.clock, ids=self._ids)
        self.job_duty = JobDuty(self.jobs, self.starter, self.clock, self.quiet, self.quiet)  # type: ignore[arg-type]  # it is asked for some of their methods
        self.faults.on_before = lambda op: self._operation(op, "before")
        self.faults.on_after = lambda op: self._operation(op, "after")

    def _operation(self, op: str, when: str) -> None:
        if not self.is_in_lambda:
            return
        self.operations += when == "before"
        if self.kill is not None:
            self.kill(op, when)

    # ------------------------------------------------------------------------------------------------------------ ports

    def api_ports(self) -> ApiPorts:
        """What the operator API is given."""
        absent: dict[str, Any] = {port.name: cast("Any", None) for port in fields(ApiPorts)}
        return replace(
            ApiPorts(**absent),
            clock=self.clock,
            ids=self._ids,
            recovery=FakeRecovery(self.tables),
            audit=FakeAudit(self.tables),
            health=FakeHealthRecords(self.tables),
            health_counts=FakeHealthCounts(self.tables),
            switches=self.switches,
            replays=self.replays,
            jobs=self.jobs,
            plans=self.plans,
            starter=self.starter,
        )

    def replay_ports(self) -> ReplayPorts:
        """What replay λ is given."""
        return ReplayPorts(
            ledger=FakeLedger(self.tables),
            recovery=FakeRecovery(self.tables),
            jobs=self.jobs,
            plans=self.plans,
            recipients=FakeRecipients(self.tables),
            switches=self.switches,
            replays=self.replays,
            backlog=self.backlog,
            integrations=self.integrations,
            clock=self.clock,
            ids=self._ids,
            wait=self._pass,
            log=self.quiet,  # type: ignore[arg-type]  # it is asked for some of a logger's methods
            metrics=self.quiet,  # type: ignore[arg-type]  # likewise
            known=self.known(),
        )

    def known(self) -> Known:
        """What can be carried out today."""
        messages = {("hello", 1)}
        return Known({FLOW: self.versions}, self.integrations, messages, self.fallbacks)

    def _pass(self, seconds: float) -> None:
        """Time passes, and the others do their work."""
        was_in_lambda, self.is_in_lambda = self.is_in_lambda, False
        try:
            self.go_on(int(seconds * 1000))
        finally:
            self.is_in_lambda = was_in_lambda

    def go_on(self, milliseconds: int) -> None:
        """Let the others work for so long."""
        self.clock.advance(milliseconds)
        while self.deliver():
            pass
        if self.clock.now - self.swept_at_ms >= MINUTE_MS:
            self.swept_at_ms = self.clock.now
            self.sweep()
            while self.deliver():
                pass
        if self.meanwhile is not None:
            self.meanwhile()

    # ------------------------------------------------------------------------------------------------------------- asks

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """One call of an operator; gives the whole answer."""
        more.setdefault("claims", OPERATOR)
        return self.api(call(method, path, body=None if body is None else json.dumps(body), **more))

    def plan(self, wanted: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
        """Ask for a plan and let λ make it; gives what the API says of it then."""
        answer = self.ask("POST", "/platform/replays", {"filter": wanted, "reason": "the desk is back", **fields})
        assert answer["statusCode"] == 202, answer
        replay_id = answer["document"]["replay_id"]
        self.work()
        return self.show(replay_id)

    def show(self, replay_id: str, **query: str) -> dict[str, Any]:
        """The job as the API tells it."""
        answer = self.ask("GET", f"/platform/replays/{replay_id}", query=query)
        assert answer["statusCode"] == 200, answer
        told: dict[str, Any] = answer["document"]
        return told

    def approve(self, planned: Mapping[str, Any]) -> dict[str, Any]:
        """Approve the plan that was shown; gives the whole answer."""
        path = f"/platform/replays/{planned['replay_id']}/approve"
        return self.ask("POST", path, {"plan_hash": planned["plan"]["hash"]})

    def approved(self, planned: Mapping[str, Any]) -> str:
        """Approve it, which must succeed; gives its id."""
        answer = self.approve(planned)
        assert answer["statusCode"] == 202, answer
        return str(planned["replay_id"])

    def made(self, replay_id: str) -> Plan:
        """The stored plan."""
        job = self.job(replay_id)
        return self.plans.get(job.plan_reference, job.plan_hash)

    def job(self, replay_id: str) -> Job:
        """The stored job."""
        return self.jobs.jobs[replay_id]

    # ------------------------------------------------------------------------------------------------------------- runs

    def invoke(self, replay_id: str) -> str:
        """One invocation of λ, in a process of its own; gives its outcome, or `died`."""
        handle = build_replay(REPLAY, self.replay_ports())
        self.is_in_lambda = True
        try:
            return handle({"job_id": replay_id}, Context(self.invocation_ms))["outcome"]
        except Died:
            self.lambda_deaths += 1
            return "died"
        finally:
            self.is_in_lambda = False

    def work(self) -> None:
        """Whatever was started is invoked."""
        while self.starter.started:
            self.invoke(self.starter.started.pop(0))

    def run_until_planned(self, replay_id: str) -> Job:
        """Until the plan is there, whatever λ dies of."""
        for _ in range(60):
            self.work()
            if self.job(replay_id).state is not State.PLANNING:
                return self.job(replay_id)
            self.go_on(MINUTE_MS)
        raise AssertionError(f"not planned: {self.job(replay_id)}")

    def run(self, replay_id: str, hours: float = 48) -> Job:
        """Until the job is over or waits for a person. Fails if that takes longer."""
        end_ms = self.clock.now + int(hours * HOUR_MS)
        while self.clock.now < end_ms:
            self.work()
            if self.job(replay_id).state in (*OVER, State.PAUSED):
                return self.job(replay_id)
            self.go_on(MINUTE_MS)
        raise AssertionError(f"not over after {hours} h: {self.job(replay_id)}")

    # ------------------------------------------------------------------------------------------------------------ rows

    def its_event(self, identity: str) -> Event:
        """An event that was received an hour ago."""
        return self.event(identity, received_at_ms=self.clock.now - HOUR_MS)

    def dead_action(self, name: str, identity: str, **fields: Any) -> Row:
        """An action that used up its attempts: its event is settled, its row is dead. It is in the tables then."""
        event = self.its_event(identity)
        action = replace(ACTIONS[name], target=f"t-{identity}", requires=()).bound(TENANT, event.event_id, 0)
        sound = Row(
            recovery_id=action_recovery_id(action.action_id),
            subject=Subject.ACTION,
            integration_id=DESK,
            status=Status.DLQ,
            tenant=TENANT,
            source=SOURCE,
            flow=FLOW,
            event_id=event.event_id,
            epoch_ms=0,
            event_name=event.event_name,
            event_version=event.event_version,
            received_at_ms=event.received_at_ms,
            origin_request_id=event.request_id,
            request_id=event.request_id,
            traceparent=event.traceparent,
            envelope_ref="envelopes/acme/1",
            created_at_ms=event.received_at_ms,
            updated_at_ms=event.received_at_ms + 50 * MINUTE_MS,
            action=action,
            decided_at_ms=event.received_at_ms,
            attempt_count=5,
            first_attempt_at_ms=event.received_at_ms,
            expires_at_ms=event.received_at_ms + 168 * HOUR_MS,
            failure_class="transient",
            failure_code="HTTP_503",
            failure_detail="the desk answered 503",
            root_cause="transient_infra",
        )
        row = replace(sound, **fields)
        self.settle(event, action, ActionStatus.RECOVERY)
        self.tables.rows[row.recovery_id] = row
        return row

    def unclear_action(self, name: str, identity: str, *, is_there: bool, **fields: Any) -> Row:
        """A dead action whose last answer was lost: it may have happened, and `is_there` says whether it has."""
        sent_ms = self.clock.now - 20 * MINUTE_MS
        said = {"effect": Effect.UNKNOWN, "first_sent_at_ms": sent_ms, "last_possible_send_ms": sent_ms, **fields}
        row = self.dead_action(name, identity, **said)
        if is_there:
            assert row.action is not None
            self.provider.effects[row.action.action_id] = 1
        return row

    def dead_event(self, identity: str, **fields: Any) -> Row:
        """A whole event that died before its flow saw it."""
        event = self.its_event(identity)
        row = self.dead_action("push", identity)
        del self.tables.rows[row.recovery_id]
        del self.tables.ledger[f"E#{TENANT}#{event.event_id}"]
        sound: dict[str, Any] = {
            "recovery_id": event_recovery_id(TENANT, event.event_id, 0),
            "subject": Subject.EVENT,
            "integration_id": INTAKE,
            "action": None,
            "failure_code": "POISON",
            "envelope_ref": self.envelopes.put(event),
            "expires_at_ms": event.received_at_ms + 120 * 24 * HOUR_MS,
        }
        row = replace(row, **{**sound, **fields})
        self.tables.rows[row.recovery_id] = row
        return row

    def settle(self, event: Event, action: Action, status: ActionStatus) -> None:
        """The event's ledger item, settled, with that one action in it."""
        key = f"E#{TENANT}#{event.event_id}"
        decision = Decision(FLOW, Mode.LIVE, SAID, (action,), event.received_at_ms)
        self.tables.ledger[key] = LedgerItem(
            key,
            LedgerStatus.SETTLED,
            "somebody",
            1,
            0,
            event.received_at_ms,
            0,
            event.payload_hash,
            decision,
            {action.name: ActionMark(status)},
        )

    def now(self, row: Row) -> Row:
        """The row as it is by now."""
        return self.tables.rows[row.recovery_id]

    def effects_of(self, row: Row) -> int:
        """How often what the row is about has happened."""
        assert row.action is not None
        return self.provider.effects.get(row.action.action_id, 0)

    def limit(self, integration: Integration) -> None:
        """Replace the desk."""
        self.integrations = {DESK: integration}
