"""`make chaos`: plays histories on both databases and both stores, and prints the results.

    python -m tests.chaos [--kills N] [--seed N] [--histories N] [--only TEXT] [--lanes TEXT]

A failure is printed with the seed that reproduces it.
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.failpoints import VARIABLE
from tests.postgres import own_server
from tests.storage import running_s3
from tests.warm import Order

ROOT = Path(__file__).resolve().parent.parent.parent
CORES = os.cpu_count() or 1  # lanes at once: more would only compete for the processors
LANES = [(database, store) for database in ("sqlite", "postgresql") for store in ("local", "s3")]
COLUMNS = ("runs", "attempts", "kills", "services", "zombies", "full", "looks")


def main() -> None:
    given = _parser().parse_args()
    seed = random.randrange(10**6) if given.seed is None else given.seed  # noqa: S311  no secret
    print(f"seed {seed}", flush=True)
    began = time.monotonic()
    lanes = [lane for lane in LANES if given.lanes in "-".join(lane)]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="descent-chaos-")))
        bucket = stack.enter_context(running_s3())
        server = stack.enter_context(own_server()).url
        quota = -(-given.kills // len(lanes))
        orders = [
            Order(
                *lane,
                folder_of(folder, lane),
                server,
                bucket,
                seed,
                quota,
                given.histories,
                given.only,
            )
            for lane in lanes
        ]
        for first in range(0, len(orders), CORES):
            play(orders[first : first + CORES])
        reports = {f"{order.database}, {order.store}": report_of(order) for order in orders}
    _print(reports, time.monotonic() - began)
    if wrong := [sentence for report in reports.values() for sentence in report["wrong"]]:
        print("\n".join(wrong))
        sys.exit(f"{len(wrong)} broken promises; `make chaos SEED={seed}` plays them again")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chaos", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=300, help="processes to kill at least")
    parser.add_argument("--seed", type=int, help="plays the same histories again")
    parser.add_argument("--histories", type=int, default=10**9, help="at most so many a lane")
    parser.add_argument("--only", default="", help="only histories that are called like this")
    parser.add_argument("--lanes", default="", help="only lanes that are called like this")
    return parser


def folder_of(parent: Path, lane: tuple[str, str]) -> str:
    """Create the folder of a lane."""
    folder = parent / "-".join(lane)
    (folder / "points").mkdir(parents=True)
    return str(folder)


def play(orders: list[Order]) -> None:
    """Play lanes, all at once."""
    with contextlib.ExitStack() as stack:
        for process in [stack.enter_context(_started(order)) for order in orders]:
            process.wait()


@contextlib.contextmanager
def _started(order: Order) -> Iterator[subprocess.Popen[bytes]]:
    own = {VARIABLE: str(Path(order.folder) / "points"), "PYTHONPATH": str(ROOT)}
    with (Path(order.folder) / "lane.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos", "lane", json.dumps(asdict(order))],
            env=os.environ | own,
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            # The lane and all processes that it forked.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()


def report_of(order: Order) -> dict[str, Any]:
    """Return the counts and the violations of a lane."""
    path = Path(order.folder) / "report.json"
    if not path.exists():
        words = (Path(order.folder) / "lane.log").read_text()[-4000:]
        return {"reached": [], "wrong": [f"a lane ended without a report: {words}"]}
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def _print(reports: dict[str, dict[str, Any]], seconds: float) -> None:
    print("| lane | points reached | " + " | ".join(COLUMNS) + " | broken promises |")
    print("|---" * (len(COLUMNS) + 3) + "|")
    for name, report in reports.items():
        figures = [report.get(column, 0) for column in COLUMNS]
        cells = [name, len(report["reached"]), *figures, len(report["wrong"])]
        print("| " + " | ".join(str(cell) for cell in cells) + " |")
    points = {place for report in reports.values() for place in report["reached"]}
    kills, zombies, services = (
        sum(report.get(name, 0) for report in reports.values())
        for name in ("kills", "zombies", "services")
    )
    names = {place.partition(":")[0] for place in points}
    print(
        f"{kills} kills, {services} of the whole service, {zombies} zombies,"
        f" at {len(names)} points, in {seconds:.0f} s"
    )
