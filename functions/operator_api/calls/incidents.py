"""Incidents: which there are, what happened, and what whoever has one in hand says and does (runbook 001, "Incident
Response Workflow").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeVar

from aws_lambda_powertools.event_handler.openapi.params import Path, Query
from aws_lambda_powertools.event_handler.openapi.types import OpenAPIResponse
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import Field, StringConstraints

from functions.catalog.announcements import load_announcements
from functions.catalog.loader import load
from functions.catalog.roles import load_roles
from functions.core.alarms import Sev
from functions.core.announcement import NoSuchText, Template, newest, values_of, window_of
from functions.core.duration import PATTERN, duration_ms
from functions.core.failure import VersionConflict
from functions.core.first_steps import first_step
from functions.core.incident import (
    POSTMORTEM_LENGTH,
    TEXT_LENGTH,
    Board,
    Findings,
    Incident,
    IncidentChange,
    IncidentConflict,
    NotFinished,
    Rules,
    State,
    Told,
    Who,
    acknowledged,
    id_of,
    mitigated,
    noted,
    opened,
    reclassified,
    resolved,
    reviewed,
    told,
)
from functions.core.postmortem import Entry, draft, missing
from functions.incident_board import TRIES, move
from functions.operator_api.bodies import Body, Reason
from functions.operator_api.caller import Caller
from functions.operator_api.handler import caller
from functions.operator_api.ports import Ports
from functions.operator_api.problems import Code, Refusal
from functions.operator_api.timeline import timeline

_T = TypeVar("_T")

TAG = "incidents"
LONGEST_MS = 7 * 86_400_000
_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{1,39}$"

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=TEXT_LENGTH // 2)]
_Title = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=3, max_length=200, pattern=r"^[^\x00-\x1f]+$")
]
_Word = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Severity = Literal["SEV0", "SEV1", "SEV2", "SEV3"]
IncidentId = Annotated[str, Path(pattern=_ID)]


class NewIncident(Body):
    """What somebody has seen: a user's ticket, an observation of their own."""

    title: Annotated[_Title, Field(description="The symptom, in one sentence.")]
    severity: Severity
    reason: Annotated[_Text, Field(description="Who says so, and since when.")]
    impact: _Text | None = None
    scope: _Text | None = None


class WhyTest(Body):
    """Why a test."""

    reason: Reason


class Ack(Body):
    """What whoever has it in hand says."""

    note: _Text | None = None


class NewSeverity(Body):
    """Another severity."""

    severity: Severity
    reason: Reason


class Note(Body):
    """What somebody has found out. Something is given."""

    note: _Text | None = None
    scope: Annotated[_Text | None, Field(description="Who is affected.")] = None
    impact: _Text | None = None
    mitigation: _Text | None = None
    next_update_in: Annotated[str | None, Field(pattern=PATTERN, description="30m, 2h; at most 7d.")] = None
    lead: Annotated[_Word | None, Field(description="A role of the catalog.")] = None
    communications: Annotated[_Word | None, Field(description="A role of the catalog.")] = None


class Mitigation(Body):
    """What stops the harm."""

    mitigation: _Text


class Resolution(Body):
    """What was wrong, and what was done."""

    resolution: _Text


class Message(Body):
    """Which text is to be made out. `feature` is one of the catalog; without `window` its usual one is said."""

    template: _Word
    feature: _Word | None = None
    window: Annotated[str | None, Field(pattern=PATTERN, description="How long it will take: 30m, 2h, 1d.")] = None


class Postmortem(Body):
    """The postmortem in Markdown; without it the one that is kept is told, or a draft."""

    text: Annotated[str, Field(min_length=1, max_length=POSTMORTEM_LENGTH)] | None = None


class ToldAlarm(Body):
    """One of its alarms."""

    name: str
    says: str
    severity: str
    is_firing: bool
    fired_at_ms: int
    cleared_at_ms: int
    count: int


class ToldPage(Body):
    """One page of it. `took` are the channels that have taken it; it is delivered once every one has."""

    number: int
    kind: str
    to: list[str]
    asked_at_ms: int
    attempts: int
    took: list[str]
    delivered_at_ms: int | None = None


class ToldContainment(Body):
    """What the machine has done by itself, or could not do."""

    switch: str
    value: str
    because: str
    is_done: bool
    before: str | None = None
    until_ms: int | None = None


class ToldMessage(Body):
    """A message that was made out."""

    at_ms: int
    by: str
    template: str
    version: int
    audience: str
    promised: str | None = None


