"""What a page says, what is switched off by itself, and what whoever is paged types first (001.2, 002.36, 003.25)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from functions.core.alarms import ALARMS, Alarm, Audience, Sev
from functions.core.containment import FLOW_ERRORS, HOLD_MS, containment_of, to_contain
from functions.core.first_steps import BY_ALARM, ELSE, REPLIES_OFF, FirstStep, at_stage, first_step
from functions.core.incident import (
    Board,
    Contained,
    Findings,
    Incident,
    Page,
    PageKind,
    Role,
    State,
    Told,
    acknowledged,
    and_contained,
    mitigated,
    noted,
    rang,
    resolved,
    told,
)
from functions.core.page import MOST_LINES, TITLE_LENGTH, Change, Depth, Situation, letter, when
from tests.fakes import NOON_MS
from tests.incidents import ADA, DOWN, HOUR_MS, MINUTE_MS, RULES, STORM, WEAK, after, by_hand, fired, quiet
from tests.unit.test_runbooks import OF_ALARMS, trouble_with

SITUATION = Situation(
    items=7,
    tenants=2,
    changes=[
        Change(NOON_MS - 60_000, "switch", "auto_reply", "off → on", "ada"),
        Change(NOON_MS - 90_000, "deploy", "holdfast-prod-worker"),
    ],
    switches={"mode": "route_only"},
    health={"helpdesk": ("hard_down", NOON_MS - 30_000)},
)


def text_of(incident: Incident, situation: Situation = SITUATION, number: int = -1) -> str:
    return letter(incident, incident.pages[number], situation, "prod", "docs/runbooks/", NOON_MS + 5_000).text


@pytest.mark.parametrize("at_ms", [10**17, 10**400, -(10**17)])
def test_a_time_that_is_none_keeps_no_page(at_ms: int) -> None:
    """Of an item of the control table that somebody has written: it is on every page of the incident."""
    said = text_of(
        fired(DOWN)[0], Situation(health={"helpdesk": ("hard_down", at_ms)}, subjects={DOWN.name: {"a": at_ms}})
    )
    assert said.count("a time that cannot be read") == 2


def test_a_page_says_all_that_the_first_ten_minutes_need() -> None:
    incident, _ = fired(DOWN)
    made = letter(incident, incident.pages[0], SITUATION, "prod", "docs/runbooks/", NOON_MS + 5_000)
    assert made.title == "[SEV2 prod] A provider is down"
    assert (made.is_calling, made.severity, made.to, made.runbook) == (
        True,
        Sev.SEV2,
        (Role.PRIMARY,),
        "docs/runbooks/alarms.md#integration-down",
    )
    assert made.text.splitlines() == [
        f"{incident.incident_id} at prod: A provider is down",
        "open since 2026-01-01 00:00:00Z; opened 2026-01-01 00:00:00Z",
        f"acknowledge by 2026-01-01 01:00:00Z: holdfast --stage prod incident ack {incident.incident_id}",
        "alarm integration-down: A provider is down (fires since 2026-01-01 00:00:00Z)",
        "7 items of 2 tenants wait or are dead",
        "",
        "First: holdfast --stage prod integrations",
        "It only looks: there is nothing to take back.",
        "Then: docs/runbooks/alarms.md#integration-down",
        "",
        "Changed in the two hours before it, and since:",
        "- 2025-12-31 23:59:00Z switch auto_reply (off → on) by ada",
        "- 2025-12-31 23:58:30Z deploy holdfast-prod-worker",
        "Switches that are not as every day:",
        "- mode = route_only",
        "Integrations that are not well:",
        "- helpdesk hard_down since 2025-12-31 23:59:30Z",
        "Lead: incident_lead. Communications: communications. As of 2026-01-01 00:00:05Z.",
    ]


def test_what_is_not_known_is_said_and_what_is_found_out_is_too() -> None:
    incident, board = fired(replace(DOWN, page=""))
    incident, board = after(noted(incident, Findings(scope="acme", impact="late"), board, NOON_MS, ADA), board)
    incident, board = quiet(replace(DOWN, page=""), NOON_MS + 1_000, incident, board)
    incident, board = after(acknowledged(incident, board, NOON_MS, ADA), board)
    changes = [Change(NOON_MS - n, "switch", f"s{n}") for n in range(MOST_LINES + 3)]
    said = text_of(incident, Situation(items=200, tenants=9, is_at_least=True, changes=changes, unknown=("health",)), 0)
    assert "at least 200 items of at least 9 tenants wait or are dead" in said
    assert ("Affected: acme" in said, "Impact: late" in said, "Then:" in said) == (True, True, False)
    assert "Could not be found out: health" in said
    assert "- and 3 more" in said
    assert "mitigate by 2026-01-01 08:00:00Z: holdfast --stage prod incident mitigate" in said
    assert "(quiet since 2026-01-01 00:00:01Z)" in said
    assert "acknowledged since" in said
    assert "Switches that are not as every day: none" in said
    over = replace(incident, mitigate_due_ms=0)
    assert "mitigate by" not in text_of(over, number=0)


def test_what_waits_in_queues_is_said_as_far_as_it_is_known() -> None:
    incident, _ = fired(DOWN)
    events, retries = {"events": Depth(120, 10)}, {"retries": Depth(3, 1)}
    about = "about 120 events wait in the queue and 10 are in hand; of how many tenants it does not say"
    others = "in the other queues, about so many waiting and in hand: retries 3 and 1"
    for queues, said in ((events, [about]), (retries, [others]), ({**events, **retries}, [about, others]), ({}, [])):
        lines = text_of(incident, replace(SITUATION, queues=queues)).splitlines()
        assert [line for line in lines if "queue" in line] == said


def test_what_the_machine_did_by_itself_stands_with_how_to_take_it_back_002_14() -> None:
    incident, _ = fired(STORM)
    done = Contained("auto_reply", "off", "reply-storm", NOON_MS, is_done=True, before="on")
    held = Contained("flow/support/mode", "hold", "x", NOON_MS, NOON_MS + 60_000, is_done=True, before="live")
    already = replace(done, before="off")
    unread = replace(done, before="")
    failed = replace(done, is_done=False)
    said = text_of(replace(incident, contained=(done, held)))
    assert "Done by itself: auto_reply set to off, because of reply-storm" in said
    back = f'holdfast --stage prod switch set auto_reply on --reason "{incident.incident_id}"'
    assert f"To take that back, once its cause is gone: {back}" in said
    assert "flow/support/mode set to hold until 2026-01-01 00:01:00Z" in said
    assert "auto_reply was off already" in text_of(replace(incident, contained=(already,)))
    assert "To take that back" not in text_of(replace(incident, contained=(unread,)))
    assert "NOT DONE by itself, do it now: holdfast --stage prod switch set auto_reply off --direct" in text_of(
        replace(incident, contained=(failed,))
    )


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        (PageKind.UPDATE_DUE, 'incident note {} "what is known by now" --next-update 30m'),
        (PageKind.REVIEW_DUE, "incident postmortem {}"),
    ],
)
def test_who_is_reminded_is_told_the_command_that_does_it(kind: PageKind, command: str) -> None:
    incident, _ = fired(STORM)
    reminded = replace(incident, pages=(replace(incident.pages[0], kind=kind),))
    assert f"{kind.value}: holdfast --stage prod {command.format(incident.incident_id)}" in text_of(reminded)
    assert command.format(incident.incident_id) not in text_of(incident)


def test_news_of_somebody_at_work_is_short() -> None:
    incident, board = by_hand(Sev.SEV3)
    incident, board = after(acknowledged(incident, board, NOON_MS + 1_000, ADA), board)
    assert text_of(incident).splitlines()[1] == "ada has it in hand since 2026-01-01 00:00:01Z."
    update = Told(NOON_MS, "ada", "internal_update", 1, "internal")
    incident, board = after(
        told(incident, update, "we are\nat it", board, NOON_MS, ADA, RULES, is_internal=True), board
    )
    assert text_of(incident) == "we are\nat it"
    incident, board = after(mitigated(incident, board, NOON_MS, ADA, "m", RULES), board)
    over, _ = after(resolved(incident, board, NOON_MS + 2_000, ADA, "a bug"), board)
    assert text_of(over).splitlines()[1] == "It is over, says ada at 2026-01-01 00:00:02Z: a bug"
    made = letter(over, over.pages[-1], SITUATION, "prod", "", NOON_MS)
    assert (made.is_calling, made.title.startswith("[SEV3 prod] resolved: ")) == (False, True)
    assert "mitigated since" in text_of(replace(incident, pages=over.pages[:1]))
    assert "resolved since 2026-01-01 00:00:02Z" in text_of(replace(over, pages=over.pages[:1]))


def test_a_ticket_wakes_nobody_and_a_test_says_that_it_is_one() -> None:
    ticket, _ = fired(WEAK)
    assert not letter(ticket, ticket.pages[0], SITUATION, "prod", "", NOON_MS).is_calling
    test, _ = by_hand(Sev.SEV3, "a test page", is_test=True)
    assert text_of(test).endswith("(PagerDuty), close it by hand.")
    assert letter(replace(test, is_page=False), test.pages[0], SITUATION, "prod", "", NOON_MS).is_calling


def test_nothing_that_is_quoted_begins_a_line_of_its_own_or_cannot_be_sent() -> None:
    incident, board = fired(replace(DOWN, says="down\r\nFirst: sh evil \ud800"))
    findings = Findings(scope="all\nFirst: sh", impact="late\u2028First: sh")
    incident, _ = after(noted(incident, findings, board, NOON_MS, ADA), board)
    changes = [Change(NOON_MS, "switch", "mode", "live\nFirst: sh", "ada\x0bFirst: sh")]
    said = text_of(incident, Situation(changes=changes, switches={"x": "1\x85First: sh"}), 0)
    firsts = [line for line in said.splitlines() if line.startswith("First: ")]
    assert firsts == ["First: holdfast --stage prod integrations"]
    assert said.encode()


def test_a_title_is_one_line_of_ascii_that_fits() -> None:
    incident, _ = by_hand(title="Überläufe\nand " + "x" * 200)
    title = letter(incident, incident.pages[0], SITUATION, "prod", "", NOON_MS).title
    assert title.startswith("[SEV2 prod] ?berl?ufe?and xxx")
    assert (len(title), title[-3:], title.isascii()) == (TITLE_LENGTH, "...", True)
    page = Page(1, PageKind.ESCALATED, (Role.PRIMARY,), NOON_MS)
    assert "not acknowledged in time:" in letter(incident, page, SITUATION, "prod", "", NOON_MS).title


def test_who_is_told_like_the_audience_is_whom_its_alarms_speak_to_003_23() -> None:
    def copies(incident: Incident) -> tuple[Audience, ...]:
        return letter(incident, incident.pages[0], SITUATION, "prod", "", NOON_MS).copies

    down, board = fired(DOWN)
    assert (down.audience, copies(down)) == (Audience.OPS, (Audience.CAMPAIGN,))
    both, _ = fired(WEAK, NOON_MS + 1, down, board)
    assert (both.audience, copies(both)) == (Audience.OPS, (Audience.CAMPAIGN, Audience.ML))
    assert copies(fired(replace(WEAK, name="nobodys"))[0]) == copies(by_hand()[0]) == ()


# ---------------------------------------------------------------------------------------------------------- first steps


@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm.name)
def test_the_first_step_of_an_alarm_is_a_look_that_its_section_of_the_runbook_names(alarm: Alarm) -> None:
    """Whoever follows the page's link finds there what they have just typed, and not something else (002.0)."""
    step = BY_ALARM[alarm.name]
    section = OF_ALARMS[alarm.name]
    looks = [one.text for one in section.commands if one.text in section.parts["Check"]]
    assert [one for one in looks if one == step.command or one.startswith(f"{step.command} ")]
    assert (step.undo, trouble_with(at_stage(step.command, "prod"))) == ("", "")


