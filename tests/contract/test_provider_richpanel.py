"""The helpdesk's adapter: each outcome says what is known about the other side, over a mock transport and sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from functions.adapters.http import HttpCaller
from functions.adapters.richpanel import (
    ADD_TAGS,
    ASSIGN_TEAM,
    COUNT_REPLIES,
    MARKER,
    REPLY,
    RichpanelProvider,
    marker_of,
)
from functions.adapters.ssm import UnusableSecret
from functions.core.decision import COUNTED, Action, MessageRef, Repeat
from functions.core.failure import Done, Failure, FailureClass, StorageUnavailable
from functions.core.ports import Absent, Provider, SettingState
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

TEXTS = {("order_status", 1): "Your order is on its way."}


def render(message: MessageRef) -> str:
    return TEXTS[(message.id, message.version)]


def action(name: str, kind: str, repeat: Repeat, **content: Any) -> Action:
    whole = Action(name=name, kind=kind, integration="helpdesk", repeat=repeat, target="t-17", **content)
    return whole.bound("acme", "demo:m-1", 0)


TAG = action("tag", ADD_TAGS, Repeat.IDEMPOTENT, params={"tags": ["billing", "middleware_processed"]})
ASSIGN = action("assign", ASSIGN_TEAM, Repeat.SETTING, params={"team": "team-billing"})
ANSWER = action("reply", REPLY, Repeat.LOOKUP, message=MessageRef("order_status", 1), customer_visible=True)
ACTIONS = (TAG, ASSIGN, ANSWER)
COUNT = action("reply_counted", COUNT_REPLIES, Repeat.IDEMPOTENT, params={COUNTED: ANSWER.action_id})


@pytest.fixture(scope="module")
def simulator() -> Iterator[RunningSimulator]:
    with serve() as running:
        yield running


@pytest.fixture(params=["mock", "sockets"])
def world(request: pytest.FixtureRequest, simulator: RunningSimulator) -> ProviderWorld:
    return OverMock() if request.param == "mock" else OverSockets(simulator)


@pytest.fixture
def secrets(world: ProviderWorld) -> SecretsDouble:
    return SecretsDouble(SecretDouble(world.helpdesk_url))


@pytest.fixture
async def helpdesk(world: ProviderWorld, secrets: SecretsDouble) -> AsyncIterator[RichpanelProvider]:
    caller = world.caller()
    yield RichpanelProvider(caller, secrets, CLOCK, render)
    await caller.aclose()


async def send(helpdesk: Provider, what: Action, seconds: float = 30.0) -> Done | Failure:
    return await helpdesk.send(what, about(seconds))


def failed(outcome: object) -> Failure:
    assert isinstance(outcome, Failure), outcome
    return outcome


async def test_tags_are_added_and_adding_them_again_changes_nothing(
    world: ProviderWorld, helpdesk: RichpanelProvider
) -> None:
    assert await send(helpdesk, TAG) == Done()
    assert await send(helpdesk, TAG) == Done()
    assert world.ticket("t-17")["tags"] == ["billing", "middleware_processed"]


async def test_a_team_is_assigned_and_can_be_read_back_with_who_did_it_and_when(
    world: ProviderWorld, helpdesk: RichpanelProvider
) -> None:
    assert await helpdesk.read_setting(ASSIGN, about()) == SettingState("")
    before = CLOCK.now_ms()
    assert await send(helpdesk, ASSIGN) == Done()
    state = await helpdesk.read_setting(ASSIGN, about())
    assert isinstance(state, SettingState)
    assert (state.value, state.changed_by_us) == (helpdesk.wanted(ASSIGN), True)
    assert state.changed_at_ms is not None
    assert before <= state.changed_at_ms <= CLOCK.now_ms()
    world.person_changes("t-17", {"team_id": "team-vip", "by": "ana", "at": "2030-01-01T00:00:00Z"})
    changed = await helpdesk.read_setting(ASSIGN, about())
    assert changed == SettingState("team-vip", changed_at_ms=1_893_456_000_000, changed_by_us=False)


async def test_who_changed_a_setting_is_not_guessed_when_nobody_told_us_our_own_name(
    helpdesk: RichpanelProvider, secrets: SecretsDouble
) -> None:
    await send(helpdesk, ASSIGN)
    secrets.cached = replace(secrets.cached, extra={})
    state = await helpdesk.read_setting(ASSIGN, about())
    assert isinstance(state, SettingState)
    assert state.changed_by_us is None


async def test_a_reply_bears_our_marker_and_a_lookup_finds_it_by_that(
    world: ProviderWorld, helpdesk: RichpanelProvider
) -> None:
    assert await helpdesk.look_up(ANSWER, about()) == Absent()
    outcome = await send(helpdesk, ANSWER)
    [comment] = world.ticket("t-17")["comments"]
    assert outcome == Done(comment["id"])
    assert comment["body"] == f"Your order is on its way.\n\n{marker_of(ANSWER.action_id)}"
    assert comment["isOperator"] is True
    assert MARKER.findall(comment["body"]) == [ANSWER.action_id[:24]]
    assert await helpdesk.look_up(ANSWER, about()) == Done(comment["id"])
    other = replace(ANSWER, action_id="f" * 64)
    assert await helpdesk.look_up(other, about()) == Absent()


async def test_a_reply_that_was_carried_out_twice_is_found_twice_and_counting_it_changes_nothing(
    world: ProviderWorld, helpdesk: RichpanelProvider
) -> None:
    assert await send(helpdesk, COUNT) == Done()
    world.add_faults(Fault("helpdesk", FaultMode.TWICE, operation="reply", times=1))
    assert failed(await send(helpdesk, ANSWER)).may_have_happened
    first, second = world.ticket("t-17")["comments"]
    assert first["id"] != second["id"]
    assert await helpdesk.look_up(ANSWER, about()) == Done(first["id"], times=2)
    before = world.ticket("t-17")
    assert await send(helpdesk, COUNT) == Done(first["id"], times=2)
    assert world.ticket("t-17") == before


async def test_who_quotes_a_reply_does_not_double_it(world: ProviderWorld, helpdesk: RichpanelProvider) -> None:
    await send(helpdesk, ANSWER)
    [reply] = world.ticket("t-17")["comments"]
    quote = "\n".join(f"> {line}" for line in reply["body"].split("\n"))
    world.person_changes("t-17", {"comment": f"Thank you!\n{quote}", "by": "ana", "is_operator": False})
    world.person_changes("t-17", {"comment": reply["body"], "by": "ana", "is_operator": False})
    world.person_changes("t-17", {"comment": f"You are welcome.\n{quote}", "by": "ben", "is_operator": True})
    assert await helpdesk.look_up(ANSWER, about()) == Done(reply["id"])
    assert await send(helpdesk, COUNT) == Done(reply["id"])


def comment(identity: object, body: str, **more: Any) -> dict[str, Any]:
    return {"id": identity, "body": body, "isOperator": True} | more


OURS = f"Your order is on its way.\n\n{marker_of(ANSWER.action_id)}"
QUOTED = f"See above: {OURS}"


@pytest.mark.parametrize(
    ("comments", "found"),
    [
        ([comment("c1", OURS), comment("c1", OURS)], Done("c1")),  # one that is listed twice
        ([comment("", OURS), comment("", OURS)], Done("", 2)),  # nobody can say that they are one
        (  # newest first: whoever quotes it comes after it
            [
                comment("c3", QUOTED, created_at="2026-11-28T10:02:00Z"),
                comment("c1", OURS, created_at="2026-11-28T10:00:00Z"),
            ],
            Done("c1"),
        ),
        (
            [
                comment("c3", QUOTED, created_at="2026-11-28T10:02:00Z"),
                comment("c2", OURS, created_at="2026-11-28T10:01:00Z"),
                comment("c1", OURS, created_at="2026-11-28T10:00:00Z"),
            ],
            Done("c1", 2),
        ),
        (
            [comment("c1", OURS), comment("c2", QUOTED), comment("c3", QUOTED)],
            Done("c1"),
        ),  # two people who say the same
        (  # the reply was deleted, and a customer sent one answer twice: it was there, and nobody can say how often
            [comment("c2", QUOTED, isOperator=False), comment("c3", QUOTED, isOperator=False)],
            Done("c2"),
        ),
        ([comment("c1", OURS), comment("c2", QUOTED, created_at=7)], Done("c1")),  # without times, as they are listed
        ([comment("c1", OURS, created_at="soon"), comment("c2", QUOTED, created_at="0001-01-01")], Done("c1")),
    ],
)
async def test_what_is_there_twice_are_two_that_say_what_the_first_said(
    comments: list[dict[str, Any]], found: Done
) -> None:
    """What the sender and everybody at the helpdesk can do to a ticket must turn nobody's replies off, nor hide one."""
    answer = {"ticket": {"id": "t-17", "comments": comments}}
    for how in ("look_up", "count"):
        assert await _with_handler(lambda _: httpx.Response(200, json=answer), how) == found


