"""Idempotency keys with their answers, as providers keep them for a while."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum, auto

from ops.simulator.http import Reply

MAX_KEYS = 50_000


class Refused(Enum):
    """Why a key gives no answer."""

    REUSED = auto()  # it came with other parameters before
    IN_USE = auto()  # the first call is under way


@dataclass(slots=True)
class Claimed:
    """A key whose call is under way until it has its answer."""

    digest: str
    made_at: float
    reply: Reply | None = None


class Keys:
    """The keys that are still known. The caller holds the world's lock."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, Claimed] = OrderedDict()

    def claim(self, index: Hashable, digest: str) -> Claimed | Reply | Refused:
        """The stored answer of a known key, marked as replayed; why there is none; or the new claim of an unknown key.

        `digest` stands for the call's parameters.
        """
        entry = self._entries.get(index)
        if entry is not None:
            if entry.digest != digest:
                return Refused.REUSED
            if entry.reply is None:
                return Refused.IN_USE
            stored = entry.reply
            return Reply(
                stored.status, stored.body, stored.content_type, {**stored.headers, "Idempotent-Replayed": "true"}
            )
        while len(self._entries) >= MAX_KEYS:
            self._entries.popitem(last=False)
        claimed = self._entries[index] = Claimed(digest, time.time())
        return claimed

    def forget(self, index: Hashable) -> None:
        """The call never began: the key is free."""
        self._entries.pop(index, None)

    def prune(self, older_than_seconds: float) -> int:
        """Forget answered keys of at least this age, as providers do after their window. Gives how many."""
        limit = time.time() - older_than_seconds
        old = [key for key, entry in self._entries.items() if entry.reply is not None and entry.made_at <= limit]
        for key in old:
            del self._entries[key]
        return len(old)
