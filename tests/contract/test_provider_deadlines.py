"""No answer, however it comes, outlasts the wall-clock deadline, and no socket outlasts its call.

A connection that were still open when the handler returns would thaw in a later invocation, and a late answer on it
could be taken for the answer to another request. So the other side is asked: has it been let go?
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from functions.adapters.http import HttpCaller
from functions.adapters.llm import LlmClassifier
from functions.adapters.mindee import PARSE, MindeeProvider
from functions.adapters.richpanel import REPLY, RichpanelProvider
from functions.adapters.stripe import REFUND, StripeProvider
from functions.core.decision import Action, Classification, MessageRef, Mode, Repeat
from functions.core.document import MAX_DOCUMENT_BYTES
from functions.core.failure import ClassifierUnavailable, Done, Failure
from functions.flows.flow import Prepared
from tests import worker_world
from tests.contract.provider_world import CLOCK, KEY, SecretDouble, SecretsDouble, about
from tests.contract.raw_server import (
    ENDING,
    NEVER_ENDING,
    Behaviour,
    Peer,
    RawServer,
    answer,
    drips_body,
    endless,
    page,
    raw_server,
    redirects,
    silent,
)
from tests.fakes import FakeDocuments
from tests.worker_world import World

SECONDS = 0.4
SLACK = 3.0  # a machine that is busy with something else; what is measured against it would take 15 s and more
Use = Callable[[HttpCaller, str, float], Awaitable[object]]

BACK = Action("refund", REFUND, "payments", Repeat.KEYED, "pi_17").bound("acme", "app:m-1", 0)
READ = Action("parse", PARSE, "ocr", Repeat.IDEMPOTENT, "cv.pdf").bound("acme", "app:m-1", 0)
SAY = Action("reply", REPLY, "helpdesk", Repeat.LOOKUP, "t-17", message=MessageRef("m", 1)).bound("acme", "a:m", 0)


async def classify(caller: HttpCaller, url: str, seconds: float) -> object:
    llm = LlmClassifier(
        caller,
        SecretsDouble(SecretDouble(url)),
        CLOCK,
        prompt="Sort.",
        prompt_version="p1",
        default_model="m",
    )
    try:
        return await llm.classify("text", {"billing": "money", "other": "else"}, CLOCK.now_ms() + int(seconds * 1000))
    except ClassifierUnavailable as unavailable:
        return unavailable


async def refund(caller: HttpCaller, url: str, seconds: float) -> object:
    return await StripeProvider(caller, SecretsDouble(SecretDouble(url)), CLOCK).send(BACK, about(seconds))


async def look_for_refund(caller: HttpCaller, url: str, seconds: float) -> object:
    return await StripeProvider(caller, SecretsDouble(SecretDouble(url)), CLOCK).look_up(BACK, about(seconds))


async def scan(caller: HttpCaller, url: str, seconds: float, content: bytes = b"%PDF") -> object:
    documents = FakeDocuments()
    documents.objects["documents/acme/cv.pdf"] = content
    secrets = SecretsDouble(SecretDouble(url, extra={"model_id": "m"}))
    call = replace(about(seconds), tenant="acme")
    return await MindeeProvider(caller, secrets, CLOCK, documents).send(READ, call)


async def reply(caller: HttpCaller, url: str, seconds: float) -> object:
    secrets = SecretsDouble(SecretDouble(url))
    return await RichpanelProvider(caller, secrets, CLOCK, lambda _: "Hello").send(SAY, about(seconds))


USES: tuple[Use, ...] = (classify, refund, look_for_refund, scan, reply)
every_use = pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)


def is_no_answer(outcome: object) -> bool:
    """Whether nothing was learned: a failure, or at most that a 2xx came."""
    return isinstance(outcome, Failure | ClassifierUnavailable) or outcome == Done()


@every_use
@pytest.mark.parametrize("behaviour", NEVER_ENDING, ids=lambda behaviour: behaviour.__name__)
async def test_an_answer_without_end_ends_at_the_deadline_and_its_socket_with_it(
    use: Use, behaviour: Behaviour
) -> None:
    """002.29"""
    with raw_server(behaviour) as server:
        caller = HttpCaller(CLOCK)
        started = time.monotonic()
        outcome = await use(caller, server.url, SECONDS)
        assert time.monotonic() - started < SECONDS + SLACK
        assert is_no_answer(outcome)
        assert await asyncio.to_thread(server.are_all_let_go)  # and nobody closed the caller
        assert server.opened == 1
        await caller.aclose()


@every_use
@pytest.mark.parametrize("behaviour", ENDING, ids=lambda behaviour: behaviour.__name__)
async def test_a_strange_answer_is_no_answer_and_is_asked_for_once(use: Use, behaviour: Behaviour) -> None:
    with raw_server(behaviour) as server:
        caller = HttpCaller(CLOCK)
        assert is_no_answer(await use(caller, server.url, 10))
        assert len(server.requests) == 1  # neither a retry nor a redirect
        await caller.aclose()
        assert await asyncio.to_thread(server.are_all_let_go)


@every_use
@pytest.mark.parametrize("behaviour", [silent, drips_body], ids=lambda behaviour: behaviour.__name__)
async def test_cancelling_a_call_lets_go_of_its_socket(use: Use, behaviour: Behaviour) -> None:
    """As the worker's own deadline does."""
    with raw_server(behaviour) as server:
        caller = HttpCaller(CLOCK)
        call = asyncio.ensure_future(use(caller, server.url, 30))
        while not server.requests:  # noqa: ASYNC110  # the event is in another thread
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await asyncio.to_thread(server.are_all_let_go)
        await caller.aclose()


