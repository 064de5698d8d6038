"""Linear models exactly: the closed form, a model's own line, and what they say in columns.

Knows NumPy only.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from descent.spec import LossName, Sgd
from models.data import Floats, Integers, Table
from models.features.encoding import Features
from models.features.targets import NumberTargets
from models.nets.graph import Graph

#: Multiplications that an exact solution may take: a few seconds of one core.
MAX_WORK = 10**10
#: Numbers of the encoded table for an exact solution, which is read for it once more.
MAX_CELLS = 20_000_000
CHUNK = 16_384  # rows that are encoded at a time
#: A scaled column whose deviation over the rows is below this is constant but for rounding.
CONSTANT = 1e-12


@dataclass(frozen=True)
class Line:
    """y = Wx + b, from encoded columns to outputs in the scale of the net's outputs."""

    #: (outputs, width) and (outputs,)
    weights: Floats
    biases: Floats


def line_of(graph: Graph, parameters: Mapping[str, NDArray[np.float32]]) -> Line | None:
    """Return the line that a net with these parameters is; None if it is no linear model."""
    if not graph.is_linear:
        return None
    weights, biases = (parameters[name].astype(np.float64) for name in graph.shapes)
    return Line(weights, biases)


def is_small(rows: int, width: int) -> bool:
    """Return whether an exact solution for a table of this size takes a few seconds at most."""
    return rows * width**2 <= MAX_WORK and rows * width <= MAX_CELLS


def least_squares(
    features: Features, table: Table, rows: Integers, weights: Floats | None = None
) -> Line | None:
    """Return the line with the smallest sum of squared errors over `rows`.

    `weights`, (rows,), multiply the squares. Of several equally good lines it is the one with the
    smallest parameters. None for classes, and if the table is too large.
    """
    target, width = features.target, features.width
    if not is_small(len(rows), width) or not isinstance(target, NumberTargets):
        return None
    center, scale = np.zeros(width), np.ones(width)
    triangle = np.empty((0, 1 + width + features.outputs))
    for part, place in _parts(table, rows):
        x = features.encode(part, dtype=np.float64)
        if place.start == 0:
            # Roughly centre and scale the columns, so that those of small numbers are not taken for
            # rounding errors.
            center, spread = x.mean(axis=0), x.std(axis=0)
            scale = np.where(spread, spread, 1.0)
        y = target.encode(part, np.arange(part.rows))
        block = np.column_stack([np.ones(len(x)), (x - center) / scale, y])
        if weights is not None:
            block *= np.sqrt(weights[place])[:, None]
        # The triangle of the QR decomposition has the same products of columns as all rows so far.
        triangle = np.asarray(np.linalg.qr(np.concatenate([triangle, block]), mode="r"))
    solution = _solve(triangle[1:, 1:], width, len(rows))
    # The first row belongs to the bias. Below it are the products of centred columns.
    biases = triangle[0, 1 + width :] - triangle[0, 1 : 1 + width] @ solution
    learned = (solution / scale[:, None]).T
    return Line(learned, biases / triangle[0, 0] - learned @ center)


def _solve(triangle: Floats, width: int, rows: int) -> Floats:
    """Return the least squares of the last columns by the first ones, (width, outputs)."""
    x, y = triangle[:, :width], triangle[:, width:]
    sizes = np.linalg.norm(x, axis=0)
    is_constant = sizes <= CONSTANT * math.sqrt(rows)
    sizes = np.where(is_constant, 1.0, sizes)
    precision = max(rows, width) * np.finfo(np.float64).eps
    solution, *_ = np.linalg.lstsq(np.where(is_constant, 0.0, x / sizes), y, rcond=precision)
    found: Floats = solution / sizes[:, None]
    return found


def _parts(table: Table, rows: Integers) -> Iterator[tuple[Table, slice]]:
    """Yield the rows as small tables, each with its place among `rows`."""
    start = 0
    for part in table.parts(rows, CHUNK):
        if part.rows:
            yield part, slice(start, start + part.rows)
        start += part.rows


def products(
    features: Features, table: Table, rows: Integers, weights: Floats | None = None
) -> Floats:
    """Return the sums of the products of each two encoded columns, the last one being ones.

    `weights`, (rows,), multiply the products. The result is (width + 1, width + 1).
    """
    total = np.zeros((features.width + 1, features.width + 1))
    for part, place in _parts(table, rows):
        x = np.column_stack([features.encode(part, dtype=np.float64), np.ones(part.rows)])
        total += x.T @ (x if weights is None else x * weights[place][:, None])
    return total


def largest_learning_rate(
    products: Floats, rows: int, loss: LossName, optimizer: Sgd, outputs: int = 1
) -> float | None:
    """Return the rate above which full-batch gradient descent on a linear model diverges.

    The error surface of `mse` and `sse` is a parabola, whose curvatures are in the `products` of
    the encoded columns over `rows` rows. Along its steepest axis, with curvature c, a step with a
    rate above 2 / c ends higher than it began. Momentum m allows (1 + m) times that rate;
    Nesterov's allows (1 + m) / (1 + 2m) times. None for a loss whose surface is not a parabola.
    """
    if loss not in {"mse", "sse"} or not np.isfinite(products).all():
        return None
    steepest = float(np.linalg.eigvalsh(products)[-1])
    curvature = 2 * steepest / (rows * outputs if loss == "mse" else 1) + optimizer.weight_decay
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


def predict_line(features: Features, line: Line, table: Table, rows: Integers) -> Iterator[Floats]:
    """Yield the line's predictions of these rows in parts; shapes as in `Features.decode`."""
    for part, _place in _parts(table, rows):
        yield _predict(features, line, part)


def _predict(features: Features, line: Line, part: Table) -> Floats:
    x = features.encode(part, dtype=np.float64)
    return features.decode(x @ line.weights.T + line.biases)


def squared_errors(
    features: Features, line: Line, table: Table, rows: Integers, weights: Floats | None = None
) -> list[float]:
    """Return the sum of squared errors of each target over `rows`, in its own units.

    `weights`, (rows,), multiply the squares.
    """
    target = features.target
    if not isinstance(target, NumberTargets):
        return []
    totals = np.zeros(features.outputs)
    for part, place in _parts(table, rows):
        truth = target.truth(part, np.arange(part.rows))
        squares = (_predict(features, line, part) - truth) ** 2
        totals += (squares if weights is None else squares * weights[place][:, None]).sum(axis=0)
    return [float(total) for total in totals]


def parameters(
    features: Features,
    trained: Line,
    best: Line | None,
    table: Table,
    rows: Integers,
    weights: Floats | None = None,
) -> dict[str, Any]:
    """Return a trained line beside the closed-form line, in the API's format.

    For one target: `{"weights", "bias", "sse", "closed_form": {"weights", "bias", "sse"}}`. For
    several targets or classes: one such object by name; classes have no `sse` and no closed form.
    `weights`, (rows,), multiply the squared errors.
    """
    answer = _with_errors(features, trained, table, rows, weights)
    if best is not None:
        for name, solution in _with_errors(features, best, table, rows, weights).items():
            answer[name]["closed_form"] = solution
    single = isinstance(features.target, NumberTargets) and len(answer) == 1
    return next(iter(answer.values())) if single else answer


def _with_errors(
    features: Features, line: Line, table: Table, rows: Integers, weights: Floats | None
) -> dict[str, dict[str, Any]]:
    described = describe_line(features, line)
    for entry, total in zip(
        described.values(), squared_errors(features, line, table, rows, weights), strict=False
    ):
        entry["sse"] = total
    return described
