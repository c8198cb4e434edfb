"""Where the evaluator meets Lambda. Everything is made once, before the first minute."""

from __future__ import annotations

from functions.adapters import aws
from functions.adapters.audit import DynamoAudit
from functions.adapters.control import DynamoSwitchMarks
from functions.adapters.ssm_history import SsmSwitchHistory
from functions.core.clock import SystemClock
from functions.evaluator.handler import build
from functions.evaluator.settings import EvaluatorSettings
from functions.observability import logger, metrics

_settings = EvaluatorSettings.from_env()
_dynamodb = aws.dynamodb_client()

handler = build(
    _settings,
    # Nobody waits for it, so it may take its time.
    history=SsmSwitchHistory(aws.ssm_client(read_seconds=3.0), _settings.switches_path),
    marks=DynamoSwitchMarks(_dynamodb, _settings.control_table),
    audit=DynamoAudit(_dynamodb, _settings.audit_table),
    clock=SystemClock(),
    log=logger("evaluator"),
    metrics=metrics("evaluator", _settings.stage),
)
