"""While a channel is down, what must arrive is woken, so that it goes another way, and nothing else (000.10)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from functions import observability
from functions.core import sweep
from functions.core.attempt import Effect
from functions.core.gate import Health
from functions.core.recovery import Row
from functions.sweeper.handler import Handler, build
from tests.fakes import NOON_MS, FakeIds, FakeLedger
from tests.fallback_matrix import MATRIX, action
from tests.integration.test_sweeper import SETTINGS, Stage
from tests.recovery_rows import row


class Channels(Stage):
    """A sweeper that knows the matrix; `email` is down."""

    def __init__(self, *rows: Row) -> None:
        super().__init__(*rows)
        self.tables.set_health("email", Health.HARD_DOWN)

    def sweeper(self, scale: float) -> Handler:
        return build(
            replace(SETTINGS, time_scale=scale),
            integrations=("helpdesk", "email"),
            ledger=FakeLedger(self.tables),
            recovery=self.recovery,
            switches=self.switches,
            spill=self.spill,
            envelopes=self.envelopes,
            events=self.events,
            retries=self.retries,
            replays=self.replays,
            clock=self.clock,
            ids=FakeIds(),
            log=observability.logger("sweeper-test", stream=self.log),
            metrics=observability.metrics("sweeper", "test", self.lines.append),
            fallbacks=MATRIX,
        )


def message(target: str = "t1", event_name: str = "invite.created", **fields: Any) -> Row:
    """A message that waits for `email`, due now."""
    said = action("email.send", target=target)
    return row(target, action=said, **({"integration_id": "email", "event_name": event_name} | fields))


def test_only_what_must_arrive_is_woken_while_its_channel_is_down() -> None:
    critical, other = message("t1"), message("t2", "digest.weekly")
    stage = Channels(critical, other)
    stage.tick()
    assert stage.hints(stage.retries) == [critical.recovery_id]
    assert stage.now(other) == other


@pytest.mark.parametrize(
    "fields",
    [
        {"effect": Effect.UNKNOWN},
        {"lease_until_ms": NOON_MS + 1},
        {"not_before_ms": NOON_MS + 70_000, "due_at_ms": NOON_MS + 70_000},
        {"waits_for": ("a" * 24,), "due_at_ms": NOON_MS},
    ],
    ids=["may have been sent", "under way", "not due", "waits for another"],
)
def test_what_must_arrive_but_cannot_leave_is_left_alone(fields: dict[str, Any]) -> None:
    stage = Channels(message(**fields))
    stage.tick()
    assert stage.retries.sent == []


def test_what_is_too_late_is_not_woken_and_ends() -> None:
    late, other = message(expires_at_ms=NOON_MS - 1), message("t2", "digest.weekly", expires_at_ms=NOON_MS)
    stage = Channels(late, other)
    stage.tick()
    assert stage.retries.sent == []
    assert [stage.now(each).failure_code for each in (late, other)] == ["EXPIRED", "EXPIRED"]


def test_an_operator_s_switch_holds_what_must_arrive_too() -> None:
    stage = Channels(message())
    stage.switches.values["disabled_integrations"] = "email"
    stage.tick()
    assert stage.retries.sent == []


def test_a_backlog_hides_nothing_that_must_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    """More waits than a tick reads: what has been looked at makes room."""
    monkeypatch.setattr(sweep, "READ_AHEAD", 5)
    others = [message(f"o{n}", "digest.weekly", due_at_ms=NOON_MS - 1_000 + n) for n in range(12)]
    critical = message("t1", due_at_ms=NOON_MS)
    stage = Channels(*others, critical)
    for _ in range(3):
        stage.tick()
        stage.clock.advance(1_000)
    assert stage.hints(stage.retries) == [critical.recovery_id]
    assert all(stage.now(one).is_open and stage.now(one).attempt_count == one.attempt_count for one in others)
