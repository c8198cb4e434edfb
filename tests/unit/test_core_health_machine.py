"""The health of an integration under every order of minutes, gaps, probes, deaths and operators."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from functions.core import health as machine
from functions.core.audit import AuditEvent
from functions.core.gate import Health
from functions.core.health import (
    TRANSITIONS,
    CallOutcome,
    Counts,
    HealthChange,
    HealthEvent,
    Record,
    Thresholds,
    evaluate,
    force,
    last_closed,
    lift,
    pending_minutes,
    probed,
)

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

MINUTE_MS = 60_000
LEGAL = {(edge.state, edge.next) for edge in TRANSITIONS}
WELL, BAD, SILENT = Counts(ok=30), Counts(ok=15, error=15), Counts()
COUNTS = st.one_of(
    st.sampled_from([WELL, BAD, WELL, BAD, SILENT]),
    st.builds(Counts, ok=st.integers(0, 30), error=st.integers(0, 6)),
    st.sampled_from([Counts(error=30), Counts(error=9, unreachable=9), Counts(ok=2)]),
    st.builds(
        lambda tenants: Counts(auth=len(tenants), auth_tenants=frozenset(tenants)),
        st.sets(st.sampled_from(["01", "02", "03"])),
    ),
)


class HealthOfOne(RuleBasedStateMachine):
    """Two evaluators and several probers see what is stored, some of them late, and store what follows."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1_000_000 * MINUTE_MS
        self.stored = Record()
        self.stale = Record()  # what a slow evaluator has read
        self.counts: dict[int, Counts] = {}
        self.audit: dict[str, AuditEvent] = {}
        self.moves = 0
        self.holder = ""
        self.holder_until_ms = 0
        self.probes = 0

    def store(self, change: HealthChange | None) -> bool:
        """As the table does: by version, with the audit."""
        if change is None or change.seen_version != self.stored.version:
            return False
        before, self.stored = self.stored, change.after
        assert change.after.version == before.version + 1
        for event in change.audit:
            assert event.id not in self.audit, "one event of the audit for one change"
            self.audit[event.id] = event
        path = [before.health, *(edge.next for edge in change.edges)]
        assert path[-1] is change.after.health
        assert all(step in LEGAL for step in pairwise(path))
        self.moves += len(change.edges)
        return True

    def judge(self, seen: Record) -> HealthChange | None:
        minutes = pending_minutes(seen, last_closed(self.now_ms, 1.0))
        judged = [(minute, self.counts.get(minute, Counts())) for minute in minutes]
        return evaluate("desk", seen, judged, Thresholds(), self.now_ms, 1.0)

    @rule(counts=COUNTS, times=st.integers(1, 20))
    def minutes_pass(self, counts: Counts, times: int) -> None:
        for _ in range(times):
            is_closed = self.stored.state("desk").health_at(self.now_ms) is Health.HARD_DOWN
            self.counts[self.now_ms // MINUTE_MS] = Counts() if is_closed else counts
            self.now_ms += MINUTE_MS
            self.judged()

    @rule(counts=COUNTS, times=st.integers(1, 90))
    def nobody_evaluates(self, counts: Counts, times: int) -> None:
        for _ in range(times):
            self.counts[self.now_ms // MINUTE_MS] = counts
            self.now_ms += MINUTE_MS

    @rule()
    def judged(self) -> None:
        before = self.stored
        change = self.judge(before)
        if self.store(change):
            assert change is not None
            again = self.judge(self.stored)
            assert again is None, "what was judged is not judged again"
            if self.stored.health is Health.HEALTHY and change.edges:
                at = self.stored.since_ms // MINUTE_MS - 1
                assert self.counts[at].ok > 0, "silence never declares recovery"
                self.is_earned(change.edges[-1].event, self.stored.reason, at)

    def is_earned(self, event: HealthEvent, reason: str, at: int) -> None:
        """Calls in a row are recovery only if the minutes that they lie in hold no error and no refused credential."""
        assert event is HealthEvent.RECOVERED
        found = re.fullmatch(r"recovered: (\d+) calls in a row succeeded, over (\d+) minutes", reason)
        if found is None:
            return
        calls, minutes = int(found[1]), int(found[2])
        held = [self.counts.get(minute, SILENT) for minute in range(at - minutes, at + 1)]
        assert minutes >= machine.RECOVER_MINUTES
        assert calls >= machine.RECOVER_CALLS
        assert sum(each.ok for each in held) >= calls
        assert not any(each.error or each.auth for each in held)

    @rule()
    def a_slow_evaluator_reads(self) -> None:
        self.stale = self.stored

    @rule()
    def a_slow_evaluator_stores(self) -> None:
        moves = self.moves
        if not self.store(self.judge(self.stale)):
            assert self.moves == moves

    @rule(seconds=st.integers(-400, 400))
    def the_clock_jumps(self, seconds: int) -> None:
        self.now_ms += seconds * 1_000

    @precondition(lambda self: self.stored.health is Health.HARD_DOWN)
    @rule(name=st.sampled_from(["one", "two", "three"]), waits=st.booleans())
    def a_probe_is_taken(self, name: str, waits: bool) -> None:
        if waits:
            self.now_ms = max(self.now_ms, self.stored.probe_at_ms)
        state = self.stored.state("desk")
        if not state.may_be_probed(self.now_ms):
            return
        assert not (self.holder and self.now_ms < self.holder_until_ms and self.stored.probe_by == self.holder)
        until_ms = self.now_ms + machine.probe_lease(1.0)
        self.probes += 1
        self.holder, self.holder_until_ms = f"{name}-{self.probes}", until_ms
        self.stored = replace(self.stored, probe_at_ms=until_ms, probe_by=self.holder, version=self.stored.version + 1)

    @precondition(lambda self: bool(self.holder))
    @rule(outcome=st.sampled_from([None, *CallOutcome, *[CallOutcome.OK] * 10]))
    def a_probe_ends(self, outcome: CallOutcome | None) -> None:
        before = self.stored
        change = probed("desk", before, self.holder, outcome, self.now_ms, 1.0)
        self.holder = ""
        if not self.store(change):
            return
        if self.stored.health is not before.health:
            assert (before.health, before.probe_ok, outcome) == (Health.HARD_DOWN, 2, CallOutcome.OK)
            assert self.stored.ramp_from_ms == self.now_ms
        elif outcome in (CallOutcome.ERROR, CallOutcome.UNREACHABLE, CallOutcome.AUTH):
            assert self.stored.probe_ok == 0

    @precondition(lambda self: self.stored.health is Health.HARD_DOWN)
    @rule(outcome=st.sampled_from(CallOutcome))
    def a_probe_whose_lease_has_ended_comes_back(self, outcome: CallOutcome) -> None:
        assert probed("desk", self.stored, "zero-0", outcome, self.now_ms, 1.0) is None

    @precondition(lambda self: self.stored.health is Health.HARD_DOWN and self.stored.override is None)
    @rule()
    def it_is_back(self) -> None:
        for _ in range(machine.PROBES_NEEDED):
            self.a_probe_is_taken("one", True)
            self.a_probe_ends(CallOutcome.OK)
        assert self.stored.health is Health.DEGRADED

    @precondition(lambda self: bool(self.holder))
    @rule()
    def a_prober_dies(self) -> None:
        self.holder = ""

    @rule(health=st.sampled_from(Health), minutes=st.integers(1, 200))
    def an_operator_forces(self, health: Health, minutes: int) -> None:
        before = self.stored
        until_ms = self.now_ms + minutes * MINUTE_MS
        assert self.store(force("desk", before, health, until_ms, actor="anna", reason="drill", now_ms=self.now_ms))
        assert self.stored.health is before.health
        assert self.stored.state("desk").health_at(self.now_ms) is health

    @precondition(lambda self: self.stored.override is not None)
    @rule()
    def an_operator_lifts(self) -> None:
        self.store(lift("desk", self.stored, self.now_ms, actor="anna", reason="over"))
        assert self.stored.state("desk").health_at(self.now_ms) is self.stored.health

    @invariant()
    def timers_are_bounded_and_belong_to_their_state(self) -> None:
        record = self.stored
        assert len(record.window) <= machine.LOW_TRAFFIC_WINDOW
        assert len(record.recent) <= machine.FLAPPING_OF
        assert 0 <= record.silent <= machine.FORGET_MINUTES
        if record.health is Health.HEALTHY:
            assert record.bad < machine.DEGRADE_MINUTES
        if record.health is Health.HEALTHY:
            assert record.unbroken == 0
        assert (record.unbroken == 0) == (record.unbroken_from == 0)
        assert record.unbroken_from <= record.minute
        if record.health is Health.HARD_DOWN:
            assert (record.bad, record.good, record.collapsed) == (0, 0, 0)
            assert record.unbroken < machine.PROBES_NEEDED
            assert record.probe_ok < machine.PROBES_NEEDED
            assert record.probe_at_ms > 0, "what is down can be probed some day"
        else:
            assert (record.probe_at_ms, record.probe_by, record.probe_ok) == (0, "", 0)
        assert record.refused < machine.REFUSED_CALLS
        assert (record.override is None) == (record.override_until_ms == 0)

    @invariant()
    def every_move_is_in_the_audit(self) -> None:
        changed = [event for event in self.audit.values() if event.actor == "holdfast"]
        assert len(changed) >= self.moves


HealthOfOne.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestHealthOfOne = HealthOfOne.TestCase
