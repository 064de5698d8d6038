"""How much worse a model predicts where a column is shuffled: its permutation importance.

A pure function of the model, the rows and the seed, of bounded work. Knows NumPy only.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from models.data import Floats, Rows, Table, generator
from models.features import Features
from models.forward import Stack
from models.inputs import Matrix
from models.targets import ClassTarget

MAX_ROWS = 1000
SHUFFLES = 5
#: Multiplications that may always be spent, about 10 ms …
FLOOR = 2 * 10**7
#: … and never more than these, about a second.
CEILING = 2 * 10**9
#: Multiplications that the fixed cost of a pass through the net is worth.
OVERHEAD = 10**5
#: The second word of the generator's key where it shuffles columns; see `models.data`.
STREAM = 2**63 + 1


def permutation_importance(
    features: Features, stack: Stack, table: Table, rows: Rows, *, seed: int, work: int
) -> dict[str, Any] | None:
    """Return what shuffling each column of `rows` costs, the most important column first.

    The cost is the rise of `cross_entropy` for classes, the fall of `r2` for numbers. `work` is how
    many multiplications may be spent: rows and shuffles become fewer to keep to it, and where even
    few are too many, or a figure is not finite, the answer is None.
    """
    shuffles, count = _affordable(features, stack, len(rows), min(max(work, FLOOR), CEILING))
    if not shuffles or not count:
        return None
    random = generator(seed, STREAM)
    rows = np.sort(random.permutation(rows)[:count])
    encoded, truth = features.encode(table, rows), features.truth(table, rows)
    with np.errstate(all="ignore"):
        whole = _cost(features, stack, encoded, truth)
        columns: list[dict[str, Any]] = []
        for name, part in _parts(features):
            shuffled, costs = encoded.copy(), []
            for _ in range(shuffles):
                shuffled[:, part] = encoded[random.permutation(count), part]
                costs.append(_cost(features, stack, shuffled, truth) - whole)
            mean, std = float(np.mean(costs)), float(np.std(costs))
            if not math.isfinite(mean + std):
                return None
            columns.append({"column": name, "mean": mean, "std": std})
    columns.sort(key=lambda entry: -entry["mean"])
    metric = "cross_entropy" if isinstance(features.target, ClassTarget) else "r2"
    return {"metric": metric, "rows": count, "shuffles": shuffles, "columns": columns}


def _affordable(features: Features, stack: Stack, rows: int, work: int) -> tuple[int, int]:
    """Return how many shuffles of how many rows may be spent."""
    for shuffles, most in ((SHUFFLES, MAX_ROWS), (SHUFFLES, 200), (2, 200), (1, 100)):
        count = min(rows, most)
        if len(features.inputs) * shuffles * (OVERHEAD + count * stack.parameters) <= work:
            return shuffles, count
    return 0, 0


def _parts(features: Features) -> Iterator[tuple[str, slice]]:
    start = 0
    for column in features.inputs:
        yield column.name, slice(start, start + column.width)
        start += column.width


def _cost(features: Features, stack: Stack, encoded: Matrix, truth: Floats | Rows) -> float:
    decoded = features.decode(stack.forward(encoded))
    if isinstance(features.target, ClassTarget):
        likely = decoded[np.arange(len(truth)), truth]
        return float(-np.log(np.maximum(likely, np.finfo(np.float64).tiny)).mean())
    # In variances of the rows, so that the difference of two is one of R²; of a single row, or of
    # equal ones, in those of the training rows.
    variances = truth.var(axis=0)
    variances = np.where(variances > 0, variances, np.square(features.target.std))
    return float((np.square(decoded - truth).mean(axis=0) / variances).mean())
