"""The synthetic event: how it is signed, and that it calls for nothing in whatever mode."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from functions.core.decision import Mode
from functions.core.synthetic import (
    EVENT_NAME,
    FLOW,
    SOURCE,
    UnusableSyntheticSource,
    delivery,
    is_synthetic,
)
from functions.flows.flow import UnreadableEvent
from functions.flows.synthetic import Synthetic
from tests.fakes import NOON_MS
from tests.synthetic_fakes import ENTRY, SECRET
from tests.worker_world import World

NEW_ID = "ab" * 16
NEWER = "whsec_" + base64.b64encode(bytes(24)).decode()


def entry(**changes: Any) -> str:
    return json.dumps(ENTRY | changes)


def test_it_is_signed_as_standard_webhooks_says_and_names_its_moment() -> None:
    made = delivery(entry(), NEW_ID, NOON_MS)
    moment = datetime.fromtimestamp(NOON_MS / 1000, UTC)
    signature = Webhook(SECRET).sign(made.headers["webhook-id"], moment, made.body.decode())
    assert made.headers["webhook-signature"] == signature
    assert json.loads(made.body) == {"type": EVENT_NAME, "sent_at_ms": NOON_MS}
    assert made.headers["webhook-timestamp"] == str(NOON_MS // 1000)
    assert made.headers["traceparent"] == f"00-{NEW_ID}-{NEW_ID[:16]}-01"
    assert made.url == ""
    assert SECRET.removeprefix("whsec_") not in str(made)


def test_each_is_an_event_of_its_own() -> None:
    one, other = delivery(entry(), NEW_ID, NOON_MS), delivery(entry(), "cd" * 16, NOON_MS)
    assert one.headers["webhook-id"] != other.headers["webhook-id"]


def test_the_newest_secret_signs_and_the_entrys_own_address_goes_before_ours() -> None:
    both = entry(secrets=[{"secret": NEWER}, {"secret": SECRET}], public_url="https://hooks.example/webhooks/synthetic")
    made = delivery(both, NEW_ID, NOON_MS)
    assert made.headers == delivery(entry(secrets=[{"secret": NEWER}]), NEW_ID, NOON_MS).headers
    assert made.headers != delivery(entry(), NEW_ID, NOON_MS).headers
    assert made.url == "https://hooks.example/webhooks/synthetic"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        entry(provider="github"),
        entry(flow="support"),
        entry(secrets=[]),
        entry(secrets=[{"secret": "whsec_not base64"}]),
        entry(secrets=[{"secret": "whsec_\u00e4\u00e4\u00e4\u00e4"}]),
        entry(surprise=1),
    ],
)
def test_an_entry_that_it_cannot_come_through_is_said_without_its_secret(text: str) -> None:
    with pytest.raises(UnusableSyntheticSource) as raised:
        delivery(text, NEW_ID, NOON_MS)
    assert SECRET.removeprefix("whsec_") not in str(raised.value)
    assert "not base64" not in str(raised.value)


@pytest.mark.parametrize("mode", Mode)
def test_it_calls_for_nothing_and_asks_nobody_in_whatever_mode(mode: Mode) -> None:
    event = replace(World().event(), flow=FLOW, source=SOURCE, event_name=EVENT_NAME)
    flow = Synthetic()
    prepared = flow.prepare(event)
    assert (prepared.needs_llm, prepared.subject, prepared.recipient) == (False, "", "")
    decision = flow.decide(event, prepared, None, mode, NOON_MS)
    assert (decision.flow, decision.mode, decision.actions) == (FLOW, mode, ())


def test_what_somebody_else_sends_to_it_is_dead_and_not_taken_for_ours() -> None:
    with pytest.raises(UnreadableEvent):
        Synthetic().prepare(World().event(flow=FLOW))


def test_only_its_own_flow_is_synthetic() -> None:
    assert is_synthetic(FLOW)
    assert not is_synthetic("support")
