"""What goes in and out of the simulated providers, apart from the sockets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. Header names are lower-case; `path` is decoded and has no query."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json_object(self) -> dict[str, Any] | None:
        """The body as a JSON object, or None when it is not one."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def reply_json(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Reply:
    """An answer with a JSON body."""
    return Reply(status, json.dumps(value, separators=(",", ":")).encode(), headers=headers or {})


def _nothing() -> None:
    """A call that holds nothing has nothing to give back."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request that a provider has understood and not yet carried out.

    `perform` does it, once, and gives the answer. `abandon` is called instead when a fault ends the call before its
    effect.
    `settle_as` records another answer in the effect's place, for providers that store errors under the caller's key.
    """

    provider: str
    operation: str
    target: str
    perform: Callable[[], Reply]
    abandon: Callable[[], None] = _nothing
    settle_as: Callable[[Reply], None] | None = None
