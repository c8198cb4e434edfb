"""What has gone wrong for people, from the alarm or the person that says so to its end: who was told, who has it in
hand, which clock runs (runbook 001, "Severity Classification" and "Incident Response Workflow"). Pure;
`ports.Incidents` stores it.

    open ──acknowledge──▶ acknowledged ──mitigate──▶ mitigated ──resolve──▶ resolved
      ▲  └────────────────mitigate──────────────────▲  │
      └──────────────────────recur─────────────────────┘      whatever is open can be resolved

Alarms of one group are one incident for as long as it is open. Pages that must go out are written together with what
calls for them, so that none is lost with the process that would have sent it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, TypeVar

from functions.core.alarms import Audience, Sev, by_name
from functions.core.audit import MACHINE, AuditEvent, AuditType, Severity, audit_id
from functions.core.business_time import Calendar
from functions.core.compact import compact
from functions.core.failure import HoldfastError
from functions.core.machine import ABSENT, Machine, steps

_T = TypeVar("_T")

ENTITY = "incident"
_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS

ACKNOWLEDGE_MS: Mapping[Sev, int] = {Sev.SEV0: 15 * _MINUTE_MS, Sev.SEV1: 15 * _MINUTE_MS, Sev.SEV2: _HOUR_MS}
"""Within what time somebody has it in hand. SEV3: one business day, by the calendar."""
MITIGATE_MS: Mapping[Sev, int] = {Sev.SEV0: 15 * _MINUTE_MS, Sev.SEV1: 2 * _HOUR_MS, Sev.SEV2: 8 * _HOUR_MS}
"""Within what time it does no more harm. SEV0: at once, which a person can be held to from when they have it in hand.
SEV3 has none: it is fixed with the next release.
"""
UPDATE_MS: Mapping[Sev, int] = {Sev.SEV0: 30 * _MINUTE_MS, Sev.SEV1: 30 * _MINUTE_MS, Sev.SEV2: 2 * _HOUR_MS}
"""How often those who wait hear something."""
QUIET_MS = 5 * _MINUTE_MS  # that long none of its alarms fires: it is over
REVIEW_MS = 24 * _HOUR_MS  # after it is mitigated somebody has written down why it happened
TEST_MS = 10 * _MINUTE_MS  # a test page that has not arrived by then has failed
WORKING_DAY_MS = 8 * _HOUR_MS  # where waits are shortened, of which no calendar knows
SHORTEST_MS = 1_000
MOST_ESCALATIONS = 8
RECURS_MS = 24 * _HOUR_MS  # what fires that long after it was mitigated is another incident
GIVEN_UP_MS = 24 * _HOUR_MS  # a page that no channel took in that time is news to nobody
LEASE_MS = 60_000  # for one delivery, and from a failed one to the next
MOST_PAGES = 30
MOST_RECENT = 200
MOST_SEEN = 400
MOST_TOLD = 100
TEXT_LENGTH = 1_000
PAGE_LENGTH = 1_600  # an update with the longest title, impact and mitigation that there may be
POSTMORTEM_LENGTH = 30_000


class State(StrEnum):
    """Of an incident."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    MITIGATED = "mitigated"
    RESOLVED = "resolved"


_NOT_OVER = "open|acknowledged|mitigated"
_EVER = f"{_NOT_OVER}|resolved"

INCIDENT = Machine(
    "incident",
    "What has gone wrong for people: item `N#…` of the control table, written on condition of the version seen, with "
    "its audit events and the board of incidents in the same transaction.",
    steps(
        (ABSENT, "open", "open", "By an alarm, or by a person; both clocks run, and a page is to go out"),
        ("open", "acknowledge", "acknowledged", "Somebody has it in hand; nobody else is called for that"),
        ("open|acknowledged", "mitigate", "mitigated", "It does no more harm: a person says so, or its alarms are"),
        ("mitigated", "recur", "open", "An alarm of it fires again: both clocks run anew, and a page is to go out"),
        (
            _NOT_OVER,
            "resolve",
            "resolved",
            "SEV0 to SEV2 with a postmortem of the last time, and once everybody told knows",
        ),
        (_NOT_OVER, "alarm", "=", "An alarm of its group fires or is quiet again"),
        (_NOT_OVER, "severity", "=", "Another severity; what is worse than before pages"),
        (_NOT_OVER, "escalate", "=", "A clock has run out: the secondary is paged too"),
        (_NOT_OVER, "remind", "=", "The next update, or the review, is due"),
        (_EVER, "contain", "=", "What the machine has done, or could not do, by itself"),
        (_EVER, "note", "=", "What somebody has found out; impact, mitigation, next update, who has which part"),
        (_EVER, "tell", "=", "A message was made out for an audience"),
        (_EVER, "review", "=", "The postmortem is there"),
        (_EVER, "page", "=", "Somebody delivers its pages until then; or they arrived, or did not"),
    ),
)


class PageKind(StrEnum):
    """Why somebody is told."""

    OPENED = "opened"
    RECURRED = "recurred"
    RAISED = "raised"
    ESCALATED = "not acknowledged in time"
    OVERDUE = "not mitigated in time"
    UPDATE_DUE = "an update is due"
    REVIEW_DUE = "the postmortem is due"
    UPDATE = "update"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"
    TEST = "test"


CALLING = frozenset(
    {
        PageKind.OPENED,
        PageKind.RECURRED,
        PageKind.RAISED,
        PageKind.ESCALATED,
        PageKind.OVERDUE,
        PageKind.TEST,
    }
)
"""Of these somebody is to wake; the others are for reading."""


class Role(StrEnum):
    """Whom a page is for."""

    PRIMARY = "primary"
    SECONDARY = "secondary"


