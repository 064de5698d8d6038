"""The contribution of each column to a prediction.

The base is the prediction for a row whose values are all missing. The contributions of a row add up
to the difference between its prediction and the base. Numbers are explained in the targets' own
units, classes in the log-odds of the predicted class, log(p / (1 - p)). A net with slopes is
explained by integrated gradients: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep
Networks" (2017). Trees have none, so that columns are put in one after the other, in several
orders: Shapley values by antithetic permutations, after Mitchell et al., "Sampling Permutations for
Shapley Value Estimation" (2022). Computes in float64; knows NumPy only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np

from models.data import Categories, ColumnValues, Floats, Integers, Table, generator
from models.features.encoding import Features
from models.features.inputs import Choice
from models.features.targets import ClassTarget
from models.model import Model

#: Points on the line from the base to a row where the gradient is computed. One point is exact if
#: the gradient is constant.
POINTS = 64
#: Multiplications that a request may take: about two seconds of one core.
MAX_WORK = 4 * 10**9
PASSES = 3  # forward once, backward about twice
#: Orders of the columns, in pairs of an order and its reverse. With few columns it is all orders.
ORDERS = 32
FEW_COLUMNS = 4
#: The stream of `data.generator` that draws orders.
STREAM = 2**63 + 2
#: Numbers that the net holds at a time, for many rows and for one: 32 MB and 256 MB.
CHUNK, MOST = 4 * 10**6, 32 * 10**6


@dataclass(frozen=True)
class RowContributions:
    """The explanation of one predicted number: `base` plus the contributions."""

    base: float
    #: By column, in the order of the model's inputs.
    contributions: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        return {"base": self.base, "contributions": self.contributions}


def most_rows(model: Model) -> int:
    """Return how many rows one request may ask to explain."""
    features = model.features
    if not model.is_smooth:
        states = 1 + len(features.inputs)
        if states * model.traced > MOST:
            return 0
        return MAX_WORK // max(1, len(_orders(states - 1)) * states * model.work)
    if _points(model) * model.traced > MOST:
        return 0
    goals = 1 if isinstance(features.target, ClassTarget) else features.outputs
    return MAX_WORK // max(1, goals * PASSES * _points(model) * model.work)


def explain(model: Model, table: Table) -> list[dict[str, RowContributions]]:
    """Explain every row of the table, in order.

    Each row has an explanation per target, or for classes one of the predicted class, by its name.
    """
    features = model.features
    x = features.encode(table, dtype=np.float64).astype(np.float64, copy=False)
    base = features.encode(_nothing(features), dtype=np.float64)[0].astype(np.float64, copy=False)
    with np.errstate(all="ignore"):
        outputs = model.exact(x)
        if isinstance(features.target, ClassTarget):
            goals = [outputs.argmax(axis=1)]
        else:
            goals = [np.full(table.rows, place) for place in range(features.outputs)]
        if model.is_smooth:
            points = _points(model)
            found = [_explain_goal(model, x, base, goal, points) for goal in goals]
        else:
            found = _by_orders(model, x, base, goals)
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


def _points(model: Model) -> int:
    """Return at how many points of the line the gradient is computed."""
    features = model.features
    goal_is_linear = not isinstance(features.target, ClassTarget) or features.outputs == 2
    return 1 if model.is_affine and goal_is_linear else POINTS


def _explain_goal(
    model: Model,
    x: Floats,
    base: Floats,
    goal: Integers,
    points: int,
) -> list[RowContributions]:
    features = model.features
    gradients = _mean_gradients(model, x, base, goal, points)
    shares = gradients * (x - base)
    starts = np.cumsum([0, *(column.width for column in features.inputs)])[:-1]
    parts = np.add.reduceat(shares, starts, axis=1)
    begin = _value(features, model.exact(np.tile(base, (len(x), 1))), goal)
    end = _value(features, model.exact(x), goal)
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


def _by_orders(
    model: Model, x: Floats, base: Floats, goals: list[Integers]
) -> list[list[RowContributions]]:
    """Return the explanations of each goal: the mean change as a column's values are put in.

    Each order begins at the base and ends at the row, so that its changes add up exactly.
    """
    features = model.features
    names = [column.name for column in features.inputs]
    states = 1 + len(names)
    ends = np.cumsum([column.width for column in features.inputs]).tolist()
    parts = [slice(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]
    orders = _orders(len(names))
    changes = np.zeros((len(goals), len(x), len(names)))
    begins = np.zeros((len(goals), len(x)))
    for rows in _chunks(len(x), states * model.traced):
        given = x[rows]
        for order in orders:
            way = np.tile(base, (len(given), states, 1))
            for place, column in enumerate(order, 1):
                way[:, place:, parts[column]] = given[:, None, parts[column]]
            outputs = model.exact(way.reshape(-1, x.shape[1]))
            for number, goal in enumerate(goals):
                flat = _value(features, outputs, np.repeat(goal[rows], states))
                values = flat.reshape(len(given), states)
                begins[number, rows] = values[:, 0]
                changes[number, rows, order] += np.diff(values, axis=1).T
    return [
        [
            RowContributions(begin, dict(zip(names, row, strict=True)))
            for begin, row in zip(own.tolist(), (total / len(orders)).tolist(), strict=True)
        ]
        for own, total in zip(begins, changes, strict=True)
    ]


def _orders(columns: int) -> list[list[int]]:
    """Return orders of so many columns: all of them, or random ones, each with its reverse."""
    if columns <= FEW_COLUMNS:
        return [list(order) for order in permutations(range(columns))]
    random = generator(0, STREAM)
    drawn = [random.permutation(columns).tolist() for _ in range(ORDERS // 2)]
    return [order for each in drawn for order in (each, each[::-1])]


def _mean_gradients(
    model: Model,
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
    for rows in _chunks(len(x), points * model.traced):
        way = base + places[None, :, None] * (x[rows] - base)[:, None, :]
        flat = way.reshape(-1, x.shape[1])
        goals = np.repeat(goal[rows], points)
        slopes = model.slopes(flat, partial(_slope, model.features, goals))
        gradients[rows] = np.einsum("p,rpw->rw", weights, slopes.reshape(way.shape))
    return gradients


def _value(features: Features, outputs: Floats, goal: Integers) -> Floats:
    """Return the explained number of each row, (rows,)."""
    own = outputs[np.arange(len(goal)), goal]
    if not isinstance(features.target, ClassTarget):
        scale, center = np.array(features.target.scale), np.array(features.target.center)
        value: Floats = own * scale[goal] + center[goal]
        return value
    return own - _log_sum(_others(outputs, goal))


def _slope(features: Features, goal: Integers, outputs: Floats) -> Floats:
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


def _chunks(rows: int, numbers: int) -> Iterator[slice]:
    step = max(1, CHUNK // numbers)
    for start in range(0, rows, step):
        yield slice(start, start + step)
