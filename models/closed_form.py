"""What needs no training: least squares, the largest learning rate, a line's own two numbers.

Knows NumPy only, in float64.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from descent.spec import LossName, Sgd
from models.data import Floats, Rows, Table
from models.features import Features
from models.targets import NumberTargets

#: Multiplications that an exact solution may take, a few seconds of one core …
MAX_WORK = 10**10
#: … and numbers that it may hold in memory, several times over: 160 MB each.
MAX_CELLS = 20_000_000
CHUNK = 16_384  # rows that are encoded at once


@dataclass(frozen=True)
class Line:
    """y = Wx + b over encoded columns, for outputs as the net has them."""

    #: (outputs, width) and (outputs,)
    weights: Floats
    biases: Floats


def is_small(rows: int, width: int) -> bool:
    """Whether an exact solution over so many rows takes no longer than a user waits."""
    return rows * width**2 <= MAX_WORK and rows * width <= MAX_CELLS


def least_squares(features: Features, table: Table, rows: Rows) -> Line | None:
    """Return the line with the smallest sum of squared errors over `rows`.

    Where several are equally good, it is the one with the smallest weights. None where it would
    take too long to compute.
    """
    if not is_small(len(rows), features.width) or not isinstance(features.target, NumberTargets):
        return None
    x = features.encode(table, rows, dtype=np.float64)
    y = features.target.encode(table, rows)
    # Centred, so that the bias drops out, and of one size, so that no column counts as rounding.
    means, sizes = x.mean(axis=0), x.std(axis=0)
    sizes[sizes == 0] = 1.0
    solution, *_ = np.linalg.lstsq((x - means) / sizes, y - y.mean(axis=0))
    weights = (solution / sizes[:, None]).T
    return Line(weights, y.mean(axis=0) - weights @ means)


def largest_learning_rate(
    x: NDArray[np.floating[Any]], loss: LossName, optimizer: Sgd, outputs: int = 1
) -> float | None:
    """Return the rate above which full-batch gradient descent on a linear model diverges.

    `x` is (rows, width), as encoded. The error surface of `mse` and `sse` is a parabola; along its
    steepest axis, with curvature c, a step of more than 2 / c lands higher than it started;
    momentum m allows (1 + m) times as much, Nesterov's a (1 + 2m)-th of that. None for a loss
    whose surface is no parabola.
    """
    if loss not in {"mse", "sse"}:
        return None
    steepest = float(np.linalg.norm(np.column_stack([x, np.ones(len(x))]), 2)) ** 2
    curvature = 2 * steepest / (len(x) * outputs if loss == "mse" else 1) + optimizer.weight_decay
    largest = 2 * (1 + optimizer.momentum) / curvature
    return largest / (1 + 2 * optimizer.momentum) if optimizer.nesterov else largest


def describe_line(features: Features, line: Line) -> dict[str, dict[str, Any]]:
    """Return `{output: {"weights": {column: …}, "bias": …}}` in the columns' own units.

    Outputs are targets, or the classes of a classification.
    """
    centers, scales = features.centers_and_scales()
    weights = line.weights / scales
    biases = line.biases - weights @ centers
    if isinstance(features.target, NumberTargets):
        units = np.array(features.target.scale)
        weights, biases = weights * units[:, None], biases * units + features.target.center
    return {
        name: {"weights": dict(zip(features.labels, row, strict=True)), "bias": bias}
        for name, row, bias in zip(
            features.target.output_names, weights.tolist(), biases.tolist(), strict=True
        )
    }


def squared_errors(features: Features, line: Line, table: Table, rows: Rows) -> list[float]:
    """Return the sum of squared errors of each target over `rows`, in its own units."""
    if not isinstance(features.target, NumberTargets):
        return []
    totals = np.zeros(features.outputs)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        outputs = features.encode(table, part, dtype=np.float64) @ line.weights.T + line.biases
        errors = features.target.decode(outputs) - features.target.truth(table, part)
        totals += (errors**2).sum(axis=0)
    return [float(total) for total in totals]


def parameters(
    features: Features, trained: Line, best: Line | None, table: Table, rows: Rows
) -> dict[str, Any]:
    """Return a trained line beside the closed-form one, as the API shows it.

    One target: `{"weights", "bias", "sse", "closed_form": {"weights", "bias", "sse"}}`; several,
    or classes: the same keyed by target or class; classes have no `sse` and no closed form.
    """
    answer = _with_errors(features, trained, table, rows)
    if best is not None:
        for name, solution in _with_errors(features, best, table, rows).items():
            answer[name]["closed_form"] = solution
    single = isinstance(features.target, NumberTargets) and len(answer) == 1
    return next(iter(answer.values())) if single else answer


def _with_errors(
    features: Features, line: Line, table: Table, rows: Rows
) -> dict[str, dict[str, Any]]:
    described = describe_line(features, line)
    for entry, total in zip(
        described.values(), squared_errors(features, line, table, rows), strict=False
    ):
        entry["sse"] = total
    return described
