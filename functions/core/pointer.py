"""JSON pointers (RFC 6901) into documents that strangers sent."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_INDEX = re.compile(r"(?:0|[1-9][0-9]{0,8})\Z")
_BAD_ESCAPE = re.compile(r"~(?![01])")
MAX_POINTER_LENGTH: Final = 256


class Absent:
    """The type of `ABSENT`: what a pointer to nothing resolves to. `null` is something, so `None` cannot say it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent()


def check_pointer(pointer: str) -> str:
    """The pointer itself, when it is one. Raises `ValueError` saying what is wrong with it."""
    if pointer and not pointer.startswith("/"):
        raise ValueError("a JSON pointer starts with '/'")
    if len(pointer) > MAX_POINTER_LENGTH:
        raise ValueError(f"a JSON pointer is at most {MAX_POINTER_LENGTH} characters here")
    if _BAD_ESCAPE.search(pointer):
        raise ValueError("in a JSON pointer '~' is followed by 0 or 1")
    return pointer


def _tokens(pointer: str) -> list[str]:
    check_pointer(pointer)
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def resolve(document: object, pointer: str) -> object:
    """What the pointer leads to, or `ABSENT`. Raises `ValueError` for text that is no pointer."""
    here = document
    for token in _tokens(pointer):
        if isinstance(here, dict):
            here = here.get(token, ABSENT)
        elif isinstance(here, list) and _INDEX.match(token) and int(token) < len(here):
            here = here[int(token)]
        else:
            return ABSENT
    return here


def text_at(document: object, pointer: str) -> str:
    """The text or whole number the pointer leads to, as text; empty for anything else, or nothing."""
    value = resolve(document, pointer)
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return ""


def without(document: object, pointers: Sequence[str]) -> object:
    """The document without the members the pointers lead to. The one given stays as it is.

    Here, and only here, `*` leads to every element of a list.
    """
    for pointer in pointers:
        document = _without(document, _tokens(pointer))
    return document


def _without(document: object, tokens: list[str]) -> object:
    if isinstance(document, list) and len(tokens) > 1 and tokens[0] == "*":
        return [_without(element, tokens[1:]) for element in document]
    if not tokens or not isinstance(document, dict) or tokens[0] not in document:
        return document
    if len(tokens) == 1:
        return {key: value for key, value in document.items() if key != tokens[0]}
    return {**document, tokens[0]: _without(document[tokens[0]], tokens[1:])}
