"""The payments' adapter: one effect per action whatever becomes of the answer, over a mock transport and sockets."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest

from functions.adapters.http import HttpCaller
from functions.adapters.ssm import UnusableSecret
from functions.adapters.stripe import (
    API_VERSION,
    CANCEL_SUBSCRIPTION,
    CHANGE_PLAN,
    CREATE_CHECKOUT_SESSION,
    MARKER,
    MAX_PAGES,
    PAGE_SIZE,
    REFUND,
    StripeProvider,
    subscription_marker,
)
from functions.catalog.loader import load
from functions.core.attempt import AskPerson, History, LookUp, SendNow, Step, WaitUntil, next_step
from functions.core.decision import Action, Repeat
from functions.core.failure import Done, Failure, FailureClass, StorageUnavailable
from functions.core.ports import Absent, Provider
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

HOUR_MS = 3_600_000


def action(name: str, kind: str, target: str, **params: Any) -> Action:
    whole = Action(name=name, kind=kind, integration="payments", repeat=Repeat.KEYED, target=target, params=params)
    return whole.bound("acme", "app:m-1", 0)


CHECKOUT = action(
    "checkout",
    CREATE_CHECKOUT_SESSION,
    "cus_17",
    mode="subscription",
    price="price_gold",
    success_url="https://app.example/thanks?session={CHECKOUT_SESSION_ID}",
    cancel_url="https://app.example/plans",
)
BACK = action("refund", REFUND, "pi_17", amount=2500, reason="requested_by_customer")
CANCEL = action("cancel", CANCEL_SUBSCRIPTION, "sub_17")
PLAN = action("plan", CHANGE_PLAN, "sub_17", item="si_17", price="price_gold")
ACTIONS = (CHECKOUT, BACK, CANCEL, PLAN)
every_kind = pytest.mark.parametrize("what", ACTIONS, ids=lambda what: what.name)


@pytest.fixture(scope="module")
def simulator() -> Iterator[RunningSimulator]:
    with serve() as running:
        yield running


@pytest.fixture(params=["mock", "sockets"])
def world(request: pytest.FixtureRequest, simulator: RunningSimulator) -> ProviderWorld:
    return OverMock() if request.param == "mock" else OverSockets(simulator)


@pytest.fixture
def secrets(world: ProviderWorld) -> SecretsDouble:
    return SecretsDouble(SecretDouble(world.payments_url))


@pytest.fixture
async def payments(world: ProviderWorld, secrets: SecretsDouble) -> AsyncIterator[StripeProvider]:
    caller = world.caller()
    yield StripeProvider(caller, secrets, CLOCK)
    await caller.aclose()


def failed(outcome: object) -> Failure:
    assert isinstance(outcome, Failure), outcome
    return outcome


def done(outcome: object) -> str:
    assert isinstance(outcome, Done), outcome
    return outcome.provider_id


# ---------------------------------------------------------------------------------------------------- what is done


@every_kind
async def test_an_action_is_done_once_however_often_it_is_sent_and_a_lookup_finds_it(
    world: ProviderWorld, payments: StripeProvider, what: Action
) -> None:
    """000.28, 000.11"""
    assert await payments.look_up(what, about()) == Absent()
    first = done(await payments.send(what, about()))
    assert first
    assert done(await payments.send(what, about())) == first
    assert done(await payments.look_up(what, about())) == first
    [effect] = world.effects()
    assert (effect.key, effect.target, effect.kind) == (what.action_id, what.target, what.kind.partition(".")[2])
    assert effect.headers == {
        "x-request-id": "request-1",
        "traceparent": about().traceparent,
        "idempotency-key": what.action_id,
    }


async def test_a_refund_of_a_charge_is_told_from_one_of_a_payment_intent(
    world: ProviderWorld, payments: StripeProvider
) -> None:
    of_charge = action("refund", REFUND, "ch_17")
    assert done(await payments.send(of_charge, about())).startswith("re_")
    assert isinstance(await payments.look_up(of_charge, about()), Done)
    assert await payments.look_up(replace(of_charge, target="pi_17"), about()) == Absent()
    assert world.effects()[0].detail["amount"] == "10000"


async def test_a_cancellation_ends_at_the_period_and_leaves_the_plan_and_its_marker(
    world: ProviderWorld, payments: StripeProvider
) -> None:
    await payments.send(PLAN, about())
    await payments.send(CANCEL, about())
    shown = world.subscription("sub_17")
    assert (shown["status"], shown["cancel_at_period_end"]) == ("active", True)
    assert shown["items"]["data"][0]["price"]["id"] == "price_gold"
    assert shown["metadata"] == {
        subscription_marker(CHANGE_PLAN): PLAN.action_id,
        subscription_marker(CANCEL_SUBSCRIPTION): CANCEL.action_id,
    }


async def test_a_change_that_cannot_be_paid_is_refused_as_a_whole(
    world: ProviderWorld, payments: StripeProvider
) -> None:
    dear = action("plan", CHANGE_PLAN, "sub_17", item="si_17", price="price_declined", proration="always_invoice")
    failure = failed(await payments.send(dear, about()))
    assert (failure.code, failure.failure_class, failure.may_have_happened) == (
        "HTTP_402",
        FailureClass.DATA_ERROR,
        False,
    )
    assert world.subscription("sub_17")["items"]["data"][0]["price"]["id"] == "price_basic"
    assert world.effects() == []


async def test_a_refund_that_moved_no_money_is_for_a_person_when_sent_and_when_found(
    world: ProviderWorld, payments: StripeProvider
) -> None:
    what = action("refund", REFUND, "pi_unpayable")
    for outcome in (await payments.send(what, about()), await payments.look_up(what, about())):
        failure = failed(outcome)
        assert (failure.code, failure.is_retryable) == ("REFUND_NOT_PAID", False)
    assert len(world.effects()) == 1


@pytest.mark.parametrize(
    ("newest_first", "found"),
    [
        ([("re_2", "failed"), ("re_1", "succeeded")], Done("re_1")),
        ([("re_2", "succeeded"), ("re_1", "failed")], Done("re_2")),
        ([("re_1", "succeeded"), ("re_1", "succeeded")], Done("re_1")),
        ([("re_2", "succeeded"), ("re_1", "pending")], Done("re_2", 2)),
    ],
)
async def test_twice_is_what_moved_money_twice(newest_first: list[tuple[str, str]], found: Done) -> None:
    """A refund that the bank refused, and that a person asked for again, is one; and it is there."""
    data = [{"id": one, "status": status, "metadata": {MARKER: BACK.action_id}} for one, status in newest_first]
    page = {"object": "list", "has_more": False, "data": data}
    assert await _with(lambda _: httpx.Response(200, json=page), BACK, is_lookup=True) == found


# ------------------------------------------------------------------------------------------- what may have been done


@every_kind
@pytest.mark.parametrize(
    ("mode", "codes", "has_effect"),
    [
        (FaultMode.DROP_RESPONSE, {"CONNECTION_RESET", "PROTOCOL_ERROR"}, True),
        (FaultMode.STATUS_AFTER_EFFECT, {"HTTP_503"}, True),
        (FaultMode.WRONG_CONTENT_TYPE, {"PROTOCOL_ERROR"}, True),
        (FaultMode.RESET, {"CONNECTION_RESET", "PROTOCOL_ERROR"}, False),
        (FaultMode.STATUS, {"HTTP_503"}, False),
        (FaultMode.HANG, {"DEADLINE_EXCEEDED"}, False),
    ],
)
async def test_a_lost_answer_and_the_same_key_make_exactly_one_effect(
    world: ProviderWorld,
    payments: StripeProvider,
    what: Action,
    mode: FaultMode,
    codes: set[str],
    has_effect: bool,
) -> None:
    world.add_faults(Fault("payments", mode, times=1))
    failure = failed(await payments.send(what, about(0.6 if mode is FaultMode.HANG else 30)))
    assert failure.code in codes
    assert (failure.is_retryable, failure.may_have_happened) == (True, True)
    assert isinstance(await payments.look_up(what, about()), Done) is has_effect
    assert done(await payments.send(what, about()))
    assert [effect.key for effect in world.effects()] == [what.action_id]


@every_kind
@pytest.mark.parametrize("mode", [FaultMode.MALFORMED, FaultMode.TRUNCATE, FaultMode.SLOW_BODY])
async def test_a_success_whose_body_is_lost_is_done_without_an_id(
    world: ProviderWorld, payments: StripeProvider, what: Action, mode: FaultMode
) -> None:
    world.add_faults(Fault("payments", mode, seconds=30, times=1))
    assert await payments.send(what, about(0.8 if mode is FaultMode.SLOW_BODY else 30)) == Done()
    assert done(await payments.look_up(what, about()))
    assert len(world.effects()) == 1


def step(what: Action, *, age_hours: float, stored_errors: int = 0) -> Step:
    """What the catalog's rules say of an action that may have been sent for the first time that long ago."""
    now_ms = 1_800_000_000_000
    sent_ms = now_ms - int(age_hours * HOUR_MS)
    history = History(
        had_lease=True,
        may_have_been_sent=True,
        first_sent_at_ms=sent_ms,
        last_possible_send_ms=sent_ms,
        stored_errors=stored_errors,
    )
    return next_step(load().integrations["payments"].kinds[what.kind], history, now_ms, 1.0)


