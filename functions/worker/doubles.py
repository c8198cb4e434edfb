"""One effect that came about twice, proven (architecture §9): told at once, so that what reaches customers is stopped.

Whatever is claimed, fenced and looked up here, it is the provider that acts: one that carries out a request twice, or
shows what it did later than the catalog believes, doubles an effect all the same. Nobody can undo that, but nobody else
needs to get it. Proof is one of three: a lookup finds several under one action's marker, it does so when it is asked
again a while after a send that a lookup had found absent, or two workers each sent it and were given different ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from functions.core.attempt import History
from functions.core.audit import MACHINE, AuditEvent, AuditType, Severity, audit_id
from functions.core.decision import COUNTED, Action, Repeat
from functions.core.event import Event
from functions.core.failure import Done, MalformedDecision, StorageUnavailable
from functions.core.gate import WaitingFor
from functions.core.integration import Integration
from functions.core.ledger import ActionStatus, LedgerItem
from functions.core.recovery import Change, Row, Status, action_recovery_id, parked_first
from functions.core.rows import row_beside
from functions.worker.ports import Ports

COUNTING_PRIORITY = 8  # everything that somebody waits for goes first
COUNTED_AFTER_SETTLES = 5
"""After a send: so many times what the catalog believes its provider takes to show it (`settle_seconds`)."""
_UNREAD = "whether an effect came about twice could not be read: see at the provider"


@dataclass(frozen=True, slots=True)
class Sent:
    """An action that came about in this pass, and under which of the provider's ids."""

    action: Action
    provider_id: str


def counted_later(
    integrations: Mapping[str, Integration], row: Row, action: Action, now_ms: int, scale: float
) -> Change | None:
    """The row of what counts the effects of an action that may be there twice later (`may_show_later`); None where the
    catalog names no kind that can. `row` is the action's, stored or blank.
    """
    rules = integrations[action.integration].kinds[action.kind]
    if not rules.counted_by:
        return None
    counting = Action(
        name=f"{action.name}_counted",
        kind=rules.counted_by,
        integration=action.integration,
        repeat=Repeat.IDEMPOTENT,
        target=action.target,
        params={COUNTED: action.action_id},
        priority=COUNTING_PRIORITY,
    )
    blank = row_beside(row, counting.bound(row.tenant, row.event_id, row.epoch_ms), now_ms)
    due_ms = now_ms + int(COUNTED_AFTER_SETTLES * rules.settle_seconds * 1000 * scale)
    reason = "it is counted later: an earlier send of it may show only then"
    return parked_first(blank, WaitingFor.TIME, reason, due_ms)


def may_show_later(done: Done, history: History, *, was_sent: bool) -> bool:
    """Whether what came about may be there twice once the provider shows all of it. `history` is what was known before
    the attempt that did it, or (without `was_sent`) found it done.

    An earlier send may have come about, however long ago a lookup found nothing of it; and of several such sends one
    that was found may be any. What shows twice already has been told.
    """
    if done.times > 1:
        return False
    if was_sent:
        return history.last_possible_send_ms > 0
    return 0 < history.first_sent_at_ms < history.last_possible_send_ms


class Proof(StrEnum):
    """How it is known. Bounded, for the metric."""

    FOUND = "found_several"
    TWO_WORKERS = "two_workers"


@dataclass(frozen=True, slots=True)
class Doubled:
    """Whose effect it is, and what of it came about. `recovery_id` is its row's id, on whatever way it went."""

    action: Action
    recovery_id: str
    tenant: str
    request_id: str
    traceparent: str
    proof: Proof
    what: str  # ids of the provider, or how many

    @property
    def action_id(self) -> str:
        """Of the action whose effects they are: another one may only have counted them."""
        return self.action.counted_id or self.action.action_id


