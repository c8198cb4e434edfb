"""What the evaluator needs to know."""

from __future__ import annotations

from dataclasses import dataclass

from functions.env import EnvSettings


@dataclass(frozen=True, slots=True)
class EvaluatorSettings(EnvSettings):
    """Tables and parameters of the evaluator. `time_scale` multiplies every wait (1.0 but on the local stage)."""

    stage: str
    audit_table: str
    control_table: str
    switches_path: str
    sources_path: str
    door_log_group: str
    timeout_seconds: int
    time_scale: float
