"""The local stage's alarms: metrics made of logs and queues, judged by each alarm's own expression, and published."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event as Flag
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from functions import observability
from functions.core.alarms import ALARMS, HOLDFAST, by_name
from functions.ingress.answers import Answer
from functions.ingress.request import Route
from functions.ingress.trail import Trail
from ops.alarms.evaluation import State, definitions_of
from ops.local import bridge
from ops.local.bridge import Bridge, functions_of, queues_of
from ops.stack import Stack

NOON_MS = 1_800_000_000_000
MINUTE_MS = 5_000
WATCHERS = [alarm for alarm in ALARMS if alarm.missing == "breaching"]
OF_THE_WORKER = "synthetic-missing"
"""Is not missing before a quarter of an hour is over; the others come to their end each minute."""


OUTPUTS = (
    "ApiUrl",
    "LedgerTable",
    *(
        f"{name}Function"
        for name in (
            "Ingress",
            "Worker",
            "Triage",
            "Sweeper",
            "Replay",
            "Evaluator",
            "OperatorApi",
            "Pager",
            "Synthetic",
        )
    ),
    *(f"{name}QueueUrl" for name in ("Events", "Retries", "Replays")),
    *(f"{name}DlqUrl" for name in ("Events", "Retries", "Replays", "Ops", "Pages")),
)


class NotThere(Exception):
    """ResourceNotFoundException of the fake logs."""


@dataclass
class Emulator:
    """What the bridge asks of AWS: logs of functions, depths of queues; and what it publishes."""

    now_ms: int = NOON_MS
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    depths: dict[str, tuple[int, int]] = field(default_factory=dict)
    published: list[dict[str, float]] = field(default_factory=list)
    page: int = 10_000
    exceptions: Any = field(default_factory=lambda: type("Exceptions", (), {"ResourceNotFoundException": NotThere}))
    streams: int = 0

    def stack(self) -> Stack:
        outputs = {output: output for output in OUTPUTS}
        emulator = self

        class Faked(Stack):
            def client(self, service: str) -> Any:
                return emulator

        return Faked(stage="local", region="us-east-1", outputs=outputs, endpoint="http://127.0.0.1:1")

    def get_function_configuration(self, FunctionName: str) -> dict[str, Any]:  # noqa: N803
        return {"LoggingConfig": {"LogGroup": FunctionName}}

    def filter_log_events(self, logGroupName: str, startTime: int, limit: int) -> dict[str, Any]:  # noqa: N803
        if logGroupName not in self.events:
            raise NotThere
        found = [event for event in self.events[logGroupName] if event["timestamp"] >= startTime]
        return {"events": found[: min(limit, self.page)]}

    def get_queue_attributes(self, QueueUrl: str, AttributeNames: list[str]) -> dict[str, Any]:  # noqa: N803
        return {"Attributes": dict(zip(AttributeNames, map(str, self.depths.get(QueueUrl, (0, 0))), strict=True))}

    def put_metric_data(self, Namespace: str, MetricData: list[dict[str, Any]]) -> None:  # noqa: N803
        assert Namespace == HOLDFAST
        self.published.append({datum["MetricName"]: datum["Value"] for datum in MetricData})

    def invoked(self, function: str, *lines: str) -> None:
        """An invocation has ended that has logged this."""
        self.streams += 1
        stream = f"2027/01/15/[$LATEST]{self.streams}"
        for text in (f"START RequestId: {self.streams}", *lines, f"REPORT RequestId: {self.streams}"):
            self.events.setdefault(functions_of(self.stack())[function], []).append(
                {"timestamp": self.now_ms, "message": text, "logStreamName": stream}
            )

    def counted(self, function: str, metric: str, value: float = 1, **dimensions: str) -> None:
        """An invocation of that function has counted this."""
        lines: list[str] = []
        counts = observability.metrics(function, "local", lines.append)
        counts.count(metric, value, **dimensions)
        counts.flush()
        for index, line in enumerate(lines):
            raw = json.loads(line)
            raw["_aws"]["Timestamp"] = self.now_ms
            lines[index] = json.dumps(raw)
        self.invoked(function, *lines)

    def answered(self, status: int, times: int = 1, took_ms: int = 20) -> None:
        """Ingress has answered so many webhooks."""
        line = Trail("r", Route.EVENT).line("local", Answer(status, ""), None, self.now_ms, self.now_ms - took_ms)
        for _ in range(times):
            self.invoked("ingress", line)

    def died(self, function: str, times: int) -> None:
        """So many invocations have ended without a line of their own."""
        for _ in range(times):
            self.invoked(function, "[ERROR] MemoryError")


class Watch:
    def __init__(self) -> None:
        self.aws = Emulator()
        self.bridge = Bridge(self.aws.stack(), minute_ms=MINUTE_MS, now_ms=lambda: self.aws.now_ms)
        self.is_worked = True

    def minutes(self, number: int = 1, each: Callable[[], None] = lambda: None) -> dict[str, tuple[State, State]]:
        """So many minutes, in each of which that happens, and the bridge's cycle at its end: what moved."""
        moved: dict[str, tuple[State, State]] = {}
        for _ in range(number):
            for alarm in (one for one in WATCHERS if self.is_worked or one.name != OF_THE_WORKER):
                (series,) = alarm.series.values()
                self.aws.counted(series.dimensions["service"], series.metric)
            each()
            self.aws.now_ms += MINUTE_MS
            moved |= self.bridge.cycle()
        return moved

    @property
    def alarming(self) -> set[str]:
        return {name for name, state in self.bridge.states.items() if state is State.ALARM}


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_functions_and_queues_are_found_by_the_stacks_outputs(watch: Watch) -> None:
    stack = watch.aws.stack()
    assert functions_of(stack)["operator_api"] == "OperatorApiFunction"
    assert len(functions_of(stack)) == 9
    assert queues_of(stack)["events"] == "EventsQueueUrl"
    assert queues_of(stack)["ops-dlq"] == "OpsDlqUrl"
    assert len(queues_of(stack)) == 8


