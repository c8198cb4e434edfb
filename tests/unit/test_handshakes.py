"""Handshakes: how senders ask whether we are there, each as it documents it, and what strangers can make of that."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.ingress.challenge import MAX_PARAMETERS
from functions.ingress.request import Route
from functions.signatures.providers import PROVIDERS, scheme_of
from functions.signatures.scheme import Delivery, Reason
from tests.ingress_fakes import NOW_MS, Gate, problem_of

SECRET = "an app's secret"
COMMON: dict[str, Any] = {"tenant": "acme", "flow": "support"}
META = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": "meaty ham-höck&="}
TOKEN = "NDAwNjIwMzQtOWE3Yy00ZDc3LThjNmYtZmM4M2M3YjZkZTM0"
OKTA = "Me_rShK8JHsTnbyYrWXCEoMGbM_zsZ6k0hLPZ_Pg"


@pytest.fixture
def gate() -> Gate:
    gate = Gate()
    one = [{"secret": SECRET}]
    gate.parameters.put("meta", provider="meta", secrets=one, verify_token=META["hub.verify_token"], **COMMON)
    gate.parameters.put("x", provider="x", secrets=one, **COMMON)
    gate.parameters.put("okta", provider="okta", secrets=one, **COMMON)
    gate.parameters.put("twitch", provider="twitch", secrets=one, **COMMON)
    gate.parameters.put("github", provider="github", secrets=one, **COMMON)
    return gate


def mac(content: bytes, secret: str = SECRET) -> bytes:
    return hmac.new(secret.encode(), content, hashlib.sha256).digest()


def response_token(token: str, secret: str = SECRET) -> str:
    return "sha256=" + base64.b64encode(mac(token.encode(), secret)).decode()


def refused(gate: Gate, answer: dict[str, Any], reason: str) -> bool:
    """Word for word what a source that does not exist is answered."""
    unknown = gate.ask("nobody", "hub.mode=subscribe")
    assert answer == unknown
    assert problem_of(answer)["code"] == "INT-401-UNAUTHORIZED"
    assert json.loads(gate.lines[-2])["reason"] == reason
    assert gate.outbox.messages == []
    return True


# ---------------------------------------------------------------------------------------------------------------- Meta


def test_meta_hears_its_challenge_in_plain_text_for_the_token_it_was_given(gate: Gate) -> None:
    answer = gate.ask("meta", urlencode(META))
    assert (answer["statusCode"], answer["body"]) == (200, "1158201444")
    assert answer["headers"]["content-type"] == "text/plain"
    assert answer["headers"]["x-content-type-options"] == "nosniff"
    assert gate.last_line["handshake"] == "challenge"
    assert gate.outbox.messages == []
    assert not any(value in gate.lines[-1] for value in (META["hub.challenge"], "meaty", SECRET))


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "no_challenge"),
        (urlencode({**META, "hub.verify_token": "another"}), "bad_signature"),
        (urlencode({**META, "hub.verify_token": META["hub.verify_token"][:-1]}), "bad_signature"),
        (urlencode({**META, "hub.verify_token": ""}), "bad_signature"),
        (urlencode({**META, "hub.mode": "unsubscribe"}), "no_challenge"),
        (urlencode({**META, "hub.challenge": ""}), "no_challenge"),
        (urlencode({**META, "hub.challenge": "<script>"}), "no_challenge"),
        (urlencode({**META, "hub.challenge": "1" * 257}), "no_challenge"),
        *((urlencode({key: META[key] for key in META if key != gone}), "no_challenge") for gone in list(META)[:2]),
        (urlencode({key: META[key] for key in META if key != "hub.verify_token"}), "bad_signature"),
        *((urlencode(META) + "&" + urlencode({name: META[name]}), "no_challenge") for name in list(META)[:2]),
        (urlencode([*META.items(), ("hub.verify_token", "x")]), "bad_signature"),
        (urlencode([*META.items(), ("hub.verify_token", META["hub.verify_token"])]), "bad_signature"),
        (urlencode([*META.items(), *((f"x{number}", "") for number in range(MAX_PARAMETERS))]), "no_challenge"),
        (urlencode(META) + "&%ff=1", "no_challenge"),
        (urlencode(META).replace("hub.mode", "hub_mode"), "no_challenge"),
    ],
)
def test_whatever_else_is_asked_of_meta_is_answered_as_if_there_were_no_such_source(
    gate: Gate, query: str, reason: str
) -> None:
    assert refused(gate, gate.ask("meta", query), reason)


def test_a_token_entered_a_moment_ago_is_known_when_meta_asks_and_one_taken_back_is_not(gate: Gate) -> None:
    """The operator enters it here, then there; there, the button is pressed within seconds."""
    secrets = [{"secret": SECRET}]
    gate.parameters.put("meta", provider="meta", secrets=secrets, **COMMON)
    assert gate.ask("meta", urlencode({**META, "hub.verify_token": ""}))["statusCode"] == 401
    gate.parameters.put("meta", provider="meta", secrets=secrets, verify_token="fresh", **COMMON)
    assert gate.ask("meta", urlencode({**META, "hub.verify_token": "fresh"}))["statusCode"] == 200
    gate.parameters.put("meta", provider="meta", secrets=secrets, verify_token="next", **COMMON)
    assert gate.ask("meta", urlencode({**META, "hub.verify_token": "next"}))["statusCode"] == 200
    assert gate.ask("meta", urlencode({**META, "hub.verify_token": "fresh"}))["statusCode"] == 401


@pytest.mark.parametrize("token", [" x", "x\n", "\ud800", "y" * 257, 7, None])
def test_a_token_that_meta_cannot_send_back_is_refused_when_the_source_is_read(gate: Gate, token: object) -> None:
    gate.parameters.put("meta", provider="meta", secrets=[{"secret": SECRET}], verify_token=token, **COMMON)
    assert gate.ask("meta", urlencode(META))["statusCode"] == 503
    assert "verify_token" in gate.last_line["source_error"]


def test_a_token_for_a_provider_that_asks_for_none_is_a_mistake_that_is_named(gate: Gate) -> None:
    gate.parameters.put("github", provider="github", secrets=[{"secret": SECRET}], verify_token="t", **COMMON)
    assert gate.ask("github")["statusCode"] == 503
    assert "verify_token" in gate.last_line["source_error"]


# ------------------------------------------------------------------------------------------------------------------- X


def test_x_hears_its_token_signed_with_the_consumer_secret(gate: Gate) -> None:
    answer = gate.ask("x", f"crc_token={TOKEN}&nonce=MTY5")
    assert (answer["statusCode"], answer["headers"]["content-type"]) == (200, "application/json")
    assert json.loads(answer["body"]) == {"response_token": response_token(TOKEN)}
    assert TOKEN not in gate.lines[-1]


@pytest.mark.parametrize(
    ("secrets", "newest"),
    [
        ([{"secret": "old"}, {"secret": "new"}], "new"),
        ([{"secret": "new", "created_at": "2025-03-01"}, {"secret": "old", "created_at": "2024-03-01"}], "new"),
        ([{"secret": "new", "created_at": "2025-03-01T10:00:00Z"}, {"secret": "old"}], "new"),
        ([{"secret": "old", "created_at": "last week"}, {"secret": "new", "created_at": "today"}], "new"),
    ],
)
def test_of_two_secrets_x_is_answered_with_the_newest_while_both_take_deliveries(
    gate: Gate, secrets: list[dict[str, str]], newest: str
) -> None:
    gate.parameters.put("x", provider="x", secrets=secrets, **COMMON)
    assert json.loads(gate.ask("x", f"crc_token={TOKEN}")["body"])["response_token"] == response_token(TOKEN, newest)
    body = b'{"for_user_id":"1"}'
    for secret in ("old", "new"):
        headers = {"X-Twitter-Webhooks-Signature": response_token(body.decode(), secret)}
        assert gate.send("x", headers, body)["statusCode"] == 200


@pytest.mark.parametrize(
    "query",
    [
        "",
        "crc_token=",
        f"crc_token={TOKEN}&crc_token={TOKEN}",
        f"crc_token[]={TOKEN}",
        f"CRC_TOKEN={TOKEN}",
        "crc_token=" + "a" * 257,
        urlencode({"crc_token": '{"for_user_id":"1"}'}),
        urlencode({"crc_token": "[1]"}),
        urlencode({"crc_token": '"text"'}),
        urlencode({"crc_token": TOKEN + "\n"}),
        urlencode({"crc_token": "a=1&b=2"}),
        urlencode({"crc_token": "v0:1:body"}),
        urlencode({"crc_token": "é"}),
        urlencode({"crc_token": "a b"}),
        "crc_token=%ff",
        "crc_token=\ud800",
    ],
)
def test_what_is_no_token_of_x_is_not_signed(gate: Gate, query: str) -> None:
    answer = gate.ask("x", query)
    assert "response_token" not in answer["body"]
    assert refused(gate, answer, "no_challenge")


TOKENS = st.text("ABCXYZabcxyz0123456789+/=_.-", min_size=1, max_size=256)


@given(token=TOKENS | st.sampled_from(["1", "-1", "1.5", "1e9", "true", "null", "NaN", "Infinity", "a=b", TOKEN]))
def test_what_a_challenge_had_us_sign_never_passes_for_a_delivery(token: str) -> None:
    """X signs deliveries with the same key in the same writing, over the body alone: here the two kinds are parted.

    Some tokens are JSON (a number, true); the source that takes any content at all is the worst case.
    """
    gate = Gate()
    gate.parameters.put("x", provider="x", secrets=[{"secret": SECRET}], content="any", **COMMON)
    signed = json.loads(gate.ask("x", urlencode({"crc_token": token}))["body"])["response_token"]
    assert signed == response_token(token)
    for content_type in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
        headers = {"X-Twitter-Webhooks-Signature": signed, "Content-Type": content_type}
        for route in (Route.EVENT, Route.TEST):
            assert gate.send("x", headers, token.encode(), route=route)["statusCode"] == 401
    assert gate.outbox.messages == []


@given(token=TOKENS, body=st.binary(max_size=80))
def test_no_answer_to_a_challenge_signs_another_text_than_the_token(token: str, body: bytes) -> None:
    """The other half: what is a delivery was never asked for."""
    gate = Gate()
    gate.parameters.put("x", provider="x", secrets=[{"secret": SECRET}], **COMMON)
    query = urlencode({"crc_token": body})
    asked = gate.ask("x", query)
    headers = {"X-Twitter-Webhooks-Signature": "sha256=" + base64.b64encode(mac(body)).decode()}
    delivered = gate.send("x", headers, body)
    assert asked["statusCode"] == 401 or delivered["statusCode"] == 401


# ---------------------------------------------------------------------------------------------------------------- Okta


def test_okta_hears_its_challenge_when_it_shows_the_hooks_own_credential(gate: Gate) -> None:
    headers = {"X-Okta-Verification-Challenge": OKTA, "Authorization": SECRET}
    answer = gate.ask("okta", headers=headers)
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, {"verification": OKTA})
    assert answer["headers"]["content-type"] == "application/json"
    assert not any(value in gate.lines[-1] for value in (OKTA, SECRET))


@pytest.mark.parametrize(
    ("headers", "reason", "missing"),
    [
        ({"X-Okta-Verification-Challenge": OKTA}, "bad_signature", ["authorization"]),
        ({"X-Okta-Verification-Challenge": OKTA, "Authorization": "another"}, "bad_signature", None),
        ({"Authorization": SECRET}, "no_challenge", None),
        ({"X-Okta-Verification-Challenge": '"', "Authorization": SECRET}, "no_challenge", None),
    ],
)
def test_okta_without_its_credential_or_its_challenge_hears_nothing(
    gate: Gate, headers: dict[str, str], reason: str, missing: list[str] | None
) -> None:
    answer = gate.ask("okta", headers=headers)
    assert gate.last_line.get("headers_missing") == missing
    assert refused(gate, answer, reason)


def test_oktas_credential_may_change_while_its_hook_is_verified_again(gate: Gate) -> None:
    assert gate.ask("okta")["statusCode"] == 401
    gate.parameters.put("okta", provider="okta", secrets=[{"secret": "new"}], **COMMON)
    headers = {"X-Okta-Verification-Challenge": OKTA, "Authorization": "new"}
    assert gate.ask("okta", headers=headers)["statusCode"] == 200


# -------------------------------------------------------------------------------------------------------------- Twitch


def twitch(body: bytes, *, message_id: str = "f1c2a387", at: str = "2025-10-09T08:53:20.634234626Z") -> dict[str, str]:
    return {
        "Twitch-Eventsub-Message-Id": message_id,
        "Twitch-Eventsub-Message-Timestamp": at,
        "Twitch-Eventsub-Message-Type": "webhook_callback_verification",
        "Twitch-Eventsub-Message-Signature": "sha256=" + mac((message_id + at).encode() + body).hex(),
    }


def test_twitch_hears_its_challenge_in_plain_text_when_it_signed_it(gate: Gate) -> None:
    subscription = {"type": "channel.follow", "version": "1", "status": "webhook_callback_verification_pending"}
    body = json.dumps({"challenge": "pogchamp-kappa-360noscope-vohiyo", "subscription": subscription}).encode()
    answer = gate.send("twitch", twitch(body), body)
    assert (answer["statusCode"], answer["body"]) == (200, "pogchamp-kappa-360noscope-vohiyo")
    assert answer["headers"]["content-type"] == "text/plain"
    forged = {**twitch(body), "Twitch-Eventsub-Message-Id": "f1c2a388"}
    assert gate.send("twitch", forged, body)["statusCode"] == 401
    assert gate.outbox.messages == []


def test_no_border_of_what_twitch_signs_can_be_moved() -> None:
    """Id, moment and body stand side by side: every other way to cut the same bytes in three is refused."""
    message_id, at, body = "f1c2a387-8161-49f9-a165-0f21d7a4e1c4", "2025-10-09T08:53:20.634234626Z", b'{"a":1}'
    code = twitch(body, message_id=message_id, at=at)["Twitch-Eventsub-Message-Signature"]
    whole = (message_id + at).encode() + body
    verifier = scheme_of(PROVIDERS["twitch"], {}).verifier([SECRET])
    genuine = (len(message_id), len(message_id) + len(at))
    for first in range(1, len(whole)):
        for second in range(first + 1, len(whole) + 1):
            headers = {
                "twitch-eventsub-message-id": whole[:first].decode(),
                "twitch-eventsub-message-timestamp": whole[first:second].decode(),
                "twitch-eventsub-message-signature": code,
            }
            reason = verifier.check(Delivery(headers, whole[second:]), NOW_MS)
            assert (reason is None) == ((first, second) == genuine), headers
            assert reason in (None, Reason.MALFORMED)


# ------------------------------------------------------------------------------------------------------------- at large


def test_every_handshake_of_every_provider_is_driven_by_a_test() -> None:
    driven_here = {"meta", "x", "okta", "twitch"}
    driven_beside = {"slack", "zoom", "discord", "discord-events"}  # test_ingress.py, test_senders_signatures.py
    assert {row.name for row in PROVIDERS.values() if row.handshake or row.challenge} == driven_here | driven_beside
    for row in PROVIDERS.values():
        if row.challenge:
            assert bool(row.challenge.query) != bool(row.challenge.header)


@pytest.mark.parametrize("source", ["github", "twitch", "nobody", "off", "no/such id", ""])
def test_a_get_that_is_no_challenge_tells_nobody_whether_there_is_such_a_source(gate: Gate, source: str) -> None:
    """405 would."""
    gate.parameters.put("off", provider="meta", secrets=[{"secret": SECRET}], state="disabled", **COMMON)
    answers = [gate.ask(source, query) for query in ("", urlencode(META), f"crc_token={TOKEN}")]
    assert all(answer == gate.ask("nobody") for answer in answers)


def test_a_challenge_over_the_sources_throttle_waits_and_takes_nothing_from_its_deliveries(gate: Gate) -> None:
    secrets = [{"secret": SECRET}]
    gate.parameters.put("x", provider="x", secrets=secrets, throttle={"rate": 0.5, "burst": 2}, **COMMON)
    answers = [gate.ask("x", f"crc_token={TOKEN}") for _ in range(3)]
    assert [answer["statusCode"] for answer in answers] == [200, 200, 429]
    assert answers[2]["headers"]["retry-after"] == "2"
    assert problem_of(answers[2])["code"] == "INT-429-TOO-MANY-REQUESTS"
    body = b'{"for_user_id":"1"}'
    assert gate.send("x", {"X-Twitter-Webhooks-Signature": response_token(body.decode())}, body)["statusCode"] == 200


def test_invented_ids_cost_the_parameter_store_no_more_by_get_than_by_post(gate: Gate) -> None:
    statuses = {gate.ask(f"junk{number}", urlencode(META))["statusCode"] for number in range(300)}
    assert statuses == {401, 429}
    assert len(gate.parameters.asked) == 50


def test_an_address_over_its_limits_is_refused_before_anything_is_read(gate: Gate) -> None:
    for query, headers in (("a" * 17_000, {}), ("", {f"x-{n}": "" for n in range(101)}), ("", {"x": "y" * 17_000})):
        answer = gate.ask("meta", query, headers)
        assert answer["statusCode"] == 431
    assert gate.parameters.asked == []


def test_while_the_parameter_store_is_down_a_challenge_is_told_to_come_back(gate: Gate) -> None:
    gate.parameters.is_down = True
    answer = gate.ask("x", f"crc_token={TOKEN}")
    assert (answer["statusCode"], answer["headers"]["retry-after"]) == (503, "5")
