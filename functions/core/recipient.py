"""A person we may contact, by a name that says nothing about them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from functions.core.event import digest
from functions.core.gate import Standing

_PHONE = re.compile(r"\+?[0-9][0-9 ().\-/]{5,30}\Z")
PSEUDONYM_LENGTH = 32


def recipient_of(tenant: str, contact: str) -> str:
    """The pseudonym of whoever has this address, phone number or id at that tenant; empty for an empty contact.

    Spelling does not make another person: case, spaces around, and the punctuation of phone numbers do not count.
    128 bits of a SHA-256, in hexadecimal: as short as a stored decision needs and long enough never to meet another.
    """
    spelled = _spelled(contact)
    return digest("recipient", tenant, spelled)[:PSEUDONYM_LENGTH] if spelled else ""


def _spelled(contact: str) -> str:
    """One spelling for all of a contact."""
    spelled = unicodedata.normalize("NFKC", contact).strip().casefold()
    if _PHONE.match(spelled):
        spelled = "".join(character for character in spelled if character in "+0123456789")
    return spelled


@dataclass(frozen=True, slots=True)
class Person:
    """What is known of a recipient.

    `opted_out` counts on every channel and wins over everything; `blocked` names the channels whose contact is wrong,
    and counts there alone (requirements.md: "opt-out"). `consent` and `contacts` are by channel. A contact stands
    nowhere else, and in no text that is logged.

    `wrong` holds, by channel, the hashes of contacts that reach somebody else: `blocked` follows from them, so that a
    corrected contact is free again. `contact_since_ms` is since when a channel's contact is what it is. `version` is 0
    for a person whom nobody has written down.
    """

    opted_out: bool = False
    consent: Mapping[str, bool] = field(default_factory=dict)
    contacts: Mapping[str, str] = field(default_factory=dict, repr=False)
    blocked: frozenset[str] = frozenset()
    is_readable: bool = True
    wrong: Mapping[str, frozenset[str]] = field(default_factory=dict)
    contact_since_ms: Mapping[str, int] = field(default_factory=dict)
    version: int = 0
    updated_at_ms: int = 0


def standing_on(person: Person, channel: str) -> Standing:
    """Whether they may be contacted on that channel.

    Where a channel needs a contact of theirs, it also needs their consent, and nobody has given it by saying nothing
    (register 000.8: "no consent" is the default). A conversation that they began (channel empty) needs neither.
    """
    if not person.is_readable:
        return Standing.UNKNOWN
    if person.opted_out or channel in person.blocked:
        return Standing.SUPPRESSED
    if not channel:
        return Standing.NO_CONSENT if person.consent.get("", True) is False else Standing.ALLOWED
    if not person.consent.get(channel, False) or not person.contacts.get(channel):
        return Standing.NO_CONSENT
    return Standing.ALLOWED


def contact_hash(tenant: str, channel: str, contact: str) -> str:
    """What stands for a contact where it may not stand itself: in the audit, and in the list of wrong ones.

    Of another kind than the pseudonym: that a person has this pseudonym does not tell that this is their number.
    """
    return digest("contact", tenant, channel, _spelled(contact))[:PSEUDONYM_LENGTH]


def blocked_of(tenant: str, contacts: Mapping[str, str], wrong: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The channels whose present contact is one of the wrong ones."""
    return frozenset(
        channel
        for channel, contact in contacts.items()
        if contact_hash(tenant, channel, contact) in wrong.get(channel, frozenset())
    )
