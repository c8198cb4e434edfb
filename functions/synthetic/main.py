"""Where the sender of synthetic events meets Lambda. Everything is made once, before the first of them."""

from __future__ import annotations

from functions.adapters import aws
from functions.adapters.front_door import HttpFrontDoor
from functions.adapters.source_entries import SsmSourceEntries
from functions.core.clock import SystemClock, SystemIds
from functions.observability import logger, metrics
from functions.synthetic.handler import build
from functions.synthetic.settings import SyntheticSettings

_settings = SyntheticSettings.from_env()

handler = build(
    _settings,
    # Nobody waits for it, so it may take its time.
    entries=SsmSourceEntries(aws.ssm_client(read_seconds=3.0), _settings.sources_path),
    door=HttpFrontDoor(),
    clock=SystemClock(),
    ids=SystemIds(),
    log=logger("synthetic"),
    metrics=metrics("synthetic", _settings.stage),
)
