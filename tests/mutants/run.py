"""Seeded faults in the product: each must be caught by some test. `make mutants` runs them all and prints a line each.

Each fault is one replacement in one file of a copy of the project; the tests named beside it must fail on the copy, and pass without it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from catalogue import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    "tfpasses",
    "passes",
    "tests",
    "golden",
    "docs",
    "demo",
    "benchmarks",
    "pyproject.toml",
    "README.md",
    "CONTRIBUTING.md",
    "Makefile",
)
TESTS_FAILED = 1


def copy_project(target: Path) -> None:
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, target / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "output"))
        elif source.exists():
            shutil.copy2(source, target / part)


def run_tests(project: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """pytest's exit status on some tests of a copy, and its last lines."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
    environment = {**os.environ, "PYTHONPATH": str(project), "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, "\n".join(done.stdout.splitlines()[-6:])


def apply(project: Path, mutant: Mutant) -> str:
    """Put the fault in; gives the file's text before."""
    path = project / mutant.file
    text = path.read_text()
    if text.count(mutant.before) != 1:
        sys.exit(f"mutant {mutant.name!r}: its text stands {text.count(mutant.before)} times in {mutant.file}; mend the catalogue")
    path.write_text(text.replace(mutant.before, mutant.after))
    return text


def main() -> int:
    chosen = [mutant for mutant in MUTANTS if not sys.argv[1:] or any(word in mutant.name for word in sys.argv[1:])]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        copy_project(project)
        for mutant in chosen:  # all texts are there, before an hour is spent on the first
            (project / mutant.file).write_text(apply(project, mutant))
        tests = tuple(dict.fromkeys(test for mutant in chosen for test in mutant.tests))
        status, output = run_tests(project, tests)
        if status:
            print(output)
            sys.exit("the tests fail without any mutant")
        for number, mutant in enumerate(chosen, start=1):
            start = time.perf_counter()
            text = apply(project, mutant)
            status, output = run_tests(project, mutant.tests)
            (project / mutant.file).write_text(text)
            caught, seconds = status == TESTS_FAILED, time.perf_counter() - start
            print(f"{number:2}/{len(chosen)} {'caught  ' if caught else 'SURVIVED'} {mutant.name} ({seconds:.0f} s)", flush=True)
            if not caught:
                survivors.append(mutant.name)
                print(output)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants caught")
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
