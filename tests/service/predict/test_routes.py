"""Predictions over HTTP: every row has its answer, in order, whatever the other rows hold."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from service.runs import lifecycle
from service.settings import Settings
from service.storage.blobs import LocalBlobs
from service.storage.database import writing
from tests.service import trained
from tests.service.rows import add_run
from tests.service.trained import Trained
from tests.serving import Serve

SCORES = "/api/v1/models/scores/predict"
BOATS = "/api/v1/models/boats/predict"
CSV = {"Content-Type": "text/csv"}


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Return one database's URL: a prediction only looks up a checkpoint, as in `registry`."""
    return sqlite_url


def _codes(prediction: dict[str, Any]) -> list[str]:
    return [warning["code"] for warning in prediction.get("warnings", [])]


def _predict(client: httpx.Client, path: str, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    answer = client.post(path, json={"rows": rows})
    assert answer.status_code == 200, answer.text
    predictions: list[dict[str, Any]] = answer.json()["predictions"]
    assert len(predictions) == len(rows)
    return predictions


def test_rows_and_columns_get_the_same_answer(client: httpx.Client, scores: Trained) -> None:
    rows = client.post(SCORES, json={"rows": [{"Quiz": 10.0}, {"Quiz": 4}]})
    columns = client.post(SCORES, json={"columns": {"Quiz": [10.0, 4]}})
    assert rows.json() == columns.json()
    assert rows.json() == {
        "model": "scores",
        "version": 1,
        "predictions": [{"value": 13.0}, {"value": 5.5}],
    }


def test_versions_and_aliases_predict_as_what_they_are(
    client: httpx.Client, engine: Engine, scores: Trained
) -> None:
    trained.publish(engine, scores, "scores")
    client.put("/api/v1/models/scores/aliases/champion", json={"version": 1})
    for path, version in (("versions/1", 1), ("versions/2", 2), ("aliases/champion", 1)):
        answer = client.post(f"/api/v1/models/scores/{path}/predict", json={"rows": []}).json()
        assert answer == {"model": "scores", "version": version, "predictions": []}


def test_a_run_predicts_with_its_best_checkpoint(client: httpx.Client, scores: Trained) -> None:
    answer = client.post(f"/api/v1/runs/{scores.run_id}/predict", json={"rows": [{"Quiz": 10}]})
    assert answer.json() == {
        "model": None,
        "version": None,
        "run": scores.run_id,
        "checkpoint": scores.checkpoint_id,
        "predictions": [{"value": 13.0}],
    }


def test_a_run_without_a_checkpoint_says_so(client: httpx.Client, engine: Engine) -> None:
    with writing(engine) as session:
        run_id = add_run(session).id
    answer = client.post(f"/api/v1/runs/{run_id}/predict", json={"rows": []})
    assert (answer.status_code, answer.json()["code"]) == (409, "no_checkpoint")


def test_what_is_not_there_does_not_predict(client: httpx.Client, scores: Trained) -> None:
    for path in (
        "models/nobody",
        "models/scores/versions/9",
        "models/scores/aliases/nobody",
        "runs/run_0",
    ):
        answer = client.post(f"/api/v1/{path}/predict", json={"rows": []})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path


def test_one_bad_row_never_fails_the_others(client: httpx.Client, scores: Trained) -> None:
    found = _predict(client, SCORES, {"Quiz": 10}, {"Quiz": "ten"}, {"Quiz": [1]}, {"Quiz": 4})
    assert (found[0], found[3]) == ({"value": 13.0}, {"value": 5.5})
    assert _codes(found[1]) == _codes(found[2]) == ["wrong_type"]


def test_a_value_that_is_no_number_is_its_rows_error(client: httpx.Client, steep: Trained) -> None:
    path = SCORES.replace("scores", "steep")
    good, bad, last = _predict(client, path, {"Quiz": 10}, {"Quiz": 1000}, {"Quiz": 10})
    assert bad["value"] is None
    assert bad["error"]["code"] == "non_finite"
    assert good == last == {"value": pytest.approx(1e37)}


def test_an_extreme_number_is_clipped(client: httpx.Client, scores: Trained) -> None:
    (row,) = _predict(client, SCORES, {"Quiz": 1e308})
    assert row["value"] == pytest.approx(1.25 * (12.5 + 1e7), rel=1e-5)
    assert _codes(row) == ["out_of_range", "clipped"]


def test_a_missing_value_is_imputed_as_in_training(client: httpx.Client, scores: Trained) -> None:
    null, absent = _predict(client, SCORES, {"Quiz": None}, {})
    assert null == absent
    assert null["value"] == 1.25 * 7.5 + 0.5
    assert _codes(null) == ["missing"]


def test_a_list_is_no_category_of_its_row(client: httpx.Client, boats: Trained) -> None:
    listed, good = _predict(client, BOATS, {"Age": 30, "Port": ["NA"]}, {"Age": 30, "Port": "NA"})
    assert (_codes(listed), "warnings" in good) == (["wrong_type"], False)


def test_unknown_categories_and_columns_are_warned_of(client: httpx.Client, boats: Trained) -> None:
    category, column, coerced = _predict(
        client,
        BOATS,
        {"Age": 30, "Port": "Cherbourgh"},
        {"Age": 30, "Port": "Cherbourg", "Cabin": "B5"},
        {"Age": "30", "Port": "Cherbourg"},
    )
    assert _codes(category) == ["unknown_category"]
    assert "Cherbourg" in category["warnings"][0]["detail"]
    assert _codes(column) == ["unknown_column"]
    assert _codes(coerced) == ["coerced"]
    assert column["value"] == coerced["value"]


def test_probabilities_sum_to_one(client: httpx.Client, boats: Trained) -> None:
    for row in _predict(client, BOATS, {"Age": 1, "Port": "NA"}, {"Age": 1e6}, {}):
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["value"] == max(row["probabilities"], key=row["probabilities"].__getitem__)


def test_several_targets_make_the_value_an_object(
    client: httpx.Client, scores: Trained, engine: Engine, blobs: LocalBlobs, tmp_path: Path
) -> None:
    run = trained.store(engine, blobs, tmp_path, trained.both())
    found = _predict(client, f"/api/v1/runs/{run.run_id}/predict", {"Quiz": 5})
    assert found == [{"value": {"A": 5.0, "B": 10.0}}]


def test_problems_are_errors_where_the_client_asks_for_it(
    client: httpx.Client, boats: Trained
) -> None:
    rows = [{"Age": 30, "Port": "NA"}, {"Age": 30, "Port": "?"}, {"Age": "x", "Port": "NA"}]
    answer = client.post(BOATS, json={"rows": rows}, params={"on_problem": "error"}).json()
    good, category, number = answer["predictions"]
    assert "error" not in good
    assert (category["value"], category["error"]["code"]) == (None, "unknown_category")
    assert (number["value"], number["error"]["column"]) == (None, "Age")
    assert client.post(BOATS, json={"rows": []}, params={"on_problem": "x"}).status_code == 422


def test_csv_comes_in_and_goes_out(client: httpx.Client, boats: Trained) -> None:
    answer = client.post(
        BOATS, content="Age,Port\n30,NA\n,Nowhere\n", headers=CSV | {"Accept": "text/csv"}
    )
    assert answer.headers["content-type"].startswith("text/csv")
    header, first, second = answer.text.splitlines()
    assert header == "value,probability.=no,probability.yes,warnings,error"
    assert first.endswith(",,")
    assert "Age: missing" in second
    assert "Port: unknown_category" in second
    assert first.split(",")[0] in {"'=no", "yes"}


def test_csv_and_json_get_the_same_answer(client: httpx.Client, boats: Trained) -> None:
    json = _predict(client, BOATS, {"Age": 30.5, "Port": "NA"}, {"Age": None, "Port": "Cherbourg"})
    csv = client.post(BOATS, content="Port,Age\r\nNA,30.5\r\nCherbourg,NA\r\n", headers=CSV)
    assert csv.json()["predictions"] == json
    lines = '{"Age": 30.5, "Port": "NA"}\n{"Port": "Cherbourg"}\n'
    ndjson = client.post(BOATS, content=lines, headers={"Content-Type": "application/x-ndjson"})
    assert ndjson.json()["predictions"] == json


def test_a_ragged_csv_row_is_that_rows_error(client: httpx.Client, scores: Trained) -> None:
    answer = client.post(SCORES, content="Quiz\n10\n1,2\n4\n", headers=CSV).json()
    first, ragged, last = answer["predictions"]
    assert (first, last) == ({"value": 13.0}, {"value": 5.5})
    assert (ragged["value"], ragged["error"]["code"]) == (None, "ragged_row")


@pytest.mark.parametrize("on_problem", ["warn", "error"])
def test_a_row_that_is_no_object_is_that_rows_error(
    client: httpx.Client, scores: Trained, on_problem: str
) -> None:
    rows = {"rows": [{"Quiz": 10}, 5, [], None]}
    answer = client.post(SCORES, json=rows, params={"on_problem": on_problem}).json()
    first, *others = answer["predictions"]
    assert first == {"value": 13.0}
    assert [(row["value"], row["error"]["code"]) for row in others] == [(None, "malformed_row")] * 3


def test_a_run_names_the_version_that_it_made(
    client: httpx.Client, engine: Engine, scores: Trained
) -> None:
    url = f"/api/v1/runs/{scores.run_id}/predict"
    body = client.post(url, json={"rows": []}).json()
    assert (body["model"], body["version"]) == (None, None)
    with writing(engine) as session:
        run = lifecycle.get(session, scores.run_id)
        run.model_name, run.model_version = "scores", 1
    body = client.post(url, json={"rows": []}).json()
    assert (body["model"], body["version"]) == ("scores", 1)
    assert (body["run"], body["checkpoint"]) == (scores.run_id, scores.checkpoint_id)


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 400, None),
        (b"{", 400, "malformed_json"),
        (b'{"rows": [{"Quiz": NaN}]}', 400, "non_finite_number"),
        (b'{"rows": [{"Quiz": 1, "Quiz": 2}]}', 400, "duplicate_key"),
        (b'{"rows": 5}', 422, "invalid"),
        (b"[]", 422, "invalid"),
    ],
)
def test_a_malformed_body_is_refused(
    client: httpx.Client, scores: Trained, content: bytes, status: int, code: str | None
) -> None:
    answer = client.post(SCORES, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert code in {None, answer.json()["code"]}


def test_another_content_type_is_refused(client: httpx.Client, scores: Trained) -> None:
    answer = client.post(SCORES, content=b"x", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_more_rows_than_the_limit_are_refused(
    client: httpx.Client, settings: Settings, scores: Trained
) -> None:
    columns = {"Quiz": [1] * (settings.max_predict_rows + 1)}
    answer = client.post(SCORES, json={"columns": columns})
    assert answer.status_code == 413
    assert "DESCENT_MAX_PREDICT_ROWS" in answer.json()["detail"]


def test_as_many_rows_as_the_limit_are_predicted(
    client: httpx.Client, settings: Settings, boats: Trained
) -> None:
    found = _predict(client, BOATS, *[{} for _ in range(settings.max_predict_rows)])
    assert _codes(found[-1]) == ["missing", "missing"]


def test_a_damaged_checkpoint_is_named_and_not_used(
    client: httpx.Client, scores: Trained, blobs: LocalBlobs, tmp_path: Path
) -> None:
    path = blobs.fetch(scores.sha256, tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    for url in (SCORES, f"/api/v1/runs/{scores.run_id}/predict"):
        answer = client.post(url, json={"rows": [{"Quiz": 1}]})
        assert (answer.status_code, answer.json()["code"]) == (409, "checkpoint_corrupt")
    artifact = client.get("/api/v1/models/scores/versions/1/artifact")
    assert artifact.json()["code"] == "checkpoint_corrupt"


def test_a_body_larger_than_the_limit_is_refused(
    serve: Serve, settings: Settings, scores: Trained
) -> None:
    client = serve(settings.model_copy(update={"max_predict_bytes": 1024}))
    assert client.post(SCORES, json={"rows": []}).status_code == 200
    answer = client.post(SCORES, json={"columns": {"Quiz": [1] * 2000}})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert "DESCENT_MAX_PREDICT_BYTES" in answer.json()["detail"]