async def test_what_shows_twice_in_the_answer_to_a_send_is_told_at_once_with_the_id_of_that_send() -> None:
    """The first has come to light while the second was sent."""
    answer = {"ticket": {"id": "t-17", "comments": [comment("c1", OURS), comment("c2", OURS)]}}
    assert await _with_handler(lambda _: httpx.Response(200, json=answer), "send") == Done("c2", 2)


async def test_what_cannot_be_counted_is_a_failure_and_never_a_count(
    world: ProviderWorld, helpdesk: RichpanelProvider
) -> None:
    for params in ({}, {COUNTED: ""}, {COUNTED: 7}):
        assert failed(await send(helpdesk, replace(COUNT, params=params))).code == "PARAMS_INVALID"
    world.add_faults(Fault("helpdesk", FaultMode.STATUS, status=503, times=1))
    failure = failed(await send(helpdesk, COUNT))
    assert (failure.code, failure.may_have_happened) == ("HTTP_503", False)
    bare = await _with_handler(lambda _: httpx.Response(200, json={"ticket": {"id": 1}}), "count")
    assert failed(bare).code == "PROTOCOL_ERROR"


@pytest.mark.parametrize("what", ACTIONS, ids=lambda what: what.name)
async def test_every_effect_carries_the_ids_by_which_it_can_be_found(
    world: ProviderWorld, helpdesk: RichpanelProvider, what: Action
) -> None:
    await send(helpdesk, what)
    for effect in world.effects():
        assert effect.headers == {
            "x-request-id": "request-1",
            "traceparent": about().traceparent,
            "idempotency-key": what.action_id,
        }
        assert effect.target == "t-17"
    assert world.effects()


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
        (422, FailureClass.DATA_ERROR, False, False),
        (425, FailureClass.TRANSIENT, True, False),
        (429, FailureClass.RATE_LIMITED, True, False),
        (500, FailureClass.TRANSIENT, True, True),
        (503, FailureClass.TRANSIENT, True, True),
    ],
)
async def test_a_status_says_whether_it_may_have_happened_and_whether_to_try_again(
    world: ProviderWorld,
    helpdesk: RichpanelProvider,
    status: int,
    failure_class: FailureClass,
    is_retryable: bool,
    may_have_happened: bool,
) -> None:
    world.add_faults(Fault("helpdesk", FaultMode.STATUS, status=status, headers={"location": "/elsewhere"}))
    failure = failed(await send(helpdesk, ANSWER))
    assert failure.status == status
    assert (failure.failure_class, failure.is_retryable) == (failure_class, is_retryable)
    assert failure.may_have_happened is may_have_happened
    assert world.request_count() == 1  # neither a retry nor a redirect


