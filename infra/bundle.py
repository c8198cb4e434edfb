"""A function's code with the packages it needs, as a zip, without Docker.

A bundle holds `functions/` as the import root has it, so tests and Lambda import alike: the modules that all functions
share, the one function's own folder, and the packages of that function's extra in `pyproject.toml` with what they
depend on, in the locked versions with their hashes checked. boto3 comes from the runtime. Equal inputs give equal
bytes; a bundle that exists is used again.

Beside the sources lies their bytecode, wherever a Python of the platform's version can make it. Lambda mounts the code
read-only, so without it every cold start compiles every module it imports. The sources stay: tracebacks quote them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra.config import Platform

if TYPE_CHECKING:
    from aws_cdk import aws_lambda as lambda_

ROOT = Path(__file__).resolve().parent.parent

_SHARED = ("adapters", "catalog", "core", "flows", "signatures")
_LAMBDA_ENVIRONMENT = {
    "implementation_name": "cpython",
    "implementation_version": "3.13.0",
    "os_name": "posix",
    "platform_machine": "aarch64",
    "platform_python_implementation": "CPython",
    "platform_release": "",
    "platform_system": "Linux",
    "platform_version": "",
    "python_full_version": "3.13.0",
    "python_version": "3.13",
    "sys_platform": "linux",
}
_FROM_THE_RUNTIME = frozenset({"boto3", "botocore", "s3transfer"})
_EPOCH = (1980, 1, 1, 0, 0, 0)
_LAMBDA_VERSION = (3, 13)
_TASK_ROOT = (
    "/var/task"  # where Lambda unpacks a function: https://docs.aws.amazon.com/lambda/latest/dg/python-package.html
)
_PROBE = """
import importlib.util, json, sys
print(json.dumps([sys.implementation.name, sys.version_info[:2], sys.implementation.cache_tag,
                  sys.version.split()[0], importlib.util.MAGIC_NUMBER.hex()]))
