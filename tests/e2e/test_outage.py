"""The events queue fails, then the bucket too: what senders are told, and what becomes of what was accepted."""

from __future__ import annotations

from collections.abc import Callable

from ops.drills.outage import play
from tests.e2e.conftest import World

EVENTS = 24  # `make drill` plays it with 500 and 500
REFUSED = 8


def test_events_outlive_an_outage_of_the_queue_and_none_is_acknowledged_that_is_not_stored(
    world: World, proved: Callable[[str], None]
) -> None:
    """002.10: nothing acknowledged is lost; and a sender is never told that an event is stored when it is not."""
    seen = play(world, events=EVENTS, refused=REFUSED, pairs=2, name="e2e-queue-down")
    assert {status for status in seen.answers if not 200 <= status < 300} == set()
    assert seen.spilled == EVENTS
    assert dict(seen.answers_without_bucket) == {503: REFUSED}
    assert seen.spilled_without_bucket == 0
    assert seen.settled
    assert seen.left_in_spill == 0
    assert seen.problems == []
    proved(
        f"queue down: {seen.spilled} of {EVENTS} acknowledged and spilled, then settled with {seen.effects} effects "
        f"once each; bucket down too: {REFUSED} of {REFUSED} answered 503; ingress took at most "
        f"{max(seen.slowest_ms.values())} ms"
    )
