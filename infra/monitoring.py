"""Who is told, and when: CloudWatch's alarms and the topics they speak to, made from `functions.core.alarms`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aws_cdk import Acknowledgment, Aws, Duration, Validations
from aws_cdk import aws_apigatewayv2 as apigw
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from functions.core.alarms import ALARMS, HOLDFAST, ON_CALL, PEOPLE, STAGE, Alarm, Audience, Series, Sev, name_at
from infra.config import StageConfig

_LOCAL_PERIOD = Duration.seconds(10)
"""The emulator's whole window: an alarm there is over this long after the bridge says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What the table of alarms names by a short name, with its real one."""

    queues: Mapping[str, sqs.Queue]
    functions: Mapping[str, lambda_.Function]
    tables: Mapping[str, str]
    api: apigw.HttpApi


class Monitoring(Construct):
    """An alarm for each row of `ALARMS`, and a topic for each severity and audience that a row speaks to.

    On the local stage each is a plain alarm on a metric of its own name, which `ops.local.bridge` publishes: the
    emulator computes neither expressions nor M of N, tells no dimensions apart and makes no metrics of logs.
    """

    def __init__(self, scope: Construct, *, config: StageConfig, watched: Watched, direct: sns.ITopic) -> None:
        super().__init__(scope, "Monitoring")
        self._config, self._watched, self._direct = config, watched, direct
        self.topics: Mapping[tuple[Sev, Audience], sns.Topic] = {
            topic: self._topic(*topic) for topic in sorted({topic for alarm in ALARMS for topic in alarm.topics})
        }
        self.alarms: list[cloudwatch.AlarmBase] = []
        """In the order of the table."""
        for alarm in ALARMS:
            made = self._local(alarm) if config.emulated else self._alarm(alarm)
            self.alarms.append(made)
            for topic in alarm.topics:
                action = actions.SnsAction(self.topics[topic])
                made.add_alarm_action(action)
                made.add_ok_action(action)
            if alarm.group == ON_CALL:
                made.add_alarm_action(actions.SnsAction(direct))
                made.add_ok_action(actions.SnsAction(direct))

    def metric(self, series: Series) -> cloudwatch.Metric:
        """The metric as this stage's functions and AWS count it."""
        return self._metric(series, series.period_seconds)

    def _metric(self, series: Series, seconds: int) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=series.namespace,
            metric_name=series.metric,
            dimensions_map={name: self._real(name, value) for name, value in series.dimensions.items()},
            statistic=series.statistic,
            period=Duration.seconds(seconds),
        )

    def _real(self, dimension: str, value: str) -> str:
        """A short name's real one. Raises KeyError for one that this stage does not have."""
        match dimension:
            case "QueueName":
                return self._watched.queues[value].queue_name
            case "FunctionName":
                return self._watched.functions[value].function_name
            case "TableName":
                return self._watched.tables[value]
            case "ApiId":
                return self._watched.api.api_id
            case "TopicName" if value == PEOPLE:
                return self._direct.topic_name
            case "TopicName":
                sev, _, audience = value.partition("-")
                return self.topics[Sev(sev), Audience(audience)].topic_name
        return value.replace(STAGE, self._config.name)

    def _topic(self, sev: Sev, audience: Audience) -> sns.Topic:
        topic = sns.Topic(
            self,
            f"{sev}{audience.title()}",
            topic_name=f"holdfast-{self._config.name}-{sev.lower()}-{audience}",
            enforce_ssl=not self._config.emulated,
        )
        if self._config.emulated:
            Validations.of(topic).acknowledge(
                Acknowledgment(
                    id="AwsSolutions-SNS3", reason="The emulator speaks plain HTTP on the loopback interface"
                )
            )
            return topic
        let_alarms_publish(topic)
        return topic

    def _alarm(self, alarm: Alarm) -> cloudwatch.AlarmBase:
        if not alarm.also_over_seconds:
            return self._over(alarm, alarm.period_seconds, _id_of(alarm), name_at(self._config.name, alarm.name))
        windows = [
            self._over(
                alarm,
                seconds,
                f"{_id_of(alarm)}Over{seconds}",
                f"{name_at(self._config.name, alarm.name)}-over-{seconds}s",
            )
            for seconds in (alarm.period_seconds, alarm.also_over_seconds)
        ]
        return cloudwatch.CompositeAlarm(
            self,
            _id_of(alarm),
            composite_alarm_name=name_at(self._config.name, alarm.name),
            alarm_description=_description(alarm, self._config),
            alarm_rule=cloudwatch.AlarmRule.all_of(
                *(cloudwatch.AlarmRule.from_alarm(window, cloudwatch.AlarmState.ALARM) for window in windows)
            ),
        )

    def _over(self, alarm: Alarm, seconds: int, construct_id: str, name: str) -> cloudwatch.Alarm:
        metrics = {each: self._metric(series, seconds) for each, series in alarm.series.items()}
        return cloudwatch.Alarm(
            self,
            construct_id,
            alarm_name=name,
            alarm_description=_description(alarm, self._config),
            metric=metrics[alarm.expression]
            if alarm.expression in metrics
            else cloudwatch.MathExpression(
                expression=alarm.expression,
                using_metrics=dict(metrics),
                label=alarm.name,
                period=Duration.seconds(seconds),
            ),
            comparison_operator=_COMPARISONS[alarm.comparison],
            threshold=alarm.threshold,
            evaluation_periods=alarm.periods,
            datapoints_to_alarm=alarm.datapoints,
            treat_missing_data=_MISSING[alarm.missing],
        )

    def _local(self, alarm: Alarm) -> cloudwatch.Alarm:
        name = name_at(self._config.name, alarm.name)
        return cloudwatch.Alarm(
            self,
            _id_of(alarm),
            alarm_name=name,
            alarm_description=_description(alarm, self._config),
            metric=cloudwatch.Metric(
                namespace=HOLDFAST, metric_name=name, period=_LOCAL_PERIOD, statistic=cloudwatch.Stats.MAXIMUM
            ),
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            threshold=0,
            evaluation_periods=1,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )


def let_alarms_publish(topic: sns.Topic) -> None:
    """A topic that has a policy has that one alone, and this one would else only refuse plain HTTP: nobody, and no
    alarm either, could publish.
    """
    topic.add_to_resource_policy(
        iam.PolicyStatement(
            sid="AlarmsOfThisAccount",
            principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
            actions=["sns:Publish"],
            resources=[topic.topic_arn],
            conditions={"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}},
        )
    )


def _id_of(alarm: Alarm) -> str:
    return alarm.name.title().replace("-", "")


def _description(alarm: Alarm, config: StageConfig) -> str:
    return f"{alarm.says}. {alarm.sev}, {alarm.group}. What to do: {config.runbooks_url}{alarm.page}"


_COMPARISONS = {
    "GreaterThanThreshold": cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
    "GreaterThanOrEqualToThreshold": cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
    "LessThanThreshold": cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
}
_MISSING = {
    "notBreaching": cloudwatch.TreatMissingData.NOT_BREACHING,
    "breaching": cloudwatch.TreatMissingData.BREACHING,
    "ignore": cloudwatch.TreatMissingData.IGNORE,
}
