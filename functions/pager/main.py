"""Where the pager meets Lambda. Everything is made once, before the first alarm."""

from __future__ import annotations

from functions.adapters import aws
from functions.adapters.found_sources import DynamoFoundSources
from functions.adapters.health import DynamoHealthCounts, DynamoHealthRecords
from functions.adapters.incidents import DynamoIncidents
from functions.adapters.oncall import SnsAndWebhooks
from functions.adapters.recent_changes import AwsRecentChanges
from functions.adapters.recovery import DynamoRecovery
from functions.adapters.sqs_backlog import SqsQueueDepths
from functions.adapters.sqs_hints import SqsVisibility
from functions.adapters.ssm_history import SsmSwitchHistory
from functions.adapters.ssm_writer import SsmSwitchWriter
from functions.adapters.switch_returns import DynamoSwitchReturns
from functions.catalog.loader import load
from functions.catalog.roles import load_roles
from functions.core.clock import SystemClock, SystemIds
from functions.core.integration import INTAKE
from functions.observability import logger, metrics
from functions.pager.containing import Containment
from functions.pager.delivering import Delivery
from functions.pager.handler import build
from functions.pager.settings import PagerSettings
from functions.pager.situation import Situations

_settings = PagerSettings.from_env()
_clock, _ids = SystemClock(), SystemIds()
_dynamodb = aws.dynamodb_client()
# Nobody's reply waits for it, so it may take its time.
_ssm = aws.ssm_client(read_seconds=3.0)
_sqs = aws.sqs_client()
_log, _metrics = logger("pager"), metrics("pager", _settings.stage)
_rules = load_roles().rules(_settings.time_scale)
_history = SsmSwitchHistory(_ssm, _settings.switches_path)
_incidents = DynamoIncidents(_dynamodb, _ids, control_table=_settings.control_table, audit_table=_settings.audit_table)
_channels = SnsAndWebhooks(
    aws.sns_client(),
    _settings.oncall_topic_arn,
    _ssm,
    _settings.oncall_path,
    _clock,
    source=f"holdfast-{_settings.stage}",
)
_situations = Situations(
    [*load().integrations, INTAKE],
    DynamoRecovery(
        _dynamodb,
        _ids,
        recovery_table=_settings.recovery_table,
        audit_table=_settings.audit_table,
        count=_metrics.count,
    ),
    SqsQueueDepths(
        _sqs,
        {
            "events": _settings.events_queue_url,
            "retries": _settings.retries_queue_url,
            "replays": _settings.replays_queue_url,
        },
    ),
    DynamoHealthRecords(_dynamodb, _ids, control_table=_settings.control_table, audit_table=_settings.audit_table),
    DynamoHealthCounts(_dynamodb, _settings.control_table, _ids),
    DynamoFoundSources(_dynamodb, _settings.control_table),
    _history,
    AwsRecentChanges(_ssm, aws.lambda_client(), _settings.parameters_path, _settings.functions.split(",")),
    _settings.time_scale,
    _clock,
    _log,
    _metrics,
)

handler = build(
    _settings,
    incidents=_incidents,
    channels=_channels,
    containment=Containment(
        _history,
        SsmSwitchWriter(_ssm, _settings.switches_path),
        DynamoSwitchReturns(_dynamodb, _settings.control_table, _settings.audit_table),
        _clock,
        _ids,
        _log,
        _metrics,
    ),
    delivery=Delivery(
        _incidents,
        _channels,
        _situations.since,
        _rules,
        _settings.stage,
        _settings.runbooks_url,
        _clock,
        _log,
        _metrics,
    ),
    visibility=SqsVisibility(_sqs, {_settings.pages_queue_url.rpartition("/")[2]: _settings.pages_queue_url}),
    rules=_rules,
    clock=_clock,
    ids=_ids,
    log=_log,
    metrics=_metrics,
)
