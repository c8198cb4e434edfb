"""Opaque marks of where a list was left, for whoever asks for its next page. Pure.

A cursor is what the list is ordered by, as JSON in base64: it grants nothing, and what a stranger makes of one is
refused where it is read.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence

from functions.core.failure import HoldfastError

MAX_LENGTH = 4_000
_MAX_BYTES = 1_000  # a sort key has 1,024 at most
_MAX_NUMBER = 10**14


class BadCursor(HoldfastError):
    """A cursor is none that this list has given."""


def cursor_of(parts: Sequence[str | int]) -> str:
    """The cursor for these parts, read back by `parts_of`."""
    return base64.urlsafe_b64encode(json.dumps(list(parts), separators=(",", ":")).encode()).decode().rstrip("=")


def parts_of(cursor: str, *kinds: type[str | int]) -> list[str | int]:
    """The parts, of these kinds: texts that are not empty, whole numbers that are not negative. Raises `BadCursor`."""
    if len(cursor) > MAX_LENGTH or not cursor.isascii():
        raise BadCursor("it is too long, or not of its alphabet")
    try:
        parts = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError) as exc:
        raise BadCursor("it cannot be read") from exc
    if not isinstance(parts, list) or [type(part) for part in parts] != list(kinds):
        raise BadCursor("it is another list's")
    if any(not _is_sound(part) for part in parts):
        raise BadCursor("something in it is out of bounds")
    return parts


def _is_sound(part: str | int) -> bool:
    if isinstance(part, int):
        return 0 <= part <= _MAX_NUMBER
    if any("\ud800" <= character <= "\udfff" for character in part):
        return False
    return 0 < len(part.encode()) <= _MAX_BYTES
