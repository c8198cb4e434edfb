"""The email adapter: each outcome says what is known about the other side, over a mock transport and sockets."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as Judged

from functions.adapters.http import HttpCaller
from functions.adapters.ses import SEND, SesProvider, is_address
from functions.adapters.sigv4 import Credentials
from functions.adapters.ssm import UnusableSecret
from functions.core.attempt import interpret
from functions.core.decision import Action, MessageRef, Repeat
from functions.core.failure import Done, Failure, FailureClass, RootCause, StorageUnavailable
from functions.core.health import CallOutcome, outcome_of
from functions.core.integration import KindRules
from functions.core.ports import Call, Provider
from ops.simulator import Fault, FaultMode, RunningSimulator, serve
from tests.contract.provider_world import (
    CLOCK,
    OverMock,
    OverSockets,
    ProviderWorld,
    SecretDouble,
    SecretsDouble,
    about,
)

ADDRESS = "ann@example.com"
EXTRA = {"from": "Holdfast <hello@holdfast.example>", "subject": "A message"}
TEXTS = {("invite", 1): "You are invited: für Sie 😀.", ("plain", 1): "Hello."}
SUBJECTS = {("invite", 1): "Your invitation – für Sie"}
KEYS = Credentials("key-1", "a-secret-that-nobody-sees", "a-token-of-a-session")


def render(message: MessageRef) -> str:
    return TEXTS[(message.id, message.version)]


def subject_of(message: MessageRef) -> str:
    return SUBJECTS.get((message.id, message.version), "")


def action(name: str = "invite", **content: Any) -> Action:
    message = MessageRef("invite", 1)
    whole = Action(
        name, SEND, "email", Repeat.BLIND, "t-17", **{"message": message, "customer_visible": True, **content}
    )
    return whole.bound("acme", f"demo:{name}", 0)


INVITE = action()


@pytest.fixture(scope="module")
def simulator() -> Iterator[RunningSimulator]:
    with serve() as running:
        yield running


@pytest.fixture(params=["mock", "sockets"])
def world(request: pytest.FixtureRequest, simulator: RunningSimulator) -> ProviderWorld:
    return OverMock() if request.param == "mock" else OverSockets(simulator)


@pytest.fixture
def secrets(world: ProviderWorld) -> SecretsDouble:
    return SecretsDouble(SecretDouble(world.email_url, credential="role", extra=EXTRA))


def provider_of(caller: HttpCaller, secrets: SecretsDouble, **more: Any) -> SesProvider:
    given = {"region": "eu-west-1", "credentials": lambda: KEYS, **more}
    return SesProvider(caller, secrets, CLOCK, render, subject_of, **given)


@pytest.fixture
async def email(world: ProviderWorld, secrets: SecretsDouble) -> AsyncIterator[SesProvider]:
    caller = world.caller()
    yield provider_of(caller, secrets)
    await caller.aclose()


def to(contact: str = ADDRESS, seconds: float = 30.0) -> Call:
    return replace(about(seconds), tenant="acme", contact=contact)


def failed(outcome: object) -> Failure:
    assert isinstance(outcome, Failure), outcome
    return outcome


async def test_an_email_is_sent_to_one_address_and_says_which_action_it_is_for(
    world: ProviderWorld, email: SesProvider
) -> None:
    outcome = await email.send(INVITE, to())
    (effect,) = world.effects()
    assert outcome == Done(effect.detail["message_id"])
    assert (effect.target, effect.key) == (ADDRESS, INVITE.action_id)
    assert effect.detail["subject"] == SUBJECTS["invite", 1]
    assert effect.headers == {
        "x-request-id": "request-1",
        "traceparent": about().traceparent,
        "idempotency-key": INVITE.action_id,
    }


async def test_what_goes_out_is_what_ses_documents_and_what_was_signed() -> None:
    """The judge is botocore's own signer, over the very bytes that arrived."""
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"MessageId": "0100-1"})

    extra = {**EXTRA, "reply_to": "support@holdfast.example", "configuration_set": "holdfast"}
    assert await _with_handler(handler, extra=extra) == Done("0100-1")
    (request,) = seen
    assert json.loads(request.content) == {
        "FromEmailAddress": "Holdfast <hello@holdfast.example>",
        "Destination": {"ToAddresses": [ADDRESS]},
        "ReplyToAddresses": ["support@holdfast.example"],
        "ConfigurationSetName": "holdfast",
        "EmailTags": [{"Name": "action_id", "Value": INVITE.action_id}, {"Name": "tenant", "Value": "acme"}],
        "Content": {
            "Simple": {
                "Subject": {"Data": SUBJECTS["invite", 1], "Charset": "UTF-8"},
                "Body": {"Text": {"Data": TEXTS["invite", 1], "Charset": "UTF-8"}},
            }
        },
    }
    assert str(request.url) == "https://email.eu-central-1.amazonaws.com/v2/email/outbound-emails"
    assert (request.headers["content-type"], request.headers["host"]) == (
        "application/json",
        "email.eu-central-1.amazonaws.com",
    )
    assert "/eu-central-1/ses/aws4_request" in request.headers["authorization"]
    assert _judged(request, "eu-central-1") == request.headers["authorization"]


