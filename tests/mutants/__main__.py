"""`make mutants`: puts one fault at a time into a copy of the code and runs the named test.

    python -m tests.mutants [--only TEXT]

A mutant is killed when its test fails. First the tests must pass on the code as it is.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.catalogue import MUTANTS, ROOT, Mutant

AT_ONCE = 2
FAILED = 1  # pytest's status if tests ran and failed; any other is no kill


def main() -> None:
    parser = argparse.ArgumentParser(prog="mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="only mutants that are called like this")
    only = parser.parse_args().only
    mutants = [mutant for mutant in MUTANTS if only in mutant.name]
    with (
        tempfile.TemporaryDirectory(prefix="descent-mutants-") as folder,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(AT_ONCE):
            copies.put(_copy(Path(folder) / str(number)))
        _check_unharmed(copies, mutants)
        print("| mutant | file | test | killed |\n|---|---|---|---|", flush=True)
        is_killed = list(pool.map(lambda mutant: _try(copies, mutant), mutants))
    survivors = [m.name for m, killed in zip(mutants, is_killed, strict=True) if not killed]
    print(f"{len(mutants) - len(survivors)} of {len(mutants)} mutants are killed")
    if survivors:
        sys.exit(f"survivors: {', '.join(survivors)}")


def _copy(folder: Path) -> Path:
    """Copy the project, without the environment and data."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "data", "node_modules")
    shutil.copytree(ROOT, folder, ignore=ignored)
    shutil.copytree(ROOT / "descent" / "data", folder / "descent" / "data")
    return folder


def _check_unharmed(copies: "SimpleQueue[Path]", mutants: list[Mutant]) -> None:
    copy = copies.get()
    done = _run(copy, sorted({mutant.test for mutant in mutants}))
    copies.put(copy)
    if done.returncode:
        sys.exit(f"the tests fail without a mutant:\n{done.stdout[-4000:]}")


def _try(copies: "SimpleQueue[Path]", mutant: Mutant) -> bool:
    """Put the mutant into a free copy, and return whether its test fails."""
    copy = copies.get()
    path = copy / mutant.file
    before = path.read_text()
    path.write_text(before.replace(mutant.old, mutant.new))
    done = _run(copy, [mutant.test])
    path.write_text(before)
    copies.put(copy)
    is_killed = done.returncode == FAILED
    word = "yes" if is_killed else f"NO (status {done.returncode})"
    print(f"| {mutant.name} | {mutant.file} | {mutant.test} | {word} |", flush=True)
    return is_killed


def _run(copy: Path, tests: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        cwd=copy,
        # Processes that a test starts must import the copy too.
        env=os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    main()
