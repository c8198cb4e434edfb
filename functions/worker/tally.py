"""What became of one invocation's calls, by integration: counted in memory, written once before the handler returns.

A worker that is killed takes its counts with it. That bends a minute's ratio a little and loses nothing else, so no
call pays for a write of its own: no call lasts longer than its deadline of 8 s.
"""

from __future__ import annotations

from functions.core.failure import StorageUnavailable
from functions.core.health import CallOutcome, Counts, counted, minute_of
from functions.worker.ports import Ports


class Tally:
    """Counts of one invocation."""

    def __init__(self, ports: Ports, time_scale: float) -> None:
        self._ports = ports
        self._scale = time_scale
        self._counts: dict[str, Counts] = {}

    def note(self, integration: str, tenant: str, outcome: CallOutcome) -> None:
        """One call has ended."""
        self._counts[integration] = self._counts.get(integration, Counts()) + counted(outcome, tenant)

    async def flush(self) -> None:
        """Add what was counted to the minute that is under way: one write per integration that was called.

        The minute is that of the write, not of the call, so that no count comes after its minute has been judged.
        Counts that cannot be stored are let go of: no event waits for them.
        """
        counts = {name: counts for name, counts in self._counts.items() if counts != Counts()}
        self._counts = {}
        if not counts:
            return
        now_ms = self._ports.clock.now_ms()
        try:
            await self._ports.io(self._ports.counts.add, minute_of(now_ms, self._scale), counts, now_ms)
        except StorageUnavailable:
            self._ports.meter.count("health_counts_lost", len(counts))
            self._ports.log.exception("what became of this invocation's calls could not be stored: health misses it")
