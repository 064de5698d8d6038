"""The ONNX graph: plain onnxruntime gives the predictor's answers for the values of a table."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from models.export.card import TOLERANCE, golden_rows
from models.export.onnx_graph import build
from models.features.inputs import Choice, Input
from models.features.targets import ClassTarget, NumberTargets
from models.model import GraphModel
from models.predict.predictor import Prediction
from tests.models.export.portables import NETS, TASKS, portable, predict

Row = dict[str, Any]


def session(model: GraphModel) -> onnxruntime.InferenceSession:
    content = build(model, {"model": "boats", "version": "3"})
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def ask(model: GraphModel, rows: Sequence[Row]) -> dict[str, NDArray[Any]]:
    run = session(model)
    feed = {column.name: tensor(column, rows) for column in model.features.inputs}
    names = [output.name for output in run.get_outputs()]
    return dict(zip(names, run.run(names, feed), strict=True))


def tensor(column: Input, rows: Sequence[Row]) -> NDArray[Any]:
    """Return the tensor that a client would create from a column."""
    values = [row[column.name] for row in rows]
    if isinstance(column, Choice):
        return np.array([value or "" for value in values], dtype=object)[:, None]
    if column.type == "datetime":
        moments = ["NaT" if value is None else value.partition("+")[0] for value in values]
        seconds = np.array(moments, dtype="datetime64[us]")
        numbers = seconds.astype(np.int64) / 1e6
        return np.where(np.isnat(seconds), np.nan, numbers)[:, None]
    return np.array([np.nan if value is None else float(value) for value in values])[:, None]


def rows_for(model: GraphModel, *, far: bool = False) -> list[Row]:
    """Return golden rows and rows of random values, with `far` also values like 1e300."""
    random = np.random.default_rng(5)
    columns = model.features.inputs
    return [
        *golden_rows(model.features),
        *({c.name: value(c, random, far=far) for c in columns} for _ in range(150)),
    ]


def value(column: Input, random: np.random.Generator, *, far: bool) -> Any:
    kind = random.random()
    if kind < 0.1:
        return None
    if isinstance(column, Choice):
        return str(random.choice([*column.categories, "unseen"]))
    if column.type == "boolean":
        return bool(random.random() < 0.5)
    if column.type == "datetime":
        years = 250 if far else 5
        return str(np.datetime64(int(column.mean + years * 3e7 * random.uniform(-1, 1)), "s"))
    size = 10 ** random.uniform(0, 300) if far and kind < 0.2 else 3.0
    return float(column.mean + size * column.std * random.normal())


def differences(
    model: GraphModel, wanted: Sequence[Prediction], found: dict[str, NDArray[Any]]
) -> Iterator[float]:
    """Yield for each row the difference from the predictor's answer, in tolerances."""
    target = model.features.target
    for row, prediction in enumerate(wanted):
        assert prediction.error is None
        if isinstance(target, NumberTargets):
            single = len(target.names) == 1
            for name, std in zip(target.names, target.std, strict=True):
                number = prediction.value if single else prediction.value[name]  # type: ignore[index]
                answer = found["value" if single else name][row, 0]
                yield abs(answer - number) / (TOLERANCE * max(abs(number), std))  # type: ignore[arg-type]
        else:
            shares = np.array(list((prediction.probabilities or {}).values()))
            yield float(np.abs(found["probabilities"][row] - shares).max()) / TOLERANCE
            if np.sort(shares)[-1] - np.sort(shares)[-2] > 2 * TOLERANCE:
                label = found["value"][row, 0]
                assert (label.item() if hasattr(label, "item") else label) == prediction.value


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("scaling", ["standardized", "as it is"])
def test_the_graph_answers_what_the_predictor_answers(
    task: str, net: str, scaling: str, tmp_path: Path
) -> None:
    model = portable(task, net, standardize=scaling == "standardized")
    rows = rows_for(model, far=True)
    found = ask(model, rows)
    assert max(differences(model, predict(model, rows, tmp_path), found)) <= 1


def test_columns_are_inputs_and_the_target_gives_the_outputs() -> None:
    run = session(portable("text classes", "relu"))
    inputs = {each.name: (each.type, each.shape) for each in run.get_inputs()}
    assert inputs["Sex"] == ("tensor(string)", ["N", 1])
    assert inputs["Alone"] == ("tensor(double)", ["N", 1])
    outputs = {each.name: (each.type, each.shape) for each in run.get_outputs()}
    assert outputs == {
        "value": ("tensor(string)", ["N", 1]),
        "probabilities": ("tensor(double)", ["N", 4]),
    }


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("boolean", "tensor(bool)"),
        ("integer classes", "tensor(int64)"),
        ("number classes", "tensor(double)"),
        ("number", "tensor(double)"),
    ],
)
def test_a_value_has_the_type_of_its_target(task: str, kind: str) -> None:
    outputs = {each.name: each.type for each in session(portable(task, "linear")).get_outputs()}
    assert outputs["value"] == kind


def test_several_targets_are_outputs_of_their_own_names() -> None:
    run = session(portable("numbers", "linear"))
    assert [each.name for each in run.get_outputs()] == ["Fare", "Debt"]


def test_names_that_the_graph_uses_itself_may_be_columns(tmp_path: Path) -> None:
    model = portable("number", "linear", columns=["Age", "Sex"])
    text = repr(model.features.to_json()).replace("'Age'", "'value'").replace("'Sex'", "'/Or_2'")
    document = eval(text)  # noqa: S307  our own representation
    renamed = replace(model, features=model.features.from_json(document))
    rows = rows_for(renamed)
    answer = ask(renamed, rows)
    wanted = predict(renamed, rows, tmp_path)
    assert max(differences(renamed, wanted, {"value": answer["value_"]})) <= 1


def test_names_that_the_graph_uses_itself_may_be_targets() -> None:
    model = portable("numbers", "linear")
    text = json.dumps(model.features.to_json()).replace('"Debt"', '"/constant_0"')
    renamed = replace(model, features=model.features.from_json(json.loads(text)))
    assert [each.name for each in session(renamed).get_outputs()] == ["Fare", "/constant_0"]


def test_a_boolean_that_is_neither_0_nor_1_counts_as_missing() -> None:
    model = portable("number", "relu")
    row = golden_rows(model.features)[0]
    rows = [row | {"Alone": value} for value in (None, 2, -1, 0.5, 1)]
    *missing, given = ask(model, rows)["value"][:, 0].tolist()
    assert missing == [missing[0]] * 4
    assert given != missing[0]


def test_the_file_says_what_it_is_and_is_the_same_each_time() -> None:
    model = portable("numbers", "gelu")
    meta = session(model).get_modelmeta()
    assert (meta.producer_name, meta.custom_metadata_map["model"]) == ("descent", "boats")
    assert '"Fare"' in meta.custom_metadata_map["signature"]
    assert build(model, {"model": "a"}) == build(model, {"model": "a"})


def test_one_row_and_none_are_tables_too() -> None:
    model = portable("text classes", "relu")
    rows = golden_rows(model.features)
    assert isinstance(model.features.target, ClassTarget)
    for count in (0, 1):
        assert ask(model, rows[:count])["value"].shape == (count, 1)
