"""What the pager needs to know."""

from __future__ import annotations

from dataclasses import dataclass

from functions.env import EnvSettings


@dataclass(frozen=True, slots=True)
class PagerSettings(EnvSettings):
    """Tables, queues, topic and parameters of the pager. `time_scale` multiplies every wait (1.0 but on the local
    stage).

    `oncall_path` is where the channels beside the topic are configured, `runbooks_url` where the runbooks are, with a
    slash at its end; `functions` the names of those whose deploys are told of, with commas between.
    """

    stage: str
    audit_table: str
    control_table: str
    recovery_table: str
    pages_queue_url: str
    events_queue_url: str
    retries_queue_url: str
    replays_queue_url: str
    oncall_topic_arn: str
    parameters_path: str
    switches_path: str
    oncall_path: str
    runbooks_url: str
    functions: str
    timeout_seconds: int
    time_scale: float
