"""Webhooks as providers send them: realistic payloads, signed with the vendors' own SDKs where there is one.

For the demo, the command line and the tests; nothing in `functions` reads this. Where a vendor ships no signer the
documented recipe is used, and Stripe's is checked with Stripe's own verifier before it leaves:

- Standard Webhooks https://www.standardwebhooks.com, Svix https://docs.svix.com/receiving/verifying-payloads/how-manual
- Stripe https://docs.stripe.com/webhooks#verify-manually
- GitHub https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
- Shopify https://shopify.dev/docs/apps/build/webhooks/subscribe/https
- Slack https://docs.slack.dev/authentication/verifying-requests-from-slack
- Twilio https://www.twilio.com/docs/usage/webhooks/webhooks-security
- Richpanel sends an HTTP target: a body and headers that its operator writes, and no signature.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
TOKEN_HEADER = "x-richpanel-token"  # noqa: S105  # a header's name; the operator writes it into Richpanel's HTTP target
API_KEY_HEADER = "x-api-key"
HMAC_HEADER = "x-signature"
_NAMESPACE = uuid.UUID("6f1f3d1c-5d0f-5a65-9a53-6a1f2f3e4d5c")


class UnknownProvider(Exception):
    """There is no sender of that name."""


class Unsignable(Exception):
    """The body or the secret is not what this provider signs, or its own verifier refused the result."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A request's headers (lower-case names, the content type among them) and the bytes that were signed."""

    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class SampleEvent:
    """One provider's payload that carries a customer's message.

    `conversation`, `text` and `author` are what the pointers in `SAMPLE_POINTERS` lead to, so that an expectation can
    be stated.
    """

    provider: str
    event_name: str
    message_id: str
    body: bytes
    content_type: str
    conversation: str
    text: str
    author: str


@dataclass(frozen=True, slots=True)
class SamplePointers:
    """Where a sample payload keeps what a source's entry names: `identity` and `fields` as in that entry."""

    identity: Mapping[str, Any]
    fields: Mapping[str, str]


SAMPLE_POINTERS: dict[str, SamplePointers] = {
    "richpanel": SamplePointers(
        {"pointers": ["/message_id"]},
        {"conversation": "/ticket_id", "text": "/message", "author": "/author/id", "subject": "/subject"},
    ),
    "standard-webhooks": SamplePointers(
        {"header": "webhook-id"},
        {"conversation": "/data/ticket_id", "text": "/data/text", "author": "/data/author", "subject": "/data/subject"},
    ),
    "svix": SamplePointers(
        {"header": "svix-id"},
        {"conversation": "/data/ticket_id", "text": "/data/text", "author": "/data/author", "subject": "/data/subject"},
    ),
    "stripe": SamplePointers(
        {"pointers": ["/id"]},
        {
            "conversation": "/data/object/metadata/ticket_id",
            "text": "/data/object/metadata/message",
            "author": "/data/object/evidence/customer_email_address",
            "subject": "/data/object/reason",
        },
    ),
    "github": SamplePointers(
        {"header": "x-github-delivery"},
        {
            "conversation": "/issue/number",
            "text": "/issue/body",
            "author": "/issue/user/login",
            "subject": "/issue/title",
        },
    ),
    "shopify": SamplePointers(
        {"header": "x-shopify-webhook-id"},
        {"conversation": "/id", "text": "/note", "author": "/email", "subject": "/name"},
    ),
    "slack": SamplePointers(
        {"pointers": ["/event_id"]},
        {"conversation": "/event/thread_ts", "text": "/event/text", "author": "/event/user"},
    ),
    "twilio": SamplePointers(
        {"pointers": ["/MessageSid", "/SmsStatus"]}, {"conversation": "/From", "text": "/Body", "author": "/From"}
    ),
    "generic-hmac": SamplePointers(
        {"pointers": ["/id"]},
        {"conversation": "/ticket/id", "text": "/ticket/text", "author": "/author", "subject": "/ticket/subject"},
    ),
    "generic-apikey": SamplePointers(
        {"pointers": ["/id"]},
        {"conversation": "/ticket/id", "text": "/ticket/text", "author": "/author", "subject": "/ticket/subject"},
    ),
    "generic-basic": SamplePointers(
        {"pointers": ["/id"]},
        {"conversation": "/ticket/id", "text": "/ticket/text", "author": "/author", "subject": "/ticket/subject"},
    ),
}
PROVIDERS: tuple[str, ...] = tuple(SAMPLE_POINTERS)


