"""Every runbook page tried as a new user would: each command that stands on it, in its order, on the deployed stack,
with the words in capitals filled in (000.34, 001.57, 001.58, 001.61, 002.0).

`make runbooks` writes down on the pages that it was so, and when.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest

from functions.adapters.recovery import DynamoRecovery
from functions.core.attempt import Effect
from functions.core.clock import SystemIds
from functions.core.decision import Repeat
from functions.core.gate import WaitingFor
from functions.core.postmortem import PLACEHOLDER
from functions.core.recovery import Change, Row, Status
from functions.core.switches import everyday
from ops import records, runbooks
from ops.cli import replaying, run
from ops.expectation import REFUND, WHERE
from ops.runbooks import Command
from ops.simulator import Fault, FaultMode
from ops.stack import ROOT
from ops.traffic import Delivery
from tests import aws_command
from tests.e2e.conftest import World

PAGES: Final = runbooks.pages()
RECORD: Final = os.environ.get("RECORD_RUNBOOKS") == "1"
"""Whether what was tried is written down."""
TELLS_SLOWEST: Final = os.environ.get("SLOWEST") == "1"
"""Whether the commands that take longest are told."""

NOT_HERE: Final = {
    "aws lambda get-account-settings": "the emulator has no account",
    "aws sqs start-message-move-task": "the emulator moves no messages back",
}
"""What the pages mark as `on AWS only`, by how it begins, and why."""

ENDS_WITH: Final = {"holdfast ready": {0, 1, 3}, "holdfast doctor": {0, 1}}
"""What a command may end with, where that is not success: a stack that was just made is not ready for anybody, and on
one that is tried by these pages much is not as it should be.
"""

AS_GOOD_AS_ONE: Final = frozenset({"holdfast page test"})
"""What changes something, takes its time, and is the same however often it stands on the pages."""

SAYS: Final = {"curl": '"settled"', "holdfast page test": "delivered by"}
"""What a command says, where its end alone does not tell that it did what the page is about."""

TENANT, SOURCE = "demo", "runbook"
CUSTOMER = "customer-of-the-runbooks@example.com"
IN_SHELL = re.compile(r"[|>;&]|\$\(")
HOUR_MS = 3_600_000
LETTERS = 45


class Receiver:
    """A chat and a paging service on the loopback interface, which take whatever they are sent."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the name is the library's
                self.rfile.read(int(self.headers["content-length"]))
                self._answer({"status": "success"})

            def do_GET(self) -> None:  # as above
                self._answer({"incidents": []})

            def _answer(self, document: Any) -> None:
                body = json.dumps(document).encode()
                self.send_response(202)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Desk:
    """Somebody at a terminal before the stack, with a page open: fills in its words and types its commands."""

    world: World
    folder: Path
    receiver: str
    rows: list[Row]
    told: dict[str, str] = field(default_factory=dict)
    """What was filled in and stays: one incident, one source, one job that has ended."""
    done: set[str] = field(default_factory=set)
    """What only looks, and has been seen to work."""
    variables: dict[str, str] = field(default_factory=dict)
    """Of the shell."""

    # ----------------------------------------------------------------------------------------------------------- typing

    def run(self, text: str) -> tuple[int, str]:
        """Type it; gives the exit code, and all that was said."""
        text, _, file = text.partition(" > ") if text.count(" > ") == 1 and "|" not in text else (text, "", "")
        words = shlex.split(text) if not IN_SHELL.search(text) else []
        if words[:1] == ["holdfast"]:
            said = io.StringIO()
            remarks = io.StringIO() if file else said
            with redirect_stdout(said), redirect_stderr(remarks), pytest.MonkeyPatch.context() as patched:
                typed = b"somebody@example.com\n" if "email" in words else b"+49 1701234567\n"
                patched.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(typed)))
                code = run(words[1:])
            if file:
                (self.folder / file).write_text(said.getvalue())
            return code, said.getvalue() + (remarks.getvalue() if file else "")
        if words[:1] == ["aws"]:
            try:
                return 0, aws_command.run(words[1:], self.world.stack.client)
            except Exception as exc:  # noqa: BLE001  # whatever it is, it is not what the page says
                return 1, repr(exc)
        return self._in_a_shell(text)

    def _in_a_shell(self, text: str) -> tuple[int, str]:
        holdfast = f"{sys.executable} -c 'from ops.cli import main; main()'"
        prelude = f'holdfast() {{ {holdfast} "$@"; }}; aws() {{ {sys.executable} -m tests.aws_command "$@"; }}; '
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", prelude + text],
            cwd=self.folder,
            env={**os.environ, **self.variables, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        return ran.returncode, ran.stdout + ran.stderr

    def json(self, text: str) -> Any:
        """What a command says with `--json`."""
        said, remarks = io.StringIO(), io.StringIO()
        with redirect_stdout(said), redirect_stderr(remarks):
            code = run([*shlex.split(text)[1:], "--json"])
        assert code == 0, (text, remarks.getvalue())
        return json.loads(said.getvalue())

    # ------------------------------------------------------------------------------------------------ what is filled in

    def filled(self, text: str) -> str:
        """The command with what is meant by its words in capitals."""
        text = text.replace("$HOLDFAST_STAGE", self.world.stack.stage)
        filled = re.sub(r"(?<![\w$])[A-Z]+(?:_[A-Z]+)*(?![\w=])", self._filled, text)
        return filled.replace("/$default", "/\\$default") if IN_SHELL.search(text) else filled

    def _filled(self, found: re.Match[str]) -> str:
        make = self.PLACES.get(found[0])
        if make is None:
            return found[0]
        return make(self)

    def once(self, name: str, make: Callable[[], str]) -> str:
        """The same each time."""
        if name not in self.told:
            self.told[name] = make()
        return self.told[name]

    def row(self, repeat: Repeat = Repeat.IDEMPOTENT, **changed: Any) -> str:
        """A genuine item that failed at the helpdesk, changed as the case needs it."""
        fit = [one for one in self.rows if one.action is not None and one.action.repeat is repeat]
        assert fit, "there are not enough items: send more letters"
        found = fit[0]
        self.rows.remove(found)
        if changed:
            stack = self.world.stack
            recovery = DynamoRecovery(
                stack.client("dynamodb"),
                SystemIds(),
                recovery_table=stack.output("RecoveryTable"),
                audit_table=stack.output("AuditTable"),
            )
            recovery.commit([Change(replace(found, version=found.version + 1, **changed), found)])
        return found.recovery_id

    def dlq(self) -> str:
        """One that used up its attempts."""
        return self.row(status=Status.DLQ, failure_code="HTTP_503", root_cause="transient_infra")

    def job(self, then: str = "") -> str:
        """A planned job over one item, and what else is done with it."""
        replay_id = str(self.json(f"holdfast replay plan --id {self.dlq()} --reason X")["replay_id"])
        if then:
            self.tidy()
        if then == "ended":
            self.json(f"holdfast replay run {replay_id} --yes")
        elif then:
            self.json(f"holdfast replay approve {replay_id} --yes")
            if then == "paused":
                self.json(f"holdfast replay pause {replay_id} --reason X")
        return replay_id

    def queue_arn(self, url: str) -> str:
        answer = self.world.stack.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return str(answer["Attributes"]["QueueArn"])

    def incident(self) -> str:
        return str(
            self.json('holdfast incident open "customers see it twice" --severity SEV3 --reason "a drill"')[
                "incident_id"
            ]
        )

    def marker(self) -> str:
        """Of an object that somebody has deleted."""
        s3, bucket = self.world.stack.client("s3"), self.world.stack.output("Bucket")
        s3.put_object(Bucket=bucket, Key="claims/runbook", Body=b"x")
        return str(s3.delete_object(Bucket=bucket, Key="claims/runbook").get("VersionId", "null"))

    def event(self) -> dict[str, Any]:
        """One that was settled."""
        return records.events(self.world.stack)[0]

    PLACES: ClassVar[dict[str, Callable[[Desk], str]]] = {
        "RECOVERY_ID": lambda self: self.dlq(),
        "WAITING_ID": lambda self: self.row(
            status=Status.PENDING, waiting_for=WaitingFor.HEALTH, due_at_ms=time.time_ns() // 1_000_000 + HOUR_MS
        ),
        "UNKNOWN_ID": lambda self: self.row(
            status=Status.FAILED, failure_code="OUTCOME_UNKNOWN", effect=Effect.UNKNOWN
        ),
        "PLANNED_JOB": lambda self: self.job(),
        "RUNNING_JOB": lambda self: self.job("running"),
        "PAUSED_JOB": lambda self: self.job("paused"),
        "ENDED_JOB": lambda self: self.once("ended", lambda: self.job("ended")),
        "JOB": lambda self: self.once("ended", lambda: self.job("ended")),
        "RULE_ID": lambda self: str(self.json("holdfast quarantine add --source elsewhere --for 4h --reason X")["id"]),
        "SOURCE": lambda _: SOURCE,
        "TENANT": lambda _: TENANT,
        "PSEUDONYM": lambda self: self.told["person"],
        "INCIDENT": lambda self: self.once("incident", self.incident),
        "TICKET": lambda self: self.told["ticket"],
        "EVENT_ID": lambda self: self.told["event"],
        "REQUEST_ID": lambda self: self.told["request"],
        "API_URL": lambda self: self.world.stack.api_url,
        "BUCKET": lambda self: self.world.stack.output("Bucket"),
        "ENVELOPE_REF": lambda _: "claims/runbook",
        "ID_OF_THE_MARKER": lambda self: self.marker(),
        "EVENTS_DLQ_URL": lambda self: self.world.stack.output("EventsDlqUrl"),
        "RETRIES_DLQ_URL": lambda self: self.world.stack.output("RetriesDlqUrl"),
        "REPLAYS_DLQ_URL": lambda self: self.world.stack.output("ReplaysDlqUrl"),
        "OPS_DLQ_URL": lambda self: self.world.stack.output("OpsDlqUrl"),
        "PAGES_DLQ_URL": lambda self: self.world.stack.output("PagesDlqUrl"),
        "PAGES_DLQ_ARN": lambda self: self.queue_arn(self.world.stack.output("PagesDlqUrl")),
    }

    # --------------------------------------------------------------------------------------------------- what people do

    def before(self, text: str) -> None:
        """What whoever follows the page has done by then."""
        if "--file postmortem.md" in text:
            page = self.folder / "postmortem.md"
            page.write_text(page.read_text().replace(PLACEHOLDER, "written by whoever led it"))
        if text.startswith("holdfast health clear"):
            self.json("holdfast health set helpdesk degraded --for 1h --reason X")
        if text.startswith("holdfast source enable"):
            self.json(f"holdfast source hold {SOURCE} --reason X")
        if " plan " in text:
            self.dlq()
        if "--look-only" in text:
            sent_ms = time.time_ns() // 1_000_000 - HOUR_MS
            self.row(
                Repeat.LOOKUP,
                status=Status.DLQ,
                waiting_for=WaitingFor.NOTHING,
                due_at_ms=0,
                failure_code="READ_TIMEOUT",
                effect=Effect.UNKNOWN,
                first_sent_at_ms=sent_ms,
                last_possible_send_ms=sent_ms,
            )
        if "QUARANTINED" in text:
            self.row(failure_code="QUARANTINED", source=SOURCE)
        if text.startswith(("holdfast replay run", "holdfast replay approve", "holdfast replay one")):
            self.tidy()

    def tidy(self) -> None:
        """No job stays on, so that the next command meets a stage where nothing runs."""
        for job in self.json("holdfast replay list --active")["replays"]:
            if job["state"] not in ("stopping", "planning"):
                self.run(f"holdfast replay cancel {job['replay_id']} --reason X")
        self.world.eventually(
            lambda: "" if not self.json("holdfast replay list --active")["replays"] else "a job is still on", 30
        )

    def trouble(self, command: Command) -> str:
        """Why it did not end as the page says; empty: it did."""
        assigned = re.fullmatch(r"([A-Z_]+)=(\S+)", command.text)
        if assigned:
            self.variables[assigned[1]] = self.told["of internal"] if assigned[1] == "EVENT_ID" else assigned[2]
            return ""
        self.variables["SECRET"] = self.told["secret"]
        self.before(command.text)
        text = self.filled(command.text)
        if text in self.done and (text in AS_GOOD_AS_ONE or not command.is_said_to_change):
            return ""
        code, said = self.run(text)
        wanted = next((codes for start, codes in ENDS_WITH.items() if command.text.startswith(start)), {0})
        missing = [words for start, words in SAYS.items() if command.text.startswith(start) and words not in said]
        if code in wanted and not missing:
            self.done.add(text)
            return ""
        return f"{text}\n  ended with {code}: {said.strip()[-600:]}"


@pytest.fixture(scope="module")
def seeded(local_stack: Any) -> dict[str, Any]:
    return {}


@pytest.fixture
def desk(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeded: dict[str, Any]) -> Iterator[Desk]:
    """The page's reader; afterwards switches, health, channels and jobs are as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOLDFAST_STAGE", world.stack.stage)
    monkeypatch.setattr(replaying, "_is_asked", lambda: True)
    monkeypatch.setattr("ops.cli.replaying.typer.confirm", lambda *_, **__: True)
    receiver = Receiver()
    found = Desk(world, tmp_path, receiver.url, seeded.setdefault("rows", []), seeded.setdefault("told", {}))
    found.done = seeded.setdefault("done", set())
    if not found.told:
        _seed(found)
    _files(found)
    try:
        yield found
    finally:
        _put_back(found)
        receiver.close()


def _seed(desk: Desk) -> None:
    """Events that were worked, items that failed for good, a source and a person."""
    world = desk.world
    fine = [(_letter(world, source, "fine"), REFUND) for source in ("github", "internal")]
    answers = world.post([delivery for delivery, _ in fine])
    conversations = world.expect(fine)
    world.await_settled(conversations, 30)
    answer = answers[0]
    (of_internal,) = [one.event_id for one in answers if one.delivery.source == "internal"]
    world.simulator.add_faults(Fault("helpdesk", FaultMode.STATUS, status=422))
    failing = [(_letter(world, "github", f"failing-{number}"), REFUND) for number in range(LETTERS)]
    failing += [(_letter(world, "github", "reply"), WHERE)]
    world.post([delivery for delivery, _ in failing])
    doomed = world.expect(failing)
    world.eventually(lambda: _missing(_items(world, doomed)), 60)
    world.simulator.clear_faults()
    desk.rows += _items(world, doomed)
    secret = world.stack.client("ssm").get_parameter(
        Name=f"{world.stack.output('SourcesPath')}/internal", WithDecryption=True
    )["Parameter"]["Value"]
    desk.told |= {
        "ticket": conversations[0],
        "of internal": of_internal,
        "person": _person_of(desk, answer.event_id),
        "event": answer.event_id,
        "request": answer.request_id,
        "secret": json.loads(secret)["secrets"][0]["secret"],
    }
    options = "--provider generic-hmac --option header=x-signature --identity /id --fields conversation=/ticket/id"
    added = f"holdfast source add {SOURCE} --tenant demo --flow support {options} --fields text=/text --generate"
    person = (
        f"holdfast recipient contact sms --tenant {TENANT} --recipient {desk.told['person']} --contact-stdin --reason X"
    )
    for command in (f"{added} --reason X", person):
        code, said = desk.run(command)
        assert code == 0, said


def _letter(world: World, source: str, name: str) -> Delivery:
    """Of a customer of these pages alone: what is said of them concerns no other test."""
    made = f"runbooks-{name}-{time.time_ns():x}"
    return world.sender.message(
        source,
        ticket=made,
        text=REFUND.text if "reply" not in name else WHERE.text,
        author=CUSTOMER,
        message_id=f"msg_{made}",
    )


def _items(world: World, conversations: list[str]) -> list[Row]:
    """What has failed for good, and a reply that waits for what has; of its event nothing else, so that it goes on
    waiting.
    """
    wanted = {str(one["recovery_id"]) for one in world.rows_of(conversations)}
    stack = world.stack
    recovery = DynamoRecovery(
        stack.client("dynamodb"),
        SystemIds(),
        recovery_table=stack.output("RecoveryTable"),
        audit_table=stack.output("AuditTable"),
    )
    every = recovery.several(sorted(wanted)).values()
    replies = [row for row in every if _can_be_asked_about(row) and row.status is Status.PENDING]
    answered = {row.event_id for row in replies}
    return replies + [row for row in every if row.status is Status.FAILED and row.event_id not in answered]


def _can_be_asked_about(row: Row) -> bool:
    return row.action is not None and row.action.repeat is Repeat.LOOKUP


def _missing(rows: list[Row]) -> str:
    """What is lacking of items to fill in; empty: nothing. What waits for one of them stays where it is."""
    asked_about = sum(map(_can_be_asked_about, rows))
    return "" if asked_about and len(rows) > LETTERS else f"{len(rows)} items, {asked_about} can be asked about"


def _person_of(desk: Desk, event_id: str) -> str:
    """The pseudonym of who wrote it."""
    found = records.event(desk.world.stack, TENANT, event_id)
    assert found is not None
    return str(found["rc"])


def _files(desk: Desk) -> None:
    """What the pages say that whoever types has in a file."""
    (desk.folder / "contact").write_text("+49 1701234567\n")
    (desk.folder / "new").write_text("+49 1701234568\n")
    (desk.folder / "chat.json").write_text(json.dumps({"kind": "slack", "url": f"{desk.receiver}/hook"}))
    duty = {"kind": "pagerduty", "routing_key": "k", "api_token": "t", "events_url": f"{desk.receiver}/v2/enqueue"}
    (desk.folder / "duty.json").write_text(json.dumps({**duty, "api_url": desk.receiver}))
    entry = desk.json(f"holdfast source show {SOURCE}")["entry"]
    (desk.folder / "entry.json").write_text(json.dumps(entry))


def _put_back(desk: Desk) -> None:
    for one in desk.json("holdfast switch list"):
        value = everyday(one)
        if value:
            desk.run(f'holdfast switch set {one} {value} --direct --reason "the pages were tried"')
    desk.run('holdfast health clear helpdesk --reason "the pages were tried"')
    for rule in desk.json("holdfast quarantine list"):
        desk.run(f'holdfast quarantine remove {rule["id"]} --reason "the pages were tried"')
    ssm, path = desk.world.stack.client("ssm"), desk.world.stack.output("OncallPath")
    # Only those of the page: another test may have one of its own there.
    ssm.delete_parameters(Names=[f"{path}/chat", f"{path}/duty"])


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_ends_as_the_page_says(desk: Desk, page: str, proved: Callable[[str], None]) -> None:
    began = time.monotonic()
    troubles: dict[str, list[str]] = {}
    spent: dict[str, float] = {}
    for name, commands in runbooks.verifiable(PAGES[page]).items():
        for command in commands:
            if not command.is_on_aws_only:
                from_here = time.monotonic()
                trouble = desk.trouble(command)
                spent[f"{len(spent)}: {command.text}"] = time.monotonic() - from_here
                if trouble:
                    troubles.setdefault(name, []).append(trouble)
    assert not troubles, "\n".join(f"{name}: {one}" for name, every in troubles.items() for one in every)
    if RECORD:
        names = set(runbooks.verifiable(PAGES[page]))
        runbooks.write_down(datetime.now(UTC).date(), desk.world.stack.stage, names)
    proved(f"{page}: {len(spent)} commands of the page tried on the stack in {time.monotonic() - began:.0f} s")
    if TELLS_SLOWEST:
        proved("\n".join(f"  {page} {s:.1f} s {c}" for c, s in sorted(spent.items(), key=lambda one: -one[1])[:14]))


def test_what_cannot_be_tried_here_is_marked_and_has_its_reason() -> None:
    marked = [one.text for page in PAGES.values() for one in page.commands if one.is_on_aws_only]
    assert sorted({start for start in NOT_HERE for text in marked if text.startswith(start)}) == sorted(NOT_HERE)
    assert [text for text in marked if not text.startswith(tuple(NOT_HERE))] == []


def test_a_command_that_does_not_end_well_is_noticed(desk: Desk) -> None:
    for text in (
        "holdfast queue show NOBODY",
        "aws sqs recieve-message",
        "holdfast queue list | grep nothing-of-the-kind",
    ):
        assert desk.trouble(Command(text))
    assert desk.trouble(Command("holdfast queue list")) == ""
