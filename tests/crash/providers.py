"""The other side: a provider that keeps what it is told as its kinds promise, and forgets nothing that it did."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from functions.core.decision import Action, Repeat
from functions.core.failure import Done, Failure, NetworkCause, failure_of_network, failure_of_status
from functions.core.ports import Absent, Call, SettingState
from tests.worker_world import DESK

if TYPE_CHECKING:
    from tests.crash.world import Process, World

LATE_MS = 50_000  # how long after its call's deadline something may still happen: less than the settle delay
NEW_CREDENTIAL_SECONDS = 400.0
HANGS_SECONDS = 1_000.0  # longer than any deadline


@dataclass(frozen=True, slots=True)
class Effect:
    """What a person would notice: when it came about, when its call began, by which process, under which key."""

    at_ms: int
    began_at_ms: int
    process: int
    name: str
    event: str
    action_id: str
    customer_visible: bool
    after_return: bool


@dataclass(slots=True)
class Side:
    """The provider's own memory. Times are true time."""

    effects: list[Effect] = field(default_factory=list)
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)  # key to (when, status answered)
    in_progress: set[str] = field(default_factory=set)
    settings: dict[str, tuple[str, int, bool]] = field(default_factory=dict)  # target to (value, when, by us)
    sends: dict[tuple[str, str], int] = field(default_factory=dict)  # (event, name) to calls that spent an attempt
    credential: int = 1
    refuses_credential: int = 0
    is_down: bool = False


