"""The draft of a postmortem, and when one is written (001.13, 001.53, 001.61)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from functions.core.incident import POSTMORTEM_LENGTH, Contained
from functions.core.postmortem import FIELDS, MOST_ENTRIES, PAGES, PLACEHOLDER, Entry, draft, missing
from tests.fakes import NOON_MS
from tests.incidents import DOWN, STORM, by_hand, fired

ENTRIES = [
    Entry(NOON_MS + 1_000, "switch auto_reply", "ada", "on → off"),
    Entry(NOON_MS, "incident opened", "", "A provider\nis down"),
]


def written(text: str) -> str:
    return text.replace(PLACEHOLDER, "the cause")


def test_a_draft_has_the_ten_fields_of_the_runbook_and_all_that_is_known() -> None:
    incident, _ = fired(STORM)
    done = Contained("auto_reply", "off", "reply-storm", NOON_MS, is_done=True)
    incident = replace(incident, impact="doubled replies", scope="acme", mitigation="replies off", contained=(done,))
    said = draft(incident, ENTRIES)
    assert [line[3:] for line in said.splitlines() if line.startswith("## ")] == [*FIELDS, PAGES]
    lines = said.splitlines()
    for line in (
        "# Postmortem: More replies than questions",
        f"{incident.incident_id}, SEV0, open",
        "Alarms: reply-storm",
        "- 2026-01-01 00:00:00Z incident opened: A provider is down",
        "- 2026-01-01 00:00:01Z switch auto_reply, ada: on → off",
        "doubled replies; acme",
        "The first alarm fired at 2026-01-01 00:00:00Z; it was opened at 2026-01-01 00:00:00Z.",
        "- auto_reply was set to off by itself",
        "- replies off",
        f"incident_lead: {PLACEHOLDER}",
        "- docs/runbooks/alarms.md#reply-storm",
    ):
        assert line in lines, line


def test_what_no_alarm_told_of_is_said_and_what_is_not_known_is_left_to_a_person() -> None:
    incident, _ = by_hand()
    failed = Contained("auto_reply", "off", "x", NOON_MS)
    said = draft(replace(incident, contained=(failed,)), [])
    assert "No alarm told of it: ada opened it at 2026-01-01 00:00:00Z." in said
    assert "- auto_reply should have been set to off by itself" in said
    assert "- docs/runbooks/recovery.md" in said
    assert said.count(PLACEHOLDER) == 8
    alone, _ = fired(replace(DOWN, page=f"alarms.md#{DOWN.name}"))
    assert draft(alone, []).count(f"alarms.md#{DOWN.name}") == 1


def test_a_long_timeline_has_an_end() -> None:
    incident, _ = by_hand()
    said = draft(incident, [Entry(NOON_MS + n, "x", "", "y") for n in range(MOST_ENTRIES + 2)])
    assert "- and 2 more: the audit has them" in said


def test_a_draft_leaves_room_for_what_is_to_be_written() -> None:
    """Else whoever fills it in could not bring it back, and the incident would never close."""
    incident, _ = fired(STORM)
    said = draft(incident, [Entry(NOON_MS + n, "incident noted", "ada", "y" * 1_000) for n in range(MOST_ENTRIES)])
    assert len(said) < POSTMORTEM_LENGTH * 2 / 3
    lines = [line for line in said.splitlines() if "incident noted" in line]
    assert f"- and {MOST_ENTRIES - len(lines)} more: the audit has them" in said
    assert lines[0].endswith("y…")
    assert missing(written(said), incident.incident_id) == ()


def test_a_draft_that_is_written_out_is_a_postmortem_and_no_draft_is() -> None:
    incident, _ = fired(STORM)
    said = draft(incident, ENTRIES)
    assert missing(written(said), incident.incident_id) == ()
    assert "'Root cause' is not written" in missing(said, incident.incident_id)
    assert missing(written(said), "SEV1-other") == ("it is not that of SEV1-other",)
    assert missing("", "i") == (*(f"'{name}' is not there" for name in FIELDS), "it is not that of i")
    assert missing("x" * (POSTMORTEM_LENGTH + 1), "i") == (f"it is longer than {POSTMORTEM_LENGTH} characters",)


@pytest.mark.parametrize("name", FIELDS)
def test_each_of_its_fields_has_to_be_there_and_to_say_something(name: str) -> None:
    incident, _ = fired(STORM)
    whole = written(draft(incident, ENTRIES))
    assert f"'{name}' is not there" in missing(whole.replace(f"## {name}\n", ""), incident.incident_id)
    before, _, after = whole.partition(f"## {name}\n")
    empty = f"{before}## {name}\n\n## {after.partition('## ')[2]}"
    assert f"'{name}' is not written" in missing(empty, incident.incident_id)
