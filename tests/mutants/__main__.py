"""Make each mistake of the catalog in a copy of the code and see the proof go red: `python -m tests.mutants [name …]`.

Every proof is first run over the unchanged copy, where it must be green: otherwise red says nothing. Ends with 1 if any
mistake went unseen, or could not be made because the text it changes is not there (once) any more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.catalog import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parent.parent.parent
COPIED = ("functions", "tests", "ops", "infra", "docs", "pyproject.toml", "app.py", "cdk.json", "README.md")
PROOF_SECONDS = 900
JOBS = 2


def main(names: list[str]) -> int:
    """Run those named, or all. Prints a line each."""
    unknown = set(names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        print(f"there is no mutant {', '.join(sorted(unknown))}")
        return 2
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    with tempfile.TemporaryDirectory(prefix="holdfast-mutants-") as scratch, ThreadPoolExecutor(JOBS) as pool:
        proofs = list(dict.fromkeys(mutant.proof for mutant in chosen))
        clean = _copy(Path(scratch) / "clean")
        for proof, (code, seconds, tail) in zip(
            proofs, pool.map(lambda proof: _run(clean, proof), proofs), strict=True
        ):
            if code != 0:
                print(f"NOT GREEN without any mistake, after {seconds:.0f} s: {' '.join(proof)}\n{tail}")
                return 1
        seen = list(pool.map(lambda mutant: _seen(Path(scratch), mutant), chosen))
    print(f"{sum(seen)} of {len(chosen)} mistakes were seen")
    return 0 if all(seen) else 1


def _seen(scratch: Path, mutant: Mutant) -> bool:
    tree = _copy(scratch / mutant.name)
    try:
        problem = _make(tree, mutant)
        if problem:
            print(f"  GONE    {mutant.name}: {problem}")
            return False
        code, seconds, tail = _run(tree, mutant.proof)
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    is_red = code == 1  # 2 and above: the proof itself could not be run
    print(f"  {'red' if is_red else 'UNSEEN':7} {mutant.name}: {mutant.says} ({seconds:.0f} s)")
    for line in tail.splitlines()[-3:] if is_red else tail.splitlines()[-30:]:
        print(f"            {line[:200]}")
    return is_red


def _copy(tree: Path) -> Path:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            tree.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, tree / name)
    return tree


def _make(tree: Path, mutant: Mutant) -> str:
    """Change the copy; why it cannot be done, or nothing."""
    for edit in mutant.edits:
        path = tree / edit.file
        text = path.read_text(encoding="utf-8")
        if text.count(edit.old) != 1:
            return f"its text is there {text.count(edit.old)} times in {edit.file}"
        path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")
    return ""


def _run(tree: Path, proof: tuple[str, ...]) -> tuple[int, float, str]:
    """The proof's exit code, how long it took, and the end of what it said."""
    began = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ended = subprocess.run(
            [sys.executable, *proof],
            check=False,
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PROOF_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return 124, time.monotonic() - began, "it did not end"
    return ended.returncode, time.monotonic() - began, (ended.stdout + ended.stderr)[-4000:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
