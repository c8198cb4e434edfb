"""`ports.Switches`, over the double and over the parameter store (architecture §9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from moto import mock_aws

from functions.adapters.ssm import REST_MS, SsmSwitches
from functions.core import ports
from functions.core.failure import StorageUnavailable
from functions.core.switches import Snapshot
from tests.aws_tables import sdk_client
from tests.contract.storage import Flaky, client_error
from tests.fakes import LIVE_SWITCHES, NOON_MS, FakeClock, FakeSwitches

PATH = "/holdfast/test/switches/"


@dataclass
class Board:
    """The switches as they are set, and the port that reads them."""

    clock: FakeClock
    switches: ports.Switches
    write: Callable[[str, str], None]
    remove: Callable[[str], None]
    break_down: Callable[[], None]
    stale: Callable[[], int]

    def values(self, max_age_ms: int) -> Mapping[str, str]:
        snapshot = self.switches.snapshot(max_age_ms)
        assert snapshot is not None
        return snapshot.values


def in_memory() -> Board:
    clock = FakeClock()
    switches = FakeSwitches(clock)

    def break_down() -> None:
        switches.is_down = True

    def write(name: str, value: str) -> None:
        switches.values[name] = value

    def remove(name: str) -> None:
        del switches.values[name]

    return Board(clock, switches, write, remove, break_down, lambda: switches.stale)


def in_ssm() -> Board:
    clock = FakeClock()
    client = sdk_client("ssm")
    flaky = Flaky(client)
    counted: list[str] = []

    def write(name: str, value: str) -> None:
        client.put_parameter(Name=PATH + name, Value=value, Type="String", Overwrite=True)

    def remove(name: str) -> None:
        client.delete_parameter(Name=PATH + name)

    def break_down() -> None:
        flaky.planned["get_parameters_by_path"] = [client_error("ThrottlingException")] * 1000

    for name, value in LIVE_SWITCHES.items():
        write(name, value)
    client.put_parameter(Name="/holdfast/test/other/mode", Value="hold", Type="String")
    switches = SsmSwitches(flaky, PATH, clock, counted.append)  # type: ignore[arg-type]  # it stands in for the client
    return Board(clock, switches, write, remove, break_down, lambda: counted.count("switches_stale"))


@pytest.fixture(params=["memory", "ssm"])
def board(request: pytest.FixtureRequest) -> Iterator[Board]:
    if request.param == "memory":
        yield in_memory()
        return
    with mock_aws():
        yield in_ssm()


def test_the_first_snapshot_is_read_and_holds_every_parameter(board: Board) -> None:
    assert board.switches.snapshot(5_000) == Snapshot(LIVE_SWITCHES, NOON_MS)
    assert board.stale() == 0


def test_parameters_beyond_the_first_page_and_below_scopes_count(board: Board) -> None:
    many = {f"limits/integration-{n}": "0.5" for n in range(25)} | {"tenant/acme/auto_reply": "off"}
    for name, value in many.items():
        board.write(name, value)
    assert board.values(0) == {**LIVE_SWITCHES, **many}


def test_a_snapshot_serves_until_it_is_too_old_for_the_one_who_asks(board: Board) -> None:
    board.switches.snapshot(0)
    board.write("auto_reply", "off")
    board.clock.advance(5_000)
    assert board.values(5_000)["auto_reply"] == "on"
    board.clock.advance(1)
    assert board.values(10_000)["auto_reply"] == "on"
    assert board.values(5_000)["auto_reply"] == "off"


def test_a_snapshot_from_before_the_clock_was_set_back_is_read_again(board: Board) -> None:
    board.values(5_000)
    board.clock.advance(-60_000)
    board.write("auto_reply", "off")
    assert board.values(5_000)["auto_reply"] == "off"
    board.write("auto_reply", "on")
    board.clock.advance(5_001)
    assert board.values(5_000)["auto_reply"] == "on"


def test_a_store_that_is_down_leaves_the_last_snapshot_with_its_age(board: Board) -> None:
    """A snapshot that could not be refreshed is never made to look younger."""
    first = board.switches.snapshot(0)
    board.break_down()
    board.clock.advance(60_000)
    assert board.switches.snapshot(5_000) == first
    assert board.stale() == 1


def test_a_store_that_was_never_read_gives_no_snapshot(board: Board) -> None:
    board.break_down()
    assert board.switches.snapshot(5_000) is None
    assert board.stale() == 1


def test_half_a_read_is_no_read(board: Board) -> None:
    first = board.switches.snapshot(0)
    board.remove("auto_reply")
    board.clock.advance(60_000)
    assert board.switches.snapshot(5_000) == first
    assert board.stale() == 1
    board.write("auto_reply", "off")
    board.clock.advance(60_000)
    assert board.values(5_000)["auto_reply"] == "off"


# ------------------------------------------------------------------------------------------ of the parameter store only


class Pages:
    """A parameter store that gives what it was told, page by page."""

    def __init__(self, *pages: dict[str, Any] | Exception) -> None:
        self.pages = list(pages)
        self.asked: list[dict[str, Any]] = []

    def get_parameters_by_path(self, **request: Any) -> dict[str, Any]:
        self.asked.append(request)
        page = self.pages.pop(0)
        if isinstance(page, Exception):
            raise page
        return page


def page(values: Mapping[str, str], token: str = "") -> dict[str, Any]:
    answer: dict[str, Any] = {"Parameters": [{"Name": PATH + name, "Value": value} for name, value in values.items()]}
    return answer | ({"NextToken": token} if token else {})


def test_a_read_that_breaks_off_between_pages_changes_nothing() -> None:
    off = page(dict.fromkeys(LIVE_SWITCHES, "off"), "more")
    store = Pages(page(LIVE_SWITCHES), off, client_error("InternalServerError"))
    clock = FakeClock()
    switches = SsmSwitches(store, PATH, clock)  # type: ignore[arg-type]  # it stands in for the client
    first = switches.snapshot(0)
    clock.advance(60_000)
    assert switches.snapshot(5_000) == first
    assert store.asked[2]["NextToken"] == "more"


def test_a_store_that_failed_is_left_alone_for_a_second() -> None:
    """A burst of sends must not queue up behind a store that is down."""
    store = Pages(client_error("ThrottlingException"), page(LIVE_SWITCHES))
    clock = FakeClock()
    switches = SsmSwitches(store, PATH, clock)  # type: ignore[arg-type]  # it stands in for the client
    assert [switches.snapshot(0) for _ in range(5)] == [None] * 5
    assert len(store.asked) == 1
    clock.advance(REST_MS)
    assert switches.snapshot(0) == Snapshot(LIVE_SWITCHES, NOON_MS + REST_MS)


def test_a_snapshot_is_as_old_as_the_moment_before_it_was_asked_for() -> None:
    clock = FakeClock()

    class Slow(Pages):
        def get_parameters_by_path(self, **request: Any) -> dict[str, Any]:
            clock.advance(400)
            return super().get_parameters_by_path(**request)

    store = Slow(page({}, "more"), page(LIVE_SWITCHES))
    switches = SsmSwitches(store, PATH, clock)  # type: ignore[arg-type]  # it stands in for the client
    assert switches.snapshot(0) == Snapshot(LIVE_SWITCHES, NOON_MS)


# ----------------------------------------------------------------------------------------------------------------- lag


@dataclass
class Lags:
    """The parameter store with a clock of its own, whoever asks it, and what was measured."""

    clock: FakeClock
    switches: SsmSwitches
    measured: list[tuple[str, float, str]]
    changed: dict[str, int]
    client: Any

    def change(self, name: str, value: str) -> None:
        """By whatever means: past everything of ours."""
        self.client.put_parameter(Name=PATH + name, Value=value, Type="String", Overwrite=True)
        self.changed[PATH + name] = self.clock.now


@pytest.fixture
def lags() -> Iterator[Lags]:
    with mock_aws():
        client = sdk_client("ssm")
        for name, value in LIVE_SWITCHES.items():
            client.put_parameter(Name=PATH + name, Value=value, Type="String")
        clock, measured = FakeClock(), list[tuple[str, float, str]]()
        changed: dict[str, int] = {}

        class Dated:
            """Moto's own moments are those of this machine's clock."""

            def get_parameters_by_path(self, **request: Any) -> Any:
                page = client.get_parameters_by_path(**request)
                for one in page["Parameters"]:
                    at_ms = changed.get(one["Name"], NOON_MS)
                    one["LastModifiedDate"] = datetime.fromtimestamp(at_ms / 1000, UTC)
                return page

        def measure(name: str, value: float, **dimensions: str) -> None:
            measured.append((name, value, dimensions["outcome"]))

        switches = SsmSwitches(Dated(), PATH, clock, measure=measure)  # type: ignore[arg-type]  # it stands in for the client
        yield Lags(clock, switches, measured, changed, client)


def test_for_how_long_the_old_value_was_gone_by_after_a_change_is_measured_for_replies_and_all_else(
    lags: Lags,
) -> None:
    """Propagation: what a kill switch takes to be obeyed, as the process itself sees it."""
    lags.switches.snapshot(30_000)
    lags.clock.advance(1_000)
    lags.change("auto_reply", "off")
    lags.clock.advance(3_000)
    lags.switches.snapshot(5_000)  # a reply: still by the old one
    lags.clock.advance(500)
    lags.switches.snapshot(30_000)  # a tag: likewise
    assert lags.measured == []
    lags.clock.advance(1_000)
    snapshot = lags.switches.snapshot(5_000)
    assert snapshot is not None
    assert snapshot.values["auto_reply"] == "off"
    assert sorted(lags.measured) == [
        ("switch_lag_ms", 3_000, "customer_visible"),
        ("switch_lag_ms", 3_500, "other"),
    ]
    lags.clock.advance(40_000)
    lags.switches.snapshot(5_000)
    assert len(lags.measured) == 2, "each change once"


def test_a_process_that_asked_nothing_meanwhile_went_by_nothing(lags: Lags) -> None:
    lags.switches.snapshot(5_000)
    lags.clock.advance(1_000)
    lags.switches.snapshot(5_000)
    lags.clock.advance(1_000)
    lags.change("mode", "hold")
    lags.clock.advance(3_600_000)
    lags.switches.snapshot(5_000)
    assert lags.measured == [("switch_lag_ms", 0, "customer_visible")]


def test_a_store_that_does_not_answer_is_lag_too(lags: Lags, monkeypatch: pytest.MonkeyPatch) -> None:
    lags.switches.snapshot(5_000)
    lags.change("mode", "hold")
    with monkeypatch.context() as broken:
        broken.setattr(lags.switches, "_read", _refuse)
        lags.clock.advance(8_000)
        lags.switches.snapshot(5_000)
    lags.clock.advance(REST_MS + 1)
    lags.switches.snapshot(5_000)
    assert lags.measured == [("switch_lag_ms", 8_000, "customer_visible")]


def test_the_first_read_of_a_process_finds_nothing_changed(lags: Lags) -> None:
    lags.change("mode", "hold")
    lags.switches.snapshot(5_000)
    assert lags.measured == []


def _refuse() -> Any:
    raise StorageUnavailable("it does not answer")
