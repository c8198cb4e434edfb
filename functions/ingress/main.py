"""Where ingress meets Lambda. Everything is made once, before the first request."""

from __future__ import annotations

from functions.adapters.aws import border, s3_client
from functions.adapters.sqs_outbox import SqsOutbox
from functions.adapters.ssm_sources import SsmSourceParameters
from functions.core.clock import SystemClock, SystemIds, SystemRandom, system_monotonic
from functions.core.event import Event
from functions.ingress.handler import build
from functions.ingress.outbox import DurableOutbox
from functions.ingress.settings import IngressSettings
from functions.ingress.sources import SourceCache
from functions.signatures.providers import endpoint_of

_settings = IngressSettings.from_env()
_clock = SystemClock()
_parameters = SsmSourceParameters.connect(_settings.sources_path)
_queue = SqsOutbox.connect(_settings.events_queue_url)
_s3 = s3_client()


class _Interim:
    """Until the lean adapters are here."""

    def read(self, source_id: str, timeout_seconds: float) -> str | None:
        return _parameters.read(source_id, briefly=timeout_seconds < 0.5)

    def send(self, event: Event, message: str, timeout_seconds: float) -> None:  # noqa: ARG002  # see above
        _queue.store(event, message)

    def put(self, key: str, content: bytes, timeout_seconds: float) -> None:  # noqa: ARG002  # see above
        with border("put"):
            _s3.put_object(Bucket=_settings.bucket, Key=key, Body=content)


_interim = _Interim()
handler = build(
    _settings,
    SourceCache(_interim, endpoint_of, _clock, SystemRandom()),
    DurableOutbox(_interim, _interim, SystemIds()),
    _clock,
    SystemIds(),
    system_monotonic,
)
