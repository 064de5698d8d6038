"""Measures the speed of a batch prediction by the whole service, from submission to dataset.

    .venv/bin/python benchmarks/batch_predict.py [rows]

A network 8-64-64-1, on one core: the service, its worker and the process that predicts share it.
The new dataset is ready, profiled and stored when the clock stops.
"""

import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from descent import Client
from descent.demo import running_service

ROWS = 2_000_000
ROUNDS = 3
H2O = 22_300  # rows a second of H2O-3 on one core, for the same network
TARGET = 10 * H2O
FEATURES = 8


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # child processes inherit it
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(Path(folder), Path(folder) / "service.log") as url,
    ):
        measure(url, Path(folder), rows)


def measure(url: str, folder: Path, rows: int) -> None:
    with Client(url) as client:
        training = client.upload(table(folder, 2000), "training")
        run = client.submit(
            training, "y", model={"type": "mlp", "hidden": [64, 64]}, epochs=3, register_as="net"
        )
        run.wait(300)
        dataset = client.upload(table(folder, rows), "rows", wait="60")
        rates = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            job = client.predict_dataset("net", dataset).wait(600)
            took = time.perf_counter() - began
            rates.append((job.result().rows or 0) / took)
    print(f"{platform.machine()}, one of {os.cpu_count()} CPUs, {rows} rows, 8-64-64-1\n")
    print("| round | rows/s | times H2O-3 |\n|---|---|---|")
    for number, rate in enumerate(rates, start=1):
        print(f"| {number} | {rate:,.0f} | {rate / H2O:.1f} |")
    median = statistics.median(rates)
    print(
        f"\nmedian {median:,.0f} rows/s; target ≥ {TARGET:,}:"
        f" {'met' if median >= TARGET else 'missed'}"
    )


def table(folder: Path, rows: int) -> Path:
    random = np.random.default_rng(rows)
    columns = {f"x{place}": random.normal(size=rows) for place in range(FEATURES)}
    columns["y"] = sum(columns.values()) + random.normal(size=rows)
    path = folder / f"{rows}.parquet"
    pq.write_table(pa.table(columns), path)
    return path


if __name__ == "__main__":
    main()
