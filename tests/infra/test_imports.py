"""Imports point one way, and the way of a webhook stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
LAMBDAS = {"ingress", "worker", "triage", "sweeper", "evaluator", "replay", "operator_api", "pager", "synthetic"}
SHARED = {"core", "signatures", "flows", "catalog", "adapters"}
OUTSIDE_WORLD = {"boto3", "botocore", "httpx", "s3transfer"}

# What a package of `functions` may import of `functions`, besides itself and its top-level modules.
MAY_IMPORT = {
    "core": set(),
    "signatures": {"core"},
    "catalog": {"core"},
    "flows": {"core", "catalog"},
    "adapters": {"core", "catalog", "signatures"},
}
MAY_IMPORT |= {name: {"core", "signatures", "flows", "catalog"} for name in LAMBDAS}

# Core runs in Lambda and under millions of simulated crashes; ingress is what an event waits for on a cold start.
STANDARD_LIBRARY_ONLY = {"core", "ingress", "signatures"}
# `cryptography` only where a scheme needs it, inside the function that verifies it.
EXEMPT = {("signatures", "cryptography")}


def modules() -> Iterator[tuple[Path, str]]:
    """Every module of `functions` with the package it belongs to; top-level modules belong to ``."""
    for path in sorted((ROOT / "functions").rglob("*.py")):
        parts = path.relative_to(ROOT / "functions").parts
        yield path, parts[0] if len(parts) > 1 else ""


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a module imports anywhere in its text."""
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            if node.module == "functions":
                yield from (f"functions.{alias.name}" for alias in node.names)
            else:
                yield node.module


def package_of(name: str) -> str | None:
    """The package of `functions` that a dotted name lies in; None for a top-level module and for anything else."""
    parts = name.split(".")
    return parts[1] if parts[0] == "functions" and len(parts) > 1 and parts[1] in LAMBDAS | SHARED else None


def test_every_package_of_functions_has_its_rule() -> None:
    assert {package for _, package in modules() if package} == set(MAY_IMPORT)


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_imports_point_one_way(package: str) -> None:
    wrong = []
    for path, owner in modules():
        if owner != package:
            continue
        allowed = MAY_IMPORT[package] | {package}
        if path.name == "main.py":
            allowed = allowed | {"adapters"}
        for name in imports(path):
            target = package_of(name)
            if target is not None and target not in allowed:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
            if name.split(".")[0] in {"infra", "ops", "tests"}:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_top_level_modules_know_core_at_most() -> None:
    wrong = [
        f"{path.name} imports {name}"
        for path, owner in modules()
        if not owner
        for name in imports(path)
        if package_of(name) not in {None, "core"}
    ]
    assert wrong == []


@pytest.mark.parametrize("package", sorted(STANDARD_LIBRARY_ONLY))
def test_core_and_the_way_of_a_webhook_use_the_standard_library_only(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, owner in modules()
        if owner == package and path.name != "main.py"
        for name in imports(path)
        if name.split(".")[0] not in sys.stdlib_module_names | {"functions"}
        and (package, name.split(".")[0]) not in EXEMPT
    ]
    assert wrong == []


def test_only_adapters_and_the_composing_modules_know_the_outside_world() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, owner in modules()
        if owner != "adapters" and path.name != "main.py"
        for name in imports(path)
        if name.split(".")[0] in OUTSIDE_WORLD
    ]
    assert wrong == []


def test_infra_knows_settings_the_catalog_and_the_table_of_alarms_only() -> None:
    wrong = []
    for path in sorted((ROOT / "infra").glob("*.py")):
        for name in imports(path):
            parts = name.split(".")
            if parts[0] in {"ops", "tests"}:
                wrong.append(f"{path.name} imports {name}")
            is_data = name == "functions.core.alarms" or parts[1:2] == ["catalog"]
            if parts[0] == "functions" and not (parts[-1] in {"settings", "env"} or is_data):
                wrong.append(f"{path.name} imports {name}")
    assert wrong == []


def test_ingress_loads_neither_pydantic_nor_powertools_nor_httpx() -> None:
    """Imports what `main` imports without running it, which would need a deployed stage."""
    main = ROOT / "functions" / "ingress" / "main.py"
    handler = ROOT / "functions" / "ingress" / "handler.py"
    assert main.exists()
    assert handler.exists()
    wanted = sorted({*imports(main), "functions.ingress.handler"})
    script = "import importlib, sys\n" + "".join(f"importlib.import_module({name!r})\n" for name in wanted)
    script += "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "functions" in loaded
    assert loaded & {"pydantic", "pydantic_core", "aws_lambda_powertools", "httpx", "cryptography"} == set()
