"""What the worker needs to know."""

from __future__ import annotations

from dataclasses import dataclass

from functions.env import EnvSettings

LOCAL = "local"  # the stage whose providers are simulated on the loopback; no other may call there


@dataclass(frozen=True, slots=True)
class WorkerSettings(EnvSettings):
    """Tables, queues and parameters of the worker. `time_scale` multiplies every wait (1.0 but on the local stage)."""

    stage: str
    ledger_table: str
    recovery_table: str
    audit_table: str
    control_table: str
    recipients_table: str
    bucket: str
    events_queue_url: str
    retries_queue_url: str
    replays_queue_url: str
    switches_path: str
    integrations_path: str
    timeout_seconds: int
    time_scale: float
