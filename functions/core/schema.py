"""What is stored and can still be carried out: events by name and version, actions by kind, text and way. Pure.

Rows outlive deploys. One that this version of the code and of the catalog could make nothing of is refused before it is
replayed, with the reason, and not found out by an attempt (runbook 001, "DLQ and Replay Procedure").
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from functions.core.catalog import Catalog, VersionRule
from functions.core.decision import Action
from functions.core.failure import IllegalTransition
from functions.core.fallback import Matrix, action_at
from functions.core.integration import Integration
from functions.core.recovery import Row
from functions.core.rows import UNREAD_FLOW


def knows_version(rules: Iterable[VersionRule], source: str, event_name: str, event_version: str) -> bool:
    """Whether events of that name are read in that version. The first rule that means them counts; what none means is
    read in every version: most senders number none.
    """
    for rule in rules:
        is_meant = any(fnmatchcase(source, one) for one in rule.sources) and any(
            fnmatchcase(event_name, one) for one in rule.events
        )
        if is_meant:
            return event_version in rule.known
    return True


@dataclass(frozen=True, slots=True)
class Known:
    """What can be carried out today. `flows` are by name, each with its rules about versions; `messages` by id and
    version.
    """

    flows: Mapping[str, tuple[VersionRule, ...]]
    integrations: Mapping[str, Integration]
    messages: Container[tuple[str, int]] = ()
    fallbacks: Matrix = field(default_factory=Matrix)

    @staticmethod
    def of(catalog: Catalog) -> Known:
        """What that catalog knows."""
        flows = {name: rules.versions for name, rules in catalog.flows.items()}
        return Known(flows, catalog.integrations, catalog.messages, catalog.fallbacks)

    def why_not(self, row: Row) -> str:
        """Why nothing could be made of what the row is about, for people; empty if something could.

        Of an action its event's version does not matter: it was decided, and its event is not read again.
        """
        return self._event(row) if row.action is None else self._action(row, row.action)

    def _event(self, row: Row) -> str:
        if row.flow == UNREAD_FLOW:
            return ""
        rules = self.flows.get(row.flow)
        if rules is None:
            return f"there is no flow {row.flow!r}"
        if not knows_version(rules, row.source, row.event_name, row.event_version):
            return f"version {row.event_version!r} of {row.event_name} is not known"
        return ""

    def _action(self, row: Row, action: Action) -> str:
        integration = self.integrations.get(row.integration_id)
        if integration is None or row.kind not in integration.kinds:
            return f"the catalog has no {row.kind} on {row.integration_id}"
        try:
            message = action_at(action, row.hop, self.fallbacks).message
        except IllegalTransition as gone:
            return str(gone)
        if message is not None and (message.id, message.version) not in self.messages:
            return f"the catalog has no message {message.id} of version {message.version}"
        return ""
