"""`holdfast source`: what is written, what goes on record before it, what is refused, and that no secret shows."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from moto import mock_aws

from functions.core import source as source_module
from functions.core.source import Source
from functions.core.synthetic import delivery
from functions.signatures.providers import PROVIDERS, endpoint_of
from functions.signatures.special import PublicKeySignature
from ops import sources
from ops import stack as stacks
from ops.cli import run
from ops.cli import sources as command
from ops.cli.console import ExitCode
from ops.doctor import ADD_SYNTHETIC
from ops.door_log import ACCEPTED, REFUSED, DoorLog
from ops.records import plain
from ops.stack import Stack
from tests.aws_tables import AUDIT, REGION, create_tables

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

PATH = "/holdfast/dev/sources"
OUTPUTS = {"ApiUrl": "https://api.example.com/", "SourcesPath": PATH, "AuditTable": AUDIT, "IngressFunction": "ingress"}
GROUP = "the ingress's log"
SECRET = "correct-horse-battery-staple"
OTHER = "incorrect-horse-battery-staple"
BASICS = ["--provider", "github", "--tenant", "acme", "--flow", "support"]
WHY = ["--reason", "a new shop"]


@cache
def client(service: str) -> Any:
    """Made once each: that takes longer than most tests. Importing moto has put its stub into every client."""
    return boto3.client(service, region_name=REGION)  # type: ignore[call-overload]  # a variable


@dataclass
class Client:
    """An AWS client of which single operations can be told to do something else."""

    real: Any
    instead: dict[str, Callable[..., Any]]

    def __getattr__(self, name: str) -> Any:
        return self.instead.get(name) or getattr(self.real, name)


@dataclass
class World:
    """Parameter store, audit table and log of one stage; `secrets` are never to be seen anywhere else."""

    instead: dict[str, Callable[..., Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ssm = client("ssm")
        self.dynamodb = client("dynamodb")
        self.logs = client("logs")
        create_tables(self.dynamodb)
        self.logs.create_log_group(logGroupName=GROUP)
        self.logs.create_log_stream(logGroupName=GROUP, logStreamName="one")
        # Moto takes a pattern of several phrases for a single one.
        self.instead["filter_log_events"] = lambda filterPattern, **request: self.logs.filter_log_events(**request)  # noqa: N803

    def client(self, service: str, endpoint: str, region: str) -> Client:
        self.asked.append(service)
        return Client(client(service), self.instead)

    def put(self, name: str, entry: object, **more: Any) -> None:
        text = entry if isinstance(entry, str) else json.dumps(entry)
        self.ssm.put_parameter(Name=f"{PATH}/{name}", Value=text, Type="SecureString", **more)

    def entry(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text(name))
        return found

    def text(self, name: str) -> str:
        found: str = self.ssm.get_parameter(Name=f"{PATH}/{name}", WithDecryption=True)["Parameter"]["Value"]
        return found

    def secrets(self, name: str) -> list[str]:
        return [secret.value for secret in Source.parse(name, self.text(name)).secrets]

    def audit(self) -> list[dict[str, Any]]:
        items = self.dynamodb.scan(TableName=AUDIT)["Items"]
        return sorted((plain(item) for item in items), key=lambda item: str(item["sk"]))

    def versions(self) -> int:
        """How many times anything was written."""
        parameters = self.ssm.describe_parameters()["Parameters"]
        return sum(int(parameter["Version"]) for parameter in parameters)

    def log(self, message: str, **more: Any) -> None:
        now = int(datetime.now(UTC).timestamp() * 1000)
        line = {"service": "ingress", "message": message, "timestamp": now, "provider": "github", **more}
        self.logs.put_log_events(
            logGroupName=GROUP, logStreamName="one", logEvents=[{"timestamp": now, "message": json.dumps(line)}]
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with mock_aws():
        world = World()
        monkeypatch.setattr(stacks, "client", world.client)
        monkeypatch.setattr(command, "stack_of", lambda _: Stack("dev", REGION, OUTPUTS))
        monkeypatch.setattr(DoorLog, "of", lambda stack: DoorLog(stack.client("logs"), GROUP))
        yield world


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A stage of which nobody must ask anything: the services that were asked for."""
    asked: list[str] = []

    def client(service: str, *_: str) -> None:
        asked.append(service)
        raise AssertionError(f"{service} was asked for")

    monkeypatch.setattr(stacks, "client", client)
    monkeypatch.setattr(command, "stack_of", lambda _: Stack("dev", REGION, OUTPUTS))
    return asked


