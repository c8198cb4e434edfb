"""`holdfast incident …` and `holdfast page test`: what whoever is on call has in hand, and how they are reached."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from functions.core.first_steps import REPLIES_OFF, at_stage
from ops.cli.console import (
    AsJson,
    ExitCode,
    Limit,
    Refused,
    clean,
    emit,
    say,
    show_fields,
    show_table,
    stack_of,
    time_of,
)
from ops.operator_api import OperatorApi, connect

app = typer.Typer(help="Incidents: open, look, take in hand, tell, close.", no_args_is_help=True)
pages = typer.Typer(help="How whoever is on call is reached.", no_args_is_help=True)

PATH = "/platform/incidents"
POLL_SECONDS = 1.0
MOST_BYTES = 60_000

Document = dict[str, Any]
IncidentId = Annotated[str, typer.Argument(help="As the page or `holdfast incident list` says it.")]
Severity = Annotated[str, typer.Argument(help="SEV0, SEV1, SEV2 or SEV3.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept in the audit.")]


@app.command("open")
def open_one(
    ctx: typer.Context,
    title: Annotated[str, typer.Argument(help="The symptom, in one sentence.")],
    *,
    severity: Annotated[str, typer.Option(help="SEV0, SEV1, SEV2 or SEV3.")],
    reason: Annotated[str, typer.Option(help="Who says so, and since when.")],
    impact: Annotated[str, typer.Option(help="What it does to whom.")] = "",
    scope: Annotated[str, typer.Option(help="Who is affected.")] = "",
    as_json: AsJson = False,
) -> None:
    """Open an incident that no alarm tells of. Whoever is on call is paged within a minute."""
    body = {
        "title": title,
        "severity": severity.upper(),
        "reason": reason,
        **{name: value for name, value in (("impact", impact), ("scope", scope)) if value},
    }
    incident = _api(ctx).call("POST", PATH, body=body)
    _show(incident, as_json=as_json)
    _say_what_goes_on(ctx, incident)


@app.command("list")
def show_all(
    ctx: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Those that are over too.")] = False,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """Which incidents there are, the newest first."""
    query = {"state": "all" if every else "active", "limit": str(limit)}
    found = _api(ctx).call("GET", PATH, query=query)["incidents"]
    if as_json:
        emit(found)
        return
    if not found:
        say("there is none" if every else "none is open")
        return
    show_table(
        "",
        (*COLUMNS, "runs out", "alarms that fire"),
        [
            (
                *line_of(one),
                time_of(_runs_out(one)),
                ", ".join(alarm["name"] for alarm in one["alarms"] if alarm["is_firing"]),
            )
            for one in found
        ],
    )


COLUMNS: Final = ("incident", "severity", "state", "title", "opened", "in hand")


def line_of(incident: Document) -> tuple[str, ...]:
    """One incident under `COLUMNS`."""
    return (
        incident["incident_id"],
        incident["severity"],
        incident["state"],
        incident["title"],
        time_of(incident["opened_at_ms"]),
        incident.get("acknowledged_by") or "",
    )


@app.command("show")
def show(ctx: typer.Context, incident_id: IncidentId, as_json: AsJson = False) -> None:
    """One incident: what to do first, what happened before and during it, who was told."""
    told = _api(ctx).call("GET", _path(incident_id))
    if as_json:
        emit(told)
        return
    _show(told["incident"], as_json=False)
    first, stage = told["first"], stack_of(ctx).stage
    say(f"first: {at_stage(first['command'], stage)}")
    say(f"to take it back: {at_stage(first['undo'], stage)}" if first.get("undo") else "it only looks")
    show_table(
        "timeline",
        ("when", "what", "who", ""),
        [(time_of(one["at_ms"]), one["kind"], one["who"], one["what"]) for one in told["timeline"]],
    )
    if told["unknown"]:
        say(f"could not be read: {', '.join(told['unknown'])}")


@app.command("ack")
def ack(
    ctx: typer.Context,
    incident_id: IncidentId,
    note: Annotated[str, typer.Option(help="What you do first.")] = "",
    as_json: AsJson = False,
) -> None:
    """Have it in hand: nobody else is called. Exit code 1 if somebody has it already."""
    _show(_post(ctx, incident_id, "ack", {"note": note} if note else {}), as_json=as_json)


@app.command("severity")
def severity(
    ctx: typer.Context, incident_id: IncidentId, grave: Severity, reason: Reason, as_json: AsJson = False
) -> None:
    """Say how grave it is. A graver one pages, and its clocks run from now on."""
    body = {"severity": grave.upper(), "reason": reason}
    incident = _post(ctx, incident_id, "severity", body)
    _show(incident, as_json=as_json)
    _say_what_goes_on(ctx, incident)


@app.command("note")
def note(
    ctx: typer.Context,
    incident_id: IncidentId,
    text: Annotated[str, typer.Argument(help="What you found out.")] = "",
    *,
    scope: Annotated[str, typer.Option(help="Who is affected.")] = "",
    impact: Annotated[str, typer.Option(help="What it does to them.")] = "",
    mitigation: Annotated[str, typer.Option(help="What is being done about it.")] = "",
    next_update_in: Annotated[str, typer.Option("--next-update", help="When those who wait hear more: 30m, 2h.")] = "",
    lead: Annotated[str, typer.Option(help="The role that leads it now.")] = "",
    communications: Annotated[str, typer.Option(help="The role that speaks for us now.")] = "",
    as_json: AsJson = False,
) -> None:
    """Leave a note; say who is affected, and when those who wait hear more."""
    stated = {
        "note": text,
        "scope": scope,
        "impact": impact,
        "mitigation": mitigation,
        "next_update_in": next_update_in,
        "lead": lead,
        "communications": communications,
    }
    body = {name: value for name, value in stated.items() if value}
    if not body:
        raise Refused("say something: a text, --impact, --scope, --mitigation, --next-update, --lead, --communications")
    _show(_post(ctx, incident_id, "note", body), as_json=as_json)


@app.command("mitigate")
def mitigate(
    ctx: typer.Context,
    incident_id: IncidentId,
    mitigation: Annotated[str, typer.Argument(help="What stopped the harm.")],
    as_json: AsJson = False,
) -> None:
    """Say that it does no more harm: both its clocks are stopped."""
    _show(_post(ctx, incident_id, "mitigate", {"mitigation": mitigation}), as_json=as_json)


@app.command("resolve")
def resolve(
    ctx: typer.Context,
    incident_id: IncidentId,
    resolution: Annotated[str, typer.Argument(help="What was wrong, and what was done.")],
    as_json: AsJson = False,
) -> None:
    """Close it. Exit code 1 while an alarm of it fires, people wait for a word, or there is no postmortem of the last
    time that it happened.
    """
    _show(_post(ctx, incident_id, "resolve", {"resolution": resolution}), as_json=as_json)


@app.command("message")
def message(
    ctx: typer.Context,
    incident_id: IncidentId,
    *,
    template: Annotated[str, typer.Option(help="internal_update, employer_delay, employer_done, ...")],
    feature: Annotated[str, typer.Option(help="As `holdfast status` has it; texts for people outside need it.")] = "",
    window: Annotated[str, typer.Option(help="How long it will take: 30m, 2h, 1d; without it, what is usual.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make out an approved text, and have the incident know who is told. Prints the text alone."""
    stated = {"template": template, "feature": feature, "window": window}
    made = _post(ctx, incident_id, "message", {name: value for name, value in stated.items() if value})
    if as_json:
        emit(made)
        return
    typer.echo("".join(letter if letter == "\n" else clean(letter) for letter in made["text"]))
    if made["audience"] == "internal":
        say("it goes to whoever is on call within a minute")
    else:
        say(f"send it to the {made['audience']}: nothing here does")
    if made.get("promised"):
        then = f"incident message {incident_id} --template {made['promised']} --feature {feature or 'FEATURE'}"
        word = at_stage(f"holdfast {then}", stack_of(ctx).stage)
        say(f"it promises a word when it is over, before the incident closes: {word}")


