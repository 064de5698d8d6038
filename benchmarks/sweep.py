"""Measures a sweep over 32 learning rates beside one run, and beside one run of another checkout.

    .venv/bin/python benchmarks/sweep.py [--against ANOTHER_CHECKOUT] [--rounds 5]

The table has the shape of california_housing (20,640 rows, 8 numbers); the network has two layers
of 64 units, the batch 256 rows, and each run 20 epochs. A round is one run here, one run of the
other checkout, and the sweep; each service is warm. Processor time is that of all processes of the
service, whatever they do. At the end, each member's curve is compared with that of the same run
alone.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from submit_to_succeeded import OWN, service_of

from descent import Client
from descent.run import Run
from descent.sweep import Sweep

ROWS = 20_640
COLUMNS = ["income", "age", "rooms", "bedrooms", "population", "occupants", "latitude", "longitude"]
MEMBERS = 32
TARGET_PROCESSOR = 1.1  # of the processor time of as many single runs
TARGET_WALL = 4.0  # of the time of one run of the other checkout
RATES = np.geomspace(1e-4, 3e-2, MEMBERS).round(6).tolist()
CONFIG: dict[str, Any] = {
    "model": {"type": "mlp", "hidden": [64, 64]},
    "batch_size": 256,
    "epochs": 20,
    "early_stopping": None,
}
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--against", type=Path, help="also measure one run of the code in this folder"
    )
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}\n")
    with ExitStack() as opened:
        service = opened.enter_context(service_of(OWN))
        client = opened.enter_context(Client(service, progress=False))
        dataset = upload(client)
        others = []
        if asked.against is not None:
            other = opened.enter_context(service_of(asked.against.resolve()))
            others.append(opened.enter_context(Client(other, progress=False)))
            other_dataset = upload(others[0])
        one(client, dataset)
        for each in others:
            one(each, other_dataset)
        alone, before, sweeps = [], [], []
        for _round in range(asked.rounds):
            alone.append(measured(lambda: one(client, dataset)))
            before += [measured(partial(one, each, other_dataset)) for each in others]
            sweeps.append(measured(lambda: sweep(client, dataset)))
        report(alone, before, sweeps)
        compare(client, dataset)


def upload(client: Client) -> str:
    """Upload a table of districts with the value of their houses."""
    random = np.random.default_rng(0)
    x = random.lognormal(1.0, 0.5, (ROWS, len(COLUMNS)))
    value = np.tanh(x[:, 0] / 3) * 3 + 0.3 * x[:, 2] / x[:, 3] + random.normal(0, 0.3, ROWS)
    table = np.column_stack([x, value])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "houses.csv"
        header = ",".join([*COLUMNS, "value"])
        np.savetxt(path, table, delimiter=",", fmt="%.5f", header=header, comments="")
        return client.upload(path).id


def one(client: Client, dataset: str, rate: float = 1e-3) -> Run:
    """Train one run; return it."""
    optimizer = {"type": "adam", "learning_rate": rate}
    return client.submit(dataset, "value", **CONFIG, optimizer=optimizer).wait(300)


def sweep(client: Client, dataset: str) -> Sweep:
    """Train all members; return the sweep."""
    space = {"optimizer.learning_rate": {"grid": RATES}}
    return client.submit_sweep(dataset, "value", space, **CONFIG).wait(300)


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that some work takes, and the processor seconds of all services."""
    spent, began = processor_s(), time.perf_counter()
    work()
    wall = time.perf_counter() - began
    time.sleep(0.3)  # the processes of the work end
    return wall, processor_s() - spent


def processor_s() -> float:
    """Return the processor time of all processes below this one, ended ones included."""
    return sum(spent_by(pid) for pid in below(os.getpid()))


def below(pid: int) -> list[int]:
    """Return all descendants of a process."""
    found = []
    for task in (Path("/proc") / str(pid) / "task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *below(int(child))]
    return found


def spent_by(pid: int) -> float:
    """Return the processor time of a process and its ended children."""
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / TICKS


def report(
    alone: list[tuple[float, float]],
    before: list[tuple[float, float]],
    sweeps: list[tuple[float, float]],
) -> None:
    print(f"| medians of {len(sweeps)} | wall | processor |\n|---|---|---|")
    rows = {"one run": alone, "one run, the other code": before, f"sweep of {MEMBERS}": sweeps}
    for name, found in rows.items():
        if found:
            wall, spent = (statistics.median(each) for each in zip(*found, strict=True))
            print(f"| {name} | {wall:.3f} s | {spent:.3f} s |")
    ratios = [s[1] / (MEMBERS * a[1]) for s, a in zip(sweeps, alone, strict=True)]
    show(f"processor time, of {MEMBERS} single runs", ratios, TARGET_PROCESSOR)
    if before:
        ratios = [s[0] / b[0] for s, b in zip(sweeps, before, strict=True)]
        show("wall time, of one run of the other code", ratios, TARGET_WALL)


def show(name: str, ratios: list[float], target: float) -> None:
    found = statistics.median(ratios)
    print(f"\n{name}: {found:.2f}, target ≤ {target}: {'met' if found <= target else 'missed'}")


def compare(client: Client, dataset: str) -> None:
    """Compare the curves of a sweep's members with those of the same runs alone."""
    members = {
        trial.parameters["optimizer.learning_rate"]: trial.run
        for trial in sweep(client, dataset).leaderboard()
    }
    equal = sum(
        curve(client, run_id) == curve(client, one(client, dataset, rate).id)
        for rate, run_id in members.items()
    )
    print(f"\ncurves equal to the same run alone: {equal} of {len(members)}")


def curve(client: Client, run_id: str) -> list[Any]:
    found = client.run(run_id).metrics()
    return list(zip(found.epoch, found.split, found.name, found.value, strict=True))


if __name__ == "__main__":
    main()