async def test_a_status_that_the_catalog_calls_definite_is(world: ProviderWorld, secrets: SecretsDouble) -> None:
    caller = world.caller()
    helpdesk = RichpanelProvider(caller, secrets, CLOCK, render, definite_statuses=frozenset({503}))
    world.add_faults(Fault("helpdesk", FaultMode.STATUS, status=503))
    assert failed(await send(helpdesk, ANSWER)).may_have_happened is False
    await caller.aclose()


@pytest.mark.parametrize(
    ("fault", "wait_ms"),
    [
        ({"status": 429, "retry_after": "7"}, 7_000),
        ({"status": 429, "retry_after": "0.2"}, 1_000),
        ({"status": 429, "retry_after": "999999999"}, 6 * 3600 * 1000),
        ({"status": 429, "retry_after": "Fri, 31 Dec 2100 23:59:59 GMT"}, 6 * 3600 * 1000),
        ({"status": 429, "retry_after": "Mon, 01 Jan 2001 00:00:00 GMT"}, 1_000),
        ({"status": 429, "retry_after": "soon"}, None),
        ({"status": 429, "headers": {"x-ratelimit-reset": "30"}}, 30_000),
        ({"status": 429, "headers": {"x-ratelimit-reset": "30"}, "retry_after": "5"}, 5_000),
        ({"status": 503, "retry_after": "9"}, 9_000),
        ({"status": 503, "headers": {"x-ratelimit-reset": "30"}}, None),
        ({"status": 400, "body_code": "RATE_LIMIT_EXCEEDED", "retry_after": "4"}, 4_000),
        ({"status": 200, "body_code": "rate_limit_exceeded", "retry_after": "4"}, 4_000),
    ],
)
async def test_a_stated_wait_is_honoured_within_bounds_and_a_body_code_counts_as_429(
    world: ProviderWorld, helpdesk: RichpanelProvider, fault: dict[str, Any], wait_ms: int | None
) -> None:
    world.add_faults(Fault("helpdesk", FaultMode.STATUS, **fault))
    failure = failed(await send(helpdesk, TAG))
    assert failure.retry_after_ms == wait_ms
    is_limit = failure.failure_class is FailureClass.RATE_LIMITED
    assert is_limit is (fault["status"] == 429 or "body_code" in fault)
    assert not (is_limit and failure.may_have_happened)


