"""The drill of bulk replay: dead letters of which half have reached the provider, replayed beside live traffic, and by
a λ whose process is killed again and again.

What must hold (architecture §7): the plan is right to the item; only what is not there is sent, each once, whatever λ
dies of; and new events wait in their queue no longer than they do without a bulk replay.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import partial

from functions.adapters.replay_jobs import DynamoReplayJobs
from functions.core.clock import SystemIds
from functions.core.gate import Health
from functions.core.recovery import Status
from functions.core.replay import Prediction
from functions.core.replay_job import OVER, Job, let_go
from ops import integrations, records
from ops.chaos.killing import ports_of, processes_of
from ops.demo.stage import Stage
from ops.expectation import BANK, WHERE, balance
from ops.operator_api import Document
from ops.replays import Replays, of_stage
from ops.simulator import Fault, FaultMode

WAITS_AT_MOST = 1.2  # times as long as without a bulk replay
NOISE_MS = 20  # of a machine on which emulator, functions and providers share two processors
LIVE_EVERY_SECONDS = 0.2
PATIENCE = 600.0
_OUTAGE = "60m"
_LIVES_SECONDS = (0.05, 1.5)  # of a λ that is at work
_LOOK_SECONDS = 0.1

NEVER, THERE, LOST = "never", "there", "lost"
ONCE = "replayed succeeded, replayed 1 times"


@dataclass(slots=True)
class Replayed:
    """What was seen. Times in queue are milliseconds from the door to the worker's decision."""

    dead: Counter[str] = field(default_factory=Counter)
    plans: list[Mapping[str, int]] = field(default_factory=list)
    misjudged: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    killed: int = 0
    seconds: list[float] = field(default_factory=list)
    sent_again: int = 0
    problems: list[str] = field(default_factory=list)
    effects: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    alone_ms: list[int] = field(default_factory=list)
    beside_ms: list[int] = field(default_factory=list)

    @property
    def is_undelayed(self) -> bool:
        """Whether live events do not wait for a bulk replay, as far as can be told here."""
        difference_ms = statistics.median(self.beside_ms) - statistics.median(self.alone_ms)
        return self.ratio <= WAITS_AT_MOST or difference_ms <= NOISE_MS

    @property
    def ratio(self) -> float:
        """Of the medians: beside a bulk replay to without one."""
        return statistics.median(self.beside_ms) / max(1, statistics.median(self.alone_ms))


def play(stage: Stage, *, items: int, deaths: int, live: int, seed: int = 1) -> Replayed:
    """About so many dead items, half of which have come about; a first job beside `live` new events, and a second one
    whose λ is killed so many times.
    """
    seen = Replayed()
    integrations.of_stage(stage.stack).force("helpdesk", Health.HEALTHY, _OUTAGE, "let them die")
    told = _let_die(stage, items, seen)
    stage.story.tell("the helpdesk is back")
    seen.alone_ms = _times_in_queue(stage, _post_live(stage, "alone", live))
    replays, rng = of_stage(stage.stack, poll_seconds=0.5), random.Random(seed)  # noqa: S311  # repeatable, no secret

    first = _planned(replays, "HTTP_400", [NEVER], told, seen)
    began = time.monotonic()
    replays.approve(first["replay_id"], first["plan"]["hash"])
    beside = _post_live(stage, "beside", live)
    _end(stage, replays, first, began, seen)
    seen.beside_ms = _times_in_queue(stage, beside)

    second = _planned(replays, "HTTP_503", [THERE, LOST], told, seen)
    mark = max(one.seq for one in stage.simulator.requests("helpdesk"))
    began = time.monotonic()
    replays.approve(second["replay_id"], second["plan"]["hash"])
    seen.killed = _kill(stage, second["replay_id"], deaths, rng)
    _end(stage, replays, second, began, seen)

    stage.story.wait("nothing is left open", stage.unsettled(stage.expectations), seconds=PATIENCE, every=1.0)
    integrations.of_stage(stage.stack).lift("helpdesk", "the drill is over")
    _look(stage, told, mark, seen)
    return seen


# ------------------------------------------------------------------------------------------------------------ the dead


