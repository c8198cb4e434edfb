"""The vendors' own SDKs as judges: whatever arrives, our verdict is theirs, or `DIFFERENCES` says why it is not.

Every example that Hypothesis draws is a seed and a kind of body; of each, `cases_of` makes some fifty deliveries:
honest ones, ones that another secret signed, ones too old, and ones with a single bit turned over somewhere. The SDKs'
clocks stand at `NOW`, as ours does.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import importlib
import importlib.metadata
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from functools import cache, lru_cache
from itertools import islice
from random import Random
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.ingress.document import Unreadable, document_of
from functions.signatures.providers import PROVIDERS, Endpoint, endpoint_of
from functions.signatures.scheme import Delivery

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

NOW = 1_760_000_000
NOW_MS = NOW * 1000
FORM = "application/x-www-form-urlencoded"
URLS = (
    "https://hooks.example.com/webhooks/x",
    "https://hooks.example.com/webhooks/x?a=1&b=%2Fc",
    "http://example.org/",
    "https://hooks.example.com:8443/webhooks/x?q",
)
LETTERS = "abcXYZ019 _-.,:;/\\\"'{}[]%&=+\t\n\x00éßΩжあ漢\u200f\u2028😀🧵"
WORD = "ABCdef0123456789"


@cache
def sdk(module: str) -> Any:
    """A vendor's module, loaded by name when it is first asked: the type checker need not read thousands of files."""
    return importlib.import_module(module)


