"""What the functions count, read from their code: which metric, where, and by which dimensions."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from functions.observability import OF_THE_STAGE, TOTALS
from ops.stack import ROOT

FUNCTIONS: Final = ROOT / "functions"
SERVICES: Final = tuple(
    sorted(path.parent.name for path in FUNCTIONS.glob("*/main.py") if path.parent.name != "ingress")
)
"""All functions but ingress, which writes its metrics by hand."""

SHARED: Final = "adapters"
"""What every function may use. Of the modules beside the packages it has those that it imports."""

AT_THE_DOOR: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "webhooks_accepted": (("stage",), ("provider", "stage")),
    "webhooks_rejected": (("reason", "stage"), ("provider", "reason", "stage")),
    "webhooks_spilled": (("stage",),),
    "source_malformed": (("stage",),),
    "ack_ms": (("stage",),),
    "webhooks_late": (("stage",),),
    "synthetic_accepted": (("stage",),),
}
"""Of ingress: by which sets of dimensions each is counted."""

_METHODS: Final = frozenset({"count", "_count", "count_at", "milliseconds"})
_BY_INTEGRATION: Final = frozenset({("sweeper/handler.py", "_count")})
"""Methods that count what they are given, and add by which integration."""

_DRAIN: Final = "sweeper/drain.py"
"""Counts through a variable, without a dimension, whatever it names `spill_...` or `drains_...`."""


@dataclass(frozen=True, slots=True)
class Place:
    """One place in the code that counts a metric."""

    file: str
    metric: str
    by: frozenset[str]


def places(service: str, metric: str = "") -> Iterator[Place]:
    """Where that function counts it, or anything."""
    for place in _every_place():
        package, in_one, _ = place.file.partition("/")
        is_its = package in (service, SHARED) if in_one else package in _beside(service)
        if is_its and metric in ("", place.metric):
            yield place


def metrics_of(service: str) -> set[tuple[str, frozenset[str]]]:
    """Every metric that the function's own code counts, with each set of dimensions CloudWatch keeps it under, totals
    included.
    """
    if service == "ingress":
        return {(metric, frozenset(names)) for metric, sets in AT_THE_DOOR.items() for names in sets}
    found = set()
    for place in places(service):
        found.add((place.metric, place.by | ({"stage"} if place.metric in OF_THE_STAGE else {"service", "stage"})))
        if place.by and place.metric in TOTALS:
            found.add((place.metric, frozenset({"service", "stage"})))
    return found


@cache
def _beside(service: str) -> frozenset[str]:
    """The modules beside the packages that the function's own code imports, and what those import."""
    found: set[str] = set()
    files = list((FUNCTIONS / service).rglob("*.py"))
    while files:
        for node in ast.walk(ast.parse(files.pop().read_text())):
            module = f"{(node.module or '').removeprefix('functions.')}.py" if isinstance(node, ast.ImportFrom) else ""
            if module not in found and (FUNCTIONS / module).is_file():
                found.add(module)
                files.append(FUNCTIONS / module)
    return frozenset(found)


@cache
def _every_place() -> tuple[Place, ...]:
    return tuple(place for path in sorted(FUNCTIONS.rglob("*.py")) for place in _in(path))


def _in(path: Path) -> Iterator[Place]:
    name = str(path.relative_to(FUNCTIONS))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            method, dimensions = node.func.attr, frozenset(keyword.arg for keyword in node.keywords if keyword.arg)
            if method in _METHODS:
                for metric in _names_in(node.args[0]):
                    yield Place(
                        name, metric, dimensions | ({"integration"} if (name, method) in _BY_INTEGRATION else set())
                    )
        if name == _DRAIN:
            for metric in _names_in(node):
                if metric.startswith(("spill_", "drains_")):
                    yield Place(name, metric, frozenset())


def _names_in(node: ast.AST) -> Iterator[str]:
    """The texts that an expression may be: itself, or one of two."""
    match node:
        case ast.Constant(str(text)) if text.replace("_", "").isalnum() and text.islower():
            yield text
        case ast.IfExp(_, then, otherwise):
            yield from _names_in(then)
            yield from _names_in(otherwise)
