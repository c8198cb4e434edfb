"""Where ingress meets Lambda. Everything is made once, before the first request."""

from __future__ import annotations

from functions.adapters.s3_objects import S3Objects
from functions.adapters.sqs_outbox import SqsQueue
from functions.adapters.ssm_sources import SsmSourceParameters
from functions.core.clock import SystemClock, SystemIds, SystemRandom, system_monotonic
from functions.ingress.handler import build
from functions.ingress.outbox import DurableOutbox
from functions.ingress.seen import Items, LedgerSeen
from functions.ingress.settings import IngressSettings
from functions.ingress.sources import SourceCache
from functions.signatures.providers import endpoint_of

_settings = IngressSettings.from_env()
_clock, _ids = SystemClock(), SystemIds()


def _tables() -> Items:
    from functions.adapters.dynamodb_items import DynamoItems  # noqa: PLC0415  # for senders' tests; no event waits for it

    return DynamoItems.connect()


handler = build(
    _settings,
    SourceCache(SsmSourceParameters.connect(_settings.sources_path), endpoint_of, _clock, SystemRandom()),
    DurableOutbox(SqsQueue.connect(_settings.events_queue_url), S3Objects.connect(_settings.bucket), _ids),
    LedgerSeen(_settings.ledger_table, _settings.recovery_table, _tables),
    _clock,
    _ids,
    system_monotonic,
)
