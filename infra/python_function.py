"""The only way a Lambda function comes into being here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aws_cdk import Acknowledgment, Arn, ArnComponents, ArnFormat, Duration, RemovalPolicy, Stack, Validations
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_destinations as destinations
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from constructs import Construct, IConstruct

from functions.env import EnvSettings
from infra.config import StageConfig

CodeFor = Callable[[str], lambda_.Code]
"""The code of the function of that name. Injected, so that tests of the template never bundle."""


class PythonFunction(Construct):
    """One function of `functions/`: its code, role, log group and configuration.

    The role starts with nothing but its own log stream and tracing; everything else is said with `allow`.
    A function that is invoked asynchronously names `failures_to`, the queue that gets what it could not do.
    """

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        config: StageConfig,
        code_for: CodeFor,
        settings: EnvSettings,
        timeout_seconds: int,
        memory_mb: int = 256,
        reserved_concurrency: int | None = None,
        failures_to: sqs.IQueue | None = None,
    ) -> None:
        super().__init__(scope, name.title())
        self.log_group = logs.LogGroup(
            self,
            "Logs",
            retention=_RETENTION[config.log_retention_days],
            removal_policy=RemovalPolicy.RETAIN if config.retain else RemovalPolicy.DESTROY,
        )
        self.role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        self.function = lambda_.Function(
            self,
            "Function",
            function_name=f"holdfast-{config.name}-{name}",
            runtime=lambda_.Runtime.PYTHON_3_13,
            architecture=lambda_.Architecture.ARM_64,
            code=code_for(name),
            handler=f"functions.{name}.main.handler",
            environment=settings.to_env(),
            timeout=Duration.seconds(timeout_seconds),
            memory_size=memory_mb,
            reserved_concurrent_executions=reserved_concurrency,
            role=self.role,
            log_group=self.log_group,
            logging_format=lambda_.LoggingFormat.JSON,
            tracing=lambda_.Tracing.ACTIVE,
        )
        self.log_group.grant_write(self.role)
        self._policy = self.role.node.find_child("DefaultPolicy")
        _acknowledge(
            self._policy,
            "AwsSolutions-IAM5[Resource::*]",
            "X-Ray's PutTraceSegments and PutTelemetryRecords know no resource",
        )
        for rule in ("AwsSolutions-L1", "Serverless-LambdaLatestVersion"):
            _acknowledge(
                self.function,
                rule,
                "Python 3.13 on purpose: every compiled package of the lock has an arm64 wheel for it",
            )
        _acknowledge(
            self.function,
            "Serverless-LambdaDLQ",
            "Called by the gateway or by SQS, which keep what failed"
            if failures_to is None
            else "Asynchronous failures go to an on-failure destination, which tells more than a dead-letter queue",
        )
        if failures_to is not None:
            self.function.configure_async_invoke(
                on_failure=destinations.SqsDestination(failures_to),
                retry_attempts=2,
                max_event_age=Duration.hours(1),
            )

    def allow(self, actions: Sequence[str], resources: Sequence[str], *, why_wildcard: str | None = None) -> None:
        """Let the function take `actions` on `resources` (ARNs).

        An ARN that holds a `*` needs `why_wildcard`, which becomes the acknowledgement on this role. Raises
        `ValueError` without it.
        """
        for resource in resources:
            finding = _flatten(Stack.of(self).resolve(resource))
            if "*" not in finding:
                continue
            if why_wildcard is None:
                raise ValueError(f"{self.node.path}: {finding} needs a reason")
            _acknowledge(self._policy, f"AwsSolutions-IAM5[Resource::{finding}]", why_wildcard)
        self.role.add_to_policy(iam.PolicyStatement(actions=list(actions), resources=list(resources)))

    def allow_switches(self, *, config: StageConfig, history: bool = False, write: bool = False) -> None:
        """Let the function read every switch, by path; with `history` also who changed one and when, with `write` set
        one.
        """
        self.allow_by_path(config.switches_path, config=config, why=_EVERY_SWITCH)
        if history:
            self.allow(
                ["ssm:GetParameterHistory"],
                [parameter_arn(self, f"{config.switches_path}/*")],
                why_wildcard=_EVERY_SWITCH,
            )
        if write:
            self.allow(
                ["ssm:PutParameter"],
                [parameter_arn(self, f"{config.switches_path}/*")],
                why_wildcard=_EVERY_SWITCH,
            )

    def allow_by_path(self, path: str, *, config: StageConfig, why: str) -> None:
        """Let the function read every parameter below a path."""
        if config.emulated:
            self.allow(
                ["ssm:GetParametersByPath"], ["*"], why_wildcard="The emulator authorizes reads by path against * only"
            )
            return
        self.allow(
            ["ssm:GetParametersByPath"],
            [parameter_arn(self, path), parameter_arn(self, f"{path}/*")],
            why_wildcard=why,
        )

    def allow_log(self, group: logs.LogGroup, *, config: StageConfig) -> None:
        """Let the function look something up in what another one has logged."""
        if config.emulated:
            # The emulator knows a log group by its name alone.
            named = ArnComponents(
                service="logs",
                resource="log-group",
                resource_name=group.log_group_name,
                arn_format=ArnFormat.COLON_RESOURCE_NAME,
            )
            self.allow(["logs:FilterLogEvents"], [Arn.format(named, Stack.of(self))])
            return
        self.allow(
            ["logs:FilterLogEvents"],
            [group.log_group_arn],
            why_wildcard="A log group's ARN ends in a star: its streams",
        )

    def read_from(self, queue: sqs.Queue, *, max_concurrency: int) -> None:
        """Work the queue's messages in batches of up to 10, reporting failures one by one.

        Grants receive, delete and ChangeMessageVisibility on that queue.
        """
        mapping = self.function.add_event_source_mapping(
            f"From{queue.node.path.removeprefix(Stack.of(self).node.path).replace('/', '')}",
            event_source_arn=queue.queue_arn,
            batch_size=10,
            max_concurrency=max_concurrency,
            report_batch_item_failures=True,
        )
        queue.grant_consume_messages(self.role)
        _acknowledge(
            mapping,
            "Serverless-LambdaEventSourceMappingDestination",
            "Lambda takes no failure destination for SQS; the queue has a redrive policy, or is a dead-letter queue",
        )


def _acknowledge(construct: IConstruct, rule: str, reason: str) -> None:
    Validations.of(construct).acknowledge(Acknowledgment(id=rule, reason=reason))


def parameter_arn(scope: Construct, path: str) -> str:
    """The ARN of the SSM parameter (or of the parameters, if it ends in `*`) of that path."""
    return Arn.format(
        ArnComponents(service="ssm", resource="parameter", resource_name=path.lstrip("/")), Stack.of(scope)
    )


def _flatten(value: Any) -> str:
    """An ARN as cdk-nag spells it in a finding: references in angle brackets."""
    match value:
        case str():
            return value
        case {"Ref": str(name)}:
            return f"<{name}>"
        case {"Fn::GetAtt": [str(name), str(attribute)]}:
            return f"<{name}.{attribute}>"
        case {"Fn::Join": [str(separator), list(parts)]}:
            return separator.join(_flatten(part) for part in parts)
    raise TypeError(f"not an ARN: {value!r}")


_EVERY_SWITCH = (
    "Operators add narrowing switches (flow, source, tenant, limits) without a deploy; all lie under this path"
)

_RETENTION = {
    1: logs.RetentionDays.ONE_DAY,
    30: logs.RetentionDays.ONE_MONTH,
    365: logs.RetentionDays.ONE_YEAR,
}
