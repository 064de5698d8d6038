"""The permutation importance of columns: how much worse a model predicts with one shuffled.

A pure function of the model, the rows and the seed, with bounded work (after Breiman, "Random
Forests", 2001). Knows NumPy only.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from models.data import Floats, Integers, Table, generator
from models.features.encoding import Features
from models.features.inputs import Matrix
from models.features.targets import ClassTarget
from models.nets.stack import Stack

MAX_ROWS = 1000
SHUFFLES = 5
#: Multiplications that may be spent for any training: about 10 ms.
FLOOR = 2 * 10**7
#: Multiplications that may be spent at most: about a second.
CEILING = 2 * 10**9
#: The fixed cost of a pass through the net, in multiplications.
OVERHEAD = 10**5
#: The stream of `data.generator` that shuffles columns.
STREAM = 2**63 + 1


def permutation_importance(
    features: Features, stack: Stack, table: Table, rows: Integers, *, seed: int, work: int
) -> dict[str, Any] | None:
    """Return the cost of shuffling each column over `rows`, the most important column first.

    The cost is the rise of `cross_entropy` for classes, and the fall of `r2` for numbers. `work` is
    the count of multiplications that may be spent; it limits the rows and the shuffles. The result
    is None if even few rows cost too much, or if a cost is not finite.
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
    """Return the shuffles and the rows that fit the work; zeros if none do."""
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


def _cost(features: Features, stack: Stack, encoded: Matrix, truth: Floats | Integers) -> float:
    decoded = features.decode(stack.forward(encoded))
    if isinstance(features.target, ClassTarget):
        likely = decoded[np.arange(len(truth)), truth]
        return float(-np.log(np.maximum(likely, np.finfo(np.float64).tiny)).mean())
    # In units of the rows' variance, so that the difference of two costs is a difference of R². One
    # row or equal rows have no variance: use that of the training rows.
    variances = truth.var(axis=0)
    variances = np.where(variances > 0, variances, np.square(features.target.std))
    return float((np.square(decoded - truth).mean(axis=0) / variances).mean())
