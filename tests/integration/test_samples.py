"""Payloads that providers really sent, signed as each provider signs, through the whole of ingress.

Their collectors have blanked the ids in some of them, so that several events bear one; those get ids of their own here,
of the same shape. A record's name, as its collector gave it, is what the event must be called.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from functions.core.event import Event
from ops.senders import FORM, JSON, make_secret, sign, source_entry
from tests.ingress_fakes import NOW_MS, Gate

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples"
pytestmark = pytest.mark.skipif(not SAMPLES.exists(), reason="the samples are not here")
COLLECTIONS = ("stripe_events", "shopify_payloads", "slack_payloads", "svix_operational", "aws_lambda_events")
SECRET = "samples"
NOW = NOW_MS // 1000
ID_MEMBERS = {"stripe": ("id",), "slack": ("event_id", "trigger_id"), "aws": ("id",)}

# AWS' own envelopes come from systems of ours, which sign them with a key; this is what their source's entry says.
OUR_SYSTEMS = {
    "identity": {"pointers": ["/id"]},
    "event_name": [
        "/detail-type", "/triggerSource", "/Records/0/eventName", "/Records/0/EventSource", "/Records/0/eventSource",
        "/eventSource", "/RequestType", "/type",
    ],
}  # fmt: skip


# How AWS names what happened, for one envelope of each kind that names it at all.
AWS_NAMES = {
    "eventBridgeEvent": "EC2_Instance_State-change_Notification",
    "cognitoPreSignUpEvent": "PreSignUp_SignUp",
    "s3Event": "ObjectCreated:Put",
    "dynamoStreamEvent": "INSERT",
    "snsEvent": "aws:sns",
    "kinesisStreamEvent": "aws:kinesis:record",
    "kafkaEventMsk": "aws:kafka",
    "cloudformationCustomResourceUpdate": "Update",
    "apiGatewayAuthorizerTokenEvent": "TOKEN",
}


@dataclass(frozen=True)
class Record:
    """One payload as it goes over the wire. `name` is empty where nobody names it."""

    number: int
    provider: str
    document: Any
    name: str
    raw: str = ""
    encoding: str = "json"

    @property
    def body(self) -> bytes:
        if self.raw:
            return self.raw.encode()
        text = json.dumps(self.document, ensure_ascii=False, separators=(",", ":"))
        return urlencode({"payload": text}).encode() if self.encoding == "form:payload" else text.encode()

    @property
    def ids(self) -> list[str]:
        """What the provider says in it that no other event of its will say."""
        if self.raw:
            return [dict(parse_qsl(self.raw))["trigger_id"]]
        members = ID_MEMBERS.get(self.provider, ()) if isinstance(self.document, dict) else ()
        return [self.document[member] for member in members if self.document.get(member)]

    def with_id(self, old: str, new: str) -> Record:
        """The same payload with another id."""
        if self.raw:
            return replace(self, raw=self.raw.replace(old, new))
        changed = {member: new for member in ID_MEMBERS[self.provider] if self.document.get(member) == old}
        return replace(self, document=self.document | changed)

    def redelivered(self) -> Record:
        """What is sent when nobody has answered. Stripe says how many endpoints it still waits for, each time."""
        if self.provider != "stripe":
            return self
        return replace(self, document=self.document | {"pending_webhooks": 7})

    @property
    def content(self) -> str:
        """What two writings of one event have in common."""
        return self.raw or json.dumps(self.redelivered().document, sort_keys=True)

    @property
    def signer(self) -> str:
        return "generic-hmac" if self.provider == "aws" else self.provider

    @property
    def is_handshake(self) -> bool:
        return self.provider == "slack" and self.name == "url_verification"

    def signed_at(self, now: int) -> dict[str, str]:
        """The headers of a delivery of that second."""
        signed = sign(
            self.signer,
            make_secret(self.signer, SECRET),
            self.body,
            url="https://hooks.example.com/webhooks/" + self.provider,
            now=now,
            message_id=f"message-{self.number}",
            event_name=self.name,
        )
        return signed.headers | {"content-type": JSON if self.encoding == "json" else FORM}


def name_given(raw: Mapping[str, Any]) -> str:
    if "raw" in raw:
        return dict(parse_qsl(str(raw["raw"])))["command"]
    if raw["provider"] == "aws":
        return AWS_NAMES.get(raw["name"], "")
    return str(raw.get("topic") or raw["event"] or raw["type"])


def as_collected() -> list[Record]:
    lines = [line for name in COLLECTIONS for line in (SAMPLES / f"{name}.ndjson").read_text().splitlines()]
    return [
        Record(
            number, raw["provider"], raw.get("body"), name_given(raw), raw.get("raw", ""), raw.get("encoding", "json")
        )
        for number, raw in enumerate(map(json.loads, lines))
    ]


def blanked_ids(records: Sequence[Record]) -> list[tuple[Record, str]]:
    """The ids that records of different contents bear."""
    found = [(record, id_) for record in records for id_ in record.ids]
    contents = {(record.provider, id_, record.content) for record, id_ in found}
    often = Counter((provider, id_) for provider, id_, _ in contents)
    return [(record, id_) for record, id_ in found if often[record.provider, id_] > 1]


def as_sent() -> list[Record]:
    """Every record with an id of its own, where the provider gives one."""
    records = as_collected()
    for record, id_ in blanked_ids(records):
        records[record.number] = records[record.number].with_id(id_, f"{id_}.{record.number}")
    return records


def door() -> Gate:
    made = Gate()
    for provider in ("stripe", "shopify", "slack", "svix"):
        made.parameters.put(provider, **source_entry(provider, [make_secret(provider, SECRET)], tenant="acme"))
    ours = source_entry("generic-hmac", [make_secret("generic-hmac", SECRET)], tenant="acme")
    made.parameters.put("aws", **(ours | OUR_SYSTEMS))
    return made


def accepted(made: Gate, record: Record, now: int) -> Event:
    made.clock.ms = now * 1000
    made.outbox.queue.messages.clear()
    answer = made.send(record.provider, record.signed_at(now), record.body)
    assert 200 <= answer["statusCode"] < 300, (record.number, answer)
    [event] = made.outbox.events
    assert event.body == record.body
    return event


def test_every_real_payload_is_taken_under_its_name_and_known_again_when_it_is_sent_again(
    proved: Callable[[str], None],
) -> None:
    made, records = door(), [record for record in as_sent() if not record.is_handshake]
    known: dict[str, Record] = {}
    twice: list[tuple[Record, Record]] = []
    counts: Counter[str] = Counter()
    for record in records:
        event = accepted(made, record, NOW)
        assert event.event_name == record.name or (record.provider == "aws" and not record.name), record.number
        if event.event_id in known:
            twice.append((known[event.event_id], record))
        known[event.event_id] = record
        again = accepted(made, record.redelivered(), NOW + 61)
        assert again.event_id == event.event_id, record.number
        assert again.payload_hash == event.payload_hash, record.number
        assert again.received_at_ms > event.received_at_ms
        counts["named"] += bool(event.event_name)
        counts["by id"] += event.repeat_window_seconds == 0
    assert len(records) == 249
    # Stripe's `account.updated`, which one collector has kept in two files.
    assert [(one.ids, one.content) for one, _ in twice] == [(other.ids, other.content) for _, other in twice]
    assert [one.ids for one, _ in twice] == [["evt_1Itt6eB9wPxT0ovY3LLhi5bw"]]
    assert len(known) == 248
    assert counts["by id"] > 140
    proved(
        f"real payloads: 250, of them 1 handshake and {len(known)} events; {counts['named']} named, each event "
        f"with an identity of its own that a redelivery repeats ({counts['by id']} records by the sender's id, the "
        "others by content, within the window)"
    )


def test_a_shop_that_says_the_same_under_two_topics_tells_of_two_events() -> None:
    """A customer is created, and disabled: Shopify sends the same bytes."""
    records = [record for record in as_sent() if record.provider == "shopify"]
    equal = Counter(record.body for record in records)
    repeated = [record for record in records if equal[record.body] > 1]
    made = door()
    assert len(repeated) == 10
    assert len({(record.name, record.body) for record in repeated}) == len(repeated)
    assert len({accepted(made, record, NOW).event_id for record in repeated}) == len(repeated)
    # Even if Shopify gave them no ids.
    anonymous = door()
    for record in repeated:
        headers = record.signed_at(NOW)
        del headers["x-shopify-webhook-id"]
        anonymous.send("shopify", headers, record.body)
    assert len({event.event_id for event in anonymous.outbox.events}) == len(repeated)


def test_two_contents_under_one_id_are_one_event_whose_contents_differ() -> None:
    """As the collectors left them: the worker finds that the contents are not equal and keeps both."""
    made = door()
    seen: dict[str, set[str]] = {}
    for record, _ in blanked_ids(as_collected()):
        event = accepted(made, record, NOW)
        seen.setdefault(event.event_id, set()).add(event.payload_hash)
    assert len(seen) == len({(record.provider, id_) for record, id_ in blanked_ids(as_collected())})
    assert all(len(hashes) > 1 for hashes in seen.values())


def test_slack_is_answered_the_challenge_it_really_sends() -> None:
    made = door()
    [record] = [record for record in as_sent() if record.is_handshake]
    answer = made.send("slack", record.signed_at(NOW), record.body)
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, {"challenge": record.document["challenge"]})
    assert made.outbox.messages == []


def test_no_real_payload_is_taken_with_one_bit_of_it_turned_over() -> None:
    made = door()
    for record in as_sent():
        body = bytearray(record.body)
        body[record.number * 7919 % len(body)] ^= 1 << record.number % 8
        assert made.send(record.provider, record.signed_at(NOW), bytes(body))["statusCode"] == 401, record.number
    assert made.outbox.messages == []
