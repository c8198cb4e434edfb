"""Reads the body of an event that tells of a message: JSON or a form, with pointers to what matters.

A source says by its `fields` where it keeps `conversation`, `text`, `subject`, `author`, `contact`, `staff` and
`metadata`; `{name}_else` is a second place for the same (a Slack message has a thread, or only its own timestamp).
What a source does not say is looked for where the helpdesk's own webhooks have it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from functions.core.event import Event
from functions.core.failure import RootCause
from functions.core.pointer import ABSENT, check_pointer, resolve, text_at
from functions.flows.flow import UnreadableEvent

MAX_CONVERSATION_LENGTH = 128  # the id stands in a stored decision, which has to stay small
MAX_FORM_FIELDS = 1000
_FORM = "application/x-www-form-urlencoded"
# The marker that our own effects bear, in a text or alone in a comment's metadata.
_MARKER = r"(?:\[hf[:_-][A-Za-z0-9_-]{6,80}\]|\bhf[_-][0-9a-f]{12,80}\b)"
_MARKER_AT_END = re.compile(_MARKER + r"\s*\Z")
_MARKER_ALONE = re.compile(r"\[?hf[:_-][A-Za-z0-9_-]{6,80}\]?\Z")


def document_of(event: Event) -> object:
    """The body as a document. Raises `UnreadableEvent`.

    A form is an object of texts (the first of a name, as ingress reads it), or the JSON object that its field `payload`
    holds.
    """
    try:
        text = event.body.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise UnreadableEvent(RootCause.BAD_SOURCE_DATA, "the body is not UTF-8") from exc
    if event.content_type.partition(";")[0].strip().lower() != _FORM:
        return _json(text)
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS)
    except ValueError as exc:
        raise UnreadableEvent(RootCause.BAD_SOURCE_DATA, f"the form has over {MAX_FORM_FIELDS} fields") from exc
    form = dict(reversed(pairs))
    payload = form.get("payload", "")
    return _json(payload) if payload.lstrip().startswith("{") else form


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise UnreadableEvent(RootCause.BAD_SOURCE_DATA, "the body is not JSON") from exc


@dataclass(frozen=True, slots=True)
class Reader:
    """One event's document, and where to look in it."""

    document: object
    fields: Mapping[str, str]
    defaults: Mapping[str, tuple[str, ...]]

    @staticmethod
    def of(event: Event, defaults: Mapping[str, tuple[str, ...]]) -> Reader:
        """Read the body. Raises `UnreadableEvent`."""
        for name, pointer in event.fields.items():
            try:
                check_pointer(pointer)
            except ValueError as exc:
                raise UnreadableEvent(RootCause.SCHEMA_MISMATCH, f"the source's field {name[:40]}: {exc}") from exc
        return Reader(document_of(event), event.fields, defaults)

    def places(self, name: str) -> tuple[str, ...]:
        """The pointers to try: the source's own, and only without any the flow's."""
        own = tuple(self.fields[key] for key in (name, f"{name}_else") if key in self.fields)
        return own or self.defaults[name]

    def text(self, name: str) -> str | None:
        """The first text or number that is there; empty if what is there is empty or null; None if there is nothing."""
        found: str | None = None
        for pointer in self.places(name):
            value = text_at(self.document, pointer)
            if value:
                return value
            if resolve(self.document, pointer) in ("", None):
                found = ""
        return found

    def value(self, name: str) -> object:
        """The first thing of any type that is there, or `ABSENT`."""
        for pointer in self.places(name):
            value = resolve(self.document, pointer)
            if value is not ABSENT:
                return value
        return ABSENT

    def contact(self) -> str:
        """How the author can be reached, or at least told apart: what the source says, else what the helpdesk would."""
        if "contact" not in self.fields and ("author" in self.fields or "author_else" in self.fields):
            return self.text("author") or ""
        return self.text("contact") or self.text("author") or ""

    def conversation(self) -> str:
        """The conversation's id at the helpdesk, as it came. Raises `UnreadableEvent`."""
        found = self.text("conversation")
        if found is None:
            places = ", ".join(self.places("conversation"))
            raise UnreadableEvent(RootCause.SCHEMA_MISMATCH, f"no conversation id at {places}")
        is_id = found.isprintable() and found == found.strip() and bool(found.strip("."))  # '..' is a path, not an id
        if not is_id or len(found) > MAX_CONVERSATION_LENGTH:
            raise UnreadableEvent(RootCause.BAD_SOURCE_DATA, "the conversation id is empty, too long or no id")
        return found

    def bears_our_metadata(self) -> bool:
        """Whether the metadata holds the marker of one of our effects."""
        metadata = self.value("metadata")
        if not isinstance(metadata, dict):
            return False
        return any(isinstance(value, str) and _MARKER_ALONE.match(value) is not None for value in metadata.values())


def ends_with_marker(text: str) -> bool:
    """Whether the text ends as ours do. One further up is a quotation."""
    return _MARKER_AT_END.search(text) is not None
