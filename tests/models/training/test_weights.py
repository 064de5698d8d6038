"""Weights of classes and rows in the training loss."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.data import Table
from models.errors import DataInvalid
from tests.models.samples import LINE, SURVIVAL, Outcome, learn, make_table, passengers

EXACT = LINE | {"optimizer": {"type": "lbfgs"}, "batch_size": "full", "epochs": 30}


def points(weights: Sequence[float | None], repeats: list[int] | None = None) -> Table:
    random = np.random.default_rng(5)
    x = random.normal(size=len(weights))
    y = 2 * x + random.normal(size=len(weights))
    chosen = np.repeat(np.arange(len(weights)), repeats or [1] * len(weights))
    return make_table(
        {"Quiz": "number", "Final": "number", "w": "number"},
        Quiz=x[chosen].tolist(),
        Final=y[chosen].tolist(),
        w=[weights[row] for row in chosen.tolist()],
    )


def rare(rows: int = 400) -> Table:
    """Classes of which one has a twentieth of the rows and lies among the other."""
    random = np.random.default_rng(3)
    is_rare = np.arange(rows) % 20 == 0
    x = random.normal(size=rows) + is_rare
    return make_table(
        {"x": "number", "y": "category", "w": "number"},
        x=x.tolist(),
        y=np.where(is_rare, "rare", "usual").tolist(),
        w=np.where(is_rare, 10.0, 10 / 19).tolist(),
    )


CLASSES: dict[str, Any] = SURVIVAL | {
    "target": "y",
    "features": ["x"],
    "model": {"type": "linear"},
    "split": {"validation": 0.25},
    "epochs": 20,
}


def detail(outcome: Outcome) -> str:
    assert isinstance(outcome.error, DataInvalid)
    return outcome.error.detail


def test_a_weight_counts_like_so_many_equal_rows(tmp_path: Path) -> None:
    counts = [1 + row % 4 for row in range(30)]
    weighted = learn(points(counts), tmp_path / "a", EXACT | {"weight": "w"}).parameters
    repeated = learn(points([1.0] * 30, counts), tmp_path / "b", EXACT).parameters
    mean = float(np.mean(counts))
    for one, other in (
        (weighted, repeated),
        (weighted["closed_form"], repeated["closed_form"]),
    ):
        assert one["weights"]["Quiz"] == pytest.approx(other["weights"]["Quiz"], rel=1e-4)
        assert one["bias"] == pytest.approx(other["bias"], rel=1e-4)
        assert one["sse"] * mean == pytest.approx(other["sse"], rel=1e-4)


def test_the_training_loss_is_weighted_and_the_scores_are_not(tmp_path: Path) -> None:
    weights = [1.0 + row % 3 for row in range(30)]
    outcome = learn(points(weights), tmp_path, EXACT | {"weight": "w", "epochs": 60})
    assert outcome.values("train")[-1] * 30 == pytest.approx(outcome.parameters["sse"], rel=1e-4)
    assert outcome.evaluation["train"]["sse"] != pytest.approx(outcome.parameters["sse"], rel=1e-3)


def test_the_scale_of_the_weights_changes_nothing(tmp_path: Path) -> None:
    config = LINE | {"weight": "w", "batch_size": 4, "epochs": 5}
    small = learn(points([1.0, 2.0, 0.0] * 10), tmp_path / "a", config)
    large = learn(points([64.0, 128.0, 0.0] * 10), tmp_path / "b", config)
    assert small.curve == large.curve


def test_equal_weights_are_no_weights(tmp_path: Path) -> None:
    config = LINE | {"batch_size": 4, "epochs": 5}
    table = points([0.3] * 30)
    assert (
        learn(table, tmp_path / "a", config | {"weight": "w"}).curve
        == learn(table, tmp_path / "b", config).curve
    )


@pytest.mark.parametrize(
    ("weight", "expected"), [(None, "row 3 in 'w' is missing"), (-0.5, "row 3 in 'w' is -0.5")]
)
def test_a_wrong_weight_names_its_row(tmp_path: Path, weight: float | None, expected: str) -> None:
    assert expected in detail(
        learn(points([1.0, 2.0, weight, 1.0]), tmp_path, LINE | {"weight": "w"})
    )


def test_weights_that_are_all_zero_are_refused(tmp_path: Path) -> None:
    error = detail(learn(points([0.0] * 4), tmp_path, LINE | {"weight": "w"}))
    assert "every training row has the weight 0" in error


def test_balanced_classes_weigh_the_same_in_total(tmp_path: Path) -> None:
    balanced = learn(rare(), tmp_path / "a", CLASSES | {"class_weight": "balanced"})
    named = learn(rare(), tmp_path / "b", CLASSES | {"class_weight": {"rare": 19.0}})
    rows = learn(rare(), tmp_path / "c", CLASSES | {"weight": "w"})
    for other in (named, rows):
        assert other.values("train") == pytest.approx(balanced.values("train"), rel=1e-4)


def test_balanced_classes_find_a_rare_class_that_is_never_predicted_else(tmp_path: Path) -> None:
    plain = learn(rare(), tmp_path / "a", CLASSES).finished
    assert plain is not None
    (warning,) = plain.warnings
    assert warning["code"] == "never_predicted"
    assert warning["column"] == "y"
    assert "'rare'" in warning["detail"]
    balanced = learn(rare(), tmp_path / "b", CLASSES | {"class_weight": "balanced"}).finished
    assert balanced is not None
    assert balanced.warnings == []


def test_a_class_that_is_not_there_has_no_weight(tmp_path: Path) -> None:
    error = detail(learn(rare(), tmp_path, CLASSES | {"class_weight": {"rear": 2.0}}))
    assert "'rear'" in error
    assert "'rare', 'usual'" in error


def test_a_class_of_numbers_is_named_as_text_or_by_its_number(tmp_path: Path) -> None:
    for kind, name in (("number", "1.0"), ("number", "1"), ("integer", "1")):
        table = make_table(
            {"x": "number", "y": kind},  # type: ignore[dict-item]
            x=list(range(20)),
            y=[row % 2 for row in range(20)],
        )
        assert learn(table, tmp_path, CLASSES | {"class_weight": {name: 2.0}}).error is None


def test_weights_go_with_their_rows_into_batches_of_any_order(tmp_path: Path) -> None:
    table = passengers()
    config = SURVIVAL | {"weight": "Fare", "split": {"type": "none"}, "batch_size": 7}
    outcome = learn(table, tmp_path, config | {"epochs": 1, "optimizer": {"learning_rate": 1e-9}})
    weights = table.numbers("Fare")
    # At a rate of nearly 0 the net does not change, so the epoch's loss is the weighted mean.
    whole = learn(
        table,
        tmp_path,
        config | {"epochs": 1, "optimizer": {"learning_rate": 1e-9}, "batch_size": "full"},
    )
    assert weights.std() > 0
    assert outcome.values("train")[0] == pytest.approx(whole.values("train")[0], rel=1e-5)
