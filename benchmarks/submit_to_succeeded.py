"""Measures the time from the submission of a small run until its client sees `succeeded`.

    .venv/bin/python benchmarks/submit_to_succeeded.py [address of a service]

The 13 scores, a linear model, 200 epochs; one run after the other, on a warm service. Without an
address it starts a service of its own.
"""

import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

from descent import Client
from descent.demo import DATA, running_service

RUNS = 20
WARM_UP = 3
TARGET_S = 0.3  # median
CONFIG = {
    "model": {"type": "linear"},
    "epochs": 200,
    "batch_size": "full",
    "split": {"type": "none"},
    "early_stopping": None,
}


def main() -> None:
    if len(sys.argv) > 1:
        measure(sys.argv[1])
        return
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "service.log"
        with running_service(Path(folder), log) as url:
            measure(url)


def measure(url: str) -> None:
    with Client(url) as client:
        dataset = client.upload(DATA / "scores.csv")
        rows = [one(client, dataset.id) for _ in range(WARM_UP + RUNS)][WARM_UP:]
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}\n")
    print(f"| {RUNS} runs | median | slowest |\n|---|---|---|")
    for part in rows[0]:
        values = [row[part] for row in rows]
        print(f"| {part} | {statistics.median(values):.3f} s | {max(values):.3f} s |")
    median = statistics.median(row["submit to succeeded"] for row in rows)
    print(f"\ntarget: median ≤ {TARGET_S} s: {'met' if median <= TARGET_S else 'missed'}")


def one(client: Client, dataset: str) -> dict[str, float]:
    """Return the total time that the client measures, and the parts that the service reports."""
    began = time.perf_counter()
    run = client.submit(dataset, "Final", **CONFIG).wait(60)
    whole = time.perf_counter() - began
    timings = run.info.timings
    return {
        "submit to succeeded": whole,
        "in the queue": timings.queued_s or 0.0,
        "starting": timings.start_s or 0.0,
        "training": timings.training_s or 0.0,
    }


if __name__ == "__main__":
    main()
