"""What the runbooks tell people to type is understood, and what they point at is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

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
    elsewhere = re.findall(r"\[\w+\.md\]\((\w+\.md)\), section (\d)", text)
    here = [(page, number) for number in re.findall(r"(?<!\), )section (\d)", text)]
    for name, number in elsewhere + here:
        assert f"\n## {number}. " in (FOLDER / name).read_text(), (name, number)
