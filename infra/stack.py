"""The whole of one stage. Only puts the parts together."""

from __future__ import annotations

from aws_cdk import CfnOutput, CliCredentialsStackSynthesizer, Fn, Stack
from constructs import Construct

from infra.config import StageConfig
from infra.dashboard import Dashboard
from infra.intake import Intake
from infra.monitoring import Monitoring, Watched
from infra.on_call import OnCall
from infra.operations import Operations
from infra.operator_api import OperatorApi
from infra.processing import Processing
from infra.python_function import CodeFor
from infra.recovery import Recovery
from infra.storage import Storage
from infra.synthetic import Synthetic


class HoldfastStack(Stack):
    """Named `holdfast-{stage}`. Its outputs are all that the command line needs to know of a stage."""

    def __init__(self, scope: Construct, *, config: StageConfig, code_for: CodeFor) -> None:
        super().__init__(
            scope,
            f"holdfast-{config.name}",
            description="Holdfast: webhook middleware in which nothing fails silently",
            termination_protection=config.retain,
            # The emulator enforces IAM, but knows the conditions of bootstrapped roles too little to let them in.
            synthesizer=CliCredentialsStackSynthesizer() if config.emulated else None,
            tags={"application": "holdfast", "stage": config.name},
        )
        storage = Storage(self, config=config)
        intake = Intake(self, config=config, code_for=code_for, storage=storage)
        processing = Processing(self, config=config, code_for=code_for, storage=storage, events=intake.events)
        recovery = Recovery(
            self,
            config=config,
            code_for=code_for,
            storage=storage,
            intake_events=intake.events,
            processing=processing,
        )
        operations = Operations(
            self, config=config, code_for=code_for, storage=storage, intake=intake, ops_dlq=recovery.ops_dlq
        )
        # What an event meets on its way: a deploy of one of them is the first suspect.
        on_the_way = [intake.ingress, processing.worker, recovery.triage, recovery.sweeper, recovery.replay]
        operators = OperatorApi(
            self,
            config=config,
            code_for=code_for,
            storage=storage,
            intake=intake,
            processing=processing,
            recovery=recovery,
            deployed=on_the_way,
        )
        synthetic = Synthetic(self, config=config, code_for=code_for, intake=intake, ops_dlq=recovery.ops_dlq)
        functions = {
            "ingress": intake.ingress,
            "worker": processing.worker,
            "triage": recovery.triage,
            "operator_api": operators.api,
        }
        on_call = OnCall(
            self,
            config=config,
            code_for=code_for,
            storage=storage,
            deployed=[*on_the_way, operations.evaluator, operators.api],
            worked={
                "events": intake.events.queue,
                "retries": processing.retries.queue,
                "replays": processing.replays.queue,
            },
            ops_dlq=recovery.ops_dlq,
        )
        monitoring = Monitoring(
            self,
            config=config,
            watched=Watched(
                queues={
                    "events": intake.events.queue,
                    "retries": processing.retries.queue,
                    "replays": processing.replays.queue,
                    "events-dlq": intake.events.dlq,
                    "retries-dlq": processing.retries.dlq,
                    "replays-dlq": processing.replays.dlq,
                    "ops-dlq": recovery.ops_dlq,
                    "pages-dlq": on_call.pages.dlq,
                },
                functions={name: each.function for name, each in functions.items()},
                tables={
                    "LedgerTable": storage.ledger.table_name,
                    "RecoveryTable": storage.recovery.table_name,
                    "AuditTable": storage.audit.table_name,
                    "ControlTable": storage.control.table_name,
                    "RecipientsTable": storage.recipients.table_name,
                },
                api=intake.api,
            ),
            direct=on_call.topic,
        )
        Dashboard(
            self,
            config=config,
            metric=monitoring.metric,
            log_groups={name: each.log_group for name, each in functions.items()},
            alarms=monitoring.alarms,
        )
        on_call.listen(monitoring.topics)
        for key, value in {
            "ApiId": intake.api.api_id,
            "ApiUrl": intake.api.api_endpoint,
            "EventsQueueUrl": intake.events.queue.queue_url,
            "RetriesQueueUrl": processing.retries.queue.queue_url,
            "ReplaysQueueUrl": processing.replays.queue.queue_url,
            "EventsDlqUrl": intake.events.dlq.queue_url,
            "RetriesDlqUrl": processing.retries.dlq.queue_url,
            "ReplaysDlqUrl": processing.replays.dlq.queue_url,
            "OpsDlqUrl": recovery.ops_dlq.queue_url,
            "LedgerTable": storage.ledger.table_name,
            "RecoveryTable": storage.recovery.table_name,
            "AuditTable": storage.audit.table_name,
            "ControlTable": storage.control.table_name,
            "RecipientsTable": storage.recipients.table_name,
            "Bucket": storage.bucket.bucket_name,
            "IngressFunction": intake.ingress.function.function_name,
            "WorkerFunction": processing.worker.function.function_name,
            "TriageFunction": recovery.triage.function.function_name,
            "SweeperFunction": recovery.sweeper.function.function_name,
            "ReplayFunction": recovery.replay.function.function_name,
            "SyntheticFunction": synthetic.sender.function.function_name,
            "EvaluatorFunction": operations.evaluator.function.function_name,
            "PagesQueueUrl": on_call.pages.queue.queue_url,
            "PagesDlqUrl": on_call.pages.dlq.queue_url,
            "OncallTopicArn": on_call.topic.topic_arn,
            "OncallPath": config.oncall_path,
            "PagerFunction": on_call.pager.function.function_name,
            "OperatorApiFunction": operators.api.function.function_name,
            "UserPoolId": operators.pool.user_pool_id,
            "LoginUrl": operators.domain.base_url(),
            "PeopleClientId": operators.clients.people.user_pool_client_id,
            "ViewClientId": operators.clients.view.user_pool_client_id,
            "OperateClientId": operators.clients.operate.user_pool_client_id,
            "AlarmTopicArns": Fn.join(" ", [topic.topic_arn for topic in monitoring.topics.values()]),
            "SwitchesPath": config.switches_path,
            "SourcesPath": config.sources_path,
            "IntegrationsPath": config.integrations_path,
        }.items():
            CfnOutput(self, key, value=value)
