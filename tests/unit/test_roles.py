"""Who does what, and when people are at work: the catalog's `roles.toml` (000.30, 001.1, 001.7)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from functions.catalog.loader import HERE, MalformedCatalog
from functions.catalog.roles import FILE, load_roles
from functions.core.alarms import ALARMS, Sev
from tests.fakes import NOON_MS


def test_the_cto_leads_and_is_paged_first_the_ceo_speaks_for_us_and_comes_second() -> None:
    roles = load_roles()
    assert (roles.roles[roles.primary].title, roles.roles[roles.secondary].title) == ("CTO", "CEO")
    rules = roles.rules(1 / 60)
    assert (rules.lead, rules.communications, rules.scale) == ("incident_lead", "communications", 1 / 60)


def test_every_owner_of_an_alarm_is_a_role() -> None:
    assert {alarm.owner for alarm in ALARMS} <= set(load_roles().roles)


def test_a_ticket_of_new_year_is_due_on_the_next_working_day() -> None:
    """2026-01-01 is a Thursday and no holiday of the file: one in the past."""
    due_ms = load_roles().rules(1.0).acknowledge_due(Sev.SEV3, NOON_MS)
    assert due_ms == NOON_MS + 16 * 3_600_000  # five in the afternoon in Berlin


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('primary = "incident_lead"', 'primary = "nobody"', "is no role"),
        ('zone = "Europe/Berlin"', 'zone = "Europe/Atlantis"', "is no time zone"),
        ('zone = "Europe/Berlin"', 'zone = "../x"', "is no time zone"),
        ("ends = 17:00:00", "ends = 08:00:00", "ends before it begins"),
        ('workdays = ["mon"', 'workdays = ["monday"', "workdays"),
        ("[calendar]", "[calendar]\nlunch = true", "lunch"),
    ],
)
def test_a_file_that_says_nonsense_is_refused(tmp_path: Path, old: str, new: str, problem: str) -> None:
    text = (HERE / FILE).read_text()
    assert old in text
    shutil.copy(HERE / FILE, tmp_path / FILE)
    (tmp_path / FILE).write_text(text.replace(old, new, 1))
    with pytest.raises(MalformedCatalog, match=problem):
        load_roles(tmp_path)
