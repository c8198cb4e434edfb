"""What whoever is paged types first, and how it is taken back: ten minutes, no context (architecture §10). Pure.

By alarm, the first look that its section of the runbook names; so that page and runbook begin alike. What had to be
stopped at once the machine has stopped by then, and the page says how that is taken back. `{incident}` is the
incident's id. A step that only looks has nothing to take back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from functions.core.alarms import Sev
from functions.core.incident import Incident


@dataclass(frozen=True, slots=True)
class FirstStep:
    """One command. `undo` is empty where it changes nothing."""

    command: str
    undo: str = ""

    def of(self, incident_id: str) -> FirstStep:
        """As it is typed for that incident."""
        return FirstStep(self.command.replace("{incident}", incident_id), self.undo.replace("{incident}", incident_id))


BY_ALARM: Final[Mapping[str, FirstStep]] = {
    alarm: FirstStep(f"holdfast {command}")
    for alarm, command in {
        "reply-storm": "switch get auto_reply",
        "effects-doubled": "logs worker --since 1h --about twice",
        "replies-capped": "queue list --status failed",
        "duplicate-storm": "source list",
        "ingress-failing": "rejections --since 15m",
        "ingress-failing-slowly": "rejections --since 6h",
        "webhook-not-stored": "rejections --since 1h",
        "ack-slow": "logs ingress --since 1h --all --limit 50",
        "spill-not-drained": "logs sweeper --since 15m",
        "source-silent": "logs evaluator --since 15m --about silent",
        "source-malformed": "source list",
        "signatures-refused": "rejections --reason bad_signature --since 1h",
        "synthetic-missing": "doctor",
        "events-late": "status",
        "events-backlog": "status",
        "retries-late": "integrations",
        "rows-overdue": "queue list --status pending",
        "items-failing": "logs worker --since 15m",
        "support-failing": "switch list",
        "worker-dying": "logs worker --since 15m",
        "effects-missing": "status",
        "outcomes-unknown": "queue list --status pending",
        "queue-nearly-full": "limits",
        "queue-long": "status",
        "payload-mismatch": "queue list --status failed",
        "tables-throttled": "logs worker --since 30m --about Throttling",
        "events-dlq-not-drained": "logs triage --since 30m",
        "retries-dlq-not-drained": "logs triage --since 30m",
        "replays-dlq-not-drained": "logs triage --since 30m",
        "ops-dlq-not-empty": "logs sweeper --since 1h",
        "integration-down": "integrations",
        "integration-degraded": "integrations",
        "rate-limited": "limits",
        "classifier-out": "integrations llm",
        "classifier-weak": "integrations llm",
        "message-for-a-person": "queue list --status failed",
        "items-for-people": "queue list --status failed --status dlq",
        "replay-stopped": "replay list",
        "replay-interrupted": "replay list --active",
        "switches-unknown": "switch list",
        "switch-unreadable": "switch list",
        "sweeper-missing": "logs sweeper --since 15m",
        "evaluator-missing": "logs evaluator --since 15m",
        "sweeper-failing": "logs sweeper --since 15m",
        "evaluator-failing": "logs evaluator --since 15m",
        "work-cut-short": "logs sweeper --since 15m --all --limit 5",
        "limiter-unavailable": "limits",
        "alarms-not-delivered": "incident list",
        "pager-missing": "logs pager --since 15m",
        "pages-dlq-not-empty": "logs pager --since 1h",
        "pages-not-delivered": "logs pager --since 15m",
        "containment-failed": "switch list",
    }.items()
}
REPLIES_OFF: Final = FirstStep(
    'holdfast switch set auto_reply off --reason "{incident}"',
    'holdfast switch set auto_reply on --reason "{incident} is over"',
)
ELSE: Final = FirstStep("holdfast incident show {incident}")


def first_step(incident: Incident) -> FirstStep:
    """That of the alarm whose section the page names, the gravest. What a person calls a SEV0 no machine has stopped:
    that comes before looking.
    """
    if incident.severity is Sev.SEV0 and not incident.alarms:
        return REPLIES_OFF.of(incident.incident_id)
    return BY_ALARM.get(incident.runbook.rpartition("#")[2], ELSE).of(incident.incident_id)


def at_stage(command: str, stage: str) -> str:
    """The command as it is typed by somebody who has said nothing yet: without a stage the local one answers."""
    return command.replace("holdfast ", f"holdfast --stage {stage} ", 1)
