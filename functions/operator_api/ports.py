"""What the calls of the operator API reach the world through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from functions.core import ports
from functions.core.catalog import IntegrationProfile
from functions.core.clock import Clock, Ids
from functions.core.fallback import Matrix
from functions.core.features import Feature
from functions.core.integration import Integration
from functions.core.schema import Known


@dataclass(frozen=True, slots=True)
class Ports:
    """One of each, shared by all calls. `known` is what can be carried out today."""

    clock: Clock
    ids: Ids
    recovery: ports.Recovery
    audit: ports.Audit
    health: ports.HealthRecords
    health_counts: ports.HealthCounts
    switches: ports.Switches
    replays: ports.Hints
    quarantines: ports.Quarantines
    operator_changes: ports.OperatorChanges
    ledger: ports.Ledger
    integrations: Mapping[str, Integration]
    profiles: Mapping[str, IntegrationProfile]
    fallbacks: Matrix
    features: Mapping[str, Feature]
    known: Known
    time_scale: float
    index: ports.EventIndex
    audit_log: ports.AuditLog
    door: ports.Door
    switch_history: ports.SwitchHistory
    switch_writer: ports.SwitchWriter
    switch_returns: ports.SwitchReturns
    jobs: ports.ReplayJobs
    plans: ports.ReplayPlans
    starter: ports.ReplayStarter
    incidents: ports.Incidents
    changes: ports.RecentChanges