class StoppedDatetime(datetime):
    """It is always `NOW`."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> StoppedDatetime:
        return cls.fromtimestamp(NOW, tz)


@pytest.fixture(autouse=True, scope="module")
def _stopped_clocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("standardwebhooks.webhooks.datetime", StoppedDatetime)
        patch.setattr("stripe._webhook.time", SimpleNamespace(time=lambda: NOW))
        patch.setattr("box_sdk_gen.managers.webhooks.get_epoch_time_in_seconds", lambda: NOW)
        patch.setattr("twilio.request_validator.logger.disabled", True)  # it tells of every unknown algorithm
        yield


# ----------------------------------------------------------------------------------------------------------- the judges


@dataclass(frozen=True)
class Key:
    """`pasted` is what an operator gives us and the SDK; `signs_with` what the sender has: that, or a private key."""

    pasted: str
    signs_with: Any


Sign = Callable[[Sequence[Key], bytes, str, str], Delivery]  # keys, body, moment, address


@dataclass(frozen=True)
class Judge:
    """A vendor's SDK. `accepts` may raise whatever it likes: that is a refusal.

    `headers` are those a delivery depends on, the first of them the signature's. `moment`: how the time is written, ''
    where none is sent; `is_bound`: whether it is more than signed content.
    """

    provider: str
    package: str
    sign: Sign
    accepts: Callable[[str, Delivery], bool]
    key: Callable[[Random], Key]
    headers: tuple[str, ...]
    shapes: tuple[str, ...] = ("text", "json", "empty")
    moment: str = ""
    is_bound: bool = True
    is_hex: bool = False
    signs_url: bool = False
    signs_twice: bool = False


def text_key(rng: Random) -> Key:
    text = "k" + "".join(rng.choices(WORD + "é漢$/+=:", k=rng.choice((16, 20, 40, 90)))) + "k"
    return Key(text, text)


def standard_key(rng: Random) -> Key:
    text = rng.choice(("whsec_", "")) + base64.b64encode(rng.randbytes(rng.choice((24, 32, 64)))).decode()
    return Key(text, text)


def hex_key(rng: Random) -> Key:
    text = rng.randbytes(32).hex()
    text = rng.choice((text, text.upper()))
    return Key(text, text)


def ed25519_key(rng: Random) -> Key:
    private = Ed25519PrivateKey.from_private_bytes(rng.randbytes(32))
    return Key(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex(), private)


def p256_key(rng: Random) -> Key:
    private = ec.derive_private_key(rng.getrandbits(250) + 1, ec.SECP256R1())
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Key(base64.b64encode(public).decode(), private)


def mac(key: Key, content: bytes) -> bytes:
    return hmac.digest(key.signs_with.encode(), content, "sha256")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def number(text: str) -> float:
    """The moment as the SDKs read it; any for text that they do not read, and so do not verify."""
    try:
        return float(text)
    except ValueError:
        return NOW


def standard(module: str, prefix: str) -> tuple[Sign, Callable[[str, Delivery], bool]]:
    def sign(keys: Sequence[Key], body: bytes, moment: str, url: str) -> Delivery:
        id_ = "msg_" + hashlib.sha256(body).hexdigest()[:20]
        at = datetime.fromtimestamp(number(moment), UTC)
        codes = [sdk(module).Webhook(key.signs_with).sign(id_, at, body.decode()) for key in keys]
        headers = {f"{prefix}-id": id_, f"{prefix}-timestamp": moment, f"{prefix}-signature": " ".join(codes)}
        return Delivery(headers, body, "POST", url)

    def accepts(secret: str, delivery: Delivery) -> bool:
        more = {"json_parse": False} if module == "standardwebhooks" else {}
        sdk(module).Webhook(secret).verify(delivery.body, dict(delivery.headers), **more)
        return True

    return sign, accepts


def stripe_sign(keys: Sequence[Key], body: bytes, moment: str, url: str) -> Delivery:
    content = b"%d." % number(moment) + body  # its SDK signs the number that it has read, not what is written
    codes = [f"v1={mac(key, content).hex()}" for key in keys]
    return Delivery({"stripe-signature": ",".join([f"t={moment}", *codes])}, body, "POST", url)


def stripe_accepts(secret: str, delivery: Delivery) -> bool:
    header = delivery.headers["stripe-signature"]
    return bool(sdk("stripe").WebhookSignature.verify_header(delivery.body.decode(), header, secret, tolerance=300))


def slack_sign(keys: Sequence[Key], body: bytes, moment: str, url: str) -> Delivery:
    code = (
        sdk("slack_sdk.signature").SignatureVerifier(keys[0].signs_with).generate_signature(timestamp=moment, body=body)
    )
    return Delivery({"x-slack-request-timestamp": moment, "x-slack-signature": code}, body, "POST", url)


def slack_accepts(secret: str, delivery: Delivery) -> bool:
    verifier = sdk("slack_sdk.signature").SignatureVerifier(secret, SimpleNamespace(now=lambda: NOW))
    return bool(verifier.is_valid_request(delivery.body, dict(delivery.headers)))


class Fields(dict[str, str]):
    """A form as frameworks hand it to Twilio's SDK: it asks `getall` for every value of a name."""

    def __init__(self, body: bytes) -> None:
        self.pairs = parse_qsl(body.decode(), keep_blank_values=True)
        super().__init__(self.pairs)

    def getall(self, name: str) -> list[str]:
        return [value for key, value in self.pairs if key == name]


def twilio(content_type: str, settings_header: str = "") -> tuple[Sign, Callable[[str, Delivery], bool]]:
    def algorithm(headers: dict[str, str]) -> str:
        named = sdk("twilio.request_validator").get_signature_algorithm
        return str(named(headers.get("x-twilio-webhooks-signature-settings")))

    def sign(keys: Sequence[Key], body: bytes, moment: str, url: str) -> Delivery:
        headers = {"content-type": content_type}
        if settings_header:
            headers["x-twilio-webhooks-signature-settings"] = settings_header
        is_form = content_type == FORM
        if not is_form:
            url = f"{url}{'&' if '?' in url else '?'}bodySHA256={hashlib.sha256(body).hexdigest()}"
        validator = sdk("twilio.request_validator").RequestValidator(keys[0].signs_with)
        signed_url = url.replace(":8443", "") if len(body) % 2 else url  # now with its port, now without
        code = validator.compute_signature(signed_url, Fields(body) if is_form else {}, algorithm(headers))
        return Delivery({**headers, "x-twilio-signature": code}, body, "POST", url)

    def accepts(secret: str, delivery: Delivery) -> bool:
        said = Fields(delivery.body) if content_type == FORM else delivery.body.decode()
        validator = sdk("twilio.request_validator").RequestValidator(secret)
        code = delivery.headers["x-twilio-signature"]
        return bool(validator.validate(delivery.url, said, code, algorithm(dict(delivery.headers))))

    return sign, accepts