class Doubles:
    """Tells of effects that came about twice."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def tell(self, doubled: Doubled) -> None:
        """Count it, log it, put it in the audit. Never raises: whatever is done beside goes on."""
        ports, action = self._ports, doubled.action
        ports.meter.count("effects_doubled", integration=action.integration, reason=doubled.proof.value)
        ports.meter.flush()  # once it is stored nobody looks again: a death after that must not take the count with it
        about = {
            "tenant": doubled.tenant,
            "integration": action.integration,
            "action": action.name,
            "kind": action.kind,
            "action_id": doubled.action_id,
            "recovery_id": doubled.recovery_id,
            "request_id": doubled.request_id,
            "traceparent": doubled.traceparent,
            "reason": doubled.proof.value,
        }
        ports.log.error(
            "an effect came about twice: tell whoever it reached, and see runbook alarms.md#effects-doubled",
            extra=about,
        )
        event = AuditEvent(
            id=audit_id(doubled.action_id, 0, AuditType.EFFECT_DOUBLED),
            at_ms=ports.clock.now_ms(),
            event_type=AuditType.EFFECT_DOUBLED,
            severity=Severity.CRITICAL,
            tenant=doubled.tenant,
            actor=MACHINE,
            affected_entity="recovery_item",
            affected_id=doubled.recovery_id,
            request_id=doubled.request_id,
            traceparent=doubled.traceparent,
            failure_type=doubled.proof.value,
            error=doubled.what,
            containment_action="auto_reply off by the alarm",
        )
        try:
            await ports.io(ports.audit.append, [event])
        except StorageUnavailable:
            ports.log.exception("an effect that came about twice is in the log, and not in the audit", extra=about)

    async def found(
        self, action: Action, done: Done, recovery_id: str, tenant: str, request_id: str, traceparent: str
    ) -> None:
        """What a lookup, or a count, has found of it. `recovery_id`: of the row of what did so."""
        if done.times > 1:
            what = f"{done.times} are there"
            whose = action_recovery_id(action.counted_id) if action.counted_id else recovery_id
            await self.tell(Doubled(action, whose, tenant, request_id, traceparent, Proof.FOUND, what))

    async def lost_lease(self, event: Event, item: LedgerItem, sent: Sequence[Sent]) -> None:
        """This pass sent, and may not store it: has whoever may sent it too?"""
        if not sent:
            return
        try:
            view = await self._ports.io(self._ports.ledger.read, [item.key], [])
            now = view.items.get(item.key)
            for one in sent:
                other = "" if now is None or now.epoch_ms != item.epoch_ms else _done_as(now, one.action.name)
                recovery_id = action_recovery_id(one.action.action_id)
                other = other or await self._row_done_as(recovery_id)
                await self._compare(one, other, recovery_id, event.tenant, event.request_id, event.traceparent)
        except (StorageUnavailable, MalformedDecision):
            about = {"tenant": event.tenant, "event_id": event.event_id, "request_id": event.request_id}
            self._ports.log.exception(_UNREAD, extra={**about, "traceparent": event.traceparent})

    async def moved(self, row: Row, action: Action, provider_id: str) -> None:
        """This attempt sent, and somebody else has moved its row: have they sent it too?"""
        try:
            other = await self._row_done_as(row.recovery_id)
        except StorageUnavailable:
            about = {"tenant": row.tenant, "recovery_id": row.recovery_id, "integration": action.integration}
            whose = {"action": action.name, "request_id": row.request_id, "traceparent": row.traceparent}
            self._ports.log.exception(_UNREAD, extra={**about, **whose})
            return
        sent = Sent(action, provider_id)
        await self._compare(sent, other, row.recovery_id, row.tenant, row.request_id, row.traceparent)

    async def _compare(
        self, sent: Sent, other: str, recovery_id: str, tenant: str, request_id: str, traceparent: str
    ) -> None:
        if sent.provider_id and other and sent.provider_id != other:
            what = f"{sent.provider_id} and {other}"
            await self.tell(Doubled(sent.action, recovery_id, tenant, request_id, traceparent, Proof.TWO_WORKERS, what))

    async def _row_done_as(self, recovery_id: str) -> str:
        row = await self._ports.io(self._ports.recovery.get, recovery_id)
        is_done = row is not None and (row.status is Status.SUCCEEDED or row.result == "succeeded")
        return row.provider_id if row is not None and is_done else ""


def _done_as(item: LedgerItem, name: str) -> str:
    """The provider's id of that action, if the ledger has it as done."""
    mark = item.actions.get(name)
    return mark.provider_id if mark is not None and mark.status is ActionStatus.DONE else ""