@pytest.mark.parametrize(
    ("mode", "codes", "has_effect"),
    [
        (FaultMode.RESET, {"CONNECTION_RESET", "PROTOCOL_ERROR"}, False),
        (FaultMode.HANG, {"DEADLINE_EXCEEDED"}, False),
        (FaultMode.DROP_RESPONSE, {"CONNECTION_RESET", "PROTOCOL_ERROR"}, True),
        (FaultMode.STATUS_AFTER_EFFECT, {"HTTP_503"}, True),
        (FaultMode.WRONG_CONTENT_TYPE, {"PROTOCOL_ERROR"}, True),
    ],
)
async def test_an_answer_that_never_came_leaves_the_outcome_open_and_a_lookup_tells(
    world: ProviderWorld, helpdesk: RichpanelProvider, mode: FaultMode, codes: set[str], has_effect: bool
) -> None:
    world.add_faults(Fault("helpdesk", mode, operation="reply", times=1))
    failure = failed(await send(helpdesk, ANSWER, seconds=1.0 if mode is FaultMode.HANG else 30.0))
    assert failure.code in codes
    assert (failure.failure_class, failure.is_retryable) == (FailureClass.TRANSIENT, True)
    assert failure.may_have_happened is True
    assert isinstance(await helpdesk.look_up(ANSWER, about()), Done) is has_effect


@pytest.mark.parametrize("mode", [FaultMode.MALFORMED, FaultMode.TRUNCATE, FaultMode.SLOW_BODY])
@pytest.mark.parametrize("what", ACTIONS, ids=lambda what: what.name)
async def test_a_success_whose_body_is_lost_is_done_without_an_id(
    world: ProviderWorld, helpdesk: RichpanelProvider, mode: FaultMode, what: Action
) -> None:
    world.add_faults(Fault("helpdesk", mode, seconds=30))
    assert await send(helpdesk, what, seconds=1.5 if mode is FaultMode.SLOW_BODY else 30.0) == Done()
    assert world.effects()


@pytest.mark.parametrize(
    "mode",
    [
        FaultMode.MALFORMED,
        FaultMode.TRUNCATE,
        FaultMode.WRONG_CONTENT_TYPE,
        FaultMode.RESET,
        FaultMode.HANG,
        FaultMode.STATUS,
    ],
)
async def test_a_lookup_that_cannot_be_read_never_says_absent(
    world: ProviderWorld, helpdesk: RichpanelProvider, mode: FaultMode
) -> None:
    world.add_faults(Fault("helpdesk", mode))
    left = 1.0 if mode is FaultMode.HANG else 30.0
    for outcome in (await helpdesk.look_up(ANSWER, about(left)), await helpdesk.read_setting(ASSIGN, about(left))):
        failure = failed(outcome)
        assert failure.is_retryable is True
        assert failure.may_have_happened is False