ADYEN_SIGNED = ("pspReference", "originalReference", "merchantAccountCode", "merchantReference", "eventCode", "success")


def adyen_document(body: bytes) -> dict[str, Any]:
    """A notification whose texts are taken from the body drawn: its SDK signs and reads no other shape."""
    rng = Random(body)
    item: dict[str, Any] = {name: "".join(rng.choices(WORD, k=8)) for name in ADYEN_SIGNED}
    item["merchantReference"] = body.decode()
    item["amount"] = {"value": rng.randint(0, 10**6), "currency": "EUR"}
    if rng.random() < 0.3:
        del item["originalReference"]
    return {"live": "false", "notificationItems": [{"NotificationRequestItem": item}]}


def adyen_item_sign(keys: Sequence[Key], body: bytes, moment: str, url: str) -> Delivery:
    document = adyen_document(body)
    item = document["notificationItems"][0]["NotificationRequestItem"]
    if "\x00" in item["merchantReference"]:
        item["pspReference"] = "7:9"  # a colon where Adyen has none
    code = sdk("Adyen.util").generate_notification_sig(item, keys[0].signs_with).decode()
    item["additionalData"] = {"hmacSignature": code}
    return Delivery({}, json.dumps(document, ensure_ascii=len(body) % 2 == 0).encode(), "POST", url)


def adyen_item_accepts(secret: str, delivery: Delivery) -> bool:
    return bool(sdk("Adyen.util").is_valid_hmac_notification(json.loads(delivery.body), secret))


def adyen_header_sign(keys: Sequence[Key], body: bytes, moment: str, url: str) -> Delivery:
    code = sdk("Adyen.util").generate_payload_sig(body, keys[0].signs_with).decode()
    return Delivery({"hmacsignature": code}, body, "POST", url)


def adyen_header_accepts(secret: str, delivery: Delivery) -> bool:
    return bool(sdk("Adyen.util").is_valid_hmac_payload(delivery.headers["hmacsignature"], secret, delivery.body))


def box_sign(keys: Sequence[Key], body: bytes, moment: str, url: str) -> Delivery:
    headers = {
        "box-delivery-timestamp": moment,
        "box-signature-version": "1",
        "box-signature-algorithm": "HmacSHA256",
    }
    code = sdk("box_sdk_gen.internal.utils").compute_webhook_signature
    for name, key in zip(("primary", "secondary"), keys, strict=False):
        headers[f"box-signature-{name}"] = code(body.decode(), headers, key.signs_with)
    return Delivery(headers, body, "POST", url)


def box_accepts(secret: str, delivery: Delivery) -> bool:
    """The secret may be either of an application's two."""
    validate = sdk("box_sdk_gen.managers.webhooks").WebhooksManager.validate_message
    text, headers = delivery.body.decode(), dict(delivery.headers)
    return bool(
        validate(text, headers, secret, max_age=300)
        or validate(text, headers, "\x00", secondary_key=secret, max_age=300)
    )


def discord_sign(keys: Sequence[Key], body: bytes, moment: str, url: str) -> Delivery:
    code = keys[0].signs_with.sign(moment.encode() + body).hex()
    return Delivery({"x-signature-ed25519": code, "x-signature-timestamp": moment}, body, "POST", url)


def discord_accepts(secret: str, delivery: Delivery) -> bool:
    headers = delivery.headers
    with contextlib.redirect_stdout(io.StringIO()):  # it prints why it refuses
        verify = sdk("discord_interactions").verify_key
        return bool(verify(delivery.body, headers["x-signature-ed25519"], headers["x-signature-timestamp"], secret))


def razorpay_sign(keys: Sequence[Key], body: bytes, moment: str, url: str) -> Delivery:
    return Delivery({"x-razorpay-signature": mac(keys[0], body).hex()}, body, "POST", url)


def razorpay_accepts(secret: str, delivery: Delivery) -> bool:
    utility = sdk("razorpay.utility.utility").Utility()
    return bool(
        utility.verify_webhook_signature(delivery.body.decode(), delivery.headers["x-razorpay-signature"], secret)
    )