@app.command("postmortem")
def postmortem(
    ctx: typer.Context,
    incident_id: IncidentId,
    file: Annotated[Path | None, typer.Option(help="The finished postmortem, in Markdown.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the one that is kept, or a draft; with --file keep what was written. Exit code 1 if something of it is
    missing.
    """
    body: Document = {}
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise Refused(f"{file} cannot be read: {exc}") from exc
        if len(text.encode()) > MOST_BYTES:
            raise Refused(f"{file} is over {MOST_BYTES} bytes")
        body = {"text": text}
    made = _post(ctx, incident_id, "postmortem", body)
    if as_json:
        emit(made)
    elif file is None:
        typer.echo("\n".join(clean(line) for line in made["text"].splitlines()))
    else:
        say(f'kept; close it with: holdfast incident resolve {incident_id} "what was wrong"')


@pages.command("test")
def send_test(
    ctx: typer.Context,
    reason: Annotated[str, typer.Option(help="Why; it is kept in the audit.")] = "a test of the channels",
    wait: Annotated[int, typer.Option(min=0, max=900, help="Seconds to wait for it to arrive.")] = 180,
    as_json: AsJson = False,
) -> None:
    """Page whoever is on call, as a test, by every channel. Exit code 1 if one has not taken it."""
    api = _api(ctx)
    incident = api.call("POST", "/platform/pages/test", body={"reason": reason})
    say(f"{incident['incident_id']}: it goes out within a minute")
    until = time.monotonic() + wait
    while incident["state"] != "resolved" and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        incident = api.call("GET", _path(incident["incident_id"]))["incident"]
    page = incident["pages"][0]
    if as_json:
        emit(incident)
    else:
        say(incident.get("resolution") or f"not there yet; taken by {', '.join(page['took']) or 'no channel'}")
    if not (incident.get("resolution") or "").startswith("delivered"):
        raise typer.Exit(ExitCode.REFUSED)


# ----------------------------------------------------------------------------------------------------------------- told


def _api(ctx: typer.Context) -> OperatorApi:
    return connect(stack_of(ctx))


def _path(incident_id: str) -> str:
    return f"{PATH}/{quote(incident_id, safe='')}"


def _post(ctx: typer.Context, incident_id: str, what: str, body: Document) -> Document:
    return _api(ctx).call("POST", f"{_path(incident_id)}/{what}", body=body)


def _say_what_goes_on(ctx: typer.Context, incident: Document) -> None:
    """What a person calls a SEV0 stops nothing by itself."""
    is_stopped = any(one["is_done"] and one["switch"] == "auto_reply" for one in incident["containment"])
    if incident["severity"] != "SEV0" or is_stopped:
        return
    stop = at_stage(REPLIES_OFF.of(incident["incident_id"]).command, stack_of(ctx).stage)
    say(f"automatic replies still go out, unless somebody has stopped them: {stop}")


def _runs_out(incident: Document) -> int:
    running = [incident[name] for name in ("acknowledge_due_ms", "mitigate_due_ms") if incident.get(name)]
    return min(running, default=0)


def _show(incident: Document, *, as_json: bool) -> None:
    if as_json:
        emit(incident)
        return
    show_fields(
        [
            ("incident", incident["incident_id"]),
            ("state", incident["state"]),
            ("severity", incident["severity"]),
            ("title", incident["title"]),
            ("opened", f"{time_of(incident['opened_at_ms'])} by {incident['opened_by']}"),
            ("acknowledge by", time_of(incident.get("acknowledge_due_ms"))),
            ("mitigate by", time_of(incident.get("mitigate_due_ms"))),
            ("in hand", _by(incident, "acknowledged")),
            ("mitigated", _by(incident, "mitigated")),
            ("over", _by(incident, "resolved")),
            ("lead", incident.get("lead")),
            ("communications", incident.get("communications")),
            ("affected", incident.get("scope")),
            ("impact", incident.get("impact")),
            ("mitigation", incident.get("mitigation")),
            ("resolution", incident.get("resolution")),
            ("next update", time_of(incident.get("next_update_ms"))),
            ("runbook", incident.get("runbook")),
            *(
                (f"alarm {one['name']}", f"{'fires' if one['is_firing'] else 'quiet'}: {one['says']}")
                for one in incident["alarms"]
            ),
            *((f"switch {one['switch']}", _contained(one)) for one in incident["containment"]),
            *(
                (f"told {one['audience']}", f"{one['template']} at {time_of(one['at_ms'])} by {one['by']}")
                for one in incident["messages"]
            ),
            ("promised", ", ".join(incident["owed"])),
            ("postmortem", _postmortem(incident)),
            *(
                (f"page {one['number']}", f"{one['kind']}: {', '.join(one['took']) or 'on its way'}")
                for one in incident["pages"]
            ),
        ]
    )


def _postmortem(incident: Document) -> str:
    if incident.get("is_postmortem_outdated"):  # an API of the release before does not say
        return "kept before it happened again: to be kept anew"
    return "written" if incident["has_postmortem"] else "missing" * incident["needs_postmortem"]


def _contained(one: Document) -> str:
    """What the machine did by itself, or could not do."""
    until, before = time_of(one.get("until_ms")), one.get("before")
    said = f"{'set' if one['is_done'] else 'NOT SET'} to {one['value']} because of {one['because']}"
    return said + (f", until {until}" if until else "") + (f"; before: {before}" if before else "")


def _by(incident: Document, what: str) -> str:
    at_ms = incident.get(f"{what}_at_ms")
    return f"{time_of(at_ms)} by {incident.get(f'{what}_by')}" if at_ms else ""
