"""`make parity`: sends generated tables through every way and prints how far answers differ.

    python -m tests.parity [--tables N] [--seed N] [--first N]

A failure is printed with the seed and the table's number, which reproduce it.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.parity.check import TOLERANCE, Proof, prove, stage

SHOWN = 20  # failures that are printed in full


def main() -> None:
    given = _parser().parse_args()
    seed = random.randrange(10**6) if given.seed is None else given.seed  # noqa: S311  no secret
    print(f"seed {seed}", flush=True)
    began, proof = time.monotonic(), Proof()
    numbers = range(given.first, given.first + given.tables)
    with (
        tempfile.TemporaryDirectory(prefix="descent-parity-") as folder,
        stage(Path(folder)) as (client, models),
    ):
        for proof in prove(client, models, seed=seed, numbers=numbers):
            if proof.tables % 1000 == 0:
                print(f"{proof.tables} tables, {len(proof.failures)} failures", flush=True)
    _print(proof, len(models), time.monotonic() - began)
    sys.exit(bool(proof.failures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="parity", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", type=int, default=10_000, help="how many tables")
    parser.add_argument("--seed", type=int, help="makes the same tables again")
    parser.add_argument("--first", type=int, default=0, help="the number of the first table")
    return parser


def _print(proof: Proof, models: int, seconds: float) -> None:
    for failure in proof.failures[:SHOWN]:
        print(f"FAILED {failure}")
    print(f"\n{proof.tables} tables of {proof.rows} rows for {models} models, {seconds:.0f} s\n")
    print("| way | tables | rows | rows in error | largest difference |\n|---|---|---|---|---|")
    for name, tally in proof.ways.items():
        print(f"| {name} | {tally.tables} | {tally.rows} | {tally.errors} | {tally.largest:.1e} |")
    print(f"\nallowed difference {TOLERANCE:g}; {len(proof.failures)} failures")


main()
