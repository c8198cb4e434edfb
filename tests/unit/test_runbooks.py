"""What the runbooks tell people to type is understood, and what they point at is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import typer

from functions.core.recovery import Status
from functions.core.replay import Prediction
from functions.core.replay_job import Outcome
from functions.operator_api.problems import Code
from ops.cli import app

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "runbooks"
PAGES = sorted(path.name for path in FOLDER.glob("*.md"))
COMMANDS: Any = typer.main.get_command(app)


def typed(page: str) -> Iterator[str]:
    """Every call of `holdfast` on the page, in blocks and in sentences, without its comment."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", page, re.DOTALL | re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    spans = re.findall(r"`(holdfast [^`]+)`", re.sub(r"^ *```.*?^ *```", "", page, flags=re.DOTALL | re.MULTILINE))
    for text in [*lines, *spans]:
        if text.startswith("holdfast ") and not text.endswith("prod ..."):  # which stands for any command
            yield re.split(r"\s+#|\s+\|", " ".join(text.split()))[0].replace("...", "X")


def trouble_with(text: str) -> str:
    """What of a call nobody would understand; empty if all of it is."""
    words = shlex.split(text)[1:]
    command, seen = COMMANDS, {"--help": False}
    while True:
        default = getattr(command, "default_command", "")
        if default and (not words or words[0] not in command.commands):
            command = command.commands[default]
        seen |= {name: not option.is_flag for option in command.params for name in option.opts if name.startswith("-")}
        while words and words[0].startswith("-") and hasattr(command, "commands"):
            words = words[2:] if seen.get(words[0]) else words[1:]
        if not hasattr(command, "commands"):
            break
        if not words and command.invoke_without_command:
            break
        if not words or words[0] not in command.commands:
            return f"no such command: {words[:1]}"
        command, words = command.commands[words[0]], words[1:]
    unknown = [word for word in words if word.startswith("-") and word not in seen]
    return f"no such option: {unknown}" if unknown else ""


@pytest.mark.parametrize("page", PAGES)
def test_every_command_on_the_page_is_one_that_there_is(page: str) -> None:
    calls = list(typed((FOLDER / page).read_text()))
    assert len(calls) > 10
    assert {call: why for call in calls if (why := trouble_with(call))} == {}


@pytest.mark.parametrize(
    "call", ["holdfast queu", "holdfast source", "holdfast source show X --secret", "holdfast --x"]
)
def test_a_command_that_there_is_not_would_be_noticed(call: str) -> None:
    assert trouble_with(call)


@pytest.mark.parametrize("page", PAGES)
def test_every_page_and_section_that_is_pointed_at_is_there(page: str) -> None:
    text = (FOLDER / page).read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (FOLDER / target).is_file(), target
    elsewhere = re.findall(r"\[[\w-]+\.md\]\(([\w-]+\.md)\),\s+section (\d)", text)
    here = [(page, number) for number in re.findall(r"(?<!\),[ \n])section (\d)", text)]
    for name, number in elsewhere + here:
        assert f"\n## {number}. " in (FOLDER / name).read_text(), (name, number)


PARTS = ("Symptom", "It means", "Check", "Act", "Verify", "Undo", "Prevent")


def test_each_step_of_recovery_says_what_it_is_for_how_to_know_that_it_worked_and_the_way_back() -> None:
    """Whoever was woken reads one section, and finds in it all that the others have, in the same order (002.0)."""
    text = (FOLDER / "recovery-and-replay.md").read_text()
    sections = re.split(r"\n## (\d)\. ", text)[1:]
    assert [int(number) for number in sections[::2]] == list(range(1, 10))
    for number, section in zip(sections[::2], sections[1::2], strict=True):
        said = [part for part in re.findall(r"\*\*([A-Z][a-z ]+)\*\*[:,\s]", section) if part in PARTS]
        wanted = list(PARTS) if number != "9" else ["Act", "Verify", "Prevent"]
        assert list(dict.fromkeys(said)) == wanted, number


def test_the_page_says_when_its_commands_were_last_tried() -> None:
    """002.0"""
    text = (FOLDER / "recovery-and-replay.md").read_text()
    (day,) = re.findall(r"^Last verified: (\d{4}-\d{2}-\d{2})", text, re.MULTILINE)
    assert date.fromisoformat(day) >= date(2026, 11, 27)


@pytest.mark.parametrize(
    "words",
    [
        [one.value for one in Prediction],
        [one.value for one in Outcome if one is not Outcome.OPEN],
        [one.value for one in Code],
        [one.value for one in Status],
    ],
    ids=["plan", "outcome", "refusal", "status"],
)
def test_every_word_that_a_command_may_say_is_explained(words: list[str]) -> None:
    """Of runbook 004, "Failure Handling", all that a command can be refused with (004.19)."""
    text = (FOLDER / "recovery-and-replay.md").read_text()
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    said = {word for row in rows for word in re.findall(r"`([^`]+)`", row)}
    assert len(words) > 5
    assert sorted(set(words) - said) == []


CHANGING = re.compile(
    r"holdfast (switch set|health (set|clear)|quarantine (add|remove)|queue (note|cancel|dismiss|root)"
    r"|replay (one|run|approve|pause|resume|cancel))"
)


def test_commands_that_change_something_say_so_on_their_line() -> None:
    text = (FOLDER / "recovery-and-replay.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("holdfast ")]
    assert len(lines) > 40
    assert [line for line in lines if bool(CHANGING.match(line)) is not ("changes something" in line)] == []