@pytest.fixture
def secret_file(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    return str(path)


@pytest.fixture
def other_file(tmp_path: Path) -> str:
    path = tmp_path / "other"
    path.write_text(OTHER)
    return str(path)


def ago(**span: float) -> str:
    return (datetime.now(UTC) - timedelta(**span)).isoformat()


def made(*secrets: tuple[str, str], **more: Any) -> dict[str, Any]:
    listed = [{"secret": secret, **({"created_at": created} if created else {})} for secret, created in secrets]
    return {"tenant": "acme", "provider": "github", "flow": "support", "secrets": listed, **more}


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def everything_but_the_store(world: World, capsys: pytest.CaptureFixture[str]) -> str:
    told = capsys.readouterr()
    return told.out + told.err + json.dumps(world.audit()) + json.dumps(world.ssm.describe_parameters(), default=str)


# ----------------------------------------------------------------------------------------------------------------- add


def test_a_source_that_is_added_is_one_that_ingress_can_use(
    world: World, secret_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["source", "add", "shop", *BASICS, "--secret-file", secret_file, *WHY]) == ExitCode.OK
    source = endpoint_of("shop", world.text("shop")).source
    assert (source.tenant, source.provider, source.flow, source.state) == ("acme", "github", "support", "active")
    assert [secret.value for secret in source.secrets] == [SECRET]
    created = datetime.fromisoformat(source.secrets[0].created_at)
    assert created.tzinfo is not None
    assert abs(datetime.now(UTC) - created) < timedelta(minutes=5)
    parameter = world.ssm.describe_parameters()["Parameters"][0]
    assert (parameter["Type"], parameter["Description"]) == ("SecureString", "a new shop")
    assert SECRET not in everything_but_the_store(world, capsys)


def test_every_option_becomes_a_part_of_the_entry(world: World, secret_file: str) -> None:
    arguments = ["--provider", "generic-hmac", "--tenant", "acme", "--flow", "support", "--secret-file", secret_file]
    arguments += ["--identity", "/order/id", "--identity", "/order/version", "--state", "held"]
    arguments += ["--throttle", "2.5/10", "--expected-gap", "1h", "--repeat-window", "10m"]
    arguments += ["--public-url", "https://hooks.example.com/shop", "--option", "header=X-Signature"]
    arguments += ["--option", "prefix=sha256=", "--fields", "text=/message/body", "--fields", "author=/from"]
    assert run(["source", "add", "shop", *arguments, *WHY]) == ExitCode.OK
    entry = world.entry("shop")
    del entry["secrets"]
    assert entry == {
        "tenant": "acme",
        "provider": "generic-hmac",
        "flow": "support",
        "identity": {"pointers": ["/order/id", "/order/version"]},
        "state": "held",
        "throttle": {"rate": 2.5, "burst": 10},
        "expected_gap_seconds": 3600,
        "repeat_window_seconds": 600,
        "public_url": "https://hooks.example.com/shop",
        "scheme": {"header": "X-Signature", "prefix": "sha256="},
        "fields": {"text": "/message/body", "author": "/from"},
    }


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("window", "window"),
        ("header:X-Event-Id", {"header": "X-Event-Id"}),
        ("header:x-hook-id:covered", {"header": "x-hook-id", "covered": True}),
    ],
)
def test_an_identity_is_said_in_one_word(said: str, kept: object) -> None:
    assert sources.identity_of([said]) == kept


def test_what_is_said_goes_before_the_file(world: World, secret_file: str, tmp_path: Path) -> None:
    path = tmp_path / "entry.json"
    path.write_text(json.dumps({"tenant": "other", "provider": "github", "flow": "support", "fields": {"text": "/a"}}))
    arguments = ["--from-file", str(path), "--tenant", "acme", "--fields", "author=/b", "--secret-file", secret_file]
    assert run(["source", "add", "shop", *arguments, *WHY]) == ExitCode.OK
    entry = world.entry("shop")
    assert entry["tenant"] == "acme"
    assert entry["fields"] == {"text": "/a", "author": "/b"}


def test_a_file_may_hold_the_secrets_and_each_gets_a_date(world: World, tmp_path: Path) -> None:
    path = tmp_path / "entry.json"
    path.write_text(json.dumps(made((SECRET, ""), (OTHER, "2026-01-31"))))
    assert run(["source", "add", "shop", "--from-file", str(path), *WHY]) == ExitCode.OK
    first, second = Source.parse("shop", world.text("shop")).secrets
    assert sources.age_days(first, sources.moment_ms(ago()) or 0) == 0
    assert second.created_at == "2026-01-31"


