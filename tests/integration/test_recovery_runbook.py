"""Every command of the page on recovery and replay, run as it stands there: the command line before the operator API's
own calls, replay λ, real adapters over moto, and a worker that does what hints ask for (001.42 to 001.47, 004.23).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import boto3
import pytest

from functions.adapters.audit import DynamoAudit
from functions.adapters.ledger import DynamoLedger
from functions.core.attempt import Effect
from functions.core.audit import AuditEvent, AuditType, Severity
from functions.core.decision import Repeat
from functions.core.failure import Done
from functions.core.gate import WaitingFor
from functions.core.integration import INTAKE
from functions.core.recovery import Row, Status, claim, succeeded
from ops import integrations, operator_api, recovery_queue, stack
from ops.cli import items, quarantine, replaying, run, status, switches
from ops.cli.console import ExitCode
from ops.runbooks import FOLDER
from ops.stack import STACK_FILE_VARIABLE
from tests import aws_tables
from tests.bulk_on_aws import Bulk
from tests.contract.storage import claim as ledger_claim
from tests.control_fakes import FakeReplayStarter
from tests.operator_calls import client_of
from tests.operator_world import BUCKET, HELPDESK, OperatorWorld, operator_world
from tests.recovery_rows import HOUR_MS, action, dead, event_row
from tests.stage_fakes import Log
from tests.unit.test_runbooks import typed
from tests.worker_world import Quiet

PAGE = (FOLDER / "recovery-and-replay.md").read_text()
COMMANDS = list(dict.fromkeys(typed(PAGE)))
ELSEWHERE = ("login", "source", "recipient")
"""Groups that the page names and other pages are about; a browser, or the parameters of sources, is needed for them."""
HERE = [one for one in COMMANDS if shlex.split(one)[1] not in ELSEWHERE]
SOURCE, TICKET, REQUEST_ID, PSEUDONYM = "helpdesk-acme", "T-1001", "req-delivered", "c" * 32


class Stage:
    """A stage in process, and somebody at a terminal before it."""

    def __init__(self, world: OperatorWorld, folder: Path, patched: pytest.MonkeyPatch) -> None:
        self.world = world
        self.number = 0
        self.log = Log()
        self.said = ""
        sqs: Any = boto3.client("sqs", region_name=aws_tables.REGION)
        urls = {name: sqs.create_queue(QueueName=name)["QueueUrl"] for name in self.queues()}
        quiet = Quiet()
        self.bulk = Bulk(
            world.client,
            sqs,
            world.s3,
            BUCKET,
            urls=urls,
            clock=world.clock,
            ids=world.ids,
            recovery=world.recovery,
            switches=world.switches,
            integrations={"helpdesk": HELPDESK},
            log=quiet,
            metrics=quiet,
        )
        self.bulk.meanwhile = self.carry_out
        self.is_run = True
        self._connect(folder, patched, urls)
        self._remember()

    @staticmethod
    def queues() -> list[str]:
        """All of the stage's."""
        return [f"{name}{kind}" for name in ("events", "retries", "replays") for kind in ("", "-dlq")] + ["ops-dlq"]

    def _connect(self, folder: Path, patched: pytest.MonkeyPatch, urls: dict[str, str]) -> None:
        outputs = {
            **{f"{name.title()}Table": name for name in (aws_tables.LEDGER, aws_tables.RECOVERY)},
            **{f"{name.title()}Table": name for name in (aws_tables.AUDIT, aws_tables.CONTROL)},
            **{f"{name.title()}QueueUrl": urls[name] for name in ("events", "retries", "replays")},
            **{f"{name.title()}DlqUrl": urls[f"{name}-dlq"] for name in ("events", "retries", "replays", "ops")},
            "Bucket": BUCKET,
            "IngressFunction": "ingress",
            "SwitchesPath": "/holdfast/local/switches",
        }
        path = folder / "stack.json"
        told = {"status": "up", "stage": "local", "region": aws_tables.REGION, "outputs": outputs}
        path.write_text(json.dumps({**told, "endpoint": "http://127.0.0.1:1", "simulator_url": ""}))
        patched.setenv(STACK_FILE_VARIABLE, str(path))
        patched.delenv("HOLDFAST_STAGE", raising=False)
        patched.delenv("AWS_ENDPOINT_URL", raising=False)
        patched.setattr(stack, "client", self.client)
        api = client_of(self.world.answering)
        for module in (items, quarantine, replaying, status, switches, operator_api, integrations):
            patched.setattr(module, "connect", lambda _: api)
        patched.setattr(self.world.starter, "start", self.start)
        patched.setattr("ops.replays.time.sleep", lambda _: self.go_on())
        queue: Callable[..., Any] = recovery_queue.RecoveryQueue
        patched.setattr(items, "RecoveryQueue", lambda api, names: queue(api, names, lambda _: self.go_on()))
        patched.setattr(replaying, "_is_asked", lambda: True)
        patched.setattr("ops.cli.replaying.typer.confirm", lambda *_, **__: True)

    def client(self, service: str, *_: str) -> Any:
        """Of the stage, as the command line asks for it."""
        known: dict[str, Any] = {"dynamodb": self.world.client, "logs": self.log, "lambda": self.log}
        return known.get(service) or boto3.client(service, region_name=aws_tables.REGION)  # type: ignore[call-overload]  # the service is a variable

    def _remember(self) -> None:
        """A delivery, which is found by what people have in hand."""
        about = replace(
            ledger_claim(key="E#acme#helpdesk-acme:told"),
            request_id=REQUEST_ID,
            ticket=TICKET,
            recipient=PSEUDONYM,
            event_name="ticket.created",
        )
        ids = self.world.ids
        ledger = DynamoLedger(self.world.client, ids, ledger_table=aws_tables.LEDGER, control_table=aws_tables.CONTROL)
        ledger.claim(about)

    # ------------------------------------------------------------------------------------------------------ the machine

    def start(self, job_id: str) -> bool:
        """Replay λ, at once. While nobody runs jobs, they stand as they are."""
        FakeReplayStarter.start(self.world.starter, job_id)
        if self.is_run:
            self.go_on()
        return True

    def go_on(self) -> None:
        """Whatever was started, and what it has asked the worker for."""
        while self.world.starter.started:
            self.bulk.invoke(self.world.starter.started.pop(0))
        self.carry_out()

    def carry_out(self) -> None:
        """A worker succeeds with every replay that is under way."""
        now_ms = self.world.clock.now_ms()
        for place in ("helpdesk", INTAKE):
            for one in self.world.recovery.walk(place, Status.REPLAYED):
                if one.is_open and not one.lease_until_ms and one.not_before_ms <= now_ms:
                    taken = claim(one, now_ms, now_ms + 60_000, self.world.ids.new_id())
                    self.world.recovery.commit([taken])
                    self.world.recovery.commit([succeeded(taken.after, Done("id-1"), now_ms)])

    # --------------------------------------------------------------------------------------------------------- the rows

    def item(self, **fields: Any) -> Row:
        """A dead item of the helpdesk, with its record, unless the case says otherwise."""
        self.number += 1
        name = f"a{self.number}"
        made = dead(name, action=action(name), request_id=REQUEST_ID, origin_request_id=REQUEST_ID)
        made = self.world.put(replace(made, **fields))
        DynamoAudit(self.world.client, aws_tables.AUDIT).append([_recorded(made)])
        return made

    def job(self, then: str = "") -> str:
        """A planned job, and what else is done with it."""
        self.item()
        said = self.json("replay plan --integration helpdesk --status dlq --reason X")
        replay_id = str(said["replay_id"])
        if then == "run":
            self.json(f"replay run {replay_id} --yes")
        elif then:
            self.is_run = False
            self.json(f"replay approve {replay_id} --yes")
            if then == "paused":
                self.json(f"replay pause {replay_id} --reason X")
            self.is_run = True
        return replay_id

    PLACES: ClassVar[dict[str, Callable[[Stage], str]]] = {
        "RECOVERY_ID": lambda self: self.item().recovery_id,
        "WAITING_ID": lambda self: (
            self.item(
                status=Status.PENDING, waiting_for=WaitingFor.HEALTH, due_at_ms=self.world.clock.now_ms() + HOUR_MS
            ).recovery_id
        ),
        "UNKNOWN_ID": lambda self: (
            self.item(
                status=Status.FAILED,
                failure_code="OUTCOME_UNKNOWN",
                effect=Effect.UNKNOWN,
                action=action("push", kind="push", repeat=Repeat.BLIND),
            ).recovery_id
        ),
        "PLANNED_JOB": lambda self: self.job(),
        "RUNNING_JOB": lambda self: self.job("running"),
        "PAUSED_JOB": lambda self: self.job("paused"),
        "ENDED_JOB": lambda self: self.job("run"),
        "RULE_ID": lambda self: str(self.json("quarantine add --source elsewhere --for 4h --reason X")["id"]),
        "SOURCE": lambda _: SOURCE,
        "TICKET": lambda _: TICKET,
        "REQUEST_ID": lambda _: REQUEST_ID,
        "PSEUDONYM": lambda _: PSEUDONYM,
    }

    def prepared(self, command: str) -> str:
        """The command with what stands in its places, and what it needs to be there."""
        text = re.sub(r"\b[A-Z]+(?:_[A-Z]+)*\b", self._filled, command)
        if " plan " in text or text.startswith("holdfast replay --"):
            self.item()
            sent_ms = self.world.clock.now_ms() - HOUR_MS
            asked_about = action(f"reply{self.number}", kind="reply", repeat=Repeat.LOOKUP)
            unclear = {"effect": Effect.UNKNOWN, "first_sent_at_ms": sent_ms, "last_possible_send_ms": sent_ms}
            self.item(action=asked_about, **unclear)
            self.number += 1
            kept = event_row(f"kept-{self.number}", status=Status.FAILED, failure_code="QUARANTINED")
            self.world.put(kept)
        if text.startswith("holdfast health clear"):
            self.json("health set helpdesk degraded --for 1h --reason X")
        return text

    def _filled(self, found: re.Match[str]) -> str:
        make = self.PLACES.get(found[0])
        return found[0] if make is None else make(self)

    def tidy(self) -> None:
        """No job stays on, so that the next command meets a stage where nothing runs."""
        self.world.starter.started.clear()
        for job in self.json("replay list --active")["replays"]:
            self.json(f"replay cancel {job['replay_id']} --reason X")
            self.go_on()

    # ----------------------------------------------------------------------------------------------------- the terminal

    def run(self, words: list[str]) -> tuple[int, str]:
        """What is typed after `holdfast`; gives the exit code and all that is said."""
        code = run(words)
        told = self._capsys.readouterr()
        self.said = told.out
        return code, told.out + told.err

    def json(self, text: str) -> Any:
        code, said = self.run([*shlex.split(text), "--json"])
        assert code == ExitCode.OK, (text, said)
        return json.loads(self.said)

    _capsys: pytest.CaptureFixture[str]


