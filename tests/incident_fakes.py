"""In-memory doubles of the ports of incidents and paging. The contract tests hold them to what the adapters do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from functions.core.failure import VersionConflict
from functions.core.incident import Board, Incident, IncidentChange
from functions.core.page import Change, Letter
from functions.core.ports import Sent
from tests.fakes import FakeTables, Faults


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


class FakeChannels:
    """`ports.OnCallChannels`. `sent` are the letters by channel, in order. Channels in `down` take nothing; `elsewhere`
    says who has acknowledged which call where they were paged.
    """

    def __init__(self, *names: str) -> None:
        self.names = names or ("sns",)
        self.sent: list[tuple[str, Letter]] = []
        self.down: set[str] = set()
        self.elsewhere: dict[str, str] = {}

    def send(self, letter: Letter, already: Sequence[str] = ()) -> Sent:
        """See the port."""
        asked = [name for name in self.names if name not in already]
        took = tuple(name for name in asked if name not in self.down)
        self.sent += [(name, letter) for name in took]
        return Sent(took, {name: "DOWN" for name in asked if name in self.down})

    def acknowledged(self, calls: Sequence[str]) -> Mapping[str, str]:
        """See the port."""
        return {one: self.elsewhere[one] for one in calls if one in self.elsewhere}


class FakeRecentChanges:
    """`ports.RecentChanges`."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = Faults() if faults is None else faults
        self.changes: list[Change] = []

    def since(self, since_ms: int) -> Sequence[Change]:
        """See the port."""
        with self.faults.around("changes.since"):
            found = [change for change in self.changes if change.at_ms >= since_ms]
            return sorted(found, key=lambda change: (-change.at_ms, change.kind, change.name))