def test_every_alarm_is_published_under_its_own_name_also_when_nothing_is_wrong(watch: Watch) -> None:
    watch.minutes(10)
    assert watch.alarming == set()
    assert watch.aws.published[-1] == {f"holdfast-local-{alarm.name}": 0.0 for alarm in ALARMS}


def test_poison_that_triage_does_not_take_fires_after_five_minutes_and_is_over_when_it_is_gone(watch: Watch) -> None:
    watch.aws.depths["EventsDlqUrl"] = (0, 1)
    assert watch.minutes(4) == {}
    assert watch.minutes() == {"events-dlq-not-drained": (State.OK, State.ALARM)}
    assert watch.aws.published[-1]["holdfast-local-events-dlq-not-drained"] == 1.0
    watch.aws.depths.clear()
    assert watch.minutes() == {"events-dlq-not-drained": (State.ALARM, State.OK)}


def test_what_a_function_counts_once_is_counted_once_however_often_its_log_is_read(watch: Watch) -> None:
    watch.minutes(3)
    watch.aws.counted("worker", "idempotency_duplicates_detected", 49, reason="redelivery")
    watch.minutes(5)
    assert "duplicate-storm" not in watch.alarming
    watch.minutes(10, lambda: watch.aws.counted("worker", "idempotency_duplicates_detected", 49, reason="redelivery"))
    assert "duplicate-storm" in watch.alarming


def test_what_happened_in_a_minute_between_two_cycles_fires_and_is_over_with_the_next(watch: Watch) -> None:
    watch.minutes(3)
    watch.aws.now_ms += 10_000
    watch.aws.counted("worker", "effects_doubled", integration="helpdesk", reason="found_several")
    watch.aws.now_ms += 3 * MINUTE_MS
    assert watch.bridge.cycle()["effects-doubled"] == (State.OK, State.ALARM)
    assert watch.aws.published[-1]["holdfast-local-effects-doubled"] == 1.0
    assert watch.minutes()["effects-doubled"] == (State.ALARM, State.OK)


def test_a_log_with_more_lines_than_a_page_is_read_to_its_end(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "_PAGE", 6)
    for _ in range(4):
        watch.aws.counted("worker", "payload_mismatches")
        watch.aws.now_ms += 10
    watch.aws.counted("worker", "people_needed")
    watch.minutes()
    assert watch.alarming == {"payload-mismatch", "message-for-a-person"}


def test_the_api_fails_when_ingress_answers_5xx_and_when_it_dies_without_an_answer(watch: Watch) -> None:
    """002.1"""
    watch.minutes(20, lambda: watch.aws.answered(202, 5))
    assert watch.alarming == set()
    watch.minutes(2, lambda: watch.aws.answered(503, 5))
    assert {"ingress-failing", "webhook-not-stored"} <= watch.alarming
    other = Watch()
    other.minutes(2, lambda: other.aws.died("ingress", 5))
    assert {"ingress-failing", "webhook-not-stored"} <= other.alarming


def test_a_line_that_the_emulator_has_in_the_next_invocations_stream_is_no_failure(watch: Watch) -> None:
    """It waits 50 ms for what a function logs, and a busy machine takes longer now and then."""

    def late() -> None:
        watch.aws.invoked("ingress")
        line = Trail("r", Route.EVENT).line("local", Answer(202, ""), None, watch.aws.now_ms, watch.aws.now_ms - 20)
        watch.aws.invoked("ingress", line, line)

    watch.minutes(20, late)
    assert watch.alarming == set()


