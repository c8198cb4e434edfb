"""Queues come in pairs: one that is worked, and one for what nobody could work."""

from __future__ import annotations

from aws_cdk import Acknowledgment, Arn, ArnComponents, Duration, RemovalPolicy, Stack, Validations
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.config import StageConfig

RETENTION = Duration.days(14)
"""The longest SQS keeps a message. A message keeps its age when it is moved to the dead-letter queue."""


class WorkQueue(Construct):
    """A standard queue with its dead-letter queue, which takes messages from this one and no other."""

    def __init__(
        self, scope: Construct, name: str, *, config: StageConfig, emptied_by: str = "triage empties it"
    ) -> None:
        super().__init__(scope, f"{name.title()}Queue")
        # The two queues name each other, which references cannot do; hence names that are known beforehand.
        queue_name = f"holdfast-{config.name}-{name}"
        source = sqs.Queue.from_queue_arn(
            self,
            "Source",
            Arn.format(ArnComponents(service="sqs", resource=queue_name), Stack.of(self)),
        )
        self.dlq = sqs.Queue(
            self,
            "Dlq",
            queue_name=f"{queue_name}-dlq",
            retention_period=RETENTION,
            visibility_timeout=Duration.seconds(config.dlq_visibility_seconds),
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=not config.emulated,
            redrive_allow_policy=sqs.RedriveAllowPolicy(source_queues=[source]),
            removal_policy=_removal(config),
        )
        _acknowledge(self.dlq, "Serverless-SQSRedrivePolicy", f"It is a dead-letter queue: {emptied_by}")
        self.queue = sqs.Queue(
            self,
            "Queue",
            queue_name=queue_name,
            retention_period=RETENTION,
            visibility_timeout=Duration.seconds(config.visibility_seconds),
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=not config.emulated,
            dead_letter_queue=sqs.DeadLetterQueue(queue=self.dlq, max_receive_count=config.max_receive_count),
            removal_policy=_removal(config),
        )
        for queue in (self.dlq, self.queue):
            _acknowledge_plain_http(queue, config)


def final_queue(scope: Construct, name: str, *, config: StageConfig) -> sqs.Queue:
    """A queue that is itself the end of the line: people read it, an alarm watches it."""
    queue = sqs.Queue(
        scope,
        name.title().replace("-", ""),
        queue_name=f"holdfast-{config.name}-{name}",
        retention_period=RETENTION,
        encryption=sqs.QueueEncryption.SQS_MANAGED,
        enforce_ssl=not config.emulated,
        redrive_allow_policy=sqs.RedriveAllowPolicy(redrive_permission=sqs.RedrivePermission.DENY_ALL),
        removal_policy=_removal(config),
    )
    for rule in ("AwsSolutions-SQS3", "Serverless-SQSRedrivePolicy"):
        _acknowledge(queue, rule, "The end of the line: no function reads it, an alarm watches it, people empty it")
    _acknowledge_plain_http(queue, config)
    return queue


def _acknowledge(queue: sqs.Queue, rule: str, reason: str) -> None:
    Validations.of(queue).acknowledge(Acknowledgment(id=rule, reason=reason))


def _acknowledge_plain_http(queue: sqs.Queue, config: StageConfig) -> None:
    if config.emulated:
        _acknowledge(queue, "AwsSolutions-SQS4", "The emulator speaks plain HTTP on the loopback interface")


def _removal(config: StageConfig) -> RemovalPolicy:
    return RemovalPolicy.RETAIN if config.retain else RemovalPolicy.DESTROY
