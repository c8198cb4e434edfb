"""The providers whose webhooks we take, one row of data each.

A row says how a delivery is signed, what identifies it, what it is called and what the provider wants to hear back.
Adding a provider whose scheme is a keyed digest, a shared secret or Basic is adding a row.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from functions.core.source import HEADER_NAME, IdentityRule, MalformedSource, Secret, Source
from functions.signatures.scheme import (
    Basic,
    Delivery,
    Ed25519,
    Encoding,
    Headers,
    KeyedDigest,
    Moment,
    Reason,
    Scheme,
    SecretForm,
    SharedSecret,
    UnusableScheme,
    UnusableSecret,
    Verifier,
)
from functions.signatures.special import (
    HOOK0,
    HUBSPOT,
    HUBSPOT_VERSIONS,
    AnyOf,
    BodyDigest,
    Case,
    FirstCase,
    PublicKeySignature,
    Unsolicited,
    adyen_claim,
    ed25519_key,
    mailgun_claim,
    p256_key,
)


class Content(StrEnum):
    """What a body is. `any` is read as its Content-Type says and may be opaque."""

    JSON = "json"
    FORM = "form"
    JSON_OR_FORM = "json_or_form"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Handshake:
    """A delivery that only asks whether we are there: `pointer` leads to `value`, and we answer what is at `echo`.

    `reply` makes the answer's body from that text and the secret that signed the question; without it the answer is
    `{"challenge": text}`.
    """

    pointer: str
    value: str
    echo: str
    status: int = 200
    reply: Callable[[str, str], str] | None = None
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Challenge:
    """A GET by which a provider asks whether we are there. It never is an event.

    `header` or the parameter `query` holds the text that we answer; it has to match `shape`. `says` are parameters
    that have one value. `token` is the parameter that must hold the source's `verify_token`. With `is_signed` the
    request must prove itself as a delivery does; with neither, anybody may ask. `reply` makes the answer's body from
    the text and the newest of the source's secrets.
    """

    reply: Callable[[str, str], str]
    shape: re.Pattern[str]
    query: str = ""
    header: str = ""
    says: tuple[tuple[str, str], ...] = ()
    token: str = ""
    is_signed: bool = False
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What a provider wants to hear for an accepted event. None of its words: `{"event_id", "request_id"}`."""

    status: int = 202
    content_type: str = "application/json"
    body: str | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """One row. Identity rules are tried in order; with none, equal events within the repeat window are the same event.

    `event_name` and `event_version` are selectors (`header:{name}` or a JSON pointer): the first that finds something
    counts. `event_detail` is appended to the name. `unstable` members may differ between redeliveries of one event.
    `payload_field` is a form field that holds a whole JSON document.
    """

    name: str
    scheme: Scheme | Callable[[Mapping[str, str]], Scheme]
    identity: tuple[IdentityRule, ...] = ()
    event_name: tuple[str, ...] = ("/type", "/event_type", "/event_name", "/event")
    event_detail: str = ""
    event_version: tuple[str, ...] = ()
    content: Content = Content.JSON
    payload_field: str = ""
    unstable: tuple[str, ...] = ()
    handshake: Handshake | None = None
    challenge: Challenge | None = None
    acceptance: Acceptance = Acceptance()


def _chosen(options: Mapping[str, str], name: str, allowed: type[StrEnum], default: str) -> str:
    value = options.get(name, default)
    if value not in set(allowed):
        raise UnusableScheme(f"scheme.{name} is none of {', '.join(allowed)}")
    return value


def _header_option(options: Mapping[str, str], name: str, default: str = "") -> str:
    value = (options.get(name) or default).lower()
    if value and not HEADER_NAME.match(value):
        raise UnusableScheme(f"scheme.{name} is not a header name")
    return value


def _only(options: Mapping[str, str], *known: str) -> None:
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UnusableScheme(f"unknown option scheme.{ascii(unknown[0])[1:40]}")


class Algorithm(StrEnum):
    """The digests a generic source may use. SHA-1 is for senders that know nothing else; as an HMAC it still holds."""

    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"