@every_kind
def test_the_same_key_is_sent_within_nine_tenths_of_a_day_and_then_it_is_looked_up(what: Action) -> None:
    assert step(what, age_hours=21.5) == SendNow()
    assert step(what, age_hours=21.7) == LookUp()
    assert step(what, age_hours=1, stored_errors=1) == SendNow()
    assert step(what, age_hours=1, stored_errors=2) == LookUp()
    assert isinstance(step(what, age_hours=0.01, stored_errors=2), WaitUntil)
    assert not isinstance(step(what, age_hours=500), AskPerson)


@every_kind
async def test_a_key_that_was_pruned_would_make_a_second_effect_so_what_is_found_is_not_sent_again(
    world: ProviderWorld, payments: StripeProvider, what: Action
) -> None:
    """The second half shows that the first one matters: after the window the key protects nobody."""
    world.add_faults(Fault("payments", FaultMode.DROP_RESPONSE, times=1))
    failed(await payments.send(what, about()))
    assert world.prune_keys() == 1
    found = done(await payments.look_up(what, about()))
    assert len(world.effects()) == 1
    assert done(await payments.send(what, about()))
    assert len(world.effects()) == 2
    assert found
    is_listed = what.kind in (CREATE_CHECKOUT_SESSION, REFUND)  # a subscription is one, however often it was changed
    again = await payments.look_up(what, about())
    assert isinstance(again, Done)
    assert again.times == (2 if is_listed else 1)


