"""Blank recovery rows: what an action or an event brings with it, before anything is known of its failure."""

from __future__ import annotations

from dataclasses import replace

from functions.core.attempt import Effect, History
from functions.core.decision import Action, Decision
from functions.core.event import CLAIMS, Event, digest
from functions.core.integration import INTAKE
from functions.core.recovery import Row, Status, Subject, action_recovery_id, event_recovery_id

EVENT_EXPIRES_SECONDS = 120 * 86_400  # with its envelope
UNREAD_FLOW = "unknown"  # of a message that is no envelope: which flow it is for, nobody knows before one can read it


def is_claim(envelope_ref: str) -> bool:
    """Whether the envelope is the one that ingress stored when it accepted the event, and not a copy made since."""
    return envelope_ref.startswith(CLAIMS)


def action_row(
    event: Event, decision: Decision, action: Action, epoch_ms: int, envelope_ref: str, now_ms: int, history: History
) -> Row:
    """The row of one unfinished action. `history` is what is known of it so far: a takeover may have left an effect
    behind.
    """
    return Row(
        recovery_id=action_recovery_id(action.action_id),
        subject=Subject.ACTION,
        integration_id=action.integration,
        status=Status.PENDING,
        tenant=event.tenant,
        source=event.source,
        flow=decision.flow,
        event_id=event.event_id,
        epoch_ms=epoch_ms,
        event_name=event.event_name,
        event_version=event.event_version,
        received_at_ms=event.received_at_ms,
        origin_request_id=event.request_id,
        request_id=event.request_id,
        traceparent=event.traceparent,
        envelope_ref=envelope_ref,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        action=action,
        stand_in=decision.stand_in(action.name),
        decision_mode=decision.mode,
        decided_at_ms=decision.decided_at_ms,
        priority=action.priority,
        expires_at_ms=event.received_at_ms + action.expires_seconds * 1000,
        effect=Effect.UNKNOWN if history.may_have_been_sent and action.repeat.is_once else Effect.NONE,
        first_sent_at_ms=history.first_sent_at_ms,
        last_possible_send_ms=history.last_possible_send_ms,
    )


def stand_in_row(parent: Row, now_ms: int) -> Row | None:
    """The row of what runs instead of a suppressed action; None if nothing does."""
    return None if parent.stand_in is None else row_beside(parent, parent.stand_in, now_ms)


def row_beside(parent: Row, action: Action, now_ms: int) -> Row:
    """The row of another action of the same event, which nothing is known of. It expires as if it were decided now."""
    return replace(
        parent,
        recovery_id=action_recovery_id(action.action_id),
        version=1,
        status=Status.PENDING,
        integration_id=action.integration,
        action=action,
        stand_in=None,
        priority=action.priority,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        expires_at_ms=now_ms + action.expires_seconds * 1000,
        attempt_count=0,
        first_attempt_at_ms=0,
        first_sent_at_ms=0,
        last_possible_send_ms=0,
        stored_errors=0,
        takeovers=0,
        verify_only=False,
        lease_until_ms=0,
        not_before_ms=0,
        due_at_ms=0,
        credential_version="",
        response_snapshot="",
        hop=0,
        hops=(),
        hop_kind="",
        hop_repeat="",
        slot_ms=0,
        dead_hints=0,
        dead_hint_version=0,
        effect=Effect.NONE,
        failure_class="",
        failure_code="",
        failure_detail="",
        root_cause="",
        provider_id="",
        replayed_from="",
        replay_no=0,
        result="",
        job_id="",
        waits_for=(),
        children=(),
        history=(),
    )


def event_row(event: Event, envelope_ref: str, now_ms: int, variant: str = "") -> Row:
    """The row of a whole event, under the reserved integration `intake`. It expires when its envelope does."""
    stored_at_ms = event.received_at_ms if is_claim(envelope_ref) else now_ms
    return Row(
        recovery_id=event_recovery_id(event.tenant, event.event_id, event.epoch_ms, variant),
        subject=Subject.EVENT,
        integration_id=INTAKE,
        status=Status.PENDING,
        tenant=event.tenant,
        source=event.source,
        flow=event.flow,
        event_id=event.event_id,
        epoch_ms=event.epoch_ms,
        event_name=event.event_name,
        event_version=event.event_version,
        received_at_ms=event.received_at_ms,
        origin_request_id=event.request_id,
        request_id=event.request_id,
        traceparent=event.traceparent,
        envelope_ref=envelope_ref,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        expires_at_ms=stored_at_ms + EVENT_EXPIRES_SECONDS * 1000,
    )


def name_of(content: bytes) -> str:
    """The name of a message that is no envelope: the same for the same content, whatever it is."""
    return digest(content.decode("utf-8", "surrogateescape"))


def unreadable_row(name: str, envelope_ref: str, now_ms: int, request_id: str) -> Row:
    """The row of a message that is no envelope, by its `name_of`: whose it was cannot be told."""
    return Row(
        recovery_id=event_recovery_id("unknown", name, 0),
        subject=Subject.EVENT,
        integration_id=INTAKE,
        status=Status.PENDING,
        tenant="unknown",
        source="unknown",
        flow=UNREAD_FLOW,
        event_id=f"unknown:{name[:32]}",
        epoch_ms=0,
        event_name="unknown",
        event_version="",
        received_at_ms=now_ms,
        origin_request_id=request_id,
        request_id=request_id,
        traceparent="",
        envelope_ref=envelope_ref,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        expires_at_ms=now_ms + EVENT_EXPIRES_SECONDS * 1000,
    )
