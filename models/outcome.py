"""What a finished training is worth: figures on each split, beside what needs no net."""

from typing import Any

import numpy as np

from models.closed_form import Line
from models.data import Floats, Rows
from models.evaluate import Figures, evaluate, evaluate_baseline
from models.events import SplitName
from models.importance import permutation_importance
from models.training import Training

#: What the importance of the columns may cost, in shares of what the training did …
SHARE = 0.02
#: … which passed forward once and backward twice.
PASSES = 3


def evaluate_best(training: Training) -> dict[str, Any]:
    """Evaluate the best parameters on every split that has rows, and the baselines on one.

    `baseline` holds the split it was computed on, `constant` (the training rows' mean, or their
    classes' shares) and for a regression `linear` (least squares). `importance` holds what each
    column is worth, on the same split; it is absent where that would take too long to learn.
    """
    split = training.split
    parts: dict[SplitName, Rows] = {
        "train": split.train,
        "validation": split.validation,
        "test": split.test,
    }
    parts = {name: rows for name, rows in parts.items() if len(rows)}
    with training.best_parameters():
        figures: dict[str, Any] = {
            name: _evaluate(training, rows, training.decode(training.examples(name)))
            for name, rows in parts.items()
        }
    held_out = next(reversed(parts))
    figures["baseline"] = {"split": held_out} | _baseline(training, parts[held_out])
    if importance := _importance(training, parts[held_out]):
        figures["importance"] = {"split": held_out} | importance
    return figures


def scalar_figures(figures: Figures) -> dict[str, float]:
    """Return the single numbers among the figures of a split."""
    return {name: value for name, value in figures.items() if isinstance(value, float)}


def _evaluate(training: Training, rows: Rows, decoded: Floats) -> Figures:
    return evaluate(training.features.target, _truth(training, rows), decoded)


def _baseline(training: Training, rows: Rows) -> dict[str, Figures]:
    target, train = training.features.target, _truth(training, training.split.train)
    found = {"constant": evaluate_baseline(target, train, _truth(training, rows))}
    line = training.least_squares
    if line is not None:
        found["linear"] = _evaluate(training, rows, _predict(training, line, rows))
    return found


def _importance(training: Training, rows: Rows) -> dict[str, Any] | None:
    spent = training.state.step * training.batch_size * training.parameters * PASSES
    return permutation_importance(
        training.features,
        training.best_stack(),
        training.job.table,
        rows,
        seed=training.config.seed,
        work=int(SHARE * spent),
    )


def _predict(training: Training, line: Line, rows: Rows) -> Floats:
    x = training.features.encode(training.job.table, rows, dtype=np.float64)
    return training.features.decode(x @ line.weights.T + line.biases)


def _truth(training: Training, rows: Rows) -> Floats | Rows:
    return training.features.truth(training.job.table, rows)
