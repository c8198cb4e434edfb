"""The event of our own that goes the whole way every few minutes: what sends it, and when."""

from __future__ import annotations

from aws_cdk import aws_sqs as sqs
from constructs import Construct

from functions.synthetic.settings import EVERY_MINUTES, SOURCE, SyntheticSettings
from infra.config import StageConfig
from infra.intake import Intake
from infra.python_function import CodeFor, PythonFunction, parameter_arn
from infra.recovery import every_minute


class Synthetic(Construct):
    """A function that may read one source's entry and nothing else: all else it does as any stranger could."""

    def __init__(
        self, scope: Construct, *, config: StageConfig, code_for: CodeFor, intake: Intake, ops_dlq: sqs.Queue
    ) -> None:
        super().__init__(scope, "Synthetics")
        self.sender = PythonFunction(
            self,
            "synthetic",
            config=config,
            code_for=code_for,
            settings=SyntheticSettings(
                stage=config.name,
                sources_path=config.sources_path,
                webhook_url=f"{intake.api.api_endpoint}/webhooks/{SOURCE}",
            ),
            timeout_seconds=25,
            failures_to=ops_dlq,
        )
        every_minute(self, self.sender, config=config, failures_to=ops_dlq, minutes=EVERY_MINUTES)
        self.sender.allow(["ssm:GetParameter"], [parameter_arn(self, f"{config.sources_path}/{SOURCE}")])
