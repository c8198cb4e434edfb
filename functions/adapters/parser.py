"""The parser-only mode as a `Provider`: `parser.parse` reads a document in plain text by rules and stores its fields.

`target` is the document's name. What was read lies at `parsed/{tenant}/{document}.json` and waits there for a person to
confirm it; that reference is the effect's id. The same document gives the same bytes in the same place, so doing it
again changes nothing. It calls nobody, and needs no parameter.
"""

from __future__ import annotations

import asyncio

from functions.adapters.documents import document_of, storage_failed, unusable
from functions.core.decision import Action
from functions.core.failure import Done, Failure, StorageUnavailable
from functions.core.parser import parse, text_of
from functions.core.ports import Absent, Call, Documents, SettingState

PARSE = "parser.parse"


class ParserProvider:
    """Implements `functions.core.ports.Provider`."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def send(self, action: Action, call: Call) -> Done | Failure:
        """Read the document and store its fields. What holds none that we know is for a person to enter."""
        if action.kind != PARSE:
            return unusable("KIND_UNKNOWN", f"there is no way to do {action.kind} here")
        content = await document_of(self._documents, action, call)
        if isinstance(content, Failure):
            return content
        text = text_of(content)
        if text is None:
            return unusable("DOCUMENT_NOT_TEXT", "the document is not plain text: its fields are entered by hand")
        parsed = await asyncio.to_thread(parse, text)  # other calls of the batch have deadlines
        if parsed.is_empty:
            return unusable("NO_FIELDS", "the rules found no field: they are entered by hand")
        stored = parsed.to_json().encode()
        try:
            return Done(await asyncio.to_thread(self._documents.store_parsed, call.tenant, action.target, stored))
        except StorageUnavailable as exc:
            return storage_failed(exc)

    async def look_up(self, action: Action, call: Call) -> Done | Absent | Failure:  # noqa: ARG002  # the port's
        """An idempotent kind is done again, never looked up."""
        return unusable("KIND_UNKNOWN", f"{action.kind} is not looked up")

    async def read_setting(self, action: Action, call: Call) -> SettingState | Failure:  # noqa: ARG002  # the port's
        """No kind is a `setting`."""
        return unusable("KIND_UNKNOWN", f"{action.kind} is not read before it is done")

    def wanted(self, action: Action) -> str:  # noqa: ARG002  # the port's
        """Empty: see `read_setting`."""
        return ""

    def refresh_credential(self) -> str:
        """There is none."""
        return ""
