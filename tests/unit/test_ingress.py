"""Ingress, with everything around it in memory: what senders are answered and what is left behind."""

from __future__ import annotations

import base64
import gc
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.core.event import MAX_BODY_BYTES
from functions.ingress.trace import traceparent_of
from tests.ingress_fakes import NOW_MS, Gate, gateway_event, problem_of

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

NOW = NOW_MS // 1000
SECRETS = [{"secret": "s3"}]
FORM = "application/x-www-form-urlencoded"
UNAUTHORIZED = {
    "type": "about:blank",
    "title": "Unauthorized",
    "status": 401,
    "detail": "The request could not be verified.",
    "code": "INT-401-UNAUTHORIZED",
    "request_id": "gateway-1=",
}


@pytest.fixture
def gate() -> Gate:
    gate = Gate()
    common: dict[str, Any] = {"tenant": "acme", "flow": "support", "secrets": SECRETS}
    gate.parameters.put("github", provider="github", **common)
    gate.parameters.put("stripe", provider="stripe", **common)
    gate.parameters.put("shopify", provider="shopify", **common)
    gate.parameters.put("slack", provider="slack", **common)
    gate.parameters.put("twilio", provider="twilio", **common)
    gate.parameters.put("desk", provider="richpanel", fields={"text": "/text"}, **common)
    gate.parameters.put("key", provider="generic-apikey", **common)
    return gate


def hexmac(content: bytes, algorithm: str = "sha256") -> str:
    return hmac.new(b"s3", content, algorithm).hexdigest()


def github(body: bytes, delivery: str = "d-1", event: str = "issues", **more: str) -> dict[str, str]:
    return {
        "X-Hub-Signature-256": "sha256=" + hexmac(body),
        "X-GitHub-Delivery": delivery,
        "X-GitHub-Event": event,
        "Content-Type": "application/json",
        **more,
    }


def stripe(body: bytes, at: int = NOW) -> dict[str, str]:
    return {"Stripe-Signature": f"t={at},v1={hexmac(b'%d.' % at + body)}"}


def slack(body: bytes, content_type: str = "application/json") -> dict[str, str]:
    signature = "v0=" + hexmac(b"v0:%d:" % NOW + body)
    return {"X-Slack-Request-Timestamp": str(NOW), "X-Slack-Signature": signature, "Content-Type": content_type}


def twilio(pairs: list[tuple[str, str]], url: str = "https://hooks.example.com/webhooks/twilio") -> dict[str, str]:
    content = url + "".join(name + value for name, value in sorted(pairs))
    code = base64.b64encode(hmac.digest(b"s3", content.encode(), "sha1")).decode()
    return {"X-Twilio-Signature": code, "Content-Type": FORM}


TOKEN = {"X-Richpanel-Token": "s3", "Content-Type": "application/json"}


# ------------------------------------------------------------------------------------------------------- accepted


def test_a_signed_event_is_stored_once_with_its_metadata_and_acknowledged_with_its_id(gate: Gate) -> None:
    body = json.dumps(
        {"id": "evt_1", "type": "charge.failed", "api_version": "2020-08-27", "pending_webhooks": 2}
    ).encode()
    answer = gate.send("stripe", stripe(body), body)
    assert answer["statusCode"] == 202
    assert json.loads(answer["body"]) == {"event_id": "stripe:evt_1", "request_id": "gateway-1="}
    (event,) = gate.outbox.events
    assert (event.tenant, event.source, event.provider, event.flow) == ("acme", "stripe", "stripe", "support")
    assert (event.event_id, event.event_name, event.event_version) == ("stripe:evt_1", "charge.failed", "2020-08-27")
    assert (event.body, event.received_at_ms, event.repeat_window_seconds, event.held) == (body, NOW_MS, 0, False)
    assert event.request_id == "gateway-1="


