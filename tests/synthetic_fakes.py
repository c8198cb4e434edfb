"""In-memory doubles of what the sender of synthetic events reaches. The contract tests hold them to the real ones."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from functions.core.failure import StorageUnavailable
from functions.core.synthetic import FLOW, PROVIDER

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
ENTRY: dict[str, Any] = {"tenant": "holdfast", "provider": PROVIDER, "flow": FLOW, "secrets": [{"secret": SECRET}]}


@dataclass
class FakeSourceEntries:
    """`ports.SourceEntries`."""

    entries: dict[str, str] = field(default_factory=dict)
    is_down: bool = False

    def read(self, source: str) -> str | None:
        """See the port."""
        if self.is_down:
            raise StorageUnavailable("the fake parameter store is down")
        return self.entries.get(source)

    def put(self, source: str, **changes: Any) -> None:
        """The usual entry of the synthetic source, changed."""
        self.entries[source] = json.dumps(ENTRY | changes)


@dataclass
class FakeFrontDoor:
    """`ports.FrontDoor`: `answers` with a status, 0 for none."""

    answers: Callable[[str, Mapping[str, str], bytes], int] = lambda *_: 202
    posted: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """See the port."""
        self.posted.append((url, dict(headers), body))
        return self.answers(url, headers, body)
