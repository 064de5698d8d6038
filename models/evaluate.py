"""How good predictions are: figures in the targets' own units, ready for JSON.

Knows NumPy only. A figure that the rows do not define, such as R² of one row, is None.
"""

from typing import Any, TypeAlias

import numpy as np

from models.data import Floats, Rows
from models.targets import ClassTarget, NumberTargets, Target

Figures: TypeAlias = dict[str, Any]


def evaluate(target: Target, truth: Floats | Rows, decoded: Floats) -> Figures:
    """Compare `decoded` (what `Features.decode` gave) with the truth.

    `truth` is float64 (rows, targets) for a regression, and int64 (rows,) class numbers else.
    """
    if isinstance(target, ClassTarget):
        return evaluate_classes(target, truth.astype(np.int64), decoded)
    return evaluate_numbers(target, truth.astype(np.float64), decoded)


def evaluate_numbers(target: NumberTargets, truth: Floats, predicted: Floats) -> Figures:
    """Return sse, mse, mae, rmse and r2; of several targets their means, and each one's."""
    each = {
        name: _number_figures(truth[:, place], predicted[:, place])
        for place, name in enumerate(target.names)
    }
    if len(each) == 1:
        return next(iter(each.values()))
    mean = {name: _mean([figures[name] for figures in each.values()]) for name in FIGURES}
    return mean | {"targets": each}


def evaluate_classes(target: ClassTarget, truth: Rows, shares: Floats) -> Figures:
    """Return accuracy, cross_entropy, auc of two classes, figures per class and the confusion.

    The confusion matrix has a row per true class and a column per predicted one.
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


def evaluate_baseline(target: Target, train: Floats | Rows, truth: Floats | Rows) -> Figures:
    """Evaluate what needs no features: the training rows' mean, or their classes' shares."""
    if isinstance(target, ClassTarget):
        counts = np.bincount(train.astype(np.int64), minlength=len(target.classes))
        constant = counts / counts.sum()
    else:
        constant = train.astype(np.float64).mean(axis=0)
    return evaluate(target, truth, np.tile(constant, (len(truth), 1)))


def area_under_curve(positive: Any, scores: Floats) -> float | None:  # noqa: ANN401  a mask
    """Return the share of pairs of a positive and a negative row that the scores put in order.

    Ties count half (Mann and Whitney, 1947).
    """
    positives = int(positive.sum())
    pairs = positives * (len(scores) - positives)
    if pairs == 0:
        return None
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / pairs)


FIGURES = ("sse", "mse", "mae", "rmse", "r2")


def _number_figures(truth: Floats, predicted: Floats) -> Figures:
    # A net that grew without bound may predict numbers whose square is no float.
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


def _class_figures(confusion: Any, place: int) -> Figures:  # noqa: ANN401  an integer matrix
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