SENDGRID = "x-twilio-email-event-webhook-"


def sendgrid_sign(keys: Sequence[Key], body: bytes, moment: str, url: str) -> Delivery:
    code = b64(keys[0].signs_with.sign(moment.encode() + body, ec.ECDSA(SHA256())))
    return Delivery({f"{SENDGRID}signature": code, f"{SENDGRID}timestamp": moment}, body, "POST", url)


def sendgrid_accepts(secret: str, delivery: Delivery) -> bool:
    verify = sdk("sendgrid.helpers.eventwebhook").EventWebhook(secret).verify_signature
    headers = delivery.headers
    return bool(verify(delivery.body.decode(), headers[f"{SENDGRID}signature"], headers[f"{SENDGRID}timestamp"]))


def square_sign(keys: Sequence[Key], body: bytes, moment: str, url: str) -> Delivery:
    code = b64(mac(keys[0], url.encode() + body))
    return Delivery({"x-square-hmacsha256-signature": code}, body, "POST", url)


def square_accepts(secret: str, delivery: Delivery) -> bool:
    return bool(
        sdk("square.utils.webhooks_helper").verify_signature(
            request_body=delivery.body.decode(),
            signature_header=delivery.headers["x-square-hmacsha256-signature"],
            signature_key=secret,
            notification_url=delivery.url,
        )
    )


SETTINGS = "x-twilio-webhooks-signature-settings"
JUDGES = {
    "standard-webhooks": Judge(
        "standard-webhooks", "standardwebhooks", *standard("standardwebhooks", "webhook"), standard_key,
        ("webhook-signature", "webhook-timestamp", "webhook-id"), moment="s", signs_twice=True,
    ),
    "svix": Judge(
        "svix", "svix", *standard("svix", "svix"), standard_key,
        ("svix-signature", "svix-timestamp", "svix-id"), moment="s", signs_twice=True,
    ),
    "stripe": Judge(
        "stripe", "stripe", stripe_sign, stripe_accepts, text_key, ("stripe-signature",), moment="s", is_hex=True,
        signs_twice=True,
    ),
    "slack": Judge(
        "slack", "slack-sdk", slack_sign, slack_accepts, text_key,
        ("x-slack-signature", "x-slack-request-timestamp"), moment="s", is_hex=True,
    ),
    "twilio form": Judge(
        "twilio", "twilio", *twilio(FORM), text_key, ("x-twilio-signature",), ("form",), signs_url=True,
    ),
    "twilio JSON": Judge(
        "twilio", "twilio", *twilio("application/json"), text_key, ("x-twilio-signature",), signs_url=True,
    ),
    "twilio shared key": Judge(
        "twilio", "twilio", *twilio(FORM, "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"), text_key,
        ("x-twilio-signature", SETTINGS), ("form",), signs_url=True,
    ),
    "adyen payment": Judge(
        "adyen", "adyen", adyen_item_sign, adyen_item_accepts, hex_key, (), ("text", "empty"),
    ),
    "adyen platform": Judge(
        "adyen", "adyen", adyen_header_sign, adyen_header_accepts, hex_key, ("hmacsignature",),
        ("text", "json", "empty", "binary"),
    ),
    "box": Judge(
        "box", "boxsdk", box_sign, box_accepts, text_key,
        ("box-signature-primary", "box-delivery-timestamp", "box-signature-version", "box-signature-algorithm"),
        moment="rfc3339", signs_twice=True,
    ),
    "discord": Judge(
        "discord", "discord-interactions", discord_sign, discord_accepts, ed25519_key,
        ("x-signature-ed25519", "x-signature-timestamp"), ("text", "json", "empty", "binary"), moment="s", is_hex=True,
    ),
    "razorpay": Judge(
        "razorpay", "razorpay", razorpay_sign, razorpay_accepts, text_key, ("x-razorpay-signature",), is_hex=True,
    ),
    "sendgrid": Judge(
        "sendgrid", "sendgrid", sendgrid_sign, sendgrid_accepts, p256_key,
        (f"{SENDGRID}signature", f"{SENDGRID}timestamp"), moment="s", is_bound=False,
    ),
    "square": Judge(
        "square", "squareup", square_sign, square_accepts, text_key, ("x-square-hmacsha256-signature",),
        signs_url=True,
    ),
}  # fmt: skip


