"""Where the sweeper meets Lambda. Everything is made once, before the first tick."""

from __future__ import annotations

from functions.adapters import aws
from functions.adapters.ledger import DynamoLedger
from functions.adapters.recovery import DynamoRecovery
from functions.adapters.replay_jobs import DynamoReplayJobs
from functions.adapters.replay_starter import LambdaReplayStarter
from functions.adapters.s3 import S3Envelopes
from functions.adapters.spill import S3Spill
from functions.adapters.sqs_events import SqsEvents
from functions.adapters.sqs_hints import SqsHints
from functions.adapters.ssm import SsmSwitches
from functions.catalog.loader import load
from functions.core.clock import SystemClock, SystemIds
from functions.observability import logger, metrics
from functions.sweeper.handler import build
from functions.sweeper.jobs import JobDuty
from functions.sweeper.settings import SweeperSettings

_settings = SweeperSettings.from_env()
_clock, _ids = SystemClock(), SystemIds()
_dynamodb, _sqs = aws.dynamodb_client(), aws.sqs_client()
_s3 = aws.s3_client(read_seconds=2.0)  # a tick waits for it, and what it fetches is seldom over a megabyte
_metrics = metrics("sweeper", _settings.stage)
_integrations = load().integrations

handler = build(
    _settings,
    # What no action is sent to has no rows.
    integrations=[name for name, integration in _integrations.items() if integration.kinds],
    rates={name: integration.rate for name, integration in _integrations.items() if integration.rate is not None},
    fallbacks=load().fallbacks,
    jobs=JobDuty(
        DynamoReplayJobs(_dynamodb, _ids, control_table=_settings.control_table),
        LambdaReplayStarter(aws.lambda_client(), _settings.replay_function),
        _clock,
        logger("sweeper"),
        _metrics,
    ),
    ledger=DynamoLedger(_dynamodb, _ids, control_table=_settings.control_table),
    recovery=DynamoRecovery(
        _dynamodb,
        _ids,
        recovery_table=_settings.recovery_table,
        audit_table=_settings.audit_table,
        count=_metrics.count,
    ),
    switches=SsmSwitches(aws.ssm_client(), _settings.switches_path, _clock, _metrics.count),
    spill=S3Spill(_s3, _settings.bucket),
    envelopes=S3Envelopes(_s3, _settings.bucket),
    events=SqsEvents(_sqs, _settings.events_queue_url),
    retries=SqsHints(_sqs, _settings.retries_queue_url),
    replays=SqsHints(_sqs, _settings.replays_queue_url),
    clock=_clock,
    ids=_ids,
    log=logger("sweeper"),
    metrics=_metrics,
)
