"""Compares NumPy and onnxruntime on nets, by the size of the net and the number of rows.

    .venv/bin/python benchmarks/numpy_or_onnxruntime.py

Both get the same encoded rows, in turn, in one thread each as in the service. The output also shows
the time of a whole prediction of parsed rows with either; the service uses onnxruntime where it is
faster (`models/nets/sessions.py`).
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when NumPy is imported

import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import stored
from predict_one_row import rows as some_rows

from models import checkpoint
from models.model import GraphModel
from models.nets.numeric import Activations
from models.nets.sessions import made
from models.predict.predictor import Predictor

NETS = ((8, 64, 64, 1), (8, 256, 256, 1), (8, 512, 512, 1), (8, 2048, 2048, 1))
ROWS = (1, 32, 100, 10_000)
ROUNDS = 5
SECONDS = 0.1  # of each round


def best(works: Sequence[Callable[[], object]]) -> list[float]:
    """Return the least seconds of each, measured in turn."""
    found = [float("inf")] * len(works)
    for _ in range(ROUNDS):
        for place, work in enumerate(works):
            began, times = time.perf_counter(), 0
            while (took := time.perf_counter() - began) < SECONDS:
                work()
                times += 1
            found[place] = min(found[place], took / times)
    return found


class NumpyOnly(GraphModel):
    """A model that never uses onnxruntime."""

    def forward(self, x: Activations) -> Activations:
        return self.net.forward(x)


def compare(widths: Sequence[int], rows: int, folder: Path) -> None:
    saved = stored.checkpoint_of(0, widths)
    checkpoint.write(folder / "net", saved["tensors"], saved["document"])
    predictor = Predictor.load(folder / "net")
    model = predictor.model
    if not isinstance(model, GraphModel):
        raise TypeError("the net is no graph")
    session = made(model.net)
    table = some_rows(rows)
    columns = {name: [row[name] for row in table] for name in table[0]}
    encoded = predictor.plain.encode(table)
    if encoded is None:
        raise RuntimeError("the rows are not plain")

    def other(x: Activations) -> Activations:
        found: Activations = session.run(None, {"x": x})[0]
        return found

    numpy_only = Predictor(NumpyOnly(model.features, model.graph, model.tensors))
    net, net_other, whole, chosen = best(
        [
            lambda: model.net.forward(encoded),
            lambda: other(encoded),
            lambda: numpy_only.predict(columns, rows),
            lambda: predictor.predict(columns, rows),
        ]
    )
    difference = np.abs(model.net.forward(encoded) - other(encoded)).max()
    cells = ["-".join(map(str, widths)), f"{rows:,}"]
    cells += [f"{net * 1e6:,.0f}", f"{net_other * 1e6:,.0f}", f"{net / net_other:.2f}"]
    cells += [f"{whole * 1e6:,.0f}", f"{chosen * 1e6:,.0f}", f"{whole / chosen:.2f}"]
    print(f"| {' | '.join(cells)} | {difference:.0e} |", flush=True)


def main() -> None:
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, one thread, NumPy {np.__version__}, "
        f"onnxruntime {onnxruntime.__version__}\n\n"
        "| net | rows | NumPy, µs | onnxruntime, µs | ratio | prediction with NumPy, µs "
        "| as the service does it, µs | ratio | difference |\n" + "|---" * 9 + "|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for widths in NETS:
            for rows in ROWS:
                compare(widths, rows, Path(folder))


if __name__ == "__main__":
    main()