# -------------------------------------------------------------------------------------------------------- what arrives


@dataclass(frozen=True)
class Case:
    """`to_us` and `to_sdk` are one delivery. `is_good`: what the verdict must be, None where the SDK alone says so."""

    kind: str
    to_us: Delivery
    to_sdk: Delivery
    keys: tuple[Key, ...]
    is_good: bool | None
    damaged: bool = False


def body_of(shape: str, size: int, rng: Random) -> bytes:
    if shape == "empty":
        return b""
    if shape == "big":
        return b"Body=" + b"x" * 1_000_000
    if shape == "binary":
        return rng.randbytes(size + 1)
    text = "".join(rng.choices(LETTERS, k=size + 1))
    if shape == "text":
        return text.encode()
    if shape == "json":
        return json.dumps({"id": text[:9], "n": [size, None, {"t": text}]}, ensure_ascii=rng.random() < 0.5).encode()
    names = rng.choices(["Body", "MediaUrl", "a b", "é", "A", "漢"], k=rng.randint(0, 6))
    return urlencode([(name, "".join(rng.choices(LETTERS, k=rng.randint(0, 9)))) for name in names]).encode()


def written(judge: Judge, at: int) -> str:
    if judge.moment == "rfc3339":
        return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
    return str(at)


def in_another_writing(judge: Judge, rng: Random) -> str:
    if judge.moment == "rfc3339":
        iso = datetime.fromtimestamp(NOW, UTC).isoformat()
        return rng.choice((iso, iso.replace("T", " "), iso.replace("-", "").replace(":00", "00"), "yesterday"))
    text = str(NOW)
    return rng.choice((f"+{text}", f"0{text}", f"{text[:4]}_{text[4:]}", f"{text}.0", "1.76e9", "٣" * 10, "now", ""))


def with_header(delivery: Delivery, name: str, value: str) -> Delivery:
    return replace(delivery, headers={**delivery.headers, name: value})


def without_header(delivery: Delivery, name: str) -> Delivery:
    return replace(delivery, headers={other: value for other, value in delivery.headers.items() if other != name})


def flipped(text: str, at: int, bit: int) -> str:
    return text[:at] + chr(ord(text[at]) ^ 1 << bit) + text[at + 1 :]


def flips_of(judge: Judge, sent: Delivery, rng: Random) -> Iterator[tuple[str, Delivery]]:
    """One bit turned over: of the body, of each header it depends on, of the address."""
    for _ in range(14 if sent.body else 0):
        body = bytearray(sent.body)
        body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        yield "one bit of the body", replace(sent, body=bytes(body))
    for name in judge.headers:
        text = sent.headers[name]
        places = [(rng.randrange(len(text)), rng.randrange(7)) for _ in range(6)]
        if name == judge.headers[0]:
            places.append((len(text.rstrip("=")) - 1, 0))  # in base64 this bit may be unused
            letters = [at for at, letter in enumerate(text) if judge.is_hex and letter in "abcdef"]
            places += [(at, 5) for at in letters[-1:]]  # becomes a capital
        for at, bit in places:
            yield f"one bit of {name}", with_header(sent, name, flipped(text, at, bit))
    for at, bit in places_in_address(sent.url, rng) if judge.signs_url else ():
        yield "one bit of the address", replace(sent, url=flipped(sent.url, at, bit))


def places_in_address(url: str, rng: Random) -> list[tuple[int, int]]:
    """Anywhere, and where urllib or a rule about ports might level the difference: the scheme's name, the port."""
    places = [(rng.randrange(len(url)), rng.randrange(7)) for _ in range(6)]
    port = url.find("8443")
    return [*places, (0, 5), *([(port, 0)] if port > 0 else [])]


def spaced(text: str, rng: Random) -> str:
    return rng.choice((" ", "\t", "")) + text + rng.choice((" ", "\t ", ""))


