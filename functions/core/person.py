"""Changes of what is known of a recipient, each with its line for the audit. Pure; `ports.Recipients` stores them.

Who opted out is reached on no channel, whatever else is known; a wrong number is blocked as that number, so that a
corrected one is free (requirements.md: "opt-out"). A change that would change nothing is none, and leaves no line.
Neither states nor reasons of the audit hold a contact: hashes stand for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from functions.core.audit import AuditEvent, AuditType, Severity
from functions.core.compact import compact
from functions.core.recipient import Person, blocked_of, contact_hash

ENTITY = "recipient"
OPTED_OUT_THERE = "RECIPIENT_OPTED_OUT"  # code of a failure: the provider refuses because they told it to stop
MAX_WRONG = 20  # per channel: nobody has so many numbers, and the record stays one write unit or two


class TooManyWrong(ValueError):
    """So many contacts of one channel are marked as wrong already that the record would grow without end."""


@dataclass(frozen=True, slots=True)
class Note:
    """Who changes something, when and why. `id` makes a repeat of the same write the same audit event."""

    id: str
    at_ms: int
    actor: str
    reason: str
    request_id: str
    origin_request_id: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class PersonChange:
    """What a person's record becomes. The write needs the version of `before` still to be there."""

    tenant: str
    recipient: str
    before: Person
    after: Person
    audit: AuditEvent


@dataclass(frozen=True, slots=True)
class Known:
    """A person with the name they are known by."""

    tenant: str
    recipient: str
    person: Person

    def opt_out(self, note: Note) -> PersonChange | None:
        """No contact at all, from now on."""
        return self._changed(replace(self.person, opted_out=True), note)

    def opt_in(self, note: Note) -> PersonChange | None:
        """Take an opt-out back. What they consented to before counts again, and nothing else."""
        return self._changed(replace(self.person, opted_out=False), note)

    def set_consent(self, channel: str, *, is_given: bool, note: Note) -> PersonChange | None:
        """What they said about one channel; the empty one is the conversation that they began."""
        return self._changed(replace(self.person, consent={**self.person.consent, channel: is_given}), note)

    def set_contact(self, channel: str, contact: str, note: Note) -> PersonChange | None:
        """Where they are reached on a channel. An empty contact is none."""
        contacts = {name: text for name, text in self.person.contacts.items() if name != channel}
        if contact:
            contacts[channel] = contact
        if contacts == self.person.contacts:
            return None
        since = {**self.person.contact_since_ms, channel: note.at_ms}
        return self._changed(replace(self.person, contacts=contacts, contact_since_ms=since), note)

    def block_contact(self, channel: str, contact: str, note: Note) -> PersonChange | None:
        """This contact reaches somebody else: it is not used any more. Raises `TooManyWrong`."""
        known = self.person.wrong.get(channel, frozenset())
        hashes = known | {contact_hash(self.tenant, channel, contact)}
        if len(hashes) > max(MAX_WRONG, len(known)):
            raise TooManyWrong(f"{len(known)} contacts are marked as wrong on {channel} already")
        return self._changed(replace(self.person, wrong={**self.person.wrong, channel: hashes}), note)

    def restore_contact(self, channel: str, contact: str, note: Note) -> PersonChange | None:
        """It is theirs after all."""
        hashes = self.person.wrong.get(channel, frozenset()) - {contact_hash(self.tenant, channel, contact)}
        wrong = {name: several for name, several in self.person.wrong.items() if name != channel}
        if hashes:
            wrong[channel] = hashes
        return self._changed(replace(self.person, wrong=wrong), note)

    def _changed(self, after: Person, note: Note) -> PersonChange | None:
        before = self.person
        if not before.is_readable:
            raise ValueError("a record that cannot be read is mended by hand, not changed")
        after = replace(after, blocked=blocked_of(self.tenant, after.contacts, after.wrong))
        if after == before:
            return None
        after = replace(after, version=before.version + 1, updated_at_ms=note.at_ms)
        event = AuditEvent(
            id=note.id,
            at_ms=note.at_ms,
            event_type=AuditType.RECIPIENT_CHANGED,
            severity=Severity.WARNING,
            tenant=self.tenant,
            actor=note.actor,
            affected_entity=ENTITY,
            affected_id=self.recipient,
            request_id=note.request_id,
            origin_request_id=note.origin_request_id,
            traceparent=note.traceparent,
            before_state=state_of(self.tenant, before),
            after_state=state_of(self.tenant, after),
            reason=note.reason,
        )
        return PersonChange(self.tenant, self.recipient, before, after, event)


def state_of(tenant: str, person: Person) -> str:
    """A person's record as the audit has it: hashes where contacts are."""
    if not person.version:
        return ""
    state: Mapping[str, object] = {
        "version": person.version,
        "opted_out": person.opted_out,
        "consent": dict(person.consent),
        "contacts": {channel: contact_hash(tenant, channel, text) for channel, text in person.contacts.items()},
        "wrong": {channel: sorted(hashes) for channel, hashes in person.wrong.items()},
        "blocked": sorted(person.blocked),
    }
    return compact(state)
