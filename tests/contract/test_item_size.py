"""A ledger item stays under 1 KB, which is one write unit (architecture §6)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from functions.adapters.ledger import DynamoLedger
from functions.adapters.recovery import DynamoRecovery
from functions.catalog.loader import load
from functions.core.clock import SystemIds
from functions.core.decision import Classification, DecidedBy, Mode
from functions.core.event import Event, digest
from functions.core.ledger import ActionMark, ActionStatus, Claim, Claimed, ledger_key
from functions.core.ports import Settlement
from functions.core.recovery import Change
from functions.flows.registry import flows_of
from tests import aws_tables
from tests.contract.storage import full_row
from tests.fakes import NOON_MS, FakeIds

CATALOG = load()


def size_of(item: Mapping[str, Any]) -> int:
    """Bytes as DynamoDB counts them: names and texts in UTF-8, digits in pairs, 3 per container, 1 per member."""
    return sum(len(name.encode()) + _size(value) for name, value in item.items())


def _size(value: Mapping[str, Any]) -> int:
    [(kind, content)] = value.items()
    if kind == "B":
        return len(content)
    if kind == "S":
        return len(content.encode())
    if kind == "N":
        return (len(content) + 1) // 2 + 1
    if kind == "BOOL":
        return 1
    inner = content.values() if kind == "M" else content
    names = sum(len(name.encode()) for name in content) if kind == "M" else 0
    return 3 + names + sum(1 + _size(one) for one in inner)


def fullest() -> Claim:
    """The longest decision that the flow makes: of every label, one that replies."""
    flow = flows_of(CATALOG)["support"]
    body = {"ticket_id": "5f9d88b1c2a34e0017a1b2c3", "message": "hello", "author": {"id": "ann@example.com"}}
    event = Event(
        tenant="a-tenant-with-a-name",
        source="helpdesk-europe",
        provider="richpanel",
        flow="support",
        identity=digest("an id so long that it was hashed"),
        event_name="ticket.message_created",
        event_version="1",
        received_at_ms=NOON_MS,
        request_id="JKJaXmPLvHcESHA=",  # as API Gateway makes them
        traceparent=f"00-{'a' * 32}-{'b' * 16}-01",
        payload_hash=digest("payload"),
        content_type="application/json",
        body=json.dumps(body).encode(),
    )
    prepared = flow.prepare(event)
    decisions = [
        flow.decide(event, prepared, said, Mode.ROUTE_ONLY, NOON_MS)
        for label in CATALOG.labels
        for said in [
            Classification(label, 0.987654, DecidedBy.LLM, "gpt-4o-mini-2024-07-18/p1", ("several_topics", "no_match"))
        ]
    ]
    longest = max(decisions, key=lambda one: len(one.to_json()))
    return Claim(
        key=ledger_key(event),
        owner=SystemIds().new_id(),
        now_ms=NOON_MS,
        lease_until_ms=NOON_MS + 65_000,
        received_at_ms=NOON_MS,
        epoch_ms=0,
        payload_hash=event.payload_hash,
        decision=longest,
        request_id=event.request_id,
        event_name=event.event_name,
        ticket=prepared.subject,
        recipient=prepared.recipient,
    )


def test_a_full_support_decision_fits_one_write_unit_from_claim_to_settlement() -> None:
    wanted = fullest()
    assert len(wanted.decision.actions) == 4
    with aws_tables.moto_tables() as client:
        ledger = DynamoLedger(client, FakeIds(), ledger_table=aws_tables.LEDGER)

        def stored() -> int:
            [item] = client.scan(TableName=aws_tables.LEDGER)["Items"]
            return size_of(item)

        assert isinstance(ledger.claim(wanted), Claimed)
        claimed = stored()
        [item] = client.scan(TableName=aws_tables.LEDGER)["Items"]
        assert {"rq", "tk", "rc"} <= item.keys()
        assert "ev" not in item  # what is only for eyes never costs a unit
        marks = dict.fromkeys(wanted.marks, ActionMark(ActionStatus.RECOVERY))
        marks["reply"] = ActionMark(ActionStatus.DONE, "5f9d88b1c2a34e0017a1b2c3")
        ledger.settle(Settlement(wanted.key, wanted.owner, 1, NOON_MS + 1, marks))
        settled = stored()
    print(f"\nledger item of a full support decision: {claimed} bytes claimed, {settled} bytes settled")
    assert max(claimed, settled) < 1024


def test_a_row_with_every_field_stays_small_enough_for_a_transaction_of_many() -> None:
    with aws_tables.moto_tables() as client:
        recovery = DynamoRecovery(client, FakeIds(), recovery_table=aws_tables.RECOVERY, audit_table=aws_tables.AUDIT)
        recovery.commit([Change(full_row(), None)])
        [item] = client.scan(TableName=aws_tables.RECOVERY)["Items"]
    print(f"\nrow with every field: {size_of(item)} bytes")
    assert size_of(item) < 16 * 1024
