"""The recovery row under every order of claims, crashes, outcomes, waits, switches and replays.

The machine plays the shell: what it does to the row is what the worker does. The provider counts effects and hides them
from lookups until its index has settled, so that a repeat that core should not have allowed becomes a second effect.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from functions.core.attempt import (
    AskPerson,
    Effect,
    History,
    LookUp,
    ReadFirst,
    SendNow,
    Superseded,
    WaitUntil,
    next_step,
)
from functions.core.decision import Repeat
from functions.core.failure import Done, Failure, FailureClass, IllegalTransition, failure_of_status
from functions.core.gate import WaitingFor
from functions.core.integration import KindRules
from functions.core.operations import Person, Refused, noted, replayed_by, why_refused
from functions.core.recovery import (
    FINAL_CODES,
    SUPPRESSED,
    TAKEOVER_LIMIT,
    Change,
    NextWay,
    Row,
    Status,
    absent,
    after_attempt,
    by_hand,
    claim,
    defer,
    end,
    failed_first,
    hint_died,
    hinted,
    hopped,
    may_claim,
    parked_first,
    poisoned,
    put_off,
    release,
    replay,
    suppress,
    unknown_outcome,
    why_not_replayable,
    worker_died,
)
from functions.core.retry import RetryPolicy
from tests.unit.builders import (
    CONNECT_REFUSED,
    DAY,
    HOUR,
    HTTP_401,
    HTTP_422,
    HTTP_429,
    HTTP_503,
    KEY_WINDOW_SECONDS,
    MINUTE,
    NOON_MS,
    READ_TIMEOUT,
    ROLE_REFUSED,
    RULES,
    SECOND,
    Chance,
    blank,
    stated_429,
)

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

LEASE_MS = 65 * SECOND
SETTLE_MS = 180 * SECOND
POLICIES = [RetryPolicy(), RetryPolicy(3, (300, 600)), RetryPolicy(1, ())]
FAILURES = [
    CONNECT_REFUSED,
    READ_TIMEOUT,
    HTTP_503,
    failure_of_status(502),
    failure_of_status(409),
    HTTP_422,
    HTTP_401,
    ROLE_REFUSED,
    HTTP_429,
    stated_429(20 * SECOND),
    stated_429(5 * HOUR),
    failure_of_status(302),
]
HARMFUL = (Repeat.KEYED, Repeat.LOOKUP, Repeat.BLIND)
SMS = NextWay("messages_fallback", 1, "sms.send", "sms", Repeat.LOOKUP)
KIM = Person("kim", "operation", "00-trace")


def spends_nothing(failure: Failure) -> bool:
    """A refused credential, and a rate limit with a stated end (requirements.md: 429)."""
    is_stated = failure.failure_class is FailureClass.RATE_LIMITED and failure.retry_after_ms is not None
    return is_stated or failure.wants_credential


@dataclass
class Provider:
    """Remembers its effects by when they came about. Honours a key for its window; its index lags."""

    kind: KindRules
    effects: list[int]

    def send(self, at_ms: int) -> None:
        """The effect comes about, unless the same key is still remembered."""
        window_ms = self.kind.key_window_seconds * 1000
        is_repeat = self.kind.repeat is Repeat.KEYED and self.effects and at_ms - self.effects[0] < window_ms
        if not is_repeat:
            self.effects.append(at_ms)

    def find(self, now_ms: int) -> bool:
        """What a lookup sees."""
        return any(at_ms <= now_ms - SETTLE_MS for at_ms in self.effects)


class RowMachine(RuleBasedStateMachine):
    """One row from its first failure to its end, and beyond."""

    row: Row
    kind: KindRules
    policy: RetryPolicy
    provider: Provider
    now_ms: int
    rng: Chance

    # ---------------------------------------------------------------------------------------------------- beginnings

    def _begin(self, repeat: Repeat, policy: RetryPolicy, share: float, can_look_up: bool) -> None:
        rules = RULES[repeat]
        self.kind = replace(rules, can_look_up=can_look_up) if repeat is Repeat.KEYED else rules
        self.policy = policy
        self.rng = Chance(share)
        self.now_ms = NOON_MS
        self.provider = Provider(self.kind, [])
        self.spent_calls = 0
        self.takeovers = 0
        self.audit_ids: set[str] = set()
        self.zombie: Change | None = None

    @initialize(
        repeat=st.sampled_from(Repeat),
        policy=st.sampled_from(POLICIES),
        share=st.sampled_from([0.0, 0.5, 1.0]),
        can_look_up=st.booleans(),
        failure=st.none() | st.sampled_from(FAILURES),
        happened=st.booleans(),
        parents=st.sampled_from([(), ("p1",), ("p1", "p2")]),
    )
    def begins(
        self,
        repeat: Repeat,
        policy: RetryPolicy,
        share: float,
        can_look_up: bool,
        failure: Failure | None,
        happened: bool,
        parents: tuple[str, ...],
    ) -> None:
        """It failed in the event's first pass, or was parked there."""
        self._begin(repeat, policy, share, can_look_up)
        if failure is not None:
            self._sent(failure, happened=happened)
            self._put(failed_first(blank(repeat), self.kind, policy, failure, self.now_ms, self.rng, 1.0))
            return
        row = blank(repeat, waits_for=parents)
        due_ms = row.expires_at_ms if parents else self.now_ms
        self._put(parked_first(row, WaitingFor.PARENT if parents else WaitingFor.HEALTH, "parked", due_ms))

    # ------------------------------------------------------------------------------------------------------- time

    @rule(passed=st.sampled_from([1, SECOND, 30 * SECOND, MINUTE, 5 * MINUTE, HOUR, 20 * HOUR]))
    def time_passes(self, passed: int) -> None:
        self.now_ms += passed

    def _its_time_comes(self, early: int = 0) -> None:
        times = (self.row.due_at_ms, self.row.not_before_ms, self.row.lease_until_ms)
        self.now_ms = max(self.now_ms, max(times) - early)

    # -------------------------------------------------------------------------------------------------------- worker

    @precondition(lambda self: self.row.is_open and not self.row.waits_for)
    @rule(
        failure=st.none() | st.sampled_from(FAILURES),
        happened=st.booleans(),
        lost=st.sampled_from(["", "", "", "before", "after", "late"]),
        early=st.sampled_from([0, 0, 0, 1]),
    )
    def work(self, failure: Failure | None, happened: bool, lost: str, early: int) -> None:
        """One attempt as the worker makes it, when its time has come or just before.

        `lost`: the worker dies before its send, after it, or stores its outcome late.
        """
        self._its_time_comes(early)
        if may_claim(self.row, self.now_ms):
            self._attempt(failure, happened=happened, lost=lost)
        else:
            with pytest.raises(IllegalTransition):
                claim(self.row, self.now_ms, self.now_ms + LEASE_MS, "q")

    def _attempt(self, failure: Failure | None, *, happened: bool = False, lost: str = "") -> None:
        row = self.row
        if self._has_ended(row):
            return
        self._apply(claim(row, self.now_ms, self.now_ms + LEASE_MS, f"q{self.row.version}"))
        claimed = self.row
        if lost == "before":
            return
        history = History(
            had_lease=True,
            may_have_been_sent=claimed.effect is Effect.UNKNOWN,
            first_sent_at_ms=claimed.first_sent_at_ms,
            last_possible_send_ms=claimed.last_possible_send_ms,
            stored_errors=claimed.stored_errors,
        )
        step = LookUp(only=True) if claimed.verify_only else next_step(self.kind, history, self.now_ms, 1.0)
        match step:
            case WaitUntil(at_ms):
                self._apply(defer(claimed, WaitingFor.TIME, "settling", at_ms, self.now_ms, uncount=True))
                return
            case AskPerson(detail):
                self._apply(unknown_outcome(claimed, detail, self.now_ms))
                return
            case LookUp(only):
                assert self.kind.can_look_up
                assert self.now_ms >= claimed.last_possible_send_ms + SETTLE_MS
                if lost:
                    return
                if failure is not None and not happened:  # the lookup itself failed
                    self._conclude(claimed, failure, was_sent=False, lost=lost)
                    return
                if self.provider.find(self.now_ms):
                    self._conclude(claimed, None, was_sent=False, lost=lost)
                    return
                if only:
                    self._apply(absent(claimed, self.now_ms))
                    return
                claimed = replace(claimed, effect=Effect.NONE)
            case ReadFirst():
                assert self.kind.repeat is Repeat.SETTING
            case SendNow():
                pass
        if lost == "after":
            self.provider.send(self.now_ms + (LEASE_MS if happened else 0))  # a slow send arrives by the lease's end
            return
        self._sent(failure, happened=happened)
        self._conclude(claimed, failure, was_sent=True, lost=lost)

    def _has_ended(self, row: Row) -> bool:
        """What the worker looks at before it claims."""
        if self.now_ms >= row.expires_at_ms:
            self._apply(end(row, "EXPIRED", "too late", self.now_ms))
            return True
        if row.lease_until_ms:
            self.takeovers += 1
            if row.takeovers + 1 >= TAKEOVER_LIMIT:
                self._apply(worker_died(row, self.now_ms))
                assert self.row.status is Status.DLQ
                return True
        return False

    def _sent(self, failure: Failure | None, *, happened: bool) -> None:
        if failure is None or (failure.may_have_happened and happened):
            self.provider.send(self.now_ms)
        if failure is None or not spends_nothing(failure):
            self.spent_calls += 1

    def _conclude(self, claimed: Row, failure: Failure | None, *, was_sent: bool, lost: str) -> None:
        result = Done("x1") if failure is None else failure
        change = after_attempt(claimed, self.kind, self.policy, result, self.now_ms, self.rng, 1.0, was_sent=was_sent)
        change = replace(change, before=self.row)
        if lost == "late":
            self.zombie = change
        else:
            self._apply(change)

    @precondition(lambda self: self.zombie is not None)
    @rule()
    def a_late_worker_stores_its_outcome_if_nobody_has_moved_the_row(self) -> None:
        zombie, self.zombie = self.zombie, None
        if zombie is not None and zombie.before is not None and zombie.before.version == self.row.version:
            self._apply(zombie)

    @precondition(lambda self: may_claim(self.row, self.now_ms) and self.kind.repeat is Repeat.SETTING)
    @rule()
    def somebody_has_set_it_since(self) -> None:
        if self.row.lease_until_ms:
            self.takeovers += 1
        self._apply(claim(self.row, self.now_ms, self.now_ms + LEASE_MS, "q"))
        change = after_attempt(
            self.row, self.kind, self.policy, Superseded("by kim"), self.now_ms, self.rng, 1.0, was_sent=False
        )
        self._apply(change)
        assert self.row.effect is not Effect.DONE

    # ---------------------------------------------------------------------------------------------- gate and sweeper

    @precondition(lambda self: self.row.is_open and not self.row.waits_for)
    @rule(is_claimed=st.booleans(), wait=st.sampled_from([0, MINUTE, HOUR]))
    def the_gate_parks_it(self, is_claimed: bool, wait: int) -> None:
        self._its_time_comes()
        before = self.row
        if before.lease_until_ms:
            self.takeovers += 1
        if is_claimed:
            self._apply(claim(before, self.now_ms, self.now_ms + LEASE_MS, "q"))
        until_ms = self.now_ms + wait
        self._apply(defer(self.row, WaitingFor.HEALTH, "down", until_ms, self.now_ms, uncount=is_claimed))
        assert self.row.not_before_ms == until_ms
        if not before.lease_until_ms:
            assert (self.row.attempt_count, self.row.effect) == (before.attempt_count, before.effect)
        elif self.kind.repeat in HARMFUL and not before.verify_only:
            assert self.row.effect is Effect.UNKNOWN

    @precondition(lambda self: self.row.is_open)
    @rule(is_hint=st.booleans())
    def the_sweeper_looks(self, is_hint: bool) -> None:
        if self.row.lease_until_ms > self.now_ms:
            with pytest.raises(IllegalTransition):
                hinted(self.row, self.now_ms, 1.0)
        elif is_hint:
            self._apply(hinted(self.row, self.now_ms, 1.0))
            assert self.row.due_at_ms > self.now_ms
        else:
            self._apply(put_off(self.row, self.now_ms + MINUTE))

    @precondition(lambda self: self.row.is_open and self.row.lease_until_ms <= self.now_ms)
    @rule()
    def a_queue_gives_its_hint_up(self) -> None:
        before = self.row
        self._apply(hint_died(self.row, "a hint led to nothing", self.now_ms))
        assert replace(before, version=0, dead_hints=0, dead_hint_version=0, history=()) == replace(
            self.row, version=0, dead_hints=0, dead_hint_version=0, history=()
        )

    @precondition(lambda self: self.row.is_open and bool(self.row.waits_for))
    @rule()
    def a_parent_succeeds(self) -> None:
        with pytest.raises(IllegalTransition):
            claim(self.row, self.now_ms, self.now_ms + LEASE_MS, "q")
        self._apply(release(self.row, self.row.waits_for[0], self.now_ms))

    @precondition(lambda self: self.row.is_open and not self.row.waits_for and self.row.version > 3)
    @rule(how=st.sampled_from(["suppressed", "expired", "poisoned", "claimed"]))
    def it_ends_without_an_attempt(self, how: str) -> None:
        self._its_time_comes()
        if how == "poisoned":
            self._apply(poisoned(self.row, "received 10 times", self.now_ms))
            assert self.row.status is Status.DLQ
            return
        if how == "expired":  # the sweeper ends it
            self.now_ms = max(self.now_ms, self.row.expires_at_ms)
        else:
            if self.row.lease_until_ms:
                self.takeovers += 1
            self._apply(claim(self.row, self.now_ms, self.now_ms + LEASE_MS, "q"))
        if how == "suppressed":
            self._apply(suppress(self.row, "auto_reply is off", self.now_ms))
            assert self.row.failure_code == SUPPRESSED
        else:
            self._apply(end(self.row, "EXPIRED", "too late", self.now_ms))

    # ----------------------------------------------------------------------------------------------------- other ways

    @precondition(lambda self: self.row.is_open and not self.row.waits_for and self.row.hop == 0)
    @rule(comes_late=st.booleans())
    def its_integration_is_down_and_it_goes_another_way(self, comes_late: bool) -> None:
        """What may have happened stays on its way: core refuses, and the row is as it was."""
        if comes_late:
            self._its_time_comes()
        self._hops(lambda: hopped(self.row, SMS, "down", self.now_ms))

    @precondition(lambda self: may_claim(self.row, self.now_ms) and not self.row.lease_until_ms and self.row.hop == 0)
    @rule(failure=st.sampled_from(FAILURES), happened=st.booleans())
    def its_last_attempt_fails_and_it_goes_another_way(self, failure: Failure, happened: bool) -> None:
        self._apply(claim(self.row, self.now_ms, self.now_ms + LEASE_MS, "q"))
        claimed = self.row
        if claimed.verify_only or claimed.effect is Effect.UNKNOWN:
            return  # `work` knows what to do with these
        self._sent(failure, happened=happened)
        dead = after_attempt(claimed, self.kind, self.policy, failure, self.now_ms, self.rng, 1.0, was_sent=True)
        if dead.after.is_open or not self._hops(
            lambda: hopped(claimed, SMS, failure.code, self.now_ms, failed=dead.after)
        ):
            self._apply(dead)

    def _hops(self, hop: Callable[[], Change]) -> bool:
        """Whether core let it go. Then nothing came of the way so far, and nothing has come of the other one yet."""
        try:
            change = hop()
        except IllegalTransition:
            return False
        if self.kind.repeat in HARMFUL:
            assert not self.provider.effects, "what went another way had no effect on the first"
        self._apply(change)
        assert (self.row.hop, self.row.repeat, self.row.attempt_count) == (1, Repeat.LOOKUP, 0)
        self.kind = RULES[Repeat.LOOKUP]
        self.provider = Provider(self.kind, [])
        self.spent_calls = 0
        return True

    @precondition(lambda self: self.row.is_open and not self.row.waits_for and self.row.version > 3)
    @rule()
    def no_way_is_open_and_a_person_does_it(self) -> None:
        self._its_time_comes()
        try:
            change = by_hand(self.row, "rung", "call them", "nothing is left", self.now_ms)
        except IllegalTransition:
            return
        if self.kind.repeat in HARMFUL:
            assert not self.provider.effects, "a person does not do it again"
        self._apply(change)
        assert self.row.status is Status.FAILED

    # ------------------------------------------------------------------------------------------------------- people

    @precondition(lambda self: why_not_replayable(self.row, self.now_ms) is None)
    @rule()
    def a_person_replays_it(self) -> None:
        before = self.row
        assert before.status in (Status.FAILED, Status.DLQ)
        assert before.effect is not Effect.UNKNOWN
        self._apply(replay(before, self.now_ms, actor="kim", reason="fixed", request_id="op", job_id="j", scale=1.0))
        assert (self.row.status, self.row.replayed_from) == (Status.REPLAYED, before.status.value)
        assert self.row.expires_at_ms > self.now_ms

    @precondition(lambda self: why_not_replayable(self.row, self.now_ms) is not None)
    @rule()
    def a_replay_that_is_refused_changes_nothing(self) -> None:
        with pytest.raises(IllegalTransition):
            replay(self.row, self.now_ms, actor="kim", reason="again", request_id="op", job_id="", scale=1.0)

    @precondition(lambda self: self.row.effect is Effect.UNKNOWN and not self.row.is_open)
    @rule()
    def a_person_replays_what_may_have_happened(self) -> None:
        """Its attempt finds out first, or could not do it twice; else only somebody who has looked may."""
        before = self.row
        if why_refused(before, self.kind, self.now_ms, 1.0) is None:
            self._apply(replayed_by(before, self.kind, KIM, "try", self.now_ms, 1.0))
            assert self.row.effect is Effect.UNKNOWN
            return
        with pytest.raises(Refused):
            replayed_by(before, self.kind, KIM, "try", self.now_ms, 1.0)
        is_there_nothing = not self.provider.effects and self.zombie is None
        if is_there_nothing and why_not_replayable(replace(before, effect=Effect.NONE), self.now_ms) is None:
            self._apply(replayed_by(before, self.kind, KIM, "try", self.now_ms, 1.0, checked="looked: nothing there"))
            assert (self.row.status, self.row.effect) == (Status.REPLAYED, Effect.NONE)

    @rule()
    def a_person_leaves_a_note(self) -> None:
        before = self.row
        if before.lease_until_ms > self.now_ms:
            with pytest.raises(IllegalTransition):
                noted(before, KIM, "hello", self.now_ms)
            return
        change = noted(before, KIM, "hello", self.now_ms)
        self._check_audit(change)
        self.row = change.after
        assert replace(self.row, version=before.version, history=before.history) == before

    @precondition(lambda self: self.row.is_final or self.row.version > 6)  # else most runs would be short
    @rule(code=st.sampled_from(sorted(FINAL_CODES - {"EXPIRED"})))
    def a_person_ends_it(self, code: str) -> None:
        if self.row.is_final or self.row.lease_until_ms > self.now_ms:
            with pytest.raises(IllegalTransition):
                end(self.row, code, "by hand", self.now_ms, actor="kim")
            return
        self._apply(end(self.row, code, "by hand", self.now_ms, actor="kim"))
        assert self.row.is_final

    # --------------------------------------------------------------------------------------------------- what holds

    def _put(self, change: Change) -> None:
        assert change.before is None
        assert change.after.version == 1
        assert change.audit
        self._check_audit(change)
        self.row = change.after

    def _apply(self, change: Change) -> None:
        before, after = change.before, change.after
        assert before is self.row
        assert after.version == before.version + 1
        assert not before.is_final
        assert after.recovery_id == before.recovery_id
        assert after.action == before.action
        if after.status is Status.REPLAYED and before.status is not Status.REPLAYED:
            assert before.status in (Status.FAILED, Status.DLQ)
        if not before.is_open and after.is_open:
            assert after.status is Status.REPLAYED
        if before.is_open and not after.is_open:
            assert change.audit
        assert len(after.history) <= 20
        self._check_audit(change)
        self.row = after

    def _check_audit(self, change: Change) -> None:
        for event in change.audit:
            assert event.id not in self.audit_ids
            self.audit_ids.add(event.id)
            assert event.affected_id == change.after.recovery_id
            assert json.loads(event.after_state)["status"] == change.after.status.value == event.recovery_status
            assert json.loads(event.after_state)["version"] == change.after.version
            if change.before is not None:
                assert json.loads(event.before_state)["version"] == change.before.version

    @invariant()
    def an_open_row_is_looked_at_again(self) -> None:
        if self.row.is_open:
            assert self.row.due_at_ms > 0 or self.row.waits_for
            assert self.row.expires_ttl_s == 0
            assert self.row.failure_code not in FINAL_CODES

    @invariant()
    def an_ended_row_is_at_rest(self) -> None:
        row = self.row
        if not row.is_open:
            assert (row.lease_until_ms, row.due_at_ms, row.not_before_ms) == (0, 0, 0)
            assert row.waiting_for is WaitingFor.NOTHING
            assert not row.verify_only
            assert not row.waits_for
            assert row.expires_ttl_s > self.now_ms // 1000 or self.now_ms - row.updated_at_ms > 35 * DAY
            assert not may_claim(row, self.now_ms)

    @invariant()
    def attempts_stay_within_the_policy_004_7(self) -> None:
        extra = self.takeovers + self.row.replay_no
        is_looking = self.row.verify_only and self.row.lease_until_ms > 0
        assert 0 <= self.row.attempt_count <= self.policy.max_attempts + extra + is_looking
        assert self.spent_calls <= self.policy.max_attempts + extra

    @invariant()
    def no_effect_happens_twice_002_19(self) -> None:
        if self.kind.repeat in HARMFUL:
            assert len(self.provider.effects) <= 1

    @invariant()
    def an_effect_is_never_denied(self) -> None:
        is_under_way = self.row.lease_until_ms > 0
        if self.provider.effects and self.kind.repeat in HARMFUL and not is_under_way and self.zombie is None:
            assert self.row.effect is not Effect.NONE

    def teardown(self) -> None:
        """Left to a working provider, every open row ends."""
        if not hasattr(self, "row"):
            return
        for _ in range(12):
            if not self.row.is_open:
                return
            self.zombie = None
            while self.row.waits_for:
                self._apply(release(self.row, self.row.waits_for[0], self.now_ms))
            self._its_time_comes()
            self._attempt(None)
            self.no_effect_happens_twice_002_19()
        raise AssertionError(f"the row never ended: {self.row}")


