"""What happens after a failure: triage of poison, the sweeper, and replay."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from functions.replay.settings import ReplaySettings
from functions.sweeper.settings import SweeperSettings
from functions.triage.settings import TriageSettings
from infra.config import StageConfig
from infra.processing import Processing
from infra.python_function import CodeFor, PythonFunction
from infra.queues import WorkQueue, final_queue
from infra.storage import WORK_INDEX, Storage


class Recovery(Construct):
    """Brings every unfinished action to an end, and what is poison before people."""

    def __init__(
        self,
        scope: Construct,
        *,
        config: StageConfig,
        code_for: CodeFor,
        storage: Storage,
        intake_events: WorkQueue,
        processing: Processing,
    ) -> None:
        super().__init__(scope, "Recovery")
        self._config, self._code_for, self._storage = config, code_for, storage
        self.ops_dlq = final_queue(self, "ops-dlq", config=config)
        self.triage = self._triage([intake_events, processing.retries, processing.replays])
        self.replay = self._replay(intake_events, processing)
        self.sweeper = self._sweeper(intake_events, processing)

    def _triage(self, queues: list[WorkQueue]) -> PythonFunction:
        config, storage = self._config, self._storage
        triage = PythonFunction(
            self,
            "triage",
            config=config,
            code_for=self._code_for,
            settings=TriageSettings(
                stage=config.name,
                ledger_table=storage.ledger.table_name,
                recovery_table=storage.recovery.table_name,
                audit_table=storage.audit.table_name,
                bucket=storage.bucket.bucket_name,
                max_receives=config.max_receive_count,
            ),
            timeout_seconds=config.triage_timeout_seconds,
        )
        for queue in queues:
            triage.read_from(queue.dlq, max_concurrency=2)
        triage.allow(["dynamodb:BatchGetItem"], [storage.ledger.table_arn])
        triage.allow(_ROW, [storage.recovery.table_arn])
        triage.allow(["dynamodb:PutItem"], [storage.audit.table_arn])
        triage.allow(
            ["s3:PutObject"],
            [storage.bucket.arn_for_objects("envelopes/*")],
            why_wildcard="One envelope per event, under this prefix",
        )
        return triage

    def _sweeper(self, intake_events: WorkQueue, processing: Processing) -> PythonFunction:
        config, storage = self._config, self._storage
        sweeper = PythonFunction(
            self,
            "sweeper",
            config=config,
            code_for=self._code_for,
            settings=SweeperSettings(
                stage=config.name,
                recovery_table=storage.recovery.table_name,
                audit_table=storage.audit.table_name,
                control_table=storage.control.table_name,
                bucket=storage.bucket.bucket_name,
                events_queue_url=intake_events.queue.queue_url,
                retries_queue_url=processing.retries.queue.queue_url,
                replays_queue_url=processing.replays.queue.queue_url,
                switches_path=config.switches_path,
                replay_function=self.replay.function.function_name,
                timeout_seconds=config.sweeper_timeout_seconds,
                time_scale=config.time_scale,
            ),
            timeout_seconds=config.sweeper_timeout_seconds,
            # It buys processor time: the spill is drained by sixteen threads that do little but talk TLS and read JSON.
            memory_mb=1024,
            failures_to=self.ops_dlq,
        )
        every_minute(self, sweeper, config=config, failures_to=self.ops_dlq)
        sweeper.allow(["dynamodb:Query"], [f"{storage.recovery.table_arn}/index/{WORK_INDEX}"])
        sweeper.allow(_ROW, [storage.recovery.table_arn])
        sweeper.allow(["dynamodb:PutItem"], [storage.audit.table_arn])
        sweeper.allow(["dynamodb:BatchGetItem", "dynamodb:GetItem"], [storage.control.table_arn])
        sweeper.allow(["lambda:InvokeFunction"], [self.replay.function.function_arn])
        # Of the whole bucket: narrowed to a prefix, S3 would answer 403 for an object of the spill that another tick
        # has taken, and "gone" could not be told from "forbidden".
        sweeper.allow(["s3:ListBucket"], [storage.bucket.bucket_arn])
        sweeper.allow(
            ["s3:GetObject", "s3:DeleteObject"],
            [storage.bucket.arn_for_objects("spill/*")],
            why_wildcard="One object per spilled message, under this prefix",
        )
        sweeper.allow(
            ["s3:PutObject"],
            [storage.bucket.arn_for_objects("envelopes/*")],
            why_wildcard="One envelope per spilled message that the queue refuses, under this prefix",
        )
        queues = (intake_events, processing.retries, processing.replays)
        sweeper.allow(["sqs:SendMessage"], [queue.queue.queue_arn for queue in queues])
        sweeper.allow_switches(config=config)
        return sweeper

    def _replay(self, intake_events: WorkQueue, processing: Processing) -> PythonFunction:
        config, storage = self._config, self._storage
        replay = PythonFunction(
            self,
            "replay",
            config=config,
            code_for=self._code_for,
            settings=ReplaySettings(
                stage=config.name,
                ledger_table=storage.ledger.table_name,
                recovery_table=storage.recovery.table_name,
                audit_table=storage.audit.table_name,
                control_table=storage.control.table_name,
                recipients_table=storage.recipients.table_name,
                bucket=storage.bucket.bucket_name,
                events_queue_url=intake_events.queue.queue_url,
                replays_queue_url=processing.replays.queue.queue_url,
                switches_path=config.switches_path,
                time_scale=config.time_scale,
            ),
            timeout_seconds=config.replay_timeout_seconds,
            # A plan of some thousand rows reads and keeps them all.
            memory_mb=1024,
            failures_to=self.ops_dlq,
        )
        replay.allow(["dynamodb:BatchGetItem"], [storage.ledger.table_arn])
        replay.allow(["dynamodb:Query"], [f"{storage.recovery.table_arn}/index/{WORK_INDEX}"])
        replay.allow(["dynamodb:BatchGetItem", "dynamodb:PutItem"], [storage.recovery.table_arn])
        replay.allow(["dynamodb:PutItem"], [storage.audit.table_arn])
        replay.allow(
            # What is done to rows is written together with a check of the job's item.
            ["dynamodb:BatchGetItem", "dynamodb:ConditionCheckItem", "dynamodb:GetItem", "dynamodb:PutItem"],
            [storage.control.table_arn],
        )
        replay.allow(["dynamodb:GetItem"], [storage.recipients.table_arn])
        # Of the whole bucket: narrowed to a prefix, S3 would answer 403 for a record that is not there.
        replay.allow(["s3:ListBucket"], [storage.bucket.bucket_arn])
        replay.allow(
            ["s3:GetObject", "s3:PutObject"],
            [storage.bucket.arn_for_objects("replays/*")],
            why_wildcard="The plan and the records of each bulk replay, under this prefix",
        )
        replay.allow(["sqs:SendMessage"], [processing.replays.queue.queue_arn])
        replay.allow(["sqs:GetQueueAttributes"], [intake_events.queue.queue_arn])
        replay.allow_switches(config=config)
        return replay


def every_minute(
    scope: Construct, target: PythonFunction, *, config: StageConfig, failures_to: sqs.Queue, minutes: int = 1
) -> None:
    """Invoke the function each minute, or each so many. Not on the local stage, where the stack itself ticks."""
    if config.emulated:
        return
    events.Rule(
        scope,
        f"{target.node.id}Minute",
        schedule=events.Schedule.rate(Duration.minutes(minutes)),
        targets=[
            # A tick that is late is worth nothing: the next one does its work.
            targets.LambdaFunction(
                target.function, dead_letter_queue=failures_to, max_event_age=Duration.minutes(1), retry_attempts=1
            )
        ],
    )


_ROW = ["dynamodb:GetItem", "dynamodb:PutItem"]
"""What a transition of a recovery row needs: it is written whole, and a transaction is authorized by its parts."""
