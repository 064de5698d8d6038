"""How good predictions are: scores in the targets' own units and curves, ready for JSON.

Knows NumPy only. A score that the rows do not define, such as R² of one row, is None.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.data import Floats, Integers, Table, generator
from models.features.encoding import Features
from models.features.inputs import Matrix
from models.features.targets import ClassTarget, NumberTargets, Target
from models.nets.stack import Stack

Scores: TypeAlias = dict[str, Any]
#: Points of a curve at most; a picture would not show more.
MOST_POINTS = 200


def evaluate(target: Target, truth: Floats | Integers, decoded: Floats) -> Scores:
    """Compare the predictions `decoded`, from `Features.decode`, with the truth.

    `truth` is float64 (rows, targets) for a regression, and int64 (rows,) class numbers otherwise.
    """
    if isinstance(target, ClassTarget):
        return evaluate_classes(target, truth.astype(np.int64), decoded)
    return evaluate_numbers(target, truth.astype(np.float64), decoded)


def evaluate_numbers(target: NumberTargets, truth: Floats, predicted: Floats) -> Scores:
    """Return sse, mse, mae, rmse and r2; for several targets the means, and those of each.

    `truth` and `predicted` are (rows, targets).
    """
    each = {
        name: _number_figures(truth[:, place], predicted[:, place])
        for place, name in enumerate(target.names)
    }
    if len(each) == 1:
        return next(iter(each.values()))
    mean = {name: _mean([figures[name] for figures in each.values()]) for name in FIGURES}
    return mean | {"targets": each}


def evaluate_classes(target: ClassTarget, truth: Integers, shares: Floats) -> Scores:
    """Return accuracy, cross_entropy, f1, scores per class, the confusion matrix, and auc.

    `truth` is (rows,) and `shares` (rows, classes). `auc` is None unless there are two classes.
    The confusion matrix has a row per true class and a column per predicted class.
    """
    count = len(target.classes)
    predicted = shares.argmax(axis=1)
    confusion = np.bincount(truth * count + predicted, minlength=count**2).reshape(count, count)
    likely = np.maximum(shares[np.arange(len(truth)), truth], np.finfo(np.float64).tiny)
    classes = {label: _class_figures(confusion, place) for place, label in enumerate(target.labels)}
    return {
        "accuracy": float((predicted == truth).mean()),
        "cross_entropy": float(-np.log(likely).mean()),
        "auc": area_under_curve(truth == 1, shares[:, 1]) if count == 2 else None,
        "f1": _mean([figures["f1"] for figures in classes.values() if figures["support"]]),
        "classes": classes,
        "confusion": {"labels": target.labels, "matrix": confusion.tolist()},
    }


def evaluate_baseline(target: Target, train: Floats | Integers, truth: Floats | Integers) -> Scores:
    """Score a constant prediction: the training rows' mean, or their classes' shares."""
    if isinstance(target, ClassTarget):
        counts = np.bincount(train.astype(np.int64), minlength=len(target.classes))
        constant = counts / counts.sum()
    else:
        constant = train.astype(np.float64).mean(axis=0)
    return evaluate(target, truth, np.tile(constant, (len(truth), 1)))


def area_under_curve(positive: Any, scores: Floats) -> float | None:  # noqa: ANN401  a mask
    """Return the share of pairs of a positive and a negative row that `scores` orders correctly.

    `positive` is a mask (rows,). Ties count half (Mann and Whitney, 1947). None without pairs.
    """
    positives = int(positive.sum())
    pairs = positives * (len(scores) - positives)
    if pairs == 0:
        return None
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / pairs)


FIGURES = ("sse", "mse", "mae", "rmse", "r2")


def _number_figures(truth: Floats, predicted: Floats) -> Scores:
    # A net that diverged may predict numbers whose squares overflow.
    with np.errstate(over="ignore", invalid="ignore"):
        errors = predicted - truth
        sse, spread = float(errors @ errors), float(((truth - truth.mean()) ** 2).sum())
        mse = sse / len(truth)
        return {
            "sse": sse,
            "mse": mse,
            "mae": float(np.abs(errors).mean()),
            "rmse": float(np.sqrt(mse)),
            "r2": 1 - sse / spread if spread else None,
        }


def _class_figures(confusion: Any, place: int) -> Scores:  # noqa: ANN401  an integer matrix
    hits = int(confusion[place, place])
    predicted, support = int(confusion[:, place].sum()), int(confusion[place].sum())
    return {
        "precision": hits / predicted if predicted else None,
        "recall": hits / support if support else None,
        "f1": 2 * hits / (predicted + support) if predicted + support else None,
        "support": support,
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class Roc:
    """The false and the true positive rate of a class at each threshold, (points,) each."""

    auc: float | None
    false_positive_rate: Floats
    true_positive_rate: Floats
    #: A row is predicted to be of the class from this share up; the first is above all shares.
    threshold: Floats


def roc_curve(positive: NDArray[np.bool_], shares: Floats) -> Roc:
    """Return the receiver operating characteristic of a class, from (0, 0) to (1, 1).

    `positive` is a mask (rows,) of the class, `shares` its predicted shares (rows,). The curve has
    one point per distinct share, at most `MOST_POINTS`. It is empty if all rows or no rows are of
    the class.
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        empty = np.empty(0)
        return Roc(None, empty, empty, empty)
    order = np.argsort(-shares, kind="stable")
    ranked = shares[order]
    # Rows with the same share make one point: that of the last of them.
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    hits = np.cumsum(positive[order])[last]
    true_rate = np.concatenate([[0.0], hits / positives])
    false_rate = np.concatenate([[0.0], (last + 1 - hits) / negatives])
    threshold = np.concatenate([[np.nextafter(ranked[0], np.inf)], ranked[last]])
    kept = np.unique(np.linspace(0, len(last), MOST_POINTS).round().astype(np.int64))
    return Roc(
        area_under_curve(positive, shares), false_rate[kept], true_rate[kept], threshold[kept]
    )


def pairs(truth: Floats, predicted: Floats) -> tuple[list[float], list[float]]:
    """Return the two (rows,) arrays as lists, without rows whose prediction is not finite."""
    known: Any = np.isfinite(predicted)
    return truth[known].tolist(), predicted[known].tolist()


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
