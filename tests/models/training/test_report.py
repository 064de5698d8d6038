"""The report of a run: what it says of good, useless and dishonest models."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.checkpoint import read
from models.data import Floats, Integers, Table
from models.features.targets import NumberTargets
from models.training.calibration import Predicted
from models.training.report import compare, metric_of
from models.training.rivals import discriminant
from tests.models.samples import SURVIVAL, learn, make_table, passengers

Report = dict[str, Any]
FIT: dict[str, Any] = {"dataset": "ds_1", "target": "y", "epochs": 40, "seed": 1}


def numbers() -> NumberTargets:
    ones = (1.0,)
    return NumberTargets(("y",), ("number",), *[ones] * 6)


def table(seed: int, rows: int = 300, **more: Any) -> Table:
    """Return three numbers, and `y` which is their sum with noise."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(3, rows))
    columns: dict[str, Any] = {f"x{place}": each.tolist() for place, each in enumerate(x)}
    y = x.sum(axis=0) + 0.5 * random.normal(size=rows)
    types: Any = dict.fromkeys([*columns, "y"], "number")
    types |= {name: kind for name, (kind, _make) in more.items()}
    made = {name: make(x, y) for name, (_kind, make) in more.items()}
    return make_table(types, **columns, y=y.tolist(), **made)


def repeated(whole: Table, rows: Integers) -> Table:
    return Table(whole.types, {n: c[rows] for n, c in whole.columns.items()}, len(rows))  # type: ignore[index]


def report(found: Table, folder: Path, **config: Any) -> Report:
    features = [name for name in found.types if name != "y"]
    asked = {"features": features, "task": "regression", "loss": "mse"} | FIT | config
    document = read(learn(found, folder, asked).saved[-1].path, "no tensor")[1]
    made: Report = document["report"]
    return made


def verdicts(found: Report) -> dict[str, str]:
    return {each["name"]: each["verdict"] for each in found["baselines"]}


def codes(found: Report) -> list[str]:
    return [each["code"] for each in found["findings"]]


def test_a_model_that_learned_beats_the_constant_and_no_linear_truth(tmp_path: Path) -> None:
    found = report(table(0), tmp_path)
    assert (found["split"], found["rows"], found["metric"]) == ("validation", 60, "rmse")
    assert list(verdicts(found)) == ["constant", "linear", "trees"]
    assert verdicts(found)["constant"] == "better"
    assert verdicts(found)["linear"] == "not_distinguishable"
    assert "no_better_than_linear" in codes(found)
    assert "no_better_than_trivial" not in codes(found)
    score = found["score"]
    assert score["low"] < score["value"] < score["high"]


def shuffled(seed: int, folder: Path, **config: Any) -> str:
    """Return what is said of a model whose targets were shuffled."""
    whole = table(seed, rows=120)
    y = np.random.default_rng(seed).permutation(whole.numbers("y"))
    mixed = Table(whole.types, {**whole.columns, "y": y}, whole.rows)
    found = report(mixed, folder / str(seed), seed=seed, **config)
    told = (e["detail"] for e in found["findings"] if e["code"] == "no_better_than_trivial")
    return next(told, "")


def test_a_model_of_shuffled_targets_is_not_distinguishable_from_a_constant(
    tmp_path: Path,
) -> None:
    said = [shuffled(seed, tmp_path) for seed in range(5)]
    assert sum("not distinguishable from the trivial baseline" in each for each in said) >= 4


@pytest.mark.nightly
@pytest.mark.parametrize("split", [{}, {"validation": 0.2, "test": 0.2}])
@pytest.mark.parametrize("model", ["mlp", "trees"])
def test_of_a_hundred_such_models_at_least_95_are_not_distinguishable(
    tmp_path: Path, split: dict[str, float], model: str
) -> None:
    asked: dict[str, Any] = {"split": split, "model": {"type": model}}
    if model == "trees":
        asked |= {"optimizer": {"type": "sgd", "learning_rate": 0.05}, "batch_size": "full"}
    said = [shuffled(seed, tmp_path, **asked) for seed in range(100)]
    assert sum("not distinguishable from the trivial" in each for each in said) >= 95


def test_the_difference_is_paired() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(scale=10, size=(400, 1))
    noise = random.normal(scale=10, size=(400, 1))
    model, other = truth + noise, truth + 1.02 * noise
    found = compare(metric_of(numbers()), Predicted(truth, model), {"linear": other}, 0)
    (linear,) = found["baselines"]
    assert linear["verdict"] == "better"
    assert linear["difference"]["high"] < 0
    # The intervals of the two scores overlap nearly everywhere.
    assert linear["score"]["low"] < found["score"]["value"]