def generic_hmac(options: Mapping[str, str]) -> Scheme:
    """A keyed digest as the options say. Raises `UnusableScheme`.

    `header` (required), `algorithm` sha256, `encoding` hex, `prefix` (such as `sha256=`), `secret_encoding` text,
    `timestamp_header` and `timestamp_format` (s, ms, rfc3339), `id_header`, `content` (a template; by default `{body}`,
    or `{timestamp}.{body}` with a timestamp). A moment or id outside the signed content proves nothing and is refused.
    """
    _only(
        options,
        "header",
        "algorithm",
        "encoding",
        "prefix",
        "secret_encoding",
        "timestamp_header",
        "timestamp_format",
        "id_header",
        "content",
    )
    header = _header_option(options, "header")
    if not header:
        raise UnusableScheme("scheme.header names no header to read the signature from")
    timestamp_header = _header_option(options, "timestamp_header")
    id_header = _header_option(options, "id_header")
    content = options.get("content", "{timestamp}.{body}" if timestamp_header else "{body}")
    if content.count("{body}") != 1:
        raise UnusableScheme("scheme.content does not hold {body} exactly once")
    for name, its_header in (("timestamp", timestamp_header), ("id", id_header)):
        if (f"{{{name}}}" in content) != bool(its_header):
            raise UnusableScheme(f"scheme.content and scheme.{name}_header go together")
    if "{form}" in content:
        raise UnusableScheme("scheme.content cannot hold {form}")
    borders = _borders_of_id(content)
    # A prefix is an item's version with its joiner: `sha256=` is version `sha256` behind joiner `=`.
    prefix = options.get("prefix", "")
    if len(prefix) == 1:
        raise UnusableScheme("scheme.prefix is a single character; it is a word and a joiner, such as sha256=")
    if not (prefix + content).isprintable():
        raise UnusableScheme("scheme.prefix and scheme.content are not printable text")
    return KeyedDigest(
        headers=(Headers(header, timestamp_header, id_header),),
        encoding=Encoding(_chosen(options, "encoding", Encoding, "hex")),
        content=content,
        algorithm=_chosen(options, "algorithm", Algorithm, "sha256"),
        version=prefix[:-1],
        joiner=prefix[-1:] or "=",
        moment=Moment(_chosen(options, "timestamp_format", Moment, "s")),
        secret_form=SecretForm(_chosen(options, "secret_encoding", SecretForm, "text")),
        takes_capitals=options.get("encoding", "hex") == Encoding.HEX,
        id_borders=borders,
    )


def _borders_of_id(content: str) -> tuple[str, ...]:
    """The literals on either side of `{id}` in a template. Raises `UnusableScheme` where a placeholder touches it."""
    before, found, after = content.partition("{id}")
    if not found:
        return ()
    left, right = before.rpartition("}")[2], after.partition("{")[0]
    if (before and not left) or (after and not right) or "{id}" in after:
        raise UnusableScheme("scheme.content: {id} stands once, with a literal between it and any other part")
    return tuple(border for border in (left, right) if border)


def _hubspot(options: Mapping[str, str]) -> Scheme:
    """`version` (v1, v2, v3) takes deliveries of that version only; without it the newest one that is there counts."""
    _only(options, "version")
    version = options.get("version")
    if version is None:
        return HUBSPOT
    if version not in HUBSPOT_VERSIONS:
        raise UnusableScheme(f"scheme.version is none of {', '.join(HUBSPOT_VERSIONS)}")
    return HUBSPOT_VERSIONS[version]


def _same(text: str, secret: str) -> str:  # noqa: ARG001  # the reply of those who want to hear their own words
    return text


def _okta_reply(text: str, secret: str) -> str:  # noqa: ARG001  # it hashes nothing
    return json.dumps({"verification": text})


def _x_reply(token: str, secret: str) -> str:
    code = base64.b64encode(hmac.digest(secret.encode(), token.encode(), "sha256")).decode()
    return json.dumps({"response_token": f"sha256={code}"})


