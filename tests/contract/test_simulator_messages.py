"""The simulated SMS and email keep their own promises: a double that drifts proves nothing."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from ops.simulator import RunningSimulator, SimulatorRefused, serve
from tests.contract.test_simulator import Answer, call

ACCOUNT = "AC" + "1" * 32
LIST = f"/twilio/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
EMAILS = "/ses/v2/email/outbound-emails"
BASIC = {"authorization": "Basic " + base64.b64encode(f"{ACCOUNT}:key-1".encode()).decode()}
FORM = {**BASIC, "content-type": "application/x-www-form-urlencoded"}
SIGNED = {
    "authorization": "AWS4-HMAC-SHA256 Credential=key-1/20260101/eu-west-1/ses/aws4_request, "
    f"SignedHeaders=content-type;host;x-amz-date, Signature={'0' * 64}"
}


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningSimulator]:
    with serve() as simulator:
        yield simulator


@pytest.fixture
def simulator(shared: RunningSimulator) -> RunningSimulator:
    shared.control.reset()
    return shared


def text(simulator: RunningSimulator, headers: dict[str, str] | None = None, **fields: str) -> Answer:
    form = {"To": "+491701234567", "From": "+15005550006", "Body": "Hello.\nRef 7K2M9QXD", **fields}
    body = urlencode({name: value for name, value in form.items() if value}).encode()
    return call(simulator, "POST", LIST, body, FORM if headers is None else headers)


def listed(simulator: RunningSimulator, to: str = "+491701234567", **query: str) -> Any:
    return call(simulator, "GET", f"{LIST}?{urlencode({'To': to, **query})}", headers=BASIC).json()


def letter(**change: Any) -> dict[str, Any]:
    return {
        "FromEmailAddress": "hello@holdfast.example",
        "Destination": {"ToAddresses": ["ann@example.com"]},
        "Content": {"Simple": {"Subject": {"Data": "Hi"}, "Body": {"Text": {"Data": "Hello."}}}},
        "EmailTags": [{"Name": "action_id", "Value": "a-1"}],
        **change,
    }


def test_each_text_is_another_message_and_has_its_reference_as_key(simulator: RunningSimulator) -> None:
    first, second = text(simulator), text(simulator, Body="Hello again.")
    assert (first.status, second.status) == (201, 201)
    assert re.fullmatch(r"SM[0-9a-f]{32}", first.json()["sid"])
    assert first.json()["sid"] != second.json()["sid"]
    assert [(effect.kind, effect.target, effect.key) for effect in simulator.control.effects("sms")] == [
        ("sms", "+491701234567", "7K2M9QXD"),
        ("sms", "+491701234567", ""),
    ]


def test_the_list_is_of_one_number_newest_first_and_in_pages(simulator: RunningSimulator) -> None:
    sids = [text(simulator).json()["sid"] for _ in range(5)]
    text(simulator, To="+491707654321")
    first = listed(simulator, PageSize="2")
    assert [message["sid"] for message in first["messages"]] == [sids[4], sids[3]]
    found, further = [*first["messages"]], first["next_page_uri"]
    while further is not None:
        page = call(simulator, "GET", "/twilio" + further, headers=BASIC).json()
        found, further = [*found, *page["messages"]], page["next_page_uri"]
    assert [message["sid"] for message in found] == sids[::-1]
    assert urlsplit(first["next_page_uri"]).path == LIST.removeprefix("/twilio")
    assert call(simulator, "GET", f"{LIST}?Page=1", headers=BASIC).status == 400


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"To": ""}, 400, 21604),
        ({"To": "0170"}, 400, 21211),
        ({"To": "+15005550001"}, 400, 21211),
        ({"To": "+15005550002"}, 400, 21612),
        ({"To": "+15005550003"}, 400, 21408),
        ({"To": "+15005550004"}, 400, 21610),
        ({"To": "+15005550009"}, 400, 21614),
        ({"From": "+15005550008"}, 429, 21611),
        ({"From": "+15005550001"}, 400, 21212),
        ({"From": ""}, 400, 21603),
        ({"Body": ""}, 400, 21602),
        ({"Body": "x" * 1601}, 400, 21617),
    ],
)
def test_what_is_refused_is_refused_in_the_providers_words_and_leaves_nothing(
    simulator: RunningSimulator, fields: Any, status: int, code: int
) -> None:
    answer = text(simulator, **fields)
    assert (answer.status, answer.json()["code"], answer.json()["status"]) == (status, code, status)
    assert simulator.control.effects() == []


def test_a_form_is_what_it_takes_and_a_known_key(simulator: RunningSimulator) -> None:
    assert text(simulator, {**BASIC, "content-type": "application/json"}).json()["code"] == 21604
    for wrong in ("", "Bearer x", "Basic ~", "Basic /w==", "Basic a2V5"):
        assert text(simulator, {**FORM, "authorization": wrong}).status == 401
    simulator.control.accept_keys(sms=["key-2"])
    assert text(simulator).status == 401
    simulator.control.accept_keys(sms=["key-1"])
    assert text(simulator).status == 201
    assert call(simulator, "DELETE", LIST, headers=BASIC).status == 404
    assert call(simulator, "GET", "/twilio/2010-04-01/Accounts/x/Messages.json", headers=BASIC).status == 404


def test_what_became_of_a_text_can_be_told(simulator: RunningSimulator) -> None:
    text(simulator)
    simulator.control.change_texts("+491701234567", {"status": "undelivered", "error_code": 30003, "body": ""})
    (message,) = simulator.control.texts("+491701234567")
    assert (message["status"], message["error_code"], message["body"]) == ("undelivered", 30003, "")
    assert simulator.control.texts("+1") == []


def test_each_email_is_another_one_per_recipient_and_has_its_tag_as_key(simulator: RunningSimulator) -> None:
    two = {"ToAddresses": ["ann@example.com"], "BccAddresses": ["bob@example.com"]}
    first = call(simulator, "POST", EMAILS, letter(), SIGNED)
    second = call(simulator, "POST", EMAILS, letter(Destination=two, EmailTags=[]), SIGNED)
    assert (first.status, second.status) == (200, 200)
    assert first.json()["MessageId"] != second.json()["MessageId"]
    assert [(effect.target, effect.key) for effect in simulator.control.effects("email")] == [
        ("ann@example.com", "a-1"),
        ("ann@example.com", ""),
        ("bob@example.com", ""),
    ]


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"Destination": {}}, 400, "BadRequestException"),
        ({"Destination": {"ToAddresses": ["nobody"]}}, 400, "BadRequestException"),
        ({"Destination": {"ToAddresses": ["a@b.co"] * 51}}, 400, "BadRequestException"),
        ({"Content": {"Simple": {"Subject": {"Data": "Hi"}}}}, 400, "BadRequestException"),
        ({"Content": []}, 400, "BadRequestException"),
        ({"FromEmailAddress": ""}, 400, "BadRequestException"),
        ({"FromEmailAddress": "X <x@unverified.example>"}, 400, "MessageRejected"),
    ],
)
def test_an_email_that_is_refused_leaves_nothing(
    simulator: RunningSimulator, change: dict[str, Any], status: int, code: str
) -> None:
    answer = call(simulator, "POST", EMAILS, letter(**change), SIGNED)
    assert (answer.status, answer.headers["x-amzn-errortype"].partition(":")[0]) == (status, code)
    assert simulator.control.effects() == []


def test_an_email_that_is_not_signed_for_ses_by_a_known_key_is_refused(simulator: RunningSimulator) -> None:
    good = SIGNED["authorization"]
    for wrong in ("", "Basic x", good.replace("/ses/", "/s3/"), good.replace(";x-amz-date", ""), good[:-1]):
        assert call(simulator, "POST", EMAILS, letter(), {"authorization": wrong}).status == 403
    simulator.control.accept_keys(email=["another"])
    assert call(simulator, "POST", EMAILS, letter(), SIGNED).status == 403
    assert call(simulator, "GET", EMAILS, headers=SIGNED).status == 404
    with pytest.raises(SimulatorRefused):
        simulator.control.accept_keys(fax=["x"])
