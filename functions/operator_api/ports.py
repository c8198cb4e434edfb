"""What the calls of the operator API reach the world through."""

from __future__ import annotations

from dataclasses import dataclass

from functions.core import ports
from functions.core.clock import Clock, Ids


@dataclass(frozen=True, slots=True)
class Ports:
    """One of each, shared by all calls."""

    clock: Clock
    ids: Ids
    recovery: ports.Recovery
    audit: ports.Audit
    health: ports.HealthRecords
    health_counts: ports.HealthCounts
    switches: ports.Switches
    replays: ports.Hints
    jobs: ports.ReplayJobs
    plans: ports.ReplayPlans
    starter: ports.ReplayStarter