@every_kind
async def test_what_was_never_done_is_found_absent_and_sent_under_the_pruned_key(
    world: ProviderWorld, payments: StripeProvider, what: Action
) -> None:
    world.add_faults(Fault("payments", FaultMode.RESET, times=1))
    assert failed(await payments.send(what, about())).may_have_happened is True
    world.prune_keys()
    assert await payments.look_up(what, about()) == Absent()
    assert done(await payments.send(what, about()))
    assert len(world.effects()) == 1


@every_kind
async def test_a_stored_error_comes_again_under_its_key_and_the_lookup_tells_what_it_hid(
    world: ProviderWorld, payments: StripeProvider, what: Action
) -> None:
    world.add_faults(Fault("payments", FaultMode.STORE_STATUS, status=500, times=1))
    for _ in range(2):
        failure = failed(await payments.send(what, about()))
        assert (failure.code, failure.is_retryable, failure.may_have_happened) == ("HTTP_500", True, True)
    assert await payments.look_up(what, about()) == Absent()
    assert world.effects() == []
    assert world.fired() == 1  # the second one was the stored answer


@every_kind
async def test_a_call_under_way_with_the_same_key_is_answered_409_and_is_tried_again(
    world: ProviderWorld, payments: StripeProvider, what: Action
) -> None:
    world.add_faults(Fault("payments", FaultMode.LATENCY, seconds=1.5, times=1))
    first = asyncio.create_task(payments.send(what, about()))
    while not world.fired():  # noqa: ASYNC110  # the event is in another process or thread
        await asyncio.sleep(0.01)
    failure = failed(await payments.send(what, about()))
    assert (failure.code, failure.failure_class) == ("HTTP_409", FailureClass.TRANSIENT)
    assert (failure.is_retryable, failure.may_have_happened) == (True, True)
    assert "idempotency_key_in_use" in failure.detail
    made = done(await first)
    assert done(await payments.send(what, about())) == made
    assert len(world.effects()) == 1


