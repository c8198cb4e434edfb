"""Who is called: the queue that alarms speak into, the pager, and the topic that people subscribe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aws_cdk import Acknowledgment, Validations
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from functions.core.alarms import Audience, Sev
from functions.pager.settings import PagerSettings
from infra.config import StageConfig
from infra.monitoring import let_alarms_publish
from infra.python_function import CodeFor, PythonFunction, parameter_arn
from infra.queues import WorkQueue
from infra.recovery import every_minute
from infra.storage import WORK_INDEX, Storage


class OnCall(Construct):
    """Alarms come in by `listen`. `deployed` are functions whose deploys a page tells of, `worked` the worker's queues,
    by name, whose depth it says.
    """

    def __init__(
        self,
        scope: Construct,
        *,
        config: StageConfig,
        code_for: CodeFor,
        storage: Storage,
        deployed: Sequence[PythonFunction],
        worked: Mapping[str, sqs.Queue],
        ops_dlq: sqs.Queue,
    ) -> None:
        super().__init__(scope, "OnCall")
        # People, a chat or a paging service subscribe outside of this stack; its attributes are there to filter by.
        self.topic = sns.Topic(
            self, "Oncall", topic_name=f"holdfast-{config.name}-oncall", enforce_ssl=not config.emulated
        )
        if not config.emulated:
            let_alarms_publish(self.topic)
        if config.emulated:
            Validations.of(self.topic).acknowledge(
                Acknowledgment(
                    id="AwsSolutions-SNS3", reason="The emulator speaks plain HTTP on the loopback interface"
                )
            )
        self.pages = WorkQueue(self, "pages", config=config, emptied_by="an alarm watches it, people send it back")
        self.pager = self._pager(config, code_for, storage, deployed, worked, ops_dlq)

    def listen(self, topics: Mapping[tuple[Sev, Audience], sns.Topic]) -> None:
        """What is said on these topics is heard. What SNS cannot hand over goes where people look."""
        for (severity, audience), topic in topics.items():
            sns.Subscription(
                self,
                f"From{severity}{audience.title()}",
                topic=topic,
                endpoint=self.pages.queue.queue_arn,
                protocol=sns.SubscriptionProtocol.SQS,
                raw_message_delivery=True,
                dead_letter_queue=self.pages.dlq,
            )
        self.pages.queue.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AlarmTopics",
                principals=[iam.ServicePrincipal("sns.amazonaws.com")],
                actions=["sqs:SendMessage"],
                resources=[self.pages.queue.queue_arn],
                conditions={"ArnEquals": {"aws:SourceArn": [topic.topic_arn for topic in topics.values()]}},
            )
        )

    def _pager(
        self,
        config: StageConfig,
        code_for: CodeFor,
        storage: Storage,
        deployed: Sequence[PythonFunction],
        worked: Mapping[str, sqs.Queue],
        ops_dlq: sqs.Queue,
    ) -> PythonFunction:
        pager = PythonFunction(
            self,
            "pager",
            config=config,
            code_for=code_for,
            settings=PagerSettings(
                stage=config.name,
                audit_table=storage.audit.table_name,
                control_table=storage.control.table_name,
                recovery_table=storage.recovery.table_name,
                pages_queue_url=self.pages.queue.queue_url,
                events_queue_url=worked["events"].queue_url,
                retries_queue_url=worked["retries"].queue_url,
                replays_queue_url=worked["replays"].queue_url,
                oncall_topic_arn=self.topic.topic_arn,
                parameters_path=config.parameters_path,
                switches_path=config.switches_path,
                oncall_path=config.oncall_path,
                runbooks_url=config.runbooks_url,
                functions=",".join(one.function.function_name for one in deployed),
                timeout_seconds=config.pager_timeout_seconds,
                time_scale=config.time_scale,
            ),
            timeout_seconds=config.pager_timeout_seconds,
            # It buys processor time: somebody waits for the page, and what is behind it is asked in parallel.
            memory_mb=1024,
            failures_to=ops_dlq,
        )
        pager.read_from(self.pages.queue, max_concurrency=2)
        every_minute(self, pager, config=config, failures_to=ops_dlq)
        pager.allow(["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:PutItem"], [storage.control.table_arn])
        pager.allow(["dynamodb:PutItem"], [storage.audit.table_arn])
        pager.allow(["dynamodb:Query"], [f"{storage.recovery.table_arn}/index/{WORK_INDEX}"])
        pager.allow(["sqs:GetQueueAttributes"], [queue.queue_arn for queue in worked.values()])
        pager.allow(["sns:Publish"], [self.topic.topic_arn])
        pager.allow(["lambda:GetFunctionConfiguration"], [one.function.function_arn for one in deployed])
        pager.allow_switches(config=config, history=True, write=True)
        # Names, times and authors of parameters, never what they say.
        pager.allow(["ssm:DescribeParameters"], ["*"], why_wildcard="DescribeParameters knows no resource")
        if not config.emulated:  # where the switches' grant is as wide
            pager.allow(
                ["ssm:GetParametersByPath"],
                [parameter_arn(self, config.oncall_path), parameter_arn(self, f"{config.oncall_path}/*")],
                why_wildcard="One parameter per channel, under this path",
            )
        return pager
