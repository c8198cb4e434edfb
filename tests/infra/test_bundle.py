"""Bundles hold what the function needs on its machine, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import marshal
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import CodeType

import pytest

from infra import bundle as bundling
from infra.bundle import BundleFailed, Bundler, Compiler, compiler_for, find_compiler
from infra.config import Platform

AARCH64 = 183  # e_machine of ELF
FUNCTIONS = ("ingress", "worker", "triage", "sweeper", "evaluator", "replay", "operator_api", "pager")
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
    assert folders - {"__pycache__"} == SHARED | {function}
    assert {"functions/__init__.py", "functions/env.py", f"functions/{function}/settings.py"} <= set(held)


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
    assert ("httpx" in held) is (function in ("worker", "pager"))
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


def sources_only(_: Platform) -> None:
    return None


def this_python() -> Compiler:
    compiler = compiler_for(Platform.HOST)
    assert compiler is not None
    return compiler


def test_every_module_of_a_bundle_has_its_bytecode_beside_it(build: Path) -> None:
    held = set(names(Bundler(Platform.HOST, build=build).bundle("ingress")))
    sources = [Path(name) for name in held if name.endswith(".py")]
    tag = sys.implementation.cache_tag
    assert {str(path.parent / "__pycache__" / f"{path.stem}.{tag}.pyc") for path in sources} == {
        name for name in held if name.endswith(".pyc")
    }
    assert {"functions", "cryptography"} <= {path.parts[0] for path in sources}


def test_a_bundle_runs_from_its_bytecode_and_does_not_ask_its_sources(build: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(Bundler(Platform.HOST, build=build).bundle("ingress")) as archive:
        archive.extractall(tmp_path)
    for source in tmp_path.rglob("*.py"):
        source.write_text("raise AssertionError('compiled from source')\n")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import functions.ingress.handler, functions.core.event as event, cryptography\n"
        "print(event.__cached__)\n"
        "try: event.read_message('')\n"
        "except event.MalformedEnvelope as exc: print(exc.__traceback__.tb_next.tb_frame.f_code.co_filename)"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    cached, raised_in = run.stdout.split()
    assert cached == str(tmp_path / f"functions/core/__pycache__/event.{sys.implementation.cache_tag}.pyc")
    assert raised_in == str(tmp_path / "functions/core/event.py")  # a traceback names the source where it is


def test_bytecode_names_its_source_where_lambda_has_it_and_is_never_checked_against_it(build: Path) -> None:
    with zipfile.ZipFile(Bundler(Platform.HOST, build=build).bundle("ingress")) as archive:
        raw = archive.read(f"functions/core/__pycache__/event.{sys.implementation.cache_tag}.pyc")
    assert raw[:4] == importlib.util.MAGIC_NUMBER
    assert struct.unpack_from("<I", raw, 4) == (0b01,)  # PEP 552: hash-based, unchecked
    code = marshal.loads(raw[16:])  # noqa: S302  # our own bytes, made a moment ago
    assert isinstance(code, CodeType)
    assert code.co_filename == "/var/task/functions/core/event.py"


def test_without_a_python_of_the_platforms_version_a_bundle_holds_sources_only(build: Path) -> None:
    bundler = Bundler(Platform.LAMBDA, build=build, compiler_for=sources_only)
    assert not [name for name in names(bundler.bundle("worker")) if "__pycache__" in name]


def test_what_a_bundle_was_compiled_by_is_part_of_its_name(tmp_path: Path) -> None:
    another = replace(this_python(), identity="cpython-311 3.11.99 a70d0d0a")
    makers = (sources_only, lambda _: this_python(), lambda _: another)
    source = {"functions/one.py": Path(__file__)}
    made = {
        Bundler(Platform.HOST, build=tmp_path, compiler_for=maker).bundle_of("one", source, "").name for maker in makers
    }
    assert len(made) == 3


def test_a_module_that_does_not_compile_is_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("def\n")
    with pytest.raises(BundleFailed, match=r"functions/broken\.py"):
        Bundler(Platform.HOST, build=tmp_path).bundle_of("broken", {"functions/broken.py": broken}, "")
    assert list(tmp_path.rglob("*.zip")) == []


def test_a_python_that_does_not_run_or_is_another_version_compiles_nothing(tmp_path: Path) -> None:
    shim = tmp_path / "python"
    shim.write_text("#!/bin/sh\necho 'not installed' >&2\nexit 127\n")
    shim.chmod(0o755)
    version = sys.version_info[:2]
    assert find_compiler(version, [str(tmp_path / "missing"), str(shim)]) is None
    assert find_compiler((2, 7), [sys.executable]) is None
    found = find_compiler(version, [str(shim), sys.executable])
    assert found is not None
    assert found.executable == sys.executable


def test_a_missing_compiler_is_told_once_with_what_it_costs_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(bundling, "_LAMBDA_VERSION", (3, 99))
    compiler_for.cache_clear()
    for number in range(2):
        Bundler(Platform.LAMBDA, build=tmp_path).bundle_of(f"b{number}", {"one.py": Path(__file__)}, "")
    compiler_for.cache_clear()
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert "No python3.99 runs here" in told
    assert "Put a python3.99 on PATH" in told


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