def _recorded(made: Row) -> AuditEvent:
    return AuditEvent(
        id=f"e-{made.recovery_id}",
        at_ms=made.updated_at_ms,
        event_type=AuditType.RETRY_EXHAUSTED,
        severity=Severity.ERROR,
        tenant=made.tenant,
        actor="holdfast",
        affected_entity="recovery_item",
        affected_id=made.recovery_id,
        request_id=REQUEST_ID,
        origin_request_id=REQUEST_ID,
    )


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with pytest.MonkeyPatch.context() as patched, operator_world() as world:
        yield Stage(world, tmp_path_factory.mktemp("stage"), patched)


@pytest.fixture
def stage(stages: Stage, capsys: pytest.CaptureFixture[str]) -> Iterator[Stage]:
    stages._capsys = capsys
    yield stages
    stages.tidy()


def test_the_page_is_about_these_groups_of_commands() -> None:
    groups = {shlex.split(one)[1] for one in COMMANDS}
    core = {"queue", "replay", "trace", "audit", "quarantine", "status", "switch", "health"}
    assert core <= groups <= core | {"integrations", *ELSEWHERE}
    assert len(HERE) > 45


@pytest.mark.parametrize("command", HERE)
def test_each_command_does_what_the_page_says_of_it(stage: Stage, command: str) -> None:
    text = stage.prepared(command)
    code, said = stage.run(shlex.split(text)[1:])
    assert code == ExitCode.OK, said


