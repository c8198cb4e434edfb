"""A person we may contact, by a name that says nothing about them."""

from __future__ import annotations

import re
import unicodedata

from functions.core.event import digest

_PHONE = re.compile(r"\+?[0-9][0-9 ().\-/]{5,30}\Z")
PSEUDONYM_LENGTH = 32


def recipient_of(tenant: str, contact: str) -> str:
    """The pseudonym of whoever has this address, phone number or id at that tenant; empty for an empty contact.

    Spelling does not make another person: case, spaces around, and the punctuation of phone numbers do not count.
    128 bits of a SHA-256, in hexadecimal: as short as a stored decision needs and long enough never to meet another.
    """
    spelled = unicodedata.normalize("NFKC", contact).strip().casefold()
    if not spelled:
        return ""
    if _PHONE.match(spelled):
        spelled = "".join(character for character in spelled if character in "+0123456789")
    return digest("recipient", tenant, spelled)[:PSEUDONYM_LENGTH]
