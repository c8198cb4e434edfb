"""Incidents and their rules, for tests."""

from __future__ import annotations

from datetime import time
from zoneinfo import ZoneInfo

from functions.core.alarms import Audience, Sev
from functions.core.business_time import Calendar
from functions.core.incident import Board, Incident, IncidentChange, Rules, State, Symptom, Who, opened, rang
from tests.fakes import NOON_MS

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
CALENDAR = Calendar(ZoneInfo("UTC"), time(9), time(17), frozenset(range(5)))
RULES = Rules(CALENDAR, 1.0, "incident_lead", "communications")
ADA = Who("ada", "request-7", "trace-7")
STORM = Symptom(
    "reply-storm",
    "More replies than questions",
    Sev.SEV0,
    Audience.OPS,
    "incident_lead",
    "alarms.md#reply-storm",
    "replies",
)
DOWN = Symptom(
    "integration-down", "A provider is down", Sev.SEV2, Audience.OPS, "ops", "alarms.md#integration-down", "providers"
)
WEAK = Symptom(
    "classifier-weak",
    "The LLM is weak",
    Sev.SEV3,
    Audience.ML,
    "ml",
    "alarms.md#classifier-weak",
    "providers",
    is_page=False,
)
OUT = Symptom(
    "classifier-out", "The LLM is out", Sev.SEV1, Audience.OPS, "ops", "alarms.md#classifier-out", "providers"
)


def rung(
    symptom: Symptom,
    at_ms: int = NOON_MS,
    incident: Incident | None = None,
    board: Board | None = None,
    *,
    is_firing: bool = True,
    rules: Rules = RULES,
    new_id: str = "ab" * 16,
) -> IncidentChange:
    """What comes of it that the alarm has changed its state, which is heard in that moment."""
    change = rang(
        symptom,
        is_firing=is_firing,
        at_ms=at_ms,
        incident=incident,
        board=board or Board(),
        now_ms=at_ms,
        new_id=new_id,
        rules=rules,
    )
    assert change is not None
    return change


def fired(
    symptom: Symptom,
    at_ms: int = NOON_MS,
    incident: Incident | None = None,
    board: Board | None = None,
    *,
    rules: Rules = RULES,
    new_id: str = "ab" * 16,
) -> tuple[Incident, Board]:
    """The incident and the board after the alarm has fired."""
    return after(rung(symptom, at_ms, incident, board, rules=rules, new_id=new_id), board or Board())


def quiet(symptom: Symptom, at_ms: int, incident: Incident, board: Board) -> tuple[Incident, Board]:
    """The incident and the board after the alarm has become quiet."""
    return after(rung(symptom, at_ms, incident, board, is_firing=False), board)


def after(change: IncidentChange, board: Board) -> tuple[Incident, Board]:
    """What a change leaves behind."""
    assert change.after is not None
    return change.after, board if change.board is None else change.board[1]


def by_hand(
    severity: Sev = Sev.SEV2, title: str = "customers say they got it twice", *, is_test: bool = False
) -> tuple[Incident, Board]:
    """An incident that a person has opened."""
    made = Incident(
        incident_id=f"{severity.value}-1-abcdef",
        state=State.OPEN,
        severity=severity,
        title=title,
        opened_at_ms=NOON_MS,
        opened_by=ADA.name,
        request_id=ADA.request_id,
        is_test=is_test,
    )
    return after(opened(made, Board(), NOON_MS, ADA, RULES), Board())
