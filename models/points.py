"""Predictions against the truth, point by point, for pictures. Knows NumPy only."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.data import Floats
from models.evaluate import area_under_curve

#: Points of a curve, beyond which a picture gains nothing.
MOST_POINTS = 200


@dataclass(frozen=True)
class Roc:
    """How many of the others are taken for a class at each threshold, and how many of its own."""

    auc: float | None
    false_positive_rate: Floats
    true_positive_rate: Floats
    #: A row whose share is at least this is taken for the class; the first is above all shares.
    threshold: Floats


def roc_curve(positive: NDArray[np.bool_], shares: Floats) -> Roc:
    """Return the receiver operating characteristic of a class.

    From (0, 0) to (1, 1), a point per share that occurs, thinned to `MOST_POINTS`. Without rows of
    the class, or without others, there is no curve.
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        empty = np.empty(0)
        return Roc(None, empty, empty, empty)
    order = np.argsort(-shares, kind="stable")
    ranked = shares[order]
    # Rows with the same share are taken together: the last one of each stands for all.
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
    """Return the two as lists, without the rows whose prediction is no number."""
    known: Any = np.isfinite(predicted)
    return truth[known].tolist(), predicted[known].tolist()
