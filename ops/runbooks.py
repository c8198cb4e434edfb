"""The runbooks as data: their sections, what each says, the commands on it, and when these were last tried.

A page is Markdown. A section begins with `## `, and its anchor is what GitHub makes of its heading. Where a section is
of an alarm its parts begin with their name in bold, in the order of `PARTS`. Commands stand in blocks of `sh`, one on
each line. What follows `#` behind a command is a remark: `on AWS only` marks what the local stack has not.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

from ops.stack import ROOT

FOLDER: Final = ROOT / "docs" / "runbooks"
TRIED: Final = FOLDER / "tried.json"
"""Which section was tried when, on which stage and with which commands: written by the test that tries them."""

ALARMS: Final = "alarms.md"
PARTS: Final = ("Symptom", "It means", "Check", "Act", "Verify", "Prevent", "Last verified")
ON_AWS: Final = "on AWS only"
CHANGES: Final = "changes something"

_BLOCK: Final = re.compile(r"^( *)```sh\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_VERIFIED: Final = re.compile(r"Last verified\W{1,4}(\d{4}-\d{2}-\d{2}), (\w+)")
_REMARK: Final = re.compile(r"(?:^|\s+)# ?(.*)$")


class UnreadableRunbook(Exception):
    """A page, or the record of what was tried, is not as it should be. The text says where."""


@dataclass(frozen=True, slots=True)
class Command:
    """One line to type; `text` has neither remark nor line breaks."""

    text: str
    remark: str = ""

    @property
    def is_on_aws_only(self) -> bool:
        """Whether the local stack cannot do it."""
        return ON_AWS in self.remark

    @property
    def is_said_to_change(self) -> bool:
        """Whether the page says that it changes something."""
        return CHANGES in self.remark


@dataclass(frozen=True, slots=True)
class Tried:
    """When commands were tried, and on which stage. `digest` is of the commands as they were then."""

    on: date
    stage: str
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """One section of a page. `verified` is what it says of itself, None if it says nothing."""

    page: str
    title: str
    text: str
    commands: tuple[Command, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    verified: Tried | None = None

    @property
    def anchor(self) -> str:
        """What a link to it ends with."""
        return re.sub(r"[^\w\- ]", "", self.title.lower()).replace(" ", "-")

    @property
    def link(self) -> str:
        """As alarms name it."""
        return f"{self.page}#{self.anchor}"


@dataclass(frozen=True, slots=True)
class Page:
    """One page. `verified` is what its last line says of all of it, None where each section speaks for itself."""

    name: str
    sections: tuple[Section, ...]
    verified: Tried | None = None

    @property
    def commands(self) -> tuple[Command, ...]:
        """All of them, in their order."""
        return tuple(command for section in self.sections for command in section.commands)


def pages(folder: Path = FOLDER) -> dict[str, Page]:
    """Every page by its name. Raises `UnreadableRunbook`."""
    try:
        texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.md"))}
    except (OSError, UnicodeDecodeError) as exc:
        raise UnreadableRunbook(f"{folder}: {exc}") from exc
    return {name: page_of(name, text) for name, text in texts.items()}


def page_of(name: str, text: str) -> Page:
    """The page of that text. What stands before its first heading of second order is a section without a title.

    Raises `UnreadableRunbook`.
    """
    found = re.split(r"^## +(.+?) *$", text, flags=re.MULTILINE)
    titles, bodies = ["", *found[1::2]], found[::2]
    sections = tuple(_section(name, title, body) for title, body in zip(titles, bodies, strict=True))
    return Page(name, sections, None if name == ALARMS else _verified(name, text))


def _section(page: str, title: str, text: str) -> Section:
    commands = tuple(command for _, block in _BLOCK.findall(text) for command in _commands(block))
    parts = re.split(rf"^\*\*({'|'.join(PARTS)})\*\*[.:]? *", text, flags=re.MULTILINE)
    said = dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))
    return Section(page, title, text, commands, said, _verified(f"{page}, {title}", text))


def _commands(block: str) -> Iterator[Command]:
    for line in re.sub(r"\\\n *", "", block).splitlines():
        text = line.strip()
        remark = _REMARK.search(text)
        if remark is not None:
            text = text[: remark.start()].rstrip()
        if text:
            yield Command(text, remark[1] if remark else "")


def _verified(where: str, text: str) -> Tried | None:
    said = _VERIFIED.search(text)
    if said is None:
        return None
    try:
        return Tried(date.fromisoformat(said[1]), said[2])
    except ValueError as exc:
        raise UnreadableRunbook(f"{where}: {said[1]} is no day") from exc


def digest_of(commands: tuple[Command, ...]) -> str:
    """What changes when a command does, or whether it is tried."""
    told = json.dumps([[one.text, one.is_on_aws_only] for one in commands])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


# ------------------------------------------------------------------------------------------------ what was tried when


def verifiable(page: Page) -> dict[str, tuple[Command, ...]]:
    """What of the page says by itself when it was tried, with the commands that this is about: each section of an
    alarm, or the page.
    """
    if page.name != ALARMS:
        return {page.name: page.commands}
    return {section.link: section.commands for section in page.sections if section.title}


def tried(path: Path = TRIED) -> dict[str, Tried]:
    """The record, by page or section. Raises `UnreadableRunbook`."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: Tried(date.fromisoformat(one["on"]), str(one["stage"]), str(one["commands"]))
            for name, one in record.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise UnreadableRunbook(f"{path} is not the record of what was tried: {exc!r}") from exc


def write_down(on: date, stage: str, names: set[str], folder: Path = FOLDER) -> None:
    """That these pages and sections were tried on that day: in the record, and on the pages themselves.

    Raises `UnreadableRunbook`.
    """
    known = {name: one for page in pages(folder).values() for name, one in verifiable(page).items()}
    path = folder / TRIED.name
    record = {name: one for name, one in (tried(path) if path.exists() else {}).items() if name in known}
    record |= {name: Tried(on, stage, digest_of(known[name])) for name in names}
    told = {
        name: {"on": one.on.isoformat(), "stage": one.stage, "commands": one.digest}
        for name, one in sorted(record.items())
    }
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    for page in sorted({name.partition("#")[0] for name in names}):
        text = (folder / page).read_text(encoding="utf-8")
        if page != ALARMS:
            text = _VERIFIED.sub(lambda said: _dated(said, record[page]), text)  # noqa: B023  # used at once
        else:
            heads = re.split(r"^(## .+)$", text, flags=re.MULTILINE)
            for at in range(1, len(heads), 2):
                one = record.get(f"{page}#{heads[at].removeprefix('## ').strip()}")
                if one is not None:
                    heads[at + 1] = _VERIFIED.sub(lambda said, one=one: _dated(said, one), heads[at + 1])
            text = "".join(heads)
        (folder / page).write_text(text, encoding="utf-8")


def _dated(said: re.Match[str], one: Tried) -> str:
    return said[0].replace(said[1], one.on.isoformat()).replace(f", {said[2]}", f", {one.stage}")
