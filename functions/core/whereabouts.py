"""How far an event has come, in five words: the same for its sender, who hears nothing else, and for operators."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from functions.core.ledger import LedgerStatus
from functions.core.quarantine import QUARANTINED
from functions.core.recovery import HELD, SUPPRESSED, Status


class Whereabouts(StrEnum):
    """Of an event. `accepted`: it is in a queue. `processing`: a worker has it. `waiting`: something of it comes later
    by itself, or when somebody lets it go on. `settled`: all of it is done, or was not to be done. `ended`: something
    of it was not done, and nothing more happens by itself.
    """

    ACCEPTED = "accepted"
    PROCESSING = "processing"
    WAITING = "waiting"
    SETTLED = "settled"
    ENDED = "ended"


class Fate(StrEnum):
    """Of one row."""

    OPEN = "open"
    DONE = "done"
    NOT_WANTED = "not_wanted"
    ENDED = "ended"


_RESULTS = {"": Fate.OPEN, "succeeded": Fate.DONE}


def fate_of(status: Status, result: str, failure_code: str) -> Fate:
    """What a row's fields say. What is held or in quarantine waits for a person to let it go on; what was suppressed is
    wanted no more.

    An `ended` row is one that a person may still bring back, or has given up.
    """
    if status in (Status.PENDING, Status.RETRYING):
        return Fate.OPEN
    if status is Status.SUCCEEDED:
        return Fate.DONE
    if status is Status.REPLAYED:
        return _RESULTS.get(result, Fate.ENDED)
    return _CODES.get(failure_code, Fate.ENDED) if status is Status.FAILED else Fate.ENDED


_CODES = {HELD: Fate.OPEN, QUARANTINED: Fate.OPEN, SUPPRESSED: Fate.NOT_WANTED, "DONE_BY_HAND": Fate.DONE}


def whereabouts(
    status: LedgerStatus | None,
    lease_until_ms: int,
    of_event: Collection[Fate],
    of_actions: Collection[Fate],
    now_ms: int,
) -> Whereabouts | None:
    """By its ledger item (None: it has none), by the row of the whole event, and by those of its actions.

    None where neither item nor row is there: it was never accepted, is still in the queue, or is forgotten.
    """
    if status is LedgerStatus.SETTLED:
        return _by(of_actions)
    if status is LedgerStatus.PROCESSING and lease_until_ms > now_ms:
        return Whereabouts.PROCESSING
    if of_event:
        return _by(of_event)
    return Whereabouts.ACCEPTED if status is LedgerStatus.PROCESSING else None


def _by(fates: Collection[Fate]) -> Whereabouts:
    if Fate.OPEN in fates:
        return Whereabouts.WAITING
    return Whereabouts.ENDED if Fate.ENDED in fates else Whereabouts.SETTLED
