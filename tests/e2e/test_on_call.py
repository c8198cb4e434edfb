"""An alarm on the deployed stack: heard, an incident, one page at a local receiver, contained, closed by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from functions.core.postmortem import PLACEHOLDER
from ops.cli import run
from ops.cli.console import ExitCode
from ops.drills.receiver import CHAT, PAGER, Receiver
from tests.e2e.conftest import World


def says(world: World, alarm: str, state: str) -> None:
    """What CloudWatch tells the alarm's topic."""
    topics = world.stack.output("AlarmTopicArns").split()
    topic = next(arn for arn in topics if arn.endswith("sev0-ops" if alarm == "reply-storm" else "sev2-ops"))
    world.stack.client("sns").publish(
        TopicArn=topic,
        Message=json.dumps(
            {
                "AlarmName": f"holdfast-local-{alarm}",
                "NewStateValue": state,
                "OldStateValue": "OK",
                "StateChangeTime": datetime.now(UTC).isoformat(timespec="milliseconds"),
            }
        ),
    )


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run([*arguments, "--json"]) == ExitCode.OK
    return json.loads(capsys.readouterr().out)


def test_a_sev0_is_contained_paged_once_taken_in_hand_and_closed_with_its_postmortem(
    world: World,
    receiver: Receiver,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    proved: Callable[[str], None],
) -> None:
    """001.8 to 001.13, 001.57, 002.14, 002.36: by the functions' own roles."""
    began, before = time.monotonic(), len(receiver.calls)
    capsys.readouterr()
    for _ in range(10):
        says(world, "reply-storm", "ALARM")
    world.eventually(
        lambda: "" if any(call.severity == "SEV0" for call in receiver.calls[before:]) else "no page has come",
        seconds=60,
    )
    seconds = time.monotonic() - began
    (incident,) = [
        one for one in told(capsys, "incident", "list") if one["alarms"] and one["alarms"][0]["name"] == "reply-storm"
    ]
    one = incident["incident_id"]
    try:
        assert told(capsys, "switch", "get", "auto_reply")["value"] == "off"
        assert (incident["severity"], incident["runbook"]) == ("SEV0", "docs/runbooks/alarms.md#reply-storm")
        (call,) = receiver.calls_of(one)
        assert (call.severity, call.runbook) == ("SEV0", incident["runbook"])
        text = receiver.letters_of(one)[0].text
        assert "Done by itself: auto_reply set to off" in text
        assert "Could not be found out" not in text, text + world.denials()
        told(capsys, "incident", "ack", one)
        says(world, "reply-storm", "OK")
        world.eventually(
            lambda: "" if told(capsys, "incident", "show", one)["incident"]["state"] == "mitigated" else "not over yet",
            seconds=60,
        )
        page = tmp_path / "pm.md"
        page.write_text(told(capsys, "incident", "postmortem", one)["text"].replace(PLACEHOLDER, "a drill"))
        told(capsys, "incident", "postmortem", one, "--file", str(page))
        assert told(capsys, "incident", "resolve", one, "a drill")["state"] == "resolved"
        full = told(capsys, "incident", "show", one)
        assert full["unknown"] == []
        kinds = {entry["kind"] for entry in full["timeline"]}
        assert {"incident opened", "incident contained", "incident paged", "switch auto_reply"} <= kinds
    finally:
        assert run(["switch", "set", "auto_reply", "on", "--reason", "the drill is over"]) == ExitCode.OK
    assert [letter.kind for letter in receiver.letters_of(one)].count("opened") == 1
    proved(f"SEV0: ten alarm messages, one incident, one page after {seconds:.1f} s, replies off by itself, closed")


def test_a_test_page_arrives_at_every_channel(
    world: World, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    """001.57"""
    found = told(capsys, "page", "test", "--wait", "90")
    assert found["resolution"] == f"delivered by {CHAT}, {PAGER}, sns", world.denials()
    assert any("This is a test" in letter.text for letter in receiver.letters_of(found["incident_id"]))
