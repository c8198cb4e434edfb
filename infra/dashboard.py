"""The pipeline at a glance, in the order in which an event travels. Each panel says what normal looks like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_logs as logs
from constructs import Construct

from functions.core.alarms import ALARMS, API, HOLDFAST, LAMBDA, SQS, STAGE, Alarm, Series
from infra.config import StageConfig

WIDTH = 24
_PER_ROW = 3


@dataclass(frozen=True, slots=True)
class Each:
    """One line for each value of the dimensions `by` that a metric was counted under."""

    service: str
    metric: str
    by: tuple[str, ...]
    statistic: str = "Sum"

    def expression(self, stage: str) -> str:
        """CloudWatch's search for them. Ingress counts by stage, and not by service."""
        fixed = {"service": self.service, "stage": stage} if self.service != "ingress" else {"stage": stage}
        names = ",".join((*fixed, *self.by))
        values = " ".join(f'{name}="{value}"' for name, value in fixed.items())
        return f"SEARCH('{{{HOLDFAST},{names}}} MetricName=\"{self.metric}\" {values}', '{self.statistic}', 60)"


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph: its lines by label, and what they look like when all is well."""

    title: str
    normal: str
    lines: Mapping[str, Series | Each]


@dataclass(frozen=True, slots=True)
class LogPanel:
    """A table made of what a function has logged: told apart by what is no dimension, because it has no bound."""

    title: str
    normal: str
    function: str
    query: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Station:
    """One part of the way."""

    title: str
    panels: tuple[Panel | LogPanel, ...]


def _counted(service: str, metric: str, statistic: str = "Sum") -> Series:
    return Series(metric, HOLDFAST, {"service": service, "stage": STAGE}, statistic, 60)


def _of_the_stage(metric: str, statistic: str = "Sum") -> Series:
    return Series(metric, HOLDFAST, {"stage": STAGE}, statistic, 60)


def _api(metric: str, statistic: str = "Sum") -> Series:
    return Series(metric, API, {"ApiId": "api", "Stage": "$default"}, statistic, 60)


def _queue(queue: str, metric: str) -> Series:
    return Series(metric, SQS, {"QueueName": queue}, "Maximum", 60)


def _function(function: str, metric: str) -> Series:
    return Series(metric, LAMBDA, {"FunctionName": function}, "Sum", 60)


_VISIBLE, _IN_FLIGHT = "ApproximateNumberOfMessagesVisible", "ApproximateNumberOfMessagesNotVisible"
_AGE = "ApproximateAgeOfOldestMessage"


def _watched_by(alarm: str) -> dict[str, Series | Each]:
    """What that alarm watches, each told apart by what it is of."""
    (known,) = [each for each in ALARMS if each.name == alarm]
    return {_label_of(series): series for series in known.series.values()}


def _label_of(series: Series) -> str:
    whose = [value for value in series.dimensions.values() if value != STAGE]
    return f"{series.metric} {' '.join(whose)}"


_DEAD_LETTERS = sorted(
    {
        series.dimensions["QueueName"]
        for alarm in ALARMS
        for series in alarm.series.values()
        if series.dimensions.get("QueueName", "").endswith("-dlq")
    }
)

STATIONS: tuple[Station, ...] = (
    Station(
        "1. At the door",
        (
            Panel(
                "Webhooks accepted",
                "Follows the day. Never nothing during business hours.",
                {"": Each("ingress", "webhooks_accepted", ("provider",))},
            ),
            Panel(
                "Webhooks refused, by reason",
                "A few bad_signature and unknown_source: strangers. not_stored, source_unavailable, defect: none.",
                {"": Each("ingress", "webhooks_rejected", ("reason",))},
            ),
            Panel(
                "Time to answer",
                "p50 under 100 ms, p99 under 1,500 ms.",
                {
                    "p50": _of_the_stage("ack_ms", "p50"),
                    "p95": _of_the_stage("ack_ms", "p95"),
                    "p99": _of_the_stage("ack_ms", "p99"),
                },
            ),
            Panel(
                "Answers later than 1.5 s, of all",
                "None late.",
                {"late": _of_the_stage("webhooks_late"), "all": _api("Count")},
            ),
            Panel(
                "5xx by service",
                "None. The gateway's are those of both services, and what it answers by itself.",
                {
                    "gateway": _api("5xx"),
                    "ingress died or ran out of time": _function("ingress", "Errors"),
                    "operator API died or ran out of time": _function("operator_api", "Errors"),
                    "operator API answered": Each("operator_api", "operator_calls", ("outcome",)),
                },
            ),
            Panel(
                "Spilled, and left in the spill",
                "None. Spilled and drained within minutes when SQS has trouble.",
                {"spilled": _of_the_stage("webhooks_spilled"), "left": _counted("sweeper", "spill_left", "Maximum")},
            ),
            Panel(
                "Sources that are not as they should be",
                "None.",
                {
                    "silent": _counted("evaluator", "sources_silent", "Maximum"),
                    "entry cannot be read": _of_the_stage("source_malformed"),
                    "two deliveries under one id": _counted("worker", "payload_mismatches"),
                },
            ),
        ),
    ),
    Station(
        "2. In the queue",
        (
            Panel(
                "Events waiting, in flight",
                "Near nothing waits. In flight: those that have their turn at a limited provider within two minutes.",
                {"waiting": _queue("events", _VISIBLE), "in flight": _queue("events", _IN_FLIGHT)},
            ),
            Panel(
                "Time in the queue",
                "Under five seconds. Received: the oldest of each batch, repeats included.",
                {
                    "p50 ms": _counted("worker", "event_age_ms", "p50"),
                    "p95 ms": _counted("worker", "event_age_ms", "p95"),
                    "p99 ms": _counted("worker", "event_age_ms", "p99"),
                },
            ),
            Panel(
                "Age of the oldest (s)",
                "Under five seconds; retries and replays under a minute.",
                {
                    "events": _queue("events", _AGE),
                    "retries": _queue("retries", _AGE),
                    "replays": _queue("replays", _AGE),
                },
            ),
        ),
    ),
    Station(
        "3. At work",
        (
            Panel(
                "Messages",
                "Received follows the door. Returned: those that wait for their turn. Failed: none.",
                {
                    "received": _counted("worker", "items_received"),
                    "returned": _counted("worker", "items_returned"),
                    "failed": _counted("worker", "items_failed"),
                },
            ),
            Panel(
                "Workers",
                "No errors, no throttles.",
                {
                    "batches": _function("worker", "Invocations"),
                    "errors": _function("worker", "Errors"),
                    "throttles": _function("worker", "Throttles"),
                },
            ),
            Panel(
                "Repeats recognised",
                "A few in a hundred, of senders that try again.",
                {"": Each("worker", "idempotency_duplicates_detected", ("reason",))},
            ),
            Panel(
                "Decisions, by what decided",
                "llm and rules in their usual shares. default: a few in a hundred.",
                {"": Each("worker", "decisions_made", ("flow", "outcome"))},
            ),
            Panel(
                "LLM without an answer, by reason",
                "A few DEADLINE, all decided without it.",
                {
                    "": Each("worker", "classifier_unavailable", ("reason",)),
                    "decided without it": _counted("worker", "classifier_fallbacks"),
                },
            ),
            Panel(
                "Events by name, and what became of each delivery",
                "done follows the door. Of events that must arrive none is left for long: see part 5.",
                {"": Each("worker", "events_named", ("event_name", "outcome"))},
            ),
            Panel(
                "Time of the LLM's answer",
                "p95 under two seconds; what takes 2.5 is decided without it.",
                {
                    "p50 ms": _counted("worker", "classifier_ms", "p50"),
                    "p95 ms": _counted("worker", "classifier_ms", "p95"),
                    "p99 ms": _counted("worker", "classifier_ms", "p99"),
                },
            ),
            Panel(
                "Time from the door to done",
                "p95 under ten seconds. Of events that are done at the first go: what waits is below.",
                {
                    "p50 ms": _counted("worker", "settle_ms", "p50"),
                    "p95 ms": _counted("worker", "settle_ms", "p95"),
                    "p99 ms": _counted("worker", "settle_ms", "p99"),
                },
            ),
            Panel(
                "Decided, and what came of it",
                "Done, found done, suppressed and kept as rows together are what was decided.",
                {
                    "decided": _counted("worker", "actions_decided"),
                    "done": _counted("worker", "actions_success"),
                    "found done": _counted("worker", "actions_already_done"),
                    "suppressed": _counted("worker", "actions_suppressed"),
                    "kept as rows": _counted("worker", "rows_created"),
                },
            ),
        ),
    ),
    Station(
        "4. At the providers",
        (
            Panel(
                "Effects, by integration",
                "Follows decisions.",
                {"": Each("worker", "actions_success", ("integration",))},
            ),
            Panel(
                "Failures, by integration and code",
                "A few in a hundred.",
                {"": Each("worker", "actions_failed", ("integration", "reason"))},
            ),
            Panel(
                "Health, by integration",
                "0. 1 is degraded, 2 is down.",
                {
                    "": Each("evaluator", "health_level", ("integration",), "Maximum"),
                    "how many are degraded": _counted("evaluator", "integrations_degraded", "Maximum"),
                    "how many are down": _counted("evaluator", "integrations_down", "Maximum"),
                },
            ),
            Panel(
                "Automatic replies against webhooks",
                "Replies stay under webhooks. Released: those that had waited.",
                {
                    "webhooks": _of_the_stage("webhooks_accepted"),
                    "replies": _counted("worker", "auto_reply_sent"),
                    "released": _counted("worker", "auto_reply_released"),
                    "stopped at the cap": _counted("worker", "automatic_capped"),
                },
            ),
            Panel(
                "Effects that came about twice, by integration and proof",
                "None, ever.",
                {"": Each("worker", "effects_doubled", ("integration", "reason"))},
            ),
            Panel("429, by integration", "None.", {"": Each("worker", "rate_limited", ("integration",))}),
            Panel(
                "Calls put off by our own rate, by integration",
                "Some at the peak of a day. The limiter answers always.",
                {
                    "": Each("worker", "calls_limited", ("integration",)),
                    "the limiter did not answer": _counted("worker", "limiter_unavailable"),
                },
            ),
            Panel(
                "Fallbacks taken, by row of the matrix",
                "None while all integrations are healthy.",
                {"": Each("worker", "fallback_taken", ("integration", "reason"))},
            ),
        ),
    ),
    Station(
        "5. What is unfinished",
        (
            Panel(
                "Recovery items made, by integration",
                "A few in a hundred of all actions.",
                {"": Each("worker", "rows_created", ("integration", "outcome"))},
            ),
            Panel(
                "Recovery items, what became of them",
                "succeeded follows those made. failed and dlq: for people.",
                {"": Each("worker", "recovery_transitions", ("integration", "outcome"))},
            ),
            Panel(
                "Waiting, by integration and what for",
                "Near nothing. Of those that the sweeper has reason to look at.",
                {"": Each("sweeper", "rows_waiting", ("integration", "reason"), "Maximum")},
            ),
            Panel(
                "Age of the oldest item that is due, by integration",
                "Under half an hour; the last of five attempts is made after a quarter.",
                {"": Each("sweeper", "rows_oldest_age_ms", ("integration",), "Maximum")},
            ),
            Panel(
                "Ended for people",
                "None that must be done; a few others a day.",
                {
                    "must be done": _of_the_stage("people_needed"),
                    "": Each("worker", "ended_for_people", ("integration", "reason")),
                },
            ),
            Panel(
                "Overdue, of unknown outcome",
                "None.",
                {
                    "overdue": _counted("sweeper", "rows_overdue"),
                    "unknown": _counted("sweeper", "outcomes_unknown_overdue"),
                },
            ),
            Panel(
                "Dead-letter queues",
                "Empty: triage empties them within a minute.",
                {queue: _queue(queue, _VISIBLE) for queue in _DEAD_LETTERS},
            ),
            Panel("Tables: reads and writes refused", "None.", _watched_by("tables-throttled")),
            LogPanel(
                "Recovery items of the last hours, by event name",
                "No single name stands out.",
                "worker",
                (
                    'filter message = "an action of the event is unfinished and is a recovery item from here on"',
                    "stats count() as items by event_name, status, code",
                    "sort items desc",
                    "limit 20",
                ),
            ),
            LogPanel(
                "Dead events of the last hours, by event name",
                "None.",
                "triage",
                (
                    "filter ispresent(root_cause)",
                    "stats count() as events by event_name, root_cause",
                    "sort events desc",
                ),
            ),
        ),
    ),
    Station(
        "6. Who watches",
        (
            Panel(
                "Heartbeats",
                "One a minute each.",
                {each.name.removesuffix("-missing"): each.series["beats"] for each in ALARMS if "beats" in each.series},
            ),
            Panel(
                "The event of our own, settled",
                "One every few minutes, the whole way.",
                _watched_by("synthetic-missing"),
            ),
            Panel(
                "Duties that failed",
                "None.",
                {each: _counted(each, "duties_failed") for each in ("sweeper", "evaluator", "pager")},
            ),
            Panel("Duties that did not fit into their minute", "None.", _watched_by("work-cut-short")),
            Panel(
                "Incidents and pages",
                "None open. Pages follow incidents, and each is taken by every channel.",
                {
                    "open": _counted("pager", "incidents_open", "Maximum"),
                    "opened": _counted("pager", "incidents_opened"),
                    "pages": _counted("pager", "pages_sent"),
                    "pages that a channel did not take": _counted("pager", "pages_failed"),
                },
            ),
            Panel(
                "Contained without a person",
                "None. Each is on a page, and in its incident.",
                {
                    "switches set": _counted("pager", "containments"),
                    "could not be set": _counted("pager", "containments_failed"),
                },
            ),
            Panel("Alarms that SNS could not hand over, by topic", "None.", _watched_by("alarms-not-delivered")),
            Panel(
                "Switches",
                "Changes now and then. Thrown, stale and invalid: none.",
                {
                    "thrown": _counted("evaluator", "switches_thrown", "Maximum"),
                    "changed": _counted("evaluator", "switch_changes"),
                    "stale": _counted("worker", "switches_stale"),
                    "invalid": _counted("evaluator", "switch_values_invalid"),
                },
            ),
            Panel(
                "Replay",
                "Nothing, but when somebody replays.",
                {
                    "": Each("replay", "rows_replayed", ("integration",)),
                    "stopped themselves": _counted("replay", "replay_jobs_stopped"),
                    "interrupted": _counted("replay", "replay_jobs_interrupted"),
                },
            ),
        ),
    ),
)


class Dashboard(Construct):
    """`holdfast-{stage}`. `metric` makes a stage's own metric of a row's series, `log_groups` are those of functions.

    A flow whose alarms stand in the table has a station of its own at the end: a graph of each, with its threshold.
    """

    def __init__(
        self,
        scope: Construct,
        *,
        config: StageConfig,
        metric: Callable[[Series], cloudwatch.Metric],
        log_groups: Mapping[str, logs.ILogGroup],
        alarms: Sequence[cloudwatch.IAlarm],
        table: Sequence[Alarm] = ALARMS,
    ) -> None:
        super().__init__(scope, "Dashboard")
        self._config, self._metric, self._log_groups = config, metric, log_groups
        dashboard = cloudwatch.Dashboard(
            self, "Board", dashboard_name=f"holdfast-{config.name}", default_interval=Duration.hours(3)
        )
        dashboard.add_widgets(
            cloudwatch.TextWidget(
                markdown=f"# holdfast-{config.name}\nAn event travels from top to bottom. What an alarm means: "
                "`docs/runbooks/alarms.md`.",
                width=WIDTH,
                height=2,
            )
        )
        dashboard.add_widgets(cloudwatch.AlarmStatusWidget(alarms=list(alarms), title="Alarms", width=WIDTH, height=5))
        for station in STATIONS:
            self._station(dashboard, station.title, [self._widget(panel) for panel in station.panels])
        for flow in sorted({alarm.flow for alarm in table if alarm.flow}):
            self._station(dashboard, f"Flow {flow}", [self._of(alarm) for alarm in table if alarm.flow == flow])

    def _station(self, dashboard: cloudwatch.Dashboard, title: str, widgets: Sequence[cloudwatch.IWidget]) -> None:
        dashboard.add_widgets(cloudwatch.TextWidget(markdown=f"## {title}", width=WIDTH, height=1))
        for start in range(0, len(widgets), _PER_ROW):
            dashboard.add_widgets(*widgets[start : start + _PER_ROW])

    def _widget(self, panel: Panel | LogPanel) -> cloudwatch.IWidget:
        width, title = WIDTH // _PER_ROW, f"{panel.title} | normal: {panel.normal}"
        if isinstance(panel, LogPanel):
            return cloudwatch.LogQueryWidget(
                log_group_names=[self._log_groups[panel.function].log_group_name],
                query_lines=list(panel.query),
                title=title,
                width=width,
                height=6,
            )
        return cloudwatch.GraphWidget(
            title=title,
            width=width,
            height=6,
            left=[self._line(label, line) for label, line in panel.lines.items()],
            left_y_axis=cloudwatch.YAxisProps(min=0),
        )

    def _line(self, label: str, line: Series | Each) -> cloudwatch.IMetric:
        if isinstance(line, Each):
            return cloudwatch.MathExpression(
                expression=line.expression(self._config.name),
                using_metrics={},
                label=label,
                period=Duration.minutes(1),
            )
        return self._metric(line).with_(label=label)

    def _of(self, alarm: Alarm) -> cloudwatch.IWidget:
        metrics: dict[str, cloudwatch.IMetric] = {name: self._metric(series) for name, series in alarm.series.items()}
        return cloudwatch.GraphWidget(
            title=f"{alarm.name} | normal: {_NORMAL[alarm.comparison]} {alarm.threshold:g}",
            width=WIDTH // _PER_ROW,
            height=6,
            left=[
                cloudwatch.MathExpression(
                    expression=alarm.expression,
                    using_metrics=metrics,
                    label=alarm.says,
                    period=Duration.seconds(alarm.period_seconds),
                )
            ],
            left_annotations=[cloudwatch.HorizontalAnnotation(value=alarm.threshold, color=cloudwatch.Color.RED)],
        )


_NORMAL = {
    "GreaterThanThreshold": "at most",
    "GreaterThanOrEqualToThreshold": "under",
    "LessThanThreshold": "at least",
}
