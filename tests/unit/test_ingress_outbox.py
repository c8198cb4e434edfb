"""Where an accepted event becomes durable, and in what time."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from functions.core.clock import Deadline
from functions.core.event import ClaimCheck, Event, read_message
from functions.core.failure import StorageRefused, StorageUnavailable
from functions.ingress.outbox import DurableOutbox, Place, Stored
from tests.ingress_fakes import CountingIds, FakeObjects, FakeQueue

EVENT = Event("acme", "shop", "stripe", "support", "evt_1", "charge.failed", "", 7, "r", "t", "h", "c", b"body")
NOISE = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(31_250))
LARGE = replace(EVENT, body=NOISE)  # 1,000,000 bytes that do not zip: 1,333,336 in base64
DOWN = StorageUnavailable("timeout")


class World:
    """A queue and a bucket whose every try takes all the time that it is given."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.queue, self.bucket = SlowQueue(self), SlowObjects(self)
        self.outbox = DurableOutbox(self.queue, self.bucket, CountingIds())

    def store(self, event: Event = EVENT, seconds: float = 1.4) -> Stored:
        return self.outbox.store(event, Deadline.after(seconds, lambda: self.seconds))


class SlowQueue(FakeQueue):
    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def send(self, event: Event, message: str, timeout_seconds: float) -> None:
        self.world.seconds += timeout_seconds
        super().send(event, message, timeout_seconds)


class SlowObjects(FakeObjects):
    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def put(self, key: str, content: bytes, timeout_seconds: float) -> None:
        self.world.seconds += timeout_seconds
        super().put(key, content, timeout_seconds)


@pytest.fixture
def world() -> World:
    return World()


def test_an_event_goes_to_the_queue_and_nowhere_else(world: World) -> None:
    assert world.store() == Stored(Place.QUEUE)
    assert world.queue.messages == [EVENT.to_message()]
    assert world.bucket.objects == {}


def test_what_the_queue_did_not_take_at_first_it_is_asked_once_more(world: World) -> None:
    world.queue.trouble = [DOWN, None]
    assert world.store() == Stored(Place.QUEUE, queue_trouble="timeout")
    assert world.queue.messages == [EVENT.to_message()]
    assert world.bucket.objects == {}


def test_what_the_queue_does_not_take_twice_waits_in_the_spill_by_its_time(world: World) -> None:
    world.queue.trouble = [DOWN]
    assert world.store() == Stored(Place.SPILL, queue_trouble="timeout")
    assert world.store(replace(EVENT, received_at_ms=1_760_000_000_000)).place is Place.SPILL
    assert len(world.queue.timeouts) == 4
    keys = sorted(world.bucket.objects)
    assert [key.rpartition("-")[0] for key in keys] == ["spill/0000000000007", "spill/1760000000000"]
    assert read_message(world.bucket.objects[keys[0]].decode()) == EVENT


def test_what_the_queue_refuses_for_good_is_spilled_at_once(world: World) -> None:
    world.queue.trouble = [StorageRefused("AccessDenied")]
    assert world.store() == Stored(Place.SPILL, queue_trouble="AccessDenied")
    assert len(world.queue.timeouts) == 1


def test_the_same_event_twice_is_two_objects_of_the_spill(world: World) -> None:
    world.queue.trouble = [DOWN]
    world.store()
    world.store()
    assert len(world.bucket.objects) == 2


def test_an_event_that_nothing_takes_is_said_not_to_be_stored_with_both_reasons(world: World) -> None:
    world.queue.trouble = [DOWN]
    world.bucket.trouble = [StorageUnavailable("SlowDown")]
    with pytest.raises(StorageUnavailable, match=r"timeout; SlowDown"):
        world.store()


@pytest.mark.parametrize("event", [EVENT, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("seconds", [1.4, 0.8])
def test_whatever_fails_slowly_the_deadline_holds_and_the_last_resort_has_a_tenth_of_it(
    world: World, event: Event, seconds: float
) -> None:
    world.queue.trouble = [DOWN]
    world.bucket.trouble = [None, DOWN] if event is LARGE else [DOWN]
    with pytest.raises(StorageUnavailable):
        world.store(event, seconds)
    assert world.seconds <= seconds
    assert world.bucket.timeouts[-1] >= seconds * 0.1


def test_an_envelope_too_large_for_the_queue_waits_in_the_bucket_for_its_claim_check(world: World) -> None:
    assert world.store(LARGE) == Stored(Place.QUEUE, is_claimed=True)
    ((key, content),) = world.bucket.objects.items()
    (message,) = world.queue.messages
    check = read_message(message)
    assert isinstance(check, ClaimCheck)
    assert check.reference == key
    assert check.redeemed(Event.from_message(content.decode())) == LARGE


def test_a_claim_check_that_the_queue_does_not_take_is_spilled_like_any_message(world: World) -> None:
    world.queue.trouble = [DOWN]
    assert world.store(LARGE) == Stored(Place.SPILL, is_claimed=True, queue_trouble="timeout")
    claim, spilled = sorted(world.bucket.objects)
    check = read_message(world.bucket.objects[spilled].decode())
    assert isinstance(check, ClaimCheck)
    assert check.reference == claim


def test_a_claim_that_is_not_stored_sends_no_check(world: World) -> None:
    world.bucket.trouble = [DOWN]
    with pytest.raises(StorageUnavailable):
        world.store(LARGE)
    assert world.queue.timeouts == []
    assert len(world.bucket.timeouts) == 2


def test_the_bucket_is_asked_once_more_unless_it_refuses(world: World) -> None:
    world.queue.trouble = [DOWN]
    world.bucket.trouble = [DOWN, None]
    assert world.store().place is Place.SPILL
    world.bucket.trouble, world.bucket.timeouts = [StorageRefused("AccessDenied")], []
    with pytest.raises(StorageUnavailable, match="AccessDenied"):
        world.store()
    assert len(world.bucket.timeouts) == 1
