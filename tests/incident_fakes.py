"""In-memory doubles of the ports of incidents and paging. The contract tests hold them to what the adapters do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from functions.core.failure import VersionConflict
from functions.core.incident import Board, Incident, IncidentChange
from tests.fakes import FakeTables


class FakeIncidents:
    """`ports.Incidents`, with its audit in `tables`."""

    def __init__(self, tables: FakeTables) -> None:
        self.tables = tables
        self.faults = tables.faults
        self.incidents: dict[str, Incident] = {}
        self.stored_board = Board()

    def get(self, incident_id: str) -> Incident | None:
        """See the port."""
        with self.faults.around("incidents.get"), self.tables.lock:
            return self.incidents.get(incident_id)

    def several(self, incident_ids: Sequence[str]) -> Mapping[str, Incident]:
        """See the port."""
        with self.faults.around("incidents.several"), self.tables.lock:
            return {one: self.incidents[one] for one in incident_ids if one in self.incidents}

    def board(self) -> Board:
        """See the port."""
        with self.faults.around("incidents.board"), self.tables.lock:
            return self.stored_board

    def store(self, change: IncidentChange) -> None:
        """See the port."""
        with self.faults.around("incidents.store"), self.tables.lock:
            if change.after is not None:
                found = self.incidents.get(change.after.incident_id)
                seen = None if change.before is None else change.before.version
                if (None if found is None else found.version) != seen:
                    raise VersionConflict(f"{change.after.incident_id} has moved on since it was read")
            if change.board is not None and self.stored_board.version != change.board[0].version:
                raise VersionConflict("the board of incidents has moved on since it was read")
            if change.after is not None:
                self.incidents[change.after.incident_id] = Incident.from_json(change.after.to_json())
            if change.board is not None:
                self.stored_board = change.board[1]
            self.tables.put_audit(change.audit)
