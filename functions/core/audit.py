"""Audit events: their names, their fields (architecture §10, runbook 003 lines 251 to 268), and ids that make a repeat
the same event.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from functions.core.event import digest

MACHINE = "holdfast"  # the actor of what nobody asked for
MOST_REASON = 500  # characters that a person may give as the reason for a change


def unfit_reason(reason: str) -> str | None:
    """Why that is no reason to put on record, or None if it is one."""
    text = reason.strip()
    return None if text and len(text) <= MOST_REASON else f"give a reason of at most {MOST_REASON} characters"


class AuditType(StrEnum):
    """Names of audit events."""

    FAILURE_DETECTED = "platform.integration.failure.detected"
    FAILURE_CONTAINED = "platform.integration.failure.contained"
    ACTION_PARKED = "platform.integration.action.parked"
    ACTION_SUPPRESSED = "platform.integration.action.suppressed"
    RETRY_SCHEDULED = "platform.integration.recovery.retry_scheduled"
    REPROCESS_FAILED = "platform.integration.recovery.reprocess_failed"
    RETRY_EXHAUSTED = "platform.integration.recovery.retry_exhausted"
    REPROCESS_SUCCEEDED = "platform.integration.recovery.reprocess_succeeded"
    REPLAYED = "platform.integration.recovery.replayed"
    REPLAY_TAKEN_BACK = "platform.integration.recovery.replay_taken_back"
    EFFECT_DOUBLED = "platform.integration.effect.doubled"
    NOTED = "platform.integration.recovery.noted"
    DISMISSED = "platform.integration.recovery.dismissed"
    HEALTH_CHANGED = "platform.integration.health.changed"
    SWITCH_CHANGED = "platform.switch.changed"
    SOURCE_CHANGED = "platform.source.changed"
    QUARANTINE_CHANGED = "platform.quarantine.changed"
    RECIPIENT_CHANGED = "platform.recipient.changed"
    REPLAY_JOB_CHANGED = "platform.replay_job.changed"
    INCIDENT_OPENED = "platform.incident.opened"
    INCIDENT_ALARM = "platform.incident.alarm"
    INCIDENT_RECURRED = "platform.incident.recurred"
    INCIDENT_SEVERITY = "platform.incident.severity_changed"
    INCIDENT_ACKNOWLEDGED = "platform.incident.acknowledged"
    INCIDENT_MITIGATED = "platform.incident.mitigated"
    INCIDENT_RESOLVED = "platform.incident.resolved"
    INCIDENT_ESCALATED = "platform.incident.escalated"
    INCIDENT_REMINDED = "platform.incident.reminded"
    INCIDENT_CONTAINED = "platform.incident.contained"
    INCIDENT_NOTED = "platform.incident.noted"
    INCIDENT_TOLD = "platform.incident.told"
    INCIDENT_REVIEWED = "platform.incident.reviewed"
    INCIDENT_PAGED = "platform.incident.paged"


class Severity(StrEnum):
    """`critical` = SEV0 or SEV1, `error` = an effect failed or died, `warning` = contained."""

    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One line of the append-only record. States are short texts or JSON; nothing personal, no secret, no body."""

    id: str
    at_ms: int
    event_type: AuditType
    severity: Severity
    tenant: str
    actor: str
    affected_entity: str
    affected_id: str
    request_id: str
    origin_request_id: str = ""
    traceparent: str = ""
    before_state: str = ""
    after_state: str = ""
    failure_type: str = ""
    error: str = ""
    containment_action: str = ""
    recovery_status: str = ""
    reason: str = ""
    job_id: str = ""

    @property
    def entity(self) -> str:
        """The partition key: what the event is about."""
        return f"{self.affected_entity}#{self.affected_id}"


def audit_id(affected_id: str, version: int, event_type: AuditType) -> str:
    """The same for the same transition, however often it is written."""
    return digest(affected_id, str(version), event_type.value)[:24]