async def test_a_key_that_was_first_used_with_other_parameters_leaves_the_outcome_to_a_person(
    world: ProviderWorld, payments: StripeProvider
) -> None:
    await payments.send(BACK, about())
    other = replace(BACK, params={"amount": 1})  # the same id: as if a release had changed what is sent
    failure = failed(await payments.send(other, about()))
    assert (failure.code, failure.failure_class) == ("KEY_REUSED", FailureClass.DATA_ERROR)
    assert json.loads(failure.answer)["body"]["error"]["type"] == "idempotency_error"
    assert (failure.is_retryable, failure.may_have_happened) == (False, True)
    assert len(world.effects()) == 1


@every_kind
async def test_a_deadline_ends_the_call_and_what_stripe_went_on_to_do_is_found(
    world: ProviderWorld, payments: StripeProvider, what: Action
) -> None:
    world.add_faults(Fault("payments", FaultMode.LATENCY, seconds=1.0, times=1))
    assert failed(await payments.send(what, about(0.3))).code == "DEADLINE_EXCEEDED"
    for _ in range(300):
        if world.effects():
            break
        await asyncio.sleep(0.02)
    assert done(await payments.look_up(what, about()))
    assert done(await payments.send(what, about()))
    assert len(world.effects()) == 1


# --------------------------------------------------------------------------------------------------------- statuses


@pytest.mark.parametrize(
    ("status", "failure_class", "is_retryable", "may_have_happened"),
    [
        (302, FailureClass.TRANSIENT, False, True),
        (400, FailureClass.DATA_ERROR, False, False),
        (401, FailureClass.AUTH_ERROR, False, False),
        (402, FailureClass.DATA_ERROR, False, False),
        (403, FailureClass.AUTH_ERROR, False, False),
        (404, FailureClass.DATA_ERROR, False, False),
        (409, FailureClass.TRANSIENT, True, True),
        (424, FailureClass.DATA_ERROR, False, False),
        (429, FailureClass.RATE_LIMITED, True, False),
        (500, FailureClass.TRANSIENT, True, True),
        (502, FailureClass.TRANSIENT, True, True),
        (503, FailureClass.TRANSIENT, True, True),
    ],
)
async def test_a_status_says_whether_it_may_have_happened_and_whether_to_try_again(
    world: ProviderWorld,
    payments: StripeProvider,
    status: int,
    failure_class: FailureClass,
    is_retryable: bool,
    may_have_happened: bool,
) -> None:
    world.add_faults(Fault("payments", FaultMode.STATUS, status=status, headers={"location": "/elsewhere"}))
    failure = failed(await payments.send(BACK, about()))
    assert (failure.status, failure.failure_class) == (status, failure_class)
    assert (failure.is_retryable, failure.may_have_happened) == (is_retryable, may_have_happened)
    assert world.request_count() == 1  # neither a retry nor a redirect


@pytest.mark.parametrize(
    ("fault", "failure_class", "wait_ms"),
    [
        ({"status": 429, "retry_after": "7"}, FailureClass.RATE_LIMITED, 7_000),
        ({"status": 429, "retry_after": "never"}, FailureClass.RATE_LIMITED, None),
        ({"status": 429, "body_code": "lock_timeout"}, FailureClass.TRANSIENT, None),
    ],
)
async def test_an_object_that_is_in_use_is_no_rate_limit_and_holds_nobody_else(
    world: ProviderWorld,
    payments: StripeProvider,
    fault: dict[str, Any],
    failure_class: FailureClass,
    wait_ms: int | None,
) -> None:
    world.add_faults(Fault("payments", FaultMode.STATUS, **fault))
    failure = failed(await payments.send(PLAN, about()))
    assert (failure.failure_class, failure.retry_after_ms) == (failure_class, wait_ms)
    assert (failure.is_retryable, failure.may_have_happened) == (True, False)


async def test_a_failure_names_stripes_code_and_request_for_who_asks_its_support(
    world: ProviderWorld, payments: StripeProvider
) -> None:
    failure = failed(await payments.send(replace(CANCEL, target="sub_missing1"), about()))
    assert "resource_missing" in failure.detail
    assert "req_" in failure.detail