def _zoom_reply(token: str, secret: str) -> str:
    encrypted = hmac.digest(secret.encode(), token.encode("utf-8", "surrogatepass"), "sha256").hex()
    return json.dumps({"plainToken": token, "encryptedToken": encrypted})


def _shared_secret(default_header: str) -> Callable[[Mapping[str, str]], Scheme]:
    def configured(options: Mapping[str, str]) -> Scheme:
        _only(options, "header", "prefix")
        return SharedSecret(_header_option(options, "header", default_header), options.get("prefix", ""))

    return configured


# https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
# https://docs.svix.com/receiving/verifying-payloads/how-manual
_STANDARD = KeyedDigest(
    headers=(
        Headers("webhook-signature", "webhook-timestamp", "webhook-id"),
        Headers("svix-signature", "svix-timestamp", "svix-id"),
    ),
    encoding=Encoding.BASE64,
    content="{id}.{timestamp}.{body}",
    version="v1",
    joiner=",",
    separator=" ",
    secret_form=SecretForm.BASE64,
    public_key=Ed25519(version="v1a", key_prefix="whpk_"),
)
_DISCORD = PublicKeySignature(
    Headers("x-signature-ed25519", "x-signature-timestamp"), Encoding.HEX, ed25519_key, moment=Moment.SECONDS
)
_TWILIO = KeyedDigest(
    headers=(Headers("x-twilio-signature"),),
    encoding=Encoding.BASE64,
    content="{url}{form}",
    algorithm="sha1",
    body_hash_query="bodySHA256",
    tries_ports=True,
)
# X's tokens are base64 of one alphabet or the other. What we sign for whoever asks has this shape; no delivery has.
_X_TOKEN = re.compile(r"[A-Za-z0-9+/=_.-]{1,256}\Z")
_CHALLENGE = re.compile(r"[A-Za-z0-9+/=_.~-]{1,256}\Z")
_ADYEN_HEADER = "hmacsignature"
_ADYEN_ITEM = "/notificationItems/0/NotificationRequestItem"


def _twilio_signs_with(algorithm: str) -> Callable[[Delivery], bool]:
    """Whether a delivery says so: a shared key's name its algorithm in a header, the account's token has SHA-1."""

    def says(delivery: Delivery) -> bool:
        settings = delivery.headers.get("x-twilio-webhooks-signature-settings", "").split(",")
        named = (
            value.strip() for name, _, value in (one.partition("=") for one in settings) if name.strip() == "algorithm"
        )
        return next(filter(None, named), "HMAC_SHA1").upper() == algorithm

    return says


def _is_box_version_1(delivery: Delivery) -> bool:
    headers = delivery.headers
    return (headers.get("box-signature-version"), headers.get("box-signature-algorithm")) == ("1", "HmacSHA256")


def _always(delivery: Delivery) -> bool:  # noqa: ARG001  # whatever it is
    return True


_STANDARD_IDENTITY = (IdentityRule(header="webhook-id"), IdentityRule(header="svix-id"))

