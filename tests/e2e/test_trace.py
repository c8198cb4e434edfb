"""What happened, asked of the deployed stack by operators and by a sender: with the stage's roles, indexes and logs."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from ops.cli import run
from ops.cli.console import ExitCode
from ops.demo.stage import conversation_of
from ops.expectation import WHERE
from ops.simulator import Fault, FaultMode
from ops.traffic import Answer
from tests.e2e.conftest import World


def traced(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What the command answers to a script."""
    capsys.readouterr()
    assert run(["trace", *arguments, "--json"]) == ExitCode.OK, capsys.readouterr().err
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def state_for_sender(world: World, source: str, event_id: str, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    answer = httpx.get(
        f"{world.stack.api_url}/webhooks/{source}/events/{event_id}", headers=headers, timeout=30, trust_env=False
    )
    return answer.status_code, answer.json()


def token_of(world: World, source: str) -> str:
    name = f"{world.stack.output('SourcesPath')}/{source}"
    entry = world.stack.client("ssm").get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]
    return str(json.loads(entry)["secrets"][0]["secret"])


@pytest.fixture
def sent(world: World) -> Answer:
    """A customer's message by the helpdesk, with a reply, settled."""
    letters = world.letters("e2e-trace", (WHERE,), 1)
    (answer,) = world.post([delivery for delivery, _ in letters])
    world.await_settled(world.expect(letters))
    return answer


def test_a_success_is_found_by_ticket_event_request_and_recipient(
    world: World, sent: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    ticket = conversation_of(sent.delivery)
    (by_ticket,) = traced(capsys, ticket)["events"]
    assert (by_ticket["event_id"], by_ticket["state"]) == (sent.event_id, "settled")
    assert by_ticket["received"]["request_id"] == sent.request_id
    states = {told["name"]: told["state"] for told in by_ticket["actions"]}
    assert states == {"tag": "done", "assign": "done", "reply": "done", "reply_suppressed": "not_needed"}
    assert traced(capsys, sent.event_id)["events"] == [by_ticket]  # its tenant is known from the door's log
    assert traced(capsys, "--request", sent.request_id)["events"] == [by_ticket]
    recipient = next(told["recipient"] for told in by_ticket["actions"] if told["recipient"])
    assert by_ticket in traced(capsys, "--recipient", recipient)["events"]
    assert run(["trace", ticket]) == ExitCode.OK
    assert "Settled: 3 done, 1 not needed." in capsys.readouterr().out


def test_its_sender_hears_one_word_and_a_stranger_none(world: World, sent: Answer) -> None:
    source = sent.event_id.partition(":")[0]
    assert source == "helpdesk"
    headers = {"x-richpanel-token": token_of(world, source)}
    assert state_for_sender(world, source, sent.event_id, headers) == (
        200,
        {"event_id": sent.event_id, "state": "settled"},
    )
    assert state_for_sender(world, source, f"{source}:nothing", headers)[0] == 404
    status, problem = state_for_sender(world, source, sent.event_id, {"x-richpanel-token": "x"})
    assert (status, problem["code"]) == (401, "INT-401-UNAUTHORIZED")


def test_what_waits_is_told_with_its_reason_and_a_refused_request_with_its_own(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.simulator.add_faults(Fault("helpdesk", FaultMode.STATUS, status=503))
    letters = world.letters("e2e-trace-waits", (WHERE,), 1)
    (answer,) = world.post([delivery for delivery, _ in letters])
    ticket = world.expect(letters)[0]

    def not_waiting() -> str:
        rows = world.rows_of([ticket])
        return "" if any(row["status"] == "retrying" for row in rows) else "nothing of it waits"

    world.eventually(not_waiting)
    (told,) = traced(capsys, "--request", answer.request_id)["events"]
    assert told["state"] == "waiting"
    assert "HTTP_503" in {one["failure_code"] for one in told["actions"]}
    assert any(step["what"].endswith("failure.detected") for step in told["steps"])
    world.simulator.clear_faults()
    world.await_settled([ticket])

    (delivery,) = [delivery for delivery, _ in world.letters("e2e-trace-forged", (WHERE,), 1)]
    (refused,) = world.post([world.sender.forged(delivery, world.chance)])
    found = traced(capsys, "--request", refused.request_id)
    assert found["events"] == []
    assert (found["door"]["request"]["status"], found["door"]["request"]["is_refused"]) == (401, True)
    capsys.readouterr()
    assert run(["audit", "--request", answer.request_id, "--json"]) == ExitCode.OK
    record = json.loads(capsys.readouterr().out)["events"]
    assert {"platform.integration.failure.detected"} <= {event["event_type"] for event in record}
