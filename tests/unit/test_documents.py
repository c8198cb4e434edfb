"""What the pages say of the code, and the code of the pages, is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from functions.core.audit import AuditType

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
CODE = ("functions", "infra", "ops", "tests")


def cited_sections() -> Iterator[tuple[str, str]]:
    """Every section of the architecture that a file of the code cites, with the file."""
    for top in CODE:
        for path in sorted((ROOT / top).rglob("*.py")):
            for cited in re.findall(r"architecture\s+(§\d+(?:(?:,| and| to)\s+§\d+)*)", path.read_text()):
                for number in re.findall(r"§(\d+)", cited):
                    yield number, str(path.relative_to(ROOT))


def shown_requirements() -> Iterator[tuple[str, str]]:
    """Every test of the table in the requirements, with the id it is named for."""
    for line in (DOCS / "requirements.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and re.fullmatch(r"\d{3}\.\d+", cells[0]):
            for test in re.findall(r"`([a-z0-9_]+/test_[a-z0-9_]+\.py(?:::test_[a-z0-9_]+)?)`", cells[2]):
                yield cells[0], test


@cache
def requirements_said(path: str) -> dict[str, set[str]]:
    """By name the requirements that a file's tests say they show; under no name, those of the file's docstring."""
    tree = ast.parse((ROOT / "tests" / path).read_text())
    said = {"": ast.get_docstring(tree) or ""}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            in_its_name = re.sub(r"_(\d{3})_(?=\d)", r" \1.", node.name)
            said[node.name] = f"{ast.get_docstring(node) or ''} {in_its_name}"
    return {name: set(re.findall(r"\d{3}\.\d+", words)) for name, words in said.items()}


def named_ids(test: str) -> set[str]:
    """The requirements that a test names: in its name and docstring; of a whole file, in the file's docstring."""
    path, _, name = test.partition("::")
    return requirements_said(path).get(name, set())


def counted_metrics() -> Iterator[tuple[str, str]]:
    """Every metric that a function counts by its literal name, with the file."""
    for path in sorted((ROOT / "functions").rglob("*.py")):
        for name in re.findall(r"\b_?count(?:_at)?\(\s*\"([a-z_]+)\"", path.read_text()):
            yield name, str(path.relative_to(ROOT))


def test_every_metric_that_is_counted_is_on_the_page() -> None:
    """Whoever builds an alarm or a dashboard finds what there is, and by what it can be told apart."""
    page = (DOCS / "architecture.md").read_text()
    counted = list(counted_metrics())
    assert len(counted) > 50
    assert [(name, path) for name, path in counted if f"`{name}`" not in page] == []


def test_every_audit_event_is_on_the_page() -> None:
    page = (DOCS / "architecture.md").read_text()
    assert [kind.value for kind in AuditType if f"`{kind.value}`" not in page] == []


def test_every_section_that_the_code_cites_is_there() -> None:
    sections = set(re.findall(r"^## (\d+)\. ", (DOCS / "architecture.md").read_text(), re.MULTILINE))
    cited = list(cited_sections())
    assert len(cited) > 30
    assert [(number, path) for number, path in cited if number not in sections] == []


def test_every_test_that_the_requirements_name_is_there_and_names_its_requirement() -> None:
    shown = list(shown_requirements())
    assert len(shown) > 100
    assert [(number, test) for number, test in shown if number not in named_ids(test)] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))], ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def _texts() -> Iterator[Path]:
    yield from (ROOT / "README.md", ROOT / "CHANGELOG.md")
    yield from sorted(DOCS.rglob("*.md"))
    for top in ("functions", "infra", "ops", "tests"):
        yield from sorted((ROOT / top).rglob("*.py"))


def test_every_target_of_make_that_a_text_names_is_there() -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {(name, str(path.relative_to(ROOT))) for path in _texts() for name in _MADE.findall(path.read_text())}
    assert {name for name, _ in named} >= {"demo", "test", "runbooks"}
    assert {(name, path) for name, path in named if name not in targets} == set()


_MADE = re.compile(r"`make ([a-z][a-z0-9-]*)")