def test_a_secret_that_is_made_here_is_printed_once_and_is_what_the_provider_takes(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    for provider in ("github", "standard-webhooks", "generic-hmac"):
        arguments = ["--provider", provider, "--tenant", "acme", "--flow", "support", "--generate"]
        options = ["--option", "header=x-signature"] if provider == "generic-hmac" else []
        assert run(["source", "add", provider, *arguments, *options, *WHY]) == ExitCode.OK
        told = capsys.readouterr()
        (secret,) = world.secrets(provider)
        assert told.out == secret + "\n"
        assert len(secret) >= 32
        assert secret not in told.err + json.dumps(world.audit())


SHARED = [name for name, row in PROVIDERS.items() if not isinstance(row.scheme, PublicKeySignature)]


@pytest.mark.parametrize("provider", SHARED)
def test_a_secret_that_is_made_here_is_one_that_the_provider_can_use(provider: str) -> None:
    options = {"header": "x-signature"} if provider == "generic-hmac" else {}
    secret = sources.new_secret(provider, options)
    entry = {"tenant": "a", "provider": provider, "flow": "support", "secrets": [{"secret": secret}], "scheme": options}
    assert endpoint_of("shop", json.dumps(entry)).source.secrets[0].value == secret
    assert secret != sources.new_secret(provider, options)


@pytest.mark.parametrize("encoding", ["text", "base64", "hex"])
def test_a_secret_is_made_in_the_encoding_that_the_source_asks_for(world: World, encoding: str) -> None:
    arguments = ["--provider", "generic-hmac", "--tenant", "acme", "--flow", "support", "--generate"]
    options = ["--option", "header=x-signature", "--option", f"secret_encoding={encoding}"]
    assert run(["source", "add", "shop", *arguments, *options, *WHY]) == ExitCode.OK
    assert len(world.secrets("shop")[0]) in (40, 44)


def test_the_source_of_the_stages_own_event_is_made_by_one_command_and_its_secret_is_shown_to_nobody(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(shlex.split(ADD_SYNTHETIC)[1:]) == ExitCode.OK
    made = delivery(world.text("synthetic"), "ab" * 16, 1_800_000_000_000)
    endpoint = endpoint_of("synthetic", world.text("synthetic"))
    assert endpoint.source.flow == "synthetic"
    assert made.headers["webhook-signature"].startswith("v1,")
    (secret,) = world.secrets("synthetic")
    assert secret not in everything_but_the_store(world, capsys)


@pytest.mark.parametrize(("name", "flow"), [("shop", "synthetic"), ("synthetic", "support")])
def test_no_other_source_passes_for_the_stages_own(world: World, name: str, flow: str) -> None:
    """What it sent would be left out of every count."""
    arguments = ["--provider", "standard-webhooks", "--tenant", "acme", "--flow", flow, "--generate"]
    assert run(["source", "add", name, *arguments, *WHY]) == ExitCode.REFUSED
    assert world.versions() == 0


def test_no_secret_is_made_where_the_sender_keeps_a_private_key(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--provider", "sendgrid", "--tenant", "acme", "--flow", "support", "--generate"]
    assert run(["source", "add", "shop", *arguments, *WHY]) == ExitCode.REFUSED
    assert "public key" in capsys.readouterr().err
    assert world.versions() == 0


def test_a_secret_is_read_from_standard_input(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin(monkeypatch, SECRET.encode() + b"\r\n")
    assert run(["source", "add", "shop", *BASICS, "--secret-stdin", *WHY]) == ExitCode.OK
    assert world.secrets("shop") == [SECRET]
    assert SECRET not in everything_but_the_store(world, capsys)


def test_a_source_that_is_there_is_only_replaced_on_request(
    world: World, secret_file: str, other_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world.put("shop", made((SECRET, ago(days=9)), state="held"))
    assert run(["source", "add", "shop", *BASICS, "--secret-file", other_file, *WHY]) == ExitCode.REFUSED
    assert "--replace" in capsys.readouterr().err
    assert (world.secrets("shop"), world.audit()) == ([SECRET], [])
    assert run(["source", "add", "shop", *BASICS, "--secret-file", other_file, "--replace", *WHY]) == ExitCode.OK
    assert world.secrets("shop") == [OTHER]
    assert "state" not in world.entry("shop")


def test_a_replacement_without_a_secret_keeps_what_is_secret(world: World) -> None:
    entry = made((SECRET, "2026-01-01"), (OTHER, ""))
    world.put("shop", entry)
    assert run(["source", "add", "shop", *BASICS, "--throttle", "5/5", "--replace", *WHY]) == ExitCode.OK
    assert world.entry("shop") == {**entry, "throttle": {"rate": 5, "burst": 5}}


def test_what_is_shown_of_an_entry_makes_it_again_but_for_what_is_said_anew(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = made(
        (SECRET, ago()), state="held", fields={"text": "/note"}, identity="window", throttle={"rate": 9, "burst": 9}
    )
    world.put("shop", entry)
    assert run(["source", "show", "shop", "--json"]) == ExitCode.OK
    path = tmp_path / "entry.json"
    path.write_text(json.dumps(json.loads(capsys.readouterr().out)["entry"]))
    assert (
        run(["source", "add", "shop", "--replace", "--from-file", str(path), "--throttle", "5/20", *WHY]) == ExitCode.OK
    )
    assert world.entry("shop") == {**entry, "throttle": {"rate": 5, "burst": 20}}


@pytest.mark.parametrize("present", ["{broken", "[]", '{"tenant": "acme"}', "null"])
def test_a_malformed_entry_can_be_shown_and_replaced_and_is_not_edited(
    world: World, present: str, secret_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world.put("shop", present)
    assert run(["source", "show", "shop"]) == ExitCode.OK
    assert "ingress cannot use it" in capsys.readouterr().out
    for arguments in (["hold", "shop"], ["rotate", "shop", "--generate"], ["rotate", "shop", "--retire"]):
        assert run(["source", *arguments, *WHY]) == ExitCode.REFUSED
    assert run(["source", "guide", "shop"]) == ExitCode.REFUSED
    assert "--replace" in capsys.readouterr().err
    assert (world.text("shop"), world.audit()) == (present, [])
    assert run(["source", "add", "shop", *BASICS, "--secret-file", secret_file, "--replace", *WHY]) == ExitCode.OK
    assert world.secrets("shop") == [SECRET]
    assert "problem" in json.loads(world.audit()[0]["before_state"])


def test_a_malformed_entry_without_secrets_needs_one(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.put("shop", "{broken")
    assert run(["source", "add", "shop", *BASICS, "--replace", *WHY]) == ExitCode.REFUSED
    assert "no secrets to keep" in capsys.readouterr().err
    assert world.text("shop") == "{broken"


# ------------------------------------------------------------------------------------------------------- hostile input


LONG = "x" * 65
NAMES = ["a/b", "../shop", "/shop", "shop ", "", "shöp", "магазин", "sh\u202eop", "shop\n", LONG, "a.b", "*", "%2F"]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_name_that_no_source_can_bear_is_refused_before_anybody_is_asked(
    asked: list[str], secret_file: str, name: str
) -> None:
    for verb in ("add", "rotate", "hold", "disable", "enable", "show", "guide"):
        arguments = {"add": [*BASICS, "--secret-file", secret_file], "rotate": ["--generate"]}.get(verb, [])
        why = WHY if verb not in ("show", "guide") else []
        assert run(["source", verb, *arguments, *why, "--", name]) == ExitCode.REFUSED
    assert asked == []


HOSTILE_ARGUMENTS = {
    "no provider": ["--tenant", "acme", "--flow", "support"],
    "an unknown provider": ["--provider", "githup", "--tenant", "acme", "--flow", "support"],
    "an unknown flow": ["--provider", "github", "--tenant", "acme", "--flow", "suport"],
    "a tenant of another shape": ["--provider", "github", "--tenant", "a/b", "--flow", "support"],
    "an option of a scheme that takes none": [*BASICS, "--option", "header=x"],
    "an option that is no pair": [*BASICS, "--option", "header"],
    "a field that is no pointer": [*BASICS, "--fields", "text=message"],
    "a field twice": [*BASICS, "--fields", "text=/a", "--fields", "text=/b"],
    "an identity that is none": [*BASICS, "--identity", "message_id"],
    "an identity of two kinds": [*BASICS, "--identity", "header:x", "--identity", "/id"],
    "a header that is covered by nothing": [*BASICS, "--identity", "header:x-id:covered"],
    "a throttle of nothing": [*BASICS, "--throttle", "0/10"],
    "a throttle without a burst": [*BASICS, "--throttle", "10"],
    "a throttle that is no number": [*BASICS, "--throttle", "nan/10"],
    "a throttle beyond numbers": [*BASICS, "--throttle", "9" * 400 + "/10"],
    "a gap without a unit": [*BASICS, "--expected-gap", "3600"],
    "a gap of years": [*BASICS, "--expected-gap", "9999d"],
    "an address with a password": [*BASICS, "--public-url", "https://u:p@example.com/"],
    "an address of a file": [*BASICS, "--public-url", "file:///etc/passwd"],
    "a file that is not there": [*BASICS, "--from-file", "/nowhere/entry.json"],
}


@pytest.mark.parametrize("what", HOSTILE_ARGUMENTS)
def test_what_ingress_could_not_use_is_refused_before_anybody_is_asked(
    asked: list[str], secret_file: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*HOSTILE_ARGUMENTS[what], "--secret-file", secret_file]
    assert run(["source", "add", "shop", *arguments, *WHY]) == ExitCode.REFUSED
    assert asked == []
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.strip()
    assert SECRET not in told.err


SECRETS = {
    "nothing": b"",
    "a line's end only": b"\n",
    "two lines": b"one\ntwo\n",
    "a line's end before another": b"one\n\n",
    "a NUL": b"one\x00two",
    "an escape": b"one\x1b[2Jtwo",
    "space behind it": b"one \n",
    "no text": b"\xff\xfe\xfa",
    "half a megabyte": b"x" * 500_000,
    "more than a secret may have": b"x" * 4097,
}


@pytest.mark.parametrize("what", SECRETS)
@pytest.mark.parametrize("verb", ["add", "rotate"])
def test_a_secret_that_nobody_can_sign_with_is_refused_and_not_quoted(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    what: str,
    verb: str,
) -> None:
    world.put("shop", made((SECRET, ago())))
    path = tmp_path / "secret"
    path.write_bytes(SECRETS[what])
    said = [*BASICS, "--replace"] if verb == "add" else []
    for arguments in (["--secret-file", str(path)], ["--secret-stdin"]):
        stdin(monkeypatch, SECRETS[what])
        assert run(["source", verb, "shop", *said, *arguments, *WHY]) == ExitCode.REFUSED
    assert (world.versions(), world.audit()) == (1, [])
    told = capsys.readouterr()
    assert told.out == ""
    assert "two" not in told.err
    assert "xxx" not in told.err


FILES = {
    "no JSON": b"{",
    "no object": b"[]",
    "no text": b"\xff\xfe",
    "a bomb of brackets": b"[" * 60_000,
    "a bomb inside": b'{"fields": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
    "a huge number": b'{"repeat_window_seconds": ' + b"9" * 50_000 + b"}",
    "a huge file": b'{"tenant": "' + b"x" * 70_000 + b'"}',
    "a tenant that is a list": b'{"tenant": ["acme"]}',
    "fields that are a text": b'{"fields": "text"}',
    "a scheme of numbers": b'{"scheme": {"header": 1}}',
    "secrets that are a text": b'{"secrets": "text"}',
    "secrets of texts": b'{"secrets": ["text"]}',
    "a secret of half a character": b'{"secrets": [{"secret": "\\ud800"}]}',
    "nine secrets": json.dumps({"secrets": [{"secret": f"s{number}"} for number in range(9)]}).encode(),
    "a state of its own": b'{"state": "paused"}',
    "a state that is a list": b'{"state": []}',
    "a key that is misspelt": b'{"secret": "hidden"}',
    "infinity": b'{"throttle": {"rate": Infinity, "burst": 1}}',
    "a parameter's size and more": json.dumps(
        {"fields": {f"f{number}": "/" + "x" * 200 for number in range(60)}}
    ).encode(),
}


@pytest.mark.parametrize("what", FILES)
def test_a_file_that_makes_no_source_is_refused_before_anybody_is_asked(
    asked: list[str], tmp_path: Path, secret_file: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "entry.json"
    path.write_bytes(FILES[what])
    # What the file says is not to be covered up by what is said beside it.
    said = [] if "tenant" in what else ["--tenant", "acme"]
    arguments = ["--provider", "github", "--flow", "support", *said, "--from-file", str(path)]
    for secret in (["--secret-file", secret_file], ["--generate"], []):
        assert run(["source", "add", "shop", *arguments, *secret, *WHY]) == ExitCode.REFUSED
    assert asked == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501])
def test_nothing_is_changed_without_a_reason_that_can_be_kept(asked: list[str], secret_file: str, reason: str) -> None:
    for verb in ("add", "rotate", "hold", "disable", "enable"):
        arguments = {"add": [*BASICS, "--secret-file", secret_file], "rotate": ["--generate"]}.get(verb, [])
        assert run(["source", verb, "shop", *arguments, "--reason", reason]) == ExitCode.REFUSED
        assert run(["source", verb, "shop", *arguments]) == ExitCode.USAGE
    assert asked == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["add", "shop", *BASICS],
        ["add", "shop", *BASICS, "--generate", "--secret-stdin"],
        ["add", "shop", *BASICS, "--generate", "--secret-file", "x"],
        ["rotate", "shop"],
        ["rotate", "shop", "--generate", "--secret-stdin"],
        ["rotate", "shop", "--retire", "--retire-created-before", "2026-01-01"],
        ["rotate", "shop", "--retire-created-before", "last year"],
    ],
)
def test_what_cannot_be_meant_is_refused_before_anybody_is_asked(asked: list[str], arguments: list[str]) -> None:
    assert run(["source", *arguments, *WHY]) == ExitCode.REFUSED
    assert asked == []


def test_a_source_that_is_not_there_is_said_not_to_be(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("rotate", "hold", "disable", "enable", "show", "guide"):
        arguments = ["--generate"] if verb == "rotate" else []
        why = WHY if verb not in ("show", "guide") else []
        assert run(["source", verb, "shop", *arguments, *why]) == ExitCode.REFUSED
        assert "no source 'shop'" in capsys.readouterr().err
    assert (world.versions(), world.audit()) == (0, [])


def test_an_entry_of_over_four_kilobytes_goes_into_the_larger_tier_and_that_is_said(
    world: World, secret_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "entry.json"
    path.write_text(json.dumps({"fields": {f"f{number}": "/" + "x" * 200 for number in range(25)}}))
    arguments = [*BASICS, "--from-file", str(path), "--secret-file", secret_file]
    assert run(["source", "add", "shop", *arguments, *WHY]) == ExitCode.OK
    assert "advanced tier" in capsys.readouterr().err
    assert world.ssm.describe_parameters()["Parameters"][0]["Tier"] == "Advanced"


# ------------------------------------------------------------------------------------------------------------ on record


def test_a_change_is_on_record_with_who_why_before_and_after_and_without_a_secret(
    world: World, other_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world.put("shop", made((SECRET, "2026-03-01T10:00:00+02:00")))
    assert run(["source", "rotate", "shop", "--secret-file", other_file, *WHY]) == ExitCode.OK
    (event,) = world.audit()
    assert event["pk"] == "source#shop"
    assert event["event_type"] == "platform.source.changed"
    assert (event["tenant"], event["reason"]) == ("acme", "a new shop")
    assert event["actor"].startswith("arn:aws:sts::")
    before, after = json.loads(event["before_state"]), json.loads(event["after_state"])
    same = {"tenant": "acme", "provider": "github", "flow": "support", "state": "active"}
    assert before == {**same, "secrets": 1, "created_at": ["2026-03-01T08:00:00Z"], "version": 1}
    assert after["created_at"][1:] == before["created_at"]
    assert (after["secrets"], after["version"], after["changed"]) == (2, 2, ["secrets"])
    seen = everything_but_the_store(world, capsys)
    assert SECRET not in seen
    assert OTHER not in seen


def failing(error: Exception) -> Callable[..., Any]:
    def fail(**_: object) -> Any:
        raise error

    return fail


UNREACHABLE = EndpointConnectionError(endpoint_url="https://nowhere.example")
DENIED = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "Operation")


@pytest.mark.parametrize(
    ("error", "code"), [(DENIED, ExitCode.REFUSED), (UNREACHABLE, ExitCode.UNREACHABLE)], ids=["denied", "unreachable"]
)
@pytest.mark.parametrize("operation", ["put_item", "get_caller_identity"])
def test_without_a_record_or_a_name_for_it_nothing_is_changed(
    world: World, capsys: pytest.CaptureFixture[str], operation: str, error: Exception, code: ExitCode
) -> None:
    world.put("shop", made((SECRET, ago())))
    world.instead[operation] = failing(error)
    assert run(["source", "rotate", "shop", "--generate", *WHY]) == code
    assert world.secrets("shop") == [SECRET]
    assert capsys.readouterr().out == ""


def test_a_change_that_was_put_on_record_and_not_made_is_told_there_too(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.put("shop", made((SECRET, ago())))
    world.instead["put_parameter"] = failing(DENIED)
    assert run(["source", "rotate", "shop", "--generate", *WHY]) == ExitCode.REFUSED
    told = capsys.readouterr()
    assert told.out == ""
    assert "was not written: AccessDeniedException" in told.err
    first, second = world.audit()
    assert (second["recovery_status"], second["failure_type"]) == ("not_written", "AccessDeniedException")
    assert first["request_id"] == second["request_id"]
    assert second["severity"] == "error"
    assert first["at_ms"] < second["at_ms"]


def test_a_write_whose_answer_was_lost_counts_as_made(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    def lost(**request: Any) -> Any:
        world.ssm.put_parameter(**request)
        raise ReadTimeoutError(endpoint_url="https://ssm.example")

    world.instead["put_parameter"] = lost
    assert run(["source", "add", "shop", *BASICS, "--generate", *WHY]) == ExitCode.OK
    assert [capsys.readouterr().out.strip()] == world.secrets("shop")
    assert len(world.audit()) == 1


def test_a_write_of_which_nothing_is_known_is_told_as_that(
    world: World, secret_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reads: list[object] = []

    def once(**request: Any) -> Any:
        reads.append(request)
        if len(reads) > 1:
            raise UNREACHABLE
        return world.ssm.get_parameter(**request)

    world.instead |= {"put_parameter": failing(UNREACHABLE), "get_parameter": once}
    arguments = [*BASICS, "--secret-file", secret_file]
    assert run(["source", "add", "shop", *arguments, *WHY]) == ExitCode.UNREACHABLE
    assert "may or may not have been written" in capsys.readouterr().err
    assert [event.get("recovery_status") for event in world.audit()] == [None, "unknown"]


def test_a_source_that_somebody_else_adds_at_the_same_time_is_not_overwritten(
    world: World, secret_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def late(**request: Any) -> Any:
        if not world.versions():
            world.put("shop", made((OTHER, ago())))
        return world.ssm.put_parameter(**request)

    world.instead["put_parameter"] = late
    arguments = [*BASICS, "--secret-file", secret_file]
    assert run(["source", "add", "shop", *arguments, *WHY]) == ExitCode.REFUSED
    assert world.secrets("shop") == [OTHER]
    assert "ParameterAlreadyExists" in capsys.readouterr().err


def test_a_change_that_meets_another_is_seen_by_its_version_and_told(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.put("shop", made((SECRET, ago())))

    def late(**request: Any) -> Any:
        if world.versions() == 1:
            world.put("shop", made((OTHER, ago())), Overwrite=True)
        return world.ssm.put_parameter(**request)

    world.instead["put_parameter"] = late
    assert run(["source", "rotate", "shop", "--generate", *WHY]) == ExitCode.REFUSED
    told = capsys.readouterr()
    assert told.out.strip() in world.secrets("shop")  # it is in force, so it must be known
    assert "version 3 where 2 was expected" in told.err
    assert "OVERWROTE" in world.audit()[-1]["error"]


def test_a_parameter_under_a_key_of_the_accounts_own_stays_under_it(world: World) -> None:
    asked: list[dict[str, Any]] = []

    def put(**request: Any) -> Any:
        asked.append(request)
        return world.ssm.put_parameter(**request)

    world.put("shop", made((SECRET, ago())), KeyId="alias/own")
    world.put("usual", made((SECRET, ago())))
    world.instead["put_parameter"] = put
    for name in ("shop", "usual"):
        assert run(["source", "hold", name, *WHY]) == ExitCode.OK
    # Moto keeps a parameter's key by itself; AWS takes the account's default one where none is said.
    assert [request.get("KeyId") for request in asked] == ["alias/own", None]


# -------------------------------------------------------------------------------------------------------------- rotate


def test_a_rotation_adds_the_new_secret_first_and_retires_the_old_ones_later(
    world: World, other_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world.put("shop", made((SECRET, ago(days=400)), fields={"text": "/note"}))
    assert run(["source", "rotate", "shop", "--secret-file", other_file, *WHY]) == ExitCode.OK
    assert world.secrets("shop") == [OTHER, SECRET]
    assert world.entry("shop")["fields"] == {"text": "/note"}
    assert run(["source", "rotate", "shop", "--retire", *WHY]) == ExitCode.OK
    assert world.secrets("shop") == [OTHER]
    assert run(["source", "rotate", "shop", "--retire", *WHY]) == ExitCode.OK
    assert "nothing to retire" in capsys.readouterr().err
    assert (world.versions(), len(world.audit())) == (3, 2)


def test_the_newest_secret_is_the_one_that_was_created_last_wherever_it_stands(world: World) -> None:
    world.put("shop", made(("older", ago(days=9)), ("newest", ago(days=1)), ("undated", "")))
    assert run(["source", "rotate", "shop", "--retire", *WHY]) == ExitCode.OK
    assert world.secrets("shop") == ["newest"]


def test_which_of_several_undated_secrets_is_the_newest_is_not_guessed(world: World) -> None:
    world.put("shop", made(("one", ""), ("two", "some day")))
    assert run(["source", "rotate", "shop", "--retire", *WHY]) == ExitCode.REFUSED
    assert world.secrets("shop") == ["one", "two"]


def test_secrets_from_before_a_day_are_retired_and_undated_ones_kept(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.put("shop", made(("new", "2026-06-01"), ("old", "2025-12-31T23:59:59Z"), ("undated", "")))
    assert run(["source", "rotate", "shop", "--retire-created-before", "2026-01-01", *WHY]) == ExitCode.OK
    assert world.secrets("shop") == ["new", "undated"]
    assert "1 retired, 1 without a date kept" in capsys.readouterr().err


def test_no_source_is_left_without_a_secret(world: World) -> None:
    world.put("shop", made((SECRET, "2025-01-01"), (OTHER, "2025-02-01")))
    assert run(["source", "rotate", "shop", "--retire-created-before", "2026-01-01", *WHY]) == ExitCode.REFUSED
    assert (world.secrets("shop"), world.audit()) == ([SECRET, OTHER], [])


def test_a_secret_that_is_known_to_strangers_is_cut_off_in_one_step(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.put("shop", made((SECRET, ago(days=3)), (OTHER, "")))
    assert run(["source", "rotate", "shop", "--generate", "--retire", *WHY]) == ExitCode.OK
    told = capsys.readouterr()
    assert world.secrets("shop") == [told.out.strip()]
    assert "what was retired is still accepted for up to six minutes" in told.err
    assert world.versions() == 2


def test_an_addition_alone_does_not_speak_of_what_was_retired(
    world: World, other_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world.put("shop", made((SECRET, ago())))
    assert run(["source", "rotate", "shop", "--secret-file", other_file, *WHY]) == ExitCode.OK
    assert "still accepted" not in capsys.readouterr().err


def test_the_same_secret_is_not_added_twice_nor_a_ninth_one(world: World, secret_file: str, other_file: str) -> None:
    world.put("shop", made((SECRET, ago())))
    assert run(["source", "rotate", "shop", "--secret-file", secret_file, *WHY]) == ExitCode.REFUSED
    world.put("full", made(*((f"s{number}", ago()) for number in range(8))))
    assert run(["source", "rotate", "full", "--secret-file", other_file, *WHY]) == ExitCode.REFUSED
    assert world.audit() == []


# --------------------------------------------------------------------------------------------------------------- states


def test_a_source_is_held_disabled_and_enabled_and_keeps_all_else(world: World) -> None:
    entry = made((SECRET, ago()), throttle={"rate": 1, "burst": 2})
    world.put("shop", entry)
    for verb, state in (("hold", "held"), ("disable", "disabled"), ("enable", "active")):
        assert run(["source", verb, "shop", *WHY]) == ExitCode.OK
        assert world.entry("shop") == {**entry, "state": state}
    states = [json.loads(event["after_state"])["state"] for event in world.audit()]
    assert states == ["held", "disabled", "active"]


def test_who_stops_a_source_hears_what_becomes_of_its_events_and_what_to_type_next(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.put("shop", made((SECRET, ago())))
    assert run(["source", "disable", "shop", *WHY]) == ExitCode.OK
    assert "may never send those events again" in capsys.readouterr().err
    assert run(["source", "hold", "shop", *WHY]) == ExitCode.OK
    told = capsys.readouterr().err
    assert 'holdfast source enable shop --reason "..."' in told
    assert 'holdfast replay --failure-code HELD --source shop --reason "..."' in told


def test_a_source_that_is_in_the_state_already_is_not_written(world: World) -> None:
    world.put("shop", made((SECRET, ago())))
    assert run(["source", "enable", "shop", *WHY]) == ExitCode.OK
    assert (world.versions(), world.audit()) == (1, [])


# -------------------------------------------------------------------------------------------------------- what is shown


def test_a_source_is_shown_with_ages_activity_problems_and_changes_and_without_a_secret(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = made((SECRET, ago(days=200)), (OTHER, "n'importe quoi"), throttle={"rate": 5, "burst": 9})
    world.put("shop", {**entry, "expected_gap_seconds": 7200, "fields": {"text": "/note"}})
    world.log(ACCEPTED, source="shop", secret_number=2)
    world.log(REFUSED, source="shop", reason="bad_signature", why="mismatch")
    world.log(REFUSED, source="shop-eu", reason="stale")
    assert run(["source", "hold", "shop", "--reason", "duplicates at theirs"]) == ExitCode.OK
    capsys.readouterr()
    assert run(["source", "show", "shop"]) == ExitCode.OK
    told = capsys.readouterr()
    for words in (
        "https://api.example.com/webhooks/shop",
        "held",
        "github",
        "acme",
        "support",
        "5/s, 9 at once",
        "2h",
        "2: 200 d (old), of unknown age",
        "secret 1 is 200 days old",
        "secret 2 has no date of creation",
        "signed with secret 2",
        "bad_signature (mismatch)",
        "duplicates at theirs",
        "arn:aws:sts::",
    ):
        assert words in told.out, words
    assert told.out.splitlines()[0].split() == ["source", "shop"]
    assert run(["source", "show", "shop", "--json"]) == ExitCode.OK
    document = json.loads(capsys.readouterr().out)
    assert (document["state"], document["secret_ages_days"], document["version"]) == ("held", [200, None], 2)
    assert document["last_refusal"]["reason"] == "bad_signature"
    assert document["entry"]["fields"] == {"text": "/note"}
    assert document["changes"][0]["reason"] == "duplicates at theirs"
    seen = told.out + told.err + json.dumps(document)
    assert SECRET not in seen
    assert OTHER not in seen


def test_every_member_of_an_entry_is_known_here_and_what_is_secret_of_it_never_shown(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert source_module._KEYS == sources.ENTRY_KEYS
    hidden = {one.name for one in fields(Source) if not one.repr}
    assert hidden | {"secrets"} == sources.SECRET_KEYS
    world.put("shop", {**made((SECRET, ago())), "provider": "meta", "verify_token": OTHER})
    assert run(["source", "hold", "shop", *WHY]) == ExitCode.OK
    assert run(["source", "show", "shop", "--json"]) == ExitCode.OK
    seen = everything_but_the_store(world, capsys)
    assert [secret for secret in (SECRET, OTHER) if secret in seen] == []
    again = ["source", "add", "shop", "--tenant", "acme", "--flow", "support", "--replace", *WHY, "--provider"]
    assert run([*again, "meta"]) == ExitCode.OK
    assert (world.entry("shop")["verify_token"], world.secrets("shop")) == (OTHER, [SECRET])
    assert run([*again, "github"]) == ExitCode.OK  # which asks for no such token
    assert ("verify_token" in world.entry("shop"), world.secrets("shop")) == (False, [SECRET])


def test_whatever_a_malformed_entry_holds_is_not_shown(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.put("typo", {**made((OTHER, ago())), "secret": SECRET})
    world.put("token", made((SECRET, SECRET)))
    for arguments in (["list"], ["list", "--json"], ["show", "typo"], ["show", "typo", "--json"], ["show", "token"]):
        assert run(["source", *arguments]) == ExitCode.OK
        told = capsys.readouterr()
        assert SECRET not in told.out + told.err
    assert run(["source", "hold", "token", *WHY]) == ExitCode.OK
    assert SECRET not in everything_but_the_store(world, capsys)


def test_a_silence_that_is_longer_than_expected_is_a_problem(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put("shop", {**made((SECRET, ago())), "expected_gap_seconds": 60})
    world.log(ACCEPTED, source="shop")
    later = sources.moment_ms(ago(hours=-2))
    monkeypatch.setattr(command.SystemClock, "now_ms", lambda _: later)  # type: ignore[attr-defined]  # imported there
    assert run(["source", "show", "shop"]) == ExitCode.OK
    assert "silent for longer than the 1m" in capsys.readouterr().out


def test_all_sources_are_listed_by_name_each_with_what_is_wrong(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        world.put(f"shop-{number:02d}", made((SECRET, ago(days=number))))
    world.put("broken", "{")
    world.put("lost", {**made((SECRET, ago())), "flow": "outreach"})
    world.log(ACCEPTED, source="shop-03")
    assert run(["source", "list", "--json"]) == ExitCode.OK
    documents = {document["source"]: document for document in json.loads(capsys.readouterr().out)}
    assert list(documents) == ["broken", "lost", *(f"shop-{number:02d}" for number in range(12))]
    assert "cannot use it" in documents["broken"]["problems"][0]
    assert "there is no flow outreach" in documents["lost"]["problems"][0]
    assert documents["shop-03"]["last_event_ms"] is not None
    assert documents["shop-04"]["last_event_ms"] is None
    assert documents["shop-07"]["secret_ages_days"] == [7]
    assert run(["source", "list"]) == ExitCode.OK
    told = capsys.readouterr().out
    assert "shop-11" in told
    assert SECRET not in told


def test_a_list_is_there_even_where_the_log_may_not_be_read(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.put("shop", made((SECRET, ago())))
    world.instead["filter_log_events"] = failing(DENIED)
    assert run(["source", "list"]) == ExitCode.OK
    told = capsys.readouterr()
    assert "shop" in told.out
    assert "AccessDeniedException" in told.err


def test_an_empty_stage_lists_nothing_and_says_how_to_begin(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["source", "list"]) == ExitCode.OK
    told = capsys.readouterr()
    assert told.out == ""
    assert "holdfast source add" in told.err


def test_the_guide_is_printed_for_the_address_that_the_sender_was_given(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.put("shop", made((SECRET, ago())))
    world.put("proxied", {**made((SECRET, ago())), "public_url": "https://hooks.example.com/x"})
    assert run(["source", "guide", "shop"]) == ExitCode.OK
    told = capsys.readouterr().out
    assert "`POST https://api.example.com/webhooks/shop`" in told
    assert SECRET not in told
    assert run(["source", "guide", "proxied"]) == ExitCode.OK
    assert "`POST https://hooks.example.com/x`" in capsys.readouterr().out
