"""The OCR's adapter: a document is queued, whatever becomes of the answer, over a mock transport and sockets."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from functions.adapters.http import HttpCaller
from functions.adapters.mindee import PARSE, MindeeProvider, alias_of
from functions.adapters.ssm import UnusableSecret
from functions.catalog.loader import load
from functions.core.decision import Action, Repeat
from functions.core.document import MAX_DOCUMENT_BYTES
from functions.core.failure import Done, Failure, FailureClass, StorageUnavailable
from functions.core.ports import Call, Provider
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
from tests.fakes import FakeDocuments

MODEL = {"model_id": "11111111-1111-4111-8111-111111111111"}
READ = Action("parse", PARSE, "ocr", Repeat.IDEMPOTENT, "cv.pdf").bound("acme", "app:m-1", 0)
CV = b"%PDF-1.7 \xff\x00 someone@example.com"


@pytest.fixture(scope="module")
def simulator() -> Iterator[RunningSimulator]:
    with serve() as running:
        yield running


@pytest.fixture(params=["mock", "sockets"])
def world(request: pytest.FixtureRequest, simulator: RunningSimulator) -> ProviderWorld:
    return OverMock() if request.param == "mock" else OverSockets(simulator)


@pytest.fixture
def secrets(world: ProviderWorld) -> SecretsDouble:
    return SecretsDouble(SecretDouble(world.ocr_url, extra=MODEL))


@pytest.fixture
def documents() -> FakeDocuments:
    made = FakeDocuments()
    made.objects["documents/acme/cv.pdf"] = CV
    return made


@pytest.fixture
async def ocr(world: ProviderWorld, secrets: SecretsDouble, documents: FakeDocuments) -> AsyncIterator[MindeeProvider]:
    caller = world.caller()
    yield MindeeProvider(caller, secrets, CLOCK, documents)
    await caller.aclose()


def call(seconds: float = 30.0, tenant: str = "acme") -> Call:
    return replace(about(seconds), tenant=tenant)


def failed(outcome: object) -> Failure:
    assert isinstance(outcome, Failure), outcome
    return outcome


async def test_a_document_is_queued_under_its_name_and_our_marker(world: ProviderWorld, ocr: MindeeProvider) -> None:
    outcome = await ocr.send(READ, call())
    [effect] = world.effects()
    assert outcome == Done(effect.detail["job_id"])
    assert effect.detail["sha256"] == hashlib.sha256(CV).hexdigest()
    assert effect.key == alias_of(READ) == f"cv.pdf#{READ.action_id[:24]}"
    assert effect.headers["idempotency-key"] == READ.action_id


async def test_a_second_reading_carries_the_alias_of_the_first(world: ProviderWorld, ocr: MindeeProvider) -> None:
    """So a source that takes its identity from the alias sees one event."""
    world.add_faults(Fault("ocr", FaultMode.DROP_RESPONSE, times=1))
    failure = failed(await ocr.send(READ, call()))
    assert (failure.is_retryable, failure.may_have_happened) == (True, True)
    assert isinstance(await ocr.send(READ, call()), Done)
    assert [effect.key for effect in world.effects()] == [alias_of(READ)] * 2


@pytest.mark.parametrize(
    ("status", "failure_class", "is_retryable"),
    [
        (302, FailureClass.TRANSIENT, False),
        (400, FailureClass.DATA_ERROR, False),
        (401, FailureClass.AUTH_ERROR, False),
        (402, FailureClass.DATA_ERROR, False),
        (403, FailureClass.AUTH_ERROR, False),
        (404, FailureClass.DATA_ERROR, False),
        (422, FailureClass.DATA_ERROR, False),
        (429, FailureClass.RATE_LIMITED, True),
        (500, FailureClass.TRANSIENT, True),
        (503, FailureClass.TRANSIENT, True),
    ],
)
async def test_a_status_says_whether_to_try_again(
    world: ProviderWorld, ocr: MindeeProvider, status: int, failure_class: FailureClass, is_retryable: bool
) -> None:
    world.add_faults(Fault("ocr", FaultMode.STATUS, status=status, headers={"location": "/elsewhere"}))
    failure = failed(await ocr.send(READ, call()))
    assert (failure.status, failure.failure_class, failure.is_retryable) == (status, failure_class, is_retryable)
    assert world.request_count() == 1


@pytest.mark.parametrize(
    ("mode", "codes"),
    [
        (FaultMode.RESET, {"CONNECTION_RESET", "PROTOCOL_ERROR"}),
        (FaultMode.HANG, {"DEADLINE_EXCEEDED"}),
        (FaultMode.WRONG_CONTENT_TYPE, {"PROTOCOL_ERROR"}),
    ],
)
async def test_an_answer_that_never_came_is_tried_again(
    world: ProviderWorld, ocr: MindeeProvider, mode: FaultMode, codes: set[str]
) -> None:
    world.add_faults(Fault("ocr", mode, times=1))
    failure = failed(await ocr.send(READ, call(0.6 if mode is FaultMode.HANG else 30)))
    assert failure.code in codes
    assert failure.is_retryable


@pytest.mark.parametrize("mode", [FaultMode.MALFORMED, FaultMode.TRUNCATE, FaultMode.SLOW_BODY])
async def test_a_success_whose_body_is_lost_is_done_without_an_id(
    world: ProviderWorld, ocr: MindeeProvider, mode: FaultMode
) -> None:
    world.add_faults(Fault("ocr", mode, seconds=30))
    assert await ocr.send(READ, call(0.8 if mode is FaultMode.SLOW_BODY else 30)) == Done()
    assert len(world.effects()) == 1


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "DOCUMENT_MISSING"),
        (b"", "DOCUMENT_MISSING"),
        (b" " * (MAX_DOCUMENT_BYTES + 1), "DOCUMENT_TOO_LARGE"),
    ],
)
async def test_a_document_that_cannot_be_sent_is_for_a_person_and_nothing_is_sent(
    world: ProviderWorld, ocr: MindeeProvider, documents: FakeDocuments, content: bytes | None, code: str
) -> None:
    documents.objects.clear()
    if content is not None:
        documents.objects["documents/acme/cv.pdf"] = content
    failure = failed(await ocr.send(READ, call()))
    assert (failure.code, failure.failure_class, failure.is_retryable) == (code, FailureClass.DATA_ERROR, False)
    assert world.request_count() == 0


async def test_the_largest_document_goes_out_whole(
    world: ProviderWorld, ocr: MindeeProvider, documents: FakeDocuments
) -> None:
    documents.objects["documents/acme/cv.pdf"] = largest = bytes(range(250)) * (MAX_DOCUMENT_BYTES // 250)
    assert isinstance(await ocr.send(READ, call()), Done)
    assert world.effects()[0].detail["sha256"] == hashlib.sha256(largest).hexdigest()


@pytest.mark.parametrize(("tenant", "target"), [("acme", "../else/cv.pdf"), ("", "cv.pdf"), ("acme", "")])
async def test_a_name_that_leaves_its_folder_is_refused(
    world: ProviderWorld, ocr: MindeeProvider, tenant: str, target: str
) -> None:
    assert failed(await ocr.send(replace(READ, target=target), call(tenant=tenant))).code == "TARGET_INVALID"
    assert world.request_count() == 0


async def test_a_bucket_in_trouble_is_tried_again(
    world: ProviderWorld, ocr: MindeeProvider, documents: FakeDocuments
) -> None:
    documents.faults.fail("documents.read")
    failure = failed(await ocr.send(READ, call()))
    assert (failure.code, failure.is_retryable, failure.may_have_happened) == ("DOCUMENT_UNREADABLE", True, False)
    assert world.request_count() == 0


@pytest.mark.parametrize(
    "extra", [{}, {"model_id": ""}, {"model_id": 17}, {**MODEL, "webhook_ids": "w"}, {**MODEL, "webhook_ids": [1]}]
)
async def test_a_parameter_without_its_model_waits_for_one_like_a_refused_credential(
    world: ProviderWorld, ocr: MindeeProvider, secrets: SecretsDouble, extra: dict[str, Any]
) -> None:
    secrets.cached = replace(secrets.cached, extra=extra)
    failure = failed(await ocr.send(READ, call()))
    assert (failure.code, failure.failure_class) == ("CREDENTIAL_MALFORMED", FailureClass.AUTH_ERROR)
    assert world.request_count() == 0


async def test_webhooks_of_the_parameter_are_told_of_the_result() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        assert request.url == "https://ocr.test/v2/products/extraction/enqueue"
        assert request.headers["authorization"] == KEY
        assert json.loads(request.content) == {
            **MODEL,
            "webhook_ids": ["w-1"],
            "file_base64": base64.b64encode(CV).decode(),
            "filename": "cv.pdf",
            "alias": alias_of(READ),
        }
        return httpx.Response(202, json={"job": {"id": "job-1"}})

    assert await _with(handle, {**MODEL, "webhook_ids": ["w-1"]}) == Done("job-1")


async def test_a_rotated_key_is_refused_until_the_credential_is_read_again(
    world: ProviderWorld, ocr: MindeeProvider, secrets: SecretsDouble
) -> None:
    world.accept_keys(["key-2"])
    secrets.stored = replace(secrets.cached, credential="key-2", version="2")
    assert failed(await ocr.send(READ, call())).failure_class is FailureClass.AUTH_ERROR
    assert ocr.refresh_credential() == "2"
    assert isinstance(await ocr.send(READ, call()), Done)


async def test_neither_secret_nor_document_is_in_a_failure_or_a_log(
    world: ProviderWorld, ocr: MindeeProvider, secrets: SecretsDouble, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    world.add_faults(Fault("ocr", FaultMode.STATUS, status=422, body_code="someone@example.com"))
    details = [failed(await ocr.send(READ, call())).detail]
    for error in (StorageUnavailable("down"), UnusableSecret("base_url names a host that the catalog does not list")):
        secrets.error = error
        details.append(failed(await ocr.send(READ, call())).detail)
    for text in (*details, "".join(record.getMessage() for record in caplog.records)):
        assert "someone" not in text
        assert KEY not in text


async def test_nothing_is_sent_when_no_time_is_left(world: ProviderWorld, ocr: MindeeProvider) -> None:
    assert failed(await ocr.send(READ, call(0))).may_have_happened is False
    assert world.request_count() == 0


async def _with(handler: Callable[[httpx.Request], httpx.Response], extra: dict[str, Any] = MODEL) -> object:
    documents = FakeDocuments()
    documents.objects["documents/acme/cv.pdf"] = CV
    caller = HttpCaller(CLOCK, lambda: httpx.MockTransport(handler))
    secrets = SecretsDouble(SecretDouble("https://ocr.test/v2", extra=extra))
    outcome: object = await MindeeProvider(caller, secrets, CLOCK, documents).send(READ, call())
    await caller.aclose()
    return outcome


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b'{"job": 1}', b'{"job": {"id": 17}}', b"\xff", b"[" * 100_000, b" " * (1024 * 1024 + 1)],
    ids=range(8),
)
async def test_a_strange_success_is_done_without_an_id(body: bytes) -> None:
    assert await _with(lambda _: httpx.Response(202, content=body)) == Done()


async def test_no_redirect_is_followed_with_the_credential() -> None:
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(308, headers={"location": "https://evil.test/"})

    assert failed(await _with(handle)).status == 308
    assert asked == ["ocr.test"]


async def test_it_has_one_kind_and_no_lookup(ocr: Provider) -> None:
    integration = load().integrations["ocr"]
    assert {kind: rules.repeat for kind, rules in integration.kinds.items()} == {PARSE: Repeat.IDEMPOTENT}
    assert load().profiles["ocr"].success_threshold == 0.85
    assert failed(await ocr.send(replace(READ, kind="ocr.guess"), call())).code == "KIND_UNKNOWN"
    assert isinstance(await ocr.look_up(READ, call()), Failure)
    assert isinstance(await ocr.read_setting(READ, call()), Failure)
    assert ocr.wanted(READ) == ""
