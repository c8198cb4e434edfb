"""What the sweeper needs to know."""

from __future__ import annotations

from dataclasses import dataclass

from functions.env import EnvSettings


@dataclass(frozen=True, slots=True)
class SweeperSettings(EnvSettings):
    """Tables, bucket, queues and parameters of the sweeper.

    `time_scale` multiplies every wait (1.0 but on the local stage).
    """

    stage: str
    recovery_table: str
    audit_table: str
    control_table: str
    bucket: str
    events_queue_url: str
    retries_queue_url: str
    replays_queue_url: str
    switches_path: str
    timeout_seconds: int
    time_scale: float
    replay_function: str = ""