def test_a_redelivery_is_the_same_event_with_the_same_payload_hash_whatever_is_unstable(gate: Gate) -> None:
    for pending in (2, 1):
        body = json.dumps({"id": "evt_1", "pending_webhooks": pending}).encode()
        gate.send("stripe", stripe(body, NOW - pending), body)
    one, other = gate.outbox.events
    assert (one.event_id, one.payload_hash) == (other.event_id, other.payload_hash)


def test_a_github_event_is_named_with_its_action_and_an_exchanged_delivery_id_hides_no_other_event(gate: Gate) -> None:
    bodies = [b'{"action":"opened"}', b'{"action":"closed"}']
    for body in bodies:
        gate.send("github", github(body), body)
    one, other = gate.outbox.events
    assert one.event_name == "issues.opened"
    assert one.event_id.startswith("github:d-1~c")
    assert one.event_id != other.event_id


def test_a_github_form_is_read_through_its_payload(gate: Gate) -> None:
    body = urlencode({"payload": '{"action": "opened"}'}).encode()
    gate.send("github", github(body, **{"Content-Type": FORM}), body)
    assert gate.outbox.events[0].event_name == "issues.opened"
    assert gate.outbox.events[0].body == body


def test_a_sender_without_ids_may_repeat_itself_after_the_window(gate: Gate) -> None:
    for text in ("thanks", "thanks", "hello"):
        gate.send("desk", TOKEN, json.dumps({"text": text}).encode())
    one, same, other = gate.outbox.events
    assert one.identity == same.identity != other.identity
    assert one.repeat_window_seconds == 600
    assert one.epoch_ms == NOW_MS
    assert dict(one.fields) == {"text": "/text"}


def test_an_opaque_body_of_a_generic_source_is_taken_as_it_is(gate: Gate) -> None:
    body = bytes(range(256)) * 4
    answer = gate.send("key", {"X-Api-Key": "s3", "Content-Type": "application/octet-stream"}, body)
    assert answer["statusCode"] == 202
    assert gate.outbox.events[0].body == body


def test_a_body_that_the_gateway_hands_over_as_text_is_the_bytes_that_were_signed(gate: Gate) -> None:
    body = '{"action":"é\u2028🦀"}'
    assert gate.send("github", github(body.encode()), body)["statusCode"] == 202
    assert gate.outbox.events[0].body == body.encode()


def test_slack_is_answered_its_challenge_only_when_it_signed_it_and_nothing_is_stored(gate: Gate) -> None:
    body = b'{"type":"url_verification","challenge":"3eZbrw1a"}'
    answer = gate.send("slack", slack(body), body)
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, {"challenge": "3eZbrw1a"})
    forged = gate.send("slack", slack(b"{}"), body)
    assert forged["statusCode"] == 401
    assert gate.outbox.messages == []


def test_slack_events_and_slash_commands_are_acknowledged_without_a_word_to_show(gate: Gate) -> None:
    event = b'{"type":"event_callback","event_id":"Ev1","event":{"type":"app_mention"}}'
    command = urlencode({"command": "/refund", "trigger_id": "1.2", "text": ""}).encode()
    for body, content_type in ((event, "application/json"), (command, FORM)):
        answer = gate.send("slack", slack(body, content_type), body)
        assert (answer["statusCode"], answer["body"]) == (200, "")
    assert [e.event_id for e in gate.outbox.events] == ["slack:Ev1", "slack:1.2"]
    assert [e.event_name for e in gate.outbox.events] == ["app_mention", "/refund"]


def test_twilio_is_answered_in_twiml_and_each_status_of_a_message_is_an_event(gate: Gate) -> None:
    ids = []
    for status in ("sent", "delivered", "delivered"):
        pairs = [("MessageSid", "SM1"), ("MessageStatus", status), ("Body", "é+&= x"), ("FromCity", "")]
        answer = gate.send("twilio", twilio(pairs), urlencode(pairs).encode())
        assert (answer["statusCode"], answer["headers"]["content-type"]) == (202, "text/xml")
        ids.append(answer["headers"]["x-event-id"])
    assert ids[0] != ids[1] == ids[2]
    assert [event.event_name for event in gate.outbox.events] == ["sent", "delivered", "delivered"]


