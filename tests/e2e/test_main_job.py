"""The main job, as senders, customers and operators see it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from functions.core.recovery import Status
from ops import records
from ops.cli import run
from ops.cli.console import ExitCode
from ops.demo.stage import SOURCES, conversation_of, repeated
from ops.expectation import CRASH, REFUND, TOPICS, WHERE, balance
from ops.simulator import Fault, FaultMode
from tests.e2e.conftest import World


def test_a_signed_message_of_every_provider_has_each_of_its_effects_once_and_a_forged_one_none(
    world: World, proved: Callable[[str], None]
) -> None:
    letters = world.letters("e2e-all", TOPICS, 3 * len(SOURCES))
    honest = [delivery for delivery, _ in letters]
    never_sent = [delivery for delivery, _ in world.letters("e2e-forged", TOPICS, 9)]
    forged = [world.sender.forged(delivery, world.chance) for delivery in never_sent]
    answers = world.post([*honest, *forged, *repeated(honest[::4])])
    conversations = world.expect(letters)
    world.await_settled(conversations)

    assert [answer.status for answer in answers if answer.delivery.honesty != "honest"] == [401] * len(forged)
    assert world.sent.lost_at_the_door == []
    mine = {*conversations, *(conversation_of(delivery) for delivery in never_sent)}
    found = balance(world.expectations, (one for one in world.simulator.effects("helpdesk") if one.target in mine))
    assert found.problems == []
    proved(
        f"end to end: {len(honest)} events of {len(SOURCES)} providers settled, {found.effects} effects each once, "
        f"{len(forged)} of {len(forged)} forgeries refused"
    )


def test_every_refusal_of_a_forgery_reads_the_same(world: World) -> None:
    letters = [delivery for delivery, _ in world.letters("e2e-same", TOPICS, 18)]
    forged = [world.sender.forged(delivery, world.chance) for delivery in letters]
    bodies = {
        json.dumps({name: value for name, value in answer.document.items() if name not in ("request_id", "instance")})
        for answer in world.post(forged)
    }
    assert len(bodies) == 1


def test_items_that_died_with_the_helpdesk_are_brought_to_their_end_by_one_replay(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """000.34, 001.33, 002.34: dead letters and their replay, end to end. The machine would have spared them, so an
    operator says that the helpdesk is to be called all the same (000.32).
    """
    set_healthy = ["health", "set", "helpdesk", "healthy", "--for", "15m", "--reason", "let them die"]
    assert run(set_healthy) == ExitCode.OK
    world.simulator.add_faults(Fault("helpdesk", FaultMode.STATUS, status=503))
    letters = world.letters("e2e-dead", (WHERE, REFUND), 4)
    world.post([delivery for delivery, _ in letters])
    conversations = world.expect(letters)

    def not_dead() -> str:
        dead = sum(row["status"] == Status.DLQ for row in world.rows_of(conversations))
        return "" if dead >= 2 * len(conversations) else f"{dead} of {2 * len(conversations)} items are dead"

    world.eventually(not_dead)
    world.simulator.clear_faults()

    asked = ["replay", "--integration", "helpdesk", "--status", "dlq", "--yes", "--json", "--reason"]
    capsys.readouterr()
    assert run([*asked, "it is back"]) == ExitCode.OK
    job = json.loads(capsys.readouterr().out)
    assert (job["state"], set(job["progress"]["outcomes"])) == ("finished", {"succeeded"})
    assert job["progress"]["outcomes"]["succeeded"] >= 2 * len(conversations)
    world.await_settled(conversations)
    assert world.problems_in(conversations) == []
    assert run([*asked, "once more"]) == ExitCode.REFUSED
    assert json.loads(capsys.readouterr().out)["plan"]["items"] == 0
    assert run(["health", "clear", "helpdesk", "--reason", "it is back"]) == ExitCode.OK


def test_an_outage_of_the_helpdesk_closes_it_and_ends_without_a_dead_letter_and_without_anybody(
    world: World, capsys: pytest.CaptureFixture[str], proved: Callable[[str], None]
) -> None:
    """000.9, 000.15, 000.22, 003.8, 003.25: on the deployed stack, with its roles, in its shortened minutes."""

    def health() -> dict[str, object]:
        capsys.readouterr()
        assert run(["integrations", "helpdesk", "--json"]) == ExitCode.OK
        document: dict[str, object] = json.loads(capsys.readouterr().out)
        return document

    world.simulator.add_faults(Fault("helpdesk", FaultMode.STATUS, status=503))
    letters = world.letters("e2e-outage", (WHERE, CRASH, REFUND), 12)
    world.post([delivery for delivery, _ in letters])
    conversations = world.expect(letters)
    world.eventually(lambda: "" if health()["health"] == "hard_down" else "the machine has not closed it")
    closed = health()
    more = world.letters("e2e-outage-later", (WHERE, CRASH, REFUND), 12)
    world.post([delivery for delivery, _ in more])
    conversations += world.expect(more)
    time.sleep(15)  # as many of its minutes: without the machine every attempt would be spent by now
    assert {row["status"] for row in world.rows_of(conversations)} <= {"pending", "retrying"}
    world.simulator.clear_faults()

    world.await_settled(conversations)
    assert world.problems_in(conversations) == []
    rows = world.rows_of(conversations)
    assert {row["status"] for row in rows} == {"succeeded"}
    audit = [event for event in records.audit_of(world.stack, "integration#helpdesk") if event["actor"] == "holdfast"]
    changes = [json.loads(event["after_state"])["health"] for event in audit]
    assert "hard_down" in changes
    assert changes[-1] in ("degraded", "healthy")
    proved(
        f"outage on the local stack: {len(rows)} rows, 0 dead, 0 for a person; {closed['reason']!r}; "
        f"at most {max(int(row.get('attempt_count', 0)) for row in rows)} attempts"
    )


def test_the_command_line_sends_shows_and_finds_an_event(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["send", "github", "--text", CRASH.text, "--ticket", "e2e-cli", "--json"]) == ExitCode.OK
    sent = json.loads(capsys.readouterr().out)["answers"][0]

    def not_settled() -> str:
        item = records.event(world.stack, "demo", sent["event_id"])
        return "" if item and item["status"] == "settled" else "the event is not settled"

    world.eventually(not_settled)
    assert run(["events", sent["event_id"], "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["decision"]["t"] == sent["conversation"]
    assert run(["events", "github:nothing", "--json"]) == ExitCode.REFUSED
    assert run(["env", "--json"]) == ExitCode.OK
    environment = json.loads(capsys.readouterr().out)
    assert environment["stage"] == "local"
    assert environment["LedgerTable"] == world.stack.output("LedgerTable")


def test_a_refused_replay_says_why_and_changes_nothing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    before = records.all_rows(world.stack)
    assert run(["replay", "--reason", "everything", "--json"]) == ExitCode.REFUSED
    assert "INT-400-INVALID-PAYLOAD" in capsys.readouterr().err
    assert sorted(records.all_rows(world.stack), key=str) == sorted(before, key=str)