_ROWS = (
    Provider("standard-webhooks", _STANDARD, identity=_STANDARD_IDENTITY),
    Provider("svix", _STANDARD, identity=_STANDARD_IDENTITY),
    # https://platform.openai.com/docs/guides/webhooks
    Provider("openai", _STANDARD, identity=_STANDARD_IDENTITY),
    # https://docs.stripe.com/webhooks#verify-manually
    Provider(
        "stripe",
        KeyedDigest(
            headers=(Headers("stripe-signature"),),
            encoding=Encoding.HEX,
            content="{timestamp}.{body}",
            version="v1",
            separator=",",
            timestamp_key="t",
        ),
        identity=(IdentityRule(pointers=("/id",)),),
        event_version=("/api_version",),
        unstable=("/pending_webhooks",),
    ),
    # https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
    Provider(
        "github",
        KeyedDigest(headers=(Headers("x-hub-signature-256"),), encoding=Encoding.HEX, version="sha256"),
        identity=(IdentityRule(header="x-github-delivery"),),
        event_name=("header:x-github-event",),
        event_detail="/action",
        content=Content.JSON_OR_FORM,
        payload_field="payload",
    ),
    # https://shopify.dev/docs/apps/build/webhooks/subscribe/https
    Provider(
        "shopify",
        KeyedDigest(headers=(Headers("x-shopify-hmac-sha256"),), encoding=Encoding.BASE64),
        identity=(IdentityRule(header="x-shopify-webhook-id"),),
        event_name=("header:x-shopify-topic",),
        event_version=("header:x-shopify-api-version",),
    ),
    # https://docs.slack.dev/authentication/verifying-requests-from-slack
    # Slack shows people what a slash command is answered: say nothing.
    Provider(
        "slack",
        KeyedDigest(
            headers=(Headers("x-slack-signature", "x-slack-request-timestamp"),),
            encoding=Encoding.HEX,
            content="v0:{timestamp}:{body}",
            version="v0",
        ),
        identity=(IdentityRule(pointers=("/event_id",)), IdentityRule(pointers=("/trigger_id",))),
        event_name=("/event/type", "/type", "/command"),
        content=Content.JSON_OR_FORM,
        payload_field="payload",
        handshake=Handshake("/type", "url_verification", "/challenge"),
        acceptance=Acceptance(status=200, content_type="text/plain", body=""),
    ),
    # https://www.twilio.com/docs/usage/webhooks/webhooks-security
    # https://www.twilio.com/docs/usage/webhooks/webhook-shared-keys
    # An answer that is not TwiML counts as an error there.
    # One message has several callbacks, one per status. The token's header is not signed, so it comes after what is.
    Provider(
        "twilio",
        FirstCase(
            (
                Case(_twilio_signs_with("HMAC_SHA1"), _TWILIO),
                Case(_twilio_signs_with("HMAC_SHA256"), replace(_TWILIO, algorithm="sha256")),
            ),
            otherwise=Reason.UNKNOWN_VERSION,
        ),
        identity=(
            IdentityRule(pointers=("/MessageSid", "/MessageStatus")),
            IdentityRule(pointers=("/MessageSid", "/SmsStatus")),
            IdentityRule(pointers=("/MessageSid",)),
            IdentityRule(pointers=("/CallSid", "/SequenceNumber")),
            IdentityRule(header="i-twilio-idempotency-token"),
        ),
        event_name=("/EventType", "/MessageStatus", "/SmsStatus", "/CallStatus"),
        event_version=("/ApiVersion",),
        content=Content.JSON_OR_FORM,
        acceptance=Acceptance(content_type="text/xml", body="<Response/>"),
    ),
    # https://developer.squareup.com/docs/webhooks/step3validate
    # The address is the one the subscription names: behind a proxy, declare it as the source's `public_url`.
    Provider(
        "square",
        KeyedDigest(
            headers=(Headers("x-square-hmacsha256-signature"),), encoding=Encoding.BASE64, content="{url}{body}"
        ),
        identity=(IdentityRule(pointers=("/event_id",)),),
    ),
    # https://developer.paddle.com/webhooks/signature-verification
    # A replay from the dashboard is a new notification of the same event.
    Provider(
        "paddle",
        KeyedDigest(
            headers=(Headers("paddle-signature"),),
            encoding=Encoding.HEX,
            content="{timestamp}:{body}",
            version="h1",
            separator=";",
            timestamp_key="ts",
        ),
        identity=(IdentityRule(pointers=("/event_id",)),),
        unstable=("/notification_id",),
    ),
    # https://workos.com/docs/events/data-syncing/webhooks
    Provider(
        "workos",
        KeyedDigest(
            headers=(Headers("workos-signature"),),
            encoding=Encoding.HEX,
            content="{timestamp}.{body}",
            version="v1",
            separator=",",
            timestamp_key="t",
            moment=Moment.MILLISECONDS,
            is_spaced=True,
        ),
        identity=(IdentityRule(pointers=("/id",)),),
        event_name=("/event",),
    ),
    # https://developers.line.biz/en/docs/messaging-api/verify-webhook-signature/
    # One body holds several events; a redelivery says in each of them that it is one.
    Provider(
        "line",
        KeyedDigest(headers=(Headers("x-line-signature"),), encoding=Encoding.BASE64),
        identity=(IdentityRule(pointers=("/events/0/webhookEventId",), with_body=True),),
        event_name=("/events/0/type",),
        unstable=("/events/*/deliveryContext",),
    ),
    # https://developer.pagerduty.com/docs/verifying-webhook-signatures
    Provider(
        "pagerduty",
        KeyedDigest(headers=(Headers("x-pagerduty-signature"),), encoding=Encoding.HEX, version="v1", separator=","),
        identity=(IdentityRule(pointers=("/event/id",)),),
        event_name=("/event/event_type",),
    ),
    # https://developer.box.com/guides/webhooks/v2/signatures-v2/
    # Both of an application's keys sign, so that either may be replaced.
    Provider(
        "box",
        FirstCase(
            (
                Case(
                    _is_box_version_1,
                    AnyOf(
                        tuple(
                            KeyedDigest(
                                headers=(Headers(f"box-signature-{key}", "box-delivery-timestamp"),),
                                encoding=Encoding.BASE64,
                                content="{body}{timestamp}",
                                moment=Moment.RFC3339,
                            )
                            for key in ("primary", "secondary")
                        )
                    ),
                ),
            )
        ),
        identity=(IdentityRule(pointers=("/id",)), IdentityRule(header="box-delivery-id")),
        event_name=("/trigger",),
    ),
    # https://developer.zendesk.com/documentation/webhooks/verifying/
    # The account may write the body itself, so that an `id` in it may be a ticket's.
    Provider(
        "zendesk",
        KeyedDigest(
            headers=(Headers("x-zendesk-webhook-signature", "x-zendesk-webhook-signature-timestamp"),),
            encoding=Encoding.BASE64,
            content="{timestamp}{body}",
            moment=Moment.RFC3339,
        ),
        identity=(IdentityRule(header="x-zendesk-webhook-invocation-id"),),
        event_name=("/type", "/zen:event-type", "/event_type"),
        event_version=("/zendesk_event_version",),
        content=Content.JSON_OR_FORM,
    ),
    # https://developers.intercom.com/docs/webhooks/webhook-notifications
    Provider(
        "intercom",
        KeyedDigest(headers=(Headers("x-hub-signature"),), encoding=Encoding.HEX, algorithm="sha1", version="sha1"),
        identity=(IdentityRule(pointers=("/id",)),),
        event_name=("/topic", "/type"),
        unstable=("/delivery_attempts", "/delivery_status", "/delivered_at", "/first_sent_at"),
    ),
    # https://razorpay.com/docs/webhooks/validate-test/
    Provider(
        "razorpay",
        KeyedDigest(headers=(Headers("x-razorpay-signature"),), encoding=Encoding.HEX),
        identity=(IdentityRule(header="x-razorpay-event-id"),),
        event_name=("/event",),
    ),
    # https://developers.zoom.us/docs/api/webhooks/
    # No id. The moment is in milliseconds, but two people may join within one.
    Provider(
        "zoom",
        KeyedDigest(
            headers=(Headers("x-zm-signature", "x-zm-request-timestamp"),),
            encoding=Encoding.HEX,
            content="v0:{timestamp}:{body}",
            version="v0",
        ),
        identity=(IdentityRule(pointers=("/event", "/event_ts"), with_body=True),),
        event_name=("/event",),
        handshake=Handshake("/event", "endpoint.url_validation", "/payload/plainToken", reply=_zoom_reply),
        acceptance=Acceptance(status=200),
    ),
    # https://mailchimp.com/developer/transactional/guides/track-respond-activity-webhooks/
    # `_id` is the message's, and one body holds several events.
    Provider(
        "mandrill",
        KeyedDigest(
            headers=(Headers("x-mandrill-signature"),),
            encoding=Encoding.BASE64,
            content="{url}{form}",
            algorithm="sha1",
        ),
        identity=(IdentityRule(pointers=("/0/_id",), with_body=True),),
        event_name=("/0/event", "/0/type"),
        content=Content.FORM,
        payload_field="mandrill_events",
        acceptance=Acceptance(status=200),
    ),
    # https://docs.gitlab.com/user/project/integrations/webhooks/
    # Events that set one another off share their event's UUID.
    Provider(
        "gitlab",
        SharedSecret("x-gitlab-token"),
        identity=(IdentityRule(header="idempotency-key"), IdentityRule(header="x-gitlab-event-uuid", with_body=True)),
        event_name=("/object_kind", "/event_name", "/event_type", "header:x-gitlab-event"),
        event_detail="/object_attributes/action",
    ),
    # https://postmarkapp.com/developer/webhooks/webhooks-overview
    # One message is delivered, opened and clicked, each of them more than once.
    Provider(
        "postmark",
        Basic(),
        identity=(IdentityRule(pointers=("/MessageID",), with_body=True),),
        event_name=("/RecordType",),
        acceptance=Acceptance(status=200),
    ),
    # https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features
    # A public key; the moment has no tolerance there, and ids hold off what is sent again. One body, several events.
    Provider(
        "sendgrid",
        PublicKeySignature(
            Headers("x-twilio-email-event-webhook-signature", "x-twilio-email-event-webhook-timestamp"),
            Encoding.BASE64,
            p256_key,
            moment=None,
        ),
        identity=(IdentityRule(pointers=("/0/sg_event_id",), with_body=True),),
        event_name=("/0/event",),
    ),
    # https://docs.discord.com/developers/interactions/overview#setting-up-an-endpoint
    # An interaction is answered later, by a call of ours: 202 without a body says so.
    Provider(
        "discord",
        _DISCORD,
        identity=(IdentityRule(pointers=("/id",)),),
        event_name=("/data/name", "/data/custom_id", "/type"),
        event_version=("/version",),
        handshake=Handshake("/type", "1", "", reply=lambda _text, _secret: '{"type": 1}'),
        acceptance=Acceptance(body=""),
    ),
    # https://docs.discord.com/developers/events/webhook-events
    # The same signature, but here 0 asks and 1 is an event, and the answer is 204 without a body.
    Provider(
        "discord-events",
        _DISCORD,
        identity=(IdentityRule(pointers=("/event/type", "/event/timestamp"), with_body=True),),
        event_name=("/event/type",),
        event_version=("/version",),
        handshake=Handshake("/type", "0", "", status=204, reply=lambda _text, _secret: ""),
        acceptance=Acceptance(status=204, body=""),
    ),
    # See `HUBSPOT`. A batch of events; each counts the attempts, and `eventId` alone is not unique.
    Provider(
        "hubspot",
        _hubspot,
        identity=(IdentityRule(pointers=("/0/eventId", "/0/occurredAt"), with_body=True),),
        event_name=("/0/subscriptionType", "/subscriptionType", "/eventType"),
        unstable=("/*/attemptNumber",),
    ),
    # https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures
    # Payments sign inside the body, platforms in a header; a header that is there decides alone.
    Provider(
        "adyen",
        FirstCase(
            (
                Case(
                    lambda delivery: _ADYEN_HEADER in delivery.headers,
                    KeyedDigest(
                        headers=(Headers(_ADYEN_HEADER),), encoding=Encoding.BASE64, secret_form=SecretForm.HEX
                    ),
                ),
                Case(_always, BodyDigest(adyen_claim, Encoding.BASE64, SecretForm.HEX)),
            )
        ),
        identity=(
            # Signed inside the body: nothing that is not signed may make another event of a copy.
            IdentityRule(pointers=tuple(f"{_ADYEN_ITEM}/{name}" for name in ("pspReference", "eventCode", "success"))),
            IdentityRule(pointers=("/type",), with_body=True),
        ),
        event_name=(f"{_ADYEN_ITEM}/eventCode", "/type"),
        acceptance=Acceptance(status=200, content_type="text/plain", body="[accepted]"),
    ),
    # The token is signed and used once; an event's id is not signed, and so would let a copy pass for another event.
    Provider(
        "mailgun",
        BodyDigest(mailgun_claim, Encoding.HEX, moment=Moment.SECONDS),
        identity=(IdentityRule(pointers=("/signature/token",)),),
        event_name=("/event-data/event",),
        acceptance=Acceptance(status=200),
    ),
    # Each delivery names its event; what of it the signature covers is the sender's choice.
    Provider(
        "hook0", HOOK0, identity=(IdentityRule(header="x-event-id"),), event_name=("header:x-event-type", "/event")
    ),
    # https://developers.facebook.com/docs/graph-api/webhooks/getting-started
    # WhatsApp, Messenger, Instagram, pages: one body, several entries with several messages each. A message has several
    # statuses (sent, delivered, read), all under its id; `time` is when the notification was sent.
    Provider(
        "meta",
        KeyedDigest(headers=(Headers("x-hub-signature-256"),), encoding=Encoding.HEX, version="sha256"),
        identity=(
            IdentityRule(pointers=("/entry/0/changes/0/value/messages/0/id",), with_body=True),
            IdentityRule(
                pointers=tuple(f"/entry/0/changes/0/value/statuses/0/{name}" for name in ("id", "status")),
                with_body=True,
            ),
            IdentityRule(pointers=("/entry/0/messaging/0/message/mid",), with_body=True),
            IdentityRule(pointers=("/entry/0/messaging/0/sender/id", "/entry/0/messaging/0/timestamp"), with_body=True),
        ),
        event_name=("/object",),
        event_detail="/entry/0/changes/0/field",
        unstable=("/entry/*/time",),
        challenge=Challenge(
            _same,
            _CHALLENGE,
            query="hub.challenge",
            says=(("hub.mode", "subscribe"),),
            token="hub.verify_token",  # noqa: S106  # the parameter's name
            content_type="text/plain",
        ),
        acceptance=Acceptance(status=200),
    ),
    # https://docs.x.com/x-api/webhooks/quickstart
    # Account Activity: the consumer secret signs deliveries, and also whatever a challenge asks us to.
    Provider(
        "x",
        Unsolicited(
            KeyedDigest(headers=(Headers("x-twitter-webhooks-signature"),), encoding=Encoding.BASE64, version="sha256"),
            _X_TOKEN,
        ),
        identity=(
            IdentityRule(pointers=("/direct_message_events/0/id",), with_body=True),
            IdentityRule(pointers=("/tweet_create_events/0/id_str",), with_body=True),
            IdentityRule(pointers=("/favorite_events/0/id",), with_body=True),
            IdentityRule(pointers=("/follow_events/0/created_timestamp",), with_body=True),
        ),
        event_name=("/data/event_type", "/direct_message_events/0/type", "/follow_events/0/type"),
        challenge=Challenge(_x_reply, _X_TOKEN, query="crc_token"),
        acceptance=Acceptance(status=200),
    ),
    # https://dev.twitch.tv/docs/eventsub/handling-webhook-events
    # Id and moment stand side by side in what is signed; no other border between them leaves a moment.
    Provider(
        "twitch",
        KeyedDigest(
            headers=(
                Headers(
                    "twitch-eventsub-message-signature",
                    "twitch-eventsub-message-timestamp",
                    "twitch-eventsub-message-id",
                ),
            ),
            encoding=Encoding.HEX,
            content="{id}{timestamp}{body}",
            version="sha256",
            moment=Moment.RFC3339,
        ),
        identity=(IdentityRule(header="twitch-eventsub-message-id"),),
        event_name=("/subscription/type",),
        event_version=("/subscription/version",),
        handshake=Handshake(
            "/subscription/status",
            "webhook_callback_verification_pending",
            "/challenge",
            reply=_same,
            content_type="text/plain",
        ),
    ),
    # https://developer.okta.com/docs/concepts/event-hooks/
    # The header that the hook's authentication names, Authorization by default; its challenge bears it too.
    Provider(
        "okta",
        _shared_secret("authorization"),
        identity=(IdentityRule(pointers=("/eventId",)),),
        event_name=("/data/events/0/eventType", "/eventType"),
        event_version=("/eventTypeVersion",),
        challenge=Challenge(_okta_reply, _CHALLENGE, header="x-okta-verification-challenge", is_signed=True),
        acceptance=Acceptance(status=200),
    ),
    Provider("generic-hmac", generic_hmac, content=Content.ANY),
    Provider("generic-apikey", _shared_secret("x-api-key"), content=Content.ANY),
    Provider("generic-basic", Basic(), content=Content.ANY),
    Provider("static-header", _shared_secret("x-webhook-token"), content=Content.ANY),
    # Richpanel sends an HTTP request of the account's own making, with headers the account chooses and no id.
    Provider("richpanel", _shared_secret("x-richpanel-token")),
)

