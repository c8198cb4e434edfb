"""How events come in: HTTP API, ingress, events queue."""

from __future__ import annotations

import itertools
import json

from aws_cdk import Acknowledgment, RemovalPolicy, Validations
from aws_cdk import aws_apigatewayv2 as apigw
from aws_cdk import aws_apigatewayv2_integrations as integrations
from aws_cdk import aws_logs as logs
from constructs import Construct

from functions.ingress.settings import IngressSettings
from infra.config import StageConfig
from infra.python_function import CodeFor, PythonFunction, parameter_arn
from infra.queues import WorkQueue
from infra.storage import Storage

_ONE_CPU_MB = 1769
"""From here on a function has a whole vCPU (AWS: "Configure Lambda function memory"). A body of 4 MB takes some 0.4 s
of CPU to verify, read, hash and zip, and all of it must be stored and answered within 1.5 s."""


class Intake(Construct):
    """Accepts webhooks. An answer in the 2xx range means that the event is in the queue, or in the spill."""

    def __init__(self, scope: Construct, *, config: StageConfig, code_for: CodeFor, storage: Storage) -> None:
        super().__init__(scope, "Intake")
        self.events = WorkQueue(self, "events", config=config)
        self.ingress = PythonFunction(
            self,
            "ingress",
            config=config,
            code_for=code_for,
            settings=IngressSettings(
                stage=config.name,
                events_queue_url=self.events.queue.queue_url,
                sources_path=config.sources_path,
                bucket=storage.bucket.bucket_name,
                ledger_table=storage.ledger.table_name,
                recovery_table=storage.recovery.table_name,
            ),
            timeout_seconds=10,
            memory_mb=_ONE_CPU_MB,
            reserved_concurrency=config.ingress_reserved_concurrency,
        )
        self.ingress.allow(["sqs:SendMessage"], [self.events.queue.queue_arn])
        self.ingress.allow(
            ["s3:PutObject"],
            [storage.bucket.arn_for_objects("claims/*"), storage.bucket.arn_for_objects("spill/*")],
            why_wildcard="One object per event that is too large for a queue, or that the events queue did not take",
        )
        # For senders' own tests and questions, which ask whether an event is known and how far it has come. Nothing
        # that is stored waits for it.
        self.ingress.allow(["dynamodb:GetItem"], [storage.ledger.table_arn, storage.recovery.table_arn])
        # A SecureString under the account's own aws/ssm key: whoever may read the parameter may decrypt it.
        self.ingress.allow(
            ["ssm:GetParameter"],
            [parameter_arn(self, f"{config.sources_path}/*")],
            why_wildcard="Sources are added without a deploy; each is one parameter under this path",
        )
        self.api = apigw.HttpApi(self, "Api", api_name=f"holdfast-{config.name}", create_default_stage=False)
        integration = integrations.HttpLambdaIntegration("Webhooks", self.ingress.function)
        post, get = apigw.HttpMethod.POST, apigw.HttpMethod.GET
        # A delivery, the challenge by which some senders ask whether we are there, a sender's own test, and a sender's
        # question how far an event has come.
        ways = {
            "/webhooks/{source}": [post, get],
            "/webhooks/{source}/test": [post],
            "/webhooks/{source}/events/{event_id}": [get],
        }
        for route in itertools.chain.from_iterable(
            self.api.add_routes(path=path, methods=methods, integration=integration) for path, methods in ways.items()
        ):
            Validations.of(route).acknowledge(
                Acknowledgment(
                    id="AwsSolutions-APIG4",
                    reason="Ingress verifies a signature over the raw body, which no authorizer of the gateway sees",
                )
            )
        access_log = logs.LogGroup(
            self,
            "AccessLog",
            retention=logs.RetentionDays.ONE_MONTH,
            removal_policy=RemovalPolicy.RETAIN if config.retain else RemovalPolicy.DESTROY,
        )
        self.stage = apigw.HttpStage(
            self,
            "Stage",
            http_api=self.api,
            stage_name="$default",
            auto_deploy=True,
            throttle=apigw.ThrottleSettings(rate_limit=config.api_rate_per_second, burst_limit=config.api_burst),
        )
        resource = self.stage.node.default_child
        assert isinstance(resource, apigw.CfnStage)  # noqa: S101 - the L2 stage wraps exactly this
        # The L2 takes its access log only as an implemented jsii interface; the property says the same in one line.
        resource.access_log_settings = apigw.CfnStage.AccessLogSettingsProperty(
            destination_arn=access_log.log_group_arn, format=json.dumps(_ACCESS_LOG_FIELDS)
        )


# What the gateway refuses in its own words (an over-long body, a throttled caller) is seen nowhere else.
# No address, no body.
_ACCESS_LOG_FIELDS = {
    "request_id": "$context.requestId",
    "time": "$context.requestTime",
    "route": "$context.routeKey",
    "path": "$context.path",
    "status": "$context.status",
    "response_length": "$context.responseLength",
    "latency_ms": "$context.responseLatency",
    "gateway_error": "$context.error.messageString",
    "integration_error": "$context.integrationErrorMessage",
}
