"""What changes of a person's record, and what of it is on record (000.8, 003.2, 003.3, 003.20)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from functions.core.audit import AuditType
from functions.core.gate import Standing
from functions.core.person import MAX_WRONG, Known, Note, PersonChange, TooManyWrong, state_of
from functions.core.recipient import Person, contact_hash, recipient_of, standing_on
from tests.fakes import NOON_MS

NUMBER, OTHER = "+491701234567", "+491707654321"
NOTE = Note("note-1", NOON_MS, "anna", "they told us on the phone", "req-1")


def known(person: Person | None = None) -> Known:
    return Known("acme", "p-1", Person() if person is None else person)


def made(change: PersonChange | None) -> Person:
    assert change is not None
    assert change.after.version == change.before.version + 1
    assert change.after.updated_at_ms == NOON_MS
    return change.after


def reachable() -> Person:
    person = made(known().set_contact("sms", NUMBER, NOTE))
    person = made(known(person).set_contact("email", "ann@example.com", NOTE))
    return replace(person, consent={"sms": True, "email": True})


def test_an_opt_out_closes_every_channel_whatever_they_consented_to() -> None:
    after = made(known(reachable()).opt_out(NOTE))
    assert {standing_on(after, channel) for channel in ("", "sms", "email")} == {Standing.SUPPRESSED}


def test_an_opt_in_brings_back_what_was_consented_to_and_no_more() -> None:
    before = replace(reachable(), consent={"sms": True})
    after = made(known(made(known(before).opt_out(NOTE))).opt_in(NOTE))
    assert [standing_on(after, channel) for channel in ("", "sms", "email")] == [
        Standing.ALLOWED,
        Standing.ALLOWED,
        Standing.NO_CONSENT,
    ]


@pytest.mark.parametrize("channel", ["sms", "email", ""])
def test_consent_is_by_channel(channel: str) -> None:
    after = made(known(reachable()).set_consent(channel, is_given=False, note=NOTE))
    assert standing_on(after, channel) is Standing.NO_CONSENT
    others = {"sms", "email", ""} - {channel}
    assert {standing_on(after, other) for other in others} == {Standing.ALLOWED}


def test_a_wrong_number_is_blocked_as_that_number_and_a_corrected_one_is_free_again() -> None:
    """003.2"""
    blocked = made(known(reachable()).block_contact("sms", NUMBER, NOTE))
    assert standing_on(blocked, "sms") is Standing.SUPPRESSED
    assert standing_on(blocked, "email") is standing_on(blocked, "") is Standing.ALLOWED
    corrected = made(known(blocked).set_contact("sms", OTHER, NOTE))
    assert standing_on(corrected, "sms") is Standing.ALLOWED
    assert corrected.contact_since_ms["sms"] == NOON_MS
    back = made(known(corrected).set_contact("sms", NUMBER, NOTE))
    assert standing_on(back, "sms") is Standing.SUPPRESSED


def test_spelling_does_not_free_a_wrong_number() -> None:
    blocked = made(known(reachable()).block_contact("sms", "+49 (170) 123-4567", NOTE))
    assert blocked.blocked == frozenset({"sms"})


def test_a_number_that_was_right_after_all_is_restored() -> None:
    blocked = made(known(reachable()).block_contact("sms", NUMBER, NOTE))
    two = made(known(blocked).block_contact("sms", OTHER, NOTE))
    one = made(known(two).restore_contact("sms", NUMBER, NOTE))
    assert standing_on(one, "sms") is Standing.ALLOWED
    assert one.wrong == {"sms": frozenset({contact_hash("acme", "sms", OTHER)})}
    none = made(known(one).restore_contact("sms", OTHER, NOTE))
    assert none.wrong == {}


def test_a_contact_can_be_taken_away() -> None:
    after = made(known(reachable()).set_contact("sms", "", NOTE))
    assert standing_on(after, "sms") is Standing.NO_CONSENT
    assert set(after.contacts) == {"email"}


def test_what_changes_nothing_is_no_change() -> None:
    person = known(reachable())
    opted_out = known(replace(reachable(), opted_out=True))
    assert [
        person.opt_in(NOTE),
        opted_out.opt_out(NOTE),
        person.set_consent("sms", is_given=True, note=NOTE),
        person.set_contact("sms", NUMBER, NOTE),
        person.set_contact("fax", "", NOTE),
        person.restore_contact("sms", NUMBER, NOTE),
    ] == [None] * 6


def test_a_record_does_not_grow_without_end() -> None:
    person = reachable()
    for number in range(MAX_WRONG):
        person = made(known(person).block_contact("sms", f"+49170{number:07d}", NOTE))
    with pytest.raises(TooManyWrong):
        known(person).block_contact("sms", NUMBER, NOTE)
    assert known(person).block_contact("sms", "+491700000000", NOTE) is None


def test_a_record_that_cannot_be_read_is_not_written_over() -> None:
    with pytest.raises(ValueError, match="by hand"):
        known(Person(is_readable=False)).opt_out(NOTE)


def test_the_audit_says_who_why_and_what_and_holds_no_contact() -> None:
    change = known(reachable()).block_contact("sms", NUMBER, replace(NOTE, origin_request_id="o", traceparent="t"))
    assert change is not None
    event = change.audit
    assert (event.event_type, event.entity, event.tenant) == (AuditType.RECIPIENT_CHANGED, "recipient#p-1", "acme")
    assert (event.actor, event.reason, event.request_id) == ("anna", NOTE.reason, "req-1")
    assert (event.id, event.at_ms, event.origin_request_id, event.traceparent) == ("note-1", NOON_MS, "o", "t")
    before, after = (json.loads(text) for text in (event.before_state, event.after_state))
    hashed = contact_hash("acme", "sms", NUMBER)
    assert before["contacts"]["sms"] == after["contacts"]["sms"] == hashed
    assert (before["blocked"], after["blocked"], after["wrong"]) == ([], ["sms"], {"sms": [hashed]})
    assert NUMBER not in repr(change)
    assert "ann@example.com" not in repr(change)


def test_of_a_person_nobody_had_written_down_the_audit_has_no_state_before() -> None:
    change = known().opt_out(NOTE)
    assert change is not None
    assert change.audit.before_state == ""
    assert state_of("acme", Person()) == ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("acme", "sms", NUMBER), ("other", "sms", NUMBER)),
        (("acme", "sms", NUMBER), ("acme", "email", NUMBER)),
        (("acme", "sms", NUMBER), ("acme", "sms", OTHER)),
    ],
)
def test_a_contacts_hash_is_of_one_tenant_channel_and_contact(one: Any, other: Any) -> None:
    assert contact_hash(*one) != contact_hash(*other)
    assert contact_hash(*one) != recipient_of("acme", NUMBER)
