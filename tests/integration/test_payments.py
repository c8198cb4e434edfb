"""The real worker and sweeper over the real payments' adapter: one effect per action, or a row for people that tells.

The provider keeps keys as Stripe documents it (`ops/simulator/payments.py`); the clock is the test's.
"""

from __future__ import annotations

import pytest

from functions.adapters.stripe import (
    CANCEL_SUBSCRIPTION,
    CHANGE_PLAN,
    CREATE_CHECKOUT_SESSION,
    REFUND,
    StripeProvider,
)
from functions.catalog.loader import load
from functions.core.attempt import Effect
from functions.core.decision import Action, Repeat
from functions.core.integration import Integration
from functions.core.recovery import Row, Status, replay
from ops.simulator import Fault, FaultMode
from tests import worker_world
from tests.contract.provider_world import OverMock, SecretDouble, SecretsDouble
from tests.fakes import LIVE_SWITCHES, FakeRecovery
from tests.worker_world import DESK, World

HOUR_MS = 3_600_000


def action(kind: str, target: str, **params: object) -> Action:
    return Action("pay", kind, DESK, Repeat.KEYED, target, params)


CHECKOUT = action(
    CREATE_CHECKOUT_SESSION, "cus_1", mode="payment", price="price_1", success_url="https://app.example/thanks"
)
BACK = action(REFUND, "pi_1", amount=100)
CANCEL = action(CANCEL_SUBSCRIPTION, "sub_1")
PLAN = action(CHANGE_PLAN, "sub_1", item="si_1", price="price_gold")
every_kind = pytest.mark.parametrize("what", [CHECKOUT, BACK, CANCEL, PLAN], ids=lambda what: what.kind)


