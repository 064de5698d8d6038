"""Classes: which there are, how answers spell them, and which rows have them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from descent.spec import ColumnType, Task
from models.data import Table, read_table
from models.features.targets import (
    ClassTarget,
    fit_classes,
    target_from_json,
    target_to_json,
)
from models.reading import Reading
from tests.models.samples import Cells, make_table


def classes_of(
    kind: ColumnType, cells: Cells, reading: Reading | None = None, task: Task = "multiclass"
) -> tuple[Table, ClassTarget]:
    table = make_table({"y": kind}, y=cells)
    if reading is not None:
        table = Table(table.types, table.columns, table.rows, {"y": reading})
    return table, fit_classes(table, "y", task)


def test_whole_numbers_with_a_point_are_classes_with_a_point() -> None:
    table, target = classes_of("number", [1.0, 3.0, 2.0, None, 1.0])
    assert target.classes == (1.0, 2.0, 3.0)
    assert target.labels == ["1.0", "2.0", "3.0"]
    assert target.labels_of(table).tolist() == [0, 2, 1, -1, 0]
    assert [target.place(text) for text in ("1.0", "1", "3.00", "4")] == [0, 0, 2, -1]


@pytest.mark.parametrize("words", [("No", "Yes"), ("n", "y"), ("off", "on"), ("f", "t")])
def test_truth_is_answered_in_the_words_of_the_table(words: tuple[str, str]) -> None:
    false, true = words
    reading = Reading("boolean", false=false, true=true)
    table, target = classes_of("boolean", [True, False, None, True], reading, "binary")
    assert target.classes == words
    assert target.labels == list(words)
    assert target.signature() == [{"name": "y", "type": "category", "classes": list(words)}]
    assert target.labels_of(table).tolist() == [1, 0, -1, 1]


@pytest.mark.parametrize(("false", "true"), [("false", "true"), ("FALSE", "TRUE"), ("0", "1")])
def test_true_and_false_stay_jsons_own(false: str, true: str) -> None:
    reading = Reading("boolean", false=false, true=true)
    _, target = classes_of("boolean", [True, False], reading, "binary")
    assert target.classes == (False, True)
    assert target.labels == ["false", "true"]


def test_text_names_a_class_exactly_or_by_its_number() -> None:
    _, target = classes_of("category", ["1", "2.50", "01", "x"])
    known = make_table({"y": "category"}, y=["1.0", "2.5", "01", "1", "02", "x"])
    found = [target.classes[place] if place >= 0 else None for place in target.labels_of(known)]
    assert found == ["1", "2.50", "01", "1", None, "x"]


@pytest.mark.parametrize("start", [2**53 - 2, -(2**53) - 1, 2**62, -(2**63)])
def test_whole_numbers_beyond_doubles_are_exact_classes(tmp_path: Path, start: int) -> None:
    values = [start + row % 4 for row in range(20)]
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"y": pa.array([*values, None], pa.int64())}), path)
    table = read_table(path, {"y": "integer"}, ["y"])
    target = fit_classes(table, "y", "multiclass")
    assert target.classes == tuple(start + step for step in range(4))
    assert target.labels_of(table).tolist() == [*([0, 1, 2, 3] * 5), -1]


def test_a_target_comes_back_from_json_with_its_reading() -> None:
    for reading in (None, Reading("boolean", false="No", true="Yes")):
        _, target = classes_of("boolean", [True, False], reading, "binary")
        stored = target_to_json(target)
        assert ("reading" in stored) is (reading is not None)
        assert target_from_json(stored) == target


def test_an_earlier_target_has_no_reading() -> None:
    stored = {"kind": "classes", "name": "y", "type": "boolean", "classes": [False, True]}
    target = target_from_json(stored)
    assert isinstance(target, ClassTarget)
    assert target.labels == ["false", "true"]
    assert target_to_json(target) == stored | {"classes": (False, True)}


def test_every_row_of_a_table_has_the_number_of_its_class() -> None:
    random = np.random.default_rng(2)
    for kind, values in (
        ("category", ["b", "a", "10", "9"]),
        ("integer", [-3, 0, 7]),
        ("number", [-1.0, 0.0, 2.0]),
    ):
        cells = [values[place] for place in random.integers(0, len(values), 50)]
        table, target = classes_of(kind, cells)  # type: ignore[arg-type]
        assert [target.classes[place] for place in target.labels_of(table)] == cells
