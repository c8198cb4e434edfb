"""Where the operator API meets Lambda. Everything is made once, before the first request."""

from __future__ import annotations

from functions.adapters import aws
from functions.adapters.audit import DynamoAudit
from functions.adapters.audit_log import DynamoAuditLog
from functions.adapters.door_log import CloudWatchDoor
from functions.adapters.event_index import DynamoEventIndex
from functions.adapters.health import DynamoHealthCounts, DynamoHealthRecords
from functions.adapters.incidents import DynamoIncidents
from functions.adapters.ledger import DynamoLedger
from functions.adapters.operator_changes import DynamoOperatorChanges
from functions.adapters.quarantine import DynamoQuarantines
from functions.adapters.recent_changes import AwsRecentChanges
from functions.adapters.recovery import DynamoRecovery
from functions.adapters.replay_jobs import DynamoReplayJobs
from functions.adapters.replay_plans import S3ReplayPlans
from functions.adapters.replay_starter import LambdaReplayStarter
from functions.adapters.sqs_hints import SqsHints
from functions.adapters.ssm import SsmSwitches
from functions.adapters.ssm_history import SsmSwitchHistory
from functions.adapters.ssm_writer import SsmSwitchWriter
from functions.adapters.switch_returns import DynamoSwitchReturns
from functions.catalog.loader import load
from functions.core.clock import SystemClock, SystemIds
from functions.core.schema import Known
from functions.observability import logger, metrics
from functions.operator_api.handler import application, build
from functions.operator_api.ports import Ports
from functions.operator_api.routes import routers
from functions.operator_api.settings import OperatorApiSettings

_settings = OperatorApiSettings.from_env()
_catalog = load()
_clock, _ids = SystemClock(), SystemIds()
_ssm = aws.ssm_client()
_dynamodb = aws.dynamodb_client()
_metrics = metrics("operator_api", _settings.stage)

handler = build(
    application(
        routers(
            Ports(
                clock=_clock,
                ids=_ids,
                recovery=DynamoRecovery(
                    _dynamodb,
                    _ids,
                    recovery_table=_settings.recovery_table,
                    audit_table=_settings.audit_table,
                    count=_metrics.count,
                ),
                audit=DynamoAudit(_dynamodb, _settings.audit_table),
                health=DynamoHealthRecords(
                    _dynamodb, _ids, control_table=_settings.control_table, audit_table=_settings.audit_table
                ),
                health_counts=DynamoHealthCounts(_dynamodb, _settings.control_table, _ids),
                switches=SsmSwitches(_ssm, _settings.switches_path, _clock, _metrics.count),
                replays=SqsHints(aws.sqs_client(), _settings.replays_queue_url),
                jobs=DynamoReplayJobs(
                    _dynamodb, _ids, control_table=_settings.control_table, audit_table=_settings.audit_table
                ),
                plans=S3ReplayPlans(aws.s3_client(), _settings.bucket),
                starter=LambdaReplayStarter(aws.lambda_client(), _settings.replay_function),
                operator_changes=DynamoOperatorChanges(
                    _dynamodb,
                    _ids,
                    recovery_table=_settings.recovery_table,
                    audit_table=_settings.audit_table,
                    control_table=_settings.control_table,
                ),
                ledger=DynamoLedger(_dynamodb, _ids, control_table=_settings.control_table),
                integrations=_catalog.integrations,
                profiles=_catalog.profiles,
                fallbacks=_catalog.fallbacks,
                features=_catalog.features,
                known=Known.of(_catalog),
                time_scale=_settings.time_scale,
                quarantines=DynamoQuarantines(_dynamodb, _settings.control_table, _settings.audit_table),
                index=DynamoEventIndex(
                    _dynamodb, ledger_table=_settings.ledger_table, recovery_table=_settings.recovery_table
                ),
                audit_log=DynamoAuditLog(_dynamodb, _settings.audit_table),
                door=CloudWatchDoor(aws.logs_client(), _settings.door_log_group),
                switch_history=SsmSwitchHistory(_ssm, _settings.switches_path),
                switch_returns=DynamoSwitchReturns(_dynamodb, _settings.control_table, _settings.audit_table),
                switch_writer=SsmSwitchWriter(_ssm, _settings.switches_path),
                incidents=DynamoIncidents(
                    _dynamodb, _ids, control_table=_settings.control_table, audit_table=_settings.audit_table
                ),
                changes=AwsRecentChanges(
                    _ssm, aws.lambda_client(), _settings.parameters_path, _settings.functions.split(",")
                ),
            )
        )
    ),
    clock=_clock,
    ids=_ids,
    log=logger("operator_api"),
    metrics=_metrics,
)
