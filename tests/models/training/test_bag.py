"""The members of a cross-validation: each alone learns from its own rows, together they predict."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from descent.spec import RunConfig
from models import checkpoint
from models.architectures import ARCHITECTURES
from models.checkpoint import OUT_OF_FOLD
from models.data import Categories, Floats, Table
from models.engine import EngineName
from models.errors import Diverged
from models.features.encoding import Features
from models.features.inputs import Choice
from models.features.widths import MAX_CATEGORIES
from models.model import GraphModel, load
from models.predict.intervals import ClassCalibration
from models.predict.predictor import Predictor
from models.training import bag
from models.training.bag import Bag
from models.training.dataset import TrainingInput
from models.training.folds import fold_table
from models.training.loop import prepare
from models.training.scores import evaluate
from tests.models.samples import SURVIVAL, Outcome, learn, make_table, passengers
from tests.models.training.test_resume import AGE, TREES, stop_at
from tests.service.gated import Gated

FOLDS: dict[str, Any] = {"split": {"type": "kfold", "folds": 3}, "epochs": 4, "batch_size": 16}
COLUMNS = ["Sex", "Port", "Alone", "Boarded", "Class", "Fare", "Town"]
NUMBERS = SURVIVAL | FOLDS | AGE | {"features": COLUMNS}
LBFGS = {"optimizer": {"type": "lbfgs"}, "batch_size": "full"}
CASES: dict[str, dict[str, Any]] = {
    "numbers": NUMBERS,
    "numbers as they are": NUMBERS | {"standardize": False, "optimizer": {"learning_rate": 1e-4}},
    "lines": NUMBERS | {"model": {"type": "linear"}},
    "two targets": NUMBERS | {"target": ["Age", "Fare"], "features": COLUMNS[:5]},
    "trees": NUMBERS | TREES | {"epochs": 20},
    "trees of classes": SURVIVAL | FOLDS | TREES | {"features": COLUMNS},
    "codes": NUMBERS | {"model": {"type": "mlp", "hidden": [6], "embedding": {"bins": 4}}},
    "a net that no engine knows": NUMBERS | {"model": {"type": "gated", "units": 5}},
    "classes in two repeats": SURVIVAL
    | FOLDS
    | {"features": COLUMNS, "split": {"type": "kfold", "folds": 2, "repeats": 2}},
}


def travellers() -> Table:
    """Passengers with towns, many of which no other fold knows, and with more gaps."""
    read = passengers()
    random = np.random.default_rng(3)
    codes = np.where(random.random(read.rows) < 0.2, -1, random.integers(0, 60, read.rows))
    towns = Categories(codes.astype(np.int32), [f"town {at}" for at in range(60)])
    fare = read.numbers("Fare").copy()
    fare[[2, 70]] = np.nan
    boarded = read.numbers("Boarded").copy()
    boarded[[9, 33]] = np.nan
    columns = dict(read.columns) | {"Town": towns, "Fare": fare, "Boarded": boarded}
    return Table(dict(read.types) | {"Town": "category"}, columns, read.rows)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "gated", Gated)


def members_of(path: Path) -> Iterator[GraphModel]:
    """Yield each member of a checkpoint as a model of its own."""
    tensors, document = checkpoint.read(path)
    for number, each in enumerate(document["members"]):
        prefix = f"member.{number}.best."
        own = {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        yield GraphModel.of(Features.from_json(each["features"]), each["net"], own, {})


def strange(read: Table) -> Table:
    """Return rows with gaps, unknown categories, and numbers far outside."""
    columns = dict(read.columns)
    for name, column in read.columns.items():
        if isinstance(column, Categories):
            codes = np.where(np.arange(read.rows) % 3 == 0, len(column.values), column.codes)
            columns[name] = Categories(codes.astype(np.int32), [*column.values, "nobody's"])
        else:
            moved = column * 3.0
            moved[::4] = np.nan
            columns[name] = moved
    return Table(read.types, columns, read.rows)


def answers(model: GraphModel, read: Table) -> Floats:
    x = model.features.encode(read, dtype=np.float64).astype(np.float64)
    return model.features.decode(model.exact(x))


@pytest.mark.parametrize("name", CASES)
def test_the_version_predicts_the_mean_of_its_members(tmp_path: Path, name: str) -> None:
    read = travellers()
    outcome = learn(read, tmp_path, CASES[name])
    assert outcome.error is None
    path = outcome.saved[-1].path
    version = load(path)
    assert isinstance(version, GraphModel)
    members = list(members_of(path))
    assert outcome.started is not None
    # What no row of the run lacks is not marked: a gap there is the mean of all rows.
    whole = [column for column in version.features.inputs if not column.missing]
    for rows in (read, strange(read)):
        columns = dict(rows.columns) | {each.name: read.columns[each.name] for each in whole}
        asked = Table(rows.types, columns, rows.rows)
        expected = np.mean([answers(each, asked) for each in members], axis=0)
        found = answers(version, asked)
        size = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, atol=1e-5 * size, rtol=1e-5)
    assert len(members) == (4 if "repeats" in CASES[name]["split"] else 3)


def test_a_category_that_only_one_member_tells_apart_is_told_apart(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    towns = [f"town {at}" for at in random.integers(0, 450, 900)]
    read = make_table(
        {"town": "category", "y": "number"}, town=towns, y=random.normal(size=900).tolist()
    )
    config = NUMBERS | {"target": "y", "features": ["town"], "epochs": 2}
    path = learn(read, tmp_path, config).saved[-1].path
    version, members = load(path), list(members_of(path))
    assert isinstance(version, GraphModel)
    (column,), own = version.features.inputs, [each.features.inputs[0] for each in members]
    assert isinstance(column, Choice)
    assert len(column.categories) > MAX_CATEGORIES
    for each in own:
        assert isinstance(each, Choice)
        assert each.rare
        assert set(each.categories) <= set(column.categories)
    expected = np.mean([answers(each, read) for each in members], axis=0)
    np.testing.assert_allclose(answers(version, read), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["numbers", "classes in two repeats", "trees"])
def test_each_row_has_a_stored_prediction_of_members_that_did_not_train_with_it(
    tmp_path: Path, name: str
) -> None:
    read, config = travellers(), RunConfig.model_validate(CASES[name])
    outcome = learn(read, tmp_path, CASES[name])
    path = outcome.saved[-1].path
    held_out, _document = checkpoint.read(path, OUT_OF_FOLD)
    rows, outputs = held_out[f"{OUT_OF_FOLD}rows"], held_out[f"{OUT_OF_FOLD}outputs"]
    assert outputs.dtype == np.float32
    features = load(path).features
    found = features.decode(outputs)
    expected, counts = np.zeros((read.rows, features.outputs)), np.zeros(read.rows)
    for split, member in zip(fold_table(config, read), members_of(path), strict=True):
        expected[split.validation] += answers(member, read)[split.validation]
        counts[split.validation] += 1
    assert rows.tolist() == np.flatnonzero(counts).tolist()
    mean = expected[rows] / counts[rows, None]
    np.testing.assert_allclose(found, mean, rtol=1e-4, atol=1e-5)
    scores = evaluate(features.target, features.truth(read, rows), found)
    name = "rmse" if config.task == "regression" else "cross_entropy"
    assert outcome.evaluation["validation"][name] == pytest.approx(scores[name], rel=1e-5)


def prepared(read: Table, folder: Path, config: dict[str, Any]) -> Bag:
    given = TrainingInput(RunConfig.model_validate(config), read, folder)
    training, _warnings = prepare(given, torch.device("cpu"))
    assert isinstance(training, Bag)
    return training


def trained(read: Table, folder: Path, config: dict[str, Any]) -> Bag:
    """Train each member for all epochs, whatever the validation rows say."""
    training = prepared(read, folder, config | {"early_stopping": None})
    for _ in range(training.config.epochs):
        while not training.is_epoch_complete:
            training.advance(training.learning_rate(), 0.0)
        training.end_epoch()
    training.close()
    return training


def poisoned(read: Table, rows: NDArray[Any]) -> Table:
    """Return the table with other values, kinds of gaps and targets in these rows."""
    columns = dict(read.columns)
    for name, column in read.columns.items():
        if isinstance(column, Categories):
            codes = column.codes.copy()
            codes[rows] = len(column.values)
            columns[name] = Categories(codes, [*column.values, "poison"])
        else:
            numbers = column.copy()
            numbers[rows] = 1e6 + np.arange(len(rows))
            if name not in {"Age", "Fare"}:
                numbers[rows[::2]] = np.nan
            columns[name] = numbers
    return Table(read.types, columns, read.rows)


@pytest.mark.parametrize("name", ["numbers", "codes", "trees", "lines"])
def test_a_member_learns_nothing_from_its_fold(tmp_path: Path, name: str) -> None:
    config = CASES[name] | {"features": [each for each in COLUMNS if each != "Fare"]}
    read = travellers()
    clean = trained(read, tmp_path, config)
    for number, member in enumerate(clean.members):
        spoilt = trained(poisoned(read, member.split.validation), tmp_path, config)
        for other, found in enumerate(spoilt.members):
            same = bool(torch.equal(found.flat.values, member.flat.values)) and (
                found.features.to_json() == member.features.to_json()
            )
            assert same == (other == number), (number, other)


def test_the_curve_is_the_mean_of_trainings_with_one_fold_each(tmp_path: Path) -> None:
    config = SURVIVAL | FOLDS | {"early_stopping": {"patience": 2}, "epochs": 12}
    config |= {"optimizer": {"learning_rate": 0.1}}
    read = passengers()
    whole = learn(read, tmp_path / "whole", config)
    alone: list[Outcome] = []
    for number, split in enumerate(fold_table(RunConfig.model_validate(config), read)):
        codes = np.zeros(read.rows, np.int32)
        codes[split.validation] = 1
        columns = dict(read.columns) | {"part": Categories(codes, ["train", "validation"])}
        types = dict(read.types) | {"part": "category"}
        one = config | {"split": {"type": "column", "column": "part"}, "seed": number}
        alone.append(learn(Table(types, columns, read.rows), tmp_path / str(number), one))
    lengths = [len(each.values("validation")) for each in alone]
    assert len(set(lengths)) > 1, "each member should stop at an epoch of its own"
    assert len(whole.values("validation")) == max(lengths)
    assert whole.finished is not None
    assert whole.finished.reason == "early_stopping"
    for part, name in (("train", "loss"), ("validation", "loss"), ("validation", "accuracy")):
        for epoch, value in enumerate(whole.values(part, name)):
            each = [found.values(part, name) for found in alone]
            present = [values[epoch] for values in each if epoch < len(values)]
            assert value == pytest.approx(np.mean(present), rel=1e-12)
    losses = [found.values("validation")[0] for found in alone]
    assert whole.values("validation", "loss_std")[0] == pytest.approx(np.std(losses))
    for found, member in zip(alone, members_of(whole.saved[-1].path), strict=True):
        single = load(found.saved[-1].path)
        assert isinstance(single, GraphModel)
        for name, tensor in single.tensors.items():
            np.testing.assert_array_equal(member.tensors[name], tensor)


@pytest.mark.parametrize("name", ["numbers", "trees", "classes in two repeats"])
def test_threads_change_no_bit(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bag, "WORTH_S", 0.0)
    found = {
        learn(travellers(), tmp_path / str(threads), CASES[name], threads=threads).saved[-1].sha256
        for threads in (1, 2, 5)
    }
    assert len(found) == 1


@pytest.mark.parametrize("engine", ["kernel", "chunked", "autograd"])
def test_a_cross_validation_killed_after_any_checkpoint_ends_with_the_very_same_file(
    tmp_path: Path, engine: EngineName
) -> None:
    config = CASES["numbers"] | {"early_stopping": {"patience": 1}, "batch_size": 40}
    whole = learn(travellers(), tmp_path / "a", config, poll_s=0.0, checkpoint_s=0.0, engine=engine)
    assert whole.started is not None
    assert whole.started.engine == engine
    assert len(whole.saved) > 8
    for saved in whole.saved[:-1:3]:
        then: dict[str, Any] = {"resume": saved.path, "seq": saved.seq, "engine": engine}
        rest = learn(travellers(), tmp_path / "b", config, **then)
        assert whole.curve[: saved.seq] + rest.curve == whole.curve
        assert rest.saved[-1].sha256 == whole.saved[-1].sha256


def test_a_cross_validation_from_files_resumes_exactly_too(tmp_path: Path) -> None:
    config = CASES["codes"]
    whole = learn(travellers(), tmp_path / "a", config, memory_bytes=1)
    _tensors, document = checkpoint.read(whole.saved[-1].path)
    assert document["rows_in_files"] is True
    first = learn(
        travellers(), tmp_path / "b", config, stop_at(17, "pause"), poll_s=0.0, memory_bytes=1
    )
    saved = first.saved[-1]
    rest = learn(travellers(), tmp_path / "b", config, resume=saved.path, seq=saved.seq)
    assert rest.saved[-1].sha256 == whole.saved[-1].sha256


def outlier() -> Table:
    """Return rows of which one drives each training with it to infinity."""
    x = np.linspace(-1, 1, 40)
    x[7] = 60.0
    return make_table({"x": "number", "y": "number"}, x=x.tolist(), y=(2 * x + 1).tolist())


DIVERGING = {
    "dataset": "ds_1",
    "target": "y",
    "features": ["x"],
    "task": "regression",
    "loss": "mse",
    "model": {"type": "linear"},
    "standardize": False,
    "split": {"type": "kfold", "folds": 2},
    "optimizer": {"type": "sgd", "learning_rate": 0.3},
    "schedule": {"type": "constant", "warmup_epochs": 400},
    "batch_size": "full",
    "epochs": 500,
    "early_stopping": None,
}


def test_a_member_that_diverges_ends_the_run_and_is_named(tmp_path: Path) -> None:
    outcome = learn(outlier(), tmp_path, DIVERGING)
    assert isinstance(outcome.error, Diverged)
    assert "The member of fold" in str(outcome.error)
    assert "try a learning_rate of" in str(outcome.error)
    assert not outcome.saved[-1].resumable
    assert np.isfinite(answers(load(outcome.saved[-1].path), outlier())).all()  # type: ignore[arg-type]


def test_a_member_that_diverges_may_keep_its_best_epoch(tmp_path: Path) -> None:
    config = DIVERGING | {"on_divergence": "keep_best"}
    outcome = learn(outlier(), tmp_path / "whole", config)
    assert outcome.error is None
    assert outcome.finished is not None
    assert outcome.finished.reason is None  # the other member went on to the last epoch
    assert [each["code"] for each in outcome.finished.warnings] == ["diverged"]
    tensors, document = checkpoint.read(outcome.saved[-1].path)
    assert sum(each["diverged"] is not None for each in document["members"]) == 1
    assert all(np.isfinite(each).all() for each in tensors.values())
    step = outcome.saved[-1].step - 5  # after the divergence
    first = learn(outlier(), tmp_path / "cut", config, stop_at(step, "pause"), poll_s=0.0)
    saved = first.saved[-1]
    rest = learn(outlier(), tmp_path / "cut", config, resume=saved.path, seq=saved.seq, attempt=2)
    assert rest.saved[-1].sha256 == outcome.saved[-1].sha256
    assert rest.finished is not None
    assert rest.finished.warnings == outcome.finished.warnings


def test_the_spread_over_folds_is_told(tmp_path: Path) -> None:
    outcome = learn(travellers(), tmp_path, CASES["classes in two repeats"])
    folds = outcome.evaluation["folds"]
    assert [(each["repeat"], each["fold"]) for each in folds["scores"]] == [
        (1, 1),
        (1, 2),
        (2, 1),
        (2, 2),
    ]
    accuracies = [each["accuracy"] for each in folds["scores"]]
    assert folds["mean"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert folds["std"]["accuracy"] == pytest.approx(np.std(accuracies))
    assert outcome.evaluation["baseline"]["split"] == "validation"
    assert outcome.evaluation["importance"]["rows"] == travellers().rows


def test_a_budget_ends_a_cross_validation_with_its_best_model(tmp_path: Path) -> None:
    config = CASES["numbers"] | {"budget": {"time_s": 1e-9}}
    outcome = learn(travellers(), tmp_path, config, poll_s=0.0)
    assert outcome.finished is not None
    assert outcome.finished.reason == "budget"
    assert np.isfinite(outcome.evaluation["validation"]["rmse"])


def test_a_test_of_learning_rates_needs_no_folds(tmp_path: Path) -> None:
    outcome = learn(passengers(), tmp_path, SURVIVAL | FOLDS | {"lr_range": {}})
    assert outcome.evaluation["lr_range"]["suggested"] > 0


def test_out_of_fold_rows_calibrate_the_model_and_are_compared_with_baselines(
    tmp_path: Path,
) -> None:
    done = learn(travellers(), tmp_path, SURVIVAL | FOLDS | {"features": COLUMNS})
    predictor = Predictor.load(done.saved[-1].path)
    assert isinstance(predictor.calibration, ClassCalibration)
    known, rows = done.evaluation["calibration"], travellers().rows
    assert (known["split"], known["rows"]) == ("validation", rows)
    assert known["reliability"]["rows"] == rows
    report = predictor.document["report"]
    assert (report["split"], report["rows"]) == ("validation", rows)
    assert [each["name"] for each in report["baselines"]] == ["constant", "linear"]
    # The constant of each fold is scored on its own rows, as in the evaluation.
    wanted = done.evaluation["baseline"]["constant"]["cross_entropy"]
    assert report["baselines"][0]["score"]["value"] == pytest.approx(wanted, rel=1e-9)
