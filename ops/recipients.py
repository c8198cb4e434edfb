"""Recipients as operators keep them: read, changed with a line in the audit, and shown without what is personal.

A contact comes from a file or from standard input, is stored in the recipients table and is shown masked. A change and
its audit event are one transaction: without the audit there is no change.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from botocore.exceptions import BotoCoreError

from functions.adapters.recipients import CONVERSATION, DynamoRecipients
from functions.adapters.ses import is_address
from functions.core.audit import unfit_reason
from functions.core.clock import Clock, Ids
from functions.core.event import NAME
from functions.core.failure import HoldfastError, StorageUnavailable, VersionConflict
from functions.core.person import ENTITY, Known, Note, PersonChange, TooManyWrong
from functions.core.recipient import Person, contact_hash, recipient_of, standing_on
from ops.records import Item, plain
from ops.stack import Stack

MAX_CONTACT_LENGTH: Final = 254
_PSEUDONYM = re.compile(r"[0-9a-f]{32}\Z")
_REGION = re.compile(r"[A-Z]{2}\Z")
# An address, or a number as people write one: the audit may hold neither.
_PERSONAL = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+|(?:\+|\b00|\b0(?=[1-9]))[0-9][0-9 ()./-]{5,}[0-9]")

Decide = Callable[[Known, Note], PersonChange | None]


class Channel(StrEnum):
    """A way to people. `conversation` is the one that they began, which needs no contact of theirs."""

    SMS = "sms"
    EMAIL = "email"
    CONVERSATION = CONVERSATION

    @property
    def key(self) -> str:
        """As core names it."""
        return "" if self is Channel.CONVERSATION else self.value


class RecipientTrouble(HoldfastError):
    """A recipient cannot be read or changed as asked. The text quotes no contact. `is_unreachable`: nobody answered."""

    def __init__(self, text: str, *, is_unreachable: bool = False) -> None:
        super().__init__(text)
        self.is_unreachable = is_unreachable


# ------------------------------------------------------------------------------------------------------ what is given


def check_tenant(tenant: str) -> str:
    """A tenant's id. Raises `RecipientTrouble`."""
    if not NAME.match(tenant):
        raise RecipientTrouble("--tenant is letters, digits, _ and -, 64 at most")
    return tenant


def check_pseudonym(recipient: str) -> str:
    """A recipient's pseudonym. Raises `RecipientTrouble`, without quoting what may be a number or an address."""
    if not _PSEUDONYM.match(recipient):
        raise RecipientTrouble(
            "--recipient is a pseudonym, 32 hexadecimal digits: a number or an address comes by --contact-file or "
            "--contact-stdin, since every argument is in the shell's history"
        )
    return recipient


def check_reason(reason: str) -> str:
    """Why something is changed. Raises `RecipientTrouble` for none, and for one that may not go on record."""
    wrong, text = unfit_reason(reason), reason.strip()
    if wrong is not None:
        raise RecipientTrouble(wrong)
    if _PERSONAL.search(text):
        raise RecipientTrouble(
            "the reason holds what looks like a number or an address: it goes on record, where none is"
        )
    return text


def given_contact(content: bytes) -> str:
    """One contact, as it came: a line of text. Raises `RecipientTrouble`, without quoting it."""
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise RecipientTrouble("the contact is not UTF-8 text") from None  # the cause quotes it
    if not text:
        raise RecipientTrouble("the contact is empty")
    if len(text) > MAX_CONTACT_LENGTH or not text.isprintable():
        raise RecipientTrouble(f"the contact is not one line of at most {MAX_CONTACT_LENGTH} characters")
    return text


def contact_on(channel: Channel, text: str, region: str) -> str:
    """The contact as it is stored and sent to: a number in E.164, an address as it is. Raises `RecipientTrouble`."""
    match channel:
        case Channel.SMS:
            return number_of(text, region)
        case Channel.EMAIL if is_address(text):
            return text
        case Channel.EMAIL:
            raise RecipientTrouble("the contact is not one plain email address")
        case Channel.CONVERSATION:
            raise RecipientTrouble("a conversation that they began needs no contact")


def number_of(text: str, region: str) -> str:
    """A phone number in E.164. `region` (DE, US, ...) is for one without its country. Raises `RecipientTrouble`."""
    import phonenumbers  # noqa: PLC0415  # every other command starts without it

    if region and not _REGION.match(region):
        raise RecipientTrouble("--region is a country's two letters, such as DE")
    try:
        number = phonenumbers.parse(text, region or None)
    except phonenumbers.NumberParseException:
        hint = "" if region else ": it begins with + and its country's code, or --region says the country"
        raise RecipientTrouble(f"the contact is no phone number{hint}") from None  # the cause may quote it
    if number.extension or not phonenumbers.is_possible_number(number):
        raise RecipientTrouble("the contact is no phone number that a text could be sent to")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


