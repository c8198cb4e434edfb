"""The run: load through the door while everything fails, quiet, the books, then a replay of what has died, the books
again.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from functions.adapters.http import PHASE_TIMEOUTS
from functions.catalog.loader import load
from functions.core.decision import Repeat
from functions.core.event import Event
from functions.core.failure import MalformedEnvelope
from functions.core.integration import INTAKE, Integration
from functions.core.recovery import Status, Subject
from ops import records
from ops.chaos.books import Books, Evidence, Promise, blocked, draw_up, is_open
from ops.chaos.calls import ONLY_FOR, TIMEOUTS, Way
from ops.chaos.killing import Killer, killing
from ops.chaos.logs import Said, said_by
from ops.chaos.proxy import CONTROL
from ops.demo import scenes
from ops.demo.stage import SOURCES, Stage, repeated
from ops.drills.failing import pointed_at
from ops.drills.outage import spill
from ops.expectation import TOPICS
from ops.records import Item
from ops.replays import of_stage, will_go
from ops.simulator import Fault, FaultMode
from ops.stack import ROOT

FUNCTIONS = (
    "IngressFunction",
    "WorkerFunction",
    "TriageFunction",
    "SweeperFunction",
    "EvaluatorFunction",
    "ReplayFunction",
)
SERVICES = ("DYNAMODB", "SQS", "SSM", "S3")
WAVE = 100  # signed just before they are sent: a provider's signature is good for minutes
REPEAT_SHARE = 0.10
RARE = 5  # ways that only one operation knows take so many times the share, or they would hardly be seen
SENDERS = 8
WORKERS_A_QUEUE = 10
LOOK_EVERY_SECONDS = 4.0
TELL_EVERY_SECONDS = 20.0
REPLAYS = 5  # jobs: what one has left dead, or made ready, is the next one's


@dataclass(frozen=True, slots=True)
class Plan:
    """How much, how bad, and with what luck."""

    events: int = 2000
    seed: int = 1
    aws_share: float = 0.01
    provider_share: float = 0.02
    patience_seconds: float = 1800.0


@dataclass(slots=True)
class Seen:
    """What the run has shown."""

    books: Books = field(default_factory=Books)
    after_replay: Books = field(default_factory=Books)
    was_quiet: bool = False
    was_quiet_after_replay: bool = False
    dead: int = 0
    replayed: int = 0
    proxy: Mapping[str, Any] = field(default_factory=dict)
    provider_calls: Counter[str] = field(default_factory=Counter)
    provider_faults: Counter[str] = field(default_factory=Counter)
    killed: Counter[str] = field(default_factory=Counter)
    unasked: int = 0
    depths: Mapping[str, int] = field(default_factory=dict)
    said: Said = field(default_factory=Said)
    seconds: Counter[str] = field(default_factory=Counter)
    evidence: Evidence | None = None


class FaultProxy:
    """The control plane of a proxy that runs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._host = urlsplit(url).netloc

    def fail(self, shares: Mapping[Way, float]) -> None:
        """From here on these shares of the calls fail."""
        self._call("PUT", json.dumps(shares))

    def seen(self) -> dict[str, Any]:
        """Calls, faults and refusals so far."""
        return self._call("GET")

    def _call(self, method: str, body: str | None = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self._host, timeout=30)
        try:
            connection.request(method, CONTROL, body, {"connection": "close"})
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return answer


