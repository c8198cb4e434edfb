"""Make each mistake of the catalog in a copy of the code and see the proof go red: `python -m tests.mutants [name …]`.

All proofs are first run over the unchanged copy, where they must be green: otherwise red says nothing. Ends with 1 if
any mistake went unseen, or could not be made: because the text it changes is not there (once) any more, because what it
makes is no program, or because the proof fell over something else.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.catalog import MUTANTS, Mutant, Proof

ROOT = Path(__file__).resolve().parent.parent.parent
COPIED = ("functions", "tests", "ops", "infra", "docs", "pyproject.toml", "app.py", "cdk.json", "README.md")
PROOF_SECONDS = 600
JOBS = 2

_FAILED = re.compile(r"^FAILED (?P<test>.+?)(?: - (?P<why>.*))?$", re.MULTILINE)
_BROKEN = re.compile(r"^BROKEN\n  (?P<promise>.+)$", re.MULTILINE)
# A test that ends like this has met a program that does not run, and not one that does the wrong thing.
_NO_PROGRAM = ("NameError", "UnboundLocalError", "SyntaxError", "ImportError", "ModuleNotFoundError")


@dataclass(frozen=True, slots=True)
class Ran:
    """How one proof ended. `said` is its whole output."""

    code: int
    seconds: float
    said: str


def main(names: list[str]) -> int:
    """Run those named, or all. Prints a line each, as it becomes known."""
    unknown = set(names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        print(f"there is no mutant {', '.join(sorted(unknown))}")
        return 2
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="holdfast-mutants-") as scratch, ThreadPoolExecutor(JOBS) as pool:
        clean, together = copied(Path(scratch) / "clean"), everything([mutant.proof for mutant in chosen])
        for proof, ran in zip(together, pool.map(lambda proof: run(clean, proof), together), strict=True):
            if ran.code != 0:
                print(f"NOT GREEN without any mistake, after {ran.seconds:.0f} s: {' '.join(proof.command)}")
                print(ran.said[-4000:])
                return 1
            print(f"  green   without any mistake ({ran.seconds:.0f} s): {proof}", flush=True)
        seen = list(pool.map(lambda mutant: is_seen(Path(scratch), mutant), chosen))
    print(f"{sum(seen)} of {len(chosen)} mistakes were seen, in {time.monotonic() - began:.0f} s")
    return 0 if all(seen) else 1


def everything(proofs: list[Proof]) -> list[Proof]:
    """All that the proofs run, each of it once: the schedules of the crash simulator, and tests."""
    tests = tuple(dict.fromkeys(test for proof in proofs for test in proof.tests))
    scenarios = tuple(dict.fromkeys(scenario for proof in proofs for scenario in proof.scenarios))
    schedules = max((proof.schedules for proof in proofs), default=0)
    crash = [Proof(scenarios=scenarios, schedules=schedules)] if scenarios else []
    return [*crash, Proof(tests=tests)] if tests else crash


def is_seen(scratch: Path, mutant: Mutant) -> bool:
    """Make the mistake in a copy of its own, and say what became of it."""
    tree = copied(scratch / mutant.name)
    try:
        problem = make(tree, mutant)
        if problem:
            print(f"  ERROR   {mutant.name}: {problem}", flush=True)
            return False
        ran = run(tree, mutant.proof)
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    by, problem = caught_by(mutant.proof, ran)
    word = "ERROR" if problem else "red" if by else "UNSEEN"
    lines = [f"  {word:7} {mutant.name}: {mutant.says} ({ran.seconds:.0f} s)"]
    if by:
        lines.append(f"            caught by {by[:300]}")
    if problem:
        lines.append(f"            {problem}")
    if not by:
        lines += [f"            {line[:200]}" for line in ran.said.splitlines()[-30:]]
    print("\n".join(lines), flush=True)
    return bool(by) and not problem


def copied(tree: Path) -> Path:
    """All that the proofs need, there."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            tree.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, tree / name)
    return tree


def make(tree: Path, mutant: Mutant) -> str:
    """Change the copy; why it cannot be done, or nothing."""
    for edit in mutant.edits:
        path = tree / edit.file
        text = path.read_text(encoding="utf-8")
        if text.count(edit.old) != 1:
            return f"its text is there {text.count(edit.old)} times in {edit.file}"
        path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")
    files = sorted({edit.file for edit in mutant.edits})
    checked = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--quiet", "--select", "E9,F821", *files],
        check=False,
        cwd=tree,
        capture_output=True,
        text=True,
    )
    return "" if checked.returncode == 0 else f"what it makes is no program: {checked.stdout}{checked.stderr}"


def run(tree: Path, proof: Proof) -> Ran:
    """Run it over that copy."""
    began = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "300"}
    try:
        ended = subprocess.run(
            [sys.executable, *proof.command],
            check=False,
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PROOF_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Ran(124, time.monotonic() - began, f"it did not end within {PROOF_SECONDS} s")
    return Ran(ended.returncode, time.monotonic() - began, ended.stdout + ended.stderr)


def caught_by(proof: Proof, ran: Ran) -> tuple[str, str]:
    """The test that failed, or the promise that was broken, empty if none was; and why that is no proof, or nothing."""
    if ran.code == 0:
        return "", ""
    found = _FAILED.search(ran.said) if proof.tests else _BROKEN.search(ran.said)
    if ran.code != 1 or found is None:
        return "", f"the proof itself could not be run: it ended with {ran.code}"
    if not proof.tests:
        return f"crash: {found['promise']}", ""
    why = found["why"] or ""
    problem = "it is no program that does the wrong thing: it does not run" if why.startswith(_NO_PROGRAM) else ""
    return f"{found['test']}: {why}", problem


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
