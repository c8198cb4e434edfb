"""What the runbooks tell people to type is understood, what they point at is there, and every alarm has its section
(001.54, 001.61, 002.0).
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from functions.core.alarms import ALARMS, ON_CALL, by_name
from functions.core.recovery import Status
from functions.core.replay import Prediction
from functions.core.replay_job import Outcome
from functions.core.switches import problem
from functions.operator_api.problems import Code
from ops.alarms.counted import AT_THE_DOOR, SERVICES, metrics_of
from ops.cli import app
from ops.runbooks import (
    FOLDER,
    PARTS,
    Command,
    UnreadableRunbook,
    digest_of,
    page_of,
    pages,
    tried,
    verifiable,
    write_down,
)
from ops.stack import ROOT

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

KNOWN = pages()
PAGES = sorted(KNOWN)
OF_ALARMS = {section.title: section for section in KNOWN["alarms.md"].sections if section.title}
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


RECOVERY_PARTS = ("Symptom", "It means", "Check", "Act", "Verify", "Undo", "Prevent")


def test_each_step_of_recovery_says_what_it_is_for_how_to_know_that_it_worked_and_the_way_back() -> None:
    """Whoever was woken reads one section, and finds in it all that the others have, in the same order (002.0)."""
    text = (FOLDER / "recovery-and-replay.md").read_text()
    sections = re.split(r"\n## (\d)\. ", text)[1:]
    assert [int(number) for number in sections[::2]] == list(range(1, 10))
    for number, section in zip(sections[::2], sections[1::2], strict=True):
        said = [part for part in re.findall(r"\*\*([A-Z][a-z ]+)\*\*[:,\s]", section) if part in RECOVERY_PARTS]
        wanted = list(RECOVERY_PARTS) if number != "9" else ["Act", "Verify", "Prevent"]
        assert list(dict.fromkeys(said)) == wanted, number


# ------------------------------------------------------------------------------------------------ alarms and sections


def test_every_alarm_has_its_section_and_every_section_its_alarm_in_the_order_of_the_table() -> None:
    assert list(OF_ALARMS) == [alarm.name for alarm in ALARMS]
    assert [section.link for section in OF_ALARMS.values()] == [alarm.page for alarm in ALARMS]


def fires_when(alarm: Any) -> str:
    """Its windows, as its section says them: how soon it fires, and how long after the last of it it is quiet."""
    minutes = alarm.period_seconds // 60
    if alarm.also_over_seconds:
        wide = alarm.also_over_seconds // 3600
        return (
            f"It fires when that is so over {minutes} minutes and over {wide} hour{'s' * (wide > 1)}, and is quiet "
            "once either is not."
        )
    if alarm.periods == 1:
        window = "a minute" if minutes == 1 else f"{minutes} minutes"
        return f"It fires after {window} of it, and is quiet after the next without."
    windows = f"{alarm.periods} minutes" if minutes == 1 else f"{alarm.periods} windows of {minutes} minutes"
    good = alarm.periods - alarm.datapoints + 1
    return (
        f"It fires when that is so in {alarm.datapoints} of {windows}, and is quiet once {good} of the last "
        f"{alarm.periods} {'is' if good == 1 else 'are'} not."
    )


@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm.name)
def test_the_section_of_an_alarm_says_all_that_the_others_say_in_the_same_order(alarm: Any) -> None:
    section = OF_ALARMS[alarm.name]
    assert tuple(section.parts) == PARTS
    assert all(text for text in section.parts.values())
    grave = f"{alarm.sev.value}, a {'page' if alarm.is_page else 'ticket'}"
    grave += ", and told to people directly" if alarm.group == ON_CALL else ""
    assert section.text.strip().splitlines()[0] == f"{grave}. {fires_when(alarm)}"
    assert "```sh" in section.parts["Check"], "there is nothing to look at"
    assert len(section.parts["Symptom"]) < 260, "whoever reads it has ten minutes"


@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm.name)
def test_a_metric_that_the_symptom_names_is_one_that_the_alarm_watches(alarm: Any) -> None:
    named = set(re.findall(r"`([a-z_]+)`", OF_ALARMS[alarm.name].parts["Symptom"])) & metrics()
    assert named <= {series.metric for series in alarm.series.values()}


def test_an_alarm_that_a_page_names_is_one_of_the_table() -> None:
    """Such words stand for alarms only; queues and what else is called so is listed."""
    else_called_so = {"x-request-id", "x-signature", "ops-dlq", "root-cause"}
    for page in PAGES:
        text = prose_of(page)
        for word in re.findall(r"`([a-z]+(?:-[a-z]+)+)`", text):
            assert by_name(word) is not None or word in else_called_so, (page, word)


# ------------------------------------------------------------------------------------------------- what pages speak of


@cache
def metrics() -> set[str]:
    """Every metric that a function counts."""
    return {metric for service in SERVICES for metric, _ in metrics_of(service)} | set(AT_THE_DOOR)


@cache
def said_in_the_code() -> tuple[frozenset[str], str]:
    """Every name in the code and the catalog; and every text in it, one after the other."""
    names, texts = set[str](), list[str]()
    for folder in ("functions", "ops", "infra"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Constant(str(text)):
                        texts.append(" ".join(text.split()))
                    case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                        names.add(name)
    for path in sorted((ROOT / "functions" / "catalog").rglob("*.toml")):
        texts.append(path.read_text())
        names |= set(_keys(tomllib.loads(path.read_text())))
    words = {word for text in texts for word in re.findall(r"[A-Za-z][A-Za-z0-9_]*", text)}
    return frozenset(names | words), "\n".join(texts)


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


def prose_of(page: str) -> str:
    """The page without its blocks."""
    text = (FOLDER / page).read_text()
    return re.sub(r"^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE)


PLACES = frozenset({"HOLDFAST_STAGE", "ID_OF_THE_MARKER"})
"""Words in capitals that stand for themselves on a page."""


@pytest.mark.parametrize("page", PAGES)
def test_every_metric_field_switch_state_and_code_that_a_page_names_is_one_of_the_code(page: str) -> None:
    """Whoever looks for it in a log, on a dashboard or in an item finds it under that name."""
    names, _ = said_in_the_code()
    spans = re.findall(r"`([A-Za-z0-9]+(?:_[A-Za-z0-9]+)+)`", prose_of(page))
    filled = {word for section in KNOWN[page].commands for word in re.findall(r"[A-Z]+(?:_[A-Z]+)+", section.text)}
    placed = filled | PLACES
    assert [
        span
        for span in spans
        if span not in names | metrics() | placed
        and not re.fullmatch(r"HTTP_\dxx", span)
        and not (span.isupper() and span.lower() in names)  # a task's code
    ] == []


QUOTED_OF_OTHERS = frozenset(
    {
        "Task timed out",
        "not before then",
        "When does sending resume?",
        "Nothing is missing",
        "what became of this ticket?",
        "stop writing to me",
        "that is not my number",
        "why did I get nothing",
        "that is it, and nothing else",
        "Nothing to do",
        "the conversation had 5 automatic messages within the hour",
    }
)
"""Words of AWS, of people, and of providers; and where a number is filled in."""


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_quotes_of_a_log_or_the_dashboard_is_said_there(page: str) -> None:
    _, texts = said_in_the_code()
    assert len(quoted_on(page)) > {"alarms.md": 15, "recovery.md": 20}.get(page, -1)
    assert [text for text in quoted_on(page) if text not in texts and text not in QUOTED_OF_OTHERS] == []


def quoted_on(page: str) -> list[str]:
    """What stands in quotation marks there, in a sentence or a cell, and is long enough to be looked for."""
    prose = re.sub(r"`[^`]*`", "", prose_of(page))
    pieces = re.split(r"\n\s*\n|\||\n#", prose)
    found = [" ".join(text.split()) for piece in pieces for text in re.findall(r"\"([^\"]*)\"", piece)]
    return [text for text in found if len(text) >= 10]


@pytest.mark.parametrize("page", PAGES)
def test_a_switch_is_set_to_what_it_can_be_set_to(page: str) -> None:
    for call in typed((FOLDER / page).read_text()):
        words = shlex.split(call)
        if words[1:3] == ["switch", "set"] and len(words) > 4 and words[3].islower():
            name, value = words[3], words[4]
            assert problem(name, value) is None, call


# ------------------------------------------------------------------------------------------------------ what was tried


@pytest.mark.parametrize("page", PAGES)
def test_when_it_was_last_verified_is_true(page: str) -> None:
    """002.0, 001.61: the day on the page is the day on which these very commands were tried. Whoever changes one tries
    them all again: `make runbooks`.
    """
    record = tried()
    for name, commands in verifiable(KNOWN[page]).items():
        section = OF_ALARMS.get(name.partition("#")[2])
        told = section.verified if section else KNOWN[page].verified
        assert told is not None, name
        assert name in record, f"{name} was never tried"
        assert (told.on, told.stage) == (record[name].on, record[name].stage)
        assert digest_of(commands) == record[name].digest, f"{name}: its commands have changed since"
        assert told.on >= date(2026, 11, 27)


def test_the_record_is_of_pages_that_there_are() -> None:
    assert set(tried()) == {name for page in KNOWN.values() for name in verifiable(page)}


# -------------------------------------------------------------------------------------------------- what changes things


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
    r".*("
    r"holdfast (switch set|health (set|clear)|quarantine (add|remove)|queue (note|cancel|dismiss|root)"
    r"|replay (one|run|approve|pause|resume|cancel)|source (add|rotate|hold|enable|disable)"
    r"|recipient (opt-out|opt-in|wrong-number|restore|consent|contact)"
    r"|incident (open|ack|severity|note|message|mitigate|resolve)|incident postmortem .*--file|page test)"
    r"|aws \S+ (put|delete|purge|invoke|start|update|enable|disable)\b.*)"
)


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_change_something_say_so_on_their_line(page: str) -> None:
    commands = KNOWN[page].commands
    assert len(commands) > 10
    assert [one.text for one in commands if bool(CHANGING.match(one.text)) is not one.is_said_to_change] == []


# ------------------------------------------------------------------------------------------------- how pages are read

PAGE = """# A page

