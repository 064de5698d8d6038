"""The contribution of each column to a prediction, by integrated gradients of a stack.

The base is the prediction for a row whose values are all missing. The contributions of a row add up
to the difference between its prediction and the base. Numbers are explained in the targets' own
units, classes in the log-odds of the predicted class, log(p / (1 - p)). After Sundararajan, Taly
and Yan, "Axiomatic Attribution for Deep Networks" (2017). Computes in float64; knows NumPy only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.data import Categories, ColumnValues, Floats, Integers, Table
from models.features.encoding import Features
from models.features.inputs import Choice
from models.features.targets import ClassTarget
from models.nets.stack import ACTIVATIONS, Stack, StackLayer

#: Points on the line from the base to a row where the gradient is computed. One point is exact if
#: the gradient is constant.
POINTS = 64
#: Multiplications that a request may take: about two seconds of one core.
MAX_WORK = 4 * 10**9
PASSES = 3  # forward once, backward about twice
#: Numbers that the widest layer may hold at a time: 16 MB.
CHUNK = 2 * 10**6


@dataclass(frozen=True)
class RowContributions:
    """The explanation of one predicted number: `base` plus the contributions."""

    base: float
    #: By column, in the order of the model's inputs.
    contributions: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        return {"base": self.base, "contributions": self.contributions}


def most_rows(features: Features, stack: Stack) -> int:
    """Return how many rows one request may ask to explain."""
    goals = 1 if isinstance(features.target, ClassTarget) else features.outputs
    return MAX_WORK // max(1, goals * PASSES * _points(features, stack) * stack.parameters)


def explain(features: Features, stack: Stack, table: Table) -> list[dict[str, RowContributions]]:
    """Explain every row of the table, in order.

    Each row has an explanation per target, or for classes one of the predicted class, by its name.
    """
    x = features.encode(table, dtype=np.float64).astype(np.float64, copy=False)
    base = features.encode(_nothing(features), dtype=np.float64)[0].astype(np.float64, copy=False)
    layers = [_in_float64(layer) for layer in stack.layers]
    with np.errstate(all="ignore"):
        outputs = _forward(layers, x)[-1]
        if isinstance(features.target, ClassTarget):
            goals = [outputs.argmax(axis=1)]
        else:
            goals = [np.full(table.rows, place) for place in range(features.outputs)]
        points = _points(features, stack)
        found = [_explain_goal(features, layers, x, base, goal, points) for goal in goals]
    labels = features.target.output_names
    return [
        {
            labels[goal[row]]: explanation
            for goal, explanations in zip(goals, found, strict=True)
            for explanation in explanations[row : row + 1]
        }
        for row in range(table.rows)
    ]


def _nothing(features: Features) -> Table:
    """Return a table of one row whose values are all missing."""
    columns: dict[str, ColumnValues] = {
        column.name: Categories(np.array([-1], dtype=np.int32), column.categories)
        if isinstance(column, Choice)
        else np.array([np.nan])
        for column in features.inputs
    }
    return Table({column.name: column.type for column in features.inputs}, columns, 1)


def _points(features: Features, stack: Stack) -> int:
    """Return at how many points of the line the gradient is computed."""
    is_line = not any(isinstance(layer, str) for layer in stack.layers)
    goal_is_linear = not isinstance(features.target, ClassTarget) or features.outputs == 2
    return 1 if is_line and goal_is_linear else POINTS


def _explain_goal(
    features: Features,
    layers: list[StackLayer],
    x: Floats,
    base: Floats,
    goal: Integers,
    points: int,
) -> list[RowContributions]:
    gradients = _mean_gradients(features, layers, x, base, goal, points)
    shares = gradients * (x - base)
    starts = np.cumsum([0, *(column.width for column in features.inputs)])[:-1]
    parts = np.add.reduceat(shares, starts, axis=1)
    begin = _value(features, _forward(layers, np.tile(base, (len(x), 1)))[-1], goal)
    end = _value(features, _forward(layers, x)[-1], goal)
    # The sum over points is not exact: divide the rest in proportion to the contributions.
    sizes = np.abs(parts)
    total = sizes.sum(axis=1, keepdims=True)
    shares_of_gap = np.where(total > 0, sizes / np.where(total > 0, total, 1), 1 / parts.shape[1])
    parts = parts + shares_of_gap * (end - begin - parts.sum(axis=1))[:, None]
    names = [column.name for column in features.inputs]
    return [
        RowContributions(start, dict(zip(names, row, strict=True)))
        for start, row in zip(begin.tolist(), parts.tolist(), strict=True)
    ]


def _mean_gradients(
    features: Features,
    layers: list[StackLayer],
    x: Floats,
    base: Floats,
    goal: Integers,
    points: int,
) -> Floats:
    """Return the mean gradient of the goal on the line from the base to each row, (rows, width).

    Gauss-Legendre quadrature over `points` points.
    """
    places, weights = np.polynomial.legendre.leggauss(points)
    places, weights = (places + 1) / 2, weights / 2  # from [-1, 1] to [0, 1]
    gradients = np.empty_like(x)
    for rows in _chunks(len(x), points * _widest(layers, x.shape[1])):
        way = base + places[None, :, None] * (x[rows] - base)[:, None, :]
        flat = way.reshape(-1, x.shape[1])
        slopes = _gradients(features, layers, flat, np.repeat(goal[rows], points))
        gradients[rows] = np.einsum("p,rpw->rw", weights, slopes.reshape(way.shape))
    return gradients


def _gradients(features: Features, layers: list[StackLayer], x: Floats, goal: Integers) -> Floats:
    """Return the gradient of each row's explained number by the row, (rows, width)."""
    steps = _forward(layers, x)
    slope = _slope(features, steps[-1], goal)
    for layer, before in zip(reversed(layers), reversed(steps[:-1]), strict=True):
        slope = slope * SLOPES[layer](before) if isinstance(layer, str) else slope @ layer[0]
    return slope