PROVIDERS: Mapping[str, Provider] = {row.name: row for row in _ROWS}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A source, its provider's row and the verifier of its secrets: all that ingress needs to judge a delivery."""

    source: Source
    provider: Provider
    verifier: Verifier

    @property
    def identity(self) -> tuple[IdentityRule, ...]:
        """The source's own rules, or the provider's."""
        return self.provider.identity if self.source.identity is None else self.source.identity

    def secret_number(self, delivery: Delivery, now_ms: int) -> int:
        """Which of the source's secrets a verified delivery was made with, from 1; 1 if none of them fits alone.

        Costs nothing where there is one secret only, and at most one check for each where a rotation is on.
        """
        secrets = self.source.secrets
        if len(secrets) == 1:
            return 1
        scheme = scheme_of(self.provider, self.source.scheme)
        fits = (scheme.verifier([secret.value]).check(delivery, now_ms) is None for secret in secrets)
        return next((number for number, is_it in enumerate(fits, start=1) if is_it), 1)

    def signing_secret(self, delivery: Delivery, now_ms: int) -> str:
        """The secret that a verified delivery was made with."""
        return self.source.secrets[self.secret_number(delivery, now_ms) - 1].value

    @property
    def newest_secret(self) -> str:
        """The one created last, as far as the operator wrote that down; of those without a date the last in the list.

        A challenge that nothing signs does not say with which of two secrets its answer will be compared.
        """
        dated = [(created_at_ms(secret) or 0, number) for number, secret in enumerate(self.source.secrets)]
        return self.source.secrets[max(dated)[1]].value

    @property
    def content(self) -> Content:
        """What the source's bodies are."""
        return Content(self.source.content) if self.source.content else self.provider.content


