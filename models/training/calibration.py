"""Makes the calibration of a model: how far its predictions were from rows it was not trained on.

The result is part of the checkpoint; `models.predict.intervals` says what it promises and applies
it. The coverage is measured on rows that the calibration did not use. Knows NumPy only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.data import Floats, Integers
from models.features.targets import ClassTarget, Target
from models.predict.intervals import (
    MOST_SCORES,
    ClassCalibration,
    Conformal,
    LineCalibration,
    NumberCalibration,
    Scale,
    Scores,
    leverage,
    t_quantile,
)
from models.training.interface import SplitName

#: The levels whose coverage is measured.
LEVELS = (0.8, 0.9, 0.95)
#: The margin for rows that chose the best epoch, so that their errors are a little too small. It
#: has the form of the bound of Liang, Zhou and Sesia, "Conformal inference is (almost) free for
#: neural networks trained with early stopping" (2023), but its size is measured: on four tables
#: with nets and trees, coverage without it fell short by 0.10 ± 0.02 over the root of these rows.
CHOSEN = 0.1
#: Parts of the training rows, by the predicted number, that have an error size of their own.
PARTS, PART_ROWS = 10, 30
#: Rows of the mean error that each part has beside its own.
SHRINKAGE = 20
#: The least size of an error, in mean ones: training rows may be learned by heart.
LEAST_SIZE = 0.1
#: Encoded columns of a line, and rows times their square, for which exact intervals are made.
MOST_WIDTH = 100
MOST_WORK = 10**9
#: How much larger the squared errors of a line may be than those of least squares.
LARGER = 1e-3
#: Intervals of confidence in the report of calibration.
BINS = 10


@dataclass(frozen=True)
class Predicted:
    """Rows with their predictions, both as in `Features.decode`."""

    truth: Floats | Integers
    decoded: Floats

    @property
    def rows(self) -> int:
        return len(self.decoded)

    def part(self, rows: slice) -> "Predicted":
        return Predicted(self.truth[rows], self.decoded[rows])


def calibrate(
    target: Target, train: Predicted | None, held_out: Predicted, *, margin: float = CHOSEN
) -> Conformal | None:
    """Return the conformal calibration by rows that were not trained on, such as out-of-fold ones.

    The training rows tell for which predictions errors are larger; None takes all as equal.
    `margin` is 0 if the held-out rows did not choose the epoch. The result is None if there are no
    rows, or if a prediction is not finite.
    """
    if not held_out.rows or not np.isfinite(held_out.decoded).all():
        return None
    if isinstance(target, ClassTarget):
        return ClassCalibration(Scores.of(_class_scores(held_out), MOST_SCORES, margin))
    scales = tuple(_scale(train, place) for place in range(len(target.names)))
    return NumberCalibration(_number_scores(held_out, scales, margin), scales)


def _number_scores(rows: Predicted, scales: Sequence[Scale], margin: float) -> tuple[Scores, ...]:
    most = max(100, MOST_SCORES // len(scales))
    errors = np.abs(rows.truth - rows.decoded).T
    return tuple(
        Scores.of(each / scale(predicted), most, margin)
        for each, scale, predicted in zip(errors, scales, rows.decoded.T, strict=True)
    )


def _class_scores(found: Predicted) -> Floats:
    numbers = found.truth.astype(np.int64)
    scores: Floats = 1 - found.decoded[np.arange(found.rows), numbers]
    return scores


def _scale(train: Predicted | None, place: int) -> Scale:
    """Return the usual size of a training row's error by its predicted number."""
    even = Scale(np.zeros(1), np.ones(1))
    if train is None or train.rows < 2 * PART_ROWS:
        return even
    predicted = train.decoded[:, place]
    errors = np.abs(predicted - train.truth[:, place])
    mean = float(errors.mean())
    if not math.isfinite(mean) or mean == 0:
        return even
    count = min(PARTS, train.rows // PART_ROWS)
    parts = np.array_split(np.argsort(predicted, kind="stable"), count)
    sizes = [(errors[p].sum() + SHRINKAGE * mean) / (len(p) + SHRINKAGE) for p in parts]
    at = np.array([predicted[part].mean() for part in parts])
    return Scale(at, np.maximum(np.array(sizes) / mean, LEAST_SIZE))


# ---- exact intervals of a line ------------------------------------------------------------------


def calibrate_line(
    x: Floats, truth: Floats, decoded: Floats, best: Floats
) -> LineCalibration | None:
    """Return the exact calibration of a line that has learned what least squares gives.

    `x` are the encoded training rows (rows, width); `truth`, `decoded` and `best`, the predictions
    of the closed form, are (rows, targets). None if the errors are larger than those of least
    squares, or if no degree of freedom is left.
    """
    rows = len(x)
    means = x.mean(axis=0)
    centred = x - means
    inverse = np.linalg.pinv(centred.T @ centred, hermitian=True)
    freedom = rows - 1 - int(np.linalg.matrix_rank(centred))
    errors = ((decoded - truth) ** 2).sum(axis=0)
    least = ((best - truth) ** 2).sum(axis=0)
    if freedom < 1 or not (errors <= (1 + LARGER) * least).all() or not (least > 0).all():
        return None
    return LineCalibration(rows, freedom, np.sqrt(errors / freedom), means, inverse)


# ---- what was reached ---------------------------------------------------------------------------


def measure(found: Conformal, held_out: Predicted, fresh: Predicted | None) -> list[dict[str, Any]]:
    """Return the share of rows whose interval or set holds the true value, for some levels.

    `fresh` are rows that the calibration did not use. Without them each half of the `held_out`
    rows, in their order, is measured with the scores of the other one. A level for which the rows
    are too few is left out.
    """
    pairs: list[tuple[Conformal | None, Predicted]]
    if fresh is not None:
        pairs = [(found, fresh)]
    else:
        half = held_out.rows // 2
        first, second = held_out.part(slice(half)), held_out.part(slice(half, None))
        pairs = [(_again(found, a), b) for a, b in ((first, second), (second, first))]
    measured = []
    for level in LEVELS:
        hits = [
            _covered(calibration, level, rows)
            for calibration, rows in pairs
            if calibration is not None and level <= calibration.most_level
        ]
        if len(hits) == len(pairs):
            joined = np.concatenate(hits)
            measured.append({"level": level, "reached": float(joined.mean()), "rows": len(joined)})
    return measured


def describe(
    target: Target,
    found: Conformal | None,
    split: SplitName,
    held_out: Predicted,
    fresh: Predicted | None = None,
) -> dict[str, Any]:
    """Return what is known of the intervals, sets and probabilities, for an evaluation.

    `fresh` are rows that neither chose the epoch nor calibrated, if there are any.
    """
    figures: dict[str, Any] = {}
    if found is not None:
        figures = {"method": "conformal", "split": split, "rows": held_out.rows}
        figures["most_level"] = found.most_level
        figures["coverage"] = measure(found, held_out, fresh)
    if isinstance(target, ClassTarget):
        figures["reliability"] = reliability(fresh or held_out)
    return figures


def _again(found: Conformal, rows: Predicted) -> Conformal | None:
    """Return a calibration by other rows with the same scales; None without rows."""
    if not rows.rows:
        return None
    if isinstance(found, ClassCalibration):
        margin = found.scores.margin
        return ClassCalibration(Scores.of(_class_scores(rows), MOST_SCORES, margin))
    margin = found.scores[0].margin
    return NumberCalibration(_number_scores(rows, found.scales, margin), found.scales)


def _covered(found: Conformal, level: float, rows: Predicted) -> Floats:
    """Return for each row the share of its targets that are covered, (rows,)."""
    if isinstance(found, ClassCalibration):
        chosen = found.sets(level, rows.decoded)
        return chosen[np.arange(rows.rows), rows.truth.astype(np.int64)].astype(np.float64)
    within = np.abs(rows.truth - rows.decoded) <= found.half_widths(level, rows.decoded)
    shares: Floats = within.mean(axis=1)
    return shares


def measure_line(
    found: LineCalibration, x: Floats, truth: Floats, decoded: Floats
) -> list[dict[str, Any]]:
    """Return the share of training rows that the line of all other rows covers, for some levels.

    By the residuals in units of their own deviation: Cook and Weisberg, "Residuals and Influence
    in Regression" (1982), section 2.2. A row that alone decides a weight is left out.
    """
    if found.freedom < 2:
        return []
    left = 1 - leverage(x - found.means, found.inverse, found.rows)
    known = left > 1e-9
    if not known.any():
        return []
    errors, left = (decoded - truth)[known], left[known, None]
    squares = found.deviations**2 * found.freedom
    others = (squares - errors**2 / left) / (found.freedom - 1)
    sizes = np.abs(errors) / np.sqrt(np.maximum(others * left, 1e-300))
    return [
        {
            "level": level,
            "reached": float((sizes <= t_quantile(level, found.freedom - 1)).mean()),
            "rows": int(known.sum()),
        }
        for level in LEVELS
    ]


def reliability(rows: Predicted) -> dict[str, Any]:
    """Return the expected calibration error of classes, and its bins.

    A bin holds the rows whose likeliest class has a probability in one tenth of 0 to 1, and
    compares it with the share of right predictions: Guo et al., "On Calibration of Modern Neural
    Networks" (2017).
    """
    best = rows.decoded.argmax(axis=1)
    confidence = rows.decoded[np.arange(rows.rows), best]
    is_right = best == rows.truth
    places = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    bins, error = [], 0.0
    for place in np.unique(places):
        chosen = places == place
        mean, share = float(confidence[chosen].mean()), float(is_right[chosen].mean())
        count = int(chosen.sum())
        error += abs(mean - share) * count / rows.rows
        bins.append(
            {
                "from": int(place) / BINS,
                "to": (int(place) + 1) / BINS,
                "rows": count,
                "confidence": mean,
                "accuracy": share,
            }
        )
    return {"rows": rows.rows, "ece": error, "bins": bins}