class IncidentConflict(HoldfastError):
    """The incident is in no state for that. `state` is the one that it is in."""

    def __init__(self, incident: Incident, what: str) -> None:
        super().__init__(f"the incident is {incident.state.value}: it cannot be {what}")
        self.state = incident.state


class NotFinished(HoldfastError):
    """The incident cannot be closed yet. The text says what is missing, and which command brings it."""


@dataclass(frozen=True, slots=True)
class Symptom:
    """What of an alarm an incident needs. `page` is `recovery.md#anchor` below the runbooks."""

    name: str
    says: str
    sev: Sev
    audience: Audience
    owner: str
    page: str
    group: str
    is_page: bool = True
    flow: str = ""
    is_moment: bool = False


@dataclass(frozen=True, slots=True)
class Signal:
    """One alarm of an incident: how often it was heard to fire before it was quiet again, and the last moments at which
    it did and at which it was quiet. `is_moment`: it tells of what has happened, and that it is quiet says nothing.
    """

    says: str
    sev: Sev
    fired_at_ms: int = 0
    cleared_at_ms: int = 0
    count: int = 0
    is_moment: bool = False

    @property
    def is_firing(self) -> bool:
        """Whether it has not been quiet since it fired."""
        return self.fired_at_ms > self.cleared_at_ms


@dataclass(frozen=True, slots=True)
class Page:
    """Something that people are to be told. Whoever delivers it has it until `taken_until_ms`; `took` are the channels
    that have taken it. `delivered_at_ms` is 0 until every channel has, or nobody waits for it any more.
    """

    number: int
    kind: PageKind
    to: tuple[Role, ...]
    asked_at_ms: int
    text: str = ""
    taken_until_ms: int = 0
    attempts: int = 0
    took: tuple[str, ...] = ()
    delivered_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """A message that was made out for an audience. `promised` is the id of the one that it promises to send once all is
    well; empty: none.
    """

    at_ms: int
    by: str
    template: str
    version: int
    audience: str
    promised: str = ""


@dataclass(frozen=True, slots=True)
class Contained:
    """What the machine does by itself: a switch that it sets, for a time or for good (`until_ms` 0). Until it `is_done`
    it is tried again.
    """

    switch: str
    value: str
    because: str
    at_ms: int
    until_ms: int = 0
    is_done: bool = False
    before: str = ""


@dataclass(frozen=True, slots=True)
class Incident:
    """One incident. Times are epoch milliseconds, 0: never.

    `scope` says who is affected, in words. `lead` and `communications` are roles. The clocks `acknowledge_due_ms` and
    `mitigate_due_ms` are 0 while they do not run. `postmortem` is Markdown. `recurrences`: how often it was open again;
    `reviewed_recurrences`: how often it had been when the postmortem was kept.
    """

    incident_id: str
    state: State
    severity: Sev
    title: str
    opened_at_ms: int
    opened_by: str
    request_id: str
    version: int = 1
    traceparent: str = ""
    audience: Audience = Audience.OPS
    owner: str = ""
    runbook: str = ""
    group: str = ""
    flow: str = ""
    is_page: bool = True
    is_test: bool = False
    alarms: Mapping[str, Signal] = field(default_factory=dict)
    lead: str = ""
    communications: str = ""
    scope: str = ""
    impact: str = ""
    mitigation: str = ""
    resolution: str = ""
    acknowledged_at_ms: int = 0
    acknowledged_by: str = ""
    acknowledge_due_ms: int = 0
    mitigated_at_ms: int = 0
    mitigated_by: str = ""
    mitigate_due_ms: int = 0
    escalations: int = 0
    resolved_at_ms: int = 0
    resolved_by: str = ""
    next_update_ms: int = 0
    remind_at_ms: int = 0
    told: tuple[Told, ...] = ()
    contained: tuple[Contained, ...] = ()
    postmortem: str = ""
    pages: tuple[Page, ...] = ()
    pages_made: int = 0
    recurrences: int = 0
    reviewed_recurrences: int = 0

    @property
    def is_over(self) -> bool:
        """Whether it is closed."""
        return self.state is State.RESOLVED

    @property
    def firing(self) -> tuple[str, ...]:
        """The alarms of it that have not been quiet since they fired."""
        return tuple(sorted(name for name, signal in self.alarms.items() if signal.is_firing))

    @property
    def owed(self) -> tuple[str, ...]:
        """The messages that were promised to people and are not made out yet, by id."""
        made = {one.template: one.at_ms for one in self.told}
        return tuple(
            sorted({one.promised for one in self.told if one.promised and made.get(one.promised, 0) <= one.at_ms})
        )

    @property
    def is_reviewed(self) -> bool:
        """Whether there is a postmortem that knows of the last time it happened."""
        return bool(self.postmortem) and self.reviewed_recurrences == self.recurrences

    @property
    def needs_postmortem(self) -> bool:
        """Whether one has to be there before it closes (runbook 001)."""
        return self.severity is not Sev.SEV3 and not self.is_test

    def to_json(self) -> str:
        """Compact JSON, read back by `from_json`. Letters as they are: spelled out, a postmortem in another script
        would be more than an item of the table may be.
        """
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Incident:
        """What a later release has written beside that is left out: who goes back to the one before, in the middle of
        an incident, still has it. Raises KeyError, TypeError or ValueError for what was not written here.
        """
        said: dict[str, Any] = json.loads(text)
        said |= {
            "state": State(said["state"]),
            "severity": Sev(said["severity"]),
            "audience": Audience(said["audience"]),
            "alarms": {name: _made(Signal, one | {"sev": Sev(one["sev"])}) for name, one in said["alarms"].items()},
            "told": tuple(_made(Told, one) for one in said["told"]),
            "contained": tuple(_made(Contained, one) for one in said["contained"]),
            "pages": tuple(_page(one) for one in said["pages"]),
        }
        return _made(Incident, said)


