"""Measures the memory and the speed of training on large tables, and how good the estimates are.

    .venv/bin/python benchmarks/memory.py [peak] [larger] [rate] [estimates]

- `peak`: a table of 3 million x 14 through a service; the memory that its trainer takes above its
  start.
- `larger`: a table of 20 million x 20 with DESCENT_TRAINING_MEMORY_BYTES of 1 GiB, one epoch; the
  most memory of each process of the service. It needs 8 GB of disk and takes several minutes.
- `rate`: rows per second from files and from memory, epoch by epoch in turns in one process.
- `estimates`: ten runs; their memory and time beside the estimates of `POST /runs/validate`. Each
  configuration runs once before, from which the service learns the speed of the machine.

Memory is VmHWM, which counts what processes share in each of them, but no page of the disk's cache.
"""

import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from descent import Client
from descent.spec import RunConfig
from models.data import open_table
from models.training.dataset import Data, TrainingInput
from models.training.state import Training
from tests.serving import start_service, url_of

MB, MIB, GIB = 1e6, 2**20, 2**30
PEAK_MB = 450.0  # above the trainer's start, 3 million x 14
RATIO = 0.8  # of the rate in memory
MEMORY_TIMES, SECONDS_TIMES = 1.3, 2.0  # an estimate may be wrong by
GROUP = 100_000  # rows
POLL_S = 0.02
NET = {"type": "mlp", "hidden": [64, 64]}


def write_table(path: Path, rows: int, numbers: int, *, mixed: bool) -> None:
    """Write a table of normal numbers and their noisy function `y`, some rows at a time.

    A mixed one has a category of six values and a datetime too. Numbers have three decimals, so
    that the file is a third as large.
    """
    random = np.random.default_rng(0)
    weights = random.normal(size=numbers)
    writer: pq.ParquetWriter | None = None
    for start in range(0, rows, GROUP):
        count = min(GROUP, rows - start)
        x = random.normal(size=(count, numbers)).round(3)
        columns: dict[str, Any] = {f"x{place}": x[:, place] for place in range(numbers)}
        if mixed:
            columns["kind"] = np.array(list("abcdef"))[random.integers(0, 6, count)].tolist()
            seconds = random.integers(1_500_000_000, 1_600_000_000, count)
            columns["when"] = pa.array(seconds * 1_000_000, pa.timestamp("us"))
        columns["y"] = (np.tanh(x @ weights / 3) + 0.1 * random.normal(size=count)).round(3)
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()


# ---- the processes of a service -----------------------------------------------------------------


@dataclass
class Memory:
    """The memory of a process in bytes."""

    first: int
    most: int
    anonymous: int = 0


@dataclass
class Watch:
    """The memory of all processes of a service, looked at all the time."""

    root: int
    processes: dict[int, Memory] = field(default_factory=dict)

    def look(self) -> None:
        for pid in [self.root, *_below(self.root)]:
            if found := _status(pid):
                seen = self.processes.setdefault(pid, Memory(found["VmRSS"], 0))
                seen.most = max(seen.most, found["VmHWM"])
                seen.anonymous = max(seen.anonymous, found["RssAnon"])