def make_secret(provider: str, seed: str) -> str:
    """A secret in the provider's own form. The same seed gives the same secret: for local stacks and tests only."""
    _known(provider)
    raw = hashlib.sha256(f"{provider}/{seed}".encode()).digest()
    match provider:
        case "standard-webhooks" | "svix":
            return "whsec_" + base64.b64encode(raw[:24]).decode()
        case "stripe":
            return "whsec_" + raw.hex()[:32]
        case "generic-basic":
            return f"sender:{raw.hex()[:24]}"
        case _:
            return raw.hex()[:40]


def sign(
    provider: str, secret: str, body: bytes, *, url: str, now: int, message_id: str, event_name: str = ""
) -> Signed:
    """The request that the provider would send with this body.

    `url` is the address it was told (Twilio signs it), `now` epoch seconds, `message_id` the id of the delivery where
    the provider sends one in a header. Raises `UnknownProvider`, or `Unsignable`.
    """
    signer = _SIGNERS.get(provider)
    if signer is None:
        raise UnknownProvider(provider)
    return Signed(signer(_Order(provider, secret, body, url, now, message_id, event_name)), body)


def ticket_event(
    provider: str,
    ticket_id: str,
    text: str,
    author: str,
    message_id: str,
    *,
    now: int,
    subject: str = "A question",
) -> SampleEvent:
    """A customer's message as this provider would tell of it. Same arguments, same bytes. Raises `UnknownProvider`."""
    builder = _BUILDERS.get(provider)
    if builder is None:
        raise UnknownProvider(provider)
    return builder(_Message(provider, ticket_id, text, author, message_id, now, subject))


def source_entry(
    provider: str, secrets: list[str], *, tenant: str, flow: str = "support", public_url: str = ""
) -> dict[str, Any]:
    """A source's entry in the parameter store for the sample payloads of this provider."""
    pointers = _known(provider)
    entry: dict[str, Any] = {
        "tenant": tenant,
        "provider": provider,
        "flow": flow,
        "secrets": [{"secret": secret} for secret in secrets],
        "fields": dict(pointers.fields),
    }
    if provider == "richpanel" or provider.startswith("generic-"):  # the others' identity is known to us
        entry["identity"] = dict(pointers.identity)
    if provider in _SCHEME_OPTIONS:
        entry["scheme"] = dict(_SCHEME_OPTIONS[provider])
    if public_url:
        entry["public_url"] = public_url
    return entry


_SCHEME_OPTIONS: dict[str, Mapping[str, str]] = {"generic-hmac": {"header": HMAC_HEADER}}


def _known(provider: str) -> SamplePointers:
    pointers = SAMPLE_POINTERS.get(provider)
    if pointers is None:
        raise UnknownProvider(provider)
    return pointers


# --- signatures -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Order:
    provider: str
    secret: str
    body: bytes
    url: str
    now: int
    message_id: str
    event_name: str

    @property
    def text(self) -> str:
        try:
            return self.body.decode()
        except UnicodeDecodeError as exc:
            raise Unsignable(f"{self.provider}'s SDK signs UTF-8 text only") from exc


def _digest(secret: str, content: bytes) -> bytes:
    return hmac.new(secret.encode(), content, hashlib.sha256).digest()


