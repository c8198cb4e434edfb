"""`holdfast logs`: what a function has logged lately that is not as it should be, bounded, whatever stands in it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from functions.core.clock import SystemClock
from ops.cli import run
from ops.cli.console import ExitCode
from ops.recent_log import PAGE_EVENTS, RecentLog, functions_of, line_of
from ops.stack import Stack, StackNotFound

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000


@dataclass
class Log:
    """CloudWatch Logs: forwards, in pages, both ends included. `hides_token`: as the emulator, which gives none."""

    events: list[tuple[int, str]] = field(default_factory=list)
    page: int = PAGE_EVENTS
    hides_token: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)
    trouble: str = ""

    def get_function_configuration(self, *, FunctionName: str) -> dict[str, Any]:  # noqa: N803  # Lambda's
        return {"LoggingConfig": {"LogGroup": f"/{FunctionName}"}}

    def filter_log_events(self, **request: Any) -> dict[str, Any]:
        self.asked.append(request)
        if self.trouble:
            raise ClientError({"Error": {"Code": self.trouble}}, "FilterLogEvents")
        wanted = sorted(
            (at_ms, number, text)
            for number, (at_ms, text) in enumerate(self.events)
            if request["startTime"] <= at_ms <= request["endTime"]
        )
        begin = int(request.get("nextToken", 0))
        part = wanted[begin : begin + self.page]
        page: dict[str, Any] = {
            "events": [{"timestamp": at_ms, "message": text, "eventId": str(number)} for at_ms, number, text in part]
        }
        if begin + self.page < len(wanted) and not self.hides_token:
            page["nextToken"] = str(begin + self.page)
        return page


def line(level: str = "ERROR", message: str = "it failed", **more: Any) -> str:
    return json.dumps({"level": level, "message": message, "service": "worker", "timestamp": "x", **more})


def newest(log: Log, limit: int = 20, **more: Any) -> Any:
    return RecentLog(log, "/worker").newest(NOW_MS - HOUR_MS, NOW_MS, limit=limit, **more)


def test_what_went_well_and_metrics_are_left_out() -> None:
    log = Log(
        [
            (NOW_MS - 3, line("INFO", "swept")),
            (NOW_MS - 2, json.dumps({"_aws": {}, "items_failed": 1})),
            (NOW_MS - 1, f"{line('INFO')}\n{line('WARNING', 'late')}\n\n"),
        ]
    )
    assert [one.message for one in newest(log).lines] == ["late"]
    assert [one.message for one in newest(log, everything=True).lines] == ["it failed", "late", "swept"]


@pytest.mark.parametrize(
    ("text", "level", "is_telling"),
    [
        ("Task timed out after 60 s", "", True),
        ('{"level": "INFO", "mess', "", True),
        ("[1, 2]", "", True),
        ('{"message": {"a": 1}, "level": 3}', "", True),
        ('{"type": "platform.start", "record": {"requestId": "r"}}', "INFO", False),
        ('{"type": "platform.report", "record": {"requestId": "r", "status": "success"}}', "INFO", False),
        ('{"type": "platform.report", "record": {"requestId": "r", "status": "timeout"}}', "ERROR", True),
        ('{"type": "platform.fault", "record": "RequestId: x Process exited"}', "ERROR", True),
        (line("warning"), "WARNING", True),
        ("[" * 100_000, "", True),
    ],
)
def test_lines_of_a_runtime_that_died_are_told(text: str, level: str, is_telling: bool) -> None:
    found = line_of(text, 5)
    assert found is not None
    assert (found.at_ms, found.level, found.is_telling) == (5, level, is_telling)
    assert len(found.message) <= 2_000


@given(
    st.text()
    | st.recursive(st.none() | st.integers() | st.text(), lambda of: st.lists(of) | st.dictionaries(st.text(), of)).map(
        json.dumps
    )
)
def test_whatever_is_logged_can_be_read(text: str) -> None:
    found = line_of(text, 1)
    assert found is None or isinstance(found.message, str)


@pytest.mark.parametrize("hides_token", [False, True])
def test_the_newest_come_first_however_long_the_log_is(hides_token: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.recent_log.PAGE_EVENTS", 100)
    log = Log([(NOW_MS - 1_000 * number, line(message=str(number))) for number in range(3_000)], 100, hides_token)
    found = newest(log, limit=150)
    assert [one.message for one in found.lines] == [str(number) for number in range(150)]
    assert found.is_complete
    every = newest(log, limit=10_000, pages=1_000)
    assert (len(every.lines), every.is_complete, every.since_ms) == (3_000, True, NOW_MS - HOUR_MS)


def test_what_was_not_read_is_said() -> None:
    log = Log([(NOW_MS - number, line("INFO", str(number))) for number in range(500)], page=10)
    found = newest(log, pages=5)
    assert (found.lines, found.is_complete) == ((), False)
    assert found.since_ms > NOW_MS - HOUR_MS


def test_a_phrase_is_asked_for_and_looked_for() -> None:
    log = Log([(NOW_MS - 2, line(request_id="r-1")), (NOW_MS - 1, f"{line(request_id='r-2')}\n{line('INFO')}")])
    found = newest(log, phrase="r-2", everything=True)
    assert [one.fields["request_id"] for one in found.lines] == ["r-2"]
    assert log.asked[0]["filterPattern"] == '"r-2"'


def test_a_function_that_never_ran_has_logged_nothing_and_a_refusal_is_one() -> None:
    assert newest(Log(trouble="ResourceNotFoundException")).lines == ()
    with pytest.raises(ClientError):
        newest(Log(trouble="AccessDeniedException"))


def stack_with(monkeypatch: pytest.MonkeyPatch, log: Log) -> Stack:
    monkeypatch.setattr("ops.stack.client", lambda *_: log)
    return Stack("prod", "x", {"WorkerFunction": "w", "OperatorApiFunction": "o"})


def test_functions_go_by_their_short_names(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = stack_with(monkeypatch, Log())
    assert functions_of(stack) == ["operator_api", "worker"]
    with pytest.raises(StackNotFound, match="there are operator_api, worker"):
        RecentLog.of(stack, "workers")
    assert RecentLog.of(stack, "operator_api").newest(0, 1, limit=1).lines == ()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    outputs = {"WorkerFunction": "w"}
    state = {"status": "up", "stage": "local", "region": "x", "outputs": outputs, "endpoint": "http://x"}
    (tmp_path / "stack.json").write_text(json.dumps({**state, "simulator_url": ""}))
    monkeypatch.setenv("HOLDFAST_STACK_FILE", str(tmp_path / "stack.json"))
    monkeypatch.delenv("HOLDFAST_STAGE", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    log = Log()
    monkeypatch.setattr("ops.stack.client", lambda *_: log)
    return log


def test_the_command_shows_the_newest_with_the_end_of_its_traceback(
    stage: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    now_ms = SystemClock().now_ms()
    assert run(["logs", "worker"]) == ExitCode.OK
    assert "nothing is wrong" in capsys.readouterr().err
    trace = "in one\nin two\nKeyError"
    stage.events += [
        (now_ms - 2, line("INFO", "done")),
        (now_ms - 1, line(message="the message could not be processed", exception=trace, tenant="acme", count=2)),
    ]
    assert run(["logs", "worker", "--since", "5m"]) == ExitCode.OK
    told = capsys.readouterr()
    assert "the message could not be processed" in told.out
    assert "tenant=acme count=2" in told.out
    assert "KeyError" in told.err
    assert "KeyError" not in told.out
    assert run(["logs", "worker", "--all", "--json"]) == ExitCode.OK
    document = json.loads(capsys.readouterr().out)
    assert (document["complete"], [one["message"] for one in document["lines"]]) == (
        True,
        ["the message could not be processed", "done"],
    )
    assert run(["logs", "worker", "--about", "nobody"]) == ExitCode.OK
    assert "nothing of nobody" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["worker", "--since", "soon"], ["worker", "--about", 'a" b'], ["worker", "--about", ""]]
)
def test_what_cannot_be_asked_for_is_refused(stage: Log, words: list[str]) -> None:
    assert run(["logs", *words]) == (ExitCode.OK if words[-1] == "" else ExitCode.REFUSED)
    assert run(["logs", "nobody"]) == ExitCode.UNREACHABLE
    assert all(request["endTime"] for request in stage.asked)
