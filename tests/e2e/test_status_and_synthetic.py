"""What strangers may ask of the deployed stage, what `holdfast doctor` says of it, and the event that it sends itself.

000.18, 000.24, 002.4, 002.9.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from functions.core.alarms import by_name
from functions.core.synthetic import SOURCE
from ops import records
from ops.alarms.evaluation import State
from ops.cli import run
from ops.cli.console import ExitCode
from ops.function_logs import recent
from ops.local.bridge import Bridge
from ops.standing import switch_lags
from tests.e2e.conftest import World

MINUTE_SECONDS = 1.0
NOWHERE = "http://127.0.0.1:9/webhooks/synthetic"


def ask(world: World, path: str) -> httpx.Response:
    """As a stranger: no token."""
    return httpx.get(f"{world.stack.api_url}{path}", timeout=30, trust_env=False)


@contextmanager
def entry(world: World, source: str, changed: Callable[[dict[str, Any]], str]) -> Iterator[None]:
    """While the block runs the source's entry is another one."""
    name, ssm = f"{world.stack.output('SourcesPath')}/{source}", world.stack.client("ssm")
    stored = ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]
    ssm.put_parameter(Name=name, Value=changed(json.loads(stored)), Type="SecureString", Overwrite=True)
    try:
        yield
    finally:
        ssm.put_parameter(Name=name, Value=stored, Type="SecureString", Overwrite=True)


# ------------------------------------------------------------------------------------------------------ status, health


def test_anybody_may_ask_how_the_features_are_and_whether_the_stage_is_up(world: World) -> None:
    world.eventually(lambda: "" if ask(world, "/health").status_code == 200 else ask(world, "/health").text, 60)
    assert ask(world, "/health").json()["checks"] == {"storage": "ok", "switches": "ok", "watch": "ok"}
    answer = ask(world, "/status")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "public, max-age=15")
    found = answer.json()["features"]
    assert {"support", "billing", "notifications"} <= set(found)
    assert found["billing"]["capabilities"].keys() == {"access", "checkout", "plan_changes"}
    assert ask(world, "/platform/integrations").status_code == 401
    assert ask(world, "/status/billing").status_code == 404


def test_what_a_person_says_of_an_integration_is_what_users_are_told_within_the_minute(world: World) -> None:
    command = ["health", "set", "payments", "hard_down", "--for", "5m", "--reason", "maintenance"]
    assert run(command) == ExitCode.OK
    try:
        world.eventually(lambda: _is(world, "billing", "unavailable"), 60)
        said = ask(world, "/status").json()["features"]["billing"]
        assert said["capabilities"]["plan_changes"] is False
        assert "stripe" not in ask(world, "/status").text.lower()
    finally:
        assert run(["health", "clear", "payments", "--reason", "over"]) == ExitCode.OK
    world.eventually(lambda: _is(world, "billing", "operational"), 60)


def _is(world: World, feature: str, state: str) -> str:
    said = ask(world, "/status").json()["features"][feature]["state"]
    return "" if said == state else f"{feature} is {said}"


# -------------------------------------------------------------------------------------------------------------- doctor