# ---------------------------------------------------------------------------------------------------------- lookups


@every_kind
@pytest.mark.parametrize(
    "mode",
    [
        FaultMode.MALFORMED,
        FaultMode.TRUNCATE,
        FaultMode.WRONG_CONTENT_TYPE,
        FaultMode.RESET,
        FaultMode.DROP_RESPONSE,
        FaultMode.HANG,
        FaultMode.SLOW_BODY,
        FaultMode.STATUS,
    ],
)
async def test_a_lookup_that_cannot_be_read_never_says_absent(
    world: ProviderWorld, payments: StripeProvider, what: Action, mode: FaultMode
) -> None:
    world.add_faults(Fault("payments", mode, seconds=30 if mode is FaultMode.SLOW_BODY else 0))
    late = mode in (FaultMode.HANG, FaultMode.SLOW_BODY)
    failure = failed(await payments.look_up(what, about(0.5 if late else 30)))
    assert (failure.is_retryable, failure.may_have_happened) == (True, False)


async def test_a_lookup_goes_on_to_the_page_that_holds_what_it_looks_for(
    world: ProviderWorld, payments: StripeProvider
) -> None:
    await payments.send(BACK, about())
    for number in range(PAGE_SIZE + 1):  # newer ones, of which two pages are full
        await payments.send(action(f"r{number}", REFUND, "pi_17", amount=number + 1), about())
    before = world.request_count()
    assert done(await payments.look_up(BACK, about()))
    assert world.request_count() - before == 2


async def test_a_persons_change_after_ours_does_not_hide_that_ours_was_made(
    world: ProviderWorld, payments: StripeProvider
) -> None:
    """Else a late redo would overwrite the person."""
    for what in (PLAN, CANCEL):
        await payments.send(what, about())
    world.person_subscribes("sub_17", {"price": "price_silver", "cancel_at_period_end": False})
    for what in (PLAN, CANCEL):
        assert await payments.look_up(what, about()) == Done("sub_17")
    assert world.subscription("sub_17")["items"]["data"][0]["price"]["id"] == "price_silver"


@pytest.mark.parametrize(
    ("what", "change"),
    [
        (CANCEL, {"cancel_at_period_end": True}),
        (CANCEL, {"status": "canceled"}),
        (PLAN, {"price": "price_gold"}),
    ],
)
async def test_a_subscription_that_is_as_wanted_needs_no_second_change(
    world: ProviderWorld, payments: StripeProvider, what: Action, change: dict[str, Any]
) -> None:
    world.person_subscribes("sub_17", change)
    assert await payments.look_up(what, about()) == Done("sub_17")


async def test_another_actions_marker_tells_neither_way_and_a_person_decides(
    world: ProviderWorld, payments: StripeProvider
) -> None:
    later = action("plan", CHANGE_PLAN, "sub_17", item="si_17", price="price_silver")
    await payments.send(later, about())
    failure = failed(await payments.look_up(PLAN, about()))
    assert (failure.code, failure.is_retryable, failure.may_have_happened) == ("LOOKUP_UNDECIDED", False, False)
    assert await payments.look_up(CANCEL, about()) == Absent()


# ---------------------------------------------------------------------------------------------- what is never sent


