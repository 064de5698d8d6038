"""Models of every kind with random parameters, and tables of values to predict with them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from descent.spec import Task
from models.data import Table
from models.export.card import TOLERANCE
from models.features.encoding import Features
from models.model import GraphModel, save
from models.nets.graph import Graph, GraphBuilder, chain
from models.predict.predictor import Prediction, Predictor
from tests.models.nets.graphs import parameters_of
from tests.models.samples import make_table, passengers

#: the output of the standalone script, one object for each row
Answers = list[dict[str, Any]]
ABOUT: dict[str, Any] = {
    "model": "boats",
    "version": 3,
    "created_at": "2026-11-25T04:30:00+00:00",
    "run": "run_1",
    "dataset": {"id": "ds_1", "version": 1, "name": "boats", "rows": 120, "sha256": "0" * 64},
    "config": {"target": "Survived", "epochs": 3},
    "metrics": {"validation": {"loss": 0.25}},
    "parameters": None,
}
NETS: dict[str, list[Any]] = {
    "linear": [],
    "relu": [{"linear": 16}, "relu", {"dropout": 0.1}, {"linear": 8}, "relu"],
    "sigmoid": [{"linear": 8}, "sigmoid"],
    "tanh": [{"linear": 8}, "tanh"],
    "gelu": [{"linear": 16}, "gelu", {"linear": 16}, "gelu"],
    "forest": [],  # see `forest`
    "embedded": [],  # see `embedded`
}


def people() -> Table:
    """The passengers, with targets of every type and a name that is hard to quote."""
    table = passengers()
    random = np.random.default_rng(1)
    rows = table.rows
    more = make_table(
        {
            "Fare": "number",
            "Debt": "number",
            "Deck": "integer",
            "Grade": "number",
            'Sørt "|,': "category",
            "Size": "number",
        },
        Fare=random.lognormal(3, 2, rows).tolist(),
        Debt=(-1e6 * random.random(rows)).tolist(),
        Deck=random.integers(0, 4, rows).tolist(),
        Grade=random.choice([1.5, 2.5, 3.5], rows).tolist(),
        **{
            'Sørt "|,': random.choice(["ä b", "=no", "NA", "ю"], rows).tolist(),
            "Size": (1e8 + random.random(rows)).tolist(),
        },
    )
    return Table({**table.types, **more.types}, {**table.columns, **more.columns}, rows)


TASKS: dict[str, tuple[list[str], Task]] = {
    "number": (["Fare"], "regression"),
    "numbers": (["Fare", "Debt"], "regression"),
    "boolean": (["Survived"], "binary"),
    "integer classes": (["Deck"], "multiclass"),
    "number classes": (["Grade"], "multiclass"),
    "text classes": (['Sørt "|,'], "multiclass"),
}
COLUMNS = ["Sex", "Age", "Port", "Alone", "Boarded", "Class", "Size"]


def portable(
    task: str, net: str, *, standardize: bool = True, columns: Sequence[str] = COLUMNS
) -> GraphModel:
    """Return a model of a kind with parameters of the magnitude of trained ones."""
    targets, kind = TASKS[task]
    table = people()
    features = Features.fit(
        table,
        np.arange(table.rows),
        features=list(columns),
        targets=targets,
        task=kind,
        standardize=standardize,
    )
    if net in {"forest", "embedded"}:
        is_class = kind != "regression"
        graph = forest(features.width, features.outputs, is_class=is_class)
        if net == "embedded":
            graph = embedded(features.width, features.outputs)
        return GraphModel(features, graph, parameters_of(graph))
    layers = [*NETS[net], {"linear": features.outputs}]
    random = np.random.default_rng(len(layers))
    parameters, width = {}, features.width
    for place, layer in enumerate(layers):
        if isinstance(layer, dict) and "linear" in layer:
            shape = (layer["linear"], width)
            weights = random.normal(size=shape).astype(np.float32)
            parameters[f"{place}.weight"] = weights / np.float32(np.sqrt(width))
            parameters[f"{place}.bias"] = random.normal(size=(shape[0],)).astype(np.float32)
            width = layer["linear"]
    return GraphModel(features, chain(features.width, layers), parameters)


def forest(inputs: int, outputs: int, *, is_class: bool) -> Graph:
    """Return a mix of trees and a line."""
    net = GraphBuilder(inputs)
    grown = net.add("trees", net.x, trees=20, depth=3, outputs=outputs)
    net.add("mix_classes" if is_class else "mix", grown, net.linear(net.x, outputs))
    return net.graph()


def embedded(inputs: int, outputs: int) -> Graph:
    """Return a net that reads codes of some numbers."""
    net = GraphBuilder(inputs)
    codes = net.add("piecewise_linear", net.x, numbers=4, bins=8, size=5)
    net.linear(net.add("relu", net.linear(codes, 16)), outputs)
    return net.graph()


def portables() -> Iterator[tuple[str, GraphModel]]:
    """Yield every task with every net, with and without standardisation in turn."""
    for task in TASKS:
        for number, net in enumerate(NETS):
            yield f"{task}, {net}", portable(task, net, standardize=number % 2 == 0)


def predict(model: GraphModel, rows: Sequence[dict[str, Any]], folder: Path) -> list[Prediction]:
    """Predict with the predictor that the service uses."""
    path = folder / "model.safetensors"
    save(model, path, {})
    columns = {
        column.name: [row.get(column.name) for row in rows] for column in model.features.inputs
    }
    return Predictor.load(path).predict(columns, len(rows))


def agree(found: Answers, golden: dict[str, Any]) -> bool:
    """Whether all numbers of the answers are equal, except for rounding."""
    assert len(found) == len(golden["predictions"])
    for ours, theirs in zip(found, golden["predictions"], strict=True):
        if "probabilities" in theirs:
            pairs = [
                (ours["probabilities"][label], p) for label, p in theirs["probabilities"].items()
            ]
            assert ours["value"] == theirs["value"]
        elif isinstance(theirs["value"], dict):
            pairs = [(ours["value"][name], value) for name, value in theirs["value"].items()]
        else:
            pairs = [(ours["value"], theirs["value"])]
        if any(abs(a - b) > TOLERANCE * max(abs(b), 1) for a, b in pairs):
            return False
    return True
