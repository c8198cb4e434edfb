"""Moves an incident on, together with the board of them all, which others move too."""

from __future__ import annotations

from collections.abc import Callable

from functions.core.failure import VersionConflict
from functions.core.incident import Board, Incident, IncidentChange
from functions.core.ports import Incidents

TRIES = 8  # two pagers and the tick may be at the same board, and in a storm they are


def move(
    incidents: Incidents, incident_id: str, change: Callable[[Incident, Board], IncidentChange | None]
) -> Incident | None:
    """Store what `change` makes of the incident and the board as they are, again while others come between; gives the
    incident after it, or as it is where `change` makes nothing of it. None: there is no such incident.

    Raises `VersionConflict` where others always come between, `StorageUnavailable`, and what `change` raises.
    """
    for tried in range(1, TRIES + 1):
        board = incidents.board()
        incident = incidents.get(incident_id)
        if incident is None:
            return None
        made = change(incident, board)
        if made is None:
            return incident
        try:
            incidents.store(made)
        except VersionConflict:
            if tried == TRIES:
                raise
            continue
        return made.after
    raise AssertionError("the last try returns or raises")
