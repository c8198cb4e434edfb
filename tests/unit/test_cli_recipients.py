"""`holdfast recipient`: what is written and goes on record with it, what is refused, and that no contact shows."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from functions.adapters.recipients import DynamoRecipients
from functions.core.gate import Standing
from functions.core.recipient import Person, contact_hash, recipient_of, standing_on
from ops import recipients
from ops import stack as stacks
from ops.cli import recipients as command
from ops.cli import run
from ops.cli.console import ExitCode
from ops.records import plain
from ops.stack import Stack
from tests.aws_tables import AUDIT, RECIPIENTS, REGION, create_tables

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

OUTPUTS = {"RecipientsTable": RECIPIENTS, "AuditTable": AUDIT}
NUMBER, OTHER, ADDRESS = "+491701234567", "+491707654321", "ann.smith@example.com"
WHO = recipient_of("acme", NUMBER)
AT = ["--tenant", "acme", "--recipient", WHO]
WHY = ["--reason", "they asked us to"]


@cache
def client() -> Any:
    """Made once: that takes longer than most tests. Importing moto has put its stub into every client."""
    return boto3.client("dynamodb", region_name=REGION)


@dataclass
class Client:
    """A client of which single operations can be told to do something else."""

    instead: dict[str, Callable[..., Any]]

    def __getattr__(self, name: str) -> Any:
        return self.instead.get(name) or getattr(client(), name)


@dataclass
class World:
    """The recipients and the audit of one stage."""

    tmp: Path
    instead: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def client(self, service: str, endpoint: str, region: str) -> Any:
        if service == "sts":
            return SimpleNamespace(get_caller_identity=lambda: {"Arn": "arn:aws:iam::1:user/anna"})
        assert service == "dynamodb"
        return Client(self.instead)

    def person(self, recipient: str = WHO, tenant: str = "acme") -> Person:
        return DynamoRecipients(client(), RECIPIENTS).person(tenant, recipient)

    def audit(self) -> list[dict[str, Any]]:
        return sorted((plain(item) for item in client().scan(TableName=AUDIT)["Items"]), key=lambda one: str(one["sk"]))

    def file(self, content: str | bytes) -> str:
        path = self.tmp / f"contact-{len(list(self.tmp.iterdir()))}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    def reachable(self) -> None:
        for arguments in (
            ["contact", "sms", *AT, "--contact-file", self.file(NUMBER), *WHY],
            ["contact", "email", *AT, "--contact-file", self.file(ADDRESS + "\n"), *WHY],
            ["consent", "sms", *AT, "--given", *WHY],
            ["consent", "email", *AT, "--given", *WHY],
        ):
            assert run(["recipient", *arguments]) == ExitCode.OK


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    with mock_aws():
        create_tables(client())
        world = World(tmp_path)
        monkeypatch.setattr(stacks, "client", world.client)
        monkeypatch.setattr(command, "stack_of", lambda _: Stack("dev", REGION, OUTPUTS))
        yield world


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage of which nobody must ask anything."""

    def client(service: str, *_: str) -> None:
        raise AssertionError(f"{service} was asked for")

    monkeypatch.setattr(stacks, "client", client)
    monkeypatch.setattr(command, "stack_of", lambda _: Stack("dev", REGION, OUTPUTS))


