"""Where an accepted event becomes durable: the events queue, else the bucket's spill (architecture §5).

An envelope that no queue takes waits in the bucket, and its claim check goes the same way as any other message.
Whatever fails, the answer is due within the deadline: each try gets its share of the time that is left, so that the
last resort always has some.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from functions.core.clock import Deadline, Ids
from functions.core.event import MAX_INLINE_BYTES, SPILL, ClaimCheck, Event
from functions.core.failure import StorageRefused, StorageUnavailable

QUEUE_SHARE: Final = 0.4  # of what is left, for each of two tries: of 1.4 s that is 560 ms, then 336 ms
BUCKET_SHARE: Final = 0.6  # of what is left, for the first of two tries; the second has the rest
CLAIM_SHARE: Final = 0.5  # of what is left, for both tries of a claim: its check must still follow


class Place(StrEnum):
    """Where an event was stored."""

    QUEUE = "queue"
    SPILL = "spill"


@dataclass(frozen=True, slots=True)
class Stored:
    """An event is stored. `is_claimed`: its envelope is in the bucket, a claim check in its place.

    `queue_trouble`: what the queue said; empty when it took the first try.
    """

    place: Place
    is_claimed: bool = False
    queue_trouble: str = ""


class Outbox(Protocol):
    """Where accepted events become durable."""

    def store(self, event: Event, deadline: Deadline) -> Stored:
        """Return once the event is stored. Raises `StorageUnavailable`: nowhere, as far as anybody knows."""
        ...


class Queue(Protocol):
    """The events queue."""

    def send(self, event: Event, message: str, timeout_seconds: float) -> None:
        """Send `message`, which stands for `event`, in one try.

        Raises `StorageRefused` where a second try is of no use, else `StorageUnavailable`: it may be there all the
        same.
        """
        ...


class Objects(Protocol):
    """The bucket."""

    def put(self, key: str, content: bytes, timeout_seconds: float) -> None:
        """Store an object in one try. Raises like `Queue.send`."""
        ...


class DurableOutbox:
    """`Outbox` over a queue and a bucket."""

    def __init__(self, queue: Queue, bucket: Objects, ids: Ids) -> None:
        self._queue = queue
        self._bucket = bucket
        self._ids = ids

    def store(self, event: Event, deadline: Deadline) -> Stored:
        """See `Outbox`. An event may be stored twice (an answer got lost): the ledger makes one of the two."""
        message = event.to_message()
        is_claimed = len(message) > MAX_INLINE_BYTES
        if is_claimed:
            message = self._checked_in(event, message, deadline)
        try:
            return Stored(Place.QUEUE, is_claimed, self._sent(event, message, deadline))
        except StorageUnavailable as exc:
            trouble = str(exc)
        # By time first: the sweeper drains the oldest first. The id, since nothing may be written over.
        key = f"{SPILL}{event.received_at_ms:013d}-{self._ids.new_id()}"
        try:
            self._put(key, message, deadline)
        except StorageUnavailable as exc:
            raise StorageUnavailable(f"{trouble}; {exc}") from exc
        return Stored(Place.SPILL, is_claimed, trouble)

    def _sent(self, event: Event, message: str, deadline: Deadline) -> str:
        """Send it in two tries at most; gives what went wrong with the first, if anything."""
        try:
            self._queue.send(event, message, deadline.remaining_seconds() * QUEUE_SHARE)
        except StorageRefused:
            raise
        except StorageUnavailable as exc:
            self._queue.send(event, message, deadline.remaining_seconds() * QUEUE_SHARE)
            return str(exc)
        return ""

    def _checked_in(self, event: Event, envelope: str, deadline: Deadline) -> str:
        check = ClaimCheck.of(event, envelope)
        seconds = deadline.remaining_seconds() * CLAIM_SHARE
        self._put(check.reference, envelope, Deadline.after(seconds, deadline.monotonic))
        return check.to_message()

    def _put(self, key: str, text: str, deadline: Deadline) -> None:
        content = text.encode("ascii")
        try:
            self._bucket.put(key, content, deadline.remaining_seconds() * BUCKET_SHARE)
        except StorageRefused:
            raise
        except StorageUnavailable:
            self._bucket.put(key, content, deadline.remaining_seconds())
