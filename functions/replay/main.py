"""Where replay meets Lambda. Everything is made once, before the first invocation."""

from __future__ import annotations

from functions.adapters import aws
from functions.adapters.ledger import DynamoLedger
from functions.adapters.recipients import DynamoRecipients
from functions.adapters.recovery import DynamoRecovery
from functions.adapters.replay_jobs import DynamoReplayJobs
from functions.adapters.replay_plans import S3ReplayPlans
from functions.adapters.sqs_backlog import SqsBacklog
from functions.adapters.sqs_hints import SqsHints
from functions.adapters.ssm import SsmSwitches
from functions.catalog.loader import load
from functions.core.clock import SystemClock, SystemIds
from functions.core.schema import Known
from functions.observability import logger, metrics
from functions.replay.handler import build
from functions.replay.ports import Ports
from functions.replay.settings import ReplaySettings

_settings = ReplaySettings.from_env()
_clock, _ids = SystemClock(), SystemIds()
_dynamodb, _sqs = aws.dynamodb_client(), aws.sqs_client()
_metrics = metrics("replay", _settings.stage)
_catalog = load()

handler = build(
    _settings,
    Ports(
        ledger=DynamoLedger(
            _dynamodb, _ids, ledger_table=_settings.ledger_table, control_table=_settings.control_table
        ),
        recovery=DynamoRecovery(
            _dynamodb,
            _ids,
            recovery_table=_settings.recovery_table,
            audit_table=_settings.audit_table,
            count=_metrics.count,
        ),
        jobs=DynamoReplayJobs(
            _dynamodb,
            _ids,
            control_table=_settings.control_table,
            audit_table=_settings.audit_table,
            recovery_table=_settings.recovery_table,
        ),
        plans=S3ReplayPlans(aws.s3_client(), _settings.bucket),
        recipients=DynamoRecipients(_dynamodb, _settings.recipients_table, _settings.audit_table),
        switches=SsmSwitches(aws.ssm_client(), _settings.switches_path, _clock, _metrics.count),
        replays=SqsHints(_sqs, _settings.replays_queue_url),
        backlog=SqsBacklog(_sqs, _settings.events_queue_url),
        # What no action is sent to has no rows.
        integrations={name: integration for name, integration in _catalog.integrations.items() if integration.kinds},
        known=Known.of(_catalog),
        clock=_clock,
        ids=_ids,
        wait=aws.pause,
        log=logger("replay"),
        metrics=_metrics,
    ),
)