TestRow = RowMachine.TestCase
TestRow.settings = settings(max_examples=150, stateful_step_count=30)


def play(seed: int) -> Row:
    """One schedule of forty steps, drawn evenly: Hypothesis looks for the shortest story, this for odd ones."""
    dice = random.Random(seed)
    machine = RowMachine()
    machine.begins(
        repeat=dice.choice(list(Repeat)),
        policy=dice.choice(POLICIES),
        share=dice.random(),
        can_look_up=dice.random() < 0.5,
        failure=dice.choice(FAILURES) if dice.random() < 0.3 else None,
        happened=dice.random() < 0.5,
        parents=(),
    )
    for _ in range(40):
        is_open, turn = machine.row.is_open, dice.random()
        if not is_open:
            if why_not_replayable(machine.row, machine.now_ms) is not None:
                break
            machine.a_person_replays_it()
        elif turn < 0.6:
            machine.work(
                failure=dice.choice(FAILURES) if dice.random() < 0.8 else None,
                happened=dice.random() < 0.5,
                lost=dice.choice(["", "", "before", "after", "late"]),
                early=dice.choice([0, 0, 0, 1]),
            )
        elif turn < 0.75:
            machine.the_gate_parks_it(is_claimed=dice.random() < 0.5, wait=dice.choice([0, MINUTE, HOUR]))
        elif turn < 0.85:
            machine.the_sweeper_looks(is_hint=dice.random() < 0.5)
        elif turn < 0.92:
            machine.time_passes(passed=dice.choice([1, 30 * SECOND, 5 * MINUTE, HOUR]))
        elif turn < 0.95 and machine.row.version > 3:
            machine.it_ends_without_an_attempt(how=dice.choice(["suppressed", "expired", "poisoned", "claimed"]))
        elif machine.zombie is not None:
            machine.a_late_worker_stores_its_outcome_if_nobody_has_moved_the_row()
        machine.an_open_row_is_looked_at_again()
        machine.an_ended_row_is_at_rest()
        machine.attempts_stay_within_the_policy_004_7()
        machine.no_effect_happens_twice_002_19()
        machine.an_effect_is_never_denied()
    machine.teardown()
    return machine.row


