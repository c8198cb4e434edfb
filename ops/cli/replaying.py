"""`holdfast replay`: bulk replays, from the plan to the end."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from functions.core.duration import NoDuration, duration_ms
from functions.core.integration import INTAKE
from functions.core.replay_job import MOST_ITEMS, State
from functions.operator_api.problems import Code
from ops.cli import items
from ops.cli.console import (
    AsJson,
    ExitCode,
    Limit,
    Refused,
    check_integrations,
    clean,
    emit,
    emit_line,
    say,
    show_fields,
    show_table,
    stack_of,
    time_of,
)
from ops.cli.items import PAGE
from ops.operator_api import ApiRefused, Document, connect
from ops.replays import NotPlanned, Replays, will_go

app = typer.Typer(
    help="Give failed and dead items one more attempt, under their old keys: planned, shown, approved, watched.",
    invoke_without_command=True,
)

Reason = Annotated[str, typer.Option(help="Why; it is kept in the audit.")]
Ids = Annotated[list[str] | None, typer.Option("--id", help="These items; may be repeated.")]
OfIntegration = Annotated[list[str] | None, typer.Option("--integration", help="Items of this one; may be repeated.")]
OfStatus = Annotated[str, typer.Option("--status", help="failed or dlq.")]
FailedWith = Annotated[
    list[str] | None, typer.Option("--failure-code", help="That failed with this code; may be repeated.")
]
Cause = Annotated[str, typer.Option("--root-cause", help="With this root cause.")]
Source = Annotated[str, typer.Option(help="Of this source's events.")]
Tenant = Annotated[str, typer.Option(help="Of this tenant.")]
Flow = Annotated[str, typer.Option(help="Of this flow.")]
EventName = Annotated[str, typer.Option(help="Of events of this name.")]
OfIncident = Annotated[str, typer.Option("--of-incident", help="That belong to this incident.")]
Detail = Annotated[str, typer.Option(help="With this text in the failure's detail.")]
Older = Annotated[str, typer.Option("--older-than", help="Of events received longer ago: 90s, 30m, 4h, 2d.")]
Newer = Annotated[str, typer.Option("--newer-than", help="Of events received since: 90s, 30m, 4h, 2d.")]
Cap = Annotated[int, typer.Option("--cap", "--limit", min=1, max=MOST_ITEMS, help="At most so many, the oldest first.")]
Incident = Annotated[str, typer.Option(help="Name the job and its items after this incident.")]
LookOnly = Annotated[
    bool, typer.Option("--look-only", help="Only find out, at the provider, what became of unclear items.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
JobId = Annotated[str, typer.Argument(help="The job's id, as `holdfast replay plan` prints it.")]


@app.callback()
def replay(
    ctx: typer.Context,
    *,
    reason: Reason = "",
    recovery_id: Ids = None,
    integration: OfIntegration = None,
    status: OfStatus = "",
    failure_code: FailedWith = None,
    root_cause: Cause = "",
    source: Source = "",
    tenant: Tenant = "",
    flow: Flow = "",
    event_name: EventName = "",
    of_incident: OfIncident = "",
    detail: Detail = "",
    older_than: Older = "",
    newer_than: Newer = "",
    cap: Cap = MOST_ITEMS,
    incident: Incident = "",
    look_only: LookOnly = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, and do nothing.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """All in one: plan, show, ask, approve, and watch to the end. Exit code 1 if refused, if nothing goes, or if the
    job did not finish.
    """
    if ctx.invoked_subcommand is not None:
        return
    wanted = _criteria(
        older_than,
        newer_than,
        recovery_id=recovery_id,
        integration=integration,
        status=status,
        failure_code=failure_code,
        root_cause=root_cause,
        source=source,
        tenant=tenant,
        flow=flow,
        event_name=event_name,
        incident=of_incident,
        detail=detail,
    )
    job, jobs = _planned(ctx, wanted, reason, incident, cap, look_only=look_only)
    if dry_run:
        _show_plan(job, as_json=as_json)
    elif will_go(job):
        _run(jobs, job, yes=yes, as_json=as_json)
    else:
        _show_plan(job, as_json=as_json)
    if not will_go(job):
        raise typer.Exit(ExitCode.REFUSED)


app.command("one")(items.replay_one)


@app.command("plan")
def plan(
    ctx: typer.Context,
    *,
    reason: Reason,
    recovery_id: Ids = None,
    integration: OfIntegration = None,
    status: OfStatus = "",
    failure_code: FailedWith = None,
    root_cause: Cause = "",
    source: Source = "",
    tenant: Tenant = "",
    flow: Flow = "",
    event_name: EventName = "",
    of_incident: OfIncident = "",
    detail: Detail = "",
    older_than: Older = "",
    newer_than: Newer = "",
    cap: Cap = MOST_ITEMS,
    incident: Incident = "",
    look_only: LookOnly = False,
    as_json: AsJson = False,
) -> None:
    """Say of each item that is meant what a replay would do with it. Nothing is replayed. Exit code 1 if none goes."""
    wanted = _criteria(
        older_than,
        newer_than,
        recovery_id=recovery_id,
        integration=integration,
        status=status,
        failure_code=failure_code,
        root_cause=root_cause,
        source=source,
        tenant=tenant,
        flow=flow,
        event_name=event_name,
        incident=of_incident,
        detail=detail,
    )
    job, _ = _planned(ctx, wanted, reason, incident, cap, look_only=look_only)
    _show_plan(job, as_json=as_json)
    if not will_go(job):
        raise typer.Exit(ExitCode.REFUSED)


@app.command("approve")
def approve(
    ctx: typer.Context,
    job_id: JobId,
    plan_hash: Annotated[str, typer.Option(help="The plan that you have looked at: its hash.")] = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Let a planned job run. Without --plan-hash the plan is shown, and you are asked. It runs without you then."""
    jobs = Replays(connect(stack_of(ctx)))
    job = jobs.get(job_id)
    if not plan_hash:
        _ask(job, yes=yes, as_json=as_json)
        plan_hash = _hash(job)
    _show(_approved(jobs, job_id, plan_hash), as_json=as_json)


