"""`holdfast rejections`, and the reading of the door's log: bounded, newest first, whatever stands in it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from functions.core.clock import SystemClock
from functions.ingress.answers import Rejection
from ops import door_log
from ops.cli import rejections as command
from ops.cli import run
from ops.cli.console import ExitCode
from ops.door_log import ACCEPTED, REFUSED, DoorLog, line_of, rejections, sightings
from ops.sources import StoredSources
from ops.stack import Stack
from tests.ingress_fakes import Gate

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
_TERMS = re.compile(r'("[^"\\]+"( "[^"\\]+")*)?')


@dataclass
class Log:
    """CloudWatch Logs as it answers FilterLogEvents: forwards, in pages, both ends included. Of a pattern only the form
    is looked at: quoted terms.

    `hides_token`: cuts a page off at its limit and says nothing of more, as the emulator does.
    """

    events: list[tuple[int, str]] = field(default_factory=list)
    page: int = 10_000
    hides_token: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)

    def add(self, at_ms: int, message: str = REFUSED, **more: Any) -> None:
        line = {"service": "ingress", "message": message, "timestamp": at_ms, "provider": "github", **more}
        self.events.append((at_ms, json.dumps(line)))

    def filter_log_events(self, **request: Any) -> dict[str, Any]:
        self.asked.append(request)
        if _TERMS.fullmatch(request.get("filterPattern", "")) is None:
            wrong = {"Error": {"Code": "InvalidParameterException", "Message": "Invalid filter pattern"}}
            raise ClientError(wrong, "FilterLogEvents")  # type: ignore[arg-type]  # as little as is looked at
        wanted = [
            {"timestamp": at_ms, "message": text, "eventId": str(number)}
            for number, (at_ms, text) in enumerate(self.events)
            if request["startTime"] <= at_ms <= request["endTime"]
        ]
        wanted.sort(key=lambda event: event["timestamp"])  # type: ignore[arg-type, return-value]  # a number
        begin = int(request.get("nextToken", 0))
        page = {"events": wanted[begin : begin + self.page]}
        if begin + self.page < len(wanted) and not self.hides_token:
            page["nextToken"] = str(begin + self.page)  # type: ignore[assignment]  # as AWS mixes them
        return page


def refused(log: Log, hours: float = 1, limit: int = 50, source: str = "", reason: str = "") -> door_log.Rejections:
    since_ms = NOW_MS - int(hours * HOUR_MS)
    return rejections(DoorLog(log, "group"), since_ms, NOW_MS, source=source, reason=reason, limit=limit)


# ------------------------------------------------------------------------------------------------------ reading the log


def test_an_empty_log_and_one_that_was_never_written_hold_no_rejection() -> None:
    class Nothing:
        def filter_log_events(self, **_: object) -> dict[str, Any]:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": ""}}, "FilterLogEvents")

    for log in (Log(), Nothing()):
        found = rejections(DoorLog(log, "group"), NOW_MS - HOUR_MS, NOW_MS, source="", reason="", limit=10)
        assert (found.newest, found.counts, found.is_complete) == ((), {}, True)


def test_trouble_with_the_log_is_no_empty_log() -> None:
    class Denied:
        def filter_log_events(self, **_: object) -> dict[str, Any]:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": ""}}, "FilterLogEvents")

    with pytest.raises(ClientError):
        rejections(DoorLog(Denied(), "group"), NOW_MS - HOUR_MS, NOW_MS, source="", reason="", limit=10)


def test_rejections_come_newest_first_across_slices_and_all_are_counted() -> None:
    log = Log()
    for number in range(200):
        log.add(NOW_MS - number * 17_000, source="shop", reason="bad_signature" if number % 2 else "stale")
    found = refused(log, hours=1, limit=5)
    assert [line.at_ms for line in found.newest] == [NOW_MS - number * 17_000 for number in range(5)]
    assert found.counts == {"bad_signature": 100, "stale": 100}
    assert found.is_complete
    assert all(request["filterPattern"] == '"webhook refused"' for request in log.asked)


def test_what_lies_outside_the_window_or_is_not_asked_for_is_left_out() -> None:
    log = Log()
    log.add(NOW_MS - 2 * HOUR_MS, source="shop", reason="stale")
    log.add(NOW_MS - 1000, source="shop", reason="stale", message=ACCEPTED)
    log.add(NOW_MS - 900, source="shop-eu", reason="stale")
    log.add(NOW_MS - 800, source="shop", reason="throttled", why="stale shop")
    log.add(NOW_MS - 700, source="shop", reason="stale", request_id="this one")
    found = refused(log, source="shop", reason="stale")
    assert [line.request_id for line in found.newest] == ["this one"]
    assert log.asked[0]["filterPattern"] == '"webhook refused" "shop" "stale"'


@pytest.mark.parametrize("hides_token", [False, True])
def test_a_page_that_is_full_is_read_on(monkeypatch: pytest.MonkeyPatch, hides_token: bool) -> None:
    monkeypatch.setattr("functions.adapters.door_log.PAGE_LINES", 10)
    log = Log(page=10, hides_token=hides_token)
    for number in range(35):
        log.add(NOW_MS - number * 100, request_id=str(number), reason="stale")
    found = refused(log)
    assert [line.request_id for line in found.newest] == [str(number) for number in range(35)]


def test_a_log_as_long_as_an_attack_is_read_within_bounds_newest_first_and_says_how_far() -> None:
    log = Log(page=10)
    for number in range(20_000):
        log.add(NOW_MS - number * 1000, reason="unknown_source")
    found = refused(log, hours=24, limit=3)
    assert len(log.asked) == door_log.MAX_PAGES
    assert not found.is_complete
    assert found.newest[0].at_ms == NOW_MS
    assert NOW_MS - 24 * HOUR_MS < found.since_ms < NOW_MS


LINES_THAT_ARE_NONE = [
    "",
    "START RequestId: 1 Version: $LATEST",
    "{",
    "[]",
    "null",
    '"webhook refused"',
    '{"message": "webhook refused"}',
    '{"service": "worker", "message": "webhook refused"}',
    '{"service": "ingress", "message": ["webhook refused"]}',
    "[" * 100_000,
    '{"service": "ingress", "message": "webhook refused", "timestamp": ' + "9" * 5000 + "}",
]


@pytest.mark.parametrize("text", LINES_THAT_ARE_NONE, ids=range(len(LINES_THAT_ARE_NONE)))
def test_a_line_that_is_none_of_ingress_is_passed_over(text: str) -> None:
    log = Log(events=[(NOW_MS - 5, text)])
    log.add(NOW_MS - 4, reason="stale")
    assert len(refused(log).newest) == 1


@given(
    st.dictionaries(
        st.sampled_from(
            ["timestamp", "status", "source", "provider", "why", "reason", "headers_missing", "header_malformed"]
        ),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers() | st.text())),
    )
)
def test_a_line_of_ingress_is_read_whatever_its_fields_hold(fields: dict[str, Any]) -> None:
    line = line_of(json.dumps({"service": "ingress", "message": REFUSED, **fields}), NOW_MS)
    assert line is not None
    assert isinstance(line.at_ms, int)
    assert all(isinstance(name, str) for name in (*line.headers_missing, *line.header_malformed, line.why))


def test_what_ingress_itself_writes_is_read_back() -> None:
    gate = Gate()
    gate.parameters.put(
        "shop", tenant="acme", provider="github", flow="support", secrets=[{"secret": "s"}], state="active"
    )
    gate.send("shop", {"x-hub-signature-256": "sha256=" + "0" * 64}, b"{}", request_id="forged=")
    gate.send("nobody", {}, b"{}", request_id="stranger=")
    known, stranger = (line_of(text, 0) for text in gate.lines)
    assert known is not None
    assert stranger is not None
    assert (known.is_refused, known.source, known.provider, known.status) == (True, "shop", "github", 401)
    assert (known.reason, known.request_id, known.at_ms) == ("bad_signature", "forged=", gate.clock.ms)
    assert known.why
    assert known.is_looked_up
    assert stranger.reason == "unknown_source"
    assert not stranger.is_looked_up


def test_of_each_source_the_newest_accepted_and_refused_delivery_is_found() -> None:
    log = Log()
    for number in range(3):
        log.add(NOW_MS - number * HOUR_MS, message=ACCEPTED, source="shop", secret_number=number + 1)
        log.add(NOW_MS - (number + 1) * HOUR_MS, source="shop", reason="stale", request_id=str(number))
    log.add(NOW_MS, source="quiet", reason="source_unavailable", provider="none")
    log.add(NOW_MS, message=ACCEPTED, source="another")
    found = sightings(DoorLog(log, "group"), ["shop", "quiet"], NOW_MS - 24 * HOUR_MS, NOW_MS)
    shop = found.seen["shop"]
    assert shop.accepted is not None
    assert shop.refused is not None
    assert (shop.accepted.at_ms, shop.accepted.secret_number, shop.refused.request_id) == (NOW_MS, 1, "0")
    # It was refused before ingress knew it, so that the name is only what somebody wrote into the address.
    assert found.seen["quiet"].refused is None
    assert found.accepted_since_ms == found.refused_since_ms == NOW_MS - 24 * HOUR_MS


def test_the_search_for_a_source_that_was_just_heard_stops_there() -> None:
    log = Log()
    log.add(NOW_MS, message=ACCEPTED, source="shop")
    log.add(NOW_MS, source="shop", reason="stale")
    sightings(DoorLog(log, "group"), ["shop"], NOW_MS - 24 * HOUR_MS, NOW_MS)
    assert [request["filterPattern"] for request in log.asked] == [f'"{word}" "shop"' for word in (ACCEPTED, REFUSED)]


# ---------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """The log that the command reads; the stage has one source, `kept`."""
    log = Log()
    monkeypatch.setattr(command, "stack_of", lambda _: Stack("dev", "us-east-1", {}))
    monkeypatch.setattr(DoorLog, "of", lambda _: DoorLog(log, "group"))
    monkeypatch.setattr(StoredSources, "names", lambda _: {"kept"})
    monkeypatch.setattr(SystemClock, "now_ms", lambda _: NOW_MS)
    return log


def test_every_reason_comes_with_advice() -> None:
    assert set(Rejection) <= set(command.ADVICE)


def test_rejections_are_told_with_what_was_wrong_and_what_to_do(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    log.add(
        NOW_MS - 1000,
        source="shop",
        reason="bad_signature",
        why="missing_header",
        status=401,
        request_id="abc=",
        headers_missing=["x-hub-signature-256", "x-hub-time"],
        header_malformed=["x-odd"],
    )
    assert run(["rejections"]) == ExitCode.OK
    told = capsys.readouterr().out
    for words in (
        "shop",
        "github",
        "401",
        "abc=",
        "missing_header; missing: x-hub-signature-256, x-hub-time; unreadable: x-odd",
        "holdfast verify --explain",
    ):
        assert words in told
    assert any(line.split()[:2] == ["1", "bad_signature"] for line in told.splitlines())


def test_the_one_request_that_a_sender_asks_about_is_found_by_its_id(
    log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, request_id in enumerate(("abc=", "abc", "xabc=")):
        log.add(NOW_MS - number, source="shop", reason="stale", request_id=request_id)
    assert run(["rejections", "--request-id", "abc=", "--json"]) == ExitCode.OK
    document = json.loads(capsys.readouterr().out)
    assert [line["request_id"] for line in document["rejections"]] == ["abc="]
    assert document["counts"] == {"stale": 1}
    assert '"abc="' in log.asked[-1]["filterPattern"]
    assert run(["rejections", "--request-id", "other"]) == ExitCode.OK
    assert "it was accepted, is older" in capsys.readouterr().err


def test_the_page_that_is_named_is_there_and_has_a_word_on_every_reason(
    log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    log.add(NOW_MS, source="shop", reason="stale")
    assert run(["rejections"]) == ExitCode.OK
    assert command.PAGE in capsys.readouterr().err
    page = (Path(__file__).resolve().parents[2] / command.PAGE).read_text()
    first = page.split("\n## 1. ")[1].split("\n## 2. ")[0]
    assert [reason.value for reason in Rejection if f"`{reason.value}`" not in first] == []


def test_a_source_that_is_none_of_ours_is_not_named(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    log.add(NOW_MS - 3, reason="unknown_source", provider="none")
    log.add(NOW_MS - 2, reason="source_unavailable", source="invented", provider="none")
    log.add(NOW_MS - 1, reason="source_unavailable", source="kept", provider="none")
    assert run(["rejections", "--json"]) == ExitCode.OK
    document = json.loads(capsys.readouterr().out)
    assert [line["source"] for line in document["rejections"]] == ["kept", "", ""]
    assert document["counts"] == {"source_unavailable": 2, "unknown_source": 1}
    assert document["complete"] is True


def test_what_strangers_wrote_cannot_steer_the_terminal(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    log.add(NOW_MS, reason="stale", source="shop", request_id="\x1b[2J", why="\x1b]0;x\x07[red]")
    assert run(["rejections"]) == ExitCode.OK
    assert "\x1b" not in capsys.readouterr().out


def test_nothing_refused_is_said_and_is_no_failure(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rejections", "--since", "7d", "--reason", "stale", "--source", "shop"]) == ExitCode.OK
    told = capsys.readouterr()
    assert told.out == ""
    assert "nothing was refused" in told.err
    assert log.asked[-1]["startTime"] == NOW_MS - 7 * 24 * HOUR_MS


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--since", "an hour"], ExitCode.REFUSED),
        (["--since", "-1h"], ExitCode.REFUSED),
        (["--since", "1" * 5000 + "h"], ExitCode.REFUSED),
        (["--source", 'x" || "'], ExitCode.REFUSED),
        (["--request-id", 'x" || "'], ExitCode.REFUSED),
        (["--reason", "because"], ExitCode.USAGE),
        (["--limit", "0"], ExitCode.USAGE),
        (["--limit", "100000"], ExitCode.USAGE),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_before_the_log_is_read(
    log: Log, arguments: list[str], code: ExitCode
) -> None:
    assert run(["rejections", *arguments]) == code
    assert log.asked == []