def _standard_webhooks(order: _Order) -> dict[str, str]:
    from standardwebhooks.webhooks import Webhook  # noqa: PLC0415  # an SDK is loaded when it is asked to sign

    return _svix_style(order, Webhook, "webhook")


def _svix(order: _Order) -> dict[str, str]:
    from svix.webhooks import Webhook  # noqa: PLC0415  # an SDK is loaded when it is asked to sign

    return _svix_style(order, Webhook, "svix")


def _svix_style(order: _Order, webhook: Any, prefix: str) -> dict[str, str]:
    signature = webhook(order.secret).sign(order.message_id, datetime.fromtimestamp(order.now, UTC), order.text)
    return {
        "content-type": JSON,
        f"{prefix}-id": order.message_id,
        f"{prefix}-timestamp": str(order.now),
        f"{prefix}-signature": str(signature),
    }


def _stripe(order: _Order) -> dict[str, str]:
    import stripe  # noqa: PLC0415  # an SDK is loaded when it is asked to sign

    signature = _digest(order.secret, f"{order.now}.".encode() + order.body).hex()
    header = f"t={order.now},v1={signature}"
    try:
        stripe.WebhookSignature.verify_header(order.text, header, order.secret)
    except stripe.SignatureVerificationError as exc:
        raise Unsignable("Stripe's own verifier refuses it") from exc
    return {"content-type": JSON, "stripe-signature": header}


def _github(order: _Order) -> dict[str, str]:
    return {
        "content-type": JSON,
        "user-agent": "GitHub-Hookshot/044aadd",
        "x-github-event": (order.event_name or "issues.opened").partition(".")[0],
        "x-github-delivery": str(uuid.uuid5(_NAMESPACE, order.message_id)),
        "x-hub-signature-256": "sha256=" + _digest(order.secret, order.body).hex(),
    }


def _shopify(order: _Order) -> dict[str, str]:
    delivery = str(uuid.uuid5(_NAMESPACE, order.message_id))
    return {
        "content-type": JSON,
        "x-shopify-topic": order.event_name or "orders/updated",
        "x-shopify-shop-domain": "example.myshopify.com",
        "x-shopify-api-version": "2025-04",
        "x-shopify-webhook-id": delivery,
        "x-shopify-event-id": delivery,
        "x-shopify-triggered-at": _iso(order.now),
        "x-shopify-hmac-sha256": base64.b64encode(_digest(order.secret, order.body)).decode(),
    }


def _slack(order: _Order) -> dict[str, str]:
    from slack_sdk.signature import SignatureVerifier  # noqa: PLC0415  # an SDK is loaded when it is asked to sign

    signature = SignatureVerifier(order.secret).generate_signature(timestamp=str(order.now), body=order.body)
    if signature is None:
        raise Unsignable("Slack's SDK signs nothing without a body")
    return {"content-type": JSON, "x-slack-request-timestamp": str(order.now), "x-slack-signature": signature}


def _twilio(order: _Order) -> dict[str, str]:
    from twilio.request_validator import (  # type: ignore[import-untyped]  # noqa: PLC0415  # untyped; loaded when asked to sign
        RequestValidator,
    )

    fields: dict[str, list[str]] = {}
    for name, value in parse_qsl(order.text, keep_blank_values=True, strict_parsing=bool(order.body)):
        fields.setdefault(name, []).append(value)
    params = {name: values[0] if len(values) == 1 else values for name, values in fields.items()}
    return {
        "content-type": FORM,
        "i-twilio-idempotency-token": str(uuid.uuid5(_NAMESPACE, order.message_id)),
        "x-twilio-signature": str(RequestValidator(order.secret).compute_signature(order.url, params)),
    }


def _generic_hmac(order: _Order) -> dict[str, str]:
    return {"content-type": JSON, HMAC_HEADER: _digest(order.secret, order.body).hex()}


def _static_header(name: str) -> Callable[[_Order], dict[str, str]]:
    return lambda order: {"content-type": JSON, name: order.secret}


