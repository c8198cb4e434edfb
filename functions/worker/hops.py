"""Asks the fallback matrix about one action, with what it looks at: health, switches, the recipient's standing.

Core decides (`functions.core.fallback`); the passes store the hop, and only then take it.
"""

from __future__ import annotations

from dataclasses import replace

from functions.core import fallback
from functions.core.decision import Action
from functions.core.failure import StorageUnavailable
from functions.core.fallback import Fallback, Hop, Manual, Occasion, Stay, Substitute
from functions.core.gate import Health, Park, Send, Standing, WaitingFor
from functions.core.person import OPTED_OUT_THERE
from functions.core.recipient import standing_on
from functions.core.recovery import NextWay
from functions.core.switches import view
from functions.worker.attempts import Attempts, Whose
from functions.worker.ports import Ports


class Hops:
    """The fallback matrix for the actions of one invocation."""

    def __init__(self, ports: Ports, attempts: Attempts) -> None:
        self._ports = ports
        self._attempts = attempts

    def action_at(self, action: Action, hop: int) -> Action:
        """The bound action as it is at that hop. Raises `IllegalTransition` for a hop that is no more."""
        return fallback.action_at(action, hop, self._ports.fallbacks)

    def way(self, action: Action, taken: Hop | Substitute) -> NextWay:
        """The way that was decided on, as a row stores it."""
        there = self.action_at(action, taken.hop)
        return NextWay(taken.row, taken.hop, there.kind, there.integration, there.repeat)

    def way_at(self, action: Action, hop: int) -> NextWay:
        """The way of a hop that was stored before."""
        row = fallback.row_at(self._ports.fallbacks, action, hop)
        there = self.action_at(action, hop)
        return NextWay(row.id, hop, there.kind, there.integration, there.repeat)

    def later(self, action: Action, hop: int) -> Action | None:
        """What is to be done again once the action's own integration is well, if that hop asks for it. Not bound."""
        is_later = hop > 0 and fallback.row_at(self._ports.fallbacks, action, hop).is_later
        return fallback.post_processing(action) if is_later else None

    def left_by_hand(self, action: Action, event_name: str) -> Manual | None:
        """What a person is asked for where the action is not sent any more, if the event is one that must arrive."""
        matrix = self._ports.fallbacks
        return fallback.by_hand(matrix, action, is_critical=fallback.is_critical(matrix, event_name))

    def has_ways(self, action: Action) -> bool:
        """Whether anything could take over from it."""
        return fallback.has_ways(self._ports.fallbacks, action.kind)

    def health(self, integration: str) -> Health:
        """The integration's health as this invocation knows it."""
        return fallback.health_of(self._attempts.states.get(integration), self._ports.clock.now_ms())

    async def before_send(
        self,
        action: Action,
        hop: int,
        whose: Whose,
        event_name: str,
        lease_until_ms: int,
        *,
        is_new: bool,
        is_unsettled: bool,
        code: str = "",
    ) -> Fallback:
        """What takes over because the integration of the present way is not healthy. `code` is the last failure's.

        Only the health of an integration may turn an action aside: what a switch, a recipient or the clock stops here
        stays here.
        """
        matrix = self._ports.fallbacks
        current = self.action_at(action, hop)
        if self.health(current.integration) is Health.HEALTHY or not self.has_ways(action):
            return Stay()
        verdict = await self._attempts.gate(current, whose, lease_until_ms)
        is_health = isinstance(verdict, Park) and verdict.waiting_for is WaitingFor.HEALTH
        if not isinstance(verdict, Send) and not is_health:
            return Stay()
        seen = await self._occasion(action, hop, whose, event_name, code)
        taken = fallback.before_send(matrix, replace(seen, is_new=is_new, is_unsettled=is_unsettled))
        is_probe = isinstance(verdict, Send) and self.health(current.integration) is Health.HARD_DOWN
        if is_new and is_probe and (isinstance(taken, Manual) or not seen.is_critical):
            return Stay()  # if everything left, nobody would ever find out that the integration is back
        return taken

    async def after_failure(
        self,
        action: Action,
        hop: int,
        whose: Whose,
        event_name: str,
        *,
        code: str,
        is_unsettled: bool,
        may_have_been_sent: bool,
    ) -> Fallback:
        """What takes over from an action that failed for good on its present way. `code` is its failure's."""
        if not self.has_ways(action):
            return Stay()
        seen = await self._occasion(action, hop, whose, event_name, code)
        seen = replace(seen, is_unsettled=is_unsettled, may_have_been_sent=may_have_been_sent)
        return fallback.after_failure(self._ports.fallbacks, seen)

    async def _occasion(self, action: Action, hop: int, whose: Whose, event_name: str, code: str) -> Occasion:
        """`code`: the last failure's. Who told one provider to stop is told by none, whether or not that was stored."""
        matrix, is_stopped = self._ports.fallbacks, code == OPTED_OUT_THERE
        return Occasion(
            action=action,
            hop=hop,
            is_critical=fallback.is_critical(matrix, event_name),
            health=await self._healths(whose),
            standing={
                channel: Standing.SUPPRESSED if is_stopped else await self._standing(whose, action, channel)
                for channel in fallback.channels_ahead(matrix, action, hop)
            },
        )

    async def _healths(self, whose: Whose) -> dict[str, Health]:
        """By integration. What an operator has stopped is no way out: it counts as down."""
        now_ms = self._ports.clock.now_ms()
        switches = view(
            await self._attempts.switches(), flow=whose.flow, source=whose.source, tenant=whose.tenant, now_ms=now_ms
        )
        return {
            name: Health.HARD_DOWN if name in switches.disabled or switches.limit(name) == 0 else self.health(name)
            for name in self._ports.integrations
        }

    async def _standing(self, whose: Whose, action: Action, channel: str) -> Standing:
        ports = self._ports
        if not action.recipient:
            return Standing.NO_CONSENT  # nobody whose contact and consent could be looked up
        try:
            person = await ports.io(ports.recipients.person, whose.tenant, action.recipient)
        except StorageUnavailable:
            ports.log.exception(
                "the recipient's standing could not be read: whether another channel is open is not known",
                extra={
                    "tenant": whose.tenant,
                    "action_id": action.action_id,
                    "request_id": whose.request_id,
                    "traceparent": whose.traceparent,
                    "reason": "recipient_unknown",
                },
            )
            return Standing.UNKNOWN
        return standing_on(person, channel)

    def took(self, integration: str, taken: Hop | Substitute, about: dict[str, object]) -> None:
        """Count and say that an action goes another way from here on."""
        self._ports.meter.count("fallback_taken", integration=integration, reason=taken.row)
        self._ports.log.warning(
            "an action goes on in another way, as the fallback matrix says",
            extra=about | {"integration": integration, "kind": taken.kind, "reason": taken.row},
        )

    def handed_over(self, integration: str, left: Manual, about: dict[str, object]) -> None:
        """Count and say that only a person can do it."""
        self._ports.meter.count("fallback_manual", integration=integration, reason=left.row)
        self._ports.log.warning(
            "an action that must be done has no way left: a person does it",
            extra=about | {"integration": integration, "reason": left.row, "code": left.task},
        )
