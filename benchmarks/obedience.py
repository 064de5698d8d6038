"""Measures the time until a running run is cancelled, or handed over by a worker that stops.

    .venv/bin/python benchmarks/obedience.py

A linear model on the 13 scores; the benchmark starts the API and its workers, with SQLite.
"""

import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from descent import Client, Run
from descent.demo import DATA
from tests.service.worker.workplace import until
from tests.serving import ROOT, running_service

TIMES = 10
CANCEL_S = 1.0  # until a run is cancelled
END_S = 10.0  # until a worker has ended after SIGTERM
TAKE_OVER_S = 2.0  # after that, until another worker trains its run
PATIENCE_S = 60.0
LONG: dict[str, Any] = {
    "model": {"type": "linear"},
    "epochs": 1_000_000,
    "split": {"type": "none"},
    "early_stopping": None,
}


def main() -> None:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        client = stack.enter_context(
            Client(stack.enter_context(running_service(folder, "--no-worker")))
        )
        dataset = client.upload(DATA / "scores.csv").id
        owner = stack.enter_context(_worker(folder))
        cancelled, ended, taken = [], [], []
        for _ in range(TIMES):
            cancelled.append(_cancel(_training(client, dataset)))
            run = _training(client, dataset)
            other = stack.enter_context(_worker(folder))
            _await_warm(client, other.pid)
            end, take = _hand_on(run, owner)
            ended.append(end)
            taken.append(take)
            _cancel(run)
            owner = other
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}\n")
    print(f"| {TIMES} times | median | slowest | target |\n|---|---|---|---|")
    for what, times, target in (
        ("a run is cancelled", cancelled, CANCEL_S),
        ("a worker that is told to stop has ended", ended, END_S),
        ("then another trains its run", taken, TAKE_OVER_S),
    ):
        verdict = "met" if max(times) <= target else "missed"
        print(
            f"| {what} | {statistics.median(times):.2f} s | {max(times):.2f} s"
            f" | ≤ {target:g} s: {verdict} |"
        )


def _cancel(run: Run) -> float:
    began = time.perf_counter()
    run.cancel()
    until(lambda: run.refresh().state == "cancelled")
    return time.perf_counter() - began


def _hand_on(run: Run, owner: subprocess.Popen[bytes]) -> tuple[float, float]:
    began = time.perf_counter()
    owner.terminate()
    owner.wait(PATIENCE_S)
    ended = time.perf_counter()
    until(lambda: run.refresh().info.attempt == 2 and run.state == "running")
    return ended - began, time.perf_counter() - ended


def _training(client: Client, dataset: str) -> Run:
    """Return a running run."""
    run = client.submit(dataset, "Final", **LONG)
    until(lambda: run.refresh().info.progress is not None and run.state == "running")
    return run


def _await_warm(client: Client, pid: int) -> None:
    def is_warm() -> bool:
        workers = client.system().workers
        return any(each.pid == pid and each.state == "ready" for each in workers)

    until(is_warm)


@contextlib.contextmanager
def _worker(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    own = {"DESCENT_DATA_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "service", "worker"], env=os.environ | own, stderr=log
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


if __name__ == "__main__":
    main()