@app.command("run")
def run(ctx: typer.Context, job_id: JobId, yes: Yes = False, as_json: AsJson = False) -> None:
    """Approve a planned job, after showing its plan and asking, and watch it to its end. Exit code 1 if it does not
    finish.
    """
    jobs = Replays(connect(stack_of(ctx)))
    _run(jobs, jobs.get(job_id), yes=yes, as_json=as_json)


@app.command("watch")
def watch(ctx: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Follow a job until it is over or paused. With --json a line for each look. Exit code 1 if it did not finish."""
    _watch(Replays(connect(stack_of(ctx))), job_id, as_json=as_json)


@app.command("pause")
def pause(ctx: typer.Context, job_id: JobId, reason: Reason, as_json: AsJson = False) -> None:
    """Begin no further batch. What is under way comes to its end."""
    _change(ctx, job_id, "pause", reason, as_json=as_json)


@app.command("resume")
def resume(ctx: typer.Context, job_id: JobId, reason: Reason, as_json: AsJson = False) -> None:
    """Let a paused job go on where it was."""
    _change(ctx, job_id, "resume", reason, as_json=as_json)


@app.command("cancel")
def cancel(ctx: typer.Context, job_id: JobId, reason: Reason, as_json: AsJson = False) -> None:
    """End a job: nothing more of it is sent, and what was not sent goes back where it came from."""
    _change(ctx, job_id, "cancel", reason, as_json=as_json)


@app.command("list")
def show_all(
    ctx: typer.Context,
    active: Annotated[bool, typer.Option("--active", help="Not those that are over, nor mere plans.")] = False,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """Which jobs there are, the newest first: the newest fifty, and those that are not over. `replay show` has older
    ones too.
    """
    told = Replays(connect(stack_of(ctx))).every(active=active, limit=limit)
    if as_json:
        emit(told)
        return
    if not told["replays"]:
        say("there is none")
        return
    show_table(
        "",
        ("job", "state", "items", "done", "by", "since", "why"),
        [
            (
                job["replay_id"],
                job["state"],
                will_go(job),
                (job.get("progress") or {}).get("done", ""),
                job.get("approved_by") or job["created_by"],
                time_of(job["created_at_ms"]),
                job.get("stop_reason") or job["reason"],
            )
            for job in told["replays"]
        ],
    )
    say(f"one of them: holdfast replay show JOB; one that stopped: {PAGE}, section 7")


@app.command("show")
def show(
    ctx: typer.Context,
    job_id: JobId,
    items: Annotated[bool, typer.Option("--items", help="With every item, and what became of it.")] = False,
    as_json: AsJson = False,
) -> None:
    """One job: its plan, how far it is, and with --items what became of each item."""
    jobs = Replays(connect(stack_of(ctx)))
    job = jobs.get(job_id)
    found = list(jobs.items(job_id)) if items else []
    if as_json:
        emit({**job, **({"items": found} if items else {})})
        return
    _show_plan(job, as_json=False)
    _show(job, as_json=False)
    if items:
        show_table(
            "items",
            ("recovery id", "integration", "plan", "outcome", "failure", "why"),
            [
                (
                    item["recovery_id"],
                    item["integration"],
                    item["prediction"],
                    item.get("outcome") or "",
                    item.get("failure_code") or "",
                    item["why"],
                )
                for item in found
            ],
        )


# -------------------------------------------------------------------------------------------------------------- filter


def _criteria(older_than: str, newer_than: str, **stated: str | list[str] | None) -> Document:
    """The filter as the API takes it, of what was given."""
    wanted: Document = {name: [value] if isinstance(value, str) else value for name, value in stated.items() if value}
    check_integrations(wanted.get("integration", []), and_also=[INTAKE])
    for name, text in (("older_than_seconds", older_than), ("newer_than_seconds", newer_than)):
        if text:
            wanted[name] = _seconds(text)
    return wanted


def _seconds(text: str) -> int:
    try:
        return duration_ms(text) // 1000
    except NoDuration as none:
        raise typer.BadParameter(str(none)) from none


def _planned(
    ctx: typer.Context, wanted: Document, reason: str, incident: str, cap: int, *, look_only: bool
) -> tuple[Document, Replays]:
    if not reason.strip():
        raise typer.BadParameter("say why: --reason", param_hint="--reason")
    jobs = Replays(connect(stack_of(ctx)))
    try:
        most = cap if cap < MOST_ITEMS else None
        job = jobs.plan(wanted, reason, incident_id=incident, cap=most, look_only=look_only)
    except NotPlanned as failed:
        raise Refused(str(failed)) from failed
    return job, jobs


# ----------------------------------------------------------------------------------------------------------------- runs


def _run(jobs: Replays, job: Document, *, yes: bool, as_json: bool) -> None:
    if job.get("approved_by"):
        say(f"{job['replay_id']} is {job['state']}: {job['approved_by']} has approved it already")
    else:
        _ask(job, yes=yes, as_json=as_json)
        _approved(jobs, job["replay_id"], _hash(job))
    _watch(jobs, job["replay_id"], as_json=as_json, only_end=True)


def _approved(jobs: Replays, job_id: str, plan_hash: str) -> Document:
    """The job, approved. Raises `Refused`, saying what to do then."""
    try:
        return jobs.approve(job_id, plan_hash)
    except ApiRefused as refused:
        raise Refused(_why(refused, job_id)) from refused


def _change(ctx: typer.Context, job_id: str, what: str, reason: str, *, as_json: bool) -> None:
    """Change a job and show it. Raises `Refused`, saying what to do then."""
    try:
        job = Replays(connect(stack_of(ctx))).change(job_id, what, reason)
    except ApiRefused as refused:
        raise Refused(_why(refused, job_id)) from refused
    _show(job, as_json=as_json)


def _why(refused: ApiRefused, job_id: str) -> str:
    """What the API says, and the next command where there is one."""
    about = refused.more.get("replay_id") or job_id
    match refused.code:
        case Code.PLAN_STALE:
            return f"{refused}; again: holdfast replay plan, with the same words ({PAGE}, section 6)"
        case Code.IN_PROGRESS if about != job_id:
            return f"{refused}; how far it is: holdfast replay show {about} ({PAGE}, section 6)"
        case Code.IN_PROGRESS | Code.REPLAY_CONFLICT:
            return f"{refused}; how it is: holdfast replay show {job_id}"
        case Code.NOT_FOUND:
            return f"{refused}; those that there are: holdfast replay list"
    return str(refused)


def _hash(job: Document) -> str:
    found = (job.get("plan") or {}).get("hash", "")
    if not found:
        yet = " yet: holdfast replay show " + job["replay_id"] if job["state"] == State.PLANNING else ""
        raise Refused(f"{job['replay_id']} is {job['state']}: it has no plan{yet}")
    return str(found)


def _ask(job: Document, *, yes: bool, as_json: bool) -> None:
    """Show the plan, and let nobody approve what they have not seen. Raises `Refused`."""
    _hash(job)
    if not as_json:
        _show_plan(job, as_json=False)
    if yes:
        return
    if not _is_asked():
        raise Refused(
            f"nobody is there to be asked: --yes, or holdfast replay approve {job['replay_id']} --plan-hash X"
        )
    if not typer.confirm(f"replay {will_go(job)} items?", err=True):
        raise Refused(f"nothing was replayed; the plan stays: holdfast replay run {job['replay_id']}")


def _is_asked() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty()


def _watch(jobs: Replays, job_id: str, *, as_json: bool, only_end: bool = False) -> None:
    """Progress on standard error while somebody looks, the end on standard output."""
    job: Document = {}
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal or as_json,
        transient=True,
    )
    with bar:
        task = bar.add_task(job_id, total=None)
        for job in jobs.follow(job_id):
            progress = job.get("progress") or {}
            bar.update(task, description=_state_of(job), total=progress.get("items"), completed=progress.get("done", 0))
            if as_json and not only_end:
                emit_line(job)
    if not as_json or only_end:
        _show(job, as_json=as_json)
    if job["state"] != "finished":
        raise typer.Exit(ExitCode.REFUSED)


def _state_of(job: Document) -> str:
    progress = job.get("progress") or {}
    said = [f"{number} {name}" for name, number in (progress.get("outcomes") or {}).items()]
    if progress.get("held_because"):
        said.append(f"held back: {progress['held_because']}")
    return clean(f"{job['state']}  {', '.join(said)}")


# ----------------------------------------------------------------------------------------------------------------- told


def _show_plan(job: Document, *, as_json: bool) -> None:
    if as_json:
        emit(job)
        return
    made = job.get("plan")
    if made is None:
        return
    samples = made.get("samples") or {}
    show_table(
        f"{job['replay_id']}: {job['state']}",
        ("items", "would become of them", "that is", "for example"),
        [
            (
                number,
                name,
                _MEANS.get(name, ""),
                ", ".join(one["recovery_id"] for one in samples.get(name, [])[:2]),
            )
            for name, number in (made.get("counts") or {}).items()
        ],
    )
    if not made.get("counts"):
        say("no item is meant: which there are says holdfast queue list --status dlq --status failed")
        return
    if job["state"] != State.PLANNED:
        return  # what it would have done is past
    if not will_go(job):
        say(f"nothing would be replayed; what to do about each word: {PAGE}, section 6")
        return
    seconds = int(made.get("estimated_seconds", 0))
    about = f", in about {-(-seconds // 60)} min at a quarter of the rate" if seconds else ""
    say(f"{will_go(job)} items would be replayed{about}; the plan is good until {time_of(made.get('good_until_ms'))}")
    say(f"let it run: holdfast replay run {job['replay_id']}")


_MEANS = {
    "would_send": "it has not happened: it is sent",
    "would_check": "it may have happened: the provider is asked first, or knows our key",
    "already_done": "it has happened on another way: left alone",
    "unknown": "it may have happened, and nothing can tell: for a person",
    "under_way": "the machine has it",
    "ended": "a person has ended it",
    "expired": "it is too late",
    "too_old": "its event is over 30 days old",
    "suppressed": "a switch, a mode or the recipient stopped it: --failure-code SUPPRESSED means it",
    "kept_aside": "a person keeps it aside: name its code, HELD or QUARANTINED, to mean it",
    "switch_blocks": "a switch would hold it",
    "health_blocks": "its integration is down",
    "schema_unknown": "its version or kind is not known any more",
    "other_payload": "its event's id belongs to another payload",
    "over_cap": "more than the job takes",
    "not_found": "there is no such item that is meant",
}


def _show(job: Document, *, as_json: bool) -> None:
    if as_json:
        emit(job)
        return
    progress = job.get("progress") or {}
    outcomes = ", ".join(f"{number} {name}" for name, number in (progress.get("outcomes") or {}).items())
    show_fields(
        [
            ("job", job["replay_id"]),
            ("state", job["state"]),
            ("because", job.get("stop_reason")),
            ("held back", progress.get("held_because")),
            ("done", f"{progress['done']} of {progress['items']}" if progress else ""),
            ("outcomes", outcomes),
            ("approved by", job.get("approved_by")),
            ("ended", time_of(job.get("ended_at_ms"))),
            ("request id", job["request_id"]),
        ]
    )
    advice = _what_next(job)
    if advice:
        say(advice)


def _what_next(job: Document) -> str:
    """What whoever sees the job in its state can do; nothing where that stands there already."""
    job_id = job["replay_id"]
    each = f"what became of each item: holdfast replay show {job_id} --items"
    match job["state"]:
        case State.PLANNING:
            return f"it is being planned; look again: holdfast replay show {job_id}"
        case State.FAILED:
            return f"nothing was replayed: plan again, with a filter that means less ({PAGE}, section 6)"
        case State.APPROVED | State.RUNNING | State.STOPPING:
            return f"how it goes: holdfast replay watch {job_id}"
        case State.PAUSED:
            return (
                f'no batch begins before somebody says so: holdfast replay resume {job_id} --reason "..."; to end it: '
                f'holdfast replay cancel {job_id} --reason "..."'
            )
        case State.STOPPED:
            return f"it stopped itself, and what it had not sent is back where it was; {each}; then: {PAGE}, section 7"
        case State.CANCELLED if job.get("approved_by"):
            return f"what it had not sent is back where it was; {each}"
        case State.FINISHED:
            return f"{each} ({PAGE}, section 6)"
    return ""
