"""A source's whole life by command, on the deployed stack: added, rotated, held, disabled, and what it refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ops import records
from ops.cli import run
from ops.cli.console import ExitCode
from ops.senders import sign
from ops.traffic import Delivery, post_all
from tests.e2e.conftest import World

SOURCE = "by-hand"
WHY = ["--reason", "an end-to-end test"]


def status_of(delivery: Delivery) -> int:
    return post_all([delivery])[0].status


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command prints; it must succeed."""
    capsys.readouterr()
    assert run(arguments) == ExitCode.OK, capsys.readouterr().err
    return capsys.readouterr().out


def test_a_source_lives_its_whole_life_by_command(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    number = 0

    def letter(secret: str) -> Delivery:
        nonlocal number
        number += 1
        world.sender.forget(SOURCE)
        made = world.sender.message(
            SOURCE,
            ticket=f"e2e-hand-{number}",
            text="Where is it?",
            author="a@example.com",
            message_id=f"hand-{number}",
        )
        headers = sign("generic-hmac", secret, made.body, url=made.url, now=0, message_id=made.message_id).headers
        return replace(made, headers=headers)

    def becomes(status: int, secret: str) -> None:
        """The door answers so, once it has seen the change: at a signature that does not fit it looks again."""

        def missing() -> str:
            assert status_of(letter("a forgery")) == 401
            found = status_of(letter(secret))
            return "" if found == status else f"answered {found}, not {status}"

        world.eventually(missing, 60)

    options = ["--provider", "generic-hmac", "--option", "header=x-signature", "--identity", "/id"]
    options += ["--fields", "conversation=/ticket/id", "--fields", "text=/ticket/text", "--fields", "author=/author"]
    added = told(capsys, "source", "add", SOURCE, "--tenant", "demo", "--flow", "support", *options, "--generate", *WHY)
    old = added.strip()
    becomes(202, old)
    assert run(["source", "add", SOURCE, "--tenant", "demo", "--flow", "support", *options, "--generate", *WHY]) == 1

    new = told(capsys, "source", "rotate", SOURCE, "--generate", *WHY).strip()
    assert new != old
    assert [status_of(letter(secret)) for secret in (new, old, new, old)] == [202] * 4
    told(capsys, "source", "rotate", SOURCE, "--retire", *WHY)
    becomes(401, old)
    assert status_of(letter(new)) == 202

    told(capsys, "source", "hold", SOURCE, *WHY)
    sent: list[str] = []

    def not_held() -> str:
        assert status_of(letter("a forgery")) == 401
        one = letter(new)
        assert status_of(one) == 202
        sent.append(f"{SOURCE}:{one.message_id}")
        found = [row for event_id in sent for row in records.rows_of_event(world.stack, "demo", event_id, None)]
        return "" if any(row.get("failure_code") == "HELD" for row in found) else "no event is kept as HELD"

    world.eventually(not_held)
    told(capsys, "source", "disable", SOURCE, *WHY)
    becomes(401, new)

    refused = json.loads(told(capsys, "rejections", "--source", SOURCE, "--json"))
    assert {"bad_signature", "source_disabled"} <= set(refused["counts"])
    assert refused["rejections"][0]["at_ms"] >= refused["rejections"][-1]["at_ms"]
    table = told(capsys, "rejections", "--source", SOURCE, "--reason", "bad_signature")
    assert "holdfast verify --explain" in table

    shown = json.loads(told(capsys, "source", "show", SOURCE, "--json"))
    assert shown["state"] == "disabled"
    assert shown["last_event_ms"] is not None
    assert shown["last_refusal"]["reason"] == "source_disabled"
    assert shown["problems"] == []
    assert [json.loads(change["after_state"])["state"] for change in shown["changes"]] == [
        "disabled",
        "held",
        "active",
        "active",
        "active",
    ]
    listed = told(capsys, "source", "list")
    assert SOURCE in listed
    guide = told(capsys, "source", "guide", SOURCE)
    assert world.stack.api_url in guide
    everything = table + json.dumps(refused) + json.dumps(shown) + listed + guide + world.log_of("IngressFunction")
    everything += json.dumps(records.all_audit(world.stack), default=str)
    assert [secret for secret in (old, new) if secret in everything] == []