def _page(said: Mapping[str, Any]) -> Page:
    return _made(
        Page,
        {
            **said,
            "kind": PageKind(said["kind"]),
            "to": tuple(Role(one) for one in said["to"]),
            "took": tuple(said["took"]),
        },
    )


def _made(kind: type[_T], said: Mapping[str, Any]) -> _T:
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]  # each kind is one of the above
    return kind(**{name: value for name, value in said.items() if name in known})


@dataclass(frozen=True, slots=True)
class Board:
    """Which incidents there are, and what was last heard of every alarm: when it fired, and when it was quiet. One
    control item. `open` is by group.
    """

    open: Mapping[str, str] = field(default_factory=dict)
    active: tuple[str, ...] = ()
    recent: tuple[str, ...] = ()
    seen: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    version: int = 0

    def with_incident(self, incident: Incident, alarm: str = "", seen: tuple[int, int] = (0, 0)) -> Board:
        """As it is to be once the incident is as it is, and that is the last that was heard of the alarm."""
        others = {group: one for group, one in self.open.items() if one != incident.incident_id}
        is_new = incident.incident_id not in self.recent and incident.incident_id not in self.active
        if incident.group and not incident.is_over and (is_new or incident.group not in others):
            others[incident.group] = incident.incident_id
        active = tuple(one for one in self.active if one != incident.incident_id)
        if is_worked_on(incident):
            active = (*active, incident.incident_id)
        recent = self.recent
        if incident.incident_id not in recent:
            recent = (incident.incident_id, *recent)[:MOST_RECENT]
        heard = self._heard(alarm, seen)
        same = (others, set(active), recent, heard) == (self.open, set(self.active), self.recent, self.seen)
        return self if same else Board(others, active, recent, heard, self.version + 1)

    def having_heard(self, alarm: str, seen: tuple[int, int]) -> Board:
        """Without any incident for it."""
        return replace(self, seen=self._heard(alarm, seen), version=self.version + 1)

    def _heard(self, alarm: str, seen: tuple[int, int]) -> Mapping[str, tuple[int, int]]:
        if not alarm:
            return self.seen
        heard = {**self.seen, alarm: seen}
        newest = sorted(heard, key=lambda name: max(heard[name]))[-MOST_SEEN:]
        return {name: heard[name] for name in sorted(newest)}


def is_worked_on(incident: Incident) -> bool:
    """Whether the tick looks at it: it is not over, or something of it is still to be done."""
    waits = any(not page.delivered_at_ms for page in incident.pages)
    return not incident.is_over or waits or any(not one.is_done for one in incident.contained)