async def test_a_slow_answer_within_the_deadline_is_an_answer(
    world: ProviderWorld, helpdesk: RichpanelProvider
) -> None:
    world.add_faults(Fault("helpdesk", FaultMode.LATENCY, seconds=0.2))
    assert await send(helpdesk, TAG) == Done()


async def test_nothing_is_sent_when_no_time_is_left(world: ProviderWorld, helpdesk: RichpanelProvider) -> None:
    for outcome in (await send(helpdesk, TAG, seconds=0.0), await send(helpdesk, TAG, seconds=-5)):
        assert failed(outcome).may_have_happened is False
    assert world.request_count() == 0


@pytest.mark.parametrize("target", ["a/b", "a?b=c", "a#b", "ü ber", "%2e%2e", "..%2f", "a@b:c", "+15550000001"])
async def test_an_id_from_a_stranger_stays_within_its_segment(
    world: ProviderWorld, helpdesk: RichpanelProvider, target: str
) -> None:
    assert await send(helpdesk, replace(TAG, target=target)) == Done()
    assert {effect.target for effect in world.effects()} == {target}


@pytest.mark.parametrize("target", ["", ".", "..", "a\nb", "a\x00b", "x" * 257, "\ud800"])
async def test_an_id_that_cannot_be_a_segment_is_refused_before_anything_is_sent(
    world: ProviderWorld, helpdesk: RichpanelProvider, target: str
) -> None:
    failure = failed(await send(helpdesk, replace(TAG, target=target)))
    assert (failure.code, failure.failure_class) == ("TARGET_INVALID", FailureClass.DATA_ERROR)
    assert world.request_count() == 0


@pytest.mark.parametrize(
    ("what", "code"),
    [
        (replace(TAG, params={}), "PARAMS_INVALID"),
        (replace(TAG, params={"tags": "billing"}), "PARAMS_INVALID"),
        (replace(TAG, params={"tags": [""]}), "PARAMS_INVALID"),
        (replace(ASSIGN, params={}), "PARAMS_INVALID"),
        (replace(ANSWER, message=MessageRef("order_status", 9)), "MESSAGE_UNKNOWN"),
        (replace(ANSWER, message=None), "KIND_UNKNOWN"),
        (replace(TAG, kind="helpdesk.close"), "KIND_UNKNOWN"),
    ],
)
async def test_an_action_that_cannot_be_carried_out_is_a_data_error_and_nothing_is_sent(
    world: ProviderWorld, helpdesk: RichpanelProvider, what: Action, code: str
) -> None:
    failure = failed(await send(helpdesk, what))
    assert (failure.code, failure.failure_class, failure.is_retryable) == (code, FailureClass.DATA_ERROR, False)
    assert world.request_count() == 0


async def test_a_rotated_key_is_refused_until_the_credential_is_read_again(
    world: ProviderWorld, helpdesk: RichpanelProvider, secrets: SecretsDouble
) -> None:
    world.accept_keys(["key-2"])
    secrets.stored = replace(secrets.cached, credential="key-2", version="2")
    assert failed(await send(helpdesk, TAG)).failure_class is FailureClass.AUTH_ERROR
    assert helpdesk.refresh_credential() == "2"
    assert await send(helpdesk, TAG) == Done()


async def test_a_parameter_store_that_is_down_or_wrong_is_no_outcome_of_the_provider(
    world: ProviderWorld, helpdesk: RichpanelProvider, secrets: SecretsDouble
) -> None:
    good = secrets.cached
    secrets.error = StorageUnavailable("the parameter store does not answer")
    down = failed(await send(helpdesk, TAG))
    assert (down.code, down.is_retryable, down.may_have_happened) == ("CREDENTIAL_UNREADABLE", True, False)
    with pytest.raises(StorageUnavailable):
        helpdesk.refresh_credential()
    secrets.error = None
    for bad in (
        replace(good, base_url="http://helpdesk.example.com"),
        replace(good, base_url="ftp://127.0.0.1"),
        replace(good, base_url="https://user:secret@helpdesk.example.com"),
        replace(good, base_url="https://helpdesk.example.com:99999"),
        replace(good, base_url=""),
        replace(good, credential="key\r\nx-evil: 1"),
        replace(good, credential=""),
    ):
        secrets.cached = bad
        failure = failed(await send(helpdesk, TAG))
        assert (failure.code, failure.failure_class) == ("CREDENTIAL_MALFORMED", FailureClass.AUTH_ERROR)
        assert "evil" not in failure.detail
    secrets.error = UnusableSecret("the secret of helpdesk is not JSON")
    assert failed(await send(helpdesk, TAG)).code == "CREDENTIAL_MALFORMED"
    assert world.request_count() == 0


