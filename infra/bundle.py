"""A function's code with the packages it needs, as a zip, without Docker.

A bundle holds `functions/` as the import root has it, so tests and Lambda import alike: the modules that all functions
share, the one function's own folder, and the packages of that function's extra in `pyproject.toml` with what they
depend on, in the locked versions with their hashes checked. boto3 comes from the runtime. Equal inputs give equal
bytes; a bundle that exists is used again.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from aws_cdk import aws_lambda as lambda_
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra.config import Platform

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


class BundleFailed(Exception):
    """A bundle could not be made: the installer failed, or the lock lacks a package that is needed."""


class Bundler:
    """Makes bundles for one platform under `build` and keeps them there by content."""

    def __init__(self, platform: Platform, *, root: Path = ROOT, build: Path | None = None) -> None:
        self._platform = platform
        self._root = root
        self._build = build or root / ".build"

    def code_for(self, name: str) -> lambda_.Code:
        """The bundle of the function as CDK takes it. Raises `BundleFailed`."""
        return lambda_.Code.from_asset(str(self.bundle(name)))

    def bundle(self, name: str) -> Path:
        """Path of the function's zip, made now if it is not there. Raises `BundleFailed`."""
        sources = dict(self._sources(name))
        requirements = self.requirements(name)
        digest = hashlib.sha256(f"{self._platform.value}\n{self._tag()}\n{requirements}".encode())
        for target, path in sorted(sources.items()):
            digest.update(f"\n{target}\n".encode())
            digest.update(path.read_bytes())
        bundle = self._build / "bundles" / f"{self._platform.value}-{name}-{digest.hexdigest()[:16]}.zip"
        if bundle.exists():
            return bundle
        if requirements:
            packages = self._packages(requirements)
            for path in sorted(packages.rglob("*")):
                if path.is_file():
                    sources[path.relative_to(packages).as_posix()] = path
        _write_zip(bundle, sources)
        return bundle

    def requirements(self, name: str) -> str:
        """The lines of the lock that the function's extra needs, hashes included. Empty if it needs none."""
        project = tomllib.loads((self._root / "pyproject.toml").read_text())["project"]
        wanted = _closure([Requirement(line) for line in project["optional-dependencies"][name]])
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

    def _packages(self, requirements: str) -> Path:
        """A directory that holds the packages, installed for the platform. Raises `BundleFailed`."""
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
        return "cp313-aarch64" if self._platform is Platform.LAMBDA else f"{sys.version_info[:2]}-{os.uname().machine}"


def _closure(requirements: list[Requirement]) -> set[str]:
    """Names of the packages and of everything they need on Lambda, read from what is installed here."""
    found: set[str] = set()
    asked: set[tuple[str, str]] = set()
    queue = list(requirements)
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        if name in _FROM_THE_RUNTIME:
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
