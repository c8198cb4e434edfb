"""Probes: while an integration is down, one call at a time in the whole fleet finds out whether it is back.

A probe is an action, or a classification, that waits to be done anyway and that the gate would let through but for the
integration's health; nothing is ever made up to be sent. It is taken right before the first byte, by a conditional
write, and what it found is recorded by whoever took it. A probe whose holder dies is free again when its lease ends.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, replace

from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.gate import Health, IntegrationState
from functions.core.health import CallOutcome, probe_lease, probed
from functions.worker.ports import Ports

RECORD_TRIES = 3


@dataclass(slots=True)
class Probe:
    """One probe that this invocation holds. `found` is what its last call said; None while none was made."""

    integration: str
    taken_by: str
    found: CallOutcome | None = None


class Probes:
    """The probes of one invocation. Shares the control items of the batch with whoever asks the gate."""

    def __init__(self, ports: Ports, time_scale: float, states: MutableMapping[str, IntegrationState]) -> None:
        self._ports = ports
        self._scale = time_scale
        self._states = states

    def is_free(self, integration: str) -> bool:
        """Whether a probe of it may be taken now, as far as this invocation knows."""
        return self._state(integration).may_be_probed(self._ports.clock.now_ms())

    def is_needed(self, integration: str) -> bool:
        """Whether only a probe may call it now."""
        return self._state(integration).health_at(self._ports.clock.now_ms()) is Health.HARD_DOWN

    async def take(self, integration: str) -> Probe | None:
        """The probe, if nobody has it. Raises nothing: storage that does not answer is a no."""
        state, now_ms = self._state(integration), self._ports.clock.now_ms()
        if not state.may_be_probed(now_ms):
            return None
        until_ms = now_ms + probe_lease(self._scale)
        # First in memory, so that of all that this invocation has under way one asks.
        self._states[integration] = replace(state, probe_at_ms=until_ms)
        probe = Probe(integration, self._ports.ids.new_id())
        try:
            taken = await self._ports.io(self._ports.health.take_probe, integration, probe.taken_by, now_ms, until_ms)
        except StorageUnavailable:
            self._ports.log.exception(
                "the probe of an integration that is down could not be taken: its actions wait",
                extra={"integration": integration},
            )
            return None
        if not taken:
            return None
        self._ports.meter.count("probes", integration=integration)
        return probe

    async def record(self, probe: Probe) -> None:
        """What it found; with the third success in a row the integration is down no more.

        If that cannot be stored, the probe's lease runs out and another one finds out.
        """
        name = probe.integration
        for _ in range(RECORD_TRIES):
            now_ms = self._ports.clock.now_ms()
            try:
                record = (await self._ports.io(self._ports.health.read, [name]))[name]
                change = probed(name, record, probe.taken_by, probe.found, now_ms, self._scale)
                if change is None:
                    self._keep(name, record.state(name))
                    return
                await self._ports.io(self._ports.health.store, name, change)
            except VersionConflict:
                continue
            except StorageUnavailable:
                self._ports.log.exception(
                    "what a probe found could not be stored: another one finds out", extra={"integration": name}
                )
                return
            self._keep(name, change.after.state(name))
            self._say(probe, change.after.health)
            return
        self._ports.log.warning(
            "the health of an integration was changed again and again: another probe finds out",
            extra={"integration": name},
        )

    def _say(self, probe: Probe, health: Health) -> None:
        outcome = "not_made" if probe.found is None else probe.found.value
        self._ports.meter.count("probes_ended", integration=probe.integration, outcome=outcome)
        self._ports.log.warning(
            "a probe of an integration that is down has ended",
            extra={"integration": probe.integration, "outcome": outcome, "health": health.value},
        )

    def _keep(self, integration: str, state: IntegrationState) -> None:
        """What was read of its health, beside what the batch knows of it otherwise."""
        self._states[integration] = replace(
            self._state(integration),
            health=state.health,
            since_ms=state.since_ms,
            reason=state.reason,
            override=state.override,
            override_until_ms=state.override_until_ms,
            probe_at_ms=state.probe_at_ms,
            probe_ok=state.probe_ok,
            ramp_from_ms=state.ramp_from_ms,
        )

    def _state(self, integration: str) -> IntegrationState:
        return self._states.get(integration, IntegrationState(integration))