def cases_of(judge: Judge, shape: str, size: int, rng: Random) -> Iterator[Case]:
    key, other, third = (judge.key(rng) for _ in range(3))
    body, url = body_of(shape, size, rng), rng.choice(URLS)
    moment = written(judge, NOW - rng.randrange(200))
    sent = judge.sign([key], body, moment, url)

    def case(kind: str, delivery: Delivery, is_good: bool | None, *keys: Key, damaged: bool = False) -> Case:
        return Case(kind, delivery, delivery, keys or (key,), is_good, damaged)

    if judge.provider == "square" and not body:
        yield case("no body", sent, True)
        return
    if judge.provider == "adyen" and b"7:9" in sent.body:
        yield case("a colon in a reference", sent, False)
        return
    yield case("as sent", sent, True)
    yield case("another secret", sent, False, other)
    for keys, is_known in (((other, key), True), ((key, other), True), ((other, third), False)):
        yield case("two secrets here", sent, is_known, *keys)
    for kind, delivery in flips_of(judge, sent, rng):
        yield case(kind, delivery, False, damaged=True)
    if judge.headers:
        theirs = judge.sign([key], body + b"1", moment, url).headers
        yield case("the signature of another body", replace(sent, headers=theirs), False)
    if judge.signs_twice:
        twice = judge.sign([other, key], body, moment, url)
        for keys_, is_known in (((key,), True), ((other,), True), ((third,), False)):
            yield case("two signatures", twice, is_known, *keys_)
    # HTTP does not count white space around a value to it; a server hands on what is between (RFC 9110, 5.5).
    for name in judge.headers[:2]:
        yield Case("white space around", with_header(sent, name, spaced(sent.headers[name], rng)), sent, (key,), True)
    for kind, delivery in odd_headers_of(judge, sent, rng):
        yield case(kind, delivery, None if SETTINGS in kind or "white space" in kind else False)
    for kind, text, is_good in moments_of(judge, rng):
        yield case(kind, judge.sign([key], body, text, url), is_good)
    if judge.provider == "box":
        escaped = sdk("box_sdk_gen.internal.utils").escape_unicode(body.decode()).encode()
        theirs = judge.sign([key], escaped, moment, url).headers
        yield case("signed as escaped JSON", replace(sent, headers=theirs), None)


def odd_headers_of(judge: Judge, sent: Delivery, rng: Random) -> Iterator[tuple[str, Delivery]]:
    for name in judge.headers:
        value = sent.headers[name]
        for cut in (rng.randrange(len(value)), value.find("=") + 1):
            if 0 < cut < len(value):
                gap = rng.choice((" ", "  ", "\t"))
                yield f"white space within {name}", with_header(sent, name, value[:cut] + gap + value[cut:])
        yield f"without {name}", without_header(sent, name)
        yield f"empty {name}", with_header(sent, name, "")
    for name in judge.headers[:1]:
        value = sent.headers[name]
        yield "a signature cut short", with_header(sent, name, value[:-1])
        yield "a signature drawn out", with_header(sent, name, value + value[-1])
        if judge.is_hex:
            start = value.rfind("=") + 1
            yield "a signature in capitals", with_header(sent, name, value[:start] + value[start:].upper())


def moments_of(judge: Judge, rng: Random) -> Iterator[tuple[str, str, bool | None]]:
    """The moment is the first second outside of the tolerance, the last within it, far off, or oddly written."""
    if not judge.moment:
        return
    for seconds in (-86400, -301, -300, -299, 0, 1, 299, 300, 301, 86400):
        when = "too early" if seconds > 300 else "too late" if seconds < -300 else "ahead" if seconds > 0 else "behind"
        yield f"a moment {when}", written(judge, NOW + seconds), not judge.is_bound or abs(seconds) <= 300
    for _ in range(4):
        yield "a moment in another writing", in_another_writing(judge, rng), None


# ----------------------------------------------------------------------------------------------------- where we differ


@dataclass(frozen=True)
class Difference:
    """`ours` is our verdict, and the SDK's is the other one."""

    ours: bool
    why: str


def refused(why: str) -> Difference:
    return Difference(ours=False, why=why)


