"""Recovery rows and events as tests need them: sound by default, with what matters to the case given by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from functions.core.decision import Action, Repeat
from functions.core.event import Event
from functions.core.integration import INTAKE
from functions.core.recovery import Row, Status, Subject, action_recovery_id, event_recovery_id
from tests.fakes import NOON_MS

HOUR_MS = 3_600_000


def event(identity: str = "m-1", **fields: Any) -> Event:
    """An event of a helpdesk, received at noon."""
    sound = Event(
        tenant="acme",
        source="helpdesk-acme",
        provider="richpanel",
        flow="support",
        identity=identity,
        event_name="ticket.created",
        event_version="1",
        received_at_ms=NOON_MS,
        request_id="req-1",
        traceparent="00-11111111111111111111111111111111-2222222222222222-01",
        payload_hash="a" * 64,
        content_type="application/json",
        body=b'{"text":"where is my parcel"}',
    )
    return replace(sound, **fields)


def action(name: str = "tag", **fields: Any) -> Action:
    """A tag on a ticket, bound to the event above."""
    sound = Action(
        name=name,
        kind="add_tag",
        integration="helpdesk",
        repeat=Repeat.IDEMPOTENT,
        target=f"T-{name}",
        params={"tag": "x"},
    )
    return replace(sound, **fields).bound("acme", "helpdesk-acme:m-1", 0)


def row(name: str = "tag", **fields: Any) -> Row:
    """A row of the action `name`, retrying, due at noon and expiring seven days later."""
    its_action = fields.pop("action", None) or action(name)
    sound = Row(
        recovery_id=action_recovery_id(its_action.action_id),
        subject=Subject.ACTION,
        integration_id="helpdesk",
        status=Status.RETRYING,
        tenant="acme",
        source="helpdesk-acme",
        flow="support",
        event_id="helpdesk-acme:m-1",
        epoch_ms=0,
        event_name="ticket.created",
        event_version="1",
        received_at_ms=NOON_MS - HOUR_MS,
        origin_request_id="req-1",
        traceparent="",
        envelope_ref="envelopes/acme/1",
        created_at_ms=NOON_MS - HOUR_MS,
        updated_at_ms=NOON_MS - HOUR_MS,
        request_id="req-1",
        action=its_action,
        attempt_count=1,
        not_before_ms=NOON_MS,
        due_at_ms=NOON_MS,
        expires_at_ms=NOON_MS + 168 * HOUR_MS,
        failure_class="transient",
        failure_code="HTTP_503",
    )
    return replace(sound, **fields)


def dead(name: str = "tag", **fields: Any) -> Row:
    """A row that used up its attempts."""
    return row(
        name, **{"status": Status.DLQ, "due_at_ms": 0, "not_before_ms": 0, "root_cause": "transient_infra", **fields}
    )


def event_row(identity: str = "m-1", **fields: Any) -> Row:
    """The row of a whole dead event."""
    its_event = event(identity)
    return replace(
        dead(),
        **{
            "recovery_id": event_recovery_id(its_event.tenant, its_event.event_id, its_event.epoch_ms),
            "subject": Subject.EVENT,
            "integration_id": INTAKE,
            "event_id": its_event.event_id,
            "action": None,
            **fields,
        },
    )