"""
_COMPILE = """
import json, py_compile, sys
refused = []
for source, target, shown in json.load(sys.stdin):
    try:
        py_compile.compile(source, cfile=target, dfile=shown, doraise=True, optimize=0,
                           invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    except py_compile.PyCompileError as exc:
        refused.append(str(exc))
json.dump(refused, sys.stdout)
"""


class BundleFailed(Exception):
    """A bundle could not be made: the installer failed, the lock lacks a package, or a module does not compile."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """A Python that makes bytecode. `tag` is in the files' names; `identity` differs where the bytecode may differ."""

    executable: str
    tag: str
    identity: str

    @staticmethod
    def probe(executable: str, version: tuple[int, int]) -> Compiler | None:
        """The interpreter as a compiler; None if it does not run (a version manager's shim) or is another version."""
        try:
            run = subprocess.run(
                [executable, "-I", "-S", "-c", _PROBE], capture_output=True, text=True, check=False, timeout=20
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        if run.returncode != 0:
            return None
        name, found, tag, release, magic = json.loads(run.stdout)
        if name != "cpython" or tuple(found) != version:
            return None
        return Compiler(executable, tag, f"{tag} {release} {magic}")

    def compile(self, sources: Mapping[str, Path], into: Path) -> tuple[dict[str, Path], list[str]]:
        """Bytecode of every `.py` among `sources` (place in the bundle → file), made under `into`.

        Gives the files by their place in the bundle, and what would not compile. The bytecode is not checked against
        its source when it is imported (PEP 552, unchecked), and names the source where Lambda will have it. A file that
        is imported from elsewhere is named as found there: the import system sees to it.
        """
        made: dict[str, Path] = {}
        work = []
        for place, path in sorted(sources.items()):
            if path.suffix == ".py":
                folder, _, name = place.rpartition("/")
                target = f"{folder}/__pycache__/{name[:-3]}.{self.tag}.pyc".lstrip("/")
                made[target] = into / target
                work.append((str(path), str(into / target), f"{_TASK_ROOT}/{place}"))
        # An environment of its own: nothing of the caller's may change a byte.
        run = subprocess.run(
            [self.executable, "-P", "-S", "-s", "-W", "ignore", "-c", _COMPILE],
            input=json.dumps(work),
            capture_output=True,
            text=True,
            check=False,
            env={"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},
        )
        if run.returncode != 0:
            raise BundleFailed(f"{self.executable} could not compile: {run.stderr.strip()}")
        return {target: path for target, path in made.items() if path.exists()}, json.loads(run.stdout)


@functools.cache
def compiler_for(platform: Platform) -> Compiler | None:
    """A Python here that makes the platform's bytecode. Says once on standard error if there is none."""
    version = sys.version_info[:2] if platform is Platform.HOST else _LAMBDA_VERSION
    wanted = f"python{version[0]}.{version[1]}"
    candidates = [sys.executable, *(str(Path(folder, wanted)) for folder in os.get_exec_path())]
    found = find_compiler(version, candidates)
    if found is None:
        sys.stderr.write(
            f"No {wanted} runs here, so the bundles hold sources only and every cold start compiles what it imports "
            f"(for ingress at least a third more CPU time). Put a {wanted} on PATH and synthesize again.\n"
        )
    return found


def find_compiler(version: tuple[int, int], candidates: Iterable[str]) -> Compiler | None:
    """The first of the interpreters that runs and is of that version."""
    return next((found for path in candidates if (found := Compiler.probe(path, version)) is not None), None)


class Bundler:
    """Makes bundles for one platform under `build` and keeps them there by content."""

    def __init__(
        self,
        platform: Platform,
        *,
        root: Path = ROOT,
        build: Path | None = None,
        compiler_for: Callable[[Platform], Compiler | None] = compiler_for,
    ) -> None:
        self._platform = platform
        self._root = root
        self._build = build or root / ".build"
        self._compiler_for = compiler_for

    def code_for(self, name: str) -> lambda_.Code:
        """The bundle of the function as CDK takes it. Raises `BundleFailed`."""
        from aws_cdk import aws_lambda as lambda_  # noqa: PLC0415  # starts a Node process, which no bundle needs

        return lambda_.Code.from_asset(str(self.bundle(name)))

    def bundle(self, name: str) -> Path:
        """Path of the function's zip, made now if it is not there. Raises `BundleFailed`."""
        return self.bundle_of(name, dict(self._sources(name)), self.requirements(name))

    def bundle_of(self, name: str, sources: Mapping[str, Path], requirements: str) -> Path:
        """Path of a zip of these files (place in the bundle → file) and the packages of these lines of the lock.

        Raises `BundleFailed`, also for a file that does not compile.
        """
        digest = hashlib.sha256(f"{self._platform.value}\n{self._tag()}\n{requirements}".encode())
        for target, path in sorted(sources.items()):
            digest.update(f"\n{target}\n".encode())
            digest.update(path.read_bytes())
        bundle = self._build / "bundles" / f"{self._platform.value}-{name}-{digest.hexdigest()[:16]}.zip"
        if bundle.exists():
            return bundle
        files = dict(sources)
        if requirements:
            files |= _files_in(self.packages(requirements))
        compiler = self._compiler_for(self._platform)
        with tempfile.TemporaryDirectory() as scratch:
            if compiler is not None:
                made, refused = compiler.compile(sources, Path(scratch))
                if refused:
                    raise BundleFailed("\n".join(refused))
                files |= made
            _write_zip(bundle, files)
        return bundle

    def requirements(self, name: str) -> str:
        """The lines of the lock that the function's extra needs, hashes included. Empty if it needs none."""
        project = tomllib.loads((self._root / "pyproject.toml").read_text())["project"]
        return self.locked(name, project["optional-dependencies"][name])

    def locked(self, name: str, wanted_by: Iterable[str], *, besides: Collection[str] = _FROM_THE_RUNTIME) -> str:
        """The lines of the lock for these requirements of `name` and all that they need, `besides` what is there."""
        wanted = _closure([Requirement(line) for line in wanted_by], besides)
        locked = _lock_entries((self._root / "requirements" / "dev.lock").read_text())
        missing = sorted(wanted - locked.keys())
        if missing:
            raise BundleFailed(f"{name} needs {', '.join(missing)}, which the lock lacks: run `make lock`")
        return "".join(entry for package in sorted(wanted) for entry in locked[package])

    def _sources(self, name: str) -> Iterator[tuple[str, Path]]:
        functions = self._root / "functions"
        own = functions / name
        if not (own / "__init__.py").is_file():
            raise BundleFailed(f"there is no function {name}")
        files = [path for path in functions.iterdir() if path.is_file()]
        for folder in (own, *(functions / shared for shared in _SHARED)):
            files += [path for path in folder.rglob("*") if path.is_file()]
        for path in files:
            if "__pycache__" not in path.parts and not path.name.startswith("."):
                yield path.relative_to(self._root).as_posix(), path

    def packages(self, requirements: str) -> Path:
        """A directory that holds the packages of these lines of the lock, as a bundle does. Raises `BundleFailed`."""
        digest = hashlib.sha256(f"{self._tag()}\n{requirements}".encode()).hexdigest()[:16]
        packages = self._build / "packages" / f"{self._platform.value}-{digest}"
        if packages.exists():
            return packages
        packages.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=packages.parent) as scratch:
            lock, target = Path(scratch, "requirements.txt"), Path(scratch, "packages")
            lock.write_text(requirements)
            self._install(lock, target)
            _keep_what_runs(target)
            compiler = self._compiler_for(self._platform)
            if compiler is not None:
                # What a package ships and this Python cannot compile (templates, other versions' syntax) stays source.
                compiler.compile(_files_in(target), target)
            _move_into_place(target, packages)
        return packages

    def _install(self, lock: Path, target: Path) -> None:
        common = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--target", str(target), "-r", str(lock)]
        uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--link-mode=copy", *common]
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-compile",
            "--disable-pip-version-check",
            *common,
        ]
        if self._platform is Platform.LAMBDA:
            uv += ["--python-version", "3.13", "--python-platform", "aarch64-manylinux2014"]
            pip += ["--python-version", "3.13", "--implementation", "cp", "--platform", "manylinux2014_aarch64"]
        else:
            uv += ["--python", sys.executable]
        # Some networks let only pip through (its configuration names the index); what both said is told if both fail.
        told = []
        for command in (uv, pip):
            shutil.rmtree(target, ignore_errors=True)
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if run.returncode == 0:
                return
            told.append(f"{command[2]}: {run.stderr.strip()}")
        raise BundleFailed("\n".join(told))

    def _tag(self) -> str:
        """Differs where the same sources and requirements give other files."""
        machine = (
            "cp313-aarch64" if self._platform is Platform.LAMBDA else f"{sys.version_info[:2]}-{os.uname().machine}"
        )
        compiler = self._compiler_for(self._platform)
        return f"{machine} {compiler.identity if compiler is not None else 'sources only'}"


def _files_in(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _closure(requirements: list[Requirement], besides: Collection[str]) -> set[str]:
    """Names of the packages and of everything they need on Lambda, read from what is installed here."""
    found: set[str] = set()
    asked: set[tuple[str, str]] = set()
    queue = list(requirements)
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        if name in besides:
            continue
        found.add(name)
        for extra in ("", *requirement.extras):
            if (name, extra) in asked:
                continue
            asked.add((name, extra))
            try:
                lines = metadata.requires(name) or []
            except metadata.PackageNotFoundError as exc:
                raise BundleFailed(
                    f"{name} is not installed here, so what it needs is not known: run `make setup`"
                ) from exc
            for line in lines:
                dependency = Requirement(line)
                if dependency.marker is None or dependency.marker.evaluate({**_LAMBDA_ENVIRONMENT, "extra": extra}):
                    queue.append(dependency)
    return found


def _lock_entries(lock: str) -> dict[str, list[str]]:
    """The lock's entries by package; a package has several where versions differ by marker."""
    entries: dict[str, list[str]] = {}
    for entry in re.findall(r"^[A-Za-z0-9](?:[^\n]*\\\n)*[^\n]*\n", lock, flags=re.MULTILINE):
        name = re.match(r"[A-Za-z0-9._-]+", entry)
        if name is not None:
            entries.setdefault(canonicalize_name(name.group()), []).append(entry)
    return entries


def _keep_what_runs(packages: Path) -> None:
    """Remove what only installing needs, and what would differ from run to run."""
    for path in list(packages.iterdir()):
        if path.name == "bin" or path.name.startswith("."):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for pattern in (
        "__pycache__",
        "*.dist-info/RECORD",
        "*.dist-info/INSTALLER",
        "*.dist-info/REQUESTED",
        "*.dist-info/uv_cache.json",
    ):
        for path in list(packages.rglob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write_zip(bundle: Path, sources: dict[str, Path]) -> None:
    bundle.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.NamedTemporaryFile(dir=bundle.parent, suffix=".part", delete=False) as part,
        zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive,
    ):
        for target, path in sorted(sources.items()):
            info = zipfile.ZipInfo(target, date_time=_EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o100755 if path.suffix == ".so" else 0o100644) << 16
            archive.writestr(info, path.read_bytes())
    # Two makers at the same time make the same bytes; the later one replaces them by themselves.
    Path(part.name).replace(bundle)


def _move_into_place(made: Path, final: Path) -> None:
    try:
        made.rename(final)
    except OSError:
        if not final.exists():  # somebody else was faster, and made the same
            raise