BASE64 = refused(
    "its SDK passes over unused bits, excess padding and strange letters; base64 has one writing (RFC 4648)"
)
HEX = refused("its SDK reads capitals, small letters and white space alike; the sender writes small letters only")
WRITING = refused("its SDK takes whatever Python reads as a number; the sender writes whole seconds")
AHEAD = refused("its SDK refuses only what is old; a moment ahead would let a copy be used for longer")
UNREAD = refused("its SDK does not compare the moment with a clock, so that a copy could be used for ever")
ADDRESS = refused("its SDK normalizes the address before it signs; here it is taken letter by letter")

# (judge, kind of delivery) -> how our verdict differs and why: all of them, and no others.
DIFFERENCES: dict[tuple[str, str], Difference] = {
    **{
        (name, kind): BASE64
        for name, header in (
            ("standard-webhooks", "webhook-signature"),
            ("svix", "svix-signature"),
            ("sendgrid", f"{SENDGRID}signature"),
        )
        for kind in (f"one bit of {header}", f"white space within {header}", "a signature drawn out")
    },
    ("standard-webhooks", "a moment in another writing"): WRITING,
    ("svix", "a moment in another writing"): WRITING,
    ("stripe", "a moment in another writing"): WRITING,
    ("stripe", "white space within stripe-signature"): WRITING,
    ("stripe", "a moment too early"): AHEAD,
    ("slack", "a moment in another writing"): WRITING,
    ("twilio form", "one bit of the address"): ADDRESS,
    ("twilio JSON", "one bit of the address"): ADDRESS,
    ("twilio shared key", "one bit of the address"): ADDRESS,
    ("adyen payment", "a colon in a reference"): refused(
        "its SDK joins the references with colons without looking; only the merchant's own may hold one, or a copy "
        "could move the seam between two of them"
    ),
    ("box", "signed as escaped JSON"): refused(
        "its SDK also tries the body as a framework's JSON would be escaped; here the bytes are those that came, and "
        "one signature fits one body"
    ),
    ("box", "a moment ahead"): Difference(
        ours=True, why="its SDK refuses even a second ahead; clocks differ, and 300 s are tolerated both ways here"
    ),
    ("discord", "a moment in another writing"): UNREAD,
    ("discord", "a moment too early"): UNREAD,
    ("discord", "a moment too late"): UNREAD,
    ("discord", "a signature in capitals"): HEX,
    ("discord", "one bit of x-signature-ed25519"): HEX,
    ("discord", "white space within x-signature-ed25519"): HEX,
    ("sendgrid", "a moment in another writing"): refused("its SDK signs an empty moment too; here there must be one"),
    ("square", "no body"): Difference(
        ours=True, why="its SDK refuses a request without a body; its signature holds, and the door says 400: no JSON"
    ),
}


def form_of(delivery: Delivery) -> object:
    return set(Fields(delivery.body).pairs)


def without_port(delivery: Delivery) -> object:
    parts = urlsplit(delivery.url)
    return delivery.url.replace(parts.netloc, str(parts.hostname), 1)


def algorithm_of(delivery: Delivery) -> object:
    return sdk("twilio.request_validator").get_signature_algorithm(delivery.headers[SETTINGS]).upper()


def adyen_signed(delivery: Delivery) -> object:
    item = json.loads(delivery.body)["notificationItems"][0]["NotificationRequestItem"]
    amount, code = item["amount"], item["additionalData"]["hmacSignature"]
    return [*(item.get(name, "") for name in ADYEN_SIGNED), amount["value"], amount["currency"], code]


# What no signature covers, so that turning a bit of it over is noticed neither by the SDK nor here: what there is of a
# delivery beside that.
UNSIGNED: dict[tuple[str, str], Callable[[Delivery], object]] = {
    # The case of a percent escape: Twilio signs names and values, decoded.
    ("twilio form", "one bit of the body"): form_of,
    ("twilio shared key", "one bit of the body"): form_of,
    # Twilio may sign the address without its port, whichever that is.
    ("twilio form", "one bit of the address"): without_port,
    ("twilio JSON", "one bit of the address"): without_port,
    ("twilio shared key", "one bit of the address"): without_port,
    # The key's name, in the header that says how the request was signed.
    ("twilio shared key", f"one bit of {SETTINGS}"): algorithm_of,
    # Adyen signs eight members of a notification's item and nothing else of the document.
    ("adyen payment", "one bit of the body"): adyen_signed,
}