def _judged(request: httpx.Request, region: str) -> str:
    """The authorization that botocore gives the same request at the same moment."""
    names = request.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    judge = SigV4Auth(Judged(KEYS.access_key, KEYS.secret_key, KEYS.token), "ses", region)
    judged = AWSRequest("POST", str(request.url), headers={name: request.headers[name] for name in names})
    judged.data = request.content
    judged.context["timestamp"] = request.headers["x-amz-date"]
    canonical = judge.canonical_request(judged)
    return (
        f"AWS4-HMAC-SHA256 Credential={judge.scope(judged)}, SignedHeaders={';'.join(names)}, "
        f"Signature={judge.signature(judge.string_to_sign(judged, canonical), judged)}"
    )


async def test_without_a_region_in_the_address_it_is_the_functions_own(
    world: ProviderWorld, secrets: SecretsDouble
) -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(200, json={"MessageId": "1"})

    await _with_handler(handler, base_url="http://127.0.0.1:8080/ses")
    assert "/eu-west-1/ses/aws4_request" in seen[0]


async def test_a_message_without_a_subject_has_the_parameters_own_or_is_not_sent(
    world: ProviderWorld, email: SesProvider, secrets: SecretsDouble
) -> None:
    plain = action("plain", message=MessageRef("plain", 1))
    assert isinstance(await email.send(plain, to()), Done)
    assert world.effects()[0].detail["subject"] == "A message"
    secrets.cached = replace(secrets.cached, extra={"from": EXTRA["from"]})
    assert failed(await email.send(plain, to())).code == "PARAMS_INVALID"
    assert len(world.effects()) == 1


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("status", "error", "code", "failure_class", "is_retryable"),
    [
        (400, "MessageRejected", "MESSAGE_REJECTED", FailureClass.DATA_ERROR, False),
        (400, "BadRequestException", "HTTP_400", FailureClass.DATA_ERROR, False),
        (400, "AccountSuspendedException", "SENDER_NOT_ALLOWED", FailureClass.DATA_ERROR, False),
        (400, "MailFromDomainNotVerifiedException", "SENDER_NOT_ALLOWED", FailureClass.DATA_ERROR, False),
        (400, "SendingPausedException", "SENDING_PAUSED", FailureClass.TRANSIENT, True),
        (404, "NotFoundException", "HTTP_404", FailureClass.DATA_ERROR, False),
        (400, "LimitExceededException", "HTTP_429", FailureClass.RATE_LIMITED, True),
        (400, "ThrottlingException", "HTTP_429", FailureClass.RATE_LIMITED, True),
        (429, "TooManyRequestsException", "HTTP_429", FailureClass.RATE_LIMITED, True),
        (403, "ExpiredTokenException", "ROLE_NOT_ACCEPTED", FailureClass.AUTH_ERROR, True),
        (403, "UnrecognizedClientException", "ROLE_NOT_ACCEPTED", FailureClass.AUTH_ERROR, True),
        (403, "AccessDeniedException", "ROLE_NOT_PERMITTED", FailureClass.AUTH_ERROR, True),
        (403, "SignatureDoesNotMatch", "ROLE_NOT_ACCEPTED", FailureClass.AUTH_ERROR, True),
    ],
)
@pytest.mark.parametrize("place", ["header", "body"])
async def test_what_ses_itself_refuses_was_not_sent(
    status: int, error: str, code: str, failure_class: FailureClass, is_retryable: bool, place: str
) -> None:
    text = {"message": f"Email address is not verified: {ADDRESS}"}
    body = text if place == "header" else {**text, "__type": f"com.amazonaws.ses#{error}"}
    headers = {"x-amzn-errortype": f"{error}:http://internal.amazon.com/"} if place == "header" else {}
    failure = failed(await _with_handler(lambda _: httpx.Response(status, json=body, headers=headers)))
    assert (failure.code, failure.failure_class, failure.is_retryable) == (code, failure_class, is_retryable)
    assert failure.may_have_happened is False
    assert error in failure.detail
    assert ADDRESS not in repr(failure)
    assert json.loads(failure.answer)["status"] == status
    blind = KindRules(SEND, Repeat.BLIND)
    assert interpret(blind, failure) == failure  # definite: no person has to find out