def _basic(order: _Order) -> dict[str, str]:
    if ":" not in order.secret:
        raise Unsignable("the secret of Basic authentication is user:password")
    return {"content-type": JSON, "authorization": "Basic " + base64.b64encode(order.secret.encode()).decode()}


_SIGNERS: dict[str, Callable[[_Order], dict[str, str]]] = {
    "richpanel": _static_header(TOKEN_HEADER),
    "standard-webhooks": _standard_webhooks,
    "svix": _svix,
    "stripe": _stripe,
    "github": _github,
    "shopify": _shopify,
    "slack": _slack,
    "twilio": _twilio,
    "generic-hmac": _generic_hmac,
    "generic-apikey": _static_header(API_KEY_HEADER),
    "generic-basic": _basic,
}


# --- payloads ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Message:
    provider: str
    ticket_id: str
    text: str
    author: str
    message_id: str
    now: int
    subject: str

    def sample(
        self, event_name: str, payload: Mapping[str, Any], conversation: str = "", author: str = ""
    ) -> SampleEvent:
        return SampleEvent(
            provider=self.provider,
            event_name=event_name,
            message_id=self.message_id,
            body=json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode(),
            content_type=JSON,
            conversation=conversation or self.ticket_id,
            text=self.text,
            author=author or self.author,
        )


def _iso(now: int) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat().replace("+00:00", "Z")


def _number(text: str, low: int, width: int) -> int:
    """A whole number in `[low, low + width)`, always the same for a text."""
    return low + int(hashlib.sha256(text.encode()).hexdigest()[:15], 16) % width


def _token(text: str, length: int) -> str:
    """Upper-case letters and digits, always the same for a text."""
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:length]


def _richpanel_event(message: _Message) -> SampleEvent:
    payload = {
        "event": "ticket.message_created",
        "ticket_id": message.ticket_id,
        "ticket_url": f"https://app.richpanel.com/conversations?id={message.ticket_id}",
        "message_id": message.message_id,
        "subject": message.subject,
        "message": message.text,
        "channel": "email",
        "author": {"id": message.author, "is_operator": False},
        "created_at": _iso(message.now),
    }
    return message.sample("ticket.message_created", payload)


def _standard_event(message: _Message) -> SampleEvent:
    data = {
        "ticket_id": message.ticket_id,
        "message_id": message.message_id,
        "subject": message.subject,
        "text": message.text,
        "author": message.author,
    }
    return message.sample(
        "ticket.message.created", {"type": "ticket.message.created", "timestamp": _iso(message.now), "data": data}
    )


def _stripe_event(message: _Message) -> SampleEvent:
    text = message.text[:500]  # what a metadata value may hold
    dispute = {
        "id": f"du_{_token(message.ticket_id, 24)}",
        "object": "dispute",
        "amount": 4900,
        "balance_transactions": [],
        "charge": f"ch_{_token(message.ticket_id + '/charge', 24)}",
        "created": message.now,
        "currency": "usd",
        "evidence": {"customer_email_address": message.author, "customer_name": None},
        "is_charge_refundable": False,
        "livemode": False,
        "metadata": {"ticket_id": message.ticket_id, "message": text},
        "reason": "general",
        "status": "needs_response",
    }
    payload = {
        "id": f"evt_{_token(message.message_id, 24)}",
        "object": "event",
        "api_version": "2025-03-31.basil",
        "created": message.now,
        "data": {"object": dispute},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": "charge.dispute.created",
    }
    return replace(message.sample("charge.dispute.created", payload), text=text)


def _github_event(message: _Message) -> SampleEvent:
    number = _number(message.ticket_id, 1, 900_000_000)
    login = message.author.partition("@")[0]
    user = {"login": login, "id": _number(message.author, 1, 90_000_000), "type": "User", "site_admin": False}
    payload = {
        "action": "opened",
        "issue": {
            "id": _number(message.ticket_id + "/id", 1_000_000_000, 1_000_000_000),
            "number": number,
            "title": message.subject,
            "user": user,
            "labels": [],
            "state": "open",
            "comments": 0,
            "created_at": _iso(message.now),
            "updated_at": _iso(message.now),
            "author_association": "NONE",
            "body": message.text,
        },
        "repository": {"id": 1296269, "name": "shop", "full_name": "example/shop", "private": True},
        "sender": user,
    }
    return message.sample("issues.opened", payload, str(number), login)


