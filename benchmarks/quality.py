"""Compares the models that Descent trains with those of other libraries, on public tables.

    .venv/bin/python benchmarks/quality.py [FOLDER] [--seeds 3] [--ways trees,linear]
                                           [--tables iris,wine]

FOLDER holds CSV files that `FILES` names; without it only the tables of scikit-learn are used. Each
seed holds out a fifth of the rows; small tables have three times as many seeds. An error is the
root of the mean squared error, or for classes the mean cross-entropy; it is divided by that of
CatBoost's default on the same rows. Needs `pip install -c constraints.txt -e .[dev,quality]`. Each
fit has one thread.
"""

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import catboost
import lightgbm
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from descent.spec import RunConfig
from models.data import Categories, Table
from models.predict.predictor import Predictor
from models.training.dataset import TrainingInput
from models.training.interface import Saved
from models.training.loop import train

Values = NDArray[np.float64]
BASE = "catboost"
TARGET = "the target"
LEAST = 1e-5  # the smallest probability that counts, so that one row does not decide a mean


@dataclass(frozen=True)
class Public:
    """A table, with its target in the column TARGET."""

    frame: pd.DataFrame
    is_class: bool

    @property
    def numbers(self) -> list[str]:
        rest = self.frame.drop(columns=TARGET)
        return [str(name) for name in rest if rest[name].dtype.kind in "fiub"]

    @property
    def words(self) -> list[str]:
        return [str(n) for n in self.frame if n != TARGET and str(n) not in self.numbers]


# ---- tables --------------------------------------------------------------------------------------

#: by name: the file, its target, whether that is a class, and columns that are left out
FILES: dict[str, tuple[str, str | int, bool, list[str]]] = {
    "abalone": ("abalone.csv", 8, False, []),
    "california": ("california_housing.csv", "median_house_value", False, []),
    "wine quality": ("winequality_red.csv", 11, False, []),
    "wine classes": ("winequality_red.csv", 11, True, []),
    "titanic": ("titanic.csv", "Survived", True, ["PassengerId", "Name", "Ticket", "Cabin"]),
    "titanic fare": ("titanic.csv", "Fare", False, ["PassengerId", "Name", "Ticket", "Cabin"]),
}
BUNDLED: dict[str, tuple[Callable[..., Any], bool]] = {
    "diabetes": (datasets.load_diabetes, False),
    "breast cancer": (datasets.load_breast_cancer, True),
    "wine": (datasets.load_wine, True),
    "iris": (datasets.load_iris, True),
    "digits": (datasets.load_digits, True),
}
MOST_ROWS = 8_000
#: A table with fewer rows is divided so many times as often, as its test rows say little.
FEW, FEW_TIMES = 1_000, 3


def tables(folder: Path | None) -> Iterator[tuple[str, Public]]:
    """Yield each table by its name."""
    for name, (load, is_class) in BUNDLED.items():
        found = load(as_frame=True)
        frame = found.data.copy()
        frame[TARGET] = found.target
        yield name, Public(frame, is_class)
    for name, (file, target, is_class, left_out) in FILES.items() if folder else ():
        path = Path(folder or "") / file
        if not path.exists():
            print(f"{name}: there is no {file}", file=sys.stderr)
            continue
        frame = pd.read_csv(path, header=0 if isinstance(target, str) else None)
        frame = frame.rename(columns={target: TARGET}).drop(columns=left_out)
        frame = frame[frame[TARGET].notna()].rename(columns=str)
        if is_class:
            counts = frame[TARGET].value_counts()
            frame = frame[frame[TARGET].map(counts) >= 5]
            frame[TARGET] = pd.factorize(frame[TARGET], sort=True)[0]
        if len(frame) > MOST_ROWS:
            frame = frame.sample(MOST_ROWS, random_state=0)
        yield name, Public(frame.reset_index(drop=True), is_class)


def error(truth: NDArray[Any], predicted: Values, *, is_class: bool) -> float:
    """Return the error of predictions, (rows,) numbers or (rows, classes) probabilities."""
    if not is_class:
        return float(np.sqrt(np.mean((truth - predicted) ** 2)))
    shares = np.clip(predicted, LEAST, None)
    shares /= shares.sum(axis=1, keepdims=True)
    return float(-np.log(shares[np.arange(len(truth)), truth]).mean())


# ---- ways ----------------------------------------------------------------------------------------


class Fitted(Protocol):
    """Predicts the rows of a frame without its target."""

    def __call__(self, frame: pd.DataFrame) -> Values: ...