async def test_cancelling_a_call_ends_it_and_leaves_the_adapter_usable(
    world: ProviderWorld, helpdesk: RichpanelProvider
) -> None:
    world.add_faults(Fault("helpdesk", FaultMode.HANG, times=1))
    call = asyncio.create_task(send(helpdesk, TAG, seconds=30))
    while not world.fired():  # noqa: ASYNC110  # the event is in another process or thread
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await send(helpdesk, TAG) == Done()


async def test_calls_at_the_same_time_do_not_meet(world: ProviderWorld, helpdesk: RichpanelProvider) -> None:
    targets = [f"t-{number}" for number in range(40)]
    outcomes = await asyncio.gather(*(send(helpdesk, replace(TAG, target=target)) for target in targets))
    assert set(outcomes) == {Done()}
    assert {effect.target for effect in world.effects()} == set(targets)


# --- what only one world can show ---


async def _with_handler(handler: Callable[[httpx.Request], httpx.Response], kind: str = "send") -> object:
    caller = HttpCaller(CLOCK, lambda: httpx.MockTransport(handler))
    helpdesk = RichpanelProvider(caller, SecretsDouble(SecretDouble("https://helpdesk.test/v1")), CLOCK, render)
    outcome: object
    match kind:
        case "look_up":
            outcome = await helpdesk.look_up(ANSWER, about())
        case _:
            outcome = await helpdesk.send(COUNT if kind == "count" else ANSWER, about())
    await caller.aclose()
    return outcome


async def test_a_body_without_end_is_cut_off_and_is_still_a_success_of_a_send() -> None:
    def endless(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b" " * (1024 * 1024 + 1))

    assert await _with_handler(endless) == Done()
    assert failed(await _with_handler(endless, "look_up")).code == "PROTOCOL_ERROR"


async def test_a_compressed_body_is_not_unpacked() -> None:
    def packed(request: httpx.Request) -> httpx.Response:
        assert request.headers["accept-encoding"] == "identity"
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"\x1f\x8b"))

    assert await _with_handler(packed) == Done()
    assert "encoded" in failed(await _with_handler(packed, "look_up")).detail


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"null", b'{"ticket": 1}', b'{"ticket": {"id": "t-17"}}', b"[" * 100_000, b"\xff"]
)
async def test_a_strange_answer_to_a_lookup_never_says_absent(body: bytes) -> None:
    assert failed(await _with_handler(lambda _: httpx.Response(200, content=body), "look_up")).is_retryable


async def test_an_empty_success_is_done() -> None:
    assert await _with_handler(lambda _: httpx.Response(204)) == Done()


async def _send_to(base_url: str) -> Failure:
    caller = HttpCaller(CLOCK)
    helpdesk = RichpanelProvider(caller, SecretsDouble(SecretDouble(base_url)), CLOCK, render)
    outcome = failed(await helpdesk.send(ANSWER, about()))
    await caller.aclose()
    return outcome


async def test_nothing_happened_where_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        failure = await _send_to(f"http://127.0.0.1:{unused.getsockname()[1]}/v1")
    assert (failure.code, failure.may_have_happened, failure.is_retryable) == ("CONNECTION_REFUSED", False, True)


async def test_nothing_happened_where_no_tls_could_be_agreed(simulator: RunningSimulator) -> None:
    failure = await _send_to(simulator.helpdesk_url.replace("http:", "https:"))
    assert (failure.code, failure.may_have_happened) == ("TLS_HANDSHAKE_FAILED", False)


def test_the_adapter_is_a_provider() -> None:
    secrets = SecretsDouble(SecretDouble("https://helpdesk.test/v1"))
    provider: Provider = RichpanelProvider(HttpCaller(CLOCK), secrets, CLOCK, render)
    assert provider.wanted(ASSIGN) == "team-billing"