def test_an_invocation_that_stays_silent_was_killed(watch: Watch) -> None:
    def killed() -> None:
        for _ in range(5):
            watch.aws.invoked("ingress")

    watch.minutes(1, killed)
    assert watch.alarming == set()
    watch.minutes(bridge._SILENT_MS // MINUTE_MS + 1)
    assert {"ingress-failing", "webhook-not-stored"} <= watch.alarming


def test_a_refusal_is_no_failure_of_ours(watch: Watch) -> None:
    watch.minutes(10, lambda: watch.aws.answered(401, 20))
    assert watch.alarming == set()


def test_a_worker_that_ends_without_its_counts_has_died(watch: Watch) -> None:
    def batches(died: int) -> None:
        for number in range(10):
            if number < died:
                watch.aws.invoked("worker", "Task timed out", "{not whole")
            else:
                watch.aws.counted("worker", "items_received")

    watch.minutes(20, lambda: batches(0))
    assert watch.alarming == set()
    watch.minutes(15, lambda: batches(2))
    assert watch.alarming == {"worker-dying"}


def test_a_queue_that_nobody_reads_grows_old_and_one_that_is_read_does_not(watch: Watch) -> None:
    watch.aws.depths["EventsQueueUrl"] = (5, 0)
    watch.minutes(20, lambda: watch.aws.counted("worker", "items_received"))
    assert watch.alarming == set()
    watch.is_worked = False
    watch.minutes(9)
    assert watch.alarming == {"events-late"}
    watch.minutes(30)
    assert watch.alarming == {"events-late", "events-backlog", OF_THE_WORKER}


def test_ages_are_stretched_as_minutes_are_short(watch: Watch) -> None:
    """30 s are six of these minutes."""
    watch.minutes(3)
    assert watch.alarming == set()
    watch.minutes(4, lambda: watch.aws.counted("worker", "event_age_ms", 30_000))
    assert watch.alarming == {"events-late"}


def test_a_function_that_comes_to_its_end_no_more_is_noticed(watch: Watch) -> None:
    """002.9"""
    watch.minutes(8)
    assert watch.alarming == set()
    for _ in range(6):
        watch.aws.counted("sweeper", "heartbeat")
        watch.aws.now_ms += MINUTE_MS
        watch.bridge.cycle()
    assert watch.alarming == {alarm.name for alarm in WATCHERS} - {"sweeper-missing", OF_THE_WORKER}


def test_nothing_is_missed_before_anybody_has_listened_for_long_enough(watch: Watch) -> None:
    watch.aws.now_ms += MINUTE_MS
    assert watch.bridge.cycle() == {}
    for _ in range(5):
        watch.aws.now_ms += MINUTE_MS
        watch.bridge.cycle()
    assert watch.alarming == {alarm.name for alarm in WATCHERS} - {OF_THE_WORKER}
    for _ in range(20):
        watch.aws.now_ms += MINUTE_MS
        watch.bridge.cycle()
    assert watch.alarming == {alarm.name for alarm in WATCHERS}


NOT_THERE = {"ReadThrottleEvents", "WriteThrottleEvents", "NumberOfNotificationsFailed", "Throttles"}
"""Of which the emulator knows nothing."""


def test_all_that_alarms_watch_and_that_exists_here_reaches_them() -> None:
    """What AWS counts by itself is counted here; what functions count comes from their lines."""
    watch = Watch()
    watch.minutes(2, lambda: watch.aws.answered(202))
    watch.aws.counted("worker", "items_received")
    watch.minutes()
    seen = watch.bridge.samples.identities
    for alarm in ALARMS:
        for definition in definitions_of(alarm, "local"):
            for watched in definition.metrics.values():
                namespace, metric, _ = watched.identity
                if namespace != HOLDFAST and metric not in NOT_THERE:
                    assert watched.identity in seen, (alarm.name, metric)


def test_a_stack_that_is_gone_ends_its_bridge(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Watch()

    def gone(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")

    monkeypatch.setattr(watch.aws, "get_queue_attributes", gone)
    monkeypatch.setattr(bridge, "_GIVE_UP_AFTER", 2)
    bridge.run(watch.bridge, Flag(), 0.0)
    assert capsys.readouterr().out.count("the emulator did not answer") == 2


def test_a_bridge_tells_in_its_log_what_moved_until_it_is_told_to_stop(capsys: pytest.CaptureFixture[str]) -> None:
    watch, stop = Watch(), Flag()
    watch.aws.counted("replay", "replay_jobs_stopped")
    watch.aws.now_ms += MINUTE_MS
    watch.bridge.cycle = _then(stop, watch.bridge.cycle)  # type: ignore[method-assign]
    bridge.run(watch.bridge, stop, 0.0)
    assert "replay-stopped: OK -> ALARM" in capsys.readouterr().out
    assert by_name("replay-stopped") is not None


def _then(stop: Flag, cycle: Callable[[], Any]) -> Callable[[], Any]:
    def once() -> Any:
        stop.set()
        return cycle()

    return once
