"""The recovery queue through the operator API: which items there are, one of them, and what is done to one.

The API's paths begin with an item's integration, which nobody has in hand: an item is looked for at each of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from functions.core.gate import Health
from functions.core.recovery import Status
from functions.operator_api.problems import Code
from ops.operator_api import Api, ApiRefused, Document

OPEN: Final = (Status.PENDING.value, Status.RETRYING.value)
MOST: Final = 200  # items in a page
POLL_SECONDS: Final = 2.0
_ORDER: Final = {status.value: place for place, status in enumerate((Status.DLQ, Status.FAILED))}


class NoSuchItem(Exception):
    """No integration has an item of that id."""


class RecoveryQueue:
    """One stage's items. Every method raises what a call of the API raises."""

    def __init__(self, api: Api, integrations: Sequence[str], pause: Callable[[float], None] = time.sleep) -> None:
        self._api = api
        self._integrations = tuple(integrations)
        self._pause = pause

    def listed(self, statuses: Sequence[str], limit: int) -> Document:
        """`{"items", "is_complete", "unreadable"}`: at most `limit` of all integrations, what is for people first, and
        the oldest of each status first. `is_complete` False: there are more.
        """
        items: list[Document] = []
        unreadable: list[str] = []
        is_complete = True
        query = {"limit": str(min(limit, MOST)), **({"status": ",".join(statuses)} if statuses else {})}
        for integration in self._integrations:
            try:
                page = self._api.call("GET", _of(integration), query=query)
            except ApiRefused as refused:
                if refused.code == Code.NOT_FOUND.value and len(self._integrations) > 1:
                    continue  # the stage's catalog does not have it (yet), so it has no items
                raise
            items += page["items"]
            unreadable += page["unreadable"]
            is_complete = is_complete and not page["cursor"]
        items.sort(key=_place)
        return {
            "items": items[:limit],
            "is_complete": is_complete and len(items) <= limit,
            "unreadable": unreadable,
        }

    def item(self, recovery_id: str) -> Document:
        """One item, with all that is told of it. Raises `NoSuchItem`."""
        for integration in self._integrations:
            try:
                return self._api.call("GET", _path(integration, recovery_id))
            except ApiRefused as refused:
                if refused.code not in (Code.RECOVERY_NOT_FOUND.value, Code.NOT_FOUND.value):
                    raise
        raise NoSuchItem(
            f"there is no item {recovery_id!r} at {', '.join(self._integrations)}: those that there are are listed by "
            "`holdfast queue list`"
        )

    def audit(self, recovery_id: str) -> list[Document]:
        """What is on record of the item, oldest first."""
        query = {"entity": f"recovery_item#{recovery_id}", "limit": str(MOST)}
        return list(self._api.call("GET", "/platform/audit", query=query)["events"])

    def change(self, item: Document, what: str, body: Mapping[str, Any]) -> Document:
        """The item after `dismiss`, `cancel`, `note` or `root-cause`."""
        return self._api.call("POST", f"{_path(item['integration_id'], item['recovery_id'])}/{what}", body=body)

    def replay(self, item: Document, reason: str, key: str, checked: str = "") -> Document:
        """What the click of that key is answered, however often it is made."""
        body: Document = {"reason": reason}
        if checked:
            body["confirmation"] = {"checked": checked, "effect": "none"}
        path = f"{_path(item['integration_id'], item['recovery_id'])}/replay"
        return self._api.call("POST", path, body=body, idempotency_key=key)

    def watched(self, item: Document, seconds: float) -> Iterator[Document]:
        """The item as it goes on, each time that it has changed, until the machine does nothing more about it, or the
        time is over.
        """
        seen = 0
        path = _path(item["integration_id"], item["recovery_id"])
        for _ in range(max(1, int(seconds / POLL_SECONDS))):
            now = self._api.call("GET", path)
            if now["version"] != seen:
                seen = now["version"]
                yield now
            if not is_open(now):
                return
            self._pause(POLL_SECONDS)


def is_open(item: Mapping[str, Any]) -> bool:
    """Whether the machine will still do something about it by itself."""
    if item["status"] == Status.REPLAYED.value:
        return not item["result"]
    return item["status"] in OPEN


def has_succeeded(item: Mapping[str, Any]) -> bool:
    """Whether what it is about is done, or wanted no more."""
    return bool(item["status"] == Status.SUCCEEDED.value or item["result"] == "succeeded")


def is_well(item: Mapping[str, Any]) -> bool:
    """Whether its integration is."""
    return bool(item["integration"]["health"] == Health.HEALTHY.value)


def _place(item: Mapping[str, Any]) -> tuple[int, str, int, str]:
    moment = item["due_at_ms"] if is_open(item) else item["updated_at_ms"]
    return _ORDER.get(item["status"], len(_ORDER)), item["status"], moment, item["recovery_id"]


def _of(integration: str) -> str:
    return f"/platform/integrations/{quote(integration, safe='')}/recovery/queue"


def _path(integration: str, recovery_id: str) -> str:
    return f"{_of(integration)}/{quote(recovery_id, safe='')}"
