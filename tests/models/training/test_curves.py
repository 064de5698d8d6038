"""Curves and pairs for plots agree with the metrics."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.training.scores import MOST_POINTS, area_under_curve, pairs, roc_curve

rows = st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=2, max_size=60).filter(
    lambda found: len({is_positive for is_positive, _ in found}) == 2
)


@given(rows)
def test_the_area_below_the_curve_is_the_auc(found: list[tuple[bool, int]]) -> None:
    positive = np.array([is_positive for is_positive, _ in found])
    shares = np.array([share / 20 for _, share in found])
    roc = roc_curve(positive, shares)
    area = np.trapezoid(roc.true_positive_rate, roc.false_positive_rate)
    assert roc.auc == area_under_curve(positive, shares)
    assert np.isclose(area, roc.auc or 0.0)


@given(rows)
def test_each_point_of_the_curve_counts_the_rows_at_its_threshold(
    found: list[tuple[bool, int]],
) -> None:
    positive = np.array([is_positive for is_positive, _ in found])
    shares = np.array([share / 20 for _, share in found])
    roc = roc_curve(positive, shares)
    for place, threshold in enumerate(roc.threshold):
        taken = shares >= threshold
        assert roc.true_positive_rate[place] == (taken & positive).sum() / positive.sum()
        assert roc.false_positive_rate[place] == (taken & ~positive).sum() / (~positive).sum()


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    random = np.random.default_rng(0)
    positive = random.random(10_000) < 0.3
    shares = random.random(10_000)
    roc = roc_curve(positive, shares)
    assert len(roc.threshold) == MOST_POINTS
    assert (roc.false_positive_rate[0], roc.true_positive_rate[0]) == (0.0, 0.0)
    assert (roc.false_positive_rate[-1], roc.true_positive_rate[-1]) == (1.0, 1.0)


def test_rows_of_one_class_have_no_curve() -> None:
    roc = roc_curve(np.array([True, True]), np.array([0.5, 0.6]))
    assert roc.auc is None
    assert len(roc.threshold) == 0


def test_a_row_whose_prediction_is_no_number_is_left_out() -> None:
    truth, predicted = np.array([1.0, 2.0, 3.0]), np.array([1.5, np.inf, 2.5])
    assert pairs(truth, predicted) == ([1.0, 3.0], [1.5, 2.5])