def test_twilio_signs_the_address_it_was_given_even_if_a_proxy_hides_it(gate: Gate) -> None:
    common: dict[str, Any] = {"tenant": "acme", "flow": "support", "secrets": SECRETS}
    gate.parameters.put("behind", provider="twilio", public_url="http://127.0.0.1:8080/in/x", **common)
    pairs = [("MessageSid", "SM1")]
    body = urlencode(pairs).encode()
    headers = twilio(pairs, "http://127.0.0.1:8080/in/x?a=%20b")
    assert gate.send("behind", headers, body, query="a=%20b")["statusCode"] == 202
    assert gate.send("behind", headers, body, query="a=c")["statusCode"] == 401
    plain = twilio(pairs, "http://hooks.example.com/webhooks/twilio") | {"X-Forwarded-Proto": "http"}
    assert gate.send("twilio", plain, body)["statusCode"] == 202


def test_a_held_source_accepts_and_marks_its_events(gate: Gate) -> None:
    gate.parameters.put("held", provider="generic-apikey", tenant="acme", flow="f", secrets=SECRETS, state="held")
    assert gate.send("held", {"X-Api-Key": "s3"}, b"x")["statusCode"] == 202
    assert gate.outbox.events[0].held


def test_a_senders_trace_goes_on_and_a_broken_one_is_replaced(gate: Gate) -> None:
    good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    body = b"{}"
    gate.send("github", github(body, traceparent=good), body)
    gate.send("github", github(body, traceparent="00-xyz"), body)
    kept, started = (event.traceparent for event in gate.outbox.events)
    assert kept == good
    assert started != "00-xyz"
    assert traceparent_of(started, "") == started


@pytest.mark.parametrize(
    "header",
    ["", "00-" + "0" * 32 + "-b7ad6b7169203331-01", "00-" + "a" * 32 + "-" + "0" * 16 + "-01", "01-" + "a" * 32, "é"],
)
def test_a_trace_that_w3c_calls_invalid_is_not_kept(header: str) -> None:
    assert traceparent_of(header, "ab" * 16) == f"00-{'ab' * 16}-{'ab' * 8}-01"


# -------------------------------------------------------------------------------------------------------- refused


def test_every_refusal_of_a_stranger_reads_the_same_and_its_reason_is_only_in_the_log(gate: Gate) -> None:
    gate.parameters.put("off", provider="github", tenant="acme", flow="f", secrets=SECRETS, state="disabled")
    body = b'{"id":"evt_1"}'
    attempts = [
        ("github", github(b"other"), "bad_signature"),
        ("github", {}, "bad_signature"),
        ("github", {"X-Hub-Signature-256": "sha256=zz"}, "bad_signature"),
        ("stripe", stripe(body, NOW - 301), "stale"),
        ("stripe", stripe(body, NOW + 301), "stale"),
        ("nobody", github(body), "unknown_source"),
        ("no/such id", github(body), "unknown_source"),
        ("off", github(body), "source_disabled"),
    ]
    for source_id, headers, reason in attempts:
        answer = gate.send(source_id, headers, body)
        assert answer["statusCode"] == 401
        assert problem_of(answer) == UNAUTHORIZED
        assert set(answer["headers"]) == {"content-type", "x-request-id"}
        assert gate.last_line["reason"] == reason
        assert gate.last_line["webhooks_rejected"] == 1
    assert gate.outbox.messages == []


def test_a_signature_seen_before_does_not_open_the_door_later(gate: Gate) -> None:
    body = b'{"id":"evt_1"}'
    headers = stripe(body)
    assert gate.send("stripe", headers, body)["statusCode"] == 202
    gate.clock.ms += 301_000
    assert gate.send("stripe", headers, body)["statusCode"] == 401
    assert gate.last_line["reason"] == "stale"
    assert len(gate.outbox.messages) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe\xfd", b"[" * 200_000, b'{"a":' * 500 + b"1" + b"}" * 500, b'{"n":' + b"9" * 5000 + b"}"],
)
def test_what_is_signed_but_no_json_is_a_bad_request(gate: Gate, body: bytes) -> None:
    answer = gate.send("github", github(body), body)
    assert answer["statusCode"] == 400
    assert problem_of(answer)["code"] == "INT-400-INVALID-PAYLOAD"
    assert gate.last_line["reason"] == "malformed"
    assert gate.outbox.messages == []


