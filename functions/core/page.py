"""What a page says: enough for the first ten minutes of somebody who knows nothing yet (architecture §10). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from functions.core.alarms import Audience, Sev, by_name
from functions.core.first_steps import at_stage, first_step
from functions.core.incident import CALLING, Incident, Page, PageKind, Role, runs_out_first
from functions.core.subjects import NAMING, Subjects, in_order

CHANGES_MS = 2 * 3_600_000  # what changed in that time before it began is the first suspect
PLAIN = frozenset({PageKind.UPDATE, PageKind.ACKNOWLEDGED, PageKind.RESOLVED, PageKind.TEST})
"""Of these nobody needs to know how things are."""
MOST_LINES = 12  # of one kind
MOST_IN_A_TITLE = 3  # sources or providers that a title names
TITLE_LENGTH = 99  # SNS takes no longer subject


@dataclass(frozen=True, slots=True)
class Change:
    """Something that was changed: a deploy, a switch, a source, a credential, the health of an integration."""

    at_ms: int
    kind: str
    name: str
    what: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class Depth:
    """About how many messages a queue holds: those that wait, and those that somebody has taken or put aside for a
    moment. Whose they are a queue does not say.
    """

    waiting: int = 0
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class Situation:
    """How things are when the page goes out. `unknown` names what could not be found out, which keeps no page.

    `items` wait or are dead, of `tenants`; with `is_at_least` there are more. `queues` are those of the worker, by
    name: events are no items until something of them has failed. `switches` are those that do not say what they say
    every day, `health` the integrations that are not well, each with since when. `subjects` are the sources or
    providers that an alarm is about, by alarm; one that is not there could not be found out.
    """

    items: int = 0
    tenants: int = 0
    is_at_least: bool = False
    queues: Mapping[str, Depth] = field(default_factory=dict)
    changes: Sequence[Change] = ()
    switches: Mapping[str, str] = field(default_factory=dict)
    health: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    subjects: Mapping[str, Subjects] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Letter:
    """A page as it is sent. `is_calling`: somebody is to wake. The title is one line of ASCII. `recurrences`: how often
    the incident was open again until then. `copies` are told like the audience: those of its alarms' topics.
    """

    incident_id: str
    number: int
    kind: PageKind
    severity: Sev
    audience: Audience
    group: str
    to: tuple[Role, ...]
    is_calling: bool
    at_ms: int
    title: str
    text: str
    runbook: str
    recurrences: int = 0
    copies: tuple[Audience, ...] = ()


def letter(incident: Incident, page: Page, situation: Situation, stage: str, runbooks: str, now_ms: int) -> Letter:
    """What goes out. `runbooks` is where the pages are, with a slash at its end."""
    runbook = f"{runbooks}{incident.runbook}" if incident.runbook else ""
    return Letter(
        incident_id=incident.incident_id,
        number=page.number,
        kind=page.kind,
        severity=incident.severity,
        audience=incident.audience,
        group=incident.group,
        to=page.to,
        is_calling=page.kind in CALLING and (incident.is_page or incident.is_test),
        at_ms=page.asked_at_ms,
        title=_title(incident, page, situation, stage),
        text="\n".join(one_line(line) for line in _lines(incident, page, situation, runbook, stage, now_ms)),
        runbook=runbook,
        recurrences=incident.recurrences,
        copies=_copies(incident),
    )


def _copies(incident: Incident) -> tuple[Audience, ...]:
    """Whom else its alarms speak to, as the table has it."""
    known = [alarm for name in incident.alarms if (alarm := by_name(name)) is not None]
    told = {audience for alarm in known for _, audience in alarm.topics}
    return tuple(sorted(told - {incident.audience}))


def one_line(text: str) -> str:
    """One line, whatever is quoted in it: an alarm's description, a parameter's, a value, what somebody has noted. None
    of it may begin a line of its own, which could pass for one of ours, or hold what no channel can carry.
    """
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _title(incident: Incident, page: Page, now: Situation, stage: str) -> str:
    """What there is room for: which ones it is about comes before what follows from it, which the text says too."""
    news = "" if page.kind is PageKind.OPENED else f" {page.kind.value}:"
    head = f"[{incident.severity.value} {stage}]{news} "
    says = _plain(incident.title)
    # The alarm that it is called after: the page's section of the runbook is that one's too.
    names = [_plain(name) for name, _ in in_order(_about(incident, incident.runbook.rpartition("#")[2], now))]
    for said in (says, says.partition(": ")[0]) if names else ():
        for count in range(min(len(names), MOST_IN_A_TITLE), 0, -1):
            more = f" and {len(names) - count} more" if len(names) > count else ""
            whole = f"{_plain(head)}{said}: {', '.join(names[:count])}{more}"
            if len(whole) <= TITLE_LENGTH:
                return whole
    plain = f"{_plain(head)}{says}"
    return plain if len(plain) <= TITLE_LENGTH else plain[: TITLE_LENGTH - 3] + "..."


def _plain(text: str) -> str:
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)


def _about(incident: Incident, alarm: str, now: Situation) -> Subjects:
    """The sources or providers that it is about while it fires; none: it is quiet, about none, or nobody knows."""
    signal = incident.alarms.get(alarm)
    return now.subjects.get(alarm, {}) if signal is not None and signal.is_firing else {}


def _lines(incident: Incident, page: Page, now: Situation, runbook: str, stage: str, now_ms: int) -> Iterator[str]:
    if page.kind is PageKind.UPDATE:
        yield from page.text.split("\n")
        return
    yield f"{incident.incident_id} at {stage}: {incident.title}"
    if page.kind is PageKind.ACKNOWLEDGED:
        yield f"{incident.acknowledged_by} has it in hand since {when(incident.acknowledged_at_ms)}."
        return
    if page.kind is PageKind.RESOLVED:
        yield f"It is over, says {incident.resolved_by} at {when(incident.resolved_at_ms)}: {incident.resolution}"
        return
    yield f"{incident.state.value} since {when(_since(incident))}; opened {when(incident.opened_at_ms)}"
    if incident.is_test:
        yield "This is a test: nothing has happened. Where it called you (PagerDuty), close it by hand."
        return
    due_ms = runs_out_first(incident)
    if due_ms:
        word = "acknowledge" if due_ms == incident.acknowledge_due_ms else "mitigate"
        yield f"{word} by {when(due_ms)}: {_typed(_COMMANDS[word], incident, stage)}"
    if page.kind in _DUE:
        yield f"{page.kind.value}: {_typed(_DUE[page.kind], incident, stage)}"
    for name, signal in incident.alarms.items():
        state = (
            f"fires since {when(signal.fired_at_ms)}"
            if signal.is_firing
            else f"quiet since {when(signal.cleared_at_ms)}"
        )
        yield f"alarm {name}: {signal.says} ({state})"
        yield from _which(incident, name, now)
    yield from _affected(incident, now)
    yield ""
    yield from _contained(incident, stage)
    step = first_step(incident)
    yield f"First: {at_stage(step.command, stage)}"
    undo = at_stage(step.undo, stage)
    yield f"To take it back: {undo}" if undo else "It only looks: there is nothing to take back."
    if runbook:
        yield f"Then: {runbook}"
    yield ""
    yield from _list(
        "Changed in the two hours before it, and since",
        [_changed(one) for one in sorted(now.changes, key=lambda one: -one.at_ms)],
        "nothing",
    )
    yield from _list(
        "Switches that are not as every day",
        [f"{name} = {value}" for name, value in sorted(now.switches.items())],
        "none",
    )
    yield from _list(
        "Integrations that are not well",
        [f"{name} {state} since {when(since_ms)}" for name, (state, since_ms) in sorted(now.health.items())],
        "none",
    )
    if now.unknown:
        yield f"Could not be found out: {', '.join(now.unknown)}"
    yield f"Lead: {incident.lead}. Communications: {incident.communications}. As of {when(now_ms)}."


_COMMANDS = {
    "acknowledge": "holdfast incident ack {incident}",
    "mitigate": 'holdfast incident mitigate {incident} "what stopped the harm"',
}
_DUE = {
    PageKind.UPDATE_DUE: 'holdfast incident note {incident} "what is known by now" --next-update 30m',
    PageKind.REVIEW_DUE: "holdfast incident postmortem {incident}",
}


def _which(incident: Incident, alarm: str, now: Situation) -> Iterator[str]:
    if alarm not in NAMING or not incident.alarms[alarm].is_firing or alarm not in now.subjects:
        return
    about = [f"{name} since {when(since_ms)}" for name, since_ms in in_order(_about(incident, alarm, now))]
    more = f" and {len(about) - MOST_LINES} more" if len(about) > MOST_LINES else ""
    yield f"which: {', '.join(about[:MOST_LINES])}{more}" if about else "which: none at this moment"


def _typed(command: str, incident: Incident, stage: str) -> str:
    return at_stage(command.format(incident=incident.incident_id), stage)


def _since(incident: Incident) -> int:
    return incident.resolved_at_ms or incident.mitigated_at_ms or incident.acknowledged_at_ms or incident.opened_at_ms


def _affected(incident: Incident, now: Situation) -> Iterator[str]:
    if incident.scope:
        yield f"Affected: {incident.scope}"
    if incident.impact:
        yield f"Impact: {incident.impact}"
    at_least = "at least " if now.is_at_least else ""
    yield f"{at_least}{now.items} items of {at_least}{now.tenants} tenants wait or are dead"
    if "events" in now.queues:
        events = now.queues["events"]
        wait = f"about {events.waiting} events wait in the queue and {events.in_flight} are in hand"
        yield f"{wait}; of how many tenants it does not say"
    others = [f"{name} {one.waiting} and {one.in_flight}" for name, one in now.queues.items() if name != "events"]
    if others:
        yield f"in the other queues, about so many waiting and in hand: {', '.join(others)}"


def _contained(incident: Incident, stage: str) -> Iterator[str]:
    for one in incident.contained:
        until = f" until {when(one.until_ms)}" if one.until_ms else ""
        if not one.is_done:
            by_hand = f'holdfast switch set {one.switch} {one.value} --direct --reason "{incident.incident_id}"'
            yield f"NOT DONE by itself, do it now: {at_stage(by_hand, stage)}"
        elif one.before == one.value:
            yield f"{one.switch} was {one.value} already"
        else:
            yield f"Done by itself: {one.switch} set to {one.value}{until}, because of {one.because}"
            if one.before:
                back = f'holdfast switch set {one.switch} {one.before} --reason "{incident.incident_id}"'
                yield f"To take that back, once its cause is gone: {at_stage(back, stage)}"


def _changed(one: Change) -> str:
    what, by = f" ({one.what})" if one.what else "", f" by {one.by}" if one.by else ""
    return f"{when(one.at_ms)} {one.kind} {one.name}{what}{by}"


def _list(title: str, lines: Iterable[str], none: str) -> Iterator[str]:
    every = list(lines)
    if not every:
        yield f"{title}: {none}"
        return
    yield f"{title}:"
    yield from (f"- {line}" for line in every[:MOST_LINES])
    if len(every) > MOST_LINES:
        yield f"- and {len(every) - MOST_LINES} more"


def when(at_ms: int) -> str:
    """The moment as people read it: UTC, to the second. One that no calendar has keeps no page from going out."""
    try:
        moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return "a time that cannot be read"
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")
