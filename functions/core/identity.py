"""What a redelivery repeats and another event does not (architecture §5, "Identity").

Forms of an identity, so made that no two of them can meet, whatever a sender chooses as its id:

    id                      as the sender gave it: at most 128 letters, digits and `._:-`
    ~h{64 hex digits}       hash of an id that is longer, has other characters, or consists of several parts
    {either}~c{32 hex}      the signature does not cover the id: a hash of what it does cover is part of the identity
    {any}~b{32 hex}         the id alone does not tell two events apart: a hash of the body's stable part as well
    ~w{64 hex digits}       the sender gives no id: hash of event name and body, good for the repeat window only
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from functions.core.compact import compact
from functions.core.event import digest
from functions.core.pointer import text_at, without
from functions.core.source import IdentityRule

_PLAIN = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._:/-]+")
MAX_EVENT_NAME_LENGTH = 128


@dataclass(frozen=True, slots=True)
class Identity:
    """`value` as above. `is_lasting` is False where it only holds for the repeat window."""

    value: str
    is_lasting: bool


def identity_of(
    rules: Sequence[IdentityRule],
    headers: Mapping[str, str],
    document: object,
    *,
    event_name: str,
    payload_hash: str,
    content_hash: str,
    is_signed_header: Callable[[str], bool],
) -> Identity:
    """The identity by the first rule that finds every one of its parts, else the hash of name and payload."""
    for rule in rules:
        tail = f"~b{payload_hash[:32]}" if rule.with_body else ""
        if rule.header:
            found = headers.get(rule.header, "").strip()
            if found:
                value = _written(found)
                if not is_signed_header(rule.header):
                    value = f"{value}~c{content_hash[:32]}"
                return Identity(value + tail, is_lasting=True)
            continue
        parts = [text_at(document, pointer) for pointer in rule.pointers]
        if all(parts):
            return Identity(_written(*parts) + tail, is_lasting=True)
    return Identity("~w" + digest(event_name, payload_hash), is_lasting=False)


def _written(*parts: str) -> str:
    if len(parts) == 1 and _PLAIN.match(parts[0]):
        return parts[0]
    return "~h" + digest(*parts)


def selected(selectors: Sequence[str], headers: Mapping[str, str], document: object) -> str:
    """The first selector's text that is not empty. A selector is `header:{name}` or a JSON pointer."""
    for selector in selectors:
        if selector.startswith("header:"):
            text = headers.get(selector.removeprefix("header:"), "").strip()
        else:
            text = text_at(document, selector)
        if text:
            return text
    return ""


def name_of(selectors: Sequence[str], detail: str, headers: Mapping[str, str], document: object) -> str:
    """An event's name or version: what the selectors find, with `.{detail}` behind it where there is one.

    Bounded and in the characters that queue attributes, log fields and metrics take; anything else becomes `_`.
    """
    name = selected(selectors, headers, document)
    more = selected((detail,), headers, document) if name and detail else ""
    full = f"{name}.{more}" if more else name
    return _NOT_IN_NAMES.sub("_", full)[:MAX_EVENT_NAME_LENGTH]


def payload_hash_of(body: bytes, document: object, unstable: Sequence[str]) -> str:
    """SHA-256 of what a redelivery repeats: the raw body, or the document without the provider's unstable members.

    A list is taken apart only where a pointer says so with `*`: the members of its every element.
    """
    if unstable and (
        isinstance(document, dict)
        or (isinstance(document, list) and any(pointer.startswith("/*") for pointer in unstable))
    ):
        stable = compact(without(document, unstable))
        return hashlib.sha256(stable.encode()).hexdigest()
    return hashlib.sha256(body).hexdigest()
