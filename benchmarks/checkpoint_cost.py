"""Measures the cost of checkpoints during training, in time and in bytes.

    .venv/bin/python benchmarks/checkpoint_cost.py [seconds of one training]

A network of a million parameters with Adam is trained through the whole service, with checkpoints
at the pace that the service itself chooses, and for comparison without a service: with and without
checkpoints in turn, so that other load on the machine affects both.
"""

import os
import platform
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray

from descent import Client
from descent.demo import running_service
from descent.spec import RunConfig
from models.data import Table
from models.training.dataset import TrainingInput
from models.training.interface import Saved
from models.training.loop import train

ROWS, INPUTS = 4_000, 20
ROUNDS = 2
TARGET = 0.03  # of the training time
NEVER = 1e9  # seconds between two checkpoints
CONFIG = {
    "model": {"type": "mlp", "hidden": [1000, 900]},
    "optimizer": {"type": "adam", "learning_rate": 1e-4},
    "epochs": 1_000_000,
    "batch_size": 64,
    "early_stopping": None,
}
Columns = dict[str, NDArray[np.float64]]
FEATURES = [f"x{n}" for n in range(INPUTS)]


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    columns = make_columns()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}\n")
    with tempfile.TemporaryDirectory() as folder:
        share = through_the_service(columns, seconds, Path(folder))
        compare(columns, seconds / 2, Path(folder))
    print(f"\ntarget: at most {TARGET:.0%} of the time: {'met' if share <= TARGET else 'missed'}")


def make_columns() -> Columns:
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS, INPUTS))
    y = np.sin(x @ random.normal(size=INPUTS)) + x[:, 0] * x[:, 1]
    return {name: x[:, n] for n, name in enumerate(FEATURES)} | {"y": y}


def through_the_service(columns: Columns, seconds: float, folder: Path) -> float:
    """Train until the budget is used up; return the share of the time that checkpoints took."""
    names = list(columns)
    rows = np.column_stack([columns[name] for name in names])
    table = folder / "table.csv"
    np.savetxt(table, rows, delimiter=",", header=",".join(names), comments="", fmt="%.6g")
    with running_service(folder, folder / "service.log") as url, Client(url) as client:
        dataset = client.upload(table)
        before = stored(folder)
        run = client.submit(dataset, "y", **CONFIG, budget={"time_s": seconds})
        info = run.wait(seconds * 3 + 60).info
        made = sum(event.kind == "checkpoint" for event in run.follow())
        kept = run.checkpoints()
        after = stored(folder)
        httpx.delete(f"{url}/api/v1/runs/{run.id}").raise_for_status()
        deleted = wait_for_bytes(folder, before)
    training_s, saving_s = info.timings.training_s or 0.0, info.timings.saving_s or 0.0
    share = saving_s / training_s
    print("| Through the service | |\n|---|---|")
    print(f"| training | {training_s:.1f} s |")
    print(f"| checkpoints made | {made} |")
    print(f"| training waited for them | {saving_s:.2f} s, {share:.2%} |")
    sizes = sum(checkpoint.bytes for checkpoint in kept) / 1e6
    print(f"| kept at the end | {len(kept)} checkpoints, {sizes:.1f} MB |")
    print(f"| bytes on disk | {(after - before) / 1e6:.1f} MB |")
    print(f"| after DELETE | {(deleted - before) / 1e6:.1f} MB |")
    return share


def stored(folder: Path) -> int:
    return sum(
        path.stat().st_size for path in (folder / "data" / "blobs").rglob("*") if path.is_file()
    )


def wait_for_bytes(folder: Path, at_most: int) -> int:
    """Give the service a few seconds to free deleted blobs; return the bytes left."""
    deadline = time.monotonic() + 10
    while stored(folder) > at_most and time.monotonic() < deadline:
        time.sleep(0.2)
    return stored(folder)


def compare(columns: Columns, seconds: float, folder: Path) -> None:
    """Count the steps of trainings of equal length with and without checkpoints."""
    table = Table(dict.fromkeys(columns, "number"), dict(columns), ROWS)
    asked = CONFIG | {"dataset": "ds_1", "target": "y", "features": FEATURES}
    asked |= {"task": "regression", "loss": "mse", "budget": {"time_s": seconds}}
    job = TrainingInput(RunConfig.model_validate(asked), table, folder)
    steps = {"with": 0, "without": 0}
    for _ in range(ROUNDS):
        steps["with"] += count_steps(job)
        steps["without"] += count_steps(replace(job, checkpoint_s=NEVER))
    cost = 1 - steps["with"] / steps["without"]
    print(f"\n| {ROUNDS} trainings of {seconds:g} s each | steps |\n|---|---|")
    print(f"| without checkpoints | {steps['without']} |")
    print(f"| with checkpoints | {steps['with']}, {cost:+.2%} fewer |")


def count_steps(job: TrainingInput) -> int:
    made = 0
    for event in train(job, lambda: None):
        if isinstance(event, Saved):
            made = event.step
            event.path.unlink()
    return made


if __name__ == "__main__":
    main()
