from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.data import Floats, Integers, Table
from models.features.inputs import Matrix
from models.nets.graph import chain
from models.nets.numeric import compiled
from models.predict.predictor import Predictor
from models.training.scores import CEILING, permutation_importance
from tests.models.samples import LINE, SURVIVAL, learn, make_table, passengers

FIT = LINE | {
    "features": ["strong", "weak", "idle"],
    "target": "y",
    "split": {"validation": 0.25},
    "optimizer": {"type": "lbfgs"},
    "batch_size": "full",
    "epochs": 10,
}


def three() -> Table:
    """`y = 3 · strong + weak`, and an independent column."""
    random = np.random.default_rng(1)
    strong, weak, idle = random.normal(size=(3, 200))
    return make_table(
        dict.fromkeys(("strong", "weak", "idle", "y"), "number"),
        strong=strong.tolist(),
        weak=weak.tolist(),
        idle=idle.tolist(),
        y=(3 * strong + weak).tolist(),
    )


def means(importance: dict[str, Any]) -> dict[str, float]:
    return {entry["column"]: entry["mean"] for entry in importance["columns"]}


def test_what_a_column_is_worth_is_told_on_held_out_rows(tmp_path: Path) -> None:
    importance = learn(three(), tmp_path, FIT).evaluation["importance"]
    assert {name: importance[name] for name in ("split", "metric", "rows", "shuffles")} == {
        "split": "validation",
        "metric": "r2",
        "rows": 50,
        "shuffles": 5,
    }
    assert [entry["column"] for entry in importance["columns"]] == ["strong", "weak", "idle"]
    found = means(importance)
    # Shuffling a column of such a line increases the loss by twice its share of the variance.
    assert found["strong"] == pytest.approx(2 * 9 / 10, rel=0.3)
    assert found["weak"] == pytest.approx(2 * 1 / 10, rel=0.4)
    assert found["idle"] == pytest.approx(0, abs=1e-3)


def test_without_held_out_rows_it_is_told_on_the_training_rows(tmp_path: Path) -> None:
    evaluation = learn(three(), tmp_path, FIT | {"split": {"type": "none"}}).evaluation
    assert evaluation["importance"]["split"] == "train"


def test_classes_are_measured_by_their_cross_entropy(tmp_path: Path) -> None:
    importance = learn(passengers(), tmp_path, SURVIVAL | {"epochs": 60}).evaluation["importance"]
    assert (importance["split"], importance["metric"]) == ("test", "cross_entropy")
    assert importance["columns"][0]["column"] == "Sex"


def test_it_is_a_pure_function_of_the_seed(tmp_path: Path) -> None:
    first, second, other = (
        learn(three(), tmp_path / str(place), FIT | {"seed": seed}).evaluation["importance"]
        for place, seed in enumerate((1, 1, 2))
    )
    assert first == second
    assert first != other


def test_its_work_is_bounded(tmp_path: Path) -> None:
    table = three()
    path = learn(table, tmp_path, FIT | {"epochs": 1}).saved[-1].path
    predictor = Predictor.load(path)

    def measured(columns: int, work: int) -> dict[str, Any] | None:
        features = predictor.features
        wide = type(features)(features.inputs * columns, features.target)
        weights = np.ones((1, 3 * columns), dtype=np.float32)
        parameters = {"0.weight": weights, "0.bias": np.zeros(1, dtype=np.float32)}
        net = compiled(chain(3 * columns, [{"linear": 1}]), parameters)
        rows = np.arange(table.rows)

        def read(drawn: Integers) -> tuple[Matrix, Floats | Integers]:
            return wide.encode(table, drawn), wide.truth(table, drawn)

        return permutation_importance(wide, net, read, rows, seed=0, work=work)

    for columns, work, expected in ((1, 0, 5), (25, 0, 2), (50, 0, 1), (500, 0, None)):
        found = measured(columns, work)
        assert (found["shuffles"] if found else None) == expected
    assert measured(8000, 100 * CEILING) is None
