"""Which sources and providers an alarm is about, and what a page says of them (001.9, 002.2)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from functions.core import subjects
from functions.core.alarms import ALARMS, Alarm, by_name
from functions.core.gate import Health, IntegrationState
from functions.core.health import Counts
from functions.core.incident import Incident, Page, PageKind, Role, Signal, Symptom
from functions.core.page import MOST_LINES, TITLE_LENGTH, Letter, Situation, letter
from functions.core.subjects import MOST_KEPT, NAMING, SourcesFound, of_health, of_refusals, of_sources
from functions.pager.heard import symptom_of
from tests.fakes import NOON_MS
from tests.incidents import DOWN, fired, quiet

PROVIDERS = {name: NOON_MS - n * 1_000 for n, name in enumerate(("email", "sms", "helpdesk", "llm", "ocr"))}


def symptom(alarm: str) -> Symptom:
    return symptom_of(f"holdfast-prod-{alarm}", "")


def page_of(
    incident: Incident, about: dict[str, dict[str, int]], stage: str = "prod", kind: PageKind = PageKind.OPENED
) -> Letter:
    page = Page(1, kind, (Role.PRIMARY,), NOON_MS)
    return letter(incident, page, Situation(subjects=about), stage, "", NOON_MS)


@pytest.mark.parametrize("alarm", sorted(NAMING))
def test_what_names_something_is_an_alarm_of_the_table_and_the_name_is_in_its_title(alarm: str) -> None:
    assert by_name(alarm) is not None
    made = page_of(fired(symptom(alarm))[0], {alarm: {"acme-helpdesk": NOON_MS - 60_000}})
    assert made.title.endswith(": acme-helpdesk")
    assert len(made.title) <= TITLE_LENGTH
    assert "which: acme-helpdesk since 2025-12-31 23:59:00Z" in made.text.splitlines()


@pytest.mark.parametrize("stage", ["dev", "staging"])
@pytest.mark.parametrize("kind", PageKind)
@pytest.mark.parametrize("alarm", sorted(NAMING))
def test_no_title_is_longer_than_a_subject_may_be_whatever_it_names(alarm: str, kind: PageKind, stage: str) -> None:
    for length in (1, 8, 20, 40, 64, 500):
        for count in (1, 2, 3, 4, 50):
            about = {f"{n:03}{'x' * length}": n for n in range(count)}
            title = page_of(fired(symptom(alarm))[0], {alarm: about}, stage, kind).title
            assert len(title) <= TITLE_LENGTH
            assert title.isascii()
            named = [name for name in about if name in title]
            assert len(named) in (0, count) or title.endswith(f" and {count - len(named)} more")


def test_a_page_about_a_provider_says_which_and_since_when() -> None:
    incident, _ = fired(DOWN)
    assert page_of(incident, {"integration-down": {"helpdesk": NOON_MS}}).title == (
        "[SEV2 prod] A provider is down: helpdesk"
    )
    made = page_of(incident, {"integration-down": PROVIDERS})
    assert made.title == "[SEV2 prod] A provider is down: ocr, llm, helpdesk and 2 more"  # of longest standing first
    assert "which: ocr since 2025-12-31 23:59:56Z, llm since 2025-12-31 23:59:57Z" in made.text
    many = {f"source-{n:02}": n * 1_000 for n in range(MOST_LINES + 3)}
    said = page_of(incident, {"integration-down": many}).text
    assert (f"source-{MOST_LINES - 1:02} since" in said, f"source-{MOST_LINES:02}" in said) == (True, False)
    assert " and 3 more" in said


def test_where_there_is_no_room_what_follows_from_it_gives_way_to_which_it_is() -> None:
    """The text says both. Where even that leaves no room, the title is what it was without names."""
    incident, _ = fired(symptom("source-malformed"))
    about = {"source-malformed": {"acme-helpdesk": 1, "shop": 2}}
    assert page_of(incident, about).title == ("[SEV2 prod] A source's parameter cannot be read: acme-helpdesk, shop")
    assert incident.title in page_of(incident, about).text
    assert page_of(incident, {"source-malformed": {"x" * 64: 1}}).title == page_of(incident, {}).title


def test_a_title_names_what_its_own_alarm_is_about_and_the_text_of_each_alarm_its_own() -> None:
    incident, board = fired(DOWN)
    degraded = symptom("integration-degraded")
    incident = replace(
        incident, alarms={**incident.alarms, degraded.name: Signal(degraded.says, degraded.sev, NOON_MS)}
    )
    made = page_of(incident, {"integration-down": {"helpdesk": 0}, "integration-degraded": {"email": 0}})
    assert made.title == "[SEV2 prod] A provider is down: helpdesk"
    lines = made.text.splitlines()
    which = [lines[n + 1] for n, line in enumerate(lines) if line.startswith("alarm ")]
    assert [one.split()[1] for one in which] == ["helpdesk", "email"]
    assert board.open


def test_what_is_quiet_again_or_could_not_be_found_out_is_not_named() -> None:
    incident, board = fired(DOWN)
    over, _ = quiet(DOWN, NOON_MS + 1_000, incident, board)
    about = {"integration-down": {"helpdesk": NOON_MS}}
    for made in (page_of(over, about), page_of(incident, {})):
        assert made.title == "[SEV2 prod] A provider is down"
        assert "which:" not in made.text
    nobody = page_of(incident, {"integration-down": {}})
    assert (nobody.title, "which: none at this moment" in nobody.text) == ("[SEV2 prod] A provider is down", True)


@pytest.mark.parametrize("alarm", [one for one in ALARMS if one.name not in NAMING], ids=lambda one: one.name)
def test_an_alarm_that_is_about_none_of_several_names_none(alarm: Alarm) -> None:
    incident, _ = fired(symptom(alarm.name))
    every = {name: {"helpdesk": NOON_MS} for name in NAMING}
    assert "helpdesk" not in page_of(incident, every).title
    assert "which:" not in page_of(incident, every).text


def test_names_change_neither_the_group_nor_the_call() -> None:
    """Whatever it is about by now, it is the same alert where people are called."""
    incident, _ = fired(DOWN)
    plain, naming = page_of(incident, {}), page_of(incident, {"integration-down": {"helpdesk": NOON_MS}})
    assert replace(naming, title=plain.title, text=plain.text) == plain


def test_a_name_that_nobody_has_checked_begins_no_line_and_leaves_the_title_ascii() -> None:
    made = page_of(fired(DOWN)[0], {"integration-down": {"sh\nop\u00fc": NOON_MS}})
    assert made.title == "[SEV2 prod] A provider is down: sh?op?"
    assert "which: sh op\u00fc since" in made.text


# ------------------------------------------------------------------------------------------------------------ finding


def test_a_provider_is_down_or_degraded_as_the_machine_says_and_not_as_a_person_does() -> None:
    states = {
        "helpdesk": IntegrationState("helpdesk", Health.HARD_DOWN, since_ms=5),
        "email": IntegrationState("email", Health.DEGRADED, since_ms=6),
        "sms": IntegrationState("sms", Health.HARD_DOWN, override=Health.HEALTHY, override_until_ms=NOON_MS + 1),
        "ocr": IntegrationState("ocr", override=Health.HARD_DOWN, override_until_ms=NOON_MS + 1),
        "llm": IntegrationState("llm", Health.HARD_DOWN, since_ms=7, override=Health.HEALTHY, override_until_ms=1),
    }
    assert of_health(states, NOON_MS) == {
        "integration-down": {"helpdesk": 5, "llm": 7},
        "integration-degraded": {"email": 6},
    }


@pytest.mark.parametrize(("scale", "minute_ms"), [(1.0, 60_000), (1 / 60, 1_000)])
def test_a_provider_that_says_that_we_call_too_often_has_said_so_since_its_first_minute(
    scale: float, minute_ms: int
) -> None:
    counted = {
        "helpdesk": {7: Counts(ok=1), 9: Counts(rate_limited=2), 8: Counts(ok=4, rate_limited=1)},
        "email": {8: Counts(ok=3)},
        "sms": {},
    }
    assert of_refusals(counted, scale) == {"rate-limited": {"helpdesk": 8 * minute_ms}}


def test_sources_are_kept_by_what_was_found_of_them_and_nothing_new_is_no_new_version() -> None:
    first = SourcesFound().moved({"shop": 5}, {"desk": 6})
    assert first == SourcesFound({"shop": 5}, {"desk": 6}, 1)
    assert of_sources(first) == {"source-silent": {"shop": 5}, "source-malformed": {"desk": 6}}
    assert first.moved({"shop": 5}, {"desk": 6}) is first
    assert first.moved({}, {"desk": 6}) == SourcesFound({}, {"desk": 6}, 2)
    assert SourcesFound.from_json(first.to_json(), 1) == first


def test_of_more_than_an_item_may_hold_those_of_longest_standing_are_kept() -> None:
    many = {f"{n:05}": n for n in range(MOST_KEPT + 10)}
    found = SourcesFound().moved(many, many)
    assert set(found.silent) == set(found.unreadable) == {f"{n:05}" for n in range(MOST_KEPT)}


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "nothing",
        '{"silent":{}}',
        '{"silent":[],"unreadable":{}}',
        '{"silent":{"shop":1e999},"unreadable":{}}',
        '{"silent":{"shop":NaN},"unreadable":{}}',
    ],
)
def test_what_was_not_written_here_is_not_read(text: str) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        SourcesFound.from_json(text, 1)


def test_every_alarm_that_names_something_is_found_out_by_something() -> None:
    found = {**of_sources(SourcesFound()), **of_health({}, NOON_MS), **of_refusals({}, 1.0)}
    assert set(found) == NAMING == subjects.OF_SOURCES | subjects.OF_PROVIDERS
