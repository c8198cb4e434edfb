"""A small world around the real worker and sweeper: queues that redeliver, a provider that remembers, deaths.

Time stands still but for `run_until_quiet`, which jumps to the next moment at which anything can happen. `Died` ends a
"process" wherever it is raised: nothing of it goes on, its messages come back after their visibility timeout, its
leases run out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

from functions.core.attempt import Effect
from functions.core.decision import Action, Classification, DecidedBy, Decision, MessageRef, Mode, Repeat
from functions.core.event import ClaimCheck, Event
from functions.core.failure import ClassifierUnavailable, Done, Failure, StorageUnavailable, failure_of_status
from functions.core.fallback import Matrix
from functions.core.health import Thresholds
from functions.core.integration import INTAKE, Integration, KindRules
from functions.core.ledger import ActionStatus, LedgerStatus
from functions.core.ports import Absent, Call, SettingState
from functions.core.recovery import OUTCOME_UNKNOWN, Row, Status, Subject
from functions.core.switches import LLM
from functions.evaluator.health import HealthDuty
from functions.flows.flow import Finding, Prepared, Verdict
from functions.sweeper.handler import build as build_sweeper
from functions.sweeper.jobs import JobDuty
from functions.sweeper.settings import SweeperSettings
from functions.worker.handler import build as build_worker
from functions.worker.ports import Offload, Ports
from functions.worker.settings import WorkerSettings
from tests.fakes import (
    FakeAudit,
    FakeCaps,
    FakeClock,
    FakeEnvelopes,
    FakeEvents,
    FakeHealthCounts,
    FakeHealthRecords,
    FakeHints,
    FakeIds,
    FakeLedger,
    FakeRandom,
    FakeRecipients,
    FakeRecovery,
    FakeSpill,
    FakeSwitches,
    FakeTables,
    FakeVisibility,
    Faults,
)

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Item = TypeVar("_Item")

TIMEOUT_SECONDS = 60
VISIBILITY_MS = 360_000
TENANT, SOURCE, FLOW, DESK = "acme", "desk", "all_kinds", "desk"


class Died(BaseException):
    """The process is gone: not an error that anything could catch and tidy up after."""


KINDS: Mapping[str, KindRules] = {
    "desk.add_tags": KindRules("desk.add_tags", Repeat.IDEMPOTENT),
    "desk.assign": KindRules("desk.assign", Repeat.SETTING),
    "desk.create": KindRules("desk.create", Repeat.KEYED, key_window_seconds=86_400),
    "desk.reply": KindRules(
        "desk.reply", Repeat.LOOKUP, settle_seconds=180, can_look_up=True, counted_by="desk.count_replies"
    ),
    "desk.count_replies": KindRules("desk.count_replies", Repeat.IDEMPOTENT),
    "desk.push": KindRules("desk.push", Repeat.BLIND),
}
ACTIONS: Mapping[str, Action] = {
    "tag": Action("tag", "desk.add_tags", DESK, Repeat.IDEMPOTENT, "t1", {"tags": ["seen"]}),
    "assign": Action("assign", "desk.assign", DESK, Repeat.SETTING, "t1", {"team": "billing"}),
    "create": Action("create", "desk.create", DESK, Repeat.KEYED, "t1", {"what": "note"}),
    "reply": Action(
        "reply",
        "desk.reply",
        DESK,
        Repeat.LOOKUP,
        "t1",
        message=MessageRef("hello", 1),
        requires=("tag",),
        customer_visible=True,
        recipient="r1",
    ),
    "push": Action("push", "desk.push", DESK, Repeat.BLIND, "t1", {"what": "bell"}),
    "after_push": Action(
        "after_push", "desk.add_tags", DESK, Repeat.IDEMPOTENT, "t1", {"tags": ["pushed"]}, requires=("push",)
    ),
    "instead": Action(
        "instead", "desk.add_tags", DESK, Repeat.IDEMPOTENT, "t1", {"tags": ["needs_manual_triage"]}, instead_of="reply"
    ),
}


class Provider:
    """Keeps what it is told as the kinds promise, and can be told to answer otherwise.

    `effects` counts what a person would notice, by action id; `settings` is what targets are set to; `calls` are the
    moments of all calls, reads and lookups included.
    """

    def __init__(self, faults: Faults, clock: FakeClock) -> None:
        self.faults = faults
        self.clock = clock
        self.effects: dict[str, int] = {}
        self.settings: dict[str, tuple[str, int]] = {}
        self.sent: list[tuple[int, str]] = []
        self.calls: list[int] = []
        self.answers: list[Callable[[Action], Failure | None]] = []
        self.credential = "1"
        self.refused_credential = ""  # by reads and lookups
        self.acts_on_failure = True  # whether an answer that leaves it open comes after the effect

    async def send(self, action: Action, call: Call) -> Done | Failure:
        self.calls.append(self.clock.now)
        self.faults.before(f"provider.send.{action.name}")
        if action.kind == "desk.count_replies":
            return Done("", max(1, self.effects.get(action.counted_id, 0)))
        failure = next((found for found in (answer(action) for answer in self.answers) if found is not None), None)
        if failure is None or (failure.may_have_happened and self.acts_on_failure):
            self._act(action)
        self.faults.after(f"provider.send.{action.name}")
        return Done(f"id-{action.name}") if failure is None else failure

    def _act(self, action: Action) -> None:
        self.sent.append((self.clock.now, action.name))
        known = self.effects.get(action.action_id, 0)
        if action.repeat is Repeat.SETTING:
            if self.settings.get(action.target, ("", 0))[0] != self.wanted(action):
                self.effects[action.action_id] = known + 1
            self.settings[action.target] = (self.wanted(action), self.clock.now)
        elif action.repeat in (Repeat.IDEMPOTENT, Repeat.KEYED):
            self.effects[action.action_id] = 1
        else:
            self.effects[action.action_id] = known + 1

    async def look_up(self, action: Action, call: Call) -> Done | Absent | Failure:
        self.calls.append(self.clock.now)
        self.faults.before(f"provider.look_up.{action.name}")
        self.faults.after(f"provider.look_up.{action.name}")
        if self.credential == self.refused_credential:
            return failure_of_status(401)
        times = self.effects.get(action.action_id, 0)
        return Done(f"id-{action.name}", times) if times else Absent()

    async def read_setting(self, action: Action, call: Call) -> SettingState | Failure:
        self.calls.append(self.clock.now)
        self.faults.before(f"provider.read_setting.{action.name}")
        self.faults.after(f"provider.read_setting.{action.name}")
        value, changed_at_ms = self.settings.get(action.target, ("", 0))
        return SettingState(value, changed_at_ms or None, changed_by_us=None)

    def wanted(self, action: Action) -> str:
        return str(action.params["team"])

    def refresh_credential(self) -> str:
        return self.credential


SAID = Classification("all", 1.0, DecidedBy.RULES, "1")


def refuses(name: str, failure: Failure, times: int = 1_000_000) -> Callable[[Action], Failure | None]:
    """That answer of the provider to an action's sends, so many times."""
    left = [times]

    def answer(action: Action) -> Failure | None:
        if action.name != name or not left[0]:
            return None
        left[0] -= 1
        return failure

    return answer


