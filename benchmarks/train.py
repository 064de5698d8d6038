"""Compares the engines of a training with scikit-learn and with PyTorch.

    .venv/bin/python benchmarks/train.py [rounds]

Everything trains in this process, one epoch each in turn, so that other load on the machine affects
all alike. The ratios are medians over the rounds. With one thread each they are ratios of processor
time, because other processes change it least; with two threads, of the time that passed.
"""

import math
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neural_network import MLPClassifier, MLPRegressor
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from descent.spec import RunConfig
from models.data import Table
from models.engine.hardware import idle_processors
from models.engine.kernel import Kernel, is_there, name_build
from models.training.dataset import Data, TrainingInput
from models.training.state import Training

ROWS, INPUTS, CLASSES = 20_000, 8, 3
ROUNDS = 7
RATE = 1e-3
LONG = 10_000  # steps of a part of the long training
PARTS = 9
CPU = torch.device("cpu")
Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """A shape of training."""

    name: str
    hidden: tuple[int, ...]
    batch: int
    is_class: bool = False
    dropout: float = 0.0

    @property
    def config(self) -> RunConfig:
        model: dict[str, Any] = {"type": "mlp", "hidden": list(self.hidden)}
        return RunConfig.model_validate(
            {
                "dataset": "ds_x",
                "target": "y",
                "task": "multiclass" if self.is_class else "regression",
                "loss": "cross_entropy" if self.is_class else "mse",
                "features": [f"x{n}" for n in range(INPUTS)],
                "model": model | ({"dropout": self.dropout} if self.dropout else {}),
                "optimizer": {"type": "adam", "learning_rate": RATE},
                "batch_size": self.batch,
                "split": {"type": "none"},
                "epochs": 1_000_000,
                "early_stopping": None,
                "device": "cpu",
            }
        )


SMALL = Case("batch 32, 2x64", (64, 64), 32)
CLASSIFIER = Case("batch 32, 2x64, 3 classes", (64, 64), 32, is_class=True)
MEDIUM = Case("batch 256, 2x64", (64, 64), 256)
LARGE = Case("batch 256, 2x256", (256, 256), 256)
DROPOUT = Case("batch 32, 2x64, dropout 0.1", (64, 64), 32, dropout=0.1)

Epoch = Callable[[], object]
#: Seconds of each round by name: processor time and time that passed.
Times = Mapping[str, list[tuple[float, float]]]


def make_table(*, is_class: bool) -> Table:
    random = np.random.default_rng(0)
    x = random.standard_normal((ROWS, INPUTS))
    y = np.tanh(x @ random.standard_normal(INPUTS)) + 0.1 * random.standard_normal(ROWS)
    columns = {f"x{n}": x[:, n] for n in range(INPUTS)}
    types: dict[str, Any] = dict.fromkeys(columns, "number")
    if is_class:
        y = np.digitize(y, np.quantile(y, [1 / 3, 2 / 3])).astype(float)
    return Table(types | {"y": "integer" if is_class else "number"}, columns | {"y": y}, ROWS)


def training_of(case: Case, engine: str, threads: int = 1) -> Training:
    given = TrainingInput(
        case.config,
        make_table(is_class=case.is_class),
        Path(tempfile.gettempdir()),
        threads=threads,
        engine=engine.partition(" ")[0],  # type: ignore[arg-type]
    )
    training = Training(given, Data(given, CPU))
    if engine == "kernel avx2":
        training.setup = training.new_setup()
        training.flat = training.setup.flat
        training.engine = Kernel(training.setup, narrow=True)
    return training


def ours(case: Case, engine: str, threads: int = 1) -> Epoch:
    training = training_of(case, engine, threads)

    def epoch() -> None:
        torch.set_num_threads(1)
        while not training.is_epoch_complete:
            training.advance(RATE, math.inf)
        training.end_epoch()

    return epoch


