"""Intervals and sets: their levels hold, whatever is kept of the scores."""

import math
from typing import Any

import numpy as np
import pytest

from models.errors import CheckpointCorrupt
from models.features.targets import NumberTargets
from models.predict.intervals import (
    ClassCalibration,
    LineCalibration,
    NumberCalibration,
    Scale,
    Scores,
    from_json,
    of_document,
    rank_of,
    t_quantile,
    to_json,
)

Y = NumberTargets(("y",), ("number",), *[(1.0,)] * 6)
EVEN = Scale(np.zeros(1), np.ones(1))


def test_the_rank_counts_the_row_that_is_to_come() -> None:
    assert [rank_of(0.9, rows) for rows in (8, 9, 19, 99)] == [9, 9, 18, 90]
    assert Scores.of(np.arange(9.0), 100).quantile(0.9) == 8
    assert math.isinf(Scores.of(np.arange(8.0), 100).quantile(0.9))


def test_a_bound_of_fewer_kept_scores_is_hardly_wider_and_never_narrower() -> None:
    scores = np.random.default_rng(0).exponential(size=50_000)
    whole, kept = Scores.of(scores, len(scores)), Scores.of(scores, 2_000)
    assert len(kept.values) == 2_000
    for level in np.linspace(0.5, 0.99, 50).tolist():
        assert whole.quantile(level) <= kept.quantile(level)
        assert (scores <= kept.quantile(level)).mean() < level + 0.001


def test_a_margin_widens_an_interval_but_refuses_no_level() -> None:
    scores = np.arange(100.0)
    assert Scores.of(scores, 100, 0.1).quantile(0.9) > Scores.of(scores, 100).quantile(0.9)
    assert Scores.of(np.arange(9.0), 100, 0.1).quantile(0.9) == 8


@pytest.mark.parametrize(
    ("freedom", "half", "ninety", "most"),
    [
        (1, 1.0, 6.3137515, 63.6567412),
        (2, 0.8164966, 2.9199856, 9.9248432),
        (3, 0.7648923, 2.3533634, 5.8409093),
        (10, 0.6998121, 1.8124611, 3.1692727),
        (11, 0.6974453, 1.7958848, 3.1058065),
        (500, 0.6749807, 1.6479069, 2.5856978),
        (2_000, 0.6746124, 1.6456159, 2.5782898),
        (2_001, 0.6746124, 1.6456155, 2.5782886),
    ],
)
def test_the_quantiles_are_those_of_student(
    freedom: int, half: float, ninety: float, most: float
) -> None:
    found = [t_quantile(level, freedom) for level in (0.5, 0.9, 0.99)]
    assert found == pytest.approx([half, ninety, most], rel=1e-6)


def test_an_interval_is_wide_where_errors_are_large() -> None:
    scale = Scale(np.array([0.0, 10.0]), np.array([1.0, 3.0]))
    found = NumberCalibration((Scores.of(np.ones(99), 100),), (scale,))
    assert found.half_widths(0.9, np.array([[0.0], [5.0], [20.0]])).tolist() == [[1], [2], [3]]


def test_a_set_holds_likely_classes_and_always_the_likeliest() -> None:
    found = ClassCalibration(Scores.of(np.full(99, 0.6), 100))
    shares = np.array([[0.45, 0.41, 0.14], [0.9, 0.05, 0.05], [0.34, 0.33, 0.33]])
    assert found.sets(0.9, shares).tolist() == [
        [True, True, False],
        [True, False, False],
        [True, False, False],
    ]


def test_every_calibration_is_read_as_it_was_written() -> None:
    scores = Scores.of(np.random.default_rng(1).exponential(size=300), 200, 0.1)
    line = LineCalibration(13, 11, np.array([2.0]), np.array([0.5]), np.array([[0.1]]))
    for found in (NumberCalibration((scores,), (EVEN,)), ClassCalibration(scores), line):
        again = from_json(to_json(found))
        assert type(again) is type(found)
        assert again.most_level == found.most_level
    again = from_json(to_json(ClassCalibration(scores)))
    assert isinstance(again, ClassCalibration)
    assert (again.scores.values >= scores.values).all()
    np.testing.assert_allclose(again.scores.values, scores.values, rtol=3e-6)


def test_a_document_without_a_calibration_has_none() -> None:
    assert of_document({}, Y, 1) is None


@pytest.mark.parametrize(
    "stored",
    [
        {"kind": "numbers"},
        {"kind": "classes", "rows": 3, "margin": 0.0, "scores": [0.1, 0.2]},
        {"kind": "numbers", "targets": []},
        {"kind": "stars"},
        {"kind": "line", "rows": 5, "freedom": 3, "deviations": [1], "means": [1], "inverse": [1]},
    ],
)
def test_a_calibration_that_does_not_fit_the_model_is_damage(stored: dict[str, Any]) -> None:
    with pytest.raises(CheckpointCorrupt, match="calibration cannot be read"):
        of_document({"calibration": stored}, Y, 1)
