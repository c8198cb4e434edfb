"""No more than so many automatic messages in any hour (002.17)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.core.cap import WINDOW_MS, Capped, Counted, Sends, conversation_of, counted, uncounted
from tests.fakes import NOON_MS


def sends(seen: Sends, action_id: str, now_ms: int, most: int = 2) -> Sends:
    answer = counted(seen, action_id, now_ms, most)
    assert not isinstance(answer, Capped)
    return answer[0]


def test_the_first_sends_are_granted_and_the_next_is_a_persons() -> None:
    seen = sends(sends(Sends(), "a", NOON_MS), "b", NOON_MS + 1)
    assert counted(seen, "c", NOON_MS + 2, 2) == Capped()
    assert seen.version == 2


def test_an_action_counts_once_however_often_it_is_tried_and_at_its_latest_attempt() -> None:
    seen = sends(sends(Sends(), "a", NOON_MS), "b", NOON_MS + 1)
    again = counted(seen, "a", NOON_MS + 5, 2)
    assert again == (Sends({"a": NOON_MS + 5, "b": NOON_MS + 1}, 3), Counted(NOON_MS + 5, is_new=False))


def test_a_first_send_that_is_counted_again_in_the_same_moment_has_only_lost_its_answer() -> None:
    """A further one may have: that it counted before is the answer which lets it count on."""
    first = sends(Sends(), "a", NOON_MS)
    assert counted(first, "a", NOON_MS, 2) == (first, Counted(NOON_MS, is_new=True))
    second = sends(first, "b", NOON_MS)
    assert counted(second, "b", NOON_MS, 2) == (Sends(second.times, 3), Counted(NOON_MS, is_new=False))


def test_a_send_counts_for_sixty_minutes_and_not_a_millisecond_longer() -> None:
    seen = sends(Sends(), "a", NOON_MS, 1)
    assert counted(seen, "b", NOON_MS + WINDOW_MS - 1, 1) == Capped()
    assert counted(seen, "b", NOON_MS + WINDOW_MS, 1) == (
        Sends({"b": NOON_MS + WINDOW_MS}, 2),
        Counted(NOON_MS + WINDOW_MS, is_new=True),
    )


def test_what_lies_ahead_by_another_clock_counts() -> None:
    assert counted(Sends({"a": NOON_MS + 9_000}, 1), "b", NOON_MS, 1) == Capped()


def test_what_was_not_sent_is_taken_back_unless_another_attempt_counts_by_now() -> None:
    seen = Sends({"a": NOON_MS, "b": NOON_MS + 1}, 2)
    assert uncounted(seen, "a", NOON_MS) == Sends({"b": NOON_MS + 1}, 3)
    assert uncounted(seen, "a", NOON_MS - 1) is None
    assert uncounted(seen, "c", NOON_MS) is None


def test_a_conversation_is_a_thread_at_a_tenant_or_a_person_where_there_is_none() -> None:
    assert conversation_of("acme", "t1", "p1") == conversation_of("acme", "t1", "p2")
    assert len({conversation_of(*of) for of in (("acme", "t1", ""), ("other", "t1", ""), ("acme", "", "t2"))}) == 3
    assert "t1" not in conversation_of("acme", "t1", "")


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, WINDOW_MS // 2)), max_size=60), st.integers(1, 4))
@pytest.mark.filterwarnings("error")
def test_no_hour_holds_more_than_the_cap_wherever_it_begins(asked: list[tuple[int, int]], most: int) -> None:
    """A fixed clock hour would let twice as many through around its turn."""
    seen, now_ms, granted = Sends(), NOON_MS, dict[str, int]()
    log: list[tuple[int, str]] = []
    for name, wait_ms in asked:
        now_ms += wait_ms
        answer = counted(seen, str(name), now_ms, most)
        if isinstance(answer, Capped):
            recent = {action for at_ms, action in log if at_ms > now_ms - WINDOW_MS}
            assert len(recent) == most
            assert str(name) not in recent
            continue
        seen, _ = answer
        granted[str(name)] = now_ms
        log.append((now_ms, str(name)))
        assert len(seen.times) <= most
    for at_ms, _ in log:
        assert len({action for moment, action in log if at_ms <= moment < at_ms + WINDOW_MS}) <= most + _retried(
            log, at_ms
        )


def _retried(log: list[tuple[int, str]], begin_ms: int) -> int:
    """Actions of that hour of which only an earlier, unseen attempt falls into it: their latest is what counts."""
    inside = {action for moment, action in log if begin_ms <= moment < begin_ms + WINDOW_MS}
    return sum(max(moment for moment, one in log if one == action) >= begin_ms + WINDOW_MS for action in inside)
