"""How events are worked: the worker and the three queues it reads."""

from __future__ import annotations

from aws_cdk import Arn, ArnComponents, Stack
from constructs import Construct

from functions.worker.settings import WorkerSettings
from infra.config import StageConfig
from infra.python_function import CodeFor, PythonFunction, parameter_arn
from infra.queues import WorkQueue
from infra.storage import Storage


class Processing(Construct):
    """One worker, fed by new events, by retries that are due and by replays, each with a concurrency of its own.

    So a flood of new events cannot starve retries, and neither can a bulk replay starve either of them.
    """

    def __init__(
        self, scope: Construct, *, config: StageConfig, code_for: CodeFor, storage: Storage, events: WorkQueue
    ) -> None:
        super().__init__(scope, "Processing")
        self.retries = WorkQueue(self, "retries", config=config)
        self.replays = WorkQueue(self, "replays", config=config)
        self.worker = PythonFunction(
            self,
            "worker",
            config=config,
            code_for=code_for,
            settings=WorkerSettings(
                stage=config.name,
                ledger_table=storage.ledger.table_name,
                recovery_table=storage.recovery.table_name,
                audit_table=storage.audit.table_name,
                control_table=storage.control.table_name,
                recipients_table=storage.recipients.table_name,
                bucket=storage.bucket.bucket_name,
                events_queue_url=events.queue.queue_url,
                retries_queue_url=self.retries.queue.queue_url,
                replays_queue_url=self.replays.queue.queue_url,
                switches_path=config.switches_path,
                integrations_path=config.integrations_path,
                timeout_seconds=config.worker_timeout_seconds,
                time_scale=config.time_scale,
            ),
            timeout_seconds=config.worker_timeout_seconds,
            memory_mb=512,
        )
        for queue, concurrency in (
            (events, config.events_concurrency),
            (self.retries, config.retries_concurrency),
            (self.replays, config.replays_concurrency),
        ):
            self.worker.read_from(queue.queue, max_concurrency=concurrency)
        allow = self.worker.allow
        allow(["dynamodb:BatchGetItem", "dynamodb:UpdateItem"], [storage.ledger.table_arn])
        # A transaction is authorized by its parts; a row is always written whole.
        allow(["dynamodb:GetItem", "dynamodb:PutItem"], [storage.recovery.table_arn])
        allow(["dynamodb:PutItem"], [storage.audit.table_arn])
        allow(["dynamodb:BatchGetItem", "dynamodb:UpdateItem"], [storage.control.table_arn])
        # Read before each send; written when a provider says that the recipient told it to stop.
        allow(["dynamodb:GetItem", "dynamodb:UpdateItem"], [storage.recipients.table_arn])
        allow(
            ["s3:GetObject", "s3:PutObject"],
            [storage.bucket.arn_for_objects("envelopes/*")],
            why_wildcard="One envelope per event, under this prefix",
        )
        allow(
            ["s3:GetObject"],
            [storage.bucket.arn_for_objects("claims/*")],
            why_wildcard="One claim check per large event, under this prefix",
        )
        allow(
            ["s3:GetObject"],
            [storage.bucket.arn_for_objects("documents/*")],
            why_wildcard="One object per document that people gave, under this prefix",
        )
        allow(
            ["s3:PutObject"],
            [storage.bucket.arn_for_objects("parsed/*")],
            why_wildcard="What was read from each document, under this prefix",
        )
        # Without it S3 answers 403 for an object that has expired: a missing envelope would look like a broken grant.
        allow(["s3:ListBucket"], [storage.bucket.bucket_arn])
        allow(
            ["ssm:GetParameter"],
            [parameter_arn(self, f"{config.integrations_path}/*")],
            why_wildcard="Integrations are added by catalog and parameter; each is one parameter under this path",
        )
        # Which sender and configuration set is said by the integration's parameter. The local stage's emails go to the
        # simulator, which asks for no grant.
        allow(
            ["ses:SendEmail"],
            [_ses_arn(self, "identity/*"), _ses_arn(self, "configuration-set/*")],
            why_wildcard="The sender is named in the integration's parameter; only verified identities can send at all",
        )
        self.worker.allow_switches(config=config)


def _ses_arn(scope: Construct, resource: str) -> str:
    kind, _, name = resource.partition("/")
    return Arn.format(ArnComponents(service="ses", resource=kind, resource_name=name), Stack.of(scope))