class SimProvider:
    """`ports.Provider` as one process sees it."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    async def send(self, action: Action, call: Call) -> Done | Failure:
        """Do it, or what the schedule says instead."""
        if action.kind == "desk.count_replies":
            return await self._count(action, call)
        return await self._send(action, call)

    async def _send(self, action: Action, call: Call) -> Done | Failure:
        world, side, process = self._world, self._world.side, self._process
        began = world.now_ms
        world.began(process, action, call)
        fault = await process.boundary(f"send.{action.name}")
        world.thaw()
        is_refusing = action.integration in world.scenario.refusing
        if is_refusing or (side.is_down and action.integration == DESK):
            return failure_of_network(NetworkCause.CONNECT_REFUSED)
        if side.refuses_credential == process.credential:
            return failure_of_status(401)
        spends = fault not in ("unauthorized", "paused")
        key = (action.target, action.name)
        side.sends[key] = side.sends.get(key, 0) + spends
        match fault:
            case "refused":
                return failure_of_network(NetworkCause.CONNECT_REFUSED)
            case "rejected":
                return failure_of_status(422)
            case "unauthorized":
                self._refuse_credential()
                return failure_of_status(401)
            case "conflict":
                return failure_of_status(409)
            case "throttled":
                return failure_of_status(429)
            case "paused":
                return failure_of_status(429, retry_after_ms=90_000)
            case "unavailable":
                return self._answer(action, 503)
            case "reset":
                return failure_of_network(NetworkCause.RESET)
            case "late":
                after = (call.deadline_ms - process.now_ms()) + world.rng.randrange(1, LATE_MS)
                world.loop.call_later(after / 1000, self._act, action, began, 200, True)
                await asyncio.sleep(HANGS_SECONDS)
        if action.repeat is Repeat.KEYED and action.action_id in side.in_progress:
            return failure_of_status(409)
        side.in_progress.add(action.action_id)
        try:
            await process.latency()
        finally:
            side.in_progress.discard(action.action_id)
        status = self._act(action, began, 503 if fault == "unavailable_after_effect" else 200)
        await process.passed(f"send.{action.name}", fault)
        if fault == "dropped_answer":
            return failure_of_network(NetworkCause.RESET)
        return Done(action.action_id) if status == 200 else failure_of_status(status)

    async def _count(self, action: Action, call: Call) -> Done | Failure:
        found = await self.look_up(action, call)
        return Done() if isinstance(found, Absent) else found

    def _answer(self, action: Action, status: int) -> Failure:
        """An error without an effect. Under a key it is stored, and comes again."""
        if action.repeat is Repeat.KEYED and action.action_id not in self._world.side.keys:
            self._world.side.keys[action.action_id] = (self._world.now_ms, status)
        return failure_of_status(status)

    def _refuse_credential(self) -> None:
        """The key is not taken any more, and somebody puts another into its place a while later."""
        side = self._world.side
        if side.refuses_credential != side.credential:
            side.refuses_credential = side.credential
            self._world.loop.call_later(NEW_CREDENTIAL_SECONDS, self._world.act, "new_credential")

    def _act(self, action: Action, began_at_ms: int, status: int, is_late: bool = False) -> int:
        """Do it, unless its key is known; the status to answer with, which a known key has kept."""
        world, side = self._world, self._world.side
        now = world.now_ms
        if action.repeat is Repeat.KEYED:
            stored = side.keys.get(action.action_id)
            if stored is not None and world.key_holds(stored[0]):
                return stored[1]
            side.keys[action.action_id] = (now, status)
        if action.repeat is Repeat.SETTING:
            value, changed_at, by_us = side.settings.get(action.target, ("", 0, True))
            side.settings[action.target] = (self.wanted(action), now, True)
            if value == self.wanted(action):
                return status
            if value and not by_us:
                world.overwritten(action, began_at_ms, changed_at)
        if action.repeat is Repeat.IDEMPOTENT and any(one.action_id == action.action_id for one in side.effects):
            return status
        side.effects.append(
            Effect(
                now,
                began_at_ms,
                self._process.number,
                action.name,
                action.target,
                action.action_id,
                action.customer_visible,
                self._process.has_returned and not self._process.is_dead and not is_late,
            )
        )
        return status

    async def look_up(self, action: Action, call: Call) -> Done | Absent | Failure:
        """By our marker: what is younger than the index is not found. What counts asks for another action's."""
        world = self._world
        fault = await self._process.boundary(f"look_up.{action.name}")
        if world.side.refuses_credential == self._process.credential:
            return failure_of_status(401)
        failure = await self._asked(fault, f"look_up.{action.name}")
        if failure is not None:
            return failure
        seen = world.now_ms - world.index_lag_ms
        whose = action.counted_id or action.action_id
        times = sum(one.action_id == whose and one.at_ms <= seen for one in world.side.effects)
        return Done(whose, times) if times else Absent()

    async def read_setting(self, action: Action, call: Call) -> SettingState | Failure:
        """What the target is set to."""
        fault = await self._process.boundary(f"read.{action.name}")
        if self._world.side.refuses_credential == self._process.credential:
            return failure_of_status(401)
        failure = await self._asked(fault, f"read.{action.name}")
        if failure is not None:
            return failure
        value, at_ms, by_us = self._world.side.settings.get(action.target, ("", 0, True))
        return SettingState(value, at_ms or None, changed_by_us=by_us)

    async def _asked(self, fault: str, what: str) -> Failure | None:
        if self._world.side.is_down:
            return failure_of_network(NetworkCause.CONNECT_REFUSED)
        match fault:
            case "refused":
                return failure_of_network(NetworkCause.CONNECT_REFUSED)
            case "rejected":
                return failure_of_status(404)
            case "unauthorized":
                self._refuse_credential()
                return failure_of_status(401)
            case "throttled":
                return failure_of_status(429)
            case "paused":
                return failure_of_status(429, retry_after_ms=90_000)
            case "conflict" | "unavailable" | "unavailable_after_effect":
                return failure_of_status(503)
            case "reset" | "dropped_answer":
                return failure_of_network(NetworkCause.RESET)
            case "late":
                await asyncio.sleep(HANGS_SECONDS)
        await self._process.latency()
        await self._process.passed(what, fault)
        return None

    def wanted(self, action: Action) -> str:
        """What `read_setting` would show."""
        return str(action.params["team"])

    def refresh_credential(self) -> str:
        """The parameter's version, past the cache."""
        self._process.credential = self._world.side.credential
        return str(self._world.side.credential)
