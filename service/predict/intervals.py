"""Adds intervals and sets to the answers of predictions, and writes them as columns."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import orjson

from models.data import Floats
from models.features.targets import ClassTarget, NumberTargets
from models.predict.intervals import (
    Calibration,
    ClassCalibration,
    LineCalibration,
    NumberCalibration,
)
from models.predict.predictor import Predictor
from models.predict.values import Problems
from service.predict import levels
from service.predict.bodies import Answer, Rows


def calibration_of(predictor: Predictor, level: float) -> Calibration:
    """Return the calibration that a request of this level needs.

    Raises `levels.NotCalibrated`, `levels.LevelTooHigh` and CheckpointCorrupt.
    """
    found = predictor.calibration
    levels.check(level, None if found is None else found.most_level)
    if found is None:
        raise TypeError("a model without a calibration is refused")
    return found


def add(
    found: Sequence[Answer],
    predictor: Predictor,
    calibration: Calibration,
    level: float,
    rows: Rows,
) -> None:
    """Add the `interval` or the `set` of this level to each answer that has a value."""
    target = predictor.features.target
    known = [place for place, answer in enumerate(found) if answer["value"] is not None]
    answers = [found[place] for place in known]
    if isinstance(target, ClassTarget):
        if isinstance(calibration, ClassCalibration) and answers:
            _add_sets(answers, target, calibration, level)
        return
    several = len(target.names) > 1
    values = [answer["value"] for answer in answers]
    numbers = [[value[name] for name in target.names] if several else [value] for value in values]
    predicted = np.array(numbers, dtype=np.float64).reshape(len(answers), len(target.names))
    half = _half_widths(predictor, calibration, level, predicted, rows, known)
    bounds = np.stack([predicted - half, predicted + half], axis=2).tolist()
    for answer, pairs in zip(answers, bounds, strict=True):
        by_target = dict(zip(target.names, pairs, strict=True))
        answer["interval"] = by_target if several else pairs[0]


def _half_widths(
    predictor: Predictor,
    calibration: Calibration,
    level: float,
    predicted: Floats,
    rows: Rows,
    known: list[int],
) -> Floats:
    if isinstance(calibration, NumberCalibration):
        return calibration.half_widths(level, predicted)
    if not isinstance(calibration, LineCalibration):
        raise TypeError("a calibration of classes fits no numbers")
    # The answers list the problems of values already, so these are discarded.
    table = predictor.read(rows.columns, rows.count, Problems(), from_text=rows.is_text)
    encoded = predictor.features.encode(table, dtype=np.float64).astype(np.float64, copy=False)
    return calibration.half_widths(level, encoded[known])


def _add_sets(
    answers: Sequence[Answer], target: ClassTarget, calibration: ClassCalibration, level: float
) -> None:
    labels = target.labels
    shares = np.array([[each["probabilities"][label] for label in labels] for each in answers])
    chosen = calibration.sets(level, shares)
    order = np.argsort(-shares, axis=1, kind="stable")
    for answer, row, places in zip(answers, chosen, order, strict=True):
        answer["set"] = [target.classes[place] for place in places.tolist() if row[place]]


# ---- columns ------------------------------------------------------------------------------------


def bounds_of(
    rows: Sequence[Answer], target: NumberTargets | ClassTarget
) -> Iterator[tuple[str, list[float | None]]]:
    """Yield the columns of lower and upper bounds, if the answers have intervals."""
    found = [row.get("interval") for row in rows]
    if isinstance(target, ClassTarget) or not any(found):
        return
    several = len(target.names) > 1
    for name in target.names:
        pairs = [each and (each[name] if several else each) for each in found]
        column = f"value.{name}" if several else "value"
        yield f"{column}_low", [pair and pair[0] for pair in pairs]
        yield f"{column}_high", [pair and pair[1] for pair in pairs]


def sets_of(rows: Sequence[Answer]) -> list[list[Any] | None] | None:
    """Return the sets of the rows, most likely class first; None if the answers have none."""
    found = [row.get("set") for row in rows]
    return found if any(found) else None


def as_text(chosen: Sequence[Any] | None) -> str | None:
    """Return a set as a JSON array, for a cell of CSV."""
    return None if chosen is None else orjson.dumps(chosen).decode()