class Till:
    """The worker's world with the payments' account in the helpdesk's place."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, what: Action) -> None:
        monkeypatch.setattr(worker_world, "ACTIONS", {"pay": what})
        catalog = load().integrations["payments"]
        self.account = OverMock()
        self.world = World(("pay",))
        self.world.integrations = {DESK: Integration(DESK, catalog.kinds, catalog.policy, deadline_seconds=5.0)}
        self.world.provider = StripeProvider(  # type: ignore[assignment]  # it takes the double's place
            self.account.caller(self.world.clock),
            SecretsDouble(SecretDouble(self.account.payments_url)),
            self.world.clock,
        )
        event = self.world.event()
        self.world.accept(event)

    def effects(self) -> int:
        return len(self.account.effects())

    def row(self) -> Row:
        (row,) = self.world.tables.rows.values()
        return row

    def switch(self, **values: str) -> None:
        self.world.switches.values.update({**LIVE_SWITCHES, **values})

    def pass_hours(self, hours: float) -> None:
        """Without anything being done meanwhile."""
        self.world.clock.now += int(hours * HOUR_MS)


@pytest.fixture
def till(monkeypatch: pytest.MonkeyPatch, what: Action) -> Till:
    return Till(monkeypatch, what)


@every_kind
@pytest.mark.parametrize(
    "mode",
    [
        FaultMode.DROP_RESPONSE,
        FaultMode.STATUS_AFTER_EFFECT,
        FaultMode.WRONG_CONTENT_TYPE,
        FaultMode.RESET,
        FaultMode.STATUS,
        FaultMode.MALFORMED,
    ],
)
@pytest.mark.parametrize("times", [1, 3])
def test_whatever_becomes_of_its_answers_an_action_has_one_effect_and_needs_nobody(
    till: Till, what: Action, mode: FaultMode, times: int
) -> None:
    till.account.add_faults(Fault("payments", mode, times=times))
    till.world.run_until_quiet()
    assert till.effects() == 1
    assert all(row.status is Status.SUCCEEDED for row in till.world.tables.rows.values())


@every_kind
def test_an_answer_lost_before_a_long_stop_is_looked_up_when_the_key_is_gone(till: Till, what: Action) -> None:
    """Sent again under its pruned key it would be there twice."""
    till.account.add_faults(Fault("payments", FaultMode.DROP_RESPONSE, times=1))
    till.world.deliver()
    assert (till.effects(), till.row().effect) == (1, Effect.UNKNOWN)
    till.pass_hours(21.7)
    assert till.account.prune_keys() == 1
    till.world.run_until_quiet()
    assert (till.row().status, till.row().effect) == (Status.SUCCEEDED, Effect.DONE)
    assert till.effects() == 1


@every_kind
def test_what_was_never_done_before_a_long_stop_is_done_then_once(till: Till, what: Action) -> None:
    till.account.add_faults(Fault("payments", FaultMode.RESET, times=1))
    till.world.deliver()
    till.pass_hours(21.7)
    till.account.prune_keys()
    till.world.run_until_quiet()
    assert (till.row().status, till.effects()) == (Status.SUCCEEDED, 1)


@every_kind
def test_a_stored_error_is_looked_up_after_it_came_twice_and_ends_known_to_have_had_no_effect(
    till: Till, what: Action
) -> None:
    till.account.add_faults(Fault("payments", FaultMode.STORE_STATUS, status=500, times=1))
    till.world.run_until_quiet()
    row = till.row()
    assert (row.status, row.failure_code, row.effect) == (Status.DLQ, "HTTP_500", Effect.NONE)
    assert till.effects() == 0
    assert [call.method for call in till.account.calls()][:3] == ["POST", "POST", "GET"]

    # The runbook's way out: a day later the key is free, and a person replays it.
    till.pass_hours(24)
    till.account.prune_keys()
    now_ms = till.world.clock.now
    change = replay(row, now_ms, actor="ana", reason="a day later", request_id="r", job_id="j", scale=1.0)
    FakeRecovery(till.world.tables).commit([change])
    till.world.run_until_quiet()
    assert (till.row().result, till.effects()) == ("succeeded", 1)


@pytest.mark.parametrize("what", [PLAN], ids=lambda what: what.kind)
def test_a_persons_change_after_ours_stands_however_late_we_learn_that_ours_was_made(till: Till, what: Action) -> None:
    till.account.add_faults(Fault("payments", FaultMode.DROP_RESPONSE, times=1))
    till.world.deliver()
    till.account.person_subscribes("sub_1", {"price": "price_silver"})
    till.pass_hours(21.7)
    till.account.prune_keys()
    till.world.run_until_quiet()
    assert till.row().status is Status.SUCCEEDED
    assert till.account.subscription("sub_1")["items"]["data"][0]["price"]["id"] == "price_silver"


@pytest.mark.parametrize("what", [PLAN], ids=lambda what: what.kind)
def test_another_actions_marker_leaves_the_outcome_to_a_person(till: Till, what: Action) -> None:
    till.account.add_faults(Fault("payments", FaultMode.RESET, times=1))
    till.world.deliver()
    marked = till.account.subscription("sub_1")
    assert marked["metadata"] == {}
    till.account.mark_subscription("sub_1", {"holdfast_change_plan": "another"})
    till.pass_hours(21.7)
    till.account.prune_keys()
    till.world.run_until_quiet()
    row = till.row()
    assert (row.status, row.failure_code, row.effect) == (Status.FAILED, "LOOKUP_UNDECIDED", Effect.UNKNOWN)
    assert till.effects() == 0


@pytest.mark.parametrize("what", [BACK], ids=lambda what: what.kind)
@pytest.mark.parametrize("first", [503, 429])
def test_a_key_refused_for_other_parameters_leaves_the_outcome_to_a_person(
    till: Till, what: Action, first: int
) -> None:
    """As after a release that changed what is sent: some call was made under the key, whatever we know of ours."""
    till.account.add_faults(Fault("payments", FaultMode.STATUS, status=first, times=1))
    till.world.deliver()
    sent = till.row().action
    assert sent is not None
    till.account.use_key(sent.action_id)
    till.world.run_until_quiet()
    row = till.row()
    assert (row.status, row.failure_code, row.effect) == (Status.FAILED, "KEY_REUSED", Effect.UNKNOWN)
    assert till.effects() == 0
