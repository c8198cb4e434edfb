"""`holdfast send`."""

from __future__ import annotations

import random
import sys
import uuid
from collections import Counter
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ops.cli.console import AsJson, ExitCode, Refused, emit, progress, say, show_table, stack_of
from ops.senders import Unsignable
from ops.traffic import Answer, Delivery, Honesty, Sender, post_all

MAX_COUNT = 10_000


class Sample(StrEnum):
    """What the customer of a sample writes."""

    WHERE = "where"
    REFUND = "refund"
    CANCEL = "cancel"
    LOGIN = "login"
    VAGUE = "vague"


TEXTS = {
    Sample.WHERE: "Where is my order? The tracking page has not moved for a week.",
    Sample.REFUND: "I was charged twice and would like a refund, please.",
    Sample.CANCEL: "Please cancel my subscription before the next invoice.",
    Sample.LOGIN: "I cannot log in, the password reset mail never arrives.",
    Sample.VAGUE: "Hello, I am unsure whom to ask about this.",
}


def send(
    ctx: typer.Context,
    *,
    source: Annotated[str, typer.Argument(help="The source to send as: helpdesk, stripe, github, ...")],
    file: Annotated[Path | None, typer.Option(help="A body to sign and send as it is; - reads standard input.")] = None,
    sample: Annotated[Sample, typer.Option(help="What the customer writes.")] = Sample.WHERE,
    text: Annotated[str, typer.Option(help="What the customer writes, in your own words.")] = "",
    ticket: Annotated[str, typer.Option(help="Conversation; without it each event has a new one.")] = "",
    author: Annotated[str, typer.Option(help="The customer's address.")] = "customer@example.com",
    message_id: Annotated[str, typer.Option("--id", help="Id of the delivery; the same id is the same event.")] = "",
    event_name: Annotated[str, typer.Option(help="Event name for --file, where the provider sends it apart.")] = "",
    count: Annotated[int, typer.Option(min=1, max=MAX_COUNT, help="How many different events.")] = 1,
    duplicates: Annotated[float, typer.Option(min=0, max=1, help="Share of them sent a second time.")] = 0.0,
    forged: Annotated[float, typer.Option(min=0, max=1, help="Share of further ones with a bad signature.")] = 0.0,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="How many at a time.")] = 8,
    seed: Annotated[int, typer.Option(help="Of which ones are repeated or forged.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Send webhooks, signed as the source's provider signs them. Exit code 1 if any is answered otherwise."""
    sender = Sender(stack_of(ctx))
    run = uuid.uuid4().hex[:10]
    body = _body(file)

    def one(number: int) -> Delivery:
        unique = message_id if message_id and count == 1 else f"{message_id or 'msg_' + run}-{number}"
        if body is not None:
            return sender.raw(source, body, message_id=unique, event_name=event_name)
        conversation = ticket or f"T-{run}-{number}"
        return sender.message(source, ticket=conversation, text=text or TEXTS[sample], author=author, message_id=unique)

    try:
        honest = [one(number) for number in range(count)]
        chance = random.Random(seed)  # noqa: S311  # which ones are repeated is no secret
        repeated = [replace(delivery, repeats=True) for delivery in _share(honest, duplicates, chance)]
        forgeries = [sender.forged(one(count + number), chance) for number in range(round(count * forged))]
    except Unsignable as exc:
        raise Refused(f"{sender.provider(source)} cannot sign this: {exc}") from exc
    deliveries = [*honest, *forgeries]
    chance.shuffle(deliveries)
    with progress("sending", len(deliveries) + len(repeated)) as step:
        answers = post_all(deliveries, concurrency=concurrency, on_answer=lambda _: step())
        answers += post_all(repeated, concurrency=concurrency, on_answer=lambda _: step())
    _tell(answers, as_json=as_json)
    if not all(answer.is_as_expected for answer in answers):
        raise typer.Exit(ExitCode.REFUSED)


def _body(file: Path | None) -> bytes | None:
    if file is None:
        return None
    if str(file) == "-":
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as exc:
        raise Refused(f"{file} cannot be read: {exc.strerror}") from exc


def _share(deliveries: list[Delivery], share: float, chance: random.Random) -> list[Delivery]:
    return chance.sample(deliveries, round(len(deliveries) * share))


def _tell(answers: list[Answer], *, as_json: bool) -> None:
    unexpected = [answer for answer in answers if not answer.is_as_expected]
    counts = Counter(str(answer.status) for answer in answers)
    if as_json:
        emit(
            {
                "sent": len(answers),
                "by_status": dict(counts),
                "unexpected": len(unexpected),
                "answers": [_as_json(answer) for answer in answers],
            }
        )
        return
    shown = answers if len(answers) <= 20 else unexpected[:20]
    if shown:
        show_table("", ("status", "event", "what was sent", "answer"), [_line(answer) for answer in shown])
    say(f"{len(answers)} sent: " + ", ".join(f"{count} × {status}" for status, count in sorted(counts.items())))
    if unexpected:
        say(f"{len(unexpected)} were not answered as they should be")


def _as_json(answer: Answer) -> dict[str, object]:
    return {
        "status": answer.status,
        "event_id": answer.event_id,
        "message_id": answer.delivery.message_id,
        "conversation": answer.delivery.sample.conversation if answer.delivery.sample else "",
        "sent": answer.delivery.honesty.value,
        "repeats": answer.delivery.repeats,
        "seconds": round(answer.seconds, 4),
        "answer": dict(answer.document),
        "trouble": answer.trouble,
    }


def _line(answer: Answer) -> tuple[str, str, str, str]:
    honesty = answer.delivery.honesty
    what = honesty.value if honesty is not Honesty.HONEST else "repeated" if answer.delivery.repeats else "signed"
    said = answer.trouble or str(answer.document.get("code") or answer.document.get("request_id") or "")
    return (str(answer.status or "none"), answer.event_id, what, said)
