"""Each minute: of which sources nothing has been heard for longer than there ever should be."""

from __future__ import annotations

from collections.abc import Sequence

from aws_lambda_powertools import Logger

from functions.core.clock import Clock
from functions.core.ports import Door, Expectations
from functions.core.silence import Expectation, is_silent, silent_since
from functions.observability import Metrics

READ_EVERY_MS = 300_000  # the entries; a page of ten is a request


class SilenceDuty:
    """Asks the door's log of a source only when its last event that is known is older than its gap: of a busy source
    once in a gap.
    """

    def __init__(
        self,
        expectations: Expectations,
        door: Door,
        time_scale: float,
        clock: Clock,
        log: Logger,
        metrics: Metrics,
    ) -> None:
        self._expectations = expectations
        self._door = door
        self._scale = time_scale
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._read_at_ms = 0
        self._expected: Sequence[Expectation] = ()
        self._seen: dict[str, int] = {}  # by source: its last accepted event that this environment knows of

    def run(self, deadline_ms: int) -> int:
        """How many are silent. Raises `StorageUnavailable`; what is not known then is not told."""
        now_ms = self._clock.now_ms()
        if now_ms - self._read_at_ms >= READ_EVERY_MS * self._scale:
            self._expected, self._read_at_ms = self._expectations.read(), now_ms
        silent = 0
        for expected in self._expected:
            if self._clock.now_ms() >= deadline_ms:
                self._metrics.count("silence_cut_short")
                break
            silent += self._is_silent(expected, now_ms)
        self._metrics.count("sources_silent", silent)
        return silent

    def _is_silent(self, expected: Expectation, now_ms: int) -> bool:
        known_ms = self._seen.get(expected.source, 0)
        if not is_silent(expected, known_ms, now_ms, self._scale):
            return False
        gap_ms = int(expected.gap_seconds * 1000 * self._scale)
        sighting = self._door.accepted(expected.source, now_ms - gap_ms, now_ms)
        if sighting.line is not None:
            self._seen[expected.source] = sighting.line.at_ms
            return False
        if not sighting.is_complete:  # the log is too long to be read so far back: others of it came in meanwhile
            self._metrics.count("silence_cut_short")
            return False
        self._log.warning(
            "a source is silent",
            extra={"source": expected.source, "age_ms": now_ms - silent_since(expected, known_ms)},
        )
        return True