def test_every_alarm_has_a_first_step_and_nothing_else_has() -> None:
    assert list(BY_ALARM) == [alarm.name for alarm in ALARMS]


@pytest.mark.parametrize("step", [REPLIES_OFF, ELSE], ids=lambda step: step.command)
def test_a_first_step_of_no_alarm_is_a_command_that_there_is_and_so_is_its_undoing(step: FirstStep) -> None:
    one = step.of("SEV1-1-a")
    assert (trouble_with(at_stage(one.command, "prod")), "{incident}" in one.command + one.undo) == ("", False)
    if one.undo:
        assert trouble_with(at_stage(one.undo, "prod")) == ""


def test_the_first_step_is_that_of_the_gravest_alarm_as_the_link_is() -> None:
    incident, board = fired(WEAK)
    assert first_step(incident).command == "holdfast integrations llm"
    incident, board = fired(DOWN, NOON_MS + 1, incident, board)
    assert first_step(incident).command == "holdfast integrations"
    incident, _ = fired(WEAK, NOON_MS + 2, incident, board)
    assert first_step(incident).command == "holdfast integrations"
    assert first_step(replace(incident, runbook="")).command == f"holdfast incident show {incident.incident_id}"


def test_what_the_machine_has_stopped_already_is_looked_at_and_not_stopped_again_002_14() -> None:
    incident, _ = fired(STORM)
    assert first_step(incident).command == "holdfast switch get auto_reply"


