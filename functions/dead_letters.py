"""Messages that go no further become `intake` rows, with what they said in the bucket (architecture §7, Triage).

Whoever calls lets the message go only afterwards, so that a crash in between repeats this, and the same message meets
its own row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from functions.core.clock import Clock
from functions.core.event import ClaimCheck, Event
from functions.core.ports import Envelopes, Recovery
from functions.core.recovery import PAYLOAD_MISMATCH, Row, dead_first
from functions.core.rows import event_row, name_of, unreadable_row
from functions.core.triage import Finding
from functions.ended import Meter, count_ended


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is known of a message now. `is_new` is False where its row was there before."""

    row: Row
    finding: Finding
    is_new: bool

    @property
    def about(self) -> dict[str, Any]:
        """For the log."""
        return {
            "recovery_id": self.row.recovery_id,
            "code": self.finding.code,
            "root_cause": self.finding.root_cause.value,
            "outcome": "recorded" if self.is_new else "row_exists",
        }


class DeadLetters:
    """Writes the rows. Every method raises `StorageUnavailable` where that failed: the message must stay."""

    def __init__(self, recovery: Recovery, envelopes: Envelopes, clock: Clock, meter: Meter) -> None:
        self._recovery = recovery
        self._envelopes = envelopes
        self._clock = clock
        self._meter = meter

    def event(self, message: Event | ClaimCheck, finding: Finding) -> Recorded:
        """Of an event that can be read. That of a claim check needs no copy of what it names, nor to read it."""
        match message:
            case ClaimCheck(event, reference):
                pass
            case Event() as event:
                reference = self._envelopes.put(event)
        variant = event.payload_hash if finding.code == PAYLOAD_MISMATCH else ""
        return self._record(event_row(event, reference, self._clock.now_ms(), variant), finding)

    def unreadable(self, content: bytes, finding: Finding, request_id: str) -> Recorded:
        """Of what no version of ours could read."""
        name = name_of(content)
        reference = self._envelopes.put_raw(name, content)
        return self._record(unreadable_row(name, reference, self._clock.now_ms(), request_id), finding)

    def _record(self, row: Row, finding: Finding) -> Recorded:
        change = dead_first(row, finding.code, finding.evidence, finding.root_cause, finding.status)
        is_new = self._recovery.put_if_absent(change)
        if is_new:
            count_ended(self._meter, change, is_critical=False)  # a whole event is never less
        return Recorded(row, finding, is_new)