@pytest.mark.parametrize(
    ("what", "code"),
    [
        (replace(CHECKOUT, target="17"), "PARAMS_INVALID"),
        (replace(CHECKOUT, target="cus_1/../x"), "PARAMS_INVALID"),
        (replace(CHECKOUT, params={**CHECKOUT.params, "mode": "setup"}), "PARAMS_INVALID"),
        (replace(CHECKOUT, params={**CHECKOUT.params, "mode": ["payment"]}), "PARAMS_INVALID"),
        (replace(CHECKOUT, params={**CHECKOUT.params, "price": "gold"}), "PARAMS_INVALID"),
        (replace(CHECKOUT, params={**CHECKOUT.params, "quantity": 0}), "PARAMS_INVALID"),
        (replace(CHECKOUT, params={**CHECKOUT.params, "quantity": True}), "PARAMS_INVALID"),
        (replace(CHECKOUT, params={**CHECKOUT.params, "success_url": "http://app.example"}), "PARAMS_INVALID"),
        (replace(CHECKOUT, params={**CHECKOUT.params, "success_url": "https://["}), "PARAMS_INVALID"),
        (replace(CHECKOUT, params={**CHECKOUT.params, "cancel_url": 17}), "PARAMS_INVALID"),
        (replace(BACK, target="sub_17"), "PARAMS_INVALID"),
        (replace(BACK, params={"amount": 0}), "PARAMS_INVALID"),
        (replace(BACK, params={"amount": "2500"}), "PARAMS_INVALID"),
        (replace(BACK, params={"amount": 10**12}), "PARAMS_INVALID"),
        (replace(BACK, params={"reason": "because"}), "PARAMS_INVALID"),
        (replace(BACK, params={"reason": ["duplicate"]}), "PARAMS_INVALID"),
        (replace(CANCEL, target="sub_17\n"), "PARAMS_INVALID"),
        (replace(PLAN, target=""), "PARAMS_INVALID"),
        (replace(PLAN, params={"price": "price_gold"}), "PARAMS_INVALID"),
        (replace(PLAN, params={**PLAN.params, "proration": "later"}), "PARAMS_INVALID"),
        (replace(PLAN, params={**PLAN.params, "proration": {}}), "PARAMS_INVALID"),
        (replace(PLAN, kind="payments.charge"), "KIND_UNKNOWN"),
    ],
)
async def test_an_action_that_cannot_be_carried_out_is_a_data_error_and_nothing_is_sent(
    world: ProviderWorld, payments: StripeProvider, what: Action, code: str
) -> None:
    for outcome in (await payments.send(what, about()), await payments.look_up(what, about())):
        failure = failed(outcome)
        assert (failure.code, failure.failure_class) == (code, FailureClass.DATA_ERROR)
        assert (failure.is_retryable, failure.may_have_happened) == (False, False)
    assert world.request_count() == 0


@every_kind
async def test_nothing_is_sent_when_no_time_is_left(
    world: ProviderWorld, payments: StripeProvider, what: Action
) -> None:
    for outcome in (await payments.send(what, about(0)), await payments.look_up(what, about(-5))):
        assert failed(outcome).may_have_happened is False
    assert world.request_count() == 0


async def test_a_rotated_key_is_refused_until_the_credential_is_read_again(
    world: ProviderWorld, payments: StripeProvider, secrets: SecretsDouble
) -> None:
    world.accept_keys(["key-2"])
    secrets.stored = replace(secrets.cached, credential="key-2", version="2")
    assert failed(await payments.send(BACK, about())).failure_class is FailureClass.AUTH_ERROR
    assert failed(await payments.look_up(BACK, about())).failure_class is FailureClass.AUTH_ERROR
    assert payments.refresh_credential() == "2"
    assert done(await payments.send(BACK, about()))


