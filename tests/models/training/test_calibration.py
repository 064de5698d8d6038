"""What a training says about how sure its model is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.checkpoint import read
from models.data import Table
from models.features.targets import NumberTargets
from models.predict.intervals import ClassCalibration, LineCalibration, NumberCalibration
from models.predict.predictor import Predictor
from models.training.calibration import (
    Predicted,
    calibrate,
    calibrate_line,
    measure,
    measure_line,
    reliability,
)
from tests.models.samples import (
    FINAL,
    LINE,
    QUIZ,
    SURVIVAL,
    Outcome,
    learn,
    make_table,
    passengers,
    scores,
)

TABLES = 1_000
EXACT = LINE | {"optimizer": {"type": "lbfgs"}, "batch_size": "full", "epochs": 20}


def predictor(done: Outcome) -> Predictor:
    return Predictor.load(done.saved[-1].path)


def numbers() -> NumberTargets:
    ones = (1.0,)
    return NumberTargets(("y",), ("number",), *[ones] * 6)


def noisy(rows: int, seed: int) -> Predicted:
    """Return predictions whose errors grow with the predicted number."""
    random = np.random.default_rng(seed)
    predicted = random.uniform(0, 10, (rows, 1))
    return Predicted(predicted + random.normal(size=(rows, 1)) * (0.2 + predicted), predicted)


def test_conformal_intervals_hold_and_follow_the_size_of_errors() -> None:
    found = calibrate(numbers(), noisy(2_000, 1), noisy(3_000, 2), margin=0)
    assert isinstance(found, NumberCalibration)
    fresh = noisy(20_000, 3)
    (eighty, ninety, most) = measure(found, noisy(3_000, 2), fresh)
    for each, level in ((eighty, 0.8), (ninety, 0.9), (most, 0.95)):
        assert each["reached"] == pytest.approx(level, abs=0.015)
    low, high = found.half_widths(0.9, np.array([[1.0], [9.0]]))[:, 0]
    assert high > 4 * low


def test_without_fresh_rows_each_half_is_measured_by_the_other() -> None:
    rows = noisy(1_001, 4)
    found = calibrate(numbers(), None, rows, margin=0)
    assert found is not None
    measured = {each["level"]: each for each in measure(found, rows, None)}
    assert measured[0.9]["rows"] == 1_001
    assert measured[0.9]["reached"] == pytest.approx(0.9, abs=0.03)


def test_the_exact_intervals_of_a_line_hold_in_a_thousand_tables_of_13_rows() -> None:
    random, x = np.random.default_rng(5), np.array(QUIZ)[:, None]
    hits, left_out = [], []
    for _ in range(TABLES):
        y = 1.3 * x + random.normal(scale=4, size=x.shape)
        best = np.polynomial.Polynomial.fit(x[:, 0], y[:, 0], 1)
        fitted = best(x)
        found = calibrate_line(x, y, fitted, fitted)
        assert found is not None
        at = random.uniform(0, 30, (1, 1))
        truth = 1.3 * at + random.normal(scale=4)
        hits.append(abs(truth - best(at)) <= found.half_widths(0.9, at))
        left_out += [e["reached"] for e in measure_line(found, x, y, fitted) if e["level"] == 0.9]
    assert np.mean(hits) == pytest.approx(0.9, abs=0.02)
    assert np.mean(left_out) == pytest.approx(0.9, abs=0.01)


def test_a_line_that_was_not_trained_to_its_end_has_no_exact_intervals(tmp_path: Path) -> None:
    assert predictor(learn(scores(), tmp_path, LINE | {"epochs": 1})).calibration is None


def test_a_line_of_13_rows_is_as_sure_as_least_squares(tmp_path: Path) -> None:
    done = learn(scores(), tmp_path, EXACT)
    found = predictor(done).calibration
    assert isinstance(found, LineCalibration)
    assert found.freedom == 11
    errors = np.array(FINAL) - np.polyval(np.polyfit(QUIZ, FINAL, 1), QUIZ)
    assert found.deviations[0] == pytest.approx(np.sqrt((errors**2).sum() / 11), rel=1e-3)
    known = done.evaluation["calibration"]
    assert (known["method"], known["split"], len(known["coverage"])) == ("exact", "train", 3)


def test_test_rows_measure_what_validation_rows_calibrate(tmp_path: Path) -> None:
    done = learn(passengers(400), tmp_path, SURVIVAL)
    assert isinstance(predictor(done).calibration, ClassCalibration)
    known = done.evaluation["calibration"]
    assert (known["split"], known["rows"]) == ("validation", 80)
    assert {each["rows"] for each in known["coverage"]} == {80}
    assert 0 <= known["reliability"]["ece"] <= 1


def test_without_held_out_rows_there_is_no_calibration(tmp_path: Path) -> None:
    done = learn(passengers(), tmp_path, SURVIVAL | {"split": {"type": "none"}})
    assert "calibration" not in done.evaluation
    assert predictor(done).calibration is None


def test_equal_trainings_are_equally_sure(tmp_path: Path) -> None:
    asked: dict[str, Any] = SURVIVAL | {"task": "regression", "target": "Fare", "loss": "mse"}
    found = [
        read(learn(passengers(), tmp_path / name, asked).saved[-1].path)[1]["calibration"]
        for name in "ab"
    ]
    assert found[0] == found[1]
    assert found[0]["kind"] == "numbers"


def test_the_calibration_error_is_the_distance_of_confidence_and_accuracy() -> None:
    shares = np.array([[0.95, 0.05]] * 10 + [[0.35, 0.65]] * 10)
    truth = np.array([0] * 9 + [1] + [1] * 8 + [0] * 2)
    found = reliability(Predicted(truth, shares))
    assert found["ece"] == pytest.approx((0.05 + 0.15) / 2)
    assert [(each["from"], each["rows"]) for each in found["bins"]] == [(0.6, 10), (0.9, 10)]


def waves(rows: int, seed: int) -> Table:
    """Return a wave of one column whose noise grows with another one."""
    random = np.random.default_rng(seed)
    x, z = random.uniform(-2, 2, (2, rows))
    y = np.sin(2 * x) + z + random.normal(size=rows) * (0.1 + 0.3 * np.abs(z))
    names: Any = dict.fromkeys(("x", "z", "y"), "number")
    return make_table(names, x=x.tolist(), z=z.tolist(), y=y.tolist())


@pytest.mark.nightly
@pytest.mark.parametrize(("rows", "least", "most"), [(150, 0.86, 0.95), (1_500, 0.87, 0.93)])
@pytest.mark.parametrize("model", ["mlp", "trees"])
def test_intervals_of_new_rows_hold_although_validation_rows_chose_the_epoch(
    tmp_path: Path, rows: int, least: float, most: float, model: str
) -> None:
    asked: dict[str, Any] = {"dataset": "ds_1", "target": "y", "features": ["x", "z"]}
    asked |= {"task": "regression", "loss": "mse", "model": {"type": model}}
    if model == "trees":
        asked |= {"optimizer": {"type": "sgd", "learning_rate": 0.08}, "batch_size": "full"}
    reached = []
    for seed in range(20):
        done = learn(waves(rows, seed), tmp_path / str(seed), asked | {"seed": seed})
        model_of = predictor(done)
        fresh, found = waves(2_000, 1_000 + seed), model_of.calibration
        assert isinstance(found, NumberCalibration)
        decoded = model_of.features.decode(model_of.outputs(model_of.features.encode(fresh)))
        errors = np.abs(fresh.numbers("y")[:, None] - decoded)
        reached.append((errors <= found.half_widths(0.9, decoded)).mean())
    assert least <= np.mean(reached) <= most