def test_a_thousand_schedules_of_crashes_and_failures_all_end_with_one_effect_at_most_002_19() -> None:
    ends = Counter((row.status, row.effect) for row in map(play, range(1_000)))
    assert {status for status, _ in ends} == {Status.SUCCEEDED, Status.FAILED, Status.DLQ, Status.REPLAYED}
    assert {effect for _, effect in ends} == set(Effect)


@settings(max_examples=60)
@given(
    st.sampled_from(Repeat),
    st.sampled_from(POLICIES),
    st.lists(st.sampled_from(FAILURES), min_size=1, max_size=3),
    st.booleans(),
    st.booleans(),
)
def test_a_provider_that_never_recovers_leaves_no_row_open_for_ever(
    repeat: Repeat, policy: RetryPolicy, failures: list[Failure], happened: bool, is_replayed: bool
) -> None:
    machine = RowMachine()
    machine._begin(repeat, policy, 1.0, can_look_up=False)
    if is_replayed:
        row = blank(repeat, expires_at_ms=NOON_MS + 3 * DAY + 3 * HOUR)
        dead = failed_first(row, machine.kind, policy, HTTP_422, NOON_MS, machine.rng, 1.0)
        machine._put(dead)
        machine.now_ms += 3 * DAY
        machine.a_person_replays_it()
    else:
        row = blank(repeat, expires_at_ms=NOON_MS + 3 * HOUR)
        machine._put(parked_first(row, WaitingFor.HEALTH, "down", NOON_MS))
    for turn in range(1_000):
        if not machine.row.is_open:
            break
        machine._its_time_comes()
        machine._attempt(failures[turn % len(failures)], happened=happened)
        machine.attempts_stay_within_the_policy_004_7()
    assert not machine.row.is_open
    machine.an_ended_row_is_at_rest()


def test_the_key_window_of_the_tests_is_that_of_the_rules() -> None:
    assert RULES[Repeat.KEYED].key_window_seconds == KEY_WINDOW_SECONDS