class ToldIncident(Body):
    """One incident. Times are epoch milliseconds; what is not known or does not run is left out."""

    incident_id: str
    state: str
    severity: str
    title: str
    group: str | None = None
    audience: str
    owner: str | None = None
    runbook: str | None = None
    opened_at_ms: int
    opened_by: str
    lead: str | None = None
    communications: str | None = None
    scope: str | None = None
    impact: str | None = None
    mitigation: str | None = None
    resolution: str | None = None
    acknowledged_at_ms: int | None = None
    acknowledged_by: str | None = None
    acknowledge_due_ms: int | None = None
    mitigated_at_ms: int | None = None
    mitigated_by: str | None = None
    mitigate_due_ms: int | None = None
    escalations: int
    resolved_at_ms: int | None = None
    resolved_by: str | None = None
    next_update_ms: int | None = None
    has_postmortem: Annotated[bool, Field(description="Kept since it last happened.")]
    is_postmortem_outdated: Annotated[bool, Field(description="One is kept, and it happened again since.")]
    needs_postmortem: bool
    owed: Annotated[list[str], Field(description="Texts that people were promised and that are not made out yet.")]
    alarms: list[ToldAlarm]
    containment: list[ToldContainment]
    messages: list[ToldMessage]
    pages: list[ToldPage]


class ToldEntry(Body):
    """One line of a timeline."""

    at_ms: int
    kind: str
    who: str
    what: str


class ToldStep(Body):
    """What to type first, and how it is taken back; null where it only looks."""

    command: str
    undo: str | None = None


class ToldInFull(Body):
    """An incident with what happened around it. `unknown` names what of that could not be read."""

    incident: ToldIncident
    first: ToldStep
    timeline: list[ToldEntry]
    unknown: list[str]


class ToldIncidents(Body):
    """Incidents, the newest first."""

    incidents: list[ToldIncident]


class ToldText(Body):
    """A text as it goes out, and who it is for."""

    incident: ToldIncident
    template: str
    version: int
    audience: str
    text: str
    promised: str | None = None


class ToldPostmortem(Body):
    """The postmortem. `is_draft`: nothing was kept."""

    incident: ToldIncident
    is_draft: bool
    text: str


def _answers(what: str) -> dict[int, OpenAPIResponse]:
    """What a call that changes one incident may answer."""
    return {
        200: {"description": what},
        404: {"description": "There is no such incident."},
        409: {
            "description": "It is in no state for that, or something is missing first: the detail says what. "
            "Or others change it in this moment: call again."
        },
    }


def routes(ports: Ports) -> APIGatewayHttpRouter:
    """The calls of this subject."""
    router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]  # Powertools leaves it untyped

    _reading(router, ports)
    _opening(router, ports)
    _moving(router, ports)
    _telling(router, ports)
    return router