## some-alarm

SEV1, a page.

**Symptom** It `x`.

**Check**

```sh
holdfast status                  # look
aws lambda get-function --function-name x \\
  --query y                      # on AWS only
```

**Last verified** 2026-01-02, local.
"""


def test_a_page_is_read_by_sections_parts_and_commands() -> None:
    _, section = page_of("alarms.md", PAGE).sections
    assert (section.link, section.parts["Symptom"], list(section.parts)) == (
        "alarms.md#some-alarm",
        "It `x`.",
        ["Symptom", "Check", "Last verified"],
    )
    assert section.commands == (
        Command("holdfast status", "look"),
        Command("aws lambda get-function --function-name x --query y", "on AWS only"),
    )
    assert [one.is_on_aws_only for one in section.commands] == [False, True]
    assert section.verified is not None
    assert (section.verified.on, section.verified.stage) == (date(2026, 1, 2), "local")


def test_what_was_tried_is_written_down_on_the_page_and_in_the_record(tmp_path: Path) -> None:
    (tmp_path / "alarms.md").write_text(PAGE)
    (tmp_path / "other.md").write_text("# Other\n\n```sh\nholdfast env\n```\n\nLast verified: 2026-01-01, local.\n")
    write_down(date(2026, 3, 4), "staging", {"alarms.md#some-alarm"}, tmp_path)
    assert "**Last verified** 2026-03-04, staging." in (tmp_path / "alarms.md").read_text()
    assert "2026-01-01" in (tmp_path / "other.md").read_text()
    write_down(date(2026, 3, 5), "staging", {"other.md"}, tmp_path)
    assert "Last verified: 2026-03-05, staging." in (tmp_path / "other.md").read_text()
    record = tried(tmp_path / "tried.json")
    known = {name: one for page in pages(tmp_path).values() for name, one in verifiable(page).items()}
    assert {name: (one.on.day, one.digest) for name, one in record.items()} == {
        "alarms.md#some-alarm": (4, digest_of(known["alarms.md#some-alarm"])),
        "other.md": (5, digest_of(known["other.md"])),
    }
    (tmp_path / "alarms.md").write_text(PAGE.replace("holdfast status", "holdfast status --json"))
    changed = pages(tmp_path)["alarms.md"].sections[1].commands
    assert digest_of(changed) != record["alarms.md#some-alarm"].digest


@pytest.mark.parametrize("text", ["[", "[]", '{"x": {}}', '{"x": {"on": "noon", "stage": "", "commands": ""}}', "{3"])
def test_a_record_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "tried.json").write_text(text)
    with pytest.raises(UnreadableRunbook):
        tried(tmp_path / "tried.json")


def test_a_day_that_there_is_not_is_refused() -> None:
    with pytest.raises(UnreadableRunbook, match="2026-02-30"):
        page_of("x.md", "Last verified: 2026-02-30, local")
    with pytest.raises(UnreadableRunbook, match=r"x\.json"):
        tried(Path("x.json"))


def test_the_record_is_plain_json_of_days_and_digests() -> None:
    for one in json.loads((FOLDER / "tried.json").read_text()).values():
        assert set(one) == {"on", "stage", "commands"}
