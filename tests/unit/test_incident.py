"""What becomes of an incident: severities and their clocks, deduplication, who is told, when it may close (001.*)."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.core.alarms import Sev
from functions.core.audit import MACHINE, AuditType, Severity
from functions.core.failure import IllegalTransition
from functions.core.incident import (
    GIVEN_UP_MS,
    INCIDENT,
    LEASE_MS,
    MOST_ESCALATIONS,
    MOST_PAGES,
    MOST_RECENT,
    MOST_SEEN,
    QUIET_MS,
    RECURS_MS,
    REVIEW_MS,
    SHORTEST_LEASE_MS,
    TEST_MS,
    WORKING_DAY_MS,
    Board,
    Contained,
    Findings,
    Incident,
    IncidentChange,
    IncidentConflict,
    NotFinished,
    PageKind,
    Role,
    State,
    Symptom,
    Told,
    acknowledged,
    call_of,
    contained,
    delivered,
    is_news,
    is_worked_on,
    mitigated,
    noted,
    rang,
    reclassified,
    resolved,
    reviewed,
    runs_out_first,
    taken,
    ticked,
    to_deliver,
    told,
)
from functions.core.machine import ABSENT
from tests.fakes import NOON_MS
from tests.incidents import (
    ADA,
    CALENDAR,
    DOWN,
    HOUR_MS,
    MINUTE_MS,
    OUT,
    RULES,
    STORM,
    WEAK,
    after,
    by_hand,
    fired,
    quiet,
    rung,
)


def kinds(incident: Incident) -> list[PageKind]:
    return [page.kind for page in incident.pages]


def types(change: IncidentChange | None) -> list[AuditType]:
    return [] if change is None else [event.event_type for event in change.audit]


def all_delivered(incident: Incident, board: Board, now_ms: int) -> tuple[Incident, Board]:
    took = {page.number: ["sns"] for page in to_deliver(incident, now_ms)}
    return after(delivered(incident, took, {}, board, now_ms, RULES), board)


def in_state(state: State, symptom: Symptom = DOWN) -> tuple[Incident, Board]:
    incident, board = fired(symptom)
    if state is State.OPEN:
        return incident, board
    incident, board = after(acknowledged(incident, board, NOON_MS + 1, ADA), board)
    if state is State.ACKNOWLEDGED:
        return incident, board
    incident, board = after(mitigated(incident, board, NOON_MS + 2, ADA, "switched off", RULES), board)
    if state is State.MITIGATED:
        return incident, board
    incident, board = quiet(symptom, NOON_MS + 3, incident, board)
    incident, board = after(reviewed(incident, "why", board, NOON_MS + 4, ADA), board)
    return after(resolved(incident, board, NOON_MS + 5, ADA, "a bug"), board)


# -------------------------------------------------------------------------------------------------------------- opening


def test_an_alarm_opens_an_incident_with_what_the_table_says_and_pages_the_primary_001_8() -> None:
    incident, board = fired(DOWN)
    assert (incident.state, incident.severity, incident.title) == (State.OPEN, Sev.SEV2, DOWN.says)
    assert (incident.group, incident.runbook, incident.owner) == ("providers", "alarms.md#integration-down", "ops")
    assert (incident.lead, incident.communications) == ("incident_lead", "communications")
    assert (incident.opened_by, incident.firing) == ("integration-down", ("integration-down",))
    (page,) = incident.pages
    assert (page.kind, page.to, page.number) == (PageKind.OPENED, (Role.PRIMARY,), 1)
    assert board.open == {"providers": incident.incident_id}
    assert board.active == board.recent == (incident.incident_id,)
    assert board.seen == {"integration-down": (NOON_MS, 0)}


@pytest.mark.parametrize(
    ("symptom", "severity"),
    [(STORM, Severity.CRITICAL), (OUT, Severity.CRITICAL), (DOWN, Severity.ERROR), (WEAK, Severity.WARNING)],
)
def test_the_audit_says_how_grave_it_is(symptom: Symptom, severity: Severity) -> None:
    change = rang(
        symptom, is_firing=True, at_ms=5, incident=None, board=Board(), now_ms=5, new_id="a" * 32, rules=RULES
    )
    assert change is not None
    (event,) = change.audit
    assert (event.event_type, event.severity, event.actor) == (AuditType.INCIDENT_OPENED, severity, MACHINE)
    assert event.entity == f"incident#{change.after.incident_id}"  # type: ignore[union-attr]  # it is there
    assert json.loads(event.after_state) == {
        "status": "open",
        "severity": symptom.sev.value,
        "alarms": [symptom.name],
    }


@pytest.mark.parametrize(
    ("severity", "acknowledge_ms", "mitigate_ms", "update_ms"),
    [
        (Sev.SEV0, 15 * MINUTE_MS, 15 * MINUTE_MS, 30 * MINUTE_MS),
        (Sev.SEV1, 15 * MINUTE_MS, 2 * HOUR_MS, 30 * MINUTE_MS),
        (Sev.SEV2, HOUR_MS, 8 * HOUR_MS, 2 * HOUR_MS),
    ],
)
def test_the_clocks_of_each_severity_001_5_001_6(
    severity: Sev, acknowledge_ms: int, mitigate_ms: int, update_ms: int
) -> None:
    incident, _ = by_hand(severity)
    assert incident.acknowledge_due_ms == NOON_MS + acknowledge_ms
    assert incident.mitigate_due_ms == NOON_MS + mitigate_ms
    assert incident.next_update_ms == incident.remind_at_ms == NOON_MS + update_ms
    assert runs_out_first(incident) == NOON_MS + acknowledge_ms


def test_a_sev3_has_one_business_day_and_is_mitigated_with_the_next_release_001_7() -> None:
    incident, _ = by_hand(Sev.SEV3)
    assert incident.acknowledge_due_ms == CALENDAR.one_day_after(NOON_MS)
    assert (incident.mitigate_due_ms, incident.next_update_ms) == (0, 0)
    short = replace(RULES, scale=1 / 60)
    assert short.acknowledge_due(Sev.SEV3, NOON_MS) == NOON_MS + WORKING_DAY_MS // 60
    assert short.acknowledge_due(Sev.SEV1, NOON_MS) == NOON_MS + 15_000
    assert replace(RULES, scale=0.0).scaled(5) == 1_000


def test_nothing_runs_out_where_no_clock_runs() -> None:
    incident, _ = in_state(State.MITIGATED)
    assert runs_out_first(incident) == 0


# ------------------------------------------------------------------------------------------------------- deduplication


def test_alarms_of_one_group_are_one_incident_and_one_page() -> None:
    """Acceptance 3: 200 alarm events."""
    incident, board = fired(DOWN)
    for n in range(200):
        symptom = (DOWN, WEAK)[n % 2]
        change = rang(
            symptom,
            is_firing=n % 4 < 2,
            at_ms=NOON_MS + n + 1,
            incident=incident,
            board=board,
            now_ms=NOON_MS + n + 1,
            new_id="e" * 32,
            rules=RULES,
        )
        assert change is not None
        incident, board = after(change, board)
    assert kinds(incident) == [PageKind.OPENED]
    assert (set(incident.alarms), board.recent) == ({"integration-down", "classifier-weak"}, (incident.incident_id,))
    assert incident.alarms["integration-down"].count == 51


def test_what_was_heard_before_changes_nothing() -> None:
    incident, board = fired(DOWN)
    assert not is_news(board, DOWN.name, is_firing=True, at_ms=NOON_MS)
    assert is_news(board, DOWN.name, is_firing=False, at_ms=NOON_MS + 1)
    for known in (incident, None):
        again = rang(
            DOWN,
            is_firing=True,
            at_ms=NOON_MS,
            incident=known,
            board=board,
            now_ms=NOON_MS + 9,
            new_id="a" * 32,
            rules=RULES,
        )
        assert again is None


def test_an_alarm_that_is_quiet_before_anybody_heard_that_it_fired_opens_an_incident_that_is_over_by_itself() -> None:
    change = rang(
        DOWN,
        is_firing=False,
        at_ms=NOON_MS + 9,
        incident=None,
        board=Board(),
        now_ms=NOON_MS + 10,
        new_id="a" * 32,
        rules=RULES,
    )
    assert change is not None
    assert (change.before, change.after, change.audit) == (None, None, ())
    assert change.board == (Board(), Board(seen={DOWN.name: (0, NOON_MS + 9)}, version=1))
    incident, board = fired(DOWN, NOON_MS, None, change.board[1])
    assert incident.firing == ()
    assert kinds(incident) == [PageKind.OPENED]
    over = ticked(incident, board, NOON_MS + 9 + QUIET_MS, RULES)
    assert types(over) == [AuditType.INCIDENT_MITIGATED]


@given(st.permutations([(True, 1), (False, 2), (True, 3), (False, 4)]))
def test_the_order_in_which_changes_are_heard_does_not_matter(order: list[tuple[bool, int]]) -> None:
    incident, board = fired(DOWN)
    for is_firing, at in order:
        change = rang(
            DOWN,
            is_firing=is_firing,
            at_ms=NOON_MS + at,
            incident=incident,
            board=board,
            now_ms=NOON_MS + 5,
            new_id="a" * 32,
            rules=RULES,
        )
        if change is not None:
            incident, board = after(change, board)
    assert incident.firing == ()
    assert board.seen == {DOWN.name: (NOON_MS + 3, NOON_MS + 4)}


def test_an_alarm_that_is_graver_raises_the_incident_once_and_pages_001_9() -> None:
    incident, board = all_delivered(*fired(DOWN), NOON_MS)
    incident, board = after(acknowledged(incident, board, NOON_MS + 1, ADA), board)
    incident, board = fired(OUT, NOON_MS + HOUR_MS, incident, board)
    assert (incident.severity, incident.state) == (Sev.SEV1, State.ACKNOWLEDGED)
    assert (incident.title, incident.runbook, incident.owner) == (OUT.says, OUT.page, OUT.owner), "what is gravest"
    assert kinds(incident)[-1] is PageKind.RAISED
    assert incident.acknowledge_due_ms == 0, "who has it in hand still has"
    assert incident.mitigate_due_ms == NOON_MS + 3 * HOUR_MS
    incident, board = after(reclassified(incident, Sev.SEV3, board, NOON_MS + 1, ADA, "harmless", RULES), board)
    incident, board = quiet(OUT, NOON_MS + HOUR_MS + 1, incident, board)
    incident, board = fired(OUT, NOON_MS + HOUR_MS + 2, incident, board)
    assert incident.severity is Sev.SEV3, "a person has judged this alarm"


def test_what_becomes_graver_before_anybody_was_told_is_one_page_that_says_so() -> None:
    """A ticket, a page and a graver one in a moment: who is called is called once, and hears of the gravest."""
    incident, board = fired(WEAK)
    incident, board = fired(DOWN, NOON_MS + 1, incident, board)
    incident, board = fired(OUT, NOON_MS + 2, incident, board)
    assert (incident.severity, incident.is_page, incident.title) == (Sev.SEV1, True, OUT.says)
    assert kinds(incident) == [PageKind.OPENED]
    assert incident.acknowledge_due_ms == NOON_MS + 2 + 15 * MINUTE_MS
    on_its_way = taken(fired(DOWN)[0], NOON_MS, RULES).after
    assert on_its_way is not None
    worse, _ = fired(OUT, NOON_MS + 1, on_its_way, fired(DOWN)[1])
    assert kinds(worse) == [PageKind.OPENED, PageKind.RAISED], "somebody may have been told of the lesser one"


def test_an_alarm_that_is_no_graver_leaves_the_incident_its_name_and_page() -> None:
    incident, board = fired(DOWN)
    incident, board = fired(WEAK, NOON_MS + 1, incident, board)
    assert (incident.title, incident.runbook) == (DOWN.says, DOWN.page)
    incident, board = quiet(OUT, NOON_MS + 2, incident, board)
    late = rang(
        OUT,
        is_firing=True,
        at_ms=NOON_MS + 1,
        incident=incident,
        board=board,
        now_ms=NOON_MS + 3,
        new_id="a" * 32,
        rules=RULES,
    )
    assert late is not None
    assert after(late, board)[0].runbook == DOWN.page, "it was quiet again before anybody heard that it fired"


def test_that_an_alarm_was_quiet_before_it_fires_makes_it_no_less_grave() -> None:
    """Of each alarm CloudWatch tells when it is quiet too: at a deploy, after an earlier storm, out of order."""
    incident, board = all_delivered(*fired(WEAK), NOON_MS)
    incident, board = quiet(OUT, NOON_MS + 1, incident, board)
    late, seen = after(rung(OUT, NOON_MS, incident, board), board)
    assert (late.severity, late.alarms[OUT.name].count) == (Sev.SEV3, 0)
    for known, heard in ((incident, board), (late, seen)):
        grave, _ = fired(OUT, NOON_MS + 2, known, heard)
        assert (grave.severity, grave.is_page, grave.title) == (Sev.SEV1, True, OUT.says)
        assert kinds(grave) == [PageKind.OPENED, PageKind.RAISED]
        assert grave.acknowledge_due_ms == NOON_MS + 2 + 15 * MINUTE_MS


def test_a_page_joins_a_ticket_and_pages() -> None:
    incident, board = fired(WEAK)
    assert not incident.is_page
    incident, board = all_delivered(incident, board, NOON_MS)
    incident, board = fired(replace(DOWN, sev=Sev.SEV3), NOON_MS + 1, incident, board)
    assert incident.is_page
    assert kinds(incident) == [PageKind.OPENED, PageKind.RAISED]


def test_an_alarm_that_fires_again_opens_what_was_mitigated() -> None:
    incident, board = in_state(State.MITIGATED)
    incident, board = quiet(DOWN, NOON_MS + 10, incident, board)
    assert incident.state is State.MITIGATED
    stale = rang(
        DOWN,
        is_firing=True,
        at_ms=NOON_MS + 9,
        incident=incident,
        board=board,
        now_ms=NOON_MS + 11,
        new_id="a" * 32,
        rules=RULES,
    )
    assert types(stale) == [AuditType.INCIDENT_ALARM], "it was quiet again already"
    at_ms = NOON_MS + HOUR_MS
    incident, board = fired(DOWN, at_ms, incident, board)
    assert (incident.state, incident.mitigated_at_ms, incident.acknowledged_by) == (State.OPEN, 0, "")
    assert incident.acknowledge_due_ms == at_ms + HOUR_MS
    assert kinds(incident)[-1] is PageKind.RECURRED
    assert board.open == {"providers": incident.incident_id}
    mitigated_again, board = in_state(State.MITIGATED)
    worse, _ = fired(OUT, at_ms, mitigated_again, board)
    assert (worse.state, worse.severity) == (State.OPEN, Sev.SEV1)


def test_what_happens_again_is_called_anew_and_nobody_is_told_any_more_that_somebody_had_it() -> None:
    incident, board = in_state(State.MITIGATED)
    assert kinds(incident) == [PageKind.OPENED, PageKind.ACKNOWLEDGED]
    assert call_of(incident.incident_id, incident.recurrences) == incident.incident_id
    incident, board = quiet(DOWN, NOON_MS + 10, incident, board)
    again, _ = fired(DOWN, NOON_MS + 20, incident, board)
    assert kinds(again) == [PageKind.OPENED, PageKind.RECURRED]
    assert call_of(again.incident_id, again.recurrences) == f"{again.incident_id}#1"
    told_of, board = all_delivered(incident, board, NOON_MS + 15)
    again, _ = fired(DOWN, NOON_MS + 20, told_of, board)
    assert kinds(again) == [PageKind.OPENED, PageKind.ACKNOWLEDGED, PageKind.RECURRED]


def test_after_it_is_over_the_next_alarm_is_another_incident() -> None:
    incident, board = in_state(State.RESOLVED)
    assert (incident.state, dict(board.open)) == (State.RESOLVED, {})
    other, board = fired(DOWN, NOON_MS + HOUR_MS, None, board, new_id="f" * 32)
    assert other.incident_id != incident.incident_id
    assert board.recent == (other.incident_id, incident.incident_id)
    with pytest.raises(IllegalTransition):
        fired(OUT, NOON_MS + HOUR_MS, incident, board)


def test_the_board_keeps_the_newest_and_what_was_last_heard() -> None:
    board = Board(recent=tuple(f"i{n}" for n in range(MOST_RECENT)), seen={f"a{n}": (n, 0) for n in range(MOST_SEEN)})
    incident, board = fired(DOWN, NOON_MS, None, board)
    assert (board.recent[0], len(board.recent)) == (incident.incident_id, MOST_RECENT)
    assert len(board.seen) == MOST_SEEN
    assert DOWN.name in board.seen
    assert "a0" not in board.seen
    assert board.with_incident(incident) is board


def test_what_fires_a_day_after_it_was_mitigated_is_another_incident_and_the_old_one_takes_nothing_from_it() -> None:
    old, board = in_state(State.MITIGATED)
    old, board = quiet(DOWN, NOON_MS + 10, old, board)
    late_ms = NOON_MS + 2 + RECURS_MS
    other, board = fired(OUT, late_ms, old, board, new_id="f" * 32)
    assert (other.incident_id != old.incident_id, other.state) == (True, State.OPEN)
    assert board.open == {"providers": other.incident_id}
    old, board = after(noted(old, Findings("x"), board, late_ms, ADA), board)
    assert board.open == {"providers": other.incident_id}
    assert set(board.active) == {old.incident_id, other.incident_id}
    firing, seen = in_state(State.MITIGATED)
    again, _ = fired(OUT, late_ms, firing, seen)
    assert again.incident_id == firing.incident_id, "an alarm of it has never been quiet"
    over, seen = quiet(DOWN, late_ms + 1, firing, seen)
    assert over.incident_id == firing.incident_id


# ------------------------------------------------------------------------------------------------------------- by hand


def test_somebody_has_it_in_hand_once_001_5() -> None:
    incident, board = fired(DOWN)
    change = acknowledged(incident, board, NOON_MS + 5, ADA)
    assert change.board is None, "the board does not change by that"
    assert change.after is not None
    assert (change.after.acknowledged_by, change.after.acknowledge_due_ms) == ("ada", 0)
    (event,) = change.audit
    assert (event.actor, event.request_id, event.traceparent) == ("ada", "request-7", "trace-7")
    assert json.loads(event.before_state)["status"] == "open"
    with pytest.raises(IncidentConflict) as refused:
        acknowledged(change.after, board, NOON_MS + 6, ADA)
    assert refused.value.state is State.ACKNOWLEDGED


def test_a_mitigated_incident_has_no_clocks_and_waits_for_its_review_001_10() -> None:
    incident, board = in_state(State.MITIGATED)
    assert (incident.acknowledge_due_ms, incident.mitigate_due_ms, incident.next_update_ms) == (0, 0, 0)
    assert incident.remind_at_ms == NOON_MS + 2 + REVIEW_MS
    with pytest.raises(IncidentConflict):
        mitigated(incident, board, NOON_MS, ADA, "again", RULES)
    three, board = by_hand(Sev.SEV3)
    assert after(mitigated(three, board, NOON_MS, ADA, "m", RULES), board)[0].remind_at_ms == 0


def test_it_closes_with_its_postmortem_and_once_its_alarms_are_quiet_001_13() -> None:
    incident, board = in_state(State.MITIGATED)
    with pytest.raises(NotFinished, match="integration-down still fires"):
        resolved(incident, board, NOON_MS + 3, ADA, "done")
    incident, board = quiet(DOWN, NOON_MS + 4, incident, board)
    with pytest.raises(NotFinished, match="postmortem"):
        resolved(incident, board, NOON_MS + 5, ADA, "done")
    first = reviewed(incident, "why", board, NOON_MS + 6, ADA)
    incident, board = after(first, board)
    assert first.audit[0].reason == "postmortem written"
    again = reviewed(incident, "why, better", board, NOON_MS + 6, ADA)
    assert again.audit[0].reason == "postmortem written anew"
    assert incident.remind_at_ms == 0
    change = resolved(incident, board, NOON_MS + 7, ADA, "a bug, fixed")
    over, board = after(change, board)
    assert (over.resolution, over.resolved_by, over.is_over) == ("a bug, fixed", "ada", True)
    assert kinds(over)[-1] is PageKind.RESOLVED
    assert is_worked_on(over), "somebody is to be told yet"
    with pytest.raises(IncidentConflict):
        resolved(over, board, NOON_MS + 8, ADA, "twice")


def test_a_postmortem_that_was_kept_before_it_happened_again_closes_nothing_001_13() -> None:
    incident, board = in_state(State.MITIGATED)
    incident, board = quiet(DOWN, NOON_MS + 10, incident, board)
    incident, board = after(reviewed(incident, "why", board, NOON_MS + 11, ADA), board)
    assert incident.is_reviewed
    again, board = fired(DOWN, NOON_MS + 20, incident, board)
    again, board = quiet(DOWN, NOON_MS + 30, again, board)
    assert (again.recurrences, again.is_reviewed, again.postmortem) == (1, False, "why")
    command = f"holdfast incident postmortem {again.incident_id}"
    with pytest.raises(NotFinished, match=f"before it happened again: {command}.*--file"):
        resolved(again, board, NOON_MS + 40, ADA, "done")
    again, board = after(mitigated(again, board, NOON_MS + 41, ADA, "m", RULES), board)
    worse, _ = after(reclassified(again, Sev.SEV1, board, NOON_MS + 42, ADA, "all of them", RULES), board)
    assert worse.remind_at_ms == again.remind_at_ms != 0
    kept, board = after(reviewed(again, "why, both times", board, NOON_MS + 43, ADA), board)
    assert (kept.is_reviewed, kept.remind_at_ms) == (True, 0)
    assert after(resolved(kept, board, NOON_MS + 44, ADA, "done"), board)[0].is_over


def test_a_sev3_that_happened_again_needs_no_postmortem_anew() -> None:
    incident, board = by_hand(Sev.SEV3)
    once = replace(incident, postmortem="why", recurrences=1)
    assert not once.is_reviewed
    assert after(resolved(once, board, NOON_MS, ADA, "done"), board)[0].is_over


def test_what_a_release_before_has_kept_of_an_incident_that_happened_again_is_to_be_kept_anew() -> None:
    """It did not say of which time it knows."""
    incident, _ = by_hand()
    said = json.loads(replace(incident, postmortem="why", recurrences=2, reviewed_recurrences=2).to_json())
    del said["reviewed_recurrences"]
    assert not Incident.from_json(json.dumps(said)).is_reviewed
    assert Incident.from_json(json.dumps({**said, "recurrences": 0})).is_reviewed


def test_an_alarm_that_nobody_will_hear_of_again_keeps_no_incident_open() -> None:
    """One made beside the table, often without a word when it is over; one whose row is gone."""
    strange = replace(WEAK, name="somebody-elses", group="somebody-elses")
    incident, board = fired(strange)
    assert incident.firing == ("somebody-elses",)
    assert after(resolved(incident, board, NOON_MS + 1, ADA, "looked at"), board)[0].is_over


def test_a_sev3_closes_without_a_postmortem() -> None:
    incident, board = by_hand(Sev.SEV3)
    over, board = after(resolved(incident, board, NOON_MS, ADA, "done"), board)
    assert over.is_over
    over, board = all_delivered(over, board, NOON_MS)
    assert board.active == ()


def test_who_was_promised_to_hear_more_hears_it_before_it_closes_001_41() -> None:
    incident, board = by_hand(Sev.SEV3)
    delay = Told(NOON_MS + 1, "ada", "employer_delay", 1, "employer", "employer_done")
    incident, board = after(
        told(incident, delay, "there is a delay", board, NOON_MS + 1, ADA, RULES, is_internal=False), board
    )
    assert incident.owed == ("employer_done",)
    with pytest.raises(NotFinished, match="employer_done"):
        resolved(incident, board, NOON_MS + 2, ADA, "done")
    done = Told(NOON_MS + 3, "ada", "employer_done", 1, "employer")
    incident, board = after(
        told(incident, done, "it is over", board, NOON_MS + 3, ADA, RULES, is_internal=False), board
    )
    assert incident.owed == ()
    assert after(resolved(incident, board, NOON_MS + 4, ADA, "done"), board)[0].is_over


def test_an_update_for_our_own_people_goes_out_and_moves_the_reminder_001_51() -> None:
    incident, board = by_hand(Sev.SEV1)
    late_ms = NOON_MS + HOUR_MS
    update = Told(late_ms, "ada", "internal_update", 1, "internal")
    change = told(incident, update, "we are at it", board, late_ms, ADA, RULES, is_internal=True)
    assert change.after is not None
    assert (change.after.pages[-1].kind, change.after.pages[-1].text) == (PageKind.UPDATE, "we are at it")
    assert change.after.next_update_ms == change.after.remind_at_ms == late_ms + 30 * MINUTE_MS
    assert "we are at it" in change.audit[0].reason
    early = told(incident, update, "soon", board, NOON_MS + 1, ADA, RULES, is_internal=True)
    assert early.after is not None
    assert early.after.next_update_ms == incident.next_update_ms
    for state in (State.MITIGATED, State.RESOLVED):
        ended, board = in_state(state)
        said = told(ended, update, "it is over", board, late_ms, ADA, RULES, is_internal=True)
        assert said.after is not None
        assert (said.after.state, said.after.next_update_ms) == (state, 0)


def test_a_graver_severity_pages_and_starts_the_clocks_a_lesser_reckons_from_the_beginning_001_9() -> None:
    incident, board = all_delivered(*by_hand(Sev.SEV3), NOON_MS)
    at_ms = NOON_MS + 5 * HOUR_MS
    raised, board = after(reclassified(incident, Sev.SEV1, board, at_ms, ADA, "it is all of them", RULES), board)
    assert (raised.severity, kinds(raised)[-1]) == (Sev.SEV1, PageKind.RAISED)
    assert raised.acknowledge_due_ms == at_ms + 15 * MINUTE_MS
    change = reclassified(raised, Sev.SEV2, board, at_ms + 1, ADA, "some", RULES)
    lowered, _ = after(change, board)
    assert (lowered.acknowledge_due_ms, lowered.mitigate_due_ms) == (NOON_MS + HOUR_MS, NOON_MS + 8 * HOUR_MS)
    assert len(lowered.pages) == len(raised.pages)
    assert (change.audit[0].event_type, change.audit[0].reason) == (AuditType.INCIDENT_SEVERITY, "some")
    with pytest.raises(IncidentConflict):
        reclassified(lowered, Sev.SEV2, board, at_ms, ADA, "the same", RULES)
    over, board = in_state(State.RESOLVED)
    with pytest.raises(IncidentConflict):
        reclassified(over, Sev.SEV1, board, at_ms, ADA, "too late", RULES)


def test_clocks_that_are_stopped_stay_so_whatever_the_severity() -> None:
    incident, board = in_state(State.MITIGATED)
    up, _ = after(reclassified(incident, Sev.SEV1, board, NOON_MS + 9, ADA, "worse", RULES), board)
    assert (up.acknowledge_due_ms, up.mitigate_due_ms) == (0, 0)
    down, _ = after(reclassified(incident, Sev.SEV3, board, NOON_MS + 9, ADA, "less", RULES), board)
    assert (down.acknowledge_due_ms, down.mitigate_due_ms, down.remind_at_ms) == (0, 0, 0)
    one, board = in_state(State.MITIGATED, OUT)
    two, _ = after(reclassified(one, Sev.SEV2, board, NOON_MS + 9, ADA, "less", RULES), board)
    assert two.remind_at_ms == one.remind_at_ms


def test_what_is_graver_than_thought_and_does_no_more_harm_waits_for_its_review_alone() -> None:
    incident, board = in_state(State.MITIGATED)
    up, _ = after(reclassified(incident, Sev.SEV1, board, NOON_MS + 9, ADA, "worse", RULES), board)
    assert (up.next_update_ms, up.remind_at_ms) == (0, incident.remind_at_ms)
    ticket, board = after(mitigated(*fired(WEAK), NOON_MS, ADA, "m", RULES), board)
    up, _ = after(reclassified(ticket, Sev.SEV1, board, NOON_MS + 9, ADA, "worse", RULES), board)
    assert (up.next_update_ms, up.remind_at_ms) == (0, NOON_MS + 9 + REVIEW_MS)
    written, board = after(reviewed(incident, "why", board, NOON_MS + 8, ADA), board)
    up, _ = after(reclassified(written, Sev.SEV1, board, NOON_MS + 9, ADA, "worse", RULES), board)
    assert up.remind_at_ms == 0


def test_what_somebody_found_out_is_kept_001_9_001_51() -> None:
    incident, board = fired(DOWN)
    found = Findings("looks like DNS", "tenant acme", "replies late", "rules route", NOON_MS + 9, "cto", "ceo")
    change = noted(incident, found, board, NOON_MS + 5, ADA)
    assert change.after is not None
    assert (change.after.scope, change.after.impact, change.after.mitigation) == (
        "tenant acme",
        "replies late",
        "rules route",
    )
    assert (change.after.lead, change.after.communications) == ("cto", "ceo")
    assert change.after.next_update_ms == change.after.remind_at_ms == NOON_MS + 9
    assert change.audit[0].reason.startswith("looks like DNS; scope: tenant acme; impact: replies late")
    over, board = in_state(State.RESOLVED)
    later = noted(over, Findings(next_update_ms=5), board, NOON_MS + 5, ADA)
    assert later.after is not None
    assert (later.after.state, later.after.remind_at_ms) == (State.RESOLVED, 0)


def test_what_the_machine_does_by_itself_is_kept_until_it_is_done_003_25() -> None:
    incident, board = fired(STORM)
    failed = Contained("auto_reply", "off", "reply-storm", NOON_MS)
    change = contained(incident, failed, board, NOON_MS)
    assert change.audit[0].reason == "auto_reply could not be set to off: reply-storm"
    incident, board = after(change, board)
    done = replace(failed, is_done=True)
    change = contained(incident, done, board, NOON_MS + 1)
    incident, board = after(change, board)
    assert incident.contained == (done,)
    assert change.audit[0].containment_action == "auto_reply off"
    over = replace(incident, state=State.RESOLVED, pages=())
    assert not is_worked_on(over)
    assert is_worked_on(replace(over, contained=(failed,)))


def test_that_it_was_so_already_takes_nothing_back() -> None:
    incident, board = fired(STORM)
    done = Contained("auto_reply", "off", "reply-storm", NOON_MS, is_done=True, before="on")
    incident, board = after(contained(incident, done, board, NOON_MS), board)
    again = replace(done, at_ms=NOON_MS + 1, before="off")
    incident, board = after(contained(incident, again, board, NOON_MS + 1), board)
    assert incident.contained == (done,)
    failed = replace(done, is_done=False)
    assert after(contained(incident, failed, board, NOON_MS), board)[0].contained == (failed,)
    turned = replace(done, at_ms=NOON_MS + 2)
    assert after(contained(incident, turned, board, NOON_MS), board)[0].contained == (turned,)


# --------------------------------------------------------------------------------------------------------------- clocks


def test_a_clock_that_runs_out_goes_to_the_secondary_again_and_again_and_not_for_ever_001_2() -> None:
    incident, board = fired(OUT)
    assert ticked(incident, board, NOON_MS + 15 * MINUTE_MS - 1, RULES) is None
    now_ms = NOON_MS
    for number in range(1, MOST_ESCALATIONS + 1):
        now_ms = incident.acknowledge_due_ms
        change = ticked(incident, board, now_ms, RULES)
        assert types(change) == [AuditType.INCIDENT_ESCALATED]
        assert change is not None
        incident, board = after(change, board)
        assert incident.escalations == number
        assert incident.pages[-1].to == (Role.PRIMARY, Role.SECONDARY)
        incident, board = all_delivered(incident, board, now_ms)
    assert kinds(incident).count(PageKind.ESCALATED) == MOST_ESCALATIONS
    assert incident.acknowledge_due_ms == 0


def test_what_is_not_mitigated_in_time_goes_to_both_once_001_3() -> None:
    incident, board = in_state(State.ACKNOWLEDGED)
    incident = replace(incident, remind_at_ms=0)
    change = ticked(incident, board, NOON_MS + 8 * HOUR_MS, RULES)
    assert change is not None
    incident, board = after(change, board)
    assert (kinds(incident)[-1], incident.mitigate_due_ms) == (PageKind.OVERDUE, 0)
    assert "together" in change.audit[0].reason
    assert ticked(incident, board, NOON_MS + 9 * HOUR_MS, RULES) is None


def test_an_update_or_a_review_that_is_due_is_remembered_again_and_again_001_51() -> None:
    incident, board = in_state(State.ACKNOWLEDGED)
    due_ms = incident.remind_at_ms
    change = ticked(incident, board, due_ms, RULES)
    assert types(change) == [AuditType.INCIDENT_REMINDED]
    assert change is not None
    incident, board = after(change, board)
    assert (kinds(incident)[-1], incident.remind_at_ms) == (PageKind.UPDATE_DUE, due_ms + 2 * HOUR_MS)
    incident, board = all_delivered(*in_state(State.MITIGATED), NOON_MS + 2)
    change = ticked(incident, board, incident.remind_at_ms, RULES)
    assert change is not None
    assert change.after is not None
    assert kinds(change.after)[-1] is PageKind.REVIEW_DUE
    assert change.after.remind_at_ms == incident.remind_at_ms + REVIEW_MS


def test_it_is_over_by_itself_once_its_alarms_are_quiet_for_a_while() -> None:
    incident, board = fired(DOWN)
    incident, board = quiet(DOWN, NOON_MS + 60_000, incident, board)
    assert ticked(incident, board, NOON_MS + 60_000 + QUIET_MS - 1, RULES) is None
    change = ticked(incident, board, NOON_MS + 60_000 + QUIET_MS, RULES)
    assert change is not None
    over, board = after(change, board)
    assert (over.state, over.mitigated_by, over.mitigation) == (
        State.MITIGATED,
        MACHINE,
        "none: its alarms are quiet again",
    )
    assert ticked(over, board, NOON_MS + 2 * QUIET_MS, RULES) is None
    noted_before = replace(incident, mitigation="switched off")
    change = ticked(noted_before, board, NOON_MS + 60_000 + QUIET_MS, RULES)
    assert change is not None
    assert change.after is not None
    assert change.after.mitigation == "switched off"


def test_a_ticket_closes_by_itself_unless_somebody_was_promised_to_hear() -> None:
    incident, board = fired(WEAK)
    incident, board = quiet(WEAK, NOON_MS + 1, incident, board)
    change = ticked(incident, board, NOON_MS + 1 + QUIET_MS, RULES)
    assert types(change) == [AuditType.INCIDENT_RESOLVED]
    promised = replace(incident, told=(Told(NOON_MS, "ada", "d", 1, "employer", "done"),))
    assert types(ticked(promised, board, NOON_MS + 1 + QUIET_MS, RULES)) == [AuditType.INCIDENT_MITIGATED]


def test_a_sev0_that_is_quiet_because_of_what_was_switched_off_waits_for_a_person() -> None:
    incident, board = fired(STORM)
    incident, board = quiet(STORM, NOON_MS + 1, incident, board)
    assert ticked(incident, board, NOON_MS + 2 + QUIET_MS, RULES) is None
    incident, board = after(acknowledged(incident, board, NOON_MS + 3, ADA), board)
    assert types(ticked(incident, board, NOON_MS + 2 + QUIET_MS, RULES)) == [AuditType.INCIDENT_MITIGATED]


def test_what_is_quiet_because_the_machine_holds_it_waits_for_a_person() -> None:
    """A flow on hold fails no event: nothing is over, and customers wait."""
    incident, board = fired(DOWN)
    held = Contained("flow/support/mode", "hold", DOWN.name, NOON_MS, NOON_MS + HOUR_MS, is_done=True, before="live")
    incident, board = after(contained(incident, held, board, NOON_MS), board)
    incident, board = quiet(DOWN, NOON_MS + 1, incident, board)
    assert ticked(incident, board, NOON_MS + 2 + QUIET_MS, RULES) is None
    assert types(ticked(incident, board, NOON_MS + HOUR_MS, RULES)) == [AuditType.INCIDENT_ESCALATED]


def test_that_an_alarm_on_what_has_happened_is_quiet_ends_nothing_that_nobody_has_looked_at_001_2() -> None:
    """It is quiet a minute later, and what it told of is as it was: the clock goes on, and to the secondary."""
    moment = replace(DOWN, is_moment=True)
    incident, board = all_delivered(*fired(moment), NOON_MS)
    incident, board = quiet(moment, NOON_MS + MINUTE_MS, incident, board)
    assert ticked(incident, board, NOON_MS + MINUTE_MS + QUIET_MS, RULES) is None
    late = ticked(incident, board, NOON_MS + HOUR_MS, RULES)
    assert types(late) == [AuditType.INCIDENT_ESCALATED]
    incident, board = after(acknowledged(incident, board, NOON_MS + 3, ADA), board)
    assert types(ticked(incident, board, NOON_MS + HOUR_MS, RULES)) == [AuditType.INCIDENT_MITIGATED]
    assert Incident.from_json(incident.to_json()) == incident


def test_what_a_person_opened_is_over_when_a_person_says_so() -> None:
    incident, board = by_hand(Sev.SEV3)
    assert ticked(incident, board, NOON_MS + QUIET_MS * 3, RULES) is None
    over, board = all_delivered(*in_state(State.RESOLVED), NOON_MS + 5)
    assert ticked(over, board, NOON_MS + 100 * HOUR_MS, RULES) is None


def test_a_test_page_ends_when_it_has_arrived_or_has_not_001_57() -> None:
    incident, board = by_hand(Sev.SEV3, is_test=True)
    assert (kinds(incident), incident.pages[0].to) == ([PageKind.TEST], (Role.PRIMARY, Role.SECONDARY))
    assert ticked(incident, board, NOON_MS + 1, RULES) is None
    there, seen = after(delivered(incident, {1: ["sns", "desk"]}, {}, board, NOON_MS + 2, RULES), board)
    change = ticked(there, seen, NOON_MS + 3, RULES)
    assert change is not None
    assert change.after is not None
    assert (change.after.resolution, change.after.is_over) == ("delivered by desk, sns", True)
    for took, said in (({1: ["sns"]}, "taken by sns"), ({1: []}, "taken by no channel")):
        half, seen = after(delivered(incident, took, {1: ["desk"]}, board, NOON_MS + 2, RULES), board)
        change = ticked(half, seen, NOON_MS + TEST_MS, RULES)
        assert change is not None
        assert change.after is not None
        assert change.after.resolution == f"not delivered; {said}"
        assert not is_worked_on(change.after)


# ---------------------------------------------------------------------------------------------------------------- pages


def test_one_delivers_a_page_at_a_time_and_what_a_channel_did_not_take_goes_there_again() -> None:
    incident, board = fired(DOWN)
    change = taken(incident, NOON_MS, RULES)
    assert (change.audit, change.board) == ((), None)
    assert change.after is not None
    incident = change.after
    assert to_deliver(incident, NOON_MS + LEASE_MS - 1) == ()
    assert len(to_deliver(incident, NOON_MS + LEASE_MS)) == 1
    change = delivered(incident, {1: ["sns"]}, {1: ["desk"]}, board, NOON_MS + 5, RULES)
    assert change.audit[0].reason == "opened: sns; not taken by desk"
    incident, board = after(change, board)
    (page,) = incident.pages
    assert (page.took, page.delivered_at_ms, page.attempts) == (("sns",), 0, 1)
    assert to_deliver(incident, NOON_MS + 5) == ()
    incident, board = after(delivered(incident, {1: ["desk"]}, {}, board, NOON_MS + 9 * LEASE_MS, RULES), board)
    assert incident.pages[0].took == ("desk", "sns")
    assert to_deliver(incident, NOON_MS + 10 * LEASE_MS) == ()
    assert board.active == (incident.incident_id,)


def test_a_page_that_no_channel_took_says_so() -> None:
    incident, board = fired(DOWN)
    incident, board = after(acknowledged(incident, board, NOON_MS, ADA), board)
    change = delivered(incident, {1: []}, {1: ["sns"]}, board, NOON_MS, RULES)
    assert change.audit[0].reason == "opened: no channel; not taken by sns"
    assert change.after is not None
    assert change.after.pages[1] == incident.pages[1]


def test_leases_are_long_enough_for_channels_however_short_waits_are() -> None:
    incident, _ = fired(DOWN)
    change = taken(incident, NOON_MS, replace(RULES, scale=1 / 60))
    assert change.after is not None
    assert change.after.pages[0].taken_until_ms == NOON_MS + SHORTEST_LEASE_MS


def test_the_same_page_does_not_wait_twice_and_the_list_has_an_end() -> None:
    incident, board = in_state(State.ACKNOWLEDGED)
    for _ in range(3):
        change = ticked(incident, board, incident.remind_at_ms, RULES)
        assert change is not None
        incident, board = after(change, board)
    assert kinds(incident).count(PageKind.UPDATE_DUE) == 1
    for n in range(3 * MOST_PAGES):
        update = Told(NOON_MS + n, "ada", "u", 1, "internal")
        incident, board = after(told(incident, update, f"{n}", board, NOON_MS, ADA, RULES, is_internal=True), board)
        if n < MOST_PAGES:
            incident, board = all_delivered(incident, board, NOON_MS + 100 * HOUR_MS)
    assert len(incident.pages) == MOST_PAGES
    assert [page.number for page in incident.pages] == sorted(page.number for page in incident.pages)
    assert incident.pages[-1].text == str(3 * MOST_PAGES - 1)


def test_a_channel_that_takes_nothing_keeps_no_later_page_from_the_others_001_2() -> None:
    """It would have for a day: each clock that runs out is news to whoever has had the page of the one before."""
    incident, board = fired(OUT)
    numbers = []
    for _ in range(3):
        now_ms = incident.acknowledge_due_ms
        change = ticked(incident, board, now_ms, RULES)
        assert change is not None
        incident, board = after(change, board)
        waiting = [page for page in incident.pages if page.kind is PageKind.ESCALATED and not page.delivered_at_ms]
        (page,) = waiting
        numbers.append(page.number)
        half = delivered(incident, {page.number: ["sns"]}, {page.number: ["desk"]}, board, now_ms + 1, RULES)
        incident, board = after(half, board)
    assert len(set(numbers)) == 3
    assert [page.took for page in incident.pages if page.kind is PageKind.ESCALATED] == [("sns",)] * 3


def test_a_page_that_no_channel_took_in_a_day_is_given_up() -> None:
    incident, board = by_hand(Sev.SEV3)
    over, board = after(resolved(incident, board, NOON_MS, ADA, "done"), board)
    half, board = after(delivered(over, {1: ["sns"]}, {1: ["desk"]}, board, NOON_MS + 1, RULES), board)
    assert ticked(half, board, NOON_MS + GIVEN_UP_MS - 1, RULES) is None
    change = ticked(half, board, NOON_MS + GIVEN_UP_MS, RULES)
    assert change is not None
    assert change.audit[0].reason == "opened: given up, taken by sns; resolved: given up, taken by no channel"
    ended, board = after(change, board)
    assert (board.active, ticked(ended, board, NOON_MS + 2 * GIVEN_UP_MS, RULES)) == ((), None)


# -------------------------------------------------------------------------------------------------- the table, and JSON


@pytest.mark.parametrize("state", list(State))
def test_what_is_stored_is_read_back(state: State) -> None:
    incident, board = in_state(state)
    incident, board = after(contained(incident, Contained("mode", "hold", "why", 1, 2), board, NOON_MS), board)
    incident, _ = after(
        told(incident, Told(1, "ada", "t", 1, "a"), "x", board, NOON_MS, ADA, RULES, is_internal=True), board
    )
    assert Incident.from_json(incident.to_json()) == incident


def test_what_a_later_release_has_written_is_read_by_the_one_before() -> None:
    """Going back is what is done first in an incident."""
    incident, board = fired(STORM)
    incident, board = after(contained(incident, Contained("mode", "hold", "why", 1, 2), board, NOON_MS), board)
    made = Told(1, "ada", "t", 1, "a")
    incident, _ = after(told(incident, made, "x", board, NOON_MS, ADA, RULES, is_internal=True), board)
    said = json.loads(incident.to_json())
    for each in (said, said["alarms"][STORM.name], said["contained"][0], said["told"][0], said["pages"][0]):
        each["later"] = 1
    assert Incident.from_json(json.dumps(said)) == incident


def walks() -> dict[tuple[str, str, str], IncidentChange | None]:
    """What comes of walking each line of the table."""
    opening = rang(DOWN, is_firing=True, at_ms=1, incident=None, board=Board(), now_ms=1, new_id="a" * 32, rules=RULES)
    found: dict[tuple[str, str, str], IncidentChange | None] = {(ABSENT, "open", "open"): opening}
    for state in State:
        incident, board = in_state(state)
        same = state.value
        message = Told(1, "a", "t", 1, "x")
        found[same, "contain", same] = contained(incident, Contained("s", "v", "b", 1), board, NOON_MS)
        found[same, "note", same] = noted(incident, Findings("x"), board, NOON_MS, ADA)
        found[same, "tell", same] = told(incident, message, "t", board, NOON_MS, ADA, RULES, is_internal=False)
        found[same, "review", same] = reviewed(incident, "p", board, NOON_MS, ADA)
        found[same, "page", same] = taken(incident, NOON_MS, RULES)
        if state is State.RESOLVED:
            continue
        found[same, "alarm", same] = rang(
            DOWN,
            is_firing=False,
            at_ms=NOON_MS + 9,
            incident=incident,
            board=board,
            now_ms=NOON_MS + 9,
            new_id="",
            rules=RULES,
        )
        found[same, "severity", same] = reclassified(incident, Sev.SEV1, board, NOON_MS, ADA, "w", RULES)
        quiet_one = replace(incident, alarms={}, postmortem="p")
        found[same, "resolve", "resolved"] = resolved(quiet_one, board, NOON_MS, ADA, "r")
        found[same, "escalate", same] = ticked(replace(incident, acknowledge_due_ms=1), board, NOON_MS, RULES)
        late = replace(incident, acknowledge_due_ms=0, mitigate_due_ms=0, remind_at_ms=1)
        found[same, "remind", same] = ticked(late, board, NOON_MS, RULES)
    incident, board = in_state(State.OPEN)
    found["open", "acknowledge", "acknowledged"] = acknowledged(incident, board, NOON_MS, ADA)
    found["open", "mitigate", "mitigated"] = mitigated(incident, board, NOON_MS, ADA, "m", RULES)
    incident, board = in_state(State.ACKNOWLEDGED)
    found["acknowledged", "mitigate", "mitigated"] = mitigated(incident, board, NOON_MS, ADA, "m", RULES)
    incident, board = in_state(State.MITIGATED)
    found["mitigated", "recur", "open"] = rang(
        OUT, is_firing=True, at_ms=2, incident=incident, board=board, now_ms=2, new_id="", rules=RULES
    )
    return found


def test_every_line_of_the_table_can_be_walked() -> None:
    found = walks()
    assert set(found) == {(step.state, step.event, step.next) for step in INCIDENT.steps}
    for (before, event, then), change in found.items():
        assert change is not None, (before, event)
        assert change.after is not None, (before, event)
        assert change.after.state.value == then, (before, event)