# -------------------------------------------------------------------------------------------------------- what is shown


def masked(channel: str, contact: str) -> str:
    """Enough of a contact to know it again, and too little to use it."""
    if channel == Channel.EMAIL:
        local, _, domain = contact.rpartition("@")
        return f"{local[:1]}…@{domain}"
    return f"{contact[:3]}…{contact[-2:]}"


def document_of(tenant: str, recipient: str, person: Person) -> dict[str, Any]:
    """What may be told of a person."""
    return {
        "tenant": tenant,
        "recipient": recipient,
        "known": person.version > 0 or person != Person(),
        "readable": person.is_readable,
        "opted_out": person.opted_out,
        "consent": {Channel(channel or CONVERSATION).value: given for channel, given in person.consent.items()}
        if person.consent.keys() <= {channel.key for channel in Channel}
        else dict(person.consent),
        "contacts": {
            channel: {
                "masked": masked(channel, contact),
                "hash": contact_hash(tenant, channel, contact),
                "since_ms": person.contact_since_ms.get(channel, 0),
                "wrong": channel in person.blocked,
            }
            for channel, contact in sorted(person.contacts.items())
        },
        "wrong_contacts": {channel: len(hashes) for channel, hashes in sorted(person.wrong.items())},
        "standing": {channel.value: standing_on(person, channel.key).value for channel in Channel},
        "version": person.version,
        "updated_at_ms": person.updated_at_ms,
    }


# ------------------------------------------------------------------------------------------------------------ the table


@dataclass(frozen=True, slots=True)
class StoredRecipients:
    """The recipients of one stage. `who` tells who changes something, as AWS knows the caller, before it is written."""

    stack: Stack
    clock: Clock
    ids: Ids
    who: Callable[[], str]

    def person(self, tenant: str, recipient: str) -> Person:
        """What is known of them. Raises `RecipientTrouble`."""
        try:
            return self._table().person(tenant, recipient)
        except StorageUnavailable as exc:
            raise _trouble("the recipient could not be read", exc) from exc

    def change(self, tenant: str, recipient: str, decide: Decide, reason: str) -> PersonChange | None:
        """Make the change that is decided on, or None where there is nothing to change. Raises `RecipientTrouble`."""
        person = self.person(tenant, recipient)
        if not person.is_readable:
            raise RecipientTrouble(
                "the entry cannot be read, so that nothing is sent to them: look at it in the recipients table, and "
                "mend it there"
            )
        note = Note(
            id=self.ids.new_id()[:24],
            at_ms=self.clock.now_ms(),
            actor=self.who(),
            reason=reason,
            request_id=self.ids.new_id(),
        )
        try:
            change = decide(Known(tenant, recipient, person), note)
            if change is not None:
                self._table().store(change)
        except TooManyWrong as exc:
            raise RecipientTrouble(f"{exc}: restore those that are right, or mend the entry") from exc
        except VersionConflict as exc:
            raise RecipientTrouble(
                "somebody changed the entry at the same time, and nothing was written: look at it, and say again what "
                "is to change"
            ) from exc
        except StorageUnavailable as exc:
            raise _trouble("the change and its record could not be written together; see whether it was", exc) from exc
        return change

    def history(self, tenant: str, recipient: str, limit: int) -> list[Item]:
        """The last audited changes, latest first."""
        found = self.stack.client("dynamodb").query(
            TableName=self.stack.output("AuditTable"),
            KeyConditionExpression="pk = :entity",
            ExpressionAttributeValues={":entity": {"S": f"{ENTITY}#{recipient}"}},
            ScanIndexForward=False,
            ConsistentRead=True,
            Limit=limit,
        )
        return [event for event in (plain(item) for item in found["Items"]) if event.get("tenant") == tenant]

    def _table(self) -> DynamoRecipients:
        return DynamoRecipients(
            self.stack.client("dynamodb"), self.stack.output("RecipientsTable"), self.stack.output("AuditTable")
        )


def pseudonym(tenant: str, contact: str) -> str:
    """Of whoever has this contact, as the flows make it."""
    return recipient_of(tenant, contact)


def _trouble(what: str, exc: StorageUnavailable) -> RecipientTrouble:
    return RecipientTrouble(f"{what} ({exc})", is_unreachable=isinstance(exc.__cause__, BotoCoreError))