@dataclass
class Tally:
    cases: int = 0
    damaged: int = 0
    differences: Counter[tuple[str, str]] = field(default_factory=Counter)
    unsigned: Counter[tuple[str, str]] = field(default_factory=Counter)


@lru_cache(maxsize=8)  # the cases of one example share their keys
def source_of(provider: str, *secrets: str) -> Endpoint:
    listed = [{"secret": secret} for secret in secrets]
    return endpoint_of("source", json.dumps({"tenant": "t", "flow": "f", "provider": provider, "secrets": listed}))


def judged_by_us(judge: Judge, case: Case) -> bool:
    source = source_of(judge.provider, *(key.pasted for key in case.keys))
    return source.verifier.check(case.to_us, NOW_MS) is None


def judged_by_the_sdk(judge: Judge, case: Case) -> bool:
    for key in case.keys:
        try:
            if judge.accepts(key.pasted, case.to_sdk):
                return True
        except Exception:  # noqa: BLE001, S112  # each SDK has its own ways to say no
            continue
    return False


def compare(name: str, cases: Iterable[Case], tally: Tally) -> None:
    judge = JUDGES[name]
    sent: Delivery | None = None
    for case in cases:
        sent = sent or case.to_us
        ours, theirs = judged_by_us(judge, case), judged_by_the_sdk(judge, case)
        where = (name, case.kind)
        tally.cases += 1
        tally.damaged += case.damaged
        if ours is not theirs:
            assert where in DIFFERENCES, f"{where}: ours {ours}, the SDK's {theirs}: {case.to_us}"
            assert DIFFERENCES[where].ours == ours, f"{where}: ours {ours}: {case.to_us}"
            tally.differences[where] += 1
        if case.damaged and ours:
            assert where in UNSIGNED, f"{where}: damage was not noticed: {case.to_us}"
            read = UNSIGNED[where]
            assert read(case.to_us) == read(sent), f"{where}: damage was not noticed: {case.to_us}"
            tally.unsigned[where] += 1
        elif case.is_good is not None:
            assert ours == case.is_good, f"{where}: ours {ours}: {case.to_us}"


@pytest.mark.parametrize("name", JUDGES)
def test_our_verdict_is_that_of_the_vendors_sdk_and_no_damage_of_one_bit_gets_through(
    name: str, proved: Callable[[str], None]
) -> None:
    tally = Tally()
    judge = JUDGES[name]

    @settings(max_examples=25)
    @given(seed=st.integers(0, 2**64 - 1), shape=st.sampled_from(judge.shapes), size=st.integers(0, 300))
    def judged_alike(seed: int, shape: str, size: int) -> None:
        compare(name, cases_of(judge, shape, size, Random(seed)), tally)

    # What Hypothesis draws may change with any line of code; these are the same always, and need every row.
    for seed in range(30):
        compare(name, cases_of(judge, judge.shapes[seed % len(judge.shapes)], 9 * seed, Random(seed)), tally)
    # A row that nothing needs any more is removed.
    assert set(tally.differences) == {where for where in DIFFERENCES if where[0] == name}
    assert set(tally.unsigned) == {where for where in UNSIGNED if where[0] == name}
    judged_alike()
    compare(name, islice(cases_of(judge, "big", 0, Random(name)), 12), tally)
    version = importlib.metadata.version(judge.package)
    proved(
        f"signatures, {name}: {tally.cases} deliveries, {tally.damaged} of them with a bit turned over, judged as "
        f"{judge.package} {version} does, but for {sum(tally.differences.values())} of listed kinds"
    )
    assert tally.cases >= 500


def test_a_request_without_a_body_from_square_ends_at_the_door() -> None:
    sent = square_sign([text_key(Random(0))], b"", "", URLS[0])
    with pytest.raises(Unreadable):
        document_of(sent, PROVIDERS["square"].content)