def test_a_command_with_a_place_that_is_not_filled_would_be_noticed(stage: Stage) -> None:
    code, _ = stage.run(["queue", "show", "RECOVERY_ID"])
    assert code == ExitCode.REFUSED


def test_from_the_plan_to_the_proof_as_the_page_goes(stage: Stage) -> None:
    """001.42 to 001.47: look, name the cause, try one, replay the rest, see each done once, name the job."""
    rows = [stage.item(failure_code="HTTP_503") for _ in range(7)]
    first = rows[0].recovery_id
    assert stage.json(f"queue show {first}")["failure_code"] == "HTTP_503"
    stage.json(f"queue root-cause {first} transient_infra --reason 'their outage'")
    stage.json(f"replay one {first} --wait 60 --reason 'one first'")
    assert stage.json(f"queue show {first}")["result"] == "succeeded"
    planned = stage.json("replay plan --integration helpdesk --status dlq --incident INC-42 --reason 'it is back'")
    assert planned["replay_id"].startswith("INC-42")
    assert planned["plan"]["items"] >= 6
    ended = stage.json(f"replay run {planned['replay_id']} --yes")
    assert (ended["state"], ended["progress"]["outcomes"]) == ("finished", {"succeeded": planned["plan"]["items"]})
    assert {stage.world.stored(one).result for one in rows} == {"succeeded"}
