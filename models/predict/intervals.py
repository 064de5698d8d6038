"""How sure a prediction is: an interval for a number, a set for a class.

A model's calibration is part of its checkpoint. It is one of two kinds.

- Conformal: the errors of rows that were not trained on. If further rows are exchangeable with
  these, an interval or a set of the level 0.9 holds the true value in at least 90 % of the cases,
  whatever the model is. Intervals: Lei et al., "Distribution-Free Predictive Inference for
  Regression" (2018), section 5.2, with errors in units of a scale that depends on the prediction.
  Sets: Sadinle, Lei and Wasserman, "Least Ambiguous Set-Valued Classifiers with Bounded Error
  Levels" (2019); here a set is never empty.
- Exact: Student's intervals of a least-squares line, from its training rows alone. They hold if
  the errors are independent and normal with one variance.

Knows NumPy only.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.data import Floats, Integers
from models.errors import CheckpointCorrupt
from models.features.targets import ClassTarget, Target

#: The levels that can be asked for.
LEAST, MOST = 0.5, 0.99
#: Scores that are kept of all targets together.
MOST_SCORES = 2_000
#: Degrees of freedom from which Student's distribution is close to the normal one.
NEARLY_NORMAL = 2_000


def rank_of(level: float, rows: int) -> int:
    """Return which of the ascending scores of `rows` rows bounds a further one at this level.

    It is ⌈(rows + 1) · level⌉, which is above `rows` if these are too few for the level.
    """
    return math.ceil(round((rows + 1) * level, 9))


def kept_ranks(rows: int, most: int) -> Integers:
    """Return the ranks whose scores are kept, ascending: at most `most`, the last one among them.

    Only levels from `LEAST` up are asked for. Of more ranks they are evenly spaced: then a level
    takes the next higher one.
    """
    first = min(rank_of(LEAST, rows), rows)
    ranks = np.arange(first, rows + 1)
    if len(ranks) <= most:
        return ranks
    return np.unique(np.linspace(first, rows, most).round().astype(np.int64))


@dataclass(frozen=True)
class Scores:
    """The greater half of the scores of some rows, ascending."""

    rows: int
    values: Floats
    #: The level is higher by this, divided by the root of the rows; 0 for rows that chose nothing.
    margin: float = 0.0

    @classmethod
    def of(cls, scores: Floats, most: int, margin: float = 0.0) -> "Scores":
        """Keep the scores that matter, (rows,)."""
        ranks = kept_ranks(len(scores), most)
        return cls(len(scores), np.sort(scores)[ranks - 1], margin)

    def quantile(self, level: float) -> float:
        """Return the bound of a further score at this level; infinity if the rows are too few."""
        if rank_of(level, self.rows) > self.rows:
            return math.inf
        rank = min(self.rows, rank_of(level + self.margin / math.sqrt(self.rows), self.rows))
        ranks = kept_ranks(self.rows, len(self.values))
        return float(self.values[np.searchsorted(ranks, rank)])


@dataclass(frozen=True)
class Scale:
    """The usual size of an error by the predicted number: linear between some points."""

    at: Floats
    sizes: Floats

    def __call__(self, predicted: Floats) -> Floats:
        """Return the size for each prediction, (rows,)."""
        found: Floats = np.interp(predicted, self.at, self.sizes)
        return found


@dataclass(frozen=True)
class NumberCalibration:
    """Conformal intervals of one or several numbers."""

    scores: tuple[Scores, ...]
    scales: tuple[Scale, ...]

    @property
    def most_level(self) -> float:
        """The highest level for which the rows suffice."""
        return min(each.rows / (each.rows + 1) for each in self.scores)

    def half_widths(self, level: float, predicted: Floats) -> Floats:
        """Return half of the width of the interval around each prediction, (rows, targets)."""
        pairs = zip(self.scores, self.scales, predicted.T, strict=True)
        return np.column_stack([scale(at) * kept.quantile(level) for kept, scale, at in pairs])


@dataclass(frozen=True)
class LineCalibration:
    """Exact intervals of a least-squares line."""

    rows: int
    #: degrees of freedom: rows less the rank of the columns and the bias
    freedom: int
    #: (targets,): the deviation of the errors, without bias
    deviations: Floats
    #: of the encoded columns over the training rows: (width,), and (width, width) the inverse of
    #: the products of the centred columns
    means: Floats
    inverse: Floats

    @property
    def most_level(self) -> float:
        """The highest level for which the rows suffice."""
        return MOST

    def half_widths(self, level: float, encoded: Floats) -> Floats:
        """Return half of the width of the interval of each encoded row, (rows, targets)."""
        t = t_quantile(level, self.freedom)
        spread = np.sqrt(1 + leverage(encoded - self.means, self.inverse, self.rows))
        found: Floats = t * spread[:, None] * self.deviations
        return found


@dataclass(frozen=True)
class ClassCalibration:
    """Conformal sets of classes. A row's score is one less the probability of its class."""

    scores: Scores

    @property
    def most_level(self) -> float:
        """The highest level for which the rows suffice."""
        return self.scores.rows / (self.scores.rows + 1)

    def sets(self, level: float, shares: Floats) -> NDArray[np.bool_]:
        """Return which classes belong to the set of each row, (rows, classes).

        `shares` are the probabilities. The likeliest class always belongs to it.
        """
        least = 1 - self.scores.quantile(level)
        return class_sets(shares, least)