def _forward(layers: list[StackLayer], x: Floats) -> list[Floats]:
    """Return the input of each layer and the output of the last one."""
    steps = [x]
    for layer in layers:
        x = _activate(layer, x) if isinstance(layer, str) else x @ layer[0].T + layer[1]
        steps.append(x)
    return steps


def _activate(name: str, x: Floats) -> Floats:
    # The functions are typed for float32 and also keep float64.
    return ACTIVATIONS[name](x)  # type: ignore[arg-type,return-value]


def _value(features: Features, outputs: Floats, goal: Integers) -> Floats:
    """Return the explained number of each row, (rows,)."""
    own = outputs[np.arange(len(goal)), goal]
    if not isinstance(features.target, ClassTarget):
        scale, center = np.array(features.target.scale), np.array(features.target.center)
        value: Floats = own * scale[goal] + center[goal]
        return value
    return own - _log_sum(_others(outputs, goal))


def _slope(features: Features, outputs: Floats, goal: Integers) -> Floats:
    """Return the gradient of the explained number by the outputs, (rows, outputs)."""
    slope = np.zeros_like(outputs)
    own = np.arange(len(goal)), goal
    if not isinstance(features.target, ClassTarget):
        slope[own] = np.array(features.target.scale)[goal]
        return slope
    others = _others(outputs, goal)
    slope = -np.exp(others - _log_sum(others)[:, None])
    slope[own] = 1.0
    return slope


def _others(outputs: Floats, goal: Integers) -> Floats:
    others = outputs.copy()
    others[np.arange(len(goal)), goal] = -np.inf
    return others


def _log_sum(values: Floats) -> Floats:
    top = values.max(axis=1)
    total: Floats = top + np.log(np.exp(values - top[:, None]).sum(axis=1))
    return total


def _in_float64(layer: StackLayer) -> StackLayer:
    return layer if isinstance(layer, str) else (layer[0].astype("f8"), layer[1].astype("f8"))


def _widest(layers: list[StackLayer], width: int) -> int:
    return max([width, *(len(layer[1]) for layer in layers if not isinstance(layer, str))])


def _chunks(rows: int, numbers: int) -> Iterator[slice]:
    step = max(1, CHUNK // numbers)
    for start in range(0, rows, step):
        yield slice(start, start + step)


def _relu_slope(x: Floats) -> Floats:
    return (x > 0).astype(np.float64)


def _sigmoid_slope(x: Floats) -> Floats:
    y = _activate("sigmoid", x)
    return y * (1 - y)


def _tanh_slope(x: Floats) -> Floats:
    return 1 - np.square(np.tanh(x))


def _gelu_slope(x: Floats) -> Floats:
    # gelu(x) = x · Φ(x), so Φ(x) = gelu(x) / x.
    share = np.where(x == 0, 0.5, _activate("gelu", x) / np.where(x == 0, 1, x))
    slope: Floats = share + x * np.exp(-np.square(x) / 2) / np.sqrt(2 * np.pi)
    return slope


SLOPES = {
    "relu": _relu_slope,
    "sigmoid": _sigmoid_slope,
    "tanh": _tanh_slope,
    "gelu": _gelu_slope,
}
