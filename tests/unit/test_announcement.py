"""What people are told: approved texts, no provider's name, no promise that nobody keeps (000.26, 001.12, 001.41,
001.51, 001.52, 001.59).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from functions.catalog.announcements import FILE, load_announcements
from functions.catalog.loader import HERE, MalformedCatalog, load
from functions.core.alarms import Sev
from functions.core.announcement import NoSuchText, Template, newest, values_of, window_of
from tests.fakes import NOON_MS
from tests.incidents import by_hand

DELAY = Template("delay", 1, "employers", "A delay in {feature}, {window}.", "A delay in {feature}.", "done", "ceo")


def test_a_text_says_how_long_where_somebody_knows_000_26() -> None:
    assert DELAY.render({"feature": "search", "window": "within 2 hours"}) == "A delay in search, within 2 hours."
    assert DELAY.render({"feature": "search"}) == "A delay in search."
    assert replace(DELAY, text_without_window="").params == {"feature", "window"}
    with pytest.raises(NoSuchText, match="needs feature"):
        DELAY.render({})
    with pytest.raises(NoSuchText, match="needs window"):
        replace(DELAY, text_without_window="").render({"feature": "search"})


def test_the_newest_approved_version_goes_out_001_59() -> None:
    texts = {("delay", n): replace(DELAY, version=n, approved_by="ceo" if n < 3 else "") for n in (1, 2, 3)}
    assert newest(texts, "delay").version == 2
    with pytest.raises(NoSuchText, match="there are delay"):
        newest(texts, "other")


def test_an_update_for_our_own_people_says_what_runbook_001_asks_001_51() -> None:
    incident, _ = by_hand(Sev.SEV1)
    template = newest(load_announcements(), "internal_update")
    assert template.is_internal
    said = template.render(values_of(incident))
    for line in (
        f"Incident ID: {incident.incident_id}",
        "Severity: SEV1",
        "Impact: not known yet",
        "Current mitigation: none yet",
        "Next update: 2026-01-01 00:30:00Z",
        "Owner: incident_lead",
    ):
        assert line in said
    bare = replace(incident, next_update_ms=0, lead="", impact="late", mitigation="rules route")
    said = template.render(values_of(bare))
    assert ("none is planned" in said, "Owner: nobody" in said, "Impact: late" in said) == (True, True, True)


@pytest.mark.parametrize(
    ("minutes", "said"),
    [
        (0, ""),
        (1, "within 1 minute"),
        (30, "within 30 minutes"),
        (60, "within 1 hour"),
        (61, "within 2 hours"),
        (1440, "within 1 day"),
        (3000, "within 3 days"),
    ],
)
def test_how_long_it_takes_is_said_in_words_and_never_too_short(minutes: int, said: str) -> None:
    assert window_of(minutes) == said


@pytest.mark.parametrize("feature", list(load().features))
def test_every_text_for_people_outside_can_be_made_out_for_every_feature(feature: str) -> None:
    values = {"feature": load().features[feature].name, "window": "within 2 hours"}
    for template in load_announcements().values():
        if not template.is_internal:
            assert values["feature"] in template.render(values)
            assert "{" not in template.render({"feature": values["feature"]})


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("Your existing data is safe.", "Twilio is down.", "names the provider 'twilio'"),
        ("Your progress has been saved,", "Please retry,", "asks people to retry"),
        ('promises = "employer_done"\n', "", "promises to notify people"),
        ('promises = "employer_done"\n', 'promises = "nothing"\n', "promises a text that there is not"),
        ('approved_by = "communications"\n', 'approved_by = "nobody"\n', "is approved by what is no role"),
        ('approved_by = "communications"\n', "", "is approved by somebody on some day"),
        ("delay in {feature}", "delay in {owner}", "may hold feature, window only"),
        ("{impact}", "{feature}", "only"),
        ('id = "candidate_done"', 'id = "candidate_issue"', "is there twice"),
        ('audience = "partners"', 'audience = "Partners"', "audience"),
    ],
)
def test_a_file_with_a_text_that_may_not_go_out_is_refused(tmp_path: Path, old: str, new: str, problem: str) -> None:
    text = (HERE / FILE).read_text()
    assert old in text
    (tmp_path / FILE).write_text(text.replace(old, new, 1))
    with pytest.raises(MalformedCatalog, match=problem):
        load_announcements(tmp_path)


def test_a_text_that_nobody_has_approved_is_kept_and_does_not_go_out(tmp_path: Path) -> None:
    text = (HERE / FILE).read_text()
    unapproved = text.replace('approved_by = "communications"\napproved_on = 2026-11-27\n', "", 1)
    (tmp_path / FILE).write_text(unapproved)
    with pytest.raises(NoSuchText):
        newest(load_announcements(tmp_path), "internal_update")


APPROVED = {
    "internal_update@1": "b62ed52befde7645",
    "employer_delay@1": "8e0a882048f3d3d9",
    "employer_done@1": "ba766d44c76a1ea3",
    "candidate_issue@1": "96e20682ec02488b",
    "candidate_done@1": "e87a3345c4b5b66a",
    "partner_outage@1": "a26439d93b1e6aea",
    "partner_outage@2": "ba7324db39052d0f",
    "partner_done@1": "7815329ccb4ec95e",
}
"""What was approved, by the words of that day. A new version gets a line of its own; none is changed or taken away."""


def test_what_was_approved_is_what_goes_out_001_59() -> None:
    """An incident names the version that went out: nobody edits one afterwards, or without another approval."""
    found = {
        f"{name}@{version}": hashlib.sha256(
            f"{one.audience}|{one.text}|{one.text_without_window}|{one.promises}".encode()
        ).hexdigest()[:16]
        for (name, version), one in load_announcements().items()
        if one.approved_by
    }
    assert found == APPROVED


def test_every_audience_outside_hears_that_it_began_for_how_long_and_that_it_is_over_000_26_001_41() -> None:
    texts = [one for one in load_announcements().values() if not one.is_internal]
    for audience in {one.audience for one in texts}:
        first = [one for one in texts if one.audience == audience and "window" in one.params]
        last = [one for one in texts if one.audience == audience and "window" not in one.params]
        assert first, audience
        assert last, audience
        assert all(one.text_without_window for one in first), "nobody knows how long, and it must go out all the same"
        assert {one.promises for one in first if one.promises} <= {one.id for one in last}


def test_moments_are_those_of_the_incident() -> None:
    incident, _ = by_hand(Sev.SEV2)
    assert values_of(replace(incident, next_update_ms=NOON_MS))["next_update"] == "2026-01-01 00:00:00Z"


@pytest.mark.parametrize("name", ["employer_delay", "candidate_issue", "partner_outage"])
def test_how_long_it_takes_is_said_as_it_is_known_and_in_a_sentence_000_26(name: str) -> None:
    """The words come from `--window`, or the feature's usual one; where neither is known nothing is promised."""
    template = newest(load_announcements(), name)
    for window in ("within 30 minutes", "within 2 hours", "within 1 day"):
        assert f"We expect it to be back {window}" in template.render({"feature": "Support", "window": window})
    unknown = template.render({"feature": "Support", "window": ""})
    assert ("expect" in unknown, "within" in unknown, "{" in unknown) == (False, False, False)
