"""Sends pages: whoever takes one has it for a while, so that nobody is paged twice while two are at it."""

from __future__ import annotations

from collections.abc import Callable

from aws_lambda_powertools import Logger

from functions.core.clock import Clock
from functions.core.failure import VersionConflict
from functions.core.incident import Board, Incident, IncidentChange, Rules, delivered, taken, to_deliver
from functions.core.page import PLAIN, Situation, letter
from functions.core.ports import Incidents, OnCallChannels
from functions.incident_board import move
from functions.observability import Metrics


class Delivery:
    """Takes what is to be delivered of an incident, sends it, and writes down what became of it. A death in between
    leaves the pages to the next tick after the lease: somebody may then hear of it twice, and nobody never.
    """

    def __init__(
        self,
        incidents: Incidents,
        channels: OnCallChannels,
        situation: Callable[[int], Situation],
        rules: Rules,
        stage: str,
        runbooks_url: str,
        clock: Clock,
        log: Logger,
        metrics: Metrics,
    ) -> None:
        self._incidents = incidents
        self._channels = channels
        self._situation = situation
        self._rules = rules
        self._stage = stage
        self._runbooks_url = runbooks_url
        self._clock = clock
        self._log = log
        self._metrics = metrics

    def run(self, incident_id: str, deadline_ms: int) -> int:
        """How many pages went out. Those that no channel has yet are first; after the deadline no other is begun, so
        that what became of those that were is written down. Raises `StorageUnavailable`.
        """
        now_ms = self._clock.now_ms()
        seen = self._incidents.get(incident_id)
        numbers = set() if seen is None else {page.number for page in to_deliver(seen, now_ms)}
        incident = None if seen is None or not numbers else self._take(seen, now_ms)
        if incident is None:
            return 0
        mine = sorted(
            (page for page in incident.pages if page.number in numbers), key=lambda page: (bool(page.took), page.number)
        )
        took: dict[int, tuple[str, ...]] = {}
        failed: dict[int, tuple[str, ...]] = {}
        for count, page in enumerate(mine):
            if count and self._clock.now_ms() >= deadline_ms:
                self._metrics.count("pages_left", len(mine) - count)
                break
            now = Situation() if page.kind in PLAIN else self._situation(incident.opened_at_ms)
            made = letter(incident, page, now, self._stage, self._runbooks_url, self._clock.now_ms())
            sent = self._channels.send(made, page.took)
            took[page.number], failed[page.number] = sent.took, tuple(sent.failed)
            about = {
                "incident_id": incident_id,
                "reason": page.kind.value,
                "status": incident.severity.value,
                "attempt": page.attempts,
            }
            if sent.failed:
                self._metrics.count("pages_failed")
                self._log.error("a page was not taken by every channel", extra=about | {"code": ", ".join(sent.failed)})
            else:
                self._metrics.count("pages_sent")
                self._log.info("a page went out", extra=about)
        move(self._incidents, incident_id, self._done(took, failed))
        return sum(not failed[number] for number in took)

    def _take(self, incident: Incident, now_ms: int) -> Incident | None:
        """The incident with its pages taken; None: somebody else came between, and the next tick looks again."""
        change = taken(incident, now_ms, self._rules)
        try:
            self._incidents.store(change)
        except VersionConflict:
            return None
        return change.after

    def _done(
        self, took: dict[int, tuple[str, ...]], failed: dict[int, tuple[str, ...]]
    ) -> Callable[[Incident, Board], IncidentChange]:
        def change(incident: Incident, board: Board) -> IncidentChange:
            return delivered(incident, took, failed, board, self._clock.now_ms(), self._rules)

        return change