@dataclass(frozen=True, slots=True)
class IncidentChange:
    """One write of an incident, on condition of the version of `before` (None: there is none yet). With `board`, also
    of the board: on condition of the version before. Without `after` it is of the board alone.
    """

    before: Incident | None
    after: Incident | None
    board: tuple[Board, Board] | None = None
    audit: tuple[AuditEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """How long is what. `scale` multiplies every wait; where it is 1, working days are those of the calendar."""

    calendar: Calendar
    scale: float = 1.0
    lead: str = ""
    communications: str = ""

    def scaled(self, milliseconds: int) -> int:
        """That long, as this stage waits."""
        return max(SHORTEST_MS, int(milliseconds * self.scale))

    def acknowledge_due(self, severity: Sev, from_ms: int) -> int:
        """By when somebody has it in hand."""
        within = ACKNOWLEDGE_MS.get(severity)
        if within is None:
            if self.scale == 1.0:
                return self.calendar.one_day_after(from_ms)
            within = WORKING_DAY_MS
        return from_ms + self.scaled(within)

    def mitigate_due(self, severity: Sev, from_ms: int) -> int:
        """By when it does no more harm; 0: with the next release."""
        within = MITIGATE_MS.get(severity)
        return 0 if within is None else from_ms + self.scaled(within)

    def update_due(self, severity: Sev, from_ms: int) -> int:
        """By when those who wait hear something; 0: nobody waits."""
        within = UPDATE_MS.get(severity)
        return 0 if within is None else from_ms + self.scaled(within)


@dataclass(frozen=True, slots=True)
class Who:
    """Who does it, under which ids."""

    name: str = MACHINE
    request_id: str = ""
    traceparent: str = ""


THE_MACHINE = Who()


def runs_out_first(incident: Incident) -> int:
    """When the next of its clocks runs out; 0: none runs."""
    running = [moment for moment in (incident.acknowledge_due_ms, incident.mitigate_due_ms) if moment]
    return min(running, default=0)


def call_of(incident_id: str, recurrences: int) -> str:
    """What somebody is called by where calls are acknowledged: what was acknowledged, or closed, there before it
    happened again is no answer to the new call.
    """
    return f"{incident_id}#{recurrences}" if recurrences else incident_id


# ------------------------------------------------------------------------------------------------------------- opening


def id_of(at_ms: int, new_id: str) -> str:
    """What people call it: short enough to be said, whatever becomes of its severity. `new_id` is 32 hexadecimal
    digits; of two in one second that end alike the second is refused, and tried again under another.
    """
    return f"INC-{at_ms // 1000}-{new_id[-6:]}"


def opened(
    incident: Incident,
    board: Board,
    now_ms: int,
    who: Who,
    rules: Rules,
    reason: str = "",
    *,
    heard: _Heard | None = None,
) -> IncidentChange:
    """A new one, with both its clocks, and a page for whoever is on call. `incident` is what is known of it."""
    INCIDENT.require(ABSENT, State.OPEN.value, incident.incident_id)
    kind = PageKind.TEST if incident.is_test else PageKind.OPENED
    after = _with_page(
        replace(
            incident,
            lead=incident.lead or rules.lead,
            communications=incident.communications or rules.communications,
            **_clocks(incident.severity, now_ms, rules),
        ),
        kind,
        (Role.PRIMARY, Role.SECONDARY) if incident.is_test else (Role.PRIMARY,),
        now_ms,
    )
    event = _event(
        AuditType.INCIDENT_OPENED, None, after, now_ms, who, f"{after.title}{f': {reason}' if reason else ''}"
    )
    boards = board, board.with_incident(after, *(() if heard is None else (heard.alarm, heard.seen)))
    return IncidentChange(None, after, boards, (event,))


def _clocks(severity: Sev, from_ms: int, rules: Rules) -> dict[str, Any]:
    next_update_ms = rules.update_due(severity, from_ms)
    return {
        "acknowledge_due_ms": rules.acknowledge_due(severity, from_ms),
        "mitigate_due_ms": rules.mitigate_due(severity, from_ms),
        "next_update_ms": next_update_ms,
        "remind_at_ms": next_update_ms,
        "escalations": 0,
    }


@dataclass(frozen=True, slots=True)
class _Heard:
    alarm: str
    seen: tuple[int, int]


def is_news(board: Board, alarm: str, *, is_firing: bool, at_ms: int) -> bool:
    """Whether it was not heard before: messages come twice, and late."""
    fired_ms, cleared_ms = board.seen.get(alarm, (0, 0))
    return at_ms > (fired_ms if is_firing else cleared_ms)


def rang(
    symptom: Symptom,
    *,
    is_firing: bool,
    at_ms: int,
    incident: Incident | None,
    board: Board,
    now_ms: int,
    new_id: str,
    rules: Rules,
) -> IncidentChange | None:
    """What a change of an alarm's state leads to; None: it was heard before. `incident` is the open one of its group.

    The order in which changes come does not matter: of each alarm the last moments count at which it fired and was
    quiet, as CloudWatch gives them. One that fired and was quiet again before anybody heard of it opens an incident
    nevertheless.
    """
    if not is_news(board, symptom.name, is_firing=is_firing, at_ms=at_ms):
        return None
    fired_ms, cleared_ms = board.seen.get(symptom.name, (0, 0))
    seen = (at_ms, cleared_ms) if is_firing else (fired_ms, at_ms)
    if incident is not None and not (is_firing and _is_another(incident, now_ms, rules)):
        return _heard_again(symptom, seen, incident, board, now_ms, rules, is_firing=is_firing)
    if not is_firing:
        return IncidentChange(None, None, (board, board.having_heard(symptom.name, seen)))
    made = Incident(
        incident_id=id_of(now_ms, new_id),
        state=State.OPEN,
        severity=symptom.sev,
        title=symptom.says,
        opened_at_ms=now_ms,
        opened_by=symptom.name,
        request_id=new_id,
        audience=symptom.audience,
        owner=symptom.owner,
        runbook=symptom.page,
        group=symptom.group,
        flow=symptom.flow,
        is_page=symptom.is_page,
        alarms={symptom.name: Signal(symptom.says, symptom.sev, *seen, count=1, is_moment=symptom.is_moment)},
    )
    return opened(made, board, now_ms, THE_MACHINE, rules, heard=_Heard(symptom.name, seen))


def _is_another(incident: Incident, now_ms: int, rules: Rules) -> bool:
    """Whether what fires now is no part of it any more, though nobody has closed it yet."""
    is_harmless = incident.state is State.MITIGATED and not incident.firing
    return is_harmless and now_ms - incident.mitigated_at_ms >= rules.scaled(RECURS_MS)


def _heard_again(
    symptom: Symptom,
    seen: tuple[int, int],
    incident: Incident,
    board: Board,
    now_ms: int,
    rules: Rules,
    *,
    is_firing: bool,
) -> IncidentChange:
    known = incident.alarms.get(symptom.name, Signal(symptom.says, symptom.sev))
    signal = Signal(symptom.says, symptom.sev, *seen, is_moment=symptom.is_moment)
    signal = replace(signal, count=known.count + (is_firing and signal.is_firing))
    INCIDENT.require_line(incident.state.value, "alarm", incident.state.value, incident.incident_id)
    after = replace(incident, version=incident.version + 1, alarms={**incident.alarms, symptom.name: signal})
    events = [
        _event(
            AuditType.INCIDENT_ALARM,
            incident,
            after,
            now_ms,
            THE_MACHINE,
            f"{symptom.name} {'fires' if is_firing else 'is quiet'}: {symptom.says}",
        )
    ]
    # One that has fired here already has been judged, by a person maybe: that it fires again makes it no worse. That it
    # was quiet is nothing that anybody could judge.
    is_worse = not known.count and _rank(symptom.sev) < _rank(incident.severity)
    if is_worse and signal.is_firing:  # what it is called, and which page helps, is the gravest one's to say
        after = replace(after, title=symptom.says, audience=symptom.audience, owner=symptom.owner, runbook=symptom.page)
    if signal.is_firing and incident.state is State.MITIGATED:
        INCIDENT.require(incident.state.value, State.OPEN.value, incident.incident_id)
        worst = symptom.sev if is_worse else incident.severity
        after = _with_page(
            replace(
                after,
                state=State.OPEN,
                severity=worst,
                is_page=after.is_page or symptom.is_page,
                acknowledged_at_ms=0,
                acknowledged_by="",
                mitigated_at_ms=0,
                mitigated_by="",
                recurrences=incident.recurrences + 1,
                # Nobody has it in hand any more: that somebody had would only be told now.
                pages=tuple(page for page in incident.pages if not _is_late_acknowledgement(page)),
                **_clocks(worst, now_ms, rules),
            ),
            PageKind.RECURRED,
            (Role.PRIMARY,),
            now_ms,
        )
        events.append(
            _event(AuditType.INCIDENT_RECURRED, incident, after, now_ms, THE_MACHINE, f"{symptom.name} fires again")
        )
    elif signal.is_firing and (is_worse or (symptom.is_page and not incident.is_page)):
        worst = symptom.sev if is_worse else incident.severity
        after = _raised(replace(after, is_page=after.is_page or symptom.is_page), worst, now_ms, rules)
        events.append(
            _event(AuditType.INCIDENT_SEVERITY, incident, after, now_ms, THE_MACHINE, f"{symptom.name} fires as well")
        )
    return IncidentChange(incident, after, (board, board.with_incident(after, symptom.name, seen)), tuple(events))


def _is_late_acknowledgement(page: Page) -> bool:
    return page.kind is PageKind.ACKNOWLEDGED and not page.delivered_at_ms


def _raised(incident: Incident, severity: Sev, now_ms: int, rules: Rules) -> Incident:
    """As what is worse. The clocks run from now on; who has it in hand already still has."""
    clocks = _clocks(severity, now_ms, rules)
    if incident.state is not State.OPEN:
        clocks["acknowledge_due_ms"] = 0
    if incident.state is State.MITIGATED:  # nothing runs any more but the time until it is reviewed
        remind_at_ms = incident.remind_at_ms or (0 if incident.is_reviewed else now_ms + rules.scaled(REVIEW_MS))
        clocks |= {"mitigate_due_ms": 0, "next_update_ms": 0, "remind_at_ms": remind_at_ms}
    return _with_page(replace(incident, severity=severity, **clocks), PageKind.RAISED, (Role.PRIMARY,), now_ms)


def _rank(severity: Sev) -> int:
    return list(Sev).index(severity)


# --------------------------------------------------------------------------------------------------------- transitions


def _moved(
    incident: Incident,
    event: str,
    state: State,
    audited: AuditType,
    board: Board,
    now_ms: int,
    who: Who,
    reason: str,
    **fields: Any,
) -> IncidentChange:
    """The incident after that event, with its audit event, and the board as that makes it."""
    INCIDENT.require_line(incident.state.value, event, state.value, incident.incident_id)
    after = replace(incident, version=incident.version + 1, state=state, **fields)
    return _change(incident, after, audited, board, now_ms, who, reason)


def _change(
    incident: Incident, after: Incident, audited: AuditType, board: Board, now_ms: int, who: Who, reason: str
) -> IncidentChange:
    boards = board, board.with_incident(after)
    event = _event(audited, incident, after, now_ms, who, reason)
    return IncidentChange(incident, after, None if boards[0] is boards[1] else boards, (event,))


def acknowledged(incident: Incident, board: Board, now_ms: int, who: Who, reason: str = "") -> IncidentChange:
    """Somebody has it in hand. Raises `IncidentConflict` where somebody has already, or nobody has to."""
    if incident.state is not State.OPEN:
        raise IncidentConflict(incident, "acknowledged")
    return _moved(
        _with_page(incident, PageKind.ACKNOWLEDGED, (Role.PRIMARY, Role.SECONDARY), now_ms),
        "acknowledge",
        State.ACKNOWLEDGED,
        AuditType.INCIDENT_ACKNOWLEDGED,
        board,
        now_ms,
        who,
        reason or "in hand",
        acknowledged_at_ms=now_ms,
        acknowledged_by=who.name,
        acknowledge_due_ms=0,
    )


def mitigated(incident: Incident, board: Board, now_ms: int, who: Who, mitigation: str, rules: Rules) -> IncidentChange:
    """It does no more harm. Raises `IncidentConflict` where that is said already."""
    if incident.state not in (State.OPEN, State.ACKNOWLEDGED):
        raise IncidentConflict(incident, "mitigated")
    return _moved(
        incident,
        "mitigate",
        State.MITIGATED,
        AuditType.INCIDENT_MITIGATED,
        board,
        now_ms,
        who,
        mitigation,
        mitigation=mitigation,
        mitigated_at_ms=now_ms,
        mitigated_by=who.name,
        acknowledge_due_ms=0,
        mitigate_due_ms=0,
        next_update_ms=0,
        remind_at_ms=now_ms + rules.scaled(REVIEW_MS) if incident.needs_postmortem else 0,
    )


def resolved(incident: Incident, board: Board, now_ms: int, who: Who, resolution: str) -> IncidentChange:
    """It is over. Raises `IncidentConflict` where it is already, `NotFinished` where something is missing."""
    if incident.is_over:
        raise IncidentConflict(incident, "resolved")
    # One that no table of ours has, or has any more, may never be heard of again: nobody could ever close it.
    firing = [name for name in incident.firing if by_name(name) is not None]
    if firing and who.name != MACHINE and not incident.is_test:
        raise NotFinished(
            f"{', '.join(firing)} still fires: it would be opened again; mitigate it, or change what is wrong"
        )
    if incident.needs_postmortem and incident.postmortem and not incident.is_reviewed:
        raise NotFinished(
            f"its postmortem was kept before it happened again: holdfast incident postmortem {incident.incident_id} "
            "prints it; add what happened since, and --file POSTMORTEM.md keeps it anew"
        )
    if incident.needs_postmortem and not incident.postmortem:
        raise NotFinished(
            f"a {incident.severity.value} closes with its postmortem: "
            f"holdfast incident postmortem {incident.incident_id} prints the draft, --file brings it back"
        )
    if incident.owed:
        raise NotFinished(
            f"people were promised to hear when it is over: {', '.join(incident.owed)}; "
            f"holdfast incident message {incident.incident_id} --template {incident.owed[0]} --feature FEATURE"
        )
    return _moved(
        _with_page(incident, PageKind.RESOLVED, (Role.PRIMARY, Role.SECONDARY), now_ms),
        "resolve",
        State.RESOLVED,
        AuditType.INCIDENT_RESOLVED,
        board,
        now_ms,
        who,
        resolution,
        resolution=resolution,
        resolved_at_ms=now_ms,
        resolved_by=who.name,
        **_STOPPED,
    )


_STOPPED: Mapping[str, int] = {
    "acknowledge_due_ms": 0,
    "mitigate_due_ms": 0,
    "next_update_ms": 0,
    "remind_at_ms": 0,
}


def reclassified(
    incident: Incident, severity: Sev, board: Board, now_ms: int, who: Who, reason: str, rules: Rules
) -> IncidentChange:
    """Another severity: a worse one pages and starts the clocks anew; a lesser one reckons from when it was opened.
    Raises `IncidentConflict` where it is over, or has that one.
    """
    if incident.is_over or severity is incident.severity:
        raise IncidentConflict(incident, f"made {severity.value} from {incident.severity.value}")
    INCIDENT.require_line(incident.state.value, "severity", incident.state.value, incident.incident_id)
    before = replace(incident, version=incident.version + 1)
    if _rank(severity) < _rank(incident.severity):
        after = _raised(replace(before, is_page=True), severity, now_ms, rules)
    else:
        clocks = _clocks(severity, incident.opened_at_ms, rules)
        running = ("acknowledge_due_ms", "mitigate_due_ms", "next_update_ms", "remind_at_ms")
        kept: dict[str, Any] = {name: clocks[name] if getattr(incident, name) else 0 for name in running}
        if incident.state is State.MITIGATED:
            kept["remind_at_ms"] = incident.remind_at_ms if severity is not Sev.SEV3 else 0
        after = replace(before, severity=severity, **kept)
    return _change(incident, after, AuditType.INCIDENT_SEVERITY, board, now_ms, who, reason)


@dataclass(frozen=True, slots=True)
class Findings:
    """What somebody has found out; None: nothing new of that."""

    text: str = ""
    scope: str | None = None
    impact: str | None = None
    mitigation: str | None = None
    next_update_ms: int | None = None
    lead: str | None = None
    communications: str | None = None


def noted(incident: Incident, findings: Findings, board: Board, now_ms: int, who: Who) -> IncidentChange:
    """What somebody has found out, for whoever looks next, also once it is over."""
    said = {
        name: value
        for name in ("scope", "impact", "mitigation", "next_update_ms", "lead", "communications")
        if (value := getattr(findings, name)) is not None
    }
    words = [f"{name}: {value}" for name, value in said.items() if name != "next_update_ms"]
    if findings.next_update_ms is not None and not incident.is_over:
        said["remind_at_ms"] = findings.next_update_ms
    reason = "; ".join(part for part in (findings.text, *words) if part)
    return _moved(incident, "note", incident.state, AuditType.INCIDENT_NOTED, board, now_ms, who, reason, **said)


def told(
    incident: Incident, made: Told, text: str, board: Board, now_ms: int, who: Who, rules: Rules, *, is_internal: bool
) -> IncidentChange:
    """A message was made out. One for our own people goes out like a page; whoever hands on the others is in `made`."""
    seen = incident
    fields: dict[str, Any] = {"told": (*incident.told, made)[-MOST_TOLD:]}
    if is_internal:
        seen = _with_page(incident, PageKind.UPDATE, (Role.PRIMARY, Role.SECONDARY), now_ms, text)
    if not incident.is_over and incident.state is not State.MITIGATED:
        next_update_ms = incident.next_update_ms
        if next_update_ms <= now_ms:
            next_update_ms = rules.update_due(incident.severity, now_ms)
        fields |= {"next_update_ms": next_update_ms, "remind_at_ms": next_update_ms}
    reason = f"{made.template} version {made.version}, for {made.audience}: {text}"
    return _moved(seen, "tell", incident.state, AuditType.INCIDENT_TOLD, board, now_ms, who, reason, **fields)


def reviewed(incident: Incident, postmortem: str, board: Board, now_ms: int, who: Who) -> IncidentChange:
    """Why it happened and what follows is written down."""
    return _moved(
        incident,
        "review",
        incident.state,
        AuditType.INCIDENT_REVIEWED,
        board,
        now_ms,
        who,
        "postmortem written" if not incident.postmortem else "postmortem written anew",
        postmortem=postmortem,
        reviewed_recurrences=incident.recurrences,
        remind_at_ms=0 if incident.state is State.MITIGATED else incident.remind_at_ms,
    )


def contained(incident: Incident, done: Contained, board: Board, now_ms: int) -> IncidentChange:
    """What the machine has done, or is to do, by itself; in place of what was said of the same switch."""
    return _moved(
        incident,
        "contain",
        incident.state,
        AuditType.INCIDENT_CONTAINED,
        board,
        now_ms,
        THE_MACHINE,
        _said_of(done),
        contained=_with_contained(incident, done),
    )


def and_contained(change: IncidentChange, done: Contained, now_ms: int) -> IncidentChange:
    """The change, and in the same write what the machine has done because of it, or could not do."""
    if change.after is None:
        return change
    after = replace(change.after, contained=_with_contained(change.after, done))
    event = _event(AuditType.INCIDENT_CONTAINED, change.before, after, now_ms, THE_MACHINE, _said_of(done))
    return replace(change, after=after, audit=(*change.audit, event))


def _with_contained(incident: Incident, done: Contained) -> tuple[Contained, ...]:
    """In place of what was said of the same switch; that it said so already takes nothing back from who has set it."""
    earlier = next((one for one in incident.contained if one.switch == done.switch), None)
    if earlier is not None and earlier.is_done and done.is_done and done.before == done.value == earlier.value:
        return incident.contained
    return (*(one for one in incident.contained if one is not earlier), done)


def _said_of(done: Contained) -> str:
    return f"{done.switch} {'set' if done.is_done else 'could not be set'} to {done.value}: {done.because}"


# --------------------------------------------------------------------------------------------------------------- clocks


def ticked(incident: Incident, board: Board, now_ms: int, rules: Rules) -> IncidentChange | None:
    """What the time that has passed leads to, one thing at a time; None: nothing."""
    if any(_is_given_up(page, now_ms, rules) for page in incident.pages):
        return _given_up(incident, board, now_ms, rules)
    if incident.is_over:
        return None
    if incident.is_test:
        return _tested(incident, board, now_ms, rules)
    return _recovered(incident, board, now_ms, rules) or _run_out(incident, board, now_ms, rules)


def _is_given_up(page: Page, now_ms: int, rules: Rules) -> bool:
    return not page.delivered_at_ms and now_ms - page.asked_at_ms >= rules.scaled(GIVEN_UP_MS)


def _given_up(incident: Incident, board: Board, now_ms: int, rules: Rules) -> IncidentChange:
    """Pages that were on their way for too long. That they did not arrive was counted each minute, and is an alarm."""
    old = [page for page in incident.pages if _is_given_up(page, now_ms, rules)]
    pages = tuple(replace(page, delivered_at_ms=now_ms) if page in old else page for page in incident.pages)
    said = "; ".join(f"{page.kind.value}: given up, taken by {', '.join(page.took) or 'no channel'}" for page in old)
    return _moved(
        incident, "page", incident.state, AuditType.INCIDENT_PAGED, board, now_ms, THE_MACHINE, said, pages=pages
    )


def _tested(incident: Incident, board: Board, now_ms: int, rules: Rules) -> IncidentChange | None:
    page = incident.pages[0]
    if page.delivered_at_ms:
        resolution = f"delivered by {', '.join(page.took)}"
    elif now_ms - incident.opened_at_ms >= rules.scaled(TEST_MS):
        resolution = f"not delivered; taken by {', '.join(page.took) or 'no channel'}"
    else:
        return None
    dropped = replace(page, delivered_at_ms=page.delivered_at_ms or now_ms)
    return _moved(
        incident,
        "resolve",
        State.RESOLVED,
        AuditType.INCIDENT_RESOLVED,
        board,
        now_ms,
        THE_MACHINE,
        resolution,
        resolution=resolution,
        resolved_at_ms=now_ms,
        resolved_by=MACHINE,
        pages=(dropped, *incident.pages[1:]),
        **_STOPPED,
    )


def _recovered(incident: Incident, board: Board, now_ms: int, rules: Rules) -> IncidentChange | None:
    """Over by itself. Where the machine has switched something off it is quiet because of that, and an alarm on what
    has happened is always quiet a moment later: somebody looks at those first, and at every SEV0.
    """
    if not incident.alarms or incident.firing:
        return None
    quiet_since_ms = max(signal.cleared_at_ms for signal in incident.alarms.values())
    if now_ms - quiet_since_ms < rules.scaled(QUIET_MS):
        return None
    if incident.severity is Sev.SEV3 and not incident.owed:
        return resolved(incident, board, now_ms, THE_MACHINE, "its alarms are quiet again")
    is_stopped = incident.severity is Sev.SEV0 or any(one.is_done for one in incident.contained)
    says_nothing = is_stopped or any(signal.is_moment for signal in incident.alarms.values())
    is_unseen = says_nothing and incident.state is State.OPEN
    if incident.state is State.MITIGATED or is_unseen:
        return None
    return mitigated(
        incident, board, now_ms, THE_MACHINE, incident.mitigation or "none: its alarms are quiet again", rules
    )


def _run_out(incident: Incident, board: Board, now_ms: int, rules: Rules) -> IncidentChange | None:
    both = (Role.PRIMARY, Role.SECONDARY)
    if 0 < incident.acknowledge_due_ms <= now_ms:
        number = incident.escalations + 1
        due_ms = rules.acknowledge_due(incident.severity, now_ms) if number < MOST_ESCALATIONS else 0
        return _moved(
            _with_page(incident, PageKind.ESCALATED, both, now_ms),
            "escalate",
            incident.state,
            AuditType.INCIDENT_ESCALATED,
            board,
            now_ms,
            THE_MACHINE,
            f"nobody has acknowledged it in time ({number} of {MOST_ESCALATIONS})",
            acknowledge_due_ms=due_ms,
            escalations=number,
        )
    if 0 < incident.mitigate_due_ms <= now_ms:
        return _moved(
            _with_page(incident, PageKind.OVERDUE, both, now_ms),
            "escalate",
            incident.state,
            AuditType.INCIDENT_ESCALATED,
            board,
            now_ms,
            THE_MACHINE,
            "it is not mitigated in time: lead and communications decide together how it goes on",
            mitigate_due_ms=0,
        )
    if 0 < incident.remind_at_ms <= now_ms:
        is_review = incident.state is State.MITIGATED
        kind = PageKind.REVIEW_DUE if is_review else PageKind.UPDATE_DUE
        again_ms = now_ms + rules.scaled(REVIEW_MS) if is_review else rules.update_due(incident.severity, now_ms)
        return _moved(
            _with_page(incident, kind, both, now_ms),
            "remind",
            incident.state,
            AuditType.INCIDENT_REMINDED,
            board,
            now_ms,
            THE_MACHINE,
            kind.value,
            remind_at_ms=again_ms,
        )
    return None


# ---------------------------------------------------------------------------------------------------------------- pages


def _with_page(incident: Incident, kind: PageKind, to: Sequence[Role], now_ms: int, text: str = "") -> Incident:
    """The incident with one more page, unless the same is on its way. The version stays: it is part of a change.

    One that some channel has is no longer on its way to those who read that channel: the new one goes to all of them,
    and in place of the old one to a channel that still lacks that.

    That it is graver than a moment ago is no page of its own while nobody has taken the one before: that one is written
    when it goes out, and says how grave it is then.
    """
    same = [page for page in incident.pages if not text and page.kind is kind and not page.delivered_at_ms]
    if any(not page.took for page in same):
        return incident
    if kind is PageKind.RAISED and any(page.kind in CALLING and _is_untouched(page) for page in incident.pages):
        return incident
    number = incident.pages_made + 1
    page = Page(number, kind, tuple(to), now_ms, text[:PAGE_LENGTH])
    pages = [replace(one, delivered_at_ms=now_ms) if one in same else one for one in incident.pages]
    waiting = [one for one in pages if not one.delivered_at_ms]
    done = [one for one in pages if one.delivered_at_ms]
    room = max(0, MOST_PAGES - len(waiting) - 1)
    kept = sorted((*waiting, *done[len(done) - min(room, len(done)) :]), key=lambda one: one.number)
    return replace(incident, pages=(*kept, page)[-MOST_PAGES:], pages_made=number)


def _is_untouched(page: Page) -> bool:
    return not page.attempts and not page.delivered_at_ms


def to_deliver(incident: Incident, now_ms: int) -> tuple[Page, ...]:
    """The pages of it that nobody is delivering."""
    return tuple(page for page in incident.pages if not page.delivered_at_ms and page.taken_until_ms <= now_ms)


def taken(incident: Incident, now_ms: int, rules: Rules) -> IncidentChange:
    """Whoever stores this delivers them. No audit: what became of it is said afterwards."""
    INCIDENT.require_line(incident.state.value, "page", incident.state.value, incident.incident_id)
    numbers = {page.number for page in to_deliver(incident, now_ms)}
    until_ms = now_ms + max(rules.scaled(LEASE_MS), SHORTEST_LEASE_MS)
    pages = tuple(
        replace(page, taken_until_ms=until_ms, attempts=page.attempts + 1) if page.number in numbers else page
        for page in incident.pages
    )
    return IncidentChange(incident, replace(incident, version=incident.version + 1, pages=pages))


SHORTEST_LEASE_MS = 15_000  # however much waits are shortened: channels have their own time


def delivered(
    incident: Incident,
    took: Mapping[int, Iterable[str]],
    failed: Mapping[int, Iterable[str]],
    board: Board,
    now_ms: int,
    rules: Rules,
) -> IncidentChange:
    """What became of pages, by number: which channels took them, and which did not. A page that any did not take goes
    out again, there alone.
    """
    INCIDENT.require_line(incident.state.value, "page", incident.state.value, incident.incident_id)
    pages = []
    words = []
    for page in incident.pages:
        if page.number not in took:
            pages.append(page)
            continue
        all_took = tuple(sorted({*page.took, *took[page.number]}))
        missing = sorted(failed.get(page.number, ()))
        pages.append(
            replace(
                page,
                took=all_took,
                delivered_at_ms=0 if missing else now_ms,
                taken_until_ms=now_ms + rules.scaled(LEASE_MS) if missing else 0,
            )
        )
        words.append(
            f"{page.kind.value}: {', '.join(all_took) or 'no channel'}"
            + (f"; not taken by {', '.join(missing)}" if missing else "")
        )
    after = replace(incident, version=incident.version + 1, pages=tuple(pages))
    return _change(incident, after, AuditType.INCIDENT_PAGED, board, now_ms, THE_MACHINE, "; ".join(words))


# ---------------------------------------------------------------------------------------------------------------- audit

_SEVERITY: Mapping[Sev, Severity] = {
    Sev.SEV0: Severity.CRITICAL,
    Sev.SEV1: Severity.CRITICAL,
    Sev.SEV2: Severity.ERROR,
    Sev.SEV3: Severity.WARNING,
}


def _event(kind: AuditType, before: Incident | None, after: Incident, now_ms: int, who: Who, reason: str) -> AuditEvent:
    return AuditEvent(
        id=audit_id(after.incident_id, after.version, kind),
        at_ms=now_ms,
        event_type=kind,
        severity=_SEVERITY[after.severity],
        tenant="",
        actor=who.name,
        affected_entity=ENTITY,
        affected_id=after.incident_id,
        request_id=who.request_id or after.request_id,
        traceparent=who.traceparent or after.traceparent,
        before_state="" if before is None else _said(before),
        after_state=_said(after),
        containment_action="; ".join(f"{one.switch} {one.value}" for one in after.contained if one.is_done),
        recovery_status=after.state.value,
        reason=reason[:TEXT_LENGTH],
    )


def _said(incident: Incident) -> str:
    said = {"status": incident.state.value, "severity": incident.severity.value, "alarms": list(incident.firing)}
    return compact(said)
