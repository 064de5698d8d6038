import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest

from descent.spec import ColumnType
from models.errors import CheckpointCorrupt
from models.model import GraphModel
from models.nets.graph import chain
from models.predict import bulk
from models.predict.bulk import Bulk, Texts
from models.predict.predictor import Prediction, Predictor
from tests.models.samples import LINE, QUIZ, SURVIVAL, learn, passengers, scores

ROWS = 400
TYPES: dict[str, ColumnType] = {
    "Sex": "category",
    "Age": "number",
    "Port": "category",
    "Alone": "boolean",
    "Boarded": "datetime",
    "Class": "integer",
}


@pytest.fixture(scope="module")
def survival(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    config = SURVIVAL | {"epochs": 10, "split": {"type": "none"}}
    outcome = learn(passengers(), tmp_path_factory.mktemp("survival"), config)
    return Predictor.load(outcome.saved[-1].path)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    outcome = learn(scores(), tmp_path_factory.mktemp("line"), LINE | {"epochs": 5})
    return Predictor.load(outcome.saved[-1].path)


def people() -> dict[str, list[Any]]:
    """Rows, many of which have missing values, or values that no training row has."""
    random = np.random.default_rng(11)

    def some(values: list[Any]) -> list[Any]:
        return [values[place] for place in random.integers(0, len(values), ROWS)]

    times = [datetime(2021, 3, day, day, tzinfo=UTC).replace(tzinfo=None) for day in range(1, 20)]
    return {
        "Sex": some(["female", "male", "male", "femal", None]),
        "Age": some([*random.uniform(1, 80, 40).tolist(), None, -3.0, 300.0, 1e30]),
        "Port": some(["C", "Q", "S", "Z", "", None]),
        "Alone": some([True, False, None]),
        "Boarded": some([*times, None, datetime(1950, 1, 1)]),  # noqa: DTZ001  stored tables are in UTC
        "Class": some([1, 2, 3, 7, None]),
    }


def batch(columns: dict[str, list[Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


def as_sent(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the columns as a client writes them in JSON."""
    return {
        name: [f"{v.isoformat()}Z" if isinstance(v, datetime) else v for v in values]
        for name, values in columns.items()
    }


def told(prediction: Prediction) -> str:
    return "; ".join(f"{problem.column}: {problem.code}" for problem in prediction.warnings)


def nothing() -> None:
    """The pulse of work that is never stopped."""


def compare(
    predictor: Predictor,
    columns: dict[str, list[Any]],
    types: dict[str, ColumnType],
    on_problem: Literal["warn", "error"],
) -> bulk.Answers:
    """Predict both ways and compare; return the columns."""
    answers = Bulk(predictor, types, on_problem).predict(batch(columns), nothing)
    rows = len(next(iter(columns.values())))
    wanted = predictor.predict(as_sent(columns), rows, on_problem=on_problem)
    found: list[Any] = [column.to_pylist() for column in answers.columns]
    values, *shares, warnings, errors = found
    for row, prediction in enumerate(wanted):
        assert values[row] == (
            prediction.value
            if not isinstance(prediction.value, float)
            else pytest.approx(prediction.value, rel=1e-6)
        )
        for place, share in enumerate((prediction.probabilities or {}).values()):
            assert shares[place][row] == pytest.approx(share, abs=1e-6)
        assert (warnings[row] or "") == told(prediction)
        assert (errors[row] is None) == (prediction.error is None)
        if prediction.error is not None:
            where = f"{prediction.error.column}: " if prediction.error.column else ""
            assert errors[row].startswith(f"{where}{prediction.error.code}: ")
    counted = Counter(problem.code for prediction in wanted for problem in prediction.warnings)
    assert answers.warnings == counted
    assert answers.errors == sum(prediction.error is not None for prediction in wanted)
    return answers


@pytest.mark.parametrize("on_problem", ["warn", "error"])
def test_a_table_is_answered_like_the_same_rows_in_a_request(
    survival: Predictor, on_problem: Literal["warn", "error"]
) -> None:
    answers = compare(survival, people(), TYPES, on_problem)
    assert answers.warnings.keys() >= {"missing", "out_of_range", "clipped"}
    assert (answers.errors > 0) == (on_problem == "error")


def test_tables_of_other_types_than_the_model_has_are_read_like_in_a_request(
    survival: Predictor,
) -> None:
    columns = people() | {
        "Sex": [1] * ROWS,
        "Age": ["30", "x", "1e3", None] * (ROWS // 4),
        "Alone": ["yes", "no", "maybe", None] * (ROWS // 4),
        "Class": [2.5, 2.0, None, 1.0] * (ROWS // 4),
        "Boarded": ["2020-11-01", "never", None, "2020-11-01T12:00:00Z"] * (ROWS // 4),
    }
    types: dict[str, ColumnType] = {
        "Sex": "integer",
        "Age": "text",
        "Port": "category",
        "Alone": "category",
        "Class": "number",
        "Boarded": "text",
    }
    answers = compare(survival, columns, types, "warn")
    assert answers.warnings.keys() >= {"coerced", "wrong_type", "unknown_category"}
    compare(survival, columns, types, "error")


def test_a_column_that_the_table_lacks_is_missing_in_every_row(survival: Predictor) -> None:
    columns = people()
    del columns["Age"], columns["Sex"]
    answers = Bulk(survival, TYPES, "warn").predict(batch(columns), nothing)
    assert answers.warnings["missing"] >= 2 * ROWS


def test_a_row_without_a_finite_answer_is_an_error_of_its_own(line: Predictor) -> None:
    parameters = {"0.weight": np.full((1, 1), 3e38, np.float32), "0.bias": np.ones(1, np.float32)}
    steep = Predictor(GraphModel(line.features, chain(1, [{"linear": 1}]), parameters))
    mean = float(np.mean(QUIZ))
    compare(steep, {"Quiz": [mean, 1000.0, mean]}, {"Quiz": "number"}, "warn")
    answers = Bulk(steep, {"Quiz": "number"}, "warn").predict(batch({"Quiz": [1e3, mean]}), nothing)
    found: list[Any] = [column.to_pylist() for column in answers.columns]
    values, _warnings, errors = found
    assert (values[0], errors[1], answers.errors) == (None, None, 1)
    assert "not finite" in errors[0]


def test_rows_beyond_a_block_are_answered_like_those_within(line: Predictor) -> None:
    columns = {"Quiz": np.linspace(0, 30, 3 * bulk.BLOCK_ROWS[1] + 7).tolist()}
    answers = Bulk(line, {"Quiz": "number"}, "warn").predict(batch(columns), nothing)
    wanted = [p.value for p in line.predict(dict(columns), len(columns["Quiz"]))]
    assert answers.columns[0].to_pylist() == pytest.approx(wanted, rel=1e-6)


def test_whoever_wants_the_end_gets_it_within_a_block(line: Predictor) -> None:
    class Enough(Exception):
        pass

    def stop() -> None:
        raise Enough

    with pytest.raises(Enough):
        Bulk(line, {"Quiz": "number"}, "warn").predict(batch({"Quiz": [1.0]}), stop)


def test_texts_of_a_row_are_joined_in_the_order_in_which_they_came() -> None:
    texts = Texts(3)
    texts.add(np.array([0, 1, 1]), ["", "a"])
    texts.add(np.array([0, 0, 2]), ["", "b", "c"])
    assert texts.to_arrow().to_pylist() == [None, "a", "a; c"]


def test_an_infinite_number_of_a_table_is_missing_as_in_training(line: Predictor) -> None:
    answers = Bulk(line, {"Quiz": "number"}, "warn").predict(
        batch({"Quiz": [np.inf, -np.inf, None, 10.0]}), nothing
    )
    first, second, missing, known = answers.columns[0].to_pylist()
    assert first == second == missing != known
    assert answers.warnings == {"missing": 1, "non_finite": 2}


def test_intervals_and_sets_are_columns_beside_the_predictions(tmp_path: Path) -> None:
    exact = {"optimizer": {"type": "lbfgs"}, "batch_size": "full", "epochs": 20}
    saved = learn(scores(), tmp_path, LINE | exact).saved[-1].path
    sure = Predictor.load(saved)
    answers = Bulk(sure, {"Quiz": "number"}, "warn", 0.9).predict(batch({"Quiz": [10.0]}), nothing)
    value, low, high = (column[0].as_py() for column in answers.columns[:3])
    assert (value, low, high) == (
        pytest.approx(13.77, abs=0.01),
        pytest.approx(5.02, abs=0.05),
        pytest.approx(22.51, abs=0.05),
    )


def test_a_column_of_sets_has_the_likeliest_class_first(tmp_path: Path) -> None:
    sure = Predictor.load(learn(passengers(), tmp_path, SURVIVAL).saved[-1].path)
    answers = Bulk(sure, TYPES, "warn", 0.9).predict(batch(people()), nothing)
    values, sets = answers.columns[0].to_pylist(), answers.columns[1].to_pylist()
    assert [json.loads(str(each))[0] for each in sets] == values


def test_a_model_without_a_calibration_has_no_intervals(line: Predictor) -> None:
    with pytest.raises(CheckpointCorrupt, match="no calibration"):
        Bulk(line, {"Quiz": "number"}, "warn", 0.9)
