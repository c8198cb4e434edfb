"""Who is told, and when: a table of alarms on queues and on what the functions count, and the topic they speak to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aws_cdk import Acknowledgment, Duration, Validations
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.config import StageConfig

NAMESPACE = "Holdfast"
"""Of all that the functions count (`functions/observability.py`). Also where the local stage publishes one metric per
alarm, under the alarm's own name: the emulator computes none.
"""


@dataclass(frozen=True, slots=True)
class QueueAlarm:
    """Fires while a queue holds messages, waiting or being worked, in each of `minutes` minutes in a row."""

    name: str
    queue: str
    minutes: int
    description: str
    section: int = 2
    page: str = "recovery.md"


@dataclass(frozen=True, slots=True)
class MetricAlarm:
    """Fires while a function's metric, counted by function and stage alone, is over 0 in each of `minutes` minutes in a
    row. Without a `function` it is one of those that all functions count as one.

    A minute without data is none: where a function does not run at all, other alarms tell of it.
    """

    name: str
    metric: str
    function: str
    minutes: int
    description: str
    section: int
    page: str = "recovery.md"


RUNBOOKS = "docs/runbooks"

ALARMS: tuple[QueueAlarm | MetricAlarm, ...] = (
    QueueAlarm("events-dlq-not-drained", "events-dlq", 5, "Triage is broken: poison events wait for it"),
    QueueAlarm("retries-dlq-not-drained", "retries-dlq", 5, "Triage is broken: poison retries wait for it"),
    QueueAlarm("replays-dlq-not-drained", "replays-dlq", 5, "Triage is broken: poison replays wait for it"),
    QueueAlarm("ops-dlq-not-empty", "ops-dlq", 1, "A run of the sweeper, the evaluator or replay failed for good"),
    MetricAlarm("spill-not-drained", "spill_left", "sweeper", 5, "Accepted events wait outside the events queue", 6),
    MetricAlarm(
        "integration-down", "integrations_down", "evaluator", 1, "A provider is down: what goes to it waits", 5
    ),
    MetricAlarm(
        "replay-stopped",
        "replay_jobs_stopped",
        "replay",
        1,
        "A bulk replay stopped itself: see why",
        7,
        "recovery-and-replay.md",
    ),
    MetricAlarm(
        "message-for-a-person", "people_needed", "", 1, "Something that must be done is left for a person to do", 3
    ),
)


class Monitoring(Construct):
    """The alarms of `ALARMS`, those on a queue on the one of that name in `queues`, all to one topic."""

    def __init__(self, scope: Construct, *, config: StageConfig, queues: Mapping[str, sqs.Queue]) -> None:
        super().__init__(scope, "Monitoring")
        self.topic = sns.Topic(self, "Alarms", enforce_ssl=not config.emulated)
        if config.emulated:
            Validations.of(self.topic).acknowledge(
                Acknowledgment(
                    id="AwsSolutions-SNS3", reason="The emulator speaks plain HTTP on the loopback interface"
                )
            )
        for alarm in ALARMS:
            watched = _held(queues[alarm.queue]) if isinstance(alarm, QueueAlarm) else _counted(alarm, config)
            self._alarm(alarm, watched, config=config)

    def _alarm(self, alarm: QueueAlarm | MetricAlarm, watched: cloudwatch.IMetric, *, config: StageConfig) -> None:
        name = f"holdfast-{config.name}-{alarm.name}"
        resource = cloudwatch.Alarm(
            self,
            alarm.name.title().replace("-", ""),
            alarm_name=name,
            alarm_description=f"{alarm.description}. What to do: {RUNBOOKS}/{alarm.page}, section {alarm.section}",
            metric=_derived(name) if config.emulated else watched,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            threshold=0,
            evaluation_periods=1 if config.emulated else alarm.minutes,
            datapoints_to_alarm=1 if config.emulated else alarm.minutes,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        resource.add_alarm_action(actions.SnsAction(self.topic))
        resource.add_ok_action(actions.SnsAction(self.topic))


def _held(queue: sqs.Queue) -> cloudwatch.MathExpression:
    """Waiting plus in flight: a consumer that takes and fails for ever must not look like an empty queue."""
    minute = Duration.minutes(1)
    return cloudwatch.MathExpression(
        expression="visible + in_flight",
        using_metrics={
            "visible": queue.metric_approximate_number_of_messages_visible(period=minute, statistic="Maximum"),
            "in_flight": queue.metric_approximate_number_of_messages_not_visible(period=minute, statistic="Maximum"),
        },
        label="messages held",
        period=minute,
    )


def _counted(alarm: MetricAlarm, config: StageConfig) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace=NAMESPACE,
        metric_name=alarm.metric,
        dimensions_map=({"service": alarm.function} if alarm.function else {}) | {"stage": config.name},
        period=Duration.minutes(1),
        statistic="Maximum",
    )


def _derived(name: str) -> cloudwatch.Metric:
    return cloudwatch.Metric(namespace=NAMESPACE, metric_name=name, period=Duration.seconds(60), statistic="Maximum")