def _reading(router: APIGatewayHttpRouter, ports: Ports) -> None:
    @router.get(
        "/platform/incidents",
        summary="Which incidents there are",
        operation_id="listIncidents",
        tags=[TAG],
        responses={200: {"description": "The newest first; with `state=active` those that are not over."}},
    )
    def every(
        state: Annotated[Literal["active", "all"], Query()] = "active",
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> ToldIncidents:
        board = ports.incidents.board()
        found = ports.incidents.several(list(dict.fromkeys((*board.recent, *board.active))))
        newest_first = sorted(found.values(), key=lambda one: (-one.opened_at_ms, one.incident_id))
        wanted = [one for one in newest_first if state == "all" or not one.is_over]
        return ToldIncidents(incidents=[_told(one) for one in wanted[:limit]])

    @router.get(
        "/platform/incidents/<incident_id>",
        summary="One incident, with what happened around it",
        operation_id="getIncident",
        tags=[TAG],
        responses={
            200: {"description": "The incident, and its timeline: two hours before it until it was over."},
            404: {"description": "There is no such incident."},
        },
    )
    def one(incident_id: IncidentId) -> ToldInFull:
        incident = _found(ports, incident_id)
        known = timeline(ports, incident)
        step = first_step(incident)
        return ToldInFull(
            incident=_told(incident),
            first=ToldStep(command=step.command, undo=step.undo or None),
            timeline=[_entry(entry) for entry in known.entries],
            unknown=list(known.unknown),
        )


def _opening(router: APIGatewayHttpRouter, ports: Ports) -> None:
    @router.post(
        "/platform/incidents",
        summary="Open an incident by hand",
        description="Whoever is on call is paged within a minute.",
        operation_id="openIncident",
        tags=[TAG],
        status_code=201,
        responses={
            201: {"description": "It is open, and both its clocks run."},
            409: {"description": "Incidents are changed by others in this moment: call again."},
        },
    )
    def add(wanted: NewIncident) -> ToldIncident:
        who, now_ms, new_id = caller(router), ports.clock.now_ms(), ports.ids.new_id()
        severity = Sev(wanted.severity)
        return _told(
            _open(
                ports,
                Incident(
                    incident_id=id_of(now_ms, new_id),
                    state=State.OPEN,
                    severity=severity,
                    title=wanted.title,
                    opened_at_ms=now_ms,
                    opened_by=who.name,
                    request_id=who.request_id,
                    traceparent=who.traceparent,
                    owner=load_roles().primary,
                    impact=wanted.impact or "",
                    scope=wanted.scope or "",
                ),
                who,
                wanted.reason,
            )
        )

    @router.post(
        "/platform/pages/test",
        summary="Page whoever is on call, as a test",
        description="It goes the way of every page, to every channel. Its incident is over once it has arrived.",
        operation_id="testPage",
        tags=[TAG],
        status_code=201,
        responses={
            201: {
                "description": "The test's incident. It goes out within a minute; `pages` say which channels took it."
            },
            409: {"description": "Incidents are changed by others in this moment: call again."},
        },
    )
    def test_page(why: WhyTest) -> ToldIncident:
        who, now_ms, new_id = caller(router), ports.clock.now_ms(), ports.ids.new_id()
        incident = Incident(
            incident_id=id_of(now_ms, new_id),
            state=State.OPEN,
            severity=Sev.SEV3,
            title="A test: nothing has happened",
            opened_at_ms=now_ms,
            opened_by=who.name,
            request_id=who.request_id,
            traceparent=who.traceparent,
            is_test=True,
        )
        return _told(_open(ports, incident, who, why.reason))


def _moving(router: APIGatewayHttpRouter, ports: Ports) -> None:
    def change(incident_id: str, make: Callable[[Incident, Board, Who, int], IncidentChange]) -> Incident:
        return _change(ports, caller(router), incident_id, make)

    @router.post(
        "/platform/incidents/<incident_id>/ack",
        summary="Have it in hand",
        operation_id="acknowledgeIncident",
        tags=[TAG],
        responses=_answers("Nobody else is called for it."),
    )
    def ack(incident_id: IncidentId, said: Ack) -> ToldIncident:
        return _told(change(incident_id, lambda i, b, who, now_ms: acknowledged(i, b, now_ms, who, said.note or "")))

    @router.post(
        "/platform/incidents/<incident_id>/severity",
        summary="Say how grave it is",
        operation_id="setIncidentSeverity",
        tags=[TAG],
        responses=_answers("A graver one pages, and its clocks run from now on."),
    )
    def severity(incident_id: IncidentId, wanted: NewSeverity) -> ToldIncident:
        def make(incident: Incident, board: Board, who: Who, now_ms: int) -> IncidentChange:
            return reclassified(incident, Sev(wanted.severity), board, now_ms, who, wanted.reason, _rules(ports))

        return _told(change(incident_id, make))

    @router.post(
        "/platform/incidents/<incident_id>/note",
        summary="Say what was found out",
        operation_id="noteIncident",
        tags=[TAG],
        responses=_answers("It is in the audit, and on the pages to come."),
    )
    def note(incident_id: IncidentId, said: Note) -> ToldIncident:
        if not said.model_dump(exclude_none=True):
            raise Refusal(Code.INVALID_PAYLOAD, "nothing is said")
        for role in (said.lead, said.communications):
            if role is not None and role not in load_roles().roles:
                roles = ", ".join(load_roles().roles)
                raise Refusal(Code.INVALID_PAYLOAD, f"there is no role {role!r}; there are {roles}")
        within_ms = None if said.next_update_in is None else _within(said.next_update_in)

        def make(incident: Incident, board: Board, who: Who, now_ms: int) -> IncidentChange:
            findings = Findings(
                text=said.note or "",
                scope=said.scope,
                impact=said.impact,
                mitigation=said.mitigation,
                next_update_ms=None if within_ms is None else now_ms + within_ms,
                lead=said.lead,
                communications=said.communications,
            )
            return noted(incident, findings, board, now_ms, who)

        return _told(change(incident_id, make))

    @router.post(
        "/platform/incidents/<incident_id>/mitigate",
        summary="Say that it does no more harm",
        operation_id="mitigateIncident",
        tags=[TAG],
        responses=_answers("Both its clocks are stopped."),
    )
    def mitigate(incident_id: IncidentId, said: Mitigation) -> ToldIncident:
        def make(incident: Incident, board: Board, who: Who, now_ms: int) -> IncidentChange:
            return mitigated(incident, board, now_ms, who, said.mitigation, _rules(ports))

        return _told(change(incident_id, make))

    @router.post(
        "/platform/incidents/<incident_id>/resolve",
        summary="Close it",
        operation_id="resolveIncident",
        tags=[TAG],
        responses=_answers("It is over."),
    )
    def resolve(incident_id: IncidentId, said: Resolution) -> ToldIncident:
        return _told(change(incident_id, lambda i, b, who, now_ms: resolved(i, b, now_ms, who, said.resolution)))


def _telling(router: APIGatewayHttpRouter, ports: Ports) -> None:
    def change(incident_id: str, make: Callable[[Incident, Board, Who, int], IncidentChange]) -> Incident:
        return _change(ports, caller(router), incident_id, make)

    @router.post(
        "/platform/incidents/<incident_id>/message",
        summary="Make out a message",
        description=(
            "Only approved texts. One for our own people goes to whoever is on call; any other is handed on by whoever "
            "asks for it, and stands in the incident as told."
        ),
        operation_id="messageAboutIncident",
        tags=[TAG],
        responses=_answers("The text."),
    )
    def message(incident_id: IncidentId, wanted: Message) -> ToldText:
        template, values = _wanted_text(wanted)
        made: list[str] = []

        def make(incident: Incident, board: Board, who: Who, now_ms: int) -> IncidentChange:
            made[:] = [_text_of(lambda: template.render({**values, **values_of(incident)}))]
            record = Told(now_ms, who.name, template.id, template.version, template.audience, template.promises)
            return told(incident, record, made[0], board, now_ms, who, _rules(ports), is_internal=template.is_internal)

        incident = change(incident_id, make)
        return ToldText(
            incident=_told(incident),
            template=template.id,
            version=template.version,
            audience=template.audience,
            text=made[0],
            promised=template.promises or None,
        )

    @router.post(
        "/platform/incidents/<incident_id>/postmortem",
        summary="Get the postmortem, or keep what was written",
        description="Without `text` the one that is kept is answered; while there is none, the draft of what is known.",
        operation_id="incidentPostmortem",
        tags=[TAG],
        responses=_answers("The draft, or the postmortem as it is kept now."),
    )
    def postmortem(incident_id: IncidentId, given: Postmortem) -> ToldPostmortem:
        if given.text is None:
            incident = _found(ports, incident_id)
            text = incident.postmortem or draft(incident, timeline(ports, incident).entries)
            return ToldPostmortem(incident=_told(incident), is_draft=not incident.postmortem, text=text)
        written = given.text
        lacking = missing(written, incident_id)
        if lacking:
            raise Refusal(Code.INVALID_PAYLOAD, f"that is no postmortem yet: {'; '.join(lacking)}")
        kept = change(incident_id, lambda i, b, who, now_ms: reviewed(i, written, b, now_ms, who))
        return ToldPostmortem(incident=_told(kept), is_draft=False, text=written)


def _rules(ports: Ports) -> Rules:
    return load_roles().rules(ports.time_scale)


def _found(ports: Ports, incident_id: str) -> Incident:
    incident = ports.incidents.get(incident_id)
    if incident is None:
        raise Refusal(Code.NOT_FOUND, f"there is no incident {incident_id}")
    return incident


def _change(
    ports: Ports,
    who: Caller,
    incident_id: str,
    make: Callable[[Incident, Board, Who, int], IncidentChange],
) -> Incident:
    """The incident after it. Raises `Refusal`."""
    person = Who(who.name, who.request_id, who.traceparent)
    try:
        after = move(ports.incidents, incident_id, lambda i, b: make(i, b, person, ports.clock.now_ms()))
    except (IncidentConflict, NotFinished) as refused:
        raise Refusal(Code.INCIDENT_CONFLICT, str(refused)) from refused
    except VersionConflict as moved:
        raise _overtaken() from moved
    if after is None:
        raise Refusal(Code.NOT_FOUND, f"there is no incident {incident_id}")
    return after


def _open(ports: Ports, incident: Incident, who: Caller, reason: str) -> Incident:
    person = Who(who.name, who.request_id, who.traceparent)
    for _ in range(TRIES):
        change = opened(incident, ports.incidents.board(), incident.opened_at_ms, person, _rules(ports), reason)
        try:
            ports.incidents.store(change)
        except VersionConflict:
            continue
        if change.after is not None:
            return change.after
    raise _overtaken()


def _overtaken() -> Refusal:
    return Refusal(Code.IN_PROGRESS, "others change incidents at this moment: nothing was changed; call again")


def _within(text: str) -> int:
    within_ms = duration_ms(text)
    if within_ms > LONGEST_MS:
        raise Refusal(Code.INVALID_PAYLOAD, "an update is due within 7d at most")
    return within_ms


def _wanted_text(wanted: Message) -> tuple[Template, dict[str, str]]:
    """The text, and what fills it in beside the incident. Raises `Refusal`."""
    template = _text_of(lambda: newest(load_announcements(), wanted.template))
    values: dict[str, str] = {}
    minutes = 0
    if wanted.feature is not None:
        feature = load().features.get(wanted.feature)
        if feature is None:
            names = ", ".join(load().features)
            raise Refusal(Code.INVALID_PAYLOAD, f"there is no feature {wanted.feature!r}; there are {names}")
        values["feature"], minutes = feature.name, feature.window_minutes
    if wanted.window is not None:
        minutes = -(-_within(wanted.window) // 60_000)
    if minutes:
        values["window"] = window_of(minutes)
    return template, values


def _text_of(find: Callable[[], _T]) -> _T:
    try:
        return find()
    except NoSuchText as missing_one:
        raise Refusal(Code.INVALID_PAYLOAD, str(missing_one)) from missing_one


def _entry(entry: Entry) -> ToldEntry:
    return ToldEntry(at_ms=entry.at_ms, kind=entry.kind, who=entry.who, what=entry.what)


def _told(incident: Incident) -> ToldIncident:
    return ToldIncident(
        incident_id=incident.incident_id,
        state=incident.state.value,
        severity=incident.severity.value,
        title=incident.title,
        group=incident.group or None,
        audience=incident.audience.value,
        owner=incident.owner or None,
        runbook=f"docs/runbooks/{incident.runbook}" if incident.runbook else None,
        opened_at_ms=incident.opened_at_ms,
        opened_by=incident.opened_by,
        lead=incident.lead or None,
        communications=incident.communications or None,
        scope=incident.scope or None,
        impact=incident.impact or None,
        mitigation=incident.mitigation or None,
        resolution=incident.resolution or None,
        acknowledged_at_ms=incident.acknowledged_at_ms or None,
        acknowledged_by=incident.acknowledged_by or None,
        acknowledge_due_ms=incident.acknowledge_due_ms or None,
        mitigated_at_ms=incident.mitigated_at_ms or None,
        mitigated_by=incident.mitigated_by or None,
        mitigate_due_ms=incident.mitigate_due_ms or None,
        escalations=incident.escalations,
        resolved_at_ms=incident.resolved_at_ms or None,
        resolved_by=incident.resolved_by or None,
        next_update_ms=incident.next_update_ms or None,
        has_postmortem=incident.is_reviewed,
        is_postmortem_outdated=bool(incident.postmortem) and not incident.is_reviewed,
        needs_postmortem=incident.needs_postmortem,
        owed=list(incident.owed),
        alarms=[
            ToldAlarm(
                name=name,
                says=signal.says,
                severity=signal.sev.value,
                is_firing=signal.is_firing,
                fired_at_ms=signal.fired_at_ms,
                cleared_at_ms=signal.cleared_at_ms,
                count=signal.count,
            )
            for name, signal in sorted(incident.alarms.items())
        ],
        containment=[
            ToldContainment(
                switch=one.switch,
                value=one.value,
                because=one.because,
                is_done=one.is_done,
                before=one.before or None,
                until_ms=one.until_ms or None,
            )
            for one in incident.contained
        ],
        messages=[
            ToldMessage(
                at_ms=one.at_ms,
                by=one.by,
                template=one.template,
                version=one.version,
                audience=one.audience,
                promised=one.promised or None,
            )
            for one in incident.told
        ],
        pages=[
            ToldPage(
                number=page.number,
                kind=page.kind.value,
                to=[role.value for role in page.to],
                asked_at_ms=page.asked_at_ms,
                attempts=page.attempts,
                took=list(page.took),
                delivered_at_ms=page.delivered_at_ms or None,
            )
            for page in incident.pages
        ],
    )