class Way(Protocol):
    """Fits a table's training rows."""

    def __call__(self, table: Public, seed: int) -> Fitted: ...


def ours(asked: dict[str, Any]) -> Way:
    """Return the training of a configuration."""

    def fit(table: Public, seed: int) -> Fitted:
        task = "regression"
        if table.is_class:
            task = "binary" if table.frame[TARGET].nunique() == 2 else "multiclass"
        config = {
            "dataset": "ds_1",
            "target": TARGET,
            "features": [*table.numbers, *table.words],
            "task": task,
            "loss": "cross_entropy" if table.is_class else "mse",
            "seed": seed,
        }
        run = RunConfig.model_validate(config | asked).completed(len(table.frame))
        with tempfile.TemporaryDirectory() as scratch:
            given = TrainingInput(run, read(table), Path(scratch), threads=1)
            saved = [each for each in train(given, lambda: None) if isinstance(each, Saved)]
            predictor = Predictor.load(saved[-1].path)

        def predict(frame: pd.DataFrame) -> Values:
            x = predictor.features.encode(read(Public(frame.assign(**{TARGET: 0}), is_class=False)))
            decoded = predictor.features.decode(predictor.outputs_with_care(x))
            return np.asarray(decoded if table.is_class else decoded[:, 0], np.float64)

        return predict

    return fit


def read(table: Public) -> Table:
    """Return the rows as a table of Descent."""
    frame = table.frame
    columns: dict[str, Any] = {name: frame[name].to_numpy(np.float64) for name in table.numbers}
    types: dict[str, Any] = dict.fromkeys(table.numbers, "number")
    for name in table.words:
        codes, words = pd.factorize(frame[name], sort=True)
        columns[name] = Categories(codes.astype(np.int32), [str(word) for word in words])
        types[name] = "category"
    if table.is_class:
        types[TARGET] = "category"
        width = len(str(frame[TARGET].max()))
        labels = [f"{each:0{width}}" for each in range(frame[TARGET].max() + 1)]
        columns[TARGET] = Categories(frame[TARGET].to_numpy(np.int32), labels)
    else:
        types[TARGET], columns[TARGET] = "number", frame[TARGET].to_numpy(np.float64)
    return Table(types, columns, len(frame))


def parts(table: Public) -> tuple[pd.DataFrame, Any]:
    return table.frame.drop(columns=TARGET), table.frame[TARGET]


def answer(model: Any, *, is_class: bool) -> Fitted:  # noqa: ANN401  of any library
    return model.predict_proba if is_class else model.predict


