"""What the log says of a request, so that an operator can help a sender: why, and which header; never a value."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from functions.ingress.answers import Rejection
from functions.signatures import special
from functions.signatures.providers import PROVIDERS
from functions.signatures.scheme import Delivery
from tests.ingress_fakes import NOW_MS, Gate
from tests.unit.test_senders_signatures import SENDERS, URL, endpoint

NOW = NOW_MS // 1000
COMMON: dict[str, Any] = {"tenant": "acme", "flow": "support"}
SECRET = "a-secret-of-ours"


@pytest.fixture
def gate() -> Gate:
    return Gate()


def put(gate: Gate, provider: str, *secrets: str | dict[str, str], **more: Any) -> None:
    listed = [{"secret": secret} if isinstance(secret, str) else secret for secret in secrets]
    gate.parameters.put(provider, provider=provider, secrets=listed or [{"secret": SECRET}], **COMMON, **more)


def mac(content: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), content, "sha256").hexdigest()


STANDARD = "whsec_" + base64.b64encode(b"0123456789abcdef").decode()


@pytest.mark.parametrize(
    ("provider", "secret", "headers", "missing", "malformed"),
    [
        ("github", SECRET, {}, ["x-hub-signature-256"], None),
        ("github", SECRET, {"X-Hub-Signature": "sha1=00"}, ["x-hub-signature-256"], None),
        ("github", SECRET, {"X-Hub-Signature-256": "sha1=00"}, None, ["x-hub-signature-256"]),
        ("github", SECRET, {"X-Hub-Signature-256": "leaked"}, None, ["x-hub-signature-256"]),
        ("slack", SECRET, {"X-Slack-Signature": "v0=" + "0" * 64}, ["x-slack-request-timestamp"], None),
        (
            "slack", SECRET, {"X-Slack-Signature": "v0=" + "0" * 64, "X-Slack-Request-Timestamp": "now"}, None,
            ["x-slack-request-timestamp"],
        ),
        ("stripe", SECRET, {"Stripe-Signature": "v1=" + "0" * 64}, None, ["stripe-signature"]),
        ("svix", STANDARD, {}, ["webhook-signature", "webhook-timestamp", "webhook-id"], None),
        ("svix", STANDARD, {"Svix-Id": "m", "Svix-Timestamp": "1"}, ["svix-signature"], None),
        (
            "svix", STANDARD,
            {"Svix-Id": "m", "Webhook-Id": "n", "Svix-Timestamp": str(NOW), "Svix-Signature": "v1," + "A" * 43 + "="},
            None, ["svix-id"],
        ),
        ("generic-apikey", SECRET, {}, ["x-api-key"], None),
        ("generic-basic", "user:leaked", {}, ["authorization"], None),
        ("generic-basic", "user:leaked", {"Authorization": "Bearer leaked"}, None, ["authorization"]),
        ("discord", SENDERS["discord"].secret, {"X-Signature-Ed25519": "00"}, ["x-signature-timestamp"], None),
        (
            "discord", SENDERS["discord"].secret, {"X-Signature-Ed25519": "zz", "X-Signature-Timestamp": "then"}, None,
            ["x-signature-ed25519", "x-signature-timestamp"],
        ),
        ("hubspot", SECRET, {}, ["x-hubspot-signature-v3", "x-hubspot-request-timestamp"], None),
        ("hook0", SECRET, {}, ["x-hook0-signature"], None),
        ("hook0", SECRET, {"X-Hook0-Signature": f"t={NOW},h=leaked,v1=00"}, None, ["x-hook0-signature"]),
        ("x", SECRET, {}, ["x-twitter-webhooks-signature"], None),
    ],
)  # fmt: skip
def test_a_refusal_names_the_header_that_was_looked_for_or_could_not_be_read(
    gate: Gate,
    provider: str,
    secret: str,
    headers: dict[str, str],
    missing: list[str] | None,
    malformed: list[str] | None,
) -> None:
    put(gate, provider, secret)
    body = b'{"leaked":"+15551234567"}'
    assert gate.send(provider, headers, body, query="token=leaked")["statusCode"] == 401
    line = gate.last_line
    assert (line.get("headers_missing"), line.get("header_malformed")) == (missing, malformed)
    assert (line["reason"], line["source"], line["provider"], line["status"]) == (
        "bad_signature",
        provider,
        provider,
        401,
    )
    assert line["why"] in ("missing_header", "malformed", "unknown_version")
    assert not any(word in gate.lines[-1] for word in ("leaked", "15551234567", secret))


@pytest.mark.parametrize("which", SENDERS)
def test_whatever_is_wrong_with_a_header_only_names_of_the_schemes_own_are_said(which: str) -> None:
    sender = SENDERS[which]
    body = sender.body.encode()
    headers = sender.sign(body, URL)
    more: dict[str, Any] = {"scheme": sender.options} if sender.options else {}
    verifier = endpoint(sender.provider, sender.secret, **more).verifier
    genuine = verifier.findings(Delivery(headers, body, "POST", URL))
    assert (genuine.missing, genuine.malformed) == ((), ())
    if sender.stale_after_ms:
        assert genuine.signed_at_ms is not None
        assert abs(genuine.signed_at_ms - NOW_MS) < 1000
    for name in headers:
        for damaged in ({**headers, name: "\ud800 leaked"}, {k: v for k, v in headers.items() if k != name}, {}):
            found = verifier.findings(Delivery(damaged, body, "POST", URL))
            assert set(found.missing + found.malformed) <= {*headers, *_names_of(sender.provider)}


def _names_of(provider: str) -> set[str]:
    return {
        "hook0": {"x-hook0-signature"},
        "hubspot": {"x-hubspot-signature-v3", "x-hubspot-signature", "x-hubspot-request-timestamp"},
    }.get(provider, set())


def test_an_unknown_source_is_not_named_and_nothing_of_what_it_sent_is(gate: Gate) -> None:
    gate.send("leaked-id", {"Authorization": "leaked", "X-Api-Key": "leaked"}, b"leaked", query="leaked=leaked")
    line = gate.last_line
    assert (line["reason"], line["provider"], line["status"]) == ("unknown_source", "none", 401)
    assert "source" not in line
    assert "leaked" not in gate.lines[-1]


def test_a_stale_delivery_says_by_how_much(gate: Gate) -> None:
    put(gate, "stripe")
    at = NOW - 3601
    headers = {"Stripe-Signature": f"t={at},v1={mac(b'%d.{}' % at)}"}
    assert gate.send("stripe", headers, b"{}")["statusCode"] == 401
    assert (gate.last_line["reason"], gate.last_line["timestamp_skew_seconds"]) == ("stale", -3601)


def test_each_reason_has_its_own_count(gate: Gate) -> None:
    put(gate, "github")
    put(gate, "stripe", state="disabled")
    put(gate, "generic-apikey", throttle={"rate": 0.001, "burst": 1})
    key = {"X-Api-Key": SECRET}
    gate.send("generic-apikey", key, b"x")
    wanted: list[tuple[str, Callable[[], object]]] = [
        ("bad_signature", lambda: gate.send("github", {}, b"{}")),
        ("unknown_source", lambda: gate.send("nobody", {}, b"{}")),
        ("source_disabled", lambda: gate.send("stripe", {}, b"{}")),
        ("no_challenge", lambda: gate.ask("github")),
        ("throttled", lambda: gate.send("generic-apikey", key, b"x")),
        ("too_large", lambda: gate.send("github", {}, b"x" * 4_000_001)),
        ("malformed", lambda: gate.send("github", {"X-Hub-Signature-256": "sha256=" + mac(b"{")}, b"{")),
    ]
    for reason, do in wanted:
        do()
        line = gate.last_line
        assert (line["reason"], line["webhooks_rejected"]) == (reason, 1)
        assert ["stage", "reason"] in line["_aws"]["CloudWatchMetrics"][0]["Dimensions"]
    ours = {"stale", "source_unavailable", "not_stored", "defect"}  # each with a test of its own
    assert {reason for reason, _ in wanted} | ours == set(Rejection)


# ------------------------------------------------------------------------------------------------- which secret signed


def days_ago(days: float) -> str:
    return (datetime.fromtimestamp(NOW, UTC) - timedelta(days=days)).isoformat()


def test_an_accepted_delivery_says_which_secret_signed_and_how_old_it_is(gate: Gate) -> None:
    put(gate, "github", {"secret": "old", "created_at": days_ago(400)}, {"secret": "new", "created_at": days_ago(1.5)})
    for secret, number, age in (("old", 1, 400), ("new", 2, 1)):
        headers = {"X-Hub-Signature-256": "sha256=" + mac(b"{}", secret)}
        assert gate.send("github", headers, b"{}")["statusCode"] == 202
        assert (gate.last_line["secret_number"], gate.last_line["secret_age_days"]) == (number, age)


@pytest.mark.parametrize(
    ("created_at", "age"),
    [
        (days_ago(3)[:10], 3),
        (days_ago(3).replace("+00:00", "Z"), 3),
        (days_ago(3).replace("+00:00", ""), 3),
        (days_ago(0), 0),
        (days_ago(-1), None),  # it is not old yet
        ("", None),
        ("last week", None),
        ("2025-13-01", None),
        ("0001-01-01T00:00:00+23:59", None),
        ("9999-12-31T23:59:59-23:59", None),
    ],
)
def test_an_age_is_told_where_the_operator_wrote_an_iso_date(gate: Gate, created_at: str, age: int | None) -> None:
    put(gate, "github", {"secret": SECRET, "created_at": created_at})
    headers = {"X-Hub-Signature-256": "sha256=" + mac(b"{}")}
    assert gate.send("github", headers, b"{}")["statusCode"] == 202
    assert gate.last_line["secret_number"] == 1
    told = gate.last_line.get("secret_age_days")
    assert told == age or (created_at.startswith("0001") and (told is None or told > 700_000))


def test_a_source_with_one_secret_pays_no_second_digest(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    genuine: Any = hmac.new

    def counting(*arguments: Any, **more: Any) -> Any:
        made.append(arguments)
        return genuine(*arguments, **more)

    monkeypatch.setattr(hmac, "new", counting)
    put(gate, "github")
    code = "sha256=" + genuine(SECRET.encode(), b"{}", "sha256").hexdigest()
    gate.send("github", {"X-Hub-Signature-256": code}, b"{}")
    assert gate.last_line["status"] == 202
    assert len(made) == 1


# ----------------------------------------------------------------------------------------------- a secret of no bytes


def test_a_secret_that_decodes_to_nothing_leaves_the_last_good_copy_at_work(gate: Gate) -> None:
    put(gate, "svix", STANDARD)

    def deliver(message: str) -> int:
        at = gate.clock.ms // 1000
        code = base64.b64encode(hmac.digest(b"0123456789abcdef", f"{message}.{at}.{{}}".encode(), "sha256")).decode()
        headers = {"Svix-Id": message, "Svix-Timestamp": str(at), "Svix-Signature": f"v1,{code}"}
        status: int = gate.send("svix", headers, b"{}")["statusCode"]
        return status

    assert deliver("m-1") == 202
    for secrets in (["whsec_"], [STANDARD, "whsec_"]):
        put(gate, "svix", *secrets)
        gate.clock.ms += 300_000
        assert deliver("m-2") == 202
        assert gate.last_line["source_malformed"] == 1
        assert "decodes to nothing" in gate.last_line["source_error"]


def test_what_kept_a_known_source_from_being_read_again_is_told_while_its_events_go_on(gate: Gate) -> None:
    """A missing grant or a store that is down: nobody would see it otherwise until a day later, or a cold start."""
    put(gate, "github")
    headers = {"X-Hub-Signature-256": f"sha256={mac(b'{}')}"}
    assert gate.send("github", headers, b"{}")["statusCode"] == 202
    assert "source_stale" not in gate.last_line
    gate.parameters.is_down = True
    gate.clock.ms += 300_000
    assert gate.send("github", headers, b"{}")["statusCode"] == 202
    assert gate.last_line["source_stale"] == "the fake parameter store is down"
    assert gate.last_line["level"] == "WARNING"


def test_every_provider_can_say_what_it_found() -> None:
    secrets = {"generic-basic": "u:p", "postmark": "u:p", "adyen": "00ff"}
    secrets |= {sender.provider: sender.secret for sender in SENDERS.values()}
    for name in PROVIDERS:
        more = {"scheme": {"header": "x-sig"}} if name == "generic-hmac" else {}
        found = endpoint(name, secrets.get(name, "c2VjcmV0"), **more).verifier.findings(Delivery({}, b""))
        assert found.missing or name in ("adyen", "mailgun")  # those sign inside the body
        assert json.dumps(found.missing)


def test_a_large_body_that_proves_nothing_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mailgun signs inside the body, so anybody can have it read: the log's sake is not worth doing that twice."""
    read: list[int] = []

    class Counting:
        @staticmethod
        def loads(text: bytes) -> object:
            read.append(len(text))
            return json.loads(text)

    monkeypatch.setattr(special, "json", Counting)
    verifier = endpoint("mailgun", SECRET).verifier
    signature = {"timestamp": str(NOW - 3600), "token": "t", "signature": ""}
    signature["signature"] = hmac.new(SECRET.encode(), f"{NOW - 3600}t".encode(), "sha256").hexdigest()
    small = json.dumps({"signature": signature}).encode()
    large = json.dumps({"signature": signature, "padding": "x" * 300_000}).encode()
    for body, times in ((small, 2), (large, 1)):
        read.clear()
        delivery = Delivery({"content-type": "application/json"}, body, "POST", URL)
        assert verifier.check(delivery, NOW_MS) is not None
        assert (verifier.findings(delivery).signed_at_ms is not None) == (body is small)
        assert len(read) == times
