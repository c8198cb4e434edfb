"""Signatures: the vendors' own vectors and SDKs say what is valid."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import standardwebhooks
import stripe
import svix
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from slack_sdk.signature import SignatureVerifier
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]  # the SDK ships no types

from functions.core.source import MalformedSource
from functions.signatures.providers import PROVIDERS, Endpoint, endpoint_of, scheme_of
from functions.signatures.scheme import Delivery, Reason, UnusableSecret, Verifier, form_pairs
from ops.verify import UNSUPPORTED_PROVIDER, verify, verify_lines

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "signatures.json"
SVIX_SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
NOW = int(time.time())
NOW_MS = NOW * 1000
URL = "https://hooks.example.com/webhooks/x"


class At:
    def __init__(self, ms: int) -> None:
        self.ms = ms

    def now_ms(self) -> int:
        return self.ms


def endpoint(provider: str, *secrets: str, **more: Any) -> Endpoint:
    entry = {"tenant": "t", "flow": "f", "provider": provider, "secrets": [{"secret": s} for s in secrets], **more}
    return endpoint_of("source", json.dumps(entry))


def verifier(provider: str, *secrets: str, **more: Any) -> Verifier:
    return endpoint(provider, *secrets, **more).verifier


def test_all_vectors_are_judged_as_their_vendors_do(proved: Callable[[str], None]) -> None:
    if not VECTORS.exists():
        pytest.skip("the vectors are not here")
    vectors = json.loads(VECTORS.read_text())
    verdicts = {vector["id"]: verify(vector, At(NOW_MS)) for vector in vectors}
    wrong = [vector["id"] for vector in vectors if verdicts[vector["id"]].verdict != vector["expect"]]
    proved(f"signature vectors: {len(verdicts) - len(wrong)}/{len(vectors)} right")
    assert wrong == []
    assert len(verdicts) == 128
    # Refused for what they are, not because we could not read the record.
    assert {verdict.reason for verdict in verdicts.values()} <= {"", *Reason}


# ------------------------------------------------------------------ the vendors' SDKs as judges, on any body


def standard(library: Any, prefix: str) -> Callable[[str, str], tuple[dict[str, str], str]]:
    def sign(secret: str, body: str) -> tuple[dict[str, str], str]:
        signature = library.Webhook(secret).sign("msg_1", datetime.fromtimestamp(NOW, UTC), body)
        return {f"{prefix}-id": "msg_1", f"{prefix}-timestamp": str(NOW), f"{prefix}-signature": signature}, URL

    return sign


def stripe_sign(secret: str, body: str) -> tuple[dict[str, str], str]:
    code = stripe.WebhookSignature._compute_signature(f"{NOW}.{body}", secret)
    return {"stripe-signature": f"t={NOW},v1={code}"}, URL


def slack_sign(secret: str, body: str) -> tuple[dict[str, str], str]:
    signature = SignatureVerifier(secret).generate_signature(timestamp=str(NOW), body=body)
    assert signature is not None
    return {"x-slack-request-timestamp": str(NOW), "x-slack-signature": signature}, URL


def recipe(header: str, write: Callable[[bytes], str]) -> Callable[[str, str], tuple[dict[str, str], str]]:
    def sign(secret: str, body: str) -> tuple[dict[str, str], str]:
        return {header: write(hmac.digest(secret.encode(), body.encode(), "sha256"))}, URL

    return sign


def recipe_accepts(header: str, write: Callable[[bytes], str]) -> Callable[[str, dict[str, str], str, str], bool]:
    def accepts(secret: str, headers: dict[str, str], body: str, url: str) -> bool:
        return headers[header] == recipe(header, write)(secret, body)[0][header]

    return accepts


def twilio_json_sign(secret: str, body: str) -> tuple[dict[str, str], str]:
    url = f"{URL}?bodySHA256={hashlib.sha256(body.encode()).hexdigest()}"
    signature = RequestValidator(secret).compute_signature(url, {})
    return {"content-type": "application/json", "x-twilio-signature": signature}, url


def twilio_json_accepts(secret: str, headers: dict[str, str], body: str, url: str) -> bool:
    return bool(RequestValidator(secret).validate(url, body, headers["x-twilio-signature"]))


def github_writes(digest: bytes) -> str:
    return f"sha256={digest.hex()}"


def shopify_writes(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


# What a vendor's SDK makes of a delivery, for those that look at no clock; the others are asked in
# `test_signatures_sdks.py`, where it stands still.
VENDORS: dict[str, tuple[str, str, Any, Any]] = {
    "standard-webhooks": ("standard-webhooks", SVIX_SECRET, standard(standardwebhooks, "webhook"), None),
    "svix": ("svix", SVIX_SECRET, standard(svix, "svix"), None),
    "stripe": ("stripe", "whsec_x", stripe_sign, None),
    "slack": ("slack", "8f742231b10e8888abcd99yyyzzz85a5", slack_sign, None),
    "github": (
        "github", "s3", recipe("x-hub-signature-256", github_writes),
        recipe_accepts("x-hub-signature-256", github_writes),
    ),
    "shopify": (
        "shopify", "s3", recipe("x-shopify-hmac-sha256", shopify_writes),
        recipe_accepts("x-shopify-hmac-sha256", shopify_writes),
    ),
    "twilio-json": ("twilio", "12345", twilio_json_sign, twilio_json_accepts),
}  # fmt: skip


@pytest.mark.parametrize("vendor", [name for name, (*_, accepts) in VENDORS.items() if accepts])
@settings(max_examples=60)
@given(body=st.text() | st.just("") | st.dictionaries(st.text(), st.integers()).map(json.dumps), data=st.data())
def test_we_and_the_vendors_sdk_agree_on_any_body_and_on_any_one_bit_of_damage(
    vendor: str, body: str, data: st.DataObject
) -> None:
    provider, secret, sign, accepts = VENDORS[vendor]
    ours = verifier(provider, secret)
    headers, url = sign(secret, body)
    assert ours.check(Delivery(headers, body.encode(), "POST", url), NOW_MS) is None
    assert accepts(secret, headers, body, url)

    raw = body.encode()
    if raw:
        bit = data.draw(st.integers(0, 8 * len(raw) - 1))
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        assert ours.check(Delivery(headers, bytes(damaged), "POST", url), NOW_MS) is not None
        try:
            text = damaged.decode()
        except UnicodeDecodeError:
            text = ""  # the SDKs take texts only
        assert not text or not accepts(secret, headers, text, url)

    name = data.draw(st.sampled_from([header for header in sorted(headers) if header != "content-type"]))
    at = data.draw(st.integers(0, len(headers[name]) - 1))
    letter = chr(ord(headers[name][at]) ^ 1 << data.draw(st.integers(0, 6)))
    damaged_headers = {**headers, name: headers[name][:at] + letter + headers[name][at + 1 :]}
    agrees_with = accepts(secret, damaged_headers, body, url)
    verdict = ours.check(Delivery(damaged_headers, raw, "POST", url), NOW_MS)
    assert verdict is not None
    if agrees_with:
        # The SDKs read some odd writings that no sender produces: `test_signatures_sdks.py` lists them.
        assert verdict in (Reason.MALFORMED, Reason.UNKNOWN_VERSION, Reason.MISMATCH)


@settings(max_examples=100)
@given(
    pairs=st.lists(st.tuples(st.text(min_size=1, max_size=8), st.text(max_size=12)), max_size=6),
    query=st.sampled_from(["", "?a=1", "?a=1&b=%20"]),
    port=st.sampled_from(["", ":443", ":8443"]),
)
def test_we_and_twilios_sdk_agree_on_any_form(pairs: list[tuple[str, str]], query: str, port: str) -> None:
    class Form(dict[str, str]):
        def getall(self, name: str) -> list[str]:
            return [value for key, value in pairs if key == name]

    url = f"https://hooks.example.com{port}/webhooks/x{query}"
    form = Form(pairs)
    signature = RequestValidator("12345").compute_signature(url, form)
    headers = {"content-type": "application/x-www-form-urlencoded; charset=UTF-8", "x-twilio-signature": signature}
    ours = verifier("twilio", "12345")
    assert RequestValidator("12345").validate(url, form, signature)
    assert ours.check(Delivery(headers, urlencode(pairs).encode(), "POST", url), NOW_MS) is None
    more = urlencode([*pairs, ("Extra", "1")]).encode()
    assert ours.check(Delivery(headers, more, "POST", url), NOW_MS) is Reason.MISMATCH


# ------------------------------------------------------------------------------------------- what no SDK tests


def test_a_signed_twilio_json_cannot_be_passed_off_as_a_form_or_have_its_body_swapped() -> None:
    headers, url = twilio_json_sign("12345", '{"a": 1}')
    ours = verifier("twilio", "12345")
    form = {**headers, "content-type": "application/x-www-form-urlencoded"}
    assert ours.check(Delivery(form, b"", "POST", url), NOW_MS) is Reason.BODY_HASH_MISMATCH
    assert ours.check(Delivery(form, b"junk", "POST", url), NOW_MS) is Reason.BODY_HASH_MISMATCH
    assert ours.check(Delivery(headers, b"{}", "POST", url), NOW_MS) is Reason.BODY_HASH_MISMATCH
    bare = RequestValidator("12345").compute_signature(URL, {})
    unbound = {"content-type": "application/json", "x-twilio-signature": bare}
    assert ours.check(Delivery(unbound, b"{}", "POST", URL), NOW_MS) is Reason.MALFORMED
    as_form = {"content-type": "application/x-www-form-urlencoded", "x-twilio-signature": bare}
    assert ours.check(Delivery(as_form, b"junk", "POST", URL), NOW_MS) is Reason.MALFORMED


@pytest.mark.parametrize("url", ["", "https://[", "//", "https://host:port/x", "\ud800"])
def test_an_odd_address_is_no_error(url: str) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded", "x-twilio-signature": "A" * 27 + "="}
    assert verifier("twilio", "12345").check(Delivery(headers, b"a=b", "POST", url), NOW_MS) is not None


@pytest.mark.parametrize("seconds", [-300, 300])
def test_the_edge_of_the_tolerance_is_inside_it(seconds: int) -> None:
    headers, url = stripe_sign("s", "{}")
    ours = verifier("stripe", "s")
    assert ours.check(Delivery(headers, b"{}", "POST", url), NOW_MS + seconds * 1000) is None
    beyond = seconds * 1000 + (1 if seconds > 0 else -1)
    assert ours.check(Delivery(headers, b"{}", "POST", url), NOW_MS + beyond) is Reason.TIMESTAMP


@pytest.mark.parametrize("vendor", VENDORS)
def test_any_of_the_active_secrets_verifies(vendor: str) -> None:
    provider, secret, sign, _ = VENDORS[vendor]
    other = "whsec_" + base64.b64encode(b"another-secret-of-24-chr").decode()
    headers, url = sign(secret, "{}")
    delivery = Delivery(headers, b"{}", "POST", url)
    assert verifier(provider, other, secret).check(delivery, NOW_MS) is None
    assert verifier(provider, secret, other).check(delivery, NOW_MS) is None
    assert verifier(provider, other).check(delivery, NOW_MS) is Reason.MISMATCH


def test_a_standard_webhook_may_be_signed_with_a_private_key() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
    code = base64.b64encode(key.sign(f"msg_1.{NOW}.{{}}".encode())).decode()
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(NOW), "webhook-signature": f"v1a,{code}"}
    ours = verifier("standard-webhooks", f"whpk_{public}")
    assert ours.check(Delivery(headers, b"{}"), NOW_MS) is None
    assert ours.check(Delivery(headers, b"[]"), NOW_MS) is Reason.MISMATCH
    assert ours.check(Delivery({**headers, "webhook-signature": "v1a,***"}, b"{}"), NOW_MS) is Reason.MISMATCH
    # Without any keyed secret a keyed digest proves nothing.
    hollow = base64.b64encode(hmac.digest(b"", f"msg_1.{NOW}.{{}}".encode(), "sha256")).decode()
    assert ours.check(Delivery({**headers, "webhook-signature": f"v1,{hollow}"}, b"{}"), NOW_MS) is Reason.MISMATCH


def test_more_signatures_than_anybody_sends_are_not_tried() -> None:
    headers, _ = stripe_sign("s", "{}")
    flood = headers["stripe-signature"] + (",v1=" + "0" * 64) * 40
    assert verifier("stripe", "s").check(Delivery({"stripe-signature": flood}, b"{}"), NOW_MS) is Reason.MALFORMED


def test_a_generic_digest_may_be_written_in_capitals_but_not_in_both_cases() -> None:
    code = hmac.new(b"s3", b"{}", "sha256").hexdigest()
    ours = verifier("generic-hmac", "s3", scheme={"header": "x-sig"})
    assert ours.check(Delivery({"x-sig": code.upper()}, b"{}"), NOW_MS) is None
    assert ours.check(Delivery({"x-sig": code[:32] + code[32:].upper()}, b"{}"), NOW_MS) is Reason.MALFORMED
    github = Delivery({"x-hub-signature-256": f"sha256={code.upper()}"}, b"{}")
    assert verifier("github", "s3").check(github, NOW_MS) is Reason.MISMATCH


def test_a_signature_header_is_read_whole_or_not_at_all() -> None:
    headers, _ = stripe_sign("s", "{}")
    for spoilt in (",", ",junk", ",junk,"):
        damaged = {"stripe-signature": headers["stripe-signature"] + spoilt}
        assert verifier("stripe", "s").check(Delivery(damaged, b"{}"), NOW_MS) is Reason.MALFORMED


GENERIC = [
    ({"header": "X-Sig"}, "{body}", "sha256", bytes.hex, ""),
    ({"header": "x-sig", "algorithm": "sha512", "encoding": "base64"}, "{body}", "sha512", None, ""),
    ({"header": "x-sig", "algorithm": "sha1", "prefix": "sha1="}, "{body}", "sha1", bytes.hex, "sha1="),
    ({"header": "x-sig", "prefix": "sig:"}, "{body}", "sha256", bytes.hex, "sig:"),
    (
        {"header": "x-sig", "timestamp_header": "x-ts", "id_header": "x-id", "content": "v0:{id}:{timestamp}:{body}"},
        "v0:{id}:{timestamp}:{body}", "sha256", bytes.hex, "",
    ),
    ({"header": "x-sig", "timestamp_header": "x-ts"}, "{timestamp}.{body}", "sha256", bytes.hex, ""),
]  # fmt: skip


@pytest.mark.parametrize(("options", "content", "algorithm", "write", "prefix"), GENERIC)
def test_a_generic_digest_is_what_its_options_say(
    options: dict[str, str], content: str, algorithm: str, write: Callable[[bytes], str] | None, prefix: str
) -> None:
    signed = content.replace("{id}", "i1").replace("{timestamp}", str(NOW)).encode().replace(b"{body}", b"\x00\xff")
    digest = hmac.digest(b"s3", signed, algorithm)
    code = write(digest) if write else base64.b64encode(digest).decode()
    ours = verifier("generic-hmac", "s3", scheme=options)
    headers = {"x-sig": prefix + code, "x-ts": str(NOW), "x-id": "i1"}
    assert ours.check(Delivery(headers, b"\x00\xff"), NOW_MS) is None
    assert ours.check(Delivery(headers, b"\x00\xfe"), NOW_MS) is Reason.MISMATCH
    assert ours.check(Delivery({**headers, "x-sig": code[:-2]}, b"\x00\xff"), NOW_MS) is not None
    if prefix:
        assert ours.check(Delivery({**headers, "x-sig": code}, b"\x00\xff"), NOW_MS) is Reason.MALFORMED
    if "timestamp_header" in options:
        assert ours.check(Delivery(headers, b"\x00\xff"), NOW_MS + 301_000) is Reason.TIMESTAMP
        assert ours.covers_header("x-ts")
    assert ours.covers_header("x-id") == ("id_header" in options)


@pytest.mark.parametrize(
    ("unit", "text", "is_taken"),
    [
        ("s", str(NOW), True),
        ("s", f"{NOW}.5", False),
        ("s", "٣" * 10, False),
        ("s", "9" * 400, False),
        ("ms", str(NOW_MS), True),
        ("ms", str(NOW), False),
        ("rfc3339", datetime.fromtimestamp(NOW, UTC).isoformat(), True),
        ("rfc3339", datetime.fromtimestamp(NOW, UTC).isoformat().replace("+00:00", "Z"), True),
        ("rfc3339", datetime.fromtimestamp(NOW, UTC).replace(tzinfo=None).isoformat(), False),
        ("rfc3339", "yesterday", False),
    ],
    # The vendors' SDKs read the real clock, so these moments differ from process to process; their names must not.
    ids=[
        "seconds",
        "half a second",
        "digits of another script",
        "too many digits",
        "milliseconds",
        "seconds for milliseconds",
        "offset",
        "zulu",
        "no zone",
        "a word",
    ],
)
def test_a_moment_is_read_in_the_unit_declared_and_in_no_other(unit: str, text: str, is_taken: bool) -> None:
    options = {"header": "x-sig", "timestamp_header": "x-ts", "timestamp_format": unit}
    code = hmac.new(b"s3", f"{text}.{{}}".encode(), "sha256").hexdigest()
    reason = verifier("generic-hmac", "s3", scheme=options).check(
        Delivery({"x-sig": code, "x-ts": text}, b"{}"), NOW_MS
    )
    assert (reason is None) == is_taken


def test_secrets_in_hexadecimal_and_base64_are_decoded() -> None:
    code = hmac.new(b"\x00\xff", b"{}", "sha256").hexdigest()
    for encoding, secret in (("hex", "00ff"), ("base64", "AP8=")):
        ours = verifier("generic-hmac", secret, scheme={"header": "x-sig", "secret_encoding": encoding})
        assert ours.check(Delivery({"x-sig": code}, b"{}"), NOW_MS) is None
    with pytest.raises(MalformedSource, match="hex"):
        verifier("generic-hmac", "xyz", scheme={"header": "x-sig", "secret_encoding": "hex"})


@pytest.mark.parametrize(
    ("provider", "options", "header", "good"),
    [
        ("generic-apikey", {}, "x-api-key", "kéy:1"),
        ("generic-apikey", {"header": "Authorization", "prefix": "Bearer "}, "authorization", "Bearer kéy:1"),
        ("static-header", {"header": "X-Token"}, "x-token", "kéy:1"),
        ("richpanel", {}, "x-richpanel-token", "kéy:1"),
        ("generic-basic", {}, "authorization", "Basic " + base64.b64encode("kéy:1".encode()).decode()),
        ("generic-basic", {}, "authorization", "bAsIc  " + base64.b64encode("kéy:1".encode()).decode()),
    ],
)
def test_a_shared_secret_is_taken_whole_and_where_it_belongs(
    provider: str, options: dict[str, str], header: str, good: str
) -> None:
    more = {"scheme": options} if options else {}
    ours = verifier(provider, "old:0", "kéy:1", **more)

    def check(value: str) -> Reason | None:
        return ours.check(Delivery({header: value}, b"{}"), NOW_MS)

    assert check(good) is None
    assert ours.check(Delivery({}, b"{}"), NOW_MS) is Reason.MISSING_HEADER
    for bad in ("", good[:-1], good + "x", good.swapcase(), "\ud800", "Basic ***", "Basic " + "é"):
        assert check(bad) in (Reason.MISMATCH, Reason.MALFORMED)
    assert ours.covers_header("x-anything")


@given(st.binary())
def test_a_form_is_read_to_the_last_byte_or_refused(body: bytes) -> None:
    try:
        pairs = form_pairs(body)
    except ValueError:
        assert any(b"=" not in item for item in body.split(b"&"))
        return
    assert len(pairs) == (body.count(b"&") + 1 if body else 0)


def test_a_form_of_endless_fields_is_refused() -> None:
    with pytest.raises(ValueError, match="fields"):
        form_pairs(b"a=&" * 3000)


def test_an_empty_key_is_never_a_key() -> None:
    with pytest.raises(MalformedSource):
        verifier("stripe", "")
    hollow = base64.b64encode(hmac.digest(b"", b"i.1.{}", "sha256")).decode()
    headers = {"webhook-id": "i", "webhook-timestamp": "1", "webhook-signature": f"v1,{hollow}"}
    assert scheme_of(PROVIDERS["svix"], {}).verifier(["whsec_"]).check(Delivery(headers, b"{}"), 1000) is (
        Reason.EMPTY_SECRET
    )
    with pytest.raises(MalformedSource, match="decodes to nothing"):
        endpoint("svix", SVIX_SECRET, "whsec_")


def test_without_the_cryptography_package_a_public_key_is_refused_with_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.exceptions", None)
    with pytest.raises(MalformedSource, match="cryptography"):
        verifier("standard-webhooks", "whpk_AAAA")
    assert issubclass(UnusableSecret, Exception)


# ------------------------------------------------------------------------------------------------ holdfast verify


def test_verify_says_valid_or_why_not_per_line_and_survives_any_line() -> None:
    """002.5: a sender sees what is wrong with its requests."""
    headers, _ = stripe_sign("s", "{}")
    good = {"id": "g", "provider": "stripe", "secret": "s", "headers": headers, "body": "{}", "now": NOW}
    lines = [
        json.dumps(good),
        "",
        "{",
        json.dumps({**good, "body": "[]"}),
        json.dumps({**good, "provider": "nobody"}),
        json.dumps({**good, "headers": {"a": 1}}),
        json.dumps({**good, "secrets": ["x", "s"]}),
        json.dumps({**good, "provider": "svix", "secret": "***"}),
        json.dumps({**good, "provider": "generic-hmac"}),
        json.dumps({**good, "now": 1e400}),
        json.dumps({**good, "secret": None}),
        "[" * 100_000,
    ]
    verdicts = list(verify_lines(lines, At(NOW_MS)))
    assert [verdict["verdict"] for verdict in verdicts] == ["valid"] + ["invalid"] * 4 + ["valid"] + ["invalid"] * 5
    assert verdicts[0] == {"id": "g", "verdict": "valid", "reason": None}
    assert verdicts[1] == {"id": "line 3", "verdict": "invalid", "reason": "malformed_record: not JSON"}
    assert verdicts[2]["reason"] == "mismatch"
    assert verdicts[3]["reason"] == UNSUPPORTED_PROVIDER


RECORD_KEYS = ["id", "provider", "secret", "headers", "body", "now", "url", "method", "secret_type", "scheme_options"]


@given(st.dictionaries(
    st.sampled_from(RECORD_KEYS),
    st.none() | st.integers() | st.floats() | st.text() | st.dictionaries(st.text(), st.text() | st.none())
    | st.sampled_from(sorted(PROVIDERS)),
))  # fmt: skip
def test_verify_never_raises_whatever_the_record(record: dict[str, object]) -> None:
    verdict = verify(record, At(NOW_MS))
    assert (verdict.verdict == "valid") == (verdict.reason == "")