def _status(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = (line.split() for line in lines if line.endswith("kB"))
    return {name.rstrip(":"): int(size) * 1024 for name, size, _unit in pairs}


def _below(pid: int) -> Iterator[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = " ".join((task / "children").read_text() for task in tasks)
    except OSError:
        return
    for child in map(int, children.split()):
        yield child
        yield from _below(child)


@contextmanager
def watched(pid: int) -> Iterator[Watch]:
    """Watch a service while the block runs."""
    watch, is_over = Watch(pid), threading.Event()

    def run() -> None:
        while not is_over.wait(POLL_S):
            watch.look()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield watch
    finally:
        is_over.set()
        thread.join()


@contextmanager
def service(folder: Path, **settings: str) -> Iterator[tuple[Client, int]]:
    """Run a service with these settings; yield a client and the number of its process."""
    process = start_service(folder, "serve", **settings)
    try:
        with Client(url_of(process, folder)) as client:
            yield client, process.pid
    finally:
        process.terminate()
        process.wait()


def trained(
    client: Client, pid: int, dataset: str, target: str, config: dict[str, Any]
) -> tuple[Any, Memory, Watch]:
    """Train; return the run, the memory of its trainer, and that of all processes."""
    with watched(pid) as watch:
        time.sleep(10 * POLL_S)  # the spare process of the next attempt is seen before its order
        run = client.submit(dataset, target, **config).wait(3600)
    if run.info.state != "succeeded":
        raise SystemExit(f"the run ended {run.info.state}: {run.info.error}")
    # The trainer is the process that grew most.
    trainer = max(watch.processes.values(), key=lambda memory: memory.most - memory.first)
    return run, trainer, watch


# ---- the measurements ---------------------------------------------------------------------------


def measure_peak(folder: Path) -> bool:
    write_table(folder / "table.parquet", 3_000_000, 11, mixed=True)
    with service(folder) as (client, pid):
        dataset = client.upload(folder / "table.parquet").id
        config = {"model": NET, "batch_size": 256, "epochs": 1}
        estimate = client.validate(dataset, "y", **config).estimate
        _run, trainer, _watch = trained(client, pid, dataset, "y", config)
    above = (trainer.most - trainer.first) / MB
    print(
        f"3 million x 14: {above:.0f} MB above the trainer's start of {trainer.first / MB:.0f} MB"
    )
    print(f"estimated {estimate.memory_bytes / MB:.0f} MB, measured {trainer.most / MB:.0f} MB")
    return _told(f"at most {PEAK_MB:g} MB above", above <= PEAK_MB)


def measure_larger(folder: Path) -> bool:
    write_table(folder / "table.parquet", 20_000_000, 19, mixed=False)
    settings = {
        "DESCENT_TRAINING_MEMORY_BYTES": str(GIB),
        "DESCENT_PARSE_TIMEOUT_S": "3600",
        "DESCENT_STALL_S": "3600",
    }
    with service(folder, **settings) as (client, pid), watched(pid) as all_of_it:
        dataset = client.upload(folder / "table.parquet").id
        (folder / "table.parquet").unlink()
        config = {"model": NET, "batch_size": 256, "epochs": 1, "split": {"validation": 0.1}}
        estimate = client.validate(dataset, "y", **config).estimate
        run, trainer, _watch = trained(client, pid, dataset, "y", config)
    print(f"20 million x 20, {estimate.disk_bytes / MB:.0f} MB in files, {run.info.timings}")
    print(f"trainer: estimated {estimate.memory_bytes / MB:.0f} MB, measured", end=" ")
    print(f"{trainer.most / MB:.0f} MB, of which anonymous {trainer.anonymous / MB:.0f} MB")
    print("\n| process | most memory | of it anonymous |\n|---|---|---|")
    for number, memory in sorted(all_of_it.processes.items()):
        print(f"| {number} | {memory.most / MIB:.0f} MiB | {memory.anonymous / MIB:.0f} MiB |")
    most = max(memory.most for memory in all_of_it.processes.values())
    return _told("every process at most 1 GiB", most <= GIB)


def measure_rate(folder: Path, rows: int = 4_000_000, epochs: int = 5) -> bool:
    path = folder / "table.parquet"
    write_table(path, rows, 19, mixed=False)
    names = [f"x{place}" for place in range(19)]
    types: dict[str, Any] = dict.fromkeys([*names, "y"], "number")
    config: dict[str, Any] = {"dataset": "ds_x", "target": "y", "task": "regression", "loss": "mse"}
    config |= {"features": names, "model": NET, "batch_size": 256, "epochs": 1000}
    trainings = []
    for is_stored in (False, True):
        table = open_table(path, types, [*names, "y"], ["y"])
        given = TrainingInput(RunConfig.model_validate(config), table, folder)
        trainings.append(Training(given, Data(given, torch.device("cpu"), is_stored=is_stored)))
    torch.set_num_threads(1)
    found: list[list[tuple[float, float]]] = [[], []]
    for _epoch in range(epochs + 1):
        for each, training in zip(found, trainings, strict=True):
            begun, used = time.perf_counter(), time.process_time()
            while not training.is_epoch_complete:
                training.advance(1e-3, time.monotonic() + 0.02)
            each.append((time.perf_counter() - begun, time.process_time() - used))
            training.end_epoch()
    count = len(trainings[0].data.train)
    print(f"{count:,} rows, batch 256, engine {trainings[0].engine.name}\n")
    print("| rows | rows/s | rows per second of processor |\n|---|---|---|")
    for name, each in zip(("in memory", "from files"), found, strict=True):
        seconds, used = (count / statistics.median(part) for part in zip(*each[1:], strict=True))
        print(f"| {name} | {seconds:,.0f} | {used:,.0f} |")
    pairs = list(zip(*(each[1:] for each in found), strict=True))
    ratio = statistics.median(memory[0] / files[0] for memory, files in pairs)
    return _told(f"from files {ratio:.2f} of the rate in memory, at least {RATIO}", ratio >= RATIO)


#: rows, numbers, further configuration
CONFIGURATIONS: list[tuple[str, int, int, dict[str, Any]]] = [
    ("13 rows, full batch", 13, 1, {"epochs": 200, "batch_size": "full"}),
    ("2 000 x 9, batch 32", 2_000, 8, {"epochs": 50}),
    ("20 000 x 9, batch 32", 20_000, 8, {"epochs": 10}),
    ("20 000 x 9, dropout", 20_000, 8, {"epochs": 10, "model": NET | {"dropout": 0.2}}),
    ("20 000 x 9, 2 x 256", 20_000, 8, {"batch_size": 256, "model": {"hidden": [256, 256]}}),
    ("20 000 x 9, 2 x 1024", 20_000, 8, {"epochs": 2, "model": {"hidden": [1024, 1024]}}),
    ("20 000 x 9, L-BFGS", 20_000, 8, {"epochs": 10, "optimizer": {"type": "lbfgs"}}),
    ("200 000 x 9, line", 200_000, 8, {"epochs": 3, "model": {"type": "linear"}}),
    ("200 000 x 9, full batch", 200_000, 8, {"epochs": 20, "batch_size": "full"}),
    ("1 000 000 x 21", 1_000_000, 20, {"epochs": 2, "batch_size": 256}),
]


def measure_estimates(folder: Path) -> bool:
    print("| run | memory | estimated | times | seconds | estimated | times |")
    print("|---|---|---|---|---|---|---|")
    is_met = True
    with service(folder) as (client, pid):
        datasets: dict[tuple[int, int], str] = {}
        for name, rows, numbers, more in CONFIGURATIONS:
            if (rows, numbers) not in datasets:
                write_table(folder / "table.parquet", rows, numbers, mixed=False)
                uploaded = client.upload(folder / "table.parquet")
                datasets[rows, numbers] = uploaded.id
            dataset = datasets[rows, numbers]
            model = {"type": "mlp", "hidden": [64, 64]} | more.get("model", {})
            if model["type"] == "linear":
                del model["hidden"]
            config = {"epochs": 5, "early_stopping": None} | more | {"model": model}
            client.submit(dataset, "y", **config).wait(3600)
            estimate = client.validate(dataset, "y", **config).estimate
            run, trainer, _watch = trained(client, pid, dataset, "y", config)
            timings = run.info.timings
            seconds = (timings.start_s or 0.0) + (timings.training_s or 0.0)
            memory_times = estimate.memory_bytes / trainer.most
            seconds_times = estimate.seconds / seconds
            print(
                f"| {name} | {trainer.most / MB:.0f} MB | {estimate.memory_bytes / MB:.0f} MB |"
                f" {memory_times:.2f} | {seconds:.2f} | {estimate.seconds:.2f} |"
                f" {seconds_times:.2f} |",
                flush=True,
            )
            is_met &= 1 / MEMORY_TIMES <= memory_times <= MEMORY_TIMES
            is_met &= 1 / SECONDS_TIMES <= seconds_times <= SECONDS_TIMES
    return _told(f"within {MEMORY_TIMES} times of memory and {SECONDS_TIMES} of time", is_met)


def _told(target: str, is_met: bool) -> bool:  # noqa: FBT001  the last word of the sentence
    print(f"\ntarget: {target}: {'met' if is_met else 'missed'}\n", flush=True)
    return is_met


MEASUREMENTS = {
    "peak": measure_peak,
    "larger": measure_larger,
    "rate": measure_rate,
    "estimates": measure_estimates,
}


def main() -> None:
    print(f"{platform.machine()}, {os.cpu_count()} CPUs\n")
    is_met = True
    for name in sys.argv[1:] or MEASUREMENTS:
        with tempfile.TemporaryDirectory() as folder:
            is_met &= MEASUREMENTS[name](Path(folder))
    sys.exit(not is_met)


if __name__ == "__main__":
    main()
