"""Exact results for linear models: least squares, the largest learning rate, weights in units.

Knows NumPy only; computes in float64.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from descent.spec import LossName, Sgd
from models.data import Floats, Integers, Table
from models.features.encoding import Features
from models.features.targets import NumberTargets

#: Multiplications that an exact solution may take: a few seconds of one core.
MAX_WORK = 10**10
#: Numbers of the encoded table for an exact solution. It holds several copies of 160 MB.
MAX_CELLS = 20_000_000
CHUNK = 16_384  # rows that are encoded at a time


@dataclass(frozen=True)
class Line:
    """y = Wx + b, from encoded columns to outputs in the scale of the net's outputs."""

    #: (outputs, width) and (outputs,)
    weights: Floats
    biases: Floats


def is_small(rows: int, width: int) -> bool:
    """Return whether an exact solution for a table of this size takes a few seconds at most."""
    return rows * width**2 <= MAX_WORK and rows * width <= MAX_CELLS


def least_squares(features: Features, table: Table, rows: Integers) -> Line | None:
    """Return the line with the smallest sum of squared errors over `rows`.

    Of several equally good lines it is the one with the smallest weights. None for classes, and if
    the table is too large.
    """
    if not is_small(len(rows), features.width) or not isinstance(features.target, NumberTargets):
        return None
    x = features.encode(table, rows, dtype=np.float64)
    y = features.target.encode(table, rows)
    # Centre x and y, so that the bias drops out, and scale x, so that a column of small numbers is
    # not taken for rounding errors.
    means, sizes = x.mean(axis=0), x.std(axis=0)
    sizes[sizes == 0] = 1.0
    solution, *_ = np.linalg.lstsq((x - means) / sizes, y - y.mean(axis=0))
    weights = (solution / sizes[:, None]).T
    return Line(weights, y.mean(axis=0) - weights @ means)


def largest_learning_rate(
    x: NDArray[np.floating[Any]], loss: LossName, optimizer: Sgd, outputs: int = 1
) -> float | None:
    """Return the rate above which full-batch gradient descent on a linear model diverges.

    `x` holds the encoded rows, (rows, width). The error surface of `mse` and `sse` is a parabola.
    Along its steepest axis, with curvature c, a step with a rate above 2 / c ends higher than it
    began. Momentum m allows (1 + m) times that rate; Nesterov's allows (1 + m) / (1 + 2m) times.
    None for a loss whose surface is not a parabola.
    """
    if loss not in {"mse", "sse"}:
        return None
    steepest = float(np.linalg.norm(np.column_stack([x, np.ones(len(x))]), 2)) ** 2
    curvature = 2 * steepest / (len(x) * outputs if loss == "mse" else 1) + optimizer.weight_decay
    largest = 2 * (1 + optimizer.momentum) / curvature
    return largest / (1 + 2 * optimizer.momentum) if optimizer.nesterov else largest


def describe_line(features: Features, line: Line) -> dict[str, dict[str, Any]]:
    """Return `{output: {"weights": {column: …}, "bias": …}}` in the columns' own units.

    An output is a target, or a class of a classification.
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


def squared_errors(features: Features, line: Line, table: Table, rows: Integers) -> list[float]:
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
    features: Features, trained: Line, best: Line | None, table: Table, rows: Integers
) -> dict[str, Any]:
    """Return a trained line beside the closed-form line, in the API's format.

    For one target: `{"weights", "bias", "sse", "closed_form": {"weights", "bias", "sse"}}`. For
    several targets or classes: one such object by name; classes have no `sse` and no closed form.
    """
    answer = _with_errors(features, trained, table, rows)
    if best is not None:
        for name, solution in _with_errors(features, best, table, rows).items():
            answer[name]["closed_form"] = solution
    single = isinstance(features.target, NumberTargets) and len(answer) == 1
    return next(iter(answer.values())) if single else answer


def _with_errors(
    features: Features, line: Line, table: Table, rows: Integers
) -> dict[str, dict[str, Any]]:
    described = describe_line(features, line)
    for entry, total in zip(
        described.values(), squared_errors(features, line, table, rows), strict=False
    ):
        entry["sse"] = total
    return described
