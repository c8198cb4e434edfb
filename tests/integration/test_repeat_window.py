"""Senders without ids: two messages with equal bodies are two events once the repeat window has passed, and one before.

From the sender's POST through ingress, the queue and the worker, to the effect that a customer would notice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.core.recovery import Status
from functions.worker.first_pass import OVERTAKEN
from tests.ingress_fakes import Gate
from tests.worker_world import FLOW, TENANT, World

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

WINDOW_MS = 600_000
BODY = b'{"event": "message.created", "text": "thanks"}'
HEADERS = {"X-Api-Key": "s3cret", "Content-Type": "application/json", "User-Agent": "a/1", "X-Tries": "1"}

# What a source's entry may say of ids; in none of these does a delivery bear one.
WITHOUT_IDS: dict[str, dict[str, Any]] = {
    "declared to have none": {"identity": "window"},
    "said to have one that did not come": {"identity": {"pointers": ["/message_id"]}},
    "said to have one in a header that did not come": {"identity": {"header": "x-message-id"}},
    "never asked for one": {},
}


class Story:
    """A sender, ingress, the queue and the worker, all by one clock. `begin` is the moment of the first message."""

    def __init__(self, kind: str, **more: Any) -> None:
        self.world = World(("push",))
        self.gate = Gate()
        self.begin = self.world.clock.now
        entry: dict[str, Any] = {
            "provider": "generic-apikey",
            "secrets": [{"secret": "s3cret"}],
            "tenant": TENANT,
            "flow": FLOW,
        }
        self.gate.parameters.put("desk", **(entry | WITHOUT_IDS[kind] | more))

    def post(self, after_ms: int, body: bytes = BODY, headers: dict[str, str] = HEADERS) -> str:
        """The sender's request so long after the beginning; the message that is then in the queue."""
        self.world.clock.now = self.gate.clock.ms = self.begin + after_ms
        assert self.gate.send("desk", headers, body)["statusCode"] == 202
        return self.gate.outbox.messages[-1]

    def work_off(self, *messages: str) -> int:
        """Let the worker have them; how many effects there have been since the beginning."""
        for message in messages:
            self.world._put("events", message, 0)
        self.world.run_until_quiet()
        return sum(self.world.provider.effects.values())


@pytest.fixture(params=WITHOUT_IDS)
def story(request: pytest.FixtureRequest) -> Story:
    return Story(request.param)


def test_equal_messages_are_one_event_within_the_window_and_two_after_it(story: Story) -> None:
    assert story.work_off(story.post(0)) == 1
    assert story.work_off(story.post(WINDOW_MS - 1000)) == 1
    assert story.work_off(story.post(WINDOW_MS)) == 1
    assert story.work_off(story.post(WINDOW_MS + 1)) == 2
    assert story.world.quiet.counts["idempotency_duplicates_detected"] == 2
    assert not story.world.tables.rows


def test_the_window_of_the_second_begins_with_the_second(story: Story) -> None:
    second = WINDOW_MS + 1000
    assert story.work_off(story.post(0)) == 1
    assert story.work_off(story.post(second)) == 2
    assert story.work_off(story.post(second + WINDOW_MS)) == 2
    assert story.work_off(story.post(second + WINDOW_MS + 1)) == 3


def test_a_copy_of_the_first_that_the_queue_brings_after_the_second_has_no_third_effect(story: Story) -> None:
    """What was done of the first is no longer known by then: the copy is kept for a person, with its envelope."""
    first = story.post(0)
    assert story.work_off(first) == 1
    second = story.post(WINDOW_MS + 1000)
    assert story.work_off(second) == 2
    assert story.work_off(second) == 2
    assert not story.world.tables.rows
    assert story.work_off(first) == 2
    [row] = story.world.tables.rows.values()
    assert (row.status, row.failure_code) == (Status.FAILED, OVERTAKEN)
    assert story.world.envelopes.get(row.envelope_ref).body == BODY


def test_both_are_processed_when_they_wait_in_one_batch_in_either_order(story: Story) -> None:
    first, second = story.post(0), story.post(WINDOW_MS + 1000)
    assert story.work_off(second, first) == 2
    assert not story.world.tables.rows


def test_how_the_headers_are_ordered_written_or_counted_makes_no_other_event(story: Story) -> None:
    assert story.work_off(story.post(0)) == 1
    turned = dict(reversed(HEADERS.items()))
    assert story.work_off(story.post(1000, headers=turned)) == 1
    shouted = {name.upper(): value for name, value in HEADERS.items()} | {"X-TRIES": "2", "Date": "now"}
    assert story.work_off(story.post(2000, headers=shouted)) == 1
    assert story.work_off(story.post(WINDOW_MS + 1, headers=turned)) == 2


def test_another_word_is_another_event_at_any_time(story: Story) -> None:
    assert story.work_off(story.post(0)) == 1
    assert story.work_off(story.post(1, BODY.replace(b"thanks", b"thanks!"))) == 2
    assert story.work_off(story.post(2, BODY.replace(b"message.created", b"message.updated"))) == 3
    assert story.work_off(story.post(3)) == 3


def test_a_source_may_choose_its_window() -> None:
    story = Story("declared to have none", repeat_window_seconds=5)
    assert story.work_off(story.post(0)) == 1
    assert story.work_off(story.post(5000)) == 1
    assert story.work_off(story.post(5001)) == 2


def test_an_id_that_came_is_good_for_ever_and_needs_no_window() -> None:
    story = Story("said to have one that did not come")
    named = BODY.replace(b"{", b'{"message_id": "m-1", ', 1)
    assert story.work_off(story.post(0, named)) == 1
    assert story.work_off(story.post(30 * WINDOW_MS, named)) == 1


def test_of_equal_messages_at_any_moments_those_count_that_no_counted_one_came_shortly_before(
    proved: Callable[[str], None],
) -> None:
    messages = 0

    @settings(max_examples=150)
    @given(st.lists(st.sampled_from([1, 999, WINDOW_MS - 1, WINDOW_MS, WINDOW_MS + 1, 5 * WINDOW_MS]), max_size=12))
    def counted(gaps: list[int]) -> None:
        nonlocal messages
        story = Story("declared to have none")
        now, last, expected = 0, 0, 1
        story.work_off(story.post(0))
        for gap in gaps:
            now += gap
            if now - last > WINDOW_MS:
                last, expected = now, expected + 1
            assert story.work_off(story.post(now)) == expected
        assert not story.world.tables.rows
        messages += 1 + len(gaps)

    counted()
    proved(f"repeat window: {messages} equal messages of senders without ids, one effect per window")
