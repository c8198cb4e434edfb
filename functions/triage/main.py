"""Where triage meets Lambda. Everything is made once, before the first batch."""

from __future__ import annotations

from functions.adapters import aws
from functions.adapters.ledger import DynamoLedger
from functions.adapters.recovery import DynamoRecovery
from functions.adapters.s3 import S3Envelopes
from functions.core.clock import SystemClock, SystemIds
from functions.observability import logger, metrics
from functions.triage.handler import build
from functions.triage.settings import TriageSettings

_settings = TriageSettings.from_env()
_ids = SystemIds()
_dynamodb = aws.dynamodb_client()
_metrics = metrics("triage", _settings.stage)

handler = build(
    ledger=DynamoLedger(_dynamodb, _ids, ledger_table=_settings.ledger_table),
    recovery=DynamoRecovery(
        _dynamodb,
        _ids,
        recovery_table=_settings.recovery_table,
        audit_table=_settings.audit_table,
        count=_metrics.count,
    ),
    envelopes=S3Envelopes(aws.s3_client(), _settings.bucket),
    clock=SystemClock(),
    ids=_ids,
    log=logger("triage"),
    metrics=_metrics,
    max_receives=_settings.max_receives,
)