@pytest.mark.parametrize(
    ("status", "failure_class", "is_retryable", "may_have_happened"),
    [
        (302, FailureClass.TRANSIENT, False, True),
        (400, FailureClass.DATA_ERROR, False, False),
        (403, FailureClass.AUTH_ERROR, True, False),
        (404, FailureClass.DATA_ERROR, False, False),
        (408, FailureClass.TRANSIENT, True, True),
        (429, FailureClass.RATE_LIMITED, True, False),
        (500, FailureClass.TRANSIENT, True, True),
        (503, FailureClass.TRANSIENT, True, True),
    ],
)
async def test_a_status_says_whether_it_may_have_happened_and_whether_to_try_again(
    world: ProviderWorld,
    email: SesProvider,
    status: int,
    failure_class: FailureClass,
    is_retryable: bool,
    may_have_happened: bool,
) -> None:
    world.add_faults(Fault("email", FaultMode.STATUS, status=status, headers={"location": "/elsewhere"}))
    failure = failed(await email.send(INVITE, to()))
    assert failure.status == status
    assert (failure.failure_class, failure.is_retryable) == (failure_class, is_retryable)
    assert failure.may_have_happened is may_have_happened
    assert world.request_count() == 1  # neither a retry nor a redirect


@pytest.mark.parametrize("status", [408, 500, 503])
async def test_a_code_promises_nothing_where_the_status_does_not(status: int) -> None:
    answer = httpx.Response(status, json={"__type": "MessageRejected"})
    failure = failed(await _with_handler(lambda _: answer))
    assert (failure.may_have_happened, failure.code) == (True, f"HTTP_{status}")


async def test_a_sender_that_ses_has_not_verified_is_said_so(
    world: ProviderWorld, email: SesProvider, secrets: SecretsDouble
) -> None:
    secrets.cached = replace(secrets.cached, extra={**EXTRA, "from": "x@unverified.example"})
    assert failed(await email.send(INVITE, to())).code == "MESSAGE_REJECTED"
    assert world.effects() == []


@pytest.mark.parametrize("whose", [ADDRESS, "hello@holdfast.example"])
async def test_a_permission_that_our_role_lacks_is_said_by_name_and_asks_for_no_other_credential(whose: str) -> None:
    """SES v2's own words: the resource is an identity, which may be the sender's address or the recipient's."""
    role = "arn:aws:sts::123456789012:assumed-role/holdfast-prod-worker/holdfast-prod-worker"
    identity = f"arn:aws:ses:eu-central-1:123456789012:identity/{whose}"
    body = {"message": f"User `{role}' is not authorized to perform `ses:SendEmail' on resource `{identity}'"}
    headers = {"x-amzn-errortype": "AccessDeniedException"}
    failure = failed(await _with_handler(lambda _: httpx.Response(403, json=body, headers=headers)))
    assert (failure.code, failure.wants_credential) == ("ROLE_NOT_PERMITTED", False)
    assert "the worker's own role lacks the permission ses:SendEmail" in failure.detail
    assert failure.root_cause is RootCause.CODE_DEFECT
    assert outcome_of(failure) is CallOutcome.ERROR  # of every tenant, so that it is closed like one that is down
    assert whose not in repr(failure)


async def test_a_credential_that_is_not_known_is_refused(world: ProviderWorld, email: SesProvider) -> None:
    world.accept_keys(["another"])
    assert failed(await email.send(INVITE, to())).failure_class is FailureClass.AUTH_ERROR
    world.accept_keys([KEYS.access_key])
    assert isinstance(await email.send(INVITE, to()), Done)


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
async def test_an_answer_that_never_came_is_a_persons_to_find_out(
    world: ProviderWorld, email: SesProvider, mode: FaultMode, has_effect: bool
) -> None:
    world.add_faults(Fault("email", mode, times=1))
    failure = failed(await email.send(INVITE, to(seconds=1.0 if mode is FaultMode.HANG else 30.0)))
    assert failure.may_have_happened is True
    assert len(world.effects()) == has_effect
    said = interpret(KindRules(SEND, Repeat.BLIND), failure)
    assert (said.code, said.failure_class, said.is_retryable) == (
        "OUTCOME_UNKNOWN",
        FailureClass.UNKNOWN_OUTCOME,
        False,
    )
    assert failed(await email.look_up(INVITE, to())).code == "NO_LOOKUP"


