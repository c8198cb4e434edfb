"""What triage needs to know."""

from __future__ import annotations

from dataclasses import dataclass

from functions.env import EnvSettings


@dataclass(frozen=True, slots=True)
class TriageSettings(EnvSettings):
    """Tables and bucket of triage. `max_receives`: how often workers get a message before its queue gives it up."""

    stage: str
    ledger_table: str
    recovery_table: str
    audit_table: str
    bucket: str
    max_receives: int
