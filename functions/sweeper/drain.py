"""Empties the spill into the events queue (architecture §5): at least once into the queue, processed once.

An object leaves by having been sent, or by being a recovery row of `intake`, and not before. So a crash anywhere
repeats a step and loses nothing, and what was sent twice the ledger makes one of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock
from typing import Protocol, TypeVar

from aws_lambda_powertools import Logger

from functions.core import sweep
from functions.core.clock import Clock, Ids
from functions.core.event import MAX_INLINE_BYTES, ClaimCheck, read_message
from functions.core.failure import MalformedEnvelope, StorageRefused, StorageUnavailable
from functions.core.ports import EventsQueue, Spill, Spilled
from functions.core.triage import judge_refused, judge_spilled_unreadable
from functions.dead_letters import DeadLetters, Recorded
from functions.observability import Metrics

THREADS = 16


class Outcome(StrEnum):
    """What became of one object. The values are metrics."""

    SENT = "spill_sent"
    UNREADABLE = "spill_unreadable"
    REFUSED = "spill_refused"
    GONE = "spill_gone"
    NOT_FETCHED = "spill_not_fetched"
    NOT_ACCEPTED = "spill_not_accepted"
    NOT_RECORDED = "spill_not_recorded"
    NOT_REMOVED = "spill_not_removed"
    FAILED = "spill_failed"
    NOT_REACHED = "spill_not_reached"


_LEFT = frozenset({Outcome.SENT, Outcome.UNREADABLE, Outcome.REFUSED, Outcome.GONE})


@dataclass(frozen=True, slots=True)
class Drained:
    """One object's outcome, and why it is still there."""

    spilled: Spilled
    outcome: Outcome
    why: str = ""


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class AtOnce(Protocol):
    """Does the work for each, several at a time, and returns when every one has ended: the results in their order."""

    def __call__(self, work: Callable[[_Item], _Result], items: Sequence[_Item], /) -> list[_Result]: ...