@pytest.mark.parametrize("mode", [FaultMode.MALFORMED, FaultMode.TRUNCATE, FaultMode.SLOW_BODY])
async def test_a_success_whose_body_is_lost_is_done_without_an_id(
    world: ProviderWorld, email: SesProvider, mode: FaultMode
) -> None:
    world.add_faults(Fault("email", mode, seconds=30))
    assert await email.send(INVITE, to(seconds=1.5 if mode is FaultMode.SLOW_BODY else 30.0)) == Done()
    assert len(world.effects()) == 1


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b'{"MessageId": 1}', b'{"MessageId": "a\\nb"}', b"[" * 100_000, b"\xff"]
)
async def test_a_strange_success_is_done_without_an_id(body: bytes) -> None:
    assert await _with_handler(lambda _: httpx.Response(200, content=body)) == Done()


async def test_a_body_without_end_is_cut_off_and_is_still_a_success() -> None:
    answer = httpx.Response(200, content=b" " * (1024 * 1024 + 1))
    assert await _with_handler(lambda _: answer) == Done()


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"\xff", b'{"__type": 1}', b'{"__type": "a b\\nc"}', b"x" * 2_000_000]
)
async def test_a_strange_refusal_is_one_by_its_status(body: bytes) -> None:
    failure = failed(await _with_handler(lambda _: httpx.Response(400, content=body)))
    assert (failure.code, failure.may_have_happened) == ("HTTP_400", False)


# ---------------------------------------------------------------------------------------------- before anything is sent


@pytest.mark.parametrize(
    ("contact", "code"),
    [
        ("", "NO_CONTACT"),
        ("ann", "CONTACT_INVALID"),
        ("ann@", "CONTACT_INVALID"),
        ("@example.com", "CONTACT_INVALID"),
        ("Ann <ann@example.com>", "CONTACT_INVALID"),
        ("ann@example.com, bob@example.com", "CONTACT_INVALID"),
        ("ann@example.com,bob@example.com", "CONTACT_INVALID"),
        ("ann@example.com\r\nBcc: bob@example.com", "CONTACT_INVALID"),
        ("ann@example.com\n", "CONTACT_INVALID"),
        ("a..b@example.com", "CONTACT_INVALID"),
        (".a@example.com", "CONTACT_INVALID"),
        ("ann@-example.com", "CONTACT_INVALID"),
        ("ann@exa mple.com", "CONTACT_INVALID"),
        ("änn@example.com", "CONTACT_INVALID"),
        ("a@" + "b" * 64 + ".com", "CONTACT_INVALID"),
        ("a" * 65 + "@example.com", "CONTACT_INVALID"),
        ("a@" + ".".join(["b" * 60] * 5), "CONTACT_INVALID"),
    ],
)
async def test_a_contact_that_is_not_one_address_is_refused_before_anything_is_sent(
    world: ProviderWorld, email: SesProvider, contact: str, code: str
) -> None:
    failure = failed(await email.send(INVITE, to(contact)))
    assert (failure.code, failure.may_have_happened) == (code, False)
    assert not contact or contact not in repr(failure)
    assert world.request_count() == 0


@pytest.mark.parametrize("address", ["a@b.co", "first.last+tag@sub.example-1.com", "x_y%z@example.museum"])
def test_plain_addresses_are_addresses(address: str) -> None:
    assert is_address(address)


@pytest.mark.parametrize(
    ("what", "code"),
    [
        (replace(INVITE, message=MessageRef("invite", 9)), "MESSAGE_UNKNOWN"),
        (replace(INVITE, message=None), "PARAMS_INVALID"),
        (replace(INVITE, kind="email.call"), "KIND_UNKNOWN"),
    ],
)
async def test_an_action_that_cannot_be_carried_out_is_a_data_error_and_nothing_is_sent(
    world: ProviderWorld, email: SesProvider, what: Action, code: str
) -> None:
    failure = failed(await email.send(what, to()))
    assert (failure.code, failure.failure_class, failure.is_retryable) == (code, FailureClass.DATA_ERROR, False)
    assert world.request_count() == 0


