"""The command line without a stack: exit codes, refusals before anything is written, what a terminal gets to see."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from ops import stack as stacks
from ops.cli import events, run, switches
from ops.cli.console import ExitCode, clean, time_of
from ops.stack import Stack, StackNotFound, Wanted, find

STATE = {
    "format": 1,
    "status": "up",
    "stage": "local",
    "region": "us-east-1",
    "endpoint": "http://127.0.0.1:9",
    "simulator_url": "http://127.0.0.1:10",
    "outputs": {"ApiId": "abc", "SwitchesPath": "/holdfast/local/switches"},
}


@pytest.fixture
def no_stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment in which no stack runs; gives the path where its state would be."""
    path = tmp_path / "stack.json"
    for name in ("HOLDFAST_STAGE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOLDFAST_STACK_FILE", str(path))
    return path


@pytest.fixture
def stack_file(no_stack: Path) -> Path:
    """The state of a stack that is said to be up, at ports where nothing listens."""
    no_stack.write_text(json.dumps(STATE))
    return no_stack


@pytest.mark.parametrize("arguments", [["env"], ["events"], ["queue"], ["switch", "list"], ["send", "github"]])
def test_a_command_that_needs_a_stack_exits_with_3_when_there_is_none(
    no_stack: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run(arguments) == ExitCode.UNREACHABLE
    told = capsys.readouterr()
    assert told.out == ""
    assert "make up" in told.err


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["send"], ["replay"], ["switch", "set", "mode"], ["send", "github", "--count", "0"]]
)
def test_a_command_that_is_not_understood_exits_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == ExitCode.USAGE
    assert capsys.readouterr().out == ""


def test_help_exits_with_0_and_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == ExitCode.OK
    told = capsys.readouterr().out
    assert all(
        name in told
        for name in ("env", "send", "events", "queue", "replay", "switch", "verify", "integrations", "health")
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("auto_reply", "maybe"),
        ("auto_reply", "ON"),
        ("mode", "live; rm -rf"),
        ("limits/helpdesk", "2"),
        ("limits/helpdesk", "nan"),
        ("no_such_switch", "on"),
        ("disabled_integrations", "  "),
        ("flow/../mode", "live"),
        ("source/a b/mode", "live"),
        ("tenant/\u202e/mode", "live"),
        ("disabled_integrations", "helpdeks"),
        ("disabled_integrations", "helpdesk,none"),
        ("disabled_integrations", "intake"),
        ("flow/support/replay_blocked_integrations", "helpdesk,nobody"),
        ("limits/nobody", "0"),
        ("tenant/acme/limits/nobody", "0"),
        ("replay_blocked_integrations", "llm"),
        ("disabled_integrations", ", ,"),
    ],
)
def test_a_switch_value_that_nobody_could_read_is_refused_before_anything_is_written(
    stack_file: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a client was asked for")

    monkeypatch.setattr(stacks, "client", never)
    assert run(["switch", "set", name, value, "--reason", "test"]) in (ExitCode.REFUSED, ExitCode.USAGE)


@pytest.mark.parametrize(
    ("name", "value", "written"),
    [
        ("disabled_integrations", " helpdesk ", "helpdesk"),
        ("disabled_integrations", "none", "none"),
        ("replay_blocked_integrations", "helpdesk, intake", "helpdesk,intake"),
        ("source/limits/auto_reply", "off", "off"),
        ("limits/helpdesk", "0.5", "0.5"),
    ],
)
def test_a_switch_is_written_as_the_parameters_pattern_takes_it(
    stack_file: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, written: str
) -> None:
    kept: list[tuple[str, str]] = []

    def write(_stack: Stack, name: str, value: str, _reason: str) -> tuple[str | None, int]:
        kept.append((name, value))
        return None, 1

    monkeypatch.setattr(switches, "write", write)
    assert run(["switch", "set", name, value, "--reason", "test", "--direct"]) == ExitCode.OK
    assert kept == [(name, written)]


def test_a_replay_of_an_integration_that_does_not_exist_is_refused(
    stack_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", "--integration", "helpdeks", "--reason", "test"]) == ExitCode.REFUSED
    assert "helpdesk" in capsys.readouterr().err


def test_an_event_on_aws_is_asked_for_with_its_tenant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(events, "stack_of", lambda _: Stack("dev", "us-east-1", {}))
    assert run(["events", "shop:1"]) == ExitCode.REFUSED
    assert "--tenant" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["send", "github", "--text", "\udcff"], ["switch", "set", "mode", "live", "--reason", "\udcff"]]
)
def test_an_argument_that_is_no_text_is_not_understood(
    arguments: list[str], stack_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == ExitCode.USAGE
    assert "UTF-8" in capsys.readouterr().err


def test_an_endpoint_that_is_no_address_exits_with_3(no_stack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--endpoint", "nonsense", "env"]) == ExitCode.UNREACHABLE
    assert "nonsense" in capsys.readouterr().err


def test_a_switch_is_not_set_without_a_reason(stack_file: Path) -> None:
    assert run(["switch", "set", "auto_reply", "off", "--reason", "  "]) == ExitCode.REFUSED


def test_env_prints_one_json_document_without_a_secret(stack_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["env", "--json"]) == ExitCode.OK
    document = json.loads(capsys.readouterr().out)
    assert document["webhooks_url"] == "http://127.0.0.1:9/_aws/execute-api/abc/$default/webhooks/"
    assert not [name for name in document if "secret" in name.lower() or "key" in name.lower()]


def test_verify_reads_lines_and_exits_with_1_when_one_is_invalid(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    request = {
        "id": "k",
        "provider": "generic-apikey",
        "secret": "s3cret",
        "headers": {"x-api-key": "s3cret"},
        "body": "{}",
    }
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(request) + "\n"))
    assert run(["verify"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"id": "k", "verdict": "valid", "reason": None}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(request) + "\n\n{broken\n"))
    assert run(["verify", "--json"]) == ExitCode.REFUSED
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["verdict"] for line in lines] == ["valid", "invalid"]


