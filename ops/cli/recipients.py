"""`holdfast recipient show | opt-out | opt-in | consent | contact | wrong-number | restore`.

Whom it is about is said by their pseudonym, or by a contact that is read from a file or from standard input: never by
one in an argument, which stays in the shell's history and stands in every process list. No contact is printed in full.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from botocore.exceptions import ClientError

from functions.core.clock import SystemClock, SystemIds
from functions.core.person import Known, Note, PersonChange
from ops import recipients
from ops.cli.console import AsJson, Refused, emit, say, show_fields, show_table, stack_of, time_of, who
from ops.recipients import Channel, Decide, RecipientTrouble, StoredRecipients
from ops.stack import Stack, StackUnreachable

app = typer.Typer(help="People we may contact: consent, contacts, opt-outs.", no_args_is_help=True)

MAX_FILE_BYTES = 4096
HISTORY = 10

Tenant = Annotated[str, typer.Option(help="At which tenant.")]
Recipient = Annotated[str, typer.Option(help="Their pseudonym, 32 hexadecimal digits.")]
ContactFile = Annotated[Path | None, typer.Option(help="File that holds a number or an address, on one line.")]
ContactStdin = Annotated[
    bool, typer.Option("--contact-stdin", help="Read it from standard input; a terminal does not show it.")
]
Reason = Annotated[str, typer.Option(help="Why; it goes on record. No number and no address in it.")]
Region = Annotated[str, typer.Option(help="Country of a number without one: DE, US, ...")]


@app.command("show")
def show(
    ctx: typer.Context,
    *,
    tenant: Tenant,
    recipient: Recipient = "",
    contact_file: ContactFile = None,
    contact_stdin: ContactStdin = False,
    as_json: AsJson = False,
) -> None:
    """What is known of a person, whether they may be contacted, and who changed what last."""
    with _told():
        name = _whose(tenant, recipient, _contact(contact_file, is_stdin=contact_stdin))
        stack = stack_of(ctx)
        kept = _of(stack)
        document = recipients.document_of(tenant, name, kept.person(tenant, name))
        document["changes"] = _changes(kept, tenant, name)
    if as_json:
        emit(document)
        return
    show_fields(
        [
            ("recipient", name),
            ("tenant", tenant),
            ("entry", "" if document["readable"] else "cannot be read: nothing is sent to them until it is mended"),
            ("opted out", "yes, on every channel" if document["opted_out"] else ""),
            *((f"may be contacted: {channel}", text) for channel, text in document["standing"].items()),
            *(
                (f"consent: {channel}", "given" if given else "withdrawn")
                for channel, given in document["consent"].items()
            ),
            *(
                (
                    f"contact: {channel}",
                    f"{one['masked']}{' (wrong)' if one['wrong'] else ''}, {time_of(one['since_ms'])}",
                )
                for channel, one in document["contacts"].items()
            ),
            *((f"wrong contacts: {channel}", count) for channel, count in document["wrong_contacts"].items()),
            ("version", document["version"]),
            ("last changed", time_of(document["updated_at_ms"])),
        ]
    )
    if not document["known"]:
        say("nobody has written anything down about them")
    if document["changes"]:
        columns = ("time", "actor", "reason")
        lines = [(time_of(one["at_ms"]), one["actor"], one["reason"]) for one in document["changes"]]
        show_table("changes", columns, lines)


@app.command("opt-out")
def opt_out(
    ctx: typer.Context,
    *,
    tenant: Tenant,
    reason: Reason,
    recipient: Recipient = "",
    contact_file: ContactFile = None,
    contact_stdin: ContactStdin = False,
    as_json: AsJson = False,
) -> None:
    """Contact them no more, on no channel: from the next send on, whatever it is for."""
    contact = _read(contact_file, is_stdin=contact_stdin)
    _change(ctx, tenant, recipient, contact, reason, Known.opt_out, "is opted out already", as_json=as_json)


@app.command("opt-in")
def opt_in(
    ctx: typer.Context,
    *,
    tenant: Tenant,
    reason: Reason,
    recipient: Recipient = "",
    contact_file: ContactFile = None,
    contact_stdin: ContactStdin = False,
    as_json: AsJson = False,
) -> None:
    """Take an opt-out back, because they asked for it. Consent counts again as it was."""
    contact = _read(contact_file, is_stdin=contact_stdin)
    _change(ctx, tenant, recipient, contact, reason, Known.opt_in, "is not opted out", as_json=as_json)


@app.command("consent")
def consent(
    ctx: typer.Context,
    *,
    channel: Annotated[Channel, typer.Argument(help="sms, email, or conversation: the one that they began.")],
    tenant: Tenant,
    reason: Reason,
    given: Annotated[bool, typer.Option("--given", help="They consented.")] = False,
    withdrawn: Annotated[bool, typer.Option("--withdrawn", help="They no longer do.")] = False,
    recipient: Recipient = "",
    contact_file: ContactFile = None,
    contact_stdin: ContactStdin = False,
    as_json: AsJson = False,
) -> None:
    """Write down that they consented to a channel, or no longer do."""
    if given is withdrawn:
        raise typer.BadParameter("say what they said: --given or --withdrawn")

    def decide(known: Known, note: Note) -> PersonChange | None:
        return known.set_consent(channel.key, is_given=given, note=note)

    contact = _read(contact_file, is_stdin=contact_stdin)
    _change(ctx, tenant, recipient, contact, reason, decide, "said so already", as_json=as_json)


@app.command("contact")
def contact(
    ctx: typer.Context,
    *,
    channel: Annotated[Channel, typer.Argument(help="sms or email.")],
    tenant: Tenant,
    reason: Reason,
    recipient: Recipient = "",
    contact_file: ContactFile = None,
    contact_stdin: ContactStdin = False,
    region: Region = "",
    remove: Annotated[bool, typer.Option("--remove", help="They have none on that channel any more.")] = False,
    as_json: AsJson = False,
) -> None:
    """Where they are reached on a channel. Without --recipient it is whoever is known by that very contact."""
    with _told():
        given = _contact(contact_file, is_stdin=contact_stdin)
        if remove == bool(given):
            raise RecipientTrouble("say the contact, by --contact-file or --contact-stdin, or --remove")
        if channel is Channel.CONVERSATION:
            raise RecipientTrouble("a conversation that they began needs no contact")
        value = recipients.contact_on(channel, given, region) if given else ""

    def decide(known: Known, note: Note) -> PersonChange | None:
        return known.set_contact(channel.key, value, note)

    _change(ctx, tenant, recipient, given, reason, decide, "has that contact already", as_json=as_json, names=value)


@app.command("wrong-number")
def wrong_number(
    ctx: typer.Context,
    *,
    tenant: Tenant,
    reason: Reason,
    recipient: Recipient = "",
    channel: Annotated[Channel, typer.Option(help="sms or email.")] = Channel.SMS,
    contact_file: ContactFile = None,
    contact_stdin: ContactStdin = False,
    region: Region = "",
    as_json: AsJson = False,
) -> None:
    """It reaches somebody else: use it no more. Only that number is blocked; a corrected one is free."""
    _mark(ctx, tenant, recipient, channel, contact_file, contact_stdin, region, reason, is_wrong=True, as_json=as_json)


@app.command("restore")
def restore(
    ctx: typer.Context,
    *,
    tenant: Tenant,
    reason: Reason,
    recipient: Recipient = "",
    channel: Annotated[Channel, typer.Option(help="sms or email.")] = Channel.SMS,
    contact_file: ContactFile = None,
    contact_stdin: ContactStdin = False,
    region: Region = "",
    as_json: AsJson = False,
) -> None:
    """It is theirs after all: take back that it was marked as wrong."""
    _mark(ctx, tenant, recipient, channel, contact_file, contact_stdin, region, reason, is_wrong=False, as_json=as_json)


def _mark(
    ctx: typer.Context,
    tenant: str,
    recipient: str,
    channel: Channel,
    contact_file: Path | None,
    contact_stdin: bool,
    region: str,
    reason: str,
    *,
    is_wrong: bool,
    as_json: bool,
) -> None:
    """Mark the contact that is given, or the present one, as wrong or as right."""
    with _told():
        if channel is Channel.CONVERSATION:
            raise RecipientTrouble("a conversation that they began needs no contact")
        given = _contact(contact_file, is_stdin=contact_stdin)
        value = recipients.contact_on(channel, given, region) if given else ""

    def decide(known: Known, note: Note) -> PersonChange | None:
        text = value or known.person.contacts.get(channel.key, "")
        if not text:
            raise RecipientTrouble(f"they have no contact for {channel.value}: say which, by --contact-file or -stdin")
        return (
            known.block_contact(channel.key, text, note) if is_wrong else known.restore_contact(channel.key, text, note)
        )

    nothing = "that contact is marked as wrong already" if is_wrong else "that contact is not marked as wrong"
    _change(ctx, tenant, recipient, given, reason, decide, nothing, as_json=as_json, names=value)


# --------------------------------------------------------------------------------------------------------------- inside


@contextmanager
def _told() -> Iterator[None]:
    """Ends the command with what the trouble means for its exit code."""
    try:
        yield
    except RecipientTrouble as exc:
        if exc.is_unreachable:
            raise StackUnreachable(str(exc)) from exc
        raise Refused(str(exc)) from exc


def _of(stack: Stack) -> StoredRecipients:
    return StoredRecipients(stack, SystemClock(), SystemIds(), lambda: who(stack))


def _whose(tenant: str, recipient: str, contact: str) -> str:
    """The pseudonym of whom the command is about."""
    recipients.check_tenant(tenant)
    if recipient:
        return recipients.check_pseudonym(recipient)
    if not contact:
        raise RecipientTrouble("say whom it is about: --recipient, --contact-file or --contact-stdin")
    return recipients.pseudonym(tenant, contact)


def _change(
    ctx: typer.Context,
    tenant: str,
    recipient: str,
    contact: str,
    reason: str,
    decide: Decide,
    nothing: str,
    *,
    as_json: bool,
    names: str = "",
) -> None:
    """Make a change, and tell. `names`: the contact in the spelling under which its owner is known."""
    with _told():
        name = _whose(tenant, recipient, names or contact)
        text = recipients.check_reason(reason)
        kept = _of(stack_of(ctx))
        change = kept.change(tenant, name, decide, text)
        person = kept.person(tenant, name) if change is None else change.after
    if as_json:
        emit(recipients.document_of(tenant, name, person))
    else:
        typer.echo(name)
    say(f"{name}: {nothing}" if change is None else f"{name}: written as version {person.version}, and on record")
    if change is not None:
        say("it counts from the next send on: each asks right before it")


def _read(path: Path | None, *, is_stdin: bool) -> str:
    with _told():
        return _contact(path, is_stdin=is_stdin)


def _contact(path: Path | None, *, is_stdin: bool) -> str:
    """The contact that was given, or empty. Raises `RecipientTrouble` for one that is none."""
    if path is not None and is_stdin:
        raise RecipientTrouble("one contact at a time: --contact-file or --contact-stdin")
    if path is not None:
        try:
            with path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as exc:
            raise RecipientTrouble(f"{path} cannot be read: {exc.strerror}") from exc
    elif is_stdin and sys.stdin.isatty():
        content = getpass.getpass("contact: ").encode("utf-8", "surrogateescape")
    elif is_stdin:
        content = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    else:
        return ""
    if len(content) > MAX_FILE_BYTES:
        raise RecipientTrouble(f"that is more than a contact: over {MAX_FILE_BYTES} bytes")
    return recipients.given_contact(content)


def _changes(kept: StoredRecipients, tenant: str, recipient: str) -> list[dict[str, Any]]:
    """The last audited changes; none, and a remark, where the caller may not read them."""
    try:
        found = kept.history(tenant, recipient, HISTORY)
    except ClientError as exc:
        say(f"the audit could not be read ({exc.response.get('Error', {}).get('Code', '?')})")
        return []
    wanted = ("at_ms", "actor", "reason", "before_state", "after_state")
    return [{name: event.get(name, "") for name in wanted} for event in found]