def _shopify_event(message: _Message) -> SampleEvent:
    number = _number(message.ticket_id, 1_000_000_000_000, 8_000_000_000_000)
    payload = {
        "id": number,
        "admin_graphql_api_id": f"gid://shopify/Order/{number}",
        "created_at": _iso(message.now),
        "currency": "USD",
        "email": message.author,
        "financial_status": "paid",
        "fulfillment_status": None,
        "name": f"#{number % 100_000}",
        "note": message.text,
        "order_number": number % 100_000,
        "tags": "",
        "total_price": "49.00",
        "updated_at": _iso(message.now),
        "line_items": [{"id": number + 1, "quantity": 1, "price": "49.00", "title": "Wool blanket"}],
    }
    return message.sample("orders/updated", payload, str(number))


def _slack_event(message: _Message) -> SampleEvent:
    started, part = _number(message.ticket_id, 1_600_000_000, 100_000_000), _number(message.ticket_id + "/s", 0, 10**6)
    thread = f"{started}.{part:06d}"
    user = f"U{_token(message.author, 10)}"
    payload = {
        "token": "unused",
        "team_id": "T0001EXAMPLE",
        "api_app_id": "A0001EXAMPLE",
        "event": {
            "type": "message",
            "channel": "C0SUPPORT01",
            "channel_type": "channel",
            "user": user,
            "text": message.text,
            "ts": f"{message.now}.{_number(message.message_id, 0, 10**6):06d}",
            "thread_ts": thread,
        },
        "type": "event_callback",
        "event_id": f"Ev{_token(message.message_id, 10)}",
        "event_time": message.now,
        "authorizations": [],
    }
    return message.sample("message", payload, thread, user)


def _twilio_event(message: _Message) -> SampleEvent:
    number = f"+1555{_number(message.ticket_id, 0, 10**7):07d}"
    sid = f"SM{hashlib.md5(message.message_id.encode(), usedforsecurity=False).hexdigest()}"
    form = [
        ("ToCountry", "US"),
        ("SmsMessageSid", sid),
        ("NumMedia", "0"),
        ("SmsStatus", "received"),
        ("Body", message.text),
        ("FromCountry", "US"),
        ("To", "+15550000001"),
        ("NumSegments", str(len(message.text) // 153 + 1)),
        ("MessageSid", sid),
        ("AccountSid", "AC00000000000000000000000000000000"),
        ("From", number),
        ("ApiVersion", "2010-04-01"),
    ]
    return SampleEvent(
        provider=message.provider,
        event_name="received",
        message_id=message.message_id,
        body=urlencode(form).encode(),
        content_type=FORM,
        conversation=number,
        text=message.text,
        author=number,
    )


def _generic_event(message: _Message) -> SampleEvent:
    payload = {
        "event": "ticket.created",
        "id": message.message_id,
        "ticket": {"id": message.ticket_id, "subject": message.subject, "text": message.text},
        "author": message.author,
        "created_at": _iso(message.now),
    }
    return message.sample("ticket.created", payload)


_BUILDERS: dict[str, Callable[[_Message], SampleEvent]] = {
    "richpanel": _richpanel_event,
    "standard-webhooks": _standard_event,
    "svix": _standard_event,
    "stripe": _stripe_event,
    "github": _github_event,
    "shopify": _shopify_event,
    "slack": _slack_event,
    "twilio": _twilio_event,
    "generic-hmac": _generic_event,
    "generic-apikey": _generic_event,
    "generic-basic": _generic_event,
}
