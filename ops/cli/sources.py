"""`holdfast source add | list | show | rotate | hold | disable | enable | guide`.

A secret is read from a file, from standard input or made here; never from an argument, which every process list shows.
It is written nowhere but into the parameter store; only one that was made here is printed, once, on standard output.
"""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from botocore.exceptions import BotoCoreError, ClientError

from functions.core import synthetic
from functions.core.audit import unfit_reason
from functions.core.clock import SystemClock, SystemIds
from functions.core.source import MalformedSource, SourceState
from ops import guide as guides
from ops import sources
from ops.cli.console import AsJson, Refused, emit, say, show_fields, show_table, stack_of, time_of, who
from ops.door_log import DoorLine, DoorLog, Seen, Sightings, sightings
from ops.local.parameters import webhook_url
from ops.sources import NotAudited, NotWritten, SourceTrouble, Stored, StoredSources
from ops.stack import Stack, StackUnreachable

app = typer.Typer(help="Senders' endpoints: add one, look at it, rotate its secret, stop it.", no_args_is_help=True)

MAX_FILE_BYTES = 64 * 1024
HISTORY = 5
# Until every environment of ingress has read the entry anew (functions/ingress/sources.py: 300 s, and a fifth of it).
SEEN_WITHIN = "ingress sees it at the first signature that does not fit, and in any case within six minutes"

Name = Annotated[str, typer.Argument(help="The source: the last part of its address.")]
Reason = Annotated[str, typer.Option(help="Why; it goes on record.")]
SecretFile = Annotated[
    Path | None, typer.Option(help="File that holds the secret; a line's end behind it does not count.")
]
SecretStdin = Annotated[
    bool, typer.Option("--secret-stdin", help="Read the secret from standard input; a terminal does not show it.")
]
Generate = Annotated[bool, typer.Option("--generate", help="Make the secret, and print it once.")]
Since = Annotated[str, typer.Option(help="How far back the log of ingress is read: 90s, 10m, 1h, 7d.")]


# ---------------------------------------------------------------------------------------------------------- to be seen


@app.command("list")
def show_all(ctx: typer.Context, since: Since = "24h", as_json: AsJson = False) -> None:
    """Every source: state, secrets, last event, last refusal, problems. No secrets."""
    with _told():
        stack, now_ms = stack_of(ctx), SystemClock().now_ms()
        since_ms = now_ms - sources.seconds_of(since, "--since") * 1000
        stored = _of(stack).all()
        looked = _sightings(stack, [one.name for one in stored], since_ms, now_ms)
        documents = [_document(stack, one, looked.seen.get(one.name, Seen()), now_ms) for one in stored]
    if as_json:
        emit(documents)
        return
    if not documents:
        say("there is no source yet: holdfast source add NAME --provider ... ")
        return
    columns = ("source", "state", "provider", "tenant", "flow", "secrets", "last event", "last refusal", "problems")
    show_table(
        "",
        columns,
        [
            (
                document["source"],
                document.get("state", ""),
                document.get("provider", ""),
                document.get("tenant", ""),
                document.get("flow", ""),
                ", ".join(_age_text(age) for age in document.get("secret_ages_days", [])),
                time_of(document["last_event_ms"]),
                _refusal_text(document["last_refusal"]),
                "; ".join(document["problems"]),
            )
            for document in documents
        ],
    )
    _say_how_far(looked, since_ms)


