"""Each minute: of which sources nothing has been heard for longer than there ever should be, and which entries nobody
can read. Both are kept by name, for the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aws_lambda_powertools import Logger

from functions.core.clock import Clock
from functions.core.failure import UnreadableItem, VersionConflict
from functions.core.ports import Door, Expectations, FoundSources
from functions.core.silence import Entries, Expectation, is_silent, quiet_since, silent_since
from functions.core.subjects import SourcesFound
from functions.observability import Metrics

READ_EVERY_MS = 110_000  # the entries: what nobody can read is known before its alarm, which takes three minutes


class SilenceDuty:
    """Asks the door's log of a source only when its last event that is known is older than its gap: of a busy source
    once in a gap.
    """

    def __init__(
        self,
        expectations: Expectations,
        door: Door,
        found: FoundSources,
        time_scale: float,
        clock: Clock,
        log: Logger,
        metrics: Metrics,
    ) -> None:
        self._expectations = expectations
        self._door = door
        self._found = found
        self._scale = time_scale
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._read_at_ms = 0
        self._entries = Entries()
        self._seen: dict[str, int] = {}  # by source: its last accepted event that this environment knows of
        self._kept: SourcesFound | None = None  # what this environment stored last; a conflict makes it read again

    def run(self, deadline_ms: int) -> int:
        """How many are silent. Raises `StorageUnavailable`; what is not known then is not told."""
        now_ms = self._clock.now_ms()
        if now_ms - self._read_at_ms >= READ_EVERY_MS * self._scale:
            self._entries, self._read_at_ms = self._expectations.read(), now_ms
        silent: list[Expectation] = []
        unreached: list[str] = []
        for expected in self._entries.expected:
            if unreached or self._clock.now_ms() >= deadline_ms:
                unreached.append(expected.source)
            elif self._is_silent(expected, now_ms):
                silent.append(expected)
        if unreached:
            self._metrics.count("silence_cut_short")
        self._metrics.count("sources_silent", len(silent))
        self._keep(silent, unreached, now_ms)
        return len(silent)

    def _keep(self, silent: Sequence[Expectation], unreached: Sequence[str], now_ms: int) -> None:
        """Write down what has changed. Of those that there was no time for what was found last still holds."""
        known, is_anew = self._known()
        since = {name: known.silent[name] for name in unreached if name in known.silent}
        for expected in silent:
            name = expected.source
            heard_ms = max(self._seen.get(name, 0), known.silent.get(name, 0))
            since[name] = quiet_since(expected, heard_ms, now_ms, self._scale)
        after = known.moved(since, self._entries.unreadable)
        if is_anew:
            after = replace(after, version=1)
        self._kept = known if after is known else None
        if self._kept is not None:
            return
        try:
            self._found.store(after, is_anew=is_anew)
        except VersionConflict:
            self._log.info("another run has kept what it found of the sources: the next one goes on from there")
        else:
            self._kept = after

    def _known(self) -> tuple[SourcesFound, bool]:
        """What was kept last, and whether nobody can read that."""
        if self._kept is not None:
            return self._kept, False
        try:
            return self._found.read(), False
        except UnreadableItem:
            self._log.exception("what was found of the sources cannot be read back: it is kept anew")
            return SourcesFound(), True

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
