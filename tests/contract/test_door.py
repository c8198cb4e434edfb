"""`ports.Door`, over the double and over a log as CloudWatch gives it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import pytest
from botocore.exceptions import ClientError

from functions.adapters.door_log import ACCEPTED, REFUSED, CloudWatchDoor
from functions.core.failure import StorageUnavailable
from functions.core.ports import Door, DoorLine
from tests.fakes import NOON_MS, FakeDoor
from tests.unit.test_rejections import Log

HOUR_MS = 3_600_000


@dataclass
class Doors:
    door: Door
    add: Callable[[DoorLine], None]


def doors_in_memory() -> Doors:
    door = FakeDoor()
    return Doors(door, door.lines.append)


def doors_over_a_log() -> Doors:
    log = Log()

    def add(line: DoorLine) -> None:
        fields = {name: text for name, text in asdict(line).items() if text and name not in ("at_ms", "is_refused")}
        log.add(line.at_ms, REFUSED if line.is_refused else ACCEPTED, **fields)

    return Doors(CloudWatchDoor(log, "group"), add)  # type: ignore[arg-type]  # it answers like a client


@pytest.fixture(params=[doors_in_memory, doors_over_a_log])
def doors(request: pytest.FixtureRequest) -> Doors:
    made: Doors = request.param()
    return made


def accepted(number: int) -> DoorLine:
    return DoorLine(
        NOON_MS - number * 60_000,
        is_refused=False,
        source="shop",
        provider="github",
        request_id=f"req-{number}",
        event_id=f"shop:{number}",
        status=202,
        tenant="acme",
        event_name="push",
        stored_in="queue",
    )


def refused(number: int, reason: str = "stale", source: str = "shop") -> DoorLine:
    return DoorLine(
        NOON_MS - number * 60_000,
        is_refused=True,
        source=source,
        provider="github",
        request_id=f"no-{number}",
        status=401,
        reason=reason,
    )


def test_a_request_is_found_whether_it_was_let_in_or_not(doors: Doors) -> None:
    for number in range(5):
        doors.add(accepted(number))
        doors.add(refused(number))
    since_ms = NOON_MS - HOUR_MS
    assert doors.door.sighting(since_ms, NOON_MS, request_id="req-3").line == accepted(3)
    assert doors.door.sighting(since_ms, NOON_MS, request_id="no-2").line == refused(2)
    nothing = doors.door.sighting(since_ms, NOON_MS, request_id="req-9")
    assert (nothing.line, nothing.since_ms, nothing.is_complete) == (None, since_ms, True)


def test_the_newest_delivery_of_an_event_is_found(doors: Doors) -> None:
    first, again = accepted(5), accepted(2)
    doors.add(first)
    doors.add(DoorLine(**{**asdict(again), "event_id": first.event_id}))
    found = doors.door.sighting(NOON_MS - HOUR_MS, NOON_MS, event_id=first.event_id).line
    assert found is not None
    assert found.request_id == "req-2"


def test_what_came_before_the_window_is_not_found(doors: Doors) -> None:
    doors.add(accepted(30))
    assert doors.door.sighting(NOON_MS - 29 * 60_000, NOON_MS, request_id="req-30").line is None


def test_refusals_are_narrowed_counted_and_bounded(doors: Doors) -> None:
    doors.add(accepted(1))
    for number in range(10):
        doors.add(refused(number, "stale" if number % 2 else "throttled", "shop" if number < 8 else "desk"))
    found = doors.door.rejections(NOON_MS - HOUR_MS, NOON_MS, source="shop", limit=3)
    assert [line.request_id for line in found.newest] == ["no-0", "no-1", "no-2"]
    assert dict(found.counts) == {"stale": 4, "throttled": 4}
    assert (found.since_ms, found.is_complete) == (NOON_MS - HOUR_MS, True)
    assert [line.request_id for line in doors.door.rejections(0, NOON_MS, request_id="no-9").newest] == ["no-9"]
    assert dict(doors.door.rejections(NOON_MS - HOUR_MS, NOON_MS, reason="stale").counts) == {"stale": 5}


def test_a_log_that_does_not_answer_is_no_empty_log() -> None:
    class Denied:
        def filter_log_events(self, **_: object) -> None:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": ""}}, "FilterLogEvents")

    door = CloudWatchDoor(Denied(), "group")  # type: ignore[arg-type]  # it answers like a client
    with pytest.raises(StorageUnavailable):
        door.sighting(0, NOON_MS, request_id="x")
    with pytest.raises(StorageUnavailable):
        door.rejections(0, NOON_MS)


def test_a_long_log_says_how_far_back_it_was_read() -> None:
    log = Log(page=10)
    for number in range(2000):
        log.add(NOON_MS - number * 1000, REFUSED, source="shop", reason="stale")
    door = CloudWatchDoor(log, "group", pages=5)  # type: ignore[arg-type]  # it answers like a client
    found = door.rejections(NOON_MS - HOUR_MS, NOON_MS)
    assert not found.is_complete
    assert found.since_ms > NOON_MS - HOUR_MS
    assert len(log.asked) == 5


def test_the_newest_accepted_delivery_of_a_source_is_found_and_nobody_elses_and_no_refusal(doors: Doors) -> None:
    """002.2"""
    for number in range(5, 9):
        doors.add(accepted(number))
    doors.add(refused(1))
    doors.add(DoorLine(**{**asdict(accepted(2)), "source": "shop-2"}))
    found = doors.door.accepted("shop", NOON_MS - HOUR_MS, NOON_MS)
    assert (found.line, found.is_complete) == (accepted(5), True)
    nothing = doors.door.accepted("shop", NOON_MS - 4 * 60_000, NOON_MS)
    assert (nothing.line, nothing.since_ms, nothing.is_complete) == (None, NOON_MS - 4 * 60_000, True)
    assert doors.door.accepted("desk", 0, NOON_MS).line is None


@pytest.mark.parametrize("identity", ['a"b', '"', "back\\slash", "größe", "a b", "tab\there"])
def test_an_event_is_found_whatever_stands_in_its_name(doors: Doors, identity: str) -> None:
    named = replace(accepted(1), event_id=f"shop:{identity}")
    doors.add(accepted(2))
    doors.add(named)
    assert doors.door.sighting(NOON_MS - HOUR_MS, NOON_MS, event_id=named.event_id).line == named
    assert doors.door.sighting(NOON_MS - HOUR_MS, NOON_MS, event_id=f"{named.event_id}!").line is None
