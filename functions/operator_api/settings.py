"""What the operator API needs to know, and how those who may call it are told apart."""

from __future__ import annotations

from dataclasses import dataclass

from functions.env import EnvSettings

RESOURCE_SERVER = "platform.member_admin"
"""The user pool's resource server. A machine's scope is `platform.member_admin/view`, a person's group
`platform.member_admin.view`; likewise with `operate`.
"""

VIEW, OPERATE = "view", "operate"


@dataclass(frozen=True, slots=True)
class OperatorApiSettings(EnvSettings):
    """Tables, queue and parameters of the operator API, and the log group of ingress. `time_scale` multiplies every
    wait (1.0 but on the local stage). `functions` are those whose deploys are told of, with commas between.
    """

    stage: str
    ledger_table: str
    recovery_table: str
    audit_table: str
    control_table: str
    replays_queue_url: str
    bucket: str
    replay_function: str
    switches_path: str
    parameters_path: str
    functions: str
    door_log_group: str
    time_scale: float