def test_what_a_person_calls_a_sev0_is_stopped_before_it_is_looked_at_002_14() -> None:
    grave, _ = by_hand(Sev.SEV0)
    assert first_step(grave).command.startswith("holdfast switch set auto_reply off")
    assert first_step(by_hand(Sev.SEV1)[0]).command == "holdfast incident show SEV1-1-abcdef"
    said = text_of(grave)
    assert f'First: holdfast --stage prod switch set auto_reply off --reason "{grave.incident_id}"' in said
    assert f'back: holdfast --stage prod switch set auto_reply on --reason "{grave.incident_id} is over"' in said


# ---------------------------------------------------------------------------------------------------------- containment


def test_a_sev0_turns_replies_off_for_good_and_the_errors_of_one_flow_hold_it_for_a_while_003_25() -> None:
    assert containment_of(STORM, NOON_MS, 1.0) == Contained("auto_reply", "off", "reply-storm", NOON_MS)
    errors = replace(DOWN, name="support-failing", group=FLOW_ERRORS, flow="support")
    assert containment_of(errors, NOON_MS, 1.0) == Contained(
        "flow/support/mode", "hold", "support-failing", NOON_MS, NOON_MS + HOLD_MS
    )
    short = containment_of(errors, NOON_MS, 1 / 60)
    assert short is not None
    assert short.until_ms == NOON_MS + MINUTE_MS
    for other in (DOWN, replace(DOWN, flow="support"), replace(DOWN, group=FLOW_ERRORS)):
        assert containment_of(other, NOON_MS, 1.0) is None