def told(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_a_person_is_written_down_and_may_then_be_contacted(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.reachable()
    person = world.person()
    assert person.contacts == {"sms": NUMBER, "email": ADDRESS}
    assert {standing_on(person, channel) for channel in ("sms", "email", "")} == {Standing.ALLOWED}
    said = told(capsys)
    assert WHO in said
    assert NUMBER not in said
    assert ADDRESS not in said


def test_every_change_is_on_record_with_who_and_why_and_without_a_contact(world: World) -> None:
    """003.3, 003.20"""
    world.reachable()
    assert run(["recipient", "opt-out", *AT, *WHY]) == ExitCode.OK
    events = world.audit()
    assert len(events) == 5
    assert {(one["pk"], one["actor"], one["reason"], one["tenant"]) for one in events} == {
        (f"recipient#{WHO}", "arn:aws:iam::1:user/anna", "they asked us to", "acme")
    }
    assert json.loads(events[-1]["after_state"])["opted_out"] is True
    assert json.loads(events[-1]["after_state"])["contacts"]["sms"] == contact_hash("acme", "sms", NUMBER)
    assert NUMBER not in str(events)
    assert ADDRESS not in str(events)


def test_an_opt_out_and_its_end_are_by_person_and_a_repeat_writes_nothing(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb, expected in (("opt-out", True), ("opt-out", True), ("opt-in", False), ("opt-in", False)):
        assert run(["recipient", verb, *AT, *WHY]) == ExitCode.OK
        assert world.person().opted_out is expected
    assert len(world.audit()) == 2
    said = told(capsys)
    assert "is opted out already" in said
    assert "is not opted out" in said


@pytest.mark.parametrize("channel", ["sms", "email", "conversation"])
def test_consent_is_given_and_withdrawn_by_channel(world: World, channel: str) -> None:
    key = "" if channel == "conversation" else channel
    for way, expected in (("--given", True), ("--withdrawn", False)):
        assert run(["recipient", "consent", channel, *AT, way, *WHY]) == ExitCode.OK
        assert world.person().consent == {key: expected}


def test_a_wrong_number_blocks_that_number_and_restore_frees_it(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """003.2"""
    world.reachable()
    assert run(["recipient", "wrong-number", *AT, *WHY]) == ExitCode.OK
    assert standing_on(world.person(), "sms") is Standing.SUPPRESSED
    assert standing_on(world.person(), "email") is Standing.ALLOWED
    assert run(["recipient", "restore", *AT, *WHY]) == ExitCode.OK
    assert standing_on(world.person(), "sms") is Standing.ALLOWED

    assert run(["recipient", "wrong-number", *AT, *WHY]) == ExitCode.OK
    assert run(["recipient", "contact", "sms", *AT, "--contact-file", world.file(OTHER), *WHY]) == ExitCode.OK
    assert standing_on(world.person(), "sms") is Standing.ALLOWED
    assert run(["recipient", "restore", *AT, *WHY]) == ExitCode.OK
    assert "is not marked as wrong" in told(capsys)
    assert run(["recipient", "restore", *AT, "--contact-file", world.file(NUMBER), *WHY]) == ExitCode.OK
    assert world.person().wrong == {}


def test_whoever_is_known_by_a_contact_is_found_by_it(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spelled = world.file("+49 (170) 123-4567")
    assert run(["recipient", "contact", "sms", "--tenant", "acme", "--contact-file", spelled, *WHY]) == ExitCode.OK
    assert world.person().contacts == {"sms": NUMBER}
    assert run(["recipient", "opt-out", "--tenant", "acme", "--contact-file", spelled, *WHY]) == ExitCode.OK
    assert world.person().opted_out
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False, buffer=io.BytesIO(NUMBER.encode())))
    capsys.readouterr()
    assert run(["recipient", "show", "--tenant", "acme", "--contact-stdin", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["recipient"] == WHO


def test_a_number_without_its_country_needs_one(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    national = ["recipient", "contact", "sms", *AT, "--contact-file", world.file("0170 1234567"), *WHY]
    assert run(national) == ExitCode.REFUSED
    assert "--region" in told(capsys)
    assert run([*national, "--region", "DE"]) == ExitCode.OK
    assert world.person().contacts == {"sms": NUMBER}


def test_a_contact_can_be_taken_away(world: World) -> None:
    world.reachable()
    assert run(["recipient", "contact", "email", *AT, "--remove", *WHY]) == ExitCode.OK
    assert world.person().contacts == {"sms": NUMBER}


def test_a_person_is_shown_without_what_is_personal(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.reachable()
    assert run(["recipient", "wrong-number", *AT, *WHY]) == ExitCode.OK
    capsys.readouterr()
    assert run(["recipient", "show", *AT]) == ExitCode.OK
    said = told(capsys)
    assert all(
        word in said for word in ("+49…67 (wrong)", "a…@example.com", "suppressed", "allowed", "they asked us to")
    )
    assert run(["recipient", "show", *AT, "--json"]) == ExitCode.OK
    document = json.loads(capsys.readouterr().out)
    assert document["contacts"]["sms"]["hash"] == contact_hash("acme", "sms", NUMBER)
    assert document["standing"] == {"sms": "suppressed", "email": "allowed", "conversation": "allowed"}
    assert [one["reason"] for one in document["changes"]] == ["they asked us to"] * 5
    for text in (said, json.dumps(document)):
        assert NUMBER not in text
        assert ADDRESS not in text


def test_a_person_nobody_has_written_down_is_shown_as_that(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipient", "show", *AT]) == ExitCode.OK
    said = told(capsys)
    assert "nobody has written anything down" in said
    assert "no_consent" in said
    assert client().scan(TableName=RECIPIENTS)["Items"] == []


def test_changes_at_another_tenant_are_not_shown(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipient", "opt-out", "--tenant", "other", "--recipient", WHO, *WHY]) == ExitCode.OK
    capsys.readouterr()
    assert run(["recipient", "show", *AT, "--json"]) == ExitCode.OK
    document = json.loads(capsys.readouterr().out)
    assert (document["changes"], document["opted_out"]) == ([], False)


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "arguments",
    [
        ["opt-out", "--tenant", "acme", *WHY],
        ["opt-out", "--tenant", "acme", "--recipient", NUMBER, *WHY],
        ["opt-out", "--tenant", "acme", "--recipient", "491701234567", *WHY],
        ["opt-out", "--tenant", "acme", "--recipient", ADDRESS, *WHY],
        ["opt-out", "--tenant", "acme", "--recipient", WHO.upper(), *WHY],
        ["opt-out", "--tenant", "ac#me", "--recipient", WHO, *WHY],
        ["opt-out", "--tenant", "", "--recipient", WHO, *WHY],
        ["opt-out", "--tenant", "a" * 65, "--recipient", WHO, *WHY],
        ["opt-out", *AT, "--reason", "  "],
        ["opt-out", *AT, "--reason", "x" * 501],
        ["opt-out", *AT, "--reason", f"{NUMBER} is not theirs"],
        ["opt-out", *AT, "--reason", "0170 1234567 is not theirs"],
        ["opt-out", *AT, "--reason", "0049-170-1234567"],
        ["opt-out", *AT, "--reason", f"write to {ADDRESS}"],
        ["contact", "sms", *AT, *WHY],
        ["contact", "conversation", *AT, "--remove", *WHY],
        ["wrong-number", *AT, "--channel", "conversation", *WHY],
        ["opt-out", *AT, "--contact-file", "/does/not/exist", *WHY],
        ["opt-out", *AT, "--contact-file", "/", *WHY],
        ["opt-out", *AT, "--contact-file", "/dev/zero", *WHY],
        ["opt-out", *AT, "--contact-file", "x", "--contact-stdin", *WHY],
    ],
)
def test_what_cannot_be_meant_is_refused_before_anybody_is_asked(
    asked: None, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["recipient", *arguments]) == ExitCode.REFUSED
    said = told(capsys)
    assert said
    assert not [text for text in (NUMBER, "491701234567", ADDRESS) if text in said]


@pytest.mark.parametrize("reason", ["ticket 4711-2024-001", "as of 2026-01-31", "case 1234567890", "3 messages a day"])
def test_numbers_that_are_nobodys_may_stand_in_a_reason(world: World, reason: str) -> None:
    assert run(["recipient", "opt-out", *AT, "--reason", reason]) == ExitCode.OK


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" \n",
        b"\xff\xfe",
        b"+491701234567\n+491707654321",
        b"+491701234567\x00",
        b"\x1b[2J+491701234567",
        "\u202e+491701234567".encode(),
        b"+49170" + b"1" * 300,
        b"9" * 5000,
    ],
)
@pytest.mark.parametrize("verb", [["contact", "sms"], ["opt-out"], ["wrong-number"]])
def test_a_file_that_holds_no_contact_is_refused_and_quoted_nowhere(
    asked: None, tmp_path: Path, content: bytes, verb: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "contact"
    path.write_bytes(content)
    assert run(["recipient", *verb, *AT, "--contact-file", str(path), *WHY]) == ExitCode.REFUSED
    said = told(capsys)
    assert "491701234567" not in said
    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("channel", "text", "region"),
    [
        ("sms", "not a number", ""),
        ("sms", "0170 1234567", ""),
        ("sms", "0170 1234567", "de"),
        ("sms", "0170 1234567", "DEU"),
        ("sms", "0170 1234567", "../"),
        ("sms", "+49", ""),
        ("sms", "+491701234567890123", ""),
        ("sms", "+1 555 010 0199 ext. 7", ""),
        ("sms", "ann@example.com", ""),
        ("email", "ann", ""),
        ("email", "ann@example.com, bob@example.com", ""),
        ("email", "Ann <ann@example.com>", ""),
        ("email", "+491701234567", ""),
    ],
)
def test_a_contact_of_another_kind_is_refused(
    asked: None, tmp_path: Path, channel: str, text: str, region: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "contact"
    path.write_text(text)
    arguments = ["recipient", "contact", channel, *AT, "--contact-file", str(path), "--region", region, *WHY]
    assert run(arguments) == ExitCode.REFUSED
    assert text not in told(capsys)


def test_a_channel_that_there_is_not_is_not_understood(asked: None) -> None:
    assert run(["recipient", "consent", "fax", *AT, "--given", *WHY]) == ExitCode.USAGE
    assert run(["recipient", "consent", "sms", *AT, *WHY]) == ExitCode.USAGE


def test_whoever_has_no_contact_has_no_wrong_one(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipient", "wrong-number", *AT, *WHY]) == ExitCode.REFUSED
    assert "no contact for sms" in told(capsys)
    assert world.audit() == []


def test_contacts_without_end_cannot_be_marked(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(21):
        expected = ExitCode.OK if number < 20 else ExitCode.REFUSED
        file = world.file(f"+49170{number:07d}")
        assert run(["recipient", "wrong-number", *AT, "--contact-file", file, *WHY]) == expected
    assert "20 contacts are marked" in told(capsys)


# ------------------------------------------------------------------------------------------------------------- trouble


def fails(code: str) -> Callable[..., Any]:
    def call(**_: Any) -> Any:
        raise ClientError({"Error": {"Code": code, "Message": "made up"}}, "Made-up")

    return call


def test_without_the_audit_there_is_no_change(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.instead["transact_write_items"] = fails("AccessDeniedException")
    assert run(["recipient", "opt-out", *AT, *WHY]) == ExitCode.REFUSED
    assert "AccessDeniedException" in told(capsys)
    assert (world.person(), world.audit()) == (Person(), [])


def test_a_stage_that_does_not_answer_is_out_of_reach(world: World) -> None:
    def lost(**_: Any) -> Any:
        raise EndpointConnectionError(endpoint_url="https://nowhere")

    world.instead["get_item"] = lost
    assert run(["recipient", "show", *AT]) == ExitCode.UNREACHABLE


def test_who_changes_at_the_same_time_is_told_and_nothing_is_lost(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    def race(**request: Any) -> Any:
        world.instead.pop("transact_write_items")
        assert run(["recipient", "opt-out", *AT, *WHY]) == ExitCode.OK
        return client().transact_write_items(**request)

    world.instead["transact_write_items"] = race
    assert run(["recipient", "consent", "sms", *AT, "--given", *WHY]) == ExitCode.REFUSED
    assert "at the same time" in told(capsys)
    assert (world.person().opted_out, world.person().consent, len(world.audit())) == (True, {}, 1)


def test_an_entry_that_cannot_be_read_is_shown_as_that_and_not_written_over(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    client().put_item(TableName=RECIPIENTS, Item={"pk": {"S": f"acme#{WHO}"}, "consent": {"S": NUMBER}})
    assert run(["recipient", "show", *AT]) == ExitCode.OK
    assert "cannot be read" in told(capsys)
    assert run(["recipient", "opt-out", *AT, *WHY]) == ExitCode.REFUSED
    said = told(capsys)
    assert "mend" in said
    assert NUMBER not in said
    assert client().scan(TableName=RECIPIENTS)["Items"][0]["consent"] == {"S": NUMBER}


def test_an_audit_that_may_not_be_read_leaves_the_rest_to_be_shown(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.instead["query"] = fails("AccessDeniedException")
    assert run(["recipient", "show", *AT]) == ExitCode.OK
    assert "the audit could not be read (AccessDeniedException)" in told(capsys)


@pytest.mark.parametrize(("channel", "contact"), [("sms", NUMBER), ("email", ADDRESS), ("sms", "")])
def test_a_mask_shows_too_little_to_use(channel: str, contact: str) -> None:
    shown = recipients.masked(channel, contact)
    assert "…" in shown
    assert not contact or contact not in shown