def test_a_signed_body_of_another_content_type_than_declared_is_a_bad_request(gate: Gate) -> None:
    assert gate.send("stripe", stripe(b"a=b") | {"Content-Type": FORM}, b"a=b")["statusCode"] == 400
    common: dict[str, Any] = {"tenant": "acme", "flow": "f", "secrets": SECRETS, "provider": "generic-apikey"}
    gate.parameters.put("forms", content="form", **common)
    key = {"X-Api-Key": "s3"}
    assert gate.send("forms", key | {"Content-Type": "application/json"}, b"{}")["statusCode"] == 400
    assert gate.send("forms", key | {"Content-Type": FORM}, b"junk")["statusCode"] == 400
    assert gate.send("forms", key | {"Content-Type": FORM}, b"a=%ff&a=2")["statusCode"] == 202
    assert gate.send("key", key | {"Content-Type": "application/x+json"}, b"{")["statusCode"] == 400


def test_odd_json_that_is_valid_is_stored(gate: Gate) -> None:
    for body in (b'{"a":NaN,"a":1e999}', b'{"id":"\\ud800"}', b"[]", b"null", b'"x"', "\ufeff{}".encode()):
        assert gate.send("github", github(body, delivery="\ud800"), body)["statusCode"] == 202
        assert gate.send("stripe", stripe(body), body)["statusCode"] == 202
    assert len(gate.outbox.messages) == 12


def test_what_the_gateway_calls_base64_and_is_not_is_a_bad_request(gate: Gate) -> None:
    event = gateway_event("github", github(b""), b"x")
    for text in ("***", "é", "A", "QUJD\n"):
        assert gate.handler(event | {"body": text}, None)["statusCode"] == 400


