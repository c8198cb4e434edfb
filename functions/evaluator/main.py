"""Where the evaluator meets Lambda. Everything is made once, before the first minute."""

from __future__ import annotations

from functions.adapters import aws
from functions.adapters.audit import DynamoAudit
from functions.adapters.control import DynamoSwitchMarks
from functions.adapters.door_log import CloudWatchDoor
from functions.adapters.found_sources import DynamoFoundSources
from functions.adapters.health import DynamoHealthCounts, DynamoHealthRecords
from functions.adapters.ssm_expectations import SsmExpectations
from functions.adapters.ssm_history import SsmSwitchHistory
from functions.adapters.ssm_writer import SsmSwitchWriter
from functions.adapters.switch_returns import DynamoSwitchReturns
from functions.catalog.loader import load
from functions.core.clock import SystemClock, SystemIds
from functions.core.health import Thresholds
from functions.evaluator.handler import build
from functions.evaluator.settings import EvaluatorSettings
from functions.observability import logger, metrics

_settings = EvaluatorSettings.from_env()
_dynamodb = aws.dynamodb_client()
_ids = SystemIds()
# Nobody waits for it, so it may take its time.
_ssm = aws.ssm_client(read_seconds=3.0)

handler = build(
    _settings,
    history=SsmSwitchHistory(_ssm, _settings.switches_path),
    returns=DynamoSwitchReturns(_dynamodb, _settings.control_table, _settings.audit_table),
    writer=SsmSwitchWriter(_ssm, _settings.switches_path),
    marks=DynamoSwitchMarks(_dynamodb, _settings.control_table),
    audit=DynamoAudit(_dynamodb, _settings.audit_table),
    records=DynamoHealthRecords(
        _dynamodb, _ids, control_table=_settings.control_table, audit_table=_settings.audit_table
    ),
    counts=DynamoHealthCounts(_dynamodb, _settings.control_table, _ids),
    expectations=SsmExpectations(_ssm, _settings.sources_path),
    # Few pages: each takes up to half a second, and a minute has other duties.
    door=CloudWatchDoor(aws.logs_client(), _settings.door_log_group, pages=6),
    found=DynamoFoundSources(_dynamodb, _settings.control_table),
    thresholds={
        name: Thresholds(profile.success_threshold, profile.recovery_threshold, profile.minimum_calls)
        for name, profile in load().profiles.items()
    },
    clock=SystemClock(),
    log=logger("evaluator"),
    metrics=metrics("evaluator", _settings.stage),
)
