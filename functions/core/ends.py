"""Whose an end is: nobody's, or people's; and whether it may wait until somebody looks (architecture §7, §10). Pure.

No failure is silent, so this names what nobody need look at, and nothing else: a failure code that nobody has thought
of is people's.
"""

from __future__ import annotations

from enum import StrEnum

from functions.core.attempt import Effect
from functions.core.decision import REPLY_EXPIRES_SECONDS
from functions.core.failure import RootCause
from functions.core.person import OPTED_OUT_THERE
from functions.core.quarantine import QUARANTINED
from functions.core.recovery import EXPIRED, HELD, SUPPRESSED, TAKEN_BACK, Change, Row, Status, Subject
from functions.core.synthetic import is_synthetic


class Attention(StrEnum):
    """What an end asks of people."""

    NONE = "none"  # it was done, a person has ended it or keeps it, or nothing is lost, as of a synthetic event
    LOOK = "look"  # somebody looks at it, by the queue
    ACT = "act"  # it must be done, or a defect of ours did it and goes on doing so: an alarm


# What a person has ended, or has asked to be kept: they know of it.
_BY_PEOPLE = frozenset({"CANCELLED", "DISMISSED", "DONE_BY_HAND"})
_KEPT = frozenset({HELD, QUARANTINED})
# What was not sent because a switch, a mode or the recipient says so: that it was stopped is what was wanted.
_WANTED = frozenset({SUPPRESSED, OPTED_OUT_THERE})


def attention(change: Change, *, is_critical: bool) -> Attention:
    """What the change asks of people. `is_critical`: what its event calls for must arrive."""
    row = change.after
    is_critical = is_critical and not _only_counts(row)
    was_ended = change.before is not None and not change.before.is_open
    if row.is_open or was_ended or _is_done(row) or is_synthetic(row.flow):
        return Attention.NONE
    if not _is_for_people(row, is_critical=is_critical):
        return Attention.NONE
    return Attention.ACT if is_critical or _cannot_wait(row) else Attention.LOOK


def _is_done(row: Row) -> bool:
    """Done or superseded; or back where it was, after a replay that never was tried: it was counted then."""
    return row.status is Status.SUCCEEDED or row.result in ("succeeded", TAKEN_BACK)


def _is_for_people(row: Row, *, is_critical: bool) -> bool:
    code = row.failure_code
    if code in _BY_PEOPLE:
        return False
    if row.effect is Effect.UNKNOWN:
        return True  # whatever ended it: only a person can find out
    if code in _KEPT:
        return False
    if is_critical:
        return True
    return code not in _WANTED and not (code == EXPIRED and _is_reply(row))


def _only_counts(row: Row) -> bool:
    """What it is about has arrived: whether it did so twice may wait until somebody looks."""
    return row.action is not None and row.action.counted_id != ""


def _is_reply(row: Row) -> bool:
    """It is worth nothing after its minutes, and its conversation lies before a person anyway."""
    return row.action is not None and row.action.expires_seconds <= REPLY_EXPIRES_SECONDS


def _cannot_wait(row: Row) -> bool:
    """A whole event, of which nothing was done; what may have happened; what moves money; a defect of ours."""
    is_money = row.tracks_effect and row.action is not None and not row.action.customer_visible
    is_unclear = row.effect is Effect.UNKNOWN
    return row.subject is Subject.EVENT or is_unclear or is_money or row.root_cause == RootCause.CODE_DEFECT.value