async def test_a_parameter_that_cannot_be_read_or_used_sends_nothing_and_its_secret_is_quoted_nowhere(
    world: ProviderWorld, payments: StripeProvider, secrets: SecretsDouble, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    good = secrets.cached
    secrets.error = StorageUnavailable("the parameter store does not answer")
    assert failed(await payments.send(BACK, about())).code == "CREDENTIAL_UNREADABLE"
    secrets.error = UnusableSecret("base_url names a host that the catalog does not list")
    assert failed(await payments.send(BACK, about())).code == "CREDENTIAL_MALFORMED"
    secrets.error = None
    for bad in ("sk_live_secret\r\nx: y", "", "sk_live_secret" * 400):
        secrets.cached = replace(good, credential=bad)
        failure = failed(await payments.send(BACK, about()))
        assert failure.may_have_happened is False
        assert "sk_live" not in failure.detail
    assert world.request_count() == 0
    assert "sk_live" not in caplog.text


@every_kind
@pytest.mark.parametrize("mode", [FaultMode.STATUS, FaultMode.RESET, FaultMode.MALFORMED, FaultMode.WRONG_CONTENT_TYPE])
async def test_no_secret_and_no_parameter_is_in_a_failure_or_a_log(
    world: ProviderWorld,
    payments: StripeProvider,
    caplog: pytest.LogCaptureFixture,
    what: Action,
    mode: FaultMode,
) -> None:
    caplog.set_level(logging.DEBUG)
    world.add_faults(Fault("payments", mode, body_code="not a code: someone@example.com"))
    for outcome in (await payments.send(what, about()), await payments.look_up(what, about())):
        if isinstance(outcome, Failure):
            assert KEY not in outcome.detail
            assert "@" not in outcome.detail
    ours = "".join(record.getMessage() for record in caplog.records)
    assert f"Bearer {KEY}" not in ours


# ------------------------------------------------------------------------------------------ what only a mock can show


async def _with(handler: Callable[[httpx.Request], httpx.Response], what: Action, *, is_lookup: bool = False) -> object:
    caller = HttpCaller(CLOCK, lambda: httpx.MockTransport(handler))
    payments = StripeProvider(caller, SecretsDouble(SecretDouble("https://payments.test/v1")), CLOCK)
    outcome: object = await (payments.look_up(what, about()) if is_lookup else payments.send(what, about()))
    await caller.aclose()
    return outcome


@pytest.mark.parametrize(
    ("what", "path", "form"),
    [
        (
            CHECKOUT,
            "/v1/checkout/sessions",
            {
                "mode": "subscription",
                "customer": "cus_17",
                "line_items[0][price]": "price_gold",
                "line_items[0][quantity]": "1",
                "success_url": "https://app.example/thanks?session={CHECKOUT_SESSION_ID}",
                "cancel_url": "https://app.example/plans",
                "metadata[holdfast_action]": CHECKOUT.action_id,
            },
        ),
        (
            BACK,
            "/v1/refunds",
            {
                "payment_intent": "pi_17",
                "amount": "2500",
                "reason": "requested_by_customer",
                "metadata[holdfast_action]": BACK.action_id,
            },
        ),
        (
            CANCEL,
            "/v1/subscriptions/sub_17",
            {"cancel_at_period_end": "true", "metadata[holdfast_cancel_subscription]": CANCEL.action_id},
        ),
        (
            PLAN,
            "/v1/subscriptions/sub_17",
            {
                "items[0][id]": "si_17",
                "items[0][price]": "price_gold",
                "proration_behavior": "create_prorations",
                "payment_behavior": "error_if_incomplete",
                "metadata[holdfast_change_plan]": PLAN.action_id,
            },
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Action) else "",
)
async def test_what_goes_out_under_a_key_stays_the_same_from_release_to_release(
    what: Action, path: str, form: dict[str, str]
) -> None:
    """Whoever changes these fields changes what a key of the last 24 hours stands for: see the adapter."""

    def handle(request: httpx.Request) -> httpx.Response:
        assert (request.method, request.url.path, request.url.query) == ("POST", path, b"")
        assert dict(parse_qsl(request.content.decode())) == form
        assert request.headers["content-type"] == "application/x-www-form-urlencoded"
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["stripe-version"] == API_VERSION
        assert request.headers["idempotency-key"] == what.action_id
        return httpx.Response(200, json={"id": "made_1"})

    assert await _with(handle, what) == Done("made_1")


async def test_a_read_carries_no_key() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        assert "idempotency-key" not in request.headers
        assert dict(request.url.params) == {"payment_intent": "pi_17", "limit": "100"}
        return httpx.Response(200, json={"object": "list", "has_more": False, "data": []})

    assert await _with(handle, BACK, is_lookup=True) == Absent()


async def test_a_list_without_end_is_given_up_and_nothing_is_called_absent() -> None:
    pages: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        pages.append(request.url.params.get("starting_after", ""))
        made = [{"id": f"re_{len(pages)}", "metadata": {}}]
        return httpx.Response(200, json={"object": "list", "has_more": True, "data": made})

    failure = failed(await _with(handle, BACK, is_lookup=True))
    assert (failure.code, failure.is_retryable) == ("LOOKUP_UNDECIDED", False)
    assert pages == ["", *(f"re_{number}" for number in range(1, MAX_PAGES))]


HOSTILE = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b"\xff\xfe{}",
    b"[" * 100_000,
    b'{"id": 17}',
    b'{"id": ""}',
    b'{"id": ["re_1"]}',
    b'{"object": "list", "data": []}',
    b'{"object": "list", "has_more": "maybe", "data": []}',
    b'{"object": "search_result", "has_more": false, "data": []}',
    b'{"object": "list", "has_more": true, "data": []}',
    b'{"object": "list", "has_more": false, "data": {}}',
    b'{"object": "list", "has_more": false, "data": [{"id": 1}]}',
    b'{"object": "list", "has_more": false, "data": [{"id": "re_1", "metadata": "none"}]}',
    b'{"id": "sub_17", "status": "active"}',
    b'{"id": "sub_17", "status": "active", "cancel_at_period_end": false, "metadata": null, "items": {"data": []}}',
    b"<!doctype html><title>Sign in</title>",
    b" " * (1024 * 1024 + 1),
]


@every_kind
@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
async def test_a_strange_answer_to_a_lookup_never_says_absent_and_to_a_send_never_raises(
    what: Action, body: bytes
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=body)

    assert done(await _with(answer, what)) in ("", "sub_17")
    assert isinstance(await _with(answer, what, is_lookup=True), Failure)


async def test_an_answer_that_is_too_large_is_not_read_even_if_it_could_be() -> None:
    body = json.dumps({"id": "re_1", "object": "list", "has_more": False, "data": [], "pad": "x" * 1024 * 1024})

    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=body.encode())

    assert await _with(handle, BACK) == Done()
    assert "bytes" in failed(await _with(handle, BACK, is_lookup=True)).detail


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"error": null}',
        b'{"error": "idempotency_error"}',
        b'{"error": {"type": ["idempotency_error"]}}',
        b'{"error": {"code": {"a": 1}}}',
        b"\xff",
        b"[" * 100_000,
    ],
)
async def test_a_strange_error_is_what_its_status_says(body: bytes) -> None:
    failure = failed(await _with(lambda _: httpx.Response(400, content=body), BACK))
    assert (failure.code, failure.may_have_happened) == ("HTTP_400", False)


