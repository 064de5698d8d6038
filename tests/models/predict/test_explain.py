import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.predict.explain import explain, most_rows
from models.predict.predictor import Prediction, Predictor
from models.predict.values import Problems
from tests.models.samples import (
    LINE,
    PASSENGER_FEATURES,
    QUIZ,
    SURVIVAL,
    learn,
    make_table,
    passengers,
    scores,
)

LAYERS = {"type": "layers", "layers": [{"linear": 12}, "gelu", {"dropout": 0.2}, {"linear": 6}]}
NETS: list[dict[str, Any]] = [
    {"type": "linear"},
    {"type": "mlp", "hidden": [16, 8]},
    {"type": "mlp", "hidden": [16], "activation": "sigmoid"},
    {"type": "mlp", "hidden": [16], "activation": "tanh"},
    LAYERS,
    {"type": "layers", "layers": ["relu", {"linear": 5}, "tanh"]},
    {"type": "mlp", "hidden": [8], "embedding": {"bins": 5}},
    {"type": "trees", "depth": 3},
]
TRAINED_AS: dict[str, Any] = {
    "trees": {"optimizer": {"type": "sgd", "learning_rate": 0.2}, "batch_size": "full"}
}
COLUMNS: dict[str, list[Any]] = {
    "Sex": ["female", "male", "male", None],
    "Age": [30, 70.5, None, 1e9],
    "Port": ["S", None, "X", "Q"],
    "Alone": [True, False, None, True],
    "Boarded": ["2020-11-01", None, "2031-01-01", 1.6e9],
    "Class": [1, 3, 2, -4],
}


def predictor_of(tmp_path: Path, config: dict[str, Any]) -> Predictor:
    asked = SURVIVAL | TRAINED_AS.get(config.get("model", {}).get("type"), {}) | config
    return Predictor.load(learn(passengers(), tmp_path, asked).saved[-1].path)


def test_trees_are_explained_by_the_shapley_values_of_all_orders(tmp_path: Path) -> None:
    features = ["Sex", "Age", "Class"]
    predictor = predictor_of(
        tmp_path, {"model": {"type": "trees", "depth": 4}, "features": features, "epochs": 30}
    )
    row: dict[str, Any] = {"Sex": "female", "Age": 31.0, "Class": 3}

    def value(*names: str) -> float:
        columns = {name: [row[name]] for name in names}
        (found,) = predictor.predict(columns, 1)
        assert found.probabilities is not None
        share = found.probabilities["true"]
        return math.log(share / (1 - share))

    told = explain(predictor.model, predictor.read({k: [v] for k, v in row.items()}, 1, Problems()))
    assert told[0].keys() == {"true"}
    for name, contribution in told[0]["true"].contributions.items():
        one, two = (each for each in features if each != name)
        changes = [
            (value(name) - value()) / 3,
            (value(name, one) - value(one)) / 6,
            (value(name, two) - value(two)) / 6,
            (value(name, one, two) - value(one, two)) / 3,
        ]
        assert contribution == pytest.approx(sum(changes), abs=1e-4)


def log_odds(prediction: Prediction) -> float:
    assert prediction.probabilities is not None
    share = max(prediction.probabilities.values())
    rest = sum(prediction.probabilities.values()) - share
    return math.log(share / rest)


@pytest.mark.parametrize("net", NETS, ids=str)
def test_base_and_contributions_add_up_to_the_prediction(
    tmp_path: Path, net: dict[str, Any]
) -> None:
    features = [name for name in PASSENGER_FEATURES if name != "Class"]
    config = {
        "model": net,
        "features": features,
        "target": "Class",
        "task": "regression",
        "loss": "mse",
        "epochs": 20,
    }
    predictor = predictor_of(tmp_path, config)
    columns = {name: COLUMNS[name] for name in features}
    table = predictor.read(columns, 4, Problems())
    (nothing,) = predictor.predict({}, 1)
    predictions = predictor.predict(columns, 4)
    for row, prediction in zip(explain(predictor.model, table), predictions, strict=True):
        found = row["Class"]
        assert list(found.contributions) == features
        assert found.base == pytest.approx(nothing.value, rel=1e-4, abs=1e-4)
        total = found.base + sum(found.contributions.values())
        assert total == pytest.approx(prediction.value, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("net", NETS, ids=str)
@pytest.mark.parametrize("target", ["Survived", "Port"])
def test_classes_are_explained_by_the_log_odds_of_the_predicted_one(
    tmp_path: Path, net: dict[str, Any], target: str
) -> None:
    features = [name for name in PASSENGER_FEATURES if name != target]
    task = "binary" if target == "Survived" else "multiclass"
    config = {"model": net, "features": features, "target": target, "task": task, "epochs": 20}
    predictor = predictor_of(tmp_path, config)
    columns = {name: [COLUMNS[name][0]] for name in features}
    (row,) = explain(predictor.model, predictor.read(columns, 1, Problems()))
    (prediction,) = predictor.predict(columns, 1)
    ((label, found),) = row.items()
    assert label == str(prediction.value).replace("T", "t").replace("F", "f")
    total = found.base + sum(found.contributions.values())
    assert total == pytest.approx(log_odds(prediction), rel=1e-3, abs=1e-3)


def test_the_contributions_of_a_line_are_exact(tmp_path: Path) -> None:
    predictor = Predictor.load(learn(scores(), tmp_path, LINE | {"epochs": 50}).saved[-1].path)
    table = predictor.read({"Quiz": [10.0]}, 1, Problems())
    (row,) = explain(predictor.model, table)
    at, mean = (predictor.predict({"Quiz": [x]}, 1)[0].value for x in (10.0, float(np.mean(QUIZ))))
    assert isinstance(at, float)
    assert isinstance(mean, float)
    assert row["Final"].contributions["Quiz"] == pytest.approx(at - mean, rel=1e-5)
    assert row["Final"].base == pytest.approx(mean, rel=1e-5)


def test_what_a_net_does_not_use_contributes_nothing(tmp_path: Path) -> None:
    table = make_table(
        {"a": "number", "b": "number", "y": "number"},
        a=[1, 2, 3, 4],
        b=[5, 5, 5, 5],
        y=[2, 4, 6, 8],
    )
    config = LINE | {"features": ["a", "b"], "target": "y", "model": {"type": "mlp"}, "epochs": 30}
    predictor = Predictor.load(learn(table, tmp_path, config).saved[-1].path)
    asked = predictor.read({"a": [1.5], "b": [5]}, 1, Problems())
    (row,) = explain(predictor.model, asked)
    assert row["y"].contributions["b"] == 0
    assert abs(row["y"].contributions["a"]) > 0.1


def test_a_larger_net_may_have_fewer_rows_explained(tmp_path: Path) -> None:
    small, large = (
        predictor_of(tmp_path / str(width), {"model": {"type": "mlp", "hidden": [width]}})
        for width in (4, 400)
    )
    assert most_rows(small.model) > 50 * most_rows(large.model) > 0
    assert most_rows(large.model) > 1000