@pytest.mark.parametrize(
    "change",
    [
        {"credential": "AKIA-a-key-of-somebody"},
        {"extra": {}},
        {"extra": {**EXTRA, "from": ["a@b.co"]}},
        {"extra": {**EXTRA, "from": "Holdfast hello@holdfast.example"}},
        {"extra": {**EXTRA, "from": "x\r\nBcc: <a@b.co>"}},
        {"extra": {**EXTRA, "reply_to": "nobody"}},
        {"extra": {**EXTRA, "reply_to": 1}},
        {"extra": {**EXTRA, "configuration_set": "a/b"}},
        {"extra": {**EXTRA, "configuration_set": 7}},
        {"extra": {**EXTRA, "subject": "a\nb"}},
        {"extra": {**EXTRA, "subject": 7}},
        {"base_url": "http://email.example.com"},
    ],
)
async def test_a_parameter_that_cannot_be_used_stands_like_a_refused_credential_and_is_quoted_nowhere(
    world: ProviderWorld, email: SesProvider, secrets: SecretsDouble, change: dict[str, Any]
) -> None:
    secrets.cached = replace(secrets.cached, **change)
    failure = failed(await email.send(INVITE, to()))
    assert (failure.code, failure.failure_class) == ("CREDENTIAL_MALFORMED", FailureClass.AUTH_ERROR)
    assert "AKIA" not in failure.detail
    assert world.request_count() == 0


async def test_storage_and_credentials_that_are_not_there_are_no_outcome_of_the_provider(
    world: ProviderWorld, email: SesProvider, secrets: SecretsDouble
) -> None:
    def none() -> Credentials:
        raise StorageUnavailable("the environment holds no AWS credentials")

    caller = world.caller()
    bare = failed(await provider_of(caller, secrets, credentials=none).send(INVITE, to()))
    await caller.aclose()
    secrets.error = StorageUnavailable("the parameter store does not answer")
    down = failed(await email.send(INVITE, to()))
    for failure in (bare, down):
        assert (failure.code, failure.is_retryable, failure.may_have_happened) == ("CREDENTIAL_UNREADABLE", True, False)
    with pytest.raises(StorageUnavailable):
        email.refresh_credential()
    secrets.error = UnusableSecret("the secret of email is not JSON")
    assert failed(await email.send(INVITE, to())).code == "CREDENTIAL_MALFORMED"
    secrets.error = None
    assert email.refresh_credential() == "1"
    assert failed(await email.send(INVITE, to(seconds=0))).may_have_happened is False
    assert world.request_count() == 0


async def test_neither_an_address_nor_a_secret_is_ever_logged(
    world: ProviderWorld, email: SesProvider, caplog: pytest.LogCaptureFixture
) -> None:
    world.add_faults(Fault("email", FaultMode.STATUS, status=500, times=1))
    with caplog.at_level(logging.INFO):
        outcomes = [await email.send(INVITE, to()), await email.send(INVITE, to())]
    text = caplog.text + repr([record.__dict__ for record in caplog.records]) + repr(outcomes)
    assert not [secret for secret in (ADDRESS, KEYS.secret_key, KEYS.token) if secret in text]


async def test_cancelling_a_call_ends_it_and_leaves_the_adapter_usable(
    world: ProviderWorld, email: SesProvider
) -> None:
    world.add_faults(Fault("email", FaultMode.HANG, times=1))
    call = asyncio.create_task(email.send(INVITE, to()))
    while not world.fired():  # noqa: ASYNC110  # the event is in another process or thread
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert isinstance(await email.send(INVITE, to()), Done)


async def test_an_email_sets_nothing_that_could_be_read(email: SesProvider) -> None:
    provider: Provider = email
    assert failed(await provider.read_setting(INVITE, to())).code == "KIND_UNKNOWN"
    assert provider.wanted(INVITE) == ""


async def _with_handler(
    handler: Callable[[httpx.Request], httpx.Response],
    extra: dict[str, str] = EXTRA,
    base_url: str = "https://email.eu-central-1.amazonaws.com",
) -> object:
    assert urlsplit(base_url).hostname
    caller = HttpCaller(CLOCK, lambda: httpx.MockTransport(handler))
    secrets = SecretsDouble(SecretDouble(base_url, credential="role", extra=extra))
    outcome: object = await provider_of(caller, secrets).send(INVITE, to())
    await caller.aclose()
    return outcome
