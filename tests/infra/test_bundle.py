"""Bundles hold what the function needs on its machine, and nothing else."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from infra.bundle import BundleFailed, Bundler
from infra.config import Platform

AARCH64 = 183  # e_machine of ELF
FUNCTIONS = ("ingress", "worker", "triage", "sweeper", "evaluator", "replay")
SHARED = {"adapters", "catalog", "core", "flows", "signatures"}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("build")


def names(bundle: Path) -> list[str]:
    with zipfile.ZipFile(bundle) as archive:
        return archive.namelist()


def top_levels(bundle: Path) -> set[str]:
    return {name.split("/")[0] for name in names(bundle)}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_bundle_holds_its_own_folder_and_the_shared_ones_under_the_import_root(function: str, build: Path) -> None:
    held = names(Bundler(Platform.LAMBDA, build=build).bundle(function))
    folders = {parts[1] for name in held if (parts := name.split("/"))[0] == "functions" and len(parts) > 2}
    assert folders == SHARED | {function}
    assert {"functions/__init__.py", "functions/env.py", f"functions/{function}/settings.py"} <= set(held)
    assert not [name for name in held if "__pycache__" in name or name.endswith(".pyc")]


def test_the_bundle_of_ingress_holds_what_checks_public_keys_and_no_other_package(build: Path) -> None:
    held = top_levels(Bundler(Platform.LAMBDA, build=build).bundle("ingress"))
    packages = {name.split(".")[0] for name in held if not name.endswith(".dist-info")}
    assert packages == {"functions", "cryptography", "cffi", "_cffi_backend", "pycparser"}


@pytest.mark.parametrize("function", FUNCTIONS[1:])
def test_a_bundle_holds_its_packages_but_not_those_of_the_runtime_or_the_command_line(
    function: str, build: Path
) -> None:
    held = top_levels(Bundler(Platform.LAMBDA, build=build).bundle(function))
    assert {"pydantic", "pydantic_core", "aws_lambda_powertools"} <= held
    assert ("httpx" in held) is (function == "worker")
    assert held.isdisjoint({"boto3", "botocore", "typer", "rich", "aws_cdk", "bin"})


@pytest.mark.parametrize("function", ["worker", "ingress"])
def test_compiled_packages_are_for_lambdas_machine(function: str, build: Path) -> None:
    with zipfile.ZipFile(Bundler(Platform.LAMBDA, build=build).bundle(function)) as archive:
        compiled = [name for name in archive.namelist() if name.endswith(".so")]
        machines = {struct.unpack_from("<H", archive.read(name), 18)[0] for name in compiled}
    assert compiled
    assert all("cpython-313" in name or ".abi3." in name for name in compiled)
    assert machines == {AARCH64}


def test_the_local_bundle_imports_from_itself_alone(build: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(Bundler(Platform.HOST, build=build).bundle("worker")) as archive:
        archive.extractall(tmp_path)
    # -I -S: neither this checkout nor the virtual environment is on the path, only the bundle.
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import httpx, pydantic, aws_lambda_powertools, functions.worker.settings as settings\n"
        "print(*{m.__file__ for m in (httpx, pydantic, aws_lambda_powertools, settings)}, sep='\\n')\n"
        "print('boto3' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    *files, has_boto3 = run.stdout.split()
    assert all(file.startswith(str(tmp_path)) for file in files)
    assert has_boto3 == "False"


def test_the_local_bundle_of_ingress_can_check_a_public_key_and_loads_what_it_takes_only_then(
    build: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(Bundler(Platform.HOST, build=build).bundle("ingress")) as archive:
        archive.extractall(tmp_path)
    entry = {"tenant": "t", "flow": "f", "provider": "discord", "secrets": [{"secret": "00" * 31 + "01"}]}
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import functions.ingress.handler, functions.signatures.providers as providers\n"
        "print('cryptography' in sys.modules)\n"
        f"endpoint = providers.endpoint_of('bot', {json.dumps(entry)!r})\n"
        "print(sys.modules['cryptography'].__file__)"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    was_loaded, file = run.stdout.split()
    assert was_loaded == "False"
    assert file.startswith(str(tmp_path))


def test_equal_inputs_give_equal_bytes(build: Path, tmp_path: Path) -> None:
    once = Bundler(Platform.HOST, build=build).bundle("worker")
    again = Bundler(Platform.HOST, build=tmp_path).bundle("worker")
    assert once.name == again.name
    assert once.read_bytes() == again.read_bytes()


def test_a_change_of_the_code_gives_another_bundle(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent.parent
    copy = tmp_path / "copy"
    for path in (root / "functions").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            target = copy / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (copy / "requirements").mkdir()
    for name in ("pyproject.toml", "requirements/dev.lock"):
        (copy / name).write_bytes((root / name).read_bytes())
    bundler = Bundler(Platform.LAMBDA, root=copy)
    before = bundler.bundle("ingress")
    with (copy / "functions" / "env.py").open("a") as source:
        source.write("# changed\n")
    after = bundler.bundle("ingress")
    assert before != after
    assert bundler.bundle("ingress") == after


def test_only_locked_versions_with_their_hashes_are_installed() -> None:
    lines = Bundler(Platform.LAMBDA).requirements("worker").splitlines()
    pins = [line for line in lines if not line.startswith(" ")]
    assert pins
    assert all("==" in pin for pin in pins)
    assert sum("--hash=sha256:" in line for line in lines) >= len(pins)


def test_a_package_that_the_lock_lacks_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "dev.lock").write_text("")
    (tmp_path / "pyproject.toml").write_text('[project]\n[project.optional-dependencies]\nworker = ["httpx"]\n')
    with pytest.raises(BundleFailed, match=r"httpx.*which the lock lacks"):
        Bundler(Platform.LAMBDA, root=tmp_path).requirements("worker")


def test_there_is_no_bundle_of_a_function_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(BundleFailed, match="no function courier"):
        Bundler(Platform.LAMBDA, build=tmp_path).bundle("courier")
