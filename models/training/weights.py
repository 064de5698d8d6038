"""The weight of each training row in the loss: of its class, of its column, or both."""

import numpy as np

from descent.spec import RunConfig
from models.data import Floats, Integers, Table
from models.errors import DataInvalid
from models.features.targets import ClassTarget, Target


def weights_of(config: RunConfig, target: Target, table: Table, rows: Integers) -> Floats | None:
    """Return the weight of each of the training rows, (rows,), or None if all count once.

    The weights of classes and rows are multiplied, then scaled to a mean of 1, so that the loss
    keeps its scale. Raises `DataInvalid` if a weight is missing or below 0, or if all are 0.
    """
    weights = np.ones(len(rows))
    if config.weight is not None:
        weights *= _of_rows(table, config.weight, rows)
    if config.class_weight is not None:
        weights *= _of_classes(config, target, table, rows)
    if (weights == weights[0]).all() and weights[0] > 0:
        return None
    # Divide by the largest first, so that the sum is finite.
    weights /= weights.max() or 1.0
    mean = weights.mean()
    if mean == 0:
        raise DataInvalid(f"every training row has the weight 0 in {config.weight!r}")
    scaled: Floats = weights / mean
    return scaled


def _of_rows(table: Table, name: str, rows: Integers) -> Floats:
    weights = table.numbers(name)[rows]
    wrong = np.flatnonzero(~(weights >= 0))
    if len(wrong):
        row, weight = rows[wrong[0]] + 1, weights[wrong[0]]
        found = "is missing" if np.isnan(weight) else f"is {weight:g}"
        raise DataInvalid(f"the weight of row {row} in {name!r} {found}: weights are 0 or above")
    return weights


def _of_classes(config: RunConfig, target: Target, table: Table, rows: Integers) -> Floats:
    if not isinstance(target, ClassTarget):
        raise DataInvalid("class_weight needs classes, but the task is a regression")
    numbers = target.encode(table, rows)
    if config.class_weight == "balanced":
        # As scikit-learn: rows / (classes * rows of the class).
        counts = np.bincount(numbers, minlength=target.outputs)
        each = len(rows) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    else:
        each = np.ones(target.outputs)
        for label, weight in (config.class_weight or {}).items():
            place = target.place(label)
            if place < 0:
                known = ", ".join(map(repr, target.labels[:10]))
                raise DataInvalid(
                    f"class_weight names {label!r}, which is no class of {target.name!r}: {known}"
                )
            each[place] = weight
    weights: Floats = each[numbers]
    return weights