def test_what_could_not_be_done_is_tried_again_while_it_would_surprise_nobody() -> None:
    incident, _ = fired(STORM)
    wanted = Contained("auto_reply", "off", "reply-storm", NOON_MS)
    incident = replace(incident, contained=(wanted, replace(wanted, switch="mode", is_done=True)))
    assert to_contain(incident, NOON_MS + HOUR_MS - 1, 1.0) == (wanted,)
    assert to_contain(incident, NOON_MS + HOUR_MS, 1.0) == ()
    assert to_contain(replace(incident, state=State.RESOLVED), NOON_MS, 1.0) == ()


def test_what_was_done_is_written_down_with_the_incident() -> None:
    change = rang(STORM, is_firing=True, at_ms=1, incident=None, board=Board(), now_ms=1, new_id="a" * 32, rules=RULES)
    assert change is not None
    done = Contained("auto_reply", "off", "reply-storm", 1, is_done=True)
    both = and_contained(change, done, 1)
    assert both.after is not None
    assert (both.after.contained, both.after.version) == ((done,), 1)
    assert [event.event_type.value for event in both.audit] == [
        "platform.incident.opened",
        "platform.incident.contained",
    ]
    nothing = rang(STORM, is_firing=False, at_ms=1, incident=None, board=Board(), now_ms=1, new_id="", rules=RULES)
    assert nothing is not None
    assert and_contained(nothing, done, 1) is nothing


def test_moments_are_utc() -> None:
    assert when(NOON_MS) == "2026-01-01 00:00:00Z"