def scikit_learn(case: Case, threads: int = 1) -> Epoch:
    data = training_of(case, "autograd").data.train
    kind = MLPClassifier if case.is_class else MLPRegressor
    net = kind(hidden_layer_sizes=case.hidden, batch_size=case.batch, max_iter=1, warm_start=True)
    x, y = data.x.numpy(), data.truth.numpy().ravel()

    def epoch() -> None:
        with threadpool_limits(threads):
            net.fit(x, y)

    return epoch


def torch_net(case: Case) -> nn.Sequential:
    widths = [INPUTS, *case.hidden]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], CLASSES if case.is_class else 1))


class RowByRow(Dataset[tuple[Tensor, Tensor]]):
    """A dataset as courses write it."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.x[row], self.y[row]


def course(case: Case, threads: int = 1) -> Epoch:
    """Return the loop of courses: a row at a time, and a loss read back after each batch."""
    data = training_of(case, "autograd").data.train
    loader = DataLoader(RowByRow(data.x, data.truth), case.batch, shuffle=True)
    net = torch_net(case)
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    criterion = nn.CrossEntropyLoss() if case.is_class else nn.MSELoss()

    def epoch() -> float:
        torch.set_num_threads(threads)
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(net(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(x)
        return total

    return epoch


def plain_torch(case: Case, threads: int = 1) -> Epoch:
    """Return the fastest plain loop: whole tensors, a fused optimizer, no readback."""
    data = training_of(case, "autograd").data.train
    net = torch_net(case)
    optimizer = torch.optim.Adam(net.parameters(), RATE, fused=True)
    criterion = nn.CrossEntropyLoss() if case.is_class else nn.MSELoss()

    def epoch() -> float:
        torch.set_num_threads(threads)
        order = torch.randperm(ROWS)
        total = torch.zeros(())
        batches = zip(
            data.x[order].split(case.batch), data.truth[order].split(case.batch), strict=True
        )
        for x, y in batches:
            optimizer.zero_grad(set_to_none=True)
            loss = criterion(net(x), y)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return float(total)

    return epoch


def measure(epochs: Mapping[str, Epoch], rounds: int) -> Times:
    """Return the seconds of every epoch; the first round is not counted."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in epochs}
    for place in range(rounds + 1):
        for name, epoch in epochs.items():
            cpu, wall = time.process_time(), time.perf_counter()
            epoch()
            if place:
                found[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return found


def ratio(times: Times, slow: str, fast: str, *, wall: bool = False) -> float:
    """Return how many times as fast `fast` is."""
    pairs = zip(times[slow], times[fast], strict=True)
    return statistics.median(a[wall] / b[wall] for a, b in pairs)


def show(case: str, times: Times) -> None:
    print(
        f"\n| {case} | rows/s of processor time | rows/s | times scikit-learn |\n|---|---|---|---|"
    )
    for name, found in times.items():
        cpu, wall = (statistics.median(each[kind] for each in found) for kind in (0, 1))
        times_peer = ratio(times, "scikit-learn", name, wall="threads" in case)
        print(f"| {name} | {ROWS / cpu:,.0f} | {ROWS / wall:,.0f} | {times_peer:.2f} |", flush=True)


def judge(what: str, found: float, target: float, *, at_most: bool = False) -> None:
    is_met = found <= target if at_most else found >= target
    bound = "at most" if at_most else "at least"
    print(f"target {what}: {bound} {target:g}: {found:.2f}, {'met' if is_met else 'missed'}")


def kernels() -> list[str]:
    """Return the builds of the kernel to measure."""
    if not is_there():
        return []
    return ["kernel"] if name_build() != "avx512" else ["kernel", "kernel avx2"]


def one_thread(case: Case, rounds: int) -> Times:
    epochs = {name: ours(case, name) for name in [*kernels(), "chunked", "autograd"]}
    epochs["scikit-learn"] = scikit_learn(case)
    epochs["plain PyTorch"] = plain_torch(case)
    if case.batch == SMALL.batch:
        epochs["the course's loop"] = course(case)
    times = measure(epochs, rounds)
    show(case.name, times)
    return times


def two_threads(rounds: int) -> None:
    """Compare the large net on two threads, by the time that passes."""
    print(f"\nprocessors that are idle: {idle_processors(1)}")
    epochs: dict[str, Epoch] = {}
    for engine in [*kernels()[:1], "chunked"]:
        epochs |= {f"{engine}, {n} threads": ours(LARGE, engine, n) for n in (1, 2)}
    epochs["scikit-learn"] = scikit_learn(LARGE, 2)
    epochs["plain PyTorch"] = plain_torch(LARGE, 2)
    times = measure(epochs, rounds)
    show(f"{LARGE.name}, 2 threads for the others", times)
    for engine in kernels()[:1]:
        gain = ratio(times, f"{engine}, 1 threads", f"{engine}, 2 threads", wall=True)
        judge("two idle processors, 2x256, of one", gain, 1.4)


def dying_training(engine: str, *, dies: bool) -> Epoch:
    """Return an epoch of a training whose first layer may lose half of its units at the start.

    The moments of dead units fall through the subnormal numbers: the means after about 800 steps,
    the squares after about 70 000.
    """
    training = training_of(SMALL, engine)
    training.advance(RATE, 0.0)
    training.engine.pull()
    if dies:
        biases = training.flat.values[64 * INPUTS :][:64]
        biases[::2] = -1e6
    training.engine.push()
    order = np.arange(ROWS)

    def epoch() -> None:
        torch.set_num_threads(1)
        steps = training.steps_per_epoch
        training.engine.advance(training.data.train, order, 0, steps, 1e-5, math.inf)

    return epoch


def long_training(engine: str) -> float:
    """Return the time of the slowest part of a long training in that of its first part.

    Its unit is the time of the same training without dead units, in turns epoch by epoch. Each part
    counts with the lower quartile of its epochs, because other load only ever adds to their times.
    """
    epochs = {
        "dead": dying_training(engine, dies=True),
        "alive": dying_training(engine, dies=False),
    }
    per_part = LONG * SMALL.batch // ROWS
    torch.set_flush_denormal(True)  # as the loop does
    parts = []
    for _ in range(PARTS):
        times = measure(epochs, per_part)
        dead, alive = (np.quantile([cpu for cpu, _ in times[name]], 0.25) for name in epochs)
        parts.append(dead / alive)
    torch.set_flush_denormal(False)
    return float(max(parts) / parts[0])


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    warnings.simplefilter("ignore")  # scikit-learn's about one epoch that is not enough
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, kernel: {name_build()}, torch: ", end="")
    print(f"{torch.backends.cpu.get_cpu_capability()}, load {os.getloadavg()[0]:.1f}")

    small, classifier = one_thread(SMALL, rounds), one_thread(CLASSIFIER, rounds)
    medium, large = one_thread(MEDIUM, rounds), one_thread(LARGE, rounds)
    dropout = measure({case.name: ours(case, "kernel") for case in (SMALL, DROPOUT)}, rounds)
    print()
    for times, name in ((small, SMALL.name), (classifier, CLASSIFIER.name)):
        for engine in kernels():
            target = 8 if engine == "kernel avx2" or name_build() != "avx512" else 15
            judge(f"{name}, {engine}", ratio(times, "scikit-learn", engine), target)
        judge(f"{name}, chunked", ratio(times, "scikit-learn", "chunked"), 4.5)
        for engine in kernels()[:1]:
            loop = ratio(times, "the course's loop", engine)
            judge(f"{name}, {engine}, of the course's loop", loop, 20)
    for engine in kernels()[:1]:
        judge(f"{MEDIUM.name}, {engine}", ratio(medium, "scikit-learn", engine), 6)
        judge(f"{LARGE.name}, {engine}", ratio(large, "scikit-learn", engine), 2.3)
        cost = ratio(dropout, DROPOUT.name, SMALL.name)
        judge("dropout 0.1 in the step without", cost, 1.5, at_most=True)
    two_threads(rounds)
    for engine in [*kernels()[:1], "chunked"]:
        what = f"slowest {LONG:,} of {LONG * PARTS:,} steps in the first, dead units, {engine}"
        judge(what, long_training(engine), 1.1, at_most=True)


if __name__ == "__main__":
    main()
