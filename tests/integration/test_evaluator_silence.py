"""One source that is silent while the others go on is told of, and no log is asked for more than it must (002.2)."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest

from functions import observability
from functions.core.failure import StorageUnavailable, UnreadableItem
from functions.core.ports import DoorLine
from functions.core.silence import Expectation
from functions.core.subjects import SourcesFound
from functions.evaluator.silence import SilenceDuty
from tests.control_fakes import FakeExpectations, FakeFoundSources
from tests.fakes import NOON_MS, FakeClock, FakeDoor, Faults

MINUTE = 60_000
SHOP = Expectation("shop", 1_800, since_ms=NOON_MS - 100 * MINUTE)


class Watch:
    def __init__(self, *expected: Expectation) -> None:
        self.clock = FakeClock(NOON_MS)
        self.faults = Faults()
        self.expectations = FakeExpectations(self.faults)
        self.expectations.expected = list(expected)
        self.door = FakeDoor(self.faults)
        self.found = FakeFoundSources(self.faults)
        self.log = io.StringIO()
        self.lines: list[str] = []
        self.metrics = observability.metrics("evaluator", "test", self.lines.append)
        self.duty = self.environment()

    def environment(self, scale: float = 1.0) -> SilenceDuty:
        log = observability.logger("silence-test", stream=self.log)
        log.handlers[0].setStream(self.log)  # type: ignore[attr-defined]  # the logger of that name is shared
        return SilenceDuty(self.expectations, self.door, self.found, scale, self.clock, log, self.metrics)

    def accepts(self, source: str, minutes_ago: int = 0, *, refused: bool = False) -> None:
        self.door.lines.append(DoorLine(self.clock.now - minutes_ago * MINUTE, is_refused=refused, source=source))

    def minute(self, minutes: int = 1) -> int:
        silent = 0
        for _ in range(minutes):
            self.clock.advance(MINUTE)
            silent = self.duty.run(self.clock.now + 40_000)
        return silent

    def gauge(self) -> float:
        self.metrics.flush()
        found = [json.loads(line)["sources_silent"][0] for line in self.lines if "sources_silent" in line]
        return float(found[-1])

    @property
    def asked(self) -> int:
        return self.faults.calls.count("door.accepted")


def test_a_source_that_falls_silent_is_a_number_and_named_in_the_log_until_it_speaks_again() -> None:
    """002.2: others go on, and do not hide it."""
    watch = Watch(SHOP)
    watch.accepts("shop")
    for _ in range(30):
        watch.accepts("desk")
        assert watch.minute() == 0
    watch.accepts("desk")
    assert watch.minute() == 1
    assert watch.gauge() == 1
    assert '"source":"shop"' in watch.log.getvalue().replace(" ", "")
    watch.accepts("shop")
    assert watch.minute() == 0
    assert watch.gauge() == 0


def test_what_is_refused_is_no_sign_of_life() -> None:
    """A secret that was changed on one side silences a source as well."""
    watch = Watch(SHOP)
    watch.accepts("shop", refused=True)
    assert watch.minute() == 1


def test_a_busy_source_is_asked_about_once_in_its_gap() -> None:
    watch = Watch(SHOP)
    for _ in range(90):
        watch.accepts("shop")
        assert watch.minute() == 0
    assert watch.asked <= 4


def test_a_source_that_may_be_silent_is_never_asked_about() -> None:
    watch = Watch()
    assert watch.minute(60) == 0
    assert watch.asked == 0


def test_a_new_entry_has_its_gap_to_speak_for_the_first_time() -> None:
    watch = Watch(replace(SHOP, since_ms=NOON_MS))
    assert watch.minute(30) == 0
    assert watch.minute() == 1


def test_a_log_that_is_too_long_to_be_read_accuses_nobody_and_says_so() -> None:
    watch = Watch(SHOP)
    watch.door.reaches_to_ms = NOON_MS
    assert watch.minute() == 0
    watch.metrics.flush()
    assert any("silence_cut_short" in line for line in watch.lines)


def test_entries_are_read_every_other_minute_and_what_changed_holds_from_then() -> None:
    watch = Watch(SHOP)
    watch.minute()
    watch.expectations.expected = []
    assert watch.minute() == 1
    assert watch.minute() == 0
    assert watch.faults.calls.count("expectations.read") == 2


# ------------------------------------------------------------------------------------------------------ kept by name


def test_who_is_silent_is_kept_by_name_since_its_last_event_until_it_speaks_again() -> None:
    """001.9: the page says which one, and since when."""
    watch = Watch(SHOP, replace(SHOP, source="desk"))
    watch.accepts("shop")
    watch.accepts("desk")
    for _ in range(30):
        watch.accepts("desk")
        watch.minute()
    assert watch.found.stored.silent == {}
    watch.minute()
    last_ms = NOON_MS
    assert watch.found.stored.silent == {"shop": last_ms}
    stores = watch.faults.calls.count("found_sources.store")
    watch.minute(3)
    assert watch.faults.calls.count("found_sources.store") == stores  # nothing new, nothing written
    watch.accepts("shop")
    watch.minute()
    assert watch.found.stored.silent == {}


def test_a_new_environment_goes_on_with_what_the_one_before_has_kept() -> None:
    """It has heard of no event: of one that it finds silent it knows that nothing came for its gap, and no more."""
    watch = Watch(SHOP)
    watch.minute()
    since_ms = watch.clock.now - 1_800_000
    assert watch.found.stored.silent == {"shop": since_ms}
    watch.duty = watch.environment()
    watch.minute(5)
    assert watch.found.stored == replace(watch.found.stored, silent={"shop": since_ms}, version=1)


def test_of_a_source_that_there_was_no_time_for_what_was_found_last_still_holds() -> None:
    watch = Watch(SHOP)
    watch.minute()
    kept = watch.found.stored
    assert watch.duty.run(watch.clock.now) == 0
    assert watch.found.stored == kept


def test_an_entry_that_nobody_can_read_is_kept_by_name_until_somebody_can() -> None:
    watch = Watch(SHOP)
    watch.accepts("shop")
    watch.minute()
    watch.expectations.unreadable = {"desk": NOON_MS - 5}
    watch.minute(2)
    assert watch.found.stored.unreadable == {"desk": NOON_MS - 5}
    watch.expectations.unreadable = {}
    watch.minute(2)
    assert watch.found.stored.unreadable == {}


def test_another_run_that_has_kept_something_meanwhile_is_read_and_gone_on_from() -> None:
    watch = Watch(SHOP)
    watch.accepts("shop")
    watch.minute()
    watch.found.stored = watch.found.stored.moved({"desk": NOON_MS}, {})
    watch.expectations.unreadable = {"desk": NOON_MS - 5}
    watch.minute(2)
    assert watch.found.stored.silent == {"desk": NOON_MS}
    watch.minute()
    assert (watch.found.stored.silent, watch.found.stored.unreadable) == ({}, {"desk": NOON_MS - 5})


@pytest.mark.parametrize("is_silent", [False, True])
def test_what_nobody_can_read_is_kept_anew_and_fails_no_minute_after(*, is_silent: bool) -> None:
    """A release that is gone back on may have written it another way: else each minute would fail from then on."""
    watch = Watch(SHOP)
    if not is_silent:
        watch.accepts("shop")
    watch.found.stored = SourcesFound({}, {}, 7)
    watch.faults.fail("found_sources.read", UnreadableItem("FS"), times=1)
    assert watch.minute() == is_silent
    assert (set(watch.found.stored.silent), watch.found.stored.version) == ({"shop"} if is_silent else set(), 1)
    assert "kept anew" in watch.log.getvalue()
    watch.duty = watch.environment()
    watch.minute()


@pytest.mark.parametrize("operation", ["found_sources.read", "found_sources.store"])
def test_what_cannot_be_kept_fails_the_duty_and_is_counted_all_the_same(operation: str) -> None:
    """The alarm goes by the number, and does not wait for a table."""
    watch = Watch(SHOP)
    watch.faults.fail(operation, times=1)
    with pytest.raises(StorageUnavailable):
        watch.minute()
    assert watch.gauge() == 1
    assert watch.minute() == 1
    assert set(watch.found.stored.silent) == {"shop"}


def test_without_time_nobody_is_accused_and_the_cut_is_counted() -> None:
    watch = Watch(SHOP)
    assert watch.duty.run(watch.clock.now) == 0
    watch.metrics.flush()
    assert any("silence_cut_short" in line for line in watch.lines)


def test_a_store_that_does_not_answer_fails_the_duty_and_tells_no_number() -> None:
    watch = Watch(SHOP)

    def down(operation: str) -> None:
        raise StorageUnavailable(f"{operation} does not answer")

    watch.faults.on_before = down
    with pytest.raises(StorageUnavailable):
        watch.minute()
    watch.metrics.flush()
    assert watch.lines == []
    watch.faults.on_before = None
    assert watch.minute() == 1


def test_on_a_shorter_clock_the_gap_is_shorter() -> None:
    watch = Watch(SHOP)
    watch.duty = watch.environment(1 / 60)
    watch.accepts("shop")
    watch.clock.advance(30_000)
    assert watch.duty.run(watch.clock.now + 1_000) == 0
    watch.clock.advance(1)
    assert watch.duty.run(watch.clock.now + 1_000) == 1
