"""The drill of the intake: the events queue fails in every way there is, then the bucket as well, then both come back.

What must hold (architecture §5): while only the queue fails, every webhook is acknowledged and waits in the spill; with
the bucket gone too, none is; afterwards each accepted event is settled, its effects there once; and no answer takes
longer than 1.5 s.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

from functions.core.event import Event
from functions.core.synthetic import is_synthetic
from ops.demo.stage import Stage
from ops.drills.failing import Trouble, failing, pointed_at
from ops.expectation import BANK, WHERE, Balance, balance
from ops.function_logs import logged_by
from ops.traffic import Answer, Delivery, post_all

CONCURRENCY = 8
PATIENCE = 300.0
_LOG_SECONDS = 30.0


@dataclass(slots=True)
class Outage:
    """What was seen. `slowest_ms` is the longest that ingress itself took over one request, by its own log."""

    answers: Counter[int] = field(default_factory=Counter)
    spilled: int = 0
    answers_without_bucket: Counter[int] = field(default_factory=Counter)
    spilled_without_bucket: int = 0
    settled: bool = False
    left_in_spill: int = 0
    problems: list[str] = field(default_factory=list)
    effects: int = 0
    slowest_ms: dict[str, int] = field(default_factory=dict)


def play(stage: Stage, *, events: int, refused: int, pairs: int = len(Trouble), name: str = "outage") -> Outage:
    """`events` webhooks while the queue fails, a share of them in each way; `refused` more while the bucket does too,
    in so many pairs of ways.

    The sweeper cannot reach the queue either until the end, so that what is spilled can be counted.
    """
    seen = Outage()
    letters = stage.letters(name, (WHERE, BANK), events)
    troubles = list(Trouble)
    with ExitStack() as all_along:
        nowhere = all_along.enter_context(failing(Trouble.REFUSED))
        all_along.enter_context(pointed_at(stage.stack, "SweeperFunction", {"SQS": nowhere}))
        for number, trouble in enumerate(troubles):
            share = [delivery for delivery, _ in letters[number :: len(troubles)]]
            with failing(trouble) as queue, pointed_at(stage.stack, "IngressFunction", {"SQS": queue}):
                answers = stage.post(share, concurrency=CONCURRENCY)
                seen.answers.update(answer.status for answer in answers)
                seen.slowest_ms[trouble.value] = _slowest_ms(stage, answers)
        conversations = stage.expect(letters, may_be_held_back=True)
        waiting = spill(stage)
        # An answer of the bucket that came too late leaves an object behind and a sender who comes again.
        seen.spilled = len(_events_in(stage, waiting))
        seen.answers_without_bucket = _without_bucket(stage, refused, pairs, name, seen)
        seen.spilled_without_bucket = len(set(spill(stage)) - set(waiting))
    seen.settled = stage.story.wait(
        "every spilled event is settled", stage.unsettled(conversations), seconds=PATIENCE, every=1.0
    )
    stage.story.wait("the spill is empty", lambda: f"{len(spill(stage))} left" * bool(spill(stage)), seconds=60)
    seen.left_in_spill = len(spill(stage))
    wanted = set(conversations)
    expected = {one: stage.expectations[one] for one in conversations}

    def found() -> Balance:
        return balance(expected, [one for one in stage.simulator.effects("helpdesk") if one.target in wanted])

    def missing() -> str:
        problems = found().problems
        return f"{len(problems)} to go, the first: {problems[0]}" if problems else ""

    # What was settled may still wait as a row: for the helpdesk's health, or for its turn.
    stage.story.wait("every effect is there", missing, seconds=PATIENCE, every=1.0)
    seen.effects, seen.problems = found().effects, found().problems
    return seen


def spill(stage: Stage) -> list[str]:
    """The keys of what waits in the spill."""
    pages = stage.stack.client("s3").get_paginator("list_objects_v2")
    return [
        item["Key"]
        for page in pages.paginate(Bucket=stage.stack.output("Bucket"), Prefix="spill/")
        for item in page.get("Contents", [])
    ]


def _events_in(stage: Stage, keys: Iterable[str]) -> set[str]:
    """The ids of the events whose envelopes lie under these keys, without those that the stage sends itself."""
    s3, bucket = stage.stack.client("s3"), stage.stack.output("Bucket")
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        texts = pool.map(lambda key: s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode(), keys)
        events = [Event.from_message(text) for text in texts]
    return {event.event_id for event in events if not is_synthetic(event.flow)}


def _without_bucket(stage: Stage, count: int, pairs: int, name: str, seen: Outage) -> Counter[int]:
    """Answers while neither queue nor bucket works."""
    statuses: Counter[int] = Counter()
    troubles = list(Trouble)
    deliveries: Sequence[Delivery] = [delivery for delivery, _ in stage.letters(f"{name}-both", (WHERE,), count)]
    for number, trouble in enumerate(troubles[:pairs]):
        with (
            failing(trouble) as queue,
            failing(troubles[-1 - number]) as bucket,
            pointed_at(stage.stack, "IngressFunction", {"SQS": queue, "S3": bucket}),
        ):
            answers = post_all(deliveries[number::pairs], concurrency=CONCURRENCY)
            statuses.update(answer.status for answer in answers)
            seen.slowest_ms[f"queue {trouble.value}, bucket {troubles[-1 - number].value}"] = _slowest_ms(
                stage, answers
            )
    return statuses


def _slowest_ms(stage: Stage, answers: Sequence[Answer]) -> int:
    """The longest that ingress took over these requests, from the line it writes about each."""
    wanted = {answer.request_id for answer in answers}
    deadline = time.monotonic() + _LOG_SECONDS
    while True:
        took = {
            str(line["request_id"]): int(str(line["duration_ms"]))
            for line in logged_by(stage.stack, "IngressFunction")
            if line.get("request_id") in wanted and "duration_ms" in line
        }
        if len(took) >= len(wanted) or time.monotonic() > deadline:
            return max(took.values(), default=-1)
        time.sleep(0.5)
