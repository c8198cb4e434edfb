"""Where ingress meets Lambda. Everything is made once, before the first request."""

from __future__ import annotations

from functions.adapters.sqs_outbox import SqsOutbox
from functions.adapters.ssm_sources import SsmSourceParameters
from functions.core.clock import SystemClock, SystemIds, SystemRandom
from functions.ingress.handler import build
from functions.ingress.settings import IngressSettings
from functions.ingress.sources import SourceCache
from functions.signatures.providers import endpoint_of

_settings = IngressSettings.from_env()
_clock = SystemClock()

handler = build(
    _settings,
    SourceCache(SsmSourceParameters.connect(_settings.sources_path), endpoint_of, _clock, SystemRandom()),
    SqsOutbox.connect(_settings.events_queue_url),
    _clock,
    SystemIds(),
)
