"""Who may be contacted on which channel (000.8, 003.20)."""

from __future__ import annotations

import pytest

from functions.core.gate import Standing
from functions.core.integration import Rate
from functions.core.recipient import Person, standing_on

REACHABLE = Person(consent={"sms": True}, contacts={"sms": "+15550100"})


@pytest.mark.parametrize(
    ("person", "channel", "standing"),
    [
        (Person(), "", Standing.ALLOWED),
        (Person(consent={"": False}), "", Standing.NO_CONSENT),
        (Person(), "sms", Standing.NO_CONSENT),
        (Person(consent={"sms": True}), "sms", Standing.NO_CONSENT),
        (Person(contacts={"sms": "+15550100"}), "sms", Standing.NO_CONSENT),
        (REACHABLE, "sms", Standing.ALLOWED),
        (REACHABLE, "email", Standing.NO_CONSENT),
        (Person(opted_out=True, consent={"sms": True}, contacts={"sms": "+15550100"}), "sms", Standing.SUPPRESSED),
        (Person(opted_out=True), "", Standing.SUPPRESSED),
        (Person(consent={"sms": True}, contacts={"sms": "1"}, blocked=frozenset({"sms"})), "sms", Standing.SUPPRESSED),
        (Person(blocked=frozenset({"sms"})), "", Standing.ALLOWED),
        (Person(is_readable=False), "", Standing.UNKNOWN),
    ],
)
def test_a_person_is_reached_only_where_they_agreed_and_have_not_opted_out(
    person: Person, channel: str, standing: Standing
) -> None:
    assert standing_on(person, channel) is standing


def test_a_contact_is_in_no_text_about_a_person() -> None:
    assert "+15550100" not in repr(REACHABLE)


@pytest.mark.parametrize(("per_second", "burst"), [(0.0, 1), (-1.0, 1), (float("nan"), 1), (1.0, 0)])
def test_a_rate_that_allows_nothing_is_refused(per_second: float, burst: int) -> None:
    with pytest.raises(ValueError, match="allows something"):
        Rate(per_second, burst)