def test_the_interval_of_a_score_holds_that_of_new_rows() -> None:
    metric, hits = metric_of(numbers()), 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        truth = random.normal(size=(200, 1))
        found = compare(metric, Predicted(truth, np.zeros_like(truth)), {}, seed)["score"]
        hits += found["low"] <= 1 <= found["high"]
    assert hits >= 180


def test_a_column_that_tells_the_target_is_named(tmp_path: Path) -> None:
    leak = ("number", lambda _x, y: (3 * y + 7).tolist())
    found = report(table(1, leak=leak), tmp_path)
    (named,) = [e for e in found["findings"] if e["code"] == "column_tells_target"]
    assert named["column"] == "leak"
    assert "column_tells_target" not in codes(report(table(1), tmp_path / "without"))


def test_a_column_that_tells_the_class_is_named(tmp_path: Path) -> None:
    whole = passengers(300)
    words = ["gone" if each else "there" for each in whole.numbers("Survived")]
    leaking = make_table({**whole.types, "Boat": "category"}, **_cells(whole), Boat=words)
    config = SURVIVAL | {"features": [*SURVIVAL["features"], "Boat"]}  # type: ignore[misc]
    document = read(learn(leaking, tmp_path, config).saved[-1].path, "no tensor")[1]
    named = [
        each["column"]
        for each in document["report"]["findings"]
        if each["code"] == "column_tells_target"
    ]
    assert named == ["Boat"]


def _cells(whole: Table) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, column in whole.columns.items():
        if isinstance(column, np.ndarray):
            found[name] = [None if np.isnan(cell) else cell for cell in column.tolist()]
        else:
            found[name] = [None if c < 0 else column.values[c] for c in column.codes.tolist()]
    return found


def test_rows_that_are_held_out_and_trained_on_are_counted(tmp_path: Path) -> None:
    rows = np.concatenate([np.arange(300), np.arange(60)])
    found = report(repeated(table(2), rows), tmp_path)
    (named,) = [e for e in found["findings"] if e["code"] == "duplicate_rows"]
    assert "of 72 held-out rows" in named["detail"]
    assert "duplicate_rows" not in codes(report(table(2), tmp_path / "without"))


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("integer", lambda x, _y: np.arange(1000, 1000 + x.shape[1]).tolist()),
        ("category", lambda x, _y: [f"AB-{place}" for place in range(x.shape[1])]),
    ],
)
def test_an_id_is_named(tmp_path: Path, kind: str, make: Any) -> None:
    found = report(table(3, Customer=(kind, make)), tmp_path)
    assert [e["column"] for e in found["findings"] if e["code"] == "column_is_id"] == ["Customer"]


def test_a_random_split_of_targets_that_follow_each_other_in_time_is_named(
    tmp_path: Path,
) -> None:
    def day(_x: Floats, y: Floats) -> list[float]:
        return list((1.6e9 + 86_400 * np.argsort(np.argsort(y))).tolist())

    def any_day(x: Floats, _y: Floats) -> list[float]:
        return list((1.6e9 + 86_400 * np.arange(x.shape[1])).tolist())

    drifting = report(table(4, Day=("datetime", day)), tmp_path)
    assert "split_ignores_time" in codes(drifting)
    steady = report(table(4, Day=("datetime", any_day)), tmp_path / "steady")
    assert "split_ignores_time" not in codes(steady)
    by_time = {"type": "time", "column": "Day"}
    split = report(table(4, Day=("datetime", day)), tmp_path / "split", split=by_time)
    assert "split_ignores_time" not in codes(split)


def test_without_held_out_rows_the_report_says_so(tmp_path: Path) -> None:
    found = report(table(5), tmp_path, split={"type": "none"})
    assert found["split"] == "train"
    assert "nothing_held_out" in codes(found)


def test_the_report_is_a_pure_function_of_the_run(tmp_path: Path) -> None:
    first, second, other = (
        report(table(6), tmp_path / str(place), seed=seed) for place, seed in enumerate((1, 1, 2))
    )
    assert first == second
    assert first != other


def test_the_discriminant_of_classes_of_one_covariance_gives_their_probabilities() -> None:
    random = np.random.default_rng(7)
    truth = random.integers(0, 2, 20_000)
    x = random.normal(size=(20_000, 1)) + 2.0 * truth[:, None]
    line = discriminant(x, truth, 2)
    assert line is not None
    outputs = np.array([[0.0], [1.0], [2.0]]) @ line.weights.T + line.biases
    odds = outputs[:, 1] - outputs[:, 0]  # log-odds of two unit normals at 0 and 2: 2 x - 2
    assert odds == pytest.approx([-2, 0, 2], abs=0.1)