def findings(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    """What the doctor says, held to how it ends."""
    capsys.readouterr()
    code = run(["doctor", "--json"])
    document = json.loads(capsys.readouterr().out)
    found: list[dict[str, str]] = document["findings"]
    is_ok = not any(one["verdict"] == "not ok" for one in found)
    assert (document["ok"], code) == (is_ok, ExitCode.OK if is_ok else ExitCode.REFUSED)
    return found


def test_a_stage_that_works_has_nothing_that_is_not_ok(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """But for alarms: nobody judges them here, so that they are as another test has left them."""

    def missing() -> str:
        bad = [one for one in findings(capsys) if one["verdict"] == "not ok" and one["part"] != "alarms"]
        return f"{bad}" if bad else ""

    world.eventually(missing, 90)
    found = findings(capsys)
    parts = {one["part"] for one in found}
    assert parts == {
        "api",
        "functions",
        "queues",
        "tables",
        "switches",
        "sources",
        "credentials",
        "providers",
        "alarms",
        "heartbeats",
    }
    assert {one["verdict"] for one in found if one["part"] != "alarms"} == {"ok"}
    beats = {one["what"]: one["verdict"] for one in found if one["part"] == "heartbeats"}
    assert beats == dict.fromkeys(("evaluator", "sweeper", "pager", "synthetic event"), "ok")


def test_what_is_broken_is_named_with_what_to_do_and_no_secret(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "whsec_" + "c2VjcmV0" * 4
    sqs, url = world.stack.client("sqs"), world.stack.output("OpsDlqUrl")
    sqs.send_message(QueueUrl=url, MessageBody="a run that failed")
    assert run(["switch", "set", "auto_reply", "off", "--reason", "wrong answers"]) == ExitCode.OK
    try:
        with entry(
            world, "svix", lambda good: json.dumps(good | {"secrets": [{"secret": secret}], "surprise": secret})
        ):
            found = findings(capsys)
    finally:
        assert run(["switch", "set", "auto_reply", "on", "--reason", "right again"]) == ExitCode.OK
        (message,) = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=2)["Messages"]
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    bad = {one["what"]: one["do"] for one in found if one["verdict"] == "not ok"}
    assert bad["svix"] == "docs/runbooks/alarms.md#source-malformed"
    assert bad["ops-dlq"] == "docs/runbooks/alarms.md#ops-dlq-not-empty"
    assert bad["auto_reply"].startswith("holdfast switch set auto_reply on")
    assert secret not in json.dumps(found)


# ------------------------------------------------------------------------------------------------------ synthetic event


def settled(world: World) -> list[str]:
    return [
        str(item["event_id"])
        for item in records.events(world.stack, with_synthetic=True)
        if str(item["event_id"]).startswith(f"{SOURCE}:") and item["status"] == "settled"
    ]


def test_the_event_that_the_stage_sends_itself_goes_all_the_way_and_reaches_nobody(world: World) -> None:
    before, effects = len(settled(world)), world.simulator.effects()
    world.eventually(lambda: "" if len(settled(world)) >= before + 2 else "none has come to its end", 60)
    counted = list(recent(world.stack, "WorkerFunction", "synthetic_settle_ms", int(time.time() * 1000) - 60_000))
    assert counted
    took = [value for line in counted for value in line.get("synthetic_settle_ms", [])]
    assert 0 <= min(took) < 60_000  # one that another test held up may have taken longer
    ours = {effect.target for effect in world.simulator.effects()} - {effect.target for effect in effects}
    assert not any(SOURCE in str(target) for target in ours)
    assert not [event for event in records.events(world.stack) if str(event["event_id"]).startswith(f"{SOURCE}:")]


def test_the_alarms_own_expression_sees_it_missing_and_sees_it_come_again(world: World) -> None:
    alarm = by_name("synthetic-missing")
    assert alarm is not None
    bridge = Bridge(world.stack, alarms=[alarm], minute_ms=int(MINUTE_SECONDS * 1000))
    bridge._publish = lambda now_ms: None  # type: ignore[method-assign]  # nobody is called for this

    def is_in(state: State) -> str:
        bridge.cycle()
        return "" if bridge.states[alarm.name] is state else f"it is {bridge.states[alarm.name]}"

    until = time.monotonic() + 10  # five times as long as one is waited for
    while time.monotonic() < until:
        assert is_in(State.OK) == ""
        time.sleep(1)
    with entry(world, SOURCE, lambda good: json.dumps(good | {"public_url": NOWHERE})):
        world.eventually(lambda: is_in(State.ALARM), 120)
    world.eventually(lambda: is_in(State.OK), 120)


# --------------------------------------------------------------------------------------------------------------- switch


def test_how_long_the_workers_took_to_obey_a_change_is_measured_by_themselves(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Propagation: a change that is made past everything of ours."""
    name, ssm = f"{world.stack.output('SwitchesPath')}/optional_calls", world.stack.client("ssm")
    seen = sum(one.seen for one in switch_lags(world.stack, int(time.time() * 1000)))
    ssm.put_parameter(Name=name, Value="off", Type="String", Overwrite=True)
    try:

        def missing() -> str:
            lags = switch_lags(world.stack, int(time.time() * 1000))
            return "" if sum(one.seen for one in lags) > seen else "no worker has seen it"

        world.eventually(missing, 90)
    finally:
        ssm.put_parameter(Name=name, Value="on", Type="String", Overwrite=True)
    capsys.readouterr()
    assert run(["switch", "list", "--lag", "--json"]) == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert told
    assert all(one["worst_ms"] >= 0 for one in told)  # how long it is at most says the drill of the kill switch
