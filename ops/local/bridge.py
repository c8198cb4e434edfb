"""What CloudWatch does and the emulator does not: make metrics of logs and queues, and judge every alarm by them.

Each cycle reads what the functions have logged since the last one (embedded metric format), how much the queues hold,
and how often functions and the API were called; computes each alarm's own expression as CloudWatch would
(`ops.alarms`); and publishes 1 or 0 under the alarm's name, which the emulator's plain alarm of that name watches.

A minute of the table lasts a few seconds here. Ages are stretched accordingly, so that an event which waits for as many
of these minutes as on AWS is as old as there. What is known from inside a queue on AWS alone, the age of its oldest
message, is at least the time since it was last empty and a worker last ran. DynamoDB's throttling and SNS's failures do
not exist in the emulator: the alarms on them stay quiet.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from functions.core.alarms import ALARMS, API, HOLDFAST, LAMBDA, SQS, Alarm, name_at
from ops.alarms.evaluation import RANGE_BEYOND, Definition, Identity, Samples, State, definitions_of, judge
from ops.local.state import LocalState
from ops.stack import Stack

MINUTE_SECONDS: Final = 5.0
_GIVE_UP_AFTER: Final = 20  # failures to reach the emulator in a row: it is gone
_REST_TIMES: Final = 10  # after each cycle a rest of so many times its length: the emulator answers one at a time
_PAGE: Final = 10_000  # of FilterLogEvents; the emulator gives no token for what is beyond it
_OVERLAP_MS: Final = 2_000
_SILENT_MS: Final = 10_000
_PLATFORM: Final = ("START RequestId:", "END RequestId:", "REPORT RequestId:")
"""How the lines begin that are the platform's own."""

ANSWERING: Final = frozenset({"ingress", "operator_api"})
"""Functions whose invocations are requests to the API. Each logs one line with the status it answered."""

AGES: Final = frozenset({"event_age_ms", "ApproximateAgeOfOldestMessage"})
_API_DIMENSIONS: Final = {"ApiId": "api", "Stage": "$default"}


def functions_of(stack: Stack) -> dict[str, str]:
    """The outputs that name a function, by the function's short name (`operator_api`)."""
    named = {output.removesuffix("Function"): output for output in stack.outputs if output.endswith("Function")}
    return {re.sub(r"(?<=.)([A-Z])", r"_\1", name).lower(): output for name, output in named.items()}


def queues_of(stack: Stack) -> dict[str, str]:
    """The outputs that tell a queue's URL, by the queue's short name (`events`, `events-dlq`)."""
    return {
        output.removesuffix(end).lower() + suffix: output
        for output in stack.outputs
        for end, suffix in (("QueueUrl", ""), ("DlqUrl", "-dlq"))
        if output.endswith(end)
    }


def identity(namespace: str, metric: str, dimensions: Mapping[str, str]) -> Identity:
    """As the samples are kept by."""
    return namespace, metric, frozenset(dimensions.items())


def counted_in(line: Mapping[str, Any]) -> Iterator[tuple[Identity, float, int]]:
    """What a line in embedded metric format counts: metric, value, time. Nothing if it is none."""
    metadata = line.get("_aws")
    if not isinstance(metadata, dict):
        return
    for directive in metadata["CloudWatchMetrics"]:
        for names in directive["Dimensions"]:
            dimensions = {name: str(line[name]) for name in names}
            for metric in directive["Metrics"]:
                value = line[metric["Name"]]
                for one in value if isinstance(value, list) else [value]:
                    yield (
                        identity(directive["Namespace"], metric["Name"], dimensions),
                        float(one),
                        metadata["Timestamp"],
                    )


@dataclass(slots=True)
class _Group:
    """The log group of one function, and how far it has been read."""

    name: str
    since_ms: int
    streams: dict[str, int] = field(default_factory=dict)
    """Those that were read, with when they ended. The emulator writes a stream per invocation, all of it at its end."""
    silent: list[int] = field(default_factory=list)
    """When invocations ended that have logged nothing so far. The emulator waits 50 ms for what a function logs; on a
    busy machine that comes too late, and stands in the stream of the next invocation.
    """