async def test_a_peer_that_reads_nothing_does_not_hold_a_large_request_beyond_its_deadline() -> None:
    with raw_server(silent, is_deaf=True) as server:
        caller = HttpCaller(CLOCK)
        started = time.monotonic()
        outcome = await scan(caller, server.url, SECONDS, b" " * MAX_DOCUMENT_BYTES)
        assert time.monotonic() - started < SECONDS + SLACK
        assert isinstance(outcome, Failure)
        assert outcome.may_have_happened
        await caller.aclose()


def completion(label: str) -> bytes:
    content = json.dumps({"label": label, "confidence": 0.99, "reason_codes": []})
    return answer(json.dumps({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}).encode())


class Late:
    """Answers the first request after its deadline, every other one at once."""

    def __init__(self, seconds: float, first: bytes, others: bytes) -> None:
        self.seconds, self.first, self.others = seconds, first, others

    def __call__(self, peer: Peer) -> None:
        if peer.number == 1:
            peer.wait(self.seconds)
            peer.say(self.first)
        else:
            peer.say(self.others)


async def test_a_late_label_is_discarded_and_never_taken_for_the_answer_to_the_next_text() -> None:
    """002.29"""
    with raw_server(Late(0.8, completion("billing"), completion("other"))) as server:
        caller = HttpCaller(CLOCK)
        first = await classify(caller, server.url, SECONDS)
        assert isinstance(first, ClassifierUnavailable)
        assert first.code == "LLM_DEADLINE"
        second = await classify(caller, server.url, 2.4)
        await asyncio.sleep(0.6)  # by now the first answer is on its way to nobody
        third = await classify(caller, server.url, 2.4)
        assert isinstance(second, Classification)
        assert isinstance(third, Classification)
        assert (second.label, third.label) == ("other", "other")
        await caller.aclose()


async def test_a_late_refund_is_no_answer_to_another_refund() -> None:
    late, prompt = answer(b'{"id": "re_late"}'), answer(b'{"id": "re_prompt"}')
    with raw_server(Late(0.8, late, prompt)) as server:
        caller = HttpCaller(CLOCK)
        first = await refund(caller, server.url, SECONDS)
        assert isinstance(first, Failure)
        assert (first.code, first.may_have_happened) == ("DEADLINE_EXCEEDED", True)
        assert await refund(caller, server.url, 10) == Done("re_prompt")
        await asyncio.sleep(0.6)
        assert await refund(caller, server.url, 10) == Done("re_prompt")
        await caller.aclose()


class AsksLlm(worker_world.EveryKind):
    """A flow that notes what the LLM said when it decides."""

    def __init__(self, verdicts: list[object]) -> None:
        super().__init__(("tag",), needs_llm=True)
        self.verdicts = verdicts

    def decide(self, event, prepared: Prepared, verdict, mode: Mode, now_ms: int):  # type: ignore[no-untyped-def]  # as the base class has it
        self.verdicts.append(verdict)
        return super().decide(event, prepared, verdict, mode, now_ms)


def test_a_handler_that_has_returned_left_no_llm_call_behind_and_never_acts_on_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """002.29: the decision was made without the label, and stays as it is when the label comes."""
    caller = HttpCaller(CLOCK)
    verdicts: list[object] = []
    with raw_server(Late(1.0, completion("billing"), completion("billing"))) as server:

        async def late(self: object, text: str, labels: dict[str, str], deadline_ms: int) -> Classification:
            found = await classify(caller, server.url, SECONDS)
            if isinstance(found, ClassifierUnavailable):
                raise found
            assert isinstance(found, Classification)
            return found

        monkeypatch.setattr(worker_world.NoClassifier, "classify", late)
        monkeypatch.setattr(worker_world, "EveryKind", lambda *_, **__: AsksLlm(verdicts))
        world = World(("tag",))
        event = world.event()
        world.accept(event)
        world.deliver()
        sent = list(world.provider.sent)
        assert len(sent) == 1
        assert server.are_all_let_go(within_seconds=0.5)  # before the late answer is even sent
        time.sleep(1.2)
        assert (len(verdicts), len(server.requests), world.provider.sent) == (1, 1, sent)
        assert not isinstance(verdicts[0], Classification)
        world.check_settled(event)


@every_use
@pytest.mark.parametrize("behaviour", [page, endless, redirects, drips_body], ids=lambda behaviour: behaviour.__name__)
async def test_no_credential_is_in_an_outcome_or_a_log_line_of_ours(
    use: Use, behaviour: Behaviour, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with raw_server(behaviour) as server:
        caller = HttpCaller(CLOCK)
        outcome = await use(caller, server.url, SECONDS)
        assert KEY.encode() in server.requests[0]  # it was there to be leaked
        await caller.aclose()
    assert KEY not in repr(outcome)
    assert KEY not in caplog.text


def test_the_server_sees_a_connection_that_is_kept() -> None:
    """The tests above would say nothing if every connection counted as let go."""

    def keep(server: RawServer) -> bool:
        async def run() -> bool:
            caller = HttpCaller(CLOCK)
            await refund(caller, server.url, 10)
            kept = not await asyncio.to_thread(server.are_all_let_go, 0.3)
            await caller.aclose()
            return kept

        return asyncio.run(run())

    with raw_server(lambda peer: peer.say(answer(b'{"id": "re_1"}'))) as server:
        assert keep(server)
        assert server.are_all_let_go()