@app.command("show")
def show_one(ctx: typer.Context, name: Name, since: Since = "24h", as_json: AsJson = False) -> None:
    """One source, what was last heard of it and who changed it last. No secrets. Exit code 1 if it is not there."""
    with _told():
        stack, now_ms = stack_of(ctx), SystemClock().now_ms()
        since_ms = now_ms - sources.seconds_of(since, "--since") * 1000
        stored = _of(stack).get(name)
        looked = _sightings(stack, [name], since_ms, now_ms)
        document = _document(stack, stored, looked.seen.get(name, Seen()), now_ms)
        document["changes"] = _changes(stack, name)
    if as_json:
        emit(document)
        return
    ages = document.get("secret_ages_days", [])
    show_fields(
        [
            ("source", document["source"]),
            ("url", document["url"]),
            *((key, document.get(key)) for key in ("state", "provider", "tenant", "flow")),
            ("throttle", _throttle_text(document.get("entry", {}).get("throttle"))),
            ("expected gap", _seconds_text(document.get("entry", {}).get("expected_gap_seconds"))),
            ("secrets", f"{len(ages)}: {', '.join(_age_text(age) for age in ages)}" if ages else ""),
            ("version", document["version"]),
            ("last modified", time_of(document["changed_at_ms"])),
            ("last event", _event_text(document)),
            ("last refusal", _refusal_text(document["last_refusal"])),
            *(("problem", problem) for problem in document["problems"]),
        ]
    )
    if document["changes"]:
        columns = ("time", "actor", "changed", "state", "secrets", "reason", "error")
        show_table("changes", columns, [_change_line(change) for change in document["changes"]])
    _say_how_far(looked, since_ms)


@app.command("guide")
def show_guide(ctx: typer.Context, name: Name) -> None:
    """The page for the sender's developers, in Markdown: address, signature, answers, examples. No secrets."""
    with _told():
        stack = stack_of(ctx)
        stored = _of(stack).get(name)
        sources.usable(stored)
        endpoint = stored.endpoint()
    typer.echo(guides.page(endpoint, endpoint.source.public_url or webhook_url(stack, name)), nl=False)


# -------------------------------------------------------------------------------------------------------- to be changed


