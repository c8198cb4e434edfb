"""One stack in memory in which processes run side by side and die: the real handlers over doubles of what is outside.

Time is the virtual loop's. A process may have a clock that is some seconds off. Every call of a port is a boundary: it
is numbered, the schedule may let something go wrong there, and between two of them other processes get their turn.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ParamSpec, TypeVar

from functions.core.cap import DEFAULT_PER_HOUR
from functions.core.decision import Action, Classification, DecidedBy, Decision, MessageRef, Mode, Repeat
from functions.core.event import Event
from functions.core.failure import ClassifierUnavailable, Fenced, StorageUnavailable, VersionConflict
from functions.core.fallback import Matrix
from functions.core.gate import Health, IntegrationState
from functions.core.health import PROBE_GAP_MS, Thresholds
from functions.core.integration import Integration, KindRules, Rate
from functions.core.ports import Call
from functions.core.recipient import Person
from functions.core.recovery import Row, Status, Subject, end
from functions.core.replay import Filter
from functions.core.replay_job import IntegrationTaken, Job, State, approved, asked
from functions.core.schema import Known
from functions.evaluator.health import HealthDuty
from functions.flows.flow import Finding, Prepared, Verdict
from functions.job_board import move
from functions.replay.handler import build as build_replay
from functions.replay.ports import Ports as ReplayPorts
from functions.sweeper.handler import build as build_sweeper
from functions.sweeper.jobs import JobDuty
from functions.sweeper.settings import SweeperSettings
from functions.triage.handler import build as build_triage
from functions.worker.handler import build as build_worker
from functions.worker.ports import Ports
from functions.worker.settings import WorkerSettings
from tests.control_fakes import FakeBacklog, FakeReplayJobs, FakeReplayPlans, FakeReplayStarter
from tests.crash.aside import Aside
from tests.crash.loop import Runner, VirtualLoop
from tests.crash.providers import Side, SimProvider
from tests.crash.schedule import INDEXES, READS, Schedule
from tests.fakes import (
    LIVE_SWITCHES,
    NOON_MS,
    FakeAudit,
    FakeCaps,
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
)
from tests.fallback_matrix import INTEGRATIONS, MATRIX
from tests.replay_world import REPLAY, Context
from tests.worker_world import DESK, FLOW, KINDS, SOURCE, TENANT, TIMEOUT_SECONDS, VISIBILITY_MS, Died, one_by_one

_P = ParamSpec("_P")
_R = TypeVar("_R")

MAX_RECEIVES = 10
SKEW_MS = 20_000  # how far a process's clock may be off, either way; with the lag and lateness less than settling
INDEX_LAG_MS = 80_000
KEY_WINDOW_MS = 600_000  # short, so that attempts outlast it
STALL_SECONDS = 400.0  # longer than a lease, and than a message stays hidden
WELL_AFTER_SECONDS = 1_000.0
MOST_BOUNDARIES = 5_000  # of a run that goes round in circles
HOURS = 40.0  # until everything must be quiet
RECIPIENT = "r1"
WILLING = Person(consent={"email": True, "sms": True}, contacts={"email": "someone@example.com", "sms": "+15550100"})

WORKER = WorkerSettings(
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
SWEEPER = SweeperSettings("test", "r", "a", "c", "b", "q/events", "q/retries", "q/replays", "/s", 50, 1.0)
SAID = Classification("all", 1.0, DecidedBy.LLM, "1")
_CHANNELS = {name: INTEGRATIONS[name] for name in ("email", "sms")}
_KINDS = {
    **KINDS,
    "desk.create": KindRules("desk.create", Repeat.KEYED, key_window_seconds=KEY_WINDOW_MS // 1000),
}
_DESK = Integration(DESK, _KINDS, deadline_seconds=5.0)
_MATRIX = replace(MATRIX, integrations={DESK: _DESK, **_CHANNELS})


@dataclass(frozen=True, slots=True)
class Scenario:
    """What events call for, in this order, and whether an LLM is asked.

    `health` is how integrations are at the beginning, `refusing` those that nobody can connect to. `rate` is the
    helpdesk's, `most_automatic` how many automatic messages a conversation may get within an hour.
    """

    name: str
    actions: tuple[str, ...]
    asks_llm: bool = False
    event_name: str = "message.created"
    health: tuple[tuple[str, Health], ...] = ()
    refusing: tuple[str, ...] = ()
    rate: Rate | None = None
    most_automatic: int = DEFAULT_PER_HOUR


SCENARIOS: Mapping[str, Scenario] = {
    one.name: one
    for one in (
        Scenario("idempotent", ("tag",)),
        Scenario("setting", ("assign",)),
        Scenario("keyed", ("create",)),
        Scenario("lookup", ("note",)),
        Scenario("blind", ("push",)),
        Scenario("parent and child", ("create", "after_create")),
        Scenario("reply", ("tag", "reply", "instead")),
        Scenario("everything", ("tag", "assign", "create", "reply", "instead", "push", "after_push")),
        Scenario("llm", ("create", "reply", "instead"), asks_llm=True),
        Scenario("mail", ("mail",)),
        Scenario("mail, refused", ("mail", "by_hand"), refusing=("email",)),
        Scenario("mail, degraded", ("mail",), health=(("email", Health.DEGRADED),)),
        Scenario(
            "mail, down, must arrive",
            ("mail", "by_hand"),
            event_name="packet.ready",
            health=(("email", Health.HARD_DOWN),),
        ),
        Scenario("limited", ("tag", "note"), rate=Rate(per_second=0.05, burst=1)),
        Scenario("capped", ("tag", "reply", "instead", "mail"), most_automatic=1),
    )
}


def actions_of(names: tuple[str, ...], target: str, turn: int) -> tuple[Action, ...]:
    """The actions of one decision. `turn` makes every decision another one: whoever decides again does other things."""
    said = {"turn": turn}
    every: dict[str, Callable[[], Action]] = {
        "tag": lambda: Action("tag", "desk.add_tags", DESK, Repeat.IDEMPOTENT, target, said),
        "assign": lambda: Action("assign", "desk.assign", DESK, Repeat.SETTING, target, {"team": f"team-{turn}"}),
        "create": lambda: Action("create", "desk.create", DESK, Repeat.KEYED, target, said),
        "after_create": lambda: Action(
            "after_create", "desk.create", DESK, Repeat.KEYED, target, {"child": turn}, requires=("create",)
        ),
        "note": lambda: Action("note", "desk.reply", DESK, Repeat.LOOKUP, target, said),
        "reply": lambda: Action(
            "reply",
            "desk.reply",
            DESK,
            Repeat.LOOKUP,
            target,
            message=MessageRef("hello", 1, {"turn": str(turn)}),
            requires=("tag",) if "tag" in names else (),
            customer_visible=True,
            recipient=RECIPIENT,
            expires_seconds=900,
        ),
        "instead": lambda: Action(
            "instead", "desk.add_tags", DESK, Repeat.IDEMPOTENT, target, {"triage": turn}, instead_of="reply"
        ),
        "mail": lambda: Action(
            "mail",
            "email.send",
            "email",
            Repeat.LOOKUP,
            target,
            message=MessageRef("news", 1),
            customer_visible=True,
            recipient=RECIPIENT,
            expires_seconds=7_200,
        ),
        "by_hand": lambda: Action(
            "by_hand", "desk.add_tags", DESK, Repeat.IDEMPOTENT, target, {"call": turn}, instead_of="mail"
        ),
        "push": lambda: Action("push", "desk.push", DESK, Repeat.BLIND, target, said),
        "after_push": lambda: Action(
            "after_push", "desk.add_tags", DESK, Repeat.IDEMPOTENT, target, {"pushed": turn}, requires=("push",)
        ),
    }
    chosen = []
    for name in names:
        action = every[name]()
        if action.message is not None:  # what is decided anew is worded anew, which makes it another effect
            action = replace(action, message=replace(action.message, version=turn))
        chosen.append(action)
    return tuple(chosen)


class Flow:
    """Decides otherwise each time it is asked, as an LLM may."""

    name = FLOW

    def __init__(self, world: World) -> None:
        self._world = world

    def prepare(self, event: Event) -> Prepared:
        """Nothing to find without the LLM, where one is asked."""
        asks = self._world.scenario.asks_llm
        return Prepared(event.identity, "hello", {"all": ""} if asks else {}, needs_llm=asks, finding=Finding(SAID))

    def decide(self, event: Event, prepared: Prepared, verdict: Verdict, mode: Mode, now_ms: int) -> Decision:
        """The scenario's actions, with something in each that no other decision has. Without the LLM: no reply."""
        self._world.turns += 1
        names = self._world.scenario.actions
        if isinstance(verdict, ClassifierUnavailable):
            self._world.silent.add(event.identity)
            names = tuple(name for name in names if name not in ("reply", "instead"))
        return Decision(FLOW, mode, SAID, actions_of(names, event.identity, self._world.turns), now_ms)