@contextlib.contextmanager
def proxying(upstream_url: str, seed: int) -> Iterator[FaultProxy]:
    """A proxy in a process of its own, which ends with the block, and with this process whatever becomes of it."""
    command = [sys.executable, "-m", "ops.chaos.proxy", "--upstream", upstream_url, "--seed", str(seed)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None  # noqa: S101  # they were asked for
        assert process.stdout is not None  # noqa: S101
        yield FaultProxy(json.loads(process.stdout.readline())["url"])
        process.stdin.close()


def play(stage: Stage, plan: Plan) -> Seen:
    """All of it, on a stack that is fresh."""
    seen, chance = Seen(), random.Random(plan.seed)  # noqa: S311  # a run that can be repeated, no secret
    state = stage.running.state
    with ExitStack() as all_along:
        proxy = all_along.enter_context(proxying(state.endpoint, plan.seed))
        stage.story.tell("leading every function to the fault proxy")
        for output in FUNCTIONS:
            all_along.enter_context(pointed_at(stage.stack, output, dict.fromkeys(SERVICES, proxy.url)))
        _widen(stage)
        scenes.warm_up(stage)
        killer = Killer(
            stage.running.process("emulator").pid,
            {output: stage.stack.output(output) for output in FUNCTIONS},
            lambda: proxy.seen()["at_work"],
            random.Random(chance.random()),  # noqa: S311  # as above
        )
        proxy.fail(aws_shares(plan.aws_share))
        fault_ids = stage.simulator.add_faults(*provider_faults(plan.provider_share, chance.randrange(10**6)))
        with killing(killer):
            with _timed(seen, "sending"):
                _send(stage, plan)
            with _timed(seen, "until quiet"):
                seen.was_quiet = _await_quiet(stage, plan.patience_seconds)
        seen.killed, seen.unasked = killer.killed, killer.unasked
        _note_providers(stage, seen, fault_ids)
        seen.proxy = proxy.seen()
        proxy.fail({})
        stage.simulator.clear_faults()
        seen.evidence = evidence(stage)
        seen.books = draw_up(seen.evidence)
        seen.dead = sum(row["status"] == Status.DLQ for row in seen.evidence.rows)
        with _timed(seen, "replay"):
            _replay(stage, plan, seen)
        seen.said = said_by(stage.stack, FUNCTIONS)
        seen.depths = records.queue_depths(stage.stack) | {"spill": len(spill(stage))}
        if seen.dead:
            seen.evidence = evidence(stage)
            seen.after_replay = draw_up(seen.evidence)
        else:
            seen.after_replay = seen.books
    return seen


def _widen(stage: Stage) -> None:
    """Let as many workers at the retries and replays as at new events. With the two of every day each death would
    hold up half of what is under way, and the run would take an hour.
    """
    aws_lambda = stage.stack.client("lambda")
    for mapping in aws_lambda.list_event_source_mappings(FunctionName=stage.stack.output("WorkerFunction"))[
        "EventSourceMappings"
    ]:
        aws_lambda.update_event_source_mapping(
            UUID=mapping["UUID"], ScalingConfig={"MaximumConcurrency": WORKERS_A_QUEUE}
        )


@contextlib.contextmanager
def _timed(seen: Seen, what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seen.seconds[what] += round(time.monotonic() - began)


# --------------------------------------------------------------------------------------------------------------- faults


def aws_shares(share: float) -> dict[Way, float]:
    """That share of all AWS calls in each way; ways that only one operation knows, a multiple of its calls.

    Not to be answered in time is one way, whichever of the three it is: each costs its caller seconds.
    """

    def times(way: Way) -> float:
        return RARE if way in ONLY_FOR else 1 / len(TIMEOUTS) if way in TIMEOUTS else 1

    return {way: share * times(way) for way in Way}


def provider_faults(share: float, seed: int) -> list[Fault]:
    """That share of the calls in each way, for every integration of the catalog, as it waits for its provider."""
    faults: list[Fault] = []
    for integration in load().integrations.values():
        faults += _faults_of(integration, share)
    return [_seeded(fault, seed + number) for number, fault in enumerate(faults)]


def _faults_of(integration: Integration, share: float) -> list[Fault]:
    # As long as one of its calls waits for an answer. What acts after that still acts well before a lookup may be
    # believed, as the catalog's settle delay assumes, which the local stage shortens to seconds.
    waits_seconds = min(integration.deadline_seconds, PHASE_TIMEOUTS.read or integration.deadline_seconds)
    name = integration.id

    def fault(mode: FaultMode, **how: Any) -> Fault:
        return Fault(name, mode, probability=share, **how)

    # A stored error is what a key brings back for ever: only where there are keys it is a way of its own.
    has_keys = any(rules.repeat is Repeat.KEYED for rules in integration.kinds.values())
    return [
        *([fault(FaultMode.STORE_STATUS, status=500)] if has_keys else []),
        fault(FaultMode.STATUS, status=500),
        fault(FaultMode.STATUS, status=503),
        fault(FaultMode.STATUS, status=429, retry_after="1"),
        fault(FaultMode.STATUS_AFTER_EFFECT, status=500),
        fault(FaultMode.STATUS_AFTER_EFFECT, status=503),
        fault(FaultMode.RESET),
        fault(FaultMode.DROP_RESPONSE),
        fault(FaultMode.HANG, seconds=waits_seconds + 1),
        fault(FaultMode.LATENCY, seconds=waits_seconds + 0.4),
        fault(FaultMode.MALFORMED),
        fault(FaultMode.TRUNCATE),
        fault(FaultMode.WRONG_CONTENT_TYPE),
        fault(FaultMode.SLOW_BODY, seconds=waits_seconds / 4),
    ]


def _seeded(fault: Fault, seed: int) -> Fault:
    return Fault(**{**fault.to_json(), "mode": fault.mode, "seed": seed})


def way_of(fault: Mapping[str, Any]) -> str:
    """How a provider's fault is called in the books."""
    status = f" {fault['status']}" if "status" in fault["mode"] else ""
    return f"{fault['provider']}: {fault['mode']}{status}"


def _note_providers(stage: Stage, seen: Seen, fault_ids: list[str]) -> None:
    for (provider, _operation, _status), count in stage.simulator.request_counts().items():
        seen.provider_calls[provider] += count
    for fault in stage.simulator.faults():
        if fault["id"] in fault_ids:
            seen.provider_faults[way_of(fault)] += fault["fired"]


# ----------------------------------------------------------------------------------------------------------------- load


def _send(stage: Stage, plan: Plan) -> None:
    """Everything through the door: in waves, out of order, some of it twice, at once or a wave later."""
    late: list[Any] = []
    until = time.monotonic() + plan.patience_seconds
    for begin in range(0, plan.events, WAVE):
        count = min(WAVE, plan.events - begin)
        letters = stage.letters(f"chaos-{begin}", TOPICS, count)
        honest = [delivery for delivery, _ in letters]
        twice = repeated(stage.chance.sample(honest, max(1, round(count * REPEAT_SHARE))))
        half = len(twice) // 2
        mixed = [*honest, *twice[:half], *late]
        stage.chance.shuffle(mixed)
        late = twice[half:]
        stage.expect(letters, may_be_late=True, may_be_held_back=True)
        stage.post(mixed, concurrency=SENDERS)
        stage.story.tell(f"{begin + count} of {plan.events} sent, {len(stage.sent.accepted)} acknowledged")
        if time.monotonic() > until:
            stage.story.tell(f"the rest is not sent: the door takes longer than {plan.patience_seconds:.0f} s")
            break
    stage.post(late, concurrency=SENDERS)


def _await_quiet(stage: Stage, seconds: float) -> bool:
    """Until nothing moves any more: every queue and the spill empty, and no row that the machine would still touch."""
    story, began, told = stage.story, time.monotonic(), 0.0
    while left := _stirring(stage):
        waited = time.monotonic() - began
        if waited > seconds:
            story.tell(f"not quiet within {seconds:.0f} s: {left}")
            return False
        if waited - told > TELL_EVERY_SECONDS:
            told = waited
            story.tell(f"after {waited:.0f} s: {left}")
        time.sleep(LOOK_EVERY_SECONDS)
    story.tell(f"all is quiet after {time.monotonic() - began:.0f} s")
    return True


def _stirring(stage: Stage) -> str:
    depths = {name: depth for name, depth in records.queue_depths(stage.stack).items() if depth}
    if depths:
        return ", ".join(f"{name} {depth}" for name, depth in depths.items())
    spilled = len(spill(stage))
    if spilled:
        return f"{spilled} spilled"
    rows = records.all_rows(stage.stack)
    held_up = blocked(rows)
    waiting = sum(is_open(row) and row["pk"] not in held_up for row in rows)
    return f"{waiting} rows" if waiting else ""


def _replay(stage: Stage, plan: Plan, seen: Seen) -> None:
    """Nothing fails any more: what has died is given one more attempt, and its children after it. All of it within
    the plan's patience.
    """
    seen.was_quiet_after_replay, until = True, time.monotonic() + plan.patience_seconds
    replays = of_stage(stage.stack, poll_seconds=0.5)
    for integration in (INTAKE, *load().integrations):
        for _ in range(REPLAYS):
            job = replays.plan({"integration": [integration], "status": [Status.DLQ.value]}, "chaos is over")
            if not will_go(job):
                break
            replays.approve(job["replay_id"], job["plan"]["hash"])
            *_, job = replays.follow(job["replay_id"])
            if job["state"] != "finished":
                stage.story.tell(f"the replay of {integration} is {job['state']}: {job.get('stop_reason')}")
            seen.replayed += sum(job["progress"]["outcomes"].values())
            if not _await_quiet(stage, until - time.monotonic()):
                seen.was_quiet_after_replay = False
                return


# ------------------------------------------------------------------------------------------------------------- evidence


def evidence(stage: Stage) -> Evidence:
    """Read everything, past the proxy."""
    stack = stage.stack
    ledger = {str(item["event_id"]): item for item in records.events(stack) if not item["is_shadow"]}
    rows = records.all_rows(stack)
    audit: dict[str, list[Item]] = defaultdict(list)
    for event in records.all_audit(stack):
        audit[str(event["pk"])].append(event)
    return Evidence(
        promises=list(_promises(stage, ledger, rows)),
        ledger=ledger,
        rows=rows,
        audit=audit,
        effects=stage.simulator.effects(),
        expected=stage.expectations,
        attempts={one.id: one.policy.max_attempts for one in load().integrations.values()},
    )


def _promises(stage: Stage, ledger: Mapping[str, Item], rows: list[Item]) -> Iterator[Promise]:
    """What was acknowledged, by its event's id. Some providers want an answer without one: then it is found by what it
    acts on, or by the body that was kept of it.
    """
    by_conversation = {str(item["decision"].get("t", "")): event_id for event_id, item in ledger.items()}
    bodies: dict[bytes, str] | None = None
    for conversation, answer in stage.sent.accepted.items():
        event_id = answer.event_id or by_conversation.get(conversation, "")
        if not event_id:
            bodies = _kept_bodies(stage, rows) if bodies is None else bodies
            event_id = bodies.get(answer.delivery.body, "")
        source = answer.delivery.source
        yield Promise(event_id or f"{source}:{answer.delivery.message_id}?", conversation)


def _kept_bodies(stage: Stage, rows: list[Item]) -> dict[bytes, str]:
    """The events that are rows as a whole, by their raw body."""
    found = {}
    s3, bucket = stage.stack.client("s3"), stage.stack.output("Bucket")
    for row in rows:
        if row["subject"] == Subject.EVENT and row.get("envelope_ref"):
            text = s3.get_object(Bucket=bucket, Key=row["envelope_ref"])["Body"].read().decode()
            try:
                found[Event.from_message(text).body] = str(row["event_id"])
            except MalformedEnvelope:
                continue  # poison that nobody could read is nobody's promise
    return found


__all__ = ["SOURCES", "FaultProxy", "Plan", "Seen", "aws_shares", "evidence", "play", "provider_faults", "proxying"]
