"""What a provider answered when it refused, for the eyes of operators: its shape, its codes and its own request id.

Providers repeat in their errors what they were sent: numbers, addresses, texts, keys. So nothing of a body is kept but
what cannot be any of that: the names of its members, and words and short numbers where an error's code usually stands.
Everything else is told by its kind and length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

MAX_LENGTH: Final = 1000
_DEEPEST, _MOST_MEMBERS, _MOST_ITEMS = 4, 12, 3
_NAME = re.compile(r"[A-Za-z_][A-Za-z_-]{0,39}\Z")
_CODE = re.compile(r"[A-Za-z_.#-]{1,80}[0-9]{0,6}\Z")
_CODE_PLACES = frozenset({"code", "error", "error_code", "errorcode", "type", "__type", "status", "reason", "param"})
_LARGEST_CODE = 999_999
_HEADERS = (
    "content-type",
    "retry-after",
    "x-ratelimit-reset",
    "x-request-id",
    "request-id",
    "x-amzn-requestid",
    "twilio-request-id",
    "cf-ray",
)
_HEADER = re.compile(r"[A-Za-z0-9 ,:;/=_.+-]{1,80}\Z")


def snapshot_of(status: int, headers: Mapping[str, str], body: bytes | None, trouble: str = "") -> str:
    """Compact JSON of at most `MAX_LENGTH` characters. Header names are lower-case; `trouble` says why there is no
    body.
    """
    told: dict[str, Any] = {"status": status}
    kept = {name: headers[name] for name in _HEADERS if _HEADER.match(headers.get(name, ""))}
    if kept:
        told["headers"] = kept
    shape = trouble if body is None else _shape(body)
    whole = _json({**told, "body": shape})
    return whole if len(whole) <= MAX_LENGTH else _json({**told, "body": f"{len(body or b'')} bytes"})


def _shape(body: bytes) -> Any:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return f"{len(body)} bytes"
    return _told(document, "", _DEEPEST)


def _told(value: Any, place: str, deeper: int) -> Any:
    match value:
        case dict():
            return _members(value, deeper - 1) if deeper else f"object, {len(value)} members"
        case list():
            if not deeper:
                return f"list, {len(value)} items"
            some = [_told(one, place, deeper - 1) for one in value[:_MOST_ITEMS]]
            left = len(value) - len(some)
            return [*some, f"{left} more"] if left else some
        case None | bool():
            return value
        case int() | float():
            is_code = place in _CODE_PLACES and isinstance(value, int) and 0 <= value <= _LARGEST_CODE
            return value if is_code else "number"
        case _:
            is_code = place in _CODE_PLACES and _CODE.match(value) is not None
            return value if is_code else f"text, {len(value)} characters"


def _members(value: Mapping[str, Any], deeper: int) -> dict[str, Any]:
    named = [(name, inner) for name, inner in value.items() if _NAME.match(name)][:_MOST_MEMBERS]
    told = {name: _told(inner, name.lower(), deeper) for name, inner in named}
    left = len(value) - len(named)
    return {**told, "+": f"{left} more"} if left else told


def _json(told: Mapping[str, Any]) -> str:
    return json.dumps(told, separators=(",", ":"))
