"""The cap on automatic customer-visible sends (architecture §6, register 002.17): counted right before each of them.

A person's replay is a person's decision and not counted; what has no customer to see it is not asked about.
"""

from __future__ import annotations

from dataclasses import dataclass

from functions.core.cap import DEFAULT_PER_HOUR, Capped, conversation_of
from functions.core.decision import Action
from functions.core.failure import StorageUnavailable
from functions.core.gate import Park, Suppress, WaitingFor
from functions.worker.ports import Ports

# A gate's answer may be so much older than the send: 6 s of switches, 8 s of call and this stay within the 15 s of a
# kill switch.
ANSWER_HOLDS_MS = 500


@dataclass(frozen=True, slots=True)
class Count:
    """What was counted for one send, to be taken back if it is not made. `was_slow`: the gate's answer is too old."""

    conversation: str = ""
    action_id: str = ""
    at_ms: int = 0
    is_new: bool = False
    was_slow: bool = False


class Automatic:
    """Counts for one invocation."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def count(self, action: Action, tenant: str, flow: str, *, is_replay: bool) -> Count | Park | Suppress:
        """Count this send, or say why it is not made. One that cannot be counted waits."""
        if not action.customer_visible or is_replay:
            return Count()
        ports = self._ports
        conversation = conversation_of(tenant, action.target, action.recipient)
        most = ports.automatic_per_hour.get(flow, DEFAULT_PER_HOUR)
        begun_ms = ports.clock.now_ms()
        try:
            answer = await ports.io(ports.caps.count, conversation, action.action_id, begun_ms, most)
        except StorageUnavailable:
            ports.log.exception(
                "an automatic message could not be counted: it waits",
                extra={"tenant": tenant, "integration": action.integration, "action_id": action.action_id},
            )
            return Park(WaitingFor.TIME, "automatic messages of the conversation could not be counted", begun_ms)
        if isinstance(answer, Capped):
            ports.meter.count("automatic_capped", integration=action.integration, flow=flow)
            return Suppress(f"the conversation had {most} automatic messages within the hour: a person goes on")
        was_slow = ports.clock.now_ms() - begun_ms > ANSWER_HOLDS_MS
        return Count(conversation, action.action_id, answer.at_ms, answer.is_new, was_slow)

    async def take_back(self, count: Count) -> None:
        """What was counted was not sent. If that cannot be stored, the conversation gets one less within the hour."""
        if not count.is_new:
            return
        ports = self._ports
        try:
            await ports.io(ports.caps.uncount, count.conversation, count.action_id, count.at_ms)
        except StorageUnavailable:
            ports.log.exception(
                "a count of an automatic message that was not sent stands: the conversation may get one less",
                extra={"action_id": count.action_id},
            )
