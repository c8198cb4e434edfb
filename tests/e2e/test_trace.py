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


def test_all_four_ends_are_found_by_ticket_request_and_recipient_and_told_whole(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is done, one that waits, one that is dead, and one that a person has replayed; by API and by command."""
    names = ("done", "dead", "replayed", "waiting")
    letters = [letter for name in names for letter in world.letters(f"e2e-trace-{name}", (WHERE,), 1)]
    conversations = dict(zip(names, world.expect(letters), strict=True))
    deliveries = dict(zip(names, (delivery for delivery, _ in letters), strict=True))
    answers = {"done": world.post([deliveries["done"]])[0]}
    world.await_settled([conversations["done"]])
    world.simulator.add_faults(Fault("helpdesk", FaultMode.STATUS, operation="assign", status=422))
    answers |= {name: world.post([deliveries[name]])[0] for name in ("dead", "replayed")}

    def refused_by_name() -> dict[str, str]:
        rows = world.rows_of([conversations["dead"], conversations["replayed"]])
        return {str(row["event_id"]): str(row["pk"]) for row in rows if row["status"] == "failed"}

    world.eventually(lambda: "" if len(refused_by_name()) == 2 else "not refused yet")
    world.simulator.clear_faults()
    item = refused_by_name()[answers["replayed"].event_id]
    assert run(["replay", "one", item, "--reason", "the team is there again", "--wait", "60"]) == ExitCode.OK
    world.simulator.add_faults(Fault("helpdesk", FaultMode.STATUS, status=503))
    answers["waiting"] = world.post([deliveries["waiting"]])[0]
    world.eventually(lambda: "" if world.rows_of([conversations["waiting"]]) else "nothing of it waits")

    told = {name: traced(capsys, conversations[name])["events"][0] for name in names}
    states = {
        name: (one["state"], {action["name"]: action["state"] for action in one["actions"]}["assign"])
        for name, one in told.items()
    }
    assert states == {
        "done": ("settled", "done"),
        "dead": ("ended", "dead"),
        "replayed": ("settled", "done"),
        "waiting": ("waiting", states["waiting"][1]),  # or a worker is at it, at this moment
    }
    for name, one in told.items():
        answer = answers[name]
        logged = world.line_of(answer)["event_name"]  # some senders name none; the ledger's room for it is short
        assert one["received"]["event_name"] in ({"", logged} if name == "done" else {logged})
        assert one["event_id"] == answer.event_id
        assert one["received"] | {"at_ms": 0} == {
            "at_ms": 0,
            "request_id": answer.request_id,
            "event_name": one["received"]["event_name"],
            "source": answer.event_id.partition(":")[0],
        }
        assert one["received"]["at_ms"] > 0
        assert one["decided"]["label"] == "order_status"
        assert one["switches"]["is_known"]
        assert {"received", "decided", "settled"} <= {step["what"] for step in one["steps"]}
        recipient = next(action["recipient"] for action in one["actions"] if action["recipient"])
        for question in (["--request", answer.request_id], ["--recipient", recipient], [answer.event_id]):
            found = traced(capsys, *question)
            assert found.get("is_complete", True)  # one event is whole by itself
            assert answer.event_id in {other["event_id"] for other in found["events"]}, question
        assert run(["trace", conversations[name]]) == ExitCode.OK
        assert one["summary"] in capsys.readouterr().out
    assert all(action["provider_id"] for action in told["done"]["actions"] if action["name"] == "reply")
    dead, replayed, waiting = (
        {action["name"]: action for action in told[name]["actions"]}["assign"] for name in names[1:]
    )
    assert (dead["failure_code"], dead["status"], dead["replays"]) == ("HTTP_422", "failed", 0)
    assert (replayed["status"], replayed["replays"], replayed["recovery_id"]) == ("replayed", 1, item)
    assert replayed["last_replay_by"]
    assert (waiting["state"], waiting["waiting_for"]) in (
        ("waiting", "backoff"),
        ("waiting", "health"),
        ("under_way", ""),
    )
    assert waiting["next_at_ms"] > 0
    (by_item,) = traced(capsys, item)["events"]
    steps = [step["what"].rpartition(".")[2] for step in by_item["steps"]]
    assert steps.index("detected") < steps.index("replayed") < steps.index("reprocess_succeeded")
    world.simulator.clear_faults()
    world.await_settled([conversations["waiting"]])
    assert (
        run(["queue", "dismiss", dead["recovery_id"], "--done-by-hand", "--reason", "assigned in the helpdesk"])
        == ExitCode.OK
    )


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