async def test_headers_that_come_twice_or_make_no_sense_change_nothing() -> None:
    headers = [
        ("request-id", "req_1\x7f"),
        ("retry-after", "1"),
        ("retry-after", "99999999999999999999"),
        ("idempotent-replayed", "perhaps"),
        ("content-length", "2"),
    ]
    failure = failed(await _with(lambda _: httpx.Response(429, headers=headers, content=b"{}"), BACK))
    assert failure.failure_class is FailureClass.RATE_LIMITED
    assert "req_1" not in failure.detail


async def test_no_redirect_is_followed_with_the_credential() -> None:
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(307, headers={"location": "https://evil.test/v1/refunds"})

    for is_lookup in (False, True):
        assert failed(await _with(handle, BACK, is_lookup=is_lookup)).status == 307
    assert asked == ["payments.test", "payments.test"]


async def test_calls_at_the_same_time_do_not_meet(world: ProviderWorld, payments: StripeProvider) -> None:
    several = [action(f"c{number}", CANCEL_SUBSCRIPTION, f"sub_{number}") for number in range(40)]
    outcomes = await asyncio.gather(*(payments.send(each, about()) for each in several))
    assert [done(outcome) for outcome in outcomes] == [each.target for each in several]
    assert len(world.effects()) == 40


async def test_the_adapter_is_a_provider_whose_kinds_are_all_in_the_catalog() -> None:
    provider: Provider = StripeProvider(
        HttpCaller(CLOCK), SecretsDouble(SecretDouble("https://payments.test/v1")), CLOCK
    )
    kinds = load().integrations["payments"].kinds
    assert set(kinds) == {what.kind for what in ACTIONS}
    assert {rules.key_window_seconds for rules in kinds.values()} == {86_400}
    assert all(rules.can_look_up for rules in kinds.values())
    assert provider.wanted(PLAN) == ""
    assert isinstance(await provider.read_setting(PLAN, about()), Failure)


def test_a_marker_fits_what_stripe_allows_in_metadata() -> None:
    """https://docs.stripe.com/api/metadata: keys of up to 40 characters, values of up to 500."""
    for name in (MARKER, *(subscription_marker(what.kind) for what in ACTIONS)):
        assert len(name) <= 40
    assert json.dumps(CHECKOUT.action_id) == f'"{CHECKOUT.action_id}"'
    assert len(CHECKOUT.action_id) <= 255  # as a key, too
