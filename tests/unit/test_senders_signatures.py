"""Senders with a way of their own to sign: each one's recipe written out here once more, and what tampering does to it.

The recipes are those of the pages named beside the rows in `functions.signatures.providers`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]  # the SDK ships no types

from functions.core.identity import Identity, identity_of, name_of, payload_hash_of
from functions.core.source import MalformedSource
from functions.ingress.document import document_of
from functions.signatures.providers import PROVIDERS, Endpoint, endpoint_of, scheme_of
from functions.signatures.scheme import Delivery, Reason
from tests.ingress_fakes import NOW_MS, Gate

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

NOW = NOW_MS // 1000
ZULU = datetime.fromtimestamp(NOW, UTC).isoformat().replace("+00:00", "Z")
NANOSECONDS = ZULU.replace("Z", ".000000001Z")
URL = "https://hooks.example.com/webhooks/x?a=%2F1"
FORM = "application/x-www-form-urlencoded"
SECRET = "s3cret-né"
HEX_SECRET = "00ff" * 16
ED25519 = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ED25519_PUBLIC = ED25519.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
OTHER_ED25519 = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
OTHER_ED25519_PUBLIC = OTHER_ED25519.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
P256 = ec.derive_private_key(7, ec.SECP256R1())


def der(key: ec.EllipticCurvePrivateKey) -> str:
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(public).decode()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def mac(content: bytes, algorithm: str = "sha256", key: bytes | None = None) -> bytes:
    return hmac.digest(SECRET.encode() if key is None else key, content, algorithm)


def endpoint(provider: str, *secrets: str, **more: Any) -> Endpoint:
    entry = {"tenant": "t", "flow": "f", "provider": provider, "secrets": [{"secret": s} for s in secrets], **more}
    return endpoint_of("source", json.dumps(entry))


Sign = Callable[[bytes, str], dict[str, str]]  # body, address -> headers


def signed_form(body: bytes, url: str) -> dict[str, str]:
    pairs = sorted(parse_qsl(body.decode(), keep_blank_values=True))
    content = url + "".join(name + value for name, value in pairs)
    return {"content-type": FORM, "x-mandrill-signature": b64(mac(content.encode(), "sha1"))}


def hook0(body: bytes, url: str) -> dict[str, str]:
    content = f"{NOW}.x-event-id x-event-type.evt-1.user.created.".encode() + body
    return {
        "x-event-id": "evt-1",
        "x-event-type": "user.created",
        "x-hook0-signature": f"t={NOW},h=x-event-id x-event-type,v1={mac(content).hex()}",
    }


def box(body: bytes, url: str) -> dict[str, str]:
    return {
        "box-signature-version": "1",
        "box-signature-algorithm": "HmacSHA256",
        "box-delivery-timestamp": ZULU,
        "box-signature-primary": b64(mac(body + ZULU.encode(), key=b"the new key")),
        "box-signature-secondary": b64(mac(body + ZULU.encode())),
        "box-delivery-id": "d-1",
    }


def hubspot_v2(body: bytes, url: str) -> dict[str, str]:
    content = SECRET.encode() + b"POST" + url.encode() + body
    return {"x-hubspot-signature-version": "v2", "x-hubspot-signature": hashlib.sha256(content).hexdigest()}


def hubspot_v3(body: bytes, url: str) -> dict[str, str]:
    content = b"POST" + url.replace("%2F", "/").encode() + body + str(NOW_MS).encode()
    return {"x-hubspot-request-timestamp": str(NOW_MS), "x-hubspot-signature-v3": b64(mac(content))}


def meta(body: bytes, url: str) -> dict[str, str]:
    return {"x-hub-signature-256": f"sha256={mac(body).hex()}"}


def twitch(body: bytes, url: str) -> dict[str, str]:
    message_id = hashlib.sha256(body).hexdigest()[:8]  # another message, another id
    return {
        "twitch-eventsub-message-id": message_id,
        "twitch-eventsub-message-timestamp": NANOSECONDS,
        "twitch-eventsub-message-signature": f"sha256={mac((message_id + NANOSECONDS).encode() + body).hex()}",
    }


@dataclass(frozen=True)
class Sender:
    """One sender with a typical event: `again` is its redelivery, `other` another event that resembles it."""

    provider: str
    sign: Sign
    body: str
    name: str
    again: str = ""
    other: str = ""
    secret: str = SECRET
    wrong_secret: str = "another"
    stale_after_ms: int = 300_000
    options: dict[str, str] = field(default_factory=dict)
    is_bound_to_url: bool = False


SENDERS = {
    "square": Sender(
        "square", lambda body, url: {"x-square-hmacsha256-signature": b64(mac(url.encode() + body))},
        '{"type":"payment.created","event_id":"e1"}', "payment.created", "",
        '{"type":"payment.created","event_id":"e2"}', stale_after_ms=0, is_bound_to_url=True,
    ),
    "paddle": Sender(
        "paddle", lambda body, _: {"paddle-signature": f"ts={NOW};h1=old;h1={mac(b'%d:' % NOW + body).hex()}"},
        '{"event_id":"e1","event_type":"a.b","notification_id":"n1"}', "a.b",
        '{"event_id":"e1","event_type":"a.b","notification_id":"n2"}', '{"event_id":"e2","event_type":"a.b"}',
    ),
    "workos": Sender(
        "workos", lambda body, _: {"workos-signature": f"t={NOW_MS}, v1={mac(b'%d.' % NOW_MS + body).hex()}"},
        '{"id":"wh_1","event":"dsync.user.created"}', "dsync.user.created", "",
        '{"id":"wh_2","event":"dsync.user.created"}',
    ),
    "line": Sender(
        "line", lambda body, _: {"x-line-signature": b64(mac(body))},
        '{"events":[{"type":"message","webhookEventId":"1","deliveryContext":{"isRedelivery":false}}]}', "message",
        '{"events":[{"type":"message","webhookEventId":"1","deliveryContext":{"isRedelivery":true}}]}',
        '{"events":[{"type":"message","webhookEventId":"1"},{"type":"message","webhookEventId":"2"}]}',
        stale_after_ms=0,
    ),
    "pagerduty": Sender(
        "pagerduty", lambda body, _: {"x-pagerduty-signature": f"v1={'0' * 64},v1={mac(body).hex()}"},
        '{"event":{"id":"P1","event_type":"incident.triggered"}}', "incident.triggered", "",
        '{"event":{"id":"P2","event_type":"incident.triggered"}}', stale_after_ms=0,
    ),
    "box": Sender(
        "box", box, '{"id":"b1","trigger":"FILE.UPLOADED"}', "FILE.UPLOADED", "",
        '{"id":"b2","trigger":"FILE.UPLOADED"}',
    ),
    "zendesk": Sender(
        "zendesk",
        lambda body, _: {
            "x-zendesk-webhook-signature": b64(mac(ZULU.encode() + body)),
            "x-zendesk-webhook-signature-timestamp": ZULU,
            "x-zendesk-webhook-invocation-id": "01H",
        },
        '{"type":"zen:event-type:ticket.created","id":"7"}', "zen:event-type:ticket.created", "",
        '{"type":"zen:event-type:ticket.created","id":"7","n":2}',
    ),
    "intercom": Sender(
        "intercom", lambda body, _: {"x-hub-signature": f"sha1={mac(body, 'sha1').hex()}"},
        '{"type":"notification_event","topic":"ticket.created","id":"n1","delivery_attempts":1}', "ticket.created",
        '{"type":"notification_event","topic":"ticket.created","id":"n1","delivery_attempts":2}',
        '{"type":"notification_event","topic":"ticket.created","id":"n2"}', stale_after_ms=0,
    ),
    "razorpay": Sender(
        "razorpay", lambda body, _: {"x-razorpay-signature": mac(body).hex(), "x-razorpay-event-id": "r1"},
        '{"event":"payment.authorized"}', "payment.authorized", "", '{"event":"payment.authorized","n":1}',
        stale_after_ms=0,
    ),
    "zoom": Sender(
        "zoom",
        lambda body, _: {
            "x-zm-signature": f"v0={mac(b'v0:%d:' % NOW + body).hex()}", "x-zm-request-timestamp": str(NOW),
        },
        '{"event":"meeting.participant_joined","event_ts":1,"payload":{"n":1}}', "meeting.participant_joined", "",
        '{"event":"meeting.participant_joined","event_ts":1,"payload":{"n":2}}',
    ),
    "mandrill": Sender(
        "mandrill", signed_form, urlencode({"mandrill_events": '[{"event":"open","_id":"m1","ts":1}]'}), "open", "",
        urlencode({"mandrill_events": '[{"event":"open","_id":"m1","ts":2}]'}), stale_after_ms=0, is_bound_to_url=True,
    ),
    "gitlab": Sender(
        "gitlab", lambda _, __: {"x-gitlab-token": SECRET, "x-gitlab-event-uuid": "u1"},
        '{"object_kind":"issue","object_attributes":{"action":"open"}}', "issue.open", "",
        '{"object_kind":"issue","object_attributes":{"action":"close"}}', stale_after_ms=0,
    ),
    "postmark": Sender(
        "postmark", lambda _, __: {"authorization": "Basic " + b64(b"user:pass")},
        '{"RecordType":"Open","MessageID":"m1","ReceivedAt":"1"}', "Open", "",
        '{"RecordType":"Open","MessageID":"m1","ReceivedAt":"2"}', secret="user:pass", wrong_secret="user:word",
        stale_after_ms=0,
    ),
    "sendgrid": Sender(
        "sendgrid",
        lambda body, _: {
            "x-twilio-email-event-webhook-timestamp": str(NOW),
            "x-twilio-email-event-webhook-signature": b64(P256.sign(b"%d" % NOW + body, ec.ECDSA(SHA256()))),
        },
        '[{"event":"open","sg_event_id":"1"}]\r\n', "open", "",
        '[{"event":"open","sg_event_id":"1"},{"event":"open","sg_event_id":"2"}]\r\n',
        secret=der(P256), wrong_secret=der(ec.derive_private_key(8, ec.SECP256R1())), stale_after_ms=0,
    ),
    "discord": Sender(
        "discord",
        lambda body, _: {
            "x-signature-ed25519": ED25519.sign(b"%d" % NOW + body).hex(), "x-signature-timestamp": str(NOW),
        },
        '{"type":2,"id":"1","data":{"name":"refund"},"version":1}', "refund", "",
        '{"type":2,"id":"2","data":{"name":"refund"},"version":1}',
        secret=ED25519_PUBLIC, wrong_secret=OTHER_ED25519_PUBLIC,
    ),
    "discord-events": Sender(
        "discord-events",
        lambda body, _: {
            "x-signature-ed25519": ED25519.sign(b"%d" % NOW + body).hex(), "x-signature-timestamp": str(NOW),
        },
        '{"type":1,"event":{"type":"ENTITLEMENT_CREATE","timestamp":"t","data":{"id":1}}}', "ENTITLEMENT_CREATE", "",
        '{"type":1,"event":{"type":"ENTITLEMENT_CREATE","timestamp":"t","data":{"id":2}}}',
        secret=ED25519_PUBLIC, wrong_secret=OTHER_ED25519_PUBLIC,
    ),
    "hubspot v1": Sender(
        "hubspot",
        lambda body, _: {
            "x-hubspot-signature-version": "v1",
            "x-hubspot-signature": hashlib.sha256(SECRET.encode() + body).hexdigest(),
        },
        '[{"eventId":1,"occurredAt":5,"subscriptionType":"contact.creation","attemptNumber":0}]', "contact.creation",
        '[{"eventId":1,"occurredAt":5,"subscriptionType":"contact.creation","attemptNumber":1}]',
        '[{"eventId":1,"occurredAt":5,"subscriptionType":"contact.creation","objectId":2}]', stale_after_ms=0,
    ),
    "hubspot v2": Sender(
        "hubspot", hubspot_v2,
        '[{"eventId":1,"occurredAt":5,"subscriptionType":"contact.creation","attemptNumber":0}]', "contact.creation",
        '[{"eventId":1,"occurredAt":5,"subscriptionType":"contact.creation","attemptNumber":1}]',
        '[{"eventId":2,"occurredAt":5,"subscriptionType":"contact.creation"}]', stale_after_ms=0, is_bound_to_url=True,
    ),
    "hubspot v3": Sender(
        "hubspot", hubspot_v3,
        '[{"eventId":1,"occurredAt":5,"subscriptionType":"contact.creation","attemptNumber":0}]', "contact.creation",
        '[{"eventId":1,"occurredAt":5,"subscriptionType":"contact.creation","attemptNumber":1}]',
        '[{"eventId":1,"occurredAt":6,"subscriptionType":"contact.creation"}]',
        options={"version": "v3"}, is_bound_to_url=True,
    ),
    "adyen in a header": Sender(
        "adyen", lambda body, _: {"hmacsignature": b64(mac(body, key=bytes.fromhex(HEX_SECRET)))},
        '{"type":"balancePlatform.payout.created","data":{"id":"1"}}', "balancePlatform.payout.created", "",
        '{"type":"balancePlatform.payout.created","data":{"id":"2"}}', secret=HEX_SECRET, wrong_secret="00ab",
        stale_after_ms=0,
    ),
    "hook0": Sender(
        "hook0", hook0, '{"event":"user.created"}', "user.created", "", '{"event":"user.created","n":1}',
    ),
    "hook0 v0": Sender(
        "hook0", lambda body, _: {
            "x-hook0-signature": f"t={NOW},v0={mac(b'%d.' % NOW + body).hex()}", "x-event-id": "evt-1",
        },
        '{"event":"user.created"}', "user.created", "", '{"event":"user.created","n":1}',
    ),
    "meta, a message": Sender(
        "meta", meta,
        '{"object":"whatsapp_business_account","entry":[{"id":"1","time":1,"changes":[{"field":"messages","value":'
        '{"messages":[{"id":"wamid.A","type":"text"}]}}]}]}',
        "whatsapp_business_account.messages",
        '{"object":"whatsapp_business_account","entry":[{"id":"1","time":9,"changes":[{"field":"messages","value":'
        '{"messages":[{"id":"wamid.A","type":"text"}]}}]}]}',
        '{"object":"whatsapp_business_account","entry":[{"id":"1","time":1,"changes":[{"field":"messages","value":'
        '{"messages":[{"id":"wamid.A","type":"text"},{"id":"wamid.B"}]}}]}]}',
        stale_after_ms=0,
    ),
    "meta, a status": Sender(
        "meta", meta,
        '{"object":"whatsapp_business_account","entry":[{"changes":[{"field":"messages","value":'
        '{"statuses":[{"id":"wamid.A","status":"delivered"}]}}]}]}',
        "whatsapp_business_account.messages", "",
        '{"object":"whatsapp_business_account","entry":[{"changes":[{"field":"messages","value":'
        '{"statuses":[{"id":"wamid.A","status":"read"}]}}]}]}',
        stale_after_ms=0,
    ),
    "meta, on messenger": Sender(
        "meta", meta, '{"object":"page","entry":[{"time":1,"messaging":[{"message":{"mid":"m1"}}]}]}', "page",
        '{"object":"page","entry":[{"time":2,"messaging":[{"message":{"mid":"m1"}}]}]}',
        '{"object":"page","entry":[{"time":1,"messaging":[{"message":{"mid":"m2"}}]}]}', stale_after_ms=0,
    ),
    "meta, seen on messenger": Sender(
        "meta", meta,
        '{"object":"page","entry":[{"messaging":[{"sender":{"id":"7"},"timestamp":5,"read":{"watermark":4}}]}]}',
        "page", "",
        '{"object":"page","entry":[{"messaging":[{"sender":{"id":"7"},"timestamp":6,"read":{"watermark":4}}]}]}',
        stale_after_ms=0,
    ),
    "x": Sender(
        "x", lambda body, _: {"x-twitter-webhooks-signature": f"sha256={b64(mac(body))}"},
        '{"for_user_id":"1","direct_message_events":[{"type":"message_create","id":"9"}]}', "message_create", "",
        '{"for_user_id":"1","direct_message_events":[{"type":"message_create","id":"9"},{"id":"10"}]}',
        stale_after_ms=0,
    ),
    "twitch": Sender(
        "twitch", twitch,
        '{"subscription":{"type":"channel.follow","version":"1","status":"enabled"},"event":{}}', "channel.follow", "",
        '{"subscription":{"type":"channel.follow","version":"1","status":"enabled"},"event":{"n":1}}',
    ),
    "okta": Sender(
        "okta", lambda _, __: {"authorization": SECRET},
        '{"eventType":"com.okta.event_hook","eventId":"1","data":{"events":[{"eventType":"user.session.start"}]}}',
        "user.session.start", "",
        '{"eventType":"com.okta.event_hook","eventId":"2","data":{"events":[{"eventType":"user.session.start"}]}}',
        stale_after_ms=0,
    ),
}  # fmt: skip


def judged(sender: Sender, body: bytes, headers: dict[str, str], *, url: str = URL, ms: int = NOW_MS) -> Reason | None:
    more = {"scheme": sender.options} if sender.options else {}
    verifier = endpoint(sender.provider, sender.secret, **more).verifier
    return verifier.check(Delivery(headers, body, "POST", url), ms)


def identity(provider: str, secret: str, body: str, headers: dict[str, str]) -> tuple[Identity, str, str]:
    """Identity, name and payload hash, as ingress makes them."""
    here = endpoint(provider, secret)
    row, delivery = here.provider, Delivery(headers, body.encode(), "POST", URL)
    document = document_of(delivery, here.content, row.payload_field)
    name = name_of(row.event_name, row.event_detail, headers, document)
    payload_hash = payload_hash_of(delivery.body, document, row.unstable)
    found = identity_of(
        here.identity,
        headers,
        document,
        event_name=name,
        payload_hash=payload_hash,
        content_hash=hashlib.sha256(delivery.body).hexdigest(),
        is_signed_header=here.verifier.covers_header,
    )
    return found, name, payload_hash


@pytest.mark.parametrize("which", SENDERS)
def test_what_a_sender_signed_is_taken_and_what_another_secret_signed_is_not(which: str) -> None:
    sender = SENDERS[which]
    body = sender.body.encode()
    headers = sender.sign(body, URL)
    assert judged(sender, body, headers) is None
    delivery = Delivery(headers, body, "POST", URL)
    assert endpoint(sender.provider, sender.wrong_secret).verifier.check(delivery, NOW_MS) is Reason.MISMATCH
    for secrets in ((sender.wrong_secret, sender.secret), (sender.secret, sender.wrong_secret)):
        here = endpoint(sender.provider, *secrets)
        assert here.verifier.check(delivery, NOW_MS) is None
        assert here.signing_secret(delivery, NOW_MS) == sender.secret


@pytest.mark.parametrize("which", SENDERS)
def test_a_moment_counts_to_the_edge_of_the_tolerance_and_in_its_own_unit(which: str) -> None:
    sender = SENDERS[which]
    body = sender.body.encode()
    headers = sender.sign(body, URL)
    for way in (1, -1):
        edge = way * (sender.stale_after_ms or 10**11)
        assert judged(sender, body, headers, ms=NOW_MS + edge) is None
        if sender.stale_after_ms:
            assert judged(sender, body, headers, ms=NOW_MS + edge + way) is Reason.TIMESTAMP


@pytest.mark.parametrize("which", SENDERS)
def test_a_redelivery_repeats_the_identity_and_another_event_does_not(which: str) -> None:
    sender = SENDERS[which]
    headers = sender.sign(sender.body.encode(), URL)
    first, name, payload_hash = identity(sender.provider, sender.secret, sender.body, headers)
    assert name == sender.name
    assert first.is_lasting
    again = sender.again or sender.body
    headers = sender.sign(again.encode(), URL)
    assert identity(sender.provider, sender.secret, again, headers) == (first, name, payload_hash)
    headers = sender.sign(sender.other.encode(), URL)
    assert identity(sender.provider, sender.secret, sender.other, headers)[0] != first


COVERS_NO_BODY = {"gitlab", "postmark", "okta"}


@pytest.mark.parametrize("which", sorted(set(SENDERS) - COVERS_NO_BODY))
@settings(max_examples=40)
@given(body=st.binary(max_size=200), data=st.data())
def test_any_bytes_can_be_signed_and_any_one_bit_of_damage_shows(which: str, body: bytes, data: st.DataObject) -> None:
    sender = SENDERS[which]
    if which == "mandrill":
        pairs = data.draw(st.lists(st.tuples(st.text(min_size=1, max_size=5), st.text(max_size=9)), max_size=4))
        body = urlencode(dict(pairs)).encode()
    if which == "x":
        body = b"{" + body  # what looks like its challenge's token is no delivery: tests/unit/test_handshakes.py
    headers = sender.sign(body, URL)
    assert judged(sender, body, headers) is None
    if body and which != "mandrill":  # a form may be written in several ways
        bit = data.draw(st.integers(0, 8 * len(body) - 1))
        damaged = bytearray(body)
        damaged[bit // 8] ^= 1 << bit % 8
        assert judged(sender, bytes(damaged), headers) is Reason.MISMATCH
    assert judged(sender, body + b"&x=1" if body else b"x=1", headers) is Reason.MISMATCH
    if sender.is_bound_to_url:
        assert judged(sender, body, headers, url=URL + "1") is Reason.MISMATCH


@pytest.mark.parametrize("which", SENDERS)
@settings(max_examples=60)
@given(data=st.data())
def test_whatever_stands_in_a_header_is_a_reason_and_no_error(which: str, data: st.DataObject) -> None:
    sender = SENDERS[which]
    body = sender.body.encode()
    headers = sender.sign(body, URL)
    signature = next(name for name in headers if name in SIGNATURES)
    junk = data.draw(
        st.text()
        | st.text("0123456789abcdef=,;:v1ht +/\ud800\u0661", max_size=140)
        | st.integers(0, 150).map(lambda at: headers[signature][:at])
    )
    if junk.strip().lower() != headers[signature].strip().lower() and which != "box":
        damaged = judged(sender, body, {**headers, signature: junk})
        # Hook0's older code may be left of a newer one only where the sender itself wrote it.
        assert damaged is not None or junk.replace(" ", "").rstrip(",;=") in headers[signature].replace(" ", "")
    missing = {name: value for name, value in headers.items() if name not in SIGNATURES}
    # Without Adyen's header its signature would have to be in the body.
    nothing_signed = Reason.MALFORMED if sender.provider == "adyen" else Reason.MISSING_HEADER
    assert judged(sender, body, missing) is nothing_signed
    for name in headers:
        judged(sender, body, {**headers, name: junk})
        judged(sender, body, {name: junk})
        without = {other: value for other, value in headers.items() if other != name}
        judged(sender, body, without)


SIGNATURES = {
    "authorization", "box-signature-primary", "box-signature-secondary", "hmacsignature", "paddle-signature",
    "workos-signature", "x-gitlab-token", "x-hook0-signature", "x-hub-signature", "x-hubspot-signature",
    "x-hubspot-signature-v3", "x-hubspot-signature-version", "x-line-signature", "x-mandrill-signature",
    "x-pagerduty-signature", "x-razorpay-signature", "x-signature-ed25519", "x-square-hmacsha256-signature",
    "x-twilio-email-event-webhook-signature", "x-zendesk-webhook-signature", "x-zm-signature", "x-hub-signature-256",
    "x-twitter-webhooks-signature", "twitch-eventsub-message-signature",
}  # fmt: skip


def test_every_provider_is_either_tried_here_or_with_its_vendors_sdk() -> None:
    tried_with_sdks_or_as_generic = {
        "standard-webhooks", "svix", "openai", "stripe", "github", "shopify", "slack", "twilio", "richpanel",
        "generic-hmac", "generic-basic", "generic-apikey", "static-header",
    }  # fmt: skip
    here = {sender.provider for sender in SENDERS.values()} | {"mailgun"}
    assert here | tried_with_sdks_or_as_generic == set(PROVIDERS)


@settings(max_examples=100)
@given(form=st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=12), max_size=6))
def test_mandrill_signs_a_form_as_twilios_sdk_does(form: dict[str, str]) -> None:
    signature = RequestValidator(SECRET).compute_signature(URL, form)
    headers = {"content-type": FORM, "x-mandrill-signature": signature}
    assert judged(SENDERS["mandrill"], urlencode(form).encode(), headers) is None


# ------------------------------------------------------------------------------------------- signed inside the body


def adyen(**changes: Any) -> dict[str, Any]:
    item: dict[str, Any] = {
        "pspReference": "79", "originalReference": "78", "merchantAccountCode": "Shop", "merchantReference": "R-é:1",
        "amount": {"value": 1130, "currency": "EUR"}, "eventCode": "AUTHORISATION", "success": "true",
        "additionalData": {},
    }  # fmt: skip
    content = "79:78:Shop:R-é:1:1130:EUR:AUTHORISATION:true".encode()
    item["additionalData"]["hmacSignature"] = b64(mac(content, key=bytes.fromhex(HEX_SECRET)))
    return {"live": "false", "notificationItems": [{"NotificationRequestItem": {**item, **changes}}]}


def adyen_reason(document: object, headers: dict[str, str] | None = None) -> Reason | None:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return endpoint("adyen", HEX_SECRET).verifier.check(Delivery(headers or {}, body), NOW_MS)


def test_an_adyen_payment_is_signed_inside_its_body() -> None:
    assert adyen_reason(adyen()) is None
    found, name, _ = identity("adyen", HEX_SECRET, json.dumps(adyen()), {})
    assert (name, found.is_lasting) == ("AUTHORISATION", True)
    for change in (
        {"pspReference": "80"}, {"originalReference": ""}, {"merchantAccountCode": "Shap"}, {"merchantReference": "R"},
        {"amount": {"value": 1131, "currency": "EUR"}}, {"amount": {"value": 1130, "currency": "USD"}}, {"amount": 3},
        {"eventCode": "REFUND"}, {"success": "false"},
    ):  # fmt: skip
        assert adyen_reason(adyen(**change)) is Reason.MISMATCH, change


def test_a_copy_of_an_adyen_payment_never_passes_for_another_event() -> None:
    genuine, _, _ = identity("adyen", HEX_SECRET, json.dumps(adyen()), {})
    # Written otherwise, with whatever is not signed changed: the same event, or none at all.
    for document in (
        adyen(success=True), adyen(pspReference=79), {**adyen(), "type": "x"}, adyen(eventDate="tomorrow"),
        adyen(success=True) | {"type": "x"},
    ):  # fmt: skip
        if adyen_reason(document) is None:
            assert identity("adyen", HEX_SECRET, json.dumps(document), {})[0] == genuine
    assert adyen_reason(adyen(success=True)) is Reason.MISMATCH
    doubled = adyen()
    doubled["notificationItems"] *= 2
    assert adyen_reason(doubled) is Reason.MALFORMED


def test_a_signature_in_adyens_header_decides_alone() -> None:
    body = json.dumps(adyen()).encode()
    assert adyen_reason(adyen(), {"hmacsignature": b64(bytes(32))}) is Reason.MISMATCH
    assert adyen_reason(adyen(), {"hmacsignature": ""}) is Reason.MALFORMED
    assert adyen_reason(adyen(), {"hmacsignature": b64(mac(body, key=bytes.fromhex(HEX_SECRET)))}) is None


def mailgun(**changes: Any) -> dict[str, Any]:
    signature = {"timestamp": str(NOW), "token": "t0", "signature": mac(f"{NOW}t0".encode()).hex(), **changes}
    return {"signature": signature, "event-data": {"event": "delivered", "id": "e1"}}


def mailgun_reason(document: object, ms: int = NOW_MS) -> Reason | None:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return endpoint("mailgun", SECRET).verifier.check(Delivery({}, body), ms)


def test_mailgun_signs_a_moment_and_a_token_which_is_then_the_events_identity() -> None:
    assert mailgun_reason(mailgun()) is None
    assert mailgun_reason(mailgun(signature=mac(f"{NOW}t0".encode()).hex().upper())) is None
    assert mailgun_reason(mailgun(), NOW_MS + 300_001) is Reason.TIMESTAMP
    assert mailgun_reason(mailgun(token="t1")) is Reason.MISMATCH
    assert mailgun_reason(mailgun(timestamp=str(NOW + 1))) is Reason.MISMATCH
    # The seam between moment and token is not signed; moved, the moment is no longer now.
    assert mailgun_reason(mailgun(timestamp=str(NOW)[:-1], token=str(NOW)[-1] + "t0")) is Reason.TIMESTAMP
    first, name, _ = identity("mailgun", SECRET, json.dumps(mailgun()), {})
    assert (first.value, name) == ("t0", "delivered")
    copied = {**mailgun(), "event-data": {"event": "delivered", "id": "e2"}}
    assert mailgun_reason(copied) is None  # its body is not signed, so a copy must not be another event
    assert identity("mailgun", SECRET, json.dumps(copied), {})[0] == first


@pytest.mark.parametrize("reason", [adyen_reason, mailgun_reason])
@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["notificationItems", "NotificationRequestItem", "signature", "x"]), inner
            )
        ),
        max_leaves=12,
    )
    | st.binary()
)
def test_any_body_without_a_signature_in_it_is_malformed(
    reason: Callable[[object], Reason | None], document: object
) -> None:
    assert reason(document) is Reason.MALFORMED


@pytest.mark.parametrize("reason", [adyen_reason, mailgun_reason])
def test_a_body_made_to_exhaust_its_reader_is_malformed(reason: Callable[[object], Reason | None]) -> None:
    assert reason(b"[" * 200_000) is Reason.MALFORMED
    assert reason(b'{"signature":' + b"9" * 5000 + b"}") is Reason.MALFORMED


# --------------------------------------------------------------------------------------------------- several versions


def test_a_weaker_hubspot_signature_does_not_rescue_a_wrong_newer_one_and_a_source_may_insist_on_one() -> None:
    body = b"[]"
    both = hubspot_v3(body, URL) | hubspot_v2(body, URL)
    every, only = endpoint("hubspot", SECRET), endpoint("hubspot", SECRET, scheme={"version": "v3"})

    def check(here: Endpoint, headers: dict[str, str]) -> Reason | None:
        return here.verifier.check(Delivery(headers, body, "POST", URL), NOW_MS)

    assert check(every, both) is None
    assert check(every, {**both, "x-hubspot-signature-v3": b64(bytes(32))}) is Reason.MISMATCH
    assert check(every, hubspot_v2(body, URL)) is None
    assert check(only, hubspot_v2(body, URL)) is Reason.MISSING_HEADER
    assert check(every, {**hubspot_v2(body, URL), "x-hubspot-signature-version": "v9"}) is Reason.MISSING_HEADER
    with pytest.raises(MalformedSource, match="version"):
        endpoint("hubspot", SECRET, scheme={"version": "v4"})


def test_a_weaker_hook0_code_does_not_rescue_a_wrong_newer_one_and_a_covered_header_cannot_go_missing() -> None:
    body = b"{}"
    headers = hook0(body, URL)
    weaker = mac(b"%d." % NOW + body).hex()
    sender = SENDERS["hook0"]
    damaged = headers["x-hook0-signature"][:-64] + "0" * 64
    assert judged(sender, body, {**headers, "x-hook0-signature": f"{damaged},v0={weaker}"}) is Reason.MISMATCH
    assert judged(sender, body, {**headers, "x-event-id": "evt-2"}) is Reason.MISMATCH
    gone = {name: value for name, value in headers.items() if name != "x-event-id"}
    assert judged(sender, body, gone) is Reason.MISSING_HEADER
    for names in ("", " ", "x-event-id  x-event-type", " ".join(["x-event-id"] * 40)):
        text = f"t={NOW},h={names},v1={'0' * 64}"
        assert judged(sender, body, {**headers, "x-hook0-signature": text}) is Reason.MALFORMED
    twice = headers["x-hook0-signature"] + ",h=x-event-id"
    assert judged(sender, body, {**headers, "x-hook0-signature": twice}) is Reason.MALFORMED


def test_either_of_boxs_keys_will_do_and_an_old_delivery_is_called_old() -> None:
    sender, body = SENDERS["box"], b"{}"
    headers = box(body, URL)
    for secret in (SECRET, "the new key"):
        assert endpoint("box", secret).verifier.check(Delivery(headers, body), NOW_MS) is None
    only_second = {name: value for name, value in headers.items() if name != "box-signature-primary"}
    assert judged(sender, body, only_second) is None
    assert judged(sender, b"[]", only_second) is Reason.MISMATCH
    assert judged(sender, body, {**headers, "box-delivery-timestamp": ZULU.replace("Z", "+00:00")}) is Reason.MISMATCH
    assert judged(sender, body, {**headers, "box-delivery-timestamp": "today"}) is Reason.MALFORMED


@pytest.mark.parametrize(
    ("provider", "secret", "why"),
    [
        ("discord", "00", "Ed25519"),
        ("discord", "xyz", "Ed25519"),
        ("sendgrid", "***", "public key"),
        ("sendgrid", b64(b"no key"), "public key"),
        ("sendgrid", der(ec.derive_private_key(7, ec.SECP384R1())), "P-256"),
        ("adyen", "xyz", "hex"),
    ],
)
def test_a_key_that_is_none_makes_the_source_unusable_and_is_not_quoted(provider: str, secret: str, why: str) -> None:
    with pytest.raises(MalformedSource, match=f"secret 1: .*{why}") as caught:
        endpoint(provider, secret)
    assert secret not in str(caught.value)


@pytest.mark.parametrize("provider", ["discord", "sendgrid"])
def test_without_the_cryptography_package_a_source_with_a_public_key_says_so(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.exceptions", None)
    with pytest.raises(MalformedSource, match="cryptography"):
        endpoint(provider, SENDERS[provider].secret)


def test_a_blank_key_is_never_a_key() -> None:
    body = json.dumps(adyen()).encode()
    blank = scheme_of(PROVIDERS["adyen"], {}).verifier([" "])
    assert blank.check(Delivery({}, body), NOW_MS) is Reason.EMPTY_SECRET
    with pytest.raises(MalformedSource, match="white space"):
        endpoint("adyen", " ")


# -------------------------------------------------------------------------------------------------------- handshakes


def sent(provider: str, secrets: list[str], headers: dict[str, str], body: bytes) -> tuple[Gate, dict[str, Any]]:
    gate = Gate()
    gate.parameters.put(
        "s", tenant="acme", flow="support", provider=provider, secrets=[{"secret": secret} for secret in secrets]
    )
    return gate, gate.send("s", {"Content-Type": "application/json", **headers}, body)


@pytest.mark.parametrize("secrets", [[SECRET], ["another", SECRET], [SECRET, "another"]])
def test_zoom_is_answered_its_token_hashed_with_the_secret_that_asked(secrets: list[str]) -> None:
    body = b'{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZ"},"event_ts":1}'
    gate, answer = sent("zoom", secrets, SENDERS["zoom"].sign(body, URL), body)
    said = {"plainToken": "qgg8vlvZ", "encryptedToken": mac(b"qgg8vlvZ").hex()}
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, said)
    assert gate.outbox.messages == []
    forged = {**SENDERS["zoom"].sign(body, URL), "x-zm-signature": "v0=" + "0" * 64}
    gate, answer = sent("zoom", secrets, forged, body)
    assert answer["statusCode"] == 401
    assert "encryptedToken" not in answer["body"]


@pytest.mark.parametrize(
    ("provider", "ping", "answers"), [("discord", 1, (200, {"type": 1})), ("discord-events", 0, (204, None))]
)
def test_discords_ping_is_answered_only_when_it_is_signed(
    provider: str, ping: int, answers: tuple[int, object]
) -> None:
    body = json.dumps({"type": ping}).encode()
    headers = SENDERS[provider].sign(body, URL)
    gate, answer = sent(provider, [ED25519_PUBLIC], headers, body)
    assert (answer["statusCode"], json.loads(answer["body"] or "null")) == answers
    assert gate.outbox.messages == []
    _, answer = sent(provider, [ED25519_PUBLIC], {**headers, "x-signature-ed25519": "0" * 128}, body)
    assert answer["statusCode"] == 401


ACCEPTED = {"discord": (202, ""), "discord-events": (204, ""), "adyen in a header": (200, "[accepted]")}


@pytest.mark.parametrize("which", [name for name in SENDERS if name not in ("square", "mandrill")])
def test_every_sender_gets_its_event_stored_and_hears_what_it_expects(which: str) -> None:
    sender = SENDERS[which]
    body = sender.body.encode()
    url = "https://hooks.example.com/webhooks/s"
    gate = Gate()
    secrets = [{"secret": sender.secret}]
    gate.parameters.put("s", tenant="t", flow="f", provider=sender.provider, secrets=secrets, public_url=url)
    answer = gate.send("s", {"Content-Type": "application/json", **sender.sign(body, url)}, body)
    assert 200 <= answer["statusCode"] < 300
    if which in ACCEPTED:
        assert (answer["statusCode"], answer["body"]) == ACCEPTED[which]
    [event] = gate.outbox.events
    assert (event.event_name, event.body) == (sender.name, body)