class Bridge:
    """The metrics and alarms of one local stack. `now_ms` is the clock of this machine, which its functions go by."""

    def __init__(
        self,
        stack: Stack,
        *,
        alarms: Iterable[Alarm] = ALARMS,
        minute_ms: int = int(MINUTE_SECONDS * 1000),
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._stack = stack
        self._minute_ms = minute_ms
        self._now_ms = now_ms
        self.samples = Samples()
        self._rows: list[tuple[Alarm, tuple[Definition, ...]]] = [
            (alarm, definitions_of(alarm, stack.stage)) for alarm in alarms
        ]
        self._began_ms = self._cycled_ms = now_ms()
        self._groups: dict[str, _Group] = {}
        self._functions, self._queues = functions_of(stack), queues_of(stack)
        self._empty_ms = dict.fromkeys(self._queues, self._began_ms)
        self._worked_ms = self._began_ms
        self.states: dict[str, State] = {alarm.name: State.OK for alarm, _ in self._rows}

    def cycle(self) -> dict[str, tuple[State, State]]:
        """Read, judge, publish. Gives the alarms whose state moved, each with the states before and after."""
        now_ms = self._now_ms()
        for function, output in self._functions.items():
            self._read(function, output, now_ms)
        self._look_into_queues(now_ms)
        moved = self._judge(now_ms)
        self._publish(now_ms)
        self._cycled_ms = now_ms
        self.samples.forget_before(now_ms - self._longest_ms())
        return moved

    # ---------------------------------------------------------------------------------------------------------- reading

    def _read(self, function: str, output: str, now_ms: int) -> None:
        """The invocations that have ended since the last time."""
        group = self._groups.get(function)
        if group is None:
            told = self._stack.client("lambda").get_function_configuration(FunctionName=self._stack.output(output))
            group = self._groups[function] = _Group(told["LoggingConfig"]["LogGroup"], self._began_ms)
        invocations: dict[str, list[str]] = defaultdict(list)
        ended: dict[str, int] = {}
        for event in self._events(group):
            stream = event["logStreamName"]
            if stream not in group.streams:
                invocations[stream].extend(event["message"].splitlines())
                ended[stream] = event["timestamp"]
        for stream, lines in invocations.items():
            self._invocation(function, group, lines, ended[stream], now_ms)
        self._give_up(function, group, now_ms)
        group.streams |= ended
        group.since_ms = max([group.since_ms, *ended.values()])
        group.streams = {
            name: at_ms for name, at_ms in group.streams.items() if at_ms >= group.since_ms - 2 * _OVERLAP_MS
        }

    def _events(self, group: _Group) -> Iterator[dict[str, Any]]:
        logs, from_ms = self._stack.client("logs"), group.since_ms - _OVERLAP_MS
        while True:
            try:
                events = logs.filter_log_events(logGroupName=group.name, startTime=from_ms, limit=_PAGE)["events"]
            except logs.exceptions.ResourceNotFoundException:
                return  # nothing has been logged yet
            last_ms = events[-1]["timestamp"] if events else 0
            if len(events) < _PAGE or events[0]["timestamp"] == last_ms:
                yield from events
                return
            # Of the last moment there may be more, which the next page begins with.
            yield from (event for event in events if event["timestamp"] < last_ms)
            from_ms = last_ms

    def _invocation(self, function: str, group: _Group, lines: list[str], ended_ms: int, now_ms: int) -> None:
        """Count what it counted, that it took place, and whether it failed: then the line is missing that each has."""
        own = [line for line in lines if not line.startswith(_PLATFORM)]
        statuses, has_counted = list[int](), False
        for line in _objects(own):
            for key, value, at_ms in counted_in(line):
                has_counted = True
                self._add(key, value, at_ms, now_ms)
            if function in ANSWERING and isinstance(line.get("status"), int):
                statuses.append(line["status"])
        self._add(identity(LAMBDA, "Invocations", {"FunctionName": function}), 1, ended_ms, now_ms)
        if function == "worker":
            self._worked_ms = max(self._worked_ms, ended_ms)
        if function in ANSWERING:
            self._add(identity(API, "Count", _API_DIMENSIONS), 1, ended_ms, now_ms)
            del group.silent[: max(0, len(statuses) - 1)]  # these are their lines
        if not own:
            group.silent.append(ended_ms)
            return
        failed = sum(status >= 500 for status in statuses) if statuses else 1
        self._failed(function, ended_ms, now_ms, answers=failed, errors=int(not has_counted))

    def _give_up(self, function: str, group: _Group, now_ms: int) -> None:
        """Nothing more will come of those that have been silent for so long: their process is dead."""
        for ended_ms in [each for each in group.silent if now_ms - each >= _SILENT_MS]:
            group.silent.remove(ended_ms)
            self._failed(function, now_ms, now_ms, answers=1, errors=1)

    def _failed(self, function: str, ended_ms: int, now_ms: int, *, answers: int, errors: int) -> None:
        if function in ANSWERING:
            self._add(identity(API, "5xx", _API_DIMENSIONS), answers, ended_ms, now_ms)
        self._add(identity(LAMBDA, "Errors", {"FunctionName": function}), errors, ended_ms, now_ms)

    def _look_into_queues(self, now_ms: int) -> None:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        for queue, output in self._queues.items():
            url = self._stack.output(output)
            told = self._stack.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
            visible, in_flight = (int(told[name]) for name in names)
            if not visible:
                self._empty_ms[queue] = now_ms
            age_seconds = (now_ms - max(self._empty_ms[queue], self._worked_ms)) / 1000 if visible else 0
            for metric, value in (
                ("ApproximateNumberOfMessagesVisible", visible),
                ("ApproximateNumberOfMessagesNotVisible", in_flight),
                ("ApproximateAgeOfOldestMessage", max(0.0, age_seconds)),
            ):
                self._add(identity(SQS, metric, {"QueueName": queue}), value, now_ms, now_ms)

    def _add(self, key: Identity, value: float, at_ms: int, now_ms: int) -> None:
        stretched = value * 60_000 / self._minute_ms if key[1] in AGES else value
        # What was read in this cycle belongs to the minute that it closes: the next would see it as late.
        self.samples.add(key, min(at_ms, self._closed_ms(now_ms) - 1), stretched, now_ms)

    def _closed_ms(self, now_ms: int) -> int:
        """The end of the minute that is judged at that moment."""
        return now_ms - now_ms % self._minute_ms

    def _closed_since(self, now_ms: int) -> list[int]:
        """The ends of the minutes that were over since the cycle before, the present one's last; at most ten."""
        last_ms = self._closed_ms(now_ms)
        first_ms = min(last_ms, max(self._closed_ms(self._cycled_ms) + self._minute_ms, last_ms - 9 * self._minute_ms))
        return list(range(first_ms, last_ms + 1, self._minute_ms))

    # ---------------------------------------------------------------------------------------------------------- judging

    def _judge(self, now_ms: int) -> dict[str, tuple[State, State]]:
        moved = {}
        closed = self._closed_since(now_ms)
        for alarm, definitions in self._rows:
            before = self.states[alarm.name]
            # A cycle may be longer than a minute, and what one minute is enough for may have been in any of them.
            ends = closed if alarm.periods == 1 and alarm.period_seconds == 60 else closed[-1:]
            found = [
                judge(definitions, self.samples, now_ms, before=before, minute_ms=self._minute_ms, as_of_ms=end)
                for end in ends
            ]
            after = State.ALARM if State.ALARM in found else found[-1]
            if alarm.missing == "breaching" and now_ms < self._began_ms + self._range_ms(definitions):
                after = State.OK  # what is missing may have been counted before anybody listened
            if after is not before:
                moved[alarm.name] = (before, after)
            self.states[alarm.name] = after
        return moved

    def _range_ms(self, definitions: Iterable[Definition]) -> int:
        return max((each.periods + RANGE_BEYOND) * each.period_seconds * self._minute_ms // 60 for each in definitions)

    def _longest_ms(self) -> int:
        return max(self._range_ms(definitions) for _, definitions in self._rows) + self._minute_ms

    def _publish(self, now_ms: int) -> None:
        self._stack.client("cloudwatch").put_metric_data(
            Namespace=HOLDFAST,
            MetricData=[
                {
                    "MetricName": name_at(self._stack.stage, name),
                    "Value": float(state is State.ALARM),
                    "Timestamp": now_ms / 1000,
                }
                for name, state in self.states.items()
            ],
        )


def _objects(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for text in lines:
        if text.startswith("{"):
            try:
                line = json.loads(text)
            except ValueError:
                continue  # a line that its process did not live to finish
            if isinstance(line, dict):
                yield line


# ------------------------------------------------------------------------------------------------------------- process


def report(text: str) -> None:
    """One line of the bridge's log."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


def run(bridge: Bridge, stop: threading.Event, minute_seconds: float, report: Callable[[str], object] = report) -> None:
    """Cycle after cycle until told to stop, or until nobody answers any more. Reports each alarm that moves."""
    unreachable = 0
    while not stop.is_set():
        began = time.monotonic()
        try:
            for name, (before, after) in bridge.cycle().items():
                report(f"{name}: {before} -> {after}")
            unreachable = 0
        except (BotoCoreError, ClientError) as exc:
            unreachable += 1
            report(f"the emulator did not answer: {exc}")
            if unreachable >= _GIVE_UP_AFTER:
                return
        spent = time.monotonic() - began
        stop.wait(max(minute_seconds - spent, _REST_TIMES * spent, 0.1))


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m ops.local.bridge STATE_FILE`."""
    parser = argparse.ArgumentParser(prog="ops.local.bridge", description="Judges the alarms of a local stack.")
    parser.add_argument("state_file", type=Path)
    parser.add_argument("--minute-seconds", type=float, default=MINUTE_SECONDS, help="how long a minute lasts")
    options = parser.parse_args(argv)
    state = LocalState.read(options.state_file)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    bridge = Bridge(state.stack(options.state_file), minute_ms=int(options.minute_seconds * 1000))
    run(bridge, stop, options.minute_seconds)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, json.JSONDecodeError) as exc:
        sys.exit(f"the state file cannot be read: {exc}")