def fit_catboost(table: Public, seed: int) -> Fitted:
    kind = catboost.CatBoostClassifier if table.is_class else catboost.CatBoostRegressor
    model = kind(
        random_seed=seed,
        verbose=False,
        thread_count=1,
        allow_writing_files=False,
        cat_features=table.words,
    )

    def spelled(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(**{n: frame[n].astype(object).fillna("") for n in table.words})

    x, y = parts(table)
    model.fit(spelled(x), y)
    predict = answer(model, is_class=table.is_class)
    return lambda frame: predict(spelled(frame))


def categorical(table: Public) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Return the reader of words as categories, those of the training rows."""
    kinds = {n: pd.CategoricalDtype(table.frame[n].dropna().unique()) for n in table.words}

    def read_words(frame: pd.DataFrame) -> pd.DataFrame:
        known = {n: frame[n].where(frame[n].isin(kinds[n].categories)) for n in kinds}
        return frame.assign(**{n: known[n].astype(kinds[n]) for n in kinds})

    return read_words


def fit_lightgbm(table: Public, seed: int) -> Fitted:
    kind = lightgbm.LGBMClassifier if table.is_class else lightgbm.LGBMRegressor
    known, (x, y) = categorical(table), parts(table)
    model = kind(random_state=seed, verbose=-1, n_jobs=1)
    plain = {name: f"c{place}" for place, name in enumerate(x)}  # it refuses some names
    model.fit(known(x).rename(columns=plain), y)
    predict = answer(model, is_class=table.is_class)
    return lambda frame: predict(known(frame).rename(columns=plain))


def fit_histogram(table: Public, seed: int) -> Fitted:
    kind: Any = HistGradientBoostingClassifier if table.is_class else HistGradientBoostingRegressor
    known, (x, y) = categorical(table), parts(table)
    model = kind(random_state=seed, categorical_features="from_dtype").fit(known(x), y)
    predict = answer(model, is_class=table.is_class)
    return lambda frame: predict(known(frame))


def fit_perceptron(table: Public, seed: int) -> Fitted:
    kind: Any = MLPClassifier if table.is_class else MLPRegressor
    x, y = parts(table)
    encoded = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), table.numbers),
        (OneHotEncoder(handle_unknown="ignore"), table.words),
    )
    center, scale = (0.0, 1.0) if table.is_class else (y.mean(), y.std())
    model = make_pipeline(encoded, kind(random_state=seed))
    model.fit(x, y if table.is_class else (y - center) / scale)
    predict = answer(model, is_class=table.is_class)
    return lambda frame: np.asarray(predict(frame)) * scale + center


WAYS: dict[str, Way] = {
    "default": ours({}),
    "fast": ours({"preset": "fast"}),
    "balanced": ours({"preset": "balanced"}),
    "linear": ours({"model": {"type": "linear"}}),
    "trees": ours({"model": {"type": "trees"}}),
    "trees in folds": ours({"model": {"type": "trees"}, "split": {"type": "kfold"}}),
    BASE: fit_catboost,
    "lightgbm": fit_lightgbm,
    "histogram": fit_histogram,
    "sklearn mlp": fit_perceptron,
}


# ---- measuring -----------------------------------------------------------------------------------


@dataclass
class Measured:
    """The results of a way on a table, one number for each seed."""

    errors: list[float] = field(default_factory=list)
    fit_s: list[float] = field(default_factory=list)
    #: per row
    predict_us: list[float] = field(default_factory=list)


def measure(way: Way, table: Public, seed: int, measured: Measured) -> None:
    """Fit the training rows of a seed, and predict its test rows."""
    stratify = table.frame[TARGET] if table.is_class else None
    learned, held_out = train_test_split(
        table.frame, test_size=0.2, random_state=seed, stratify=stratify
    )
    begun = time.perf_counter()
    predict = way(Public(learned.reset_index(drop=True), table.is_class), seed)
    measured.fit_s.append(time.perf_counter() - begun)
    rows = held_out.drop(columns=TARGET).reset_index(drop=True)
    begun = time.perf_counter()
    predicted = np.asarray(predict(rows), np.float64)
    measured.predict_us.append((time.perf_counter() - begun) / len(rows) * 1e6)
    truth = held_out[TARGET].to_numpy()
    measured.errors.append(error(truth, predicted, is_class=table.is_class))


def relative(found: dict[str, dict[str, Measured]]) -> dict[str, dict[str, float]]:
    """Return the errors by way and table, divided by those of CatBoost."""
    return {
        way: {
            name: statistics.mean(each.errors) / statistics.mean(found[BASE][name].errors)
            for name, each in by_table.items()
        }
        for way, by_table in found.items()
    }


def show(found: dict[str, dict[str, Measured]]) -> None:
    """Print the errors of each table, and the summary of each way."""
    errors = relative(found)
    ways = list(errors)
    print("| table | " + " | ".join(ways) + " |\n" + "|---" * (len(ways) + 1) + "|")
    names = list(errors[BASE])
    for name in names:
        print(f"| {name} | " + " | ".join(f"{errors[way][name]:.3f}" for way in ways) + " |")
    ranks = {name: sorted(ways, key=lambda way, name=name: errors[way][name]) for name in names}
    print("\n| way | mean | worst table | mean rank | fit s | predict µs/row |")
    print("|---" * 6 + "|")
    for way in ways:
        worst = max(names, key=lambda name, way=way: errors[way][name])
        rank = statistics.mean(1 + ranks[name].index(way) for name in names)
        fit_s, predict_us = (
            statistics.mean(statistics.median(getattr(found[way][name], part)) for name in names)
            for part in ("fit_s", "predict_us")
        )
        mean = statistics.mean(errors[way].values())
        print(
            f"| {way} | {mean:.3f} | {errors[way][worst]:.3f} ({worst}) | {rank:.1f}"
            f" | {fit_s:.2f} | {predict_us:.1f} |"
        )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--tables", default="")
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    ways = dict.fromkeys([*asked.ways.split(","), BASE])
    found: dict[str, dict[str, Measured]] = {way: {} for way in ways}
    for name, table in tables(asked.folder):
        if asked.tables and name not in asked.tables.split(","):
            continue
        for way in ways:
            measured = found[way].setdefault(name, Measured())
            for seed in range(asked.seeds * (FEW_TIMES if len(table.frame) < FEW else 1)):
                measure(WAYS[way], table, seed, measured)
            print(
                f"{name}: {way} {statistics.mean(measured.errors):.4f}"
                f" in {statistics.median(measured.fit_s):.2f} s",
                file=sys.stderr,
            )
    show(found)


if __name__ == "__main__":
    main()