def endpoint_of(source_id: str, json_text: str) -> Endpoint:
    """Read a source's entry and make it usable. Raises `MalformedSource`, which quotes no secret."""
    source = Source.parse(source_id, json_text)
    provider = PROVIDERS.get(source.provider)
    if provider is None:
        raise MalformedSource(f"provider {source.provider} is not known; known are {', '.join(PROVIDERS)}")
    try:
        verifier = scheme_of(provider, source.scheme).verifier([secret.value for secret in source.secrets])
    except UnusableScheme as exc:
        raise MalformedSource(str(exc)) from exc
    except UnusableSecret as exc:
        # The cause may quote what it could not decode.
        raise MalformedSource(str(exc)) from None
    if verifier.check(Delivery({}, b""), 0) is Reason.EMPTY_SECRET:
        raise MalformedSource("a secret decodes to nothing")
    if source.verify_token and not (provider.challenge and provider.challenge.token):
        raise MalformedSource(f"verify_token is none of what {provider.name} has")
    if source.claims_covered:
        for rule in source.identity or ():
            if rule.header and not verifier.covers_header(rule.header):
                raise MalformedSource(f"identity.covered is true, but {provider.name} does not sign {rule.header}")
    return Endpoint(source, provider, verifier)


def created_at_ms(secret: Secret) -> int | None:
    """When a secret was created, if its note is an ISO date; midnight UTC where it has no time."""
    try:
        moment = datetime.fromisoformat(secret.created_at)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def scheme_of(provider: Provider, options: Mapping[str, str]) -> Scheme:
    """The provider's scheme, with the options where it takes any. Raises `UnusableScheme`."""
    if callable(provider.scheme):
        return provider.scheme(options)
    if options:
        raise UnusableScheme(f"{provider.name} takes no scheme options")
    return provider.scheme
