"""What replay needs to know."""

from __future__ import annotations

from dataclasses import dataclass

from functions.env import EnvSettings


@dataclass(frozen=True, slots=True)
class ReplaySettings(EnvSettings):
    """Tables, bucket, queues and parameters of replay.

    `time_scale` multiplies every wait (1.0 but on the local stage).
    """

    stage: str
    ledger_table: str
    recovery_table: str
    audit_table: str
    control_table: str
    recipients_table: str
    bucket: str
    events_queue_url: str
    replays_queue_url: str
    switches_path: str
    time_scale: float
