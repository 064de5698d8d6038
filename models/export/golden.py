"""Golden rows: inputs with their predictions, which verify every copy of a model.

The rows are made from the model's statistics of its columns (means, extremes, categories, a missing
and an unknown value), so that no row of the training data is exported. Also holds the tolerance for
differences of predictions. Knows NumPy only.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np

from models.data import Floats
from models.errors import BundleInvalid
from models.features.encoding import Features
from models.features.inputs import Choice, Input
from models.features.targets import NumberTargets
from models.predict.predictor import Prediction, Predictor
from models.predict.values import RawValue

MAX_ROWS = 64
MAX_CELLS = 20_000  # so that wide models have few rows
#: The largest allowed difference: of a number, relative to the larger of its size and its target's
#: standard deviation; of a class probability, absolute.
TOLERANCE = 1e-5
UNKNOWN = "?"  # the first character of a category that no training row had

GoldenRow: TypeAlias = dict[str, RawValue]


def golden_rows(features: Features) -> list[GoldenRow]:
    """Return rows that reach every branch of the preprocessing, the most important first."""
    columns = features.inputs
    most = max(4, min(MAX_ROWS, MAX_CELLS // max(1, len(columns))))
    rows: list[GoldenRow] = []
    for row in _rows(columns):
        if row not in rows:
            rows.append(row)
        if len(rows) == most:
            break
    return rows


def golden(predictor: Predictor) -> dict[str, Any]:
    """Return the golden rows and the model's predictions for them, ready for JSON."""
    rows = golden_rows(predictor.features)
    answers = [_answer(prediction) for prediction in _predict(predictor, rows)]
    return {"tolerance": TOLERANCE, "rows": rows, "predictions": answers}


def check_golden(predictor: Predictor, document: Mapping[str, Any]) -> float:
    """Predict the golden rows of a bundle and return the largest difference, in tolerances.

    Raises `BundleInvalid` if an answer differs by more than one tolerance.
    """
    rows, wanted = document["rows"], document["predictions"]
    worst = 0.0
    for number, (prediction, answer) in enumerate(
        zip(_predict(predictor, rows), wanted, strict=True), 1
    ):
        found = _answer(prediction)
        difference = _difference(predictor.features, found, answer)
        if not difference <= 1:
            raise BundleInvalid(
                f"the prediction for golden row {number} is {found['value']!r}, the bundle says "
                f"{answer['value']!r}: it was changed, or this version predicts differently",
                code="golden_mismatch",
            )
        worst = max(worst, difference)
    return worst


def _predict(predictor: Predictor, rows: Sequence[GoldenRow]) -> list[Prediction]:
    names = {name: None for row in rows for name in row}
    columns = {name: [row.get(name) for row in rows] for name in names}
    return predictor.predict(columns, len(rows))


def _answer(prediction: Prediction) -> dict[str, Any]:
    """Return a prediction without its warnings, because their wording may change."""
    answer: dict[str, Any] = {"value": prediction.value}
    if prediction.probabilities is not None:
        answer["probabilities"] = prediction.probabilities
    return answer


# ---- rows ---------------------------------------------------------------------------------------


def _rows(columns: Sequence[Input]) -> Iterator[GoldenRow]:
    typical = {column.name: _values(column)[0] for column in columns}
    yield typical
    yield {column.name: None for column in columns}
    yield {column.name: _values(column)[1] for column in columns}
    yield {column.name: _values(column)[2] for column in columns}
    if any(isinstance(column, Choice) for column in columns):
        yield typical | {c.name: _unknown(c) for c in columns if isinstance(c, Choice)}
    for column in columns:
        yield typical | {column.name: None}
    for place in range(3, MAX_ROWS):
        for column in columns:
            values = _values(column)
            if place < len(values):
                yield typical | {column.name: values[place]}


def _values(column: Input) -> list[RawValue]:
    """Return a typical value, two values far apart, and further ones."""
    if isinstance(column, Choice):
        known: Sequence[str] = column.categories[:MAX_ROWS] or (UNKNOWN,)
        return [known[0], known[-1], known[len(known) // 2], *known]
    if column.type == "boolean":
        return [column.mean >= 0.5, False, True]
    low = column.mean if column.min is None else column.min
    high = column.mean if column.max is None else column.max
    numbers = [column.mean, low, high, (column.mean + low) / 2, (column.mean + high) / 2]
    return [_spelled(column, number) for number in numbers]


def _spelled(column: Input, number: float) -> RawValue:
    if column.type == "integer":
        return round(number)
    if column.type == "datetime":
        try:
            return datetime.fromtimestamp(number, UTC).isoformat()
        except (OverflowError, ValueError, OSError):  # beyond the years 1 to 9999
            return number
    return number


def _unknown(column: Choice) -> str:
    word = UNKNOWN
    while word in column.index:
        word += UNKNOWN
    return word


# ---- differences --------------------------------------------------------------------------------


def _difference(features: Features, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> float:
    """Return the difference of two answers, in tolerances."""
    target = features.target
    if not isinstance(target, NumberTargets):
        return _share_difference(found, wanted)
    if found["value"] is None or wanted["value"] is None:
        return 0.0 if found["value"] is wanted["value"] else float("inf")
    several = len(target.names) > 1
    return max(
        _number_difference(
            found["value"][name] if several else found["value"],
            wanted["value"][name] if several else wanted["value"],
            std,
        )
        for name, std in zip(target.names, target.std, strict=True)
    )


def _number_difference(found: float, wanted: float, std: float) -> float:
    return abs(found - wanted) / (TOLERANCE * max(abs(wanted), std))


def _share_difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> float:
    """Compare probabilities; the class may differ if two classes are almost equally likely."""
    ours, theirs = found.get("probabilities"), wanted.get("probabilities")
    if ours is None or theirs is None:
        return 0.0 if ours is theirs and found["value"] is wanted["value"] else float("inf")
    if ours.keys() != theirs.keys():
        return float("inf")
    worst = max(abs(ours[label] - theirs[label]) for label in ours) / TOLERANCE
    if found["value"] != wanted["value"]:
        first, second = sorted(ours.values(), reverse=True)[:2]
        worst = max(worst, (first - second) / (2 * TOLERANCE))
    return float(worst)


def scales(features: Features) -> Floats:
    """Return the unit of differences of each output, (outputs,): a deviation, or 1 for classes."""
    target = features.target
    if isinstance(target, NumberTargets):
        return np.array(target.std, dtype=np.float64)
    return np.ones(target.outputs)


def differences(features: Features, expected: Floats, found: Floats) -> Floats:
    """Return the largest difference of each row, (rows,), for comparison with `TOLERANCE`.

    `expected` and `found` are (rows, outputs). NaN means no answer: it equals NaN, and is
    infinitely far from any number.
    """
    size = np.broadcast_to(scales(features), expected.shape)
    if isinstance(features.target, NumberTargets):
        size = np.maximum(np.abs(expected), size)
    with np.errstate(all="ignore"):
        apart = np.abs(found - expected)
        shares = np.where(apart == 0, 0.0, apart / size)
    shares[np.isnan(expected) & np.isnan(found)] = 0.0
    shares[np.isnan(shares)] = np.inf
    largest: Floats = shares.max(axis=1, initial=0.0)
    return largest