def _let_die(stage: Stage, items: int, seen: Replayed) -> dict[str, str]:
    """Dead items by recovery id, each with what has become of it at the provider: refused at once; done, and the
    answers were errors; never done. Two for each message, a tag and a team.
    """
    letters = {NEVER: items // 5, THERE: items // 4, LOST: items // 20}
    letters[NEVER] = items // 2 - letters[THERE] - letters[LOST]
    unreadable = Fault("helpdesk", FaultMode.STATUS, operation="get_ticket", status=503)
    phases: Sequence[tuple[str, Sequence[Fault]]] = (
        (NEVER, [Fault("helpdesk", FaultMode.STATUS, status=400)]),
        (THERE, [unreadable, Fault("helpdesk", FaultMode.STATUS_AFTER_EFFECT, status=503)]),
        (LOST, [Fault("helpdesk", FaultMode.STATUS, status=503)]),
    )
    became: dict[str, str] = {}
    for name, faults in phases:
        stage.simulator.clear_faults()
        stage.simulator.add_faults(*faults)
        made = stage.letters(name, (BANK,), letters[name])
        stage.post([delivery for delivery, _ in made])
        became |= dict.fromkeys(stage.expect(made), name)
        _await(stage, f"the {name} have failed once", partial(_rows, stage, became), 2 * len(became))

    def dead() -> dict[str, str]:
        rows = _rows(stage, became)
        return {one: name for one, (name, row) in rows.items() if row["status"] in (Status.FAILED, Status.DLQ)}

    _await(stage, "they are dead", dead, 2 * len(became))
    stage.simulator.clear_faults()
    found = dead()
    seen.dead.update(found.values())
    return found


def _rows(stage: Stage, became: Mapping[str, str]) -> dict[str, tuple[str, records.Item]]:
    """The rows of these conversations' events, each with what the conversation's name says."""
    of_event = {str(item["event_id"]): became[one] for one, item in stage.ledger().items() if one in became}
    return {
        str(row["pk"]): (of_event[str(row["event_id"])], row)
        for row in records.all_rows(stage.stack)
        if str(row["event_id"]) in of_event
    }


def _await(stage: Stage, what: str, find: Callable[[], Sized], wanted: int) -> None:
    def missing() -> str:
        found = len(find())
        return "" if found >= wanted else f"{found} of {wanted}"

    stage.story.wait(what, missing, seconds=PATIENCE, every=2.0)


def _planned(replays: Replays, code: str, which: Collection[str], told: Mapping[str, str], seen: Replayed) -> Document:
    """A plan of what failed with that code, compared item by item with what died so."""
    wanted = {"integration": ["helpdesk"], "failure_code": [code]}
    job = replays.plan(wanted, "the helpdesk is back")
    meant = {one for one, name in told.items() if name in which}
    items = {item["recovery_id"]: item["prediction"] for item in replays.items(job["replay_id"])}
    # A tag may be set again and a team is read first: neither does any harm that would have to be asked about.
    seen.misjudged += [
        f"{one}: {prediction}, and it is {told.get(one, 'none of the dead')}"
        for one, prediction in items.items()
        if one not in meant or prediction != Prediction.WOULD_SEND
    ]
    seen.misjudged += [f"{one}: not in the plan" for one in sorted(meant - items.keys())]
    seen.plans.append(job["plan"]["counts"])
    return job


# ------------------------------------------------------------------------------------------------------------- the runs


def _end(stage: Stage, replays: Replays, job: Document, began: float, seen: Replayed) -> None:
    for now in replays.follow(job["replay_id"]):
        if now["state"] in OVER or time.monotonic() - began > PATIENCE:
            break
    seen.seconds.append(time.monotonic() - began)
    seen.states.append(now["state"])
    seen.outcomes.update(now["progress"]["outcomes"])
    seen.batches += now["progress"]["batches"]
    stage.story.tell(
        f"{now['replay_id']} is {now['state']}: {now['progress']['outcomes']} {now.get('stop_reason', '')}"
    )


def _kill(stage: Stage, replay_id: str, deaths: int, rng: random.Random) -> int:
    """Kill λ's process wherever it is, again and again; how many times. The lease of one that is dead would last a
    minute and a half: it is taken from it, as if that time had passed.
    """
    jobs = DynamoReplayJobs(
        stage.stack.client("dynamodb"), SystemIds(), control_table=stage.stack.output("ControlTable")
    )
    emulator = stage.running.process("emulator").pid
    function = stage.stack.output("ReplayFunction")
    killed, end = 0, time.monotonic() + PATIENCE
    while killed < deaths and time.monotonic() < end:
        job = jobs.get(replay_id)
        if job is None or job.state in OVER:
            break
        if not _is_worked_on(job):
            time.sleep(_LOOK_SECONDS)
            continue
        time.sleep(rng.uniform(*_LIVES_SECONDS))
        job = jobs.get(replay_id)
        working = [pid for pid in processes_of(emulator, function) if ports_of(pid)]
        if job is None or not _is_worked_on(job) or not working:
            continue
        for pid in working:
            os.kill(pid, signal.SIGKILL)
        killed += 1
        job = jobs.get(replay_id)
        if job is not None and _is_worked_on(job):
            jobs.store(let_go(job, _now_ms()))
    return killed


def _is_worked_on(job: Job) -> bool:
    return bool(job.lease_owner) and job.lease_until_ms > _now_ms()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


# ----------------------------------------------------------------------------------------------------------------- live


def _post_live(stage: Stage, name: str, count: int) -> list[str]:
    """New events, one after the other at a steady pace; gives their conversations."""
    letters = stage.letters(name, (WHERE, BANK), count)
    began = time.monotonic()
    for number, (delivery, _) in enumerate(letters):
        time.sleep(max(0.0, began + number * LIVE_EVERY_SECONDS - time.monotonic()))
        stage.post([delivery], concurrency=1)
    return stage.expect(letters)


def _times_in_queue(stage: Stage, conversations: Sequence[str]) -> list[int]:
    stage.story.wait("the live events are settled", stage.unsettled(conversations), seconds=PATIENCE, every=1.0)
    ledger = stage.ledger()
    return sorted(int(ledger[one]["decision"]["at"]) - int(ledger[one]["received_at"]) for one in conversations)


# ----------------------------------------------------------------------------------------------------------- afterwards


def _look(stage: Stage, told: Mapping[str, str], mark: int, seen: Replayed) -> None:
    """What the provider has in the end, and what our tables say."""
    found = balance(stage.expectations, stage.simulator.effects("helpdesk"))
    seen.effects, seen.problems = found.effects, found.problems
    of_event = {str(item["event_id"]): one for one, item in stage.ledger().items()}
    rows = {str(row["pk"]): row for row in records.all_rows(stage.stack)}
    there = {of_event[str(rows[one]["event_id"])] for one, name in told.items() if name == THERE}
    seen.sent_again = sum(
        one.target in there and one.seq > mark for one in stage.simulator.requests("helpdesk", "assign")
    )
    for recovery_id in told:
        row = rows[recovery_id]
        seen.rows[f"{row['status']} {row.get('result', '')}, replayed {row.get('replay_no', 0)} times"] += 1


def verdicts(seen: Replayed, deaths: int) -> list[tuple[str, bool, Sequence[str]]]:
    """Every promise with its figure, whether it held, and details where it did not."""
    dead = seen.dead.total()
    plans = " and ".join(str(dict(counts)) for counts in seen.plans)
    seconds = " and ".join(f"{each:.0f} s" for each in seen.seconds)
    ended = f"both jobs finished, in {seconds} and {seen.batches} batches: {dict(seen.outcomes)}"
    is_ended = seen.states == ["finished", "finished"] and seen.outcomes["succeeded"] == dead
    alone, beside = (statistics.median(times) for times in (seen.alone_ms, seen.beside_ms))
    waited = (
        f"{len(seen.beside_ms)} live events waited {beside:.0f} ms beside a bulk replay and {alone:.0f} ms without one "
        f"(medians): {seen.ratio:.2f} times as long; nine in ten at most {_most(seen.beside_ms)} and "
        f"{_most(seen.alone_ms)} ms"
    )
    return [
        (
            f"{dead} items were dead ({dict(seen.dead)}), each rightly planned: {plans}",
            not seen.misjudged,
            seen.misjudged,
        ),
        (ended, is_ended, seen.states),
        (f"λ was killed {seen.killed} times at its work", seen.killed >= deaths, []),
        (f"each was replayed once: {dict(seen.rows)}", dict(seen.rows) == {ONCE: dead}, []),
        (f"{seen.sent_again} teams that had been assigned were assigned again", seen.sent_again == 0, []),
        (f"all effects are there, {seen.effects}, each once", not seen.problems, seen.problems),
        (waited, seen.is_undelayed, []),
    ]


def _most(times: Sequence[int]) -> int:
    return sorted(times)[len(times) * 9 // 10]
