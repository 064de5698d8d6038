from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from models.data import Floats, Integers
from models.features.targets import ClassTarget, NumberTargets, Target
from models.training.scores import (
    area_under_curve,
    evaluate,
    evaluate_baseline,
    tally,
)

ONE = NumberTargets(("y",), ("number",), (0.0,), (1.0,), (0.0,), (1.0,), (0.0,), (1.0,))
_PAIR = ((0.0, 0.0), (1.0, 1.0))
TWO = NumberTargets(("a", "b"), ("number", "number"), *_PAIR, *_PAIR, *_PAIR)
CLASSES = ClassTarget("y", "category", ("a", "b", "c"))
BINARY = ClassTarget("y", "boolean", (False, True))
RANDOM = np.random.default_rng(5)


def test_the_figures_of_a_regression_are_scikit_learns() -> None:
    truth, predicted = RANDOM.normal(size=(40, 1)), RANDOM.normal(size=(40, 1))
    figures = evaluate(ONE, truth, predicted)
    assert figures["mse"] == pytest.approx(metrics.mean_squared_error(truth, predicted))
    assert figures["mae"] == pytest.approx(metrics.mean_absolute_error(truth, predicted))
    assert figures["r2"] == pytest.approx(metrics.r2_score(truth, predicted))
    assert figures["rmse"] ** 2 == pytest.approx(figures["mse"])
    assert figures["sse"] == pytest.approx(40 * figures["mse"])


def test_several_targets_have_their_mean_and_each_ones_figures() -> None:
    figures = evaluate(TWO, np.zeros((4, 2)), np.array([[1.0, 3.0]] * 4))
    assert figures["mse"] == 5
    assert figures["targets"]["b"]["mse"] == 9


def test_one_row_has_no_r2() -> None:
    assert evaluate(ONE, np.ones((1, 1)), np.ones((1, 1)))["r2"] is None


def test_the_figures_of_classes_are_scikit_learns() -> None:
    truth = RANDOM.integers(0, 3, 60)
    shares = RANDOM.dirichlet([1, 1, 1], 60)
    figures = evaluate(CLASSES, truth, shares)
    predicted = shares.argmax(axis=1)
    assert figures["accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert figures["cross_entropy"] == pytest.approx(metrics.log_loss(truth, shares))
    assert figures["confusion"]["matrix"] == metrics.confusion_matrix(truth, predicted).tolist()
    precision, recall, f1, support = metrics.precision_recall_fscore_support(truth, predicted)
    for place, label in enumerate("abc"):
        assert figures["classes"][label] == pytest.approx(
            {
                "precision": precision[place],
                "recall": recall[place],
                "f1": f1[place],
                "support": support[place],
            }
        )


def test_two_classes_have_the_area_under_the_curve() -> None:
    truth = RANDOM.integers(0, 2, 50)
    shares = RANDOM.integers(0, 5, 50) / 4  # with ties
    figures = evaluate(BINARY, truth, np.column_stack([1 - shares, shares]))
    assert figures["auc"] == pytest.approx(metrics.roc_auc_score(truth, shares))


def test_there_is_no_curve_of_one_class() -> None:
    assert area_under_curve(np.zeros(3, dtype=bool), np.ones(3)) is None


def test_a_share_of_zero_for_the_true_class_stays_finite() -> None:
    figures = evaluate(BINARY, np.array([1]), np.array([[1.0, 0.0]]))
    assert 700 < figures["cross_entropy"] < 800


def test_the_baseline_of_a_regression_is_the_training_mean() -> None:
    figures = evaluate_baseline(ONE, [np.array([[1.0], [3.0]])], [np.array([[2.0], [4.0]])])
    assert figures["mse"] == 2


def test_the_baseline_of_classes_is_the_commonest_one() -> None:
    figures = evaluate_baseline(
        BINARY, [np.array([1, 1]), np.array([0])], [np.array([1, 0]), np.array([0, 0])]
    )
    assert figures["accuracy"] == 0.25


@pytest.mark.parametrize("target", [ONE, TWO, CLASSES, BINARY])
def test_scores_do_not_depend_on_the_blocks_in_which_rows_come(target: Target) -> None:
    rows, outputs = 1_000, target.outputs
    truth: Floats | Integers
    if isinstance(target, ClassTarget):
        truth = RANDOM.integers(0, outputs, rows)
        decoded = RANDOM.dirichlet([1] * outputs, rows).round(2)  # with ties
    else:
        truth = RANDOM.normal(5, 2, (rows, outputs))
        decoded = truth + RANDOM.normal(size=(rows, outputs))
    parts = tally(target)
    for start in range(0, rows, 300):
        parts.add(truth[start : start + 300], decoded[start : start + 300])
    assert _numbers(parts.scores()) == pytest.approx(_numbers(evaluate(target, truth, decoded)))


def _numbers(scores: Any) -> list[float]:
    if isinstance(scores, dict):
        return [number for value in scores.values() for number in _numbers(value)]
    if isinstance(scores, list):
        return [number for value in scores for number in _numbers(value)]
    return [scores] if isinstance(scores, int | float) else []
