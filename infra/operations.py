"""What operators hold in their hands: the switches, and the evaluator that watches them."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from functions.evaluator.settings import EvaluatorSettings
from infra.config import StageConfig
from infra.intake import Intake
from infra.python_function import CodeFor, PythonFunction
from infra.recovery import every_minute
from infra.storage import Storage


@dataclass(frozen=True, slots=True)
class Switch:
    """One switch as it is deployed. `pattern` makes SSM itself refuse a value that nobody could read."""

    name: str
    value: str
    pattern: str
    description: str


_ON_OFF = "^(on|off)$"
_LIST = "^(none|all|[a-z0-9_-]{1,64}(,[a-z0-9_-]{1,64})*)$"
_FACTOR = r"^(0|1|0\.[0-9]{1,4}|1\.0)$"

SWITCHES = (
    Switch("mode", "live", "^(live|route_only|shadow|manual|hold)$", "What the whole system does with new events"),
    Switch("auto_reply", "on", _ON_OFF, "off: no automatic message reaches a customer"),
    Switch("classifier", "llm", "^(llm|rules)$", "rules: skip the LLM"),
    Switch("optional_calls", "on", _ON_OFF, "off: skip enrichment lookups"),
    Switch("replay", "on", _ON_OFF, "off: no replay may run"),
    Switch("disabled_integrations", "none", _LIST, "Their actions are parked"),
    Switch("replay_blocked_integrations", "none", _LIST, "No replay on these"),
    Switch("limits/helpdesk", "1", _FACTOR, "Factor on the helpdesk's rate and concurrency"),
    Switch("limits/llm", "1", _FACTOR, "Factor on the LLM's rate and concurrency"),
    Switch("limits/payments", "1", _FACTOR, "Factor on the payments' rate and concurrency"),
    Switch("limits/ocr", "1", _FACTOR, "Factor on the OCR's rate and concurrency"),
    Switch("limits/parser", "1", _FACTOR, "Factor on the parser's rate and concurrency"),
    Switch("limits/sms", "1", _FACTOR, "Factor on the rate and concurrency of SMS"),
    Switch("limits/email", "1", _FACTOR, "Factor on the rate and concurrency of email"),
)


class Operations(Construct):
    """Switches with their everyday values, and the evaluator.

    A deploy writes a switch only when its value *here* changes, so what an operator has set survives deploys.
    """

    def __init__(
        self,
        scope: Construct,
        *,
        config: StageConfig,
        code_for: CodeFor,
        storage: Storage,
        intake: Intake,
        ops_dlq: sqs.Queue,
    ) -> None:
        super().__init__(scope, "Operations")
        for switch in SWITCHES:
            ssm.StringParameter(
                self,
                "Switch-" + switch.name.replace("/", "-"),
                parameter_name=f"{config.switches_path}/{switch.name}",
                string_value=switch.value,
                allowed_pattern=switch.pattern,
                description=switch.description,
            )
        self.evaluator = PythonFunction(
            self,
            "evaluator",
            config=config,
            code_for=code_for,
            settings=EvaluatorSettings(
                stage=config.name,
                audit_table=storage.audit.table_name,
                control_table=storage.control.table_name,
                switches_path=config.switches_path,
                sources_path=config.sources_path,
                door_log_group=intake.ingress.log_group.log_group_name,
                timeout_seconds=config.evaluator_timeout_seconds,
                time_scale=config.time_scale,
            ),
            timeout_seconds=config.evaluator_timeout_seconds,
            failures_to=ops_dlq,
        )
        every_minute(self, self.evaluator, config=config, failures_to=ops_dlq)
        self.evaluator.allow_switches(config=config, history=True, write=True)
        self.evaluator.allow(
            ["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"],
            [storage.control.table_arn],
        )
        self.evaluator.allow(["dynamodb:PutItem"], [storage.audit.table_arn])
        # How long each source may be silent stands in its entry, and when it last spoke in the log of ingress.
        self.evaluator.allow_by_path(config.sources_path, config=config, why="Sources are added without a deploy")
        self.evaluator.allow_log(intake.ingress.log_group, config=config)
