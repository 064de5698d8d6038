"""Intervals and sets in the answers to predictions, over HTTP."""

import csv
import io
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine

from models.predict.intervals import (
    Calibration,
    ClassCalibration,
    LineCalibration,
    NumberCalibration,
    Scale,
    Scores,
)
from service.datasets.messages import CSV, NDJSON, PARQUET
from tests.service import trained
from tests.service.trained import Store

QUIZ = {"rows": [{"Quiz": 10.0}, {"Quiz": 4.0}]}
Publish = Callable[[dict[str, Any], Calibration], None]


def numbers(*errors: float) -> NumberCalibration:
    """Return the calibration of targets whose 99 held-out rows had these errors."""
    scores = tuple(Scores.of(np.full(99, error), 99) for error in errors)
    return NumberCalibration(scores, (Scale(np.zeros(1), np.ones(1)),) * len(errors))


def classes(score: float) -> ClassCalibration:
    return ClassCalibration(Scores.of(np.full(99, score), 99))


@pytest.fixture
def publish(engine: Engine, store: Store) -> Publish:
    def stored(model: dict[str, Any], calibration: Calibration) -> None:
        trained.publish(engine, store(trained.sure(model, calibration)), "sure")

    return stored


def ask(client: httpx.Client, body: object, level: str = "0.9", accept: str = "") -> httpx.Response:
    headers = {"Accept": accept} if accept else {}
    path = f"/api/v1/models/sure/predict?interval={level}"
    return client.post(path, json=body, headers=headers)


def predictions(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["predictions"]
    return found


def test_a_number_has_an_interval_in_every_format(client: httpx.Client, publish: Publish) -> None:
    publish(trained.scores(), numbers(2.0))
    bounds = [[11.0, 15.0], [3.5, 7.5]]
    wanted = [pytest.approx(each, rel=1e-5) for each in bounds]
    assert [each["interval"] for each in predictions(ask(client, QUIZ))] == wanted
    by_columns = {"columns": {"Quiz": [10.0, 4.0]}}
    assert [each["interval"] for each in predictions(ask(client, by_columns))] == wanted
    lines = ask(client, QUIZ, accept=NDJSON).content.splitlines()
    assert [orjson.loads(line)["interval"] for line in lines] == wanted
    table = list(csv.DictReader(io.StringIO(ask(client, QUIZ, accept=CSV).text)))
    assert list(table[0]) == ["value", "value_low", "value_high", "warnings", "error"]
    pairs = [[float(row["value_low"]), float(row["value_high"])] for row in table]
    assert pairs == wanted
    file = pq.read_table(io.BytesIO(ask(client, QUIZ, accept=PARQUET).content)).to_pydict()
    assert list(zip(file["value_low"], file["value_high"], strict=True)) == [
        pytest.approx(tuple(each), rel=1e-5) for each in bounds
    ]


def test_without_interval_an_answer_is_as_before(client: httpx.Client, publish: Publish) -> None:
    publish(trained.scores(), numbers(2.0))
    found = client.post("/api/v1/models/sure/predict", json=QUIZ)
    assert predictions(found) == [{"value": 13.0}, {"value": 5.5}]


def test_several_targets_have_an_interval_each(client: httpx.Client, publish: Publish) -> None:
    publish(trained.both(), numbers(1.0, 3.0))
    (first, _) = predictions(ask(client, QUIZ))
    assert first["interval"] == {
        "A": pytest.approx([9.0, 11.0], rel=1e-5),
        "B": pytest.approx([17.0, 23.0], rel=1e-5),
    }
    table = list(csv.DictReader(io.StringIO(ask(client, QUIZ, accept=CSV).text)))
    assert float(table[0]["value.B_high"]) == pytest.approx(23.0, rel=1e-5)


def test_a_line_is_less_sure_far_from_its_training_rows(
    client: httpx.Client, publish: Publish
) -> None:
    line = LineCalibration(5, 3, np.array([1.0]), np.array([7.5]), np.array([[1 / 62.5]]))
    publish(trained.scores(), line)
    (near, far) = predictions(ask(client, {"rows": [{"Quiz": 7.5}, {"Quiz": 12.5}]}))
    # Student's quantile for 90 % and 3 degrees of freedom is 2.3534.
    half = 2.353363 * np.sqrt([1 + 1 / 5, 1 + 1 / 5 + 25 / 62.5])
    assert near["interval"] == pytest.approx([9.875 - half[0], 9.875 + half[0]], rel=1e-5)
    assert far["interval"] == pytest.approx([16.125 - half[1], 16.125 + half[1]], rel=1e-5)


def test_a_class_has_a_set_likeliest_first(client: httpx.Client, publish: Publish) -> None:
    publish(trained.boats(), classes(0.99))
    body = {"rows": [{"Age": 30, "Port": "NA"}, "no object"]}
    good, bad = predictions(ask(client, body))
    assert good["set"][0] == good["value"]
    assert sorted(good["set"]) == ["=no", "yes"]
    assert "set" not in bad
    (row, _) = csv.DictReader(io.StringIO(ask(client, body, accept=CSV).text))
    assert orjson.loads(row["set"]) == good["set"]
    file = pq.read_table(io.BytesIO(ask(client, body, accept=PARQUET).content))
    assert file.column("set").to_pylist() == [good["set"], None]


def test_a_row_without_an_answer_has_no_interval(client: httpx.Client, publish: Publish) -> None:
    publish(trained.steep(), numbers(2.0))
    good, bad = predictions(ask(client, {"rows": [{"Quiz": 10.0}, {"Quiz": 1000.0}]}))
    assert "interval" in good
    assert bad["error"]["code"] == "non_finite"
    assert "interval" not in bad


def test_a_model_without_a_calibration_is_refused_with_the_remedy(
    client: httpx.Client, scores: trained.Trained
) -> None:
    answer = client.post("/api/v1/models/scores/predict?interval=0.9", json=QUIZ)
    assert (answer.status_code, answer.json()["code"]) == (409, "not_calibrated")
    assert "held out" in answer.json()["detail"]


def test_a_level_beyond_the_rows_is_refused_and_names_the_best_one(
    client: httpx.Client, publish: Publish
) -> None:
    few = NumberCalibration((Scores.of(np.ones(3), 9),), (Scale(np.zeros(1), np.ones(1)),))
    publish(trained.scores(), few)
    answer = ask(client, QUIZ)
    assert (answer.status_code, answer.json()["code"]) == (422, "interval_not_possible")
    assert "at least 9 held-out rows" in answer.json()["detail"]
    assert "calibrated on 3: ask for at most 0.75" in answer.json()["detail"]
    assert len(predictions(ask(client, QUIZ, "0.75"))) == 2
    for level in ("0.4", "1", "much"):
        assert ask(client, QUIZ, level).status_code == 422
