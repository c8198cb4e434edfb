"""Where replay meets Lambda. Everything is made once, before the first invocation."""

from __future__ import annotations

from functions.adapters import aws
from functions.adapters.audit import DynamoAudit
from functions.adapters.control import DynamoReplayJobs
from functions.adapters.recovery import DynamoRecovery
from functions.adapters.sqs_hints import SqsHints
from functions.adapters.ssm import SsmSwitches
from functions.catalog.loader import load
from functions.core.clock import SystemClock, SystemIds
from functions.observability import logger, metrics
from functions.replay.handler import build
from functions.replay.settings import ReplaySettings

_settings = ReplaySettings.from_env()
_clock, _ids = SystemClock(), SystemIds()
_dynamodb = aws.dynamodb_client()
_metrics = metrics("replay", _settings.stage)

handler = build(
    _settings,
    # What no action is sent to has no rows.
    integrations=[name for name, integration in load().integrations.items() if integration.kinds],
    recovery=DynamoRecovery(
        _dynamodb,
        _ids,
        recovery_table=_settings.recovery_table,
        audit_table=_settings.audit_table,
        count=_metrics.count,
    ),
    audit=DynamoAudit(_dynamodb, _settings.audit_table),
    jobs=DynamoReplayJobs(_dynamodb, _settings.control_table),
    switches=SsmSwitches(aws.ssm_client(), _settings.switches_path, _clock, _metrics.count),
    replays=SqsHints(aws.sqs_client(), _settings.replays_queue_url),
    clock=_clock,
    ids=_ids,
    log=logger("replay"),
    metrics=_metrics,
)
