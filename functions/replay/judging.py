"""What a replay would do with rows now, with everything read that it depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final

from functions.core.failure import MalformedDecision
from functions.core.gate import IntegrationState, Standing
from functions.core.integration import INTAKE
from functions.core.ledger import LedgerItem
from functions.core.quarantine import QUARANTINED
from functions.core.recipient import standing_on
from functions.core.recovery import HELD, Row
from functions.core.replay import Filter, Predicted, Prediction, Seen, goes, predict
from functions.core.switches import FRESH_FOR_MS, KNOWN_FOR_MS, Snapshot, view
from functions.replay.ports import Ports

AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Look:
    """The switches and the control items, as they were just read."""

    snapshot: Snapshot
    states: Mapping[str, IntegrationState] = field(default_factory=dict)


class Judge:
    """Judges rows for one job."""

    def __init__(
        self, ports: Ports, wanted: Filter, scale: float, *, look_only: bool, asks_about_people: bool = True
    ) -> None:
        self._ports = ports
        self._asks_about_people = asks_about_people
        self._scale = scale
        self._look_only = look_only
        # Who names an item by its id means it, whoever keeps it aside.
        kept_aside: frozenset[str] = frozenset([HELD, QUARANTINED]) if wanted.recovery_id else frozenset()
        self._asked_for = wanted.failure_code | kept_aside

    def look(self) -> Look | None:
        """None where the switches cannot be known. Raises `StorageUnavailable`."""
        snapshot = self._ports.switches.snapshot(FRESH_FOR_MS)
        if snapshot is None or abs(self._ports.clock.now_ms() - snapshot.read_at_ms) > KNOWN_FOR_MS:
            return None
        return Look(snapshot, self._ports.ledger.read([], sorted(self._ports.integrations)).integrations)

    def judge(self, rows: Sequence[Row], look: Look) -> list[Predicted]:
        """What would become of each. Recipients are asked about only where everything else would let a row go.

        Raises `StorageUnavailable`.
        """
        found, unreadable = items_of(self._ports, rows)
        judged: list[Predicted] = []
        asked: list[int] = []
        seen = [self._seen(row, look, found.get(key_of(row))) for row in rows]
        for place, (row, one) in enumerate(zip(rows, seen, strict=True)):
            if key_of(row) in unreadable:
                judged.append(Predicted(Prediction.SCHEMA_UNKNOWN, "its ledger item cannot be read back"))
                continue
            judged.append(predict(row, one))
            is_visible = row.action is not None and row.action.customer_visible
            if self._asks_about_people and is_visible and goes(judged[-1].prediction, look_only=self._look_only):
                asked.append(place)
        if asked:
            with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
                standings = list(pool.map(lambda place: self._standing(rows[place]), asked))
            for place, standing in zip(asked, standings, strict=True):
                judged[place] = predict(rows[place], replace(seen[place], standing=standing))
        return judged

    def _seen(self, row: Row, look: Look, item: LedgerItem | None) -> Seen:
        now_ms = self._ports.clock.now_ms()
        return Seen(
            now_ms=now_ms,
            switches=view(look.snapshot, flow=row.flow, source=row.source, tenant=row.tenant, now_ms=now_ms),
            state=look.states.get(row.integration_id) or IntegrationState(row.integration_id),
            known=self._ports.integrations.get(row.integration_id),
            item=item,
            unknown=self._ports.known.why_not(row),
            asked_for=self._asked_for,
            look_only=self._look_only,
            scale=self._scale,
        )

    def _standing(self, row: Row) -> Standing:
        known = self._ports.integrations[row.integration_id]
        recipient = "" if row.action is None else row.action.recipient
        return standing_on(self._ports.recipients.person(row.tenant, recipient), known.channel)


def items_of(ports: Ports, rows: Sequence[Row]) -> tuple[Mapping[str, LedgerItem], set[str]]:
    """The ledger items of the rows' events, by `key_of`, and the keys of those that cannot be read back. Raises
    `StorageUnavailable`.
    """
    keys = list(dict.fromkeys(key_of(row) for row in rows))
    try:
        return ports.ledger.read(keys, []).items, set()
    except MalformedDecision:
        ports.log.exception("a ledger item cannot be read back: they are read one by one")
    found: dict[str, LedgerItem] = {}
    unreadable: set[str] = set()
    for key in keys:
        try:
            found |= ports.ledger.read([key], []).items
        except MalformedDecision:
            ports.metrics.count("items_unreadable")
            unreadable.add(key)
    return found, unreadable


def swept(ports: Ports) -> tuple[str, ...]:
    """Every integration that rows can belong to."""
    return (INTAKE, *(name for name in ports.integrations if name != INTAKE))


def key_of(row: Row) -> str:
    """The ledger's key of the row's event."""
    return f"E#{row.tenant}#{row.event_id}"