@app.command("add")
def add(
    ctx: typer.Context,
    *,
    name: Name,
    reason: Reason,
    provider: Annotated[str, typer.Option(help="Who signs, and so how: stripe, github, generic-hmac, ...")] = "",
    tenant: Annotated[str, typer.Option(help="Whose events they are.")] = "",
    flow: Annotated[str, typer.Option(help="What they call for: support, ...")] = "",
    secret_file: SecretFile = None,
    secret_stdin: SecretStdin = False,
    generate: Generate = False,
    identity: Annotated[
        list[str] | None,
        typer.Option(help="What a redelivery repeats: window, header:NAME, or pointers into the body, one each time."),
    ] = None,
    state: Annotated[SourceState | None, typer.Option(help="In which state it begins.")] = None,
    throttle: Annotated[str, typer.Option(help="rate/burst: events a second, and how many at once.")] = "",
    expected_gap: Annotated[str, typer.Option(help="It is never silent for longer than this: 1h, 7d.")] = "",
    repeat_window: Annotated[str, typer.Option(help="Without an id: equal events this close are one event.")] = "",
    public_url: Annotated[str, typer.Option(help="The address the sender is given, where a proxy hides ours.")] = "",
    option: Annotated[list[str] | None, typer.Option(help="Of a configurable scheme: header=x-signature, ...")] = None,
    fields: Annotated[list[str] | None, typer.Option(help="For the flow: text=/message/body, ...")] = None,
    from_file: Annotated[Path | None, typer.Option(help="The entry as JSON; what is said here goes before it.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it over one that is there. Without a secret, it keeps those.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Add a source. Refused, exit code 1, before anything is written if ingress could not use it."""
    with _told():
        _check(name, reason)
        if not replace and not (secret_file or secret_stdin or generate or from_file):
            raise SourceTrouble("say where its secret comes from: --secret-file, --secret-stdin or --generate")
        entry = _entry_of_file(from_file)
        entry |= {key: text for key, text in (("provider", provider), ("tenant", tenant), ("flow", flow)) if text}
        entry |= {"identity": sources.identity_of(identity)} if identity else {}
        entry |= {"state": state.value} if state else {}
        entry |= {"throttle": sources.throttle_of(throttle)} if throttle else {}
        for key, text in (("expected_gap", expected_gap), ("repeat_window", repeat_window)):
            entry |= {f"{key}_seconds": sources.seconds_of(text, f"--{key.replace('_', '-')}")} if text else {}
        entry |= {"public_url": public_url} if public_url else {}
        entry |= {"scheme": {**_map(entry, "scheme"), **sources.pairs(option, "--option")}} if option else {}
        entry |= {"fields": {**_map(entry, "fields"), **sources.pairs(fields, "--fields")}} if fields else {}
        secret = _new_secret(
            secret_file,
            is_stdin=secret_stdin,
            generate=(lambda: _generated(entry)) if generate else None,
        )
        if secret and "secrets" in entry:
            raise SourceTrouble("the file holds secrets, and another is given: say which")
        if secret:
            entry["secrets"] = [_noted(secret)]
        _note_dates(entry)
        if not replace or "secrets" in entry:
            sources.check_entry(name, sources.entry_text(entry))
        stack = stack_of(ctx)
        kept = _of(stack)
        before = kept.find(name)
        if before is not None and not replace:
            raise SourceTrouble(f"there is a source {name!r} already: --replace puts this one in its place")
        if "secrets" not in entry:
            if before is None or "secrets" not in before.raw():
                raise SourceTrouble("there are no secrets to keep: --secret-file, --secret-stdin or --generate")
            entry = _kept_secrets(before, entry) | entry
        text = sources.entry_text(entry)
        sources.check_entry(name, text)
        written = kept.write(name, text, before, reason.strip())
    is_ours = entry["flow"] == synthetic.FLOW  # its sender reads the secret where we have put it
    _tell_change(
        stack,
        name,
        written,
        secret=secret if generate and not is_ours else "",
        what="added" if before is None else "replaced",
        as_json=as_json,
    )
    if generate and not is_ours and entry["provider"] not in guides.CHOSEN_BY_US:
        say(f"{entry['provider']} issues its secrets itself: a secret made here serves tests only")
    if before is None and not is_ours:
        say(f"for its sender's developers: holdfast source guide {name}")
    _end(written)


@app.command("rotate")
def rotate(
    ctx: typer.Context,
    *,
    name: Name,
    reason: Reason,
    secret_file: SecretFile = None,
    secret_stdin: SecretStdin = False,
    generate: Generate = False,
    retire: Annotated[bool, typer.Option("--retire", help="Remove every secret but the newest.")] = False,
    retire_created_before: Annotated[
        str, typer.Option(help="Remove secrets made before this ISO date or date-time.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Give a source a further secret beside those it has; once its sender has changed over, retire the old ones.

    First with --generate, --secret-file or --secret-stdin, later with --retire. Both at once cuts the old one off.
    """
    with _told():
        _check(name, reason)
        if retire and retire_created_before:
            raise SourceTrouble("--retire or --retire-created-before, not both")
        moment = sources.moment_ms(retire_created_before) if retire_created_before else None
        if retire_created_before and moment is None:
            raise SourceTrouble("--retire-created-before is an ISO date or date-time, such as 2026-03-31")
        is_new = bool(secret_file or secret_stdin or generate)
        if not (is_new or retire or retire_created_before):
            raise SourceTrouble("say where the new secret comes from, or what is to be retired")
        given = _new_secret(secret_file, is_stdin=secret_stdin, generate=None) if not generate else ""
        if generate and (secret_file or secret_stdin):
            raise SourceTrouble("one secret at a time: --secret-file, --secret-stdin or --generate")
        stack = stack_of(ctx)
        kept = _of(stack)
        before = kept.get(name)
        source = sources.usable(before)
        secret = sources.new_secret(source.provider, source.scheme) if generate else given
        wanted, done = before, []
        if secret:
            wanted = _with_text(wanted, sources.with_secret(wanted, _noted(secret)))
            done.append("a secret added")
        if retire:
            text, gone = sources.without_older(wanted)
            wanted = _with_text(wanted, text)
            done.append(f"{gone} retired")
        if moment is not None:
            text, gone, undated = sources.without_created_before(wanted, moment)
            wanted = _with_text(wanted, text)
            done.append(f"{gone} retired" + (f", {undated} without a date kept" if undated else ""))
        if not secret and wanted.text == sources.entry_text(before.raw()):
            say(f"{name}: nothing to retire")
            return
        written = kept.write(name, wanted.text, before, reason.strip())
    _tell_change(stack, name, written, secret=secret if generate else "", what=" and ".join(done), as_json=as_json)
    if retire or retire_created_before:
        say("what was retired is still accepted for up to six minutes")
    elif secret:
        say(f"once the sender signs with it: holdfast source rotate {name} --retire --reason ...")
    _end(written)


@app.command("hold")
def hold(ctx: typer.Context, name: Name, reason: Reason, as_json: AsJson = False) -> None:
    """Accept its events, and keep each one back as a failed item until a person replays it."""
    _set_state(ctx, name, SourceState.HELD, reason, as_json=as_json)
    say(
        f'to have what it keeps worked: holdfast source enable {name} --reason "...", then '
        f'holdfast replay --failure-code HELD --source {name} --reason "..."'
    )


@app.command("disable")
def disable(ctx: typer.Context, name: Name, reason: Reason, as_json: AsJson = False) -> None:
    """Refuse its events, as if there were no such source."""
    _set_state(ctx, name, SourceState.DISABLED, reason, as_json=as_json)
    say(f"its sender hears 401 and may never send those events again; to keep them: holdfast source hold {name}")


@app.command("enable")
def enable(ctx: typer.Context, name: Name, reason: Reason, as_json: AsJson = False) -> None:
    """Take its events again."""
    _set_state(ctx, name, SourceState.ACTIVE, reason, as_json=as_json)


def _set_state(ctx: typer.Context, name: str, state: SourceState, reason: str, *, as_json: bool) -> None:
    with _told():
        _check(name, reason)
        stack = stack_of(ctx)
        kept = _of(stack)
        before = kept.get(name)
        source = sources.usable(before)
        if source.state is state:
            say(f"{name} is {state.value} already")
            if as_json:
                emit({"source": name, "version": before.version})
            return
        written = kept.write(name, sources.with_state(before, state), before, reason.strip())
    _tell_change(stack, name, written, secret="", what=f"{source.state.value} → {state.value}", as_json=as_json)
    _end(written)


# --------------------------------------------------------------------------------------------------------------- inside


@contextmanager
def _told() -> Iterator[None]:
    """Ends the command with what a source's trouble means for its exit code."""
    try:
        yield
    except (NotAudited, NotWritten) as exc:
        if exc.is_unreachable:
            raise StackUnreachable(str(exc)) from exc
        raise Refused(str(exc)) from exc
    except SourceTrouble as exc:
        raise Refused(str(exc)) from exc


def _of(stack: Stack) -> StoredSources:
    return StoredSources(stack, SystemClock(), SystemIds(), lambda: who(stack))


def _check(name: str, reason: str) -> None:
    sources.check_name(name)
    wrong = unfit_reason(reason)
    if wrong is not None:
        raise SourceTrouble(wrong)


def _with_text(stored: Stored, text: str) -> Stored:
    return Stored(stored.name, text, stored.version, stored.changed_at_ms)


def _noted(secret: str) -> dict[str, str]:
    return {"secret": secret, "created_at": _now_text()}


def _now_text() -> str:
    return sources.moment_text(SystemClock().now_ms())


def _kept_secrets(before: Stored, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What is secret of the entry that is replaced; a challenge's token only for the same provider."""
    kept = sources.SECRET_KEYS if before.raw().get("provider") == entry.get("provider") else {"secrets"}
    return {key: before.raw()[key] for key in kept if key in before.raw()}


def _note_dates(entry: dict[str, Any]) -> None:
    """Say of each secret that came without a date that it came today."""
    if isinstance(entry.get("secrets"), list):
        entry["secrets"] = [
            {"created_at": _now_text(), **one} if isinstance(one, dict) else one for one in entry["secrets"]
        ]


def _entry_of_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        entry = json.loads(_read(path))
    except (ValueError, RecursionError) as exc:
        raise SourceTrouble(f"{path} is not JSON") from exc
    if not isinstance(entry, dict):
        raise SourceTrouble(f"{path} is not a JSON object")
    return entry


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise SourceTrouble(f"{path} cannot be read: {exc.strerror}") from exc
    if len(content) > MAX_FILE_BYTES:
        raise SourceTrouble(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    return content


def _map(entry: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = entry.get(key, {})
    if not isinstance(value, dict):
        raise SourceTrouble(f"{key} is not a map")
    return value


def _generated(entry: Mapping[str, Any]) -> str:
    options = entry.get("scheme", {})
    if not isinstance(options, dict) or not all(isinstance(one, str) for one in options.values()):
        raise SourceTrouble("scheme is not a map of texts")
    return sources.new_secret(str(entry.get("provider", "")), options)


def _new_secret(path: Path | None, *, is_stdin: bool, generate: Callable[[], str] | None) -> str:
    """The secret that was given, or empty. Raises `SourceTrouble` for one that nobody can sign with."""
    if (path is not None) + is_stdin + (generate is not None) > 1:
        raise SourceTrouble("one secret at a time: --secret-file, --secret-stdin or --generate")
    if generate is not None:
        return generate()
    if path is not None:
        return _secret_of(_read(path))
    if not is_stdin:
        return ""
    if sys.stdin.isatty():
        return _secret_of(getpass.getpass("secret: ").encode("utf-8", "surrogateescape"))
    content = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise SourceTrouble(f"standard input holds more than {MAX_FILE_BYTES} bytes")
    return _secret_of(content)


def _secret_of(content: bytes) -> str:
    """A secret as the parameter store shall hold it: one line of text, its end cut off."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise SourceTrouble("the secret is not UTF-8 text") from None  # the cause quotes it
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise SourceTrouble("the secret is empty")
    if not text.isprintable():
        raise SourceTrouble("the secret holds a line's end, a NUL or another control character")
    return text


def _tell_change(stack: Stack, name: str, written: sources.Written, *, secret: str, what: str, as_json: bool) -> None:
    if as_json:
        document: dict[str, Any] = {"source": name, "url": webhook_url(stack, name), "version": written.version}
        emit({**document, "secret": secret} if secret else document)
    elif secret:
        typer.echo(secret)
    say(f"{name}: {what} (version {written.version}); {SEEN_WITHIN}")
    if secret:
        say("the secret above is shown this once: give it to the sender by a way that nobody else reads")
    if written.is_advanced:
        say("the entry is over 4 KB, so that its parameter is of the advanced tier, which AWS charges for")


def _end(written: sources.Written) -> None:
    if written.trouble:
        raise Refused(written.trouble)


def _sightings(stack: Stack, names: Sequence[str], since_ms: int, now_ms: int) -> Sightings:
    """What the log tells; nothing, and a remark, where the caller may not read it."""
    try:
        return sightings(DoorLog.of(stack), names, since_ms, now_ms)
    except (ClientError, BotoCoreError) as exc:
        code = exc.response.get("Error", {}).get("Code", "?") if isinstance(exc, ClientError) else type(exc).__name__
        say(f"the log of ingress could not be read ({code}): the last event and the last refusal are not known")
        return Sightings({}, since_ms, since_ms)


def _say_how_far(looked: Sightings, since_ms: int) -> None:
    for what, reached_ms in (("last events", looked.accepted_since_ms), ("refusals", looked.refused_since_ms)):
        if reached_ms > since_ms + 1000 and not all(_is_found(seen, what) for seen in looked.seen.values()):
            say(f"the log is long: {what} were looked for back to {time_of(reached_ms)} only")


def _is_found(seen: Seen, what: str) -> bool:
    return (seen.accepted if what == "last events" else seen.refused) is not None


def _document(stack: Stack, stored: Stored, seen: Seen, now_ms: int) -> dict[str, Any]:
    """What may be told of a source. Of an entry that cannot be used only what is wrong: a secret may be anywhere."""
    document: dict[str, Any] = {
        "source": stored.name,
        "url": webhook_url(stack, stored.name),
        "version": stored.version,
        "changed_at_ms": stored.changed_at_ms,
        "last_event_ms": seen.accepted.at_ms if seen.accepted else None,
        "last_event_secret": seen.accepted.secret_number if seen.accepted else 0,
        "last_refusal": _refusal(seen.refused),
        "problems": sources.problems_of(stored, now_ms),
    }
    try:
        source = stored.endpoint().source
    except MalformedSource:
        return document
    gap = source.expected_gap_seconds
    if gap and seen.accepted and now_ms - seen.accepted.at_ms > gap * 1000:
        document["problems"].append(f"silent for longer than the {_seconds_text(gap)} that are expected at most")
    return {
        **document,
        "url": source.public_url or document["url"],
        "state": source.state.value,
        "provider": source.provider,
        "tenant": source.tenant,
        "flow": source.flow,
        "secret_ages_days": [sources.age_days(secret, now_ms) for secret in source.secrets],
        "entry": {
            key: stored.raw()[key] for key in sorted(sources.ENTRY_KEYS - sources.SECRET_KEYS) if key in stored.raw()
        },
    }


def _event_text(document: Mapping[str, Any]) -> str:
    number = document["last_event_secret"]
    return time_of(document["last_event_ms"]) + (f", signed with secret {number}" if number else "")


def _refusal(line: DoorLine | None) -> dict[str, Any] | None:
    if line is None:
        return None
    return {"at_ms": line.at_ms, "reason": line.reason, "why": line.why, "request_id": line.request_id}


def _refusal_text(refusal: Mapping[str, Any] | None) -> str:
    if refusal is None:
        return ""
    why = f" ({refusal['why']})" if refusal["why"] else ""
    return f"{time_of(refusal['at_ms'])} {refusal['reason']}{why}"


def _age_text(age: int | None) -> str:
    if age is None:
        return "of unknown age"
    return f"{age} d" + (" (old)" if age > sources.OLD_SECRET_DAYS else "")


def _throttle_text(throttle: Mapping[str, Any] | None) -> str:
    return f"{throttle['rate']}/s, {throttle['burst']} at once, in each environment of ingress" if throttle else ""


def _seconds_text(seconds: int | None) -> str:
    if not seconds:
        return ""
    unit, size = next(
        ((unit, size) for unit, size in (("d", 86400), ("h", 3600), ("m", 60)) if seconds % size == 0), ("s", 1)
    )
    return f"{seconds // size}{unit}"


def _changes(stack: Stack, name: str) -> list[dict[str, Any]]:
    """The last audited changes; none, and a remark, where the caller may not read them."""
    try:
        return _of(stack).history(name, HISTORY)
    except ClientError as exc:
        say(f"the audit could not be read ({exc.response.get('Error', {}).get('Code', '?')})")
        return []


def _change_line(change: Mapping[str, Any]) -> tuple[str, ...]:
    after = _state_in(change.get("after_state"))
    return (
        time_of(change.get("at_ms")),
        str(change.get("actor", "")),
        ", ".join(str(key) for key in after.get("changed", [])),
        str(after.get("state", "")),
        str(after.get("secrets", "")),
        str(change.get("reason", "")),
        str(change.get("error", "")),
    )


def _state_in(text: object) -> dict[str, Any]:
    try:
        state = json.loads(str(text or "{}"))
    except ValueError:
        return {}
    return state if isinstance(state, dict) else {}
