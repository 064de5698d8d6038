"""Any body gets a clear refusal, or one answer for each row, finite or with an error."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import checkpoint
from models.data import Categories, Table
from models.features.encoding import Features
from models.predict.predictor import Predictor
from service.predict import routes
from service.predict.answers import to_csv, to_json
from service.predict.bodies import CSV, JSON, NDJSON, Answer
from service.predict.routes import PredictionBody
from service.protocols import mlflow
from tests.service import trained

#: slow answers of a busy machine are no failure
BOUNDED = settings(deadline=None, max_examples=60)
COLUMNS = ["number", "integer", "flag", "day", "word", "nobody"]
HARD = [
    "",
    "NA",
    "?",
    "10",
    " 1 ",
    "1_0",
    "1e400",
    "inf",
    "nan",
    "true",
    "2020-02-30",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59Z",
    "=1+1",
    2**63 - 1,
    1e308,
    -1e308,
    5e-324,
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(HARD),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
)
CELLS = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.just("a"), SCALARS)
ROWS = st.lists(st.dictionaries(st.sampled_from(COLUMNS), CELLS), max_size=6)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    table = Table(
        types={
            "number": "number",
            "integer": "integer",
            "flag": "boolean",
            "day": "datetime",
            "word": "category",
            "y": "number",
        },
        columns={
            "number": np.array([1.0, 2, np.nan, 4]),
            "integer": np.array([1.0, 2, 3, 4]),
            "flag": np.array([0.0, 1, 0, 1]),
            "day": np.array([0.0, 1e8, 2e8, 3e8]),
            "word": Categories(np.array([0, 1, 2, -1], dtype=np.int32), ["a", "b", "NA"]),
            "y": np.array([1.0, 2, 3, 4]),
        },
        rows=4,
    )
    features = Features.fit(
        table,
        np.arange(4),
        features=COLUMNS[:5],
        targets=["y"],
        task="regression",
        standardize=True,
    )
    saved = trained.saved(features, [list(np.linspace(-1, 1, features.width))], [0.1])
    path: Path = tmp_path_factory.mktemp("predictor") / "file"
    checkpoint.write(path, saved["tensors"], saved["document"])
    return Predictor.load(path)


def answered(predictor: Predictor, asked: PredictionBody) -> list[Answer]:
    return routes.answered(predictor, asked, routes.read_text(predictor, asked, 100, mlflow))


def _check(predictor: Predictor, media_type: str, content: bytes, rows: int) -> None:
    found = answered(predictor, PredictionBody(media_type, content))
    sent = orjson.loads(to_json({}, found))["predictions"]
    assert len(sent) == rows
    for row in sent:
        assert ("error" in row) == (row["value"] is None)
        assert row["value"] is None or math.isfinite(row["value"])
    assert len(list(csv.reader(io.StringIO(to_csv(found, ["y"], []).decode())))) == rows + 1


@BOUNDED
@given(rows=ROWS)
def test_any_rows_are_answered(predictor: Predictor, rows: list[dict[str, Any]]) -> None:
    _check(predictor, JSON, orjson.dumps({"rows": rows}), len(rows))
    lines = b"\n".join(map(orjson.dumps, rows))
    if rows:
        _check(predictor, NDJSON, lines, len(rows))


@BOUNDED
@given(rows=st.lists(st.lists(SCALARS, min_size=1, max_size=7), max_size=6))
def test_any_csv_is_answered(predictor: Predictor, rows: list[list[Any]]) -> None:
    out = io.StringIO()
    csv.writer(out).writerows([COLUMNS, *rows])
    _check(predictor, CSV, out.getvalue().encode(), len(rows))


@BOUNDED
@given(value=SCALARS.filter(lambda value: isinstance(value, float | bool)))
def test_rows_do_not_touch_each_other(predictor: Predictor, value: object) -> None:
    alone = [{"number": 1.5, "word": "a"}]
    (expected,) = answered(predictor, PredictionBody(JSON, orjson.dumps({"rows": alone})))
    rows = [{"number": value, "day": value}, *alone, {"word": value, "integer": value}]
    found = answered(predictor, PredictionBody(JSON, orjson.dumps({"rows": rows})))
    assert found[1]["value"] == pytest.approx(expected["value"], rel=1e-6)
    assert found[1]["warnings"] == expected["warnings"]
