"""Small models of every kind, trained and published in a service, and the nets of training."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sqlalchemy import Engine
from torch import nn

from descent.spec import ColumnType, RunConfig
from models import checkpoint
from models.checkpoint import BEST
from models.data import Categories, Floats, Table
from models.features.encoding import Features
from models.nets.graph import Graph
from models.nets.module import build_graph
from models.predict.predictor import Predictor
from models.reading import MISSING, Reading, TableReading
from models.training.dataset import net_of
from service.storage.blobs import BlobStore
from tests.models.samples import learn, make_table
from tests.service import trained

ROWS = 90
TYPES: dict[str, ColumnType] = {
    "Quiz": "number",
    "größe in µm": "number",
    "count": "integer",
    "constant": "number",
    "is it?": "boolean",
    "日付": "datetime",
    "day": "datetime",
    "port": "category",
    "=word": "category",
    "y": "number",
    "z": "number",
    "kind": "category",
    "grade": "integer",
    "flag": "boolean",
}
NUMBERS = ["Quiz", "größe in µm", "count", "constant"]
ALL = [*NUMBERS, "is it?", "日付", "day", "port", "=word"]
WORDS = [
    "S",
    "é",
    "💥",
    "a,b",
    'q"uote',
    "two\nlines",
    " spaced ",
    "=1+1",
    "true",
    "3",
    "NA",
    "日本",
]


@dataclass(frozen=True)
class Recipe:
    """A model to train."""

    features: list[str]
    target: str | list[str] = "y"
    task: str = "regression"
    model: Mapping[str, Any] = field(default_factory=lambda: {"type": "linear"})
    further: Mapping[str, Any] = field(default_factory=dict)
    #: factor of its last weights, so that far inputs overflow
    steepness: float = 1.0
    #: whether the columns have the readings of a text table
    is_spelled: bool = False

    def config(self) -> dict[str, Any]:
        loss = "mse" if self.task == "regression" else "cross_entropy"
        own = {
            "dataset": "ds_1",
            "target": self.target,
            "features": self.features,
            "task": self.task,
            "loss": loss,
            "model": dict(self.model),
            "epochs": 15,
            "optimizer": {"type": "adam", "learning_rate": 0.02},
            "split": {"validation": 0.2},
        }
        return own | dict(self.further)


def _mlp(*hidden: int, **further: Any) -> dict[str, Any]:
    return {"type": "mlp", "hidden": list(hidden), **further}


def _layers(*layers: Any) -> dict[str, Any]:
    return {"type": "layers", "layers": list(layers)}


def _trees(depth: int) -> dict[str, Any]:
    return {"type": "trees", "depth": depth}


EMBEDDED = {"type": "piecewise_linear"}
GROWN = {"optimizer": {"type": "sgd", "learning_rate": 0.2}, "batch_size": "full"}
FOLDS = {"split": {"type": "kfold", "folds": 3}}
RAW = {"standardize": False, "optimizer": {"type": "adam", "learning_rate": 1e-4}}
RECIPES: dict[str, Recipe] = {
    "line": Recipe(["Quiz"]),
    "line-raw": Recipe(["Quiz"], further=RAW),
    "line-of-all": Recipe(ALL),
    "line-steep": Recipe(["Quiz", "port"], steepness=1e34),
    "numbers-mlp": Recipe(NUMBERS, model=_mlp(16, 16)),
    "numbers-raw": Recipe(NUMBERS, model=_mlp(8), further=RAW),
    "all-mlp": Recipe(ALL, model=_mlp(64, 64)),
    "all-sigmoid": Recipe(ALL, model=_mlp(16, activation="sigmoid")),
    "all-tanh": Recipe(ALL, model=_mlp(16, 8, activation="tanh")),
    "all-gelu": Recipe(ALL, model=_mlp(32, activation="gelu", dropout=0.3)),
    "times": Recipe(["日付", "day"], model=_mlp(8)),
    "words": Recipe(["port", "=word"], model=_mlp(8)),
    "flag-only": Recipe(["is it?"]),
    "two-targets": Recipe(["Quiz", "port", "日付"], ["y", "z"], model=_mlp(12)),
    "two-lines": Recipe(NUMBERS, ["y", "z"]),
    "layers": Recipe(ALL, model=_layers({"linear": 16}, "relu", {"dropout": 0.1}, {"linear": 8})),
    "layers-odd": Recipe(NUMBERS, model=_layers("tanh", {"linear": 9}, "gelu", "sigmoid")),
    "embedded": Recipe(ALL, model=_mlp(16, embedding=EMBEDDED)),
    "embedded-classes": Recipe(ALL, "kind", "multiclass", _mlp(12, 8, embedding=EMBEDDED)),
    "trees": Recipe(ALL, model=_trees(6), further=GROWN),
    "trees-classes": Recipe(ALL, "kind", "multiclass", _trees(4), further=GROWN),
    "folds": Recipe(ALL, model=_mlp(8), further=FOLDS),
    "folds-raw": Recipe(NUMBERS, ["y", "z"], further=RAW | FOLDS),
    "folds-classes": Recipe(ALL, "kind", "multiclass", _mlp(8), further=FOLDS),
    "folds-embedded": Recipe(ALL, model=_mlp(8, embedding=EMBEDDED), further=FOLDS),
    "folds-trees": Recipe(ALL, model=_trees(3), further=GROWN | FOLDS, is_spelled=True),
    "binary-flag": Recipe(ALL, "flag", "binary", _mlp(16)),
    "binary-line": Recipe(NUMBERS, "flag", "binary"),
    "binary-whole": Recipe(["Quiz", "port"], "flag", "binary", _mlp(8, activation="tanh")),
    "many-classes": Recipe(ALL, "kind", "multiclass", _mlp(24)),
    "classes-line": Recipe(["Quiz", "port", "count"], "kind", "multiclass"),
    "grades": Recipe(NUMBERS, "grade", "multiclass", _layers({"linear": 8}, "sigmoid")),
    "spelled-line": Recipe(ALL, is_spelled=True),
    "spelled-mlp": Recipe(ALL, model=_mlp(16, 8), is_spelled=True),
    "spelled-number": Recipe(["Quiz"], is_spelled=True),
    "spelled-times": Recipe(["日付", "day"], ["y", "z"], model=_mlp(8), is_spelled=True),
    "spelled-classes": Recipe(ALL, "kind", "multiclass", _mlp(12), is_spelled=True),
    "grades-gelu": Recipe(ALL, "grade", "multiclass", _mlp(12, activation="gelu", dropout=0.5)),
}


@dataclass(frozen=True)
class Known:
    """A published model, and the net of the training code for it."""

    name: str
    checkpoint: Path
    features: Features
    net: nn.Module
    #: by target, the scale of errors
    scales: Floats

    def predict(self, table: Table) -> Floats:
        """Return the predictions of training's net: numbers in the targets' units, or shares.

        It computes in float64 and rounds once: far outside the training rows large numbers cancel,
        and in float32 the rest depends on the order of addition.
        """
        with torch.no_grad(), np.errstate(all="ignore"):
            encoded = torch.from_numpy(self.features.encode(table)).double()
            outputs = self.net(encoded).float().numpy()
            decoded = self.features.decode(outputs)
        decoded[~np.isfinite(outputs).all(axis=1)] = np.nan
        return decoded


#: How the text of these columns is read in the models that are spelled.
MARKERS = (*MISSING, "-999", "-")
READINGS = {
    "Quiz": Reading("number", MARKERS, decimal=",", thousands=".", unit="€"),
    "größe in µm": Reading("number", MARKERS, decimal=","),
    "count": Reading("integer", MARKERS, thousands=" "),
    "constant": Reading("number", MARKERS),
    "is it?": Reading("boolean", MARKERS, true="Ja", false="Nein"),
    "日付": Reading("datetime", MARKERS, form="%d.%m.%Y"),
    "day": Reading("datetime", MARKERS, form="%m/%d/%Y"),
    "port": Reading("category", MARKERS),
    "=word": Reading("category", MARKERS),
}


def spelled(table: Table) -> Table:
    """Return the table as it would come from a text: words are trimmed, and none is a marker."""
    columns = dict(table.columns)
    for name in ("port", "=word"):
        words = table.categories(name)
        values = ["Namibia" if word == "NA" else word.strip() for word in words.values]
        columns[name] = Categories(words.codes, values)
    whole = TableReading(tuple(TYPES), MARKERS, ";")
    return replace(table, columns=columns, readings=READINGS, reading=whole)


def samples() -> Table:
    """Rows to train on, with gaps in half of the columns."""
    random = np.random.default_rng(11)
    quiz, size = random.uniform(2.5, 25.2, ROWS), random.lognormal(-9, 1, ROWS)
    count = random.integers(-5, 40, ROWS)
    is_it = random.random(ROWS) < 0.6
    days = 1.6e9 + 86_400.0 * random.integers(0, 900, ROWS)
    times = 1.5e9 + random.uniform(0, 9e7, ROWS)
    port = [WORDS[place] for place in random.integers(0, 5, ROWS)]
    word = [WORDS[place] for place in random.integers(0, len(WORDS), ROWS)]
    y = 1.3 * quiz + 2 * is_it + 0.1 * count + random.normal(0, 2, ROWS)

    def gaps(values: Any) -> list[Any]:
        cells = list(values)
        for place in random.choice(ROWS, 7, replace=False):
            cells[place] = None
        return cells

    return make_table(
        TYPES,
        **{
            "Quiz": quiz.tolist(),
            "größe in µm": gaps(size.tolist()),
            "count": gaps(count.tolist()),
            "constant": [7.25] * ROWS,
            "is it?": gaps(is_it.tolist()),
            "日付": gaps(times.tolist()),
            "day": days.tolist(),
            "port": port,
            "=word": gaps(word),
            "y": y.tolist(),
            "z": (1e6 - 1e5 * quiz).tolist(),
            "kind": [WORDS[int(value) % 4] for value in y],
            "grade": [int(value) // 8 for value in y],
            "flag": (y > y.mean()).tolist(),
        },
    )


def train_all(folder: Path) -> Iterator[Known]:
    """Train every recipe."""
    table = samples()
    for name, recipe in RECIPES.items():
        own = folder / name
        own.mkdir()
        rows = spelled(table) if recipe.is_spelled else table
        outcome = learn(rows, own, recipe.config())
        if outcome.error:
            raise outcome.error
        yield _known(name, recipe, outcome.saved[-1].path)


def publish(engine: Engine, blobs: BlobStore, known: Known) -> None:
    """Create the first version of a model of this name."""
    model = dict(RECIPES[known.name].model)
    left = trained.store_best(engine, blobs, known.checkpoint, model=model)
    trained.publish(engine, left, known.name, signature=known.features.signature())


def _known(name: str, recipe: Recipe, path: Path) -> Known:
    tensors, document = checkpoint.read(path)
    best = {key: value for key, value in tensors.items() if key.startswith(BEST)}
    if recipe.steepness != 1.0:
        last = [key for key in best if key.endswith(".weight")][-1]
        best[last] = best[last] * np.float32(recipe.steepness)
        path = path.with_name("steep.safetensors")
        checkpoint.write(path, best, document)
    features = Predictor.load(path).features
    run = RunConfig.model_validate(recipe.config())
    graph = net_of(run, features)
    if "members" in document:  # `training.test_bag` compares it with the nets of the members
        graph = Graph.from_json(document["net"])
    net = build_graph(graph).eval().double()
    state = {key.removeprefix(BEST): torch.from_numpy(value) for key, value in best.items()}
    net.load_state_dict(state)
    scales = np.array(getattr(features.target, "std", [1.0] * features.outputs))
    return Known(name, path, features, net, scales)