@dataclass(slots=True)
class Message:
    """One message of a queue."""

    number: int
    body: str
    queue: str
    visible_at_ms: int
    receive_count: int = 0
    sent_at_ms: int = 0


Seen = tuple[int, int, int | None, str, str]  # when, by whom, at which boundary, what, and what went wrong


def told(seen: Seen) -> str:
    """One line of the trace."""
    at_ms, process, boundary, what, fault = seen
    where = "" if boundary is None else f"{boundary}: "
    return f"{at_ms / 1000:10.3f} s  p{process:<3} {where}{what}{'   <-- ' + fault if fault else ''}"


class Broken(AssertionError):
    """A promise was broken. The text says which, and by what."""


class Environment:
    """What outlives an invocation: a warm process's copy of the switches, and its credential."""

    def __init__(self, world: World) -> None:
        self.clock = SkewedClock(world)
        self.switches = FakeSwitches(self.clock)
        self.switches.values = world.switch_values
        self.credential = world.side.credential


class SkewedClock:
    """The world's time, as far off as the schedule drew it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.skew_ms = world.rng.randrange(-SKEW_MS, SKEW_MS) if world.schedule.is_jittery else 0

    def now_ms(self) -> int:
        """Milliseconds since the epoch, as this process has it."""
        return NOON_MS + self._world.loop.now_ms + self.skew_ms


class Process:
    """One invocation."""

    def __init__(self, world: World, number: int, environment: Environment) -> None:
        self.world = world
        self.number = number
        self.environment = environment
        self.is_dead = False
        self.has_returned = False
        self.was_stalled = False
        self.task: asyncio.Task[None] | None = None

    @property
    def credential(self) -> int:
        """What calls are made with."""
        return self.environment.credential

    @credential.setter
    def credential(self, version: int) -> None:
        self.environment.credential = version

    def now_ms(self) -> int:
        """By this process's clock."""
        return self.environment.clock.now_ms()

    def die(self) -> None:
        """Nothing of it goes on."""
        self.is_dead = True
        self.world.deaths += 1
        if self.task is not None:
            self.task.cancel()

    async def boundary(self, what: str) -> str:
        """Before a port does anything: others get their turn, and it may die here. The rest is the answer."""
        self.check_alive(what)
        fault = self.world.next_fault(self.number, what)
        await self.latency()
        self.check_alive(what)
        if fault == "die_before":
            self.die()
            raise Died(what)
        return fault

    async def passed(self, what: str, fault: str) -> None:
        """After it, before its answer."""
        self.check_alive(what)
        if fault == "die_after":
            self.die()
            raise Died(what)

    def check_alive(self, what: str) -> None:
        """A dead process reaches nobody, and one that has returned must have nothing left to say."""
        if self.is_dead:
            raise Died(what)
        if self.has_returned:
            self.world.broken.append(f"p{self.number} called {what} after its handler had returned")

    async def latency(self) -> None:
        """A little while, in which others run."""
        world = self.world
        seconds = (1 + world.rng.random() * 59) // 1 / 1000 if world.schedule.is_jittery else 0.005
        if not world.loop.pass_alone(seconds):
            await world.loop.pause(seconds)

    async def io(self, call: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """A call of a storage port."""
        what = _NAMES.get(call.__name__, call.__name__)
        fault = await self.boundary(what)
        if fault == "stall":
            await self._stall()
            self.check_alive(what)
        if fault == "lost_request":
            if what in _NEVER_RAISES:
                return self._without(call, *args, **kwargs)
            raise StorageUnavailable(f"{what} was lost")
        if what == "snapshot" and self.world.switches_down:
            return self._without(call, *args, **kwargs)
        if fault == "late_request" and what not in READS:
            late = partial(self._late, partial(call, *args, **kwargs))
            self.world.loop.call_later(self.world.lateness_seconds(), late)
            raise StorageUnavailable(f"{what} was given up, and is on its way")
        if fault == "twice" and what not in READS:
            self._late(partial(call, *args, **kwargs))
        result = call(*args, **kwargs)
        await self.passed(what, fault)
        if fault == "lost_answer" and what not in _NEVER_RAISES:
            raise StorageUnavailable(f"the answer of {what} was lost")
        return result

    def _late(self, call: Callable[[], object]) -> None:
        """A request whose answer nobody hears."""
        with suppress(StorageUnavailable, VersionConflict, Fenced):
            call()

    async def _stall(self) -> None:
        """Frozen: until another process, long after this one's lease, is about to send; else for a fixed time."""
        self.was_stalled = True
        thawed = self.world.loop.create_future()
        self.world.frozen.append((self.world.now_ms, thawed))
        with suppress(TimeoutError):
            async with asyncio.timeout(STALL_SECONDS):
                await thawed

    def _without(self, call: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """A port that says nothing of its trouble: the switches as they were last known, a delay that nobody heard."""
        if call.__name__ == "delay":
            return None  # type: ignore[return-value]  # as the port does
        self.environment.switches.is_down = True
        try:
            return call(*args, **kwargs)
        finally:
            self.environment.switches.is_down = False


_NAMES = {"get": "read_one"}
_NEVER_RAISES = frozenset({"snapshot", "delay"})


class Quiet:
    """A log and a meter that keep nothing."""

    def _nothing(self, *_: object, **__: object) -> None:
        """Nobody reads it."""

    info = warning = error = exception = count = count_at = milliseconds = flush = debug = _nothing


QUIET: Any = Quiet()


class Llm:
    """`ports.Classifier` as one process sees it."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def classify(self, text: str, labels: Mapping[str, str], deadline_ms: int) -> Classification:
        """Another answer each time, none at all, or one that comes too late."""
        fault = await self._process.boundary("classify")
        if fault in ("llm_down", "unavailable", "refused"):
            raise ClassifierUnavailable("DOWN")
        if fault in ("llm_late", "late"):
            await asyncio.sleep(1_000)
        await self._process.passed("classify", fault)
        return SAID


class World:
    """One run of one schedule."""

    def __init__(self, schedule: Schedule, loop: VirtualLoop) -> None:
        self.schedule = schedule
        self.scenario = SCENARIOS[schedule.scenario]
        self.loop = loop
        self.rng = random.Random(schedule.seed)
        self.faults = dict(schedule.faults)
        self.boundaries = 0
        self.trace: list[Seen] = []
        self.names: list[str] = []
        self.broken: list[str] = []
        self.tables = FakeTables()
        self.tables.faults.on_before, self.tables.faults.on_after = self._before_sync, self._after_sync
        self._is_blocking = False
        self._blocking_fault = ""
        self.asides: dict[str, Aside] = {}
        self.indexed: dict[str, Row] = {}
        self.side = Side()
        self.index_lag_ms = self.rng.randrange(INDEX_LAG_MS) if schedule.is_jittery else 30_000
        self.switch_values: dict[str, str] = dict(LIVE_SWITCHES)
        self.switches_down = False
        self.switched: list[tuple[int, str, str]] = []  # when, which, to what
        self.opted_out_at_ms: int | None = None
        self.person_set_at_ms: dict[str, int] = {}
        self.envelopes = FakeEnvelopes()
        self.retries, self.replays = FakeHints(), FakeHints()
        self.plans = FakeReplayPlans()
        self.starter = FakeReplayStarter()
        self.messages: list[Message] = []
        self.dead_messages: list[Message] = []
        self.sent_messages = 0
        self.turns = 0
        self.silent: set[str] = set()
        self.deaths = 0
        self.batches = 0
        self.processes = 0
        self.running: set[asyncio.Task[None]] = set()
        self.accepted: list[Event] = []
        self.replayed = 0
        self.dismissed = 0
        self._processes: list[Process] = []
        self.ids = FakeIds()
        self.frozen: list[tuple[int, asyncio.Future[None]]] = []
        self.free = [Environment(self) for _ in range(schedule.workers)]
        self.integrations: dict[str, Integration] = {DESK: replace(_DESK, rate=self.scenario.rate)}
        self.fallbacks = Matrix()
        if "mail" in self.scenario.actions:
            self.integrations |= _CHANNELS
            self.fallbacks = _MATRIX
        for name, health in self.scenario.health:
            never = 9_999_999_999_999  # for a while it stays as it is: nobody asks whether it is back
            self.tables.integrations[name] = IntegrationState(name, health, probe_at_ms=never)
        self.flow = Flow(self)
        self.wake = asyncio.Event()
        self.clock = SkewedClock(self)
        self.clock.skew_ms = 0
        self.ledger = FakeLedger(self.tables)
        self.jobs = FakeReplayJobs(self.tables)
        self.recovery = FakeRecovery(self.tables)
        self.recipients = FakeRecipients(self.tables)
        self.caps = FakeCaps(self.tables)
        self.audit = FakeAudit(self.tables)
        self.tables.people[TENANT, RECIPIENT] = WILLING
        self.counts = FakeHealthCounts(self.tables)
        self.health = FakeHealthRecords(self.tables)
        self.down_since_ms: int | None = None
        self.last_probe_ms, self.last_probe_by = 0, 0

    # ------------------------------------------------------------------------------------------------------------ time

    @property
    def now_ms(self) -> int:
        """True time."""
        return NOON_MS + self.loop.now_ms

    def key_holds(self, stored_at_ms: int) -> bool:
        """Whether the provider still remembers a key."""
        return self.now_ms - stored_at_ms < KEY_WINDOW_MS

    def lateness_seconds(self) -> float:
        """How long after its caller gave it up a request is carried out: before others have the event, or after."""
        return self.rng.randrange(1, 200) if self.schedule.is_jittery else 2.0

    # ---------------------------------------------------------------------------------------------------------- faults

    def next_fault(self, process: int, what: str) -> str:
        """What goes wrong at this boundary; it is written into the trace."""
        index, self.boundaries = self.boundaries, self.boundaries + 1
        fault = self.faults.get(index, "")
        self.names.append(what)
        self.trace.append((self.now_ms - NOON_MS, process, index, what, fault))
        return fault

    def _before_sync(self, what: str) -> None:
        if not self._is_blocking:
            return
        aside = next((one for one in self.asides.values() if one.is_current()), None)
        fault = self.next_fault(0, what)
        if aside is not None:
            aside.pause()
        if fault == "die_before":
            raise Died(what)
        if fault in ("lost_request", "late_request"):
            raise StorageUnavailable(f"{what} was lost")
        if fault == "lagging" and what in INDEXES:
            self.recovery.index = self.indexed
        self._blocking_fault = fault

    def _after_sync(self, what: str) -> None:
        if not self._is_blocking:
            return
        fault, self._blocking_fault, self.recovery.index = self._blocking_fault, "", None
        if fault == "die_after":
            raise Died(what)
        if fault == "lost_answer":
            raise StorageUnavailable(f"the answer of {what} was lost")

    def sync(self, name: str, work: Callable[[], Any], then: Callable[[Any], None] | None = None) -> None:
        """A process whose calls block: sweeper, triage, replay. What it dies of ends it alone.
        Of each name there is one at a time.
        """
        if not self.schedule.is_interleaved:
            self._blocking(work, then)
        elif name not in self.asides:
            aside = self.asides[name] = Aside(partial(self._blocking, work, then))
            task = self.loop.create_task(self._in_step(name, aside))
            self.running.add(task)

    async def _in_step(self, name: str, aside: Aside) -> None:
        """Its steps, with others' between them."""
        try:
            while True:
                self._is_blocking = True
                try:
                    aside.step()
                finally:
                    self._is_blocking = False
                if aside.is_over:
                    break
                await asyncio.sleep(self.rng.randrange(1, 60) / 1000)
        finally:
            aside.give_up(Died("the run is over"))
            del self.asides[name]
            self.collect_hints()
            self.running.discard(asyncio.current_task())
            self.wake.set()

    def _blocking(self, work: Callable[[], Any], then: Callable[[Any], None] | None) -> None:
        was_blocking, self._is_blocking = self._is_blocking, True
        try:
            answer = work()
        except Died:
            self.deaths += 1
        except (StorageUnavailable, VersionConflict, ExceptionGroup):
            pass  # it is seen by an alarm; the next tick goes on
        else:
            if then is not None:
                then(answer)
        finally:
            self._is_blocking = was_blocking
            self.collect_hints()

    def thaw(self) -> None:
        """Whoever was frozen long ago goes on now, while somebody else is at work."""
        for since_ms, thawed in self.frozen:
            if not thawed.done() and self.now_ms - since_ms > (TIMEOUT_SECONDS + 30) * 1000:
                thawed.set_result(None)

    # ---------------------------------------------------------------------------------------------------- what is seen

    def began(self, process: Process, action: Action, call: Call) -> None:
        """A send begins: what must not be so at that moment."""
        now = self.now_ms
        if process.has_returned:
            self.broken.append(f"{action.name} was sent after its handler had returned")
        state = self.tables.integrations.get(action.integration) if action.integration == DESK else None
        is_closed = state is not None and state.health is Health.HARD_DOWN
        if (
            is_closed and self.down_since_ms is not None and not self.schedule.is_jittery
        ):  # a probe's lease is a clock's
            since = now - max(self.down_since_ms, self.last_probe_ms)
            is_alone = process.number == self.last_probe_by  # one probe may call twice: with a new credential
            if since < PROBE_GAP_MS and now - self.down_since_ms > TIMEOUT_SECONDS * 1000 and not is_alone:
                self.broken.append(f"{action.name} was sent {since} ms after another, to a provider that is down")
            self.last_probe_ms, self.last_probe_by = now, process.number
        if action.customer_visible:
            if self.opted_out_at_ms is not None and now - self.opted_out_at_ms > 1_000:
                self.broken.append(f"{action.name} was sent to a recipient who had opted out {self.opted_out_at_ms}")
            off_since = self.off_since_ms()
            if off_since is not None and now - off_since > 7_000:
                self.broken.append(f"{action.name} was sent {now - off_since} ms after its switch went off")
        row = next(
            (one for one in self.tables.rows.values() if one.action and one.action.action_id == action.action_id), None
        )
        received = next(event.received_at_ms for event in self.accepted if event.identity == action.target)
        expires = row.expires_at_ms if row is not None else received + action.expires_seconds * 1000
        if now > expires + SKEW_MS + 1_000:
            self.broken.append(f"{action.name} was sent {now - expires} ms after it had expired")
        for name in action.requires:
            if not any(one.name == name and one.event == action.target for one in self.side.effects):
                self.broken.append(f"{action.name} was sent before {name} was done")

    def person_set(self, target: str) -> bool:
        """Whether a person had a hand in that target."""
        return target in self.person_set_at_ms

    def off_since_ms(self) -> int | None:
        """Since when no automatic message may go out, or None if it may."""
        since: int | None = None
        values = {"auto_reply": "on", "mode": "live"}
        for at, name, value in self.switched:
            if name not in values:
                continue
            values[name] = value
            is_off = values["auto_reply"] == "off" or values["mode"] not in ("live", "hold")
            since = (since if since is not None else at) if is_off else None
        return since

    def overwritten(self, action: Action, began_at_ms: int, person_at_ms: int) -> None:
        """A value that a person had set was replaced."""
        item = next(
            (
                one
                for one in self.tables.ledger.values()
                if any(a.target == action.target for a in one.decision.actions)
            ),
            None,
        )
        decided = 0 if item is None else item.decision.decided_at_ms
        is_first = (
            item is not None
            and item.generation == 1
            and not any(
                row.action is not None and row.action.action_id == action.action_id for row in self.tables.rows.values()
            )
        )
        if person_at_ms > decided + SKEW_MS and began_at_ms > person_at_ms + 8_000 and not is_first:
            self.broken.append(f"{action.name} replaced what a person had set {began_at_ms - person_at_ms} ms before")

    # ---------------------------------------------------------------------------------------------------------- queues

    def put(self, queue: str, body: str, delay_seconds: int = 0) -> None:
        """A message arrives."""
        now = self.now_ms
        self.sent_messages += 1
        self.messages.append(Message(self.sent_messages, body, queue, now + delay_seconds * 1000, sent_at_ms=now))

    def collect_hints(self) -> None:
        """What was sent to the retries and replays queues is there."""
        for queue, hints in (("retries", self.retries), ("replays", self.replays)):
            for sent in hints.sent:
                self.put(queue, sent.hint.to_message(), sent.delay_seconds)
            hints.sent.clear()

    def accept(self, number: int) -> None:
        """Ingress acknowledged an event: so many copies are in the queue."""
        event = Event(
            tenant=TENANT,
            source=SOURCE,
            provider="generic",
            flow=FLOW,
            identity=f"t{number}",
            event_name=self.scenario.event_name,
            event_version="1",
            received_at_ms=self.now_ms,
            request_id=f"{number:032x}",
            traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
            payload_hash="h",
            content_type="application/json",
            body=b"{}",
        )
        self.accepted.append(event)
        for _ in range(self.schedule.copies):
            self.put("events", event.to_message())

    def spawn(self) -> bool:
        """Hand visible messages to free workers; whether any was."""
        now, spawned = self.now_ms, False
        for queue in ("events", "retries", "replays"):
            visible = [message for message in self.messages if message.queue == queue and message.visible_at_ms <= now]
            if self.schedule.is_jittery:
                self.rng.shuffle(visible)
            while visible and self.free:
                size = self.rng.choice((1, 2, 10)) if self.schedule.is_jittery else 10
                batch, visible = visible[:size], visible[size:]
                for message in batch:
                    message.receive_count += 1
                    message.visible_at_ms = now + VISIBILITY_MS
                self._invoke(queue, batch)
                if self.batches in self.schedule.doubled and self.free:
                    self._invoke(queue, batch)
                self.batches += 1
                spawned = True
        return spawned

    def _invoke(self, queue: str, batch: list[Message]) -> None:
        self.processes += 1
        process = Process(self, self.processes, self.free.pop(0))
        self._processes.append(process)
        process.task = self.loop.create_task(self._work(process, queue, list(batch)))
        self.running.add(process.task)

    async def _work(self, process: Process, queue: str, batch: list[Message]) -> None:
        visibility = FakeVisibility()
        handler: Any = build_worker(WORKER, self._ports(process, visibility), run=_AS_IS)
        records = [
            {
                "messageId": str(message.number),
                "receiptHandle": str(message.number),
                "eventSourceARN": f"arn:aws:sqs:us-east-1:000000000000:{queue}",
                "attributes": {"ApproximateReceiveCount": str(message.receive_count)},
                "body": message.body,
            }
            for message in batch
        ]
        answer: dict[str, Any] | None = None
        began_ms = self.now_ms
        with suppress(Died, asyncio.CancelledError):
            answer = await handler({"Records": records}, None)
        if self.now_ms - began_ms > TIMEOUT_SECONDS * 1000 and not process.was_stalled:
            self.broken.append(f"p{process.number} was still at work when its time was over")
        process.has_returned = True
        by_number = {str(message.number): message for message in batch}
        for _, receipt, seconds in visibility.delays:
            by_number[receipt].visible_at_ms = self.now_ms + seconds * 1000
        self.collect_hints()
        if answer is not None:
            failed = {item["itemIdentifier"] for item in answer["batchItemFailures"]}
            for message in batch:
                if str(message.number) not in failed and message in self.messages:
                    self.messages.remove(message)
        for message in batch:
            if (
                message.receive_count >= MAX_RECEIVES
                and message in self.messages
                and message.visible_at_ms <= self.now_ms + VISIBILITY_MS
            ):
                self.messages.remove(message)
                self.dead_messages.append(message)
        self.free.append(process.environment if not process.is_dead else Environment(self))
        if process.task is not None:
            self.running.discard(process.task)
        self.wake.set()

    def _ports(self, process: Process, visibility: FakeVisibility) -> Ports:
        return Ports(
            ledger=self.ledger,
            recovery=self.recovery,
            counts=self.counts,
            health=self.health,
            recipients=self.recipients,
            caps=self.caps,
            audit=self.audit,
            switches=process.environment.switches,
            envelopes=self.envelopes,
            providers=dict.fromkeys(self.integrations, SimProvider(self, process)),
            classifier=Llm(process),
            visibility=visibility,
            clock=process.environment.clock,
            ids=self.ids,
            rng=FakeRandom(),
            io=process.io,
            log=QUIET,
            meter=QUIET,
            integrations=self.integrations,
            flows={FLOW: self.flow},
            fallbacks=self.fallbacks,
            automatic_per_hour={FLOW: self.scenario.most_automatic},
        )

    # ------------------------------------------------------------------------------------- sweeper, triage, and people

    def sweep(self) -> None:
        """One tick."""
        switches = FakeSwitches(self.clock, self.switch_values)
        switches.is_down = self.switches_down
        sweeper = build_sweeper(
            SWEEPER,
            integrations=sorted({row.integration_id for row in self.tables.rows.values()}),  # others have nothing due
            fallbacks=self.fallbacks,
            ledger=self.ledger,
            recovery=self.recovery,
            switches=switches,
            spill=_NO_SPILL,
            envelopes=self.envelopes,
            events=_NO_EVENTS,
            retries=self.retries,
            replays=self.replays,
            clock=self.clock,
            ids=self.ids,
            at_once=one_by_one,
            log=QUIET,
            metrics=QUIET,
            rates={} if self.scenario.rate is None else {DESK: self.scenario.rate},
            jobs=JobDuty(self.jobs, self.starter, self.clock, QUIET, QUIET) if self.replayed else None,
        )
        self.sync("sweeper", partial(sweeper, {}, None), self._index_catches_up)

    def _index_catches_up(self, _answer: object = None) -> None:
        """A query that lags shows what was there now, until the next tick."""
        self.indexed = dict(self.tables.rows)
        self._jobs_go_on()

    def triage(self) -> None:
        """What a queue gave up becomes a row, or is let go."""
        triage = build_triage(
            ledger=self.ledger,
            recovery=self.recovery,
            envelopes=self.envelopes,
            clock=self.clock,
            ids=self.ids,
            log=QUIET,
            metrics=QUIET,
            max_receives=MAX_RECEIVES,
        )
        records = [
            {
                "messageId": str(message.number),
                "receiptHandle": str(message.number),
                "eventSourceARN": f"arn:aws:sqs:us-east-1:000000000000:{message.queue}-dlq",
                "attributes": {
                    "ApproximateReceiveCount": str(message.receive_count),
                    "SentTimestamp": str(message.sent_at_ms),
                },
                "body": message.body,
            }
            for message in self.dead_messages
        ]
        self.sync("triage", partial(triage, {"Records": records}, None), partial(self._triaged, self.dead_messages))

    def _triaged(self, given: list[Message], answer: dict[str, Any]) -> None:
        """What triage kept is given to it again; what died since, too."""
        kept = {item["itemIdentifier"] for item in answer["batchItemFailures"]}
        self.dead_messages = [
            message for message in self.dead_messages if str(message.number) in kept or message not in given
        ]

    def act(self, what: str) -> None:
        """Something happens that nobody here asked for."""
        self.trace.append((self.now_ms - NOON_MS, 0, None, f"*** {what}", ""))
        name, _, value = what.partition("=")
        if value:
            self.switch_values[name] = value
            self.switched.append((self.now_ms, name, value))
            return
        getattr(self, f"_act_{what}")()

    def _act_switches_down(self) -> None:
        self.switches_down = True

    def _act_switches_up(self) -> None:
        self.switches_down = False

    def _act_outage(self) -> None:
        self._down()
        state = self.tables.integrations.get(DESK, IntegrationState(DESK))
        self.tables.integrations[DESK] = replace(state, health=Health.HARD_DOWN, probe_at_ms=self.now_ms)
        self.down_since_ms = self.now_ms

    def _act_outage_unseen(self) -> None:
        self._down()

    def _down(self) -> None:
        self.side.is_down = True
        seconds = self.rng.choice((20, 20, 300, 300, 1_500))
        self.loop.call_later(seconds, setattr, self.side, "is_down", False)

    def evaluate(self) -> None:
        """The evaluator judges the minutes that have closed."""
        duty = HealthDuty(self.health, self.counts, {DESK: Thresholds()}, 1.0, self.clock, QUIET, QUIET)
        self.sync("evaluator", partial(duty.run, self.now_ms + 10_000))

    def _act_opt_out(self) -> None:
        if self.opted_out_at_ms is None:
            self.opted_out_at_ms = self.now_ms
        self.tables.people[TENANT, RECIPIENT] = replace(WILLING, opted_out=True)

    def _act_person_sets(self) -> None:
        for event in self.accepted:
            if event.identity in self.side.settings:
                self.side.settings[event.identity] = ("a person's", self.now_ms, False)
                self.person_set_at_ms[event.identity] = self.now_ms

    def _act_kill(self) -> None:
        for task in list(self.running):
            process = next((one for one in self._alive() if one.task is task), None)
            if process is not None:
                process.die()

    def _alive(self) -> list[Process]:
        return [process for process in self._processes if not process.has_returned and not process.is_dead]

    def _act_deliver_again(self) -> None:
        for event in self.accepted:
            self.put("events", event.to_message())

    def _act_new_credential(self) -> None:
        self.side.credential += 1

    def _act_replay(self) -> None:
        self._replay(Filter(status=frozenset(["dlq", "failed"])))

    def _act_replay_suppressed(self) -> None:
        self._replay(Filter(failure_code=frozenset(["SUPPRESSED"])))

    def _replay(self, wanted: Filter) -> None:
        """A person asks for a bulk replay, and approves whatever it would do."""
        self.replayed += 1
        job = Job(
            job_id=f"job-{self.replayed}",
            state=State.PLANNING,
            actor="ada",
            reason="why not",
            filter=wanted.to_json(),
            cap=100,
            created_at_ms=self.now_ms,
            request_id=self.ids.new_id(),
        )
        self.sync(f"person {self.replayed}", partial(self._ask_for, job))

    def _ask_for(self, job: Job) -> None:
        move(self.jobs, None, lambda board: asked(job, board))
        self._work_on(job.job_id)
        planned = self.jobs.get(job.job_id)
        if planned is None or planned.state is not State.PLANNED or not planned.total:
            return
        try:
            move(
                self.jobs,
                planned,
                lambda board: approved(planned, board, self.now_ms, actor="ada", request_id=self.ids.new_id()),
            )
        except IntegrationTaken:
            return
        self._work_on(job.job_id)

    def _work_on(self, job_id: str) -> None:
        """An invocation of replay λ that has no time to wait for anything."""
        switches = FakeSwitches(self.clock, self.switch_values)
        switches.is_down = self.switches_down
        handler = build_replay(
            REPLAY,
            ReplayPorts(
                ledger=self.ledger,
                recovery=self.recovery,
                jobs=self.jobs,
                plans=self.plans,
                recipients=self.recipients,
                switches=switches,
                replays=self.replays,
                backlog=_NO_BACKLOG,
                integrations=self.integrations,
                known=Known({FLOW: ()}, self.integrations, {("hello", 1), ("news", 1)}, self.fallbacks),
                clock=self.clock,
                ids=self.ids,
                wait=_no_waiting,
                log=QUIET,
                metrics=QUIET,
            ),
        )
        handler({"job_id": job_id}, _HURRY)

    def _jobs_go_on(self) -> None:
        """What the sweeper has started."""
        while self.starter.started:
            job_id = self.starter.started.pop(0)
            self.sync(f"replay {job_id}", partial(self._work_on, job_id))

    def works(self) -> bool:
        """Whether a bulk replay has something to do that no row shows."""
        return bool(self.jobs.stored_board.working)

    def _act_dismiss(self) -> None:
        now = self.now_ms
        for row in list(self.tables.rows.values()):
            if not row.is_final and row.lease_until_ms <= now and row.subject is Subject.ACTION:
                self.dismissed += 1
                change = end(row, "DISMISSED", "not wanted", now, actor="ada", request_id="d")
                self.sync("dismissal", partial(self.recovery.commit, [change]))
                return

    # --------------------------------------------------------------------------------------------------------- the run

    async def run(self) -> None:
        """Until nothing is left to happen."""
        for name, _ in self.scenario.health:
            self.loop.call_later(WELL_AFTER_SECONDS, self.tables.set_health, name, Health.HEALTHY)
        for number in range(self.schedule.events):
            self.accept(number)
        acts = list(self.schedule.acts)
        watches_health = any(what.startswith("outage") for _, what in acts)
        next_tick = self.now_ms + 60_000
        end_ms = self.now_ms + int(HOURS * 3_600_000)
        while self.now_ms < end_ms and self.boundaries < MOST_BOUNDARIES:
            while acts and acts[0][0] <= self.now_ms - NOON_MS:
                self.act(acts.pop(0)[1])
            if self.now_ms >= next_tick:
                if watches_health:
                    self.evaluate()
                self.sweep()
                next_tick += 60_000
            if self.dead_messages:
                self.triage()
            self.spawn()
            moves = [row.due_at_ms for row in self.tables.rows.values() if self.moves(row)]
            is_quiet = not self.running and not self.messages and not acts and not moves and not self.dead_messages
            if is_quiet and not self.works():
                return
            now = self.now_ms
            if moves and not self.works():
                skipped = (min(moves) - 60_000 - next_tick) // 60_000
                next_tick += max(0, skipped) * 60_000  # ticks that would find nothing
            moments = [message.visible_at_ms for message in self.messages if message.visible_at_ms > now]
            moments += [NOON_MS + at for at, _ in acts[:1]]
            if moves or self.dead_messages or self.works():
                moments.append(max(next_tick, now + 1))
            await self._until(min(moments, default=now + 60_000))
        waiting = [row.waiting_for.value for row in self.tables.rows.values() if row.is_open]
        raise Broken(f"it is not quiet after {HOURS} hours: {len(self.messages)} messages, rows waiting for {waiting}")

    async def _until(self, at_ms: int) -> None:
        """That moment, or sooner if a worker ends."""
        self.wake.clear()
        wait = (at_ms - self.now_ms) / 1000
        if wait <= 0:
            await asyncio.sleep(0.001)
            return
        if not self.running:
            await asyncio.sleep(wait)
            return
        try:
            async with asyncio.timeout(wait):
                await self.wake.wait()
        except TimeoutError:
            return

    def moves(self, row: Row) -> bool:
        """Whether the machine still has something to do with it: a child of what waits for a person waits with it."""
        if not row.is_open:
            return False
        parents = [self.tables.rows.get(parent) for parent in row.waits_for]
        return not any(parent is not None and not parent.is_open for parent in parents)


def _as_is(work: Coroutine[Any, Any, dict[str, Any]]) -> Coroutine[Any, Any, dict[str, Any]]:
    return work


_AS_IS: Any = _as_is  # an invocation is awaited here, where Lambda drives it to its end
_NO_SPILL = FakeSpill()
_NO_EVENTS = FakeEvents()
_NO_BACKLOG = FakeBacklog()
_HURRY = Context(10_001)  # a millisecond beside the margin


def _no_waiting(seconds: float) -> None:
    raise AssertionError(f"{seconds} s were to be waited, and nobody has them")


def play(schedule: Schedule, runner: Runner) -> World:
    """One run, with what it was found to have broken in `broken`."""
    runner.loop.rewind()
    world = World(schedule, runner.loop)
    try:
        runner.run(world.run())
    except Broken as broken:
        world.broken.append(str(broken))
    else:
        if runner.left_behind:  # what goes on after its handler has returned thaws in a later invocation
            world.broken.append(f"{runner.left_behind} calls were left behind when every handler had returned")
    return world


__all__ = ["SCENARIOS", "Broken", "Scenario", "Status", "World", "play"]
