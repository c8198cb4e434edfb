"""Where documents that people gave lie in the bucket, and what was read from them.

Names come from senders: whatever they say, a name stays within its tenant's folder.
"""

from __future__ import annotations

import re

DOCUMENTS = "documents/"  # of the bucket: files as they were given
PARSED = "parsed/"  # of the bucket: what was read from them, as JSON
MAX_DOCUMENT_BYTES = 4_000_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_TENANT = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


def is_document(tenant: str, name: str) -> bool:
    """Whether a document can have that name: letters, digits, dots, underscores and hyphens, in one piece."""
    return bool(_TENANT.match(tenant)) and bool(_NAME.match(name))


def document_key(tenant: str, name: str) -> str:
    """Where the document lies. Raises ValueError for a name that is none."""
    return f"{DOCUMENTS}{_checked(tenant, name)}"


def parsed_key(tenant: str, name: str) -> str:
    """Where what was read from the document lies. Raises ValueError for a name that is none."""
    return f"{PARSED}{_checked(tenant, name)}.json"


def _checked(tenant: str, name: str) -> str:
    if not is_document(tenant, name):
        raise ValueError("that is no name of a document")
    return f"{tenant}/{name}"
