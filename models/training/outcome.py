"""The evaluation of a finished training: scores on each split, baselines, importance."""

from typing import Any

import numpy as np

from models.data import Floats, Integers
from models.evaluation.importance import permutation_importance
from models.evaluation.scores import Scores, evaluate, evaluate_baseline
from models.nets.closed_form import Line
from models.training.interface import SplitName
from models.training.state import Training

#: The work for the importance of columns, as a share of the training's work.
SHARE = 0.02
#: The work of a training step in forward passes: one forward, and backward about two.
PASSES = 3


def evaluate_best(training: Training) -> dict[str, Any]:
    """Evaluate the best parameters on every split that has rows, and the baselines on the last.

    The result holds scores by split. `baseline` holds the name of its split, `constant` (the
    training rows' mean, or their classes' shares) and for a regression `linear` (least squares).
    `importance` holds the importance of each column on the same split; it is absent if it would
    take too long to compute.
    """
    split = training.split
    parts: dict[SplitName, Integers] = {
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


def scalar_scores(figures: Scores) -> dict[str, float]:
    """Return the single numbers among the scores of a split."""
    return {name: value for name, value in figures.items() if isinstance(value, float)}


def _evaluate(training: Training, rows: Integers, decoded: Floats) -> Scores:
    return evaluate(training.features.target, _truth(training, rows), decoded)


def _baseline(training: Training, rows: Integers) -> dict[str, Scores]:
    target, train = training.features.target, _truth(training, training.split.train)
    found = {"constant": evaluate_baseline(target, train, _truth(training, rows))}
    line = training.least_squares
    if line is not None:
        found["linear"] = _evaluate(training, rows, _predict(training, line, rows))
    return found


def _importance(training: Training, rows: Integers) -> dict[str, Any] | None:
    spent = training.state.step * training.batch_size * training.parameters * PASSES
    return permutation_importance(
        training.features,
        training.best_stack(),
        training.given.table,
        rows,
        seed=training.config.seed,
        work=int(SHARE * spent),
    )


def _predict(training: Training, line: Line, rows: Integers) -> Floats:
    x = training.features.encode(training.given.table, rows, dtype=np.float64)
    return training.features.decode(x @ line.weights.T + line.biases)


def _truth(training: Training, rows: Integers) -> Floats | Integers:
    return training.features.truth(training.given.table, rows)
