"""Uploads and downloads of DataFrames of pandas and polars."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from descent import Client, frames
from descent.predictions import table_body
from tests.descent.scripted import Answer, scripted
from tests.serving import RunService

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCORES = ROOT / "descent" / "data" / "scores.csv"
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
COLUMNS: dict[str, list[Any]] = {
    "size": [1.5, None, 3.5, 4.5],
    "count": [1, 2, 3, 4],
    "kind": ["a", "b", None, "a"],
    "is_new": [True, False, True, True],
    "at": [AT, AT, AT, AT],
}


@pytest.fixture
def descent(service_url: str) -> Iterator[Client]:
    with Client(service_url, progress=False) as client:
        yield client


@pytest.fixture(params=["pandas", "polars"])
def frame(request: pytest.FixtureRequest) -> Any:
    return pd.DataFrame(COLUMNS) if request.param == "pandas" else pl.DataFrame(COLUMNS)


def test_a_frame_is_uploaded_with_its_types(descent: Client, frame: Any) -> None:
    dataset = descent.upload(frame, "sizes")
    found = {column.name: (column.type, column.missing) for column in dataset.columns}
    assert found == {
        "size": ("number", 1),
        "count": ("integer", 0),
        "kind": ("category", 1),
        "is_new": ("boolean", 0),
        "at": ("datetime", 0),
    }
    assert dataset.name == "sizes"


def test_a_frame_is_asked_about_as_it_is(frame: Any) -> None:
    body = table_body(frame)["columns"]
    assert body["size"] == [1.5, None, 3.5, 4.5]
    assert body["kind"] == ["a", "b", None, "a"]
    assert body["is_new"] == [True, False, True, True]
    assert body["at"][0] == "2026-01-02T03:04:05+00:00"


def test_values_of_every_library_become_json() -> None:
    values = [np.float32(0.5), np.int64(2), np.bool_(True), pd.NA, pd.NaT, np.nan, Decimal("1.5")]
    assert [frames.plain(value) for value in values] == [0.5, 2, True, None, None, None, 1.5]


def test_columns_may_be_arrays_and_series() -> None:
    table = {"a": np.array([1.0, np.nan]), "b": pd.Series([1, 2]), "c": pl.Series(["x", None])}
    assert table_body(table) == {"columns": {"a": [1.0, None], "b": [1, 2], "c": ["x", None]}}


def test_an_index_that_was_named_is_a_column() -> None:
    named = pd.DataFrame({"a": [1]}, index=pd.Index(["x"], name="key"))
    assert table_body(named) == {"columns": {"key": ["x"], "a": [1]}}
    assert table_body(pd.DataFrame({0: [1]})) == {"columns": {"0": [1]}}


def test_a_column_of_mixed_types_goes_as_csv() -> None:
    file = io.BytesIO()
    mixed = pd.DataFrame({"a": [1, "x"], "b": [None, 2.5]})
    assert frames.write(mixed, "pandas", file) == frames.CSV
    assert file.getvalue() == b"a,b\n1,\nx,2.5\n"


def test_without_pyarrow_pandas_goes_as_csv() -> None:
    source = (
        "import io, sys, pandas; sys.modules['pyarrow'] = None; from descent import frames;"
        "file = io.BytesIO();"
        "print(frames.write(pandas.DataFrame({'a': [1.5]}), 'pandas', file), file.getvalue())"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == r"text/csv b'a\n1.5\n'"


def test_a_library_that_is_lacking_is_named() -> None:
    with pytest.raises(ModuleNotFoundError, match="pip install nonesuch"):
        frames.library("nonesuch.frames")


def test_a_large_frame_is_predicted_in_pieces_by_one_version(descent: Client) -> None:
    config = {"model": {"type": "linear"}, "epochs": 5, "register_as": "in-pieces"}
    descent.submit(descent.upload(SCORES), "Final", **config).wait(60)
    quiz = np.linspace(2.5, 25.0, 25_000)
    answers = descent.model("in-pieces").predict(pd.DataFrame({"Quiz": quiz}))
    assert len(answers) == len(quiz)
    assert (answers.model, answers.version) == ("in-pieces", 1)
    assert answers[-1] == descent.model("in-pieces").predict({"Quiz": 25.0})[0]
    assert answers.frame("pandas").shape == answers.frame("polars").shape == (25_000, 3)


def test_a_service_that_takes_fewer_rows_gets_smaller_pieces(
    run_service: RunService, tmp_path: Path
) -> None:
    with run_service(tmp_path, DESCENT_MAX_PREDICT_ROWS="4") as url, Client(url) as client:
        run = client.submit(client.upload(SCORES), "Final", epochs=2).wait(60)
        assert len(run.predict({"Quiz": [1.0] * 11})) == 11


def test_classes_come_as_columns_of_their_own(descent: Client) -> None:
    flowers = descent.upload(ROOT / "descent" / "data" / "iris.csv")
    run = descent.submit(flowers, "column_5", epochs=5).wait(60)
    answers = run.predict({"column_1": [5.9], "column_2": [3.0]})
    assert [name for name in answers.columns if name.startswith("probability.")] == [
        f"probability.Iris-{kind}" for kind in ("setosa", "versicolor", "virginica")
    ]
    assert answers.frame()["warnings"][0].startswith("column_3: missing: ")


@pytest.mark.parametrize("kind", ["columns", "rows"])
def test_an_infinite_number_costs_only_its_own_row(kind: str) -> None:
    predicted = [{"value": 1.0}, {"value": 2.0}, {"value": 3.0}]
    body = json.dumps({"model": "m", "version": 1, "predictions": predicted}).encode()
    frame = pd.DataFrame({"x": [1.0, np.inf, 3.0], "word": ["a", "b", "c"]})
    table = frame if kind == "columns" else frame.to_dict("records")
    with scripted(Answer(200, body)) as (url, asked), Client(url, progress=False) as client:
        first, second, third = client.model("m").predict(table)
    assert (first.value, second.value, third.value) == (1.0, None, 3.0)
    assert second.error is not None
    assert (second.error.code, second.error.column) == ("non_finite", "x")
    assert b"null" in asked[0].body
