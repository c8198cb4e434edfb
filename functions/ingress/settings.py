"""What ingress needs to know."""

from __future__ import annotations

from dataclasses import dataclass

from functions.env import EnvSettings


@dataclass(frozen=True, slots=True)
class IngressSettings(EnvSettings):
    """Where ingress writes and where its sources are kept. Ledger and recovery table are read for senders'
    tests and questions only.
    """

    stage: str
    events_queue_url: str
    sources_path: str
    bucket: str
    ledger_table: str
    recovery_table: str
