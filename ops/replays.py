"""Bulk replays through the operator API: plan, look, approve, and follow one to its end."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from functions.core import replay_job
from functions.core.replay_job import State
from ops.operator_api import Api, Document, connect
from ops.stack import Stack

OVER: Final = frozenset(state.value for state in replay_job.OVER)
POLL_SECONDS: Final = 2.0
PLAN_WITHIN_SECONDS: Final = 960.0  # as long as λ may look through items, and a minute
_PATH: Final = "/platform/replays"


class NotPlanned(Exception):
    """The plan was not made in time, or could not be made."""


class Replays:
    """One stage's bulk replays. Every method raises what a call of the API raises."""

    def __init__(
        self, api: Api, pause: Callable[[float], None] | None = None, poll_seconds: float = POLL_SECONDS
    ) -> None:
        self._api = api
        self._pause = time.sleep if pause is None else pause
        self._poll_seconds = poll_seconds

    def plan(
        self,
        wanted: Mapping[str, Any],
        reason: str,
        *,
        incident_id: str = "",
        cap: int | None = None,
        look_only: bool = False,
    ) -> Document:
        """Ask for a plan and wait until it is there. Nothing is replayed. Raises `NotPlanned`."""
        body: Document = {"filter": dict(wanted), "reason": reason}
        if incident_id:
            body["incident_id"] = incident_id
        if cap is not None:
            body["cap"] = cap
        if look_only:
            body["look_only"] = True
        # The key makes it safe to ask again where the answer was lost.
        job = self._api.call("POST", _PATH, body=body, idempotency_key=uuid.uuid4().hex)
        waited = 0.0
        while job["state"] == State.PLANNING:
            if waited >= PLAN_WITHIN_SECONDS:
                look = f"look at it later: holdfast replay show {job['replay_id']}"
                raise NotPlanned(f"{job['replay_id']} is not planned after {waited:.0f} s: {look}")
            self._pause(self._poll_seconds)
            waited += self._poll_seconds
            job = self.get(job["replay_id"])
        if job["state"] == State.FAILED:
            raise NotPlanned(f"{job['replay_id']} could not be planned: {job.get('stop_reason', '')}")
        return job

    def get(self, replay_id: str) -> Document:
        """One job."""
        return self._api.call("GET", _one(replay_id))

    def items(self, replay_id: str) -> Iterator[Document]:
        """Its items with what was predicted of each, and what became of those that are done."""
        query = {"items": "true", "limit": "200"}
        while True:
            page = self._api.call("GET", _one(replay_id), query=query).get("page") or {"items": []}
            yield from page["items"]
            if not page.get("next_cursor"):
                return
            query["cursor"] = page["next_cursor"]

    def every(self, *, active: bool = False, limit: int = 50) -> Document:
        """Jobs, the newest first, and which has which integration."""
        query = {"limit": str(limit)} | ({"active": "true"} if active else {})
        return self._api.call("GET", _PATH, query=query)

    def approve(self, replay_id: str, plan_hash: str) -> Document:
        """Let the plan of that hash run."""
        return self._api.call("POST", f"{_one(replay_id)}/approve", body={"plan_hash": plan_hash})

    def change(self, replay_id: str, what: str, reason: str) -> Document:
        """`pause`, `resume` or `cancel`."""
        return self._api.call("POST", f"{_one(replay_id)}/{what}", body={"reason": reason})

    def follow(self, replay_id: str) -> Iterator[Document]:
        """The job as it is, again and again, until it is over or waits for a person; that is the last one."""
        while True:
            job = self.get(replay_id)
            yield job
            if job["state"] in (*OVER, State.PAUSED, State.PLANNED):
                return
            self._pause(self._poll_seconds)


def of_stage(stack: Stack, poll_seconds: float = POLL_SECONDS) -> Replays:
    """The stage's."""
    return Replays(connect(stack), poll_seconds=poll_seconds)


def _one(replay_id: str) -> str:
    return f"{_PATH}/{quote(replay_id, safe='')}"


def will_go(job: Mapping[str, Any]) -> int:
    """How many items of its plan would be replayed."""
    return int((job.get("plan") or {}).get("items", 0))