def test_a_body_over_the_limit_is_too_large_and_one_at_the_limit_is_judged(gate: Gate) -> None:
    key = {"X-Api-Key": "s3"}
    for body in (b"x" * (MAX_BODY_BYTES + 1), "x" * (MAX_BODY_BYTES + 1), "é" * (MAX_BODY_BYTES // 2 + 1)):
        answer = gate.send("key", key, body)
        assert answer["statusCode"] == 413
        assert problem_of(answer)["code"] == "INT-413-PAYLOAD-TOO-LARGE"
    assert gate.parameters.asked == []
    assert gate.send("key", key, b"x" * MAX_BODY_BYTES)["statusCode"] == 202  # zips well below the queue's limit
    noise = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(MAX_BODY_BYTES // 32))
    assert gate.send("key", key, noise)["statusCode"] == 202  # its envelope fits no message: a claim check does
    assert gate.last_line["claim_check"]
    assert gate.send("key", {"X-Api-Key": "wrong"}, noise)["statusCode"] == 401
    assert [event.body for event in gate.outbox.events] == [b"x" * MAX_BODY_BYTES, noise]
    assert len(gate.outbox.messages[1]) < 1000
    assert len(gate.outbox.bucket.objects) == 1


def test_too_many_headers_or_too_long_ones_are_refused_before_anything_is_read(gate: Gate) -> None:
    for headers in ({f"x-{number}": "" for number in range(101)}, {"x-long": "y" * 16_400}):
        answer = gate.send("github", headers, b"{}")
        assert answer["statusCode"] == 431
        assert problem_of(answer)["code"] == "INT-431-HEADERS-TOO-LARGE"
    assert gate.parameters.asked == []


def test_a_source_over_its_own_throttle_waits_and_strangers_cannot_spend_its_share(gate: Gate) -> None:
    common: dict[str, Any] = {"tenant": "acme", "flow": "f", "secrets": SECRETS, "provider": "generic-apikey"}
    gate.parameters.put("slow", throttle={"rate": 0.5, "burst": 2}, **common)
    for _ in range(5):
        assert gate.send("slow", {"X-Api-Key": "wrong"}, b"x")["statusCode"] == 401
    answers = [gate.send("slow", {"X-Api-Key": "s3"}, b"x") for _ in range(3)]
    assert [answer["statusCode"] for answer in answers] == [202, 202, 429]
    assert answers[2]["headers"]["retry-after"] == "2"
    assert gate.last_line["reason"] == "throttled"
    assert gate.send("key", {"X-Api-Key": "s3"}, b"x")["statusCode"] == 202  # a neighbour goes on
    gate.clock.ms += 2000
    assert gate.send("slow", {"X-Api-Key": "s3"}, b"x")["statusCode"] == 202
    gate.parameters.put("slow", throttle={"rate": 100, "burst": 100}, **common)
    gate.clock.ms += 300_000
    assert {gate.send("slow", {"X-Api-Key": "s3"}, b"x")["statusCode"] for _ in range(50)} == {202}


# ---------------------------------------------------------------------------------------------------- our own trouble


def test_when_the_queue_is_down_the_sender_is_told_to_come_back(gate: Gate) -> None:
    gate.outbox.is_down = True
    answer = gate.send("github", github(b"{}"), b"{}")
    assert answer["statusCode"] == 503
    assert problem_of(answer)["code"] == "INT-503-DEPENDENCY-UNAVAILABLE"
    assert int(answer["headers"]["retry-after"]) > 0
    assert gate.last_line["reason"] == "not_stored"
    assert gate.last_line["level"] == "ERROR"


def test_while_ssm_fails_known_sources_go_on_unknown_ones_get_503_and_none_gets_401(gate: Gate) -> None:
    assert gate.send("github", github(b"{}"), b"{}")["statusCode"] == 202
    gate.parameters.is_down = True
    for minutes in range(0, 60, 4):
        gate.clock.ms += minutes * 60_000
        assert gate.send("github", github(b"{}"), b"{}")["statusCode"] == 202
        now = gate.clock.ms // 1000
        assert gate.send("stripe", stripe(b"{}", now), b"{}")["statusCode"] == 503
        assert gate.last_line["reason"] == "source_unavailable"
        # Perhaps it was rotated and we cannot know: no 401 either.
        assert gate.send("github", github(b"other"), b"{}")["statusCode"] == 503


def test_a_secret_rotated_mid_burst_refuses_no_honest_event_though_forgeries_go_before(gate: Gate) -> None:
    entry: dict[str, Any] = {"provider": "generic-apikey", "tenant": "acme", "flow": "f"}
    gate.parameters.put("burst", secrets=[{"secret": "old"}], **entry)
    statuses: list[int] = []
    for number in range(200):
        gate.clock.ms += 50
        if number % 67 == 60:
            assert gate.send("burst", {"X-Api-Key": "forged"}, b"x")["statusCode"] == 401
        if number == 100:
            gate.parameters.put("burst", secrets=[{"secret": "old"}, {"secret": "new"}], **entry)
        if number == 150:
            gate.parameters.put("burst", secrets=[{"secret": "new"}], **entry)
        key = "old" if number < 100 else "new"
        statuses.append(gate.send("burst", {"X-Api-Key": key}, b"%d" % number)["statusCode"])
    assert statuses == [202] * 200
    assert len(gate.outbox.messages) == 200


def test_a_secret_exchanged_at_one_stroke_is_known_with_the_first_event_it_signs(gate: Gate) -> None:
    entry: dict[str, Any] = {"provider": "generic-apikey", "tenant": "acme", "flow": "f"}
    gate.parameters.put("burst", secrets=[{"secret": "old"}], **entry)
    assert gate.send("burst", {"X-Api-Key": "old"}, b"x")["statusCode"] == 202
    gate.parameters.put("burst", secrets=[{"secret": "new"}], **entry)
    assert gate.send("burst", {"X-Api-Key": "new"}, b"x")["statusCode"] == 202
    assert gate.send("burst", {"X-Api-Key": "old"}, b"x")["statusCode"] == 401


def test_a_malformed_entry_pages_and_refuses_nobody_who_can_still_be_verified(gate: Gate) -> None:
    assert gate.send("github", github(b"{}"), b"{}")["statusCode"] == 202
    gate.parameters.entries["github"] = '{"tenant": "acme", "secrets": [{"secret": "do-not-log"}]}'
    gate.clock.ms += 300_000
    assert gate.send("github", github(b"{}"), b"{}")["statusCode"] == 202
    assert gate.last_line["source_malformed"] == 1
    assert "provider" in gate.last_line["source_error"]
    assert gate.last_line["level"] == "ERROR"
    assert gate.send("github", github(b"other"), b"{}")["statusCode"] == 503
    gate.parameters.entries["fresh"] = "{"
    assert gate.send("fresh", github(b"{}"), b"{}")["statusCode"] == 503
    assert not any("do-not-log" in line for line in gate.lines)


def test_invented_ids_are_throttled_and_never_our_trouble(gate: Gate) -> None:
    statuses = {gate.send(f"junk{number}", {}, b"{}")["statusCode"] for number in range(300)}
    assert statuses == {401, 429}
    assert (
        gate.send("github", github(b"{}"), b"{}")["statusCode"] == 429
    )  # never seen before: it may come back in a second
    gate.clock.ms += 1000
    assert gate.send("github", github(b"{}"), b"{}")["statusCode"] == 202


def test_a_defect_of_ours_is_loud_and_neither_a_4xx_nor_a_crash() -> None:
    gate = Gate()

    class Broken(dict[str, str]):
        def get(self, *_: Any) -> Any:
            raise KeyError("secret-in-a-message")

    gate.parameters.entries = Broken()
    answer = gate.send("github", github(b"{}"), b"{}")
    assert answer["statusCode"] == 500
    assert gate.last_line["reason"] == "defect"
    assert gate.last_line["why"].startswith("KeyError in ")
    assert "secret-in-a-message" not in gate.lines[-1]


# ------------------------------------------------------------------------------------------------------------- the log


def test_each_request_leaves_one_line_with_its_ids_and_metric_and_nothing_of_the_body_or_secret(gate: Gate) -> None:
    body = b'{"action":"opened","phone":"+15551234567","token":"hush-hush"}'
    gate.send("github", github(body), body)
    gate.send("github", github(b"x"), body)
    gate.send("nobody-15551234567", github(b"x"), body)
    assert len(gate.lines) == 3
    accepted, forged, unknown = (json.loads(line) for line in gate.lines)
    assert accepted["webhooks_accepted"] == 1
    assert accepted["event_id"] == gate.outbox.events[0].event_id
    assert {"request_id", "traceparent", "tenant", "source", "provider", "status"} <= set(accepted)
    assert forged["webhooks_rejected"] == 1
    for line in (accepted, forged, unknown):
        for directive in line["_aws"]["CloudWatchMetrics"]:
            dimensions = {name for dimension_set in directive["Dimensions"] for name in dimension_set}
            assert dimensions | {metric["Name"] for metric in directive["Metrics"]} <= set(line)
            assert not {"tenant", "source", "event_id"} & dimensions
    assert not any(word in line for line in gate.lines for word in ("hush", "15551234567", "s3", hexmac(body)))


# --------------------------------------------------------------------------------------------------- any event at all

texts = st.text(max_size=30)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
header_names = st.sampled_from(
    ["x-hub-signature-256", "stripe-signature", "x-slack-signature", "x-slack-request-timestamp", "host",
     "content-type", "x-twilio-signature", "x-api-key", "authorization", "traceparent",
     "x-forwarded-proto", "x-richpanel-token"]
)  # fmt: skip
header_values = texts | st.sampled_from(
    [FORM, "application/json", "s3", "sha256=" + "0" * 64, f"t={NOW},v1=0", str(NOW)]
)
sources = st.sampled_from(["github", "stripe", "shopify", "slack", "twilio", "desk", "key", "nobody"])
events = st.fixed_dictionaries(
    {},
    optional={
        "body": anything | texts | st.binary(max_size=40).map(lambda raw: base64.b64encode(raw).decode()),
        "isBase64Encoded": anything,
        "headers": anything | st.dictionaries(header_names, header_values | anything, max_size=6),
        "pathParameters": anything | st.fixed_dictionaries({"source": sources | anything}),
        "rawPath": anything,
        "rawQueryString": anything | st.sampled_from(["a=1", "bodySHA256=0", "bodySHA256=é&bodySHA256=1", "%zz"]),
        "requestContext": anything
        | st.fixed_dictionaries(
            {},
            optional={
                "requestId": anything,
                "domainName": anything | st.sampled_from(["[", "x:y", "host"]),
                "http": anything,
            },
        ),
    },
)


@settings(max_examples=400)
@given(event=events | anything)
def test_any_event_at_all_is_answered_without_a_5xx(event: Any) -> None:
    gate = Gate()
    common: dict[str, Any] = {"tenant": "acme", "flow": "f", "secrets": SECRETS}
    for name in ("github", "stripe", "shopify", "slack", "twilio"):
        gate.parameters.put(name, provider=name, **common)
    gate.parameters.put("desk", provider="richpanel", **common)
    gate.parameters.put("key", provider="generic-apikey", **common)
    answer = gate.handler(event, None)
    assert answer["statusCode"] in (200, 202, 400, 401, 413, 429, 431)
    assert len(gate.lines) == 1
    json.dumps(answer)
    if answer["statusCode"] not in (200, 202):
        assert gate.outbox.messages == []
        assert problem_of(answer)["status"] == answer["statusCode"]


@settings(max_examples=200)
@given(
    body=st.binary()
    | anything.map(json.dumps).map(str.encode)
    | texts.map(lambda text: text.encode("utf-8", "replace")),
    headers=st.dictionaries(st.sampled_from(["content-type", "x-github-delivery", "x-github-event"]), header_values),
    source_id=st.sampled_from(["github", "key", "desk"]),
)
def test_whatever_is_authentic_is_stored_whole_or_refused_as_unreadable(
    body: bytes, headers: dict[str, str], source_id: str
) -> None:
    gate = Gate()
    common: dict[str, Any] = {"tenant": "acme", "flow": "f", "secrets": SECRETS}
    gate.parameters.put("github", provider="github", **common)
    gate.parameters.put("desk", provider="richpanel", **common)
    gate.parameters.put("key", provider="generic-apikey", **common)
    proof = {
        "x-hub-signature-256": "sha256=" + hexmac(body),
        "x-api-key": "s3",
        "x-richpanel-token": "s3",
    }
    answer = gate.send(source_id, headers | proof, body)
    assert answer["statusCode"] in (202, 400)
    assert [event.body for event in gate.outbox.events] == ([body] if answer["statusCode"] == 202 else [])


def test_a_body_of_many_small_values_is_not_walked_by_the_collector_while_its_sender_waits(gate: Gate) -> None:
    body = b'{"id":"evt_1","type":"x","data":[' + b",".join([b"[]"] * 50_000) + b"]}"
    event = gateway_event("stripe", stripe(body), body)
    walks: list[str] = []

    def seen(phase: str, info: dict[str, int]) -> None:  # the collector passes it
        if not gate.lines:  # the line is written last; what follows is the fakes' own
            walks.append(phase)

    gc.callbacks.append(seen)
    try:
        answer = gate.handler(event, None)
    finally:
        gc.callbacks.remove(seen)
    assert answer["statusCode"] == 202
    assert walks == []
    assert gc.isenabled()
