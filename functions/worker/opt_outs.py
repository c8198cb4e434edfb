"""What a provider knows of a recipient's wish before we do: it refuses because they told it to stop (register 003.20).

Who has said stop on one channel is contacted on none, so that is stored before anything else may be tried.
"""

from __future__ import annotations

from functions.core.audit import MACHINE
from functions.core.decision import Action
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.person import Known, Note
from functions.worker.ports import Ports

TRIES = 3


class OptOuts:
    """Stores opt-outs for one invocation."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def store(self, action: Action, tenant: str, request_id: str, traceparent: str) -> bool:
        """Whether it is on record that the action's recipient opted out."""
        about = {
            "integration": action.integration,
            "action_id": action.action_id,
            "tenant": tenant,
            "request_id": request_id,
            "traceparent": traceparent,
        }
        try:
            await self._store(action, tenant, request_id, traceparent)
        except (StorageUnavailable, VersionConflict):
            self._ports.log.exception(
                "a recipient's opt-out, of which the provider told, could not be stored: the action is tried again, "
                "to be told once more",
                extra=about,
            )
            return False
        self._ports.meter.count("opt_outs_by_provider", integration=action.integration)
        self._ports.log.warning(
            "the provider says that the recipient opted out: no channel is used any more", extra=about
        )
        return True

    async def _store(self, action: Action, tenant: str, request_id: str, traceparent: str) -> None:
        ports = self._ports
        for left in reversed(range(TRIES)):
            person = await ports.io(ports.recipients.person, tenant, action.recipient)
            if person.opted_out or not person.is_readable:  # nothing is sent to whose record cannot be read
                return
            note = Note(
                ports.ids.new_id()[:24],
                ports.clock.now_ms(),
                MACHINE,
                f"{action.integration} refused: the recipient told it to stop",
                request_id,
                traceparent=traceparent,
            )
            change = Known(tenant, action.recipient, person).opt_out(note)
            if change is None:
                return
            try:
                await ports.io(ports.recipients.store, change)
            except VersionConflict:
                if not left:
                    raise
            else:
                return