def test_verify_of_a_file_that_is_not_there_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(tmp_path / "nothing")]) == ExitCode.REFUSED
    assert "cannot be read" in capsys.readouterr().err


def test_verify_explains_what_differs_as_json_and_to_people_as_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    request = {
        "id": "k\x1b[2J",
        "provider": "gitlab",
        "secret": "s3cret",
        "headers": {"X_Gitlab_Token": "s3cret"},
        "body": "{}",
    }
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(request) + "\n"))
    assert run(["verify", "--explain"]) == ExitCode.REFUSED
    (line,) = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [finding["code"] for finding in line["findings"]] == ["header_name"]
    assert "underscores" in line["findings"][0]["detail"]

    monkeypatch.setattr("ops.cli.verifying.is_terminal", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(request) + "\n"))
    assert run(["verify", "--explain"]) == ExitCode.REFUSED
    told = capsys.readouterr().out
    assert told.splitlines()[1].startswith("  header_name: `x-gitlab-token` is missing")
    assert told.splitlines()[2].startswith("    Fix: ")
    assert "\x1b" not in told
    assert "s3cret" not in told

    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(request) + "\n"))
    assert run(["verify", "--explain", "--json"]) == ExitCode.REFUSED
    assert json.loads(capsys.readouterr().out) == line


def test_what_strangers_wrote_cannot_steer_a_terminal() -> None:
    assert "\x1b" not in clean("github:\x1b]0;owned\x07\x1b[2J")
    assert "\n" not in clean("one\ntwo")
    assert clean("Grüße") == "Grüße"


def test_times_are_utc_and_no_time_is_empty() -> None:
    assert time_of(1_700_000_000_000) == "2023-11-14T22:13:20Z"
    assert time_of(0) == time_of(None) == ""


# -- finding a stack ------------------------------------------------------------------------------------------


def test_the_local_stack_is_found_by_its_state_file(stack_file: Path) -> None:
    found = find(Wanted(environ={"HOLDFAST_STACK_FILE": str(stack_file)}))
    assert found.is_local
    assert found.endpoint == STATE["endpoint"]
    assert found.output("ApiId") == "abc"


def test_an_endpoint_that_names_the_running_stack_finds_it_without_asking_anybody(stack_file: Path) -> None:
    environ = {"HOLDFAST_STACK_FILE": str(stack_file)}
    assert find(Wanted(endpoint="http://127.0.0.1:9/", environ=environ)).state_file == str(stack_file)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"status": "up"}', json.dumps({**STATE, "status": "starting"}), "\x00"]
)
def test_a_state_file_that_is_not_of_a_stack_that_is_up_is_no_stack(no_stack: Path, content: str) -> None:
    no_stack.write_text(content)
    with pytest.raises(StackNotFound, match="make"):
        find(Wanted(environ={"HOLDFAST_STACK_FILE": str(no_stack)}))


def test_an_output_that_the_stack_lacks_is_named() -> None:
    with pytest.raises(StackNotFound, match="LedgerTable"):
        Stack("dev", "us-east-1", {}).output("LedgerTable")


def test_a_stage_on_aws_posts_to_the_url_of_its_api() -> None:
    stack = Stack("dev", "eu-west-1", {"ApiUrl": "https://x.execute-api.eu-west-1.amazonaws.com/"})
    assert not stack.is_local
    assert stack.api_url == "https://x.execute-api.eu-west-1.amazonaws.com"