Conformal: TypeAlias = NumberCalibration | ClassCalibration
Calibration: TypeAlias = Conformal | LineCalibration


def class_sets(shares: Floats, least: float) -> NDArray[np.bool_]:
    """Return which classes have at least this probability, or are the likeliest of their row."""
    chosen: NDArray[np.bool_] = shares >= least
    chosen[np.arange(len(shares)), shares.argmax(axis=1)] = True
    return chosen


def leverage(centred: Floats, inverse: Floats, rows: int) -> Floats:
    """Return how far each row lies from the training rows, (rows,), in a fit with a bias."""
    found: Floats = 1 / rows + np.einsum("ij,jk,ik->i", centred, inverse, centred)
    return found


# ---- Student's distribution ---------------------------------------------------------------------


@lru_cache(256)
def t_quantile(level: float, freedom: int) -> float:
    """Return the t such that Student's variable lies between -t and t with this probability."""
    if freedom > NEARLY_NORMAL:
        z = NormalDist().inv_cdf((1 + level) / 2)
        return z + (z**3 + z) / (4 * freedom)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """Return the probability between -t and t, where t = √freedom · tan(angle).

    Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964), 26.7.3 and 26.7.4.
    """
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = freedom % 2
    term, total = cosine if is_odd else 1.0, 0.0
    for place in range(freedom // 2):
        total += term
        below, above = (2 * place + 2, 2 * place + 3) if is_odd else (2 * place + 1, 2 * place + 2)
        term *= cosine**2 * below / above
    return (angle + sine * total) * 2 / math.pi if is_odd else sine * total


# ---- JSON ---------------------------------------------------------------------------------------


def to_json(found: Calibration) -> dict[str, Any]:
    """Return a calibration for a checkpoint's document."""
    if isinstance(found, NumberCalibration):
        targets = [
            _scores_to_json(kept) | {"at": scale.at.tolist(), "sizes": scale.sizes.tolist()}
            for kept, scale in zip(found.scores, found.scales, strict=True)
        ]
        return {"kind": "numbers", "targets": targets}
    if isinstance(found, ClassCalibration):
        return {"kind": "classes"} | _scores_to_json(found.scores)
    return {
        "kind": "line",
        "rows": found.rows,
        "freedom": found.freedom,
        "deviations": found.deviations.tolist(),
        "means": found.means.tolist(),
        "inverse": found.inverse.tolist(),
    }


def from_json(document: Mapping[str, Any]) -> Calibration:
    """Return a stored calibration; raises KeyError, TypeError or ValueError if it is none."""
    kind = document["kind"]
    if kind == "numbers":
        targets = document["targets"]
        return NumberCalibration(
            tuple(map(_scores_from_json, targets)),
            tuple(Scale(np.array(each["at"]), np.array(each["sizes"])) for each in targets),
        )
    if kind == "classes":
        return ClassCalibration(_scores_from_json(document))
    if kind != "line":
        raise ValueError(f"a calibration of kind {kind!r} is not known")
    arrays = {name: np.array(document[name]) for name in ("deviations", "means", "inverse")}
    return LineCalibration(document["rows"], document["freedom"], **arrays)


def _scores_to_json(scores: Scores) -> dict[str, Any]:
    # Six digits, rounded up: a bound may be too wide by a millionth, never too narrow.
    values = [_rounded_up(each) for each in scores.values.tolist()]
    return {"rows": scores.rows, "margin": scores.margin, "scores": values}


def _rounded_up(score: float) -> float:
    return float(f"{score + abs(score) * 1e-6:.7g}")


def _scores_from_json(document: Mapping[str, Any]) -> Scores:
    values = np.array(document["scores"], dtype=np.float64)
    return Scores(document["rows"], values, document["margin"])


def of_document(document: Mapping[str, Any], target: Target, width: int) -> Calibration | None:
    """Return the calibration in a checkpoint's document; None if the model was made without one.

    `width` is the count of encoded columns. Raises `CheckpointCorrupt` if it cannot be read, or
    does not fit the model.
    """
    stored = document.get("calibration")
    if stored is None:
        return None
    try:
        found = from_json(stored)
        _check_fit(found, target, width)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointCorrupt(f"the calibration cannot be read: {error!r}") from error
    return found


def _check_fit(found: Calibration, target: Target, width: int) -> None:
    targets = None if isinstance(target, ClassTarget) else len(target.names)
    if isinstance(found, LineCalibration):
        shapes = [array.shape for array in (found.deviations, found.means, found.inverse)]
        is_fit = shapes == [(targets,), (width,), (width, width)] and found.freedom >= 1
        arrays = [found.deviations, found.means, found.inverse]
    else:
        scores = found.scores if isinstance(found, NumberCalibration) else (found.scores,)
        is_fit = targets == (len(scores) if isinstance(found, NumberCalibration) else None)
        is_fit &= all(
            each.rows >= 1 and each.values.shape == kept_ranks(each.rows, len(each.values)).shape
            for each in scores
        )
        arrays = [each.values for each in scores]
    if not is_fit or not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("it does not fit the model")
