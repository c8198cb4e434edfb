"""The SMS adapter: each outcome says what is known about the other side, over a mock transport and sockets."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.adapters.http import HttpCaller
from functions.adapters.ssm import UnusableSecret
from functions.adapters.twilio import MAX_PAGES, PAGE_SIZE, SEND, TwilioProvider, reference_of
from functions.core.decision import Action, MessageRef, Repeat
from functions.core.failure import Done, Failure, FailureClass, StorageUnavailable
from functions.core.person import OPTED_OUT_THERE
from functions.core.ports import Absent, Call, Provider
from ops.simulator import Fault, FaultMode, RunningSimulator, serve
from tests.contract.provider_world import (
    CLOCK,
    KEY,
    OverMock,
    OverSockets,
    ProviderWorld,
    SecretDouble,
    SecretsDouble,
    about,
)

NUMBER, OTHER = "+491701234567", "+491707654321"
ACCOUNT = "AC" + "0" * 31 + "a"
SERVICE = "MG" + "0" * 32
EXTRA = {"account_sid": ACCOUNT, "from": "+15005550006"}
TEXTS = {("invite", 1): "You are invited.\n", ("long", 1): "x" * 1600}


def render(message: MessageRef) -> str:
    return TEXTS[(message.id, message.version)]


def action(name: str = "invite", **content: Any) -> Action:
    message = MessageRef("invite", 1)
    whole = Action(
        name, SEND, "sms", Repeat.LOOKUP, "t-17", **{"message": message, "customer_visible": True, **content}
    )
    return whole.bound("acme", f"demo:{name}", 0)


INVITE, AGAIN = action(), action("invite_again")


@pytest.fixture(scope="module")
def simulator() -> Iterator[RunningSimulator]:
    with serve() as running:
        yield running


@pytest.fixture(params=["mock", "sockets"])
def world(request: pytest.FixtureRequest, simulator: RunningSimulator) -> ProviderWorld:
    return OverMock() if request.param == "mock" else OverSockets(simulator)


@pytest.fixture
def secrets(world: ProviderWorld) -> SecretsDouble:
    return SecretsDouble(SecretDouble(world.sms_url, extra=EXTRA))


@pytest.fixture
async def sms(world: ProviderWorld, secrets: SecretsDouble) -> AsyncIterator[TwilioProvider]:
    caller = world.caller()
    yield TwilioProvider(caller, secrets, CLOCK, render)
    await caller.aclose()


def to(contact: str = NUMBER, seconds: float = 30.0, **fields: Any) -> Call:
    call = about(seconds)
    return replace(call, tenant="acme", contact=contact, decided_at_ms=CLOCK.now_ms() - 60_000, **fields)


def failed(outcome: object) -> Failure:
    assert isinstance(outcome, Failure), outcome
    return outcome


async def test_a_text_is_sent_with_its_reference_and_a_lookup_finds_it_by_that(
    world: ProviderWorld, sms: TwilioProvider
) -> None:
    assert await sms.look_up(INVITE, to()) == Absent()
    outcome = await sms.send(INVITE, to())
    (text,) = world.texts(NUMBER)
    assert outcome == Done(text["sid"])
    assert text["body"] == f"You are invited.\n{reference_of(INVITE.action_id)}"
    assert (text["from"], text["to"]) == ("+15005550006", NUMBER)
    assert await sms.look_up(INVITE, to()) == outcome
    assert await sms.look_up(INVITE, to(OTHER)) == Absent()


async def test_a_text_that_was_carried_out_twice_is_found_twice(world: ProviderWorld, sms: TwilioProvider) -> None:
    world.add_faults(Fault("sms", FaultMode.TWICE, times=1))
    assert failed(await sms.send(INVITE, to())).may_have_happened
    found = await sms.look_up(INVITE, to())
    assert isinstance(found, Done)
    assert (found.times, len(world.texts(NUMBER))) == (2, 2)


def listed(number: int, body: str, status: str = "delivered") -> dict[str, Any]:
    return {"sid": f"SM{number:032x}", "direction": "outbound-api", "status": status, "body": body}


OURS = f"You are invited.\n{reference_of(INVITE.action_id)}"
QUOTED = f"About {reference_of(INVITE.action_id)}: call us."


@pytest.mark.parametrize(
    ("newest_first", "times"),
    [
        ([listed(2, QUOTED), listed(1, OURS)], 1),  # a person of ours answers by the same number, and names it
        ([listed(3, QUOTED), listed(2, QUOTED), listed(1, OURS)], 1),
        ([listed(3, QUOTED), listed(2, OURS), listed(1, OURS)], 2),
        ([listed(1, OURS), listed(1, OURS)], 1),  # one that came between two pages
        ([listed(2, OURS), listed(1, OURS, "undelivered")], 1),  # a person has replayed what reached nobody
        ([listed(2, OURS, "failed"), listed(1, OURS)], 1),  # nor may that be replayed once more
    ],
)
async def test_twice_is_what_was_sent_twice_and_reached_somebody_twice(
    newest_first: list[dict[str, Any]], times: int
) -> None:
    page = {"messages": newest_first, "next_page_uri": None}
    found = await _with_handler(lambda _: httpx.Response(200, json=page), "look_up")
    assert isinstance(found, Done), found
    assert found.times == times


async def test_two_equal_texts_to_one_person_are_told_apart(world: ProviderWorld, sms: TwilioProvider) -> None:
    first = await sms.send(INVITE, to())
    assert await sms.look_up(AGAIN, to()) == Absent()
    second = await sms.send(AGAIN, to())
    assert (await sms.look_up(INVITE, to()), await sms.look_up(AGAIN, to())) == (first, second)
    assert first != second
    assert len(world.texts(NUMBER)) == 2


async def test_the_effect_carries_the_ids_by_which_it_can_be_found(world: ProviderWorld, sms: TwilioProvider) -> None:
    await sms.send(INVITE, to())
    (effect,) = world.effects()
    assert effect.headers == {
        "x-request-id": "request-1",
        "traceparent": about().traceparent,
        "idempotency-key": INVITE.action_id,
    }
    assert effect.key == reference_of(INVITE.action_id).removeprefix("Ref ")


@pytest.mark.parametrize(
    ("extra", "sender"),
    [
        ({"account_sid": ACCOUNT, "messaging_service_sid": SERVICE}, (None, SERVICE)),
        ({"account_sid": ACCOUNT, "from": "Holdfast"}, ("Holdfast", None)),
        ({"account_sid": ACCOUNT, "from": "73737", "api_key_sid": "SK" + "1" * 32}, ("73737", None)),
    ],
)
async def test_who_sends_is_what_the_parameter_says(
    world: ProviderWorld, sms: TwilioProvider, secrets: SecretsDouble, extra: dict[str, str], sender: Any
) -> None:
    secrets.cached = replace(secrets.cached, extra=extra)
    assert isinstance(await sms.send(INVITE, to()), Done)
    (text,) = world.texts(NUMBER)
    assert (text["from"], text["messaging_service_sid"]) == sender


async def test_the_account_or_its_key_proves_who_we_are() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode())
        return httpx.Response(201, json={"sid": "SM" + "1" * 32, "status": "queued"})

    for extra in (EXTRA, {**EXTRA, "api_key_sid": "SK" + "1" * 32}):
        await _with_handler(handler, extra=extra)
    assert seen == [f"{ACCOUNT}:{KEY}", f"SK{'1' * 32}:{KEY}"]


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("number", "code", "failure_class", "is_retryable"),
    [
        ("+15005550001", "CONTACT_INVALID", FailureClass.DATA_ERROR, False),
        ("+15005550002", "CONTACT_INVALID", FailureClass.DATA_ERROR, False),
        ("+15005550003", "HTTP_400", FailureClass.DATA_ERROR, False),
        ("+15005550004", OPTED_OUT_THERE, FailureClass.DATA_ERROR, False),
        ("+15005550009", "CONTACT_INVALID", FailureClass.DATA_ERROR, False),
    ],
)
async def test_what_the_provider_says_of_a_number_is_definite_and_quotes_it_nowhere(
    world: ProviderWorld,
    sms: TwilioProvider,
    number: str,
    code: str,
    failure_class: FailureClass,
    is_retryable: bool,
) -> None:
    """001.30: bad contacts have a code of their own, so that their rate can be seen."""
    failure = failed(await sms.send(INVITE, to(number)))
    assert (failure.code, failure.failure_class, failure.is_retryable) == (code, failure_class, is_retryable)
    assert (failure.may_have_happened, failure.status) == (False, 400)
    assert number not in repr(failure)
    assert number.removeprefix("+") not in repr(failure)
    assert json.loads(failure.answer)["status"] == 400
    assert world.texts(number) == []


async def test_a_full_queue_of_the_sender_is_a_rate_limit(
    world: ProviderWorld, sms: TwilioProvider, secrets: SecretsDouble
) -> None:
    secrets.cached = replace(secrets.cached, extra={**EXTRA, "from": "+15005550008"})
    failure = failed(await sms.send(INVITE, to()))
    assert (failure.failure_class, failure.code) == (FailureClass.RATE_LIMITED, "HTTP_429")
    assert (failure.is_retryable, failure.may_have_happened) == (True, False)
    assert json.loads(failure.answer)["status"] in (400, 429)


@pytest.mark.parametrize(
    ("status", "failure_class", "is_retryable", "may_have_happened"),
    [
        (302, FailureClass.TRANSIENT, False, True),
        (400, FailureClass.DATA_ERROR, False, False),
        (401, FailureClass.AUTH_ERROR, False, False),
        (403, FailureClass.AUTH_ERROR, False, False),
        (404, FailureClass.DATA_ERROR, False, False),
        (408, FailureClass.TRANSIENT, True, True),
        (409, FailureClass.TRANSIENT, True, True),
        (425, FailureClass.TRANSIENT, True, False),
        (429, FailureClass.RATE_LIMITED, True, False),
        (500, FailureClass.TRANSIENT, True, True),
        (503, FailureClass.TRANSIENT, True, True),
    ],
)
async def test_a_status_says_whether_it_may_have_happened_and_whether_to_try_again(
    world: ProviderWorld,
    sms: TwilioProvider,
    status: int,
    failure_class: FailureClass,
    is_retryable: bool,
    may_have_happened: bool,
) -> None:
    world.add_faults(Fault("sms", FaultMode.STATUS, status=status, headers={"location": "/elsewhere"}))
    failure = failed(await sms.send(INVITE, to()))
    assert failure.status == status
    assert (failure.failure_class, failure.is_retryable) == (failure_class, is_retryable)
    assert failure.may_have_happened is may_have_happened
    assert world.request_count() == 1  # neither a retry nor a redirect


@pytest.mark.parametrize(
    ("status", "body", "wait_ms"),
    [
        (429, {"code": 20429, "message": "Too Many Requests", "status": 429}, 7_000),
        (400, {"code": 20429, "message": "Too Many Requests", "status": 400}, 7_000),
        (429, {"code": "20429"}, 7_000),
    ],
)
async def test_a_rate_limit_is_one_by_status_or_by_code_and_its_wait_is_kept(
    status: int, body: dict[str, Any], wait_ms: int
) -> None:
    answer = httpx.Response(status, json=body, headers={"retry-after": "7"})
    failure = failed(await _with_handler(lambda _: answer))
    assert (failure.failure_class, failure.retry_after_ms) == (FailureClass.RATE_LIMITED, wait_ms)


@pytest.mark.parametrize("status", [500, 503, 408, 409])
async def test_a_code_promises_nothing_where_the_status_does_not(status: int) -> None:
    """A router can put any body behind a 5xx; that nobody opted out is not for it to say either."""
    answer = httpx.Response(status, json={"code": 21610, "message": "m", "status": 400})
    failure = failed(await _with_handler(lambda _: answer))
    assert (failure.may_have_happened, failure.code) == (True, f"HTTP_{status}")


async def test_a_status_that_the_catalog_calls_definite_is(world: ProviderWorld, secrets: SecretsDouble) -> None:
    caller = world.caller()
    sms = TwilioProvider(caller, secrets, CLOCK, render, definite_statuses=frozenset({503}))
    world.add_faults(Fault("sms", FaultMode.STATUS, status=503))
    assert failed(await sms.send(INVITE, to())).may_have_happened is False
    await caller.aclose()


# ------------------------------------------------------------------------------------------------- answers that failed


@pytest.mark.parametrize(
    ("mode", "has_effect"),
    [
        (FaultMode.RESET, False),
        (FaultMode.HANG, False),
        (FaultMode.DROP_RESPONSE, True),
        (FaultMode.STATUS_AFTER_EFFECT, True),
        (FaultMode.WRONG_CONTENT_TYPE, True),
    ],
)
async def test_an_answer_that_never_came_leaves_the_outcome_open_and_a_lookup_finds_exactly_one(
    world: ProviderWorld, sms: TwilioProvider, mode: FaultMode, has_effect: bool
) -> None:
    world.add_faults(Fault("sms", mode, operation="send", times=1))
    failure = failed(await sms.send(INVITE, to(seconds=1.0 if mode is FaultMode.HANG else 30.0)))
    assert (failure.failure_class, failure.may_have_happened) == (FailureClass.TRANSIENT, True)
    found = await sms.look_up(INVITE, to())
    assert isinstance(found, Done) is has_effect
    assert len(world.texts(NUMBER)) == has_effect
    if isinstance(found, Done):
        assert found.provider_id == world.texts(NUMBER)[0]["sid"]


@pytest.mark.parametrize("mode", [FaultMode.MALFORMED, FaultMode.TRUNCATE, FaultMode.SLOW_BODY])
async def test_a_success_whose_body_is_lost_is_done_without_an_id(
    world: ProviderWorld, sms: TwilioProvider, mode: FaultMode
) -> None:
    world.add_faults(Fault("sms", mode, seconds=30))
    assert await sms.send(INVITE, to(seconds=1.5 if mode is FaultMode.SLOW_BODY else 30.0)) == Done()
    assert len(world.texts(NUMBER)) == 1


@pytest.mark.parametrize(
    "mode",
    [
        FaultMode.MALFORMED,
        FaultMode.TRUNCATE,
        FaultMode.WRONG_CONTENT_TYPE,
        FaultMode.RESET,
        FaultMode.HANG,
        FaultMode.STATUS,
        FaultMode.SLOW_BODY,
    ],
)
async def test_a_lookup_that_cannot_be_read_never_says_absent(
    world: ProviderWorld, sms: TwilioProvider, mode: FaultMode
) -> None:
    world.add_faults(Fault("sms", mode, seconds=30))
    failure = failed(await sms.look_up(INVITE, to(seconds=1.0)))
    assert (failure.is_retryable, failure.may_have_happened) == (True, False)


@pytest.mark.parametrize("status", ["failed", "undelivered", "canceled"])
async def test_a_text_that_the_provider_took_and_did_not_deliver_is_not_called_done(
    world: ProviderWorld, sms: TwilioProvider, status: str
) -> None:
    await sms.send(INVITE, to())
    world.change_texts(NUMBER, {"status": status, "error_code": 30003})
    failure = failed(await sms.look_up(INVITE, to()))
    assert (failure.code, failure.is_retryable) == ("NOT_DELIVERED", False)
    assert "30003" in failure.detail
    assert world.texts(NUMBER)[0]["sid"] in failure.detail
    made = {"sid": "SM" + "1" * 32, "status": status, "error_code": 30007}
    assert failed(await _with_handler(lambda _: httpx.Response(201, json=made))).code == "NOT_DELIVERED"


async def test_a_text_that_a_trial_account_puts_words_before_is_found(
    world: ProviderWorld, sms: TwilioProvider
) -> None:
    await sms.send(INVITE, to())
    world.change_texts(NUMBER, {"body": "Sent from your Twilio trial account - " + world.texts(NUMBER)[0]["body"]})
    assert isinstance(await sms.look_up(INVITE, to()), Done)


async def test_a_redacted_text_of_that_time_may_be_ours_and_an_older_one_is_not(
    world: ProviderWorld, sms: TwilioProvider
) -> None:
    await sms.send(AGAIN, to())
    world.change_texts(NUMBER, {"body": ""})
    assert failed(await sms.look_up(INVITE, to())).code == "CONTENT_REDACTED"
    later = replace(to(), decided_at_ms=CLOCK.now_ms() + 3_600_000)
    assert await sms.look_up(INVITE, later) == Absent()


async def test_a_number_that_is_another_one_since_tells_nothing(world: ProviderWorld, sms: TwilioProvider) -> None:
    call = to(contact_since_ms=CLOCK.now_ms())
    failure = failed(await sms.look_up(INVITE, call))
    assert (failure.code, failure.is_retryable, failure.may_have_happened) == ("CONTACT_CHANGED", False, False)
    assert world.request_count() == 0
    assert isinstance(await sms.send(INVITE, call), Done)  # where nothing was sent before, there is nothing to tell


async def test_a_lookup_goes_through_all_pages(world: ProviderWorld, sms: TwilioProvider) -> None:
    first = await sms.send(INVITE, to())
    others = [replace(AGAIN, action_id=f"{number:064x}") for number in range(PAGE_SIZE * 2)]
    await asyncio.gather(*(sms.send(other, to()) for other in others))
    assert await sms.look_up(INVITE, to()) == first
    assert await sms.look_up(action("never sent"), to()) == Absent()


# ---------------------------------------------------------------------------------------------- before anything is sent


@pytest.mark.parametrize(
    ("contact", "code"),
    [
        ("", "NO_CONTACT"),
        ("0170 1234567", "CONTACT_INVALID"),
        ("+49 170 1234567", "CONTACT_INVALID"),
        ("+0123456789", "CONTACT_INVALID"),
        ("+1", "CONTACT_INVALID"),
        ("+" + "1" * 16, "CONTACT_INVALID"),
        ("+491701234567\n", "CONTACT_INVALID"),
        ("+491701234567&From=+1900", "CONTACT_INVALID"),
        ("whatsapp:+491701234567", "CONTACT_INVALID"),
        ("+４９１７０１２３４５６７", "CONTACT_INVALID"),  # digits of another width
    ],
)
async def test_a_contact_that_is_no_number_is_refused_before_anything_is_sent(
    world: ProviderWorld, sms: TwilioProvider, contact: str, code: str
) -> None:
    for outcome in (await sms.send(INVITE, to(contact)), await sms.look_up(INVITE, to(contact))):
        failure = failed(outcome)
        assert (failure.code, failure.may_have_happened) == (code, False)
        assert not contact or contact not in repr(failure)
    assert world.request_count() == 0


@pytest.mark.parametrize(
    ("what", "code"),
    [
        (replace(INVITE, message=MessageRef("invite", 9)), "MESSAGE_UNKNOWN"),
        (replace(INVITE, message=None), "PARAMS_INVALID"),
        (replace(INVITE, message=MessageRef("long", 1)), "MESSAGE_TOO_LONG"),
        (replace(INVITE, kind="sms.call"), "KIND_UNKNOWN"),
    ],
)
async def test_an_action_that_cannot_be_carried_out_is_a_data_error_and_nothing_is_sent(
    world: ProviderWorld, sms: TwilioProvider, what: Action, code: str
) -> None:
    failure = failed(await sms.send(what, to()))
    assert (failure.code, failure.failure_class, failure.is_retryable) == (code, FailureClass.DATA_ERROR, False)
    assert world.request_count() == 0


async def test_nothing_is_sent_when_no_time_is_left(world: ProviderWorld, sms: TwilioProvider) -> None:
    for seconds in (0.0, -5.0):
        assert failed(await sms.send(INVITE, to(seconds=seconds))).may_have_happened is False
    assert world.request_count() == 0


async def test_a_text_sets_nothing_that_could_be_read(sms: TwilioProvider) -> None:
    provider: Provider = sms
    assert failed(await provider.read_setting(INVITE, to())).code == "KIND_UNKNOWN"
    assert provider.wanted(INVITE) == ""


# ------------------------------------------------------------------------------------------------------- credentials


async def test_a_rotated_token_is_refused_until_the_credential_is_read_again(
    world: ProviderWorld, sms: TwilioProvider, secrets: SecretsDouble
) -> None:
    world.accept_keys(["key-2"])
    secrets.stored = replace(secrets.cached, credential="key-2", version="2")
    assert failed(await sms.send(INVITE, to())).failure_class is FailureClass.AUTH_ERROR
    assert failed(await sms.look_up(INVITE, to())).failure_class is FailureClass.AUTH_ERROR
    assert sms.refresh_credential() == "2"
    assert isinstance(await sms.send(INVITE, to()), Done)


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"account_sid": ACCOUNT},
        {"from": "+15005550006"},
        {"account_sid": "AC/../..", "from": "+15005550006"},
        {"account_sid": ["AC"], "from": "+15005550006"},
        {"account_sid": ACCOUNT, "from": "+15005550006", "messaging_service_sid": SERVICE},
        {"account_sid": ACCOUNT, "from": "a name that is far too long"},
        {"account_sid": ACCOUNT, "from": "x&To=+1900"},
        {"account_sid": ACCOUNT, "messaging_service_sid": "MG1"},
        {"account_sid": ACCOUNT, "from": "+15005550006", "api_key_sid": "SK1"},
    ],
)
async def test_a_parameter_that_names_no_account_or_sender_stands_like_a_refused_credential(
    world: ProviderWorld, sms: TwilioProvider, secrets: SecretsDouble, extra: dict[str, Any]
) -> None:
    secrets.cached = replace(secrets.cached, extra=extra)
    for outcome in (await sms.send(INVITE, to()), await sms.look_up(INVITE, to())):
        failure = failed(outcome)
        assert (failure.code, failure.failure_class) == ("CREDENTIAL_MALFORMED", FailureClass.AUTH_ERROR)
        assert not [text for text in extra.values() if isinstance(text, str) and text in failure.detail]
    assert world.request_count() == 0


async def test_a_parameter_store_that_is_down_or_wrong_is_no_outcome_of_the_provider(
    world: ProviderWorld, sms: TwilioProvider, secrets: SecretsDouble
) -> None:
    secrets.error = StorageUnavailable("the parameter store does not answer")
    down = failed(await sms.send(INVITE, to()))
    assert (down.code, down.is_retryable, down.may_have_happened) == ("CREDENTIAL_UNREADABLE", True, False)
    assert failed(await sms.look_up(INVITE, to())).code == "CREDENTIAL_UNREADABLE"
    with pytest.raises(StorageUnavailable):
        sms.refresh_credential()
    secrets.error = UnusableSecret("the secret of sms is not JSON")
    assert failed(await sms.send(INVITE, to())).code == "CREDENTIAL_MALFORMED"
    assert world.request_count() == 0


async def test_neither_a_number_nor_a_secret_is_ever_logged(
    world: ProviderWorld, sms: TwilioProvider, caplog: pytest.LogCaptureFixture
) -> None:
    world.add_faults(Fault("sms", FaultMode.STATUS, status=500, times=1))
    with caplog.at_level(logging.INFO):
        for outcome in (
            await sms.send(INVITE, to()),
            await sms.send(INVITE, to()),
            await sms.look_up(INVITE, to()),
            await sms.send(INVITE, to("+15005550001")),
        ):
            assert NUMBER not in repr(outcome)
    text = caplog.text + repr([record.__dict__ for record in caplog.records])
    assert not [secret for secret in (NUMBER, NUMBER[1:], "15005550001", KEY) if secret in text]


async def test_cancelling_a_call_ends_it_and_leaves_the_adapter_usable(
    world: ProviderWorld, sms: TwilioProvider
) -> None:
    world.add_faults(Fault("sms", FaultMode.HANG, times=1))
    call = asyncio.create_task(sms.send(INVITE, to()))
    while not world.fired():  # noqa: ASYNC110  # the event is in another process or thread
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert isinstance(await sms.send(INVITE, to()), Done)


# --- what only one world can show ---


async def _with_handler(
    handler: Callable[[httpx.Request], httpx.Response], kind: str = "send", extra: dict[str, str] = EXTRA
) -> object:
    caller = HttpCaller(CLOCK, lambda: httpx.MockTransport(handler))
    secrets = SecretsDouble(SecretDouble("https://api.twilio.com", extra=extra))
    sms = TwilioProvider(caller, secrets, CLOCK, render)
    outcome: object = await (sms.send(INVITE, to()) if kind == "send" else sms.look_up(INVITE, to()))
    await caller.aclose()
    return outcome


async def test_a_body_without_end_is_cut_off_and_is_still_a_success_of_a_send() -> None:
    def endless(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b" " * (1024 * 1024 + 1))

    assert await _with_handler(endless) == Done()
    assert failed(await _with_handler(endless, "look_up")).code == "PROTOCOL_ERROR"


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b"null",
        b'{"messages": []}',
        b'{"messages": null, "next_page_uri": null}',
        b'{"messages": [1], "next_page_uri": null}',
        b'{"messages": [{"sid": "SM1"}], "next_page_uri": null}',
        b'{"messages": [], "next_page_uri": 1}',
        b"[" * 100_000,
        b"\xff",
    ],
)
async def test_a_strange_answer_to_a_lookup_never_says_absent(body: bytes) -> None:
    assert failed(await _with_handler(lambda _: httpx.Response(200, content=body), "look_up")).is_retryable


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b'{"sid": 1, "status": "failed"}', b'{"sid": "x y", "status": "queued"}']
)
async def test_a_strange_success_is_done_without_an_id(body: bytes) -> None:
    assert await _with_handler(lambda _: httpx.Response(201, content=body)) == Done()


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/2010-04-01/Accounts/x/Messages.json?Page=1&PageToken=PA1",
        "//evil.example/?Page=1&PageToken=PA1&To=%2B1900",
        "/2010-04-01/Accounts/../../x?Page=1&PageToken=PA1",
    ],
)
async def test_the_next_page_is_asked_for_where_we_say_and_nowhere_else(uri: str) -> None:
    asked: list[httpx.URL] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        return httpx.Response(200, json={"messages": [], "next_page_uri": uri if len(asked) == 1 else None})

    assert await _with_handler(handler, "look_up") == Absent()
    assert {(url.host, url.path) for url in asked} == {
        ("api.twilio.com", f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json")
    }
    assert [dict(url.params) for url in asked] == [
        {"To": NUMBER, "PageSize": str(PAGE_SIZE)},
        {"To": NUMBER, "PageSize": str(PAGE_SIZE), "Page": "1", "PageToken": "PA1"},
    ]


@pytest.mark.parametrize(
    "uri",
    ["", "/x", "/x?Page=1", "/x?PageToken=PA1", "/x?Page=-1&PageToken=a", "http://[", "/x?Page=1&PageToken=a%0d%0ab"],
)
async def test_a_next_page_that_cannot_be_asked_for_never_says_absent(uri: str) -> None:
    answer = httpx.Response(200, json={"messages": [], "next_page_uri": uri})
    assert failed(await _with_handler(lambda _: answer, "look_up")).is_retryable


async def test_a_list_without_end_is_given_up_and_a_person_decides() -> None:
    asked = 0

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return httpx.Response(200, json={"messages": [], "next_page_uri": f"/x?Page={asked}&PageToken=PA1"})

    failure = failed(await _with_handler(handler, "look_up"))
    assert (failure.code, failure.is_retryable) == ("TOO_MANY_MESSAGES", False)
    assert asked == MAX_PAGES


async def test_a_text_that_they_sent_us_is_not_ours_whatever_it_quotes() -> None:
    reference = reference_of(INVITE.action_id)
    message = {"sid": "SM" + "1" * 32, "direction": "inbound", "status": "received", "body": f"what is {reference}?"}
    answer = httpx.Response(200, json={"messages": [message], "next_page_uri": None})
    assert await _with_handler(lambda _: answer, "look_up") == Absent()


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=2, max_size=2, unique=True))
def test_a_reference_is_of_one_action_and_can_be_read_aloud(ids: list[bytes]) -> None:
    one, other = (reference_of(each.hex()) for each in ids)
    assert (one == other) is (ids[0][:5] == ids[1][:5])
    assert one.isascii()
    assert len(one) == len("Ref 7K2M9QXD")
    assert not set(one.removeprefix("Ref ")) & set("ILOUilou")


def test_a_form_says_what_a_json_body_would(simulator: RunningSimulator) -> None:
    """Signs that mean something in a form arrive as what they are."""
    sent: list[bytes] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(request.content)
        assert request.headers["content-type"] == "application/x-www-form-urlencoded"
        return httpx.Response(201, json={"sid": "SM" + "1" * 32, "status": "queued"})

    TEXTS["signs", 1] = "50 % & more = ü + 😀\nbye"
    caller = HttpCaller(CLOCK, lambda: httpx.MockTransport(handler))
    sms = TwilioProvider(caller, SecretsDouble(SecretDouble("https://api.twilio.com", extra=EXTRA)), CLOCK, render)
    what = replace(INVITE, message=MessageRef("signs", 1))
    assert isinstance(asyncio.run(sms.send(what, to())), Done)
    form = dict(httpx.QueryParams(sent[0].decode()))
    assert form == {
        "To": NUMBER,
        "Body": f"50 % & more = ü + 😀\nbye\n{reference_of(INVITE.action_id)}",
        "From": "+15005550006",
    }
    assert json.dumps(form)