class EveryKind:
    """A flow whose decision has one action of each kind asked for. `read` collects the bodies it is given."""

    name = FLOW

    def __init__(self, names: tuple[str, ...], read: list[bytes] | None = None, *, needs_llm: bool = False) -> None:
        self.names = names
        self.read = [] if read is None else read
        self.needs_llm = needs_llm

    def prepare(self, event: Event) -> Prepared:
        self.read.append(event.body)
        return Prepared("t1", "", {}, needs_llm=self.needs_llm, finding=Finding(SAID))

    def decide(
        self,
        event: Event,
        prepared: Prepared,
        verdict: Verdict,
        mode: Mode,
        now_ms: int,
    ) -> Decision:
        return Decision(FLOW, mode, SAID, tuple(ACTIONS[name] for name in self.names), now_ms)


class NoClassifier:
    """An LLM that is down. `asked` counts the calls."""

    def __init__(self) -> None:
        self.asked = 0

    async def classify(self, text: str, labels: Mapping[str, str], deadline_ms: int) -> Classification:
        self.asked += 1
        raise ClassifierUnavailable("NONE")


class Quiet:
    """A log and a meter that keep what they are told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.counts: dict[str, float] = {}
        self.times: dict[str, list[float]] = {}
        self.named: Counter[tuple[str, str]] = Counter()  # by event name and outcome
        self.counts_at: dict[tuple[str, int, str], int] = {}  # by name, moment and outcome
        self.written: dict[str, float] = {}  # the counts that were written down before an invocation came to its end

    def info(self, msg: str, *, extra: Mapping[str, Any] | None = None) -> None:
        self.lines.append(msg)

    warning = info
    error = info
    exception = info

    def count(self, name: str, value: float = 1, **dimensions: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + value
        if "event_name" in dimensions:
            self.named[dimensions["event_name"], dimensions["outcome"]] += int(value)

    def count_at(self, name: str, at_ms: int, **dimensions: str) -> None:
        key = (name, at_ms, dimensions.get("outcome", ""))
        self.counts_at[key] = self.counts_at.get(key, 0) + 1

    def milliseconds(self, name: str, value: float, **dimensions: str) -> None:
        self.times.setdefault(name, []).append(value)

    def flush(self) -> None:
        self.written = dict(self.counts)


def one_by_one(work: Callable[[_Item], _R], items: Sequence[_Item], /) -> list[_R]:
    """In order, so that a death is at the same step each time, and ends the others too."""
    return [work(each) for each in items]


async def directly(call: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """Storage in memory holds nothing up."""
    return call(*args, **kwargs)


@dataclass
class Message:
    """One message of a queue."""

    id: str
    body: str
    queue: str
    visible_at_ms: int
    receive_count: int = 0


class World:
    """One stack in memory. `names` are the actions that every event calls for."""

    def __init__(self, names: tuple[str, ...] = tuple(ACTIONS), switches: Mapping[str, str] | None = None) -> None:
        self.names = names
        self.clock = FakeClock()
        self.tables = FakeTables()
        self.faults = self.tables.faults
        self.provider = Provider(self.faults, self.clock)
        self.envelopes = FakeEnvelopes(self.faults)
        self.spill = FakeSpill(self.faults)
        self.switches = FakeSwitches(self.clock, switches)
        self.retries = FakeHints(self.faults, "retries")
        self.replays = FakeHints(self.faults, "replays")
        self.visibility = FakeVisibility(self.faults)
        self.classifier = NoClassifier()
        self.needs_llm = False
        self.io: Offload = directly
        self.read: list[bytes] = []  # bodies, in the order in which the flow read them
        self.quiet = Quiet()
        self.integrations = {DESK: Integration(DESK, KINDS, deadline_seconds=5.0)}
        self.fallbacks = Matrix()
        self.with_ports: Callable[[Ports], Ports] = lambda ports: ports  # what a test gives the worker beside
        self.job_duty: JobDuty | None = None
        self.automatic_per_hour: Mapping[str, int] = {}
        self.is_large = False  # whether what is accepted is too large for a queue
        self.messages: list[Message] = []
        self.dead: list[Message] = []
        self.deaths = 0
        self.failed_sweeps = 0
        self._ids = FakeIds()

    # ------------------------------------------------------------------------------------------------------ processes

    def worker(self) -> Callable[[dict[str, Any], Any], dict[str, Any]]:
        """A fresh worker process: it remembers nothing of an earlier one but what is stored."""
        ports = self.ports()
        settings = WorkerSettings(
            stage="test",
            ledger_table="l",
            recovery_table="r",
            audit_table="a",
            control_table="c",
            recipients_table="p",
            bucket="b",
            events_queue_url="q/events",
            retries_queue_url="q/retries",
            replays_queue_url="q/replays",
            switches_path="/s",
            integrations_path="/i",
            timeout_seconds=TIMEOUT_SECONDS,
            time_scale=1.0,
        )
        return build_worker(
            settings,
            self.with_ports(replace(ports, fallbacks=self.fallbacks, automatic_per_hour=self.automatic_per_hour)),
        )

    def ports(self) -> Ports:
        """What a worker is given."""
        return Ports(
            ledger=FakeLedger(self.tables),
            recovery=FakeRecovery(self.tables),
            counts=FakeHealthCounts(self.tables),
            health=FakeHealthRecords(self.tables),
            recipients=FakeRecipients(self.tables),
            caps=FakeCaps(self.tables),
            audit=FakeAudit(self.tables),
            switches=self.switches,
            envelopes=self.envelopes,
            providers={DESK: self.provider},
            classifier=self.classifier,
            visibility=self.visibility,
            clock=self.clock,
            ids=self._ids,
            rng=FakeRandom(),
            io=self.io,
            log=self.quiet,
            meter=self.quiet,
            integrations=self.integrations,
            flows={FLOW: EveryKind(self.names, self.read, needs_llm=self.needs_llm)},
        )

    def sweeper(
        self, integrations: Sequence[str] = (DESK,), recovery: FakeRecovery | None = None
    ) -> Callable[[dict[str, Any], object], dict[str, int]]:
        """A fresh sweeper process."""
        settings = SweeperSettings("test", "r", "a", "c", "b", "q/events", "q/retries", "q/replays", "/s", 50, 1.0)
        return build_sweeper(
            settings,
            integrations=list(dict.fromkeys([*integrations, *self.integrations])),
            rates={name: one.rate for name, one in self.integrations.items() if one.rate is not None},
            ledger=FakeLedger(self.tables),
            recovery=FakeRecovery(self.tables) if recovery is None else recovery,
            switches=self.switches,
            spill=self.spill,
            envelopes=self.envelopes,
            events=FakeEvents(self.faults, lambda body: self._put("events", body, 0)),
            retries=self.retries,
            replays=self.replays,
            clock=self.clock,
            ids=self._ids,
            at_once=one_by_one,
            fallbacks=self.fallbacks,
            jobs=self.job_duty,
            log=self.quiet,  # type: ignore[arg-type]  # it is asked for three of a logger's methods
            metrics=self.quiet,  # type: ignore[arg-type]  # likewise
        )

    def judge(self) -> int:
        """One tick of a fresh evaluator's health duty; how many states changed."""
        duty = HealthDuty(
            FakeHealthRecords(self.tables),
            FakeHealthCounts(self.tables),
            {DESK: Thresholds(), LLM: Thresholds()},
            1.0,
            self.clock,
            self.quiet,  # type: ignore[arg-type]  # it is asked for some of a logger's methods
            self.quiet,  # type: ignore[arg-type]  # likewise
        )
        return duty.run(self.clock.now + 50_000)

    # --------------------------------------------------------------------------------------------------------- queues

    def event(self, identity: str = "1", **fields: Any) -> Event:
        """An event of this world's source, received now."""
        event = Event(
            tenant=TENANT,
            source=SOURCE,
            provider="generic",
            flow=FLOW,
            identity=identity,
            event_name="message.created",
            event_version="1",
            received_at_ms=self.clock.now,
            request_id="0" * 31 + "1",
            traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
            payload_hash="h",
            content_type="application/json",
            body=b"{}",
        )
        return replace(event, **fields)

    def accept(self, event: Event, copies: int = 1) -> None:
        """Ingress stored it: so many copies are in the events queue."""
        message = self.check_in(event) if self.is_large else event.to_message()
        for _ in range(copies):
            self._put("events", message, 0)

    def check_in(self, event: Event) -> str:
        """Ingress stored its envelope in the bucket: the message that travels in its place."""
        envelope = event.to_message()
        check = ClaimCheck.of(event, envelope)
        self.envelopes.objects[check.reference] = envelope.encode("ascii")
        return check.to_message()

    def _put(self, queue: str, body: str, delay_seconds: int) -> None:
        message = Message(
            f"m{len(self.messages) + len(self.dead)}-{self._ids.new_id()[-6:]}", body, queue, self.clock.now
        )
        message.visible_at_ms += delay_seconds * 1000
        self.messages.append(message)

    def deliver(self, most: int = 10) -> int:
        """Hand every visible message to a fresh worker, queue by queue; how many there were."""
        self._collect_hints()
        delivered = 0
        for queue in ("events", "retries", "replays"):
            batch = [m for m in self.messages if m.queue == queue and m.visible_at_ms <= self.clock.now][:most]
            if batch:
                self._deliver(queue, batch)
                delivered += len(batch)
        self._collect_hints()
        return delivered

    def _deliver(self, queue: str, batch: list[Message]) -> None:
        for message in batch:
            message.receive_count += 1
            message.visible_at_ms = self.clock.now + VISIBILITY_MS
        records = [
            {
                "messageId": m.id,
                "receiptHandle": m.id,
                "eventSourceARN": f"arn:aws:sqs:us-east-1:000000000000:{queue}",
                "attributes": {"ApproximateReceiveCount": str(m.receive_count)},
                "body": m.body,
            }
            for m in batch
        ]
        self.visibility.delays.clear()
        try:
            answer = self.worker()({"Records": records}, None)
        except Died:
            self.deaths += 1
            self._apply_delays(batch)
            return
        failed = {item["itemIdentifier"] for item in answer["batchItemFailures"]}
        self._apply_delays(batch)
        for message in batch:
            if message.id not in failed:
                self.messages.remove(message)
            elif message.receive_count >= 10:
                self.messages.remove(message)
                self.dead.append(message)

    def _apply_delays(self, batch: list[Message]) -> None:
        by_id = {message.id: message for message in batch}
        for _, receipt, seconds in self.visibility.delays:
            by_id[receipt].visible_at_ms = self.clock.now + seconds * 1000

    def _collect_hints(self) -> None:
        for queue, hints in (("retries", self.retries), ("replays", self.replays)):
            for sent in hints.sent:
                self._put(queue, sent.hint.to_message(), sent.delay_seconds)
            hints.sent.clear()

    def sweep(self) -> None:
        """One tick. A sweeper that dies or fails is replaced at the next."""
        try:
            self.sweeper()({}, None)
        except Died:
            self.deaths += 1
        except (StorageUnavailable, ExceptionGroup):
            self.failed_sweeps += 1
        self._collect_hints()

    # ------------------------------------------------------------------------------------------------------------ time

    def run_until_quiet(self, hours: float = 26) -> None:
        """Deliver and sweep, minute by minute, until nothing is left to happen. Fails if that takes longer."""
        end_ms = self.clock.now + int(hours * 3_600_000)
        while self.clock.now < end_ms:
            while self.deliver():
                pass
            self.sweep()
            while self.deliver():
                pass
            if (
                not self.messages
                and not self.spill.objects
                and not any(self._moves(row) for row in self.tables.rows.values())
            ):
                return
            self.clock.now = self._next_moment()
        raise AssertionError(f"not quiet after {hours} h: {len(self.messages)} messages, rows {self.open_rows()}")

    def _moves(self, row: Row) -> bool:
        """Whether the machine still has something to do with it: a child of what waits for a person waits with it."""
        parents = [self.tables.rows[parent] for parent in row.waits_for]
        return row.is_open and not any(not parent.is_open for parent in parents)

    def _next_moment(self) -> int:
        """The next moment at which anything can be due. A tick comes every minute, and most find nothing: what is due
        and has to wait all the same, for a pause to end or for others, is looked at every ten seconds.
        """
        now_ms = self.clock.now
        moments = [message.visible_at_ms for message in self.messages]
        moments += [now_ms + 60_000] * bool(self.spill.objects)
        due = [row.due_at_ms - 60_000 for row in self.tables.rows.values() if self._moves(row)]
        moments += [max(at_ms, now_ms + 10_000) for at_ms in due]
        return max(now_ms + 1_000, min(moments, default=now_ms + 60_000))

    # ---------------------------------------------------------------------------------------------------------- truth

    def open_rows(self) -> list[tuple[str, str, str, int]]:
        """What still waits, for a failing test's message."""
        return [
            (
                row.action.name if row.action else "event",
                row.status.value,
                row.waiting_for.value,
                row.due_at_ms - self.clock.now,
            )
            for row in self.tables.rows.values()
            if row.is_open
        ]

    def row_of(self, action: Action) -> Row | None:
        """The row of an action, if it has one."""
        return next(
            (row for row in self.tables.rows.values() if row.action and row.action.action_id == action.action_id), None
        )

    def decision_of(self, event: Event) -> Decision:
        """The stored decision with its ids."""
        item = self.tables.ledger[f"E#{event.tenant}#{event.event_id}"]
        return item.decision.bound(event.tenant, event.event_id, item.epoch_ms)

    def check_settled(self, event: Event) -> None:
        """The invariants of a finished event: settled, every action done or a row, one effect or at most one."""
        item = self.tables.ledger[f"E#{event.tenant}#{event.event_id}"]
        assert item.status is LedgerStatus.SETTLED, f"{event.event_id} is {item.status}"
        for action in self.decision_of(event).actions:
            status, row = item.actions[action.name].status, self.row_of(action)
            effects = self.provider.effects.get(action.action_id, 0)
            state = row and (row.status, row.failure_code, row.effect)
            about = f"{action.name}: ledger {status}, row {state}, {effects} effects"
            assert status not in (ActionStatus.TODO, ActionStatus.TRYING), about
            if status is ActionStatus.NOT_NEEDED:
                assert row is None, about
                assert effects == 0, about
                continue
            assert effects <= 1, about
            is_for_people = row is not None and (row.status in (Status.FAILED, Status.DLQ) or bool(row.waits_for))
            if status in (ActionStatus.RECOVERY, ActionStatus.SUPPRESSED):
                assert row is not None, about
            if not is_for_people:
                assert effects == 1, about
            elif row is not None and row.failure_code == OUTCOME_UNKNOWN:
                assert row.effect is Effect.UNKNOWN, about
        for row in self.tables.rows.values():
            assert not self._moves(row), f"stuck: {row}"
            assert row.subject is Subject.ACTION or row.integration_id == INTAKE


def crashes_at(position: int, *, after: bool) -> tuple[Callable[[str], None], Callable[[str], None], list[int]]:
    """Hooks that let the process die once, at the operation of that number, before or after it did its work."""
    count = [0]

    def on_before(op: str) -> None:
        count[0] += 1
        if not after and count[0] == position:
            raise Died(op)

    def on_after(op: str) -> None:
        if after and count[0] == position:
            count[0] += 1_000_000
            raise Died(op)

    return on_before, on_after, count


def run(work: Awaitable[_R]) -> _R:
    """Drive one coroutine to its end."""

    async def driven() -> _R:
        return await work

    return asyncio.run(driven())