def in_threads(work: Callable[[_Item], _Result], items: Sequence[_Item], /) -> list[_Result]:
    """`AtOnce`, as it runs on Lambda."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, items))


class _Stays(Exception):
    """The object stays where it is. `outcome` says at which step."""

    def __init__(self, outcome: Outcome, why: str = "") -> None:
        super().__init__(why)
        self.outcome = outcome


@contextmanager
def _or_stays(outcome: Outcome) -> Iterator[None]:
    try:
        yield
    except StorageUnavailable as unavailable:
        raise _Stays(outcome, str(unavailable)) from unavailable


class Drain:
    """One duty of the sweeper. Remembers between ticks what it could not move: that goes last the next time, so that
    a few objects at the head, which nobody can fetch or send, do not keep the others waiting for ever.
    """

    def __init__(
        self,
        spill: Spill,
        events: EventsQueue,
        dead_letters: DeadLetters,
        clock: Clock,
        ids: Ids,
        log: Logger,
        metrics: Metrics,
        at_once: AtOnce,
    ) -> None:
        self._spill = spill
        self._events = events
        self._dead_letters = dead_letters
        self._clock = clock
        self._ids = ids
        self._log = log
        self._metrics = metrics
        self._at_once = at_once
        self._large = Lock()  # one at a time of what is larger than ingress writes: a tick has little memory
        self._set_back: set[str] = set()

    def run(self, until_ms: int) -> Counter[str]:
        """Send on what is there, the oldest first, as far as time goes; how many of each outcome.

        Stops at a chunk of which nothing left the spill: the queue is down, or the bucket. Raises `StorageUnavailable`
        where the spill cannot be listed. Afterwards says how much is left, and how old.
        """
        counts: Counter[str] = Counter()
        objects = self._spill.oldest("", sweep.DRAIN_PAGE)
        try:
            if objects:
                self._drain(objects, until_ms, counts)
        finally:
            for name, number in counts.items():
                self._metrics.count(name, number)
        self._measure(self._spill.oldest("", sweep.DRAIN_PAGE) if objects else objects)
        return counts

    def _drain(self, objects: list[Spilled], until_ms: int, counts: Counter[str]) -> None:
        known, last = frozenset(self._set_back), list[Spilled]()
        while objects:
            first = [spilled for spilled in objects if spilled.key not in known]
            last += [spilled for spilled in objects if spilled.key in known]
            if not self._chunks(first, until_ms, counts):
                return
            is_whole = len(objects) < sweep.DRAIN_PAGE
            objects = [] if is_whole else self._spill.oldest(objects[-1].key, sweep.DRAIN_PAGE)
        self._set_back -= known - {spilled.key for spilled in last}  # somebody else moved these
        self._chunks(last, until_ms, counts)

    def _chunks(self, objects: Sequence[Spilled], until_ms: int, counts: Counter[str]) -> bool:
        """Whether there is any use in going on.

        After a chunk of which nothing moved the newest one is asked. If that moves, the trouble was the first one's
        own, and it goes last from now on; if not, the queue is down, and the order stays as it is.
        """
        waiting = [objects[start : start + sweep.DRAIN_CHUNK] for start in range(0, len(objects), sweep.DRAIN_CHUNK)]
        suspects: set[str] = set()
        while waiting:
            if self._clock.now_ms() >= until_ms:
                counts["drains_cut_short"] += 1
                return False
            chunk = waiting.pop(-1 if suspects else 0)
            results = self._at_once(lambda spilled: self._drained(spilled, until_ms), chunk)
            counts["spill_seen"] += len(results)
            counts.update(result.outcome.value for result in results)
            left = {result.spilled.key for result in results if result.outcome in _LEFT}
            stuck = [result for result in results if result.outcome not in _LEFT]
            tried = {result.spilled.key for result in stuck if result.outcome is not Outcome.NOT_REACHED}
            self._say(stuck)
            self._set_back -= left
            if left:
                self._set_back |= suspects | tried
                suspects = set()
            elif suspects or not waiting:
                return False
            else:
                suspects = tried
        return True

    def _say(self, stuck: Sequence[Drained]) -> None:
        """One line for each kind of trouble, not for each object: with the queue down it would be all of them."""
        for (outcome, why), number in Counter((result.outcome, result.why) for result in stuck).items():
            if outcome is not Outcome.NOT_REACHED:
                self._log.error(
                    "spilled messages stay where they are, and are tried again",
                    extra={"duty": "drain", "outcome": outcome.value, "reason": why, "count": number},
                )

    def _measure(self, left: Sequence[Spilled]) -> None:
        """At least so many are left: one list tells of a thousand. For the alarm, so a zero is written too."""
        times = [at_ms for spilled in left if (at_ms := sweep.spilled_at(spilled.key)) is not None]
        self._metrics.count("spill_left", len(left))
        self._metrics.milliseconds("spill_oldest_age_ms", max(0, self._clock.now_ms() - min(times)) if times else 0)

    # ----------------------------------------------------------------------------------------------------- one object

    def _drained(self, spilled: Spilled, until_ms: int) -> Drained:
        """Runs beside others. One object's trouble, whatever it is, is not its neighbours'."""
        is_large = spilled.size_bytes > MAX_INLINE_BYTES
        try:
            with self._large if is_large else nullcontext():
                return Drained(spilled, self._moved(spilled.key, until_ms))
        except _Stays as stays:
            return Drained(spilled, stays.outcome, str(stays))
        except Exception as error:  # noqa: BLE001  # a defect met by one object: logged, counted, and it stays
            self._log.exception("a spilled message could not be worked", extra=_about(spilled.key))
            return Drained(spilled, Outcome.FAILED, type(error).__name__)

    def _moved(self, key: str, until_ms: int) -> Outcome:
        self._check_time(until_ms)
        with _or_stays(Outcome.NOT_FETCHED):
            content = self._spill.read(key)
        if content is None:
            return Outcome.GONE
        self._check_time(until_ms)
        outcome = self._passed_on(key, content)
        with _or_stays(Outcome.NOT_REMOVED):
            self._spill.remove(key)
        return outcome

    def _passed_on(self, key: str, content: bytes) -> Outcome:
        """To the queue, as it is: a claim check's object is not needed here. What cannot go there becomes a row."""
        try:
            text = _text(content)
            message = read_message(text)
        except MalformedEnvelope as malformed:
            finding = judge_spilled_unreadable(key, str(malformed))
            with _or_stays(Outcome.NOT_RECORDED):
                self._tell(key, self._dead_letters.unreadable(content, finding, self._ids.new_id()))
            return Outcome.UNREADABLE
        event = message.head if isinstance(message, ClaimCheck) else message
        with _or_stays(Outcome.NOT_ACCEPTED):
            try:
                self._events.send(event, text)
            except StorageRefused as refused:
                problem = str(refused)
            else:
                return Outcome.SENT
        with _or_stays(Outcome.NOT_RECORDED):
            self._tell(key, self._dead_letters.event(message, judge_refused(key, problem)))
        return Outcome.REFUSED

    def _check_time(self, until_ms: int) -> None:
        if self._clock.now_ms() >= until_ms:
            raise _Stays(Outcome.NOT_REACHED)

    def _tell(self, key: str, recorded: Recorded) -> None:
        row = recorded.row
        self._log.warning(
            "a spilled message cannot go into the queue and is a recovery item from here on",
            extra=_about(key)
            | {"tenant": row.tenant, "source": row.source, "event_id": row.event_id, "request_id": row.request_id}
            | recorded.about,
        )


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise MalformedEnvelope("the message is not UTF-8") from exc


def _about(key: str) -> dict[str, object]:
    return {"duty": "drain", "queue": "spill", "message_id": key}
